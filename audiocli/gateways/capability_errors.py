"""Detect which feature of a request a model refuses, so that it is not requested again.

Features: `verbose_json`, `word` (word timestamps), `format:mp3` (of speech), `upload:ogg` (of a recording), `form` and
`json` (the body of a transcription request). `timestamps` is not refused in words: the model accepted the request for
timestamps, and its reply has none. `max_characters:2000`, `max_bytes:…` and `max_tokens:…` are lengths of a text that a
model has named as its maximum (`text_limits`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

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

# How messages name the fields of a request that are not features.
_FIELD_PATTERNS = {
    "diarize": r"diari[sz]|\bspeaker[ _]?labels?\b|\bchunking_strategy\b",
    "speakers": r"\b(?:known[ _])?speaker[ _]?(?:names?|references?)\b",
    "language": r"\blanguages?\b(?! models?\b)",
    "prompt": r"\bprompts?\b",
    "temperature": r"\btemperature\b",
    "stream": r"\bstream(?:ing|ed)?\b",
    "keyterms": r"\bkey[ _]?(?:terms?|words?)\b",
    "translate": r"\btranslat",
    "speed": r"\bspeed\b",
    "instructions": r"\binstructions?\b",
    "references": r"\b(?:input_)?references?\b",
    "voice": r"\bvoice\b(?! models?\b)",
    "system": r"\bsystem\b",
    "max_tokens": r"\bmax(?:imum)?[ _](?:completion[ _])?tokens\b",
}
# Both are about timestamps, and a model without the second one has not the first one either.
_TIMESTAMP_KINDS = frozenset({"word", "verbose_json"})


def find_refused_feature(error: AttemptError, features: Sequence[str]) -> str | None:
    """Return which of the requested features an error response refuses; None if it is about something else."""
    if error.status not in REFUSAL_STATUSES:
        return None
    message = _remove_supported_list(error.message)
    by_kind = {feature.partition(":")[0]: feature for feature in features}
    for kind, pattern in _PATTERNS:
        feature = by_kind.get(kind)
        if feature is None:
            continue
        if re.search(pattern.replace("{}", f"(?:{_match_format(feature)})"), message, re.IGNORECASE):
            return feature
    return None


def is_refused_in_combination(
    error: AttemptError, feature: str, features: Sequence[str], fields: Collection[str], model: str
) -> bool:
    """Return whether an error response names more of the request than the refused feature.

    The model may then accept the feature in another request: `prompt cannot be used with timestamps` says nothing about
    timestamps without a prompt.

    Args:
        error: The error response.
        feature: The refused feature, from `find_refused_feature`.
        features: All features of the request.
        fields: Other fields of the request: names in `_FIELD_PATTERNS`, and names of options.
        model: Name of the model, which may contain the name of a field.
    """
    message = _remove_supported_list(error.message).replace(model, "")
    return names_field(message, fields) or any(_names_feature(message, other, feature) for other in features)


def refuses_diarization(error: AttemptError, fields: Collection[str], model: str) -> bool:
    """Return whether an error response names the diarization that was requested."""
    message = _remove_supported_list(error.message).replace(model, "")
    return names_field(message, {"diarize", "speakers"} & set(fields))


def names_field(message: str, fields: Collection[str]) -> bool:
    """Return whether a message names one of these fields."""
    patterns = (_FIELD_PATTERNS.get(name, rf"(?<!\w){re.escape(name)}(?!\w)") for name in fields)
    return any(re.search(pattern, message, re.IGNORECASE) for pattern in patterns)


def _names_feature(message: str, other: str, feature: str) -> bool:
    """Return whether a message names a feature that has nothing to do with the refused one."""
    kind = other.partition(":")[0]
    if other == feature or {kind, feature.partition(":")[0]} == _TIMESTAMP_KINDS:
        return False
    pattern = rf"\b(?:{_match_format(other)})\b" if kind in ("format", "upload") else dict(_PATTERNS)[kind]
    return re.search(pattern, message, re.IGNORECASE) is not None


def _remove_supported_list(message: str) -> str:
    """Remove the formats that are listed as supported, because they are not the refused one."""
    return re.split(SUPPORTED_LIST_PATTERN, message)[0]


def _match_format(feature: str) -> str:
    """Return a pattern for the names of the format of a feature."""
    return "|".join(map(re.escape, FORMAT_SYNONYMS.get(feature, (feature.partition(":")[2],))))


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
