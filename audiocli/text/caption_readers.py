"""Read caption files: srt, vtt, ass and ssa, ttml, sub (MicroDVD) and lrc.

pysubs2 1.8 reads most of these formats too, but it knows no line numbers, which every message here has. It also skips
lines that it does not understand, drops the voices and entities of WebVTT, and reads no frames in TTML and no LRC.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import PurePath
from typing import NamedTuple
from xml.etree.ElementTree import Element

from ..errors import UsageError, suggest
from .caption_file import (
    CONTROL_CHARACTERS,
    MAX_TIME_S,
    CaptionCue,
    CaptionFile,
    CaptionProblem,
    NativeCue,
    StyleSpan,
    strip_lines,
)
from .caption_markup import (
    Markup,
    map_word_times,
    parse_ass_markup,
    parse_lrc_markup,
    parse_srt_markup,
    parse_sub_markup,
    parse_vtt_markup,
)
from .caption_parsers import ParsedCues, is_vtt, parse_cues, split_lines
from .decoding import BYTE_ORDER_MARKS, detect_encoding
from .readers.encoding import decode_content, find_declared_encoding
from .readers.xml_tree import MalformedXml, get_attribute, get_local_name, parse_xml

CAPTION_FORMATS = ("srt", "vtt", "ass", "ttml", "sub", "lrc")
EXTENSIONS = {
    **{f".{name}": name for name in CAPTION_FORMATS},
    ".ssa": "ass",
    ".dfxp": "ttml",
    ".webvtt": "vtt",
}
# A cue whose end is unknown ends with the next one; the last one after this time.
LAST_CUE_S = 5.0

_SRT_TIMING = re.compile(r"\d{2,}:[0-5]\d:[0-5]\d,\d{3} --> \d{2,}:[0-5]\d:[0-5]\d,\d{3}(?:\s.*)?$", re.ASCII)
_VTT_TIMING = re.compile(
    r"(?:\d{2,}:)?[0-5]\d:[0-5]\d\.\d{3}[ \t]+-->[ \t]+(?:\d{2,}:)?[0-5]\d:[0-5]\d\.\d{3}(?:[ \t].*)?$", re.ASCII
)
_VTT_LANGUAGE = re.compile(r"^Language:[ \t]*([A-Za-z]{2,3}(?:-[A-Za-z0-9]+)*)\s*$", re.MULTILINE)
_VTT_SETTING = re.compile(r"\b(?:line|position|align|size|vertical|region):")
_ASS_CLOCK = re.compile(r"\s*(\d{1,6}):(\d{1,2}):(\d{1,2})(?:[.:](\d{1,3}))?\s*", re.ASCII)
_ASS_FIELDS = ("layer", "start", "end", "style", "name", "marginl", "marginr", "marginv", "effect", "text")
_SUB_LINE = re.compile(r"\s*\{\s*(\d{1,12})\s*\}\s*\{\s*(\d{0,12})\s*\}(.*)$", re.ASCII)
_SUB_HEADER = re.compile(r"\s*\{DEFAULT\}", re.IGNORECASE)
_LRC_TIMES = re.compile(r"\s*((?:\[\d{1,6}:\d{1,2}(?:[.:]\d{1,3})?\]\s*)+)", re.ASCII)
_LRC_TIME = re.compile(r"\[(\d+):(\d+)(?:[.:](\d+))?\]", re.ASCII)
_LRC_TAG = re.compile(r"\s*\[([A-Za-z#][\w#]*):([^\]]*)\]\s*$")
_TTML_CLOCK = re.compile(r"(\d{1,6}):(\d{2}):(\d{2})(?:\.(\d{1,9})|:(\d{1,4})(?:\.\d+)?)?", re.ASCII)
_TTML_OFFSET = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(h|ms|m|s|f|t)", re.ASCII)
_TTML_ROOT = re.compile(r"(?:<\?[^>]*>|<!--.*?-->|<!DOCTYPE[^>\[]*>|\s)*+<(?:\w+:)?tt[\s>]", re.DOTALL)
_COLOR = re.compile(r"#[0-9a-f]{6}(?:[0-9a-f]{2})?")


class CaptionEncodingError(UsageError):
    """The bytes of a file are not in UTF-8. `line` is the first line with such a byte."""

    def __init__(self, message: str, line: int, *, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.line = line


def find_caption_format(name: str) -> str:
    """Return the format that an option names. Raises: UsageError: It is unknown."""
    known = EXTENSIONS.get(f".{name.lower().removeprefix('.')}")
    if known is None:
        raise UsageError(
            f"unknown caption format {name!r}{suggest(name, CAPTION_FORMATS)}",
            hint=f"formats: {', '.join(CAPTION_FORMATS)}",
        )
    return known


def find_format_for_path(path: str) -> str | None:
    """Return the format that the extension of a path names, or None."""
    return EXTENSIONS.get(PurePath(path).suffix.lower())


def detect_caption_format(text: str) -> str | None:
    """Return the format of a text, or None if there is no sign of one in its first lines."""
    head = text[:100_000].lstrip("\ufeff")
    if is_vtt([head.split("\n", 1)[0].rstrip("\r")]):
        return "vtt"
    if _TTML_ROOT.match(head):
        return "ttml"
    for line in head.splitlines()[:200]:
        if line.strip().lower() in ("[script info]", "[events]", "[v4+ styles]"):
            return "ass"
        if _SRT_TIMING.match(line.strip()):
            return "srt"
        if _SUB_LINE.match(line):
            return "sub"
        if _LRC_TIMES.match(line):
            return "lrc"
    return None


def read_captions(
    content: bytes, source: str, format: str | None = None, *, encoding: str | None = None, fps: float | None = None
) -> CaptionFile:
    """Read a caption file. Lines that do not follow the format are in `problems` of the result.

    Args:
        source: Names the file in messages.
        format: A name of `CAPTION_FORMATS`; None detects it.
        encoding: The encoding of the text. None is UTF-8, what a byte order mark says, or what XML declares.
        fps: Frames per second of MicroDVD, in place of those in the file.

    Raises:
        UsageError: The bytes are not in the encoding, the format is unknown, or there is no cue.
    """
    text = decode_captions(content, source, encoding)
    detected = format or detect_caption_format(text)
    if detected is None:
        raise UsageError(
            f"{source}: cannot detect the caption format", hint=f"name it: --from {'|'.join(CAPTION_FORMATS)}"
        )
    return parse_captions(text, source, detected, fps=fps)


def decode_captions(content: bytes, source: str, encoding: str | None = None) -> str:
    """Decode a caption file. Raises: UsageError: The bytes are not in the encoding. The message has the line."""
    declared = find_declared_encoding(content) if content.lstrip().startswith(b"<?xml") else None
    has_mark = content.startswith(tuple(BYTE_ORDER_MARKS))
    if (
        encoding is None
        and not has_mark
        and (declared or "utf-8").lower() in ("utf-8", "utf8")
        and b"\0" not in content
    ):
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            if detect_encoding(content) is None:
                line = len(re.findall(rb"\r\n|\r|\n", content[: error.start])) + 1
                raise CaptionEncodingError(
                    f"{source}: line {line} is not UTF-8: byte {error.start}",
                    line,
                    hint="name the encoding: --encoding cp1252 (Western Europe), or another such as cp1251 or cp936",
                ) from error
    return decode_content(content, source, encoding, declared=declared)


def parse_captions(text: str, source: str, format: str, *, fps: float | None = None) -> CaptionFile:
    """Parse the text of a caption file. See `read_captions`."""
    problems = tuple(_find_control_characters(text))
    # Null characters and other controls are not visible, and XML must not have them.
    cleaned = CONTROL_CHARACTERS.sub("", text) if problems else text.removeprefix("\ufeff")
    file = _PARSERS[format](cleaned, source, fps)
    if not file.cues and not any(problem.is_malformed for problem in file.problems):
        raise UsageError(f"{source} has no captions in the format {format}", hint="name its format: --from FORMAT")
    return file._replace(problems=problems + file.problems)


def _find_control_characters(text: str) -> Iterator[CaptionProblem]:
    match = CONTROL_CHARACTERS.search(text, 1 if text.startswith("\ufeff") else 0)
    if match is not None:
        line = len(re.findall(r"\r\n|\r|\n", text[: match.start()])) + 1
        yield CaptionProblem("encoding", f"control character U+{ord(match[0]):04X}", line)


# --- SubRip and WebVTT -----------------------------------------------------------------------------------------------


def _parse_srt(text: str, source: str, fps: float | None) -> CaptionFile:
    lines = split_lines(text)
    parsed = parse_cues(lines)
    stray = [number for number, line in enumerate(parsed.preamble, 1) if line and not line.strip().isdecimal()]
    problems = [CaptionProblem("text", "text before the first cue", stray[0])] if stray and parsed.cues else []
    return _build_file("srt", parsed, parse_srt_markup, _SRT_TIMING, problems, frozenset())


def _parse_vtt(text: str, source: str, fps: float | None) -> CaptionFile:
    lines = split_lines(text)
    parsed = parse_cues(lines)
    problems = [] if is_vtt(lines) else [CaptionProblem("header", "line 1 does not begin with WEBVTT", 1)]
    blocks = [block for block in "\n".join(parsed.preamble).split("\n\n") if block.strip()]
    header_blocks = [block.strip("\n") for block in blocks if not block.strip().startswith("NOTE")]
    features = {"comments"} if parsed.comments or len(header_blocks) < len(blocks) else set()
    features |= {"style sheets"} if any(block.startswith("STYLE") for block in header_blocks) else set()
    features |= {"positions"} if any(_VTT_SETTING.search(cue.settings) for cue in parsed.cues) else set()
    if not header_blocks or not is_vtt(header_blocks[0].split("\n", 1)):
        header_blocks.insert(0, "WEBVTT")
    file = _build_file("vtt", parsed, parse_vtt_markup, _VTT_TIMING, problems, frozenset(features))
    language = _VTT_LANGUAGE.search(header_blocks[0])
    return file._replace(header="\n\n".join(header_blocks), language=None if language is None else language[1])


def _build_file(
    format: str,
    parsed: ParsedCues,
    parse: Callable[[str], Markup],
    timing: re.Pattern[str],
    problems: list[CaptionProblem],
    features: frozenset[str],
) -> CaptionFile:
    problems += parsed.problems
    cues = []
    all_features = set(features)
    for cue in parsed.cues:
        if not timing.match(cue.timing):
            problems.append(CaptionProblem("time", f"times are not in the form of {format}", cue.line))
        markup = parse(cue.text)
        all_features |= markup.features
        problems += (CaptionProblem("tag", f"unknown tag {tag[:40]}", cue.line) for tag in markup.unknown_tags[:1])
        native = NativeCue(format, cue.text, cue.name, cue.settings)
        cues.append(CaptionCue(cue.start_s, cue.end_s, markup.text, markup.speaker, markup.styles, cue.line, native))
    return CaptionFile(format, tuple(cues), features=frozenset(all_features), problems=tuple(problems))


# --- ASS -------------------------------------------------------------------------------------------------------------


def _parse_ass(text: str, source: str, fps: float | None) -> CaptionFile:
    """Parse ASS and SSA. The styles of the file that are bold or italic, where Default is not, style their cues."""
    cues: list[CaptionCue] = []
    problems: list[CaptionProblem] = []
    header: list[str] = []
    features: set[str] = set()
    styles: dict[str, frozenset[str]] = {}
    section, style_fields, event_fields = "", [], list(_ASS_FIELDS)
    for number, line in enumerate(split_lines(text), 1):
        if line.startswith("[") and line.endswith("]"):
            section = line.lower()
        if section != "[events]":
            header.append(line)
        kind, colon, value = line.partition(":")
        kind = kind.strip().lower()
        if not colon:
            continue
        if section in ("[v4+ styles]", "[v4 styles]") and kind in ("format", "style"):
            if kind == "format":
                style_fields = [field.strip().lower() for field in value.split(",")]
            else:
                row = dict(zip(style_fields, (field.strip() for field in value.split(",")), strict=False))
                styles[row.get("name", "").lstrip("*")] = _list_ass_styles(row)
        elif section == "[events]" and kind == "format":
            event_fields = [field.strip().lower() for field in value.split(",")]
        elif section == "[events]" and kind == "comment":
            features.add("comments")
        elif section == "[events]" and kind == "dialogue":
            cue = _parse_dialogue(value, event_fields, number, features)
            if cue is None:
                problems.append(CaptionProblem("time", "malformed event", number, True))
            else:
                cues.append(cue)
    default = styles.get("Default", frozenset())
    styled = tuple(_add_ass_styles(cue, styles, default) for cue in cues)
    is_ssa = any(line.strip().lower() == "[v4 styles]" for line in header)
    own_header = "" if is_ssa else "\n".join(header).strip("\n")
    return CaptionFile("ass", styled, header=own_header, features=frozenset(features), problems=tuple(problems))


def _list_ass_styles(row: Mapping[str, str]) -> frozenset[str]:
    fields = {"b": "bold", "i": "italic", "u": "underline", "s": "strikeout"}
    return frozenset(name for name, field in fields.items() if row.get(field, "0") not in ("", "0"))


def _parse_dialogue(value: str, fields: Sequence[str], number: int, features: set[str]) -> CaptionCue | None:
    parts = value.lstrip().split(",", len(fields) - 1)
    row = dict(zip(fields, parts, strict=False))
    start_s, end_s = _parse_ass_clock(row.get("start", "")), _parse_ass_clock(row.get("end", ""))
    if len(parts) < len(fields) or start_s is None or end_s is None or "text" not in row:
        return None
    markup = parse_ass_markup(row["text"])
    features |= markup.features
    layer = row.get("layer", "0").strip()
    settings = [layer if layer.isdecimal() else "0", row.get("style", "Default").strip(), row.get("name", "").strip()]
    settings += [row.get(field, "0").strip() for field in ("marginl", "marginr", "marginv")]
    settings.append(row.get("effect", "").strip())
    native = NativeCue("ass", row["text"].strip(), settings=",".join(settings))
    return CaptionCue(start_s, end_s, markup.text, settings[2] or None, markup.styles, number, native)


def _parse_ass_clock(text: str) -> float | None:
    match = _ASS_CLOCK.fullmatch(text)
    if match is None:
        return None
    hours, minutes, seconds = (int(match[group]) for group in (1, 2, 3))
    time_s = hours * 3600 + minutes * 60 + seconds + int((match[4] or "0").ljust(3, "0")) / 1000
    return time_s if time_s < MAX_TIME_S else None


def _add_ass_styles(cue: CaptionCue, styles: Mapping[str, frozenset[str]], default: frozenset[str]) -> CaptionCue:
    style = cue.native.settings.split(",", 2)[1].lstrip("*") if cue.native is not None else ""
    names = sorted(styles.get(style, default) - default - {span.name for span in cue.styles})
    added = tuple(StyleSpan(0, len(cue.text), name) for name in names if cue.text)
    return cue._replace(styles=tuple(sorted(cue.styles + added))) if added else cue


# --- MicroDVD --------------------------------------------------------------------------------------------------------


def _parse_sub(text: str, source: str, fps: float | None) -> CaptionFile:
    rows: list[tuple[int, int, int | None, str]] = []
    problems: list[CaptionProblem] = []
    features: set[str] = set()
    declared: float | None = None
    for number, line in enumerate(split_lines(text), 1):
        match = _SUB_LINE.match(line)
        if match is not None:
            if declared is None and not rows and (rate := _parse_fps(match)) is not None:
                declared = rate
                continue
            rows.append((number, int(match[1]), int(match[2]) if match[2] else None, match[3]))
        elif _SUB_HEADER.match(line):
            features.add("fonts")
        elif line.strip():
            problems.append(
                CaptionProblem("time", "no frames, such as {25}{75}, at the start of the line", number, True)
            )
    rate = fps or declared
    if rows and rate is None:
        raise UsageError(f"{source} does not state its frame rate", hint="set it, for example --fps 23.976")
    cues: list[CaptionCue] = []
    for index, (number, start, end, raw) in enumerate(rows):
        markup = parse_sub_markup(raw)
        features |= markup.features
        assert rate is not None
        last = start + round(LAST_CUE_S * rate)
        following = rows[index + 1][1] if index + 1 < len(rows) else last
        start_s, end_s = start / rate, (max(min(following, last), start) if end is None else end) / rate
        if max(start_s, end_s) >= MAX_TIME_S:
            problems.append(CaptionProblem("time", "frames out of range", number, True))
            continue
        native = NativeCue("sub", raw.strip())
        cues.append(CaptionCue(start_s, end_s, markup.text, None, markup.styles, number, native))
    return CaptionFile("sub", tuple(cues), fps=rate, features=frozenset(features), problems=tuple(problems))


def _parse_fps(match: re.Match[str]) -> float | None:
    """Return the frames per second of the line `{1}{1}25.000`, or None."""
    if match[1] not in ("0", "1") or match[2] not in ("0", "1"):
        return None
    try:
        rate = float(match[3].strip().replace(",", "."))
    except ValueError:
        return None
    return rate if 1 <= rate <= 1000 else None


# --- LRC -------------------------------------------------------------------------------------------------------------


class _LrcLine(NamedTuple):
    start_s: float
    text: str
    line: int


def _parse_lrc(text: str, source: str, fps: float | None) -> CaptionFile:
    """Parse LRC. A line ends with the next one, which may be empty, and lines with several times are repeated."""
    rows: list[_LrcLine] = []
    problems: list[CaptionProblem] = []
    header: list[str] = []
    offset_s, length_s = 0.0, None
    for number, line in enumerate(split_lines(text), 1):
        times, tag = _LRC_TIMES.match(line), _LRC_TAG.match(line)
        if times is not None:
            content = line[times.end() :].strip()
            starts = [_parse_lrc_time(match) for match in _LRC_TIME.finditer(times[1])]
            rows += (_LrcLine(start_s, content, number) for start_s in starts)
        elif tag is not None and tag[1].lower() == "offset":
            offset_s = _parse_number(tag[2]) / 1000
        elif tag is not None:
            header.append(line.strip())
            match = _LRC_TIME.match(f"[{tag[2].strip()}]") if tag[1].lower() == "length" else None
            length_s = length_s if match is None else _parse_lrc_time(match)
        elif line.strip() and rows:
            problems.append(CaptionProblem("text", "a line without a time", number))
            rows[-1] = rows[-1]._replace(text=f"{rows[-1].text} {line.strip()}".strip())
        elif line.strip():
            problems.append(CaptionProblem("text", "a line without a time before the first one", number, True))
    if any(later.start_s < earlier.start_s for earlier, later in pairwise(rows)):
        rows.sort(key=lambda row: row.start_s)
    cues: list[CaptionCue] = []
    features: set[str] = set()
    for index, row in enumerate(rows):
        if not row.text:
            continue
        following = next((later.start_s for later in rows[index + 1 : index + 50] if later.start_s > row.start_s), None)
        if following is None:
            following = length_s if length_s is not None and length_s > row.start_s else row.start_s + LAST_CUE_S
        markup = parse_lrc_markup(row.text)
        features |= markup.features
        start_s, end_s = max(row.start_s - offset_s, 0.0), max(following - offset_s, 0.0)
        text = map_word_times(row.text, "lrc", lambda time_s: time_s - offset_s) if offset_s else row.text
        cues.append(CaptionCue(start_s, end_s, markup.text, None, (), row.line, NativeCue("lrc", text)))
    return CaptionFile(
        "lrc", tuple(cues), header="\n".join(header), features=frozenset(features), problems=tuple(problems)
    )


def _parse_lrc_time(match: re.Match[str]) -> float:
    return int(match[1]) * 60 + int(match[2]) + float(f"0.{match[3] or 0}")


def _parse_number(text: str) -> float:
    match = re.fullmatch(r"\s*([+-]?\d{1,9}(?:\.\d{1,3})?)\s*", text, re.ASCII)
    return float(match[1]) if match is not None else 0.0


# --- TTML ------------------------------------------------------------------------------------------------------------


class _TtmlTimes(NamedTuple):
    """How a document counts frames and ticks, and whether nested times are absolute, as in Apple's lyrics."""

    frame_rate: float
    tick_rate: float
    is_absolute: bool


def _parse_ttml(text: str, source: str, fps: float | None) -> CaptionFile:
    try:
        tree = parse_xml(text)
    except MalformedXml as error:
        raise UsageError(f"{source} is not well-formed XML: {error}") from error
    if get_local_name(tree.root) != "tt":
        raise UsageError(f"{source} is not TTML: its first element is not tt")
    return _TtmlParser(tree.root, tree.lines).parse()


class _TtmlParser:
    def __init__(self, root: Element, lines: Mapping[Element, int]) -> None:
        self._root = root
        self._lines = lines
        self._cues: list[CaptionCue] = []
        self._problems: list[CaptionProblem] = []
        self._features: set[str] = set()
        self._styles: dict[str, Element] = {}
        self._agents: dict[str, str] = {}
        frame_rate = _parse_number(get_attribute(root, "frameRate")) or 30.0
        multiplier = [
            int(part) for part in get_attribute(root, "frameRateMultiplier", "1 1").split() if part.isdecimal()
        ]
        if len(multiplier) == 2 and all(multiplier):
            frame_rate *= multiplier[0] / multiplier[1]
        tick_rate = _parse_number(get_attribute(root, "tickRate")) or frame_rate
        self._times = _TtmlTimes(frame_rate, tick_rate, any("itunes" in name.lower() for name in root.attrib))

    def parse(self) -> CaptionFile:
        for element in self._root.iter():
            name, identifier = get_local_name(element), get_attribute(element, "id")
            if name == "style" and identifier:
                self._styles[identifier] = element
            elif name == "agent" and identifier:
                names = [
                    " ".join("".join(part.itertext()).split()) for part in element if get_local_name(part) == "name"
                ]
                self._agents[identifier] = next(filter(None, names), identifier)
            elif name == "region":
                self._features.add("positions")
        for element in self._root:
            if get_local_name(element) == "body":
                self._parse_container(element, 0.0, None, "")
        language = get_attribute(self._root, "lang") or None
        return CaptionFile(
            "ttml",
            tuple(self._cues),
            language=language,
            features=frozenset(self._features),
            problems=tuple(self._problems),
        )

    def _parse_container(self, element: Element, origin_s: float, end_s: float | None, agent: str) -> None:
        """Parse `body` and `div`. Times are relative to those of the parent."""
        begin_s, end_s = self._get_times(element, origin_s, end_s)
        agent = get_attribute(element, "agent", agent)
        if get_attribute(element, "timeContainer") == "seq":
            self._add_problem(element, "timeContainer seq is not supported")
        for child in element:
            if get_local_name(child) == "div":
                self._parse_container(child, begin_s, end_s, agent)
            elif get_local_name(child) == "p":
                self._parse_paragraph(child, begin_s, end_s, agent)

    def _parse_paragraph(self, element: Element, origin_s: float, end_s: float | None, agent: str) -> None:
        parts: list[str] = []
        spans: list[StyleSpan] = []
        self._collect_text(element, parts, spans, get_attribute(element, "space") == "preserve")
        text, styles = strip_lines("".join(parts), spans)
        if not text and not get_attribute(element, "begin"):
            return
        begin_s, end_s = self._get_times(element, origin_s, end_s)
        agent = get_attribute(element, "agent", agent).split(" ")[0]
        self._cues.append(
            CaptionCue(
                begin_s,
                begin_s + LAST_CUE_S if end_s is None else end_s,
                text,
                self._agents.get(agent, agent) or None,
                tuple(sorted(styles)),
                self._lines.get(element, 0),
            )
        )

    def _collect_text(self, element: Element, parts: list[str], spans: list[StyleSpan], preserve: bool) -> None:
        start = sum(map(len, parts))
        self._add_text(element.text, parts, preserve)
        for child in element:
            name = get_local_name(child)
            if name == "br":
                parts.append("\n")
            elif name == "span":
                if get_attribute(child, "begin"):
                    self._features.add("word times")
                self._collect_text(child, parts, spans, preserve)
            self._add_text(child.tail, parts, preserve)
        end = sum(map(len, parts))
        for style, value in self._list_styles(element).items():
            if end > start:
                spans.append(StyleSpan(start, end, style, value))

    def _add_text(self, text: str | None, parts: list[str], preserve: bool) -> None:
        if text:
            collapsed = text if preserve else re.sub(r"[ \t\r\n]+", " ", text)
            parts.append(collapsed)

    def _list_styles(self, element: Element) -> dict[str, str]:
        """Return the styles of an element: those that it refers to, then its own."""
        found: dict[str, str] = {}
        referred = [self._styles[name] for name in get_attribute(element, "style").split() if name in self._styles]
        for source in (*referred, element):
            if get_attribute(source, "fontWeight") == "bold":
                found["b"] = ""
            if get_attribute(source, "fontStyle") in ("italic", "oblique"):
                found["i"] = ""
            decoration = get_attribute(source, "textDecoration").split()
            found |= {"u": ""} if "underline" in decoration else {}
            found |= {"s": ""} if "lineThrough" in decoration else {}
            color = get_attribute(source, "color").lower()
            if _COLOR.fullmatch(color):
                found["color"] = color[:7]
            elif color:
                self._features.add("colors by name")
        return found

    def _get_times(self, element: Element, origin_s: float, parent_end_s: float | None) -> tuple[float, float | None]:
        origin_s = 0.0 if self._times.is_absolute else origin_s
        begin = self._parse_time(element, "begin")
        end, duration = self._parse_time(element, "end"), self._parse_time(element, "dur")
        begin_s = origin_s if begin is None else origin_s + begin
        if end is not None:
            return begin_s, origin_s + end
        return begin_s, begin_s + duration if duration is not None else parent_end_s

    def _parse_time(self, element: Element, name: str) -> float | None:
        text = get_attribute(element, name).strip()
        if not text:
            return None
        time_s = _parse_ttml_time(text, self._times)
        if time_s is None or time_s >= MAX_TIME_S:
            self._add_problem(element, f"malformed time {text[:40]!r}")
            return None
        return time_s

    def _add_problem(self, element: Element, message: str) -> None:
        self._problems.append(CaptionProblem("time", message, self._lines.get(element, 0), True))


def _parse_ttml_time(text: str, times: _TtmlTimes) -> float | None:
    """Parse a time expression of TTML (section 10.3.1), and the short `1:02.5` of Apple's lyrics."""
    if (match := _TTML_CLOCK.fullmatch(text)) is not None:
        seconds = int(match[1]) * 3600 + int(match[2]) * 60 + int(match[3])
        return seconds + (float(f"0.{match[4]}") if match[4] else int(match[5] or 0) / times.frame_rate)
    if (match := _TTML_OFFSET.fullmatch(text)) is not None:
        units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "f": 1 / times.frame_rate, "t": 1 / times.tick_rate}
        return float(match[1]) * units[match[2]]
    if (match := re.fullmatch(r"(?:(\d{1,4}):)?(\d{1,6}(?:\.\d{1,9})?)", text, re.ASCII)) is not None:
        return int(match[1] or 0) * 60 + float(match[2])
    return None


_PARSERS: Mapping[str, Callable[[str, str, float | None], CaptionFile]] = {
    "srt": _parse_srt,
    "vtt": _parse_vtt,
    "ass": _parse_ass,
    "ttml": _parse_ttml,
    "sub": _parse_sub,
    "lrc": _parse_lrc,
}
