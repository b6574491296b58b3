"""The front door: argv and the world in, an exit code out; the one place where errors become words."""

from __future__ import annotations

from collections.abc import Sequence

from .context import AppContext
from .errors import AudiocliError, ExitCode, OutputClosed


def main(argv: Sequence[str], env: AppContext) -> int:
    """Run one command line; give its exit code. Nothing is raised."""
    flags = argv[: argv.index("--")] if "--" in argv else argv
    try:
        from . import cli

        return cli.run(argv, env)
    except (OutputClosed, BrokenPipeError):
        return ExitCode.DONE
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except AudiocliError as error:
        _explain(error, flags, env)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - a bug is told in one line as well, and its traceback with --debug
        _explain(_bug(error), flags, env)
        return ExitCode.BUG
    finally:
        env.close()


def _bug(error: Exception) -> AudiocliError:
    told = AudiocliError(
        f"a bug in audiocli: {type(error).__name__}: {error}", hint="run it again with --debug and report what it shows"
    )
    told.code = "bug"
    told.__cause__ = error
    return told


def _explain(error: AudiocliError, flags: Sequence[str], env: AppContext) -> None:
    from .console import Console

    screen = Console(stdout=env.stdout, stderr=env.stderr, moves=False)
    try:
        if "--debug" in flags:
            import traceback

            env.stderr.write("".join(traceback.format_exception(error)).encode("utf-8", "backslashreplace"))
        if "--json" in flags:
            screen.error_json(error, next((word for word in flags if not word.startswith("-")), None))
        else:
            screen.error(error)
    except (OSError, AudiocliError):
        return  # stderr is gone too; the exit code has to say it
