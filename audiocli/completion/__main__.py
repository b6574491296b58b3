"""`python -m audiocli.completion [DIRECTORY]`: regenerate the completion scripts and the man pages of a checkout."""

from __future__ import annotations

import sys
from pathlib import Path

from ..cli.completion import render_completion, render_default_list, render_man_pages
from .command_tree import COMPLETION_FILES


def write(checkout: Path) -> None:
    """Write the scripts of all shells, the man pages, and the default list of models.

    Man pages of commands that do not exist are removed.
    """
    texts = {f"completions/{name}": render_completion(shell) for shell, name in COMPLETION_FILES.items()}
    texts["audiocli/completion/runtime.txt"] = render_default_list()
    texts |= {f"man/{name}": text for name, text in render_man_pages().items()}
    for page in (checkout / "man").glob("audiocli*.1"):
        if f"man/{page.name}" not in texts:
            page.unlink()
    for name, text in texts.items():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(text, "utf-8", newline="\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parents[2])
