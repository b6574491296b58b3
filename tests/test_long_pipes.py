"""Long texts in real processes: kill -9, Ctrl-C, pipes that stay open or go away, players, captions, full disks."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import CommandLine
from tests.gateway import Drip, Normal, Stall, Status, expected_pcm
from tests.test_long_text import IN_PIECES, SENTENCES, check_joined, kept, said, samples_of
from tests.test_processes import Program, files_in, install
from tests.test_processes import program as program


def test_after_a_kill_only_what_was_not_finished_is_sent_again(
    program: Program, audiocli: CommandLine, tmp_path: Path
) -> None:
    dice = random.Random(11)
    audiocli.gateway.always(Drip(chunk_bytes=12_000, interval_s=0.05))
    argv = (*IN_PIECES, "-o", tmp_path / "x.wav", "-j", "2")
    for _ in range(4):
        before = set(kept(audiocli))
        process = program.start(*argv)
        audiocli.gateway.wait_for_requests(len(said(audiocli)) + 1)
        time.sleep(dice.uniform(0.0, 0.8))
        process.kill()
        process.communicate(timeout=20)
        assert before <= set(kept(audiocli))
        assert not (tmp_path / "x.wav").exists()
    left = 8 - len(kept(audiocli))
    assert 0 < left < 8
    audiocli.gateway.behave()

    r = audiocli(*argv)

    assert (r.code, len(r.posts)) == (0, left), r.err
    check_joined(samples_of(tmp_path / "x.wav"), SENTENCES)
    assert len(audiocli.entries()) >= len(audiocli.gateway.posts)


def test_ctrl_c_ends_at_once_and_the_same_command_goes_on(
    program: Program, audiocli: CommandLine, tmp_path: Path
) -> None:
    argv = (*IN_PIECES, "-o", tmp_path / "x.mp3")
    audiocli.gateway.script(Normal(), Normal(), Status(400))
    assert audiocli(*argv, "-j", "1").code == 6
    audiocli.gateway.script(*[Stall(after_bytes=2000, seconds=20)] * 3)
    process = program.start(*argv, "-j", "3")
    audiocli.gateway.wait_for_requests(6)
    time.sleep(0.3)

    started_s = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)

    assert (process.returncode, files_in(tmp_path)) == (130, []), err
    assert time.monotonic() - started_s < 1.0
    assert Counter(entry["outcome"] for entry in audiocli.entries()[3:]) in ({"cancelled": 2}, {"cancelled": 3})
    r = audiocli(*argv)
    assert (r.code, len(r.posts)) == (0, 6), r.err


def test_ctrl_c_while_the_others_finish_leaves_nothing_either(
    program: Program, audiocli: CommandLine, tmp_path: Path
) -> None:
    audiocli.gateway.script(Normal(), Status(400), Stall(after_bytes=2000, seconds=20))
    process = program.start(*IN_PIECES, "-o", tmp_path / "x.wav", "-j", "3")
    audiocli.gateway.wait_for_requests(3)
    time.sleep(0.3)

    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)

    assert b"Traceback" not in err
    assert (process.returncode, files_in(tmp_path)) == (130, [])
    assert "reserved" not in {entry["outcome"] for entry in audiocli.entries()}


def test_two_at_once_on_the_same_text_both_get_all_of_it(
    program: Program, audiocli: CommandLine, tmp_path: Path
) -> None:
    audiocli.gateway.latency_s = 0.1
    processes = [program.start(*IN_PIECES, "-o", tmp_path / f"{number}.wav", "-j", "2") for number in range(3)]
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err

    for number in range(3):
        check_joined(samples_of(tmp_path / f"{number}.wav"), SENTENCES)


def test_a_cache_that_is_full_is_told_and_the_ledger_is_right(audiocli: CommandLine, program: Program) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # What a process may write into a file is what is left of a disk; a piece has more.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, limits[1]))
    try:
        process = program.start("speak", " ".join(SENTENCES * 30), "-f", "pcm")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    _, err = process.communicate(timeout=30)

    assert process.returncode == 10, err
    assert b"cannot keep the pieces" in err
    assert b"Traceback" not in err
    assert Counter(entry["outcome"] for entry in audiocli.entries()) == {"ok": 1, "cancelled": 2}
    assert len(kept(audiocli)) == 1


def test_without_a_cache_folder_pieces_are_kept_elsewhere(
    audiocli: CommandLine, program: Program, tmp_path: Path
) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "file").write_bytes(b"")
    audiocli.variables.update(XDG_CACHE_HOME=str(tmp_path / "file"), TMPDIR=str(tmp_path / "tmp"))
    audiocli.gateway.script(*[Normal()] * 5, Status(400))
    for code in (6, 0):
        process = program.start(*IN_PIECES, "-o", tmp_path / "x.wav", "-j", "1")
        _, err = process.communicate(timeout=30)
        assert process.returncode == code, err

    assert len(said(audiocli)) == 9
    check_joined(samples_of(tmp_path / "x.wav"), SENTENCES)


def test_a_reader_that_goes_away_is_a_success_and_what_was_finished_is_kept(
    program: Program, audiocli: CommandLine
) -> None:
    audiocli.gateway.always(Drip(chunk_bytes=30_000, interval_s=0.05))
    process = program.start(*IN_PIECES, "-f", "wav", "-j", "2")
    assert process.stdout is not None
    assert process.stderr is not None
    head = process.stdout.read(150_000)
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()

    assert (process.wait(timeout=20), len(head)) == (0, 150_000), err
    assert b"Traceback" not in err
    assert head[44:100_000] == expected_pcm(SENTENCES[0])[: 100_000 - 44]
    assert len(said(audiocli)) < 8
    assert kept(audiocli)


def test_the_first_bytes_leave_while_the_first_piece_is_still_on_its_way(
    program: Program, audiocli: CommandLine
) -> None:
    audiocli.gateway.hold(after_bytes=30_000)
    process = program.start(*IN_PIECES, "-f", "pcm", "-j", "2")
    audiocli.gateway.wait_for_held(2)
    assert process.stdout is not None

    first = os.read(process.stdout.fileno(), 20_000)

    assert first
    audiocli.gateway.release()
    rest, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    check_joined(first + rest, SENTENCES)


def test_a_fifo_takes_all_of_it(program: Program, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.wav")
    heard: list[bytes] = []
    reader = threading.Thread(target=lambda: heard.append((tmp_path / "x.wav").read_bytes()))
    reader.start()
    process = program.start(*IN_PIECES, "-o", tmp_path / "x.wav")
    _, err = process.communicate(timeout=30)
    reader.join(10)

    assert process.returncode == 0, err
    check_joined(heard[0][44:], SENTENCES)


def test_the_player_and_the_file_get_the_same(audiocli: CommandLine, tmp_path: Path) -> None:
    install(Path(audiocli.variables["PATH"]), "aplay", heard=tmp_path / "heard")

    r = audiocli(*IN_PIECES, "--play", "-o", tmp_path / "x.wav")

    assert r.code == 0, r.err
    check_joined((tmp_path / "heard").read_bytes()[44:], SENTENCES)
    check_joined(samples_of(tmp_path / "x.wav"), SENTENCES)


# --- a pipe that stays open ------------------------------------------------------------------------------------------


def test_an_open_pipe_is_spoken_as_it_comes(program: Program, audiocli: CommandLine, tmp_path: Path) -> None:
    process = program.start("speak", "-o", tmp_path / "x.wav", stdin=subprocess.PIPE)
    assert process.stdin is not None
    sentences = ["Grüße aus Köln für alle.", "天气很好。", "Das Ende 🎉 ist nah."]
    for number, sentence in enumerate(sentences):
        # The bytes of a character come one by one.
        for at in range(0, len(sentence.encode()), 7):
            process.stdin.write(sentence.encode()[at : at + 7])
            process.stdin.flush()
        process.stdin.write(b"\n")
        process.stdin.flush()
        audiocli.gateway.wait_for_requests(number + 1) if number else time.sleep(0.6)
    assert not (tmp_path / "x.wav").exists()
    _, err = process.communicate(timeout=30)

    assert process.returncode == 0, err
    assert sorted(said(audiocli)) == sorted(sentences)
    check_joined(samples_of(tmp_path / "x.wav"), sentences)


def test_sound_leaves_before_the_pipe_ends(program: Program, audiocli: CommandLine) -> None:
    process = program.start("speak", "-f", "pcm", stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(SENTENCES[0].encode() + b"\n")
    process.stdin.flush()

    first = os.read(process.stdout.fileno(), 100)

    rest, err = process.communicate(timeout=30)
    assert (process.returncode, first) == (0, expected_pcm(SENTENCES[0])[: len(first)]), err
    assert first + rest == expected_pcm(SENTENCES[0])


@pytest.mark.parametrize("text", [b"", b"  \n \n"])
def test_an_open_pipe_without_words_is_a_usage_error(
    program: Program, audiocli: CommandLine, tmp_path: Path, text: bytes
) -> None:
    process = program.start("speak", "-o", tmp_path / "x.wav", stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(b" ")
    process.stdin.flush()
    time.sleep(0.9)
    process.stdin.write(text)
    _, err = process.communicate(timeout=30)

    assert (process.returncode, files_in(tmp_path), said(audiocli)) == (2, [], []), err
    assert b"no text to speak" in err


@pytest.mark.parametrize(
    "tail",
    [
        b"broken \xff byte\n",
        b"cut \xe5\xa4",
    ],
)
def test_bytes_that_are_no_text_are_told_from_an_open_pipe_too(
    program: Program, audiocli: CommandLine, tmp_path: Path, tail: bytes
) -> None:
    process = program.start("speak", "-o", tmp_path / "x.wav", stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(SENTENCES[0].encode() + b"\n")
    process.stdin.flush()
    audiocli.gateway.wait_for_requests(1)
    process.stdin.write(tail)
    _, err = process.communicate(timeout=30)

    assert (process.returncode, files_in(tmp_path)) == (2, []), err
    assert f"not UTF-8: byte {len(SENTENCES[0]) + 1 + tail.index(b' ') + 1}".encode()[:14] in err


# --- captions and progress -------------------------------------------------------------------------------------------


def cues(path: Path) -> Iterator[tuple[float, float, str]]:
    for block in path.read_text("utf-8").replace("WEBVTT\n\n", "").strip().split("\n\n"):
        lines = block.split("\n")
        times = next(line for line in lines if "-->" in line)
        start_s, end_s = (
            sum(float(part) * 60**power for power, part in enumerate(reversed(clock.replace(",", ".").split(":"))))
            for clock in times.split(" --> ")
        )
        yield start_s, end_s, " ".join(lines[lines.index(times) + 1 :])


@pytest.mark.parametrize("ending", ["srt", "vtt"])
def test_captions_have_a_cue_for_each_sentence_at_its_samples(
    audiocli: CommandLine, tmp_path: Path, ending: str
) -> None:
    text = f"{SENTENCES[0]} {SENTENCES[1]}\n\n{SENTENCES[2]}"

    r = audiocli("speak", text, "--captions", tmp_path / f"x.{ending}", "--pause", "500", "-o", tmp_path / "x.wav")

    assert r.code == 0, r.err
    lengths_s = [len(sentence) * 0.06 for sentence in SENTENCES[:3]]
    found = list(cues(tmp_path / f"x.{ending}"))
    assert [text for *_, text in found] == SENTENCES[:3]
    starts_s = [0.0, lengths_s[0], lengths_s[0] + lengths_s[1] + 0.5]
    assert [start_s for start_s, *_ in found] == pytest.approx(starts_s, abs=0.001)
    assert found[2][1] == pytest.approx(starts_s[2] + lengths_s[2], abs=0.001)
    check_joined(samples_of(tmp_path / "x.wav"), SENTENCES[:3], pauses_ms=[0, 500])


def test_captions_of_a_failed_reading_are_not_written(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.script(Normal(), Status(400))

    r = audiocli(*IN_PIECES, "--captions", tmp_path / "x.srt", "-o", tmp_path / "x.wav")

    assert (r.code, files_in(tmp_path)) == (6, [])


def test_progress_is_shown_on_a_terminal_alone(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.latency_s = 0.15

    r = audiocli(*IN_PIECES, "-o", tmp_path / "x.wav", "-j", "1", terminal="err")
    quiet = audiocli(*IN_PIECES, "-o", tmp_path / "y.wav", "-j", "8")

    assert " of 8 pieces" in r.err
    assert "pieces" not in quiet.err
