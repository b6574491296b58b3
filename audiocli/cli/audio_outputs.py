"""Outputs of `speak`: a file, stdout or a player, and the audio format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..context import AppContext
from ..errors import UsageError

if TYPE_CHECKING:
    from ..core.audio_pipeline import AudioOutput
    from ..player import Player


class AudioDestination(NamedTuple):
    """Destination and format of the audio. Without `path` and `is_stdout`, the audio is only played."""

    path: Path | None
    is_stdout: bool
    players: tuple[Player, ...]
    format: str
    warnings: tuple[str, ...] = ()

    @property
    def is_live(self) -> bool:
        """Whether a listener or a pipe may be waiting for the first audio."""
        return self.is_stdout or bool(self.players)

    @property
    def name(self) -> str | None:
        """The path, "-" for stdout, or None."""
        return "-" if self.is_stdout else None if self.path is None else str(self.path)


def choose_destination(
    app: AppContext,
    output: str | None,
    requested_format: str | None,
    default_format: str | None,
    *,
    play: bool | None,
    player: str | None,
) -> AudioDestination:
    """Choose where the audio goes, and its format.

    Raises:
        UsageError: There is no destination, stdout is a terminal, or the format is unknown.
    """
    from .. import player as players

    if play is False and player is not None:
        raise UsageError("--player cannot be used with --no-play")
    must_play = bool(play) or player is not None
    is_stdout = output == "-"
    if output is not None and (not output or output.endswith("/")):
        raise UsageError(f"-o {output!r} is not a file name")
    found_players: tuple[Player, ...] = ()
    if output is None and not must_play:
        if app.stdout_accepts_audio:
            is_stdout = True
        else:
            found_players = () if play is False else players.find_players(app.variables)
            if not found_players:
                raise UsageError("no output for the audio", hint="use -o FILE, a pipe or --play")
    if is_stdout and app.stdout_is_terminal:
        raise UsageError("refusing to write audio to a terminal", hint="use -o FILE, a pipe or --play")
    if must_play:
        found_players = players.find_players(app.variables, player)
        if not found_players:
            names = ", ".join(candidate.program for candidate in players.PLAYERS)
            raise UsageError("no player found", hint=f"install one of {names}")
    path = Path(output) if output not in (None, "-") else None
    is_only_played = path is None and not is_stdout
    player_format = players.get_required_format(found_players) if is_only_played else None
    format, warnings = choose_format(path, requested_format, player_format or default_format or "mp3")
    return AudioDestination(path, is_stdout, found_players, format, warnings)


def choose_format(path: Path | None, requested: str | None, default: str) -> tuple[str, tuple[str, ...]]:
    """Return the name of the format and warnings about it.

    The format is the requested one, else the one of the extension of `path`, else `default`.

    Raises:
        UsageError: The format is unknown or cannot be written.
    """
    from ..audio import formats

    writable_formats = ", ".join(formats.OUTPUT_FORMATS)
    path_format = formats.find_format_for_path(path) if path is not None else None
    requested_format = formats.find_format(requested) if requested is not None else None
    if requested is not None and (requested_format is None or not requested_format.is_writable):
        hint = f"formats: {writable_formats}"
        if Path(requested).is_file():
            hint = f"-f is the format; use -F {requested} to read the text from that file"
        raise UsageError(f"unknown format {requested!r}", hint=hint)
    if requested_format is not None:
        if (
            path_format is not None
            and path_format.name != requested_format.name
            and not formats.is_compatible(path_format.name, requested_format.name)
        ):
            return requested_format.name, (f"writing {requested_format.name} to {path}, despite its extension",)
        return requested_format.name, ()
    if path_format is not None:
        if not path_format.is_writable:
            raise UsageError(f"cannot write {path_format.name} files", hint=f"formats: {writable_formats}")
        return path_format.name, ()
    fallback = formats.find_format(default)
    if fallback is None or not fallback.is_writable:
        raise UsageError(f"unknown format {default!r} in the configuration", hint=f"formats: {writable_formats}")
    has_unknown_extension = path is not None and path.suffix and not path.exists()
    warnings = (f"unknown extension of {path}; writing {fallback.name}",) if has_unknown_extension else ()
    return fallback.name, warnings


async def open_outputs(
    app: AppContext, destination: AudioDestination, *, compute_hash: bool = True
) -> tuple[AudioOutput, ...]:
    """Open the outputs before a request is sent. With `compute_hash`, they compute the SHA-256 for the result.

    Raises:
        OutputError: A file or player cannot be opened.
    """
    from .. import player as players
    from ..core.audio_pipeline import AudioOutput
    from ..outputs import StreamOutput, open_output

    rescue_directory = app.scratch_directory("kept")
    outputs: list[AudioOutput] = []
    if destination.is_stdout:
        outputs.append(
            AudioOutput(
                StreamOutput(app.stdout, "stdout", rescue_directory=rescue_directory), destination.format, compute_hash
            )
        )
    elif destination.path is not None:
        outputs.append(
            AudioOutput(
                await open_output(destination.path, rescue_directory=rescue_directory), destination.format, compute_hash
            )
        )
    if destination.players:
        player_output = players.PlayerOutput(
            destination.players,
            environment=app.variables,
            rescue_directory=rescue_directory,
            is_only_output=not outputs,
        )
        outputs.append(AudioOutput(player_output, players.get_required_format(destination.players), compute_hash))
    return tuple(outputs)
