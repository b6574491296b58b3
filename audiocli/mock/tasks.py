"""An accepted request: what the gateway has to produce, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .audio_synthesis import MIN_CHARACTERS, SECONDS_PER_CHARACTER
from .faults import ChatFault
from .field_validation import Field
from .model_fixtures import Model
from .request_parsing import Blob
from .transcripts import MockTranscript


@dataclass(frozen=True, slots=True)
class ChatDialect:
    """How the chat completions of one gateway differ.

    `audio_formats`: accepted formats of recordings. `audio_requires_stream`: audio output needs `stream: true`.
    `always_send_usage`: the chunk with the usage also has a choice, and is sent without `include_usage`.
    """

    fields: Mapping[str, Field]
    audio_formats: tuple[str, ...] = ("wav", "mp3")
    audio_requires_stream: bool = False
    always_send_usage: bool = False
    report_cost: bool = False
    send_comments: bool = False


@dataclass(frozen=True, slots=True)
class ChatTask:
    """The chat part of a task. `recordings`: (declared format, detected format, seconds) of each recording."""

    dialect: ChatDialect
    wants_audio: bool = False
    audio_format: str = "wav"
    voice: str | None = None
    send_usage: bool = False
    recordings: tuple[tuple[str, str, float], ...] = ()
    characters: int = 0
    fault: ChatFault = field(default_factory=ChatFault)

    def count_tokens(self, reply: str) -> dict[str, int]:
        """Count tokens: one for 4 characters of text, 0.1 s of input audio, or 0.05 s of output audio."""
        output_s = SECONDS_PER_CHARACTER * max(MIN_CHARACTERS, len(reply)) if self.wants_audio else 0.0
        return {
            "text_in": self.characters // 4 + 3,
            "audio_in": round(10 * sum(seconds for _, _, seconds in self.recordings)),
            "text_out": len(reply) // 4 + 1,
            "audio_out": round(20 * output_s),
        }


@dataclass(frozen=True, slots=True)
class Task:
    """An accepted request. `kind` is speech, transcription, translation or chat.

    `speakers` are the speaker names that the client sent. `is_substituted`: the gateway uses another model than the
    requested one. `diarize`: label each word with its speaker. `fields` and `recording` are the accepted fields and the
    upload, for a dialect with an engine.
    """

    kind: str
    model: Model
    text: str = ""
    format: str = "json"
    speed: float = 1.0
    sample_rate_hz: int = 24_000
    stream: bool = False
    duration_s: float = 0.0
    audio_format: str | None = None
    granularities: tuple[str, ...] = ()
    speakers: tuple[str, ...] = ()
    logprobs: bool = False
    diarize: bool = False
    transcript: MockTranscript = field(default_factory=MockTranscript)
    provider: str | None = None
    is_substituted: bool = False
    chat: ChatTask | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    recording: Blob | None = None

    @property
    def cost_nanousd(self) -> int:
        if self.kind == "speech":
            return self.model.price_speech(self.text)
        if self.chat is not None:
            return self.model.price_chat(self.chat.count_tokens(self.text))
        return self.model.price_transcription(self.duration_s, self.transcript.text)
