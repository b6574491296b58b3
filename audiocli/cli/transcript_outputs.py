"""Outputs of `transcribe`: choice of paths, rendering, streaming to stdout and the result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..context import AppContext
from ..errors import OutputError, UsageError

if TYPE_CHECKING:
    from ..console import Console
    from ..outputs import FileOutput, StreamOutput
    from ..text.cues import CaptionLimits
    from ..types.results import TranscriptionResult


class TranscriptOutputs(NamedTuple):
    """Output files with their formats, and the format of stdout.

    `is_stdout_explicit`: the user gave `-o -`. `create_directory`: the user gave `-O`.
    """

    files: tuple[tuple[str, Path], ...]
    stdout_format: str | None
    is_stdout_explicit: bool
    create_directory: bool = False


class StreamingOutput:
    """Write text to stdout as it arrives, if `is_enabled` and the gateway streams."""

    def __init__(self, app: AppContext, *, is_enabled: bool) -> None:
        from ..core.transcription import TextStream

        self._app = app
        self._output: StreamOutput | None = None
        self._at_line_start = True
        self.text_stream = TextStream(self._write if is_enabled else None)

    async def finish(self) -> None:
        """Complete the last line."""
        if self._output is not None and not self._at_line_start:
            await self._write("\n")

    async def _write(self, text: str) -> None:
        """Write escaped text. Raises: OutputClosed, OutputError."""
        from ..console import escape_controls
        from ..outputs import StreamOutput

        if self._output is None:
            # Every text delta of Whisper begins with a space, including the first.
            text = text.lstrip(" ")
            self._output = StreamOutput(
                self._app.stdout, "stdout", rescue_directory=self._app.scratch_directory("kept")
            )
        self._at_line_start = text.endswith("\n")
        visible_text = escape_controls(text) if self._app.stdout_is_terminal else text
        await self._output.write(visible_text.encode("utf-8", "replace"))


def choose_outputs(
    source: str | None, path: Path, output: str | None, output_dir: str | None, formats: tuple[str, ...]
) -> TranscriptOutputs:
    """Return the destination of each format. Raises: UsageError: Contradictory options, or an output is the input."""
    if output is not None and output_dir is not None:
        raise UsageError("-o cannot be used with -O")
    if output is not None and len(formats) > 1:
        raise UsageError("-o supports only one format", hint="use -O DIR for several formats")
    if output is not None and (not output or output.endswith("/")):
        raise UsageError(f"-o {output!r} is not a file name")
    if output is not None:
        if output == "-":
            return TranscriptOutputs((), formats[0], True)
        return TranscriptOutputs(((formats[0], Path(output)),), None, False)
    if output_dir is None and len(formats) == 1:
        return TranscriptOutputs((), formats[0], False)
    is_stdin = source in (None, "-")
    if output_dir is None and is_stdin:
        raise UsageError("several formats from stdin require -O", hint="add -O DIR")
    directory = Path(output_dir) if output_dir is not None else path.parent
    stem = "stdin" if is_stdin else path.stem
    extensions = {"verbose_json": "verbose.json"}
    files = tuple((format, directory / f"{stem}.{extensions.get(format, format)}") for format in formats)
    if not is_stdin and any(file.resolve() == path.resolve() for _, file in files):
        raise UsageError(f"the transcript would overwrite its input {path}")
    return TranscriptOutputs(files, None, False, create_directory=output_dir is not None)


def render_transcript(
    result: TranscriptionResult,
    format: str,
    outputs: TranscriptOutputs,
    caption_limits: CaptionLimits,
    *,
    by_word: bool,
) -> bytes:
    """Render a transcript in one format. `verbose_json` is the unchanged response of the gateway."""
    if format == "verbose_json":
        return result.raw_response
    if format == "json":
        import json

        from ..core.result_documents import build_transcription_document

        document = build_transcription_document(result, [path for _, path in outputs.files])
        text = json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False)
        return f"{text}\n".encode("utf-8", "replace")
    from ..text.subtitle_formats import render

    return render(result.transcript, format, limits=caption_limits, by_word=by_word).encode("utf-8", "replace")


async def open_files(app: AppContext, outputs: TranscriptOutputs) -> list[tuple[str, FileOutput | StreamOutput]]:
    """Open the output files before a request is sent. Raises: OutputError."""
    from ..outputs import open_output

    rescue_directory = app.scratch_directory("kept")
    files: list[tuple[str, FileOutput | StreamOutput]] = []
    try:
        for format, path in outputs.files:
            if outputs.create_directory:
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    raise OutputError(f"cannot create the directory {path.parent}: {error.strerror}") from error
            files.append((format, await open_output(path, rescue_directory=rescue_directory, binary=False)))
    except BaseException:
        for _, output in files:
            output.discard()
        raise
    return files


def print_result(
    app: AppContext,
    console: Console,
    result: TranscriptionResult,
    outputs: TranscriptOutputs,
    caption_limits: CaptionLimits,
    *,
    as_json: bool,
    by_word: bool,
    already_printed: bool,
) -> None:
    """Print the transcript if it goes to stdout, then the result as a line on stderr or as JSON.

    Raises:
        OutputError: stdout cannot be written. The transcript is saved; the error has its path.
    """
    if outputs.stdout_format is not None and not already_printed and (not as_json or outputs.is_stdout_explicit):
        content = render_transcript(result, outputs.stdout_format, outputs, caption_limits, by_word=by_word)
        try:
            console.write_bytes(content)
        except OutputError as error:
            raise _save_unwritten(app, content, outputs.stdout_format, error) from error
    if as_json:
        from ..core.result_documents import build_transcription_document

        document = build_transcription_document(result, [path for _, path in outputs.files])
        (console.result_json if outputs.is_stdout_explicit else console.write_json)(document)
        return
    from ..amounts import format_usd

    run = result.run
    parts = [", ".join(str(path) for _, path in outputs.files)] if outputs.files else []
    if result.transcript.duration_s is not None:
        parts.append(f"{result.transcript.duration_s:.1f} s of audio")
    parts += [run.route.ref, "free" if run.cost_nanousd == 0 else f"cost {format_usd(run.cost_nanousd)}"]
    console.info(", ".join(parts))


def _save_unwritten(app: AppContext, content: bytes, format: str, error: OutputError) -> OutputError:
    """Save a paid transcript that could not be written, and return the error with its path."""
    import secrets

    from ..private_files import write_atomically

    path = app.scratch_directory("kept") / f"{secrets.token_hex(4)}-transcript.{format}"
    try:
        write_atomically(path, content)
    except OSError as save_error:
        return OutputError(f"{error.message}; the transcript could not be saved either: {save_error.strerror}")
    return OutputError(error.message, hint=f"the transcript is saved in {path}", saved_path=str(path))
