"""What is measured with: a clean installation, the gateway's process, folders of their own, and a stopwatch."""

from __future__ import annotations

import http.client
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

CHECKOUT = Path(__file__).resolve().parent.parent
INSTALL_TIMEOUT_S = 900.0
ANSWER_TIMEOUT_S = 10.0

# The kernel counts in KiB on Linux and in bytes on macOS.
MAXRSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024


class Failed(Exception):
    """Something that should be measured did not work."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one command. Times named `_ns` are points on CLOCK_MONOTONIC; None: there was no such thing.

    `peak_bytes` is the largest resident size. It is never below that of the process which started the command (the
    kernel counts from before `exec`), so this program keeps itself small and only figures well above it are shown.
    """

    elapsed_s: float
    cpu_s: float
    peak_bytes: int
    started_ns: int
    output_ns: int | None = None
    received_ns: int | None = None
    first_byte_ns: int | None = None
    first_received_ns: int | None = None
    posts: int | None = None

    @property
    def ended_ns(self) -> int:
        return self.started_ns + round(self.elapsed_s * 1e9)


@dataclass(frozen=True, slots=True)
class Installation:
    """A virtual environment with nothing but audiocli and what it needs, compiled; `install` makes it."""

    folder: Path

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    @property
    def audiocli(self) -> str:
        return str(self.folder / "bin" / "audiocli")


def install(place: Installation) -> None:
    """Install the checkout as a user would: not editable, with bytecode. Raises: Failed."""
    pip = [place.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--compile"]
    for argv in ([sys.executable, "-m", "venv", str(place.folder)], [*pip, str(CHECKOUT)]):
        try:
            subprocess.run(
                argv, check=True, timeout=INSTALL_TIMEOUT_S, stdin=subprocess.DEVNULL, capture_output=True, text=True
            )
        except (OSError, subprocess.SubprocessError) as error:
            told = f"\n{error.stderr}" if isinstance(error, subprocess.CalledProcessError) else ""
            raise Failed(f"no clean environment could be made: {error}{told}") from error


def variables_of_nobody(home: Path) -> dict[str, str]:
    """Make the variables of a user who has nothing: no keys, no configuration, no proxies, folders of their own."""
    folders = {f"XDG_{kind}_HOME": str(home / kind.lower()) for kind in ("CONFIG", "DATA", "CACHE", "STATE")}
    return {"PATH": os.defpath, "HOME": str(home), "LANG": "C.UTF-8", **folders}


class Gateway:
    """The loopback gateway in a process of its own, for the length of a `with` block."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __enter__(self) -> Gateway:
        program = str(Path(__file__).with_name("gateway.py"))
        self._process = subprocess.Popen([sys.executable, "-I", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            line = self._process.stdout.readline() if selector.select(ANSWER_TIMEOUT_S) else b""
        if not line.strip().isdigit():
            self.__exit__(None, None, None)
            raise Failed("the loopback gateway did not start")
        self.port = int(line)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(ANSWER_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def last(self) -> dict[str, int]:
        """Give the times of the latest request, `received_ns` and `first_byte_ns`, and begin to count anew."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_TIMEOUT_S)
        try:
            connection.request("GET", "/last")
            return {str(name): int(value) for name, value in json.loads(connection.getresponse().read()).items()}
        finally:
            connection.close()


class Stopwatch:
    """Runs commands one at a time, with the variables of nobody, in an empty folder."""

    def __init__(self, *, variables: Mapping[str, str], folder: Path, gateway: Gateway) -> None:
        self._variables = variables
        self._folder = folder
        self._gateway = gateway

    def run(
        self,
        argv: Sequence[str],
        *,
        variables: Mapping[str, str] | None = None,
        watches_output: bool = False,
        asks_gateway: bool = False,
        timeout_s: float = 60.0,
    ) -> Sample:
        """Run a command to its end. Raises: Failed: it took too long, or its exit code was not 0."""
        if asks_gateway:
            self._gateway.last()
        with tempfile.TemporaryFile() as complaints:
            started_ns = time.monotonic_ns()
            process = subprocess.Popen(
                argv,
                env={**self._variables, **(variables or {})},
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if watches_output else subprocess.DEVNULL,
                stderr=complaints,
            )
            limit = threading.Timer(timeout_s, process.kill)
            limit.start()
            try:
                output_ns = _first_output_ns(process)
                _, status, used = os.wait4(process.pid, 0)
                ended_ns = time.monotonic_ns()
                process.returncode = os.waitstatus_to_exitcode(status)
            except BaseException:
                process.kill()
                process.wait()
                raise
            finally:
                limit.cancel()
                if process.stdout is not None:
                    process.stdout.close()
            if process.returncode != 0:
                complaints.seek(0)
                words = complaints.read(2000).decode(errors="replace").strip()
                if process.returncode == -signal.SIGKILL:
                    words = f"ended after {timeout_s:g} s, or by somebody else"
                raise Failed(f"{Path(argv[0]).name} {' '.join(argv[1:])}: exit code {process.returncode}: {words}")
        seen = self._gateway.last() if asks_gateway else {}
        return Sample(
            elapsed_s=(ended_ns - started_ns) / 1e9,
            cpu_s=used.ru_utime + used.ru_stime,
            peak_bytes=used.ru_maxrss * MAXRSS_UNIT_BYTES,
            started_ns=started_ns,
            output_ns=output_ns,
            received_ns=seen.get("received_ns"),
            first_byte_ns=seen.get("first_byte_ns"),
            first_received_ns=seen.get("first_ns"),
            posts=seen.get("posts"),
        )


def _first_output_ns(process: subprocess.Popen[bytes]) -> int | None:
    """Note when the first byte comes out of a command, and take the rest."""
    if process.stdout is None:
        return None
    descriptor = process.stdout.fileno()
    first_ns = time.monotonic_ns() if os.read(descriptor, 65536) else None
    while os.read(descriptor, 65536):
        pass
    return first_ns
