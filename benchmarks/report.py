"""Compute medians, paired ratios and verdicts, and render them as a table and as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TypeAlias

from harness import Measurement
from metrics import Case, Metric, get_elapsed_ms


@dataclass(frozen=True, slots=True)
class Round:
    """One run of a command, with the baselines that ran right before it."""

    run: Measurement
    bare: Measurement
    curl: Measurement | None


REFERENCE_BARE_MS = 10

RoundsByCase: TypeAlias = Mapping[str, Sequence[Round]]


@dataclass(frozen=True, slots=True)
class Line:
    """One metric over all rounds. Ratios and differences are medians of the values within a round."""

    case: str
    label: str
    unit: str
    runs: tuple[float, ...]
    bare: tuple[float, ...]
    curl: tuple[float, ...]
    median: float
    cpu_ms: float | None
    times_bare: float | None
    times_curl: float | None
    goal: str
    actual: float | None
    verdict: str


def _compare_with_case(metric: Metric, rounds: Sequence[Round], rounds_by_case: RoundsByCase) -> float | None:
    assert metric.goal is not None
    other = rounds_by_case.get(metric.goal.case)
    if other is None:
        return None
    return median(metric.measure(round_.run) for round_ in rounds) - median(
        metric.measure(round_.run) for round_ in other
    )


# Text of a goal, and the value that is compared with its limit.
GOAL_KINDS: dict[str, tuple[str, Callable[[Metric, Sequence[Round], RoundsByCase], float | None]]] = {
    "times bare": (
        "≤ {limit:g} × bare",
        lambda metric, rounds, _: median(metric.measure(round_.run) / get_elapsed_ms(round_.bare) for round_ in rounds),
    ),
    # The limit assumes a machine on which the bare interpreter takes REFERENCE_BARE_MS. On a slower or busy machine the
    # value is scaled by the bare interpreter of the same round.
    "over bare": (
        "≤ bare + {limit:g} {unit}, if bare is 10",
        lambda metric, rounds, _: median(
            (metric.measure(round_.run) - get_elapsed_ms(round_.bare))
            * REFERENCE_BARE_MS
            / max(get_elapsed_ms(round_.bare), REFERENCE_BARE_MS)
            for round_ in rounds
        ),
    ),
    "at most": (
        "≤ {limit:g} {unit}",
        lambda metric, rounds, _: median(metric.measure(round_.run) for round_ in rounds),
    ),
    "at least": (
        "≥ {limit:g} {unit}",
        lambda metric, rounds, _: median(metric.measure(round_.run) for round_ in rounds),
    ),
    "over case": ("≤ 100 MB + {limit:g} {unit}", _compare_with_case),
}


def _judge(kind: str, actual: float | None, limit: float) -> str:
    """Return the verdict on a value: `?` if it is unknown."""
    if actual is None:
        return "?"
    if kind == "at least":
        return "ok" if actual >= limit else "under"
    return "ok" if actual <= limit else "over"


def build_lines(cases: Sequence[Case], rounds_by_case: RoundsByCase) -> list[Line]:
    """Summarize the measurements, one line per metric."""
    return [
        _build_line(case, metric, rounds_by_case)
        for case in cases
        for metric in case.metrics
        if rounds_by_case.get(case.name)
    ]


def _build_line(case: Case, metric: Metric, rounds_by_case: RoundsByCase) -> Line:
    rounds = rounds_by_case[case.name]
    runs = tuple(metric.measure(round_.run) for round_ in rounds)
    bare = tuple(get_elapsed_ms(round_.bare) for round_ in rounds) if "bare" in metric.baselines else ()
    curl = (
        tuple(metric.measure(round_.curl) for round_ in rounds if round_.curl is not None)
        if "curl" in metric.baselines
        else ()
    )
    goal_text, actual, verdict = "", None, ""
    if metric.goal is not None:
        goal_text, measure_goal = GOAL_KINDS[metric.goal.kind]
        goal_text = goal_text.format(limit=metric.goal.limit, unit=metric.unit)
        actual = measure_goal(metric, rounds, rounds_by_case)
        verdict = _judge(metric.goal.kind, actual, metric.goal.limit)
    return Line(
        case=case.name,
        label=metric.label,
        unit=metric.unit,
        runs=runs,
        bare=bare,
        curl=curl,
        median=median(runs),
        cpu_ms=median(round_.run.cpu_s for round_ in rounds) * 1000 if metric.measure is get_elapsed_ms else None,
        times_bare=_compute_ratio(runs, bare),
        times_curl=_compute_ratio(runs, curl),
        goal=goal_text,
        actual=actual,
        verdict=verdict,
    )


def _compute_ratio(runs: Sequence[float], others: Sequence[float]) -> float | None:
    if len(others) != len(runs) or not all(others):
        return None
    return median(value / other_value for value, other_value in zip(runs, others, strict=True))


def render_table(lines: Sequence[Line], bare: Sequence[Measurement]) -> str:
    """Render the lines as a text table."""
    bare_ms = [get_elapsed_ms(measurement) for measurement in bare]
    cpu_ms = median(measurement.cpu_s for measurement in bare) * 1000
    rows = [("", "median", "min–max", "cpu", "× bare", "× curl", "curl", "goal", "actual", "")]
    rows.append(
        (
            "bare interpreter",
            f"{median(bare_ms):.1f} ms",
            _format_range(bare_ms, "ms"),
            _format_number(cpu_ms),
            "1.0",
            "",
            "",
            "",
            "",
            "",
        )
    )
    for line in lines:
        rows.append(
            (
                line.label,
                f"{_format_value(line.median, line.unit)} {line.unit}",
                _format_range(line.runs, line.unit),
                _format_number(line.cpu_ms),
                _format_number(line.times_bare),
                _format_number(line.times_curl),
                f"{median(line.curl):.1f}" if line.curl else "",
                line.goal,
                (line.actual is not None and _format_value(line.actual, line.unit)) or "",
                line.verdict,
            )
        )
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    table_lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column in (0, 7, 9) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        table_lines.append("  ".join(cells).rstrip())
    return "\n".join(table_lines) + "\n"


def describe_noise(bare: Sequence[Measurement]) -> str:
    """Describe how reliable the numbers are."""
    bare_ms = sorted(get_elapsed_ms(measurement) for measurement in bare)
    low, high = bare_ms[len(bare_ms) // 4], bare_ms[3 * len(bare_ms) // 4]
    return (
        f"half of the bare interpreter runs took {low:.1f} to {high:.1f} ms; limits in ms assume "
        f"{REFERENCE_BARE_MS} ms, so prefer the ratios on a slower machine"
    )


def build_json(lines: Sequence[Line], bare: Sequence[Measurement], notes: Sequence[str]) -> dict[str, object]:
    """Return all measurements, run by run."""
    return {
        "machine": describe_machine(),
        "bare_ms": [get_elapsed_ms(measurement) for measurement in bare],
        "figures": [_line_to_json(line) for line in lines],
        "notes": list(notes),
    }


def _line_to_json(line: Line) -> dict[str, object]:
    """Return a line as JSON. The keys `row` and `found` keep their names, so that old results can be compared."""
    values = asdict(line)
    return {"row": values.pop("case"), "found": values.pop("actual"), **values}


def describe_machine() -> dict[str, object]:
    """Describe the machine and its load, without its name."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load": [round(value, 2) for value in os.getloadavg()],
    }


def _format_value(value: float, unit: str) -> str:
    return f"{value:.2f}" if unit.startswith("×") else f"{value:.1f}"


def _format_range(values: Sequence[float], unit: str) -> str:
    return f"{_format_value(min(values), unit)}–{_format_value(max(values), unit)}"


def _format_number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
