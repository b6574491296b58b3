"""Where long recordings are cut, and how the transcripts of their pieces become one."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from audiocli.codecs.encoder import Encoder
from audiocli.audio.split_plan import RATE_HZ, Piece, PieceLimits, Span, longest_piece_s, plan
from audiocli.text.cues import cues
from audiocli.text.merge import of_pieces, stitched, summed
from audiocli.text.subtitle_formats import document, read_json, render
from audiocli.types.values import Pcm, Segment, Timing, Transcript, Usage, Word

MINUTE = PieceLimits(60.0)


def seconds(pieces: Sequence[Piece]) -> list[tuple[float, float]]:
    return [(round(piece.start_s, 3), round(piece.end_s, 3)) for piece in pieces]


def planned(duration_s: float, *silences: tuple[float, float], limits: PieceLimits = MINUTE) -> tuple[Piece, ...]:
    return plan(round(duration_s * RATE_HZ), [Span(*silence) for silence in silences], limits)


# --- the plan -------------------------------------------------------------------------------------------------------


def test_what_fits_is_one_piece() -> None:
    assert seconds(planned(60.0, (20.0, 21.0))) == [(0.0, 60.0)]


def test_a_cut_falls_in_the_middle_of_the_longest_silence_near_the_limit() -> None:
    pieces = planned(90.0, (30.0, 31.9), (52.0, 53.0), (55.0, 56.5), (58.0, 58.4))

    assert seconds(pieces) == [(0.0, 55.75), (55.75, 90.0)]
    assert not any(piece.overlap_before or piece.overlap_after for piece in pieces)


def test_a_silence_farther_away_is_better_than_none() -> None:
    assert seconds(planned(90.0, (30.0, 31.0), (46.0, 47.0))) == [(0.0, 46.5), (46.5, 90.0)]


def test_without_silence_pieces_overlap() -> None:
    pieces = planned(130.0, (1.0, 2.0))

    assert seconds(pieces) == [(0.0, 60.0), (57.0, 117.0), (114.0, 130.0)]
    assert [(piece.overlap_before, piece.overlap_after) for piece in pieces] == [
        (0, 3 * RATE_HZ),
        (3 * RATE_HZ, 3 * RATE_HZ),
        (3 * RATE_HZ, 0),
    ]


def test_long_silence_at_the_edges_of_a_piece_is_not_sent() -> None:
    pieces = planned(200.0, (0.0, 5.0), (20.0, 30.0), (57.0, 90.0), (110.0, 115.0), (130.0, 200.0))

    assert seconds(pieces) == [(4.7, 57.3), (89.7, 130.3)]


def test_a_silence_that_is_left_out_is_preferred_to_a_longer_pause() -> None:
    samples = 100 * RATE_HZ

    pieces = plan(samples, [Span(52.0, 54.5)], MINUTE, pauses=[Span(52.0, 54.5), Span(55.0, 59.0)])

    assert seconds(pieces) == [(0.0, 52.3), (54.2, 100.0)]


def test_a_pause_is_cut_in_and_sent() -> None:
    assert seconds(plan(100 * RATE_HZ, [], MINUTE, pauses=[Span(50.0, 54.0)])) == [(0.0, 52.0), (52.0, 100.0)]


@pytest.mark.parametrize("duration_s", [0.0, 1.0, 500.0])
def test_silence_alone_has_no_pieces(duration_s: float) -> None:
    assert planned(duration_s, (0.0, duration_s)) == ()


@pytest.mark.parametrize(
    ("longest_s", "overlap_s"), [(0.5, 0.0), (float("nan"), 1.0), (60.0, -1.0), (60.0, float("inf"))]
)
def test_limits_that_make_no_sense_are_refused(longest_s: float, overlap_s: float) -> None:
    with pytest.raises(ValueError, match="no pieces"):
        PieceLimits(longest_s, overlap_s)


spans = st.lists(
    st.builds(lambda start, length: Span(start, start + length), st.floats(-5, 300), st.floats(0, 60)), max_size=12
)
limits = st.builds(PieceLimits, st.floats(1, 120), st.floats(0, 100))


@settings(max_examples=150, deadline=None)
@given(samples=st.integers(0, 300 * RATE_HZ), silences=spans, pauses=spans, limits=limits)
def test_pieces_have_all_the_sound_in_order_and_none_is_too_long(
    samples: int, silences: list[Span], pauses: list[Span], limits: PieceLimits
) -> None:
    pieces = plan(samples, silences, limits, pauses=pauses)

    assert all(0 <= piece.start < piece.end <= samples for piece in pieces)
    assert all(piece.duration_s <= limits.longest_s for piece in pieces)
    assert all(a.start < b.start and a.end < b.end for a, b in pairwise(pieces))
    assert all(a.overlap_after == b.overlap_before == max(a.end - b.start, 0) for a, b in pairwise(pieces))
    assert all(piece.overlap_before + piece.overlap_after <= (piece.end - piece.start) for piece in pieces)
    # What no piece has lies in silence.
    edges = [0, *(place for piece in pieces for place in (piece.start, piece.end)), samples]
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        assert not sounding(begin, end, silences)


def sounding(begin: int, end: int, silences: list[Span]) -> bool:
    """Tell whether there is a sample between two places that no silence has."""
    at = begin
    for silence in sorted(silences, key=lambda span: span.start_s):
        if silence.start_s * RATE_HZ <= at + 1e-3:
            at = max(at, int(silence.end_s * RATE_HZ + 1e-3))
    return at < end


@pytest.mark.parametrize("name", ["opus", "ogg", "mp3", "aac", "m4a", "flac", "wav"])
@pytest.mark.parametrize("kind", ["noise", "clicks"])
def test_a_piece_of_the_reckoned_length_is_small_enough(name: str, kind: str) -> None:
    source = random.Random(1)
    upload_bytes = 100_000
    frames = int(longest_piece_s(name, upload_bytes) * RATE_HZ)
    loud = source.randbytes(2 * frames)
    sparse = b"".join(b"\x00\x70" if source.random() < 0.02 else b"\0\0" for _ in range(frames))

    target = io.BytesIO()
    with Encoder(name, Pcm(RATE_HZ), target) as encoder:
        encoder.feed(loud if kind == "noise" else sparse)
        encoder.finish()

    assert len(target.getvalue()) <= upload_bytes


# --- the seams ------------------------------------------------------------------------------------------------------

TWO = (Piece(0, 20 * RATE_HZ, 0, 4 * RATE_HZ), Piece(16 * RATE_HZ, 40 * RATE_HZ, 4 * RATE_HZ, 0))


def timed(*words: tuple[float, float, str]) -> tuple[Word, ...]:
    return tuple(Word(*word) for word in words)


def test_words_that_both_pieces_have_are_there_once() -> None:
    left = timed(
        (14.0, 15.0, "the"), (15.8, 16.2, "harbour"), (16.5, 17.0, "Opens"), (17.5, 18.0, "at"), (18.4, 20, "nin")
    )
    right = timed((0.0, 0.2, "her"), (0.6, 1.1, "opens,"), (1.6, 2.1, "at"), (2.5, 3.1, "nine"), (4.2, 5.0, "sharp"))

    whole = stitched(
        TWO, [Transcript("the harbour Opens at nin", words=left), Transcript("her opens, at nine sharp.", words=right)]
    )

    assert [word.word for word in whole.words] == ["the", "harbour", "Opens", "at", "nine", "sharp"]
    assert whole.text == "the harbour Opens at nine sharp."
    assert whole.words[-1] == Word(20.2, 21.0, "sharp")
    assert whole.timing is Timing.WORD and whole.segments == ()


def test_words_without_anything_in_common_are_parted_in_the_middle() -> None:
    left = timed((10.0, 11.0, "one"), (17.0, 17.5, "two"), (19.0, 19.9, "thr"))
    right = timed((0.1, 0.6, "oo"), (2.8, 3.8, "three"), (5.0, 6.0, "four"))

    whole = stitched(TWO, [Transcript("One, two, thr", words=left), Transcript("Oo. Three four!", words=right)])

    assert [word.word for word in whole.words] == ["one", "two", "three", "four"]
    assert whole.text == "One, two, Three four!"


def test_segments_without_words_are_parted_by_their_texts() -> None:
    left = (Segment(0, 12, "It was a quiet day."), Segment(12, 20, "The harbour opens at nine o'cl"))
    right = (Segment(0, 8, "arbour opens at nine o'clock every day."), Segment(8, 20, "Except on Sunday."))

    whole = stitched(TWO, [Transcript("", segments=left), Transcript("", segments=right)], duration_s=36.0)

    assert whole.text == "It was a quiet day. The harbour opens at nine o'clock every day. Except on Sunday."
    assert [segment.text for segment in whole.segments][1:3] == ["The harbour opens at", "nine o'clock every day."]
    assert whole.segments[1].end_s == whole.segments[2].start_s
    assert whole.segments[-1] == Segment(24, 36, "Except on Sunday.")
    assert whole.timing is Timing.SEGMENT


def test_segments_that_agree_in_nothing_are_parted_by_their_times() -> None:
    left = (Segment(0, 16, "alpha"), Segment(16.5, 17.5, "beta"), Segment(18.5, 20, "gam"))
    right = (Segment(0.5, 1.5, "bet"), Segment(2.2, 4, "gamma"), Segment(4, 20, "delta"))

    whole = stitched(TWO, [Transcript("", segments=left), Transcript("", segments=right)])

    assert whole.text == "alpha beta gamma delta"


@pytest.mark.parametrize(
    ("left", "right", "whole"),
    [
        (
            "We met, and the ship left at dawn",
            "the ship left at dawn without us.",
            "We met, and the ship left at dawn without us.",
        ),
        ("He said: “We go to Rom", "d: “We go to Rome now.”", "He said: “We go to Rome now.”"),
        ("今日は天気がいいですね", "天気がいいですね。散歩に行きます", "今日は天気がいいですね。散歩に行きます"),
        ("nothing in common", "but words", "nothing in common but words"),
        ("all the", "the same", "all the same"),
        ("", "only here", "only here"),
    ],
)
def test_texts_without_times_are_parted_where_they_agree(left: str, right: str, whole: str) -> None:
    told = stitched(TWO, [Transcript(left), Transcript(right)], duration_s=40.0)

    assert told.text == whole
    assert told.timing is Timing.PIECE
    assert all(a.end_s <= b.start_s or a.end_s - b.start_s <= 4 for a, b in pairwise(told.segments))


@settings(deadline=None)
@given(
    words=st.lists(st.text("abcdefghéж", min_size=1, max_size=8), unique=True, min_size=1, max_size=60),
    ends=st.lists(st.sampled_from(["", ",", ".", "?”"]), min_size=60, max_size=60),
    seam=st.tuples(st.integers(0, 60), st.integers(0, 40)),
)
def test_texts_that_were_cut_with_an_overlap_come_back(
    words: list[str], ends: list[str], seam: tuple[int, int]
) -> None:
    said = [word + end for word, end in zip(words, ends, strict=False)]
    left, right = said[: seam[0] + seam[1]], said[seam[0] :]

    assert stitched(TWO, [Transcript(" ".join(left)), Transcript(" ".join(right))]).text.split() == said


def test_where_pieces_do_not_overlap_nothing_is_taken_for_double() -> None:
    pieces = (Piece(0, RATE_HZ), Piece(RATE_HZ, 2 * RATE_HZ))

    assert stitched(pieces, [Transcript("no, no"), Transcript("no, no, no")]).text == "no, no no, no, no"


def test_a_piece_that_gives_text_only_makes_the_timing_that_of_pieces() -> None:
    pieces = (Piece(0, RATE_HZ), Piece(2 * RATE_HZ, 3 * RATE_HZ))
    whole = stitched(pieces, [Transcript("a b", segments=(Segment(0.2, 0.9, "a b"),)), Transcript("c", language="de")])

    assert whole.segments == (Segment(0.2, 0.9, "a b"), Segment(2.0, 3.0, "c"))
    assert whole.timing is Timing.PIECE
    assert whole.language == "de"
    assert document(whole)["timing"] == "piece"
    assert read_json(render(whole, "json")).timing is Timing.PIECE


def test_captions_of_pieces_stand_where_the_pieces_are() -> None:
    texts = [
        "It was a quiet day in the old harbour, and nothing happened for a long time. " * 3,
        " ",
        "Then it rained.",
    ]

    whole = of_pieces([Span(0.0, 15.0), Span(15.0, 15.5), Span(15.5, 18.0)], texts, duration_s=18.0)
    shown = cues(whole)

    assert whole.timing is Timing.PIECE
    assert (shown[-1].start_s, shown[-1].lines) == (15.5, ("Then it rained.",))
    assert len(shown) > 3 and shown[-2].end_s <= 15.5


def test_usage_is_summed_and_unknown_where_one_piece_does_not_tell() -> None:
    assert summed([Usage(5, 1.5, None, 0), Usage(7, 2.0, 3, 0)]) == Usage(12, 3.5, None, 0)
    assert summed([]) == Usage()


word_lengths = st.lists(st.tuples(st.floats(0.01, 1.4), st.floats(0, 1.0)), min_size=1, max_size=120)
spellings = st.sampled_from(["la", "La,", "no", "yes", "Straße", "day", "день", "—", "5"])


@settings(max_examples=150, deadline=None)
@given(lengths=word_lengths, spelled=st.data(), longest_s=st.floats(6, 40), silences=spans)
def test_a_transcript_that_was_cut_with_the_recording_comes_back(
    lengths: list[tuple[float, float]], spelled: st.DataObject, longest_s: float, silences: list[Span]
) -> None:
    words: list[Word] = []
    at_s = 0.0
    for length_s, pause_s in lengths:
        words.append(Word(at_s, at_s + length_s, spelled.draw(spellings)))
        at_s += length_s + pause_s
    samples = int(at_s * RATE_HZ) + 1
    quiet = [
        silence
        for silence in silences
        if not any(word.start_s < silence.end_s and silence.start_s < word.end_s for word in words)
    ]
    pieces = plan(samples, quiet, PieceLimits(longest_s, 1.5))
    assume(all(any(holds(piece, word) for piece in pieces) for word in words))

    whole = stitched(pieces, [heard(piece, words) for piece in pieces], duration_s=samples / RATE_HZ)

    spoken = [word.word for word in words]
    assert [word.word for word in whole.words] == spoken
    assert [bit for bit in whole.text.split() if bit != "—"] == [word for word in spoken if word != "—"]
    assert all(
        a.start_s == pytest.approx(b.start_s, abs=1e-6) and a.end_s == pytest.approx(b.end_s, abs=1e-6)
        for a, b in zip(whole.words, words, strict=True)
    )


def holds(piece: Piece, word: Word) -> bool:
    return piece.start_s <= word.start_s and word.end_s <= piece.end_s


def heard(piece: Piece, words: list[Word]) -> Transcript:
    inside = [word for word in words if holds(piece, word)]
    return Transcript(
        " ".join(word.word for word in inside),
        words=tuple(Word(word.start_s - piece.start_s, word.end_s - piece.start_s, word.word) for word in inside),
    )


times = st.floats(-10, 100) | st.sampled_from([float("inf"), float("nan")])
texts = st.text("ab 。x.今", max_size=12)
anything = st.builds(
    Transcript,
    texts,
    segments=st.lists(st.builds(Segment, times, times, texts), max_size=6).map(tuple),
    words=st.lists(st.builds(Word, times, times, texts), max_size=6).map(tuple),
)


@settings(max_examples=100, deadline=None)
@given(transcripts=st.lists(anything, max_size=5), overlap_s=st.sampled_from([0.0, 1.0, 10.0]))
def test_whatever_the_pieces_say_the_times_are_in_order_and_within_the_recording(
    transcripts: list[Transcript], overlap_s: float
) -> None:
    duration_s = 40.0 * len(transcripts)
    pieces = plan(int(duration_s * RATE_HZ), [], PieceLimits(40.0, overlap_s))[: len(transcripts)]

    whole = stitched(pieces, transcripts, duration_s=duration_s)

    for timed in (whole.segments, whole.words):
        assert all(0 <= item.start_s <= item.end_s <= duration_s for item in timed)
        assert all(a.start_s <= b.start_s for a, b in pairwise(timed))
