"""Model lists in the format of OpenRouter, which TheRouter and ARouter use too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from .. import pricing
from ..types.json import Json
from ..types.routes import ModelCard, Route
from .base import as_date, as_list, as_object, as_text, read_json
from .model_names import guess_kind

# Kind of a model by its output modality.
MODALITY_KINDS = {"speech": "speech", "transcription": "transcription", "audio": "chat"}


class ModelDefaults(Protocol):
    """Properties of models that a list does not state."""

    def get_speech_formats(self, route: Route) -> tuple[str, ...]: ...

    def get_known_voices(self, route: Route) -> tuple[str, ...] | None: ...


def parse_models(body: bytes, route: Route, dialect: ModelDefaults) -> tuple[ModelCard, ...] | None:
    """Parse the models for speech, transcription and audio chat; None if the body is not a list."""
    items = as_object(read_json(body)).get("data")
    if not isinstance(items, list):
        return None
    cards = (_parse_model(as_object(item), route, dialect) for item in items)
    return tuple(card for card in cards if card is not None)


def _parse_model(item: Mapping[str, Json], route: Route, dialect: ModelDefaults) -> ModelCard | None:
    name = as_text(item.get("id"))
    kind = name and _detect_kind(name, as_object(item.get("architecture")))
    if not name or not kind:
        return None
    model_route = route._replace(model=name)
    listed_prices = as_object(item.get("pricing"))
    voices = tuple(voice for voice in map(as_text, as_list(item.get("supported_voices"))) if voice)
    is_speech = kind == "speech"
    return ModelCard(
        gateway=route.gateway,
        model=name,
        kind=kind,
        prices=(
            *pricing.parse_openrouter_prices(kind, listed_prices.get("prompt"), listed_prices.get("completion")),
            *(
                pricing.parse_audio_prices(listed_prices.get("audio"), listed_prices.get("audio_output"))
                if kind == "chat"
                else ()
            ),
        ),
        voices=voices or ((dialect.get_known_voices(model_route) or ()) if is_speech else ()),
        formats=dialect.get_speech_formats(model_route) if is_speech else (),
        end_date=as_date(item.get("expiration_date")),
    )


def _detect_kind(name: str, architecture: Mapping[str, Json]) -> str | None:
    """Return the kind of a model by its output modalities, its input modalities, or its name.

    Only OpenRouter has the modalities `speech` and `transcription`. Elsewhere, `audio` is the output of speech models
    and of audio chat models, and text is the output of nearly all others.
    """
    outputs, inputs = as_list(architecture.get("output_modalities")), as_list(architecture.get("input_modalities"))
    kind = next((MODALITY_KINDS[modality] for modality in MODALITY_KINDS if modality in outputs), None)
    if kind == "chat" and "audio" not in inputs and guess_kind(name) == "speech":
        return "speech"
    if kind is None and ("audio" in inputs or not inputs):
        guessed_kind = guess_kind(name)
        return guessed_kind if guessed_kind == "transcription" or not architecture else None
    return kind
