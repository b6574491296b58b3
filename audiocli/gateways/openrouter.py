"""The OpenRouter dialect.

Source: OpenRouter's OpenAPI file and audio guides (edition of 2026-08-22), recorded replies of 2026-10.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import AttemptError, AudiocliError, UsageError
from ..text.languages import find_language_code
from ..types.json import Json
from ..types.ledger import Usage
from ..types.requests import HttpRequest, RequestBody, SpeechRequest, Timestamps, TranscriptionRequest
from ..types.results import KeyInfo
from ..types.routes import NO_TRAITS, ModelCard, Route
from ..types.transcripts import Transcript
from . import cost_lookup, error_responses, model_list
from .base import (
    PRIVACY_OPTIONS,
    DialectDefaults,
    Limits,
    add_configured_headers,
    apply_configured_limits,
    as_identifier,
    build_auth_headers,
    build_url,
    get_voice_id,
)
from .capability_errors import NO_TIMESTAMPS
from .chat_gateway import ChatCompletionsMixin
from .model_hints import suggest_diarization, suggest_timestamps
from .model_limits import add_model_limits
from .model_names import supports_timestamps
from .openai import TRANSLATION_HINT
from .request_bodies import (
    build_common_fields,
    build_json_body,
    build_json_body_with_file,
    build_json_body_with_files,
    build_recording_form,
    find_option_conflict,
    get_granularities,
    get_upload_name,
    make_placeholder,
    nest_options,
)

if TYPE_CHECKING:
    from ..types.requests import ChatRequest

MAX_MULTIPART_BYTES = 26_214_400
# Base64 makes an upload a third larger. Below this size that takes less time than a round trip, and JSON is in every
# edition of the documentation. From this size on, multipart is better if it can express the whole request.
MIN_MULTIPART_BYTES = 4 * 1024 * 1024

# Models accept "a few thousand" characters; the documentation has no exact limits.
DEFAULT_MAX_CHARACTERS = 3000
# OpenAI's endpoint, and OpenRouter's page of Grok Voice TTS 1.0 (read 2026-11).
MAX_MODEL_CHARACTERS = (("openai/", 4096), ("x-ai/grok-voice-tts", 15_000))
# Providers have 60 s for a request (guide "Speech-to-Text"). Users report that 15 minutes work and 90 minutes do not
# (2026-10).
MAX_AUDIO_S = 900.0
MAX_MODEL_AUDIO_S = (("assemblyai/", 120.0),)

# Each provider reads its own options only. Three providers serve Whisper, and OpenAI serves all models of OpenAI (guide
# "Speech-to-Text").
WHISPER_PROVIDERS = ("openai", "groq", "together")

# Provider options for diarization (blog "Transcription on OpenRouter" and recorded responses, 2026-10). Other models
# have a field that is newer than the published specification (official Python client 1.3).
DIARIZE_OPTIONS = {"deepgram/": ("deepgram", "diarize"), "assemblyai/": ("assemblyai", "speaker_labels")}

# Models that follow instructions (official Python client 1.3.84). Others ignore the field.
INSTRUCTIONS_PREFIXES = ("openai/gpt-", "google/", "fish-audio/")

# Models whose input may be a list of turns in several voices, and those that begin alike and take none (official
# Python client 1.3.84).
TURN_PREFIXES, NO_TURN_PREFIXES = ("google/", "fish-audio/"), ("fish-audio/s1",)

# Fields of both requests, and of one of them, that `--option` can set (official Python client 1.3.84). The value of
# `trace` is an object, so `trace.KEY` is a field inside it and not the option of a provider.
_COMMON_FIELDS = frozenset({"user", "session_id", "trace"})
SPEECH_FIELDS = _COMMON_FIELDS | {"input_references"}
TRANSCRIPTION_FIELDS = _COMMON_FIELDS | {"diarize", "keyterms"}
MAX_SESSION_CHARACTERS = 256

# Keys that select providers. They apply to chat only, not to the audio endpoints (blog "Transcription on OpenRouter"),
# except those of `PRIVACY_OPTIONS` (official Python client 1.3.84, 2026-11).
ROUTING_KEYS = frozenset(
    {
        *("order", "allow_fallbacks", "require_parameters", "only", "ignore"),
        *("quantizations", "sort", "preferred_min_throughput", "preferred_max_latency", "max_price", "models", "route"),
    }
)


class OpenRouter(ChatCompletionsMixin, DialectDefaults):
    """The OpenRouter dialect."""

    is_free = False
    default_voice: str | None = None
    model_list_is_public = True
    model_list_has_modalities = True
    keeps_privacy_options = True
    supports_voice_references = True
    # `audio/pcm;rate=24000;channels=1` (recorded replies, 2026-10).
    declares_pcm_format = True
    # OpenAI's models return audio as a stream of raw samples only (guide "Audio"; reported by users, 2026-10).
    requires_speech_stream = True
    include_stream_usage = False

    def may_have_model(self, route: Route) -> bool:
        return "/" in route.model

    def may_list_prices(self, route: Route) -> bool:
        return True

    def get_limits(self, route: Route) -> Limits:
        # Limits differ between models and are not in the model list. Those of OpenAI's models are known.
        limits = Limits(
            max_text_characters=next(
                (maximum for prefix, maximum in MAX_MODEL_CHARACTERS if route.model.startswith(prefix)),
                DEFAULT_MAX_CHARACTERS,
            ),
            max_audio_s=next(
                (maximum for prefix, maximum in MAX_MODEL_AUDIO_S if route.model.startswith(prefix)), MAX_AUDIO_S
            ),
        )
        return apply_configured_limits(add_model_limits(limits, route.model), route)

    def get_speech_formats(self, route: Route) -> tuple[str, ...]:
        return route.traits.speech_formats or ("mp3", "pcm")

    def supports_timestamps(self, request: TranscriptionRequest, route: Route) -> bool:
        return _supports_timestamps(route)

    def get_upload_formats(self, route: Route) -> tuple[str, ...]:
        return route.traits.upload_formats or ("wav", "mp3", "flac", "m4a", "ogg", "opus", "webm", "aac")

    def takes_turns(self, route: Route) -> bool:
        return route.model.startswith(TURN_PREFIXES) and not route.model.startswith(NO_TURN_PREFIXES)

    def check_speech(self, request: SpeechRequest, route: Route) -> AudiocliError | None:
        return _check_model_name(route) or _check_session(request.options)

    def check_transcription(self, request: TranscriptionRequest, route: Route) -> AudiocliError | None:
        if (error := _check_session(request.options)) is not None:
            return error
        if request.translate:
            return UsageError("openrouter does not support translation", hint=TRANSLATION_HINT)
        if request.diarize and not (_diarizes_by_field(route) or route.model.startswith(tuple(DIARIZE_OPTIONS))):
            return UsageError(f"{route.ref} does not support diarization", hint=suggest_diarization(route))
        if request.timestamps_required and not _supports_timestamps(route):
            return UsageError(f"{route.ref} does not return timestamps", hint=suggest_timestamps(route))
        return _check_model_name(route)

    def get_speech_warnings(self, request: SpeechRequest, route: Route) -> tuple[str, ...]:
        warnings = []
        if request.instructions and not route.model.startswith(INSTRUCTIONS_PREFIXES):
            warnings.append(f"--instructions has no effect with {route.ref}")
        if request.speed is not None and not route.model.startswith(("openai/", "microsoft/")):
            warnings.append(f"--speed may have no effect with {route.ref}")
        return (*warnings, *_warn_about_options(request.options, SPEECH_FIELDS))

    def get_transcription_warnings(self, request: TranscriptionRequest, route: Route) -> tuple[str, ...]:
        warnings = []
        if request.prompt and not route.model.startswith("openai/"):
            warnings.append(f"--prompt has no effect with {route.ref}")
        if request.timestamps is not Timestamps.NONE and not self._uses_verbose_json(request, route):
            warnings.append(f"{route.ref} does not return timestamps")
        if request.speakers:
            warnings.append(f"--speaker has no effect with {route.ref}: speakers are numbered")
        if request.stream:
            warnings.append("--stream has no effect with openrouter, which returns the text at the end")
        return (*warnings, *_warn_about_options(request.options, TRANSCRIPTION_FIELDS))

    def get_speech_features(self, request: SpeechRequest, route: Route) -> tuple[str, ...]:
        return (f"format:{request.format}",)

    def get_transcription_features(self, request: TranscriptionRequest, route: Route) -> tuple[str, ...]:
        features = [f"upload:{request.recording.format}"]
        if self._uses_verbose_json(request, route):
            features += ["verbose_json", *(("word",) if "word" in get_granularities(request, route) else ())]
        if not self._requires_json(request, self._build_provider_field(request, route)):
            features.append("form" if self._uses_multipart(request, route, {}) else "json")
        return tuple(features)

    def build_speech_request(self, request: SpeechRequest, route: Route) -> HttpRequest:
        # response_format is always sent, because the default is pcm here and mp3 elsewhere.
        fields: dict[str, Json] = {
            "model": route.model,
            "input": [dict(turn) for turn in request.turns] or request.text,
            "response_format": request.format,
        }
        if route.voice:
            fields["voice"] = get_voice_id(route.voice) or route.voice
        if request.speed is not None:
            fields["speed"] = request.speed
        options = _group_provider_options(request.options)
        if request.instructions and route.model.startswith(INSTRUCTIONS_PREFIXES):
            fields["instructions"] = request.instructions
        if route.traits is not NO_TRAITS:
            from .server_tables import adapt_speech_fields

            fields = adapt_speech_fields(fields, route)
        fields |= _select_fields(request.options, SPEECH_FIELDS)
        if provider := _build_provider_field(request.options, options):
            fields["provider"] = provider
        body = _build_body_with_references(fields, request) if request.references else build_json_body(fields)
        return HttpRequest("POST", build_url(route, "/audio/speech"), _build_headers(route), body)

    def get_chat_upload_formats(self, route: Route) -> tuple[str, ...]:
        return ("wav", "mp3", "flac", "m4a", "ogg", "opus", "aac", "aiff")

    def check_chat(self, request: ChatRequest, route: Route) -> AudiocliError | None:
        return _check_model_name(route) or super().check_chat(request, route)

    def get_chat_headers(self, route: Route) -> dict[str, str]:
        return _build_headers(route)

    def build_transcription_request(self, request: TranscriptionRequest, route: Route) -> HttpRequest:
        provider = self._build_provider_field(request, route)
        is_multipart = self._uses_multipart(request, route, provider)
        body = (
            self._build_multipart_body(request, route)
            if is_multipart
            else self._build_json_body(request, route, provider)
        )
        return HttpRequest("POST", build_url(route, "/audio/transcriptions"), _build_headers(route), body)

    def parse_transcript(self, body: bytes, headers: Mapping[str, str]) -> Transcript:
        from . import transcript_responses

        return transcript_responses.parse_response(body, headers)

    def parse_generation_id(self, headers: Mapping[str, str]) -> str | None:
        return as_identifier(headers.get("x-generation-id"))

    def build_cost_query(self, generation_id: str, route: Route) -> HttpRequest | None:
        return cost_lookup.build_query(build_url(route, "/generation"), generation_id, route)

    def parse_cost(self, body: bytes) -> Usage | None:
        return cost_lookup.parse_cost(body)

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> AttemptError:
        return error_responses.parse_error(status, headers, body)

    def build_models_query(self, route: Route) -> HttpRequest | None:
        # The list needs no key. Without the modalities it has no speech models.
        if not route.traits.has_model_list:
            return None
        modalities = ",".join(model_list.MODALITY_KINDS)
        headers = add_configured_headers({}, route)
        return HttpRequest("GET", build_url(route, f"/models?output_modalities={modalities}"), headers)

    def parse_models(self, body: bytes, route: Route) -> tuple[ModelCard, ...] | None:
        return model_list.parse_models(body, route, self)

    def build_key_query(self, route: Route) -> HttpRequest | None:
        return HttpRequest("GET", build_url(route, "/key"), _build_headers(route))

    def parse_key_info(self, body: bytes) -> KeyInfo | None:
        from . import key_info

        return key_info.parse_key_info(body)

    def get_known_voices(self, route: Route) -> tuple[str, ...] | None:
        return None

    def build_voices_query(self, route: Route) -> HttpRequest | None:
        return self.build_models_query(route)

    def parse_voices(self, body: bytes, route: Route) -> tuple[str, ...] | None:
        cards = self.parse_models(body, route) or ()
        return next((card.voices for card in cards if card.model == route.model), None) or None

    def _build_provider_field(self, request: TranscriptionRequest, route: Route) -> dict[str, Json]:
        """Build `provider`: privacy, and options by provider, some for values that have no field of their own."""
        options = _group_provider_options(request.options)
        if request.prompt and route.model.startswith("openai/"):
            # A top-level prompt is accepted but ignored; the option of the provider is used.
            for slug in WHISPER_PROVIDERS if _is_whisper(route.model) else ("openai",):
                options.setdefault(slug, {}).setdefault("prompt", request.prompt)
        for prefix, (slug, key) in DIARIZE_OPTIONS.items():
            if request.diarize and route.model.startswith(prefix):
                options.setdefault(slug, {}).setdefault(key, True)
        return _build_provider_field(request.options, options)

    def _requires_json(self, request: TranscriptionRequest, provider: Mapping[str, Json]) -> bool:
        """Return whether the request has fields that only every edition of the JSON body has."""
        has_fields = bool(_select_fields(request.options, TRANSCRIPTION_FIELDS))
        return bool(provider) or request.diarize or bool(request.keyterms) or has_fields

    def _uses_multipart(self, request: TranscriptionRequest, route: Route, provider: Mapping[str, Json]) -> bool:
        """Return whether to send a form. It is better for large files, but has no `provider` and no diarization."""
        size_bytes = request.recording.size_bytes
        if self._requires_json(request, provider) or "form" in route.unsupported or size_bytes > MAX_MULTIPART_BYTES:
            return False
        return size_bytes >= MIN_MULTIPART_BYTES or "json" in route.unsupported

    def _build_json_body(self, request: TranscriptionRequest, route: Route, provider: dict[str, Json]) -> RequestBody:
        recording = request.recording
        fields: dict[str, Json] = {"model": route.model}
        if self._uses_verbose_json(request, route):
            fields["response_format"] = "verbose_json"
            fields["timestamp_granularities"] = list(get_granularities(request, route))
        if request.diarize and not route.model.startswith(tuple(DIARIZE_OPTIONS)):
            fields["diarize"] = True
        if request.keyterms:
            fields["keyterms"] = list(request.keyterms)
        fields |= _select_fields(request.options, TRANSCRIPTION_FIELDS)
        if request.language:
            fields["language"] = find_language_code(request.language) or request.language
        if request.temperature is not None:
            fields["temperature"] = request.temperature
        if provider:
            fields["provider"] = provider
        fields["input_audio"] = {"format": get_upload_name(recording.format)}
        if route.traits is not NO_TRAITS:
            from .server_tables import adapt_transcription_fields

            fields = adapt_transcription_fields(fields, route)
        return build_json_body_with_file(fields, recording.path, recording.size_bytes, field=("input_audio", "data"))

    def _build_multipart_body(self, request: TranscriptionRequest, route: Route) -> RequestBody:
        form = [("model", route.model)]
        if self._uses_verbose_json(request, route):
            form.append(("response_format", "verbose_json"))
            form += [("timestamp_granularities[]", name) for name in get_granularities(request, route)]
        form += [(name, value) for name, value in build_common_fields(request) if name != "prompt"]
        if route.traits is not NO_TRAITS:
            from .server_tables import adapt_form

            form = adapt_form(form, route)
        return build_recording_form(form, request)

    def _uses_verbose_json(self, request: TranscriptionRequest, route: Route) -> bool:
        """Return whether to request `verbose_json`.

        Providers that are not OpenAI-compatible refuse it with 400. It is therefore requested only if the output needs
        it, or if the model is known to support it.
        """
        if request.diarize and _diarizes_by_field(route):
            return True
        if not _supports_timestamps(route):
            return False
        is_required = (
            request.timestamps_required
            or request.keep_raw_response
            or request.diarize
            or request.timestamps is Timestamps.WORD
        )
        return is_required or (request.timestamps is Timestamps.SEGMENT and _is_whisper(route.model))


def _build_headers(route: Route) -> dict[str, str]:
    # OpenRouter asks applications to identify themselves ("App Attribution"). The header says nothing about the user.
    return add_configured_headers({**build_auth_headers(route), "X-OpenRouter-Title": "audiocli"}, route)


def _supports_timestamps(route: Route) -> bool:
    return supports_timestamps(route.model) and NO_TIMESTAMPS.isdisjoint(route.unsupported)


def _diarizes_by_field(route: Route) -> bool:
    """Return whether the model may accept `diarize`, which needs `verbose_json`."""
    has_option = route.model.startswith(tuple(DIARIZE_OPTIONS))
    return supports_timestamps(route.model) and "verbose_json" not in route.unsupported and not has_option


def _is_whisper(model: str) -> bool:
    return model.startswith("openai/whisper")


def _check_model_name(route: Route) -> AudiocliError | None:
    if "/" in route.model:
        return None
    return UsageError(
        f"invalid OpenRouter model {route.model!r}: expected AUTHOR/SLUG", hint=f"try openrouter:openai/{route.model}"
    )


def _check_session(options: Mapping[str, Json]) -> AudiocliError | None:
    session_id = options.get("session_id")
    if isinstance(session_id, str) and len(session_id) > MAX_SESSION_CHARACTERS:
        return UsageError(f"--option session_id: openrouter accepts at most {MAX_SESSION_CHARACTERS} characters")
    name = find_option_conflict({name: value for name, value in options.items() if _is_field(name, _COMMON_FIELDS)})
    return None if name is None else UsageError(f"--option {name} contradicts --option {name}.FIELD")


def _build_body_with_references(fields: Mapping[str, Json], request: SpeechRequest) -> RequestBody:
    """Build a JSON body with the clips of a voice. Each transcript follows its clip."""
    parts: list[Json] = []
    files = []
    for reference in request.references:
        placeholder = make_placeholder()
        files.append((placeholder, reference.path, reference.size_bytes))
        input_audio: dict[str, Json] = {"data": placeholder, "format": get_upload_name(reference.format)}
        parts.append({"type": "input_audio", "input_audio": input_audio})
        if reference.transcript is not None:
            parts.append({"type": "text", "text": reference.transcript})
    # Parts of `--option input_references`, such as an image of the scene, are added.
    more_parts = fields.get("input_references")
    template = {**fields, "input_references": parts + (more_parts if isinstance(more_parts, list) else [])}
    return build_json_body_with_files(template, files)


def _select_fields(options: Mapping[str, Json], names: frozenset[str]) -> dict[str, Json]:
    """Return the options that are fields of the request."""
    return nest_options({name: value for name, value in options.items() if _is_field(name, names)})


def _is_field(name: str, names: frozenset[str]) -> bool:
    return name in names or (name.startswith("trace.") and "trace" in names)


def _group_provider_options(options: Mapping[str, Json]) -> dict[str, dict[str, Json]]:
    grouped: dict[str, dict[str, Json]] = {}
    for name, value in options.items():
        slug, dot, key = name.partition(".")
        if dot and slug != "trace" and not _is_routing_key(name) and name not in PRIVACY_OPTIONS:
            grouped.setdefault(slug, {})[key] = value
    return grouped


def _build_provider_field(
    options: Mapping[str, Json], provider_options: Mapping[str, Mapping[str, Json]]
) -> dict[str, Json]:
    """Build `provider` from the user's privacy options and the options of each provider."""
    provider: dict[str, Json] = {PRIVACY_OPTIONS[name]: options[name] for name in options if name in PRIVACY_OPTIONS}
    if provider_options:
        provider["options"] = {slug: dict(values) for slug, values in provider_options.items()}
    return provider


def _is_routing_key(name: str) -> bool:
    first, _, remainder = name.partition(".")
    return first in ROUTING_KEYS or (first == "provider" and remainder.partition(".")[0] in ROUTING_KEYS)


def _warn_about_options(options: Mapping[str, Json], fields: frozenset[str]) -> tuple[str, ...]:
    return tuple(
        f"--option {name} is not sent: openrouter does not apply routing keys to speech and transcription"
        if _is_routing_key(name)
        else f"--option {name} has no effect with openrouter, which accepts PROVIDER.KEY=VALUE and the fields "
        + ", ".join(sorted(fields))
        for name in options
        if name not in PRIVACY_OPTIONS and (("." not in name and not _is_field(name, fields)) or _is_routing_key(name))
    )


DIALECT = OpenRouter()
