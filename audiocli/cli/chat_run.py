"""Run `audiocli chat`: read the recordings, choose the routes, send the request, and report the reply."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..context import AppContext
from . import audio_outputs, options, transcript_outputs
from .transcribe_run import BudgetOptions as BudgetOptions

if TYPE_CHECKING:
    from ..console import Console
    from ..core.audio_pipeline import AudioOutput
    from ..core.retry_policy import RetryPolicy
    from ..core.run_context import RunContext
    from ..errors import AudiocliError
    from ..gateways.base import Dialect
    from ..outputs import FileOutput, StreamOutput
    from ..routing import RouteQuery
    from ..types.json import Json
    from ..types.ledger import Estimate
    from ..types.requests import ChatRequest
    from ..types.results import ChatResult
    from ..types.routes import Route


class ChatPlan(NamedTuple):
    """Validated settings of one `chat` command.

    The reply goes to `destination` if it is spoken, else to `text_path`, else to stdout. `recordings` are pairs of the
    path and the name given on the command line.
    """

    text: str
    recordings: tuple[tuple[Path, str], ...]
    system: str | None
    destination: audio_outputs.AudioDestination | None
    text_path: Path | None
    query: RouteQuery
    streaming_output: transcript_outputs.StreamingOutput
    retry_policy: RetryPolicy
    tag: str | None
    budget: BudgetOptions
    options: Mapping[str, Json]
    max_tokens: int | None
    stream: bool
    dry_run: bool
    as_json: bool


async def run(app: AppContext, console: Console, ctx: RunContext, plan: ChatPlan) -> ChatResult | None:
    """Send the message and write the reply. Return None after a dry run.

    Raises:
        AudiocliError: The recordings, the routes, the budget or an output failed.
    """
    from ..core.chat import ChatTask, estimate, send_chat
    from ..outputs import MultiOutput, open_output

    request = await _build_request(plan)
    routing = options.resolve_routes(app, plan.query, lambda dialect, route: _check_route(app, request, dialect, route))
    options.report_routes(console, routing, "")
    prices = {route.ref: estimate(request, route, app.cache) for route in routing.routes}
    budget = options.resolve_budget(
        app,
        prices,
        max_cost=plan.budget.max_cost_usd,
        allow_unpriced=plan.budget.allow_unpriced,
        assume_yes=plan.budget.assume_yes,
        dry_run=plan.dry_run,
    )
    if plan.dry_run:
        _print_plan(console, plan, request, routing.routes, prices)
        return None
    outputs: tuple[AudioOutput, ...] = ()
    if plan.destination is not None:
        outputs = await audio_outputs.open_outputs(app, plan.destination, compute_hash=plan.as_json)
    file: FileOutput | StreamOutput | None = None
    if plan.text_path is not None:
        file = await open_output(plan.text_path, rescue_directory=app.scratch_directory("kept"), binary=False)
    task = ChatTask(
        request=request,
        audio_outputs=outputs,
        output=MultiOutput([output.writer for output in outputs]),
        text_stream=plan.streaming_output.text_stream,
        retry_policy=plan.retry_policy,
        directory=app.scratch_directory("uploads"),
        tag=plan.tag,
    )
    try:
        # A spinner would overwrite text on the same terminal.
        prints_to_terminal = plan.destination is None and plan.text_path is None and app.stdout_is_terminal
        activity = (
            nullcontext() if prints_to_terminal else console.activity(lambda: f"waiting for {routing.routes[0].ref}")
        )
        async with activity:
            result = await send_chat(task, routing.routes, routing.skipped, budget.apply_to(ctx))
    except BaseException:
        if file is not None:
            await file.abandon()
        if app.stdout_is_terminal:
            await plan.streaming_output.finish()
        raise
    await plan.streaming_output.finish()
    if file is not None:
        await file.write((result.text.rstrip("\n") + "\n").encode("utf-8", "replace"))
        await file.commit()
    return result


async def _build_request(plan: ChatPlan) -> ChatRequest:
    from ..core.transcription import probe_recording
    from ..types.requests import ChatRequest

    recordings = [await probe_recording(path, "stdin" if name == "-" else name) for path, name in plan.recordings]
    return ChatRequest(
        text=plan.text,
        recordings=tuple(recordings),
        system=plan.system,
        format=None if plan.destination is None else plan.destination.format,
        stream=plan.stream,
        max_tokens=plan.max_tokens,
        options=plan.options,
    )


def _check_route(app: AppContext, request: ChatRequest, dialect: Dialect, route: Route) -> AudiocliError | None:
    """Return an error if the model cannot serve the request.

    Whether it can speak is read from the cached model list, else guessed from its name.
    """
    from ..gateways import chat_completions

    if request.format is None:
        return dialect.check_chat(request, route)
    supports_speech = app.catalog.supports_speech(route)
    if supports_speech is None:
        return dialect.check_chat(request, route)
    if supports_speech:
        return dialect.check_chat(request._replace(format=None), route)
    error = chat_completions.build_audio_support_error(route)
    error.hint = f"try {next(iter(app.catalog.get_audio_chat_models(route)))}"
    return error


def _print_plan(
    console: Console, plan: ChatPlan, request: ChatRequest, routes: tuple[Route, ...], prices: Mapping[str, Estimate]
) -> None:
    from .. import gateways
    from ..core.chat import sum_input_audio_s

    warnings = (*routes[0].notes, *gateways.load_dialect(routes[0].dialect).get_chat_warnings(request, routes[0]))
    for warning in warnings:
        console.warning(warning)
    units: dict[str, Json] = {
        "characters": len(request.text) + len(request.system or ""),
        "recordings": len(request.recordings),
        "duration_s": round(sum_input_audio_s(request), 3),
        "format": request.format,
        "output": _describe_output(plan),
    }
    if plan.as_json:
        console.write_json(options.build_plan_document("chat", routes, prices, units, warnings))
        return
    lines = [
        "requests    1",
        f"characters  {units['characters']}",
        *([f"audio       {sum_input_audio_s(request):.1f} s"] if request.recordings else []),
        f"reply       {request.format or 'text'}",
        f"price       {options.format_price(prices[routes[0].ref])}",
        *(f"route       {route.ref}" + (f", voice {route.voice}" if route.voice else "") for route in routes),
    ]
    console.write_text("\n".join(lines) + "\n")


def _describe_output(plan: ChatPlan) -> str | None:
    if plan.destination is not None:
        return plan.destination.name
    return None if plan.text_path is None else str(plan.text_path)


def report(console: Console, result: ChatResult, plan: ChatPlan) -> None:
    """Write the result, and the text of the reply unless it was streamed or written to a file."""
    if plan.as_json:
        is_stdout = plan.destination is not None and plan.destination.is_stdout
        (console.result_json if is_stdout else console.write_json)(_build_document(result, plan))
        return
    if plan.destination is not None:
        console.info_text(result.text)
    elif plan.text_path is None and not plan.streaming_output.text_stream.has_emitted:
        console.write_text(result.text.rstrip("\n") + "\n")
    console.info(_format_line(result, plan))


def _build_document(result: ChatResult, plan: ChatPlan) -> dict[str, Json]:
    from ..amounts import to_usd
    from ..core.result_documents import build_run_document

    usage = result.usage
    destination_warnings = plan.destination.warnings if plan.destination is not None else ()
    return {
        "ok": True,
        "command": "chat",
        "text": result.text,
        "output": _describe_output(plan),
        "bytes": result.size_bytes,
        "sha256": result.sha256,
        "format": result.format,
        "duration_s": None if result.duration_s is None else round(result.duration_s, 3),
        "finish": result.finish_reason,
        **build_run_document(result.run),
        "upstream_cost_usd": to_usd(usage.upstream_nanousd),
        "usage": {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "input_audio_tokens": usage.input_audio_tokens,
            "output_audio_tokens": usage.output_audio_tokens,
        },
        "warnings": [*destination_warnings, *result.warnings],
    }


def _format_line(result: ChatResult, plan: ChatPlan) -> str:
    from ..amounts import format_usd
    from ..console import format_size

    run = result.run
    parts = []
    if result.format is not None:
        parts.append(result.format)
        if result.duration_s is not None:
            parts.append(f"{result.duration_s:.2f} s")
        parts.append(format_size(result.size_bytes or 0))
    parts.append(run.route.ref + (f" {run.route.voice}" if run.route.voice else ""))
    parts.append("free" if run.cost_nanousd == 0 else f"cost {format_usd(run.cost_nanousd)}")
    output = "played" if plan.destination is not None and plan.destination.name is None else _describe_output(plan)
    prefix = {None: "", "-": "stdout: "}.get(output, f"{output}: ")
    return prefix + ", ".join(parts)
