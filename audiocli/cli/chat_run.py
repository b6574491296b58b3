"""How `chat` is done: recordings looked at, routes chosen, the answer passed on and told."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..context import AppContext
from . import audio_outputs, options, transcript_outputs
from .transcribe_run import Spending as Spending

if TYPE_CHECKING:
    from ..console import Console
    from ..core.retry_policy import RetryPolicy
    from ..core.run_context import RunContext
    from ..errors import AudiocliError
    from ..gateways.base import Gateway as Dialect
    from ..outputs import FileOutput, StreamOutput
    from ..routing import RouteQuery
    from ..types.chat import ChatResult, ChatRequest
    from ..types.values import Estimate, Json, Route


class ChatPlan(NamedTuple):
    """One `chat`, with all that was decided before the recordings are looked at.

    The answer goes to `target` if it is spoken, else to `file`, else to stdout. `recordings`: path, and what the user
    calls it.
    """

    text: str
    recordings: tuple[tuple[Path, str], ...]
    system: str | None
    target: audio_outputs.Target | None
    file: Path | None
    wish: RouteQuery
    live: transcript_outputs.StreamingOutput
    policy: RetryPolicy
    tag: str | None
    spending: Spending
    options: Mapping[str, Json]
    longest_tokens: int | None
    streams: bool
    is_dry: bool
    as_json: bool


async def run(env: AppContext, screen: Console, tools: RunContext, job: ChatPlan) -> ChatResult | None:
    """Do it; None after a dry run. Raises: any AudiocliError."""
    from ..core.chat import ChatTask, estimate, talk
    from ..outputs import MultiOutput, open_target

    request = await _request(job)
    routing = options.resolve_routes(env, job.wish, lambda dialect, route: _refusal(env, request, dialect, route))
    options.announce(screen, routing, "")
    prices = {route.ref: estimate(request, route, env.cache) for route in routing.routes}
    allowance = options.resolve_budget(
        env,
        prices,
        max_cost=job.spending.max_cost,
        allows_unpriced=job.spending.allows_unpriced,
        says_yes=job.spending.says_yes,
        is_dry=job.is_dry,
    )
    if job.is_dry:
        _print_plan(screen, job, request, routing.routes, prices)
        return None
    outlets = () if job.target is None else await audio_outputs.open_outlets(env, job.target, is_hashed=job.as_json)
    file: FileOutput | StreamOutput | None = None
    if job.file is not None:
        file = await open_target(job.file, rescue_folder=env.scratch_folder("kept"), binary=False)
    work = ChatTask(
        request=request,
        outlets=outlets,
        output=MultiOutput([outlet.sink for outlet in outlets]),
        hearing=job.live.hearing,
        policy=job.policy,
        folder=env.scratch_folder("uploads"),
        tag=job.tag,
    )
    try:
        # Text and a spinner on the same terminal would write over each other.
        is_shown = job.target is None and job.file is None and env.stdout_is_terminal
        async with nullcontext() if is_shown else screen.activity(lambda: f"{routing.routes[0].ref}: thinking"):
            receipt = await talk(work, routing.routes, routing.skipped, allowance.apply_to(tools))
    except BaseException:
        if file is not None:
            await file.abandon()
        if env.stdout_is_terminal:
            await job.live.finish()
        raise
    await job.live.finish()
    if file is not None:
        await file.write((receipt.text.rstrip("\n") + "\n").encode("utf-8", "replace"))
        await file.commit()
    return receipt


async def _request(job: ChatPlan) -> ChatRequest:
    from ..core.transcription import look_at
    from ..types.chat import ChatRequest

    recordings = [await look_at(path, "stdin" if name == "-" else name) for path, name in job.recordings]
    return ChatRequest(
        text=job.text,
        recordings=tuple(recordings),
        system=job.system,
        format=None if job.target is None else job.target.format,
        streams=job.streams,
        longest_tokens=job.longest_tokens,
        options=job.options,
    )


def _refusal(env: AppContext, request: ChatRequest, dialect: Dialect, route: Route) -> AudiocliError | None:
    """Refuse a model without a voice when one is needed: by its gateway's list if it was kept, else by its name."""
    from ..gateways import chat_completions

    if request.format is None:
        return dialect.chat_refusal(request, route)
    known = env.shelf.speaks(route)
    if known is None:
        return dialect.chat_refusal(request, route)
    if known:
        return dialect.chat_refusal(request._replace(format=None), route)
    error = chat_completions.cannot_speak(route)
    error.hint = f"{next(iter(env.shelf.talkers(route)))} does"
    return error


def _print_plan(
    screen: Console, job: ChatPlan, request: ChatRequest, routes: tuple[Route, ...], prices: Mapping[str, Estimate]
) -> None:
    from .. import gateways
    from ..core.chat import heard_s

    warnings = (*routes[0].notes, *gateways.dialect(routes[0].dialect).chat_warnings(request, routes[0]))
    for warning in warnings:
        screen.warning(warning)
    units: dict[str, Json] = {
        "characters": len(request.text) + len(request.system or ""),
        "recordings": len(request.recordings),
        "duration_s": round(heard_s(request), 3),
        "format": request.format,
        "output": _name(job),
    }
    if job.as_json:
        screen.write_json(options.plan_document("chat", routes, prices, units, warnings))
        return
    lines = [
        "requests    1",
        f"characters  {units['characters']}",
        *([f"audio       {heard_s(request):.1f} s"] if request.recordings else []),
        f"answer      {request.format or 'text'}",
        f"price       {options.price_text(prices[routes[0].ref])}",
        *(f"route       {route.ref}" + (f", voice {route.voice}" if route.voice else "") for route in routes),
    ]
    screen.write_text("\n".join(lines) + "\n")


def _name(job: ChatPlan) -> str | None:
    if job.target is not None:
        return job.target.name
    return None if job.file is None else str(job.file)


def report(screen: Console, receipt: ChatResult, job: ChatPlan) -> None:
    """Write the answer where it was not passed on yet, and the receipt where it belongs."""
    if job.as_json:
        is_stdout = job.target is not None and job.target.is_stdout
        (screen.result_json if is_stdout else screen.write_json)(_document(receipt, job))
        return
    if job.target is not None:
        screen.info_text(receipt.text)
    elif job.file is None and not job.live.hearing.has_heard:
        screen.write_text(receipt.text.rstrip("\n") + "\n")
    screen.info(_line(receipt, job))


def _document(receipt: ChatResult, job: ChatPlan) -> dict[str, Json]:
    from ..amounts import usd_number
    from ..core.result_documents import served_document

    usage = receipt.usage
    target_warnings = job.target.warnings if job.target is not None else ()
    return {
        "ok": True,
        "command": "chat",
        "text": receipt.text,
        "output": _name(job),
        "bytes": receipt.size_bytes,
        "sha256": receipt.sha256,
        "format": receipt.format,
        "duration_s": None if receipt.duration_s is None else round(receipt.duration_s, 3),
        "finish": receipt.finish,
        **served_document(receipt.run),
        "upstream_cost_usd": usd_number(usage.upstream_nanousd),
        "usage": {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "input_audio_tokens": usage.input_audio_tokens,
            "output_audio_tokens": usage.output_audio_tokens,
        },
        "warnings": [*target_warnings, *receipt.warnings],
    }


def _line(receipt: ChatResult, job: ChatPlan) -> str:
    from ..amounts import usd
    from ..console import size

    served = receipt.run
    parts = []
    if receipt.format is not None:
        parts.append(receipt.format)
        if receipt.duration_s is not None:
            parts.append(f"{receipt.duration_s:.2f} s")
        parts.append(size(receipt.size_bytes or 0))
    parts.append(served.route.ref + (f" {served.route.voice}" if served.route.voice else ""))
    parts.append("free" if served.cost_nanousd == 0 else f"cost {usd(served.cost_nanousd)}")
    where = "played" if job.target is not None and job.target.name is None else _name(job)
    prefix = {None: "", "-": "stdout: "}.get(where, f"{where}: ")
    return prefix + ", ".join(parts)
