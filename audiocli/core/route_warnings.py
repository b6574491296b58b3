"""Warnings about the route that serves a request, each printed once."""

from __future__ import annotations

from collections.abc import Sequence

from ..types.routes import Route
from .attempts import AttemptRecord
from .run_context import RunContext


class RouteWarnings:
    """Warnings of each route. They are printed when a route is prepared, and not again when it is prepared again."""

    def __init__(self, ctx: RunContext) -> None:
        self._ctx = ctx
        self._warnings: dict[str, tuple[str, ...]] = {}
        self._printed: set[str] = set()

    def emit(self, route: Route, warnings: Sequence[str]) -> None:
        """Store the notes and warnings of a route, and print those that are new."""
        self._warnings[route.ref] = (*route.notes, *warnings)
        for warning in self._warnings[route.ref]:
            if warning not in self._printed:
                self._printed.add(warning)
                self._ctx.info(f"warning: {warning}")

    def get(self, route: Route) -> tuple[str, ...]:
        """Return the warnings of a route."""
        return self._warnings.get(route.ref, ())


def check_model_substitution(route: Route, record: AttemptRecord) -> tuple[str, ...]:
    """Return a warning if the gateway served a successful response with another model than the requested one."""
    served = record.served_model
    if not served.is_substituted:
        return ()
    provider = f" at {served.provider}" if served.provider else ""
    warning = (
        f"{route.gateway} served the request with {served.model or 'another model'}{provider} instead of {route.model}"
    )
    if route.voice:
        warning += f"; the voice may differ from {route.voice}"
    return (warning,)


def deduplicate_messages(ctx: RunContext) -> RunContext:
    """Return a context that prints each message once, for operations that send many chunks."""
    printed: set[str] = set()

    def print_once(message: str) -> None:
        if message not in printed:
            printed.add(message)
            ctx.info(message)

    return ctx._replace(info=print_once)
