"""Caps: what they count, when they begin, and that no number of processes gets past them."""

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
from audiocli.ledger.budget import Budget, SpendingLimit, resolve_limits, start_of
from audiocli.ledger.ledger import Ledger
from audiocli.pricing import LEAST_S, listening, speaking
from audiocli.types.values import Reservation, CostSource, Outcome, Price, Settlement
from tests.conftest import CommandLine
from tests.gateway import encode, expected_audio, expected_pcm

# What the double charges, told as a user would tell it.
PRICED = '[prices]\n"openai:tts-1" = { per = "1M characters", usd = 15.0 }\n'
A_CHARACTER = 15_000
HELLO = "Hello there, world."


@pytest.fixture
def priced(audiocli: CommandLine) -> CommandLine:
    """A world in which one model has a price that is the gateway's own."""
    audiocli.variables["OPENAI_API_KEY"] = "sk-test"
    audiocli.config(PRICED)
    return audiocli


def capped(audiocli: CommandLine, **amounts: float) -> None:
    told = "".join(f"{name} = {amount:.9f}\n" for name, amount in amounts.items())
    audiocli.config(f"{PRICED}[budget]\n{told}")


def dollars(characters: float) -> float:
    return characters * A_CHARACTER / 1e9


SPEAK = ("speak", "-m", "openai:tts-1")


# --- when a cap begins -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("period", "begins"),
    [("day", datetime(2026, 11, 21)), ("week", datetime(2026, 11, 16)), ("month", datetime(2026, 11, 1))],
)
def test_caps_begin_at_local_midnight_and_weeks_on_monday(period: str, begins: datetime) -> None:
    for clock in (datetime(2026, 11, 21), datetime(2026, 11, 21, 23, 59, 59)):
        assert start_of(period, clock.astimezone()) == begins.astimezone()


def test_on_a_monday_the_week_has_just_begun() -> None:
    monday = datetime(2026, 11, 16, 0, 0, 1).astimezone()

    assert start_of("week", monday) == datetime(2026, 11, 16).astimezone()
    assert start_of("week", monday - timedelta(seconds=2)) == datetime(2026, 11, 9).astimezone()


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "America/St_Johns", "Pacific/Chatham", "XXX-0:07"])
def test_what_was_spent_before_midnight_does_not_count_in_any_time_zone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        ledger = Ledger(tmp_path / "ledger.sqlite3")
        [cap] = resolve_limits(Budget(day=10), max_cost_nanousd=None, run="", now=datetime(2026, 11, 21, 12).astimezone())
        assert cap.since_ms is not None
        for at_ms, cost in ((cap.since_ms - 1, 1000), (cap.since_ms, 7), (cap.since_ms + 1, 2)):
            number = ledger.reserve(Reservation("speak", "g", "m"))
            ledger.settle(number, Settlement(Outcome.OK, cost, CostSource.REPORTED))
            with ledger._transaction() as database:
                database.execute("UPDATE entries SET at_ms = ? WHERE id = ?", (at_ms, number))

        assert ledger.spent(cap) == 9
        ledger.close()
    finally:
        monkeypatch.undo()
        time.tzset()


# --- what counts -----------------------------------------------------------------------------------------------------


def test_what_is_not_known_counts_with_what_was_reserved_for_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    cap = SpendingLimit("day", 100, since_ms=0)

    def spend(outcome: Outcome | None, cost: int | None, most: int | None = 30) -> None:
        number = ledger.reserve(Reservation("speak", "g", "m", most_nanousd=most, estimate_nanousd=20))
        if outcome is not None:
            source = CostSource.UNKNOWN if cost is None else CostSource.REPORTED
            ledger.settle(number, Settlement(outcome, cost, source))

    counted = []
    for outcome, cost in ((None, None), (Outcome.UNKNOWN, None), (Outcome.FAILED, None), (Outcome.OK, 5)):
        spend(outcome, cost)
        counted.append(ledger.spent(cap))
    spend(Outcome.REFUSED, 0)
    spend(Outcome.UNSENT, 0)

    assert counted == [30, 60, 90, 95]
    assert ledger.spent(cap) == 95
    with pytest.raises(LimitReached):
        ledger.reserve(Reservation("speak", "g", "m", most_nanousd=6), (cap,))
    ledger.reserve(Reservation("speak", "g", "m", most_nanousd=5), (cap,))
    ledger.close()


def test_own_keys_at_a_provider_count_with_both_bills(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    number = ledger.reserve(Reservation("speak", "g", "m", most_nanousd=90))
    ledger.settle(number, Settlement(Outcome.OK, 5, CostSource.REPORTED, upstream_nanousd=40))

    assert ledger.spent(SpendingLimit("day", 100, since_ms=0)) == 45
    ledger.close()


# --- through the front door ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run", "day", "week", "month"])
def test_a_cap_stops_what_would_pass_it_before_anything_is_sent(priced: CommandLine, tmp_path: Path, name: str) -> None:
    capped(priced, **{name: dollars(len(HELLO) - 1)})
    refused = priced(*SPEAK, HELLO, "-o", tmp_path / "x.mp3")
    capped(priced, **{name: dollars(len(HELLO))})
    served = priced(*SPEAK, HELLO, "-o", tmp_path / "x.mp3")
    again = priced(*SPEAK, HELLO, "-o", tmp_path / "y.mp3")

    assert (refused.code, refused.requests, refused.ledger) == (5, [], [])
    assert name in refused.err
    assert served.code == 0, served.err
    assert again.code == (0 if name == "run" else 5), again.err
    assert priced.gateway.bill_nanousd == len(HELLO) * A_CHARACTER * (2 if name == "run" else 1)


def test_a_cap_is_never_a_reason_to_take_the_next_route(priced: CommandLine, tmp_path: Path) -> None:
    capped(priced, day=0.0)

    r = priced(*SPEAK, "-m", "local:espeak", HELLO, "-o", tmp_path / "x.mp3")

    assert (r.code, r.requests) == (5, [])
    assert not (tmp_path / "x.mp3").exists()


def test_a_long_text_stops_at_a_cap_and_goes_on_when_it_is_raised(priced: CommandLine, tmp_path: Path) -> None:
    text = " ".join(f"This is sentence number {number} of the text." for number in range(12))
    argv = (*SPEAK, text, "--max-chars", "60", "-j", "2", "-o", tmp_path / "x.wav")
    cap = dollars(len(text) / 2)
    capped(priced, day=cap)
    stopped = priced(*argv)
    bill = priced.gateway.bill_nanousd
    capped(priced, day=1.0)
    done = priced(*argv, "--json")

    assert stopped.code == 5, stopped.err
    assert "kept" in stopped.err and "Traceback" not in stopped.err
    assert 0 < bill <= cap * 1e9
    assert done.code == 0, done.err
    assert done.json["kept"] > 0
    assert priced.gateway.bill_nanousd <= len(text) * A_CHARACTER


def test_max_cost_holds_for_the_whole_and_for_each_piece(priced: CommandLine, tmp_path: Path) -> None:
    text = " ".join(f"This is sentence number {number} of the text." for number in range(6))
    whole = dollars(len(text))

    refused = priced(*SPEAK, text, "--max-chars", "60", "--max-cost", f"{whole * 0.99:.9f}", "-o", tmp_path / "x.wav")
    served = priced(*SPEAK, text, "--max-chars", "60", "--max-cost", f"{whole:.9f}", "-o", tmp_path / "x.wav")

    assert (refused.code, refused.requests) == (5, [])
    assert served.code == 0, served.err
    assert len(served.ledger) > 2
    assert priced.gateway.bill_nanousd <= whole * 1e9


def test_what_has_no_price_is_refused_under_a_cap_unless_it_is_allowed(priced: CommandLine, tmp_path: Path) -> None:
    capped(priced, month=5.0)
    argv = ("speak", "-m", "openai:gpt-4o-mini-tts", HELLO, "-o", tmp_path / "x.mp3")

    refused, allowed = priced(*argv), priced(*argv, "--allow-unpriced")

    assert (refused.code, refused.requests) == (5, [])
    assert "--allow-unpriced" in refused.err
    assert allowed.code == 0, allowed.err


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"yes\n", 0), (b"n\n", 5), (b"\n", 5), (b"", 5)])
def test_people_are_asked_before_something_dear(priced: CommandLine, tmp_path: Path, answer: bytes, code: int) -> None:
    capped(priced, confirm=dollars(1))

    r = priced(*SPEAK, HELLO, "-o", tmp_path / "x.mp3", stdin=answer, terminal="in err")

    assert r.code == code, r.err
    assert "Go on? [y/N]" in r.err
    assert bool(r.requests) == (code == 0)


def test_scripts_are_not_asked_but_refused_and_can_say_yes(priced: CommandLine, tmp_path: Path) -> None:
    capped(priced, confirm=dollars(1))

    refused = priced(*SPEAK, HELLO, "-o", tmp_path / "x.mp3")
    served = priced(*SPEAK, HELLO, "-o", tmp_path / "x.mp3", "-y")
    capped(priced, confirm=dollars(1000))
    cheap = priced(*SPEAK, HELLO, "-o", tmp_path / "x.mp3", terminal="in err")

    assert (refused.code, refused.requests) == (5, [])
    assert "-y" in refused.err
    assert (served.code, cheap.code) == (0, 0)
    assert "Go on?" not in cheap.err


def test_budget_set_show_and_clear(priced: CommandLine, tmp_path: Path) -> None:
    priced(*SPEAK, HELLO, "-o", tmp_path / "x.mp3")
    priced("budget", "set", "--day", "1", "--confirm", "0.5")
    shown = priced("budget", "--json").json
    check = priced("config", "check").text
    cleared = priced("budget", "clear")

    spent = round(len(HELLO) * A_CHARACTER / 1e9, 9)
    assert shown["caps"] == {"day": {"cap_usd": 1.0, "spent_usd": spent, "left_usd": round(1 - spent, 9)}}
    assert shown["confirm_usd"] == 0.5
    assert "cap of a day: $0.999715 of $1 left" in check
    assert "no caps" in cleared.text
    assert "openai:tts-1" in (Path(priced.variables["XDG_CONFIG_HOME"]) / "audiocli" / "config.toml").read_text()


def test_a_cap_that_is_spent_is_something_wrong_for_config_check(priced: CommandLine) -> None:
    capped(priced, week=0.0)

    r = priced("config", "check")

    assert r.code == 3
    assert "wrong  cap of a week: $0 of $0 left: wait for the next week" in r.text


# --- many at once ----------------------------------------------------------------------------------------------------


def test_many_processes_never_spend_more_than_the_cap(priced: CommandLine, tmp_path: Path) -> None:
    text = " ".join(f"This is sentence number {number} of a text." for number in range(8))
    processes, cap = 6, dollars(len(text) * 2.5)
    capped(priced, day=cap)
    argv = [sys.executable, "-m", "audiocli", *SPEAK, "--max-chars", "50", "-j", "4", "--no-resume"]
    environment = {**priced.variables, "PYTHONPATH": str(Path(__file__).parent.parent)}
    running = [
        subprocess.Popen(
            [*argv, f"{number}. {text}", "-o", str(tmp_path / f"{number}.wav")],
            env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        for number in range(processes)
    ]  # fmt: skip
    said = [process.communicate(timeout=100)[1].decode() for process in running]

    bill, sent = priced.gateway.bill_nanousd, len(priced.gateway.posts)
    assert {process.returncode for process in running} <= {0, 5}, said
    assert 5 in {process.returncode for process in running}
    assert cap * 1e9 * 0.8 < bill <= cap * 1e9
    assert sum(entry["cost_nanousd"] for entry in priced.entries()) == bill
    assert len(priced.entries()) == sent


# --- what things cost ------------------------------------------------------------------------------------------------


def test_text_in_three_byte_letters_costs_three_times_its_characters_by_the_byte() -> None:
    text = "日本語のテキスト"
    by_character = speaking((Price(Decimal("0.000015"), "character"),), text)
    by_byte = speaking((Price(Decimal("0.000015"), "byte"),), text)

    assert by_byte.nanousd == 3 * (by_character.nanousd or 0) == 3 * len(text) * 15_000
    assert by_character.is_certain and by_byte.is_certain


def test_tokens_are_a_range_and_caps_take_its_upper_end() -> None:
    estimate = speaking((Price(Decimal("0.000001"), "token"), Price(Decimal("0.00001"), "output token")), HELLO)

    assert estimate.least_nanousd is not None and estimate.most_nanousd is not None
    assert 0 < estimate.least_nanousd < (estimate.nanousd or 0) < estimate.most_nanousd
    assert not estimate.is_certain


def test_the_shortest_that_is_charged_and_steps_are_counted() -> None:
    a_second = (Price(Decimal("0.00001"), "second"),)

    assert LEAST_S["groq"] == 10.0
    assert listening(a_second, 3.0, least_s=LEAST_S["groq"]).nanousd == 100_000
    assert listening(a_second, 12.0, least_s=10.0).nanousd == 120_000
    assert listening((Price(Decimal("0.00001"), "second", step_s=1.0),), 3.2).nanousd == 40_000
    assert listening((Price(Decimal("0.006"), "minute"),), 60.0).nanousd == 6_000_000


def test_amounts_are_rounded_up_to_the_billionth() -> None:
    assert speaking((Price(Decimal("0.0000000001"), "character"),), "ab").nanousd == 1
    assert speaking((Price(Decimal(1) / 3, "character"),), "abc").nanousd == 1_000_000_000


def test_groq_charges_ten_seconds_for_three(priced: CommandLine, tmp_path: Path) -> None:
    talk = tmp_path / "talk.wav"
    talk.write_bytes(encode(expected_pcm("Hello there."), "wav"))
    priced.variables["GROQ_API_KEY"] = "gsk-test"
    priced.config('[prices]\n"groq:whisper-large-v3" = { per = "hours", usd = 0.111 }\n[budget]\nday = 0.000308333\n')
    argv = ("transcribe", talk, "-m", "groq:whisper-large-v3", "-o", tmp_path / "x.txt")

    refused = priced(*argv)
    priced.config('[prices]\n"groq:whisper-large-v3" = { per = "hours", usd = 0.111 }\n[budget]\nday = 0.000308334\n')
    served = priced(*argv)

    assert (refused.code, refused.requests) == (5, [])
    assert served.code == 0, served.err
    assert served.ledger[0]["estimate_nanousd"] == served.ledger[0]["cost_nanousd"] == 308_334
    assert priced.gateway.bill_nanousd == 308_333


def test_a_dry_run_tells_the_price_and_spends_nothing(priced: CommandLine) -> None:
    plan = priced(*SPEAK, HELLO, "-n", "--json").json

    assert plan["price_usd"] == plan["price_usd_most"] == pytest.approx(dollars(len(HELLO)))
    assert priced.entries() == []


def test_the_audio_is_whole_under_a_cap(priced: CommandLine, tmp_path: Path) -> None:
    capped(priced, run=1.0, day=1.0, week=1.0, month=1.0)
    r = priced(*SPEAK, HELLO, "-o", tmp_path / "x.mp3", "--json")

    assert r.code == 0, r.err
    assert (r.json["cost_source"], json.dumps(r.json["cost_usd"])) == ("computed", str(dollars(len(HELLO))))
    assert (tmp_path / "x.mp3").read_bytes() == expected_audio(HELLO, "mp3")
    assert os.path.exists(priced.ledger_path)  # noqa: PTH110
