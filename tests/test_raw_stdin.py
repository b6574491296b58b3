"""Test raw samples on stdin."""

from __future__ import annotations

import io
import wave

import pytest

from audiocli.mock import DEFAULT_TRANSCRIPT
from tests.conftest import CommandLine

TEXT = f"{DEFAULT_TRANSCRIPT}\n"


@pytest.mark.parametrize(
    ("options", "rate_hz", "channels"),
    [
        ([], 24_000, 1),
        (["--stdin-rate", "16000"], 16_000, 1),
        (["--stdin-rate", "48000", "--stdin-channels", "2"], 48_000, 2),
        (["--stdin-channels", "8"], 24_000, 8),
    ],
)
def test_raw_samples_have_the_stated_rate_and_channels(
    audiocli: CommandLine, options: list[str], rate_hz: int, channels: int
) -> None:
    samples = bytes(range(256)) * (rate_hz * channels * 2 // 256)

    result = audiocli("transcribe", "-", "--stdin-format", "pcm", *options, stdin=samples)

    assert (result.code, result.text) == (0, TEXT), result.err
    [request] = result.posts
    assert request.audio_s == pytest.approx(len(samples) / (2 * rate_hz * channels), abs=0.01)
    if channels <= 2 and request.audio_format == "wav" and request.audio is not None:
        with wave.open(io.BytesIO(request.audio)) as reader:
            assert (reader.getframerate(), reader.getnchannels()) == (rate_hz, channels)


def test_one_channel_of_raw_samples_is_selected(audiocli: CommandLine) -> None:
    samples = bytes(4 * 16_000)
    argv = ("--stdin-format", "pcm", "--stdin-rate", "16000", "--stdin-channels", "2", "--channel", "2")

    result = audiocli("transcribe", "-", *argv, stdin=samples)

    assert result.code == 0, result.err
    assert result.posts[0].audio_s == pytest.approx(1.0, abs=0.01)


def test_tracks_of_raw_samples_are_listed(audiocli: CommandLine) -> None:
    argv = ("--stdin-format", "pcm", "--stdin-rate", "8000", "--stdin-channels", "2")

    result = audiocli("transcribe", "-", "--list-tracks", "--json", *argv, stdin=bytes(32_000))

    [track] = result.json["tracks"]
    assert (track["sample_rate_hz"], track["channels"], track["duration_s"]) == (8_000, 2, 1.0)


@pytest.mark.parametrize(
    "options",
    [
        ["--stdin-rate", "16000"],
        ["--stdin-rate", "16000", "--list-tracks"],
        ["--stdin-channels", "2", "--stdin-format", "wav"],
        ["--stdin-format", "pcm", "--stdin-rate", "0"],
        ["--stdin-format", "pcm", "--stdin-rate", "1000000"],
        ["--stdin-format", "pcm", "--stdin-channels", "9"],
        ["--stdin-format", "nothing"],
    ],
)
def test_invalid_formats_of_stdin_are_refused(audiocli: CommandLine, options: list[str]) -> None:
    result = audiocli("transcribe", "-", *options, stdin=bytes(64_000))

    assert result.code == 2, result.err
    assert not result.requests
