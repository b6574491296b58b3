"""Where the transcripts of `transcribe` go: files, stdout, and the receipt that tells of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..context import AppContext
from ..errors import OutputError, UsageError

if TYPE_CHECKING:
    from ..console import Console
    from ..outputs import FileOutput, StreamOutput
    from ..text.cues import CaptionLimits
    from ..types.values import TranscriptionResult


class Targets(NamedTuple):
    """Where the formats go: files, and at most one to stdout."""

    files: tuple[tuple[str, Path], ...]
    stdout_format: str | None
    is_stdout_named: bool
    makes_folder: bool = False


class StreamingOutput:
    """Writes text to stdout as it is heard, when that is wanted and the gateway streams."""

    def __init__(self, env: AppContext, *, is_wanted: bool) -> None:
        from ..core.transcription import TextStream

        self._env = env
        self._sink: StreamOutput | None = None
        self._ends_line = True
        self.hearing = TextStream(self._write if is_wanted else None)

    async def finish(self) -> None:
        if self._sink is not None and not self._ends_line:
            await self._write("\n")

    async def _write(self, text: str) -> None:
        """Raises: ReaderGone, OutputError."""
        from ..console import printable
        from ..outputs import StreamOutput

        if self._sink is None:
            # Whisper's pieces begin with a space, the first as well.
            text = text.lstrip(" ")
            self._sink = StreamOutput(self._env.stdout, "stdout", rescue_folder=self._env.scratch_folder("kept"))
        self._ends_line = text.endswith("\n")
        shown = printable(text) if self._env.stdout_is_terminal else text
        await self._sink.write(shown.encode("utf-8", "replace"))


def choose(
    source: str | None, path: Path, output: str | None, output_dir: str | None, formats: tuple[str, ...]
) -> Targets:
    """Decide where each format goes. Raises: UsageError."""
    if output is not None and output_dir is not None:
        raise UsageError("-o and -O at once: which one is it?")
    if output is not None and len(formats) > 1:
        raise UsageError("-o takes one format", hint="use -O DIR for several")
    if output is not None and (not output or output.endswith("/")):
        raise UsageError("-o names no file")
    if output is not None:
        if output == "-":
            return Targets((), formats[0], True)
        return Targets(((formats[0], Path(output)),), None, False)
    if output_dir is None and len(formats) == 1:
        return Targets((), formats[0], False)
    is_stdin = source in (None, "-")
    if output_dir is None and is_stdin:
        raise UsageError("several formats from stdin need -O DIR")
    folder = Path(output_dir) if output_dir is not None else path.parent
    stem = "stdin" if is_stdin else path.stem
    suffix = {"verbose_json": "verbose.json"}
    files = tuple((name, folder / f"{stem}.{suffix.get(name, name)}") for name in formats)
    if not is_stdin and any(file.resolve() == path.resolve() for _, file in files):
        raise UsageError(f"the transcript would replace {path}")
    return Targets(files, None, False, makes_folder=output_dir is not None)


def rendered(receipt: TranscriptionResult, format: str, targets: Targets, shape: CaptionLimits, *, by_word: bool) -> bytes:
    """Write a transcript in one format; `verbose_json` is what the gateway sent, untouched."""
    if format == "verbose_json":
        return receipt.reply
    if format == "json":
        import json

        from ..core.result_documents import transcription_document

        paths = [path for _, path in targets.files]
        text = json.dumps(transcription_document(receipt, paths), ensure_ascii=False, indent=2, allow_nan=False) + "\n"
        return text.encode("utf-8", "replace")
    from ..text.subtitle_formats import render

    return render(receipt.transcript, format, shape=shape, by_word=by_word).encode("utf-8", "replace")


async def open_files(env: AppContext, targets: Targets) -> list[tuple[str, FileOutput | StreamOutput]]:
    """Open the files of the transcripts, before anything is sent. Raises: OutputError."""
    from ..outputs import open_target

    rescue_folder = env.scratch_folder("kept")
    files: list[tuple[str, FileOutput | StreamOutput]] = []
    try:
        for name, path in targets.files:
            if targets.makes_folder:
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    raise OutputError(f"cannot make the folder {path.parent}: {error.strerror}") from error
            files.append((name, await open_target(path, rescue_folder=rescue_folder, binary=False)))
    except BaseException:
        for _, sink in files:
            sink.discard()
        raise
    return files


def report(
    env: AppContext,
    screen: Console,
    receipt: TranscriptionResult,
    targets: Targets,
    shape: CaptionLimits,
    *,
    as_json: bool,
    by_word: bool,
    is_told: bool,
) -> None:
    """Write the transcript that goes to stdout, and the receipt where it belongs. Raises: OutputError."""
    if targets.stdout_format is not None and not is_told and (not as_json or targets.is_stdout_named):
        content = rendered(receipt, targets.stdout_format, targets, shape, by_word=by_word)
        try:
            screen.write_bytes(content)
        except OutputError as error:
            raise _kept(env, content, targets.stdout_format, error) from error
    if as_json:
        from ..core.result_documents import transcription_document

        document = transcription_document(receipt, [path for _, path in targets.files])
        (screen.result_json if targets.is_stdout_named else screen.write_json)(document)
        return
    from ..amounts import usd

    served = receipt.run
    parts = [", ".join(str(path) for _, path in targets.files)] if targets.files else []
    if receipt.transcript.duration_s is not None:
        parts.append(f"{receipt.transcript.duration_s:.1f} s of audio")
    parts += [served.route.ref, "free" if served.cost_nanousd == 0 else f"cost {usd(served.cost_nanousd)}"]
    screen.info(", ".join(parts))


def _kept(env: AppContext, content: bytes, format: str, error: OutputError) -> OutputError:
    """Keep a transcript that could not be written, because it was paid for."""
    import secrets

    from ..private_files import write_atomically

    path = env.scratch_folder("kept") / f"{secrets.token_hex(4)}-transcript.{format}"
    try:
        write_atomically(path, content)
    except OSError as second:
        return OutputError(f"{error.message}, nor keep the transcript: {second.strerror}")
    return OutputError(error.message, hint=f"the transcript is kept in {path}", kept=str(path))
