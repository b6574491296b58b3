"""Captions: what every cue must be, whatever a gateway sent, and what good ones look like."""

from __future__ import annotations

import json
import math
import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiocli.errors import UsageError
from audiocli.text.cues import Cue, CaptionLimits, cues, speaker_prefix, tidy
from audiocli.text.line_breaking import graphemes, joined, width
from audiocli.text.subtitle_formats import document, parse, read_json, render
from audiocli.types.values import Segment, Transcript, Word

SPEECH = (
    "My fellow Americans, ask not what your country can do for you; ask what you can do for your country. "
    "Dr. Smith said that in nineteen sixty-one, when the world was another place. Was it? We do not know."
)
JAPANESE = "私は昨日、友達と一緒に東京へ行きました。とても楽しかったです。新しいレストランで食事をしました。"
FAMILY = "👨‍👩‍👧‍👦"


def spoken(text: str, *, bare: bool = True, start_s: float = 0.3) -> tuple[Word, ...]:
    """Time a text as a steady voice would say it: bare words as OpenAI sends them, or with their leading spaces."""
    words: list[Word] = []
    for token in text.split():
        end_s = start_s + 0.06 * len(token)
        words.append(Word(round(start_s, 2), round(end_s, 2), re.sub(r"[^\w'-]", "", token) if bare else f" {token}"))
        start_s = end_s + (0.8 if token[-1] in ".?!" and token != "Dr." else 0.25 if token[-1] in ",;" else 0.05)
    return tuple(words)


def ink(text: str) -> str:
    """All that is visible: no white space, no control characters."""
    return "".join(c for c in text if not c.isspace() and unicodedata.category(c) != "Cc").translate(
        dict.fromkeys(range(0xD800, 0xE000), "\ufffd")
    )


def shown(made: tuple[Cue, ...]) -> str:
    return ink("".join(line for cue in made for line in cue.lines))


def texts(made: tuple[Cue, ...]) -> list[str]:
    return [" / ".join(cue.lines) for cue in made]


def times(made: tuple[Cue, ...]) -> list[tuple[float, float]]:
    return [(cue.start_s, cue.end_s) for cue in made]


# --- examples: cues -------------------------------------------------------------------------------------------------


def test_whisper_segments_that_fit_keep_their_times_and_lose_their_leading_spaces() -> None:
    transcript = Transcript(
        " Hello there. How are you?",
        "en",
        6.1234,
        (Segment(0.0, 2.48, " Hello there."), Segment(2.48, 6.1, " How are you?")),
    )

    made = cues(transcript)

    assert made == (Cue(0.0, 2.48, ("Hello there.",)), Cue(2.48, 6.1, ("How are you?",)))


def test_one_giant_segment_with_words_is_cut_where_the_voice_pauses() -> None:
    words = spoken(SPEECH)
    transcript = Transcript(SPEECH, "en", 30.0, (Segment(0.0, 30.0, f" {SPEECH}"),), words)

    made = cues(transcript)

    assert texts(made) == [
        "My fellow Americans, / ask not what your country can do for you;",
        "ask what you can do for your country.",
        "Dr. Smith said that in nineteen sixty-one, / when the world was another place.",
        "Was it?",
        "We do not know.",
    ]
    assert [cue.start_s for cue in made] == [
        next(word.start_s for word in words[place:]) for place in (0, 12, 20, 33, 35)
    ]


def test_one_giant_segment_without_words_is_cut_in_proportion_to_its_text() -> None:
    made = cues(Transcript(SPEECH, "en", 21.0, (Segment(0.0, 21.0, SPEECH),)))

    assert texts(made)[:2] == [
        "My fellow Americans, / ask not what your country can do for you;",
        "ask what you can do for your country.",
    ]
    assert made[1].start_s == pytest.approx(21.0 * 63 / len(SPEECH), abs=0.01)
    assert made[-1].end_s == 21.0


def test_words_without_segments_show_the_punctuated_text() -> None:
    made = cues(Transcript(SPEECH, "en", None, (), spoken(SPEECH)))

    assert shown(made) == ink(SPEECH)
    assert texts(made)[-2:] == ["Was it?", "We do not know."]


def test_words_that_are_not_in_the_text_are_shown_themselves() -> None:
    made = cues(Transcript("Something else entirely was written here.", "en", None, (), spoken(SPEECH)))

    assert texts(made)[-1] == "We do not know"


def test_a_text_that_spells_some_words_differently_is_still_shown() -> None:
    text = SPEECH.replace("nineteen sixty-one", "1961")

    made = cues(Transcript(text, "en", None, (), spoken(SPEECH)))

    assert shown(made) == ink(text)
    assert "Dr. Smith said that in 1961, / when the world was another place." in texts(made)


def test_words_bring_their_own_spaces_or_get_them_as_the_script_wants() -> None:
    assert joined([" Hello", " wor", "ld", "."]) == "Hello world."
    assert joined(["Hello", "world", "!"]) == "Hello world!"
    assert joined(["東", "京", "は", "OK", "です"]) == "東京は OK です"
    assert joined(["안녕", "세계"]) == "안녕 세계"


def test_by_word_lets_the_words_and_not_the_segments_end_the_cues() -> None:
    halves = (Segment(0.0, 3.0, " ask what you can do"), Segment(3.0, 6.0, " for your country."))
    words = spoken("ask what you can do for your country.", start_s=0.5)
    transcript = Transcript("ask what you can do for your country.", "en", 6.0, halves, words)

    assert texts(cues(transcript)) == ["ask what you can do", "for your country."]
    assert texts(cues(transcript, by_word=True)) == ["ask what you can do for your country."]
    assert cues(transcript, by_word=True)[0].start_s == 0.5


def test_a_text_without_spaces_is_cut_at_its_own_punctuation() -> None:
    made = cues(Transcript(JAPANESE, "ja", 16.0, (Segment(0.0, 16.0, JAPANESE),)))

    assert shown(made) == JAPANESE
    assert all(cue.lines[-1][-1] in "。、" for cue in made)


def test_closing_signs_never_begin_a_line() -> None:
    made = cues(Transcript("", None, None, (Segment(0, 60, "あいうえお」、" * 40),)), CaptionLimits(max_line_width=10))

    assert not [line for cue in made for line in cue.lines if line[0] in "」、"]


def test_right_to_left_text_keeps_its_logical_order() -> None:
    text = "مرحبا بالعالم، كيف حالك اليوم؟ أنا بخير والحمد لله، شكرا جزيلا لك على السؤال اللطيف."

    made = cues(Transcript(text, "ar", 9.0, (Segment(0, 9, text),)))

    assert " ".join(line for cue in made for line in cue.lines) == text
    assert made[0].lines[-1].endswith("؟")


def test_a_grapheme_is_never_cut() -> None:
    made = cues(Transcript("", None, None, (Segment(0, 30, f"{FAMILY}e\u0301🇩🇪👍🏽" * 30),)), CaptionLimits(max_line_width=7))

    whole = {FAMILY, "e\u0301", "🇩🇪", "👍🏽"}
    assert {cluster for cue in made for line in cue.lines for cluster in graphemes(line)} == whole


@pytest.mark.parametrize(
    ("text", "cells"),
    [("abc", 3), ("日本", 4), ("e\u0301", 1), (FAMILY, 2), ("🇩🇪🇫🇷", 4), ("❤️", 2), ("한국", 4), ("ｱ", 1), ("\u200b", 0)],
)
def test_width_is_what_a_terminal_shows(text: str, cells: int) -> None:
    assert width(text) == cells


def test_lines_are_balanced_and_do_not_end_in_small_words() -> None:
    made = cues(Transcript("", "en", 4, (Segment(0, 4, "I went to the market because of the rain and the wind"),)))

    assert texts(made) == ["I went to the market because / of the rain and the wind"]


def test_few_words_in_a_long_time_stay_together() -> None:
    made = cues(Transcript("", "en", 20.0, (Segment(0.0, 20.0, "Hello there my friend."),)))

    assert made == (Cue(0.0, 7.0, ("Hello there my friend.",)),)


def test_a_cue_that_flashes_by_stays_into_the_silence_but_not_into_the_next() -> None:
    segments = (Segment(0.0, 0.3, "Yes."), Segment(5.0, 5.2, "No."), Segment(5.5, 7.0, "Maybe."))

    assert times(cues(Transcript("", None, 7.0, segments))) == [(0.0, 1.0), (5.0, 5.417), (5.5, 7.0)]


def test_overlapping_voices_are_shown_one_after_the_other() -> None:
    segments = (
        Segment(0.0, 5.0, "One long story", "A"),
        Segment(3.0, 4.0, "Really?", "B"),
        Segment(3.2, 8.0, "Yes.", "A"),
    )

    assert times(cues(Transcript("", None, 8.0, segments))) == [(0.0, 3.0), (3.0, 3.5), (3.5, 8.0)]


def test_segments_past_the_end_are_brought_back_into_the_recording() -> None:
    segments = (Segment(4.0, 9.0, "Before."), Segment(11.0, 13.0, "After."), Segment(13.0, 14.0, "Later."))

    assert times(cues(Transcript("", None, 10.0, segments))) == [(4.0, 9.0), (9.0, 9.5), (9.5, 10.0)]


def test_more_cues_than_milliseconds_run_past_an_end_that_cannot_be_true() -> None:
    made = cues(Transcript("", None, 0.002, tuple(Segment(0.0, 0.001 * n, str(n)) for n in range(5))))

    assert len(made) == 5
    assert made[-1].end_s > 0.002


def test_text_without_any_times_is_spread_over_the_recording() -> None:
    assert times(cues(Transcript("Hello there.", duration_s=3.0))) == [(0.0, 3.0)]
    assert times(cues(Transcript("Hello there."))) == [(0.0, 1.0)]
    assert cues(Transcript(" \n")) == ()


@pytest.mark.parametrize("wrong", [{"max_line_width": 0}, {"max_lines": 0}, {"max_cue_s": math.nan}, {"cps": 0.0}])
def test_a_shape_without_room_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        CaptionLimits(**wrong)  # type: ignore[arg-type]


# --- examples: tidy -------------------------------------------------------------------------------------------------


def test_tidy_mends_times_from_the_neighbours_and_the_duration() -> None:
    nan, inf = math.nan, math.inf
    segments = (Segment(-1.0, 2.0, " a"), Segment(nan, nan, "b"), Segment(4.0, 3.0, "c"), Segment(4.0, inf, "d"))

    assert tidy(Transcript("abcd", None, 9.0, segments)).segments == (
        Segment(0.0, 2.0, "a"),
        Segment(2.0, 4.0, "b"),
        Segment(4.0, 4.0, "c"),
        Segment(4.0, 9.0, "d"),
    )


def test_tidy_orders_and_drops_what_is_empty() -> None:
    segments = (Segment(3.0, 4.0, "late"), Segment(1.0, 2.0, " \n\x00"), Segment(0.0, 1.0, "early", "  "))

    assert tidy(Transcript("", None, None, segments)).segments == (
        Segment(0.0, 1.0, "early"),
        Segment(3.0, 4.0, "late"),
    )


def test_tidy_keeps_the_text_of_segments_whose_times_tell_nothing() -> None:
    for time_s in (math.nan, math.inf, 0.0):
        tidied = tidy(Transcript("", None, 9.0, (Segment(time_s, time_s, " Hi"), Segment(time_s, time_s, "there."))))

        assert (tidied.text, tidied.segments) == ("Hi there.", ())


def test_tidy_makes_a_text_that_a_file_can_hold() -> None:
    assert tidy(Transcript("a\ud800b", None, math.nan)) == Transcript("a\ufffdb")


# --- examples: formats ----------------------------------------------------------------------------------------------

TALK = Transcript(
    "Hi there. 1 < 2 & 3 --> 4. <i>Fine</i>",
    "en",
    9.5,
    (
        Segment(0.0, 3.0, "Hi there.", "Ann"),
        Segment(3.0, 5.0, "1 < 2 & 3\t--> 4.", "Ann"),
        Segment(5.0, 9.5, "<i>Fine</i>", "B>b"),
    ),
)


def test_txt_is_the_text_or_a_line_for_every_turn() -> None:
    assert render(Transcript("  Hi there.\n"), "txt") == "Hi there.\n"
    assert render(Transcript(""), "txt") == ""
    assert render(TALK, "txt") == "Ann: Hi there. 1 < 2 & 3 --> 4.\nB>b: <i>Fine</i>\n"


def test_srt_is_numbered_and_names_a_speaker_once_a_turn() -> None:
    assert render(TALK, "srt") == (
        "1\n00:00:00,000 --> 00:00:03,000\nAnn: Hi there.\n\n"
        "2\n00:00:03,000 --> 00:00:05,000\n1 < 2 & 3 --\u2060> 4.\n\n"
        "3\n00:00:05,000 --> 00:00:09,500\nB>b: <\u2060i>Fine<\u2060/i>\n"
    )


def test_vtt_has_voices_and_entities() -> None:
    assert render(TALK, "vtt") == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:03.000\n<v Ann>Hi there.\n\n"
        "00:00:03.000 --> 00:00:05.000\n<v Ann>1 &lt; 2 &amp; 3 --&gt; 4.\n\n"
        "00:00:05.000 --> 00:00:09.500\n<v B&gt;b>&lt;i&gt;Fine&lt;/i&gt;\n"
    )
    assert render(Transcript(""), "vtt") == "WEBVTT\n"


def test_tsv_has_a_row_for_every_segment_or_word() -> None:
    words = (Word(0.0, 0.4, " Hi"), Word(0.4, 0.9, " there"))

    assert render(TALK, "tsv").splitlines()[:3] == [
        "start\tend\ttext",
        "0\t3000\tHi there.",
        "3000\t5000\t1 < 2 & 3 --> 4.",
    ]
    assert render(Transcript("", words=words), "tsv", by_word=True) == "start\tend\ttext\n0\t400\tHi\n400\t900\tthere\n"
    assert render(Transcript("", words=words), "tsv") == "start\tend\ttext\n0\t1000\tHi there\n"


def test_json_has_the_documented_shape_and_no_impossible_numbers() -> None:
    transcript = Transcript("Hé", None, math.nan, (Segment(0.12345, math.inf, "Hé"),), (Word(0.12345, 0.5, " Hé"),))

    assert json.loads(render(transcript, "json"), parse_constant=pytest.fail) == {
        "text": "Hé",
        "language": None,
        "duration_s": None,
        "segments": [],
        "words": [{"start_s": 0.123, "end_s": 0.5, "word": "Hé"}],
        "timing": "word",
    }
    assert '"text": "Hé"' in render(transcript, "json")


def test_an_unknown_format_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="docx"):
        render(TALK, "docx")


def test_long_hours_are_written_and_read() -> None:
    transcript = Transcript("Hi.", segments=(Segment(360_000.0, 360_002.5, "Hi."),))

    assert "100:00:00,000 --> 100:00:02,500" in render(transcript, "srt")
    assert parse(render(transcript, "vtt"), "vtt") == cues(transcript)


# --- examples: reading ----------------------------------------------------------------------------------------------


def test_srt_of_other_programs_is_read() -> None:
    text = (
        "\ufeff1\r\n0:00:01,5 --> 0:00:02.250 X1:10 Y1:20\r\n<i>Hello</i>\r\n{\\an8}there\r\n\r\n"
        "00:00:03,000-->00:00:04,000\r\nwithout a number\r\n\r\nand a blank line\r\n"
        "2\r\n00:00:05,000 --> 00:00:06,000\r\nend"
    )

    assert parse(text, "srt") == (
        Cue(1.5, 2.25, ("Hello", "there")),
        Cue(3.0, 4.0, ("without a number", "and a blank line")),
        Cue(5.0, 6.0, ("end",)),
    )


def test_vtt_of_other_programs_is_read() -> None:
    text = (
        "\ufeffWEBVTT Kind: captions\nLanguage: en\n\nSTYLE\n::cue { color: red }\n\nREGION\nid:a\n\nNOTE a\nb\n\n"
        "intro\n00:01.000 --> 00:02.000 align:start position:0%\n"
        "<v.loud Ann Lee>Hi <c.x>you</c> &amp; <00:01.500>me\n\n"
        "NOTE in between\n\n01:00:00.000 --> 01:00:01.000\nTwo\nlines\n"
    )

    assert parse(text, "vtt") == (Cue(1.0, 2.0, ("Hi you & me",), "Ann Lee"), Cue(3600.0, 3601.0, ("Two", "lines")))


def test_json_of_gateways_is_read() -> None:
    text = json.dumps(
        {
            "duration": "3.5",
            "language": "en",
            "segments": [
                {"start": 0, "end": 1.5, "text": " Hi.", "speaker": 0, "words": [{"start": 0, "end": 1, "word": "Hi"}]},
                {"text": " Yes?"},
                None,
            ],
        }
    )

    assert read_json(text) == Transcript(
        "Hi. Yes?", "en", 3.5, (Segment(0.0, 1.5, "Hi.", "0"), Segment(1.5, 3.5, "Yes?")), (Word(0.0, 1.0, "Hi"),)
    )
    with pytest.raises(ValueError, match="object"):
        read_json("[]")


# --- laws -----------------------------------------------------------------------------------------------------------

LAWS = settings(derandomize=True, database=None, deadline=None, max_examples=120)

instants = (
    st.floats(0, 30)
    | st.floats(-1, 3)
    | st.integers(0, 5).map(float)
    | st.floats(0, 0.01)
    | st.sampled_from([math.nan, math.inf, -math.inf, -5.0, 1e308, 5e-324, 0.0])
)
tokens = st.sampled_from(
    (
        *("Hello,", "world.", "a", "I", "Dr.", "—", "...", "日本語。", "「東京」", "สวัสดี", "مرحبا", "नमस्ते"),
        *(
            FAMILY,
            "🇩🇪",
            "🇩",
            "e\u0301",
            "\u0301",
            "\ufe0f",
            "\u200d",
            "👍🏽",
            "🏽",
            "\u200b",
            "\ufeff",
            "\ud800",
            "ﬃ",
            "İ",
        ),
        *("-->", "00:00:01,000 --> 00:00:02,000", "42", "<b>", "</i>", "{\\an8}", "<\u2060b>", "--\u2060>"),
        *("&amp;", "<v A>", "WEBVTT", "NOTE", "\n", "\n\n", "\r", "\t", "\x00", "\x1b[0m", "\x85", "\u2028"),
        *("\u00a0", "a\u00a0b", "x" * 50, "x" * 500, "字" * 90, "」" * 60, "\u00a0".join("abc" * 30), "a\u0301" * 99),
    )
)
writings = (
    st.text(max_size=60)
    | st.lists(tokens, max_size=14).map(" ".join)
    | st.lists(tokens, max_size=8).map("".join)
    | st.lists(st.text("abcdef.,?", min_size=1, max_size=9), max_size=60).map(" ".join)
)
names = st.none() | st.sampled_from(["A", "B", "Ann Lee", "x" * 99, "A>b&c", "日本太郎", "a\nb"]) | st.text(max_size=9)
segments = st.lists(st.builds(Segment, instants, instants, writings, names), max_size=7).map(tuple)
bare_words = st.lists(st.builds(Word, instants, instants, st.text(max_size=9) | tokens), max_size=20).map(tuple)
said_words = st.text("abcdef ,.", max_size=300).map(spoken)
shapes = st.builds(
    CaptionLimits,
    st.sampled_from([42, 42, 1, 2, 7, 20, 80]),
    st.sampled_from([2, 2, 1, 3]),
    st.sampled_from([7.0, 7.0, 0.001, 2.5, 60.0]),
    st.sampled_from([17.0, 3.0, 1000.0]),
)
transcripts = st.builds(
    Transcript,
    writings,
    st.none(),
    st.none() | instants | st.sampled_from([10.0, 0.004, 3.2]),
    st.just(()) | segments,
    st.just(()) | bare_words | said_words,
)


@LAWS
@given(transcripts, shapes, st.booleans())
def test_cues_are_in_order_apart_and_inside_the_recording(transcript: Transcript, shape: CaptionLimits, by_word: bool) -> None:
    made = cues(transcript, shape, by_word=by_word)

    bounds_ms = [time_s * 1000 for cue in made for time_s in (cue.start_s, cue.end_s)]
    assert bounds_ms == sorted(bounds_ms)
    assert not bounds_ms or bounds_ms[0] >= 0
    assert all(abs(bound - round(bound)) < 1e-3 for bound in bounds_ms)
    assert all(round(cue.end_s * 1000) > round(cue.start_s * 1000) for cue in made)
    assert all(round(cue.end_s * 1000) - round(cue.start_s * 1000) <= shape.max_cue_s * 1000 for cue in made)
    duration_s = transcript.duration_s
    if made and duration_s is not None and duration_s * 1000 >= len(made) + 1 and duration_s <= 1e9:
        assert made[-1].end_s <= duration_s


@LAWS
@given(transcripts, shapes, st.booleans())
def test_cues_keep_to_their_shape(transcript: Transcript, shape: CaptionLimits, by_word: bool) -> None:
    made = cues(transcript, shape, by_word=by_word)

    speaker = None
    for cue in made:
        prefix = speaker_prefix(cue.speaker, shape) if cue.speaker != speaker else ""
        speaker = cue.speaker
        assert 1 <= len(cue.lines) <= shape.max_lines
        for line in (prefix + cue.lines[0], *cue.lines[1:]):
            assert width(line) <= shape.max_line_width or len(graphemes(line)) == 1
        assert all(line and line == line.strip() for line in cue.lines)


@LAWS
@given(transcripts, shapes, st.booleans())
def test_cues_show_every_character_once_and_in_order(transcript: Transcript, shape: CaptionLimits, by_word: bool) -> None:
    made = cues(transcript, shape, by_word=by_word)

    tidied = tidy(transcript)
    if tidied.segments:
        assert shown(made) == ink("".join(segment.text for segment in tidied.segments))
    elif tidied.words:
        assert shown(made) in (ink(tidied.text), ink("".join(word.word for word in tidied.words)))
    else:
        assert shown(made) == ink(tidied.text)


@LAWS
@given(transcripts)
def test_tidy_is_done_after_once_and_loses_no_text(transcript: Transcript) -> None:
    tidied = tidy(transcript)

    assert tidy(tidied) == tidied
    assert ink(tidied.text).startswith(ink(transcript.text))
    before = sorted(ink("".join(segment.text for segment in transcript.segments)))
    assert sorted(ink("".join(segment.text for segment in tidied.segments))) in ([], before)
    assert tidied.text or not before
    end_s = tidied.duration_s or 1e9
    assert all(0 <= segment.start_s <= segment.end_s <= end_s for segment in tidied.segments)
    assert all(0 <= word.start_s <= word.end_s <= end_s for word in tidied.words)
    assert [s.start_s for s in tidied.segments] == sorted(s.start_s for s in tidied.segments)


@LAWS
@given(transcripts, shapes, st.booleans())
def test_what_is_written_as_vtt_is_read_back_and_valid(transcript: Transcript, shape: CaptionLimits, by_word: bool) -> None:
    written = render(transcript, "vtt", shape=shape, by_word=by_word)

    assert parse(written, "vtt") == cues(transcript, shape, by_word=by_word)
    # The grammar of https://www.w3.org/TR/webvtt1/#syntax, as far as we use it.
    header, *blocks = written.removesuffix("\n").split("\n\n")
    assert header == "WEBVTT"
    for block in blocks:
        assert re.fullmatch(
            r"\d{2,}:[0-5]\d:[0-5]\d\.\d{3} --> \d{2,}:[0-5]\d:[0-5]\d\.\d{3}"
            r"\n(<v [^\n<>]+>)?([^\n\r\0&<>]|&amp;|&lt;|&gt;)+(\n([^\n\r\0&<>]|&amp;|&lt;|&gt;)+)*",
            block,
        )


@LAWS
@given(transcripts, shapes, st.booleans())
def test_what_is_written_as_srt_is_read_back(transcript: Transcript, shape: CaptionLimits, by_word: bool) -> None:
    written = render(transcript, "srt", shape=shape, by_word=by_word)

    expected, speaker = [], None
    for cue in cues(transcript, shape, by_word=by_word):
        prefix = speaker_prefix(cue.speaker, shape) if cue.speaker != speaker else ""
        speaker = cue.speaker
        expected.append(Cue(cue.start_s, cue.end_s, (prefix + cue.lines[0], *cue.lines[1:])))
    assert parse(written, "srt") == tuple(expected)
    assert re.findall(r"(?m)^(\d+)\n\d+:.*-->", written) == [str(number) for number in range(1, len(expected) + 1)]


@LAWS
@given(transcripts)
def test_json_and_tsv_are_read_back_to_the_millisecond(transcript: Transcript) -> None:
    written = render(transcript, "json")

    assert document(read_json(written)) == json.loads(written, parse_constant=pytest.fail)
    written.encode()
    rows = render(transcript, "tsv").removesuffix("\n").split("\n")
    assert all(re.fullmatch(r"\d+\t\d+\t[^\t]+", row) for row in rows[1:])
    assert len(parse("\n".join(rows), "tsv")) == len(rows) - 1


def test_a_word_of_ten_thousand_characters_is_cut_at_the_width() -> None:
    made = cues(Transcript("", None, 9.0, (Segment(0.0, 9.0, "x" * 10_000),)))

    assert shown(made) == "x" * 10_000
    assert {width(line) for cue in made for line in cue.lines[:-1]} == {42}


def test_an_hour_of_words_is_shown_whole() -> None:
    text = f"{SPEECH} " * 300

    made = cues(Transcript(text, "en", None, (), spoken(text)))

    assert shown(made) == ink(text)
