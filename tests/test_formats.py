"""The table of formats, what the first bytes tell, and whether a container is whole."""

from __future__ import annotations

import array
import io
import math
import random
import struct
import wave
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiocli.audio.byte_reader import IntegrityReport
from audiocli.codecs.encoder import Encoder
from audiocli.audio.formats import (
    FORMATS,
    OUTPUT_FORMATS,
    Plan,
    Step,
    fits,
    looks_like_text,
    named,
    of_content_type,
    of_path,
    plan,
    sniff,
    wav_duration,
    wav_header,
)
from audiocli.audio.integrity import inspector
from audiocli.types.values import Pcm

WALKED = ("pcm", "wav", "mp3", "aac", "ogg", "opus", "flac", "m4a")


@cache
def real_file(format_name: str, *, pipe: bool = False, rate: int = 24_000, seconds: float = 0.5) -> bytes:
    """Half a second of a tone, as the codec itself writes it."""
    tone = array.array("h", (int(9_000 * math.sin(i * 0.115)) for i in range(int(rate * seconds))))
    target = None if pipe else io.BytesIO()
    with Encoder(format_name, Pcm(rate), target) as encoder:
        out = encoder.feed(tone.tobytes()) + encoder.finish()
    return out if target is None else target.getvalue()


def inspect(format_name: str, body: bytes, sizes: tuple[int, ...] = ()) -> IntegrityReport:
    """Feed a body in chunks of these sizes, over and over; all at once without any."""
    looker, at, turn = inspector(format_name, Pcm()), 0, 0
    while at < len(body):
        size = sizes[turn % len(sizes)] if sizes else len(body)
        looker.feed(body[at : at + size])
        at, turn = at + size, turn + 1
    return looker.finish()


# --- the table ------------------------------------------------------------------------------------------------------


def test_the_formats_of_the_command_line_can_be_written() -> None:
    assert OUTPUT_FORMATS == ("mp3", "wav", "flac", "opus", "ogg", "aac", "m4a", "pcm")


def test_no_two_formats_share_a_name_or_a_suffix() -> None:
    names = [name for row in FORMATS for name in (row.name, *row.aliases)]
    suffixes = [suffix for row in FORMATS for suffix in row.suffixes]

    assert len(names) == len(set(names))
    assert len(suffixes) == len(set(suffixes))


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        *(("MP3", "mp3"), ("mpga", "mp3"), ("oga", "ogg"), ("wave", "wav"), (".wav", "wav"), ("m4b", "m4a")),
        *(("mp4a", "m4a"), ("raw", "pcm"), ("S16LE", "pcm"), ("matroska", "mkv"), (" flac ", "flac"), ("doc", None)),
    ],
)
def test_a_format_is_found_by_its_usual_names(typed: str, name: str | None) -> None:
    row = named(typed)

    assert (row and row.name) == name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a.MP3", "mp3"),
        ("a.tar.opus", "opus"),
        ("x/talk.m4b", "m4a"),
        ("talk", None),
        ("talk.txt", None),
        (".wav", None),
    ],
)
def test_a_format_is_found_by_the_ending_of_a_path(path: str, name: str | None) -> None:
    row = of_path(Path(path))

    assert (row and row.name) == name


@pytest.mark.parametrize(
    ("value", "name", "pcm"),
    [
        ("audio/mpeg", "mp3", None),
        ("Audio/MPEG; charset=utf-8", "mp3", None),
        ("audio/x-wav", "wav", None),
        ("audio/ogg", "ogg", None),
        ('audio/ogg; codecs="opus"', "opus", None),
        ("audio/opus", "opus", None),
        ("audio/mp4", "m4a", None),
        ("audio/pcm", "pcm", Pcm(24_000, 1)),
        ("audio/pcm;rate=16000;channels=2", "pcm", Pcm(16_000, 2)),
        ('audio/pcm; Rate="44100" ; bits=16', "pcm", Pcm(44_100, 1)),
        ("audio/pcm;rate=lots;channels=-1", "pcm", Pcm(24_000, 1)),
        ("audio/pcm;rate=99999999999999999999999;channels=0", "pcm", Pcm(24_000, 1)),
        ("audio/pcm;rate=²;;=;rate", "pcm", Pcm(24_000, 1)),
        ("audio/L16;codec=pcm;rate=24000", "pcm", Pcm(24_000, 1)),
        ("application/octet-stream", None, None),
        ("text/html; charset=utf-8", None, None),
        ("", None, None),
    ],
)
def test_a_content_type_is_parsed_and_never_compared(value: str, name: str | None, pcm: Pcm | None) -> None:
    row, shape = of_content_type(value)

    assert (row and row.name, shape) == (name, pcm)


@given(st.text())
def test_no_content_type_makes_it_raise(value: str) -> None:
    found, shape = of_content_type(value)
    samples, of_samples = of_content_type(f"audio/pcm;{value}")

    assert found is not None or shape is None
    assert samples is not None
    assert of_samples is not None


@pytest.mark.parametrize(
    ("asked", "makes", "expected"),
    [
        ("mp3", ("mp3", "pcm"), Plan("mp3", Step.PASS)),
        ("wav", ("mp3", "pcm"), Plan("pcm", Step.HEADER)),
        ("wav", ("pcm", "wav"), Plan("wav", Step.PASS)),
        ("m4a", ("mp3", "pcm"), Plan("pcm", Step.ENCODE)),
        ("pcm", ("mp3", "wav"), Plan("wav", Step.ENCODE)),
        ("opus", ("mp3", "flac"), Plan("flac", Step.ENCODE)),
        ("opus", ("mp3", "aac"), Plan("mp3", Step.ENCODE)),
        ("ogg", ("mp3", "opus", "pcm"), Plan("opus", Step.PASS)),
        ("opus", ("ogg",), Plan("ogg", Step.ENCODE)),
        ("flac", (), Plan("flac", Step.PASS)),
    ],
)
def test_what_a_gateway_is_asked_for(asked: str, makes: tuple[str, ...], expected: Plan) -> None:
    assert plan(asked, makes) == expected


def test_opus_in_ogg_is_what_somebody_who_asked_for_ogg_wants() -> None:
    assert fits("ogg", "opus")
    assert fits("m4a", "mp4")
    assert not fits("opus", "ogg")
    assert not fits("mp3", "wav")


# --- the first bytes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (wav_header(Pcm(), None), "wav"),
        (b"RF64\xff\xff\xff\xffWAVEds64" + bytes(40), "wav"),
        (b"ID3\x04\x00\x00\x00\x00\x00\x21" + bytes(40), "mp3"),
        (b"\xff\xfb\x90\xc4" + bytes(40), "mp3"),
        (b"\xff\xf3\x84\xc4" + bytes(40), "mp3"),
        (b"\xff\xfd\x84\xc4" + bytes(40), "mp2"),
        (b"\xff\xf1\x58\x40\x02\x1f\xfc" + bytes(40), "aac"),
        (b"fLaC\x00\x00\x00\x22" + bytes(40), "flac"),
        (b"OggS\x00\x02" + bytes(20) + b"\x01\x13OpusHead\x01\x01" + bytes(20), "opus"),
        (b"OggS\x00\x02" + bytes(20) + b"\x01\x1e\x01vorbis" + bytes(20), "ogg"),
        (b"\x00\x00\x00\x1cftypM4A \x00\x00\x02\x00", "m4a"),
        (b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00", "mp4"),
        (b"\x00\x00\x00\x14ftypqt  \x00\x00\x02\x00", "mov"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x02\x00", None),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm\x42", "webm"),
        (b"\x1a\x45\xdf\xa3\xa3\x42\x86\x81\x01\x42\x82\x88matroska", "mkv"),
        (b"FORM\x00\x01\x00\x00AIFFCOMM\x00\x00\x00\x12", "aiff"),
        (b"caff\x00\x01\x00\x00desc", "caf"),
        (b".snd\x00\x00\x00\x18\x00\x00", "au"),
        (b"#!AMR\n\x3c\x08\x00\x10", "amr"),
        (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + bytes(9), "wma"),
        (b"RIFF\x00\x10\x00\x00AVI LIST\x00\x00", "avi"),
        (b"\x00\x00\x01\xba\x44\x00\x04", "mpeg"),
        (b"\x47\x40\x00\x10\x00\x00\xb0\x0d", "ts"),
        (b"\x89PNG\r\n\x1a\n" + bytes(9), None),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", None),
        (bytes(64), None),
        (b"", None),
    ],
)
def test_first_bytes_tell_the_format(head: bytes, name: str | None) -> None:
    row = sniff(head)

    assert (row and row.name) == name


@pytest.mark.parametrize("name", [name for name in OUTPUT_FORMATS if name != "pcm"])
@pytest.mark.parametrize("pipe", [False, True])
def test_what_we_write_is_recognised(name: str, pipe: bool) -> None:
    found = sniff(real_file(name, pipe=pipe)[:64])

    assert found is not None
    assert fits(name, found.name)


@pytest.mark.parametrize(
    "text",
    [
        '{"error":{"message":"no credit"}}',
        "<!doctype html><html><head><title>502 Bad Gateway</title>",
        "ID3 tags are older than you think, said fLaC to OggS; RIFF!",
        "RIFF\x20\x20\x20\x20WAVE, said the surfer, and that was all he said that day",
        "#!AMR\nis no magic when words follow",
        "für Ünïcode ist auch Plätz 語言 " * 3,
        "\ufeffwith a mark",
    ],
)
def test_text_is_never_audio(text: str) -> None:
    head = text.encode()[:64]

    assert looks_like_text(head)
    assert sniff(head) is None or text.startswith("#!AMR")


def test_utf_16_and_latin_1_pages_are_text() -> None:
    assert looks_like_text("<html>".encode("utf-16"))
    assert sniff("\ufeff<html>".encode("utf-16-le")) is None
    assert looks_like_text("<h1>Zugriff verweigert für".encode("latin-1"))


def test_samples_are_not_text() -> None:
    assert not looks_like_text(real_file("pcm")[:64])
    assert not looks_like_text(bytes(64))
    assert not looks_like_text(b"")


@given(st.text(alphabet=st.characters(exclude_categories=["Cc", "Cs"]), min_size=1))
def test_no_text_sniffs_as_audio(text: str) -> None:
    assert sniff(text.encode()[:64]) is None


@given(st.binary(max_size=200))
def test_sniffing_never_raises(head: bytes) -> None:
    sniff(head)
    looks_like_text(head)


# --- wav ------------------------------------------------------------------------------------------------------------


def test_a_wav_header_is_read_by_the_standard_library() -> None:
    body = wav_header(Pcm(16_000, 2), 8) + bytes(8)

    with wave.open(io.BytesIO(body)) as file:
        assert file.getparams()[:4] == (2, 2, 16_000, 2)


def test_a_wav_of_unknown_or_impossible_size_says_so() -> None:
    assert len(wav_header(Pcm(), None)) == 44
    assert struct.unpack("<I", wav_header(Pcm(), None)[40:]) == (0xFFFFFFFF,)
    assert wav_header(Pcm(), 5 << 30) == wav_header(Pcm(), None)


@pytest.mark.parametrize(
    ("head", "size_bytes", "expected"),
    [
        (wav_header(Pcm(24_000), 48_000), 48_044, 1.0),
        (wav_header(Pcm(24_000), None), 48_044, 1.0),
        (wav_header(Pcm(24_000), 96_000), 48_044, 1.0),
        (wav_header(Pcm(24_000), 0), 44, 0.0),
        (real_file("mp3")[:64], 9_999, None),
        (b"RIFF", 4, None),
    ],
)
def test_the_length_of_a_wav_needs_no_codec(head: bytes, size_bytes: int, expected: float | None) -> None:
    assert wav_duration(head, size_bytes) == expected


# --- is it whole ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WALKED)
@pytest.mark.parametrize("pipe", [False, True])
@pytest.mark.parametrize("rate", [8_000, 22_050, 24_000, 48_000])
def test_a_real_file_is_whole_and_has_its_length(name: str, pipe: bool, rate: int) -> None:
    looker = inspector(name, Pcm(rate))
    looker.feed(real_file(name, pipe=pipe, rate=rate))

    found = looker.finish()

    assert found.problem is None
    if not (name == "m4a" and pipe):
        # A codec pads both ends, and says so only where its container has a place for it.
        assert found.duration_s == pytest.approx(0.5, abs=2_300 / rate)


@pytest.mark.parametrize("name", WALKED)
def test_a_file_cut_in_the_middle_is_truncated(name: str) -> None:
    body = real_file(name, seconds=2.0)

    found = inspect(name, body[: len(body) // 2 | 1])

    assert found.problem == "truncated"


@pytest.mark.parametrize("name", [*WALKED, "webm"])
def test_nothing_at_all_is_empty(name: str) -> None:
    assert inspect(name, b"") == IntegrityReport("empty")


def test_a_wav_without_samples_is_empty() -> None:
    assert inspect("wav", wav_header(Pcm(), 0)) == IntegrityReport("empty")
    assert inspect("wav", wav_header(Pcm(), None)) == IntegrityReport("empty")


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0x7FFFFFFF - 36, 0xFFFFFFFF, 0xFFFFFFFF - 36])
def test_a_wav_from_a_streaming_writer_is_as_long_as_its_bytes(size: int) -> None:
    body = wav_header(Pcm(), 0)[:40] + struct.pack("<I", size) + bytes(48_000)

    assert inspect("wav", body) == IntegrityReport(None, 1.0)


def test_tags_and_junk_around_an_mp3_are_not_sound() -> None:
    sound = real_file("mp3", pipe=True)
    # A cover picture may hold anything, also what looks like a frame that goes on beyond the end.
    tag = b"ID3\x04\x00\x00\x00\x00\x02\x00" + b"\xff\xfb\x90\xc4" * 64
    tail = b"APETAGEX" + b"\xff\xf3\x64\xc4" + bytes(20) + b"TAG" + bytes(125)

    plain, tagged = inspect("mp3", sound), inspect("mp3", tag + sound + tail)

    assert tagged == plain


def test_mp3_files_set_end_to_end_add_up() -> None:
    sound = real_file("mp3", pipe=True)

    once, twice = inspect("mp3", sound), inspect("mp3", sound + sound)

    assert once.duration_s is not None
    assert twice.problem is None
    assert twice.duration_s == pytest.approx(2 * once.duration_s)


def test_an_mp3_whose_header_promises_more_frames_is_truncated() -> None:
    body = real_file("mp3", seconds=2.0)
    frame_bytes = 192  # 64 kbit/s at 24 kHz

    found = inspect("mp3", body[: len(body) - 40 * frame_bytes])

    assert found.problem == "truncated"


def test_ogg_without_an_end_flag_is_not_accused() -> None:
    body = bytearray(real_file("opus"))
    body[body.rindex(b"OggS") + 5] &= ~4

    assert inspect("opus", bytes(body)).problem is None


def test_mp4_without_its_index_is_truncated() -> None:
    body = real_file("m4a")

    assert inspect("m4a", body[: body.index(b"moov") - 4]).problem == "truncated"


@pytest.mark.parametrize("name", WALKED)
def test_any_chunking_gives_the_same_finding(name: str) -> None:
    chance = random.Random(7)
    for body in (real_file(name), real_file(name, pipe=True), real_file(name)[:-700], b"junk" + real_file(name)):
        whole = inspect(name, body)
        for sizes in ((1,), (7, 1, 300), tuple(chance.randrange(1, 2_000) for _ in range(9))):
            assert inspect(name, body, sizes) == whole


@settings(max_examples=150)
@given(
    name=st.sampled_from(WALKED),
    edits=st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(max_size=9), st.integers(0, 30)), max_size=5),
    sizes=st.lists(st.integers(1, 999), max_size=5).map(tuple),
)
def test_damaged_files_never_raise_and_never_depend_on_chunks(
    name: str, edits: list[tuple[int, bytes, int]], sizes: tuple[int, ...]
) -> None:
    body = real_file(name, seconds=0.2)
    for where, new, removed in edits:
        at = where % len(body)
        body = body[:at] + new + body[at + removed :]

    assert inspect(name, body, sizes) == inspect(name, body)


@given(name=st.sampled_from(WALKED), body=st.binary(max_size=600), sizes=st.lists(st.integers(1, 99)).map(tuple))
def test_noise_never_raises_in_a_walker(name: str, body: bytes, sizes: tuple[int, ...]) -> None:
    assert inspect(name, body, sizes) == inspect(name, body)
