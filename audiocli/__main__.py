"""Entry point of `python -m audiocli` and of the installed command."""

from __future__ import annotations

# Built in; `signal` takes 2 ms, in which Ctrl-C would print a traceback.
import _signal  # type: ignore[import-not-found]

# Until `run` handles signals, Ctrl-C ends the process without a traceback.
if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

import os
import sys

TYPE_CHECKING = False  # type checkers read it as True; importing `typing` takes 3 ms
if TYPE_CHECKING:
    from types import FrameType


def run() -> None:
    """Run the command line of this process and exit."""
    try:
        _handle_signals()
        _run()
    except KeyboardInterrupt:
        _exit(130)


def _handle_signals() -> None:
    """Handle SIGINT, SIGTERM and SIGHUP from the first import on, unless they are ignored, as with nohup."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(_signal, name, None)
        if number is not None and _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, _interrupt)


def _interrupt(_: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, so that cleanup runs. Exit immediately while a module is imported.

    An import runs callbacks of weak references, which print an exception and continue, and modules that an exception
    leaves half initialized.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            _exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


def _run() -> None:
    if sys.argv[1:] in (["--version"], ["-V"]):
        # Handled before any other import, so that it takes no longer than the start of the interpreter.
        from . import __version__

        _exit(_write_stdout(f"audiocli {__version__}\n".encode()))
    if sys.argv[1:2] == ["--complete"]:
        # Called at every TAB by the scripts that `audiocli completion` prints.
        from .completion.runtime import complete

        _exit(_write_stdout(complete(sys.argv[2:], os.environ).encode("utf-8", "replace")))
    _exit(_main())


def _write_stdout(content: bytes) -> int:
    """Write to stdout, which may be closed or full, and return the exit code."""
    try:
        while content:
            content = content[os.write(1, content) :]
    except BrokenPipeError:
        return 0
    except OSError as error:
        try:
            os.write(2, f"error: cannot write to stdout: {error.strerror}\n".encode())
        except OSError:
            pass  # stderr is closed or full too
        return 10
    return 0


def _main() -> int:
    """Run the command line and return its exit code."""
    from .app import main
    from .context import AppContext

    code = main(sys.argv[1:], AppContext.from_process())
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command is finished; ignore a late Ctrl-C
    return code


def _exit(code: int) -> None:
    """Exit immediately, skipping interpreter shutdown.

    The interpreter would wait for threads that are blocked in name resolution. Our streams have no buffers to flush.
    """
    os._exit(code)


if __name__ == "__main__":
    run()
