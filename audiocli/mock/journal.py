"""The journal of the mock gateway: one JSON line for each exchange, without keys."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..redaction import hide_secrets
from .messages import parse_bearer_token
from .recorded_request import KEY_PATTERN, RecordedRequest

# `json.dumps` escapes everything else that is not ASCII.
_DELETE = "\x7f"


class Journal:
    """A file to which exchanges are appended. Raises: OSError: The file cannot be opened."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def write(self, recorded: RecordedRequest) -> None:
        """Append one exchange, whose response has ended."""
        entry = build_entry(recorded, max(0.0, time.time() - recorded.received_at_s))
        with self._lock:
            if self._file.closed:
                return
            line = json.dumps({"n": recorded.number, **entry}).replace(_DELETE, "\\u007f")
            self._file.write(line + "\n")
            self._file.flush()

    def close(self) -> None:
        with self._lock:
            self._file.close()


def build_entry(recorded: RecordedRequest, elapsed_s: float) -> dict[str, Any]:
    """Return the entry of one exchange: no headers, no query, no audio, and no key in its texts."""
    token = parse_bearer_token(recorded.headers) or ""
    # The ends of the key are in the message of its refusal.
    secrets = [token, f"{token[:3]}***{token[-4:]}"]

    def hide(text: str | None) -> str | None:
        return None if text is None else KEY_PATTERN.sub("[key]", hide_secrets(text, secrets))

    return {
        "at": datetime.fromtimestamp(recorded.received_at_s, UTC).isoformat(timespec="milliseconds"),
        "method": hide(recorded.method),
        "path": hide(recorded.path),
        "dialect": recorded.dialect,
        "model": hide(recorded.model),
        "text": hide(recorded.text),
        "request_bytes": recorded.size_bytes,
        "audio_sha256": recorded.audio_sha256,
        "audio_s": recorded.audio_s,
        "status": recorded.status,
        "response_bytes": recorded.sent_bytes,
        "fault": recorded.fault,
        "rule_line": recorded.rule_line,
        "problems": [hide(problem) for problem in recorded.problems],
        "is_complete": recorded.complete,
        "client_disconnected": recorded.client_disconnected,
        "is_billed": recorded.billed,
        "cost_usd": recorded.cost_nanousd / 1e9,
        "generation_id": recorded.generation_id,
        "elapsed_s": round(elapsed_s, 3),
    }
