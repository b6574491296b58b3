"""The nouns of audiocli: frozen values that every room shares. No behaviour beyond arithmetic on themselves.

Without slots: making a class twice, which slots need, costs half a millisecond each, at every start (Python 3.11).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

from .outcomes import NANOUSD_PER_USD as NANOUSD_PER_USD
from .outcomes import CostSource as CostSource
from .outcomes import Outcome as Outcome

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"


# --- sound -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pcm:
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


@dataclass(frozen=True)
class Recording:
    """A file with sound in it, looked at but not decoded.

    `format` is a name of `audio.formats`; `duration_s` is None where the container does not tell it.
    """

    path: Path
    format: str
    size_bytes: int
    duration_s: float | None = None
    has_video: bool = False


# --- what is asked ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SpeechRequest:
    """Text to be spoken; `format` is what the user wants, and on the wire what the gateway is asked for."""

    text: str
    format: str
    speed: float | None = None
    instructions: str | None = None
    options: Mapping[str, Json] = field(default_factory=dict)


class Timestamps(StrEnum):
    """How finely the words of a transcript are to be placed in time."""

    NONE = "none"
    SEGMENT = "segment"
    WORD = "word"


@dataclass(frozen=True)
class TranscriptionRequest:
    """A recording to be written down.

    `timestamps_required` tells captions, which are worthless without times, from JSON, which is merely poorer.
    `verbatim` asks for the richest reply that the gateway has, because the user wants to see that reply itself.
    """

    recording: Recording
    timestamps: Timestamps = Timestamps.NONE
    timestamps_required: bool = False
    verbatim: bool = False
    language: str | None = None
    prompt: str | None = None
    temperature: float | None = None
    options: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class Price:
    """An amount for one unit: character, byte, second, minute, hour, token, output token or request.

    `per` is None where the gateway does not tell the unit. `is_reading`: the unit is our reading of the number.
    """

    usd: Decimal
    per: str | None
    is_reading: bool = False


@dataclass(frozen=True)
class Route:
    """One way to get the work done: a gateway and a model there, with all that is needed to call it.

    `price` is the configured one, for where the gateway does not tell its own.
    """

    gateway: str
    dialect: str
    base_url: str
    model: str
    key: str | None = field(default=None, repr=False)
    voice: str | None = None
    price: Price | None = None

    @property
    def ref(self) -> str:
        return f"{self.gateway}:{self.model}"


@dataclass(frozen=True)
class SkippedRoute:
    """A route that was not tried or did not serve, and why."""

    gateway: str
    model: str
    reason: str


# --- what goes over the wire -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Body:
    """A request body that can be sent again: `pieces()` starts from the first byte at every call.

    Pieces are at most 1 MB each: httpx needs 1.1 GB of memory for a 300 MB body in one piece, 36 MB for pieces
    (measured 2026-11). `size_bytes` is their exact sum.
    """

    content_type: str
    size_bytes: int
    pieces: Callable[[], Iterator[bytes]]


@dataclass(frozen=True)
class WireRequest:
    """One request as it will be sent. The headers hold the key, so they stay out of every repr."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: Body | None = None


# --- what comes back -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Usage:
    """What a gateway says it used and charged. None is unknown, never zero."""

    cost_nanousd: int | None = None
    audio_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True)
class Word:
    start_s: float
    end_s: float
    word: str


@dataclass(frozen=True)
class Segment:
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


@dataclass(frozen=True)
class Transcript:
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


@dataclass(frozen=True)
class ModelCard:
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


@dataclass(frozen=True)
class Charge:
    """What one attempt is about, for its entry: the units that prices are made of."""

    command: str
    gateway: str
    model: str
    tag: str | None = None
    characters: int | None = None
    utf8_bytes: int | None = None
    audio_s: float | None = None
    estimate_nanousd: int | None = None


@dataclass(frozen=True)
class Settlement:
    """How one attempt ended."""

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


# --- what is told ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Served:
    """Who did the work in the end, and what it took: the part of a receipt that every command shares."""

    route: Route
    requests: int
    attempts: int
    cost_nanousd: int | None
    cost_source: CostSource
    generation_ids: tuple[str, ...] = ()
    first_byte_s: float | None = None
    elapsed_s: float = 0.0
    skipped: tuple[SkippedRoute, ...] = ()


@dataclass(frozen=True)
class SpeechReceipt:
    """A finished `speak`."""

    served: Served
    size_bytes: int
    sha256: str
    format: str
    duration_s: float | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class TranscriptionReceipt:
    """A finished `transcribe`; `reply` is the gateway's body, byte for byte."""

    served: Served
    transcript: Transcript
    reply: bytes
    warnings: tuple[str, ...] = ()
