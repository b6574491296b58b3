"""What output files show besides the transcript: the recording, suspicious passages and notes."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from ..audio import formats
from ..errors import RecordingError, UsageError
from ..text.format_names import DOCUMENT_FORMATS
from ..text.guard import Evidence, Suspicion, find_suspicions
from ..text.transcript_style import MediaSource, TranscriptPage, TranscriptStyle
from ..types.json import Json
from ..types.results import TranscriptionResult

# A data URL has a third more. Browsers take seconds for larger pages.
MAX_EMBEDDED_BYTES = 20 * 1024 * 1024
# Types that browsers know. The table of audio formats has the others.
_VIDEO_TYPES = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/mp4",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".ogv": "video/ogg",
}


def find_result_suspicions(result: TranscriptionResult, style: TranscriptStyle) -> tuple[Suspicion, ...]:
    """Return the passages that the model may have made up; none without the guard."""
    if not style.use_guard:
        return ()
    return find_suspicions(result.transcript, Evidence(result.silences_s, result.speechless_s))


def build_quality_document(suspicions: Sequence[Suspicion]) -> dict[str, Json]:
    """Return the field of a JSON result for suspicious passages; none if there are none."""
    findings: list[Json] = [
        {
            "kind": suspicion.kind,
            "start_s": None if suspicion.start_s is None else round(suspicion.start_s, 3),
            "end_s": None if suspicion.end_s is None else round(suspicion.end_s, 3),
            "text": suspicion.text,
            **({} if suspicion.repeats is None else {"repeats": suspicion.repeats}),
        }
        for suspicion in suspicions
    ]
    return {"quality": {"findings": findings}} if findings else {}


def build_page(
    result: TranscriptionResult, suspicions: Sequence[Suspicion], media: MediaSource | None, title: str
) -> TranscriptPage:
    """Return what a document shows besides the transcript."""
    notes = (result.partial_reason,) if result.is_partial and result.partial_reason else ()
    return TranscriptPage(title, media, tuple(suspicions), notes)


def list_page_inputs(format: str, source: Path | None, path: Path | None, style: TranscriptStyle) -> list[object]:
    """Return what decides the content of a document besides its transcript and style, for the settings fingerprint."""
    if format not in DOCUMENT_FORMATS:
        return []
    inputs: list[object] = [["title", get_title(source)]]
    if format == "html" and source is not None:
        media = link_media(source, path)
        inputs.append(["media", "embedded" if style.embed_media or media is None else media.url])
    return inputs


def get_title(source: Path | None) -> str:
    """Return the title of a document; "" for a recording without a file name, such as stdin."""
    return "" if source is None else source.name


def choose_media(format: str, source: Path | None, path: Path | None, style: TranscriptStyle) -> MediaSource | None:
    """Return the recording for a page; None for other formats, and without a file.

    Raises:
        UsageError: It is too large to be embedded.
        RecordingError: It cannot be read.
    """
    if format != "html" or source is None:
        return None
    return embed_media(source) if style.embed_media else link_media(source, path)


def link_media(source: Path | None, page_path: Path | None) -> MediaSource | None:
    """Return the recording for a page that is written to `page_path`, or relative to the working directory.

    None without a file.
    """
    if source is None:
        return None
    directory = page_path.parent if page_path is not None else Path()
    target = os.path.abspath(source)  # noqa: PTH100 - keeps symlinks
    try:
        url = quote(os.path.relpath(target, directory).replace(os.sep, "/"), errors="surrogateescape")
    except ValueError:  # another drive (Windows)
        url = Path(target).as_uri()
    return MediaSource(url, source.suffix.lower() in _VIDEO_TYPES)


def embed_media(source: Path) -> MediaSource:
    """Return a recording as a data URL.

    Raises:
        UsageError: It is too large.
        RecordingError: It cannot be read.
    """
    check_embedded_size(source)
    suffix = source.suffix.lower()
    format = formats.find_format_for_path(source)
    media_type = _VIDEO_TYPES.get(suffix) or (format.media_type if format is not None else "audio/mpeg")
    try:
        content = source.read_bytes()
    except OSError as error:
        raise RecordingError(f"cannot read {source}: {error.strerror}") from error
    return MediaSource(f"data:{media_type};base64,{base64.b64encode(content).decode()}", suffix in _VIDEO_TYPES)


def check_embedded_size(source: Path) -> None:
    """Check that a recording may be embedded, before it is sent.

    Raises:
        UsageError: It is too large.
        RecordingError: It cannot be read.
    """
    try:
        size_bytes = source.stat().st_size
    except OSError as error:
        raise RecordingError(f"cannot read {source}: {error.strerror}") from error
    if size_bytes > MAX_EMBEDDED_BYTES:
        raise UsageError(
            f"{source} has {size_bytes:,} bytes; --embed-media takes at most {MAX_EMBEDDED_BYTES:,}",
            hint="without --embed-media, the page plays the file by its path",
        )
