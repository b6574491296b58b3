"""Read many texts from one file: JSON Lines, CSV, or a text for each line."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ...errors import UsageError, suggest
from ...types.json import Json
from .encoding import decode_content

_COLUMNS = ("text", "name", "voice", "instructions", "speed")
_DELIMITERS = ",;\t|"
_MIN_SPEED, _MAX_SPEED = 0.25, 4.0


class Row(NamedTuple):
    """A text to speak into its own file. Values that are None have the defaults of the command.

    `line` is where the row begins in its file, from 1.
    """

    text: str
    name: str | None
    voice: str | None
    instructions: str | None
    speed: float | None
    line: int


class RowSet(NamedTuple):
    """The rows of a file, and what the user should know about it."""

    rows: tuple[Row, ...]
    warnings: tuple[str, ...] = ()


def read_rows(content: bytes, format: str, source: str, *, encoding: str | None = None) -> RowSet:
    """Read the rows of a file in one of the formats `jsonl`, `csv` and `lines`. Empty lines are skipped.

    Raises:
        UsageError: A row is malformed or has no text. The message has the line and the column.
    """
    text = decode_content(content, source, encoding)
    if format == "lines":
        return RowSet(
            tuple(
                Row(line.strip(), None, None, None, None, number)
                for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1)
                if line.strip()
            )
        )
    unknown: dict[str, None] = {}
    rows = []
    for number, fields in _parse_json_lines(text, source) if format == "jsonl" else _parse_csv(text, source):
        rows.append(_build_row(fields, number, source))
        unknown.update(dict.fromkeys(key for key in fields if key not in _COLUMNS))
    warnings = (f"{source}: unknown columns are ignored: {', '.join(map(str, unknown))}",) if unknown else ()
    return RowSet(tuple(rows), warnings)


def _parse_json_lines(text: str, source: str) -> Iterator[tuple[int, Mapping[str, Json]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            fields: Json = json.loads(line)
        except json.JSONDecodeError as error:
            raise UsageError(
                f"{source}: line {number}, character {error.pos + 1}: {error.msg}",
                hint='each line is a JSON object, such as {"text": "Hello."}',
            ) from error
        except (ValueError, RecursionError) as error:  # an integer of thousands of digits, or brackets
            raise UsageError(f"{source}: line {number}: {error}") from error
        if not isinstance(fields, dict):
            raise UsageError(f"{source}: line {number} is not a JSON object")
        yield number, fields


def _parse_csv(text: str, source: str) -> Iterator[tuple[int, Mapping[str, Json]]]:
    """Yield the rows by the names in the first line. The delimiter is the one that divides these names best."""
    lines = list(io.StringIO(text, newline=""))
    header = next((line for line in lines if line.strip()), "")
    delimiter = max(_DELIMITERS, key=lambda char: _count_known_columns(header, char))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    names: list[str] | None = None
    first_line = 1
    while True:
        first_line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise UsageError(f"{source}: line {first_line}: {error}") from error
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            continue
        if names is None:
            names = _parse_header(cells, first_line, source)
        elif len(cells) > len(names):
            raise UsageError(
                f"{source}: line {first_line} has {len(cells)} columns, the first line has {len(names)}",
                hint="put values that contain the delimiter into double quotes",
            )
        else:
            yield first_line, {name: cell for name, cell in zip(names, cells, strict=False) if name}


def _count_known_columns(header: str, delimiter: str) -> int:
    names = [name.strip(' "\r\n').lower() for name in header.split(delimiter)]
    return sum(name in _COLUMNS for name in names) * 100 + len(names)


def _parse_header(cells: list[str], line: int, source: str) -> list[str]:
    names = [cell.strip().lower() if cell.strip().lower() in _COLUMNS else cell.strip() for cell in cells]
    if "text" not in names:
        raise UsageError(
            f"{source}: line {line} has no column 'text'{suggest('text', names)}",
            hint=f"the first line has the names of the columns: {','.join(_COLUMNS)}",
        )
    for name in _COLUMNS:
        if names.count(name) > 1:
            raise UsageError(f"{source}: line {line} has the column {name!r} twice")
    return names


def _build_row(fields: Mapping[str, Json], line: int, source: str) -> Row:
    text = _get_text(fields, "text", line, source)
    if text is None:
        raise UsageError(f"{source}: line {line}, column 'text': there is no text")
    return Row(
        text,
        _get_text(fields, "name", line, source),
        _get_text(fields, "voice", line, source),
        _get_text(fields, "instructions", line, source),
        _get_speed(fields, line, source),
        line,
    )


def _get_text(fields: Mapping[str, Json], column: str, line: int, source: str) -> str | None:
    value = fields.get(column)
    if value is None:
        return None
    if not isinstance(value, str):
        raise UsageError(f"{source}: line {line}, column {column!r}: {json.dumps(value)[:40]} is not a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{source}: line {line}, column {column!r}: character {error.start + 1} is half of a surrogate pair"
        ) from error
    return value.strip() or None


def _get_speed(fields: Mapping[str, Json], line: int, source: str) -> float | None:
    value = fields.get("speed")
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        speed = float("nan" if isinstance(value, bool | list | dict) else value)
    except (ValueError, OverflowError):
        speed = float("nan")
    if not _MIN_SPEED <= speed <= _MAX_SPEED:
        shown = json.dumps(value)[:40]
        raise UsageError(f"{source}: line {line}, column 'speed': {shown} is not a number from 0.25 to 4")
    return speed
