"""Tables of request fields, and the validation of requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .request_parsing import Blob, MalformedBody, decode_base64


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused, independent of the dialect. `choices` holds the valid values of an enum."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    choices: tuple[str, ...] | None = None


@dataclass(slots=True)
class Findings:
    """The problems of a request. The gateway responds with the first refusal and ignores warnings."""

    refusals: list[Refusal] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def refuse(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        choices: tuple[str, ...] | None = None,
    ) -> None:
        self.refusals.append(Refusal(status, message, param, code, choices))

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    @property
    def problems(self) -> list[str]:
        return [refusal.message for refusal in self.refusals] + self.warnings


@dataclass(frozen=True, slots=True)
class Field:
    """The valid values of a field. `kind`: string, number, boolean, list, object or any."""

    kind: str = "string"
    required: bool = False
    choices: tuple[str, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    min_length: int | None = None
    max_length: int | None = None


@dataclass(frozen=True, slots=True)
class FieldPolicy:
    """How a gateway treats invalid fields. `unknown_fields`: refuse, warn or ignore; `status`: of refusals."""

    unknown_fields: str = "refuse"
    status: int = 400


_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str, Blob),
    "number": (int, float),
    "boolean": (bool,),
    "list": (list,),
    "object": (dict,),
    "any": (object,),
}


def check_fields(
    values: Mapping[str, Any], table: Mapping[str, Field], findings: Findings, policy: FieldPolicy
) -> None:
    """Report each field that is unknown, missing, of the wrong type, or out of range."""
    for name in values:
        if name not in table and policy.unknown_fields == "refuse":
            message = f"Unrecognized request argument supplied: {name}"
            findings.refuse(policy.status, message, name, "unknown_parameter")
        elif name not in table and policy.unknown_fields == "warn":
            findings.warn(f"unknown field {name} is ignored")
    for name, rule in table.items():
        if name in values:
            _check_value(name, values[name], rule, findings, policy.status)
        elif rule.required:
            message = f"Missing required parameter: '{name}'."
            findings.refuse(policy.status, message, name, "missing_required_parameter")


def _check_value(name: str, value: Any, rule: Field, findings: Findings, status: int) -> None:
    types: Any = _KINDS[rule.kind]
    is_unexpected_bool = isinstance(value, bool) and rule.kind not in ("boolean", "any")
    if is_unexpected_bool or not isinstance(value, types):
        message = f"Invalid type for '{name}': expected {rule.kind}, but got {type(value).__name__} instead."
        findings.refuse(status, message, name, "invalid_type")
        return
    for item in value if rule.kind == "list" else [value]:
        if rule.choices is not None and item not in rule.choices:
            message = f"Invalid value: {item!r}. Supported values are: {', '.join(rule.choices)}."
            findings.refuse(status, message, name, "invalid_value", rule.choices)
    if rule.kind == "number" and not (rule.minimum is None or rule.minimum <= value <= (rule.maximum or 0)):
        message = f"Invalid '{name}': {value} is not between {rule.minimum} and {rule.maximum}."
        findings.refuse(status, message, name, "invalid_value")
    if rule.kind in ("string", "list"):
        size = value.size_bytes if isinstance(value, Blob) else len(value)
        if rule.min_length is not None and size < rule.min_length:
            findings.refuse(status, f"Invalid '{name}': too short.", name, "string_below_min_length")
        if rule.max_length is not None and size > rule.max_length:
            message = f"Invalid '{name}': too long. Expected at most {rule.max_length}, but got {size} instead."
            findings.refuse(status, message, name, "string_above_max_length")


def parse_form_values(
    fields: list[tuple[str, str]], table: Mapping[str, Field], findings: Findings, status: int
) -> dict[str, Any]:
    """Convert the text fields of a form to the types of the table.

    Only lists and names that end in `[]` may be repeated.
    """
    values: dict[str, Any] = {}
    for name, text in fields:
        kind = table[name].kind if name in table else "string"
        if name.endswith("[]") or kind == "list":
            values.setdefault(name, []).append(text)
            continue
        if name in values:
            findings.refuse(status, f"Duplicate parameter: '{name}'.", name, "duplicate_parameter")
        values[name] = _convert_text(text, kind)
    return values


def _convert_text(text: str, kind: str) -> Any:
    if kind == "number":
        try:
            return float(text)
        except ValueError:
            return text
    if kind == "boolean":
        return {"true": True, "false": False}.get(text.lower(), text)
    return text


def decode_base64_field(text: str | Blob, findings: Findings, param: str) -> Blob | None:
    """Decode a field; report a refusal and return None if it is not raw base64."""
    try:
        return decode_base64(text)
    except MalformedBody as error:
        findings.refuse(400, f"Invalid {param}: {error}", param)
        return None
