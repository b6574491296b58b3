"""The shapes of what is measured: commands, numbers of a run, and how good those should be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rig import Sample

SPEECH_MODEL = "openai/gpt-4o-mini-tts-2025-12-15"
HEARING_MODEL = "openai/whisper-large-v3"
KEY = "sk-or-benchmark"
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Goal:
    """A limit and what it limits, which is a name in `report.MEASURES`. `row` is the row it is compared with."""

    measure: str
    limit: float
    row: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a run. `beside` names what it can sensibly be divided by."""

    label: str
    of: Callable[[Sample], float]
    unit: str = "ms"
    goal: Goal | None = None
    beside: frozenset[str] = frozenset({"bare", "curl"})


@dataclass(frozen=True, slots=True)
class Row:
    """One command. `before` is run once. `curl` does the same with the same server, or sends as many bytes.

    `heavy` rows run less often; one that `may_be_missing` is left out where its command does not work.
    """

    name: str
    argv: tuple[str, ...]
    figures: tuple[Figure, ...]
    before: tuple[str, ...] | None = None
    curl: tuple[str, ...] | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    watches_output: bool = False
    asks_gateway: bool = False
    heavy: bool = False
    may_be_missing: bool = False


def elapsed_ms(sample: Sample) -> float:
    """From the start of the process to its end."""
    return sample.elapsed_s * 1000


def request_ms(sample: Sample) -> float:
    """From the start of the process until the gateway has read its request: the start-up of a command that asks."""
    assert sample.received_ns is not None
    return (sample.received_ns - sample.started_ns) / 1e6


def first_byte_ms(sample: Sample) -> float:
    """From the gateway's first byte of audio to ours on the pipe.

    The goal is: a command's first byte comes no later than its start-up (`request_ms`), the time that the gateway
    takes, and 20 ms more. Start-up and the gateway's time end where the gateway sends its first byte, so this
    difference is what is held against the 20 ms. The gateway thinks for `gateway.THINKING_S` after it has read the
    request: what a client loads meanwhile delays nothing.
    """
    assert sample.output_ns is not None and sample.first_byte_ns is not None
    return (sample.output_ns - sample.first_byte_ns) / 1e6


def peak_mib(sample: Sample) -> float:
    """The largest resident size of the process."""
    return sample.peak_bytes / MIB


def openrouter(base_url: str) -> dict[str, str]:
    """Name the loopback gateway as OpenRouter."""
    return {"OPENROUTER_API_KEY": KEY, "OPENROUTER_BASE_URL": base_url}
