"""Run one command line: turn errors into messages and exit codes, in one place."""

from __future__ import annotations

from collections.abc import Sequence

from .context import AppContext
from .errors import AudiocliError, ExitCode, OutputClosed


def main(argv: Sequence[str], app: AppContext) -> int:
    """Run one command line and return its exit code. Does not raise."""
    flags = argv[: argv.index("--")] if "--" in argv else argv
    try:
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
        _report_error(_build_bug_error(error), flags, app)
        return ExitCode.BUG
    finally:
        app.close()


def _build_bug_error(cause: Exception) -> AudiocliError:
    error = AudiocliError(
        f"internal error: {type(cause).__name__}: {cause}", hint="run it again with --debug and report the traceback"
    )
    error.code = "bug"
    error.__cause__ = cause
    return error


def _report_error(error: AudiocliError, flags: Sequence[str], app: AppContext) -> None:
    from .console import Console

    console = Console(stdout=app.stdout, stderr=app.stderr, is_interactive=False)
    try:
        if "--debug" in flags:
            import traceback

            app.stderr.write("".join(traceback.format_exception(error)).encode("utf-8", "backslashreplace"))
        if "--json" in flags:
            console.error_json(error, next((word for word in flags if not word.startswith("-")), None))
        else:
            console.error(error)
    except (OSError, AudiocliError):
        return  # stderr cannot be written; only the exit code is left
