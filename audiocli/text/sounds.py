"""Sounds that a gateway names among the words of a transcript, and the entities that it found in the text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..types.transcripts import Entity
from .line_breaking import collapse_whitespace

# "(laughter)", "[music]", "<cough>", "*sigh*": nothing that is spoken looks like this.
_BRACKETED = re.compile(r"[(\[<{*♪].*[)\]>}*♪]", re.DOTALL)


def remove_events(text: str, entries: Sequence[tuple[str, bool]]) -> str:
    """Return a text without the sounds that are named in it.

    Args:
        text: The text of a transcript, or of one segment.
        entries: The words and sounds in it, in order, and whether each is a sound. A sound without brackets is
            removed only where it stands between its neighbors, because the same word may also be spoken.
    """
    spans = _find_events(text, entries)
    if spans is None:
        names = {name.strip() for name, is_event in entries if is_event and _BRACKETED.fullmatch(name.strip())}
        spans = [match.span() for name in names for match in re.finditer(re.escape(name), text)]
    for start, end in sorted(spans, reverse=True):
        before, after = text[:start], text[end:]
        needs_space = (before[-1:].isspace() or after[:1].isspace()) and after.lstrip()[:1] not in ".,;:!?"
        text = before.rstrip() + (" " if needs_space else "") + after.lstrip()
    return text.strip() if spans else text


def _find_events(text: str, entries: Iterable[tuple[str, bool]]) -> list[tuple[int, int]] | None:
    """Return the spans of the sounds in a text; None if the text does not consist of the words and sounds."""
    spans = []
    position = 0
    for entry, is_event in entries:
        name = entry.strip()
        while position < len(text) and text[position].isspace():
            position += 1
        if text.startswith(name, position):
            if is_event:
                spans.append((position, position + len(name)))
            position += len(name)
        elif not is_event:
            return None
    return spans if not text[position:].strip() else None


def locate_entities(text: str, entities: Sequence[Entity], *, drop_missing: bool = False) -> tuple[Entity, ...]:
    """Return the entities with their positions in a text, which are searched in order.

    With `drop_missing`, an entity that had a position and is not found is left out: its text was removed.
    """
    located = []
    position = 0
    for entity in entities:
        start = text.find(entity.text, position) if entity.text else -1
        if start >= 0:
            position = start + len(entity.text)
            located.append(entity._replace(start=start, end=position))
        elif not (drop_missing and entity.start is not None):
            located.append(entity._replace(start=None, end=None))
    return tuple(located)


def quote_event(text: str) -> str:
    """Return the name of a sound without its brackets."""
    return collapse_whitespace(text).strip("()[]<>{}*♪ ")
