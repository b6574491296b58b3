"""Transcription with Whisper: starts its child processes, `whisper_worker`, and turns failures into errors."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import AudiocliError
from .child import ChildPool, Frame, build_failure_error, build_load_error, build_search_path

# The encoder gains little from more threads.
_MAX_THREADS = 4
_MAX_DATA_BYTES = 1_000_000


def create_pool(paths: Mapping[str, Path], *, environment: Mapping[str, str], read_timeout_s: float) -> ChildPool:
    """Create a pool of child processes with a model, without starting one.

    Each has 250 to 400 MB and several threads, so there are fewer of them than cores.

    Args:
        paths: Checked files of the model, all in one directory.
        environment: From `build_child_environment`.
        read_timeout_s: A child that sends nothing for this time is killed.
    """
    cores = os.cpu_count() or 1
    threads = min(cores, _MAX_THREADS)
    (directory,) = {path.parent for path in paths.values()}
    return ChildPool(
        "whisper",
        ["whisper_worker", build_search_path(), str(directory), str(threads)],
        environment=environment,
        read_timeout_s=read_timeout_s,
        max_children=max(cores // threads, 1),
    )


def build_request(values: Mapping[str, Any]) -> Frame:
    """Build the frame that begins a request. `build_data` and `END` follow."""
    names = ("language", "translate", "prompt", "temperature", "words")
    return Frame(b"T", json.dumps({name: values[name] for name in names}).encode())


def build_data(samples: bytes) -> list[Frame]:
    """Build frames with samples (s16le, 16 kHz, mono)."""
    return [Frame(b"D", samples[start : start + _MAX_DATA_BYTES]) for start in range(0, len(samples), _MAX_DATA_BYTES)]


END = Frame(b"Z")


def build_transcript(segments: list[dict[str, Any]], end: Mapping[str, Any]) -> bytes:
    """Build the transcript of a recording, in the structure of OpenAI's verbose_json."""
    document = {
        "task": "transcribe",
        "language": end["language"],
        "duration": end["duration"],
        # Texts begin with a space in languages that have spaces between words.
        "text": "".join(segment["text"] for segment in segments).strip(),
        "segments": [
            {
                "id": index,
                "start": segment["start"],
                "end": segment["end"],
                "text": segment["text"].strip(),
                **{name: segment[name] for name in ("no_speech_prob", "avg_logprob", "compression_ratio")},
            }
            for index, segment in enumerate(segments)
        ],
        "words": [word for segment in segments for word in segment["words"]],
    }
    return json.dumps(document).encode()


def build_error(frame: Frame) -> AudiocliError:
    """Build the error of a response that failed."""
    if frame.kind == b"B":
        return build_load_error("whisper", frame.fields[0])
    return build_failure_error("whisper", frame.fields[0])
