"""What users should know of the route that served: warnings told once, and what a gateway did otherwise than asked."""

from __future__ import annotations

from collections.abc import Sequence

from ..types.values import Route, Usage
from .attempts import AttemptRecord
from .run_context import RunContext


class RouteWarnings:
    """The warnings of each route, told when it is taken and not again when it is taken anew."""

    def __init__(self, tools: RunContext) -> None:
        self._tools = tools
        self._warnings: dict[str, tuple[str, ...]] = {}
        self._told: set[str] = set()

    def tell(self, route: Route, warnings: Sequence[str]) -> None:
        self._warnings[route.ref] = (*route.notes, *warnings)
        for warning in self._warnings[route.ref]:
            if warning not in self._told:
                self._told.add(warning)
                self._tools.info(f"warning: {warning}")

    def of(self, route: Route) -> tuple[str, ...]:
        return self._warnings.get(route.ref, ())


def heed_swap(route: Route, told: AttemptRecord) -> tuple[str, ...]:
    """Warn when a gateway put another model in the place of the one that was asked, behind a 200."""
    service = told.service
    if not service.swapped:
        return ()
    by = f" at {service.provider}" if service.provider else ""
    warning = f"{route.gateway} served this with {service.model or 'another model'}{by}, not with {route.model}"
    if route.voice:
        warning += f": the voice may not be {route.voice}"
    return (warning,)


def together(headers: Usage, body: Usage) -> Usage:
    """Prefer what the body tells about its cost to what the headers tell."""
    return body._replace(
        cost_nanousd=headers.cost_nanousd if body.cost_nanousd is None else body.cost_nanousd,
        upstream_nanousd=headers.upstream_nanousd if body.upstream_nanousd is None else body.upstream_nanousd,
        nonsense=None if body.cost_nanousd is not None else body.nonsense or headers.nonsense,
    )


def told_once(tools: RunContext) -> RunContext:
    """Tell what every piece of something long would tell only once."""
    told: set[str] = set()

    def tell(message: str) -> None:
        if message not in told:
            told.add(message)
            tools.info(message)

    return tools._replace(info=tell)
