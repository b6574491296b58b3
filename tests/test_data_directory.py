"""A data directory that version 0.1 wrote: later versions lose nothing of it and send nothing again.

`data/make_0_1.py` made the archive with the code of 0.1 and says what is in it. Every number below was checked against
0.1 as well. The tests use the command line alone, so that renames in the code do not affect them.
"""

from __future__ import annotations

import json
import os
import sqlite3
import tarfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from audiocli.mock import DEFAULT_TRANSCRIPT
from tests.conftest import CommandLine
from tests.pyav_codec import expected_audio

ARCHIVE = Path(__file__).parent / "data" / "data_directory_0_1.tar.xz"
GATEWAYS = ("openrouter", "openai", "therouter", "arouter", "groq")
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
BATCH = ("-R", "-f", "txt,srt,json")
SENTENCES = [f"The sentence of {name} is spoken." for name in ("alpha", "bravo", "delta", "echo", "golf", "hotel")]
EDITED = "Corrected by hand.\n"
RECORDINGS = 50
TRANSCRIBED_BY_0_1 = "This is recording"


class World(NamedTuple):
    """An unpacked archive, the command line in it, and what 0.1 reported of it."""

    root: Path
    run: CommandLine
    expected: dict[str, Any]

    @property
    def talks(self) -> Path:
        return self.root / "recordings" / "talks"

    @property
    def manifest(self) -> Path:
        return self.root / "data" / "audiocli" / "manifest.sqlite3"

    def outputs(self) -> dict[Path, tuple[bytes, int]]:
        """Read every output of the batch, and when it was written."""
        return {
            path: (path.read_bytes(), path.stat().st_mtime_ns)
            for path in self.talks.rglob("*.*")
            if path.suffix in (".txt", ".srt", ".json")
        }


@pytest.fixture
def world(audiocli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Unpack a data directory of its own for each test, with every base URL behind the proxy.

    The base URLs are part of the keys of caches, so they are those of `make_0_1.py`, which explains them.
    """
    root = tmp_path / "unpacked"
    unpack(root)
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    proxy = {"HTTP_PROXY": audiocli.gateway.url, "NO_PROXY": "127.0.0.1"}
    for name, value in proxy.items():
        monkeypatch.setenv(name, value)
    audiocli.variables.clear()
    audiocli.variables |= {
        "PATH": str(root / "bin"),
        "HOME": str(root),
        "XDG_CONFIG_HOME": str(root / "config"),
        "XDG_DATA_HOME": str(root / "data"),
        "XDG_CACHE_HOME": str(root / "cache"),
        # The default path. The fixture reads the ledger there.
        "AUDIOCLI_LEDGER": str(root / "data" / "audiocli" / "ledger.sqlite3"),
        "HOME_KEY": "open-sesame-4711",
        **proxy,
    }
    for name in GATEWAYS:
        path = audiocli.gateway.base_url(name).removeprefix(audiocli.gateway.url)
        audiocli.variables[f"{name.upper()}_BASE_URL"] = f"http://gateway.localhost{path}"
    return World(root, audiocli, json.loads((root / "expected.json").read_text("utf-8")))


def unpack(root: Path) -> None:
    """Unpack the archive as if it had been made here and now: other paths, and nothing has expired since."""
    with tarfile.open(ARCHIVE) as tar:
        tar.extractall(root, filter="data")
    made = json.loads((root / "made.json").read_bytes())
    old, new, since_s = os.fsencode(made["root"]), os.fsencode(root), time.time() - made["at_s"]
    data, cache = root / "data" / "audiocli", root / "cache" / "audiocli"
    for path in cache.rglob("*"):
        os.utime(path)
    for path in (cache / "lessons").iterdir():
        refused = json.loads(path.read_bytes())
        path.write_text(json.dumps({feature: at_s + since_s for feature, at_s in refused.items()}))
    manifest = sqlite3.connect(data / "manifest.sqlite3")
    for table in ("sources", "outputs"):
        for (path,) in manifest.execute(f"SELECT path FROM {table}").fetchall():
            if path.startswith(old + b"/"):  # 0.1 stores the path of a recording as it was typed
                manifest.execute(f"UPDATE {table} SET path = ? WHERE path = ?", (new + path.removeprefix(old), path))
    manifest.commit()
    manifest.close()
    ledger = sqlite3.connect(data / "ledger.sqlite3")
    for id_, text in ledger.execute("SELECT id, details FROM jobs").fetchall():
        details = json.loads(text.replace(made["root"], str(root)))
        details |= {name: details[name] + since_s for name in ("at_s", "expires_s")}
        values = int(details["at_s"] * 1000), json.dumps(details), id_
        ledger.execute("UPDATE jobs SET at_ms = ?, details = ? WHERE id = ?", values)
    ledger.commit()
    ledger.close()


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# --- the ledger ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("report", "options"),
    [
        ("day", ["--by", "day", "--utc"]),
        ("outcome", ["--by", "outcome"]),
        ("gateway", ["--by", "gateway"]),
        ("tag", ["--by", "tag"]),
        ("model and command", ["--by", "model", "--by", "command"]),
    ],
)
def test_usage_sums_are_those_of_0_1(world: World, report: str, options: list[str]) -> None:
    # An empty variable counts as not set, so this is the ledger at the default path.
    r = world.run("usage", "--since", "all", *options, "--json", variables={"AUDIOCLI_LEDGER": ""})

    assert r.code == 0, r.err
    assert r.json == {"schema": 1, **world.expected["usage"][report]}
    assert r.json["total"]["requests"] == 82
    assert r.json["total"]["cost_usd"] == 0.003951084


def test_usage_list_has_every_entry(world: World) -> None:
    entries = lines(world.run("usage", "list", "--since", "all", "--json").text)

    assert [[one["id"], one["outcome"], one["cost_usd"], one["tag"]] for one in entries] == world.expected["entries"]
    assert {one["outcome"] for one in entries} == {
        *("ok", "refused", "failed", "unknown", "unsent", "cancelled", "reserved")
    }


def test_ledger_verifies(world: World) -> None:
    r = world.run("usage", "verify", "--json")

    assert (r.code, r.requests) == (0, []), r.text
    assert {name: r.json[name] for name in ("ok", "entries", "cost_usd")} == world.expected["verify"]
    assert r.json["entries"] == 85


def test_new_requests_are_added_to_the_ledger(world: World) -> None:
    r = world.run("speak", "Hi.", "-o", world.root / "hi.mp3", "--tag", "alpha")

    assert (r.code, len(r.posts), len(r.ledger)) == (0, 1, 1), r.err
    tags = {
        row["tag"]: row["requests"]
        for row in world.run("usage", "--since", "all", "--by", "tag", "--json").json["rows"]
    }
    before = {row["tag"]: row["requests"] for row in world.expected["usage"]["tag"]["rows"]}
    assert tags == {**before, "alpha": before["alpha"] + 1}
    assert world.run("usage", "verify").code == 0


# --- transcripts that were paid for ----------------------------------------------------------------------------------


def test_finished_batch_sends_nothing_and_changes_nothing(world: World) -> None:
    before = world.outputs()

    r = world.run("transcribe", world.talks, *BATCH)

    assert (r.code, r.requests, r.ledger) == (0, [], []), r.err
    assert len(before) == 3 * RECORDINGS
    assert world.outputs() == before
    assert [content for content, _ in before.values()].count(EDITED.encode()) == 1


def test_finished_batch_is_up_to_date(world: World) -> None:
    r = world.run("transcribe", world.talks, *BATCH, "--verify-only")

    assert (r.code, r.requests) == (0, []), r.text + r.err


def test_lost_manifest_is_rebuilt_without_sending_or_writing(world: World) -> None:
    before = world.outputs()
    world.manifest.unlink()

    r = world.run("transcribe", world.talks, *BATCH)

    assert (r.code, r.requests, r.ledger) == (0, [], []), r.err
    assert world.outputs() == before
    assert world.manifest.is_file()


@pytest.mark.parametrize("has_manifest", [True, False])
def test_deleted_outputs_are_written_again_without_sending(world: World, has_manifest: bool) -> None:
    before = world.outputs()
    for path in before:
        path.unlink()
    if not has_manifest:
        world.manifest.unlink()

    r = world.run("transcribe", world.talks, *BATCH)

    assert (r.code, r.requests, r.ledger) == (0, [], []), r.err
    after = world.outputs()
    assert after.keys() == before.keys()
    changed = {path for path in before if after[path][0] != before[path][0]}
    assert [before[path][0].decode() for path in changed] == [EDITED]


def test_other_formats_are_written_without_sending(world: World) -> None:
    r = world.run("transcribe", world.talks, "-R", "-f", "vtt")

    assert (r.code, r.requests, r.ledger) == (0, [], []), r.err
    assert len(list(world.talks.rglob("*.vtt"))) == RECORDINGS


def test_failed_recording_is_sent_again_only_on_request(world: World) -> None:
    folder = world.root / "recordings" / "failed"

    first = world.run("transcribe", folder, "-f", "txt,srt")
    second = world.run("transcribe", folder, "-f", "txt,srt", "--retry-failed")
    third = world.run("transcribe", folder, "-f", "txt,srt")

    assert (first.code, first.requests) == (3, []), first.err
    assert (second.code, len(second.posts)) == (0, 1), second.err
    assert (third.code, third.requests) == (0, []), third.err
    assert (folder / "good.txt").read_text("utf-8").startswith(TRANSCRIBED_BY_0_1)
    assert (folder / "lost.txt").read_text("utf-8") == f"{DEFAULT_TRANSCRIPT}\n"


# --- unfinished work -------------------------------------------------------------------------------------------------


def test_unfinished_long_text_sends_only_the_missing_chunks(world: World) -> None:
    book = world.root / "recordings" / "book"

    r = world.run(
        *("speak", "-F", book.with_suffix(".txt"), "--max-chars", "50", "-o", book.with_suffix(".wav")),
        *("-j", "1", "--json"),
    )

    assert r.code == 0, r.err
    assert [seen.json["input"] for seen in r.posts] == SENTENCES[3:]
    assert [entry["outcome"] for entry in r.ledger] == ["ok"] * 3
    assert r.json["duration_s"] == pytest.approx(sum(map(len, SENTENCES)) * 0.06)
    assert book.with_suffix(".wav").is_file()


def test_unfinished_long_recording_sends_only_the_missing_chunks(world: World) -> None:
    long = world.root / "recordings" / "long"

    r = world.run(
        *("transcribe", long.with_suffix(".wav"), "-m", "openai:whisper-1", "--max-chunk", "10", "-f", "srt"),
        *("-o", long.with_suffix(".srt"), "-j", "1", "--allow-unpriced", "-y"),
    )

    assert r.code == 0, r.err
    assert [round(seen.audio_s or 0) for seen in r.posts] == [10, 10]
    assert [entry["outcome"] for entry in r.ledger] == ["ok"] * 2
    # Cues may break a sentence anywhere.
    captions = " ".join(long.with_suffix(".srt").read_text("utf-8").split())
    assert captions.count(TRANSCRIBED_BY_0_1) == 2
    assert captions.count("quick brown fox") == 2


def test_open_jobs_are_fetched_without_submitting_again(world: World) -> None:
    listed = lines(world.run("jobs", "--json").text)
    assert [(job["id"], job["gateway"], job["status"]) for job in listed] == [
        ("aud_01", "therouter", "queued"),
        ("aud_02", "therouter", "queued"),
    ]
    # The gateway of this test has to know the jobs: submit them there in the same order, with another ledger.
    elsewhere = {"AUDIOCLI_LEDGER": str(world.root / "elsewhere.sqlite3")}
    later = ("-g", "therouter", "--background", "--allow-unpriced", "-y")
    recordings = world.root / "recordings"
    for command in (
        ("speak", "A chapter that is spoken later.", "-f", "mp3"),
        ("transcribe", recordings / "talk.wav", "-f", "srt"),
    ):
        assert world.run(*command, *later, variables=elsewhere).code == 0

    r = world.run("jobs", "wait", "aud_01", "aud_02", "--json")
    again = world.run("jobs", "fetch", "aud_02", "-o", recordings / "again.srt")

    assert (r.code, r.posts, r.ledger) == (0, [], []), r.text + r.err
    assert (again.code, again.posts) == (0, []), again.err
    assert (recordings / "chapter.mp3").read_bytes() == expected_audio("A chapter that is spoken later.", "mp3")
    assert "quick brown fox" in (recordings / "talk.srt").read_text("utf-8")
    assert (recordings / "again.srt").read_bytes() == (recordings / "talk.srt").read_bytes()
    settled = [
        [one["outcome"], one["cost_usd"]]
        for one in lines(world.run("usage", "list", "--since", "all", "--json").text)
        if one["tag"] == "later"
    ]
    assert settled == [["ok", 0.000465], ["ok", 0.000080001]]


# --- what is known of gateways ---------------------------------------------------------------------------------------


def test_refused_response_format_is_not_requested_again(world: World) -> None:
    talk = world.root / "recordings" / "talk.wav"

    r = world.run("transcribe", talk, "-m", "openrouter:deepgram/nova-3", "-f", "verbose_json")

    assert (r.code, len(r.posts)) == (0, 1), r.err
    assert "response_format" not in r.posts[0].json
    assert [entry["outcome"] for entry in r.ledger] == ["ok"]


def test_refused_audio_format_is_not_requested_again(world: World) -> None:
    model = ("-m", "openrouter:google/gemini-3.8-flash-tts", "-v", "Kore")

    r = world.run("speak", "Hi there.", *model, "-o", world.root / "hi.mp3")

    assert r.code == 0, r.err
    assert [seen.json["response_format"] for seen in r.posts] == ["pcm"]


def test_cached_model_lists_are_used(world: World) -> None:
    r = world.run("models", "--json")

    listed = {card["ref"]: (card["kind"], card["voices"]) for card in lines(r.text)}
    assert (r.code, r.requests) == (0, []), r.err
    expected = {card["ref"]: (card["kind"], card["voices"]) for card in world.expected["models"]}
    # Local engines of later versions are not in a cached list.
    assert {ref: card for ref, card in listed.items() if ref in expected or not ref.startswith("local:")} == expected
    assert len(expected) == 50


# --- configuration and keys ------------------------------------------------------------------------------------------


def test_keys_are_found(world: World) -> None:
    r = world.run("keys", "list", "--json")

    found = {one["gateway"]: one["source"] for one in lines(r.text)}
    assert r.code == 0, r.err
    assert list(found) == [one["gateway"] for one in world.expected["keys"]] == [*GATEWAYS, "home"]
    assert all(found.values())
    assert found["home"] == "HOME_KEY"


def test_configuration_with_every_table_is_accepted(world: World) -> None:
    r = world.run("config", "--json")

    found = {one["name"]: one["value"] for one in r.json["settings"]}
    assert (r.code, r.requests) == (0, []), r.err
    assert found == world.expected["config"]


def test_configured_budget_holds(world: World) -> None:
    over = ("speak", "Hi.", "-o", world.root / "hi.wav")
    config = world.root / "config" / "audiocli" / "config.toml"
    config.write_text(config.read_text("utf-8").replace("run = 10.0", "run = 0.0000001"), "utf-8")

    r = world.run(*over)

    assert (r.code, r.requests) == (5, []), r.err


def test_configured_defaults_are_sent(world: World) -> None:
    """The model, voice and format of [speak], the voice of [voices], and the price of [prices]."""
    usual = world.run("speak", "Hi.", "-o", world.root / "usual.mp3")
    kokoro = world.run("speak", "Hi.", "-m", "openrouter:hexgrad/kokoro-82m", "-o", world.root / "kokoro.mp3")
    home = world.run("speak", "Hello", "-m", "home:tts-large", "-o", world.root / "home.mp3")
    chat = world.run("chat", "What time is it?", "--max-tokens", "50", "--allow-unpriced", "-y")

    assert [r.code for r in (usual, kokoro, home, chat)] == [0] * 4, usual.err + kokoro.err + home.err + chat.err
    assert (usual.posts[0].model, usual.posts[0].json["voice"]) == ("openai/gpt-4o-mini-tts-2025-12-15", "nova")
    assert kokoro.posts[0].json["voice"] == "af_bella"
    assert (home.posts[0].dialect, home.ledger[0]["cost_nanousd"]) == ("plain", 75_000)
    assert (chat.posts[0].dialect, chat.posts[0].model) == ("arouter", "openai/gpt-5.4-audio-preview")
