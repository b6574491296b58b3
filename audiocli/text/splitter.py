"""Cut a long text into pieces that a gateway takes, where a reader would draw breath."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from ..errors import UsageError
from .line_breaking import may_part
from .sentences import BLANK, continues, ends_paragraph, next_ink, sentences, trimmed

_PARAGRAPH_SHARE = 0.75  # a piece ends with a paragraph rather than with a sentence if it keeps this much of its length
_CLAUSE_SHARE = 0.5  # and with a clause rather than with a word
_FIRST_SHARE = 0.25  # the first piece may be shorter: it is short so that sound starts early

# What ends a part of a sentence that is too long. First what ends sentences elsewhere, as inside a long quotation.
_STOP = re.compile(r"""(?:[.!?…؟۔](?=\s|["'”’»)\]])|[。！？｡।])["'”’»›)\]」』）]*(?!["'”’»›)\]」』）])""")
_CLAUSE = re.compile(
    r"""[,;:،؛](?:["'”’»›)\]]+(?=\s)|(?=\s))"""  # not in 3,000 nor 10:30
    r"|[、，；：､፣፤፥၊།។][」』）”’›»]*"
    r"|—+|(?<=\s)[–-]+(?=\s)"  # not in 1990–1995
    r"|(?=[\n\r\u2028])"  # the lines of poems and lists
    r"|(?<=[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff])(?=\s)"  # Thai, Lao, Burmese and Khmer: the space is the comma
)
_SPACE = re.compile(r"[\s\u200b]")  # U+200B divides words in scripts without spaces
_GLUE = "\u00a0\u2007\u202f"


class Unit(StrEnum):
    """What a limit counts: code points or UTF-8 bytes."""

    CHARACTERS = "characters"
    BYTES = "bytes"


class Ends(StrEnum):
    """Where pieces end: only where they must, also with every paragraph, or with every sentence."""

    WHERE_FULL = "where full"
    PARAGRAPH = "paragraph"
    SENTENCE = "sentence"


@dataclass(frozen=True)
class Chunk:
    """A part of a text: `text` is exactly `whole[start:end]`, in code points, with nothing blank at its ends.

    `ends_paragraph` is also true of the last piece. `is_torn`: it ends inside a word, or where one may be: in a script
    without spaces nobody knows.
    """

    text: str
    start: int
    end: int
    ends_paragraph: bool = False
    is_torn: bool = False


def size_of(text: str, unit: Unit) -> int:
    """Count a text in a unit. A lone surrogate counts three bytes, as the character that replaces it."""
    return len(text) if unit is Unit.CHARACTERS or text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def cut(
    text: str,
    limit: int | None,
    *,
    unit: Unit = Unit.CHARACTERS,
    first_limit: int | None = None,
    ends: Ends = Ends.WHERE_FULL,
    language: str | None = None,
) -> tuple[Chunk, ...]:
    """Cut a text into as few pieces as fit the limit without being cut at bad places.

    Together the pieces hold everything that is not blank, in order. A sentence that fits is never divided; one that
    does not fit is divided at its clauses, else between words, and a word that does not fit between grapheme clusters.
    A piece ends at a paragraph before it is full if that costs little of its length.

    `first_limit` keeps the first piece short as far as it can end with a sentence or a clause; for a good end it may be
    longer, up to the limit. `limit` None: no limit known.

    Raises: UsageError: a limit below one, or a single grapheme cluster larger than the limit.
    """
    for asked in (limit, first_limit):
        if asked is not None and asked < 1:
            raise UsageError(f"a piece of text must be allowed at least 1 of {unit.value}, not {asked}")
    whole = trimmed(text, 0, len(text))
    if whole is None:
        return ()
    fits = limit is None or size_of(text[slice(*whole)], unit) <= limit
    if fits and first_limit is None and ends is Ends.WHERE_FULL:
        return (Chunk(text[slice(*whole)], *whole, ends_paragraph=True),)
    return tuple(_Cutter(text, limit, unit, ends, language).pieces(first_limit))


class _Cutter:
    """The sentences of one text, and how far the pieces have come."""

    def __init__(self, text: str, limit: int | None, unit: Unit, ends: Ends, language: str | None) -> None:
        self.text = text
        self.unit = unit
        self.ends = ends
        self.limit = limit if limit is not None else 4 * len(text)  # more than its bytes
        self.rows = tuple(sentences(text, language=language))
        followers = [row.start for row in self.rows[1:]]
        self.is_last = [ends_paragraph(text[row.end : to]) for row, to in zip(self.rows, followers, strict=False)]
        self.is_last.append(True)

    def pieces(self, first_limit: int | None) -> Iterator[Chunk]:
        row, start = 0, self.rows[0].start
        first_limit = None if first_limit is None else min(first_limit, self.limit)
        while row < len(self.rows):
            end = None
            room, first_limit = first_limit or self.limit, None
            after = self._rows_that_fit(row, start, room)
            if after == row and room < self.limit:
                end = self._early_end(start, self.rows[row].end, room)
                if end is None:
                    after = min(self._rows_that_fit(row, start, self.limit), row + 1)
            if after > row:
                yield self._piece(start, self.rows[after - 1].end, ends_paragraph=self.is_last[after - 1])
                row = after
                start = self.rows[row].start if row < len(self.rows) else len(self.text)
                continue
            is_torn = False
            if end is None:
                end, is_torn = self._end_inside(start, self.rows[row].end)
            yield self._piece(start, end, is_torn=is_torn)
            start = next_ink(self.text, end)

    def _piece(self, start: int, end: int, *, ends_paragraph: bool = False, is_torn: bool = False) -> Chunk:
        text = self.text[start:end].rstrip(BLANK)
        return Chunk(text, start, start + len(text), ends_paragraph, is_torn)

    def _rows_that_fit(self, row: int, start: int, room: int) -> int:
        """Tell before which sentence a piece ends; `row` itself if not even its own fits."""
        used = 0
        best = good = row
        begin = start
        for place in range(row, len(self.rows)):
            end = self.rows[place].end
            if end - begin > room - used:
                break
            used += size_of(self.text[begin:end], self.unit)
            if used > room:
                break
            best, begin = place + 1, end
            if self.is_last[place]:
                good, good_used = best, used
                if self.ends is Ends.PARAGRAPH:
                    return best
            if self.ends is Ends.SENTENCE:
                return best
        else:
            return best  # the text is at its end
        taken = size_of(self.text[start:begin], self.unit) if good > row else 0
        return good if good > row and good_used >= _PARAGRAPH_SHARE * taken else best

    def _early_end(self, start: int, end: int, room: int) -> int | None:
        """Find a clause to end the first piece with: the last that fits, else the next; None if there is none."""
        wanted, most = self._reach(start, end, room), self._reach(start, end, self.limit)
        places = self._places(_CLAUSE, start, most, end)
        fitting = [place for place in places if place <= wanted and place - start >= _FIRST_SHARE * (wanted - start)]
        longer = [place for place in places if place > wanted]
        return fitting[-1] if fitting else longer[0] if longer else None

    def _end_inside(self, start: int, end: int) -> tuple[int, bool]:
        """Find where to end a piece inside a sentence, and tell whether that is inside a word."""
        reach = self._reach(start, end, self.limit)
        for pattern in (_STOP, _CLAUSE):
            places = self._places(pattern, start, reach, end)
            if places and places[-1] - start >= _CLAUSE_SHARE * (reach - start):
                return places[-1], False
        # A space, unless a script without spaces goes on after it for longer than what stands before it.
        space = self._last_space(start, reach)
        if space and (space - start >= _CLAUSE_SHARE * (reach - start) or not self._may_part_at(reach)):
            return space, False
        return self._torn(start, end, reach), True

    def _reach(self, start: int, end: int, room: int) -> int:
        """Tell how far a piece comes that has room for so much."""
        end = min(end, start + room)
        if self.unit is Unit.CHARACTERS:
            return end
        encoded = self.text[start:end].encode("utf-8", "surrogatepass")
        size = min(room, len(encoded))
        while 0 < size < len(encoded) and encoded[size] & 0xC0 == 0x80:
            size -= 1
        return start + len(encoded[:size].decode("utf-8", "surrogatepass"))

    def _places(self, pattern: re.Pattern[str], start: int, reach: int, end: int) -> list[int]:
        """List where a piece may end by a pattern, with some of it before and after."""
        found = (match.end() for match in pattern.finditer(self.text, start, min(reach + 1, end)))
        last = min(reach, end - 1)
        return [place for place in found if start < place <= last and not continues(self.text, place)]

    def _last_space(self, start: int, reach: int) -> int | None:
        """Find the last space that words may be divided at; one that binds them only if there is no other."""
        spaces = [match.start() for match in _SPACE.finditer(self.text, start, reach + 1)]
        spaces = [place for place in spaces if place > start]
        loose = [place for place in spaces if self.text[place] not in _GLUE]
        return loose[-1] if loose else spaces[-1] if spaces else None

    def _may_part_at(self, place: int) -> bool:
        return may_part(self.text[place - 1], self.text[place])

    def _torn(self, start: int, end: int, reach: int) -> int:
        """Find the last place between two grapheme clusters, preferably where a line may end too."""
        places = [place for place in _cluster_ends(self.text, start, reach + 1) if place <= reach]
        if not places:
            taken = size_of(self.text[start : next(_cluster_ends(self.text, start, end))], self.unit)
            raise UsageError(
                f"a single character of the text takes {taken} {self.unit.value}, and a piece may have {self.limit}",
                hint="raise the limit, or take the character out of the text",
            )
        good = (place for place in reversed(places[len(places) // 2 :]) if self._may_part_at(place))
        return next(good, places[-1])


def _cluster_ends(text: str, start: int, stop: int) -> Iterator[int]:
    """Yield where the grapheme clusters of a part of a text end.

    In short slices: to see which flags are pairs, regex goes back to where the string begins, for every one of them.
    """
    import regex

    size = 256
    while start < stop:
        ends = [start + cluster.end() for cluster in regex.finditer(r"\X", text[start : min(start + size, stop)])]
        if start + size < stop:
            ends.pop()  # it may go on in the next slice
        yield from ends
        start = ends[-1] if ends else start
        size = 256 if ends else 2 * size
