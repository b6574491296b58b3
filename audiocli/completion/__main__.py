"""`python -m audiocli.completion [DIRECTORY]`: regenerate the completion scripts of a checkout."""

from __future__ import annotations

import sys
from pathlib import Path

from ..cli.completion import render_completion, render_default_list
from .command_tree import COMPLETION_FILES


def write(checkout: Path) -> None:
    """Write the scripts of all shells, and the default list of models."""
    texts = {f"completions/{name}": render_completion(shell) for shell, name in COMPLETION_FILES.items()}
    texts["audiocli/completion/runtime.txt"] = render_default_list()
    for name, text in texts.items():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(text, "utf-8", newline="\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parents[2])
