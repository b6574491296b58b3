"""Run one command line: turn errors into messages and exit codes, in one place."""

from __future__ import annotations

import time
from collections.abc import Sequence

from .context import AppContext, ColorMode
from .errors import AudiocliError, ExitCode, OutputClosed, UsageError
from .system_limits import check_address_space, find_refused_resource


def main(argv: Sequence[str], app: AppContext) -> int:
    """Run one command line and return its exit code. Does not raise."""
    flags = argv[: argv.index("--")] if "--" in argv else argv
    app.color_mode = _find_color_mode(flags)
    try:
        check_address_space()
        from . import cli

        return cli.run(argv, app)
    except (OutputClosed, BrokenPipeError):
        return ExitCode.OK
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except AudiocliError as error:
        _report_error(error, flags, app)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - a bug is reported in one line too, with its traceback under --debug
        reported = _find_environment_error(error) or _build_bug_error(error)
        reported.__cause__ = error
        _report_error(reported, flags, app)
        return reported.exit_code
    finally:
        app.ring_bell()
        app.close()


def _find_color_mode(flags: Sequence[str]) -> ColorMode:
    """Return the last value of `--color`. Help and errors of the parser have colors too, so it is read before parsing.

    Typer reports a value that is not valid.
    """
    mode = ColorMode.AUTO
    for index, word in enumerate(flags):
        name, equals, value = word.partition("=")
        if name == "--color":
            value = value if equals else "".join(flags[index + 1 : index + 2])
            mode = ColorMode(value) if value in list(ColorMode) else mode
    return mode


def _find_environment_error(error: Exception) -> AudiocliError | None:
    """Return the error for an exception that any line may raise, because the system refuses a file, memory or a thread.

    An import then fails with an OSError, or with an ImportError of the system's dynamic linker. Python reads clocks up
    to the year 2262.
    """
    try:
        time.time()
    except OverflowError:
        return UsageError("the clock of this computer is out of range", hint="set the date")
    refused = find_refused_resource(error)
    return None if refused is None else UsageError(refused.message, hint=refused.hint)


def _build_bug_error(cause: Exception) -> AudiocliError:
    error = AudiocliError(
        f"internal error: {type(cause).__name__}: {cause}", hint="run it again with --debug and report the traceback"
    )
    error.code = "bug"
    return error


def _report_error(error: AudiocliError, flags: Sequence[str], app: AppContext) -> None:
    from .console import Console

    try:
        has_color = app.has_color(app.stderr)
        console = Console(
            stdout=app.stdout,
            stderr=app.stderr,
            warnings=app.warnings,
            stderr_width=app.find_terminal_width(app.stderr),
            stderr_has_color=has_color,
            is_replayed=app.is_replaying,
        )
        if "--debug" in flags:
            import traceback

            console.traceback("".join(traceback.format_exception(error)))
        if "--json" in flags:
            # The command line with the command first, unless it failed before that.
            words = app.argv or flags
            console.error_json(error, next((word for word in words if not word.startswith("-")), None))
        else:
            console.error(error)
    except (OSError, AudiocliError):
        return  # stderr cannot be written; only the exit code is left
