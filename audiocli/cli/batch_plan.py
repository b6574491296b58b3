"""Dry run and `--verify-only` of a batch. Neither sends a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..context import AppContext
from ..core.batch.context import BatchConfig, BatchContext
from ..core.batch.output_paths import BatchItem
from ..core.batch.status import OutputState, inspect_item
from ..errors import AudiocliError, ExitCode
from . import options
from .batch_report import format_duration, format_recording_count

if TYPE_CHECKING:
    from ..console import Console
    from ..types.json import Json
    from ..types.ledger import Estimate


async def verify(
    console: Console, items: Sequence[BatchItem], config: BatchConfig, batch_context: BatchContext, *, as_json: bool
) -> int:
    """Report which outputs are missing or stale, and return the exit code."""
    counts = dict.fromkeys(OutputState, 0)
    failed = 0
    for item in items:
        try:
            states = (await inspect_item(item, config, batch_context)).output_states
        except AudiocliError as error:
            failed += 1
            if as_json:
                console.write_json({"ok": False, "source": str(item.source), "status": "failed", "why": error.message})
            else:
                console.info(f"{item.source}: failed: {error.message}")
            continue
        for state in states:
            counts[state] += 1
        state_by_path = {str(path): state.value for (_, path), state in zip(item.outputs, states, strict=True)}
        if as_json:
            ok = not {OutputState.MISSING, OutputState.STALE} & set(states)
            console.write_json({"ok": ok, "source": str(item.source), "outputs": {**state_by_path}})
        else:
            for path, state_name in state_by_path.items():
                if state_name != OutputState.CURRENT:
                    console.info(f"{path}: {state_name}")
    is_complete = not (failed or counts[OutputState.MISSING] or counts[OutputState.STALE])
    code = ExitCode.OK if is_complete else ExitCode.PARTIAL
    if as_json:
        summary: dict[str, Json] = {"files": len(items), **{str(s): n for s, n in counts.items()}, "failed": failed}
        console.write_json({"ok": is_complete, "command": "transcribe", "exit": code, "summary": summary})
    else:
        count_texts = [f"{count} {state.value}" for state, count in counts.items() if count]
        count_texts += [f"{failed} failed"] if failed else []
        console.info(f"outputs of {format_recording_count(len(items))}: {', '.join(count_texts) or 'none'}")
    return code


class BatchPlan(NamedTuple):
    """Totals of a dry run. `to_write` counts items that are written from the cache; `prices` has estimates by route."""

    files: int
    to_send: int
    to_write: int
    edited: int
    failed: int
    duration_s: float
    unknown_durations: int
    requests: int
    prices: dict[str, Estimate]


async def plan_batch(
    app: AppContext, items: Sequence[BatchItem], config: BatchConfig, batch_context: BatchContext
) -> BatchPlan:
    """Inspect every recording and return the totals, without sending a request."""
    import math

    from .. import gateways
    from ..core.transcription import estimate, probe_recording

    to_send = to_write = edited = failed = unknown_durations = requests = 0
    duration_s = 0.0
    estimates_by_route: dict[str, list[Estimate]] = {route.ref: [] for route in config.routes}
    max_audio_s = [gateways.load_dialect(route.dialect).get_limits(route).max_audio_s for route in config.routes]
    max_chunk_s = min(filter(None, (*max_audio_s, config.max_chunk_s)), default=math.inf)
    for item in items:
        try:
            status = await inspect_item(item, config, batch_context)
            to_write += bool(status.outputs_to_write) and not status.must_send
            edited += OutputState.EDITED in status.output_states
            if not status.must_send:
                continue
            recording = await probe_recording(item.source, str(item.source))
        except AudiocliError:
            failed += 1
            continue
        to_send += 1
        duration_s += recording.duration_s or 0.0
        unknown_durations += recording.duration_s is None
        requests += max(1, math.ceil((recording.duration_s or 0.0) / max_chunk_s))
        for route in config.routes:
            estimates_by_route[route.ref].append(estimate(recording.duration_s, route, app.cache))
    prices = {ref: _sum_estimates(estimates) for ref, estimates in estimates_by_route.items()}
    return BatchPlan(len(items), to_send, to_write, edited, failed, duration_s, unknown_durations, requests, prices)


def _sum_estimates(estimates: Sequence[Estimate]) -> Estimate:
    """Add estimates. The sum is unknown if one of them is unknown."""
    from ..types.ledger import Estimate

    minimums = [estimate.min_nanousd for estimate in estimates]
    maximums = [estimate.max_nanousd for estimate in estimates]
    return Estimate(
        None if None in minimums else sum(price or 0 for price in minimums),
        None if None in maximums else sum(price or 0 for price in maximums),
        all(estimate.is_exact for estimate in estimates),
    )


def print_plan(console: Console, plan: BatchPlan, config: BatchConfig, *, as_json: bool) -> int:
    """Print the result of a dry run, and return the exit code."""
    if as_json:
        units: dict[str, Json] = {
            "files": plan.files,
            "to_send": plan.to_send,
            "to_write": plan.to_write,
            "edited": plan.edited,
            "failed": plan.failed,
            "audio_s": None if plan.unknown_durations else round(plan.duration_s, 3),
        }
        document = options.build_plan_document(
            "transcribe", config.routes, plan.prices, units, (), requests=plan.requests
        )
        console.write_json(document)
        return ExitCode.OK
    unknown = f", and {plan.unknown_durations} of unknown length" if plan.unknown_durations else ""
    lines = [
        f"recordings  {plan.files}: {plan.to_send} to send, {plan.to_write} to write without sending"
        + (f", {plan.edited} edited" if plan.edited else "")
        + (f", {plan.failed} unreadable" if plan.failed else ""),
        f"requests    {plan.requests}",
        f"audio       {format_duration(plan.duration_s)}{unknown}",
        f"price       {options.format_price(plan.prices[config.routes[0].ref])}",
        *(f"route       {route.ref}" for route in config.routes),
    ]
    console.write_text("\n".join(lines) + "\n")
    return ExitCode.OK
