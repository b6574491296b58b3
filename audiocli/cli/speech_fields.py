"""Parse options of `speak`: the turns of `--option input=JSON` and the recordings of `--reference`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError

if TYPE_CHECKING:
    from ..types.json import Json
    from ..types.requests import VoiceReference

# OpenRouter's limits (official Python client 1.3.84, and its guide of 2026-08 for the text).
MAX_REFERENCES = 3
MAX_REFERENCE_BYTES = 15 * 1024 * 1024
MAX_TRANSCRIPT_CHARACTERS = 10_000

_TURNS_HINT = """expected --option 'input=[{"text": "…", "voice": "…", "instructions": "…"}, …]'"""


def parse_turns(pairs: Sequence[str]) -> tuple[tuple[dict[str, Json], ...], list[str]]:
    """Return the turns of `--option input=JSON`, and the other pairs of `--option`.

    A value of `input` that is not a JSON list is left in the pairs.

    Raises:
        UsageError: An item of the list is not a turn, or none of them has a text to speak.
    """
    import json

    turns: list[dict[str, Json]] = []
    others = []
    for pair in pairs:
        name, _, text = pair.partition("=")
        if name != "input" or not text.lstrip().startswith("["):
            others.append(pair)
            continue
        try:
            turns = json.loads(text)
        except ValueError as error:
            raise UsageError(f"--option input is not valid JSON: {error}", hint=_TURNS_HINT) from error
        _check_turns(turns)
    return tuple(turns), others


def _check_turns(turns: Sequence[object]) -> None:
    from ..text.speech_rate import has_speakable_text

    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, dict) or not isinstance(turn.get("text"), str):
            raise UsageError(f"--option input: turn {number} has no text", hint=_TURNS_HINT)
        for name, value in turn.items():
            if name not in ("text", "voice", "instructions"):
                raise UsageError(f"--option input: turn {number} has an unknown field {name!r}", hint=_TURNS_HINT)
            if not isinstance(value, str):
                raise UsageError(f"--option input: {name} of turn {number} is not a string", hint=_TURNS_HINT)
    if not any(isinstance(turn, dict) and has_speakable_text(str(turn["text"])) for turn in turns):
        raise UsageError("no text to speak", hint=_TURNS_HINT)


def parse_references(values: Sequence[str] | None) -> tuple[VoiceReference, ...]:
    """Parse `PATH` or `PATH=TRANSCRIPT` of `--reference`. A path of an existing file may contain `=`.

    Raises:
        UsageError: Too many recordings, or one that cannot be read, is too large, or is not audio.
    """
    if not values:
        return ()
    if len(values) > MAX_REFERENCES:
        raise UsageError(f"--reference: at most {MAX_REFERENCES} recordings are supported")
    return tuple(map(_parse_reference, values))


def _parse_reference(value: str) -> VoiceReference:
    import hashlib

    from ..audio import formats
    from ..types.requests import VoiceReference
    from .options import validate_utf8

    name, equals, transcript = (value, "", "") if Path(value).is_file() else value.partition("=")
    if not name:
        raise UsageError(f"--reference {value}: expected PATH or PATH=TRANSCRIPT")
    validate_utf8(transcript, "--reference")
    if len(transcript) > MAX_TRANSCRIPT_CHARACTERS:
        raise UsageError(f"--reference {name}: the transcript has more than {MAX_TRANSCRIPT_CHARACTERS:,} characters")
    path = Path(name)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_REFERENCE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}") from error
    if len(content) > MAX_REFERENCE_BYTES:
        raise UsageError(f"--reference {name}: larger than 15 MiB", hint="a few seconds of the voice are enough")
    format = formats.sniff_format(content)
    if format is None:
        raise UsageError(f"{name} is not a recognized audio file")
    sha256 = hashlib.sha256(content).hexdigest()
    return VoiceReference(path, len(content), format.name, sha256, transcript if equals and transcript else None)
