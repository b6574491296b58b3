"""Steps of `--clean`: what each of them leaves out, and that nothing else changes."""

from __future__ import annotations

import re
import textwrap

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from audiocli.errors import UsageError
from audiocli.text.cleaning import clean_text
from audiocli.text.hard_wrapping import join_wrapped_lines
from audiocli.text.normalize import CLEAN_STEPS, StreamNormalizer, normalize_text, parse_steps

FAMILY, PIRATE_FLAG, SCOTLAND = (
    "👨\u200d👩\u200d👧",
    "🏴\u200d☠️",
    "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
)

# Texts from the parts that the steps know, so that their combinations are tried.
FRAGMENTS = [
    *(
        "a",
        "Word",
        " ",
        "\n",
        "\r\n",
        "\r",
        "\t",
        ".",
        ", ",
        "1",
        "#",
        "é",
        "日本",
        "ſ",
        "ℹ",
        "-",
        "|",
        "+",
        "=",
        "`",
        "<",
        ">",
    ),
    *("https://", "www.", "example.org", "/b_(c)", "?x=1", "mailto:", "joe@x.org", "://", "[", "]", "(", ")", '"', "*"),
    *("🎉", FAMILY, "👍🏽", "🇩🇪", "🇩", "1️⃣", "🔟", "\u200d", "\ufe0f", "\u20e3", "©", "✔"),
    *("│", "─", "├── ", "███", "---", "- ", "| a | b |", "+---+"),
    *("<think>", "</think>", "<thinking ", "</thought>", "[THINK]", "[/THINK]", "◁think▷", "<thi", "<reasoning/>"),
]
FRAGMENT_TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=30).map("".join)
TEXTS = FRAGMENT_TEXTS | st.text(max_size=60)
STREAM_STEPS = [step for step in CLEAN_STEPS if step != "wrap"]


def find_letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))


# --- the list of steps -----------------------------------------------------------------------------------------------


def test_steps_are_parsed_without_repetitions() -> None:
    assert parse_steps("urls, Emoji,urls") == ("urls", "emoji")
    assert parse_steps(",".join(CLEAN_STEPS)) == CLEAN_STEPS


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("url", "--clean url: unknown step 'url'; did you mean 'urls'?"),
        ("emoji,boxs", "--clean emoji,boxs: unknown step 'boxs'; did you mean 'boxes'?"),
        ("", "--clean : a step is empty"),
        ("urls,", "--clean urls,: a step is empty"),
    ],
)
def test_unknown_steps_are_usage_errors(value: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_steps(value)

    assert raised.value.message == message
    assert raised.value.hint == "steps: urls, emoji, boxes, think, wrap"


# --- each step -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("See https://www.example.com/a?b=c.", "See link to example.com."),
        ("(see https://a.org/b_(c)), HTTP://B.org/!", "(see link to a.org), link to B.org!"),
        ("<https://a.de/über> and www.b.org/x; c", "link to a.de and link to b.org; c"),
        (
            "[docs](https://a.com/x) **https://b.com** 'https://c.io'",
            "[docs](link to a.com) **link to b.com** 'link to c.io'",
        ),
        ("https://a.com,https://b.com", "link to a.com,link to b.com"),
        ("https://web.archive.org/web/2020/https://a.com/x", "link to web.archive.org"),
        (
            "https://user:secret@a.org:8080/x http://[::1]:80/ http://localhost:3000",
            "link to a.org link to ::1 link to localhost",
        ),
        ("git+ssh://git@a.org/b.git, wss://c.org", "link to a.org, link to c.org"),
        ("请访问https://a.com查看。https://b.com。", "请访问 link to a.com 查看。link to b.com。"),
        ("mailto:joe@a.org?subject=hi, <mailto:ann@b.org>, joe@a.org", "joe@a.org, ann@b.org, joe@a.org"),
        ("e.g.https://a.com x:www.b.org", "e.g.link to a.com x:www.b.org"),
    ],
)
def test_urls_become_links_to_their_host(text: str, expected: str) -> None:
    normalized = normalize_text(text, ["urls"])

    assert normalized.text == expected
    assert normalized.omitted["URL"] == expected.count("link to") + len(re.findall("mailto:", text))


@pytest.mark.parametrize(
    "text",
    [
        "file:///etc/hosts",
        "std::vector a://b",
        "http://",
        "https:// www. mailto:",
        "12:30 main.rs a/b.c",
        "wwww.a xwww.a.b",
    ],
)
def test_text_that_is_not_a_url_is_unchanged(text: str) -> None:
    assert normalize_text(text, ["urls"]) == (text, {}, ())


@pytest.mark.parametrize(
    ("text", "expected", "count"),
    [
        ("🎉 Party 🎉 time 🎉!", "Party time!", 3),
        ("done🎉next (🎉) a 🎉🎉 b", "done next () a b", 4),
        (f"{FAMILY} {PIRATE_FLAG} {SCOTLAND} 🇩🇪🇫🇷 👍🏽 ❤️ ☎ 🏽 x", "x", 9),
        ("1️⃣ One #⃣ *️⃣ 🔟", "1 One # * 10", 4),
        ("- ✅ item\n🎉\nnext", "- item\n\nnext", 2),
        ("ℹ️ Note", "Note", 1),
        ("3🎉4", "3 4", 1),
    ],
)
def test_emoji_are_left_out(text: str, expected: str, count: int) -> None:
    assert normalize_text(text, ["emoji"]) == (expected, {"emoji": count}, ())


@pytest.mark.parametrize("text", ["© ® ™ ‼ Ⓜ ㊗ ℹ 0123456789 # *", "→ • € ½ ① ♪ ✓", "नमस्\u200dते می\u200cروم"])
def test_symbols_that_are_read_as_words_are_no_emoji(text: str) -> None:
    assert normalize_text(text, ["emoji"]) == (text, {}, ())


@pytest.mark.parametrize(
    ("text", "expected", "count"),
    [
        ("╭─ Warning ─╮\n│ text here │\n╰───────────╯", "Warning\ntext here\n", 3),
        ("├── src\n│   └── main.rs\n", "src\nmain.rs\n", 2),
        ("│ a │ b │\r\n│ 1 │   │\r\n", "a, b\r\n1\r\n", 2),
        ("+---+----+\n| a | b  |\n|---|:--:|\n| c |    |\n+===+====+", "\na, b\n\nc\n", 5),
        ("Title\n=====\n\n* * *\n_____\n###", "Title\n\n\n\n\n", 4),
        ("Loading ━━━━ 5 MB ████░░ 70%\rLoading", "Loading 5 MB 70%\rLoading", 1),
        ("one: │ two", "one: two", 1),
    ],
)
def test_boxes_and_rules_are_left_out(text: str, expected: str, count: int) -> None:
    assert normalize_text(text, ["boxes"]) == (expected, {"line with box drawing": count}, ())


@pytest.mark.parametrize("text", ["- item\n-- x", "2 - 3 --- 4", "a | b", "...", "--", "# Heading", "C:|", "| a"])
def test_lines_with_text_are_no_rules(text: str) -> None:
    assert normalize_text(text, ["boxes"]) == (text, {}, ())


@pytest.mark.parametrize(
    ("text", "expected", "count"),
    [
        ("<think>So.\n\nHm.</think>\n\nAnswer", "\n\nAnswer", 1),
        ("a <thinking id='1'>b</thinking>c<THOUGHT>d</thought>e", "a ce", 2),
        ("[THINK]a[/THINK]b◁think▷c◁/think▷d", "bd", 2),
        ("<think>a <think> b <thinking> </think>c", "c", 1),
        # The template has put the beginning into the prompt.
        ("Okay, the user asks.\n</think>\n391", "\n391", 1),
        ("Okay.</think>a<think>b</think>c</think>d", "acd", 2),
    ],
)
def test_thoughts_are_left_out(text: str, expected: str, count: int) -> None:
    assert normalize_text(text, ["think"]) == (expected, {"think block": count}, ())


def test_thought_without_an_end_is_left_out_with_a_warning() -> None:
    normalized = normalize_text("Hi. <think>So the", ["think"])

    assert normalized.text == "Hi. "
    assert normalized.warnings == ("<think> has no end: all text after it is left out",)


@pytest.mark.parametrize("text", ["`<think>` begins a block", "I think> <thinker> <think", "[think] < think>"])
def test_text_about_thoughts_is_unchanged(text: str) -> None:
    assert normalize_text(text, ["think"]) == (text, {}, ())


PROSE = (
    "The quick brown fox jumps over the lazy dog while the sun sets behind the distant hills, and the people of Oakham "
    "notice nothing unusual about it. Later, when the moon rises, the fox returns to its den."
)
CHINESE_PROSE = "今天天气很好，我们决定去公园散步，看看湖边的花，听听鸟叫，然后在树下吃午饭，一直到太阳下山才回家。" * 3


@pytest.mark.parametrize("width", [45, 60, 72, 100])
@pytest.mark.parametrize(
    ("indent", "hanging"), [("", ""), ("    ", ""), ("       ", "       "), ("- ", "  "), ("12. ", "    ")]
)
def test_wrapped_paragraphs_become_one_line(width: int, indent: str, hanging: str) -> None:
    paragraph = textwrap.fill(PROSE, width, initial_indent=indent, subsequent_indent=hanging)

    assert join_wrapped_lines(f"{paragraph}\n\n{paragraph}\n") == f"{indent}{PROSE}\n\n{indent}{PROSE}\n"
    assert normalize_text(paragraph, ["wrap"]) == (indent + PROSE, {}, ())


def test_wrapped_lines_are_joined_without_a_space_where_the_script_has_none() -> None:
    lines = "\n".join(CHINESE_PROSE[start : start + 30] for start in range(0, len(CHINESE_PROSE), 30))

    assert join_wrapped_lines(lines) == CHINESE_PROSE


def test_wrapped_lines_are_joined_after_line_end_hyphens_were() -> None:
    wrapped = textwrap.fill(PROSE, 50).replace("distant", "dis-\ntant").replace("unusual", "unu-\nsual")

    assert join_wrapped_lines(clean_text(wrapped)) == PROSE


def test_hyphen_of_a_compound_remains_at_a_joined_line_end() -> None:
    words = "word " * 12

    assert (
        join_wrapped_lines(f"{words}Anglo-\nSaxon {words}2010-\n2011 on") == f"{words}Anglo-Saxon {words}2010-2011 on"
    )
    assert join_wrapped_lines(f"{words}Vor-\nund Nachteile") == f"{words}Vor- und Nachteile"


def test_short_line_within_a_wrapped_text_keeps_its_end() -> None:
    first, second = textwrap.fill(PROSE, 60), textwrap.fill(PROSE, 60)

    assert join_wrapped_lines(f"{first}\n{second}") == f"{PROSE}\n{PROSE}"


UNWRAPPED_TEXTS = {
    "verse": """\
        Shall I compare thee to a summer's day?
        Thou art more lovely and more temperate:
        Rough winds do shake the darling buds of May,
        And summer's lease hath all too short a date;""",
    "short verse": "so much depends upon\na red wheel barrow\nglazed with rain water",
    "address": "John Smith\n12 Long Street Name Of The Old Town Hall\nLondon",
    "list": "- one item of the list that is long enough here\n- two items of the list that are long enough\n* three",
    "numbers": "1. one item of the list that is long enough for a line\n2) two items of the list that are long enough",
    "heading": "# A heading that is long enough to be a wrapped line\nText that follows it in the next line.",
    "underlined heading": "A heading that is long enough to be a wrapped line\n-----------\nText.",
    "quotation": "> text that is long enough to be wrapped here\n> and its second line in the mail",
    "table": "name of a column    another column of the table\nvalue of this cell    another value of this row",
    "table with bars": "name of a column | another column of the table\nvalue of a cell | another value of this row",
    "code": "for index in range(10):\n    print(index, values[index], other_values[index])\n    total += index",
    "fence": "```\ntext that would be joined if it were not in code\nand its second line, which is as long\n```",
    "dialogue": "Alice: How are you doing today, my good old friend?\nBob: I'm doing fine, thanks for asking me today!",
    "label": "[voice: nova]\nText that follows it immediately in the next line.",
}


@pytest.mark.parametrize("name", UNWRAPPED_TEXTS)
def test_lines_that_are_not_wrapped_keep_their_ends(name: str) -> None:
    assert join_wrapped_lines(UNWRAPPED_TEXTS[name]) == UNWRAPPED_TEXTS[name]


# --- properties ------------------------------------------------------------------------------------------------------


@given(st.text())
@example("\x1b]8;;http://a\x07b\x1b]8;;\x07")
def test_default_cleaning_changes_no_letter_or_digit(text: str) -> None:
    # Escape sequences may contain letters, and a backspace replaces the character before it.
    text = re.sub(r"[\x08\x1b\x80-\x9f]", "", text)

    # Invisible fillers are letters in Unicode.
    assert find_letters(clean_text(text)) == find_letters(re.sub("[\u3164\uffa0]", "", text))


@given(TEXTS, st.sampled_from(["emoji", "boxes", "wrap"]))
def test_letters_and_digits_remain(text: str, step: str) -> None:
    expected = find_letters(text)
    if step == "emoji":
        expected = find_letters(text.replace("ℹ\ufe0f", "").replace("🔟", "10"))

    assert find_letters(normalize_text(text, [step]).text) == expected


@given(TEXTS)
def test_joining_of_lines_changes_only_white_space(text: str) -> None:
    joined = join_wrapped_lines(text)

    assert "".join(joined.split()) == "".join(text.split())
    assert joined.count("\n\n") >= text.replace("\r\n", "\n").count("\n\n")


@given(TEXTS)
def test_text_without_urls_is_unchanged(text: str) -> None:
    text = text.replace("://", ":").replace("www.", "w.").replace("mailto:", "to ")

    assert normalize_text(text, ["urls"]) == (text, {}, ())


@given(TEXTS)
def test_text_without_think_tags_is_unchanged(text: str) -> None:
    text = re.sub(r"[>\]▷]", "", text)

    assert normalize_text(text, ["think"]) == (text, {}, ())


@given(st.text(st.characters(max_codepoint=0x2000)), st.sets(st.sampled_from(["emoji", "think"])))
def test_text_without_symbols_is_unchanged(text: str, steps: set[str]) -> None:
    text = re.sub(r"[<\[]", "", text)

    assert normalize_text(text, steps).text == text


@st.composite
def draw_parts(draw: st.DrawFn) -> list[str]:
    text = draw(TEXTS)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=10)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@settings(max_examples=500)
@given(draw_parts(), st.sets(st.sampled_from(STREAM_STEPS), min_size=1))
@example(["a\r", "\nb |", " c"], {"boxes"})
@example(["1", "\ufe0f\u20e3", "🎉", "1"], {"emoji"})
@example(["x`", "<think>"], {"think"})
def test_result_for_a_stream_does_not_depend_on_its_parts(parts: list[str], steps: set[str]) -> None:
    whole, stream = StreamNormalizer(steps), StreamNormalizer(steps)
    expected = whole.feed("".join(parts)) + whole.finish()

    result = "".join(map(stream.feed, parts)) + stream.finish()

    assert (result, stream.omitted, stream.warnings) == (expected, whole.omitted, whole.warnings)
    if "think" not in steps:
        assert (expected, whole.omitted, ()) == normalize_text("".join(parts), steps)


def test_stream_returns_text_as_soon_as_it_is_complete() -> None:
    stream = StreamNormalizer(CLEAN_STEPS)

    assert stream.feed("First sentence. a < b, https://a") == "First sentence. a < b,"
    assert stream.feed(".org and\n") == " link to a.org and\n"
    assert stream.feed("<think>secret") == ""
    assert stream.feed("</think>Answer it. ") == "Answer"
    assert stream.finish() == " it. "
    assert stream.omitted == {"think block": 1, "URL": 1}


@pytest.mark.parametrize("step", CLEAN_STEPS)
@pytest.mark.parametrize(
    "unit", [" ", "🎉 ", "🎉1", "│ ", "- ", "| a |", "<think", "<think>", "https://", "www.a(", ")", "word\n"]
)
def test_a_long_text_is_normalized_in_linear_time(step: str, unit: str) -> None:
    # A quadratic search would take minutes and reach the timeout of the test run.
    text = unit * 100_000

    assert len(normalize_text(text, [step]).text) <= 2 * len(text)
