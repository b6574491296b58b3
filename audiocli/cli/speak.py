"""`audiocli speak`: text in, audio out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ..context import AppContext
from ..errors import UsageError
from . import audio_outputs, inputs, options, speech_input

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..console import Console
    from ..core.audio_pipeline import Outlet
    from ..core.long_speech import LongSpeechResult
    from ..core.progress import SpeakingProgress
    from ..core.retry_policy import RetryPolicy
    from ..core.run_context import RunContext
    from ..outputs import MultiOutput
    from ..routing import Routing, RouteQuery
    from ..types.values import Estimate, Json, SpeechResult, SpeechRequest
    from .background import BackgroundOptions


def speak(
    context: typer.Context,
    text: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="The text; - is stdin.")] = None,
    input_file: Annotated[
        str | None, typer.Option("--input-file", "-F", metavar="PATH", help="Read the text from a file; - is stdin.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="PATH", help="Write the audio here; - is stdout.")
    ] = None,
    format: Annotated[
        str | None, typer.Option("--format", "-f", metavar="NAME", help="mp3 wav flac opus ogg aac m4a pcm.")
    ] = None,
    model: options.Models = None,
    voice: Annotated[
        str | None, typer.Option("--voice", "-v", metavar="NAME", help="The voice; '?' lists those of the model.")
    ] = None,
    speed: Annotated[float | None, typer.Option("--speed", "-x", metavar="N", help="0.25 to 4.")] = None,
    instructions: Annotated[
        str | None, typer.Option("--instructions", "-i", metavar="TEXT", help="How to speak it.")
    ] = None,
    option: options.Options = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="The text is Markdown.")] = False,
    captions: Annotated[
        str | None, typer.Option("--captions", metavar="PATH", help="Captions of what is said: .srt or .vtt.")
    ] = None,
    max_chars: Annotated[
        int | None, typer.Option("--max-chars", metavar="N", help="Longest piece of a long text.")
    ] = None,
    pause: Annotated[float | None, typer.Option("--pause", metavar="MS", help="Silence between paragraphs.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", metavar="N", help="Pieces in flight.")] = 4,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on where an earlier run stopped, or start over.")
    ] = True,
    play: Annotated[bool | None, typer.Option("--play/--no-play", help="Play it, or never do.")] = None,
    player: Annotated[str | None, typer.Option("--player", metavar="CMD", help="The player to use.")] = None,
    background: options.Background = False,
    wait: options.Wait = False,
    gateway: options.Gateway = None,
    base_url: options.BaseUrl = None,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
    retry_unknown: options.RetryUnknown = False,
    dry_run: options.DryRun = False,
    max_cost: options.MaxCost = None,
    allow_unpriced: options.AllowUnpriced = False,
    yes: options.Yes = False,
    tag: options.Tag = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Turn text into audio: to a file, a pipe or the loudspeaker."""
    from ..core.retry_policy import RetryPolicy
    from ..core.speech import estimate
    from ..routing import RouteQuery
    from ..types.values import Estimate

    env = options.get_app(context)
    screen = options.build_console(env, is_quiet=quiet or as_json, is_debugging=debug)
    settings = env.settings
    models = options.resolve_models(model, settings.speech_models, gateway)
    for value, flag in ((voice, "--voice"), (instructions, "--instructions"), *((one, "--model") for one in models)):
        options.checked_text(value, flag)
    wish = RouteQuery(
        task="speech",
        models=models,
        gateway=gateway,
        base_url=base_url,
        voice=None if voice == "?" else voice,
        usual_voice=settings.speech_voice,
        voices=settings.voices,
        prices=settings.prices,
    )
    timeout_s = options.checked_timeout(timeout)
    if voice == "?":
        _list_voices(env, screen, wish, timeout_s, as_json=as_json)
        return
    postponed: BackgroundOptions | None = None
    if background or wait:
        from . import background as background_jobs

        postponed = background_jobs.later_of(background, wait, output, plays=bool(play) or player is not None)
    if postponed is not None and not postponed.waits:
        target = background_jobs.target_of(env, postponed, format or None, settings.speech_format)
    else:
        target = audio_outputs.choose(env, output, format or None, settings.speech_format, play=play, player=player)
    for warning in target.warnings:
        screen.warning(warning)
    if input_file not in (None, "-"):
        inputs.refuse_same(Path(str(input_file)), target.path)
    shape = speech_input.shape_of(max_chars, pause, jobs, captions)
    for other in (target.path, None if input_file in (None, "-") else Path(str(input_file))):
        if other is not None and shape.captions is not None:
            inputs.refuse_same(other, shape.captions)
    request, rest = _request(
        env,
        screen,
        text or [],
        input_file,
        format=target.format,
        speed=speed,
        instructions=instructions,
        option=option,
        is_markdown=markdown,
    )
    policy = RetryPolicy(retry_unknown=retry_unknown, several_models=len(models) > 1)
    if postponed is not None:
        wish = background_jobs.with_jobs(env, wish)
    routing = options.resolve_routes(
        env,
        wish,
        lambda dialect, route: (
            (postponed and background_jobs.refusal(dialect, route)) or dialect.speech_refusal(request, route)
        ),
    )
    options.announce(screen, routing, "speaking with the local engine, espeak")
    told = speech_input.script_of(request, rest, routing.routes, shape, screen)
    left = speech_input.text_left(env, told, request, routing.routes, resumes=resume)
    prices = {route.ref: Estimate() if told.rest else estimate(left, route, env.cache) for route in routing.routes}
    allowance = options.resolve_budget(
        env, prices, max_cost=max_cost, allows_unpriced=allow_unpriced, says_yes=yes, is_dry=dry_run
    )
    job = SpeakPlan(request, told, shape, target, routing, policy, options.resolve_tag(tag, env), resume, as_json)
    if dry_run:
        _print_plan(env, screen, job, prices, as_json=as_json)
        return
    if postponed is not None and told.is_long:
        if target.name is None and not target.players:
            raise UsageError("this text is more than one job", hint="without --background it is spoken in pieces")
        screen.info(f"this text is more than one job: it is spoken now, in {len(told.pieces) or 'several'} requests")
    elif postponed is not None:
        env.run(
            lambda tools: background_jobs.speak(
                env, screen, allowance.apply_to(tools), job, postponed, as_json=as_json
            ),
            silence_s=timeout_s,
            tell=screen.info,
            log=screen.debug,
        )
        return
    receipt, kept = env.run(
        lambda tools: _speak(env, screen, allowance.apply_to(tools), job),
        silence_s=timeout_s,
        tell=screen.info,
        log=screen.debug,
    )
    if as_json:
        document = _document(receipt, job, kept, [*target.warnings, *receipt.warnings])
        (screen.result_json if target.is_stdout else screen.write_json)(document)
    else:
        screen.info(_line(receipt, target))


class SpeakPlan(NamedTuple):
    """One `speak`, with all that was decided about it before anything is sent."""

    request: SpeechRequest
    script: speech_input.Script
    shape: speech_input.SplitOptions
    target: audio_outputs.Target
    routing: Routing
    policy: RetryPolicy
    tag: str | None
    resumes: bool
    as_json: bool


def _request(
    env: AppContext,
    screen: Console,
    words: list[str],
    input_file: str | None,
    *,
    format: str,
    speed: float | None,
    instructions: str | None,
    option: list[str] | None,
    is_markdown: bool,
) -> tuple[SpeechRequest, inputs.OpenText | None]:
    from ..text.speech_rate import has_words
    from ..types.values import SpeechRequest

    if speed is not None and not 0.25 <= speed <= 4:
        raise UsageError(f"--speed {speed:g}: from 0.25 to 4")
    extra = options.provider_options(option)
    text, rest = inputs.text(env, words, input_file, is_whole=is_markdown)
    if is_markdown:
        from ..text.markdown import speakable

        text = speakable(text)
    if rest is None and not has_words(text):
        raise UsageError("no text to speak", hint="give it as an argument, with -F FILE, or through a pipe")
    if words and words != ["-"] and len(words) == 1 and len(words[0]) < 200 and _is_file(words[0]):
        screen.warning(f"speaking the words {words[0]!r}; to read the text from that file: -F {words[0]}")
    return SpeechRequest(text, format, speed, instructions, extra), rest


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False


async def _speak(env: AppContext, screen: Console, tools: RunContext, job: SpeakPlan) -> tuple[SpeechResult, int]:
    """Speak, and write the captions; the second value is how many pieces were kept from an earlier run."""
    from ..core.speech import SpeechTask
    from ..core.speech import speak as work
    from ..outputs import MultiOutput

    captions = await speech_input.open_captions(env, job.shape)
    try:
        outlets = await audio_outputs.open_outlets(env, job.target, is_hashed=job.as_json)
        output = MultiOutput([outlet.sink for outlet in outlets])
        if job.script.is_long:
            receipt, spoken, kept = await _read_aloud(env, screen, tools, job, outlets, output)
        else:
            speech = SpeechTask(job.request, outlets, output, job.policy, job.tag)
            async with screen.activity(lambda: f"{job.routing.routes[0].ref}: speaking"):
                receipt = await work(speech, job.routing.routes, job.routing.skipped, tools)
            spoken, kept = tuple((piece, receipt.duration_s or 0.0) for piece in job.script.pieces), 0
    except BaseException:
        if captions is not None:
            await captions.abandon()
        raise
    if captions is not None and job.shape.captions is not None:
        await speech_input.write_captions(captions, job.shape.captions, spoken, job.shape.pause_ms or 0.0)
    if job.script.is_long:
        from ..core.reconcile import settled

        served = await settled(receipt.run, job.routing.routes, tools)
        receipt = receipt._replace(run=served)
    return receipt, kept


async def _read_aloud(
    env: AppContext, screen: Console, tools: RunContext, job: SpeakPlan, outlets: tuple[Outlet, ...], output: MultiOutput
) -> LongSpeechResult:
    from ..core.long_speech import LongSpeechTask, read_aloud
    from ..core.progress import SpeakingProgress
    from ..storage.paid_results import PaidResultStore

    stash = PaidResultStore(env.scratch_folder("speech"), ".wav")
    stash.sweep()
    progress = SpeakingProgress(len(job.script.pieces) or None)
    reading = LongSpeechTask(
        request=job.request,
        pieces=speech_input.pieces_of(job.script),
        outlets=outlets,
        output=output,
        policy=job.policy,
        stash=stash,
        progress=progress,
        jobs=job.shape.jobs,
        pause_ms=job.shape.pause_ms or 0.0,
        is_live=job.target.is_heard,
        resumes=job.resumes,
        tag=job.tag,
    )
    async with screen.activity(lambda: _progress_text(progress, job.routing.routes[0].ref)):
        done = await read_aloud(reading, job.routing.routes, job.routing.skipped, tools)
    if done.kept:
        screen.info(f"{done.kept} of {len(done.spoken)} pieces were kept from an earlier run")
    return done


def _progress_text(progress: SpeakingProgress, ref: str) -> str:
    of = f" of {progress.pieces}" if progress.pieces else ""
    rest = options.spent_and_left(progress)
    return f"{ref}: {progress.done}{of} pieces, {progress.audio_s:.0f} s of audio{rest}"


def _list_voices(env: AppContext, screen: Console, wish: RouteQuery, timeout_s: float, *, as_json: bool) -> None:
    from ..routing import first_route

    route = first_route(wish, env.settings.gateways, env.shelf)
    names = options.voices_of(env, screen, route, timeout_s)
    if as_json:
        document: dict[str, Json] = {"gateway": route.gateway, "model": route.model, "voices": list(names)}
        screen.write_json({"ok": True, "command": "speak", **document})
    else:
        screen.write_text("".join(f"{name}\n" for name in names))


def _print_plan(env: AppContext, screen: Console, job: SpeakPlan, prices: Mapping[str, Estimate], *, as_json: bool) -> None:
    from .. import gateways
    from ..text.speech_rate import expected_s

    request, routes = job.request, job.routing.routes
    warnings = (*routes[0].notes, *gateways.dialect(routes[0].dialect).speech_warnings(request, routes[0]))
    for warning in warnings:
        screen.warning(warning)
    kept = len(speech_input.kept_pieces(env, job.script, request, routes)) if job.resumes else 0
    pieces = max(1, len(job.script.pieces))
    units: dict[str, Json] = {
        "pieces": pieces,
        "kept": kept,
        "characters": len(request.text),
        "utf8_bytes": len(request.text.encode("utf-8", "replace")),
        "expected_s": round(expected_s(request.text, request.speed), 1),
        "format": job.target.format,
        "output": job.target.name,
    }
    document = options.plan_document(
        "speak", routes, prices, units, [*job.target.warnings, *warnings], requests=pieces - kept
    )
    if as_json:
        screen.write_json(document)
        return
    lines = [
        f"requests    {pieces - kept}" + (f" ({kept} of {pieces} pieces are kept from an earlier run)" if kept else ""),
        f"characters  {units['characters']}",
        f"bytes       {units['utf8_bytes']}",
        f"audio       about {units['expected_s']:.0f} s",
        f"price       {options.price_text(prices[routes[0].ref])}",
        *(f"route       {route.ref}" + (f", voice {route.voice}" if route.voice else "") for route in routes),
    ]
    screen.write_text("\n".join(lines) + "\n")


def _document(receipt: SpeechResult, job: SpeakPlan, kept: int, warnings: list[str]) -> dict[str, Json]:
    from ..core.result_documents import served_document

    target = job.target
    long: dict[str, Json] = {"kept": kept} if job.script.is_long else {}
    if job.shape.captions is not None:
        long["captions"] = str(job.shape.captions)
    return {
        "ok": True,
        "command": "speak",
        "output": target.name,
        "bytes": receipt.size_bytes,
        "sha256": receipt.sha256,
        "format": receipt.format,
        "duration_s": None if receipt.duration_s is None else round(receipt.duration_s, 3),
        **served_document(receipt.run),
        **long,
        "warnings": list(warnings),
    }


def _line(receipt: SpeechResult, target: audio_outputs.Target) -> str:
    from ..amounts import usd
    from ..console import size

    served = receipt.run
    where = target.name or "played"
    parts = [receipt.format]
    if receipt.duration_s is not None:
        parts.append(f"{receipt.duration_s:.2f} s")
    parts += [size(receipt.size_bytes), served.route.ref + (f" {served.route.voice}" if served.route.voice else "")]
    parts.append("free" if served.cost_nanousd == 0 else f"cost {usd(served.cost_nanousd)}")
    return f"{'stdout' if where == '-' else where}: " + ", ".join(parts)
