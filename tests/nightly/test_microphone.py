"""Record from a real sound server: PulseAudio with a null sink, whose monitor is the microphone, and PortAudio."""

from __future__ import annotations

import array
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from audiocli.mock import KEYS, MockGateway
from tests.pyav_codec import CODEC
from tests.requirements import require_packages, require_program

START_TIMEOUT_S = 20.0


@pytest.fixture
def sound_server(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Start PulseAudio in a directory of its own, and return the environment that selects it."""
    require_packages("sounddevice", extras="mic")
    program = require_program("pulseaudio")
    control = require_program("pactl")
    home, runtime = tmp_path / "home", tmp_path / "runtime"
    home.mkdir()
    runtime.mkdir(mode=0o700)
    (home / ".asoundrc").write_text("pcm.!default { type pulse }\nctl.!default { type pulse }\n")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(runtime),
        "PULSE_RUNTIME_PATH": str(runtime / "pulse"),
        "LANG": "C.UTF-8",
    }
    modules = ("module-native-protocol-unix", "module-null-sink sink_name=speaker")
    server = subprocess.Popen(
        [program, "-n", "--daemonize=no", "--exit-idle-time=-1", *(f"--load={module}" for module in modules)],
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while subprocess.run([control, "set-default-source", "speaker.monitor"], env=environment).returncode:
            assert time.monotonic() < deadline_s and server.poll() is None, "PulseAudio did not start"
            time.sleep(0.1)
        yield environment
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(10)


def measure_frequency_hz(recording: bytes | None) -> float:
    """Return the frequency of a tone in a recording, over the second that follows its start by 0.5 s."""
    rate_hz = 16_000
    decode = (require_program("ffmpeg"), "-v", "error", "-i", "-", "-f", "s16le", "-ac", "1", "-ar", str(rate_hz), "-")
    done = subprocess.run(decode, input=recording, capture_output=True, check=True)
    samples = array.array("h", done.stdout)
    start = next(index for index, sample in enumerate(samples) if abs(sample) > 1000) + rate_hz // 2
    second = samples[start : start + rate_hz]
    return sum((a < 0) != (b < 0) for a, b in itertools.pairwise(second)) / 2


def test_sound_of_the_machine_is_recorded_and_sent(sound_server: dict[str, str], tmp_path: Path) -> None:
    tone = tmp_path / "tone.wav"
    subprocess.run(
        [require_program("ffmpeg"), "-v", "error", "-f", "lavfi", "-i", "sine=frequency=440:duration=3", tone],
        check=True,
    )
    with MockGateway(CODEC) as gateway:
        environment = sound_server | {"OPENAI_API_KEY": KEYS["openai"], "OPENAI_BASE_URL": gateway.base_url("openai")}
        command = subprocess.Popen(
            [sys.executable, "-m", "audiocli", "transcribe", "--mic"],
            env=environment,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert command.stderr is not None and "recording from" in command.stderr.readline()
        subprocess.run([require_program("paplay"), "--device=speaker", tone], env=sound_server, check=True, timeout=30)
        out, err = command.communicate(timeout=60)  # four seconds of silence end the recording

    assert (command.returncode, len(out.split())) == (0, 9), err
    (request,) = [request for request in gateway.requests if request.path.endswith("/transcriptions")]
    assert measure_frequency_hz(request.audio) == pytest.approx(440, abs=5)
