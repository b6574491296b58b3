"""`audiocli cache`: show what is stored, where, and what it cost, and remove it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ..context import AppContext
from ..errors import UsageError
from .options import GeneralOptions, open_app, with_options

if TYPE_CHECKING:
    from ..console import Console
    from ..storage.inventory import Store, StoreUsage
    from ..types.json import Json


class ClearOptions(NamedTuple):
    """Options of `audiocli cache clear`."""

    paid: Annotated[
        bool, typer.Option("--paid", help="Also remove paid results: speech, transcripts and unfinished work.")
    ] = False
    assume_yes: Annotated[bool, typer.Option("--yes", "-y", help="Skip the confirmation of --paid.")] = False
    general: GeneralOptions = GeneralOptions()


def build() -> typer.Typer:
    """Build the command group."""
    group = typer.Typer(help="Show and remove stored results and cached responses.", rich_markup_mode=None)
    group.callback(invoke_without_command=True)(cache)
    group.command("show")(show)
    group.command("clear")(clear)
    group.command("path")(path)
    return group


@with_options
def cache(ctx: typer.Context, options: GeneralOptions) -> None:
    """Show and remove stored results and cached responses."""
    if ctx.invoked_subcommand is None:
        _show(*open_app(ctx, options), as_json=options.as_json)
    elif options.as_json:
        raise UsageError(f"put options after the subcommand: audiocli cache {ctx.invoked_subcommand} --json")


@with_options
def show(ctx: typer.Context, options: GeneralOptions) -> None:
    """Show what is stored: files, size, age, and what it cost."""
    _show(*open_app(ctx, options), as_json=options.as_json)


@with_options
def clear(ctx: typer.Context, options: ClearOptions) -> None:
    """Remove cached data that is free to fetch again, and with --paid also paid results."""
    app, console = open_app(ctx, options.general, quiet_json=True)
    run_clear(app, console, options)


@with_options
def path(ctx: typer.Context, options: GeneralOptions) -> None:
    """Print the cache directory and the directory of paid results."""
    app, console = open_app(ctx, options)
    paths = {"path": str(app.cache_directory), "paid_path": str(app.records_directory)}
    if options.as_json:
        console.write_json({"ok": True, "command": "cache path", **paths})
    else:
        console.write_text("".join(f"{directory}\n" for directory in paths.values()))


def _list_stores(app: AppContext) -> tuple[Store, ...]:
    from ..storage.inventory import list_stores

    return list_stores(app.records_directory, app.cache_directory)


def _show(app: AppContext, console: Console, *, as_json: bool) -> None:
    from ..console import format_size
    from ..storage.inventory import measure_store

    usages = {store: measure_store(store) for store in _list_stores(app)}
    if as_json:
        console.write_json({"ok": True, "command": "cache", **_build_document(usages)})
        return
    rows = [
        [
            store.name,
            store.content,
            str(usage.file_count),
            format_size(usage.size_bytes),
            "-" if usage.oldest_s is None else _format_time(usage.oldest_s)[:10],
            _format_paid(usage) if store.is_paid else "free",
        ]
        for store, usage in usages.items()
    ]
    header = ["store", "content", "files", "size", "oldest", "paid"]
    console.write_table(header, rows, numeric=[False, False, True, True, False, True])


def run_clear(app: AppContext, console: Console, options: ClearOptions) -> None:
    """Remove the files of every store that the options include, and report them.

    Raises:
        UsageError: The user declined, or there is no terminal to ask on.
    """
    from ..console import format_size
    from ..storage.inventory import clear_store, measure_store

    stores = [store for store in _list_stores(app) if store.is_removable and (options.paid or not store.is_paid)]
    if options.paid and not options.assume_yes:
        _confirm(app, {store: measure_store(store) for store in stores if store.is_paid})
    removed = {store: clear_store(store) for store in stores}
    if options.general.as_json:
        console.write_json({"ok": True, "command": "cache clear", **_build_document(removed)})
        return
    for store, usage in removed.items():
        if usage.file_count:
            paid = f", {_format_paid(usage)}" if store.is_paid else ""
            files = "1 file" if usage.file_count == 1 else f"{usage.file_count} files"
            console.info(f"removed {store.name}: {files}, {format_size(usage.size_bytes)}{paid}")
    total = _add_up(list(removed.values()))
    paid = f", {_format_paid(total)}" if options.paid else ""
    console.info(f"removed {format_size(total.size_bytes)}{paid}" if total.file_count else "nothing to remove")


def _confirm(app: AppContext, usages: Mapping[Store, StoreUsage]) -> None:
    """Ask whether paid results are to be removed. Raises: UsageError: They are not, or there is no terminal."""
    from ..console import format_size
    from .prompts import confirm

    total = _add_up(list(usages.values()))
    if not total.file_count:
        return
    if not (app.stdin.isatty() and app.stderr.isatty()):
        raise UsageError(
            "removing paid results requires confirmation, but there is no terminal",
            hint="use --yes to skip the confirmation",
        )
    names = ", ".join(f"{store.name} ({store.content})" for store, usage in usages.items() if usage.file_count)
    question = f"Remove {names}: {format_size(total.size_bytes)}, {_format_paid(total)}?"
    if not confirm(app, question, default=False):
        raise UsageError("not confirmed; nothing was removed")


def _build_document(usages: Mapping[Store, StoreUsage]) -> dict[str, Json]:
    total = _add_up(list(usages.values()))
    return {
        "stores": [
            {
                "store": store.name,
                "content": store.content,
                "is_paid": store.is_paid,
                "paths": list(dict.fromkeys(str(part.directory) for part in store.parts)),
                **_build_usage_document(usage),
            }
            for store, usage in usages.items()
        ],
        "total": _build_usage_document(total),
    }


def _build_usage_document(usage: StoreUsage) -> dict[str, Json]:
    from ..costs import sum_costs, to_usd

    known_nanousd, source = sum_costs(usage.costs)
    return {
        "files": usage.file_count,
        "bytes": usage.size_bytes,
        "oldest": None if usage.oldest_s is None else _format_time(usage.oldest_s),
        "cost_usd": None if usage.unknown_count else to_usd(known_nanousd),
        "cost_source": "unknown" if usage.unknown_count else str(source),
        "known_cost_usd": to_usd(known_nanousd),
        "unknown_costs": usage.unknown_count,
    }


def _add_up(usages: Sequence[StoreUsage]) -> StoreUsage:
    from ..storage.inventory import StoreUsage

    return StoreUsage(
        sum(usage.file_count for usage in usages),
        sum(usage.size_bytes for usage in usages),
        min((usage.oldest_s for usage in usages if usage.oldest_s is not None), default=None),
        tuple(cost for usage in usages for cost in usage.costs),
        sum(usage.unknown_count for usage in usages),
    )


def _format_paid(usage: StoreUsage) -> str:
    """Format what the results of a store cost: the known sum, and how many have an unknown cost."""
    from ..costs import format_cost, sum_costs

    known = f"paid {format_cost(*sum_costs(usage.costs))}" if usage.costs else ""
    unknown = f"unknown for {usage.unknown_count}" if usage.unknown_count else ""
    return ", ".join(filter(None, (known, unknown))) or "-"


def _format_time(at_s: float) -> str:
    from datetime import datetime

    try:
        return datetime.fromtimestamp(at_s).astimezone().isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return "-"
