"""Test that errors of `transcribe` say what is wrong, and that the command they suggest helps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audiocli.mock import DEFAULT_TRANSCRIPT, KEYS, Status
from tests.conftest import CommandLine
from tests.gateway_contract import SPEECH


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "talks"
    path.mkdir()
    (path / "talk.wav").write_bytes(SPEECH)
    return path


@pytest.mark.parametrize(
    "url",
    ["https://example.com/a.mp3", "http://example.com/a.mp3?token=secret", "HTTPS://example.com/"],
)
@pytest.mark.parametrize("command", ["batch", "chat"])
def test_url_is_refused_where_only_files_are_read(
    audiocli: CommandLine, directory: Path, url: str, command: str
) -> None:
    sources = [directory / "talk.wav", url]

    r = audiocli("transcribe", *sources) if command == "batch" else audiocli("chat", "-a", url, "What is said?")

    assert (r.code, r.requests) == (2, []), r.err
    assert "a URL is only supported as the single input of transcribe" in r.err
    assert "secret" not in r.err and "No such file" not in r.err


@pytest.mark.parametrize("language", ["auto", "AUTO", " Auto "])
def test_language_auto_is_detected(audiocli: CommandLine, directory: Path, language: str) -> None:
    audiocli.write_config('[transcribe]\nlanguage = "pt"\n')

    r = audiocli("transcribe", directory / "talk.wav", "-l", language)

    assert (r.code, r.text) == (0, DEFAULT_TRANSCRIPT + "\n"), r.err
    assert "language" not in r.requests[0].json


def test_missing_endpoint_does_not_suggest_the_same_model(audiocli: CommandLine, directory: Path) -> None:
    variables = {"OPENAI_API_KEY": KEYS["openai"]}
    assert audiocli("models", "-g", "openai", "--refresh", variables=variables).code == 0
    audiocli.gateway.add_default_fault(Status(404))

    r = audiocli("transcribe", directory / "talk.wav", "-m", "openai:whisper-1", "--translate", variables=variables)

    assert r.code == 6
    assert "did you mean" not in r.err
    assert "/audio/translations" in r.err and "lists this model" in r.err


def test_base_url_without_version_is_named(audiocli: CommandLine, directory: Path) -> None:
    audiocli.gateway.add_default_fault(Status(404))
    base_url = audiocli.gateway.base_url("openai").replace("/v1", "")

    r = audiocli("transcribe", directory / "talk.wav", "-m", "openai:whisper-1", variables={
        "OPENAI_API_KEY": KEYS["openai"], "OPENAI_BASE_URL": base_url,
    })  # fmt: skip

    assert r.code == 6
    assert "ends with /v1" in r.err and base_url in r.err


def test_broken_recording_in_a_batch_does_not_suggest_a_retry(audiocli: CommandLine, directory: Path) -> None:
    (directory / "notes.md").write_text("not a recording\n")

    r = audiocli("transcribe", directory / "talk.wav", directory / "notes.md")
    as_json = audiocli("transcribe", directory / "talk.wav", directory / "notes.md", "--json")

    assert (r.code, as_json.code) == (3, 3)
    assert "--retry-failed" not in r.err
    assert "again" not in json.loads(as_json.text.splitlines()[-1])


def test_failure_that_may_pass_suggests_a_retry(audiocli: CommandLine, directory: Path) -> None:
    audiocli.gateway.queue_faults(Status(400, message="Invalid value"))

    r = audiocli("transcribe", directory)

    assert r.code == 3
    assert r.err.rstrip().splitlines()[-1] == f"hint: retry with: audiocli transcribe --retry-failed {directory}"


@pytest.mark.parametrize(
    ("source", "extra", "expected"),
    [
        ("talks", [], "talks/talk.txt  missing"),
        ("talks/talk.wav", [], "talks/talk.txt  missing"),
        ("./talks", ["-O", "out"], "out/talk.txt  missing"),
        ("ABSOLUTE", ["-O", "out"], "out/talk.txt  missing"),
        ("ABSOLUTE", [], "ABSOLUTE/talk.txt  missing"),
    ],
)
def test_verified_paths_are_relative_like_the_arguments(
    audiocli: CommandLine,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    extra: list[str],
    expected: str,
) -> None:
    monkeypatch.chdir(directory.parent)

    r = audiocli("transcribe", source.replace("ABSOLUTE", str(directory)), "--verify-only", *extra)

    assert r.code == 3
    assert f"{expected.replace('ABSOLUTE', str(directory))}\n" in r.err


def test_recording_without_output_is_a_partial_batch_until_it_is_written(
    audiocli: CommandLine, directory: Path
) -> None:
    (directory / "talk.txt").write_text("my notes\n")

    codes = [audiocli("transcribe", directory).code for _ in range(2)]
    forced = audiocli("transcribe", directory, "--force")
    (directory / "talk.txt").write_text("edited by me\n")
    edited = audiocli("transcribe", directory)

    assert codes == [3, 3]
    assert (forced.code, edited.code) == (0, 0), edited.err


def test_formats_can_be_repeated(audiocli: CommandLine, directory: Path) -> None:
    r = audiocli("transcribe", directory / "talk.wav", "-f", "srt", "-f", "text,txt", "-f", "vtt")

    assert r.code == 0, r.err
    assert sorted(path.name for path in directory.iterdir()) == ["talk.srt", "talk.txt", "talk.vtt", "talk.wav"]


def test_all_formats_of_whisper_are_named(audiocli: CommandLine, directory: Path) -> None:
    r = audiocli("transcribe", directory / "talk.wav", "-f", "all")

    assert (r.code, "hint: those of Whisper are: -f txt,srt,vtt,tsv,json" in r.err) == (2, True)
