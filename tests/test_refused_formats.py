"""Test responses that refuse the format of a recording in the words of different gateways."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiocli.mock import DEFAULT_TRANSCRIPT, KEYS, Status, expected_pcm
from tests.conftest import CommandLine, Result
from tests.pyav_codec import encode

# Observed messages (openwhispr issue 2028, open-webui issue 14101 and others).
MESSAGES = [
    "Invalid file format. Supported formats: ['flac', 'm4a', 'mp3', 'mp4', 'ogg', 'wav', 'webm']",
    "Audio file might be corrupted or unsupported",
    "The audio file could not be decoded or its format is not supported.",
    "Provider returned 400",
    "Unsupported audio format",
    "Unrecognized file format",
    "Failed to decode audio",
    "Could not process file",
    "This media type is not supported",
]
OTHER_MESSAGES = ["Invalid value for temperature", "The prompt is too long", "Provider returned error"]
GATEWAYS = {"openrouter": "openrouter:openai/whisper-large-v3", "openai": "openai:gpt-4o-transcribe"}


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "talk.mp3"
    path.write_bytes(encode(expected_pcm("A recording in a format."), "mp3"))
    return path


def run(audiocli: CommandLine, recording: Path, gateway_name: str, *faults: Status) -> Result:
    audiocli.gateway.queue_faults(*faults)
    argv = ("transcribe", recording, "-m", GATEWAYS[gateway_name], "--no-resume")
    return audiocli(*argv, variables={"OPENAI_API_KEY": KEYS["openai"]})


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("gateway_name", GATEWAYS)
def test_refused_recording_is_converted_and_sent_once_more(
    audiocli: CommandLine, recording: Path, gateway_name: str, message: str
) -> None:
    r = run(audiocli, recording, gateway_name, Status(400, message=message))
    later = run(audiocli, recording, gateway_name)

    assert (r.code, r.text) == (0, DEFAULT_TRANSCRIPT + "\n"), r.err
    assert [request.audio_format for request in r.posts] == ["mp3", "flac"]
    assert [request.audio_format for request in later.posts] == ["flac"]


@pytest.mark.parametrize("message", [MESSAGES[0], MESSAGES[3]])
def test_recording_that_is_refused_twice_is_not_sent_again(
    audiocli: CommandLine, recording: Path, message: str
) -> None:
    r = run(audiocli, recording, "openai", *[Status(400, message=message)] * 2)
    later = run(audiocli, recording, "openai")

    assert (r.code, len(r.posts)) == (6, 2), r.err
    assert [request.audio_format for request in later.posts] == ["mp3"], "the recording was refused, not its format"


@pytest.mark.parametrize("message", OTHER_MESSAGES)
def test_other_refusal_does_not_lead_to_conversion(audiocli: CommandLine, recording: Path, message: str) -> None:
    r = run(audiocli, recording, "openai", Status(400, message=message))

    assert (r.code, len(r.posts)) == (6, 1), r.err
