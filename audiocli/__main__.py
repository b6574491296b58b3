"""`python -m audiocli`, and the program that the wheel installs."""

from __future__ import annotations

import sys


def run() -> None:
    if sys.argv[1:] in (["--version"], ["-V"]):
        # Answered before anything else is loaded: it takes no longer than the interpreter itself.
        from . import __version__

        sys.stdout.write(f"audiocli {__version__}\n")
        return
    if sys.argv[1:2] == ["--complete"]:
        # Asked at every TAB, by the files that `audiocli completion` prints.
        import os

        from .completion.runtime import answer

        sys.stdout.buffer.write(answer(sys.argv[2:], os.environ).encode("utf-8", "replace"))
        return
    _leave(_main())


def _main() -> int:
    """Run the command line; every way to be interrupted ends in 130, from the first import on."""
    import signal

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
                signal.signal(number, interrupt)
        from .app import main
        from .context import AppContext

        code = main(sys.argv[1:], AppContext.of_process())
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is over; a late Ctrl-C changes nothing any more
    except KeyboardInterrupt:
        return 130
    return code


def _leave(code: int) -> None:
    """End without the interpreter's own farewell: our streams have no buffers, and nothing else is left to do.

    Threads that wait for a name server would be waited for otherwise.
    """
    import os

    os._exit(code)


if __name__ == "__main__":
    run()
