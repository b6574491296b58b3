"""Test caption cues and transcript formats: properties that hold for any input, and examples."""

from __future__ import annotations

import itertools
import json
import math
import re
import unicodedata
from html import unescape

import pysubs2
import pytest
import webvtt
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from audiocli.errors import UsageError
from audiocli.text.cues import (
    CaptionLimits,
    Cue,
    build_cues,
    format_speaker_prefix,
    join_timed_texts,
    list_timed_texts,
    normalize_transcript,
)
from audiocli.text.line_breaking import join_words, measure_width, split_graphemes
from audiocli.text.subtitle_formats import build_document, parse_json, render
from audiocli.text.untimed import DEFAULT_LETTERS_PER_S, count_letters
from audiocli.types.transcripts import Segment, Transcript, Word

SPEECH = (
    "My fellow Americans, ask not what your country can do for you; ask what you can do for your country. "
    "Dr. Smith said that in nineteen sixty-one, when the world was another place. Was it? We do not know."
)
JAPANESE = "私は昨日、友達と一緒に東京へ行きました。とても楽しかったです。新しいレストランで食事をしました。"
FAMILY_EMOJI = "👨‍👩‍👧‍👦"


def build_words(text: str, *, without_punctuation: bool = True, start_s: float = 0.3) -> tuple[Word, ...]:
    """Time a text at a constant speaking rate. Words have no punctuation, as from OpenAI, or leading spaces."""
    words: list[Word] = []
    for token in text.split():
        end_s = start_s + 0.06 * len(token)
        words.append(
            Word(
                round(start_s, 2),
                round(end_s, 2),
                re.sub(r"[^\w'-]", "", token) if without_punctuation else f" {token}",
            )
        )
        start_s = end_s + (0.8 if token[-1] in ".?!" and token != "Dr." else 0.25 if token[-1] in ",;" else 0.05)
    return tuple(words)


def extract_visible(text: str) -> str:
    """Remove white space and control characters; replace surrogates."""
    return "".join(c for c in text if not c.isspace() and unicodedata.category(c) != "Cc").translate(
        dict.fromkeys(range(0xD800, 0xE000), "\ufffd")
    )


def join_visible(cues: tuple[Cue, ...]) -> str:
    return extract_visible("".join(line for cue in cues for line in cue.lines))


def format_cues(cues: tuple[Cue, ...]) -> list[str]:
    return [" / ".join(cue.lines) for cue in cues]


def get_times(cues: tuple[Cue, ...]) -> list[tuple[float, float]]:
    return [(cue.start_s, cue.end_s) for cue in cues]


def convert_to_ms(cues: tuple[Cue, ...]) -> list[tuple[int, int, str, str | None]]:
    """Return the start and end in milliseconds, the text and the speaker of each cue."""
    return [(round(cue.start_s * 1000), round(cue.end_s * 1000), "\n".join(cue.lines), cue.speaker) for cue in cues]


def read_vtt(content: str) -> list[tuple[int, int, str, str | None]]:
    """Read WebVTT with webvtt-py, which leaves entities in the text."""
    return [
        (
            caption.start_time.in_milliseconds(),
            caption.end_time.in_milliseconds(),
            unescape(caption.text),
            unescape(caption.voice) if caption.voice else None,
        )
        for caption in webvtt.from_string(content, strict=True)
    ]


def read_srt(content: str) -> list[tuple[int, int, str]]:
    """Read SubRip with pysubs2, which converts the tags that it knows to override codes."""
    # pysubs2 removes a number after each cue, so the last cue needs one too.
    subtitles = pysubs2.SSAFile.from_string(f"{content}\n0\n", format_="srt", keep_unknown_html_tags=True)
    return [(event.start, event.end, event.text.replace("\\N", "\n")) for event in subtitles]


# --- examples: cues -------------------------------------------------------------------------------------------------


def test_whisper_segments_keep_their_times_without_leading_spaces() -> None:
    transcript = Transcript(
        " Hello there. How are you?",
        "en",
        6.1234,
        (Segment(0.0, 2.48, " Hello there."), Segment(2.48, 6.1, " How are you?")),
    )

    cues = build_cues(transcript)

    assert cues == (Cue(0.0, 2.48, ("Hello there.",)), Cue(2.48, 6.1, ("How are you?",)))


def test_long_segment_with_words_is_split_at_pauses() -> None:
    words = build_words(SPEECH)
    transcript = Transcript(SPEECH, "en", 30.0, (Segment(0.0, 30.0, f" {SPEECH}"),), words)

    cues = build_cues(transcript)

    assert format_cues(cues) == [
        "My fellow Americans, / ask not what your country can do for you;",
        "ask what you can do for your country.",
        "Dr. Smith said that in nineteen sixty-one, / when the world was another place.",
        "Was it?",
        "We do not know.",
    ]
    assert [cue.start_s for cue in cues] == [
        next(word.start_s for word in words[index:]) for index in (0, 12, 20, 33, 35)
    ]


def test_long_segment_without_words_is_split_in_proportion_to_its_text() -> None:
    cues = build_cues(Transcript(SPEECH, "en", 21.0, (Segment(0.0, 21.0, SPEECH),)))

    assert format_cues(cues)[:2] == [
        "My fellow Americans, / ask not what your country can do for you;",
        "ask what you can do for your country.",
    ]
    assert cues[1].start_s == pytest.approx(21.0 * 63 / len(SPEECH), abs=0.01)
    assert cues[-1].end_s == 21.0


def test_words_without_segments_show_the_punctuated_text() -> None:
    cues = build_cues(Transcript(SPEECH, "en", None, (), build_words(SPEECH)))

    assert join_visible(cues) == extract_visible(SPEECH)
    assert format_cues(cues)[-2:] == ["Was it?", "We do not know."]


def test_words_that_contradict_the_text_are_shown() -> None:
    cues = build_cues(Transcript("Something else entirely was written here.", "en", None, (), build_words(SPEECH)))

    assert format_cues(cues)[-1] == "We do not know"


def test_text_that_spells_some_words_differently_is_shown() -> None:
    text = SPEECH.replace("nineteen sixty-one", "1961")

    cues = build_cues(Transcript(text, "en", None, (), build_words(SPEECH)))

    assert join_visible(cues) == extract_visible(text)
    assert "Dr. Smith said that in 1961, / when the world was another place." in format_cues(cues)


def test_words_without_segments_are_split_at_pauses_although_they_fit_one_cue() -> None:
    words = (Word(0.0, 0.5, "Yes."), Word(1.0, 1.5, "Well"), Word(4.0, 4.5, "maybe."))

    for text in ("Yes. Well maybe.", "!!!"):
        cues = build_cues(Transcript(text, "en", None, (), words))
        assert len(cues) == 2, text


def test_words_of_another_speaker_do_not_time_a_segment() -> None:
    segments = (Segment(0.0, 4.0, "one two three four five six seven eight nine ten eleven twelve", "A"),)
    text = segments[0].text.split()
    own = [Word(index * 0.2, index * 0.2 + 0.1, word, "A") for index, word in enumerate(text)]
    interruption = [Word(3.0 + index * 0.05, 3.02 + index * 0.05, word, "B") for index, word in enumerate(text)]
    limits = CaptionLimits(max_line_width=16, max_lines=1)

    alone = build_cues(Transcript(segments[0].text, "en", None, segments, tuple(own)), limits)
    both = build_cues(Transcript(segments[0].text, "en", None, segments, (*own, *interruption)), limits)

    assert len(alone) > 2 and get_times(both) == get_times(alone)


@pytest.mark.parametrize(("width", "lines"), [(20, 2), (23, 1), (40, 1)])
def test_event_that_needs_every_line_is_shown(width: int, lines: int) -> None:
    transcript = Transcript("", "en", 9.0, (), (), events=(Word(1.0, 2.0, "(a door closes quietly)"),))
    cues = build_cues(transcript, CaptionLimits(max_line_width=width, max_lines=lines))
    one_word = transcript._replace(events=(Word(1.0, 2.0, "x" * (width - 2)),))

    assert [len(cue.lines) for cue in cues] == [lines]
    assert format_cues(build_cues(one_word, CaptionLimits(max_line_width=width, max_lines=1))) == [
        f"[{'x' * (width - 2)}]"
    ]
    assert build_cues(transcript, CaptionLimits(max_line_width=20, max_lines=1)) == ()


@pytest.mark.parametrize(
    ("start_s", "end_s", "text"),
    [
        (100.0, 104.0, "one two three"),
        (0.0, 7.0, "one two three"),
        (0.0, 6.0, "one two three four five six"),
    ],
    ids=["late", "longest cue", "every line"],
)
def test_segment_that_fits_a_cue_is_not_split_at_a_pause(start_s: float, end_s: float, text: str) -> None:
    first, *others = text.split()
    words = (
        Word(start_s, start_s + 0.3, first),
        *(Word(end_s - 1 + index * 0.1, end_s - 0.9 + index * 0.1, word) for index, word in enumerate(others)),
    )
    transcript = Transcript(text, "en", 200.0, (Segment(start_s, end_s, text),), words)

    cues = build_cues(transcript, CaptionLimits(max_line_width=14, max_lines=2))

    assert get_times(cues) == [(start_s, end_s)]


def test_text_before_the_first_word_has_time_to_be_read() -> None:
    words = (Word(5.0, 5.5, "finally"), Word(5.6, 6.0, "spoken"))

    cues = build_cues(Transcript("Much text that has no words, finally spoken.", "en", 9.0, (), words))

    assert 1 < cues[0].start_s < 4


def test_cue_that_would_become_shorter_than_a_second_has_no_gap() -> None:
    words = (Word(5.0, 5.6, "Hello"), Word(5.6, 7.5, "worldly"))
    transcript = Transcript("Hello worldly", "en", 8.0, (Segment(5.0, 7.5, "Hello worldly"),), words)

    cues = build_cues(transcript, CaptionLimits(max_line_width=8, max_lines=1))

    assert get_times(cues)[0] == (5.0, 5.6)


def test_times_within_a_millisecond_are_no_times() -> None:
    words = (Word(1.0, 1.0001, "one"), Word(1.0002, 1.0003, "two"))

    assert normalize_transcript(Transcript("one two", words=words)).words == ()


def test_cue_is_a_value() -> None:
    assert len({Cue(0.0, 1.0, ("a",)), Cue(0.0, 1.0, ("a",))}) == 1


def test_text_after_the_last_word_has_time_to_be_read() -> None:
    text = "one two three, and then there is much more text that has no words at all"
    words = tuple(Word(index * 0.4, index * 0.4 + 0.3, word) for index, word in enumerate(("one", "two", "three")))

    cues = build_cues(Transcript(text, "en", None, (), words), CaptionLimits(max_line_width=20, max_lines=1))

    assert join_visible(cues) == extract_visible(text)
    assert cues[0].start_s == 0 and cues[-1].start_s > 3


def test_words_just_before_a_segment_belong_to_it() -> None:
    text = "first second third"
    words = (Word(0.2, 0.4, "earlier"), Word(0.97, 2.5, "first"), Word(6.0, 6.6, "second"), Word(8.0, 8.4, "third"))
    transcript = Transcript(text, "en", 10.0, (Segment(1.0, 9.0, text),), words)

    cues = build_cues(transcript, CaptionLimits(max_line_width=14, max_lines=1))

    assert (cues[0].lines, cues[0].start_s, cues[0].end_s) == (("first",), 1.0, 2.5)
    assert cues[1].start_s == 6.0


def test_cues_of_continuous_words_have_a_gap_of_two_frames() -> None:
    words = tuple(Word(index * 0.5, index * 0.5 + 0.5, f"word{index:02}") for index in range(16))
    text = " ".join(word.text for word in words)

    cues = build_cues(
        Transcript(text, "en", 8.0, (Segment(0.0, 8.0, text),), words), CaptionLimits(max_line_width=28, max_lines=1)
    )

    gaps_s = [later.start_s - earlier.end_s for earlier, later in itertools.pairwise(cues)]
    assert len(cues) == 4 and gaps_s == pytest.approx([2 / 24] * 3, abs=0.002)


def test_event_between_speech_is_shown_if_it_only_touches_it() -> None:
    segments = (Segment(0.0, 2.0, "Hello."), Segment(4.0, 6.0, "Goodbye."))

    def list_lines(start_s: float, end_s: float) -> list[str]:
        events = (Word(start_s, end_s, "(cough)"),)
        return format_cues(build_cues(Transcript("Hello. Goodbye.", "en", 6.0, segments, events=events)))

    assert list_lines(2.0, 4.0) == ["Hello.", "[cough]", "Goodbye."]
    assert list_lines(2.0, 4.1) == list_lines(1.9, 4.0) == ["Hello.", "Goodbye."]


@pytest.mark.parametrize(
    ("value", "share", "measure"),
    [(0.25, 0.25, 0.25), (0.0, 0.0, 0.0), (-1.5, None, -1.5), (2e6, None, None), (math.nan, None, None)],
)
def test_measures_of_the_model_stay_if_they_are_possible(
    value: float, share: float | None, measure: float | None
) -> None:
    segment = Segment(0.0, 1.0, "hello", channel=1, no_speech_prob=value, avg_logprob=value, compression_ratio=value)

    (normalized,) = normalize_transcript(Transcript("hello", segments=(segment,))).segments

    assert (normalized.no_speech_prob, normalized.avg_logprob, normalized.compression_ratio) == (
        share,
        measure,
        measure,
    )
    assert normalized.channel == 1


@pytest.mark.parametrize("text", ["Hello there, Ann.", "今日は。元気？", "one"])
def test_timed_texts_join_to_the_text(text: str) -> None:
    transcript = Transcript(text, segments=(Segment(0.0, 3.0, text),))

    assert join_timed_texts(list_timed_texts(transcript)) == text


def test_maximum_of_words_does_not_replace_the_other_limits() -> None:
    transcript = Transcript("several words that are too long", segments=(Segment(0.0, 4.0, "several words too long"),))

    cues = build_cues(transcript, CaptionLimits(max_line_width=10, max_lines=1, words_per_cue=10))

    assert len(cues) > 1 and all(len(cue.lines) == 1 and len(cue.lines[0]) <= 10 for cue in cues)


def test_interruption_in_the_first_second_is_in_order() -> None:
    words = (Word(0.0, 0.2, "one", speaker="Ann"), Word(0.8, 1.5, "two", speaker="Ann"))
    segments = (Segment(0.0, 1.5, "one two", speaker="Ann"), Segment(0.4, 0.7, "no", speaker="Bob"))

    cues = build_cues(Transcript("", segments=segments, words=words), CaptionLimits(words_per_cue=1))

    assert [cue.speaker for cue in cues] == ["Ann", "Bob", "Ann"]


def test_text_without_words_gets_an_even_share_of_the_time() -> None:
    times_s = [part.start_s for part in list_timed_texts(Transcript("", segments=(Segment(0.0, 9.0, "aaaa bbbb"),)))]

    assert times_s == pytest.approx([0.0, 5.0])


def test_cue_may_have_the_maximum_of_words() -> None:
    words = (Word(0.0, 0.5, "one"), Word(3.0, 3.5, "two"), Word(3.5, 4.0, "three"))
    transcript = Transcript("", segments=(Segment(0.0, 4.0, "one two three"),), words=words)

    assert len(build_cues(transcript, CaptionLimits(words_per_cue=3))) == 1


def test_only_the_first_line_of_a_turn_is_shorter_for_the_name() -> None:
    segments = (Segment(0.0, 2.0, "one", speaker="Ann"), Segment(2.0, 4.0, "just as wide as a line", speaker="Ann"))

    cues = build_cues(Transcript("", segments=segments), CaptionLimits(max_line_width=22, max_lines=1))

    assert [cue.lines for cue in cues] == [("one",), ("just as wide as a line",)]


def test_unknown_start_of_the_first_segment_is_the_start_of_the_recording() -> None:
    segments = (Segment(math.nan, 2.0, "one"), Segment(2.0, 3.0, "two"))

    assert [segment.start_s for segment in normalize_transcript(Transcript("", segments=segments)).segments] == [0, 2]


def test_text_before_the_first_timed_word_gets_its_share_of_the_time() -> None:
    text = "aaaa bbbb cccc"
    transcript = Transcript(text, segments=(Segment(0.0, 6.0, text),), words=(Word(5.0, 6.0, "cccc"),))

    times_s = [word.start_s for word in list_timed_texts(transcript)]

    assert times_s == pytest.approx([0.0, 2.5, 5.0])


def test_only_timed_words_have_a_confidence() -> None:
    words = (Word(0.0, 1.0, "aa", confidence=0.1), Word(2.0, 3.0, "cc", confidence=0.3))
    spaced = Transcript("", segments=(Segment(0.0, 3.0, "aa bb cc"),), words=words)
    unspaced = Transcript("", segments=(Segment(0.0, 2.0, "今日は"),), words=(Word(0.0, 1.0, "今", confidence=0.5),))

    assert [part.confidence for part in list_timed_texts(spaced)] == [0.1, None, 0.3]
    assert [part.confidence for part in list_timed_texts(unspaced)] == [0.5, None, None]


def test_text_after_the_last_word_is_spoken_at_the_usual_speed() -> None:
    words = (Word(0.0, 0.5, "one"), Word(0.5, 1.0, "two"))
    after = "and then twelve more letters"

    parts = list_timed_texts(Transcript(f"one two {after}", words=words))

    assert parts[-1].end_s == pytest.approx(1.0 + count_letters(after) / DEFAULT_LETTERS_PER_S, abs=0.01)


def test_segments_of_a_script_without_spaces_are_joined_without_one() -> None:
    segments = (Segment(0.0, 2.0, "今日は"), Segment(2.0, 4.0, "晴れ"))

    assert join_timed_texts(list_timed_texts(Transcript("", segments=segments))) == "今日は晴れ"


def test_line_of_an_interrupted_speaker_has_space_for_the_name_only() -> None:
    first, second = "x" * 12, "y" * 12
    segments = (Segment(0.0, 9.0, f"{first} {second} Hi", speaker="Ann"), Segment(3.0, 4.0, "Yes", speaker="Bob"))
    times_s = ((0.0, 1.0, first), (1.0, 2.0, second), (8.0, 9.0, "Hi"))
    words = tuple(Word(start_s, end_s, text, speaker="Ann") for start_s, end_s, text in times_s)
    width = len(f"Ann: {first} {second}")

    cues = build_cues(Transcript("", segments=segments, words=words), CaptionLimits(max_line_width=width))

    assert [cue.lines for cue in cues] == [(f"{first} {second}",), ("Yes",), ("Hi",)]


def test_second_cue_of_a_turn_has_the_whole_line() -> None:
    line = "x" * 30
    segments = (Segment(0.0, 2.0, "Hi", speaker="Ann"), Segment(2.0, 9.0, line, speaker="Ann"))

    cues = build_cues(Transcript("", segments=segments), CaptionLimits(max_line_width=30))

    assert [cue.lines for cue in cues] == [("Hi",), (line,)]


def test_each_segment_of_a_speaker_begins_a_part() -> None:
    words = tuple(Word(float(index), index + 1.0, text) for index, text in enumerate(["a", "b", "c", "d"]))
    segments = (Segment(0.0, 2.0, "a b"), Segment(2.0, 4.0, "c d"))

    parts = list_timed_texts(Transcript("a b c d", segments=segments, words=words))

    assert [part.starts_segment for part in parts] == [True, False, True, False]


def test_each_word_has_its_own_confidence() -> None:
    quoted = (Word(0.0, 1.0, "I", confidence=0.5), Word(1.0, 2.0, "know", confidence=0.7))
    unspaced = (Word(0.0, 1.0, "今", confidence=0.5), Word(1.0, 2.0, "日", confidence=0.7))

    for text, words in (("“I know”", quoted), ("今日", unspaced)):
        transcript = Transcript("", segments=(Segment(0.0, 2.0, text),), words=words)
        assert [part.confidence for part in list_timed_texts(transcript)] == [0.5, 0.7]


def test_untimed_text_that_fits_is_one_cue() -> None:
    assert len(build_cues(Transcript("Hello. Goodbye, and thank you.", duration_s=6.0))) == 1


def test_timed_texts_say_what_they_are() -> None:
    transcript = Transcript("Hi there. Yes", segments=(Segment(0.0, 2.0, "Hi there."), Segment(3.0, 4.0, "Yes")))

    parts = list_timed_texts(transcript)

    assert [(part.text, part.is_sentence_end, part.starts_segment, part.is_event) for part in parts] == [
        ("Hi", False, True, False),
        ("there.", True, False, False),
        ("Yes", False, True, False),
    ]


@pytest.mark.parametrize(("channel", "expected"), [(0, 0), (1, 1), (-1, None), (None, None)])
def test_channel_is_an_index(channel: int | None, expected: int | None) -> None:
    word = Word(0.0, 1.0, "hello", channel=channel)

    assert normalize_transcript(Transcript("hello", words=(word,))).words[0].channel == expected


@pytest.mark.parametrize(("confidence", "expected"), [(0.0, 0.0), (1.0, 1.0), (1.5, None), (-0.1, None), (None, None)])
def test_confidence_is_a_share(confidence: float | None, expected: float | None) -> None:
    word = Word(0.0, 1.0, "hello", confidence=confidence)

    assert normalize_transcript(Transcript("hello", words=(word,))).words[0].confidence == expected


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("x" * 19, "x" * 19 + ": "), ("x" * 20, "x" * 18 + "…: "), ("", ""), (None, "")],
)
def test_name_of_a_speaker_takes_half_a_line(name: str | None, prefix: str) -> None:
    assert format_speaker_prefix(name, CaptionLimits(max_line_width=42)) == prefix


def test_words_are_joined_with_the_spaces_of_their_script() -> None:
    assert join_words([" Hello", " wor", "ld", "."]) == "Hello world."
    assert join_words(["Hello", "world", "!"]) == "Hello world!"
    assert join_words(["東", "京", "は", "OK", "です"]) == "東京は OK です"
    assert join_words(["안녕", "세계"]) == "안녕 세계"


def test_by_word_ends_cues_at_words_instead_of_segments() -> None:
    segments = (Segment(0.0, 3.0, " ask what you can do"), Segment(3.0, 6.0, " for your country."))
    words = build_words("ask what you can do for your country.", start_s=0.5)
    transcript = Transcript("ask what you can do for your country.", "en", 6.0, segments, words)

    assert format_cues(build_cues(transcript)) == ["ask what you can do", "for your country."]
    assert format_cues(build_cues(transcript, by_word=True)) == ["ask what you can do for your country."]
    assert build_cues(transcript, by_word=True)[0].start_s == 0.5


def test_text_without_spaces_is_split_at_its_punctuation() -> None:
    cues = build_cues(Transcript(JAPANESE, "ja", 16.0, (Segment(0.0, 16.0, JAPANESE),)))

    assert join_visible(cues) == JAPANESE
    assert all(cue.lines[-1][-1] in "。、" for cue in cues)


def test_closing_punctuation_does_not_begin_a_line() -> None:
    cues = build_cues(
        Transcript("", None, None, (Segment(0, 60, "あいうえお」、" * 40),)), CaptionLimits(max_line_width=10)
    )

    assert not [line for cue in cues for line in cue.lines if line[0] in "」、"]


def test_right_to_left_text_keeps_its_logical_order() -> None:
    text = "مرحبا بالعالم، كيف حالك اليوم؟ أنا بخير والحمد لله، شكرا جزيلا لك على السؤال اللطيف."

    cues = build_cues(Transcript(text, "ar", 9.0, (Segment(0, 9, text),)))

    assert " ".join(line for cue in cues for line in cue.lines) == text
    assert cues[0].lines[-1].endswith("؟")


def test_grapheme_is_not_split() -> None:
    cues = build_cues(
        Transcript("", None, None, (Segment(0, 30, f"{FAMILY_EMOJI}e\u0301🇩🇪👍🏽" * 30),)),
        CaptionLimits(max_line_width=7),
    )

    graphemes = {FAMILY_EMOJI, "e\u0301", "🇩🇪", "👍🏽"}
    assert {cluster for cue in cues for line in cue.lines for cluster in split_graphemes(line)} == graphemes


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("abc", 3),
        ("日本", 4),
        ("e\u0301", 1),
        (FAMILY_EMOJI, 2),
        ("🇩🇪🇫🇷", 4),
        ("❤️", 2),
        ("한국", 4),
        ("ｱ", 1),
        ("\u200b", 0),
    ],
)
def test_text_width_equals_terminal_cells(text: str, cells: int) -> None:
    assert measure_width(text) == cells


def test_lines_are_balanced_and_do_not_end_in_small_words() -> None:
    cues = build_cues(
        Transcript("", "en", 4, (Segment(0, 4, "I went to the market because of the rain and the wind"),))
    )

    assert format_cues(cues) == ["I went to the market because / of the rain and the wind"]


def test_short_text_in_a_long_segment_is_one_cue() -> None:
    cues = build_cues(Transcript("", "en", 20.0, (Segment(0.0, 20.0, "Hello there my friend."),)))

    assert cues == (Cue(0.0, 7.0, ("Hello there my friend.",)),)


def test_short_cue_is_extended_up_to_the_next_cue() -> None:
    segments = (Segment(0.0, 0.3, "Yes."), Segment(5.0, 5.2, "No."), Segment(5.5, 7.0, "Maybe."))

    assert get_times(build_cues(Transcript("", None, 7.0, segments))) == [(0.0, 1.0), (5.0, 5.417), (5.5, 7.0)]


def test_overlapping_speakers_have_consecutive_cues() -> None:
    segments = (
        Segment(0.0, 5.0, "One long story", "A"),
        Segment(3.0, 4.0, "Really?", "B"),
        Segment(3.2, 8.0, "Yes.", "A"),
    )

    assert get_times(build_cues(Transcript("", None, 8.0, segments))) == [(0.0, 3.0), (3.0, 3.5), (3.5, 8.0)]


def test_segments_past_the_end_are_moved_into_the_recording() -> None:
    segments = (Segment(4.0, 9.0, "Before."), Segment(11.0, 13.0, "After."), Segment(13.0, 14.0, "Later."))

    assert get_times(build_cues(Transcript("", None, 10.0, segments))) == [(4.0, 9.0), (9.0, 9.5), (9.5, 10.0)]


def test_cues_exceed_a_duration_with_too_few_milliseconds() -> None:
    cues = build_cues(Transcript("", None, 0.002, tuple(Segment(0.0, 0.001 * n, str(n)) for n in range(5))))

    assert len(cues) == 5
    assert cues[-1].end_s > 0.002


def test_text_without_timestamps_is_spread_over_the_recording() -> None:
    assert get_times(build_cues(Transcript("Hello there.", duration_s=3.0))) == [(0.0, 3.0)]
    assert get_times(build_cues(Transcript("Hello there."))) == [(0.0, 1.0)]
    assert build_cues(Transcript(" \n")) == ()


@pytest.mark.parametrize(
    "invalid_limits", [{"max_line_width": 0}, {"max_lines": 0}, {"max_cue_s": math.nan}, {"cps": 0.0}]
)
def test_caption_limits_that_fit_no_text_are_rejected(invalid_limits: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        CaptionLimits(**invalid_limits)  # type: ignore[arg-type]


# --- examples: normalization -----------------------------------------------------------------------------------------


def test_normalization_repairs_times_from_neighbors_and_duration() -> None:
    nan, inf = math.nan, math.inf
    segments = (Segment(-1.0, 2.0, " a"), Segment(nan, nan, "b"), Segment(4.0, 3.0, "c"), Segment(4.0, inf, "d"))

    assert normalize_transcript(Transcript("abcd", None, 9.0, segments)).segments == (
        Segment(0.0, 2.0, "a"),
        Segment(2.0, 4.0, "b"),
        Segment(4.0, 4.0, "c"),
        Segment(4.0, 9.0, "d"),
    )


def test_normalization_sorts_segments_and_removes_empty_ones() -> None:
    segments = (Segment(3.0, 4.0, "late"), Segment(1.0, 2.0, " \n\x00"), Segment(0.0, 1.0, "early", "  "))

    assert normalize_transcript(Transcript("", None, None, segments)).segments == (
        Segment(0.0, 1.0, "early"),
        Segment(3.0, 4.0, "late"),
    )


def test_normalization_preserves_text_of_segments_without_usable_times() -> None:
    for time_s in (math.nan, math.inf, 0.0):
        normalized = normalize_transcript(
            Transcript("", None, 9.0, (Segment(time_s, time_s, " Hi"), Segment(time_s, time_s, "there.")))
        )

        assert (normalized.text, normalized.segments) == ("Hi there.", ())


def test_normalization_replaces_surrogates() -> None:
    assert normalize_transcript(Transcript("a\ud800b", None, math.nan)) == Transcript("a\ufffdb")


# --- examples: formats ----------------------------------------------------------------------------------------------

CONVERSATION = Transcript(
    "Hi there. 1 < 2 & 3 --> 4. <i>Fine</i>",
    "en",
    9.5,
    (
        Segment(0.0, 3.0, "Hi there.", "Ann"),
        Segment(3.0, 5.0, "1 < 2 & 3\t--> 4.", "Ann"),
        Segment(5.0, 9.5, "<i>Fine</i>", "B>b"),
    ),
)


def test_txt_is_the_text_or_one_line_per_turn() -> None:
    assert render(Transcript("  Hi there.\n"), "txt") == "Hi there.\n"
    assert render(Transcript(""), "txt") == ""
    assert render(CONVERSATION, "txt") == "Ann: Hi there. 1 < 2 & 3 --> 4.\nB>b: <i>Fine</i>\n"


def test_srt_is_numbered_and_has_the_speaker_once_per_turn() -> None:
    assert render(CONVERSATION, "srt") == (
        "1\n00:00:00,000 --> 00:00:03,000\nAnn: Hi there.\n\n"
        "2\n00:00:03,000 --> 00:00:05,000\n1 < 2 & 3 --\u2060> 4.\n\n"
        "3\n00:00:05,000 --> 00:00:09,500\nB>b: <\u2060i>Fine<\u2060/i>\n"
    )


def test_vtt_has_voice_tags_and_entities() -> None:
    assert render(CONVERSATION, "vtt") == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:03.000\n<v Ann>Hi there.\n\n"
        "00:00:03.000 --> 00:00:05.000\n<v Ann>1 &lt; 2 &amp; 3 --&gt; 4.\n\n"
        "00:00:05.000 --> 00:00:09.500\n<v B&gt;b>&lt;i&gt;Fine&lt;/i&gt;\n"
    )
    assert render(Transcript(""), "vtt") == "WEBVTT\n"


def test_tsv_has_a_row_per_segment_or_word() -> None:
    words = (Word(0.0, 0.4, " Hi"), Word(0.4, 0.9, " there"))

    assert render(CONVERSATION, "tsv").splitlines()[:3] == [
        "start\tend\ttext",
        "0\t3000\tHi there.",
        "3000\t5000\t1 < 2 & 3 --> 4.",
    ]
    assert render(Transcript("", words=words), "tsv", by_word=True) == "start\tend\ttext\n0\t400\tHi\n400\t900\tthere\n"
    assert render(Transcript("", words=words), "tsv") == "start\tend\ttext\n0\t1000\tHi there\n"


def test_json_has_the_documented_shape_without_nan() -> None:
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


def test_unknown_format_is_rejected_by_name() -> None:
    with pytest.raises(UsageError, match="docx"):
        render(CONVERSATION, "docx")


def test_more_than_99_hours_are_written_and_read() -> None:
    transcript = Transcript("Hi.", segments=(Segment(360_000.0, 360_002.5, "Hi."),))

    assert "100:00:00,000 --> 100:00:02,500" in render(transcript, "srt")
    assert read_vtt(render(transcript, "vtt")) == convert_to_ms(build_cues(transcript))


# --- examples: JSON --------------------------------------------------------------------------------------------------


def test_verbose_json_of_gateways_is_parsed() -> None:
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

    assert parse_json(text) == Transcript(
        "Hi. Yes?", "en", 3.5, (Segment(0.0, 1.5, "Hi.", "0"), Segment(1.5, 3.5, "Yes?")), (Word(0.0, 1.0, "Hi"),)
    )
    with pytest.raises(ValueError, match="object"):
        parse_json("[]")


# --- properties ------------------------------------------------------------------------------------------------------

PROPERTY_SETTINGS = settings(derandomize=True, database=None, deadline=None, max_examples=120)

times_s = (
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
            FAMILY_EMOJI,
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
texts = (
    st.text(max_size=60)
    | st.lists(tokens, max_size=14).map(" ".join)
    | st.lists(tokens, max_size=8).map("".join)
    | st.lists(st.text("abcdef.,?", min_size=1, max_size=9), max_size=60).map(" ".join)
)
speaker_names = (
    st.none() | st.sampled_from(["A", "B", "Ann Lee", "x" * 99, "A>b&c", "日本太郎", "a\nb"]) | st.text(max_size=9)
)
segments = st.lists(st.builds(Segment, times_s, times_s, texts, speaker_names), max_size=7).map(tuple)
bare_words = st.lists(st.builds(Word, times_s, times_s, st.text(max_size=9) | tokens), max_size=20).map(tuple)
timed_words = st.text("abcdef ,.", max_size=300).map(build_words)
caption_limits = st.builds(
    CaptionLimits,
    st.sampled_from([42, 42, 1, 2, 7, 20, 80]),
    st.sampled_from([2, 2, 1, 3]),
    st.sampled_from([7.0, 7.0, 0.001, 2.5, 60.0]),
    st.sampled_from([17.0, 3.0, 1000.0]),
)
transcripts = st.builds(
    Transcript,
    texts,
    st.none(),
    st.none() | times_s | st.sampled_from([10.0, 0.004, 3.2]),
    st.just(()) | segments,
    st.just(()) | bare_words | timed_words,
)


@PROPERTY_SETTINGS
@given(transcripts, caption_limits, st.booleans())
def test_cues_are_ordered_without_overlap_within_the_recording(
    transcript: Transcript, limits: CaptionLimits, by_word: bool
) -> None:
    cues = build_cues(transcript, limits, by_word=by_word)

    bounds_ms = [time_s * 1000 for cue in cues for time_s in (cue.start_s, cue.end_s)]
    assert bounds_ms == sorted(bounds_ms)
    assert not bounds_ms or bounds_ms[0] >= 0
    assert all(abs(bound - round(bound)) < 1e-3 for bound in bounds_ms)
    assert all(round(cue.end_s * 1000) > round(cue.start_s * 1000) for cue in cues)
    assert all(round(cue.end_s * 1000) - round(cue.start_s * 1000) <= limits.max_cue_s * 1000 for cue in cues)
    duration_s = transcript.duration_s
    if cues and duration_s is not None and duration_s * 1000 >= len(cues) + 1 and duration_s <= 1e9:
        assert cues[-1].end_s <= duration_s


@PROPERTY_SETTINGS
@given(transcripts, caption_limits, st.booleans())
def test_cues_respect_the_caption_limits(transcript: Transcript, limits: CaptionLimits, by_word: bool) -> None:
    cues = build_cues(transcript, limits, by_word=by_word)

    speaker = None
    for cue in cues:
        prefix = format_speaker_prefix(cue.speaker, limits) if cue.speaker != speaker else ""
        speaker = cue.speaker
        assert 1 <= len(cue.lines) <= limits.max_lines
        for line in (prefix + cue.lines[0], *cue.lines[1:]):
            assert measure_width(line) <= limits.max_line_width or len(split_graphemes(line)) == 1
        assert all(line and line == line.strip() for line in cue.lines)


def test_interruption_is_shown_when_it_is_spoken() -> None:
    words = [f"word{index}" for index in range(17)]
    spoken = tuple(Word(index * 0.6, index * 0.6 + 0.5, word, speaker="Ann") for index, word in enumerate(words))
    transcript = Transcript(
        text="",
        duration_s=12.0,
        segments=(
            Segment(0.0, 10.7, " ".join(words), speaker="Ann"),
            Segment(4.0, 5.0, "I disagree strongly", speaker="Bob"),
        ),
        words=spoken,
    )
    limits = CaptionLimits(max_line_width=30, max_lines=1)

    cues = build_cues(transcript, limits)

    (index,) = [index for index, cue in enumerate(cues) if cue.speaker == "Bob"]
    assert 0 < index < len(cues) - 1
    assert cues[index].start_s == pytest.approx(4.0, abs=0.6)
    assert [cue.start_s for cue in cues] == sorted(cue.start_s for cue in cues)
    assert all(measure_width(f"{cue.speaker}: {cue.lines[0]}") <= 30 for cue in cues)


@PROPERTY_SETTINGS
@given(transcripts, caption_limits, st.booleans())
def test_cues_show_every_character_once_and_in_order(
    transcript: Transcript, limits: CaptionLimits, by_word: bool
) -> None:
    cues = build_cues(transcript._replace(events=()), limits, by_word=by_word)

    normalized = normalize_transcript(transcript)
    if normalized.segments:
        for speaker in {segment.speaker for segment in normalized.segments}:
            spoken = "".join(segment.text for segment in normalized.segments if segment.speaker == speaker)
            assert join_visible(tuple(cue for cue in cues if cue.speaker == speaker)) == extract_visible(spoken)
        assert len(join_visible(cues)) == len(extract_visible("".join(s.text for s in normalized.segments)))
    elif normalized.words:
        assert join_visible(cues) in (
            extract_visible(normalized.text),
            extract_visible("".join(word.text for word in normalized.words)),
        )
    else:
        assert join_visible(cues) == extract_visible(normalized.text)


@PROPERTY_SETTINGS
@given(transcripts, caption_limits)
def test_cues_of_sounds_leave_the_spoken_text_unchanged(transcript: Transcript, limits: CaptionLimits) -> None:
    spoken = build_cues(transcript._replace(events=()), limits)

    cues = build_cues(transcript, limits)

    remaining = iter(cues)
    assert all(any(other.lines == cue.lines and other.speaker == cue.speaker for other in remaining) for cue in spoken)
    assert len(spoken) <= len(cues) <= len(spoken) + len(transcript.events)


@PROPERTY_SETTINGS
@given(transcripts)
def test_normalization_is_idempotent_and_loses_no_text(transcript: Transcript) -> None:
    normalized = normalize_transcript(transcript)

    assert normalize_transcript(normalized) == normalized
    assert extract_visible(normalized.text).startswith(extract_visible(transcript.text))
    before = sorted(extract_visible("".join(segment.text for segment in transcript.segments)))
    assert sorted(extract_visible("".join(segment.text for segment in normalized.segments))) in ([], before)
    assert normalized.text or not before
    end_s = normalized.duration_s or 1e9
    assert all(0 <= segment.start_s <= segment.end_s <= end_s for segment in normalized.segments)
    assert all(0 <= word.start_s <= word.end_s <= end_s for word in normalized.words)
    assert [s.start_s for s in normalized.segments] == sorted(s.start_s for s in normalized.segments)


@PROPERTY_SETTINGS
@given(transcripts, caption_limits, st.booleans())
def test_vtt_is_valid_and_read_back_by_webvtt(transcript: Transcript, limits: CaptionLimits, by_word: bool) -> None:
    written = render(transcript, "vtt", limits=limits, by_word=by_word)

    assert read_vtt(written) == convert_to_ms(build_cues(transcript, limits, by_word=by_word))
    # The part of the grammar in https://www.w3.org/TR/webvtt1/#syntax that the writer uses.
    header, *blocks = written.removesuffix("\n").split("\n\n")
    assert header == "WEBVTT"
    for block in blocks:
        assert re.fullmatch(
            r"\d{2,}:[0-5]\d:[0-5]\d\.\d{3} --> \d{2,}:[0-5]\d:[0-5]\d\.\d{3}"
            r"\n(<v [^\n<>]+>)?([^\n\r\0&<>]|&amp;|&lt;|&gt;)+(\n([^\n\r\0&<>]|&amp;|&lt;|&gt;)+)*",
            block,
        )


@PROPERTY_SETTINGS
@given(transcripts, caption_limits, st.booleans())
def test_srt_is_read_back_by_pysubs2(transcript: Transcript, limits: CaptionLimits, by_word: bool) -> None:
    written = render(transcript, "srt", limits=limits, by_word=by_word)

    expected, speaker = [], None
    for cue in build_cues(transcript, limits, by_word=by_word):
        prefix = format_speaker_prefix(cue.speaker, limits) if cue.speaker != speaker else ""
        speaker = cue.speaker
        expected.append(Cue(cue.start_s, cue.end_s, (prefix + cue.lines[0], *cue.lines[1:])))
    assert re.findall(r"(?m)^(\d+)\n\d+:.*-->", written) == [str(number) for number in range(1, len(expected) + 1)]
    # pysubs2 takes a line with two timestamps for a timing line, also without an arrow, and warns about other numbers.
    assume(not any(pysubs2.time.TIMESTAMP.search(line) for cue in expected for line in cue.lines))
    # It reads the last two digits of the hours. The writer inserts word joiners (U+2060) to disable tags and arrows.
    assert [(start_ms, end_ms, text.replace("\u2060", "")) for start_ms, end_ms, text in read_srt(written)] == [
        (start_ms % 360_000_000, end_ms % 360_000_000, text.replace("\u2060", ""))
        for start_ms, end_ms, text, _ in convert_to_ms(tuple(expected))
    ]


@PROPERTY_SETTINGS
@given(transcripts)
def test_json_and_tsv_are_read_back_to_the_millisecond(transcript: Transcript) -> None:
    written = render(transcript, "json")

    assert build_document(parse_json(written)) == json.loads(written, parse_constant=pytest.fail)
    written.encode()
    rows = render(transcript, "tsv").removesuffix("\n").split("\n")
    assert all(re.fullmatch(r"\d+\t\d+\t[^\t]*[^\t\s][^\t]*", row) for row in rows[1:])
    assert rows[0] == "start\tend\ttext"


def test_word_of_ten_thousand_characters_is_split_at_the_line_width() -> None:
    cues = build_cues(Transcript("", None, 9.0, (Segment(0.0, 9.0, "x" * 10_000),)))

    assert join_visible(cues) == "x" * 10_000
    assert {measure_width(line) for cue in cues for line in cue.lines[:-1]} == {42}


def test_an_hour_of_words_is_shown_completely() -> None:
    text = f"{SPEECH} " * 300

    cues = build_cues(Transcript(text, "en", None, (), build_words(text)))

    assert join_visible(cues) == extract_visible(text)
