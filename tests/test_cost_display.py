"""Costs in text: two significant digits, estimates labelled; costs in JSON: full precision."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from audiocli.costs import Rounding, format_cost, format_usd
from audiocli.types.ledger import CostSource
from tests.conftest import CommandLine

MODEL = "openai:gpt-4o-mini-tts"
AMOUNT = re.compile(r"\$\d+(?:\.\d+)?")


@pytest.mark.parametrize(
    ("nanousd", "text"),
    [
        (0, "$0"),
        (4, "$0.000000004"),
        (1_412_840, "$0.0014"),
        (9_960_000, "$0.01"),
        (123_456_789, "$0.12"),
        (1_234_567_890, "$1.23"),
        (1_234_567_890_123, "$1234.57"),
        (-1_412_840, "-$0.0014"),
        (None, "unknown"),
    ],
)
def test_amount_has_two_significant_digits(nanousd: int | None, text: str) -> None:
    assert format_usd(nanousd) == text


def test_maximum_is_rounded_up_and_remainder_down() -> None:
    assert format_usd(10_020_000, Rounding.UP) == "$0.011"
    assert format_usd(999_715_000, Rounding.DOWN) == "$0.99"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (CostSource.REPORTED, "$0.0014"),
        (CostSource.COMPUTED, "$0.0014"),
        (CostSource.ESTIMATED, "about $0.0014"),
    ],
)
def test_only_estimates_are_labelled(source: CostSource, text: str) -> None:
    assert format_cost(1_412_840, source) == text


# The cost follows from a price per character, and is an estimate with a price per token.
for_every_source = pytest.mark.parametrize(
    ("unit", "source", "label"), [("character", "computed", ""), ("token", "estimated", "about ")]
)


@for_every_source
def test_every_text_output_shows_the_same_cost(
    audiocli: CommandLine, tmp_path: Path, unit: str, source: str, label: str
) -> None:
    audiocli.variables["OPENAI_API_KEY"] = "sk-test"
    audiocli.write_config(f'[prices]\n"{MODEL}" = {{ usd = 0.0000123456, per = "{unit}" }}\n')

    result = audiocli("speak", "Hello there, world.", "-m", MODEL, "-o", tmp_path / "x.mp3")
    entry = audiocli("usage", "list", "--json").json

    assert (result.code, entry["cost_source"]) == (0, source), result.err
    amount = label + format_usd(round(entry["cost_usd"] * 1e9))
    assert entry["cost_usd"] != float(amount.rpartition("$")[2])
    assert f"cost {amount}" in result.err
    for report in (("usage",), ("usage", "list"), ("usage", "--by", "model")):
        text = audiocli(*report).text
        assert amount in text, text
        assert {*AMOUNT.findall(text)} == {*AMOUNT.findall(amount)}, text


@for_every_source
def test_every_surface_labels_estimates(
    audiocli: CommandLine, tmp_path: Path, unit: str, source: str, label: str
) -> None:
    audiocli.variables["OPENAI_API_KEY"] = "sk-test"
    audiocli.write_config(f'[budget]\nday = 5.0\n[prices]\n"{MODEL}" = {{ usd = 0.0000123456, per = "{unit}" }}\n')
    speak = ("speak", "Hello there, world.", "-m", MODEL, "-o", tmp_path / "x.mp3")

    plan, plan_document = audiocli(*speak, "-n"), audiocli(*speak, "-n", "--json").json
    result = audiocli(*speak, "--json").json
    amount = label + format_usd(round(result["cost_usd"] * 1e9))
    verify, verify_document = audiocli("usage", "verify"), audiocli("usage", "verify", "--json").json
    budget, budget_document = audiocli("budget"), audiocli("budget", "--json").json
    summary = audiocli("usage", "--json").json

    assert f"price       {amount}" in plan.text
    assert {plan_document["cost_source"], *(route["cost_source"] for route in plan_document["routes"])} == {source}
    assert result["cost_source"] == source
    assert f"total cost {amount}" in verify.text
    assert verify_document["cost_source"] == source
    assert [*summary["total"]["by_source"]] == [source]
    [row] = [line for line in budget.text.splitlines() if line.startswith("day ")]
    assert row.count("about $") == 2 * bool(label)
    assert budget_document["caps"]["day"]["estimated"] is bool(label)


def test_unknown_price_is_unknown_in_a_dry_run(audiocli: CommandLine) -> None:
    r = audiocli("speak", "Hello", "-m", MODEL, "-n", "--json", variables={"OPENAI_API_KEY": "sk-test"})

    assert (r.json["price_usd"], r.json["cost_source"]) == (None, "unknown")
