"""Measure the strength of the tests: change the code in small ways, and list the changes that no test notices.

`python -m scripts.mutants [--count N] [--seed N] [--module NAME]` makes mutants of the modules in `TESTS`, one change
in each, and runs the tests of the module in a copy of the checkout. A mutant that the tests do not notice survives.
Those of `EQUIVALENT` are expected, with the reason. The exit code is 1 if another one survives.

`.ci/nightly` runs 300 mutants. A mutant takes 3 to 8 seconds on one core.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).parent.parent
# What the tests of the modules read.
COPIED = ("audiocli", "tests", "scripts", "pyproject.toml")
DEFAULT_COUNT, DEFAULT_SEED = 300, 21
# A mutant may loop forever; the tests of a module take at most 30 s.
TIMEOUT_S = 180.0

# The tests that must notice every mutant of a module. The fastest are first, because the first failure ends a run.
TESTS: dict[str, tuple[str, ...]] = {
    "audiocli/core/retry_policy.py": ("tests/test_retry_limits.py", "tests/test_attempts.py"),
    "audiocli/ledger/budget.py": ("tests/test_budget.py",),
    "audiocli/audio/integrity.py": ("tests/test_integrity.py",),
    "audiocli/text/cues.py": ("tests/test_captions.py", "tests/test_guard.py", "tests/test_output_formats.py"),
}

# Mutants that behave like the code, or differ in a way that does not matter, by their name.
EQUIVALENT: dict[str, str] = {
    "integrity:: 256 -> 257": "the size of the blocks that are read",
    "integrity:: 1024 -> 1025": "the size of the blocks that are read",
    "integrity:_check_file: position < size_bytes -> position <= size_bytes": "at the end, an empty block is read",
    "integrity:_check_file: skip_bytes > READ_BLOCK_BYTES -> skip_bytes >= READ_BLOCK_BYTES": "read or skipped",
    "integrity:_check_file: break -> pass": "only for a file that becomes shorter while it is read",
    "cues:normalize_transcript: 0.001 <= duration_s <= _MAX_TIME_S -> 0.001 <= duration_s < _MAX_TIME_S": (
        "no recording has exactly 32 years"
    ),
    "cues:normalize_transcript: 0.001 <= duration_s <= _MAX_TIME_S -> 0.001 < duration_s <= _MAX_TIME_S": (
        "no recording has exactly a millisecond"
    ),
    "cues:_clamp_time: abs(time_s) <= _MAX_TIME_S -> abs(time_s) < _MAX_TIME_S": "no recording has exactly 32 years",
    "cues:_time_passage: 0 -> 1": "the indent of a line without a maximum width",
    "cues:_time_passage: 1 -> 2 (2)": "a timed word begins where its part of the text begins",
    "cues:: 1000000 -> 1000001": "a width that no line has",
    "cues:_Passage: False -> True": "a text without times has no pauses at which it could be split",
    "cues:TimedText: False -> True": "only the event at the end of a paragraph has the default",
    "cues:_set_times: 1 -> 2 (2)": "no atom starts at the end of the text, where this end is used",
    "cues:: 1000000.0 -> 1000001.0": "no measure of a model is that large",
    "cues:_keep_measure: abs(value) <= _MAX_MEASURE -> abs(value) < _MAX_MEASURE": "no measure is exactly a million",
    "cues:: 1000000000.0 -> 1000000001.0": "no recording has more than 32 years",
    "cues:_schedule_cues: max_end_ms is not None and duration_s is not None -> "
    "max_end_ms is not None or duration_s is not None": "both are None, or neither",
    "cues:_schedule_cues: max_end_ms < len(drafts) -> max_end_ms <= len(drafts)": "a millisecond for each cue",
    "cues:_schedule_cues: 1000 -> 1001 (7)": "the gap of 83 ms is the same after rounding",
    "cues:_insert_events: 0 -> 1": "the parts of a word that fits a line are joined again",
    "cues:_set_times: 1 -> 2": "the start of the anchor before the text, whose times are equal",
    "cues:_draft_cues: end_before_gap_s - start_s >= _MIN_CUE_S -> end_before_gap_s - start_s > _MIN_CUE_S": (
        "exactly a second, after a subtraction of floats"
    ),
    "cues:_set_times: text_end + 1 -> text_end - 1": "no atom starts at the end of the text, where this end is used",
    "cues:_draft_cues: end_before_gap_s < end_s -> end_before_gap_s <= end_s": "both ends are then the same",
}

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
}


class Mutant(NamedTuple):
    """One change of a module. `name` says where and what, and does not depend on line numbers."""

    module: str
    name: str
    source: str


def list_mutants(module: str, source: str) -> list[Mutant]:
    """Return all mutants of a module."""
    tree = ast.parse(source)
    scopes = _map_scopes(tree)
    # `zip(..., strict=True)` is an assertion.
    assertions = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "strict"}
    counts: Counter[str] = Counter()
    mutants = []
    for index, node in enumerate(ast.walk(tree)):
        for change in range(_count_changes(node) if id(node) not in assertions else 0):
            mutated = copy.deepcopy(tree)
            target = next(n for i, n in enumerate(ast.walk(mutated)) if i == index)
            replacement = _change(target, change)
            _replace(mutated, target, replacement)
            name = f"{Path(module).stem}:{scopes.get(index, '')}: {_show(node)} -> {_show(replacement)}"
            counts[name] += 1
            name += f" ({counts[name]})" if counts[name] > 1 else ""
            mutants.append(Mutant(module, name, ast.unparse(ast.fix_missing_locations(mutated)) + "\n"))
    return mutants


def _map_scopes(tree: ast.Module) -> dict[int, str]:
    """Return the name of the function or class around each node, by its index in `ast.walk`."""
    names: dict[int, str] = {}

    def visit(node: ast.AST, name: str) -> None:
        names[id(node)] = name
        inner = f"{name}.{node.name}".strip(".") if isinstance(node, ast.FunctionDef | ast.ClassDef) else name
        for child in ast.iter_child_nodes(node):
            visit(child, inner)

    visit(tree, "")
    return {index: names[id(node)] for index, node in enumerate(ast.walk(tree))}


def _count_changes(node: ast.AST) -> int:
    """Return how many mutants a node has."""
    match node:
        case ast.Compare(ops=ops):
            return len(ops)
        case ast.BoolOp() | ast.UnaryOp(op=ast.Not()) | ast.IfExp():
            return 1
        case ast.BinOp(op=op):
            return int(type(op) in _OPERATORS)
        case ast.AugAssign(op=op):
            return int(type(op) in _OPERATORS)
        case ast.Constant(value=bool() | int() | float()):
            return 1
        case ast.If() | ast.While():
            return 1
        case ast.Return(value=value):
            return int(value is not None and not (isinstance(value, ast.Constant) and value.value is None))
        case ast.Break() | ast.Continue():
            return 1
    return 0


def _change(node: ast.AST, change: int) -> ast.AST:
    """Return the mutant of a node, which may be the node itself with other fields."""
    node = copy.deepcopy(node)
    match node:
        case ast.Compare():
            node.ops[change] = _COMPARISONS[type(node.ops[change])]()
        case ast.BoolOp():
            node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        case ast.UnaryOp():
            return node.operand
        case ast.IfExp():
            node.body, node.orelse = node.orelse, node.body
        case ast.BinOp() | ast.AugAssign():
            node.op = _OPERATORS[type(node.op)]()
        case ast.Constant(value=bool()):
            node.value = not node.value
        case ast.Constant(value=int() | float() as number):
            node.value = number + 1
        case ast.If() | ast.While():
            node.test = ast.UnaryOp(ast.Not(), node.test)
        case ast.Return():
            node.value = ast.Constant(None)
        case ast.Break():
            return ast.Pass()
        case ast.Continue():
            return ast.Break()
    return node


def _replace(tree: ast.AST, target: ast.AST, replacement: ast.AST) -> None:
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is target:
                setattr(parent, name, replacement)
            elif isinstance(value, list) and any(item is target for item in value):
                value[:] = [replacement if item is target else item for item in value]


def _show(node: ast.AST) -> str:
    """Return the code of a node on one line; of a statement with a body, its condition."""
    if isinstance(node, ast.If | ast.While):
        node = node.test
    return " ".join(ast.unparse(ast.fix_missing_locations(node)).split())[:120]


def choose_mutants(mutants: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """Return a sample, in the order of the modules."""
    chosen = random.Random(seed).sample(mutants, min(count, len(mutants)))
    return sorted(chosen, key=lambda mutant: mutants.index(mutant))


def run_tests(checkout: Path, module: str) -> str | None:
    """Run the tests of a module in a copy. Return the first one that fails; None if all pass."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "--no-header", *TESTS[module]],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return "timeout"
    if done.returncode == 0:
        return None
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return lines[0] if lines else f"exit code {done.returncode}"


def check_mutants(checkout: Path, mutants: list[Mutant]) -> Iterator[tuple[Mutant, str | None]]:
    """Yield each mutant with what noticed it."""
    for mutant in mutants:
        path = checkout / mutant.module
        original = path.read_text("utf-8")
        path.write_text(mutant.source, "utf-8")
        try:
            yield mutant, run_tests(checkout, mutant.module)
        finally:
            path.write_text(original, "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.mutants")
    parser.add_argument("--count", type=int, default=DEFAULT_COUNT, help="number of mutants")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    parser.add_argument("--module", choices=[Path(module).stem for module in TESTS], help="only this module")
    options = parser.parse_args()
    modules = [module for module in TESTS if options.module in (None, Path(module).stem)]
    mutants = [mutant for module in modules for mutant in list_mutants(module, (CHECKOUT / module).read_text("utf-8"))]
    chosen = choose_mutants(mutants, options.count, options.seed)
    started_s, survivors = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="audiocli-mutants-") as directory:
        checkout = Path(directory)
        for name in COPIED:
            source = CHECKOUT / name
            if source.is_dir():
                shutil.copytree(source, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, checkout / name)
        for module in modules:
            if (failure := run_tests(checkout, module)) is not None:
                sys.stderr.write(f"the tests of {module} fail without a change: {failure}\n")
                return 2
        for mutant, noticed_by in check_mutants(checkout, chosen):
            if noticed_by is None:
                survivors.append(mutant)
                sys.stdout.write(f"survived  {mutant.name}\n")
                sys.stdout.flush()
    unexplained = [mutant for mutant in survivors if mutant.name not in EQUIVALENT]
    sys.stdout.write(
        f"{len(chosen)} of {len(mutants)} mutants in {time.monotonic() - started_s:.0f} s: "
        f"{len(chosen) - len(survivors)} noticed, {len(survivors) - len(unexplained)} equivalent, "
        f"{len(unexplained)} survived\n"
    )
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
