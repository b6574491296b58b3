"""What is measured of long texts and long recordings."""

from __future__ import annotations

import json
import random
from pathlib import Path

import gateway
from figures import SPEECH_MODEL, Figure, Goal, Row, elapsed_ms, openrouter, peak_mib
from rig import Installation, Sample

CHARACTERS = 100_000
JOBS = 8
# About as long as ours become, which end where a sentence does.
PIECE_CHARACTERS = 3_850
BESIDE_CURL = frozenset({"curl"})
RECORDING_S = 3 * 3600
VOCABULARY = "the quick brown fox jumps over a lazy dog while seven silver ships sail slowly past quiet harbours"


def long_rows(place: Installation, url: str, folder: Path) -> list[Row]:
    """Read a book aloud, into a file and into a pipe; hear three hours of mp3 and cut them.

    curl fetches as much through xargs, a file for each piece: nothing is joined, entered in a ledger or synced.
    """
    book = folder / "book.txt"
    book.write_text(_book(), encoding="utf-8")
    return [*_reading(place, f"{url}/reading/v1", book), *_cutting(place, folder)]


def times_ideal(sample: Sample) -> float:
    """From the first request to the end, in units of what the gateway alone would take for so many requests."""
    assert sample.first_received_ns is not None and sample.posts is not None
    ideal_s = -(-sample.posts // JOBS) * gateway.READING_S
    return (sample.ended_ns - sample.first_received_ns) / 1e9 / ideal_s


def first_sound_ms(sample: Sample) -> float:
    """From the first request to the first sound on the pipe."""
    assert sample.output_ns is not None and sample.first_received_ns is not None
    return (sample.output_ns - sample.first_received_ns) / 1e6


def _reading(place: Installation, url: str, book: Path) -> list[Row]:
    argv = (place.audiocli, "speak", "-F", str(book), "-m", SPEECH_MODEL, "-j", str(JOBS), "--no-resume")
    peak = Goal("at most", 120)
    curl = _curl(url, book)

    def into_file(format: str) -> Row:
        return Row(
            f"reading-{format}",
            (*argv, "-o", str(book.with_suffix(f".{format}"))),
            (
                Figure(f"100,000 characters as {format}", times_ideal, "× ideal", Goal("at most", 1.25), BESIDE_CURL),
                Figure(f"100,000 characters as {format}: peak", peak_mib, "MiB", peak, frozenset()),
            ),
            curl=curl,
            variables=openrouter(url),
            asks_gateway=True,
            heavy=True,
        )

    first_ms = gateway.READING_S * 1000 + 200
    piped = (
        Figure("100,000 characters: first sound", first_sound_ms, "ms", Goal("at most", first_ms), frozenset()),
        Figure("100,000 characters on a pipe: peak", peak_mib, "MiB", peak, frozenset()),
    )
    return [
        into_file("pcm"),
        into_file("wav"),
        Row(
            "reading-pipe",
            (*argv, "-f", "pcm", "-o", "-"),
            piped,
            variables=openrouter(url),
            watches_output=True,
            asks_gateway=True,
            heavy=True,
        ),
    ]


def _curl(url: str, book: Path) -> tuple[str, ...]:
    text, folder = book.read_text("utf-8"), book.with_suffix(".pieces")
    folder.mkdir()
    for number in range(-(-CHARACTERS // PIECE_CHARACTERS)):
        piece = text[number * PIECE_CHARACTERS : (number + 1) * PIECE_CHARACTERS]
        body = json.dumps({"model": SPEECH_MODEL, "input": piece, "response_format": "pcm"})
        (folder / f"{number:03}.json").write_text(body, encoding="utf-8")
    one = f"curl -q -sS -H 'Content-Type: application/json' -d @{{}} -o {{}}.pcm {url}/audio/speech"
    return ("sh", "-c", f"find {folder} -name '*.json' -print0 | xargs -0 -P {JOBS} -I{{}} {one}")


def _cutting(place: Installation, folder: Path) -> list[Row]:
    program, recording = str(Path(__file__).with_name("recording.py")), folder / "hours.mp3"

    def cut(how: str, times_real: float) -> Row:
        return Row(
            f"cutting-{how}",
            (place.python, program, str(recording), how),
            (
                Figure(f"3 hours of mp3, {how}", elapsed_ms, goal=Goal("at most", RECORDING_S / times_real * 1000)),
                Figure(f"3 hours of mp3, {how}: peak", peak_mib, "MiB", Goal("at most", 150), frozenset()),
            ),
            before=(place.python, program, str(recording), "--make"),
            heavy=True,
        )

    return [cut("copied", 400), cut("encoded", 200)]


def _book() -> str:
    """Make a text in which no sentence is like another."""
    dice, words = random.Random(1), VOCABULARY.split()

    def sentence() -> str:
        return " ".join(dice.choice(words) for _ in range(dice.randint(6, 16))).capitalize() + "."

    paragraphs: list[str] = []
    while sum(map(len, paragraphs)) < CHARACTERS:
        paragraphs.append(" ".join(sentence() for _ in range(dice.randint(3, 8))))
    return "\n\n".join(paragraphs)[:CHARACTERS]
