"""A script for the mock gateway: rules that choose responses by path, model, text and order of the requests.

A script is TOML with a `[[rule]]` table for each rule, or JSON Lines with an object for each rule.
"""

from __future__ import annotations

import json
import threading
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .fault_injection import PlannedResponse
from .faults import MAX_FAULT_S, Fault, NoFault, Status
from .messages import ParsedRequest, read_text

_CONDITIONS = ("path", "method", "model", "text", "nth")
_ACTIONS = ("status", "headers", "body", "body_file", "delay", "cut")
KEYS = (*_CONDITIONS, *_ACTIONS)
MAX_BODY_FILE_BYTES = 100_000_000


class InvalidScript(ValueError):
    """The script is not valid. The message begins with the line."""


@dataclass(slots=True)
class Rule:
    """One rule. A request must meet all conditions; the first rule that it meets chooses the response.

    `nth`: the numbers of the requests, among those that meet the other conditions, counted from 1; empty is every one.
    `status` None: the normal response. `delay_s`: pause before the status line. `cut_bytes`: close the connection
    after this number of bytes of the body; 0 is before the status line. `line`: where the rule is in the script.
    """

    line: int
    path: str | None = None
    method: str | None = None
    model: str | None = None
    text: str | None = None
    nth: tuple[int, ...] = ()
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    delay_s: float = 0.0
    cut_bytes: int | None = None
    seen: int = 0

    def matches(self, request: ParsedRequest, text: str) -> bool:
        """Return whether a request meets the conditions, except `nth`."""
        return (
            self.method in (None, request.method)
            and (self.path is None or request.path.endswith(self.path))
            and self.model in (None, request.model)
            and (self.text is None or self.text in text)
        )

    def build_fault(self) -> Fault:
        """Return the response of the rule as a fault; `NoFault` for the normal response."""
        if self.status is None:
            return NoFault()
        content_type = next((text for name, text in self.headers.items() if name.lower() == "content-type"), None)
        headers = {name: text for name, text in self.headers.items() if name.lower() != "content-type"}
        return Status(self.status, body=self.body, headers=headers, content_type=content_type, billed=self.status < 400)

    def modify(self, planned: PlannedResponse) -> PlannedResponse:
        """Add the delay and the cut of the rule to a response."""
        if self.delay_s:
            planned = replace(planned, stall_before_status=True, stall_s=self.delay_s)
        if self.cut_bytes == 0:
            return replace(planned, response=None)
        return planned if self.cut_bytes is None else replace(planned, cut_after_bytes=self.cut_bytes)


class ResponseScript:
    """The rules of a script, and how often each was met."""

    def __init__(self, rules: list[Rule]) -> None:
        self._rules = rules
        self._lock = threading.Lock()

    def find(self, request: ParsedRequest) -> Rule | None:
        """Return the first rule that a request meets, and count the request for every rule that it could meet."""
        text, found = read_text(request), None
        with self._lock:
            for rule in self._rules:
                if rule.matches(request, text):
                    rule.seen += 1
                    if found is None and (not rule.nth or rule.seen in rule.nth):
                        found = rule
        return found


def read_script(path: Path) -> ResponseScript:
    """Read a script. A file whose first character is `{` is JSON Lines.

    Raises:
        InvalidScript: A line is not valid.
        OSError: The file cannot be read.
    """
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidScript(f"line {error.object[: error.start].count(10) + 1}: not UTF-8") from error
    tables = _parse_json_lines(text) if text.lstrip().startswith("{") else _parse_toml(text)
    rules = [_build_rule(table, locator, path.parent) for table, locator in tables]
    if not rules:
        raise InvalidScript("line 1: no [[rule]]")
    return ResponseScript(rules)


@dataclass(frozen=True, slots=True)
class _Locator:
    """Finds the line of a rule and of its keys. `toml` is the script if it is TOML, `index` the index of the rule."""

    line: int
    toml: str = ""
    index: int = 0

    def find_line(self, key: str | None = None) -> int:
        """Return the line of a rule or, with a key, the line on which its value ends."""
        if not self.toml:
            return self.line
        lines = self.toml.splitlines(keepends=True)
        for count in range(1, len(lines) + 1):
            try:
                rules = tomllib.loads("".join(lines[:count])).get("rule", [])
            except tomllib.TOMLDecodeError:
                continue  # inside of a value
            if len(rules) > self.index and (key is None or key in rules[self.index]):
                return count
        return len(lines)


def _parse_json_lines(text: str) -> list[tuple[Any, _Locator]]:
    tables = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                tables.append((json.loads(line), _Locator(number)))
            except (ValueError, RecursionError) as error:
                raise InvalidScript(f"line {number}: not JSON: {error}") from error
    return tables


def _parse_toml(text: str) -> list[tuple[Any, _Locator]]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        end = text.rstrip("\n").count("\n") + 1
        raise InvalidScript(f"line {_read_error_line(str(error)) or end}: not TOML: {error}") from error
    for name, value in document.items():
        if name != "rule" or not isinstance(value, list):
            line = next((i for i, row in enumerate(text.splitlines(), 1) if name in row), 1)
            raise InvalidScript(f"line {line}: {name!r} is not [[rule]]")
    return [(table, _Locator(0, text, index)) for index, table in enumerate(document.get("rule", []))]


def _read_error_line(message: str) -> int | None:
    """Return the line that a message of tomllib names: `… (at line 3, column 1)`."""
    words = message.partition("at line ")[2].partition(",")[0]
    return int(words) if words.isdecimal() else None


def _build_rule(table: Any, locator: _Locator, directory: Path) -> Rule:
    if not isinstance(table, dict):
        raise InvalidScript(f"line {locator.find_line()}: a rule must be an object")
    for key, value in table.items():
        problem = _find_problem(key, value)
        if problem:
            raise InvalidScript(f"line {locator.find_line(key)}: {problem}")
    if "body" in table and "body_file" in table:
        raise InvalidScript(f"line {locator.find_line('body_file')}: body and body_file are both set")
    body = table.get("body")
    if "body_file" in table:
        body = _read_body(directory / table["body_file"], locator)
    has_response = body is not None or "status" in table or "headers" in table
    if has_response and body is None:
        # The error body of the gateway, or none.
        body = None if table.get("status", 200) >= 400 else b""
    nth = table.get("nth", [])
    return Rule(
        line=locator.find_line(),
        path=table.get("path"),
        method=table["method"].upper() if "method" in table else None,
        model=table.get("model"),
        text=table.get("text"),
        nth=tuple(nth) if isinstance(nth, list) else (nth,),
        status=table.get("status", 200) if has_response else None,
        headers=table.get("headers", {}),
        body=body,
        delay_s=float(table.get("delay", 0.0)),
        cut_bytes=table.get("cut"),
    )


def _find_problem(key: str, value: Any) -> str | None:
    """Return what is wrong with a key and its value; None if they are valid."""
    if key not in KEYS:
        return f"unknown key {key!r}; known keys: {', '.join(KEYS)}"
    match key:
        case "path" | "method" | "model" | "text" | "body_file":
            is_valid, expected = isinstance(value, str), "a string"
        case "nth":
            numbers = value if isinstance(value, list) and value else [value]
            is_valid = all(_is_integer(number) and number >= 1 for number in numbers)
            expected = "a number from 1, or a list of them"
        case "status":
            is_valid, expected = _is_integer(value) and 200 <= value <= 599, "a status from 200 to 599"
        case "headers":
            is_valid = isinstance(value, dict) and all(
                isinstance(text, str) and (name + text).isprintable() and (name + text).isascii() and name.strip()
                for name, text in value.items()
            )
            expected = "a table of printable ASCII strings"
        case "delay":
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            is_valid, expected = is_number and 0 <= value <= MAX_FAULT_S, f"seconds from 0 to {MAX_FAULT_S:g}"
        case "cut":
            is_valid, expected = _is_integer(value) and value >= 0, "a number of bytes"
        case _:
            is_valid, expected = value is not None, "a string, or a value that is sent as JSON"
            try:
                json.dumps(value)
            except (TypeError, ValueError):
                is_valid = False
    return None if is_valid else f"{key} must be {expected}"


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _read_body(path: Path, locator: _Locator) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BODY_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidScript(
            f"line {locator.find_line('body_file')}: cannot read {path}: {error.strerror or error}"
        ) from error
    if len(content) > MAX_BODY_FILE_BYTES:
        raise InvalidScript(
            f"line {locator.find_line('body_file')}: {path} is larger than {MAX_BODY_FILE_BYTES // 1_000_000} MB"
        )
    return content
