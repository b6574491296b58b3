"""What a refusal teaches: which part of a request a model does not take, so that it is not sent again.

A feature is a word: `verbose_json`, `word` (times of words), `format:mp3` (of speech), `upload:ogg` (of a recording),
`form` or `json` (the body of a transcription).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import AttemptError

LISTED = r"(?i)\b(?:supported|allowed|accepted|valid) (?:audio |file )?(?:formats|types|values)\b"

# Opus goes up in a file that is called .ogg.
ALSO_CALLED = {"upload:opus": ("opus", "ogg"), "upload:ogg": ("ogg", "opus", "vorbis")}

STATUSES = frozenset({400, 415, 422})

# What a refusal says when it means this feature, in the order of certainty. `{}` is what stands behind the colon.
_SIGNS = (
    ("word", r"granularit|word.{0,30}timestamp|timestamp.{0,30}word"),
    ("verbose_json", r"verbose_json|response_format|timestamp"),
    ("format", r"response_format|\b(only|supports?|supported)\b.{0,40}\b(pcm|wav|mp3)\b|\bformat\b.{0,40}\b{}\b"),
    ("upload", r"format.{0,20}\b{}\b|\b{}\b.{0,40}(not supported|unsupported)|unsupported.{0,40}\b{}\b"),
    ("form", r"multipart|content[- ]type"),
    ("json", r"multipart|form data|form-data|content[- ]type"),
)


def lesson(error: AttemptError, features: Sequence[str]) -> str | None:
    """Tell which of the features that were asked for a refusal is about; None: it is about something else."""
    if error.status not in STATUSES:
        return None
    # What a gateway lists as supported was not refused.
    message = re.split(
        r"(?i)\b(?:supported|allowed|accepted|valid) (?:audio |file )?(?:formats|types|values)\b", error.message
    )[0]
    by_kind = {feature.partition(":")[0]: feature for feature in features}
    for kind, sign in _SIGNS:
        feature = by_kind.get(kind)
        if feature is None:
            continue
        names = "|".join(map(re.escape, ALSO_CALLED.get(feature, (feature.partition(":")[2],))))
        if re.search(sign.replace("{}", f"(?:{names})"), message, re.IGNORECASE):
            return feature
    return None


def in_words(feature: str) -> str:
    """Say what it means that a feature is refused."""
    kind, _, detail = feature.partition(":")
    return {
        "word": "no times of words",
        "verbose_json": "no verbose_json, so text without times",
        "format": f"no {detail}",
        "upload": f"takes no {detail}",
        "form": "no multipart uploads",
        "json": "no JSON uploads",
    }.get(kind, feature)
