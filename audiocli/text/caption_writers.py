"""Write cues as srt, vtt, ass, ttml, sub (MicroDVD) and lrc. Every visible character of the text is written.

A cue of a file in the same format keeps its tags and settings (`NativeCue`). Times are rounded to what the format has:
milliseconds, hundredths of a second in ass and lrc, frames in sub.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import quoteattr

from ..errors import UsageError
from ..types.transcripts import Word
from .caption_file import (
    CONTROL_CHARACTERS,
    DEFAULT_FPS,
    CaptionCue,
    CaptionFile,
    StyleSpan,
    clean_text,
    strip_lines,
)
from .caption_markup import (
    WORD_JOINER,
    escape_ass,
    escape_entities,
    escape_plain,
    escape_srt_part,
    render_styles,
)
from .cues import format_speaker_prefix

# The title-safe area of a 16:9 picture. The secondary color is that of words that karaoke has not reached.
ASS_HEADER = """\
[Script Info]
ScriptType: v4.00+
PlayResX: 1920
PlayResY: 1080
WrapStyle: 0
ScaledBorderAndShadow: yes

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,64,&H00FFFFFF,&H00A0A0A0,&H00000000,&H80000000,0,0,0,0,100,100,0,0,1,3,1,2,60,60,50,1
"""
_ASS_EVENTS = """\
[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""
_ASS_SETTINGS = ("0", "Default", "", "0", "0", "0", "")
_PLAIN_STYLES = ("b", "i", "u", "s")
# Styles of the model that a format has. sub has them for whole cues only.
SUPPORTED_STYLES = {
    "srt": frozenset({"b", "i", "u", "s", "color"}),
    "vtt": frozenset({"b", "i", "u"}),
    "ass": frozenset({"b", "i", "u", "s", "color"}),
    "ttml": frozenset({"b", "i", "u", "s", "color"}),
    "sub": frozenset({"b", "i", "u", "s"}),
    "lrc": frozenset[str](),
}
# Formats that have a field for the speaker.
FORMATS_WITH_SPEAKERS = frozenset({"vtt", "ass", "ttml"})
_SUB_BAR = "\u2758"  # `|` ends a line of MicroDVD, and cannot be escaped
_TTML_STYLES = {
    "b": 'tts:fontWeight="bold"',
    "i": 'tts:fontStyle="italic"',
    "u": 'tts:textDecoration="underline"',
    "s": 'tts:textDecoration="lineThrough"',
}
_LRC_LIKE_TIME = re.compile(r"[\[<](?=\d{1,3}:\d{1,2})")
_LRC_CLEAR_GAP_S = 0.05  # a shorter gap needs no empty line that clears the text


def write_captions(file: CaptionFile, format: str) -> str:
    """Write a file in a format. Its header is kept if it is in the same format.

    Raises:
        UsageError: The format is unknown.
    """
    if format not in WRITERS:
        raise UsageError(f"unknown caption format {format!r}", hint=f"formats: {', '.join(WRITERS)}")
    return WRITERS[format](file)


def add_speaker_prefixes(cues: Iterable[CaptionCue]) -> Iterator[CaptionCue]:
    """Yield cues whose text begins with `NAME: ` where the speaker changes, for formats without a field for it."""
    speaker: str | None = None
    for cue in cues:
        prefix = format_speaker_prefix(cue.speaker) if cue.speaker != speaker else ""
        speaker = cue.speaker
        styles = tuple(span._replace(start=span.start + len(prefix), end=span.end + len(prefix)) for span in cue.styles)
        yield cue._replace(text=prefix + cue.text, styles=styles) if prefix else cue


# --- SubRip and WebVTT -----------------------------------------------------------------------------------------------


def write_srt(cues: Iterable[CaptionCue]) -> str:
    """Write SubRip, numbered from 1."""
    blocks = (
        f"{number}\n{_format_clock(cue.start_s, ',')} --> {_format_clock(cue.end_s, ',')}{_get_settings(cue, 'srt')}\n"
        f"{_render(cue, 'srt', escape_srt_part if cue.styles else escape_plain, _wrap_srt)}\n"
        for number, cue in enumerate(add_speaker_prefixes(cues), 1)
    )
    return "\n".join(blocks)


def write_vtt(cues: Iterable[CaptionCue], *, header: str = "WEBVTT") -> str:
    """Write WebVTT. The header has the line `WEBVTT` and the blocks of styles and regions."""
    blocks = [f"{header.rstrip()}\n"]
    for cue in cues:
        native = cue.native if cue.native is not None and cue.native.format == "vtt" else None
        name = f"{native.name}\n" if native is not None and native.name else ""
        text = _render(cue, "vtt", escape_entities, _wrap_vtt)
        if native is None and cue.speaker:
            text = f"<v {escape_entities(_clean_field(cue.speaker))}>{text}"
        clock = f"{_format_clock(cue.start_s, '.')} --> {_format_clock(cue.end_s, '.')}"
        blocks.append(f"{name}{clock}{_get_settings(cue, 'vtt')}\n{text}\n")
    return "\n".join(blocks)


def _render(
    cue: CaptionCue,
    format: str,
    escape: Callable[[str], str],
    wrap: Callable[[str, Sequence[StyleSpan]], str],
) -> str:
    if cue.native is not None and cue.native.format == format:
        return cue.native.text
    text, styles = strip_lines(clean_text(cue.text), cue.styles)
    supported = SUPPORTED_STYLES[format]
    return render_styles(text, (span for span in styles if span.name in supported), escape, wrap)


def _get_settings(cue: CaptionCue, format: str) -> str:
    native = cue.native
    return f" {native.settings}" if native is not None and native.format == format and native.settings else ""


def _wrap_srt(text: str, spans: Sequence[StyleSpan]) -> str:
    for span in spans:
        text = (
            f'<font color="{span.value}">{text}</font>'
            if span.name == "color"
            else f"<{span.name}>{text}</{span.name}>"
        )
    return text


def _wrap_vtt(text: str, spans: Sequence[StyleSpan]) -> str:
    for span in spans:
        text = f"<{span.name}>{text}</{span.name}>"
    return text


# --- ASS -------------------------------------------------------------------------------------------------------------


def write_ass(cues: Iterable[CaptionCue], words: Sequence[Word] = (), *, header: str = ASS_HEADER) -> str:
    r"""Write ASS. With words, each one is highlighted at its time (karaoke, `\k`), where it is found in the cues.

    The speaker is in the field Name, which players do not show. A cue whose words are not found is written as text.
    """
    cues = list(cues)
    timed = _locate_words(cues, words) if words else [()] * len(cues)
    lines = [header.rstrip() + "\n\n", _ASS_EVENTS]
    for cue, timed_words in zip(cues, timed, strict=True):
        native = cue.native if cue.native is not None and cue.native.format == "ass" else None
        layer, style, name, *rest = _ASS_SETTINGS if native is None else native.settings.split(",", 6)
        if native is None and cue.speaker:
            name = _clean_field(cue.speaker).replace(",", " ")
        text = _render_karaoke(cue, timed_words) if timed_words else _render(cue, "ass", escape_ass, _wrap_ass)
        start_cs, end_cs = _round_times(cue, 100)
        fields = ",".join((layer, _format_ass_clock(start_cs), _format_ass_clock(end_cs), style, name, *rest))
        lines.append(f"Dialogue: {fields},{text}\n")
    return "".join(lines)


def _wrap_ass(text: str, spans: Sequence[StyleSpan]) -> str:
    opening, closing = "", ""
    for span in spans:
        if span.name == "color":
            red, green, blue = (span.value[start : start + 2].upper() for start in (1, 3, 5))
            opening, closing = f"{opening}\\c&H{blue}{green}{red}&", f"\\c{closing}"
        else:
            opening, closing = f"{opening}\\{span.name}1", f"\\{span.name}0{closing}"
    return f"{{{opening}}}{text}{{{closing}}}"


class _TimedWord(NamedTuple):
    """A word at `text[start:end]` of a cue."""

    start: int
    end: int
    word: Word


def _locate_words(cues: Sequence[CaptionCue], words: Sequence[Word]) -> list[Sequence[_TimedWord]]:
    """Find the words of each cue in its text, in order. Words that are not there are skipped."""
    located: list[Sequence[_TimedWord]] = []
    index = 0
    for cue in cues:
        position = 0
        found: list[_TimedWord] = []
        while index < len(words) and words[index].start_s < cue.end_s:
            spoken = words[index].text.strip()
            start = cue.text.find(spoken, position) if spoken else -1
            if start >= 0 and not any(char.isalnum() for char in cue.text[position:start]):
                position = start + len(spoken)
                found.append(_TimedWord(start, position, words[index]))
            elif words[index].end_s > cue.end_s:
                break  # a word of the next cue
            index += 1
        located.append(found)
    return located


def _render_karaoke(cue: CaptionCue, timed_words: Sequence[_TimedWord]) -> str:
    """Render the text with the duration of each word, in hundredths of a second. Their sum has no rounding drift."""
    start_cs, end_cs = _round_times(cue, 100)
    starts_cs = [min(max(round(timed.word.start_s * 100), start_cs), end_cs) for timed in timed_words]
    lead_cs = starts_cs[0] - start_cs
    parts = [f"{{\\k{lead_cs}}}" if lead_cs else "", escape_ass(cue.text[: timed_words[0].start])]
    for index, timed in enumerate(timed_words):
        is_last = index + 1 == len(timed_words)
        next_cs = end_cs if is_last else starts_cs[index + 1]
        text_end = len(cue.text) if is_last else timed_words[index + 1].start
        text = escape_ass(cue.text[timed.start : text_end])
        parts.append(f"{{\\k{max(next_cs - starts_cs[index], 0)}}}{text}")
    return "".join(parts)


# --- LRC -------------------------------------------------------------------------------------------------------------


def write_lrc(cues: Iterable[CaptionCue], *, header: str = "") -> str:
    """Write LRC: a line for each cue with text, in order of its start. An empty line ends a cue before a gap."""
    with_text = (cue for cue in cues if cue.text.strip())
    ordered = sorted(add_speaker_prefixes(with_text), key=lambda cue: cue.start_s)
    lines = [f"{header.rstrip()}\n"] if header.strip() else []
    for index, cue in enumerate(ordered):
        if cue.native is not None and cue.native.format == "lrc":
            text = cue.native.text
        else:
            text = " ".join(strip_lines(clean_text(cue.text))[0].split("\n"))
            text = _LRC_LIKE_TIME.sub(rf"\g<0>{WORD_JOINER}", escape_plain(text))
            text = f"{WORD_JOINER}{text}" if text.startswith("[") else text
        lines.append(f"[{_format_lrc_clock(cue.start_s)}]{text}\n")
        next_s = ordered[index + 1].start_s if index + 1 < len(ordered) else float("inf")
        if next_s - cue.end_s > _LRC_CLEAR_GAP_S:
            lines.append(f"[{_format_lrc_clock(max(cue.end_s, cue.start_s))}]\n")
    return "".join(lines)


# --- MicroDVD --------------------------------------------------------------------------------------------------------


def write_sub(cues: Iterable[CaptionCue], fps: float = DEFAULT_FPS) -> str:
    """Write MicroDVD. The first line has the frames per second, as VLC, FFmpeg and pysubs2 read it.

    `|` ends a line there and has no escape, so that one in the text becomes U+2758, which looks the same.
    """
    lines = [f"{{1}}{{1}}{fps:.3f}\n"]
    for cue in add_speaker_prefixes(cues):
        if cue.native is not None and cue.native.format == "sub":
            text = cue.native.text
        else:
            text = strip_lines(clean_text(cue.text))[0]
            whole = [span.name for span in cue.styles if span.name in _PLAIN_STYLES and _covers(span, cue.text)]
            code = f"{{Y:{','.join(sorted(set(whole)))}}}" if whole and text else ""
            text = code + escape_plain(text.replace("|", _SUB_BAR)).replace("\n", "|")
        start, end = _round_times(cue, fps)
        lines.append(f"{{{start}}}{{{end}}}{text}\n")
    return "".join(lines)


def _covers(span: StyleSpan, text: str) -> bool:
    return not text[: span.start].strip() and not text[span.end :].strip()


# --- TTML ------------------------------------------------------------------------------------------------------------


def write_ttml(cues: Iterable[CaptionCue], *, language: str | None = None) -> str:
    """Write TTML 1. Speakers are agents in the metadata."""
    cues = list(cues)
    names = dict.fromkeys(_clean_field(cue.speaker) for cue in cues if cue.speaker)
    agents = {name: f"speaker{number}" for number, name in enumerate(names, 1)}
    metadata = "".join(
        f'      <ttm:agent xml:id="{identifier}" type="person">'
        f'<ttm:name type="full">{escape_entities(name)}</ttm:name></ttm:agent>\n'
        for name, identifier in agents.items()
    )
    paragraphs = "".join(_write_paragraph(cue, agents) for cue in cues)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<tt xmlns="http://www.w3.org/ns/ttml" xmlns:ttm="http://www.w3.org/ns/ttml#metadata" '
        f'xmlns:tts="http://www.w3.org/ns/ttml#styling" xml:lang={quoteattr(language or "")}>\n'
        + (f"  <head>\n    <metadata>\n{metadata}    </metadata>\n  </head>\n" if agents else "  <head/>\n")
        + f"  <body>\n    <div>\n{paragraphs}    </div>\n  </body>\n</tt>\n"
    )


def _write_paragraph(cue: CaptionCue, agents: Mapping[str, str]) -> str:
    agent = f' ttm:agent="{agents[_clean_field(cue.speaker)]}"' if cue.speaker else ""
    clock = f'begin="{_format_clock(cue.start_s, ".")}" end="{_format_clock(cue.end_s, ".")}"'
    text = _render(cue, "ttml", lambda part: escape_entities(part).replace("\n", "<br/>"), _wrap_ttml)
    return f"      <p {clock}{agent}>{text}</p>\n"


def _wrap_ttml(text: str, spans: Sequence[StyleSpan]) -> str:
    decorations = [span.name for span in spans if span.name in "us"]
    attributes = [_TTML_STYLES[span.name] for span in spans if span.name in "bi"]
    attributes += [f'tts:color="{span.value}"' for span in spans if span.name == "color"]
    if len(decorations) == 2:
        attributes.append('tts:textDecoration="underline lineThrough"')
    else:
        attributes += [_TTML_STYLES[name] for name in decorations]
    return f"<span {' '.join(attributes)}>{text}</span>"


# --- clocks ----------------------------------------------------------------------------------------------------------


def _format_clock(time_s: float, decimal_mark: str) -> str:
    seconds, ms = divmod(round(max(time_s, 0.0) * 1000), 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{decimal_mark}{ms:03d}"


def _format_ass_clock(time_cs: int) -> str:
    seconds, cs = divmod(time_cs, 100)
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{cs:02d}"


def _format_lrc_clock(time_s: float) -> str:
    seconds, cs = divmod(round(max(time_s, 0.0) * 100), 100)
    return f"{seconds // 60:02d}:{seconds % 60:02d}.{cs:02d}"


def _round_times(cue: CaptionCue, rate: float) -> tuple[int, int]:
    """Return the times of a cue in units of 1/rate seconds. A cue that lasts does not get the duration 0."""
    start, end = round(max(cue.start_s, 0.0) * rate), round(max(cue.end_s, 0.0) * rate)
    return start, max(end, start + 1) if cue.end_s > cue.start_s else end


def _clean_field(text: str) -> str:
    """Return a name on one line, for a field of a format."""
    return " ".join(CONTROL_CHARACTERS.sub("", text).split())


WRITERS: Mapping[str, Callable[[CaptionFile], str]] = {
    "srt": lambda file: write_srt(file.cues),
    "vtt": lambda file: write_vtt(file.cues, header=file.header if file.format == "vtt" and file.header else "WEBVTT"),
    "ass": lambda file: write_ass(
        file.cues, header=file.header if file.format == "ass" and file.header else ASS_HEADER
    ),
    "ttml": lambda file: write_ttml(file.cues, language=file.language),
    "sub": lambda file: write_sub(file.cues, file.fps or DEFAULT_FPS),
    "lrc": lambda file: write_lrc(file.cues, header=file.header if file.format == "lrc" else ""),
}
