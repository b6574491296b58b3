"""Speak text with libespeak-ng, called through ctypes from the package `espeakng_loader`.

The library has one global state per process, so it speaks one text at a time (`_EngineLock`). It releases the GIL while
it works and returns 0.2 s of audio at a time, so it can be cancelled within milliseconds. All functions block:
`engines` runs them in a thread.
"""

from __future__ import annotations

import ctypes
import difflib
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from ..errors import AccessError, InvalidResponse, UsageError
from ..gateways.local import DEFAULT_WORDS_PER_MINUTE, MIN_WORDS_PER_MINUTE, check_installed

SAMPLE_RATE_HZ = 22_050

_BUFFER_MS = 200
_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS
_DONT_EXIT = 0x8000  # espeakINITIALIZE_DONT_EXIT; without it the library exits the process if data is missing
_RATE = 1  # espeakRATE
_UTF8 = 1  # espeakCHARS_UTF8 without espeakSSML and espeakPHONEMES: plain text

# The library stores the path of its data in 160 bytes and uses another path if it does not fit (measured with 1.52).
_MAX_PATH_BYTES = 159

# NUL would end the text, and U+0001 starts an embedded command (espeak-ng documentation).
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

# The library joins the parts of "a.b. c.d." to one word and copies it to a buffer of about 160 bytes without a check of
# its length (espeak-ng 1.52: 40 parts of 5 bytes crash the process). Without the dots it speaks the same letters.
_DOTTED_RUN = re.compile(r"(?:[^\s.]{1,6}\s*\.+\s*){8,}")
_DOTS_BEFORE_SPACE = re.compile(r"\.+(?=\s)")
_DOTS = re.compile(r"\.+")

_SYNTH_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class _Voice(ctypes.Structure):
    """`espeak_VOICE` of speak_lib.h. `languages` is a list of (priority byte, text, NUL), ended by a zero priority."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("reserved", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


class _EngineLock:
    """Serialize speech over all threads and event loops of the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: set[object] = set()

    def has_waiters(self) -> bool:
        """Return whether another text waits for the engine."""
        return bool(self._waiting)

    @contextmanager
    def acquire(self, is_cancelled: Callable[[], bool]) -> Iterator[bool]:
        """Wait for the engine. Yield False if the caller was cancelled first."""
        ticket = object()
        self._waiting.add(ticket)
        try:
            while not (acquired := self._lock.acquire(timeout=0.02)) and not is_cancelled():
                pass
        finally:
            self._waiting.discard(ticket)
        try:
            yield acquired
        finally:
            if acquired:
                self._lock.release()


_engine_lock = _EngineLock()
has_waiters = _engine_lock.has_waiters


@cache
def _load_library() -> ctypes.CDLL:
    """Load and initialize the library, once per process (5 ms). Call it with the lock held."""
    if (error := check_installed("espeak")) is not None:
        raise error
    hint = 'pip install --force-reinstall "audiocli[local]"'
    try:
        import espeakng_loader

        directory = os.fsencode(espeakng_loader.get_data_path())
        library = ctypes.CDLL(espeakng_loader.get_library_path())
    except (ImportError, OSError, RuntimeError) as error:
        raise AccessError(f"cannot load the local engine espeak: {error}", hint=hint) from error
    if len(directory) > _MAX_PATH_BYTES:
        raise AccessError(
            f"the path of espeak's data directory is too long: {os.fsdecode(directory)}",
            hint=f"install audiocli in a directory with a shorter path (at most {_MAX_PATH_BYTES} bytes)",
        )
    library.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
    library.espeak_ListVoices.argtypes = [ctypes.c_void_p]
    library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
    library.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
    library.espeak_SetParameter.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int]
    library.espeak_SetSynthCallback.argtypes = [_SYNTH_CALLBACK]
    library.espeak_Synth.argtypes = [
        ctypes.c_char_p,
        ctypes.c_size_t,
        *[ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint],  # position, its type, end, flags
        *[ctypes.c_void_p, ctypes.c_void_p],
    ]
    if library.espeak_Initialize(_SYNCHRONOUS, _BUFFER_MS, directory, _DONT_EXIT) != SAMPLE_RATE_HZ:
        raise AccessError("the local engine espeak cannot read its data", hint=hint)
    return library


def _read_languages(voice: _Voice) -> Iterator[tuple[int, str]]:
    """Yield the languages of a voice as (priority, tag). The lowest number is the most preferred."""
    address = voice.languages or 0
    while address and (priority := ctypes.string_at(address, 1)[0]):
        tag = ctypes.string_at(address + 1)
        yield priority, tag.decode("utf-8", "replace")
        address += 2 + len(tag)


def _has_dictionary(directory: Path, identifier: str, language: str) -> bool:
    """Return whether a voice has a dictionary. Three voices of the package have none and would be silent."""
    try:
        definition = (directory / "lang" / identifier).read_text("utf-8", "replace")
    except OSError:
        return True
    match = re.search(r"^dictionary\s+(\S+)", definition, re.MULTILINE)
    return (directory / f"{match.group(1) if match else language.split('-')[0]}_dict").exists()


@cache
def _load_voices() -> dict[str, str]:
    """Map language tags to the name of the voice that prefers them most. Call it with the lock held."""
    library = _load_library()
    import espeakng_loader

    directory = Path(espeakng_loader.get_data_path())
    candidates: list[tuple[int, str, str]] = []
    voices = library.espeak_ListVoices(None)
    index = 0
    while voices[index]:
        voice = voices[index].contents
        identifier, languages = voice.identifier.decode("utf-8", "replace"), list(_read_languages(voice))
        if languages and _has_dictionary(directory, identifier, languages[0][1]):
            candidates += [(priority, tag, identifier) for priority, tag in languages]
        index += 1
    names: dict[str, str] = {}
    for _, tag, identifier in sorted(candidates, key=lambda candidate: candidate[0]):
        names.setdefault(tag.lower(), identifier)
    return names


@cache
def _load_variants() -> dict[str, str]:
    """Map the lower-case names of the variants (`f3`, `whisper`) to their file names."""
    import espeakng_loader

    directory = Path(espeakng_loader.get_data_path()) / "voices" / "!v"
    return {path.name.lower(): path.name for path in directory.iterdir()} if directory.is_dir() else {}


def _find_name(name: str, names: dict[str, str], kind: str) -> str:
    if (match := names.get(name.strip().lower().replace("_", "-"))) is not None:
        return match
    suggestions = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.3) or sorted(names)[:3]
    raise UsageError(f"unknown espeak {kind} {name!r}", hint=f"did you mean: {', '.join(suggestions)}?")


def _resolve_voice(requested: str) -> bytes:
    """Return the library's name for `en-us` or `en-us+f3`. The library ignores unknown variants silently."""
    language, separator, variant = requested.partition("+")
    name = _find_name(language, _load_voices(), "voice")
    return (f"{name}+{_find_name(variant, _load_variants(), 'variant')}" if separator else name).encode()


def list_voices(is_cancelled: Callable[[], bool]) -> tuple[str, ...]:
    """Return the language tag of every voice, or () if cancelled.

    Raises:
        AccessError: The engine is not installed or is broken.
    """
    with _engine_lock.acquire(is_cancelled) as acquired:
        return tuple(sorted(_load_voices())) if acquired else ()


def _break_dotted_runs(text: str) -> str:
    """Replace the dots of long runs of short parts with spaces, or with commas where a space follows."""
    return _DOTTED_RUN.sub(lambda run: _DOTS.sub(" ", _DOTS_BEFORE_SPACE.sub(",", run.group())), text)


def speak(
    text: str, *, voice: str, speed: float | None, emit: Callable[[bytes], bool], is_cancelled: Callable[[], bool]
) -> None:
    """Speak a text, and pass the audio to `emit` as it is generated: s16le, 22,050 Hz, mono.

    `emit` returns False if the reader has stopped. `is_cancelled` is checked while waiting for the engine.

    Raises:
        UsageError: Unknown voice, or the text contains nothing that can be spoken.
        AccessError: The engine is not installed or is broken.
        InvalidResponse: The engine failed.
    """
    content = _break_dotted_runs(_CONTROL_CHARACTERS.sub(" ", text)).encode("utf-8", "ignore")
    words_per_minute = max(MIN_WORDS_PER_MINUTE, round(DEFAULT_WORDS_PER_MINUTE * (speed or 1)))
    silent_bytes, has_audio, was_cancelled = 0, False, False

    # Silence is held back until audio follows, because an empty text yields 7 ms of it.
    def on_audio(samples: int | None, count: int, events: int | None) -> int:
        nonlocal silent_bytes, has_audio, was_cancelled
        block = ctypes.string_at(samples, 2 * count) if samples and count > 0 else b""
        if not has_audio and not any(block):
            silent_bytes += len(block)
            was_cancelled = is_cancelled()
        elif block:
            was_cancelled = not emit(block if has_audio else bytes(silent_bytes) + block)
            has_audio = True
        return int(was_cancelled)

    with _engine_lock.acquire(is_cancelled) as acquired:
        if not acquired:
            return
        library = _load_library()
        if library.espeak_SetVoiceByName(_resolve_voice(voice)) != 0:
            raise InvalidResponse(f"espeak cannot load voice {voice!r}")
        library.espeak_SetParameter(_RATE, words_per_minute, 0)
        callback = _SYNTH_CALLBACK(on_audio)  # keep a reference until the library returns
        library.espeak_SetSynthCallback(callback)
        status = library.espeak_Synth(content, len(content) + 1, 0, 1, 0, _UTF8, None, None)
    if was_cancelled:
        return
    if status != 0:
        raise InvalidResponse(f"espeak failed (error {status})")
    if not has_audio:
        raise UsageError("nothing in the text can be spoken by espeak")
