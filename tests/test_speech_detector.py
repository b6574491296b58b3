"""The speech detector: speech in any voice, quiet or noisy, is found; music, noise and signals are not."""

from __future__ import annotations

import math
import random
import tracemalloc
from array import array
from pathlib import Path

import pytest

from audiocli.audio.speech_detector import SAMPLE_RATE_HZ, SpeechDetector
from audiocli.codecs.speech_detector import measure_voiced_s, scan_speech
from audiocli.errors import RecordingError
from tests import signals
from tests.conftest import CommandLine
from tests.gateway_contract import build_wav
from tests.pyav_codec import encode
from tests.requirements import require_packages

TEXTS = {
    "en-us": "The quick brown fox jumps over the lazy dog, while seven wizards discuss the weather in the mountains.",
    "de": "Heute ist ein schöner Tag, und wir gehen zusammen in den Wald, um Pilze und Beeren zu sammeln.",
    "fr": "Nous sommes allés au marché ce matin pour acheter du pain, du fromage et quelques pommes rouges.",
    "ja": "きょうはてんきがいいので、ともだちといっしょにこうえんへさんぽにいきました。とてもたのしかったです。",
    "hi": "आज मौसम बहुत अच्छा है और हम सब मिलकर बाज़ार जाएँगे, वहाँ से फल और सब्ज़ियाँ खरीदेंगे।",
    "cmn": "今天天气很好，我们一起去公园散步，然后在湖边喝茶，聊一聊最近发生的有趣的事情。",
}
VOICES = [
    ("en-us", ""),
    ("en-us", "+f3"),
    ("en-us", "+m3"),
    ("de", ""),
    ("fr", "+f3"),
    ("ja", ""),
    ("hi", ""),
    ("cmn", ""),
]
CLEAR_S = 3.0


def measure(samples: bytes, block_bytes: int = 4_000) -> float:
    detector = SpeechDetector()
    for block in signals.split_blocks(samples, block_bytes):
        detector.feed(block)
    return detector.voiced_s


@pytest.mark.parametrize("name", signals.NOT_SPEECH)
def test_sound_without_speech_is_not_speech(name: str) -> None:
    assert measure(signals.to_samples(signals.NOT_SPEECH[name]())) == 0


@pytest.mark.parametrize("name", ["white noise", "melody with vibrato", "drums and melody", "hum"])
@pytest.mark.parametrize("peak", [100, 32_767])
def test_sound_without_speech_is_not_speech_at_any_level(name: str, peak: int) -> None:
    assert measure(signals.to_samples(signals.NOT_SPEECH[name](), peak)) == 0


@pytest.mark.parametrize("pitch_hz", [90, 120, 220])
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_sounds_like_speech_are_speech(seed: int, pitch_hz: float) -> None:
    voiced_s = measure(signals.to_samples(signals.make_speech(seed, pitch_hz=pitch_hz)))

    assert CLEAR_S <= voiced_s <= signals.SECONDS


@pytest.mark.parametrize(("voice", "variant"), VOICES, ids=[f"{voice}{variant}" for voice, variant in VOICES])
def test_synthetic_speech_is_speech_also_when_quiet(audiocli: CommandLine, voice: str, variant: str) -> None:
    require_packages("espeakng_loader")
    path, quiet_path = audiocli.directory / "speech.wav", audiocli.directory / "quiet.wav"
    r = audiocli("speak", "-g", "local", "-v", voice + variant, TEXTS[voice], "-o", path)
    assert r.code == 0, r.err
    samples = array("h", path.read_bytes()[44:])
    quiet_path.write_bytes(build_wav(array("h", (value // 32 for value in samples)).tobytes(), rate_hz=22_050))

    assert measure_voiced_s(path) >= CLEAR_S
    assert measure_voiced_s(quiet_path) >= CLEAR_S


def test_speech_in_noise_is_speech() -> None:
    speech, rng = array("h", signals.to_samples(signals.make_speech(3, 10))), random.Random(1)
    level = math.sqrt(sum(value * value for value in speech) / len(speech) / 10)  # 10 dB below the speech
    noisy = array("h", (max(-32_768, min(32_767, round(value + rng.gauss(0, level)))) for value in speech))

    assert measure(noisy.tobytes()) >= CLEAR_S


def test_result_does_not_depend_on_blocks() -> None:
    samples = signals.get_speech_samples()
    values = {measure(samples, block_bytes) for block_bytes in (2, 1_000, 7_778, len(samples))}

    assert len(values) == 1 and values.pop() >= CLEAR_S


def test_only_speech_between_other_sounds_is_counted() -> None:
    speech, noise = signals.get_speech_samples(), signals.to_samples(signals.make_noise())
    alone, between = measure(speech), measure(noise + noise + speech + noise)

    assert abs(between - alone) <= 1.5
    assert measure(speech + bytes(20 * 2 * SAMPLE_RATE_HZ) + speech) == pytest.approx(2 * alone, abs=1.5)


def test_short_passages_are_uncertain() -> None:
    word = signals.to_samples(signals.make_speech(3, 1.2))
    silence = bytes(5 * 2 * SAMPLE_RATE_HZ)

    assert measure((word + silence) * 6) == 0


@pytest.mark.parametrize("samples", [b"", bytes(2), signals.to_samples(signals.make_speech(2, 0.3))])
def test_recording_that_is_too_short_is_not_speech(samples: bytes) -> None:
    assert measure(samples) == 0


def test_memory_does_not_grow_with_the_recording() -> None:
    samples = signals.get_speech_samples()
    detector = SpeechDetector()
    detector.feed(samples)
    tracemalloc.start()
    for _ in range(5):
        detector.feed(samples)
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert detector.voiced_s > 5 * CLEAR_S
    assert held_bytes < 100_000


@pytest.mark.parametrize("format", ["flac", "mp3", "opus"])
def test_speech_is_found_in_every_format(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"speech.{format}"
    path.write_bytes(encode(signals.get_speech_samples(), format, rate_hz=SAMPLE_RATE_HZ))

    assert measure_voiced_s(path) >= CLEAR_S


def test_search_ends_when_there_is_enough_speech(tmp_path: Path) -> None:
    path = tmp_path / "speech.wav"
    path.write_bytes(build_wav(signals.get_speech_samples() * 4, rate_hz=SAMPLE_RATE_HZ))

    steps = list(scan_speech(path))
    assert steps == sorted(steps)
    assert CLEAR_S <= measure_voiced_s(path, enough_s=CLEAR_S) < steps[-1] / 2


def test_file_that_is_no_recording_cannot_be_measured(tmp_path: Path) -> None:
    path = tmp_path / "notes.wav"
    path.write_text("not a recording")

    with pytest.raises(RecordingError):
        measure_voiced_s(path)
