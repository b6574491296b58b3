"""Plan of the chunks of long recordings, and merge of their transcripts."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from audiocli.audio.chunk_boundaries import (
    SPLIT_RATE_HZ,
    AudioChunk,
    ChunkLimits,
    Span,
    compute_max_chunk_s,
    plan_chunks,
)
from audiocli.codecs.encoder import Encoder
from audiocli.text.cues import build_cues
from audiocli.text.merge import merge_transcripts, sum_usage
from audiocli.text.subtitle_formats import build_document, parse_json, render
from audiocli.types.audio import PcmFormat
from audiocli.types.ledger import Usage
from audiocli.types.transcripts import Segment, Timing, Transcript, Word

ONE_MINUTE = ChunkLimits(60.0)


def round_times(chunks: Sequence[AudioChunk]) -> list[tuple[float, float]]:
    return [(round(chunk.start_s, 3), round(chunk.end_s, 3)) for chunk in chunks]


def plan(duration_s: float, *silences: tuple[float, float], limits: ChunkLimits = ONE_MINUTE) -> tuple[AudioChunk, ...]:
    return plan_chunks(round(duration_s * SPLIT_RATE_HZ), [Span(*silence) for silence in silences], limits)


# --- plan ------------------------------------------------------------------------------------------------------------


def test_recording_within_limit_is_one_chunk() -> None:
    assert round_times(plan(60.0, (20.0, 21.0))) == [(0.0, 60.0)]


def test_split_is_in_the_middle_of_longest_silence_near_limit() -> None:
    chunks = plan(90.0, (30.0, 31.9), (52.0, 53.0), (55.0, 56.5), (58.0, 58.4))

    assert round_times(chunks) == [(0.0, 55.75), (55.75, 90.0)]
    assert not any(chunk.overlap_before or chunk.overlap_after for chunk in chunks)


def test_distant_silence_is_preferred_to_none() -> None:
    assert round_times(plan(90.0, (30.0, 31.0), (46.0, 47.0))) == [(0.0, 46.5), (46.5, 90.0)]


def test_chunks_overlap_without_silence() -> None:
    chunks = plan(130.0, (1.0, 2.0))

    assert round_times(chunks) == [(0.0, 60.0), (57.0, 117.0), (114.0, 130.0)]
    assert [(chunk.overlap_before, chunk.overlap_after) for chunk in chunks] == [
        (0, 3 * SPLIT_RATE_HZ),
        (3 * SPLIT_RATE_HZ, 3 * SPLIT_RATE_HZ),
        (3 * SPLIT_RATE_HZ, 0),
    ]


def test_long_silence_at_chunk_edges_is_not_sent() -> None:
    chunks = plan(200.0, (0.0, 5.0), (20.0, 30.0), (57.0, 90.0), (110.0, 115.0), (130.0, 200.0))

    assert round_times(chunks) == [(4.7, 57.3), (89.7, 130.3)]


def test_skipped_silence_is_preferred_to_longer_pause() -> None:
    samples = 100 * SPLIT_RATE_HZ

    chunks = plan_chunks(samples, [Span(52.0, 54.5)], ONE_MINUTE, pauses=[Span(52.0, 54.5), Span(55.0, 59.0)])

    assert round_times(chunks) == [(0.0, 52.3), (54.2, 100.0)]


def test_pause_is_split_and_sent() -> None:
    assert round_times(plan_chunks(100 * SPLIT_RATE_HZ, [], ONE_MINUTE, pauses=[Span(50.0, 54.0)])) == [
        (0.0, 52.0),
        (52.0, 100.0),
    ]


@pytest.mark.parametrize("duration_s", [0.0, 1.0, 500.0])
def test_silence_alone_has_no_chunks(duration_s: float) -> None:
    assert plan(duration_s, (0.0, duration_s)) == ()


@pytest.mark.parametrize(("max_s", "overlap_s"), [(0.5, 0.0), (float("nan"), 1.0), (60.0, -1.0), (60.0, float("inf"))])
def test_invalid_chunk_limits_are_refused(max_s: float, overlap_s: float) -> None:
    with pytest.raises(ValueError, match="invalid chunk limits"):
        ChunkLimits(max_s, overlap_s)


SPANS = st.lists(
    st.builds(lambda start, length: Span(start, start + length), st.floats(-5, 300), st.floats(0, 60)), max_size=12
)
LIMITS = st.builds(ChunkLimits, st.floats(1, 120), st.floats(0, 100))


@settings(max_examples=150, deadline=None)
@given(samples=st.integers(0, 300 * SPLIT_RATE_HZ), silences=SPANS, pauses=SPANS, limits=LIMITS)
def test_chunks_cover_all_audio_in_order_within_limits(
    samples: int, silences: list[Span], pauses: list[Span], limits: ChunkLimits
) -> None:
    chunks = plan_chunks(samples, silences, limits, pauses=pauses)

    assert all(0 <= chunk.start < chunk.end <= samples for chunk in chunks)
    assert all(chunk.duration_s <= limits.max_s for chunk in chunks)
    assert all(a.start < b.start and a.end < b.end for a, b in pairwise(chunks))
    assert all(a.overlap_after == b.overlap_before == max(a.end - b.start, 0) for a, b in pairwise(chunks))
    assert all(chunk.overlap_before + chunk.overlap_after <= (chunk.end - chunk.start) for chunk in chunks)
    # Audio outside the chunks is silence.
    edges = [0, *(position for chunk in chunks for position in (chunk.start, chunk.end)), samples]
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        assert not has_audio(start, end, silences)


def has_audio(start: int, end: int, silences: list[Span]) -> bool:
    """Return whether a sample between two positions is in no silence."""
    at = start
    for silence in sorted(silences, key=lambda span: span.start_s):
        if silence.start_s * SPLIT_RATE_HZ <= at + 1e-3:
            at = max(at, int(silence.end_s * SPLIT_RATE_HZ + 1e-3))
    return at < end


@pytest.mark.parametrize("name", ["opus", "ogg", "mp3", "aac", "m4a", "flac", "wav"])
@pytest.mark.parametrize("signal", ["noise", "clicks"])
def test_chunk_of_computed_length_fits_the_upload_limit(name: str, signal: str) -> None:
    source = random.Random(1)
    upload_bytes = 100_000
    frames = int(compute_max_chunk_s(name, upload_bytes) * SPLIT_RATE_HZ)
    loud = source.randbytes(2 * frames)
    sparse = b"".join(b"\x00\x70" if source.random() < 0.02 else b"\0\0" for _ in range(frames))

    target = io.BytesIO()
    with Encoder(name, PcmFormat(SPLIT_RATE_HZ), target) as encoder:
        encoder.feed(loud if signal == "noise" else sparse)
        encoder.finish()

    assert len(target.getvalue()) <= upload_bytes


# --- merge -----------------------------------------------------------------------------------------------------------

TWO_CHUNKS = (
    AudioChunk(0, 20 * SPLIT_RATE_HZ, 0, 4 * SPLIT_RATE_HZ),
    AudioChunk(16 * SPLIT_RATE_HZ, 40 * SPLIT_RATE_HZ, 4 * SPLIT_RATE_HZ, 0),
)


def build_words(*words: tuple[float, float, str]) -> tuple[Word, ...]:
    return tuple(Word(*word) for word in words)


def test_words_in_both_chunks_are_merged_once() -> None:
    left = build_words(
        (14.0, 15.0, "the"), (15.8, 16.2, "harbour"), (16.5, 17.0, "Opens"), (17.5, 18.0, "at"), (18.4, 20, "nin")
    )
    right = build_words(
        (0.0, 0.2, "her"), (0.6, 1.1, "opens,"), (1.6, 2.1, "at"), (2.5, 3.1, "nine"), (4.2, 5.0, "sharp")
    )

    merged = merge_transcripts(
        TWO_CHUNKS,
        [Transcript("the harbour Opens at nin", words=left), Transcript("her opens, at nine sharp.", words=right)],
    )

    assert [word.text for word in merged.words] == ["the", "harbour", "Opens", "at", "nine", "sharp"]
    assert merged.text == "the harbour Opens at nine sharp."
    assert merged.words[-1] == Word(20.2, 21.0, "sharp")
    assert merged.timing is Timing.WORD and merged.segments == ()


def test_words_without_match_are_merged_at_the_middle() -> None:
    left = build_words((10.0, 11.0, "one"), (17.0, 17.5, "two"), (19.0, 19.9, "thr"))
    right = build_words((0.1, 0.6, "oo"), (2.8, 3.8, "three"), (5.0, 6.0, "four"))

    merged = merge_transcripts(
        TWO_CHUNKS, [Transcript("One, two, thr", words=left), Transcript("Oo. Three four!", words=right)]
    )

    assert [word.text for word in merged.words] == ["one", "two", "three", "four"]
    assert merged.text == "One, two, Three four!"


def test_segments_without_words_are_merged_by_text() -> None:
    left = (Segment(0, 12, "It was a quiet day."), Segment(12, 20, "The harbour opens at nine o'cl"))
    right = (Segment(0, 8, "arbour opens at nine o'clock every day."), Segment(8, 20, "Except on Sunday."))

    merged = merge_transcripts(
        TWO_CHUNKS, [Transcript("", segments=left), Transcript("", segments=right)], duration_s=36.0
    )

    assert merged.text == "It was a quiet day. The harbour opens at nine o'clock every day. Except on Sunday."
    assert [segment.text for segment in merged.segments][1:3] == ["The harbour opens at", "nine o'clock every day."]
    assert merged.segments[1].end_s == merged.segments[2].start_s
    assert merged.segments[-1] == Segment(24, 36, "Except on Sunday.")
    assert merged.timing is Timing.SEGMENT


def test_segments_without_match_are_merged_by_time() -> None:
    left = (Segment(0, 16, "alpha"), Segment(16.5, 17.5, "beta"), Segment(18.5, 20, "gam"))
    right = (Segment(0.5, 1.5, "bet"), Segment(2.2, 4, "gamma"), Segment(4, 20, "delta"))

    merged = merge_transcripts(TWO_CHUNKS, [Transcript("", segments=left), Transcript("", segments=right)])

    assert merged.text == "alpha beta gamma delta"


@pytest.mark.parametrize(
    ("left", "right", "expected_text"),
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
def test_texts_without_times_are_merged_at_their_match(left: str, right: str, expected_text: str) -> None:
    merged = merge_transcripts(TWO_CHUNKS, [Transcript(left), Transcript(right)], duration_s=40.0)

    assert merged.text == expected_text
    assert merged.timing is Timing.CHUNK
    assert all(a.end_s <= b.start_s or a.end_s - b.start_s <= 4 for a, b in pairwise(merged.segments))


@settings(deadline=None)
@given(
    words=st.lists(st.text("abcdefghéж", min_size=1, max_size=8), unique=True, min_size=1, max_size=60),
    ends=st.lists(st.sampled_from(["", ",", ".", "?”"]), min_size=60, max_size=60),
    overlap=st.tuples(st.integers(0, 60), st.integers(0, 40)),
)
def test_texts_split_with_overlap_are_restored(words: list[str], ends: list[str], overlap: tuple[int, int]) -> None:
    spoken = [word + end for word, end in zip(words, ends, strict=False)]
    left, right = spoken[: overlap[0] + overlap[1]], spoken[overlap[0] :]

    assert (
        merge_transcripts(TWO_CHUNKS, [Transcript(" ".join(left)), Transcript(" ".join(right))]).text.split() == spoken
    )


@pytest.mark.parametrize(
    "sentence", ["this is a long story about a big {}", "{} is here now", "saint {} pray for us", "number {}"]
)
@pytest.mark.parametrize("has_segments", [False, True])
@pytest.mark.parametrize("words_per_s", [1.5, 2, 3, 4.5])
def test_sentences_that_differ_in_one_word_are_not_lost(sentence: str, has_segments: bool, words_per_s: float) -> None:
    names = (f"name{index}" for index in range(200))
    spoken = [word for name in names for word in sentence.format(name).split()][: round(36 * words_per_s)]
    chunks = TWO_CHUNKS
    texts = [
        " ".join(spoken[round(chunk.start_s * words_per_s) : round(chunk.end_s * words_per_s)]) for chunk in chunks
    ]

    merged = merge_transcripts(
        chunks, [Transcript(text, segments=(Segment(0, 20, text),) if has_segments else ()) for text in texts]
    )

    assert merged.text.split() == spoken


def test_repeated_words_stay_without_overlap() -> None:
    chunks = (AudioChunk(0, SPLIT_RATE_HZ), AudioChunk(SPLIT_RATE_HZ, 2 * SPLIT_RATE_HZ))

    assert merge_transcripts(chunks, [Transcript("no, no"), Transcript("no, no, no")]).text == "no, no no, no, no"


def test_chunk_with_text_only_gives_chunk_timing() -> None:
    chunks = (AudioChunk(0, SPLIT_RATE_HZ), AudioChunk(2 * SPLIT_RATE_HZ, 3 * SPLIT_RATE_HZ))
    merged = merge_transcripts(
        chunks, [Transcript("a b", segments=(Segment(0.2, 0.9, "a b"),)), Transcript("c", language="de")]
    )

    assert merged.segments == (Segment(0.2, 0.9, "a b"), Segment(2.0, 3.0, "c"))
    assert merged.timing is Timing.CHUNK
    assert merged.language == "de"
    assert build_document(merged)["timing"] == "chunk"
    assert parse_json(render(merged, "json")).timing is Timing.CHUNK


def test_captions_of_chunks_start_at_the_chunks() -> None:
    first = "It was a quiet day in the old harbour, and nothing happened for a long time. " * 3
    segments = (Segment(0.0, 15.0, first.strip()), Segment(15.5, 18.0, "Then it rained."))
    merged = Transcript(f"{first}Then it rained.", duration_s=18.0, segments=segments, segments_are_chunks=True)
    cues = build_cues(merged)

    assert merged.timing is Timing.CHUNK
    assert (cues[-1].start_s, cues[-1].lines) == (15.5, ("Then it rained.",))
    assert len(cues) > 3 and cues[-2].end_s <= 15.5


def test_usage_is_summed_and_unknown_when_one_chunk_has_none() -> None:
    assert sum_usage([Usage(5, 1.5, None, 0), Usage(7, 2.0, 3, 0)]) == Usage(12, 3.5, None, 0)
    assert sum_usage([]) == Usage()


WORD_LENGTHS_S = st.lists(st.tuples(st.floats(0.01, 1.4), st.floats(0, 1.0)), min_size=1, max_size=120)
SPELLINGS = st.sampled_from(["la", "La,", "no", "yes", "Straße", "day", "день", "—", "5"])


@settings(max_examples=150, deadline=None)
@given(lengths=WORD_LENGTHS_S, data=st.data(), max_s=st.floats(6, 40), silences=SPANS)
def test_transcript_split_with_its_recording_is_restored(
    lengths: list[tuple[float, float]], data: st.DataObject, max_s: float, silences: list[Span]
) -> None:
    words: list[Word] = []
    at_s = 0.0
    for length_s, pause_s in lengths:
        words.append(Word(at_s, at_s + length_s, data.draw(SPELLINGS)))
        at_s += length_s + pause_s
    samples = int(at_s * SPLIT_RATE_HZ) + 1
    quiet = [
        silence
        for silence in silences
        if not any(word.start_s < silence.end_s and silence.start_s < word.end_s for word in words)
    ]
    chunks = plan_chunks(samples, quiet, ChunkLimits(max_s, 1.5))
    assume(all(any(contains(chunk, word) for chunk in chunks) for word in words))

    merged = merge_transcripts(
        chunks, [transcribe_chunk(chunk, words) for chunk in chunks], duration_s=samples / SPLIT_RATE_HZ
    )

    spoken = [word.text for word in words]
    assert [word.text for word in merged.words] == spoken
    assert [word_text for word_text in merged.text.split() if word_text != "—"] == [
        word for word in spoken if word != "—"
    ]
    assert all(
        a.start_s == pytest.approx(b.start_s, abs=1e-6) and a.end_s == pytest.approx(b.end_s, abs=1e-6)
        for a, b in zip(merged.words, words, strict=True)
    )


def contains(chunk: AudioChunk, word: Word) -> bool:
    return chunk.start_s <= word.start_s and word.end_s <= chunk.end_s


def transcribe_chunk(chunk: AudioChunk, words: list[Word]) -> Transcript:
    chunk_words = [word for word in words if contains(chunk, word)]
    return Transcript(
        " ".join(word.text for word in chunk_words),
        words=tuple(Word(word.start_s - chunk.start_s, word.end_s - chunk.start_s, word.text) for word in chunk_words),
    )


TIMES_S = st.floats(-10, 100) | st.sampled_from([float("inf"), float("nan")])
TEXTS = st.text("ab 。x.今", max_size=12)
TRANSCRIPTS = st.builds(
    Transcript,
    TEXTS,
    segments=st.lists(st.builds(Segment, TIMES_S, TIMES_S, TEXTS), max_size=6).map(tuple),
    words=st.lists(st.builds(Word, TIMES_S, TIMES_S, TEXTS), max_size=6).map(tuple),
)


@settings(max_examples=100, deadline=None)
@given(transcripts=st.lists(TRANSCRIPTS, max_size=5), overlap_s=st.sampled_from([0.0, 1.0, 10.0]))
def test_merged_times_are_ordered_and_within_the_recording(transcripts: list[Transcript], overlap_s: float) -> None:
    duration_s = 40.0 * len(transcripts)
    chunks = plan_chunks(int(duration_s * SPLIT_RATE_HZ), [], ChunkLimits(40.0, overlap_s))[: len(transcripts)]

    merged = merge_transcripts(chunks, transcripts, duration_s=duration_s)

    for items in (merged.segments, merged.words):
        assert all(0 <= item.start_s <= item.end_s <= duration_s for item in items)
        assert all(a.start_s <= b.start_s for a, b in pairwise(items))
