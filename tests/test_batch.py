"""Test batch transcription of directories through the command line."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiocli.core.batch.output_paths import InputFile, plan_outputs
from audiocli.mock import CutAfter, RateLimitBurst, Status, expected_pcm
from tests.conftest import CommandLine, Result
from tests.pyav_codec import encode

PRICES = '[prices]\n"openrouter:openai/whisper-large-v3" = { per = "minute", usd = 0.006 }\n'


def write_recording(path: Path, text: str | None = None) -> Path:
    """Write a short recording in the format of the extension. Its content is unique for each name or text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    format = path.suffix.removeprefix(".")
    audio = expected_pcm(text or path.name)
    path.write_bytes(encode(audio, format if format in ("mp3", "flac", "ogg", "opus") else "wav"))
    return path


# Requests for a long recording with `--max-chunk 10`.
LONG_CHUNK_COUNT = 4


def write_long_recording(directory: Path) -> Path:
    """Write a recording of some thirty seconds."""
    return write_recording(directory / "long.wav", "This recording has some thirty seconds. " * 12)


def build_transcript(audio: bytes, seconds: float) -> str:
    return f"words {hashlib.sha256(audio).hexdigest()[:12]}."


@pytest.fixture
def directory(audiocli: CommandLine, tmp_path: Path) -> Path:
    """Create four recordings, one of them in a subdirectory, and files that are not recordings."""
    audiocli.gateway.set_transcript(build_transcript)
    directory = tmp_path / "recordings"
    for name in ("a.wav", "b.mp3", "c.flac", "deep/d.ogg"):
        write_recording(directory / name)
    (directory / "notes.txt").write_text("not a recording")
    (directory / ".hidden.mp3").write_bytes(b"")
    (directory / "cover.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    return directory


def parse_json_lines(r: Result) -> list[Any]:
    return [json.loads(line) for line in r.out.splitlines()]


def get_statuses(r: Result) -> dict[str, str]:
    return {Path(line["source"]).name: line["status"] for line in parse_json_lines(r) if "source" in line}


def get_summary(r: Result) -> dict[str, Any]:
    summary: dict[str, Any] = parse_json_lines(r)[-1]["summary"]
    return summary


def list_files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


# --- batch state -----------------------------------------------------------------------------------------------------


def test_transcripts_are_written_next_to_the_recordings(audiocli: CommandLine, directory: Path) -> None:
    r = audiocli("transcribe", directory)

    assert r.code == 0, r.err
    assert {"a.txt", "b.txt", "c.txt"} <= set(list_files(directory)) and "deep/d.txt" not in list_files(directory)
    assert (directory / "a.txt").read_text() == build_transcript((directory / "a.wav").read_bytes(), 0) + "\n"
    assert (len(r.requests), r.out) == (3, b"")
    assert "3 recordings: 3 transcribed" in r.err
    assert "a.wav  a.txt" in r.err


def test_unchanged_recordings_are_not_sent_again(audiocli: CommandLine, directory: Path) -> None:
    audiocli("transcribe", directory, "-R")

    r = audiocli("transcribe", directory, "-R")

    assert (r.code, r.requests, r.ledger) == (0, [], [])
    assert "4 unchanged" in r.err


def test_touched_or_renamed_recordings_are_recognized_by_content(audiocli: CommandLine, directory: Path) -> None:
    audiocli("transcribe", directory)
    os.utime(directory / "a.wav", (1, 1))
    (directory / "b.mp3").rename(directory / "renamed.mp3")

    r = audiocli("transcribe", directory, "--json")

    assert (r.code, r.requests) == (0, [])
    assert get_statuses(r) == {"a.wav": "unchanged", "c.flac": "unchanged", "renamed.mp3": "written"}
    assert (directory / "renamed.txt").read_bytes() == (directory / "b.txt").read_bytes()


def test_changed_recording_is_sent_and_its_output_replaced(audiocli: CommandLine, directory: Path) -> None:
    audiocli("transcribe", directory)
    write_recording(directory / "a.wav", "something else")

    r = audiocli("transcribe", directory, "--json")

    assert (r.code, len(r.requests), get_statuses(r)["a.wav"]) == (0, 1, "transcribed")
    assert (directory / "a.txt").read_text() == build_transcript((directory / "a.wav").read_bytes(), 0) + "\n"


@pytest.mark.parametrize(
    "options", [["-l", "de"], ["-p", "Names"], ["--temperature", "0.3"], ["-m", "openrouter:openai/whisper-1"]]
)
def test_other_settings_or_models_are_sent_once(audiocli: CommandLine, directory: Path, options: list[str]) -> None:
    audiocli("transcribe", directory)

    first, second = audiocli("transcribe", directory, *options), audiocli("transcribe", directory, *options)

    assert (first.code, len(first.requests), second.requests) == (0, 3, [])


def test_paid_result_is_reused_if_its_model_is_one_of_the_models(audiocli: CommandLine, directory: Path) -> None:
    audiocli("transcribe", directory, "-m", "openrouter:openai/whisper-large-v3")

    r = audiocli(
        "transcribe", directory, "-m", "openrouter:openai/whisper-1", "-m", "openrouter:openai/whisper-large-v3"
    )

    assert (r.code, r.requests) == (0, [])


def test_other_formats_and_missing_outputs_send_nothing(audiocli: CommandLine, directory: Path) -> None:
    audiocli("transcribe", directory)
    (directory / "a.txt").unlink()

    r = audiocli("transcribe", directory, "-f", "txt,srt,vtt,json,tsv", "--max-line-width", "20")

    assert (r.code, r.requests) == (0, []), r.err
    assert (directory / "a.txt").is_file()
    assert (directory / "b.srt").read_text().startswith("1\n00:00:00,000 --> ")
    assert json.loads((directory / "c.json").read_text())["model"] == "openai/whisper-large-v3"
    assert "nothing sent" in r.err


def test_other_caption_limits_rewrite_captions_without_sending(audiocli: CommandLine, directory: Path) -> None:
    audiocli("transcribe", directory, "-f", "srt")
    before = (directory / "a.srt").read_text()

    r = audiocli("transcribe", directory, "-f", "srt", "--max-line-width", "8")

    assert (r.code, r.requests) == (0, [])
    assert (directory / "a.srt").read_text() != before


def test_word_timestamps_are_requested_if_they_are_missing(audiocli: CommandLine, directory: Path) -> None:
    audiocli("transcribe", directory)

    words = audiocli("transcribe", directory, "-f", "json", "--timestamps", "word")
    after = audiocli("transcribe", directory, "-f", "srt")

    assert (len(words.requests), after.requests) == (3, [])
    assert json.loads((directory / "a.json").read_text())["timing"] == "word"


def test_timestamps_none_requests_no_timestamps(audiocli: CommandLine, directory: Path) -> None:
    r = audiocli("transcribe", directory, "--timestamps", "none")
    captions = audiocli("transcribe", directory, "-f", "srt")

    assert all("verbose_json" not in json.dumps(request.json) for request in r.requests)
    assert len(captions.requests) == 3


def test_verbose_json_is_cached_once_requested(audiocli: CommandLine, directory: Path) -> None:
    audiocli("transcribe", directory)

    first = audiocli("transcribe", directory, "-f", "verbose_json")
    (directory / "a.verbose.json").unlink()
    second = audiocli("transcribe", directory, "-f", "verbose_json,txt")

    assert (len(first.requests), second.requests) == (3, [])
    assert json.loads((directory / "a.verbose.json").read_text())["text"].startswith("words ")


def test_edited_output_is_replaced_only_with_force(audiocli: CommandLine, directory: Path) -> None:
    audiocli("transcribe", directory)
    (directory / "a.txt").write_text("edited by hand")

    unforced = audiocli("transcribe", directory, "--json")
    text = (directory / "a.txt").read_text()
    forced = audiocli("transcribe", directory, "--force", "--json")

    assert (unforced.code, get_statuses(unforced)["a.wav"], text, unforced.requests) == (
        0,
        "edited",
        "edited by hand",
        [],
    )
    assert (forced.code, get_statuses(forced)["a.wav"], forced.requests) == (0, "written", [])
    assert (directory / "a.txt").read_text().startswith("words ")


def test_output_not_written_by_audiocli_is_left_unchanged_and_not_sent(audiocli: CommandLine, directory: Path) -> None:
    (directory / "a.txt").write_text("not written by audiocli")

    r = audiocli("transcribe", directory, "--json")

    assert (r.code, len(r.requests), get_statuses(r)["a.wav"]) == (3, 2, "edited")
    assert (directory / "a.txt").read_text() == "not written by audiocli"
    assert "edited" in audiocli("transcribe", directory).err


def test_edited_output_is_left_unchanged_if_its_recording_changes(audiocli: CommandLine, directory: Path) -> None:
    audiocli("transcribe", directory)
    (directory / "a.txt").write_text("edited by hand")
    write_recording(directory / "a.wav", "something else")

    r = audiocli("transcribe", directory, "-f", "txt,srt", "--json")

    line = next(line for line in parse_json_lines(r) if line.get("source", "").endswith("a.wav"))
    assert (line["status"], [Path(path).name for path in line["edited"]]) == ("transcribed", ["a.txt"])
    assert (directory / "a.txt").read_text() == "edited by hand" and (directory / "a.srt").is_file()


def test_force_with_no_resume_sends_everything_again(audiocli: CommandLine, directory: Path) -> None:
    audiocli("transcribe", directory)

    assert len(audiocli("transcribe", directory, "--force", "--no-resume").requests) == 3


def test_verify_only_reports_missing_stale_and_edited_outputs(audiocli: CommandLine, directory: Path) -> None:
    before = audiocli("transcribe", directory, "--verify-only")
    audiocli("transcribe", directory)
    up_to_date = audiocli("transcribe", directory, "--verify-only", "--json")
    (directory / "a.txt").unlink()
    write_recording(directory / "b.mp3", "something else")
    (directory / "c.txt").write_text("edited")
    outdated = audiocli("transcribe", directory, "--verify-only")

    assert (before.code, before.requests, before.err.count("missing")) == (3, [], 4)
    assert (up_to_date.code, parse_json_lines(up_to_date)[-1]["summary"]["current"]) == (0, 3)
    assert (outdated.code, outdated.requests) == (3, [])
    assert all(message in outdated.err for message in ("a.txt  missing", "b.txt  stale", "c.txt  edited"))


def test_recordings_with_equal_content_are_sent_once(audiocli: CommandLine, directory: Path) -> None:
    shutil.copy(directory / "a.wav", directory / "a2.wav")
    (directory / "a3.wav").symlink_to(directory / "a.wav")

    r = audiocli("transcribe", directory, "--include", "a*")

    assert (r.code, len(r.requests)) == (0, 1), r.err
    assert (
        (directory / "a2.txt").read_bytes() == (directory / "a3.txt").read_bytes() == (directory / "a.txt").read_bytes()
    )


def test_single_recording_is_written_to_stdout_without_a_manifest(audiocli: CommandLine, directory: Path) -> None:
    r = audiocli("transcribe", directory / "a.wav")

    assert (r.code, r.text.startswith("words "), (directory / "a.txt").exists()) == (0, True, False)
    assert not (Path(audiocli.variables["XDG_DATA_HOME"]) / "audiocli" / "manifest.sqlite3").exists()


def test_existing_file_with_a_name_like_a_glob_is_not_expanded(audiocli: CommandLine, directory: Path) -> None:
    write_recording(directory / "[a]*.wav")

    r = audiocli("transcribe", directory / "[a]*.wav")

    assert (r.code, len(r.requests)) == (0, 1) and r.text.startswith("words ")


# --- selection of recordings -----------------------------------------------------------------------------------------


def get_source_names(r: Result) -> list[str]:
    return sorted(Path(line["source"]).name for line in parse_json_lines(r) if "source" in line)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["a.wav", "b.mp3", "c.flac"]),
        (["-R"], ["a.wav", "b.mp3", "c.flac", "d.ogg"]),
        (["-R", "--include", "*.mp3", "--include", "d*"], ["b.mp3", "d.ogg"]),
        (["-R", "--exclude", "deep"], ["a.wav", "b.mp3", "c.flac"]),
        (["-R", "--exclude", "deep/*", "--exclude", "[ab]*"], ["c.flac"]),
    ],
)
def test_directories_are_searched_with_the_given_filters(
    audiocli: CommandLine, directory: Path, options: list[str], expected: list[str]
) -> None:
    assert get_source_names(audiocli("transcribe", directory, "--json", *options)) == expected


def test_recordings_are_detected_by_content(audiocli: CommandLine, directory: Path) -> None:
    write_recording(directory / "no-extension")
    write_recording(directory / "voice.memo")
    (directory / "program.ts").write_text("export const x = 1;\n")

    source_names = get_source_names(audiocli("transcribe", directory, "--json"))

    assert {"no-extension", "voice.memo"} <= set(source_names) and "program.ts" not in source_names


def test_globs_and_file_lists_select_recordings(audiocli: CommandLine, directory: Path) -> None:
    assert get_source_names(audiocli("transcribe", f"{directory}/[ab].*", "--json")) == ["a.wav", "b.mp3"]
    assert get_source_names(audiocli("transcribe", f"{directory}/**/*.ogg", "--json")) == ["d.ogg"]
    file_list = f"{directory}/a.wav\r\n\n{directory}/deep\n".encode()
    assert get_source_names(audiocli("transcribe", "--files-from", "-", "--json", stdin=file_list)) == [
        "a.wav",
        "d.ogg",
    ]


def test_unusual_file_names_are_supported(audiocli: CommandLine, directory: Path) -> None:
    file_names = [b"-dash.wav", b"new\nline.wav", b"not-\xff-utf8.wav", "Übung – 1.wav".encode(), b"%s {x}.wav"]
    for name in file_names:
        write_recording(directory / "unusual" / os.fsdecode(name))
    file_list = b"\0".join(os.fsencode(directory / "unusual") + b"/" + name for name in file_names)

    r = audiocli("transcribe", "--files-from", "-", "--json", stdin=file_list)
    again = audiocli("transcribe", directory / "unusual")

    assert (r.code, len(r.requests), again.requests) == (0, len(file_names), []), r.err
    assert get_summary(r)["transcribed"] == len(file_names)
    assert {os.fsencode(path.name) for path in (directory / "unusual").glob("*.txt")} == {
        name.replace(b".wav", b".txt") for name in file_names
    }


def test_symlink_loops_are_searched_once(audiocli: CommandLine, directory: Path) -> None:
    (directory / "deep" / "up").symlink_to(directory)
    (directory / "self").symlink_to(directory / "self")
    (directory / "nowhere.mp3").symlink_to(directory / "nothing")

    r = audiocli("transcribe", directory, "-R", "--json")

    assert (r.code, get_source_names(r)) == (0, ["a.wav", "b.mp3", "c.flac", "d.ogg"])


def test_recording_given_twice_is_transcribed_once(audiocli: CommandLine, directory: Path) -> None:
    r = audiocli("transcribe", directory, directory / "a.wav", directory / "deep" / ".." / "b.mp3", "--json")

    assert get_source_names(r) == ["a.wav", "b.mp3", "c.flac"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["{directory}/empty"], "no audio files found"),
        (["{directory}/*.xyz"], "no files match"),
        (["{directory}/a.wav", "{directory}/missing.wav"], "cannot read"),
        (["{directory}/a.wav", "-"], "- cannot be used with other recordings"),
        (["{directory}", "-o", "x.txt"], "-o supports only one recording"),
        (["{directory}", "-O", "{directory}/notes.txt"], "is not a directory"),
        (["--files-from", "{directory}/missing"], "cannot read"),
        (["{directory}", "-j", "0"], "--jobs"),
        (["{directory}", "--max-cost", "-1"], "--max-cost"),
        (["{directory}", "--max-cost", "nan"], "--max-cost"),
    ],
)
def test_invalid_usage_is_rejected_before_sending(
    audiocli: CommandLine, directory: Path, argv: list[str], message: str
) -> None:
    (directory / "empty").mkdir()

    r = audiocli("transcribe", *(argument.format(directory=directory) for argument in argv))

    assert (r.code, r.requests) == (2, [])
    assert message in r.err


# --- output paths ----------------------------------------------------------------------------------------------------


def test_output_directory_mirrors_the_input_tree(audiocli: CommandLine, directory: Path, tmp_path: Path) -> None:
    r = audiocli("transcribe", directory, "-R", "-O", tmp_path / "out", "-f", "txt,srt")

    assert r.code == 0, r.err
    assert list_files(tmp_path / "out") == sorted(
        f"{stem}.{extension}" for stem in ("a", "b", "c", "deep/d") for extension in ("srt", "txt")
    )
    assert "deep/d.txt" not in list_files(directory)


def test_recordings_with_equal_stems_have_outputs_with_their_extensions(audiocli: CommandLine, directory: Path) -> None:
    write_recording(directory / "a.mp3")

    r = audiocli("transcribe", directory)

    assert r.code == 0
    assert {"a.mp3.txt", "a.wav.txt", "b.txt"} <= set(list_files(directory)) and "a.txt" not in list_files(directory)
    assert "would have the same name" in r.err


def test_recordings_with_equal_names_in_two_directories_have_separate_outputs(
    audiocli: CommandLine, directory: Path, tmp_path: Path
) -> None:
    write_recording(tmp_path / "more" / "a.wav", "another")

    r = audiocli("transcribe", directory, tmp_path / "more", "-O", tmp_path / "out")

    assert r.code == 0, r.err
    assert list_files(tmp_path / "out") == ["b.txt", "c.txt", "more/a.wav.txt", "recordings/a.wav.txt"]


INPUT_PATHS = st.lists(
    st.tuples(st.sampled_from(["x", "y", "x/z"]), st.sampled_from(["a", "b", "a.mp3", "a.txt", "a.mp3.txt"]),
              st.sampled_from(["", ".mp3", ".wav", ".txt"])),
    min_size=1, max_size=12, unique=True,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    input_paths=INPUT_PATHS,
    formats=st.sampled_from([("txt",), ("txt", "srt")]),
    has_output_directory=st.booleans(),
    has_shared_root=st.booleans(),
)
def test_output_paths_are_unique_and_never_an_input(
    input_paths: list[tuple[str, str, str]], formats: tuple[str, ...], has_output_directory: bool, has_shared_root: bool
) -> None:
    all_inputs = [
        InputFile(Path("/in") / parent / (stem + extension), Path("/in") if has_shared_root else Path("/in") / parent)
        for parent, stem, extension in input_paths
    ]
    inputs = list({input_file.path: input_file for input_file in all_inputs}.values())
    output_directory = Path("/out") if has_output_directory else None

    tasks, _ = plan_outputs(inputs, formats, output_directory)
    tasks_of_reversed_inputs, _ = plan_outputs(inputs[::-1], formats, output_directory)

    output_paths = [output_path for task in tasks for _, output_path in task.outputs]
    assert len(set(output_paths)) == len(output_paths) == len(inputs) * len(formats)
    assert not {input_file.path for input_file in inputs} & set(output_paths)
    assert {task.source: task.outputs for task in tasks} == {
        task.source: task.outputs for task in tasks_of_reversed_inputs
    }
    assert all(output_path.is_relative_to(output_directory or Path("/in")) for output_path in output_paths)


# --- failures --------------------------------------------------------------------------------------------------------


def test_invalid_recording_does_not_stop_the_batch(audiocli: CommandLine, directory: Path) -> None:
    (directory / "broken.mp3").write_bytes(b"\x00\x01 no audio " * 50)
    (directory / "empty.wav").write_bytes(b"")

    r = audiocli("transcribe", directory)

    assert (r.code, len(r.requests)) == (3, 3)
    assert "empty.wav" in r.err and "is empty" in r.err
    assert "5 recordings: 3 transcribed, 2 failed" in r.err
    assert "retry with" not in r.err, "the files are broken in the next run as well"
    assert not list(directory.glob(".*.part"))


def test_item_with_unknown_outcome_is_sent_again_only_with_retry_failed(audiocli: CommandLine, directory: Path) -> None:
    audiocli.gateway.queue_faults(CutAfter(10))
    first = audiocli("transcribe", directory, "-j", "1", "--json")
    audiocli.gateway.clear_faults()

    second = audiocli("transcribe", directory, "--json")
    third = audiocli("transcribe", directory, "--retry-failed", "--json")
    fourth = audiocli("transcribe", directory, "--json")

    assert (first.code, get_summary(first)["failed"], get_summary(first)["transcribed"]) == (3, 1, 2)
    assert (second.code, second.requests, get_summary(second)["failed"]) == (3, [], 1)
    assert "--retry-failed" in parse_json_lines(second)[-1]["again"]
    assert (third.code, len(third.requests), fourth.code) == (0, 1, 0)


def test_refused_item_is_sent_again_by_the_next_run(audiocli: CommandLine, directory: Path) -> None:
    audiocli.gateway.queue_faults(Status(400))
    first = audiocli("transcribe", directory, "-j", "1")
    second = audiocli("transcribe", directory)

    assert (first.code, second.code, len(second.requests)) == (3, 0, 1)


def test_rate_limits_and_server_errors_are_retried(audiocli: CommandLine, directory: Path) -> None:
    audiocli.gateway.queue_faults(RateLimitBurst(2, retry_after=3), Status(500), Status(502))

    r = audiocli("transcribe", directory, "-R", "-j", "2", "--json")

    assert (r.code, len(r.requests)) == (0, 8), r.err
    assert sorted(entry["outcome"] for entry in r.ledger) == ["failed"] * 2 + ["ok"] * 4 + ["refused"] * 2
    assert all(wait_s <= 8 for wait_s in r.waits_s)
    assert sum(entry["cost_nanousd"] or 0 for entry in r.ledger) == audiocli.gateway.billed_nanousd


def test_spending_limit_stops_the_batch_and_preserves_finished_items(audiocli: CommandLine, directory: Path) -> None:
    audiocli.write_config(PRICES)
    for number in range(6):
        write_recording(directory / f"more{number}.wav")

    r = audiocli("transcribe", directory, "-j", "1", "--max-cost", "0.0001", "--json")
    remainder_run = audiocli("transcribe", directory, "--json")

    transcribed = get_summary(r)["transcribed"]
    # What the limit has refused was not sent, so no permission is needed to send it again.
    assert "--retry-failed" not in parse_json_lines(r)[-1]["again"]
    assert r.code == 5 and 1 <= transcribed < 9
    assert parse_json_lines(r)[-1]["stopped"]["code"] == "cap_reached"
    assert (remainder_run.code, get_summary(remainder_run)["transcribed"], get_summary(remainder_run)["unchanged"]) == (
        0,
        9 - transcribed,
        transcribed,
    )


def test_hint_after_a_spending_limit_says_to_raise_it(audiocli: CommandLine, directory: Path) -> None:
    audiocli.write_config(PRICES)
    for number in range(6):
        write_recording(directory / f"more{number}.wav")

    r = audiocli("transcribe", directory, "-j", "1", "--max-cost", "0.0001")

    assert r.code == 5 and "--retry-failed" not in r.err
    assert "hint: raise the limit, and retry with: audiocli transcribe" in r.err


def test_spending_limit_for_an_unpriced_model_sends_nothing(audiocli: CommandLine, directory: Path) -> None:
    audiocli.gateway.add_default_fault(Status(503), path="/models", method="GET")

    refused = audiocli("transcribe", directory, "--max-cost", "1")
    allowed = audiocli("transcribe", directory, "--max-cost", "1", "--allow-unpriced")

    assert (refused.code, refused.posts) == (5, [])
    assert (allowed.code, len(allowed.requests)) == (0, 3), allowed.err


def test_cost_above_the_confirmation_limit_requires_confirmation(audiocli: CommandLine, directory: Path) -> None:
    audiocli.write_config(PRICES + "[budget]\nconfirm = 0.00005\n")

    unconfirmed = audiocli("transcribe", directory)
    allowed = audiocli("transcribe", directory, "-y")

    assert (unconfirmed.code, unconfirmed.requests) == (5, [])
    assert (allowed.code, len(allowed.requests)) == (0, 3), allowed.err


def test_refused_key_stops_the_batch(audiocli: CommandLine, directory: Path) -> None:
    for number in range(20):
        write_recording(directory / f"more{number}.wav")
    audiocli.variables["OPENROUTER_API_KEY"] = "sk-or-wrong"

    r = audiocli("transcribe", directory, "-j", "2")

    assert r.code == 4 and len(r.requests) <= 4
    assert "not started" in r.err


def test_long_retry_after_stops_the_batch(audiocli: CommandLine, directory: Path) -> None:
    for number in range(20):
        write_recording(directory / f"more{number}.wav")
    audiocli.gateway.add_default_fault(Status(429, headers={"Retry-After": "7200"}))

    r = audiocli("transcribe", directory, "-j", "2")

    assert r.code == 3 and len(r.requests) <= 4
    assert "not started" in r.err


@pytest.mark.parametrize("concurrency", [1, 2])
def test_no_request_is_sent_after_a_refused_key(audiocli: CommandLine, directory: Path, concurrency: int) -> None:
    audiocli.gateway.add_default_fault(Status(401))

    r = audiocli("transcribe", directory, "-j", str(concurrency))

    assert r.code != 0
    assert len(r.requests) <= concurrency


def test_fail_fast_starts_no_further_item(audiocli: CommandLine, directory: Path) -> None:
    (directory / "Abroken.mp3").write_bytes(b"\x00\x01 no audio " * 50)

    r = audiocli("transcribe", directory, "--fail-fast", "-j", "1")

    assert (r.code, r.requests) == (3, [])
    assert "3 not started" in r.err


def test_unwritable_transcript_is_cached_and_written_by_the_next_run(
    audiocli: CommandLine, directory: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def delete_output_directory(audio: bytes, seconds: float) -> str:
        shutil.rmtree(out, ignore_errors=True)
        return build_transcript(audio, seconds)

    audiocli.gateway.set_transcript(delete_output_directory)
    first = audiocli("transcribe", directory / "a.wav", directory / "b.mp3", "-O", out, "-j", "1", "--json")
    second = audiocli("transcribe", directory / "a.wav", directory / "b.mp3", "-O", out, "--json")

    assert (first.code, len(first.requests), get_summary(first)["failed"]) == (3, 2, 2)
    assert (second.code, second.requests, list_files(out)) == (0, [], ["a.txt", "b.txt"])


def test_recording_changed_during_its_request_is_a_failure(audiocli: CommandLine, directory: Path) -> None:
    def append_to_recording(audio: bytes, seconds: float) -> str:
        with (directory / "a.wav").open("ab") as file:
            file.write(bytes(2000))
        return build_transcript(audio, seconds)

    audiocli.gateway.set_transcript(append_to_recording)
    first = audiocli("transcribe", directory, "--include", "a*")
    audiocli.gateway.set_transcript(build_transcript)
    second = audiocli("transcribe", directory, "--include", "a*")

    assert (first.code, len(second.requests), second.code) == (3, 1, 0)
    assert "changed while it was sent" in first.err
    assert (directory / "a.txt").read_text() == build_transcript((directory / "a.wav").read_bytes(), 0) + "\n"


def test_part_files_of_exited_processes_are_removed(audiocli: CommandLine, directory: Path) -> None:
    (directory / ".a.txt.99999999-0123abcd.part").write_text("incomplete")
    (directory / f".b.txt.{os.getpid()}-0123abcd.part").write_text("incomplete")
    (directory / ".other.part").write_text("not written by audiocli")

    r = audiocli("transcribe", directory)

    assert (r.code, [path.name for path in sorted(directory.glob(".*.part"))]) == (
        0,
        [f".b.txt.{os.getpid()}-0123abcd.part", ".other.part"],
    )


# --- manifest --------------------------------------------------------------------------------------------------------


def get_manifest_path(audiocli: CommandLine) -> Path:
    return Path(audiocli.variables["XDG_DATA_HOME"]) / "audiocli" / "manifest.sqlite3"


def test_damaged_manifest_is_rebuilt_without_sending(audiocli: CommandLine, directory: Path) -> None:
    audiocli("transcribe", directory, "-f", "txt,srt,json")
    (directory / "b.txt").write_text("edited")
    for suffix in ("", "-wal", "-shm"):
        path = get_manifest_path(audiocli).with_name(get_manifest_path(audiocli).name + suffix)
        path.unlink(missing_ok=True)
    get_manifest_path(audiocli).write_bytes(b"no database " * 500)

    r = audiocli("transcribe", directory, "-f", "txt,srt,json", "--json", "--debug")
    again = audiocli("transcribe", directory, "-f", "txt,srt,json", "--json")

    assert (r.code, r.requests) == (0, []), r.err
    assert "set aside" in r.err
    assert get_statuses(again) == {"a.wav": "unchanged", "b.mp3": "edited", "c.flac": "unchanged"}


def test_manifest_of_a_newer_version_is_an_error(audiocli: CommandLine, directory: Path) -> None:
    audiocli("transcribe", directory)
    with sqlite3.connect(get_manifest_path(audiocli)) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()

    r = audiocli("transcribe", directory)

    assert (r.code, r.requests) == (2, [])
    assert "newer version of audiocli" in r.err


# --- reports ---------------------------------------------------------------------------------------------------------


def test_json_output_has_a_line_per_recording_and_a_summary(audiocli: CommandLine, directory: Path) -> None:
    (directory / "broken.mp3").write_bytes(b"\x00\x01 no audio " * 50)

    r = audiocli("transcribe", directory, "--json")

    *items, last = parse_json_lines(r)
    assert {line["status"] for line in items} == {"transcribed", "failed"} and len(items) == 4
    transcribed = next(line for line in items if line["source"].endswith("a.wav"))
    assert (
        transcribed["outputs"] == [str(directory / "a.txt")]
        and transcribed["cost_usd"] > 0
        and transcribed["requests"] == 1
    )
    failed = next(line for line in items if not line["ok"])
    assert (failed["error"]["exit"], failed["error"]["code"]) == (8, "recording")
    assert (last["ok"], last["exit"], last["summary"]["files"], last["summary"]["failed"]) == (False, 3, 4, 1)
    assert last["summary"]["cost_usd"] == pytest.approx(audiocli.gateway.billed_nanousd / 1e9)


def test_dry_run_reports_duration_and_price_and_sends_nothing(audiocli: CommandLine, directory: Path) -> None:
    audiocli.write_config(PRICES)
    audiocli("transcribe", directory / "a.wav", directory / "b.mp3", "-f", "txt,srt")

    r = audiocli("transcribe", directory, "-R", "--dry-run", "--json")
    table = audiocli("transcribe", directory, "-R", "-n")

    assert (r.code, r.requests, table.requests) == (0, [], [])
    assert (r.json["files"], r.json["to_send"], r.json["requests"]) == (4, 2, 2)
    assert r.json["price_usd"] == pytest.approx(r.json["audio_s"] / 60 * 0.006, rel=0.01)
    assert "4 recordings: 2 to send" in table.text.replace("recordings  4:", "4 recordings:")


def test_terminal_shows_progress_and_quiet_shows_nothing(audiocli: CommandLine, directory: Path) -> None:
    on_terminal = audiocli("transcribe", directory, terminal="err", variables={"TERM": "xterm"})
    quiet = audiocli("transcribe", directory, "-l", "de", "-q")

    assert "a.wav  a.txt" not in on_terminal.err and "3 transcribed" in on_terminal.err
    assert (quiet.code, quiet.err, quiet.out) == (0, "", b"")


# --- concurrency -----------------------------------------------------------------------------------------------------


def test_peak_concurrency_equals_the_jobs_option(audiocli: CommandLine, directory: Path) -> None:
    for number in range(12):
        write_recording(directory / f"more{number}.wav")
    audiocli.gateway.latency_s = 0.1

    r = audiocli("transcribe", directory, "-j", "5")

    assert (r.code, audiocli.gateway.peak_in_flight) == (0, 5)


def test_chunks_of_long_recordings_share_the_concurrency_limit(audiocli: CommandLine, directory: Path) -> None:
    audio = b"".join(expected_pcm(f"Sentence {number} of many.") + bytes(48_000) for number in range(8))
    for name in ("a.wav", "b.wav"):
        (directory / name).write_bytes(encode(audio if name == "a.wav" else audio[48_000:], "wav"))
    audiocli.gateway.latency_s = 0.1

    r = audiocli("transcribe", directory / "a.wav", directory / "b.wav", "-j", "3", "--max-chunk", "4")
    again = audiocli("transcribe", directory / "a.wav", directory / "b.wav", "-j", "3", "--max-chunk", "4", "-f", "srt")

    assert r.code == 0, r.err
    assert len(r.requests) > 6 and audiocli.gateway.peak_in_flight <= 6
    assert again.requests == []


def test_captions_from_a_model_without_timestamps_are_timed_by_chunk(audiocli: CommandLine, directory: Path) -> None:
    options = ["-m", "openrouter:openai/gpt-4o-transcribe", "-f", "srt"]
    r = audiocli("transcribe", directory, *options)
    strict = audiocli("transcribe", directory, *options, "--strict-timestamps")

    assert r.code == 0, r.err
    assert (directory / "a.srt").read_text().startswith("1\n")
    assert "timed by chunk" in r.err
    assert strict.code == 2
