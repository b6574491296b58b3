"""Outputs of commands: audio to a file, stdout or players; transcripts and replies to files or stdout."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..context import AppContext
from ..errors import OutputError, UsageError, suggest
from ..text.format_names import CAPTIONED_VIDEO
from .inputs import is_object, is_stream_source

if TYPE_CHECKING:
    from ..audio.processing import Processing
    from ..audio.tags import AudioTags
    from ..console import Console
    from ..core.audio_pipeline import AudioOutput
    from ..core.batch.output_paths import BatchItem
    from ..core.run_context import AudioWriter
    from ..outputs import FileOutput, StreamOutput
    from ..outputs.player import Player
    from ..storage.manifest import Manifest, OutputRecord
    from ..text.transcript_style import TranscriptStyle
    from ..types.objects import Location
    from ..types.results import TranscriptionResult


class AudioDestination(NamedTuple):
    """Destination and format of the audio. Without `path` and `is_stdout`, the audio is only played."""

    path: Location | None
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
    from ..outputs import player as players

    if play is False and player is not None:
        raise UsageError("--player cannot be used with --no-play")
    must_play = bool(play) or player is not None
    is_stdout = output == "-"
    _require_file_name(output)
    found_players: tuple[Player, ...] = ()
    if output is None and not must_play:
        if app.stdout_accepts_audio:
            is_stdout = True
        else:
            found_players = () if play is False else players.find_players(app.variables)
            if not found_players:
                raise UsageError("no output for the audio", hint="use -o FILE, a pipe or --play")
    if is_stdout and app.stdout.isatty():
        raise UsageError("cannot write audio to a terminal", hint="use -o FILE, a pipe or --play")
    if is_stdout:
        require_stdout(app)
    if must_play:
        found_players = players.find_players(app.variables, player)
        if not found_players:
            names = ", ".join(candidate.program for candidate in players.PLAYERS)
            raise UsageError("no player found", hint=f"install one of {names}")
    path = parse_output(output) if output not in (None, "-") else None
    is_only_played = path is None and not is_stdout
    player_format = players.get_required_format(found_players) if is_only_played else None
    format, warnings = choose_format(path, requested_format, player_format or default_format or "mp3")
    return AudioDestination(path, is_stdout, found_players, format, warnings)


def require_stdout(app: AppContext) -> None:
    """Check, before a request is sent, that its result can be written to stdout. Raises: OutputError."""
    if not app.stdout_is_writable:
        raise OutputError("cannot write to stdout: it is closed", hint="use -o FILE")


def choose_format(path: Location | None, requested: str | None, default: str) -> tuple[str, tuple[str, ...]]:
    """Return the name of the format and warnings about it.

    The format is the requested one, else the one of the extension of `path`, else `default`.

    Raises:
        UsageError: The format is unknown or cannot be written, or a new file has an unknown extension.
    """
    from ..audio import formats

    writable_formats = ", ".join(formats.OUTPUT_FORMATS)
    path_format = formats.find_format_for_path(path.name) if path is not None else None
    requested_format = formats.find_format(requested) if requested is not None else None
    if requested is not None and (requested_format is None or not requested_format.is_writable):
        hint = f"formats: {writable_formats}"
        if Path(requested).is_file():
            hint = f"-f is the format; use -F {requested} to read the text from that file"
        raise UsageError(f"unknown format {requested!r}{suggest(requested, formats.OUTPUT_FORMATS)}", hint=hint)
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
        similar = suggest(default, formats.OUTPUT_FORMATS)
        raise UsageError(
            f"unknown format {default!r} in the configuration{similar}", hint=f"formats: {writable_formats}"
        )
    if path is not None and path.suffix and not _exists(path):
        raise UsageError(
            f"unknown extension of {path}", hint=f"add -f {fallback.name}, or another of {writable_formats}"
        )
    return fallback.name, ()


def parse_output(output: str) -> Location:
    """Return the file or the object of `-o`. Raises: UsageError: It is the URL of a bucket, or has an invalid key."""
    if not is_object(output):
        return Path(output)
    from ..types.objects import parse_object_url

    url = parse_object_url(output)
    if not url.key:
        raise UsageError(f"-o {output!r} is not the name of an object", hint="add a key: s3://BUCKET/KEY")
    return url


def _exists(path: Location) -> bool:
    """Return whether an output exists: a FIFO, a device or a temporary file, whose extension means nothing."""
    try:
        return isinstance(path, Path) and path.exists()
    except OSError:
        return False


async def open_audio_outputs(
    app: AppContext,
    destination: AudioDestination,
    *,
    compute_hash: bool = True,
    processing: Processing | None = None,
    tags: Callable[[], AudioTags] | None = None,
) -> tuple[AudioOutput, ...]:
    """Open the outputs before a request is sent. With `compute_hash`, they compute the SHA-256 for the result.

    `processing` and `tags` are those of `AudioOutput`. Only files get tags.

    Raises:
        OutputError: A file or player cannot be opened.
    """
    from ..core.audio_pipeline import AudioOutput
    from ..outputs import StreamOutput
    from ..outputs import player as players

    rescue_directory = app.scratch_directory("kept")
    scratch_directory = app.scratch_directory("uploads")
    outputs: list[AudioOutput] = []

    def add(writer: AudioWriter, format: str | None) -> None:
        outputs.append(AudioOutput(writer, format, compute_hash, processing, tags, scratch_directory))

    if destination.is_stdout:
        add(StreamOutput(app.stdout, "stdout", rescue_directory=rescue_directory), destination.format)
    elif destination.path is not None:
        add(await open_location(app, destination.path), destination.format)
    if destination.players:
        player_output = players.PlayerOutput(
            destination.players,
            environment=app.child_variables,
            rescue_directory=rescue_directory,
            is_only_output=not outputs,
        )
        add(player_output, players.get_required_format(destination.players))
    return tuple(outputs)


class OutputNaming(NamedTuple):
    """Template for the names of transcripts. `language` is the one of `{lang}`; None is that of the transcript."""

    template: str
    language: str | None


class TranscriptOutputs(NamedTuple):
    """Output files with their formats, and the format of stdout.

    `is_stdout_explicit`: the user gave `-o -`. `create_directory`: the user gave `-O`. `are_derived`: the names of the
    files follow from the recording, so files that audiocli did not write are protected. `unnamed`: the names need the
    language of the transcript (`name_outputs`).
    """

    files: tuple[tuple[str, Location], ...]
    stdout_format: str | None
    is_stdout_explicit: bool
    create_directory: bool = False
    are_derived: bool = False
    unnamed: BatchItem | None = None


class StreamingOutput:
    """Write text to stdout as it arrives, if `is_enabled` and the gateway streams."""

    def __init__(self, app: AppContext, console: Console, *, is_enabled: bool) -> None:
        from ..core.transcription import TextStream

        self._app = app
        self._console = console
        self._output: StreamOutput | None = None
        self._at_line_start = True
        self.text_stream = TextStream(self._write if is_enabled else None)

    async def complete_line(self) -> None:
        """Complete the last line. Raises: OutputClosed, OutputError."""
        if self._output is not None and not self._at_line_start:
            await self._write("\n")

    async def finish(self) -> None:
        """Complete the last line, after the last text.

        Raises:
            OutputClosed: The reader of stdout went away.
            OutputError: Some text could not be written. The message has the path where it is saved.
        """
        await self.complete_line()
        if self._output is not None:
            await self._output.commit()

    async def _write(self, text: str) -> None:
        """Write escaped text. Raises: OutputClosed, OutputError."""
        from ..console import escape_controls
        from ..outputs import StreamOutput

        is_terminal = self._app.stdout.isatty()
        if self._output is None:
            if is_terminal:
                self._console.end_progress()
            # Every text delta of Whisper begins with a space, including the first.
            text = text.lstrip(" ")
            self._output = StreamOutput(
                self._app.stdout, "stdout", rescue_directory=self._app.scratch_directory("kept")
            )
        self._at_line_start = text.endswith("\n")
        visible_text = escape_controls(text) if is_terminal else text
        await self._output.write(visible_text.encode("utf-8", "replace"))


def choose_transcript_outputs(
    source: str | None,
    path: Path,
    output: str | None,
    output_dir: str | None,
    formats: tuple[str, ...],
    naming: OutputNaming | None = None,
    *,
    stream_name: str = "stdin",
) -> TranscriptOutputs:
    """Return the destination of each format. `stream_name` names a stream, and its outputs.

    Raises:
        UsageError: Contradictory options, an invalid template, or an output is the input or another output.
    """
    if output is not None and naming is not None:
        raise UsageError("-o cannot be used with --name or --media-server", hint="use -O DIR")
    if output is not None and output_dir is not None:
        raise UsageError("-o cannot be used with -O")
    if output is not None and len(formats) > 1:
        raise UsageError("-o supports only one format", hint="use -O DIR for several formats")
    _require_file_name(output)
    if output is not None:
        if output == "-":
            return TranscriptOutputs((), formats[0], True)
        return TranscriptOutputs(((formats[0], parse_output(output)),), None, False)
    if output_dir is None and len(formats) == 1 and naming is None and formats[0] != CAPTIONED_VIDEO:
        return TranscriptOutputs((), formats[0], False)
    is_stdin = is_stream_source(source)
    if output_dir is None and is_stdin:
        what = "several formats" if len(formats) > 1 else "--name, --media-server and --embed-captions"
        raise UsageError(f"{what} from {stream_name} require -O", hint="add -O DIR")
    from ..core.batch.output_paths import BatchItem, get_extension, list_fields, render_output_name

    directory = Path(output_dir) if output_dir is not None else path.parent
    named_source = Path(f"{stream_name}{path.suffix}") if is_stdin else path
    if naming is None:
        names = [f"{named_source.stem}.{get_extension(format, path)}" for format in formats]
    else:
        names = [render_output_name(naming.template, named_source, format, naming.language) for format in formats]
        if len(set(names)) < len(names):
            raise UsageError(f"--name {naming.template}: all formats would be written to {names[0]}", hint="use {ext}")
    files = tuple((format, directory / name) for format, name in zip(formats, names, strict=True))
    if not is_stdin and any(file.resolve() == path.resolve() for _, file in files):
        raise UsageError(f"the transcript would overwrite its input {path}")
    unnamed = None
    if naming is not None and naming.language is None and "lang" in list_fields(naming.template):
        unnamed = BatchItem(named_source, files, naming.template)
    return TranscriptOutputs(
        files, None, False, create_directory=output_dir is not None, are_derived=True, unnamed=unnamed
    )


def name_outputs(outputs: TranscriptOutputs, language: str | None) -> TranscriptOutputs:
    """Return the outputs with final names, now that the language of the transcript is known."""
    if outputs.unnamed is None:
        return outputs
    from ..core.batch.output_paths import name_item

    return outputs._replace(files=name_item(outputs.unnamed, language).outputs, unnamed=None)


def find_protected_outputs(outputs: TranscriptOutputs, manifest: Manifest) -> tuple[Path, ...]:
    """Return the derived output files that exist and were edited, or not written by audiocli.

    Raises:
        OutputError: The manifest cannot be used.
    """
    from ..core.batch.output_paths import make_absolute

    return tuple(
        path
        for _, path in outputs.files
        if outputs.are_derived
        and isinstance(path, Path)
        and path.is_file()
        and not _is_unedited(path, manifest.get_output(make_absolute(path)))
    )


def resolve_output_directory(output_dir: str | None) -> Path | None:
    """Return the absolute path of `-O`.

    Raises:
        UsageError: The directory, or its nearest existing parent, is not a writable directory.
    """
    if output_dir is None:
        return None
    if is_object(output_dir):
        raise UsageError(
            "-O: only transcribe writes to a prefix of an object store", hint="write to a directory, and copy it"
        )
    directory = Path(os.path.abspath(output_dir))  # noqa: PTH100 - keeps symlinks
    for path in (directory, *directory.parents):
        if os.path.lexists(path):
            if not path.is_dir():
                raise UsageError(f"-O {output_dir}: {path} is not a directory")
            if not os.access(path, os.W_OK | os.X_OK):
                raise UsageError(f"-O {output_dir}: {path} is not writable")
            break
    return directory


@contextmanager
def open_manifest(app: AppContext, console: Console) -> Iterator[Manifest]:
    """Provide the manifest. The file is opened on first use."""
    from ..storage.manifest import Manifest

    manifest = Manifest(app.records_directory / "manifest.sqlite3", warning=console.warning)
    try:
        yield manifest
    finally:
        manifest.close()


def has_recorded_output(paths: Sequence[Path], manifest: Manifest) -> bool:
    """Return whether audiocli wrote one of the files, even if it was edited since."""
    from ..core.batch.output_paths import make_absolute

    return any(manifest.get_output(make_absolute(path)) is not None for path in paths)


def _is_unedited(path: Path, record: OutputRecord | None) -> bool:
    """Return whether a file has the content that audiocli wrote. An unreadable file counts as edited."""
    from ..storage.local import hash_output

    try:
        return record is not None and hash_output(path) == record.sha256
    except OSError:
        return False


def render_transcript(
    result: TranscriptionResult,
    format: str,
    outputs: TranscriptOutputs,
    style: TranscriptStyle,
    *,
    source: Path | None = None,
) -> bytes:
    """Render a transcript in one format. `verbose_json` is the unchanged response of the gateway.

    Args:
        source: The recording; None if it is not a file.

    Raises:
        AudiocliError: A library is not installed, the recording cannot be embedded, or a correction takes too long.
    """
    if format == "json":
        import json

        from ..console import escape_json
        from ..core.result_documents import build_transcription_document
        from ..text.transcript_formats import correct

        corrected = result._replace(transcript=correct(result.transcript, style))
        document = build_transcription_document(corrected, [path for _, path in outputs.files], style)
        text = escape_json(json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False))
        return f"{text}\n".encode("utf-8", "replace")
    from ..core.batch.transcript_cache import render_output

    path = next((path for name, path in outputs.files if name == format), None)
    if path is not None and not isinstance(path, Path):
        # A page cannot link a recording that is on the disk.
        source, path = source if style.embed_media else None, None
    return render_output(result, format, style, source=source, path=path)


async def open_transcript_files(
    app: AppContext, outputs: TranscriptOutputs
) -> list[tuple[str, FileOutput | StreamOutput]]:
    """Open the output files before a request is sent. Raises: OutputError."""
    files: list[tuple[str, FileOutput | StreamOutput]] = []
    try:
        for format, path in outputs.files:
            if outputs.create_directory and isinstance(path, Path):
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    raise OutputError(f"cannot create the directory {path.parent}: {error.strerror}") from error
            files.append((format, await open_text_file(app, path)))
    except BaseException:
        for _, output in files:
            output.discard()
        raise
    return files


def _require_file_name(output: str | None) -> None:
    if output is not None and (not output or output.endswith("/")):
        raise UsageError(f"-o {output!r} is not a file name")


async def open_text_file(app: AppContext, path: Location) -> FileOutput | StreamOutput:
    """Open a file or an object for text before a request is sent. Raises: AudiocliError."""
    return await open_location(app, path, binary=False)


async def open_location(app: AppContext, location: Location, *, binary: bool = True) -> FileOutput | StreamOutput:
    """Open the output of `-o`. Raises: AudiocliError: It cannot be written."""
    rescue_directory = app.scratch_directory("kept")
    if not isinstance(location, Path):
        from ..outputs.object import open_object_output

        return await open_object_output(location, app.object_stores, rescue_directory=rescue_directory)
    from ..outputs import open_output

    return await open_output(location, rescue_directory=rescue_directory, binary=binary)
