"""Real processes: Ctrl-C, kill -9, pipes whose other end goes away, disks that are full."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from audiocli.errors import OutputError
from audiocli.outputs.file import FLUSHED_BYTES, FileOutput, PartFile
from tests.conftest import CommandLine
from tests.gateway import CutAfter, Drip, Stall, encode, expected_audio, expected_pcm

TEXT = "Hello there, world. " * 20


class Program:
    """The installed program in a process of its own, in the world of a CommandLine."""

    def __init__(self, audiocli: CommandLine) -> None:
        self._audiocli = audiocli

    def start(self, *argv: str | Path, **streams: object) -> subprocess.Popen[bytes]:
        usual = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            [sys.executable, "-m", "audiocli", *map(str, argv)],
            env={**self._audiocli.variables, "PYTHONPATH": str(Path(__file__).parent.parent)},
            # Whoever runs the tests may have ignored these for their children.
            preexec_fn=lambda: [signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGHUP)],
            **{**usual, **streams},  # type: ignore[call-overload]
        )


@pytest.fixture
def program(audiocli: CommandLine) -> Program:
    return Program(audiocli)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_ctrl_c_in_the_middle_leaves_an_entry_and_no_file(
    program: Program, audiocli: CommandLine, tmp_path: Path
) -> None:
    audiocli.gateway.hold(after_bytes=1000)
    process = program.start("speak", TEXT, "-o", tmp_path / "x.mp3")
    audiocli.gateway.wait_for_held(1)

    started_s = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)

    assert process.returncode == 130
    assert time.monotonic() - started_s < 5
    assert (out, files_in(tmp_path)) == (b"", [])
    assert b"Traceback" not in err
    assert [entry["outcome"] for entry in audiocli.entries()] == ["cancelled"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_request_to_end_is_like_ctrl_c(program: Program, audiocli: CommandLine, tmp_path: Path, name: str) -> None:
    audiocli.gateway.hold(after_bytes=1000)
    process = program.start("speak", TEXT, "-o", tmp_path / "x.flac")
    audiocli.gateway.wait_for_held(1)

    process.send_signal(getattr(signal, name))
    process.communicate(timeout=20)

    assert (process.returncode, files_in(tmp_path)) == (130, [])
    assert [entry["outcome"] for entry in audiocli.entries()] == ["cancelled"]


def test_ctrl_c_while_the_reader_is_asleep_ends_at_once(program: Program, audiocli: CommandLine) -> None:
    process = program.start("speak", TEXT * 8, "-f", "wav")
    audiocli.gateway.wait_for_requests(1)
    time.sleep(1.0)  # until the pipe is full: nobody reads it

    started_s = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.wait(timeout=20)

    assert process.returncode == 130
    assert time.monotonic() - started_s < 5
    process.communicate(timeout=5)
    assert [entry["outcome"] for entry in audiocli.entries()] == ["cancelled"]


@pytest.mark.parametrize("format", ["mp3", "wav", "opus"])
def test_a_reader_that_goes_away_is_a_success(program: Program, audiocli: CommandLine, format: str) -> None:
    process = program.start("speak", TEXT * 8, "-f", format)
    assert process.stdout is not None
    head = process.stdout.read(100)
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()

    assert (process.wait(timeout=20), len(head)) == (0, 100)
    assert b"Traceback" not in err
    assert [entry["outcome"] for entry in audiocli.entries()] in (["cancelled"], ["ok"])


def test_a_list_whose_reader_goes_away_is_a_success(program: Program) -> None:
    process = program.start("speak", "--help")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()

    assert (process.wait(timeout=20), err) == (0, b"")


def test_the_first_bytes_leave_while_the_rest_is_still_on_its_way(program: Program, audiocli: CommandLine) -> None:
    for format in ("mp3", "wav", "pcm", "flac", "opus", "aac", "m4a"):
        audiocli.gateway.hold(after_bytes=30_000 if format != "mp3" else 2000)
        process = program.start("speak", TEXT, "-f", format)
        audiocli.gateway.wait_for_held(1)
        assert process.stdout is not None

        first = process.stdout.read(500)

        audiocli.gateway.release()
        rest, _ = process.communicate(timeout=30)
        assert (len(first), process.returncode) == (500, 0), format
        assert rest


def test_stdout_into_a_file_takes_audio(program: Program, tmp_path: Path) -> None:
    with (tmp_path / "x.mp3").open("wb") as out:
        process = program.start("speak", TEXT, stdout=out)
        process.communicate(timeout=30)

    assert process.returncode == 0
    assert (tmp_path / "x.mp3").read_bytes() == expected_audio(TEXT, "mp3")


def test_dev_stdout_is_written_and_not_replaced(program: Program, tmp_path: Path) -> None:
    with (tmp_path / "x.mp3").open("wb") as out:
        out.write(b"before")
        out.flush()
        process = program.start("speak", TEXT, "-o", "/dev/stdout", stdout=out)
        process.communicate(timeout=30)

    assert (tmp_path / "x.mp3").read_bytes() == b"before" + expected_audio(TEXT, "mp3")


def test_decoding_and_encoding_start_together_without_a_race(
    program: Program, audiocli: CommandLine, tmp_path: Path
) -> None:
    # Groq makes WAV, so that both halves of the codec are loaded; two threads that do so at once broke each other.
    audiocli.variables["GROQ_API_KEY"] = "gsk-test"
    for number in range(6):
        process = program.start("speak", "hi", "-g", "groq", "-f", "m4a", "-o", tmp_path / f"{number}.m4a")
        _, err = process.communicate(timeout=30)

        assert process.returncode == 0, err


def test_closed_streams_are_survived(program: Program, audiocli: CommandLine, tmp_path: Path) -> None:
    process = subprocess.run(
        ["/bin/sh", "-c", f'exec "{sys.executable}" -m audiocli speak hi -o "{tmp_path}/x.mp3" <&- >&- 2>&-'],
        env={**audiocli.variables, "PATH": os.defpath, "PYTHONPATH": str(Path(__file__).parent.parent)},
        timeout=30,
    )

    assert process.returncode == 0
    assert (tmp_path / "x.mp3").read_bytes() == expected_audio("hi", "mp3")


def test_a_silent_gateway_is_given_up_after_the_time_out(
    program: Program, audiocli: CommandLine, tmp_path: Path
) -> None:
    audiocli.gateway.script(Stall(after_bytes=500, seconds=20))

    process = program.start("speak", TEXT, "-o", tmp_path / "x.mp3", "--timeout", "0.5")
    _, err = process.communicate(timeout=15)

    assert process.returncode == 7, err
    assert files_in(tmp_path) == []
    assert [entry["outcome"] for entry in audiocli.entries()] == ["unknown"]


def test_slow_bytes_are_not_silence(program: Program, audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.script(Drip(chunk_bytes=400, interval_s=0.2))

    process = program.start("speak", "hi", "-o", tmp_path / "x.mp3", "--timeout", "0.6")
    _, err = process.communicate(timeout=60)

    assert process.returncode == 0, err
    assert (tmp_path / "x.mp3").read_bytes() == expected_audio("hi", "mp3")


def test_kill_at_any_moment_leaves_no_half_file_and_an_entry_for_every_request(
    program: Program, audiocli: CommandLine, tmp_path: Path
) -> None:
    recording = tmp_path / "talk.wav"
    recording.write_bytes(encode(expected_pcm("Hello there."), "wav"))
    dice = random.Random(7)
    for number in range(8):
        target = tmp_path / f"{number}"
        argv = ["speak", TEXT, "-f", "mp3"] if number % 2 else ["transcribe", str(recording), "-f", "txt"]
        audiocli.gateway.script(Drip(chunk_bytes=2000, interval_s=0.01))
        process = program.start(*argv, "-o", target)
        time.sleep(dice.uniform(0.1, 0.9))
        process.kill()
        process.communicate(timeout=20)

        whole = {expected_audio(TEXT, "mp3"), b"The quick brown fox jumps over the lazy dog.\n"}
        assert not target.exists() or target.read_bytes() in whole
    audiocli.gateway.behave()

    assert audiocli("usage").code == 0
    outcomes = [entry["outcome"] for entry in audiocli.entries()]
    assert len(outcomes) >= len(audiocli.gateway.posts)
    assert set(outcomes) <= {"ok", "unknown"}


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_input_without_end_can_be_left_and_leaves_nothing(
    program: Program, audiocli: CommandLine, tmp_path: Path, name: str
) -> None:
    (tmp_path / "tmp").mkdir()
    audiocli.variables["TMPDIR"] = str(tmp_path / "tmp")
    process = program.start("transcribe", "-", stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(bytes(100_000))
    process.stdin.flush()
    deadline_s = time.monotonic() + 20
    while not list((tmp_path / "tmp").iterdir()) and time.monotonic() < deadline_s:
        time.sleep(0.05)

    process.send_signal(getattr(signal, name))
    process.wait(timeout=20)
    process.communicate()

    assert (process.returncode, list((tmp_path / "tmp").iterdir())) == (130, [])


def test_two_at_once_share_one_ledger(program: Program, audiocli: CommandLine, tmp_path: Path) -> None:
    processes = [program.start("speak", TEXT, "-o", tmp_path / f"{n}.mp3") for n in range(4)]
    for process in processes:
        process.communicate(timeout=60)

    assert [process.returncode for process in processes] == [0] * 4
    assert [entry["outcome"] for entry in audiocli.entries()] == ["ok"] * 4


def test_a_file_that_cannot_be_written_any_more_is_kept_elsewhere(tmp_path: Path) -> None:
    part = PartFile(tmp_path / "part", mode=0o600, rescue_folder=tmp_path / "kept", rescue_name="rescued")
    part.write(b"first ")
    # A descriptor that only reads: the next write fails as on a disk that went away, and what is there can be read.
    reader = os.open(tmp_path / "part", os.O_RDONLY)
    os.dup2(reader, part.fileno())
    os.close(reader)
    part.seek(6)

    part.write(b"second")

    assert part.trouble is not None
    assert (tmp_path / "kept" / "rescued").read_bytes() == b"first second"
    assert not (tmp_path / "part").exists()
    part.close()


def test_when_nothing_can_be_kept_that_is_told(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"a file where a folder should be")
    part = PartFile(tmp_path / "part", mode=0o600, rescue_folder=tmp_path / "kept", rescue_name="rescued")
    reader = os.open(tmp_path / "part", os.O_RDONLY)
    os.dup2(reader, part.fileno())
    os.close(reader)

    with pytest.raises(OutputError, match="nor keep it"):
        part.write(b"more")
    part.close()


# --- the local engines -----------------------------------------------------------------------------------------------


def test_without_any_key_the_local_engines_do_the_work(program: Program, audiocli: CommandLine, tmp_path: Path) -> None:
    del audiocli.variables["OPENROUTER_API_KEY"]

    # In a process of its own: espeak's sound varies a little within one, and the recogniser minds.
    _, said = program.start("speak", "hello world", "-o", tmp_path / "hello.wav").communicate(timeout=60)
    out, _ = program.start("transcribe", tmp_path / "hello.wav", "--json", "--timestamps", "word").communicate(
        timeout=60
    )

    heard = json.loads(out)
    assert b"no key found" in said
    assert heard["text"] == "hello world"
    assert heard["timing"] == "word"
    assert all(0 <= word["start_s"] < word["end_s"] <= heard["duration_s"] for word in heard["words"])
    assert (heard["cost_usd"], audiocli.entries(), audiocli.gateway.requests) == (0.0, [], [])


# --- players --------------------------------------------------------------------------------------------------------

PLAYER = """#!{python}
import sys
content = sys.stdin.buffer.read(int({limit}))
open({heard!r}, "wb").write(content)
sys.stderr.write("no such device\\n" if {status} else "")
sys.exit({status})
"""


def install(folder: Path, name: str, *, heard: Path, status: int = 0, limit: int = -1) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(PLAYER.format(python=sys.executable, heard=str(heard), status=status, limit=limit))
    path.chmod(0o755)


def test_the_first_player_that_works_is_fed_from_the_first_byte(audiocli: CommandLine, tmp_path: Path) -> None:
    bin_folder = Path(audiocli.variables["PATH"])
    install(bin_folder, "ffplay", heard=tmp_path / "nothing", status=1, limit=10)
    install(bin_folder, "mpv", heard=tmp_path / "heard")

    r = audiocli("speak", TEXT, "--play", "-o", tmp_path / "x.mp3")

    assert r.code == 0, r.err
    assert (tmp_path / "heard").read_bytes() == (tmp_path / "x.mp3").read_bytes() == expected_audio(TEXT, "mp3")
    assert list((Path(audiocli.variables["XDG_CACHE_HOME"]) / "audiocli" / "kept").iterdir()) == []


def test_on_a_terminal_the_audio_is_played(audiocli: CommandLine, tmp_path: Path) -> None:
    install(Path(audiocli.variables["PATH"]), "aplay", heard=tmp_path / "heard")

    r = audiocli("speak", TEXT, terminal="out err")

    assert (r.code, r.out) == (0, b""), r.err
    assert (tmp_path / "heard").read_bytes()[44:] == expected_pcm(TEXT)
    assert r.requests[0].json["response_format"] == "pcm"


def test_when_every_player_fails_the_audio_is_kept(audiocli: CommandLine, tmp_path: Path) -> None:
    install(Path(audiocli.variables["PATH"]), "mpv", heard=tmp_path / "nothing", status=1, limit=10)

    r = audiocli("speak", TEXT, "--play", "--json")

    assert r.code == 10
    assert "no such device" in r.err_json["error"]["message"]
    assert Path(r.err_json["error"]["kept"]).read_bytes() == expected_audio(TEXT, "mp3")
    assert [entry["outcome"] for entry in r.ledger] == ["ok"]


def test_a_player_that_the_user_closed_is_a_success(audiocli: CommandLine, tmp_path: Path) -> None:
    install(Path(audiocli.variables["PATH"]), "mpv", heard=tmp_path / "heard", limit=10)
    audiocli.gateway.script(Drip(chunk_bytes=2000, interval_s=0.05))

    r = audiocli("speak", TEXT, "--play")

    assert r.code == 0, r.err


def test_a_failed_speech_plays_nothing_more_and_keeps_nothing(audiocli: CommandLine, tmp_path: Path) -> None:
    install(Path(audiocli.variables["PATH"]), "mpv", heard=tmp_path / "heard")
    audiocli.gateway.script(CutAfter(3000))

    r = audiocli("speak", TEXT, "--play")

    assert r.code == 7
    assert list((Path(audiocli.variables["XDG_CACHE_HOME"]) / "audiocli" / "kept").iterdir()) == []


def test_braces_in_the_arguments_of_a_player_are_its_own(audiocli: CommandLine, tmp_path: Path) -> None:
    install(tmp_path / "own", "myplayer", heard=tmp_path / "heard")

    r = audiocli("speak", TEXT, "--player", f"'{tmp_path}/own/myplayer' --status=${{time-pos}} {{x}}")

    assert r.code == 0, r.err
    assert (tmp_path / "heard").read_bytes() == expected_audio(TEXT, "mp3")


def test_the_users_own_player_is_used(audiocli: CommandLine, tmp_path: Path) -> None:
    install(tmp_path / "own", "myplayer", heard=tmp_path / "heard")

    r = audiocli("speak", TEXT, "--player", f"'{tmp_path}/own/myplayer' --loud", "-f", "wav")

    assert r.code == 0, r.err
    assert (tmp_path / "heard").read_bytes()[44:] == expected_pcm(TEXT)


def test_the_ledger_needs_no_help_to_be_read(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli("speak", "hi", "-o", tmp_path / "x.mp3")
    database = sqlite3.connect(audiocli.ledger_path)

    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


def test_a_disk_that_fails_while_a_large_file_grows_is_told_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system reports such a failure once, to whoever brings the file to the disk first."""
    failures, really = [OSError(errno.EIO, "Input/output error")], os.fsync

    def fsync(descriptor: int) -> None:
        if failures:
            raise failures.pop()
        really(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    chunk = bytes(FLUSHED_BYTES // 2)
    sink = FileOutput(tmp_path / "x.pcm", rescue_folder=tmp_path / "kept")

    async def fill() -> None:
        for _ in range(3):
            await sink.write(chunk)
        await sink.commit()

    with pytest.raises(OutputError) as caught:
        asyncio.run(fill())

    assert failures == [] and files_in(tmp_path) == []
    assert "Input/output error" in caught.value.message
    [kept] = (tmp_path / "kept").iterdir()
    assert kept.stat().st_size == 3 * len(chunk) and str(kept) in str(caught.value.hint)
