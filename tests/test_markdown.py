"""Markdown to speech: the spoken text of each kind of markup."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiocli.text.markdown import markdown_to_speech
from audiocli.text.sentences import split_sentences


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("# Hello *World*", "Hello World."),
        ("## Why?", "Why?"),
        ("## He said “no.”", "He said “no.”"),
        ("Title\n=====\n\ntext", "Title.\n\ntext"),
        ("# 你好", "你好。"),
        ("# こんにちは", "こんにちは。"),
        ("# नमस्ते", "नमस्ते।"),
        ("# 안녕", "안녕."),
        ("# مرحبا؟", "مرحبا؟"),
        ("#", ""),
    ],
)
def test_headings_are_sentences_and_paragraphs(source: str, expected: str) -> None:
    assert markdown_to_speech(source) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("some **bold**, _leaning_ and ~~struck~~ words", "some bold, leaning and struck words"),
        ("call `main(argv)` first", "call main(argv) first"),
        ("see [the *guide*](https://example.com/a 'title')", "see the guide"),
        ("see [it][ref]\n\n[ref]: https://example.com", "see it"),
        ("![a cat](cat.png) sleeps", "a cat sleeps"),
        ("![](cat.png) sleeps", "sleeps"),
        ("at <https://example.com>", "at https://example.com"),
        ("soft\nand hard  \nbreaks\\\nhere<br>there", "soft and hard breaks here there"),
        ("AT&amp;T \\*starred\\*", "AT&T *starred*"),
        ("a <b>word</b> <!-- hidden --> here", "a word here"),
        ("2 * 3 * 4", "2 * 3 * 4"),
    ],
)
def test_inline_markup_is_removed(source: str, expected: str) -> None:
    assert markdown_to_speech(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        "---\ntitle: x\n---\nText",
        "Text\n\n***",
        "<div>\nhidden\n</div>\n\nText",
        "Text[^1]\n\n[^1]: A note\n    that goes on",
        "Text\n\n[^1]: A note\n\n    with two paragraphs",
        "Text[^1]\n\n[^1]: - [^1]:",
        "Text^[a note inside]",
        "Text\n\n[ref]: https://example.com",
        "> Text",
    ],
)
def test_content_that_cannot_be_spoken_is_dropped(source: str) -> None:
    assert markdown_to_speech(source) == "Text"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("- apples\n- pears!\n- plums", "apples.\npears!\nplums."),
        ("- apples\n\n- pears", "apples.\npears."),
        ("3. first\n4. second", "3. first.\n4. second."),
        ("- fruit:\n  - apples\n  - pears\n- bread", "fruit:\napples.\npears.\nbread."),
        ("- [x] done\n- [ ] open", "done.\nopen."),
        ("- one\n\n  more of it\n- two", "one.\n\nmore of it\n\ntwo."),
        ("-\n- two", "two."),
        ("intro\n\n- one\n\noutro", "intro\n\none.\n\noutro"),
    ],
)
def test_list_items_are_sentences(source: str, expected: str) -> None:
    assert markdown_to_speech(source) == expected


def test_tables_are_read_row_by_row() -> None:
    assert (
        markdown_to_speech("| Name | Age |\n|---|---|\n| *Ann* | 5 |\n| Ben | |\n| | |") == "Name, Age.\nAnn, 5.\nBen."
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("```sh\npip install audiocli\n```", "pip install audiocli"),
        ("    one\n\n    two", "one\ntwo"),
        ("```\na\nb\n\nc\nd\n```", "Code left out."),
        ("```\n" + "x" * 201 + "\n```", "Code left out."),
        ("```\n```", ""),
    ],
)
def test_short_code_is_read_and_long_code_is_replaced(source: str, expected: str) -> None:
    assert markdown_to_speech(source) == expected


def test_code_placeholder_can_be_set() -> None:
    source = "before\n\n```\na\nb\nc\nd\n```\n\nafter"

    assert (
        markdown_to_speech(source, code_placeholder="Code {ausgelassen}.") == "before\n\nCode {ausgelassen}.\n\nafter"
    )
    assert markdown_to_speech(source, code_placeholder="") == "before\n\nafter"


def test_headings_and_list_items_are_split_as_sentences() -> None:
    text = markdown_to_speech("# First steps\n\nDo it now. Then rest.\n\n- apples\n- pears\n\n1. Do this\n2. Do that")

    assert [text[slice(*span)] for span in split_sentences(text)] == [
        "First steps.",
        "Do it now.",
        "Then rest.",
        "apples.",
        "pears.",
        "1. Do this.",
        "2. Do that.",
    ]


def test_deep_quotations_are_preserved() -> None:
    assert markdown_to_speech("> " * 60 + "deep") == "deep"


MARKUP = st.sampled_from(
    (
        *(
            "# ",
            "- ",
            "1. ",
            "> ",
            "    ",
            "\n",
            "\n\n",
            "```\n",
            "| a | b |\n|---|---|\n| ",
            " | ",
            "*",
            "**",
            "`",
            "[",
        ),
        *("](u)", "![", "<b>", "<!--", "-->", "[^1]", "[^1]: ", "---\n", "\\", "&amp;", "word ", "今天", "\x00", "\r"),
    )
)


@settings(max_examples=300, deadline=None)
@given(st.lists(MARKUP | st.text(max_size=5), max_size=30).map("".join))
def test_any_document_is_converted_without_blank_paragraphs(source: str) -> None:
    text = markdown_to_speech(source)

    assert all(paragraph.strip() for paragraph in text.split("\n\n") if text)
    assert text == markdown_to_speech(source)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.from_regex(r"[a-zäé今天]{1,9}", fullmatch=True), min_size=1, max_size=20), st.sampled_from(" \n"))
def test_plain_words_are_unchanged(words: list[str], space: str) -> None:
    assert markdown_to_speech(space.join(words)) == " ".join(words)
