"""Ctrl-C during long speech, and a stored key that an environment variable overrides."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from audiocli.mock import Drip, Stall
from tests.conftest import CommandLine
from tests.test_processes import Program, program  # noqa: F401 - a fixture

SENTENCES = " ".join(f"This is sentence number {number} of the text." for number in range(6))


def test_interrupted_speech_reports_cached_chunks_and_cost(
    program: Program,  # noqa: F811
    audiocli: CommandLine,
    tmp_path: Path,
) -> None:
    audiocli.variables["OPENAI_API_KEY"] = "sk-test"
    audiocli.write_config('[prices]\n"openai:tts-1" = { per = "1M characters", usd = 15.0 }\n')
    fast = Drip(block_bytes=1_000_000, interval_s=0)
    audiocli.gateway.queue_faults(fast, fast, Stall(after_bytes=0, seconds=20))
    argv = ("speak", SENTENCES, "-m", "openai:tts-1", "--max-chars", "60", "-j", "1", "-o", tmp_path / "x.wav")
    process = program.start(*argv)
    audiocli.gateway.wait_for_requests(3)

    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)

    entries = audiocli.read_ledger_entries()
    spent_usd = sum(entry["cost_nanousd"] or 0 for entry in entries) / 1e9
    report = re.search(r"interrupted: 2 of 6 chunks are cached, cost \$([\d.]+);.* to resume", err.decode())
    assert (process.returncode, [entry["outcome"] for entry in entries]) == (130, ["ok", "ok", "cancelled"])
    assert report is not None, err
    assert float(report[1]) == pytest.approx(spent_usd, rel=0.05)
    audiocli.gateway.clear_faults()
    assert len(audiocli(*argv).posts) == 4


def test_stored_key_that_a_variable_overrides_is_reported(audiocli: CommandLine) -> None:
    overridden = audiocli("keys", "set", "openrouter", stdin=b"sk-or-test")
    as_json = audiocli("keys", "set", "openrouter", "--json", stdin=b"sk-or-test")
    effective = audiocli("keys", "set", "openrouter", stdin=b"sk-or-test", variables={"OPENROUTER_API_KEY": ""})

    assert (overridden.code, as_json.code, effective.code) == (0, 0, 0)
    assert "warning: OPENROUTER_API_KEY is set and is used instead of the stored key" in overridden.err
    assert "OPENROUTER_API_KEY" in as_json.json["warnings"][0]
    assert "warning" not in effective.err
