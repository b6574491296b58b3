"""The newest official clients: every field that they can send is one that audiocli sends, or that is left out here.

`tests/test_openai_client.py`, `tests/test_openrouter_client.py` and `tests/test_request_fields.py` compare the fields
themselves. A client with a new field lets this test fail.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import openrouter.components
import pytest
from openai.resources.audio import Speech, Transcriptions, Translations
from openai.types.audio import speech_create_params, transcription_create_params
from openrouter.stt import STT
from openrouter.tts import TTS

# Parameters of the clients themselves.
CLIENT_PARAMETERS = {
    *("self", "extra_headers", "extra_query", "extra_body", "timeout"),
    *("retries", "server_url", "timeout_ms", "http_headers"),
}
# Headers that identify the application: X-OpenRouter-Title is sent, the others may be set in the config file.
ATTRIBUTION = {"http_referer", "x_open_router_title", "x_open_router_categories"}
OPENROUTER_FIELDS = {"provider", "session_id", "trace", "user"}
OPENROUTER_TRANSCRIPTION_FIELDS = {
    *("model", "language", "response_format", "temperature", "timestamp_granularities", "diarize", "keyterms"),
    *OPENROUTER_FIELDS,
}
SPEECH_FIELDS = {"input", "model", "voice", "instructions", "response_format", "speed"}


@pytest.mark.parametrize(
    ("create", "fields", "left_out"),
    [
        (Speech.create, {*SPEECH_FIELDS, "stream_format"}, set()),
        (
            Transcriptions.create,
            {
                *("file", "model", "chunking_strategy", "include", "keywords", "known_speaker_names"),
                *("known_speaker_references", "language", "languages", "prompt", "response_format", "stream"),
                *("temperature", "timestamp_granularities"),
            },
            set(),
        ),
        (Translations.create, {"file", "model", "prompt", "response_format", "temperature"}, set()),
        (TTS.create_speech, {*SPEECH_FIELDS, *OPENROUTER_FIELDS, "input_references"}, ATTRIBUTION),
        (STT.create_transcription, {*OPENROUTER_TRANSCRIPTION_FIELDS, "input_audio"}, ATTRIBUTION),
        # A recording is always sent, never its address.
        (
            STT.create_transcription_multipart,
            {*OPENROUTER_TRANSCRIPTION_FIELDS, "file"},
            {*ATTRIBUTION, "source_url"},
        ),
    ],
    ids=lambda value: value.__qualname__ if callable(value) else "",
)
def test_every_field_of_the_client_is_known(create: Callable[..., Any], fields: set[str], left_out: set[str]) -> None:
    assert set(inspect.signature(create).parameters) - CLIENT_PARAMETERS - left_out == fields


@pytest.mark.parametrize(
    ("type_", "fields"),
    [
        (speech_create_params.VoiceID, {"id"}),
        (
            transcription_create_params.ChunkingStrategyVadConfig,
            {"type", "prefix_padding_ms", "silence_duration_ms", "threshold"},
        ),
        (openrouter.components.SpeechTurnTypedDict, {"text", "voice", "instructions"}),
        (openrouter.components.SpeechRequestProviderTypedDict, {"data_collection", "options", "zdr"}),
        (openrouter.components.STTRequestProviderTypedDict, {"data_collection", "options", "zdr"}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_every_field_inside_a_field_is_known(type_: type, fields: set[str]) -> None:
    assert set(get_type_hints(type_)) == fields
