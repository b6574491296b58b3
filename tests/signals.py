"""Signals with and without speech, as mono samples at 8 kHz. Random parts are seeded."""

from __future__ import annotations

import itertools
import math
import random
from array import array
from collections.abc import Callable, Iterable, Iterator
from functools import cache

RATE_HZ = 8_000
SECONDS = 6.0
_COUNT = int(RATE_HZ * SECONDS)
_TABLE_SIZE = 4_096
_PEAK = 10_000

Signal = list[float]
# Pitch in Hz at a time in seconds.
Pitch = Callable[[float], float]


def _build_table(harmonics: int) -> list[float]:
    """Return one period of a tone whose harmonics fall like those of a saw tooth."""
    return [
        sum(math.sin(2 * math.pi * k * i / _TABLE_SIZE) / k for k in range(1, harmonics + 1))
        for i in range(_TABLE_SIZE)
    ]


_SINE, _REED, _SAW = _build_table(1), _build_table(4), _build_table(9)


def make_tone(pitch: Pitch, table: list[float] = _SINE, seconds: float = SECONDS) -> Signal:
    phase, tone = 0.0, []
    for index in range(int(RATE_HZ * seconds)):
        phase += pitch(index / RATE_HZ) * _TABLE_SIZE / RATE_HZ
        tone.append(table[int(phase) % _TABLE_SIZE])
    return tone


def mix(*signals: Signal) -> Signal:
    return [sum(values) for values in zip(*signals, strict=True)]


def modulate(signal: Signal, level: Pitch) -> Signal:
    """Multiply a signal with a level that depends on the time in seconds."""
    return [value * level(index / RATE_HZ) for index, value in enumerate(signal)]


def gate(signal: Signal, on_s: float, off_s: float) -> Signal:
    return modulate(signal, lambda at: float(at % (on_s + off_s) < on_s))


def make_noise(seed: int = 1, damping: float = 0.0) -> Signal:
    """Return white noise, or brown noise with a damping near 1."""
    rng, value, noise = random.Random(seed), 0.0, []
    for _ in range(_COUNT):
        value = damping * value + rng.uniform(-1, 1)
        noise.append(value)
    return noise


def make_pink_noise() -> Signal:
    return mix(*(make_noise(seed, damping) for seed, damping in enumerate((0.0, 0.9, 0.99, 0.997))))


def make_notes(
    note_s: float, table: list[float], *, seed: int, vibrato: float = 0.0, decay_s: float = 0.3, gap: float = 0.0
) -> Signal:
    """Return a melody. `vibrato` is a share of the pitch, and `gap` the silent share of each note."""
    rng, tone = random.Random(seed), []
    while len(tone) < _COUNT:
        pitch_hz = 220 * 2 ** (rng.choice((-5, -3, -1, 0, 2, 4, 5, 7, 9, 12)) / 12)
        length_s = note_s * rng.choice((0.5, 1, 1, 2))
        note = make_tone(
            lambda at, hz=pitch_hz: hz * (1 + vibrato * math.sin(35 * at)),
            table,
            length_s,  # type: ignore[misc]
        )
        sounding_s = length_s * (1 - gap)
        tone += modulate(
            note,
            lambda at, end=sounding_s: (at < end) * min(at / 0.01, 1) * math.exp(-at / decay_s),  # type: ignore[misc]
        )
    return tone[:_COUNT]


def make_plucked_strings(seed: int) -> Signal:
    """Return plucked strings (Karplus and Strong, 1983)."""
    rng, tone = random.Random(seed), []
    while len(tone) < _COUNT:
        buffer = [rng.uniform(-1, 1) for _ in range(RATE_HZ // rng.choice((110, 131, 147, 165, 196, 220, 262)))]
        for index in range(int(RATE_HZ * 0.4)):
            at, following = index % len(buffer), (index + 1) % len(buffer)
            tone.append(buffer[at])
            buffer[at] = 0.498 * (buffer[at] + buffer[following])
    return tone[:_COUNT]


def make_drums() -> Signal:
    rng, beats = random.Random(3), [0.0] * _COUNT
    for step, start in enumerate(range(0, _COUNT - RATE_HZ // 4, RATE_HZ // 8)):
        for index in range(RATE_HZ // 8):
            at = index / RATE_HZ
            if step % 4 == 0:
                beats[start + index] += math.sin(2 * math.pi * (60 * at + 4 * (1 - math.exp(-at * 30)))) * math.exp(
                    -at * 12
                )
            if step % 8 == 4:
                beats[start + index] += rng.uniform(-0.7, 0.7) * math.exp(-at * 20)
            beats[start + index] += rng.uniform(-0.2, 0.2) * math.exp(-at * 70)
    return beats


def make_chord(root_hz: float, third: int, seconds: float) -> Signal:
    pitches = [root_hz * 2 ** (step / 12) for step in (0, third, 7)]
    return modulate(
        mix(*(make_tone(lambda _, hz=hz: hz, _REED, seconds) for hz in pitches)),  # type: ignore[misc]
        lambda at: math.exp(-at),
    )


def make_chords(chord_s: float) -> Signal:
    chords = [make_chord(*chord, chord_s) for chord in ((131, 4), (175, 4), (110, 3), (196, 4))]
    return (list(itertools.chain(*chords)) * int(SECONDS / chord_s))[:_COUNT]


def make_touch_tones() -> Signal:
    rng, tone = random.Random(5), []
    while len(tone) < _COUNT:
        low, high = rng.choice((697, 770, 852, 941)), rng.choice((1209, 1336, 1477))
        tone += mix(make_tone(lambda _, hz=low: hz, _SINE, 0.1), make_tone(lambda _, hz=high: hz, _SINE, 0.1))  # type: ignore[misc]
        tone += [0.0] * (RATE_HZ // 10)
    return tone[:_COUNT]


def make_rain() -> Signal:
    rng, drops = random.Random(6), [value * 0.05 for value in make_pink_noise()]
    for _ in range(1_000):
        start, hz, level = rng.randrange(_COUNT - 300), rng.uniform(900, 3_500), rng.uniform(0.2, 1)
        for index in range(200):
            drops[start + index] += level * math.exp(-index / 30) * math.sin(2 * math.pi * hz * index / RATE_HZ)
    return drops


def make_clicks() -> Signal:
    rng = random.Random(7)
    return [float(rng.random() < 0.001) for _ in range(_COUNT)]


NOT_SPEECH: dict[str, Callable[[], Signal]] = {
    "silence": lambda: [0.0] * _COUNT,
    "white noise": make_noise,
    "pink noise": make_pink_noise,
    "brown noise": lambda: make_noise(damping=0.999),
    "noise with the rhythm of syllables": lambda: modulate(make_noise(), lambda at: 1 + 0.95 * math.sin(25 * at)),
    "rain": make_rain,
    "clicks": make_clicks,
    "hum": lambda: make_tone(lambda _: 50, _SAW),
    "hum with the rhythm of syllables": lambda: modulate(
        make_tone(lambda _: 100, _SAW), lambda at: 1 + 0.9 * math.sin(25 * at)
    ),
    "tone": lambda: make_tone(lambda _: 220),
    "beeps": lambda: gate(make_tone(lambda _: 300), 0.2, 0.15),
    "ringing": lambda: gate(mix(make_tone(lambda _: 440), make_tone(lambda _: 480)), 1, 2),
    "touch tones": make_touch_tones,
    "sweep": lambda: make_tone(lambda at: 50 + 600 * at),
    "repeated sweep": lambda: make_tone(lambda at: 100 + 300 * (at % 1), _SAW),
    "slow siren": lambda: make_tone(lambda at: 250 + 120 * math.sin(3 * at), _SAW),
    "fast siren with gaps": lambda: gate(make_tone(lambda at: 250 + 120 * math.sin(19 * at), _SAW), 0.25, 0.15),
    "two-tone siren": lambda: make_tone(lambda at: 290.0 if at % 1 < 0.5 else 390.0, _REED),
    "melody": lambda: make_notes(0.3, _REED, seed=8),
    "melody with vibrato": lambda: make_notes(0.3, _REED, seed=9, vibrato=0.03, decay_s=1),
    "staccato with vibrato": lambda: make_notes(0.25, _SAW, seed=10, vibrato=0.03, gap=0.4),
    "fast melody": lambda: make_notes(0.12, _SAW, seed=11),
    "plucked strings": lambda: make_plucked_strings(12),
    "chords": lambda: make_chords(0.5),
    "drums": make_drums,
    "drums and melody": lambda: mix(make_drums(), make_notes(0.25, _REED, seed=13, vibrato=0.02)),
}
"""Sounds that are not speech, by name: each a function, because making all of them takes seconds."""


def make_speech(seed: int = 1, seconds: float = SECONDS, pitch_hz: float = 120.0) -> Signal:
    """Return sounds like speech: syllables with a gliding pitch, moving formants, and consonants of noise.

    A source of pulses with three resonators (Klatt, 1980).
    """
    rng, speech = random.Random(seed), []
    resonators = [[0.0, 0.0] for _ in range(3)]
    formants = [500.0, 1_500.0, 2_500.0]
    phase = 0.0
    while len(speech) < RATE_HZ * seconds:
        is_pause = rng.random() < 0.1
        consonant_s, vowel_s = rng.uniform(0.04, 0.1), 0.0 if is_pause else rng.uniform(0.12, 0.25)
        targets = [rng.uniform(280, 800), rng.uniform(850, 2_200), rng.uniform(2_300, 3_200)]
        start_hz, end_hz = (pitch_hz * 2 ** (rng.uniform(-5, 5) / 12) for _ in range(2))
        if is_pause:
            speech += [rng.uniform(-0.002, 0.002) for _ in range(int(RATE_HZ * 0.3))]
        elif rng.random() < 0.6:
            hiss = [rng.uniform(-0.06, 0.06) for _ in range(int(RATE_HZ * consonant_s))]
            speech += [after - before for before, after in itertools.pairwise([0.0, *hiss])]
        count = int(RATE_HZ * vowel_s)
        for index in range(count):
            at = index / count
            phase += start_hz * (end_hz / start_hz) ** at / RATE_HZ
            value = 1.0 if phase >= 1 else 0.0
            phase %= 1
            formants = [hz + (target - hz) * 0.003 for hz, target in zip(formants, targets, strict=True)]
            for hz, memory in zip(formants, resonators, strict=True):
                radius = math.exp(-math.pi * (50 + 0.06 * hz) / RATE_HZ)
                value = (
                    value * 0.3 + 2 * radius * math.cos(2 * math.pi * hz / RATE_HZ) * memory[0] - radius**2 * memory[1]
                )
                memory[:] = value, memory[0]
            speech.append(8 * value * math.sin(math.pi * at) ** 0.5)
    return speech[: int(RATE_HZ * seconds)]


def to_samples(signal: Iterable[float], peak: int = _PEAK) -> bytes:
    """Return s16le samples with this peak."""
    values = list(signal)
    scale = peak / max(max(map(abs, values), default=0.0), 1e-9)
    return array("h", (round(value * scale) for value in values)).tobytes()


def split_blocks(samples: bytes, block_bytes: int) -> Iterator[bytes]:
    return (samples[start : start + block_bytes] for start in range(0, len(samples), block_bytes))


@cache
def get_speech_samples() -> bytes:
    """Return the samples of six seconds of `make_speech`."""
    return to_samples(make_speech(7, pitch_hz=220.0))
