"""Tags, override codes and escapes inside the text of cues.

SubRip, MicroDVD and LRC have no escapes. Text that readers would parse as a tag, an override code, an escape of ASS or
an arrow gets an invisible word joiner (U+2060) inside. FFmpeg, and the players that use it, drop every tag of SubRip,
also an unknown one such as `<inaudible>`, and convert SubRip to ASS, where a backslash and N are a line end (FFmpeg
5.1). In WebVTT and TTML `&`, `<` and `>` become entities. ASS escapes braces with a backslash, as libass reads them.

Text in angle brackets that is no known tag is text, as its author meant it. All patterns take linear time.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from .caption_file import StyleSpan, strip_lines

WORD_JOINER = "\u2060"
# Joiners that the text already contains are part of the match, so that they are kept.
_UNSAFE_PLAIN = re.compile(
    rf"--(?={WORD_JOINER}*>)|[<{{](?={WORD_JOINER}*[^\s{WORD_JOINER}])|\\(?={WORD_JOINER}*[Nnh])"
)
_UNSAFE_PLAIN_END = re.compile(rf"[<{{](?={WORD_JOINER}*\Z)")
_PLAIN_ESCAPE = re.compile(rf"(--(?={WORD_JOINER}+>)|[<{{\\]){WORD_JOINER}")
# FFmpeg 5.1 does not know the escape of a brace: a backslash behind it would begin an override code.
_UNSAFE_ASS = re.compile(rf"(?P<code>{{(?={WORD_JOINER}*\\))|[{{}}]|\\(?={WORD_JOINER}*[Nnh{{}}]|{WORD_JOINER}*\Z)")

_TAG = re.compile(r"<(/?)([A-Za-z]\w*)([^<>]*)>|<(\d[\d:.]*)>")
_OVERRIDE = re.compile(r"\{\\[^{}]*\}")
_SRT_TOKEN = re.compile(f"{_TAG.pattern}|{_OVERRIDE.pattern}")
_HTML_STYLES = {"b": "b", "strong": "b", "i": "i", "em": "i", "u": "u", "s": "s", "strike": "s"}
_COLOR_ATTRIBUTE = re.compile(r"""\bcolor\s*=\s*["']?\s*(#?\w+)""", re.IGNORECASE)
_COLOR = re.compile(r"#[0-9a-f]{6}")
_VTT_TAGS = frozenset({"c", "lang", "ruby", "v"})
_VTT_CLOCK = re.compile(r"<((?:\d+:)?\d{1,2}:\d{1,2}\.\d{1,3})>")
_ASS_ESCAPE = re.compile(rf"\\(\{{{WORD_JOINER}(?={WORD_JOINER}*\\)|[{{}}Nnh])")
_ASS_TOKEN = re.compile(rf"{_ASS_ESCAPE.pattern}|\{{([^}}]*)\}}")
_ASS_CODE = re.compile(r"\\(\d?[A-Za-z]+)([^\\]*)")
_ASS_COLOR = re.compile(r"&?H?([0-9A-Fa-f]{1,8})&?")
_SUB_CODE = re.compile(r"\{([YyCcFfSsPpHhOo]):([^{}]*)\}")
_LRC_ESCAPE = re.compile(rf"\[{WORD_JOINER}(?=\d)|^{WORD_JOINER}(?=\[)")
# The times of words inside a cue.
_WORD_CLOCKS = {
    "vtt": re.compile(r"<(?:(\d+):)?(\d{1,2}):(\d{1,2})\.(\d{1,3})>", re.ASCII),
    "lrc": re.compile(r"<()(\d{1,3}):(\d{1,2})[.:](\d{1,3})>", re.ASCII),
}
_LRC_CLOCK = re.compile(r"<\d{1,3}:\d{1,2}(?:[.:]\d{1,3})?>")


class Markup(NamedTuple):
    """The text of a cue without its tags. See `CaptionCue` and `CaptionFile` for the fields."""

    text: str
    styles: tuple[StyleSpan, ...] = ()
    features: frozenset[str] = frozenset()
    speaker: str | None = None
    unknown_tags: tuple[str, ...] = ()


class _MarkupBuilder:
    """Collects text and styles in the order of the file."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._open: dict[str, tuple[int, str]] = {}
        self._spans: list[StyleSpan] = []
        self._last_spans: dict[str, StyleSpan] = {}
        self.features: set[str] = set()
        self.unknown_tags: list[str] = []

    def add(self, text: str) -> None:
        self._parts.append(text)
        self._length += len(text)

    def open(self, name: str, value: str = "") -> None:
        if name in self._open and self._open[name][1] == value:
            return
        self.close(name)
        previous = self._last_spans.get(name)
        if previous is not None and previous.end == self._length and previous.value == value:
            self._spans.remove(previous)
            self._open[name] = (previous.start, value)
        else:
            self._open[name] = (self._length, value)

    def close(self, name: str) -> None:
        if name in self._open:
            start, value = self._open.pop(name)
            if start < self._length:
                span = StyleSpan(start, self._length, name, value)
                self._spans.append(span)
                self._last_spans[name] = span

    def close_all(self) -> None:
        for name in list(self._open):
            self.close(name)

    def build(self, speaker: str | None = None) -> Markup:
        self.close_all()
        text, styles = strip_lines("".join(self._parts), sorted(self._spans))
        return Markup(text, styles, frozenset(self.features), speaker, tuple(self.unknown_tags))


def unescape_plain(text: str) -> str:
    """Remove the word joiners that `escape_plain` added."""
    return _PLAIN_ESCAPE.sub(r"\1", text) if WORD_JOINER in text else text


def escape_plain(text: str) -> str:
    """Escape text for SubRip, MicroDVD and LRC."""
    return _UNSAFE_PLAIN.sub(rf"\g<0>{WORD_JOINER}", text)


def escape_srt_part(text: str) -> str:
    """Escape a part of a text of SubRip that a tag may follow."""
    return _UNSAFE_PLAIN_END.sub(rf"\g<0>{WORD_JOINER}", escape_plain(text))


def escape_entities(text: str) -> str:
    """Escape text for WebVTT and XML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def escape_ass(text: str) -> str:
    """Escape text for ASS."""
    return _UNSAFE_ASS.sub(_escape_ass_character, text).replace("\n", "\\N")


def _escape_ass_character(match: re.Match[str]) -> str:
    if match[0] == "\\":
        return f"\\{WORD_JOINER}"
    return f"\\{match[0]}{WORD_JOINER if match['code'] else ''}"


def render_styles(
    text: str,
    styles: Iterable[StyleSpan],
    escape: Callable[[str], str],
    wrap: Callable[[str, Sequence[StyleSpan]], str],
) -> str:
    """Render text. Each part with its own set of styles is escaped, then wrapped by `wrap(escaped, its styles)`."""
    spans = sorted(styles)
    if not spans:
        return escape(text)
    edges = sorted({0, len(text), *(edge for span in spans for edge in (span.start, span.end) if 0 < edge < len(text))})
    parts: list[str] = []
    for start, end in pairwise(edges):
        active = list({span.name: span for span in spans if span.start <= start and end <= span.end}.values())
        # A tag around a line end confuses players that show line by line.
        for line_number, line in enumerate(text[start:end].split("\n")):
            newline = escape("\n") if line_number else ""
            parts.append(newline + (wrap(escape(line), active) if active and line else escape(line)))
    return "".join(parts)


# --- parsers ---------------------------------------------------------------------------------------------------------


def parse_srt_markup(text: str) -> Markup:
    """Parse the tags of SubRip, and the override codes of ASS that players accept in it."""
    if "<" not in text and "{" not in text and WORD_JOINER not in text:
        return Markup(strip_lines(text)[0])
    builder = _MarkupBuilder()
    position = 0
    for match in _SRT_TOKEN.finditer(text):
        builder.add(unescape_plain(text[position : match.start()]))
        position = match.end()
        if match[0].startswith("{"):
            _apply_overrides(match[0][1:-1], builder)
        elif not _apply_html_tag(match, builder):
            builder.add(match[0])
            builder.unknown_tags.append(match[0])
    builder.add(unescape_plain(text[position:]))
    return builder.build()


def _apply_html_tag(match: re.Match[str], builder: _MarkupBuilder) -> bool:
    """Apply a tag of style. Return False if it is none."""
    slash, name, attributes = match[1], (match[2] or "").lower(), match[3] or ""
    if name in _HTML_STYLES:
        (builder.close if slash else builder.open)(_HTML_STYLES[name])
    elif name == "font":
        color = _COLOR_ATTRIBUTE.search(attributes)
        if slash:
            builder.close("color")
        elif color is not None and _COLOR.fullmatch(color[1].lower()):
            builder.open("color", color[1].lower())
        else:
            builder.features.add("fonts")
    else:
        return False
    return True


def parse_vtt_markup(text: str) -> Markup:
    """Parse the tags and entities of WebVTT. A cue with several voices gets a line for each, with the name."""
    if "<" not in text and "&" not in text:
        return Markup(strip_lines(text)[0])
    builder = _MarkupBuilder()
    voices = [match[3] for match in _TAG.finditer(text) if match[2] == "v" and not match[1]]
    names = list(dict.fromkeys(_parse_voice(annotation) for annotation in voices))
    has_several = len(names) > 1
    position = 0
    for match in _TAG.finditer(text):
        builder.add(html.unescape(text[position : match.start()]))
        position = match.end()
        slash, name = match[1], (match[2] or "").lower()
        if match[4] is not None:
            _add_vtt_clock(match[0], builder)
        elif name == "v":
            if has_several and not slash and (voice := _parse_voice(match[3])):
                builder.add(f"\n{voice}: ")
        elif name == "rt":
            builder.add(")" if slash else "(")
        elif name in _VTT_TAGS:
            if name == "c" and match[3].strip():
                builder.features.add("style classes")
        elif not _apply_html_tag(match, builder):
            builder.add(match[0])
            builder.unknown_tags.append(match[0])
    builder.add(html.unescape(text[position:]))
    return builder.build(names[0] or None if len(names) == 1 else None)


def _add_vtt_clock(tag: str, builder: _MarkupBuilder) -> None:
    if _VTT_CLOCK.fullmatch(tag):
        builder.features.add("word times")
    else:
        builder.add(tag)
        builder.unknown_tags.append(tag)


def _parse_voice(annotation: str) -> str:
    """Return the name in `.class Name`, what follows `<v`."""
    name = annotation.partition(" ")[2] if annotation.startswith(".") else annotation
    return " ".join(html.unescape(name).split())


def parse_ass_markup(text: str) -> Markup:
    """Parse the override codes and escapes of ASS. Drawings and text in braces without a code are not visible."""
    builder = _MarkupBuilder()
    is_drawing = False
    position = 0
    end = text.rfind("}") + 1  # behind it, an opening brace is text; a search for its end would take quadratic time
    for match in _iterate_ass_tokens(text, end):
        if not is_drawing:
            builder.add(_unescape_ass(text[position : match.start()]))
        position = match.end()
        if match[1] is not None:
            builder.add({"N": "\n", "n": "\n", "h": "\u00a0"}.get(match[1], match[1][0]))
            continue
        codes = match.group(2)
        drawing = _apply_overrides(codes, builder)
        is_drawing = is_drawing if drawing is None else drawing
        if "\\" not in codes and codes.strip():
            builder.features.add("comments")
    if not is_drawing:
        builder.add(_unescape_ass(text[position:]))
    return builder.build()


def _iterate_ass_tokens(text: str, end: int) -> Iterator[re.Match[str]]:
    position = 0
    for match in _ASS_TOKEN.finditer(text, 0, end):
        yield match
        position = match.end()
    yield from _ASS_ESCAPE.finditer(text, max(position, end))


def _unescape_ass(text: str) -> str:
    return text.replace(f"\\{WORD_JOINER}", "\\") if WORD_JOINER in text else text


def _apply_overrides(codes: str, builder: _MarkupBuilder) -> bool | None:
    r"""Apply the override codes of a block. Return whether a drawing begins (`\p1`) or ends (`\p0`), else None."""
    drawing: bool | None = None
    for match in _ASS_CODE.finditer(codes):
        name, value = match[1], match[2].strip()
        if name in ("b", "i", "u", "s"):
            (builder.close if value in ("", "0") else builder.open)(name)
        elif name in ("c", "1c"):
            color = _ASS_COLOR.fullmatch(value)
            if color is None:
                builder.close("color")
            else:
                digits = color[1].rjust(6, "0")[-6:].lower()
                builder.open("color", f"#{digits[4:]}{digits[2:4]}{digits[:2]}")
        elif name.startswith("r"):
            builder.close_all()
        elif name == "p":
            drawing = value not in ("", "0")
            builder.features.add("drawings")
        elif name in ("k", "K", "kf", "ko"):
            builder.features.add("word times")
        elif name in ("a", "an", "pos", "move", "org"):
            builder.features.add("positions")
        elif name.startswith(("fn", "fs", "fe")):
            builder.features.add("fonts")
        else:
            builder.features.add("effects")
    return drawing


def parse_sub_markup(text: str) -> Markup:
    """Parse the control codes of MicroDVD. `{y:i}` styles its line, `{Y:i}` the whole cue."""
    builder = _MarkupBuilder()
    whole: set[str] = set()
    for line_number, line in enumerate(text.split("|")):
        builder.add("\n" if line_number else "")
        position = 0
        for match in _SUB_CODE.finditer(line):
            builder.add(unescape_plain(line[position : match.start()]))
            position = match.end()
            code, value = match[1], match[2].lower()
            if code in "Yy":
                names = {name for name in value.split(",") if name in ("b", "i", "u", "s")}
                whole |= names if code == "Y" else set()
                for name in names:
                    builder.open(name)
            elif code in "Cc" and re.fullmatch(r"\$[0-9a-f]{6}", value):
                builder.open("color", f"#{value[5:]}{value[3:5]}{value[1:3]}")
                whole |= {"color"} if code == "C" else set()
            else:
                builder.features.add("positions" if code in "PpOo" else "fonts")
        builder.add(unescape_plain(line[position:]))
        for name in ("b", "i", "u", "s", "color"):
            if name not in whole:
                builder.close(name)
    return builder.build()


def parse_lrc_markup(text: str) -> Markup:
    """Parse a line of LRC: the times of its words are not part of the text."""
    stripped = _LRC_CLOCK.sub("", text)
    visible = _LRC_ESCAPE.sub(lambda match: match[0].strip(WORD_JOINER), unescape_plain(stripped))
    features = frozenset({"word times"}) if stripped != text else frozenset[str]()
    return Markup(strip_lines(visible)[0], features=features)


def map_word_times(text: str, format: str, move: Callable[[float], float]) -> str:
    """Change the times of words inside a cue of WebVTT or LRC. Those below 0 become 0."""
    if format not in _WORD_CLOCKS:
        return text

    def replace(match: re.Match[str]) -> str:
        time_s = int(match[1] or 0) * 3600 + int(match[2]) * 60 + int(match[3]) + float(f"0.{match[4]}")
        moved_s = max(move(time_s), 0.0)
        if format == "lrc":
            seconds, cs = divmod(round(moved_s * 100), 100)
            return f"<{seconds // 60:02d}:{seconds % 60:02d}.{cs:02d}>"
        seconds, ms = divmod(round(moved_s * 1000), 1000)
        return f"<{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{ms:03d}>"

    return _WORD_CLOCKS[format].sub(replace, text)
