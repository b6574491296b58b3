"""The program's own files: only regular files are written, and nothing of others is changed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from audiocli.private_files import write_atomically
from tests.conftest import CommandLine

KEY = b"gsk-test\n"

# Commands that write the configuration, with their stdin.
CONFIG_WRITERS = [
    (("budget", "set", "--day", "1"), b""),
    (("budget", "clear"), b""),
    (("keys", "set", "groq"), KEY),
    (("keys", "remove", "groq"), b""),
]


def get_mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def list_names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def find_ended_process() -> int:
    """Return the ID of a process that has ended."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


# --- special files in place of ours -----------------------------------------------------------------------------------


@pytest.fixture
def null_device(tmp_path: Path) -> Path:
    """The null device under another name, so that a fault does not replace the machine's own."""
    path = tmp_path / "devices" / "null"
    path.parent.mkdir()
    path.parent.chmod(0o755)
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        path.read_bytes()
    except PermissionError:
        pytest.skip("device nodes need root and a file system that allows them")
    return path


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "special" / "file"
    path.parent.mkdir()
    os.mkfifo(path)
    return path


@pytest.mark.parametrize(("argv", "stdin"), CONFIG_WRITERS, ids=[" ".join(argv) for argv, _ in CONFIG_WRITERS])
def test_configuration_that_is_not_a_regular_file_is_left_alone(
    audiocli: CommandLine, null_device: Path, argv: tuple[str, ...], stdin: bytes
) -> None:
    r = audiocli(*argv, stdin=stdin, variables={"AUDIOCLI_CONFIG": str(null_device)})

    assert r.code == 2, r.err
    assert str(null_device) in r.err
    assert list_names(null_device.parent) == ["null"]
    assert stat.S_ISCHR(null_device.stat().st_mode)
    assert get_mode(null_device.parent) == 0o755


def test_dev_null_reads_as_an_empty_configuration(audiocli: CommandLine, tmp_path: Path, null_device: Path) -> None:
    r = audiocli("speak", "hi", "-o", tmp_path / "x.mp3", variables={"AUDIOCLI_CONFIG": str(null_device)})

    assert (r.code, len(r.posts)) == (0, 1), r.err


def test_ledger_that_is_not_a_regular_file_sends_nothing(audiocli: CommandLine, tmp_path: Path, fifo: Path) -> None:
    variables = {"AUDIOCLI_LEDGER": str(fifo)}

    spoken = audiocli("speak", "hi", "-o", tmp_path / "x.mp3", variables=variables)
    report = audiocli("usage", "--json", variables=variables)

    assert (spoken.code, spoken.requests, report.code) == (5, [], 5), spoken.err + report.err
    assert "not a regular file" in spoken.err
    assert "not a regular file" in report.err
    assert list_names(fifo.parent) == ["file"]
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_endless_configuration_is_refused(audiocli: CommandLine) -> None:
    r = audiocli("config", variables={"AUDIOCLI_CONFIG": "/dev/zero"})

    assert r.code == 2, r.err
    assert "larger than" in r.err


def test_manifest_that_is_not_a_regular_file_sends_nothing(audiocli: CommandLine, tmp_path: Path) -> None:
    data = Path(audiocli.variables["XDG_DATA_HOME"]) / "audiocli"
    data.mkdir(parents=True)
    os.mkfifo(data / "manifest.sqlite3")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes(b"RIFF")

    r = audiocli("transcribe", tmp_path / "in")

    assert (r.code, r.requests) == (10, []), r.err
    assert "not a regular file" in r.err
    assert list_names(data) == ["manifest.sqlite3"]


# --- what exists is kept as it is -------------------------------------------------------------------------------------


def test_writing_configuration_does_not_change_the_mode_of_an_existing_directory(
    audiocli: CommandLine, tmp_path: Path
) -> None:
    shared = tmp_path / "project"
    shared.mkdir()
    shared.chmod(0o775)
    variables = {"AUDIOCLI_CONFIG": str(shared / "my.toml")}
    (shared / "my.toml").write_text("")

    for argv, stdin in CONFIG_WRITERS[:1] + CONFIG_WRITERS[2:]:
        r = audiocli(*argv, stdin=stdin, variables=variables)
        assert r.code == 0, r.err

    assert get_mode(shared) == 0o775
    assert get_mode(shared / "keys.toml") == 0o600


def test_configuration_that_is_a_symlink_stays_one(audiocli: CommandLine, tmp_path: Path) -> None:
    home = Path(audiocli.variables["XDG_CONFIG_HOME"]) / "audiocli"
    home.mkdir(parents=True)
    dotfiles = tmp_path / "dotfiles"
    dotfiles.mkdir()
    (dotfiles / "config.toml").write_text("# mine\n")
    (dotfiles / "config.toml").chmod(0o640)
    (dotfiles / "keys.toml").write_text("")
    (dotfiles / "keys.toml").chmod(0o600)
    for name in ("config.toml", "keys.toml"):
        (home / name).symlink_to(dotfiles / name)

    budget = audiocli("budget", "set", "--day", "1")
    key = audiocli("keys", "set", "groq", stdin=KEY)

    assert (budget.code, key.code) == (0, 0), budget.err + key.err
    assert all((home / name).is_symlink() for name in ("config.toml", "keys.toml"))
    assert (dotfiles / "config.toml").read_text().startswith("# mine\n")
    assert "day" in (dotfiles / "config.toml").read_text()
    assert "gsk-test" in (dotfiles / "keys.toml").read_text()
    assert get_mode(dotfiles / "config.toml") == 0o640


def test_write_atomically_leaves_nothing_behind_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()

    with pytest.raises(OSError, match="is a directory"):
        write_atomically(tmp_path / "directory", b"x")
    with pytest.raises(OSError, match="name too long"):
        write_atomically(tmp_path / ("x" * 300), b"x")

    assert list_names(tmp_path) == ["directory"]


# --- keys that others can read ----------------------------------------------------------------------------------------


def store_readable_key(audiocli: CommandLine) -> Path:
    audiocli("keys", "set", "groq", stdin=KEY)
    path = Path(audiocli.variables["XDG_CONFIG_HOME"]) / "audiocli" / "keys.toml"
    path.chmod(0o640)
    return path


def test_unsafe_keys_file_does_not_stop_what_needs_no_key_from_it(audiocli: CommandLine, tmp_path: Path) -> None:
    store_readable_key(audiocli)

    local = audiocli("speak", "hi", "-m", "local:espeak", "-o", tmp_path / "x.wav")
    from_environment = audiocli("speak", "hi", "-g", "openrouter", "-o", tmp_path / "y.mp3")

    assert (local.code, from_environment.code) == (0, 0), local.err + from_environment.err


def test_unsafe_keys_file_stops_what_may_need_a_key_from_it(audiocli: CommandLine, tmp_path: Path) -> None:
    path = store_readable_key(audiocli)
    no_key = {"OPENROUTER_API_KEY": ""}

    named = audiocli("speak", "hi", "-g", "groq", "-o", tmp_path / "x.wav", variables=no_key)
    unnamed = audiocli("speak", "hi", "-o", tmp_path / "x.wav", variables=no_key)
    listed = audiocli("keys", "list", variables=no_key)
    checked = audiocli("config", "check", variables=no_key)

    assert [named.code, unnamed.code, listed.code, checked.code] == [4, 4, 4, 3], unnamed.err
    for r in (named, unnamed, listed):
        assert f"chmod 600 {path}" in r.err
    assert f"chmod 600 {path}" in checked.text
    assert not (tmp_path / "x.wav").exists()


# --- unfinished outputs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["speak", "transcribe"])
def test_next_run_removes_unfinished_output_of_a_killed_run(
    audiocli: CommandLine, tmp_path: Path, command: str
) -> None:
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    audiocli("speak", "hello", "-o", tmp_path / "in.wav")
    abandoned = outputs / f".x.{find_ended_process()}-0123abcd.part"
    kept = [
        outputs / f".x.{os.getpid()}-0123abcd.part",
        outputs / f"x.{find_ended_process()}-0123abcd.part",
        outputs / f".x.{find_ended_process()}-link-0123abcd.part",
    ]
    for path in [abandoned, *kept]:
        path.write_bytes(b"x")
    link = outputs / f".y.{find_ended_process()}-0123abcd.part"
    link.symlink_to(kept[1])

    source = "hello" if command == "speak" else tmp_path / "in.wav"
    r = audiocli(command, source, "-o", outputs / ("x.mp3" if command == "speak" else "x.txt"))

    assert r.code == 0, r.err
    assert not abandoned.exists()
    assert all(path.exists() for path in kept)
    assert link.is_symlink()
