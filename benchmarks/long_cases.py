"""Benchmark cases with long texts and long recordings."""

from __future__ import annotations

import json
import random
import wave
from pathlib import Path

import gateway
from harness import Installation, Measurement
from metrics import SPEECH_MODEL, Case, Goal, Metric, build_openrouter_environment, get_elapsed_ms, get_peak_mib

CHARACTERS = 100_000
LARGE_CHARACTERS = 5_000_000
# About four minutes of speech.
WHISPER_CHARACTERS = 4_000
PIPER_CHARACTERS = 4_000
CONCURRENCY = 8
# Close to the length of audiocli's chunks, which end at sentence boundaries.
CHUNK_CHARACTERS = 3_850
CURL_BASELINE = frozenset({"curl"})
RECORDING_S = 3 * 3600
# Scan and encoding together, as a multiple of real time.
SPLIT_TIMES_REAL = 200
VOCABULARY = "the quick brown fox jumps over a lazy dog while seven silver ships sail slowly past quiet harbours"


def build_long_cases(installation: Installation, url: str, directory: Path) -> list[Case]:
    """Speak a book into a file and into a pipe; scan and split three hours of MP3.

    curl fetches the same audio through xargs, one file per chunk, without joining, ledger or fsync.
    """
    book = directory / "book.txt"
    book.write_text(_write_text(), encoding="utf-8")
    return [
        *_build_speech_cases(installation, f"{url}/long-text/v1", book),
        _build_pipe_case(installation, f"{url}/long-text/v1", book),
        _build_large_text_case(installation, f"{url}/v1", directory),
        _build_split_case(installation, directory),
        *_build_whisper_cases(installation, directory),
        *_build_piper_cases(installation, directory),
    ]


def get_times_ideal(measurement: Measurement) -> float:
    """Return the time from the first request to the end, relative to the time of the gateway alone."""
    assert measurement.first_received_ns is not None and measurement.posts is not None
    ideal_s = -(-measurement.posts // CONCURRENCY) * gateway.LONG_TEXT_DELAY_S
    return (measurement.ended_ns - measurement.first_received_ns) / 1e9 / ideal_s


def get_first_request_ms(measurement: Measurement) -> float:
    """Return the time from process start until the gateway has read the first request."""
    assert measurement.first_received_ns is not None
    return (measurement.first_received_ns - measurement.started_ns) / 1e6


def get_first_sound_ms(measurement: Measurement) -> float:
    """Return the time from process start to the first audio on the pipe."""
    assert measurement.output_ns is not None
    return (measurement.output_ns - measurement.started_ns) / 1e6


def get_first_audio_ms(measurement: Measurement) -> float:
    """Return the time from the first request to the first audio on the pipe."""
    assert measurement.output_ns is not None and measurement.first_received_ns is not None
    return (measurement.output_ns - measurement.first_received_ns) / 1e6


def _build_speech_cases(installation: Installation, url: str, book: Path) -> list[Case]:
    argv = (installation.audiocli, "speak", "-F", str(book), "-m", SPEECH_MODEL, "-j", str(CONCURRENCY), "--no-resume")
    peak = Goal("at most", 120)
    curl = _build_curl(url, book)

    def build_file_case(format: str) -> Case:
        return Case(
            f"long-speech-{format}",
            (*argv, "-o", str(book.with_suffix(f".{format}"))),
            (
                Metric(
                    f"100,000 characters as {format}", get_times_ideal, "× ideal", Goal("at most", 1.25), CURL_BASELINE
                ),
                Metric(f"100,000 characters as {format}: peak", get_peak_mib, "MiB", peak, frozenset()),
            ),
            curl=curl,
            environment=build_openrouter_environment(url),
            read_gateway_times=True,
            is_heavy=True,
        )

    max_first_ms = gateway.LONG_TEXT_DELAY_S * 1000 + 200
    pipe_metrics = (
        Metric("100,000 characters: first audio", get_first_audio_ms, "ms", Goal("at most", max_first_ms), frozenset()),
        Metric("100,000 characters on a pipe: peak", get_peak_mib, "MiB", peak, frozenset()),
    )
    return [
        build_file_case("pcm"),
        build_file_case("wav"),
        Case(
            "long-speech-pipe",
            (*argv, "-f", "pcm", "-o", "-"),
            pipe_metrics,
            environment=build_openrouter_environment(url),
            watch_output=True,
            read_gateway_times=True,
            is_heavy=True,
        ),
    ]


def _build_pipe_case(installation: Installation, url: str, book: Path) -> Case:
    """Speak a text that arrives on a pipe. curl requests the first chunk only, without reading the text."""
    speak = f"{installation.audiocli} speak -m {SPEECH_MODEL} -j {CONCURRENCY} --no-resume -f pcm -o -"
    body = json.dumps({"model": SPEECH_MODEL, "input": book.read_text("utf-8")[:200], "response_format": "pcm"})
    curl = ("curl", "-q", "-sS", "-N", "-H", "Content-Type: application/json", "-d", body, f"{url}/audio/speech")
    max_first_ms = gateway.LONG_TEXT_DELAY_S * 1000 + 500
    goal = Goal("at most", max_first_ms)
    return Case(
        "long-pipe",
        ("sh", "-c", f"cat {book} | {speak}"),
        (Metric("first sound of a 100,000-character pipe", get_first_sound_ms, goal=goal, baselines=CURL_BASELINE),),
        curl=curl,
        environment=build_openrouter_environment(url),
        watch_output=True,
        is_heavy=True,
    )


def _build_large_text_case(installation: Installation, url: str, directory: Path) -> Case:
    """Speak a large text with short audio, so that reading and splitting it take most of the time and memory."""
    text = directory / "large.txt"
    text.write_text(_write_text(LARGE_CHARACTERS), encoding="utf-8")
    output = str(directory / "large.wav")
    argv = (installation.audiocli, "speak", "-F", str(text), "-m", SPEECH_MODEL, "-j", str(CONCURRENCY))
    return Case(
        "large-text",
        (*argv, "--no-resume", "--no-cache", "-o", output),
        (
            Metric("5 MB of text: first request", get_first_request_ms, goal=Goal("at most", 5000)),
            Metric("5 MB of text: peak", get_peak_mib, "MiB", Goal("at most", 200), frozenset()),
        ),
        environment=build_openrouter_environment(url),
        read_gateway_times=True,
        is_heavy=True,
    )


def _build_curl(url: str, book: Path) -> tuple[str, ...]:
    text, directory = book.read_text("utf-8"), book.with_suffix(".chunks")
    directory.mkdir()
    for number in range(-(-CHARACTERS // CHUNK_CHARACTERS)):
        chunk = text[number * CHUNK_CHARACTERS : (number + 1) * CHUNK_CHARACTERS]
        body = json.dumps({"model": SPEECH_MODEL, "input": chunk, "response_format": "pcm"})
        (directory / f"{number:03}.json").write_text(body, encoding="utf-8")
    curl = f"curl -q -sS -H 'Content-Type: application/json' -d @{{}} -o {{}}.pcm {url}/audio/speech"
    return ("sh", "-c", f"find {directory} -name '*.json' -print0 | xargs -0 -P {CONCURRENCY} -I{{}} {curl}")


def _build_split_case(installation: Installation, directory: Path) -> Case:
    program, recording = str(Path(__file__).with_name("recording.py")), directory / "hours.mp3"
    return Case(
        "split",
        (installation.python, program, str(recording)),
        (
            Metric("3 hours of mp3", get_elapsed_ms, goal=Goal("at most", RECORDING_S / SPLIT_TIMES_REAL * 1000)),
            Metric("3 hours of mp3: peak", get_peak_mib, "MiB", Goal("at most", 150), frozenset()),
        ),
        setup=(installation.python, program, str(recording), "--make"),
        is_heavy=True,
    )


def _build_whisper_cases(installation: Installation, directory: Path) -> list[Case]:
    """Transcribe minutes of synthetic speech with the local models. Skipped without them."""
    text, recording = directory / "minutes.txt", directory / "minutes.wav"
    text.write_text(_write_text()[:WHISPER_CHARACTERS], encoding="utf-8")

    def get_share_of_duration(measurement: Measurement) -> float:
        with wave.open(str(recording)) as file:
            duration_s = file.getnframes() / file.getframerate()
        return get_elapsed_ms(measurement) / 1000 / duration_s

    def build_case(model: str, max_share: float, max_mib: float) -> Case:
        ref = f"local:whisper-{model}"
        return Case(
            f"whisper-{model}",
            (installation.audiocli, "transcribe", str(recording), "-m", ref, "--no-resume"),
            (
                Metric(ref, get_share_of_duration, "× duration", Goal("at most", max_share), frozenset()),
                Metric(f"{ref}: peak", get_peak_mib, "MiB", Goal("at most", max_mib), frozenset()),
            ),
            setup=(
                *(installation.audiocli, "speak", "-F", str(text), "-m", "local:espeak"),
                *("-o", str(recording), "--no-resume"),
            ),
            is_heavy=True,
            is_optional=True,
        )

    return [build_case("tiny.en", 0.15, 450), build_case("base", 0.25, 650)]


def _build_piper_cases(installation: Installation, directory: Path) -> list[Case]:
    """Speak a sentence into a pipe, and minutes of text into a file, with the local voice. Skipped without it."""
    text, recording = directory / "spoken.txt", directory / "spoken.wav"
    text.write_text(_write_text()[:PIPER_CHARACTERS], encoding="utf-8")
    command = (installation.audiocli, "speak", "-m", "local:piper", "--no-resume")

    def get_first_output_ms(measurement: Measurement) -> float:
        assert measurement.output_ns is not None
        return (measurement.output_ns - measurement.started_ns) / 1e6

    def get_times_real_time(measurement: Measurement) -> float:
        with wave.open(str(recording)) as file:
            return file.getnframes() / file.getframerate() / (get_elapsed_ms(measurement) / 1000)

    return [
        Case(
            "piper-first",
            (*command, "The first sentence of a text is heard before the others are made.", "-f", "wav"),
            (
                Metric(
                    "local:piper: first sound", get_first_output_ms, goal=Goal("at most", 1_300), baselines=frozenset()
                ),
            ),
            watch_output=True,
            is_optional=True,
        ),
        Case(
            "piper",
            (*command, "-F", str(text), "-o", str(recording)),
            (
                Metric("local:piper", get_times_real_time, "× real time", Goal("at least", 8), frozenset()),
                Metric("local:piper: peak", get_peak_mib, "MiB", Goal("at most", 400), frozenset()),
            ),
            is_heavy=True,
            is_optional=True,
        ),
    ]


def _write_text(characters: int = CHARACTERS) -> str:
    """Return a text in which all sentences differ."""
    rng, words = random.Random(1), VOCABULARY.split()

    def sentence() -> str:
        return " ".join(rng.choice(words) for _ in range(rng.randint(6, 16))).capitalize() + "."

    paragraphs: list[str] = []
    size = 0
    while size < characters:
        paragraphs.append(" ".join(sentence() for _ in range(rng.randint(3, 8))))
        size += len(paragraphs[-1])
    return "\n\n".join(paragraphs)[:characters]
