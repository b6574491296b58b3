"""What every dialect of the double shares: the request as read, the work it asks for, the reply, and the way between.

A new gateway is one subclass of `Dialect` in one file, and its line in `dialects.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from . import talk
from .checks import ISO_639_1, Field, Findings, Manner, Refusal, check_fields, form_values
from .intake import Blob, Malformed, Part, decode_base64
from .shelf import Model
from .sound import Deaf, Sound, listen
from .words import Said

if TYPE_CHECKING:
    from .bill import Bill, Charged
    from .talk import Manners, Talk

WORDS = {
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


@dataclass(slots=True)
class Ask:
    """A request as it was read. `path` is relative to the dialect's base URL (`/../` leads to what lies beside it);
    `json` may hold `Blob`s.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    size_bytes: int = 0
    json: Any = None
    parts: list[Part] | None = None
    malformed: str | None = None
    audio: Blob | None = None
    is_job: bool = False

    @property
    def model(self) -> str | None:
        """The model that the request names, valid or not."""
        if isinstance(self.json, dict):
            return self.json.get("model") if isinstance(self.json.get("model"), str) else None
        for part in self.parts or []:
            if part.name == "model":
                return part.blob.read(1000).decode(errors="replace")
        return None


@dataclass(frozen=True, slots=True)
class Turn:
    """What headers and errors tell of a request: its number, and the model that it names."""

    serial: str = "0"
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """Work that a gateway has accepted. `kind`: speech, transcription, translation or chat.

    `speakers` are the names that the client knows. `swapped`: the gateway took another model than was asked for.
    """

    kind: str
    model: Model
    text: str = ""
    format: str = "json"
    speed: float = 1.0
    rate_hz: int = 24_000
    streams: bool = False
    duration_s: float = 0.0
    audio_format: str | None = None
    granularities: tuple[str, ...] = ()
    speakers: tuple[str, ...] = ()
    logprobs: bool = False
    said: Said = field(default_factory=Said)
    provider: str | None = None
    swapped: bool = False
    talk: Talk | None = None

    @property
    def cost_nanousd(self) -> int:
        if self.kind == "speech":
            return self.model.speech_cost(self.text)
        if self.kind == "chat":
            return self.model.chat_cost(talk.tokens(self))
        return self.model.transcription_cost(self.duration_s, self.said.text)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer before any fault has touched it."""

    status: int
    content_type: str
    size_bytes: int
    pieces: Callable[[], Iterator[bytes]]
    headers: tuple[tuple[str, str], ...] = ()
    chunked: bool = False


def bytes_reply(
    status: int, content_type: str, body: bytes, headers: tuple[tuple[str, str], ...] = (), *, chunked: bool = False
) -> Reply:
    return Reply(status, content_type, len(body), lambda: iter((body,)), headers, chunked)


def json_reply(status: int, value: Any, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    return bytes_reply(status, "application/json", json.dumps(value).encode(), headers)


def with_headers(reply: Reply, standing: tuple[tuple[str, str], ...]) -> Reply:
    """Add headers that a reply does not have yet."""
    taken = {name.lower() for name, _ in reply.headers}
    more = tuple((name, value) for name, value in standing if name.lower() not in taken)
    return replace(reply, headers=(*reply.headers, *more))


def sound_reply(sound: Sound, content_type: str, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    return Reply(200, content_type, sound.size_bytes, sound.pieces, headers, chunked=True)


class Dialect:
    """One gateway. Subclasses fill in tables and say what differs.

    `prefix` is the path of the base URL, `beside` that of what the gateway serves outside of it.
    """

    name: ClassVar[str]
    prefix: ClassVar[str]
    beside: ClassVar[str | None] = None
    keys: ClassVar[frozenset[str] | None]
    models: ClassVar[Mapping[str, Model]]
    manner: ClassVar[Manner] = Manner()
    speech_fields: ClassVar[Mapping[str, Field]]
    form_fields: ClassVar[Mapping[str, Field]]
    extensions: ClassVar[tuple[str, ...]] = ("flac", "mp3", "mp4", "mpeg", "mpga", "m4a", "ogg", "oga", "wav", "webm")
    upload_bytes: ClassVar[int | None] = 26_214_400
    translates: ClassVar[bool] = True
    has_jobs: ClassVar[bool] = False
    talks: ClassVar[Manners | None] = None

    # --- what differs ------------------------------------------------------------------------------------------------

    def error(self, refusal: Refusal, turn: Turn) -> Any:
        """Give a refusal the shape of this gateway's errors."""
        raise NotImplementedError

    def accept_speech(self, ask: Ask, values: dict[str, Any], model: Model, findings: Findings) -> Job:
        raise NotImplementedError

    def accept_form(
        self, ask: Ask, values: dict[str, Any], model: Model, findings: Findings, *, translate: bool
    ) -> Job | None:
        raise NotImplementedError

    def accept_json_audio(self, ask: Ask, findings: Findings) -> Job | None:
        findings.refuse(400, "Could not parse multipart form", None, None)
        return None

    def unknown_model(self, model: str, findings: Findings) -> Model | None:
        raise NotImplementedError

    def generation_id(self, job: Job, turn: Turn) -> str | None:
        """Give the id by which the gateway tells later what a request cost; None where it does not."""
        return None

    def job_headers(self, job: Job, turn: Turn, generation_id: str | None) -> tuple[tuple[str, str], ...]:
        """Give the headers of a reply to accepted work."""
        return (("x-request-id", f"req_{turn.serial}"), ("openai-processing-ms", "1"))

    def standing_headers(self, turn: Turn, job: Job | None, status: int) -> tuple[tuple[str, str], ...]:
        """Give the headers of every reply, errors too."""
        return ()

    def swap(self, job: Job, model: str | None, provider: str | None) -> Job:
        """Let another model do the work, if this gateway does such a thing."""
        return job

    def reply(self, job: Job, headers: tuple[tuple[str, str], ...], *, cost_nanousd: int) -> Reply:
        raise NotImplementedError

    def look_up(self, ask: Ask, bill: Bill) -> Reply | Refusal:
        """Answer a GET."""
        return Refusal(404, f"Invalid URL (GET {ask.path})")

    def open_to_all(self, ask: Ask) -> bool:
        """Tell whether a GET needs no key."""
        return False

    # --- what is shared ----------------------------------------------------------------------------------------------

    def finished(self, ask: Ask, bill: Bill) -> Charged | Refusal:
        """Find the finished request that `?id=` names."""
        id_ = ask.query.get("id", "")
        return bill.finished(self.name, id_) or Refusal(404, f"Generation {id_} not found")

    def accept(self, ask: Ask, findings: Findings) -> Job | None:
        """Hold a POST against the rules of this gateway."""
        if ask.path == "/audio/speech":
            return self._accept_speech(ask, findings)
        if ask.path == "/audio/transcriptions" and ask.parts is None and ask.malformed is None:
            return self.accept_json_audio(ask, findings)
        if ask.path == "/audio/transcriptions":
            return self._accept_form(ask, findings, translate=False)
        if ask.path == "/audio/translations" and self.translates:
            return self._accept_form(ask, findings, translate=True)
        if ask.path == "/chat/completions" and self.talks is not None:
            return self._accept_chat(ask, findings)
        findings.refuse(404, f"Invalid URL ({ask.method} {ask.path})")
        return None

    def _accept_chat(self, ask: Ask, findings: Findings) -> Job | None:
        accepted = talk.accept(ask, self, findings)
        if accepted is None:
            return None
        model, asked, streams = accepted
        heard_s = sum(seconds for _, _, seconds in asked.heard)
        return Job("chat", model, streams=streams, duration_s=heard_s, talk=asked)

    def _accept_speech(self, ask: Ask, findings: Findings) -> Job | None:
        if ask.malformed or not isinstance(ask.json, dict):
            findings.refuse(400, f"We could not parse the JSON body of your request. {ask.malformed or ''}")
            return None
        ask.json = {name: _text(value) for name, value in ask.json.items()}
        check_fields(ask.json, self.speech_fields, findings, self.manner)
        model = self.find_model(ask.json.get("model"), "speech", findings)
        if model is None or findings.refusals:
            return None
        voice, limit = ask.json.get("voice"), model.longest_text
        if isinstance(voice, str) and model.voices and voice not in model.voices:
            findings.refuse(self.manner.status, f"Invalid value: '{voice}' is no voice of {model.id}.", "voice")
        if limit is not None and len(ask.json["input"]) > limit:
            findings.refuse(400, f"input is longer than {limit} characters", "input", "string_above_max_length")
        if model.longest_bytes is not None and len(ask.json["input"].encode()) > model.longest_bytes:
            findings.refuse(400, f"input is longer than {model.longest_bytes} bytes of UTF-8", "input")
        job = self.accept_speech(ask, _known(ask.json, self.speech_fields), model, findings)
        return None if findings.refusals else job

    def _accept_form(self, ask: Ask, findings: Findings, *, translate: bool) -> Job | None:
        if self.upload_bytes is not None and ask.size_bytes > self.upload_bytes:
            words = f"Maximum content size limit ({self.upload_bytes}) exceeded ({ask.size_bytes} bytes read)"
            findings.refuse(413, words, None, "request_too_large" if self.name == "groq" else None)
            return None
        if ask.malformed or ask.parts is None:
            findings.refuse(400, f"Could not parse multipart form: {ask.malformed or 'not a form'}")
            return None
        texts = [(p.name, p.blob.head.decode("utf-8", "replace")) for p in ask.parts if p.name != "file"]
        values = form_values(texts, self.form_fields, findings, self.manner.status)
        check_fields(values, self.form_fields, findings, self.manner)
        self._check_granularity_names(values, findings)
        files = [part for part in ask.parts if part.name == "file"]
        if len(files) != 1:
            word = "Missing required parameter: 'file'." if not files else "Duplicate parameter: 'file'."
            findings.refuse(self.manner.status, word, "file")
            return None
        self._check_file(files[0], findings)
        ask.audio = files[0].blob
        model = self.find_model(values.get("model"), "transcription", findings)
        if model is None or findings.refusals:
            return None
        job = self.accept_form(ask, _known(values, self.form_fields), model, findings, translate=translate)
        return None if findings.refusals else job

    def _check_granularity_names(self, values: dict[str, Any], findings: Findings) -> None:
        if "timestamp_granularities" in values and "timestamp_granularities" not in self.form_fields:
            findings.remark("timestamp_granularities without brackets is ignored: the field is named with []")

    def _check_file(self, part: Part, findings: Findings) -> None:
        extension = part.filename.rpartition(".")[2].lower() if part.filename and "." in part.filename else ""
        if extension not in self.extensions:
            words = f"Invalid file format: {part.filename!r}. Supported formats: {list(self.extensions)}"
            findings.refuse(400, words, "file")

    def find_model(self, name: Any, kind: str, findings: Findings) -> Model | None:
        if not isinstance(name, str):
            return None
        model = self.models.get(name) or self.unknown_model(name, findings)
        if model is not None and model.kind != kind:
            findings.refuse(400, f"The model `{name}` is not a {kind} model.", "model", "wrong_endpoint")
            return None
        return model

    def hear(self, ask: Ask, claimed: str | None, findings: Findings, model: Model) -> tuple[str | None, float]:
        """Listen to the upload; refuse what is not audio or is too long."""
        assert ask.audio is not None
        try:
            heard = listen(ask.audio.file, ask.audio.size_bytes, claimed=claimed)
        except Deaf as error:
            findings.refuse(400, f"Audio file might be corrupted or unsupported: {error}", "file", "invalid_value")
            return None, 0.0
        aliases = {"mpga": "mp3", "mpeg": "mp3", "mp4": "m4a", "oga": "ogg", "opus": "ogg", "pcm16": "pcm"}
        if claimed and aliases.get(claimed, claimed) != heard.format:
            findings.remark(f"the recording is said to be {claimed}, but it is {heard.format}")
        if model.longest_s is not None and heard.duration_s > model.longest_s:
            words = f"audio duration {heard.duration_s:.1f} seconds is longer than {model.longest_s:.0f} seconds"
            findings.refuse(400, f"{words} which is the maximum for this model", "file", "invalid_value")
        return heard.format, heard.duration_s

    def check_language(self, language: Any, findings: Findings) -> None:
        if isinstance(language, str) and not ISO_639_1.fullmatch(language):
            words = f"Invalid language '{language}'. Language parameter must be specified in ISO-639-1 format."
            findings.refuse(400, words, "language", "invalid_language_format")


def _known(values: Mapping[str, Any], table: Mapping[str, Field]) -> dict[str, Any]:
    """Leave out what the gateway does not look at."""
    return {name: value for name, value in values.items() if name in table}


def file_extension(ask: Ask) -> str:
    for part in ask.parts or []:
        if part.name == "file" and part.filename:
            return part.filename.rpartition(".")[2].lower()
    return ""


def unwrap_base64(text: Any, findings: Findings, param: str) -> Blob | None:
    try:
        return decode_base64(text)
    except Malformed as error:
        findings.refuse(400, f"Invalid {param}: {error}", param)
        return None


def _text(value: Any) -> Any:
    """Give a long string back that the reader had put aside."""
    return json.loads(b'"' + value.read() + b'"') if isinstance(value, Blob) else value


def bearer(headers: Mapping[str, str]) -> str | None:
    match = re.fullmatch(r"[Bb]earer\s+(\S+)", headers.get("authorization", ""))
    return match.group(1) if match else None
