"""Test `speak --background`, `transcribe --background` and `jobs` through the command line."""

from __future__ import annotations

import asyncio
import json
import sqlite3
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
from audiocli.http.url import is_private
from audiocli.mock import DEFAULT_TRANSCRIPT, KEYS, CutBeforeResponse, Garbage, Status, expected_pcm, find_closed_port
from audiocli.types.requests import HttpRequest
from audiocli.types.routes import Route
from tests.conftest import CommandLine
from tests.pyav_codec import encode, expected_audio

TEXT = "Hello there, world."
KEY = KEYS["therouter"] or ""


@pytest.fixture
def audiocli_with_jobs(audiocli: CommandLine) -> CommandLine:
    """Return a command line with keys for a gateway with background jobs and for one without them."""
    audiocli.variables["THEROUTER_API_KEY"] = KEY
    return audiocli


def write_recording(directory: Path) -> Path:
    path = directory / "recording.wav"
    path.write_bytes(encode(expected_pcm(DEFAULT_TRANSCRIPT), "wav"))
    return path


def get_poll_requests(r: Any) -> list[Any]:
    return [request for request in r.requests if request.method == "GET"]


# --- submit ----------------------------------------------------------------------------------------------------------


def test_text_is_submitted_and_its_job_id_is_printed(audiocli_with_jobs: CommandLine) -> None:
    r = audiocli_with_jobs("speak", TEXT, "--background")

    assert (r.code, r.text) == (0, "aud_01\n")
    assert "audiocli jobs wait aud_01" in r.err
    [submission] = r.requests
    assert (submission.path, submission.query) == ("/therouter/v1/audio/speech", {"async": "true"})
    assert submission.json == {"model": "openai/tts-1", "input": TEXT, "voice": "alloy", "response_format": "mp3"}
    assert audiocli_with_jobs.gateway.problems == []


def test_json_result_of_a_submission_has_job_id_and_status(audiocli_with_jobs: CommandLine) -> None:
    r = audiocli_with_jobs("speak", TEXT, "--background", "--json")

    assert r.json == {
        "schema": 1,
        "ok": True,
        "command": "speak",
        "job": {"id": "aud_01", "gateway": "therouter", "status": "queued"},
    }


def test_recording_is_submitted(audiocli_with_jobs: CommandLine, tmp_path: Path) -> None:
    r = audiocli_with_jobs("transcribe", write_recording(tmp_path), "--background", "--json")

    assert r.code == 0, r.err
    assert (r.json["command"], r.json["job"]["id"]) == ("transcribe", "aud_01")
    assert (r.requests[0].path, r.requests[0].query) == ("/therouter/v1/audio/transcriptions", {"async": "true"})
    assert audiocli_with_jobs.gateway.problems == []


@pytest.mark.parametrize("refusal_status", [404, 405])
def test_submission_falls_back_to_the_jobs_endpoint(
    audiocli_with_jobs: CommandLine, refusal_status: int, tmp_path: Path
) -> None:
    audiocli_with_jobs.gateway.jobs_api.submit_via, audiocli_with_jobs.gateway.jobs_api.refusal_status = (
        "jobs",
        refusal_status,
    )

    speech = audiocli_with_jobs("speak", TEXT, "--background")
    transcript = audiocli_with_jobs("transcribe", write_recording(tmp_path), "--background")

    assert (speech.text, transcript.text) == ("aud_01\n", "aud_02\n")
    assert [request.path.rpartition("/")[2] for request in speech.requests] == ["speech", "jobs"]
    assert speech.requests[1].json == speech.requests[0].json
    assert transcript.requests[1].size_bytes == transcript.requests[0].size_bytes
    assert transcript.requests[1].audio_s == pytest.approx(2.64)
    assert [entry["outcome"] for entry in speech.ledger] == ["reserved"]


def test_cost_of_a_job_stays_reserved_after_the_process_exits(audiocli_with_jobs: CommandLine) -> None:
    audiocli_with_jobs("speak", TEXT, "--background")

    audiocli_with_jobs("usage")
    audiocli_with_jobs(
        "speak", "Hi.", "-o", audiocli_with_jobs.directory / "x.mp3", "--max-cost", "1", "-g", "therouter"
    )

    entry = audiocli_with_jobs.read_ledger_entries()[0]
    assert (entry["outcome"], entry["cost_nanousd"], entry["command"]) == ("reserved", None, "speak")
    assert entry["most_nanousd"] == 19 * 15_000
    assert entry["process"] == "job therouter:aud_01"


def test_budget_counts_reservations_of_jobs(audiocli_with_jobs: CommandLine) -> None:
    audiocli_with_jobs.write_config("[budget]\nday = 0.0005\n")

    first = audiocli_with_jobs("speak", TEXT, "--background")
    second = audiocli_with_jobs("speak", TEXT, "--background")

    assert (first.code, second.code) == (0, 5)
    assert second.requests == []


def test_immediate_result_is_accepted(audiocli_with_jobs: CommandLine, tmp_path: Path) -> None:
    audiocli_with_jobs.gateway.jobs_api.complete_immediately = True

    speech = audiocli_with_jobs("speak", TEXT, "--background", "-o", tmp_path / "x.mp3")
    default_output = audiocli_with_jobs("speak", TEXT, "--background", "--json")
    transcript = audiocli_with_jobs("transcribe", write_recording(tmp_path), "--background")

    assert [r.code for r in (speech, default_output, transcript)] == [0, 0, 0], (
        speech.err + default_output.err + transcript.err
    )
    assert (tmp_path / "x.mp3").read_bytes() == expected_audio(TEXT, "mp3")
    assert Path(default_output.json["output"]).read_bytes() == expected_audio(TEXT, "mp3")
    assert transcript.text == DEFAULT_TRANSCRIPT + "\n"
    assert [entry["outcome"] for entry in audiocli_with_jobs.read_ledger_entries()] == ["ok", "ok", "ok"]
    assert audiocli_with_jobs("jobs").text == "no jobs\n"


@pytest.mark.parametrize("body", [b"{}", b'{"id": "", "status": "queued"}', b"[]", b'{"status": "queued", "id": 5}'])
def test_submission_response_without_job_id_is_invalid(audiocli_with_jobs: CommandLine, body: bytes) -> None:
    audiocli_with_jobs.gateway.queue_faults(Status(202, json.loads(body)))

    r = audiocli_with_jobs("speak", TEXT, "--background")

    assert r.code == 9
    assert r.ledger[0]["outcome"] == "failed"


def test_submission_to_a_busy_gateway_is_retried(audiocli_with_jobs: CommandLine) -> None:
    audiocli_with_jobs.gateway.queue_faults(Status(503), Status(429))

    r = audiocli_with_jobs("speak", TEXT, "--background")

    assert (r.code, r.text) == (0, "aud_01\n")


def test_submission_without_response_is_not_retried(audiocli_with_jobs: CommandLine) -> None:
    audiocli_with_jobs.gateway.queue_faults(CutBeforeResponse())

    r = audiocli_with_jobs("speak", TEXT, "--background")

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
def test_invalid_submission_sends_nothing(audiocli_with_jobs: CommandLine, argv: list[str]) -> None:
    r = audiocli_with_jobs(*argv)

    assert r.code == 2, r.err
    assert r.requests == []
    assert r.ledger == []


def test_error_for_a_gateway_without_jobs_suggests_therouter(audiocli_with_jobs: CommandLine) -> None:
    assert "-g therouter" in audiocli_with_jobs("speak", TEXT, "--background", "-g", "openrouter").err


def test_text_too_long_for_one_job_is_synthesized_immediately(audiocli_with_jobs: CommandLine, tmp_path: Path) -> None:
    r = audiocli_with_jobs("speak", (TEXT + " ") * 300, "--background", "-o", tmp_path / "x.wav")

    assert r.code == 0, r.err
    assert "too long for a single job" in r.err
    assert all("async" not in request.query for request in r.requests)


def test_recording_longer_than_a_chunk_is_submitted_as_one_job(audiocli_with_jobs: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    path.write_bytes(encode(bytes(2 * 8_000 * 1000), "wav", rate_hz=8_000))

    r = audiocli_with_jobs("transcribe", path, "--background")

    assert (r.code, r.text) == (0, "aud_01\n")
    assert "submitting it as one job" in r.err
    assert r.requests[0].audio_s == pytest.approx(1000, abs=1)


# --- wait ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("result_kind", ["urls", "data", "content"])
def test_wait_polls_the_job_and_downloads_its_audio(
    audiocli_with_jobs: CommandLine, result_kind: str, tmp_path: Path
) -> None:
    jobs_api = audiocli_with_jobs.gateway.jobs_api
    jobs_api.result_kind = result_kind
    audiocli_with_jobs("speak", TEXT, "--background")

    r = audiocli_with_jobs("jobs", "wait", "aud_01", "-o", tmp_path / "x.mp3")

    assert r.code == 0, r.err
    assert (tmp_path / "x.mp3").read_bytes() == expected_audio(TEXT, "mp3")
    assert r.text.startswith(f"aud_01  succeeded  {tmp_path}/x.mp3  1.1")
    assert r.waits_s[:2] == pytest.approx([5, 6], abs=0.2)
    assert all(request.headers["authorization"] == f"Bearer {KEY}" for request in get_poll_requests(r))
    assert all("authorization" not in request for request in jobs_api.store.requests)
    assert KEY not in json.dumps(jobs_api.store.requests)


def test_speak_with_wait_submits_and_writes_the_output(audiocli_with_jobs: CommandLine, tmp_path: Path) -> None:
    r = audiocli_with_jobs("speak", TEXT, "--background", "--wait", "-o", tmp_path / "x.flac", "--json")

    assert r.code == 0, r.err
    assert (r.json["command"], r.json["format"], r.json["job"]["status"]) == ("speak", "flac", "succeeded")
    assert (tmp_path / "x.flac").read_bytes() == expected_audio(TEXT, "flac")
    assert r.ledger[0]["outcome"] == "ok"


@pytest.mark.parametrize("flags", [(), ("--wait",)])
def test_job_that_succeeds_at_submission_is_settled(
    audiocli_with_jobs: CommandLine, flags: tuple[str, ...], tmp_path: Path
) -> None:
    audiocli_with_jobs.gateway.jobs_api.statuses = ("succeeded",)

    speech = audiocli_with_jobs("speak", TEXT, "--background", *flags, "-o", tmp_path / "x.mp3")
    transcript = audiocli_with_jobs("transcribe", write_recording(tmp_path), "--background", *flags)

    assert (speech.code, transcript.code) == (0, 0), speech.err + transcript.err
    entries = (*speech.ledger, *transcript.ledger)
    assert [(entry["outcome"], entry["cost_source"]) for entry in entries] == [("ok", "computed")] * 2
    assert entries[0]["cost_nanousd"] == 19 * 15_000


def test_job_that_fails_at_submission_is_settled_as_free(audiocli_with_jobs: CommandLine) -> None:
    audiocli_with_jobs.gateway.jobs_api.statuses = ("failed",)

    r = audiocli_with_jobs("speak", TEXT, "--background", "--wait", "-o", audiocli_with_jobs.directory / "x.mp3")

    assert r.code == 6
    assert [(entry["outcome"], entry["cost_nanousd"]) for entry in r.ledger] == [("failed", 0)]


def test_open_entry_of_a_finished_job_is_settled_by_the_next_poll(audiocli_with_jobs: CommandLine) -> None:
    audiocli_with_jobs.gateway.jobs_api.statuses = ("succeeded",)
    audiocli_with_jobs("speak", TEXT, "--background")
    database = sqlite3.connect(audiocli_with_jobs.ledger_path)
    database.execute("UPDATE entries SET outcome = 'reserved', cost_nanousd = NULL, cost_source = 'unknown'")
    database.commit()
    database.close()

    audiocli_with_jobs("jobs", "show", "aud_01")

    [entry] = audiocli_with_jobs.read_ledger_entries()
    assert (entry["outcome"], entry["cost_nanousd"]) == ("ok", 19 * 15_000)


def test_job_audio_is_converted_if_the_gateway_lacks_the_format(
    audiocli_with_jobs: CommandLine, tmp_path: Path
) -> None:
    audiocli_with_jobs("speak", TEXT, "--background", "-o", tmp_path / "x.m4a")

    r = audiocli_with_jobs("jobs", "wait", "aud_01", "--json")

    assert r.code == 0, r.err
    assert (r.json["format"], r.json["output"]) == ("m4a", str(tmp_path / "x.m4a"))
    assert (tmp_path / "x.m4a").read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize("result_kind", ["urls", "data", "inline", "content"])
def test_transcript_of_a_job_is_read_from_every_result_kind(
    audiocli_with_jobs: CommandLine, result_kind: str, tmp_path: Path
) -> None:
    audiocli_with_jobs.gateway.jobs_api.result_kind = result_kind
    audiocli_with_jobs("transcribe", write_recording(tmp_path), "--background")

    r = audiocli_with_jobs("jobs", "wait", "aud_01")

    assert (r.code, r.text) == (0, DEFAULT_TRANSCRIPT + "\n")


@pytest.mark.parametrize("content_type", ["application/octet-stream", "text/plain", "binary/octet-stream"])
def test_transcript_with_generic_content_type_is_accepted(
    audiocli_with_jobs: CommandLine, content_type: str, tmp_path: Path
) -> None:
    audiocli_with_jobs.gateway.jobs_api.store.content_type = content_type
    audiocli_with_jobs.gateway.jobs_api.store.transform = lambda content: b"Plain text.\n"
    audiocli_with_jobs("transcribe", write_recording(tmp_path), "--background")

    assert audiocli_with_jobs("jobs", "wait", "aud_01").text == "Plain text.\n"


def test_captions_of_a_job_are_written_to_the_submitted_output(audiocli_with_jobs: CommandLine, tmp_path: Path) -> None:
    r = audiocli_with_jobs("transcribe", write_recording(tmp_path), "--background", "-o", tmp_path / "recording.srt")
    assert r.requests[0].get_form_values("response_format") == ["verbose_json"]

    waited = audiocli_with_jobs("jobs", "wait", "aud_01")

    assert waited.code == 0, waited.err
    assert (tmp_path / "recording.srt").read_text().startswith("1\n00:00:00,000 --> ")


def test_captions_of_a_job_use_the_submitted_limits(audiocli_with_jobs: CommandLine, tmp_path: Path) -> None:
    audiocli_with_jobs(
        "transcribe",
        write_recording(tmp_path),
        "--background",
        "-o",
        tmp_path / "recording.srt",
        "--max-line-width",
        "12",
    )

    audiocli_with_jobs("jobs", "wait", "aud_01")

    lines = (tmp_path / "recording.srt").read_text().splitlines()
    assert max(len(line) for line in lines if "-->" not in line) <= 12


def test_transcribe_with_wait_submits_and_writes_the_transcript(
    audiocli_with_jobs: CommandLine, tmp_path: Path
) -> None:
    r = audiocli_with_jobs("transcribe", write_recording(tmp_path), "--background", "--wait")

    assert (r.code, r.text) == (0, DEFAULT_TRANSCRIPT + "\n")


@pytest.mark.parametrize("expiry_type", ["integer", "text"])
def test_expiry_of_a_result_is_read_as_integer_and_text(audiocli_with_jobs: CommandLine, expiry_type: str) -> None:
    audiocli_with_jobs.gateway.jobs_api.expiry_type = expiry_type
    audiocli_with_jobs("speak", TEXT, "--background")

    [job] = [json.loads(line) for line in audiocli_with_jobs("jobs", "--json").text.splitlines()]

    retention = datetime.fromisoformat(job["expires_at"]) - datetime.fromisoformat(job["submitted_at"])
    assert abs(retention - timedelta(days=7)) < timedelta(minutes=1)
    assert (job["id"], job["gateway"], job["status"], job["kind"]) == ("aud_01", "therouter", "queued", "speech")


@pytest.mark.parametrize("polling_url_kind", ["relative", "absolute", "foreign", None])
def test_key_is_sent_only_to_the_gateway(
    audiocli_with_jobs: CommandLine, polling_url_kind: str | None, tmp_path: Path
) -> None:
    audiocli_with_jobs.gateway.jobs_api.polling_url_kind = polling_url_kind
    audiocli_with_jobs("speak", TEXT, "--background")

    r = audiocli_with_jobs("jobs", "wait", "aud_01", "-o", tmp_path / "x.mp3")

    assert r.code == 0, r.err
    assert {request.path for request in get_poll_requests(r)} == {"/therouter/v1/jobs/aud_01"}
    assert KEY not in json.dumps(audiocli_with_jobs.gateway.jobs_api.store.requests)
    assert audiocli_with_jobs.gateway.problems == []


def test_unknown_job_status_is_polled_until_the_deadline(audiocli_with_jobs: CommandLine) -> None:
    audiocli_with_jobs.gateway.jobs_api.statuses = ("queued", "pondering")
    audiocli_with_jobs("speak", TEXT, "--background")

    r = audiocli_with_jobs("jobs", "wait", "aud_01", "--deadline", "60", "-o", "x.mp3")

    assert r.code == 7
    assert "still pondering" in r.err and "jobs wait aud_01" in r.err
    assert sum(r.waits_s) <= 60
    assert all(4.8 <= wait_s <= 10 for wait_s in r.waits_s)
    assert audiocli_with_jobs.read_ledger_entries()[0]["outcome"] == "reserved"


def test_wait_without_deadline_ends_when_the_result_expires(audiocli_with_jobs: CommandLine) -> None:
    audiocli_with_jobs.gateway.jobs_api.statuses, audiocli_with_jobs.gateway.jobs_api.retention_s = ("pondering",), 90
    audiocli_with_jobs("speak", TEXT, "--background")

    r = audiocli_with_jobs("jobs", "wait", "aud_01", "-o", "x.mp3")

    assert r.code == 7
    assert 80 <= sum(r.waits_s) <= 110


def test_wait_continues_after_a_failed_wait(audiocli_with_jobs: CommandLine, tmp_path: Path) -> None:
    audiocli_with_jobs("speak", TEXT, "--background", "-o", tmp_path / "x.mp3")
    audiocli_with_jobs.gateway.queue_faults(*[Status(401)] * 1, method="GET")
    assert audiocli_with_jobs("jobs", "wait", "aud_01").code == 4

    r = audiocli_with_jobs("jobs", "wait", "aud_01")

    assert r.code == 0, r.err
    assert (tmp_path / "x.mp3").read_bytes() == expected_audio(TEXT, "mp3")


def test_wait_retries_after_temporary_errors(audiocli_with_jobs: CommandLine, tmp_path: Path) -> None:
    audiocli_with_jobs("speak", TEXT, "--background")
    audiocli_with_jobs.gateway.queue_faults(
        Status(502), Status(429, headers={"Retry-After": "30"}), CutBeforeResponse(), Status(503), method="GET"
    )

    r = audiocli_with_jobs("jobs", "wait", "aud_01", "-o", tmp_path / "x.mp3")

    assert r.code == 0, r.err
    assert 30.0 in r.waits_s
    assert "polling again" in r.err


def test_wait_stops_if_the_gateway_is_unreachable(audiocli_with_jobs: CommandLine, tmp_path: Path) -> None:
    audiocli_with_jobs("speak", TEXT, "--background")

    r = audiocli_with_jobs(
        *("jobs", "wait", "aud_01", "-o", tmp_path / "x.mp3"),
        *("--base-url", f"http://127.0.0.1:{find_closed_port()}/v1"),
    )

    assert r.code == 7
    assert list(tmp_path.glob("x*")) == []


def test_fifty_jobs_are_polled_slowly_over_one_connection(audiocli_with_jobs: CommandLine) -> None:
    for number in range(50):
        audiocli_with_jobs(
            "speak", f"Number {number}.", "--background", "-o", audiocli_with_jobs.directory / f"{number}.mp3"
        )
    connections_before = audiocli_with_jobs.gateway.connection_count

    r = audiocli_with_jobs("jobs", "wait", *[f"aud_{number:02d}" for number in range(1, 51)])

    assert r.code == 0, r.err
    assert len(r.text.splitlines()) == 50
    assert audiocli_with_jobs.gateway.connection_count == connections_before + 1
    assert len(get_poll_requests(r)) == 150
    assert sum(r.waits_s) >= 148
    assert min(r.waits_s) >= 0.9
    assert (audiocli_with_jobs.directory / "7.mp3").read_bytes() == expected_audio("Number 7.", "mp3")


def test_failed_job_does_not_stop_other_jobs(audiocli_with_jobs: CommandLine, tmp_path: Path) -> None:
    audiocli_with_jobs("speak", "One.", "--background", "-o", tmp_path / "1.mp3")
    audiocli_with_jobs("speak", "Two.", "--background", "-o", tmp_path / "2.mp3")
    audiocli_with_jobs.gateway.queue_faults(
        Garbage(b'{"id": "aud_01", "status": "failed", "error": "No."}'), method="GET"
    )

    r = audiocli_with_jobs("jobs", "wait", "aud_01", "aud_02", "--json")

    lines = [json.loads(line) for line in r.text.splitlines()]
    assert r.code == 3
    assert [(line["ok"], line["job"]["id"]) for line in lines] == [(False, "aud_01"), (True, "aud_02")]
    assert lines[0]["error"]["exit"] == 6
    assert (tmp_path / "2.mp3").exists() and not (tmp_path / "1.mp3").exists()


# --- cost ------------------------------------------------------------------------------------------------------------


def test_cost_of_a_job_is_settled_once(audiocli_with_jobs: CommandLine, tmp_path: Path) -> None:
    audiocli_with_jobs("speak", TEXT, "--background")

    audiocli_with_jobs("jobs", "wait", "aud_01", "-o", tmp_path / "x.mp3")
    audiocli_with_jobs("jobs", "fetch", "aud_01", "-o", tmp_path / "y.mp3")

    [entry] = audiocli_with_jobs.read_ledger_entries()
    assert (entry["outcome"], entry["cost_nanousd"], entry["cost_source"]) == ("ok", 19 * 15_000, "computed")
    assert entry["generation_id"] == "req_1"
    assert (tmp_path / "y.mp3").read_bytes() == (tmp_path / "x.mp3").read_bytes()


def test_reported_cost_of_a_job_is_used(audiocli_with_jobs: CommandLine, tmp_path: Path) -> None:
    audiocli_with_jobs.gateway.jobs_api.cost_usd = 0.0123
    audiocli_with_jobs("speak", TEXT, "--background")

    audiocli_with_jobs("jobs", "wait", "aud_01", "-o", tmp_path / "x.mp3")

    assert (
        audiocli_with_jobs.read_ledger_entries()[0]["cost_nanousd"],
        audiocli_with_jobs.read_ledger_entries()[0]["cost_source"],
    ) == (12_300_000, "reported")


@pytest.mark.parametrize(("status", "outcome", "cost_nanousd"), [
    ("failed", "failed", 0), ("cancelled", "unknown", None), ("expired", "unknown", None),
])  # fmt: skip
def test_unsuccessful_job_reports_the_reason_and_settles_its_cost(
    audiocli_with_jobs: CommandLine, status: str, outcome: str, cost_nanousd: int | None, tmp_path: Path
) -> None:
    audiocli_with_jobs.gateway.jobs_api.statuses = ("in_progress", status)
    audiocli_with_jobs("speak", TEXT, "--background")

    r = audiocli_with_jobs("jobs", "wait", "aud_01", "-o", tmp_path / "x.mp3")

    assert r.code == 6
    assert f"therouter:aud_01 {status}: The provider gave up" in r.err
    [entry] = audiocli_with_jobs.read_ledger_entries()
    assert (entry["outcome"], entry["cost_nanousd"]) == (outcome, cost_nanousd)
    assert list(tmp_path.glob("x*")) == []


def test_forgotten_job_has_unknown_cost(audiocli_with_jobs: CommandLine) -> None:
    audiocli_with_jobs("speak", TEXT, "--background")

    r = audiocli_with_jobs("jobs", "forget", "aud_01")

    assert r.code == 0
    assert r.requests == []
    assert audiocli_with_jobs("jobs").text == "no jobs\n"
    assert audiocli_with_jobs.read_ledger_entries()[0]["outcome"] == "unknown"


# --- show and fetch --------------------------------------------------------------------------------------------------


def test_show_reports_the_current_status(audiocli_with_jobs: CommandLine) -> None:
    audiocli_with_jobs("speak", TEXT, "--background", "-o", "speech.mp3")
    audiocli_with_jobs("jobs", "show", "aud_01")

    r = audiocli_with_jobs("jobs", "show", "aud_01", "--json")

    assert r.json["job"]["status"] == "in_progress"
    assert r.json["job"]["output"].endswith("/speech.mp3")
    assert "in_progress" in audiocli_with_jobs("jobs").text


def test_show_reports_the_last_known_status_if_the_gateway_is_unreachable(audiocli_with_jobs: CommandLine) -> None:
    audiocli_with_jobs("speak", TEXT, "--background")

    r = audiocli_with_jobs("jobs", "show", "aud_01", "--base-url", f"http://127.0.0.1:{find_closed_port()}/v1")

    assert r.code == 0
    assert "queued" in r.text
    assert "last known" in r.err


def test_fetch_of_an_unfinished_job_is_a_usage_error(audiocli_with_jobs: CommandLine) -> None:
    audiocli_with_jobs("speak", TEXT, "--background")

    r = audiocli_with_jobs("jobs", "fetch", "aud_01", "-o", "x.mp3")

    assert r.code == 2
    assert "jobs wait aud_01" in r.err
    assert not Path("x.mp3").exists()


def test_job_waited_for_without_output_can_be_fetched_later(audiocli_with_jobs: CommandLine, tmp_path: Path) -> None:
    audiocli_with_jobs("speak", TEXT, "--background")

    waited = audiocli_with_jobs("jobs", "wait", "aud_01", terminal="out")
    fetched = audiocli_with_jobs("jobs", "fetch", "aud_01", "-o", tmp_path / "x.mp3")

    assert waited.code == 0, waited.err
    assert "jobs fetch aud_01" in waited.err
    assert fetched.code == 0
    assert (tmp_path / "x.mp3").exists()


def test_unknown_job_is_a_usage_error(audiocli_with_jobs: CommandLine) -> None:
    audiocli_with_jobs("speak", TEXT, "--background")

    for command in ("show", "wait", "fetch", "forget"):
        r = audiocli_with_jobs("jobs", command, "aud_99")
        assert r.code == 2
        assert "aud_99" in r.err and "aud_01" in r.err
        assert r.requests == []


def test_job_deleted_by_the_gateway_is_reported_as_gone(audiocli_with_jobs: CommandLine, tmp_path: Path) -> None:
    audiocli_with_jobs("speak", TEXT, "--background")
    audiocli_with_jobs.gateway.add_default_fault(Status(404), method="GET")

    r = audiocli_with_jobs("jobs", "wait", "aud_01", "-o", tmp_path / "x.mp3")

    assert r.code == 6
    assert "is gone" in r.err and "7 days" in r.err


# --- downloads -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [403, 404, 410])
def test_expired_download_url_error_has_the_retention_time(
    audiocli_with_jobs: CommandLine, status: int, tmp_path: Path
) -> None:
    audiocli_with_jobs.gateway.jobs_api.store.status = status
    audiocli_with_jobs("speak", TEXT, "--background")

    r = audiocli_with_jobs("jobs", "wait", "aud_01", "-o", tmp_path / "x.mp3")

    assert r.code == 6
    assert "expired" in r.err and "7 days" in r.err
    assert "Signature" not in r.err
    assert list(tmp_path.glob("*x*")) == []


def test_download_redirect_is_followed_without_the_key(audiocli_with_jobs: CommandLine, tmp_path: Path) -> None:
    store = audiocli_with_jobs.gateway.jobs_api.store
    audiocli_with_jobs("speak", TEXT, "--background")
    store.redirects = [f"{store.url}/aud_01.out?again=1", "/aud_01.out"]

    r = audiocli_with_jobs("jobs", "wait", "aud_01", "-o", tmp_path / "x.mp3")

    assert r.code == 0, r.err
    assert len(store.requests) == 3
    assert KEY not in json.dumps(store.requests)
    assert (tmp_path / "x.mp3").read_bytes() == expected_audio(TEXT, "mp3")


@pytest.mark.parametrize(
    "location", ["https://127.0.0.1/x", "file:///etc/passwd", "ftp://host/x", "local:voices", "//[::1"]
)
def test_download_redirect_to_another_scheme_is_rejected(
    audiocli_with_jobs: CommandLine, location: str, tmp_path: Path
) -> None:
    audiocli_with_jobs("speak", TEXT, "--background")
    audiocli_with_jobs.gateway.jobs_api.store.redirects = [location]

    r = audiocli_with_jobs("jobs", "wait", "aud_01", "-o", tmp_path / "x.mp3")

    assert r.code == 9, r.err
    assert list(tmp_path.glob("*x*")) == []


def test_download_redirect_loop_ends(audiocli_with_jobs: CommandLine, tmp_path: Path) -> None:
    store = audiocli_with_jobs.gateway.jobs_api.store
    audiocli_with_jobs("speak", TEXT, "--background")
    store.redirects = [f"{store.url}/round"] * 20

    r = audiocli_with_jobs("jobs", "wait", "aud_01", "-o", tmp_path / "x.mp3")

    assert r.code == 9
    assert len(store.requests) == 6


@pytest.mark.parametrize("transform", [
    lambda content: b"", lambda content: content[: len(content) // 2 - 7], lambda content: b"<html>gone</html>",
    lambda content: b'{"error": {"message": "no"}}',
])  # fmt: skip
def test_invalid_audio_of_a_job_leaves_no_output_file(
    audiocli_with_jobs: CommandLine, transform: Any, tmp_path: Path
) -> None:
    audiocli_with_jobs.gateway.jobs_api.store.transform = transform
    audiocli_with_jobs("speak", TEXT, "--background", "-f", "wav")

    r = audiocli_with_jobs("jobs", "wait", "aud_01", "-o", tmp_path / "x.wav")

    assert r.code == 9, r.err
    assert list(tmp_path.glob("*x*")) == []


@pytest.mark.parametrize("content", [b"", b"<html>", b"{}", b'{"error": "no"}', b"\xff\xfe\x00"])
def test_invalid_transcript_of_a_job_leaves_no_output_file(
    audiocli_with_jobs: CommandLine, content: bytes, tmp_path: Path
) -> None:
    audiocli_with_jobs.gateway.jobs_api.store.transform = lambda _: content
    audiocli_with_jobs("transcribe", write_recording(tmp_path), "--background")

    r = audiocli_with_jobs("jobs", "wait", "aud_01", "-o", tmp_path / "x.txt")

    assert r.code == 9, r.err
    assert list(tmp_path.glob("*x*")) == []


@pytest.mark.parametrize("body", [b"", b"[]", b"not json", b'{"status": 5}', b'{"state": "done"}'])
def test_poll_response_without_status_is_invalid(audiocli_with_jobs: CommandLine, body: bytes, tmp_path: Path) -> None:
    audiocli_with_jobs("speak", TEXT, "--background")
    audiocli_with_jobs.gateway.add_default_fault(Garbage(body), method="GET")

    r = audiocli_with_jobs("jobs", "wait", "aud_01", "-o", tmp_path / "x.mp3")

    assert r.code == 9


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True), ("10.1.2.3", True), ("192.168.0.1", True), ("169.254.169.254", True), ("::1", True),
        ("::ffff:10.0.0.1", True), ("fd00::1", True), ("localhost", True), ("printer.local", True), ("nas", True),
        ("100.64.0.1", True), ("0.0.0.0", True), ("8.8.8.8", False), ("bucket.example.com", False),
        ("2606:4700::1111", False),
    ],
)  # fmt: skip
def test_private_addresses_are_detected(host: str, expected: bool) -> None:
    assert is_private(host) is expected


@pytest.mark.parametrize("private_url", ["result", "redirect"])
def test_download_from_a_public_gateway_rejects_private_addresses(
    audiocli_with_jobs: CommandLine, monkeypatch: pytest.MonkeyPatch, private_url: str, tmp_path: Path
) -> None:
    # The host name of the gateway is public. The mock gateway responds to its requests as a proxy.
    audiocli_with_jobs.variables["http_proxy"] = audiocli_with_jobs.gateway.url
    monkeypatch.setenv("http_proxy", audiocli_with_jobs.gateway.url)
    audiocli_with_jobs.variables["THEROUTER_BASE_URL"] = "http://gateway.example/therouter/v1"
    audiocli_with_jobs.gateway.jobs_api.result_kind = {"result": "urls", "redirect": "content"}[private_url]
    assert audiocli_with_jobs("speak", TEXT, "--background").code == 0

    r = audiocli_with_jobs("jobs", "wait", "aud_01", "-o", tmp_path / "x.mp3")

    assert r.code == 9
    assert "private address" in r.err
    assert audiocli_with_jobs.gateway.jobs_api.store.requests == []
    assert list(tmp_path.glob("*x*")) == []


def test_private_address_is_detected_by_host_and_by_connection(audiocli_with_jobs: CommandLine) -> None:
    async def fetch(url: str) -> None:
        client = HttpClient(read_timeout_s=5, variables={}, debug=lambda _: None)
        try:
            async with client.open(HttpRequest("GET", url, public_only=True)):
                raise AssertionError(f"{url} was requested")
        finally:
            await client.close()

    loopback = audiocli_with_jobs.gateway.url
    # The last one looks like a host name, and resolves to 127.0.0.1.
    urls = (loopback, "http://169.254.169.254/latest", "http://localhost:1/", loopback.replace("127.0.0.1", "127.1"))
    assert not is_private("127.1")
    for url in urls:
        with pytest.raises(InvalidResponse, match="private address"):
            asyncio.run(fetch(url))
    assert audiocli_with_jobs.gateway.requests == []


@pytest.mark.parametrize(
    ("url", "location"), [("https://a.example/x", "http://a.example/x"), ("http://a.example/x", "gopher://b")]
)
def test_redirect_url_keeps_its_scheme(url: str, location: str) -> None:
    with pytest.raises(InvalidResponse):
        download.resolve_redirect(url, location)


# --- response parsing ------------------------------------------------------------------------------------------------

ROUTE = Route("therouter", "therouter", "https://api.therouter.ai/v1/", "openai/tts-1", "sk-x")


@pytest.mark.parametrize(
    ("polling_url", "expected_url"),
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
def test_polling_url_of_another_origin_is_ignored(polling_url: str | None, expected_url: str) -> None:
    assert therouter_jobs.build_query("a/b", polling_url, ROUTE).url == expected_url


@pytest.mark.parametrize(
    ("value", "expires_at_s"),
    [
        (1_760_604_800, 1_760_604_800), ("1760604800", 1_760_604_800), (1_760_604_800_000, 1_760_604_800),
        ("2025-10-16T08:53:20Z", 1_760_604_800), ("2025-10-16T10:53:20+02:00", 1_760_604_800),
        ("2025-10-16T08:53:20", 1_760_604_800), ("soon", None), (None, None), (-5, None), ([], None), (1e300, None),
    ],
)  # fmt: skip
def test_timestamps_are_parsed_in_every_form(value: Any, expires_at_s: float | None) -> None:
    state = therouter_jobs.parse_state(json.dumps({"id": "x", "status": "queued", "expires_at": value}).encode())

    assert state is not None
    assert state.expires_at_s == expires_at_s


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["id", "status", "unsigned_urls", "result", "data", "url", "text", "expires_at", "error",
                         "message", "polling_url", "usage", "cost"]), inner, max_size=5),
    max_leaves=12,
))  # fmt: skip
def test_invalid_job_state_does_not_raise(value: Any) -> None:
    state = therouter_jobs.parse_state(json.dumps(value).encode())

    if state is not None:
        request = therouter_jobs.build_query(state.id or "x", state.polling_url, ROUTE)
        assert (request.method, bool(request.url)) == ("GET", True)
