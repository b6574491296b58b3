"""Report the progress, the items and the summary of a batch, as text or JSON Lines."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..console import ProgressState
from ..context import AppContext
from ..core.batch.item import ItemOutcome, ItemResult
from ..core.batch.worker_pool import Totals
from ..core.result_documents import build_run_document
from ..core.transcript_pages import build_quality_document
from ..core.verdicts import ACCEPT_PARTIAL_HINT
from ..errors import AudiocliError, ExitCode, LimitReached
from .progress import format_in_progress

if TYPE_CHECKING:
    from ..console import Console
    from ..core.limiter import LimiterPool
    from ..types.json import Json
    from ..types.objects import Location
    from ..types.routes import Route

# Maximum rows of the table of failures. `--json` reports all of them.
MAX_FAILURE_ROWS = 50
# Failures after which the next run sends the recording, or writes its outputs, without permission.
UNSENT_EXIT_CODES = (ExitCode.USAGE, ExitCode.RECORDING, ExitCode.ACCESS, ExitCode.MONEY, ExitCode.OUTPUT)
# Order of the counts in a summary.
SUMMARY_ORDER = (
    ItemOutcome.TRANSCRIBED,
    ItemOutcome.WRITTEN,
    ItemOutcome.UNCHANGED,
    ItemOutcome.EDITED,
    ItemOutcome.FAILED,
)
OUTCOME_LABELS = {
    ItemOutcome.TRANSCRIBED: "transcribed",
    ItemOutcome.WRITTEN: "written without sending",
    ItemOutcome.UNCHANGED: "unchanged",
    ItemOutcome.EDITED: "edited",
    ItemOutcome.FAILED: "failed",
}


class NotePrinter:
    """Prints what is reported while items are processed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed_messages: set[str] = set()

    def __call__(self, message: str) -> None:
        """Print a message once. Warnings go to the debug output, because the result of the item has them."""
        if message.startswith("warning: ") or message in self._printed_messages:
            self._console.debug(message)
            return
        self._printed_messages.add(message)
        self._console.info(message)


class BatchReporter:
    """Report items as they finish, and the summary at the end. `note` prints what is reported meanwhile."""

    def __init__(self, app: AppContext, console: Console, *, as_json: bool) -> None:
        self._app = app
        self._console = console
        self._as_json = as_json
        self._is_interactive = app.stderr_is_interactive
        self._failure_rows: list[tuple[str, int, str]] = []
        self._failed_count = 0
        self._edited_count = 0
        self._without_output_count = 0
        self._retryable_count = 0
        # Failures of requests, which the next run sends again only with `--retry-failed`.
        self._has_failed_requests = False
        self._has_reached_limit = False
        self.note = NotePrinter(console)

    def report_item(self, result: ItemResult) -> None:
        """Report a finished item. While a progress line is shown, plain successes get no line."""
        if result.error is not None:
            self._report_failure(result.item.source, result.error)
            return
        self._edited_count += bool(result.edited)
        self._without_output_count += result.is_without_output
        if self._as_json:
            self._console.write_json(_build_item_document(result), add_warnings=False)
            return
        if result.written and not self._is_interactive:
            self._console.result(*_list_item_parts(result))
        if result.edited:
            names = ", ".join(path.name for path in result.edited)
            self._console.info(f"{result.item.source}: {names} was edited or not written by audiocli; left unchanged")
        for warning in result.warnings:
            self._console.warning(f"{result.item.source}: {warning}")

    def report_unreadable(self, directory: Location, reason: str) -> None:
        """Report a directory that could not be listed, as a failure."""
        from ..errors import RecordingError

        self._report_failure(directory, RecordingError(f"{directory}: {reason}"))

    def _report_failure(self, source: Location, error: AudiocliError) -> None:
        from ..console import build_error_document

        self._failed_count += 1
        self._retryable_count += error.exit_code not in (ExitCode.USAGE, ExitCode.RECORDING)
        self._has_failed_requests |= error.exit_code not in UNSENT_EXIT_CODES
        self._has_reached_limit |= isinstance(error, LimitReached)
        message = error.message.removeprefix(f"{source}: ")
        if len(self._failure_rows) < MAX_FAILURE_ROWS:
            self._failure_rows.append((str(source), error.exit_code, message))
        if self._as_json:
            document: dict[str, Json] = {
                "ok": False,
                "command": "transcribe",
                "source": str(source),
                "status": "failed",
            }
            self._console.write_json(
                {**document, "error": build_error_document(error, "transcribe")["error"]}, add_warnings=False
            )
        elif not self._is_interactive or self._console.is_quiet:
            self._console.item_error(str(source), error)

    def report_interruption(self, totals: Totals, routes: Sequence[Route]) -> None:
        """Report how far an interrupted batch got."""
        remaining = totals.item_count - totals.done_count
        stored_count = totals.done_count - totals.counts[ItemOutcome.FAILED]
        cost = ""
        if totals.attempt_count or any(progress.costs for progress in totals.item_progress):
            cost = f"; {_format_spent(totals)}"
        self._console.info(
            f"interrupted: {stored_count} of {format_recording_count(totals.item_count)} are stored "
            f"({_format_counts(totals)}), {remaining} not done{cost}{format_in_progress(routes)}"
        )
        self._console.hint("run the same command again to resume; what is stored is not sent again")

    def report_summary(self, totals: Totals, stop_error: AudiocliError | None, *, elapsed_s: float) -> int:
        """Report the totals of a batch and return its exit code."""
        code = self._resolve_exit_code(totals, stop_error)
        remaining = totals.item_count - totals.done_count
        # The same recording fails in the same way, so there is nothing to retry.
        can_retry = self._retryable_count or remaining or stop_error is not None
        retry_command = self._build_retry_command() if code and can_retry else None
        if self._as_json:
            self._console.write_json(self._build_summary_document(totals, stop_error, code, retry_command, elapsed_s))
            return code
        if self._failure_rows:
            rows = [[name, str(exit_code), message] for name, exit_code, message in self._failure_rows]
            self._console.info_table(["recording", "exit", "error"], rows, numeric=[False, True, False])
        if self._failed_count > len(self._failure_rows):
            self._console.info(f"{self._failed_count - len(self._failure_rows)} more failures; use --json to list all")
        if self._edited_count:
            self._console.info(
                f"{self._edited_count} with outputs that were edited or not written by audiocli; "
                "left unchanged (use --force to overwrite)"
            )
        if self._without_output_count:
            count = format_recording_count(self._without_output_count)
            self._console.info(f"{count} without a transcript: all outputs exist and were not written by audiocli")
        if totals.partial_count:
            count = format_recording_count(totals.partial_count)
            self._console.info(f"{count} with a partial transcript ({ACCEPT_PARTIAL_HINT})")
        if stop_error is not None:
            self._console.error(stop_error)
        self._console.result(
            *_list_summary_parts(totals, remaining, failed=self._failed_count),
            self._format_limit_left(totals),
            f"{elapsed_s:.1f} s",
        )
        if retry_command is not None:
            limit = "raise the limit, and " if self._has_reached_limit or isinstance(stop_error, LimitReached) else ""
            self._console.hint(f"{limit}retry with: {retry_command}")
        return code

    def _format_limit_left(self, totals: Totals) -> str:
        """Format what is left of the daily spending limit after requests were sent; "" without such a limit."""
        from ..costs import Rounding, format_exact_usd, format_usd
        from ..ledger.budget import resolve_limits

        if not totals.attempt_count or self._app.settings.budget.day is None:
            return ""
        limits = resolve_limits(self._app.settings.budget, max_cost_nanousd=None, run_id="", now=self._app.now())
        try:
            spending = [(limit, self._app.ledger.sum_spending(limit)) for limit in limits if limit.name == "day"]
        except AudiocliError as error:
            return f"daily spending limit unknown: {error.message}"
        return ", ".join(
            f"{format_usd(max(limit.amount_nanousd - spent, 0), Rounding.DOWN)} of "
            f"{format_exact_usd(limit.amount_nanousd)} left today"
            for limit, spent in spending
        )

    def _resolve_exit_code(self, totals: Totals, stop_error: AudiocliError | None) -> int:
        if stop_error is not None and stop_error.exit_code in (ExitCode.MONEY, ExitCode.ACCESS):
            return stop_error.exit_code
        is_partial = self._failed_count or self._without_output_count or totals.partial_count or stop_error is not None
        return ExitCode.PARTIAL if is_partial else ExitCode.OK

    def _build_retry_command(self) -> str:
        """Return the command that processes the failed and remaining items."""
        argv = list(self._app.argv)
        index = argv.index("transcribe") + 1 if "transcribe" in argv else len(argv)
        flags = argv[: argv.index("--")] if "--" in argv else argv
        if self._has_failed_requests and "--retry-failed" not in flags:
            argv.insert(index, "--retry-failed")
        return shlex.join(["audiocli", *argv])

    def _build_summary_document(
        self, totals: Totals, stop_error: AudiocliError | None, code: int, retry_command: str | None, elapsed_s: float
    ) -> dict[str, Json]:
        from ..console import build_error_document
        from ..costs import to_usd

        counts: dict[str, Json] = {outcome.value: totals.counts[outcome] for outcome in SUMMARY_ORDER}
        counts["failed"] = self._failed_count
        cost_nanousd, cost_source = totals.total_cost
        summary: dict[str, Json] = {
            "files": totals.item_count,
            **counts,
            "not_begun": totals.item_count - totals.done_count,
            "requests": totals.attempt_count,
            "audio_s": round(totals.audio_s, 3),
            "cost_usd": to_usd(cost_nanousd),
            "cost_source": str(cost_source),
            "elapsed_s": round(elapsed_s, 3),
        }
        stop = build_error_document(stop_error, "transcribe")["error"] if stop_error is not None else None
        return {
            "ok": code == 0,
            "command": "transcribe",
            "exit": code,
            "summary": summary,
            **({"stopped": stop} if stop is not None else {}),
            **({"again": retry_command} if retry_command is not None else {}),
        }


def _list_item_parts(result: ItemResult) -> list[str]:
    from ..costs import format_run_cost

    parts = [str(result.item.source), ", ".join(path.name for path in result.written)]
    run = result.run
    if result.outcome is ItemOutcome.WRITTEN or (run is not None and not run.attempt_count):
        parts.append("nothing sent")
    if result.duration_s is not None and run is not None:
        parts.append(f"{result.duration_s:.1f} s of audio")
    if run is not None and run.attempt_count:
        parts.append(format_run_cost(run.cost_nanousd, run.cost_source))
    return parts


def _build_item_document(result: ItemResult) -> dict[str, Json]:
    run_document: dict[str, Json] = build_run_document(result.run) if result.run is not None else {"requests": 0}
    return {
        "ok": True,
        "command": "transcribe",
        "source": str(result.item.source),
        "status": result.outcome.value,
        "outputs": [str(path) for _, path in result.item.outputs],
        "written": [str(path) for path in result.written],
        "edited": [str(path) for path in result.edited],
        "duration_s": None if result.duration_s is None else round(result.duration_s, 3),
        "is_partial": result.is_partial,
        **run_document,
        "warnings": list(result.warnings),
        **build_quality_document(result.suspicions),
    }


def _format_counts(totals: Totals) -> str:
    counts = [
        f"{totals.counts[outcome]} {OUTCOME_LABELS[outcome]}" for outcome in SUMMARY_ORDER if totals.counts[outcome]
    ]
    return ", ".join(counts) or "none"


def _format_spent(totals: Totals, unknown: str = "unknown") -> str:
    """Format the cost so far, with the finished chunks of recordings in progress.

    `unknown` describes the costs that are unknown, beside known ones.
    """
    from ..costs import format_cost

    spent_nanousd, cost_source = totals.known_spending
    if not totals.has_unknown_cost:
        return f"cost {format_cost(spent_nanousd, cost_source)}"
    return f"cost {format_cost(spent_nanousd, cost_source)} plus {unknown}" if spent_nanousd else "cost unknown"


def _list_summary_parts(totals: Totals, remaining: int, *, failed: int) -> list[str]:
    counts = [_format_counts(totals)]
    if failed > totals.counts[ItemOutcome.FAILED]:
        counts.append(f"{failed - totals.counts[ItemOutcome.FAILED]} directories unreadable")
    if remaining:
        counts.append(f"{remaining} not started")
    parts = [f"{format_recording_count(totals.item_count)}: {', '.join(counts)}"]
    if totals.counts[ItemOutcome.TRANSCRIBED]:
        parts.append(f"{format_duration(totals.audio_s)} of audio")
        parts.append(_format_spent(totals, f"{totals.unknown_cost_count} of unknown cost"))
    return parts


def describe_progress(
    totals: Totals, limiter_pool: LimiterPool, now_s: float, *, worker_count: int | None = None
) -> ProgressState:
    """Describe the progress of a batch. `worker_count` is that of the cluster; None without one."""
    from ..costs import format_usd
    from .progress import format_speed, format_time_left

    elapsed_s = max(now_s - totals.started_s, 1e-3)
    text = f"{totals.done_count} of {totals.item_count}{' or more' if totals.is_listing else ''} recordings"
    if totals.counts[ItemOutcome.FAILED]:
        text += f", {totals.counts[ItemOutcome.FAILED]} failed"
    parts = []
    if worker_count is not None:
        parts.append(f"{worker_count} worker" if worker_count == 1 else f"{worker_count} workers")
        parts.append(f"{totals.done_count / elapsed_s:.1f} recordings/s")
        if totals.audio_s:
            parts.append(f"{format_duration(totals.audio_s)} of audio")
    chunk_count = sum(progress.total_chunks or 0 for progress in totals.item_progress)
    if chunk_count:
        parts.append(f"{sum(progress.done_chunks for progress in totals.item_progress)} of {chunk_count} chunks")
    if totals.audio_s:
        parts.append(format_speed(totals.audio_s / elapsed_s))
    done_share = None if totals.is_listing else totals.done_share
    spent_nanousd, _ = totals.known_spending
    if totals.has_unknown_cost:
        parts.append(_format_spent(totals))
    elif spent_nanousd or totals.attempt_count:
        projection = f" of about {format_usd(round(spent_nanousd / done_share))}" if done_share else ""
        parts.append(f"{_format_spent(totals)}{projection}")
    if limiter_pool.is_paused:
        parts.append("waiting for the gateway")
    elif limiter_pool.waiting_count:
        parts.append(f"{limiter_pool.waiting_count} queued")
    if done_share:
        parts.append(format_time_left(elapsed_s / done_share - elapsed_s))
    return ProgressState(text, done_share, tuple(parts))


def format_recording_count(count: int) -> str:
    """Return the count with the singular or plural of "recording"."""
    return f"{count} recording" if count == 1 else f"{count} recordings"


def format_duration(audio_s: float) -> str:
    """Format a duration in seconds, or in minutes from 60 s on."""
    return f"{audio_s / 60:.1f} min" if audio_s >= 60 else f"{audio_s:.1f} s"
