"""Long texts through the front door: cut, spoken several at a time, joined in samples, and paid for once."""

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

from audiocli.core.long_speech import PIECES_AHEAD
from tests.conftest import CommandLine
from tests.gateway import (
    CutAfter,
    Drip,
    Empty,
    Garbage,
    Html,
    Normal,
    OtherFormat,
    Stall,
    Status,
    encode,
    expected_audio,
    expected_pcm,
)
from tests.test_processes import Program, files_in
from tests.test_processes import program as program

NAMES = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel")
SENTENCES = [f"The sentence of {name} is spoken aloud." for name in NAMES]
# Any two of them are over fifty characters, so with that limit every piece is a sentence.
TEXT = " ".join(SENTENCES)
IN_PIECES = ("speak", TEXT, "--max-chars", "50")
RATE_HZ = 24_000
FADE = RATE_HZ * 5 // 1000


def said(audiocli: CommandLine) -> list[str]:
    """What the gateway was asked to speak, in the order it came."""
    return [seen.json["input"] for seen in audiocli.gateway.posts]


def kept(audiocli: CommandLine) -> list[str]:
    folder = Path(audiocli.variables["XDG_CACHE_HOME"]) / "audiocli" / "speech"
    return sorted(path.name for path in folder.glob("*.wav")) if folder.is_dir() else []


def check_joined(pcm: bytes, texts: Sequence[str], *, pauses_ms: Sequence[int] = ()) -> None:
    """Every piece's samples are there once, in order; only at seams they fade, for five milliseconds."""
    heard = array("h", pcm)
    at = 0
    for number, text in enumerate(texts):
        piece = array("h", expected_pcm(text))
        here = heard[at : at + len(piece)]
        first = FADE if number else 0
        last = len(piece) - (FADE if number < len(texts) - 1 else 0)
        assert here[first:last] == piece[first:last], f"piece {number + 1}"
        assert all(abs(a) <= abs(b) for a, b in zip(here, piece, strict=True)), f"seam of piece {number + 1}"
        at += len(piece)
        if number < len(texts) - 1 and pauses_ms:
            pause = pauses_ms[number] * RATE_HZ // 1000
            assert not any(heard[at : at + pause]), f"pause after piece {number + 1}"
            at += pause
    assert at == len(heard)


def samples_of(wav: Path) -> bytes:
    content = wav.read_bytes()
    assert int.from_bytes(content[40:44], "little") == len(content) - 44
    return content[44:]


# --- cutting and joining ---------------------------------------------------------------------------------------------


def test_pieces_are_joined_in_order_whichever_comes_first(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.script(Stall(after_bytes=None, seconds=0.4), Stall(after_bytes=5000, seconds=0.2))

    r = audiocli(*IN_PIECES, "-o", tmp_path / "x.wav", "-j", "8", "--json")

    assert r.code == 0, r.err
    check_joined(samples_of(tmp_path / "x.wav"), SENTENCES)
    assert sorted(said(audiocli)) == sorted(SENTENCES)
    assert (r.json["requests"], r.json["duration_s"]) == (8, round(sum(map(len, SENTENCES)) * 0.06, 3))
    assert [entry["outcome"] for entry in r.ledger] == ["ok"] * 8
    assert kept(audiocli) == []


def test_pauses_stand_between_paragraphs_only(audiocli: CommandLine, tmp_path: Path) -> None:
    text = f"{SENTENCES[0]} {SENTENCES[1]}\n\n{SENTENCES[2]}\n\n{SENTENCES[3]}\n"

    r = audiocli("speak", text, "--max-chars", "50", "--pause", "250", "-o", tmp_path / "x.wav")

    assert r.code == 0, r.err
    check_joined(samples_of(tmp_path / "x.wav"), SENTENCES[:4], pauses_ms=[0, 250, 250])


def test_no_more_pieces_are_in_flight_than_allowed(program: Program, audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.hold()
    process = program.start(*IN_PIECES, "-o", tmp_path / "x.wav", "-j", "3")
    audiocli.gateway.wait_for_held(3)
    time.sleep(0.3)
    held = len(audiocli.gateway.posts)
    audiocli.gateway.release()
    _, err = process.communicate(timeout=30)

    assert (held, process.returncode) == (3, 0), err
    assert audiocli.gateway.peak_in_flight == 3


def test_for_a_file_others_are_asked_for_while_one_is_waited_for(
    program: Program, audiocli: CommandLine, tmp_path: Path
) -> None:
    audiocli.gateway.script(Stall(after_bytes=None, seconds=4.0))
    process = program.start(*IN_PIECES, "-o", tmp_path / "x.wav", "-j", "2")
    started_s = time.monotonic()
    audiocli.gateway.wait_for_requests(len(SENTENCES))
    asked_s = time.monotonic() - started_s
    _, err = process.communicate(timeout=30)

    assert process.returncode == 0, err
    assert asked_s < 4.0 and audiocli.gateway.peak_in_flight == 2
    check_joined(samples_of(tmp_path / "x.wav"), SENTENCES)


def test_no_more_than_some_pieces_wait_for_one_before_them(
    program: Program, audiocli: CommandLine, tmp_path: Path
) -> None:
    text = " ".join(f"The sentence with number {number} is spoken aloud." for number in range(60))
    audiocli.gateway.script(Stall(after_bytes=None, seconds=3.0))
    process = program.start("speak", text, "--max-chars", "50", "-o", tmp_path / "x.wav", "-j", "2")
    audiocli.gateway.wait_for_requests(30)
    time.sleep(0.7)
    asked = len(audiocli.gateway.posts)
    _, err = process.communicate(timeout=30)

    assert process.returncode == 0, err
    # Each holds an open file. The one that stalls is the first or the second.
    assert asked <= 2 + PIECES_AHEAD + 1
    assert len(audiocli.gateway.posts) == 60


def test_what_is_heard_as_it_comes_is_not_paid_for_long_before(program: Program, audiocli: CommandLine) -> None:
    audiocli.gateway.script(Stall(after_bytes=None, seconds=1.0))
    process = program.start(*IN_PIECES, "-f", "pcm", "-o", "-", "-j", "2")
    audiocli.gateway.wait_for_requests(1)
    time.sleep(0.5)
    asked = len(audiocli.gateway.posts)
    out, err = process.communicate(timeout=30)

    assert process.returncode == 0, err
    # The one that stalls is the first or the second.
    assert asked <= 3
    check_joined(out, SENTENCES)


def test_a_text_within_the_limit_is_passed_through(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("speak", SENTENCES[0], "--max-chars", "50", "-o", tmp_path / "x.mp3")

    assert (r.code, len(r.posts)) == (0, 1), r.err
    assert (tmp_path / "x.mp3").read_bytes() == expected_audio(SENTENCES[0], "mp3")


def test_the_first_piece_is_short_and_the_others_as_long_as_they_may_be(audiocli: CommandLine, tmp_path: Path) -> None:
    text = " ".join(f"{number}: {SENTENCES[number % 8]}" for number in range(400))

    r = audiocli("speak", text, "-o", tmp_path / "x.pcm", "-j", "1")

    pieces = said(audiocli)
    assert r.code == 0, r.err
    assert " ".join(pieces) == text
    assert len(pieces[0]) <= 200
    assert all(len(piece) > 4000 for piece in pieces[1:-1])
    assert audiocli.gateway.problems == []


def test_bytes_are_counted_where_the_gateway_counts_bytes(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.variables["THEROUTER_API_KEY"] = "sk-tr-test"
    text = "今天天气很好，我们去公园散步吧。你想一起来吗？" * 40

    r = audiocli("speak", text, "-g", "therouter", "-m", "alibaba/cosyvoice2-0.5b", "-o", tmp_path / "x.wav", "-j", "1")

    pieces = said(audiocli)
    assert r.code == 0, r.err
    assert "".join(pieces) == text
    assert max(len(piece.encode()) for piece in pieces) in range(900, 1001)
    assert all(piece[-1] in "。？" for piece in pieces[1:])
    check_joined(samples_of(tmp_path / "x.wav"), pieces)


def test_two_hundred_characters_at_groq_are_never_passed(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.variables["GROQ_API_KEY"] = "gsk-test"
    text = " ".join(f"{number}: {SENTENCES[number % 8]}" for number in range(24))

    r = audiocli("speak", text, "-g", "groq", "-o", tmp_path / "x.wav", "-j", "1")

    pieces = said(audiocli)
    assert r.code == 0, r.err
    assert (max(map(len, pieces)) <= 200, " ".join(pieces)) == (True, text)
    check_joined(samples_of(tmp_path / "x.wav"), pieces)


def test_a_word_over_the_limit_is_cut_between_characters_that_are_seen(audiocli: CommandLine, tmp_path: Path) -> None:
    clusters = [f"{letter}\u0301👨‍👩‍👧🇩🇪" for letter in "abcdefghijkl"]

    r = audiocli("speak", "".join(clusters), "--max-chars", "20", "-o", tmp_path / "x.wav", "-j", "1")

    pieces = said(audiocli)
    assert r.code == 0, r.err
    assert "cut inside words" in r.err
    assert "".join(pieces) == "".join(clusters)
    seen = [cluster for piece in pieces for cluster in regex.findall(r"\X", piece)]
    assert seen == regex.findall(r"\X", "".join(clusters))


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("  \n\t ", ()),
        ("---\n\n<!-- nothing -->\n", ("--markdown",)),
        ("\u200b\u00a0", ()),
    ],
)
def test_a_text_without_words_is_a_usage_error(
    audiocli: CommandLine, tmp_path: Path, text: str, flags: tuple[str, ...]
) -> None:
    r = audiocli("speak", *flags, "-o", tmp_path / "x.wav", stdin=text.encode())

    assert (r.code, r.posts, files_in(tmp_path)) == (2, [], []), r.err
    assert "no text to speak" in r.err


def test_markdown_is_spoken_without_its_marks(audiocli: CommandLine, tmp_path: Path) -> None:
    text = f"# A heading\n\n* {SENTENCES[0]}\n* **{SENTENCES[1]}**\n\n[{SENTENCES[2]}](http://example.org/x)\n"
    (tmp_path / "a.md").write_text(text)

    r = audiocli("speak", "-F", tmp_path / "a.md", "--markdown", "--max-chars", "60", "-o", tmp_path / "x.wav")

    assert r.code == 0, r.err
    spoken = " ".join(said(audiocli))
    assert all(sentence in spoken for sentence in SENTENCES[:3])
    assert not re.search(r"[*#\[\]]|http", spoken)


@pytest.mark.parametrize("format", ["mp3", "opus", "flac", "m4a"])
def test_one_encoder_makes_the_exact_length(audiocli: CommandLine, tmp_path: Path, format: str) -> None:
    target = tmp_path / f"x.{format}"

    r = audiocli(*IN_PIECES, "-o", target)

    assert r.code == 0, r.err
    with av.open(str(target)) as container:
        frames = list(container.decode(audio=0))
    heard_s = sum(frame.samples for frame in frames) / frames[0].sample_rate
    assert heard_s == pytest.approx(sum(map(len, SENTENCES)) * 0.06, abs=0.05)


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
def test_a_piece_of_another_shape_is_fitted_in(audiocli: CommandLine, tmp_path: Path, fault: object) -> None:
    audiocli.gateway.script(Normal(), Normal(), fault)  # type: ignore[arg-type]

    r = audiocli(*IN_PIECES, "-o", tmp_path / "x.wav", "-j", "1")

    assert r.code == 0, r.err
    pcm, sizes = samples_of(tmp_path / "x.wav"), [len(expected_pcm(sentence)) for sentence in SENTENCES]
    start, end = sum(sizes[:2]), sum(sizes[:3])
    assert abs(len(pcm) - sum(sizes)) <= 4
    assert pcm[: sizes[0] - 2 * FADE] == expected_pcm(SENTENCES[0])[: -2 * FADE]
    assert pcm[-sizes[7] + 2 * FADE :] == expected_pcm(SENTENCES[7])[2 * FADE :]
    assert max(array("h", pcm[start:end])) > 6000


@pytest.mark.parametrize("kind", ["audio/pcm;rate=24000;channels=1", "application/octet-stream"])
@pytest.mark.parametrize("first", [-2, -257])
def test_no_sample_that_a_piece_begins_with_makes_it_text(
    audiocli: CommandLine, tmp_path: Path, first: int, kind: str
) -> None:
    samples = first.to_bytes(2, "little", signed=True) + expected_pcm(SENTENCES[1])[2:]
    audiocli.gateway.script(Normal(), Garbage(samples, kind))

    r = audiocli(*IN_PIECES, "-o", tmp_path / "x.wav", "-j", "1")

    assert r.code == 0, r.err


# --- failures, and going on ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "code"),
    [(Status(400), 6), (CutAfter(3000), 7), (Empty(), 9), (Html(), 9), (Stall(after_bytes=100, seconds=5), 7)],
    ids=["400", "cut", "empty", "html", "stall"],
)
def test_a_piece_that_fails_is_named_and_the_same_command_goes_on(
    audiocli: CommandLine, tmp_path: Path, fault: object, code: int
) -> None:
    audiocli.gateway.script(Normal(), Normal(), fault)  # type: ignore[arg-type]
    argv = (*IN_PIECES, "-o", tmp_path / "x.wav", "-j", "1", "--timeout", "0.5")

    r = audiocli(*argv)

    assert (r.code, files_in(tmp_path)) == (code, [])
    place = TEXT.index(SENTENCES[2]) + 1
    assert f"piece 3 of 8, from character {place} ({SENTENCES[2][:40]}" in r.err
    assert "the same command goes on" in r.err
    assert len(r.ledger) == 3
    assert len(kept(audiocli)) == 2
    again = audiocli(*argv)
    assert again.code == 0, again.err
    assert [seen.json["input"] for seen in again.posts] == SENTENCES[2:]
    check_joined(samples_of(tmp_path / "x.wav"), SENTENCES)
    assert kept(audiocli) == []


def test_pieces_under_way_finish_when_another_fails(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.script(Status(400), Normal(), Drip(20_000, 0.05), Normal())

    r = audiocli(*IN_PIECES, "-o", tmp_path / "x.wav", "-j", "4")

    assert r.code == 6
    assert Counter(entry["outcome"] for entry in r.ledger) == {"ok": len(r.posts) - 1, "refused": 1}
    assert len(kept(audiocli)) == len(r.posts) - 1


def test_what_may_be_sent_again_is_sent_again_for_that_piece_alone(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.script(Normal(), Status(500), Normal(), Status(429, headers={"Retry-After": "7"}))

    r = audiocli(*IN_PIECES, "-o", tmp_path / "x.wav", "-j", "1", "--json")

    assert r.code == 0, r.err
    assert 7 in r.waits_s
    assert Counter(said(audiocli)) == {**dict.fromkeys(SENTENCES, 1), SENTENCES[1]: 2, SENTENCES[2]: 2}
    assert Counter(entry["outcome"] for entry in r.ledger) == {"ok": 8, "failed": 1, "refused": 1}
    check_joined(samples_of(tmp_path / "x.wav"), SENTENCES)


def test_a_lost_piece_is_sent_again_only_when_that_is_allowed(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.script(Normal(), CutAfter(3000))

    r = audiocli(*IN_PIECES, "-o", tmp_path / "x.wav", "-j", "1", "--retry-unknown")

    assert r.code == 0, r.err
    assert said(audiocli).count(SENTENCES[1]) == 2
    check_joined(samples_of(tmp_path / "x.wav"), SENTENCES)


def test_no_resume_starts_over(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.script(*[Normal()] * 5, Status(400))
    assert audiocli(*IN_PIECES, "-o", tmp_path / "x.wav", "-j", "1").code == 6

    r = audiocli(*IN_PIECES, "-o", tmp_path / "x.wav", "--no-resume")

    assert (r.code, len(r.posts)) == (0, 8), r.err


def test_a_kept_piece_that_was_damaged_is_spoken_again(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.script(*[Normal()] * 5, Status(400))
    assert audiocli(*IN_PIECES, "-o", tmp_path / "x.wav", "-j", "1").code == 6
    folder = Path(audiocli.variables["XDG_CACHE_HOME"]) / "audiocli" / "speech"
    for name, size in zip(kept(audiocli), (0, 30, 5000), strict=False):
        os.truncate(folder / name, size)

    r = audiocli(*IN_PIECES, "-o", tmp_path / "x.wav")

    assert (r.code, len(r.posts)) == (0, 6), r.err
    check_joined(samples_of(tmp_path / "x.wav"), SENTENCES)


@pytest.mark.parametrize("jobs", ["1", "4"])
def test_a_sentence_that_stands_in_a_text_twice_is_spoken_once(
    audiocli: CommandLine, tmp_path: Path, jobs: str
) -> None:
    r = audiocli("speak", f"{SENTENCES[0]} " * 6, "--max-chars", "50", "-o", tmp_path / "x.wav", "-j", jobs)

    assert r.code == 0, r.err
    check_joined(samples_of(tmp_path / "x.wav"), [SENTENCES[0]] * 6)
    assert len(r.posts) == 1


def test_what_the_second_model_spoke_is_gone_on_with_by_the_second_model(audiocli: CommandLine, tmp_path: Path) -> None:
    first, second = "hexgrad/kokoro-82m", "openai/gpt-4o-mini-tts-2025-12-15"
    audiocli.gateway.always(Status(404), model=first)
    audiocli.gateway.script(*[Normal()] * 3, Status(400), model=second)
    argv = (*IN_PIECES, "-m", f"openrouter:{first}", "-m", f"openrouter:{second}", "-o", tmp_path / "x.wav", "-j", "1")
    assert audiocli(*argv).code == 6

    r = audiocli(*argv)

    assert r.code == 0, r.err
    assert [seen.json["input"] for seen in r.posts if seen.status == 200] == SENTENCES[3:]


def test_all_pieces_are_spoken_over_the_route_that_spoke_the_first(audiocli: CommandLine, tmp_path: Path) -> None:
    first, second = "hexgrad/kokoro-82m", "openai/gpt-4o-mini-tts-2025-12-15"
    audiocli.gateway.script(Status(404), model=first)

    r = audiocli(*IN_PIECES, "-m", f"openrouter:{first}", "-m", f"openrouter:{second}", "-o", tmp_path / "x.wav")

    assert r.code == 0, r.err
    assert Counter(seen.model for seen in r.posts) == {first: 1, second: 8}


def test_the_dry_run_tells_what_is_left_to_pay(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.script(*[Normal()] * 5, Status(400))
    assert audiocli(*IN_PIECES, "-o", tmp_path / "x.wav", "-j", "1").code == 6

    r = audiocli(*IN_PIECES, "-o", tmp_path / "x.wav", "-n", "--json")

    assert (r.code, r.posts) == (0, [])
    told = {name: r.json[name] for name in ("requests", "pieces", "kept", "characters", "utf8_bytes")}
    assert told == {"requests": 3, "pieces": 8, "kept": 5, "characters": len(TEXT), "utf8_bytes": len(TEXT)}


def test_the_price_of_a_dry_run_is_that_of_what_is_left(audiocli: CommandLine, tmp_path: Path) -> None:
    assert audiocli("models", "--kind", "speech").code == 0
    audiocli.gateway.script(*[Normal()] * 7, Status(400))
    assert audiocli(*IN_PIECES, "-o", tmp_path / "x.wav", "-j", "1").code == 6

    r = audiocli(*IN_PIECES, "-n", "--json", "-o", tmp_path / "x.wav")

    assert r.json["price_usd"] == pytest.approx(0.000012 * len(SENTENCES[7]))
