"""What is measured: the commands, what they are compared with, and how good they should be."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import gateway
from figures import (
    HEARING_MODEL,
    KEY,
    SPEECH_MODEL,
    Figure,
    Goal,
    Row,
    elapsed_ms,
    first_byte_ms,
    openrouter,
    peak_mib,
    request_ms,
)
from long_rows import long_rows
from rig import Installation

RATE_HZ = 16_000


def all_rows(place: Installation, url: str, folder: Path) -> list[Row]:
    """Make the files that the commands need in `folder`, and give the commands."""
    program = place.audiocli
    some_entry = (program, "speak", "Hello", "-o", str(folder / "hello.mp3"))
    list_of_models = (program, "models", "-g", "openrouter")
    return [
        _light("version", (program, "--version"), 2),
        _light("help", (program, "--help"), 8),
        _light("usage", (program, "usage"), 9, before=some_entry, variables=openrouter(f"{url}/v1")),
        _light(
            "tab",
            (program, "--complete", "models:speech", "openrouter:a", "speak", "-m"),
            2,
            before=list_of_models,
            variables=openrouter(f"{url}/v1"),
            may_be_missing=True,
        ),
        _million(place, folder),
        *_speaking(program, url, folder),
        *_transcribing(program, url, folder),
        *_uploads(program, url, folder, "100mb", 100_000_000),
        *_uploads(program, url, folder, "1gb", 1_000_000_000),
        *_folders(program, url, folder),
        *long_rows(place, url, folder),
    ]


def bare(place: Installation) -> tuple[str, ...]:
    """The interpreter alone: no command of a Python program can be faster."""
    return (place.python, "-c", "pass")


def _light(
    name: str,
    argv: tuple[str, ...],
    times_bare: float,
    *,
    before: tuple[str, ...] | None = None,
    variables: Mapping[str, str] | None = None,
    may_be_missing: bool = False,
) -> Row:
    figures = (Figure(name, elapsed_ms, goal=Goal("times bare", times_bare)),)
    return Row(name, argv, figures, before=before, variables=variables or {}, may_be_missing=may_be_missing)


def _million(place: Installation, folder: Path) -> Row:
    """Report over a million entries; `money.py` makes them, and measures the ledger itself."""
    ledger = folder / "million.sqlite3"
    return Row(
        "usage-million",
        (place.audiocli, "usage"),
        (Figure("usage: a million entries", elapsed_ms, goal=Goal("at most", 500)),),
        before=(place.python, str(Path(__file__).with_name("money.py")), "--fill", str(ledger)),
        variables={"AUDIOCLI_LEDGER": str(ledger)},
        may_be_missing=True,
    )


def _speaking(program: str, url: str, folder: Path) -> list[Row]:
    at_once, trickling = f"{url}/v1", f"{url}/trickle/v1"
    curl = ("curl", "-q", "-sS", "-H", "Content-Type: application/json", "-H", f"Authorization: Bearer {KEY}")

    def body(format_: str) -> str:
        return json.dumps({"model": SPEECH_MODEL, "input": "Hello", "response_format": format_})

    mp3 = str(folder / "hello.mp3")
    return [
        Row(
            "speak",
            (program, "speak", "Hello", "-o", mp3),
            (Figure("speak: one word to a file", elapsed_ms, goal=Goal("over bare", 190)),),
            curl=(*curl, "-o", mp3, "-d", body("mp3"), f"{at_once}/audio/speech"),
            variables=openrouter(at_once),
        ),
        Row(
            "first-byte",
            (program, "speak", "Hello", "-o", "-"),
            (
                Figure("speak: start-up to request", request_ms),
                Figure(
                    "speak: first byte on a pipe", first_byte_ms, goal=Goal("at most", 20), beside=frozenset({"curl"})
                ),
            ),
            curl=(*curl, "-N", "-d", body("mp3"), f"{trickling}/audio/speech"),
            variables=openrouter(trickling),
            watches_output=True,
            asks_gateway=True,
        ),
        Row(
            "first-byte-converted",
            (program, "speak", "Hello", "-f", "flac", "-o", "-"),
            (Figure("speak: the same as flac", first_byte_ms, beside=frozenset({"curl"})),),
            curl=(*curl, "-N", "-d", body("pcm"), f"{trickling}/audio/speech"),
            variables=openrouter(trickling),
            watches_output=True,
            asks_gateway=True,
        ),
    ]


def _transcribing(program: str, url: str, folder: Path) -> list[Row]:
    wav, mp3 = folder / "speech.wav", folder / "speech.mp3"
    _recording(wav, 3 * 2 * RATE_HZ)
    mp3.write_bytes(gateway.MP3_FRAME * round(3 / (1152 / 44_100)))
    return [
        Row(
            f"transcribe-{path.suffix[1:]}",
            (program, "transcribe", str(path)),
            (Figure(f"transcribe: 3 s of {path.suffix[1:]}", elapsed_ms),),
            curl=_form(url, path),
            variables=openrouter(f"{url}/v1"),
        )
        for path in (wav, mp3)
    ]


def _uploads(program: str, url: str, folder: Path, size: str, size_bytes: int) -> list[Row]:
    """Upload one recording as base64 in JSON (OpenRouter) and as a form (a server at home, so that no limit holds).

    Files are sparse. For JSON, curl sends a file of as many bytes: it cannot make base64.
    """
    wav, as_many = folder / f"{size}.wav", folder / f"{size}.base64"
    _recording(wav, size_bytes)
    with as_many.open("wb") as file:
        file.truncate(4 * ((wav.stat().st_size + 2) // 3))
    config = folder / "config.toml"
    config.write_text(f'[gateways.home]\ndialect = "openai"\nbase_url = "{url}/v1"\n', encoding="utf-8")
    raw = ("curl", "-q", "-sS", "-o", os.devnull, "-X", "POST", "-T", str(as_many), f"{url}/v1/audio/transcriptions")

    def row(form: str, model: str, variables: Mapping[str, str], curl: tuple[str, ...]) -> Row:
        name = f"upload-{form}-{size}"
        first = f"upload-{form}-100mb"
        goal = Goal("at most", 90) if name == first else Goal("over row", 5, first)
        words = size.replace("mb", " MB").replace("gb", " GB")
        return Row(
            name,
            # Whole: it would be heard and cut otherwise, and silence is not sent.
            (program, "transcribe", str(wav), "-m", model, "--no-split"),
            (
                Figure(f"upload: peak, {words} as {form}", peak_mib, "MiB", goal, frozenset()),
                Figure(f"upload: time, {words} as {form}", elapsed_ms, beside=frozenset({"curl"})),
            ),
            curl=curl,
            variables=variables,
            heavy=True,
        )

    return [
        row("json", f"openrouter:{HEARING_MODEL}", openrouter(f"{url}/v1"), raw),
        row("form", "home:whisper-1", {"AUDIOCLI_CONFIG": str(config)}, _form(url, wav)),
    ]


def _folders(program: str, url: str, folder: Path) -> list[Row]:
    """Transcribe folders: all anew against a gateway that thinks, unchanged, and many for the memory.

    The ideal is that the gateway's own time is all that passes: files over jobs, rounded up, times `gateway.SLOW_S`.
    curl does the same through xargs, a process for each file, and keeps no account of anything.
    """
    anew = ("--force", "--no-resume")

    def batch(name: str, label: str, files: int, jobs: int, most_ms: float, *, heavy: bool) -> Row:
        place = _many(folder / f"folder-{files}", files)
        form = f"-F model=whisper-1 -F file=@{{}} {url}/slow/v1/audio/transcriptions"
        curl = f"find {place} -name '*.wav' -print0 | xargs -0 -P {jobs} -I{{}} curl -q -sS -o {os.devnull} {form}"
        return Row(
            name,
            (program, "transcribe", str(place), "-j", str(jobs), "-O", str(folder / "out"), *anew),
            (Figure(label, elapsed_ms, goal=Goal("at most", most_ms), beside=frozenset({"curl"})),),
            curl=("sh", "-c", curl),
            variables=openrouter(f"{url}/slow/v1"),
            heavy=heavy,
        )

    ideal_ms = -(-1000 // 32) * gateway.SLOW_S * 1000
    unchanged = (program, "transcribe", str(_many(folder / "folder-1000", 1000)), "-j", "32")
    many = (program, "transcribe", str(_many(folder / "folder-10000", 10_000)), "-j", "32", *anew)
    return [
        batch("batch-20", "folder: 20 files, -j 8", 20, 8, 1300, heavy=False),
        batch("batch-1000", "folder: 1,000 files, -j 32", 1000, 32, ideal_ms / 0.85, heavy=True),
        Row(
            "batch-unchanged",
            unchanged,
            (Figure("folder: 1,000 files unchanged", elapsed_ms, goal=Goal("at most", 1000), beside=frozenset()),),
            before=unchanged,
            variables=openrouter(f"{url}/v1"),
        ),
        Row(
            "batch-memory",
            many,
            (Figure("folder: peak, 10,000 files", peak_mib, "MiB", Goal("at most", 150), frozenset()),),
            variables=openrouter(f"{url}/v1"),
            heavy=True,
        ),
    ]


def _many(folder: Path, count: int) -> Path:
    """Make short recordings, no two with the same content."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        path = folder / f"{number:05}.wav"
        _recording(path, 3200)
        with path.open("r+b") as file:
            file.seek(44)
            file.write(number.to_bytes(4, "little"))
    return folder


def _form(url: str, path: Path) -> tuple[str, ...]:
    fields = ("-F", "model=whisper-1", "-F", f"file=@{path}")
    return ("curl", "-q", "-sS", "-o", os.devnull, *fields, f"{url}/v1/audio/transcriptions")


def _recording(path: Path, size_bytes: int) -> None:
    """Make a wav file of silence, mono and 16 bit, which takes no room on the disk."""
    numbers = ((size_bytes + 36, 4), (16, 4), (1, 2), (1, 2), (RATE_HZ, 4), (2 * RATE_HZ, 4), (2, 2), (16, 2))
    riff, *shape = (value.to_bytes(width, "little") for value, width in numbers)
    with path.open("wb") as file:
        file.write(b"RIFF" + riff + b"WAVEfmt " + b"".join(shape) + b"data" + size_bytes.to_bytes(4, "little"))
        file.truncate(44 + size_bytes)
