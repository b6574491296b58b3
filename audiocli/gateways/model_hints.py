"""Hints that name models with a feature that a route does not have."""

from __future__ import annotations

from collections.abc import Sequence

from ..types.routes import Route
from . import OPENAI_TRANSCRIPTION_END

_END = f"until it shuts down on {OPENAI_TRANSCRIPTION_END.isoformat()}"
# References of models, and what else to know about them.
_DIARIZATION_MODELS = (("openrouter:deepgram/nova-3", ""), ("openai:gpt-4o-transcribe-diarize", _END))
_TIMESTAMP_MODELS = (
    ("groq:whisper-large-v3-turbo", ""),
    ("openrouter:openai/whisper-large-v3", ""),
    ("openai:whisper-1", _END),
)


def suggest_diarization(route: Route) -> str:
    """Return a hint that names models with diarization, other than that of the route."""
    return f"use -m {_join_models(_DIARIZATION_MODELS, route)}"


def suggest_timestamps(route: Route) -> str:
    """Return a hint that names models with timestamps, other than that of the route."""
    return f"captions need a model with timestamps, such as {_join_models(_TIMESTAMP_MODELS, route)}"


def _join_models(models: Sequence[tuple[str, str]], route: Route) -> str:
    others = [f"{ref} {note}".rstrip() for ref, note in models if ref != route.ref]
    return ", ".join((*others[:-1], f"or {others[-1]}")) if len(others) > 1 else others[0]
