"""Spans of time as people name them, in local days or in those of UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from ..errors import UsageError

USUAL = "30d"


def period(
    since: str | None, until: str | None, now: datetime, *, usual: str = USUAL
) -> tuple[datetime | None, datetime | None]:
    """Read a span of time in days of the zone of `now`: [since, until), where the day named by `--until` still counts.

    Raises: UsageError: not a time, or an empty span.
    """
    start = _start(since or usual, now, "--since")
    end = None
    if until is not None:
        day = _start(until, now, "--until")
        try:
            end = None if day is None else _midnight(day + timedelta(days=1))
            if until == "month" and day is not None:
                end = _midnight((day.replace(day=28) + timedelta(days=4)).replace(day=1))
        except (OverflowError, ValueError):
            end = None  # the end of all days
    if start is not None and end is not None and end <= start:
        raise UsageError(f"--until {until} lies before --since {since or usual}")
    return start, end


def _start(word: str, now: datetime, flag: str) -> datetime | None:
    today = _midnight(now)
    if word == "all":
        return None
    if word in ("today", "yesterday"):
        return _midnight(now - timedelta(days=word == "yesterday"))
    if word == "month":
        return _midnight(today.replace(day=1))
    span = re.fullmatch(r"(\d{1,5})([dw])", word)
    try:
        if span:
            return _midnight(now - timedelta(days=int(span[1]) * (7 if span[2] == "w" else 1)))
        return _midnight(datetime.strptime(word, "%Y-%m-%d").replace(tzinfo=UTC if now.tzinfo is UTC else None))
    except (ValueError, OverflowError):
        raise UsageError(
            f"{flag} {word}: not a time", hint="a date such as 2026-11-21, or today, yesterday, 7d, 4w, month, all"
        ) from None


def _midnight(at: datetime) -> datetime:
    """The midnight of a moment's day, also where the local clock changed in between."""
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    return day if at.tzinfo is UTC else day.replace(tzinfo=None).astimezone()


def moment(at_ms: int, *, utc: bool) -> datetime:
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return at if utc else at.astimezone()
