"""`python -m audiocli.completion [FOLDER]`: write again what is made from the command tree and kept in a checkout."""

from __future__ import annotations

import sys
from pathlib import Path

from ..cli.completion import first_list, rendered
from .command_tree import FILES


def write(checkout: Path) -> None:
    """Write the files of the shells, and the list from which models are completed until there is a better one."""
    texts = {f"completions/{name}": rendered(shell) for shell, name in FILES.items()}
    texts["audiocli/completion/runtime.txt"] = first_list()
    for name, text in texts.items():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(text, "utf-8", newline="\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parents[2])
