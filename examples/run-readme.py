"""Run the examples of a README: `audiocli mock -- python3 run-readme.py README.md`.

Runs each `audiocli` command of the section "One-liners" that needs no other program and no file. The exit code is 1 if
a command fails.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

# Words of commands that need another program, a player or a file.
NEEDS_MORE = {"|", "-F", "--play", "transcribe"}


def read_examples(text: str) -> list[list[str]]:
    """Return the commands that need neither another program nor a file."""
    section = text.split("## One-liners\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL) for line in block.splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines]
    return [words for words in commands if words[0] == "audiocli" and not set(words) & NEEDS_MORE]


def main() -> int:
    examples = read_examples(Path(sys.argv[1]).read_text("utf-8"))
    failed = 0
    with tempfile.TemporaryDirectory() as directory:
        for words in [["audiocli", "models", "-q"], *examples]:
            done = subprocess.run(words, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            sys.stdout.write(f"{'ok' if done.returncode == 0 else 'FAILED'}  {shlex.join(words)}\n")
            failed += done.returncode != 0
    return 1 if failed or not examples else 0


if __name__ == "__main__":
    sys.exit(main())
