"""Reports, lists and exports of the ledger, and true costs asked for afterwards."""

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

from audiocli.core.reconcile import settled
from audiocli.core.run_context import RunContext
from audiocli.ledger.ledger import Ledger
from audiocli.ledger.reports import report
from audiocli.types.values import Reservation, CostSource, Outcome, Route, RunResult, Settlement, WireRequest
from tests.conftest import CommandLine
from tests.gateway import KEYS, LoopbackGateway, Normal, Status, encode, expected_pcm

MODEL = "openai/gpt-4o-mini-tts-2025-12-15"


def enter(
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
    charge = Reservation("speak", gateway, model, tag=tag, characters=7, audio_s=2.0, estimate_nanousd=estimate)
    number = ledger.reserve(charge)
    known = source if cost is not None else CostSource.UNKNOWN
    ledger.settle(number, Settlement(outcome, cost, known, generation_id=generation_id))
    with ledger._transaction() as database:
        database.execute("UPDATE entries SET at_ms = ? WHERE id = ?", (int(at.timestamp() * 1000), number))
    return number


@pytest.fixture
def kathmandu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Five hours and three quarters before UTC."""
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_days_are_local_or_of_utc(audiocli: CommandLine, kathmandu: None) -> None:
    ledger = Ledger(audiocli.ledger_path)
    # 18:10 and 18:20 UTC lie on both sides of midnight in Kathmandu.
    enter(ledger, datetime(2026, 11, 1, 18, 10, tzinfo=UTC))
    enter(ledger, datetime(2026, 11, 1, 18, 20, tzinfo=UTC))
    ledger.close()

    def days(*flags: str) -> list[tuple[str, int]]:
        rows = audiocli("usage", "--since", "all", "--json", *flags).json["rows"]
        return [(row["day"], row["requests"]) for row in rows]

    assert days() == [("2026-11-01", 1), ("2026-11-02", 1)]
    assert days("--utc") == [("2026-11-01", 2)]
    assert days("--until", "2026-11-01") == [("2026-11-01", 1)]
    listed = audiocli("usage", "list", "--since", "all", "--json", "--utc").text.splitlines()
    assert json.loads(listed[0])["at"] == "2026-11-01T18:10:00.000+00:00"


def test_weeks_begin_on_monday_and_groups_combine(audiocli: CommandLine) -> None:
    ledger = Ledger(audiocli.ledger_path)
    for day in (1, 2, 8, 9):  # 2026-11-01 is a Sunday
        enter(ledger, datetime(2026, 11, day, 12).astimezone(), tag="book")
    enter(ledger, datetime(2026, 12, 1, 12).astimezone(), tag="talk")
    ledger.close()
    argv = ("usage", "--since", "all", "--json")

    weeks = audiocli(*argv, "--by", "week").json["rows"]
    mixed = audiocli(*argv, "--by", "tag,month", "--by", "week").json["rows"]

    assert [(row["week"], row["requests"]) for row in weeks] == [
        ("2026-10-26", 1), ("2026-11-02", 2), ("2026-11-09", 1), ("2026-11-30", 1),
    ]  # fmt: skip
    assert [(row["tag"], row["month"], row["week"]) for row in mixed] == [
        ("book", "2026-11", "2026-10-26"), ("book", "2026-11", "2026-11-02"), ("book", "2026-11", "2026-11-09"),
        ("talk", "2026-12", "2026-11-30"),
    ]  # fmt: skip


@pytest.fixture
def mixed(audiocli: CommandLine) -> CommandLine:
    """One request of every way to end, and to be known."""
    ledger = Ledger(audiocli.ledger_path)
    now = datetime.now().astimezone()
    enter(ledger, now, cost=1_000_000)
    enter(ledger, now, cost=2_000_000, source=CostSource.COMPUTED, gateway="openai")
    enter(ledger, now, cost=4_000_000, source=CostSource.ESTIMATED, tag="book")
    enter(ledger, now, Outcome.REFUSED, 0, CostSource.COMPUTED)
    for outcome in (Outcome.FAILED, Outcome.UNKNOWN, Outcome.CANCELLED):
        enter(ledger, now, outcome, None)
    enter(ledger, now, Outcome.UNSENT, 0, CostSource.COMPUTED)
    ledger.close()
    return audiocli


def test_a_guess_is_never_shown_as_a_bill(mixed: CommandLine) -> None:
    total = mixed("usage", "--json").json["total"]
    table, sources = mixed("usage").text.split("\n\n")

    assert (total["requests"], total["failures"], total["unknown"]) == (7, 3, 3)
    assert (total["audio_s"], total["characters"]) == (14.0, 49)
    assert total["by_source"] == {"reported": 0.001, "computed": 0.002, "estimated": 0.004}
    assert total["requests_by_source"] == {"computed": 2, "estimated": 1, "reported": 1, "unknown": 3}
    assert "$0.007" in table.splitlines()[-1]
    assert [line.split()[:3] for line in sources.splitlines()[1:]] == [
        ["reported", "$0.001", "1"], ["computed", "$0.002", "2"], ["estimated", "$0.004", "1"], ["unknown", "?", "3"],
    ]  # fmt: skip
    assert "a guess" in sources


def test_bars_are_for_terminals(mixed: CommandLine) -> None:
    on_terminal = mixed("usage", "--by", "gateway", terminal="out").text
    in_pipe = mixed("usage", "--by", "gateway").text

    lengths = {line.split()[0]: line.count("#") for line in on_terminal.splitlines() if "#" in line}
    assert lengths == {"openai": 8, "openrouter": 20}
    assert "#" not in in_pipe
    assert all("#" not in mixed("usage", flag, "--by", "gateway", terminal="out").text for flag in ("--json", "--csv"))


def test_csv_has_the_sources_as_columns(mixed: CommandLine) -> None:
    [*_, row] = csv.DictReader(io.StringIO(mixed("usage", "--by", "gateway", "--csv").text))

    assert (row["gateway"], row["requests"], row["failures"], row["unknown"]) == ("openrouter", "6", "3", "3")
    assert (row["cost_usd"], row["reported_usd"], row["estimated_usd"]) == ("0.005", "0.001", "0.004")


@pytest.mark.parametrize(
    ("flags", "found"),
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
def test_the_list_can_be_narrowed(mixed: CommandLine, flags: list[str], found: list[int]) -> None:
    lines = mixed("usage", "list", "--json", *flags).text.splitlines()

    assert [json.loads(line)["id"] for line in lines] == found


def test_the_export_has_every_column_of_every_entry(mixed: CommandLine) -> None:
    lines = [json.loads(line) for line in mixed("usage", "export").text.splitlines()]
    some = mixed("usage", "export", "--gateway", "openai", "--json").text.splitlines()

    assert [{name: value for name, value in line.items() if name != "at"} for line in lines] == mixed.entries()
    assert len(some) == 1


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["--by", "hour"], "gateway"),
        (["--since", "21.11.2026"], "yesterday"),
        (["list", "--outcome", "good"], "refused"),
        (["list", "--limit", "0"], "from 1"),
        (["list", "--until", "2026-13-01"], "yesterday"),
        (["export", "--outcome", "good"], "refused"),
        (["reconcile", "--limit", "-1"], "from 1"),
        (["--utc", "list"], "behind it"),
    ],
)
def test_a_bad_question_is_answered_with_the_accepted_words(audiocli: CommandLine, argv: list[str], word: str) -> None:
    r = audiocli("usage", *argv)

    assert (r.code, r.out) == (2, b"")
    assert word in r.err


def test_the_sums_are_those_of_the_entries_whatever_happens_to_them(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    now = datetime.now().astimezone()
    for number in range(20):
        enter(ledger, now, Outcome.OK if number % 3 else Outcome.FAILED, number or None, tag=str(number % 2))
    with ledger._transaction() as database:
        database.execute("DELETE FROM entries WHERE id = 2")
        database.execute("UPDATE entries SET gateway = 'other', cost_nanousd = 500 WHERE id = 3")

    [row] = report(ledger, since=None, until=None, by=[])
    [(count, cost)] = ledger.read("SELECT count(*), sum(cost_nanousd) FROM entries", ())
    assert (row.requests, row.cost_nanousd) == (count, cost) == (19, sum(range(20)) - 1 - 2 + 500)
    ledger.close()


# --- true costs ------------------------------------------------------------------------------------------------------


def generation(**told: Any) -> Status:
    return Status(200, {"data": told})


@pytest.fixture
def guessed(audiocli: CommandLine) -> CommandLine:
    """Five requests to OpenRouter that were estimated at 1,000 billionths each."""
    ledger = Ledger(audiocli.ledger_path)
    now = datetime.now().astimezone()
    for number in range(5):
        enter(ledger, now, cost=1000, source=CostSource.ESTIMATED, estimate=1000, generation_id=f"gen-{number}")
    ledger.close()
    return audiocli


def asked_for(audiocli: CommandLine) -> list[str]:
    return [seen.query["id"] for seen in audiocli.gateway.requests if seen.path.endswith("/generation")]


def test_reconciling_is_bounded_and_all_have_their_turn(guessed: CommandLine) -> None:
    first = guessed("usage", "reconcile", "--limit", "2", "--json")
    second = guessed("usage", "reconcile", "--limit", "2")
    third = guessed("usage", "reconcile", "--limit", "2")

    # The double knows none of them, so they come last the next time.
    assert (first.json["missing"], first.json["left"]) == (2, 3)
    assert "3 are left: run it again" in second.text
    assert asked_for(guessed) == ["gen-4", "gen-3", "gen-2", "gen-1", "gen-0", "gen-4"]
    assert set(first.waits_s) == {0.1}
    assert third.code == 0


def test_own_keys_keep_the_fee_and_the_bill_of_the_provider_apart(guessed: CommandLine) -> None:
    guessed.gateway.always(
        generation(total_cost=0.000002, is_byok=True, upstream_inference_cost=0.00004), path="/generation", method="GET"
    )
    done = guessed("usage", "reconcile", "--json").json
    total = guessed("usage", "--json").json["total"]

    assert (done["corrected"], done["after_usd"], done["upstream_usd"]) == (5, 0.00001, 0.0002)
    assert {(entry["cost_nanousd"], entry["upstream_nanousd"]) for entry in guessed.entries()} == {(2000, 40_000)}
    assert (total["cost_usd"], total["upstream_usd"]) == (0.00001, 0.0002)
    assert "upstream" in guessed("usage").text


def test_what_the_gateway_itself_pays_is_nobodys_bill(guessed: CommandLine) -> None:
    guessed.gateway.always(
        generation(total_cost=0.000002, is_byok=False, upstream_inference_cost=0.00004),
        path="/generation",
        method="GET",
    )
    guessed("usage", "reconcile")

    assert {entry["upstream_nanousd"] for entry in guessed.entries()} == {None}


def test_estimates_that_were_far_off_are_told_for_each_model(guessed: CommandLine) -> None:
    guessed.gateway.always(generation(total_cost=0.0000012), path="/generation", method="GET")
    done = guessed("usage", "reconcile", "--json").json
    again = guessed("usage", "reconcile").text

    assert done["drift"] == [
        {"model": "openrouter:m", "requests": 5, "estimated_usd": 5e-06, "billed_usd": 6e-06, "percent": 20.0}
    ]
    assert "openrouter:m: billed $0.000006 where $0.000005 was estimated (+20 %), 5 requests" in again


def test_small_differences_are_not_told(guessed: CommandLine) -> None:
    guessed.gateway.always(generation(total_cost=0.0000011), path="/generation", method="GET")

    assert guessed("usage", "reconcile", "--json").json["drift"] == []


@pytest.mark.parametrize("cost", [-1, "free", 1e30])
def test_a_cost_that_cannot_be_one_stays_open_with_a_warning(guessed: CommandLine, cost: Any) -> None:
    guessed.gateway.always(generation(total_cost=cost, usage=None), path="/generation", method="GET")
    r = guessed("usage", "reconcile")

    assert r.code == 0
    assert "cannot be one" in r.err
    assert {entry["cost_source"] for entry in guessed.entries()} == {"estimated"}


LONG = " ".join(f"This is sentence number {number} of the text." for number in range(8))


def test_a_long_run_ends_with_its_true_cost(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli("models", "-g", "openrouter")
    r = audiocli("speak", LONG, "--max-chars", "60", "-m", f"openrouter:{MODEL}", "-o", tmp_path / "x.wav", "--json")

    assert r.code == 0, r.err
    assert len(r.ledger) > 2
    assert {entry["cost_source"] for entry in r.ledger} == {"reported"}
    assert (r.json["cost_source"], round(r.json["cost_usd"] * 1e9)) == ("reported", audiocli.gateway.bill_nanousd)


def test_a_long_transcript_ends_with_its_true_cost_too(audiocli: CommandLine, tmp_path: Path) -> None:
    talk = tmp_path / "talk.wav"
    talk.write_bytes(encode(expected_pcm("Hello there, world. " * 5), "wav"))
    audiocli.variables["AROUTER_API_KEY"] = KEYS["arouter"]
    argv = ("transcribe", talk, "--max-piece", "3", "-m", "arouter:openai/whisper-large-v3", "-o", tmp_path / "x.txt")
    r = audiocli(*argv, "--json")

    assert r.code == 0, r.err
    assert len(r.ledger) > 1
    assert r.json["cost_source"] == "reported", r.ledger
    assert round(r.json["cost_usd"] * 1e9) == audiocli.gateway.bill_nanousd


@pytest.mark.parametrize("trouble", [Status(500), Status(404), Status(200, "what?")])
def test_a_gateway_that_does_not_tell_spoils_nothing(audiocli: CommandLine, tmp_path: Path, trouble: Status) -> None:
    audiocli("models", "-g", "openrouter")
    audiocli.gateway.always(trouble, path="/generation", method="GET")
    argv = ("speak", LONG, "--max-chars", "60", "-m", f"openrouter:{MODEL}", "-o", tmp_path / "x.wav", "--json")
    r = audiocli(*argv)

    assert r.code == 0, r.err
    assert r.json["cost_source"] == "estimated"
    assert len(asked_for(audiocli)) <= 3 * len(r.ledger)


def test_a_short_text_is_not_kept_waiting_for_its_cost(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("speak", "Hello there.", "-m", f"openrouter:{MODEL}", "-o", tmp_path / "x.wav")

    assert (r.code, asked_for(audiocli)) == (0, [])


@pytest.mark.parametrize("told", ["-0.5", "nan", "1e30", "free"])
def test_nonsense_as_a_cost_is_warned_about_and_unknown_and_the_run_goes_on(
    audiocli: CommandLine, gateway: LoopbackGateway, tmp_path: Path, told: str
) -> None:
    audiocli.variables["OPENAI_API_KEY"] = "sk-test"
    audiocli.config('[prices]\n"openai:tts-1" = { per = "characters", usd = 0.000015 }\n')
    talk = tmp_path / "talk.wav"
    talk.write_bytes(encode(expected_pcm("Hello there."), "wav"))
    gateway.script(Status(200, {"text": "Hello there.", "usage": {"cost": told}}), Normal())

    first = audiocli("transcribe", talk, "-m", "openrouter:openai/whisper-large-v3", "-o", tmp_path / "x.txt")
    second = audiocli("speak", "Hello.", "-m", "openai:tts-1", "-o", tmp_path / "x.wav")

    assert (first.code, second.code) == (0, 0), first.err
    assert "cannot be one" in first.err
    assert (first.ledger[0]["outcome"], first.ledger[0]["cost_source"]) == ("ok", "unknown")
    assert second.ledger[0]["cost_source"] == "computed"


class Silence:
    """A gateway that takes every question and answers none."""

    @asynccontextmanager
    async def open(self, request: WireRequest) -> AsyncIterator[Any]:
        await asyncio.sleep(60)
        yield None


@pytest.mark.parametrize("ends", ["time", "Ctrl-C"])
def test_neither_silence_nor_ctrl_c_at_the_end_of_a_long_run_spoils_it(tmp_path: Path, ends: str) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    for number in range(6):
        entry = ledger.reserve(Reservation("speak", "openrouter", "m", run="this"))
        told = Settlement(Outcome.OK, 10, CostSource.ESTIMATED, generation_id=f"gen-{number}")
        ledger.settle(entry, told)
    route = Route("openrouter", "openrouter", "http://127.0.0.1:9/v1", "m", "sk-or-test")
    served = RunResult(route, "m", 6, 6, 60, CostSource.ESTIMATED)
    silence: Any = Silence()
    nothing: Any = None
    tools = RunContext(
        transport=lambda url: silence, ledger=ledger, cache=nothing, sleep=asyncio.sleep, now_s=time.monotonic,
        random=lambda: 0.5, info=lambda message: None, debug=lambda message: None, run="this",
    )  # fmt: skip

    async def run() -> RunResult:
        task = asyncio.current_task()
        assert task is not None
        if ends == "Ctrl-C":
            asyncio.get_running_loop().call_later(0.05, task.cancel)
        done = await settled(served, (route,), tools, within_s=0.1 if ends == "time" else 30)
        await asyncio.sleep(0)
        return done

    started_s = time.monotonic()
    assert asyncio.run(run()) == served
    assert time.monotonic() - started_s < 5
    ledger.close()
