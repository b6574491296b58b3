"""The dialect of TheRouter, which may let another model do the work and tells it in headers alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from . import shelf
from .base import Ask, Job, Reply, Turn, json_reply
from .bill import Bill
from .checks import Field, Findings, Manner, Refusal
from .openai_like import SIX_FORMATS, OpenAI
from .records import therouter_generation
from .words import tagged

_FALLBACKS = {"speech": "alibaba/cosyvoice2-0.5b", "transcription": "alibaba/sensevoice-small"}
_RETRYABLE = (408, 429, 500, 502, 503, 504, 524, 529)
_TYPES = {401: "authentication_error", 402: "payment_required", 403: "permission_error", 404: "not_found_error",
          408: "timeout_error", 429: "rate_limit_error"}  # fmt: skip


class TheRouter(OpenAI):
    name = "therouter"
    prefix = "/therouter/v1"
    beside = "/therouter/api/v1"
    keys = frozenset({"sk-tr-test"})
    models = shelf.THEROUTER
    manner = Manner(unknown="remark")
    translates = False
    has_jobs = True
    talks = None
    speech_fields: ClassVar[dict[str, Field]] = {
        "model": Field(required=True),
        "input": Field(required=True, shortest=1),
        "voice": Field(required=True),
        "response_format": Field(choices=SIX_FORMATS),
        "speed": Field("number", low=0.25, high=4.0),
    }
    form_fields: ClassVar[dict[str, Field]] = {
        name: OpenAI.form_fields[name]
        for name in ("model", "language", "prompt", "temperature", "timestamp_granularities[]")
    } | {"response_format": Field(choices=("json", "text", "srt", "verbose_json", "vtt"))}

    def error(self, refusal: Refusal, turn: Turn) -> Any:
        status = refusal.status
        kind = "upstream_error" if status >= 500 else _TYPES.get(status, "invalid_request_error")
        metadata = {
            "provider": provider_of(turn.model) if turn.model else None,
            "request_id": f"req_{turn.serial}",
            "retryable": status in _RETRYABLE,
        }
        return {"error": {"code": status, "type": kind, "message": refusal.message, "metadata": metadata}}

    def unknown_model(self, model: str, findings: Findings) -> None:
        findings.refuse(400, f"Unknown model: {model}", "model")

    def accept(self, ask: Ask, findings: Findings) -> Job | None:
        job = super().accept(ask, findings)
        return replace(job, provider=provider_of(job.model.id)) if job else None

    def accept_speech(self, ask: Ask, values: dict[str, Any], model: shelf.Model, findings: Findings) -> Job:
        job = super().accept_speech(ask, values, model, findings)
        if model.voices is None and values["voice"] not in shelf.SIX_VOICES:
            findings.remark(f"{model.id} knows no voice {values['voice']}: its default voice speaks")
        if "speed" in values and not model.obeys_speed:
            findings.remark(f"speed has no effect on {model.id}")
        return job if model.obeys_speed else replace(job, speed=1.0)

    def accept_form(
        self, ask: Ask, values: dict[str, Any], model: shelf.Model, findings: Findings, *, translate: bool
    ) -> Job | None:
        if "timestamp_granularities[]" in values:
            findings.remark("timestamp_granularities[] is no listed field of this gateway")
        return super().accept_form(ask, values, model, findings, translate=translate)

    def swap(self, job: Job, model: str | None, provider: str | None) -> Job:
        """Give the work to the model that stands in, which knows nothing of speed."""
        name = model or _FALLBACKS[job.kind]
        other = self.models.get(name) or replace(job.model, id=name, obeys_speed=False)
        speed = job.speed if other.obeys_speed else 1.0
        return replace(job, model=other, speed=speed, provider=provider or provider_of(name), swapped=True)

    # --- replies -----------------------------------------------------------------------------------------------------

    def generation_id(self, job: Job, turn: Turn) -> str:
        return f"req_{turn.serial}"

    def job_headers(self, job: Job, turn: Turn, generation_id: str | None) -> tuple[tuple[str, str], ...]:
        return ()

    def standing_headers(self, turn: Turn, job: Job | None, status: int) -> tuple[tuple[str, str], ...]:
        model = job.model.id if job else turn.model if turn.model in self.models else None
        provider = job.provider if job else provider_of(model or "")
        routed = (("x-router-model", model), ("x-router-provider", provider)) if model and provider else ()
        return (
            ("x-request-id", f"req_{turn.serial}"),
            ("x-router-request-id", f"req_{turn.serial}"),
            *routed,
            ("x-router-fallback", "true" if job and job.swapped else "false"),
            ("x-router-latency-ms", "12"),
        )

    def reply(self, job: Job, headers: tuple[tuple[str, str], ...], *, cost_nanousd: int) -> Reply:
        if job.model.tagged:
            job = replace(job, said=tagged(job.said, job.duration_s))
        return super().reply(job, headers, cost_nanousd=cost_nanousd)

    def transcript(self, job: Job) -> dict[str, Any]:
        if job.format == "json":
            return {"text": job.said.text, "duration": round(job.duration_s, 3)}
        return super().transcript(job)

    def usage(self, job: Job) -> None:
        return None

    def look_up(self, ask: Ask, bill: Bill) -> Reply | Refusal:
        if ask.path == "/models":
            return json_reply(200, {"data": [shelf.short_card(model) for model in self.models.values()]})
        if ask.path == "/generation":
            entry = self.finished(ask, bill)
            return entry if isinstance(entry, Refusal) else json_reply(200, {"data": therouter_generation(entry)})
        if ask.path == "/../api/v1/credits":
            return Refusal(403, "A management key is needed to see the credits of an account")
        return Refusal(404, f"Not found: {ask.path}")


def provider_of(model: str) -> str:
    return "openai" if model.startswith("openai/") else "siliconflow"
