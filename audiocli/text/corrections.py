"""Replace words that a model gets wrong in a transcript: `pie torch` by `PyTorch`.

The files and the rules are those of `pronunciations`: whole words, the longest match first, and a replacement is not
replaced again. Words keep their times.

| correction | what becomes of `color`, `Color`, `COLOR` |
|---|---|
| `color = colour`, in small letters | `colour`, `Colour`, `COLOUR`: the capitals of the transcript are kept |
| `color = COLOUR`, with a capital letter | always `COLOUR` |
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from ..types.transcripts import Entity, Transcript, Word
from .line_breaking import join_words
from .pronunciations import Pronunciations, Replacement, RuleNames
from .sounds import locate_entities

CORRECTION = RuleNames("correction", "corrections", ("from", "to", "language"))


class Corrections:
    """Rules that are applied to transcripts when they are written."""

    def __init__(self, rules: Pronunciations) -> None:
        self._rules = rules

    @classmethod
    def parse_file(cls, content: bytes, path: str) -> Corrections:
        """Parse a file. Raises: UsageError: A rule is invalid. The message names the line."""
        return cls(Pronunciations.parse_file(content, path, CORRECTION))

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, object], source: str) -> Corrections:
        """Return the rules of a table. Raises: UsageError: A rule is invalid."""
        return cls(Pronunciations.from_mapping(mapping, source, CORRECTION))

    def __bool__(self) -> bool:
        return bool(self._rules)

    def merge(self, other: Corrections) -> Corrections:
        """Return the rules of both. These have precedence over those of `other` for the same word and language."""
        return Corrections(self._rules.merge(other._rules))

    def describe(self) -> str:
        """Return all rules as JSON, which is the same for the same rules."""
        rules = [[rule.word, rule.language, rule.pronunciation] for rule in self._rules.list_rules()]
        return json.dumps(sorted(rules, key=json.dumps))

    def correct_text(self, text: str, language: str | None) -> str:
        """Return a text with all corrections. Raises: UsageError: A regular expression takes too long."""
        parts = []
        position = 0
        for found in self._rules.find_replacements(text, language):
            replacement = _keep_case(text, found)
            parts += [text[position : found.start], replacement]
            position = found.end
            if not replacement and text[: found.start][-1:] in ("", " ") and text[position : position + 1] == " ":
                position += 1  # only one of the spaces around a removed word stays
        return "".join([*parts, text[position:]])

    def correct(self, transcript: Transcript) -> Transcript:
        """Return a transcript with all corrections in its text, segments and words.

        Words that become one have the time of all of them. Words that take the place of one share its time.

        Raises:
            UsageError: A regular expression takes too long.
        """
        language = transcript.language
        text = self.correct_text(transcript.text, language)
        entities = [
            Entity(entity.type, self.correct_text(entity.text, language), entity.start, entity.end)
            for entity in transcript.entities
        ]
        return transcript._replace(
            text=text,
            segments=tuple(
                segment._replace(text=self.correct_text(segment.text, language)) for segment in transcript.segments
            ),
            words=tuple(self._correct_words(transcript.words, language)),
            entities=locate_entities(text, entities),
        )

    def _correct_words(self, words: Sequence[Word], language: str | None) -> Iterator[Word]:
        texts = [word.text for word in words]
        text, spans = _join_with_spans(texts)
        first = 0
        found = self._rules.find_replacements(text, language)
        replacements = [replacement for replacement in found if replacement.start < replacement.end]
        index = 0
        while index < len(replacements):
            # Words that a replacement touches, and further replacements that touch the same words.
            begin = next(number for number in range(first, len(words)) if spans[number][1] > replacements[index].start)
            end = begin
            group: list[Replacement] = []
            while index < len(replacements) and (
                not group or (end < len(words) and replacements[index].start < spans[end][1])
            ):
                while end + 1 < len(words) and spans[end + 1][0] < replacements[index].end:
                    end += 1
                group.append(replacements[index])
                index += 1
            yield from words[first:begin]
            yield from _share_time(words[begin : end + 1], _replace_span(text, spans[begin][0], spans[end][1], group))
            first = end + 1
        yield from words[first:]


def _join_with_spans(texts: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Return the joined words and the position of each word in them."""
    text = join_words(texts)
    spans = []
    position = 0
    for word in map(str.strip, texts):
        start = text.find(word, position) if word else position
        position = max(start, position) + len(word)
        spans.append((position - len(word), position))
    return text, spans


def _replace_span(text: str, start: int, end: int, replacements: Sequence[Replacement]) -> str:
    parts = []
    position = start
    for found in replacements:
        parts += [text[position : found.start], _keep_case(text, found)]
        position = max(found.end, start)
    return "".join([*parts, text[position:end]])


def _share_time(words: Sequence[Word], text: str) -> Iterator[Word]:
    """Yield a corrected text as words with the times of the words that it replaces."""
    parts = text.split()
    leading = " " if words[0].text[:1].isspace() else ""
    if len(parts) == len(words):
        for word, part in zip(words, parts, strict=True):
            yield word._replace(text=leading + part)
        return
    confidences = [word.confidence for word in words if word.confidence is not None]
    start_s, end_s = words[0].start_s, max(word.end_s for word in words)
    total, before = sum(map(len, parts)), 0
    for part in parts:
        after = before + len(part)
        yield words[0]._replace(
            start_s=start_s + (end_s - start_s) * before / total,
            end_s=start_s + (end_s - start_s) * after / total,
            text=leading + part,
            confidence=min(confidences, default=None),
        )
        before = after


def _keep_case(text: str, found: Replacement) -> str:
    """Return a replacement in small letters with the capitals of the text that it replaces."""
    replacement = found.replacement
    if replacement != replacement.lower() or found.rule.word != found.rule.word.lower():
        return replacement
    matched = text[found.start : found.end]
    letters = [char for char in matched if char.isalpha()]
    if len(letters) > 1 and matched.isupper():
        return replacement.upper()
    if letters and letters[0].isupper():
        return replacement[:1].upper() + replacement[1:]
    return replacement
