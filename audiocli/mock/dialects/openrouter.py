"""The OpenRouter dialect."""

from __future__ import annotations

import json
import re
import time
from typing import Any, ClassVar

from .. import chat_replies, model_fixtures
from ..billing import Billing
from ..cost_records import build_openrouter_generation, build_openrouter_key
from ..field_validation import Field, FieldPolicy, Findings, Refusal, check_fields, decode_base64_field
from ..messages import Headers, ParsedRequest, RequestInfo, Response, bytes_response, json_response
from ..model_fixtures import Model
from ..request_parsing import Blob
from ..tasks import ChatDialect, Task
from ..transcripts import build_verbose_segments
from .base import Dialect, audio_response

MODALITIES = ("text", "image", "embeddings", "audio", "video", "rerank", "decisions", "speech", "transcription")
_ERROR_TYPES = {
    400: "invalid_request", 401: "authentication", 402: "payment_required", 403: "permission_denied", 404: "not_found",
    413: "payload_too_large", 422: "unprocessable", 429: "rate_limit_exceeded", 500: "server",
    502: "provider_unavailable", 503: "provider_overloaded", 504: "timeout", 529: "provider_overloaded",
}  # fmt: skip
_GRANULARITIES = Field("list", choices=("word", "segment"))
_COMMON_FIELDS = {"user": Field(), "session_id": Field(max_length=256), "trace": Field("object")}
_TURN_FIELDS = {"text": Field(required=True), "voice": Field(), "instructions": Field()}
_TRANSCRIPTION_FIELDS = {
    "diarize": Field("boolean"),
    "user": Field(),
    "session_id": Field(max_length=256),
    "model": Field(required=True),
    "language": Field(),
    "temperature": Field("number", minimum=0, maximum=1),
    "response_format": Field(choices=("json", "verbose_json")),
}


class OpenRouter(Dialect):
    name = "openrouter"
    prefix = "/openrouter/api/v1"
    key = "sk-or-test"
    models = model_fixtures.OPENROUTER
    field_policy = FieldPolicy(unknown_fields="warn")
    upload_extensions: ClassVar[tuple[str, ...]] = (*Dialect.upload_extensions, "aac", "opus", "aiff")
    supports_translation = False
    unknown_model = Refusal(404, "No endpoints found for {model}.", "model")
    ignored_form_fields: ClassVar = {"prompt": "prompt is ignored in a form"}
    task_headers: ClassVar = {"X-Generation-Id": "{generation_id}"}
    chat_dialect = ChatDialect(
        fields=chat_replies.ROUTED_CHAT_FIELDS,
        audio_formats=("wav", "mp3", "aiff", "aac", "ogg", "flac", "m4a", "pcm16", "pcm24"),
        audio_requires_stream=True,
        always_send_usage=True,
        report_cost=True,
        send_comments=True,
    )
    speech_fields: ClassVar[dict[str, Field]] = {
        "model": Field(required=True),
        **_COMMON_FIELDS,
        "input": Field("any", required=True),
        "instructions": Field(),
        "voice": Field(min_length=1),
        "response_format": Field(choices=("mp3", "pcm")),
        "speed": Field("number"),
        "input_references": Field("list"),
        "provider": Field("object"),
    }
    form_fields: ClassVar[dict[str, Field]] = {
        **_TRANSCRIPTION_FIELDS,
        "timestamp_granularities[]": _GRANULARITIES,
        "prompt": Field(),
        "keyterms": Field("list"),
        "trace": Field(),
        "provider": Field(),
    }
    json_fields: ClassVar[dict[str, Field]] = {
        **_TRANSCRIPTION_FIELDS,
        "trace": Field("object"),
        "keyterms": Field("list"),
        "input_audio": Field("object", required=True),
        "timestamp_granularities": _GRANULARITIES,
        "provider": Field("object"),
    }
    audio_fields: ClassVar[dict[str, Field]] = {
        "data": Field(required=True, min_length=1),
        "format": Field(required=True),
    }

    def build_error_body(self, refusal: Refusal, request_info: RequestInfo) -> Any:
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

    def resolve_unknown_model(self, model: str, findings: Findings) -> Model | None:
        if "/" in model:
            return super().resolve_unknown_model(model, findings)
        findings.refuse(400, f"{model} is not a valid model ID", "model")
        return None

    def build_speech_task(
        self, request: ParsedRequest, values: dict[str, Any], model: Model, findings: Findings
    ) -> Task:
        text = self._read_input(values["input"], model, findings)
        response_format = values.get("response_format", "pcm")
        if model.formats and response_format not in model.formats:
            findings.refuse(400, f"{model.id} supports only response_format {', '.join(model.formats)}")
        if model.voice_required and "voice" not in values:
            findings.refuse(400, f"{model.id} has no default voice: an explicit voice is required", "voice")
        if "speed" in values and not model.supports_speed:
            findings.warn(f"speed has no effect on {model.id}")
        self._check_provider(values.get("provider"), findings)
        self._check_references(values.get("input_references"), model, findings)
        speed = float(values.get("speed", 1)) if model.supports_speed else 1.0
        return Task("speech", model, text=text, format=response_format, speed=speed)

    def build_json_audio_task(self, request: ParsedRequest, findings: Findings) -> Task | None:
        values = request.json
        if not isinstance(values, dict):
            findings.refuse(400, "Invalid JSON body")
            return None
        check_fields(values, self.json_fields, findings, self.field_policy)
        self._check_provider(values.get("provider"), findings)
        audio = values.get("input_audio")
        if isinstance(audio, dict):
            check_fields(audio, self.audio_fields, findings, self.field_policy)
            if isinstance(audio.get("data"), str | Blob):
                request.audio = decode_base64_field(audio["data"], findings, "input_audio.data")
        model = self.find_model(values.get("model"), "transcription", findings)
        if model is None or findings.refusals:
            return None
        granularities = values.get("timestamp_granularities", ["segment"])
        task = self._build_transcription_task(
            request, values, model, findings, claimed=values["input_audio"]["format"], granularities=granularities
        )
        return None if findings.refusals else task

    def build_form_task(
        self, request: ParsedRequest, values: dict[str, Any], model: Model, findings: Findings, *, translate: bool
    ) -> Task | None:
        granularities = values.get("timestamp_granularities[]", ["segment"])
        return self._build_transcription_task(
            request, values, model, findings, claimed=request.file_extension, granularities=granularities
        )

    def _build_transcription_task(
        self,
        request: ParsedRequest,
        values: dict[str, Any],
        model: Model,
        findings: Findings,
        *,
        claimed: str,
        granularities: list[str],
    ) -> Task:
        self.check_language(values.get("language"), findings)
        response_format = values.get("response_format", "json")
        if response_format not in model.response_formats:
            findings.refuse(400, f"{model.id} does not support response_format {response_format}", "response_format")
        if values.get("diarize") and not (model.supports_diarization and response_format == "verbose_json"):
            findings.refuse(400, f"diarize needs verbose_json and a model that can diarize, not {model.id}", "diarize")
        if values.get("keyterms") and not model.supports_keyterms:
            findings.refuse(400, f"{model.id} does not support keyterms", "keyterms")
        audio_format, duration_s = self.read_audio(request, claimed, findings, model)
        return Task(
            "transcription",
            model,
            format=response_format,
            duration_s=duration_s,
            audio_format=audio_format,
            granularities=tuple(granularities),
            diarize=values.get("diarize") is True,
        )

    def _read_input(self, value: Any, model: Model, findings: Findings) -> str:
        """Return the text of the input, which is a string or a list of turns."""
        if isinstance(value, str) and value:
            return value
        if not isinstance(value, list) or not value or not all(isinstance(turn, dict) for turn in value):
            findings.refuse(400, "Invalid input: expected a text or a list of turns", "input")
            return ""
        if not model.supports_turns:
            findings.refuse(400, f"{model.id} does not support multi-speaker input", "input")
        for turn in value:
            check_fields(turn, _TURN_FIELDS, findings, self.field_policy)
        return "\n".join(str(turn.get("text", "")) for turn in value)

    def _check_provider(self, provider: Any, findings: Findings) -> None:
        if not isinstance(provider, dict):
            return
        for name in provider.keys() - {"options", "zdr", "data_collection"}:
            findings.warn(f"provider.{name} has no effect on audio")
        if not isinstance(provider.get("zdr", True), bool):
            findings.refuse(400, "Invalid provider.zdr: expected a boolean", "provider")
        if provider.get("data_collection", "allow") not in ("allow", "deny"):
            findings.refuse(400, "Invalid provider.data_collection: expected allow or deny", "provider")
        options = provider.get("options", {})
        if not isinstance(options, dict) or not all(isinstance(value, dict) for value in options.values()):
            findings.refuse(400, "Invalid provider.options: expected an object of objects", "provider")

    def _check_references(self, references: Any, model: Model, findings: Findings) -> None:
        if not isinstance(references, list):
            return
        kinds = [part.get("type") if isinstance(part, dict) else None for part in references]
        clips, images, texts = (kinds.count(kind) for kind in ("input_audio", "image_url", "text"))
        # With several clips, a text follows the clip that it is the transcript of.
        is_orphan = clips > 1 and any(
            kind == "text" and previous != "input_audio" for previous, kind in zip([None, *kinds], kinds, strict=False)
        )
        is_valid = clips <= 3 and images <= 1 and texts <= clips and clips + images > 0 and not is_orphan
        if not is_valid or set(kinds) - {"input_audio", "text", "image_url"}:
            findings.refuse(400, "input_references: expected one to three clips or one image", "input_references")
        elif not model.supports_voice_cloning:
            findings.refuse(404, f"No endpoints of {model.id} support voice cloning", "input_references")

    def make_generation_id(self, task: Task, request_info: RequestInfo) -> str:
        kind = {"speech": "tts-", "chat": ""}.get(task.kind, "stt-")
        return f"gen-{kind}{int(time.time())}-{request_info.serial}"

    def build_response(self, task: Task, headers: Headers, *, cost_nanousd: int) -> Response:
        if task.kind == "chat":
            id_ = next((value for name, value in headers if name == "X-Generation-Id"), "gen-0")
            return chat_replies.build_chat_response(task, id_, headers, self.codec, cost_nanousd=cost_nanousd)
        if task.kind == "speech":
            content_type = "audio/mpeg" if task.format == "mp3" else "audio/pcm;rate=24000;channels=1"
            return audio_response(
                self.codec.synthesize(task.text, task.format, speed=task.speed), content_type, headers
            )
        return json_response(200, self._build_transcript(task, cost_nanousd), headers)

    def _build_transcript(self, task: Task, cost_nanousd: int) -> dict[str, Any]:
        transcript = task.transcript
        usage: dict[str, Any] = {"seconds": task.model.compute_billed_s(task.duration_s), "cost": cost_nanousd / 1e9}
        if task.model.unit == "token":
            input_tokens, output_tokens = model_fixtures.count_tokens(task.duration_s, transcript.text)
            usage |= {
                "input_tokens": input_tokens,
                "output_tokens": output_tokens,
                "total_tokens": input_tokens + output_tokens,
            }
        if task.format == "json":
            return {"text": transcript.text, "usage": usage}
        response: dict[str, Any] = {
            "text": transcript.text,
            "task": "transcribe",
            "language": transcript.language,
            "duration": round(task.duration_s, 3),
            "segments": build_verbose_segments(transcript.get_segments(task.duration_s)),
            "usage": usage,
        }
        if "word" in task.granularities or task.diarize:
            words = transcript.get_words(task.duration_s)
            # Two speakers take turns of four words.
            response["words"] = [
                {
                    "word": f" {word}",
                    "start": start,
                    "end": end,
                    **({"speaker": index // 4 % 2, "type": "word"} if task.diarize else {}),
                }
                for index, (word, start, end) in enumerate(words)
            ]
        return response

    def is_public(self, request: ParsedRequest) -> bool:
        return request.path.startswith("/model")

    def handle_get(self, request: ParsedRequest, billing: Billing) -> Response | Refusal:
        if request.path == "/generation":
            return self.look_up_cost(request, billing, build_openrouter_generation)
        if request.path == "/key":
            return json_response(200, {"data": build_openrouter_key(billing)})
        if request.path in ("/models", "/models/count"):
            return self._list_models(request)
        if request.path == "/credits":
            return Refusal(403, "Only management keys can fetch credits for an account")
        if request.path.startswith("/models/") and request.path.endswith("/endpoints"):
            model = self.models.get(request.path.removeprefix("/models/").removesuffix("/endpoints"))
            return json_response(200, {"data": _build_endpoints(model)}) if model else Refusal(404, "Model not found")
        if request.path.startswith("/model/"):
            model = self.models.get(request.path.removeprefix("/model/"))
            return (
                json_response(200, {"data": model_fixtures.build_openrouter_card(model)})
                if model
                else Refusal(404, "Model not found")
            )
        return Refusal(404, f"Not found: {request.path}")

    def _list_models(self, request: ParsedRequest) -> Response | Refusal:
        modalities = request.query.get("output_modalities", "text").split(",")
        if any(modality not in (*MODALITIES, "all") for modality in modalities):
            return Refusal(400, "Invalid output_modalities", "output_modalities", choices=(*MODALITIES, "all"))
        cards = [model_fixtures.build_openrouter_card(model) for model in self.models.values()]
        query = request.query.get("q", "").lower()
        cards = [
            card
            for card in cards
            if ("all" in modalities or set(modalities) & set(card["architecture"]["output_modalities"]))
            and query in card["id"]
        ]
        if request.path == "/models/count":
            return json_response(200, {"data": {"count": len(cards)}})
        total = len(cards)
        if "offset" in request.query or "limit" in request.query:
            offset, limit = request.query.get("offset", "0"), request.query.get("limit", "500")
            for name, text in (("offset", offset), ("limit", limit)):
                if not re.fullmatch(r"[0-9]{1,9}", text):
                    return Refusal(400, f"Invalid {name}", name)
            cards = cards[int(offset) : int(offset) + int(limit)]
        body = {"data": cards, "total_count": total, "links": {"next": None}}
        return bytes_response(200, "application/json; charset=utf-8", json.dumps(body).encode())


def _build_endpoints(model: Model) -> dict[str, Any]:
    endpoint = {
        "name": f"Acme | {model.id}",
        "provider_name": "Acme",
        "tag": "acme",
        "pricing": {"prompt": model.price, "completion": model.output_price},
        "status": 0,
        "uptime_last_30m": 100.0,
        "supported_parameters": [],
        "supports_voice_cloning": model.supports_voice_cloning,
    }
    return {**model_fixtures.build_openrouter_card(model), "endpoints": [endpoint]}
