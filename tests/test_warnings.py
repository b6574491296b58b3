"""Warnings: each one that is printed is also in `warnings` of the JSON result, on every command."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from audiocli.mock import ChatFault, OtherFormat, Status, SubstituteModel
from tests.conftest import CommandLine, Result
from tests.gateway_contract import SPEECH, read_warnings
from tests.small_server import Answer, serve

TALK = "talk.wav"


class Case(NamedTuple):
    """A command that warns. `expected` is a part of the warning; `set_up` prepares one run."""

    expected: str
    argv: tuple[str, ...]
    set_up: Callable[[CommandLine], None] = lambda _: None
    stdin: bytes | None = None


def write_text_file(cli: CommandLine) -> None:
    (cli.directory / "notes.txt").write_text("Hello")


def damage_ledger(cli: CommandLine) -> None:
    cli.ledger_path.parent.mkdir(parents=True, exist_ok=True)
    cli.ledger_path.write_bytes(b"not a database" * 500)


def write_protected_output(cli: CommandLine) -> None:
    (cli.directory / "talk.txt").write_text("mine")


def truncate_recording(cli: CommandLine) -> None:
    (cli.directory / "cut.wav").write_bytes(SPEECH[:-20_000])


def send_other_format(cli: CommandLine) -> None:
    cli.gateway.queue_faults(OtherFormat("flac"))


def substitute_model(cli: CommandLine) -> None:
    cli.gateway.queue_faults(SubstituteModel())


def stop_at_the_limit(cli: CommandLine) -> None:
    cli.gateway.queue_faults(ChatFault(finish_reason="length"))


def fail_first_route(cli: CommandLine) -> None:
    cli.gateway.queue_faults(Status(404))


NOVA = ("-m", "openrouter:deepgram/nova-3")
UNTIMED = ("--timestamps", "none")
OUT = ("-o", "out.mp3")
SPEAK = [
    Case("speaking the words", ("speak", "notes.txt", *OUT), write_text_file),
    Case("--instructions has no effect", ("speak", "Hi", "-i", "calm", "-m", "openai:tts-1", *OUT)),
    Case("--speed may have no effect", ("speak", "Hi", "-x", "2", "-m", "openrouter:hexgrad/kokoro-82m", *OUT)),
    Case("--option top_k has no effect", ("speak", "Hi", "--option", "top_k=1", *OUT)),
    Case("splitting inside words", ("speak", "x" * 90, "--max-chars", "40", *OUT)),
    Case("the gateway sent flac instead of mp3", ("speak", "Hi", *OUT), send_other_format),
    Case("served the request with", ("speak", "Hi", "-m", "therouter:openai/tts-1", *OUT), substitute_model),
    Case("--instructions has no effect", ("speak", "Hi", "-i", "calm", "-m", "openai:tts-1", "-n", *OUT)),
    Case(
        "without encryption",
        ("speak", "Hi", "-m", "openai:tts-1", "--base-url", "http://speech.example.com/v1", "-n", *OUT),
    ),
    Case("is damaged", ("speak", "Hi", *OUT), damage_ledger),
    # The warning of a route that failed is printed, and another route serves.
    Case(
        "openai:tts-1",
        ("speak", "Hi", "-i", "calm", "-m", "openai:tts-1", "-m", "openrouter:hexgrad/kokoro-82m", *OUT),
        fail_first_route,
    ),
    Case("is set and is used instead of the stored key", ("keys", "set", "openrouter"), stdin=b"sk-or-test"),
    Case("was not verified", ("keys", "set", "home"), stdin=b"any-key"),
]
TRANSCRIBE = [
    Case("--stream has no effect", ("transcribe", TALK, "--stream", "-m", "openai:whisper-1")),
    Case("--prompt has no effect", ("transcribe", TALK, "-p", "names", *NOVA, *UNTIMED)),
    Case("--speaker has no effect", ("transcribe", TALK, "--speaker", "Ann", "-m", "openai:whisper-1")),
    Case(
        "--prompt has no effect",
        ("transcribe", TALK, "-p", "names", *NOVA, "-n", *UNTIMED),
    ),
    Case("left unchanged", ("transcribe", TALK, "-f", "txt,srt", "-m", "openai:whisper-1"), write_protected_output),
    Case("breaks off", ("transcribe", "cut.wav", "-m", "openai:whisper-1"), truncate_recording),
    Case("timed by chunk", ("transcribe", TALK, "-f", "srt", "-m", "openrouter:deepgram/nova-3")),
    Case("is damaged", ("transcribe", TALK, "-m", "openai:whisper-1"), damage_ledger),
]
CHAT = [
    Case("--voice has no effect", ("chat", "Hi", "-v", "alloy")),
    Case("maximum number of tokens", ("chat", "Hi"), stop_at_the_limit),
]


def run(cli: CommandLine, case: Case, *flags: str) -> Result:
    """Run a case in a world of its own."""
    world = cli.directory / ("json" if flags else "text")
    world.mkdir()
    separate = replace(cli, directory=world, variables={**cli.variables})
    separate.variables |= {name: str(world / name) for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")}
    separate.variables["AUDIOCLI_LEDGER"] = str(world / "ledger.sqlite3")
    separate.write_config(f'[gateways.home]\nbase_url = "{cli.gateway.base_url("plain")}"')
    (world / TALK).write_bytes(SPEECH)
    case.set_up(separate)
    files = {"notes.txt", TALK, "cut.wav", "out.mp3"}
    argv = [word if index == 1 and case.argv[0] == "speak" else str(world / word) if word in files else word
            for index, word in enumerate(case.argv)]  # fmt: skip
    return separate(*argv, *flags, stdin=case.stdin)


@pytest.mark.parametrize("case", [*SPEAK, *TRANSCRIBE, *CHAT], ids=lambda case: f"{case.argv[0]} {case.expected[:30]}")
def test_printed_warnings_are_in_the_json_result(
    all_gateways_cli: CommandLine, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(all_gateways_cli.directory)
    write_text_file(all_gateways_cli)  # the name of a file that is spoken is relative

    text, as_json = run(all_gateways_cli, case), run(all_gateways_cli, case, "--json")

    def strip_world(warning: str) -> str:
        for world in ("text", "json"):
            warning = warning.replace(f"{all_gateways_cli.directory / world}/", "")
        return re.sub(r"damaged-\d{8}-\d{6}", "damaged-TIME", warning)

    printed = [strip_world(warning) for warning in read_warnings(text)]
    assert text.code == as_json.code, text.err + as_json.err
    assert any(case.expected in warning for warning in printed), text.err
    assert sorted({strip_world(warning) for warning in as_json.json["warnings"]}) == sorted(set(printed))
    assert len(as_json.json["warnings"]) == len(set(as_json.json["warnings"]))


def read_lines(r: Result) -> tuple[list[dict[str, object]], dict[str, object]]:
    """Return the items and the summary of a batch."""
    *items, summary = [json.loads(line) for line in r.text.splitlines()]
    return items, summary


def test_warnings_of_a_batch_are_in_their_items_and_in_the_summary(
    all_gateways_cli: CommandLine, tmp_path: Path
) -> None:
    manifest_path = Path(all_gateways_cli.variables["XDG_DATA_HOME"]) / "audiocli" / "manifest.sqlite3"
    manifest_path.parent.mkdir(parents=True, exist_ok=True)
    manifest_path.write_bytes(b"not a database" * 500)
    truncate_recording(all_gateways_cli)
    argv = ("transcribe", TALK, "cut.wav", "--stream", "-p", "names", "-m", "openrouter:deepgram/nova-3", "-j", "1")

    argv = tuple(str(tmp_path / word) if word.endswith(".wav") else word for word in argv)
    r = all_gateways_cli(*argv, "-f", "txt", "--timestamps", "none", "--json")

    items, summary = read_lines(r)
    warnings = {Path(str(item["source"])).name: item["warnings"] for item in items}
    assert r.code == 3, r.err
    assert "breaks off" in str(warnings["cut.wav"])
    assert "breaks off" not in str(warnings[TALK])
    assert all("--prompt has no effect" in str(texts) for texts in warnings.values())
    assert "--stream has no effect" in str(summary["warnings"])
    assert "the manifest is damaged" in str(summary["warnings"])
    assert "breaks off" not in str(summary["warnings"])


def test_warning_about_one_request_of_a_batch_is_in_its_item(audiocli: CommandLine, tmp_path: Path) -> None:
    def answer(request: object) -> Answer:
        return Answer(200, {"text": "Hello there"}, (("x-litellm-response-cost", "cheap"),))

    names = [tmp_path / name for name in ("a.wav", "b.wav")]
    for name in names:
        name.write_bytes(SPEECH + bytes(len(name.name) + ord(name.name[0])))
    with serve(answer) as server:
        audiocli.write_config(f'[gateways.home]\nbase_url = "{server.url}"')
        r = audiocli("transcribe", *names, "-m", "home:whisper", "-f", "txt", "--json")

    items, summary = read_lines(r)
    assert (r.code, len(items)) == (0, 2), r.err
    for item in items:
        assert [warning for warning in item["warnings"] if "invalid cost" in warning], item  # type: ignore[attr-defined]
    assert "invalid cost" not in str(summary.get("warnings"))


def test_invalid_cost_is_a_warning_of_the_result(audiocli: CommandLine, tmp_path: Path) -> None:
    with serve(lambda _: Answer(200, SPEECH, (("x-litellm-response-cost", "cheap"),))) as server:
        audiocli.write_config(f'[gateways.home]\nbase_url = "{server.url}"')
        r = audiocli("speak", "Hello there", "-m", "home:tts", "-o", tmp_path / "x.wav", "--json")

    assert any("invalid cost" in warning for warning in r.json["warnings"])


def test_error_object_has_the_warnings_before_it(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.add_default_fault(Status(404))

    text, as_json = (
        audiocli("speak", "Hi", "--option", "top_k=1", "-o", tmp_path / "x.mp3", *flags) for flags in ((), ("--json",))
    )

    assert (text.code, as_json.code) == (6, 6)
    assert as_json.err_json["warnings"] == read_warnings(text) != []


def test_warnings_of_a_background_job_are_in_its_result(all_gateways_cli: CommandLine, tmp_path: Path) -> None:
    argv = ("speak", "Hi", "-m", "therouter:openai/tts-1", "-i", "calm", "--background", "--wait")
    text, as_json = (
        all_gateways_cli(*argv, "-o", tmp_path / f"{len(flags)}.mp3", *flags) for flags in ((), ("--json",))
    )

    assert (text.code, as_json.code) == (0, 0), text.err + as_json.err
    assert "--instructions has no effect" in str(read_warnings(text))
    assert as_json.json["warnings"] == read_warnings(text)


def test_quiet_suppresses_warnings_but_not_in_json(audiocli: CommandLine, tmp_path: Path) -> None:
    argv = ("speak", "Hi", "--option", "top_k=1", "-o", tmp_path / "x.mp3", "-q")

    assert audiocli(*argv).err == ""
    assert len(audiocli(*argv, "--json").json["warnings"]) == 1
