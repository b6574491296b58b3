"""The text of `audiocli speak`: read it, prepare it and split it into chunks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..context import AppContext
from ..errors import UsageError
from ..text.document import Document, create_plain_document
from ..types.json import EMPTY_MAPPING
from .inputs import TextInput, TextReader, decode_input, is_stream_source, read_bytes, read_input

if TYPE_CHECKING:
    from ..console import Console
    from ..text.preparation import Preparation, TextStream
    from ..text.pronunciations import Pronunciations
    from ..text.readers import DocumentFormat
    from ..text.splitter import Chunk, Unit
    from ..types.routes import Route
    from .speak_options import SpeakOptions, TextOptions

# A short first chunk of a long text lets the audio start early.
FIRST_CHUNK_CHARACTERS = 200
# For text from an open pipe, if the limit of the model is unknown.
LIVE_CHUNK_CHARACTERS = 2000
# Length of the audio of --preview.
PREVIEW_S = 30.0
MAX_PRONUNCIATIONS_BYTES = 4 * 1024 * 1024
# A longer argument is not the name of a file.
MAX_NAME_CHARACTERS = 200


class SpeechSource(NamedTuple):
    """The text of a command, prepared for speech.

    With `reader`, the document holds only the beginning of stdin, which is not prepared yet.

    Attributes:
        format: Name of the reader, such as `markdown`.
        titles: Titles of all chapters that have text, also of those that `--chapters` leaves out.
        omitted: How many things of each kind were left out.
        replaced: How often each pronunciation was used.
        stream: With `reader`, prepares the text as it arrives, and has what was left out and replaced so far.
    """

    document: Document
    format: str
    preparation: Preparation
    reader: TextReader | None = None
    omitted: Mapping[str, int] = EMPTY_MAPPING
    replaced: Mapping[str, int] = EMPTY_MAPPING
    titles: tuple[str | None, ...] = ()
    stream: TextStream | None = None

    @property
    def text(self) -> str:
        return self.document.text


class SpeechText(NamedTuple):
    """Text to speak, and its chunks.

    Without chunks and `reader`, the text is sent in one request. With chunks, `text` is what they contain. With
    `reader`, `text` is only the beginning of stdin, not prepared yet, and chunks are made as the rest arrives.
    `stream` prepares it. `max_chunk_size` is in `unit`. `is_verified`: each chunk is verified, also if it is the only
    one.
    """

    text: str
    chunks: tuple[Chunk, ...]
    reader: TextReader | None
    max_chunk_size: int | None
    unit: Unit | None
    stream: TextStream | None = None
    is_verified: bool = False

    @property
    def is_long(self) -> bool:
        """Whether the text is sent in chunks: it needs, or may need, more than one request, or is verified."""
        is_split = self.reader is not None or len(self.chunks) > 1
        return is_split or self.is_verified or any(is_placed(chunk) for chunk in self.chunks)


def is_placed(chunk: Chunk) -> bool:
    """Return whether a chunk has its own voice or time."""
    return chunk.voice is not None or chunk.start_s is not None


def choose_text_format(options: SpeakOptions) -> DocumentFormat:
    """Return the format of the text: that of `--from`, else that of the extension of `-F`, else text.

    Raises:
        UsageError: The format is unknown or not supported, or contradicts another option.
    """
    from ..text import readers

    text = options.text_options
    if text.markdown and text.from_format not in (None, "markdown"):
        raise UsageError("--markdown cannot be used with --from")
    if text.markdown or text.from_format is not None:
        return readers.find_reader("markdown" if text.markdown else str(text.from_format))
    path = options.input_path
    found = None if path is None or text.raw or is_stream_source(str(path)) else readers.find_reader_for_path(str(path))
    return found or readers.find_reader("text")


def read_source(app: AppContext, console: Console, options: SpeakOptions) -> SpeechSource:
    """Read the text of a command and prepare it.

    Raises:
        UsageError: No text, two sources, or a source that cannot be read or is not of its format.
        DocumentError: The document is damaged or exceeds the safety limits.
    """
    format = choose_text_format(options)
    preparation = build_preparation(app, options)
    words = options.text or []
    must_wait = format.name != "text" or preparation.needs_complete_text
    text_input = read_input(app, words, options.input_file, wait_for_end=must_wait)
    _check_argument(console, words)
    if text_input.reader is not None:
        beginning = create_plain_document(decode_input(text_input))
        if "wrap" in preparation.steps:
            console.warning("--clean wrap has no effect on a pipe that is still open")
        stream = preparation.create_stream()
        return SpeechSource(beginning, format.name, preparation, text_input.reader, stream=stream)
    format, document = _parse_document(text_input, format, preparation, options.text_options)
    document = _number_chapters(document)
    titles = tuple(chapter.title for chapter in document.chapters)
    prepared = preparation.prepare(_select_chapters(document, options))
    for warning in (*document.warnings, *prepared.warnings):
        console.warning(warning)
    source = SpeechSource(
        document=prepared.document,
        format=format.name,
        preparation=preparation,
        omitted=Counter(document.omitted) + Counter(prepared.omitted),
        replaced=prepared.replaced,
        titles=titles,
    )
    from ..text.speech_rate import has_speakable_text

    if not has_speakable_text(source.text):
        raise UsageError("no text to speak", hint="pass it as an argument, with -F FILE or on stdin")
    return source


def _parse_document(
    text_input: TextInput, format: DocumentFormat, preparation: Preparation, options: TextOptions
) -> tuple[DocumentFormat, Document]:
    """Read a document. A document on stdin is recognized by its content."""
    from ..text import readers

    content, encoding = text_input.content, options.encoding
    if format.name == "text" and not text_input.is_argument and not options.raw and options.from_format is None:
        detected = readers.find_reader(readers.detect_format(content))
        # Markup without an extension may be what the user wants to hear.
        format = format if detected.is_text else detected
    if format.name == "text" and encoding is None:
        return format, create_plain_document(decode_input(text_input))
    if format.name == "markdown" and "think" in preparation.steps:
        # A block may contain paragraphs.
        from ..text.normalize import normalize_text

        normalized = normalize_text(decode_input(text_input), ("think",))
        document = readers.read_document(normalized.text.encode(), format.name, text_input.source)
        omitted = Counter(document.omitted) + Counter(normalized.omitted)
        return format, document._replace(omitted=omitted, warnings=(*document.warnings, *normalized.warnings))
    return format, readers.read_document(content, format.name, text_input.source, encoding=encoding)


def _check_argument(console: Console, words: Sequence[str]) -> None:
    """Check whether the only argument is the name of a file. Raises: UsageError: It is the name of a document."""
    if len(words) != 1 or words[0] == "-" or len(words[0]) >= MAX_NAME_CHARACTERS or not _is_file(words[0]):
        return
    from ..text import readers

    name = words[0]
    document_format = readers.find_reader_for_path(name)
    if document_format is not None and document_format.name != "text":
        raise UsageError(f"{name} is a file, not a text", hint=f"speak its content with: audiocli speak -F {name}")
    console.warning(f"speaking the words {name!r}; use -F {name} to speak the content of that file")


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False


def build_preparation(app: AppContext, options: SpeakOptions) -> Preparation:
    """Return how the text is prepared, by the options and the configuration. Raises: UsageError."""
    from ..text.preparation import Preparation

    text = options.text_options
    if text.raw and (text.clean or text.pronunciations or text.voices_for):
        raise UsageError("--raw cannot be used with --clean, --pronunciations or --voice-for")
    if text.raw:
        return Preparation(is_raw=True)
    steps: tuple[str, ...] = ()
    if text.clean is not None:
        from ..text.normalize import parse_steps

        steps = parse_steps(text.clean)
    return Preparation(
        steps=steps,
        pronunciations=_read_pronunciations(app, text.pronunciations),
        cast={**app.settings.cast, **_parse_cast(text.voices_for or ())},
    )


def _read_pronunciations(app: AppContext, path: str | None) -> Pronunciations | None:
    """Return the pronunciations of the configuration and of a file, which has precedence; None if there are none."""
    if path is None and not app.settings.pronunciations:
        return None
    from ..text.pronunciations import Pronunciations

    configured = Pronunciations.from_mapping(app.settings.pronunciations, "config.toml")
    if path is None:
        return configured
    return Pronunciations.parse_file(read_bytes(app, path, MAX_PRONUNCIATIONS_BYTES), path).merge(configured)


def _parse_cast(pairs: Sequence[str]) -> dict[str, str]:
    """Parse `NAME=VOICE` of `--voice-for`. Raises: UsageError."""
    cast = {}
    for pair in pairs:
        name, equals, voice = pair.partition("=")
        if not (equals and name.strip() and voice.strip()):
            raise UsageError(f"--voice-for {pair}: expected NAME=VOICE, such as Alice=nova")
        cast[name.strip()] = voice.strip()
    return cast


def _number_chapters(document: Document) -> Document:
    """Return the document with numbered chapters, without those that have nothing to speak, such as a cover page."""
    if len(document.chapters) < 2:
        return document
    from ..text.speech_rate import has_speakable_text

    speakable = [
        chapter
        for chapter in document.chapters
        if any(has_speakable_text(paragraph.text) for paragraph in chapter.paragraphs)
    ]
    numbered = (chapter._replace(number=number) for number, chapter in enumerate(speakable, 1))
    return document._replace(chapters=tuple(numbered))


def _select_chapters(document: Document, options: SpeakOptions) -> Document:
    """Return the document with the chapters of `--chapters`. Raises: UsageError: It has no such chapter."""
    if options.book.chapters is None:
        return document
    numbers = parse_numbers(options.book.chapters, len(document.chapters))
    return document._replace(chapters=tuple(document.chapters[number - 1] for number in numbers))


def parse_numbers(value: str, count: int) -> list[int]:
    """Parse a list such as `1,3-5,8-`. Raises: UsageError: It is not one, or a number is not from 1 to `count`."""
    numbers: list[int] = []
    for part in value.split(","):
        first, dash, last = (text.strip() for text in part.partition("-"))
        # Without a dash, there is a first number; with one, at least one of the two.
        is_range = bool(dash) and bool(first or last)
        if not all(re.fullmatch("[0-9]{1,9}", number) for number in (first, last) if number) or not (is_range or first):
            raise UsageError(f"--chapters {value}: expected numbers and ranges, such as 1,3-5")
        start = int(first or 1)
        end = int(last or count) if dash else start
        if not 1 <= start <= end <= count:
            plural = "chapter" if count == 1 else "chapters"
            raise UsageError(f"--chapters {part.strip()}: the document has {count} {plural}")
        numbers += range(start, end + 1)
    return sorted(set(numbers))


def split_source(
    source: SpeechSource,
    routes: Sequence[Route],
    options: SpeakOptions,
    console: Console,
    *,
    has_chapter_marks: bool = False,
    refused_chunks: Sequence[str] = (),
) -> SpeechText:
    """Split a text into chunks that every route accepts.

    The text stays in one chunk if it is within the limits and nothing needs boundaries: captions, pauses, voices,
    times or chapter marks. `refused_chunks` is an earlier split that was too long. The new chunks are shorter than the
    longest of these.

    Raises:
        UsageError: The text cannot be split into chunks of that length.
    """
    from ..core.speech import encode_text, find_text_limit, is_within_limit

    max_chunk_size, unit_name = find_text_limit(routes, options.max_characters)
    if refused_chunks:
        refused_size = max(len(text if unit_name == "characters" else encode_text(text)) for text in refused_chunks)
        # Text with more tokens than estimated is within the limit and was refused all the same.
        if max_chunk_size is None or max_chunk_size >= refused_size:
            max_chunk_size = max(refused_size // 2, 1)
    is_verified = options.verification.verify
    if is_verified:
        from ..core.speech_verification import MAX_CHUNK_CHARACTERS

        max_chunk_size = min(max_chunk_size or MAX_CHUNK_CHARACTERS, MAX_CHUNK_CHARACTERS)
    text = source.text
    is_too_long = not is_within_limit(text, max_chunk_size, unit_name)
    is_simple = not (options.captions_path or options.pause_ms or has_chapter_marks or source.document.needs_chunks)
    if source.reader is None and not is_too_long and is_simple and not is_verified:
        return SpeechText(text, (), None, max_chunk_size, None)
    # Imported only when needed: loading the splitter takes 20 ms.
    from ..text.document_chunks import split_document
    from ..text.splitter import BreakAt, Unit, drop_unspeakable_chunks

    unit = Unit(unit_name)
    if source.reader is not None:
        return SpeechText(text, (), source.reader, max_chunk_size, unit, source.stream, is_verified)
    if options.captions_path:
        break_at = BreakAt.SENTENCE
    elif options.pause_ms:
        break_at = BreakAt.PARAGRAPH
    else:
        break_at = BreakAt.MAX_SIZE
    chunks = drop_unspeakable_chunks(
        split_document(
            source.document,
            max_chunk_size,
            unit=unit,
            break_at=break_at,
            max_first_size=FIRST_CHUNK_CHARACTERS if is_too_long else None,
        )
    )
    if any(chunk.is_word_split for chunk in chunks):
        console.warning(
            f"parts of the text have no word boundary within {max_chunk_size:,} {unit.value}; splitting inside words"
        )
    if options.book.preview:
        chunks = _take_preview(chunks, options.speed)
    spoken_text = "".join(chunk.text for chunk in chunks)
    return SpeechText(spoken_text, chunks, None, max_chunk_size, unit, is_verified=is_verified)


def _take_preview(chunks: Sequence[Chunk], speed: float | None) -> tuple[Chunk, ...]:
    """Return the first chunks that take about `PREVIEW_S` to speak, so that the complete text can use them again."""
    from ..text.speech_rate import estimate_duration_s

    taken: list[Chunk] = []
    duration_s = 0.0
    for chunk in chunks:
        if taken and duration_s >= PREVIEW_S:
            break
        taken.append(chunk)
        duration_s += estimate_duration_s(chunk.text, speed)
    return tuple(taken)


async def iterate_chunks(speech_text: SpeechText, console: Console) -> AsyncIterator[Chunk]:
    """Yield the chunks. Those of an open pipe are yielded as soon as they are complete."""
    for chunk in speech_text.chunks:
        yield chunk
    if speech_text.reader is None:
        return
    from ..text.stream_splitter import StreamSplitter

    stream = speech_text.stream
    assert speech_text.unit is not None and stream is not None
    splitter = StreamSplitter(speech_text.max_chunk_size or LIVE_CHUNK_CHARACTERS, unit=speech_text.unit)
    for chunk in splitter.feed(stream.feed(speech_text.text)):
        yield chunk
    while (text := await speech_text.reader.read_more()) is not None:
        for chunk in splitter.feed(stream.feed(text)):
            yield chunk
    for chunk in (*splitter.feed(stream.finish()), *splitter.finish()):
        yield chunk
    for warning in stream.warnings:
        console.warning(warning)
