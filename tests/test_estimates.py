"""Estimates of prices in tokens and seconds, and what earlier bills teach about them."""

from __future__ import annotations

import json
import re
import sqlite3
from decimal import Decimal
from pathlib import Path

import pytest

from audiocli.mock import Garbage, Status
from audiocli.pricing import compute_correction, estimate_speech, estimate_transcription
from audiocli.text.speech_rate import estimate_duration_s
from audiocli.types.routes import Price
from tests.conftest import CommandLine
from tests.gateway_contract import SPEECH

TTS = "openai/gpt-4o-mini-tts-2025-12-15"
STT = "openai/gpt-4o-transcribe"
BOOK = "It was a bright cold day in April, and the clocks were striking thirteen. " * 290
USD_PER_TEXT_TOKEN, USD_PER_AUDIO_TOKEN = 0.0000006, 0.000012
TEXTS = {
    "english": BOOK,
    "japanese": "四月の晴れた寒い日で、時計が十三時を打っていた。" * 200,
    "russian": "Был холодный ясный апрельский день, и часы пробили тринадцать. " * 200,
    "short": "Hello there, world.",
}


@pytest.fixture
def cli(audiocli: CommandLine) -> CommandLine:
    """A command line whose OpenRouter list has a speech model and a transcription model with token prices."""
    models = [
        {
            "id": name,
            "architecture": {"input_modalities": [input_], "output_modalities": [output]},
            "pricing": {"prompt": prompt, "completion": completion},
            "supported_voices": ["alloy"] if output == "speech" else None,
        }
        for name, input_, output, prompt, completion in (
            (TTS, "text", "speech", f"{USD_PER_TEXT_TOKEN:.7f}", f"{USD_PER_AUDIO_TOKEN:.6f}"),
            (STT, "audio", "transcription", "0.0000025", "0.00001"),
            ("hexgrad/kokoro-82m", "text", "speech", "0.000004", "0"),
        )
    ]
    listing = Garbage(json.dumps({"data": models}).encode(), "application/json")
    audiocli.gateway.queue_faults(listing, path="/models", method="GET")
    assert audiocli("models", "-g", "openrouter").code == 0
    return audiocli


def estimate_usd(cli: CommandLine, text: str, *flags: str) -> float:
    r = cli("speak", text, "-m", f"openrouter:{TTS}", "-n", "--json", *flags)
    assert (r.code, r.json["cost_source"], r.json["routes"][0]["cost_source"]) == (0, "estimated", "estimated"), r.err
    return float(r.json["price_usd"])


def add_bills(cli: CommandLine, ratios: list[float], text: str = TEXTS["short"]) -> None:
    """Send a request for each ratio, and reconcile it with a bill of that ratio to its estimate."""
    for ratio in ratios:
        r = cli("speak", text, "-m", f"openrouter:{TTS}", "-o", cli.directory / "x.mp3", "--no-cache")
        assert r.code == 0, r.err
        [entry] = r.ledger
        cost_usd = entry["estimate_nanousd"] * ratio / 1e9
        cli.gateway.queue_faults(Status(200, body={"data": {"total_cost": cost_usd}}), path="/generation", method="GET")
        assert "1 of 1 corrected" in cli("usage", "reconcile").text


# --- estimates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEXTS)
def test_token_priced_speech_estimate_follows_from_expected_seconds(cli: CommandLine, name: str) -> None:
    price_usd = estimate_usd(cli, TEXTS[name])

    audio_usd = estimate_duration_s(" ".join(TEXTS[name].split())) * 20 * USD_PER_AUDIO_TOKEN
    assert price_usd == pytest.approx(audio_usd, rel=0.1)


def test_limit_allows_what_the_default_model_costs(cli: CommandLine) -> None:
    text_output = cli("speak", BOOK, "-n")
    within = cli("speak", BOOK, "-n", "--json", "--max-cost", "2")
    above = cli("speak", BOOK, "-n", "--max-cost", "0.5")

    assert re.search(r"price +about \$0\.3\d, at most \$1\.\d\d\n", text_output.text), text_output.text
    assert within.code == 0, within.err
    assert 0.3 < within.json["price_usd"] < 0.4
    assert within.json["price_usd_most"] >= 3 * within.json["price_usd"]
    assert above.code == 5, above.err


def test_speed_changes_the_estimate_but_a_high_speed_not_the_maximum() -> None:
    prices = (Price(Decimal("0.00001"), "output token"),)

    normal, fast, slow = (estimate_speech(prices, BOOK, speed=speed) for speed in (None, 2.0, 0.5))

    assert normal.nanousd and normal.max_nanousd and fast.nanousd and slow.nanousd and slow.max_nanousd
    assert fast.nanousd == pytest.approx(normal.nanousd / 2)
    assert fast.max_nanousd == normal.max_nanousd
    assert slow.nanousd == pytest.approx(normal.nanousd * 2)
    assert slow.max_nanousd == normal.max_nanousd * 2


def test_token_priced_transcription_expects_ten_tokens_per_second() -> None:
    estimate = estimate_transcription((Price(Decimal("0.000001"), "token"),), 60.0)

    assert (estimate.min_nanousd, estimate.nanousd, estimate.max_nanousd) == (480_000, 600_000, 2_400_000)


def test_price_per_second_uses_the_received_audio(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.variables["OPENAI_API_KEY"] = "sk-test"
    audiocli.write_config('[prices]\n"openai:tts-1" = { usd = 0.6, per = "minute" }\n')

    r = audiocli("speak", BOOK[:200], "-m", "openai:tts-1", "-o", tmp_path / "x.wav", "--json")

    assert r.code == 0, r.err
    assert r.json["cost_source"] == "estimated"
    assert r.json["cost_usd"] == pytest.approx(r.json["duration_s"] * 0.01, rel=0.01)


def test_reported_tokens_replace_the_estimate(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "talk.wav").write_bytes(SPEECH)
    body = {"text": "Hi.", "usage": {"type": "tokens", "input_tokens": 1000, "output_tokens": 100}}
    cli.gateway.queue_faults(Status(200, body=body), path="/audio/transcriptions")

    r = cli("transcribe", tmp_path / "talk.wav", "-m", f"openrouter:{STT}", "--json")

    assert r.code == 0, r.err
    assert (r.json["cost_source"], r.json["cost_usd"]) == ("estimated", pytest.approx(1000 * 2.5e-6 + 100 * 1e-5))


# --- bills -----------------------------------------------------------------------------------------------------------


def test_reconciled_bills_correct_later_estimates(cli: CommandLine) -> None:
    before = estimate_usd(cli, BOOK)
    add_bills(cli, [1.5, 1.5, 1.5])

    assert estimate_usd(cli, BOOK) == pytest.approx(before * 1.5, rel=0.01)


def test_correction_does_not_accumulate(cli: CommandLine) -> None:
    before = estimate_usd(cli, BOOK)
    add_bills(cli, [2.0] * 5)

    assert estimate_usd(cli, BOOK) == pytest.approx(before * 2, rel=0.01)
    assert len({entry["estimate_nanousd"] for entry in cli.read_ledger_entries()}) == 1


@pytest.mark.parametrize(("ratio", "bound"), [(1000.0, 4.0), (0.001, 0.25)])
def test_correction_is_bounded(cli: CommandLine, ratio: float, bound: float) -> None:
    before = estimate_usd(cli, BOOK)
    add_bills(cli, [ratio] * 3)

    assert estimate_usd(cli, BOOK) == pytest.approx(before * bound, rel=0.01)


def test_correction_is_the_median_of_the_newest_bills() -> None:
    assert compute_correction([]) == 1
    assert compute_correction([3.0]) == 2
    assert compute_correction([1.2, 1.2, 1.2, 100.0, 0.001]) == pytest.approx(1.2)


def test_lower_bills_do_not_lower_the_maximum(cli: CommandLine) -> None:
    before = cli("speak", BOOK, "-n", "--json").json["price_usd_most"]
    add_bills(cli, [0.5] * 3)
    lower = cli("speak", BOOK, "-n", "--json").json
    add_bills(cli, [3.0] * 5)
    higher = cli("speak", BOOK, "-n", "--json").json

    assert lower["price_usd_most"] == before
    assert higher["price_usd_most"] == pytest.approx(before * 3, rel=0.01)


def test_other_models_and_exact_prices_are_not_corrected(cli: CommandLine, tmp_path: Path) -> None:
    add_bills(cli, [2.0] * 3)
    cli.variables["OPENAI_API_KEY"] = "sk-test"
    cli.write_config('[prices]\n"openai:tts-1" = { usd = 0.000015, per = "character" }\n')

    other = cli("speak", "x" * 100, "-m", "openrouter:hexgrad/kokoro-82m", "-n", "--json").json
    exact = cli("speak", "x" * 100, "-m", "openai:tts-1", "-n", "--json").json

    assert other["price_usd"] == pytest.approx(0.0004)
    assert (exact["price_usd"], exact["cost_source"]) == (pytest.approx(0.0015), "computed")


def test_estimates_of_version_0_1_are_not_compared(cli: CommandLine) -> None:
    before = estimate_usd(cli, BOOK)
    add_bills(cli, [1.0] * 3)
    # Version 0.1 estimated the middle of a wide range.
    with sqlite3.connect(cli.ledger_path) as database:
        database.execute("UPDATE entries SET estimate_nanousd = most_nanousd * 52 / 100, cost_nanousd = cost_nanousd")
    database.close()

    assert estimate_usd(cli, BOOK) == pytest.approx(before, rel=0.01)


def test_dry_run_creates_no_ledger(cli: CommandLine) -> None:
    estimate_usd(cli, BOOK)

    assert not cli.ledger_path.exists()
