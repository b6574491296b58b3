"""Tempo, sample rate and loudness of samples. The judge of the loudness is ffmpeg."""

from __future__ import annotations

import array
import itertools
import math
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiocli.audio.processing import Processing, fit_tempo
from audiocli.audio.speech_detector import SAMPLE_RATE_HZ
from audiocli.codecs.pcm_spool import SampleSpool
from audiocli.codecs.processing import (
    GainLimiter,
    LoudnessMeter,
    LoudnessNormalizer,
    SampleProcessor,
    TempoChanger,
    change_tempo,
)
from audiocli.types.audio import PcmFormat
from tests.requirements import require_program
from tests.signals import make_chords, make_drums, make_speech, mix, to_samples

MONO = PcmFormat(SAMPLE_RATE_HZ, 1)
SPEECH = to_samples(make_speech(seconds=8.0))
MUSIC = to_samples(mix(make_drums(), make_chords(0.5)))


def make_tone(pcm: PcmFormat, seconds: float, frequency_hz: float = 440.0) -> bytes:
    step = 2 * math.pi * frequency_hz / pcm.sample_rate_hz
    values = (int(9_000 * math.sin(i * step)) for i in range(round(pcm.sample_rate_hz * seconds)))
    return array.array("h", (value for value in values for _ in range(pcm.channels))).tobytes()


def measure_frequency_hz(samples: bytes, pcm: PcmFormat) -> float:
    """Count the zero crossings in the middle of the first channel."""
    values = array.array("h", samples)[:: pcm.channels]
    middle = values[len(values) // 4 : len(values) * 3 // 4]
    crossings = sum(1 for a, b in itertools.pairwise(middle) if (a < 0) != (b < 0))
    return crossings / 2 / (len(middle) / pcm.sample_rate_hz)


def normalize(samples: bytes, pcm: PcmFormat, target_lufs: float, directory: Path) -> tuple[bytes, float | None]:
    normalizer = LoudnessNormalizer(pcm, target_lufs, directory)
    for start in range(0, len(samples), 30_001):
        normalizer.feed(samples[start : start + 30_001])
    output = b"".join(normalizer.finish())
    normalizer.close()
    return output, normalizer.final_lufs


def judge_loudness(samples: bytes, pcm: PcmFormat) -> tuple[float, float]:
    """Return what ffmpeg measures: LUFS and dBTP."""
    command = [require_program("ffmpeg"), "-hide_banner", "-nostats", "-f", "s16le"]
    command += ["-ar", str(pcm.sample_rate_hz), "-ac", str(pcm.channels), "-i", "-"]
    command += ["-af", "ebur128=peak=true", "-f", "null", "-"]
    report = subprocess.run(command, input=samples, capture_output=True, check=True).stderr.decode()
    summary = report[report.rindex("Summary:") :]
    loudness, peak = re.search(r"I:\s+(\S+) LUFS", summary), re.search(r"Peak:\s+(\S+) dBFS", summary)
    assert loudness is not None
    assert peak is not None
    return float(loudness[1]), float(peak[1])


# --- tempo ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.25, 0.4, 0.5, 0.8, 1.0, 1.3, 2.0, 3.1, 4.0])
@pytest.mark.parametrize("pcm", [PcmFormat(8_000, 1), PcmFormat(24_000, 1), PcmFormat(48_000, 2)], ids=str)
def test_tempo_changes_the_duration_and_not_the_pitch(factor: float, pcm: PcmFormat) -> None:
    samples = make_tone(pcm, 3.0)

    output = change_tempo(samples, pcm, factor)

    assert len(output) == round(3.0 * pcm.sample_rate_hz / factor) * pcm.frame_bytes
    assert measure_frequency_hz(output, pcm) == pytest.approx(440, rel=0.03)


def test_tempo_keeps_the_times_of_sounds() -> None:
    """Short tones stay where they belong, so that captions and chapters can be scaled."""
    pcm = PcmFormat(24_000, 1)
    silence, tone = bytes(2 * 24_000), make_tone(pcm, 0.1)
    samples = b"".join(silence + tone for _ in range(20))

    output = array.array("h", change_tempo(samples, pcm, 1.25))

    for index in range(20):
        expected_start = round((index * 1.1 + 1.0) / 1.25 * 24_000)
        window = range(expected_start - 4_800, min(expected_start + 4_800, len(output)))
        loud = [position for position in window if abs(output[position]) > 2_000]
        assert abs(loud[0] - expected_start) < 0.03 * 24_000


@settings(max_examples=20, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9_000), min_size=1, max_size=6),
    length=st.integers(0, 40_000),
    factor=st.floats(0.25, 4.0),
)
def test_tempo_is_independent_of_block_size(sizes: list[int], length: int, factor: float) -> None:
    samples, changer, output, start = SPEECH[:length], TempoChanger(MONO, factor), bytearray(), 0
    for size in itertools.cycle(sizes):
        if start >= length:
            break
        output += changer.feed(samples[start : start + size])
        start += size
    output += changer.finish()

    assert len(output) == 2 * round(length // 2 / factor)
    assert bytes(output) == change_tempo(samples, MONO, factor)


def test_tempo_lags_behind_by_a_fixed_time() -> None:
    changer, fed_bytes, returned_bytes = TempoChanger(MONO, 1.5), 0, 0
    for start in range(0, len(SPEECH), 1_600):
        returned_bytes += len(changer.feed(SPEECH[start : start + 1_600]))
        fed_bytes += 1_600
        assert returned_bytes >= (fed_bytes / 1.5) - 0.4 * MONO.bytes_per_second


@pytest.mark.parametrize("factor", [0.0, 0.2, 4.1, math.inf, math.nan])
def test_tempo_out_of_range_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match="tempo"):
        TempoChanger(MONO, factor)


@pytest.mark.parametrize(
    ("duration_s", "available_s", "max_factor", "factor"),
    [
        (2.0, 2.0, 1.5, 1.0),
        (3.0, 2.0, 1.5, 1.5),
        (2.5, 2.0, 1.5, 1.25),
        (9.0, 2.0, 1.5, 1.5),
        (1.0, 2.0, 1.5, 1.0),
        (1.0, 0.0, 1.5, 1.5),
        (0.0, 0.0, 1.5, 1.0),
        (9.0, 1.0, 20.0, 4.0),
    ],
)
def test_tempo_fits_into_the_time_within_limits(
    duration_s: float, available_s: float, max_factor: float, factor: float
) -> None:
    assert fit_tempo(duration_s, available_s, max_factor) == factor


def test_speech_may_be_slowed_down() -> None:
    assert fit_tempo(1.0, 2.0, 1.5, min_factor=0.8) == 0.8


# --- tempo and sample rate --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 44_100, 192_000])
def test_sample_rate_and_tempo_are_applied_together(rate_hz: int) -> None:
    source = PcmFormat(24_000, 1)
    processor, samples = SampleProcessor(Processing(rate_hz, tempo=1.5), source), make_tone(source, 3.0)
    output = b"".join(processor.feed(samples[start : start + 5_001]) for start in range(0, len(samples), 5_001))
    output += processor.finish()

    assert processor.pcm == PcmFormat(rate_hz, 1)
    assert len(output) / processor.pcm.bytes_per_second == pytest.approx(2.0, abs=0.002)
    assert measure_frequency_hz(output, processor.pcm) == pytest.approx(440, rel=0.03)


def test_nothing_to_do_changes_nothing() -> None:
    processor = SampleProcessor(Processing(tempo=1.0, sample_rate_hz=SAMPLE_RATE_HZ), MONO)

    assert processor.feed(SPEECH) + processor.finish() == SPEECH
    assert not Processing(tempo=1.0).is_active
    assert Processing(loudness_lufs=-16.0).is_active


def test_times_are_scaled_by_the_tempo() -> None:
    assert Processing(tempo=1.25).scale == 0.8
    assert Processing(8_000).scale == 1.0


# --- loudness ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target_lufs", [-40.0, -23.0, -16.0, -14.0])
@pytest.mark.parametrize("sound", ["speech", "music"])
@pytest.mark.parametrize("channels", [1, 2])
def test_loudness_is_reached_without_high_peaks(sound: str, target_lufs: float, channels: int, tmp_path: Path) -> None:
    samples = {"speech": SPEECH, "music": MUSIC}[sound]
    pcm = MONO._replace(channels=channels)
    if channels == 2:
        values = array.array("h", samples)
        samples = array.array("h", (value for value in values for _ in range(2))).tobytes()

    output, final_lufs = normalize(samples, pcm, target_lufs, tmp_path)

    loudness, peak = judge_loudness(output, pcm)
    assert len(output) == len(samples)
    assert loudness == pytest.approx(target_lufs, abs=0.5)
    assert peak <= -1.0
    assert final_lufs == pytest.approx(target_lufs, abs=0.5)
    assert list(tmp_path.iterdir()) == []


def test_gain_without_high_peaks_is_linear(tmp_path: Path) -> None:
    output, _ = normalize(SPEECH, MONO, -40.0, tmp_path)

    before, after = array.array("h", SPEECH), array.array("h", output)
    ratio = max(after) / max(before)
    assert all(abs(b - a * ratio) <= 1.5 for a, b in zip(before, after, strict=True))


def test_loudness_that_is_not_possible_is_reported(tmp_path: Path) -> None:
    output, final_lufs = normalize(SPEECH, MONO, -5.0, tmp_path)

    loudness, peak = judge_loudness(output, MONO)
    assert final_lufs is not None
    assert -12 < final_lufs < -6
    assert loudness == pytest.approx(final_lufs, abs=0.5)
    assert peak <= -1.0


@pytest.mark.parametrize(
    "samples", [b"", b"\x01", bytes(40_000), SPEECH[:4_000]], ids=["empty", "half a sample", "silence", "0.25 s"]
)
def test_loudness_that_cannot_be_measured_is_unchanged(samples: bytes, tmp_path: Path) -> None:
    assert normalize(samples, MONO, -16.0, tmp_path) == (samples, None)


def test_loudness_of_odd_lengths_is_measured(tmp_path: Path) -> None:
    """The last slice of a recording has no measurement of its own."""
    output, final_lufs = normalize(SPEECH[:-2_222], MONO, -30.0, tmp_path)

    assert final_lufs == -30.0
    assert judge_loudness(output, MONO)[0] == pytest.approx(-30.0, abs=0.5)


def test_meter_and_limiter_have_known_values() -> None:
    pcm = PcmFormat(48_000, 1)
    meter, limiter = LoudnessMeter(pcm), GainLimiter(pcm, 20.0, -6.0)
    # EBU Tech 3341: a sine of 1 kHz with a peak of -23 dBFS in both channels has -23 LUFS, so one channel has -26.
    values = (round(32_767 * 10 ** (-23 / 20) * math.sin(i * 2 * math.pi * 1_000 / 48_000)) for i in range(48_000 * 3))
    samples = array.array("h", values).tobytes()
    meter.feed(samples)
    loudness = meter.finish()
    limited = array.array("h", limiter.feed(samples) + limiter.finish())

    assert loudness.integrated_lufs == pytest.approx(-26.0, abs=0.1)
    assert loudness.true_peak_db == pytest.approx(-23.0, abs=0.1)
    assert 20 * math.log10(max(limited) / 32_768) == pytest.approx(-6.0, abs=0.1)
    assert len(limited) == 48_000 * 3


# --- spool ------------------------------------------------------------------------------------------------------------


def test_spool_is_unnamed(tmp_path: Path) -> None:
    spool = SampleSpool(tmp_path / "new")
    for block in (b"abcdef", b"", b"gh"):
        spool.write(block)

    assert list(spool.read_blocks(3)) == [b"abc", b"def", b"gh"]
    assert list((tmp_path / "new").iterdir()) == []
    spool.close()
