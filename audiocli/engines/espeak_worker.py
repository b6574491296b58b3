"""Speak text with libespeak-ng, called through ctypes: the child process of `engines.espeak`.

This is a process and not a thread, because the library has crashed on plain text (espeak-ng 1.52). A crash must not
end the command, and a process can be killed immediately. The parent starts it without `site` and with the paths of the
library and of its data as arguments. It imports only the standard library, and little of it, to start quickly.

Messages on stdin and stdout are frames: one byte for the kind, four for the length of the content (big-endian), and
the content. Fields of a content are separated by NUL. Requests, one at a time:

    S   speak: words per minute, voice, text (UTF-8)
    V   list the voices

Responses end with E or with a failure:

    A   audio: s16le, 22,050 Hz, mono
    L   the language tags of the voices
    E   end of a successful response
    N   nothing in the text can be spoken
    U   unknown voice: "voice" or "variant", the name, the known names
    F   the engine failed: the reason
    B   the engine is broken: the reason; the process exits

The process exits at the end of stdin, also while it speaks, so it does not outlive its parent.
"""

from __future__ import annotations

import _thread
import ctypes
import os
import sys
from _queue import SimpleQueue

TYPE_CHECKING = False  # type checkers read it as True; importing `typing` and `collections` takes 4 ms
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

SAMPLE_RATE_HZ = 22_050
HEADER_BYTES = 5

_BUFFER_MS = 200
# Audio after the first block is written in frames of at least this size: fewer writes, and fewer steps of the parent.
_FRAME_BYTES = 32 * 1024
_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS
_DONT_EXIT = 0x8000  # espeakINITIALIZE_DONT_EXIT; without it the library exits the process if data is missing
_RATE = 1  # espeakRATE
_IPA = 2  # phoneme mode: names of the International Phonetic Alphabet in UTF-8
_UTF8 = 1  # espeakCHARS_UTF8 without espeakSSML and espeakPHONEMES: plain text

_SYNTH_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class BrokenEngine(Exception):
    """The library or its data cannot be used. Every request would fail."""


class RequestFailed(Exception):
    """A request failed. `kind` is the kind of its frame, and `fields` are the content."""

    def __init__(self, kind: bytes, *fields: str) -> None:
        super().__init__(kind, *fields)
        self.kind = kind
        self.fields = fields


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


class FrameWriter:
    """Write frames to a descriptor. The process exits if the parent no longer reads."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, kind: bytes, content: bytes = b"") -> None:
        view = memoryview(kind + len(content).to_bytes(4, "big") + content)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError:
            os._exit(0)

    def write_fields(self, kind: bytes, *fields: str) -> None:
        self.write(kind, "\0".join(fields).encode("utf-8", "replace"))


class Engine:
    """The library, which has one global state: one voice and one text at a time."""

    def __init__(self, library_path: str, data_directory: str) -> None:
        """Load the library, its data and the list of its voices (5 ms). Raises: BrokenEngine."""
        self._data_directory = data_directory
        try:
            library = ctypes.CDLL(library_path)
        except OSError as error:
            raise BrokenEngine(str(error)) from error
        library.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
        library.espeak_ListVoices.argtypes = [ctypes.c_void_p]
        library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
        library.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
        library.espeak_SetParameter.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int]
        library.espeak_TextToPhonemes.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_int, ctypes.c_int]
        library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        library.espeak_SetSynthCallback.argtypes = [_SYNTH_CALLBACK]
        library.espeak_Synth.argtypes = [
            ctypes.c_char_p,
            ctypes.c_size_t,
            *[ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint],  # position, its type, end, flags
            *[ctypes.c_void_p, ctypes.c_void_p],
        ]
        if (
            library.espeak_Initialize(_SYNCHRONOUS, _BUFFER_MS, os.fsencode(data_directory), _DONT_EXIT)
            != SAMPLE_RATE_HZ
        ):
            raise BrokenEngine("its data cannot be read")
        self._library = library
        self._voices = self._load_voices()
        self._dictionaries: dict[str, bool] = {}
        self._voice_names: dict[str, bytes] = {}

    def list_voices(self) -> list[str]:
        """Return the language tags that have a usable voice, in lower case."""
        return sorted(
            {
                tag.lower()
                for _, tag, identifier, main_language in self._voices
                if self._has_dictionary(identifier, main_language)
            }
        )

    def speak(self, text: bytes, voice: str, words_per_minute: int, output: FrameWriter) -> None:
        """Speak a text, and write the audio as it is generated. Raises: RequestFailed."""
        self.select_voice(voice)
        self._library.espeak_SetParameter(_RATE, words_per_minute, 0)
        # Silence is held back until audio follows, because an empty text yields 7 ms of it.
        pending, silent_bytes, has_audio = bytearray(), 0, False

        def on_audio(samples: int | None, count: int, events: int | None) -> int:
            nonlocal silent_bytes, has_audio
            block = ctypes.string_at(samples, 2 * count) if samples and count > 0 else b""
            if not has_audio and not any(block):
                silent_bytes += len(block)
            elif not has_audio:
                output.write(b"A", bytes(silent_bytes) + block)
                has_audio = True
            else:
                pending.extend(block)
                if len(pending) >= _FRAME_BYTES:
                    output.write(b"A", bytes(pending))
                    pending.clear()
            return 0

        callback = _SYNTH_CALLBACK(on_audio)  # keep a reference until the library returns
        self._library.espeak_SetSynthCallback(callback)
        status = self._library.espeak_Synth(text, len(text) + 1, 0, 1, 0, _UTF8, None, None)
        if pending:
            output.write(b"A", bytes(pending))
        if status != 0:
            raise RequestFailed(b"F", f"error {status}")
        if not has_audio:
            raise RequestFailed(b"N")

    def select_voice(self, voice: str) -> None:
        """Select the voice of the next texts. Raises: RequestFailed."""
        if self._library.espeak_SetVoiceByName(self._resolve_voice(voice)) != 0:
            raise RequestFailed(b"F", f"cannot load voice {voice!r}")

    def convert_to_phonemes(self, text: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the phonemes of each clause of a text in IPA, and the text that was read for it."""
        buffer = ctypes.create_string_buffer(text)
        start, position = ctypes.addressof(buffer), 0
        pointer = ctypes.c_void_p(start)
        while pointer.value:
            phonemes = self._library.espeak_TextToPhonemes(ctypes.byref(pointer), _UTF8, _IPA) or b""
            end = pointer.value - start if pointer.value else len(text)
            yield phonemes, text[position:end]
            position = end

    def _resolve_voice(self, requested: str) -> bytes:
        """Return the library's name for `en-us` or `en-us+f3`. The library ignores unknown variants silently."""
        if requested not in self._voice_names:
            language, separator, variant = requested.partition("+")
            name = self._find_voice(language)
            if separator:
                name += "+" + self._find_variant(variant)
            self._voice_names[requested] = name.encode("utf-8", "replace")
        return self._voice_names[requested]

    def _find_voice(self, language: str) -> str:
        """Return the identifier of the usable voice that prefers a language tag most."""
        tag = _normalize_name(language)
        candidates = [voice for voice in self._voices if voice[1].lower() == tag]
        for _, _, identifier, main_language in sorted(candidates, key=lambda voice: voice[0]):
            if self._has_dictionary(identifier, main_language):
                return identifier
        raise RequestFailed(b"U", "voice", language, *self.list_voices())

    def _find_variant(self, variant: str) -> str:
        """Return the file name of a variant (`f3`, `whisper`)."""
        try:
            file_names = os.listdir(os.path.join(self._data_directory, "voices", "!v"))  # noqa: PTH118, PTH208
        except OSError:
            file_names = []
        names = {file_name.lower(): file_name for file_name in file_names}
        if (name := names.get(_normalize_name(variant))) is None:
            raise RequestFailed(b"U", "variant", variant, *sorted(names))
        return name

    def _load_voices(self) -> list[tuple[int, str, str, str]]:
        """Return (priority, language tag, identifier, main language of the voice) of all voices."""
        result: list[tuple[int, str, str, str]] = []
        voices = self._library.espeak_ListVoices(None)
        index = 0
        while voices[index]:
            voice = voices[index].contents
            identifier, languages = voice.identifier.decode("utf-8", "replace"), list(_read_languages(voice))
            result += [(priority, tag, identifier, languages[0][1]) for priority, tag in languages]
            index += 1
        return result

    def _has_dictionary(self, identifier: str, language: str) -> bool:
        """Return whether a voice has a dictionary. Three voices of the package have none and would be silent."""
        if identifier not in self._dictionaries:
            self._dictionaries[identifier] = self._find_dictionary(identifier, language)
        return self._dictionaries[identifier]

    def _find_dictionary(self, identifier: str, language: str) -> bool:
        name = language.split("-")[0]
        try:
            path = os.path.join(self._data_directory, "lang", identifier)  # noqa: PTH118
            with open(path, encoding="utf-8", errors="replace") as definition:  # noqa: PTH123
                for line in definition:
                    if line.startswith("dictionary") and len(words := line.split()) > 1:
                        name = words[1]
                        break
        except OSError:
            return True
        return os.path.exists(os.path.join(self._data_directory, f"{name}_dict"))  # noqa: PTH110, PTH118


def _normalize_name(name: str) -> str:
    return name.strip().lower().replace("_", "-")


def _read_languages(voice: _Voice) -> Iterator[tuple[int, str]]:
    """Yield the languages of a voice as (priority, tag). The lowest number is the most preferred."""
    address = voice.languages or 0
    while address and (priority := ctypes.string_at(address, 1)[0]):
        tag = ctypes.string_at(address + 1)
        yield priority, tag.decode("utf-8", "replace")
        address += 2 + len(tag)


def _read_exactly(size: int) -> bytes:
    content = bytearray()
    while len(content) < size:
        if not (block := os.read(0, size - len(content))):
            os._exit(0)
        content += block
    return bytes(content)


def read_frame() -> bytes:
    """Read a frame from stdin: its kind and its content. At the end of stdin, exit, also while another thread works."""
    header = _read_exactly(HEADER_BYTES)
    return header[:1] + _read_exactly(int.from_bytes(header[1:], "big"))


def read_requests(requests: SimpleQueue[bytes]) -> None:
    """Read requests from stdin in a thread of its own, so that the end of stdin is noticed while the engine works."""
    while True:
        requests.put(read_frame())


def take_stdout() -> FrameWriter:
    """Return a writer to stdout. What libraries print to stdout goes to stderr, so it is never between the frames."""
    output = FrameWriter(os.dup(1))
    os.dup2(2, 1)
    return output


def add_search_path(search_path: str) -> None:
    """Add the directories of packages, for workers that need some.

    They come before the directory of the workers, which is the last one: its names must not hide those of packages.
    """
    sys.path[-1:-1] = [path for path in search_path.split(os.pathsep) if path and path not in sys.path]


def serve(library_path: str, data_directory: str) -> NoReturn:
    """Serve requests until stdin ends."""
    output = take_stdout()
    requests: SimpleQueue[bytes] = SimpleQueue()
    _thread.start_new_thread(read_requests, (requests,))
    try:
        engine = Engine(library_path, data_directory)
    except BrokenEngine as error:
        output.write_fields(b"B", str(error))
        os._exit(1)
    while True:
        request = requests.get()
        try:
            if request[:1] == b"V":
                output.write_fields(b"L", *engine.list_voices())
            else:
                rate, voice, text = request[1:].split(b"\0", 2)
                engine.speak(text, voice.decode("utf-8", "replace"), int(rate), output)
            output.write(b"E")
        except RequestFailed as error:
            output.write_fields(error.kind, *error.fields)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2])
