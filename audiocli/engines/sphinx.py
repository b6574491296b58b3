"""Recognise English speech with pocketsphinx: a program of its own, samples on stdin, a transcript on stdout.

A process and not a thread, because the library holds the interpreter's lock for the whole of an utterance: 0.9 s in
which Ctrl-C and every other transfer would stand still (measured with pocketsphinx 5.1 on 11 s of speech). A process is
killed at once, and whatever the library prints goes nowhere. The parent runs this file by its path, therefore nothing
here is imported from the package.

An utterance is decoded as a whole, so that its own mean is subtracted from it: of 36 words of real speech 7 were wrong,
and 37 when the mean was estimated on the way. Memory holds one utterance, however long the recording is.
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

LONGEST_UTTERANCE_S = 15
# Where nobody pauses, the quietest moment within this much of the longest utterance is where it is cut.
CUT_WITHIN_S = 4
_QUIET_BYTES = BYTES_PER_SECOND * 30 // 1000

# Frames of the recogniser, 10 ms each. A quarter of a second of silence around an utterance mends its first and last
# words (9 wrong words of 36 in place of 16); more changes nothing.
_FRAMES_PER_SECOND = 100
_PADDING_FRAMES = 25
_SILENCE = bytes(BYTES_PER_SECOND * _PADDING_FRAMES // _FRAMES_PER_SECOND)

# Synthetic speech begins at once and is digitally silent where a person's room is not, and silence around it throws
# the recogniser off: "hello world" becomes "oh we're ill". With a breath of noise it is right; a real recording brings
# its own noise, and for it silence is better. The noise is always the same, so a recording always gives the same words.
_ABRUPT_PEAK = 300
_NOISE_AMPLITUDE = 4
_NOISE = array("h", Random(1).choices(range(-_NOISE_AMPLITUDE, _NOISE_AMPLITUDE + 1), k=len(_SILENCE) // 2)).tobytes()

# A sixth of the default: it takes two thirds of the time on noisy speech, and finds the same words.
_MOST_HYPOTHESES = 5_000


class Utterance(NamedTuple):
    """Samples between two pauses; `start` is their first byte's place in the recording."""

    start: int
    samples: bytes


class Clock:
    """Count the bytes that were read: the only trustworthy length of a recording."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.position = 0

    def read(self, size: int) -> bytes:
        samples = self._source.read(size)
        self.position += len(samples)
        return samples


def quietest(samples: bytes) -> int:
    """Find where to cut an utterance that is too long: the middle of the quietest 30 ms near its end, in bytes."""
    first = max(0, len(samples) - CUT_WITHIN_S * BYTES_PER_SECOND)
    first -= first % 2

    def loudness(start: int) -> int:
        return sum(abs(sample) for sample in array("h", samples[start : start + _QUIET_BYTES]))

    starts = range(first, len(samples) - _QUIET_BYTES, _QUIET_BYTES)
    return min(starts, key=loudness) + _QUIET_BYTES // 2


def utterances(source: Clock, endpointer: Any) -> Iterator[Utterance]:
    """Cut a recording where its speaker pauses, and where an utterance would become too long."""
    start, held = 0, bytearray()
    while frame := source.read(endpointer.frame_bytes):
        was_speaking = endpointer.in_speech
        if len(frame) == endpointer.frame_bytes:
            speech = endpointer.process(frame)
        else:
            speech = endpointer.end_stream(frame) if was_speaking else None
        if speech is not None:
            if not held:
                start = 2 * round(endpointer.speech_start * SAMPLE_RATE_HZ)
            held += speech
        if held and not endpointer.in_speech:
            yield Utterance(start, bytes(held))
            held.clear()
        elif len(held) >= LONGEST_UTTERANCE_S * BYTES_PER_SECOND:
            cut = quietest(bytes(held))
            yield Utterance(start, bytes(held[:cut]))
            del held[:cut]
            start += cut
    if held:
        yield Utterance(start, bytes(held))


def padding(utterance: Utterance) -> bytes:
    """Choose what to put around an utterance: noise if it opens in digital silence, or the recording with a bang."""
    opening = array("h", utterance.samples[: min(len(utterance.samples) // 2 * 2, 8 * _QUIET_BYTES)])
    step = _QUIET_BYTES // 2
    peaks = [max(map(abs, opening[at : at + step])) for at in range(0, len(opening), step)] or [0]
    return _NOISE if min(peaks) == 0 or (utterance.start == 0 and peaks[0] > _ABRUPT_PEAK) else _SILENCE


def words(utterance: Utterance, decoded: Iterable[Any]) -> list[dict[str, Any]]:
    """Place the words of one utterance in the recording; fillers and marks of pronunciation are left out."""
    first_s = utterance.start / BYTES_PER_SECOND
    last_s = first_s + len(utterance.samples) / BYTES_PER_SECOND

    def time_s(frame: int) -> float:
        return round(min(max(first_s + (frame - _PADDING_FRAMES) / _FRAMES_PER_SECOND, first_s), last_s), 3)

    return [
        {
            "word": re.sub(r"\(\d+\)$", "", segment.word),
            "start": time_s(segment.start_frame),
            "end": time_s(segment.end_frame + 1),
        }
        for segment in decoded
        if not segment.word.startswith(("<", "[", "+"))
    ]


def transcribe(source: BinaryIO) -> dict[str, Any]:
    """Write down samples (signed 16 bit, 16 kHz, mono) in the shape of OpenAI's verbose_json.

    A segment is an utterance. A recording without speech has an empty text and no segments.
    """
    from pocketsphinx import Decoder, Endpointer

    decoder = Decoder(samprate=SAMPLE_RATE_HZ, loglevel="FATAL", maxhmmpf=_MOST_HYPOTHESES)
    clock = Clock(source)
    segments: list[dict[str, Any]] = []
    all_words: list[dict[str, Any]] = []
    for utterance in utterances(clock, Endpointer(sample_rate=SAMPLE_RATE_HZ)):
        decoder.start_utt()
        around = padding(utterance)
        decoder.process_raw(around + utterance.samples + around, False, True)
        decoder.end_utt()
        if not (found := words(utterance, decoder.seg() or ())):
            continue
        text = " ".join(word["word"] for word in found)
        segments.append({"id": len(segments), "start": found[0]["start"], "end": found[-1]["end"], "text": text})
        all_words += found
    return {
        "task": "transcribe",
        "language": "en",
        "duration": clock.position / BYTES_PER_SECOND,
        "text": " ".join(segment["text"] for segment in segments),
        "segments": segments,
        "words": all_words,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(transcribe(sys.stdin.buffer)))
