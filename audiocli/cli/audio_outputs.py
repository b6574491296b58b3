"""Where the audio of `speak` goes: a file, stdout, a player, and in which format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..context import AppContext
from ..errors import UsageError

if TYPE_CHECKING:
    from ..core.audio_pipeline import Outlet
    from ..player import Player


class Target(NamedTuple):
    """Where the audio goes and in which format it is wanted; `path` None and not stdout: only to the player."""

    path: Path | None
    is_stdout: bool
    players: tuple[Player, ...]
    format: str
    warnings: tuple[str, ...] = ()

    @property
    def is_heard(self) -> bool:
        """Whether somebody may be waiting for the sound to begin."""
        return self.is_stdout or bool(self.players)

    @property
    def name(self) -> str | None:
        return "-" if self.is_stdout else None if self.path is None else str(self.path)


def choose(
    env: AppContext, output: str | None, asked: str | None, configured: str | None, *, play: bool | None, player: str | None
) -> Target:
    """Decide where audio goes. Raises: UsageError: nowhere, or an unknown format."""
    from .. import player as players

    if play is False and player is not None:
        raise UsageError("--player contradicts --no-play")
    plays = bool(play) or (player is not None)
    is_stdout = output == "-"
    if output is not None and (not output or output.endswith("/")):
        raise UsageError("-o names no file")
    found: tuple[Player, ...] = ()
    if output is None and not plays:
        if env.stdout_takes_audio:
            is_stdout = True
        else:
            found = () if play is False else players.find(env.variables)
            if not found:
                raise UsageError("nowhere to put the audio", hint="-o FILE writes it, a pipe takes it, --play plays it")
    if is_stdout and env.stdout_is_terminal:
        raise UsageError("audio is not written to a terminal", hint="use -o FILE, a pipe, or --play")
    if plays:
        found = players.find(env.variables, player)
        if not found:
            names = ", ".join(one.program for one in players.PLAYERS)
            raise UsageError("no player found", hint=f"install one of {names}")
    path = Path(output) if output not in (None, "-") else None
    only_playing = path is None and not is_stdout
    usual = (players.wants(found) if only_playing else None) or configured or "mp3"
    format, warnings = format_of(path, asked, usual)
    return Target(path, is_stdout, found, format, warnings)


def format_of(path: Path | None, asked: str | None, usual: str) -> tuple[str, tuple[str, ...]]:
    """Choose the format: what was asked for, else the ending of the file, else the usual one."""
    from ..audio import formats

    known = ", ".join(formats.OUTPUT_FORMATS)
    ending = formats.of_path(path) if path is not None else None
    wanted = formats.named(asked) if asked is not None else None
    if asked is not None and (wanted is None or not wanted.writable):
        hint = f"formats: {known}"
        if Path(asked).is_file():
            hint = f"-f is the format; to read the text from that file: -F {asked}"
        raise UsageError(f"unknown format {asked!r}", hint=hint)
    if wanted is not None:
        if ending is not None and ending.name != wanted.name and not formats.fits(ending.name, wanted.name):
            return wanted.name, (f"{path} will hold {wanted.name}, whatever its ending says",)
        return wanted.name, ()
    if ending is not None:
        if not ending.writable:
            raise UsageError(f"audiocli does not make {ending.name} files", hint=f"formats: {known}")
        return ending.name, ()
    fallback = formats.named(usual)
    if fallback is None or not fallback.writable:
        raise UsageError(f"unknown format {usual!r} in the configuration", hint=f"formats: {known}")
    odd = path is not None and path.suffix and not path.exists()
    return fallback.name, (f"{path} will hold {fallback.name}: its ending is no format",) if odd else ()


async def open_outlets(env: AppContext, target: Target, *, is_hashed: bool = True) -> tuple[Outlet, ...]:
    """Open the sinks, before anything is sent; `is_hashed` if a receipt will tell the hash. Raises: OutputError."""
    from .. import player as players
    from ..core.audio_pipeline import Outlet
    from ..outputs import StreamOutput, open_target

    rescue_folder = env.scratch_folder("kept")
    outlets: list[Outlet] = []
    if target.is_stdout:
        outlets.append(Outlet(StreamOutput(env.stdout, "stdout", rescue_folder=rescue_folder), target.format, is_hashed))
    elif target.path is not None:
        outlets.append(Outlet(await open_target(target.path, rescue_folder=rescue_folder), target.format, is_hashed))
    if target.players:
        sink = players.PlayerSink(
            target.players, variables=env.variables, rescue_folder=rescue_folder, is_only=not outlets
        )
        outlets.append(Outlet(sink, players.wants(target.players), is_hashed))
    return tuple(outlets)
