"""Record from a microphone with sounddevice, which uses PortAudio. No other module imports it."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from .errors import AccessError, UsageError
from .types.audio import PcmFormat

# The rate of speech recognition. A device that cannot record at it is asked for its own rate.
PREFERRED_RATE_HZ = 16_000
BLOCK_S = 0.05
MISSING_HINT = 'pip install "audiocli[mic]"'


class InputDevice(NamedTuple):
    """A device that can record."""

    number: int
    name: str
    channels: int
    sample_rate_hz: int
    is_default: bool


class Microphone:
    """An open microphone. `has_lost_samples`: the computer was too slow to read some of them."""

    def __init__(self, pcm: PcmFormat) -> None:
        self.pcm = pcm
        self.has_lost_samples = False
        self._blocks: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read(self, timeout_s: float) -> bytes:
        """Return the next samples; b"" if there are none within the timeout."""
        try:
            return self._blocks.get(timeout=timeout_s)
        except queue.Empty:
            return b""

    def handle_block(self, content: Any, frame_count: int, time: Any, status: Any) -> None:
        """Take a block from the thread of PortAudio."""
        self.has_lost_samples = self.has_lost_samples or bool(status.input_overflow)
        self._blocks.put(bytes(content))


def list_devices() -> tuple[InputDevice, ...]:
    """Return the devices that can record.

    Raises:
        AccessError: sounddevice or PortAudio is not installed.
    """
    library = _load_library()
    try:
        devices: Sequence[Any] = library.query_devices()
        default = library.default.device[0]
    except library.PortAudioError as error:
        raise UsageError(f"cannot list the microphones: {error}") from error
    return tuple(
        InputDevice(
            number=number,
            name=str(device["name"]),
            channels=int(device["max_input_channels"]),
            sample_rate_hz=round(device["default_samplerate"]),
            is_default=number == default,
        )
        for number, device in enumerate(devices)
        if device["max_input_channels"] > 0
    )


def find_device(wanted: str | None) -> InputDevice:
    """Return the device with a number or with a part of its name; the default one for None.

    Raises:
        AccessError: sounddevice or PortAudio is not installed.
        UsageError: There is no such microphone, or several match.
    """
    devices = list_devices()
    if not devices:
        raise UsageError("no microphone found", hint="connect one, or check that the system lets programs use it")
    if wanted is None:
        return next((device for device in devices if device.is_default), devices[0])
    text = wanted.strip().lower()
    if text.isascii() and text.isdecimal():
        matches = [device for device in devices if device.number == int(text)]
    else:
        exact = [device for device in devices if device.name.lower() == text]
        matches = exact or [device for device in devices if text and text in device.name.lower()]
    if len(matches) != 1:
        problem = "several microphones match" if matches else "no microphone matches"
        raise UsageError(f"--device {wanted}: {problem}", hint="--list-devices shows the microphones")
    return matches[0]


@contextmanager
def open_microphone(device: InputDevice) -> Iterator[Microphone]:
    """Record from a device while the context is open, as one channel.

    Raises:
        AccessError: sounddevice or PortAudio is not installed.
        UsageError: The device cannot be opened.
    """
    library = _load_library()
    microphone = Microphone(PcmFormat(_choose_rate(library, device), 1))
    try:
        stream = library.RawInputStream(
            samplerate=microphone.pcm.sample_rate_hz,
            blocksize=round(BLOCK_S * microphone.pcm.sample_rate_hz),
            device=device.number,
            channels=1,
            dtype="int16",
            callback=microphone.handle_block,
        )
        stream.start()
    except (library.PortAudioError, ValueError) as error:
        raise UsageError(
            f"cannot open the microphone {device.name}: {error}", hint="--list-devices shows the microphones"
        ) from error
    try:
        yield microphone
    finally:
        stream.close()


def _choose_rate(library: Any, device: InputDevice) -> int:
    try:
        library.check_input_settings(device=device.number, channels=1, dtype="int16", samplerate=PREFERRED_RATE_HZ)
    except (library.PortAudioError, ValueError):
        return device.sample_rate_hz
    return PREFERRED_RATE_HZ


def _load_library() -> Any:
    try:
        import sounddevice
    except ImportError as error:
        raise AccessError("recording needs the package sounddevice", hint=MISSING_HINT) from error
    except OSError as error:  # the wheels for Linux do not contain PortAudio
        raise AccessError(
            "recording needs the library PortAudio", hint="install it: apt-get install libportaudio2"
        ) from error
    return sounddevice
