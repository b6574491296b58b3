"""Check an API key with a free request that only a valid key can answer."""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from .. import gateways
from ..errors import AccessError, AttemptError, AudiocliError, ExitCode, InvalidResponse
from ..gateways.base import Dialect
from ..types.requests import HttpRequest
from ..types.results import KeyInfo
from ..types.routes import Route
from .catalog import MAX_LIST_BYTES
from .response_body import open_response, read_body
from .run_context import RunContext

# Responses of servers that do not have the endpoint.
MISSING_ENDPOINT_STATUSES = (404, 405, 501)
# A key that no gateway has issued. A server that accepts it does not check keys.
INVALID_KEY = "audiocli-invalid-key"

# OpenAI refuses requests of restricted keys with 401 or 403 and names the missing scope (microsoft/PowerToys#32989,
# read 2026-11). Such a key is valid and may have the permission to speak and transcribe.
_RESTRICTED_KEY_PATTERN = r"(?i)missing scopes?\b|insufficient permissions"
# Servers that refuse a key with another status than 401: Google's with 400.
_INVALID_KEY_PATTERN = (
    r"(?i)\b(api[ _-]?key|token|credentials?)\b.{0,40}\b(not valid|invalid|incorrect|expired|revoked)\b"
    r"|\b(invalid|incorrect|expired|revoked|wrong)\b.{0,20}\b(api[ _-]?key|token|credentials?)\b"
)


class KeyStatus(Enum):
    """Whether a gateway accepts an API key."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    NOT_VERIFIED = "not verified"


class KeyCheck(NamedTuple):
    """The result of a check. `detail` is the reason, unless the key was accepted. `info` is None if not reported."""

    status: KeyStatus
    detail: str | None = None
    info: KeyInfo | None = None


async def check_key(route: Route, ctx: RunContext) -> KeyCheck:
    """Check the API key of a route at its base URL. The model of the route is ignored.

    Asks for information about the key if the gateway has it, else for the model list. A list tells something only if
    the gateway refuses it to an invalid key.
    """
    dialect = gateways.load_dialect(route.dialect)
    query = dialect.build_key_query(route)
    if query is not None:
        error, body = await _send(query, route, dialect, ctx)
        if error is None:
            info = dialect.parse_key_info(body)
            if info is None:
                return KeyCheck(KeyStatus.NOT_VERIFIED, "the response does not describe a key")
            if info.is_management_key:
                return KeyCheck(KeyStatus.REFUSED, "this is a management key, which cannot be used for requests", info)
            return KeyCheck(KeyStatus.ACCEPTED, info=info)
        if not (isinstance(error, AttemptError) and error.status in MISSING_ENDPOINT_STATUSES):
            return _classify(error)
    return await _check_with_model_list(route, dialect, ctx)


async def _check_with_model_list(route: Route, dialect: Dialect, ctx: RunContext) -> KeyCheck:
    query = None if dialect.model_list_is_public else dialect.build_models_query(route)
    if query is None:
        return KeyCheck(KeyStatus.NOT_VERIFIED, "the gateway has no endpoint that checks a key")
    error, body = await _send(query, route, dialect, ctx)
    if error is not None:
        if isinstance(error, AttemptError) and error.status in MISSING_ENDPOINT_STATUSES:
            return KeyCheck(KeyStatus.NOT_VERIFIED, f"the gateway does not list its models ({error.status})")
        return _classify(error)
    if dialect.parse_models(body, route) is None:
        return KeyCheck(KeyStatus.NOT_VERIFIED, "the response is not a list of models")
    built_in = gateways.get_built_in(route.gateway)
    if built_in is not None and built_in.model_list_needs_key and gateways.is_default_server(route):
        return KeyCheck(KeyStatus.ACCEPTED)
    invalid_route = route._replace(key=INVALID_KEY)
    invalid_query = dialect.build_models_query(invalid_route)
    assert invalid_query is not None
    error, _ = await _send(invalid_query, invalid_route, dialect, ctx)
    if error is None:
        return KeyCheck(KeyStatus.NOT_VERIFIED, "the gateway accepts any key for its model list")
    if _classify(error).status is KeyStatus.REFUSED:
        return KeyCheck(KeyStatus.ACCEPTED)
    return KeyCheck(KeyStatus.NOT_VERIFIED, error.message)


async def _send(
    query: HttpRequest, route: Route, dialect: Dialect, ctx: RunContext
) -> tuple[AudiocliError | None, bytes]:
    """Send a query. Return its error, if it failed, and the body."""
    try:
        async with open_response(query, route, ctx) as response:
            body = await read_body(response.iter_bytes(), MAX_LIST_BYTES)
            if not 200 <= response.status < 300:
                raise dialect.parse_error(response.status, response.headers, body)
            if response.status == 204:
                raise InvalidResponse("204 without a body")
    except AudiocliError as error:
        return error, b""
    return None, body


def _classify(error: AudiocliError) -> KeyCheck:
    """Return what an error says about the key."""
    if isinstance(error, AccessError):  # the key has characters that cannot be sent
        return KeyCheck(KeyStatus.REFUSED, error.message)
    status = error.status if isinstance(error, AttemptError) else None
    if status in (401, 403) and re.search(_RESTRICTED_KEY_PATTERN, error.message):
        return KeyCheck(KeyStatus.ACCEPTED)
    names_invalid_key = re.search(_INVALID_KEY_PATTERN, error.message) is not None
    if error.code == "unauthorized" or (status in (400, 403) and names_invalid_key):
        return KeyCheck(KeyStatus.REFUSED, error.message)
    if error.exit_code == ExitCode.MONEY:  # only a known key has no credit
        return KeyCheck(KeyStatus.ACCEPTED)
    return KeyCheck(KeyStatus.NOT_VERIFIED, error.message)
