"""Run `audiocli captions check`: read each file, check it and report the findings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..context import AppContext
from ..errors import ExitCode, UsageError, suggest
from ..text.caption_checks import CHECKS, CheckLimits, Finding, check_captions
from ..text.caption_file import CaptionFile
from ..text.caption_readers import CaptionEncodingError, parse_captions
from ..text.line_breaking import CaptionLimits
from .captions_run import choose_input_format, format_count, list_sources, name_source, read_source, validate_fps
from .inputs import MAX_TEXT_BYTES, read_bytes

if TYPE_CHECKING:
    from ..console import Console
    from ..types.json import Json
    from .captions import CheckOptions, ReadOptions

# When a file is not UTF-8, the encoding that it most probably has shows the rest of its problems.
_FALLBACK_ENCODING = "cp1252"


def run_check(app: AppContext, console: Console, options: CheckOptions) -> int:
    """Check files and print the findings.

    Returns:
        3 if there is a finding, or if one of several files cannot be read.

    Raises:
        UsageError: The only file cannot be read or parsed, or an option is invalid.
    """
    limits = _build_limits(options)
    skipped = _parse_checks(options.skip)
    validate_fps(options.read)
    sources = list_sources(app, options.files)
    findings: list[tuple[str, Finding]] = []
    files: list[dict[str, Json]] = []
    failures: list[dict[str, Json]] = []
    for source in sources:
        try:
            file, encoding_findings = _read(app, source, options.read)
        except UsageError as error:
            if len(sources) == 1:
                raise
            failures.append({"file": name_source(source), "message": error.message})
            console.item_error(name_source(source), error)
            continue
        found = [*(item for item in encoding_findings if item.check not in skipped)]
        found += check_captions(file, limits, skipped=skipped)
        findings += ((name_source(source), finding) for finding in found)
        files.append(
            {"file": name_source(source), "format": file.format, "cues": len(file.cues), "findings": len(found)}
        )
        if not options.general.as_json:
            console.result(
                name_source(source), format_count(len(file.cues), "cue"), format_count(len(found), "finding")
            )
    if options.general.as_json:
        _write_json(console, files, findings, failures)
    elif findings:
        _write_table(console, findings)
    return ExitCode.PARTIAL if findings or failures else ExitCode.OK


def _read(app: AppContext, source: str, options: ReadOptions) -> tuple[CaptionFile, list[Finding]]:
    """Read a file. One that is not UTF-8 is a finding, and is read in another encoding."""
    try:
        return read_source(app, source, options), []
    except CaptionEncodingError as error:
        if source == "-":
            raise  # stdin cannot be read again
        text = read_bytes(app, source, MAX_TEXT_BYTES).decode(_FALLBACK_ENCODING, "replace")
        file = parse_captions(text, source, choose_input_format(source, options, text), fps=options.fps)
        detail = error.message.removeprefix(f"{source}: ").removeprefix(f"line {error.line} is ")
        return file, [Finding("encoding", f"{detail}; try --encoding {_FALLBACK_ENCODING}", error.line)]


def _build_limits(options: CheckOptions) -> CheckLimits:
    for name, value in (("--min-cue", options.min_cue_s), ("--min-gap", options.min_gap_s)):
        if not 0 <= value < 3600:
            raise UsageError(f"{name} {value:g}: must be between 0 and 3600")
    caption = CaptionLimits(options.max_line_width, options.max_lines, options.max_cue_s, options.cps)
    return CheckLimits(caption, options.min_cue_s, options.min_gap_s)


def _parse_checks(value: str | None) -> frozenset[str]:
    names = [name.strip() for name in (value or "").split(",") if name.strip()]
    for name in names:
        if name not in CHECKS:
            raise UsageError(
                f"--skip {name}: unknown check{suggest(name, CHECKS)}", hint=f"checks: {', '.join(CHECKS)}"
            )
    return frozenset(names)


def _write_table(console: Console, findings: Sequence[tuple[str, Finding]]) -> None:
    rows = [
        [
            name if finding.line is None else f"{name}:{finding.line}",
            "" if finding.cue is None else str(finding.cue),
            finding.check,
            finding.detail,
        ]
        for name, finding in findings
    ]
    console.write_table(["file:line", "cue", "check", "detail"], rows, numeric=[False, True, False, False])


def _write_json(
    console: Console,
    files: list[dict[str, Json]],
    findings: Sequence[tuple[str, Finding]],
    failures: list[dict[str, Json]],
) -> None:
    items: list[Json] = [
        {"file": name, "line": finding.line, "cue": finding.cue, "check": finding.check, "detail": finding.detail}
        for name, finding in findings
    ]
    document: dict[str, Json] = {"ok": not items and not failures, "command": "captions check", "files": [*files]}
    document["findings"] = items
    if failures:
        document["failures"] = [*failures]
    console.write_json(document)
