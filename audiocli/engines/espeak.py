"""Speak text with libespeak-ng, called through ctypes from the wheel `espeakng_loader`.

The library is one global state for the whole process, therefore one text is spoken at a time (`_Turns`). It releases
the interpreter's lock while it works and hands over 0.2 s of sound at a time, so it can be left within milliseconds.
Everything here blocks: `engines` runs it in a thread.
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
from ..gateways.local import NORMAL_WORDS_PER_MINUTE, SLOWEST_WORDS_PER_MINUTE, missing

SAMPLE_RATE_HZ = 22_050

_BUFFER_MS = 200
_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS
_DO_NOT_EXIT = 0x8000  # espeakINITIALIZE_DONT_EXIT; without it the library ends the process when data is missing
_RATE = 1  # espeakRATE
_UTF8 = 1  # espeakCHARS_UTF8, and neither espeakSSML nor espeakPHONEMES: the text is text

# The library keeps the path of its data in 160 bytes and looks elsewhere when it does not fit (measured with 1.52).
_LONGEST_PATH_BYTES = 159

# NUL would end the text, and U+0001 begins a command to the synthesiser (embedded commands, espeak-ng documentation).
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

_ON_SOUND = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class _Voice(ctypes.Structure):
    """espeak_VOICE of speak_lib.h; `languages` is a list of (priority byte, text, NUL), ended by a zero priority."""

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


class _Turns:
    """Let one text be spoken at a time, over all threads and event loops of the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: set[object] = set()

    def awaited(self) -> bool:
        """Tell whether another text waits for its turn."""
        return bool(self._waiting)

    @contextmanager
    def turn(self, gone: Callable[[], bool]) -> Iterator[bool]:
        """Wait for a turn; give False when the caller has gone before it came."""
        ticket = object()
        self._waiting.add(ticket)
        try:
            while not (mine := self._lock.acquire(timeout=0.02)) and not gone():
                pass
        finally:
            self._waiting.discard(ticket)
        try:
            yield mine
        finally:
            if mine:
                self._lock.release()


_turns = _Turns()
awaited = _turns.awaited


@cache
def _library() -> ctypes.CDLL:
    """Load and start the library, once per process; 5 ms. Call it in a turn only."""
    if (error := missing("espeak")) is not None:
        raise error
    hint = 'pip install --force-reinstall "audiocli[local]"'
    try:
        import espeakng_loader

        folder = os.fsencode(espeakng_loader.get_data_path())
        library = ctypes.CDLL(espeakng_loader.get_library_path())
    except (ImportError, OSError, RuntimeError) as error:
        raise AccessError(f"the local engine espeak cannot be loaded: {error}", hint=hint) from error
    if len(folder) > _LONGEST_PATH_BYTES:
        raise AccessError(
            f"espeak's data lies too deep, in {os.fsdecode(folder)}",
            hint=f"install audiocli in a folder with a shorter name; the limit is {_LONGEST_PATH_BYTES} bytes",
        )
    library.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
    library.espeak_ListVoices.argtypes = [ctypes.c_void_p]
    library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
    library.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
    library.espeak_SetParameter.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int]
    library.espeak_SetSynthCallback.argtypes = [_ON_SOUND]
    library.espeak_Synth.argtypes = [
        ctypes.c_char_p,
        ctypes.c_size_t,
        *[ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint],  # position, its type, end, flags
        *[ctypes.c_void_p, ctypes.c_void_p],
    ]
    if library.espeak_Initialize(_SYNCHRONOUS, _BUFFER_MS, folder, _DO_NOT_EXIT) != SAMPLE_RATE_HZ:
        raise AccessError("the local engine espeak cannot read its data", hint=hint)
    return library


def _languages(voice: _Voice) -> Iterator[tuple[int, str]]:
    """Read the languages of a voice as (priority, tag); the lowest number is the most preferred."""
    at = voice.languages or 0
    while at and (priority := ctypes.string_at(at, 1)[0]):
        tag = ctypes.string_at(at + 1)
        yield priority, tag.decode("utf-8", "replace")
        at += 2 + len(tag)


def _has_dictionary(folder: Path, identifier: str, language: str) -> bool:
    """Tell whether a voice can speak: three of the wheel's voices have no dictionary, and would say nothing."""
    try:
        definition = (folder / "lang" / identifier).read_text("utf-8", "replace")
    except OSError:
        return True
    named = re.search(r"^dictionary\s+(\S+)", definition, re.MULTILINE)
    return (folder / f"{named.group(1) if named else language.split('-')[0]}_dict").exists()


@cache
def _voices() -> dict[str, str]:
    """Map language tags to the name of the voice that prefers them most. Call it in a turn only."""
    library = _library()
    import espeakng_loader

    folder = Path(espeakng_loader.get_data_path())
    claims: list[tuple[int, str, str]] = []
    listed = library.espeak_ListVoices(None)
    index = 0
    while listed[index]:
        voice = listed[index].contents
        identifier, languages = voice.identifier.decode("utf-8", "replace"), list(_languages(voice))
        if languages and _has_dictionary(folder, identifier, languages[0][1]):
            claims += [(priority, tag, identifier) for priority, tag in languages]
        index += 1
    names: dict[str, str] = {}
    for _, tag, identifier in sorted(claims, key=lambda claim: claim[0]):
        names.setdefault(tag.lower(), identifier)
    return names


@cache
def _variants() -> dict[str, str]:
    """Map the names of the variants (`f3`, `whisper`) in lower case to their files' names."""
    import espeakng_loader

    folder = Path(espeakng_loader.get_data_path()) / "voices" / "!v"
    return {path.name.lower(): path.name for path in folder.iterdir()} if folder.is_dir() else {}


def _pick(name: str, known: dict[str, str], what: str) -> str:
    if (found := known.get(name.strip().lower().replace("_", "-"))) is not None:
        return found
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.3) or sorted(known)[:3]
    raise UsageError(f"espeak has no {what} {name}", hint=f"the nearest are: {', '.join(near)}")


def _voice_name(asked: str) -> bytes:
    """Turn `en-us` or `en-us+f3` into the library's name, checked: it passes over a wrong variant in silence."""
    language, plus, variant = asked.partition("+")
    name = _pick(language, _voices(), "voice")
    return (f"{name}+{_pick(variant, _variants(), 'variant')}" if plus else name).encode()


def voices(gone: Callable[[], bool]) -> tuple[str, ...]:
    """Name every voice by its language. Raises: AccessError: the engine is not installed or broken."""
    with _turns.turn(gone) as mine:
        return tuple(sorted(_voices())) if mine else ()


def speak(
    text: str, *, voice: str, speed: float | None, emit: Callable[[bytes], bool], gone: Callable[[], bool]
) -> None:
    """Speak a text and hand over its sound as it is made: signed 16 bit, 22,050 Hz, mono.

    `emit` takes a chunk and answers False when nobody wants more; `gone` answers the same while waiting for a turn.

    Raises: UsageError: unknown voice, or nothing in the text makes a sound. AccessError: not installed, or broken.
    """
    content = _CONTROLS.sub(" ", text).encode("utf-8", "ignore")
    rate = max(SLOWEST_WORDS_PER_MINUTE, round(NORMAL_WORDS_PER_MINUTE * (speed or 1)))
    silent_bytes, heard, left = 0, False, False

    # Silence is held back until there is a sound, because an empty text gives 7 ms of it.
    def on_sound(samples: int | None, count: int, events: int | None) -> int:
        nonlocal silent_bytes, heard, left
        chunk = ctypes.string_at(samples, 2 * count) if samples and count > 0 else b""
        if not heard and not any(chunk):
            silent_bytes += len(chunk)
            left = gone()
        elif chunk:
            left = not emit(chunk if heard else bytes(silent_bytes) + chunk)
            heard = True
        return int(left)

    with _turns.turn(gone) as mine:
        if not mine:
            return
        library = _library()
        if library.espeak_SetVoiceByName(_voice_name(voice)) != 0:
            raise InvalidResponse(f"espeak cannot load its voice {voice}")
        library.espeak_SetParameter(_RATE, rate, 0)
        callback = _ON_SOUND(on_sound)  # the name keeps it alive until the library is done with it
        library.espeak_SetSynthCallback(callback)
        status = library.espeak_Synth(content, len(content) + 1, 0, 1, 0, _UTF8, None, None)
    if left:
        return
    if status != 0:
        raise InvalidResponse(f"espeak broke off (its error {status})")
    if not heard:
        raise UsageError("nothing in the text that espeak can speak")
