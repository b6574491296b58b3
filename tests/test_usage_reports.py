"""Reports, lists and exports of the ledger, and lookup of reported costs."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from audiocli.core.reconcile import reconcile_run
from audiocli.core.run_context import RunContext
from audiocli.ledger.budget import RunBudget
from audiocli.ledger.ledger import Ledger
from audiocli.ledger.reports import build_report
from audiocli.mock import KEYS, MockGateway, NoFault, Status, expected_pcm
from audiocli.types.ledger import CostSource, Outcome, Reservation, Settlement
from audiocli.types.requests import HttpRequest
from audiocli.types.results import RunResult
from audiocli.types.routes import Route
from tests.conftest import CommandLine
from tests.pyav_codec import encode

MODEL = "openai/gpt-4o-mini-tts-2025-12-15"


def add_entry(
    ledger: Ledger,
    at: datetime,
    outcome: Outcome = Outcome.OK,
    cost: int | None = 1000,
    source: CostSource = CostSource.REPORTED,
    *,
    gateway: str = "openrouter",
    model: str = "m",
    tag: str | None = None,
    estimate: int | None = None,
    generation_id: str | None = None,
) -> int:
    reservation = Reservation("speak", gateway, model, tag=tag, characters=7, audio_s=2.0, estimate_nanousd=estimate)
    number = ledger.reserve(reservation)
    cost_source = source if cost is not None else CostSource.UNKNOWN
    ledger.settle(number, Settlement(outcome, cost, cost_source, generation_id=generation_id))
    with ledger.transaction() as database:
        database.execute("UPDATE entries SET at_ms = ? WHERE id = ?", (int(at.timestamp() * 1000), number))
    return number


@pytest.fixture
def kathmandu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set a time zone that is 5:45 h ahead of UTC."""
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_days_are_local_unless_utc_is_requested(audiocli: CommandLine, kathmandu: None) -> None:
    ledger = Ledger(audiocli.ledger_path)
    # Midnight in Kathmandu is between 18:10 and 18:20 UTC.
    add_entry(ledger, datetime(2026, 11, 1, 18, 10, tzinfo=UTC))
    add_entry(ledger, datetime(2026, 11, 1, 18, 20, tzinfo=UTC))
    ledger.close()

    def list_days(*flags: str) -> list[tuple[str, int]]:
        rows = audiocli("usage", "--since", "all", "--json", *flags).json["rows"]
        return [(row["day"], row["requests"]) for row in rows]

    assert list_days() == [("2026-11-01", 1), ("2026-11-02", 1)]
    assert list_days("--utc") == [("2026-11-01", 2)]
    assert list_days("--until", "2026-11-01") == [("2026-11-01", 1)]
    listed = audiocli("usage", "list", "--since", "all", "--json", "--utc").text.splitlines()
    assert json.loads(listed[0])["at"] == "2026-11-01T18:10:00.000+00:00"


def test_weeks_start_on_monday_and_groups_combine(audiocli: CommandLine) -> None:
    ledger = Ledger(audiocli.ledger_path)
    for day in (1, 2, 8, 9):  # 2026-11-01 is a Sunday
        add_entry(ledger, datetime(2026, 11, day, 12).astimezone(), tag="book")
    add_entry(ledger, datetime(2026, 12, 1, 12).astimezone(), tag="talk")
    ledger.close()
    argv = ("usage", "--since", "all", "--json")

    weeks = audiocli(*argv, "--by", "week").json["rows"]
    mixed_entries = audiocli(*argv, "--by", "tag,month", "--by", "week").json["rows"]

    assert [(row["week"], row["requests"]) for row in weeks] == [
        ("2026-10-26", 1), ("2026-11-02", 2), ("2026-11-09", 1), ("2026-11-30", 1),
    ]  # fmt: skip
    assert [(row["tag"], row["month"], row["week"]) for row in mixed_entries] == [
        ("book", "2026-11", "2026-10-26"), ("book", "2026-11", "2026-11-02"), ("book", "2026-11", "2026-11-09"),
        ("talk", "2026-12", "2026-11-30"),
    ]  # fmt: skip


@pytest.fixture
def mixed_entries(audiocli: CommandLine) -> CommandLine:
    """Return a command line whose ledger has an entry for every outcome and cost source."""
    ledger = Ledger(audiocli.ledger_path)
    now = datetime.now().astimezone()
    add_entry(ledger, now, cost=1_000_000)
    add_entry(ledger, now, cost=2_000_000, source=CostSource.COMPUTED, gateway="openai")
    add_entry(ledger, now, cost=4_000_000, source=CostSource.ESTIMATED, tag="book")
    add_entry(ledger, now, Outcome.REFUSED, 0, CostSource.COMPUTED)
    for outcome in (Outcome.FAILED, Outcome.UNKNOWN, Outcome.CANCELLED):
        add_entry(ledger, now, outcome, None)
    add_entry(ledger, now, Outcome.UNSENT, 0, CostSource.COMPUTED)
    ledger.close()
    return audiocli


def test_estimated_cost_is_not_shown_as_billed(mixed_entries: CommandLine) -> None:
    total = mixed_entries("usage", "--json").json["total"]
    table, sources = mixed_entries("usage").text.split("\n\n")

    assert (total["requests"], total["failures"], total["unknown"]) == (7, 3, 3)
    assert (total["audio_s"], total["characters"]) == (14.0, 49)
    assert total["by_source"] == {"reported": 0.001, "computed": 0.002, "estimated": 0.004}
    assert total["requests_by_source"] == {"computed": 2, "estimated": 1, "reported": 1, "unknown": 3}
    assert "$0.007" in table.splitlines()[-1]
    assert [line.split()[:3] for line in sources.splitlines()[1:]] == [
        ["reported", "$0.001", "1"],
        ["computed", "$0.002", "2"],
        ["estimated", "about", "$0.004"],
        ["unknown", "unknown", "3"],
    ]
    assert "not billed amounts" in sources


def test_bars_are_shown_only_on_a_terminal(mixed_entries: CommandLine) -> None:
    on_terminal = mixed_entries("usage", "--by", "gateway", terminal="out", variables={"COLUMNS": "120"}).text
    in_pipe = mixed_entries("usage", "--by", "gateway").text

    lengths = {line.split()[0]: line.count("#") for line in on_terminal.splitlines() if "#" in line}
    assert lengths == {"openai": 8, "openrouter": 20}
    assert "#" not in in_pipe
    assert all(
        "#" not in mixed_entries("usage", flag, "--by", "gateway", terminal="out").text for flag in ("--json", "--csv")
    )


def test_csv_has_cost_sources_as_columns(mixed_entries: CommandLine) -> None:
    [*_, row] = csv.DictReader(io.StringIO(mixed_entries("usage", "--by", "gateway", "--csv").text))

    assert (row["gateway"], row["requests"], row["failures"], row["unknown"]) == ("openrouter", "6", "3", "3")
    assert (row["cost_usd"], row["reported_usd"], row["estimated_usd"]) == ("0.005", "0.001", "0.004")


@pytest.mark.parametrize(
    ("flags", "expected_ids"),
    [
        (["--gateway", "openai"], [2]),
        (["--model", "openai:m"], [2]),
        (["--model", "m", "--outcome", "refused"], [4]),
        (["--tag", "book"], [3]),
        (["--command", "transcribe"], []),
        (["--limit", "2"], [7, 8]),
        (["--outcome", "ok", "--limit", "2"], [2, 3]),
    ],
)
def test_list_can_be_filtered(mixed_entries: CommandLine, flags: list[str], expected_ids: list[int]) -> None:
    lines = mixed_entries("usage", "list", "--json", *flags).text.splitlines()

    assert [json.loads(line)["id"] for line in lines] == expected_ids


def test_export_has_every_column_of_every_entry(mixed_entries: CommandLine) -> None:
    lines = [json.loads(line) for line in mixed_entries("usage", "export").text.splitlines()]
    filtered = mixed_entries("usage", "export", "--gateway", "openai", "--json").text.splitlines()

    assert [
        {name: value for name, value in line.items() if name != "at"} for line in lines
    ] == mixed_entries.read_ledger_entries()
    assert len(filtered) == 1


@pytest.mark.parametrize(
    ("argv", "expected_word"),
    [
        (["--by", "hour"], "gateway"),
        (["--since", "21.11.2026"], "yesterday"),
        (["list", "--outcome", "good"], "refused"),
        (["list", "--limit", "0"], "between 1"),
        (["list", "--until", "2026-13-01"], "yesterday"),
        (["export", "--outcome", "good"], "refused"),
        (["reconcile", "--limit", "-1"], "between 1"),
        (["--utc", "list"], "after the subcommand"),
    ],
)
def test_invalid_value_error_lists_accepted_values(audiocli: CommandLine, argv: list[str], expected_word: str) -> None:
    r = audiocli("usage", *argv)

    assert (r.code, r.out) == (2, b"")
    assert expected_word in r.err


def test_totals_match_the_entries_after_changes(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    now = datetime.now().astimezone()
    for number in range(20):
        add_entry(ledger, now, Outcome.OK if number % 3 else Outcome.FAILED, number or None, tag=str(number % 2))
    with ledger.transaction() as database:
        database.execute("DELETE FROM entries WHERE id = 2")
        database.execute("UPDATE entries SET gateway = 'other', cost_nanousd = 500 WHERE id = 3")

    [row] = build_report(ledger, since=None, until=None, by=[])
    [(count, cost)] = ledger.query("SELECT count(*), sum(cost_nanousd) FROM entries", ())
    assert (row.requests, row.cost_nanousd) == (count, cost) == (19, sum(range(20)) - 1 - 2 + 500)
    ledger.close()


# --- reported costs --------------------------------------------------------------------------------------------------


def build_generation(**fields: Any) -> Status:
    return Status(200, {"data": fields})


@pytest.fixture
def estimated_entries(audiocli: CommandLine) -> CommandLine:
    """Return a command line whose ledger has five OpenRouter entries, estimated at 1,000 nanodollars each."""
    ledger = Ledger(audiocli.ledger_path)
    now = datetime.now().astimezone()
    for number in range(5):
        add_entry(ledger, now, cost=1000, source=CostSource.ESTIMATED, estimate=1000, generation_id=f"gen-{number}")
    ledger.close()
    return audiocli


def list_lookups(audiocli: CommandLine) -> list[str]:
    return [seen.query["id"] for seen in audiocli.gateway.requests if seen.path.endswith("/generation")]


def test_reconcile_is_bounded_and_every_entry_gets_its_turn(estimated_entries: CommandLine) -> None:
    first = estimated_entries("usage", "reconcile", "--limit", "2", "--json")
    second = estimated_entries("usage", "reconcile", "--limit", "2")
    third = estimated_entries("usage", "reconcile", "--limit", "2")

    # The mock knows none of the requests, so they are requested last the next time.
    assert (first.json["missing"], first.json["left"]) == (2, 3)
    assert "3 remaining: run the command again" in second.text
    assert list_lookups(estimated_entries) == ["gen-4", "gen-3", "gen-2", "gen-1", "gen-0", "gen-4"]
    assert set(first.waits_s) == {0.1}
    assert third.code == 0


def test_byok_separates_the_fee_from_the_provider_bill(estimated_entries: CommandLine) -> None:
    estimated_entries.gateway.add_default_fault(
        build_generation(total_cost=0.000002, is_byok=True, upstream_inference_cost=0.00004),
        path="/generation",
        method="GET",
    )
    done = estimated_entries("usage", "reconcile", "--json").json
    total = estimated_entries("usage", "--json").json["total"]

    assert (done["corrected"], done["after_usd"], done["upstream_usd"]) == (5, 0.00001, 0.0002)
    assert {
        (entry["cost_nanousd"], entry["upstream_nanousd"]) for entry in estimated_entries.read_ledger_entries()
    } == {(2000, 40_000)}
    assert (total["cost_usd"], total["upstream_usd"]) == (0.00001, 0.0002)
    assert "upstream" in estimated_entries("usage").text


def test_upstream_cost_without_byok_is_not_recorded(estimated_entries: CommandLine) -> None:
    estimated_entries.gateway.add_default_fault(
        build_generation(total_cost=0.000002, is_byok=False, upstream_inference_cost=0.00004),
        path="/generation",
        method="GET",
    )
    estimated_entries("usage", "reconcile")

    assert {entry["upstream_nanousd"] for entry in estimated_entries.read_ledger_entries()} == {None}


def test_large_estimate_errors_are_reported_per_model(estimated_entries: CommandLine) -> None:
    estimated_entries.gateway.add_default_fault(
        build_generation(total_cost=0.0000012), path="/generation", method="GET"
    )
    done = estimated_entries("usage", "reconcile", "--json").json
    second = estimated_entries("usage", "reconcile").text

    assert done["drift"] == [
        {"model": "openrouter:m", "requests": 5, "estimated_usd": 5e-06, "billed_usd": 6e-06, "percent": 20.0}
    ]
    assert "openrouter:m: billed $0.000006, estimated $0.000005 (+20 %), 5 requests" in second


def test_small_estimate_errors_are_not_reported(estimated_entries: CommandLine) -> None:
    estimated_entries.gateway.add_default_fault(
        build_generation(total_cost=0.0000011), path="/generation", method="GET"
    )

    assert estimated_entries("usage", "reconcile", "--json").json["drift"] == []


@pytest.mark.parametrize("cost", [-1, "free", 1e30])
def test_invalid_cost_stays_open_with_a_warning(estimated_entries: CommandLine, cost: Any) -> None:
    estimated_entries.gateway.add_default_fault(
        build_generation(total_cost=cost, usage=None), path="/generation", method="GET"
    )
    r = estimated_entries("usage", "reconcile")

    assert r.code == 0
    assert "invalid cost" in r.err
    assert {entry["cost_source"] for entry in estimated_entries.read_ledger_entries()} == {"estimated"}


LONG_TEXT = " ".join(f"This is sentence number {number} of the text." for number in range(8))


def test_long_speech_ends_with_its_reported_cost(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli("models", "-g", "openrouter")
    r = audiocli(
        "speak", LONG_TEXT, "--max-chars", "60", "-m", f"openrouter:{MODEL}", "-o", tmp_path / "x.wav", "--json"
    )

    assert r.code == 0, r.err
    assert len(r.ledger) > 2
    assert {entry["cost_source"] for entry in r.ledger} == {"reported"}
    assert (r.json["cost_source"], round(r.json["cost_usd"] * 1e9)) == ("reported", audiocli.gateway.billed_nanousd)


def test_long_transcription_ends_with_its_reported_cost(audiocli: CommandLine, tmp_path: Path) -> None:
    talk = tmp_path / "talk.wav"
    talk.write_bytes(encode(expected_pcm("Hello there, world. " * 5), "wav"))
    audiocli.variables["AROUTER_API_KEY"] = KEYS["arouter"]
    argv = ("transcribe", talk, "--max-chunk", "3", "-m", "arouter:openai/whisper-large-v3", "-o", tmp_path / "x.txt")
    r = audiocli(*argv, "--json")

    assert r.code == 0, r.err
    assert len(r.ledger) > 1
    assert r.json["cost_source"] == "reported", r.ledger
    assert round(r.json["cost_usd"] * 1e9) == audiocli.gateway.billed_nanousd


@pytest.mark.parametrize("fault", [Status(500), Status(404), Status(200, "what?")])
def test_failed_cost_lookup_does_not_fail_the_run(audiocli: CommandLine, tmp_path: Path, fault: Status) -> None:
    audiocli("models", "-g", "openrouter")
    audiocli.gateway.add_default_fault(fault, path="/generation", method="GET")
    argv = ("speak", LONG_TEXT, "--max-chars", "60", "-m", f"openrouter:{MODEL}", "-o", tmp_path / "x.wav", "--json")
    r = audiocli(*argv)

    assert r.code == 0, r.err
    assert r.json["cost_source"] == "estimated"
    assert len(list_lookups(audiocli)) <= 3 * len(r.ledger)


def test_short_text_does_not_wait_for_its_cost(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("speak", "Hello there.", "-m", f"openrouter:{MODEL}", "-o", tmp_path / "x.wav")

    assert (r.code, list_lookups(audiocli)) == (0, [])


@pytest.mark.parametrize("cost", ["-0.5", "nan", "1e30", "free"])
def test_invalid_cost_in_response_is_unknown_with_a_warning(
    audiocli: CommandLine, gateway: MockGateway, tmp_path: Path, cost: str
) -> None:
    audiocli.variables["OPENAI_API_KEY"] = "sk-test"
    audiocli.write_config('[prices]\n"openai:tts-1" = { per = "characters", usd = 0.000015 }\n')
    talk = tmp_path / "talk.wav"
    talk.write_bytes(encode(expected_pcm("Hello there."), "wav"))
    gateway.queue_faults(Status(200, {"text": "Hello there.", "usage": {"cost": cost}}), NoFault())

    first = audiocli("transcribe", talk, "-m", "openrouter:openai/whisper-large-v3", "-o", tmp_path / "x.txt")
    second = audiocli("speak", "Hello.", "-m", "openai:tts-1", "-o", tmp_path / "x.wav")

    assert (first.code, second.code) == (0, 0), first.err
    assert "invalid cost" in first.err
    assert (first.ledger[0]["outcome"], first.ledger[0]["cost_source"]) == ("ok", "unknown")
    assert second.ledger[0]["cost_source"] == "computed"


class SilentTransport:
    """A transport that accepts every request and never responds."""

    @asynccontextmanager
    async def open(self, request: HttpRequest) -> AsyncIterator[Any]:
        await asyncio.sleep(60)
        yield None


@pytest.mark.parametrize("interruption", ["time", "Ctrl-C"])
def test_timeout_or_ctrl_c_in_cost_lookup_does_not_change_the_result(tmp_path: Path, interruption: str) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    for number in range(6):
        entry = ledger.reserve(Reservation("speak", "openrouter", "m", run_id="this"))
        settlement = Settlement(Outcome.OK, 10, CostSource.ESTIMATED, generation_id=f"gen-{number}")
        ledger.settle(entry, settlement)
    route = Route("openrouter", "openrouter", "http://127.0.0.1:9/v1", "m", "sk-or-test")
    run_result = RunResult(route, "m", 6, 6, 60, CostSource.ESTIMATED)
    silent_transport: Any = SilentTransport()
    no_cache: Any = None
    ctx = RunContext(
        transport=lambda url: silent_transport, ledger=ledger, cache=no_cache, sleep=asyncio.sleep,
        now_s=time.monotonic,
        random=lambda: 0.5, info=lambda message: None, debug=lambda message: None, budget=RunBudget("this"),
    )  # fmt: skip

    async def run() -> RunResult:
        task = asyncio.current_task()
        assert task is not None
        if interruption == "Ctrl-C":
            asyncio.get_running_loop().call_later(0.05, task.cancel)
        done = await reconcile_run(run_result, (route,), ctx, timeout_s=0.1 if interruption == "time" else 30)
        await asyncio.sleep(0)
        return done

    started_s = time.monotonic()
    assert asyncio.run(run()) == run_result
    assert time.monotonic() - started_s < 5
    ledger.close()
