"""Long texts in real processes: kill -9, Ctrl-C, open and closed pipes, players, captions, full disks."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from audiocli.mock import Drip, NoFault, Stall, Status, expected_pcm
from tests.conftest import CommandLine
from tests.test_captions import read_srt, read_vtt
from tests.test_long_speech import (
    SENTENCES,
    SPEAK_IN_CHUNKS,
    check_joined,
    list_paid_results,
    list_requested_texts,
    read_samples,
)
from tests.test_processes import Program, install_player, list_files
from tests.test_processes import program as program


def test_killed_run_resumes_without_repeating_paid_chunks(
    program: Program, audiocli: CommandLine, tmp_path: Path
) -> None:
    rng = random.Random(11)
    audiocli.gateway.add_default_fault(Drip(block_bytes=12_000, interval_s=0.05))
    argv = (*SPEAK_IN_CHUNKS, "-o", tmp_path / "x.wav", "-j", "2")
    for _ in range(4):
        before = set(list_paid_results(audiocli))
        process = program.start(*argv)
        audiocli.gateway.wait_for_requests(len(list_requested_texts(audiocli)) + 1)
        time.sleep(rng.uniform(0.0, 0.8))
        process.kill()
        process.communicate(timeout=20)
        assert before <= set(list_paid_results(audiocli))
        assert not (tmp_path / "x.wav").exists()
    remaining_count = 8 - len(list_paid_results(audiocli))
    assert 0 < remaining_count < 8
    audiocli.gateway.clear_faults()

    r = audiocli(*argv)

    assert (r.code, len(r.posts)) == (0, remaining_count), r.err
    check_joined(read_samples(tmp_path / "x.wav"), SENTENCES)
    assert len(audiocli.read_ledger_entries()) >= len(audiocli.gateway.posts)


def test_ctrl_c_exits_immediately_and_same_command_resumes(
    program: Program, audiocli: CommandLine, tmp_path: Path
) -> None:
    argv = (*SPEAK_IN_CHUNKS, "-o", tmp_path / "x.mp3")
    audiocli.gateway.queue_faults(NoFault(), NoFault(), Status(400))
    assert audiocli(*argv, "-j", "1").code == 6
    audiocli.gateway.queue_faults(*[Stall(after_bytes=2000, seconds=20)] * 3)
    process = program.start(*argv, "-j", "3")
    audiocli.gateway.wait_for_requests(6)
    time.sleep(0.3)

    started_s = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)

    assert (process.returncode, list_files(tmp_path)) == (130, []), err
    assert time.monotonic() - started_s < 1.0
    assert Counter(entry["outcome"] for entry in audiocli.read_ledger_entries()[3:]) in (
        {"cancelled": 2},
        {"cancelled": 3},
    )
    r = audiocli(*argv)
    assert (r.code, len(r.posts)) == (0, 6), r.err


def test_ctrl_c_while_other_chunks_finish_leaves_no_file(
    program: Program, audiocli: CommandLine, tmp_path: Path
) -> None:
    audiocli.gateway.queue_faults(NoFault(), Status(400), Stall(after_bytes=2000, seconds=20))
    process = program.start(*SPEAK_IN_CHUNKS, "-o", tmp_path / "x.wav", "-j", "3")
    audiocli.gateway.wait_for_requests(3)
    time.sleep(0.3)

    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)

    assert b"Traceback" not in err
    assert (process.returncode, list_files(tmp_path)) == (130, [])
    assert "reserved" not in {entry["outcome"] for entry in audiocli.read_ledger_entries()}


def test_concurrent_runs_of_same_text_are_complete(program: Program, audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.latency_s = 0.1
    processes = [program.start(*SPEAK_IN_CHUNKS, "-o", tmp_path / f"{number}.wav", "-j", "2") for number in range(3)]
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err

    for number in range(3):
        check_joined(read_samples(tmp_path / f"{number}.wav"), SENTENCES)


def test_full_cache_disk_is_reported_and_ledger_is_correct(audiocli: CommandLine, program: Program) -> None:
    model = "openrouter:openai/gpt-4o-mini-tts-2025-12-15"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The limit of the file size acts like a full disk; a chunk has more bytes.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, limits[1]))
    try:
        process = program.start("speak", " ".join(SENTENCES * 30), "-m", model, "-f", "pcm")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    _, err = process.communicate(timeout=30)

    assert process.returncode == 10, err
    assert b"cannot save paid results" in err
    assert b"Traceback" not in err
    # How many requests are done or in flight when the disk is full depends on the machine.
    outcomes = Counter(entry["outcome"] for entry in audiocli.read_ledger_entries())
    assert outcomes.keys() == {"ok", "cancelled"}
    assert len(list_paid_results(audiocli)) == outcomes["ok"]


def test_paid_results_are_saved_without_cache_directory(
    audiocli: CommandLine, program: Program, tmp_path: Path
) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "file").write_bytes(b"")
    audiocli.variables.update(XDG_CACHE_HOME=str(tmp_path / "file"), TMPDIR=str(tmp_path / "tmp"))
    audiocli.gateway.queue_faults(*[NoFault()] * 5, Status(400))
    for code in (6, 0):
        process = program.start(*SPEAK_IN_CHUNKS, "-o", tmp_path / "x.wav", "-j", "1")
        _, err = process.communicate(timeout=30)
        assert process.returncode == code, err

    assert len(list_requested_texts(audiocli)) == 9
    check_joined(read_samples(tmp_path / "x.wav"), SENTENCES)


def test_closed_stdout_is_success_and_paid_chunks_are_saved(program: Program, audiocli: CommandLine) -> None:
    audiocli.gateway.add_default_fault(Drip(block_bytes=30_000, interval_s=0.05))
    process = program.start(*SPEAK_IN_CHUNKS, "-f", "wav", "-j", "2")
    assert process.stdout is not None
    assert process.stderr is not None
    head = process.stdout.read(150_000)
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()

    assert (process.wait(timeout=20), len(head)) == (0, 150_000), err
    assert b"Traceback" not in err
    assert head[44:100_000] == expected_pcm(SENTENCES[0])[: 100_000 - 44]
    assert len(list_requested_texts(audiocli)) < 8
    assert list_paid_results(audiocli)


def test_first_bytes_are_written_before_first_chunk_ends(program: Program, audiocli: CommandLine) -> None:
    audiocli.gateway.hold_responses(after_bytes=30_000)
    process = program.start(*SPEAK_IN_CHUNKS, "-f", "pcm", "-j", "2")
    audiocli.gateway.wait_for_held_responses(2)
    assert process.stdout is not None

    first = os.read(process.stdout.fileno(), 20_000)

    assert first
    audiocli.gateway.release_responses()
    remaining, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    check_joined(first + remaining, SENTENCES)


def test_fifo_receives_the_complete_output(program: Program, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.wav")
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / "x.wav").read_bytes()))
    reader.start()
    process = program.start(*SPEAK_IN_CHUNKS, "-o", tmp_path / "x.wav")
    _, err = process.communicate(timeout=30)
    reader.join(10)
    assert not reader.is_alive(), "the FIFO was not closed within 10 s"

    assert process.returncode == 0, err
    check_joined(received[0][44:], SENTENCES)


def test_player_and_file_receive_the_same_audio(audiocli: CommandLine, tmp_path: Path) -> None:
    install_player(Path(audiocli.variables["PATH"]), "aplay", received=tmp_path / "received")

    r = audiocli(*SPEAK_IN_CHUNKS, "--play", "-o", tmp_path / "x.wav")

    assert r.code == 0, r.err
    check_joined((tmp_path / "received").read_bytes()[44:], SENTENCES)
    check_joined(read_samples(tmp_path / "x.wav"), SENTENCES)


# --- open pipes ------------------------------------------------------------------------------------------------------


def test_open_pipe_is_spoken_sentence_by_sentence(program: Program, audiocli: CommandLine, tmp_path: Path) -> None:
    process = program.start("speak", "-o", tmp_path / "x.wav", stdin=subprocess.PIPE)
    assert process.stdin is not None
    sentences = ["Grüße aus Köln für alle.", "天气很好。", "Das Ende 🎉 ist nah."]
    for number, sentence in enumerate(sentences):
        # Blocks of seven bytes split characters.
        for at in range(0, len(sentence.encode()), 7):
            process.stdin.write(sentence.encode()[at : at + 7])
            process.stdin.flush()
        process.stdin.write(b"\n")
        process.stdin.flush()
        audiocli.gateway.wait_for_requests(number + 1) if number else time.sleep(0.6)
    assert not (tmp_path / "x.wav").exists()
    _, err = process.communicate(timeout=30)

    assert process.returncode == 0, err
    assert sorted(list_requested_texts(audiocli)) == sorted(sentences)
    check_joined(read_samples(tmp_path / "x.wav"), sentences)


def test_audio_is_written_before_stdin_ends(program: Program, audiocli: CommandLine) -> None:
    process = program.start("speak", "-f", "pcm", stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(SENTENCES[0].encode() + b"\n")
    process.stdin.flush()

    first = os.read(process.stdout.fileno(), 100)

    remaining, err = process.communicate(timeout=30)
    assert (process.returncode, first) == (0, expected_pcm(SENTENCES[0])[: len(first)]), err
    assert first + remaining == expected_pcm(SENTENCES[0])


@pytest.mark.parametrize("text", [b"", b"  \n \n"])
def test_open_pipe_without_words_is_a_usage_error(
    program: Program, audiocli: CommandLine, tmp_path: Path, text: bytes
) -> None:
    process = program.start("speak", "-o", tmp_path / "x.wav", stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(b" ")
    process.stdin.flush()
    time.sleep(0.9)
    process.stdin.write(text)
    _, err = process.communicate(timeout=30)

    assert (process.returncode, list_files(tmp_path), list_requested_texts(audiocli)) == (2, [], []), err
    assert b"no text to speak" in err


@pytest.mark.parametrize(
    "tail",
    [
        b"broken \xff byte\n",
        b"cut \xe5\xa4",
    ],
)
def test_invalid_utf8_in_open_pipe_is_a_usage_error(
    program: Program, audiocli: CommandLine, tmp_path: Path, tail: bytes
) -> None:
    process = program.start("speak", "-o", tmp_path / "x.wav", stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(SENTENCES[0].encode() + b"\n")
    process.stdin.flush()
    audiocli.gateway.wait_for_requests(1)
    process.stdin.write(tail)
    _, err = process.communicate(timeout=30)

    assert (process.returncode, list_files(tmp_path)) == (2, []), err
    assert f"not UTF-8: byte {len(SENTENCES[0]) + 1 + tail.index(b' ') + 1}".encode()[:14] in err


# --- captions and progress -------------------------------------------------------------------------------------------


def read_cues(path: Path) -> list[tuple[int, int, str]]:
    """Read start and end in milliseconds and the text of each cue, with pysubs2 or webvtt-py."""
    content = path.read_text("utf-8")
    if path.suffix == ".srt":
        return read_srt(content)
    return [(start_ms, end_ms, text) for start_ms, end_ms, text, _ in read_vtt(content)]


@pytest.mark.parametrize("extension", ["srt", "vtt"])
def test_captions_have_one_cue_per_sentence_at_its_samples(
    audiocli: CommandLine, tmp_path: Path, extension: str
) -> None:
    text = f"{SENTENCES[0]} {SENTENCES[1]}\n\n{SENTENCES[2]}"

    r = audiocli("speak", text, "--captions", tmp_path / f"x.{extension}", "--pause", "500", "-o", tmp_path / "x.wav")

    assert r.code == 0, r.err
    lengths_s = [len(sentence) * 0.06 for sentence in SENTENCES[:3]]
    cues = read_cues(tmp_path / f"x.{extension}")
    assert [text.replace("\n", " ") for *_, text in cues] == SENTENCES[:3]
    starts_s = [0.0, lengths_s[0], lengths_s[0] + lengths_s[1] + 0.5]
    assert [start_ms / 1000 for start_ms, *_ in cues] == pytest.approx(starts_s, abs=0.001)
    assert cues[2][1] / 1000 == pytest.approx(starts_s[2] + lengths_s[2], abs=0.001)
    check_joined(read_samples(tmp_path / "x.wav"), SENTENCES[:3], pauses_ms=[0, 500])


def test_captions_of_failed_speech_are_not_written(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.queue_faults(NoFault(), Status(400))

    r = audiocli(*SPEAK_IN_CHUNKS, "--captions", tmp_path / "x.srt", "-o", tmp_path / "x.wav")

    assert (r.code, list_files(tmp_path)) == (6, [])


def test_progress_is_shown_only_on_a_terminal(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.latency_s = 0.15

    r = audiocli(*SPEAK_IN_CHUNKS, "-o", tmp_path / "x.wav", "-j", "1", terminal="err")
    without_terminal = audiocli(*SPEAK_IN_CHUNKS, "-o", tmp_path / "y.wav", "-j", "8", "--no-resume")

    assert " of 8 chunks" in r.err
    assert " of 8 chunks" not in without_terminal.err
