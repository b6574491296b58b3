"""Run the commands of `audiocli captions` that write files: convert, shift, scale, merge and split."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..context import AppContext
from ..errors import AudiocliError, ExitCode, OutputError, UsageError
from ..text.caption_edits import (
    TimeMap,
    build_scale,
    build_shift,
    find_first_overlap,
    merge_by_time,
    merge_languages,
    parse_sync_points,
    parse_time,
    retime,
    split_captions,
)
from ..text.caption_file import DEFAULT_FPS, CaptionFile, build_caption_cues
from ..text.caption_readers import (
    detect_caption_format,
    find_caption_format,
    find_format_for_path,
    read_captions,
)
from ..text.caption_writers import SUPPORTED_STYLES, write_captions
from ..text.cues import build_cues
from ..text.line_breaking import CaptionLimits
from ..types.transcripts import Segment, Transcript
from .inputs import MAX_TEXT_BYTES, StdinFormat, open_recording, read_bytes, reject_overwriting_input
from .options import DEFAULT_TIMEOUT_S

if TYPE_CHECKING:
    from ..console import Console
    from ..types.json import Json
    from .captions import ConvertOptions, MergeOptions, ReadOptions, ScaleOptions, ShiftOptions, SplitOptions

_STYLE_WORDS = {"b": "bold", "i": "italics", "u": "underline", "s": "strikethrough", "color": "colors"}
_MAX_PARTS = 10_000


class CaptionOutput(NamedTuple):
    """A file to write: its content, its path, and whether its name was derived and must not replace a file."""

    file: CaptionFile
    format: str
    path: Path
    is_derived: bool = False


# --- commands --------------------------------------------------------------------------------------------------------


def run_convert(app: AppContext, console: Console, options: ConvertOptions) -> int:
    """Convert files.

    Returns:
        3 if some of several files could not be converted.

    Raises:
        UsageError: An option is invalid, or the only file cannot be read.
        OutputError: The only output cannot be written.
    """
    validate_fps(options.read)
    limits = _choose_limits(options)
    sources = list_sources(app, options.files)
    formats = _choose_formats(options.formats, options.output)
    if options.output is not None and options.output_dir is not None:
        raise UsageError("-o cannot be used with -O")
    if options.output is not None and len(sources) * len(formats) > 1:
        raise UsageError("-o supports only one file and one format", hint="use -O DIR")
    to_stdout = options.output_dir is None and len(sources) == 1 and len(formats) == 1
    written: list[CaptionOutput] = []
    failures: list[Json] = []
    for source in sources:
        try:
            file = _read_complete(app, console, source, options.read)
            file = file if options.speakers else _drop_speakers(file)
            file = file if limits is None else _relayout(console, file, limits)
            outputs = [(format, _prepare(console, file, format, options.read)) for format in formats]
            if to_stdout:
                _finish(
                    app, console, "convert", outputs[0][1], formats[0], source, options.output, options.general.as_json
                )
                return ExitCode.OK
            derived = [
                CaptionOutput(prepared, format, _derive_path(source, options.output_dir, format), True)
                for format, prepared in outputs
            ]
            _write_files(app, console, derived, [source], force=options.force)
        except (UsageError, OutputError) as error:
            if len(sources) == 1:
                raise
            failures.append({"file": name_source(source), "message": error.message})
            console.item_error(name_source(source), error)
            continue
        written += derived
        if not options.general.as_json:
            for output in derived:
                console.result(str(output.path), output.format, format_count(len(output.file.cues), "cue"))
    if options.general.as_json:
        document = _build_document("convert", written)
        console.write_json({**document, "ok": not failures, **({"failures": failures} if failures else {})})
    return ExitCode.PARTIAL if failures else ExitCode.OK


def run_shift(app: AppContext, console: Console, options: ShiftOptions) -> None:
    """Shift all times. Raises: UsageError, OutputError."""
    validate_fps(options.read)
    times = build_shift(parse_time(options.by, "TIME"))
    _run_retime(app, console, "shift", options, times)


def run_scale(app: AppContext, console: Console, options: ScaleOptions) -> None:
    """Scale all times. Raises: UsageError, OutputError."""
    validate_fps(options.read)
    rates = (options.from_fps, options.to_fps)
    if [options.factor is not None, rates != (None, None), options.sync is not None].count(True) != 1:
        raise UsageError("give FACTOR, --from-fps and --to-fps, or --sync")
    if options.sync is not None:
        times = TimeMap(parse_sync_points(options.sync))
    elif options.factor is not None:
        times = build_scale(_validate_number(options.factor, "FACTOR", 0.001, 1000))
    else:
        if options.from_fps is None or options.to_fps is None:
            raise UsageError("--from-fps needs --to-fps, and --to-fps needs --from-fps")
        from_fps = _validate_number(options.from_fps, "--from-fps", 1, 1000)
        times = build_scale(from_fps / _validate_number(options.to_fps, "--to-fps", 1, 1000))
    file = _run_retime(app, console, "scale", options, times)
    if file.format == "ass" and "word times" in file.features:
        console.warning("the times of words (\\k) count from the start of their cue, and were not scaled")


def run_merge(app: AppContext, console: Console, options: MergeOptions) -> None:
    """Merge files. Raises: UsageError, OutputError, AudiocliError: a recording cannot be read."""
    validate_fps(options.read)
    if len(options.files) < 2:
        raise UsageError("merge needs at least two files")
    if [options.offset is not None, bool(options.media), options.bilingual].count(True) > 1:
        raise UsageError("--offset, --media and --bilingual cannot be used together")
    files = [_read_complete(app, console, source, options.read) for source in options.files]
    files = files if options.speakers else [_drop_speakers(file) for file in files]
    format = _choose_format(options.format, options.output, files[0])
    offsets = _choose_offsets(app, options)
    files = [
        file if not by_s else retime(file, build_shift(by_s)).file for file, by_s in zip(files, offsets, strict=True)
    ]
    for source, file in zip(options.files[1:], files[1:], strict=True):
        _report_losses(console, file, format)
        if file.format == format and file.header not in ("", files[0].header):
            console.info(f"dropped the header of {source}: styles and metadata are those of the first file")
    if options.bilingual:
        merged = files[0]
        for file in files[1:]:
            merged = merge_languages(merged, file)
    else:
        if options.offset is None and not options.media and (overlap := find_first_overlap(files)) is not None:
            index, cue = overlap
            raise UsageError(
                f"{options.files[index]}: the cue on line {cue.line} overlaps a cue of another file",
                hint="join parts with --offset TIME or --media FILE, or two languages with --bilingual",
            )
        merged = merge_by_time(files)
    prepared = _prepare(console, merged, format, options.read)
    _finish(app, console, "merge", prepared, format, options.files, options.output, options.general.as_json)


def run_split(app: AppContext, console: Console, options: SplitOptions) -> None:
    """Split a file. Parts are named `NAME.1.srt` and so on. Raises: UsageError, OutputError."""
    validate_fps(options.read)
    if (options.at is None) == (options.every is None):
        raise UsageError("give --at or --every")
    file = _read_complete(app, console, options.file, options.read)
    format = _choose_format(options.format, None, file)
    last_s = max((max(cue.start_s, cue.end_s) for cue in file.cues), default=0.0)
    parts = split_captions(file, _choose_edges(options, last_s))
    width = len(str(len(parts)))
    outputs: list[CaptionOutput] = []
    for number, part in enumerate(parts, 1):
        if not part.cues:
            console.info(f"part {number} has no cues; no file is written")
            continue
        path = _derive_path(options.file, options.output_dir, f"{number:0{width}d}.{format}")
        outputs.append(
            CaptionOutput(_prepare(console, part, format, options.read, is_quiet=number > 1), format, path, True)
        )
    _write_files(app, console, outputs, [options.file], force=options.force)
    if options.general.as_json:
        console.write_json(_build_document("split", outputs))
        return
    for output in outputs:
        console.result(str(output.path), output.format, format_count(len(output.file.cues), "cue"))


def _run_retime(
    app: AppContext, console: Console, command: str, options: ShiftOptions | ScaleOptions, times: TimeMap
) -> CaptionFile:
    file = _read_complete(app, console, options.file, options.read)
    format = _choose_format(options.format, options.output, file)
    retimed = retime(file, times)
    if retimed.early:
        lost = f"; {retimed.lost} of them would also end before 0" if retimed.lost else ""
        console.warning(f"{format_count(retimed.early, 'cue')} would begin before 0 and now begin at 0{lost}")
    prepared = _prepare(console, retimed.file, format, options.read)
    _finish(app, console, command, prepared, format, options.file, options.output, options.general.as_json)
    return file


def format_count(count: int, word: str) -> str:
    """Format a count with its noun: `1 cue`, `2 cues`."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


# --- input -----------------------------------------------------------------------------------------------------------


def list_sources(app: AppContext, files: Sequence[str] | None) -> list[str]:
    """Return the files to read; stdin without any. Raises: UsageError: stdin is a terminal, or given twice."""
    sources = list(files or [])
    if not sources and app.stdin.isatty():
        raise UsageError("no caption file", hint="pass FILE, or - to read stdin")
    if sources.count("-") > 1:
        raise UsageError("stdin can be read only once")
    return sources or ["-"]


def name_source(source: str) -> str:
    """Return how messages name a source."""
    return "stdin" if source == "-" else source


def read_source(app: AppContext, source: str, options: ReadOptions) -> CaptionFile:
    """Read a caption file. Raises: UsageError: It cannot be read, decoded or parsed."""
    content = read_bytes(app, source, MAX_TEXT_BYTES)
    named = None if options.from_format is None else find_caption_format(options.from_format)
    format = named or (None if source == "-" else find_format_for_path(source))
    return read_captions(content, name_source(source), format, encoding=options.encoding, fps=options.fps)


def choose_input_format(source: str, options: ReadOptions, text: str) -> str:
    """Return the format of a text that is already decoded. Raises: UsageError: It cannot be detected."""
    named = None if options.from_format is None else find_caption_format(options.from_format)
    format = named or find_format_for_path(source) or detect_caption_format(text)
    if format is None:
        raise UsageError(f"{source}: cannot detect the caption format", hint="name it with --from FORMAT")
    return format


def validate_fps(options: ReadOptions) -> None:
    """Check `--fps`. Raises: UsageError."""
    if options.fps is not None:
        _validate_number(options.fps, "--fps", 1, 1000)


def _read_complete(app: AppContext, console: Console, source: str, options: ReadOptions) -> CaptionFile:
    """Read a file that is to be written again. Raises: UsageError: A line is malformed, so that text would be lost."""
    file = read_source(app, source, options)
    for problem in file.problems:
        if problem.is_malformed:
            raise UsageError(f"{name_source(source)}: line {problem.line}: {problem.message}")
        if problem.check == "text":
            console.warning(f"{name_source(source)}: line {problem.line}: {problem.message}")
    for cue in file.cues:
        if cue.end_s < cue.start_s:
            console.warning(f"{name_source(source)}: line {cue.line}: ends before it starts; players do not show it")
    return file


def _validate_number(value: float, name: str, minimum: float, maximum: float) -> float:
    if not (math.isfinite(value) and minimum <= value <= maximum):
        raise UsageError(f"{name} {value:g}: must be between {minimum:g} and {maximum:g}")
    return value


# --- changes ---------------------------------------------------------------------------------------------------------


def _choose_limits(options: ConvertOptions) -> CaptionLimits | None:
    """Return the limits of a new layout, or None if the cues stay as they are. Raises: UsageError."""
    given = (options.max_line_width, options.max_lines, options.max_cue_s, options.cps)
    if not options.relayout and all(value is None for value in given):
        return None
    default = CaptionLimits()
    return CaptionLimits(
        default.max_line_width if options.max_line_width is None else options.max_line_width,
        default.max_lines if options.max_lines is None else options.max_lines,
        default.max_cue_s if options.max_cue_s is None else options.max_cue_s,
        default.cps if options.cps is None else options.cps,
    )


def _relayout(console: Console, file: CaptionFile, limits: CaptionLimits) -> CaptionFile:
    """Return a file with new cues from the texts and times of the old ones. Styles are lost."""
    segments = tuple(
        Segment(cue.start_s, cue.end_s, cue.text.replace("\n", " "), cue.speaker) for cue in file.cues if cue.text
    )
    transcript = Transcript(text=" ".join(segment.text for segment in segments), segments=segments)
    lost = file.features | {_STYLE_WORDS[span.name] for cue in file.cues for span in cue.styles}
    if lost:
        console.info(f"dropped in the new layout: {', '.join(sorted(lost))}")
    cues = build_caption_cues(build_cues(transcript, limits))
    return file._replace(cues=cues, header="", features=frozenset())


def _drop_speakers(file: CaptionFile) -> CaptionFile:
    """Return a file without the names of speakers, which are also in the tags and settings of its cues."""
    cues = (cue if cue.speaker is None else cue._replace(speaker=None, native=None) for cue in file.cues)
    return file._replace(cues=tuple(cues))


def _choose_offsets(app: AppContext, options: MergeOptions) -> list[float]:
    """Return where each file begins. Raises: UsageError; AudiocliError: a recording cannot be read."""
    count = len(options.files)
    if options.offset is not None:
        offsets = [parse_time(part, "--offset") for part in options.offset.split(",")]
        if len(offsets) != count - 1:
            times, files = format_count(len(offsets), "time"), format_count(count - 1, "file")
            raise UsageError(f"--offset has {times} for {files} after the first one")
        return [0.0, *offsets]
    if options.media:
        if len(options.media) not in (count - 1, count):
            raise UsageError(f"--media names {len(options.media)} recordings; {count} files need {count - 1}")
        from ..codecs.probe import probe

        offsets = [0.0]
        for name in options.media[: count - 1]:
            with open_recording(app, name, StdinFormat()) as path:
                duration_s = probe(path).duration_s
            if not duration_s:
                raise UsageError(f"--media {name}: its duration is unknown")
            offsets.append(offsets[-1] + duration_s)
        return offsets
    return [0.0] * count


def _choose_edges(options: SplitOptions, last_s: float) -> list[float]:
    if options.at is not None:
        edges = [parse_time(part, "--at") for part in options.at.split(",")]
        if any(edge_s <= 0 for edge_s in edges) or sorted(set(edges)) != edges:
            raise UsageError(f"--at {options.at}: the times must be above 0 and in order")
        return edges
    every_s = parse_time(options.every or "", "--every")
    if every_s < 1:
        raise UsageError(f"--every {options.every}: must be at least 1 second")
    count = math.ceil(last_s / every_s)
    if count > _MAX_PARTS:
        raise UsageError(f"--every {options.every}: would make {count} parts, more than {_MAX_PARTS}")
    return [every_s * number for number in range(1, count)]


# --- output ----------------------------------------------------------------------------------------------------------


def _choose_formats(formats: str | None, output: str | None) -> list[str]:
    """Return the formats to write. Raises: UsageError: None is named, or one is unknown."""
    names = [name.strip() for name in (formats or "").split(",") if name.strip()]
    if names:
        return list(dict.fromkeys(map(find_caption_format, names)))
    return [_find_output_format(output)]


def _choose_format(format: str | None, output: str | None, file: CaptionFile) -> str:
    """Return the format to write: that of the option, of the output's extension, or of the input."""
    if format is not None:
        return find_caption_format(format)
    return file.format if output is None or output == "-" else _find_output_format(output)


def _find_output_format(output: str | None) -> str:
    if output is None or output == "-":
        raise UsageError("no output format", hint="pass -o FILE or -f FORMAT")
    format = find_format_for_path(output)
    if format is None:
        raise UsageError(f"-o {output}: unknown extension", hint="name the format: -f srt")
    return format


def _derive_path(source: str, output_dir: str | None, extension: str) -> Path:
    if source == "-" and output_dir is None:
        raise UsageError("several files from stdin need a directory", hint="pass -O DIR")
    directory = Path(source).parent if output_dir is None else Path(output_dir)
    return directory / f"{'stdin' if source == '-' else Path(source).stem}.{extension}"


def _prepare(
    console: Console, file: CaptionFile, format: str, options: ReadOptions, *, is_quiet: bool = False
) -> CaptionFile:
    """Return a file to write, and report what its format cannot express."""
    if not is_quiet:
        _report_losses(console, file, format)
    if format != "sub":
        return file
    fps = options.fps or file.fps or DEFAULT_FPS
    if options.fps is None and file.fps is None and not is_quiet:
        console.info(f"times in sub files are frame numbers, at {fps:g} frames per second; --fps sets another rate")
    return file._replace(fps=fps)


def _report_losses(console: Console, file: CaptionFile, format: str) -> None:
    used = {span.name for cue in file.cues for span in cue.styles if cue.native is None or cue.native.format != format}
    missing = {_STYLE_WORDS[name] for name in used - SUPPORTED_STYLES[format]}
    # TTML is always written anew, and comments are in no cue.
    missing |= file.features if file.format != format or format == "ttml" else file.features & {"comments"}
    if missing:
        console.info(f"dropped in {format}: {', '.join(sorted(missing))}")
    if format == "sub" and file.format != "sub" and any("|" in cue.text for cue in file.cues):
        console.info("'|' ends a line in sub, and was replaced by a similar character")


def _finish(
    app: AppContext,
    console: Console,
    command: str,
    file: CaptionFile,
    format: str,
    sources: str | Sequence[str],
    output: str | None,
    as_json: bool,
) -> None:
    """Write one file to its output, or to stdout, and report it."""
    if output is not None and output != "-":
        written = CaptionOutput(file, format, Path(output))
        _write_files(app, console, [written], [sources] if isinstance(sources, str) else sources, force=True)
        if as_json:
            console.write_json(_build_document(command, [written]))
        else:
            console.result(output, format, format_count(len(file.cues), "cue"))
        return
    content = write_captions(file, format)
    document: dict[str, Json] = {
        "ok": True,
        "command": f"captions {command}",
        "format": format,
        "cues": len(file.cues),
        "outputs": [],
    }
    if as_json and output is None:
        console.write_json({**document, "text": content})
        return
    console.write_text(content)
    if as_json:
        console.result_json(document)


def _write_files(
    app: AppContext, console: Console, outputs: Sequence[CaptionOutput], sources: Sequence[str], *, force: bool
) -> None:
    """Write files, none of which appears incomplete.

    Raises:
        UsageError: An output is an input, or a derived name exists.
        OutputError: A file cannot be written.
    """
    for output in outputs:
        for source in sources:
            if source != "-":
                reject_overwriting_input(Path(source), output.path)
        if output.is_derived and not force and output.path.exists():
            raise UsageError(f"{output.path} exists; left unchanged", hint="use --force to overwrite it")
        if output.is_derived:
            try:
                output.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"cannot create {output.path.parent}: {error.strerror}") from error

    async def write() -> None:
        from .outputs import open_text_file

        for output in outputs:
            opened = await open_text_file(app, output.path)
            try:
                await opened.write(write_captions(output.file, output.format).encode("utf-8", "replace"))
                await opened.commit()
            except (AudiocliError, OSError):
                await opened.abandon()
                raise

    app.run(lambda _: write(), read_timeout_s=DEFAULT_TIMEOUT_S, info=console.info, debug=console.debug)


def _build_document(command: str, outputs: Sequence[CaptionOutput]) -> dict[str, Json]:
    return {
        "ok": True,
        "command": f"captions {command}",
        "cues": sum(len(output.file.cues) for output in outputs),
        "outputs": [
            {"path": str(output.path), "format": output.format, "cues": len(output.file.cues)} for output in outputs
        ],
    }
