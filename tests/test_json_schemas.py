"""The JSON that commands print matches docs/schemas, which describes every key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from audiocli.mock import KEYS, CutAfter
from tests.conftest import CommandLine
from tests.gateway_contract import SPEECH
from tests.pyav_codec import encode

SCHEMAS = {
    path.stem: json.loads(path.read_text("utf-8"))
    for path in (Path(__file__).parent.parent / "docs" / "schemas").glob("*.json")
}


def forbid_unknown_keys(schema: Any) -> Any:
    """Return a schema that accepts only the keys that it describes."""
    if isinstance(schema, list):
        return [forbid_unknown_keys(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: forbid_unknown_keys(value) for key, value in schema.items()}
    if isinstance(closed.get("properties"), dict):
        closed.setdefault("additionalProperties", False)
    return closed


def list_objects(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def check(name: str, document: Any) -> None:
    """Fail if a document does not match a schema, or has a key that the schema does not describe."""
    errors = Draft202012Validator(forbid_unknown_keys(SCHEMAS[name])).iter_errors(document)
    assert [f"{name}: {error.json_path}: {error.message}" for error in errors] == []


@pytest.fixture
def directory(audiocli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with recordings, and a ledger with one request of each command."""
    monkeypatch.chdir(audiocli.directory)
    (audiocli.directory / "talk.wav").write_bytes(SPEECH)
    (audiocli.directory / "bad.mp3").write_bytes(b"no audio")
    (audiocli.directory / "talk.srt").write_text("2\n00:00:01,000 --> 00:00:02,500\nHello\n")
    (audiocli.directory / "book.md").write_text("# One\n\nFirst.\n\n# Two\n\nSecond.\n")
    (audiocli.directory / "rows.csv").write_text("text,voice\nOne.,\nTwo.,\n")
    (audiocli.directory / "out" / "taken.mp3").mkdir(parents=True)
    (audiocli.directory / "failing.csv").write_text("name,text\ntaken,One.\n")
    audiocli("models")
    audiocli("speak", "hi", "-o", "hi.mp3")
    return audiocli.directory


# The schema of each line that a command line prints. The last one may repeat.
CASES = {
    "speak": (["speak"], "speak hello -o x.mp3"),
    "speak with captions": (["speak"], "speak hello -o x.mp3 --captions x.srt"),
    "long speech": (["speak"], "speak The first sentence. The second sentence. -o x.mp3 --max-chars 24"),
    "speak --dry-run": (["speak-dry-run"], "speak hello -o x.mp3 -n"),
    "speak --verify": (["speak"], "speak hello -o x.mp3 --verify --verify-model openai/whisper-1"),
    "speak --verify --dry-run": (["speak-dry-run"], "speak hello -o x.mp3 --verify --verify-model openai/whisper-1 -n"),
    "speak --verify-audio": (
        ["speak-verify-audio"],
        "speak hello --verify-audio talk.wav --verify-model openai/whisper-1",
    ),
    "verified rows": (
        ["speak-item", "speak-item", "speak-summary"],
        "speak -F rows.csv -O out --verify --verify-model openai/whisper-1",
    ),
    "speak a book --dry-run": (["speak-dry-run"], "speak -F book.md -o x.m4b -n"),
    "speak a text with URLs": (["speak"], "speak https://example.com/ -o x.mp3 --clean urls"),
    "rows": (["speak-item", "speak-item", "speak-summary"], "speak -F rows.csv -O out"),
    "rows with a failure": (["speak-failure", "speak-summary"], "speak -F failing.csv -O out"),
    "rows --dry-run": (["speak-rows-dry-run"], "speak -F rows.csv -O out -n"),
    "transcribe": (["transcribe"], "transcribe talk.wav"),
    "transcribe words": (["transcribe"], "transcribe talk.wav --timestamps word"),
    "transcribe --dry-run": (["transcribe-dry-run"], "transcribe talk.wav -n"),
    "transcribe a range --dry-run": (["transcribe-dry-run"], "transcribe talk.wav -n --range 0.5-1 --range 1.5-"),
    "transcribe a range": (["transcribe"], "transcribe talk.wav --range 0.5-1 --range 1.5-"),
    "transcribe --list-tracks": (["transcribe-tracks"], "transcribe talk.wav hi.mp3 --list-tracks"),
    "batch": (
        ["transcribe-item", "transcribe-item", "transcribe-summary"],
        "transcribe talk.wav hi.mp3 -O out",
    ),
    "batch with a failure": (
        ["transcribe-failure", "transcribe-item", "transcribe-summary"],
        "transcribe bad.mp3 hi.mp3 -O out",
    ),
    "verify": (
        ["transcribe-verify-line", "transcribe-verify-line", "transcribe-verify-summary"],
        "transcribe talk.wav hi.mp3 -O out --verify-only",
    ),
    "chat": (["chat"], "chat hello"),
    "chat with audio": (["chat"], "chat hello -o reply.mp3"),
    "models": (["models-line"], "models"),
    "voices": (["voices-line"], "voices"),
    "background": (["jobs"], "speak hi -g therouter --background -o job.mp3"),
    "usage": (["usage"], "usage --by day --by model --by tag"),
    "usage list": (["usage-list-line"], "usage list"),
    "usage verify": (["usage-verify"], "usage verify"),
    "usage reconcile": (["usage-reconcile"], "usage reconcile"),
    "budget": (["budget"], "budget set --day 5 --run 1 --confirm 0.5"),
    "cache": (["cache"], "cache"),
    "cache clear": (["cache"], "cache clear --paid -y"),
    "cache path": (["cache-path"], "cache path"),
    "captions check": (["captions-check"], "captions check talk.srt book.md"),
    "captions convert": (["captions"], "captions convert talk.srt -f vtt,lrc"),
    "captions shift": (["captions"], "captions shift talk.srt -2"),
    "captions split": (["captions"], "captions split talk.srt --at 2 -O parts"),
    "config": (["config"], "config"),
    "config check": (["config-check"], "config check"),
    "config path": (["path"], "config path"),
    "usage path": (["path"], "usage path"),
    "keys": (["keys-line"], "keys list"),
    "init": (["init"], "init --dry-run"),
    "completion": (["completion"], "completion bash"),
    "completion --install": (["completion"], "completion fish --install"),
    "report": (["report"], "report -y -o report.zip"),
    "config set": (["config-value"], "config set speak.voice eve"),
    "config get": (["config-value"], "config get speak.models"),
}


@pytest.mark.parametrize("case", CASES)
def test_output_matches_its_schema(audiocli: CommandLine, directory: Path, case: str) -> None:
    names, command = CASES[case]

    result = audiocli(*command.split(), "--json", variables={"THEROUTER_API_KEY": KEYS["therouter"]})

    documents = list(list_objects(result.text))
    assert len(documents) >= len(names), result.err
    if names[-1].endswith("-summary"):
        assert len(documents) == len(names)
    for name, document in zip([*names, *[names[-1]] * (len(documents) - len(names))], documents, strict=True):
        check(name, document)


def test_job_matches_its_schema(audiocli: CommandLine, directory: Path) -> None:
    variables = {"THEROUTER_API_KEY": KEYS["therouter"]}
    audiocli("speak", "hi", "-g", "therouter", "--background", "-o", "job.mp3", variables=variables)

    listed = audiocli("jobs", "--json", variables=variables).json
    finished = audiocli("jobs", "wait", listed["id"], "--json", variables=variables).json
    forgotten = audiocli("jobs", "forget", listed["id"], "--json", variables=variables).json

    check("jobs-line", listed)
    check("jobs", finished)
    check("jobs", forgotten)
    assert finished["sha256"]


@pytest.mark.parametrize(
    "command",
    [
        "speak hi -o x.wavv",
        "speak hi -o x.mp3 -g groq",
        "speak hi -o x.mp3 -m openrouter:nope/nope",
        "speak bye -o x.mp3 --max-cost 0.0000001",
        "transcribe bad.mp3",
        "jobs show nothing",
        "config path --wrong",
    ],
)
def test_error_matches_its_schema(audiocli: CommandLine, directory: Path, command: str) -> None:
    result = audiocli(*command.split(), "--json")

    check("error", result.err_json)
    assert result.err_json["error"]["exit"] == result.code != 0


def test_schemas_describe_what_the_files_say() -> None:
    for schema in SCHEMAS.values():
        Draft202012Validator.check_schema(schema)
        assert schema["title"] and schema["description"]
    tested = {name for names, _ in CASES.values() for name in names} | {"error", "exchange", "jobs-line", "keys"}
    tested |= {"mock", "mock-journal-line"}  # tests/test_mock_command.py
    tested |= {"devices"}  # tests/test_microphone.py
    assert tested == set(SCHEMAS)
    with pytest.raises(AssertionError):
        check("path", {"schema": 1, "ok": True, "command": "config", "path": "x", "surprise": 1})


def test_recorded_exchange_and_replayed_result_match_their_schemas(audiocli: CommandLine, directory: Path) -> None:
    audiocli.gateway.queue_faults(CutAfter(100))
    failed = ("speak", "bye", "-o", "y.mp3")
    audiocli(*failed, "--record", "recording")
    audiocli("transcribe", "talk.wav", "--json", "--record", "recording")

    for path in (directory / "recording").glob("[0-9]*.json"):
        check("exchange", json.loads(path.read_text("utf-8")))
    check("transcribe", audiocli("transcribe", "talk.wav", "--json", "--replay", "recording").json)
    check("error", audiocli(*failed, "--json", "--replay", "recording").err_json)


def test_stored_key_matches_its_schema(audiocli: CommandLine, directory: Path) -> None:
    result = audiocli("keys", "set", "openrouter", "--json", stdin=KEYS["openrouter"].encode())

    check("keys", result.json)
    assert result.json["verified"] is True
    check("keys", audiocli("keys", "remove", "openrouter", "--json").json)


def test_encoded_recording_matches_the_schema(audiocli: CommandLine, directory: Path) -> None:
    from audiocli.mock import expected_pcm

    (directory / "talk.ogg").write_bytes(encode(expected_pcm("hello"), "ogg"))

    check("transcribe", audiocli("transcribe", "talk.ogg", "-f", "srt,vtt", "--json").json)
