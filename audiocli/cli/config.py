"""`audiocli config`: what holds, where it comes from, and what is wrong with it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..context import AppContext
from ..errors import AudiocliError, ExitCode
from . import options

if TYPE_CHECKING:
    from ..console import Console
    from ..types.values import Json

CHECK_TIMEOUT_S = 10.0


def build() -> typer.Typer:
    app = typer.Typer(help="What holds, where it comes from, and what is wrong.", rich_markup_mode=None)

    @app.callback(invoke_without_command=True)
    def config(
        context: typer.Context,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Print the effective settings with the source of each."""
        if context.invoked_subcommand is not None:
            return
        env = options.get_app(context)
        screen = options.build_console(env, is_quiet=quiet, is_debugging=debug)
        rows = _effective(env)
        if as_json:
            screen.write_json(
                {
                    "ok": True,
                    "command": "config",
                    "settings": [{"name": name, "value": value, "source": source} for name, value, source in rows],
                }
            )
        else:
            screen.write_table(["setting", "value", "from"], rows, numeric=[False] * 3)

    @app.command("path")
    def path(
        context: typer.Context,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> None:
        """Where the configuration file is, or would be."""
        env = options.get_app(context)
        screen = options.build_console(env, is_quiet=quiet, is_debugging=debug)
        options.emit_path(screen, "config", env.config_path, as_json=as_json)

    @app.command("check")
    def check(
        context: typer.Context,
        as_json: options.AsJson = False,
        quiet: options.Quiet = False,
        debug: options.Debug = False,
    ) -> int:
        """Check keys, gateways, players, folders, the ledger and the local engines; exit 3 if something is wrong."""
        env = options.get_app(context)
        screen = options.build_console(env, is_quiet=quiet, is_debugging=debug)
        findings = _findings(env, screen)
        for finding in findings:
            if as_json:
                screen.write_json(finding.document())
            else:
                screen.write_text(finding.line())
        return ExitCode.DONE if all(finding.is_well for finding in findings) else ExitCode.PARTLY_DONE

    return app


@dataclass(frozen=True)
class CheckResult:
    """One thing that was looked at; `mend` says what to do where it is not well."""

    what: str
    is_well: bool
    told: str
    mend: str | None = None

    def line(self) -> str:
        mend = f": {self.mend}" if self.mend and not self.is_well else ""
        return f"{'ok   ' if self.is_well else 'wrong'}  {self.what}: {self.told}{mend}\n"

    def document(self) -> dict[str, Json]:
        return {"what": self.what, "ok": self.is_well, "told": self.told, "mend": None if self.is_well else self.mend}


def _effective(env: AppContext) -> list[list[str]]:
    """List every setting with its value and where it comes from; keys are only said to be there."""
    settings = env.settings
    file = str(env.config_path)

    def row(name: str, value: str | None, usual: str) -> list[str]:
        return [name, value or usual, file if value else "built in"]

    rows = [
        row("speak.models", ", ".join(settings.speech_models), "the first gateway with a key"),
        row("speak.voice", settings.speech_voice, "the model's"),
        row("speak.format", settings.speech_format, "mp3"),
        row("transcribe.models", ", ".join(settings.transcription_models), "the first gateway with a key"),
        row("transcribe.language", settings.transcription_language, "told by the model"),
        row("chat.models", ", ".join(settings.chat_models), "the first gateway with a key that talks"),
        row("chat.voice", settings.chat_voice, "alloy"),
        *([f"voices.{ref}", voice, file] for ref, voice in settings.voices.items()),
        *([f"prices.{ref}", f"${price.usd:f} / {price.per}", file] for ref, price in settings.prices.items()),
    ]
    for gateway in settings.gateways:
        if gateway.dialect == "local":
            continue
        rows.append([f"gateways.{gateway.name}.base_url", gateway.base_url, gateway.base_url_source])
        told = "set" if gateway.key else "none" if gateway.key_needed else "not needed"
        rows.append([f"gateways.{gateway.name}.key", told, gateway.key_source or "-"])
    return rows


def _findings(env: AppContext, screen: Console) -> list[CheckResult]:
    """Look at everything that audiocli needs."""
    findings: list[CheckResult] = []
    try:
        settings = env.settings
    except AudiocliError as error:
        return [CheckResult("configuration", False, error.message, error.hint)]
    known = "found" if env.config_path.exists() else "none, the built-in settings hold"
    findings.append(CheckResult(f"configuration {env.config_path}", True, known))
    if settings.keys_error is not None:
        findings.append(CheckResult("keys file", False, settings.keys_error.message, settings.keys_error.hint))
    with_key = [one for one in settings.gateways if one.key is not None]
    for gateway in settings.gateways:
        if gateway.key_needed:
            told = f"from {gateway.key_source}" if gateway.key else "none"
            # One key is enough; only a machine without any has something to mend.
            findings.append(CheckResult(f"key of {gateway.name}", bool(gateway.key or with_key), told, gateway.key_hint))
    findings += _reachable(env, screen)
    findings += _engines()
    findings.append(_players(env))
    folders = (
        ("folder of the configuration", env.config_path.parent),
        ("folder of the ledger", env.ledger_path.parent),
        ("folder of the cache", env.cache_folder),
    )
    findings += [_folder(what, folder) for what, folder in folders]
    findings.append(_ledger(env))
    return findings + _caps(env)


def _reachable(env: AppContext, screen: Console) -> list[CheckResult]:
    """Ask every gateway that has a key, or wants none, for its list of models: that costs nothing."""
    from ..core.catalog import listings
    from ..types.values import Route

    asked = [one for one in env.settings.gateways if one.dialect != "local" and (one.key or not one.key_needed)]
    routes = [Route(one.name, one.dialect, one.base_url, "", one.key) for one in asked]
    if not routes:
        return []
    found = env.run(
        lambda tools: listings(routes, tools, refresh=True),
        silence_s=CHECK_TIMEOUT_S,
        tell=screen.debug,
        log=screen.debug,
    )
    return [
        CheckResult(
            f"gateway {listing.route.gateway} at {listing.route.base_url}",
            listing.error is None,
            f"{len(listing.cards)} models" if listing.error is None else listing.error.message,
            listing.error.hint if listing.error is not None else None,
        )
        for listing in found
    ]


def _engines() -> list[CheckResult]:
    from ..gateways import local

    findings = []
    for model in local.MODELS:
        missing = local.missing(model)
        told = "installed" if missing is None else "not installed"
        findings.append(CheckResult(f"local:{model}", missing is None, told, missing.hint if missing else None))
    return findings


def _players(env: AppContext) -> CheckResult:
    from .. import player

    found = player.find(env.variables)
    names = ", ".join(one.program for one in player.PLAYERS)
    return CheckResult("player", bool(found), ", ".join(one.program for one in found) or "none", f"install one of {names}")


def _folder(what: str, folder: Path) -> CheckResult:
    """Tell whether a folder can be written, or made."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    is_well = there.is_dir() and os.access(there, os.W_OK)
    told = "writable" if is_well else f"{there} cannot be written"
    return CheckResult(f"{what} {folder}", is_well, told, "make it writable, or set another one (see the README)")


def _ledger(env: AppContext) -> CheckResult:
    from ..ledger.reports import report

    try:
        count = sum(row.requests for row in report(env.ledger, since=None, until=None, by=[]))
    except AudiocliError as error:
        return CheckResult(f"ledger {env.ledger_path}", False, error.message, error.hint)
    return CheckResult(f"ledger {env.ledger_path}", True, f"{count} requests")


def _caps(env: AppContext) -> list[CheckResult]:
    """Tell what is left of each cap; one that is spent stops everything."""
    from ..amounts import usd
    from ..ledger.budget import resolve_limits

    findings = []
    for cap in resolve_limits(env.settings.budget, max_cost_nanousd=None, run="", now=env.now()):
        told, is_well = f"{usd(cap.limit_nanousd)} for each", True
        if cap.since_ms is not None:
            try:
                left = cap.limit_nanousd - env.ledger.spent(cap)
            except AudiocliError as error:
                findings.append(CheckResult(f"cap of a {cap.name}", False, error.message, error.hint))
                continue
            told, is_well = f"{usd(max(left, 0))} of {usd(cap.limit_nanousd)} left", left > 0
        mend = f"wait for the next {cap.name}, or raise it: audiocli budget set --{cap.name} USD"
        findings.append(CheckResult(f"cap of a {cap.name}", is_well, told, mend))
    return findings
