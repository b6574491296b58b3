"""What every gateway's dialect can say, and the tolerant readers that all of them share.

A dialect is pure: values become a `WireRequest`, bytes become values. It never opens a connection, so the same code
serves one request and a thousand at once. Replies are read by hand rather than by a schema: a gateway may leave out,
rename or mistype any field, and a reply that was paid for must still give all that can be had from it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..errors import AttemptError, AudiocliError, UsageError
from ..types.values import (
    NANOUSD_PER_USD,
    Json,
    ModelCard,
    Route,
    Service,
    SpeechRequest,
    Transcript,
    TranscriptionRequest,
    Usage,
    WireRequest,
)

if TYPE_CHECKING:
    from ..types.chat import ChatRequest
    from ..types.jobs import JobState

# A single request that costs more than this is a misread unit, not a price.
ABSURD_COST_USD = 10_000


class Limits(NamedTuple):
    """What a model of a gateway takes. None: no limit known."""

    text_characters: int | None = None
    text_bytes: int | None = None
    upload_bytes: int | None = None
    audio_s: float | None = None
    prompt_characters: int | None = None
    chat_bytes: int | None = None


class Gateway(Protocol):
    """One dialect. `route` names the model and carries base URL and key.

    Refusals are known before anything is sent and end the route; warnings name what will have no effect.
    """

    is_free: bool
    lists_in_public: bool
    usual_voice: str | None
    tells_modalities: bool
    has_jobs: bool

    def plausible(self, route: Route) -> bool:
        """Tell whether a model of this name could exist here, when no list of models is at hand."""
        ...

    def limits(self, route: Route) -> Limits: ...

    def speech_formats(self, route: Route) -> tuple[str, ...]:
        """Name the audio formats that the gateway makes itself, best first."""
        ...

    def gives_times(self, request: TranscriptionRequest, route: Route) -> bool:
        """Tell whether the transcript of a model is known to come without times, or may have them."""
        ...

    def upload_formats(self, route: Route) -> tuple[str, ...]:
        """Name the formats of recordings that the gateway takes; `("*",)` is any that can be decoded here."""
        ...

    def speech_refusal(self, request: SpeechRequest, route: Route) -> AudiocliError | None: ...

    def transcription_refusal(self, request: TranscriptionRequest, route: Route) -> AudiocliError | None: ...

    def speech_warnings(self, request: SpeechRequest, route: Route) -> tuple[str, ...]: ...

    def transcription_warnings(self, request: TranscriptionRequest, route: Route) -> tuple[str, ...]: ...

    def speech_features(self, request: SpeechRequest, route: Route) -> tuple[str, ...]:
        """Name what `speech` asks for that a model may refuse, in the words of `lessons`."""
        ...

    def transcription_features(self, request: TranscriptionRequest, route: Route) -> tuple[str, ...]: ...

    def speech(self, request: SpeechRequest, route: Route) -> WireRequest: ...

    def transcription(self, request: TranscriptionRequest, route: Route) -> WireRequest: ...

    def transcript(self, body: bytes, headers: Mapping[str, str]) -> Transcript:
        """Read a 200. Raises: AttemptError (an error inside it, or no transcript)."""
        ...

    def chat_streams(self, request: ChatRequest, route: Route) -> bool:
        """Tell whether the answer will come in a stream, whatever the request says."""
        ...

    def chat_formats(self, request: ChatRequest, route: Route) -> tuple[str, ...]:
        """Name what a spoken answer can be asked for in, best first."""
        ...

    def chat_uploads(self, route: Route) -> tuple[str, ...]: ...

    def chat_refusal(self, request: ChatRequest, route: Route) -> AudiocliError | None: ...

    def chat_warnings(self, request: ChatRequest, route: Route) -> tuple[str, ...]: ...

    def chat_features(self, request: ChatRequest, route: Route) -> tuple[str, ...]: ...

    def chat(self, request: ChatRequest, route: Route) -> WireRequest:
        """Ask; `chats.ChatStream` and `chats.whole` read the answer."""
        ...

    def submissions(self, request: WireRequest, route: Route) -> tuple[WireRequest, ...]:
        """Hand `request` in to be done later: the ways to do so, of which the next is for a gateway without the one."""
        ...

    def job_query(self, job_id: str, polling_url: str | None, route: Route) -> WireRequest | None:
        """Ask after a job; None where there are none."""
        ...

    def job_content(self, job_id: str, route: Route) -> WireRequest | None:
        """Ask for the result of a job where no link to it was told."""
        ...

    def job_reply(self, body: bytes) -> JobState | None:
        """Read what is told of a job; None when this is something else."""
        ...

    def usage(self, headers: Mapping[str, str]) -> Usage:
        """Read what the headers of a reply tell about its cost."""
        ...

    def service(self, headers: Mapping[str, str], route: Route) -> Service:
        """Read who did the work."""
        ...

    def generation_id(self, headers: Mapping[str, str]) -> str | None:
        """Read the name of a finished request, by which its cost can be looked up."""
        ...

    def generation_query(self, generation_id: str, route: Route) -> WireRequest | None:
        """Ask what a finished request cost; None where that cannot be asked."""
        ...

    def generation_reply(self, body: bytes) -> Usage | None:
        """Read the answer to `generation_query`; None when it does not tell."""
        ...

    def failure(self, status: int, headers: Mapping[str, str], body: bytes) -> AttemptError:
        """Turn any error reply, however broken, into the error that says what may be done about it."""
        ...

    def models_query(self, route: Route) -> WireRequest | None:
        """Ask for the models that speak, transcribe or talk; `route` names no model. None: there is no such list."""
        ...

    def models_reply(self, body: bytes, route: Route) -> tuple[ModelCard, ...] | None:
        """Read the answer to `models_query`; None when it is no list."""
        ...

    def voices(self, route: Route) -> tuple[str, ...] | None:
        """Name the voices of a model that need no look-up; None where only the gateway can tell."""
        ...

    def ends(self, route: Route) -> date | None:
        """Tell when a model is to be switched off, where that is known without asking."""
        ...

    def voices_query(self, route: Route) -> WireRequest | None:
        """Ask for the voices; None where the gateway has no such list."""
        ...

    def voices_reply(self, body: bytes, route: Route) -> tuple[str, ...] | None:
        """Read the answer to `voices_query`; None when it does not tell."""
        ...


class GatewayDefaults:
    """What a dialect answers about things that its gateway does not tell, or does not do."""

    # Whether the list of models says what comes out of each.
    tells_modalities = False
    # Whether it takes work to be done in its own time.
    has_jobs = False

    def submissions(self, request: WireRequest, route: Route) -> tuple[WireRequest, ...]:
        return ()

    def job_query(self, job_id: str, polling_url: str | None, route: Route) -> WireRequest | None:
        return None

    def job_content(self, job_id: str, route: Route) -> WireRequest | None:
        return None

    def job_reply(self, body: bytes) -> JobState | None:
        return None

    def chat_streams(self, request: ChatRequest, route: Route) -> bool:
        return False

    def chat_formats(self, request: ChatRequest, route: Route) -> tuple[str, ...]:
        return ()

    def chat_uploads(self, route: Route) -> tuple[str, ...]:
        return ()

    def chat_refusal(self, request: ChatRequest, route: Route) -> AudiocliError | None:
        return UsageError(f"{route.ref} does not talk", hint="openrouter:openai/gpt-4o-audio-preview does")

    def chat_warnings(self, request: ChatRequest, route: Route) -> tuple[str, ...]:
        return ()

    def chat_features(self, request: ChatRequest, route: Route) -> tuple[str, ...]:
        return ()

    def chat(self, request: ChatRequest, route: Route) -> WireRequest:
        raise self.chat_refusal(request, route) or UsageError(f"{route.ref} does not talk")

    def usage(self, headers: Mapping[str, str]) -> Usage:
        return Usage()

    def service(self, headers: Mapping[str, str], route: Route) -> Service:
        return Service()

    def generation_id(self, headers: Mapping[str, str]) -> str | None:
        return None

    def generation_query(self, generation_id: str, route: Route) -> WireRequest | None:
        return None

    def generation_reply(self, body: bytes) -> Usage | None:
        return None

    def ends(self, route: Route) -> date | None:
        return None


def join_url(base_url: str, path: str) -> str:
    """Set a path behind a base URL that may or may not end in a slash."""
    return base_url.rstrip("/") + path


def bearer(route: Route) -> dict[str, str]:
    return {"Authorization": f"Bearer {route.key}"} if route.key else {}


def read_json(body: bytes) -> Json:
    """Parse JSON that may not be JSON at all; anything unreadable is None."""
    try:
        value: Json = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value


def as_object(value: object) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[Json]:
    return value if isinstance(value, list) else []


def as_text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def as_number(value: object) -> float | None:
    """Read a finite number, also one that was sent as text; everything else is None."""
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
    """Read `YYYY-MM-DD`, also with a time behind it; anything else is None."""
    try:
        return date.fromisoformat(value[:10]) if isinstance(value, str) else None
    except ValueError:
        return None


def as_id(value: str | None) -> str | None:
    """Read a name that is to be kept and sent back; one that is too long or not printable is none."""
    return value if value and len(value) <= 200 and value.isprintable() else None


def as_nanousd(value: object) -> int | None:
    """Read an amount in US dollars; negative, absurd or unreadable amounts are unknown (None), never 0."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        usd = Decimal(str(value))
    except InvalidOperation:
        return None
    if not usd.is_finite() or not 0 <= usd <= ABSURD_COST_USD:
        return None
    return int((usd * NANOUSD_PER_USD).to_integral_value())


def nonsense_in(value: object) -> str | None:
    """Quote what was told as a cost and cannot be one; None: it can, or nothing was told."""
    if value is None or as_nanousd(value) is not None:
        return None
    return repr(value)[:40]


def upstream_of(told: Mapping[str, Json]) -> int | None:
    """Read what the provider charged beside the gateway: only where the user's own key at it was used."""
    if told.get("is_byok") is not True:
        return None
    details = as_object(told.get("cost_details"))
    costs = (as_nanousd(one.get("upstream_inference_cost")) for one in (details, told))
    return next((cost for cost in costs if cost is not None), None)


def media_type(headers: Mapping[str, str]) -> str:
    """The Content-Type without its parameters, in lower case; empty if there is none."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()
