"""Exceptions of audiocli and their exit codes.

    AudiocliError                          exit
    ├── UsageError                            2   invalid options or arguments
    │   └── UnrecordedRequest                 2   a request that is not in the recording
    ├── AccessError                           4   no key, a refused key, an engine that is not installed
    ├── MoneyError                            5   no credit
    │   ├── LedgerBusy                        5   another process is writing the ledger
    │   ├── LedgerDamaged                     5   the ledger file is corrupt
    │   ├── LedgerUnwritable                  5   read-only, disk full, no permission
    │   └── LimitReached                      5   a spending limit of the user
    ├── ObjectDenied                          4   the credentials do not allow access to an object
    ├── StoreUnreachable                      7   an object store cannot be reached
    ├── DownloadFailed                        7   a recording cannot be downloaded
    ├── ClusterError                          7   the scheduler or the workers are not reachable
    ├── RecordingError                        8   the recording cannot be decoded or has no audio
    ├── DocumentError                         8   the document cannot be read or exceeds the safety limits
    ├── OutputError                          10   the output cannot be written or played
    ├── NoModelLeft                           6   every model of the gateway for the task has ended
    ├── AttemptError                              one request over one route failed
    │   ├── GatewayError                    4-7   the gateway returned an error
    │   ├── ConnectionFailed                  7   the request was not sent, so it cannot be billed
    │   ├── ResponseInterrupted               7   sent, but no complete response: it may be billed
    │   └── InvalidResponse                   9   a 2xx response with unusable content
    ├── RoutesExhausted                  varies   every route failed
    └── OutputClosed                          0   the reader of the output closed the pipe

Exit codes are stable. A message says what happened and to what, in lower case. The hint says what to do next.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum, IntEnum
from typing import TYPE_CHECKING

from .types.ledger import Outcome

if TYPE_CHECKING:
    from .types.routes import SkippedRoute


class ExitCode(IntEnum):
    """Exit codes of every command."""

    OK = 0
    BUG = 1
    USAGE = 2
    PARTIAL = 3
    ACCESS = 4
    MONEY = 5
    GATEWAY = 6
    NETWORK = 7
    RECORDING = 8
    INVALID_RESPONSE = 9
    OUTPUT = 10
    INTERRUPTED = 130


def suggest(name: str, known_names: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" with the known name that is most similar to a name; "" if none is similar."""
    import difflib

    # Without the hyphens of options, which would make every option similar.
    names_by_key = {known.lower().lstrip("-"): known for known in known_names}
    matches = difflib.get_close_matches(name.lower().lstrip("-"), names_by_key, n=1, cutoff=0.65)
    return f"; did you mean {names_by_key[matches[0]]!r}?" if matches else ""


class AudiocliError(Exception):
    """Base class of expected failures, which are reported in one line without a traceback.

    Attributes:
        exit_code: Exit code of the process.
        code: Stable identifier of the error in JSON (`error.code`).
        hint: What the user can do next.
    """

    exit_code: int = ExitCode.BUG
    code = "error"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        """Return how pickle restores the error: by its attributes, whatever the arguments of its class are."""
        return _restore_error, (type(self), self.args), self.__dict__


def _restore_error(kind: type[AudiocliError], arguments: tuple[object, ...]) -> AudiocliError:
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    return error


class UsageError(AudiocliError):
    """Options or arguments are invalid, contradictory, or cannot be satisfied."""

    exit_code = ExitCode.USAGE
    code = "usage"


class PrivacyUnsupported(UsageError):
    """A route cannot keep an option that protects privacy."""

    code = "privacy_unsupported"


class UnrecordedRequest(UsageError):
    """A recording that is replayed does not have a request."""

    code = "not_recorded"


class AccessError(AudiocliError):
    """A key is missing or refused, or a local engine is not installed."""

    exit_code = ExitCode.ACCESS
    code = "access"


class MoneyError(AudiocliError):
    """A spending limit, the credit or the ledger does not allow a request."""

    exit_code = ExitCode.MONEY
    code = "money"


class LedgerBusy(MoneyError):
    """Another process holds the write lock of the ledger. A later write may succeed."""

    code = "ledger_busy"


class LedgerDamaged(MoneyError):
    """The ledger file is corrupt, so its entries cannot be trusted."""

    code = "ledger_damaged"


class LedgerUnwritable(MoneyError):
    """The disk is full or read-only, or the user may not write the ledger file."""

    code = "ledger_unwritable"


class LimitReached(MoneyError):
    """A spending limit of the user would be exceeded. No other route is tried.

    `is_of_period`: the limit is that of a day, week or month, so more can be spent later.
    """

    code = "cap_reached"

    def __init__(self, message: str, *, hint: str | None = None, is_of_period: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.is_of_period = is_of_period


class ClusterError(AudiocliError):
    """The scheduler or the workers of a cluster cannot be reached, or were lost."""

    exit_code = ExitCode.NETWORK
    code = "cluster"


class RecordingError(AudiocliError):
    """A recording cannot be decoded or has no audio."""

    exit_code = ExitCode.RECORDING
    code = "recording"


class DownloadFailed(AudiocliError):
    """A recording cannot be downloaded from its URL. `can_retry`: the network or the server may work again soon."""

    exit_code = ExitCode.NETWORK
    code = "download"

    def __init__(self, message: str, *, hint: str | None = None, can_retry: bool = True) -> None:
        super().__init__(message, hint=hint)
        self.can_retry = can_retry


class ObjectDenied(AudiocliError):
    """The credentials do not allow access to an object. Others of the same store may be accessible."""

    exit_code = ExitCode.ACCESS
    code = "object_denied"


class StoreUnreachable(AudiocliError):
    """An object store cannot be reached. `is_throttled`: it answers, but only with errors."""

    exit_code = ExitCode.NETWORK
    code = "store_unreachable"

    def __init__(self, message: str, *, hint: str | None = None, is_throttled: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.is_throttled = is_throttled


class DocumentError(AudiocliError):
    """A document of a supported type is damaged, encrypted, or exceeds the safety limits."""

    exit_code = ExitCode.RECORDING
    code = "document"


class OutputError(AudiocliError):
    """The output cannot be written or played. `saved_path` is the file that holds the paid result."""

    exit_code = ExitCode.OUTPUT
    code = "output"

    def __init__(self, message: str, *, hint: str | None = None, saved_path: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.saved_path = saved_path


class NoModelLeft(AudiocliError):
    """Every model that a gateway had for a task has ended, and the user named no other one."""

    exit_code = ExitCode.GATEWAY
    code = "no_model_left"


class Retryability(Enum):
    """Whether the same request may be sent to the same route again automatically."""

    NEVER = "never"
    AFTER_DELAY = "after a delay"
    LIMITED = "a limited number of times"
    IF_USER_ALLOWS = "only if the user accepts a second charge"


class FaultDomain(Enum):
    """Cause of a failure. After a fault of the request, no other route is tried."""

    REQUEST = "request"
    ROUTE = "route"


class AttemptError(AudiocliError):
    """One request over one route failed.

    Attributes:
        retryability: Whether the request may be sent again over this route.
        fault: Whether another route may succeed.
        outcome: How the ledger records the attempt.
    """

    retryability = Retryability.NEVER
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
    """The gateway returned an error. Status and body decide its exit code, code and retryability.

    `wait_s` is the delay that the gateway asks for (Retry-After), in seconds.
    """

    exit_code: int = ExitCode.GATEWAY
    code = "gateway"

    def __init__(
        self,
        message: str,
        *,
        exit_code: int = ExitCode.GATEWAY,
        code: str = "gateway",
        retryability: Retryability = Retryability.NEVER,
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
        self.retryability = retryability
        self.fault = fault
        self.outcome = outcome
        self.wait_s = wait_s


class ConnectionFailed(AttemptError):
    """No connection was made, so the request was not sent and cannot be billed."""

    exit_code = ExitCode.NETWORK
    code = "unreachable"
    retryability = Retryability.LIMITED
    outcome = Outcome.UNSENT


MAY_BE_BILLED = "the request may have been billed, so it is not sent again; use --retry-unknown to allow it"


class ResponseInterrupted(AttemptError):
    """The request was sent, but the response is missing or incomplete."""

    exit_code = ExitCode.NETWORK
    code = "cut_off"
    retryability = Retryability.IF_USER_ALLOWS
    outcome = Outcome.UNKNOWN


class InvalidResponse(AttemptError):
    """The response is successful but unusable: empty, malformed, or not what was requested."""

    exit_code = ExitCode.INVALID_RESPONSE
    code = "bad_answer"
    retryability = Retryability.IF_USER_ALLOWS
    outcome = Outcome.FAILED


class RoutesExhausted(AudiocliError):
    """Every route failed. The exit code is that of the failures if they agree, else 6.

    `routes` has a reason for each route. `may_be_billed`: at least one failed request may have been billed.
    """

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
    """The reader of the output closed the pipe, as in `audiocli … | head -c 100`. This is a success."""

    exit_code = ExitCode.OK
    code = "reader_gone"

    def __init__(self) -> None:
        super().__init__("the reader of the output closed the pipe")
