"""Check a caption file against the rules of captioning and of its format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .caption_file import CaptionCue, CaptionFile
from .line_breaking import CaptionLimits, has_visible_text, measure_width

# Checks in the order of the documentation. `--skip` names them.
CHECKS = {
    "encoding": "characters that are not text, or another encoding",
    "header": "the first line of WebVTT",
    "time": "times that are malformed, or an end before the start",
    "text": "text outside of a cue",
    "tag": "tags that the format does not have",
    "numbering": "numbers of SubRip that do not count from 1",
    "order": "cues that start before the previous one",
    "overlap": "cues that start before the previous one ends",
    "gap": "gaps that are too short to be seen",
    "empty": "cues without text",
    "duration": "cues that are too short or too long",
    "reading-speed": "text that is too much for its time",
    "line-length": "lines that are too long",
    "lines": "cues with too many lines",
}
# LRC has no ends: a line lasts until the next one.
_WITHOUT_ENDS = {"lrc": frozenset({"gap", "duration"})}


class CheckLimits(NamedTuple):
    """The limits of a check. `min_cue_s` and `min_gap_s` are in seconds; two frames at 24 per second are 83 ms."""

    caption: CaptionLimits = CaptionLimits()
    min_cue_s: float = 0.7
    min_gap_s: float = 0.083


DEFAULT_CHECK_LIMITS = CheckLimits()


class Finding(NamedTuple):
    """One problem of a file: the check that found it, the line, and the number of the cue; both from 1 or None."""

    check: str
    detail: str
    line: int | None
    cue: int | None = None


def check_captions(
    file: CaptionFile, limits: CheckLimits = DEFAULT_CHECK_LIMITS, *, skipped: Iterable[str] = ()
) -> list[Finding]:
    """Return what is wrong with a file, in the order of its lines."""
    ignored = frozenset(skipped) | _WITHOUT_ENDS.get(file.format, frozenset())
    numbers = {cue.line: number for number, cue in enumerate(file.cues, 1)}
    findings = [
        Finding(problem.check, problem.message, problem.line or None, numbers.get(problem.line))
        for problem in file.problems
    ]
    previous: CaptionCue | None = None
    for number, cue in enumerate(file.cues, 1):
        found = [*_check_order(cue, previous, limits), *_check_cue(cue, limits), *_check_number(cue, number)]
        findings += (Finding(check, detail, cue.line or None, number) for check, detail in found)
        previous = cue
    return sorted((item for item in findings if item.check not in ignored), key=lambda item: item.line or 0)


def _check_order(cue: CaptionCue, previous: CaptionCue | None, limits: CheckLimits) -> Iterator[tuple[str, str]]:
    if previous is None:
        return
    if cue.start_s < previous.start_s:
        yield "order", f"starts {_format_s(previous.start_s - cue.start_s)} before the previous cue"
        return
    gap_ms = round((cue.start_s - previous.end_s) * 1000)
    if gap_ms < 0:
        yield "overlap", f"starts {_format_s(-gap_ms / 1000)} before the previous cue ends"
    elif gap_ms < round(limits.min_gap_s * 1000):
        yield "gap", f"{gap_ms} ms after the previous cue, below {round(limits.min_gap_s * 1000)} ms"


def _check_cue(cue: CaptionCue, limits: CheckLimits) -> Iterator[tuple[str, str]]:
    caption = limits.caption
    duration_ms = round((cue.end_s - cue.start_s) * 1000)
    if duration_ms < 0:
        yield "time", "ends before it starts"
    elif duration_ms < round(limits.min_cue_s * 1000):
        yield "duration", f"lasts {_format_s(duration_ms / 1000)}, below {_format_s(limits.min_cue_s)}"
    elif duration_ms > round(caption.max_cue_s * 1000):
        yield "duration", f"lasts {_format_s(duration_ms / 1000)}, above {_format_s(caption.max_cue_s)}"
    if not has_visible_text(cue.text):
        yield "empty", "no text"
        return
    widths = [measure_width(line) for line in cue.text.split("\n")]
    if duration_ms > 0 and (cps := sum(widths) * 1000 / duration_ms) > caption.cps:
        yield "reading-speed", f"{cps:.1f} characters per second, above {caption.cps:g}"
    if max(widths) > caption.max_line_width:
        yield "line-length", f"{max(widths)} characters, above {caption.max_line_width}"
    if len(widths) > caption.max_lines:
        yield "lines", f"{len(widths)} lines, above {caption.max_lines}"


def _check_number(cue: CaptionCue, number: int) -> Iterator[tuple[str, str]]:
    if cue.native is not None and cue.native.format == "srt" and cue.native.name.strip() != str(number):
        name = cue.native.name.strip()
        yield "numbering", f"number {name[:20]}, expected {number}" if name else f"no number, expected {number}"


def _format_s(time_s: float) -> str:
    return f"{time_s:.3f}".rstrip("0").rstrip(".") + " s"
