"""The examples of the README and of the documentation, run unchanged."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from audiocli.mock import KEYS, expected_pcm
from scripts.build_docs import list_pages
from tests.conftest import CommandLine, Result
from tests.documents import build_epub
from tests.programs import write_program
from tests.pyav_codec import encode

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
OPTIONS = (ROOT / "docs" / "reference" / "options.md").read_text("utf-8")
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PAGES = [page for page in list_pages() if BLOCK.search(page.read_text("utf-8"))]

# Examples that are not run, with the reason. The fence of commands that need more than audiocli is `bash`.
NOT_RUN = {
    "pip install": "installs packages; .ci/run does",
    "while rec": "runs until it is interrupted",
    "jobs wait": "polls every five seconds; tests/test_jobs.py and tests/test_json_schemas.py run it",
    "sqlite3": "tests/test_ledger.py runs the query with Python's sqlite3",
}


def read_examples(page: Path) -> list[str]:
    """Return the commands of the `sh` blocks of a page, without those that are not run."""
    lines = [line for block in BLOCK.findall(page.read_text("utf-8")) for line in block.splitlines()]
    return [line for line in lines if line.strip() and not any(word in line for word in NOT_RUN)]


@pytest.fixture
def directory(audiocli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current directory, with the files of the examples, and add stand-ins for other programs to PATH."""
    audio = expected_pcm("Hello there, world.")
    directory = tmp_path / "work"
    for name in ("lectures/week2", "talks"):
        (directory / name).mkdir(parents=True)
    for name in ("chapter.txt", "book.txt"):
        (directory / name).write_text("It was a dark and stormy night.")
    write_documents(directory)
    for name in ("talk.mp4", "lectures/week1.mp4", "lectures/week2/b.mp4", "talks/a.mp3"):
        (directory / name).write_bytes(encode(expected_pcm(f"This is {name}."), "mp3"))
    for name in ("a.ogg", "b.ogg"):
        (directory / name).write_bytes(encode(audio, "ogg"))
    for name in ("captured.wav", "talk.wav"):
        (directory / name).write_bytes(encode(audio, "wav"))
    (directory / "part1.mp3").write_bytes(encode(expected_pcm("This is part one."), "mp3"))
    for name in ("talk.srt", "part1.srt", "part2.srt", "en.srt", "de.srt"):
        (directory / name).write_text("1\n00:00:01,000 --> 00:00:03,000\nIt was a dark night.\n")
    home = Path(audiocli.variables["HOME"])
    for name in (".local/share/bash-completion/completions", ".zfunc", ".config/fish/completions"):
        (home / name).mkdir(parents=True)
    for name, script in {
        "audiocli": f'PYTHONPATH="{ROOT}" exec "{sys.executable}" -m audiocli "$@"',
        "mpv": f'/bin/cat > "{directory}/received"',
        "git": "echo a commit message",
        "rec": f'/bin/cat "{directory}/captured.wav"',
        "ffmpeg": f'/bin/cat "{directory}/captured.wav"',
        "date": "echo 2026-11-01",
    }.items():
        write_program(Path(audiocli.variables["PATH"]) / name, f"#!/bin/sh\n{script}\n")
    audiocli.variables |= {f"{name.upper()}_API_KEY": KEYS[name] for name in ("openai", "therouter", "groq")}
    audiocli("models")  # spending limits need prices
    monkeypatch.chdir(directory)
    return directory


def write_documents(directory: Path) -> None:
    """Write the documents and tables that the examples speak."""
    names = ("One", "Two", "Three", "Four", "Five")
    pages = {f"{name}.xhtml": f"<h1>{name}</h1><p>This is {name}.</p>" for name in names}
    (directory / "book.epub").write_bytes(build_epub(pages))
    for name, text in {
        "article.html": "<html><body><article><h1>News</h1><p>The build is green.</p></article></body></html>",
        "notes.md": "# Notes\n\nSee https://example.com/ for more.\n",
        "dialogue.txt": "Alice: Hello.\n\nBob: Hello, Alice.\n",
        "phrases.csv": "name,text\nwelcome,Welcome.\ngoodbye,Goodbye.\n",
        "names.txt": "Siobhan = shiv-awn\n",
        "list.txt": "One line.\nAnother line.\n",
        "talk.srt": "1\n00:00:00,500 --> 00:00:02,000\nHello there.\n",
    }.items():
        (directory / name).write_text(text)


def run(audiocli: CommandLine, line: str) -> Result | subprocess.CompletedProcess[str]:
    """Run a command of audiocli in this process, and what needs a shell in a shell."""
    words = shlex.split(line, comments=True)
    if words[0] == "audiocli" and not set("|<>*;") & set(shlex.join(words).replace("'?'", "")):
        return audiocli(*words[1:])
    return subprocess.run(
        ["/bin/bash", "-o", "pipefail", "-ec", line],
        env={**audiocli.variables, "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_of_pages_work_as_printed(audiocli: CommandLine, directory: Path, page: Path) -> None:
    failures = []
    for line in read_examples(page):
        done = run(audiocli, line)
        code, err = (done.code, done.err) if isinstance(done, Result) else (done.returncode, done.stderr)
        if code != 0 or "Traceback" in err:
            failures.append(f"{line}\n  exit code {code}: {err}")

    assert not failures, "\n".join(failures)
    assert [problem for seen in audiocli.gateway.posts for problem in seen.problems] == []


def test_one_liners_do_something(audiocli: CommandLine, directory: Path) -> None:
    lines = README.split("## One-liners\n", 1)[1].split("```sh\n", 1)[1].split("```", 1)[0].splitlines()
    assert len(lines) == 10
    for line in lines:
        count = len(audiocli.gateway.posts)
        done = run(audiocli, line)
        out = done.out if isinstance(done, Result) else done.stdout
        assert out or len(audiocli.gateway.posts) > count, line


def test_nightly_script_is_the_one_of_the_tutorial_and_works(audiocli: CommandLine, directory: Path) -> None:
    script = ROOT / "examples" / "nightly.sh"
    tutorial = (ROOT / "docs" / "tutorials" / "nightly-batch.md").read_text("utf-8")
    assert f"```bash\n{script.read_text('utf-8')}```" in tutorial

    done = subprocess.run(
        ["/bin/sh", script, "talks"], env=audiocli.variables, capture_output=True, text=True, timeout=120
    )
    (directory / "limits.toml").write_text("[budget]\nday = 0.000001\n")
    limited = subprocess.run(
        ["/bin/sh", script, "lectures"],
        env={**audiocli.variables, "AUDIOCLI_CONFIG": str(directory / "limits.toml")},
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert (directory / "talks" / "a.srt").exists()
    assert '"summary"' in (directory / "talks" / "nightly-2026-11-01.jsonl").read_text()
    assert limited.returncode == 5
    assert "the spending limit is reached" in limited.stderr


def test_every_command_has_a_page() -> None:
    commands = set(re.findall(r"^## audiocli (\w+)", OPTIONS, re.MULTILINE))
    pages = {page.stem for page in (ROOT / "docs" / "commands").glob("*.md")}

    assert commands == pages
    assert {f"docs/commands/{name}.md" for name in pages} <= set(re.findall(r"\]\(([^)#]+)", README))


def test_every_option_of_speech_and_transcription_is_explained() -> None:
    common = (ROOT / "docs" / "topics" / "common-options.md").read_text("utf-8")
    directories = (ROOT / "docs" / "topics" / "directories.md").read_text("utf-8")
    jobs = (ROOT / "docs" / "commands" / "jobs.md").read_text("utf-8")
    missing = []
    for command in ("speak", "transcribe", "chat", "jobs", "usage", "budget", "config", "keys", "models", "voices"):
        text = (ROOT / "docs" / "commands" / f"{command}.md").read_text("utf-8") + common + directories + jobs
        for section in re.findall(rf"^## audiocli {command}\b.*?(?=^## |\Z)", OPTIONS, re.DOTALL | re.MULTILINE):
            names = re.findall(r"^\| .*?`(--[\w-]+)", section, re.MULTILINE)
            missing += [f"{command} {name}" for name in names if name not in text]

    assert missing == [], f"explain in docs/commands: {missing}"
