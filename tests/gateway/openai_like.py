"""The dialects of OpenAI and Groq."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, ClassVar

from . import events, shelf, talk
from .base import Ask, Dialect, Job, Reply, Turn, bytes_reply, file_extension, json_reply, sound_reply
from .bill import Bill
from .checks import Field, Findings, Refusal
from .sound import CONTENT_TYPES, speak
from .words import diarized_segments, srt, verbose_segments, vtt

SIX_FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")
_VAD = ("type", "threshold", "prefix_padding_ms", "silence_duration_ms")
_LISTS = ("timestamp_granularities[]", "include[]", "languages[]", "keywords[]")
_CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded", 402: "insufficient_quota"}
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "requests"}


class OpenAI(Dialect):
    name = "openai"
    prefix = "/openai/v1"
    keys: ClassVar[frozenset[str] | None] = frozenset({"sk-test"})
    models = shelf.OPENAI
    speech_fields: ClassVar[dict[str, Field]] = {
        "model": Field(required=True),
        "input": Field(required=True, shortest=1, longest=4096),
        "voice": Field("any", required=True),
        "instructions": Field(longest=4096),
        "response_format": Field(choices=SIX_FORMATS),
        "speed": Field("number", low=0.25, high=4.0),
        "stream_format": Field(choices=("audio", "sse")),
    }
    form_fields: ClassVar[dict[str, Field]] = {
        "model": Field(required=True),
        "language": Field(),
        "prompt": Field(),
        "response_format": Field(choices=("json", "text", "srt", "verbose_json", "vtt", "diarized_json")),
        "temperature": Field("number", low=0, high=1),
        "timestamp_granularities[]": Field("list", choices=("word", "segment")),
        "include[]": Field("list", choices=("logprobs",)),
        "languages[]": Field("list"),
        "keywords[]": Field("list"),
        "stream": Field("boolean"),
        "chunking_strategy": Field(),
        **{f"chunking_strategy[{name}]": Field() for name in _VAD},
        "known_speaker_names[]": Field("list", longest=4),
        "known_speaker_references[]": Field("list", longest=4),
    }
    talks: ClassVar[talk.Manners | None] = talk.Manners()
    default_format: ClassVar[str] = "mp3"
    never_streams: ClassVar[tuple[str, ...]] = ("whisper-1",)
    """Models that take `stream` and pay no heed to it."""
    bare_words: ClassVar[bool] = True
    """Words come without punctuation, as whisper-1 of OpenAI gives them; elsewhere with it, after a space."""

    def error(self, refusal: Refusal, turn: Turn) -> Any:
        code = refusal.code or _CODES.get(refusal.status)
        kind = "server_error" if refusal.status >= 500 else _TYPES.get(refusal.status, "invalid_request_error")
        return {"error": {"message": refusal.message, "type": kind, "param": refusal.param, "code": code}}

    def unknown_model(self, model: str, findings: Findings) -> shelf.Model | None:
        words = f"The model `{model}` does not exist or you do not have access to it."
        findings.refuse(404, words, None, "model_not_found")
        return None

    def accept_speech(self, ask: Ask, values: dict[str, Any], model: shelf.Model, findings: Findings) -> Job:
        voice = values.get("voice")
        named = isinstance(voice, dict) and set(voice) == {"id"} and isinstance(voice["id"], str)
        if voice is not None and not isinstance(voice, str) and not named:
            findings.refuse(self.manner.status, "Invalid type for 'voice'.", "voice", "invalid_type")
        old = model.id in ("tts-1", "tts-1-hd")
        if old and values.get("stream_format") == "sse":
            findings.refuse(400, f"stream_format sse is not supported by {model.id}", "stream_format")
        if old and "instructions" in values:
            findings.remark(f"instructions have no effect on {model.id}")
        return Job(
            "speech",
            model,
            text=values["input"],
            format=values.get("response_format", self.default_format),
            speed=float(values.get("speed", 1)),
            rate_hz=int(values.get("sample_rate", 24_000)),
            streams=values.get("stream_format") == "sse",
        )

    def accept_form(
        self, ask: Ask, values: dict[str, Any], model: shelf.Model, findings: Findings, *, translate: bool
    ) -> Job | None:
        self.check_language(values.get("language"), findings)
        asked = values.get("response_format", "json")
        if asked not in model.reply_formats:
            words = f"response_format '{asked}' is not compatible with model '{model.id}'."
            findings.refuse(400, words, "response_format", "unsupported_value")
        if "timestamp_granularities[]" in values and asked != "verbose_json":
            words = "timestamp_granularities needs response_format verbose_json"
            findings.refuse(400, words, "timestamp_granularities", "invalid_value")
        self._check_rare_fields(values, model, findings, translate=translate)
        found, duration_s = self.hear(ask, file_extension(ask), findings, model)
        chunked = any(name.startswith("chunking_strategy") for name in values)
        if "diarize" in model.id and duration_s > 30 and not chunked:
            findings.refuse(400, "chunking_strategy is required for diarization models", "chunking_strategy")
        return Job(
            "translation" if translate else "transcription",
            model,
            format=asked,
            duration_s=duration_s,
            audio_format=found,
            granularities=tuple(values.get("timestamp_granularities[]", ["segment"])),
            speakers=tuple(values.get("known_speaker_names[]", ())),
            logprobs="include[]" in values,
            streams=values.get("stream") is True and model.id not in self.never_streams,
        )

    def _check_rare_fields(
        self, values: dict[str, Any], model: shelf.Model, findings: Findings, *, translate: bool
    ) -> None:
        if "diarize" in model.id and "prompt" in values:
            findings.refuse(400, "prompt is not supported by diarization models", "prompt")
        self._check_speakers(values, model, findings)
        if not _is_chunking(values.get("chunking_strategy", "auto")):
            findings.refuse(400, "chunking_strategy is neither auto nor server_vad", "chunking_strategy")
        if model.id != "gpt-transcribe":
            for name in {"languages[]", "keywords[]"} & values.keys():
                findings.refuse(400, f"{name} is not supported by {model.id}", name)
        if "include[]" in values and ("gpt-4o" not in model.id or values.get("response_format", "json") != "json"):
            findings.refuse(400, "include is not supported here", "include")
        if translate:
            for name in {"language", "stream", *_LISTS} & values.keys():
                findings.refuse(400, f"Unrecognized request argument supplied: {name}", name, "unknown_parameter")
            if "whisper" not in model.id or model.id.endswith("turbo"):
                findings.refuse(400, f"{model.id} does not translate", "model")

    def _check_speakers(self, values: dict[str, Any], model: shelf.Model, findings: Findings) -> None:
        names, references = values.get("known_speaker_names[]", []), values.get("known_speaker_references[]", [])
        if (names or references) and "diarize" not in model.id:
            findings.refuse(400, f"known speakers are not supported by {model.id}", "known_speaker_names")
        if names and not references:
            findings.remark("known_speaker_names[] without known_speaker_references[]")
        elif len(names) != len(references):
            words = f"{len(names)} known_speaker_names, but {len(references)} known_speaker_references"
            findings.refuse(400, words, "known_speaker_references")
        if not all(reference.startswith("data:audio/") for reference in references):
            findings.refuse(400, "known_speaker_references are no data URLs", "known_speaker_references")

    # --- replies -----------------------------------------------------------------------------------------------------

    def reply(self, job: Job, headers: tuple[tuple[str, str], ...], *, cost_nanousd: int) -> Reply:
        if job.kind == "chat":
            return talk.reply(job, "chatcmpl-1", headers, cost_nanousd=cost_nanousd)
        if job.kind == "speech":
            sound = speak(job.text, job.format, speed=job.speed, rate_hz=job.rate_hz)
            if job.streams:
                return stream_reply(events.speech_events(sound.pieces(), self.speech_usage(job)), headers)
            return sound_reply(sound, CONTENT_TYPES[job.format], headers)
        if job.streams:
            return stream_reply(self.text_events(job), headers)
        segments = job.said.timed_segments(job.duration_s)
        plain = {"text": job.said.text + "\n", "srt": srt(segments), "vtt": vtt(segments)}
        if job.format in plain:
            return bytes_reply(200, "text/plain; charset=utf-8", plain[job.format].encode(), headers)
        return json_reply(200, self.transcript(job), headers)

    def transcript(self, job: Job) -> dict[str, Any]:
        said, usage = job.said, self.usage(job)
        tail = {"usage": usage} if usage else {}
        if job.format == "json":
            languages: dict[str, Any] = {"languages": [{"code": said.code}] if said.code else []}
            languages = languages if job.model.id == "gpt-transcribe" else {}
            return {"text": said.text, **languages, **events.logprobs(job, events.words(said.text)), **tail}
        segments = said.timed_segments(job.duration_s)
        duration = round(job.duration_s, 3)
        if job.format == "diarized_json":
            spoken = diarized_segments(segments, job.speakers)
            return {"task": "transcribe", "duration": duration, "text": said.text, "segments": spoken, **tail}
        translates = job.kind == "translation"
        reply: dict[str, Any] = {
            "task": "translate" if translates else "transcribe",
            "language": "english" if translates else said.language,
            "duration": duration,
            "text": said.text,
        }
        if "word" in job.granularities:
            reply["words"] = [
                {"word": word.strip(".,!?;:") or word if self.bare_words else f" {word}", "start": start, "end": end}
                for word, start, end in said.timed_words(job.duration_s)
            ]
        if "segment" in job.granularities:
            reply["segments"] = verbose_segments(segments)
        return {**reply, **tail}

    def text_events(self, job: Job) -> Iterator[bytes]:
        usage = self.usage(job)
        return events.text_events(job, {"usage": usage} if usage else {})

    def speech_usage(self, job: Job) -> dict[str, Any]:
        """Give what the last event of a stream of speech tells of its cost."""
        size = len(job.text)
        return {"usage": {"input_tokens": size, "output_tokens": 10 * size, "total_tokens": 11 * size}}

    def usage(self, job: Job) -> dict[str, Any] | None:
        if job.model.unit != "token":
            return {"type": "duration", "seconds": math.ceil(job.duration_s)}
        heard, said = shelf.tokens(job.duration_s, job.said.text)
        details = {"text_tokens": 0, "audio_tokens": heard}
        return {"type": "tokens", "input_tokens": heard, "input_token_details": details, "output_tokens": said,
                "total_tokens": heard + said}  # fmt: skip

    def look_up(self, ask: Ask, bill: Bill) -> Reply | Refusal:
        if ask.path == "/models":
            return json_reply(200, {"object": "list", "data": [self.card(model) for model in self.models.values()]})
        name = ask.path.removeprefix("/models/")
        if name in self.models:
            return json_reply(200, self.card(self.models[name]))
        return Refusal(404, f"The model '{name}' does not exist", "model", "model_not_found")

    def card(self, model: shelf.Model) -> dict[str, Any]:
        return {"id": model.id, "object": "model", "created": 1_687_882_411, "owned_by": "openai-internal",
                "shutdown_date": model.ends}  # fmt: skip


class Groq(OpenAI):
    name = "groq"
    prefix = "/groq/openai/v1"
    keys = frozenset({"gsk-test"})
    models = shelf.GROQ
    default_format = "wav"
    bare_words = False
    speech_fields: ClassVar[dict[str, Field]] = {
        "model": Field(required=True),
        "input": Field(required=True, shortest=1),
        "voice": Field(required=True),
        "response_format": Field(choices=("flac", "mp3", "mulaw", "ogg", "wav")),
        "sample_rate": Field("number", low=8000, high=48000),
        "speed": Field("number", low=0.5, high=5.0),
    }
    form_fields: ClassVar[dict[str, Field]] = {
        name: OpenAI.form_fields[name]
        for name in ("model", "language", "prompt", "temperature", "timestamp_granularities[]")
    } | {"response_format": Field(choices=("json", "text", "verbose_json"))}

    def usage(self, job: Job) -> None:
        return None

    def transcript(self, job: Job) -> dict[str, Any]:
        return {**super().transcript(job), "x_groq": {"id": "req_loopback"}}

    def card(self, model: shelf.Model) -> dict[str, Any]:
        return {"id": model.id, "object": "model", "created": 1_693_721_698, "owned_by": "Groq", "active": True,
                "context_window": 448, "public_apps": None}  # fmt: skip


def stream_reply(stream: Iterator[bytes], headers: tuple[tuple[str, str], ...]) -> Reply:
    return bytes_reply(200, events.CONTENT_TYPE, b"".join(stream), headers, chunked=True)


def _is_chunking(strategy: str) -> bool:
    if strategy == "auto":
        return True
    try:
        value = json.loads(strategy)
    except ValueError:
        return False
    return isinstance(value, dict) and value.get("type") == "server_vad" and set(value) <= set(_VAD)
