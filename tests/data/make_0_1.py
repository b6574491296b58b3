"""Make `data_directory_0_1.tar.xz`: what version 0.1 leaves in its directories.

Run it with the code of 0.1 only. Later renames do not apply to it.

    git worktree add /tmp/base cf6fefc && cd /tmp/base && python /path/to/make_0_1.py OUT ARCHIVE

OUT must not exist. It gets `config`, `data`, `cache` and `recordings`, `expected.json` (what 0.1 reports of them) and
`made.json` (where and when they were made, which a test needs to move them).

Caches are keyed by hashes of the base URL, so a base URL must not contain a port that happens to be free. All base URLs
are below `http://gateway.localhost`, without a port, and HTTP_PROXY is the loopback gateway, which reads the absolute
form of a request as well as the relative one. Names in `.localhost` never leave the machine. They also count as
private, so that the results of jobs may come from the loopback store, which NO_PROXY exempts from the proxy. Nothing is
bound to a fixed address, so tests can run in parallel.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
from array import array
from pathlib import Path
from typing import Any

CODE = Path.cwd()
sys.path.insert(0, str(CODE))

import audiocli  # noqa: E402
from tests.conftest import CommandLine, Result  # noqa: E402
from tests.gateway import (  # noqa: E402
    KEYS,
    CutAfter,
    Empty,
    LoopbackGateway,
    Normal,
    Status,
    closed_port,
    encode,
)

ORIGIN = "http://gateway.localhost"
NAMES = ("openrouter", "openai", "therouter", "arouter", "groq")
RATE_HZ = 16_000
COUNT = 50
# The budget and its `confirm` refuse what has no known price, unless this is said.
UNPRICED = ("--allow-unpriced", "-y")
SENTENCES = [f"The sentence of {name} is spoken." for name in ("alpha", "bravo", "delta", "echo", "golf", "hotel")]
BATCH = ("-R", "-f", "txt,srt,json", "--tag", "talks")
REPORTS: dict[str, tuple[str, ...]] = {
    "day": ("--by", "day", "--utc"),
    "outcome": ("--by", "outcome"),
    "gateway": ("--by", "gateway"),
    "tag": ("--by", "tag"),
    "model and command": ("--by", "model", "--by", "command"),
}
DAY_MS = 24 * 3600 * 1000

CONFIG = """\
# Written for audiocli 0.1: every table and every key that it knows.
[speak]
models = ["openrouter:openai/gpt-4o-mini-tts-2025-12-15"]
voice = "nova"
format = "wav"

[transcribe]
models = ["openrouter:openai/whisper-large-v3"]
language = "en"

[chat]
models = ["arouter:openai/gpt-5.4-audio-preview"]
voice = "nova"

[voices]
"openrouter:hexgrad/kokoro-82m" = "af_bella"

[gateways.home]
dialect = "openai"
base_url = "http://gateway.localhost/plain/v1"
key_env = "HOME_KEY"

[budget]
run = 10.0
day = 50.0
week = 100.0
month = 200.0
confirm = 5.0

[prices]
"home:tts-large" = { per = "1M characters", usd = 15.0 }
"home:whisper-large" = { per = "hour", usd = 0.36 }
"""


def tone(number: int, seconds: float) -> bytes:
    """Make a triangle wave of a length of its own. Its period is a whole number of samples, so it compresses well."""
    period = 20 + 2 * number
    half = period // 2
    wave = [round(8000 * (4 * min(n, period - n) / period - 1)) for n in range(period)]
    samples = round(seconds * RATE_HZ)
    assert half * 2 == period
    return array("h", (wave * (samples // period + 1))[:samples]).tobytes()


def transcribe(head: bytes, duration_s: float) -> str:
    """Transcribe each recording differently."""
    return f"This is recording {hashlib.sha256(head).hexdigest()[:8]}. It lasts {duration_s:.1f} seconds."


class World:
    """Runs command lines in `root`, as a user of 0.1 would."""

    def __init__(self, root: Path, gateway: LoopbackGateway) -> None:
        os.environ.pop("http_proxy", None)
        os.environ.update({"HTTP_PROXY": gateway.url, "NO_PROXY": "127.0.0.1"})
        self.root = root
        self.line = CommandLine(root, gateway, make_variables(root, gateway))

    def run(self, *argv: str, code: int = 0, stdin: bytes | None = None, tag: str = "") -> Result:
        r = self.line(*argv, stdin=stdin, variables={"AUDIOCLI_TAG": tag} if tag else None)
        outcomes = [entry["outcome"] for entry in r.ledger]
        print(f"{' '.join(argv)[:110]}\n    code {r.code}, {len(r.posts)} posts, {outcomes[:12]}")  # noqa: T201
        assert r.code == code, r.err
        return r

    def start(self, *argv: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "audiocli", *argv],
            env={**self.line.variables, "PYTHONPATH": str(CODE)},
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


def make_variables(root: Path, gateway: LoopbackGateway) -> dict[str, str]:
    return {
        "PATH": "/nonexistent",
        "HOME": str(root),
        "XDG_CONFIG_HOME": str(root / "config"),
        "XDG_DATA_HOME": str(root / "data"),
        "XDG_CACHE_HOME": str(root / "cache"),
        "AUDIOCLI_LEDGER": str(root / "data" / "audiocli" / "ledger.sqlite3"),
        "HOME_KEY": "open-sesame-4711",
        "HTTP_PROXY": gateway.url,
        "NO_PROXY": "127.0.0.1",
        **{f"{name.upper()}_BASE_URL": ORIGIN + gateway.base_url(name).removeprefix(gateway.url) for name in NAMES},
    }


def make_recordings(folder: Path) -> None:
    """Write fifty recordings of the batch, one that will fail, one for jobs and capabilities, and a long one."""
    for number in range(COUNT):
        place = folder / "talks" / ("", "first", "second/überall und", "second/third")[number % 4]
        place.mkdir(parents=True, exist_ok=True)
        pcm = tone(number, 0.3 + number / 250)
        format = "flac" if number % 5 == 0 else "wav"
        (place / f"talk {number:02}.{format}").write_bytes(encode(pcm, format, rate_hz=RATE_HZ))
    for name, number in (("failed/good.wav", 60), ("failed/lost.wav", 61), ("talk.wav", 62)):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(tone(number, 0.8), "wav", rate_hz=RATE_HZ))
    # Nine seconds of sound and one of silence, four times: four chunks of at most ten seconds.
    stretches = b"".join(tone(70 + number, 9) + bytes(2 * RATE_HZ) for number in range(4))
    (folder / "long.wav").write_bytes(encode(stretches, "wav", rate_hz=RATE_HZ))
    (folder / "book.txt").write_text(" ".join(SENTENCES) + "\n", "utf-8")


def spend(world: World) -> None:
    """Fill the ledger: every outcome, every gateway, tags."""
    root, gateway = world.root, world.line.gateway
    scratch = str(root / "scratch.wav")
    speak = ("speak", "A sentence that costs something.", *UNPRICED, "-o", scratch)
    world.run(*speak)
    world.run(*speak, "--tag", "alpha")
    world.run(*speak, "-m", "openrouter:hexgrad/kokoro-82m", "--tag", "alpha")
    world.run(*speak, "-m", "openai:tts-1", "-v", "alloy", tag="from the environment")
    world.run(*speak, "-g", "groq", "-v", "troy", "--tag", "alpha")
    world.run(*speak, "-g", "arouter")
    world.run(*speak, "-m", "home:tts-large", "--tag", "beta")
    world.run("chat", "What is the time?", *UNPRICED, "--max-tokens", "100", "--tag", "beta")
    world.run("transcribe", "recordings/talk.wav", "-m", "home:whisper-large", "-o", str(root / "scratch.txt"))
    gateway.script(Status(400))
    world.run(*speak, "--tag", "beta", code=6)
    gateway.script(Status(500), Status(500), Status(500))
    world.run(*speak, code=6)
    gateway.script(Empty())
    world.run(*speak, code=9)
    gateway.script(CutAfter(10))
    world.run(*speak, "--tag", "alpha", code=7)
    world.run(*speak, "-g", "openrouter", "--base-url", f"http://127.0.0.1:{closed_port()}/v1", code=7)
    for path in root.glob("scratch.*"):
        path.unlink()


def interrupt(world: World) -> None:
    """End two processes while their requests are under way: one settles its entry, the other cannot any more."""
    gateway = world.line.gateway
    gateway.hold(after_bytes=1000)
    for end, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        before = len(gateway.requests)
        process = world.start("speak", "This never ends.", "-o", "never.wav", "--tag", "interrupted")
        gateway.wait_for_requests(before + 1)
        time.sleep(0.5)  # until the beginning of the reply is there
        process.send_signal(end)
        assert process.wait(20) == code
    gateway.release()
    assert [entry["outcome"] for entry in world.line.entries()[-2:]] == ["cancelled", "reserved"]
    for path in world.root.glob(".*.part"):
        path.unlink()


def leave_unfinished(world: World) -> None:
    """Leave work behind: a long text, a long recording, a lost recording of a batch, and two open jobs."""
    gateway = world.line.gateway
    gateway.script(Normal(), Normal(), Normal(), Status(400))
    book = ("speak", "-F", "recordings/book.txt", "--max-chars", "50", "-o", "recordings/book.wav", "-j", "1")
    r = world.run(*book, "--tag", "book", code=6)
    assert [seen.json["input"] for seen in r.posts] == SENTENCES[:4]
    gateway.script(Normal(), Normal(), Status(400))
    r = world.run(
        *(
            "transcribe",
            "recordings/long.wav",
            "-m",
            "openai:whisper-1",
            "--max-piece",
            "10",
            "-f",
            "srt",
            *UNPRICED,
        ),
        *("-o", "recordings/long.srt", "-j", "1", "--tag", "long"),
        code=6,
    )
    assert len(r.posts) == 3
    gateway.script(Normal(), CutAfter(10))
    world.run("transcribe", "recordings/failed", "-f", "txt,srt", "-j", "1", "--tag", "failed", code=3)
    later = ("-g", "therouter", *UNPRICED, "--background", "--tag", "later", "-o")
    r = world.run("speak", "A chapter that is spoken later.", *later, "recordings/chapter.mp3")
    assert r.text == "aud_01\n", r.text
    r = world.run("transcribe", "recordings/talk.wav", *later, "recordings/talk.srt")
    assert r.text == "aud_02\n", r.text


def cache_refusals(world: World) -> None:
    """Request unsupported features, so that 0.1 caches the refusals."""
    transcription = ("transcribe", "recordings/talk.wav", "-m", "openrouter:deepgram/nova-3", "-f", "verbose_json")
    speech = ("speak", "Hi there.", "-m", "openrouter:google/gemini-3.8-flash-tts", "-v", "Kore", "-o", "hi.mp3")
    for command in (transcription, speech):
        assert len(world.run(*command).posts) == 2
    (world.root / "hi.mp3").unlink()


def collect_reports(world: World) -> dict[str, Any]:
    """Collect the reports of 0.1. Call it for a copy: a report settles the entries of processes that have ended."""
    usage = {name: world.run("usage", "--since", "all", *by, "--json").json for name, by in REPORTS.items()}
    entries = [json.loads(line) for line in world.run("usage", "list", "--since", "all", "--json").text.splitlines()]
    verified = world.run("usage", "verify", "--json").json
    models = [json.loads(line) for line in world.run("models", "--json").text.splitlines()]
    settings = world.run("config", "--json").json["settings"]
    keys = [json.loads(line) for line in world.run("keys", "list", "--json").text.splitlines()]
    return {
        "usage": usage,
        "entries": [[one["id"], one["outcome"], one["cost_usd"], one["tag"]] for one in entries],
        "verify": {name: verified[name] for name in ("ok", "entries", "cost_usd")},
        "models": models,
        "config": {one["name"]: one["value"] for one in settings},
        "keys": keys,
        "budget": world.run("budget", "--json").json,
        "jobs": [json.loads(line) for line in world.run("jobs", "--json").text.splitlines()],
    }


def main() -> None:
    root, archive = Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute()
    root.mkdir(parents=True)
    assert audiocli.__version__ == "0.1.0" and Path(audiocli.__file__).is_relative_to(CODE)
    with LoopbackGateway() as gateway:
        gateway.says(transcribe)
        world = World(root, gateway)
        make_recordings(root / "recordings")
        world.line.config(CONFIG)
        for name in NAMES:
            world.run("keys", "set", name, stdin=f"{KEYS[name]}\n".encode())
        time.sleep(2.1)  # 0.1 does not remember the hash of a file that is as young as this
        os.chdir(root)
        world.run("models", "--json")
        spend(world)
        cache_refusals(world)
        # With an absolute path; the directory that fails has a relative one. 0.1 stores both as they were typed.
        assert len(world.run("transcribe", str(root / "recordings" / "talks"), *BATCH).posts) == COUNT
        leave_unfinished(world)
        edited = next((root / "recordings" / "talks").glob("*.txt"))
        edited.write_text("Corrected by hand.\n", "utf-8")
        # The last of all: the next command under a budget would settle the entry of the killed process as unknown.
        interrupt(world)
        age_left_behind(world.line.ledger_path)
        close_databases(root)
        copy = root.with_name(root.name + "-copy")
        shutil.copytree(root, copy)
        expected = collect_reports(World(copy, gateway))
        shutil.rmtree(copy)
    text = json.dumps(expected, indent=1, ensure_ascii=False) + "\n"
    (root / "expected.json").write_text(text.replace(str(copy), "ROOT").replace(str(root), "ROOT"), "utf-8")
    (root / "made.json").write_text(json.dumps({"root": str(root), "at_s": time.time()}) + "\n", "utf-8")
    check_paths(root)
    with tarfile.open(archive, "w:xz", preset=9) as tar:
        for name in sorted(path.name for path in root.iterdir()):
            tar.add(root / name, name, filter=anonymous)
    print(f"{archive}: {archive.stat().st_size} bytes")  # noqa: T201


def age_left_behind(ledger: Path) -> None:
    """Make the entry of the killed process two days old, so that 0.1 settles it as unknown on any machine.

    Within a day it does so only on the machine where the process ran.
    """
    database = sqlite3.connect(ledger)
    with database:
        changed = database.execute(
            "UPDATE entries SET at_ms = at_ms - ? WHERE outcome = 'reserved' AND process NOT LIKE 'job %'",
            (2 * DAY_MS,),
        )
    assert changed.rowcount == 1
    database.close()


def close_databases(root: Path) -> None:
    for path in (root / "data").rglob("*.sqlite3"):
        database = sqlite3.connect(path)
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.close()


def check_paths(root: Path) -> None:
    """Check that absolute paths are only where the test replaces them."""
    found = {
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and str(root).encode() in path.read_bytes()
    }
    assert found == {"data/audiocli/manifest.sqlite3", "data/audiocli/ledger.sqlite3", "made.json"}, found


def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    main()
