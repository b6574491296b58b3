"""Tables of fields, and the one function that holds a request against them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .intake import Blob

ISO_639_1 = re.compile(r"[a-z]{2}")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused, before it has the shape of a gateway. `choices` is set where an enum was missed."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    choices: tuple[str, ...] | None = None


@dataclass(slots=True)
class Findings:
    """All that is wrong with a request: refusals (the first is answered), and remarks that a gateway lets pass."""

    refusals: list[Refusal] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def refuse(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        choices: tuple[str, ...] | None = None,
    ) -> None:
        self.refusals.append(Refusal(status, message, param, code, choices))

    def remark(self, message: str) -> None:
        self.remarks.append(message)

    @property
    def problems(self) -> list[str]:
        return [refusal.message for refusal in self.refusals] + self.remarks


@dataclass(frozen=True, slots=True)
class Field:
    """What one field may hold. Kinds: string, number, boolean, list, object, any."""

    kind: str = "string"
    required: bool = False
    choices: tuple[str, ...] | None = None
    low: float | None = None
    high: float | None = None
    shortest: int | None = None
    longest: int | None = None


@dataclass(frozen=True, slots=True)
class Manner:
    """How a gateway minds its fields. `unknown`: refuse, remark or ignore."""

    unknown: str = "refuse"
    status: int = 400


_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str, Blob),
    "number": (int, float),
    "boolean": (bool,),
    "list": (list,),
    "object": (dict,),
    "any": (object,),
}


def check_fields(values: Mapping[str, Any], table: Mapping[str, Field], findings: Findings, manner: Manner) -> None:
    """Write down every field that is unknown, missing, of the wrong type, or out of range."""
    for name in values:
        if name not in table and manner.unknown == "refuse":
            message = f"Unrecognized request argument supplied: {name}"
            findings.refuse(manner.status, message, name, "unknown_parameter")
        elif name not in table and manner.unknown == "remark":
            findings.remark(f"unknown field {name} is ignored")
    for name, rule in table.items():
        if name in values:
            _check_value(name, values[name], rule, findings, manner.status)
        elif rule.required:
            message = f"Missing required parameter: '{name}'."
            findings.refuse(manner.status, message, name, "missing_required_parameter")


def _check_value(name: str, value: Any, rule: Field, findings: Findings, status: int) -> None:
    kinds: Any = _KINDS[rule.kind]
    wrong_bool = isinstance(value, bool) and rule.kind not in ("boolean", "any")
    if wrong_bool or not isinstance(value, kinds):
        message = f"Invalid type for '{name}': expected {rule.kind}, but got {type(value).__name__} instead."
        findings.refuse(status, message, name, "invalid_type")
        return
    for item in value if rule.kind == "list" else [value]:
        if rule.choices is not None and item not in rule.choices:
            message = f"Invalid value: {item!r}. Supported values are: {', '.join(rule.choices)}."
            findings.refuse(status, message, name, "invalid_value", rule.choices)
    if rule.kind == "number" and not (rule.low is None or rule.low <= value <= (rule.high or 0)):
        message = f"Invalid '{name}': {value} is not between {rule.low} and {rule.high}."
        findings.refuse(status, message, name, "invalid_value")
    if rule.kind in ("string", "list"):
        size = value.size_bytes if isinstance(value, Blob) else len(value)
        if rule.shortest is not None and size < rule.shortest:
            findings.refuse(status, f"Invalid '{name}': too short.", name, "string_below_min_length")
        if rule.longest is not None and size > rule.longest:
            message = f"Invalid '{name}': too long. Expected at most {rule.longest}, but got {size} instead."
            findings.refuse(status, message, name, "string_above_max_length")


def form_values(
    fields: list[tuple[str, str]], table: Mapping[str, Field], findings: Findings, status: int
) -> dict[str, Any]:
    """Give the text fields of a form the types of the table. Only lists and names in `[]` may come more than once."""
    values: dict[str, Any] = {}
    for name, text in fields:
        kind = table[name].kind if name in table else "string"
        if name.endswith("[]") or kind == "list":
            values.setdefault(name, []).append(text)
            continue
        if name in values:
            findings.refuse(status, f"Duplicate parameter: '{name}'.", name, "duplicate_parameter")
        values[name] = _typed(text, kind)
    return values


def _typed(text: str, kind: str) -> Any:
    if kind == "number":
        try:
            return float(text)
        except ValueError:
            return text
    if kind == "boolean":
        return {"true": True, "false": False}.get(text.lower(), text)
    return text
