"""The dialects of OpenAI and Groq."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, ClassVar

from . import chat_replies, event_streams, model_fixtures
from .audio_synthesis import CONTENT_TYPES, synthesize
from .base import (
    Dialect,
    Headers,
    ParsedRequest,
    RequestInfo,
    Response,
    Task,
    audio_response,
    bytes_response,
    find_file_extension,
    json_response,
)
from .billing import Billing
from .field_validation import Field, Findings, Refusal
from .model_fixtures import Model
from .transcripts import build_diarized_segments, build_verbose_segments, render_srt, render_vtt

SPEECH_FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")
_VAD_FIELDS = ("type", "threshold", "prefix_padding_ms", "silence_duration_ms")
_LIST_FIELDS = ("timestamp_granularities[]", "include[]", "languages[]", "keywords[]")
_ERROR_CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded", 402: "insufficient_quota"}
_ERROR_TYPES = {401: "authentication_error", 403: "permission_error", 429: "requests"}


class OpenAI(Dialect):
    name = "openai"
    prefix = "/openai/v1"
    keys: ClassVar[frozenset[str] | None] = frozenset({"sk-test"})
    models = model_fixtures.OPENAI
    speech_fields: ClassVar[dict[str, Field]] = {
        "model": Field(required=True),
        "input": Field(required=True, min_length=1, max_length=4096),
        "voice": Field("any", required=True),
        "instructions": Field(max_length=4096),
        "response_format": Field(choices=SPEECH_FORMATS),
        "speed": Field("number", minimum=0.25, maximum=4.0),
        "stream_format": Field(choices=("audio", "sse")),
    }
    form_fields: ClassVar[dict[str, Field]] = {
        "model": Field(required=True),
        "language": Field(),
        "prompt": Field(),
        "response_format": Field(choices=("json", "text", "srt", "verbose_json", "vtt", "diarized_json")),
        "temperature": Field("number", minimum=0, maximum=1),
        "timestamp_granularities[]": Field("list", choices=("word", "segment")),
        "include[]": Field("list", choices=("logprobs",)),
        "languages[]": Field("list"),
        "keywords[]": Field("list"),
        "stream": Field("boolean"),
        "chunking_strategy": Field(),
        **{f"chunking_strategy[{name}]": Field() for name in _VAD_FIELDS},
        "known_speaker_names[]": Field("list", max_length=4),
        "known_speaker_references[]": Field("list", max_length=4),
    }
    chat_dialect: ClassVar[chat_replies.ChatDialect | None] = chat_replies.ChatDialect()
    default_format: ClassVar[str] = "mp3"
    models_ignoring_stream: ClassVar[tuple[str, ...]] = ("whisper-1",)
    """Models that accept `stream` and ignore it."""
    strip_punctuation: ClassVar[bool] = True
    """Send words without punctuation, as whisper-1 of OpenAI does. Others send punctuation and a leading space."""

    def build_error_body(self, refusal: Refusal, request_info: RequestInfo) -> Any:
        code = refusal.code or _ERROR_CODES.get(refusal.status)
        kind = "server_error" if refusal.status >= 500 else _ERROR_TYPES.get(refusal.status, "invalid_request_error")
        return {"error": {"message": refusal.message, "type": kind, "param": refusal.param, "code": code}}

    def resolve_unknown_model(self, model: str, findings: Findings) -> Model | None:
        message = f"The model `{model}` does not exist or you do not have access to it."
        findings.refuse(404, message, None, "model_not_found")
        return None

    def build_speech_task(
        self, request: ParsedRequest, values: dict[str, Any], model: Model, findings: Findings
    ) -> Task:
        voice = values.get("voice")
        is_custom_voice = isinstance(voice, dict) and set(voice) == {"id"} and isinstance(voice["id"], str)
        if voice is not None and not isinstance(voice, str) and not is_custom_voice:
            findings.refuse(self.field_policy.status, "Invalid type for 'voice'.", "voice", "invalid_type")
        is_tts_1 = model.id in ("tts-1", "tts-1-hd")
        if is_tts_1 and values.get("stream_format") == "sse":
            findings.refuse(400, f"stream_format sse is not supported by {model.id}", "stream_format")
        if is_tts_1 and "instructions" in values:
            findings.warn(f"instructions have no effect on {model.id}")
        return Task(
            "speech",
            model,
            text=values["input"],
            format=values.get("response_format", self.default_format),
            speed=float(values.get("speed", 1)),
            sample_rate_hz=int(values.get("sample_rate", 24_000)),
            stream=values.get("stream_format") == "sse",
        )

    def build_form_task(
        self, request: ParsedRequest, values: dict[str, Any], model: Model, findings: Findings, *, translate: bool
    ) -> Task | None:
        self.check_language(values.get("language"), findings)
        response_format = values.get("response_format", "json")
        if response_format not in model.response_formats:
            message = f"response_format '{response_format}' is not compatible with model '{model.id}'."
            findings.refuse(400, message, "response_format", "unsupported_value")
        if "timestamp_granularities[]" in values and response_format != "verbose_json":
            message = "timestamp_granularities needs response_format verbose_json"
            findings.refuse(400, message, "timestamp_granularities", "invalid_value")
        self._check_rare_fields(values, model, findings, translate=translate)
        audio_format, duration_s = self.read_audio(request, find_file_extension(request), findings, model)
        has_chunking = any(name.startswith("chunking_strategy") for name in values)
        if "diarize" in model.id and duration_s > 30 and not has_chunking:
            findings.refuse(400, "chunking_strategy is required for diarization models", "chunking_strategy")
        return Task(
            "translation" if translate else "transcription",
            model,
            format=response_format,
            duration_s=duration_s,
            audio_format=audio_format,
            granularities=tuple(values.get("timestamp_granularities[]", ["segment"])),
            speakers=tuple(values.get("known_speaker_names[]", ())),
            logprobs="include[]" in values,
            stream=values.get("stream") is True and model.id not in self.models_ignoring_stream,
        )

    def _check_rare_fields(self, values: dict[str, Any], model: Model, findings: Findings, *, translate: bool) -> None:
        if "diarize" in model.id and "prompt" in values:
            findings.refuse(400, "prompt is not supported by diarization models", "prompt")
        self._check_speakers(values, model, findings)
        if not _is_valid_chunking_strategy(values.get("chunking_strategy", "auto")):
            findings.refuse(400, "chunking_strategy is neither auto nor server_vad", "chunking_strategy")
        if model.id != "gpt-transcribe":
            for name in {"languages[]", "keywords[]"} & values.keys():
                findings.refuse(400, f"{name} is not supported by {model.id}", name)
        if "include[]" in values and ("gpt-4o" not in model.id or values.get("response_format", "json") != "json"):
            findings.refuse(400, "include is not supported here", "include")
        if translate:
            for name in {"language", "stream", *_LIST_FIELDS} & values.keys():
                findings.refuse(400, f"Unrecognized request argument supplied: {name}", name, "unknown_parameter")
            if "whisper" not in model.id or model.id.endswith("turbo"):
                findings.refuse(400, f"{model.id} does not translate", "model")

    def _check_speakers(self, values: dict[str, Any], model: Model, findings: Findings) -> None:
        names, references = values.get("known_speaker_names[]", []), values.get("known_speaker_references[]", [])
        if (names or references) and "diarize" not in model.id:
            findings.refuse(400, f"known speakers are not supported by {model.id}", "known_speaker_names")
        if names and not references:
            findings.warn("known_speaker_names[] without known_speaker_references[]")
        elif len(names) != len(references):
            message = f"{len(names)} known_speaker_names, but {len(references)} known_speaker_references"
            findings.refuse(400, message, "known_speaker_references")
        if not all(reference.startswith("data:audio/") for reference in references):
            findings.refuse(400, "known_speaker_references must be data URLs", "known_speaker_references")

    # --- responses ---------------------------------------------------------------------------------------------------

    def build_response(self, task: Task, headers: Headers, *, cost_nanousd: int) -> Response:
        if task.kind == "chat":
            return chat_replies.build_chat_response(task, "chatcmpl-1", headers, cost_nanousd=cost_nanousd)
        if task.kind == "speech":
            audio = synthesize(task.text, task.format, speed=task.speed, rate_hz=task.sample_rate_hz)
            if task.stream:
                return build_stream_response(
                    event_streams.iter_speech_events(audio.iter_blocks(), self.build_speech_usage(task)), headers
                )
            return audio_response(audio, CONTENT_TYPES[task.format], headers)
        if task.stream:
            return build_stream_response(self.iter_transcript_events(task), headers)
        segments = task.transcript.get_segments(task.duration_s)
        text_formats = {"text": task.transcript.text + "\n", "srt": render_srt(segments), "vtt": render_vtt(segments)}
        if task.format in text_formats:
            return bytes_response(200, "text/plain; charset=utf-8", text_formats[task.format].encode(), headers)
        return json_response(200, self.build_transcript(task), headers)

    def build_transcript(self, task: Task) -> dict[str, Any]:
        transcript, usage = task.transcript, self.build_usage(task)
        usage_fields = {"usage": usage} if usage else {}
        if task.format == "json":
            languages: dict[str, Any] = {
                "languages": [{"code": transcript.language_code}] if transcript.language_code else []
            }
            languages = languages if task.model.id == "gpt-transcribe" else {}
            return {
                "text": transcript.text,
                **languages,
                **event_streams.build_logprobs(task, event_streams.split_words(transcript.text)),
                **usage_fields,
            }
        segments = transcript.get_segments(task.duration_s)
        duration = round(task.duration_s, 3)
        if task.format == "diarized_json":
            diarized = build_diarized_segments(segments, task.speakers)
            return {
                "task": "transcribe",
                "duration": duration,
                "text": transcript.text,
                "segments": diarized,
                **usage_fields,
            }
        is_translation = task.kind == "translation"
        response: dict[str, Any] = {
            "task": "translate" if is_translation else "transcribe",
            "language": "english" if is_translation else transcript.language,
            "duration": duration,
            "text": transcript.text,
        }
        if "word" in task.granularities:
            response["words"] = [
                {
                    "word": word.strip(".,!?;:") or word if self.strip_punctuation else f" {word}",
                    "start": start,
                    "end": end,
                }
                for word, start, end in transcript.get_words(task.duration_s)
            ]
        if "segment" in task.granularities:
            response["segments"] = build_verbose_segments(segments)
        return {**response, **usage_fields}

    def iter_transcript_events(self, task: Task) -> Iterator[bytes]:
        usage = self.build_usage(task)
        return event_streams.iter_transcript_events(task, {"usage": usage} if usage else {})

    def build_speech_usage(self, task: Task) -> dict[str, Any]:
        """Return the usage fields of the last event of a speech stream."""
        characters = len(task.text)
        return {
            "usage": {"input_tokens": characters, "output_tokens": 10 * characters, "total_tokens": 11 * characters}
        }

    def build_usage(self, task: Task) -> dict[str, Any] | None:
        if task.model.unit != "token":
            return {"type": "duration", "seconds": math.ceil(task.duration_s)}
        input_tokens, output_tokens = model_fixtures.count_tokens(task.duration_s, task.transcript.text)
        details = {"text_tokens": 0, "audio_tokens": input_tokens}
        return {
            "type": "tokens",
            "input_tokens": input_tokens,
            "input_token_details": details,
            "output_tokens": output_tokens,
            "total_tokens": input_tokens + output_tokens,
        }

    def handle_get(self, request: ParsedRequest, billing: Billing) -> Response | Refusal:
        if request.path == "/models":
            return json_response(
                200, {"object": "list", "data": [self.build_card(model) for model in self.models.values()]}
            )
        name = request.path.removeprefix("/models/")
        if name in self.models:
            return json_response(200, self.build_card(self.models[name]))
        return Refusal(404, f"The model '{name}' does not exist", "model", "model_not_found")

    def build_card(self, model: Model) -> dict[str, Any]:
        return {"id": model.id, "object": "model", "created": 1_687_882_411, "owned_by": "openai-internal",
                "shutdown_date": model.shutdown_date}  # fmt: skip


class Groq(OpenAI):
    name = "groq"
    prefix = "/groq/openai/v1"
    keys = frozenset({"gsk-test"})
    models = model_fixtures.GROQ
    default_format = "wav"
    strip_punctuation = False
    speech_fields: ClassVar[dict[str, Field]] = {
        "model": Field(required=True),
        "input": Field(required=True, min_length=1),
        "voice": Field(required=True),
        "response_format": Field(choices=("flac", "mp3", "mulaw", "ogg", "wav")),
        "sample_rate": Field("number", minimum=8000, maximum=48000),
        "speed": Field("number", minimum=0.5, maximum=5.0),
    }
    form_fields: ClassVar[dict[str, Field]] = {
        name: OpenAI.form_fields[name]
        for name in ("model", "language", "prompt", "temperature", "timestamp_granularities[]")
    } | {"response_format": Field(choices=("json", "text", "verbose_json"))}

    def build_usage(self, task: Task) -> None:
        return None

    def build_transcript(self, task: Task) -> dict[str, Any]:
        return {**super().build_transcript(task), "x_groq": {"id": "req_loopback"}}

    def build_card(self, model: Model) -> dict[str, Any]:
        return {"id": model.id, "object": "model", "created": 1_693_721_698, "owned_by": "Groq", "active": True,
                "context_window": 448, "public_apps": None}  # fmt: skip


def build_stream_response(stream: Iterator[bytes], headers: Headers) -> Response:
    return bytes_response(200, event_streams.CONTENT_TYPE, b"".join(stream), headers, chunked=True)


def _is_valid_chunking_strategy(strategy: str) -> bool:
    if strategy == "auto":
        return True
    try:
        value = json.loads(strategy)
    except ValueError:
        return False
    return isinstance(value, dict) and value.get("type") == "server_vad" and set(value) <= set(_VAD_FIELDS)
