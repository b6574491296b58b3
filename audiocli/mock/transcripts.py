"""Mock transcripts: a text whose words are distributed evenly over the duration of the recording."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

DEFAULT_TRANSCRIPT = "The quick brown fox jumps over the lazy dog."

_TAGS = ("<|HAPPY|><|Speech|>", "<|NEUTRAL|><|BGM|>")

TimedWord: TypeAlias = tuple[str, float, float]
TimedSegment: TypeAlias = tuple[str, float, float]


@dataclass(frozen=True, slots=True)
class MockTranscript:
    """A transcript. Words and segments default to an even distribution over the recording, with a segment per sentence.

    `language` is the English name of the language.
    """

    text: str = DEFAULT_TRANSCRIPT
    words: Sequence[TimedWord] | None = None
    segments: Sequence[TimedSegment] | None = None
    language: str | None = "english"
    language_code: str | None = "en"

    def get_words(self, duration_s: float) -> list[TimedWord]:
        return list(self.words) if self.words is not None else expected_words(self.text, duration_s)

    def get_segments(self, duration_s: float) -> list[TimedSegment]:
        if self.segments is not None:
            return list(self.segments)
        if self.words is None:
            return expected_segments(self.text, duration_s)
        return [(self.text, self.words[0][1], self.words[-1][2])] if self.words else []


TranscriptFactory: TypeAlias = Callable[[bytes, float], "MockTranscript | str"]
"""Builds a transcript from the first megabyte of a recording and its duration in seconds."""


def expected_words(text: str, duration_s: float) -> list[TimedWord]:
    """Distribute words over the duration: (word, start_s, end_s), rounded to the millisecond."""
    words = text.split()
    count = len(words)
    return [
        (word, round(duration_s * index / count, 3), round(duration_s * (index + 1) / count, 3))
        for index, word in enumerate(words)
    ]


def expected_segments(text: str, duration_s: float) -> list[TimedSegment]:
    """Distribute sentences over the duration: (text, start_s, end_s)."""
    words = expected_words(text, duration_s)
    segments: list[TimedSegment] = []
    position = 0
    for sentence in re.split(r"(?<=[.!?])\s+", text.strip()):
        count = len(sentence.split())
        if count:
            segments.append((sentence, words[position][1], words[position + count - 1][2]))
        position += count
    return segments


def build_verbose_segments(segments: Sequence[TimedSegment]) -> list[dict[str, Any]]:
    """Return segments as Whisper does: with a leading space and the confidence of the recognition."""
    confidence = {"temperature": 0.0, "avg_logprob": -0.25, "compression_ratio": 0.9, "no_speech_prob": 0.01}
    return [
        {
            "id": index,
            "seek": 0,
            "start": start,
            "end": end,
            "text": f" {text}",
            "tokens": [50364 + index],
            **confidence,
        }
        for index, (text, start, end) in enumerate(segments)
    ]


def build_diarized_segments(segments: Sequence[TimedSegment], names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return segments with alternating speakers: the known names, then A and B; at least two."""
    speakers = (*names, *"AB")[: max(2, len(names))]
    return [
        {"type": "transcript.text.segment", "id": f"seg_{index:03}", "start": start, "end": end, "text": text,
         "speaker": speakers[index % len(speakers)]}
        for index, (text, start, end) in enumerate(segments)
    ]  # fmt: skip


def add_emotion_tags(transcript: MockTranscript, duration_s: float) -> MockTranscript:
    """Put tags of mood and sound in front of the text and of each segment, but not of words."""
    segments = [
        (_TAGS[index % len(_TAGS)] + text, start, end)
        for index, (text, start, end) in enumerate(transcript.get_segments(duration_s))
    ]
    return replace(
        transcript, text=_TAGS[0] + transcript.text, words=transcript.get_words(duration_s), segments=segments
    )


def render_srt(segments: Sequence[TimedSegment]) -> str:
    cues = (
        f"{number}\n{_format_time(start, ',')} --> {_format_time(end, ',')}\n{text}\n"
        for number, (text, start, end) in enumerate(segments, 1)
    )
    return "\n".join(cues) + "\n"


def render_vtt(segments: Sequence[TimedSegment]) -> str:
    return "WEBVTT\n\n" + "\n".join(
        f"{_format_time(start, '.')} --> {_format_time(end, '.')}\n{text}\n" for text, start, end in segments
    )


def _format_time(seconds: float, decimal_mark: str) -> str:
    milliseconds = round(seconds * 1000)
    hours, remainder = divmod(milliseconds, 3_600_000)
    minutes, remainder = divmod(remainder, 60_000)
    return f"{hours:02}:{minutes:02}:{remainder // 1000:02}{decimal_mark}{remainder % 1000:03}"
