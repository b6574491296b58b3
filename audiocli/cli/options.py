"""Options that several commands share, and the functions that interpret them.

The options of a command are a named tuple. Its fields are parameters of Typer, or other named tuples (groups) whose
fields take their place. `with_options` expands it, so that each option is declared once.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar, get_type_hints

import typer

from ..context import AppContext, ColorMode
from ..errors import ExitCode, MoneyError, OutputError, PrivacyUnsupported, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from ..console import Console
    from ..core.run_context import RunContext
    from ..errors import AudiocliError
    from ..gateways.base import Dialect
    from ..ledger.budget import RunBudget
    from ..routing import RoutePlan, RouteQuery
    from ..storage.phrase_cache import PhraseCache
    from ..types.json import Json
    from ..types.ledger import Estimate
    from ..types.routes import Route

OptionsT = TypeVar("OptionsT")
ResultT = TypeVar("ResultT")

DEFAULT_TIMEOUT_S = 120.0
MAX_CONCURRENCY = 64

# Request fields that have their own option, or that decide how the response is parsed.
RESERVED_FIELDS = frozenset(
    {
        *("model", "input", "voice", "response_format", "speed", "instructions", "stream"),
        *("file", "input_audio", "language", "prompt", "temperature", "timestamp_granularities", "provider"),
    }
)

# --- options that commands place among their own ---------------------------------------------------------------------

GatewayName = Annotated[str | None, typer.Option("--gateway", "-g", metavar="NAME", help="Gateway to use.")]
BaseUrl = Annotated[
    str | None, typer.Option("--base-url", metavar="URL", help="Base URL that replaces the one of the gateway.")
]
Timeout = Annotated[
    float, typer.Option("--timeout", metavar="S", help="Read timeout: seconds without data before the request fails.")
]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", "-m", metavar="REF", help="Model as [GATEWAY:]MODEL; repeat to add fallback models."),
]
RequestFields = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="KEY=VALUE",
        help="Extra request field; A.B=VALUE sets field B of A (OpenRouter: PROVIDER.KEY=VALUE).",
    ),
]
Output = Annotated[str | None, typer.Option("--output", "-o", metavar="PATH", help="Output file; - is stdout.")]
Player = Annotated[str | None, typer.Option("--player", metavar="CMD", help="Player program to use.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Debug = Annotated[bool, typer.Option("--debug", help="Print requests, waits, routing decisions and tracebacks.")]
# `app.main` applies it, before the command line is parsed.
Color = Annotated[
    ColorMode, typer.Option("--color", metavar="auto|always|never", help="When to color messages, tables and help.")
]
Bell = Annotated[bool, typer.Option("--bell", help="Ring the terminal bell when the command ends.")]

# --- groups ----------------------------------------------------------------------------------------------------------


class GeneralOptions(NamedTuple):
    """Options of every command."""

    as_json: AsJson = False
    quiet: Quiet = False
    debug: Debug = False
    color: Color = ColorMode.AUTO


class ExchangeOptions(NamedTuple):
    """Options of commands whose exchanges with a gateway can be recorded and replayed."""

    record: Annotated[
        str | None,
        typer.Option("--record", metavar="DIR", help="Record requests and responses, without keys, in a directory."),
    ] = None
    replay: Annotated[
        str | None,
        typer.Option(
            "--replay", metavar="DIR", help="Use the responses in a directory made with --record; costs nothing."
        ),
    ] = None
    replay_timing: Annotated[
        bool, typer.Option("--replay-timing", help="With --replay, wait as long as the gateway took.")
    ] = False


class GatewayOptions(NamedTuple):
    """Options of commands that send requests to one gateway."""

    name: GatewayName = None
    base_url: BaseUrl = None
    timeout_s: Timeout = DEFAULT_TIMEOUT_S
    exchanges: ExchangeOptions = ExchangeOptions()


class MoneyOptions(NamedTuple):
    """Options of commands whose requests may cost something."""

    retry_unknown: Annotated[
        bool, typer.Option("--retry-unknown", help="Retry requests whose outcome is unknown; they may be billed twice.")
    ] = False
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Print the plan and its price without sending anything.")
    ] = False
    max_cost_usd: Annotated[
        float | None, typer.Option("--max-cost", metavar="USD", help="Spending limit for this run in US dollars.")
    ] = None
    allow_unpriced: Annotated[
        bool, typer.Option("--allow-unpriced", help="With a spending limit, allow models whose price is unknown.")
    ] = False
    assume_yes: Annotated[bool, typer.Option("--yes", "-y", help="Skip the cost confirmation.")] = False
    tag: Annotated[str | None, typer.Option("--tag", metavar="NAME", help="Tag for the ledger entries.")] = None


class JobOptions(NamedTuple):
    """Options of commands that can submit a background job."""

    background: Annotated[bool, typer.Option("--background", help="Submit as a background job (TheRouter).")] = False
    wait: Annotated[bool, typer.Option("--wait", help="With --background, wait for the job and fetch its result.")] = (
        False
    )


# --- commands --------------------------------------------------------------------------------------------------------


def with_options(command: Callable[[typer.Context, OptionsT], ResultT]) -> Callable[..., ResultT]:
    """Return a command whose parameters are the fields of its options, in order, for Typer to read.

    Args:
        command: Has the parameters `ctx` and `options`. The type of `options` is a named tuple whose fields have
            defaults. A field is annotated for Typer, or is another such tuple, which is expanded in its place.
    """
    options_type: Any = get_type_hints(command)["options"]

    # Typer passes the declared parameters as keywords.
    @functools.wraps(command)
    def run(*, ctx: typer.Context, **values: Any) -> ResultT:
        return command(ctx, _build_options(options_type, values))

    parameters = [
        inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
        *_list_parameters(options_type),
    ]
    del run.__wrapped__  # Typer would read the signature of `command`
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _list_parameters(options_type: Any) -> Iterator[inspect.Parameter]:
    for name, annotation in _get_field_types(options_type).items():
        if _is_group(annotation):
            yield from _list_parameters(annotation)
            continue
        default = options_type._field_defaults.get(name, inspect.Parameter.empty)
        yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _build_options(options_type: Any, values: Mapping[str, Any]) -> Any:
    """Build the named tuple from the values of its expanded fields."""
    return options_type(
        **{
            name: _build_options(annotation, values) if _is_group(annotation) else values[name]
            for name, annotation in _get_field_types(options_type).items()
        }
    )


@functools.cache
def _get_field_types(options_type: Any) -> dict[str, Any]:
    return get_type_hints(options_type, include_extras=True)


def _is_group(annotation: Any) -> bool:
    return hasattr(annotation, "_fields")


def open_app(
    ctx: typer.Context,
    options: GeneralOptions,
    *,
    quiet_json: bool = False,
    bell: bool = False,
    exchanges: ExchangeOptions | None = None,
) -> tuple[AppContext, Console]:
    """Return the application context that the entry point stored, and the console of a command.

    With `quiet_json`, `--json` implies `--quiet`. `--debug` overrides `--quiet`. `bell` is the value of `--bell`.
    `exchanges` starts a recording or a replay.

    Raises:
        UsageError: A recording cannot be used.
        OutputError: A recording cannot be written.
    """
    app = ctx.obj
    assert isinstance(app, AppContext)
    app.rings_bell = bell
    if exchanges is not None:
        _start_exchanges(app, exchanges)
    is_quiet = (options.quiet or (quiet_json and options.as_json)) and not options.debug
    console = app.create_console(is_quiet=is_quiet, is_debugging=options.debug)
    if app.is_replaying and exchanges is not None and not options.as_json:
        console.info(f"replayed from {exchanges.replay}; nothing is sent")
    return app, console


def _start_exchanges(app: AppContext, options: ExchangeOptions) -> None:
    """Start the recording or the replay that the options ask for. Raises: UsageError, OutputError."""
    if options.replay_timing and options.replay is None:
        raise UsageError("--replay-timing needs --replay")
    if options.record is not None and options.replay is not None:
        raise UsageError("--record and --replay cannot be used together")
    for directory, flag in ((options.record, "--record"), (options.replay, "--replay")):
        if directory == "":
            raise UsageError(f"{flag} needs a directory")
    from pathlib import Path

    if options.record is not None:
        app.start_recording(Path(options.record))
    elif options.replay is not None:
        app.start_replay(Path(options.replay), has_timing=options.replay_timing)


# --- values of options -----------------------------------------------------------------------------------------------


def parse_provider_options(
    pairs: Sequence[str] | None, reserved: frozenset[str] = RESERVED_FIELDS, *, nested: bool = False
) -> dict[str, Json]:
    """Parse `KEY=VALUE` pairs of `--option`. VALUE is JSON if it parses, else text.

    With `nested`, the part of KEY before the first dot is a request field, not a provider.

    Raises:
        UsageError: A pair has no key, or names a field in `reserved`.
    """
    options: dict[str, Json] = {}
    for pair in pairs or ():
        name, equals, text = pair.partition("=")
        if not equals or not name.strip("."):
            raise UsageError(f"--option {pair}: expected KEY=VALUE")
        outer = name.partition(".")[0]
        # Fields of `provider` choose among the providers of OpenRouter, and protect privacy.
        is_inside = outer in reserved and (nested or outer not in (name, "provider"))
        if name in reserved or name.removesuffix("[]") in reserved or is_inside:
            raise UsageError(
                f"--option {name}: audiocli sets this field itself", hint="use the dedicated option instead"
            )
        try:
            options[name] = json.loads(text, parse_constant=_reject_constant)
        except ValueError:
            options[name] = text
    return options


def _reject_constant(name: str) -> Json:
    """Reject NaN and Infinity, which are not JSON."""
    raise ValueError(name)


def validate_timeout(timeout_s: float) -> float:
    """Return the read timeout in seconds. Raises: UsageError: Out of range."""
    if not 0 < timeout_s <= 86_400:
        raise UsageError(f"--timeout {timeout_s:g}: must be above 0 and at most 86400 seconds")
    return timeout_s


def validate_concurrency(concurrency: int, max_concurrency: int = MAX_CONCURRENCY) -> None:
    """Check the value of `--jobs`. Raises: UsageError: Out of range."""
    if not 1 <= concurrency <= max_concurrency:
        raise UsageError(f"--jobs {concurrency}: must be between 1 and {max_concurrency}")


def resolve_budget(
    app: AppContext, prices: Mapping[str, Estimate], options: MoneyOptions, run_id: str | None = None
) -> RunBudget:
    """Return the spending limits of a run, after a check of the estimated prices (route reference → estimate).

    The estimate of the complete run must be within `--max-cost`. The other limits apply to each request as it is sent,
    so a long input may be partly done when one of them is reached. `run_id` continues a run.

    Raises:
        UsageError: `--max-cost` is out of range.
        MoneyError: The estimate is above a limit, or the user did not confirm the cost.
    """
    max_cost_usd = _validate_max_cost(options)
    from ..ledger.budget import MAX_COST_LIMIT, check_limit, to_nanousd

    budget = app.create_run_budget(
        max_cost_nanousd=to_nanousd(max_cost_usd), allow_unpriced=options.allow_unpriced, run_id=run_id
    )
    for ref, price in prices.items():
        for limit in budget.limits:
            if price.max_nanousd is None and options.allow_unpriced:
                continue
            if limit.name == MAX_COST_LIMIT or price.max_nanousd is None:
                has_price = price.min_nanousd is not None
                check_limit(limit, ref, spent_nanousd=0, max_nanousd=price.max_nanousd, has_price=has_price)
    if not options.dry_run:
        confirm_cost(app, next(iter(prices.values())), assume_yes=options.assume_yes)
    return budget


def _validate_max_cost(options: MoneyOptions) -> float | None:
    """Return the amount of `--max-cost` in US dollars; None if it is not set. Raises: UsageError."""
    max_cost_usd = options.max_cost_usd
    if max_cost_usd is not None and not 0 <= max_cost_usd < 1e6:
        raise UsageError(f"--max-cost {max_cost_usd:g}: must be 0 or more US dollars")
    return max_cost_usd


def needs_prices(app: AppContext, options: MoneyOptions) -> bool:
    """Return whether a spending limit or the confirmation of the cost depends on the price of a route.

    Raises:
        UsageError: `--max-cost` is out of range.
    """
    budget = app.settings.budget
    has_limit = _validate_max_cost(options) is not None or any(
        amount is not None for amount in (budget.run, budget.day, budget.week, budget.month)
    )
    must_confirm = budget.confirm is not None and not (options.assume_yes or options.dry_run)
    return (has_limit and not options.allow_unpriced) or must_confirm


def confirm_cost(app: AppContext, price: Estimate, *, assume_yes: bool) -> None:
    """Ask for confirmation if the cost is unknown or above `[budget] confirm`.

    Raises:
        MoneyError: The user declined, or there is no terminal to ask on.
    """
    from ..costs import Rounding, format_exact_usd, format_usd

    threshold_nanousd = app.settings.budget.confirm
    if (
        threshold_nanousd is None
        or assume_yes
        or (price.max_nanousd is not None and price.max_nanousd <= threshold_nanousd)
    ):
        return
    message = (
        "the price is unknown"
        if price.max_nanousd is None
        else f"this may cost {format_usd(price.max_nanousd, Rounding.UP)}"
    )
    if not (app.stdin.isatty() and app.stderr.isatty()):
        raise MoneyError(
            f"{message}; confirmation is required above {format_exact_usd(threshold_nanousd)} ([budget] confirm), "
            "but there is no terminal",
            hint="use --yes to skip the confirmation",
        )
    app.stderr.write(f"{message}. Continue? [y/N] ".encode())
    answer = app.stdin.readline().strip().lower()
    if answer not in (b"y", b"yes"):
        raise MoneyError("not confirmed; nothing was sent")


def resolve_models(
    requested: Sequence[str] | None,
    configured: Sequence[str],
    gateway: str | None,
    aliases: Mapping[str, Sequence[str]],
) -> tuple[str, ...]:
    """Return the models of `-m`, else the configured models. Both may be names in `[aliases]`.

    With `gateway`, only the configured models with the prefix of that gateway remain.
    """
    from ..routing import expand_aliases

    if requested:
        return expand_aliases(requested, aliases)
    models = expand_aliases(configured, aliases)
    if gateway is None:
        return models
    return tuple(reference for reference in models if reference.partition(":")[0] == gateway)


def validate_utf8(value: str | None, flag: str) -> str | None:
    """Return the value of an option, which the shell may pass as arbitrary bytes.

    Raises:
        UsageError: The value is not UTF-8. The message has the offset of the first invalid byte.
    """
    if value is None:
        return None
    try:
        os.fsencode(value).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{flag} is not UTF-8: byte {error.start}") from error
    return value


def resolve_tag(tag: str | None, app: AppContext) -> str | None:
    """Return the value of `--tag`, else of `AUDIOCLI_TAG`. Raises: UsageError: Not UTF-8."""
    return validate_utf8(tag or app.variables.get("AUDIOCLI_TAG"), "--tag")


def open_phrase_cache(app: AppContext, console: Console, requested: bool | None) -> PhraseCache | None:
    """Return the phrase cache; None if `--no-cache` or the configuration switches it off, or it cannot be used."""
    settings = app.settings
    if not settings.speech_cache_mb:
        if requested:
            console.warning("--cache has no effect, because speak.cache_mb is 0")
        return None
    if not (settings.speech_cache if requested is None else requested):
        return None
    try:
        return app.phrases
    except OutputError as error:
        console.debug(f"cannot use the phrase cache: {error.message}")
        return None


def build_plan_document(
    command: str,
    routes: Sequence[Route],
    prices: Mapping[str, Estimate],
    units: Mapping[str, Json],
    warnings: Sequence[str],
    *,
    requests: int = 1,
) -> dict[str, Json]:
    """Return the JSON object that `--dry-run --json` prints. Unknown prices are null."""
    from ..costs import resolve_cost, to_usd
    from ..types.ledger import Outcome, Usage

    return {
        "ok": True,
        "command": command,
        "dry_run": True,
        "requests": requests,
        **units,
        "price_usd": to_usd(prices[routes[0].ref].nanousd),
        "price_usd_most": to_usd(prices[routes[0].ref].max_nanousd),
        "cost_source": str(resolve_cost(Outcome.OK, Usage(), prices[routes[0].ref])[1]),
        "routes": [
            {
                "gateway": route.gateway,
                "model": route.model,
                "voice": route.voice,
                "price_usd": to_usd(prices[route.ref].nanousd),
                "cost_source": str(resolve_cost(Outcome.OK, Usage(), prices[route.ref])[1]),
            }
            for route in routes
        ],
        "warnings": list(warnings),
    }


def format_price(price: Estimate) -> str:
    """Format an estimate: the expected price, and the maximum if it differs."""
    from ..costs import Rounding, format_usd

    if price.min_nanousd is not None and price.max_nanousd is None:
        return f"{format_usd(price.min_nanousd)} or more"
    if price.min_nanousd is None or price.max_nanousd is None:
        return "unknown"
    if price.max_nanousd == 0:
        return "free"
    if price.min_nanousd == price.max_nanousd:
        return format_usd(price.max_nanousd) if price.is_exact else f"about {format_usd(price.max_nanousd)}"
    return f"about {format_usd(price.nanousd)}, at most {format_usd(price.max_nanousd, Rounding.UP)}"


def hint_missing_prices(app: AppContext, console: Console, route: Route, price: Estimate) -> None:
    """Say how to fetch the prices of a gateway, if a price is unknown because they were never fetched."""
    from .. import gateways
    from ..core.catalog import load_cached_listing

    if price.min_nanousd is not None or not gateways.load_dialect(route.dialect).may_list_prices(route):
        return
    if load_cached_listing(route, app.cache) is None:
        console.hint(f"fetch the prices with: audiocli models -g {route.gateway}")


def list_outdated_lists(app: AppContext, query: RouteQuery) -> list[Route]:
    """Return the gateways whose model lists are to be fetched with `fetch_default_lists` before `resolve_routes`."""
    from .. import routing as route_planner

    return route_planner.list_outdated_lists(query, app.settings.gateways, app.catalog)


async def fetch_default_lists(app: AppContext, query: RouteQuery, ctx: RunContext) -> None:
    """Fetch the model lists that decide which default model is used. Sends nothing if the user named the models."""
    await app.catalog.refresh_lists(list_outdated_lists(app, query), ctx)


def resolve_routes(
    app: AppContext, query: RouteQuery, check_route: Callable[[Dialect, Route], AudiocliError | None]
) -> RoutePlan:
    """Return the routes for a query, in the order in which they are tried.

    `check_route` returns the reason why a route cannot serve the request, else None.

    Raises:
        AudiocliError: No route is left: the error of the only route, or `RoutesExhausted`.
    """
    from .. import routing as route_planner

    query = query._replace(alias_names=tuple(app.settings.aliases))
    routing = route_planner.resolve_routes(query, app.settings.gateways, check_route, app.catalog)
    app.daily_warnings.update(routing.end_notes)
    if not routing.routes:
        from ..core.attempts import build_exhausted_error

        error = build_exhausted_error(routing.skipped, ())
        if any(isinstance(reason, PrivacyUnsupported) for _, reason in routing.skipped):
            error.exit_code = ExitCode.USAGE
        raise error
    privacy_notes = tuple(
        f"skipping {route.ref}: {reason.message}"
        for route, reason in routing.skipped
        if isinstance(reason, PrivacyUnsupported)
    )
    routes = (
        route._replace(
            notes=(*route.notes, *privacy_notes), estimate_correction=_compute_estimate_correction(app, route)
        )
        for route in routing.routes
    )
    return routing._replace(routes=tuple(map(_add_cleartext_note, routes)))


def _compute_estimate_correction(app: AppContext, route: Route) -> float:
    """Return the factor for the estimates of a model, from its bills in the ledger; 1 if there are none."""
    from .. import gateways, pricing

    if gateways.load_dialect(route.dialect).is_free:
        return 1.0
    try:
        return pricing.compute_correction(app.ledger.list_estimate_ratios(route.gateway, route.model))
    except MoneyError:
        return 1.0  # reported before a request is sent


def _add_cleartext_note(route: Route) -> Route:
    """Add a warning to a route whose key would be sent over the public internet without encryption."""
    if not route.secrets or not route.base_url.lower().startswith("http:"):
        return route
    from ..http.url import build_cleartext_warning, parse_url

    try:
        warning = build_cleartext_warning(parse_url(route.base_url))
    except UsageError:
        return route  # reported when the route is used
    return route._replace(notes=(*route.notes, warning)) if warning else route


def report_routes(console: Console, routing: RoutePlan, local_fallback_note: str) -> None:
    """Report a fallback to the local engine and the skipped routes; with `--debug`, also the chosen routes."""
    if routing.fell_back_to_local:
        console.info_once(f"no API key found; {local_fallback_note}")
    for route in routing.routes:
        console.debug(f"route {route.ref}" + (f", voice {route.voice}" if route.voice else ""))
    for route, error in routing.skipped:
        if not isinstance(error, PrivacyUnsupported):  # a note of the routes
            console.info_once(f"skipping {route.ref}: {error.message}")


def list_voices(app: AppContext, console: Console, route: Route, timeout_s: float) -> tuple[str, ...]:
    """Return the names of the voices of a model.

    Raises:
        UsageError: The gateway does not list voices.
        AttemptError: The request for the list failed.
    """
    from ..core.catalog import fetch_voices

    return app.run(
        lambda ctx: fetch_voices(route, ctx), read_timeout_s=timeout_s, info=console.info, debug=console.debug
    )


def print_path(console: Console, command: str, path: Path, *, as_json: bool) -> None:
    """Print the path of the configuration or the ledger, as text or JSON."""
    if as_json:
        console.write_json({"ok": True, "command": command, "path": str(path)})
    else:
        console.write_text(f"{path}\n")
