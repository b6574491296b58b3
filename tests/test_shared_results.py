"""`--results-url file:///DIR`: transcripts and claims that machines share, and what others may have put there."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audiocli.mock import NoFault, Status
from audiocli.storage.lease_files import LEASE_S, LeaseFiles
from tests.conftest import CommandLine
from tests.gateway_contract import SPEECH
from tests.test_batch import LONG_CHUNK_COUNT, write_long_recording

FORMATS = "txt,srt,json,html,ass,csv,md,lrc,vtt"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def command(audiocli: CommandLine, results: Path, tmp_path: Path) -> list[str]:
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings" / "a.wav").write_bytes(SPEECH)
    output = ["-O", str(tmp_path / "out"), "-f", FORMATS]
    return ["transcribe", str(tmp_path / "recordings"), *output, "--results-url", f"file://{results}"]


def remove_outputs(tmp_path: Path) -> None:
    for path in (tmp_path / "out").iterdir():
        path.unlink()


def test_transcript_of_another_machine_is_used(audiocli: CommandLine, command: list[str], tmp_path: Path) -> None:
    first = audiocli(*command)
    other = [str(tmp_path / "other") if word == str(tmp_path / "out") else word for word in command]

    second = audiocli(*other, variables={"XDG_DATA_HOME": str(tmp_path / "data")})

    assert (first.code, second.code, len(first.posts), second.posts) == (0, 0, 1, [])
    assert {path.name: path.read_bytes() for path in (tmp_path / "other").iterdir() if path.suffix != ".html"} == {
        path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.suffix != ".html"
    }


def use_machine(tmp_path: Path, name: str) -> dict[str, str]:
    """Return the environment of a machine that shares nothing with others."""
    world = tmp_path / name
    directories = {f"XDG_{kind}_HOME": str(world / kind.lower()) for kind in ("DATA", "CACHE", "CONFIG")}
    return directories | {"AUDIOCLI_LEDGER": str(world / "ledger.sqlite3"), "HOME": str(world)}


def test_one_recording_uses_the_transcript_of_another_machine(
    audiocli: CommandLine, command: list[str], results: Path, tmp_path: Path
) -> None:
    single = ("transcribe", tmp_path / "recordings" / "a.wav", "--results-url", f"file://{results}")

    planned = audiocli(*single, "--dry-run", variables=use_machine(tmp_path, "zero"))
    assert (planned.code, results.exists()) == (0, False)
    first = audiocli(*single, variables=use_machine(tmp_path, "one"))
    second = audiocli(*single, variables=use_machine(tmp_path, "two"))
    batch = audiocli(*command, variables=use_machine(tmp_path, "three"))

    assert [r.code for r in (first, second, batch)] == [0, 0, 0], batch.err
    assert [len(r.posts) for r in (first, second, batch)] == [1, 0, 1]  # captions need times
    assert first.out == second.out


@pytest.mark.parametrize("is_batch", [False, True])
def test_finished_chunks_of_another_machine_are_used(
    audiocli: CommandLine, results: Path, tmp_path: Path, is_batch: bool
) -> None:
    write_long_recording(tmp_path / "recordings")
    source = tmp_path / "recordings" / ("" if is_batch else "long.wav")
    command = ("transcribe", source, "--max-chunk", "10", "-j", "1", "--results-url", f"file://{results}")
    audiocli.gateway.queue_faults(NoFault(), NoFault(), Status(400))

    failed = audiocli(*command, variables=use_machine(tmp_path, "one"))
    second = audiocli(*command, variables=use_machine(tmp_path, "two"))

    assert (failed.code, len(failed.posts)) == (3 if is_batch else 6, 3), failed.err
    assert (second.code, len(second.posts)) == (0, LONG_CHUNK_COUNT - 2), second.err
    assert list((results / "chunks").iterdir()) == []


# --- directories that cannot be used ---------------------------------------------------------------------------------


def make_file(results: Path) -> None:
    results.write_text("x")


def make_fifo(results: Path) -> None:
    os.mkfifo(results)


def link_to_device(results: Path) -> None:
    results.symlink_to("/dev/null")


def replace_claims_by_file(results: Path) -> None:
    results.mkdir()
    (results / "claims").write_text("x")


def replace_claims_by_loop(results: Path) -> None:
    results.mkdir()
    (results / "claims").symlink_to(results / "claims")


def replace_transcripts_by_file(results: Path) -> None:
    results.mkdir()
    (results / "transcripts").write_text("x")


def replace_transcripts_by_dangling_link(results: Path) -> None:
    results.mkdir()
    (results / "transcripts").symlink_to(results / "nowhere")


UNUSABLE = [make_file, make_fifo, link_to_device, replace_claims_by_file, replace_claims_by_loop]
UNUSABLE += [replace_transcripts_by_file, replace_transcripts_by_dangling_link]


@pytest.mark.parametrize("damage", UNUSABLE)
def test_directory_that_cannot_be_used_ends_the_command_before_anything_is_sent(
    audiocli: CommandLine, command: list[str], results: Path, damage: Callable[[Path], None]
) -> None:
    damage(results)

    r = audiocli(*command)

    assert (r.code, r.posts, r.ledger) == (10, [], []), r.err
    assert str(results) in r.err


def test_check_writes_nothing(audiocli: CommandLine, command: list[str], results: Path) -> None:
    r = audiocli(*command, "--dry-run")

    assert (r.code, results.exists()) == (0, False), r.err


# --- transcripts -----------------------------------------------------------------------------------------------------

ODD_VALUES: list[object] = [None, True, -1, 0, 1.5, 1e308, -1e308, 10**400, "NaN", "\x1b[31m\x00", "\ud800"]
ODD_VALUES += [[], {}, [[]], [None], {"a": {}}]


def replace_values(document: Any, random_numbers: random.Random) -> None:
    """Replace some values anywhere in a document by odd ones."""
    for _ in range(random_numbers.choice([1, 1, 2, 4])):
        parents: list[tuple[Any, Any]] = []
        pending = [document]
        while pending:
            parent = pending.pop()
            keys = list(parent) if isinstance(parent, dict) else range(len(parent))
            parents += [(parent, key) for key in keys]
            pending += [parent[key] for key in keys if isinstance(parent[key], dict | list)]
        parent, key = random_numbers.choice(parents)
        parent[key] = random_numbers.choice(ODD_VALUES)


@pytest.mark.parametrize("seed", range(6))
def test_odd_values_in_a_transcript_are_never_a_bug(
    audiocli: CommandLine, command: list[str], results: Path, tmp_path: Path, seed: int
) -> None:
    random_numbers = random.Random(seed)
    audiocli(*command)
    [path] = (results / "transcripts").iterdir()
    original = path.read_text()
    for number in range(4):
        document = json.loads(original)
        replace_values(document, random_numbers)
        path.write_text(json.dumps(document))
        remove_outputs(tmp_path)

        machine = use_machine(tmp_path, f"machine-{number}")
        r = audiocli(*command, variables=machine)

        assert r.code in (0, 3), r.err
        assert "\x1b[31m" not in r.text + r.err
        checked = audiocli(*command, "--verify-only", variables=machine)
        assert checked.code in (0, 3), checked.err


def link_to_endless_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_huge(path: Path) -> None:
    os.truncate(path, 8 << 30)  # without blocks on the disk


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def nest(path: Path) -> None:
    path.write_text('{"version": 1, "transcript": ' + "[" * 100_000)


@pytest.mark.parametrize("seed", range(4))
def test_odd_values_in_a_chunk_are_never_a_bug(audiocli: CommandLine, results: Path, tmp_path: Path, seed: int) -> None:
    random_numbers = random.Random(seed)
    path = write_long_recording(tmp_path / "recordings")
    command = ("transcribe", path, "--max-chunk", "10", "-j", "1", "-f", "json", "--results-url", f"file://{results}")
    audiocli.gateway.queue_faults(NoFault(), NoFault(), Status(400))
    audiocli(*command, variables=use_machine(tmp_path, "one"))
    chunks = {chunk: chunk.read_text() for chunk in (results / "chunks").iterdir()}
    for number in range(4):
        for chunk, content in chunks.items():
            document = json.loads(content)
            replace_values(document, random_numbers)
            chunk.write_text(json.dumps(document))
        for transcript in (results / "transcripts").iterdir():
            transcript.unlink()

        r = audiocli(*command, variables=use_machine(tmp_path, f"machine-{number}"))

        assert r.code in (0, 3), r.err


def damage_shared_transcript(
    audiocli: CommandLine, command: list[str], results: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> Path:
    """Let one machine share a transcript, damage it, and return its path."""
    audiocli(*command)
    [path] = (results / "transcripts").iterdir()
    damage(path)
    remove_outputs(tmp_path)
    return path


@pytest.mark.parametrize("damage", [make_huge, cut, nest])
def test_damaged_transcript_is_sent_again(
    audiocli: CommandLine, command: list[str], results: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damage_shared_transcript(audiocli, command, results, tmp_path, damage)

    r = audiocli(*command, variables=use_machine(tmp_path, "two"))
    third = audiocli(*command, "--no-resume", "--force", variables=use_machine(tmp_path, "three"))
    remove_outputs(tmp_path)
    fourth = audiocli(*command, variables=use_machine(tmp_path, "four"))

    assert (r.code, len(r.posts), third.code, len(third.posts)) == (0, 1, 0, 1), r.err
    assert (fourth.code, fourth.posts) == (0, []), fourth.err
    assert len(list((tmp_path / "out").iterdir())) == len(FORMATS.split(","))


@pytest.mark.parametrize("damage", [link_to_endless_device, replace_by_fifo, replace_by_directory])
def test_transcript_that_cannot_be_shared_is_stored_on_this_machine(
    audiocli: CommandLine, command: list[str], results: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = damage_shared_transcript(audiocli, command, results, tmp_path, damage)
    machine = use_machine(tmp_path, "two")

    failed = audiocli(*command, variables=machine)
    path.rename(tmp_path / "set aside")
    again = audiocli(*command, variables=machine)

    assert (failed.code, len(failed.posts), "cannot share the transcript" in failed.err) == (3, 1, True), failed.err
    assert (again.code, again.posts, path.is_file()) == (0, [], True), again.err


@pytest.mark.parametrize("single", [False, True])
def test_result_of_a_machine_without_disk_space_is_shared(
    audiocli: CommandLine, command: list[str], tmp_path: Path, single: bool
) -> None:
    if single:
        command[1:-2] = [str(tmp_path / "recordings" / "a.wav")]
    machine = use_machine(tmp_path, "one")
    transcripts = Path(machine["XDG_DATA_HOME"]) / "audiocli" / "transcripts"
    transcripts.parent.mkdir(parents=True)
    transcripts.write_text("not a directory")

    first = audiocli(*command, variables=machine)
    second = audiocli(*command, variables=use_machine(tmp_path, "two"))

    assert (first.code, len(first.posts)) == (0, 1), first.err
    assert (second.code, second.posts) == (0, []), second.err


def test_result_of_before_is_shared(audiocli: CommandLine, command: list[str], results: Path, tmp_path: Path) -> None:
    """Without `--results-url`, a transcript was stored on this machine only."""
    first = audiocli(*command[: command.index("--results-url")])
    remove_outputs(tmp_path)
    second = audiocli(*command)

    assert (first.code, second.code, len(first.posts), second.posts) == (0, 0, 1, []), second.err
    assert len(list((results / "transcripts").iterdir())) == 1


@pytest.mark.parametrize("is_batch", [False, True])
def test_finished_parts_of_another_machine_are_used(
    audiocli: CommandLine, results: Path, tmp_path: Path, is_batch: bool
) -> None:
    write_long_recording(tmp_path / "recordings")
    source = tmp_path / "recordings" / ("" if is_batch else "long.wav")
    ranges = ("--range", "0-5", "--range", "10-15", "--range", "20-25")
    command = ("transcribe", source, *ranges, "--results-url", f"file://{results}")
    audiocli.gateway.queue_faults(NoFault(), NoFault(), Status(400))

    failed = audiocli(*command, variables=use_machine(tmp_path, "one"))
    second = audiocli(*command, variables=use_machine(tmp_path, "two"))

    assert (failed.code, len(failed.posts)) == (3 if is_batch else 6, 3), failed.err
    assert (second.code, len(second.posts)) == (0, 1), second.err


def test_chunks_of_another_machine_count_for_limits_and_plans(
    audiocli: CommandLine, results: Path, tmp_path: Path
) -> None:
    path = write_long_recording(tmp_path / "recordings")
    url = f"file://{results}"
    command = ("transcribe", path.parent, "--max-chunk", "10", "-j", "1", "--results-url", url)
    audiocli.gateway.queue_faults(*[NoFault()] * (LONG_CHUNK_COUNT - 1), Status(400))
    audiocli(*command, variables=use_machine(tmp_path, "one"))

    limited = audiocli(*command, "--max-cost", "0.0005", variables=use_machine(tmp_path, "two"))
    planned = audiocli(*command, "--dry-run", "--json", variables=use_machine(tmp_path, "three"))

    assert (limited.code, len(limited.posts)) == (0, 1), limited.err
    assert json.loads(planned.out.splitlines()[-1])["to_send"] == 0, planned.out


@pytest.mark.parametrize("url", ["file://host/x", "file:relative", "file://localhost"])
def test_url_of_a_directory_is_checked(audiocli: CommandLine, command: list[str], url: str) -> None:
    command[-1] = url

    r = audiocli(*command)

    assert (r.code, r.posts) == (2, []) and "use file:///DIR" in r.err


# --- claims ----------------------------------------------------------------------------------------------------------


def test_claim_with_a_time_in_the_future_expires(tmp_path: Path) -> None:
    """The clock of the server was set back, and the owner is dead."""
    dead = LeaseFiles(tmp_path)
    dead.claim("a")
    future_s = (tmp_path / "a.claim").stat().st_mtime + LEASE_S + 3600
    os.utime(tmp_path / "a.claim", (future_s, future_s))

    other = LeaseFiles(tmp_path)

    assert other.claim("a")
    other.close()
    dead.close()


def test_claim_never_writes_through_a_link(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("text")
    (tmp_path / "claims").mkdir()
    link = tmp_path / "claims" / "a.claim"
    link.symlink_to(target)
    owner = LeaseFiles(tmp_path / "claims")

    taken = owner.claim("a")
    os.utime(target, (1, 1))
    claimed = owner.claim("a")
    owner.close()

    assert (taken, claimed, target.read_text()) == (False, True, "text")
    assert not link.is_symlink()
