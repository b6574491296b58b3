"""The TheRouter dialect. TheRouter may substitute a model, which it reports in headers only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from . import model_fixtures
from .base import Headers, ParsedRequest, RequestInfo, Response, Task, json_response
from .billing import Billing
from .cost_records import build_therouter_generation
from .field_validation import Field, FieldPolicy, Findings, Refusal
from .model_fixtures import Model
from .openai_like import SPEECH_FORMATS, OpenAI
from .transcripts import add_emotion_tags

_FALLBACK_MODELS = {"speech": "alibaba/cosyvoice2-0.5b", "transcription": "alibaba/sensevoice-small"}
_RETRYABLE_STATUSES = (408, 429, 500, 502, 503, 504, 524, 529)
_ERROR_TYPES = {401: "authentication_error", 402: "payment_required", 403: "permission_error", 404: "not_found_error",
          408: "timeout_error", 429: "rate_limit_error"}  # fmt: skip


class TheRouter(OpenAI):
    name = "therouter"
    prefix = "/therouter/v1"
    outer_prefix = "/therouter/api/v1"
    keys = frozenset({"sk-tr-test"})
    models = model_fixtures.THEROUTER
    field_policy = FieldPolicy(unknown_fields="warn")
    supports_translation = False
    supports_jobs = True
    chat_dialect = None
    speech_fields: ClassVar[dict[str, Field]] = {
        "model": Field(required=True),
        "input": Field(required=True, min_length=1),
        "voice": Field(required=True),
        "response_format": Field(choices=SPEECH_FORMATS),
        "speed": Field("number", minimum=0.25, maximum=4.0),
    }
    form_fields: ClassVar[dict[str, Field]] = {
        name: OpenAI.form_fields[name]
        for name in ("model", "language", "prompt", "temperature", "timestamp_granularities[]")
    } | {"response_format": Field(choices=("json", "text", "srt", "verbose_json", "vtt"))}

    def build_error_body(self, refusal: Refusal, request_info: RequestInfo) -> Any:
        status = refusal.status
        kind = "upstream_error" if status >= 500 else _ERROR_TYPES.get(status, "invalid_request_error")
        metadata = {
            "provider": find_provider(request_info.model) if request_info.model else None,
            "request_id": f"req_{request_info.serial}",
            "retryable": status in _RETRYABLE_STATUSES,
        }
        return {"error": {"code": status, "type": kind, "message": refusal.message, "metadata": metadata}}

    def resolve_unknown_model(self, model: str, findings: Findings) -> None:
        findings.refuse(400, f"Unknown model: {model}", "model")

    def validate(self, request: ParsedRequest, findings: Findings) -> Task | None:
        task = super().validate(request, findings)
        return replace(task, provider=find_provider(task.model.id)) if task else None

    def build_speech_task(
        self, request: ParsedRequest, values: dict[str, Any], model: Model, findings: Findings
    ) -> Task:
        task = super().build_speech_task(request, values, model, findings)
        if model.voices is None and values["voice"] not in model_fixtures.SIX_VOICES:
            findings.warn(f"{model.id} has no voice {values['voice']} and uses its default voice")
        if "speed" in values and not model.supports_speed:
            findings.warn(f"speed has no effect on {model.id}")
        return task if model.supports_speed else replace(task, speed=1.0)

    def build_form_task(
        self, request: ParsedRequest, values: dict[str, Any], model: Model, findings: Findings, *, translate: bool
    ) -> Task | None:
        if "timestamp_granularities[]" in values:
            findings.warn("timestamp_granularities[] is not a documented field of this gateway")
        return super().build_form_task(request, values, model, findings, translate=translate)

    def substitute_model(self, task: Task, model: str | None, provider: str | None) -> Task:
        """Return the task with the fallback model, which may ignore speed."""
        name = model or _FALLBACK_MODELS[task.kind]
        substitute = self.models.get(name) or replace(task.model, id=name, supports_speed=False)
        speed = task.speed if substitute.supports_speed else 1.0
        return replace(
            task, model=substitute, speed=speed, provider=provider or find_provider(name), is_substituted=True
        )

    # --- responses ---------------------------------------------------------------------------------------------------

    def make_generation_id(self, task: Task, request_info: RequestInfo) -> str:
        return f"req_{request_info.serial}"

    def build_task_headers(self, task: Task, request_info: RequestInfo, generation_id: str | None) -> Headers:
        return ()

    def build_common_headers(self, request_info: RequestInfo, task: Task | None, status: int) -> Headers:
        model = task.model.id if task else request_info.model if request_info.model in self.models else None
        provider = task.provider if task else find_provider(model or "")
        route_headers = (("x-router-model", model), ("x-router-provider", provider)) if model and provider else ()
        return (
            ("x-request-id", f"req_{request_info.serial}"),
            ("x-router-request-id", f"req_{request_info.serial}"),
            *route_headers,
            ("x-router-fallback", "true" if task and task.is_substituted else "false"),
            ("x-router-latency-ms", "12"),
        )

    def build_response(self, task: Task, headers: Headers, *, cost_nanousd: int) -> Response:
        if task.model.add_tags:
            task = replace(task, transcript=add_emotion_tags(task.transcript, task.duration_s))
        return super().build_response(task, headers, cost_nanousd=cost_nanousd)

    def build_transcript(self, task: Task) -> dict[str, Any]:
        if task.format == "json":
            return {"text": task.transcript.text, "duration": round(task.duration_s, 3)}
        return super().build_transcript(task)

    def build_usage(self, task: Task) -> None:
        return None

    def handle_get(self, request: ParsedRequest, billing: Billing) -> Response | Refusal:
        if request.path == "/models":
            return json_response(
                200, {"data": [model_fixtures.build_short_card(model) for model in self.models.values()]}
            )
        if request.path == "/generation":
            charge = self.find_charge(request, billing)
            return (
                charge
                if isinstance(charge, Refusal)
                else json_response(200, {"data": build_therouter_generation(charge)})
            )
        if request.path == "/../api/v1/credits":
            return Refusal(403, "A management key is needed to see the credits of an account")
        return Refusal(404, f"Not found: {request.path}")


def find_provider(model: str) -> str:
    return "openai" if model.startswith("openai/") else "siliconflow"
