"""Processing and tags between received audio and an output, telephone audio and audiobooks."""

from __future__ import annotations

import array
import asyncio
import hashlib
import io
import itertools
import math
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import pytest

from audiocli.audio.processing import Processing
from audiocli.audio.speech_detector import SAMPLE_RATE_HZ
from audiocli.audio.tags import AudioTags, ChapterMark
from audiocli.codecs.encoder import Encoder
from audiocli.codecs.processing import LoudnessMeter
from audiocli.core.audio_pipeline import AudioOutput, AudioPipeline, WrittenAudio, can_tag
from audiocli.core.speech import SpeechTask, plan_format
from audiocli.gateways.openai import SIX_FORMATS
from audiocli.outputs import FileOutput, MultiOutput, StreamOutput
from audiocli.types.audio import PcmFormat
from audiocli.types.requests import SpeechRequest
from audiocli.types.routes import Route
from tests.conftest import CommandLine
from tests.signals import make_speech, to_samples
from tests.small_server import Answer, serve

PCM = PcmFormat(SAMPLE_RATE_HZ, 1)
SPEECH = to_samples(make_speech(seconds=4.0))
TAGS = AudioTags("Title", "Author", chapters=(ChapterMark("One", 0.0, 1.0), ChapterMark("Two", 1.0, 2.0)))


def encode_speech(name: str) -> bytes:
    file = io.BytesIO()
    with Encoder(name, PCM, file) as encoder:
        encoder.feed(SPEECH)
        encoder.finish()
    return file.getvalue()


async def run_pipeline(output: AudioOutput, source_format: str, body: bytes) -> WrittenAudio:
    pipeline = AudioPipeline(output, source_format=source_format, pcm=PCM)
    try:
        await pipeline.begin()
        for start in range(0, len(body), 9_999):
            await pipeline.feed(body[start : start + 9_999])
        return await pipeline.finish()
    finally:
        pipeline.close()


def write_file(path: Path, source_format: str, body: bytes, **fields: Any) -> WrittenAudio:
    """Write a file through the pipeline, as commands do."""

    async def run() -> WrittenAudio:
        writer = FileOutput(path, rescue_directory=path.parent / "rescue")
        written = await run_pipeline(AudioOutput(writer, **fields), source_format, body)
        await writer.commit()
        return written

    return asyncio.run(run())


def write_stream(source_format: str, body: bytes, **fields: Any) -> tuple[bytes, WrittenAudio]:
    """Write to a stream, which cannot seek."""
    stream = io.BytesIO()
    writer = StreamOutput(stream, "stdout", rescue_directory=Path("/nonexistent"))
    written = asyncio.run(run_pipeline(AudioOutput(writer, **fields), source_format, body))
    return stream.getvalue(), written


def decode(source: Path | bytes, format: str | None = None) -> tuple[bytes, PcmFormat]:
    """Return the samples of a file as PyAV decodes them."""
    options = {"sample_rate": "8000", "ch_layout": "mono"} if format in ("mulaw", "alaw") else {}
    file = io.BytesIO(source if isinstance(source, bytes) else source.read_bytes())
    with av.open(file, format=format, container_options=options) as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="s16", layout=stream.layout.name, rate=stream.rate)
        frames: list[Any] = [*container.decode(stream), None]
        samples = b"".join(
            bytes(resampled.planes[0])[: resampled.samples * 2 * stream.channels]
            for frame in frames
            for resampled in resampler.resample(frame)
            if resampled is not None
        )
        return samples, PcmFormat(stream.rate, stream.channels)


def measure_lufs(samples: bytes, pcm: PcmFormat) -> float | None:
    meter = LoudnessMeter(pcm)
    meter.feed(samples)
    return meter.finish().integrated_lufs


def read_chapters(path: Path) -> list[tuple[str, float]]:
    with av.open(str(path)) as container:
        return [
            (chapter["metadata"]["title"], float(chapter["start"] * chapter["time_base"]))
            for chapter in container.chapters()
        ]


# --- processing -------------------------------------------------------------------------------------------------------

PROCESSING = Processing(sample_rate_hz=16_000, tempo=1.25, loudness_lufs=-23.0)


@pytest.mark.parametrize("name", ["mp3", "wav", "flac", "opus", "aac", "m4a", "m4b"])
@pytest.mark.parametrize("source_format", ["pcm", "mp3", "opus", "wav"])
def test_file_is_processed(name: str, source_format: str, tmp_path: Path) -> None:
    path = tmp_path / f"speech.{name}"
    body = SPEECH if source_format == "pcm" else encode_speech(source_format)

    written = write_file(path, source_format, body, format=name, processing=PROCESSING)

    samples, pcm = decode(path)
    assert written.format == name
    assert written.duration_s == pytest.approx(3.2, abs=0.01)
    assert len(samples) / pcm.bytes_per_second == pytest.approx(3.2, abs=0.15)
    assert pcm.sample_rate_hz == (48_000 if name == "opus" else 16_000)
    assert measure_lufs(samples, pcm) == pytest.approx(-23.0, abs=1.0)
    assert written.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert written.size_bytes == path.stat().st_size
    assert written.warnings == ()


@pytest.mark.parametrize("name", ["mp3", "wav", "pcm", "opus", "m4a", "ulaw"])
def test_pipe_is_processed(name: str) -> None:
    body, written = write_stream("pcm", SPEECH, format=name, processing=PROCESSING._replace(sample_rate_hz=None))

    samples, pcm = (body, PCM) if name == "pcm" else decode(body, "mulaw" if name == "ulaw" else None)
    assert written.duration_s == pytest.approx(3.2, abs=0.01)
    assert len(samples) / pcm.bytes_per_second == pytest.approx(3.2, abs=0.2)
    assert measure_lufs(samples, pcm) == pytest.approx(-23.0, abs=1.0)


def test_loudness_is_written_at_the_end_and_tempo_immediately() -> None:
    async def count_bytes(processing: Processing) -> int:
        stream = io.BytesIO()
        writer = StreamOutput(stream, "stdout", rescue_directory=Path("/nonexistent"))
        pipeline = AudioPipeline(AudioOutput(writer, "pcm", processing=processing), source_format="pcm", pcm=PCM)
        await pipeline.begin()
        await pipeline.feed(SPEECH)
        written_bytes = len(stream.getvalue())
        pipeline.close()
        return written_bytes

    assert asyncio.run(count_bytes(Processing(loudness_lufs=-16.0))) == 0
    assert asyncio.run(count_bytes(Processing(tempo=2.0))) > len(SPEECH) // 2 - 0.3 * PCM.bytes_per_second


@pytest.mark.parametrize("source_format", ["pcm", "mp3", "ogg", "ulaw"])
def test_audio_without_a_format_becomes_wav_when_it_is_processed(source_format: str) -> None:
    body = SPEECH if source_format == "pcm" else encode_speech(source_format)

    audio, written = write_stream(source_format, body, format=None, processing=Processing(tempo=2.0))

    assert written.format == "wav"
    assert len(decode(audio)[0]) / PcmFormat(decode(audio)[1].sample_rate_hz).bytes_per_second == pytest.approx(
        2.0, abs=0.1
    )


def test_processing_without_effect_passes_audio_through() -> None:
    body = encode_speech("mp3")

    assert write_stream("mp3", body, format="mp3", processing=Processing(tempo=1.0))[0] == body
    assert write_stream("mp3", body, format="mp3", processing=Processing())[1].duration_s is None


def test_empty_audio_is_processed() -> None:
    audio, written = write_stream("pcm", b"", format="wav", processing=PROCESSING)

    assert len(audio) == 44
    assert written.duration_s == 0.0


@contextmanager
def limit_file_size(size_bytes: int) -> Iterator[None]:
    """Let writes beyond this size fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size_bytes", [0, 20_000, len(SPEECH) - 1])
def test_full_disk_leaves_the_loudness_unchanged(size_bytes: int, tmp_path: Path) -> None:
    with limit_file_size(size_bytes):
        audio, written = write_stream(
            "pcm", SPEECH, format="pcm", processing=Processing(loudness_lufs=-23.0), scratch_directory=tmp_path
        )

    assert audio == SPEECH
    assert written.warnings == ("the loudness is unchanged: cannot buffer the audio: File too large",)


def test_missing_scratch_directory_leaves_the_loudness_unchanged(tmp_path: Path) -> None:
    (tmp_path / "scratch").write_text("a file")

    audio, written = write_stream(
        "pcm", SPEECH, format="pcm", processing=Processing(loudness_lufs=-23.0), scratch_directory=tmp_path / "scratch"
    )

    assert audio == SPEECH
    assert written.warnings == ("the loudness is unchanged: cannot buffer the audio: File exists",)


@pytest.mark.parametrize(
    ("samples", "target_lufs", "warning"),
    [
        (bytes(16_000), -16.0, "the loudness is unchanged: there is too little audio to measure it"),
        (SPEECH, -5.0, "-5 is not possible without distortion"),
    ],
    ids=["silence", "too loud"],
)
def test_loudness_that_is_not_reached_is_a_warning(samples: bytes, target_lufs: float, warning: str) -> None:
    _, written = write_stream("pcm", samples, format="wav", processing=Processing(loudness_lufs=target_lufs))

    assert len(written.warnings) == 1
    assert warning in written.warnings[0]


def test_processed_speech_is_requested_without_loss(tmp_path: Path) -> None:
    """An mp3 of the gateway would be encoded a second time."""
    route = Route("openai", "openai", "https://api.openai.com/v1/", "tts-1")
    request = SpeechRequest("hi", "alloy", "mp3")
    writer = FileOutput(tmp_path / "x.mp3", rescue_directory=tmp_path)
    tasks = [
        SpeechTask(request, (AudioOutput(writer, "mp3", processing=processing),), MultiOutput((writer,)))
        for processing in (None, Processing(), Processing(tempo=1.2))
    ]
    writer.discard()

    assert "mp3" in SIX_FORMATS
    assert [task.is_processed for task in tasks] == [False, False, True]
    plans = [plan_format("mp3", route, needs_samples=False, is_processed=task.is_processed) for task in tasks]
    assert [plan.request_format for plan in plans] == ["mp3", "mp3", "pcm"]
    assert plans[2].step.name == "ENCODE"


# --- tags -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mp3", "flac", "opus", "ogg", "m4a", "m4b"])
@pytest.mark.parametrize("source_format", ["pcm", "mp3"])
def test_file_gets_tags(name: str, source_format: str, tmp_path: Path) -> None:
    plain, tagged = tmp_path / f"plain.{name}", tmp_path / f"tagged.{name}"
    body = SPEECH if source_format == "pcm" else encode_speech(source_format)
    write_file(plain, source_format, body, format=name)

    written = write_file(tagged, source_format, body, format=name, tags=lambda: TAGS, scratch_directory=tmp_path / "s")

    assert read_chapters(tagged) == [("One", 0.0), ("Two", 1.0)]
    assert decode(tagged) == decode(plain)
    assert written.sha256 == hashlib.sha256(tagged.read_bytes()).hexdigest()
    assert written.size_bytes == tagged.stat().st_size
    assert written.warnings == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["s", plain.name, tagged.name])


def test_tags_are_made_when_the_audio_is_complete(tmp_path: Path) -> None:
    """Chapters are known only then."""
    path, chapters = tmp_path / "book.m4b", []

    async def run() -> None:
        writer = FileOutput(path, rescue_directory=tmp_path)
        output = AudioOutput(writer, "m4b", tags=lambda: AudioTags("Book", chapters=tuple(chapters)))
        pipeline = AudioPipeline(output, source_format="pcm", pcm=PCM)
        await pipeline.begin()
        for index in range(4):
            await pipeline.feed(SPEECH[: PCM.bytes_per_second])
            chapters.append(ChapterMark(f"Chapter {index}", float(index), index + 1.0))
        await pipeline.finish()
        pipeline.close()
        await writer.commit()

    asyncio.run(run())

    assert read_chapters(path) == [(f"Chapter {index}", float(index)) for index in range(4)]


def test_tags_of_wav_have_a_warning_about_chapters(tmp_path: Path) -> None:
    path = tmp_path / "book.wav"

    written = write_file(path, "pcm", SPEECH, format="wav", tags=lambda: TAGS)

    with av.open(str(path)) as container:
        assert container.metadata["title"] == "Title"
    assert decode(path)[0] == SPEECH
    assert written.warnings == ("wav files have no chapters",)


@pytest.mark.parametrize("name", ["pcm", "aac", "ulaw"])
def test_format_without_tags_is_written_without_them(name: str, tmp_path: Path) -> None:
    plain, tagged = tmp_path / "plain", tmp_path / "tagged"
    write_file(plain, "pcm", SPEECH, format=name)

    written = write_file(tagged, "pcm", SPEECH, format=name, tags=lambda: TAGS)

    assert tagged.read_bytes() == plain.read_bytes()
    assert written.warnings == ()


def test_pipe_is_written_without_tags() -> None:
    assert (
        write_stream("pcm", SPEECH, format="mp3", tags=lambda: TAGS)[0] == write_stream("pcm", SPEECH, format="mp3")[0]
    )


def test_outputs_that_can_have_tags_are_known_before(tmp_path: Path) -> None:
    file = FileOutput(tmp_path / "x", rescue_directory=tmp_path)
    pipe = StreamOutput(io.BytesIO(), "stdout", rescue_directory=tmp_path)

    assert [can_tag(AudioOutput(file, name)) for name in ("m4b", "mp3", "wav", "pcm", "aac", None)] == [
        *(True, True, True, False, False, False)
    ]
    assert not can_tag(AudioOutput(pipe, "mp3"))
    file.discard()


@pytest.mark.parametrize("size_bytes", [100, 5_000])
def test_full_disk_leaves_a_complete_file_without_tags(size_bytes: int, tmp_path: Path) -> None:
    plain, tagged = tmp_path / "plain.mp3", tmp_path / "tagged.mp3"
    write_file(plain, "pcm", SPEECH, format="mp3")
    tags = TAGS._replace(title="T" * 400)

    async def run() -> WrittenAudio:
        writer = FileOutput(tagged, rescue_directory=tmp_path / "rescue")
        output = AudioOutput(writer, "mp3", tags=lambda: tags, scratch_directory=tmp_path / "scratch")
        pipeline = AudioPipeline(output, source_format="pcm", pcm=PCM)
        await pipeline.begin()
        await pipeline.feed(SPEECH)
        assert pipeline._stage is not None
        await pipeline._stage.finish()
        with limit_file_size(size_bytes):
            await pipeline._write_tags(tags)
        pipeline.close()
        await writer.commit()
        return WrittenAudio("mp3", 0, "", None, tuple(pipeline._warnings))

    written = asyncio.run(run())

    assert tagged.read_bytes() == plain.read_bytes()
    assert written.warnings == ("the tags were not written: File too large",)


def test_processed_and_tagged_book_has_scaled_chapters(tmp_path: Path) -> None:
    path, processing = tmp_path / "book.m4b", Processing(tempo=2.0, loudness_lufs=-20.0)
    chapters = tuple(ChapterMark(title, start_s * processing.scale, 2.0) for title, start_s in (("A", 0.0), ("B", 3.0)))

    written = write_file(
        path, "pcm", SPEECH, format="m4b", processing=processing, tags=lambda: AudioTags("Book", chapters=chapters)
    )

    assert read_chapters(path) == [("A", 0.0), ("B", 1.5)]
    assert written.duration_s == pytest.approx(2.0, abs=0.001)
    assert len(decode(path)[0]) / PCM.bytes_per_second == pytest.approx(2.0, abs=0.13)


# --- formats from the command line ------------------------------------------------------------------------------------


def measure_frequency_hz(samples: bytes, rate_hz: int) -> float:
    values = array.array("h", samples)
    return sum((a < 0) != (b < 0) for a, b in itertools.pairwise(values)) / 2 / (len(values) / rate_hz)


@pytest.mark.parametrize(
    ("extension", "demuxer"), [("ulaw", "mulaw"), ("ul", "mulaw"), ("alaw", "alaw"), ("al", "alaw")]
)
def test_telephone_audio_is_8000_hz_mono(audiocli: CommandLine, tmp_path: Path, extension: str, demuxer: str) -> None:
    path, reference = tmp_path / f"greeting.{extension}", tmp_path / "greeting.wav"
    assert audiocli("speak", "Press one for sales.", "-o", reference).code == 0

    result = audiocli("speak", "Press one for sales.", "-o", path, "--json")

    samples, _ = decode(path, demuxer)
    expected, pcm = decode(reference)
    assert result.code == 0
    assert result.json["format"] == {"mulaw": "ulaw", "alaw": "alaw"}[demuxer]
    assert path.stat().st_size / 8_000 == pytest.approx(len(expected) / pcm.bytes_per_second, abs=0.01)
    assert measure_frequency_hz(samples, 8_000) == pytest.approx(
        measure_frequency_hz(expected, pcm.sample_rate_hz), rel=0.05
    )


@pytest.mark.parametrize("name", ["ulaw", "alaw", "m4b"])
def test_new_formats_are_written_to_a_pipe(audiocli: CommandLine, name: str) -> None:
    result = audiocli("speak", "Press one for sales.", "-o", "-", "-f", name)

    assert result.code == 0
    if name == "m4b":
        assert result.out[4:12] == b"ftypM4B "
    else:
        assert len(result.out) > 4_000


def test_audiobook_has_its_brand(audiocli: CommandLine, tmp_path: Path) -> None:
    result = audiocli("speak", "Once upon a time.", "-o", tmp_path / "book.m4b", "--json")

    assert result.json["format"] == "m4b"
    assert (tmp_path / "book.m4b").read_bytes()[4:12] == b"ftypM4B "
    assert audiocli("transcribe", tmp_path / "book.m4b").code == 0


@pytest.mark.parametrize("content_type", ["audio/basic", "audio/PCMU", "audio/wave", "application/octet-stream"])
def test_telephone_audio_of_a_server_is_passed_through(
    audiocli: CommandLine, tmp_path: Path, content_type: str
) -> None:
    body = encode_telephone_tone()
    with serve(lambda request: Answer(200, body, (("Content-Type", content_type),))) as server:
        audiocli.write_config(
            f'[gateways.pbx]\ndialect = "openai"\nbase_url = "{server.url}"\nspeech_formats = ["ulaw", "mp3"]\n'
        )
        result = audiocli("speak", "hi", "-g", "pbx", "-m", "voice", "-o", tmp_path / "x.ulaw", "--json")
        converted = audiocli("speak", "hi", "-g", "pbx", "-m", "voice", "-f", "ulaw", "-o", tmp_path / "y.ulaw")

    assert (result.code, converted.code) == (0, 0)
    assert server.posts[0].json["response_format"] == "ulaw"
    assert (tmp_path / "x.ulaw").read_bytes() == body
    assert result.json["duration_s"] == pytest.approx(len(body) / 8_000, abs=0.001)


def encode_telephone_tone() -> bytes:
    tone = array.array("h", (int(9_000 * math.sin(i * 0.3)) for i in range(8_000))).tobytes()
    with Encoder("ulaw", PcmFormat(8_000)) as encoder:
        return encoder.feed(tone) + encoder.finish()


@pytest.mark.parametrize("body", [b'{"error": {"message": "no credit"}}', b"<html>Bad gateway</html>"])
def test_text_in_place_of_telephone_audio_is_an_error(audiocli: CommandLine, tmp_path: Path, body: bytes) -> None:
    with serve(lambda request: Answer(200, body, (("Content-Type", "audio/basic"),))) as server:
        audiocli.write_config(
            f'[gateways.pbx]\ndialect = "openai"\nbase_url = "{server.url}"\nspeech_formats = ["ulaw"]\n'
        )
        result = audiocli("speak", "hi", "-g", "pbx", "-m", "voice", "-o", tmp_path / "x.ulaw")

    assert result.code != 0
    assert not (tmp_path / "x.ulaw").exists()
