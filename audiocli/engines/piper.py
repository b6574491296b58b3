"""Speech with Piper voices: starts its child processes, `piper_worker`, and turns failures into errors."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import NamedTuple

from ..errors import AudiocliError, UsageError
from . import espeak
from .child import ChildPool, Frame, build_failure_error, build_load_error, build_search_path
from .piper_voices import VoiceFiles, VoiceSettings

# More threads do not make a sentence faster.
_MAX_THREADS = 4
# espeak copies a clause to a buffer of 800 bytes and ends it there, also inside a word.
_MAX_SENTENCE_BYTES = 600
# Silence at a speed of 1. Sentences also begin and end with about 0.1 s of silence that the voice makes.
SENTENCE_PAUSE_MS = 200
PARAGRAPH_PAUSE_MS = 450


class OpenVoice(NamedTuple):
    """A checked voice and its child processes."""

    settings: VoiceSettings
    pool: ChildPool


def create_pool(files: VoiceFiles, *, environment: Mapping[str, str], read_timeout_s: float) -> ChildPool:
    """Create a pool of child processes with a voice, without starting one.

    Each has 200 to 400 MB and several threads, so there are fewer of them than cores.

    Args:
        files: Checked files of the voice.
        environment: From `build_child_environment`.
        read_timeout_s: A child that sends nothing for this time is killed.

    Raises:
        AccessError: espeak is not installed or is broken.
    """
    _, library_path, data_directory = espeak.find_worker()
    cores = os.cpu_count() or 1
    threads = min(cores, _MAX_THREADS)
    return ChildPool(
        "piper",
        [
            *("piper_worker", build_search_path(), library_path, data_directory),
            *(str(files.model), str(files.config), str(threads)),
        ],
        environment=environment,
        read_timeout_s=read_timeout_s,
        max_children=max(cores // threads, 1),
    )


def build_request(text: str, *, speaker: int, speed: float | None) -> Frame:
    """Build the request that speaks a text, sentence by sentence."""
    from ..text.splitter import BreakAt, Unit, split_text  # takes 8 ms, which other engines do not need

    chunks = split_text(espeak.clean_text(text), _MAX_SENTENCE_BYTES, unit=Unit.BYTES, break_at=BreakAt.SENTENCE)
    sentences = [(chunk.text, PARAGRAPH_PAUSE_MS if chunk.is_paragraph_end else SENTENCE_PAUSE_MS) for chunk in chunks]
    return Frame(b"S", json.dumps({"sentences": sentences, "speaker": speaker, "speed": speed or 1.0}).encode())


def build_error(frame: Frame) -> AudiocliError:
    """Build the error of a response that failed."""
    match frame.kind:
        case b"N":
            return UsageError("nothing in the text can be spoken by piper")
        case b"B":
            return build_load_error("piper", frame.fields[0])
        case _:
            return build_failure_error("piper", frame.fields[0])
