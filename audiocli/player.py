"""Players: finds one and feeds it. Owns subprocess.

What arrives is spooled to a file while it is fed, for three reasons: the network is not held to the speed of the
loudspeaker, a player that turns out not to work can be followed by the next from the first byte on, and what was paid
for is not lost when none works.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shlex
import shutil
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from .audio.wav import HEAD_BYTES as WAV_HEAD_BYTES
from .audio.wav import NotWav, wav_shape
from .errors import OutputError, OutputClosed, UsageError
from .types.values import Pcm

FEED_BYTES = 64 * 1024


class PlayerInput(Enum):
    """What a player understands on its standard input."""

    EVERYTHING = "any format that announces itself"
    WAV = "wav"
    RAW = "samples, whose shape is told in its arguments"
    FILE = "nothing: it wants a finished file"


class Player(NamedTuple):
    """`{rate}`, `{channels}` and `{file}` in the arguments are filled in when it starts."""

    program: str
    arguments: tuple[str, ...]
    takes: PlayerInput
    # Ends well even when it could not play: then what it complains about is all there is to go by.
    hides_failure: bool = False


# In the order of preference. What each takes was tried with Debian 12's packages.
PLAYERS = (
    Player("ffplay", ("-nodisp", "-autoexit", "-loglevel", "error", "-i", "-"), PlayerInput.EVERYTHING, hides_failure=True),
    Player("mpv", ("--no-terminal", "--no-video", "--", "-"), PlayerInput.EVERYTHING),
    Player("afplay", ("{file}",), PlayerInput.FILE),
    Player("pw-play", ("{file}",), PlayerInput.FILE),
    Player("paplay", ("--raw", "--format=s16le", "--rate={rate}", "--channels={channels}"), PlayerInput.RAW),
    Player("aplay", ("-q", "-"), PlayerInput.WAV),
    Player("play", ("-q", "-t", "wav", "-"), PlayerInput.WAV),
)


def find(variables: Mapping[str, str], command: str | None = None) -> tuple[Player, ...]:
    """List the players that are installed, or the one that the user names as a command line.

    Raises: UsageError: the named one is not there.
    """
    path = variables.get("PATH", os.defpath)
    if command is None:
        return tuple(player for player in PLAYERS if shutil.which(player.program, path=path))
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"--player: {error}") from error
    if not words or shutil.which(words[0], path=path) is None:
        raise UsageError(f"--player: there is no program {words[0] if words else command!r}")
    known = next((player for player in PLAYERS if player.program == Path(words[0]).name), None)
    if known is not None and len(words) == 1:
        return (Player(words[0], known.arguments, known.takes),)
    # The user's own arguments may hold braces, as mpv's do; nothing is filled in there.
    known_player = known if known is not None and "-" not in words else None
    own = tuple(word.replace("{", "{{").replace("}", "}}") for word in words[1:])
    if known_player is not None:
        return (Player(words[0], own + known_player.arguments, known_player.takes, known_player.hides_failure),)
    return (Player(words[0], own, PlayerInput.EVERYTHING),)


def wants(players: tuple[Player, ...]) -> str | None:
    """Name the format that all these players take, so that the gateway can be asked for it; None: any will do."""
    return None if all(player.takes is PlayerInput.EVERYTHING for player in players) else "wav"


class PlayerSink:
    """The loudspeaker. Bytes are spooled at once; a task of its own feeds them to the player."""

    file = None

    def __init__(
        self, players: tuple[Player, ...], *, variables: Mapping[str, str], rescue_folder: Path, is_only: bool
    ) -> None:
        """`is_only`: the audio goes nowhere else, so that a player that ends, ends the work."""
        self._players = players
        self._is_only = is_only
        self._trouble: OutputError | None = None
        self._variables = dict(variables)
        self._folder = rescue_folder
        self._format = "wav"
        self._pcm = Pcm()
        self._spool: Path | None = None
        self._descriptor = -1
        self._size_bytes = 0
        self._grown = asyncio.Condition()
        self._whole = False
        self._feeder: asyncio.Task[None] | None = None

    @property
    def can_restart(self) -> bool:
        return self._size_bytes == 0

    async def begin(self, format: str, pcm: Pcm) -> None:
        self._format, self._pcm = format, pcm

    async def restart(self) -> None:
        return None

    async def write(self, chunk: bytes) -> None:
        """Spool a chunk. Beside another sink trouble is told at `commit` only: the other one must get it all.

        Raises: ReaderGone: the user closed the player; OutputError: no room for the spool.
        """
        if self._trouble is not None:
            return
        if self._feeder is not None and self._feeder.done() and isinstance(self._feeder.exception(), OutputClosed):
            if self._is_only:
                raise OutputClosed
            return
        try:
            if self._spool is None:
                self._open_spool()
            view = memoryview(chunk)
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            self._trouble = OutputError(f"cannot keep the audio while it plays: {error.strerror}")
            if self._is_only:
                raise self._trouble from error
            return
        async with self._grown:
            self._size_bytes += len(chunk)
            self._grown.notify_all()
        if self._feeder is None:
            self._feeder = asyncio.create_task(self._feed())

    async def commit(self) -> None:
        """Wait until everything has been heard. Raises: OutputError: every player failed; ReaderGone."""
        async with self._grown:
            self._whole = True
            self._grown.notify_all()
        try:
            if self._feeder is not None:
                await self._feeder
        except OutputError:
            self._close()
            raise
        except OutputClosed:
            await self.abandon()
            if self._is_only:
                raise
            return
        except BaseException:
            await self.abandon()
            raise
        await self.abandon()
        if self._trouble is not None:
            raise self._trouble

    async def abandon(self) -> None:
        if self._feeder is not None:
            self._feeder.cancel()
            await asyncio.gather(self._feeder, return_exceptions=True)
        self._close()
        if self._spool is not None:
            self._spool.unlink(missing_ok=True)

    def _open_spool(self) -> None:
        spool = self._folder / f"{secrets.token_hex(4)}-played.{self._format}"
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._descriptor = os.open(spool, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._spool = spool

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    async def _feed(self) -> None:
        """Play from the first byte on with one player after the other, until one plays to the end."""
        said: list[str] = []
        for player in self._players:
            status, words = await self._play(player)
            if status == 0:
                return
            said.append(f"{player.program}: {words or f'exit status {status}'}")
        async with self._grown:
            await self._grown.wait_for(lambda: self._whole)
        raise OutputError(
            "every player failed: " + "; ".join(said),
            hint=f"the audio is kept in {self._spool}",
            kept=str(self._spool),
        )

    async def _play(self, player: Player) -> tuple[int, str]:
        """Run one player on the spool; give its exit status and its last words."""
        assert self._spool is not None
        if player.takes is PlayerInput.FILE:
            async with self._grown:
                await self._grown.wait_for(lambda: self._whole)
        skipped_bytes = 0
        pcm = self._pcm
        if player.takes is PlayerInput.RAW:
            async with self._grown:
                await self._grown.wait_for(lambda: self._whole or self._size_bytes >= WAV_HEAD_BYTES)
            try:
                shape = wav_shape(os.pread(self._descriptor, WAV_HEAD_BYTES, 0))
            except NotWav:
                shape = None
            if shape is None or shape.codec != "pcm_s16le":
                return 1, "it takes only plain 16-bit samples"
            skipped_bytes, pcm = shape.data_offset, shape.pcm
        blanks = {"rate": pcm.sample_rate_hz, "channels": pcm.channels, "file": self._spool}
        arguments = [argument.format_map(blanks) for argument in player.arguments]
        try:
            process = await asyncio.create_subprocess_exec(
                player.program,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL if player.takes is PlayerInput.FILE else asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=self._variables,
            )
        except OSError as error:
            return 1, error.strerror or str(error)
        try:
            _, words = await asyncio.gather(self._pour(process, skipped_bytes), _last_words(process))
            status = await process.wait()
        except BaseException:
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise
        if status == 0 and player.hides_failure and words:
            return 1, words
        if status == 0 and not self._whole:
            raise OutputClosed
        return status, words

    async def _pour(self, process: asyncio.subprocess.Process, position: int) -> None:
        """Copy the spool from a position on to the player's standard input, as it grows."""
        if process.stdin is None:
            return
        try:
            while True:
                async with self._grown:
                    while not self._whole and self._size_bytes <= position:
                        await self._grown.wait()
                chunk = os.pread(self._descriptor, FEED_BYTES, position)
                if not chunk:
                    break
                position += len(chunk)
                process.stdin.write(chunk)
                await process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            return  # its exit status tells why
        finally:
            process.stdin.close()


async def _last_words(process: asyncio.subprocess.Process) -> str:
    """Read all that a player complains, and keep the end of it."""
    assert process.stderr is not None
    words = b""
    while chunk := await process.stderr.read(4096):
        words = (words + chunk)[-2000:]
    lines = words.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:200] if lines else ""
