"""`python -m audiocli`, and the program that the wheel installs."""

from __future__ import annotations

import sys


def run() -> None:
    from .env import Env
    from .main import main

    sys.exit(main(sys.argv[1:], Env.of_process()))


if __name__ == "__main__":
    run()
