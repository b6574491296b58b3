"""Positions in a recording, for people."""

from __future__ import annotations


def format_position(seconds: float) -> str:
    """Format a position in a recording as H:MM:SS."""
    minutes, whole_seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{whole_seconds:02d}"
