"""Base class of the dialects: validation of requests, and the tables in which the gateways differ.

To add a gateway, write a subclass of `Dialect` in a file of this package and list it in `__init__.py`.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from .. import chat_replies
from ..audio_codec import AudioCodec, SynthesizedAudio, UndecodableAudio, is_declared_as
from ..billing import Billing, Charge
from ..field_validation import Field, FieldPolicy, Findings, Refusal, check_fields, parse_form_values
from ..messages import Headers, ParsedRequest, RequestInfo, Response, json_response
from ..model_fixtures import Model
from ..request_parsing import Blob, FormPart
from ..tasks import ChatDialect, Task

ISO_639_1 = re.compile(r"[a-z]{2}")


def audio_response(audio: SynthesizedAudio, content_type: str, headers: Headers = ()) -> Response:
    return Response(200, content_type, audio.size_bytes, audio.iter_blocks, headers, chunked=True)


class Dialect(ABC):
    """The wire format of one gateway. Its attributes are the tables in which the gateways differ.

    In templates, `{serial}` is the number of the request and `{generation_id}` its generation ID.

    Attributes:
        prefix: Path of the base URL.
        outer_prefix: Path of endpoints outside of the base URL.
        key: The only valid key. None: no key is needed.
        unknown_model: Refusal of a model that does not exist; `{model}` is its name.
        language_pattern: Valid languages. None: every language.
        language_refusal: Refusal of an invalid language; `{language}` is its name.
        ignored_form_fields: Fields that a transcription ignores, with the warning of each.
        ignored_translation_fields: Fields that a translation ignores, with the warning of each.
        generation_id: Template of the ID under which the cost can be looked up. None: the gateway has no cost lookup.
        task_headers: Templates of the headers of a response to an accepted request.
        chat_dialect: None: the gateway has no chat completions.
        has_engine: Recordings are transcribed by an engine, so the transcript of the mock gateway is not used.
    """

    name: ClassVar[str]
    prefix: ClassVar[str]
    outer_prefix: ClassVar[str | None] = None
    key: ClassVar[str | None]
    models: ClassVar[Mapping[str, Model]]
    supports_translation: ClassVar[bool] = True
    supports_jobs: ClassVar[bool] = False
    has_engine: ClassVar[bool] = False
    chat_dialect: ClassVar[ChatDialect | None] = None

    field_policy: ClassVar[FieldPolicy] = FieldPolicy()
    speech_fields: ClassVar[Mapping[str, Field]]
    form_fields: ClassVar[Mapping[str, Field]]
    ignored_form_fields: ClassVar[Mapping[str, str]] = {}
    ignored_translation_fields: ClassVar[Mapping[str, str]] = {}
    upload_extensions: ClassVar[tuple[str, ...]] = (
        "flac", "mp3", "mp4", "mpeg", "mpga", "m4a", "ogg", "oga", "wav", "webm",
    )  # fmt: skip
    max_upload_bytes: ClassVar[int | None] = 26_214_400
    upload_refusal_code: ClassVar[str | None] = None
    language_pattern: ClassVar[re.Pattern[str] | None] = ISO_639_1
    language_refusal: ClassVar[Refusal] = Refusal(
        400,
        "Invalid language '{language}'. Language parameter must be specified in ISO-639-1 format.",
        "language",
        "invalid_language_format",
    )
    unknown_model: ClassVar[Refusal]

    generation_id: ClassVar[str | None] = None
    task_headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, codec: AudioCodec) -> None:
        self.codec = codec

    # --- differs by gateway -------------------------------------------------------------------------------------------

    @abstractmethod
    def build_error_body(self, refusal: Refusal, request_info: RequestInfo) -> Any:
        """Return the error body of this gateway for a refusal."""

    @abstractmethod
    def build_speech_task(
        self, request: ParsedRequest, values: dict[str, Any], model: Model, findings: Findings
    ) -> Task:
        """Return the task of a request for speech with valid fields. It is refused if there are new findings."""

    @abstractmethod
    def build_form_task(
        self, request: ParsedRequest, values: dict[str, Any], model: Model, findings: Findings, *, translate: bool
    ) -> Task | None:
        """Return the task of a form with a recording and valid fields. It is refused if there are new findings."""

    @abstractmethod
    def build_response(self, task: Task, headers: Headers, *, cost_nanousd: int) -> Response:
        """Return the response to an accepted request."""

    def build_json_audio_task(self, request: ParsedRequest, findings: Findings) -> Task | None:
        """Return the task of a JSON body with a recording, which only some gateways accept."""
        findings.refuse(400, "Could not parse multipart form", None, None)
        return None

    def resolve_unknown_model(self, model: str, findings: Findings) -> Model | None:
        """Resolve a model that is not in `models`; report a refusal and return None if it does not exist."""
        findings.refusals.append(replace(self.unknown_model, message=self.unknown_model.message.format(model=model)))
        return None

    def make_generation_id(self, task: Task, request_info: RequestInfo) -> str | None:
        return self.generation_id.format(serial=request_info.serial) if self.generation_id is not None else None

    def build_task_headers(self, request_info: RequestInfo, generation_id: str | None) -> Headers:
        """Return the headers of a response to an accepted request."""
        values = {"serial": request_info.serial, "generation_id": generation_id}
        return tuple((name, template.format(**values)) for name, template in self.task_headers.items())

    def build_common_headers(self, request_info: RequestInfo, task: Task | None, status: int) -> Headers:
        """Return the headers of every response, errors included."""
        return ()

    def substitute_model(self, task: Task, model: str | None, provider: str | None) -> Task:
        """Return the task with another model, if this gateway substitutes models."""
        return task

    def handle_get(self, request: ParsedRequest, billing: Billing) -> Response | Refusal:
        """Answer a GET."""
        return Refusal(404, f"Invalid URL (GET {request.path})")

    def is_public(self, request: ParsedRequest) -> bool:
        """Return whether a GET needs no key."""
        return False

    # --- shared ------------------------------------------------------------------------------------------------------

    def look_up_cost(
        self, request: ParsedRequest, billing: Billing, build_body: Callable[[Charge], Any]
    ) -> Response | Refusal:
        """Answer with the charge whose generation ID is in `?id=`."""
        id_ = request.query.get("id", "")
        charge = billing.find(self.name, id_)
        return json_response(200, build_body(charge)) if charge else Refusal(404, f"Generation {id_} not found")

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
            return chat_replies.validate_chat(request, self, self.chat_dialect, findings)
        findings.refuse(404, f"Invalid URL ({request.method} {request.path})")
        return None

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
        text = request.json["input"] if isinstance(request.json["input"], str) else ""
        if limit is not None and len(text) > limit:
            findings.refuse(400, f"input is longer than {limit} characters", "input", "string_above_max_length")
        if model.max_text_bytes is not None and len(text.encode()) > model.max_text_bytes:
            findings.refuse(400, f"input is longer than {model.max_text_bytes} bytes of UTF-8", "input")
        task = self.build_speech_task(request, _select_known_fields(request.json, self.speech_fields), model, findings)
        if task.format not in self.codec.formats:
            findings.refuse(400, f"this mock gateway has no encoder for {task.format}", "response_format")
        return None if findings.refusals else task

    def _validate_form(self, request: ParsedRequest, findings: Findings, *, translate: bool) -> Task | None:
        if self.max_upload_bytes is not None and request.size_bytes > self.max_upload_bytes:
            message = f"Maximum content size limit ({self.max_upload_bytes}) exceeded ({request.size_bytes} bytes read)"
            findings.refuse(413, message, None, self.upload_refusal_code)
            return None
        if request.parse_error or request.form_parts is None:
            findings.refuse(400, f"Could not parse multipart form: {request.parse_error or 'not a form'}")
            return None
        texts = [(p.name, p.blob.prefix.decode("utf-8", "replace")) for p in request.form_parts if p.name != "file"]
        values = parse_form_values(texts, self.form_fields, findings, self.field_policy.status)
        check_fields(values, self.form_fields, findings, self.field_policy)
        if "timestamp_granularities" in values and "timestamp_granularities" not in self.form_fields:
            findings.warn("timestamp_granularities without [] is ignored")
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
        values = _select_known_fields(values, self.form_fields)
        ignored_fields = self.ignored_translation_fields if translate else self.ignored_form_fields
        for name, warning in ignored_fields.items():
            if name in values:
                findings.warn(warning)
        task = self.build_form_task(request, values, model, findings, translate=translate)
        return None if findings.refusals else task

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
            info = self.codec.inspect(request.audio.file, request.audio.size_bytes, claimed=claimed)
        except UndecodableAudio as error:
            findings.refuse(400, f"Audio file might be corrupted or unsupported: {error}", "file", "invalid_value")
            return None, 0.0
        if claimed and not is_declared_as(info.format, claimed):
            findings.warn(f"the recording is declared as {claimed}, but is {info.format}")
        if model.max_duration_s is not None and info.duration_s > model.max_duration_s:
            message = f"audio duration {info.duration_s:.1f} seconds is longer than {model.max_duration_s:.0f} seconds"
            findings.refuse(400, f"{message} which is the maximum for this model", "file", "invalid_value")
        return info.format, info.duration_s

    def check_language(self, language: Any, findings: Findings) -> None:
        if isinstance(language, str) and self.language_pattern and not self.language_pattern.fullmatch(language):
            message = self.language_refusal.message.format(language=language)
            findings.refusals.append(replace(self.language_refusal, message=message))


def _select_known_fields(values: Mapping[str, Any], table: Mapping[str, Field]) -> dict[str, Any]:
    """Drop the fields that the gateway ignores."""
    return {name: value for name, value in values.items() if name in table}


def _read_text(value: Any) -> Any:
    """Return the value with a spooled string read back into memory."""
    return json.loads(b'"' + value.read() + b'"') if isinstance(value, Blob) else value
