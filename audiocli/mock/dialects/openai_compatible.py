"""The dialect of a self-hosted OpenAI-compatible server, modeled on speaches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from .. import event_streams, model_fixtures
from ..billing import Billing
from ..field_validation import Field, FieldPolicy, Findings, Refusal
from ..messages import ParsedRequest, RequestInfo, Response, json_response
from ..model_fixtures import Model
from ..tasks import Task
from .openai import COMMON_FORM_FIELDS, OpenAI


class OpenAICompatible(OpenAI):
    """A self-hosted server: no key, unknown fields are ignored, errors of FastAPI, and a list of voices.

    Every model name is accepted, except names that contain `missing`.
    """

    name = "plain"
    prefix = "/plain/v1"
    key = None
    models = model_fixtures.OPENAI_COMPATIBLE
    field_policy = FieldPolicy(unknown_fields="ignore", status=422)
    max_upload_bytes = None
    upload_extensions: ClassVar[tuple[str, ...]] = (*OpenAI.upload_extensions, "aac", "opus")
    unknown_model = Refusal(404, "Model '{model}' is not installed locally.", "model")
    language_pattern = None
    strip_punctuation = False
    report_usage = False
    card_fields: ClassVar = {"object": "model", "created": 0, "owned_by": "home", "language": ["en"]}
    has_shutdown_dates = False
    models_ignoring_stream = ()
    speech_fields: ClassVar[dict[str, Field]] = OpenAI.speech_fields | {
        "input": Field(required=True),
        "voice": Field(),
        "sample_rate": Field("number", minimum=8000, maximum=48000),
    }
    form_fields: ClassVar[dict[str, Field]] = COMMON_FORM_FIELDS | {
        "stream": Field("boolean"),
        "response_format": Field(choices=("json", "text", "srt", "verbose_json", "vtt")),
        "hotwords": Field(),
        "without_timestamps": Field("boolean"),
    }

    def build_error_body(self, refusal: Refusal, request_info: RequestInfo) -> Any:
        if refusal.status == 422:
            location = ["body", *([refusal.param] if refusal.param else [])]
            return {"detail": [{"loc": location, "msg": refusal.message, "type": refusal.code or "value_error"}]}
        return {"detail": refusal.message}

    def resolve_unknown_model(self, model: str, findings: Findings) -> Model | None:
        if "missing" in model:
            return super().resolve_unknown_model(model, findings)
        if "talk" in model.lower():
            return Model(model, "chat")
        is_transcription = any(word in model.lower() for word in ("whisper", "transcri", "stt", "parakeet"))
        response_formats = model_fixtures.OPENAI_COMPATIBLE["whisper-1"].response_formats
        return Model(
            model,
            "transcription" if is_transcription else "speech",
            supports_speed=True,
            response_formats=response_formats,
        )

    def build_speech_usage(self, task: Task) -> dict[str, Any]:
        return {"token_usage": dict.fromkeys(("input_tokens", "output_tokens", "total_tokens"), 0)}

    def iter_transcript_events(self, task: Task) -> Iterator[bytes]:
        """Yield one segment in each event, with the leading space of Whisper."""
        for text, _, _ in task.transcript.get_segments(task.duration_s):
            yield event_streams.encode_event({"type": "transcript.text.delta", "delta": f" {text}"})
        yield event_streams.encode_event({"type": "transcript.text.done", "text": task.transcript.text})

    def handle_get(self, request: ParsedRequest, billing: Billing) -> Response | Refusal:
        if request.path == "/audio/voices":
            names = [voice for model in self.models.values() for voice in model.voices or ()]
            voices = [{"id": name, "name": name, "language": "en-us"} for name in names]
            return json_response(200, {"voices": voices})
        if request.path == "/audio/models":
            return json_response(
                200, {"models": [self.build_card(m) for m in self.models.values() if m.kind == "speech"]}
            )
        task = request.query.get("task")
        if request.path == "/models" and task:
            cards = [self.build_card(model) for model in self.models.values()]
            return json_response(200, {"object": "list", "data": [card for card in cards if card["task"] == task]})
        return super().handle_get(request, billing)

    def build_card(self, model: Model) -> dict[str, Any]:
        task = "text-to-speech" if model.kind == "speech" else "automatic-speech-recognition"
        return {**super().build_card(model), "task": task}
