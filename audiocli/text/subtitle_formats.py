"""Write transcripts as txt, srt, vtt, ass, lrc, tsv, csv and json, and parse the json.

SubRip has no escapes. Text that readers would parse as a tag, an override code, an escape of ASS or an arrow gets an
invisible word joiner (U+2060) inside. FFmpeg, and the players that use it, drop every tag, also an unknown one such as
`<inaudible>`, and convert SubRip to ASS, where a backslash and N are a line end (FFmpeg 5.1). In WebVTT `&`, `<` and
`>` become entities.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby

from ..errors import UsageError
from ..types.json import Json
from ..types.transcripts import Entity, Segment, Timing, Transcript, Word
from .cues import DEFAULT_CAPTION_LIMITS, build_cues, format_speaker_prefix, normalize_transcript
from .line_breaking import CaptionLimits, collapse_whitespace, join_words

# Also the full-width forms, which spreadsheets take for the same.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_WORD_JOINER = "\u2060"
# Joiners that the text already contains are part of the match, so that they are kept.
_UNSAFE_SRT = re.compile(
    rf"--(?={_WORD_JOINER}*>)|[<{{](?={_WORD_JOINER}*[^\s{_WORD_JOINER}])|\\(?={_WORD_JOINER}*[Nnh])"
)


def render(
    transcript: Transcript, format: str, *, limits: CaptionLimits = DEFAULT_CAPTION_LIMITS, by_word: bool = False
) -> str:
    """Return the file content of a transcript in a format of `_WRITERS`. It ends with a newline unless it is empty.

    Raises:
        UsageError: The format is unknown.
    """
    if format not in _WRITERS:
        raise UsageError(f"unknown transcript format {format!r}", hint=f"formats: {', '.join(_WRITERS)}")
    return _WRITERS[format](normalize_transcript(transcript), limits, by_word)


def build_document(transcript: Transcript) -> dict[str, Json]:
    """Build the JSON object of a transcript. Times are seconds, rounded to milliseconds.

    Keys that are newer than version 0.1 are left out where the value is unknown, so that documents of that version
    stay the same to the byte.
    """
    normalized = normalize_transcript(transcript)
    segments: list[Json] = [
        {
            "start_s": _round_to_ms(segment.start_s),
            "end_s": _round_to_ms(segment.end_s),
            "text": segment.text,
            "speaker": segment.speaker,
            **_drop_unknown(
                {
                    "channel": segment.channel,
                    "no_speech_prob": segment.no_speech_prob,
                    "avg_logprob": segment.avg_logprob,
                    "compression_ratio": segment.compression_ratio,
                }
            ),
        }
        for segment in normalized.segments
    ]
    words: list[Json] = [_build_word(word, "word") for word in normalized.words]
    events: list[Json] = [_build_word(event, "text") for event in normalized.events]
    entities: list[Json] = [
        {"type": entity.type, "text": entity.text, "start_char": entity.start, "end_char": entity.end}
        for entity in normalized.entities
    ]
    return {
        "text": normalized.text,
        "language": normalized.language,
        "duration_s": None if normalized.duration_s is None else _round_to_ms(normalized.duration_s),
        "segments": segments,
        "words": words,
        "timing": normalized.timing.value,
        **_drop_unknown(
            {
                "events": events or None,
                "entities": entities or None,
                "confidence": normalized.confidence,
                "language_confidence": normalized.language_confidence,
            }
        ),
    }


def _build_word(word: Word, key: str) -> dict[str, Json]:
    return {
        "start_s": _round_to_ms(word.start_s),
        "end_s": _round_to_ms(word.end_s),
        key: word.text.strip(),
        **_drop_unknown({"speaker": word.speaker, "channel": word.channel, "confidence": word.confidence}),
    }


def _drop_unknown(fields: Mapping[str, Json]) -> dict[str, Json]:
    return {key: value for key, value in fields.items() if value is not None}


def _round_to_ms(time_s: float) -> float:
    return round(float(time_s), 3)


# --- writers ---------------------------------------------------------------------------------------------------------


def _write_txt(transcript: Transcript, limits: CaptionLimits, by_word: bool) -> str:
    """Write one line per turn, or the unchanged text if there are no speakers."""
    if not any(segment.speaker for segment in transcript.segments):
        return f"{transcript.text}\n" if transcript.text else ""
    turns: list[str] = []
    for speaker, turn in groupby(transcript.segments, key=lambda segment: segment.speaker):
        text = join_words([collapse_whitespace(segment.text) for segment in turn])
        turns.append(f"{speaker}: {text}\n" if speaker else f"{text}\n")
    return "".join(turns)


def _write_srt(transcript: Transcript, limits: CaptionLimits, by_word: bool) -> str:
    cues = list_plain_cues(transcript, limits, by_word=by_word)
    return "\n".join(
        f"{number}\n{_format_clock(start_s, ',')} --> {_format_clock(end_s, ',')}\n{escape_srt(text)}\n"
        for number, (start_s, end_s, text) in enumerate(cues, 1)
    )


def list_plain_cues(
    transcript: Transcript, limits: CaptionLimits, *, by_word: bool = False
) -> list[tuple[float, float, str]]:
    """Return start, end and text of each cue, for formats without speakers: a new speaker is named in the text."""
    cues: list[tuple[float, float, str]] = []
    speaker: str | None = None
    for cue in build_cues(transcript, limits, by_word=by_word):
        prefix = format_speaker_prefix(cue.speaker, limits) if cue.speaker != speaker else ""
        speaker = cue.speaker
        cues.append((cue.start_s, cue.end_s, prefix + "\n".join(cue.lines)))
    return cues


def escape_srt(text: str) -> str:
    """Return the text of a cue for SubRip, which has no escapes."""
    return _UNSAFE_SRT.sub(rf"\g<0>{_WORD_JOINER}", text)


def _write_vtt(transcript: Transcript, limits: CaptionLimits, by_word: bool) -> str:
    blocks = ["WEBVTT\n"]
    for cue in build_cues(transcript, limits, by_word=by_word):
        voice = f"<v {_escape(cue.speaker)}>" if cue.speaker else ""
        text = voice + _escape("\n".join(cue.lines))
        blocks.append(f"{_format_clock(cue.start_s, '.')} --> {_format_clock(cue.end_s, '.')}\n{text}\n")
    return "\n".join(blocks)


def _write_ass(transcript: Transcript, limits: CaptionLimits, by_word: bool) -> str:
    """Write ASS, with karaoke if words determine the cues."""
    from .caption_file import build_caption_cues
    from .caption_writers import write_ass

    cues = build_caption_cues(build_cues(transcript, limits, by_word=by_word))
    return write_ass(cues, transcript.words if by_word else ())


def _write_lrc(transcript: Transcript, limits: CaptionLimits, by_word: bool) -> str:
    from .caption_file import build_caption_cues
    from .caption_writers import write_lrc

    return write_lrc(build_caption_cues(build_cues(transcript, limits, by_word=by_word)))


def _write_tsv(transcript: Transcript, limits: CaptionLimits, by_word: bool) -> str:
    """Write rows with times in milliseconds, as whisper does."""
    lines = (
        f"{round(row.start_s * 1000)}\t{round(row.end_s * 1000)}\t{collapse_whitespace(row.text)}\n"
        for row in _list_rows(transcript, limits, by_word=by_word)
    )
    return "start\tend\ttext\n" + "".join(lines)


def _write_csv(transcript: Transcript, limits: CaptionLimits, by_word: bool) -> str:
    """Write the rows of `_write_tsv` with times in seconds and the speaker."""
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["start_s", "end_s", "speaker", "text"])
    for row in _list_rows(transcript, limits, by_word=by_word):
        cells = (collapse_whitespace(row.speaker or ""), collapse_whitespace(row.text))
        writer.writerow([f"{row.start_s:.3f}", f"{row.end_s:.3f}", *map(escape_cell, cells)])
    return text.getvalue()


def escape_cell(text: str) -> str:
    """Return the text of a CSV cell. With an apostrophe before it, spreadsheets do not take it for a formula."""
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA_STARTS) else text


def _list_rows(transcript: Transcript, limits: CaptionLimits, *, by_word: bool) -> Iterator[Segment]:
    """Yield segments, otherwise words with `by_word`, otherwise cues."""
    if transcript.segments:
        yield from transcript.segments
    elif by_word and transcript.words:
        for word in transcript.words:
            yield Segment(word.start_s, word.end_s, word.text, word.speaker)
    else:
        for cue in build_cues(transcript, limits):
            yield Segment(cue.start_s, cue.end_s, join_words(cue.lines), cue.speaker)


def _write_json(transcript: Transcript, limits: CaptionLimits, by_word: bool) -> str:
    return json.dumps(build_document(transcript), ensure_ascii=False, indent=2) + "\n"


_WRITERS: Mapping[str, Callable[[Transcript, CaptionLimits, bool], str]] = {
    "txt": _write_txt,
    "srt": _write_srt,
    "vtt": _write_vtt,
    "ass": _write_ass,
    "lrc": _write_lrc,
    "tsv": _write_tsv,
    "csv": _write_csv,
    "json": _write_json,
}


def _format_clock(time_s: float, decimal_mark: str) -> str:
    seconds, ms = divmod(round(time_s * 1000), 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{decimal_mark}{ms:03d}"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# --- json parser ----------------------------------------------------------------------------------------------------


def parse_json(text: str) -> Transcript:
    """Parse a transcript in our own JSON format or in `verbose_json` of a gateway. Missing values are unknown.

    Raises:
        ValueError: The text is not a JSON object.
    """
    document: Json = json.loads(text.removeprefix("\ufeff"))
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    return parse_document(document)


def parse_document(document: Mapping[str, Json]) -> Transcript:
    """Build a transcript from a parsed JSON object. Invalid values count as missing."""
    segments = _read_objects(document.get("segments"))
    words = _read_objects(document.get("words")) or [
        word for segment in segments for word in _read_objects(segment.get("words"))
    ]
    duration_s = _read_seconds(document, "duration")
    return normalize_transcript(
        Transcript(
            text=_read_string(document.get("text")) or "",
            language=_read_string(document.get("language")),
            duration_s=duration_s,
            segments=tuple(
                Segment(
                    *_read_times(item),
                    _read_string(item.get("text")) or "",
                    _read_string(item.get("speaker")),
                    _read_index(item.get("channel")),
                    _read_share(item.get("no_speech_prob")),
                    _read_number(item.get("avg_logprob")),
                    _read_number(item.get("compression_ratio")),
                )
                for item in segments
            ),
            words=tuple(map(_read_word, words)),
            events=tuple(map(_read_word, _read_objects(document.get("events")))),
            entities=tuple(
                Entity(
                    _read_string(item.get("type")) or "",
                    _read_string(item.get("text")) or "",
                    _read_index(item.get("start_char")),
                    _read_index(item.get("end_char")),
                )
                for item in _read_objects(document.get("entities"))
            ),
            confidence=_read_share(document.get("confidence")),
            language_confidence=_read_share(document.get("language_confidence")),
            # Documents written by audiocli 0.1 say "piece".
            segments_are_chunks=document.get("timing") in (Timing.CHUNK.value, "piece"),
        )
    )


def _read_word(item: Mapping[str, Json]) -> Word:
    return Word(
        *_read_times(item),
        _read_string(item.get("word")) or _read_string(item.get("text")) or "",
        _read_string(item.get("speaker")),
        _read_index(item.get("channel")),
        _read_share(item.get("confidence")),
    )


def _read_index(value: Json) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _read_share(value: Json) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1 else None


def _read_number(value: Json) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _read_times(item: Mapping[str, Json]) -> tuple[float, float]:
    return _read_seconds(item, "start"), _read_seconds(item, "end")


def _read_objects(value: Json) -> list[dict[str, Json]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _read_string(value: Json) -> str | None:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _read_seconds(item: Mapping[str, Json], key: str) -> float:
    value = item.get(f"{key}_s", item.get(key))
    if not isinstance(value, str | int | float):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan
