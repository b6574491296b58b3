"""Markdown to speech: the spoken text of each kind of markup."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiocli.text.readers import read_document
from audiocli.text.readers.markdown import convert_markdown, markdown_to_speech
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
        "<script>\nhidden()\n\nmore()\n</script>\n\nText",
        "<!-- hidden\n\nstill -->\n\nText",
        "<div hidden>\n\nhidden\n\n</div>\n\nText",
        "Text\n\n[^1]: A note\n\n    with two paragraphs",
        "Text[^1]\n\n[^1]: - [^1]:",
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


@pytest.mark.parametrize("marker", ["> ", ">", "- ", "1. ", "> - ", "* > 2) "])
@pytest.mark.parametrize("depth", [60, 150, 20_000])
def test_deep_nesting_is_preserved(marker: str, depth: int) -> None:
    text = markdown_to_speech(marker * depth + "deep")

    assert text.rstrip(".").endswith("deep")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("<p>The first paragraph matters.</p>\n\nSecond.", "The first paragraph matters.\n\nSecond."),
        ("<div>\nAll text.\n</div>", "All text."),
        ("<div align=center>\n\n# Title\n\n<b>bold</b> text\n\n</div>", "Title.\n\nbold text"),
        ("<details><summary>More</summary>\n\nIt is *here*.\n\n</details>", "More\n\nIt is here."),
        ("<table><tr><td>Ann</td><td>\n\n**5**\n\n</td></tr></table>", "Ann, 5."),
        ('<p><img src="a.png" alt="a cat"></p>', "a cat"),
        ("<ul><li>one<li>two</ul>", "one.\ntwo."),
        ("use the <title> tag\n\nSecond", "use the <title> tag\n\nSecond"),
        ("<script>\nunclosed\n\nSecond", "<script> unclosed\n\nSecond".replace("\n\n", " ")),
        ("call <name> now", "call now"),
        ("2<sup>10</sup> bytes", "2¹⁰ bytes"),
    ],
)
def test_html_is_read(source: str, expected: str) -> None:
    assert markdown_to_speech(source) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("Text[^1]\n\n[^1]: A note\n    that goes on", "Text\n\nA note that goes on"),
        ("Text[^1] again[^1]\n\nLater[^1]\n\n[^1]: Note", "Text again\n\nNote\n\nLater"),
        ("[^1]: Note\n\nText[^1]\n\nEnd", "Text\n\nNote\n\nEnd"),
        ("- one[^a]\n- two\n\nEnd\n\n[^a]: Note", "one.\ntwo.\n\nNote\n\nEnd"),
        ("| a[^a] | b |\n|---|---|\n| c | d |\n\nEnd\n\n[^a]: Note", "a, b.\nc, d.\n\nNote\n\nEnd"),
        ("> quoted[^a]\n>\n> [^a]: Note\n\nEnd", "quoted\n\nNote\n\nEnd"),
        ("Text[^1]\n\n[^1]: First[^2]\n\n[^2]: Second[^1]", "Text\n\nFirst\n\nSecond"),
        ("Text[^1]\n\n[^1]: One\n\n    - two\n\nEnd", "Text\n\nOne\n\ntwo.\n\nEnd"),
        ("Text^[a *note* inside] goes on\n\nEnd", "Text goes on\n\na note inside\n\nEnd"),
        ("Text[^none]", "Text[^none]"),
    ],
)
def test_footnote_is_read_once_after_its_reference(source: str, expected: str) -> None:
    assert markdown_to_speech(source) == expected


def test_long_chain_of_footnotes_is_read() -> None:
    count = 3000
    notes = "\n\n".join(f"[^{n}]: Note {n}[^{n + 1}]" for n in range(count))

    assert markdown_to_speech(f"Text[^0]\n\n{notes}").startswith("Text\n\nNote 0\n\nNote 1\n\n")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("> [!NOTE]\n> Mind the gap.", "Note. Mind the gap."),
        ("> [!WARNING]  \n> Two\n>\n> paragraphs", "Warning. Two\n\nparagraphs"),
        ("> [!tip]- A title\n> text", "Tip. A title text"),
        ("[[page]] and [[page|the label]]", "page and the label"),
        ("[[page#part]] ![[cat.png]] ![[other page]]", "page part other page"),
        ("`[[page|label]]` [[1]](https://example.com) if [[ -f x ]]", "[[page|label]] [1] if [[ -f x ]]"),
        ("a ==marked text== here", "a marked text here"),
        ("a == b and c == d, '==' to '===', x==y==z", "a == b and c == d, '==' to '===', x==y==z"),
        (
            "done :tada: :white_check_mark: at 10:30:45, std::vec::Vec",
            "done tada white check mark at 10:30:45, std::vec::Vec",
        ),
        ("- [ ] open\n- \\[x] escaped", "open.\nescaped."),
    ],
)
def test_extensions_are_read(source: str, expected: str) -> None:
    assert markdown_to_speech(source) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("# One\n\na\n\n# Two\n\nb\n\n## Inner\n\nc", [("One", 2), ("Two", 4)]),
        ("# Book\n\nintro\n\n## One\n\na\n\n## Two\n\nb", [("Book", 2), ("One", 2), ("Two", 2)]),
        ("# Book\n\n## One\n\na\n\n## Two\n\nb", [("One", 3), ("Two", 2)]),
        ("before\n\n# One?\n\na\n\n# *Two*", [(None, 1), ("One?", 2), ("Two", 1)]),
        ("### One\n\na\n\n### Two\n\nb", [("One", 2), ("Two", 2)]),
        ("no heading", [(None, 1)]),
        ("", []),
    ],
)
def test_headings_begin_chapters(source: str, expected: list[tuple[str | None, int]]) -> None:
    document = convert_markdown(source)

    assert [(chapter.title, len(chapter.paragraphs)) for chapter in document.chapters] == expected


def test_front_matter_describes_the_document() -> None:
    source = b"---\ntitle: 'A: title'\nauthor: Ann\nlang: de-AT\ntags: [x]\n---\n# Heading\n\nText"

    document = read_document(source, "markdown", "a.md")

    assert (document.title, document.author, document.language) == ("A: title", "Ann", "de-AT")
    assert read_document(b"# Heading\n\nText", "markdown", "a.md").title == "Heading"


def test_what_is_left_out_is_counted() -> None:
    code = "```\n" + "x\n" * 9 + "```\n\n"
    notes = "[^a]: one\n\n[^a]: two\n\n[^b]: three\n\n"

    document = convert_markdown(f"Text\n\n{code}{code}{notes}")

    assert document.omitted == {"code block": 2, "footnote without a reference": 3}


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
