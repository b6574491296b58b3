"""Devices, FIFOs, directories, sockets and symlinks in place of the files that audiocli reads back.

Nothing blocks, nothing of others changes, and no command ends as a bug.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from audiocli.private_files import open_regular_file, read_regular_file
from tests.conftest import CommandLine, Result
from tests.gateway_contract import SPEECH
from tests.requirements import MEMORY_DEVICES, make_memory_device

TIME_LIMIT_S = 20
KINDS = [*MEMORY_DEVICES, "FIFO", "directory", "socket", "dangling symlink", "symlink loop", "symlink to a directory"]
LONG_TEXT = "A sentence for the first chunk. A sentence for the second chunk. A sentence for the third chunk."

SPEAK = ["speak", "hi", "-o", "{path}/x.mp3"]
SPEAK_LONG = ["speak", LONG_TEXT, "--max-chars", "40", "-o", "{path}/x.wav"]
BATCH = ["transcribe", "{path}/records"]
# Paths below the home of the test, and the commands that read or write the file there.
FILES: dict[str, list[list[str]]] = {
    "config/audiocli/config.toml": [SPEAK, ["config"], ["budget", "set", "--day", "5"]],
    "config/audiocli/keys.toml": [SPEAK, ["keys", "list"], ["keys", "set", "groq", "--no-verify"]],
    "data/ledger.sqlite3": [SPEAK, ["usage"], ["usage", "verify"], ["jobs"]],
    "data/audiocli/manifest.sqlite3": [BATCH],
    "data/audiocli/transcripts": [BATCH],
    "data/audiocli": [BATCH],
    "cache/audiocli": [SPEAK, ["models", "-g", "openrouter"]],
    "cache/audiocli/models": [["models", "-g", "openrouter"], SPEAK],
    "cache/audiocli/completion.txt": [["models", "-g", "openrouter"]],
    "cache/audiocli/speech": [SPEAK_LONG],
    "cache/audiocli/kept": [SPEAK],
}
CASES = [
    (name, kind)
    for name in FILES
    for kind in KINDS
    # A configuration in a FIFO is read as `cat` does, which waits for the writer: see the test below.
    if (name, kind) != ("config/audiocli/config.toml", "FIFO")
]


def make_special_file(kind: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind in MEMORY_DEVICES:
        make_memory_device(path, kind)
    elif kind == "FIFO":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
        (path / "precious").write_text("x")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{(directory := os.open(path.parent, os.O_RDONLY))}/{path.name}")
            os.close(directory)
    elif kind == "dangling symlink":
        path.symlink_to("nowhere/file")
    elif kind == "symlink loop":
        path.symlink_to(path.name)
    else:
        path.with_name("target").mkdir()
        (path.with_name("target") / "precious").write_text("x")
        path.symlink_to("target")


def describe_tree(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Return type, mode and content of everything that exists below a directory."""
    return {
        str(path): (
            path.lstat().st_mode,
            os.fsencode(path.readlink())
            if path.is_symlink()
            else path.read_bytes()
            if stat.S_ISREG(path.lstat().st_mode)
            else b"",
        )
        for path in directory.rglob("*")
    }


@contextmanager
def time_limit() -> Iterator[None]:
    def fail(*_: object) -> None:
        pytest.fail(f"the command did not end within {TIME_LIMIT_S} s")

    previous = signal.signal(signal.SIGALRM, fail)
    signal.alarm(TIME_LIMIT_S)
    # SQLite opens a file again after an interrupt, so only the end of the process helps.
    faulthandler.dump_traceback_later(2 * TIME_LIMIT_S, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def run(audiocli: CommandLine, arguments: list[str]) -> Result:
    with time_limit():
        return audiocli(*audiocli.expand(arguments), stdin=b"gsk-test\n")


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_special_file_in_place_of_ours_is_left_alone(audiocli: CommandLine, name: str, kind: str) -> None:
    (audiocli.directory / "records").mkdir()
    (audiocli.directory / "records" / "a.wav").write_bytes(SPEECH)
    home = Path(audiocli.variables["HOME"])
    make_special_file(kind, home / name)
    before = describe_tree(home)

    for arguments in FILES[name]:
        r = run(audiocli, arguments)

        assert r.code in (0, 2, 3, 4, 5, 10), (arguments, r.err)
        assert r.posts or {entry["outcome"] for entry in r.ledger} <= {"unsent"}, (arguments, r.ledger)
        if r.code:
            # The message, or the check, names the path.
            assert str(home / name) in r.err + r.text or str((home / name).parent) in r.err + r.text, arguments
    after = describe_tree(home)
    assert {path: after.get(path) for path in before} == before


def test_configuration_in_a_fifo_is_read(audiocli: CommandLine) -> None:
    """As with `AUDIOCLI_CONFIG=<(…)`."""
    path = audiocli.directory / "config.fifo"
    os.mkfifo(path)
    if (pid := os.fork()) == 0:
        path.write_text('[speak]\nformat = "flac"\n')
        os._exit(0)

    with time_limit():
        r = audiocli("config", variables={"AUDIOCLI_CONFIG": str(path)})
    os.waitpid(pid, 0)

    assert r.code == 0 and "flac" in r.text, r.err


@pytest.mark.parametrize("kind", ["null", "zero", "FIFO", "directory", "socket", "symlink loop"])
def test_regular_file_reader_refuses_everything_else(tmp_path: Path, kind: str) -> None:
    make_special_file(kind, tmp_path / "file")

    with time_limit(), pytest.raises(OSError, match=r"regular file|directory|symbolic links"):
        open_regular_file(tmp_path / "file")


def test_regular_file_reader_reads_at_most_its_limit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")

    assert read_regular_file(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="larger than"):
        read_regular_file(tmp_path / "file", 4)
