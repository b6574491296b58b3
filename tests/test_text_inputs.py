"""Test one text under many names: `speak -F` reads a stream in the same way, however it is spelled."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import CommandLine
from tests.requirements import needs_proc
from tests.test_long_speech import SENTENCES, list_requested_texts
from tests.test_processes import Program, run_in_shell
from tests.test_processes import program as program

TEXT = "Grüße, one text under many names."
# Shell commands that speak `text.txt` under different names. `run` is `audiocli speak -o x.wav`.
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


@pytest.mark.parametrize("name", NAMES)
def test_text_is_spoken_under_any_name(audiocli: CommandLine, name: str) -> None:
    (audiocli.directory / "text.txt").write_text(TEXT, "utf-8")

    r = run_in_shell(audiocli, "speak -o x.wav", NAMES[name], audiocli.directory)

    assert r.code == 0, r.err
    assert list_requested_texts(audiocli) == [TEXT]


@pytest.mark.parametrize("command", EMPTY)
def test_empty_text_is_a_usage_error_under_any_name(audiocli: CommandLine, command: str) -> None:
    r = run_in_shell(audiocli, "speak -o x.wav", command, audiocli.directory)

    assert (r.code, r.posts) == (2, []), r.err
    assert "no text to speak" in r.err


@pytest.mark.parametrize("command", ["run -F - <text.txt", "run -F /dev/stdin <text.txt", "run -F <(cat text.txt)"])
def test_stream_that_is_not_text_is_a_usage_error_under_any_name(audiocli: CommandLine, command: str) -> None:
    (audiocli.directory / "text.txt").write_bytes(b"%PDF-1.7\n1 0 obj")

    r = run_in_shell(audiocli, "speak -o x.wav", command, audiocli.directory)

    assert (r.code, r.posts) == (2, []), r.err
    assert "PDF document" in r.err


@needs_proc
@pytest.mark.parametrize("argv", [("speak", "-F"), ("transcribe", "--files-from")])
def test_input_that_cannot_be_read_is_named(audiocli: CommandLine, argv: tuple[str, ...]) -> None:
    """Without a mapped page at offset 0, this file can be opened and not read."""
    r = audiocli(*argv, "/proc/self/mem")

    assert (r.code, r.posts) == (2, [])
    assert "cannot read /proc/self/mem: " in r.err


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
