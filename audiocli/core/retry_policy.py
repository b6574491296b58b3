"""What follows a failed attempt. The table is in docs/house.md, "Attempts"; `after` is that table."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from ..errors import Retryability, AttemptError, FaultDomain, GatewayError
from ..types.values import Outcome

SENDS_IN_ALL = 3
WAITING_IN_ALL_S = 120.0
BACKOFF_S = 0.5
BACKOFF_CAP_S = 8.0


class RetryPolicy(NamedTuple):
    """What the user allows. `several_models`: more than one was listed, so another may serve after a loss."""

    retry_unknown: bool = False
    several_models: bool = False


class Retry(NamedTuple):
    wait_s: float


class GiveUp(Enum):
    """What is done when nothing is sent again over this route."""

    NEXT_ROUTE = "next route"
    STOP = "stop"


def decide(
    error: AttemptError,
    *,
    same_kind: int,
    waited_s: float,
    is_last: bool,
    can_restart: bool,
    policy: RetryPolicy,
    random: Callable[[], float],
) -> Retry | GiveUp:
    """Decide what follows a failed attempt.

    `same_kind` counts the failures of this kind on this route, this one included; `waited_s` all waiting so far.
    """
    if not can_restart:
        return GiveUp.STOP
    backoff_s = random() * min(BACKOFF_CAP_S, BACKOFF_S * 2 ** (same_kind - 1))
    match error.again:
        case Retryability.FEW_TIMES if error.outcome is Outcome.UNSENT and not is_last:
            return GiveUp.NEXT_ROUTE
        case Retryability.FEW_TIMES:
            return Retry(backoff_s) if same_kind < SENDS_IN_ALL else GiveUp.NEXT_ROUTE
        case Retryability.AFTER_WAIT:
            named_s = error.wait_s if isinstance(error, GatewayError) else None
            # A named wait is believed once; a gateway that keeps naming nothing would be asked for ever.
            wait_s = backoff_s if named_s is None else named_s if same_kind == 1 else max(named_s, backoff_s)
            return Retry(wait_s) if waited_s + wait_s <= WAITING_IN_ALL_S else GiveUp.NEXT_ROUTE
        case Retryability.IF_ALLOWED:
            if policy.retry_unknown and same_kind < SENDS_IN_ALL:
                return Retry(backoff_s)
            return GiveUp.NEXT_ROUTE if policy.several_models else GiveUp.STOP
        case Retryability.NEVER:
            return GiveUp.STOP if error.fault is FaultDomain.REQUEST else GiveUp.NEXT_ROUTE
