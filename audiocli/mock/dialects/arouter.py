"""The ARouter dialect: OpenAI's schemas, OpenRouter's model list, 10 MB uploads and rate limits in headers."""

from __future__ import annotations

import re
import time
from typing import Any, ClassVar

from .. import chat_replies, model_fixtures
from ..billing import Billing
from ..cost_records import build_arouter_generation, build_arouter_key
from ..field_validation import Field, FieldPolicy, Findings, Refusal
from ..messages import Headers, ParsedRequest, RequestInfo, Response, json_response
from ..model_fixtures import Model
from ..tasks import ChatDialect, Task
from .openai import COMMON_FORM_FIELDS, ROUTER_SPEECH_FIELDS, OpenAI

REQUESTS_PER_WINDOW = 1000
WINDOW_S = 10
INITIAL_BALANCE_USD = 25.0
_MODALITIES = ("all", "text", "image", "audio", "embeddings")


class ARouter(OpenAI):
    """ARouter. The generation ID is the value of `x-request-id`."""

    name = "arouter"
    prefix = "/arouter/v1"
    outer_prefix = "/arouter/api/v1"
    key = "lr_live_test"
    models = model_fixtures.AROUTER
    field_policy = FieldPolicy(unknown_fields="warn")
    max_upload_bytes = 10_485_760
    unknown_model = Refusal(400, "Unknown model: {model}", "model")
    language_pattern = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")  # BCP 47
    language_refusal = Refusal(400, "Invalid language '{language}'", "language")
    ignored_translation_fields: ClassVar = {
        name: f"{name} is not a documented field of translations" for name in ("prompt", "temperature")
    }
    chat_dialect = ChatDialect(
        chat_replies.CHAT_FIELDS, audio_formats=("wav", "mp3", "ogg", "flac", "m4a", "webm"), report_cost=True
    )
    generation_id = "req_{serial}"
    task_headers: ClassVar = {}
    strip_punctuation = False
    report_usage = False
    error_fields = ("message", "type")
    error_types: ClassVar = {
        401: "authentication_error",
        402: "payment_required",
        403: "permission_error",
        429: "rate_limit_error",
    }
    speech_fields = ROUTER_SPEECH_FIELDS
    form_fields: ClassVar[dict[str, Field]] = COMMON_FORM_FIELDS | {
        "response_format": Field(choices=("json", "text", "srt", "verbose_json", "vtt")),
        "timestamp_granularities": COMMON_FORM_FIELDS["timestamp_granularities[]"],
    }

    def resolve_unknown_model(self, model: str, findings: Findings) -> Model | None:
        """Resolve a name without an author as a model of OpenAI."""
        return self.models.get(f"openai/{model}") or super().resolve_unknown_model(model, findings)

    def build_form_task(
        self, request: ParsedRequest, values: dict[str, Any], model: Model, findings: Findings, *, translate: bool
    ) -> Task | None:
        if "timestamp_granularities" in values:
            requested = values.pop("timestamp_granularities")
            values["timestamp_granularities[]"] = [*values.get("timestamp_granularities[]", ()), *requested]
        return super().build_form_task(request, values, model, findings, translate=translate)

    # --- responses ---------------------------------------------------------------------------------------------------

    def build_common_headers(self, request_info: RequestInfo, task: Task | None, status: int) -> Headers:
        remaining = 0 if status == 429 else max(0, REQUESTS_PER_WINDOW - int(request_info.serial))
        return (
            ("x-request-id", f"req_{request_info.serial}"),
            ("X-RateLimit-Limit", str(REQUESTS_PER_WINDOW)),
            ("X-RateLimit-Remaining", str(remaining)),
            ("X-RateLimit-Reset", str(int(time.time()) + WINDOW_S)),
        )

    def handle_get(self, request: ParsedRequest, billing: Billing) -> Response | Refusal:
        if request.path == "/models":
            return self._list_models(request.query.get("output_modalities", "text").split(","))
        if request.path == "/key":
            return json_response(200, {"data": build_arouter_key(billing)})
        if request.path == "/../api/v1/balance":
            balance_usd = INITIAL_BALANCE_USD - billing.total_nanousd(self.name) / 1e9
            return json_response(200, {"balance": balance_usd, "currency": "USD"})
        if request.path == "/../api/v1/generation":
            return self.look_up_cost(request, billing, build_arouter_generation)
        return Refusal(404, f"Not found: {request.path}")

    def _list_models(self, modalities: list[str]) -> Response | Refusal:
        if any(modality not in _MODALITIES for modality in modalities):
            return Refusal(400, f"Invalid output_modalities: {','.join(modalities)}", "output_modalities")
        cards = [model_fixtures.build_narrow_card(model) for model in self.models.values()]
        if "all" not in modalities:
            cards = [card for card in cards if set(modalities) & set(card["architecture"]["output_modalities"])]
        return json_response(200, {"data": cards})
