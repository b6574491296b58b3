"""Folders, through the front door: what is done is known, what fails stays small, and nothing is paid for twice."""

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

from audiocli.core.batch.output_paths import Found, tasks
from tests.conftest import CommandLine, Result
from tests.gateway import CutAfter, RateStorm, Status, encode, expected_pcm

PRICES = '[prices]\n"openrouter:openai/whisper-large-v3" = { per = "minute", usd = 0.006 }\n'


def record(path: Path, text: str | None = None) -> Path:
    """Make a short recording, its own for each name or text, in the format of its ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    format = path.suffix.removeprefix(".")
    sound = expected_pcm(text or path.name)
    path.write_bytes(encode(sound, format if format in ("mp3", "flac", "ogg", "opus") else "wav"))
    return path


def heard(audio: bytes, seconds: float) -> str:
    return f"words {hashlib.sha256(audio).hexdigest()[:12]}."


@pytest.fixture
def folder(audiocli: CommandLine, tmp_path: Path) -> Path:
    """Four recordings, one of them in a folder of its own, and what else lies about."""
    audiocli.gateway.says(heard)
    folder = tmp_path / "talks"
    for name in ("a.wav", "b.mp3", "c.flac", "deep/d.ogg"):
        record(folder / name)
    (folder / "notes.txt").write_text("not a recording")
    (folder / ".hidden.mp3").write_bytes(b"")
    (folder / "cover.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    return folder


def lines(r: Result) -> list[Any]:
    return [json.loads(line) for line in r.out.splitlines()]


def statuses(r: Result) -> dict[str, str]:
    return {Path(line["source"]).name: line["status"] for line in lines(r) if "source" in line}


def summary(r: Result) -> dict[str, Any]:
    found: dict[str, Any] = lines(r)[-1]["summary"]
    return found


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# --- what is done ----------------------------------------------------------------------------------------------------


def test_every_recording_of_a_folder_gets_its_transcript_beside_it(audiocli: CommandLine, folder: Path) -> None:
    r = audiocli("transcribe", folder)

    assert r.code == 0, r.err
    assert {"a.txt", "b.txt", "c.txt"} <= set(names(folder)) and "deep/d.txt" not in names(folder)
    assert (folder / "a.txt").read_text() == heard((folder / "a.wav").read_bytes(), 0) + "\n"
    assert (len(r.requests), r.out) == (3, b"")
    assert "3 recordings: 3 transcribed" in r.err
    assert "a.wav: a.txt" in r.err


def test_what_is_unchanged_is_not_sent_again(audiocli: CommandLine, folder: Path) -> None:
    audiocli("transcribe", folder, "-R")

    r = audiocli("transcribe", folder, "-R")

    assert (r.code, r.requests, r.ledger) == (0, [], [])
    assert "4 unchanged" in r.err


def test_what_was_touched_or_renamed_is_recognised_by_its_content(audiocli: CommandLine, folder: Path) -> None:
    audiocli("transcribe", folder)
    os.utime(folder / "a.wav", (1, 1))
    (folder / "b.mp3").rename(folder / "renamed.mp3")

    r = audiocli("transcribe", folder, "--json")

    assert (r.code, r.requests) == (0, [])
    assert statuses(r) == {"a.wav": "unchanged", "c.flac": "unchanged", "renamed.mp3": "written"}
    assert (folder / "renamed.txt").read_bytes() == (folder / "b.txt").read_bytes()


def test_a_recording_that_changed_is_sent_and_its_output_replaced(audiocli: CommandLine, folder: Path) -> None:
    audiocli("transcribe", folder)
    record(folder / "a.wav", "something else")

    r = audiocli("transcribe", folder, "--json")

    assert (r.code, len(r.requests), statuses(r)["a.wav"]) == (0, 1, "transcribed")
    assert (folder / "a.txt").read_text() == heard((folder / "a.wav").read_bytes(), 0) + "\n"


@pytest.mark.parametrize(
    "flags", [["-l", "de"], ["-p", "Names"], ["--temperature", "0.3"], ["-m", "openrouter:openai/whisper-1"]]
)
def test_other_settings_and_other_models_are_other_work(audiocli: CommandLine, folder: Path, flags: list[str]) -> None:
    audiocli("transcribe", folder)

    first, second = audiocli("transcribe", folder, *flags), audiocli("transcribe", folder, *flags)

    assert (first.code, len(first.requests), second.requests) == (0, 3, [])


def test_the_model_that_served_counts_when_others_are_listed_with_it(audiocli: CommandLine, folder: Path) -> None:
    audiocli("transcribe", folder, "-m", "openrouter:openai/whisper-large-v3")

    r = audiocli("transcribe", folder, "-m", "openrouter:openai/whisper-1", "-m", "openrouter:openai/whisper-large-v3")

    assert (r.code, r.requests) == (0, [])


def test_another_format_and_a_lost_output_cost_nothing(audiocli: CommandLine, folder: Path) -> None:
    audiocli("transcribe", folder)
    (folder / "a.txt").unlink()

    r = audiocli("transcribe", folder, "-f", "txt,srt,vtt,json,tsv", "--max-line-width", "20")

    assert (r.code, r.requests) == (0, []), r.err
    assert (folder / "a.txt").is_file()
    assert (folder / "b.srt").read_text().startswith("1\n00:00:00,000 --> ")
    assert json.loads((folder / "c.json").read_text())["model"] == "openai/whisper-large-v3"
    assert "nothing sent" in r.err


def test_another_shape_of_captions_is_written_anew_without_sending(audiocli: CommandLine, folder: Path) -> None:
    audiocli("transcribe", folder, "-f", "srt")
    before = (folder / "a.srt").read_text()

    r = audiocli("transcribe", folder, "-f", "srt", "--max-line-width", "8")

    assert (r.code, r.requests) == (0, [])
    assert (folder / "a.srt").read_text() != before


def test_times_of_words_are_asked_for_when_they_are_not_there(audiocli: CommandLine, folder: Path) -> None:
    audiocli("transcribe", folder)

    words = audiocli("transcribe", folder, "-f", "json", "--timestamps", "word")
    after = audiocli("transcribe", folder, "-f", "srt")

    assert (len(words.requests), after.requests) == (3, [])
    assert json.loads((folder / "a.json").read_text())["timing"] == "word"


def test_times_are_not_asked_for_when_the_user_said_so(audiocli: CommandLine, folder: Path) -> None:
    r = audiocli("transcribe", folder, "--timestamps", "none")
    later = audiocli("transcribe", folder, "-f", "srt")

    assert all("verbose_json" not in json.dumps(seen.json) for seen in r.requests)
    assert len(later.requests) == 3


def test_the_untouched_reply_is_kept_where_it_was_asked_for(audiocli: CommandLine, folder: Path) -> None:
    audiocli("transcribe", folder)

    first = audiocli("transcribe", folder, "-f", "verbose_json")
    (folder / "a.verbose.json").unlink()
    second = audiocli("transcribe", folder, "-f", "verbose_json,txt")

    assert (len(first.requests), second.requests) == (3, [])
    assert json.loads((folder / "a.verbose.json").read_text())["text"].startswith("words ")


def test_what_a_person_edited_is_kept_until_force(audiocli: CommandLine, folder: Path) -> None:
    audiocli("transcribe", folder)
    (folder / "a.txt").write_text("edited by hand")

    kept = audiocli("transcribe", folder, "--json")
    text = (folder / "a.txt").read_text()
    forced = audiocli("transcribe", folder, "--force", "--json")

    assert (kept.code, statuses(kept)["a.wav"], text, kept.requests) == (0, "edited", "edited by hand", [])
    assert (forced.code, statuses(forced)["a.wav"], forced.requests) == (0, "written", [])
    assert (folder / "a.txt").read_text().startswith("words ")


def test_what_is_not_ours_is_kept_and_not_even_sent_for(audiocli: CommandLine, folder: Path) -> None:
    (folder / "a.txt").write_text("somebody's")

    r = audiocli("transcribe", folder, "--json")

    assert (r.code, len(r.requests), statuses(r)["a.wav"]) == (0, 2, "edited")
    assert (folder / "a.txt").read_text() == "somebody's"
    assert "edited" in audiocli("transcribe", folder).err


def test_an_edited_output_stays_when_its_recording_changes(audiocli: CommandLine, folder: Path) -> None:
    audiocli("transcribe", folder)
    (folder / "a.txt").write_text("edited by hand")
    record(folder / "a.wav", "something else")

    r = audiocli("transcribe", folder, "-f", "txt,srt", "--json")

    line = next(line for line in lines(r) if line.get("source", "").endswith("a.wav"))
    assert (line["status"], [Path(path).name for path in line["edited"]]) == ("transcribed", ["a.txt"])
    assert (folder / "a.txt").read_text() == "edited by hand" and (folder / "a.srt").is_file()


def test_force_and_no_resume_together_send_everything_anew(audiocli: CommandLine, folder: Path) -> None:
    audiocli("transcribe", folder)

    assert len(audiocli("transcribe", folder, "--force", "--no-resume").requests) == 3


def test_verify_only_tells_what_is_missing_or_stale(audiocli: CommandLine, folder: Path) -> None:
    before = audiocli("transcribe", folder, "--verify-only")
    audiocli("transcribe", folder)
    good = audiocli("transcribe", folder, "--verify-only", "--json")
    (folder / "a.txt").unlink()
    record(folder / "b.mp3", "something else")
    (folder / "c.txt").write_text("edited")
    bad = audiocli("transcribe", folder, "--verify-only")

    assert (before.code, before.requests, before.err.count("missing")) == (3, [], 4)
    assert (good.code, lines(good)[-1]["summary"]["current"]) == (0, 3)
    assert (bad.code, bad.requests) == (3, [])
    assert all(words in bad.err for words in ("a.txt: missing", "b.txt: stale", "c.txt: edited"))


def test_the_same_content_under_two_names_is_sent_once(audiocli: CommandLine, folder: Path) -> None:
    shutil.copy(folder / "a.wav", folder / "a2.wav")
    (folder / "a3.wav").symlink_to(folder / "a.wav")

    r = audiocli("transcribe", folder, "--include", "a*")

    assert (r.code, len(r.requests)) == (0, 1), r.err
    assert (folder / "a2.txt").read_bytes() == (folder / "a3.txt").read_bytes() == (folder / "a.txt").read_bytes()


def test_one_recording_stays_what_it_was(audiocli: CommandLine, folder: Path) -> None:
    r = audiocli("transcribe", folder / "a.wav")

    assert (r.code, r.text.startswith("words "), (folder / "a.txt").exists()) == (0, True, False)
    assert not (Path(audiocli.variables["XDG_DATA_HOME"]) / "audiocli").exists()


def test_a_recording_whose_name_looks_like_a_pattern_is_that_recording(audiocli: CommandLine, folder: Path) -> None:
    record(folder / "[a]*.wav")

    r = audiocli("transcribe", folder / "[a]*.wav")

    assert (r.code, len(r.requests)) == (0, 1) and r.text.startswith("words ")


# --- which recordings ------------------------------------------------------------------------------------------------


def sources(r: Result) -> list[str]:
    return sorted(Path(line["source"]).name for line in lines(r) if "source" in line)


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ([], ["a.wav", "b.mp3", "c.flac"]),
        (["-R"], ["a.wav", "b.mp3", "c.flac", "d.ogg"]),
        (["-R", "--include", "*.mp3", "--include", "d*"], ["b.mp3", "d.ogg"]),
        (["-R", "--exclude", "deep"], ["a.wav", "b.mp3", "c.flac"]),
        (["-R", "--exclude", "deep/*", "--exclude", "[ab]*"], ["c.flac"]),
    ],
)
def test_folders_are_looked_through_as_asked(
    audiocli: CommandLine, folder: Path, flags: list[str], found: list[str]
) -> None:
    assert sources(audiocli("transcribe", folder, "--json", *flags)) == found


def test_recordings_are_found_by_their_content_too(audiocli: CommandLine, folder: Path) -> None:
    record(folder / "no-ending")
    record(folder / "voice.memo")
    (folder / "program.ts").write_text("export const x = 1;\n")

    found = sources(audiocli("transcribe", folder, "--json"))

    assert {"no-ending", "voice.memo"} <= set(found) and "program.ts" not in found


def test_patterns_and_lists_name_recordings(audiocli: CommandLine, folder: Path) -> None:
    assert sources(audiocli("transcribe", f"{folder}/[ab].*", "--json")) == ["a.wav", "b.mp3"]
    assert sources(audiocli("transcribe", f"{folder}/**/*.ogg", "--json")) == ["d.ogg"]
    listed = f"{folder}/a.wav\r\n\n{folder}/deep\n".encode()
    assert sources(audiocli("transcribe", "--files-from", "-", "--json", stdin=listed)) == ["a.wav", "d.ogg"]


def test_any_name_is_a_name(audiocli: CommandLine, folder: Path) -> None:
    odd = [b"-dash.wav", b"new\nline.wav", b"not-\xff-utf8.wav", "Übung – 1.wav".encode(), b"%s {x}.wav"]
    for name in odd:
        record(folder / "odd" / os.fsdecode(name))
    listed = b"\0".join(os.fsencode(folder / "odd") + b"/" + name for name in odd)

    r = audiocli("transcribe", "--files-from", "-", "--json", stdin=listed)
    again = audiocli("transcribe", folder / "odd")

    assert (r.code, len(r.requests), again.requests) == (0, len(odd), []), r.err
    assert summary(r)["transcribed"] == len(odd)
    assert {os.fsencode(path.name) for path in (folder / "odd").glob("*.txt")} == {
        name.replace(b".wav", b".txt") for name in odd
    }


def test_links_in_a_circle_are_walked_once(audiocli: CommandLine, folder: Path) -> None:
    (folder / "deep" / "up").symlink_to(folder)
    (folder / "self").symlink_to(folder / "self")
    (folder / "nowhere.mp3").symlink_to(folder / "nothing")

    r = audiocli("transcribe", folder, "-R", "--json")

    assert (r.code, sources(r)) == (0, ["a.wav", "b.mp3", "c.flac", "d.ogg"])


def test_a_recording_that_is_named_twice_is_done_once(audiocli: CommandLine, folder: Path) -> None:
    r = audiocli("transcribe", folder, folder / "a.wav", folder / "deep" / ".." / "b.mp3", "--json")

    assert sources(r) == ["a.wav", "b.mp3", "c.flac"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["{folder}/empty"], "no recordings there"),
        (["{folder}/*.xyz"], "nothing fits"),
        (["{folder}/a.wav", "{folder}/missing.wav"], "cannot read"),
        (["{folder}/a.wav", "-"], "stdin goes alone"),
        (["{folder}", "-o", "x.txt"], "-o is for one recording"),
        (["{folder}", "-O", "{folder}/notes.txt"], "is no folder"),
        (["--files-from", "{folder}/missing"], "cannot read"),
        (["{folder}", "-j", "0"], "--jobs"),
        (["{folder}", "--max-cost", "-1"], "--max-cost"),
        (["{folder}", "--max-cost", "nan"], "--max-cost"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_sent(
    audiocli: CommandLine, folder: Path, argv: list[str], words: str
) -> None:
    (folder / "empty").mkdir()

    r = audiocli("transcribe", *(word.format(folder=folder) for word in argv))

    assert (r.code, r.requests) == (2, [])
    assert words in r.err


# --- where outputs go ------------------------------------------------------------------------------------------------


def test_outputs_go_into_a_tree_of_their_own(audiocli: CommandLine, folder: Path, tmp_path: Path) -> None:
    r = audiocli("transcribe", folder, "-R", "-O", tmp_path / "out", "-f", "txt,srt")

    assert r.code == 0, r.err
    assert names(tmp_path / "out") == sorted(
        f"{stem}.{end}" for stem in ("a", "b", "c", "deep/d") for end in ("srt", "txt")
    )
    assert "deep/d.txt" not in names(folder)


def test_recordings_of_one_name_keep_their_endings(audiocli: CommandLine, folder: Path) -> None:
    record(folder / "a.mp3")

    r = audiocli("transcribe", folder)

    assert r.code == 0
    assert {"a.mp3.txt", "a.wav.txt", "b.txt"} <= set(names(folder)) and "a.txt" not in names(folder)
    assert "would have the same name" in r.err


def test_recordings_of_one_name_in_two_folders_are_kept_apart(
    audiocli: CommandLine, folder: Path, tmp_path: Path
) -> None:
    record(tmp_path / "more" / "a.wav", "another")

    r = audiocli("transcribe", folder, tmp_path / "more", "-O", tmp_path / "out")

    assert r.code == 0, r.err
    assert names(tmp_path / "out") == ["b.txt", "c.txt", "more/a.wav.txt", "talks/a.wav.txt"]


NAMES = st.lists(
    st.tuples(st.sampled_from(["x", "y", "x/z"]), st.sampled_from(["a", "b", "a.mp3", "a.txt", "a.mp3.txt"]),
              st.sampled_from(["", ".mp3", ".wav", ".txt"])),
    min_size=1, max_size=12, unique=True,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(parts=NAMES, formats=st.sampled_from([("txt",), ("txt", "srt")]), has_folder=st.booleans(), deep=st.booleans())
def test_no_two_outputs_have_one_name_and_none_is_a_recording(
    parts: list[tuple[str, str, str]], formats: tuple[str, ...], has_folder: bool, deep: bool
) -> None:
    every = [
        Found(Path("/in") / place / (stem + end), Path("/in") if deep else Path("/in") / place)
        for place, stem, end in parts
    ]
    found = list({one.path: one for one in every}.values())
    folder = Path("/out") if has_folder else None

    made, _ = tasks(found, formats, folder)
    backwards, _ = tasks(found[::-1], formats, folder)

    targets = [target for task in made for _, target in task.targets]
    assert len(set(targets)) == len(targets) == len(found) * len(formats)
    assert not {one.path for one in found} & set(targets)
    assert {task.source: task.targets for task in made} == {task.source: task.targets for task in backwards}
    assert all(target.is_relative_to(folder or Path("/in")) for target in targets)


# --- what fails ------------------------------------------------------------------------------------------------------


def test_one_bad_recording_stops_nobody(audiocli: CommandLine, folder: Path) -> None:
    (folder / "broken.mp3").write_bytes(b"\x00\x01 no sound " * 50)
    (folder / "empty.wav").write_bytes(b"")

    r = audiocli("transcribe", folder)

    assert (r.code, len(r.requests)) == (3, 3)
    assert "empty.wav" in r.err and "is empty" in r.err
    assert "5 recordings: 3 transcribed, 2 failed" in r.err
    assert r.err.rstrip().splitlines()[-1] == f"audiocli: to try again: audiocli transcribe --retry-failed {folder}"
    assert not list(folder.glob(".*.part"))


def test_what_was_lost_is_sent_again_only_when_the_user_says_so(audiocli: CommandLine, folder: Path) -> None:
    audiocli.gateway.script(CutAfter(10))
    first = audiocli("transcribe", folder, "-j", "1", "--json")
    audiocli.gateway.behave()

    second = audiocli("transcribe", folder, "--json")
    third = audiocli("transcribe", folder, "--retry-failed", "--json")
    fourth = audiocli("transcribe", folder, "--json")

    assert (first.code, summary(first)["failed"], summary(first)["transcribed"]) == (3, 1, 2)
    assert (second.code, second.requests, summary(second)["failed"]) == (3, [], 1)
    assert "--retry-failed" in lines(second)[-1]["again"]
    assert (third.code, len(third.requests), fourth.code) == (0, 1, 0)


def test_what_was_refused_is_tried_again_by_the_next_run(audiocli: CommandLine, folder: Path) -> None:
    audiocli.gateway.script(Status(400))
    first = audiocli("transcribe", folder, "-j", "1")
    second = audiocli("transcribe", folder)

    assert (first.code, second.code, len(second.requests)) == (3, 0, 1)


def test_busy_gateways_and_broken_ones_are_asked_as_the_table_says(audiocli: CommandLine, folder: Path) -> None:
    audiocli.gateway.script(RateStorm(2, retry_after=3), Status(500), Status(502))

    r = audiocli("transcribe", folder, "-R", "-j", "2", "--json")

    assert (r.code, len(r.requests)) == (0, 8), r.err
    assert sorted(entry["outcome"] for entry in r.ledger) == ["failed"] * 2 + ["ok"] * 4 + ["refused"] * 2
    assert all(wait_s <= 8 for wait_s in r.waits_s)
    assert sum(entry["cost_nanousd"] or 0 for entry in r.ledger) == audiocli.gateway.bill_nanousd


def test_a_cap_stops_everything_and_what_is_finished_stays(audiocli: CommandLine, folder: Path) -> None:
    audiocli.config(PRICES)
    for number in range(6):
        record(folder / f"more{number}.wav")

    r = audiocli("transcribe", folder, "-j", "1", "--max-cost", "0.0001", "--json")
    rest = audiocli("transcribe", folder, "--json")

    done = summary(r)["transcribed"]
    assert r.code == 5 and 1 <= done < 9
    assert lines(r)[-1]["stopped"]["code"] == "cap_reached"
    assert (rest.code, summary(rest)["transcribed"], summary(rest)["unchanged"]) == (0, 9 - done, done)


def test_a_cap_over_what_has_no_price_sends_nothing(audiocli: CommandLine, folder: Path) -> None:
    refused = audiocli("transcribe", folder, "--max-cost", "1")
    allowed = audiocli("transcribe", folder, "--max-cost", "1", "--allow-unpriced")

    assert (refused.code, refused.requests) == (5, [])
    assert (allowed.code, len(allowed.requests)) == (0, 3), allowed.err


def test_what_may_be_dear_is_asked_about_first(audiocli: CommandLine, folder: Path) -> None:
    audiocli.config(PRICES + "[budget]\nconfirm = 0.00005\n")

    unasked = audiocli("transcribe", folder)
    allowed = audiocli("transcribe", folder, "-y")

    assert (unasked.code, unasked.requests) == (5, [])
    assert (allowed.code, len(allowed.requests)) == (0, 3), allowed.err


def test_a_refused_key_is_not_tried_with_every_file(audiocli: CommandLine, folder: Path) -> None:
    for number in range(20):
        record(folder / f"more{number}.wav")
    audiocli.variables["OPENROUTER_API_KEY"] = "sk-or-wrong"

    r = audiocli("transcribe", folder, "-j", "2")

    assert r.code == 4 and len(r.requests) <= 4
    assert "not begun" in r.err


def test_a_gateway_that_is_closed_for_hours_is_not_asked_with_every_file(audiocli: CommandLine, folder: Path) -> None:
    for number in range(20):
        record(folder / f"more{number}.wav")
    audiocli.gateway.always(Status(429, headers={"Retry-After": "7200"}))

    r = audiocli("transcribe", folder, "-j", "2")

    assert r.code == 3 and len(r.requests) <= 4
    assert "not begun" in r.err


@pytest.mark.parametrize("jobs", [1, 2])
def test_nothing_is_sent_after_a_key_was_refused(audiocli: CommandLine, folder: Path, jobs: int) -> None:
    audiocli.gateway.always(Status(401))

    r = audiocli("transcribe", folder, "-j", str(jobs))

    assert r.code != 0
    assert len(r.requests) <= jobs


def test_fail_fast_begins_nothing_more(audiocli: CommandLine, folder: Path) -> None:
    (folder / "Abroken.mp3").write_bytes(b"\x00\x01 no sound " * 50)

    r = audiocli("transcribe", folder, "--fail-fast", "-j", "1")

    assert (r.code, r.requests) == (3, [])
    assert "3 not begun" in r.err


def test_a_transcript_that_cannot_be_written_is_kept_and_written_by_the_next_run(
    audiocli: CommandLine, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def lose_the_folder(audio: bytes, seconds: float) -> str:
        shutil.rmtree(out, ignore_errors=True)
        return heard(audio, seconds)

    audiocli.gateway.says(lose_the_folder)
    first = audiocli("transcribe", folder / "a.wav", folder / "b.mp3", "-O", out, "-j", "1", "--json")
    second = audiocli("transcribe", folder / "a.wav", folder / "b.mp3", "-O", out, "--json")

    assert (first.code, len(first.requests), summary(first)["failed"]) == (3, 2, 2)
    assert (second.code, second.requests, names(out)) == (0, [], ["a.txt", "b.txt"])


def test_a_recording_that_changes_while_it_is_sent_is_not_taken_for_what_it_was(
    audiocli: CommandLine, folder: Path
) -> None:
    def grow(audio: bytes, seconds: float) -> str:
        with (folder / "a.wav").open("ab") as file:
            file.write(bytes(2000))
        return heard(audio, seconds)

    audiocli.gateway.says(grow)
    first = audiocli("transcribe", folder, "--include", "a*")
    audiocli.gateway.says(heard)
    second = audiocli("transcribe", folder, "--include", "a*")

    assert (first.code, len(second.requests), second.code) == (3, 1, 0)
    assert "changed while it was sent" in first.err
    assert (folder / "a.txt").read_text() == heard((folder / "a.wav").read_bytes(), 0) + "\n"


def test_the_unfinished_files_of_the_dead_are_removed_and_of_the_living_not(
    audiocli: CommandLine, folder: Path
) -> None:
    (folder / ".a.txt.99999999-0123abcd.part").write_text("half")
    (folder / f".b.txt.{os.getpid()}-0123abcd.part").write_text("half")
    (folder / ".mine.part").write_text("mine")

    r = audiocli("transcribe", folder)

    assert (r.code, [path.name for path in sorted(folder.glob(".*.part"))]) == (
        0,
        [f".b.txt.{os.getpid()}-0123abcd.part", ".mine.part"],
    )


# --- the manifest ----------------------------------------------------------------------------------------------------


def manifest_of(audiocli: CommandLine) -> Path:
    return Path(audiocli.variables["XDG_DATA_HOME"]) / "audiocli" / "manifest.sqlite3"


def test_a_damaged_manifest_costs_nothing(audiocli: CommandLine, folder: Path) -> None:
    audiocli("transcribe", folder, "-f", "txt,srt,json")
    (folder / "b.txt").write_text("edited")
    for ending in ("", "-wal", "-shm"):
        path = manifest_of(audiocli).with_name(manifest_of(audiocli).name + ending)
        path.unlink(missing_ok=True)
    manifest_of(audiocli).write_bytes(b"no database " * 500)

    r = audiocli("transcribe", folder, "-f", "txt,srt,json", "--json", "--debug")
    again = audiocli("transcribe", folder, "-f", "txt,srt,json", "--json")

    assert (r.code, r.requests) == (0, []), r.err
    assert "set aside" in r.err
    assert statuses(again) == {"a.wav": "unchanged", "b.mp3": "edited", "c.flac": "unchanged"}


def test_the_manifest_of_a_newer_audiocli_ends_everything(audiocli: CommandLine, folder: Path) -> None:
    audiocli("transcribe", folder)
    with sqlite3.connect(manifest_of(audiocli)) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()

    r = audiocli("transcribe", folder)

    assert (r.code, r.requests) == (2, [])
    assert "newer audiocli" in r.err


# --- what is told ----------------------------------------------------------------------------------------------------


def test_json_is_a_line_for_each_recording_and_one_for_all(audiocli: CommandLine, folder: Path) -> None:
    (folder / "broken.mp3").write_bytes(b"\x00\x01 no sound " * 50)

    r = audiocli("transcribe", folder, "--json")

    *each, last = lines(r)
    assert {line["status"] for line in each} == {"transcribed", "failed"} and len(each) == 4
    good = next(line for line in each if line["source"].endswith("a.wav"))
    assert good["outputs"] == [str(folder / "a.txt")] and good["cost_usd"] > 0 and good["requests"] == 1
    bad = next(line for line in each if not line["ok"])
    assert (bad["error"]["exit"], bad["error"]["code"]) == (8, "recording")
    assert (last["ok"], last["exit"], last["summary"]["files"], last["summary"]["failed"]) == (False, 3, 4, 1)
    assert last["summary"]["cost_usd"] == pytest.approx(audiocli.gateway.bill_nanousd / 1e9)


def test_dry_run_tells_minutes_and_price_and_sends_nothing(audiocli: CommandLine, folder: Path) -> None:
    audiocli.config(PRICES)
    audiocli("transcribe", folder / "a.wav", folder / "b.mp3", "-f", "txt,srt")

    r = audiocli("transcribe", folder, "-R", "--dry-run", "--json")
    table = audiocli("transcribe", folder, "-R", "-n")

    assert (r.code, r.requests, table.requests) == (0, [], [])
    assert (r.json["files"], r.json["to_send"], r.json["requests"]) == (4, 2, 2)
    assert r.json["price_usd"] == pytest.approx(r.json["audio_s"] / 60 * 0.006, rel=0.01)
    assert "4 recordings: 2 to send" in table.text.replace("recordings  4:", "4 recordings:")


def test_a_terminal_sees_how_far_it_has_come_and_a_pipe_sees_lines(audiocli: CommandLine, folder: Path) -> None:
    watched = audiocli("transcribe", folder, terminal="err", variables={"TERM": "xterm"})
    quiet = audiocli("transcribe", folder, "-l", "de", "-q")

    assert "a.wav: a.txt" not in watched.err and "3 transcribed" in watched.err
    assert (quiet.code, quiet.err, quiet.out) == (0, "", b"")


# --- at once ---------------------------------------------------------------------------------------------------------


def test_no_more_are_under_way_than_asked_for_and_not_fewer(audiocli: CommandLine, folder: Path) -> None:
    for number in range(12):
        record(folder / f"more{number}.wav")
    audiocli.gateway.latency_s = 0.1

    r = audiocli("transcribe", folder, "-j", "5")

    assert (r.code, audiocli.gateway.peak_in_flight) == (0, 5)


def test_pieces_of_long_recordings_share_the_limit(audiocli: CommandLine, folder: Path) -> None:
    sound = b"".join(expected_pcm(f"Sentence {number} of many.") + bytes(48_000) for number in range(8))
    for name in ("a.wav", "b.wav"):
        (folder / name).write_bytes(encode(sound if name == "a.wav" else sound[48_000:], "wav"))
    audiocli.gateway.latency_s = 0.1

    r = audiocli("transcribe", folder / "a.wav", folder / "b.wav", "-j", "3", "--max-piece", "4")
    again = audiocli("transcribe", folder / "a.wav", folder / "b.wav", "-j", "3", "--max-piece", "4", "-f", "srt")

    assert r.code == 0, r.err
    assert len(r.requests) > 6 and audiocli.gateway.peak_in_flight <= 6
    assert again.requests == []


def test_captions_from_a_model_without_times_are_timed_by_pieces(audiocli: CommandLine, folder: Path) -> None:
    flags = ["-m", "openrouter:openai/gpt-4o-transcribe", "-f", "srt"]
    r = audiocli("transcribe", folder, *flags)
    strict = audiocli("transcribe", folder, *flags, "--strict-timestamps")

    assert r.code == 0, r.err
    assert (folder / "a.srt").read_text().startswith("1\n")
    assert "timed by the pieces" in r.err
    assert strict.code == 2
