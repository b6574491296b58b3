"""How transcripts are written, besides their format."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from ..errors import UsageError, suggest
from .cues import DEFAULT_CAPTION_LIMITS
from .format_names import CAPTION_FORMATS, MARKED_FORMATS, PARTS, PARTS_FORMATS
from .line_breaking import CaptionLimits

if TYPE_CHECKING:
    from .corrections import Corrections
    from .guard import Suspicion


class MediaSource(NamedTuple):
    """The recording that a page plays. `url` is relative to the page, or a data URL."""

    url: str
    is_video: bool = False


class TranscriptStyle(NamedTuple):
    """How the transcripts of a run are written.

    Attributes:
        by_word: Words determine the cues of captions.
        parts: What txt and md have besides the words, of `PARTS`; None is what the format has without an option.
        corrections: Applied to every format, except the unchanged response of the gateway.
        use_guard: Whether to report and mark what `guard` finds.
        embed_media: Whether a page contains its recording.
    """

    limits: CaptionLimits = DEFAULT_CAPTION_LIMITS
    by_word: bool = False
    parts: tuple[str, ...] | None = None
    corrections: Corrections | None = None
    use_guard: bool = True
    embed_media: bool = False

    def list_fingerprint_inputs(self, format: str) -> list[object]:
        """Return what decides the content of a format beyond the options of version 0.1; [] if they have no effect."""
        inputs: list[object] = []
        if format in CAPTION_FORMATS and self.limits.words_per_cue is not None:
            inputs.append(["words_per_cue", self.limits.words_per_cue])
        if format in PARTS_FORMATS and self.parts is not None:
            inputs.append(["parts", *self.parts])
        if format != "verbose_json" and self.corrections:
            inputs.append(["corrections", hashlib.sha256(self.corrections.describe().encode()).hexdigest()])
        if format in MARKED_FORMATS and not self.use_guard:
            inputs.append("unmarked")
        return inputs


class TranscriptPage(NamedTuple):
    """What a document shows besides the transcript.

    Attributes:
        title: Name of the recording.
        media: The recording, for a page that plays it.
        suspicions: Passages that the model may have made up.
        notes: What a reader must know, for example that the transcript is partial.
    """

    title: str = ""
    media: MediaSource | None = None
    suspicions: tuple[Suspicion, ...] = ()
    notes: tuple[str, ...] = ()


def parse_parts(value: str | None) -> tuple[str, ...] | None:
    """Parse the value of `--with`. Raises: UsageError: It names something else."""
    if value is None:
        return None
    names = {name.strip().lower() for name in value.split(",") if name.strip()}
    for name in sorted(names):
        if name not in PARTS:
            raise UsageError(f"--with {name}: must be of {', '.join(PARTS)}{suggest(name, PARTS)}")
    return tuple(name for name in PARTS if name in names)
