"""Names under which speech is stored: hashes of all that decides how it sounds."""

from __future__ import annotations

import hashlib
import json

from ..types.json import Json
from ..types.requests import SpeechRequest
from ..types.routes import Route

# Increase when the same request would give different samples.
CHUNK_NAME_VERSION = 1
PHRASE_NAME_VERSION = 1


def compute_chunk_name(request: SpeechRequest, route: Route) -> str:
    """Return the name of the samples of a chunk of a long text."""
    inputs = _list_inputs(request, route)
    if request.turns:  # older names have none
        inputs.append(["turns", *(dict(turn) for turn in request.turns)])
    return _hash(inputs)


def compute_phrase_name(request: SpeechRequest, route: Route) -> str:
    """Return the name of the audio of a request, in the format that is requested from the gateway."""
    turns: list[Json] = [dict(turn) for turn in request.turns]
    return _hash(["phrase", PHRASE_NAME_VERSION, request.format, turns, *_list_inputs(request, route)])


def _list_inputs(request: SpeechRequest, route: Route) -> list[Json]:
    inputs: list[Json] = [
        CHUNK_NAME_VERSION,
        route.gateway,
        route.base_url,
        route.model,
        route.voice,
        request.text,
        request.speed,
        request.instructions,
        json.dumps(dict(request.options), sort_keys=True),
    ]
    if request.references:  # older names have none
        inputs.append([[reference.sha256, reference.transcript] for reference in request.references])
    if route.traits.speech_fingerprint:
        inputs.append(route.traits.speech_fingerprint)
    return inputs


def _hash(inputs: list[Json]) -> str:
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:32]
