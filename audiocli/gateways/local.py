"""The dialect of the local engines, which need no API key and no network and cost nothing.

It implements the same interface as every other dialect. Only the transport differs: `engines` serves URLs that begin
with `local:`. Request bodies are JSON with the text or the path of the recording.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from importlib.util import find_spec
from typing import Any

from ..audio.formats import OUTPUT_FORMATS
from ..errors import AccessError, AudiocliError, GatewayError, InvalidResponse, UsageError
from ..text.languages import find_language_code
from ..text.scripts import find_unreadable_script
from ..types.json import Json
from ..types.ledger import Usage
from ..types.requests import HttpRequest, RequestBody, SpeechRequest, Timestamps, TranscriptionRequest
from ..types.routes import ModelCard, Price, Route
from ..types.transcripts import Segment, Transcript, Word
from .base import DialectDefaults, Limits, as_object, read_json
from .local_models import LocalModel, find_local_model, list_local_models

SCHEME = "local:"
VOICES_URL = "local:voices"
DEFAULT_VOICE = "en-us"

# Task of each model, and the modules that it requires. Of each task, the first engine is the one to suggest.
MODELS = {
    "espeak": ("speech", ("espeakng_loader",)),
    "piper": ("speech", ("onnxruntime", "espeakng_loader")),
    "whisper": ("transcription", ("faster_whisper",)),
    **{model.name: ("transcription", ("faster_whisper",)) for model in list_local_models("whisper")},
    "pocketsphinx": ("transcription", ("pocketsphinx",)),
}
# Names of Piper voices begin with a locale: en_US-joe-medium.
_PIPER_VOICE = re.compile(r"[a-z]{2,3}_[A-Z]{2}-")

DEFAULT_WORDS_PER_MINUTE = 175
# Measured with espeak-ng 1.52: lower rates sound like 80; there is no upper limit in practice, 700 takes a quarter of
# the time.
MIN_WORDS_PER_MINUTE = 80
MIN_SPEED = MIN_WORDS_PER_MINUTE / DEFAULT_WORDS_PER_MINUTE

# Languages of later models of Whisper.
_UNKNOWN_LANGUAGES = ("yue",)
# Codes of Whisper that differ from ISO 639.
_WHISPER_CODES = {"jv": "jw"}
_MULTILINGUAL_HINT = 'choose another model with -m; for 99 languages: pip install "audiocli[local,local-multilingual]"'

_BLOCK_BYTES = 1_000_000


def check_installed(model: str) -> AccessError | None:
    """Return an error if the engine of a model is not installed, without importing the engine."""
    if all(find_spec(module) is not None for module in MODELS[model][1]):
        return None
    weights = find_local_model(model)
    engine = weights.engine if weights is not None else model
    return AccessError(f"the local engine {engine} is not installed", hint='pip install "audiocli[local]"')


def is_piper_voice(voice: str) -> bool:
    """Return whether a name has the form of the names of Piper voices. Those of espeak are language tags."""
    return _PIPER_VOICE.match(voice) is not None


def describe_weights(weights: LocalModel) -> str:
    """Return languages, size and expected quality of a model."""
    languages = "99 languages" if weights.language is None else "English only"
    return f"{languages}, {weights.quality}, {weights.size_bytes / 1e6:.0f} MB"


def _build_request(url: str, values: Mapping[str, Json]) -> HttpRequest:
    content = json.dumps(values).encode()

    def iter_blocks() -> Iterator[bytes]:
        for start in range(0, len(content), _BLOCK_BYTES):
            yield content[start : start + _BLOCK_BYTES]

    return HttpRequest("POST", url, {}, RequestBody("application/json", len(content), iter_blocks))


def _check_model(model: str, task: str) -> AudiocliError | None:
    if model not in MODELS:
        return _build_unknown_model_error(model, task)
    model_task, _ = MODELS[model]
    if model_task != task:
        other_model = next(name for name, (other_task, _) in MODELS.items() if other_task == task)
        return UsageError(f"local:{model} supports {model_task}, not {task}", hint=f"use local:{other_model}")
    return check_installed(model)


def _build_unknown_model_error(model: str, task: str) -> UsageError:
    import difflib

    names = [name for name, (model_task, _) in MODELS.items() if model_task == task]
    similar = difflib.get_close_matches(model.lower(), names, n=1, cutoff=0.65)
    suggestion = f"; did you mean 'local:{similar[0]}'?" if similar else ""
    *others, last = (f"local:{name}" for name in names)
    return UsageError(f"unknown model local:{model}{suggestion}", hint=f"use {', '.join(others)} or {last}")


def _check_whisper(request: TranscriptionRequest, route: Route) -> AudiocliError | None:
    """Return an error if a model of Whisper does not have the language of the request, or cannot translate."""
    weights = find_local_model(route.model)
    if weights is not None and weights.language is not None:
        if request.translate:
            return UsageError(f"{route.ref} supports English only", hint=_MULTILINGUAL_HINT)
        if request.language and not _is_english(request.language):
            return UsageError(f"{route.ref} supports English only, not {request.language}", hint=_MULTILINGUAL_HINT)
    if request.language and find_language_code(request.language) in (None, *_UNKNOWN_LANGUAGES):
        return UsageError(f"{route.ref} does not support {request.language}", hint="omit -l to detect the language")
    return None


def _is_english(language: str) -> bool:
    return re.split(r"[-_ ]", language.strip().casefold())[0] in ("en", "eng", "english")


class Local(DialectDefaults):
    """The `local` dialect: speech with espeak-ng or Piper voices, transcription with Whisper or pocketsphinx."""

    is_free = True
    # Nothing leaves the machine.
    keeps_privacy_options = True
    declares_pcm_format = True
    default_voice: str | None = DEFAULT_VOICE
    model_list_is_public = True

    def may_have_model(self, route: Route) -> bool:
        return route.model in MODELS

    def get_limits(self, route: Route) -> Limits:
        return Limits()

    def get_speech_formats(self, route: Route) -> tuple[str, ...]:
        return ("pcm",)

    def supports_timestamps(self, request: TranscriptionRequest, route: Route) -> bool:
        return True

    def get_upload_formats(self, route: Route) -> tuple[str, ...]:
        """Return `*`: the engine decodes the file itself, so every readable format is accepted."""
        return ("*",)

    def check_speech(self, request: SpeechRequest, route: Route) -> AudiocliError | None:
        return _check_model(route.model, "speech")

    def check_transcription(self, request: TranscriptionRequest, route: Route) -> AudiocliError | None:
        if (error := _check_model(route.model, "transcription")) is not None:
            return error
        if request.diarize:
            return UsageError(f"{route.ref} does not support diarization", hint="choose another model with -m")
        if route.model != "pocketsphinx":
            return _check_whisper(request, route)
        if request.translate:
            return UsageError(f"{route.ref} does not support translation", hint=_MULTILINGUAL_HINT)
        if request.language and not _is_english(request.language):
            return UsageError(f"{route.ref} supports English only, not {request.language}", hint=_MULTILINGUAL_HINT)
        return None

    def get_speech_warnings(self, request: SpeechRequest, route: Route) -> tuple[str, ...]:
        warnings = []
        if request.instructions:
            warnings.append(f"--instructions has no effect with {route.ref}")
        warnings += [f"--option {name} has no effect with {route.ref}" for name in request.options]
        if request.speed is not None and request.speed < MIN_SPEED and route.model == "espeak":
            warnings.append(f"--speed {request.speed:g} is below the minimum of local:espeak; using {MIN_SPEED:.2f}")
        voice = route.voice or DEFAULT_VOICE
        language = voice.partition("-" if route.model == "piper" else "+")[0]
        if (script := find_unreadable_script(request.text, language)) is not None:
            warnings.append(f"the voice {voice} of {route.ref} cannot read {script} script; choose another with -v")
        return tuple(warnings)

    def get_transcription_warnings(self, request: TranscriptionRequest, route: Route) -> tuple[str, ...]:
        warnings = []
        if request.prompt and route.model == "pocketsphinx":
            warnings.append(f"--prompt has no effect with {route.ref}")
        if request.temperature is not None and route.model == "pocketsphinx":
            warnings.append(f"--temperature has no effect with {route.ref}")
        if request.keyterms:
            warnings.append(f"--keyterms has no effect with {route.ref}")
        if request.stream:
            warnings.append(f"--stream has no effect with {route.ref}, which returns the text at the end")
        warnings += [f"--option {name} has no effect with {route.ref}" for name in request.options]
        return tuple(warnings)

    def get_speech_features(self, request: SpeechRequest, route: Route) -> tuple[str, ...]:
        return ()

    def get_transcription_features(self, request: TranscriptionRequest, route: Route) -> tuple[str, ...]:
        return ()

    def build_speech_request(self, request: SpeechRequest, route: Route) -> HttpRequest:
        voice = route.voice or (DEFAULT_VOICE if route.model == "espeak" else list_local_models("piper")[0].name)
        return _build_request(SCHEME + route.model, {"text": request.text, "voice": voice, "speed": request.speed})

    def build_transcription_request(self, request: TranscriptionRequest, route: Route) -> HttpRequest:
        values: dict[str, Json] = {"path": str(request.recording.path)}
        if route.model != "pocketsphinx":
            code = find_language_code(request.language) if request.language else None
            values |= {
                "language": _WHISPER_CODES.get(code, code) if code else None,
                "translate": request.translate,
                "prompt": request.prompt,
                "temperature": request.temperature,
                # Captions are timed by words. Without them, alignment would only take time.
                "words": request.timestamps is Timestamps.WORD
                or request.timestamps_required
                or request.keep_raw_response,
            }
        return _build_request(SCHEME + route.model, values)

    def parse_transcript(self, body: bytes, headers: Mapping[str, str]) -> Transcript:
        try:
            payload: Any = read_json(body)
            duration_s = float(payload["duration"])
            return Transcript(
                text=payload["text"],
                language=payload["language"],
                duration_s=duration_s,
                segments=tuple(
                    Segment(
                        segment["start"],
                        segment["end"],
                        segment["text"],
                        no_speech_prob=segment.get("no_speech_prob"),
                        avg_logprob=segment.get("avg_logprob"),
                        compression_ratio=segment.get("compression_ratio"),
                    )
                    for segment in payload["segments"]
                ),
                words=tuple(
                    Word(word["start"], word["end"], word["word"], confidence=word.get("confidence"))
                    for word in payload["words"]
                ),
                usage=Usage(cost_nanousd=0, audio_s=duration_s),
            )
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise InvalidResponse("the local engine returned no transcript", status=200) from error

    def parse_usage(self, headers: Mapping[str, str]) -> Usage:
        return Usage(cost_nanousd=0)

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> GatewayError:
        """Build an error. Not called in practice, because engines raise their errors and always return status 200."""
        return GatewayError(f"the local engine failed with status {status}", status=status)

    def build_models_query(self, route: Route) -> HttpRequest | None:
        """Build the request for the voices, which is the only information that an engine has to provide."""
        return HttpRequest("GET", VOICES_URL)

    def parse_models(self, body: bytes, route: Route) -> tuple[ModelCard, ...] | None:
        free = (Price(Decimal(0), "request"),)
        espeak, piper = (
            ModelCard(
                *(route.gateway, model, "speech", free, self.parse_voices(body, route._replace(model=model)) or ()),
                OUTPUT_FORMATS,
                note=note,
            )
            for model, note in (("espeak", None), ("piper", "natural voices; voices for English in local-models"))
        )
        transcription = [
            ModelCard(route.gateway, weights.name, "transcription", free, note=describe_weights(weights))
            for weights in list_local_models("whisper")
        ]
        last_resort = ModelCard(route.gateway, "pocketsphinx", "transcription", free, note="English only, low accuracy")
        return espeak, piper, *transcription, last_resort

    def get_known_voices(self, route: Route) -> tuple[str, ...] | None:
        """Return None, because the voices depend on what is installed."""
        return None

    def build_voices_query(self, route: Route) -> HttpRequest | None:
        return HttpRequest("GET", VOICES_URL) if route.model in ("espeak", "piper") else None

    def parse_voices(self, body: bytes, route: Route) -> tuple[str, ...] | None:
        """Parse the voices of an engine. In lists that version 0.1 has cached, all are voices of espeak."""
        document = read_json(body)
        is_old = isinstance(document, list) and route.model == "espeak"
        names = document if is_old else as_object(document).get(route.model)
        return tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else None


DIALECT = Local()
