"""Programs that tests install in place of those of the machine: players, editors and interpreters."""

from __future__ import annotations

from pathlib import Path


def write_program(path: Path, content: str) -> Path:
    """Write an executable script, which begins with `#!`, and its directory. Return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, "utf-8")
    path.chmod(0o755)
    return path
