"""`audiocli keys`: store, list and remove API keys in the keys file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ..context import AppContext, ColorMode
from ..errors import AccessError, UsageError
from .inputs import read_text
from .options import Color, ExchangeOptions, GeneralOptions, open_app, with_options
from .prompts import ask_secret

if TYPE_CHECKING:
    from ..console import Console
    from ..core.key_check import KeyCheck
    from ..routing import GatewayConfig
    from ..types.json import Json

CHECK_TIMEOUT_S = 10.0

Gateway = Annotated[str, typer.Argument(metavar="GATEWAY", help="Gateway of the key.")]


class SetOptions(NamedTuple):
    """Options of `audiocli keys set`."""

    gateway: Gateway
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Ask the gateway whether the key is valid, or only store it.")
    ] = True
    exchanges: ExchangeOptions = ExchangeOptions()
    general: GeneralOptions = GeneralOptions()


class RemoveOptions(NamedTuple):
    """Options of `audiocli keys remove`."""

    gateway: Gateway
    general: GeneralOptions = GeneralOptions()


def build() -> typer.Typer:
    """Build the command group."""
    group = typer.Typer(help="Manage API keys in a private file.", rich_markup_mode=None, no_args_is_help=True)
    group.callback()(keys)
    group.command("set")(set_key)
    group.command("list")(list_keys)
    group.command("remove")(remove)
    return group


def keys(color: Color = ColorMode.AUTO) -> None:
    """Manage API keys in a private file."""


@with_options
def set_key(ctx: typer.Context, options: SetOptions) -> None:
    """Verify a key and store it. It is read from a hidden prompt or from stdin."""
    app, console = open_app(ctx, options.general, quiet_json=True, exchanges=options.exchanges)
    name = options.gateway
    gateway = _find_gateway(app, name)
    key = ask_secret(f"key for {name}") if app.stdin.isatty() else read_text(app, (), "-", wait_for_end=True)[0].strip()
    key = parse_key(console, key)
    result = store_key(app, console, gateway, key, verify=options.verify)
    _report_stored_key(app, console, name, result, as_json=options.general.as_json)


def parse_key(console: Console, text: str) -> str:
    """Return the API key in a text, without the prefix `Bearer`. Raises: UsageError: It is not a key."""
    from .. import credentials

    key, has_prefix = credentials.remove_bearer(text.strip())
    if has_prefix:
        console.info("the prefix 'Bearer' is not part of the key and was removed")
    if not key or any(not character.isprintable() or character.isspace() for character in key):
        raise UsageError("invalid API key: it must not be empty or contain whitespace or control characters")
    return key


def store_key(app: AppContext, console: Console, gateway: GatewayConfig, key: str, *, verify: bool) -> KeyCheck | None:
    """Verify a key, if requested, and store it. Return the result of the check.

    A replay does not store it.

    Raises:
        UsageError: The directory of the config file cannot be used.
        AccessError: The gateway refuses the key, or the keys file cannot be used.
        OutputError: The keys file cannot be written.
    """
    from .. import credentials

    require_config_file(app)
    stored_keys = credentials.read(app.keys_path)
    result = _verify_key(app, console, gateway._replace(key=key)) if verify else None
    if not app.is_replaying:
        credentials.write(app.keys_path, {**stored_keys, gateway.name: key})
    if gateway.key_source is not None and gateway.key_source in app.variables:
        console.warning(
            f"{gateway.key_source} is set and is used instead of the stored key; unset it to use the stored key"
        )
    if result is not None:
        warn_unless_verified(console, gateway.name, result)
    return result


def warn_unless_verified(console: Console, name: str, result: KeyCheck) -> None:
    """Warn that a gateway could not say whether its key is valid."""
    from ..core.key_check import KeyStatus

    if result.status is KeyStatus.NOT_VERIFIED:
        console.warning(f"the key for {name} was not verified: {result.detail}")


def describe_stored_key(name: str, result: KeyCheck | None) -> str:
    """Describe whether the gateway accepts a stored key, with its credit."""
    from ..core.key_check import KeyStatus

    if result is None or result.status is not KeyStatus.ACCEPTED:
        return "not verified"
    return f"{name} accepts it{format_credit(result)}"


def request_key_check(app: AppContext, console: Console, gateway: GatewayConfig) -> KeyCheck:
    """Ask the gateway whether its key is valid. Raises: AudiocliError: The gateway cannot be used."""
    from ..core.key_check import check_key
    from ..routing import build_gateway_route

    if gateway.traits_error is not None:
        raise gateway.traits_error
    route = build_gateway_route(gateway)
    return app.run(
        lambda ctx: check_key(route, ctx), read_timeout_s=CHECK_TIMEOUT_S, info=console.info, debug=console.debug
    )


def _verify_key(app: AppContext, console: Console, gateway: GatewayConfig) -> KeyCheck:
    """Ask the gateway whether its new key is valid. Raises: AccessError: It is not."""
    from ..core.key_check import KeyStatus

    result = request_key_check(app, console, gateway)
    if result.status is KeyStatus.REFUSED:
        raise AccessError(
            f"{gateway.name} refused the key, which was not stored: {result.detail}",
            hint="check that the key belongs to this gateway and is still valid, or store it with --no-verify",
        )
    return result


def _report_stored_key(app: AppContext, console: Console, name: str, result: KeyCheck | None, *, as_json: bool) -> None:
    """Report where a key was stored and, if it was checked, whether the gateway accepts it."""
    from ..core.key_check import KeyStatus

    if as_json:
        is_verified = result is not None and result.status is KeyStatus.ACCEPTED
        document: dict[str, Json] = {"ok": True, "command": "keys", "gateway": name, "path": str(app.keys_path)}
        credit = build_credit_document(result)
        console.write_json({**document, "verified": is_verified, **credit, "warnings": []})
    else:
        done = (
            f"a replay does not store the key for {name}"
            if app.is_replaying
            else f"stored the key for {name} in {app.keys_path}"
        )
        console.result(f"{done}; {describe_stored_key(name, result)}")


def build_credit_document(result: KeyCheck | None) -> dict[str, Json]:
    """Return the JSON keys with the credit of a key. Amounts that are not reported are null."""
    from ..costs import to_usd

    info = result.info if result is not None else None
    return {
        "credit_usd": to_usd(info.remaining_nanousd) if info is not None else None,
        "used_usd": to_usd(info.used_nanousd) if info is not None else None,
    }


def format_credit(result: KeyCheck) -> str:
    """Format the credit of a key as the end of a sentence; "" if it is not reported."""
    from ..costs import Rounding, format_exact_usd, format_usd

    info = result.info
    if info is None:
        return ""
    if info.remaining_nanousd is not None:
        limit = f" of {format_exact_usd(info.limit_nanousd)}" if info.limit_nanousd is not None else ""
        return f", {format_usd(info.remaining_nanousd, Rounding.DOWN)}{limit} left"
    used = f", {format_usd(info.used_nanousd)} used" if info.used_nanousd is not None else ""
    return used + (", no limit for this key" if info.is_unlimited else "")


@with_options
def list_keys(ctx: typer.Context, options: GeneralOptions) -> None:
    """List the source of each gateway's key, never the key."""
    app, console = open_app(ctx, options)
    if app.settings.keys_error is not None:
        raise app.settings.keys_error
    rows = [(config.name, config.key_source) for config in app.settings.gateways if config.requires_key or config.key]
    if options.as_json:
        for name, source in rows:
            console.write_json_line({"gateway": name, "source": source})
    else:
        console.write_table(
            ["gateway", "key"], [[name, source or "none"] for name, source in rows], numeric=[False] * 2
        )


@with_options
def remove(ctx: typer.Context, options: RemoveOptions) -> None:
    """Remove a stored key."""
    from .. import credentials

    app, console = open_app(ctx, options.general, quiet_json=True)
    name = options.gateway
    require_config_file(app)
    keys = credentials.read(app.keys_path)
    if name not in keys:
        raise UsageError(f"no key for {name} in {app.keys_path}")
    credentials.write(app.keys_path, {other: key for other, key in keys.items() if other != name})
    if options.general.as_json:
        console.write_json({"ok": True, "command": "keys", "gateway": name, "path": str(app.keys_path)})
    else:
        console.result(f"removed the key for {name}")


def require_config_file(app: AppContext) -> None:
    """Check that the config file is a regular file, because the keys file is written to its directory.

    Raises:
        UsageError: It is something else, such as /dev/null.
    """
    from ..private_files import require_regular_file

    try:
        require_regular_file(app.config_path)
    except OSError as error:
        raise UsageError(
            f"cannot store keys next to {app.config_path}: {error.strerror}", hint="check AUDIOCLI_CONFIG"
        ) from error


def _find_gateway(app: AppContext, name: str) -> GatewayConfig:
    """Return a gateway that may have a key. Raises: UsageError: There is none of that name."""
    gateways = {config.name: config for config in app.settings.gateways if config.dialect != "local"}
    if name not in gateways:
        from ..routing import build_unknown_gateway_error

        raise build_unknown_gateway_error(name, gateways)
    return gateways[name]
