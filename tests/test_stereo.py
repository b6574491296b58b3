"""Stereo whose channels cancel out when they are mixed, and recordings that are too short for gateways."""

from __future__ import annotations

import io
import math
from array import array
from pathlib import Path
from typing import Any

import av
import pytest

from audiocli.audio.stereo import CancellationDetector, find_wav_cancellation
from audiocli.audio.wav import build_wav_header
from audiocli.codecs.convert import PcmReader
from audiocli.mock import KEYS, Status
from audiocli.types.audio import PcmFormat
from tests.conftest import CommandLine, Result

RATE_HZ = 16_000
STEREO = PcmFormat(RATE_HZ, 2)
LEVEL = 9_000
PHASE_WARNING = "inverted phase"


def make_channel(seconds: float, hz: float = 300.0) -> list[int]:
    step = 2 * math.pi * hz / RATE_HZ
    return [
        round(LEVEL * math.sin(step * index) * math.sin(step * index / 120)) for index in range(int(seconds * RATE_HZ))
    ]


def interleave(left: list[int], right: list[int]) -> bytes:
    return array("h", (value for pair in zip(left, right, strict=True) for value in pair)).tobytes()


def make_stereo(seconds: float, *, inverted_s: float | None = None, gain: float = 1.0) -> bytes:
    """Return stereo whose last `inverted_s` seconds have inverted phase in the right channel, by default all."""
    left = make_channel(seconds)
    first = len(left) - int((seconds if inverted_s is None else inverted_s) * RATE_HZ)
    return interleave(left, [value if index < first else round(-gain * value) for index, value in enumerate(left)])


def write_recording(path: Path, samples: bytes, channels: int = 2) -> Path:
    """Write s16 samples in the format of the file name."""
    if path.suffix == ".wav":
        path.write_bytes(build_wav_header(PcmFormat(RATE_HZ, channels), len(samples)) + samples)
        return path
    codec = {".flac": "flac", ".mp3": "libmp3lame", ".ogg": "libopus", ".m4a": "aac"}[path.suffix]
    layout = "stereo" if channels == 2 else "mono"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=RATE_HZ, layout=layout)
        stream.codec_context.open()
        frame = av.AudioFrame(format="s16", layout=layout, samples=len(samples) // 2 // channels, align=1)
        frame.planes[0].update(samples)
        frame.sample_rate = RATE_HZ
        resampler = av.AudioResampler(
            format=stream.codec_context.format.name,
            layout=layout,
            rate=RATE_HZ,
            frame_size=stream.codec_context.frame_size or 1_024,
        )
        for part in (frame, None):
            for resampled in resampler.resample(part):
                container.mux(stream.encode(resampled))
        container.mux(stream.encode(None))
    return path


def measure_mix(content: bytes) -> list[float]:
    """Return the mean level of each second of audio, mixed into one channel as a gateway does it."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE_HZ)
    values = array("h")
    with av.open(io.BytesIO(content)) as container:
        for frame in [*container.decode(audio=0), None]:
            for mixed in resampler.resample(frame):
                values.frombytes(bytes(mixed.planes[0])[: 2 * mixed.samples])
    seconds = range(0, len(values) - RATE_HZ // 2, RATE_HZ)
    return [sum(map(abs, values[start : start + RATE_HZ])) / len(values[start : start + RATE_HZ]) for start in seconds]


def transcribe(audiocli: CommandLine, path: Path, *options: str, model: str = "openai:gpt-4o-transcribe") -> Result:
    return audiocli("transcribe", path, "-m", model, "--json", *options, variables={"OPENAI_API_KEY": KEYS["openai"]})


def get_sent_audio(r: Result) -> list[bytes]:
    assert r.code == 0, r.err
    return [request.audio or b"" for request in r.posts]


def get_phase_warnings(r: Result) -> list[str]:
    return [warning for warning in r.json["warnings"] if PHASE_WARNING in warning]


@pytest.mark.parametrize("extension", ["wav", "flac", "mp3", "ogg", "m4a"])
@pytest.mark.parametrize("model", ["openai:gpt-4o-transcribe", "openrouter:openai/whisper-large-v3"])
def test_inverted_phase_is_not_sent_as_silence(audiocli: CommandLine, extension: str, model: str) -> None:
    path = write_recording(audiocli.directory / f"talk.{extension}", make_stereo(3))

    r = transcribe(audiocli, path, model=model)

    [audio] = get_sent_audio(r)
    assert min(measure_mix(audio)) > LEVEL / 4
    assert get_phase_warnings(r) == ["the channels cancel out when mixed (inverted phase); only one of them is used"]


@pytest.mark.parametrize("gain", [0.9, 1.1])
def test_nearly_inverted_phase_is_not_sent_as_silence(audiocli: CommandLine, gain: float) -> None:
    path = write_recording(audiocli.directory / "talk.wav", make_stereo(3, gain=gain))

    r = transcribe(audiocli, path)

    assert min(measure_mix(*get_sent_audio(r))) > LEVEL / 4
    assert get_phase_warnings(r)


@pytest.mark.parametrize("inverted_s", [2, 5])
def test_partly_inverted_phase_is_not_sent_as_silence(audiocli: CommandLine, inverted_s: float) -> None:
    path = write_recording(audiocli.directory / "talk.wav", make_stereo(12, inverted_s=inverted_s))

    r = transcribe(audiocli, path)

    levels = measure_mix(*get_sent_audio(r))
    assert min(levels) > LEVEL / 4 and max(levels) < LEVEL
    assert len(levels) == 12
    [warning] = get_phase_warnings(r)
    assert f"for {inverted_s} s" in warning


@pytest.mark.parametrize("extension", ["wav", "mp3"])
@pytest.mark.parametrize("inverted_s", [8, None])
def test_chunks_with_inverted_phase_are_not_sent_as_silence(
    audiocli: CommandLine, extension: str, inverted_s: float | None
) -> None:
    path = write_recording(audiocli.directory / f"talk.{extension}", make_stereo(24, inverted_s=inverted_s))

    r = transcribe(audiocli, path, "--max-chunk", "10")

    chunks = get_sent_audio(r)
    assert len(chunks) > 2
    assert min(level for chunk in chunks for level in measure_mix(chunk)) > LEVEL / 4
    assert len(get_phase_warnings(r)) == 1


@pytest.mark.parametrize("kind", ["equal", "one channel", "different", "half inverted", "silent", "mono"])
@pytest.mark.parametrize("extension", ["wav", "mp3"])
def test_other_recordings_are_sent_unchanged(audiocli: CommandLine, extension: str, kind: str) -> None:
    left, other = make_channel(2), make_channel(2, 437)
    right = {
        "equal": left,
        "one channel": [0] * len(left),
        "different": other,
        "half inverted": [-value // 2 for value in left],
    }
    if kind == "mono":
        samples, channels = array("h", left).tobytes(), 1
    else:
        samples, channels = interleave(left, right[kind]) if kind in right else bytes(4 * len(left)), 2
    path = write_recording(audiocli.directory / f"talk.{extension}", samples, channels)

    r = transcribe(audiocli, path)

    assert get_sent_audio(r) == [path.read_bytes()]
    assert get_phase_warnings(r) == []


def test_inverted_phase_is_named_in_chat(audiocli: CommandLine) -> None:
    path = write_recording(audiocli.directory / "talk.wav", make_stereo(3))

    r = audiocli("chat", "What is this?", "-a", path, "--json", "-m", "openrouter:openai/gpt-4o-audio-preview")

    assert r.code == 0, r.err
    assert get_phase_warnings(r)
    assert r.posts[0].recordings[0][1] == "flac" or r.posts[0].recordings[0][1] == "wav"


def test_local_engine_hears_a_recording_with_inverted_phase(tmp_path: Path) -> None:
    path = write_recording(tmp_path / "talk.flac", make_stereo(3))
    reader = PcmReader(path, RATE_HZ, 1)

    samples = array("h", b"".join(reader))

    assert sum(map(abs, samples)) / len(samples) > LEVEL / 4
    assert reader.canceled_s == pytest.approx(3, abs=0.1)


def test_detector_keeps_its_channel_in_silence() -> None:
    detector = CancellationDetector(STEREO)

    loud, silent = make_stereo(0.5, gain=0.95), bytes(4 * RATE_HZ)
    parts = detector.split(loud + silent + make_stereo(0.5, inverted_s=0) + silent)

    assert [(channel, len(part) / STEREO.bytes_per_second) for channel, part in parts] == [(0, 1.5), (None, 1.5)]
    assert detector.canceled_s == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"no wav", None),
        (build_wav_header(STEREO, 0), False),
        (build_wav_header(STEREO, 4_000_000) + make_stereo(1), True),  # truncated
        (build_wav_header(STEREO, None) + make_stereo(1), True),
        (build_wav_header(STEREO, 4 * RATE_HZ) + make_stereo(1, inverted_s=0) + make_stereo(3), False),  # not samples
        (build_wav_header(PcmFormat(RATE_HZ, 1), 200) + bytes(200), False),
    ],
    ids=["other", "empty", "truncated", "stream", "trailer", "mono"],
)
def test_wav_is_checked_without_a_codec(tmp_path: Path, content: bytes, expected: bool | None) -> None:
    path = tmp_path / "talk.wav"
    path.write_bytes(content)

    assert find_wav_cancellation(path) is expected


@pytest.mark.parametrize("seconds", [0.02, 0.05, 0.099])
@pytest.mark.parametrize("extension", ["wav", "flac"])
@pytest.mark.parametrize("model", ["openai:whisper-1", "openrouter:openai/whisper-large-v3"])
def test_short_recording_is_sent_with_silence_after_it(
    audiocli: CommandLine, seconds: float, extension: str, model: str
) -> None:
    samples = array("h", make_channel(seconds)).tobytes()
    path = write_recording(audiocli.directory / f"click.{extension}", samples, channels=1)

    r = transcribe(audiocli, path, model=model)
    later = transcribe(
        audiocli, write_recording(audiocli.directory / "long.wav", samples * 60, channels=1), model=model
    )

    assert r.code == 0, r.err
    assert [request.audio_s for request in r.posts] == [pytest.approx(0.2, abs=0.01)]
    assert r.json["duration_s"] == pytest.approx(seconds, abs=0.01)
    assert not any("short" in warning or "duration" in warning for warning in r.json["warnings"])
    assert all(segment["end_s"] <= seconds + 0.01 for segment in r.json["segments"])
    assert get_sent_audio(later) == [(audiocli.directory / "long.wav").read_bytes()]


def test_refusal_of_a_short_recording_is_not_remembered(audiocli: CommandLine) -> None:
    path = write_recording(audiocli.directory / "click.wav", array("h", make_channel(0.05)).tobytes(), channels=1)
    audiocli.gateway.queue_faults(Status(400, message="Audio file is too short. Minimum audio length is 0.1 seconds."))

    refused = transcribe(audiocli, path)
    r = transcribe(audiocli, path)

    assert refused.code == 6
    assert r.code == 0, r.err
