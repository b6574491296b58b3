"""Benchmark cases, metrics and goals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from harness import Measurement

SPEECH_MODEL = "openai/gpt-4o-mini-tts-2025-12-15"
TRANSCRIPTION_MODEL = "openai/whisper-large-v3"
KEY = "sk-or-benchmark"
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Goal:
    """A limit for a metric. `kind` is a key of `report.GOAL_KINDS`. `case` names the case to compare with."""

    kind: str
    limit: float
    case: str = ""


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a run. `baselines` names what it can be divided by."""

    label: str
    measure: Callable[[Measurement], float]
    unit: str = "ms"
    goal: Goal | None = None
    baselines: frozenset[str] = frozenset({"bare", "curl"})


@dataclass(frozen=True, slots=True)
class Case:
    """One command. `setup` runs once before. `curl` does the same work, or sends as many bytes.

    `is_heavy` cases run less often. `is_optional` cases are skipped if their command fails.
    """

    name: str
    argv: tuple[str, ...]
    metrics: tuple[Metric, ...]
    setup: tuple[str, ...] | None = None
    curl: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    watch_output: bool = False
    read_gateway_times: bool = False
    is_heavy: bool = False
    is_optional: bool = False


def get_elapsed_ms(measurement: Measurement) -> float:
    """Return the time from process start to process end."""
    return measurement.elapsed_s * 1000


def get_request_ms(measurement: Measurement) -> float:
    """Return the time from process start until the gateway has read the request."""
    assert measurement.received_ns is not None
    return (measurement.received_ns - measurement.started_ns) / 1e6


def get_first_byte_ms(measurement: Measurement) -> float:
    """Return the time from the gateway's first byte of audio to the first byte on the pipe.

    The goal: the first byte comes no later than start-up (`get_request_ms`), plus the delay of the gateway, plus 20 ms.
    Start-up and delay end when the gateway sends its first byte, so this difference is compared with the 20 ms. The
    gateway waits for `gateway.TRICKLE_DELAY_S` after it has read the request; what a client loads meanwhile is free.
    """
    assert measurement.output_ns is not None and measurement.first_byte_ns is not None
    return (measurement.output_ns - measurement.first_byte_ns) / 1e6


def get_peak_mib(measurement: Measurement) -> float:
    """Return the maximum resident size of the process."""
    return measurement.peak_bytes / MIB


def build_openrouter_environment(base_url: str) -> dict[str, str]:
    """Return environment variables that use the loopback gateway as OpenRouter."""
    return {"OPENROUTER_API_KEY": KEY, "OPENROUTER_BASE_URL": base_url}
