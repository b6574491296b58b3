"""The desk: flags become a request and one call. Modules here hold signatures; bodies import what they need."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import import_module

import typer

from ..env import Env
from ..errors import UsageError
from . import options

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"]}


# Every command and the module it lives in. A module with a `build` is a group of commands, any other has a function of
# the command's name.
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


def build(only: str | None = None) -> typer.Typer:
    """Assemble the command tree, or the one branch that a command line asks for: typer looks at every flag it has.

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
        if only in (None, name):
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


def _print_version(asked: bool) -> None:
    if asked:
        from .. import __version__

        typer.echo(f"audiocli {__version__}")
        raise typer.Exit


def run(argv: Sequence[str], env: Env) -> int:
    """Run a command line. Raises: AudiocliError, KeyboardInterrupt."""
    printed = io.StringIO()
    env.argv = tuple(argv)
    try:
        with redirect_stdout(printed):
            code = build(argv[0] if argv and argv[0] in COMMANDS else None)(
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
        options.screen_of(env, is_quiet=False, is_debugging=False).emit(printed.getvalue())
    return code if isinstance(code, int) else 0
