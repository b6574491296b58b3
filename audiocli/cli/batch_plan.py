"""What a batch would do, or has left undone: everything is looked at, and nothing is sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..context import AppContext
from ..core.batch.context import BatchConfig, BatchContext
from ..core.batch.output_paths import Task
from ..core.batch.status import OutputState, inspect_item
from ..errors import AudiocliError, ExitCode
from . import options
from .batch_report import minutes, recordings

if TYPE_CHECKING:
    from ..console import Console
    from ..types.values import Estimate, Json


async def verify(screen: Console, tasks: Sequence[Task], order: BatchConfig, site: BatchContext, *, as_json: bool) -> int:
    """Tell which outputs are missing or stale; give the exit code."""
    counts = dict.fromkeys(OutputState, 0)
    failed = 0
    for task in tasks:
        try:
            states = (await inspect_item(task, order, site)).states
        except AudiocliError as error:
            failed += 1
            if as_json:
                screen.write_json({"ok": False, "source": str(task.source), "status": "failed", "why": error.message})
            else:
                screen.info(f"{task.source}: failed: {error.message}")
            continue
        for state in states:
            counts[state] += 1
        told = {str(path): state.value for (_, path), state in zip(task.targets, states, strict=True)}
        if as_json:
            ok = not {OutputState.MISSING, OutputState.STALE} & set(states)
            screen.write_json({"ok": ok, "source": str(task.source), "outputs": {**told}})
        else:
            for path, found in told.items():
                if found != OutputState.CURRENT:
                    screen.info(f"{path}: {found}")
    is_good = not (failed or counts[OutputState.MISSING] or counts[OutputState.STALE])
    code = ExitCode.DONE if is_good else ExitCode.PARTLY_DONE
    if as_json:
        summary: dict[str, Json] = {"files": len(tasks), **{str(s): n for s, n in counts.items()}, "failed": failed}
        screen.write_json({"ok": is_good, "command": "transcribe", "exit": code, "summary": summary})
    else:
        told_counts = [f"{count} {state.value}" for state, count in counts.items() if count]
        told_counts += [f"{failed} failed"] if failed else []
        screen.info(f"outputs of {recordings(len(tasks))}: {', '.join(told_counts) or 'none'}")
    return code


class BatchPlan(NamedTuple):
    """What a batch would do: recordings to send and their length, others to write without sending."""

    files: int
    to_send: int
    to_write: int
    edited: int
    failed: int
    duration_s: float
    unknown_lengths: int
    requests: int
    prices: dict[str, Estimate]


async def survey(env: AppContext, tasks: Sequence[Task], order: BatchConfig, site: BatchContext) -> BatchPlan:
    """Look at every recording and send none."""
    import math

    from .. import gateways
    from ..core.transcription import estimate, look_at

    to_send = to_write = edited = failed = unknown = requests = 0
    duration_s = 0.0
    sums: dict[str, list[Estimate]] = {route.ref: [] for route in order.routes}
    limits = [gateways.dialect(route.dialect).limits(route).audio_s for route in order.routes]
    longest_s = min(filter(None, (*limits, order.longest_s)), default=math.inf)
    for task in tasks:
        try:
            sight = await inspect_item(task, order, site)
            to_write += bool(sight.to_write) and not sight.must_send
            edited += OutputState.EDITED in sight.states
            if not sight.must_send:
                continue
            recording = await look_at(task.source, str(task.source))
        except AudiocliError:
            failed += 1
            continue
        to_send += 1
        duration_s += recording.duration_s or 0.0
        unknown += recording.duration_s is None
        requests += max(1, math.ceil((recording.duration_s or 0.0) / longest_s))
        for route in order.routes:
            sums[route.ref].append(estimate(recording.duration_s, route, env.cache))
    prices = {ref: _added(estimates) for ref, estimates in sums.items()}
    return BatchPlan(len(tasks), to_send, to_write, edited, failed, duration_s, unknown, requests, prices)


def _added(estimates: Sequence[Estimate]) -> Estimate:
    from ..types.values import Estimate

    least = [one.least_nanousd for one in estimates]
    most = [one.most_nanousd for one in estimates]
    return Estimate(
        None if None in least else sum(one or 0 for one in least),
        None if None in most else sum(one or 0 for one in most),
        all(one.is_certain for one in estimates),
    )


def plan(screen: Console, found: BatchPlan, order: BatchConfig, *, as_json: bool) -> int:
    """Print what would be done."""
    if as_json:
        units: dict[str, Json] = {
            "files": found.files,
            "to_send": found.to_send,
            "to_write": found.to_write,
            "edited": found.edited,
            "failed": found.failed,
            "audio_s": None if found.unknown_lengths else round(found.duration_s, 3),
        }
        document = options.plan_document("transcribe", order.routes, found.prices, units, (), requests=found.requests)
        screen.write_json(document)
        return ExitCode.DONE
    unknown = f", and {found.unknown_lengths} of unknown length" if found.unknown_lengths else ""
    lines = [
        f"recordings  {found.files}: {found.to_send} to send, {found.to_write} to write without sending"
        + (f", {found.edited} edited" if found.edited else "")
        + (f", {found.failed} unreadable" if found.failed else ""),
        f"requests    {found.requests}",
        f"audio       {minutes(found.duration_s)}{unknown}",
        f"price       {options.price_text(found.prices[order.routes[0].ref])}",
        *(f"route       {route.ref}" for route in order.routes),
    ]
    screen.write_text("\n".join(lines) + "\n")
    return ExitCode.DONE
