"""Prepare a text for speech: clean it, leave out what was asked for, resolve voices, apply pronunciations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..types.json import EMPTY_MAPPING
from .cleaning import StreamCleaner, clean_text
from .document import Document, Paragraph

if TYPE_CHECKING:
    from .normalize import StreamNormalizer
    from .pronunciations import Pronunciations
    from .script import ScriptParser

# The language of a text that arrives in parts is identified by its beginning.
MAX_IDENTIFIED_CHARACTERS = 5_000


class PreparedDocument(NamedTuple):
    """A document whose paragraphs can be sent.

    Attributes:
        omitted: How many things of each kind were left out, such as `{"URL": 2}`.
        replaced: How often each pronunciation was used.
    """

    document: Document
    omitted: dict[str, int]
    replaced: dict[str, int]
    warnings: tuple[str, ...]


class TextStream(Protocol):
    """Prepares a text that arrives in parts. Each call returns what is complete."""

    def feed(self, text: str) -> str: ...
    def finish(self) -> str: ...

    @property
    def omitted(self) -> Mapping[str, int]:
        """How many things of each kind were left out so far."""
        ...

    @property
    def replaced(self) -> Mapping[str, int]:
        """How often each pronunciation was used so far."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know; complete after `finish`."""
        ...


class Preparation(NamedTuple):
    """How a text is prepared.

    Attributes:
        is_raw: Send the text as it is.
        steps: Steps of `normalize.CLEAN_STEPS`.
        cast: Voices by the names of the speakers of a script.
    """

    is_raw: bool = False
    steps: tuple[str, ...] = ()
    pronunciations: Pronunciations | None = None
    cast: Mapping[str, str] = EMPTY_MAPPING

    @property
    def needs_complete_text(self) -> bool:
        """Whether a text cannot be prepared while it arrives."""
        return bool(self.cast)

    def prepare(self, document: Document) -> PreparedDocument:
        """Prepare all paragraphs of a document. Paragraphs without text disappear, with their voice and time."""
        if self.is_raw:
            return PreparedDocument(document, {}, {}, ())
        language = document.language or _identify_language(document) if self.pronunciations is not None else None
        omitted: Counter[str] = Counter()
        replaced: Counter[str] = Counter()
        warnings: dict[str, None] = {}
        script = _Script(self.cast)
        chapters = []
        for chapter in document.chapters:
            paragraphs: list[Paragraph] = []
            for paragraph in chapter.paragraphs:
                text = clean_text(paragraph.text)
                if self.steps:
                    from .normalize import normalize_text

                    normalized = normalize_text(text, self.steps)
                    text = normalized.text
                    omitted.update(normalized.omitted)
                    warnings.update(dict.fromkeys(normalized.warnings))
                for part in script.assign_voices(paragraph._replace(text=text)):
                    spoken = part.text
                    if self.pronunciations is not None:
                        applied = self.pronunciations.apply(spoken, language)
                        spoken = applied.text
                        replaced.update(applied.counts)
                    paragraphs.append(part._replace(text=spoken))
            chapters.append(chapter._replace(paragraphs=tuple(paragraphs)))
        warnings.update(dict.fromkeys(script.list_warnings()))
        return PreparedDocument(
            document._replace(chapters=tuple(chapters)), dict(omitted), dict(replaced), tuple(warnings)
        )

    def create_stream(self) -> TextStream:
        """Return the preparation of a text that arrives in parts. Voices and the step `wrap` need the complete text."""
        return _PreparedStream(self)


class _Script:
    """Assign voices to the paragraphs of a document. Labels and directives disappear from the text."""

    def __init__(self, cast: Mapping[str, str]) -> None:
        self._cast = cast
        self._parser: ScriptParser | None = None
        # Speakers of captions who have no voice, as an ordered set.
        self._unknown_speakers: dict[str, None] = {}

    def assign_voices(self, paragraph: Paragraph) -> tuple[Paragraph, ...]:
        """Return the parts of a paragraph with their voices. A reader may have named the voice or speaker already."""
        if paragraph.voice is not None:
            return (paragraph._replace(voice=self._find_voice(paragraph)),)
        if self._parser is None:
            if not self._cast and "[" not in paragraph.text:
                return (paragraph,)
            from .script import ScriptParser

            self._parser = ScriptParser(self._cast)
        parts = self._parser.parse(paragraph.text)
        if not any(part.voice for part in parts) and _join_words(parts) == _join_words([paragraph]):
            return (paragraph,)
        # What follows the paragraph, such as a pause, follows its last part.
        return (
            *(part._replace(start_s=paragraph.start_s, end_s=paragraph.end_s) for part in parts[:-1]),
            *(paragraph._replace(text=part.text, voice=part.voice) for part in parts[-1:]),
        )

    def _find_voice(self, paragraph: Paragraph) -> str | None:
        """Return the voice of a paragraph whose reader has named it. Captions name speakers, not voices."""
        from .script import fold_name

        name = paragraph.voice or ""
        voices = {fold_name(speaker): voice for speaker, voice in self._cast.items()}
        voice = voices.get(fold_name(name))
        if voice is None and paragraph.start_s is not None:
            self._unknown_speakers[name] = None
            return None
        return voice or name

    def list_warnings(self) -> list[str]:
        """Return warnings about speakers who have no voice: those of captions, and labels that look like speakers."""
        labels = self._parser.unknown_speakers if self._parser is not None and self._cast else {}
        return [
            f"speakers without a voice: {', '.join(names)}; {consequence}; use --voice-for NAME=VOICE"
            for names, consequence in (
                (self._unknown_speakers, "they have the default voice"),
                (labels, "their names are spoken"),
            )
            if names
        ]


def _join_words(paragraphs: Sequence[Paragraph]) -> str:
    return "".join("".join(paragraph.text.split()) for paragraph in paragraphs)


class _PreparedStream:
    """Clean, normalize and pronounce a text that arrives in parts. Implements `TextStream`."""

    def __init__(self, preparation: Preparation) -> None:
        self._is_raw = preparation.is_raw
        self._cleaner = StreamCleaner()
        self._pronunciations = preparation.pronunciations
        self._normalizer: StreamNormalizer | None = None
        self._held = ""
        self._replaced: Counter[str] = Counter()
        self._beginning = ""
        self._language: str | None = None
        if preparation.steps:
            from .normalize import StreamNormalizer

            self._normalizer = StreamNormalizer(preparation.steps)

    def feed(self, text: str) -> str:
        if self._is_raw:
            return text
        return self._pronounce(self._normalize(self._cleaner.feed(text)), is_last=False)

    def finish(self) -> str:
        if self._is_raw:
            return ""
        text = self._normalize(self._cleaner.finish())
        if self._normalizer is not None:
            text += self._normalizer.finish()
        return self._pronounce(text, is_last=True)

    @property
    def omitted(self) -> Mapping[str, int]:
        return EMPTY_MAPPING if self._normalizer is None else self._normalizer.omitted

    @property
    def replaced(self) -> Mapping[str, int]:
        return self._replaced

    @property
    def warnings(self) -> tuple[str, ...]:
        return () if self._normalizer is None else self._normalizer.warnings

    def _normalize(self, text: str) -> str:
        return text if self._normalizer is None else self._normalizer.feed(text)

    def _pronounce(self, text: str, *, is_last: bool) -> str:
        """Replace words in complete lines. A rule may span words, but not lines."""
        if self._pronunciations is None:
            return text
        text = self._held + text
        end = len(text) if is_last else text.rfind("\n") + 1
        self._held = text[end:]
        applied = self._pronunciations.apply(text[:end], self._find_language(text[:end]))
        self._replaced.update(applied.counts)
        return applied.text

    def _find_language(self, text: str) -> str | None:
        """Return the language of the lines so far; None until there is enough text to identify it."""
        if self._language is None and text and len(self._beginning) < MAX_IDENTIFIED_CHARACTERS:
            from .language_guess import identify_language

            self._beginning += text
            self._language = identify_language(self._beginning)
        return self._language


def _identify_language(document: Document) -> str | None:
    from .language_guess import identify_language

    return identify_language(" ".join(paragraph.text for paragraph in document.paragraphs[:20]))
