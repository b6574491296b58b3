"""Transcribe recordings with Whisper, through faster-whisper: the child process of `engines.whisper`.

This is a process and not a thread, because it can be killed immediately, a crash of a native library must not end the
command, and the libraries take 0.4 s to import. The parent starts it without `site`, and passes the directories of
packages, the directory of the model and the number of threads.

Messages are frames, as `espeak_worker` describes them. A request consists of several, one request at a time:

    T   transcribe: JSON with language, translate, prompt, temperature, words
    D   samples: s16le, 16 kHz, mono
    Z   end of the recording

Responses end with E or with a failure:

    P   progress
    S   a segment: JSON with start, end, text, words
    E   end of a successful response: JSON with language, duration
    F   the engine failed: the reason
    B   the engine is broken: the reason; the process exits

The recording is processed while it arrives, in windows of at most two minutes, so memory use does not grow with its
length. A window ends in a pause. Silero VAD, which is part of faster-whisper, removes what is not speech, because
Whisper invents text there.

The process exits at the end of stdin, also while it works, so it does not outlive its parent.
"""

from __future__ import annotations

import _thread
import json
import os
import queue
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from .espeak_worker import FrameWriter, add_search_path, read_frame, take_stdout
else:
    from espeak_worker import FrameWriter, add_search_path, read_frame, take_stdout

SAMPLE_RATE_HZ = 16_000
MAX_WINDOW_S = 120
# A window may end this early, if there is a pause.
MIN_WINDOW_S = 60
# Without a pause, split at the quietest moment in this last part of a window.
SPLIT_SEARCH_S = 10
_QUIET_SAMPLES = SAMPLE_RATE_HZ * 30 // 1000
# Below this level, a window is silent. About -60 dBFS.
_SILENCE_PEAK = 33
# Frames of samples that wait while the engine works. The parent waits when the queue and the pipe are full.
_MAX_QUEUED_FRAMES = 32
_PARENT_CHECK_S = 0.5

# Temperatures of the reference implementation: a higher one is tried after a result that looks wrong.
_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_RANDOM_SEED = 1


class Engine:
    """A loaded model. It keeps nothing from one recording to the next."""

    def __init__(self, model_directory: str, threads: int) -> None:
        # The model is a directory on this computer. These variables prevent requests to Hugging Face.
        os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false")
        import ctranslate2
        import faster_whisper
        import numpy
        from faster_whisper.transcribe import restore_speech_timestamps
        from faster_whisper.vad import VadOptions, collect_chunks, get_speech_timestamps

        self._numpy = numpy
        self._set_seed = ctranslate2.set_random_seed
        self._restore_times = restore_speech_timestamps
        self._find_speech = get_speech_timestamps
        self._collect_speech = collect_chunks
        self._vad_options = VadOptions(min_silence_duration_ms=2000, speech_pad_ms=400)

        def load(device: str, compute_type: str) -> Any:
            return faster_whisper.WhisperModel(
                model_directory,
                device=device,
                compute_type=compute_type,
                cpu_threads=threads,
                local_files_only=True,
            )

        if ctranslate2.get_cuda_device_count() > 0:
            try:
                self._model = load("cuda", "default")
                # The libraries of CUDA are loaded by the first computation.
                self._model.detect_language(numpy.zeros(SAMPLE_RATE_HZ, numpy.float32))
                return
            except RuntimeError as error:
                print(f"using the CPU, because the GPU cannot be used: {error}", file=sys.stderr)  # noqa: T201
        # 8-bit weights: as accurate as 32-bit ones in our tests, at half the memory and twice the speed.
        self._model = load("cpu", "int8")

    def transcribe(self, options: dict[str, Any], recording: Recording, output: FrameWriter) -> None:
        """Transcribe a recording while it arrives, and write its segments."""
        language: str | None = options["language"]
        buffer, start = self._numpy.zeros(0, self._numpy.int16), 0
        is_complete = False
        while not is_complete:
            blocks = [buffer]
            missing = MAX_WINDOW_S * SAMPLE_RATE_HZ - len(buffer)
            while missing > 0 and (block := recording.read()):
                blocks.append(self._numpy.frombuffer(block, "<i2"))
                missing -= len(blocks[-1])
            is_complete = missing > 0
            buffer = self._numpy.concatenate(blocks)
            output.write(b"P")
            end, language = self._transcribe_window(
                buffer, start / SAMPLE_RATE_HZ, is_complete, {**options, "language": language}, output
            )
            buffer, start = buffer[end:], start + end
        values = {
            "language": "en" if options["translate"] else language,
            "duration": recording.samples / SAMPLE_RATE_HZ,
        }
        output.write(b"E", json.dumps(values).encode())

    def _transcribe_window(
        self, samples: Any, start_s: float, is_last: bool, options: dict[str, Any], output: FrameWriter
    ) -> tuple[int, str | None]:
        """Transcribe the start of a window. Return how many samples are done, and the language, once it is known."""
        language: str | None = options["language"]
        if not len(samples) or int(self._numpy.abs(samples.astype(self._numpy.int32)).max()) < _SILENCE_PEAK:
            return len(samples), language
        audio = samples.astype(self._numpy.float32) / 32768.0
        speech = self._find_speech(audio, self._vad_options)
        end = len(samples) if is_last else find_window_end(self._numpy, samples, speech)
        if not is_last and end < len(samples):
            audio = audio[:end]
            speech = self._find_speech(audio, self._vad_options)
        if not speech:
            return end, language
        output.write(b"P")
        chunks, _ = self._collect_speech(audio, speech)
        self._set_seed(_RANDOM_SEED)
        temperature = options["temperature"]
        segments, info = self._model.transcribe(
            self._numpy.concatenate(chunks),
            language=language,
            task="translate" if options["translate"] else "transcribe",
            temperature=_TEMPERATURES if temperature is None else (temperature,),
            initial_prompt=options["prompt"] or None,
            word_timestamps=options["words"],
            vad_filter=False,
        )
        for segment in self._restore_times(segments, speech, SAMPLE_RATE_HZ):
            value = build_segment(segment, start_s, end / SAMPLE_RATE_HZ)
            output.write(b"S" if value["text"] else b"P", json.dumps(value).encode())
        return end, info.language


def find_window_end(numpy: Any, samples: Any, speech: list[dict[str, int]]) -> int:
    """Return where to end a window of the maximum length: in a pause, or else at the quietest moment near its end.

    `speech` are the passages with speech, as (start, end) in samples.
    """
    if not speech or speech[-1]["end"] < len(samples) - SAMPLE_RATE_HZ:
        return len(samples)
    for before, after in zip(reversed(speech[:-1]), reversed(speech[1:]), strict=True):
        if before["end"] >= MIN_WINDOW_S * SAMPLE_RATE_HZ:
            return (before["end"] + after["start"]) // 2
    first = len(samples) - SPLIT_SEARCH_S * SAMPLE_RATE_HZ
    last_part = samples[first : first + SPLIT_SEARCH_S * SAMPLE_RATE_HZ // _QUIET_SAMPLES * _QUIET_SAMPLES]
    levels = numpy.abs(last_part.astype(numpy.int32)).reshape(-1, _QUIET_SAMPLES).sum(axis=1)
    # With their neighbors, so that a closed consonant is not mistaken for a pause.
    smoothed = levels[:-2] + levels[1:-1] + levels[2:]
    return first + (int(smoothed.argmin()) + 1) * _QUIET_SAMPLES + _QUIET_SAMPLES // 2


def build_segment(segment: Any, start_s: float, window_s: float) -> dict[str, Any]:
    """Return a segment with times in the recording. Times behind the end of its window are errors of the model."""

    def compute_time_s(time_s: float) -> float:
        return round(start_s + min(max(float(time_s), 0.0), window_s), 3)

    words = [
        {
            "word": word.word.strip(),
            "start": compute_time_s(word.start),
            "end": compute_time_s(word.end),
            "confidence": round(word.probability, 3),
        }
        for word in segment.words or ()
        if word.word.strip()
    ]
    return {
        "start": compute_time_s(segment.start),
        "end": compute_time_s(segment.end),
        "text": segment.text.strip() and segment.text,
        "words": words,
        "no_speech_prob": round(segment.no_speech_prob, 3),
        "avg_logprob": round(segment.avg_logprob, 3),
        "compression_ratio": round(segment.compression_ratio, 3),
    }


class Recording:
    """The samples of one request, from the frames that arrive."""

    def __init__(self, frames: queue.Queue[bytes]) -> None:
        self._frames = frames
        self._rest = b""
        self._is_complete = False
        self.samples = 0

    def read(self) -> bytes:
        """Return the next complete samples; empty at the end of the recording."""
        while not self._is_complete:
            frame = self._frames.get()
            if frame[:1] == b"Z":
                self._is_complete = True
                break
            block = self._rest + frame[1:]
            size = len(block) // 2 * 2
            block, self._rest = block[:size], block[size:]
            if block:
                self.samples += size // 2
                return block
        return b""

    def skip(self) -> None:
        """Discard the rest, so that the next frame begins another request."""
        while self.read():
            pass


def _read_frames(frames: queue.Queue[bytes], parent_pid: int) -> None:
    """Read frames from stdin in a thread of its own. If the parent has ended, exit the process."""
    while True:
        frame = read_frame()
        while True:
            try:
                frames.put(frame, timeout=_PARENT_CHECK_S)
                break
            except queue.Full:
                if os.getppid() != parent_pid:
                    os._exit(0)


def serve(search_path: str, model_directory: str, threads: str) -> NoReturn:
    """Serve requests until stdin ends."""
    add_search_path(search_path)
    output = take_stdout()
    frames: queue.Queue[bytes] = queue.Queue(_MAX_QUEUED_FRAMES)
    _thread.start_new_thread(_read_frames, (frames, os.getppid()))
    try:
        engine = Engine(model_directory, int(threads))
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        output.write_fields(b"B", f"{error}" or type(error).__name__)
        os._exit(1)
    while True:
        request = frames.get()
        recording = Recording(frames)
        try:
            engine.transcribe(json.loads(request[1:]), recording, output)
        except (RuntimeError, ValueError, MemoryError) as error:
            recording.skip()
            output.write_fields(b"F", f"{error}" or type(error).__name__)
