"""The texts that the mock gateway has spoken, so that it can transcribe its own speech."""

from __future__ import annotations

import hashlib
import re
import threading
from collections import OrderedDict

from ..audio.wav import WAV_PROBE_BYTES, InvalidWav, parse_wav_header

# Speech is recognized by its beginning and its length.
PREFIX_BYTES = 256 * 1024
MAX_TEXTS = 10_000


class SpokenTexts:
    """Remembers texts by their samples, which are the same for the same text. Used by several threads."""

    def __init__(self) -> None:
        self._texts: OrderedDict[tuple[bytes, int], str] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, text: str, samples: bytes) -> None:
        """Remember the text of samples. After `MAX_TEXTS`, the oldest one is forgotten."""
        with self._lock:
            self._texts[_identify(samples, len(samples))] = text
            if len(self._texts) > MAX_TEXTS:
                self._texts.popitem(last=False)

    def find(self, prefix: bytes, size_bytes: int) -> str | None:
        """Return the text of a WAV file, given the beginning and the size of the file; None if it is unknown."""
        try:
            header = parse_wav_header(prefix[:WAV_PROBE_BYTES])
        except InvalidWav:
            return None
        if header is None:
            return None
        with self._lock:
            return self._texts.get(_identify(prefix[header.data_offset :], size_bytes - header.data_offset))


def alter_text(text: str, kind: str) -> str:
    """Return what `faults.WrongSpeech` of a kind speaks in place of a text."""
    if kind == "truncate":
        words = text.split()
        return " ".join(words[: max(1, 2 * len(words) // 3)])
    sentences = re.split(r"(?<=[.!?])\s+", text.strip())
    middle = len(sentences) // 2
    before, sentence, after = sentences[:middle], sentences[middle], sentences[middle + 1 :]
    if kind == "drop":
        sentences = [*before, *after]
    elif kind == "double":
        sentences = [*before, sentence, sentence, *after]
    else:
        sentences = [*before[:-1], sentence, *before[-1:], *after]
    return " ".join(sentences) or sentence.split()[0]


def _identify(samples: bytes, size_bytes: int) -> tuple[bytes, int]:
    return hashlib.sha256(samples[:PREFIX_BYTES]).digest(), size_bytes
