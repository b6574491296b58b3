"""Write transcripts as txt, srt, vtt, tsv and json, and read them back.

SubRip has no way to escape: a text that its readers would take for a tag, an override code or an arrow gets a word
joiner (U+2060, invisible) inside, which `parse` takes out again. In WebVTT `&`, `<` and `>` become entities.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from html import unescape
from itertools import groupby

from ..errors import UsageError
from ..types.values import Json, Segment, Timing, Transcript, Word
from .cues import DEFAULT_SHAPE, Cue, cues, speaker_prefix, tidy
from .line_breaking import CaptionLimits, joined, one_line

_JOINER = "\u2060"
_MISREAD = re.compile(  # arrow, tag, override code; any joiners already there are counted in, so that nothing gets lost
    rf"--(?={_JOINER}*>)|<(?={_JOINER}*/?(?:b|i|u|s|font)\b)|\{{(?={_JOINER}*\\)", re.IGNORECASE
)
_DEFUSED = re.compile(
    rf"--{_JOINER}(?={_JOINER}*>)|<{_JOINER}(?={_JOINER}*/?(?:b|i|u|s|font)\b)|\{{{_JOINER}(?={_JOINER}*\\)",
    re.IGNORECASE,
)
_SRT_TAG = re.compile(r"</?(?:b|i|u|s|font)\b[^>]*>|\{\\[^}]*\}", re.IGNORECASE)
_VTT_TAG = re.compile(r"<[^>]*>")
_VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]*)>")
_CLOCK = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3}))?\d*"
_ARROW = re.compile(rf"\s*{_CLOCK}\s*-->\s*{_CLOCK}(?:\s.*)?")


def render(transcript: Transcript, format: str, *, shape: CaptionLimits = DEFAULT_SHAPE, by_word: bool = False) -> str:
    """Write a transcript as txt, srt, vtt, tsv or json: the whole file, ending in a line end unless it is empty.

    Raises: UsageError: no such format.
    """
    if format not in _WRITERS:
        raise UsageError(f"no transcript format {format!r}", hint=f"formats: {', '.join(_WRITERS)}")
    return _WRITERS[format](tidy(transcript), shape, by_word)


def document(transcript: Transcript) -> dict[str, Json]:
    """Make the JSON of a transcript, without the receipt around it: times in seconds, to the millisecond."""
    tidied = tidy(transcript)
    segments: list[Json] = [
        {"start_s": _ms(s.start_s), "end_s": _ms(s.end_s), "text": s.text, "speaker": s.speaker}
        for s in tidied.segments
    ]
    words: list[Json] = [
        {"start_s": _ms(w.start_s), "end_s": _ms(w.end_s), "word": w.word.strip()} for w in tidied.words
    ]
    return {
        "text": tidied.text,
        "language": tidied.language,
        "duration_s": None if tidied.duration_s is None else _ms(tidied.duration_s),
        "segments": segments,
        "words": words,
        "timing": tidied.timing.value,
    }


def _ms(time_s: float) -> float:
    return round(float(time_s), 3)


# --- writers ---------------------------------------------------------------------------------------------------------


def _txt(transcript: Transcript, shape: CaptionLimits, by_word: bool) -> str:
    """One line for every turn of a speaker; without speakers the text as it is."""
    if not any(segment.speaker for segment in transcript.segments):
        return f"{transcript.text}\n" if transcript.text else ""
    turns: list[str] = []
    for speaker, turn in groupby(transcript.segments, key=lambda segment: segment.speaker):
        text = joined([one_line(segment.text) for segment in turn])
        turns.append(f"{speaker}: {text}\n" if speaker else f"{text}\n")
    return "".join(turns)


def _srt(transcript: Transcript, shape: CaptionLimits, by_word: bool) -> str:
    blocks: list[str] = []
    speaker: str | None = None
    for number, cue in enumerate(cues(transcript, shape, by_word=by_word), 1):
        prefix = speaker_prefix(cue.speaker, shape) if cue.speaker != speaker else ""
        speaker = cue.speaker
        text = _MISREAD.sub(rf"\g<0>{_JOINER}", prefix + "\n".join(cue.lines))
        blocks.append(f"{number}\n{_clock(cue.start_s, ',')} --> {_clock(cue.end_s, ',')}\n{text}\n")
    return "\n".join(blocks)


def _vtt(transcript: Transcript, shape: CaptionLimits, by_word: bool) -> str:
    blocks = ["WEBVTT\n"]
    for cue in cues(transcript, shape, by_word=by_word):
        voice = f"<v {_escaped(cue.speaker)}>" if cue.speaker else ""
        text = voice + _escaped("\n".join(cue.lines))
        blocks.append(f"{_clock(cue.start_s, '.')} --> {_clock(cue.end_s, '.')}\n{text}\n")
    return "\n".join(blocks)


def _tsv(transcript: Transcript, shape: CaptionLimits, by_word: bool) -> str:
    """Rows as whisper writes them: segments; else words if they were asked for, else cues."""
    rows: Iterable[tuple[float, float, str]]
    if transcript.segments:
        rows = ((segment.start_s, segment.end_s, segment.text) for segment in transcript.segments)
    elif by_word and transcript.words:
        rows = ((word.start_s, word.end_s, word.word) for word in transcript.words)
    else:
        rows = ((cue.start_s, cue.end_s, joined(cue.lines)) for cue in cues(transcript, shape))
    lines = (f"{round(start * 1000)}\t{round(end * 1000)}\t{one_line(text)}\n" for start, end, text in rows)
    return "start\tend\ttext\n" + "".join(lines)


def _json(transcript: Transcript, shape: CaptionLimits, by_word: bool) -> str:
    return json.dumps(document(transcript), ensure_ascii=False, indent=2) + "\n"


_WRITERS: Mapping[str, Callable[[Transcript, CaptionLimits, bool], str]] = {
    "txt": _txt,
    "srt": _srt,
    "vtt": _vtt,
    "tsv": _tsv,
    "json": _json,
}


def _clock(time_s: float, mark: str) -> str:
    seconds, ms = divmod(round(time_s * 1000), 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{mark}{ms:03d}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# --- readers ---------------------------------------------------------------------------------------------------------


def parse(text: str, format: str) -> tuple[Cue, ...]:
    """Read captions back, forgiving what other programs write: srt, vtt, tsv, and json by way of `cues`.

    Tags are taken out; the first `<v NAME>` of a WebVTT cue is its speaker. In SubRip a `NAME: ` is text like any
    other. Cues stand as they are in the file: nothing is put in order. A cue without text is left out.

    Raises: UsageError (no such format), ValueError (not JSON).
    """
    if format not in ("srt", "vtt", "tsv", "json"):
        raise UsageError(f"no times can be read from {format!r}", hint="formats: srt, vtt, tsv, json")
    if format == "json":
        return cues(read_json(text))
    lines = re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff"))
    return tuple(_read_tsv(lines) if format == "tsv" else _read_cues(lines, is_vtt=format == "vtt"))


def _read_cues(lines: list[str], *, is_vtt: bool) -> Iterator[Cue]:
    """Take what stands between two arrows; headers, NOTE, STYLE and REGION have none and fall away."""
    arrows = [(place, match) for place, line in enumerate(lines) if "-->" in line and (match := _ARROW.fullmatch(line))]
    ends = [*(place for place, _ in arrows[1:]), len(lines)]
    for (place, arrow), end in zip(arrows, ends, strict=False):
        body = [line.strip() for line in lines[place + 1 : end]]
        speaker: str | None = None
        if is_vtt:
            text = "\n".join(body[: body.index("")] if "" in body else body)
            voice = _VOICE.search(text)
            speaker = one_line(unescape(voice.group(1))) or None if voice else None
            text = unescape(_VTT_TAG.sub("", text))
        else:
            if body and end < len(lines) and body[-1].isdecimal():
                body.pop()  # the number of the next cue
            text = _DEFUSED.sub(lambda found: found.group()[:-1], _SRT_TAG.sub("", "\n".join(body)))
        shown = tuple(line for line in map(one_line, text.split("\n")) if line)
        if shown:
            yield Cue(_time_s(arrow.groups()[:4]), _time_s(arrow.groups()[4:]), shown, speaker)


def _time_s(clock: Sequence[str | None]) -> float:
    hours, minutes, seconds, fraction = (part or "0" for part in clock)
    return (int(hours) * 3_600_000 + int(minutes) * 60_000 + int(seconds) * 1000 + int(fraction.ljust(3, "0"))) / 1000


def _read_tsv(lines: list[str]) -> Iterator[Cue]:
    for line in lines:
        start, _, rest = line.partition("\t")
        end, _, text = rest.partition("\t")
        if start.strip().isdecimal() and end.strip().isdecimal() and one_line(text):
            yield Cue(int(start) / 1000, int(end) / 1000, (one_line(text),))


def read_json(text: str) -> Transcript:
    """Read a transcript from our own JSON, or from what gateways call `verbose_json`; what is missing stays unknown.

    Raises: ValueError: not a JSON object.
    """
    told: Json = json.loads(text.removeprefix("\ufeff"))
    if not isinstance(told, dict):
        raise ValueError("not a JSON object")
    return read_document(told)


def read_document(told: Mapping[str, Json]) -> Transcript:
    """Read a transcript from JSON that was parsed already; nothing is raised."""
    segments = _objects(told.get("segments"))
    words = _objects(told.get("words")) or [word for segment in segments for word in _objects(segment.get("words"))]
    duration_s = _seconds(told, "duration")
    return tidy(
        Transcript(
            text=_string(told.get("text")) or "",
            language=_string(told.get("language")),
            duration_s=duration_s,
            segments=tuple(
                Segment(*_span(item), _string(item.get("text")) or "", _string(item.get("speaker")))
                for item in segments
            ),
            words=tuple(
                Word(*_span(item), _string(item.get("word")) or _string(item.get("text")) or "") for item in words
            ),
            by_piece=told.get("timing") == Timing.PIECE.value,
        )
    )


def _span(item: Mapping[str, Json]) -> tuple[float, float]:
    return _seconds(item, "start"), _seconds(item, "end")


def _objects(value: Json) -> list[dict[str, Json]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _string(value: Json) -> str | None:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _seconds(item: Mapping[str, Json], name: str) -> float:
    value = item.get(f"{name}_s", item.get(name))
    if not isinstance(value, str | int | float):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan
