"""Test copies of videos with captions. FFmpeg and PyAV read them."""

from __future__ import annotations

import re
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from audiocli.mock import KEYS, MockTranscript
from tests.conftest import CommandLine
from tests.gateway_contract import SPEECH
from tests.recordings import Container, encode_recording
from tests.requirements import require_program

OPENAI = ("-m", "openai:whisper-1")
SEGMENTS = [("First <b>line</b> & more.", 0.5, 1.2), ("{\\an8} Zweite Zeile: äöü 漢字 🎧.", 3.0, 4.5)]
VIDEOS = {
    "film.mp4": Container("mp4", "aac", has_video=True),
    "film.m4v": Container("mp4", "aac", has_video=True),
    "film.mov": Container("mov", "aac", has_video=True),
    "film.mkv": Container("matroska", "aac", has_video=True),
    "film.avi": Container("avi", "libmp3lame", has_video=True),
    "film.ts": Container("mpegts", "aac", has_video=True),
    "late.mp4": Container("mp4", "aac", start_s=1.5, has_video=True),
}


@pytest.fixture
def cli(audiocli: CommandLine) -> CommandLine:
    audiocli.variables["OPENAI_API_KEY"] = KEYS["openai"]
    text = " ".join(text for text, _, _ in SEGMENTS)
    audiocli.gateway.set_transcript(MockTranscript(text, segments=SEGMENTS, language="german", language_code="de"))
    return audiocli


def write_video(directory: Path, name: str) -> Path:
    path = directory / "films" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(encode_recording(VIDEOS[name], 6.0))
    return path


def read_captions(path: Path) -> list[tuple[float, float, str]]:
    """Return start, end and text of the captions of the last caption track."""
    cues = []
    with av.open(str(path)) as container:
        stream = container.streams.subtitles[-1]
        for packet in container.demux(stream):
            if not packet.size:
                continue
            content = bytes(packet)
            if stream.codec_context.name == "mov_text":
                content = content[2 : 2 + int.from_bytes(content[:2], "big")]
                if not content:
                    continue
            start = float(packet.pts * packet.time_base)
            cues.append((start, start + float(packet.duration * packet.time_base), content.decode()))
    return cues


def list_packets(path: Path, kind: str) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(getattr(container.streams, kind)[0]) if packet.size]


@pytest.mark.parametrize("name", VIDEOS)
def test_copy_has_the_video_the_audio_and_the_captions(cli: CommandLine, tmp_path: Path, name: str) -> None:
    video = write_video(tmp_path, name)
    before = video.read_bytes()

    result = cli("transcribe", video, *OPENAI, "--embed-captions")

    assert result.code == 0, result.err
    [copy] = [path for path in video.parent.iterdir() if path != video]
    stem, extension = name.split(".")
    assert copy.name == f"{stem}.captioned.{ {'mp4': 'mp4', 'm4v': 'mp4', 'mov': 'mov'}.get(extension, 'mkv') }"
    assert video.read_bytes() == before
    assert list_packets(copy, "video") == list_packets(video, "video")
    assert len(list_packets(copy, "audio")) == len(list_packets(video, "audio"))
    cues = read_captions(copy)
    texts = [re.sub("\u2060", "", text).replace("\n", " ") for _, _, text in cues]
    assert texts == [text for text, _, _ in SEGMENTS]
    with av.open(str(copy)) as container:
        origin_s = (container.start_time or 0) / 1_000_000
        assert container.streams.subtitles[-1].language in ("deu", "ger")
    assert [round(start - origin_s, 2) for start, _, _ in cues] == pytest.approx([0.5, 3.0], abs=0.03)


@pytest.mark.parametrize("name", ["film.mp4", "film.mov", "film.mkv"])
def test_ffmpeg_reads_the_captions(cli: CommandLine, tmp_path: Path, name: str) -> None:
    program = require_program("ffmpeg")
    video = write_video(tmp_path, name)
    cli("transcribe", video, *OPENAI, "--embed-captions")
    copy = video.with_name(name.replace(".", ".captioned."))

    ran = subprocess.run(
        [program, "-v", "error", "-i", str(copy), "-map", "0:s:0", "-f", "srt", "-"], capture_output=True, check=True
    )

    text = ran.stdout.decode()
    # A cue stays as long as its text takes to read.
    assert "00:00:00,500 --> 00:00:01,971" in text and "00:00:03,000 --> 00:00:04,941" in text
    assert "äöü" in text and not ran.stderr


def test_copy_and_captions_are_up_to_date(cli: CommandLine, tmp_path: Path) -> None:
    video = write_video(tmp_path, "film.mp4")
    write_video(tmp_path, "film.mkv").rename(video.with_name("other.mkv"))
    argv = ("transcribe", video.parent, *OPENAI, "--embed-captions", "-f", "srt")

    first, again = cli(*argv), cli(*argv)
    shorter = cli(*argv, "--max-line-width", "12")
    plain = cli("transcribe", video.parent, *OPENAI, "-f", "srt")

    names = ["film.captioned.mp4", "film.mp4", "film.srt", "other.captioned.mkv", "other.mkv", "other.srt"]
    assert first.code == 0, first.err
    assert sorted(path.name for path in video.parent.iterdir()) == names
    assert [len(result.posts) for result in (first, again, shorter, plain)] == [2, 0, 0, 0]
    assert "2 unchanged" in again.err or again.code == 0
    assert len(read_captions(video.with_name("film.captioned.mp4"))) > len(SEGMENTS)


def test_own_file_with_the_name_is_left_unchanged(cli: CommandLine, tmp_path: Path) -> None:
    video = write_video(tmp_path, "film.mp4")
    theirs = video.with_name("film.captioned.mp4")
    theirs.write_bytes(b"mine")

    single = cli("transcribe", video, *OPENAI, "--embed-captions")
    batch = cli("transcribe", video.parent, *OPENAI, "--embed-captions")

    assert theirs.read_bytes() == b"mine"
    assert not (*single.posts, *batch.posts)
    assert "--force" in single.err


def test_recording_without_video_is_refused_before_it_is_sent(cli: CommandLine, tmp_path: Path) -> None:
    audio = tmp_path / "talk.wav"
    audio.write_bytes(SPEECH)
    fake = tmp_path / "talk.mp4"
    fake.write_bytes(encode_recording(Container("mp4", "aac"), 2.0))

    results = [cli("transcribe", path, *OPENAI, "--embed-captions") for path in (audio, fake)]
    batch = cli("transcribe", audio, audio, *OPENAI, "--embed-captions")

    assert [result.code for result in (*results, batch)] == [2, 2, 2]
    assert not any(result.posts for result in (*results, batch))


def test_audio_in_a_batch_gets_the_other_formats(cli: CommandLine, tmp_path: Path) -> None:
    video = write_video(tmp_path, "film.mp4")
    video.with_name("talk.wav").write_bytes(SPEECH)

    result = cli("transcribe", video.parent, *OPENAI, "--embed-captions", "-f", "txt")

    assert result.code == 0, result.err
    names = sorted(path.name for path in video.parent.iterdir())
    assert names == ["film.captioned.mp4", "film.mp4", "film.txt", "talk.txt", "talk.wav"]


@pytest.mark.parametrize("options", [["-o", "x.mp4"], ["--background"], ["--timestamps", "none"]])
def test_contradictory_options_are_refused(cli: CommandLine, tmp_path: Path, options: list[str]) -> None:
    video = write_video(tmp_path, "film.mp4")

    result = cli("transcribe", video, *OPENAI, "--embed-captions", *options)

    assert result.code == 2, result.err
    assert options[0] in result.err and "--embed-captions" in result.err
    assert not result.posts


def test_chapters_tags_and_captions_of_the_video_are_copied(cli: CommandLine, tmp_path: Path) -> None:
    plain = write_video(tmp_path, "film.mkv")
    video = plain.with_name("rich.mkv")
    with av.open(str(plain)) as source, av.open(str(video), "w") as output:
        output.metadata["title"] = "A film"
        output.set_chapters(
            [{"id": 1, "start": 0, "end": 2_000, "time_base": Fraction(1, 1000), "metadata": {"title": "One"}}]
        )
        copies: dict[int, Any] = {stream.index: output.add_stream_from_template(stream) for stream in source.streams}
        captions = output.add_mux_stream("subrip", time_base=Fraction(1, 1000))
        captions.metadata["language"] = "eng"
        packet = av.Packet(b"Old caption")
        packet.pts = packet.dts = 0
        packet.duration, packet.time_base, packet.stream = 1_000, Fraction(1, 1000), captions
        output.mux(packet)
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = copies[packet.stream.index]
                output.mux(packet)

    result = cli("transcribe", video, *OPENAI, "--embed-captions")

    assert result.code == 0, result.err
    with av.open(str(video.with_name("rich.captioned.mkv"))) as container:
        assert container.metadata["title"] == "A film"
        assert [chapter["metadata"]["title"] for chapter in container.chapters()] == ["One"]
        assert [stream.language for stream in container.streams.subtitles] == ["eng", "ger"]


def test_template_and_directory_apply_to_the_copy(cli: CommandLine, tmp_path: Path) -> None:
    video = write_video(tmp_path, "film.mp4")

    result = cli("transcribe", video, *OPENAI, "--embed-captions", "--media-server", "-O", tmp_path / "out")

    assert result.code == 0, result.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["film.de.captioned.mp4"]
