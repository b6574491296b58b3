"""Flags that several commands share, and what their values mean."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ..context import RunBudget, AppContext
from ..errors import MoneyError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from ..console import Console
    from ..core.progress import Progress
    from ..errors import AudiocliError
    from ..gateways.base import Gateway as Dialect
    from ..routing import Routing, RouteQuery
    from ..types.values import Estimate, Json, Route

Gateway = Annotated[str | None, typer.Option("--gateway", "-g", metavar="NAME", help="The gateway to call.")]
BaseUrl = Annotated[
    str | None, typer.Option("--base-url", metavar="URL", help="Call this URL instead of the gateway's.")
]
Timeout = Annotated[
    float, typer.Option("--timeout", metavar="S", help="Seconds of silence before giving up (connecting has 5).")
]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", "-m", metavar="REF", help="[GATEWAY:]MODEL; repeat for models in order of preference."),
]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="KEY=VALUE", help="Passed on as it is; PROVIDER.KEY=VALUE at OpenRouter."),
]
RetryUnknown = Annotated[
    bool, typer.Option("--retry-unknown", help="Send again after a cut or silence, though it may be billed twice.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Print the plan and spend nothing.")]
MaxCost = Annotated[float | None, typer.Option("--max-cost", metavar="USD", help="Refuse what may cost more.")]
AllowUnpriced = Annotated[
    bool, typer.Option("--allow-unpriced", help="Under a cap, send also what has no known price.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Yes to what [budget] confirm asks.")]
Tag = Annotated[
    str | None, typer.Option("--tag", metavar="NAME", help="Mark the entries in the ledger (AUDIOCLI_TAG).")
]
Background = Annotated[bool, typer.Option("--background", help="Hand it in as a job, where the gateway has them.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the job, and take what it made.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object in place of the text.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")]
Debug = Annotated[bool, typer.Option("--debug", help="Requests, waits, decisions and tracebacks.")]

DEFAULT_TIMEOUT_S = 120.0

# Fields that have a flag of their own, or that decide how the reply must be read.
OWNED_FIELDS = frozenset(
    {
        *("model", "input", "voice", "response_format", "speed", "instructions", "stream"),
        *("file", "input_audio", "language", "prompt", "temperature", "timestamp_granularities", "provider"),
    }
)


def get_app(context: typer.Context) -> AppContext:
    env = context.obj
    assert isinstance(env, AppContext)
    return env


def build_console(env: AppContext, *, is_quiet: bool, is_debugging: bool) -> Console:
    from ..console import Console

    return Console(
        stdout=env.stdout,
        stderr=env.stderr,
        is_quiet=is_quiet and not is_debugging,
        is_debugging=is_debugging,
        moves=env.stderr_moves,
        stdout_is_terminal=env.stdout_is_terminal,
    )


def provider_options(
    pairs: Sequence[str] | None, owned: frozenset[str] = OWNED_FIELDS, *, has_members: bool = False
) -> dict[str, Json]:
    """Read `KEY=VALUE`; VALUE is JSON if it parses, else text. Raises: UsageError.

    `has_members`: what stands before a dot is a field as well, and no provider.
    """
    options: dict[str, Json] = {}
    for pair in pairs or ():
        name, equals, text = pair.partition("=")
        if not equals or not name.strip("."):
            raise UsageError(f"--option {pair}: write KEY=VALUE")
        if name in owned or name.removesuffix("[]") in owned or (has_members and name.partition(".")[0] in owned):
            raise UsageError(f"--option {name}: this field is audiocli's own", hint="use the flag for it")
        try:
            options[name] = json.loads(text, parse_constant=_refuse_constant)
        except ValueError:
            options[name] = text
    return options


def _refuse_constant(name: str) -> Json:
    raise ValueError(name)


def checked_timeout(timeout_s: float) -> float:
    if not 0 < timeout_s <= 86_400:
        raise UsageError(f"--timeout {timeout_s:g}: seconds between 0 and 86400")
    return timeout_s


def resolve_budget(
    env: AppContext,
    prices: Mapping[str, Estimate],
    *,
    max_cost: float | None,
    allows_unpriced: bool,
    says_yes: bool,
    is_dry: bool = False,
) -> RunBudget:
    """Find out what a run may spend, and whether what it will cost is within that; ask where that is wanted.

    `--max-cost` is held against the whole before anything is sent; the other caps against each request, so that much
    of something long may be done before one is reached. Raises: CapReached; MoneyError: nobody said yes.
    """
    if max_cost is not None and not 0 <= max_cost < 1e6:
        raise UsageError(f"--max-cost {max_cost:g}: US dollars, 0 or more")
    from ..ledger.budget import check, nanousd

    allowance = env.allowance(max_cost_nanousd=nanousd(max_cost), allows_unpriced=allows_unpriced)
    for ref, price in prices.items():
        for cap in allowance.limits:
            if price.most_nanousd is None and allows_unpriced:
                continue
            if cap.name == "--max-cost" or price.most_nanousd is None:
                try:
                    check(cap, spent_nanousd=0, most_nanousd=price.most_nanousd)
                except MoneyError as error:
                    error.message = f"{ref}: {error.message}"
                    raise
    if not is_dry:
        confirm(env, next(iter(prices.values())), says_yes=says_yes)
    return allowance


def confirm(env: AppContext, price: Estimate, *, says_yes: bool) -> None:
    """Ask before something dear, or something whose price nobody knows. Raises: MoneyError."""
    from ..amounts import usd

    above = env.settings.budget.confirm
    if above is None or says_yes or (price.most_nanousd is not None and price.most_nanousd <= above):
        return
    told = f"this may cost {usd(price.most_nanousd)}" if price.most_nanousd is not None else "its price is not known"
    if not (env.stdin_is_terminal and env.stderr.isatty()):
        raise MoneyError(f"{told}, and [budget] confirm asks from {usd(above)} on", hint="-y says yes")
    env.stderr.write(f"audiocli: {told}. Go on? [y/N] ".encode())
    answer = env.stdin.readline().strip().lower()
    if answer not in (b"y", b"yes"):
        raise MoneyError("not sent")


def resolve_models(asked: Sequence[str] | None, configured: Sequence[str], gateway: str | None) -> tuple[str, ...]:
    """Choose the models: those of -m, else the configured ones; of these, `-g` leaves those of its gateway."""
    if asked:
        return tuple(asked)
    if gateway is None:
        return tuple(configured)
    return tuple(reference for reference in configured if reference.partition(":")[0] == gateway)


def checked_text(value: str | None, flag: str) -> str | None:
    """Refuse an argument that is not UTF-8, as the shell gave it. Raises: UsageError: names the byte."""
    if value is None:
        return None
    try:
        os.fsencode(value).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{flag} is not UTF-8: byte {error.start}") from error
    return value


def resolve_tag(tag: str | None, env: AppContext) -> str | None:
    return checked_text(tag or env.variables.get("AUDIOCLI_TAG"), "--tag")


def plan_document(
    command: str,
    routes: Sequence[Route],
    prices: Mapping[str, Estimate],
    units: Mapping[str, Json],
    warnings: Sequence[str],
    *,
    requests: int = 1,
) -> dict[str, Json]:
    """What `--dry-run --json` prints; a price that is not known is null."""
    from ..amounts import usd_number

    return {
        "ok": True,
        "command": command,
        "dry_run": True,
        "requests": requests,
        **units,
        "price_usd": usd_number(prices[routes[0].ref].nanousd),
        "price_usd_most": usd_number(prices[routes[0].ref].most_nanousd),
        "routes": [
            {
                "gateway": route.gateway,
                "model": route.model,
                "voice": route.voice,
                "price_usd": usd_number(prices[route.ref].nanousd),
            }
            for route in routes
        ],
        "warnings": list(warnings),
    }


def price_text(price: Estimate) -> str:
    from ..amounts import usd

    if price.least_nanousd is not None and price.most_nanousd is None:
        return f"{usd(price.least_nanousd)} or more"
    if price.least_nanousd is None or price.most_nanousd is None:
        return "? (the price is not known)"
    if price.most_nanousd == 0:
        return "free"
    if price.least_nanousd == price.most_nanousd:
        return usd(price.most_nanousd) if price.is_certain else f"about {usd(price.most_nanousd)}"
    return f"{usd(price.least_nanousd)} to {usd(price.most_nanousd)}"


def resolve_routes(env: AppContext, wish: RouteQuery, refusal: Callable[[Dialect, Route], AudiocliError | None]) -> Routing:
    """Order the routes of a wish. Raises: the error of the routes when none is left."""
    from ..core.attempts import exhausted
    from ..routing import plan

    planned = plan(wish, env.settings.gateways, refusal, env.shelf)
    if not planned.routes:
        raise exhausted(planned.skipped, ())
    return planned


def announce(screen: Console, routing: Routing, without_key: str) -> None:
    """Say which routes are taken, before anything is sent."""
    if routing.is_local_for_want_of_a_key:
        screen.info(f"no key found: {without_key}")
    for route in routing.routes:
        screen.debug(f"route {route.ref}" + (f", voice {route.voice}" if route.voice else ""))
    for route, error in routing.skipped:
        screen.info(f"leaving out {route.ref}: {error.message}")


def speech_route(env: AppContext, model: str, gateway: str | None, base_url: str | None) -> Route:
    from ..routing import RouteQuery, first_route

    wish = RouteQuery(task="speech", models=(model,), gateway=gateway, base_url=base_url)
    return first_route(wish, env.settings.gateways, env.shelf)


def voices_of(env: AppContext, screen: Console, route: Route, timeout_s: float) -> tuple[str, ...]:
    """Ask for the voices of one model. Raises: UsageError: nobody tells; AttemptError."""
    from ..core.catalog import voices

    return env.run(lambda tools: voices(route, tools), silence_s=timeout_s, tell=screen.info, log=screen.debug)


def emit_path(screen: Console, command: str, path: Path, *, as_json: bool) -> None:
    if as_json:
        screen.write_json({"ok": True, "command": command, "path": str(path)})
    else:
        screen.write_text(f"{path}\n")


def spent_and_left(progress: Progress) -> str:
    """Tell what work in pieces has cost, and how long it will take, as far as either is known."""
    from ..amounts import usd
    from ..costs import total

    cost, _ = total(progress.costs)
    spent = f", cost {usd(cost)}" if progress.costs else ""
    left = f", {progress.left_s:.0f} s left" if progress.left_s is not None else ""
    return spent + left
