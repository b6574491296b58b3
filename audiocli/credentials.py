"""The keys file: API keys by gateway name, as an alternative to environment variables.

    openrouter = "sk-or-…"

The file is next to config.toml, has mode 0600, and is replaced atomically.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from .errors import AccessError, OutputError
from .private_files import read_regular_file, write_atomically

GROUP_AND_OTHERS = stat.S_IRWXG | stat.S_IRWXO
MAX_KEYS_BYTES = 1_000_000


def remove_bearer(key: str) -> tuple[str, bool]:
    """Return an API key without the prefix `Bearer`, and whether it had one. The prefix is part of the header."""
    words = key.split(maxsplit=1)
    return (words[1], True) if len(words) == 2 and words[0].lower() == "bearer" else (key, False)


def read(path: Path) -> dict[str, str]:
    """Return the keys by gateway name; empty if the file does not exist.

    Raises:
        AccessError: The file is readable by other users, cannot be read, or is not valid TOML.
    """
    try:
        mode = path.stat().st_mode
        content = read_regular_file(path, MAX_KEYS_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise AccessError(f"cannot read the keys file {path}: {error.strerror}") from error
    if os.name == "posix" and mode & GROUP_AND_OTHERS:
        raise AccessError(f"the keys file {path} is accessible by other users", hint=f"chmod 600 {path}")
    import tomllib

    try:
        table = tomllib.loads(content.decode("utf-8-sig"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        # Without the parser's message, which could quote a key.
        raise AccessError(
            f"the keys file {path} is not valid TOML", hint='it needs one line GATEWAY = "KEY" for each gateway'
        ) from error
    return {name: key for name, key in table.items() if isinstance(key, str)}


def write(path: Path, keys: dict[str, str]) -> None:
    """Replace the keys file.

    Raises:
        OutputError: The file cannot be written.
    """
    # A JSON string is also a TOML string unless it has surrogate escapes, which ensure_ascii=False avoids.
    lines = (f"{json.dumps(name)} = {json.dumps(key, ensure_ascii=False)}\n" for name, key in sorted(keys.items()))
    try:
        write_atomically(path, "".join(lines).encode(), durable=True)
    except OSError as error:
        raise OutputError(f"cannot write the keys file {path}: {error.strerror}") from error
