"""`audiocli chat`: read the recordings, choose routes, send the message, and report the reply."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ..context import AppContext
from ..errors import UsageError
from .inputs import StdinFormat, build_stdin_format, open_recording, read_text, reject_overwriting_input
from .microphone import MicrophoneOptions, open_microphone_recording, print_devices
from .microphone import validate_options as validate_microphone_options
from .options import (
    Bell,
    GatewayOptions,
    GeneralOptions,
    Models,
    MoneyOptions,
    Player,
    build_plan_document,
    fetch_default_lists,
    format_price,
    hint_missing_prices,
    needs_prices,
    open_app,
    parse_provider_options,
    report_routes,
    resolve_budget,
    resolve_models,
    resolve_routes,
    resolve_tag,
    validate_timeout,
    validate_utf8,
    with_options,
)
from .outputs import (
    AudioDestination,
    StreamingOutput,
    choose_destination,
    open_audio_outputs,
    open_text_file,
    require_stdout,
)

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

TEXT_FORMATS = ("txt", "text", "md")
MICROPHONE_NAME = "the microphone"


class ChatOptions(NamedTuple):
    """Options of `audiocli chat`."""

    text: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="Message; - reads from stdin.")] = None
    audio: Annotated[
        list[str] | None,
        typer.Option("--audio", "-a", metavar="PATH", help="Recording to send; - is stdin; repeatable."),
    ] = None
    system: Annotated[str | None, typer.Option("--system", metavar="TEXT", help="System prompt.")] = None
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="PATH", help="Output file of the reply; - is stdout.")
    ] = None
    format: Annotated[
        str | None,
        typer.Option("--format", "-f", metavar="NAME", help="Format: mp3 wav flac opus ogg aac m4a pcm ulaw alaw txt."),
    ] = None
    models: Models = None
    voice: Annotated[str | None, typer.Option("--voice", "-v", metavar="NAME", help="Voice of the reply.")] = None
    request_fields: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="Extra request field; A.B=VALUE sets field B of A."),
    ] = None
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", metavar="N", help="Maximum length of the reply; spending limits need it."),
    ] = None
    stream: Annotated[
        bool, typer.Option("--stream/--no-stream", help="Print the reply while it arrives, or when it is complete.")
    ] = True
    microphone: MicrophoneOptions = MicrophoneOptions()
    stdin_format: Annotated[
        str | None, typer.Option("--stdin-format", metavar="EXT", help="Format of -a -, if it cannot be detected.")
    ] = None
    play: Annotated[bool | None, typer.Option("--play/--no-play", help="Play the reply, or never play it.")] = None
    player: Player = None
    bell: Bell = False
    gateway: GatewayOptions = GatewayOptions()
    money: MoneyOptions = MoneyOptions()
    general: GeneralOptions = GeneralOptions()


class ChatPlan(NamedTuple):
    """A `chat` command after validation.

    The reply goes to `destination` if it is spoken, else to `text_path`, else to stdout. `recordings` are pairs of the
    path and the name given on the command line.
    """

    options: ChatOptions
    text: str
    recordings: tuple[tuple[Path, str], ...]
    destination: AudioDestination | None
    text_path: Path | None
    query: RouteQuery
    streaming_output: StreamingOutput
    retry_policy: RetryPolicy
    tag: str | None
    provider_options: Mapping[str, Json]


@with_options
def chat(ctx: typer.Context, options: ChatOptions) -> None:
    """Send text or recordings to a model and get its reply."""
    app, console = open_app(
        ctx, options.general, quiet_json=True, bell=options.bell, exchanges=options.gateway.exchanges
    )
    run(app, console, options)


def run(app: AppContext, console: Console, options: ChatOptions) -> None:
    """Send a message and report the reply, or print the plan of a dry run.

    Raises:
        AudiocliError: An option is invalid, or a recording, the routes, the budget, the request or an output failed.
    """
    from ..core.retry_policy import RetryPolicy
    from ..gateways.chat_completions import RESERVED_FIELDS
    from ..routing import RouteQuery

    if options.microphone.list_devices:
        print_devices(console, "chat", as_json=options.general.as_json)
        return
    validate_microphone_options(options.microphone, dry_run=options.money.dry_run)
    settings = app.settings
    models = resolve_models(options.models, settings.chat_models, options.gateway.name, settings.aliases)
    for value, flag in (
        (options.voice, "--voice"),
        (options.system, "--system"),
        *((reference, "--model") for reference in models),
    ):
        validate_utf8(value, flag)
    if options.max_tokens is not None and not 1 <= options.max_tokens <= 1_000_000:
        raise UsageError(f"--max-tokens {options.max_tokens}: must be between 1 and 1000000")
    is_spoken = _has_spoken_reply(options)
    destination = None
    if is_spoken:
        destination = choose_destination(
            app, options.output, options.format, None, play=options.play, player=options.player
        )
        for warning in destination.warnings:
            console.warning(warning)
    elif options.voice is not None:
        console.warning("--voice has no effect on a text reply; use -o FILE or --play for a spoken reply")
    provider_options = parse_provider_options(options.request_fields, RESERVED_FIELDS, nested=True)
    sources = options.audio or []
    spoken = [MICROPHONE_NAME] if options.microphone.mic else []
    message = _read_message(app, options.text or [], [*sources, *spoken])
    timeout_s = validate_timeout(options.gateway.timeout_s)
    query = RouteQuery(
        task="chat",
        models=models,
        gateway=options.gateway.name,
        base_url=options.gateway.base_url,
        voice=options.voice if is_spoken else None,
        default_voice=(settings.chat_voice or "alloy") if is_spoken else None,
        model_voices=settings.voices if is_spoken else None,
        model_prices=settings.prices,
    )
    stdin_format = build_stdin_format(options.stdin_format, None, None)
    with ExitStack() as stack:
        paths = [
            stack.enter_context(open_recording(app, source, stdin_format if source == "-" else StdinFormat()))
            for source in sources
        ]
        if options.microphone.mic:
            paths.append(stack.enter_context(open_microphone_recording(app, console, options.microphone)))
        text_path = None if is_spoken or options.output in (None, "-") else Path(str(options.output))
        prints_text = destination is None and text_path is None
        if prints_text:
            require_stdout(app)
        for path in paths:
            reject_overwriting_input(path, text_path if destination is None else destination.path)
        is_streaming = options.stream and prints_text and not options.general.as_json
        plan = ChatPlan(
            options=options,
            text=message,
            recordings=tuple(zip(paths, [*sources, *spoken], strict=True)),
            destination=destination,
            text_path=text_path,
            query=query,
            streaming_output=StreamingOutput(app, console, is_enabled=is_streaming),
            retry_policy=RetryPolicy(retry_unknown=options.money.retry_unknown, has_multiple_models=len(models) > 1),
            tag=resolve_tag(options.money.tag, app),
            provider_options=provider_options,
        )
        result = app.run(
            lambda ctx: _chat(app, console, ctx, plan),
            read_timeout_s=timeout_s,
            info=console.info,
            debug=console.debug,
        )
    if result is not None:
        _report(console, result, plan)


def _has_spoken_reply(options: ChatOptions) -> bool:
    """Return whether the options ask for a spoken reply.

    Raises:
        UsageError: A text reply is to be played.
    """
    output, format = options.output, options.format
    is_played = bool(options.play) or options.player is not None
    extension = Path(output).suffix.lower().removeprefix(".") if output is not None else ""
    is_text = format.lower() in TEXT_FORMATS if format is not None else extension in TEXT_FORMATS
    if is_text and is_played:
        raise UsageError("cannot play a text reply", hint="remove --play or the text format")
    return not is_text and (is_played or output is not None or format is not None)


def _read_message(app: AppContext, words: list[str], audio: list[str]) -> str:
    """Return the text of the message: the arguments, or stdin. It may be empty if there are recordings.

    Raises:
        UsageError: There is neither text nor a recording, or stdin is used twice.
    """
    from ..text.line_breaking import has_visible_text

    if audio.count("-") + (words == ["-"]) > 1:
        raise UsageError("stdin can be used only once")
    if not words and not audio and app.stdin.isatty():
        raise UsageError("no message", hint="pass a text, pipe it to stdin, or add a recording with -a FILE")
    text = "" if audio and not words else read_text(app, words, None, wait_for_end=True)[0]
    if not audio and not has_visible_text(text):
        raise UsageError("no message", hint="pass a text, pipe it to stdin, or add a recording with -a FILE")
    return text if has_visible_text(text) else ""


async def _chat(app: AppContext, console: Console, ctx: RunContext, plan: ChatPlan) -> ChatResult | None:
    """Send the message and write the reply. Return None after a dry run.

    Raises:
        AudiocliError: The recordings, the routes, the budget or an output failed.
    """
    from ..core.catalog import fetch_missing_prices
    from ..core.chat import ChatTask, estimate, send_chat
    from ..core.progress import UploadProgress
    from ..outputs import MultiOutput
    from .progress import describe_request

    options = plan.options
    request = await _build_request(plan)
    await fetch_default_lists(app, plan.query, ctx)
    routing = resolve_routes(app, plan.query, lambda dialect, route: _check_route(app, request, dialect, route))
    report_routes(console, routing, "")
    if needs_prices(app, options.money):
        await fetch_missing_prices(routing.routes, ctx)
    prices = {route.ref: estimate(request, route, app.cache) for route in routing.routes}
    budget = resolve_budget(app, prices, options.money)
    if options.money.dry_run:
        _print_plan(console, plan, request, routing.routes, prices)
        hint_missing_prices(app, console, routing.routes[0], prices[routing.routes[0].ref])
        return None
    outputs: tuple[AudioOutput, ...] = ()
    if plan.destination is not None:
        outputs = await open_audio_outputs(app, plan.destination, compute_hash=options.general.as_json)
    file: FileOutput | StreamOutput | None = None
    if plan.text_path is not None:
        file = await open_text_file(app, plan.text_path)
    task = ChatTask(
        request=request,
        audio_outputs=outputs,
        output=MultiOutput([output.writer for output in outputs]),
        text_stream=plan.streaming_output.text_stream,
        directory=app.scratch_directory("uploads"),
    )
    ctx = ctx._replace(budget=budget, retry_policy=plan.retry_policy, tag=plan.tag)
    try:
        uploads = UploadProgress()
        async with console.activity(lambda: describe_request(f"waiting for {routing.routes[0].ref}", uploads)):
            result = await send_chat(task, routing.routes, routing.skipped, ctx._replace(uploads=uploads))
    except BaseException:
        if file is not None:
            await file.abandon()
        if app.stdout.isatty():
            await plan.streaming_output.complete_line()
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
        system=plan.options.system or None,
        format=None if plan.destination is None else plan.destination.format,
        stream=plan.options.stream,
        max_tokens=plan.options.max_tokens,
        options=plan.provider_options,
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
    from .inputs import format_length

    warnings = (*routes[0].notes, *gateways.load_dialect(routes[0].dialect).get_chat_warnings(request, routes[0]))
    for warning in warnings:
        console.warning(warning)
    is_exact = all(recording.is_duration_exact for recording in request.recordings)
    units: dict[str, Json] = {
        "characters": len(request.text) + len(request.system or ""),
        "recordings": len(request.recordings),
        "duration_s": round(sum_input_audio_s(request), 3),
        "duration_is_exact": is_exact,
        "format": request.format,
        "output": _describe_output(plan),
    }
    if plan.options.general.as_json:
        console.write_json(build_plan_document("chat", routes, prices, units, warnings))
        return
    length = format_length(sum_input_audio_s(request), is_exact=is_exact)
    lines = [
        "requests    1",
        f"characters  {units['characters']}",
        *([f"audio       {length}"] if request.recordings else []),
        f"reply       {request.format or 'text'}",
        f"price       {format_price(prices[routes[0].ref])}",
        *(f"route       {route.ref}" + (f", voice {route.voice}" if route.voice else "") for route in routes),
    ]
    console.write_text("\n".join(lines) + "\n")


def _describe_output(plan: ChatPlan) -> str | None:
    if plan.destination is not None:
        return plan.destination.name
    return None if plan.text_path is None else str(plan.text_path)


def _report(console: Console, result: ChatResult, plan: ChatPlan) -> None:
    """Write the result, and the text of the reply unless it was streamed or written to a file."""
    if plan.options.general.as_json:
        is_stdout = plan.destination is not None and plan.destination.is_stdout
        (console.result_json if is_stdout else console.write_json)(_build_document(result, plan))
        return
    if plan.destination is not None:
        console.info_text(result.text)
    elif plan.text_path is None and not plan.streaming_output.text_stream.has_emitted:
        console.write_text(result.text.rstrip("\n") + "\n")
    console.result(*_list_result_parts(result, plan))


def _build_document(result: ChatResult, plan: ChatPlan) -> dict[str, Json]:
    from ..core.result_documents import build_run_document
    from ..costs import to_usd

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


def _list_result_parts(result: ChatResult, plan: ChatPlan) -> list[str]:
    from ..console import format_route, format_size
    from ..costs import format_run_cost

    run = result.run
    output = "played" if plan.destination is not None and plan.destination.name is None else _describe_output(plan)
    parts = ["stdout" if output == "-" else output or ""]
    if result.format is not None:
        parts.append("" if result.duration_s is None else f"{result.duration_s:.2f} s")
        parts += [result.format, format_size(result.size_bytes or 0)]
    parts.append(format_route(run.route.ref, run.route.voice))
    parts.append(format_run_cost(run.cost_nanousd, run.cost_source))
    return parts
