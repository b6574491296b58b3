"""The program's own files: only regular files are written, and nothing of others is changed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from audiocli.audio.wav import build_wav_header
from audiocli.private_files import write_atomically
from audiocli.types.audio import PcmFormat
from tests.conftest import CommandLine
from tests.requirements import make_memory_device, skip_without_root

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
    """A copy of the null device."""
    path = tmp_path / "devices" / "null"
    path.parent.mkdir()
    path.parent.chmod(0o755)
    make_memory_device(path, "null")
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


# --- existing directories and symlinks --------------------------------------------------------------------------------


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
    expected = [
        outputs / f".x.{os.getpid()}-0123abcd.part",
        outputs / f"x.{find_ended_process()}-0123abcd.part",
        outputs / f".x.{find_ended_process()}-link-0123abcd.part",
    ]
    for path in [abandoned, *expected]:
        path.write_bytes(b"x")
    link = outputs / f".y.{find_ended_process()}-0123abcd.part"
    link.symlink_to(expected[1])

    source = "hello" if command == "speak" else tmp_path / "in.wav"
    r = audiocli(command, source, "-o", outputs / ("x.mp3" if command == "speak" else "x.txt"))

    assert r.code == 0, r.err
    assert not abandoned.exists()
    assert all(path.exists() for path in expected)
    assert link.is_symlink()


# --- temporary directories --------------------------------------------------------------------------------------------

# A week and a little more than unfinished work is expected for.
EXPIRED_S = 8 * 24 * 3600
LONG_TEXT = " ".join(f"This is sentence number {number} of a long text." for number in range(12))
KINDS = ["speech", "texts", "uploads", "kept", "records", "ledger"]


@pytest.fixture
def no_home(audiocli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without a home: everything goes to the system's temporary directory, which is returned."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    (tmp_path / "file").write_bytes(b"")
    audiocli.variables.update(
        XDG_CACHE_HOME=str(tmp_path / "file"), XDG_DATA_HOME=str(tmp_path / "file"), AUDIOCLI_LEDGER=""
    )
    return temporary


def make_old(path: Path) -> Path:
    old_s = path.lstat().st_mtime - EXPIRED_S
    os.utime(path, (old_s, old_s), follow_symlinks=False)
    return path


def run_everything(audiocli: CommandLine, tmp_path: Path) -> list[int]:
    """Run the commands that use each of the temporary directories. Return their exit codes."""
    batch = tmp_path / "batch"
    batch.mkdir(exist_ok=True)
    source = tmp_path / "source.wav"
    samples = (b"\x00\x10" * 200 + b"\x00\xf0" * 200) * 20 * 50  # 50 s of a tone
    source.write_bytes(build_wav_header(PcmFormat(8_000, 1), len(samples)) + samples)
    (batch / "a.wav").write_bytes(source.read_bytes())
    return [
        audiocli("speak", LONG_TEXT, "--max-chars", "60", "-o", tmp_path / "x.mp3").code,
        audiocli("transcribe", source, "--max-chunk", "20", "-o", tmp_path / "x.txt").code,
        audiocli("transcribe", batch).code,
    ]


def test_temporary_directories_that_are_ours_are_used(audiocli: CommandLine, no_home: Path, tmp_path: Path) -> None:
    assert run_everything(audiocli, tmp_path) == [0, 0, 0]
    assert all(get_mode(path) == 0o700 for path in no_home.iterdir())
    files = [path for path in no_home.rglob("*") if path.is_file() and "sqlite3" not in path.name]
    assert files
    assert {get_mode(path) for path in files} == {0o600}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trap", ["symlink", "open to others", "another user's", "file"])
def test_temporary_directory_that_is_not_ours_alone_is_refused(
    audiocli: CommandLine, no_home: Path, tmp_path: Path, kind: str, trap: str
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    precious = make_old_file(victim / "thesis.wav")
    planted = no_home / f"audiocli-{kind}-{os.getuid()}"
    if trap == "symlink":
        planted.symlink_to(victim)
    elif trap == "file":
        planted.write_bytes(b"")
    else:
        planted.mkdir()
        planted.chmod(0o777 if trap == "open to others" else 0o700)
        if trap == "another user's":
            skip_without_root("only root can give a directory to another user")
            os.chown(planted, 12345, 12345)
        precious = make_old_file(planted / "thesis.wav")

    codes = run_everything(audiocli, tmp_path)

    assert set(codes) & {5, 10}, codes
    assert set(codes) <= {0, 5, 10}, codes
    assert precious.read_bytes() == b"precious"
    assert list_names(precious.parent) == ["thesis.wav"]


def make_old_file(path: Path) -> Path:
    path.write_bytes(b"precious")
    return make_old(path)


def test_next_run_removes_unfinished_chunks_of_a_killed_run(audiocli: CommandLine, tmp_path: Path) -> None:
    directory = Path(audiocli.variables["XDG_CACHE_HOME"]) / "audiocli" / "speech"
    directory.mkdir(parents=True)
    abandoned = directory / f".{'a' * 32}.wav.{find_ended_process()}-0123abcd.part"
    in_use = directory / f".{'b' * 32}.wav.{os.getpid()}-0123abcd.part"
    for path in (abandoned, in_use):
        path.write_bytes(b"RIFF")

    assert audiocli("speak", LONG_TEXT, "--max-chars", "60", "-o", tmp_path / "x.mp3").code == 0

    assert (abandoned.exists(), in_use.exists()) == (False, True)


@pytest.mark.parametrize("kind", ["speech", "texts", "uploads"])
def test_sweep_removes_expired_files_of_ours_only(audiocli: CommandLine, tmp_path: Path, kind: str) -> None:
    directory = Path(audiocli.variables["XDG_CACHE_HOME"]) / "audiocli" / kind
    directory.mkdir(parents=True)
    name = {"speech": f"{'a' * 32}.wav", "texts": f"{'a' * 32}.json", "uploads": f"{'a' * 16}-3.flac"}[kind]
    expired = make_old_file(directory / name)
    recent = directory / name.replace("a", "b")
    recent.write_bytes(b"recent")
    stranger = make_old_file(directory / "thesis.wav")
    link = directory / name.replace("a", "c")
    link.symlink_to(stranger)
    make_old(link)
    below = directory / name.replace("a", "d")
    below.mkdir()
    make_old(below)

    assert run_everything(audiocli, tmp_path) == [0, 0, 0]

    assert not expired.exists()
    assert recent.exists()
    assert stranger.exists()
    assert link.is_symlink()
    assert below.is_dir()
