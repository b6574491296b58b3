"""Tags, chapters and covers of audio files. The judges are ffprobe, ffmpeg and mpv."""

from __future__ import annotations

import errno
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiocli.audio.integrity import create_integrity_checker
from audiocli.audio.speech_detector import SAMPLE_RATE_HZ
from audiocli.audio.tags import (
    AudioTags,
    ChapterMark,
    Cover,
    build_chapter_comments,
    clean_tag,
    scale_chapters,
    supports_chapters,
    supports_tags,
)
from audiocli.codecs.encoder import Encoder
from audiocli.codecs.tags import write_tags
from audiocli.errors import OutputError, RecordingError
from audiocli.text.iso_639 import convert_to_iso_639_2
from audiocli.types.audio import PcmFormat
from tests.requirements import needs_mpv, require_program
from tests.signals import make_speech, to_samples

TAGGED_FORMATS = ("mp3", "m4a", "m4b", "opus", "ogg", "flac", "wav")
CHAPTER_FORMATS = tuple(name for name in TAGGED_FORMATS if name != "wav")
SPEECH = to_samples(make_speech(seconds=4.0))
CHAPTERS = (
    ChapterMark("Einleitung: Größe", 0.0, 1.5),
    ChapterMark("第二章 😀", 1.5, 2.249),
    ChapterMark('Three = "III"; # 3', 2.249, 4.0),
)


def make_picture(media_type: str) -> bytes:
    """Return a picture of 96 by 64 pixels."""
    codec, muxer, pixel_format = {
        "image/jpeg": ("mjpeg", "mjpeg", "yuvj420p"),
        "image/png": ("png", "image2pipe", "rgb24"),
    }[media_type]
    output = io.BytesIO()
    with av.open(output, "w", format=muxer) as container:
        stream: Any = container.add_stream(codec, rate=1)
        stream.width, stream.height, stream.pix_fmt = 96, 64, pixel_format
        frame = av.VideoFrame(96, 64, "rgb24")
        frame.planes[0].update(bytes(range(256)) * (frame.planes[0].buffer_size // 256))
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return output.getvalue()


TAGS = AudioTags("Die Größe", "Änne Author", "Alles, Band 1", "de-AT", 7, chapters=CHAPTERS)


def encode_file(name: str, samples: bytes = SPEECH, rate_hz: int = SAMPLE_RATE_HZ) -> bytes:
    file = io.BytesIO()
    with Encoder(name, PcmFormat(rate_hz), file) as encoder:
        encoder.feed(samples)
        encoder.finish()
    return file.getvalue()


def write_all_tags(body: bytes, name: str, tags: AudioTags) -> tuple[bytes, tuple[str, ...]]:
    target = io.BytesIO()
    writing = write_tags(io.BytesIO(body), target, name, tags)
    for _ in writing:
        pass
    return target.getvalue(), writing.warnings


def probe(path: Path) -> dict[str, Any]:
    ffprobe = Path(require_program("ffmpeg")).with_name("ffprobe")
    command = [ffprobe, "-v", "error", "-show_chapters", "-show_streams", "-show_format"]
    result = subprocess.run([*command, "-of", "json", str(path)], check=True, capture_output=True)
    assert result.stderr == b""
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def decode(path: Path) -> bytes:
    command = [require_program("ffmpeg"), "-v", "error", "-i", str(path), "-map", "0:a", "-f", "s16le", "-"]
    result = subprocess.run(command, check=True, capture_output=True)
    assert result.stderr == b""
    return result.stdout


def list_chapters(report: dict[str, Any]) -> list[tuple[str, float]]:
    return [(chapter["tags"]["title"], float(chapter["start_time"])) for chapter in report["chapters"]]


def get_audio_stream(report: dict[str, Any]) -> dict[str, Any]:
    stream: dict[str, Any] = next(stream for stream in report["streams"] if stream["codec_type"] == "audio")
    return stream


# --- judged by FFmpeg's programs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TAGGED_FORMATS)
def test_ffprobe_shows_tags_and_chapters(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"book.{name}"
    body, warnings = write_all_tags(encode_file(name), name, TAGS)
    path.write_bytes(body)

    report = probe(path)

    tags = report["format"].get("tags", {}) | get_audio_stream(report).get("tags", {})
    expected = {"title": TAGS.title, "artist": TAGS.artist, "album": TAGS.album, "genre": "Audiobook", "track": "7"}
    assert {key.lower(): value for key, value in tags.items()}.items() >= expected.items()
    assert tags["language"] == ("deu" if name in ("mp3", "m4a", "m4b") else "de-AT")
    if name in CHAPTER_FORMATS:
        assert list_chapters(report) == [(chapter.title, chapter.start_s) for chapter in CHAPTERS]
        assert float(report["chapters"][-1]["end_time"]) == pytest.approx(4.0, abs=0.02)
    else:
        assert report["chapters"] == []
    assert warnings == (() if name in CHAPTER_FORMATS else ("wav files have no chapters",))


@pytest.mark.parametrize("name", TAGGED_FORMATS)
@pytest.mark.parametrize("samples", [1, 1_000, 8_000, 31_999], ids=str)
def test_tagged_file_decodes_to_the_same_samples(name: str, samples: int, tmp_path: Path) -> None:
    plain, tagged = tmp_path / f"plain.{name}", tmp_path / f"tagged.{name}"
    plain.write_bytes(encode_file(name, SPEECH[: 2 * samples]))
    tags = AudioTags("Title", chapters=(ChapterMark("One", 0.0, samples / SAMPLE_RATE_HZ),))
    tagged.write_bytes(write_all_tags(plain.read_bytes(), name, tags)[0])

    assert decode(tagged) == decode(plain)


@pytest.mark.parametrize("name", CHAPTER_FORMATS)
@pytest.mark.parametrize("media_type", ["image/jpeg", "image/png"])
def test_ffmpeg_extracts_the_cover(name: str, media_type: str, tmp_path: Path) -> None:
    path, picture = tmp_path / f"book.{name}", make_picture(media_type)
    path.write_bytes(write_all_tags(encode_file(name), name, TAGS._replace(cover=Cover(picture, media_type)))[0])

    report = probe(path)
    command = [
        require_program("ffmpeg"),
        "-v",
        "error",
        "-i",
        str(path),
        "-map",
        "0:v",
        "-c",
        "copy",
        "-f",
        "data",
        "-",
    ]
    extracted = subprocess.run(command, check=True, capture_output=True).stdout

    [video] = [stream for stream in report["streams"] if stream["codec_type"] == "video"]
    assert (video["disposition"]["attached_pic"], video["width"], video["height"]) == (1, 96, 64)
    assert extracted == picture
    assert len(report["chapters"]) == 3


def test_m4b_has_its_brand_and_its_index_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "book.m4b"
    path.write_bytes(write_all_tags(encode_file("m4b"), "m4b", TAGS)[0])

    tags = probe(path)["format"]["tags"]

    assert (tags["major_brand"], tags["media_type"]) == ("M4B ", "2")
    assert 0 < path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat")


def test_m4b_whose_index_is_too_large_has_it_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audiocli.codecs.tags._INDEX_HEADER_BYTES", 100)
    path = tmp_path / "book.m4b"
    path.write_bytes(write_all_tags(encode_file("m4b"), "m4b", TAGS)[0])

    assert list_chapters(probe(path)) == [(chapter.title, chapter.start_s) for chapter in CHAPTERS]
    assert path.read_bytes().index(b"moov") > path.read_bytes().index(b"mdat")


@needs_mpv
@pytest.mark.parametrize("name", ["m4b", "mp3", "opus"])
def test_mpv_shows_the_chapters(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"book.{name}"
    path.write_bytes(write_all_tags(encode_file(name), name, TAGS)[0])
    command = ["mpv", "--no-config", "--ao=null", "--vo=null", "--frames=1", "--msg-level=all=no"]
    message = "--term-playing-msg=${chapter-list/count} ${chapter-list/1/title} ${metadata/by-key/title}"

    result = subprocess.run([*command, "--msg-level=cplayer=info", message, str(path)], capture_output=True, check=True)

    assert f"3 {CHAPTERS[1].title} {TAGS.title}" in result.stdout.decode()


@pytest.mark.parametrize("name", ["m4b", "mp3", "flac", "opus"])
def test_many_chapters_are_all_shown(name: str, tmp_path: Path) -> None:
    chapters = tuple(ChapterMark(f"Chapter {index}", index / 100, (index + 1) / 100) for index in range(300))
    path = tmp_path / f"book.{name}"
    path.write_bytes(write_all_tags(encode_file(name), name, AudioTags("T", chapters=chapters))[0])

    assert list_chapters(probe(path)) == [(chapter.title, chapter.start_s) for chapter in chapters]


@pytest.mark.parametrize("name", TAGGED_FORMATS)
def test_tagged_file_passes_the_integrity_check(name: str) -> None:
    checker = create_integrity_checker(name, PcmFormat())
    cover = Cover(make_picture("image/png"), "image/png")
    checker.feed(write_all_tags(encode_file(name), name, TAGS._replace(cover=cover))[0])

    report = checker.finish()

    assert (report.problem, report.is_unfinished) == (None, False)
    assert report.duration_s == pytest.approx(4.0, abs=0.1)


# --- odd values and errors --------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(title=st.text(max_size=60), name=st.sampled_from(TAGGED_FORMATS))
def test_any_title_is_written(title: str, name: str) -> None:
    chapters = (ChapterMark(title, 0.0, 2.0), ChapterMark("", 2.0, 4.0))
    body, _ = write_all_tags(BODIES[name], name, AudioTags(title, title, chapters=chapters))

    with av.open(io.BytesIO(body), metadata_errors="replace") as container:
        found = container.metadata | container.streams.audio[0].metadata
        found = {key.lower(): value for key, value in found.items()}
        assert found.get("title", "") == clean_tag(title) or name == "wav"
        assert len(container.chapters()) == (2 if name in CHAPTER_FORMATS else 0)


BODIES = {name: encode_file(name) for name in TAGGED_FORMATS}


@pytest.mark.parametrize(
    ("cover", "warning"),
    [
        (Cover(b"\xff\xd8\xff\xe0" + bytes(100), "image/jpeg"), "the cover is left out: it cannot be read"),
        (Cover(b"", "image/png"), "the cover is left out: it cannot be read"),
        (Cover(b"#EXTM3U\nfile:///etc/passwd\n", "image/png"), "the cover is left out: it cannot be read"),
        (Cover(b"GIF89a", "image/gif"), "the cover is left out: image/gif is not supported"),
        (Cover(b"<svg/>", "image/svg+xml"), "the cover is left out: image/svg+xml is not supported"),
    ],
)
@pytest.mark.parametrize("name", ["m4b", "opus"])
def test_unusable_cover_is_left_out(name: str, cover: Cover, warning: str, tmp_path: Path) -> None:
    path = tmp_path / f"book.{name}"
    body, warnings = write_all_tags(encode_file(name), name, TAGS._replace(cover=cover))
    path.write_bytes(body)

    assert warnings == (warning,)
    assert len(probe(path)["chapters"]) == 3


@pytest.mark.parametrize("name", ["pcm", "ulaw", "alaw", "aac", "webm"])
def test_format_without_tags_is_refused(name: str) -> None:
    assert not supports_tags(name)
    assert not supports_chapters(name)
    with pytest.raises(ValueError, match="has no tags"):
        write_tags(io.BytesIO(), io.BytesIO(), name, TAGS)


@pytest.mark.parametrize("body", [b"", b"not audio at all" * 100], ids=["empty", "text"])
def test_source_that_is_not_audio_is_an_error(body: bytes) -> None:
    with pytest.raises(RecordingError):
        write_all_tags(body, "mp3", TAGS)


class FullDisk(io.BytesIO):
    def __init__(self, free_bytes: int) -> None:
        super().__init__()
        self.free_bytes = free_bytes

    def write(self, block: Any) -> int:
        if self.tell() + len(block) > self.free_bytes:
            raise OSError(errno.ENOSPC, "no space left on device")
        return super().write(block)


@pytest.mark.parametrize("name", TAGGED_FORMATS)
def test_full_disk_is_reported(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    body = BODIES[name]
    size_bytes = len(write_all_tags(body, name, TAGS)[0])

    for free_bytes in range(0, size_bytes, size_bytes // 7):
        with pytest.raises(OSError) as caught:
            for _ in write_tags(io.BytesIO(body), FullDisk(free_bytes), name, TAGS):
                pass
        assert caught.value.errno == errno.ENOSPC
    assert capfd.readouterr() == ("", "")


def test_path_is_created_complete_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "plain.mp3", tmp_path / "tagged.mp3"
    source.write_bytes(encode_file("mp3"))
    monkeypatch.setattr("audiocli.codecs.tags.MAX_STEP_S", 0.0)  # a step for every packet

    writing = write_tags(source, target, "mp3", TAGS)
    assert next(writing) > 0
    assert target.exists()
    writing.close()
    assert not target.exists()

    for _ in write_tags(source, target, "mp3", TAGS):
        pass
    assert decode(target) == decode(source)


@pytest.mark.parametrize("name", TAGGED_FORMATS)
def test_audio_is_written_while_it_is_copied(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cover must not make FFmpeg hold a book in memory. It holds ten seconds at most."""
    monkeypatch.setattr("audiocli.codecs.tags.MAX_STEP_S", 0.0)
    body, target = encode_file(name, SPEECH * 15), io.BytesIO()
    cover = Cover(make_picture("image/png"), "image/png")

    sizes = [len(target.getvalue()) for _ in write_tags(io.BytesIO(body), target, name, TAGS._replace(cover=cover))]

    assert len(sizes) > 20
    assert sizes[len(sizes) * 3 // 4] > len(body) // 2


KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
import audiocli.codecs.tags as tags
from audiocli.audio.tags import AudioTags
tags.MAX_STEP_S = 0.0
source, part, target = map(Path, sys.argv[1:])
for index, _ in enumerate(tags.write_tags(source, part, "m4b", AudioTags("Title"))):
    if index == 20:
        os.kill(os.getpid(), signal.SIGKILL)
part.rename(target)
"""


def test_killed_writer_leaves_no_target(tmp_path: Path) -> None:
    source, part, target = tmp_path / "plain.m4b", tmp_path / ".part", tmp_path / "tagged.m4b"
    source.write_bytes(encode_file("m4b"))
    before = source.read_bytes()

    process = subprocess.run([sys.executable, "-c", KILLED_WRITER, source, part, target], check=False)

    assert process.returncode == -9
    assert not target.exists()
    assert source.read_bytes() == before


def test_output_that_cannot_be_muxed_is_an_error() -> None:
    with pytest.raises(OutputError, match="cannot write the tags of flac"):
        write_all_tags(encode_file("mp3"), "flac", TAGS)


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("Two\r\n\tlines\x00", "Two lines"),
        ("lone \ud800 surrogate", "lone ? surrogate"),
        ("family 👨‍👩‍👧", "family 👨‍👩‍👧"),
        ("x" * 600, "x" * 500),
        ("  ", ""),
    ],
)
def test_tag_is_one_line(value: str, line: str) -> None:
    assert clean_tag(value) == line


def test_chapter_comments_have_hours() -> None:
    comments = build_chapter_comments([ChapterMark("Last", 36_061.5, 40_000.0)])

    assert comments == {"CHAPTER000": "10:01:01.500", "CHAPTER000NAME": "Last"}


def test_chapters_are_scaled() -> None:
    assert scale_chapters([ChapterMark("A", 1.0, 3.0)], 0.5) == (ChapterMark("A", 0.5, 1.5),)


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("de", "deu"),
        ("de-AT", "deu"),
        ("pt_BR", "por"),
        ("EN", "eng"),
        ("German", "deu"),
        ("yue", "yue"),
        ("zh-Hans-CN", "zho"),
        ("jw", "jav"),
        ("", None),
        ("x", None),
        ("no such language", None),
    ],
)
def test_language_becomes_three_letters(language: str, code: str | None) -> None:
    assert convert_to_iso_639_2(language) == code
