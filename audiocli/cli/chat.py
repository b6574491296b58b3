"""`audiocli chat`: options, validation and output of the command."""

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
    ctx: typer.Context,
    text: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="Message; - reads from stdin.")] = None,
    audio: Annotated[
        list[str] | None,
        typer.Option("--audio", "-a", metavar="PATH", help="Recording to send; - is stdin; repeatable."),
    ] = None,
    system: Annotated[str | None, typer.Option("--system", metavar="TEXT", help="System prompt.")] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="PATH", help="Output file of the reply; - is stdout.")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option("--format", "-f", metavar="NAME", help="Format: mp3 wav flac opus ogg aac m4a pcm txt."),
    ] = None,
    model: options.Models = None,
    voice: Annotated[str | None, typer.Option("--voice", "-v", metavar="NAME", help="Voice of the reply.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="Extra request field; A.B=VALUE sets field B of A."),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", metavar="N", help="Maximum length of the reply; spending limits need it."),
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream/--no-stream", help="Print the reply while it arrives, or when it is complete.")
    ] = True,
    stdin_format: Annotated[
        str | None, typer.Option("--stdin-format", metavar="EXT", help="Format of -a -, if it cannot be detected.")
    ] = None,
    play: Annotated[bool | None, typer.Option("--play/--no-play", help="Play the reply, or never play it.")] = None,
    player: Annotated[str | None, typer.Option("--player", metavar="CMD", help="Player program to use.")] = None,
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
    """Send text or recordings to a model and get its reply."""
    from ..core.retry_policy import RetryPolicy
    from ..gateways.chat_completions import RESERVED_FIELDS
    from ..routing import RouteQuery
    from .transcript_outputs import StreamingOutput

    app = options.get_app(ctx)
    console = options.build_console(app, is_quiet=quiet or as_json, is_debugging=debug)
    settings = app.settings
    models = options.resolve_models(model, settings.chat_models, gateway)
    for value, flag in ((voice, "--voice"), (system, "--system"), *((reference, "--model") for reference in models)):
        options.validate_utf8(value, flag)
    if max_tokens is not None and not 1 <= max_tokens <= 1_000_000:
        raise UsageError(f"--max-tokens {max_tokens}: must be between 1 and 1000000")
    is_spoken = _has_spoken_reply(output, format, play=play, player=player)
    destination = None
    if is_spoken:
        destination = audio_outputs.choose_destination(app, output, format, None, play=play, player=player)
        for warning in destination.warnings:
            console.warning(warning)
    elif voice is not None:
        console.warning("--voice has no effect on a text reply; use -o FILE or --play for a spoken reply")
    provider_options = options.parse_provider_options(option, RESERVED_FIELDS, nested=True)
    message = _read_text(app, text or [], audio or [])
    timeout_s = options.validate_timeout(timeout)
    query = RouteQuery(
        task="chat",
        models=models,
        gateway=gateway,
        base_url=base_url,
        voice=voice if is_spoken else None,
        default_voice=(settings.chat_voice or "alloy") if is_spoken else None,
        model_voices=settings.voices if is_spoken else None,
        model_prices=settings.prices,
    )
    with ExitStack() as stack:
        paths = [_open_recording(stack, app, source, stdin_format) for source in audio or []]
        text_path = None if is_spoken or output in (None, "-") else Path(str(output))
        prints_text = destination is None and text_path is None
        for path in paths:
            inputs.reject_overwriting_input(path, text_path if destination is None else destination.path)
        plan = chat_run.ChatPlan(
            text=message,
            recordings=tuple(zip(paths, audio or [], strict=True)),
            system=system or None,
            destination=destination,
            text_path=text_path,
            query=query,
            streaming_output=StreamingOutput(app, is_enabled=stream and prints_text and not as_json),
            retry_policy=RetryPolicy(retry_unknown=retry_unknown, has_multiple_models=len(models) > 1),
            tag=options.resolve_tag(tag, app),
            budget=chat_run.BudgetOptions(max_cost, allow_unpriced, yes),
            options=provider_options,
            max_tokens=max_tokens,
            stream=stream,
            dry_run=dry_run,
            as_json=as_json,
        )
        result = app.run(
            lambda run_context: chat_run.run(app, console, run_context, plan),
            read_timeout_s=timeout_s,
            info=console.info,
            debug=console.debug,
        )
    if result is not None:
        chat_run.report(console, result, plan)


def _has_spoken_reply(output: str | None, format: str | None, *, play: bool | None, player: str | None) -> bool:
    """Return whether the options ask for a spoken reply.

    Raises:
        UsageError: A text reply is to be played.
    """
    is_played = bool(play) or player is not None
    extension = Path(output).suffix.lower().removeprefix(".") if output is not None else ""
    is_text = format.lower() in TEXT_FORMATS if format is not None else extension in TEXT_FORMATS
    if is_text and is_played:
        raise UsageError("cannot play a text reply", hint="remove --play or the text format")
    return not is_text and (is_played or output is not None or format is not None)


def _read_text(app: AppContext, words: list[str], audio: list[str]) -> str:
    """Return the text of the message: the arguments, or stdin. It may be empty if there are recordings.

    Raises:
        UsageError: There is neither text nor a recording, or stdin is used twice.
    """
    from ..text.line_breaking import has_visible_text

    if audio.count("-") + (words == ["-"]) > 1:
        raise UsageError("stdin can be used only once")
    if not words and not audio and app.stdin_is_terminal:
        raise UsageError("no message", hint="pass a text, pipe it to stdin, or add a recording with -a FILE")
    text = "" if audio and not words else inputs.read_text(app, words, None, wait_for_end=True)[0]
    if not audio and not has_visible_text(text):
        raise UsageError("no message", hint="pass a text, pipe it to stdin, or add a recording with -a FILE")
    return text if has_visible_text(text) else ""


def _open_recording(stack: ExitStack, app: AppContext, source: str, stdin_format: str | None) -> Path:
    return stack.enter_context(inputs.open_recording(app, source, stdin_format if source == "-" else None))
