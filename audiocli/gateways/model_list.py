"""Lists of models in OpenRouter's shape, as OpenRouter, TheRouter and ARouter give them: one reader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from .. import pricing
from ..types.values import Json, ModelCard, Route
from .base import as_date, as_list, as_object, as_text, read_json
from .model_names import kind_of_name

# The words for what comes out of a model, and what that makes it here.
KIND_OF_MODALITY = {"speech": "speech", "transcription": "transcription", "audio": "chat"}


class Formats(Protocol):
    def speech_formats(self, route: Route) -> tuple[str, ...]: ...

    def voices(self, route: Route) -> tuple[str, ...] | None: ...


def cards(body: bytes, route: Route, dialect: Formats) -> tuple[ModelCard, ...] | None:
    """Read the models that speak, transcribe or talk; None when this is no list."""
    listed = as_object(read_json(body)).get("data")
    if not isinstance(listed, list):
        return None
    found = (_card(as_object(item), route, dialect) for item in listed)
    return tuple(card for card in found if card is not None)


def _card(item: Mapping[str, Json], route: Route, dialect: Formats) -> ModelCard | None:
    name = as_text(item.get("id"))
    kind = name and _kind(name, as_object(item.get("architecture")))
    if not name or not kind:
        return None
    named = route._replace(model=name)
    listed_prices = as_object(item.get("pricing"))
    voices = tuple(voice for voice in map(as_text, as_list(item.get("supported_voices"))) if voice)
    speaks = kind == "speech"
    return ModelCard(
        gateway=route.gateway,
        model=name,
        kind=kind,
        prices=(
            *pricing.openrouter(kind, listed_prices.get("prompt"), listed_prices.get("completion")),
            *(pricing.sound(listed_prices.get("audio"), listed_prices.get("audio_output")) if kind == "chat" else ()),
        ),
        voices=voices or ((dialect.voices(named) or ()) if speaks else ()),
        formats=dialect.speech_formats(named) if speaks else (),
        ends=as_date(item.get("expiration_date")),
    )


def _kind(name: str, architecture: Mapping[str, Json]) -> str | None:
    """Tell what a model is for: by what comes out of it, else by what goes in, and else by its name.

    OpenRouter alone has words of its own for speech and transcription; elsewhere `audio` comes out of voices and of
    models that talk, and text out of nearly everything.
    """
    out, into = as_list(architecture.get("output_modalities")), as_list(architecture.get("input_modalities"))
    known = next((KIND_OF_MODALITY[word] for word in KIND_OF_MODALITY if word in out), None)
    if known == "chat" and "audio" not in into and kind_of_name(name) == "speech":
        return "speech"
    if known is None and ("audio" in into or not into):
        told = kind_of_name(name)
        return told if told == "transcription" or not architecture else None
    return known
