"""Identify processes across reuse of process IDs, and find out whether they are still running."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path


@cache
def get_host_id() -> str:
    """Return an ID of this machine and, on Linux, of the boot and the PID namespace.

    Process IDs can be compared only if this ID is the same.
    """
    # `platform.node()` returns the same, but imports subprocess.
    parts = [os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    except OSError:
        pass
    return "/".join(parts)


@cache
def get_current_process_id() -> str:
    """Return the ID of this process."""
    return build_process_id(os.getpid())


def build_process_id(pid: int) -> str:
    """Return the PID and, if it is known, the time at which the process started."""
    return f"{pid} {_read_start_ticks(pid) or ''}".strip()


def is_running(process_id: str) -> bool:
    """Return whether a process of this machine is still running.

    `process_id` comes from `build_process_id`. A PID alone cannot tell whether it was reused.
    """
    pid_text, _, start_ticks = process_id.partition(" ")
    if not pid_text.isdecimal():
        return True  # an unknown format: assume that the process is running
    pid = int(pid_text)
    if start_ticks:
        return _read_start_ticks(pid) == start_ticks
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _read_start_ticks(pid: int) -> str | None:
    """Return when a process started, in clock ticks since boot. It differs if the PID was reused."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    # Zombies (Z) and dead processes (X) count as ended: they cannot finish their work.
    return None if fields[0] in "ZX" else fields[19]
