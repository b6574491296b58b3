"""Tables on a terminal fit its width; in a pipe they are complete."""

from __future__ import annotations

import json
import re

import pytest

from audiocli.console import Console, count_cells
from tests.conftest import CommandLine, Stream

TABLES = [
    ["models"],
    ["voices"],
    ["usage"],
    ["usage", "--by", "day,gateway,model,command,outcome,tag"],
    ["usage", "list"],
    ["config"],
    ["keys", "list"],
    ["budget"],
    ["jobs"],
]


def write_entries(cli: CommandLine) -> None:
    """Add ledger entries with a long tag, a background job and a spending limit."""
    talk = cli.directory / "talk.wav"
    assert cli("transcribe", talk, "-g", "openai", "--tag", "a-tag-that-is-long-" * 6).code == 0
    assert cli("speak", "Hello there.", "-o", cli.directory / "x.mp3", "-m", "openai:tts-1").code == 0
    assert cli("speak", "Hello there.", "--background", "-g", "therouter").code == 0
    cli.write_config("[budget]\nday = 5\nmonth = 1000\n")


@pytest.mark.parametrize("width", [80, 100, 120])
def test_every_table_fits_the_terminal(all_gateways_cli: CommandLine, width: int) -> None:
    write_entries(all_gateways_cli)
    for argv in TABLES:
        r = all_gateways_cli(*argv, terminal="out err", variables={"COLUMNS": str(width)})

        assert r.code == 0, r.err
        assert len(r.text.splitlines()) > 1, argv
        lines = re.sub(r"\x1b\[[0-9;]*m", "", r.text).splitlines()
        assert [line for line in lines if count_cells(line) > width] == [], argv


def test_table_in_a_pipe_is_complete(all_gateways_cli: CommandLine) -> None:
    refs = [json.loads(line)["ref"] for line in all_gateways_cli("models", "--json").text.splitlines()]

    r = all_gateways_cli("models", variables={"COLUMNS": "40"})

    assert [line.split()[0] for line in r.text.splitlines()[1:]] == refs
    assert "…" not in "".join(line.split("  ")[0] for line in r.text.splitlines())
    assert r.text.splitlines()[0].split() == ["reference", "kind", "price", "voices", "formats", "notes"]


def write_table(width: int, optional: list[str]) -> list[str]:
    out = Stream(is_terminal=True)
    console = Console(stdout=out, stderr=Stream(), stdout_is_terminal=True, stdout_width=width)
    rows = [["gateway:model", "x" * 40, "$0.0014", "你好" * 10]]
    console.write_table(["model", "note", "cost", "text"], rows, numeric=[False, False, True, False], optional=optional)
    return out.getvalue().decode().splitlines()


def test_texts_are_shortened_before_columns_are_omitted() -> None:
    assert write_table(60, ["text", "note"])[0].split() == ["model", "note", "cost", "text"]
    assert write_table(40, ["text", "note"])[0].split() == ["model", "note", "cost"]
    assert write_table(25, ["text", "note"])[0].split() == ["model", "cost"]


@pytest.mark.parametrize("width", [*range(1, 100)])
def test_numbers_stay_complete_at_any_width_that_has_room(width: int) -> None:
    lines = write_table(width, ["text", "note"])

    assert max(map(count_cells, lines)) <= width
    assert width < 12 or "$0.0014" in lines[1]
