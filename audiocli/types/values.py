"""The nouns of audiocli: frozen values that every room shares. No behaviour beyond arithmetic on themselves.

Named tuples: a frozen dataclass is written as source and compiled at every start, which takes 1.3 ms each, and there
are forty of them on the way of one request (Python 3.11, 2026-11; a named tuple takes 0.2 ms).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import date
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from .outcomes import NANOUSD_PER_USD as NANOUSD_PER_USD
from .outcomes import CostSource as CostSource
from .outcomes import Outcome as Outcome

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

# What stands for no options and no headers.
NONE: Mapping[str, Any] = MappingProxyType({})


# --- sound -----------------------------------------------------------------------------------------------------------


class Pcm(NamedTuple):
    """The shape of raw samples: interleaved signed 16-bit little-endian, always.

    24,000 Hz mono is what every gateway means by a bare `audio/pcm` (OpenAI text-to-speech guide, read 2026-11).
    """

    sample_rate_hz: int = 24_000
    channels: int = 1

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample over all channels."""
        return 2 * self.channels

    @property
    def bytes_per_second(self) -> int:
        return self.frame_bytes * self.sample_rate_hz


class Recording(NamedTuple):
    """A file with sound in it, looked at but not decoded.

    `format` is a name of `audio.formats`; `duration_s` is None where the container does not tell it.
    """

    path: Path
    format: str
    size_bytes: int
    duration_s: float | None = None
    has_video: bool = False


# --- what is asked ---------------------------------------------------------------------------------------------------


class SpeechRequest(NamedTuple):
    """Text to be spoken; `format` is what the user wants, and on the wire what the gateway is asked for."""

    text: str
    format: str
    speed: float | None = None
    instructions: str | None = None
    options: Mapping[str, Json] = NONE


class Timestamps(StrEnum):
    """How finely the words of a transcript are to be placed in time."""

    NONE = "none"
    SEGMENT = "segment"
    WORD = "word"


class Speaker(NamedTuple):
    """Somebody who may be heard; `clip` is a few seconds of the voice as a data URL."""

    name: str
    clip: str | None = None


class TranscriptionRequest(NamedTuple):
    """A recording to be written down.

    `timestamps_required` tells captions, which are worthless without times, from JSON, which is merely poorer.
    `verbatim` asks for the richest reply that the gateway has, because the user wants to see that reply itself.
    `translates` into English; `streams` text while it is still being heard, where the gateway can.
    """

    recording: Recording
    timestamps: Timestamps = Timestamps.NONE
    timestamps_required: bool = False
    verbatim: bool = False
    language: str | None = None
    prompt: str | None = None
    temperature: float | None = None
    options: Mapping[str, Json] = NONE
    translates: bool = False
    diarizes: bool = False
    speakers: tuple[Speaker, ...] = ()
    streams: bool = False


class Price(NamedTuple):
    """An amount for one unit: character, byte, second, minute, hour, token, output token, audio token, audio output
    token or request.

    `per` is None where the gateway does not tell the unit. `is_reading`: the unit is our reading of the number.
    `least_s` is the shortest recording that is charged, `step_s` what a length is rounded up to.
    """

    usd: Decimal
    per: str | None
    is_reading: bool = False
    least_s: float = 0.0
    step_s: float = 0.0


class Estimate(NamedTuple):
    """What a request may cost, in nano-dollars, at least and at most; None: nobody knows.

    `is_certain`: the units were known before sending and the price is the gateway's own word, so that is what it costs.
    """

    least_nanousd: int | None = None
    most_nanousd: int | None = None
    is_certain: bool = False

    @property
    def nanousd(self) -> int | None:
        """One number for the range."""
        if self.least_nanousd is None or self.most_nanousd is None:
            return None
        return (self.least_nanousd + self.most_nanousd) // 2


class Route(NamedTuple):
    """One way to get the work done: a gateway and a model there, with all that is needed to call it.

    `price` is the configured one, for where the gateway does not tell its own. `refused` names what the model was seen
    to refuse (`gateways.lessons`), `notes` what the user should know before this route is taken.
    """

    gateway: str
    dialect: str
    base_url: str
    model: str
    key: str | None = None
    voice: str | None = None
    price: Price | None = None
    refused: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    @property
    def ref(self) -> str:
        return f"{self.gateway}:{self.model}"

    def __repr__(self) -> str:
        """Without the key."""
        return f"Route({self.ref}, {self.base_url}, voice={self.voice})"


class SkippedRoute(NamedTuple):
    """A route that was not tried or did not serve, and why."""

    gateway: str
    model: str
    reason: str


# --- what goes over the wire -----------------------------------------------------------------------------------------


class Body(NamedTuple):
    """A request body that can be sent again: `pieces()` starts from the first byte at every call.

    Pieces are at most 1 MB each: httpx needs 1.1 GB of memory for a 300 MB body in one piece, 36 MB for pieces
    (measured 2026-11). `size_bytes` is their exact sum.
    """

    content_type: str
    size_bytes: int
    pieces: Callable[[], Iterator[bytes]]


class WireRequest(NamedTuple):
    """One request as it will be sent. The headers hold the key, so they stay out of every repr.

    `public_only`: not to a private address, whatever its name.
    """

    method: str
    url: str
    headers: Mapping[str, str] = NONE
    body: Body | None = None
    public_only: bool = False

    def __repr__(self) -> str:
        return f"WireRequest({self.method} {self.url})"


# --- what comes back -------------------------------------------------------------------------------------------------


class Usage(NamedTuple):
    """What a gateway says it used and charged. None is unknown, never zero.

    `upstream_nanousd` is what a provider charged beside the gateway, where the user's own key at it was used.
    `nonsense` is what a gateway told as its cost that cannot be one. The tokens of sound are among the others.
    """

    cost_nanousd: int | None = None
    audio_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    upstream_nanousd: int | None = None
    nonsense: str | None = None
    input_audio_tokens: int | None = None
    output_audio_tokens: int | None = None


class Service(NamedTuple):
    """Who did the work behind a gateway, as far as it tells; `swapped` when it was not what was asked for."""

    model: str | None = None
    provider: str | None = None
    swapped: bool = False


class Word(NamedTuple):
    start_s: float
    end_s: float
    word: str


class Segment(NamedTuple):
    start_s: float
    end_s: float
    text: str
    speaker: str | None = None


class Timing(StrEnum):
    """Where the times of a transcript come from."""

    WORD = "word"
    SEGMENT = "segment"
    PIECE = "piece"
    NONE = "none"


class Transcript(NamedTuple):
    """What was said. `language` is the two-letter code; times are seconds from the start of the recording.

    `by_piece`: the segments are not the speaker's but the pieces of something long, or some of them are.
    """

    text: str
    language: str | None = None
    duration_s: float | None = None
    segments: tuple[Segment, ...] = ()
    words: tuple[Word, ...] = ()
    usage: Usage = Usage()
    by_piece: bool = False

    @property
    def timing(self) -> Timing:
        if self.words:
            return Timing.WORD
        if self.segments:
            return Timing.PIECE if self.by_piece else Timing.SEGMENT
        return Timing.NONE


# --- money -----------------------------------------------------------------------------------------------------------


class ModelCard(NamedTuple):
    """What is known of one model. `kind` is speech, transcription or chat; empty tuples are unknown, not none."""

    gateway: str
    model: str
    kind: str | None
    prices: tuple[Price, ...] = ()
    voices: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    ends: date | None = None
    note: str | None = None

    @property
    def ref(self) -> str:
        return f"{self.gateway}:{self.model}"


class Reservation(NamedTuple):
    """What one attempt is about, for its entry: the units that prices are made of.

    `most_nanousd` is the most that it may cost, which caps reserve; None: nobody knows. `run` names the command.
    """

    command: str
    gateway: str
    model: str
    tag: str | None = None
    characters: int | None = None
    utf8_bytes: int | None = None
    audio_s: float | None = None
    estimate_nanousd: int | None = None
    most_nanousd: int | None = None
    run: str | None = None


class Settlement(NamedTuple):
    """How one attempt ended; `model` is the one that served, where that is not the one that was asked."""

    outcome: Outcome
    cost_nanousd: int | None = None
    cost_source: CostSource = CostSource.UNKNOWN
    status: int | None = None
    error: str | None = None
    request_id: str | None = None
    generation_id: str | None = None
    audio_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    received_bytes: int | None = None
    model: str | None = None
    upstream_nanousd: int | None = None
    input_audio_tokens: int | None = None
    output_audio_tokens: int | None = None


class UnreconciledEntry(NamedTuple):
    """A finished request whose true cost is not known, by the name that its gateway gave it."""

    id: int
    gateway: str
    model: str
    generation_id: str
    cost_nanousd: int | None


# --- what is told ----------------------------------------------------------------------------------------------------


class RunResult(NamedTuple):
    """Who did the work in the end, and what it took: the part of a receipt that every command shares.

    `model` is the one that served: the route's, unless the gateway put another in its place.
    """

    route: Route
    model: str
    requests: int
    attempts: int
    cost_nanousd: int | None
    cost_source: CostSource
    generation_ids: tuple[str, ...] = ()
    first_byte_s: float | None = None
    elapsed_s: float = 0.0
    skipped: tuple[SkippedRoute, ...] = ()


class SpeechResult(NamedTuple):
    """A finished `speak`."""

    run: RunResult
    size_bytes: int
    sha256: str
    format: str
    duration_s: float | None
    warnings: tuple[str, ...] = ()


class TranscriptionResult(NamedTuple):
    """A finished `transcribe`; `reply` is the gateway's body, byte for byte. `is_partial`: the recording broke off.

    `kept_names` are the pieces that may be forgotten once the transcript is written.
    """

    run: RunResult
    transcript: Transcript
    reply: bytes
    warnings: tuple[str, ...] = ()
    is_partial: bool = False
    kept_names: tuple[str, ...] = ()
