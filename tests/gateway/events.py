"""Event streams: what the gateways send in them, and what can happen to them on the way."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .faults import Events
from .words import diarized_segments

if TYPE_CHECKING:
    from .base import Job

CONTENT_TYPE = "text/event-stream"
_AUDIO_BYTES = 12_000


def event(value: Any) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


def speech_events(pieces: Iterator[bytes], last: Mapping[str, Any]) -> Iterator[bytes]:
    """Give audio in base64; `last` is what the last event tells besides its type."""
    for piece in pieces:
        for start in range(0, len(piece), _AUDIO_BYTES):
            audio = base64.b64encode(piece[start : start + _AUDIO_BYTES]).decode()
            yield event({"type": "speech.audio.delta", "audio": audio})
    yield event({"type": "speech.audio.done", **last})


def text_events(job: Job, last: Mapping[str, Any]) -> Iterator[bytes]:
    """Give a transcript word by word; the texts of all deltas make up the whole.

    Of a diarized transcript each segment follows its words, which bear its id.
    """
    done = {"type": "transcript.text.done", "text": job.said.text}
    if job.format != "diarized_json":
        for delta in words(job.said.text):
            yield event({"type": "transcript.text.delta", "delta": delta, **logprobs(job, [delta])})
        yield event({**done, **logprobs(job, words(job.said.text)), **last})
        return
    segments = diarized_segments(job.said.timed_segments(job.duration_s), job.speakers)
    for at, segment in enumerate(segments):
        for delta in words(segment["text"], first="" if at == 0 else " "):
            yield event({"type": "transcript.text.delta", "delta": delta, "segment_id": segment["id"]})
        yield event(segment)
    yield event({**done, **last})


def logprobs(job: Job, tokens: list[str]) -> dict[str, Any]:
    """Give `logprobs` if they were asked for."""
    if not job.logprobs:
        return {}
    return {"logprobs": [{"token": token, "logprob": -0.125, "bytes": list(token.encode())} for token in tokens]}


def words(text: str, *, first: str = "") -> list[str]:
    """Cut a text into words with the space before each of them; `first` stands before the first."""
    return [(" " if at else first) + word for at, word in enumerate(text.split(" "))]


def changed(stream: bytes, fault: Events, error: Any) -> bytes:
    """Write a stream as the fault says."""
    told = [block for block in stream.decode().split("\n\n") if block]
    if fault.error_after is not None:
        told = [*told[: fault.error_after], event(error).decode().strip()]
    elif fault.without_done:
        told.pop()
    if fault.marker:
        told.append("data: [DONE]")
    if fault.tight:
        told = [block.replace("data: ", "data:", 1) for block in told]
    if fault.comments:
        told = [line for block in told for line in (": keep-alive", block)]
    end = "\r\n" if fault.crlf else "\n"
    return "".join(block + 2 * end for block in told).encode()
