"""`audiocli chat`: text and recordings in, an answer out, as text or as sound."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError
from . import audio_outputs, chat_run, inputs, options

if TYPE_CHECKING:
    from ..context import AppContext

TEXT_FORMATS = ("txt", "text", "md")


def chat(
    context: typer.Context,
    text: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="What to say; - is stdin.")] = None,
    audio: Annotated[
        list[str] | None,
        typer.Option("--audio", "-a", metavar="PATH", help="A recording to be heard; - is stdin; repeatable."),
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system", metavar="TEXT", help="What the model should know or be.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="PATH", help="Write the spoken answer here; - is stdout.")
    ] = None,
    format: Annotated[
        str | None, typer.Option("--format", "-f", metavar="NAME", help="mp3 wav flac opus ogg aac m4a pcm; or txt.")
    ] = None,
    model: options.Models = None,
    voice: Annotated[str | None, typer.Option("--voice", "-v", metavar="NAME", help="The voice of the answer.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="A field of the request; A.B=VALUE is inside of A."),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", metavar="N", help="The longest answer; caps need to know it.")
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream/--no-stream", help="The answer as it comes, or all at once.")
    ] = True,
    stdin_format: Annotated[
        str | None, typer.Option("--stdin-format", metavar="EXT", help="What -a - is, if its bytes do not tell.")
    ] = None,
    play: Annotated[bool | None, typer.Option("--play/--no-play", help="Play the answer, or never do.")] = None,
    player: Annotated[str | None, typer.Option("--player", metavar="CMD", help="The player to use.")] = None,
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
    """Talk with a model: text, recordings or both, answered as text or as sound."""
    from ..core.retry_policy import RetryPolicy
    from ..gateways.chat_completions import OWNED_FIELDS
    from ..routing import RouteQuery
    from .transcript_outputs import StreamingOutput

    env = options.get_app(context)
    screen = options.build_console(env, is_quiet=quiet or as_json, is_debugging=debug)
    settings = env.settings
    models = options.resolve_models(model, settings.chat_models, gateway)
    for value, flag in ((voice, "--voice"), (system, "--system"), *((one, "--model") for one in models)):
        options.checked_text(value, flag)
    if max_tokens is not None and not 1 <= max_tokens <= 1_000_000:
        raise UsageError(f"--max-tokens {max_tokens}: from 1 to 1000000")
    is_spoken = _is_spoken(output, format, play=play, player=player)
    target = None
    if is_spoken:
        target = audio_outputs.choose(env, output, format, None, play=play, player=player)
        for warning in target.warnings:
            screen.warning(warning)
    elif voice is not None:
        screen.warning("--voice has no effect on an answer in text; -o FILE or --play has it spoken")
    extra = options.provider_options(option, OWNED_FIELDS, has_members=True)
    spoken_text = _text(env, text or [], audio or [])
    timeout_s = options.checked_timeout(timeout)
    wish = RouteQuery(
        task="chat",
        models=models,
        gateway=gateway,
        base_url=base_url,
        voice=voice if is_spoken else None,
        usual_voice=(settings.chat_voice or "alloy") if is_spoken else None,
        voices=settings.voices if is_spoken else None,
        prices=settings.prices,
    )
    with ExitStack() as stack:
        paths = [_recording(stack, env, one, stdin_format) for one in audio or []]
        file = None if is_spoken or output in (None, "-") else Path(str(output))
        for path in paths:
            inputs.refuse_same(path, file if target is None else target.path)
        job = chat_run.ChatPlan(
            text=spoken_text,
            recordings=tuple(zip(paths, audio or [], strict=True)),
            system=system or None,
            target=target,
            file=file,
            wish=wish,
            live=StreamingOutput(env, is_wanted=stream and target is None and file is None and not as_json),
            policy=RetryPolicy(retry_unknown=retry_unknown, several_models=len(models) > 1),
            tag=options.resolve_tag(tag, env),
            spending=chat_run.Spending(max_cost, allow_unpriced, yes),
            options=extra,
            longest_tokens=max_tokens,
            streams=stream,
            is_dry=dry_run,
            as_json=as_json,
        )
        receipt = env.run(
            lambda tools: chat_run.run(env, screen, tools, job),
            silence_s=timeout_s,
            tell=screen.info,
            log=screen.debug,
        )
    if receipt is not None:
        chat_run.report(screen, receipt, job)


def _is_spoken(output: str | None, format: str | None, *, play: bool | None, player: str | None) -> bool:
    """Tell whether the answer is to be spoken: where it goes and its format say so. Raises: UsageError."""
    plays = bool(play) or player is not None
    ending = Path(output).suffix.lower().removeprefix(".") if output is not None else ""
    names_text = format.lower() in TEXT_FORMATS if format is not None else ending in TEXT_FORMATS
    if names_text and plays:
        raise UsageError("an answer in text cannot be played", hint="leave --play or the format out")
    return not names_text and (plays or output is not None or format is not None)


def _text(env: AppContext, words: list[str], audio: list[str]) -> str:
    """Find what is to be said: the arguments, or stdin. Raises: UsageError: nothing is."""
    from ..text.line_breaking import has_ink

    if audio.count("-") + (words == ["-"]) > 1:
        raise UsageError("stdin is named twice")
    if not words and not audio and env.stdin_is_terminal:
        raise UsageError("nothing to say", hint="give a text, a recording with -a FILE, or pipe a text in")
    text = "" if audio and not words else inputs.text(env, words, None, is_whole=True)[0]
    if not audio and not has_ink(text):
        raise UsageError("nothing to say", hint="give a text, a recording with -a FILE, or pipe a text in")
    return text if has_ink(text) else ""


def _recording(stack: ExitStack, env: AppContext, source: str, stdin_format: str | None) -> Path:
    return stack.enter_context(inputs.recording(env, source, stdin_format if source == "-" else None))
