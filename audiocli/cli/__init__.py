"""The desk: flags become a request and one call. Modules here hold signatures; bodies import what they need."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import import_module

import typer

from ..context import AppContext
from ..errors import UsageError
from . import options

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"]}


# Every command, with the module it lives in. A module with a `build` is a group of commands, any other has a function
# of the command's name.
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


# What each is for, for the list of all: making them all would take as long as the rest of it. A test compares.
SUMMARIES = {
    "speak": "Turn text into audio: to a file, a pipe or the loudspeaker.",
    "transcribe": "Turn recordings into text or captions.",
    "chat": "Talk with a model: text, recordings or both, answered as text or as sound.",
    "jobs": "Work that gateways do in their own time.",
    "models": "List the models that speak, transcribe and talk, with their prices.",
    "voices": "List the voices of the models that speak.",
    "usage": "What was spent, from the ledger.",
    "budget": "Caps on what is spent, and what is left of them.",
    "config": "What holds, where it comes from, and what is wrong.",
    "keys": "Keep keys in a file that only you can read.",
    "completion": "Print the file from which bash, zsh or fish completes.",
}


def build(only: str | None = None, *, is_list: bool = False) -> typer.Typer:
    """Assemble the command tree, or the one branch that a command line asks for: typer looks at every flag it has.

    `is_list`: the names and what they are for, which is enough for help and for names that are none.

    Rich help would add 74 ms to every command, pretty tracebacks 500.
    """
    app = typer.Typer(
        name="audiocli",
        help="Text to speech and speech to text through AI gateways.",
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        context_settings=CONTEXT_SETTINGS,
    )
    for name, home in COMMANDS.items():
        if is_list:
            app.command(name, help=SUMMARIES[name])(_nothing)
        elif only in (None, name):
            module = import_module(f".{home}", __name__)
            if hasattr(module, "build"):
                app.add_typer(module.build(), name=name)
            else:
                app.command(name)(getattr(module, name))

    @app.callback()
    def options(
        version: bool = typer.Option(
            False, "--version", "-V", callback=_print_version, is_eager=True, help="Print the version and leave."
        ),
    ) -> None:
        """Text to speech and speech to text through AI gateways."""

    return app


def _nothing() -> None:
    """Stand for a command that is only listed."""


def _print_version(asked: bool) -> None:
    if asked:
        from .. import __version__

        typer.echo(f"audiocli {__version__}")
        raise typer.Exit


def run(argv: Sequence[str], env: AppContext) -> int:
    """Run a command line. Raises: AudiocliError, KeyboardInterrupt."""
    printed = io.StringIO()
    env.argv = tuple(argv)
    only = argv[0] if argv and argv[0] in COMMANDS else None
    try:
        with redirect_stdout(printed):
            code = build(only, is_list=only is None)(
                args=list(argv), obj=env, standalone_mode=False, prog_name="audiocli"
            )
    except typer.Exit as error:
        code = error.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    except typer.TyperException as error:
        text = error.format_message() if hasattr(error, "format_message") else str(error)
        if type(error).__name__ == "NoArgsIsHelpError":
            printed.write(text + "\n")
            code = 0
        else:
            command = next((word for word in argv if word in COMMANDS), "")
            told = text.rstrip(".") or "wrong usage"
            hint = " ".join(filter(None, ("audiocli", command, "--help tells more")))
            raise UsageError(told[0].lower() + told[1:], hint=hint) from error
    if printed.getvalue():
        options.build_console(env, is_quiet=False, is_debugging=False).write_text(printed.getvalue())
    return code if isinstance(code, int) else 0
