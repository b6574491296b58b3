"""Find and run an external audio player.

Audio is spooled to a file while it is played, for three reasons: the download is not slowed down to playback speed, the
next player can start from the first byte if one fails, and paid audio is saved if every player fails.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import shutil
import time
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from ..audio.integrity import create_integrity_checker
from ..audio.wav import WAV_PROBE_BYTES, InvalidWav, parse_wav_header
from ..errors import OutputClosed, OutputError, UsageError
from ..processes import read_messages, start_process, stop_process
from ..types.audio import PcmFormat

FEED_BLOCK_BYTES = 64 * 1024
MAX_ERROR_CHARACTERS = 200
# A player that printed a message has played the audio if it ran for this share of its duration, less the tolerance.
MIN_PLAYED_SHARE = 0.9
PLAYED_TOLERANCE_S = 0.5
# Messages of ffplay, SDL and ALSA that mean that there is no sound, although the exit status is 0.
FATAL_PHRASES = (
    "audio open failed",
    "no more combinations to try",
    "could not initialize sdl",
    "no such audio device",
    "no available audio device",
    "unknown pcm",
    "cannot open audio device",
    "invalid data found when processing input",
    "could not find codec parameters",
)


class PlayerInput(Enum):
    """What a player reads."""

    ANY_FORMAT = "any format that can be detected, on stdin"
    WAV = "WAV, on stdin"
    RAW_PCM = "raw samples, on stdin; rate and channels are arguments"
    FILE = "a complete file"


class Player(NamedTuple):
    """An external player. `{rate}`, `{channels}` and `{file}` in its arguments are replaced when it starts.

    `has_unreliable_status`: it may exit with 0 although it failed, so its stderr and its running time are checked.
    """

    program: str
    arguments: tuple[str, ...]
    input_kind: PlayerInput
    has_unreliable_status: bool = False


# In order of preference. Inputs were tested with the packages of Debian 12.
PLAYERS = (
    Player(
        "ffplay",
        ("-nodisp", "-autoexit", "-loglevel", "error", "-i", "-"),
        PlayerInput.ANY_FORMAT,
        has_unreliable_status=True,
    ),
    Player("mpv", ("--no-terminal", "--no-video", "--", "-"), PlayerInput.ANY_FORMAT),
    Player("afplay", ("{file}",), PlayerInput.FILE),
    Player("pw-play", ("{file}",), PlayerInput.FILE),
    Player("paplay", ("--raw", "--format=s16le", "--rate={rate}", "--channels={channels}"), PlayerInput.RAW_PCM),
    Player("aplay", ("-q", "-"), PlayerInput.WAV),
    Player("play", ("-q", "-t", "wav", "-"), PlayerInput.WAV),
)


def find_players(environment: Mapping[str, str], command_line: str | None = None) -> tuple[Player, ...]:
    """Return the installed players, or the player of a command line.

    Raises:
        UsageError: The command line is invalid, or its program does not exist.
    """
    path = environment.get("PATH", os.defpath)
    if command_line is None:
        return tuple(player for player in PLAYERS if shutil.which(player.program, path=path))
    try:
        arguments = shlex.split(command_line)
    except ValueError as error:
        raise UsageError(f"--player: {error}") from error
    if not arguments or shutil.which(arguments[0], path=path) is None:
        raise UsageError(f"--player: program not found: {arguments[0] if arguments else command_line!r}")
    default_player = next((player for player in PLAYERS if player.program == Path(arguments[0]).name), None)
    has_unreliable_status = default_player is not None and default_player.has_unreliable_status
    if default_player is not None and len(arguments) == 1:
        return (default_player._replace(program=arguments[0]),)
    # Arguments of the user may contain braces (mpv options do), which are not placeholders.
    input_player = default_player if default_player is not None and "-" not in arguments else None
    user_arguments = tuple(argument.replace("{", "{{").replace("}", "}}") for argument in arguments[1:])
    if input_player is not None:
        return (
            Player(
                arguments[0],
                user_arguments + input_player.arguments,
                input_player.input_kind,
                has_unreliable_status,
            ),
        )
    return (Player(arguments[0], user_arguments, PlayerInput.ANY_FORMAT, has_unreliable_status),)


def get_required_format(players: tuple[Player, ...]) -> str | None:
    """Return the format that all these players can read, or None if they can read any format."""
    return None if all(player.input_kind is PlayerInput.ANY_FORMAT for player in players) else "wav"


class PlayerOutput:
    """The speaker output. Bytes are spooled immediately; a separate task feeds them to the player."""

    file = None

    def __init__(
        self,
        players: tuple[Player, ...],
        *,
        environment: Mapping[str, str],
        rescue_directory: Path,
        is_only_output: bool,
    ) -> None:
        """Prepare playback.

        Args:
            is_only_output: There is no other output, so closing the player ends the command.
        """
        self._players = players
        self._is_only_output = is_only_output
        self._spool_error: OutputError | None = None
        self._environment = dict(environment)
        self._rescue_directory = rescue_directory
        self._format = "wav"
        self._pcm = PcmFormat()
        self._spool_path: Path | None = None
        self._descriptor = -1
        self._size_bytes = 0
        self._changed = asyncio.Condition()
        self._is_complete = False
        self._feeder: asyncio.Task[None] | None = None

    @property
    def can_restart(self) -> bool:
        return self._size_bytes == 0

    async def begin(self, format: str, pcm: PcmFormat) -> None:
        self._format, self._pcm = format, pcm

    async def restart(self) -> None:
        return None

    async def write(self, block: bytes) -> None:
        """Spool a block.

        If there are other outputs, errors are raised by `commit`, so that the other outputs receive all of the audio.

        Raises:
            OutputClosed: The user closed the player.
            OutputError: The spool cannot be written.
        """
        if self._spool_error is not None:
            return
        if self._feeder is not None and self._feeder.done() and isinstance(self._feeder.exception(), OutputClosed):
            if self._is_only_output:
                raise OutputClosed
            return
        try:
            if self._spool_path is None:
                self._open_spool()
            view = memoryview(block)
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            self._spool_error = OutputError(f"cannot spool the audio for playback: {error.strerror}")
            if self._is_only_output:
                raise self._spool_error from error
            return
        async with self._changed:
            self._size_bytes += len(block)
            self._changed.notify_all()
        if self._feeder is None:
            self._feeder = asyncio.create_task(self._feed())

    async def commit(self) -> None:
        """Wait until playback ends.

        Raises:
            OutputError: Every player failed, or the spool could not be written.
            OutputClosed: The user closed the player.
        """
        async with self._changed:
            self._is_complete = True
            self._changed.notify_all()
        try:
            if self._feeder is not None:
                await self._feeder
        except OutputError:
            self._close()
            raise
        except OutputClosed:
            await self.abandon()
            if self._is_only_output:
                raise
            return
        except BaseException:
            await self.abandon()
            raise
        await self.abandon()
        if self._spool_error is not None:
            raise self._spool_error

    async def abandon(self) -> None:
        if self._feeder is not None:
            self._feeder.cancel()
            await asyncio.gather(self._feeder, return_exceptions=True)
        self._close()
        if self._spool_path is not None:
            self._spool_path.unlink(missing_ok=True)

    def _open_spool(self) -> None:
        spool_path = self._rescue_directory / f"{secrets.token_hex(4)}-played.{self._format}"
        self._rescue_directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._descriptor = os.open(spool_path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._spool_path = spool_path

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    async def _feed(self) -> None:
        """Try the players in order, each from the first byte, until one plays to the end. Raises: OutputError."""
        failures: list[str] = []
        for player in self._players:
            exit_status, error_line = await self._play(player)
            if exit_status == 0:
                return
            failures.append(f"{player.program}: {error_line or f'exit status {exit_status}'}")
        async with self._changed:
            await self._changed.wait_for(lambda: self._is_complete)
        raise OutputError(
            "every player failed: " + "; ".join(failures),
            hint=f"the audio is saved in {self._spool_path}",
            saved_path=str(self._spool_path),
        )

    async def _play(self, player: Player) -> tuple[int, str]:
        """Run one player on the spool. Return its exit status and the last line of its stderr."""
        assert self._spool_path is not None
        if player.input_kind is PlayerInput.FILE:
            async with self._changed:
                await self._changed.wait_for(lambda: self._is_complete)
        skipped_bytes = 0
        pcm = self._pcm
        if player.input_kind is PlayerInput.RAW_PCM:
            async with self._changed:
                await self._changed.wait_for(lambda: self._is_complete or self._size_bytes >= WAV_PROBE_BYTES)
            try:
                header = parse_wav_header(os.pread(self._descriptor, WAV_PROBE_BYTES, 0))
            except InvalidWav:
                header = None
            if header is None or header.codec != "pcm_s16le":
                return 1, "only 16-bit PCM is supported"
            skipped_bytes, pcm = header.data_offset, header.pcm
        placeholders = {"rate": pcm.sample_rate_hz, "channels": pcm.channels, "file": self._spool_path}
        arguments = [argument.format_map(placeholders) for argument in player.arguments]
        try:
            process = await start_process(
                [player.program, *arguments],
                environment=self._environment,
                has_stdin=player.input_kind is not PlayerInput.FILE,
                has_stdout=False,
            )
        except OSError as error:
            return 1, error.strerror or str(error)
        started_s = time.monotonic()
        try:
            consumed_all, messages = await asyncio.gather(
                self._copy_to_stdin(process, skipped_bytes), read_messages(process)
            )
            exit_status = await process.wait()
        except BaseException:
            await stop_process(process)
            raise
        error_line = messages[-1][:MAX_ERROR_CHARACTERS] if messages else ""
        if exit_status == 0 and player.has_unreliable_status and messages:
            fatal_line = next((line for line in messages if _is_fatal(line)), None)
            if fatal_line is not None:
                return 1, fatal_line[:MAX_ERROR_CHARACTERS]
            if not consumed_all or not self._has_run_long_enough(time.monotonic() - started_s):
                return 1, error_line
        if exit_status == 0 and not self._is_complete:
            raise OutputClosed
        return exit_status, error_line

    def _has_run_long_enough(self, elapsed_s: float) -> bool:
        """Return whether a player ran about as long as the audio; True if the duration is unknown."""
        checker = create_integrity_checker(self._format, self._pcm)
        offset = 0
        while block := os.pread(self._descriptor, FEED_BLOCK_BYTES, offset):
            checker.feed(block)
            offset += len(block)
        duration_s = checker.finish().duration_s
        return duration_s is None or elapsed_s >= duration_s * MIN_PLAYED_SHARE - PLAYED_TOLERANCE_S

    async def _copy_to_stdin(self, process: asyncio.subprocess.Process, offset: int) -> bool:
        """Copy the spool from `offset` to the player's stdin while it grows. Return whether the player read it all."""
        if process.stdin is None:
            return True
        try:
            while True:
                async with self._changed:
                    while not self._is_complete and self._size_bytes <= offset:
                        await self._changed.wait()
                block = os.pread(self._descriptor, FEED_BLOCK_BYTES, offset)
                if not block:
                    break
                offset += len(block)
                process.stdin.write(block)
                await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            return False  # the exit status has the reason
        finally:
            process.stdin.close()
        return True


def _is_fatal(line: str) -> bool:
    return any(phrase in line.lower() for phrase in FATAL_PHRASES)
