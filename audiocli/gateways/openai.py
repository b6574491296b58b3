"""The OpenAI dialect: OpenAI itself, Groq, and every OpenAI-compatible server.

Source: OpenAI's published specification 2.3.0 (edition of 2026-08-21), Groq console documentation (read 2026-10).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from typing import NamedTuple

from ..audio import formats
from ..errors import AttemptError, AudiocliError, UsageError
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
from .base import Limits, as_date, as_list, as_nanousd, as_object, as_text, bearer, join_url, read_json
from .bodies import json_body, multipart_body

OPENAI_VOICES = (
    *("alloy", "ash", "ballad", "cedar", "coral", "echo", "fable"),
    *("marin", "nova", "onyx", "sage", "shimmer", "verse"),
)


class Traits(NamedTuple):
    """How one gateway of this dialect differs from the others."""

    speech_formats: tuple[str, ...] = ("mp3", "opus", "aac", "flac", "wav", "pcm")
    text_characters: int | None = None
    upload_formats: tuple[str, ...] = ("flac", "mp3", "mp4", "m4a", "ogg", "opus", "wav", "webm")
    upload_bytes: int | None = None
    # How the names of its models begin; empty: anything is possible.
    families: tuple[str, ...] = ()
    takes_instructions: bool = True


# Any server not named here is read as plain OpenAI-compatible, with no limits known.
TRAITS = {
    "openai": Traits(text_characters=4096, upload_bytes=26_214_400, families=("tts-", "gpt-", "whisper-1")),
    "groq": Traits(
        speech_formats=("wav", "flac", "mp3", "ogg"),
        upload_bytes=26_214_400,
        families=("whisper-large-v3", "distil-whisper", "canopylabs/", "playai-"),
        takes_instructions=False,
    ),
}
PLAIN = Traits()

# Models of Groq's speech endpoint take about 200 characters (read 2026-10; not in its specification).
ORPHEUS_CHARACTERS = 200


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


class OpenAI:
    """The dialect; what differs between gateways is in `TRAITS`."""

    is_free = False
    # The specification requires a voice. Compatible servers know OpenAI's names or map them to their own.
    usual_voice: str | None = "alloy"
    lists_in_public = False

    def plausible(self, route: Route) -> bool:
        families = _traits(route).families
        return not families or route.model.startswith(families)

    def limits(self, route: Route) -> Limits:
        traits = _traits(route)
        characters = ORPHEUS_CHARACTERS if "orpheus" in route.model and route.gateway == "groq" else None
        return Limits(text_characters=characters or traits.text_characters, upload_bytes=traits.upload_bytes)

    def speech_formats(self, route: Route) -> tuple[str, ...]:
        return _traits(route).speech_formats

    def upload_formats(self, route: Route) -> tuple[str, ...]:
        return _traits(route).upload_formats

    def speech_refusal(self, request: SpeechRequest, route: Route) -> AudiocliError | None:
        return None

    def transcription_refusal(self, request: TranscriptionRequest, route: Route) -> AudiocliError | None:
        if request.timestamps_required and not gives_times(route.model):
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
        if request.timestamps is not Timestamps.NONE and not gives_times(route.model):
            warnings.append(f"{route.ref} gives text without times")
        return (*warnings, *_misplaced_options(request.options, route))

    def speech(self, request: SpeechRequest, route: Route) -> WireRequest:
        fields: dict[str, Json] = {
            "model": route.model,
            "input": request.text,
            "voice": route.voice or self.usual_voice,
            "response_format": request.format,
        }
        if request.speed is not None:
            fields["speed"] = request.speed
        if request.instructions and self._takes_instructions(route):
            fields["instructions"] = request.instructions
        fields.update(_plain_options(request.options))
        return WireRequest("POST", join_url(route.base_url, "/audio/speech"), bearer(route), json_body(fields))

    def transcription(self, request: TranscriptionRequest, route: Route) -> WireRequest:
        detailed = (request.timestamps is not Timestamps.NONE or request.verbatim) and gives_times(route.model)
        form = [("model", route.model), ("response_format", "verbose_json" if detailed else "json")]
        form += [("timestamp_granularities[]", name) for name in granularities(request)] if detailed else []
        form += common_form(request)
        for name, value in _plain_options(request.options).items():
            form += form_parts(name, value)
        return WireRequest(
            "POST", join_url(route.base_url, "/audio/transcriptions"), bearer(route), recording_form(form, request)
        )

    def transcript(self, body: bytes, headers: Mapping[str, str]) -> Transcript:
        from . import transcripts

        return transcripts.read(body, headers)

    def usage(self, headers: Mapping[str, str]) -> Usage:
        # A LiteLLM proxy tells the cost in a header (LiteLLM documentation, read 2026-10).
        return Usage(cost_nanousd=as_nanousd(headers.get("x-litellm-response-cost")))

    def failure(self, status: int, headers: Mapping[str, str], body: bytes) -> AttemptError:
        return failures.failure(status, headers, body)

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
            kind = _KIND_OF_TASK.get(as_text(item.get("task")) or "") or (name and kind_of_name(name))
            if not name or not kind:
                continue
            ends = as_date(item.get("shutdown_date"))
            known = ends is None and route.gateway == "openai"
            cards.append(
                ModelCard(
                    gateway=route.gateway,
                    model=name,
                    kind=kind,
                    voices=(self.voices(route) or ()) if kind == "speech" else (),
                    formats=self.speech_formats(route) if kind == "speech" else (),
                    ends=OPENAI_ENDS.get(name) if known else ends,
                )
            )
        return tuple(cards)

    def voices(self, route: Route) -> tuple[str, ...] | None:
        return OPENAI_VOICES if route.gateway == "openai" else None

    def voices_query(self, route: Route) -> WireRequest | None:
        # Only speaches is known to list its voices (its OpenAPI file, 2026-03); others answer 404, which says enough.
        return WireRequest("GET", join_url(route.base_url, "/audio/voices"), bearer(route))

    def voices_reply(self, body: bytes, route: Route) -> tuple[str, ...] | None:
        listed = as_list(as_object(read_json(body)).get("voices"))
        names = (as_text(item) or as_text(as_object(item).get("name")) for item in listed)
        return tuple(name for name in names if name) or None

    def _takes_instructions(self, route: Route) -> bool:
        return _traits(route).takes_instructions and not route.model.rpartition("/")[2].startswith("tts-1")


def gives_times(model: str) -> bool:
    """Tell whether a model of this name answers `verbose_json`.

    OpenAI's specification: only whisper-1 does, gpt-4o-transcribe and gpt-transcribe do not. A model that nobody has
    heard of is asked: compatible servers mostly run some kind of whisper.
    """
    name = model.rpartition("/")[2]
    return not ("transcribe" in name and name.startswith(("gpt-", "chatgpt-")))


def kind_of_name(model: str) -> str | None:
    """Guess what a model is for from its name, which is all that an OpenAI-compatible list tells."""
    name = model.lower()
    if any(word in name for word in ("transcri", "whisper", "parakeet", "sensevoice", "-stt", "asr")):
        return "transcription"
    if any(word in name for word in ("tts", "orpheus", "kokoro", "piper", "cosyvoice", "speech")):
        return "speech"
    return "chat" if "audio" in name else None


def granularities(request: TranscriptionRequest) -> tuple[str, ...]:
    """Segments are asked for together with words: with `word` alone some gateways leave them out."""
    return ("word", "segment") if request.timestamps is Timestamps.WORD else ("segment",)


def common_form(request: TranscriptionRequest) -> list[tuple[str, str]]:
    """The optional parts of a transcription that every multipart gateway takes."""
    form = []
    if request.language:
        form.append(("language", code_of(request.language) or request.language))
    if request.prompt:
        form.append(("prompt", request.prompt))
    if request.temperature is not None:
        form.append(("temperature", form_text(request.temperature)))
    return form


def recording_form(form: Sequence[tuple[str, str]], request: TranscriptionRequest) -> Body:
    """Add the recording to a form, under a file name that tells its format and nothing else."""
    recording = request.recording
    upload = formats.named(recording.format)
    suffix, media_type = (upload.upload_suffix, upload.media_type) if upload else ("", "application/octet-stream")
    return multipart_body(
        form,
        path=recording.path,
        size_bytes=recording.size_bytes,
        file_name=f"audio{suffix}",
        media_type=media_type,
    )


def form_parts(name: str, value: Json) -> list[tuple[str, str]]:
    """Write a JSON value as form parts like OpenAI's own clients: `a[b]` for members, `a[]` for items, no null."""
    if value is None:
        return []
    if isinstance(value, dict):
        return [part for key, item in value.items() for part in form_parts(f"{name}[{key}]", item)]
    if isinstance(value, list):
        return [part for item in value for part in form_parts(name if name.endswith("[]") else f"{name}[]", item)]
    return [(name, form_text(value))]


def form_text(value: Json) -> str:
    """Write a scalar as the text of a form part; numbers as JSON writes them."""
    return value if isinstance(value, str) else json.dumps(value)


def _traits(route: Route) -> Traits:
    return TRAITS.get(route.gateway, PLAIN)


def _plain_options(options: Mapping[str, Json]) -> dict[str, Json]:
    return {name: value for name, value in options.items() if "." not in name}


def _misplaced_options(options: Mapping[str, Json], route: Route) -> tuple[str, ...]:
    return tuple(
        f"--option {name} has no effect with {route.gateway}, which takes plain KEY=VALUE"
        for name in options
        if "." in name
    )


DIALECT = OpenAI()
