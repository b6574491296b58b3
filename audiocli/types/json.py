"""The type of JSON values, and an immutable empty mapping."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

EMPTY_MAPPING: Mapping[str, Any] = MappingProxyType({})
