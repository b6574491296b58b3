"""Long texts: where they are cut, in many languages, and what every piece must be, whatever the text."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from audiocli.errors import UsageError
from audiocli.text.sentences import BLANK, paragraphs, sentences
from audiocli.text.splitter import Ends, Chunk, Unit, cut, size_of
from audiocli.text.stream_splitter import StreamSplitter
from audiocli.text.timing import timed
from audiocli.types.values import Segment

FAMILY = "👨‍👩‍👧‍👦"
EVENING = "It was late. The rain, which had begun at noon, would not stop. Nobody came."
STORY = f"{EVENING}\n\nAt ten she left. The door stood open."


def texts(pieces: tuple[Chunk, ...]) -> list[str]:
    return [piece.text for piece in pieces]


def sentences_of(text: str, language: str | None = None) -> list[str]:
    return [text[slice(*span)] for span in sentences(text, language=language)]


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
def test_sentences_end_where_a_reader_of_the_language_ends_them(language: str | None, expected: list[str]) -> None:
    assert sentences_of(" ".join(expected), language) == expected


@pytest.mark.parametrize(
    "expected",
    [
        ["今天天气很好。", "我们去公园吧！", "好吗？", "走吧"],
        ["“走吧。”", "他说。", "“好。”"],
        ["私は昨日、東京へ行きました。", "とても楽しかったです。", "本当？"],
    ],
)
def test_sentences_of_scripts_without_spaces_stand_close(expected: list[str]) -> None:
    assert sentences_of("".join(expected)) == expected


def test_thai_has_no_mark_for_the_end_of_a_sentence() -> None:
    assert sentences_of("สวัสดีครับ ผมชื่อสมชาย\n\nวันนี้อากาศดี") == ["สวัสดีครับ ผมชื่อสมชาย", "วันนี้อากาศดี"]


def test_a_sentence_may_be_wrapped_by_hand_but_not_by_an_empty_line() -> None:
    assert sentences_of("One\nand a half.\r\nTwo\r\n \t\r\nThree") == ["One\nand a half.", "Two", "Three"]


def test_what_has_no_word_goes_to_the_sentence_before() -> None:
    assert sentences_of("Stop! !!! ... Go. ”") == ["Stop! !!! ...", "Go. ”"]


@pytest.mark.parametrize("blank", ["\xa0", "\u3000", "\u2028", "\x85", "\u2009"])
def test_white_space_of_several_bytes_before_a_full_stop_is_survived(blank: str) -> None:
    assert sentences_of(f"Plan B{blank}. It works.") == [f"Plan B{blank}.", "It works."]


def test_a_lone_surrogate_is_survived() -> None:
    assert sentences_of("what \ud800 is. Next.") == ["what \ud800 is.", "Next."]


def test_sentences_longer_than_any_window_are_found_whole() -> None:
    long = "word " * 2000 + "end."

    assert sentences_of(f"First. {long} Last.") == ["First.", long, "Last."]


def test_a_long_paragraph_has_the_sentences_of_its_parts() -> None:
    parts = [f"Sentence {number} met Dr. Smith, e.g. at noon." for number in range(300)]

    assert sentences_of(" ".join(parts)) == parts


def test_paragraphs_end_at_empty_lines_form_feeds_and_separators() -> None:
    text = "  a\nb \n\n\n c\x0cd\u2029e\r\nf\r\n\r\n"

    assert [text[slice(*span)] for span in paragraphs(text)] == ["a\nb", "c", "d", "e\r\nf"]


# --- pieces: examples ------------------------------------------------------------------------------------------------


def test_a_text_that_fits_is_one_piece_without_what_is_blank_around_it() -> None:
    assert cut("\n Hello.  World.\n\n", 100) == (Chunk("Hello.  World.", 2, 16, ends_paragraph=True),)


@pytest.mark.parametrize("text", ["", " ", "\n\n\t", "\u200b\ufeff", "\x00\x1f\xa0\u3000"])
@pytest.mark.parametrize("ends", Ends)
def test_a_text_of_nothing_but_blanks_gives_no_pieces(text: str, ends: Ends) -> None:
    assert cut(text, 10, ends=ends) == ()


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
def test_pieces_end_at_paragraphs_then_sentences_then_clauses(limit: int, expected: list[str]) -> None:
    assert texts(cut(STORY, limit)) == expected


def test_a_piece_does_not_end_with_a_paragraph_that_leaves_it_mostly_empty() -> None:
    assert texts(cut("Title.\n\nIt was late. Nobody came. The end.", 36)) == [
        "Title.\n\nIt was late. Nobody came.",
        "The end.",
    ]


def test_a_sentence_without_clauses_is_cut_between_words() -> None:
    assert texts(cut("one two three four five", 10)) == ["one two", "three four", "five"]


def test_a_cut_between_words_is_no_cut_inside_a_word() -> None:
    assert [piece.is_torn for piece in cut("one two incomprehensible", 9)] == [False, True, False]


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("It cost 3,000 or 10:30 then", 20, ["It cost 3,000 or", "10:30 then"]),
        ("the years 1990–1995 were good – they say", 36, ["the years 1990–1995 were good –", "they say"]),
        ("a walk at night—nobody knew where", 30, ["a walk at night—", "nobody knew where"]),
        ("昨日、友達と一緒に、東京へ行きました", 13, ["昨日、友達と一緒に、", "東京へ行きました"]),
        ("今天天气很好，我们去公园吧；他也来", 12, ["今天天气很好，", "我们去公园吧；他也来"]),
        ("قال إنه سيأتي، ثم ذهب بعيدا جدا", 25, ["قال إنه سيأتي،", "ثم ذهب بعيدا جدا"]),
        ("สวัสดีครับ ผมชื่อสมชาย คุณสบายดีไหม", 24, ["สวัสดีครับ ผมชื่อสมชาย", "คุณสบายดีไหม"]),
        ("roses are red\nviolets are blue and so on", 25, ["roses are red", "violets are blue and so", "on"]),
        ("“It was late. He said so. Then nobody came”", 30, ["“It was late. He said so.", "Then nobody came”"]),
        ("il a dit\xa0: oui", 9, ["il a", "dit\xa0: oui"]),
    ],
)  # fmt: skip
def test_clauses_end_as_their_script_marks_them(text: str, limit: int, expected: list[str]) -> None:
    assert texts(cut(text, limit)) == expected


def test_a_clause_that_would_make_a_tiny_piece_is_passed_over() -> None:
    assert texts(cut("Yes, we all went home together that night", 30)) == [
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
def test_a_word_over_the_limit_is_cut_between_graphemes_and_says_so(text: str, limit: int, expected: list[str]) -> None:
    pieces = cut(text, limit)

    assert texts(pieces) == expected
    assert [piece.is_torn for piece in pieces] == [True] * (len(expected) - 1) + [False]


def test_a_grapheme_is_whole_however_far_into_a_word_it_stands() -> None:
    assert texts(cut("a" * 250 + FAMILY + "b", 256)) == ["a" * 250, FAMILY + "b"]


def test_a_mark_that_is_part_of_a_grapheme_ends_no_clause() -> None:
    assert texts(cut("今天很好今天、\u0301今天今天", 8)) == ["今天很好今天、\u0301", "今天今天"]
    assert texts(cut("今天很好今天、\u0301今天今天", 7)) == ["今天很好今", "天、\u0301今天今天"]


def test_a_foreign_word_in_a_script_without_spaces_stays_whole() -> None:
    assert texts(cut("我想用这个iPhone打电话", 8)) == ["我想用这个", "iPhone打电", "话"]


def test_a_piece_does_not_begin_with_what_no_line_begins_with() -> None:
    assert texts(cut("とてもとてもがっこう", 7)) == ["とてもとても", "がっこう"]


def test_bytes_are_counted_where_the_limit_is_in_bytes() -> None:
    text = "今天很好。我们走吧。Yes. Fine"

    assert texts(cut(text, 15, unit=Unit.BYTES)) == ["今天很好。", "我们走吧。", "Yes. Fine"]
    assert texts(cut(text, 15)) == ["今天很好。我们走吧。Yes.", "Fine"]


@pytest.mark.parametrize(
    ("unit", "limit", "message"),
    [
        (Unit.CHARACTERS, 6, "a single character of the text takes 7 characters, and a piece may have 6"),
        (Unit.BYTES, 24, "a single character of the text takes 25 bytes, and a piece may have 24"),
    ],
)
def test_a_grapheme_over_the_limit_is_refused(unit: Unit, limit: int, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        cut(f"ok {FAMILY} ok", limit, unit=unit)

    assert refused.value.message == message


@pytest.mark.parametrize("limits", [{"limit": 0}, {"limit": 5, "first_limit": 0}, {"limit": -1}])
def test_a_limit_without_room_for_anything_is_refused(limits: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least 1 of characters"):
        cut("text", **limits)


def test_pieces_can_end_with_every_paragraph() -> None:
    pieces = cut(STORY + "\n\n \n\nEnd", 200, ends=Ends.PARAGRAPH)

    assert [(piece.text[-5:], piece.ends_paragraph) for piece in pieces] == [
        ("came.", True),
        ("open.", True),
        ("End", True),
    ]


def test_pieces_can_end_with_every_sentence() -> None:
    pieces = cut(STORY, 40, ends=Ends.SENTENCE)

    assert texts(pieces) == [
        "It was late.",
        "The rain, which had begun at noon,",
        "would not stop.",
        "Nobody came.",
        "At ten she left.",
        "The door stood open.",
    ]
    assert [piece.ends_paragraph for piece in pieces] == [False, False, False, True, False, True]


@pytest.mark.parametrize(
    ("first_limit", "expected"),
    [
        (20, "It was late."),
        (70, "It was late. The rain, which had begun at noon, would not stop."),
        (5, "It was late."),
        (500, STORY),
    ],
)
def test_the_first_piece_can_be_short_so_that_sound_starts_early(first_limit: int, expected: str) -> None:
    assert texts(cut(STORY, 1000, first_limit=first_limit))[0] == expected


@pytest.mark.parametrize(
    ("first_limit", "expected"),
    [
        (28, "When the rain began,"),
        (10, "When the rain began,"),
        (40, "When the rain began, we left,"),
    ],
)
def test_the_first_piece_of_a_long_sentence_is_its_first_clauses(first_limit: int, expected: str) -> None:
    text = "When the rain began, we left, and nobody ever came back to that place again. The end."

    pieces = cut(text, 1000, first_limit=first_limit)

    assert texts(pieces) == [expected, text.removeprefix(expected + " ")]


def test_the_first_piece_is_not_a_word_or_two() -> None:
    text = "Yes, nobody ever came back to that place, he said. The end."

    assert texts(cut(text, 1000, first_limit=40))[0] == "Yes, nobody ever came back to that place,"


def test_the_first_piece_is_not_cut_between_words_only_to_be_short() -> None:
    text = "Nobody ever came back to that place again. The end."

    assert texts(cut(text, 1000, first_limit=10)) == ["Nobody ever came back to that place again.", "The end."]


def test_without_a_known_limit_only_the_wanted_ends_cut() -> None:
    assert len(cut(STORY * 100, None)) == 1
    assert len(cut(STORY, None, ends=Ends.PARAGRAPH)) == 2


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
    ids=["prose", "chinese", "one word", "no marks", "flags", "one quotation", "marks", "long words"],
)
def test_cutting_takes_time_in_proportion_to_the_text(text: str) -> None:
    began_s = time.process_time()

    assert len(cut(text, 200)) > 1
    assert time.process_time() - began_s < 3


# --- pieces: laws ----------------------------------------------------------------------------------------------------

MARKS = st.sampled_from([*".!?。！？।؟…,;:、，；—–-\"'“”«»「」()", "\n\n", "\n", "\r\n", " ", " ", "\xa0", "\u3000"])
SIGNS = st.sampled_from(
    [FAMILY, "🇩🇪", "e\u0301", "\u0301", "\u200d", "ก็", "\u1112\u1161", "क्ष", "👍🏽", "\u200b", "\ud800"]
)
WORDS = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(
    ["Dr.", "cat", "Stadt", "今天", "です", "ผม"]
)
TEXTS = st.lists(MARKS | SIGNS | WORDS, max_size=60).map("".join)
HOWS = st.fixed_dictionaries(
    {
        "limit": st.integers(1, 40) | st.just(200),
        "unit": st.sampled_from(Unit),
        "ends": st.sampled_from(Ends),
        "first_limit": st.none() | st.integers(1, 30),
    }
)


@settings(max_examples=400, deadline=None)
@given(TEXTS, HOWS)
def test_every_piece_fits_and_together_they_are_the_text(text: str, how: dict[str, object]) -> None:
    clusters = [match.span() for match in regex.finditer(r"\X", text)]
    largest = max((size_of(text[slice(*cluster)], how["unit"]) for cluster in clusters), default=0)
    how["limit"] = max(how["limit"], largest)

    pieces = cut(text, **how)

    assert pieces == cut(text, **how)
    for piece in pieces:
        assert piece.text == text[piece.start : piece.end]
        assert size_of(piece.text, how["unit"]) <= how["limit"]
        assert piece.text == piece.text.strip(BLANK) != ""
    edges = [0, *(place for piece in pieces for place in (piece.start, piece.end)), len(text)]
    assert edges == sorted(edges)
    assert not "".join(text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)).strip(BLANK)
    inner = {place for start, end in clusters for place in range(start + 1, end)}
    assert not [a.end for a, b in pairwise(pieces) if a.end == b.start and a.end in inner]
    assert [piece.ends_paragraph for piece in pieces[-1:]] in ([], [True])


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_sentences_are_in_order_and_leave_out_nothing_but_blanks(text: str) -> None:
    spans = list(sentences(text))

    edges = [0, *(place for span in spans for place in span), len(text)]
    assert edges == sorted(edges)
    assert not "".join(text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)).strip(BLANK)
    assert all(text[slice(*span)] == text[slice(*span)].strip(BLANK) != "" for span in spans)


# --- a pipe without end ----------------------------------------------------------------------------------------------


def test_a_sentence_is_given_when_the_next_has_surely_begun() -> None:
    cutter = StreamSplitter(100)

    assert texts(cutter.feed("I met Dr.")) == []
    assert texts(cutter.feed(" Smith. He")) == []
    assert texts(cutter.feed(" was")) == ["I met Dr. Smith."]
    assert texts(cutter.feed(" late. N")) == []
    assert texts(cutter.finish()) == ["He was late.", "N"]


def test_what_stands_at_a_line_end_is_given_at_once() -> None:
    cutter = StreamSplitter(100)

    assert texts(cutter.feed("no mark here\n")) == ["no mark here"]
    assert texts(cutter.feed("wrapped by\nhand")) == []
    assert texts(cutter.feed(" and done  \n  ")) == ["wrapped by\nhand and done"]
    assert cutter.finish() == ()


def test_a_sentence_with_a_line_end_after_it_is_complete() -> None:
    assert texts(StreamSplitter(100).feed("One.\nTw")) == ["One."]


def test_a_script_without_spaces_needs_no_space_to_begin() -> None:
    assert texts(StreamSplitter(100).feed("今天很好。我")) == ["今天很好。"]


def test_what_is_longer_than_the_limit_does_not_wait_for_its_end() -> None:
    cutter = StreamSplitter(10)

    assert texts(cutter.feed("one two three")) == ["one two"]
    assert texts(cutter.feed(" fo")) == []
    assert texts(cutter.feed("ur five")) == ["three four"]
    assert texts(cutter.finish()) == ["five"]


def test_several_sentences_that_came_together_can_be_one_piece() -> None:
    cutter = StreamSplitter(100, ends=Ends.WHERE_FULL)

    assert texts(cutter.feed("It came. It went. It stayed. Four")) == ["It came. It went."]
    assert texts(cutter.finish()) == ["It stayed. Four"]


def test_pieces_of_a_stream_are_placed_in_the_whole_of_it() -> None:
    cutter = StreamSplitter(100)

    pieces = [*cutter.feed("One.\n\n"), *cutter.feed("  \nTwo.\n"), *cutter.feed("Three"), *cutter.finish()]

    assert pieces == [
        Chunk("One.", 0, 4, ends_paragraph=True),
        Chunk("Two.", 9, 13),
        Chunk("Three", 14, 19, ends_paragraph=True),
    ]


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXTS, max_size=6), st.sampled_from(Ends))
def test_a_stream_loses_nothing_however_it_comes(parts: list[str], ends: Ends) -> None:
    whole = "".join(parts)
    cutter = StreamSplitter(50, ends=ends)

    pieces = [piece for part in parts for piece in cutter.feed(part)] + list(cutter.finish())

    edges = [0, *(place for piece in pieces for place in (piece.start, piece.end)), len(whole)]
    assert edges == sorted(edges)
    assert not "".join(whole[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)).strip(BLANK)
    assert all(piece.text == whole[piece.start : piece.end] and len(piece.text) <= 50 for piece in pieces)


# --- when it was said ------------------------------------------------------------------------------------------------


def test_the_time_of_a_piece_is_divided_among_its_sentences_by_their_characters() -> None:
    (piece,) = cut("Yes. Twelve char", 100)

    segments = timed([(piece, 3.0)])

    assert [segment.text for segment in segments] == ["Yes.", "Twelve char"]
    assert segments[0].end_s == segments[1].start_s == pytest.approx(3.0 * 4 / 15)
    assert (segments[0].start_s, segments[1].end_s) == (0.0, 3.0)


def test_a_pause_follows_every_paragraph_but_no_other_piece() -> None:
    pieces = cut("One.\n\nTwo. Three.", 100, ends=Ends.SENTENCE)

    assert timed([(piece, 1.0) for piece in pieces], pause_s=0.5) == (
        Segment(0.0, 1.0, "One."),
        Segment(1.5, 2.5, "Two."),
        Segment(2.5, 3.5, "Three."),
    )


def test_nothing_spoken_has_no_segments() -> None:
    assert timed([]) == ()


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.lists(st.floats(0, 1e4), min_size=60, max_size=60))
def test_segments_follow_each_other_and_say_the_whole_text(text: str, durations_s: list[float]) -> None:
    pieces = cut(text, 200, ends=Ends.PARAGRAPH)[:60]

    segments = timed(list(zip(pieces, durations_s, strict=False)), pause_s=0.3)

    times_s = [time_s for segment in segments for time_s in (segment.start_s, segment.end_s)]
    assert times_s == sorted(times_s)
    without_blanks = str.maketrans("", "", BLANK)
    said = "".join(segment.text for segment in segments).translate(without_blanks)
    assert said == "".join(piece.text for piece in pieces).translate(without_blanks)
