"""Recordings from a microphone: `--mic`, `--device` and `--list-devices`."""

from __future__ import annotations

import io
import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, NamedTuple

import typer

from ..context import AppContext
from ..errors import ExitCode, OutputError, RecordingError, UsageError

if TYPE_CHECKING:
    import asyncio

    from ..audio.level import LevelMeter
    from ..console import Console, ProgressState
    from ..microphone import InputDevice, Microphone
    from ..types.json import Json

# A recording ends after this much silence that follows sound, or without any sound.
MAX_SILENCE_S = 4.0
MAX_WAIT_S = 30.0
MAX_RECORDING_S = 4 * 3600.0
READ_TIMEOUT_S = 0.2
# A device that delivers nothing for this long does not work.
MAX_STALL_S = 10.0


class MicrophoneOptions(NamedTuple):
    """Options of commands that can record."""

    mic: Annotated[
        bool, typer.Option("--mic", help="Record from the microphone; silence, Enter or Ctrl-C ends the recording.")
    ] = False
    device: Annotated[
        str | None, typer.Option("--device", metavar="N|NAME", help="Microphone: its number, or a part of its name.")
    ] = None
    list_devices: Annotated[bool, typer.Option("--list-devices", help="List the microphones.")] = False


def validate_options(options: MicrophoneOptions, *, dry_run: bool) -> None:
    """Check the combination of options. Raises: UsageError."""
    if options.device is not None and not options.mic:
        raise UsageError("--device requires --mic", hint="remove it; the local engines use a GPU if there is one")
    if options.mic and dry_run:
        raise UsageError(
            "--mic cannot be used with --dry-run", hint="the duration is unknown before the recording ends"
        )


def print_devices(console: Console, command: str, *, as_json: bool) -> int:
    """Print the microphones. Return the exit code. Raises: AccessError."""
    from ..microphone import list_devices

    devices = list_devices()
    if as_json:
        rows: list[Json] = [
            {
                "number": device.number,
                "name": device.name,
                "channels": device.channels,
                "sample_rate_hz": device.sample_rate_hz,
                "is_default": device.is_default,
            }
            for device in devices
        ]
        console.write_json({"ok": True, "command": command, "devices": rows})
        return ExitCode.OK
    if not devices:
        console.info("no microphone found")
        return ExitCode.OK
    console.write_table(
        ("device", "name", "channels", "rate", "default"),
        [
            (
                str(device.number),
                device.name,
                str(device.channels),
                f"{device.sample_rate_hz} Hz",
                "yes" if device.is_default else "",
            )
            for device in devices
        ],
        numeric=(True, False, True, True, False),
    )
    return ExitCode.OK


@contextmanager
def open_microphone_recording(app: AppContext, console: Console, options: MicrophoneOptions) -> Iterator[Path]:
    """Record to a WAV file in the data directory, and provide it. It is removed unless the block fails.

    Raises:
        AccessError: sounddevice or PortAudio is not installed.
        UsageError: There is no such microphone, or it cannot be opened.
        RecordingError: There was no sound.
        OutputError: The file cannot be written.
    """
    from ..microphone import find_device

    device = find_device(options.device)
    directory = app.records_directory / "recordings"
    path = directory / f"{app.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}.wav"
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise OutputError(f"cannot create {directory}: {error.strerror}") from error
    try:
        app.run(
            lambda ctx: _record(app, console, device, path),
            read_timeout_s=READ_TIMEOUT_S,
            info=console.info,
            debug=console.debug,
        )
    except KeyboardInterrupt:
        console.hint(f"the recording is saved in {path}")
        raise
    try:
        yield path
    except BaseException:
        console.hint(f"the recording is saved in {path}")
        raise
    path.unlink(missing_ok=True)


async def _record(app: AppContext, console: Console, device: InputDevice, path: Path) -> None:
    from ..audio.level import LevelMeter
    from ..microphone import open_microphone
    from ..private_files import create_private_file

    with open_microphone(device) as microphone:
        meter = LevelMeter(microphone.pcm)
        end_keys = "silence, Enter or Ctrl-C ends it" if app.stdin.isatty() else "silence or Ctrl-C ends it"
        console.info(f"recording from {device.name}; {end_keys}")
        try:
            with create_private_file(path) as file:
                async with console.activity(lambda: _describe(meter)):
                    has_ended = await _write(app, microphone, meter, file)
        except OSError as error:
            raise OutputError(
                f"cannot write the recording: {error.strerror}", hint=f"the part recorded so far is saved in {path}"
            ) from error
        if microphone.has_lost_samples:
            console.warning("the computer was too slow: parts of the recording are missing")
    if not (meter.has_sound or (has_ended and meter.position_s)):
        _remove(path)
        raise RecordingError(
            f"no sound from {device.name} in {meter.position_s:.0f} s",
            hint="check that it is not muted; --list-devices shows the microphones",
        )


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _describe(meter: LevelMeter) -> ProgressState:
    from ..console import ProgressState
    from ..core.verdicts import format_time

    return ProgressState(f"recording {format_time(meter.position_s)}", meter.level_share, ("level",))


async def _write(app: AppContext, microphone: Microphone, meter: LevelMeter, file: BinaryIO) -> bool:
    """Write samples until the recording ends. Return whether the user ended it.

    The header is valid at any moment, also after a crash.
    """
    import asyncio

    from ..audio.formats import build_wav_header
    from ..threads import run_in_thread

    file.write(build_wav_header(microphone.pcm, None))
    has_ended = asyncio.Event()
    size_bytes, stalled_s = 0, 0.0
    with _handle_end_keys(app, has_ended):
        while not has_ended.is_set() and not _is_finished(meter):
            block = await run_in_thread(lambda: microphone.read(READ_TIMEOUT_S))
            stalled_s = 0.0 if block else stalled_s + READ_TIMEOUT_S
            if stalled_s >= MAX_STALL_S:
                break
            meter.feed(block)
            file.write(block)
            size_bytes += len(block)
    file.seek(0)
    file.write(build_wav_header(microphone.pcm, size_bytes))
    return has_ended.is_set()


def _is_finished(meter: LevelMeter) -> bool:
    if meter.position_s >= MAX_RECORDING_S:
        return True
    return meter.silent_s >= MAX_SILENCE_S if meter.has_sound else meter.position_s >= MAX_WAIT_S


@contextmanager
def _handle_end_keys(app: AppContext, has_ended: asyncio.Event) -> Iterator[None]:
    """Let Ctrl-C and, on a terminal, Enter end the recording, where the event loop can do that."""
    import asyncio

    loop = asyncio.get_running_loop()
    try:
        # `AppContext.run` restores the handler. A second Ctrl-C cancels the request.
        loop.add_signal_handler(signal.SIGINT, has_ended.set)
    except (NotImplementedError, ValueError, RuntimeError):  # Windows; not the main thread
        pass
    descriptor = _find_terminal(app)

    def read_key() -> None:
        if descriptor is not None:
            os.read(descriptor, 4096)
        has_ended.set()

    try:
        if descriptor is not None:
            loop.add_reader(descriptor, read_key)
        yield
    finally:
        if descriptor is not None:
            loop.remove_reader(descriptor)


def _find_terminal(app: AppContext) -> int | None:
    """Return the descriptor of stdin if it is a terminal."""
    try:
        return app.stdin.fileno() if app.stdin.isatty() else None
    except (OSError, ValueError, io.UnsupportedOperation):
        return None
