"""`python -m audiocli`, and the program that the wheel installs."""

from __future__ import annotations

import sys


def run() -> None:
    if sys.argv[1:] in (["--version"], ["-V"]):
        # Answered before anything else is loaded: it takes no longer than the interpreter itself.
        from . import __version__

        sys.stdout.write(f"audiocli {__version__}\n")
        return
    from .env import Env
    from .main import main

    sys.exit(main(sys.argv[1:], Env.of_process()))


if __name__ == "__main__":
    run()
