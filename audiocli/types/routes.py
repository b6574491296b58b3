"""Routes, models and prices."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import NamedTuple


class Price(NamedTuple):
    """Price of one unit.

    Attributes:
        unit: Character, byte, second, minute, hour, token, output token, audio token, audio output token or request;
            None if the gateway does not state it.
        unit_is_assumed: Whether the unit is inferred from the amount.
        min_billed_s: Duration that is charged for shorter recordings.
        billing_increment_s: Durations are rounded up to a multiple of this.
    """

    usd: Decimal
    unit: str | None
    unit_is_assumed: bool = False
    min_billed_s: float = 0.0
    billing_increment_s: float = 0.0


class ServerTraits(NamedTuple):
    """How a server differs from its dialect, from its table in the config file. Pairs, so that a route can be hashed.

    Attributes:
        headers: Headers of every request, with the values of variables. They are secrets.
        query: Parameters of the query of every request.
        auth: How the API key is sent: `bearer`, `api-key` or `none`.
        pcm_rate_hz: Sample rate of its raw samples.
        samples: Format to request where samples are needed.
        has_model_list: Whether it lists its models.
        paths: Path of an endpoint by its name in `gateways.traits`.
        format_names: Its name of a format.
        speech_formats: Formats that it makes; empty for those of the dialect. `upload_formats` likewise.
        field_names: Its name of a field of the dialect.
        fields: Constant fields of requests for speech, with values in JSON. `transcription_fields` likewise.
        omitted_fields: Fields of the dialect that it refuses.
        speech_response: `bytes`, `json:FIELD` or `sse:FIELD`.
        default_voice: Voice that is used if none is named; it may be empty.
        limits: Limits by their name in `gateways.base.Limits`.
        secrets: Texts that are never shown.
        variables: Environment variables with secrets.
        speech_fingerprint: Hash of what decides the result of speech; empty if nothing does.
            `transcription_fingerprint` likewise.
    """

    headers: tuple[tuple[str, str], ...] = ()
    query: tuple[tuple[str, str], ...] = ()
    auth: str = "bearer"
    pcm_rate_hz: int | None = None
    samples: str | None = None
    has_model_list: bool = True
    paths: tuple[tuple[str, str], ...] = ()
    format_names: tuple[tuple[str, str], ...] = ()
    speech_formats: tuple[str, ...] = ()
    upload_formats: tuple[str, ...] = ()
    field_names: tuple[tuple[str, str], ...] = ()
    fields: tuple[tuple[str, str], ...] = ()
    transcription_fields: tuple[tuple[str, str], ...] = ()
    omitted_fields: tuple[str, ...] = ()
    speech_response: str = "bytes"
    default_voice: str | None = None
    limits: tuple[tuple[str, int], ...] = ()
    secrets: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    speech_fingerprint: str = ""
    transcription_fingerprint: str = ""

    def __repr__(self) -> str:
        """Return a representation without values, which may be secrets."""
        return f"ServerTraits({', '.join(name for name, _ in self.headers)})"


NO_TRAITS = ServerTraits()


class Route(NamedTuple):
    """A gateway and a model (and a voice), with everything that is needed to send a request.

    Attributes:
        price: Configured price, used if the gateway does not publish one.
        estimate_correction: Factor for estimates, from earlier bills of the model (`pricing.compute_correction`).
        unsupported: Features that the model has refused before (`gateways.capability_errors`).
        notes: Warnings to print before this route is used.
        traits: Differences of the server, from its table in the config file.
    """

    gateway: str
    dialect: str
    base_url: str
    model: str
    key: str | None = None
    voice: str | None = None
    price: Price | None = None
    unsupported: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    estimate_correction: float = 1.0
    traits: ServerTraits = NO_TRAITS

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that are never shown: the API key, and those of the headers."""
        return (*((self.key,) if self.key else ()), *self.traits.secrets)

    @property
    def ref(self) -> str:
        return f"{self.gateway}:{self.model}"

    def __repr__(self) -> str:
        """Return a representation without the API key and the base URL, which may have a password."""
        return f"Route({self.ref}, voice={self.voice})"


class SkippedRoute(NamedTuple):
    """A route that was not tried or has failed, and the reason."""

    gateway: str
    model: str
    reason: str


class ModelCard(NamedTuple):
    """A model in the list of a gateway.

    Attributes:
        kind: `speech`, `transcription` or `chat`; None if unknown.
        prices: Empty if unknown, like `voices` and `formats`.
        end_date: Announced shutdown date.
    """

    gateway: str
    model: str
    kind: str | None
    prices: tuple[Price, ...] = ()
    voices: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    end_date: date | None = None
    note: str | None = None

    @property
    def ref(self) -> str:
        return f"{self.gateway}:{self.model}"
