"""The interface of an engine that speaks and transcribes in place of the deterministic responses.

The caller implements it, because this package does not start processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, NamedTuple, Protocol

from ..types.transcripts import Transcript
from .field_validation import Refusal


class EngineError(Exception):
    """The engine cannot serve a request."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class EngineModel(NamedTuple):
    """A model of the engine. `kind` is speech or transcription."""

    name: str
    kind: str


class EngineSpeech(NamedTuple):
    """A text to speak. `voice` None is the default voice of the model."""

    text: str
    model: str
    voice: str | None
    speed: float
    format: str


class EngineTranscription(NamedTuple):
    """A recording to transcribe. `extension` is that of the uploaded file, without its dot."""

    file: IO[bytes]
    extension: str
    model: str
    language: str | None
    prompt: str | None
    temperature: float | None
    wants_words: bool
    translate: bool


class SpeechEngine(Protocol):
    """Speaks and transcribes. The methods block, and are called from several threads."""

    def list_models(self) -> list[EngineModel]: ...

    def find_model(self, name: str) -> EngineModel | None:
        """Return the model that a name stands for; None if there is none."""
        ...

    def speak(self, speech: EngineSpeech) -> Iterator[bytes]:
        """Return the encoded audio of a text, whose first block is ready. Raises: EngineError."""
        ...

    def transcribe(self, transcription: EngineTranscription) -> Transcript:
        """Return the transcript of a recording. Raises: EngineError."""
        ...
