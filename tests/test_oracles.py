"""The official client as an oracle: the same work asked through it and through audiocli is the same on the wire."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from audiocli.audio import formats
from tests.conftest import CommandLine
from tests.gateway import KEYS, LoopbackGateway, Seen, encode, expected_pcm

OPENAI = {"OPENAI_API_KEY": KEYS["openai"], "OPENROUTER_API_KEY": ""}
TEXT = 'Olá, "world" — naïve\n日本 👋🏽 \\ end'
SAMPLES = expected_pcm("The quick brown fox jumps over the lazy dog.")


@pytest.fixture
def official(gateway: LoopbackGateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=KEYS["openai"], base_url=gateway.base_url("openai"), max_retries=0) as client:
        yield client


def recording(folder: Path, format: str) -> Path:
    path = folder / f"talk.{format}"
    path.write_bytes(encode(SAMPLES, format))
    return path


def envelope(seen: Seen) -> dict[str, Any]:
    """What stands around the body, as far as a gateway cares."""
    return {
        "method": seen.method,
        "path": seen.path,
        "query": seen.query,
        "authorization": seen.headers["authorization"],
        "content_type": seen.headers["content-type"].partition(";")[0],
        "problems": seen.problems,
        "status": seen.status,
    }


def fields(seen: Seen) -> list[tuple[str, object]]:
    """The text parts of a form; the order in which they come means nothing, nor does 0 written as 0.0."""
    parts = [(name, value) for name, value, filename, _ in seen.multipart or [] if filename is None]
    return sorted((name, float(str(value)) if name == "temperature" else value) for name, value in parts)


def file_part(seen: Seen) -> dict[str, object]:
    """The file of a form: its place, the ending of its name, the format that its type means, its bytes."""
    [(name, filename, kind)] = [(name, filename, kind) for name, _, filename, kind in seen.multipart or [] if filename]
    announced, _ = formats.of_content_type(kind or "")
    return {
        "name": name,
        "ending": Path(filename).suffix,
        "format": announced and announced.name,
        "sha256": seen.audio_sha256,
        "size_bytes": seen.audio_size_bytes,
    }


# --- speech -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "asked"),
    [
        ((), {"voice": "alloy"}),
        (("-v", "coral"), {"voice": "coral"}),
        (("-x", "0.25"), {"voice": "alloy", "speed": 0.25}),
        (("-x", "4"), {"voice": "alloy", "speed": 4}),
        (("-i", 'Calm, "slow" — bitte'), {"voice": "alloy", "instructions": 'Calm, "slow" — bitte'}),
        (
            ("-v", "nova", "-x", "1.5", "-i", "Whisper"),
            {"voice": "nova", "speed": 1.5, "instructions": "Whisper"},
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_speech_is_asked_for_as_the_official_client_does(
    audiocli: CommandLine, official: openai.OpenAI, tmp_path: Path, flags: tuple[str, ...], asked: dict[str, Any]
) -> None:
    told = official.audio.speech.create(model="gpt-4o-mini-tts", input=TEXT, response_format="mp3", **asked).read()

    r = audiocli("speak", TEXT, "-g", "openai", "-o", tmp_path / "x.mp3", *flags, variables=OPENAI)

    theirs, ours = audiocli.gateway.requests
    assert r.code == 0, r.err
    assert ours.json == theirs.json
    assert envelope(ours) == envelope(theirs)
    assert (tmp_path / "x.mp3").read_bytes() == told


@pytest.mark.parametrize("format", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
def test_every_format_of_speech_is_asked_for_by_its_official_name(
    audiocli: CommandLine, official: openai.OpenAI, tmp_path: Path, format: Any
) -> None:
    told = official.audio.speech.create(model="tts-1", input="Hi there", voice="alloy", response_format=format).read()

    r = audiocli(
        *("speak", "Hi there", "-m", "openai:tts-1", "-v", "alloy", "-o", tmp_path / f"x.{format}"), variables=OPENAI
    )

    theirs, ours = audiocli.gateway.requests
    assert r.code == 0, r.err
    assert ours.json == theirs.json
    assert (tmp_path / f"x.{format}").read_bytes() == told


def test_a_field_of_the_users_own_is_what_the_official_client_calls_an_extra(
    audiocli: CommandLine, gateway: LoopbackGateway, tmp_path: Path
) -> None:
    extra: dict[str, Any] = {"sample_rate": 16000, "nested": {"list": [1, "two", None, True]}, "word": "plain"}
    with openai.OpenAI(api_key="none", base_url=gateway.base_url("plain"), max_retries=0) as client:
        client.audio.speech.create(model="kokoro", input="Hi", voice="alloy", response_format="mp3", extra_body=extra)

    r = audiocli(
        *("speak", "Hi", "--base-url", gateway.base_url("plain"), "-g", "openai", "-m", "kokoro"),
        *("-o", tmp_path / "x.mp3", "--option", "sample_rate=16000", "--option", "word=plain"),
        *("--option", 'nested={"list": [1, "two", null, true]}'),
        variables={"OPENAI_API_KEY": "none", "OPENROUTER_API_KEY": ""},
    )

    theirs, ours = audiocli.gateway.requests
    assert r.code == 0, r.err
    assert ours.json == theirs.json


# --- transcription ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "asked"),
    [
        ((), {"response_format": "json"}),
        (("-l", "German"), {"response_format": "json", "language": "de"}),
        (("-p", 'Pelé, "日本"\nnames'), {"response_format": "json", "prompt": 'Pelé, "日本"\nnames'}),
        (("--temperature", "0"), {"response_format": "json", "temperature": 0}),
        (("--temperature", "0.2"), {"response_format": "json", "temperature": 0.2}),
        (("-f", "srt"), {"response_format": "verbose_json", "timestamp_granularities": ["segment"]}),
        (("-f", "verbose_json"), {"response_format": "verbose_json", "timestamp_granularities": ["segment"]}),
        (("--timestamps", "segment"), {"response_format": "verbose_json", "timestamp_granularities": ["segment"]}),
        (
            ("--timestamps", "word", "-l", "pt-BR", "-p", "Pelé", "--temperature", "1"),
            {
                "response_format": "verbose_json",
                "timestamp_granularities": ["word", "segment"],
                "language": "pt",
                "prompt": "Pelé",
                "temperature": 1.0,
            },
        ),
    ],
    ids=lambda value: " ".join(value).encode("ascii", "ignore").decode() if isinstance(value, tuple) else "",
)
def test_a_transcription_is_asked_for_as_the_official_client_does(
    audiocli: CommandLine, official: openai.OpenAI, tmp_path: Path, flags: tuple[str, ...], asked: dict[str, Any]
) -> None:
    talk = recording(tmp_path, "wav")
    with talk.open("rb") as file:
        told = official.audio.transcriptions.create(model="whisper-1", file=file, **asked)

    r = audiocli("transcribe", talk, "-m", "openai:whisper-1", *flags, "--json", variables=OPENAI)

    theirs, ours = audiocli.gateway.requests
    assert r.code == 0, r.err
    if not {"-f", "--timestamps"} & set(flags):
        # A receipt in JSON has its times when they can be had, which the client must be asked for.
        assert ("response_format", "verbose_json") in fields(ours)
    else:
        assert fields(ours) == fields(theirs)
    assert file_part(ours) == file_part(theirs)
    assert envelope(ours) == envelope(theirs)
    assert r.json["text"] == told.text
