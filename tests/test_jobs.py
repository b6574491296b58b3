"""`speak --background`, `transcribe --background` and `jobs`, through the front door."""

from __future__ import annotations

import asyncio
import json
import ssl
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiocli.core import download
from audiocli.errors import InvalidResponse
from audiocli.gateways import therouter_jobs
from audiocli.http import HttpClient
from audiocli.http.h11_client import H11Client
from audiocli.http.url import is_private, parsed
from audiocli.types.values import Route, WireRequest
from tests.conftest import CommandLine
from tests.gateway import (
    DEFAULT_TEXT,
    KEYS,
    CutBeforeReply,
    Garbage,
    Status,
    closed_port,
    encode,
    expected_audio,
    expected_pcm,
)

TEXT = "Hello there, world."
KEY = KEYS["therouter"] or ""


@pytest.fixture
def later(audiocli: CommandLine) -> CommandLine:
    """The command line with a key for the gateway that has jobs, and one for a gateway that has none."""
    audiocli.variables["THEROUTER_API_KEY"] = KEY
    return audiocli


def talk(folder: Path) -> Path:
    path = folder / "talk.wav"
    path.write_bytes(encode(expected_pcm(DEFAULT_TEXT), "wav"))
    return path


def polls(r: Any) -> list[Any]:
    return [seen for seen in r.requests if seen.method == "GET"]


# --- handing in ------------------------------------------------------------------------------------------------------


def test_a_text_is_handed_in_and_its_name_printed(later: CommandLine) -> None:
    r = later("speak", TEXT, "--background")

    assert (r.code, r.text) == (0, "aud_01\n")
    assert "audiocli jobs wait aud_01" in r.err
    [asked] = r.requests
    assert (asked.path, asked.query) == ("/therouter/v1/audio/speech", {"async": "true"})
    assert asked.json == {"model": "openai/tts-1", "input": TEXT, "voice": "alloy", "response_format": "mp3"}
    assert later.gateway.problems == []


def test_a_receipt_of_a_job_tells_its_name_and_state(later: CommandLine) -> None:
    r = later("speak", TEXT, "--background", "--json")

    assert r.json == {
        "ok": True,
        "command": "speak",
        "job": {"id": "aud_01", "gateway": "therouter", "status": "queued"},
    }


def test_a_recording_is_handed_in(later: CommandLine, tmp_path: Path) -> None:
    r = later("transcribe", talk(tmp_path), "--background", "--json")

    assert r.code == 0, r.err
    assert (r.json["command"], r.json["job"]["id"]) == ("transcribe", "aud_01")
    assert (r.requests[0].path, r.requests[0].query) == ("/therouter/v1/audio/transcriptions", {"async": "true"})
    assert later.gateway.problems == []


@pytest.mark.parametrize("refusal", [404, 405])
def test_a_gateway_without_the_newer_way_gets_the_older_one(later: CommandLine, refusal: int, tmp_path: Path) -> None:
    later.gateway.desk.way, later.gateway.desk.refusal = "jobs", refusal

    spoken = later("speak", TEXT, "--background")
    written = later("transcribe", talk(tmp_path), "--background")

    assert (spoken.text, written.text) == ("aud_01\n", "aud_02\n")
    assert [seen.path.rpartition("/")[2] for seen in spoken.requests] == ["speech", "jobs"]
    assert spoken.requests[1].json == spoken.requests[0].json
    assert written.requests[1].size_bytes == written.requests[0].size_bytes
    assert written.requests[1].audio_s == pytest.approx(2.64)
    assert [entry["outcome"] for entry in spoken.ledger] == ["reserved"]


def test_what_a_job_costs_stays_reserved_also_when_the_process_is_gone(later: CommandLine) -> None:
    later("speak", TEXT, "--background")

    later("usage")
    later("speak", "Hi.", "-o", later.folder / "x.mp3", "--max-cost", "1", "-g", "therouter")

    entry = later.entries()[0]
    assert (entry["outcome"], entry["cost_nanousd"], entry["command"]) == ("reserved", None, "speak")
    assert entry["most_nanousd"] == 19 * 15_000
    assert entry["process"] == "job therouter:aud_01"


def test_a_cap_counts_what_jobs_have_reserved(later: CommandLine) -> None:
    later.config("[budget]\nday = 0.0005\n")

    first = later("speak", TEXT, "--background")
    second = later("speak", TEXT, "--background")

    assert (first.code, second.code) == (0, 5)
    assert second.requests == []


def test_a_result_that_comes_at_once_is_taken(later: CommandLine, tmp_path: Path) -> None:
    later.gateway.desk.at_once = True

    spoken = later("speak", TEXT, "--background", "-o", tmp_path / "x.mp3")
    aside = later("speak", TEXT, "--background", "--json")
    written = later("transcribe", talk(tmp_path), "--background")

    assert [r.code for r in (spoken, aside, written)] == [0, 0, 0], spoken.err + aside.err + written.err
    assert (tmp_path / "x.mp3").read_bytes() == expected_audio(TEXT, "mp3")
    assert Path(aside.json["output"]).read_bytes() == expected_audio(TEXT, "mp3")
    assert written.text == DEFAULT_TEXT + "\n"
    assert [entry["outcome"] for entry in later.entries()] == ["ok", "ok", "ok"]
    assert later("jobs").text == "no jobs\n"


@pytest.mark.parametrize("body", [b"{}", b'{"id": "", "status": "queued"}', b"[]", b'{"status": "queued", "id": 5}'])
def test_an_acceptance_without_a_name_is_a_bad_answer(later: CommandLine, body: bytes) -> None:
    later.gateway.script(Status(202, json.loads(body)))

    r = later("speak", TEXT, "--background")

    assert r.code == 9
    assert r.ledger[0]["outcome"] == "failed"


def test_a_gateway_that_is_busy_is_asked_again(later: CommandLine) -> None:
    later.gateway.script(Status(503), Status(429))

    r = later("speak", TEXT, "--background")

    assert (r.code, r.text) == (0, "aud_01\n")


def test_a_submission_that_was_lost_is_not_sent_again(later: CommandLine) -> None:
    later.gateway.script(CutBeforeReply())

    r = later("speak", TEXT, "--background")

    assert r.code == 7
    assert len(r.requests) == 1
    assert r.ledger[0]["outcome"] == "unknown"


@pytest.mark.parametrize(
    "argv",
    [
        ["speak", TEXT, "--background", "-g", "openrouter"],
        ["speak", TEXT, "--background", "-m", "openrouter:openai/gpt-4o-mini-tts-2025-12-15"],
        ["speak", TEXT, "--wait"],
        ["speak", TEXT, "--background", "--play"],
        ["speak", TEXT, "--background", "-f", "bogus"],
        ["speak", TEXT * 400, "--background"],
    ],
)
def test_what_cannot_go_as_a_job_costs_nothing(later: CommandLine, argv: list[str]) -> None:
    r = later(*argv)

    assert r.code == 2, r.err
    assert r.requests == []
    assert r.ledger == []


def test_a_gateway_without_jobs_names_one_that_has_them(later: CommandLine) -> None:
    assert "-g therouter" in later("speak", TEXT, "--background", "-g", "openrouter").err


def test_a_text_of_more_than_one_job_is_spoken_at_once_and_that_is_said(later: CommandLine, tmp_path: Path) -> None:
    r = later("speak", (TEXT + " ") * 300, "--background", "-o", tmp_path / "x.wav")

    assert r.code == 0, r.err
    assert "more than one job" in r.err
    assert all("async" not in seen.query for seen in r.requests)


def test_a_recording_over_the_length_done_at_once_goes_as_one_job(later: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(encode(bytes(2 * 8_000 * 1000), "wav", rate_hz=8_000))

    r = later("transcribe", path, "--background")

    assert (r.code, r.text) == (0, "aud_01\n")
    assert "goes as one job" in r.err
    assert r.requests[0].audio_s == pytest.approx(1000, abs=1)


# --- waiting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("result", ["urls", "data", "content"])
def test_a_job_is_waited_for_and_its_sound_fetched(later: CommandLine, result: str, tmp_path: Path) -> None:
    desk = later.gateway.desk
    desk.result = result
    later("speak", TEXT, "--background")

    r = later("jobs", "wait", "aud_01", "-o", tmp_path / "x.mp3")

    assert r.code == 0, r.err
    assert (tmp_path / "x.mp3").read_bytes() == expected_audio(TEXT, "mp3")
    assert r.text.startswith(f"aud_01: succeeded, {tmp_path}/x.mp3, mp3, 1.1")
    assert r.waits_s[:2] == pytest.approx([5, 6], abs=0.2)
    assert all(seen.headers["authorization"] == f"Bearer {KEY}" for seen in polls(r))
    assert all("authorization" not in seen for seen in desk.store.requests)
    assert KEY not in json.dumps(desk.store.requests)


def test_waiting_at_once_is_like_speaking(later: CommandLine, tmp_path: Path) -> None:
    r = later("speak", TEXT, "--background", "--wait", "-o", tmp_path / "x.flac", "--json")

    assert r.code == 0, r.err
    assert (r.json["command"], r.json["format"], r.json["job"]["status"]) == ("speak", "flac", "succeeded")
    assert (tmp_path / "x.flac").read_bytes() == expected_audio(TEXT, "flac")
    assert r.ledger[0]["outcome"] == "ok"


def test_sound_of_a_job_is_converted_here_where_the_gateway_does_not_make_it(
    later: CommandLine, tmp_path: Path
) -> None:
    later("speak", TEXT, "--background", "-o", tmp_path / "x.m4a")

    r = later("jobs", "wait", "aud_01", "--json")

    assert r.code == 0, r.err
    assert (r.json["format"], r.json["output"]) == ("m4a", str(tmp_path / "x.m4a"))
    assert (tmp_path / "x.m4a").read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize("result", ["urls", "data", "inline", "content"])
def test_the_text_of_a_job_comes_from_wherever_it_lies(later: CommandLine, result: str, tmp_path: Path) -> None:
    later.gateway.desk.result = result
    later("transcribe", talk(tmp_path), "--background")

    r = later("jobs", "wait", "aud_01")

    assert (r.code, r.text) == (0, DEFAULT_TEXT + "\n")


@pytest.mark.parametrize("kind", ["application/octet-stream", "text/plain", "binary/octet-stream"])
def test_a_store_that_knows_no_types_is_no_trouble(later: CommandLine, kind: str, tmp_path: Path) -> None:
    later.gateway.desk.store.content_type = kind
    later.gateway.desk.store.mangle = lambda content: b"Just words, as they are.\n"
    later("transcribe", talk(tmp_path), "--background")

    assert later("jobs", "wait", "aud_01").text == "Just words, as they are.\n"


def test_captions_of_a_job_go_where_they_were_wanted(later: CommandLine, tmp_path: Path) -> None:
    r = later("transcribe", talk(tmp_path), "--background", "-o", tmp_path / "talk.srt")
    assert r.requests[0].form("response_format") == ["verbose_json"]

    done = later("jobs", "wait", "aud_01")

    assert done.code == 0, done.err
    assert (tmp_path / "talk.srt").read_text().startswith("1\n00:00:00,000 --> ")


def test_captions_of_a_job_keep_the_shape_that_was_asked_for(later: CommandLine, tmp_path: Path) -> None:
    later("transcribe", talk(tmp_path), "--background", "-o", tmp_path / "talk.srt", "--max-line-width", "12")

    later("jobs", "wait", "aud_01")

    lines = (tmp_path / "talk.srt").read_text().splitlines()
    assert max(len(line) for line in lines if "-->" not in line) <= 12


def test_transcribing_may_wait_at_once(later: CommandLine, tmp_path: Path) -> None:
    r = later("transcribe", talk(tmp_path), "--background", "--wait")

    assert (r.code, r.text) == (0, DEFAULT_TEXT + "\n")


@pytest.mark.parametrize("expires", ["integer", "text"])
def test_how_long_a_result_is_kept_is_read_in_both_forms(later: CommandLine, expires: str) -> None:
    later.gateway.desk.expires = expires
    later("speak", TEXT, "--background")

    [job] = [json.loads(line) for line in later("jobs", "--json").text.splitlines()]

    kept = datetime.fromisoformat(job["expires_at"]) - datetime.fromisoformat(job["submitted_at"])
    assert abs(kept - timedelta(days=7)) < timedelta(minutes=1)
    assert (job["id"], job["gateway"], job["status"], job["kind"]) == ("aud_01", "therouter", "queued", "speech")


@pytest.mark.parametrize("polling", ["relative", "absolute", "foreign", None])
def test_the_key_goes_to_the_gateway_and_nowhere_else(later: CommandLine, polling: str | None, tmp_path: Path) -> None:
    later.gateway.desk.polling = polling
    later("speak", TEXT, "--background")

    r = later("jobs", "wait", "aud_01", "-o", tmp_path / "x.mp3")

    assert r.code == 0, r.err
    assert {seen.path for seen in polls(r)} == {"/therouter/v1/jobs/aud_01"}
    assert KEY not in json.dumps(later.gateway.desk.store.requests)
    assert later.gateway.problems == []


def test_a_state_that_nobody_knows_goes_on_until_the_deadline(later: CommandLine) -> None:
    later.gateway.desk.states = ("queued", "pondering")
    later("speak", TEXT, "--background")

    r = later("jobs", "wait", "aud_01", "--deadline", "60", "-o", "x.mp3")

    assert r.code == 7
    assert "still pondering" in r.err and "jobs wait aud_01" in r.err
    assert sum(r.waits_s) <= 60
    assert all(4.8 <= wait_s <= 10 for wait_s in r.waits_s)
    assert later.entries()[0]["outcome"] == "reserved"


def test_without_a_deadline_the_end_is_when_the_gateway_keeps_nothing_any_more(later: CommandLine) -> None:
    later.gateway.desk.states, later.gateway.desk.kept_s = ("pondering",), 90
    later("speak", TEXT, "--background")

    r = later("jobs", "wait", "aud_01", "-o", "x.mp3")

    assert r.code == 7
    assert 80 <= sum(r.waits_s) <= 110


def test_waiting_goes_on_after_a_crash(later: CommandLine, tmp_path: Path) -> None:
    later("speak", TEXT, "--background", "-o", tmp_path / "x.mp3")
    later.gateway.script(*[Status(401)] * 1, method="GET")
    assert later("jobs", "wait", "aud_01").code == 4

    r = later("jobs", "wait", "aud_01")

    assert r.code == 0, r.err
    assert (tmp_path / "x.mp3").read_bytes() == expected_audio(TEXT, "mp3")


def test_trouble_on_the_way_is_waited_out(later: CommandLine, tmp_path: Path) -> None:
    later("speak", TEXT, "--background")
    later.gateway.script(
        Status(502), Status(429, headers={"Retry-After": "30"}), CutBeforeReply(), Status(503), method="GET"
    )

    r = later("jobs", "wait", "aud_01", "-o", tmp_path / "x.mp3")

    assert r.code == 0, r.err
    assert 30.0 in r.waits_s
    assert "asking again" in r.err


def test_a_gateway_that_is_gone_is_given_up(later: CommandLine, tmp_path: Path) -> None:
    later("speak", TEXT, "--background")

    r = later(
        *("jobs", "wait", "aud_01", "-o", tmp_path / "x.mp3"),
        *("--base-url", f"http://127.0.0.1:{closed_port()}/v1"),
    )

    assert r.code == 7
    assert list(tmp_path.glob("x*")) == []


def test_fifty_jobs_are_asked_after_politely_over_one_connection(later: CommandLine) -> None:
    for number in range(50):
        later("speak", f"Number {number}.", "--background", "-o", later.folder / f"{number}.mp3")
    before = later.gateway.connections

    r = later("jobs", "wait", *[f"aud_{number:02d}" for number in range(1, 51)])

    assert r.code == 0, r.err
    assert len(r.text.splitlines()) == 50
    assert later.gateway.connections == before + 1
    assert len(polls(r)) == 150
    assert sum(r.waits_s) >= 148
    assert min(r.waits_s) >= 0.9
    assert (later.folder / "7.mp3").read_bytes() == expected_audio("Number 7.", "mp3")


def test_one_job_that_fails_stops_no_other(later: CommandLine, tmp_path: Path) -> None:
    later("speak", "One.", "--background", "-o", tmp_path / "1.mp3")
    later("speak", "Two.", "--background", "-o", tmp_path / "2.mp3")
    later.gateway.script(Garbage(b'{"id": "aud_01", "status": "failed", "error": "No."}'), method="GET")

    r = later("jobs", "wait", "aud_01", "aud_02", "--json")

    lines = [json.loads(line) for line in r.text.splitlines()]
    assert r.code == 3
    assert [(line["ok"], line["job"]["id"]) for line in lines] == [(False, "aud_01"), (True, "aud_02")]
    assert lines[0]["error"]["exit"] == 6
    assert (tmp_path / "2.mp3").exists() and not (tmp_path / "1.mp3").exists()


# --- money -----------------------------------------------------------------------------------------------------------


def test_a_job_is_charged_when_it_is_over(later: CommandLine, tmp_path: Path) -> None:
    later("speak", TEXT, "--background")

    later("jobs", "wait", "aud_01", "-o", tmp_path / "x.mp3")
    later("jobs", "fetch", "aud_01", "-o", tmp_path / "y.mp3")

    [entry] = later.entries()
    assert (entry["outcome"], entry["cost_nanousd"], entry["cost_source"]) == ("ok", 19 * 15_000, "computed")
    assert entry["generation_id"] == "req_1"
    assert (tmp_path / "y.mp3").read_bytes() == (tmp_path / "x.mp3").read_bytes()


def test_a_cost_that_the_gateway_tells_is_believed(later: CommandLine, tmp_path: Path) -> None:
    later.gateway.desk.cost_usd = 0.0123
    later("speak", TEXT, "--background")

    later("jobs", "wait", "aud_01", "-o", tmp_path / "x.mp3")

    assert (later.entries()[0]["cost_nanousd"], later.entries()[0]["cost_source"]) == (12_300_000, "reported")


@pytest.mark.parametrize(("state", "outcome", "cost"), [
    ("failed", "failed", 0), ("cancelled", "unknown", None), ("expired", "unknown", None),
])  # fmt: skip
def test_a_job_that_came_to_nothing_says_why_and_what_failed_is_given_back(
    later: CommandLine, state: str, outcome: str, cost: int | None, tmp_path: Path
) -> None:
    later.gateway.desk.states = ("in_progress", state)
    later("speak", TEXT, "--background")

    r = later("jobs", "wait", "aud_01", "-o", tmp_path / "x.mp3")

    assert r.code == 6
    assert f"therouter:aud_01 {state}: The provider gave up" in r.err
    [entry] = later.entries()
    assert (entry["outcome"], entry["cost_nanousd"]) == (outcome, cost)
    assert list(tmp_path.glob("x*")) == []


def test_a_forgotten_job_is_of_unknown_cost(later: CommandLine) -> None:
    later("speak", TEXT, "--background")

    r = later("jobs", "forget", "aud_01")

    assert r.code == 0
    assert r.requests == []
    assert later("jobs").text == "no jobs\n"
    assert later.entries()[0]["outcome"] == "unknown"


# --- showing and fetching --------------------------------------------------------------------------------------------


def test_a_job_is_shown_as_the_gateway_tells_it(later: CommandLine) -> None:
    later("speak", TEXT, "--background", "-o", "later.mp3")
    later("jobs", "show", "aud_01")

    r = later("jobs", "show", "aud_01", "--json")

    assert r.json["job"]["status"] == "in_progress"
    assert r.json["job"]["output"].endswith("/later.mp3")
    assert "in_progress" in later("jobs").text


def test_a_job_is_shown_as_last_known_where_nobody_answers(later: CommandLine) -> None:
    later("speak", TEXT, "--background")

    r = later("jobs", "show", "aud_01", "--base-url", f"http://127.0.0.1:{closed_port()}/v1")

    assert r.code == 0
    assert "queued" in r.text
    assert "last known" in r.err


def test_what_is_not_ready_is_not_fetched(later: CommandLine) -> None:
    later("speak", TEXT, "--background")

    r = later("jobs", "fetch", "aud_01", "-o", "x.mp3")

    assert r.code == 2
    assert "jobs wait aud_01" in r.err
    assert not Path("x.mp3").exists()


def test_a_job_that_is_waited_for_without_a_place_can_be_fetched_later(later: CommandLine, tmp_path: Path) -> None:
    later("speak", TEXT, "--background")

    waited = later("jobs", "wait", "aud_01", terminal="out")
    fetched = later("jobs", "fetch", "aud_01", "-o", tmp_path / "x.mp3")

    assert waited.code == 0, waited.err
    assert "jobs fetch aud_01" in waited.err
    assert fetched.code == 0
    assert (tmp_path / "x.mp3").exists()


def test_an_unknown_job_is_a_usage_error(later: CommandLine) -> None:
    later("speak", TEXT, "--background")

    for command in ("show", "wait", "fetch", "forget"):
        r = later("jobs", command, "aud_99")
        assert r.code == 2
        assert "aud_99" in r.err and "aud_01" in r.err
        assert r.requests == []


def test_a_job_that_the_gateway_forgot_is_gone(later: CommandLine, tmp_path: Path) -> None:
    later("speak", TEXT, "--background")
    later.gateway.always(Status(404), method="GET")

    r = later("jobs", "wait", "aud_01", "-o", tmp_path / "x.mp3")

    assert r.code == 6
    assert "is gone" in r.err and "7 days" in r.err


# --- links -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_link_that_has_expired_names_how_long_results_are_kept(
    later: CommandLine, status: int, tmp_path: Path
) -> None:
    later.gateway.desk.store.status = status
    later("speak", TEXT, "--background")

    r = later("jobs", "wait", "aud_01", "-o", tmp_path / "x.mp3")

    assert r.code == 6
    assert "expired" in r.err and "7 days" in r.err
    assert "Signature" not in r.err
    assert list(tmp_path.glob("*x*")) == []


def test_a_redirect_is_followed_without_the_key(later: CommandLine, tmp_path: Path) -> None:
    store = later.gateway.desk.store
    later("speak", TEXT, "--background")
    store.redirects = [f"{store.url}/aud_01.out?again=1", "/aud_01.out"]

    r = later("jobs", "wait", "aud_01", "-o", tmp_path / "x.mp3")

    assert r.code == 0, r.err
    assert len(store.requests) == 3
    assert KEY not in json.dumps(store.requests)
    assert (tmp_path / "x.mp3").read_bytes() == expected_audio(TEXT, "mp3")


@pytest.mark.parametrize(
    "location", ["https://127.0.0.1/x", "file:///etc/passwd", "ftp://host/x", "local:voices", "//[::1"]
)
def test_a_redirect_to_another_scheme_is_refused(later: CommandLine, location: str, tmp_path: Path) -> None:
    later("speak", TEXT, "--background")
    later.gateway.desk.store.redirects = [location]

    r = later("jobs", "wait", "aud_01", "-o", tmp_path / "x.mp3")

    assert r.code == 9, r.err
    assert list(tmp_path.glob("*x*")) == []


def test_a_redirect_in_circles_ends(later: CommandLine, tmp_path: Path) -> None:
    store = later.gateway.desk.store
    later("speak", TEXT, "--background")
    store.redirects = [f"{store.url}/round"] * 20

    r = later("jobs", "wait", "aud_01", "-o", tmp_path / "x.mp3")

    assert r.code == 9
    assert len(store.requests) == 6


@pytest.mark.parametrize("mangle", [
    lambda content: b"", lambda content: content[: len(content) // 2 - 7], lambda content: b"<html>gone</html>",
    lambda content: b'{"error": {"message": "no"}}',
])  # fmt: skip
def test_bad_sound_of_a_job_leaves_nothing(later: CommandLine, mangle: Any, tmp_path: Path) -> None:
    later.gateway.desk.store.mangle = mangle
    later("speak", TEXT, "--background", "-f", "wav")

    r = later("jobs", "wait", "aud_01", "-o", tmp_path / "x.wav")

    assert r.code == 9, r.err
    assert list(tmp_path.glob("*x*")) == []


@pytest.mark.parametrize("content", [b"", b"<html>", b"{}", b'{"error": "no"}', b"\xff\xfe\x00"])
def test_a_bad_transcript_of_a_job_is_no_transcript(later: CommandLine, content: bytes, tmp_path: Path) -> None:
    later.gateway.desk.store.mangle = lambda _: content
    later("transcribe", talk(tmp_path), "--background")

    r = later("jobs", "wait", "aud_01", "-o", tmp_path / "x.txt")

    assert r.code == 9, r.err
    assert list(tmp_path.glob("*x*")) == []


@pytest.mark.parametrize("body", [b"", b"[]", b"not json", b'{"status": 5}', b'{"state": "done"}'])
def test_an_answer_without_a_state_is_a_bad_answer(later: CommandLine, body: bytes, tmp_path: Path) -> None:
    later("speak", TEXT, "--background")
    later.gateway.always(Garbage(body), method="GET")

    r = later("jobs", "wait", "aud_01", "-o", tmp_path / "x.mp3")

    assert r.code == 9


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("127.0.0.1", True), ("10.1.2.3", True), ("192.168.0.1", True), ("169.254.169.254", True), ("::1", True),
        ("::ffff:10.0.0.1", True), ("fd00::1", True), ("localhost", True), ("printer.local", True), ("nas", True),
        ("100.64.0.1", True), ("0.0.0.0", True), ("8.8.8.8", False), ("bucket.example.com", False),
        ("2606:4700::1111", False),
    ],
)  # fmt: skip
def test_private_addresses_are_known(host: str, private: bool) -> None:
    assert is_private(host) is private


@pytest.mark.parametrize("way", ["link", "redirect"])
def test_a_gateway_on_the_internet_sends_us_to_no_private_address(
    later: CommandLine, monkeypatch: pytest.MonkeyPatch, way: str, tmp_path: Path
) -> None:
    # The gateway is public by its name; the double answers for it as a proxy.
    later.variables["http_proxy"] = later.gateway.url
    monkeypatch.setenv("http_proxy", later.gateway.url)
    later.variables["THEROUTER_BASE_URL"] = "http://gateway.example/therouter/v1"
    later.gateway.desk.result = {"link": "urls", "redirect": "content"}[way]
    assert later("speak", TEXT, "--background").code == 0

    r = later("jobs", "wait", "aud_01", "-o", tmp_path / "x.mp3")

    assert r.code == 9
    assert "private address" in r.err
    assert later.gateway.desk.store.requests == []
    assert list(tmp_path.glob("*x*")) == []


def test_a_private_address_is_known_by_its_number_and_by_the_connection(later: CommandLine) -> None:
    async def fetch(url: str, *, by_name: bool) -> None:
        wire = HttpClient(silence_s=5, variables={}, log=lambda _: None)
        direct = H11Client(5.0, 5.0, ssl.create_default_context)
        address = parsed(url)._replace(public_only=True)
        request = WireRequest("GET", url, public_only=True)
        try:
            async with wire.open(request) if by_name else direct.exchange("GET", address, {}, None):
                raise AssertionError("it was followed")
        finally:
            await wire.close()
            await direct.close()

    cases = [(url, True) for url in (later.gateway.url, "http://169.254.169.254/latest", "http://localhost:1/")]
    # Whatever a name is, what it was resolved to is what counts.
    for url, by_name in (*cases, (later.gateway.url, False)):
        with pytest.raises(InvalidResponse, match="private address"):
            asyncio.run(fetch(url, by_name=by_name))
    assert later.gateway.requests == []


@pytest.mark.parametrize(
    ("url", "location"), [("https://a.example/x", "http://a.example/x"), ("http://a.example/x", "gopher://b")]
)
def test_a_redirect_never_leaves_its_scheme(url: str, location: str) -> None:
    with pytest.raises(InvalidResponse):
        download.redirected(url, location)


# --- the reader by itself --------------------------------------------------------------------------------------------

ROUTE = Route("therouter", "therouter", "https://api.therouter.ai/v1/", "openai/tts-1", "sk-x")


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        (None, "https://api.therouter.ai/v1/jobs/a%2Fb"),
        ("/v1/jobs/x", "https://api.therouter.ai/v1/jobs/x"),
        ("jobs/x", "https://api.therouter.ai/v1/jobs/x"),
        ("https://api.therouter.ai:443/v1/jobs/x", "https://api.therouter.ai:443/v1/jobs/x"),
        ("https://evil.example/v1/jobs/x", "https://api.therouter.ai/v1/jobs/a%2Fb"),
        ("//evil.example/v1/jobs/x", "https://api.therouter.ai/v1/jobs/a%2Fb"),
        ("http://api.therouter.ai/v1/jobs/x", "https://api.therouter.ai/v1/jobs/a%2Fb"),
        ("https://api.therouter.ai@evil.example/x", "https://api.therouter.ai/v1/jobs/a%2Fb"),
        ("https://user:pw@api.therouter.ai/v1/jobs/x", "https://api.therouter.ai/v1/jobs/a%2Fb"),
        ("https://api.therouter.ai:8443/x", "https://api.therouter.ai/v1/jobs/a%2Fb"),
        ("http://[", "https://api.therouter.ai/v1/jobs/a%2Fb"),
    ],
)
def test_only_the_gateways_own_origin_is_asked_with_the_key(told: str | None, asked: str) -> None:
    assert therouter_jobs.query("a/b", told, ROUTE).url == asked


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1_760_604_800, 1_760_604_800), ("1760604800", 1_760_604_800), (1_760_604_800_000, 1_760_604_800),
        ("2025-10-16T08:53:20Z", 1_760_604_800), ("2025-10-16T10:53:20+02:00", 1_760_604_800),
        ("2025-10-16T08:53:20", 1_760_604_800), ("soon", None), (None, None), (-5, None), ([], None), (1e300, None),
    ],
)  # fmt: skip
def test_moments_are_read_in_every_form(value: Any, seconds: float | None) -> None:
    state = therouter_jobs.state(json.dumps({"id": "x", "status": "queued", "expires_at": value}).encode())

    assert state is not None
    assert state.expires_s == seconds


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["id", "status", "unsigned_urls", "result", "data", "url", "text", "expires_at", "error",
                         "message", "polling_url", "usage", "cost"]), inner, max_size=5),
    max_leaves=12,
))  # fmt: skip
def test_nonsense_about_a_job_is_never_a_bug(value: Any) -> None:
    state = therouter_jobs.state(json.dumps(value).encode())

    if state is not None:
        asked = therouter_jobs.query(state.id or "x", state.polling_url, ROUTE)
        assert (asked.method, bool(asked.url)) == ("GET", True)
