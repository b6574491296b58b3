"""The dialect of the engines on this machine: no key, no network, no cost.

It looks like every other gateway, so that attempts, decoders and sinks need not know the difference; only the
transport differs, which is `engines` for URLs that begin with `local:`. Bodies are JSON: the text, or the path of the
recording, which is never copied into a request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from importlib.util import find_spec

from ..audio.formats import OUTPUT_FORMATS
from ..errors import AccessError, AudiocliError, InvalidResponse, GatewayError, UsageError
from ..types.values import (
    Body,
    Json,
    ModelCard,
    Price,
    Route,
    Segment,
    SpeechRequest,
    Transcript,
    TranscriptionRequest,
    Usage,
    WireRequest,
    Word,
)
from .base import Limits, GatewayDefaults

SCHEME = "local:"
VOICES_URL = "local:voices"
DEFAULT_VOICE = "en-us"

# What each model does, and the module it needs.
MODELS = {"espeak": ("speech", "espeakng_loader"), "pocketsphinx": ("transcription", "pocketsphinx")}

NORMAL_WORDS_PER_MINUTE = 175
# Measured with espeak-ng 1.52: anything slower sounds like 80; upwards there is no limit in reach, 700 lasts a quarter.
SLOWEST_WORDS_PER_MINUTE = 80
SLOWEST_SPEED = SLOWEST_WORDS_PER_MINUTE / NORMAL_WORDS_PER_MINUTE

_PIECE_BYTES = 1_000_000


def missing(model: str) -> AccessError | None:
    """Say that the engine of a model is not installed, without importing it."""
    if find_spec(MODELS[model][1]) is not None:
        return None
    return AccessError(f"the local engine {model} is not installed", hint='pip install "audiocli[local]"')


def _request(url: str, values: Mapping[str, Json]) -> WireRequest:
    content = json.dumps(values).encode()

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(content), _PIECE_BYTES):
            yield content[start : start + _PIECE_BYTES]

    return WireRequest("POST", url, {}, Body("application/json", len(content), pieces))


def _refusal(model: str, job: str) -> AudiocliError | None:
    if model not in MODELS:
        return UsageError(
            f"local has no model {model}", hint="use local:espeak for speech, local:pocketsphinx for transcription"
        )
    if MODELS[model][0] != job:
        right = next(name for name, (its_job, _) in MODELS.items() if its_job == job)
        return UsageError(f"local:{model} does {MODELS[model][0]}, not {job}", hint=f"use local:{right}")
    return missing(model)


def _is_english(language: str) -> bool:
    return re.split(r"[-_ ]", language.strip().casefold())[0] in ("en", "eng", "english")


class Local(GatewayDefaults):
    """The `local` dialect: espeak-ng speaks, pocketsphinx writes down English."""

    is_free = True
    usual_voice: str | None = DEFAULT_VOICE
    lists_in_public = True

    def plausible(self, route: Route) -> bool:
        return route.model in MODELS

    def limits(self, route: Route) -> Limits:
        return Limits()

    def speech_formats(self, route: Route) -> tuple[str, ...]:
        return ("pcm",)

    def gives_times(self, request: TranscriptionRequest, route: Route) -> bool:
        return True

    def upload_formats(self, route: Route) -> tuple[str, ...]:
        """Answer `*`: the file is decoded here, so every format that can be read at all is taken as it is."""
        return ("*",)

    def speech_refusal(self, request: SpeechRequest, route: Route) -> AudiocliError | None:
        return _refusal(route.model, "speech")

    def transcription_refusal(self, request: TranscriptionRequest, route: Route) -> AudiocliError | None:
        if (refusal := _refusal(route.model, "transcription")) is not None:
            return refusal
        if request.translates or request.diarizes:
            what = "translate" if request.translates else "tell speakers apart"
            return UsageError(f"local:pocketsphinx does not {what}", hint="choose another model with -m")
        if request.language and not _is_english(request.language):
            return UsageError(
                f"local:pocketsphinx knows English only, not {request.language}", hint="choose another model with -m"
            )
        return None

    def speech_warnings(self, request: SpeechRequest, route: Route) -> tuple[str, ...]:
        warnings = []
        if request.instructions:
            warnings.append("instructions have no effect with local:espeak")
        warnings += [f"option {name} has no effect with local:espeak" for name in request.options]
        if request.speed is not None and request.speed < SLOWEST_SPEED:
            warnings.append(
                f"local:espeak speaks no slower than speed {SLOWEST_SPEED:.2f}: {request.speed:g} asked for"
            )
        return tuple(warnings)

    def transcription_warnings(self, request: TranscriptionRequest, route: Route) -> tuple[str, ...]:
        warnings = []
        if request.prompt:
            warnings.append("the prompt has no effect with local:pocketsphinx")
        if request.temperature is not None:
            warnings.append("the temperature has no effect with local:pocketsphinx")
        if request.streams:
            warnings.append("--stream has no effect with local:pocketsphinx: it tells the text at the end")
        warnings += [f"option {name} has no effect with local:pocketsphinx" for name in request.options]
        return tuple(warnings)

    def speech_features(self, request: SpeechRequest, route: Route) -> tuple[str, ...]:
        return ()

    def transcription_features(self, request: TranscriptionRequest, route: Route) -> tuple[str, ...]:
        return ()

    def speech(self, request: SpeechRequest, route: Route) -> WireRequest:
        voice = route.voice or DEFAULT_VOICE
        return _request(SCHEME + route.model, {"text": request.text, "voice": voice, "speed": request.speed})

    def transcription(self, request: TranscriptionRequest, route: Route) -> WireRequest:
        return _request(SCHEME + route.model, {"path": str(request.recording.path)})

    def transcript(self, body: bytes, headers: Mapping[str, str]) -> Transcript:
        try:
            reply = json.loads(body)
            duration_s = float(reply["duration"])
            return Transcript(
                text=reply["text"],
                language=reply["language"],
                duration_s=duration_s,
                segments=tuple(
                    Segment(segment["start"], segment["end"], segment["text"]) for segment in reply["segments"]
                ),
                words=tuple(Word(word["start"], word["end"], word["word"]) for word in reply["words"]),
                usage=Usage(cost_nanousd=0, audio_s=duration_s),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidResponse("the local engine sent no transcript", status=200) from error

    def usage(self, headers: Mapping[str, str]) -> Usage:
        return Usage(cost_nanousd=0)

    def failure(self, status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
        """Answer for the sake of the protocol: engines raise their errors and reply with 200 only."""
        return GatewayError(f"the local engine failed with status {status}", status=status)

    def models_query(self, route: Route) -> WireRequest | None:
        """Ask for the voices, which are all that can be asked about the engines."""
        return WireRequest("GET", VOICES_URL)

    def models_reply(self, body: bytes, route: Route) -> tuple[ModelCard, ...] | None:
        free = (Price(Decimal(0), "request"),)
        speaks = ModelCard(
            route.gateway, "espeak", "speech", free, self.voices_reply(body, route) or (), OUTPUT_FORMATS
        )
        hears = ModelCard(route.gateway, "pocketsphinx", "transcription", free, note="English only, rough")
        return speaks, hears

    def voices(self, route: Route) -> tuple[str, ...] | None:
        """Know none by heart: which voices there are depends on the data that is installed."""
        return None

    def voices_query(self, route: Route) -> WireRequest | None:
        return WireRequest("GET", VOICES_URL) if route.model == "espeak" else None

    def voices_reply(self, body: bytes, route: Route) -> tuple[str, ...] | None:
        try:
            names = json.loads(body)
        except ValueError:
            return None
        return tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else None


DIALECT = Local()
