"""Read SSML (W3C Speech Synthesis Markup Language 1.1) as text with pauses and voices.

| SSML | speech |
|---|---|
| `break` | a pause after the text before it |
| `voice name="…"` | the voice |
| `p`, `s` | a paragraph; a sentence, which ends with a full stop |
| `sub alias="…"` | the alias |
| `say-as` characters, spell-out, verbatim, digits | single characters |
| `say-as` telephone | single digits, with a comma between groups |
| `say-as` date with a format | year, month and day, such as 2027-05-12 |
| `audio` | the text inside, which is meant for when the clip is missing |
| `prosody`, `emphasis`, `phoneme` and others | the text inside, with a warning for each kind |
| `mark`, `lexicon`, `metadata`, `desc` | omitted |
"""

from __future__ import annotations

import re
from collections import Counter
from xml.etree.ElementTree import Element

from ...errors import UsageError
from ..document import Chapter, Document, Paragraph
from .blocks import terminate_sentence
from .encoding import decode_content, find_declared_encoding
from .xml_tree import MalformedXml, XmlTree, get_attribute, get_local_name, parse_xml

# Silences of Azure and Google for the strengths, which the standard leaves open.
_BREAK_MS = {"none": 0.0, "x-weak": 250.0, "weak": 500.0, "medium": 750.0, "strong": 1000.0, "x-strong": 1250.0}
_TIME = re.compile(r"\+?(\d+(?:\.\d*)?|\.\d+)(ms|s)", re.ASCII)
_SILENT = frozenset(("mark", "lexicon", "lookup", "metadata", "meta", "desc"))
# Elements that change nothing in plain text.
_NEUTRAL = frozenset(("speak", "audio", "w", "token", "lang"))
_SPELLED = frozenset(("characters", "character", "spell-out", "verbatim", "digits"))
_NUMBER = re.compile(r"\d+", re.ASCII)


def read(content: bytes, source: str, *, encoding: str | None = None) -> Document:
    """Read SSML.

    Raises:
        UsageError: The text is not well-formed, is not SSML, or a break has a malformed time. The message has the line.
    """
    text = decode_content(content, source, encoding, declared=find_declared_encoding(content))
    try:
        tree = parse_xml(text, has_namespaces=False)
    except MalformedXml as error:
        raise UsageError(f"{source} is not well-formed SSML: {error}") from error
    if get_local_name(tree.root) != "speak":
        raise UsageError(f"{source} is not SSML: it begins with <{tree.root.tag}>, not <speak>")
    reader = _SsmlReader(tree, source)
    reader.add_element(tree.root)
    reader.end_paragraph()
    paragraphs = tuple(reader.paragraphs)
    return Document(
        (Chapter(None, paragraphs),) if paragraphs else (),
        language=tree.root.get("xml:lang"),
        warnings=tuple(reader.warnings.values()),
        omitted=dict(reader.omitted),
    )


class _SsmlReader:
    def __init__(self, tree: XmlTree, source: str) -> None:
        self.paragraphs: list[Paragraph] = []
        self.warnings: dict[str, str] = {}
        self.omitted: Counter[str] = Counter()
        self._lines = tree.lines
        self._source = source
        self._parts: list[str] = []
        self._voice: str | None = None

    def end_paragraph(self, pause_ms: float | None = None) -> None:
        """End the paragraph. Pauses without text between them add up."""
        text = " ".join("".join(self._parts).split())
        self._parts.clear()
        if text:
            self.paragraphs.append(Paragraph(text, self._voice, pause_ms))
        elif pause_ms is not None and self.paragraphs:
            last = self.paragraphs[-1]
            self.paragraphs[-1] = last._replace(pause_ms=(last.pause_ms or 0) + pause_ms)
        elif pause_ms is not None:
            self.omitted["pause at the beginning"] += 1

    def add_element(self, element: Element) -> None:
        """Add the text of an element and of its children."""
        name = get_local_name(element)
        if name in _SILENT:
            return
        if name == "break":
            pause_ms = self._parse_break(element)
            if pause_ms:
                self.end_paragraph(pause_ms)
        elif name == "sub":
            self._parts.append(element.get("alias") or "".join(element.itertext()))
        elif name == "say-as":
            self._parts.append(self._convert_say_as(element))
        elif name == "voice":
            self._add_voice(element)
        elif name == "p":
            self.end_paragraph()
            self._add_content(element)
            self.end_paragraph()
        elif name == "s":
            self._add_sentence(element)
        else:
            if name == "audio":
                self.omitted["audio clip"] += 1
            elif name not in _NEUTRAL:
                self._warn(name, f"<{element.tag}> is not supported; its text is spoken without it")
            self._add_content(element)

    def _add_content(self, element: Element) -> None:
        self._parts.append(element.text or "")
        for child in element:
            self.add_element(child)
            self._parts.append(child.tail or "")

    def _add_voice(self, element: Element) -> None:
        voice = element.get("name")
        if not voice:
            self._warn("voice", "<voice> without a name is not supported; its text is spoken by the same voice")
        previous = self._voice
        self.end_paragraph()
        self._voice = voice or previous
        self._add_content(element)
        self.end_paragraph()
        self._voice = previous

    def _add_sentence(self, element: Element) -> None:
        first = len(self._parts)
        self._add_content(element)
        first = min(first, len(self._parts))  # a break in the sentence ends the paragraph
        text = "".join(self._parts[first:]).rstrip()
        self._parts[first:] = [" ", terminate_sentence(text), " "]

    def _warn(self, kind: str, message: str) -> None:
        self.warnings.setdefault(kind, message)

    def _parse_break(self, element: Element) -> float:
        """Return the length of a pause in milliseconds."""
        time = (element.get("time") or "").strip()
        if not time:
            strength = element.get("strength") or "medium"
            if strength not in _BREAK_MS:
                raise self._build_error(element, f"unknown strength {strength!r} of a break", ", ".join(_BREAK_MS))
            return _BREAK_MS[strength]
        match = _TIME.fullmatch(time)
        if match is None:
            raise self._build_error(element, f"malformed time {time!r} of a break", "250ms, 1.5s")
        return float(match[1]) * (1 if match[2] == "ms" else 1000)

    def _build_error(self, element: Element, reason: str, examples: str) -> UsageError:
        return UsageError(f"{self._source}: line {self._lines[element]}: {reason}", hint=f"use {examples}")

    def _convert_say_as(self, element: Element) -> str:
        kind = (get_attribute(element, "interpret-as") or get_attribute(element, "type")).lower()
        text = " ".join("".join(element.itertext()).split())
        if kind in _SPELLED:
            return " ".join(text.replace(" ", ""))
        if kind == "telephone":
            groups = re.findall(r"\+?\w+", text)
            return ", ".join(" ".join(group) for group in groups)
        if kind == "date" and (date := _convert_date(text, get_attribute(element, "format"))):
            return date
        self._warn(f"say-as {kind}", f'<say-as interpret-as="{kind}"> is not supported; its text is spoken unchanged')
        return text


def _convert_date(text: str, format: str) -> str | None:
    """Return a date of digits as year, month and day, or None. `format` is the order of the three, such as `dmy`."""
    order = re.sub(r"(.)\1+", r"\1", format.lower())  # also `yyyymmdd`
    numbers = _NUMBER.findall(text)
    if sorted(order) != ["d", "m", "y"] or len(numbers) != 3:
        return None
    parts = dict(zip(order, numbers, strict=True))
    return "-".join(parts[key].zfill(2) for key in "ymd") if len(parts["y"]) == 4 else None
