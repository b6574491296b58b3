"""What `transcribe` selects of a recording: its options, and the list of audio tracks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ..context import AppContext
from ..errors import AudiocliError, ExitCode, RecordingError, UsageError

if TYPE_CHECKING:
    from ..console import Console
    from ..types.audio import AudioTrack, Selection, TimeRange
    from ..types.json import Json
    from ..types.requests import Speaker
    from .inputs import StdinFormat

_RANGE = re.compile(r"([^-]*)-([^-]*)")
_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)", re.ASCII)
MAX_RANGES = 1000
# 278 hours.
MAX_POSITION_S = 1_000_000.0


class SelectionOptions(NamedTuple):
    """Options that select a part of a recording."""

    track: Annotated[
        str | None,
        typer.Option("--track", metavar="N|LANG", help="Audio track of a video: its number from 1, or its language."),
    ] = None
    list_tracks: Annotated[
        bool, typer.Option("--list-tracks", help="List the audio tracks without sending anything.")
    ] = False
    channel: Annotated[
        str | None,
        typer.Option(
            "--channel",
            metavar="mix|split|N",
            help="Mix the channels, transcribe each separately, or transcribe only channel N (from 1).",
        ),
    ] = None
    ranges: Annotated[
        list[str] | None,
        typer.Option(
            "--range", metavar="FROM-TO", help="Transcribe only this range, such as 1:02:03.5-1:10:00; repeatable."
        ),
    ] = None


def build_selection(options: SelectionOptions, speakers: Sequence[Speaker], *, diarize: bool) -> Selection:
    """Return what the options select. With `--channel split`, the speakers are those of the channels.

    Raises:
        UsageError: An option is invalid, or cannot be used with another one.
    """
    from ..types.audio import Selection

    channels, split = _parse_channel(options.channel)
    if split and diarize:
        raise UsageError("--channel split cannot be used with --diarize: each channel is one speaker")
    if split and any(speaker.clip_url is not None for speaker in speakers):
        raise UsageError(
            "--channel split needs no voice samples", hint="use --speaker NAME in the order of the channels"
        )
    return Selection(
        ranges=_merge_ranges([parse_range(value) for value in options.ranges or ()]),
        track=_parse_track(options.track),
        channels=channels,
        split_channels=split,
        channel_names=tuple(speaker.name for speaker in speakers) if split else (),
    )


def _parse_track(value: str | None) -> int | str | None:
    """Return the number of a track, or the code of its language. Raises: UsageError."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdecimal():
        if int(text[:9]) < 1:
            raise UsageError(f"--track {value}: tracks are numbered from 1", hint="--list-tracks shows them")
        return int(text[:9])
    from ..text.iso_639 import convert_to_iso_639_2

    if convert_to_iso_639_2(text) is None:
        raise UsageError(f"--track {value}: expected a number or a language", hint="--list-tracks shows the tracks")
    return text.lower()


def _parse_channel(value: str | None) -> tuple[tuple[int, ...], bool]:
    """Return the indexes of the channels, and whether they are transcribed separately. Raises: UsageError."""
    text = (value or "mix").strip().lower()
    if text in ("mix", "split"):
        return (), text == "split"
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= 64):
        raise UsageError(f"--channel {value}: must be mix, split or the number of a channel, from 1")
    return (int(text) - 1,), False


def parse_range(value: str) -> TimeRange:
    """Parse `FROM-TO`: times as `1:02:03.5`, `2:03` or seconds. Without FROM or TO, the range is open.

    Raises:
        UsageError: It is not a range, or it is empty.
    """
    from ..types.audio import TimeRange

    match = _RANGE.fullmatch(value.strip().replace("\u2013", "-"))
    hint = "such as 1:02:03.5-1:10:00, 90-120, 90- or -120"
    if match is None or not any(part.strip() for part in match.groups()):
        raise UsageError(f"--range {value}: expected FROM-TO", hint=hint)
    start_s, end_s = (_parse_position(part.strip(), value, hint) for part in match.groups())
    if end_s is not None and end_s <= (start_s or 0.0):
        raise UsageError(f"--range {value}: the range ends before it starts", hint=hint)
    return TimeRange(start_s or 0.0, end_s)


def _parse_position(text: str, value: str, hint: str) -> float | None:
    if not text:
        return None
    match = _CLOCK.fullmatch(text)
    if match is None:
        raise UsageError(f"--range {value}: {text!r} is not a time", hint=hint)
    hours, minutes, seconds = (float(part) if part else 0.0 for part in match.groups())
    position_s = hours * 3600 + minutes * 60 + seconds
    if position_s > MAX_POSITION_S:
        raise UsageError(f"--range {value}: {text} is too large", hint=hint)
    return position_s


def _merge_ranges(ranges: Sequence[TimeRange]) -> tuple[TimeRange, ...]:
    """Return the ranges in order. Those that overlap or touch become one, so that nothing is sent twice."""
    if len(ranges) > MAX_RANGES:
        raise UsageError(f"--range: at most {MAX_RANGES} ranges are supported")
    merged: list[TimeRange] = []
    for current in sorted(ranges, key=lambda item: item.start_s):
        previous = merged[-1] if merged else None
        if previous is None or (previous.end_s is not None and current.start_s > previous.end_s):
            merged.append(current)
        elif previous.end_s is not None:
            end_s = None if current.end_s is None else max(previous.end_s, current.end_s)
            merged[-1] = previous._replace(end_s=end_s)
    is_everything = [(item.start_s, item.end_s) for item in merged] == [(0.0, None)]
    return () if is_everything else tuple(merged)


def print_tracks(
    app: AppContext,
    console: Console,
    sources: Sequence[str],
    stdin_format: StdinFormat,
    *,
    read_timeout_s: float,
    as_json: bool,
) -> int:
    """Print the audio tracks of recordings. Return the exit code.

    Raises:
        AudiocliError: The only recording cannot be read.
    """
    from .urls import describe_source

    has_failed = False
    for source in sources or (None,):
        name = describe_source(source)
        try:
            tracks = _list_tracks(app, console, source, stdin_format, read_timeout_s=read_timeout_s)
        except AudiocliError as error:
            if len(sources) < 2:
                raise
            has_failed = True
            if as_json:
                console.error_json(error, "transcribe")
            else:
                console.item_error(name, error)
            continue
        if as_json:
            rows: list[Json] = [_build_track_document(track) for track in tracks]
            console.write_json({"ok": True, "command": "transcribe", "source": name, "tracks": rows})
            continue
        if len(sources) > 1:
            console.write_text(f"{name}\n")
        _write_track_table(console, tracks)
    return ExitCode.PARTIAL if has_failed else ExitCode.OK


def _list_tracks(
    app: AppContext, console: Console, source: str | None, stdin_format: StdinFormat, *, read_timeout_s: float
) -> Sequence[AudioTrack]:
    """Return the audio tracks of a recording. Raises: AudiocliError: it cannot be read."""
    from ..core.selection import list_tracks
    from .urls import describe_source, open_source

    name = describe_source(source)
    with open_source(app, console, source, stdin_format, read_timeout_s=read_timeout_s) as path:
        try:
            return list_tracks(path)
        except RecordingError as error:
            error.message = error.message.replace(str(path), name)
            raise
        except OSError as error:
            raise UsageError(f"cannot read {name}: {error.strerror}") from error


def _build_track_document(track: AudioTrack) -> dict[str, Json]:
    return {
        "number": track.number,
        "codec": track.codec,
        "language": track.language,
        "title": track.title,
        "channels": track.channels,
        "sample_rate_hz": track.sample_rate_hz,
        "duration_s": None if track.duration_s is None else round(track.duration_s, 3),
        "is_default": track.is_default,
    }


def _write_track_table(console: Console, tracks: Sequence[AudioTrack]) -> None:
    from ..core.verdicts import format_time

    header = ("track", "language", "title", "codec", "channels", "duration", "default")
    rows = [
        (
            str(track.number),
            track.language or "",
            track.title or "",
            track.codec,
            str(track.channels),
            "" if track.duration_s is None else format_time(track.duration_s),
            "yes" if track.is_default else "",
        )
        for track in tracks
    ]
    numeric = (True, False, False, False, True, True, False)
    console.write_table(header, rows, numeric=numeric, optional=("codec", "title"))
