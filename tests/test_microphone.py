"""Test recordings from a microphone with a stub of sounddevice; tests/nightly has a real sound server."""

from __future__ import annotations

import array
import json
import math
import os
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Callable
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from audiocli.audio.level import LevelMeter
from audiocli.mock import DEFAULT_TRANSCRIPT, Status
from audiocli.types.audio import PcmFormat
from tests.conftest import CommandLine

TEXT = f"{DEFAULT_TRANSCRIPT}\n"
ROOT = Path(__file__).parent.parent
DEADLINE_S = 30.0

# Devices and samples come from the environment. The samples arrive as fast as they are read.
STUB = """
import os, threading, time


class PortAudioError(Exception):
    pass


class default:
    device = (2, 0)


def query_devices():
    if os.environ.get("MIC_DEVICES") == "none":
        return []
    return [
        {"name": "Speakers", "max_input_channels": 0, "default_samplerate": 48000.0},
        {"name": "USB Headset", "max_input_channels": 1, "default_samplerate": 44100.0},
        {"name": "Built-in Microphone", "max_input_channels": 2, "default_samplerate": 48000.0},
        {"name": "Webcam Microphone", "max_input_channels": 2, "default_samplerate": 32000.0},
    ]


def check_input_settings(device, channels, dtype, samplerate):
    assert (channels, dtype) == (1, "int16")
    if device == 1:
        raise PortAudioError("Invalid sample rate")


class Status:
    input_overflow = os.environ.get("MIC_OVERFLOW") == "1"


class RawInputStream:
    def __init__(self, *, samplerate, blocksize, device, channels, dtype, callback):
        if os.environ.get("MIC_BUSY"):
            raise PortAudioError("Device unavailable")
        with open(os.environ["MIC_SAMPLES"], "rb") as file:
            self.samples = file.read()
        with open(os.environ["MIC_SAMPLES"] + ".opened", "w") as file:
            file.write(f"{device} {samplerate}")
        self.size = blocksize * 2
        self.callback = callback
        self.is_open = True

    def start(self):
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        position = 0
        while self.is_open:
            block = self.samples[position : position + self.size]
            if not block and os.environ.get("MIC_ENDLESS"):
                position, block = 0, self.samples[: self.size]
                time.sleep(0.01)
            if not block:
                return
            position += self.size
            self.callback(memoryview(block), len(block) // 2, None, Status)

    def close(self):
        self.is_open = False
"""


def make_samples(*parts: tuple[float, int], rate_hz: int = 16_000) -> bytes:
    """Return tones: (seconds, amplitude)."""
    samples = array.array("h")
    for seconds, amplitude in parts:
        samples.extend(round(amplitude * math.sin(index * 0.3)) for index in range(round(seconds * rate_hz)))
    return samples.tobytes()


@pytest.fixture
def mic(audiocli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Connect a microphone that records these parts. Return the file of the samples."""
    stub = tmp_path / "stub"
    stub.mkdir()
    (stub / "sounddevice.py").write_text(STUB)
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.syspath_prepend(stub)

    def connect(*parts: tuple[float, int], rate_hz: int = 16_000, **variables: str) -> Path:
        path = tmp_path / "samples"
        path.write_bytes(make_samples(*parts, rate_hz=rate_hz))
        for name, value in {"MIC_SAMPLES": str(path), **variables}.items():
            monkeypatch.setenv(name, value)
            audiocli.variables[name] = value
        return path

    return connect


def list_saved(audiocli: CommandLine) -> list[Path]:
    return list(Path(audiocli.variables["XDG_DATA_HOME"]).rglob("recordings/*.wav"))


SPEECH = ((0.5, 0), (2.0, 8_000), (1.0, 20), (1.0, 8_000))


def test_recording_ends_with_silence(audiocli: CommandLine, mic: Callable[..., Path]) -> None:
    path = mic(*SPEECH, (60.0, 20))

    result = audiocli("transcribe", "--mic")

    assert (result.code, result.text) == (0, TEXT), result.err
    [request] = result.posts
    # Silence before and between the words does not end it; four seconds after them do.
    assert request.audio_s == pytest.approx(4.5 + 4.0, abs=0.3)
    assert path.with_name("samples.opened").read_text() == "2 16000"
    assert not list_saved(audiocli)


@pytest.mark.parametrize(
    ("device", "opened"), [("1", "1 44100"), ("webcam", "3 16000"), ("Built-in Microphone", "2 16000")]
)
def test_device_is_chosen_by_number_or_name(
    audiocli: CommandLine, mic: Callable[..., Path], device: str, opened: str
) -> None:
    rate_hz = int(opened.split()[1])
    path = mic((1.0, 8_000), (6.0, 10), rate_hz=rate_hz)

    result = audiocli("transcribe", "--mic", "--device", device)

    assert result.code == 0, result.err
    assert path.with_name("samples.opened").read_text() == opened
    assert result.posts[0].audio_s == pytest.approx(5.0, abs=0.3)


def test_devices_are_listed(audiocli: CommandLine, mic: Callable[..., Path]) -> None:
    mic()
    schema = json.loads((ROOT / "docs" / "schemas" / "devices.json").read_text("utf-8"))

    table = audiocli("transcribe", "--list-devices")
    listed = audiocli("chat", "--list-devices", "--json")

    assert "USB Headset" in table.text and "Speakers" not in table.text
    assert [(d["number"], d["is_default"]) for d in listed.json["devices"]] == [(1, False), (2, True), (3, False)]
    assert not table.requests and not listed.requests
    Draft202012Validator(schema).validate(listed.json)


@pytest.mark.parametrize("status", [401, 400])
def test_recording_is_saved_if_the_transcription_fails(
    audiocli: CommandLine, mic: Callable[..., Path], status: int
) -> None:
    mic(*SPEECH, (6.0, 20))
    audiocli.gateway.queue_faults(Status(status))

    failed = audiocli("transcribe", "--mic")

    [saved] = list_saved(audiocli)
    assert failed.code in (4, 6)
    assert str(saved) in failed.err.replace("\n", " ")
    with wave.open(str(saved)) as reader:
        assert reader.getnframes() / reader.getframerate() == pytest.approx(8.5, abs=0.3)
    again = audiocli("transcribe", saved)
    assert (again.code, again.text) == (0, TEXT)
    assert saved.stat().st_mode & 0o077 == 0


def test_recording_is_saved_without_a_key(audiocli: CommandLine, mic: Callable[..., Path]) -> None:
    mic(*SPEECH, (6.0, 20))

    result = audiocli("transcribe", "--mic", "-m", "openai:whisper-1")

    assert result.code == 4, result.err
    assert len(list_saved(audiocli)) == 1


def test_silent_microphone_is_an_error(audiocli: CommandLine, mic: Callable[..., Path]) -> None:
    mic((60.0, 3))

    result = audiocli("transcribe", "--mic")

    assert result.code == 8 and "no sound" in result.err
    assert not result.posts and not list_saved(audiocli)


@pytest.mark.parametrize(
    ("argv", "variables"),
    [
        (["--mic"], {"MIC_DEVICES": "none"}),
        (["--mic"], {"MIC_BUSY": "1"}),
        (["--mic", "--device", "9"], {}),
        (["--mic", "--device", "nothing"], {}),
        (["--mic", "--device", "microphone"], {}),
        (["--device", "1"], {}),
        (["--mic", "-n"], {}),
        (["--mic", "talk.wav"], {}),
        (["--mic", "-R"], {}),
        (["--mic", "-f", "txt,srt"], {}),
    ],
)
def test_impossible_recordings_are_refused(
    audiocli: CommandLine, mic: Callable[..., Path], argv: list[str], variables: dict[str, str]
) -> None:
    mic(*SPEECH, (6.0, 20), **variables)

    result = audiocli("transcribe", *argv)

    assert result.code == 2, result.err
    assert not result.posts and not list_saved(audiocli)


def test_missing_library_is_named(audiocli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)

    result = audiocli("transcribe", "--mic")

    assert result.code == 4 and "audiocli[mic]" in result.err


def test_outputs_are_named_after_the_microphone(
    audiocli: CommandLine, mic: Callable[..., Path], tmp_path: Path
) -> None:
    mic(*SPEECH, (6.0, 20), MIC_OVERFLOW="1")

    result = audiocli("transcribe", "--mic", "-f", "txt,srt", "-O", tmp_path / "out")

    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["microphone.srt", "microphone.txt"]
    assert "parts of the recording are missing" in result.err


def test_chat_sends_what_was_recorded(audiocli: CommandLine, mic: Callable[..., Path]) -> None:
    mic(*SPEECH, (6.0, 20))

    result = audiocli("chat", "--mic", "What is said?", "--no-stream")

    assert result.code == 0, result.err
    [(_, _, seconds)] = result.posts[0].recordings
    assert seconds == pytest.approx(8.5, abs=0.3)
    assert not list_saved(audiocli)


@pytest.mark.parametrize("end", ["enter", "ctrl-c"])
def test_keys_end_the_recording(audiocli: CommandLine, mic: Callable[..., Path], end: str) -> None:
    path = mic((1.0, 8_000), (0.5, 10), MIC_ENDLESS="1")
    terminal, child = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "audiocli", "transcribe", "--mic"],
        env={**audiocli.variables, "PYTHONPATH": f"{path.parent / 'stub'}:{ROOT}", "TERM": "dumb"},
        stdin=child,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(child)
    try:
        assert process.stderr is not None
        assert b"recording from Built-in Microphone" in process.stderr.readline()
        time.sleep(0.3)
        if end == "enter":
            os.write(terminal, b"\n")
        else:
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
        process.wait()
        os.close(terminal)

    assert (process.returncode, out.decode()) == (0, TEXT), err
    assert len(audiocli.gateway.posts) == 1
    assert not list_saved(audiocli)


# --- the level -------------------------------------------------------------------------------------------------------

PCM = PcmFormat(16_000, 1)


def measure(*parts: tuple[float, int], block_bytes: int = 1_234) -> LevelMeter:
    meter = LevelMeter(PCM)
    samples = make_samples(*parts)
    for start in range(0, len(samples), block_bytes):
        meter.feed(samples[start : start + block_bytes])
    return meter


def test_silence_is_counted_after_the_last_sound() -> None:
    meter = measure((1.0, 30), (1.0, 5_000), (2.0, 30))

    assert meter.has_sound
    assert meter.silent_s == pytest.approx(2.0, abs=0.1)
    assert meter.position_s == pytest.approx(4.0, abs=0.1)


@pytest.mark.parametrize("noise", [0, 3, 30, 300])
def test_steady_noise_is_silence(noise: int) -> None:
    assert not measure((10.0, noise)).has_sound


def test_voice_over_noise_is_sound() -> None:
    assert measure((1.0, 300), (0.5, 6_000), (1.0, 300)).has_sound


def test_click_is_no_sound() -> None:
    assert not measure((2.0, 10), (0.05, 20_000), (2.0, 10)).has_sound


def test_result_does_not_depend_on_the_blocks() -> None:
    parts = ((0.7, 20), (0.9, 7_000), (0.6, 25))
    levels = {
        (meter.silent_s, meter.level_dbfs, meter.has_sound)
        for meter in (measure(*parts, block_bytes=size) for size in (2, 1_000, 1_600, 99_999))
    }

    assert len(levels) == 1


def test_level_is_a_share_of_the_bar() -> None:
    assert measure((1.0, 0)).level_share == 0.0
    assert measure((1.0, 32_767)).level_share == pytest.approx(0.95, abs=0.01)
