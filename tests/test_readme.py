"""The examples of the README, run unchanged in a real shell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from audiocli.mock import expected_pcm
from tests.conftest import CommandLine
from tests.pyav_codec import encode

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def read_examples(heading: str) -> list[str]:
    """Return the lines of the first block of shell commands below a heading."""
    block = README.split(f"{heading}\n", 1)[1].split("```sh\n", 1)[1].split("```", 1)[0]
    return [line for line in block.splitlines() if line.strip()]


@pytest.fixture
def directory(audiocli: CommandLine, tmp_path: Path) -> Path:
    """Return a directory with the files of the examples, and add stand-ins for external programs to PATH."""
    audio = expected_pcm("Hello there, world.")
    directory = tmp_path / "work"
    directory.mkdir()
    (directory / "chapter.txt").write_text("It was a dark and stormy night.")
    (directory / "talk.mp4").write_bytes(encode(audio, "mp3"))
    (directory / "a.ogg").write_bytes(encode(audio, "ogg"))
    (directory / "b.ogg").write_bytes(encode(audio, "ogg"))
    (directory / "captured.wav").write_bytes(encode(audio, "wav"))
    programs = Path(audiocli.variables["PATH"])
    programs.mkdir(parents=True)
    for name, script in {
        "audiocli": f'PYTHONPATH="{ROOT}" exec "{sys.executable}" -m audiocli "$@"',
        "mpv": f'/bin/cat > "{directory}/received"',
        "git": "echo a commit message",
        "rec": f'/bin/cat "{directory}/captured.wav"',
        "ffmpeg": f'/bin/cat "{directory}/captured.wav"',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    audiocli.variables |= {"GROQ_API_KEY": "gsk-test"}
    return directory


@pytest.mark.parametrize("line", read_examples("## One-liners"))
def test_one_liners_work_as_printed(audiocli: CommandLine, directory: Path, line: str) -> None:
    done = subprocess.run(
        ["/bin/bash", "-o", "pipefail", "-ec", line],
        cwd=directory,
        env={**audiocli.variables, "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout or audiocli.gateway.posts
    assert [problem for seen in audiocli.gateway.posts for problem in seen.problems] == []


def test_every_command_and_flag_is_in_the_readme(audiocli: CommandLine) -> None:
    missing = []
    commands = ("speak", "transcribe", "chat", "models", "voices", "usage", "budget", "config", "keys", "completion")
    for command in (*commands, "jobs wait", "jobs fetch", "jobs show", "jobs forget"):
        for word in audiocli(*command.split(), "--help").text.split():
            flag = word.strip(",.[]").partition("=")[0]
            if flag.startswith("--") and flag != "--help" and f"{flag}" not in README:
                missing.append(f"{command} {flag}")

    assert missing == []
