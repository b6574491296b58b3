"""Spending limits: periods, counted costs, confirmation, and concurrent processes; and estimates."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from audiocli.errors import LimitReached
from audiocli.ledger.budget import Budget, RunBudget, SpendingLimit, check_limit, find_period_start, resolve_limits
from audiocli.ledger.ledger import Ledger
from audiocli.mock import expected_pcm
from audiocli.pricing import MIN_BILLED_S, estimate_speech, estimate_transcription
from audiocli.types.ledger import CostSource, Outcome, Reservation, Settlement
from audiocli.types.routes import Price
from tests.conftest import CommandLine
from tests.pyav_codec import encode, expected_audio

# The price that the mock gateway bills, as a user writes it.
PRICES_CONFIG = '[prices]\n"openai:tts-1" = { per = "1M characters", usd = 15.0 }\n'
NANOUSD_PER_CHARACTER = 15_000
HELLO = "Hello there, world."


@pytest.fixture
def priced(audiocli: CommandLine) -> CommandLine:
    """Return a command line whose config has the price that the gateway bills for one model."""
    audiocli.variables["OPENAI_API_KEY"] = "sk-test"
    audiocli.write_config(PRICES_CONFIG)
    return audiocli


def write_budget(audiocli: CommandLine, **amounts: float) -> None:
    lines = "".join(f"{name} = {amount:.9f}\n" for name, amount in amounts.items())
    audiocli.write_config(f"{PRICES_CONFIG}[budget]\n{lines}")


def compute_usd(characters: float) -> float:
    return characters * NANOUSD_PER_CHARACTER / 1e9


SPEAK = ("speak", "-m", "openai:tts-1")


# --- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "message", "hint"),
    [
        (
            SpendingLimit("--max-cost", 2_000_000_000, run_id="r"),
            "openai:tts-1 would exceed --max-cost 2: $1.5 is spent or reserved, and this may cost $0.51",
            None,
        ),
        (
            SpendingLimit("day", 2_000_000_000, since_ms=0),
            "openai:tts-1 would exceed the spending limit of $2 per day: $1.5 is spent or reserved, "
            "and this may cost $0.51",
            "run 'audiocli budget' to see the limits",
        ),
    ],
    ids=["run", "day"],
)
def test_limit_names_itself_and_the_amounts(limit: SpendingLimit, message: str, hint: str | None) -> None:
    check_limit(limit, "openai:tts-1", spent_nanousd=1_500_000_000, max_nanousd=500_000_000)
    with pytest.raises(LimitReached) as caught:
        check_limit(limit, "openai:tts-1", spent_nanousd=1_500_000_000, max_nanousd=510_000_000)

    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_limit_without_a_maximum_says_whether_the_price_is_known() -> None:
    limit = SpendingLimit("day", 1_000_000_000, since_ms=0)
    with pytest.raises(LimitReached, match="the price of openai:x is unknown"):
        check_limit(limit, "openai:x", spent_nanousd=0, max_nanousd=None)
    with pytest.raises(LimitReached, match="the maximum cost of openai:x is unknown"):
        check_limit(limit, "openai:x", spent_nanousd=0, max_nanousd=None, has_price=True)


def test_models_of_unknown_price_are_refused_unless_allowed() -> None:
    assert not RunBudget().allow_unpriced


def test_limit_of_a_day_counts_from_midnight_in_milliseconds() -> None:
    now = datetime(2026, 11, 21, 15, 30).astimezone()
    (limit,) = resolve_limits(Budget(day=1), max_cost_nanousd=None, run_id="r", now=now)

    assert limit.since_ms is not None
    assert datetime.fromtimestamp(limit.since_ms / 1000) == datetime(2026, 11, 21)


# --- periods ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("period", "start"),
    [("day", datetime(2026, 11, 21)), ("week", datetime(2026, 11, 16)), ("month", datetime(2026, 11, 1))],
)
def test_periods_start_at_local_midnight_and_weeks_on_monday(period: str, start: datetime) -> None:
    for now in (datetime(2026, 11, 21), datetime(2026, 11, 21, 23, 59, 59)):
        assert find_period_start(period, now.astimezone()) == start.astimezone()


def test_week_starts_on_monday() -> None:
    monday = datetime(2026, 11, 16, 0, 0, 1).astimezone()

    assert find_period_start("week", monday) == datetime(2026, 11, 16).astimezone()
    assert find_period_start("week", monday - timedelta(seconds=2)) == datetime(2026, 11, 9).astimezone()


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "America/St_Johns", "Pacific/Chatham", "XXX-0:07"])
def test_spending_before_midnight_is_not_counted_in_any_time_zone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        ledger = Ledger(tmp_path / "ledger.sqlite3")
        [limit] = resolve_limits(
            Budget(day=10), max_cost_nanousd=None, run_id="", now=datetime(2026, 11, 21, 12).astimezone()
        )
        assert limit.since_ms is not None
        for at_ms, cost in ((limit.since_ms - 1, 1000), (limit.since_ms, 7), (limit.since_ms + 1, 2)):
            number = ledger.reserve(Reservation("speak", "g", "m"))
            ledger.settle(number, Settlement(Outcome.OK, cost, CostSource.REPORTED))
            with ledger.transaction() as database:
                database.execute("UPDATE entries SET at_ms = ? WHERE id = ?", (at_ms, number))

        assert ledger.sum_spending(limit) == 9
        ledger.close()
    finally:
        monkeypatch.undo()
        time.tzset()


# --- counted costs ---------------------------------------------------------------------------------------------------


def test_unknown_cost_counts_as_its_reservation(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    limit = SpendingLimit("day", 100, since_ms=0)

    def spend(outcome: Outcome | None, cost: int | None, max_nanousd: int | None = 30) -> None:
        number = ledger.reserve(Reservation("speak", "g", "m", max_nanousd=max_nanousd, estimate_nanousd=20))
        if outcome is not None:
            source = CostSource.UNKNOWN if cost is None else CostSource.REPORTED
            ledger.settle(number, Settlement(outcome, cost, source))

    counted = []
    for outcome, cost in ((None, None), (Outcome.UNKNOWN, None), (Outcome.FAILED, None), (Outcome.OK, 5)):
        spend(outcome, cost)
        counted.append(ledger.sum_spending(limit))
    spend(Outcome.REFUSED, 0)
    spend(Outcome.UNSENT, 0)

    assert counted == [30, 60, 90, 95]
    assert ledger.sum_spending(limit) == 95
    with pytest.raises(LimitReached):
        ledger.reserve(Reservation("speak", "g", "m", max_nanousd=6), (limit,))
    ledger.reserve(Reservation("speak", "g", "m", max_nanousd=5), (limit,))
    ledger.close()


def test_byok_cost_counts_with_the_provider_bill(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    number = ledger.reserve(Reservation("speak", "g", "m", max_nanousd=90))
    ledger.settle(number, Settlement(Outcome.OK, 5, CostSource.REPORTED, upstream_nanousd=40))

    assert ledger.sum_spending(SpendingLimit("day", 100, since_ms=0)) == 45
    ledger.close()


# --- command line ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run", "day", "week", "month"])
def test_limit_stops_a_request_before_it_is_sent(priced: CommandLine, tmp_path: Path, name: str) -> None:
    write_budget(priced, **{name: compute_usd(len(HELLO) - 1)})
    refused = priced(*SPEAK, HELLO, "-o", tmp_path / "x.mp3")
    write_budget(priced, **{name: compute_usd(len(HELLO))})
    accepted = priced(*SPEAK, HELLO, "-o", tmp_path / "x.mp3")
    second = priced(*SPEAK, HELLO, "-o", tmp_path / "y.mp3", "--no-cache")

    assert (refused.code, refused.requests, refused.ledger) == (5, [], [])
    assert name in refused.err
    assert accepted.code == 0, accepted.err
    assert second.code == (0 if name == "run" else 5), second.err
    assert priced.gateway.billed_nanousd == len(HELLO) * NANOUSD_PER_CHARACTER * (2 if name == "run" else 1)


def test_limit_does_not_fall_back_to_the_next_route(priced: CommandLine, tmp_path: Path) -> None:
    write_budget(priced, day=0.0)

    r = priced(*SPEAK, "-m", "local:espeak", HELLO, "-o", tmp_path / "x.mp3")

    assert (r.code, r.requests) == (5, [])
    assert not (tmp_path / "x.mp3").exists()


def test_long_text_stops_at_a_limit_and_resumes_when_it_is_raised(priced: CommandLine, tmp_path: Path) -> None:
    text = " ".join(f"This is sentence number {number} of the text." for number in range(12))
    argv = (*SPEAK, text, "--max-chars", "60", "-j", "2", "-o", tmp_path / "x.wav")
    limit = compute_usd(len(text) / 2)
    write_budget(priced, day=limit)
    stopped = priced(*argv)
    billed_nanousd = priced.gateway.billed_nanousd
    write_budget(priced, day=1.0)
    resumed = priced(*argv, "--json")

    assert stopped.code == 5, stopped.err
    assert "finished chunks are saved" in stopped.err and "Traceback" not in stopped.err
    assert 0 < billed_nanousd <= limit * 1e9
    assert resumed.code == 0, resumed.err
    assert resumed.json["kept"] > 0
    assert priced.gateway.billed_nanousd <= len(text) * NANOUSD_PER_CHARACTER


def test_max_cost_applies_to_the_run_and_to_each_chunk(priced: CommandLine, tmp_path: Path) -> None:
    text = " ".join(f"This is sentence number {number} of the text." for number in range(6))
    # Each sentence is a chunk. The five spaces between them are not sent.
    total_usd = compute_usd(len(text) - 5)

    refused = priced(
        *SPEAK, text, "--max-chars", "60", "--max-cost", f"{total_usd * 0.99:.9f}", "-o", tmp_path / "x.wav"
    )
    accepted = priced(*SPEAK, text, "--max-chars", "60", "--max-cost", f"{total_usd:.9f}", "-o", tmp_path / "x.wav")

    assert (refused.code, refused.requests) == (5, [])
    assert accepted.code == 0, accepted.err
    assert len(accepted.ledger) > 2
    assert priced.gateway.billed_nanousd <= total_usd * 1e9


def test_unpriced_model_is_refused_under_a_limit_unless_allowed(priced: CommandLine, tmp_path: Path) -> None:
    write_budget(priced, month=5.0)
    argv = ("speak", "-m", "openai:gpt-4o-mini-tts", HELLO, "-o", tmp_path / "x.mp3")

    refused, allowed = priced(*argv), priced(*argv, "--allow-unpriced")

    assert (refused.code, refused.requests) == (5, [])
    assert "--allow-unpriced" in refused.err
    assert allowed.code == 0, allowed.err


@pytest.mark.parametrize(("typed", "code"), [(b"y\n", 0), (b"yes\n", 0), (b"n\n", 5), (b"\n", 5), (b"", 5)])
def test_expensive_request_asks_for_confirmation(priced: CommandLine, tmp_path: Path, typed: bytes, code: int) -> None:
    write_budget(priced, confirm=compute_usd(1))

    r = priced(*SPEAK, HELLO, "-o", tmp_path / "x.mp3", stdin=typed, terminal="in err")

    assert r.code == code, r.err
    assert "Continue? [y/N]" in r.err
    assert bool(r.requests) == (code == 0)


def test_without_terminal_expensive_request_needs_yes_option(priced: CommandLine, tmp_path: Path) -> None:
    write_budget(priced, confirm=compute_usd(1))

    refused = priced(*SPEAK, HELLO, "-o", tmp_path / "x.mp3")
    accepted = priced(*SPEAK, HELLO, "-o", tmp_path / "x.mp3", "-y")
    write_budget(priced, confirm=compute_usd(1000))
    inexpensive = priced(*SPEAK, HELLO, "-o", tmp_path / "x.mp3", terminal="in err")

    assert (refused.code, refused.requests) == (5, [])
    assert "-y" in refused.err
    assert (accepted.code, inexpensive.code) == (0, 0)
    assert "Continue?" not in inexpensive.err


def test_budget_set_show_and_clear(priced: CommandLine, tmp_path: Path) -> None:
    priced(*SPEAK, HELLO, "-o", tmp_path / "x.mp3")
    priced("budget", "set", "--day", "1", "--confirm", "0.5")
    shown = priced("budget", "--json").json
    check = priced("config", "check").text
    cleared = priced("budget", "clear")

    spent = round(len(HELLO) * NANOUSD_PER_CHARACTER / 1e9, 9)
    day = {"cap_usd": 1.0, "spent_usd": spent, "left_usd": round(1 - spent, 9), "estimated": False}
    assert shown["caps"] == {"day": day}
    assert shown["confirm_usd"] == 0.5
    assert "day limit: $0.99 of $1 left" in check
    assert "no spending limits" in cleared.text
    assert "openai:tts-1" in (Path(priced.variables["XDG_CONFIG_HOME"]) / "audiocli" / "config.toml").read_text()


def test_exhausted_limit_is_an_error_of_config_check(priced: CommandLine) -> None:
    write_budget(priced, week=0.0)

    r = priced("config", "check")

    assert r.code == 3
    assert "error    week limit: $0 of $0 left; wait for the next week" in r.text


# --- concurrent processes --------------------------------------------------------------------------------------------


def test_concurrent_processes_do_not_exceed_the_limit(priced: CommandLine, tmp_path: Path) -> None:
    text = " ".join(f"This is sentence number {number} of a text." for number in range(8))
    processes, limit = 6, compute_usd(len(text) * 2.5)
    write_budget(priced, day=limit)
    argv = [sys.executable, "-m", "audiocli", *SPEAK, "--max-chars", "50", "-j", "4", "--no-resume"]
    environment = {**priced.variables, "PYTHONPATH": str(Path(__file__).parent.parent)}
    running = [
        subprocess.Popen(
            [*argv, f"{number}. {text}", "-o", str(tmp_path / f"{number}.wav")],
            env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        for number in range(processes)
    ]  # fmt: skip
    errors = [process.communicate(timeout=100)[1].decode() for process in running]

    billed_nanousd, sent = priced.gateway.billed_nanousd, len(priced.gateway.posts)
    assert {process.returncode for process in running} <= {0, 5}, errors
    assert 5 in {process.returncode for process in running}
    assert limit * 1e9 * 0.8 < billed_nanousd <= limit * 1e9
    assert sum(entry["cost_nanousd"] for entry in priced.read_ledger_entries()) == billed_nanousd
    assert len(priced.read_ledger_entries()) == sent


# --- estimates -------------------------------------------------------------------------------------------------------


def test_price_per_byte_counts_utf8_bytes() -> None:
    text = "日本語のテキスト"
    by_character = estimate_speech((Price(Decimal("0.000015"), "character"),), text)
    by_byte = estimate_speech((Price(Decimal("0.000015"), "byte"),), text)

    assert by_byte.nanousd == 3 * (by_character.nanousd or 0) == 3 * len(text) * 15_000
    assert by_character.is_exact and by_byte.is_exact


def test_token_estimate_is_a_range_and_limits_use_its_maximum() -> None:
    estimate = estimate_speech((Price(Decimal("0.000001"), "token"), Price(Decimal("0.00001"), "output token")), HELLO)

    assert estimate.min_nanousd is not None and estimate.max_nanousd is not None
    assert 0 < estimate.min_nanousd < (estimate.nanousd or 0) < estimate.max_nanousd
    assert not estimate.is_exact


def test_minimum_duration_and_billing_increment_are_applied() -> None:
    per_second = (Price(Decimal("0.00001"), "second"),)

    assert MIN_BILLED_S["groq"] == 10.0
    assert estimate_transcription(per_second, 3.0, min_billed_s=MIN_BILLED_S["groq"]).nanousd == 100_000
    assert estimate_transcription(per_second, 12.0, min_billed_s=10.0).nanousd == 120_000
    assert (
        estimate_transcription((Price(Decimal("0.00001"), "second", billing_increment_s=1.0),), 3.2).nanousd == 40_000
    )
    assert estimate_transcription((Price(Decimal("0.006"), "minute"),), 60.0).nanousd == 6_000_000


def test_amounts_are_rounded_up_to_the_nanodollar() -> None:
    assert estimate_speech((Price(Decimal("0.0000000001"), "character"),), "ab").nanousd == 1
    assert estimate_speech((Price(Decimal(1) / 3, "character"),), "abc").nanousd == 1_000_000_000


def test_groq_bills_at_least_ten_seconds(priced: CommandLine, tmp_path: Path) -> None:
    talk = tmp_path / "talk.wav"
    talk.write_bytes(encode(expected_pcm("Hello there."), "wav"))
    priced.variables["GROQ_API_KEY"] = "gsk-test"
    priced.write_config(
        '[prices]\n"groq:whisper-large-v3" = { per = "hours", usd = 0.111 }\n[budget]\nday = 0.000308333\n'
    )
    argv = ("transcribe", talk, "-m", "groq:whisper-large-v3", "-o", tmp_path / "x.txt")

    refused = priced(*argv)
    priced.write_config(
        '[prices]\n"groq:whisper-large-v3" = { per = "hours", usd = 0.111 }\n[budget]\nday = 0.000308334\n'
    )
    accepted = priced(*argv)

    assert (refused.code, refused.requests) == (5, [])
    assert accepted.code == 0, accepted.err
    assert accepted.ledger[0]["estimate_nanousd"] == accepted.ledger[0]["cost_nanousd"] == 308_334
    assert priced.gateway.billed_nanousd == 308_333


def test_dry_run_shows_the_price_and_spends_nothing(priced: CommandLine) -> None:
    plan = priced(*SPEAK, HELLO, "-n", "--json").json

    assert plan["price_usd"] == plan["price_usd_most"] == pytest.approx(compute_usd(len(HELLO)))
    assert priced.read_ledger_entries() == []


def test_audio_is_complete_under_a_limit(priced: CommandLine, tmp_path: Path) -> None:
    write_budget(priced, run=1.0, day=1.0, week=1.0, month=1.0)
    r = priced(*SPEAK, HELLO, "-o", tmp_path / "x.mp3", "--json")

    assert r.code == 0, r.err
    assert (r.json["cost_source"], json.dumps(r.json["cost_usd"])) == ("computed", str(compute_usd(len(HELLO))))
    assert (tmp_path / "x.mp3").read_bytes() == expected_audio(HELLO, "mp3")
    assert os.path.exists(priced.ledger_path)  # noqa: PTH110
