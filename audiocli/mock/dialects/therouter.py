"""The TheRouter dialect. TheRouter may substitute a model, which it reports in headers only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from .. import model_fixtures
from ..billing import Billing
from ..cost_records import build_therouter_generation
from ..field_validation import Field, FieldPolicy, Findings, Refusal
from ..messages import Headers, ParsedRequest, RequestInfo, Response, json_response
from ..model_fixtures import Model
from ..tasks import Task
from ..transcripts import add_emotion_tags
from .openai import COMMON_FORM_FIELDS, ROUTER_SPEECH_FIELDS, OpenAI

_FALLBACK_MODELS = {"speech": "alibaba/cosyvoice2-0.5b", "transcription": "alibaba/sensevoice-small"}
_RETRYABLE_STATUSES = (408, 429, 500, 502, 503, 504, 524, 529)


class TheRouter(OpenAI):
    name = "therouter"
    prefix = "/therouter/v1"
    outer_prefix = "/therouter/api/v1"
    key = "sk-tr-test"
    models = model_fixtures.THEROUTER
    field_policy = FieldPolicy(unknown_fields="warn")
    supports_translation = False
    supports_jobs = True
    chat_dialect = None
    unknown_model = Refusal(400, "Unknown model: {model}", "model")
    ignored_form_fields: ClassVar = {
        "timestamp_granularities[]": "timestamp_granularities[] is not a documented field of this gateway"
    }
    generation_id = "req_{serial}"
    task_headers: ClassVar = {}
    report_usage = False
    report_duration = True
    error_types: ClassVar = {
        401: "authentication_error",
        402: "payment_required",
        403: "permission_error",
        404: "not_found_error",
        408: "timeout_error",
        429: "rate_limit_error",
    }
    server_error_type = "upstream_error"
    speech_fields = ROUTER_SPEECH_FIELDS
    form_fields: ClassVar[dict[str, Field]] = COMMON_FORM_FIELDS | {
        "response_format": Field(choices=("json", "text", "srt", "verbose_json", "vtt"))
    }

    def build_error_body(self, refusal: Refusal, request_info: RequestInfo) -> Any:
        status = refusal.status
        metadata = {
            "provider": find_provider(request_info.model) if request_info.model else None,
            "request_id": f"req_{request_info.serial}",
            "retryable": status in _RETRYABLE_STATUSES,
        }
        return {
            "error": {
                "code": status,
                "type": self.get_error_type(status),
                "message": refusal.message,
                "metadata": metadata,
            }
        }

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

    def substitute_model(self, task: Task, model: str | None, provider: str | None) -> Task:
        """Return the task with the fallback model, which may ignore speed."""
        name = model or _FALLBACK_MODELS[task.kind]
        substitute = self.models.get(name) or replace(task.model, id=name, supports_speed=False)
        speed = task.speed if substitute.supports_speed else 1.0
        return replace(
            task, model=substitute, speed=speed, provider=provider or find_provider(name), is_substituted=True
        )

    # --- responses ---------------------------------------------------------------------------------------------------

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

    def handle_get(self, request: ParsedRequest, billing: Billing) -> Response | Refusal:
        if request.path == "/models":
            return json_response(
                200, {"data": [model_fixtures.build_short_card(model) for model in self.models.values()]}
            )
        if request.path == "/generation":
            return self.look_up_cost(request, billing, build_therouter_generation)
        if request.path == "/../api/v1/credits":
            return Refusal(403, "A management key is needed to see the credits of an account")
        return Refusal(404, f"Not found: {request.path}")


def find_provider(model: str) -> str:
    return "openai" if model.startswith("openai/") else "siliconflow"
