"""Run the items of a batch of `speak`, and report them, their progress and their summary."""

from __future__ import annotations

import asyncio
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..console import ProgressState, build_error_document, format_size
from ..context import AppContext
from ..core.batch.speech_item import (
    SpeechBatchConfig,
    SpeechBatchContext,
    SpeechItem,
    SpeechItemResult,
    SpeechOutcome,
    process_item,
    write_playlist,
)
from ..core.batch.worker_pool import CLAIM_POLL_INTERVAL_S, is_fatal
from ..core.result_documents import build_run_document
from ..costs import format_cost, format_run_cost, sum_costs, to_usd
from ..errors import AudiocliError, ExitCode
from ..types.ledger import CostSource
from .batch_report import NotePrinter
from .progress import format_in_progress, format_time_left
from .speech_verification import build_verification_document

if TYPE_CHECKING:
    from ..console import Console
    from ..core.run_context import RunContext
    from ..types.json import Json
    from .speak_batch import SpeechBatchPlan
    from .speak_options import SpeakOptions


async def process_items(
    app: AppContext,
    console: Console,
    ctx: RunContext,
    options: SpeakOptions,
    plan: SpeechBatchPlan,
    config: SpeechBatchConfig,
    batch: SpeechBatchContext,
) -> int:
    """Speak all items and return the exit code. A failed item does not stop the batch."""
    from concurrent.futures import ThreadPoolExecutor

    from ..core.ledger_writer import BatchedLedgerWriter
    from ..private_files import remove_abandoned_parts

    for directory in {item.path.parent for item in plan.items}:
        remove_abandoned_parts(directory)
    # The chapters of a book are spoken one after the other, each with all slots.
    worker_count = 1 if plan.playlist is not None else min(options.concurrency, len(plan.items))
    ledger_executor = ThreadPoolExecutor(1)
    ctx = ctx._replace(info=NotePrinter(console), ledger_writer=BatchedLedgerWriter(ctx.ledger, ledger_executor))
    speaker = _BatchSpeaker(
        app, console, ctx, plan, config, batch, fail_fast=options.files.fail_fast, as_json=options.general.as_json
    )
    try:
        async with console.activity(speaker.describe):
            await speaker.run(worker_count)
    except asyncio.CancelledError:
        speaker.report_interruption()
        raise
    finally:
        ledger_executor.shutdown(wait=False)
    if plan.playlist is not None and speaker.stop_error is None:
        path, entries = plan.playlist
        if not write_playlist(path, entries, batch, force=config.force):
            console.warning(f"{path} exists and was not written by audiocli; left unchanged")
    return speaker.report_summary()


class _BatchSpeaker:
    """Speaks items with several workers, and counts their outcomes and costs."""

    def __init__(
        self,
        app: AppContext,
        console: Console,
        ctx: RunContext,
        plan: SpeechBatchPlan,
        config: SpeechBatchConfig,
        batch: SpeechBatchContext,
        *,
        fail_fast: bool,
        as_json: bool,
    ) -> None:
        self._app = app
        self._console = console
        self._ctx = ctx
        self._plan = plan
        self._config = config
        self._batch = batch
        self._fail_fast = fail_fast
        self._as_json = as_json
        self._started_s = ctx.now_s()
        self._counts: Counter[SpeechOutcome] = Counter()
        self._costs: list[tuple[int | None, CostSource]] = []
        self._requests = 0
        self._audio_s = 0.0
        self._claimed: list[SpeechItem] = []
        self._warnings: set[str] = set()
        # Items whose speech failed its verification.
        self._wrong_count = 0
        self.stop_error: AudiocliError | None = None

    async def run(self, worker_count: int) -> None:
        """Process all items. Those that another process has claimed follow at the end."""
        items: Sequence[SpeechItem] = self._plan.items
        while items and self.stop_error is None:
            self._claimed = []
            await self._run_workers(iter(items), worker_count)
            if len(self._claimed) == len(items):
                await self._ctx.sleep(CLAIM_POLL_INTERVAL_S)
            items = self._claimed

    async def _run_workers(self, items: Iterator[SpeechItem], worker_count: int) -> None:
        """Process items. Exceptions other than AudiocliError cancel the items in progress and are raised."""
        workers = [asyncio.create_task(self._run_worker(items)) for _ in range(worker_count)]
        try:
            await asyncio.gather(*workers)
        except BaseException:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            raise

    async def _run_worker(self, items: Iterator[SpeechItem]) -> None:
        for item in items:
            if self.stop_error is not None:
                return
            try:
                result = await process_item(item, self._config, self._batch, self._ctx)
            except AudiocliError as error:
                if self.stop_error is None and (self._fail_fast or is_fatal(error)):
                    self.stop_error = error
                result = SpeechItemResult(item, SpeechOutcome.FAILED, error=error)
            if result is None:
                self._claimed.append(item)
            else:
                self._report(result)
            # Unchanged items never wait for anything; yield so that Ctrl-C is handled.
            await asyncio.sleep(0)

    @property
    def _done_count(self) -> int:
        return sum(self._counts.values())

    def _report(self, item_result: SpeechItemResult) -> None:
        """Count a finished item and report it. While a progress line is shown, plain successes get no line."""
        self._counts[item_result.outcome] += 1
        item, result = item_result.item, item_result.result
        if result is not None:
            self._requests += result.run.attempt_count
            self._audio_s += result.duration_s or 0.0
            self._costs.append((result.run.cost_nanousd, result.run.cost_source))
            self._wrong_count += result.verification is not None and bool(result.verification.failed)
        if self._as_json:
            self._console.write_json(_build_item_document(item_result), add_warnings=False)
            return
        if item_result.error is not None:
            self._console.item_error(item.label, item_result.error)
        elif item_result.outcome is SpeechOutcome.EDITED:
            self._console.info(
                f"{item.path} exists and was not written by audiocli, or was edited; left unchanged "
                "(use --force to overwrite)"
            )
        elif result is not None and not self._app.stderr_is_interactive:
            cost = "cached" if result.is_cached else format_run_cost(result.run.cost_nanousd, result.run.cost_source)
            duration = "" if result.duration_s is None else f"{result.duration_s:.2f} s"
            self._console.result(str(item.path), duration, result.format, format_size(result.size_bytes), cost)
        for warning in () if result is None else result.warnings:
            # A warning about the model concerns every item.
            if warning not in self._warnings:
                self._warnings.add(warning)
                self._console.warning(f"{item.label}: {warning}")

    def describe(self) -> ProgressState:
        """Describe the progress."""
        count = len(self._plan.items)
        share = self._done_count / count if count else None
        text = f"{self._done_count} of {count} {self._plan.noun}s"
        if self._counts[SpeechOutcome.FAILED]:
            text += f", {self._counts[SpeechOutcome.FAILED]} failed"
        details = [f"cost {format_cost(*sum_costs(self._costs))}"] if self._costs else []
        if share:
            elapsed_s = self._ctx.now_s() - self._started_s
            details.append(format_time_left(elapsed_s / share - elapsed_s))
        return ProgressState(text, share, tuple(details))

    def report_interruption(self) -> None:
        """Report how far an interrupted batch got."""
        cost = f"; cost {format_cost(*sum_costs(self._costs))}" if self._costs else ""
        self._console.info(
            f"interrupted: {self._done_count} of {len(self._plan.items)} {self._plan.noun}s are done{cost}"
            f"{format_in_progress(self._plan.routing.routes)}"
        )
        self._console.hint("run the same command again to resume; what is stored is not sent again")

    def report_summary(self) -> int:
        """Report the totals and return the exit code."""
        remaining = len(self._plan.items) - self._done_count
        error = self.stop_error
        if error is not None and error.exit_code in (ExitCode.MONEY, ExitCode.ACCESS):
            code = error.exit_code
        else:
            is_partial = bool(self._counts[SpeechOutcome.FAILED] or self._wrong_count) or error is not None
            code = ExitCode.PARTIAL if is_partial else ExitCode.OK
        elapsed_s = self._ctx.now_s() - self._started_s
        cost_nanousd, cost_source = sum_costs(self._costs)
        if self._as_json:
            summary: dict[str, Json] = {
                "files": len(self._plan.items),
                **{outcome.value: self._counts[outcome] for outcome in SpeechOutcome},
                "not_begun": remaining,
                **({} if self._config.verification is None else {"wrong": self._wrong_count}),
                "requests": self._requests,
                "audio_s": round(self._audio_s, 3),
                "cost_usd": to_usd(cost_nanousd),
                "cost_source": str(cost_source),
                "elapsed_s": round(elapsed_s, 3),
            }
            document: dict[str, Json] = {"ok": code == 0, "command": "speak", "exit": code, "summary": summary}
            if error is not None:
                document["stopped"] = build_error_document(error, "speak")["error"]
            if self._counts[SpeechOutcome.FAILED] or remaining:
                document["again"] = self._build_retry_command()
            self._console.write_json(document)
            return code
        if error is not None:
            self._console.error(error)
        counts = [f"{self._counts[outcome]} {outcome.value}" for outcome in SpeechOutcome if self._counts[outcome]]
        counts += [f"{self._wrong_count} wrong"] if self._wrong_count else []
        counts += [f"{remaining} not started"] if remaining else []
        noun = self._plan.noun if len(self._plan.items) == 1 else f"{self._plan.noun}s"
        spoken = [f"cost {format_cost(cost_nanousd, cost_source)}"] if self._costs else []
        self._console.result(f"{len(self._plan.items)} {noun}: {', '.join(counts)}", *spoken, f"{elapsed_s:.1f} s")
        if self._counts[SpeechOutcome.FAILED] or remaining:
            self._console.hint(f"run it again to resume: {self._build_retry_command()}")
        return code

    def _build_retry_command(self) -> str:
        return shlex.join(["audiocli", *self._app.argv])


def _build_item_document(item_result: SpeechItemResult) -> dict[str, Json]:
    item, result, error = item_result.item, item_result.result, item_result.error
    document: dict[str, Json] = {
        "ok": error is None,
        "command": "speak",
        "source": item.label,
        "status": item_result.outcome.value,
        "output": str(item.path),
    }
    if error is not None:
        return {**document, "error": build_error_document(error, "speak")["error"]}
    if result is None:
        return {**document, "requests": 0, "warnings": []}
    return {
        **document,
        "bytes": result.size_bytes,
        "sha256": result.sha256,
        "format": result.format,
        "duration_s": None if result.duration_s is None else round(result.duration_s, 3),
        "cached": result.is_cached,
        **build_run_document(result.run),
        **({} if result.verification is None else {"verify": build_verification_document(result.verification)}),
        "warnings": list(result.warnings),
    }
