"""The dialect of a plain OpenAI-compatible server of one's own, in the manner of speaches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from . import events, shelf
from .base import Ask, Job, Reply, Turn, json_reply
from .bill import Bill
from .checks import Field, Findings, Manner, Refusal
from .openai_like import OpenAI


class Plain(OpenAI):
    """A server at home: no key, unknown fields pass, FastAPI's errors, and voices that can be listed.

    Any model goes, except that a name with `missing` in it is not installed.
    """

    name = "plain"
    prefix = "/plain/v1"
    keys = None
    models = shelf.PLAIN
    manner = Manner(unknown="ignore", status=422)
    upload_bytes = None
    extensions: ClassVar[tuple[str, ...]] = (*OpenAI.extensions, "aac", "opus")
    bare_words = False
    never_streams = ()
    speech_fields: ClassVar[dict[str, Field]] = OpenAI.speech_fields | {
        "input": Field(required=True),
        "voice": Field(),
        "sample_rate": Field("number", low=8000, high=48000),
    }
    form_fields: ClassVar[dict[str, Field]] = {
        name: OpenAI.form_fields[name]
        for name in ("model", "language", "prompt", "temperature", "timestamp_granularities[]", "stream")
    } | {
        "response_format": Field(choices=("json", "text", "srt", "verbose_json", "vtt")),
        "hotwords": Field(),
        "without_timestamps": Field("boolean"),
    }

    def error(self, refusal: Refusal, turn: Turn) -> Any:
        if refusal.status == 422:
            where = ["body", *([refusal.param] if refusal.param else [])]
            return {"detail": [{"loc": where, "msg": refusal.message, "type": refusal.code or "value_error"}]}
        return {"detail": refusal.message}

    def unknown_model(self, model: str, findings: Findings) -> shelf.Model | None:
        if "missing" in model:
            findings.refuse(404, f"Model '{model}' is not installed locally.", "model")
            return None
        if "talk" in model.lower():
            return shelf.Model(model, "chat")
        hears = any(word in model.lower() for word in ("whisper", "transcri", "stt", "parakeet"))
        replies = shelf.PLAIN["whisper-1"].reply_formats
        return shelf.Model(model, "transcription" if hears else "speech", obeys_speed=True, reply_formats=replies)

    def check_language(self, language: Any, findings: Findings) -> None:
        return None

    def usage(self, job: Job) -> None:
        return None

    def speech_usage(self, job: Job) -> dict[str, Any]:
        return {"token_usage": dict.fromkeys(("input_tokens", "output_tokens", "total_tokens"), 0)}

    def text_events(self, job: Job) -> Iterator[bytes]:
        """Give a segment in each event, with the space before it that whisper makes."""
        for text, _, _ in job.said.timed_segments(job.duration_s):
            yield events.event({"type": "transcript.text.delta", "delta": f" {text}"})
        yield events.event({"type": "transcript.text.done", "text": job.said.text})

    def look_up(self, ask: Ask, bill: Bill) -> Reply | Refusal:
        if ask.path == "/audio/voices":
            names = [voice for model in self.models.values() for voice in model.voices or ()]
            voices = [{"id": name, "name": name, "language": "en-us"} for name in names]
            return json_reply(200, {"voices": voices})
        if ask.path == "/audio/models":
            return json_reply(200, {"models": [self.card(m) for m in self.models.values() if m.kind == "speech"]})
        task = ask.query.get("task")
        if ask.path == "/models" and task:
            cards = [self.card(model) for model in self.models.values()]
            return json_reply(200, {"object": "list", "data": [card for card in cards if card["task"] == task]})
        return super().look_up(ask, bill)

    def card(self, model: shelf.Model) -> dict[str, Any]:
        task = "text-to-speech" if model.kind == "speech" else "automatic-speech-recognition"
        return {"id": model.id, "object": "model", "created": 0, "owned_by": "home", "language": ["en"], "task": task}
