"""Replace words by text that is spoken as the user wants: `SQL` by `sequel`.

Files, by their extension:

| extension | content |
|---|---|
| `.toml` | `SQL = "sequel"`, also in tables by language such as `[de]`, as `[pronunciations]` of the configuration |
| `.csv`, `.tsv` | `word,pronunciation` or `word,pronunciation,language`, with or without such a header |
| any other | a rule in each line: `SQL = sequel`; `[de]` begins the rules of a language; `#` begins a comment line |

| rule | matches |
|---|---|
| a word with a capital letter | this spelling only: `US` does not match `us` |
| a word without one | any capitalization: `gif` matches `GIF` |
| words with spaces | also over the end of a line |
| `/pattern/`, `/pattern/i` | a regular expression; `i` ignores case; `\\1` in the pronunciation is its first group |

Words match as a whole: no letter or digit precedes or follows. In scripts that do not separate words by spaces, they
match everywhere. Rules for a language (`de`, `pt-BR`) are used for texts in it and have precedence over rules for all
languages. Where several rules match, the one that begins first is used, then the longest, then words before regular
expressions. A replacement is not replaced again. An empty pronunciation removes the word.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import NamedTuple

import regex  # this module is imported only if there are pronunciations

from ..errors import UsageError
from .decoding import TextDecoder
from .languages import find_language_code

# A pattern that needs longer for a paragraph backtracks without end.
PATTERN_TIMEOUT_S = 2.0

_TABLE_HEADER = re.compile(r"\[([^\[\]]+)\]")
_PATTERN = re.compile(r"/(.+)/([a-z]*)", re.DOTALL)
_LINE_PATTERN = re.compile(r"(/.+/[a-z]*)\s*=(.*)")
_QUOTED = re.compile(r'"(.*)"')
# Word characters of scripts with spaces. Particles of Korean follow words of other scripts directly.
_WORD_CHARACTER = r"[\w--[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]]"
_FOREIGN_WORD_CHARACTER = rf"[{_WORD_CHARACTER}--\p{{Hangul}}]"
_IS_WORD_CHARACTER = regex.compile(_WORD_CHARACTER, regex.VERSION1)
_IS_HANGUL = regex.compile(r"\p{Hangul}")
_SPACE = r"(?:[^\S\r\n]+|[^\S\r\n]*\r?\n[^\S\r\n]*)"


class RuleNames(NamedTuple):
    """What the rules of a file are called: one of them, the table of a configuration, and the columns of CSV."""

    rule: str
    table: str
    columns: tuple[str, str, str]


PRONUNCIATION = RuleNames("pronunciation", "pronunciations", ("word", "pronunciation", "language"))


class Rule(NamedTuple):
    """A word and its pronunciation.

    Attributes:
        language: Tag such as `de` or `pt-br`, in lower case; None for all languages.
        source: File and line of the rule, for messages.
    """

    word: str
    pronunciation: str
    language: str | None
    source: str

    @property
    def is_pattern(self) -> bool:
        return _PATTERN.fullmatch(self.word) is not None


class Replacement(NamedTuple):
    """The text `text[start:end]` is replaced by `replacement`, because of a rule."""

    start: int
    end: int
    replacement: str
    rule: Rule


class Replaced(NamedTuple):
    """A text with pronunciations. `counts` has how often each word, as written in its rule, was replaced."""

    text: str
    counts: dict[str, int]


class Pronunciations:
    """The rules of a file or of the configuration."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        """Check and store rules. Of two rules for the same word and language, the first is used.

        Raises:
            UsageError: A regular expression or the reference to a group is invalid.
        """
        self._rules: dict[tuple[str, str | None], Rule] = {}
        for rule in rules:
            if rule.is_pattern:
                _compile_pattern(rule)
            self._rules.setdefault((rule.word, rule.language), rule)
        self._replacers: dict[str | None, _Replacer] = {}

    @classmethod
    def parse_file(cls, content: bytes, path: str, names: RuleNames = PRONUNCIATION) -> Pronunciations:
        """Parse a file. Its extension is its format.

        Raises:
            UsageError: The content is not text, or a rule is invalid. The message names the line.
        """
        text = TextDecoder(path, path).decode(content, is_last=True).removeprefix("\ufeff")
        match PurePath(path).suffix.lower():
            case ".toml":
                return cls(_parse_toml(text, path, names))
            case ".csv":
                return cls(_reject_repetitions(_parse_csv(text, path, ",", names), names))
            case ".tsv":
                return cls(_reject_repetitions(_parse_csv(text, path, "\t", names), names))
            case _:
                return cls(_reject_repetitions(_parse_lines(text, path, names), names))

    @classmethod
    def from_mapping(
        cls, mapping: Mapping[str, object], source: str = "pronunciations", names: RuleNames = PRONUNCIATION
    ) -> Pronunciations:
        """Return the rules of a table: pronunciations by word, and such tables by language. `source` is for messages.

        Raises:
            UsageError: A value is neither a text nor a table of texts, or a rule is invalid.
        """
        return cls(_read_table(mapping, source, "", names))

    def __bool__(self) -> bool:
        return bool(self._rules)

    def list_rules(self) -> tuple[Rule, ...]:
        return tuple(self._rules.values())

    def merge(self, other: Pronunciations) -> Pronunciations:
        """Return the rules of both. These have precedence over those of `other` for the same word and language."""
        return Pronunciations([*self._rules.values(), *other._rules.values()])

    def apply(self, text: str, language: str | None) -> Replaced:
        """Replace words in a text. `language` is its tag; None if it is unknown, which uses rules for all languages.

        Raises:
            UsageError: A regular expression takes too long.
        """
        counts: Counter[str] = Counter()
        parts = []
        position = 0
        for found in self.find_replacements(text, language):
            counts[found.rule.word] += 1
            parts += [text[position : found.start], found.replacement]
            position = found.end
        return Replaced("".join([*parts, text[position:]]), dict(counts))

    def find_replacements(self, text: str, language: str | None) -> Iterator[Replacement]:
        """Yield what `apply` replaces, in order and without overlap.

        Raises:
            UsageError: A regular expression takes too long.
        """
        if language not in self._replacers:
            self._replacers[language] = _Replacer(_select_rules(self._rules.values(), language))
        return self._replacers[language].find(text)


def _select_rules(rules: Iterable[Rule], language: str | None) -> list[Rule]:
    """Return the rules for texts in a language. A rule for the language replaces one for all languages."""
    tag = _normalize_tag(language or "")
    code = find_language_code(tag) or tag
    selected: dict[str, Rule] = {}
    for rule in rules:
        is_for_language = rule.language is not None and (
            tag == rule.language or tag.startswith(f"{rule.language}-") or code == rule.language
        )
        previous = selected.get(rule.word)
        if (rule.language is None and previous is None) or (
            is_for_language and len(rule.language or "") > len((previous and previous.language) or "")
        ):
            selected[rule.word] = rule
    return list(selected.values())


class _Finder(NamedTuple):
    """Find words or a pattern. `rules` are those of the words, by `_fold`, or the rule of the pattern."""

    pattern: regex.Pattern[str]
    rules: Mapping[str, Rule] | Rule

    def find_rule(self, match: regex.Match[str]) -> Rule:
        """Return the rule of a match."""
        if isinstance(self.rules, Rule):
            return self.rules
        if (rule := self.rules.get(_fold(match[0]))) is not None:
            return rule
        # A letter with several capitals, such as the dotted i of Turkish.
        flags = regex.VERSION1 | regex.IGNORECASE
        return next(rule for word, rule in self.rules.items() if regex.fullmatch(regex.escape(word), match[0], flags))


class _Replacer:
    """Find the words of some rules in one pass."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        # Words that are matched alike share a pattern. Those that must match exactly come first.
        groups: dict[tuple[bool, str, str], dict[str, Rule]] = {}
        for rule in rules:
            if not rule.is_pattern:
                word = rule.word
                group = (word == word.lower(), _build_boundary(word[0], "?<!"), _build_boundary(word[-1], "?!"))
                groups.setdefault(group, {})[word] = rule
        self._finders = [
            _Finder(_compile_words(words, *group), {_fold(word): rule for word, rule in words.items()})
            for group, words in sorted(groups.items(), key=lambda item: item[0])
        ]
        self._finders += [_Finder(_compile_pattern(rule), rule) for rule in rules if rule.is_pattern]

    def find(self, text: str) -> Iterator[Replacement]:
        """Yield all replacements in a text. Raises: UsageError: A regular expression takes too long."""
        matches = [_search(finder, text, 0) for finder in self._finders]
        while any(matches):
            # At the same position the longest is used, then the first in the order of the finders.
            index, match = min(
                ((index, match) for index, match in enumerate(matches) if match is not None),
                key=lambda item: (item[1].start(), -len(item[1][0]), item[0]),
            )
            rule = self._finders[index].find_rule(match)
            replacement = match.expand(rule.pronunciation) if rule.is_pattern else rule.pronunciation
            yield Replacement(match.start(), match.end(), replacement, rule)
            for other, finder in enumerate(self._finders):
                found = matches[other]
                if found is not None and (other == index or found.start() < match.end()):
                    is_empty = other == index and not match[0]
                    matches[other] = _search(finder, text, match.end() + is_empty)


def _search(finder: _Finder, text: str, position: int) -> regex.Match[str] | None:
    if position > len(text):
        return None
    try:
        return finder.pattern.search(text, position, timeout=PATTERN_TIMEOUT_S)
    except TimeoutError as error:
        name = f"{finder.rules.source}: {finder.rules.word}" if isinstance(finder.rules, Rule) else "a rule"
        raise UsageError(
            f"{name}: takes longer than {PATTERN_TIMEOUT_S:g} s for a paragraph",
            hint="avoid repetitions within repetitions, such as (a+)+",
        ) from error


# --- patterns --------------------------------------------------------------------------------------------------------


def _fold(word: str) -> str:
    """Return a form that is equal for all spellings that a rule matches."""
    return unicodedata.normalize("NFC", " ".join(word.split()).casefold())


def _compile_words(
    words: Iterable[str], ignore_case: bool, start_boundary: str, end_boundary: str
) -> regex.Pattern[str]:
    """Return a pattern that finds the longest of many words. Words with a common beginning are a branch of a tree."""
    tree = _Tree()
    for word in words:
        # The accents of the text may be separate characters.
        for form in {unicodedata.normalize("NFC", word), unicodedata.normalize("NFD", word)}:
            tree.add(_SPACE if char == " " else regex.escape(char) for char in " ".join(form.split()))
    flags = regex.VERSION1 | (regex.IGNORECASE if ignore_case else 0)
    return regex.compile(f"{start_boundary}(?:{tree.render()}){end_boundary}", flags)


class _Tree(dict[str, "_Tree"]):
    """Branches of a pattern by the expression that each begins with. The end of a word is the empty expression."""

    def add(self, tokens: Iterable[str]) -> None:
        node = self
        for token in tokens:
            node = node.setdefault(token, _Tree())
        node[""] = _Tree()

    def render(self) -> str:
        """Return the pattern. Longer words are tried first, so the end of a word is the last branch."""
        branches = [token + node.render() for token, node in self.items() if token]
        if "" in self:
            branches.append("")
        return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})" if branches else ""


def _build_boundary(char: str, assertion: str) -> str:
    """Return an assertion that no character continues a word at one of its edges; "" if its script has no spaces."""
    if not _IS_WORD_CHARACTER.match(char):
        return ""
    characters = _WORD_CHARACTER if _IS_HANGUL.match(char) else _FOREIGN_WORD_CHARACTER
    return f"({assertion}{characters})"


def _compile_pattern(rule: Rule) -> regex.Pattern[str]:
    """Compile a rule such as `/pattern/i`. Raises: UsageError: It is not valid."""
    match = _PATTERN.fullmatch(rule.word)
    assert match is not None
    if match[2] not in ("", "i"):
        raise UsageError(f"{rule.source}: {rule.word}: unknown flags {match[2]!r}", hint="the only flag is i")
    try:
        flags = regex.VERSION0 | (regex.IGNORECASE if match[2] else 0)
        pattern = regex.compile(match[1], flags)
        # References to groups are checked with a pattern that matches nothing at all.
        regex.compile(f"{match[1]}|", flags).fullmatch("").expand(rule.pronunciation)
    except (regex.error, IndexError) as error:
        raise UsageError(f"{rule.source}: {rule.word}: {error}") from error
    return pattern


# --- files -----------------------------------------------------------------------------------------------------------


def _parse_toml(text: str, path: str, names: RuleNames) -> Iterator[Rule]:
    import tomllib

    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error
    # A part of the configuration may be used as it is.
    nested = tables.get(names.table)
    yield from _read_table(nested if isinstance(nested, dict) and len(tables) == 1 else tables, path, text, names)


def _read_table(table: Mapping[str, object], source: str, text: str, names: RuleNames) -> Iterator[Rule]:
    """Yield the rules of a table and of its tables by language. `text` is the file, to find line numbers."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            language = _parse_language(key, source)
            for word, pronunciation in value.items():
                yield _build_rule(word, pronunciation, language, _locate(source, text, word), names)
        else:
            yield _build_rule(key, value, None, _locate(source, text, key), names)


def _locate(source: str, text: str, word: str) -> str:
    """Return the file and the first line that has a word."""
    spellings = (word, word.replace("\\", "\\\\"))
    lines = (number for number, line in enumerate(text.splitlines(), 1) if any(part in line for part in spellings))
    number = next(lines, None)
    return source if number is None else f"{source}, line {number}"


def _parse_csv(text: str, path: str, delimiter: str, names: RuleNames) -> Iterator[Rule]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    word_column, rule_column, _ = names.columns
    columns: Sequence[str] = names.columns
    is_first = True
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise UsageError(f"{path}, line {reader.line_num}: {error}") from error
        if row is None:
            return
        if not any(cell.strip() for cell in row) or row[0].startswith("#"):
            continue
        source = f"{path}, line {line}"
        header = [cell.strip().lower() for cell in row]
        if is_first and word_column in header and rule_column in header:
            columns = header
        elif not 2 <= len(row) <= len(columns):
            raise UsageError(f"{source}: {len(row)} columns", hint=f"expected: {delimiter.join(names.columns)}")
        else:
            values = dict(zip(columns, row, strict=False))
            language = values.get("language", "").strip()
            yield _build_rule(
                values[word_column],
                values.get(rule_column),
                _parse_language(language, source) if language else None,
                source,
                names,
            )
        is_first = False


def _parse_lines(text: str, path: str, names: RuleNames) -> Iterator[Rule]:
    language: str | None = None
    for number, line in enumerate(text.splitlines(), 1):
        source = f"{path}, line {number}"
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if (header := _TABLE_HEADER.fullmatch(line)) is not None:
            language = None if header[1].strip() == "*" else _parse_language(header[1], source)
            continue
        match = _LINE_PATTERN.fullmatch(line)
        word, equals, pronunciation = (match[1], "=", match[2]) if match else line.partition("=")
        if not equals:
            raise UsageError(f"{source}: {line!r} has no =", hint=f"expected: word = {names.rule}")
        yield _build_rule(_unquote(word), _unquote(pronunciation), language, source, names)


def _unquote(text: str) -> str:
    text = text.strip()
    quoted = _QUOTED.fullmatch(text)
    return text if quoted is None else quoted[1]


def _build_rule(word: str, pronunciation: object, language: str | None, source: str, names: RuleNames) -> Rule:
    word = word.strip()
    if not word:
        raise UsageError(f"{source}: the word is empty")
    if not isinstance(pronunciation, str):
        raise UsageError(f"{source}: the {names.rule} of {word!r} is not a string")
    return Rule(word, pronunciation, language, source)


def _parse_language(tag: str, source: str) -> str:
    """Return the tag in lower case. Raises: UsageError: There is no such language."""
    code = find_language_code(tag)
    if code is None:
        raise UsageError(f"{source}: unknown language {tag.strip()!r}", hint="use a code such as de or pt-BR")
    normalized = _normalize_tag(tag)
    return normalized if "-" in normalized else code


def _normalize_tag(tag: str) -> str:
    return tag.strip().lower().replace("_", "-")


def _reject_repetitions(rules: Iterable[Rule], names: RuleNames) -> list[Rule]:
    """Return rules as a list. Raises: UsageError: A word has two pronunciations for one language."""
    sources: dict[tuple[str, str | None], str] = {}
    result = []
    for rule in rules:
        previous = sources.setdefault((rule.word, rule.language), rule.source)
        if previous != rule.source:
            line = previous.rpartition(", ")[2]
            raise UsageError(f"{rule.source}: {rule.word!r} already has a {names.rule} in {line}")
        result.append(rule)
    return result
