"""Parser of server-sent events, and their audio and text: identical output for any block size."""

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


def split_at(body: bytes, offsets: list[int]) -> list[bytes]:
    edges = sorted({offset % (len(body) + 1) for offset in offsets} | {0, len(body)})
    return [body[start:end] for start, end in pairwise(edges)]


OFFSETS = st.lists(st.integers(0, 100_000), max_size=30)
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
LINE_ENDS = st.lists(st.sampled_from(["\n", "\r\n", "\r"]), min_size=12, max_size=12)


def parse_events(blocks: list[bytes]) -> list[str]:
    stream = EventStream()
    return [event for block in blocks for event in stream.feed(block)] + stream.finish()


def parse_by_specification(lines: list[str]) -> list[str]:
    """Parse lines as the HTML specification does, but accept a last event without its blank line."""
    events, data_lines = [], []
    for line in [*lines, ""]:
        name, _, value = line.partition(":")
        if name == "data" and line:
            data_lines.append(value.removeprefix(" "))
        elif not line and data_lines:
            events.append("\n".join(data_lines))
            data_lines = []
    return events


@settings(max_examples=200, deadline=None)
@given(LINES, LINE_ENDS, OFFSETS, st.booleans(), st.booleans())
def test_events_are_identical_for_any_block_size(
    lines: list[str], ends: list[str], offsets: list[int], has_bom: bool, is_unterminated: bool
) -> None:
    # A lone CR followed by a line that starts with LF is one line end, not two.
    line_ends = [
        "\n" if end == "\r" and not (lines[at + 1 : at + 2] != [""] and is_unterminated) else end
        for at, end in enumerate(ends[: len(lines)])
    ]
    text = "".join(line + end for line, end in zip(lines, line_ends, strict=True))
    body = (b"\xef\xbb\xbf" if has_bom else b"") + text.encode()

    assert parse_events(split_at(body, offsets)) == parse_by_specification(lines)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), OFFSETS)
def test_base64_is_decoded_for_any_block_size_outside_padding(audio: bytes, offsets: list[int]) -> None:
    text = base64.b64encode(audio).rstrip(b"=")
    stream = Base64Stream()

    decoded = b"".join(stream.feed(block.decode()) for block in split_at(text, offsets))

    assert decoded + stream.finish() == audio


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=50), max_size=10))
def test_base64_blocks_with_padding_are_joined(parts: list[bytes]) -> None:
    stream = Base64Stream()

    decoded = b"".join(stream.feed(base64.b64encode(part).decode()) for part in parts)

    assert decoded + stream.finish() == b"".join(parts)


def test_base64_padding_may_be_split() -> None:
    stream = Base64Stream()

    assert stream.feed("QQ=") + stream.feed("=") + stream.finish() == b"A"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=6), OFFSETS, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_speech_stream_is_identical_for_any_block_size(
    parts: list[bytes], offsets: list[int], end: str, has_marker: bool
) -> None:
    deltas = [json.dumps({"type": "speech.audio.delta", "audio": base64.b64encode(part).decode()}) for part in parts]
    last = json.dumps({"type": "speech.audio.done", "usage": {"input_tokens": 3, "output_tokens": 5}})
    body = "".join(f"data: {event}{end}{end}" for event in [*deltas, last, *(["[DONE]"] * has_marker)]).encode()
    stream = SpeechStream({})

    decoded = b"".join(stream.feed(block) for block in split_at(body, offsets)) + stream.finish()

    assert decoded == b"".join(parts)
    assert (stream.usage.input_tokens, stream.usage.output_tokens) == (3, 5)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(READABLE, min_size=1, max_size=9), min_size=1, max_size=6), OFFSETS)
def test_transcript_stream_is_identical_for_any_block_size(parts: list[str], offsets: list[int]) -> None:
    deltas = [{"type": "transcript.text.delta", "delta": part} for part in parts]
    events = [*deltas, {"type": "transcript.text.done", "text": "".join(parts)}]
    body = "".join(f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events).encode()
    stream = TranscriptStream({})

    decoded = [text for block in split_at(body, offsets) for text in stream.feed(block)]
    remaining, transcript = stream.finish()

    assert [*decoded, *remaining] == parts
    assert transcript.text.split() == "".join(parts).split()


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_invalid_data_does_not_end_speech(data: bytes) -> None:
    stream = SpeechStream({})
    stream.feed(b"data: " + data.replace(b"[DONE]", b"") + b"\n\n")

    with pytest.raises(ResponseInterrupted):
        stream.finish()
