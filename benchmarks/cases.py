"""The benchmark cases: commands, baselines and goals."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import gateway
from harness import Installation
from long_cases import build_long_cases
from metrics import (
    KEY,
    SPEECH_MODEL,
    TRANSCRIPTION_MODEL,
    Case,
    Goal,
    Metric,
    build_openrouter_environment,
    get_elapsed_ms,
    get_first_byte_ms,
    get_peak_mib,
    get_request_ms,
)

RATE_HZ = 16_000


def build_cases(installation: Installation, url: str, directory: Path) -> list[Case]:
    """Create the input files in `directory`, and return the cases."""
    program = installation.audiocli
    speak_command = (program, "speak", "Hello", "-o", str(directory / "hello.mp3"))
    models_command = (program, "models", "-g", "openrouter")
    return [
        _build_light_case("version", (program, "--version"), 2),
        _build_light_case("help", (program, "--help"), 8),
        _build_light_case(
            "usage", (program, "usage"), 9, setup=speak_command, environment=build_openrouter_environment(f"{url}/v1")
        ),
        _build_light_case(
            "completion",
            (program, "--complete", "models:speech", "openrouter:a", "speak", "-m"),
            2,
            setup=models_command,
            environment=build_openrouter_environment(f"{url}/v1"),
            is_optional=True,
        ),
        _build_ledger_case(installation, directory),
        *_build_speech_cases(program, url, directory),
        *_build_transcription_cases(program, url, directory),
        *_build_upload_cases(program, url, directory, "100mb", 100_000_000),
        *_build_upload_cases(program, url, directory, "1gb", 1_000_000_000),
        *_build_directory_cases(program, url, directory),
        *build_long_cases(installation, url, directory),
    ]


def build_bare_command(installation: Installation) -> tuple[str, ...]:
    """Return the command that only starts the interpreter: a lower bound for any Python program."""
    return (installation.python, "-c", "pass")


def _build_light_case(
    name: str,
    argv: tuple[str, ...],
    times_bare: float,
    *,
    setup: tuple[str, ...] | None = None,
    environment: Mapping[str, str] | None = None,
    is_optional: bool = False,
) -> Case:
    metrics = (Metric(name, get_elapsed_ms, goal=Goal("times bare", times_bare)),)
    return Case(name, argv, metrics, setup=setup, environment=environment or {}, is_optional=is_optional)


def _build_ledger_case(installation: Installation, directory: Path) -> Case:
    """Report over a million entries. `money.py` creates them, and measures the ledger itself."""
    ledger = directory / "million.sqlite3"
    return Case(
        "usage-million",
        (installation.audiocli, "usage"),
        (Metric("usage: a million entries", get_elapsed_ms, goal=Goal("at most", 500)),),
        setup=(installation.python, str(Path(__file__).with_name("money.py")), "--fill", str(ledger)),
        environment={"AUDIOCLI_LEDGER": str(ledger)},
        is_optional=True,
    )


def _build_speech_cases(program: str, url: str, directory: Path) -> list[Case]:
    plain_url, trickle_url = f"{url}/v1", f"{url}/trickle/v1"
    curl = ("curl", "-q", "-sS", "-H", "Content-Type: application/json", "-H", f"Authorization: Bearer {KEY}")

    def body(format: str) -> str:
        return json.dumps({"model": SPEECH_MODEL, "input": "Hello", "response_format": format})

    mp3 = str(directory / "hello.mp3")
    return [
        Case(
            "speak",
            (program, "speak", "Hello", "-o", mp3),
            (Metric("speak: one word to a file", get_elapsed_ms, goal=Goal("over bare", 190)),),
            curl=(*curl, "-o", mp3, "-d", body("mp3"), f"{plain_url}/audio/speech"),
            environment=build_openrouter_environment(plain_url),
        ),
        Case(
            "first-byte",
            (program, "speak", "Hello", "-o", "-"),
            (
                Metric("speak: start-up to request", get_request_ms),
                Metric(
                    "speak: first byte on a pipe",
                    get_first_byte_ms,
                    goal=Goal("at most", 20),
                    baselines=frozenset({"curl"}),
                ),
            ),
            curl=(*curl, "-N", "-d", body("mp3"), f"{trickle_url}/audio/speech"),
            environment=build_openrouter_environment(trickle_url),
            watch_output=True,
            read_gateway_times=True,
        ),
        Case(
            "first-byte-converted",
            (program, "speak", "Hello", "-f", "flac", "-o", "-"),
            (Metric("speak: first byte, converted to flac", get_first_byte_ms, baselines=frozenset({"curl"})),),
            curl=(*curl, "-N", "-d", body("pcm"), f"{trickle_url}/audio/speech"),
            environment=build_openrouter_environment(trickle_url),
            watch_output=True,
            read_gateway_times=True,
        ),
    ]


def _build_transcription_cases(program: str, url: str, directory: Path) -> list[Case]:
    wav, mp3 = directory / "speech.wav", directory / "speech.mp3"
    _create_recording(wav, 3 * 2 * RATE_HZ)
    mp3.write_bytes(gateway.MP3_FRAME * round(3 / (1152 / 44_100)))
    return [
        Case(
            f"transcribe-{path.suffix[1:]}",
            (program, "transcribe", str(path)),
            (Metric(f"transcribe: 3 s of {path.suffix[1:]}", get_elapsed_ms),),
            curl=_build_form_curl(url, path),
            environment=build_openrouter_environment(f"{url}/v1"),
        )
        for path in (wav, mp3)
    ]


def _build_upload_cases(program: str, url: str, directory: Path, size: str, size_bytes: int) -> list[Case]:
    """Upload one recording as base64 in JSON (OpenRouter) and as a form (custom gateway, without a size limit).

    Files are sparse. For JSON, curl sends a file of the same size: it cannot encode base64.
    """
    wav, base64_path = directory / f"{size}.wav", directory / f"{size}.base64"
    _create_recording(wav, size_bytes)
    with base64_path.open("wb") as file:
        file.truncate(4 * ((wav.stat().st_size + 2) // 3))
    config = directory / "config.toml"
    config.write_text(f'[gateways.mock]\ndialect = "openai"\nbase_url = "{url}/v1"\n', encoding="utf-8")
    raw_curl = (
        "curl",
        "-q",
        "-sS",
        "-o",
        os.devnull,
        "-X",
        "POST",
        "-T",
        str(base64_path),
        f"{url}/v1/audio/transcriptions",
    )

    def build_case(form: str, model: str, environment: Mapping[str, str], curl: tuple[str, ...]) -> Case:
        name = f"upload-{form}-{size}"
        first_name = f"upload-{form}-100mb"
        goal = Goal("at most", 90) if name == first_name else Goal("over case", 5, first_name)
        size_text = size.replace("mb", " MB").replace("gb", " GB")
        return Case(
            name,
            # In one piece: it would be scanned and split otherwise, and silence is not sent.
            (program, "transcribe", str(wav), "-m", model, "--no-split"),
            (
                Metric(f"upload: peak, {size_text} as {form}", get_peak_mib, "MiB", goal, frozenset()),
                Metric(f"upload: time, {size_text} as {form}", get_elapsed_ms, baselines=frozenset({"curl"})),
            ),
            curl=curl,
            environment=environment,
            is_heavy=True,
        )

    return [
        build_case("json", f"openrouter:{TRANSCRIPTION_MODEL}", build_openrouter_environment(f"{url}/v1"), raw_curl),
        build_case("form", "mock:whisper-1", {"AUDIOCLI_CONFIG": str(config)}, _build_form_curl(url, wav)),
    ]


def _build_directory_cases(program: str, url: str, directory: Path) -> list[Case]:
    """Transcribe directories: all files with a slow gateway, unchanged files, and many files for peak memory.

    The ideal time is that of the gateway alone: files over concurrency, rounded up, times `gateway.SLOW_DELAY_S`. curl
    does the same through xargs, with one process per file and without a manifest or ledger.
    """
    rerun_options = ("--force", "--no-resume")

    def build_case(name: str, label: str, file_count: int, concurrency: int, max_ms: float, *, is_heavy: bool) -> Case:
        recordings = _create_recordings(directory / f"recordings-{file_count}", file_count)
        form = f"-F model=whisper-1 -F file=@{{}} {url}/slow/v1/audio/transcriptions"
        curl = f"curl -q -sS -o {os.devnull} {form}"
        pipeline = f"find {recordings} -name '*.wav' -print0 | xargs -0 -P {concurrency} -I{{}} {curl}"
        return Case(
            name,
            (
                program,
                "transcribe",
                str(recordings),
                "-j",
                str(concurrency),
                "-O",
                str(directory / "out"),
                *rerun_options,
            ),
            (Metric(label, get_elapsed_ms, goal=Goal("at most", max_ms), baselines=frozenset({"curl"})),),
            curl=("sh", "-c", pipeline),
            environment=build_openrouter_environment(f"{url}/slow/v1"),
            is_heavy=is_heavy,
        )

    ideal_ms = -(-1000 // 32) * gateway.SLOW_DELAY_S * 1000
    unchanged_command = (
        program,
        "transcribe",
        str(_create_recordings(directory / "recordings-1000", 1000)),
        "-j",
        "32",
    )
    memory_command = (
        program,
        "transcribe",
        str(_create_recordings(directory / "recordings-10000", 10_000)),
        "-j",
        "32",
        *rerun_options,
    )
    return [
        build_case("batch-20", "directory: 20 files, -j 8", 20, 8, 1300, is_heavy=False),
        build_case("batch-1000", "directory: 1,000 files, -j 32", 1000, 32, ideal_ms / 0.85, is_heavy=True),
        Case(
            "batch-unchanged",
            unchanged_command,
            (
                Metric(
                    "directory: 1,000 files unchanged",
                    get_elapsed_ms,
                    goal=Goal("at most", 1000),
                    baselines=frozenset(),
                ),
            ),
            setup=unchanged_command,
            environment=build_openrouter_environment(f"{url}/v1"),
        ),
        Case(
            "batch-memory",
            memory_command,
            (Metric("directory: peak, 10,000 files", get_peak_mib, "MiB", Goal("at most", 150), frozenset()),),
            environment=build_openrouter_environment(f"{url}/v1"),
            is_heavy=True,
        ),
    ]


def _create_recordings(directory: Path, count: int) -> Path:
    """Create short recordings with different contents."""
    directory.mkdir(exist_ok=True)
    for number in range(count):
        path = directory / f"{number:05}.wav"
        _create_recording(path, 3200)
        with path.open("r+b") as file:
            file.seek(44)
            file.write(number.to_bytes(4, "little"))
    return directory


def _build_form_curl(url: str, path: Path) -> tuple[str, ...]:
    fields = ("-F", "model=whisper-1", "-F", f"file=@{path}")
    return ("curl", "-q", "-sS", "-o", os.devnull, *fields, f"{url}/v1/audio/transcriptions")


def _create_recording(path: Path, size_bytes: int) -> None:
    """Create a sparse WAV file of silence, mono and 16 bit."""
    numbers = ((size_bytes + 36, 4), (16, 4), (1, 2), (1, 2), (RATE_HZ, 4), (2 * RATE_HZ, 4), (2, 2), (16, 2))
    riff, *shape = (value.to_bytes(width, "little") for value, width in numbers)
    with path.open("wb") as file:
        file.write(b"RIFF" + riff + b"WAVEfmt " + b"".join(shape) + b"data" + size_bytes.to_bytes(4, "little"))
        file.truncate(44 + size_bytes)
