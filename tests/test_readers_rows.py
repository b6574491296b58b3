"""Rows: many texts from JSON Lines, CSV or lines; errors name the line and the column."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiocli.errors import UsageError
from audiocli.text.readers.rows import Row, read_rows


def read(text: str, format: str) -> list[Row]:
    rows, warnings = read_rows(text.encode(), format, "rows")
    assert warnings == ()
    return list(rows)


FULL = Row("Hello", "greeting", "nova", "softly", 1.5, 2)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_columns_are_found_by_name(delimiter: str) -> None:
    text = "Voice,name,TEXT,speed,instructions\nnova,greeting,Hello,1.5,softly\n\n,,Bye,,\n,,,,\n"

    rows = read("\ufeff" + text.replace(",", delimiter), "csv")

    assert rows == [FULL, Row("Bye", None, None, None, None, 4)]


def test_csv_values_may_be_quoted_and_have_lines() -> None:
    rows = read('text,name\r\n"Two\r\nlines, ""quoted""",a\r\nnext,b\r\n', "csv")

    assert [(row.text, row.line) for row in rows] == [('Two\r\nlines, "quoted"', 2), ("next", 4)]


def test_json_lines_are_rows() -> None:
    full = {"text": "Hello", "name": "greeting", "voice": "nova", "instructions": "softly", "speed": 1.5}

    assert read("\n" + json.dumps(full) + '\n\n{"text":"x","speed":"2","voice":null}', "jsonl") == [
        FULL,
        Row("x", None, None, None, 2.0, 4),
    ]


def test_lines_are_rows() -> None:
    assert [(row.text, row.line) for row in read("one\r\n\n  two\u2028three\n", "lines")] == [
        ("one", 1),
        ("two\u2028three", 3),
    ]


@pytest.mark.parametrize(
    ("format", "text"), [("csv", "text,Mood,x\na,b,c\nd,e,f"), ("jsonl", '{"text":"a","Mood":1,"x":2}')]
)
def test_unknown_columns_are_one_warning(format: str, text: str) -> None:
    _, warnings = read_rows(text.encode(), format, "rows")

    assert warnings == ("rows: unknown columns are ignored: Mood, x",)


@pytest.mark.parametrize(
    ("format", "text", "message"),
    [
        ("csv", "txt,name\na,b", "line 1 has no column 'text'; did you mean 'txt'?"),
        ("csv", "text,text\na,b", "line 1 has the column 'text' twice"),
        ("csv", "text,name\na\nb,c,d", "line 3 has 3 columns"),
        ("csv", "text,name\n,b", "line 2, column 'text': there is no text"),
        ("csv", 'text\n"open\nquote', "line 2: unexpected end of data"),
        ("csv", "text,speed\na,fast", "line 2, column 'speed': \"fast\" is not a number"),
        ("csv", "text,speed\na,1e400", "column 'speed'"),
        ("csv", "text,speed\na,nan", "column 'speed'"),
        ("jsonl", '{"text":"a"}\n{"text":', "line 2, character 9: Expecting value"),
        ("jsonl", '["a"]', "line 1 is not a JSON object"),
        ("jsonl", '{"name":"a"}', "line 1, column 'text': there is no text"),
        ("jsonl", '{"text":5}', "line 1, column 'text': 5 is not a string"),
        ("jsonl", '{"text":"a","speed":true}', "column 'speed': true"),
        ("jsonl", '{"text":"\\ud800"}', "column 'text': character 1 is half of a surrogate pair"),
        ("jsonl", "[" * 200_000, "line 1"),
        ("jsonl", '{"speed":' + "9" * 5000 + "}", "line 1"),
    ],
)
def test_malformed_row_is_refused_with_its_line_and_column(format: str, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(text, format)

    assert message in caught.value.message


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=20).filter(str.strip)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5))
def test_rows_that_are_written_are_read(cells: list[tuple[str, str]]) -> None:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerows([("text", "name"), *cells])
    lines = "\n".join(json.dumps({"text": text, "name": name}) for text, name in cells)

    expected = [(text.strip(), name.strip()) for text, name in cells]
    assert [row[:2] for row in read(buffer.getvalue(), "csv")] == expected
    assert [row[:2] for row in read(lines, "jsonl")] == expected
