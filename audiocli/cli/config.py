"""`audiocli config`: show the settings with their sources, and check the installation."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import typer

from ..context import AppContext
from ..errors import AttemptError, AudiocliError, ExitCode, UsageError
from ..redaction import hide_credentials
from ..types.json import EMPTY_MAPPING
from ..types.routes import NO_TRAITS
from .config_values import edit, get, set_value, unset
from .keys import CHECK_TIMEOUT_S, build_credit_document, format_credit
from .options import ExchangeOptions, GeneralOptions, open_app, print_path, with_options

if TYPE_CHECKING:
    from ..console import Console
    from ..core.catalog import Listing
    from ..core.key_check import KeyCheck
    from ..core.run_context import RunContext
    from ..gateways.local_models import LocalModel
    from ..routing import GatewayConfig
    from ..types.json import Json
    from ..types.stores import StoreTable

# Responses of servers that speak and transcribe but do not list their models.
NO_MODEL_LIST_STATUSES = (404, 405, 501)

# A warning or an error makes `config check` exit with code 3.
Status = Literal["ok", "note", "warning", "error"]


class CheckOptions(NamedTuple):
    """Options of `audiocli config check`."""

    exchanges: ExchangeOptions = ExchangeOptions()
    general: GeneralOptions = GeneralOptions()


def build() -> typer.Typer:
    """Build the command group."""
    group = typer.Typer(help="Show and check the configuration.", rich_markup_mode=None)
    group.callback(invoke_without_command=True)(config)
    group.command("path")(path)
    group.command("check")(check)
    for name, command in {"get": get, "set": set_value, "unset": unset, "edit": edit}.items():
        group.command(name)(command)
    return group


@with_options
def config(ctx: typer.Context, options: GeneralOptions) -> None:
    """Show and check the configuration."""
    if ctx.invoked_subcommand is not None:
        return
    app, console = open_app(ctx, options)
    rows = list_settings(app)
    if options.as_json:
        console.write_json(
            {
                "ok": True,
                "command": "config",
                "settings": [{"name": name, "value": value, "source": source} for name, value, source in rows],
            }
        )
    else:
        console.write_table(["setting", "value", "from"], rows, numeric=[False] * 3)


@with_options
def path(ctx: typer.Context, options: GeneralOptions) -> None:
    """Print the path of the config file."""
    app, console = open_app(ctx, options)
    print_path(console, "config", app.config_path, as_json=options.as_json)


@with_options
def check(ctx: typer.Context, options: CheckOptions) -> int:
    """Check keys, gateways, engines, paths and limits. Exit code 3 if a check fails."""
    app, console = open_app(ctx, options.general, exchanges=options.exchanges)
    results = run_checks(app, console)
    is_ok = all(result.status in ("ok", "note") for result in results)
    if options.general.as_json:
        checks: list[Json] = [result.build_document() for result in results]
        console.write_json({"ok": is_ok, "command": "config check", "checks": checks})
    else:
        for result in results:
            console.write_check(result.status, result.format_detail())
    return ExitCode.OK if is_ok else ExitCode.PARTIAL


class CheckResult(NamedTuple):
    """The result of one check. `fix` says what to do, unless the status is `ok`. `values` are more keys of the JSON."""

    check: str
    status: Status
    detail: str
    fix: str | None = None
    values: Mapping[str, Json] = EMPTY_MAPPING

    def format_detail(self) -> str:
        """Format the name of the check, what was found, and what to do."""
        fix = f"; {self.fix}" if self.fix and self.status != "ok" else ""
        return f"{self.check}: {self.detail}{fix}"

    def build_document(self) -> dict[str, Json]:
        """Build the JSON object of the result."""
        fix = None if self.status == "ok" else self.fix
        return {"check": self.check, "status": self.status, "detail": self.detail, "fix": fix, **self.values}


def list_settings(app: AppContext) -> list[list[str]]:
    """Return the settings with their values and sources. Keys are shown only as set or not set."""
    from ..config import DEFAULT_SPEECH_CACHE_MB

    settings = app.settings
    config_path = str(app.config_path)

    def build_row(name: str, value: str | None, default: str) -> list[str]:
        return [name, value or default, config_path if value else "built in"]

    rows = [
        build_row("speak.models", ", ".join(settings.speech_models), "the first gateway with a key"),
        build_row("speak.voice", settings.speech_voice, "default of the model"),
        build_row("speak.format", settings.speech_format, "mp3"),
        *([] if settings.speech_cache else [["speak.cache", "false", config_path]]),
        *(
            [["speak.cache_mb", str(settings.speech_cache_mb), config_path]]
            if settings.speech_cache_mb != DEFAULT_SPEECH_CACHE_MB
            else []
        ),
        build_row("transcribe.models", ", ".join(settings.transcription_models), "the first gateway with a key"),
        build_row("transcribe.language", settings.transcription_language, "detected by the model"),
        build_row("chat.models", ", ".join(settings.chat_models), "the first gateway with a key that supports chat"),
        build_row("chat.voice", settings.chat_voice, "alloy"),
        *([f"voices.{ref}", voice, config_path] for ref, voice in settings.voices.items()),
        *([f"cast.{name}", voice, config_path] for name, voice in settings.cast.items()),
        *([name, text, config_path] for name, text in _list_texts("pronunciations", settings.pronunciations)),
        *([f"aliases.{name}", ", ".join(models), config_path] for name, models in settings.aliases.items()),
        *([f"prices.{ref}", f"${price.usd:f} / {price.unit}", config_path] for ref, price in settings.prices.items()),
    ]
    for gateway in settings.gateways:
        if gateway.dialect == "local":
            continue
        base_url = hide_credentials(gateway.base_url)
        rows.append([f"gateways.{gateway.name}.base_url", base_url, gateway.base_url_source])
        key_state = "set" if gateway.key else "none" if gateway.requires_key else "not needed"
        rows.append([f"gateways.{gateway.name}.key", key_state, gateway.key_source or "-"])
        if gateway.traits is not NO_TRAITS:
            from ..gateways.server_tables import describe_traits

            rows += [
                [f"gateways.{gateway.name}.{key}", text, config_path] for key, text in describe_traits(gateway.traits)
            ]
    for store in settings.stores:
        rows += [
            [f"stores.{store.name}.{key}", str(value), config_path]
            for key, value in store._asdict().items()
            if key != "name" and value is not None
        ]
    return rows


def _list_texts(name: str, table: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield the values of a table and of the tables in it, with their names."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _list_texts(f"{name}.{key}", value)
        else:
            yield f"{name}.{key}", str(value)


def run_checks(app: AppContext, console: Console, *, is_offline: bool = False) -> list[CheckResult]:
    """Run every check. Only the first one runs if the settings cannot be read. `is_offline`: send no request."""
    try:
        settings = app.settings
    except AudiocliError as error:
        return [CheckResult("config file", "error", error.message, error.hint)]
    state = "found" if app.config_path.exists() else "not found, using built-in settings"
    results = [CheckResult("config file", "ok", f"{app.config_path}: {state}")]
    if settings.keys_error is not None:
        results.append(CheckResult("keys file", "error", settings.keys_error.message, settings.keys_error.hint))
    results += _check_keys(app) if is_offline else _check_gateways(app, console)
    results += _check_models(app)
    results += _check_pronunciations(app)
    results += _check_engines(app)
    results += [_check_store(app, store) for store in app.settings.stores]
    results.append(_check_players(app))
    results.append(_check_directory("config directory", app.config_path.parent))
    results.append(_check_directory("ledger directory", app.ledger_path.parent))
    results.append(_check_directory("cache directory", app.cache_directory))
    results.append(_check_ledger(app))
    return results + _check_limits(app)


def _check_keys(app: AppContext) -> list[CheckResult]:
    """Check which keys are set, without a request."""
    configs = [config for config in app.settings.gateways if config.requires_key or config.key]
    return [
        CheckResult(f"key {config.name}", "note", f"set by {config.key_source}; not verified: no request was sent")
        if config.key
        else CheckResult(f"key {config.name}", "note", "not set", config.key_hint)
        for config in configs
    ]


def _check_gateways(app: AppContext, console: Console) -> list[CheckResult]:
    """Check the keys, and fetch the model list of every gateway that has a key or needs none.

    The requests are free. One key is enough; without any, the local engines still work, so that is only a note.
    """
    import asyncio

    from ..core.catalog import fetch_listings
    from ..core.key_check import check_key
    from ..routing import build_gateway_route

    remote = [config for config in app.settings.gateways if config.dialect != "local"]
    configs = [config for config in remote if config.traits_error is None]
    unusable = [
        CheckResult(f"gateway {config.name}", "error", config.traits_error.message, config.traits_error.hint)
        for config in remote
        if config.traits_error is not None
    ]
    with_key = [config for config in configs if config.key]
    missing_status: Status = "ok" if with_key else "note"
    listed = [config for config in configs if config.key or not config.requires_key]

    async def send(ctx: RunContext) -> tuple[list[KeyCheck], list[Listing]]:
        async with asyncio.TaskGroup() as group:
            key_checks = [group.create_task(check_key(build_gateway_route(config), ctx)) for config in with_key]
            listings = group.create_task(fetch_listings([*map(build_gateway_route, listed)], ctx, refresh=True))
        return [task.result() for task in key_checks], listings.result()

    key_checks: list[KeyCheck] = []
    listings: list[Listing] = []
    if listed:
        key_checks, listings = app.run(
            send,
            read_timeout_s=CHECK_TIMEOUT_S,
            info=lambda message: (console.info if message.startswith("warning: ") else console.debug)(message),
            debug=console.debug,
        )
    checks_by_name = {config.name: result for config, result in zip(with_key, key_checks, strict=True)}
    results = [
        _describe_key(config, checks_by_name[config.name])
        if config.name in checks_by_name
        else CheckResult(f"key {config.name}", missing_status, "not set", config.key_hint)
        for config in configs
        if config.requires_key or config.key
    ]
    return results + unusable + [_describe_listing(listing) for listing in listings]


def _describe_key(config: GatewayConfig, result: KeyCheck) -> CheckResult:
    """Describe the key of a gateway, and whether the gateway accepts it."""
    from ..core.key_check import KeyStatus

    name, source = f"key {config.name}", f"set by {config.key_source}"
    values = {"verified": result.status is KeyStatus.ACCEPTED, **build_credit_document(result)}
    if result.status is KeyStatus.REFUSED:
        return CheckResult(name, "error", f"{source}; refused: {result.detail}", config.key_hint, values)
    if result.status is KeyStatus.NOT_VERIFIED:
        note = f"; {config.key_note}" if config.key_note else ""
        return CheckResult(name, "note", f"{source}; not verified: {result.detail}{note}", None, values)
    detail = f"{source}; accepted{format_credit(result)}"
    if result.info is not None and result.info.remaining_nanousd == 0:
        return CheckResult(name, "warning", detail, "add credit at the gateway, or raise the limit of the key", values)
    if config.key_note:
        return CheckResult(name, "note", f"{config.key_note}; {detail}", None, values)
    return CheckResult(name, "ok", detail, None, values)


def _describe_listing(listing: Listing) -> CheckResult:
    """Describe the model list of a gateway, or why there is none."""
    name, url = f"gateway {listing.route.gateway}", hide_credentials(listing.route.base_url)
    if not listing.route.traits.has_model_list:
        return CheckResult(name, "ok", f"{url}: not checked, because models = false in the config file")
    if listing.error is None:
        return CheckResult(name, "ok", f"{url}: {len(listing.cards)} models")
    if isinstance(listing.error, AttemptError) and listing.error.status in NO_MODEL_LIST_STATUSES:
        detail = f"{url}: no model list ({listing.error.status}); check the base URL if requests fail"
        return CheckResult(name, "note", detail)
    return CheckResult(name, "error", f"{url}: {listing.error.message}", listing.error.hint)


def _check_models(app: AppContext) -> list[CheckResult]:
    """List the configured models that have ended or end. They are never replaced, because the user named them."""
    settings = app.settings
    return [
        *_check_model_ends(app, "speech", "speak.models", settings.speech_models),
        *_check_model_ends(app, "transcription", "transcribe.models", settings.transcription_models),
        *_check_model_ends(app, "chat", "chat.models", settings.chat_models),
    ]


def _check_model_ends(
    app: AppContext, task: Literal["speech", "transcription", "chat"], setting: str, references: Sequence[str]
) -> list[CheckResult]:
    from ..gateways.default_models import END_DATE_WARNING_DAYS
    from ..routing import RouteQuery, expand_aliases, resolve_first_route

    results = []
    for reference in expand_aliases(references, app.settings.aliases):
        check = f"model {reference}"
        try:
            today = app.today
            route = resolve_first_route(RouteQuery(task, (reference,)), app.settings.gateways, app.catalog)
        except AudiocliError as error:
            results.append(CheckResult(check, "error", f"{setting}: {error.message}", error.hint))
            continue
        end_date = app.catalog.get_end_date(route)
        if end_date is None:
            continue
        days_left = (end_date - today).days
        status: Status = "error" if days_left <= 0 else "warning" if days_left <= END_DATE_WARNING_DAYS else "note"
        verb = "was shut down" if days_left <= 0 else "shuts down"
        fix = f"choose another model for {setting}, or remove it to use the default"
        detail = f"{setting}: {verb} on {end_date.isoformat()}"
        results.append(CheckResult(check, status, detail, fix, {"ends": end_date.isoformat()}))
    return results


def _check_pronunciations(app: AppContext) -> list[CheckResult]:
    """Check the rules of `[pronunciations]`, if there are any."""
    rules = app.settings.pronunciations
    if not rules:
        return []
    from ..text.pronunciations import Pronunciations

    try:
        Pronunciations.from_mapping(rules, "config.toml")
    except UsageError as error:
        return [CheckResult("pronunciations", "error", error.message, error.hint)]
    count = sum(1 for _ in _list_texts("pronunciations", rules))
    return [CheckResult("pronunciations", "ok", f"{count} {'rule' if count == 1 else 'rules'}")]


def _check_engines(app: AppContext) -> list[CheckResult]:
    """Check which local engines are installed, and the hashes of the models that they have."""
    from ..engines.weights import build_install_command
    from ..gateways import local
    from ..gateways.local_models import find_local_model, list_local_models

    results = []
    if (directory := app.weights.models_directory) is not None and not directory.is_dir():
        fix = "create it, or change AUDIOCLI_MODEL_DIR or [local] models_dir"
        results.append(CheckResult("models directory", "warning", f"{directory}: not a directory", fix))
    if (directory := app.weights.voices_directory) is not None and not directory.is_dir():
        fix = "create it, or change [local] voices_dir"
        results.append(CheckResult("voices directory", "warning", f"{directory}: not a directory", fix))
    for model in local.MODELS:
        error = local.check_installed(model)
        if (weights := find_local_model(model)) is not None:
            # Without the engine, its own line says so.
            results += [_check_weights(app, weights)] if error is None else []
        elif error is not None:
            results.append(CheckResult(f"local:{model}", "warning", "not installed", error.hint))
        elif (
            not list_local_models(model)
            or app.weights.find_best(list_local_models(model)) is not None
            or (model == "piper" and app.piper_voices.list_names())
        ):
            results.append(CheckResult(f"local:{model}", "ok", "installed"))
        else:
            fix = " or ".join(build_install_command(weights) for weights in list_local_models(model))
            what = "voice" if model == "piper" else "model"
            results.append(CheckResult(f"local:{model}", "note", f"installed, without a {what}", fix))
        if error is None and model == "piper":
            results += [_check_weights(app, weights) for weights in list_local_models(model)]
    return results


def _check_weights(app: AppContext, weights: LocalModel) -> CheckResult:
    """Check the files of a model. One that is missing is only a note, because other models serve its purpose."""
    from ..engines.weights import build_install_command

    name = f"local:piper {weights.name}" if weights.engine == "piper" else f"local:{weights.name}"
    found = app.weights.find(weights)
    if found is None:
        return CheckResult(name, "note", "not installed", build_install_command(weights))
    try:
        app.weights.verify(weights)
    except AudiocliError as error:
        return CheckResult(name, "error", error.message, error.hint)
    return CheckResult(name, "ok", f"installed in {found.source}, {weights.size_bytes / 1e6:.0f} MB, hashes correct")


def _check_store(app: AppContext, store: StoreTable) -> CheckResult:
    """Check that an object store can be opened. Nothing is sent to it."""
    from ..object_store import require_obstore

    name = f"store {store.name}"
    try:
        require_obstore()
    except AudiocliError as error:
        return CheckResult(name, "warning", error.message, error.hint)
    missing = [variable for variable in store.credential_variables if not app.variables.get(variable)]
    if missing:
        return CheckResult(
            name, "warning", f"{', '.join(missing)} is not set", f"set it, or change [stores.{store.name}]"
        )
    if store.ca_file is not None and not Path(store.ca_file).is_file():
        return CheckResult(name, "error", f"{store.ca_file} is not a file", f"change ca_file in [stores.{store.name}]")
    return CheckResult(name, "ok", f"{store.url}, not contacted")


def _check_players(app: AppContext) -> CheckResult:
    from ..outputs import player

    programs = ", ".join(candidate.program for candidate in player.find_players(app.variables))
    if programs:
        return CheckResult("player", "ok", programs)
    names = ", ".join(supported.program for supported in player.PLAYERS)
    return CheckResult("player", "warning", "none found", f"install one of {names}")


def _check_directory(check: str, directory: Path) -> CheckResult:
    """Check that a directory is writable or can be created."""
    ancestor = directory
    try:
        while not ancestor.exists() and ancestor != ancestor.parent:
            ancestor = ancestor.parent
    except OSError as error:
        return CheckResult(check, "error", f"{directory}: {error.strerror}", "choose another directory")
    if ancestor.is_dir() and os.access(ancestor, os.W_OK):
        return CheckResult(check, "ok", f"{directory}: writable")
    fix = "make it writable, or choose another directory (see 'audiocli help environment')"
    return CheckResult(check, "error", f"{directory}: cannot write to {ancestor}", fix)


def _check_ledger(app: AppContext) -> CheckResult:
    from ..ledger.reports import build_report

    try:
        count = sum(row.requests for row in build_report(app.ledger, since=None, until=None, by=[]))
    except AudiocliError as error:
        return CheckResult("ledger", "error", error.message, error.hint)
    return CheckResult("ledger", "ok", f"{app.ledger_path}: {count} requests")


def _check_limits(app: AppContext) -> list[CheckResult]:
    """Check what remains of each spending limit. A limit that is used up blocks every request."""
    from ..costs import Rounding, format_exact_usd, format_usd
    from ..ledger.budget import resolve_limits

    results = []
    try:
        now = app.now()
    except AudiocliError as error:
        return [CheckResult("clock", "error", error.message, error.hint)]
    for limit in resolve_limits(app.settings.budget, max_cost_nanousd=None, run_id="", now=now):
        check, amount = f"{limit.name} limit", format_exact_usd(limit.amount_nanousd)
        if limit.since_ms is None:
            results.append(CheckResult(check, "ok", f"{amount} for each run"))
            continue
        try:
            remaining_nanousd = limit.amount_nanousd - app.ledger.sum_spending(limit)
        except AudiocliError as error:
            results.append(CheckResult(check, "error", error.message, error.hint))
            continue
        fix = f"wait for the next {limit.name}, or raise it with: audiocli budget set --{limit.name} USD"
        status: Status = "ok" if remaining_nanousd > 0 else "error"
        detail = f"{format_usd(max(remaining_nanousd, 0), Rounding.DOWN)} of {amount} left"
        results.append(CheckResult(check, status, detail, fix))
    return results
