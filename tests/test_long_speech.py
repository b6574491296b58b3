"""Long texts on the command line: split, spoken concurrently, joined by samples, and paid for once."""

from __future__ import annotations

import os
import re
import time
from array import array
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import av
import pytest
import regex

from audiocli.core.long_speech import MAX_CHUNKS_AHEAD
from audiocli.mock import CutAfter, Drip, Empty, Garbage, Html, NoFault, OtherFormat, Stall, Status, expected_pcm
from tests.conftest import CommandLine
from tests.pyav_codec import encode, expected_audio
from tests.test_processes import Program, list_files
from tests.test_processes import program as program

NAMES = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel")
SENTENCES = [f"The sentence of {name} is spoken aloud." for name in NAMES]
# Two sentences have more than 50 characters, so with that limit every chunk is one sentence.
TEXT = " ".join(SENTENCES)
SPEAK_IN_CHUNKS = ("speak", TEXT, "--max-chars", "50")
RATE_HZ = 24_000
FADE_SAMPLES = RATE_HZ * 5 // 1000


def list_requested_texts(audiocli: CommandLine) -> list[str]:
    """Return the texts of the complete requests, in order. A killed process may have sent a head without a body."""
    return [request.json["input"] for request in audiocli.gateway.posts if request.complete]


def list_paid_results(audiocli: CommandLine) -> list[str]:
    directory = Path(audiocli.variables["XDG_CACHE_HOME"]) / "audiocli" / "speech"
    return sorted(path.name for path in directory.glob("*.wav")) if directory.is_dir() else []


def check_joined(pcm: bytes, texts: Sequence[str], *, pauses_ms: Sequence[int] = ()) -> None:
    """Check that the samples of every chunk are present once, in order, with fades of 5 ms at the joins only."""
    samples = array("h", pcm)
    at = 0
    for number, text in enumerate(texts):
        chunk = array("h", expected_pcm(text))
        actual = samples[at : at + len(chunk)]
        first = FADE_SAMPLES if number else 0
        last = len(chunk) - (FADE_SAMPLES if number < len(texts) - 1 else 0)
        assert actual[first:last] == chunk[first:last], f"chunk {number + 1}"
        assert all(abs(a) <= abs(b) for a, b in zip(actual, chunk, strict=True)), f"join of chunk {number + 1}"
        at += len(chunk)
        if number < len(texts) - 1 and pauses_ms:
            pause = pauses_ms[number] * RATE_HZ // 1000
            assert not any(samples[at : at + pause]), f"pause after chunk {number + 1}"
            at += pause
    assert at == len(samples)


def read_samples(wav: Path) -> bytes:
    content = wav.read_bytes()
    assert int.from_bytes(content[40:44], "little") == len(content) - 44
    return content[44:]


# --- split and join --------------------------------------------------------------------------------------------------


def test_chunks_are_joined_in_order_regardless_of_completion(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.queue_faults(Stall(after_bytes=None, seconds=0.4), Stall(after_bytes=5000, seconds=0.2))

    r = audiocli(*SPEAK_IN_CHUNKS, "-o", tmp_path / "x.wav", "-j", "8", "--json")

    assert r.code == 0, r.err
    check_joined(read_samples(tmp_path / "x.wav"), SENTENCES)
    assert sorted(list_requested_texts(audiocli)) == sorted(SENTENCES)
    assert (r.json["requests"], r.json["duration_s"]) == (8, round(sum(map(len, SENTENCES)) * 0.06, 3))
    assert [entry["outcome"] for entry in r.ledger] == ["ok"] * 8
    assert list_paid_results(audiocli) == []


def test_pauses_are_only_between_paragraphs(audiocli: CommandLine, tmp_path: Path) -> None:
    text = f"{SENTENCES[0]} {SENTENCES[1]}\n\n{SENTENCES[2]}\n\n{SENTENCES[3]}\n"

    r = audiocli("speak", text, "--max-chars", "50", "--pause", "250", "-o", tmp_path / "x.wav")

    assert r.code == 0, r.err
    check_joined(read_samples(tmp_path / "x.wav"), SENTENCES[:4], pauses_ms=[0, 250, 250])


def test_concurrency_limit_holds(program: Program, audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.hold_responses()
    process = program.start(*SPEAK_IN_CHUNKS, "-o", tmp_path / "x.wav", "-j", "3")
    audiocli.gateway.wait_for_held_responses(3)
    time.sleep(0.3)
    held_count = len(audiocli.gateway.posts)
    audiocli.gateway.release_responses()
    _, err = process.communicate(timeout=30)

    assert (held_count, process.returncode) == (3, 0), err
    assert audiocli.gateway.peak_in_flight == 3


def test_other_chunks_are_requested_while_one_stalls(program: Program, audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.queue_faults(Stall(after_bytes=None, seconds=4.0))
    process = program.start(*SPEAK_IN_CHUNKS, "-o", tmp_path / "x.wav", "-j", "2")
    started_s = time.monotonic()
    audiocli.gateway.wait_for_requests(len(SENTENCES))
    elapsed_s = time.monotonic() - started_s
    _, err = process.communicate(timeout=30)

    assert process.returncode == 0, err
    assert elapsed_s < 4.0 and audiocli.gateway.peak_in_flight == 2
    check_joined(read_samples(tmp_path / "x.wav"), SENTENCES)


def test_number_of_chunks_ahead_is_bounded(program: Program, audiocli: CommandLine, tmp_path: Path) -> None:
    text = " ".join(f"The sentence with number {number} is spoken aloud." for number in range(60))
    audiocli.gateway.queue_faults(Stall(after_bytes=None, seconds=3.0))
    process = program.start("speak", text, "--max-chars", "50", "-o", tmp_path / "x.wav", "-j", "2")
    audiocli.gateway.wait_for_requests(30)
    time.sleep(0.7)
    request_count = len(audiocli.gateway.posts)
    _, err = process.communicate(timeout=30)

    assert process.returncode == 0, err
    # Each chunk that waits has an open file. The first or the second one stalls.
    assert request_count <= 2 + MAX_CHUNKS_AHEAD + 1
    assert len(audiocli.gateway.posts) == 60


def test_streamed_speech_is_not_requested_far_ahead(program: Program, audiocli: CommandLine) -> None:
    audiocli.gateway.queue_faults(Stall(after_bytes=None, seconds=1.0))
    process = program.start(*SPEAK_IN_CHUNKS, "-f", "pcm", "-o", "-", "-j", "2")
    audiocli.gateway.wait_for_requests(1)
    time.sleep(0.5)
    request_count = len(audiocli.gateway.posts)
    out, err = process.communicate(timeout=30)

    assert process.returncode == 0, err
    # The first or the second one stalls.
    assert request_count <= 3
    check_joined(out, SENTENCES)


def test_text_within_limit_is_passed_through(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("speak", SENTENCES[0], "--max-chars", "50", "-o", tmp_path / "x.mp3")

    assert (r.code, len(r.posts)) == (0, 1), r.err
    assert (tmp_path / "x.mp3").read_bytes() == expected_audio(SENTENCES[0], "mp3")


def test_first_chunk_is_short_and_others_use_the_limit(audiocli: CommandLine, tmp_path: Path) -> None:
    text = " ".join(f"{number}: {SENTENCES[number % 8]}" for number in range(400))

    r = audiocli(
        "speak", text, "-m", "openrouter:openai/gpt-4o-mini-tts-2025-12-15", "-o", tmp_path / "x.pcm", "-j", "1"
    )

    chunks = list_requested_texts(audiocli)
    assert r.code == 0, r.err
    assert " ".join(chunks) == text
    assert len(chunks[0]) <= 200
    assert all(3900 < len(chunk) <= 4000 for chunk in chunks[1:-1])
    assert audiocli.gateway.problems == []


def test_limit_in_bytes_counts_bytes(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.variables["THEROUTER_API_KEY"] = "sk-tr-test"
    text = "今天天气很好，我们去公园散步吧。你想一起来吗？" * 40

    r = audiocli("speak", text, "-g", "therouter", "-m", "alibaba/cosyvoice2-0.5b", "-o", tmp_path / "x.wav", "-j", "1")

    chunks = list_requested_texts(audiocli)
    assert r.code == 0, r.err
    assert "".join(chunks) == text
    assert max(len(chunk.encode()) for chunk in chunks) in range(900, 1001)
    assert all(chunk[-1] in "。？" for chunk in chunks[1:])
    check_joined(read_samples(tmp_path / "x.wav"), chunks)


def test_groq_limit_of_200_characters_holds(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.variables["GROQ_API_KEY"] = "gsk-test"
    text = " ".join(f"{number}: {SENTENCES[number % 8]}" for number in range(24))

    r = audiocli("speak", text, "-g", "groq", "-o", tmp_path / "x.wav", "-j", "1")

    chunks = list_requested_texts(audiocli)
    assert r.code == 0, r.err
    assert (max(map(len, chunks)) <= 200, " ".join(chunks)) == (True, text)
    check_joined(read_samples(tmp_path / "x.wav"), chunks)


def test_word_over_limit_is_split_between_graphemes(audiocli: CommandLine, tmp_path: Path) -> None:
    clusters = [f"{letter}\u0301👨‍👩‍👧🇩🇪" for letter in "abcdefghijkl"]

    r = audiocli("speak", "".join(clusters), "--max-chars", "20", "-o", tmp_path / "x.wav", "-j", "1")

    chunks = list_requested_texts(audiocli)
    assert r.code == 0, r.err
    assert "splitting inside words" in r.err
    assert "".join(chunks) == "".join(clusters)
    seen = [cluster for chunk in chunks for cluster in regex.findall(r"\X", chunk)]
    assert seen == regex.findall(r"\X", "".join(clusters))


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("  \n\t ", ()),
        ("---\n\n<!-- nothing -->\n", ("--markdown",)),
        ("\u200b\u00a0", ()),
    ],
)
def test_text_without_words_is_a_usage_error(
    audiocli: CommandLine, tmp_path: Path, text: str, flags: tuple[str, ...]
) -> None:
    r = audiocli("speak", *flags, "-o", tmp_path / "x.wav", stdin=text.encode())

    assert (r.code, r.posts, list_files(tmp_path)) == (2, [], []), r.err
    assert "no text to speak" in r.err


def test_markdown_is_spoken_without_markup(audiocli: CommandLine, tmp_path: Path) -> None:
    text = f"# A heading\n\n* {SENTENCES[0]}\n* **{SENTENCES[1]}**\n\n[{SENTENCES[2]}](http://example.org/x)\n"
    (tmp_path / "a.md").write_text(text)

    r = audiocli("speak", "-F", tmp_path / "a.md", "--markdown", "--max-chars", "60", "-o", tmp_path / "x.wav")

    assert r.code == 0, r.err
    spoken = " ".join(list_requested_texts(audiocli))
    assert all(sentence in spoken for sentence in SENTENCES[:3])
    assert not re.search(r"[*#\[\]]|http", spoken)


@pytest.mark.parametrize("format", ["mp3", "opus", "flac", "m4a"])
def test_encoded_output_has_the_exact_length(audiocli: CommandLine, tmp_path: Path, format: str) -> None:
    target = tmp_path / f"x.{format}"

    r = audiocli(*SPEAK_IN_CHUNKS, "-o", target)

    assert r.code == 0, r.err
    with av.open(str(target)) as container:
        frames = list(container.decode(audio=0))
    duration_s = sum(frame.samples for frame in frames) / frames[0].sample_rate
    assert duration_s == pytest.approx(sum(map(len, SENTENCES)) * 0.06, abs=0.05)


@pytest.mark.parametrize(
    "fault",
    [
        OtherFormat("wav"),
        OtherFormat("flac"),
        Garbage(encode(expected_pcm(SENTENCES[2], rate_hz=16_000), "wav", rate_hz=16_000), "audio/wav"),
        Garbage(expected_pcm(SENTENCES[2], rate_hz=48_000), "audio/pcm;rate=48000"),
    ],
    ids=["wav", "flac", "wav-16k", "pcm-48k"],
)
def test_chunk_in_other_format_is_converted(audiocli: CommandLine, tmp_path: Path, fault: object) -> None:
    audiocli.gateway.queue_faults(NoFault(), NoFault(), fault)  # type: ignore[arg-type]

    r = audiocli(*SPEAK_IN_CHUNKS, "-o", tmp_path / "x.wav", "-j", "1")

    assert r.code == 0, r.err
    pcm, sizes = read_samples(tmp_path / "x.wav"), [len(expected_pcm(sentence)) for sentence in SENTENCES]
    start, end = sum(sizes[:2]), sum(sizes[:3])
    assert abs(len(pcm) - sum(sizes)) <= 4
    assert pcm[: sizes[0] - 2 * FADE_SAMPLES] == expected_pcm(SENTENCES[0])[: -2 * FADE_SAMPLES]
    assert pcm[-sizes[7] + 2 * FADE_SAMPLES :] == expected_pcm(SENTENCES[7])[2 * FADE_SAMPLES :]
    assert max(array("h", pcm[start:end])) > 6000


@pytest.mark.parametrize("kind", ["audio/pcm;rate=24000;channels=1", "application/octet-stream"])
@pytest.mark.parametrize("first", [-2, -257])
def test_first_sample_of_chunk_is_not_mistaken_for_text(
    audiocli: CommandLine, tmp_path: Path, first: int, kind: str
) -> None:
    samples = first.to_bytes(2, "little", signed=True) + expected_pcm(SENTENCES[1])[2:]
    audiocli.gateway.queue_faults(NoFault(), Garbage(samples, kind))

    r = audiocli(*SPEAK_IN_CHUNKS, "-o", tmp_path / "x.wav", "-j", "1")

    assert r.code == 0, r.err


# --- failures and resume ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "code"),
    [(Status(400), 6), (CutAfter(3000), 7), (Empty(), 9), (Html(), 9), (Stall(after_bytes=100, seconds=5), 7)],
    ids=["400", "truncated", "empty", "html", "stall"],
)
def test_failed_chunk_is_named_and_same_command_resumes(
    audiocli: CommandLine, tmp_path: Path, fault: object, code: int
) -> None:
    audiocli.gateway.queue_faults(NoFault(), NoFault(), fault)  # type: ignore[arg-type]
    argv = (*SPEAK_IN_CHUNKS, "-o", tmp_path / "x.wav", "-j", "1", "--timeout", "0.5")

    r = audiocli(*argv)

    assert (r.code, list_files(tmp_path)) == (code, [])
    position = TEXT.index(SENTENCES[2]) + 1
    assert f"chunk 3 of 8, from character {position} ({SENTENCES[2][:40]}" in r.err
    assert "run the same command again to resume" in r.err
    assert len(r.ledger) == 3
    assert len(list_paid_results(audiocli)) == 2
    resumed = audiocli(*argv)
    assert resumed.code == 0, resumed.err
    assert [seen.json["input"] for seen in resumed.posts] == SENTENCES[2:]
    check_joined(read_samples(tmp_path / "x.wav"), SENTENCES)
    assert list_paid_results(audiocli) == []


def test_chunks_in_flight_finish_when_another_fails(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.queue_faults(Status(400), NoFault(), Drip(20_000, 0.05), NoFault())

    r = audiocli(*SPEAK_IN_CHUNKS, "-o", tmp_path / "x.wav", "-j", "4")

    assert r.code == 6
    assert Counter(entry["outcome"] for entry in r.ledger) == {"ok": len(r.posts) - 1, "refused": 1}
    assert len(list_paid_results(audiocli)) == len(r.posts) - 1


def test_only_the_failed_chunk_is_retried(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.queue_faults(NoFault(), Status(500), NoFault(), Status(429, headers={"Retry-After": "7"}))

    r = audiocli(*SPEAK_IN_CHUNKS, "-o", tmp_path / "x.wav", "-j", "1", "--json")

    assert r.code == 0, r.err
    assert 7 in r.waits_s
    assert Counter(list_requested_texts(audiocli)) == {**dict.fromkeys(SENTENCES, 1), SENTENCES[1]: 2, SENTENCES[2]: 2}
    assert Counter(entry["outcome"] for entry in r.ledger) == {"ok": 8, "failed": 1, "refused": 1}
    check_joined(read_samples(tmp_path / "x.wav"), SENTENCES)


def test_chunk_with_unknown_outcome_is_retried_only_if_allowed(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.queue_faults(NoFault(), CutAfter(3000))

    r = audiocli(*SPEAK_IN_CHUNKS, "-o", tmp_path / "x.wav", "-j", "1", "--retry-unknown")

    assert r.code == 0, r.err
    assert list_requested_texts(audiocli).count(SENTENCES[1]) == 2
    check_joined(read_samples(tmp_path / "x.wav"), SENTENCES)


def test_no_resume_requests_every_chunk_again(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.queue_faults(*[NoFault()] * 5, Status(400))
    assert audiocli(*SPEAK_IN_CHUNKS, "-o", tmp_path / "x.wav", "-j", "1").code == 6

    r = audiocli(*SPEAK_IN_CHUNKS, "-o", tmp_path / "x.wav", "--no-resume")

    assert (r.code, len(r.posts)) == (0, 8), r.err


def test_damaged_paid_result_is_requested_again(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.queue_faults(*[NoFault()] * 5, Status(400))
    assert audiocli(*SPEAK_IN_CHUNKS, "-o", tmp_path / "x.wav", "-j", "1").code == 6
    directory = Path(audiocli.variables["XDG_CACHE_HOME"]) / "audiocli" / "speech"
    for name, size in zip(list_paid_results(audiocli), (0, 30, 5000), strict=False):
        os.truncate(directory / name, size)

    r = audiocli(*SPEAK_IN_CHUNKS, "-o", tmp_path / "x.wav")

    assert (r.code, len(r.posts)) == (0, 6), r.err
    check_joined(read_samples(tmp_path / "x.wav"), SENTENCES)


@pytest.mark.parametrize("concurrency", ["1", "4"])
def test_repeated_sentence_is_requested_once(audiocli: CommandLine, tmp_path: Path, concurrency: str) -> None:
    r = audiocli("speak", f"{SENTENCES[0]} " * 6, "--max-chars", "50", "-o", tmp_path / "x.wav", "-j", concurrency)

    assert r.code == 0, r.err
    check_joined(read_samples(tmp_path / "x.wav"), [SENTENCES[0]] * 6)
    assert len(r.posts) == 1


def test_resume_uses_the_model_of_the_paid_results(audiocli: CommandLine, tmp_path: Path) -> None:
    first, second = "hexgrad/kokoro-82m", "openai/gpt-4o-mini-tts-2025-12-15"
    audiocli.gateway.add_default_fault(Status(404), model=first)
    audiocli.gateway.queue_faults(*[NoFault()] * 3, Status(400), model=second)
    argv = (
        *SPEAK_IN_CHUNKS,
        "-m",
        f"openrouter:{first}",
        "-m",
        f"openrouter:{second}",
        "-o",
        tmp_path / "x.wav",
        "-j",
        "1",
    )
    assert audiocli(*argv).code == 6

    r = audiocli(*argv)

    assert r.code == 0, r.err
    assert [seen.json["input"] for seen in r.posts if seen.status == 200] == SENTENCES[3:]


def test_all_chunks_use_the_route_of_the_first(audiocli: CommandLine, tmp_path: Path) -> None:
    first, second = "hexgrad/kokoro-82m", "openai/gpt-4o-mini-tts-2025-12-15"
    audiocli.gateway.queue_faults(Status(404), model=first)

    r = audiocli(*SPEAK_IN_CHUNKS, "-m", f"openrouter:{first}", "-m", f"openrouter:{second}", "-o", tmp_path / "x.wav")

    assert r.code == 0, r.err
    assert Counter(seen.model for seen in r.posts) == {first: 1, second: 8}


def test_dry_run_shows_remaining_requests(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.queue_faults(*[NoFault()] * 5, Status(400))
    assert audiocli(*SPEAK_IN_CHUNKS, "-o", tmp_path / "x.wav", "-j", "1").code == 6

    r = audiocli(*SPEAK_IN_CHUNKS, "-o", tmp_path / "x.wav", "-n", "--json")

    assert (r.code, r.posts) == (0, [])
    plan = {name: r.json[name] for name in ("requests", "pieces", "kept", "characters", "utf8_bytes")}
    size = len("".join(SENTENCES))  # spaces between chunks are not sent
    assert plan == {"requests": 3, "pieces": 8, "kept": 5, "characters": size, "utf8_bytes": size}


def test_dry_run_price_covers_remaining_chunks_only(audiocli: CommandLine, tmp_path: Path) -> None:
    assert audiocli("models", "--kind", "speech").code == 0
    audiocli.gateway.queue_faults(*[NoFault()] * 7, Status(400))
    assert audiocli(*SPEAK_IN_CHUNKS, "-o", tmp_path / "x.wav", "-j", "1").code == 6

    r = audiocli(*SPEAK_IN_CHUNKS, "-n", "--json", "-o", tmp_path / "x.wav")

    assert r.json["price_usd"] == pytest.approx(0.000015 * len(SENTENCES[7]))
