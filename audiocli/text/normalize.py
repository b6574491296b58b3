"""Leave out what a listener does not want to hear: the steps of `--clean`.

| step | input | result |
|---|---|---|
| `think` | `<think>…</think>` and the like in the output of a language model | removed |
| `boxes` | lines of box drawing, rules such as `-----`, frames of tables | removed; commas between cells |
| `wrap` | lines of a hard-wrapped paragraph | one line (`hard_wrapping.py`) |
| `urls` | `https://www.example.com/a?b=c`, `www.example.com` | `link to example.com`, in English |
| `emoji` | emoji with their modifiers | removed; a keycap becomes its digit |

The steps run in this order, on text that `cleaning.py` has cleaned. Letters and digits outside blocks of `think` and
outside URLs remain; the letter of the emoji ℹ️ does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol

import regex  # this module is imported only if a step is requested

from ..errors import UsageError, suggest

CLEAN_STEPS = ("urls", "emoji", "boxes", "think", "wrap")


class NormalizedText(NamedTuple):
    """A text after the steps of `--clean`.

    Attributes:
        omitted: How many things of each kind were left out, such as `{"URL": 2}`.
        warnings: What the user should know, such as a block without an end.
    """

    text: str
    omitted: dict[str, int]
    warnings: tuple[str, ...] = ()


def parse_steps(value: str) -> tuple[str, ...]:
    """Parse the value of `--clean`, a list separated by commas. Return the steps without repetitions.

    Raises:
        UsageError: A step is unknown, or there is none.
    """
    names = [name.strip().lower() for name in value.split(",")]
    for name in names:
        if name not in CLEAN_STEPS:
            reason = f"unknown step {name!r}{suggest(name, CLEAN_STEPS)}" if name else "a step is empty"
            raise UsageError(f"--clean {value}: {reason}", hint=f"steps: {', '.join(CLEAN_STEPS)}")
    return tuple(dict.fromkeys(names))


def normalize_text(text: str, steps: Collection[str]) -> NormalizedText:
    """Apply steps of `CLEAN_STEPS` to a whole text.

    The end of a `think` block without a beginning removes all text before it, because templates of DeepSeek and others
    put the beginning into the prompt. A block without an end removes all text after it, with a warning.
    """
    unopened_count = 0
    if "think" in steps:
        text, unopened_count = _drop_unopened_thought(text)
    blocks = StreamNormalizer([step for step in steps if step in ("think", "boxes")])
    text = blocks.feed(text) + blocks.finish()
    if "wrap" in steps:
        from .hard_wrapping import join_wrapped_lines

        text = join_wrapped_lines(text)
    symbols = StreamNormalizer([step for step in steps if step in ("urls", "emoji")])
    text = symbols.feed(text) + symbols.finish()
    omitted = blocks.omitted | symbols.omitted
    if unopened_count:
        omitted[_ThoughtStep.kind] = omitted.get(_ThoughtStep.kind, 0) + unopened_count
    return NormalizedText(text, omitted, blocks.warnings)


class StreamNormalizer:
    """Apply steps to a text that arrives in parts. The result does not depend on the parts.

    `wrap` is ignored, because it needs whole paragraphs. The end of a `think` block without a beginning removes only
    its tag, because the text before it may have been spoken.
    """

    def __init__(self, steps: Collection[str]) -> None:
        self._steps = [create() for name, create in _STREAM_STEPS.items() if name in steps]

    def feed(self, text: str) -> str:
        """Add text and return what is complete."""
        for step in self._steps:
            text = step.feed(text)
        return text

    def finish(self) -> str:
        """Return the remaining text."""
        text = ""
        for step in self._steps:
            text = step.feed(text) + step.finish()
        return text

    @property
    def omitted(self) -> dict[str, int]:
        """How many things of each kind were left out so far."""
        return {step.kind: step.count for step in self._steps if step.count}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know; complete after `finish`."""
        return tuple(warning for step in self._steps for warning in step.warnings)


class _Step(Protocol):
    """A step over a text that arrives in parts. `kind` names what it leaves out, `count` of them so far."""

    kind: str
    count: int
    warnings: list[str]

    def feed(self, text: str) -> str: ...

    def finish(self) -> str: ...


class _RunStep:
    """Replace what a pattern finds in runs of certain characters.

    `run` matches a run, possibly empty. A run is complete when another character follows. `replace` returns the
    replacement of a match and how many things it omits; in `match.string`, one character precedes the run, if there
    is one, and the end is the end of the text.
    """

    def __init__(
        self,
        kind: str,
        run: regex.Pattern[str],
        pattern: regex.Pattern[str],
        replace: Callable[[regex.Match[str]], tuple[str, int]],
    ) -> None:
        self.kind = kind
        self.count = 0
        self.warnings: list[str] = []
        self._run = run
        self._pattern = pattern
        self._replace = replace
        self._held = ""
        self._before = ""

    def feed(self, text: str) -> str:
        text = self._held + text
        end = _find_last_run(text, self._run)
        self._held = text[end:]
        return self._replace_matches(text[:end])

    def finish(self) -> str:
        text, self._held = self._held, ""
        return self._replace_matches(text)

    def _replace_matches(self, text: str) -> str:
        if not text:
            return ""
        result: str = self._pattern.sub(self._replace_match, self._before + text, pos=len(self._before))
        result = result[len(self._before) :]
        self._before = text[-1]
        return result

    def _replace_match(self, match: regex.Match[str]) -> str:
        replacement, count = self._replace(match)
        self.count += count
        return replacement


def _find_last_run(text: str, run: regex.Pattern[str]) -> int:
    """Return the start of the run at the end of a text. The text is reversed, so that the search takes linear time."""
    match = run.match(text[::-1])
    assert match is not None
    return len(text) - int(match.end())


def _get_neighbors(match: regex.Match[str]) -> tuple[str, str]:
    """Return the characters before and after a match; "" at the edges of the text."""
    start, end = match.span()
    return match.string[max(0, start - 1) : start], match.string[end : end + 1]


# --- URLs ------------------------------------------------------------------------------------------------------------

# The characters of RFC 3986 and angle brackets, and letters that browsers show in URLs. Scripts without spaces are not
# among them, because their text may follow a URL directly.
_URL_RUN = regex.compile(r"[!-~\u00c0-\u024f\u0300-\u0dff\u10a0-\u137f\u1e00-\u1fff]*")
_URL_START = (
    r"(?:(?<![A-Za-z0-9])(?:(?:git|hg|svn)\+)?(?:https?|ftps?|sftp|ssh|git|svn|wss?|rtsps?|rtmps?|gemini|gopher)://"
    r"|(?<![\w.@/:-])www\.(?=\w)|(?<!\w)mailto:(?=[\w.+-]+@\w))"
)
_URL_CHARACTER = rf"(?![,;|]+{_URL_START})[!-~\u00c0-\u024f\u0300-\u0dff\u10a0-\u137f\u1e00-\u1fff--[<>`]]"
_URL = regex.compile(
    r"(?=[<fghmrsw])(?:"  # the first letters: 2.1 s for 5 MB with them, 5.5 s without
    rf"<(?P<url>{_URL_START}(?:{_URL_CHARACTER})*+)>|(?P<url>{_URL_START}(?:(?!\"){_URL_CHARACTER})*+))",
    regex.IGNORECASE | regex.VERSION1,
)
_AUTHORITY = re.compile(r"(?:[a-z+]+://)?([^/?#\\]*)", re.IGNORECASE)
_HOST = re.compile(r"(?:.*@)?(?:\[([0-9a-f:.]+)\]|([\w.-]*\w))", re.IGNORECASE | re.DOTALL)
_MAIL_ADDRESS = re.compile(r"mailto:([^?]+)", re.IGNORECASE)
_BRACKETS = {")": "(", "]": "[", "}": "{"}


def _replace_url(match: regex.Match[str]) -> tuple[str, int]:
    url = match["url"]
    end = len(url) if match[0].startswith("<") else _find_url_end(url)
    rest = url[end:]
    if (address := _MAIL_ADDRESS.match(url, 0, end)) is not None:
        return address[1] + rest, 1
    authority = _AUTHORITY.match(url, 0, end)
    host = None if authority is None else _HOST.match(authority[1])
    if host is None:
        return match[0], 0
    name = host[1] or host[2]
    short_name = name[4:] if name[:4].lower() == "www." else name
    # In scripts without spaces, words may touch the URL.
    before, after = _get_neighbors(match)
    return f"{' ' * before.isalnum()}link to {short_name}{rest or ' ' * after.isalnum()}", 1


def _find_url_end(url: str) -> int:
    """Return the end of a URL without the punctuation of the sentence, as GitHub does: `(see https://a.org/b_(c))`."""
    surplus = {closing: url.count(closing) - url.count(opening) for closing, opening in _BRACKETS.items()}
    end = len(url)
    while url[end - 1] in "?!.,:;*_~'\\" or surplus.get(url[end - 1], 0) > 0:
        end -= 1
        if url[end] in surplus:
            surplus[url[end]] -= 1
    return end


# --- emoji -----------------------------------------------------------------------------------------------------------

# Symbols with the properties of emoji that are read as words or punctuation: © ® ™, marks, enclosed letters.
_EMOJI_BASE = (
    r"(?:[\p{Extended_Pictographic}--[\u00a9\u00ae\u203c\u2049\u2122\u2139\u24c2\u3030\u303d\u3297\u3299\U0001f51f]]"
    r"|\u2139\ufe0f)"
)
_EMOJI_PART = r"[\ufe0e\ufe0f\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]"
_EMOJI = (
    rf"(?:\p{{RI}}\p{{RI}}?|{_EMOJI_BASE}{_EMOJI_PART}*(?:\u200d{_EMOJI_BASE}{_EMOJI_PART}*)*"
    r"|[\U0001f3fb-\U0001f3ff]\ufe0f?)"
)
_EMOJI_RUN = regex.compile(
    r"[ \t0-9#*\u2139\u200d\u20e3\ufe0e\ufe0f\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f\p{RI}"
    r"\p{Extended_Pictographic}]*"
)
_EMOJI_OR_KEYCAP = regex.compile(
    rf"(?P<key>[0-9#*])\ufe0f?\u20e3|(?P<ten>\U0001f51f\ufe0f?)|(?<![ \t])[ \t]*(?:(?P<emoji>{_EMOJI})[ \t]*)+",
    regex.VERSION1,
)
_CLOSING_PUNCTUATION = frozenset(".,;:!?…)]}»”’。，、；：！？）」』】")


def _replace_emoji(match: regex.Match[str]) -> tuple[str, int]:
    """Return the key of a keycap, or the space that remains of emoji between words."""
    if match["key"] or match["ten"]:
        return match["key"] or "10", 1
    before, after = _get_neighbors(match)
    count = len(match.captures("emoji"))
    if not before or before in "\r\n" or not after or after in "\r\n" or after in _CLOSING_PUNCTUATION:
        return "", count
    has_space = " " in match[0] or "\t" in match[0]
    is_between_words = (before.isalnum() or before == "\u20e3") and after.isalnum()
    return " " if has_space or is_between_words else "", count


# --- boxes -----------------------------------------------------------------------------------------------------------

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_BOX = r"\u2500-\u259f"  # box drawing and block elements
_BOX_RUN = re.compile(rf"(?<![ \t])[ \t]*[{_BOX}][ \t{_BOX}]*")
_UNFINISHED_BOX_RUN = regex.compile(rf"[ \t{_BOX}]*")
_VERTICAL = re.compile(r"[\u2502\u2503\u2506\u2507\u250a\u250b\u2551\u254e\u254f]")
_RULE_CHARACTERS = re.compile(rf"[-=_~*#+|: \t{_BOX}]*")
_RULE = re.compile(rf"([-=_~*#])(?:[ \t]*\1){{2}}|[{_BOX}]")
_TABLE_ROW = re.compile(r"[ \t]*\|(.*)\|[ \t]*")
# Longer lines are neither rules nor rows, which bounds what a stream holds back.
_MAX_LINE_CHARACTERS = 8192


class _BoxStep:
    """Remove box drawing. Runs at the edges of a line disappear; between cells a comma remains."""

    kind = "line with box drawing"

    def __init__(self) -> None:
        self.count = 0
        self.warnings: list[str] = []
        self._held = ""
        self._last_character = ""  # of the current line, as far as it was returned
        self._is_line_counted = False

    def feed(self, text: str) -> str:
        return self._process(self._held + text, is_last=False)

    def finish(self) -> str:
        return self._process(self._held, is_last=True)

    def _process(self, text: str, *, is_last: bool) -> str:
        # A carriage return may be the first half of a line end.
        half_line_end = "\r" if text.endswith("\r") and not is_last else ""
        text = text.removesuffix(half_line_end)
        self._held = ""
        parts = []
        for line in _LINE.findall(text):
            content = line.rstrip("\r\n")
            if len(content) == len(line) and not is_last:
                parts.append(self._process_unfinished_line(content))
            else:
                parts.append(self._process_line_end(content) + line[len(content) :])
                self._last_character, self._is_line_counted = "", False
        self._held += half_line_end
        return "".join(parts)

    def _process_line_end(self, content: str) -> str:
        """Return a whole line, or the rest of one, without its boxes."""
        if not self._last_character and len(content) <= _MAX_LINE_CHARACTERS:
            if _RULE_CHARACTERS.fullmatch(content) and _RULE.search(content):
                self._count_line()
                return ""
            if (row := _TABLE_ROW.fullmatch(content)) is not None:
                self._count_line()
                content = ", ".join(cell.strip() for cell in row[1].split("|") if cell.strip())
        return self._replace_runs(content, is_line_end=True)

    def _process_unfinished_line(self, content: str) -> str:
        """Return what later text cannot change. A line that may be a rule or a row is held until its end."""
        may_be_rule_or_row = _RULE_CHARACTERS.fullmatch(content) or content.lstrip(" \t").startswith("|")
        if not self._last_character and len(content) <= _MAX_LINE_CHARACTERS and may_be_rule_or_row:
            self._held = content
            return ""
        end = _find_last_run(content, _UNFINISHED_BOX_RUN)
        self._held = content[end:]
        result = self._replace_runs(content[:end], is_line_end=False)
        self._last_character = content[:end][-1:] or self._last_character
        return result

    def _replace_runs(self, content: str, *, is_line_end: bool) -> str:
        def replace(match: re.Match[str]) -> str:
            self._count_line()
            before = content[: match.start()][-1:] or self._last_character
            if not before or (is_line_end and match.end() == len(content)):
                return ""
            is_cell_end = _VERTICAL.search(match[0]) and before not in ",.;:!?"
            return ", " if is_cell_end else " "

        return _BOX_RUN.sub(replace, content)

    def _count_line(self) -> None:
        self.count += not self._is_line_counted
        self._is_line_counted = True


# --- thoughts of language models -------------------------------------------------------------------------------------

# The tags of DeepSeek, Qwen, GLM and others, of prompts for Claude and Gemma, of Magistral and of Kimi. A tag in
# backticks is an example.
_THOUGHT_TAG = regex.compile(
    r"(?<!`)(?:"
    r"(?i:<(?P<end>/?)(?P<name>think|thinking|thought|reasoning)(?P<rest>(?:\s[^<>]{0,200})?/?)>)"
    r"|\[(?P<end>/?)(?P<name>THINK)\]"
    r"|\u25c1(?P<end>/?)(?P<name>think)\u25b7)"
)
_MAX_TAG_CHARACTERS = 220
_TAG_START = re.compile(r"[<\[\u25c1]")


class _ThoughtStep:
    """Remove the thoughts that a language model wrote before its answer."""

    kind = "think block"

    def __init__(self) -> None:
        self.count = 0
        self.warnings: list[str] = []
        self._held = ""
        self._before = ""  # the last character before the held text
        self._open_tag = ""  # the tag of the block that has begun

    def feed(self, text: str) -> str:
        return self._process(text, is_last=False)

    def finish(self) -> str:
        result = self._process("", is_last=True)
        if self._open_tag:
            self.warnings.append(f"{self._open_tag} has no end: all text after it is left out")
        return result

    def _process(self, text: str, *, is_last: bool) -> str:
        text = self._before + self._held + text
        position = len(self._before)
        parts = []
        for match in _THOUGHT_TAG.finditer(text, position):
            if not self._open_tag:
                parts.append(text[position : match.start()])
            position = match.end()
            self._follow_tag(match)
        end = len(text) if is_last else _find_unfinished_tag(text, position)
        if not self._open_tag:
            parts.append(text[position:end])
        self._held, self._before = text[end:], text[:end][-1:]
        return "".join(parts)

    def _follow_tag(self, match: regex.Match[str]) -> None:
        """Begin or end a block. The first end tag of the same name ends it, whatever is in it."""
        if self._open_tag:
            if match["end"] and _get_tag_key(match[0]) == _get_tag_key(self._open_tag):
                self._open_tag = ""
        elif not match["end"] and not (match["rest"] or "").endswith("/"):
            self._open_tag = match[0]
            self.count += 1


def _get_tag_key(tag: str) -> str:
    """Return what the tags of a block have in common: `<think` for `<think id="1">` and `</think>`."""
    return re.split(r"[\s>\]\u25b7]", tag.replace("/", "", 1).lower())[0]


def _find_unfinished_tag(text: str, position: int) -> int:
    """Return where a tag may begin that the next part completes; the end of the text if there is none."""
    for match in _TAG_START.finditer(text, max(position, len(text) - _MAX_TAG_CHARACTERS)):
        if _THOUGHT_TAG.fullmatch(text, match.start(), partial=True):
            return match.start()
    return len(text)


def _drop_unopened_thought(text: str) -> tuple[str, int]:
    """Remove the text before an end tag that comes first. Return the rest and how many blocks were removed."""
    match = _THOUGHT_TAG.search(text)
    return (text, 0) if match is None or not match["end"] else (text[match.end() :], 1)


# In the order in which they run.
_STREAM_STEPS: dict[str, Callable[[], _Step]] = {
    "think": _ThoughtStep,
    "boxes": _BoxStep,
    "urls": lambda: _RunStep("URL", _URL_RUN, _URL, _replace_url),
    "emoji": lambda: _RunStep("emoji", _EMOJI_RUN, _EMOJI_OR_KEYCAP, _replace_emoji),
}
