"""Split of long texts into sentences and chunks, in many languages, with properties for any text."""

from __future__ import annotations

import time
from itertools import accumulate, pairwise

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from audiocli.errors import UsageError
from audiocli.text.sentences import BLANK_CHARACTERS, split_paragraphs, split_sentences
from audiocli.text.splitter import BreakAt, Chunk, Unit, measure_size, split_text
from audiocli.text.stream_splitter import StreamSplitter
from audiocli.text.timing import TimedChunk, time_sentences
from audiocli.types.transcripts import Segment

FAMILY = "👨‍👩‍👧‍👦"
EVENING = "It was late. The rain, which had begun at noon, would not stop. People came."
STORY = f"{EVENING}\n\nAt ten she left. The door stood open."


def list_texts(chunks: tuple[Chunk, ...]) -> list[str]:
    return [chunk.text for chunk in chunks]


def list_sentences(text: str, language: str | None = None) -> list[str]:
    return [text[slice(*span)] for span in split_sentences(text, language=language)]


# --- sentences -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("en", ["Dr. Smith paid $3.50 to Mr. Jones.", '"Really?" he asked.', "It is 10.30 a.m. in the U.S. capital."]),
        ("en", ["See https://example.com/a.b?c=done.", "Version 2.0.1 is out!", "Is it…?"]),
        ("de", ["Das ist z. B. gut.", "Am 3. Oktober 1990 kam Prof. Dr. Müller.", "Und dann?"]),
        ("German", ["Am 3. Oktober war es so weit.", "Gut."]),
        ("fr", ["M. Dupont, p. ex. celui-ci, est là.", "« Bonjour ! » dit-il.", "Voilà."]),
        ("es", ["¿Qué tal?", "¡Bien!", "El Sr. García vino."]),
        ("ru", ["Это т. е. начало.", "А это конец!"]),
        (None, ["Τι κάνεις;", "Είμαι καλά."]),
        (None, ["هذه جملة أولى.", "هل هذا صحيح؟", "نعم!"]),
        ("ur", ["یہ پہلا جملہ ہے۔", "یہ دوسرا ہے۔"]),
        (None, ["यह पहला वाक्य है।", "यह दूसरा है।", "क्या?"]),
        (None, ["Բարեւ։", "Ինչպես ես։"]),
        ("am", ["ሰላም።", "እንዴት ነህ?"]),
        ("my", ["မင်္ဂလာပါ။", "နေကောင်းလား။"]),
        (None, ["오늘은 비가 온다.", "집에 있자!"]),
        (None, [f"Hi {FAMILY}!", "Ok 🇩🇪🇫🇷.", "End"]),
    ],
)
def test_sentences_follow_the_rules_of_the_language(language: str | None, expected: list[str]) -> None:
    assert list_sentences(" ".join(expected), language) == expected


@pytest.mark.parametrize(
    "expected",
    [
        ["今天天气很好。", "我们去公园吧！", "好吗？", "走吧"],
        ["“走吧。”", "他说。", "“好。”"],
        ["私は昨日、東京へ行きました。", "とても楽しかったです。", "本当？"],
    ],
)
def test_sentences_without_spaces_are_split(expected: list[str]) -> None:
    assert list_sentences("".join(expected)) == expected


def test_thai_sentences_end_only_at_paragraphs() -> None:
    assert list_sentences("สวัสดีครับ ผมชื่อสมชาย\n\nวันนี้อากาศดี") == ["สวัสดีครับ ผมชื่อสมชาย", "วันนี้อากาศดี"]


def test_sentence_spans_single_line_breaks_but_not_empty_lines() -> None:
    assert list_sentences("One\nand a half.\r\nTwo\r\n \t\r\nThree") == ["One\nand a half.", "Two", "Three"]


def test_text_without_words_belongs_to_the_previous_sentence() -> None:
    assert list_sentences("Stop! !!! ... Go. ”") == ["Stop! !!! ...", "Go. ”"]


@pytest.mark.parametrize("blank", ["\xa0", "\u3000", "\u2028", "\x85", "\u2009"])
def test_multibyte_space_before_full_stop_is_accepted(blank: str) -> None:
    assert list_sentences(f"Plan B{blank}. It works.") == [f"Plan B{blank}.", "It works."]


def test_lone_surrogate_is_accepted() -> None:
    assert list_sentences("what \ud800 is. Next.") == ["what \ud800 is.", "Next."]


def test_sentence_longer_than_any_window_is_found() -> None:
    long = "word " * 2000 + "end."

    assert list_sentences(f"First. {long} Last.") == ["First.", long, "Last."]


def test_long_paragraph_is_split_into_all_its_sentences() -> None:
    parts = [f"Sentence {number} met Dr. Smith, e.g. at noon." for number in range(300)]

    assert list_sentences(" ".join(parts)) == parts


def test_paragraphs_end_at_empty_lines_form_feeds_and_separators() -> None:
    text = "  a\nb \n\n\n c\x0cd\u2029e\r\nf\r\n\r\n"

    assert [text[slice(*span)] for span in split_paragraphs(text)] == ["a\nb", "c", "d", "e\r\nf"]


# --- chunks: examples ------------------------------------------------------------------------------------------------


def test_text_within_limit_is_one_chunk_without_outer_blanks() -> None:
    assert split_text("\n Hello.  World.\n\n", 100) == (Chunk("Hello.  World.", 2, 16, is_paragraph_end=True),)


@pytest.mark.parametrize("text", ["", " ", "\n\n\t", "\u200b\ufeff", "\x00\x1f\xa0\u3000"])
@pytest.mark.parametrize("break_at", BreakAt)
def test_blank_text_has_no_chunks(text: str, break_at: BreakAt) -> None:
    assert split_text(text, 10, break_at=break_at) == ()


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (len(STORY), [STORY]),
        (len(STORY) - 1, [EVENING, "At ten she left. The door stood open."]),
        (63, [EVENING[:63], STORY[64:]]),
        (62, ["It was late.", EVENING[13:63], STORY[64:]]),
        (40, ["It was late.", EVENING[13:47], EVENING[48:], "At ten she left. The door stood open."]),
    ],
)
def test_chunks_end_at_paragraphs_then_sentences_then_clauses(limit: int, expected: list[str]) -> None:
    assert list_texts(split_text(STORY, limit)) == expected


def test_paragraph_break_that_leaves_chunk_mostly_empty_is_ignored() -> None:
    assert list_texts(split_text("Title.\n\nIt was late. People came. The end.", 36)) == [
        "Title.\n\nIt was late. People came.",
        "The end.",
    ]


def test_sentence_without_clauses_is_split_between_words() -> None:
    assert list_texts(split_text("one two three four five", 10)) == ["one two", "three four", "five"]


def test_split_between_words_is_not_a_word_split() -> None:
    assert [chunk.is_word_split for chunk in split_text("one two incomprehensible", 9)] == [False, True, False]


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("It cost 3,000 or 10:30 then", 20, ["It cost 3,000 or", "10:30 then"]),
        ("the years 1990–1995 were good – they say", 36, ["the years 1990–1995 were good –", "they say"]),
        ("a walk at night—people knew where", 30, ["a walk at night—", "people knew where"]),
        ("昨日、友達と一緒に、東京へ行きました", 13, ["昨日、友達と一緒に、", "東京へ行きました"]),
        ("今天天气很好，我们去公园吧；他也来", 12, ["今天天气很好，", "我们去公园吧；他也来"]),
        ("قال إنه سيأتي، ثم ذهب بعيدا جدا", 25, ["قال إنه سيأتي،", "ثم ذهب بعيدا جدا"]),
        ("สวัสดีครับ ผมชื่อสมชาย คุณสบายดีไหม", 24, ["สวัสดีครับ ผมชื่อสมชาย", "คุณสบายดีไหม"]),
        ("roses are red\nviolets are blue and so on", 25, ["roses are red", "violets are blue and so", "on"]),
        ("“It was late. He said so. Then people came”", 30, ["“It was late. He said so.", "Then people came”"]),
        ("il a dit\xa0: oui", 9, ["il a", "dit\xa0: oui"]),
    ],
)  # fmt: skip
def test_clauses_end_at_the_marks_of_their_script(text: str, limit: int, expected: list[str]) -> None:
    assert list_texts(split_text(text, limit)) == expected


def test_clause_that_would_make_a_tiny_chunk_is_ignored() -> None:
    assert list_texts(split_text("Yes, we all went home together that night", 30)) == [
        "Yes, we all went home together",
        "that night",
    ]


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("abcdefgh", 3, ["abc", "def", "gh"]),
        (FAMILY * 3, 15, [FAMILY * 2, FAMILY]),
        ("🇩🇪🇫🇷🇮🇹", 3, ["🇩🇪", "🇫🇷", "🇮🇹"]),
        ("e\u0301" * 5, 5, ["e\u0301" * 2, "e\u0301" * 2, "e\u0301"]),
        ("\u1112\u1161\u11ab" * 3, 4, ["\u1112\u1161\u11ab"] * 3),
        ("क्षत्रिय", 5, ["क्ष", "त्रिय"]),
        ("คำคำ", 3, ["คำ", "คำ"]),
    ],
)
def test_word_over_limit_is_split_between_graphemes_and_marked(text: str, limit: int, expected: list[str]) -> None:
    chunks = split_text(text, limit)

    assert list_texts(chunks) == expected
    assert [chunk.is_word_split for chunk in chunks] == [True] * (len(expected) - 1) + [False]


def test_grapheme_at_any_offset_of_a_word_is_not_split() -> None:
    assert list_texts(split_text("a" * 250 + FAMILY + "b", 256)) == ["a" * 250, FAMILY + "b"]


def test_mark_within_a_grapheme_does_not_end_a_clause() -> None:
    assert list_texts(split_text("今天很好今天、\u0301今天今天", 8)) == ["今天很好今天、\u0301", "今天今天"]
    assert list_texts(split_text("今天很好今天、\u0301今天今天", 7)) == ["今天很好今", "天、\u0301今天今天"]


def test_foreign_word_in_script_without_spaces_is_not_split() -> None:
    assert list_texts(split_text("我想用这个iPhone打电话", 8)) == ["我想用这个", "iPhone打电", "话"]


def test_chunk_does_not_start_with_forbidden_line_start() -> None:
    assert list_texts(split_text("とてもとてもがっこう", 7)) == ["とてもとても", "がっこう"]


def test_limit_in_bytes_counts_bytes() -> None:
    text = "今天很好。我们走吧。Yes. Fine"

    assert list_texts(split_text(text, 15, unit=Unit.BYTES)) == ["今天很好。", "我们走吧。", "Yes. Fine"]
    assert list_texts(split_text(text, 15)) == ["今天很好。我们走吧。Yes.", "Fine"]


@pytest.mark.parametrize(
    ("unit", "limit", "message"),
    [
        (Unit.CHARACTERS, 6, "a single character of the text has 7 characters; the maximum of a chunk is 6"),
        (Unit.BYTES, 24, "a single character of the text has 25 bytes; the maximum of a chunk is 24"),
    ],
)
def test_grapheme_over_limit_is_refused(unit: Unit, limit: int, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        split_text(f"ok {FAMILY} ok", limit, unit=unit)

    assert refused.value.message == message


@pytest.mark.parametrize("limits", [{"max_size": 0}, {"max_size": 5, "max_first_size": 0}, {"max_size": -1}])
def test_limit_below_one_is_refused(limits: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=r"at least 1, not -?\d \(characters\)"):
        split_text("text", **limits)


def test_chunks_can_end_at_every_paragraph() -> None:
    chunks = split_text(STORY + "\n\n \n\nEnd", 200, break_at=BreakAt.PARAGRAPH)

    assert [(chunk.text[-5:], chunk.is_paragraph_end) for chunk in chunks] == [
        ("came.", True),
        ("open.", True),
        ("End", True),
    ]


def test_chunks_can_end_at_every_sentence() -> None:
    chunks = split_text(STORY, 40, break_at=BreakAt.SENTENCE)

    assert list_texts(chunks) == [
        "It was late.",
        "The rain, which had begun at noon,",
        "would not stop.",
        "People came.",
        "At ten she left.",
        "The door stood open.",
    ]
    assert [chunk.is_paragraph_end for chunk in chunks] == [False, False, False, True, False, True]


@pytest.mark.parametrize(
    ("first_limit", "expected"),
    [
        (20, "It was late."),
        (70, "It was late. The rain, which had begun at noon, would not stop."),
        (5, "It was late."),
        (500, STORY),
    ],
)
def test_first_chunk_can_be_short_for_early_audio(first_limit: int, expected: str) -> None:
    assert list_texts(split_text(STORY, 1000, max_first_size=first_limit))[0] == expected


@pytest.mark.parametrize(
    ("first_limit", "expected"),
    [
        (28, "When the rain began,"),
        (10, "When the rain began,"),
        (40, "When the rain began, we left,"),
    ],
)
def test_first_chunk_of_long_sentence_is_its_first_clauses(first_limit: int, expected: str) -> None:
    text = "When the rain began, we left, and people then came back to that place again. The end."

    chunks = split_text(text, 1000, max_first_size=first_limit)

    assert list_texts(chunks) == [expected, text.removeprefix(expected + " ")]


def test_first_chunk_is_longer_than_two_words() -> None:
    text = "Yes, people then came back to that place, he said. The end."

    assert list_texts(split_text(text, 1000, max_first_size=40))[0] == "Yes, people then came back to that place,"


def test_first_chunk_is_not_split_between_words_to_be_short() -> None:
    text = "People then came back to that place again. The end."

    assert list_texts(split_text(text, 1000, max_first_size=10)) == [
        "People then came back to that place again.",
        "The end.",
    ]


def test_text_without_limit_is_split_only_at_requested_breaks() -> None:
    assert len(split_text(STORY * 100, None)) == 1
    assert len(split_text(STORY, None, break_at=BreakAt.PARAGRAPH)) == 2


@pytest.mark.parametrize(
    "text",
    [
        ("Dr. Smith paid $3.50 to Mr. Jones. It cost a lot, e.g. for tea. " * 30 + "\n\n") * 500,
        "今天天气很好。我们去公园吧！" * 25_000,
        "a" * 100_000,
        "中" * 100_000,
        "🇩🇪" * 50_000,
        "“" + "It was late. He said so. " * 40_000,
        "。”" * 100_000,
        "a " + ("b" * 201 + " a ") * 4_000,
    ],
    ids=["prose", "chinese", "long word", "no marks", "flags", "one quotation", "marks", "long words"],
)
def test_splitting_takes_linear_time(text: str) -> None:
    started_s = time.process_time()

    assert len(split_text(text, 200)) > 1
    assert time.process_time() - started_s < 3


# --- chunks: properties ----------------------------------------------------------------------------------------------

MARKS = st.sampled_from([*".!?。！？।؟…,;:、，；—–-\"'“”«»「」()", "\n\n", "\n", "\r\n", " ", " ", "\xa0", "\u3000"])
GRAPHEMES = st.sampled_from(
    [FAMILY, "🇩🇪", "e\u0301", "\u0301", "\u200d", "ก็", "\u1112\u1161", "क्ष", "👍🏽", "\u200b", "\ud800"]
)
WORDS = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(
    ["Dr.", "cat", "Stadt", "今天", "です", "ผม"]
)
TEXTS = st.lists(MARKS | GRAPHEMES | WORDS, max_size=60).map("".join)
OPTIONS = st.fixed_dictionaries(
    {
        "max_size": st.integers(1, 40) | st.just(200),
        "unit": st.sampled_from(Unit),
        "break_at": st.sampled_from(BreakAt),
        "max_first_size": st.none() | st.integers(1, 30),
    }
)


@settings(max_examples=400, deadline=None)
@given(TEXTS, OPTIONS)
def test_every_chunk_fits_and_chunks_cover_the_text(text: str, options: dict[str, object]) -> None:
    graphemes = [match.span() for match in regex.finditer(r"\X", text)]
    largest = max((measure_size(text[slice(*grapheme)], options["unit"]) for grapheme in graphemes), default=0)
    options["max_size"] = max(options["max_size"], largest)

    chunks = split_text(text, **options)

    assert chunks == split_text(text, **options)
    for chunk in chunks:
        assert chunk.text == text[chunk.start : chunk.end]
        assert measure_size(chunk.text, options["unit"]) <= options["max_size"]
        assert chunk.text == chunk.text.strip(BLANK_CHARACTERS) != ""
    edges = [0, *(offset for chunk in chunks for offset in (chunk.start, chunk.end)), len(text)]
    assert edges == sorted(edges)
    assert not "".join(text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)).strip(BLANK_CHARACTERS)
    grapheme_interiors = {offset for start, end in graphemes for offset in range(start + 1, end)}
    assert not [a.end for a, b in pairwise(chunks) if a.end == b.start and a.end in grapheme_interiors]
    assert [chunk.is_paragraph_end for chunk in chunks[-1:]] in ([], [True])


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_sentences_are_ordered_and_omit_only_blanks(text: str) -> None:
    spans = list(split_sentences(text))

    edges = [0, *(offset for span in spans for offset in span), len(text)]
    assert edges == sorted(edges)
    assert not "".join(text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)).strip(BLANK_CHARACTERS)
    assert all(text[slice(*span)] == text[slice(*span)].strip(BLANK_CHARACTERS) != "" for span in spans)


# --- streams ---------------------------------------------------------------------------------------------------------


def test_stream_yields_a_sentence_when_the_next_has_started() -> None:
    splitter = StreamSplitter(100)

    assert list_texts(splitter.feed("I met Dr.")) == []
    assert list_texts(splitter.feed(" Smith. He")) == []
    assert list_texts(splitter.feed(" was")) == ["I met Dr. Smith."]
    assert list_texts(splitter.feed(" late. N")) == []
    assert list_texts(splitter.finish()) == ["He was late.", "N"]


def test_stream_yields_a_line_immediately() -> None:
    splitter = StreamSplitter(100)

    assert list_texts(splitter.feed("no mark here\n")) == ["no mark here"]
    assert list_texts(splitter.feed("wrapped by\nhand")) == []
    assert list_texts(splitter.feed(" and done  \n  ")) == ["wrapped by\nhand and done"]
    assert splitter.finish() == ()


def test_stream_yields_a_sentence_that_ends_its_line() -> None:
    assert list_texts(StreamSplitter(100).feed("One.\nTw")) == ["One."]


def test_stream_needs_no_space_in_scripts_without_spaces() -> None:
    assert list_texts(StreamSplitter(100).feed("今天很好。我")) == ["今天很好。"]


def test_stream_yields_text_over_limit_before_its_end() -> None:
    splitter = StreamSplitter(10)

    assert list_texts(splitter.feed("one two three")) == ["one two"]
    assert list_texts(splitter.feed(" fo")) == []
    assert list_texts(splitter.feed("ur five")) == ["three four"]
    assert list_texts(splitter.finish()) == ["five"]


def test_stream_can_join_sentences_that_arrived_together() -> None:
    splitter = StreamSplitter(100, break_at=BreakAt.MAX_SIZE)

    assert list_texts(splitter.feed("It came. It went. It stayed. Four")) == ["It came. It went."]
    assert list_texts(splitter.finish()) == ["It stayed. Four"]


def test_stream_chunks_have_offsets_in_the_whole_text() -> None:
    splitter = StreamSplitter(100)

    chunks = [*splitter.feed("One.\n\n"), *splitter.feed("  \nTwo.\n"), *splitter.feed("Three"), *splitter.finish()]

    assert chunks == [
        Chunk("One.", 0, 4, is_paragraph_end=True),
        Chunk("Two.", 9, 13),
        Chunk("Three", 14, 19, is_paragraph_end=True),
    ]


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXTS, max_size=6), st.sampled_from(BreakAt))
def test_stream_loses_no_text_for_any_block_size(parts: list[str], break_at: BreakAt) -> None:
    complete_text = "".join(parts)
    splitter = StreamSplitter(50, break_at=break_at)

    chunks = [chunk for part in parts for chunk in splitter.feed(part)] + list(splitter.finish())

    edges = [0, *(offset for chunk in chunks for offset in (chunk.start, chunk.end)), len(complete_text)]
    assert edges == sorted(edges)
    assert not "".join(complete_text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)).strip(BLANK_CHARACTERS)
    assert all(chunk.text == complete_text[chunk.start : chunk.end] and len(chunk.text) <= 50 for chunk in chunks)


# --- timing ----------------------------------------------------------------------------------------------------------


def test_chunk_duration_is_divided_among_sentences_by_characters() -> None:
    (chunk,) = split_text("Yes. Twelve char", 100)

    segments = time_sentences([TimedChunk(chunk, 0.0, 3.0)])

    assert [segment.text for segment in segments] == ["Yes.", "Twelve char"]
    assert segments[0].end_s == segments[1].start_s == pytest.approx(3.0 * 4 / 15)
    assert (segments[0].start_s, segments[1].end_s) == (0.0, 3.0)


def test_sentences_begin_where_their_chunk_begins() -> None:
    chunks = split_text("One.\n\nTwo. Three.", 100, break_at=BreakAt.SENTENCE)

    assert time_sentences(map(TimedChunk, chunks, (0.0, 1.5, 2.5), (1.0, 1.0, 1.0))) == (
        Segment(0.0, 1.0, "One."),
        Segment(1.5, 2.5, "Two."),
        Segment(2.5, 3.5, "Three."),
    )


def test_empty_speech_has_no_segments() -> None:
    assert time_sentences([]) == ()


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.lists(st.floats(0, 1e4), min_size=60, max_size=60))
def test_segments_are_ordered_and_cover_the_whole_text(text: str, durations_s: list[float]) -> None:
    chunks = split_text(text, 200, break_at=BreakAt.PARAGRAPH)[:60]

    starts_s = accumulate(durations_s, initial=0.0)
    segments = time_sentences(list(map(TimedChunk, chunks, starts_s, durations_s)))

    times_s = [time_s for segment in segments for time_s in (segment.start_s, segment.end_s)]
    assert times_s == sorted(times_s)
    without_blanks = str.maketrans("", "", BLANK_CHARACTERS)
    spoken_text = "".join(segment.text for segment in segments).translate(without_blanks)
    assert spoken_text == "".join(chunk.text for chunk in chunks).translate(without_blanks)
