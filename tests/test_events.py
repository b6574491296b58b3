"""Events and what is in them: the same for any way of cutting the bytes."""

from __future__ import annotations

import base64
import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiocli.errors import ResponseInterrupted
from audiocli.gateways.event_streams import Base64Stream, SpeechStream, TranscriptStream
from audiocli.gateways.sse import EventStream


def cut_at(whole: bytes, places: list[int]) -> list[bytes]:
    marks = sorted({place % (len(whole) + 1) for place in places} | {0, len(whole)})
    return [whole[start:end] for start, end in pairwise(marks)]


PLACES = st.lists(st.integers(0, 100_000), max_size=30)
LINES = st.lists(
    st.one_of(
        st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=12).map(lambda text: f"data: {text}"),
        st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=6).map(lambda text: f"data:{text}"),
        st.sampled_from(
            ["", "", "", ": comment", "event: x", "id", "data", "data: [DONE]", "retry: 3", ":", "dataset: x"]
        ),
    ),
    max_size=12,
)
READABLE = st.characters(codec="utf-8", exclude_categories=["Cc", "Cf", "Cs"])
ENDS = st.lists(st.sampled_from(["\n", "\r\n", "\r"]), min_size=12, max_size=12)


def events_of(chunks: list[bytes]) -> list[str]:
    stream = EventStream()
    return [event for chunk in chunks for event in stream.feed(chunk)] + stream.finish()


def by_the_book(lines: list[str]) -> list[str]:
    """What the specification makes of lines; an event at the end counts without its blank line."""
    events, held = [], []
    for line in [*lines, ""]:
        name, _, value = line.partition(":")
        if name == "data" and line:
            held.append(value.removeprefix(" "))
        elif not line and held:
            events.append("\n".join(held))
            held = []
    return events


@settings(max_examples=200, deadline=None)
@given(LINES, ENDS, PLACES, st.booleans(), st.booleans())
def test_events_are_the_same_for_any_cutting(
    lines: list[str], ends: list[str], places: list[int], has_mark: bool, is_open: bool
) -> None:
    # A lone CR before a line that LF begins is one line end, not two.
    joined = [
        "\n" if end == "\r" and not (lines[at + 1 : at + 2] != [""] and is_open) else end
        for at, end in enumerate(ends[: len(lines)])
    ]
    text = "".join(line + end for line, end in zip(lines, joined, strict=True))
    whole = (b"\xef\xbb\xbf" if has_mark else b"") + text.encode()

    assert events_of(cut_at(whole, places)) == by_the_book(lines)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), PLACES)
def test_base64_is_the_same_for_any_cutting_but_inside_its_padding(audio: bytes, places: list[int]) -> None:
    text = base64.b64encode(audio).rstrip(b"=")
    stream = Base64Stream()

    heard = b"".join(stream.feed(piece.decode()) for piece in cut_at(text, places))

    assert heard + stream.finish() == audio


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=50), max_size=10))
def test_pieces_of_base64_with_padding_of_their_own_are_joined(parts: list[bytes]) -> None:
    stream = Base64Stream()

    heard = b"".join(stream.feed(base64.b64encode(part).decode()) for part in parts)

    assert heard + stream.finish() == b"".join(parts)


def test_base64_may_be_cut_inside_its_padding() -> None:
    stream = Base64Stream()

    assert stream.feed("QQ=") + stream.feed("=") + stream.finish() == b"A"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=6), PLACES, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_a_stream_of_speech_is_the_same_for_any_cutting(
    parts: list[bytes], places: list[int], end: str, has_marker: bool
) -> None:
    told = [json.dumps({"type": "speech.audio.delta", "audio": base64.b64encode(part).decode()}) for part in parts]
    last = json.dumps({"type": "speech.audio.done", "usage": {"input_tokens": 3, "output_tokens": 5}})
    whole = "".join(f"data: {event}{end}{end}" for event in [*told, last, *(["[DONE]"] * has_marker)]).encode()
    stream = SpeechStream({})

    heard = b"".join(stream.feed(chunk) for chunk in cut_at(whole, places)) + stream.finish()

    assert heard == b"".join(parts)
    assert (stream.usage.input_tokens, stream.usage.output_tokens) == (3, 5)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(READABLE, min_size=1, max_size=9), min_size=1, max_size=6), PLACES)
def test_a_stream_of_text_is_the_same_for_any_cutting(parts: list[str], places: list[int]) -> None:
    told = [{"type": "transcript.text.delta", "delta": part} for part in parts]
    events = [*told, {"type": "transcript.text.done", "text": "".join(parts)}]
    whole = "".join(f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events).encode()
    stream = TranscriptStream({})

    heard = [text for chunk in cut_at(whole, places) for text in stream.feed(chunk)]
    late, transcript = stream.finish()

    assert [*heard, *late] == parts
    assert transcript.text.split() == "".join(parts).split()


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_no_end_of_speech(noise: bytes) -> None:
    stream = SpeechStream({})
    stream.feed(b"data: " + noise.replace(b"[DONE]", b"") + b"\n\n")

    with pytest.raises(ResponseInterrupted):
        stream.finish()
