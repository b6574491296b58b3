"""Speech with espeak-ng: prepares requests for its child process, `espeak_worker`, and turns failures into errors."""

from __future__ import annotations

import os
import re

from ..errors import AccessError, AudiocliError, UsageError
from ..gateways.local import DEFAULT_WORDS_PER_MINUTE, MIN_WORDS_PER_MINUTE, check_installed
from .child import Frame, build_failure_error, build_load_error

# The library stores the path of its data in 160 bytes and uses another path if it does not fit (measured with 1.52).
_MAX_PATH_BYTES = 159

# NUL would end the text, and U+0001 starts an embedded command (espeak-ng documentation).
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

# The library joins the parts of "a.b. c.d." to one word and copies it to a buffer of about 160 bytes without a check of
# its length (espeak-ng 1.52: 40 parts of 5 bytes crash the process). Without the dots it speaks the same letters.
_DOTTED_RUN = re.compile(r"(?:[^\s.]{1,6}\s*\.+\s*){8,}")
_DOTS_BEFORE_SPACE = re.compile(r"\.+(?=\s)")
_DOTS = re.compile(r"\.+")


def find_worker() -> tuple[str, str, str]:
    """Return the module of the child process and its arguments: the paths of the library and of its data.

    Raises:
        AccessError: The engine is not installed or is broken.
    """
    if (error := check_installed("espeak")) is not None:
        raise error
    try:
        import espeakng_loader

        library_path, directory = espeakng_loader.get_library_path(), espeakng_loader.get_data_path()
    except (ImportError, OSError, RuntimeError) as load_error:
        raise build_load_error("espeak", str(load_error)) from load_error
    if len(os.fsencode(directory)) > _MAX_PATH_BYTES:
        raise AccessError(
            f"the path of espeak's data directory is too long: {directory}",
            hint=f"install audiocli in a directory with a shorter path (at most {_MAX_PATH_BYTES} bytes)",
        )
    return "espeak_worker", library_path, directory


def build_speech_request(text: str, *, voice: str, speed: float | None) -> Frame:
    """Build the request that speaks a text. The audio is s16le, 22,050 Hz, mono."""
    words_per_minute = max(MIN_WORDS_PER_MINUTE, round(DEFAULT_WORDS_PER_MINUTE * (speed or 1)))
    content = clean_text(text).encode("utf-8", "ignore")
    voice_name = voice.replace("\0", " ").encode("utf-8", "replace")
    return Frame(b"S", b"%d\0%s\0%s" % (words_per_minute, voice_name, content))


def build_voices_request() -> Frame:
    """Build the request that lists the voices."""
    return Frame(b"V")


def clean_text(text: str) -> str:
    """Replace what the library cannot read: control characters, and long runs of dots."""
    return break_dotted_runs(_CONTROL_CHARACTERS.sub(" ", text))


def break_dotted_runs(text: str) -> str:
    """Replace the dots of long runs of short parts with spaces, or with commas where a space follows."""
    return _DOTTED_RUN.sub(lambda run: _DOTS.sub(" ", _DOTS_BEFORE_SPACE.sub(",", run.group())), text)


def build_error(frame: Frame) -> AudiocliError:
    """Build the error of a response that failed."""
    match frame.kind:
        case b"N":
            return UsageError("nothing in the text can be spoken by espeak")
        case b"U":
            kind, name, *names = frame.fields
            return _build_unknown_name_error(kind, name, names)
        case b"B":
            return build_load_error("espeak", frame.fields[0])
        case _:
            return build_failure_error("espeak", frame.fields[0])


def _build_unknown_name_error(kind: str, name: str, names: list[str]) -> UsageError:
    import difflib

    suggestions = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.3) or names[:3]
    return UsageError(f"unknown espeak {kind} {name!r}", hint=f"did you mean: {', '.join(suggestions)}?")
