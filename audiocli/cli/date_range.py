"""Parse date ranges such as `7d` or `month`, in days of local time or UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from ..errors import UsageError

DEFAULT_SINCE = "30d"
MAX_TIME_MS = 253_370_764_800_000  # 9999-01-01


def parse_date_range(
    since: str | None, until: str | None, now: datetime, *, default_since: str = DEFAULT_SINCE
) -> tuple[datetime | None, datetime | None]:
    """Return the half-open range [start, end) of `--since` and `--until`, in days of the time zone of `now`.

    The day of `--until` is included. None is unbounded.

    Raises:
        UsageError: A date is invalid, or the range is empty.
    """
    start = _parse_day(since or default_since, now, "--since")
    end = None
    if until is not None:
        day = _parse_day(until, now, "--until")
        try:
            end = None if day is None else _to_midnight(day + timedelta(days=1))
            if until == "month" and day is not None:
                end = _to_midnight((day.replace(day=28) + timedelta(days=4)).replace(day=1))
        except (OverflowError, ValueError):
            end = None  # later than the last date that datetime supports
    if start is not None and end is not None and end <= start:
        raise UsageError(f"--until {until} is before --since {since or default_since}")
    return start, end


def _parse_day(value: str, now: datetime, option: str) -> datetime | None:
    today = _to_midnight(now)
    if value == "all":
        return None
    if value in ("today", "yesterday"):
        return _to_midnight(now - timedelta(days=value == "yesterday"))
    if value == "month":
        return _to_midnight(today.replace(day=1))
    age = re.fullmatch(r"(\d{1,5})([dw])", value)
    try:
        if age:
            return _to_midnight(now - timedelta(days=int(age[1]) * (7 if age[2] == "w" else 1)))
        return _to_midnight(datetime.strptime(value, "%Y-%m-%d").replace(tzinfo=UTC if now.tzinfo is UTC else None))
    except (ValueError, OverflowError):
        raise UsageError(
            f"{option} {value}: invalid date",
            hint="use a date such as 2026-11-21, or today, yesterday, 7d, 4w, month or all",
        ) from None


def _to_midnight(at: datetime) -> datetime:
    """Return the start of the day in the same time zone. The UTC offset of local time may differ at that time."""
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    return day if at.tzinfo is UTC else day.replace(tzinfo=None).astimezone()


def to_datetime(at_ms: int, *, utc: bool) -> datetime:
    """Convert Unix time in milliseconds to local time or UTC, and a time out of range to the nearest valid one."""
    at = datetime.fromtimestamp(max(0, min(at_ms, MAX_TIME_MS)) / 1000, UTC)
    return at if utc else at.astimezone()
