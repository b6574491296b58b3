"""The dialect of ARouter: OpenAI's shapes, OpenRouter's list of models, a small limit, and limits told in headers."""

from __future__ import annotations

import re
import time
from typing import Any, ClassVar

from . import shelf, talk
from .base import Ask, Job, Reply, Turn, json_reply
from .bill import Bill
from .checks import Field, Findings, Manner, Refusal
from .openai_like import SIX_FORMATS, OpenAI
from .records import arouter_generation, arouter_key

REQUESTS_A_WINDOW = 1000
WINDOW_S = 10
START_USD = 25.0
_BCP_47 = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_TYPES = {401: "authentication_error", 402: "payment_required", 403: "permission_error", 429: "rate_limit_error"}
_MODALITIES = ("all", "text", "image", "audio", "embeddings")
_GRANULARITIES = Field("list", choices=("word", "segment"))


class ARouter(OpenAI):
    """The id of a request is in `x-request-id`."""

    name = "arouter"
    prefix = "/arouter/v1"
    beside = "/arouter/api/v1"
    keys = frozenset({"lr_live_test"})
    models = shelf.AROUTER
    manner = Manner(unknown="remark")
    upload_bytes = 10_485_760
    bare_words = False
    talks: ClassVar[talk.Manners | None] = talk.Manners(
        takes=("wav", "mp3", "ogg", "flac", "m4a", "webm"), tells_cost=True
    )
    speech_fields: ClassVar[dict[str, Field]] = {
        "model": Field(required=True),
        "input": Field(required=True, shortest=1),
        "voice": Field(required=True),
        "response_format": Field(choices=SIX_FORMATS),
        "speed": Field("number", low=0.25, high=4.0),
    }
    form_fields: ClassVar[dict[str, Field]] = {
        "model": Field(required=True),
        "language": Field(),
        "prompt": Field(),
        "response_format": Field(choices=("json", "text", "srt", "verbose_json", "vtt")),
        "temperature": Field("number", low=0, high=1),
        "timestamp_granularities": _GRANULARITIES,
        "timestamp_granularities[]": _GRANULARITIES,
    }

    def error(self, refusal: Refusal, turn: Turn) -> Any:
        kind = "server_error" if refusal.status >= 500 else _TYPES.get(refusal.status, "invalid_request_error")
        return {"error": {"message": refusal.message, "type": kind}}

    def unknown_model(self, model: str, findings: Findings) -> shelf.Model | None:
        """A name without an author is one of OpenAI's."""
        known = self.models.get(f"openai/{model}")
        if known is None:
            findings.refuse(400, f"Unknown model: {model}", "model")
        return known

    def accept_form(
        self, ask: Ask, values: dict[str, Any], model: shelf.Model, findings: Findings, *, translate: bool
    ) -> Job | None:
        if "timestamp_granularities" in values:
            asked = values.pop("timestamp_granularities")
            values["timestamp_granularities[]"] = [*values.get("timestamp_granularities[]", ()), *asked]
        for name in ("prompt", "temperature"):
            if translate and name in values:
                findings.remark(f"{name} is no listed field of translations")
        return super().accept_form(ask, values, model, findings, translate=translate)

    def check_language(self, language: Any, findings: Findings) -> None:
        if isinstance(language, str) and not _BCP_47.fullmatch(language):
            findings.refuse(400, f"Invalid language '{language}'", "language")

    # --- replies -----------------------------------------------------------------------------------------------------

    def generation_id(self, job: Job, turn: Turn) -> str:
        return f"req_{turn.serial}"

    def job_headers(self, job: Job, turn: Turn, generation_id: str | None) -> tuple[tuple[str, str], ...]:
        return ()

    def standing_headers(self, turn: Turn, job: Job | None, status: int) -> tuple[tuple[str, str], ...]:
        left = 0 if status == 429 else max(0, REQUESTS_A_WINDOW - int(turn.serial))
        return (
            ("x-request-id", f"req_{turn.serial}"),
            ("X-RateLimit-Limit", str(REQUESTS_A_WINDOW)),
            ("X-RateLimit-Remaining", str(left)),
            ("X-RateLimit-Reset", str(int(time.time()) + WINDOW_S)),
        )

    def usage(self, job: Job) -> None:
        return None

    def look_up(self, ask: Ask, bill: Bill) -> Reply | Refusal:
        if ask.path == "/models":
            return self._models(ask.query.get("output_modalities", "text").split(","))
        if ask.path == "/key":
            return json_reply(200, {"data": arouter_key(bill)})
        if ask.path == "/../api/v1/balance":
            left = START_USD - bill.total_nanousd(self.name) / 1e9
            return json_reply(200, {"balance": left, "currency": "USD"})
        if ask.path == "/../api/v1/generation":
            entry = self.finished(ask, bill)
            return entry if isinstance(entry, Refusal) else json_reply(200, arouter_generation(entry))
        return Refusal(404, f"Not found: {ask.path}")

    def _models(self, wanted: list[str]) -> Reply | Refusal:
        if any(word not in _MODALITIES for word in wanted):
            return Refusal(400, f"Invalid output_modalities: {','.join(wanted)}", "output_modalities")
        cards = [shelf.narrow_card(model) for model in self.models.values()]
        if "all" not in wanted:
            cards = [card for card in cards if set(wanted) & set(card["architecture"]["output_modalities"])]
        return json_reply(200, {"data": cards})
