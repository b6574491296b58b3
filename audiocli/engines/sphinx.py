"""Recognize English speech with pocketsphinx: read samples from stdin and write a transcript to stdout.

This is a process and not a thread, because the library holds the GIL for a complete utterance: 0.9 s in which Ctrl-C
and all other transfers would stop (measured with pocketsphinx 5.1 on 11 s of speech). A process can be killed
immediately, and the output of the library is discarded. The parent runs this file by its path, so it imports nothing
from the package.

Each utterance is decoded as a whole, so that its own cepstral mean is subtracted: 36 words of real speech had 7
word errors, and 37 if the mean was estimated incrementally. Memory holds one utterance, whatever the length of the
recording.
"""

from __future__ import annotations

import json
import re
import sys
from array import array
from collections.abc import Iterable, Iterator
from random import Random
from typing import Any, BinaryIO, NamedTuple

SAMPLE_RATE_HZ = 16_000
BYTES_PER_SECOND = 2 * SAMPLE_RATE_HZ

MAX_UTTERANCE_S = 15
# Without a pause, split at the quietest moment in this last part of an utterance of the maximum length.
SPLIT_SEARCH_S = 4
_QUIET_BYTES = BYTES_PER_SECOND * 30 // 1000

# Recognizer frames of 10 ms. A quarter of a second of silence around an utterance corrects its first and last words (9
# wrong words of 36 instead of 16). More changes nothing.
_FRAMES_PER_SECOND = 100
_PADDING_FRAMES = 25
_SILENCE = bytes(BYTES_PER_SECOND * _PADDING_FRAMES // _FRAMES_PER_SECOND)

# Synthetic speech starts immediately and contains digital silence, unlike a real recording. With silence around it,
# "hello world" is recognized as "oh we're ill"; with faint noise it is correct. A real recording has noise of its own,
# and silence works better. The noise is constant, so that results are reproducible.
_ABRUPT_PEAK = 300
_NOISE_AMPLITUDE = 4
_NOISE = array("h", Random(1).choices(range(-_NOISE_AMPLITUDE, _NOISE_AMPLITUDE + 1), k=len(_SILENCE) // 2)).tobytes()

# A sixth of the default: two thirds of the time on noisy speech, with the same words.
_MAX_HYPOTHESES = 5_000


class Utterance(NamedTuple):
    """Samples between two pauses. `start_bytes` is the byte offset of the first one in the recording."""

    start_bytes: int
    samples: bytes


class CountingReader:
    """Count the bytes read: the only reliable length of a recording."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.position = 0

    def read(self, size: int) -> bytes:
        samples = self._source.read(size)
        self.position += len(samples)
        return samples


def find_quietest_offset(samples: bytes) -> int:
    """Return the byte offset at which to split a long utterance: in the quietest 30 ms near its end."""
    first_offset = max(0, len(samples) - SPLIT_SEARCH_S * BYTES_PER_SECOND)
    first_offset -= first_offset % 2

    def measure_loudness(start: int) -> int:
        return sum(abs(sample) for sample in array("h", samples[start : start + _QUIET_BYTES]))

    starts = range(first_offset, len(samples) - _QUIET_BYTES, _QUIET_BYTES)
    return min(starts, key=measure_loudness) + _QUIET_BYTES // 2


def split_utterances(source: CountingReader, endpointer: Any) -> Iterator[Utterance]:
    """Split a recording at pauses, and where an utterance would become too long."""
    start, pending = 0, bytearray()
    while frame := source.read(endpointer.frame_bytes):
        was_speaking = endpointer.in_speech
        if len(frame) == endpointer.frame_bytes:
            speech = endpointer.process(frame)
        else:
            speech = endpointer.end_stream(frame) if was_speaking else None
        if speech is not None:
            if not pending:
                start = 2 * round(endpointer.speech_start * SAMPLE_RATE_HZ)
            pending += speech
        if pending and not endpointer.in_speech:
            yield Utterance(start, bytes(pending))
            pending.clear()
        elif len(pending) >= MAX_UTTERANCE_S * BYTES_PER_SECOND:
            split = find_quietest_offset(bytes(pending))
            yield Utterance(start, bytes(pending[:split]))
            del pending[:split]
            start += split
    if pending:
        yield Utterance(start, bytes(pending))


def choose_padding(utterance: Utterance) -> bytes:
    """Return the padding for an utterance: noise if it starts in digital silence or abruptly, else silence."""
    opening = array("h", utterance.samples[: min(len(utterance.samples) // 2 * 2, 8 * _QUIET_BYTES)])
    step = _QUIET_BYTES // 2
    peaks = [max(map(abs, opening[offset : offset + step])) for offset in range(0, len(opening), step)] or [0]
    return _NOISE if min(peaks) == 0 or (utterance.start_bytes == 0 and peaks[0] > _ABRUPT_PEAK) else _SILENCE


def build_words(utterance: Utterance, segments: Iterable[Any]) -> list[dict[str, Any]]:
    """Return the words of one utterance with times in the recording, without fillers and pronunciation marks."""
    first_s = utterance.start_bytes / BYTES_PER_SECOND
    last_s = first_s + len(utterance.samples) / BYTES_PER_SECOND

    def compute_time_s(frame: int) -> float:
        return round(min(max(first_s + (frame - _PADDING_FRAMES) / _FRAMES_PER_SECOND, first_s), last_s), 3)

    return [
        {
            "word": re.sub(r"\(\d+\)$", "", segment.word),
            "start": compute_time_s(segment.start_frame),
            "end": compute_time_s(segment.end_frame + 1),
        }
        for segment in segments
        if not segment.word.startswith(("<", "[", "+"))
    ]


def transcribe(source: BinaryIO) -> dict[str, Any]:
    """Transcribe samples (s16le, 16 kHz, mono) into the structure of OpenAI's verbose_json.

    Each utterance is a segment. A recording without speech has an empty text and no segments.
    """
    from pocketsphinx import Decoder, Endpointer

    decoder = Decoder(samprate=SAMPLE_RATE_HZ, loglevel="FATAL", maxhmmpf=_MAX_HYPOTHESES)
    reader = CountingReader(source)
    segments: list[dict[str, Any]] = []
    all_words: list[dict[str, Any]] = []
    for utterance in split_utterances(reader, Endpointer(sample_rate=SAMPLE_RATE_HZ)):
        decoder.start_utt()
        padding = choose_padding(utterance)
        decoder.process_raw(padding + utterance.samples + padding, False, True)
        decoder.end_utt()
        if not (words := build_words(utterance, decoder.seg() or ())):
            continue
        text = " ".join(word["word"] for word in words)
        segments.append({"id": len(segments), "start": words[0]["start"], "end": words[-1]["end"], "text": text})
        all_words += words
    return {
        "task": "transcribe",
        "language": "en",
        "duration": reader.position / BYTES_PER_SECOND,
        "text": " ".join(segment["text"] for segment in segments),
        "segments": segments,
        "words": all_words,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(transcribe(sys.stdin.buffer)))
