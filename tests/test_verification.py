"""Compare texts with transcripts: what is the same speech, and which faults are found."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiocli.text.spoken_words import split_spoken_words
from audiocli.text.verification import Comparison, ProblemKind, compare, time_words
from audiocli.types.transcripts import Transcript, Word

TEXT = (
    "The committee met on Monday morning in the old library. Everyone expected a long discussion about the budget. "
    "After two hours the members agreed on a modest plan for the coming year."
)
WORDS = TEXT.split()


def compare_texts(text: str, heard: str, language: str | None = "en") -> Comparison:
    return compare(text, Transcript(heard), language)


@pytest.mark.parametrize(
    ("language", "written", "heard"),
    [
        ("en", "I have 18 cats.", "I have eighteen cats"),
        ("en", "It costs $5, i.e. 5% more.", "it costs five dollars, that is five percent more"),
        ("en", "Dr. Smith vs. Mr. Jones", "doctor smith versus mister jones"),
        ("en", "Dr Smith", "Doctor Smith"),
        ("en", "In 1999, at 10:30", "in nineteen ninety-nine at ten thirty"),
        ("en", "the 21st of 1,200.5", "the twenty-first of one thousand two hundred point five"),
        ("en", "1 200 000 people", "1,200,000 people"),
        ("en", "the U.S.A. and A P I", "the USA and API"),
        ("en", "the web site", "The website."),
        ("en", "café—naïve “Don’t”", "cafe naive don't"),
        ("de", "21 Bäume kosten 1.200,50 €", "einundzwanzig Bäume kosten eintausendzweihundert Komma fünf null Euro"),
        (
            "de",
            "Das ist z. B. die Straße, d.h. 3,5 %",
            "das ist zum Beispiel die Strasse das heißt drei Komma fünf Prozent",
        ),
        ("fr", "M. Dupont a 71 ans, p. ex.", "monsieur dupont a soixante-et-onze ans, par exemple"),
        ("es", "El Sr. García tiene 22 años", "el señor garcía tiene veintidós años"),
        ("es", "EE. UU., p. ej.", "Estados Unidos, por ejemplo"),
        ("it", "3 gatti", "tre gatti"),
        ("nl", "Dhr. Jansen, bijv. 3 %", "de heer jansen bijvoorbeeld drie procent"),
        ("zh", "我有21只猫。", "我有二十一只猫"),
        ("xx", "18 cats", "18 cats"),
    ],
)
def test_spellings_of_the_same_speech_are_equal(language: str, written: str, heard: str) -> None:
    comparison = compare_texts(written, heard, language)

    assert comparison.error_count == 0
    assert comparison.find_problem(0.0) is None


@pytest.mark.parametrize(
    ("written", "heard"),
    [("18 cats", "80 cats"), ("1.200 km", "1.3 km"), ("Paul", "Mary"), ("a", "")],
)
def test_different_speech_differs(written: str, heard: str) -> None:
    assert compare_texts(written, heard).error_count >= 1


def test_number_counts_as_one_word() -> None:
    comparison = compare_texts("It has 1,234,567 rows.", "It has 9 rows.")

    assert (comparison.error_count, comparison.word_count) == (1, 4)
    assert comparison.problems == ()


@pytest.mark.parametrize(
    ("heard", "kind", "position", "quote"),
    [
        (" ".join(WORDS[:4] + WORDS[7:]), ProblemKind.MISSING, 4, "Monday morning in"),
        (" ".join(WORDS[3:]), ProblemKind.MISSING, 0, "The committee met"),
        (" ".join(WORDS[:8] + WORDS[4:]), ProblemKind.REPEATED, 8, "monday morning in the"),
        (" ".join(WORDS[:-2]), ProblemKind.END_MISSING, len(WORDS) - 2, "coming year"),
        (" ".join(WORDS[:12]), ProblemKind.END_MISSING, 12, "a long discussion about the budget. After two…"),
        ("", ProblemKind.MISSING, 0, "The committee met on Monday morning in the…"),
    ],
)
def test_fault_is_found_with_its_place(heard: str, kind: ProblemKind, position: int, quote: str) -> None:
    problem = compare_texts(TEXT, heard).find_problem(1.0)

    assert problem is not None
    assert (problem.kind, problem.quote) == (kind, quote)
    assert abs(problem.position - position) <= 4  # which of two equal stretches is repeated is arbitrary
    assert quote in problem.describe(0.0)


@pytest.mark.parametrize(
    "heard",
    [
        " ".join(WORDS[:4] + WORDS[6:]),  # two words are missing
        " ".join(WORDS[:-1]),
        " ".join(WORDS[:6] + WORDS[4:]),  # two words are repeated
        TEXT + " Thank you for watching this video.",  # an invention of the recognizer
        " ".join(f"{word}x" if index % 5 == 0 else word for index, word in enumerate(WORDS)),  # misheard
    ],
)
def test_small_differences_are_no_fault(heard: str) -> None:
    assert compare_texts(TEXT, heard).find_problem(0.25) is None


def test_repeated_words_that_are_misheard_twice_are_found() -> None:
    comparison = compare_texts(
        "The committee met on Monday morning.", "the committee met a Monday morning, met a Monday morning"
    )

    assert [problem.kind for problem in comparison.problems] == [ProblemKind.REPEATED]


def test_swapped_sentences_are_found() -> None:
    first, second, third = TEXT.split(". ")

    assert compare_texts(TEXT, f"{second}. {first}. {third}").find_problem(1.0) is not None


def test_word_error_rate_counts_from_twelve_words() -> None:
    heard = [f"{word}x" if index % 3 == 0 else word for index, word in enumerate(WORDS)]

    long_problem = compare_texts(" ".join(WORDS[:12]), " ".join(heard[:12])).find_problem(0.25)
    assert long_problem is not None and long_problem.kind is ProblemKind.DIFFERENT
    assert long_problem.describe(0.3333) == "33 % of the words differ"
    assert compare_texts(" ".join(WORDS[:11]), " ".join(heard[:11])).find_problem(0.25) is None
    assert compare_texts(" ".join(WORDS[:12]), " ".join(heard[:12])).find_problem(0.34) is None


@pytest.mark.parametrize(("heard", "is_wrong"), [("we saw it on Monday", True), ("The committee left a hat", False)])
def test_short_text_is_wrong_if_something_else_was_spoken(heard: str, is_wrong: bool) -> None:
    problem = compare_texts("The committee met Peter there.", heard).find_problem(1.0)

    assert (problem is not None and problem.kind is ProblemKind.DIFFERENT) == is_wrong


def test_scripts_without_spaces_are_compared_by_characters() -> None:
    text = "今天天气很好我们去公园散步吧明天也许会下雨所以要带伞"

    assert compare_texts(text, text[:10] + text[15:], "zh").find_problem(1.0) is None
    missing = compare_texts(text, text[:10] + text[16:], "zh").find_problem(1.0)
    assert missing is not None and missing.quote == text[10:16]
    end = compare_texts(text, text[:-4], "zh").find_problem(1.0)
    assert end is not None and end.kind is ProblemKind.END_MISSING
    assert [word.weight for word in split_spoken_words("私は API", "ja")] == [0.5, 0.5, 1.0]


@pytest.mark.parametrize("text", ["Hello there.", "Yes."])
def test_short_text_that_was_not_spoken_is_missing(text: str) -> None:
    problem = compare_texts(text, "").find_problem(1.0)

    assert problem is not None and problem.kind is ProblemKind.MISSING


def test_text_without_words_has_no_problem() -> None:
    assert compare_texts("…", "").find_problem(0.0) is None
    assert compare_texts("…", "something else entirely").word_error_rate == 0.0


def list_timed_words(words: list[str], step_s: float = 0.5) -> tuple[Word, ...]:
    return tuple(Word(step_s * index, step_s * (index + 1), word) for index, word in enumerate(words))


def test_problem_is_located_by_the_times_of_words() -> None:
    words = WORDS[:4] + WORDS[7:]
    comparison = compare(TEXT, Transcript(" ".join(words), words=list_timed_words(words)), "en")

    problem = comparison.find_problem(1.0)
    assert problem is not None
    assert comparison.locate_s(problem.position, 15.0) == 1.5  # the last word before it
    assert compare_texts(TEXT, " ".join(words)).locate_s(4, 15.0) == pytest.approx(15.0 * 4 / len(WORDS))


def test_words_of_the_text_get_the_times_of_the_transcript() -> None:
    heard = ["it", "has", "eighteen", "friends,", "at", "the", "website"]
    comparison = compare("It has 18 friends at the web site!", Transcript("", words=list_timed_words(heard)), "en")

    timed = time_words("It has 18 friends at the web site!", comparison, 4.0)

    assert [word.text for word in timed] == ["It", "has", "18", "friends", "at", "the", "web", "site!"]
    assert [(word.start_s, word.end_s) for word in timed[:6]] == [(index / 2, index / 2 + 0.5) for index in range(6)]
    assert (timed[6].start_s, timed[7].end_s) == (3.0, 3.5)


def test_missing_words_share_the_time_between_their_neighbors() -> None:
    heard = Transcript("", words=(Word(0.0, 1.0, "one"), Word(4.0, 5.0, "four")))
    comparison = compare("one two three four", heard, "xx")

    assert time_words("one two three four", comparison, 5.0)[1:3] == (
        Word(1.0, pytest.approx(2.125), "two"),
        Word(pytest.approx(2.125), pytest.approx(4.0), "three"),
    )


@given(
    st.lists(st.sampled_from(["one", "Dr.", "18", "Straße", "$5", "p. ej.", "我们", "…", "U.S.", "x"]), max_size=12),
    st.lists(st.sampled_from(["one", "doctor", "18", "Strasse", "five", "我", "x"]), max_size=12),
    st.sampled_from(["en", "de", "es", "zh", None]),
)
def test_any_words_have_ordered_times_and_an_error_rate(written: list[str], heard: list[str], language: str) -> None:
    text = " ".join(written)
    comparison = compare(text, Transcript(" ".join(heard), words=list_timed_words(heard)), language)
    timed = time_words(text, comparison, 10.0)

    assert "".join(word.text for word in timed) == "".join(text.split())
    times_s = [time_s for word in timed for time_s in (word.start_s, word.end_s)]
    assert times_s == sorted(times_s)
    assert all(0 <= time_s <= 10.0 for time_s in times_s)
    assert comparison.error_count >= 0
    assert compare(text, Transcript(text), language).error_count == 0


def test_each_kind_of_fault_is_found_in_seeded_texts() -> None:
    generator = random.Random(21)
    vocabulary = ["".join(generator.choices("abcdefghijklmnop", k=5)) for _ in range(200)]
    for _ in range(50):
        sentences = [" ".join(generator.choices(vocabulary, k=8)) for _ in range(3)]
        text = ". ".join(sentences)
        wrong = [
            [sentences[0], sentences[2]],
            [sentences[0], sentences[1], sentences[1], sentences[2]],
            [sentences[1], sentences[0], sentences[2]],
        ]
        assert compare_texts(text, text).find_problem(0.0) is None
        for heard in wrong:
            assert compare_texts(text, ". ".join(heard)).find_problem(1.0) is not None
