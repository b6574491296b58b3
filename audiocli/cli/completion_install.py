"""Install a completion script where the shell of this user looks for it.

`pip` installs the scripts below `share` of an environment. Shells do not look there if the environment is one of pipx
or uv, so this writes to the directories of the user. zsh has no such directory, and bash has one only with the package
bash-completion: then a marked block in the rc file reads the script.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ..completion.command_tree import HEADER
from ..errors import OutputError, UsageError
from ..private_files import read_regular_file, write_atomically

BLOCK_BEGIN = "# >>> audiocli completion >>>"
BLOCK_END = "# <<< audiocli completion <<<"
# Where the package bash-completion is, on Linux, with Homebrew and with MacPorts.
BASH_COMPLETION_FILES = (
    "/usr/share/bash-completion/bash_completion",
    "/etc/bash_completion",
    "/usr/local/etc/profile.d/bash_completion.sh",
    "/opt/homebrew/etc/profile.d/bash_completion.sh",
    "/opt/local/etc/profile.d/bash_completion.sh",
)
MAX_RC_BYTES = 10_000_000


class FileChange(NamedTuple):
    """A file to be written. `content` is None if the file is up to date. `backup` gets the previous content."""

    path: Path
    content: bytes | None
    backup: Path | None = None


def detect_shell(variables: Mapping[str, str]) -> str | None:
    """Return the name of the login shell, if there is a completion script for it."""
    from ..completion.command_tree import COMPLETION_FILES

    name = Path(variables.get("SHELL", "")).name
    return name if name in COMPLETION_FILES else None


def plan_install(shell: str, variables: Mapping[str, str]) -> list[FileChange]:
    """Return the files that the completion of a shell needs: the script and, for some shells, an rc file.

    Raises:
        UsageError: HOME is not set, a file was not written by audiocli, or the rc file cannot be read.
    """
    from .completion import render_completion

    home = _find_home(variables)
    data = _find_directory(variables, "XDG_DATA_HOME", home / ".local" / "share")
    rc_path: Path | None = None
    if shell == "fish":
        script_path = _find_directory(variables, "XDG_CONFIG_HOME", home / ".config") / "fish/completions/audiocli.fish"
    elif shell == "zsh":
        script_path = data / "zsh" / "site-functions" / "_audiocli"
        rc_path = _find_directory(variables, "ZDOTDIR", home) / ".zshrc"
    else:
        base = _find_directory(variables, "BASH_COMPLETION_USER_DIR", data / "bash-completion")
        script_path = base / "completions" / "audiocli"
        if not any(Path(name).exists() for name in BASH_COMPLETION_FILES):
            rc_path = home / ".bashrc"
    changes = [_plan_script(script_path, render_completion(shell))]
    if rc_path is not None:
        changes.append(_plan_rc_file(rc_path, script_path))
    return changes


def write_changes(changes: list[FileChange]) -> None:
    """Write the files that are not up to date, each after its backup. Raises: OutputError."""
    for change in changes:
        if change.content is None:
            continue
        try:
            if change.backup is not None:
                write_atomically(change.backup, read_regular_file(change.path, MAX_RC_BYTES))
            write_atomically(change.path, change.content, keep_mode=True)
        except OSError as error:
            raise OutputError(f"cannot write {change.path}: {error.strerror}") from error


def _find_home(variables: Mapping[str, str]) -> Path:
    home = variables.get("HOME", "")
    if not Path(home).is_absolute():
        raise UsageError("HOME is not set", hint="set it to your home directory")
    return Path(home)


def _find_directory(variables: Mapping[str, str], name: str, default: Path) -> Path:
    value = variables.get(name, "")
    return Path(value) if Path(value).is_absolute() else default


def _read(path: Path) -> bytes | None:
    """Return the content of a file, or None if it does not exist. Raises: UsageError: It cannot be read."""
    try:
        return read_regular_file(path, MAX_RC_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _plan_script(path: Path, script: str) -> FileChange:
    """Plan the completion script. One that audiocli did not write is left unchanged. Raises: UsageError."""
    content, previous = script.encode(), _read(path)
    if previous is not None and HEADER.partition(";")[0].encode() not in previous:
        raise UsageError(f"{path} exists and was not written by audiocli; left unchanged", hint="remove it first")
    return FileChange(path, None if content == previous else content)


def _plan_rc_file(path: Path, script_path: Path) -> FileChange:
    """Plan the block in an rc file, which replaces an earlier one in its position. Raises: UsageError."""
    quoted = shlex.quote(str(script_path))
    block = f"{BLOCK_BEGIN}\n[ -r {quoted} ] && source {quoted}\n{BLOCK_END}\n".encode()
    previous = _read(path)
    text = previous or b""
    begin, end = text.find(BLOCK_BEGIN.encode()), text.find(BLOCK_END.encode())
    if begin >= 0 and end > begin:
        rest = text[end + len(BLOCK_END) :].removeprefix(b"\n")
        content = text[:begin] + block + rest
    elif begin >= 0 or end >= 0:
        raise UsageError(f"{path} has an incomplete block of audiocli", hint=f"remove the line {BLOCK_BEGIN!r}")
    else:
        separator = b"" if not text or text.endswith(b"\n") else b"\n"
        content = text + separator + block
    if content == previous:
        return FileChange(path, None)
    return FileChange(path, content, _choose_backup_path(path) if previous is not None else None)


def _choose_backup_path(path: Path) -> Path:
    """Return a new path next to a file for its backup."""
    number = 1
    while True:
        suffix = ".audiocli-backup" + (f"-{number}" if number > 1 else "")
        backup = path.with_name(path.name + suffix)
        if not backup.exists() and not backup.is_symlink():
            return backup
        number += 1
