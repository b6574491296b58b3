"""Pronunciations: formats of their files, and what a rule replaces."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiocli.errors import UsageError
from audiocli.text import pronunciations as module
from audiocli.text.pronunciations import Pronunciations


def replace(rules: dict[str, object], text: str, language: str | None = None) -> str:
    return Pronunciations.from_mapping(rules).apply(text, language).text


@pytest.mark.parametrize(
    ("rules", "text", "expected"),
    [
        (
            {"SQL": "sequel"},
            "SQL, sql (SQL) SQLite MySQL x_SQL SQL-x SQL's",
            "sequel, sql (sequel) SQLite MySQL x_SQL sequel-x sequel's",
        ),
        ({"gif": "jif"}, "gif GIF Gif gifs", "jif jif jif gifs"),
        (
            {"C++": "see plus plus", "C": "see", ".NET": "dot net"},
            "C++ C, C++11 .NET",
            "see plus plus see, see plus plus11 dot net",
        ),
        (
            {"New York": "NY", "New York Times": "NYT"},
            "New  York\nTimes New\nYork New York Timesheet",
            "NYT NY NY Timesheet",
        ),
        ({"New York": "NY"}, "New\n\nYork", "New\n\nYork"),
        # Scripts without spaces, and their neighbors.
        ({"重庆": "崇庆"}, "我在重庆市。", "我在崇庆市。"),
        ({"SQL": "sequel"}, "使用SQL数据库 SQL은 ЯSQL", "使用sequel数据库 sequel은 ЯSQL"),
        ({"서울": "Seoul"}, "서울 서울에서", "Seoul 서울에서"),
        ({"café": "kaffay"}, "cafe\u0301 CAFÉ cafés", "kaffay kaffay cafés"),
        ({"e\u0301t\u00e9": "x"}, "été e\u0301te\u0301", "x x"),
        ({"Ärzte": "x"}, "Ärzte ärzte A\u0308rzte", "x ärzte x"),
        ({"straße": "x", "i": "y"}, "STRASSE Straße İ ı", "x x y ı"),
        # A replacement is not replaced again.
        ({"a": "b", "b": "a"}, "a b", "b a"),
        ({"ok": ""}, "ok, fine", ", fine"),
        ({"US": "U S", "us": "uss"}, "US us Us", "U S uss uss"),
    ],
)
def test_whole_words_are_replaced(rules: dict[str, object], text: str, expected: str) -> None:
    assert replace(rules, text) == expected


@pytest.mark.parametrize(
    ("rules", "text", "expected"),
    [
        ({r"/(\d+) ?km/": r"\1 kilometers"}, "5km 10 km", "5 kilometers 10 kilometers"),
        ({r"/v(?P<major>\d+)/": r"version \g<major>"}, "v2", "version 2"),
        ({"/colou?r/": "x"}, "color Colour", "x Colour"),
        ({"/colou?r/i": "x"}, "color Colour", "x x"),
        ({r"/(?<=\d)(?=h\b)/": " "}, "5h 10h", "5 h 10 h"),
        ({"/x*/": "-"}, "axb", "-a--b-"),
        # The longest match is used, and words come before patterns.
        ({"/data/": "x", "database": "y"}, "database data", "y x"),
        ({"/data/": "x", "data": "y"}, "data", "y"),
        ({"/data.*/": "x", "data": "y"}, "data base", "x"),
        ({r"/\[\d+\]/": ""}, "text [12].", "text ."),
    ],
)
def test_patterns_are_replaced(rules: dict[str, object], text: str, expected: str) -> None:
    assert replace(rules, text) == expected


@pytest.mark.parametrize(
    ("language", "expected"),
    [(None, "a x"), ("en", "a x"), ("de", "b x"), ("de-AT", "c x"), ("German", "b x"), ("pt", "a x"), ("pt_BR", "a y")],
)
def test_rules_for_the_language_have_precedence(language: str | None, expected: str) -> None:
    rules = {"SQL": "a", "de": {"SQL": "b"}, "de-AT": {"SQL": "c"}, "pt-BR": {"q": "y"}, "q": "x"}

    assert replace(rules, "SQL q", language) == expected


def test_replacements_are_counted_by_rule() -> None:
    replaced = Pronunciations.from_mapping({"SQL": "sequel", "gif": "jif", "x": "y"}).apply("SQL GIF gif", None)

    assert replaced == ("sequel jif jif", {"SQL": 1, "gif": 2})


def test_rules_of_a_file_have_precedence_over_the_configuration() -> None:
    configured = Pronunciations.from_mapping({"a": "1", "b": "2", "de": {"c": "3"}})
    merged = Pronunciations.parse_file(b"a = 4", "x.txt").merge(configured)

    assert merged.apply("a b c", "de").text == "4 2 3"
    assert not Pronunciations.from_mapping({})


FILES = {
    "a.toml": 'SQL = "sequel"\n"New York" = "NY"\n\'/(\\d)x/\' = \'\\1 times\'\n[de]\nSQL = "es ku el"\n',
    "config.toml": '[pronunciations]\nSQL = "sequel"\n"New York" = "NY"\n\'/(\\d)x/\' = \'\\1 times\'\n'
    '[pronunciations.de]\nSQL = "es ku el"\n',
    "a.csv": '# comment\nSQL,sequel\n"New York",NY\n/(\\d)x/,\\1 times\nSQL,es ku el,de\n',
    "b.csv": "Language, Word, Pronunciation\r\n,SQL,sequel\r\n"
    ',"New York",NY\r\n,/(\\d)x/,\\1 times\r\nde,SQL,es ku el\r\n',
    "a.tsv": "SQL\tsequel\nNew York\tNY\n/(\\d)x/\t\\1 times\nSQL\tes ku el\tde\n",
    "a.txt": '# comment\n\nSQL = sequel\n"New York"=NY\n/(\\d)x/ = \\1 times\n[de]\nSQL = "es ku el"\n',
    "rules": "[de]\nSQL = es ku el\n[*]\nSQL = sequel\nNew York = NY\n/(\\d)x/ = \\1 times",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_are_parsed(name: str, encoding: str) -> None:
    parsed = Pronunciations.parse_file(FILES[name].encode(encoding), name)

    assert parsed.apply("SQL New York 3x", "en").text == "sequel NY 3 times"
    assert parsed.apply("SQL", "de").text == "es ku el"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"a = b\nc", "a.txt, line 2: 'c' has no ="),
        ("a.txt", b"a = b\n = c", "a.txt, line 2: the word is empty"),
        ("a.txt", b"a = b\na = c", "a.txt, line 2: 'a' already has a pronunciation in line 1"),
        ("a.txt", b"\n/a(/ = b", "a.txt, line 2: /a(/: missing )"),
        ("a.txt", b"/a/ = \\2", "a.txt, line 1: /a/: no such group"),
        ("a.txt", b"/a/x = b", "a.txt, line 1: /a/x: unknown flags 'x'"),
        ("a.txt", b"[xx]\na = b", "a.txt, line 1: unknown language 'xx'"),
        ("a.csv", b"a,b\nc", "a.csv, line 2: 1 columns"),
        ("a.csv", b"a,b,de,d", "a.csv, line 1: 4 columns"),
        ("a.csv", b'a,"b\nc', "a.csv, line 2: unexpected end of data"),
        ("a.csv", b"word,pronunciation,language\na,b,xx", "a.csv, line 2: unknown language 'xx'"),
        ("a.toml", b"a = ", "a.toml is not valid TOML: Invalid value"),
        ("a.toml", b"b = 'c'\na = 1", "a.toml, line 2: the pronunciation of 'a' is not a string"),
        ("a.toml", b"b = 'c'\n'/(/' = 'd'", "a.toml, line 2: /(/: missing )"),
        ("a.toml", b"[de.x]\na = 'b'", "a.toml, line 1: the pronunciation of 'x' is not a string"),
        ("a.txt", b"caf\xe9 = x", "a.txt is not UTF-8: byte 3"),
        ("a.txt", codecs.BOM_UTF8 + b"%PDF-1.7", "a.txt is a PDF document"),
    ],
)
def test_invalid_files_are_usage_errors(name: str, content: bytes, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        Pronunciations.parse_file(content, name)

    assert raised.value.message.startswith(message)


def test_pattern_that_backtracks_without_end_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATTERN_TIMEOUT_S", 0.05)
    rules = Pronunciations.parse_file(b"a = b\n/(x+x+)+y/ = z", "a.txt")

    with pytest.raises(UsageError, match=r"a\.txt, line 2: .* takes longer than"):
        rules.apply("x" * 5_000, None)


@given(st.text(), st.dictionaries(st.text(min_size=1).filter(str.strip), st.text(), max_size=5))
def test_text_is_a_concatenation_of_unchanged_parts_and_replacements(text: str, rules: dict[str, str]) -> None:
    rules = {word.strip(): "\ue000" for word in rules if not (word.strip().startswith("/") and "/" in word.strip()[1:])}
    text = text.replace("\ue000", "")

    replaced = Pronunciations.from_mapping(rules).apply(text, None)

    assert replaced.text.count("\ue000") == sum(replaced.counts.values())
    position = 0
    for part in replaced.text.split("\ue000"):
        position = text.index(part, position) + len(part)


@given(st.lists(st.text("abAB é", min_size=1).map(str.strip).filter(bool), min_size=1, max_size=8, unique=True))
def test_every_word_of_many_is_found(words: list[str]) -> None:
    rules = Pronunciations.from_mapping(dict.fromkeys(words, "\ue000"))

    for word in words:
        assert rules.apply(f"({word})", None).text == "(\ue000)"
