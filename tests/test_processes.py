"""Real processes: Ctrl-C, kill -9, closed pipes, full disks, players."""

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
from collections.abc import Iterator
from pathlib import Path

import pytest

from audiocli.errors import OutputError
from audiocli.mock import CutAfter, Drip, Stall, expected_pcm
from audiocli.outputs.file import FLUSH_INTERVAL_BYTES, FileOutput, PartFile
from tests.conftest import CommandLine, Result
from tests.programs import write_program
from tests.pyav_codec import encode, expected_audio
from tests.requirements import needs_proc, require_program
from tests.small_server import Answer, serve

TEXT = "Hello there, world. " * 20


class Program:
    """The program in its own process, with the environment of a CommandLine."""

    def __init__(self, audiocli: CommandLine) -> None:
        self._audiocli = audiocli
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, *argv: str | Path, **streams: object) -> subprocess.Popen[bytes]:
        default_streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(
            [sys.executable, "-m", "audiocli", *map(str, argv)],
            env={**self._audiocli.variables, "PYTHONPATH": str(Path(__file__).parent.parent)},
            # The parent process may ignore these signals, and children inherit that.
            preexec_fn=lambda: [signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGHUP)],
            **{**default_streams, **streams},  # type: ignore[call-overload]
        )
        self._processes.append(process)
        return process

    def kill_all(self) -> None:
        """Kill the processes that are still running."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.communicate()


@pytest.fixture
def program(audiocli: CommandLine) -> Iterator[Program]:
    program = Program(audiocli)
    yield program
    program.kill_all()


def run_in_shell(audiocli: CommandLine, arguments: str, script: str, directory: Path) -> Result:
    """Run a script of bash in a directory. `run` in the script is the program with these arguments before its own."""
    request_count = len(audiocli.gateway.requests)
    process = subprocess.run(
        [require_program("bash"), "-c", f'run() {{ "$PYTHON" -m audiocli {arguments} "$@"; }}; {script}'],
        cwd=directory,
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
    requests = audiocli.gateway.requests[request_count:]
    return Result(process.returncode, process.stdout, process.stderr.decode(), requests, [], [])


def list_files(directory: Path) -> list[str]:
    """Return the names of the files in a directory, which may not exist."""
    return sorted(path.name for path in directory.glob("*") if path.is_file())


def test_ctrl_c_leaves_an_entry_and_no_file(program: Program, audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.hold_responses(after_bytes=1000)
    process = program.start("speak", TEXT, "-o", tmp_path / "x.mp3")
    audiocli.gateway.wait_for_held_responses(1)

    started_s = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)

    assert process.returncode == 130
    assert time.monotonic() - started_s < 5
    assert (out, list_files(tmp_path)) == (b"", [])
    assert b"Traceback" not in err
    assert [entry["outcome"] for entry in audiocli.read_ledger_entries()] == ["cancelled"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_termination_signal_is_handled_like_ctrl_c(
    program: Program, audiocli: CommandLine, tmp_path: Path, name: str
) -> None:
    audiocli.gateway.hold_responses(after_bytes=1000)
    process = program.start("speak", TEXT, "-o", tmp_path / "x.flac")
    audiocli.gateway.wait_for_held_responses(1)

    process.send_signal(getattr(signal, name))
    process.communicate(timeout=20)

    assert (process.returncode, list_files(tmp_path)) == (130, [])
    assert [entry["outcome"] for entry in audiocli.read_ledger_entries()] == ["cancelled"]


def test_ctrl_c_with_blocked_stdout_exits_immediately(program: Program, audiocli: CommandLine) -> None:
    process = program.start("speak", TEXT * 8, "-f", "wav")
    audiocli.gateway.wait_for_requests(1)
    time.sleep(1.0)  # until the pipe is full: it has no reader

    started_s = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.wait(timeout=20)

    assert process.returncode == 130
    assert time.monotonic() - started_s < 5
    process.communicate(timeout=5)
    assert [entry["outcome"] for entry in audiocli.read_ledger_entries()] == ["cancelled"]


@pytest.mark.parametrize("format", ["mp3", "wav", "opus"])
def test_closed_stdout_is_success(program: Program, audiocli: CommandLine, format: str) -> None:
    process = program.start("speak", TEXT * 8, "-f", format)
    assert process.stdout is not None
    head = process.stdout.read(100)
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()

    assert (process.wait(timeout=20), len(head)) == (0, 100)
    assert b"Traceback" not in err
    assert [entry["outcome"] for entry in audiocli.read_ledger_entries()] in (["cancelled"], ["ok"])


def test_closed_stdout_of_help_is_success(program: Program) -> None:
    process = program.start("speak", "--help")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()

    assert (process.wait(timeout=20), err) == (0, b"")


def test_first_bytes_are_written_before_the_response_ends(program: Program, audiocli: CommandLine) -> None:
    for format in ("mp3", "wav", "pcm", "flac", "opus", "aac", "m4a"):
        audiocli.gateway.hold_responses(after_bytes=30_000 if format != "mp3" else 2000)
        process = program.start("speak", TEXT, "-f", format, "--no-cache")
        audiocli.gateway.wait_for_held_responses(1)
        assert process.stdout is not None

        first = process.stdout.read(500)

        audiocli.gateway.release_responses()
        remaining, _ = process.communicate(timeout=30)
        assert (len(first), process.returncode) == (500, 0), format
        assert remaining


def test_stdout_redirected_to_file_receives_audio(program: Program, tmp_path: Path) -> None:
    with (tmp_path / "x.mp3").open("wb") as out:
        process = program.start("speak", TEXT, stdout=out)
        process.communicate(timeout=30)

    assert process.returncode == 0
    assert (tmp_path / "x.mp3").read_bytes() == expected_audio(TEXT, "mp3")


def test_dev_stdout_is_appended_and_not_replaced(program: Program, tmp_path: Path) -> None:
    with (tmp_path / "x.mp3").open("wb") as out:
        out.write(b"before")
        out.flush()
        process = program.start("speak", TEXT, "-o", "/dev/stdout", stdout=out)
        process.communicate(timeout=30)

    assert (tmp_path / "x.mp3").read_bytes() == b"before" + expected_audio(TEXT, "mp3")


def test_codec_halves_load_without_a_race(program: Program, audiocli: CommandLine, tmp_path: Path) -> None:
    # Groq returns WAV, so both halves of the codec are loaded. Two threads that loaded them at the same time failed.
    audiocli.variables["GROQ_API_KEY"] = "gsk-test"
    for number in range(6):
        process = program.start("speak", "hi", "-g", "groq", "-f", "m4a", "-o", tmp_path / f"{number}.m4a")
        _, err = process.communicate(timeout=30)

        assert process.returncode == 0, err


def test_closed_standard_streams_are_accepted(program: Program, audiocli: CommandLine, tmp_path: Path) -> None:
    process = subprocess.run(
        ["/bin/sh", "-c", f'exec "{sys.executable}" -m audiocli speak hi -o "{tmp_path}/x.mp3" <&- >&- 2>&-'],
        env={**audiocli.variables, "PATH": os.defpath, "PYTHONPATH": str(Path(__file__).parent.parent)},
        timeout=30,
    )

    assert process.returncode == 0
    assert (tmp_path / "x.mp3").read_bytes() == expected_audio("hi", "mp3")


def test_silent_gateway_times_out(program: Program, audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.queue_faults(Stall(after_bytes=500, seconds=20))

    process = program.start("speak", TEXT, "-o", tmp_path / "x.mp3", "--timeout", "0.5")
    _, err = process.communicate(timeout=15)

    assert process.returncode == 7, err
    assert list_files(tmp_path) == []
    assert [entry["outcome"] for entry in audiocli.read_ledger_entries()] == ["unknown"]


def test_slow_response_does_not_time_out(program: Program, audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.queue_faults(Drip(block_bytes=400, interval_s=0.2))

    process = program.start("speak", "hi", "-o", tmp_path / "x.mp3", "--timeout", "0.6")
    _, err = process.communicate(timeout=60)

    assert process.returncode == 0, err
    assert (tmp_path / "x.mp3").read_bytes() == expected_audio("hi", "mp3")


def test_killed_process_leaves_no_partial_file_and_an_entry_per_request(
    program: Program, audiocli: CommandLine, tmp_path: Path
) -> None:
    recording = tmp_path / "talk.wav"
    recording.write_bytes(encode(expected_pcm("Hello there."), "wav"))
    rng = random.Random(7)
    for number in range(8):
        target = tmp_path / f"{number}"
        argv = ["speak", TEXT, "-f", "mp3"] if number % 2 else ["transcribe", str(recording), "-f", "txt"]
        audiocli.gateway.queue_faults(Drip(block_bytes=2000, interval_s=0.01))
        process = program.start(*argv, "-o", target)
        time.sleep(rng.uniform(0.1, 0.9))
        process.kill()
        process.communicate(timeout=20)

        complete_outputs = {expected_audio(TEXT, "mp3"), b"The quick brown fox jumps over the lazy dog.\n"}
        assert not target.exists() or target.read_bytes() in complete_outputs
    audiocli.gateway.clear_faults()

    assert audiocli("usage").code == 0
    outcomes = [entry["outcome"] for entry in audiocli.read_ledger_entries()]
    assert len(outcomes) >= len(audiocli.gateway.posts)
    assert set(outcomes) <= {"ok", "unknown"}


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_endless_stdin_can_be_interrupted_and_leaves_no_file(
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
    assert list((tmp_path / "tmp").iterdir()), "stdin was not saved to a temporary file within 20 s"

    process.send_signal(getattr(signal, name))
    process.wait(timeout=20)
    process.communicate()

    assert (process.returncode, list((tmp_path / "tmp").iterdir())) == (130, [])


# A program that stands for yt-dlp, and starts another program, as yt-dlp starts ffmpeg.
DOWNLOADER = """#!/bin/sh
sleep 60 &
echo $! > "$TMPDIR/child.new"
mv "$TMPDIR/child.new" "$TMPDIR/child"
wait
"""


def is_running(pid: int) -> bool:
    """Return whether a process exists and has not ended. One without a parent that waits for it is a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@needs_proc
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_interrupted_download_from_a_page_ends_all_its_processes(
    program: Program, audiocli: CommandLine, tmp_path: Path, name: str
) -> None:
    downloader = write_program(tmp_path / "bin" / "yt-dlp", DOWNLOADER)
    (tmp_path / "tmp").mkdir()
    audiocli.variables.update(PATH=f"{downloader.parent}:/usr/bin:/bin", TMPDIR=str(tmp_path / "tmp"))
    child = tmp_path / "tmp" / "child"
    with serve(lambda request: Answer(200, b"<html>A page</html>", (("Content-Type", "text/html"),))) as server:
        process = program.start("transcribe", f"{server.url}/watch")
        deadline_s = time.monotonic() + 20
        while not child.exists() and time.monotonic() < deadline_s:
            time.sleep(0.05)
        child_pid = int(child.read_text())

        process.send_signal(getattr(signal, name))
        try:
            process.communicate(timeout=20)
            deadline_s = time.monotonic() + 20  # a process that was killed ends when it gets the processor
            while is_running(child_pid) and time.monotonic() < deadline_s:
                time.sleep(0.01)
        finally:
            was_running = is_running(child_pid)
            if was_running:
                os.kill(child_pid, signal.SIGKILL)

    assert (process.returncode, was_running) == (130, False)


def test_concurrent_processes_share_one_ledger(program: Program, audiocli: CommandLine, tmp_path: Path) -> None:
    processes = [program.start("speak", TEXT, "-o", tmp_path / f"{n}.mp3", "--no-cache") for n in range(4)]
    for process in processes:
        process.communicate(timeout=60)

    assert [process.returncode for process in processes] == [0] * 4
    assert [entry["outcome"] for entry in audiocli.read_ledger_entries()] == ["ok"] * 4


def test_unwritable_file_is_saved_elsewhere(tmp_path: Path) -> None:
    part_file = PartFile(tmp_path / "part", mode=0o600, rescue_directory=tmp_path / "kept", rescue_name="rescued")
    part_file.write(b"first ")
    # A read-only descriptor: the next write fails as on a removed disk, and the written bytes can be read.
    reader = os.open(tmp_path / "part", os.O_RDONLY)
    os.dup2(reader, part_file.fileno())
    os.close(reader)
    part_file.seek(6)

    part_file.write(b"second")

    assert part_file.write_error is not None
    assert (tmp_path / "kept" / "rescued").read_bytes() == b"first second"
    assert not (tmp_path / "part").exists()
    part_file.close()


def test_failure_to_save_elsewhere_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kept").write_bytes(b"a file where a directory should be")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "kept"))
    monkeypatch.setattr("audiocli.outputs.rescue.SHARED_MEMORY_DIRECTORY", tmp_path / "kept")
    part_file = PartFile(tmp_path / "part", mode=0o600, rescue_directory=tmp_path / "kept", rescue_name="rescued")
    reader = os.open(tmp_path / "part", os.O_RDONLY)
    os.dup2(reader, part_file.fileno())
    os.close(reader)

    with pytest.raises(OutputError, match="or save it"):
        part_file.write(b"more")
    part_file.close()


@pytest.mark.parametrize("share", [0.0, 2.0])
def test_output_in_memory_leaves_memory_to_other_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "kept"))
    monkeypatch.setattr("audiocli.outputs.rescue.SHARED_MEMORY_DIRECTORY", memory)
    monkeypatch.setattr("audiocli.outputs.rescue.MIN_FREE_MEMORY_SHARE", share)
    (tmp_path / "kept").write_bytes(b"a file where a directory should be")
    part_file = PartFile(tmp_path / "part", mode=0o600, rescue_directory=tmp_path / "kept", rescue_name="rescued")
    reader = os.open(tmp_path / "part", os.O_RDONLY)
    os.dup2(reader, part_file.fileno())
    os.close(reader)

    if share:
        with pytest.raises(OutputError, match="or save it"):
            part_file.write(b"more")
        assert list(memory.iterdir()) == []
    else:
        part_file.write(b"more")
        assert (memory / "audiocli-rescued").read_bytes() == b"more"
    part_file.close()


# --- local engines ---------------------------------------------------------------------------------------------------


def test_local_engines_work_without_a_key(program: Program, audiocli: CommandLine, tmp_path: Path) -> None:
    del audiocli.variables["OPENROUTER_API_KEY"]

    # In its own process: the audio of espeak varies within one process, which changes the transcript.
    _, speech_err = program.start("speak", "hello world", "-o", tmp_path / "hello.wav").communicate(timeout=60)
    out, _ = program.start("transcribe", tmp_path / "hello.wav", "--json", "--timestamps", "word").communicate(
        timeout=60
    )

    transcript = json.loads(out)
    assert b"no API key found" in speech_err
    assert transcript["text"].lower().rstrip(".") == "hello world"
    assert transcript["timing"] == "word"
    assert all(0 <= word["start_s"] < word["end_s"] <= transcript["duration_s"] for word in transcript["words"])
    assert (transcript["cost_usd"], audiocli.read_ledger_entries(), audiocli.gateway.requests) == (0.0, [], [])


# --- players ---------------------------------------------------------------------------------------------------------

PLAYER = """#!{python}
import sys
content = sys.stdin.buffer.read(int({limit}))
open({received!r}, "wb").write(content)
sys.stderr.write("no such device\\n" if {status} else "")
sys.exit({status})
"""


def install_player(directory: Path, name: str, *, received: Path, status: int = 0, limit: int = -1) -> None:
    script = PLAYER.format(python=sys.executable, received=str(received), status=status, limit=limit)
    write_program(directory / name, script)


def test_first_working_player_receives_audio_from_the_first_byte(audiocli: CommandLine, tmp_path: Path) -> None:
    bin_directory = Path(audiocli.variables["PATH"])
    install_player(bin_directory, "ffplay", received=tmp_path / "nothing", status=1, limit=10)
    install_player(bin_directory, "mpv", received=tmp_path / "received")

    r = audiocli("speak", TEXT, "--play", "-o", tmp_path / "x.mp3")

    assert r.code == 0, r.err
    assert (tmp_path / "received").read_bytes() == (tmp_path / "x.mp3").read_bytes() == expected_audio(TEXT, "mp3")
    assert list((Path(audiocli.variables["XDG_CACHE_HOME"]) / "audiocli" / "kept").iterdir()) == []


def test_audio_is_played_on_a_terminal(audiocli: CommandLine, tmp_path: Path) -> None:
    install_player(Path(audiocli.variables["PATH"]), "aplay", received=tmp_path / "received")

    r = audiocli("speak", TEXT, terminal="out err")

    assert (r.code, r.out) == (0, b""), r.err
    assert (tmp_path / "received").read_bytes()[44:] == expected_pcm(TEXT)
    assert r.requests[0].json["response_format"] == "pcm"


def test_audio_is_saved_when_every_player_fails(audiocli: CommandLine, tmp_path: Path) -> None:
    install_player(Path(audiocli.variables["PATH"]), "mpv", received=tmp_path / "nothing", status=1, limit=10)

    r = audiocli("speak", TEXT, "--play", "--json")

    assert r.code == 10
    assert "no such device" in r.err_json["error"]["message"]
    assert Path(r.err_json["error"]["kept"]).read_bytes() == expected_audio(TEXT, "mp3")
    assert [entry["outcome"] for entry in r.ledger] == ["ok"]


def test_player_closed_by_the_user_is_success(audiocli: CommandLine, tmp_path: Path) -> None:
    install_player(Path(audiocli.variables["PATH"]), "mpv", received=tmp_path / "received", limit=10)
    audiocli.gateway.queue_faults(Drip(block_bytes=2000, interval_s=0.05))

    r = audiocli("speak", TEXT, "--play")

    assert r.code == 0, r.err


def test_failed_speech_stops_playback_and_saves_nothing(audiocli: CommandLine, tmp_path: Path) -> None:
    install_player(Path(audiocli.variables["PATH"]), "mpv", received=tmp_path / "received")
    audiocli.gateway.queue_faults(CutAfter(3000))

    r = audiocli("speak", TEXT, "--play")

    assert r.code == 7
    assert list((Path(audiocli.variables["XDG_CACHE_HOME"]) / "audiocli" / "kept").iterdir()) == []


def test_braces_in_player_arguments_are_literal(audiocli: CommandLine, tmp_path: Path) -> None:
    install_player(tmp_path / "bin", "myplayer", received=tmp_path / "received")

    r = audiocli("speak", TEXT, "--player", f"'{tmp_path}/bin/myplayer' --status=${{time-pos}} {{x}}")

    assert r.code == 0, r.err
    assert (tmp_path / "received").read_bytes() == expected_audio(TEXT, "mp3")


def test_configured_player_is_used(audiocli: CommandLine, tmp_path: Path) -> None:
    install_player(tmp_path / "bin", "myplayer", received=tmp_path / "received")

    r = audiocli("speak", TEXT, "--player", f"'{tmp_path}/bin/myplayer' --loud", "-f", "wav")

    assert r.code == 0, r.err
    assert (tmp_path / "received").read_bytes()[44:] == expected_pcm(TEXT)


def test_ledger_is_a_valid_sqlite_database(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli("speak", "hi", "-o", tmp_path / "x.mp3")
    database = sqlite3.connect(audiocli.ledger_path)

    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


def test_disk_failure_during_a_large_file_is_reported_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux reports a write-back failure once, to the first fsync of the file."""
    failures, real_fsync = [OSError(errno.EIO, "Input/output error")], os.fsync

    def fsync(descriptor: int) -> None:
        if failures:
            raise failures.pop()
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    block = bytes(FLUSH_INTERVAL_BYTES // 2)
    output = FileOutput(tmp_path / "x.pcm", rescue_directory=tmp_path / "kept")

    async def write_blocks() -> None:
        for _ in range(3):
            await output.write(block)
        await output.commit()

    with pytest.raises(OutputError) as caught:
        asyncio.run(write_blocks())

    assert failures == [] and list_files(tmp_path) == []
    assert "Input/output error" in caught.value.message
    [rescued] = (tmp_path / "kept").iterdir()
    assert rescued.stat().st_size == 3 * len(block) and str(rescued) in str(caught.value.hint)
