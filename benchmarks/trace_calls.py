"""Count the files and functions of audiocli that a command passes before its first byte on the socket.

    python benchmarks/trace_calls.py

For each command: the files, the distinct functions, the calls, and how often control moves from one file to another.
The bodies of modules (imports) and comprehensions do not count. The targets are those of docs/architecture.md.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import socket
import struct
import subprocess
import sys
import tempfile
import wave
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from harness import GatewayProcess

PACKAGE = str(Path(__file__).parent.parent / "audiocli") + os.sep
UNCOUNTED = frozenset({"<module>", "<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>", "<lambda>"})


class Case(NamedTuple):
    """A command and its targets: files, and moves between files (None: no target)."""

    name: str
    argv: list[str]
    max_files: int
    max_switches: int | None = None


class FirstByte(BaseException):
    """Ends the command once the first byte is on its way. A BaseException, so that the program does not handle it."""


class Tracer:
    """Counts calls of functions below `PACKAGE` until something is sent to an internet address."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.functions: set[tuple[str, str]] = set()
        self.call_count = 0
        self.switch_count = 0
        self.is_done = False
        self._current = ""

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if self.is_done:
            return
        if event == "c_call" and getattr(argument, "__name__", "") in ("send", "sendall", "sendmsg"):
            connection = getattr(argument, "__self__", None)
            if isinstance(connection, socket.socket) and connection.family in (socket.AF_INET, socket.AF_INET6):
                self.is_done = True
                sys.setprofile(None)
                raise FirstByte
        path = frame.f_code.co_filename
        if event != "call" or not path.startswith(PACKAGE) or frame.f_code.co_name in UNCOUNTED or is_import(frame):
            return
        name = path.removeprefix(PACKAGE)
        if name not in self.files:
            self.files.append(name)
        self.functions.add((name, frame.f_code.co_qualname))
        self.call_count += 1
        if name != self._current:
            self.switch_count += 1
            self._current = name


def is_import(frame: FrameType) -> bool:
    """Return whether a call belongs to the import of a module of audiocli, such as the body of a class."""
    caller = frame.f_back
    while caller is not None:
        if caller.f_code.co_name == "<module>" and caller.f_code.co_filename.startswith(PACKAGE):
            return True
        caller = caller.f_back
    return False


def trace(argv: list[str]) -> Tracer:
    """Run a command line in this process until its first byte, and return what it passed."""
    from audiocli.app import main
    from audiocli.context import AppContext

    class Stream(io.BytesIO):
        def fileno(self) -> int:
            raise OSError

    stderr = Stream()
    app = AppContext(variables=dict(os.environ), stdin=Stream(), stdout=Stream(), stderr=stderr)
    tracer = Tracer()
    sys.setprofile(tracer)
    try:
        main(argv, app)
    except FirstByte:
        pass
    finally:
        sys.setprofile(None)
    if not tracer.is_done:
        raise SystemExit(f"{' '.join(argv)}: nothing was sent: {stderr.getvalue().decode()}")
    return tracer


def build_cases(directory: Path) -> list[Case]:
    """Write the recordings and return the cases."""
    samples = b"".join(struct.pack("<h", int(8_000 * math.sin(n / 9))) for n in range(16_000))
    batch = directory / "talks"
    batch.mkdir()
    for name in ("a.wav", "b.wav"):
        with wave.open(str(batch / name), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes(samples + name.encode())
    video = directory / "talk.mp4"
    import av

    with av.open(str(video), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        for start in range(0, 16_000, 1_024):
            frame = av.AudioFrame(format="s16", layout="mono", samples=1_024)
            frame.planes[0].update(samples[2 * start : 2 * (start + 1_024)].ljust(2_048, b"\0"))
            frame.sample_rate, frame.pts = 16_000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return [
        Case("speak", ["speak", "hi", "-o", str(directory / "x.mp3")], 32, 100),
        Case("transcribe", ["transcribe", str(video), "-f", "srt"], 36),
        Case("batch", ["transcribe", str(batch), "-R"], 42),
    ]


def run_case(name: str, directory: Path, gateway_url: str) -> None:
    """Trace one case in this process, which is fresh: nothing of audiocli is loaded yet."""
    os.environ.update(
        {
            "HOME": str(directory),
            "XDG_CONFIG_HOME": str(directory / "config"),
            "XDG_DATA_HOME": str(directory / f"data-{name}"),
            "XDG_CACHE_HOME": str(directory / f"cache-{name}"),
            "OPENAI_API_KEY": "sk-trace",
            "OPENAI_BASE_URL": gateway_url,
        }
    )
    os.environ.pop("AUDIOCLI_LEDGER", None)
    case = next(case for case in build_cases(directory / name) if case.name == name)
    tracer = trace(case.argv)
    max_switches = "" if case.max_switches is None else f" (at most {case.max_switches})"
    print(  # noqa: T201
        f"{case.name}: {len(tracer.files)} files (at most {case.max_files}), {len(tracer.functions)} functions,"
        f" {tracer.call_count} calls, {tracer.switch_count} moves between files{max_switches}"
    )
    print("    " + "\n    ".join(sorted(tracer.files)))  # noqa: T201


def main() -> None:
    """Trace every case in a process of its own."""
    with GatewayProcess() as gateway, tempfile.TemporaryDirectory() as temporary:
        for name in ("speak", "transcribe", "batch"):
            directory = Path(temporary)
            (directory / name).mkdir()
            subprocess.run(
                [sys.executable, __file__, "--case", name, temporary, f"{gateway.url}/v1"],
                check=True,
                timeout=120,
                cwd=Path(__file__).parent,
                env={**os.environ, "PYTHONPATH": str(Path(PACKAGE).parent)},
            )


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        if sys.argv[1:2] == ["--case"]:
            run_case(sys.argv[2], Path(sys.argv[3]), sys.argv[4])
        else:
            main()
