"""Runs become medians, paired ratios and verdicts, a table and JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TypeAlias

from figures import Figure, Row, elapsed_ms
from rig import Sample


@dataclass(frozen=True, slots=True)
class Round:
    """One run of a command, and what ran right before it."""

    own: Sample
    bare: Sample
    curl: Sample | None


QUIET_BARE_MS = 10

Measured: TypeAlias = Mapping[str, Sequence[Round]]


@dataclass(frozen=True, slots=True)
class Line:
    """One figure over all rounds. Ratios and differences are medians of those within a round."""

    row: str
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
    found: float | None
    verdict: str


def _over_row(figure: Figure, rounds: Sequence[Round], measured: Measured) -> float | None:
    assert figure.goal is not None
    other = measured.get(figure.goal.row)
    if other is None:
        return None
    return median(figure.of(one.own) for one in rounds) - median(figure.of(one.own) for one in other)


# The words of a goal, and what is held against its limit.
MEASURES: dict[str, tuple[str, Callable[[Figure, Sequence[Round], Measured], float | None]]] = {
    "times bare": (
        "≤ {limit:g} × bare",
        lambda figure, rounds, _: median(figure.of(one.own) / elapsed_ms(one.bare) for one in rounds),
    ),
    # The limit is for a machine on which the bare interpreter takes QUIET_BARE_MS; on a slower one, or a busy one, what
    # was found is brought to that by the interpreter of the same round.
    "over bare": (
        "≤ bare + {limit:g} {unit}, of a bare of 10",
        lambda figure, rounds, _: median(
            (figure.of(one.own) - elapsed_ms(one.bare)) * QUIET_BARE_MS / max(elapsed_ms(one.bare), QUIET_BARE_MS)
            for one in rounds
        ),
    ),
    "at most": ("≤ {limit:g} {unit}", lambda figure, rounds, _: median(figure.of(one.own) for one in rounds)),
    "over row": ("≤ 100 MB + {limit:g} {unit}", _over_row),
}


def lines(rows: Sequence[Row], measured: Measured) -> list[Line]:
    """Sum up what was measured, a line for each figure."""
    return [_line(row, figure, measured) for row in rows for figure in row.figures if measured.get(row.name)]


def _line(row: Row, figure: Figure, measured: Measured) -> Line:
    rounds = measured[row.name]
    own = tuple(figure.of(one.own) for one in rounds)
    bare = tuple(elapsed_ms(one.bare) for one in rounds) if "bare" in figure.beside else ()
    curl = tuple(figure.of(one.curl) for one in rounds if one.curl is not None) if "curl" in figure.beside else ()
    words, found, verdict = "", None, ""
    if figure.goal is not None:
        words, measure = MEASURES[figure.goal.measure]
        words = words.format(limit=figure.goal.limit, unit=figure.unit)
        found = measure(figure, rounds, measured)
        verdict = "?" if found is None else "ok" if found <= figure.goal.limit else "over"
    return Line(
        row=row.name,
        label=figure.label,
        unit=figure.unit,
        runs=own,
        bare=bare,
        curl=curl,
        median=median(own),
        cpu_ms=median(one.own.cpu_s for one in rounds) * 1000 if figure.of is elapsed_ms else None,
        times_bare=_ratio(own, bare),
        times_curl=_ratio(own, curl),
        goal=words,
        found=found,
        verdict=verdict,
    )


def _ratio(own: Sequence[float], other: Sequence[float]) -> float | None:
    if len(other) != len(own) or not all(other):
        return None
    return median(one / two for one, two in zip(own, other, strict=True))


def table(found: Sequence[Line], bare: Sequence[Sample]) -> str:
    """Lay the lines out for people."""
    alone = [elapsed_ms(sample) for sample in bare]
    cpu_ms = median(sample.cpu_s for sample in bare) * 1000
    rows = [("", "median", "min–max", "cpu", "× bare", "× curl", "curl", "goal", "found", "")]
    rows.append(
        ("bare interpreter", f"{median(alone):.1f} ms", _span(alone, "ms"), _number(cpu_ms), "1.0", "", "", "", "", "")
    )
    for line in found:
        rows.append(
            (
                line.label,
                f"{_figure(line.median, line.unit)} {line.unit}",
                _span(line.runs, line.unit),
                _number(line.cpu_ms),
                _number(line.times_bare),
                _number(line.times_curl),
                f"{median(line.curl):.1f}" if line.curl else "",
                line.goal,
                (line.found is not None and _figure(line.found, line.unit)) or "",
                line.verdict,
            )
        )
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    laid = []
    for row in rows:
        cells = [
            cell.ljust(width) if at in (0, 7, 9) else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        laid.append("  ".join(cells).rstrip())
    return "\n".join(laid) + "\n"


def noise(bare: Sequence[Sample]) -> str:
    """Say how far the numbers can be trusted."""
    alone = sorted(elapsed_ms(sample) for sample in bare)
    low, high = alone[len(alone) // 4], alone[3 * len(alone) // 4]
    return (
        f"half of the runs of the bare interpreter lie between {low:.1f} and {high:.1f} ms; the limits in ms are for "
        f"{QUIET_BARE_MS} ms, so trust the ratios where it takes longer"
    )


def as_json(found: Sequence[Line], bare: Sequence[Sample], notes: Sequence[str]) -> dict[str, object]:
    """Give everything that was measured, run by run."""
    return {
        "machine": machine(),
        "bare_ms": [elapsed_ms(sample) for sample in bare],
        "figures": [asdict(line) for line in found],
        "notes": list(notes),
    }


def machine() -> dict[str, object]:
    """Describe where this ran, and how busy it is, without its name."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load": [round(value, 2) for value in os.getloadavg()],
    }


def _figure(value: float, unit: str) -> str:
    return f"{value:.2f}" if unit.startswith("×") else f"{value:.1f}"


def _span(values: Sequence[float], unit: str) -> str:
    return f"{_figure(min(values), unit)}–{_figure(max(values), unit)}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
