"""`audiocli speak`: text in, audio out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ..env import Env
from ..errors import UsageError
from . import inputs, options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..player import Player
    from ..routing import Routing, Wish
    from ..screen import Screen
    from ..vocabulary import Json, Route, SpeechReceipt, SpeechRequest
    from ..work.attempts import Policy
    from ..work.delivery import Outlet
    from ..work.tools import Tools


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
    play: Annotated[bool | None, typer.Option("--play/--no-play", help="Play it, or never do.")] = None,
    player: Annotated[str | None, typer.Option("--player", metavar="CMD", help="The player to use.")] = None,
    gateway: options.Gateway = None,
    base_url: options.BaseUrl = None,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT_S,
    retry_unknown: options.RetryUnknown = False,
    dry_run: options.DryRun = False,
    max_cost: options.MaxCost = None,
    tag: options.Tag = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Turn text into audio: to a file, a pipe or the loudspeaker."""
    from ..routing import Wish, speech_refusal
    from ..work.attempts import Policy
    from ..work.speech import estimate_nanousd

    env = options.env_of(context)
    screen = options.screen_of(env, is_quiet=quiet or as_json, is_debugging=debug)
    settings = env.settings
    models = options.models_of(model, settings.speech_models, gateway)
    for value, flag in ((voice, "--voice"), (instructions, "--instructions"), *((one, "--model") for one in models)):
        options.checked_text(value, flag)
    wish = Wish(
        job="speech",
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
    target = _target(env, output, format or None, settings.speech_format, play=play, player=player)
    for warning in target.warnings:
        screen.warn(warning)
    if input_file not in (None, "-"):
        inputs.refuse_same(Path(str(input_file)), target.path)
    request = _request(
        env, screen, text or [], input_file, format=target.format, speed=speed, instructions=instructions, option=option
    )
    policy = Policy(retry_unknown=retry_unknown, several_models=len(models) > 1)
    routing = options.routes_of(env, wish, lambda dialect, route: speech_refusal(dialect, request, route))
    options.announce(screen, routing, "speaking with the local engine, espeak")
    cap = options.checked_cap(max_cost)
    prices = {route.ref: estimate_nanousd(request.text, route, env.cache) for route in routing.routes}
    options.refuse_too_dear(prices, cap)
    if dry_run:
        _print_plan(screen, routing.routes, prices, request, target, as_json=as_json)
        return
    receipt = env.run(
        lambda tools: _speak(env, screen, tools, request, target, routing, policy, options.tag_of(tag, env)),
        silence_s=timeout_s,
        tell=screen.tell,
        log=screen.log,
    )
    if as_json:
        document = _document(receipt, target, [*target.warnings, *receipt.warnings])
        (screen.receipt_in_json if target.is_stdout else screen.emit_json)(document)
    else:
        screen.tell(_line(receipt, target))


class Target(NamedTuple):
    """Where the audio goes and in which format it is wanted; `path` None and not stdout: only to the player."""

    path: Path | None
    is_stdout: bool
    players: tuple[Player, ...]
    format: str
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str | None:
        return "-" if self.is_stdout else None if self.path is None else str(self.path)


def _target(
    env: Env, output: str | None, asked: str | None, configured: str | None, *, play: bool | None, player: str | None
) -> Target:
    """Decide where audio goes. Raises: UsageError: nowhere, or an unknown format."""
    from .. import player as players

    if play is False and player is not None:
        raise UsageError("--player contradicts --no-play")
    plays = bool(play) or (player is not None)
    is_stdout = output == "-"
    if output is not None and (not output or output.endswith("/")):
        raise UsageError("-o names no file")
    found: tuple[Player, ...] = ()
    if output is None and not plays:
        if env.stdout_takes_audio:
            is_stdout = True
        else:
            found = () if play is False else players.find(env.variables)
            if not found:
                raise UsageError("nowhere to put the audio", hint="-o FILE writes it, a pipe takes it, --play plays it")
    if is_stdout and env.stdout_is_terminal:
        raise UsageError("audio is not written to a terminal", hint="use -o FILE, a pipe, or --play")
    if plays:
        found = players.find(env.variables, player)
        if not found:
            names = ", ".join(one.program for one in players.PLAYERS)
            raise UsageError("no player found", hint=f"install one of {names}")
    path = Path(output) if output not in (None, "-") else None
    only_playing = path is None and not is_stdout
    usual = (players.wants(found) if only_playing else None) or configured or "mp3"
    format, warnings = _format(path, asked, usual)
    return Target(path, is_stdout, found, format, warnings)


def _format(path: Path | None, asked: str | None, usual: str) -> tuple[str, tuple[str, ...]]:
    """Choose the format: what was asked for, else the ending of the file, else the usual one."""
    from ..audio import formats

    known = ", ".join(formats.OUTPUT_FORMATS)
    ending = formats.of_path(path) if path is not None else None
    wanted = formats.named(asked) if asked is not None else None
    if asked is not None and (wanted is None or not wanted.writable):
        hint = f"formats: {known}"
        if Path(asked).is_file():
            hint = f"-f is the format; to read the text from that file: -F {asked}"
        raise UsageError(f"unknown format {asked!r}", hint=hint)
    if wanted is not None:
        if ending is not None and ending.name != wanted.name and not formats.fits(ending.name, wanted.name):
            return wanted.name, (f"{path} will hold {wanted.name}, whatever its ending says",)
        return wanted.name, ()
    if ending is not None:
        if not ending.writable:
            raise UsageError(f"audiocli does not make {ending.name} files", hint=f"formats: {known}")
        return ending.name, ()
    fallback = formats.named(usual)
    if fallback is None or not fallback.writable:
        raise UsageError(f"unknown format {usual!r} in the configuration", hint=f"formats: {known}")
    odd = path is not None and path.suffix and not path.exists()
    return fallback.name, (f"{path} will hold {fallback.name}: its ending is no format",) if odd else ()


def _request(
    env: Env,
    screen: Screen,
    words: list[str],
    input_file: str | None,
    *,
    format: str,
    speed: float | None,
    instructions: str | None,
    option: list[str] | None,
) -> SpeechRequest:
    from ..vocabulary import SpeechRequest

    if speed is not None and not 0.25 <= speed <= 4:
        raise UsageError(f"--speed {speed:g}: from 0.25 to 4")
    extra = options.provider_options(option)
    text = inputs.text(env, words, input_file)
    if not text.strip():
        raise UsageError("no text to speak", hint="give it as an argument, with -F FILE, or through a pipe")
    if words and words != ["-"] and len(words) == 1 and len(words[0]) < 200 and _is_file(words[0]):
        screen.warn(f"speaking the words {words[0]!r}; to read the text from that file: -F {words[0]}")
    return SpeechRequest(text, format, speed, instructions, extra)


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False


async def _speak(
    env: Env,
    screen: Screen,
    tools: Tools,
    request: SpeechRequest,
    target: Target,
    routing: Routing,
    policy: Policy,
    tag: str | None,
) -> SpeechReceipt:
    from ..sinks import Tee
    from ..work.speech import Speech
    from ..work.speech import speak as work

    outlets = await _outlets(env, target)
    speech = Speech(request, outlets, Tee([outlet.sink for outlet in outlets]), policy, tag)
    async with screen.activity(lambda: f"{routing.routes[0].ref}: speaking"):
        return await work(speech, routing.routes, routing.skipped, tools)


async def _outlets(env: Env, target: Target) -> tuple[Outlet, ...]:
    """Open the sinks, before anything is sent. Raises: OutputError."""
    from .. import player as players
    from ..sinks import StreamSink, open_target
    from ..work.delivery import Outlet

    rescue_folder = env.scratch_folder("kept")
    outlets: list[Outlet] = []
    if target.is_stdout:
        outlets.append(Outlet(StreamSink(env.stdout, "stdout", rescue_folder=rescue_folder), target.format))
    elif target.path is not None:
        outlets.append(Outlet(await open_target(target.path, rescue_folder=rescue_folder), target.format))
    if target.players:
        sink = players.PlayerSink(
            target.players, variables=env.variables, rescue_folder=rescue_folder, is_only=not outlets
        )
        outlets.append(Outlet(sink, players.wants(target.players)))
    return tuple(outlets)


def _list_voices(env: Env, screen: Screen, wish: Wish, timeout_s: float, *, as_json: bool) -> None:
    from ..routing import first_route

    route = first_route(wish, env.settings.gateways, env.shelf)
    names = options.voices_of(env, screen, route, timeout_s)
    if as_json:
        document: dict[str, Json] = {"gateway": route.gateway, "model": route.model, "voices": list(names)}
        screen.emit_json({"ok": True, "command": "speak", **document})
    else:
        screen.emit("".join(f"{name}\n" for name in names))


def _print_plan(
    screen: Screen,
    routes: tuple[Route, ...],
    prices: Mapping[str, int | None],
    request: SpeechRequest,
    target: Target,
    *,
    as_json: bool,
) -> None:
    from .. import gateways

    warnings = (*routes[0].notes, *gateways.dialect(routes[0].dialect).speech_warnings(request, routes[0]))
    for warning in warnings:
        screen.warn(warning)
    units: dict[str, Json] = {
        "characters": len(request.text),
        "utf8_bytes": len(request.text.encode("utf-8", "replace")),
        "format": target.format,
        "output": target.name,
    }
    document = options.plan_document("speak", routes, prices, units, [*target.warnings, *warnings])
    if as_json:
        screen.emit_json(document)
        return
    lines = [
        "requests    1",
        f"characters  {units['characters']}",
        f"bytes       {units['utf8_bytes']}",
        f"price       {options.price_text(prices[routes[0].ref])}",
        *(f"route       {route.ref}" + (f", voice {route.voice}" if route.voice else "") for route in routes),
    ]
    screen.emit("\n".join(lines) + "\n")


def _document(receipt: SpeechReceipt, target: Target, warnings: list[str]) -> dict[str, Json]:
    return {
        "ok": True,
        "command": "speak",
        "output": target.name,
        "bytes": receipt.size_bytes,
        "sha256": receipt.sha256,
        "format": receipt.format,
        "duration_s": None if receipt.duration_s is None else round(receipt.duration_s, 3),
        **options.served_document(receipt.served),
        "warnings": list(warnings),
    }


def _line(receipt: SpeechReceipt, target: Target) -> str:
    from ..screen import size, usd

    served = receipt.served
    where = target.name or "played"
    parts = [receipt.format]
    if receipt.duration_s is not None:
        parts.append(f"{receipt.duration_s:.2f} s")
    parts += [size(receipt.size_bytes), served.route.ref + (f" {served.route.voice}" if served.route.voice else "")]
    parts.append("free" if served.cost_nanousd == 0 else f"cost {usd(served.cost_nanousd)}")
    return f"{'stdout' if where == '-' else where}: " + ", ".join(parts)
