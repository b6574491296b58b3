"""OpenAI's client as an oracle: the same work asked through it and through audiocli is the same on the wire."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from audiocli.audio import formats
from tests.conftest import CommandLine
from tests.gateway import KEYS, LoopbackGateway, Seen, Status, encode, expected_pcm

OPENAI = {"OPENAI_API_KEY": KEYS["openai"] or "", "OPENROUTER_API_KEY": ""}
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


# --- speech ----------------------------------------------------------------------------------------------------------


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


# --- transcription ---------------------------------------------------------------------------------------------------


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
        official.audio.transcriptions.create(model="whisper-1", file=file, **asked)

    r = audiocli("transcribe", talk, "-m", "openai:whisper-1", *flags, variables=OPENAI)

    theirs, ours = audiocli.gateway.requests
    assert r.code == 0, r.err
    assert fields(ours) == fields(theirs)
    assert file_part(ours) == file_part(theirs)
    assert envelope(ours) == envelope(theirs)


@pytest.mark.parametrize("format", ["mp3", "flac", "wav"])
def test_a_recording_of_any_format_goes_up_as_the_official_client_sends_it(
    audiocli: CommandLine, official: openai.OpenAI, tmp_path: Path, format: str
) -> None:
    talk = recording(tmp_path, format)
    with talk.open("rb") as file:
        told = official.audio.transcriptions.create(model="gpt-4o-transcribe", file=file, response_format="json")

    r = audiocli("transcribe", talk, "-m", "openai:gpt-4o-transcribe", variables=OPENAI)

    theirs, ours = audiocli.gateway.requests
    assert file_part(ours) == file_part(theirs)
    assert fields(ours) == fields(theirs)
    assert r.text == told.text + "\n"


@pytest.mark.parametrize(
    ("model", "flags", "asked"),
    [
        ("gpt-4o-transcribe", ('include=["logprobs"]',), {"include": ["logprobs"]}),
        ("gpt-4o-transcribe", ("chunking_strategy=auto",), {"chunking_strategy": "auto"}),
        (
            "gpt-transcribe",
            ('languages=["en", "de"]', 'keywords=["Pelé"]'),
            {"languages": ["en", "de"], "keywords": ["Pelé"]},
        ),
    ],
    ids=["include", "chunking", "lists"],
)
def test_an_option_of_a_form_is_written_as_the_official_client_writes_it(
    audiocli: CommandLine,
    official: openai.OpenAI,
    tmp_path: Path,
    model: str,
    flags: tuple[str, ...],
    asked: dict[str, Any],
) -> None:
    talk = recording(tmp_path, "wav")
    with talk.open("rb") as file:
        official.audio.transcriptions.create(model=model, file=file, response_format="json", extra_body=asked)

    options = [word for flag in flags for word in ("--option", flag)]
    r = audiocli("transcribe", talk, "-m", f"openai:{model}", *options, variables=OPENAI)

    theirs, ours = audiocli.gateway.requests
    assert r.code == 0, r.err
    assert fields(ours) == fields(theirs)


# --- addresses and replies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["", "/"])
def test_a_base_url_is_joined_as_the_official_client_joins_it(
    audiocli: CommandLine, gateway: LoopbackGateway, tmp_path: Path, ending: str
) -> None:
    base_url = gateway.base_url("openai") + ending
    with openai.OpenAI(api_key=KEYS["openai"], base_url=base_url, max_retries=0) as client:
        client.audio.speech.create(model="tts-1", input="Hi", voice="alloy", response_format="mp3")

    audiocli(
        *("speak", "Hi", "-m", "openai:tts-1", "-v", "alloy", "-o", tmp_path / "x.mp3"),
        variables={**OPENAI, "OPENAI_BASE_URL": base_url},
    )

    theirs, ours = audiocli.gateway.requests
    assert envelope(ours) == envelope(theirs)
    assert ours.json == theirs.json


def test_times_and_language_are_read_as_the_official_client_reads_them(
    audiocli: CommandLine, official: openai.OpenAI, tmp_path: Path
) -> None:
    talk = recording(tmp_path, "wav")
    with talk.open("rb") as file:
        told = official.audio.transcriptions.create(
            model="whisper-1", file=file, response_format="verbose_json", timestamp_granularities=["word", "segment"]
        )

    r = audiocli("transcribe", talk, "-m", "openai:whisper-1", "--timestamps", "word", "--json", variables=OPENAI)

    words = [(word["word"], word["start_s"], word["end_s"]) for word in r.json["words"]]
    segments = [(part["text"], part["start_s"], part["end_s"]) for part in r.json["segments"]]
    assert told.words and told.segments
    assert words == [(word.word, word.start, word.end) for word in told.words]
    assert segments == [(part.text.strip(), part.start, part.end) for part in told.segments]
    assert (r.json["text"], told.language, r.json["language"]) == (told.text, "english", "en")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (422, openai.UnprocessableEntityError),
    ],
)
def test_a_refusal_gives_the_message_that_the_official_client_finds(
    audiocli: CommandLine,
    official: openai.OpenAI,
    gateway: LoopbackGateway,
    tmp_path: Path,
    status: int,
    kind: type[openai.APIStatusError],
) -> None:
    body = {"error": {"message": "No, not today", "type": "invalid_request_error", "param": None, "code": None}}
    gateway.always(Status(status, body, headers={"x-request-id": "req_7"}))
    with pytest.raises(kind) as caught:
        official.audio.speech.create(model="tts-1", input="Hi", voice="alloy")

    r = audiocli("speak", "Hi", "-m", "openai:tts-1", "-o", tmp_path / "x.mp3", "--json", variables=OPENAI)

    assert isinstance(caught.value.body, dict)
    assert caught.value.body["message"] in r.err_json["error"]["message"]
    assert caught.value.request_id == r.ledger[0]["request_id"] == "req_7"
    assert len(audiocli.gateway.requests) == 2


# --- speakers and streams --------------------------------------------------------------------------------------------

DIARIZING = "gpt-4o-transcribe-diarize"


@pytest.mark.parametrize("names", [(), ("Ann",), ("Ann", "Zoë B.")], ids=["nobody", "one", "two"])
@pytest.mark.parametrize("clip", [None, "wav", "mp3"])
def test_speakers_are_asked_for_as_the_official_client_does(
    audiocli: CommandLine, official: openai.OpenAI, tmp_path: Path, names: tuple[str, ...], clip: str | None
) -> None:
    talk = recording(tmp_path, "flac")
    known: dict[str, Any] = {"known_speaker_names": list(names)} if names else {}
    flags = [word for name in names for word in ("--speaker", name)]
    if clip is not None and names:
        voice = recording(tmp_path, clip)
        kind = {"wav": "audio/wav", "mp3": "audio/mpeg"}[clip]
        url = f"data:{kind};base64,{base64.b64encode(voice.read_bytes()).decode()}"
        known["known_speaker_references"] = [url] * len(names)
        flags = [word for name in names for word in ("--speaker", f"{name}={voice}")]
    with talk.open("rb") as file:
        official.audio.transcriptions.create(
            model=DIARIZING, file=file, response_format="diarized_json", chunking_strategy="auto", **known
        )

    r = audiocli("transcribe", talk, "-m", f"openai:{DIARIZING}", "--diarize", *flags, variables=OPENAI)

    theirs, ours = audiocli.gateway.requests
    assert r.code == 0, r.err
    assert fields(ours) == fields(theirs)
    assert file_part(ours) == file_part(theirs)
    assert envelope(ours) == envelope(theirs)


def test_speakers_are_read_as_the_official_client_reads_them(
    audiocli: CommandLine, official: openai.OpenAI, tmp_path: Path
) -> None:
    audiocli.gateway.says("One fish. Two fish. Red fish.")
    talk = recording(tmp_path, "wav")
    with talk.open("rb") as file:
        told: Any = official.audio.transcriptions.create(
            model=DIARIZING, file=file, response_format="diarized_json", chunking_strategy="auto"
        )

    r = audiocli("transcribe", talk, "-m", f"openai:{DIARIZING}", "--diarize", "--json", variables=OPENAI)

    segments = [(part["text"], part["start_s"], part["end_s"], part["speaker"]) for part in r.json["segments"]]
    assert segments == [(part.text, part.start, part.end, part.speaker) for part in told.segments]
    assert len(segments) == 3


def test_a_stream_of_text_is_asked_for_and_read_as_the_official_client_does(
    audiocli: CommandLine, official: openai.OpenAI, tmp_path: Path
) -> None:
    talk = recording(tmp_path, "wav")
    with talk.open("rb") as file:
        events = list(
            official.audio.transcriptions.create(
                model="gpt-4o-transcribe", file=file, response_format="json", stream=True
            )
        )

    r = audiocli("transcribe", talk, "-m", "openai:gpt-4o-transcribe", "--stream", variables=OPENAI)

    theirs, ours = audiocli.gateway.requests
    assert r.code == 0, r.err
    assert fields(ours) == fields(theirs)
    assert r.text == "".join(event.delta for event in events if event.type == "transcript.text.delta") + "\n"


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
@pytest.mark.parametrize("flags", [(), ("-p", "Names"), ("--temperature", "0.5"), ("-f", "srt")], ids=" ".join)
def test_a_translation_is_asked_for_as_the_official_client_does(
    audiocli: CommandLine, official: openai.OpenAI, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    asked: dict[str, Any] = {
        (): {"response_format": "json"},
        ("-p", "Names"): {"response_format": "json", "prompt": "Names"},
        ("--temperature", "0.5"): {"response_format": "json", "temperature": 0.5},
        ("-f", "srt"): {"response_format": "verbose_json"},
    }[flags]
    talk = recording(tmp_path, "wav")
    with talk.open("rb") as file:
        official.audio.translations.create(model="whisper-1", file=file, **asked)

    r = audiocli("transcribe", talk, "-m", "openai:whisper-1", "--translate", *flags, variables=OPENAI)

    theirs, ours = audiocli.gateway.requests
    assert r.code == 0, r.err
    assert fields(ours) == fields(theirs)
    assert envelope(ours) == envelope(theirs)
