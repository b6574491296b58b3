"""The OpenRouter dialect.

Source: OpenRouter's OpenAPI file and audio guides (edition of 2026-08-22), recorded replies of 2026-10.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..audio import formats
from ..errors import AttemptError, AudiocliError, UsageError
from ..text.languages import code_of
from ..types.values import (
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
from . import cost_lookup, error_responses, model_list
from .base import Limits, GatewayDefaults, as_id, bearer, join_url
from .chat_gateway import ChatCompletionsMixin
from .model_names import gives_times
from .multipart import common_form, granularities, recording_form
from .openai import TRANSLATORS
from .request_bodies import json_body, json_body_with_file

if TYPE_CHECKING:
    from ..types.chat import ChatRequest

MULTIPART_LIMIT_BYTES = 26_214_400
# Base64 makes an upload a third larger. Below this size that is less than a round trip, and JSON is the form that
# every edition of the documentation knows; from here on, multipart is better where it can say all that is asked.
MULTIPART_FROM_BYTES = 4 * 1024 * 1024

# Models take "a few thousand" characters; which ones how many is not told.
UNKNOWN_MODEL_CHARACTERS = 3000
# Providers are cut off after 60 s of work on a request (guide "Speech-to-Text"). Pieces of 15 minutes get through where
# 90 minutes did not (told by others, 2026-10).
LONGEST_S = 900.0
SECONDS_OF = (("assemblyai/", 120.0),)

# Each provider reads its own options only. Whisper is served by three, and all of OpenAI's by OpenAI (guide
# "Speech-to-Text").
WHISPER_PROVIDERS = ("openai", "groq", "together")

# How a provider is told to tell speakers apart (blog "Transcription on OpenRouter" and recorded replies, 2026-10); for
# the others there is a field that is newer than the published specification (official Python client 1.3).
DIARIZE_OPTIONS = {"deepgram/": ("deepgram", "diarize"), "assemblyai/": ("assemblyai", "speaker_labels")}

# Whose models take instructions, and where: OpenAI's by its option, these by a field as new as that.
INSTRUCTED_BY_FIELD = ("google/", "fish-audio/")

# Keys that choose among providers, for chat alone: on the audio endpoints they are not applied (blog "Transcription on
# OpenRouter").
ROUTING_KEYS = frozenset(
    {
        *("order", "allow_fallbacks", "require_parameters", "data_collection", "zdr", "only", "ignore"),
        *("quantizations", "sort", "preferred_min_throughput", "preferred_max_latency", "max_price", "models", "route"),
    }
)


class OpenRouter(ChatCompletionsMixin, GatewayDefaults):
    is_free = False
    usual_voice: str | None = None
    lists_in_public = True
    tells_modalities = True
    # OpenAI's models behind it give sound in a stream, and there as samples (guide "Audio"; told by others, 2026-10).
    speech_must_stream = True
    asks_for_usage = False

    def plausible(self, route: Route) -> bool:
        return "/" in route.model

    def limits(self, route: Route) -> Limits:
        # Limits are per model and not in the list of models; OpenAI's own are known.
        return Limits(
            text_characters=4096 if route.model.startswith("openai/") else UNKNOWN_MODEL_CHARACTERS,
            audio_s=next((most for family, most in SECONDS_OF if route.model.startswith(family)), LONGEST_S),
        )

    def speech_formats(self, route: Route) -> tuple[str, ...]:
        return ("mp3", "pcm")

    def gives_times(self, request: TranscriptionRequest, route: Route) -> bool:
        return _gives_times(route)

    def upload_formats(self, route: Route) -> tuple[str, ...]:
        return ("wav", "mp3", "flac", "m4a", "ogg", "opus", "webm", "aac")

    def speech_refusal(self, request: SpeechRequest, route: Route) -> AudiocliError | None:
        return _bare_name(route)

    def transcription_refusal(self, request: TranscriptionRequest, route: Route) -> AudiocliError | None:
        if request.translates:
            return UsageError("openrouter does not translate", hint=f"these do: {TRANSLATORS}")
        if request.timestamps_required and not _gives_times(route):
            return UsageError(
                f"{route.ref} gives text without times",
                hint="captions need a model with times, such as openrouter:openai/whisper-large-v3",
            )
        return _bare_name(route)

    def speech_warnings(self, request: SpeechRequest, route: Route) -> tuple[str, ...]:
        warnings = []
        if request.instructions and not route.model.startswith(("openai/", *INSTRUCTED_BY_FIELD)):
            warnings.append(f"--instructions has no effect with {route.ref}")
        if request.speed is not None and not route.model.startswith(("openai/", "microsoft/")):
            warnings.append(f"--speed may have no effect with {route.ref}")
        return (*warnings, *_unaddressed_options(request.options))

    def transcription_warnings(self, request: TranscriptionRequest, route: Route) -> tuple[str, ...]:
        warnings = []
        if request.prompt and not route.model.startswith("openai/"):
            warnings.append(f"--prompt has no effect with {route.ref}")
        if request.timestamps is not Timestamps.NONE and not self._is_detailed(request, route):
            warnings.append(f"{route.ref} gives text without times")
        if request.speakers:
            warnings.append(f"--speaker has no effect with {route.ref}: speakers are numbered")
        if request.streams:
            warnings.append("--stream has no effect with openrouter: it tells the text at the end")
        return (*warnings, *_unaddressed_options(request.options))

    def speech_features(self, request: SpeechRequest, route: Route) -> tuple[str, ...]:
        return (f"format:{request.format}",)

    def transcription_features(self, request: TranscriptionRequest, route: Route) -> tuple[str, ...]:
        features = [f"upload:{request.recording.format}"]
        if self._is_detailed(request, route):
            features += ["verbose_json", *(("word",) if "word" in granularities(request, route) else ())]
        if not self._options(request, route):
            features.append("form" if self._goes_as_form(request, route, {}) else "json")
        return tuple(features)

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
        elif request.instructions and route.model.startswith(INSTRUCTED_BY_FIELD):
            fields["instructions"] = request.instructions
        if options:
            fields["provider"] = {"options": {slug: dict(values) for slug, values in options.items()}}
        return WireRequest("POST", join_url(route.base_url, "/audio/speech"), _headers(route), json_body(fields))

    def chat_uploads(self, route: Route) -> tuple[str, ...]:
        return ("wav", "mp3", "flac", "m4a", "ogg", "opus", "aac", "aiff")

    def chat_refusal(self, request: ChatRequest, route: Route) -> AudiocliError | None:
        return _bare_name(route) or super().chat_refusal(request, route)

    def chat_headers(self, route: Route) -> dict[str, str]:
        return _headers(route)

    def transcription(self, request: TranscriptionRequest, route: Route) -> WireRequest:
        options = self._options(request, route)
        is_form = self._goes_as_form(request, route, options)
        body = self._form(request, route) if is_form else self._json(request, route, options)
        return WireRequest("POST", join_url(route.base_url, "/audio/transcriptions"), _headers(route), body)

    def transcript(self, body: bytes, headers: Mapping[str, str]) -> Transcript:
        from . import transcript_responses

        return transcript_responses.read(body, headers)

    def generation_id(self, headers: Mapping[str, str]) -> str | None:
        return as_id(headers.get("x-generation-id"))

    def generation_query(self, generation_id: str, route: Route) -> WireRequest | None:
        return cost_lookup.query(join_url(route.base_url, "/generation"), generation_id, route)

    def generation_reply(self, body: bytes) -> Usage | None:
        return cost_lookup.read(body)

    def failure(self, status: int, headers: Mapping[str, str], body: bytes) -> AttemptError:
        return error_responses.failure(status, headers, body)

    def models_query(self, route: Route) -> WireRequest | None:
        # The list needs no key, so none is sent; without the modalities it would hide every speech model.
        modalities = ",".join(model_list.KIND_OF_MODALITY)
        return WireRequest("GET", join_url(route.base_url, f"/models?output_modalities={modalities}"))

    def models_reply(self, body: bytes, route: Route) -> tuple[ModelCard, ...] | None:
        return model_list.cards(body, route, self)

    def voices(self, route: Route) -> tuple[str, ...] | None:
        return None

    def voices_query(self, route: Route) -> WireRequest | None:
        return self.models_query(route)

    def voices_reply(self, body: bytes, route: Route) -> tuple[str, ...] | None:
        cards = self.models_reply(body, route) or ()
        return next((card.voices for card in cards if card.model == route.model), None) or None

    def _options(self, request: TranscriptionRequest, route: Route) -> dict[str, dict[str, Json]]:
        """Gather what goes to providers: what the user said, and what has no field of its own."""
        options = _provider_options(request.options)
        if request.prompt and route.model.startswith("openai/"):
            # A top-level prompt is accepted and ignored; only the provider's own option arrives.
            for slug in WHISPER_PROVIDERS if _is_whisper(route.model) else ("openai",):
                options.setdefault(slug, {}).setdefault("prompt", request.prompt)
        for family, (slug, key) in DIARIZE_OPTIONS.items():
            if request.diarizes and route.model.startswith(family):
                options.setdefault(slug, {}).setdefault(key, True)
        return options

    def _goes_as_form(
        self, request: TranscriptionRequest, route: Route, options: Mapping[str, Mapping[str, Json]]
    ) -> bool:
        """Choose the body: a form cannot hold options or ask for speakers, and is better for what is large."""
        size_bytes = request.recording.size_bytes
        if options or request.diarizes or "form" in route.refused or size_bytes > MULTIPART_LIMIT_BYTES:
            return False
        return size_bytes >= MULTIPART_FROM_BYTES or "json" in route.refused

    def _json(self, request: TranscriptionRequest, route: Route, options: dict[str, dict[str, Json]]) -> Body:
        recording = request.recording
        fields: dict[str, Json] = {"model": route.model}
        if self._is_detailed(request, route):
            fields["response_format"] = "verbose_json"
            fields["timestamp_granularities"] = list(granularities(request, route))
        if request.diarizes and not route.model.startswith(tuple(DIARIZE_OPTIONS)):
            fields["diarize"] = True
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
            form += [("timestamp_granularities[]", name) for name in granularities(request, route)]
        form += [(name, value) for name, value in common_form(request) if name != "prompt"]
        return recording_form(form, request)

    def _is_detailed(self, request: TranscriptionRequest, route: Route) -> bool:
        """Ask for `verbose_json` where it must be had, or where it is known to be answered.

        Providers that are not OpenAI-compatible answer it with 400, so mere comfort is no reason to risk it.
        """
        if not _gives_times(route):
            return False
        needed = (
            request.timestamps_required or request.verbatim or request.diarizes or request.timestamps is Timestamps.WORD
        )
        return needed or (request.timestamps is Timestamps.SEGMENT and _is_whisper(route.model))


def _headers(route: Route) -> dict[str, str]:
    # Attribution is what OpenRouter asks of applications ("App Attribution"); it carries nothing about the user.
    return {**bearer(route), "X-OpenRouter-Title": "audiocli"}


def _gives_times(route: Route) -> bool:
    return gives_times(route.model) and "verbose_json" not in route.refused


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
        if dot and not _is_routing(name):
            grouped.setdefault(slug, {})[key] = value
    return grouped


def _is_routing(name: str) -> bool:
    first, _, rest = name.partition(".")
    return first in ROUTING_KEYS or (first == "provider" and rest.partition(".")[0] in ROUTING_KEYS)


def _unaddressed_options(options: Mapping[str, Json]) -> tuple[str, ...]:
    return tuple(
        f"--option {name}: openrouter does not apply routing keys to speech and transcription, so it is not sent"
        if _is_routing(name)
        else f"--option {name} has no effect with openrouter, which takes PROVIDER.KEY=VALUE"
        for name in options
        if "." not in name or _is_routing(name)
    )


DIALECT = OpenRouter()
