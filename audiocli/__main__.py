"""Entry point of `python -m audiocli` and of the installed command."""

from __future__ import annotations

import sys


def run() -> None:
    """Run the command line of this process and exit."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        # Handled before any other import, so that it takes no longer than the start of the interpreter.
        from . import __version__

        sys.stdout.write(f"audiocli {__version__}\n")
        return
    if sys.argv[1:2] == ["--complete"]:
        # Called at every TAB by the scripts that `audiocli completion` prints.
        import os

        from .completion.runtime import complete

        sys.stdout.buffer.write(complete(sys.argv[2:], os.environ).encode("utf-8", "replace"))
        return
    _exit(_main())


def _main() -> int:
    """Run the command line; return 130 if interrupted, from the first import on."""
    import signal

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # respect nohup
                signal.signal(number, interrupt)
        from .app import main
        from .context import AppContext

        code = main(sys.argv[1:], AppContext.from_process())
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command is finished; ignore a late Ctrl-C
    except KeyboardInterrupt:
        return 130
    return code


def _exit(code: int) -> None:
    """Exit immediately, skipping interpreter shutdown.

    The interpreter would wait for threads that are blocked in name resolution. Our streams have no buffers to flush.
    """
    import os

    os._exit(code)


if __name__ == "__main__":
    run()
