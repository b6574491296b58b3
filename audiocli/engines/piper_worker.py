"""Speak text with a Piper voice: the child process of `engines.piper`.

The parent starts it as `child` describes, with the directories of installed packages and the checked files of one
voice. A voice is a VITS network in ONNX format, which onnxruntime runs, and a JSON file with its settings. Its input is
phonemes, which libespeak-ng makes from text. Numbers and abbreviations are therefore read as espeak reads them.

Messages on stdin and stdout are frames, as in `espeak_worker`. Requests, one at a time, are JSON:

    S   speak: `sentences`, each a text and the silence after it in ms; `speaker`; `speed`

Responses end with E or with a failure:

    A   audio: s16le, mono, at the sample rate of the voice; every sentence is sent when it is finished
    E   end of a successful response
    N   nothing in the text can be spoken
    F   the engine failed: the reason
    B   the engine or the voice is broken: the reason; the process exits

The process exits at the end of stdin, also while it works, so it does not outlive its parent.
"""

from __future__ import annotations

import _thread
import json
import os
import re
import unicodedata
from _queue import SimpleQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, NoReturn

    from . import espeak_worker
else:
    import espeak_worker

# Settings of Piper for voices that do not name them (its documentation, read 2026-11).
NOISE_SCALE, LENGTH_SCALE, NOISE_W = 0.667, 1.0, 0.8

# Memory grows with the longest input: 200 MB with 100 phonemes, 350 MB with 200, 800 MB with 600 (2026-11).
MAX_PHONEMES = 240
# Voices are quiet: the raw audio of en_US-joe-medium has peaks of 0.4 to 0.6. The same gain for all sentences keeps
# their levels apart, and a louder voice is not clipped.
_GAIN = 1.6
_MAX_PEAK = 0.97

# Frames of `shorten` begin every 15 ms, at most 8 ms from where they are expected.
_STEP_MS, _SEARCH_MS = 15, 8

_BEGIN, _END, _PAD = "^", "$", "_"
# espeak marks words of other languages: "(fr)...(en)".
_LANGUAGE_FLAG = re.compile(r"\([a-z]{2,3}(?:-[a-z0-9]+)*\)")
# Marks that voices know, by the characters that end a clause. A full stop inside a sentence is an abbreviation.
_MARKS = {
    **dict.fromkeys(".…。।۔｡", "."),
    **dict.fromkeys("?？؟\u037e", "?"),
    **dict.fromkeys("!！", "!"),
    **dict.fromkeys(",，、،—–", ","),
    **dict.fromkeys(";；؛", ";"),
    **dict.fromkeys(":：", ":"),
}
# espeak reads at most this many characters after the mark before it ends a clause: quotation marks, a space, a letter.
_MAX_CHARACTERS_AFTER_MARK = 5
_RANDOM_SEED = 1


class Phonemizer:
    """Convert text of one language to phonemes."""

    def __init__(self, library_path: str, data_directory: str, language: str) -> None:
        self._espeak = espeak_worker.Engine(library_path, data_directory)
        try:
            self._espeak.select_voice(language)
        except espeak_worker.RequestFailed as error:
            raise espeak_worker.BrokenEngine(
                f"espeak does not support the language {language!r} of the voice"
            ) from error

    def convert(self, sentence: str) -> list[str]:
        """Return the phonemes of the clauses of a sentence, each with the mark that ends it."""
        clauses: list[tuple[str, str]] = []
        for phonemes, clause in self._espeak.convert_to_phonemes(sentence.encode("utf-8", "replace")):
            mark = find_mark(clause.decode("utf-8", "ignore"))
            if text := _LANGUAGE_FLAG.sub("", phonemes.decode("utf-8", "replace")).strip():
                clauses.append((text, mark))
            elif clauses and mark:
                clauses[-1] = clauses[-1][0], mark
        return [
            text + ((mark or ".") if index == len(clauses) else mark.replace(".", ""))
            for index, (text, mark) in enumerate(clauses, 1)
        ]


def find_mark(clause: str) -> str:
    """Return the mark at the end of a clause. The text that espeak has read may go on for a few characters."""
    tail = clause.rstrip()[-_MAX_CHARACTERS_AFTER_MARK:]
    return next((_MARKS[character] for character in reversed(tail) if character in _MARKS), "")


def join_clauses(clauses: Sequence[str], max_phonemes: int) -> Iterator[str]:
    """Join clauses, as many as fit. A clause that does not fit is split at spaces, or else anywhere."""
    group = ""
    for clause in clauses:
        if group and len(group) + 1 + len(clause) > max_phonemes:
            yield group
            group = ""
        group = f"{group} {clause}" if group else clause
        while len(group) > max_phonemes:
            space = group.rfind(" ", 1, max_phonemes)
            end = space if space > 0 else max_phonemes
            yield group[:end]
            group = group[end:].lstrip()
    if group:
        yield group


def shorten(numpy: Any, audio: Any, factor: float, sample_rate_hz: int) -> Any:
    """Shorten speech by a factor, without a change of pitch.

    WSOLA: overlapping frames are taken from the audio at larger steps than they are added, each where it continues the
    frame before it best (Verhelst and Roelands, 1993).
    """
    step, radius = sample_rate_hz * _STEP_MS // 1000, sample_rate_hz * _SEARCH_MS // 1000
    size = 2 * step
    length = int(len(audio) / factor)
    source = numpy.concatenate([audio, numpy.zeros(int(step * factor) + 2 * (size + radius), audio.dtype)])
    window = 0.5 - 0.5 * numpy.cos(2 * numpy.pi * numpy.arange(size) / size)
    output = numpy.zeros(length + 2 * size)
    position = 0
    for end in range(0, length + step, step):
        if end:
            expected = source[position + step : position + step + size]
            first = max(int(end * factor) - radius, 0)
            region = source[first : int(end * factor) + radius + size]
            energy = numpy.concatenate([[0.0], numpy.cumsum(region.astype(numpy.float64) ** 2)])
            levels = numpy.sqrt(numpy.maximum(energy[size:] - energy[:-size], 1e-9))
            position = first + int((numpy.correlate(region, expected, "valid") / levels).argmax())
        output[end : end + size] += window * source[position : position + size]
    return output[:length]


class Voice:
    """A loaded voice."""

    def __init__(self, library_path: str, data_directory: str, model_path: str, config: dict[str, Any], threads: int):
        import numpy
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as errors

        self._numpy = numpy
        # The classes of onnxruntime's errors have no common base.
        self.errors = (errors.Fail, errors.InvalidArgument, errors.RuntimeException, errors.EPFail, MemoryError)
        load_errors = (errors.NoSuchFile, errors.InvalidProtobuf, errors.InvalidGraph, errors.NotImplemented)
        inference = config.get("inference", {})
        self._noise_scale = float(inference.get("noise_scale", NOISE_SCALE))
        self._length_scale = float(inference.get("length_scale", LENGTH_SCALE))
        self._noise_w = float(inference.get("noise_w", NOISE_W))
        self._has_speakers = int(config.get("num_speakers", 1)) > 1
        self._sample_rate_hz = int(config["audio"]["sample_rate"])
        self._ids = {symbol: [int(value) for value in ids] for symbol, ids in config["phoneme_id_map"].items()}
        self._phoneme_map: dict[str, list[str]] = config.get("phoneme_map") or {}
        self._phonemizer = (
            Phonemizer(library_path, data_directory, config["espeak"]["voice"])
            if config.get("phoneme_type", "espeak") == "espeak"
            else None
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # The optimizer takes 0.2 s and gains nothing. Threads that wait in a loop would take a core from others.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        onnxruntime.set_seed(_RANDOM_SEED)
        try:
            self._session = onnxruntime.InferenceSession(model_path, options, providers=["CPUExecutionProvider"])
        except (*self.errors, *load_errors) as error:
            raise espeak_worker.BrokenEngine(str(error)) from error

    def speak(self, request: dict[str, Any], output: espeak_worker.FrameWriter) -> None:
        """Speak sentences, and write each when it is finished. Raises: RequestFailed."""
        speed, has_audio, pause = float(request["speed"]), False, b""
        for sentence, pause_ms in request["sentences"]:
            is_spoken = False
            for phonemes in self._find_phonemes(sentence):
                ids = self._find_ids(phonemes)
                if not ids:
                    continue
                output.write(b"A", pause + self._synthesize(ids, int(request["speaker"]), speed))
                is_spoken, has_audio, pause = True, True, b""
            if is_spoken:
                pause = bytes(2 * round(self._sample_rate_hz * pause_ms / 1000 / speed))
        if not has_audio:
            raise espeak_worker.RequestFailed(b"N")

    def _find_phonemes(self, sentence: str) -> Iterator[str]:
        if self._phonemizer is None:  # the voice was trained with letters
            return join_clauses([sentence.casefold()], MAX_PHONEMES)
        return join_clauses(self._phonemizer.convert(sentence), MAX_PHONEMES)

    def _find_ids(self, phonemes: str) -> list[int]:
        """Return the input of the network: begin, the phonemes and end, with padding between them.

        Empty if the voice knows none of the phonemes. One that it does not know is left out.
        """
        ids: list[int] = []
        is_speakable = False
        for character in unicodedata.normalize("NFD", phonemes):
            for symbol in self._phoneme_map.get(character, (character,)):
                if symbol in self._ids and symbol not in (_BEGIN, _END, _PAD):
                    ids += (*self._ids[symbol], *self._ids[_PAD])
                    is_speakable = is_speakable or symbol.isalnum()
        return [*self._ids[_BEGIN], *self._ids[_PAD], *ids, *self._ids[_END]] if is_speakable else []

    def _synthesize(self, ids: list[int], speaker: int, speed: float) -> bytes:
        numpy = self._numpy
        inputs = {
            "input": numpy.array([ids], numpy.int64),
            "input_lengths": numpy.array([len(ids)], numpy.int64),
            "scales": numpy.array(
                [self._noise_scale, self._length_scale / min(speed, 1.0), self._noise_w], numpy.float32
            ),
        }
        if self._has_speakers:
            inputs["sid"] = numpy.array([speaker], numpy.int64)
        try:
            audio = self._session.run(None, inputs)[0].reshape(-1)
        except self.errors as error:
            raise espeak_worker.RequestFailed(b"F", str(error) or type(error).__name__) from error
        if speed > 1:
            # The network makes at least one frame for each phoneme, so it can hardly speak faster than 1.5.
            audio = shorten(numpy, audio, speed, self._sample_rate_hz)
        gain = min(_GAIN, _MAX_PEAK / max(float(numpy.abs(audio).max(initial=0.0)), 1e-6))
        return bytes((audio * (gain * 32767)).astype("<i2").tobytes())


def serve(
    search_path: str, library_path: str, data_directory: str, model_path: str, config_path: str, threads: str
) -> NoReturn:
    """Serve requests until stdin ends."""
    espeak_worker.add_search_path(search_path)
    output = espeak_worker.take_stdout()
    requests: SimpleQueue[bytes] = SimpleQueue()
    _thread.start_new_thread(espeak_worker.read_requests, (requests,))
    try:
        with open(config_path, encoding="utf-8") as file:  # noqa: PTH123
            config = json.load(file)
        voice = Voice(library_path, data_directory, model_path, config, int(threads))
    except (espeak_worker.BrokenEngine, ImportError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        output.write_fields(b"B", f"{error}" or type(error).__name__)
        os._exit(1)
    while True:
        request = requests.get()
        try:
            voice.speak(json.loads(request[1:]), output)
            output.write(b"E")
        except espeak_worker.RequestFailed as error:
            output.write_fields(error.kind, *error.fields)
