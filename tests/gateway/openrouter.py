"""The dialect of OpenRouter."""

from __future__ import annotations

import json
import time
from typing import Any, ClassVar

from . import shelf, talk
from .base import Ask, Dialect, Job, Reply, Turn, bytes_reply, file_extension, json_reply, sound_reply, unwrap_base64
from .bill import Bill
from .checks import Field, Findings, Manner, Refusal, check_fields
from .intake import Blob
from .records import openrouter_generation, openrouter_key
from .sound import speak
from .words import verbose_segments

MODALITIES = ("text", "image", "embeddings", "audio", "video", "rerank", "decisions", "speech", "transcription")
_ERROR_TYPES = {
    400: "invalid_request", 401: "authentication", 402: "payment_required", 403: "permission_denied", 404: "not_found",
    413: "payload_too_large", 422: "unprocessable", 429: "rate_limit_exceeded", 500: "server",
    502: "provider_unavailable", 503: "provider_overloaded", 504: "timeout", 529: "provider_overloaded",
}  # fmt: skip
_GRANULARITIES = Field("list", choices=("word", "segment"))
_HEARING = {
    "model": Field(required=True),
    "language": Field(),
    "temperature": Field("number", low=0, high=1),
    "response_format": Field(choices=("json", "verbose_json")),
}


class OpenRouter(Dialect):
    name = "openrouter"
    prefix = "/openrouter/api/v1"
    keys = frozenset({"sk-or-test"})
    models = shelf.OPENROUTER
    manner = Manner(unknown="remark")
    extensions: ClassVar[tuple[str, ...]] = (*Dialect.extensions, "aac", "opus", "aiff")
    translates = False
    talks: ClassVar[talk.Manners | None] = talk.Manners(
        fields=talk.ROUTED_FIELDS,
        takes=("wav", "mp3", "aiff", "aac", "ogg", "flac", "m4a", "pcm16", "pcm24"),
        must_stream=True,
        full_usage=True,
        tells_cost=True,
        comments=True,
    )
    speech_fields: ClassVar[dict[str, Field]] = {
        "model": Field(required=True),
        "input": Field(required=True, shortest=1),
        "voice": Field(shortest=1),
        "response_format": Field(choices=("mp3", "pcm")),
        "speed": Field("number"),
        "input_references": Field("list"),
        "provider": Field("object"),
    }
    form_fields: ClassVar[dict[str, Field]] = {
        **_HEARING,
        "timestamp_granularities[]": _GRANULARITIES,
        "prompt": Field(),
    }
    json_fields: ClassVar[dict[str, Field]] = {
        **_HEARING,
        "input_audio": Field("object", required=True),
        "timestamp_granularities": _GRANULARITIES,
        "provider": Field("object"),
    }
    audio_fields: ClassVar[dict[str, Field]] = {
        "data": Field(required=True, shortest=1),
        "format": Field(required=True),
    }

    def error(self, refusal: Refusal, turn: Turn) -> Any:
        if refusal.choices is not None:
            issue = {
                "code": "invalid_value",
                "values": list(refusal.choices),
                "path": [(refusal.param or "").removesuffix("[]")],
                "message": "Invalid option: expected one of " + "|".join(f'"{c}"' for c in refusal.choices),
            }
            return {"success": False, "error": {"name": "ZodError", "message": json.dumps([issue], indent=2)}}
        error: dict[str, Any] = {"code": refusal.status, "message": refusal.message}
        if refusal.status in _ERROR_TYPES:
            error["metadata"] = {"error_type": _ERROR_TYPES[refusal.status]}
        return {"error": error, "user_id": "user_loopback"}

    def unknown_model(self, model: str, findings: Findings) -> None:
        if "/" in model:
            findings.refuse(404, f"No endpoints found for {model}.", "model")
        else:
            findings.refuse(400, f"{model} is not a valid model ID", "model")

    def accept_speech(self, ask: Ask, values: dict[str, Any], model: shelf.Model, findings: Findings) -> Job:
        asked = values.get("response_format", "pcm")
        if model.formats and asked not in model.formats:
            findings.refuse(400, f"{model.id} supports only response_format {', '.join(model.formats)}")
        if model.voice_required and "voice" not in values:
            findings.refuse(400, f"{model.id} has no default voice: an explicit voice is required", "voice")
        if "speed" in values and not model.obeys_speed:
            findings.remark(f"speed has no effect on {model.id}")
        self._check_provider(values.get("provider"), findings)
        self._check_references(values.get("input_references"), model, findings)
        speed = float(values.get("speed", 1)) if model.obeys_speed else 1.0
        return Job("speech", model, text=values["input"], format=asked, speed=speed)

    def accept_json_audio(self, ask: Ask, findings: Findings) -> Job | None:
        values = ask.json
        if not isinstance(values, dict):
            findings.refuse(400, "Invalid JSON body")
            return None
        check_fields(values, self.json_fields, findings, self.manner)
        self._check_provider(values.get("provider"), findings)
        audio = values.get("input_audio")
        if isinstance(audio, dict):
            check_fields(audio, self.audio_fields, findings, self.manner)
            if isinstance(audio.get("data"), str | Blob):
                ask.audio = unwrap_base64(audio["data"], findings, "input_audio.data")
        model = self.find_model(values.get("model"), "transcription", findings)
        if model is None or findings.refusals:
            return None
        granularities = values.get("timestamp_granularities", ["segment"])
        job = self._accept_audio(
            ask, values, model, findings, claimed=values["input_audio"]["format"], granularities=granularities
        )
        return None if findings.refusals else job

    def accept_form(
        self, ask: Ask, values: dict[str, Any], model: shelf.Model, findings: Findings, *, translate: bool
    ) -> Job | None:
        if "prompt" in values:
            findings.remark("prompt is ignored in a form")
        granularities = values.get("timestamp_granularities[]", ["segment"])
        extension = file_extension(ask)
        return self._accept_audio(ask, values, model, findings, claimed=extension, granularities=granularities)

    def _accept_audio(
        self,
        ask: Ask,
        values: dict[str, Any],
        model: shelf.Model,
        findings: Findings,
        *,
        claimed: str,
        granularities: list[str],
    ) -> Job:
        self.check_language(values.get("language"), findings)
        asked = values.get("response_format", "json")
        if asked not in model.reply_formats:
            findings.refuse(400, f"{model.id} does not support response_format {asked}", "response_format")
        found, duration_s = self.hear(ask, claimed, findings, model)
        return Job(
            "transcription",
            model,
            format=asked,
            duration_s=duration_s,
            audio_format=found,
            granularities=tuple(granularities),
        )

    def _check_provider(self, provider: Any, findings: Findings) -> None:
        if not isinstance(provider, dict):
            return
        for name in provider.keys() - {"options"}:
            findings.remark(f"provider.{name} has no effect on audio")
        options = provider.get("options", {})
        if not isinstance(options, dict) or not all(isinstance(value, dict) for value in options.values()):
            findings.refuse(400, "Invalid provider.options: expected an object of objects", "provider")

    def _check_references(self, references: Any, model: shelf.Model, findings: Findings) -> None:
        if not isinstance(references, list):
            return
        kinds = [part.get("type") if isinstance(part, dict) else None for part in references]
        if kinds.count("input_audio") != 1 or kinds.count("text") > 1 or set(kinds) - {"input_audio", "text"}:
            findings.refuse(400, "input_references needs one input_audio and at most one text", "input_references")
        elif not model.clones:
            findings.refuse(404, f"No endpoints of {model.id} support voice cloning", "input_references")

    def generation_id(self, job: Job, turn: Turn) -> str:
        kind = {"speech": "tts-", "chat": ""}.get(job.kind, "stt-")
        return f"gen-{kind}{int(time.time())}-{turn.serial}"

    def job_headers(self, job: Job, turn: Turn, generation_id: str | None) -> tuple[tuple[str, str], ...]:
        return (("X-Generation-Id", generation_id),) if generation_id else ()

    def reply(self, job: Job, headers: tuple[tuple[str, str], ...], *, cost_nanousd: int) -> Reply:
        if job.kind == "chat":
            id_ = next((value for name, value in headers if name == "X-Generation-Id"), "gen-0")
            return talk.reply(job, id_, headers, cost_nanousd=cost_nanousd)
        if job.kind == "speech":
            content_type = "audio/mpeg" if job.format == "mp3" else "audio/pcm;rate=24000;channels=1"
            return sound_reply(speak(job.text, job.format, speed=job.speed), content_type, headers)
        return json_reply(200, self._transcript(job, cost_nanousd), headers)

    def _transcript(self, job: Job, cost_nanousd: int) -> dict[str, Any]:
        said = job.said
        usage: dict[str, Any] = {"seconds": job.model.billed_seconds(job.duration_s), "cost": cost_nanousd / 1e9}
        if job.model.unit == "token":
            heard, written = shelf.tokens(job.duration_s, said.text)
            usage |= {"input_tokens": heard, "output_tokens": written, "total_tokens": heard + written}
        if job.format == "json":
            return {"text": said.text, "usage": usage}
        reply: dict[str, Any] = {
            "text": said.text,
            "task": "transcribe",
            "language": said.language,
            "duration": round(job.duration_s, 3),
            "segments": verbose_segments(said.timed_segments(job.duration_s)),
            "usage": usage,
        }
        if "word" in job.granularities:
            words = said.timed_words(job.duration_s)
            reply["words"] = [{"word": f" {word}", "start": start, "end": end} for word, start, end in words]
        return reply

    def open_to_all(self, ask: Ask) -> bool:
        return ask.path.startswith("/model")

    def look_up(self, ask: Ask, bill: Bill) -> Reply | Refusal:
        if ask.path == "/generation":
            entry = self.finished(ask, bill)
            return entry if isinstance(entry, Refusal) else json_reply(200, {"data": openrouter_generation(entry)})
        if ask.path == "/key":
            return json_reply(200, {"data": openrouter_key(bill)})
        if ask.path in ("/models", "/models/count"):
            return self._models(ask)
        if ask.path == "/credits":
            return Refusal(403, "Only management keys can fetch credits for an account")
        if ask.path.startswith("/models/") and ask.path.endswith("/endpoints"):
            model = self.models.get(ask.path.removeprefix("/models/").removesuffix("/endpoints"))
            return json_reply(200, {"data": _endpoints(model)}) if model else Refusal(404, "Model not found")
        if ask.path.startswith("/model/"):
            model = self.models.get(ask.path.removeprefix("/model/"))
            return json_reply(200, {"data": shelf.openrouter_card(model)}) if model else Refusal(404, "Model not found")
        return Refusal(404, f"Not found: {ask.path}")

    def _models(self, ask: Ask) -> Reply | Refusal:
        wanted = ask.query.get("output_modalities", "text").split(",")
        if any(word not in (*MODALITIES, "all") for word in wanted):
            return Refusal(400, "Invalid output_modalities", "output_modalities", choices=(*MODALITIES, "all"))
        cards = [shelf.openrouter_card(model) for model in self.models.values()]
        query = ask.query.get("q", "").lower()
        cards = [
            card
            for card in cards
            if ("all" in wanted or set(wanted) & set(card["architecture"]["output_modalities"])) and query in card["id"]
        ]
        if ask.path == "/models/count":
            return json_reply(200, {"data": {"count": len(cards)}})
        total = len(cards)
        if "offset" in ask.query or "limit" in ask.query:
            start = int(ask.query.get("offset", 0))
            cards = cards[start : start + int(ask.query.get("limit", 500))]
        body = {"data": cards, "total_count": total, "links": {"next": None}}
        return bytes_reply(200, "application/json; charset=utf-8", json.dumps(body).encode())


def _endpoints(model: shelf.Model) -> dict[str, Any]:
    endpoint = {
        "name": f"Acme | {model.id}",
        "provider_name": "Acme",
        "tag": "acme",
        "pricing": {"prompt": model.price, "completion": model.output_price},
        "status": 0,
        "uptime_last_30m": 100.0,
        "supported_parameters": [],
        "supports_voice_cloning": model.clones,
    }
    return {**shelf.openrouter_card(model), "endpoints": [endpoint]}
