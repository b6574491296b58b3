"""Local engines run in child processes: crashes, hangs, interruptions, and what the children inherit."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from audiocli.engines import LocalTransport, espeak
from audiocli.errors import AccessError, InvalidResponse, UsageError
from tests.conftest import CommandLine
from tests.gateway_contract import SPEECH
from tests.programs import write_program
from tests.requirements import needs_proc, skip_without_namespaces
from tests.test_local import (
    LONG_TEXT,
    build_speech_request,
    compute_duration_s,
    open_transport,
    read_blocks,
    run,
    speak,
    transcribe,
)
from tests.test_processes import Program, list_files
from tests.test_processes import program as program
from tests.test_secrets import CONFIG, SECRET, SECRET_VARIABLES, read_environment

PROC = Path("/proc")
CRASHING_TEXT = "a." * 200
CHUNK = "The harbour opens at nine, and the ferry leaves a quarter of an hour later. "

pytestmark = needs_proc


def list_children(parent_pid: int) -> list[int]:
    """Return the processes that a process has started and that have not ended."""
    children = []
    for directory in PROC.iterdir():
        if not directory.name.isdecimal():
            continue
        try:
            fields = (directory / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent_pid and fields[0] not in "ZX":
            children.append(int(directory.name))
    return children


def list_engines() -> list[int]:
    """Return the children of this process that run espeak."""
    return [child for child in list_children(os.getpid()) if "espeak_worker" in read_command(child)]


def has_engine(parent_pid: int) -> bool:
    """Return whether a child of a process runs its program. Before that, it is a copy of its parent."""
    command = read_command(parent_pid)
    return any(read_command(child) not in ("", command) for child in list_children(parent_pid))


def read_command(pid: int) -> str:
    try:
        return (PROC / f"{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


def wait_until(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return (PROC / f"{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def check_crash(process: subprocess.Popen[bytes], engine: str, signal_name: str, directory: Path) -> None:
    """Crash the engine of a command. Check that the crash is reported, and that no file is left in a directory."""
    (child,) = list_children(process.pid)

    os.kill(child, getattr(signal, signal_name))
    _, err = process.communicate(timeout=20)

    assert process.returncode == 9
    assert f"the local engine {engine} crashed ({signal_name})" in err.decode()
    assert "Traceback" not in err.decode()
    assert list_files(directory) == []


def check_end_of_command(process: subprocess.Popen[bytes], signal_name: str, output: Path) -> None:
    """End a command. Check that its engine ends too, and that the output does not exist."""
    (child,) = list_children(process.pid)

    process.send_signal(getattr(signal, signal_name))
    _, err = process.communicate(timeout=20)

    assert process.returncode == (130 if signal_name == "SIGINT" else -signal.SIGKILL)
    assert b"Traceback" not in err
    assert not output.exists()
    wait_until(lambda: not is_running(child))


def run_without_network(audiocli: CommandLine, *argv: str | Path) -> bytes:
    """Run a command in a namespace without a network. Return its output."""
    process = subprocess.run(
        [*skip_without_namespaces("-rn"), sys.executable, "-m", "audiocli", *map(str, argv)],
        env={**audiocli.variables, "PYTHONPATH": str(Path(__file__).parent.parent), "PATH": os.environ["PATH"]},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture
def speaking(program: Program, tmp_path: Path) -> subprocess.Popen[bytes]:
    """A command that writes speech to x.wav: its first audio has arrived, and its text lasts for minutes."""
    (tmp_path / "text.txt").write_text(LONG_TEXT)
    process = program.start(
        "speak", "-F", tmp_path / "text.txt", "-m", "local:espeak", "-o", tmp_path / "out" / "x.wav", "--timeout", "1"
    )
    (tmp_path / "out").mkdir()
    wait_until(lambda: any(path.stat().st_size > 100_000 for path in (tmp_path / "out").iterdir()))
    return process


# --- crashes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL"])
def test_engine_that_crashes_is_reported_and_leaves_no_file(
    speaking: subprocess.Popen[bytes], tmp_path: Path, name: str
) -> None:
    check_crash(speaking, "espeak", name, tmp_path / "out")


def test_crash_of_the_library_is_reported_and_leaves_no_file(
    audiocli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(espeak, "break_dotted_runs", lambda text: text)

    r = audiocli("speak", CRASHING_TEXT, "-m", "local:espeak", "-o", tmp_path / "x.wav")

    assert r.code == 9
    assert "the local engine espeak crashed (SIG" in r.err
    assert list_files(tmp_path) == []
    assert capfd.readouterr().err == ""


def test_crash_names_the_chunk_and_a_rerun_resumes(
    audiocli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"{CHUNK * 5}\n\n{CRASHING_TEXT}\n\n{CHUNK * 5}"
    arguments = ("speak", text, "-m", "local:espeak", "--max-chars", "450", "-j", "1", "-o", tmp_path / "x.wav")

    with monkeypatch.context() as patches:
        patches.setattr(espeak, "break_dotted_runs", lambda text: text)
        crashed = audiocli(*arguments)
    files = list_files(tmp_path)
    resumed = audiocli(*arguments)

    assert (crashed.code, files) == (9, [])
    assert "chunk 3 of 4" in crashed.err and "crashed (SIG" in crashed.err
    assert (resumed.code, list_files(tmp_path)) == (0, ["x.wav"])
    assert "2 of 4 chunks were cached" in resumed.err


def test_request_after_a_crash_starts_a_new_child(monkeypatch: pytest.MonkeyPatch) -> None:
    async def crash_then_speak(transport: LocalTransport) -> bytes:
        with monkeypatch.context() as patches:
            patches.setattr(espeak, "break_dotted_runs", lambda text: text)
            with pytest.raises(InvalidResponse, match="crashed"):
                await read_blocks(transport, build_speech_request(CRASHING_TEXT))
        return b"".join(await read_blocks(transport, build_speech_request("hello world")))

    assert compute_duration_s(run(crash_then_speak)) > 0.4


def test_child_that_ended_between_requests_is_replaced() -> None:
    async def kill_idle_child(transport: LocalTransport) -> list[int]:
        await read_blocks(transport, build_speech_request("one"))
        (child,) = list_engines()
        os.kill(child, signal.SIGKILL)
        wait_until(lambda: not is_running(child))
        await asyncio.sleep(0.1)  # until the event loop knows
        await read_blocks(transport, build_speech_request("two"))
        return [child, *list_engines()]

    before, after = run(kill_idle_child)
    assert before != after


def test_speech_engine_that_makes_no_progress_ends_at_the_read_timeout(speaking: subprocess.Popen[bytes]) -> None:
    assert "no data from the local engine espeak for 1 s" in stop_child(speaking)


def test_recognizer_that_makes_no_progress_ends_at_the_read_timeout(program: Program, tmp_path: Path) -> None:
    (tmp_path / "talk.wav").write_bytes(SPEECH)
    process = program.start("transcribe", "-m", "local:pocketsphinx", tmp_path / "talk.wav", "--timeout", "1")
    wait_until(lambda: has_engine(process.pid) or process.poll() is not None)

    assert "no data from the local engine pocketsphinx for 1 s" in stop_child(process)


def stop_child(process: subprocess.Popen[bytes]) -> str:
    """Stop the engine of a command. Return what the command prints before it exits with 9."""
    (child,) = list_children(process.pid)
    os.kill(child, signal.SIGSTOP)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 9
    assert not is_running(child)
    return err.decode()


# --- the end of a command --------------------------------------------------------------------------------------------


def test_ctrl_c_stops_the_engine_and_leaves_no_file(speaking: subprocess.Popen[bytes], tmp_path: Path) -> None:
    (child,) = list_children(speaking.pid)

    speaking.send_signal(signal.SIGINT)
    _, err = speaking.communicate(timeout=20)

    assert (speaking.returncode, list_files(tmp_path / "out")) == (130, [])
    assert b"Traceback" not in err
    assert not is_running(child)


def test_closed_stdout_stops_the_engine(program: Program, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(LONG_TEXT)
    process = program.start("speak", "-F", tmp_path / "text.txt", "-m", "local:espeak", "-f", "wav")
    assert process.stdout is not None and process.stderr is not None
    head = process.stdout.read(1000)
    (child,) = list_children(process.pid)

    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()

    assert (process.wait(timeout=20), len(head)) == (0, 1000)
    assert b"Traceback" not in err
    assert not is_running(child)


def test_engine_ends_with_a_killed_command(speaking: subprocess.Popen[bytes], tmp_path: Path) -> None:
    check_end_of_command(speaking, "SIGKILL", tmp_path / "out" / "x.wav")


def test_engine_that_is_idle_or_blocked_ends_with_its_input() -> None:
    content = b"175\0en-us\0" + LONG_TEXT.encode()
    module, *arguments = espeak.find_worker()
    directory = str(Path(espeak.__file__).parent)
    for request in (b"", b"S" + len(content).to_bytes(4, "big") + content):
        process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", "-c"),
                f"import sys; sys.path.append(sys.argv[1]); import {module}; {module}.serve(*sys.argv[2:])",
                *(directory, *arguments),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(request)
        process.stdin.flush()
        if request:
            assert process.stdout.read(1) == b"A"

        process.stdin.close()

        assert process.wait(timeout=20) == 0
        process.stdout.close()


def test_start_that_is_cancelled_at_any_step_leaves_no_child() -> None:
    async def cancel(transport: LocalTransport) -> int:
        steps = 0
        while True:
            task = asyncio.create_task(read_blocks(transport, build_speech_request("hello")))
            for _ in range(steps):
                await asyncio.sleep(0)
            if task.done():
                return steps
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                async with asyncio.timeout(20):
                    await task
            steps += 1 + steps // 8
            await transport.close()
            assert not list_engines()

    assert run(cancel) > 5  # it was cancelled several times before it could end


# --- what children are and inherit -----------------------------------------------------------------------------------


def test_speech_engine_inherits_no_key(audiocli: CommandLine, program: Program, tmp_path: Path) -> None:
    audiocli.write_config(CONFIG)
    audiocli.variables |= {**SECRET_VARIABLES, "LANG": "C"}
    (tmp_path / "text.txt").write_text(LONG_TEXT)
    process = program.start("speak", "-F", tmp_path / "text.txt", "-m", "local:espeak", "-f", "wav")
    assert process.stdout is not None
    process.stdout.read(1)

    (child,) = list_children(process.pid)
    environment = read_environment(PROC / f"{child}/environ")

    process.kill()
    process.communicate()
    assert environment["LANG"] == "C"
    assert not set(environment) & {*SECRET_VARIABLES, "OPENROUTER_API_KEY"}
    assert SECRET not in str(environment)


@pytest.fixture
def started_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """The number of interpreters that were started."""
    log = tmp_path / "started"
    interpreter = write_program(tmp_path / "python", f'#!/bin/sh\necho >> {log}\nexec {sys.executable} "$@"\n')
    monkeypatch.setattr(sys, "executable", str(interpreter))
    return lambda: len(log.read_bytes())


def test_many_chunks_share_few_children(
    audiocli: CommandLine, tmp_path: Path, started_children: Callable[[], int]
) -> None:
    text = " ".join(f"Sentence {number} of a long text." for number in range(60))

    r = audiocli(
        "speak", text, "-m", "local:espeak", "--max-chars", "40", "-j", "16", "-o", tmp_path / "x.wav", "--json"
    )

    assert (r.code, r.json["requests"]) == (0, 60), r.err
    assert 1 <= started_children() <= (os.cpu_count() or 1)


def test_failed_request_leaves_its_child_usable(started_children: Callable[[], int]) -> None:
    async def fail_then_speak(transport: LocalTransport) -> None:
        for request in (build_speech_request("hi", "en-uss"), build_speech_request("...")):
            with pytest.raises(UsageError):
                await read_blocks(transport, request)
        assert await read_blocks(transport, build_speech_request("hi"))

    run(fail_then_speak)

    assert started_children() == 1


def test_concurrent_speech_on_one_core_is_complete_in_any_read_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    texts = [CHUNK * 20, CHUNK * 10, CHUNK * 5]

    async def read_in_reverse(transport: LocalTransport) -> list[bytes]:
        async with asyncio.timeout(20), transport.open(build_speech_request(texts[0])) as first:
            task = asyncio.create_task(read_blocks(transport, build_speech_request(texts[1])))
            last = await read_blocks(transport, build_speech_request(texts[2]))
            return [b"".join([block async for block in first.iter_bytes()]), b"".join(await task), b"".join(last)]

    for text, pcm in zip(texts, run(read_in_reverse), strict=True):
        assert compute_duration_s(pcm) == pytest.approx(compute_duration_s(speak(text)), rel=0.02)


def test_engine_waits_for_a_slow_reader_unless_others_wait_for_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)

    async def read_slowly(transport: LocalTransport) -> int:
        async with transport.open(build_speech_request(LONG_TEXT)):
            (child,) = list_engines()
            waiting = asyncio.create_task(read_blocks(transport, build_speech_request("hello")))
            await asyncio.sleep(0.05)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            written_bytes = read_written_bytes(child)
            await asyncio.sleep(0.5)  # the engine would write 10 MB
            return read_written_bytes(child) - written_bytes

    def read_written_bytes(pid: int) -> int:
        fields = dict(line.split(": ") for line in (PROC / f"{pid}/io").read_text().splitlines())
        return int(fields["wchar"])

    assert run(read_slowly) < 1_000_000


# --- engines that do not start ---------------------------------------------------------------------------------------


def test_engine_that_exits_is_reported_with_its_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "#!/bin/sh\necho first >&2\necho no module named x >&2\nexit 3\n"
    interpreter = write_program(tmp_path / "python", script)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    (tmp_path / "talk.wav").write_bytes(SPEECH)

    with pytest.raises(InvalidResponse) as caught:
        speak("hello")

    assert caught.value.message == "the local engine espeak failed (exit status 3): no module named x"


@pytest.mark.parametrize("engine", ["espeak", "pocketsphinx"])
def test_engine_that_cannot_be_started_is_an_access_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))

    with pytest.raises(AccessError, match=f"cannot start the local engine {engine}: No such file"):
        speak("hello") if engine == "espeak" else transcribe(tmp_path / "talk.wav")


@pytest.mark.parametrize("broken", ["library", "data", "package", "path"])
def test_broken_installation_is_an_access_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    _, library_path, directory = espeak.find_worker()
    (tmp_path / "broken.so").write_bytes(b"not a library")
    data_directories = {"data": str(tmp_path / "missing"), "path": f"/{'x' * 159}"}
    package = tmp_path / "espeakng_loader.py"
    package.write_text(
        "def get_library_path():\n"
        f"    return {str(tmp_path / 'broken.so') if broken == 'library' else library_path!r}\n"
        "def get_data_path():\n"
        f"    return {data_directories.get(broken, directory)!r}\n"
        + ("raise RuntimeError('no data')\n" if broken == "package" else "")
    )
    monkeypatch.delitem(sys.modules, "espeakng_loader")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(AccessError) as caught:
        speak("hello")

    expected = {"library": "broken.so", "data": "cannot be read", "package": "no data", "path": "too long"}
    assert expected[broken] in caught.value.message
    assert caught.value.hint is not None


def test_bytecode_of_the_child_follows_the_settings_of_the_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "cache"))
    speak("hello")
    assert list((tmp_path / "cache").rglob("espeak_worker.*.pyc"))

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "other"))
    speak("hello")
    assert not (tmp_path / "other").exists()


def test_transport_leaves_no_child() -> None:
    async def speak_two(transport: LocalTransport) -> None:
        await asyncio.gather(*(read_blocks(transport, build_speech_request("hello")) for _ in range(2)))
        assert list_engines()

    async def main() -> None:
        async with open_transport() as transport:
            await speak_two(transport)

    asyncio.run(main())

    assert not list_engines()
