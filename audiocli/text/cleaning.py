"""Remove what cannot be spoken and cannot be seen: terminal escapes, overstrikes, hyphenation, invisible characters.

| input | result |
|---|---|
| ANSI escape sequences, OSC 8 links | the text between them |
| backspace overstrikes (`l\\bl`, `_\\bl` in man pages) | the character that remains visible |
| a word hyphenated at a line end | the word |
| soft hyphens, zero-width and other format characters, bidi controls | removed |
| joiners in Arabic, Indic and emoji, U+200B in Thai, Lao, Burmese and Khmer | unchanged |
| control characters, except tab and line ends | removed; separators become line ends |

Visible characters and white space are unchanged.
"""

from __future__ import annotations

import re
import unicodedata

# ECMA-48, section 5.4 and 8.3; OSC also ends with BEL (xterm control sequences). A string without an end loses only its
# introducer, so that no text disappears.
_STRING_BODY = r"[^\x07\x1b\x80-\x9f]*"
_ESCAPE = re.compile(
    rf"(?:\x1b\]|\x9d){_STRING_BODY}(?:\x07|\x1b\\|\x9c)"  # OSC: links, titles
    rf"|(?:\x1b[PX^_]|[\x90\x98\x9e\x9f]){_STRING_BODY}(?:\x1b\\|\x9c)"  # DCS, SOS, PM, APC
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI: colors, cursor movements
    r"|\x1b[ -/]*[0-~]?"  # character sets and all others
)
_UNFINISHED_ESCAPE = re.compile(
    rf"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f]){_STRING_BODY}\x1b?\Z|(?:\x1b\[|\x9b)[0-?]*[ -/]*\Z|\x1b[ -/]*\Z"
)
_BACKSPACES = re.compile(r"\x08+")
_OVERSTRUCK_LINE = re.compile(r"[^\n\r]*\x08[^\n\r]*")

_LINE_BREAK = r"[ \t]*(?:\r\n|\r|\n)[ \t]*"
_SOFT_HYPHENATION = re.compile(rf"\u00ad{_LINE_BREAK}(?=\S)")
_HYPHENATION = re.compile(rf"(?<=[^\W\d_])[-\u2010]{_LINE_BREAK}(?=[^\W\d_])")
_TOKEN = re.compile(r"\S*")
_LAST_TOKEN = re.compile(r"\S+\Z")
_LETTERS = re.compile(r"[^\W\d_]*")
_MAX_WORD_CHARACTERS = 100  # longer words are not hyphenated words
# After a suspended hyphen ("Vor- und Nachteile", "two- or three-day") the hyphen belongs to the word.
_CONJUNCTIONS = frozenset(
    ("and", "or", "to", "nor", "und", "oder", "bis", "bzw", "sowie", "et", "ou", "y", "o", "e", "en", "of", "och", "og")
)

_SEPARATORS = re.compile(r"[\x1c-\x1f]")
_BLANK_LETTERS = re.compile(r"[\u3164\uffa0\u2800]")  # Hangul fillers and the empty Braille pattern look like spaces
_INVISIBLE = re.compile(
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffc]"
    r"|(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0000-\U000e007f]+"  # tags outside flags of regions
)
_ZERO_WIDTH = re.compile(r"[\u200b-\u200d]+")
# Arabic and its neighbors, Indic scripts, Tibetan, Burmese, Khmer, Mongolian, Southeast Asian scripts, Arabic forms.
_JOINING_SCRIPT = re.compile(
    r"[\u0600-\u0dff\u0f00-\u109f\u1780-\u18af\u1900-\u1aaf\u1b00-\u1c4f\ua800-\ua8ff\uaa00-\uaadf\uabc0-\uabff"
    r"\ufb50-\ufdff\ufe70-\ufefc\U00010a00-\U00010fff\U00011000-\U00011fff\U0001e900-\U0001e95f]"
)
_ZERO_WIDTH_SPACE_SCRIPT = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")

_UNFINISHED_HYPHENATION = re.compile(r"(?:(?<=[^\W\d_])[-\u2010]|\u00ad)(?:[ \t\r\n]*|[ \t]*[\r\n]+[ \t]*\S+)\Z")
# The last character, with those before it that belong to it: a joiner or a backspace is between them.
_BASE, _MARKS, _JOINERS = r"[^\s\x08\u0300-\u036f\u200b-\u200d]", r"[\u0300-\u036f]*", r"[\x08\u200b-\u200d]"
_UNFINISHED_CHARACTER = re.compile(rf"(?:{_BASE}{_MARKS}{_JOINERS}+)*(?:{_BASE}{_MARKS})?\Z")
_MAX_HELD_CHARACTERS = 4096


def clean_text(text: str) -> str:
    """Return the text without what cannot be spoken and cannot be seen."""
    if text.isascii() and text.isprintable():
        return text
    text = _ESCAPE.sub("", text)
    if "\x08" in text:
        text = _OVERSTRUCK_LINE.sub(lambda line: _overstrike(line.group()), text)
    text = _SOFT_HYPHENATION.sub("", text)
    text = _HYPHENATION.sub(_join_hyphenated, text)
    text = _BLANK_LETTERS.sub(" ", _SEPARATORS.sub("\n", text))
    return _ZERO_WIDTH.sub(_select_joiner, _INVISIBLE.sub("", text))


class StreamCleaner:
    """Clean a text that arrives in parts. The end of a part is held back while the next part may change it."""

    def __init__(self) -> None:
        self._held = ""
        self._last_token = ""  # of the returned text: what follows may depend on it

    def feed(self, text: str) -> str:
        """Add text and return what is complete, cleaned."""
        text = self._held + text
        escape = _UNFINISHED_ESCAPE.search(text, max(0, len(text) - _MAX_HELD_CHARACTERS))
        escape_start = len(text) if escape is None else escape.start()
        # Escapes are removed first, because a character may be separated by them from its backspace.
        plain = _ESCAPE.sub("", text[:escape_start])
        end = _find_complete_end(plain, self._last_token)
        self._held = plain[end:] + text[escape_start:]
        return self._clean(plain[:end])

    def finish(self) -> str:
        """Return the remaining text, cleaned."""
        text, self._held = self._held, ""
        return self._clean(text)

    def _clean(self, text: str) -> str:
        cleaned = clean_text(self._last_token + text)
        # Backspaces may go back further than the held character; the returned text cannot change then.
        is_unchanged = cleaned.startswith(self._last_token)
        cleaned = cleaned[len(self._last_token) :] if is_unchanged else clean_text(text)
        match = _LAST_TOKEN.search((self._last_token + cleaned)[-_MAX_WORD_CHARACTERS:])
        self._last_token = "" if match is None else match.group()
        return cleaned


def _find_complete_end(text: str, last_token: str) -> int:
    """Return the index up to which later text cannot change the result. `last_token` precedes the text."""
    combined = last_token + text
    end = len(combined)
    for pattern in (_UNFINISHED_CHARACTER, _UNFINISHED_HYPHENATION):
        first = max(len(last_token), len(combined) - _MAX_WORD_CHARACTERS)
        if (match := pattern.search(combined, first)) is not None:
            end = min(end, match.start())
    return end - len(last_token)


def _overstrike(line: str) -> str:
    """Return what a terminal or a printer shows of a line with backspaces. An underline does not replace a character.

    A wide character may be followed by one or two backspaces.
    """
    cells: list[str] = []
    column = 0
    position = 0
    while position < len(line):
        if (backspaces := _BACKSPACES.match(line, position)) is not None:
            columns = len(backspaces.group())
            while columns > 0 and column > 0:
                column -= 1
                columns -= 2 if unicodedata.east_asian_width(cells[column][0]) in "WF" else 1
            position = backspaces.end()
            continue
        char = line[position]
        position += 1
        if unicodedata.category(char)[0] == "M" and column > 0:
            cells[column - 1] += char
            continue
        if column == len(cells):
            cells.append(char)
        elif char != "_" or cells[column] == " ":
            cells[column] = char
        column += 1
    return "".join(cells)


def _join_hyphenated(match: re.Match[str]) -> str:
    """Return what replaces a hyphen and the line break after it.

    The hyphen stays in a compound with another hyphen ("state-of-⏎the-art"), and after a single letter ("e-⏎mail").
    """
    text = match.string
    following = _TOKEN.match(text, match.end(), match.end() + _MAX_WORD_CHARACTERS)
    letters = _LETTERS.match(text, match.end(), match.end() + _MAX_WORD_CHARACTERS)
    assert following is not None and letters is not None
    if not text[match.end()].islower() or letters.group() in _CONJUNCTIONS:
        return match.group()
    preceding = text[max(0, match.start() - _MAX_WORD_CHARACTERS) : match.start()].split()[-1]
    is_compound = any(hyphen in preceding or hyphen in following.group() for hyphen in "-\u2010")
    return match.group()[0] if is_compound or len(preceding) == 1 else ""


def _select_joiner(match: re.Match[str]) -> str:
    """Return the zero-width character that the script needs between its neighbors, or an empty string."""
    text, start, end = match.string, match.start(), match.end()
    before, after = text[start - 1 : start], text[end : end + 1]
    joiner = match.group()[0]
    if joiner == "\u200b":
        is_needed = bool(_ZERO_WIDTH_SPACE_SCRIPT.match(before) and _ZERO_WIDTH_SPACE_SCRIPT.match(after))
    elif joiner == "\u200d" and after and unicodedata.category(after) == "So":
        is_needed = before == "\ufe0f" or (before != "" and unicodedata.category(before) in ("So", "Sk"))
    else:
        is_needed = _JOINING_SCRIPT.match(before) is not None
    return joiner if is_needed else ""
