"""Many texts at once: a file for each row, never paid for twice."""

from __future__ import annotations

import csv
import io
import json
import shutil
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from audiocli.mock import CutAfter, RateLimitBurst, Stall, Status, expected_pcm
from tests.conftest import CommandLine, Result
from tests.gateway_contract import read_warnings
from tests.test_documents import list_spoken
from tests.test_long_speech import read_samples
from tests.test_processes import Program
from tests.test_processes import program as program

ROW_COUNT = 500
MODEL = "openai/gpt-4o-mini-tts-2025-12-15"
VOICES = ("alloy", "nova", "onyx")
Row = Mapping[str, Any]

MANY_ROWS: list[Row] = [
    {
        "text": f"Row {number}.",
        "name": f"word-{number}",
        "voice": VOICES[number % 3],
        "instructions": "Be calm." if number % 2 else None,
        "speed": 4 if number % 5 else 2.5,
    }
    for number in range(ROW_COUNT)
]
ROWS: list[Row] = [{"text": f"The row number {number} is here."} for number in range(1, 7)]


def build_jsonl(rows: Sequence[Row]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def build_csv(rows: Sequence[Row]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    return out.getvalue().encode()


BUILDERS = {"jsonl": build_jsonl, "csv": build_csv}


class Batch:
    """A file with rows, and the directory of their outputs."""

    def __init__(self, cli: CommandLine, rows: Sequence[Row] = ROWS, format: str = "jsonl") -> None:
        self._cli = cli
        self.path = cli.directory / f"rows.{format}"
        self.directory = cli.directory / "out"
        self.write(rows)

    def write(self, rows: Sequence[Row]) -> None:
        self.path.write_bytes(BUILDERS[self.path.suffix[1:]](rows))

    @property
    def argv(self) -> tuple[str, ...]:
        return ("speak", "-F", str(self.path), "-O", str(self.directory), "-f", "wav", "-m", MODEL)

    def run(self, *argv: str) -> Result:
        return self._cli(*self.argv, *argv)

    def list_names(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir()) if self.directory.exists() else []


def parse_lines(r: Result) -> tuple[list[Any], Any]:
    """Return the objects of the items, and the summary."""
    *items, last = (json.loads(line) for line in r.text.splitlines())
    return items, last["summary"]


# --- rows -------------------------------------------------------------------------------------------------------------


def test_500_rows_are_paid_for_once(audiocli: CommandLine) -> None:
    batch = Batch(audiocli, MANY_ROWS)

    first = batch.run("-j", "8")
    second = batch.run("--json")
    for row in MANY_ROWS[:50]:
        (batch.directory / f"{row['name']}.wav").unlink()
    third = batch.run("--json")

    assert (first.code, second.code, third.code) == (0, 0, 0), first.err + second.err + third.err
    assert sorted((request.json["input"], request.json["voice"], request.json["speed"]) for request in first.posts) == [
        (row["text"], row["voice"], row["speed"]) for row in sorted(MANY_ROWS, key=lambda row: str(row["text"]))
    ]
    assert Counter(request.json.get("instructions") for request in first.posts) == {"Be calm.": 250, None: 250}
    assert (second.requests, third.requests) == ([], [])
    assert parse_lines(second)[1]["unchanged"] == ROW_COUNT
    items, summary = parse_lines(third)
    assert (summary["spoken"], summary["requests"], summary["cost_usd"]) == (50, 0, 0)
    assert all(item["cached"] for item in items if item["status"] == "spoken")
    assert batch.list_names() == sorted(f"{row['name']}.wav" for row in MANY_ROWS)
    assert read_samples(batch.directory / "word-7.wav") == expected_pcm("Row 7.", speed=4)


def test_table_says_the_same_as_json_lines(audiocli: CommandLine) -> None:
    table, lines = Batch(audiocli, MANY_ROWS[:6], "csv"), Batch(audiocli, MANY_ROWS[:6])

    first, second = table.run("-j", "1"), lines.run("-j", "1")

    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert [request.json["instructions"] for request in first.posts if "instructions" in request.json] == [
        "Be calm."
    ] * 3
    assert (len(first.posts), second.posts) == (6, [])


def test_rows_have_numbered_names_by_default(audiocli: CommandLine) -> None:
    batch = Batch(audiocli, [{"text": "Hello, world!"}, {"text": "第二"}, {"text": "Ok", "name": "last one"}])

    r = batch.run()

    assert r.code == 0, r.err
    assert batch.list_names() == ["0001-hello-world.wav", "0002-第二.wav", "last one.wav"]


def test_lines_are_rows(audiocli: CommandLine) -> None:
    r = audiocli(
        "speak", "--from", "lines", "-O", audiocli.directory / "out", "-j", "1", stdin=b"Eins.\n\nZwei.\r\nDrei."
    )

    assert (r.code, list_spoken(r.posts)) == (0, ["Eins.", "Zwei.", "Drei."]), r.err
    assert sorted(path.name for path in (audiocli.directory / "out").iterdir()) == [
        "0001-eins.mp3",
        "0002-zwei.mp3",
        "0003-drei.mp3",
    ]


def test_names_follow_the_template(audiocli: CommandLine) -> None:
    batch = Batch(audiocli, [{"text": "Hello.", "voice": "nova", "name": "A"}, {"text": "Bye.", "name": "B"}])

    assert batch.run("--name", "{line}_{voice}_{name}-{n:03}").code == 0
    assert batch.list_names() == ["1_nova_A-001.wav", "2__B-002.wav"]


@pytest.mark.parametrize("template", ["{x}", "a/{n}", "{n", "{n:q}", "../{n}", "{n.real}", "{n!r}"])
def test_invalid_template_is_a_usage_error(audiocli: CommandLine, template: str) -> None:
    batch = Batch(audiocli)

    r = batch.run("--name", template)

    assert (r.code, r.posts, batch.list_names()) == (2, [], []), r.err
    assert "--name" in r.err


def test_rows_are_cleaned_and_pronounced(audiocli: CommandLine) -> None:
    audiocli.write_config('[pronunciations]\nSQL = "sequel"\n')
    batch = Batch(audiocli, [{"text": "SQL at https://example.com/a 🎉"}])

    r = batch.run("--clean", "urls,emoji")

    assert (r.code, list_spoken(r.posts)) == (0, ["sequel at link to example.com"]), r.err


def test_long_row_is_split_and_joined(audiocli: CommandLine) -> None:
    batch = Batch(
        audiocli, [{"text": "The sentence is spoken aloud. The other one is spoken too."}, {"text": "Short."}]
    )

    r = batch.run("--max-chars", "40")

    assert (r.code, len(r.posts)) == (0, 3), r.err
    assert batch.run("--max-chars", "40").posts == []


def test_same_text_twice_is_paid_for_once(audiocli: CommandLine) -> None:
    batch = Batch(audiocli, [{"text": "Hello there.", "name": str(number)} for number in range(8)])

    r = batch.run("-j", "8")

    assert (r.code, len(r.posts), len(batch.list_names())) == (0, 1, 8), r.err


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/x", "CON", "x" * 300, "a\x00b\x07", "..", ".hidden", "-rf", "a\u202egpj.exe", "日" * 200, "a. "],
)
def test_hostile_name_stays_in_the_directory(audiocli: CommandLine, name: str) -> None:
    batch = Batch(audiocli, [{"text": "Hello there.", "name": name}])
    before = {path for path in audiocli.directory.rglob("*") if "world" not in path.parts}

    r = batch.run()

    assert r.code == 0, r.err
    (output,) = (
        {path for path in audiocli.directory.rglob("*") if "world" not in path.parts} - before - {batch.directory}
    )
    assert output.parent == batch.directory
    assert output.suffix == ".wav"
    assert output.name.isprintable()
    assert output.name[0] not in ".-"
    assert output.stem.upper() != "CON"
    assert len(output.name.encode()) <= 255
    assert batch.run().requests == []


@pytest.mark.parametrize(
    "names", [("a", "a"), ("Straße", "STRASSE"), ("a/b", "a:b"), ("é", "e\u0301"), ("x" * 300, "x" * 301)]
)
def test_rows_with_one_name_are_a_usage_error(audiocli: CommandLine, names: tuple[str, str]) -> None:
    batch = Batch(audiocli, [{"text": "First.", "name": names[0]}, {"text": "Second.", "name": names[1]}])

    r = batch.run()

    assert (r.code, r.posts, batch.list_names()) == (2, [], []), r.err
    assert "rows 1 and 2" in r.err


# --- bad rows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('{"text": "a"}\n{"text": ', 2),
        ('{"text": "a"}\n\n[1]', 3),
        ('{"text": "a"}\n{"name": "b"}', 2),
        ('{"text": "a"}\n{"text": 5}', 2),
        ('{"text": "a", "speed": 9}', 1),
        ('{"text": "a"}\n{"text": "…"}', 2),
        ('{"text": "a"}\n{"text": "\\ud800"}', 2),
    ],
)
def test_bad_row_is_named(audiocli: CommandLine, content: str, line: int) -> None:
    path = audiocli.directory / "rows.jsonl"
    path.write_text(content)

    r = audiocli("speak", "-F", path, "-O", audiocli.directory / "out")

    assert (r.code, r.posts) == (2, []), r.err
    assert f"line {line}" in r.err


@pytest.mark.parametrize("argv", [(), ("-o", "x.wav")])
def test_rows_need_a_directory(audiocli: CommandLine, argv: tuple[str, ...]) -> None:
    batch = Batch(audiocli)

    r = audiocli("speak", "-F", batch.path, *argv)

    assert (r.code, r.posts) == (2, [])
    assert "-O DIR" in r.err


def test_unknown_voice_of_a_row_is_refused_before_anything_is_sent(audiocli: CommandLine) -> None:
    audiocli("models")
    batch = Batch(audiocli, [{"text": "First."}, {"text": "Second.", "voice": "novaa"}])

    r = batch.run()

    assert (r.code, r.posts, batch.list_names()) == (2, [], []), r.err
    assert "did you mean 'nova'?" in r.err


# --- failures ---------------------------------------------------------------------------------------------------------


def test_failed_row_does_not_stop_the_others(audiocli: CommandLine) -> None:
    batch = Batch(audiocli)
    audiocli.gateway.queue_faults(Status(400))

    failed = batch.run("-j", "1", "--json")
    again = batch.run("-j", "1")

    items, summary = parse_lines(failed)
    assert (failed.code, summary["failed"], summary["spoken"]) == (3, 1, 5)
    assert [item["status"] for item in items] == ["failed", *["spoken"] * 5]
    assert items[0]["error"]["exit"] == 6
    assert (again.code, list_spoken(again.posts)) == (0, [ROWS[0]["text"]]), again.err


def test_fail_fast_stops_at_the_first_failure(audiocli: CommandLine) -> None:
    batch = Batch(audiocli)
    audiocli.gateway.queue_faults(Status(400))

    r = batch.run("-j", "1", "--fail-fast", "--json")

    assert (r.code, len(r.posts), parse_lines(r)[1]["not_begun"]) == (3, 1, 5)


def test_refused_key_stops_the_batch(audiocli: CommandLine) -> None:
    batch = Batch(audiocli)
    audiocli.gateway.add_default_fault(Status(401))

    r = batch.run("-j", "1")

    assert (r.code, len(r.posts)) == (4, 1), r.err


def test_possible_charge_is_not_sent_again_unless_requested(audiocli: CommandLine) -> None:
    batch = Batch(audiocli, ROWS[:2])
    audiocli.gateway.queue_faults(CutAfter(1000))

    first = batch.run("-j", "1")
    second = batch.run("-j", "1")
    third = batch.run("-j", "1", "--retry-failed")

    assert (first.code, len(first.posts)) == (3, 2), first.err
    assert (second.code, second.posts) == (3, []), second.err
    assert (third.code, list_spoken(third.posts)) == (0, [ROWS[0]["text"]]), third.err


def test_rate_limit_is_waited_for(audiocli: CommandLine) -> None:
    batch = Batch(audiocli)
    audiocli.gateway.queue_faults(RateLimitBurst(2, 1))

    r = batch.run()

    assert (r.code, len(batch.list_names())) == (0, 6), r.err


def test_edited_output_is_left_unchanged_unless_forced(audiocli: CommandLine) -> None:
    batch = Batch(audiocli, [{"text": "Hello.", "name": "a"}, {"text": "Bye.", "name": "b"}])
    batch.directory.mkdir()
    (batch.directory / "b.wav").write_bytes(b"mine")

    unforced = batch.run("--json")
    content = (batch.directory / "b.wav").read_bytes()
    forced = batch.run("--force")

    assert (unforced.code, content, list_spoken(unforced.posts)) == (0, b"mine", ["Hello."]), unforced.err
    assert parse_lines(unforced)[1]["edited"] == 1
    assert (forced.code, list_spoken(forced.posts)) == (0, ["Bye."]), forced.err
    assert read_samples(batch.directory / "b.wav") == expected_pcm("Bye.")


def test_changed_settings_write_the_output_again(audiocli: CommandLine) -> None:
    batch = Batch(audiocli, ROWS[:1])
    batch.run()

    r = batch.run("--tempo", "2")

    assert (r.code, r.posts) == (0, []), r.err  # the speech is in the phrase cache
    assert len(read_samples(batch.directory / batch.list_names()[0])) == len(expected_pcm(ROWS[0]["text"])) // 2


# --- money ------------------------------------------------------------------------------------------------------------


def test_spending_limit_holds_exactly(audiocli: CommandLine) -> None:
    audiocli("models")
    batch = Batch(audiocli)
    price_usd = batch.run("-n", "--json").json["price_usd"]
    assert price_usd > 0

    refused = batch.run("--max-cost", f"{price_usd * 0.99:.7f}")
    allowed = batch.run("--max-cost", f"{price_usd * 1.01:.7f}")

    assert (refused.code, refused.posts) == (5, []), refused.err
    assert (allowed.code, len(allowed.posts)) == (0, 6), allowed.err
    # Nothing is left to pay.
    again = batch.run("--max-cost", "0.000001")
    assert (again.code, again.posts) == (0, []), again.err


def test_dry_run_counts_what_is_left(audiocli: CommandLine) -> None:
    audiocli("models")
    batch = Batch(audiocli)
    before = batch.run("-n", "--json").json
    batch.run()
    batch.write([*ROWS, {"text": "Another one."}])

    after = batch.run("-n", "--json").json
    shown = batch.run("-n")

    assert (before["files"], before["to_send"], before["requests"]) == (6, 6, 6)
    assert (after["files"], after["to_send"], after["requests"], after["characters"]) == (7, 1, 1, 12)
    assert after["price_usd"] < before["price_usd"]
    assert "rows        7 (6 up to date)" in shown.text
    assert len(batch.list_names()) == 6


def test_dry_run_does_not_count_cached_rows_as_requests(audiocli: CommandLine) -> None:
    audiocli("models")
    batch = Batch(audiocli)
    batch.run()
    shutil.rmtree(batch.directory)

    plan = batch.run("-n", "--json").json

    assert (plan["to_send"], plan["requests"], plan["price_usd"]) == (0, 0, 0)


# --- output -----------------------------------------------------------------------------------------------------------


def test_json_has_a_line_for_each_row(audiocli: CommandLine) -> None:
    audiocli("models")
    batch = Batch(audiocli, ROWS[:2])

    items, summary = parse_lines(batch.run("-j", "1", "--json"))

    for number, item in enumerate(items, 1):
        output = Path(item["output"])
        assert (item["ok"], item["command"], item["source"], item["status"]) == (
            True,
            "speak",
            f"row {number}",
            "spoken",
        )
        assert (item["bytes"], item["format"], item["requests"]) == (output.stat().st_size, "wav", 1)
        assert item["duration_s"] == pytest.approx(0.06 * len(ROWS[number - 1]["text"]))
        assert item["cost_usd"] > 0
    assert (summary["files"], summary["requests"]) == (2, 2)
    assert summary["cost_usd"] == pytest.approx(sum(item["cost_usd"] for item in items))


def test_warning_about_all_rows_is_printed_once(audiocli: CommandLine) -> None:
    rows = Batch(audiocli, [{"text": f"Row {number}.", "name": str(number)} for number in range(3)])
    argv = ("-j", "1", "-i", "Be calm.", "-m", "hexgrad/kokoro-82m", "-v", "af_heart")

    r = audiocli("speak", "-F", rows.path, "-O", rows.directory, *argv)

    assert r.code == 0, r.err
    assert read_warnings(r) == ["row 1: --instructions has no effect with openrouter:hexgrad/kokoro-82m"]


# --- processes --------------------------------------------------------------------------------------------------------


def wait_for_outputs(batch: Batch, count: int) -> None:
    deadline_s = time.monotonic() + 20
    while len([name for name in batch.list_names() if not name.startswith(".")]) < count:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_ctrl_c_and_resume(program: Program, audiocli: CommandLine) -> None:
    batch = Batch(audiocli, MANY_ROWS[:12])
    audiocli.gateway.latency_s = 0.05
    process = program.start(*batch.argv, "-j", "2")
    wait_for_outputs(batch, 4)

    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)

    assert process.returncode == 130, err
    assert b"of 12 rows are done" in err
    assert b"Traceback" not in err
    audiocli.gateway.latency_s = 0
    done = len(batch.list_names())
    r = batch.run()
    assert (r.code, len(batch.list_names())) == (0, 12), r.err
    assert len(r.posts) <= 12 - done


def test_killed_batch_is_resumed(program: Program, audiocli: CommandLine) -> None:
    batch = Batch(audiocli, MANY_ROWS[:12])
    audiocli.gateway.latency_s = 0.05
    process = program.start(*batch.argv, "-j", "2")
    wait_for_outputs(batch, 4)
    process.kill()
    process.communicate(timeout=20)
    audiocli.gateway.latency_s = 0
    sent = len([request for request in audiocli.gateway.posts if request.complete])

    r = batch.run()

    assert (r.code, batch.list_names()) == (0, sorted(f"{row['name']}.wav" for row in MANY_ROWS[:12])), r.err
    # At most the two requests in flight are sent again.
    assert len(r.posts) + sent <= 12 + 2


def test_two_processes_do_not_pay_for_one_row_twice(program: Program, audiocli: CommandLine) -> None:
    batch = Batch(audiocli, MANY_ROWS[:16])
    audiocli.gateway.latency_s = 0.05
    processes = [program.start(*batch.argv, "-j", "2") for _ in range(2)]

    results = [process.communicate(timeout=60) for process in processes]

    assert [process.returncode for process in processes] == [0, 0], results
    assert Counter(list_spoken(audiocli.gateway.posts)) == {row["text"]: 1 for row in MANY_ROWS[:16]}
    assert batch.list_names() == sorted(f"{row['name']}.wav" for row in MANY_ROWS[:16])


def test_stalled_row_does_not_hold_up_the_others(program: Program, audiocli: CommandLine) -> None:
    batch = Batch(audiocli)
    audiocli.gateway.queue_faults(Stall(None, 30))
    process = program.start(*batch.argv, "-j", "2")

    wait_for_outputs(batch, 5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)

    assert process.returncode == 130
