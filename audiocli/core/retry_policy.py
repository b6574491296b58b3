"""Retry policy: what follows a failed attempt.

`decide_retry` implements the table in docs/architecture.md, "Attempts".
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from ..errors import AttemptError, FaultDomain, GatewayError, Retryability
from ..types.ledger import Outcome

MAX_SENDS = 3
# Sends to a route that asks for a delay, and waits for it while another route is ready.
MAX_DELAYED_SENDS = 8
MAX_WAITS_BEFORE_FALLBACK = 2
MAX_TOTAL_DELAY_S = 120.0
BACKOFF_BASE_S = 0.5
MAX_BACKOFF_S = 8.0


class RetryPolicy(NamedTuple):
    """What the user allows.

    Attributes:
        retry_unknown: Send again a request that may have been billed.
        has_multiple_models: The user listed more than one model, so another may serve after an interrupted response.
    """

    retry_unknown: bool = False
    has_multiple_models: bool = False


class Retry(NamedTuple):
    """Send the request again over the same route after `wait_s` seconds."""

    wait_s: float


class GiveUp(Enum):
    """Send nothing more over this route."""

    NEXT_ROUTE = "next route"
    STOP = "stop"


def decide_retry(
    error: AttemptError,
    *,
    same_kind_failures: int,
    waited_s: float,
    is_last: bool,
    can_restart: bool,
    policy: RetryPolicy,
    random: Callable[[], float],
) -> Retry | GiveUp:
    """Decide what follows a failed attempt.

    Args:
        error: The failure of the attempt.
        same_kind_failures: Failures of this retryability on this route so far, including this one.
        waited_s: Total delay so far, over all routes.
        is_last: Whether no other route follows.
        can_restart: Whether the output can still start over.
        policy: What the user allows.
        random: Source of jitter, uniform in [0, 1).
    """
    if not can_restart:
        return GiveUp.STOP
    backoff_s = random() * min(MAX_BACKOFF_S, BACKOFF_BASE_S * 2 ** (same_kind_failures - 1))
    match error.retryability:
        case Retryability.LIMITED if error.outcome is Outcome.UNSENT and not is_last:
            return GiveUp.NEXT_ROUTE
        case Retryability.LIMITED:
            return Retry(backoff_s) if same_kind_failures < MAX_SENDS else GiveUp.NEXT_ROUTE
        case Retryability.AFTER_DELAY:
            requested_s = error.wait_s if isinstance(error, GatewayError) else None
            # Trust Retry-After the first time only: a gateway that always sends 0 would be retried without a pause.
            if requested_s is None:
                wait_s = backoff_s
            else:
                wait_s = requested_s if same_kind_failures == 1 else max(requested_s, backoff_s)
            max_failures = MAX_DELAYED_SENDS - 1 if is_last else MAX_WAITS_BEFORE_FALLBACK
            may_wait = same_kind_failures <= max_failures and waited_s + wait_s <= MAX_TOTAL_DELAY_S
            return Retry(wait_s) if may_wait else GiveUp.NEXT_ROUTE
        case Retryability.IF_USER_ALLOWS:
            if policy.retry_unknown and same_kind_failures < MAX_SENDS:
                return Retry(backoff_s)
            return GiveUp.NEXT_ROUTE if policy.has_multiple_models else GiveUp.STOP
        case Retryability.NEVER:
            return GiveUp.STOP if error.fault is FaultDomain.REQUEST else GiveUp.NEXT_ROUTE
