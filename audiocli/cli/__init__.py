"""The command line: assemble the Typer commands and run one.

Command modules import what they need inside of functions, so that a command loads only its own dependencies.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import import_module

import typer

from ..context import AppContext
from ..errors import ExitCode, UsageError

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"]}


# Command names and their modules. A module with a `build` function is a group; others have a function of that name.
COMMANDS = {
    "speak": "speak",
    "transcribe": "transcribe",
    "chat": "chat",
    "jobs": "jobs",
    "models": "models",
    "voices": "models",
    "usage": "usage",
    "budget": "budget",
    "config": "config",
    "keys": "keys",
    "completion": "completion",
}


# The first docstring line of each command, for `audiocli --help`: building every command would double its time.
# tests/test_architecture.py compares them.
SUMMARIES = {
    "speak": "Speak text to a file, a pipe or a player.",
    "transcribe": "Transcribe recordings to text or captions.",
    "chat": "Send text or recordings to a model and get its reply.",
    "jobs": "Manage background jobs.",
    "models": "List speech, transcription and chat models with their prices.",
    "voices": "List the voices of speech models.",
    "usage": "Report spending from the ledger.",
    "budget": "Show and set spending limits.",
    "config": "Show and check the configuration.",
    "keys": "Manage API keys in a private file.",
    "completion": "Print a completion script for bash, zsh or fish.",
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


def _is_operand(word: str, option: str) -> bool:
    """Return whether a word that was parsed as an unknown option is a number, a sentence or the name of a file."""
    if not word.startswith(option) or word.startswith("--"):
        return False
    return word[1:2].isdigit() or " " in word or os.path.exists(word)  # noqa: PTH110


def run(argv: Sequence[str], app: AppContext) -> int:
    """Run a command line and return its exit code.

    Raises:
        AudiocliError: The command failed.
        KeyboardInterrupt: The command was interrupted.
    """
    help_text = io.StringIO()
    app.argv = tuple(argv)
    only = argv[0] if argv and argv[0] in COMMANDS else None
    try:
        with redirect_stdout(help_text):
            code = build(only, names_only=only is None)(
                args=list(argv), obj=app, standalone_mode=False, prog_name="audiocli"
            )
    except typer.Exit as error:
        code = error.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    except typer.TyperException as error:
        text = error.format_message() if hasattr(error, "format_message") else str(error)
        if type(error).__name__ == "NoArgsIsHelpError":
            help_text.write(text + "\n")
            code = ExitCode.OK
        else:
            command = next((word for word in argv if word in COMMANDS), None)
            message = text.rstrip(".") or "invalid usage"
            hint = f"see 'audiocli {command} --help'" if command else "see 'audiocli --help'"
            option = getattr(error, "option_name", None)
            word = next((word for word in argv if option is not None and _is_operand(word, option)), None)
            if word is not None and command is not None:
                import shlex

                hint = f"put -- before what begins with a hyphen: audiocli {command} -- {shlex.quote(word)}"
            raise UsageError(message[0].lower() + message[1:], hint=hint) from error
    if help_text.getvalue():
        app.create_console().write_text(help_text.getvalue())
    return code if isinstance(code, int) else ExitCode.OK
