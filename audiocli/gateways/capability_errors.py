"""Detect which feature of a request a model refuses, so that it is not requested again.

Features: `verbose_json`, `word` (word timestamps), `format:mp3` (of speech), `upload:ogg` (of a recording), `form` and
`json` (the body of a transcription request). `timestamps` is not refused in words: the model accepted the request for
timestamps, and its reply has none. `max_characters:2000`, `max_bytes:…` and `max_tokens:…` are lengths of a text that a
model has named as its maximum (`text_limits`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import AttemptError

SUPPORTED_LIST_PATTERN = r"(?i)\b(?:supported|allowed|accepted|valid) (?:audio |file )?(?:formats|types|values)\b"

# A model without one of these features returns no timestamps.
NO_TIMESTAMPS = frozenset({"verbose_json", "timestamps"})

# Opus is uploaded as an .ogg file.
FORMAT_SYNONYMS = {"upload:opus": ("opus", "ogg"), "upload:ogg": ("ogg", "opus", "vorbis")}

REFUSAL_STATUSES = frozenset({400, 415, 422})
# OpenRouter, when a provider refuses a recording without a reason (2026-11).
UNEXPLAINED_REFUSAL_PATTERN = r"(?i)\bprovider returned 400\b"

# Message patterns for each kind of feature, most specific first. `{}` is replaced by the format.
_PATTERNS = (
    ("word", r"granularit|word.{0,30}timestamp|timestamp.{0,30}word"),
    ("verbose_json", r"verbose_json|response_format|timestamp"),
    ("format", r"response_format|\b(only|supports?|supported)\b.{0,40}\b(pcm|wav|mp3)\b|\bformat\b.{0,40}\b{}\b"),
    ("upload", r"format.{0,20}\b{}\b|\b{}\b.{0,40}(not supported|unsupported)|unsupported.{0,40}\b{}\b"),
    ("form", r"multipart|content[- ]type"),
    ("json", r"multipart|form data|form-data|content[- ]type"),
)


def find_refused_feature(error: AttemptError, features: Sequence[str]) -> str | None:
    """Return which of the requested features an error response refuses; None if it is about something else."""
    if error.status not in REFUSAL_STATUSES:
        return None
    # Formats that are listed as supported are not the refused one.
    message = re.split(SUPPORTED_LIST_PATTERN, error.message)[0]
    by_kind = {feature.partition(":")[0]: feature for feature in features}
    for kind, pattern in _PATTERNS:
        feature = by_kind.get(kind)
        if feature is None:
            continue
        names = "|".join(map(re.escape, FORMAT_SYNONYMS.get(feature, (feature.partition(":")[2],))))
        if re.search(pattern.replace("{}", f"(?:{names})"), message, re.IGNORECASE):
            return feature
    return None


def may_refuse_recording_format(error: AttemptError) -> bool:
    """Return whether an error response may be due to the format of the recording, which it does not name."""
    return error.status in REFUSAL_STATUSES and (
        error.status == 415
        or error.code == "audio_rejected"
        or re.search(UNEXPLAINED_REFUSAL_PATTERN, error.message) is not None
    )


def describe_refusal(feature: str) -> str:
    """Return a phrase that describes a refused feature."""
    kind, _, detail = feature.partition(":")
    return {
        "word": "no word timestamps",
        "verbose_json": "no verbose_json, so no timestamps",
        "timestamps": "no timestamps in its replies",
        "format": f"no {detail}",
        "upload": f"no {detail} uploads",
        "form": "no multipart uploads",
        "json": "no JSON uploads",
        "max_characters": f"at most {detail} characters of text",
        "max_bytes": f"at most {detail} bytes of text",
        "max_tokens": f"at most {detail} tokens of text",
    }.get(kind, feature)
