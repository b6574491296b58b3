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

        from .completing import answer

        sys.stdout.buffer.write(answer(sys.argv[2:], os.environ).encode("utf-8", "replace"))
        return
    from .env import Env
    from .main import main

    sys.exit(main(sys.argv[1:], Env.of_process()))


if __name__ == "__main__":
    run()
