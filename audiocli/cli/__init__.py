"""The command line: assemble the Typer commands and run one.

Command modules import what they need inside of functions, so that a command loads only its own dependencies.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import import_module
from typing import Any

import typer
from typer.main import get_command

from ..context import AppContext, ColorMode
from ..errors import ExitCode
from .options import Color

HELP_OPTIONS = frozenset({"-h", "--help"})
CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"]}


# Command names and their modules. A module with a `build` function is a group; others have a function of that name.
COMMANDS = {
    "speak": "speak",
    "transcribe": "transcribe",
    "captions": "captions",
    "chat": "chat",
    "jobs": "jobs",
    "models": "models",
    "voices": "models",
    "usage": "usage",
    "budget": "budget",
    "cache": "cache",
    "config": "config",
    "keys": "keys",
    "mock": "mock",
    "init": "init",
    "completion": "completion",
    "report": "report",
    "help": "help",
}


# The first docstring line of each command, for `audiocli --help`: building every command would double its time.
# tests/test_architecture.py compares them.
SUMMARIES = {
    "speak": "Speak text to a file, a pipe or a player.",
    "transcribe": "Transcribe recordings to text or captions.",
    "captions": "Check, convert, shift, scale, merge and split caption files.",
    "chat": "Send text or recordings to a model and get its reply.",
    "jobs": "Manage background jobs.",
    "models": "List speech, transcription and chat models with their prices.",
    "voices": "List the voices of speech models.",
    "usage": "Report spending from the ledger.",
    "budget": "Show and set spending limits.",
    "cache": "Show and remove stored results and cached responses.",
    "config": "Show and check the configuration.",
    "keys": "Manage API keys in a private file.",
    "mock": "Run a command or a server with a mock gateway that costs nothing.",
    "init": "Set up a gateway, its key, a default voice and shell completion.",
    "completion": "Print or install a completion script for bash, zsh or fish.",
    "report": "Write an archive for a bug report, without keys.",
    "help": "Show help for a command or a topic.",
}


def build(only: str | None = None, *, names_only: bool = False) -> typer.Typer:
    """Build the command tree, or only the branch of one command, because Typer processes every option it has.

    `names_only` builds commands without options, which is enough for help and for unknown commands.

    Rich help would add 74 ms to every command, pretty tracebacks 500 ms.
    """
    program = typer.Typer(
        name="audiocli",
        help="Text to speech and speech to text through AI gateways.",
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        context_settings=CONTEXT_SETTINGS,
    )
    for name, module_name in COMMANDS.items():
        if names_only:
            program.command(name, help=SUMMARIES[name])(_do_nothing)
        elif only in (None, name):
            module = import_module(f".{module_name}", __name__)
            if hasattr(module, "build"):
                program.add_typer(module.build(), name=name)
            else:
                program.command(name)(getattr(module, name))

    @program.callback()
    def options(
        version: bool = typer.Option(
            False, "--version", "-V", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
        color: Color = ColorMode.AUTO,
    ) -> None:
        """Text to speech and speech to text through AI gateways."""

    return program


def _do_nothing() -> None:
    """Stand in for a command that is only listed."""


def _print_version(value: bool) -> None:
    if value:
        from .. import __version__

        typer.echo(f"audiocli {__version__}")
        raise typer.Exit


def run(argv: Sequence[str], app: AppContext) -> int:
    """Run a command line and return its exit code.

    Raises:
        AudiocliError: The command failed.
        KeyboardInterrupt: The command was interrupted.
    """
    arguments = list(argv)
    if arguments and arguments[0].startswith("-"):
        from .mistakes import move_general_flags

        arguments = move_general_flags(arguments)
    only = arguments[0] if arguments and arguments[0] in COMMANDS else None
    program: Any = get_command(build(only, names_only=only is None))
    subcommands = getattr(program.commands.get(only), "commands", None)
    if subcommands and len(arguments) > 1 and arguments[1].startswith("-"):
        from .mistakes import move_general_flags

        arguments[1:] = move_general_flags(arguments[1:])
    app.argv = tuple(arguments)
    if not HELP_OPTIONS.isdisjoint(arguments[: arguments.index("--")] if "--" in arguments else arguments):
        from .help import prepare

        prepare(program, app.variables, has_color=app.has_color(app.stdout))
    output = io.StringIO()
    try:
        with redirect_stdout(output):
            code = program.main(args=arguments, obj=app, standalone_mode=False, prog_name="audiocli")
    except typer.Exit as error:
        code = error.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    except typer.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            return run([*arguments, "--help"], app)
        from .mistakes import build_error, rewrite

        rewritten = rewrite(arguments, error, COMMANDS)
        if rewritten is not None:
            return run(rewritten, app)
        raise build_error(arguments, error, program, COMMANDS) from error
    if output.getvalue():
        from .help import write_page

        write_page(app, output.getvalue())
    return code if isinstance(code, int) else ExitCode.OK
