"""Who writes to the ledger: names for processes that are never mistaken for another, and whether they still live."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path


@cache
def here() -> str:
    """Name this machine and, on Linux, this boot and this container: process numbers mean nothing beyond them."""
    # `platform.node()` says the same, and loads subprocess first.
    parts = [os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    except OSError:
        pass
    return "/".join(parts)


@cache
def own() -> str:
    """Name this process."""
    return name(os.getpid())


def name(pid: int) -> str:
    return f"{pid} {_started(pid) or ''}".strip()


def is_alive(process: str) -> bool:
    number, _, started = process.partition(" ")
    if not number.isdecimal():
        return True  # written by somebody else's rules; not ours to give up
    pid = int(number)
    if started:
        return _started(pid) == started
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _started(pid: int) -> str | None:
    """Tell when a process started, in clock ticks since boot, so that a number used again is not mistaken for it."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    # Zombies (Z) and the dead (X) will not settle anything any more.
    return None if after_name[0] in "ZX" else after_name[19]
