"""Progress of a batch: weighed by seconds of audio, and no projection without a basis."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from audiocli.cli.batch_report import describe_progress
from audiocli.core.batch.item import ItemOutcome, ItemResult
from audiocli.core.batch.output_paths import BatchItem
from audiocli.core.batch.worker_pool import Totals
from audiocli.core.limiter import LimiterPool
from audiocli.core.progress import TranscriptionProgress
from audiocli.core.run_context import RunContext
from audiocli.types.ledger import CostSource
from audiocli.types.results import RunResult
from audiocli.types.routes import Route

BYTES_PER_S = 1000
NANOUSD_PER_S = 100_000
ROUTE = Route("openai", "openai", "", "whisper-1")


def plan(**durations_s: float) -> tuple[Totals, dict[str, BatchItem]]:
    """Plan a batch of recordings, whose names have their extension behind an underscore."""
    totals = Totals(len(durations_s), started_s=0.0)
    items = {name: BatchItem(Path(name.replace("_", ".")), ()) for name in durations_s}
    for name, duration_s in durations_s.items():
        totals.progress.plan(items[name].source, round(duration_s * BYTES_PER_S))
    return totals, items


def finish(totals: Totals, item: BatchItem, duration_s: float, cost_nanousd: int | None = None) -> None:
    cost = round(duration_s * NANOUSD_PER_S) if cost_nanousd is None else cost_nanousd
    run = RunResult(ROUTE, "whisper-1", 1, 1, cost, CostSource.ESTIMATED)
    totals.add(ItemResult(item, ItemOutcome.TRANSCRIBED, duration_s=duration_s, run=run))


def begin(totals: Totals, item: BatchItem, duration_s: float, done_chunks: int, total_chunks: int) -> None:
    progress = TranscriptionProgress(duration_s, item.source)
    progress.done_chunks, progress.total_chunks = done_chunks, total_chunks
    progress.costs = [
        (round(duration_s / total_chunks * NANOUSD_PER_S), CostSource.ESTIMATED) for _ in range(done_chunks)
    ]
    totals.item_progress.append(progress)


def render(totals: Totals, elapsed_s: float = 10.0) -> str:
    state = describe_progress(totals, LimiterPool(cast(RunContext, None)), elapsed_s)
    return ", ".join([state.text, *state.details])


def render_long_recording(done_chunks: int) -> str:
    """Render the progress of three short recordings, which are finished, and of a long one of four chunks."""
    totals, items = plan(a_wav=1, b_wav=1, c_wav=1, long_wav=3600)
    for name in ("a_wav", "b_wav", "c_wav"):
        finish(totals, items[name], 1.0)
    begin(totals, items["long_wav"], 3600.0, done_chunks, 4)
    return render(totals)


def test_short_recordings_are_no_basis_for_a_long_one() -> None:
    text = render_long_recording(done_chunks=0)

    assert "3 of 4 recordings" in text
    assert "cost about $0.0003" in text
    assert " of about " not in text
    assert "left" not in text


def test_finished_chunks_of_a_recording_in_progress_count() -> None:
    text = render_long_recording(done_chunks=1)

    assert "cost about $0.09 of about $0.36" in text
    assert "30 s left" in text


@pytest.mark.parametrize("count", [10, 1000])
def test_recordings_that_are_not_open_yet_are_weighed_by_size(count: int) -> None:
    totals, items = plan(**{f"n{number}_wav": 60.0 for number in range(count)}, big_wav=60.0 * count)
    for number in range(count // 2):
        finish(totals, items[f"n{number}_wav"], 60.0)

    assert totals.done_share == pytest.approx(0.25)


def test_size_of_another_format_is_no_basis() -> None:
    totals, items = plan(a_mp3=100, b_wav=100)
    finish(totals, items["a_mp3"], 1000.0)

    assert totals.done_share is None
    begin(totals, items["b_wav"], 100.0, 0, 1)
    assert totals.done_share == pytest.approx(1000 / 1100)


def test_unsent_and_failed_recordings_have_no_weight() -> None:
    totals, items = plan(a_wav=5000, b_wav=5000, c_wav=10, d_wav=10)
    totals.add(ItemResult(items["a_wav"], ItemOutcome.UNCHANGED))
    totals.add(ItemResult(items["b_wav"], ItemOutcome.FAILED))
    assert totals.done_share is None
    finish(totals, items["c_wav"], 10.0)

    assert totals.done_share == pytest.approx(0.5)


def test_unknown_cost_is_not_projected() -> None:
    totals, items = plan(a_wav=10, b_wav=10)
    run = RunResult(ROUTE, "whisper-1", 1, 1, None, CostSource.UNKNOWN)
    totals.add(ItemResult(items["a_wav"], ItemOutcome.TRANSCRIBED, duration_s=10.0, run=run))

    text = render(totals)

    assert "cost unknown" in text
    assert "$0" not in text
    assert " of about " not in text


def test_known_part_of_an_unknown_cost_is_shown() -> None:
    totals, items = plan(a_wav=10, b_wav=10, c_wav=10)
    run = RunResult(ROUTE, "whisper-1", 1, 1, None, CostSource.UNKNOWN)
    finish(totals, items["a_wav"], 10.0)
    totals.add(ItemResult(items["b_wav"], ItemOutcome.TRANSCRIBED, duration_s=10.0, run=run))

    assert "cost about $0.001 plus unknown" in render(totals)


@pytest.mark.parametrize("costs", [(None, 1_000_000), (1_000_000, None)])
def test_source_of_an_unknown_total_does_not_depend_on_the_order(costs: tuple[int | None, ...]) -> None:
    totals, items = plan(a_wav=10, b_wav=10)
    for item, cost in zip(items.values(), costs, strict=True):
        source = CostSource.UNKNOWN if cost is None else CostSource.ESTIMATED
        run = RunResult(ROUTE, "whisper-1", 1, 1, cost, source)
        totals.add(ItemResult(item, ItemOutcome.TRANSCRIBED, duration_s=10.0, run=run))

    assert totals.total_cost == (None, CostSource.UNKNOWN)
