"""Names of output files from templates."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from audiocli.errors import UsageError
from audiocli.text.slug import MAX_NAME_BYTES, render_name, slugify


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("Über uns! Don't panic", "über-uns-dont-panic"),
        ("नमस्ते दुनिया", "नमस्ते-दुनिया"),
        ("世界 你好。", "世界-你好"),
        ("e\u0301cole", "école"),
        ("../../etc/passwd", "etc-passwd"),
        ("👍 ok 👨\u200d👩\u200d👧", "ok"),
        ("--- !?", ""),
        ("\x1b[31mred\x1b[0m", "red"),
    ],
)
def test_slug_has_the_words_of_the_text(text: str, slug: str) -> None:
    assert slugify(text) == slug


def test_slug_ends_with_a_whole_word() -> None:
    assert slugify("one two three", 9) == "one-two"
    assert slugify("abcdefgh two", 4) == "abcd"
    assert slugify("नमस्ते", 5) == "नमस्"


@given(st.text(), st.integers(1, 60))
def test_slug_has_letters_digits_and_hyphens_only(text: str, max_length: int) -> None:
    slug = slugify(text, max_length)

    assert len(slug) <= max_length
    assert not slug or any(map(str.isalnum, slug))
    assert re.fullmatch(r"(?!-).*(?<!-)", slug)
    assert not set(slug) & set("/\\. \t\n'_<>:|?*\"")


@pytest.mark.parametrize(
    ("template", "fields", "extension", "name"),
    [
        ("{n:04}-{slug}", {"n": 3, "slug": "abc"}, "mp3", "0003-abc.mp3"),
        ("{n:04}-{slug}", {"n": 3, "slug": ""}, "mp3", "0003.mp3"),
        ("{stem}.{lang}.{ext}", {"stem": "a", "lang": "de", "ext": "srt"}, "", "a.de.srt"),
        ("Kapitel {n} {{x}}", {"n": 12}, "opus", "Kapitel 12 {x}.opus"),
        ("{name}", {"name": "../../x"}, "mp3", "x.mp3"),
        ("{name}", {"name": "a/b\\c:d*e"}, "mp3", "a-b-c-d-e.mp3"),
        ("{name}", {"name": "-rf ~"}, "mp3", "rf ~.mp3"),
        ("{name}", {"name": ".hidden. "}, "", "hidden"),
        ("{name}", {"name": "con"}, "mp3", "con_.mp3"),
        ("{name}", {"name": "LPT1.tar"}, "mp3", "LPT1_.tar.mp3"),
        ("{name}", {"name": "console"}, "mp3", "console.mp3"),
        ("{name}", {"name": "a\x00b\nc\u202ed\ud800"}, "", "ab cd"),
        ("{name}", {"name": "e\u0301"}, "", "é"),
        ("{name}", {"name": "."}, "mp3", "untitled.mp3"),
    ],
)
def test_name_is_valid_on_every_platform(
    template: str, fields: dict[str, str | int], extension: str, name: str
) -> None:
    assert render_name(template, fields, extension=extension) == name


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{slgu}", "--name {slgu}: unknown field 'slgu'; did you mean 'slug'?"),
        ("{n.__class__}", "--name {n.__class__}: unknown field 'n.__class__'"),
        ("{}", "--name {}: unknown field ''"),
        ("{n", "--name {n: expected '}' before end of string"),
        ("{slug:04d}", "--name {slug:04d}: the format of 'slug' is not valid"),
        ("{n!r}", "--name {n!r}: the format of 'n' is not valid"),
        ("{n:999999999}", "--name {n:999999999}: the format of 'n' is not valid"),
        ("a/{n}", "--name a/{n}: a name must not contain a directory"),
    ],
)
def test_invalid_templates_are_usage_errors(template: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        render_name(template, {"n": 1, "slug": "x"})

    assert raised.value.message.startswith(message)
    assert raised.value.hint


@given(st.text(), st.sampled_from(["mp3", "srt", ""]))
@example("é" * 300, "opus")
@example("👨\u200d👩\u200d👧" * 50, "mp3")
@example("COM¹ .x", "mp3")
def test_any_value_gives_a_name_without_directories(value: str, extension: str) -> None:
    name = render_name("{name}", {"name": value}, extension=extension)

    assert Path(name).name == name
    assert not name.startswith((".", "-", " "))
    assert not name.endswith((".", " "))
    assert len(f".{name}.4194304-01234567.part".encode()) <= MAX_NAME_BYTES
    assert unicodedata.is_normalized("NFC", name)
    assert not extension or name.endswith(f".{extension}")
    assert name == render_name("{name}", {"name": name})
