"""`audiocli cache`: what is stored, what it cost, and what is removed."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from audiocli.core.uploads import UPLOAD_NAME
from audiocli.gateways.local_models import LOCAL_MODELS
from audiocli.mock import NoFault, Status
from audiocli.private_files import build_part_path
from audiocli.storage import inventory
from tests.conftest import CommandLine
from tests.gateway_contract import SPEECH

PRICES_CONFIG = '[prices]\n"openai:tts-1" = { per = "1M characters", usd = 15.0 }\n'


@pytest.fixture
def cli(audiocli: CommandLine) -> CommandLine:
    """A command line that has cached model lists, a transcript and speech of known cost."""
    audiocli.variables["OPENAI_API_KEY"] = "sk-test"
    audiocli.write_config(PRICES_CONFIG)
    (audiocli.directory / "talk.wav").write_bytes(SPEECH)
    assert audiocli("models").code == 0
    assert audiocli("speak", "Ten chars.", "-m", "openai:tts-1", "-o", audiocli.directory / "a.mp3").code == 0
    assert audiocli("transcribe", audiocli.directory / "talk.wav", "-m", "openai:whisper-1").code == 0
    return audiocli


def get_directory(cli: CommandLine, kind: str) -> Path:
    return Path(cli.variables[f"XDG_{kind.upper()}_HOME"]) / "audiocli"


def get_stores(cli: CommandLine, *argv: str) -> dict[str, dict[str, Any]]:
    r = cli("cache", *argv, "--json")
    assert r.code == 0, r.err
    return {store["store"]: store for store in r.json["stores"]}


def list_files(directory: Path) -> set[Path]:
    return {path for path in directory.rglob("*") if path.is_file() and "sqlite3" not in path.name}


def test_show_lists_every_store_with_files_size_and_cost(cli: CommandLine) -> None:
    r = cli("cache", "show")
    stores = get_stores(cli)

    assert (r.code, r.err, r.requests) == (0, "", [])
    assert [line.split()[0] for line in r.text.splitlines()] == [
        *("store", "responses", "scratch", "phrases", "rejected", "verifications", "transcripts"),
        *("unfinished", "rescued"),
    ]
    assert cli("cache").text == r.text
    phrases = stores["phrases"]
    directory = get_directory(cli, "data") / "phrases"
    assert phrases["paths"] == [str(directory)]
    assert phrases["files"] == len(list_files(directory)) == 3
    assert phrases["bytes"] == sum(path.stat().st_size for path in list_files(directory))
    assert (phrases["cost_usd"], phrases["cost_source"]) == (0.00015, "computed")
    assert stores["transcripts"]["files"] == 1
    assert stores["responses"]["files"] > 3
    assert (stores["responses"]["is_paid"], phrases["is_paid"]) == (False, True)
    assert "$0.00015" in next(line for line in r.text.splitlines() if line.startswith("phrases"))


def test_cost_that_was_not_reported_is_unknown(audiocli: CommandLine) -> None:
    assert audiocli("speak", "Hello.", "-o", audiocli.directory / "a.mp3").code == 0

    phrases = get_stores(audiocli)["phrases"]

    assert (phrases["cost_usd"], phrases["cost_source"], phrases["unknown_costs"]) == (None, "unknown", 1)
    assert "unknown for 1" in audiocli("cache").text


def test_clear_removes_only_what_is_free_to_fetch_again(cli: CommandLine) -> None:
    before = list_files(get_directory(cli, "data"))

    r = cli("cache", "clear")

    assert (r.code, r.text) == (0, "")
    assert "removed responses: " in r.err
    assert list_files(get_directory(cli, "cache")) == set()
    assert list_files(get_directory(cli, "data")) == before
    assert cli("speak", "Ten chars.", "-m", "openai:tts-1", "-o", cli.directory / "b.mp3").posts == []
    assert cli("transcribe", cli.directory / "talk.wav", "-m", "openai:whisper-1").posts == []


def test_clear_paid_removes_paid_results_with_the_sum(cli: CommandLine) -> None:
    r = cli("cache", "clear", "--paid", "-y")

    assert r.code == 0
    assert "removed phrases: 3 files" in r.err
    assert "paid $0.00015" in r.err
    assert list_files(get_directory(cli, "data")) == set()
    assert len(cli("speak", "Ten chars.", "-m", "openai:tts-1", "-o", cli.directory / "b.mp3").posts) == 1
    assert len(cli("transcribe", cli.directory / "talk.wav", "-m", "openai:whisper-1").posts) == 1


def test_clear_reports_json(cli: CommandLine) -> None:
    stores = get_stores(cli, "clear", "--paid", "--yes")

    assert set(stores) == {"responses", "scratch", "phrases", "rejected", "verifications", "transcripts", "unfinished"}
    assert stores["phrases"]["cost_usd"] == 0.00015
    r = cli("cache", "clear", "--paid", "--json")
    assert (r.code, r.json["total"]["files"], r.err) == (0, 0, "")


@pytest.mark.parametrize(("answer", "code", "file_count"), [(b"y\n", 0, 0), (b"n\n", 2, 4), (b"\n", 2, 4)])
def test_clear_paid_asks_on_a_terminal(cli: CommandLine, answer: bytes, code: int, file_count: int) -> None:
    r = cli("cache", "clear", "--paid", stdin=answer, terminal="in out err")

    assert r.code == code
    assert "phrases (speech of finished runs)" in r.err
    assert "$0.00015" in r.err
    assert len(list_files(get_directory(cli, "data"))) == file_count


def test_clear_paid_without_a_terminal_needs_yes(cli: CommandLine) -> None:
    before = list_files(get_directory(cli, "data")), list_files(get_directory(cli, "cache"))

    r = cli("cache", "clear", "--paid")

    assert (r.code, r.text) == (2, "")
    assert "--yes" in r.err
    assert (list_files(get_directory(cli, "data")), list_files(get_directory(cli, "cache"))) == before


def test_clear_leaves_files_that_are_not_ours(cli: CommandLine) -> None:
    cache, data = get_directory(cli, "cache"), get_directory(cli, "data")
    outside = cli.directory / "outside"
    outside.mkdir()
    name = "0123456789abcdef0123456789abcdef"
    (outside / f"{name}.json").write_text("mine")
    foreign = [
        *(data / "phrases" / "notes.txt", data / "transcripts" / f"{name}.json.bak", data / "mine.json"),
        *(cache / "models" / "mine.json", cache / "mine.txt", cache / "uploads" / "song.mp3"),
        cache / "kept" / "0123abcd-episode.mp3",
        # Of this process, which is running.
        build_part_path(data / "phrases" / name),
    ]
    for path in foreign:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    (data / "transcripts" / f"{name}.json").symlink_to(outside / f"{name}.json")
    (data / "phrases" / f"{name}.json").mkdir()
    (cache / "texts").rmdir()
    (cache / "texts").symlink_to(outside)

    r = cli("cache", "clear", "--paid", "-y")

    assert r.code == 0, r.err
    assert [path for path in foreign if not path.is_file()] == []
    assert (outside / f"{name}.json").read_text() == "mine"
    assert (data / "transcripts" / f"{name}.json").is_symlink()
    assert (data / "phrases" / f"{name}.json").is_dir()


def test_clear_removes_scratch_that_no_process_uses(cli: CommandLine) -> None:
    cache = get_directory(cli, "cache")
    old, new = cache / "uploads" / "0123abcd-upload.wav", cache / "uploads" / "0123abce-upload.wav"
    joined = cache / "models" / LOCAL_MODELS[0].name / LOCAL_MODELS[0].files[0].name
    abandoned = cache / "speech" / ".x.wav.999999999-0123abcd.part"
    for path in (old, new, joined, abandoned):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1000)
    yesterday_s = time.time() - inventory.MIN_UPLOAD_AGE_S - 60
    os.utime(old, (yesterday_s, yesterday_s))

    stores = get_stores(cli, "clear")

    assert stores["scratch"]["bytes"] == 2000
    assert [path.exists() for path in (old, new, joined, abandoned)] == [False, True, False, True]
    assert cli("cache", "clear", "--paid", "-y").code == 0
    assert not abandoned.exists()


def test_unfinished_chunks_are_removed_with_paid_results_only(cli: CommandLine) -> None:
    text = "The sentence of alpha is spoken aloud. The sentence of bravo is spoken aloud."
    long = ("speak", text, "-m", "openai:tts-1", "--max-chars", "50", "-j", "1", "-o", cli.directory / "long.mp3")
    cli.gateway.queue_faults(NoFault(), Status(400))
    assert cli(*long).code == 6
    unfinished = get_directory(cli, "cache") / "speech"
    assert len(list_files(unfinished)) == 1

    assert cli("cache", "clear").code == 0
    assert len(list_files(unfinished)) == 1
    r = cli("cache", "clear", "--paid", "-y")

    assert "removed unfinished: 1 file" in r.err
    assert list_files(unfinished) == set()
    assert len(cli(*long).posts) == 2


def test_path_prints_both_directories(cli: CommandLine) -> None:
    expected = [str(get_directory(cli, "cache")), str(get_directory(cli, "data"))]

    assert cli("cache", "path").text.splitlines() == expected
    assert cli("cache", "path", "--json").json == {
        "schema": 1,
        "ok": True,
        "command": "cache path",
        "path": expected[0],
        "paid_path": expected[1],
    }


def test_show_creates_nothing(audiocli: CommandLine) -> None:
    assert audiocli("cache").code == 0
    assert audiocli("cache", "clear", "--paid").code == 0
    assert audiocli("cache", "path").code == 0

    assert not Path(audiocli.variables["HOME"]).exists()


def test_upload_names_are_those_of_uploads() -> None:
    names = {part.names.pattern for store in inventory.list_stores(Path("d"), Path("c")) for part in store.parts}

    assert UPLOAD_NAME.pattern in names


def test_damaged_phrase_has_an_unknown_cost(cli: CommandLine) -> None:
    (path,) = (get_directory(cli, "data") / "phrases").glob("*.json")
    path.write_bytes(json.dumps({"cost_nanousd": "a lot"}).encode())

    assert get_stores(cli)["phrases"]["cost_usd"] is None
