"""What the double says that it heard: a text laid evenly over the true length of the recording."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

DEFAULT_TEXT = "The quick brown fox jumps over the lazy dog."

_TAGS = ("<|HAPPY|><|Speech|>", "<|NEUTRAL|><|BGM|>")

TimedWord: TypeAlias = tuple[str, float, float]
TimedSegment: TypeAlias = tuple[str, float, float]


@dataclass(frozen=True, slots=True)
class Said:
    """A transcript. Words and segments left out are laid evenly over the recording; a segment is a sentence.

    `language` is the English name; replies that want the code use `code`.
    """

    text: str = DEFAULT_TEXT
    words: Sequence[TimedWord] | None = None
    segments: Sequence[TimedSegment] | None = None
    language: str | None = "english"
    code: str | None = "en"

    def timed_words(self, duration_s: float) -> list[TimedWord]:
        return list(self.words) if self.words is not None else expected_words(self.text, duration_s)

    def timed_segments(self, duration_s: float) -> list[TimedSegment]:
        if self.segments is not None:
            return list(self.segments)
        if self.words is None:
            return expected_segments(self.text, duration_s)
        return [(self.text, self.words[0][1], self.words[-1][2])] if self.words else []


Hearing: TypeAlias = Callable[[bytes, float], "Said | str"]
"""Makes the transcript of the first megabyte of a recording and its true length in seconds."""


def expected_words(text: str, duration_s: float) -> list[TimedWord]:
    """Lay the words over the duration: (word, start_s, end_s), rounded to the millisecond."""
    words = text.split()
    count = len(words)
    return [
        (word, round(duration_s * at / count, 3), round(duration_s * (at + 1) / count, 3))
        for at, word in enumerate(words)
    ]


def expected_segments(text: str, duration_s: float) -> list[TimedSegment]:
    """Lay the sentences over the duration: (text, start_s, end_s)."""
    words = expected_words(text, duration_s)
    segments: list[TimedSegment] = []
    at = 0
    for sentence in re.split(r"(?<=[.!?])\s+", text.strip()):
        count = len(sentence.split())
        if count:
            segments.append((sentence, words[at][1], words[at + count - 1][2]))
        at += count
    return segments


def verbose_segments(segments: Sequence[TimedSegment]) -> list[dict[str, Any]]:
    """Write segments as Whisper does: a space before each text, and numbers about the recognition."""
    rest = {"temperature": 0.0, "avg_logprob": -0.25, "compression_ratio": 0.9, "no_speech_prob": 0.01}
    return [
        {"id": at, "seek": 0, "start": start, "end": end, "text": f" {text}", "tokens": [50364 + at], **rest}
        for at, (text, start, end) in enumerate(segments)
    ]


def diarized_segments(segments: Sequence[TimedSegment], names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Let at least two speakers take turns: those whose names are known, then A and B."""
    speakers = (*names, *"AB")[: max(2, len(names))]
    return [
        {"type": "transcript.text.segment", "id": f"seg_{at:03}", "start": start, "end": end, "text": text,
         "speaker": speakers[at % len(speakers)]}
        for at, (text, start, end) in enumerate(segments)
    ]  # fmt: skip


def tagged(said: Said, duration_s: float) -> Said:
    """Put a mood and a kind of sound in front of the text and of every segment; words stay bare."""
    segments = [
        (_TAGS[at % len(_TAGS)] + text, start, end)
        for at, (text, start, end) in enumerate(said.timed_segments(duration_s))
    ]
    return replace(said, text=_TAGS[0] + said.text, words=said.timed_words(duration_s), segments=segments)


def srt(segments: Sequence[TimedSegment]) -> str:
    cues = (
        f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{text}\n"
        for number, (text, start, end) in enumerate(segments, 1)
    )
    return "\n".join(cues) + "\n"


def vtt(segments: Sequence[TimedSegment]) -> str:
    return "WEBVTT\n\n" + "\n".join(
        f"{_clock(start, '.')} --> {_clock(end, '.')}\n{text}\n" for text, start, end in segments
    )


def _clock(seconds: float, mark: str) -> str:
    milliseconds = round(seconds * 1000)
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{mark}{rest % 1000:03}"
