"""Every way in which audiocli fails, with its exit code.

    AudiocliError                          exit
    ├── UsageError                            2   what was typed cannot be done
    ├── AccessError                           4   no key, a refused key, an engine that is not installed
    ├── MoneyError                            5   a cap, no credit, a ledger that cannot be written
    │   ├── LedgerBusy                        5   for the moment
    │   ├── LedgerDamaged                     5   the file is broken
    │   ├── LedgerUnwritable                  5   read-only, a full disk, no permission
    │   └── CapReached                        5   the user's own
    ├── RecordingError                        8   the recording cannot be read, or has no sound
    ├── OutputError                          10   the output cannot be written or played
    ├── AttemptError                              one request to one route failed; says what may be done about it
    │   ├── GatewayError                    4-7   the gateway answered with an error
    │   ├── NeverSent                         7   no connection, so nothing can have been billed
    │   ├── Lost                              7   sent, then silence or a cut: it may have been billed
    │   └── BadAnswer                         9   the gateway said yes and sent something unusable
    ├── RoutesExhausted                    of its attempts   several routes were tried and none served
    └── ReaderGone                            0   whoever read our output has seen enough

The exit codes are a promise to scripts and never change. A message says what happened and to what, in lower case;
the hint says what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING

from .types.outcomes import Outcome

if TYPE_CHECKING:
    from .types.values import SkippedRoute


class ExitCode:
    """The exit codes of every command."""

    DONE = 0
    BUG = 1
    USAGE = 2
    PARTLY_DONE = 3
    ACCESS = 4
    MONEY = 5
    GATEWAY = 6
    NETWORK = 7
    RECORDING = 8
    BAD_ANSWER = 9
    OUTPUT = 10
    INTERRUPTED = 130


class AudiocliError(Exception):
    """The root: a failure that is explained to the user in one line, without a traceback."""

    exit_code = ExitCode.BUG
    code = "error"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(AudiocliError):
    exit_code = ExitCode.USAGE
    code = "usage"


class AccessError(AudiocliError):
    exit_code = ExitCode.ACCESS
    code = "access"


class MoneyError(AudiocliError):
    exit_code = ExitCode.MONEY
    code = "money"


class LedgerBusy(MoneyError):
    """Another process is writing the ledger; a moment later it will be free."""

    code = "ledger_busy"


class LedgerDamaged(MoneyError):
    """The file is broken: what it holds cannot be trusted."""

    code = "ledger_damaged"


class LedgerUnwritable(MoneyError):
    """The disk is full or read-only, or the file is not ours to write."""

    code = "ledger_unwritable"


class LimitReached(MoneyError):
    """A cap of the user's own; no other route is tried."""

    code = "cap_reached"


class RecordingError(AudiocliError):
    exit_code = ExitCode.RECORDING
    code = "recording"


class OutputError(AudiocliError):
    """`kept` names the file in the cache that holds what was paid for."""

    exit_code = ExitCode.OUTPUT
    code = "output"

    def __init__(self, message: str, *, hint: str | None = None, kept: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.kept = kept


class Retryability(Enum):
    """May the same request be sent to the same route once more, by itself?"""

    NEVER = "never"
    AFTER_WAIT = "after a wait"
    FEW_TIMES = "a few times"
    IF_ALLOWED = "only if the user accepts to pay twice"


class FaultDomain(Enum):
    """Whose fault it is decides whether another route is worth a try."""

    REQUEST = "request"
    ROUTE = "route"


class AttemptError(AudiocliError):
    """One request to one route failed. Carries the facts from which `work.attempts` decides what comes next."""

    again = Retryability.NEVER
    fault = FaultDomain.ROUTE
    outcome = Outcome.FAILED

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.request_id = request_id


class GatewayError(AttemptError):
    """The gateway answered with an error; everything about it depends on the status and the body."""

    exit_code = ExitCode.GATEWAY
    code = "gateway"

    def __init__(
        self,
        message: str,
        *,
        exit_code: int = ExitCode.GATEWAY,
        code: str = "gateway",
        again: Retryability = Retryability.NEVER,
        fault: FaultDomain = FaultDomain.ROUTE,
        outcome: Outcome = Outcome.REFUSED,
        wait_s: float | None = None,
        hint: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint, status=status, request_id=request_id)
        self.exit_code = exit_code
        self.code = code
        self.again = again
        self.fault = fault
        self.outcome = outcome
        self.wait_s = wait_s


class ConnectionFailed(AttemptError):
    exit_code = ExitCode.NETWORK
    code = "unreachable"
    again = Retryability.FEW_TIMES
    outcome = Outcome.UNSENT


MAY_BE_BILLED = "it may have been billed, so it is not sent again; --retry-unknown allows that"


class ResponseInterrupted(AttemptError):
    """Sent, and then nothing or not all came back."""

    exit_code = ExitCode.NETWORK
    code = "cut_off"
    again = Retryability.IF_ALLOWED
    outcome = Outcome.UNKNOWN


class InvalidResponse(AttemptError):
    exit_code = ExitCode.BAD_ANSWER
    code = "bad_answer"
    again = Retryability.IF_ALLOWED
    outcome = Outcome.FAILED


class RoutesExhausted(AudiocliError):
    """No route served. The exit code is that of the routes if they agree, else 6."""

    code = "routes_exhausted"

    def __init__(
        self,
        message: str,
        *,
        exit_code: int,
        routes: Sequence[SkippedRoute],
        hint: str | None = None,
        request_ids: Sequence[str] = (),
        may_be_billed: bool = False,
    ) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code
        self.may_be_billed = may_be_billed
        self.routes = tuple(routes)
        self.request_ids = tuple(request_ids)


class OutputClosed(AudiocliError):
    """The other end of our pipe was closed: `audiocli … | head -c 100` is a success, told to nobody."""

    exit_code = ExitCode.DONE
    code = "reader_gone"

    def __init__(self) -> None:
        super().__init__("the reader of our output went away")
