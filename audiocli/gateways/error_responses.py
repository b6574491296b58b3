"""Error replies of all gateways: one reader for every shape that they were seen in.

    {"error": {"code": 429, "message": …, "metadata": {…}, "availability": {…}}}      OpenRouter, TheRouter
    {"success": false, "error": {"name": "ZodError", "message": "[{…JSON…}]"}}        OpenRouter, failed validation
    {"error": {"message": …, "type": …, "param": …, "code": "text" | null}}           OpenAI, Groq, ARouter
    {"detail": "text"} or {"detail": [{"loc": […], "msg": …}]}                        FastAPI servers
    HTML, plain text, nothing                                                         proxies at the edge

What may be sent again is decided by the table of docs/house.md, "Attempts". Nothing in here raises on any input.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import NamedTuple

from ..errors import Retryability, AttemptError, AudiocliError, InvalidResponse, ExitCode, FaultDomain, GatewayError
from ..types.values import Json, Outcome
from .base import as_list, as_number, as_object, as_text, read_json

MESSAGE_LIMIT = 400

# OpenRouter's words for what went wrong and the status that each stands for ("Errors and Debugging", read 2026-11).
STATUS_OF_ERROR_TYPE = {
    "context_length_exceeded": 400,
    "max_tokens_exceeded": 400,
    "token_limit_exceeded": 400,
    "string_too_long": 400,
    "invalid_request": 400,
    "invalid_request_error": 400,
    "invalid_prompt": 400,
    "content_policy_violation": 400,
    "refusal": 400,
    "authentication": 401,
    "authentication_error": 401,
    "payment_required": 402,
    "permission_denied": 403,
    "permission_error": 403,
    "not_found": 404,
    "payload_too_large": 413,
    "unprocessable": 422,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "server": 500,
    "server_error": 500,
    "unmapped": 500,
    "provider_unavailable": 502,
    "upstream_error": 502,
    "provider_overloaded": 503,
    "timeout": 504,
}

REJECTED_CONTENT = {"content_policy_violation", "refusal", "invalid_prompt", "moderation_blocked"}
# Patterns are compiled at their first use, which most runs never come to: together they take 6 ms.
UNREADABLE_AUDIO = (
    r"(?i)(audio|file)\b.{0,40}\b(corrupt|unsupported|could not be (decoded|read|processed)|not be decoded"
    r"|invalid format)|invalid file format|unrecognized file format"
)
REGION = r"(?i)\b(region|country|territory)\b"
BUDGET_SOURCES = r"(?i)budget|credits|key_limit"

# OpenRouter's error bodies name the user; that is nobody's business.
USER_ID = r'"user_id"\s*:\s*"[^"]*"\s*,?'

# Gateways repeat the key in "Incorrect API key provided: sk-…abcd". Not even its end may be shown.
KEY_LIKE = r"(?i)(?:\b|_)(?:sk|gsk|lr|xai)[-_][\w*.…/+=-]{3,}|\bAIza[\w-]{8,}|[\w-]*[*•]{3,}[\w*•.-]*"


class _Report(NamedTuple):
    """An error object of any shape, flattened."""

    message: str | None
    words: frozenset[str]
    status: int | None
    retryable: bool | None
    wait_s: float | None
    limit_source: str
    is_moderation: bool
    region: bool


def failure(status: int, headers: Mapping[str, str], body: bytes) -> AttemptError:
    """Turn an error reply into the error that says what may be done about it."""
    report = _read(read_json(body))
    if report is None:
        report = _Report(_plain_message(headers, body), frozenset(), None, None, None, "", False, False)
    if not 100 <= status <= 599 or 200 <= status < 300:
        return InvalidResponse(f"an error without a status: {report.message or 'no message'}", request_id=request_id(headers))
    return _judge(status, report, headers)


def embedded_failure(reply: Json, headers: Mapping[str, str]) -> AttemptError | None:
    """Find the error inside a reply with status 200; None when there is none.

    Once work has begun a gateway cannot take its 200 back and sends an error object as the body instead.
    """
    payload = as_object(reply)
    if not (payload.get("error") or payload.get("success") is False or set(payload) == {"detail"}):
        return None
    report = _read(reply)
    if report is None or report.status is None:
        told = (report and report.message) or "no message"
        return InvalidResponse(f"200 with an error inside: {told}", request_id=request_id(headers))
    return _judge(report.status, report, headers)


def hide_key(error: AudiocliError, key: str | None) -> None:
    """Take the key out of what a gateway says, for some repeat what they were sent, and shorten the rest.

    In this order: half a key is a secret too.
    """
    if key:
        error.message = error.message.replace(key, "[key]")
        error.hint = error.hint and error.hint.replace(key, "[key]")
        if isinstance(error, AttemptError) and error.request_id and key in error.request_id:
            error.request_id = None
    if len(error.message) > MESSAGE_LIMIT:
        error.message = error.message[: MESSAGE_LIMIT - 1] + "…"
    error.args = (error.message,)  # what a traceback shows


def request_id(headers: Mapping[str, str]) -> str | None:
    for name in ("x-request-id", "x-router-request-id", "x-generation-id", "cf-ray"):
        if headers.get(name):
            return headers[name][:200]
    return None


def wait_hint_s(headers: Mapping[str, str]) -> float | None:
    """Read how long the gateway wants us to wait, in seconds: milliseconds, seconds or a date, else a rate reset.

    Dates are measured against the reply's own clock where it tells it. Source: openai-python (2026-08), Groq and
    ARouter documentation (read 2026-11).
    """
    milliseconds = as_number(headers.get("retry-after-ms"))
    if milliseconds is not None and milliseconds >= 0:
        return milliseconds / 1000
    told = headers.get("retry-after", "").strip()
    if told:
        seconds = as_number(told)
        if seconds is None:
            at_s = _date_s(told)
            seconds = None if at_s is None else max(0.0, at_s - _gateway_clock_s(headers))
        return seconds if seconds is not None and seconds >= 0 else None
    names = ("x-ratelimit-reset", "x-ratelimit-reset-requests", "x-ratelimit-reset-tokens")
    resets = [reset_s(headers.get(name, ""), headers) for name in names]
    # Whichever limit was reached, it is over when the last of them is.
    return max((wait_s for wait_s in resets if wait_s is not None), default=None)


def _judge(status: int, report: _Report, headers: Mapping[str, str]) -> AttemptError:
    """Apply the table of attempts to one error."""
    retry_after_s = report.wait_s if report.wait_s is not None else wait_hint_s(headers)
    if status == 402 and report.wait_s is None and not ("retry-after" in headers or "retry-after-ms" in headers):
        # An empty account is not filled when a rate limit begins anew.
        retry_after_s = None
    exit_code: int = ExitCode.GATEWAY
    code, again, fault, outcome, hint = "refused", Retryability.NEVER, FaultDomain.ROUTE, Outcome.REFUSED, None

    if status == 401:
        exit_code, code = ExitCode.ACCESS, "unauthorized"
        hint = "the key was refused: check that it is this gateway's key and still valid"
    elif status == 402:
        if retry_after_s is not None:
            code, again, exit_code = "budget_in_flight", Retryability.AFTER_WAIT, ExitCode.MONEY
        else:
            code, exit_code, hint = "no_credit", ExitCode.MONEY, "add credit at the gateway, or use another one with -m"
    elif status == 403:
        if report.is_moderation:
            code, fault = "content_rejected", FaultDomain.REQUEST
        elif report.region:
            code = "region_restricted"
        elif re.search(BUDGET_SOURCES, report.limit_source):
            code, exit_code, hint = "budget_spent", ExitCode.MONEY, "a budget at the gateway is spent"
        else:
            code, exit_code = "forbidden", ExitCode.ACCESS
    elif status in (408, 504, 524):
        exit_code, code, again, outcome = ExitCode.NETWORK, "timed_out", Retryability.IF_ALLOWED, Outcome.UNKNOWN
    elif status == 429 and "insufficient_quota" in report.words:
        # OpenAI answers an empty account with 429; waiting does not fill it.
        code, exit_code, hint = "no_credit", ExitCode.MONEY, "add credit at the gateway, or use another one with -m"
    elif status in (429, 503, 529):
        code, again = ("rate_limited" if status == 429 else "overloaded"), Retryability.AFTER_WAIT
    elif status >= 500:
        code, again, outcome = "gateway_failed", Retryability.FEW_TIMES, Outcome.FAILED
    elif status == 404:
        code = "not_found"
    elif status == 413:
        code = "too_large"
    elif report.is_moderation:
        code, fault = "content_rejected", FaultDomain.REQUEST
    elif report.message and re.search(UNREADABLE_AUDIO, report.message):
        code, fault = "audio_rejected", FaultDomain.REQUEST
    elif 300 <= status < 400:
        code, hint = "redirected", "audiocli does not follow redirects with a key: check the base URL"

    # "May be retried" does not say "was not billed": what timed out stays the user's decision, what failed keeps its
    # three sends, and a refused key or an empty account does not mend itself.
    retryable = report.retryable
    if retryable is None:
        # OpenAI's own word on it (openai-python, 2026-08).
        retryable = {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())
    if retryable is False and again is not Retryability.IF_ALLOWED:
        again = Retryability.NEVER
    elif retryable is True and again is Retryability.NEVER and exit_code == ExitCode.GATEWAY and fault is FaultDomain.ROUTE:
        again = Retryability.AFTER_WAIT
    return GatewayError(
        f"{status} {report.message or 'without a message'}",
        exit_code=exit_code,
        code=code,
        again=again,
        fault=fault,
        outcome=outcome,
        wait_s=retry_after_s if again is Retryability.AFTER_WAIT else None,
        hint=hint,
        status=status,
        request_id=request_id(headers),
    )


def _read(reply: Json) -> _Report | None:
    """Flatten an error object of any known shape; None when this is not an error object."""
    payload = as_object(reply)
    error = payload.get("error")
    detail = payload.get("detail")
    if isinstance(error, str):
        error = {"message": error}
    if not isinstance(error, dict):
        if detail is None and "message" not in payload:
            return None
        error = {"message": _detail_message(detail) or as_text(payload.get("message"))}
    metadata = as_object(error.get("metadata"))
    availability = as_object(error.get("availability"))
    words = {
        word
        for word in (
            as_text(error.get("type")),
            as_text(error.get("code")),
            as_text(error.get("error_type")),
            as_text(metadata.get("error_type")),
            as_text(metadata.get("provider_code")),
            as_text(availability.get("code")),
        )
        if word
    }
    retryable = next(
        (flag for flag in (availability.get("retryable"), metadata.get("retryable")) if isinstance(flag, bool)), None
    )
    message = _message(error, metadata)
    return _Report(
        message=message,
        words=frozenset(words),
        status=_status(error, metadata, words),
        retryable=retryable,
        wait_s=_non_negative(availability.get("retry_after")),
        limit_source=as_text(metadata.get("limit_source")) or "",
        is_moderation=bool(words & REJECTED_CONTENT or metadata.get("flagged_input") or metadata.get("reasons")),
        region="region_restricted" in words or bool(re.search(REGION, message or "")),
    )


def _status(error: Mapping[str, Json], metadata: Mapping[str, Json], words: set[str]) -> int | None:
    for value in (error.get("code"), error.get("http_status"), error.get("status"), metadata.get("http_status")):
        number = as_number(value)
        if number is not None and 400 <= number <= 599:
            return int(number)
    return next((STATUS_OF_ERROR_TYPE[word] for word in sorted(words) if word in STATUS_OF_ERROR_TYPE), None)


def _message(error: Mapping[str, Json], metadata: Mapping[str, Json]) -> str | None:
    message = as_text(error.get("message")) or as_text(error.get("name")) or ""
    if message.lstrip().startswith("["):
        # A ZodError's message is itself JSON: a list of what is wrong with which field.
        nested = as_list(read_json(message.encode()))
        message = "; ".join(filter(None, (_issue(as_object(issue)) for issue in nested))) or message
    raw = as_text(metadata.get("raw"))
    if raw:
        inner = _read(read_json(raw.encode()))
        raw = (inner.message if inner and inner.message else raw).strip()
    provider = as_text(metadata.get("provider_name"))
    if raw and raw not in message:
        message = f"{message}: {raw}"
    if provider and provider not in message:
        message = f"{message} ({provider})"
    return _clean(message) or None


def _issue(issue: Mapping[str, Json]) -> str:
    path = ".".join(str(part) for part in as_list(issue.get("path") or issue.get("loc")))
    told = as_text(issue.get("message")) or as_text(issue.get("msg")) or ""
    return f"{path}: {told}" if path else told


def _detail_message(detail: Json) -> str | None:
    if isinstance(detail, list):
        told = (issue if isinstance(issue, str) else _issue(as_object(issue)) for issue in detail)
        return "; ".join(filter(None, told)) or None
    if isinstance(detail, dict):
        return as_text(detail.get("message")) or as_text(detail.get("error"))
    return as_text(detail)


def _plain_message(headers: Mapping[str, str], body: bytes) -> str | None:
    text = re.sub(USER_ID, "", body[:4096].decode("utf-8", "replace")).strip()
    if "html" in headers.get("content-type", "").lower() or text[:1] == "<":
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        return _clean("an HTML page" + (f": {title[1]}" if title and title[1].strip() else ""))
    return _clean(text) or None


def _clean(message: str) -> str:
    folded = " ".join(message.encode("utf-8", "replace").decode().split())
    return re.sub(KEY_LIKE, "[key]", folded).rstrip(".")


def _non_negative(value: Json) -> float | None:
    number = as_number(value)
    return number if number is not None and number >= 0 else None


def _date_s(text: str) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _gateway_clock_s(headers: Mapping[str, str]) -> float:
    told = _date_s(headers["date"]) if headers.get("date") else None
    return time.time() if told is None else told


def reset_s(text: str, headers: Mapping[str, str]) -> float | None:
    """Read `6m0s`, `12ms`, `1.5s`, a number of seconds, or a point in unix time (seconds or milliseconds)."""
    number = as_number(text)
    if number is not None:
        if number > 1e11:
            number /= 1000
        return max(0.0, number - _gateway_clock_s(headers)) if number > 1e9 else max(0.0, number)
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)s)?(?:([\d.]+)ms)?", text.strip())
    if not text.strip() or parts is None:
        return None
    hours, minutes, seconds, milliseconds = (as_number(part) or 0.0 for part in parts.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000
