"""Test one recording under many names, and the user's files beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from audiocli.mock import DEFAULT_TRANSCRIPT, expected_pcm
from tests.conftest import CommandLine, Result
from tests.test_processes import run_in_shell
from tests.test_transcribe import build_wav

RECORDING = build_wav(expected_pcm("One recording under many names."))
NOTES = "my notes\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "talks"
    path.mkdir()
    (path / "talk.wav").write_bytes(RECORDING)
    return path


# --- the user's own files --------------------------------------------------------------------------------------------

# Arguments whose outputs have names that follow from the recording, and the directory of the outputs.
DERIVED_OUTPUTS = {
    "beside": ["-f", "srt,txt"],
    "directory": ["-O", "OUT"],
    "directory and formats": ["-O", "OUT", "-f", "txt,srt"],
    "batch": ["-f", "srt,txt", "-R"],
    "stdin": ["-O", "OUT", "-f", "srt,txt"],
}


def run_derived(audiocli: CommandLine, directory: Path, case: str, *extra: str) -> tuple[Result, Path]:
    """Run one case. Return the result and the path of the txt output."""
    out = directory / "out" if "OUT" in DERIVED_OUTPUTS[case] else directory
    out.mkdir(exist_ok=True)
    argv = [str(out) if argument == "OUT" else argument for argument in DERIVED_OUTPUTS[case]]
    source = "-" if case == "stdin" else str(directory / "talk.wav")
    result = audiocli("transcribe", source, *argv, *extra, stdin=RECORDING if source == "-" else None)
    return result, out / ("stdin.txt" if source == "-" else "talk.txt")


@pytest.mark.parametrize("case", DERIVED_OUTPUTS)
def test_derived_output_names_keep_files_of_the_user(audiocli: CommandLine, directory: Path, case: str) -> None:
    _, path = run_derived(audiocli, directory, case, "-n")
    path.write_text(NOTES)

    unchanged, _ = run_derived(audiocli, directory, case)

    has_other_output = path.with_suffix(".srt").exists()
    assert unchanged.code == (0 if has_other_output else 3), unchanged.err
    assert path.read_text() == NOTES
    assert path.name in unchanged.err and "--force" in unchanged.err
    assert has_other_output == ("srt" in "".join(DERIVED_OUTPUTS[case]))
    assert len(unchanged.posts) == has_other_output

    forced, _ = run_derived(audiocli, directory, case, "--force")

    assert forced.code == 0, forced.err
    assert path.read_text() == DEFAULT_TRANSCRIPT + "\n"


@pytest.mark.parametrize("case", DERIVED_OUTPUTS)
def test_derived_outputs_of_an_earlier_run_are_replaced_until_they_are_edited(
    audiocli: CommandLine, directory: Path, case: str
) -> None:
    _, path = run_derived(audiocli, directory, case)
    again, _ = run_derived(audiocli, directory, case)

    assert (again.code, path.read_text()) == (0, DEFAULT_TRANSCRIPT + "\n")
    assert "--force" not in again.err

    path.write_text(DEFAULT_TRANSCRIPT.replace("o", "0"))
    edited, _ = run_derived(audiocli, directory, case)

    assert (edited.code, path.read_text()) == (0, DEFAULT_TRANSCRIPT.replace("o", "0"))


def test_named_output_replaces_a_file_of_the_user(audiocli: CommandLine, directory: Path) -> None:
    path = directory / "talk.txt"
    for extra in ([], ["--force"]):
        path.write_text(NOTES)

        r = audiocli("transcribe", directory / "talk.wav", "-o", path, *extra)

        assert (r.code, path.read_text()) == (0, DEFAULT_TRANSCRIPT + "\n"), r.err


def test_json_result_of_protected_outputs_names_them(audiocli: CommandLine, directory: Path) -> None:
    for extension in ("txt", "srt"):
        (directory / f"talk.{extension}").write_text(NOTES)

    r = audiocli("transcribe", directory / "talk.wav", "-f", "txt,srt", "--json")

    assert (r.code, r.posts, r.json["ok"]) == (3, [], False)
    assert r.json["edited"] == [str(directory / "talk.txt"), str(directory / "talk.srt")]
    assert len(r.json["warnings"]) == 2


def test_outputs_of_one_recording_are_up_to_date_in_a_batch(audiocli: CommandLine, directory: Path) -> None:
    argv = ["-f", "srt,vtt", "--timestamps", "segment"]
    audiocli("transcribe", directory / "talk.wav", *argv)

    r = audiocli("transcribe", directory, *argv)

    assert (r.code, r.posts) == (0, []), r.err


# --- one input under many names --------------------------------------------------------------------------------------

# Shell commands that transcribe talk.wav under different names. `run` is the program with the options of a test.
FILE_NAMES = {
    "relative": "run talk.wav",
    "absolute": 'run "$PWD/talk.wav"',
    "symlink": "ln -s talk.wav link.wav; run link.wav",
    "mixed-case extension": "mv talk.wav talk.WaV; run talk.WaV",
    "dot and hyphen": "mv talk.wav ./-talk.wav; run ./-talk.wav",
}
STREAM_NAMES = {
    "-": "cat talk.wav | run -",
    "/dev/stdin": "cat talk.wav | run /dev/stdin",
    "/dev/fd/0": "cat talk.wav | run /dev/fd/0",
    "/dev/stdin of a file": "run /dev/stdin < talk.wav",
    "symlink to /dev/stdin": "ln -s /dev/stdin link.wav; cat talk.wav | run link.wav",
    "FIFO": "mkfifo pipe.wav; cat talk.wav > pipe.wav & run pipe.wav; code=$?; kill $! 2>&-; exit $code",
    "process substitution": "run <(cat talk.wav)",
}


def run_transcribe(audiocli: CommandLine, directory: Path, script: str, *options: str) -> Result:
    return run_in_shell(audiocli, " ".join(["transcribe", *options]), script, directory)


@pytest.mark.parametrize("command", [*FILE_NAMES.values(), *STREAM_NAMES.values()])
def test_recording_is_transcribed_under_any_name(audiocli: CommandLine, directory: Path, command: str) -> None:
    r = run_transcribe(audiocli, directory, command)

    assert (r.code, r.text) == (0, DEFAULT_TRANSCRIPT + "\n"), r.err


@pytest.mark.parametrize("command", STREAM_NAMES.values())
def test_several_formats_of_a_stream_need_a_directory(audiocli: CommandLine, directory: Path, command: str) -> None:
    refused = run_transcribe(audiocli, directory, command, "-f", "srt,txt")

    assert (refused.code, refused.posts) == (2, []), refused.err
    assert "-O" in refused.err

    for path in directory.iterdir():
        if path.name != "talk.wav":
            path.unlink()
    written = run_transcribe(audiocli, directory, command, "-f", "srt,txt", "-O", "out")

    assert written.code == 0, written.err
    assert sorted(path.name for path in (directory / "out").iterdir()) == ["stdin.srt", "stdin.txt"]


@pytest.mark.parametrize("name", FILE_NAMES)
def test_several_formats_of_a_file_are_written_beside_it(audiocli: CommandLine, directory: Path, name: str) -> None:
    r = run_transcribe(audiocli, directory, FILE_NAMES[name], "-f", "srt,txt")

    stem = {"symlink": "link", "dot and hyphen": "-talk"}.get(name, "talk")
    assert r.code == 0, r.err
    assert (directory / f"{stem}.txt").read_text() == DEFAULT_TRANSCRIPT + "\n"


@pytest.mark.parametrize("name", ["-", "FIFO", "process substitution", "/dev/stdin of a file", "dot and hyphen"])
@pytest.mark.parametrize("output", ["out.srt", "./-out.srt"])
def test_named_output_is_written_for_any_name(audiocli: CommandLine, directory: Path, name: str, output: str) -> None:
    r = run_transcribe(audiocli, directory, {**FILE_NAMES, **STREAM_NAMES}[name], "-o", output, "-f", "srt")

    assert (r.code, r.out) == (0, b""), r.err
    assert (directory / output).read_text().startswith("1\n00:00:00,")


@pytest.mark.parametrize("command", ["run -- -talk.wav", "run -- ./-talk.wav", 'run "$PWD/-talk.wav"'])
def test_name_that_begins_with_a_hyphen_is_transcribed(audiocli: CommandLine, directory: Path, command: str) -> None:
    (directory / "talk.wav").rename(directory / "-talk.wav")

    r = run_transcribe(audiocli, directory, command)

    assert (r.code, r.text) == (0, DEFAULT_TRANSCRIPT + "\n"), r.err


@pytest.mark.parametrize("command", ["run - </dev/null", "run </dev/null", "run /dev/stdin </dev/null", "run <(true)"])
def test_empty_stream_is_a_usage_error(audiocli: CommandLine, directory: Path, command: str) -> None:
    r = run_transcribe(audiocli, directory, command)

    assert (r.code, r.requests) == (2, []), r.err
    assert "is empty" in r.err


def test_stream_is_refused_among_other_recordings(audiocli: CommandLine, directory: Path) -> None:
    r = run_transcribe(audiocli, directory, "run talk.wav <(cat talk.wav)")

    assert (r.code, r.requests) == (2, []), r.err
    assert "is a pipe or a device" in r.err
