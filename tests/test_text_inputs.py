"""Test one text under many names: `speak -F` reads a stream in the same way, however it is spelled."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CommandLine, Result
from tests.test_long_speech import SENTENCES, list_requested_texts
from tests.test_processes import Program
from tests.test_processes import program as program

TEXT = "Grüße, one text under many names."
# Shell commands that speak `text.txt` under different names. `run` is the program with the output of a test.
NAMES = {
    "relative": "run -F text.txt",
    "absolute": 'run -F "$PWD/text.txt"',
    "symlink": "ln -s text.txt link.txt; run -F link.txt",
    "mixed-case extension": "mv text.txt text.TxT; run -F text.TxT",
    "dot and hyphen": "mv text.txt ./-text.txt; run -F ./-text.txt",
    "hyphen": "mv text.txt ./-text.txt; run -F -text.txt",
    "stdin without a name": "cat text.txt | run",
    "-": "cat text.txt | run -",
    "-F -": "cat text.txt | run -F -",
    "/dev/stdin": "cat text.txt | run -F /dev/stdin",
    "/dev/fd/0": "cat text.txt | run -F /dev/fd/0",
    "/dev/stdin of a file": "run -F /dev/stdin < text.txt",
    "symlink to /dev/stdin": "ln -s /dev/stdin link.txt; cat text.txt | run -F link.txt",
    "FIFO": "mkfifo pipe.txt; cat text.txt > pipe.txt & run -F pipe.txt; code=$?; kill $! 2>&-; exit $code",
    "process substitution": "run -F <(cat text.txt)",
}
EMPTY = ["run </dev/null", "run -F - </dev/null", "run -F /dev/stdin </dev/null", "run -F <(true)", "run -F /dev/null"]


def run_in_shell(audiocli: CommandLine, command: str, *argv: str) -> Result:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is missing: apt install bash")
    process = subprocess.run(
        [bash, "-c", f'run() {{ "$PYTHON" -m audiocli speak {" ".join(argv)} "$@"; }}; {command}'],
        cwd=audiocli.directory,
        env={
            **audiocli.variables,
            "PATH": "/usr/bin:/bin",
            "PYTHON": sys.executable,
            "PYTHONPATH": str(Path(__file__).parent.parent),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return Result(process.returncode, process.stdout, process.stderr.decode(), audiocli.gateway.requests, [], [])


@pytest.mark.parametrize("name", NAMES)
def test_text_is_spoken_under_any_name(audiocli: CommandLine, name: str) -> None:
    (audiocli.directory / "text.txt").write_text(TEXT, "utf-8")

    r = run_in_shell(audiocli, NAMES[name], "-o", "x.wav")

    assert r.code == 0, r.err
    assert list_requested_texts(audiocli) == [TEXT]


@pytest.mark.parametrize("command", EMPTY)
def test_empty_text_is_a_usage_error_under_any_name(audiocli: CommandLine, command: str) -> None:
    r = run_in_shell(audiocli, command, "-o", "x.wav")

    assert (r.code, r.posts) == (2, []), r.err
    assert "no text to speak" in r.err


@pytest.mark.parametrize("command", ["run -F - <text.txt", "run -F /dev/stdin <text.txt", "run -F <(cat text.txt)"])
def test_stream_that_is_not_text_is_a_usage_error_under_any_name(audiocli: CommandLine, command: str) -> None:
    (audiocli.directory / "text.txt").write_bytes(b"%PDF-1.7\n1 0 obj")

    r = run_in_shell(audiocli, command, "-o", "x.wav")

    assert (r.code, r.posts) == (2, []), r.err
    assert "PDF document" in r.err


@pytest.mark.parametrize("name", ["-", "/dev/stdin", "/dev/fd/0"])
def test_open_pipe_is_spoken_while_it_is_read_under_any_name(
    program: Program, audiocli: CommandLine, tmp_path: Path, name: str
) -> None:
    process = program.start("speak", "-F", name, "-o", tmp_path / "x.wav", stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(f"{SENTENCES[0]}\n\n".encode())
    process.stdin.flush()

    audiocli.gateway.wait_for_requests(1)  # before the pipe ends
    process.stdin.write(SENTENCES[1].encode())
    _, err = process.communicate(timeout=60)

    assert process.returncode == 0, err
    assert sorted(list_requested_texts(audiocli)) == sorted(SENTENCES[:2])
