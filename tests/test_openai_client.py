"""The official OpenAI client as a reference: audiocli sends the same requests and parses responses alike."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from audiocli.audio import formats
from audiocli.mock import KEYS, MockGateway, RecordedRequest, Status, expected_pcm
from tests.conftest import CommandLine
from tests.pyav_codec import encode

OPENAI = {"OPENAI_API_KEY": KEYS["openai"] or "", "OPENROUTER_API_KEY": ""}
TEXT = 'Olá, "world" — naïve\n日本 👋🏽 \\ end'
SAMPLES = expected_pcm("The quick brown fox jumps over the lazy dog.")


@pytest.fixture
def openai_client(gateway: MockGateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=KEYS["openai"], base_url=gateway.base_url("openai"), max_retries=0) as client:
        yield client


def write_recording(directory: Path, format: str) -> Path:
    path = directory / f"talk.{format}"
    path.write_bytes(encode(SAMPLES, format))
    return path


def read_envelope(request: RecordedRequest) -> dict[str, Any]:
    """Return the parts of a request outside of its body that a gateway evaluates."""
    return {
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "authorization": request.headers["authorization"],
        "content_type": request.headers["content-type"].partition(";")[0],
        "problems": request.problems,
        "status": request.status,
    }


def read_form_fields(request: RecordedRequest) -> list[tuple[str, object]]:
    """Return the text parts of a form, sorted, with the temperature as a number (0 equals 0.0)."""
    parts = [(name, value) for name, value, filename, _ in request.multipart or [] if filename is None]
    return sorted((name, float(str(value)) if name == "temperature" else value) for name, value in parts)


def read_file_part(request: RecordedRequest) -> dict[str, object]:
    """Return field name, extension, declared format, hash and size of the file of a form."""
    [(name, filename, content_type)] = [
        (name, filename, content_type) for name, _, filename, content_type in request.multipart or [] if filename
    ]
    declared_format, _ = formats.parse_content_type(content_type or "")
    return {
        "name": name,
        "extension": Path(filename).suffix,
        "format": declared_format and declared_format.name,
        "sha256": request.audio_sha256,
        "size_bytes": request.audio_size_bytes,
    }


# --- speech ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "fields"),
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
def test_speech_request_equals_openai_client(
    audiocli: CommandLine, openai_client: openai.OpenAI, tmp_path: Path, flags: tuple[str, ...], fields: dict[str, Any]
) -> None:
    reference = openai_client.audio.speech.create(
        model="gpt-4o-mini-tts", input=TEXT, response_format="mp3", **fields
    ).read()

    r = audiocli("speak", TEXT, "-g", "openai", "-o", tmp_path / "x.mp3", *flags, variables=OPENAI)

    theirs, ours = audiocli.gateway.requests
    assert r.code == 0, r.err
    assert ours.json == theirs.json
    assert read_envelope(ours) == read_envelope(theirs)
    assert (tmp_path / "x.mp3").read_bytes() == reference


@pytest.mark.parametrize("format", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
def test_speech_format_equals_openai_client(
    audiocli: CommandLine, openai_client: openai.OpenAI, tmp_path: Path, format: Any
) -> None:
    reference = openai_client.audio.speech.create(
        model="tts-1", input="Hi there", voice="alloy", response_format=format
    ).read()

    r = audiocli(
        *("speak", "Hi there", "-m", "openai:tts-1", "-v", "alloy", "-o", tmp_path / f"x.{format}"), variables=OPENAI
    )

    theirs, ours = audiocli.gateway.requests
    assert r.code == 0, r.err
    assert ours.json == theirs.json
    assert (tmp_path / f"x.{format}").read_bytes() == reference


def test_speech_events_are_requested_like_openai_client(
    audiocli: CommandLine, openai_client: openai.OpenAI, tmp_path: Path
) -> None:
    openai_client.audio.speech.create(
        model="gpt-4o-mini-tts", input=TEXT, voice="alloy", response_format="mp3", stream_format="sse"
    ).read()

    r = audiocli(
        *("speak", TEXT, "-m", "openai:gpt-4o-mini-tts", "-o", tmp_path / "x.mp3", "--option", "stream_format=sse"),
        variables=OPENAI,
    )

    theirs, ours = audiocli.gateway.requests
    assert r.code == 0, r.err
    assert ours.json == theirs.json
    assert read_envelope(ours) == read_envelope(theirs)


def test_option_equals_extra_body_of_openai_client(audiocli: CommandLine, gateway: MockGateway, tmp_path: Path) -> None:
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
    ("flags", "fields"),
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
def test_transcription_request_equals_openai_client(
    audiocli: CommandLine, openai_client: openai.OpenAI, tmp_path: Path, flags: tuple[str, ...], fields: dict[str, Any]
) -> None:
    talk = write_recording(tmp_path, "wav")
    with talk.open("rb") as file:
        openai_client.audio.transcriptions.create(model="whisper-1", file=file, **fields)

    r = audiocli("transcribe", talk, "-m", "openai:whisper-1", *flags, variables=OPENAI)

    theirs, ours = audiocli.gateway.requests
    assert r.code == 0, r.err
    assert read_form_fields(ours) == read_form_fields(theirs)
    assert read_file_part(ours) == read_file_part(theirs)
    assert read_envelope(ours) == read_envelope(theirs)


@pytest.mark.parametrize(
    ("flags", "fields"),
    [
        ((), {}),
        (("-l", "German"), {"languages": ["de"]}),
        (("--keyterms", "Pelé,São Paulo"), {"keywords": ["Pelé", "São Paulo"]}),
        (
            ("-l", "pt-BR", "--keyterms", "Pelé", "-p", "Football", "--temperature", "0.2"),
            {"languages": ["pt"], "keywords": ["Pelé"], "prompt": "Football", "temperature": 0.2},
        ),
    ],
    ids=["plain", "language", "keyterms", "all"],
)
def test_lists_of_gpt_transcribe_equal_openai_client(
    audiocli: CommandLine, openai_client: openai.OpenAI, tmp_path: Path, flags: tuple[str, ...], fields: dict[str, Any]
) -> None:
    talk = write_recording(tmp_path, "wav")
    with talk.open("rb") as file:
        openai_client.audio.transcriptions.create(model="gpt-transcribe", file=file, response_format="json", **fields)

    r = audiocli("transcribe", talk, "-m", "openai:gpt-transcribe", *flags, variables=OPENAI)

    theirs, ours = audiocli.gateway.requests
    assert r.code == 0, r.err
    assert read_form_fields(ours) == read_form_fields(theirs)
    assert read_envelope(ours) == read_envelope(theirs)


@pytest.mark.parametrize("format", ["mp3", "flac", "wav"])
def test_upload_equals_openai_client(
    audiocli: CommandLine, openai_client: openai.OpenAI, tmp_path: Path, format: str
) -> None:
    talk = write_recording(tmp_path, format)
    with talk.open("rb") as file:
        reference = openai_client.audio.transcriptions.create(
            model="gpt-4o-transcribe", file=file, response_format="json"
        )

    r = audiocli("transcribe", talk, "-m", "openai:gpt-4o-transcribe", variables=OPENAI)

    theirs, ours = audiocli.gateway.requests
    assert read_file_part(ours) == read_file_part(theirs)
    assert read_form_fields(ours) == read_form_fields(theirs)
    assert r.text == reference.text + "\n"


@pytest.mark.parametrize(
    ("model", "flags", "fields"),
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
def test_form_option_equals_openai_client(
    audiocli: CommandLine,
    openai_client: openai.OpenAI,
    tmp_path: Path,
    model: str,
    flags: tuple[str, ...],
    fields: dict[str, Any],
) -> None:
    talk = write_recording(tmp_path, "wav")
    with talk.open("rb") as file:
        openai_client.audio.transcriptions.create(model=model, file=file, response_format="json", extra_body=fields)

    options = [word for flag in flags for word in ("--option", flag)]
    r = audiocli("transcribe", talk, "-m", f"openai:{model}", *options, variables=OPENAI)

    theirs, ours = audiocli.gateway.requests
    assert r.code == 0, r.err
    assert read_form_fields(ours) == read_form_fields(theirs)


# --- URLs and responses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", "/"])
def test_base_url_is_joined_like_openai_client(
    audiocli: CommandLine, gateway: MockGateway, tmp_path: Path, suffix: str
) -> None:
    base_url = gateway.base_url("openai") + suffix
    with openai.OpenAI(api_key=KEYS["openai"], base_url=base_url, max_retries=0) as client:
        client.audio.speech.create(model="tts-1", input="Hi", voice="alloy", response_format="mp3")

    audiocli(
        *("speak", "Hi", "-m", "openai:tts-1", "-v", "alloy", "-o", tmp_path / "x.mp3"),
        variables={**OPENAI, "OPENAI_BASE_URL": base_url},
    )

    theirs, ours = audiocli.gateway.requests
    assert read_envelope(ours) == read_envelope(theirs)
    assert ours.json == theirs.json


def test_times_and_language_are_parsed_like_openai_client(
    audiocli: CommandLine, openai_client: openai.OpenAI, tmp_path: Path
) -> None:
    talk = write_recording(tmp_path, "wav")
    with talk.open("rb") as file:
        reference = openai_client.audio.transcriptions.create(
            model="whisper-1", file=file, response_format="verbose_json", timestamp_granularities=["word", "segment"]
        )

    r = audiocli("transcribe", talk, "-m", "openai:whisper-1", "--timestamps", "word", "--json", variables=OPENAI)

    words = [(word["word"], word["start_s"], word["end_s"]) for word in r.json["words"]]
    segments = [(part["text"], part["start_s"], part["end_s"]) for part in r.json["segments"]]
    assert reference.words and reference.segments
    assert words == [(word.word, word.start, word.end) for word in reference.words]
    assert segments == [(part.text.strip(), part.start, part.end) for part in reference.segments]
    assert (r.json["text"], reference.language, r.json["language"]) == (reference.text, "english", "en")


@pytest.mark.parametrize(
    ("status", "error_type"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (422, openai.UnprocessableEntityError),
    ],
)
def test_error_message_is_parsed_like_openai_client(
    audiocli: CommandLine,
    openai_client: openai.OpenAI,
    gateway: MockGateway,
    tmp_path: Path,
    status: int,
    error_type: type[openai.APIStatusError],
) -> None:
    body = {"error": {"message": "No, not today", "type": "invalid_request_error", "param": None, "code": None}}
    gateway.add_default_fault(Status(status, body, headers={"x-request-id": "req_7"}))
    with pytest.raises(error_type) as caught:
        openai_client.audio.speech.create(model="tts-1", input="Hi", voice="alloy")

    r = audiocli("speak", "Hi", "-m", "openai:tts-1", "-o", tmp_path / "x.mp3", "--json", variables=OPENAI)

    assert isinstance(caught.value.body, dict)
    assert caught.value.body["message"] in r.err_json["error"]["message"]
    assert caught.value.request_id == r.ledger[0]["request_id"] == "req_7"
    assert len(audiocli.gateway.requests) == 2


# --- speakers and streams --------------------------------------------------------------------------------------------

DIARIZATION_MODEL = "gpt-4o-transcribe-diarize"


@pytest.mark.parametrize("names", [(), ("Ann",), ("Ann", "Zoë B.")], ids=["none", "one", "two"])
@pytest.mark.parametrize("clip", [None, "wav", "mp3"])
def test_diarization_request_equals_openai_client(
    audiocli: CommandLine, openai_client: openai.OpenAI, tmp_path: Path, names: tuple[str, ...], clip: str | None
) -> None:
    talk = write_recording(tmp_path, "flac")
    speaker_fields: dict[str, Any] = {"known_speaker_names": list(names)} if names else {}
    flags = [word for name in names for word in ("--speaker", name)]
    if clip is not None and names:
        voice = write_recording(tmp_path, clip)
        content_type = {"wav": "audio/wav", "mp3": "audio/mpeg"}[clip]
        url = f"data:{content_type};base64,{base64.b64encode(voice.read_bytes()).decode()}"
        speaker_fields["known_speaker_references"] = [url] * len(names)
        flags = [word for name in names for word in ("--speaker", f"{name}={voice}")]
    with talk.open("rb") as file:
        openai_client.audio.transcriptions.create(
            model=DIARIZATION_MODEL,
            file=file,
            response_format="diarized_json",
            chunking_strategy="auto",
            **speaker_fields,
        )

    r = audiocli("transcribe", talk, "-m", f"openai:{DIARIZATION_MODEL}", "--diarize", *flags, variables=OPENAI)

    theirs, ours = audiocli.gateway.requests
    assert r.code == 0, r.err
    assert read_form_fields(ours) == read_form_fields(theirs)
    assert read_file_part(ours) == read_file_part(theirs)
    assert read_envelope(ours) == read_envelope(theirs)


def test_speakers_are_parsed_like_openai_client(
    audiocli: CommandLine, openai_client: openai.OpenAI, tmp_path: Path
) -> None:
    audiocli.gateway.set_transcript("One fish. Two fish. Red fish.")
    talk = write_recording(tmp_path, "wav")
    with talk.open("rb") as file:
        reference: Any = openai_client.audio.transcriptions.create(
            model=DIARIZATION_MODEL, file=file, response_format="diarized_json", chunking_strategy="auto"
        )

    r = audiocli("transcribe", talk, "-m", f"openai:{DIARIZATION_MODEL}", "--diarize", "--json", variables=OPENAI)

    segments = [(part["text"], part["start_s"], part["end_s"], part["speaker"]) for part in r.json["segments"]]
    assert segments == [(part.text, part.start, part.end, part.speaker) for part in reference.segments]
    assert len(segments) == 3


def test_transcript_stream_is_requested_and_parsed_like_openai_client(
    audiocli: CommandLine, openai_client: openai.OpenAI, tmp_path: Path
) -> None:
    talk = write_recording(tmp_path, "wav")
    with talk.open("rb") as file:
        events = list(
            openai_client.audio.transcriptions.create(
                model="gpt-4o-transcribe", file=file, response_format="json", stream=True
            )
        )

    r = audiocli("transcribe", talk, "-m", "openai:gpt-4o-transcribe", "--stream", variables=OPENAI)

    theirs, ours = audiocli.gateway.requests
    assert r.code == 0, r.err
    assert read_form_fields(ours) == read_form_fields(theirs)
    assert r.text == "".join(event.delta for event in events if event.type == "transcript.text.delta") + "\n"


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
@pytest.mark.parametrize("flags", [(), ("-p", "Names"), ("--temperature", "0.5"), ("-f", "srt")], ids=" ".join)
def test_translation_request_equals_openai_client(
    audiocli: CommandLine, openai_client: openai.OpenAI, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    fields_by_flags: dict[tuple[str, ...], dict[str, Any]] = {
        (): {"response_format": "json"},
        ("-p", "Names"): {"response_format": "json", "prompt": "Names"},
        ("--temperature", "0.5"): {"response_format": "json", "temperature": 0.5},
        ("-f", "srt"): {"response_format": "verbose_json"},
    }
    fields = fields_by_flags[flags]
    talk = write_recording(tmp_path, "wav")
    with talk.open("rb") as file:
        openai_client.audio.translations.create(model="whisper-1", file=file, **fields)

    r = audiocli("transcribe", talk, "-m", "openai:whisper-1", "--translate", *flags, variables=OPENAI)

    theirs, ours = audiocli.gateway.requests
    assert r.code == 0, r.err
    assert read_form_fields(ours) == read_form_fields(theirs)
    assert read_envelope(ours) == read_envelope(theirs)
