"""Server-sent events of speech and transcripts, and the faults of event streams."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

from .faults import EventStreamFault
from .messages import Headers, Response, bytes_response
from .tasks import Task
from .transcripts import build_diarized_segments

CONTENT_TYPE = "text/event-stream"
_DELTA_BYTES = 12_000


def encode_event(value: Any) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


def build_stream_response(stream: Iterator[bytes], headers: Headers) -> Response:
    return bytes_response(200, CONTENT_TYPE, b"".join(stream), headers, chunked=True)


def iter_speech_events(blocks: Iterator[bytes], last: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield audio as base64 deltas. `last` holds the fields of the last event besides its type."""
    for block in blocks:
        for start in range(0, len(block), _DELTA_BYTES):
            audio = base64.b64encode(block[start : start + _DELTA_BYTES]).decode()
            yield encode_event({"type": "speech.audio.delta", "audio": audio})
    yield encode_event({"type": "speech.audio.done", **last})


def iter_transcript_events(task: Task, last: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield a transcript word by word; the deltas add up to the text.

    In a diarized transcript, the deltas of a segment have its ID and the segment follows them.
    """
    done = {"type": "transcript.text.done", "text": task.transcript.text}
    if task.format != "diarized_json":
        for delta in split_words(task.transcript.text):
            yield encode_event({"type": "transcript.text.delta", "delta": delta, **build_logprobs(task, [delta])})
        yield encode_event({**done, **build_logprobs(task, split_words(task.transcript.text)), **last})
        return
    segments = build_diarized_segments(task.transcript.get_segments(task.duration_s), task.speakers)
    for index, segment in enumerate(segments):
        for delta in split_words(segment["text"], first="" if index == 0 else " "):
            yield encode_event({"type": "transcript.text.delta", "delta": delta, "segment_id": segment["id"]})
        yield encode_event(segment)
    yield encode_event({**done, **last})


def build_logprobs(task: Task, tokens: list[str]) -> dict[str, Any]:
    """Return `logprobs` if they were requested."""
    if not task.logprobs:
        return {}
    return {"logprobs": [{"token": token, "logprob": -0.125, "bytes": list(token.encode())} for token in tokens]}


def split_words(text: str, *, first: str = "") -> list[str]:
    """Split a text into words, each with the space before it; `first` is put before the first word."""
    return [(" " if index else first) + word for index, word in enumerate(text.split(" "))]


def apply_event_stream_fault(stream: bytes, fault: EventStreamFault, error: Any) -> bytes:
    """Rewrite a stream as the fault says."""
    events = [event for event in stream.decode().split("\n\n") if event]
    if fault.error_after is not None:
        events = [*events[: fault.error_after], encode_event(error).decode().strip()]
    elif fault.omit_done_event:
        events.pop()
    if fault.done_marker:
        events.append("data: [DONE]")
    if fault.omit_space:
        events = [event.replace("data: ", "data:", 1) for event in events]
    if fault.add_comments:
        events = [line for event in events for line in (": keep-alive", event)]
    line_ending = "\r\n" if fault.use_crlf else "\n"
    return "".join(event + 2 * line_ending for event in events).encode()
