"""Test templates for the names of transcripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiocli.mock import KEYS, MockTranscript
from tests.conftest import CommandLine
from tests.gateway_contract import SPEECH

OPENAI = ("-m", "openai:whisper-1")


@pytest.fixture
def cli(audiocli: CommandLine, tmp_path: Path) -> CommandLine:
    audiocli.variables["OPENAI_API_KEY"] = KEYS["openai"]
    audiocli.gateway.set_transcript(MockTranscript("Hola.", language="spanish", language_code="es"))
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "film.mp4").write_bytes(SPEECH)
    return audiocli


@pytest.fixture
def film(cli: CommandLine) -> Path:
    return cli.directory / "films" / "film.mp4"


def list_names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.suffix != ".mp4")


@pytest.mark.parametrize("batch", [[], ["-R"]])
@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--media-server", "-f", "srt"], ["film.es.srt"]),
        (["--media-server", "-l", "de", "-f", "srt,txt"], ["film.de.srt", "film.de.txt"]),
        (["--media-server", "--translate", "-f", "srt"], ["film.en.srt"]),
        (["--media-server", "--translate", "-l", "de", "-f", "srt"], ["film.en.srt"]),
        (["--name", "{stem}-{lang}", "-f", "srt,vtt"], ["film-es.srt", "film-es.vtt"]),
        (["--name", "{ext}_{stem}.{ext}", "-f", "txt,json"], ["json_film.json", "txt_film.txt"]),
        (["--name", "{stem}", "-f", "verbose_json"], ["film.verbose.json"]),
    ],
)
def test_outputs_are_named_by_the_template(
    cli: CommandLine, film: Path, options: list[str], names: list[str], batch: list[str]
) -> None:
    source = film.parent if batch else film

    first = cli("transcribe", source, *OPENAI, *options, *batch)
    again = cli("transcribe", source, *OPENAI, *options, *batch)

    assert (first.code, again.code) == (0, 0), first.err + again.err
    assert list_names(film.parent) == names
    assert (len(first.posts), len(again.posts)) == (1, 0)
    assert again.err.count("edited") == 0
    assert all(name in first.err for name in names)


def test_original_and_translation_are_both_up_to_date(cli: CommandLine, film: Path) -> None:
    original = ("transcribe", film.parent, *OPENAI, "--media-server", "-f", "srt")
    translation = (*original, "--translate")

    codes = [cli(*argv).code for argv in (original, translation)]
    again = [cli(*argv) for argv in (original, translation)]
    checked = [cli(*argv, "--verify-only") for argv in (original, translation)]

    assert list_names(film.parent) == ["film.en.srt", "film.es.srt"]
    assert codes == [0, 0]
    assert [(r.code, len(r.posts)) for r in (*again, *checked)] == [(0, 0)] * 4


@pytest.mark.parametrize("batch", [[], ["-R"]])
def test_file_of_the_user_is_left_unchanged(cli: CommandLine, film: Path, batch: list[str]) -> None:
    theirs = film.with_name("film.es.srt")
    theirs.write_text("my captions")
    source = film.parent if batch else film
    argv = ("transcribe", source, *OPENAI, "--media-server", "-f", "srt,txt", *batch)

    result = cli(*argv)

    assert result.code == 0, result.err
    assert theirs.read_text() == "my captions"
    assert film.with_name("film.es.txt").read_text() == "Hola.\n"
    assert "--force" in result.err or "edited" in result.err

    forced = cli(*argv, "--force")

    assert "Hola." in theirs.read_text() and not forced.posts


def test_unknown_language_is_und(cli: CommandLine, film: Path) -> None:
    cli.gateway.set_transcript(MockTranscript("…?", language=None, language_code=None))

    result = cli("transcribe", film, *OPENAI, "--media-server", "-f", "txt")

    assert result.code == 0, result.err
    assert list_names(film.parent) == ["film.und.txt"]


def test_names_are_in_the_output_directory_with_its_tree(cli: CommandLine, film: Path) -> None:
    deep = film.parent / "series" / "one.mp4"
    deep.parent.mkdir()
    deep.write_bytes(SPEECH + b"\0\0")
    out = cli.directory / "out"

    result = cli("transcribe", film.parent, *OPENAI, "-R", "--media-server", "-f", "srt", "-O", out)

    assert result.code == 0, result.err
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.srt")) == ["film.es.srt", "series/one.es.srt"]


@pytest.mark.parametrize(
    "options",
    [
        ["--name", "all.{ext}", "-f", "srt"],
        ["--name", "{lang}.{ext}", "-f", "srt"],
        ["--media-server", "-f", "srt"],
        ["--name", "{stem}.mp4", "-f", "srt", "--include", "film.mp4"],
    ],
)
def test_outputs_with_one_name_are_refused_before_anything_is_sent(
    cli: CommandLine, film: Path, options: list[str]
) -> None:
    (film.parent / "film.wav").write_bytes(SPEECH + b"\0\0")

    result = cli("transcribe", film.parent, *OPENAI, *options)

    if "--include" in options:  # the extension is added, so the recording is safe
        assert list_names(film.parent) == ["film.mp4.srt", "film.wav"]
        return
    assert result.code == 2 and "--name" in result.err
    assert not result.requests and list_names(film.parent) == ["film.wav"]


@pytest.mark.parametrize(
    "options",
    [
        ["--name", "{stem}/{lang}"],
        ["--name", "../{stem}"],
        ["--name", "{title}"],
        ["--name", "{stem"],
        ["--name", "{stem}.txt{ext:x}"],
        ["--name", "same.{lang}x", "--media-server"],
        ["--media-server", "-o", "x.srt"],
        ["--media-server", "--background"],
    ],
)
def test_invalid_names_are_refused(cli: CommandLine, film: Path, options: list[str]) -> None:
    result = cli("transcribe", film, *OPENAI, *options)

    assert result.code == 2, result.err
    assert not result.posts


def test_recording_from_stdin_is_named_in_a_directory(cli: CommandLine) -> None:
    out = cli.directory / "out"

    refused = cli("transcribe", "-", *OPENAI, "--media-server", stdin=SPEECH)
    named = cli("transcribe", "-", *OPENAI, "--media-server", "-O", out, stdin=SPEECH)

    assert (refused.code, named.code) == (2, 0), named.err
    assert list_names(out) == ["stdin.es.txt"]


def test_result_lists_the_final_names(cli: CommandLine, film: Path) -> None:
    result = cli("transcribe", film, *OPENAI, "--media-server", "-f", "txt,srt", "--json")
    batch = cli("transcribe", film.parent, *OPENAI, "--media-server", "-f", "txt,vtt", "--json")

    assert [Path(path).name for path in result.json["outputs"]] == ["film.es.txt", "film.es.srt"]
    assert "film.es.vtt" in batch.text and "{lang}" not in batch.text
