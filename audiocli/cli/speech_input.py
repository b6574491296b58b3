"""The text of `speak` and the pieces it is spoken in; captions of what was said."""

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
    from ..types.values import Route, SpeechRequest

# Sound starts as soon as the first piece has some, so the first piece of a long text is short.
FIRST_CHARACTERS = 200
# Where nobody knows what a model takes, and the end of the text is not known either.
LIVE_CHARACTERS = 2000
SHORTEST_LIMIT = 20
MOST_JOBS = 64
LONGEST_PAUSE_MS = 60_000


class SplitOptions(NamedTuple):
    """How the user wants a text to be cut and joined; checked by `shape_of`."""

    max_characters: int | None
    pause_ms: float | None
    jobs: int
    captions: Path | None


class Script(NamedTuple):
    """What is to be spoken. `rest` is there when stdin goes on: then the pieces are made while it is read.

    Without pieces and rest the text is spoken as it is.
    """

    text: str
    pieces: tuple[Chunk, ...]
    rest: inputs.OpenText | None
    limit: int | None
    unit: Unit | None

    @property
    def is_long(self) -> bool:
        return self.rest is not None or len(self.pieces) > 1


def shape_of(max_characters: int | None, pause_ms: float | None, jobs: int, captions: str | None) -> SplitOptions:
    """Check the flags. Raises: UsageError."""
    if max_characters is not None and max_characters < SHORTEST_LIMIT:
        raise UsageError(f"--max-chars {max_characters}: {SHORTEST_LIMIT} or more")
    if pause_ms is not None and not 0 <= pause_ms <= LONGEST_PAUSE_MS:
        raise UsageError(f"--pause {pause_ms:g}: milliseconds, from 0 to {LONGEST_PAUSE_MS}")
    if not 1 <= jobs <= MOST_JOBS:
        raise UsageError(f"--jobs {jobs}: from 1 to {MOST_JOBS}")
    if captions is not None and Path(captions).suffix.lower() not in (".srt", ".vtt"):
        raise UsageError(f"--captions {captions}: the name ends in .srt or .vtt")
    return SplitOptions(max_characters, pause_ms, jobs, None if captions is None else Path(captions))


def script_of(
    request: SpeechRequest, rest: inputs.OpenText | None, routes: Sequence[Route], shape: SplitOptions, screen: Console
) -> Script:
    """Cut a text for the routes that may speak it. Raises: UsageError: it cannot be cut so small."""
    from ..core.text_limits import fits, limit_of

    limit, counted = limit_of(routes, shape.max_characters)
    is_over = not fits(request.text, limit, counted)
    if rest is None and not (is_over or shape.captions or shape.pause_ms):
        return Script(request.text, (), None, limit, None)
    # What cuts is loaded when something is cut: it takes 20 ms.
    from ..text.splitter import Ends, Unit, cut

    unit = Unit(counted)
    if rest is not None:
        return Script(request.text, (), rest, limit, unit)
    ends = Ends.SENTENCE if shape.captions else Ends.PARAGRAPH if shape.pause_ms else Ends.WHERE_FULL
    pieces = cut(request.text, limit, unit=unit, ends=ends, first_limit=FIRST_CHARACTERS if is_over else None)
    if any(piece.is_torn for piece in pieces):
        screen.warning(f"some of the text has no place to cut it within {limit:,} {unit.value}: it is cut inside words")
    return Script(request.text, pieces, None, limit, unit)


def kept_pieces(env: AppContext, script: Script, request: SpeechRequest, routes: Sequence[Route]) -> tuple[Chunk, ...]:
    """Name the pieces that a stopped run has left, over the first route that left any."""
    if not script.is_long:
        return ()
    from ..core.long_speech import kept_name
    from ..storage.paid_results import PaidResultStore

    stash = PaidResultStore(env.scratch_folder("speech"), ".wav")
    for route in routes:
        kept = tuple(piece for piece in script.pieces if stash.has(kept_name(request._replace(text=piece.text), route)))
        if kept:
            return kept
    return ()


def text_left(env: AppContext, script: Script, request: SpeechRequest, routes: Sequence[Route], *, resumes: bool) -> str:
    """Give what is still to be spoken, which is what will cost something."""
    kept = set(kept_pieces(env, script, request, routes)) if resumes else set()
    return "".join(piece.text for piece in script.pieces if piece not in kept) if kept else script.text


async def pieces_of(script: Script) -> AsyncIterator[Chunk]:
    """Give the pieces, those of an open stdin as soon as they are complete."""
    for piece in script.pieces:
        yield piece
    if script.rest is None:
        return
    from ..text.stream_splitter import StreamSplitter

    assert script.unit is not None
    cutter = StreamSplitter(script.limit or LIVE_CHARACTERS, unit=script.unit)
    for piece in cutter.feed(script.text):
        yield piece
    while (more := await script.rest.more()) is not None:
        for piece in cutter.feed(more):
            yield piece
    for piece in cutter.finish():
        yield piece


async def open_captions(env: AppContext, shape: SplitOptions) -> FileOutput | StreamOutput | None:
    """Open the file of the captions, before anything is sent. Raises: OutputError."""
    from ..outputs import open_target

    if shape.captions is None:
        return None
    return await open_target(shape.captions, rescue_folder=env.scratch_folder("kept"), binary=False)


async def write_captions(
    sink: FileOutput | StreamOutput, path: Path, spoken: Sequence[tuple[Chunk, float]], pause_ms: float
) -> None:
    """Write one cue for each sentence. Raises: OutputError."""
    from ..text.subtitle_formats import render
    from ..text.timing import timed
    from ..types.values import Transcript

    segments = timed(spoken, pause_s=pause_ms / 1000)
    text = " ".join(segment.text for segment in segments)
    told = Transcript(text, duration_s=segments[-1].end_s if segments else None, segments=segments)
    await sink.write(render(told, path.suffix.lower().removeprefix(".")).encode("utf-8", "replace"))
    await sink.commit()
