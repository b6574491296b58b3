"""The OpenAI dialect, which most other gateways share, and the tables in which they differ from it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from .. import chat_replies, event_streams, model_fixtures
from ..audio_codec import CONTENT_TYPES
from ..billing import Billing
from ..field_validation import Field, Findings, Refusal
from ..messages import Headers, ParsedRequest, RequestInfo, Response, bytes_response, json_response
from ..model_fixtures import Model
from ..tasks import ChatDialect, Task
from ..transcripts import build_diarized_segments, build_verbose_segments, render_srt, render_vtt
from .base import Dialect, audio_response

SPEECH_FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")
_VAD_FIELDS = ("type", "threshold", "prefix_padding_ms", "silence_duration_ms")
_LIST_FIELDS = ("timestamp_granularities[]", "include[]", "languages[]", "keywords[]")

COMMON_FORM_FIELDS = {
    "model": Field(required=True),
    "language": Field(),
    "prompt": Field(),
    "temperature": Field("number", minimum=0, maximum=1),
    "timestamp_granularities[]": Field("list", choices=("word", "segment")),
}
"""Fields of a transcription that every gateway with this dialect accepts."""

ROUTER_SPEECH_FIELDS = {
    "model": Field(required=True),
    "input": Field(required=True, min_length=1),
    "voice": Field(required=True),
    "response_format": Field(choices=SPEECH_FORMATS),
    "speed": Field("number", minimum=0.25, maximum=4.0),
}
"""Fields of a speech request to TheRouter and ARouter."""


class OpenAI(Dialect):
    """The OpenAI dialect.

    Attributes:
        models_ignoring_stream: Models that accept `stream` and ignore it.
        strip_punctuation: Send words without punctuation, as whisper-1 of OpenAI does. Others send punctuation and a
            leading space.
        report_usage: Add the usage to transcripts.
        report_duration: Add the duration to transcripts in the format json.
        transcript_fields: Additional fields of every transcript.
        card_fields: Fields that are the same for every model in the model list.
        has_shutdown_dates: The model list contains the shutdown date of each model.
        error_fields: The fields of an error, in their order.
        error_types: The type of an error by status. `server_error_type` is for statuses from 500 on.
        error_codes: The code of an error by status, unless the refusal has its own.
    """

    name = "openai"
    prefix = "/openai/v1"
    key: ClassVar[str | None] = "sk-test"
    models = model_fixtures.OPENAI
    unknown_model = Refusal(
        404, "The model `{model}` does not exist or you do not have access to it.", None, "model_not_found"
    )
    task_headers: ClassVar = {"x-request-id": "req_{serial}", "openai-processing-ms": "1"}
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
        **COMMON_FORM_FIELDS,
        "response_format": Field(choices=("json", "text", "srt", "verbose_json", "vtt", "diarized_json")),
        "include[]": Field("list", choices=("logprobs",)),
        "languages[]": Field("list"),
        "keywords[]": Field("list"),
        "stream": Field("boolean"),
        "chunking_strategy": Field(),
        **{f"chunking_strategy[{name}]": Field() for name in _VAD_FIELDS},
        "known_speaker_names[]": Field("list", max_length=4),
        "known_speaker_references[]": Field("list", max_length=4),
    }
    chat_dialect: ClassVar[ChatDialect | None] = ChatDialect(chat_replies.CHAT_FIELDS)
    default_format: ClassVar[str] = "mp3"
    models_ignoring_stream: ClassVar[tuple[str, ...]] = ("whisper-1",)
    strip_punctuation: ClassVar[bool] = True
    report_usage: ClassVar[bool] = True
    report_duration: ClassVar[bool] = False
    transcript_fields: ClassVar[Mapping[str, Any]] = {}
    card_fields: ClassVar[Mapping[str, Any]] = {
        "object": "model",
        "created": 1_687_882_411,
        "owned_by": "openai-internal",
    }
    has_shutdown_dates: ClassVar[bool] = True
    error_fields: ClassVar[tuple[str, ...]] = ("message", "type", "param", "code")
    error_types: ClassVar[Mapping[int, str]] = {401: "authentication_error", 403: "permission_error", 429: "requests"}
    server_error_type: ClassVar[str] = "server_error"
    error_codes: ClassVar[Mapping[int, str]] = {
        401: "invalid_api_key",
        402: "insufficient_quota",
        404: "model_not_found",
        429: "rate_limit_exceeded",
    }

    def build_error_body(self, refusal: Refusal, request_info: RequestInfo) -> Any:
        values = {
            "message": refusal.message,
            "type": self.get_error_type(refusal.status),
            "param": refusal.param,
            "code": refusal.code or self.error_codes.get(refusal.status),
        }
        return {"error": {name: values[name] for name in self.error_fields}}

    def get_error_type(self, status: int) -> str:
        return self.server_error_type if status >= 500 else self.error_types.get(status, "invalid_request_error")

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
        audio_format, duration_s = self.read_audio(request, request.file_extension, findings, model)
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
            return chat_replies.build_chat_response(task, "chatcmpl-1", headers, self.codec, cost_nanousd=cost_nanousd)
        if task.kind == "speech":
            audio = self.codec.synthesize(task.text, task.format, speed=task.speed, rate_hz=task.sample_rate_hz)
            if task.stream:
                return event_streams.build_stream_response(
                    event_streams.iter_speech_events(audio.iter_blocks(), self.build_speech_usage(task)), headers
                )
            return audio_response(audio, CONTENT_TYPES[task.format], headers)
        if task.stream:
            return event_streams.build_stream_response(self.iter_transcript_events(task), headers)
        segments = task.transcript.get_segments(task.duration_s)
        text_formats = {"text": task.transcript.text + "\n", "srt": render_srt(segments), "vtt": render_vtt(segments)}
        if task.format in text_formats:
            return bytes_response(200, "text/plain; charset=utf-8", text_formats[task.format].encode(), headers)
        return json_response(200, self.build_transcript(task), headers)

    def build_transcript(self, task: Task) -> dict[str, Any]:
        """Return the body of a transcript in a JSON format."""
        return {**self._build_transcript(task), **self.transcript_fields}

    def _build_transcript(self, task: Task) -> dict[str, Any]:
        transcript, usage = task.transcript, self.build_usage(task)
        usage_fields = {"usage": usage} if usage else {}
        if task.format == "json":
            languages: dict[str, Any] = {
                "languages": [{"code": transcript.language_code}] if transcript.language_code else []
            }
            languages = languages if task.model.id == "gpt-transcribe" else {}
            return {
                "text": transcript.text,
                **({"duration": round(task.duration_s, 3)} if self.report_duration else {}),
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
        if not self.report_usage:
            return None
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
        shutdown = {"shutdown_date": model.shutdown_date} if self.has_shutdown_dates else {}
        return {"id": model.id, **self.card_fields, **shutdown}


def _is_valid_chunking_strategy(strategy: str) -> bool:
    if strategy == "auto":
        return True
    try:
        value = json.loads(strategy)
    except ValueError:
        return False
    return isinstance(value, dict) and value.get("type") == "server_vad" and set(value) <= set(_VAD_FIELDS)
