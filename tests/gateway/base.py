"""Base class of the dialects, with the request, the accepted task and the response.

To add a gateway, write a subclass of `Dialect` in a file and list it in `dialects.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from . import chat_replies
from .audio_synthesis import SynthesizedAudio, UndecodableAudio, inspect_audio
from .field_validation import ISO_639_1, Field, FieldPolicy, Findings, Refusal, check_fields, parse_form_values
from .model_fixtures import Model
from .request_parsing import Blob, FormPart, MalformedBody, decode_base64
from .transcripts import MockTranscript

if TYPE_CHECKING:
    from .billing import Billing, Charge
    from .chat_replies import ChatDialect, ChatTask

DEFAULT_ERROR_MESSAGES = {
    400: "Invalid request parameters",
    401: "Missing Authentication header",
    402: "Insufficient credits",
    403: "Forbidden",
    404: "Resource not found",
    408: "Request timed out",
    413: "Request entity too large",
    422: "Unprocessable entity",
    429: "Rate limit exceeded",
    500: "Internal Server Error",
    502: "Provider returned error",
    503: "Service temporarily unavailable",
    504: "Gateway timed out",
    524: "Request timed out. Please try again later.",
    529: "Provider is overloaded",
}


Headers: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class ParsedRequest:
    """A request whose body has been parsed.

    `path` is relative to the base URL of the dialect; it begins with `/../` outside of the base URL. Strings of more
    than a megabyte in `json` are `Blob`s. `parse_error` says why the body could not be parsed.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    size_bytes: int = 0
    json: Any = None
    form_parts: list[FormPart] | None = None
    parse_error: str | None = None
    audio: Blob | None = None
    is_background_job: bool = False

    @property
    def model(self) -> str | None:
        """The requested model; it may not exist."""
        if isinstance(self.json, dict):
            return self.json.get("model") if isinstance(self.json.get("model"), str) else None
        for part in self.form_parts or []:
            if part.name == "model":
                return part.blob.read(1000).decode(errors="replace")
        return None


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """What headers and error bodies repeat of a request: its serial number and its model."""

    serial: str = "0"
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """An accepted request. `kind` is speech, transcription, translation or chat.

    `speakers` are the speaker names that the client sent. `is_substituted`: the gateway uses another model than the
    requested one.
    """

    kind: str
    model: Model
    text: str = ""
    format: str = "json"
    speed: float = 1.0
    sample_rate_hz: int = 24_000
    stream: bool = False
    duration_s: float = 0.0
    audio_format: str | None = None
    granularities: tuple[str, ...] = ()
    speakers: tuple[str, ...] = ()
    logprobs: bool = False
    transcript: MockTranscript = field(default_factory=MockTranscript)
    provider: str | None = None
    is_substituted: bool = False
    chat: ChatTask | None = None

    @property
    def cost_nanousd(self) -> int:
        if self.kind == "speech":
            return self.model.price_speech(self.text)
        if self.kind == "chat":
            return self.model.price_chat(chat_replies.count_chat_tokens(self))
        return self.model.price_transcription(self.duration_s, self.transcript.text)


@dataclass(frozen=True, slots=True)
class Response:
    """A response before a fault is applied. `iter_blocks` returns a new iterator over the body at each call."""

    status: int
    content_type: str
    size_bytes: int
    iter_blocks: Callable[[], Iterator[bytes]]
    headers: Headers = ()
    chunked: bool = False


def bytes_response(
    status: int, content_type: str, body: bytes, headers: Headers = (), *, chunked: bool = False
) -> Response:
    return Response(status, content_type, len(body), lambda: iter((body,)), headers, chunked)


def json_response(status: int, value: Any, headers: Headers = ()) -> Response:
    return bytes_response(status, "application/json", json.dumps(value).encode(), headers)


def add_missing_headers(response: Response, extra: Headers) -> Response:
    """Add headers that a response does not have yet."""
    present = {name.lower() for name, _ in response.headers}
    more = tuple((name, value) for name, value in extra if name.lower() not in present)
    return replace(response, headers=(*response.headers, *more))


def audio_response(audio: SynthesizedAudio, content_type: str, headers: Headers = ()) -> Response:
    return Response(200, content_type, audio.size_bytes, audio.iter_blocks, headers, chunked=True)


class Dialect:
    """The wire format of one gateway.

    `prefix` is the path of the base URL. `outer_prefix` is the path of endpoints outside of the base URL.
    """

    name: ClassVar[str]
    prefix: ClassVar[str]
    outer_prefix: ClassVar[str | None] = None
    keys: ClassVar[frozenset[str] | None]
    models: ClassVar[Mapping[str, Model]]
    field_policy: ClassVar[FieldPolicy] = FieldPolicy()
    speech_fields: ClassVar[Mapping[str, Field]]
    form_fields: ClassVar[Mapping[str, Field]]
    upload_extensions: ClassVar[tuple[str, ...]] = (
        "flac",
        "mp3",
        "mp4",
        "mpeg",
        "mpga",
        "m4a",
        "ogg",
        "oga",
        "wav",
        "webm",
    )
    max_upload_bytes: ClassVar[int | None] = 26_214_400
    supports_translation: ClassVar[bool] = True
    supports_jobs: ClassVar[bool] = False
    chat_dialect: ClassVar[ChatDialect | None] = None

    # --- differs by gateway -------------------------------------------------------------------------------------------

    def build_error_body(self, refusal: Refusal, request_info: RequestInfo) -> Any:
        """Return the error body of this gateway for a refusal."""
        raise NotImplementedError

    def build_speech_task(
        self, request: ParsedRequest, values: dict[str, Any], model: Model, findings: Findings
    ) -> Task:
        raise NotImplementedError

    def build_form_task(
        self, request: ParsedRequest, values: dict[str, Any], model: Model, findings: Findings, *, translate: bool
    ) -> Task | None:
        raise NotImplementedError

    def build_json_audio_task(self, request: ParsedRequest, findings: Findings) -> Task | None:
        findings.refuse(400, "Could not parse multipart form", None, None)
        return None

    def resolve_unknown_model(self, model: str, findings: Findings) -> Model | None:
        raise NotImplementedError

    def make_generation_id(self, task: Task, request_info: RequestInfo) -> str | None:
        """Return the ID under which the cost can be looked up, or None if the gateway has no cost lookup."""
        return None

    def build_task_headers(self, task: Task, request_info: RequestInfo, generation_id: str | None) -> Headers:
        """Return the headers of a response to an accepted request."""
        return (("x-request-id", f"req_{request_info.serial}"), ("openai-processing-ms", "1"))

    def build_common_headers(self, request_info: RequestInfo, task: Task | None, status: int) -> Headers:
        """Return the headers of every response, errors included."""
        return ()

    def substitute_model(self, task: Task, model: str | None, provider: str | None) -> Task:
        """Return the task with another model, if this gateway substitutes models."""
        return task

    def build_response(self, task: Task, headers: Headers, *, cost_nanousd: int) -> Response:
        raise NotImplementedError

    def handle_get(self, request: ParsedRequest, billing: Billing) -> Response | Refusal:
        """Answer a GET."""
        return Refusal(404, f"Invalid URL (GET {request.path})")

    def is_public(self, request: ParsedRequest) -> bool:
        """Return whether a GET needs no key."""
        return False

    # --- shared ------------------------------------------------------------------------------------------------------

    def find_charge(self, request: ParsedRequest, billing: Billing) -> Charge | Refusal:
        """Find the charge whose generation ID is in `?id=`."""
        id_ = request.query.get("id", "")
        return billing.find(self.name, id_) or Refusal(404, f"Generation {id_} not found")

    def validate(self, request: ParsedRequest, findings: Findings) -> Task | None:
        """Validate a POST; return the task, or None if it was refused."""
        if request.path == "/audio/speech":
            return self._validate_speech(request, findings)
        if request.path == "/audio/transcriptions" and request.form_parts is None and request.parse_error is None:
            return self.build_json_audio_task(request, findings)
        if request.path == "/audio/transcriptions":
            return self._validate_form(request, findings, translate=False)
        if request.path == "/audio/translations" and self.supports_translation:
            return self._validate_form(request, findings, translate=True)
        if request.path == "/chat/completions" and self.chat_dialect is not None:
            return self._validate_chat(request, findings)
        findings.refuse(404, f"Invalid URL ({request.method} {request.path})")
        return None

    def _validate_chat(self, request: ParsedRequest, findings: Findings) -> Task | None:
        accepted = chat_replies.validate_chat(request, self, findings)
        if accepted is None:
            return None
        model, chat, stream = accepted
        duration_s = sum(seconds for _, _, seconds in chat.recordings)
        return Task("chat", model, stream=stream, duration_s=duration_s, chat=chat)

    def _validate_speech(self, request: ParsedRequest, findings: Findings) -> Task | None:
        if request.parse_error or not isinstance(request.json, dict):
            findings.refuse(400, f"We could not parse the JSON body of your request. {request.parse_error or ''}")
            return None
        request.json = {name: _read_text(value) for name, value in request.json.items()}
        check_fields(request.json, self.speech_fields, findings, self.field_policy)
        model = self.find_model(request.json.get("model"), "speech", findings)
        if model is None or findings.refusals:
            return None
        voice, limit = request.json.get("voice"), model.max_characters
        if isinstance(voice, str) and model.voices and voice not in model.voices:
            findings.refuse(self.field_policy.status, f"Invalid value: '{voice}' is no voice of {model.id}.", "voice")
        if limit is not None and len(request.json["input"]) > limit:
            findings.refuse(400, f"input is longer than {limit} characters", "input", "string_above_max_length")
        if model.max_text_bytes is not None and len(request.json["input"].encode()) > model.max_text_bytes:
            findings.refuse(400, f"input is longer than {model.max_text_bytes} bytes of UTF-8", "input")
        task = self.build_speech_task(request, _select_known_fields(request.json, self.speech_fields), model, findings)
        return None if findings.refusals else task

    def _validate_form(self, request: ParsedRequest, findings: Findings, *, translate: bool) -> Task | None:
        if self.max_upload_bytes is not None and request.size_bytes > self.max_upload_bytes:
            message = f"Maximum content size limit ({self.max_upload_bytes}) exceeded ({request.size_bytes} bytes read)"
            findings.refuse(413, message, None, "request_too_large" if self.name == "groq" else None)
            return None
        if request.parse_error or request.form_parts is None:
            findings.refuse(400, f"Could not parse multipart form: {request.parse_error or 'not a form'}")
            return None
        texts = [(p.name, p.blob.prefix.decode("utf-8", "replace")) for p in request.form_parts if p.name != "file"]
        values = parse_form_values(texts, self.form_fields, findings, self.field_policy.status)
        check_fields(values, self.form_fields, findings, self.field_policy)
        self._check_granularity_names(values, findings)
        files = [part for part in request.form_parts if part.name == "file"]
        if len(files) != 1:
            message = "Missing required parameter: 'file'." if not files else "Duplicate parameter: 'file'."
            findings.refuse(self.field_policy.status, message, "file")
            return None
        self._check_file(files[0], findings)
        request.audio = files[0].blob
        model = self.find_model(values.get("model"), "transcription", findings)
        if model is None or findings.refusals:
            return None
        task = self.build_form_task(
            request, _select_known_fields(values, self.form_fields), model, findings, translate=translate
        )
        return None if findings.refusals else task

    def _check_granularity_names(self, values: dict[str, Any], findings: Findings) -> None:
        if "timestamp_granularities" in values and "timestamp_granularities" not in self.form_fields:
            findings.warn("timestamp_granularities without [] is ignored")

    def _check_file(self, part: FormPart, findings: Findings) -> None:
        extension = part.filename.rpartition(".")[2].lower() if part.filename and "." in part.filename else ""
        if extension not in self.upload_extensions:
            message = f"Invalid file format: {part.filename!r}. Supported formats: {list(self.upload_extensions)}"
            findings.refuse(400, message, "file")

    def find_model(self, name: Any, kind: str, findings: Findings) -> Model | None:
        if not isinstance(name, str):
            return None
        model = self.models.get(name) or self.resolve_unknown_model(name, findings)
        if model is not None and model.kind != kind:
            findings.refuse(400, f"The model `{name}` is not a {kind} model.", "model", "wrong_endpoint")
            return None
        return model

    def read_audio(
        self, request: ParsedRequest, claimed: str | None, findings: Findings, model: Model
    ) -> tuple[str | None, float]:
        """Return format and duration in seconds of the upload; refuse undecodable and too long audio."""
        assert request.audio is not None
        try:
            info = inspect_audio(request.audio.file, request.audio.size_bytes, claimed=claimed)
        except UndecodableAudio as error:
            findings.refuse(400, f"Audio file might be corrupted or unsupported: {error}", "file", "invalid_value")
            return None, 0.0
        aliases = {"mpga": "mp3", "mpeg": "mp3", "mp4": "m4a", "oga": "ogg", "opus": "ogg", "pcm16": "pcm"}
        if claimed and aliases.get(claimed, claimed) != info.format:
            findings.warn(f"the recording is declared as {claimed}, but is {info.format}")
        if model.max_duration_s is not None and info.duration_s > model.max_duration_s:
            message = f"audio duration {info.duration_s:.1f} seconds is longer than {model.max_duration_s:.0f} seconds"
            findings.refuse(400, f"{message} which is the maximum for this model", "file", "invalid_value")
        return info.format, info.duration_s

    def check_language(self, language: Any, findings: Findings) -> None:
        if isinstance(language, str) and not ISO_639_1.fullmatch(language):
            message = f"Invalid language '{language}'. Language parameter must be specified in ISO-639-1 format."
            findings.refuse(400, message, "language", "invalid_language_format")


def _select_known_fields(values: Mapping[str, Any], table: Mapping[str, Field]) -> dict[str, Any]:
    """Drop the fields that the gateway ignores."""
    return {name: value for name, value in values.items() if name in table}


def find_file_extension(request: ParsedRequest) -> str:
    for part in request.form_parts or []:
        if part.name == "file" and part.filename:
            return part.filename.rpartition(".")[2].lower()
    return ""


def decode_base64_field(text: Any, findings: Findings, param: str) -> Blob | None:
    try:
        return decode_base64(text)
    except MalformedBody as error:
        findings.refuse(400, f"Invalid {param}: {error}", param)
        return None


def _read_text(value: Any) -> Any:
    """Return the value with a spooled string read back into memory."""
    return json.loads(b'"' + value.read() + b'"') if isinstance(value, Blob) else value


def parse_bearer_token(headers: Mapping[str, str]) -> str | None:
    match = re.fullmatch(r"[Bb]earer\s+(\S+)", headers.get("authorization", ""))
    return match.group(1) if match else None
