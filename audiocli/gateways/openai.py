"""The OpenAI dialect, for OpenAI, Groq and every OpenAI-compatible server.

Source: OpenAI's published specification 2.3.0 (edition of 2026-08-21), Groq console documentation (read 2026-10).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, NamedTuple

from ..errors import AttemptError, AudiocliError, UsageError
from ..types.json import Json
from ..types.ledger import Usage
from ..types.requests import HttpRequest, SpeechRequest, Timestamps, TranscriptionRequest
from ..types.results import ServedModel
from ..types.routes import NO_TRAITS, ModelCard, Route
from ..types.transcripts import Transcript
from . import (
    OPENAI_CHAT_END,
    OPENAI_SPEECH_END,
    OPENAI_TRANSCRIPTION_END,
    OPENAI_VOICES,
    error_responses,
    is_default_server,
    litellm_proxy,
    model_names,
)
from .base import (
    DialectDefaults,
    Limits,
    apply_configured_limits,
    as_date,
    as_list,
    as_nanousd,
    as_object,
    as_text,
    build_auth_headers,
    build_url,
    build_voice_field,
    quote_invalid_cost,
    read_json,
)
from .capability_errors import NO_TIMESTAMPS
from .chat_gateway import ChatCompletionsMixin
from .model_hints import suggest_diarization, suggest_timestamps
from .model_limits import add_model_limits
from .request_bodies import (
    build_common_fields,
    build_json_body,
    build_recording_form,
    encode_field,
    find_option_conflict,
    get_granularities,
    nest_options,
)

if TYPE_CHECKING:
    from ..types.requests import ChatRequest

SIX_FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")
UPLOAD_FORMATS = ("flac", "mp3", "mp4", "m4a", "ogg", "opus", "wav", "webm")
MAX_UPLOAD_BYTES = 26_214_400

GROQ_VOICES = {
    "canopylabs/orpheus-v1-english": ("autumn", "diana", "hannah", "austin", "daniel", "troy"),
    "canopylabs/orpheus-arabic-saudi": ("abdullah", "fahad", "sultan", "lulwa", "noura", "aisha"),
}

OPENAI_MODEL_PREFIXES = ("tts-", "gpt-", "whisper-1")


class Traits(NamedTuple):
    """Differences between the gateways of this dialect."""

    speech_formats: tuple[str, ...] = SIX_FORMATS
    max_text_characters: int | None = None
    max_prompt_characters: int | None = None
    upload_formats: tuple[str, ...] = UPLOAD_FORMATS
    max_upload_bytes: int | None = None
    max_audio_s: float | None = None
    # Prefixes of its model names; empty if any name is possible.
    model_prefixes: tuple[str, ...] = ()
    accepts_instructions: bool = True
    # Models that support translation; None if any may.
    translation_models: tuple[str, ...] | None = None
    supports_stream: bool = True
    supports_diarization: bool = True
    # Accepted formats of recordings in a chat; empty if the gateway has no audio chat.
    chat_upload_formats: tuple[str, ...] = ("wav", "mp3")
    max_chat_bytes: int | None = None


# Other servers get the defaults: OpenAI-compatible, without known limits.
TRAITS = {
    "openai": Traits(
        max_text_characters=4096,
        max_upload_bytes=MAX_UPLOAD_BYTES,
        model_prefixes=OPENAI_MODEL_PREFIXES,
        translation_models=("whisper-1",),
    ),
    "groq": Traits(
        speech_formats=("wav", "flac", "mp3", "ogg"),
        # Whisper uses the last 224 tokens of a prompt; Groq refuses longer ones (read 2026-10).
        max_prompt_characters=896,
        max_upload_bytes=MAX_UPLOAD_BYTES,
        model_prefixes=("whisper-large-v3", "distil-whisper", "canopylabs/", "playai-"),
        accepts_instructions=False,
        translation_models=("whisper-large-v3",),
        supports_stream=False,
        supports_diarization=False,
        chat_upload_formats=(),
    ),
}
DEFAULT_TRAITS = Traits()

AUDIO_CHAT_HINT = "use a model of openrouter, openai or arouter"
TRANSLATION_HINT = (
    "use groq:whisper-large-v3 or arouter:openai/whisper-large-v3, "
    "or openai:whisper-1 until it shuts down on 2027-02-26"
)

# Values of `task` in the model list of speaches (its OpenAPI file, 2026-03).
_TASK_KINDS = {"automatic-speech-recognition": "transcription", "text-to-speech": "speech"}

# From OpenAI's deprecations page, read 2026-11-26, for the time until the model list is fetched. Snapshots end with
# their model. Only for api.openai.com: compatible servers keep models of these names.
OPENAI_END_DATES = {
    **dict.fromkeys(("tts-1", "tts-1-hd", "gpt-4o-mini-tts", "gpt-4o-mini-tts-2025-12-15"), OPENAI_SPEECH_END),
    **dict.fromkeys(("gpt-4o-audio-preview", "gpt-4o-mini-audio-preview"), date(2026, 5, 7)),
    **dict.fromkeys(("gpt-audio", "gpt-audio-mini"), OPENAI_CHAT_END),
    **dict.fromkeys(
        (
            *("whisper-1", "gpt-4o-transcribe", "gpt-4o-transcribe-diarize"),
            *("gpt-4o-mini-transcribe", "gpt-4o-mini-transcribe-2025-12-15"),
        ),
        OPENAI_TRANSCRIPTION_END,
    ),
}


class OpenAI(ChatCompletionsMixin, DialectDefaults):
    """The OpenAI dialect. Differences between gateways are in `TRAITS` and in subclasses."""

    is_free = False
    # The specification requires a voice. Compatible servers have OpenAI's names or map them to their own.
    default_voice: str | None = "alloy"
    model_list_is_public = False

    def get_traits(self, route: Route) -> Traits:
        """Return the traits of the gateway."""
        return TRAITS.get(route.gateway, DEFAULT_TRAITS)

    def may_have_model(self, route: Route) -> bool:
        prefixes = self.get_traits(route).model_prefixes
        return not prefixes or route.model.startswith(prefixes)

    def get_limits(self, route: Route) -> Limits:
        traits = self.get_traits(route)
        limits = Limits(
            max_text_characters=traits.max_text_characters,
            max_upload_bytes=traits.max_upload_bytes,
            max_audio_s=traits.max_audio_s,
            max_prompt_characters=traits.max_prompt_characters,
            max_chat_bytes=traits.max_chat_bytes,
        )
        return apply_configured_limits(add_model_limits(limits, route.model), route)

    def get_speech_formats(self, route: Route) -> tuple[str, ...]:
        return route.traits.speech_formats or self.get_traits(route).speech_formats

    def get_upload_formats(self, route: Route) -> tuple[str, ...]:
        return route.traits.upload_formats or self.get_traits(route).upload_formats

    def check_speech(self, request: SpeechRequest, route: Route) -> AudiocliError | None:
        return _check_options(request.options)

    def check_transcription(self, request: TranscriptionRequest, route: Route) -> AudiocliError | None:
        if (error := _check_options(request.options)) is not None:
            return error
        if request.translate and not self._supports_translation(route):
            return UsageError(f"{route.ref} does not support translation", hint=TRANSLATION_HINT)
        if request.diarize and not (
            self.get_traits(route).supports_diarization and model_names.supports_diarization(route.model)
        ):
            return UsageError(f"{route.ref} does not support diarization", hint=suggest_diarization(route))
        if request.timestamps_required and not self.supports_timestamps(request, route):
            return UsageError(f"{route.ref} does not return timestamps", hint=suggest_timestamps(route))
        return None

    def get_speech_warnings(self, request: SpeechRequest, route: Route) -> tuple[str, ...]:
        warnings = []
        if request.instructions and not self._accepts_instructions(route):
            warnings.append(f"--instructions has no effect with {route.ref}")
        return tuple(warnings)

    def get_transcription_warnings(self, request: TranscriptionRequest, route: Route) -> tuple[str, ...]:
        warnings = []
        max_characters = self.get_traits(route).max_prompt_characters
        if request.timestamps is not Timestamps.NONE and not self.supports_timestamps(request, route):
            warnings.append(f"{route.ref} does not return timestamps")
        if request.prompt and request.diarize:
            warnings.append(f"--prompt has no effect with {route.ref}")
        elif request.prompt and max_characters is not None and len(request.prompt) > max_characters:
            warnings.append(
                f"{route.ref} accepts prompts of at most {max_characters} characters; sending only the end of --prompt"
            )
        if request.keyterms and not self._accepts_keyterms(request, route):
            warnings.append(f"--keyterms has no effect with {route.ref}")
        if request.speakers and not request.diarize:
            warnings.append("--speaker has no effect without --diarize")
        if request.language and request.translate:
            warnings.append("--language has no effect with --translate")
        if request.stream and not self._is_streamed(request, route):
            warnings.append(f"--stream has no effect with {route.ref}, which returns the text at the end")
        return tuple(warnings)

    def get_speech_features(self, request: SpeechRequest, route: Route) -> tuple[str, ...]:
        return (f"format:{request.format}",)

    def get_transcription_features(self, request: TranscriptionRequest, route: Route) -> tuple[str, ...]:
        upload = f"upload:{request.recording.format}"
        if not self._uses_verbose_json(request, route):
            return (upload,)
        return (*(("word",) if "word" in get_granularities(request, route) else ()), "verbose_json", upload)

    def build_speech_request(self, request: SpeechRequest, route: Route) -> HttpRequest:
        # The table of a server may name an empty voice.
        voice = self.default_voice if route.voice is None else route.voice
        fields: dict[str, Json] = {
            "model": route.model,
            "input": request.text,
            "voice": build_voice_field(voice, route),
            "response_format": request.format,
        }
        if request.speed is not None:
            fields["speed"] = request.speed
        if request.instructions and self._accepts_instructions(route):
            fields["instructions"] = request.instructions
        if route.traits is not NO_TRAITS:
            from .server_tables import adapt_speech_fields

            fields = adapt_speech_fields(fields, route)
        fields.update(nest_options(request.options))
        return HttpRequest(
            "POST", build_url(route, "/audio/speech"), build_auth_headers(route), build_json_body(fields)
        )

    def get_chat_upload_formats(self, route: Route) -> tuple[str, ...]:
        return self.get_traits(route).chat_upload_formats

    def check_chat(self, request: ChatRequest, route: Route) -> AudiocliError | None:
        if (request.recordings or request.format) and not self.get_chat_upload_formats(route):
            return UsageError(f"{route.gateway} does not support audio chat", hint=AUDIO_CHAT_HINT)
        return super().check_chat(request, route)

    def get_max_tokens_field(self, route: Route) -> str:
        # OpenAI's newer name, which not every compatible server accepts.
        return "max_completion_tokens" if route.gateway == "openai" else "max_tokens"

    def build_transcription_request(self, request: TranscriptionRequest, route: Route) -> HttpRequest:
        path = "/audio/translations" if request.translate else "/audio/transcriptions"
        options = nest_options(request.options)
        # gpt-transcribe has a list of languages in place of one (specification 2.3.0).
        language_field = "languages[]" if model_names.has_language_list(route.model) else "language"
        common_fields = build_common_fields(self._drop_unsupported_options(request, route))
        fields = [
            *self._build_response_fields(request, route),
            *((language_field if name == "language" else name, value) for name, value in common_fields),
        ]
        if self._accepts_keyterms(request, route):
            fields += [("keywords[]", term) for term in request.keyterms]
        form = [("model", route.model), *fields]
        if route.traits is not NO_TRAITS:
            from .server_tables import adapt_form

            form = adapt_form(form, route)
        form = [(name, value) for name, value in form if name == "model" or name not in options]
        for name, value in options.items():
            form += encode_field(name, value)
        return HttpRequest(
            "POST", build_url(route, path), build_auth_headers(route), build_recording_form(form, request)
        )

    def parse_transcript(self, body: bytes, headers: Mapping[str, str]) -> Transcript:
        from . import transcript_responses

        return transcript_responses.parse_response(body, headers)

    def parse_usage(self, headers: Mapping[str, str]) -> Usage:
        # LiteLLM proxies report the cost in a header (LiteLLM documentation, read 2026-10).
        reported_cost = headers.get("x-litellm-response-cost")
        return Usage(cost_nanousd=as_nanousd(reported_cost), invalid_cost=quote_invalid_cost(reported_cost))

    def parse_served_model(self, headers: Mapping[str, str], route: Route) -> ServedModel:
        return litellm_proxy.parse_served_model(headers)

    def find_diagnostic_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        return litellm_proxy.find_diagnostic_headers(headers)

    def parse_error(self, status: int, headers: Mapping[str, str], body: bytes) -> AttemptError:
        return error_responses.parse_error(status, headers, body)

    def build_models_query(self, route: Route) -> HttpRequest | None:
        if not route.traits.has_model_list:
            return None
        return HttpRequest("GET", build_url(route, "/models"), build_auth_headers(route))

    def may_list_prices(self, route: Route) -> bool:
        # A configured gateway may be a LiteLLM proxy.
        return self.get_traits(route) is DEFAULT_TRAITS

    def build_details_query(self, body: bytes, route: Route) -> HttpRequest | None:
        is_proxy = self.may_list_prices(route) or litellm_proxy.lists_modes(body)
        return litellm_proxy.build_details_query(route) if is_proxy else None

    def add_model_details(self, cards: tuple[ModelCard, ...], body: bytes, route: Route) -> tuple[ModelCard, ...]:
        return litellm_proxy.add_details(cards, body)

    def parse_models(self, body: bytes, route: Route) -> tuple[ModelCard, ...] | None:
        """Parse the model list. It has no prices. The kind of a model follows from its `mode`, `task` or name."""
        items = as_object(read_json(body)).get("data")
        if not isinstance(items, list):
            return None
        cards = []
        for item in map(as_object, items):
            name = as_text(item.get("id"))
            kind = (
                litellm_proxy.parse_kind(item)
                or _TASK_KINDS.get(as_text(item.get("task")) or "")
                or (name and model_names.guess_kind(name))
            )
            # A configured server has few models, and their names may say nothing.
            if not name or (not kind and route.gateway in TRAITS):
                continue
            model_route = route._replace(model=name)
            cards.append(
                ModelCard(
                    gateway=route.gateway,
                    model=name,
                    kind=kind or None,
                    voices=(self.get_known_voices(model_route) or ()) if kind == "speech" else (),
                    formats=self.get_speech_formats(model_route) if kind == "speech" else (),
                    end_date=as_date(item.get("shutdown_date")) or self.get_end_date(model_route),
                )
            )
        return tuple(cards)

    def get_known_voices(self, route: Route) -> tuple[str, ...] | None:
        return OPENAI_VOICES if route.gateway == "openai" else GROQ_VOICES.get(route.model)

    def build_voices_query(self, route: Route) -> HttpRequest | None:
        # Only speaches is known to list its voices (its OpenAPI file, 2026-03). Others respond with 404.
        if not route.traits.has_model_list and "voices" not in dict(route.traits.paths):
            return None
        return HttpRequest("GET", build_url(route, "/audio/voices"), build_auth_headers(route))

    def parse_voices(self, body: bytes, route: Route) -> tuple[str, ...] | None:
        items = as_list(as_object(read_json(body)).get("voices"))
        names = (as_text(item) or as_text(as_object(item).get("name")) for item in items)
        return tuple(name for name in names if name) or None

    def get_end_date(self, route: Route) -> date | None:
        is_openai = route.gateway == "openai" and is_default_server(route)
        return OPENAI_END_DATES.get(route.model) if is_openai else None

    def _build_response_fields(self, request: TranscriptionRequest, route: Route) -> list[tuple[str, str]]:
        """Return the fields that select the format of the response, without features that the model has refused."""
        if request.diarize:
            # Without a chunking strategy, recordings over 30 s are refused.
            form = [("response_format", "diarized_json"), ("chunking_strategy", "auto")]
            form += [("known_speaker_names[]", speaker.name) for speaker in request.speakers]
            form += [
                ("known_speaker_references[]", speaker.clip_url) for speaker in request.speakers if speaker.clip_url
            ]
        elif self._uses_verbose_json(request, route):
            form = [("response_format", "verbose_json")]
            # Translations always have segments, and the field is not accepted.
            granularities = () if request.translate else get_granularities(request, route)
            form += [("timestamp_granularities[]", name) for name in granularities]
        else:
            form = [("response_format", "json")]
        return [*form, ("stream", "true")] if self._is_streamed(request, route) else form

    def _drop_unsupported_options(self, request: TranscriptionRequest, route: Route) -> TranscriptionRequest:
        """Drop options that the gateway would refuse. `get_transcription_warnings` has a warning for each."""
        max_characters = self.get_traits(route).max_prompt_characters
        prompt = None if request.diarize else request.prompt
        return request._replace(
            prompt=prompt[-max_characters:] if prompt and max_characters else prompt,
            language=None if request.translate else request.language,
        )

    def _accepts_instructions(self, route: Route) -> bool:
        return self.get_traits(route).accepts_instructions and not route.model.rpartition("/")[2].startswith("tts-1")

    def _accepts_keyterms(self, request: TranscriptionRequest, route: Route) -> bool:
        # Only gpt-transcribe has this field (specification 2.3.0), which translations do not have.
        return model_names.has_language_list(route.model) and not request.translate

    def _supports_translation(self, route: Route) -> bool:
        models = self.get_traits(route).translation_models
        return models is None or route.model in models

    def supports_timestamps(self, request: TranscriptionRequest, route: Route) -> bool:
        if request.diarize:
            return request.timestamps is not Timestamps.WORD
        return model_names.supports_timestamps(route.model) and NO_TIMESTAMPS.isdisjoint(route.unsupported)

    def _uses_verbose_json(self, request: TranscriptionRequest, route: Route) -> bool:
        is_requested = request.timestamps is not Timestamps.NONE or request.keep_raw_response
        return is_requested and not request.diarize and self.supports_timestamps(request, route)

    def _is_streamed(self, request: TranscriptionRequest, route: Route) -> bool:
        is_supported = self.get_traits(route).supports_stream and route.model != "whisper-1" and not request.translate
        return request.stream and is_supported and not self._uses_verbose_json(request, route)


def _check_options(options: Mapping[str, Json]) -> AudiocliError | None:
    name = find_option_conflict(options)
    return None if name is None else UsageError(f"--option {name} contradicts --option {name}.FIELD")


DIALECT = OpenAI()
