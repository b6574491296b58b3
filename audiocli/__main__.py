"""Entry point of `python -m audiocli` and of the installed command."""

from __future__ import annotations

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
    # Built in; `signal` takes 2 ms, in which Ctrl-C would print a traceback.
    import _signal  # type: ignore[import-not-found]

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

        sys.stdout.write(f"audiocli {__version__}\n")
        return
    if sys.argv[1:2] == ["--complete"]:
        # Called at every TAB by the scripts that `audiocli completion` prints.
        from .completion.runtime import complete

        sys.stdout.buffer.write(complete(sys.argv[2:], os.environ).encode("utf-8", "replace"))
        return
    _exit(_main())


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
