"""The OpenAI dialect: OpenAI itself, Groq, and every OpenAI-compatible server.

Source: OpenAI's published specification 2.3.0 (edition of 2026-08-21), Groq console documentation (read 2026-10).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, NamedTuple

from ..errors import AttemptError, AudiocliError, UsageError
from ..types.values import (
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
from . import error_responses, model_names
from .base import (
    Limits,
    GatewayDefaults,
    as_date,
    as_list,
    as_nanousd,
    as_object,
    as_text,
    bearer,
    join_url,
    nonsense_in,
    read_json,
)
from .chat_gateway import ChatCompletionsMixin
from .multipart import common_form, form_parts, granularities, recording_form
from .request_bodies import json_body

if TYPE_CHECKING:
    from ..types.chat import ChatRequest

SIX_FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")
UPLOAD_FORMATS = ("flac", "mp3", "mp4", "m4a", "ogg", "opus", "wav", "webm")
UPLOAD_BYTES = 26_214_400

OPENAI_VOICES = (
    *("alloy", "ash", "ballad", "cedar", "coral", "echo", "fable"),
    *("marin", "nova", "onyx", "sage", "shimmer", "verse"),
)
GROQ_VOICES = {
    "canopylabs/orpheus-v1-english": ("autumn", "diana", "hannah", "austin", "daniel", "troy"),
    "canopylabs/orpheus-arabic-saudi": ("abdullah", "fahad", "sultan", "lulwa", "noura", "aisha"),
}


OPENAI_FAMILIES = ("tts-", "gpt-", "whisper-1")


class Traits(NamedTuple):
    """How one gateway of this dialect differs from the others."""

    speech_formats: tuple[str, ...] = SIX_FORMATS
    text_characters: int | None = None
    prompt_characters: int | None = None
    upload_formats: tuple[str, ...] = UPLOAD_FORMATS
    upload_bytes: int | None = None
    audio_s: float | None = None
    # How the names of its models begin; empty: anything is possible.
    families: tuple[str, ...] = ()
    takes_instructions: bool = True
    # The models that translate; None: any may.
    translators: tuple[str, ...] | None = None
    streams_text: bool = True
    diarizes: bool = True
    # What it takes in a conversation; none: it has no models that hear or speak in one.
    chat_uploads: tuple[str, ...] = ("wav", "mp3")
    chat_bytes: int | None = None


# Any server not named here is read as plain OpenAI-compatible, with no limits known.
TRAITS = {
    "openai": Traits(
        text_characters=4096,
        upload_bytes=UPLOAD_BYTES,
        families=OPENAI_FAMILIES,
        translators=("whisper-1",),
    ),
    "groq": Traits(
        speech_formats=("wav", "flac", "mp3", "ogg"),
        # Whisper reads the last 224 tokens of a prompt; Groq refuses more (read 2026-10).
        prompt_characters=896,
        upload_bytes=UPLOAD_BYTES,
        families=("whisper-large-v3", "distil-whisper", "canopylabs/", "playai-"),
        takes_instructions=False,
        translators=("whisper-large-v3",),
        streams_text=False,
        diarizes=False,
        chat_uploads=(),
    ),
}
PLAIN = Traits()

TALKERS = "those of openrouter, openai and arouter"
TRANSLATORS = "openai:whisper-1, arouter:openai/whisper-large-v3 and groq:whisper-large-v3"

# Models that take less than the others of their gateway. Groq's Orpheus: about 200 characters. OpenAI's gpt-4o-mini-tts
# is told to read 2,000 tokens, and a Chinese character is one (both read 2026-10, in no specification).
CHARACTERS_OF = {"groq": (("orpheus", 200),), "openai": (("gpt-4o-mini-tts", 2000),)}
# The longest recordings, by what is in the name of a model (OpenAI's help pages, read 2026-10).
SECONDS_OF = {"openai": (("-diarize", 1400.0), ("gpt-", 1500.0))}

# speaches' words for what a model is for (its OpenAPI file, 2026-03).
_KIND_OF_TASK = {"automatic-speech-recognition": "transcription", "text-to-speech": "speech"}

# OpenAI's deprecations page as told by news of 2026-10; its list does not always say. Only for api.openai.com: the
# same names live on at compatible servers.
OPENAI_ENDS = {
    **dict.fromkeys(("tts-1", "tts-1-hd", "gpt-4o-mini-tts"), date(2027, 1, 6)),
    "gpt-4o-audio-preview": date(2027, 1, 20),
    **dict.fromkeys(
        ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-4o-transcribe-diarize"), date(2027, 2, 26)
    ),
}


class OpenAI(ChatCompletionsMixin, GatewayDefaults):
    """The dialect; what differs between gateways is in `TRAITS`, or in what a subclass says of its own."""

    is_free = False
    # The specification requires a voice. Compatible servers know OpenAI's names or map them to their own.
    usual_voice: str | None = "alloy"
    lists_in_public = False

    def traits(self, route: Route) -> Traits:
        return TRAITS.get(route.gateway, PLAIN)

    def plausible(self, route: Route) -> bool:
        families = self.traits(route).families
        return not families or route.model.startswith(families)

    def limits(self, route: Route) -> Limits:
        traits = self.traits(route)
        own = next((own for family, own in CHARACTERS_OF.get(route.gateway, ()) if family in route.model), None)
        seconds = next((most for name, most in SECONDS_OF.get(route.gateway, ()) if name in route.model), None)
        return Limits(
            text_characters=own or traits.text_characters,
            upload_bytes=traits.upload_bytes,
            audio_s=seconds or traits.audio_s,
            prompt_characters=traits.prompt_characters,
            chat_bytes=traits.chat_bytes,
        )

    def speech_formats(self, route: Route) -> tuple[str, ...]:
        return self.traits(route).speech_formats

    def upload_formats(self, route: Route) -> tuple[str, ...]:
        return self.traits(route).upload_formats

    def speech_refusal(self, request: SpeechRequest, route: Route) -> AudiocliError | None:
        return None

    def transcription_refusal(self, request: TranscriptionRequest, route: Route) -> AudiocliError | None:
        if request.translates and not self._translates(route):
            return UsageError(f"{route.ref} does not translate", hint=f"these do: {TRANSLATORS}")
        if request.diarizes and not (self.traits(route).diarizes and model_names.tells_speakers(route.model)):
            return UsageError(f"{route.ref} does not tell speakers apart", hint="openai:gpt-4o-transcribe-diarize does")
        if request.timestamps_required and not self.gives_times(request, route):
            return UsageError(
                f"{route.ref} gives text without times",
                hint="captions need a model with times, such as openai:whisper-1 or groq:whisper-large-v3-turbo",
            )
        return None

    def speech_warnings(self, request: SpeechRequest, route: Route) -> tuple[str, ...]:
        warnings = []
        if request.instructions and not self._takes_instructions(route):
            warnings.append(f"--instructions has no effect with {route.ref}")
        return (*warnings, *_misplaced_options(request.options, route))

    def transcription_warnings(self, request: TranscriptionRequest, route: Route) -> tuple[str, ...]:
        warnings = []
        longest = self.traits(route).prompt_characters
        if request.timestamps is not Timestamps.NONE and not self.gives_times(request, route):
            warnings.append(f"{route.ref} gives text without times")
        if request.prompt and request.diarizes:
            warnings.append(f"--prompt has no effect with {route.ref}")
        elif request.prompt and longest is not None and len(request.prompt) > longest:
            warnings.append(f"{route.ref} takes prompts of {longest} characters: only the end of --prompt is sent")
        if request.speakers and not request.diarizes:
            warnings.append("--speaker has no effect without --diarize")
        if request.language and request.translates:
            warnings.append("--language has no effect with --translate")
        if request.streams and not self._streams(request, route):
            warnings.append(f"--stream has no effect with {route.ref}: it tells the text at the end")
        return (*warnings, *_misplaced_options(request.options, route))

    def speech_features(self, request: SpeechRequest, route: Route) -> tuple[str, ...]:
        return (f"format:{request.format}",)

    def transcription_features(self, request: TranscriptionRequest, route: Route) -> tuple[str, ...]:
        upload = f"upload:{request.recording.format}"
        if not self._is_detailed(request, route):
            return (upload,)
        return (*(("word",) if "word" in granularities(request, route) else ()), "verbose_json", upload)

    def speech(self, request: SpeechRequest, route: Route) -> WireRequest:
        voice = route.voice or self.usual_voice
        fields: dict[str, Json] = {
            "model": route.model,
            "input": request.text,
            # A voice of the user's own goes by its id, in an object (specification 2.3.0).
            "voice": {"id": voice} if voice and voice.startswith("voice_") else voice,
            "response_format": request.format,
        }
        if request.speed is not None:
            fields["speed"] = request.speed
        if request.instructions and self._takes_instructions(route):
            fields["instructions"] = request.instructions
        fields.update(_plain_options(request.options))
        return WireRequest("POST", join_url(route.base_url, "/audio/speech"), bearer(route), json_body(fields))

    def chat_uploads(self, route: Route) -> tuple[str, ...]:
        return self.traits(route).chat_uploads

    def chat_refusal(self, request: ChatRequest, route: Route) -> AudiocliError | None:
        if (request.recordings or request.format) and not self.chat_uploads(route):
            return UsageError(f"{route.gateway} has no models that hear or speak in a chat", hint=f"{TALKERS} do")
        return super().chat_refusal(request, route)

    def chat_bound(self, route: Route) -> str:
        # OpenAI's newer name for it, which not every compatible server knows.
        return "max_completion_tokens" if route.gateway == "openai" else "max_tokens"

    def transcription(self, request: TranscriptionRequest, route: Route) -> WireRequest:
        place = "/audio/translations" if request.translates else "/audio/transcriptions"
        options = _plain_options(request.options)
        usual = [*self._reply_form(request, route), *common_form(self._sendable(request, route))]
        form = [("model", route.model), *((name, value) for name, value in usual if name not in options)]
        for name, value in options.items():
            form += form_parts(name, value)
        return WireRequest("POST", join_url(route.base_url, place), bearer(route), recording_form(form, request))

    def transcript(self, body: bytes, headers: Mapping[str, str]) -> Transcript:
        from . import transcript_responses

        return transcript_responses.read(body, headers)

    def usage(self, headers: Mapping[str, str]) -> Usage:
        # A LiteLLM proxy tells the cost in a header (LiteLLM documentation, read 2026-10).
        told = headers.get("x-litellm-response-cost")
        return Usage(cost_nanousd=as_nanousd(told), nonsense=nonsense_in(told))

    def failure(self, status: int, headers: Mapping[str, str], body: bytes) -> AttemptError:
        return error_responses.failure(status, headers, body)

    def models_query(self, route: Route) -> WireRequest | None:
        return WireRequest("GET", join_url(route.base_url, "/models"), bearer(route))

    def models_reply(self, body: bytes, route: Route) -> tuple[ModelCard, ...] | None:
        """Read the list, which tells no prices, and what a model is for only by its name or its `task`."""
        listed = as_object(read_json(body)).get("data")
        if not isinstance(listed, list):
            return None
        cards = []
        for item in map(as_object, listed):
            name = as_text(item.get("id"))
            kind = _KIND_OF_TASK.get(as_text(item.get("task")) or "") or (name and model_names.kind_of_name(name))
            # A server of somebody's own has few models, and names that tell nothing.
            if not name or (not kind and route.gateway in TRAITS):
                continue
            named = route._replace(model=name)
            cards.append(
                ModelCard(
                    gateway=route.gateway,
                    model=name,
                    kind=kind or None,
                    voices=(self.voices(named) or ()) if kind == "speech" else (),
                    formats=self.speech_formats(named) if kind == "speech" else (),
                    ends=as_date(item.get("shutdown_date")) or self.ends(named),
                )
            )
        return tuple(cards)

    def voices(self, route: Route) -> tuple[str, ...] | None:
        return OPENAI_VOICES if route.gateway == "openai" else GROQ_VOICES.get(route.model)

    def voices_query(self, route: Route) -> WireRequest | None:
        # Only speaches is known to list its voices (its OpenAPI file, 2026-03); others answer 404, which says enough.
        return WireRequest("GET", join_url(route.base_url, "/audio/voices"), bearer(route))

    def voices_reply(self, body: bytes, route: Route) -> tuple[str, ...] | None:
        listed = as_list(as_object(read_json(body)).get("voices"))
        voice_names = (as_text(item) or as_text(as_object(item).get("name")) for item in listed)
        return tuple(name for name in voice_names if name) or None

    def ends(self, route: Route) -> date | None:
        return OPENAI_ENDS.get(route.model) if route.gateway == "openai" else None

    def _reply_form(self, request: TranscriptionRequest, route: Route) -> list[tuple[str, str]]:
        """What kind of reply is asked for; only what the model is not known to refuse."""
        if request.diarizes:
            # Without a strategy, recordings over 30 s are refused.
            form = [("response_format", "diarized_json"), ("chunking_strategy", "auto")]
            form += [("known_speaker_names[]", speaker.name) for speaker in request.speakers]
            form += [("known_speaker_references[]", speaker.clip) for speaker in request.speakers if speaker.clip]
        elif self._is_detailed(request, route):
            form = [("response_format", "verbose_json")]
            # Translations have segments, and no choice.
            wanted = () if request.translates else granularities(request, route)
            form += [("timestamp_granularities[]", name) for name in wanted]
        else:
            form = [("response_format", "json")]
        return [*form, ("stream", "true")] if self._streams(request, route) else form

    def _sendable(self, request: TranscriptionRequest, route: Route) -> TranscriptionRequest:
        """Leave out what would be refused; `transcription_warnings` has told it."""
        longest = self.traits(route).prompt_characters
        prompt = None if request.diarizes else request.prompt
        return request._replace(
            prompt=prompt[-longest:] if prompt and longest else prompt,
            language=None if request.translates else request.language,
        )

    def _takes_instructions(self, route: Route) -> bool:
        return self.traits(route).takes_instructions and not route.model.rpartition("/")[2].startswith("tts-1")

    def _translates(self, route: Route) -> bool:
        translators = self.traits(route).translators
        return translators is None or route.model in translators

    def gives_times(self, request: TranscriptionRequest, route: Route) -> bool:
        if request.diarizes:
            return request.timestamps is not Timestamps.WORD
        return model_names.gives_times(route.model) and "verbose_json" not in route.refused

    def _is_detailed(self, request: TranscriptionRequest, route: Route) -> bool:
        wanted = request.timestamps is not Timestamps.NONE or request.verbatim
        return wanted and not request.diarizes and self.gives_times(request, route)

    def _streams(self, request: TranscriptionRequest, route: Route) -> bool:
        able = self.traits(route).streams_text and route.model != "whisper-1" and not request.translates
        return request.streams and able and not self._is_detailed(request, route)


def _plain_options(options: Mapping[str, Json]) -> dict[str, Json]:
    return {name: value for name, value in options.items() if "." not in name}


def _misplaced_options(options: Mapping[str, Json], route: Route) -> tuple[str, ...]:
    return tuple(
        f"--option {name} has no effect with {route.gateway}, which takes plain KEY=VALUE"
        for name in options
        if "." in name
    )


DIALECT = OpenAI()
