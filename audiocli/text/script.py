"""Split a script into paragraphs with voices.

| line | meaning |
|---|---|
| `Alice: Hello.`, `**Alice:** Hello.`, `Alice (whispers): Hello.` | Alice speaks, if the cast has her |
| `[voice: nova]`, also before text | the next text has this voice, or that of this speaker of the cast |
| `[voice: default]` | the next text has the default voice |
| any other | continues the speech of the same speaker |

Labels and directives are not spoken. A turn ends at the next label or directive, also after empty lines. Names are
compared without case. `Note: …` and `12:30` are text, because the cast has no such name. In a file that is declared to
be a script, every `Name: …` at the beginning of a line is a label, and names without a voice have the default voice.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping

from .document import Paragraph

DEFAULT_VOICE = "default"

_DIRECTIVE = re.compile(r"\s*\[\s*voice\s*[:：=]\s*([^\[\]]{0,100}?)\s*\]\s*", re.IGNORECASE)
# Emphasis is that of Markdown. What follows the name in parentheses is a stage direction.
_LABEL = re.compile(
    r"(?P<emphasis>[*_]{0,3})(?P<name>(?=\S)[^:：()<>*]{1,60}?)\s*(?:\([^()]{1,80}\)\s*)?"
    r"(?:(?P=emphasis)(?P<colon>[:：])|(?P<colon_inside>[:：])(?P=emphasis))(?P<space>\s*)"
)
# Names that are labels although the cast does not have them: up to five words, the first one begins with a letter.
_NAME = re.compile(r"[^\W\d_][\w.'’&#-]*(?: [\w.'’&#-]+){0,4}")
# In a text that is not declared to be a script, a label that occurs once may be any word before a colon.
_MIN_UNDECLARED_LINES = 2


def parse_script(text: str, cast: Mapping[str, str]) -> tuple[Paragraph, ...]:
    """Return the paragraphs of a script with their voices. `cast` has the voices by the names of the speakers."""
    return ScriptParser(cast).parse(text)


class ScriptParser:
    """Parse a script that may arrive in several texts. The voice at the end of one continues in the next."""

    def __init__(self, cast: Mapping[str, str], *, is_script: bool = False) -> None:
        """Create a parser for a cast, voices by name. `is_script`: names that it does not have are labels as well."""
        self._cast = {fold_name(name): (name, voice) for name, voice in cast.items()}
        self._is_script = is_script
        self._voice: str | None = None
        self._speakers: dict[str, None] = {}
        self._unknown_labels: Counter[str] = Counter()

    @property
    def speakers(self) -> tuple[str, ...]:
        """The names of the cast that have spoken so far."""
        return tuple(self._speakers)

    @property
    def unknown_speakers(self) -> dict[str, int]:
        """Names without a voice that have spoken so far, with the number of their lines.

        In a text that is not declared to be a script, these are labels that occur at least twice. They are spoken.
        """
        min_lines = 1 if self._is_script else _MIN_UNDECLARED_LINES
        return {name: count for name, count in self._unknown_labels.items() if count >= min_lines}

    def parse(self, text: str) -> tuple[Paragraph, ...]:
        """Return the paragraphs of a text. Empty lines, labels and directives begin a paragraph; none is empty."""
        paragraphs: list[Paragraph] = []
        lines: list[str] = []

        def end_paragraph() -> None:
            if lines:
                paragraphs.append(Paragraph("\n".join(lines), self._voice))
                lines.clear()

        for line in text.replace("\r\n", "\n").split("\n"):
            turn = self._read_turn(line)
            if turn is not None:
                end_paragraph()
                self._voice, line = turn
            if line.strip():
                lines.append(line)
            elif turn is None:
                end_paragraph()
        end_paragraph()
        return tuple(paragraphs)

    def _read_turn(self, line: str) -> tuple[str | None, str] | None:
        """Return the voice and the text after a directive or a label; None if the line begins with neither."""
        if (directive := _DIRECTIVE.match(line)) is not None:
            name = directive[1]
            _, voice = self._cast.get(fold_name(name), (name, name))
            return None if name.lower() in ("", DEFAULT_VOICE) else voice, line[directive.end() :]
        line = line.lstrip()
        label = _LABEL.match(line)
        if label is None:
            return None
        rest = line[label.end() :]
        name = " ".join(label["name"].split())
        is_spaced = bool(label["space"]) or not rest or "：" in (label["colon"], label["colon_inside"])
        member = self._cast.get(fold_name(name))
        if member is not None and (is_spaced or not (rest[0] == "/" or rest[0].isdigit())):
            self._speakers[member[0]] = None
            return member[1], rest
        if member is not None or not is_spaced or not _NAME.fullmatch(name):
            return None
        self._unknown_labels[name] += 1
        return (None, rest) if self._is_script else None


def fold_name(name: str) -> str:
    """Return a form of a name that is equal for its spellings."""
    return unicodedata.normalize("NFKC", " ".join(name.split()).casefold())
