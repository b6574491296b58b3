"""The OpenRouter dialect.

Source: OpenRouter's OpenAPI file and audio guides (edition of 2026-08-22), recorded replies of 2026-10.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..audio import formats
from ..errors import AttemptError, AudiocliError, UsageError
from ..money import prices
from ..text.languages import code_of
from ..vocabulary import (
    Body,
    Json,
    ModelCard,
    Route,
    SpeechRequest,
    Timestamps,
    Transcript,
    TranscriptionRequest,
    Usage,
    WireRequest,
)
from . import failures
from .base import Limits, as_date, as_list, as_object, as_text, bearer, join_url, read_json
from .bodies import json_body, json_body_with_file
from .openai import common_form, gives_times, granularities, recording_form

MULTIPART_LIMIT_BYTES = 26_214_400
# Base64 makes an upload a third larger. Below this size that is less than a round trip, and JSON is the form that
# every edition of the documentation knows; from here on, multipart is better where it can say all that is asked.
MULTIPART_FROM_BYTES = 4 * 1024 * 1024

# The words of OpenRouter's filter for what comes out of a model, and what that makes it here.
KIND_OF_MODALITY = {"speech": "speech", "transcription": "transcription", "audio": "chat"}

# Whisper is served by these, and each reads its own options only (OpenRouter guide "Speech-to-Text").
WHISPER_PROVIDERS = ("openai", "groq", "together")


class OpenRouter:
    is_free = False
    usual_voice: str | None = None
    lists_in_public = True

    def plausible(self, route: Route) -> bool:
        return "/" in route.model

    def limits(self, route: Route) -> Limits:
        # Limits are per model and not in the list of models; OpenAI's own are known.
        return Limits(text_characters=4096 if route.model.startswith("openai/") else None)

    def speech_formats(self, route: Route) -> tuple[str, ...]:
        return ("mp3", "pcm")

    def upload_formats(self, route: Route) -> tuple[str, ...]:
        return ("wav", "mp3", "flac", "m4a", "ogg", "opus", "webm", "aac")

    def speech_refusal(self, request: SpeechRequest, route: Route) -> AudiocliError | None:
        return _bare_name(route)

    def transcription_refusal(self, request: TranscriptionRequest, route: Route) -> AudiocliError | None:
        if request.timestamps_required and not gives_times(route.model):
            return UsageError(
                f"{route.ref} gives text without times",
                hint="captions need a model with times, such as openrouter:openai/whisper-large-v3",
            )
        return _bare_name(route)

    def speech_warnings(self, request: SpeechRequest, route: Route) -> tuple[str, ...]:
        warnings = []
        if request.instructions and not route.model.startswith("openai/"):
            warnings.append(f"--instructions has no effect with {route.ref}")
        if request.speed is not None and not route.model.startswith(("openai/", "microsoft/")):
            warnings.append(f"--speed may have no effect with {route.ref}")
        return (*warnings, *_unaddressed_options(request.options))

    def transcription_warnings(self, request: TranscriptionRequest, route: Route) -> tuple[str, ...]:
        warnings = []
        if request.prompt and not _is_whisper(route.model):
            warnings.append(f"--prompt has no effect with {route.ref}")
        if request.timestamps is not Timestamps.NONE and not self._is_detailed(request, route):
            warnings.append(f"{route.ref} gives text without times")
        return (*warnings, *_unaddressed_options(request.options))

    def speech(self, request: SpeechRequest, route: Route) -> WireRequest:
        # response_format is always sent: the default here is pcm, not mp3 as elsewhere.
        fields: dict[str, Json] = {"model": route.model, "input": request.text, "response_format": request.format}
        if route.voice:
            fields["voice"] = route.voice
        if request.speed is not None:
            fields["speed"] = request.speed
        options = _provider_options(request.options)
        if request.instructions and route.model.startswith("openai/"):
            options.setdefault("openai", {}).setdefault("instructions", request.instructions)
        if options:
            fields["provider"] = {"options": {slug: dict(values) for slug, values in options.items()}}
        return WireRequest("POST", join_url(route.base_url, "/audio/speech"), _headers(route), json_body(fields))

    def transcription(self, request: TranscriptionRequest, route: Route) -> WireRequest:
        options = _provider_options(request.options)
        if request.prompt and _is_whisper(route.model):
            # A top-level prompt is accepted and ignored; only the provider's own option arrives.
            for slug in WHISPER_PROVIDERS:
                options.setdefault(slug, {}).setdefault("prompt", request.prompt)
        size_bytes = request.recording.size_bytes
        body = (
            self._form(request, route)
            if not options and MULTIPART_FROM_BYTES <= size_bytes <= MULTIPART_LIMIT_BYTES
            else self._json(request, route, options)
        )
        return WireRequest("POST", join_url(route.base_url, "/audio/transcriptions"), _headers(route), body)

    def transcript(self, body: bytes, headers: Mapping[str, str]) -> Transcript:
        from . import transcripts

        return transcripts.read(body, headers)

    def usage(self, headers: Mapping[str, str]) -> Usage:
        return Usage()

    def failure(self, status: int, headers: Mapping[str, str], body: bytes) -> AttemptError:
        return failures.failure(status, headers, body)

    def models_query(self, route: Route) -> WireRequest | None:
        # The list needs no key, so none is sent; without the modalities it would hide every speech model.
        modalities = ",".join(KIND_OF_MODALITY)
        return WireRequest("GET", join_url(route.base_url, f"/models?output_modalities={modalities}"))

    def models_reply(self, body: bytes, route: Route) -> tuple[ModelCard, ...] | None:
        listed = as_object(read_json(body)).get("data")
        if not isinstance(listed, list):
            return None
        cards = (self._card(as_object(item), route) for item in listed)
        return tuple(card for card in cards if card is not None)

    def voices(self, route: Route) -> tuple[str, ...] | None:
        return None

    def voices_query(self, route: Route) -> WireRequest | None:
        return self.models_query(route)

    def voices_reply(self, body: bytes, route: Route) -> tuple[str, ...] | None:
        cards = self.models_reply(body, route) or ()
        return next((card.voices for card in cards if card.model == route.model), None) or None

    def _card(self, item: Mapping[str, Json], route: Route) -> ModelCard | None:
        name = as_text(item.get("id"))
        modalities = as_list(as_object(item.get("architecture")).get("output_modalities"))
        kind = next((KIND_OF_MODALITY[word] for word in KIND_OF_MODALITY if word in modalities), None)
        if not name or kind is None:
            return None
        pricing = as_object(item.get("pricing"))
        voices = (as_text(voice) for voice in as_list(item.get("supported_voices")))
        return ModelCard(
            gateway=route.gateway,
            model=name,
            kind=kind,
            prices=prices.openrouter(kind, pricing.get("prompt"), pricing.get("completion")),
            voices=tuple(voice for voice in voices if voice),
            formats=self.speech_formats(route) if kind == "speech" else (),
            ends=as_date(item.get("expiration_date")),
        )

    def _json(self, request: TranscriptionRequest, route: Route, options: dict[str, dict[str, Json]]) -> Body:
        recording = request.recording
        fields: dict[str, Json] = {"model": route.model}
        if self._is_detailed(request, route):
            fields["response_format"] = "verbose_json"
            fields["timestamp_granularities"] = list(granularities(request))
        if request.language:
            fields["language"] = code_of(request.language) or request.language
        if request.temperature is not None:
            fields["temperature"] = request.temperature
        if options:
            fields["provider"] = {"options": {slug: dict(values) for slug, values in options.items()}}
        upload = formats.named(recording.format)
        fields["input_audio"] = {"format": upload.upload_suffix.removeprefix(".") if upload else recording.format}
        return json_body_with_file(fields, recording.path, recording.size_bytes, field=("input_audio", "data"))

    def _form(self, request: TranscriptionRequest, route: Route) -> Body:
        form = [("model", route.model)]
        if self._is_detailed(request, route):
            form.append(("response_format", "verbose_json"))
            form += [("timestamp_granularities[]", name) for name in granularities(request)]
        form += [(name, value) for name, value in common_form(request) if name != "prompt"]
        return recording_form(form, request)

    def _is_detailed(self, request: TranscriptionRequest, route: Route) -> bool:
        """Ask for `verbose_json` where it must be had, or where it is known to be answered.

        Providers that are not OpenAI-compatible answer it with 400, so mere comfort is no reason to risk it.
        """
        if not gives_times(route.model):
            return False
        needed = request.timestamps_required or request.verbatim or request.timestamps is Timestamps.WORD
        return needed or (request.timestamps is Timestamps.SEGMENT and _is_whisper(route.model))


def _headers(route: Route) -> dict[str, str]:
    # Attribution is what OpenRouter asks of applications ("App Attribution"); it carries nothing about the user.
    return {**bearer(route), "X-OpenRouter-Title": "audiocli"}


def _is_whisper(model: str) -> bool:
    return model.startswith("openai/whisper")


def _bare_name(route: Route) -> AudiocliError | None:
    if "/" in route.model:
        return None
    return UsageError(
        f"openrouter names its models author/slug, not {route.model!r}", hint=f"try openrouter:openai/{route.model}"
    )


def _provider_options(options: Mapping[str, Json]) -> dict[str, dict[str, Json]]:
    grouped: dict[str, dict[str, Json]] = {}
    for name, value in options.items():
        slug, dot, key = name.partition(".")
        if dot:
            grouped.setdefault(slug, {})[key] = value
    return grouped


def _unaddressed_options(options: Mapping[str, Json]) -> tuple[str, ...]:
    return tuple(
        f"--option {name} has no effect with openrouter, which takes PROVIDER.KEY=VALUE"
        for name in options
        if "." not in name
    )


DIALECT = OpenRouter()
