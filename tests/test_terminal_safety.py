"""Text of gateways, files, options and the configuration reaches a terminal escaped, and JSON as `\\uXXXX`."""

from __future__ import annotations

import json
import os
import pty
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from audiocli.console import encode_json, escape_controls
from audiocli.mock import KEYS, MockTranscript, Status
from audiocli.outputs import open_output
from tests.conftest import CommandLine, Result
from tests.gateway_contract import SPEECH
from tests.programs import write_program

MARK = "Zq7"
# A color, a cleared screen, the clipboard (OSC 52), the same with C1 controls, DEL, NEL, bidi and line separators.
CONTROLS = (
    "\x1b[31m\x1b[2J\x1b]52;c;eA==\x07\x9b31m\x9d52;c;eA==\x9c\x7f\x85\x08\x00"
    "\u061c\u200e\u200f\u2028\u2029\u202a\u202e\u2066\u2069"
)
HOSTILE = f"{MARK}{CONTROLS}{MARK}"
# A file name or an argument has no NUL.
HOSTILE_NAME = HOSTILE.replace("\x00", "").replace("/", "")

RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
TERMINAL = {"TERM": "dumb"}

Surface: TypeAlias = Callable[[CommandLine, Path], list[str | Path]]


def answer(body: Any, *, method: str = "GET", code: int = 200) -> Callable[[CommandLine], None]:
    """Return a function that lets the mock gateway answer every request of a method with this body."""

    def prepare(cli: CommandLine) -> None:
        cli.gateway.add_default_fault(Status(code, body=body), method=method)

    return prepare


def write_recording(directory: Path, name: str = "talk.wav") -> Path:
    path = directory / name
    path.write_bytes(SPEECH)
    return path


MODELS = {
    "data": [
        {
            "id": f"x/{kind}-{HOSTILE}",
            "architecture": {"input_modalities": ["text", "audio"], "output_modalities": [modality]},
            "supported_voices": [HOSTILE],
            "pricing": {"prompt": HOSTILE, "completion": "0.1"},
            "expiration_date": HOSTILE,
        }
        for kind, modality in (("tts", "speech"), ("whisper", "transcription"), ("audio", "audio"))
    ]
}
ERRORS = {
    "message": {"error": {"code": 400, "message": HOSTILE}},
    "type": {"error": {"type": HOSTILE, "message": HOSTILE, "param": HOSTILE}},
    "metadata": {
        "error": {
            "code": 400,
            "message": "x",
            "metadata": {"raw": HOSTILE, "provider_name": HOSTILE, "reasons": [HOSTILE]},
        }
    },
    "zod": {
        "success": False,
        "error": {"name": "ZodError", "message": json.dumps([{"path": [HOSTILE], "message": "m"}])},
    },
    "detail": {"detail": [{"loc": ["body", HOSTILE], "msg": HOSTILE}]},
    "text": HOSTILE,
    "html": f"<html><title>{HOSTILE}</title></html>",
}
JOB = {"id": "aud_9", "status": "failed", "error": {"message": HOSTILE}}


def speak(*options: str) -> Surface:
    return lambda cli, path: ["speak", "hi", "-o", path / "x.mp3", *options]


def prepared(prepare: Callable[[CommandLine], None], *arguments: str) -> Surface:
    def build(cli: CommandLine, path: Path) -> list[str | Path]:
        prepare(cli)
        write_recording(path)
        return [argument.replace("{path}", str(path)) for argument in arguments]

    return build


def set_reply(cli: CommandLine) -> None:
    cli.gateway.chat_reply = HOSTILE


def set_transcript(cli: CommandLine) -> None:
    cli.gateway.transcript = MockTranscript(
        f"{HOSTILE} end", [(HOSTILE, 0.0, 0.5), ("end", 0.5, 1.0)], [(f"{HOSTILE} end", 0.0, 1.0)], HOSTILE
    )  # type: ignore[arg-type]


def set_openai_transcript(cli: CommandLine) -> None:
    cli.variables["OPENAI_API_KEY"] = KEYS["openai"]
    set_transcript(cli)


def list_models(cli: CommandLine) -> None:
    answer(MODELS)(cli)
    assert cli("models", "-g", "openrouter", "--refresh").code == 0


def submit_job(cli: CommandLine) -> None:
    cli.variables["THEROUTER_API_KEY"] = KEYS["therouter"]
    answer({**JOB, "status": "queued"}, method="POST", code=202)(cli)
    target = cli.directory / f"{HOSTILE_NAME}.mp3"
    r = cli("speak", "hi", "-m", f"therouter:openai/{HOSTILE_NAME}", "--background", "-o", target)
    assert r.code == 0, r.err
    answer(JOB)(cli)


def tag_entries(cli: CommandLine) -> None:
    answer(ERRORS["message"], method="POST", code=400)(cli)
    cli("speak", "hi", "-o", cli.directory / "x.mp3", "--tag", HOSTILE_NAME)
    cli.gateway.clear_faults()


def configure(text: str) -> Callable[[CommandLine], None]:
    # A TOML string escapes control characters as JSON does.
    return lambda cli: cli.write_config(text.replace("VALUE", json.dumps(HOSTILE)).replace("\x7f", "\\u007f"))


def install_player(cli: CommandLine) -> None:
    write_program(
        Path(cli.variables["PATH"]) / "mpv",
        f"#!/bin/sh\nprintf '%b' '{HOSTILE_NAME}' >&2\nexit 3\n",
    )


def name_files(cli: CommandLine) -> None:
    directory = cli.directory / "records"
    directory.mkdir(exist_ok=True)
    write_recording(directory, f"{HOSTILE_NAME}.wav")
    (directory / f"{HOSTILE_NAME}-damaged.mp3").write_bytes(b"RIFF")


def name_directories(cli: CommandLine) -> None:
    for name in ("CONFIG", "CACHE", "DATA"):
        cli.variables[f"XDG_{name}_HOME"] = str(cli.directory / HOSTILE_NAME)
    cli.variables["AUDIOCLI_LEDGER"] = str(cli.directory / HOSTILE_NAME / "ledger.sqlite3")


def damage_ledger(cli: CommandLine) -> None:
    name_directories(cli)
    cli.ledger_path.parent.mkdir()
    cli.ledger_path.write_bytes(b"not a database" * 100)


def edit_ledger(cli: CommandLine) -> None:
    """Write hostile values into an entry and a job, as another program might."""
    submit_job(cli)
    cli("speak", "hi", "-o", cli.directory / "x.mp3")
    database = sqlite3.connect(cli.ledger_path)
    for name in ("command", "gateway", "model", "tag", "error", "request_id", "generation_id"):
        database.execute(f"UPDATE entries SET {name} = ?", (HOSTILE_NAME,))
    database.execute("UPDATE jobs SET details = json_set(details, '$.model', ?, '$.status', ?)", (HOSTILE_NAME,) * 2)
    database.commit()
    database.close()


def stream_error(cli: CommandLine) -> None:
    event = f"data: {json.dumps(ERRORS['message'], ensure_ascii=False)}\n\n"
    cli.gateway.add_default_fault(Status(200, body=event, content_type="text/event-stream"))


def fail_batch(cli: CommandLine) -> None:
    """Leave a failure in the manifest that may have been billed."""
    name_files(cli)
    answer({"error": {"message": HOSTILE}}, method="POST")(cli)
    assert cli("transcribe", cli.directory / "records").code == 3
    cli.gateway.clear_faults()


# A header can hold C1 controls, but not the other ones.
HOSTILE_HEADER = f"{MARK}\x9b31m\x9d52;c;eA==\x9c\x85{MARK}"


def answer_with_headers(cli: CommandLine) -> None:
    headers = dict.fromkeys(("Retry-After", "X-Request-Id", "X-Generation-Id", "Location"), HOSTILE_HEADER)
    body = b"not audio" * 20
    cli.gateway.add_default_fault(Status(200, body=body, headers=headers, content_type=f"x/{HOSTILE_HEADER}"))


def damage_stores(cli: CommandLine) -> None:
    """Put hostile text into the cached model list and the cached refusals."""
    list_models(cli)
    for path in (Path(cli.variables["XDG_CACHE_HOME"]) / "audiocli" / "models").iterdir():
        path.write_bytes(json.dumps(MODELS).encode())


SURFACES: dict[str, Surface] = {
    **{
        f"error {name} of {command}": prepared(answer(body, method="POST", code=400), *arguments)
        for name, body in ERRORS.items()
        for command, arguments in {
            "speak": ("speak", "hi", "-o", "{path}/x.mp3"),
            "transcribe": ("transcribe", "{path}/talk.wav"),
            "chat": ("chat", "hi"),
        }.items()
    },
    "error with status 200": prepared(answer(ERRORS["message"], method="POST"), "speak", "hi", "-o", "{path}/x.mp3"),
    "error of model list": prepared(answer(ERRORS["message"], code=500), "models", "-g", "openrouter"),
    "error of check": prepared(answer(ERRORS["message"], code=500), "config", "check"),
    "streamed reply": prepared(set_reply, "chat", "hi"),
    "complete reply": prepared(set_reply, "chat", "hi", "--no-stream"),
    "spoken reply": prepared(set_reply, "chat", "hi", "-o", "{path}/x.wav"),
    "transcript": prepared(set_transcript, "transcribe", "{path}/talk.wav"),
    "captions": prepared(set_transcript, "transcribe", "{path}/talk.wav", "-f", "srt"),
    "transcript as json": prepared(set_transcript, "transcribe", "{path}/talk.wav", "-f", "json"),
    "raw transcript": prepared(set_transcript, "transcribe", "{path}/talk.wav", "-f", "verbose_json"),
    "model list": prepared(list_models, "models", "-g", "openrouter"),
    "similar models": prepared(list_models, "speak", "hi", "-m", f"openrouter:x/tts-{MARK}", "-o", "{path}/x.mp3"),
    "voices of all models": prepared(list_models, "voices", "-g", "openrouter"),
    "jobs": prepared(submit_job, "jobs"),
    "job": prepared(submit_job, "jobs", "show", "aud_9"),
    "failed job": prepared(submit_job, "jobs", "wait", "aud_9"),
    "unknown job": prepared(submit_job, "jobs", "show", HOSTILE_NAME),
    "entries": prepared(tag_entries, "usage", "list"),
    "entries by tag": prepared(tag_entries, "usage", "--by", "tag"),
    "configured model": prepared(configure("[speak]\nmodels = [VALUE]\nvoice = VALUE\n"), "config"),
    "configured voice": prepared(configure("[voices]\nVALUE = VALUE\n"), "config"),
    "configured gateway": prepared(configure("[gateways.VALUE]\nbase_url = VALUE\n"), "config"),
    "checked gateway": prepared(configure("[gateways.VALUE]\nbase_url = VALUE\n"), "config", "check"),
    "unknown key of configuration": prepared(configure("[speak]\nVALUE = 1\n"), "config"),
    "missing key variable": prepared(
        configure("[gateways.x]\nbase_url = 'http://127.0.0.1:1'\nkey_env = VALUE\n"),
        "speak",
        "hi",
        "-m",
        "x:y",
        "-o",
        "{path}/x.mp3",
    ),
    "unknown format": speak("-f", HOSTILE_NAME),
    "unknown gateway": speak("-g", HOSTILE_NAME),
    "unknown voice": speak("-m", "openrouter:hexgrad/kokoro-82m", "-v", HOSTILE_NAME),
    "option": speak("--option", HOSTILE_NAME),
    "base URL": speak("--base-url", HOSTILE_NAME),
    "output directory": lambda cli, path: ["speak", "hi", "-o", path / HOSTILE_NAME / "x" / "y.mp3"],
    "output file": lambda cli, path: ["speak", "hi", "-o", path / f"{HOSTILE_NAME}.mp3"],
    "missing recording": lambda cli, path: ["transcribe", path / HOSTILE_NAME],
    "missing text": lambda cli, path: ["speak", "-F", path / HOSTILE_NAME, "-o", path / "x.mp3"],
    "batch": prepared(name_files, "transcribe", "{path}/records"),
    "unknown command": lambda cli, path: [HOSTILE_NAME],
    "unknown option": lambda cli, path: ["usage", f"--{HOSTILE_NAME}"],
    "unknown date": lambda cli, path: ["usage", "--since", HOSTILE_NAME],
    "unknown key": lambda cli, path: ["keys", "set", HOSTILE_NAME],
    "directories": prepared(name_directories, "config", "check"),
    "damaged ledger": prepared(damage_ledger, "usage"),
    "ledger set aside": prepared(damage_ledger, "speak", "hi", "-o", "{path}/x.mp3"),
    "edited entries": prepared(edit_ledger, "usage", "list"),
    "edited entries by model": prepared(edit_ledger, "usage", "--by", "model"),
    "edited entries by gateway": prepared(edit_ledger, "usage", "--by", "gateway"),
    "edited job": prepared(edit_ledger, "jobs"),
    "edited job in detail": prepared(edit_ledger, "jobs", "show", "aud_9"),
    "error in a stream": prepared(stream_error, "chat", "hi"),
    "error in a stream of audio": prepared(stream_error, "chat", "hi", "-o", "{path}/x.wav"),
    "stored failure": prepared(fail_batch, "transcribe", "{path}/records"),
    "streamed transcript": prepared(
        set_openai_transcript, "transcribe", "{path}/talk.wav", "--stream", "-m", "openai:gpt-4o-mini-transcribe"
    ),
    "headers of speech": prepared(answer_with_headers, "speak", "hi", "-o", "{path}/x.mp3"),
    "headers of a transcript": prepared(answer_with_headers, "transcribe", "{path}/talk.wav"),
    "damaged model list": prepared(damage_stores, "models", "-g", "openrouter"),
    "query for models": lambda cli, path: ["models", "-g", "openrouter", HOSTILE_NAME],
    "query for voices": lambda cli, path: ["voices", HOSTILE_NAME],
    "text of a plan": lambda cli, path: ["speak", HOSTILE_NAME, "-v", HOSTILE_NAME, "-n", "-o", path / "x.mp3"],
    "text that is a file name": lambda cli, path: ["speak", HOSTILE_NAME, "-f", HOSTILE_NAME, "-o", path / "x.mp3"],
    "language": prepared(lambda cli: None, "transcribe", "{path}/talk.wav", "-l", HOSTILE_NAME),
    "speaker": prepared(lambda cli: None, "transcribe", "{path}/talk.wav", "--speaker", f"{HOSTILE_NAME}=missing.wav"),
    "glob": prepared(lambda cli: None, "transcribe", f"{{path}}/{HOSTILE_NAME}*.wav"),
    "URL": prepared(lambda cli: None, "transcribe", f"https://example.org/{HOSTILE_NAME}"),
    "captions path": lambda cli, path: ["speak", "hi", "--captions", f"{HOSTILE_NAME}.txt", "-o", path / "x.mp3"],
    "player program": lambda cli, path: ["speak", "hi", "--player", f"'{HOSTILE_NAME}'"],
    "recording of a message": lambda cli, path: ["chat", "hi", "-a", path / HOSTILE_NAME],
    "unknown shell": lambda cli, path: ["completion", HOSTILE_NAME],
    "hint about a hyphen": lambda cli, path: ["speak", f"-5 {HOSTILE_NAME}"],
    "missing configuration": prepared(lambda cli: cli.variables.update(AUDIOCLI_CONFIG=f"/{HOSTILE_NAME}"), "config"),
    "player": prepared(install_player, "speak", "hi", "--play", "--player", "mpv"),
}


@pytest.mark.parametrize("name", SURFACES)
def test_foreign_text_is_escaped_on_a_terminal(audiocli: CommandLine, tmp_path: Path, name: str) -> None:
    arguments = SURFACES[name](audiocli, tmp_path)
    shown = ""
    for options in (["--json"], ["--debug"]):
        r: Result = audiocli(*arguments, *options, terminal="out err", variables=TERMINAL)
        text = r.out.decode() + r.err
        found = RAW.search(text)
        assert found is None, f"{options}: {text[max(0, found.start() - 80) : found.start() + 20]!r}"
        assert r.code != 1, r.err
        shown += text

    assert MARK in shown  # the text does reach the terminal


@pytest.mark.parametrize("name", SURFACES)
def test_json_in_a_pipe_has_no_raw_controls(audiocli: CommandLine, tmp_path: Path, name: str) -> None:
    arguments = SURFACES[name](audiocli, tmp_path)

    r = audiocli(*arguments, "--json")

    for line in [*r.text.split("\n"), *(line for line in r.err.split("\n") if line.startswith("{"))]:
        if line:
            assert RAW.search(line) is None
            json.loads(line)


@pytest.mark.parametrize("character", sorted(set(CONTROLS) | {"\n", "\t", "\x1f", "\x80", "\x9f"}))
def test_json_escapes_each_control_and_keeps_the_data(character: str) -> None:
    document = {f"name{character}": [f"text{character}", "é漢😀"]}

    line = encode_json(document)

    assert RAW.search(line.decode().removesuffix("\n")) is None and line.count(b"\n") == 1
    assert json.loads(line) == document
    assert "é漢😀".encode() in line


def test_json_escapes_controls_beside_a_name_that_is_not_utf8() -> None:
    line = encode_json({"path": os.fsdecode(b"\xff\x7f\xc2\x9b")})

    assert RAW.search(line.decode().removesuffix("\n")) is None
    assert json.loads(line) == {"path": "\udcff\x7f\x9b"}


@pytest.mark.parametrize("text", ["tab\tand\nline", "é漢😀", "\u200c\u200d", "עברית العربية"])
def test_text_without_controls_is_unchanged(text: str) -> None:
    assert escape_controls(text) == text


def read_block(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""


def read_terminal(descriptor: int) -> str:
    """Return all that was written, after the other end is closed; one read may return a part of it."""
    return b"".join(iter(lambda: read_block(descriptor), b"")).decode()


async def write_to_terminal(path: Path, blocks: list[bytes], directory: Path) -> None:
    output = await open_output(path, rescue_directory=directory, binary=False)
    for block in blocks:
        await output.write(block)
    await output.commit()


def test_text_output_that_is_a_terminal_is_escaped(tmp_path: Path) -> None:
    import asyncio

    master, slave = pty.openpty()
    content = f"é {HOSTILE}".encode()
    try:
        # Every split, also within a character.
        blocks = [content[index : index + 1] for index in range(len(content))]
        try:
            asyncio.run(write_to_terminal(Path(os.ttyname(slave)), blocks, tmp_path))
        finally:
            os.close(slave)
        shown = read_terminal(master)
    finally:
        os.close(master)

    assert shown.startswith(f"é {MARK}") and shown.endswith(MARK) and RAW.search(shown) is None


def test_completion_omits_names_with_controls(audiocli: CommandLine, tmp_path: Path) -> None:
    list_models(audiocli)
    names = Path(audiocli.variables["XDG_CACHE_HOME"]) / "audiocli" / "completion.txt"
    names.write_text(names.read_text("utf-8") + "speech\topenrouter:good/model\tvoice\n", "utf-8")

    completed = subprocess.run(
        [sys.executable, "-m", "audiocli", "--complete", "models", ""],
        env=audiocli.variables,
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        check=True,
    ).stdout.decode()

    assert "openrouter:good/model\n" in completed and RAW.search(completed) is None


PROCESS_SURFACES = [
    "error message of speak",
    "streamed reply",
    "transcript",
    "missing recording",
    "hint about a hyphen",
]


@pytest.mark.parametrize("name", PROCESS_SURFACES)
@pytest.mark.parametrize("options", [[], ["--debug"], ["--json"]], ids=["text", "debug", "json"])
def test_process_on_a_terminal_writes_no_raw_controls(
    audiocli: CommandLine, tmp_path: Path, name: str, options: list[str]
) -> None:
    arguments = SURFACES[name](audiocli, tmp_path)
    master, slave = pty.openpty()
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "audiocli", *map(str, arguments), *options],
            env={**audiocli.variables, **TERMINAL},
            cwd=Path(__file__).parent.parent,
            stdin=slave,
            stdout=slave,
            stderr=slave,
        ) as process:
            os.close(slave)
            shown = read_terminal(master)
    finally:
        os.close(master)

    assert process.returncode not in (1, None) and MARK in shown
    found = RAW.search(shown.replace("\r\n", "\n"))
    assert found is None, repr(shown[max(0, found.start() - 80) : found.start() + 20])
