"""`python -m audiocli.completion [FOLDER]`: write the files again, by default into `completions/` of a checkout."""

from __future__ import annotations

import sys
from pathlib import Path

from ..commands.completion import rendered
from . import FILES


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for shell, name in FILES.items():
        (folder / name).write_text(rendered(shell), "utf-8", newline="\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parents[2] / "completions")
