"""What follows a failed attempt. The table is in docs/house.md, "Attempts"; `after` is that table."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from ..errors import Again, AttemptError, Fault, GatewayError
from ..types.values import Outcome

SENDS_IN_ALL = 3
WAITING_IN_ALL_S = 120.0
BACKOFF_S = 0.5
BACKOFF_CAP_S = 8.0


class Policy(NamedTuple):
    """What the user allows. `several_models`: more than one was listed, so another may serve after a loss."""

    retry_unknown: bool = False
    several_models: bool = False


class SendAgain(NamedTuple):
    wait_s: float


class Instead(Enum):
    """What is done when nothing is sent again over this route."""

    NEXT_ROUTE = "next route"
    STOP = "stop"


def after(
    error: AttemptError,
    *,
    same_kind: int,
    waited_s: float,
    is_last: bool,
    can_restart: bool,
    policy: Policy,
    random: Callable[[], float],
) -> SendAgain | Instead:
    """Decide what follows a failed attempt.

    `same_kind` counts the failures of this kind on this route, this one included; `waited_s` all waiting so far.
    """
    if not can_restart:
        return Instead.STOP
    backoff_s = random() * min(BACKOFF_CAP_S, BACKOFF_S * 2 ** (same_kind - 1))
    match error.again:
        case Again.FEW_TIMES if error.outcome is Outcome.UNSENT and not is_last:
            return Instead.NEXT_ROUTE
        case Again.FEW_TIMES:
            return SendAgain(backoff_s) if same_kind < SENDS_IN_ALL else Instead.NEXT_ROUTE
        case Again.AFTER_WAIT:
            named_s = error.wait_s if isinstance(error, GatewayError) else None
            # A named wait is believed once; a gateway that keeps naming nothing would be asked for ever.
            wait_s = backoff_s if named_s is None else named_s if same_kind == 1 else max(named_s, backoff_s)
            return SendAgain(wait_s) if waited_s + wait_s <= WAITING_IN_ALL_S else Instead.NEXT_ROUTE
        case Again.IF_ALLOWED:
            if policy.retry_unknown and same_kind < SENDS_IN_ALL:
                return SendAgain(backoff_s)
            return Instead.NEXT_ROUTE if policy.several_models else Instead.STOP
        case Again.NEVER:
            return Instead.STOP if error.fault is Fault.REQUEST else Instead.NEXT_ROUTE
