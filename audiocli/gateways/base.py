"""The interface of dialects, and the tolerant parsers that they share.

A dialect is pure: it turns values into `HttpRequest`s and bytes into values, and never opens a connection. Responses
are parsed by hand instead of by a schema, because a gateway may omit, rename or mistype any field, and a response that
was paid for must still yield everything usable.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..errors import AttemptError, AudiocliError, PrivacyUnsupported, UsageError
from ..types.json import Json
from ..types.ledger import NANOUSD_PER_USD, Usage
from ..types.requests import HttpRequest, SpeechRequest, TranscriptionRequest
from ..types.results import KeyInfo, ServedModel
from ..types.routes import ModelCard, Route
from ..types.transcripts import Transcript

if TYPE_CHECKING:
    from ..types.jobs import JobState
    from ..types.requests import ChatRequest

# Times that gateways report. Anything outside, such as the year 1 or 9999, means that there is none.
MIN_DATE, MAX_DATE = date(2000, 1, 1), date(2200, 1, 1)
MAX_UNIX_TIME_S = 7_258_118_400.0  # 2200-01-01
MIN_UNIX_TIME_MS = 946_684_800_000.0  # 2000-01-01

# UTF-16 surrogates, which JSON can express and UTF-8 cannot.
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

# A reported cost above this for one request is assumed to be in a wrong unit.
MAX_PLAUSIBLE_COST_USD = 10_000


# Options that protect the input: no providers that store it, or that train on it. They are never dropped. The first
# spelling of each is the field of the request (OpenRouter's Python client 1.3.84).
PRIVACY_OPTIONS = {
    "provider.zdr": "zdr",
    "provider.data_collection": "data_collection",
    "zdr": "zdr",
    "data_collection": "data_collection",
}


# What a custom voice of the user begins with. Custom voices are not in any list.
CUSTOM_VOICE_PREFIXES = ("id:", "voice_")


def check_privacy_options(options: Mapping[str, Json], dialect: Dialect, route: Route) -> AudiocliError | None:
    """Return an error if the request has an option that protects privacy and the gateway does not keep it.

    Without the prefix, the name is a field like any other at gateways that send every field.
    """
    name = next((name for name in options if name in PRIVACY_OPTIONS and "." in name), None)
    if name is None or dialect.keeps_privacy_options:
        return None
    return PrivacyUnsupported(
        f"{route.gateway} does not support --option {name}", hint="use a model of openrouter, or of the local engine"
    )


def check_speech_input(request: SpeechRequest, dialect: Dialect, route: Route) -> AudiocliError | None:
    """Return an error if the request has turns or a reference voice and the gateway does not support them."""
    if dialect.supports_voice_references or not (request.turns or request.references):
        return None
    option = "--option input" if request.turns else "--reference"
    return UsageError(f"{route.gateway} does not support {option}", hint="use a model of openrouter")


def get_voice_id(voice: str) -> str | None:
    """Return the ID of a custom voice, given as `id:…` or as `voice_…`; None for the name of a built-in one."""
    return voice.removeprefix(CUSTOM_VOICE_PREFIXES[0]) if voice.startswith(CUSTOM_VOICE_PREFIXES) else None


def build_voice_field(voice: str | None, route: Route) -> Json:
    """Return a voice as it is sent. A custom voice is an object with its ID (specification 2.3.0).

    A server with another name for the field does not follow that specification.
    """
    voice_id = get_voice_id(voice) if voice else None
    if voice_id is None:
        return voice
    return voice_id if "voice" in dict(route.traits.field_names) else {"id": voice_id}


class Limits(NamedTuple):
    """Limits of a model. None means no known limit."""

    max_text_characters: int | None = None
    max_text_bytes: int | None = None
    max_upload_bytes: int | None = None
    max_audio_s: float | None = None
    max_prompt_characters: int | None = None
    max_chat_bytes: int | None = None
    max_text_tokens: int | None = None


class Dialect(Protocol):
    """A dialect: the wire format of one or more gateways.

    `route` has the model, base URL and API key. `check_*` methods return an error if the route cannot serve the request
    at all, which is known before anything is sent. `get_*_warnings` name options that have no effect.
    `get_*_features` name the parts of a request that a model may refuse, with the names in `capability_errors`.

    Attributes:
        is_free: Whether requests never cost anything.
        model_list_is_public: Whether the model list needs no API key.
        default_voice: Voice to send if none is configured; None if there is no voice that every model has.
        model_list_has_modalities: Whether the model list states the output modalities of each model.
        supports_jobs: Whether the gateway accepts background jobs.
        keeps_privacy_options: Whether speech and transcription keep `PRIVACY_OPTIONS`.
        supports_voice_references: Whether speech may imitate a recorded voice, and have turns of several speakers.
        declares_pcm_format: Whether responses with raw samples state their sample rate at every server.
    """

    is_free: bool
    model_list_is_public: bool
    default_voice: str | None
    model_list_has_modalities: bool
    supports_jobs: bool
    keeps_privacy_options: bool
    supports_voice_references: bool
    declares_pcm_format: bool

    def may_have_model(self, route: Route) -> bool:
        """Return whether a model of this name may exist here. Used if no model list is cached."""
        ...

    def get_limits(self, route: Route) -> Limits: ...

    def get_speech_formats(self, route: Route) -> tuple[str, ...]:
        """Return the audio formats that the gateway can produce, best first."""
        ...

    def supports_timestamps(self, request: TranscriptionRequest, route: Route) -> bool:
        """Return whether the transcript may have timestamps; False if the model is known not to return any."""
        ...

    def get_upload_formats(self, route: Route) -> tuple[str, ...]:
        """Return the accepted formats of recordings; `("*",)` is every format that can be decoded locally."""
        ...

    def takes_turns(self, route: Route) -> bool:
        """Return whether one request can have turns in several voices."""
        ...

    def check_speech(self, request: SpeechRequest, route: Route) -> AudiocliError | None: ...

    def check_transcription(self, request: TranscriptionRequest, route: Route) -> AudiocliError | None: ...

    def get_speech_warnings(self, request: SpeechRequest, route: Route) -> tuple[str, ...]: ...

    def get_transcription_warnings(self, request: TranscriptionRequest, route: Route) -> tuple[str, ...]: ...

    def get_speech_features(self, request: SpeechRequest, route: Route) -> tuple[str, ...]: ...

    def get_transcription_features(self, request: TranscriptionRequest, route: Route) -> tuple[str, ...]: ...

    def build_speech_request(self, request: SpeechRequest, route: Route) -> HttpRequest: ...

    def build_transcription_request(self, request: TranscriptionRequest, route: Route) -> HttpRequest: ...

    def parse_transcript(self, body: bytes, headers: Mapping[str, str]) -> Transcript:
        """Parse a response with status 200.

        Raises:
            AttemptError: The body holds an error, or no transcript.
        """
        ...

    def is_chat_streamed(self, request: ChatRequest, route: Route) -> bool:
        """Return whether the reply will be a stream, which the gateway may enforce."""
        ...

    def get_chat_formats(self, request: ChatRequest, route: Route) -> tuple[str, ...]:
        """Return the formats that can be requested for a spoken reply, best first."""
        ...

    def get_chat_upload_formats(self, route: Route) -> tuple[str, ...]: ...

    def check_chat(self, request: ChatRequest, route: Route) -> AudiocliError | None: ...

    def get_chat_warnings(self, request: ChatRequest, route: Route) -> tuple[str, ...]: ...

    def get_chat_features(self, request: ChatRequest, route: Route) -> tuple[str, ...]: ...

    def build_chat_request(self, request: ChatRequest, route: Route) -> HttpRequest:
        """Build a chat request. `chat_completions.ChatStream` and `parse_reply` parse the response."""
        ...

    def build_job_submission(self, request: HttpRequest, route: Route) -> HttpRequest | None:
        """Build the request that submits `request` as a background job; None if the gateway has no jobs."""
        ...

    def build_job_query(self, job_id: str, polling_url: str | None, route: Route) -> HttpRequest | None:
        """Build the request that polls a job; None if the gateway has no jobs."""
        ...

    def build_job_result_query(self, job_id: str, route: Route) -> HttpRequest | None:
        """Build the request for the result of a job without a reported URL; None if the gateway has no jobs."""
        ...

    def parse_job_state(self, body: bytes) -> JobState | None:
        """Parse the state of a job; None if the body is something else."""
        ...

    def parse_usage(self, headers: Mapping[str, str]) -> Usage:
        """Parse usage and cost from response headers."""
        ...

    def parse_served_model(self, headers: Mapping[str, str], route: Route) -> ServedModel:
        """Parse the model and provider that served the request from response headers."""
        ...

    def parse_generation_id(self, headers: Mapping[str, str]) -> str | None:
        """Parse the identifier with which the cost of the request can be looked up."""
        ...

    def build_cost_query(self, generation_id: str, route: Route) -> HttpRequest | None:
        """Build the request that looks up the cost of a finished request; None if the gateway has no such lookup."""
        ...

    def parse_cost(self, body: bytes) -> Usage | None:
        """Parse the response to `build_cost_query`; None if it has no cost."""
        ...

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> AttemptError:
        """Parse an error response of any shape. Never raises."""
        ...

    def build_models_query(self, route: Route) -> HttpRequest | None:
        """Build the request for the model list; the model of `route` is ignored. None if there is no list."""
        ...

    def parse_models(self, body: bytes, route: Route) -> tuple[ModelCard, ...] | None:
        """Parse the response to `build_models_query`; None if it is not a list."""
        ...

    def build_key_query(self, route: Route) -> HttpRequest | None:
        """Build the request for information about the API key; None if the gateway has none."""
        ...

    def parse_key_info(self, body: bytes) -> KeyInfo | None:
        """Parse the response to `build_key_query`; None if it is something else."""
        ...

    def may_list_prices(self, route: Route) -> bool:
        """Return whether the model list, or the details of the models, may have prices."""
        ...

    def build_details_query(self, body: bytes, route: Route) -> HttpRequest | None:
        """Build the request for kinds and prices that the model list `body` lacks; None if there is nothing to ask."""
        ...

    def add_model_details(self, cards: tuple[ModelCard, ...], body: bytes, route: Route) -> tuple[ModelCard, ...]:
        """Add the kinds and prices of the response to `build_details_query` to the models of a list."""
        ...

    def find_diagnostic_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the response headers about how the gateway served a request, for the debug output."""
        ...

    def get_known_voices(self, route: Route) -> tuple[str, ...] | None:
        """Return the voices of a model that are known without a request; None if only the gateway knows them."""
        ...

    def get_end_date(self, route: Route) -> date | None:
        """Return the announced shutdown date, if it is known without a request."""
        ...

    def build_voices_query(self, route: Route) -> HttpRequest | None:
        """Build the request for the voices of a model; None if the gateway has no such list."""
        ...

    def parse_voices(self, body: bytes, route: Route) -> tuple[str, ...] | None:
        """Parse the response to `build_voices_query`; None if it has no voices."""
        ...


class DialectDefaults:
    """Defaults for what a gateway does not support or does not report."""

    model_list_has_modalities = False
    supports_jobs = False
    keeps_privacy_options = False
    supports_voice_references = False
    declares_pcm_format = False

    def takes_turns(self, route: Route) -> bool:
        return False

    def build_job_submission(self, request: HttpRequest, route: Route) -> HttpRequest | None:
        return None

    def build_job_query(self, job_id: str, polling_url: str | None, route: Route) -> HttpRequest | None:
        return None

    def build_job_result_query(self, job_id: str, route: Route) -> HttpRequest | None:
        return None

    def parse_job_state(self, body: bytes) -> JobState | None:
        return None

    def is_chat_streamed(self, request: ChatRequest, route: Route) -> bool:
        return False

    def get_chat_formats(self, request: ChatRequest, route: Route) -> tuple[str, ...]:
        return ()

    def get_chat_upload_formats(self, route: Route) -> tuple[str, ...]:
        return ()

    def check_chat(self, request: ChatRequest, route: Route) -> AudiocliError | None:
        return UsageError(f"{route.ref} does not support audio chat", hint="try openai:gpt-audio-1.5")

    def get_chat_warnings(self, request: ChatRequest, route: Route) -> tuple[str, ...]:
        return ()

    def get_chat_features(self, request: ChatRequest, route: Route) -> tuple[str, ...]:
        return ()

    def build_chat_request(self, request: ChatRequest, route: Route) -> HttpRequest:
        raise self.check_chat(request, route) or UsageError(f"{route.ref} does not support audio chat")

    def parse_usage(self, headers: Mapping[str, str]) -> Usage:
        return Usage()

    def parse_served_model(self, headers: Mapping[str, str], route: Route) -> ServedModel:
        return ServedModel()

    def parse_generation_id(self, headers: Mapping[str, str]) -> str | None:
        return None

    def build_cost_query(self, generation_id: str, route: Route) -> HttpRequest | None:
        return None

    def parse_cost(self, body: bytes) -> Usage | None:
        return None

    def get_end_date(self, route: Route) -> date | None:
        return None

    def may_list_prices(self, route: Route) -> bool:
        return False

    def build_details_query(self, body: bytes, route: Route) -> HttpRequest | None:
        return None

    def add_model_details(self, cards: tuple[ModelCard, ...], body: bytes, route: Route) -> tuple[ModelCard, ...]:
        return cards

    def find_diagnostic_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {}

    def build_key_query(self, route: Route) -> HttpRequest | None:
        return None

    def parse_key_info(self, body: bytes) -> KeyInfo | None:
        return None


def join_url(base_url: str, path: str) -> str:
    """Append a path to a base URL, with exactly one slash between them.

    A query of the base URL (`?api-version=1`) is kept behind that of the path. A fragment is dropped: it is never sent.
    """
    base, _, base_query = base_url.partition("#")[0].partition("?")
    path, _, query = path.partition("?")
    joined_query = "&".join(filter(None, (query, base_query)))
    return base.rstrip("/") + path + (f"?{joined_query}" if joined_query else "")


def add_query(url: str, query: str) -> str:
    """Append a query to a URL that may have one."""
    return f"{url}{'&' if '?' in url else '?'}{query}"


# The endpoints whose path a table of the config file may replace.
ENDPOINT_NAMES = {
    "/audio/speech": "speech",
    "/audio/transcriptions": "transcription",
    "/audio/translations": "translation",
    "/chat/completions": "chat",
    "/models": "models",
    "/audio/voices": "voices",
}


def build_url(route: Route, path: str) -> str:
    """Return the URL of an endpoint of a route, with the path and the query of its server."""
    traits = route.traits
    if traits.paths:
        endpoint, question_mark, query = path.partition("?")
        name = ENDPOINT_NAMES.get(endpoint)
        configured = next((value for key, value in traits.paths if key == name), None)
        if configured is not None:
            from urllib.parse import quote

            path = configured.replace("{model}", quote(route.model, safe=""))
            path += ("&" if "?" in path else "?") + query if question_mark else ""
    url = join_url(route.base_url, path)
    if traits.query:
        from urllib.parse import urlencode

        url = add_query(url, urlencode(traits.query))
    return url


def build_auth_headers(route: Route) -> dict[str, str]:
    """Return the header with the API key, and the configured headers, which take precedence."""
    headers = {}
    if route.key and route.traits.auth == "bearer":
        headers["Authorization"] = f"Bearer {route.key}"
    elif route.key and route.traits.auth == "api-key":
        headers["api-key"] = route.key
    return add_configured_headers(headers, route)


def add_configured_headers(headers: Mapping[str, str], route: Route) -> dict[str, str]:
    """Return the headers with those of the table of the server, which replace headers of the same name."""
    configured = {name.lower() for name, _ in route.traits.headers}
    return {
        **{name: value for name, value in headers.items() if name.lower() not in configured},
        **dict(route.traits.headers),
    }


def apply_configured_limits(limits: Limits, route: Route) -> Limits:
    """Return the limits with those of the table of the server, which take precedence."""
    configured: dict[str, Any] = dict(route.traits.limits)
    return limits._replace(**configured) if configured else limits


def read_json(body: bytes, *, keep_surrogates: bool = False) -> Json:
    """Parse JSON; None if it is invalid or nested too deeply.

    Lone surrogates become U+FFFD, so that every text can be encoded; `keep_surrogates` is for stored bytes that are not
    UTF-8 (PEP 383). An integer with more digits than Python converts becomes a float.
    """
    try:
        text = body.decode(json.detect_encoding(body), "surrogatepass")
        try:
            value: Json = json.loads(text)
        except json.JSONDecodeError:
            return None
        except ValueError:  # an integer of more than 4300 digits
            value = json.loads(text, parse_int=float)
        has_surrogates = _SURROGATE.search(text) or _ESCAPED_SURROGATE.search(text)
        return _replace_surrogates(value) if has_surrogates and not keep_surrogates else value
    except (ValueError, RecursionError):
        return None


def _replace_surrogates(value: Json) -> Json:
    """Replace lone surrogates by U+FFFD, and pairs by the character that they encode."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_replace_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {str(_replace_surrogates(name)): _replace_surrogates(item) for name, item in value.items()}
    return value


def as_object(value: object) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[Json]:
    return value if isinstance(value, list) else []


def as_text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def as_number(value: object) -> float | None:
    """Return a finite number, which may be sent as text; otherwise None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def as_count(value: object) -> int | None:
    number = as_number(value)
    return int(number) if number is not None and 0 <= number < 2**53 else None


def as_date(value: object) -> date | None:
    """Return the date of `YYYY-MM-DD`, which a time may follow; None if it is invalid or out of range."""
    try:
        day = date.fromisoformat(value[:10]) if isinstance(value, str) else None
    except ValueError:
        return None
    return day if day is not None and MIN_DATE <= day < MAX_DATE else None


def as_unix_time_s(value: object) -> float | None:
    """Convert Unix time in seconds or milliseconds, also as text, or ISO 8601 to Unix time in seconds.

    None if it is invalid or out of range.
    """
    number = as_number(value)
    if number is not None:
        number = number / 1000 if number >= MIN_UNIX_TIME_MS else number
    elif isinstance(value, str):
        try:
            parsed_time = datetime.fromisoformat(value.strip())
        except ValueError:
            return None
        number = (parsed_time if parsed_time.tzinfo is not None else parsed_time.replace(tzinfo=UTC)).timestamp()
    return number if number is not None and 0 < number < MAX_UNIX_TIME_S else None


def as_identifier(value: str | None) -> str | None:
    """Return an identifier that can be stored and sent back; None if it is too long or not printable."""
    return value if value and len(value) <= 200 and value.isprintable() else None


def as_nanousd(value: object) -> int | None:
    """Convert an amount in US dollars. Negative, implausible and malformed amounts are None, never 0."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        usd = Decimal(str(value))
    except InvalidOperation:
        return None
    if not usd.is_finite() or not 0 <= usd <= MAX_PLAUSIBLE_COST_USD:
        return None
    return int((usd * NANOUSD_PER_USD).to_integral_value())


def quote_invalid_cost(value: object) -> str | None:
    """Return the text of a reported cost that is invalid; None if it is valid or missing."""
    if value is None or as_nanousd(value) is not None:
        return None
    return repr(value)[:40]


def parse_upstream_cost(usage: Mapping[str, Json]) -> int | None:
    """Parse what the provider charged in addition to the gateway, if the user's own provider key was used."""
    if usage.get("is_byok") is not True:
        return None
    details = as_object(usage.get("cost_details"))
    costs = (as_nanousd(item.get("upstream_inference_cost")) for item in (details, usage))
    return next((cost for cost in costs if cost is not None), None)


def remove_bom(text: str) -> str:
    """Remove U+FEFF from the start of a reply. Some models begin with it; it is not part of the text."""
    stripped = text.lstrip()
    return stripped.lstrip("\ufeff") if stripped.startswith("\ufeff") else text


def get_media_type(headers: Mapping[str, str]) -> str:
    """Return the Content-Type without parameters, in lower case; empty if there is none."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()
