"""Write a copy of a video that contains the captions of its transcript (`--embed-captions`)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ..errors import RecordingError, UsageError
from ..text.iso_639 import convert_to_bibliographic, convert_to_iso_639_2
from ..text.subtitle_formats import escape_srt, list_plain_cues
from ..text.transcript_formats import correct
from ..text.transcript_style import TranscriptStyle
from ..threads import run_in_thread
from ..types.audio import Recording
from ..types.transcripts import Transcript

if TYPE_CHECKING:
    from ..codecs.embed_captions import VideoContainer


def check_video(recording: Recording, name: str) -> None:
    """Check, before anything is sent, that a recording has video. Raises: UsageError."""
    if not recording.has_video:
        raise UsageError(f"--embed-captions: {name} has no video", hint="use -f srt for a file of captions")


async def write_captioned_video(
    source: Path, file: BinaryIO, path: Path, transcript: Transcript, style: TranscriptStyle
) -> None:
    """Write the copy to an open file. `path` is its name.

    Raises:
        RecordingError: The video cannot be read.
        OutputError: The container cannot hold a track of the video.
    """
    from ..codecs.embed_captions import EmbeddedCue, embed_captions

    container = _choose_container(path)
    cues = [
        EmbeddedCue(start_s, end_s, text if container.codec == "mov_text" else escape_srt(text))
        for start_s, end_s, text in list_plain_cues(correct(transcript, style), style.limits, by_word=style.by_word)
    ]
    language = convert_to_iso_639_2(transcript.language) if transcript.language else None
    if language is not None and container.needs_bibliographic_code:
        language = convert_to_bibliographic(language)
    steps = embed_captions(source, file, container, cues, language=language)
    try:
        while await run_in_thread(partial(next, steps, None)) is not None:
            continue
    except OSError as error:
        raise RecordingError(f"cannot copy {source}: {error.strerror or error}") from error
    finally:
        steps.close()


def _choose_container(path: Path) -> VideoContainer:
    from ..codecs.embed_captions import MATROSKA, MOV, MP4

    return {".mp4": MP4, ".mov": MOV}.get(path.suffix.lower(), MATROSKA)
