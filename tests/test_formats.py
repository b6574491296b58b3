"""Table of formats, detection by the first bytes, and integrity of containers."""

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
from audiocli.audio.formats import (
    FORMATS,
    OUTPUT_FORMATS,
    RAW_FORMATS,
    FormatPlan,
    FormatStep,
    build_wav_header,
    find_format,
    find_format_for_path,
    is_compatible,
    looks_like_text,
    parse_content_type,
    parse_wav_duration_s,
    plan_format,
    sniff_format,
)
from audiocli.audio.integrity import create_integrity_checker
from audiocli.codecs.encoder import Encoder
from audiocli.types.audio import PcmFormat

CHECKED_FORMATS = ("pcm", "wav", "mp3", "aac", "ogg", "opus", "flac", "m4a")


@cache
def encode_tone(format_name: str, *, pipe: bool = False, rate: int = 24_000, seconds: float = 0.5) -> bytes:
    """Return half a second of a tone, as the codec writes it."""
    tone = array.array("h", (int(9_000 * math.sin(i * 0.115)) for i in range(int(rate * seconds))))
    target = None if pipe else io.BytesIO()
    with Encoder(format_name, PcmFormat(rate), target) as encoder:
        out = encoder.feed(tone.tobytes()) + encoder.finish()
    return out if target is None else target.getvalue()


def check_integrity(format_name: str, body: bytes, sizes: tuple[int, ...] = ()) -> IntegrityReport:
    """Feed a body in blocks whose sizes repeat, or as one block without sizes."""
    checker, at, block_index = create_integrity_checker(format_name, PcmFormat()), 0, 0
    while at < len(body):
        size = sizes[block_index % len(sizes)] if sizes else len(body)
        checker.feed(body[at : at + size])
        at, block_index = at + size, block_index + 1
    return checker.finish()


# --- table -----------------------------------------------------------------------------------------------------------


def test_output_formats_can_be_written() -> None:
    assert OUTPUT_FORMATS == ("mp3", "wav", "flac", "opus", "ogg", "aac", "m4a", "m4b", "pcm", "ulaw", "alaw")


def test_format_names_and_suffixes_are_unique() -> None:
    names = [name for row in FORMATS for name in (row.name, *row.aliases)]
    suffixes = [suffix for row in FORMATS for suffix in row.suffixes]

    assert len(names) == len(set(names))
    assert len(suffixes) == len(set(suffixes))


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        *(("MP3", "mp3"), ("mpga", "mp3"), ("oga", "ogg"), ("wave", "wav"), (".wav", "wav"), ("m4b", "m4b")),
        *(("mulaw", "ulaw"), ("PCMU", "ulaw"), ("ul", "ulaw"), ("pcm_alaw", "alaw"), ("a-law", "alaw")),
        *(("mp4a", "m4a"), ("raw", "pcm"), ("S16LE", "pcm"), ("matroska", "mkv"), (" flac ", "flac"), ("doc", None)),
    ],
)
def test_format_is_found_by_its_names(alias: str, name: str | None) -> None:
    row = find_format(alias)

    assert (row and row.name) == name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a.MP3", "mp3"),
        ("a.tar.opus", "opus"),
        ("x/talk.m4b", "m4b"),
        ("greeting.ul", "ulaw"),
        ("greeting.ALAW", "alaw"),
        ("talk", None),
        ("talk.txt", None),
        (".wav", None),
    ],
)
def test_format_is_found_by_the_suffix_of_a_path(path: str, name: str | None) -> None:
    row = find_format_for_path(Path(path))

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
        ("audio/basic", "ulaw", None),
        ("audio/PCMU;rate=8000", "ulaw", None),
        ("audio/x-alaw", "alaw", None),
        ("audio/pcm", "pcm", PcmFormat(24_000, 1)),
        ("audio/pcm;rate=16000;channels=2", "pcm", PcmFormat(16_000, 2)),
        ('audio/pcm; Rate="44100" ; bits=16', "pcm", PcmFormat(44_100, 1)),
        ("audio/pcm;rate=lots;channels=-1", "pcm", PcmFormat(24_000, 1)),
        ("audio/pcm;rate=99999999999999999999999;channels=0", "pcm", PcmFormat(24_000, 1)),
        ("audio/pcm;rate=²;;=;rate", "pcm", PcmFormat(24_000, 1)),
        ("audio/L16;codec=pcm;rate=24000", "pcm", PcmFormat(24_000, 1)),
        ("application/octet-stream", None, None),
        ("text/html; charset=utf-8", None, None),
        ("", None, None),
    ],
)
def test_content_type_is_parsed(value: str, name: str | None, pcm: PcmFormat | None) -> None:
    row, pcm_format = parse_content_type(value)

    assert (row and row.name, pcm_format) == (name, pcm)


@given(st.text())
def test_parsing_any_content_type_never_raises(value: str) -> None:
    report, pcm_format = parse_content_type(value)
    samples_format, samples_pcm = parse_content_type(f"audio/pcm;{value}")

    assert report is not None or pcm_format is None
    assert samples_format is not None
    assert samples_pcm is not None


@pytest.mark.parametrize(
    ("requested", "available", "expected"),
    [
        ("mp3", ("mp3", "pcm"), FormatPlan("mp3", FormatStep.PASS_THROUGH)),
        ("wav", ("mp3", "pcm"), FormatPlan("pcm", FormatStep.ADD_HEADER)),
        ("wav", ("pcm", "wav"), FormatPlan("wav", FormatStep.PASS_THROUGH)),
        ("m4a", ("mp3", "pcm"), FormatPlan("pcm", FormatStep.ENCODE)),
        ("pcm", ("mp3", "wav"), FormatPlan("wav", FormatStep.ENCODE)),
        ("opus", ("mp3", "flac"), FormatPlan("flac", FormatStep.ENCODE)),
        ("opus", ("mp3", "aac"), FormatPlan("mp3", FormatStep.ENCODE)),
        ("ogg", ("mp3", "opus", "pcm"), FormatPlan("opus", FormatStep.PASS_THROUGH)),
        ("opus", ("ogg",), FormatPlan("ogg", FormatStep.ENCODE)),
        ("flac", (), FormatPlan("flac", FormatStep.PASS_THROUGH)),
    ],
)
def test_format_plan_selects_requested_format(requested: str, available: tuple[str, ...], expected: FormatPlan) -> None:
    assert plan_format(requested, available) == expected


def test_opus_is_compatible_with_ogg() -> None:
    assert is_compatible("ogg", "opus")
    assert is_compatible("m4a", "mp4")
    assert is_compatible("m4b", "m4a")
    assert not is_compatible("m4a", "m4b")
    assert not is_compatible("ulaw", "alaw")
    assert not is_compatible("opus", "ogg")
    assert not is_compatible("mp3", "wav")


# --- first bytes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (build_wav_header(PcmFormat(), None), "wav"),
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
def test_format_is_detected_by_first_bytes(head: bytes, name: str | None) -> None:
    row = sniff_format(head)

    assert (row and row.name) == name


@pytest.mark.parametrize("name", [name for name in OUTPUT_FORMATS if name not in RAW_FORMATS])
@pytest.mark.parametrize("pipe", [False, True])
def test_encoded_files_are_detected(name: str, pipe: bool) -> None:
    report = sniff_format(encode_tone(name, pipe=pipe)[:64])

    assert report is not None
    assert is_compatible(name, report.name)


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
    assert sniff_format(head) is None or text.startswith("#!AMR")


def test_utf_16_and_latin_1_pages_are_text() -> None:
    assert looks_like_text("<html>".encode("utf-16"))
    assert sniff_format("\ufeff<html>".encode("utf-16-le")) is None
    assert looks_like_text("<h1>Zugriff verweigert für".encode("latin-1"))


def test_samples_are_not_text() -> None:
    assert not looks_like_text(encode_tone("pcm")[:64])
    assert not looks_like_text(bytes(64))
    assert not looks_like_text(b"")


@given(st.text(alphabet=st.characters(exclude_categories=["Cc", "Cs"]), min_size=1))
def test_any_text_is_not_detected_as_audio(text: str) -> None:
    assert sniff_format(text.encode()[:64]) is None


@given(st.binary(max_size=200))
def test_sniffing_never_raises(head: bytes) -> None:
    sniff_format(head)
    looks_like_text(head)


# --- wav -------------------------------------------------------------------------------------------------------------


def test_wav_header_is_read_by_the_standard_library() -> None:
    body = build_wav_header(PcmFormat(16_000, 2), 8) + bytes(8)

    with wave.open(io.BytesIO(body)) as file:
        assert file.getparams()[:4] == (2, 2, 16_000, 2)


def test_wav_of_unknown_or_excessive_size_has_maximum_size_field() -> None:
    assert len(build_wav_header(PcmFormat(), None)) == 44
    assert struct.unpack("<I", build_wav_header(PcmFormat(), None)[40:]) == (0xFFFFFFFF,)
    assert build_wav_header(PcmFormat(), 5 << 30) == build_wav_header(PcmFormat(), None)


@pytest.mark.parametrize(
    ("head", "size_bytes", "expected"),
    [
        (build_wav_header(PcmFormat(24_000), 48_000), 48_044, 1.0),
        (build_wav_header(PcmFormat(24_000), None), 48_044, 1.0),
        (build_wav_header(PcmFormat(24_000), 96_000), 48_044, 1.0),
        (build_wav_header(PcmFormat(24_000), 0), 44, 0.0),
        (encode_tone("mp3")[:64], 9_999, None),
        (b"RIFF", 4, None),
    ],
)
def test_wav_duration_is_parsed_without_codec(head: bytes, size_bytes: int, expected: float | None) -> None:
    assert parse_wav_duration_s(head, size_bytes) == expected


# --- integrity -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHECKED_FORMATS)
@pytest.mark.parametrize("pipe", [False, True])
@pytest.mark.parametrize("rate", [8_000, 22_050, 24_000, 48_000])
def test_complete_file_has_no_problem_and_its_duration(name: str, pipe: bool, rate: int) -> None:
    checker = create_integrity_checker(name, PcmFormat(rate))
    checker.feed(encode_tone(name, pipe=pipe, rate=rate))

    report = checker.finish()

    assert report.problem is None
    if not (name == "m4a" and pipe):
        # A codec pads both ends. Only some containers can declare the padding.
        assert report.duration_s == pytest.approx(0.5, abs=2_300 / rate)


@pytest.mark.parametrize("name", CHECKED_FORMATS)
def test_file_cut_in_the_middle_is_truncated(name: str) -> None:
    body = encode_tone(name, seconds=2.0)

    report = check_integrity(name, body[: len(body) // 2 | 1])

    assert report.problem == "truncated"


@pytest.mark.parametrize("name", [*CHECKED_FORMATS, "webm"])
def test_no_bytes_are_empty(name: str) -> None:
    assert check_integrity(name, b"") == IntegrityReport("empty")


def test_wav_without_samples_is_empty() -> None:
    assert check_integrity("wav", build_wav_header(PcmFormat(), 0)) == IntegrityReport("empty")
    assert check_integrity("wav", build_wav_header(PcmFormat(), None)) == IntegrityReport("empty")


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0x7FFFFFFF - 36, 0xFFFFFFFF, 0xFFFFFFFF - 36])
def test_streamed_wav_has_the_duration_of_its_bytes(size: int) -> None:
    body = build_wav_header(PcmFormat(), 0)[:40] + struct.pack("<I", size) + bytes(48_000)

    assert check_integrity("wav", body) == IntegrityReport(None, 1.0)


def test_tags_around_mp3_are_not_audio() -> None:
    audio = encode_tone("mp3", pipe=True)
    # A cover picture may contain bytes that look like a frame beyond the end of the tag.
    tag = b"ID3\x04\x00\x00\x00\x00\x02\x00" + b"\xff\xfb\x90\xc4" * 64
    tail = b"APETAGEX" + b"\xff\xf3\x64\xc4" + bytes(20) + b"TAG" + bytes(125)

    plain, tagged = check_integrity("mp3", audio), check_integrity("mp3", tag + audio + tail)

    assert tagged == plain


def test_durations_of_concatenated_mp3_files_add_up() -> None:
    audio = encode_tone("mp3", pipe=True)

    once, twice = check_integrity("mp3", audio), check_integrity("mp3", audio + audio)

    assert once.duration_s is not None
    assert twice.problem is None
    assert twice.duration_s == pytest.approx(2 * once.duration_s)


def test_mp3_with_fewer_frames_than_declared_is_truncated() -> None:
    body = encode_tone("mp3", seconds=2.0)
    frame_bytes = 192  # 64 kbit/s at 24 kHz

    report = check_integrity("mp3", body[: len(body) - 40 * frame_bytes])

    assert report.problem == "truncated"


def test_ogg_without_end_flag_is_accepted() -> None:
    body = bytearray(encode_tone("opus"))
    body[body.rindex(b"OggS") + 5] &= ~4

    assert check_integrity("opus", bytes(body)).problem is None


def test_mp4_without_index_is_truncated() -> None:
    body = encode_tone("m4a")

    assert check_integrity("m4a", body[: body.index(b"moov") - 4]).problem == "truncated"


@pytest.mark.parametrize("name", CHECKED_FORMATS)
def test_integrity_report_is_independent_of_block_size(name: str) -> None:
    rng = random.Random(7)
    for body in (
        encode_tone(name),
        encode_tone(name, pipe=True),
        encode_tone(name)[:-700],
        b"junk" + encode_tone(name),
    ):
        report = check_integrity(name, body)
        for sizes in ((1,), (7, 1, 300), tuple(rng.randrange(1, 2_000) for _ in range(9))):
            assert check_integrity(name, body, sizes) == report


@settings(max_examples=150)
@given(
    name=st.sampled_from(CHECKED_FORMATS),
    edits=st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(max_size=9), st.integers(0, 30)), max_size=5),
    sizes=st.lists(st.integers(1, 999), max_size=5).map(tuple),
)
def test_damaged_files_never_raise_for_any_block_size(
    name: str, edits: list[tuple[int, bytes, int]], sizes: tuple[int, ...]
) -> None:
    body = encode_tone(name, seconds=0.2)
    for offset, inserted, removed_count in edits:
        at = offset % len(body)
        body = body[:at] + inserted + body[at + removed_count :]

    assert check_integrity(name, body, sizes) == check_integrity(name, body)


@given(
    name=st.sampled_from(CHECKED_FORMATS), body=st.binary(max_size=600), sizes=st.lists(st.integers(1, 99)).map(tuple)
)
def test_random_bytes_never_raise_in_integrity_checker(name: str, body: bytes, sizes: tuple[int, ...]) -> None:
    assert check_integrity(name, body, sizes) == check_integrity(name, body)
