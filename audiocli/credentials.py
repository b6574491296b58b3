"""The keys file: keys of gateways that are not in the environment, readable by their owner alone.

    openrouter = "sk-or-…"

It is stored beside config.toml with mode 0600 and is written completely or not at all.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from .errors import AccessError, OutputError
from .private_files import write_atomically

OTHERS = stat.S_IRWXG | stat.S_IRWXO


def read(path: Path) -> dict[str, str]:
    """Read the keys by the names of their gateways; no file is no keys.

    Raises: AccessError: others can read the file, or it is broken.
    """
    try:
        mode = path.stat().st_mode
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise AccessError(f"the keys file {path} cannot be read: {error.strerror}") from error
    if os.name == "posix" and mode & OTHERS:
        raise AccessError(f"others can read the keys file {path}", hint=f"chmod 600 {path}")
    import tomllib

    try:
        found = tomllib.loads(content.decode("utf-8-sig"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        # The error's own words could quote a key.
        raise AccessError(f"the keys file {path} is not TOML", hint='write NAME = "KEY", a line each') from error
    return {name: key for name, key in found.items() if isinstance(key, str)}


def write(path: Path, keys: dict[str, str]) -> None:
    """Replace the keys file. Raises: OutputError."""
    # A JSON string is a TOML string as well, as long as it escapes nothing beyond the first plane.
    lines = (f"{json.dumps(name)} = {json.dumps(key, ensure_ascii=False)}\n" for name, key in sorted(keys.items()))
    try:
        write_atomically(path, "".join(lines).encode(), durable=True)
    except OSError as error:
        raise OutputError(f"cannot write the keys file {path}: {error.strerror}") from error
