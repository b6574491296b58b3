"""Error responses of all gateways. One parser for all observed formats.

    {"error": {"code": 429, "message": …, "metadata": {…}, "availability": {…}}}      OpenRouter, TheRouter
    {"success": false, "error": {"name": "ZodError", "message": "[{…JSON…}]"}}        OpenRouter, failed validation
    {"error": {"message": …, "type": …, "param": …, "code": "text" | null}}           OpenAI, Groq, ARouter
    {"detail": "text"} or {"detail": [{"loc": […], "msg": …}]}                        FastAPI servers
    {"detail": {"error": {"message": …}}}                                             faster-whisper-server
    {"errors": [{"message": …}]} or {"message": …, "type": …, "code": …}              proxies, vLLM
    HTML, plain text, an empty body                                                   proxies

The retryability of each status follows the retry table in the architecture documentation. No function in this
module raises.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..errors import AttemptError, AudiocliError, ExitCode, FaultDomain, GatewayError, InvalidResponse, Retryability
from ..redaction import hide_secrets, remove_secret_id
from ..types.json import Json
from ..types.ledger import Outcome
from .base import as_list, as_number, as_object, as_text, read_json

MAX_MESSAGE_CHARACTERS = 400

# OpenRouter's error types and their statuses ("Errors and Debugging", read 2026-11).
ERROR_TYPE_STATUSES = {
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

CONTENT_REJECTION_TYPES = {"content_policy_violation", "refusal", "invalid_prompt", "moderation_blocked"}
# Patterns are compiled on first use, because compiling them takes 6 ms and most runs do not need them.
UNREADABLE_AUDIO_PATTERN = (
    r"(?i)(audio|file|media)\b.{0,40}\b(corrupt|unsupported|(could|can) ?not be (decoded|read|processed|opened)"
    r"|not be decoded|(is )?not supported|invalid format)"
    r"|(invalid|unrecogni[sz]ed|unknown|unsupported|bad) (audio |file |media )+(format|type|encoding|codec)"
    r"|(unable|failed|could not|cannot|can't) (to )?(decode|read|process|open|parse|load) (the |this |your )?(\w+ )?"
    r"(audio|file|media)"
)
REGION_PATTERN = r"(?i)\b(region|country|territory)\b"
BUDGET_SOURCE_PATTERN = r"(?i)budget|credits|key_limit"

# OpenRouter's error bodies contain the user ID, which must not appear in messages.
USER_ID_PATTERN = r'"user_id"\s*:\s*"[^"]*"\s*,?'

# Gateways repeat the key, as in "Incorrect API key provided: sk-…abcd". Not even its end may be shown.
API_KEY_PATTERN = r"(?i)(?:\b|_)(?:sk|gsk|lr|xai)[-_][\w*.…/+=-]{3,}|\bAIza[\w-]{8,}|[\w-]*[*•]{3,}[\w*•.-]*"


class _ErrorReport(NamedTuple):
    """The contents of an error object of any format. `error_types` has its types and codes."""

    message: str | None
    error_types: frozenset[str]
    status: int | None
    is_retryable: bool | None
    wait_s: float | None
    limit_source: str
    is_content_rejected: bool
    is_region_restricted: bool


def parse_error(status: int, headers: Mapping[str, str], body: bytes) -> AttemptError:
    """Parse an error response into an error with an exit code, retryability and hint."""
    report = _parse_report(read_json(body))
    if report.message is None:
        report = report._replace(message=_parse_plain_text(headers, body))
    if not 100 <= status <= 599 or 200 <= status < 300:
        return InvalidResponse(
            f"error response without a valid status: {report.message or 'no message'}",
            request_id=parse_request_id(headers),
        )
    return _classify(status, report, headers)


def find_embedded_error(value: Json, headers: Mapping[str, str]) -> AttemptError | None:
    """Return the error in a response with status 200; None if there is none.

    A gateway that has sent the status cannot change it when it fails later, and sends an error object as the body.
    """
    payload = as_object(value)
    if not (payload.get("error") or payload.get("success") is False or set(payload) == {"detail"}):
        return None
    report = _parse_report(value)
    if report.status is None:
        return InvalidResponse(
            f"200 with an error in the body: {report.message or 'no message'}", request_id=parse_request_id(headers)
        )
    return _classify(report.status, report, headers)


def redact_secrets(error: AudiocliError, secrets: Iterable[str]) -> None:
    """Remove the API key and other secrets from an error, because some gateways repeat them, and shorten the message.

    They are removed first, since a truncated key is a secret too.
    """
    secrets = tuple(secrets)
    error.message = hide_secrets(error.message, secrets)
    error.hint = error.hint and hide_secrets(error.hint, secrets)
    if isinstance(error, AttemptError):
        error.request_id = remove_secret_id(error.request_id, secrets)
    if len(error.message) > MAX_MESSAGE_CHARACTERS:
        error.message = error.message[: MAX_MESSAGE_CHARACTERS - 1] + "…"
    error.args = (error.message,)  # shown in tracebacks


def parse_request_id(headers: Mapping[str, str]) -> str | None:
    """Return the request ID of a response, if it has one."""
    for name in ("x-request-id", "x-router-request-id", "x-generation-id", "cf-ray"):
        if headers.get(name):
            return headers[name][:200]
    return None


def parse_retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the delay in seconds that the gateway asks for.

    Reads `retry-after-ms`, then `Retry-After` (seconds or a date), then the resets of rate limits. Dates are relative
    to the `Date` header of the response, if there is one.

    Source: openai-python (2026-08), Groq and ARouter documentation (read 2026-11).
    """
    milliseconds = as_number(headers.get("retry-after-ms"))
    if milliseconds is not None and milliseconds >= 0:
        return milliseconds / 1000
    retry_after = headers.get("retry-after", "").strip()
    if retry_after:
        seconds = as_number(retry_after)
        if seconds is None:
            retry_at_s = _parse_http_date_s(retry_after)
            seconds = None if retry_at_s is None else max(0.0, retry_at_s - _get_gateway_time_s(headers))
        return seconds if seconds is not None and seconds >= 0 else None
    names = ("x-ratelimit-reset", "x-ratelimit-reset-requests", "x-ratelimit-reset-tokens")
    resets = [parse_reset_s(headers.get(name, ""), headers) for name in names]
    # It is unknown which limit was reached, so wait for the last reset.
    return max((wait_s for wait_s in resets if wait_s is not None), default=None)


def _classify(status: int, report: _ErrorReport, headers: Mapping[str, str]) -> AttemptError:
    """Choose exit code, code, retryability and hint of an error."""
    retry_after_s = report.wait_s if report.wait_s is not None else parse_retry_after_s(headers)
    if status == 402 and report.wait_s is None and not ("retry-after" in headers or "retry-after-ms" in headers):
        # The reset of a rate limit does not add credit.
        retry_after_s = None
    exit_code: int = ExitCode.GATEWAY
    code, retryability, fault, outcome, hint = "refused", Retryability.NEVER, FaultDomain.ROUTE, Outcome.REFUSED, None

    # A LiteLLM proxy without a database knows no key but its master key (LiteLLM 1.108.7, run 2026-11).
    if status == 401 or (status == 400 and "no_db_connection" in report.error_types):
        exit_code, code = ExitCode.ACCESS, "unauthorized"
        hint = "the gateway refused the API key; check that it belongs to this gateway and is still valid"
    elif status == 402:
        if retry_after_s is not None:
            code, retryability, exit_code = "budget_in_flight", Retryability.AFTER_DELAY, ExitCode.MONEY
        else:
            code, exit_code, hint = "no_credit", ExitCode.MONEY, "add credit at the gateway, or use another one with -m"
    elif status == 403:
        if report.is_content_rejected:
            code, fault = "content_rejected", FaultDomain.REQUEST
        elif report.is_region_restricted:
            code = "region_restricted"
        elif re.search(BUDGET_SOURCE_PATTERN, report.limit_source):
            code, exit_code, hint = "budget_spent", ExitCode.MONEY, "a budget set at the gateway is exhausted"
        else:
            code, exit_code = "forbidden", ExitCode.ACCESS
    elif status in (408, 504, 524):
        exit_code, code = ExitCode.NETWORK, "timed_out"
        retryability, outcome = Retryability.IF_USER_ALLOWS, Outcome.UNKNOWN
    elif status == 429 and "insufficient_quota" in report.error_types:
        # OpenAI reports an account without credit as 429. Waiting does not help.
        code, exit_code, hint = "no_credit", ExitCode.MONEY, "add credit at the gateway, or use another one with -m"
    elif status in (429, 503, 529):
        code, retryability = ("rate_limited" if status == 429 else "overloaded"), Retryability.AFTER_DELAY
    elif status >= 500:
        code, retryability, outcome = "gateway_failed", Retryability.LIMITED, Outcome.FAILED
    elif status == 404:
        code = "not_found"
    elif status == 413:
        code = "too_large"
    elif report.is_content_rejected:
        code, fault = "content_rejected", FaultDomain.REQUEST
    elif report.message and re.search(UNREADABLE_AUDIO_PATTERN, report.message):
        code, fault = "audio_rejected", FaultDomain.REQUEST
    elif 300 <= status < 400:
        code, hint = "redirected", "redirects are not followed with an API key; check the base URL"

    # "Retryable" does not mean "not billed". A timeout is still only retried if the user allows it, a failure is still
    # sent three times at most, and a refused key or missing credit is never retried.
    retryable = report.is_retryable
    if retryable is None:
        # Header of OpenAI (openai-python, 2026-08).
        retryable = {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())
    if retryable is False and retryability is not Retryability.IF_USER_ALLOWS:
        retryability = Retryability.NEVER
    elif (
        retryable is True
        and retryability is Retryability.NEVER
        and exit_code == ExitCode.GATEWAY
        and fault is FaultDomain.ROUTE
    ):
        retryability = Retryability.AFTER_DELAY
    return GatewayError(
        f"{status} {report.message or 'without a message'}",
        exit_code=exit_code,
        code=code,
        retryability=retryability,
        fault=fault,
        outcome=outcome,
        wait_s=retry_after_s if retryability is Retryability.AFTER_DELAY else None,
        hint=hint,
        status=status,
        request_id=parse_request_id(headers),
    )


def _parse_report(value: Json) -> _ErrorReport:
    """Parse an error object of any known format. The report of anything else is empty."""
    payload = as_object(value)
    detail, errors = payload.get("detail"), payload.get("errors")
    places = (payload.get("error"), as_object(detail).get("error"), detail, errors)
    objects = [place for place in places if isinstance(place, dict) and place]
    error = objects[0] if objects else payload
    metadata = as_object(error.get("metadata"))
    availability = as_object(error.get("availability"))
    error_types = {
        error_type
        for error_type in (
            as_text(error.get("type")),
            as_text(error.get("code")),
            as_text(error.get("error_type")),
            as_text(metadata.get("error_type")),
            as_text(metadata.get("provider_code")),
            as_text(availability.get("code")),
        )
        if error_type
    }
    retryable = next(
        (flag for flag in (availability.get("retryable"), metadata.get("retryable")) if isinstance(flag, bool)), None
    )
    # A text in `error` comes last: next to a message, it is only the name of the error.
    sources = (*objects, detail, errors, payload.get("message"), *places)
    message = next(filter(None, map(_parse_message, sources)), None)
    return _ErrorReport(
        message=message,
        error_types=frozenset(error_types),
        status=_parse_status(error, metadata, error_types),
        is_retryable=retryable,
        wait_s=_as_non_negative(availability.get("retry_after")),
        limit_source=as_text(metadata.get("limit_source")) or "",
        is_content_rejected=bool(
            error_types & CONTENT_REJECTION_TYPES or metadata.get("flagged_input") or metadata.get("reasons")
        ),
        is_region_restricted="region_restricted" in error_types or bool(re.search(REGION_PATTERN, message or "")),
    )


def _parse_status(error: Mapping[str, Json], metadata: Mapping[str, Json], error_types: set[str]) -> int | None:
    for value in (error.get("code"), error.get("http_status"), error.get("status"), metadata.get("http_status")):
        number = as_number(value)
        if number is not None and 400 <= number <= 599:
            return int(number)
    known_types = sorted(error_types & ERROR_TYPE_STATUSES.keys())
    return ERROR_TYPE_STATUSES[known_types[0]] if known_types else None


def _parse_message(value: Json) -> str | None:
    """Return the message of an error object, a text, or a list of texts and invalid fields."""
    if not isinstance(value, dict):
        return _clean_message(_join_issues(value)) or None
    metadata = as_object(value.get("metadata"))
    message = _join_issues(value.get("message")) or as_text(value.get("name")) or ""
    if message.lstrip().startswith("["):
        # The message of a ZodError is JSON: a list of invalid fields.
        message = _join_issues(read_json(message.encode())) or message
    raw = as_text(metadata.get("raw"))
    if raw:
        raw = (_parse_report(read_json(raw.encode())).message or raw).strip()
    if raw and raw not in message:
        message = f"{message}: {raw}" if message else raw
    provider = as_text(metadata.get("provider_name"))
    if provider and provider not in message:
        message = f"{message} ({provider})"
    return _clean_message(message) or None


def _join_issues(value: Json) -> str:
    """Return a text, or the joined messages of a list of texts and invalid fields."""
    issues = (issue if isinstance(issue, str) else _format_issue(as_object(issue)) for issue in as_list(value))
    return as_text(value) or "; ".join(filter(None, issues))


def _format_issue(issue: Mapping[str, Json]) -> str:
    path = ".".join(str(part) for part in as_list(issue.get("path") or issue.get("loc")))
    message = as_text(issue.get("message")) or as_text(issue.get("msg")) or ""
    return f"{path}: {message}" if path else message


def _parse_plain_text(headers: Mapping[str, str], body: bytes) -> str | None:
    text = re.sub(USER_ID_PATTERN, "", body[:4096].decode("utf-8", "replace")).strip()
    if "html" in headers.get("content-type", "").lower() or text[:1] == "<":
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        return _clean_message("an HTML page" + (f": {title[1]}" if title and title[1].strip() else ""))
    return _clean_message(text) or None


def _clean_message(message: str) -> str:
    one_line = " ".join(message.encode("utf-8", "replace").decode().split())
    return re.sub(API_KEY_PATTERN, "[key]", one_line).rstrip(".")


def _as_non_negative(value: Json) -> float | None:
    number = as_number(value)
    return number if number is not None and number >= 0 else None


def _parse_http_date_s(text: str) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _get_gateway_time_s(headers: Mapping[str, str]) -> float:
    date_s = _parse_http_date_s(headers["date"]) if headers.get("date") else None
    return time.time() if date_s is None else date_s


def parse_reset_s(text: str, headers: Mapping[str, str]) -> float | None:
    """Return the seconds until a reset: `6m0s`, `12ms`, `1.5s`, seconds, or Unix time in seconds or milliseconds."""
    number = as_number(text)
    if number is not None:
        if number > 1e11:
            number /= 1000
        return max(0.0, number - _get_gateway_time_s(headers)) if number > 1e9 else max(0.0, number)
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)s)?(?:([\d.]+)ms)?", text.strip())
    if not text.strip() or parts is None:
        return None
    hours, minutes, seconds, milliseconds = (as_number(part) or 0.0 for part in parts.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000
