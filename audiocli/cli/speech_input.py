"""Input text of `speak`: splitting into chunks, cached chunks and captions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..context import AppContext
from ..errors import UsageError
from . import inputs

if TYPE_CHECKING:
    from ..console import Console
    from ..outputs import FileOutput, StreamOutput
    from ..text.splitter import Chunk, Unit
    from ..types.requests import SpeechRequest
    from ..types.routes import Route

# A short first chunk of a long text lets the audio start early.
FIRST_CHUNK_CHARACTERS = 200
# For text from an open pipe, if the limit of the model is unknown.
LIVE_CHUNK_CHARACTERS = 2000
MIN_CHUNK_CHARACTERS = 20
MAX_CONCURRENCY = 64
MAX_PAUSE_MS = 60_000


class SplitOptions(NamedTuple):
    """Validated values of `--max-chars`, `--pause`, `--jobs` and `--captions`."""

    max_characters: int | None
    pause_ms: float | None
    concurrency: int
    captions_path: Path | None


class SpeechText(NamedTuple):
    """Text to speak, and its chunks.

    Without chunks and `reader`, the text is sent in one request. With `reader`, `text` is only the beginning of stdin
    and chunks are made as the rest arrives. `max_chunk_size` is in `unit`.
    """

    text: str
    chunks: tuple[Chunk, ...]
    reader: inputs.TextReader | None
    max_chunk_size: int | None
    unit: Unit | None

    @property
    def is_long(self) -> bool:
        """Whether the text needs, or may need, more than one request."""
        return self.reader is not None or len(self.chunks) > 1


def parse_split_options(
    max_characters: int | None, pause_ms: float | None, concurrency: int, captions: str | None
) -> SplitOptions:
    """Validate the options. Raises: UsageError."""
    if max_characters is not None and max_characters < MIN_CHUNK_CHARACTERS:
        raise UsageError(f"--max-chars {max_characters}: must be at least {MIN_CHUNK_CHARACTERS}")
    if pause_ms is not None and not 0 <= pause_ms <= MAX_PAUSE_MS:
        raise UsageError(f"--pause {pause_ms:g}: must be between 0 and {MAX_PAUSE_MS} ms")
    if not 1 <= concurrency <= MAX_CONCURRENCY:
        raise UsageError(f"--jobs {concurrency}: must be between 1 and {MAX_CONCURRENCY}")
    if captions is not None and Path(captions).suffix.lower() not in (".srt", ".vtt"):
        raise UsageError(f"--captions {captions}: the extension must be .srt or .vtt")
    return SplitOptions(max_characters, pause_ms, concurrency, None if captions is None else Path(captions))


def split_input_text(
    request: SpeechRequest,
    reader: inputs.TextReader | None,
    routes: Sequence[Route],
    split_options: SplitOptions,
    console: Console,
) -> SpeechText:
    """Split a text into chunks that every route accepts.

    The text stays in one chunk if it is within the limits and neither captions nor pauses need boundaries.

    Raises:
        UsageError: The text cannot be split into chunks of that length.
    """
    from ..core.text_limits import find_text_limit, is_within_limit

    max_chunk_size, unit_name = find_text_limit(routes, split_options.max_characters)
    is_too_long = not is_within_limit(request.text, max_chunk_size, unit_name)
    if reader is None and not (is_too_long or split_options.captions_path or split_options.pause_ms):
        return SpeechText(request.text, (), None, max_chunk_size, None)
    # Imported only when needed: loading the splitter takes 20 ms.
    from ..text.splitter import BreakAt, Unit, split_text

    unit = Unit(unit_name)
    if reader is not None:
        return SpeechText(request.text, (), reader, max_chunk_size, unit)
    if split_options.captions_path:
        break_at = BreakAt.SENTENCE
    elif split_options.pause_ms:
        break_at = BreakAt.PARAGRAPH
    else:
        break_at = BreakAt.MAX_SIZE
    chunks = split_text(
        request.text,
        max_chunk_size,
        unit=unit,
        break_at=break_at,
        max_first_size=FIRST_CHUNK_CHARACTERS if is_too_long else None,
    )
    if any(chunk.is_word_split for chunk in chunks):
        console.warning(
            f"parts of the text have no word boundary within {max_chunk_size:,} {unit.value}; splitting inside words"
        )
    return SpeechText(request.text, chunks, None, max_chunk_size, unit)


def find_cached_chunks(
    app: AppContext, speech_text: SpeechText, request: SpeechRequest, routes: Sequence[Route]
) -> tuple[Chunk, ...]:
    """Return the chunks that an unfinished run has cached, for the first route that has any."""
    if not speech_text.is_long:
        return ()
    from ..core.long_speech import compute_chunk_name
    from ..storage.paid_results import PaidResultStore

    store = PaidResultStore(app.scratch_directory("speech"), ".wav")
    for route in routes:
        cached_chunks = tuple(
            chunk
            for chunk in speech_text.chunks
            if store.has(compute_chunk_name(request._replace(text=chunk.text), route))
        )
        if cached_chunks:
            return cached_chunks
    return ()


def find_remaining_text(
    app: AppContext, speech_text: SpeechText, request: SpeechRequest, routes: Sequence[Route], *, resume: bool
) -> str:
    """Return the text that is not cached yet, which is the text that will cost something."""
    cached_chunks = set(find_cached_chunks(app, speech_text, request, routes)) if resume else set()
    if not cached_chunks:
        return speech_text.text
    return "".join(chunk.text for chunk in speech_text.chunks if chunk not in cached_chunks)


async def iterate_chunks(speech_text: SpeechText) -> AsyncIterator[Chunk]:
    """Yield the chunks. Those of an open pipe are yielded as soon as they are complete."""
    for chunk in speech_text.chunks:
        yield chunk
    if speech_text.reader is None:
        return
    from ..text.stream_splitter import StreamSplitter

    assert speech_text.unit is not None
    splitter = StreamSplitter(speech_text.max_chunk_size or LIVE_CHUNK_CHARACTERS, unit=speech_text.unit)
    for chunk in splitter.feed(speech_text.text):
        yield chunk
    while (text := await speech_text.reader.read_more()) is not None:
        for chunk in splitter.feed(text):
            yield chunk
    for chunk in splitter.finish():
        yield chunk


async def open_captions(app: AppContext, split_options: SplitOptions) -> FileOutput | StreamOutput | None:
    """Open the captions file before a request is sent. Raises: OutputError."""
    from ..outputs import open_output

    if split_options.captions_path is None:
        return None
    return await open_output(split_options.captions_path, rescue_directory=app.scratch_directory("kept"), binary=False)


async def write_captions(
    output: FileOutput | StreamOutput, path: Path, chunk_durations: Sequence[tuple[Chunk, float]], pause_ms: float
) -> None:
    """Write one cue for each sentence, from the chunks and their durations in seconds. Raises: OutputError."""
    from ..text.subtitle_formats import render
    from ..text.timing import time_sentences
    from ..types.transcripts import Transcript

    segments = time_sentences(chunk_durations, pause_s=pause_ms / 1000)
    text = " ".join(segment.text for segment in segments)
    transcript = Transcript(text, duration_s=segments[-1].end_s if segments else None, segments=segments)
    await output.write(render(transcript, path.suffix.lower().removeprefix(".")).encode("utf-8", "replace"))
    await output.commit()
