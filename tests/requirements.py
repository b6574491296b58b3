"""What tests need besides Python and the packages of the extra `dev`.

A test is skipped if something is missing, and says what to install. With AUDIOCLI_TEST_ALL=1, it fails instead.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest

# Debian packages of programs whose package has another name.
DEBIAN_PACKAGES = {"prlimit": "util-linux", "unshare": "util-linux"}
# Minor numbers of memory devices of Linux, whose major number is 1.
MEMORY_DEVICES = {"null": 3, "zero": 5}


def report_missing(reason: str) -> NoReturn:
    """Skip the test, or let it fail with AUDIOCLI_TEST_ALL=1."""
    if os.environ.get("AUDIOCLI_TEST_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def require_program(name: str) -> str:
    """Return the path of a program."""
    path = shutil.which(name)
    if path is None:
        report_missing(f"{name} is not installed: apt-get install {DEBIAN_PACKAGES.get(name, name)}")
    return path


def require_packages(*names: str, extras: str = "local") -> None:
    """Require Python packages, by the names of their modules."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        report_missing(f"{', '.join(missing)} is not installed: pip install 'audiocli[{extras}]'")


def require_namespaces(*options: str) -> list[str]:
    """Return the command that runs a program in new namespaces: `unshare` with these options."""
    command = [require_program("unshare"), *options]
    if subprocess.run([*command, "true"], check=False, capture_output=True).returncode:
        report_missing(f"user namespaces are not allowed: {' '.join(command)} true")
    return command


def require_root(reason: str) -> None:
    if os.getuid() != 0:
        report_missing(reason)


def make_memory_device(path: Path, name: str) -> None:
    """Make a copy of a memory device, so that a fault does not replace the one of the machine."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, MEMORY_DEVICES[name]))
        with path.open("rb") as device:
            device.read(1)
    except PermissionError:
        report_missing("device nodes need root and a file system that allows them")
