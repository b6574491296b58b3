"""`--record` and `--replay`: recordings without secrets, from which a command runs again without a network."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiocli.exchanges.matching import build_key, describe_difference
from audiocli.exchanges.secret_remover import HOLD_BYTES, SecretRemover
from audiocli.gateways.request_bodies import build_json_body, build_multipart_body
from audiocli.mock import KEYS, CutAfter, CutBeforeResponse, Empty, RateLimitBurst, Status
from audiocli.types.requests import HttpRequest
from tests.conftest import CommandLine, Result
from tests.gateway_contract import GATEWAYS, SPEECH, GatewayUnderTest, build_app_context, build_wav
from tests.requirements import skip_without_namespaces

if TYPE_CHECKING:
    from audiocli.core.run_context import RunContext

PASSWORD = "pa55/Wörd+x"
SPEAK = ("speak", "hello world", "-m", "openrouter:hexgrad/kokoro-82m")


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return tmp_path / "recording"


def read_exchanges(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text("utf-8")) for path in sorted(directory.glob("[0-9]*.json"))]


def build_other_variables(audiocli: CommandLine) -> dict[str, str]:
    """Return the environment of another user, without keys and base URLs."""
    home = audiocli.directory / "other"
    return {
        "PATH": os.environ["PATH"],
        "TMPDIR": audiocli.variables["TMPDIR"],
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_CACHE_HOME": str(home / "cache"),
    }


def replay(audiocli: CommandLine, *argv: str | Path, **options: Any) -> Result:
    """Replay a command line as another user. Nothing is sent, and nothing remains in the directories of that user."""
    variables = {**build_other_variables(audiocli), "AUDIOCLI_LEDGER": str(audiocli.directory / "other" / "ledger")}
    result = CommandLine(audiocli.directory, audiocli.gateway, variables)(*argv, **options)
    assert result.requests == [] and result.ledger == []
    assert not (audiocli.directory / "other").exists()
    return result


def without_times(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in ("elapsed_s", "first_byte_s", "output")}


# --- a session that is recorded and replayed -------------------------------------------------------------------------


def test_session_with_three_faults_is_replayed_with_the_same_outputs(
    audiocli: CommandLine, recording: Path, tmp_path: Path
) -> None:
    audiocli.gateway.queue_faults(RateLimitBurst(1, retry_after=7), CutAfter(500), Status(500))
    command = (*SPEAK, "--retry-unknown", "--json")

    recorded = audiocli(*command, "-o", tmp_path / "a.mp3", "--record", recording)
    replayed = replay(audiocli, *command, "-o", tmp_path / "b.mp3", "--replay", recording)

    assert (recorded.code, replayed.code) == (0, 0), recorded.err + replayed.err
    assert len(recorded.posts) == 4 and len(recorded.ledger) == 4
    assert (tmp_path / "a.mp3").read_bytes() == (tmp_path / "b.mp3").read_bytes()
    assert without_times(replayed.json) == {**without_times(recorded.json), "replayed": True}
    assert 7 in recorded.waits_s and replayed.waits_s == []


def test_replay_timing_waits_as_long_as_the_gateway(audiocli: CommandLine, recording: Path, tmp_path: Path) -> None:
    audiocli.gateway.queue_faults(RateLimitBurst(1, retry_after=7))
    audiocli(*SPEAK, "-o", tmp_path / "a.mp3", "--record", recording)

    replayed = replay(audiocli, *SPEAK, "-o", tmp_path / "b.mp3", "--replay", recording, "--replay-timing")

    heads_s = [exchange["response"]["head_s"] for exchange in read_exchanges(recording)]
    assert replayed.code == 0
    assert 7 in replayed.waits_s and {wait_s for wait_s in heads_s if wait_s} <= set(replayed.waits_s)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        pytest.param(CutAfter(100), 7, id="cut"),
        pytest.param(CutBeforeResponse(), 7, id="closed"),
        pytest.param(Status(401), 4, id="refused key"),
        pytest.param(Status(400, message="no such thing"), 6, id="refused"),
        pytest.param(Empty(), 9, id="empty"),
        pytest.param(None, 7, id="unreachable"),
    ],
)
def test_failure_is_replayed_as_the_same_error(
    audiocli: CommandLine, recording: Path, tmp_path: Path, fault: Any, code: int
) -> None:
    options: list[str] = []
    if fault is None:
        options = ["--base-url", "http://127.0.0.1:9/v1"]
    else:
        audiocli.gateway.queue_faults(fault)
    command = (*SPEAK, "-o", tmp_path / "a.mp3", "--json", *options)

    recorded = audiocli(*command, "--record", recording)
    replayed = replay(audiocli, *command, "--replay", recording)

    assert recorded.code == code, recorded.err
    assert replayed.err_json == {**recorded.err_json, "replayed": True}


def test_command_is_replayed_without_a_network_in_its_own_process(
    audiocli: CommandLine, recording: Path, tmp_path: Path
) -> None:
    audiocli(*SPEAK, "-o", tmp_path / "a.mp3", "--record", recording)
    namespace = skip_without_namespaces("-r", "-n")

    program = [sys.executable, "-m", "audiocli", *SPEAK, "-o", str(tmp_path / "b.mp3"), "--replay", str(recording)]
    done = subprocess.run(
        [*namespace, *program],
        env=build_other_variables(audiocli),
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    assert done.stderr.rstrip().endswith("replayed")
    assert (tmp_path / "a.mp3").read_bytes() == (tmp_path / "b.mp3").read_bytes()


def test_default_gateway_and_base_url_are_those_of_the_recording(
    all_gateways_cli: CommandLine, recording: Path, tmp_path: Path
) -> None:
    command = ("speak", "hi", "-m", "home:tts-1", "-o", tmp_path / "a.mp3")
    recorded = all_gateways_cli(*command, "--record", recording)
    default = all_gateways_cli("transcribe", tmp_path / "talk.wav", "--record", recording)
    assert (recorded.code, default.code) == (0, 0), recorded.err + default.err

    assert replay(all_gateways_cli, *command, "--replay", recording).code == 0
    transcript = replay(all_gateways_cli, "transcribe", tmp_path / "talk.wav", "--replay", recording)
    assert transcript.out == default.out


@pytest.mark.parametrize(
    "command",
    [
        ("models",),
        ("voices",),
        ("chat", "hello"),
        ("transcribe", "{path}/talk.wav", "-f", "vtt"),
        ("transcribe", "{path}/talk.wav", "-g", "therouter", "--background", "--wait", "-f", "vtt"),
    ],
    ids=lambda command: " ".join(command).replace("{path}/", ""),
)
def test_output_of_other_commands_is_replayed(
    all_gateways_cli: CommandLine, recording: Path, command: tuple[str, ...]
) -> None:
    arguments = all_gateways_cli.expand(command)

    recorded = all_gateways_cli(*arguments, "--record", recording)
    replayed = replay(all_gateways_cli, *arguments, "--replay", recording)

    assert recorded.code == 0, recorded.err
    assert (replayed.code, replayed.out) == (0, recorded.out), replayed.err
    assert f"note: replayed from {recording}; nothing is sent\n" in replayed.err


def test_reconciliation_is_replayed_where_the_ledger_has_no_entries(
    audiocli: CommandLine, recording: Path, tmp_path: Path
) -> None:
    audiocli.gateway.billing.generation_misses = 10
    audiocli(*SPEAK, "-o", tmp_path / "a.mp3")
    audiocli.gateway.billing.generation_misses = 0

    recorded = audiocli("usage", "reconcile", "--since", "7d", "--record", recording)
    replayed = replay(audiocli, "usage", "reconcile", "--since", "7d", "--replay", recording)

    assert recorded.out.startswith(b"1 of 1 corrected"), recorded.err
    assert (replayed.code, replayed.out) == (0, recorded.out), replayed.err


def test_reconciliation_fails_if_the_recording_lacks_its_request(
    audiocli: CommandLine, recording: Path, tmp_path: Path
) -> None:
    audiocli.gateway.billing.generation_misses = 10
    audiocli(*SPEAK, "-o", tmp_path / "a.mp3")
    audiocli.gateway.billing.generation_misses = 0
    audiocli("usage", "reconcile", "--since", "7d", "--record", recording)
    for path in recording.glob(EXCHANGE):
        path.unlink()

    r = replay(audiocli, "usage", "reconcile", "--since", "7d", "--replay", recording)

    assert r.code == 2 and "has no exchange for GET" in r.err, (r.err, r.out)


def test_check_of_the_keys_is_replayed(all_gateways_cli: CommandLine, recording: Path) -> None:
    def list_keys(result: Result) -> list[object]:
        checks = [check for check in result.json["checks"] if check["check"].startswith(("key", "gateway"))]
        return [(check["check"], check["status"], check.get("verified"), check.get("credit_usd")) for check in checks]

    recorded = all_gateways_cli("config", "check", "--json", "--record", recording)
    replayed = replay(all_gateways_cli, "config", "check", "--json", "--replay", recording)

    assert replayed.json["replayed"] is True
    assert len(list_keys(recorded)) > 3 and list_keys(replayed) == list_keys(recorded), replayed.err


@pytest.mark.parametrize(("fault", "code"), [(None, 0), (Status(401), 4)], ids=["accepted", "refused"])
def test_replay_of_a_verified_key_stores_no_key(
    audiocli: CommandLine, recording: Path, fault: Status | None, code: int
) -> None:
    key = KEYS["openrouter"] or ""
    if fault is not None:
        audiocli.gateway.add_default_fault(fault, method="GET")

    recorded = audiocli("keys", "set", "openrouter", "--record", recording, stdin=key.encode())
    replayed = replay(audiocli, "keys", "set", "openrouter", "--replay", recording, stdin=b"sk-or-another-key")

    assert (recorded.code, replayed.code) == (code, code), replayed.err
    assert fault is not None or "a replay does not store the key for openrouter" in replayed.err
    assert all(key.encode() not in path.read_bytes() for path in recording.iterdir())


def test_finished_job_is_replayed_where_the_ledger_does_not_know_it(
    audiocli: CommandLine, recording: Path, tmp_path: Path
) -> None:
    audiocli.variables["THEROUTER_API_KEY"] = KEYS["therouter"] or ""
    submitted = audiocli("speak", "hi", "-g", "therouter", "--background", "--json", "-o", tmp_path / "job.mp3")
    job_id = submitted.json["job"]["id"]

    recorded = audiocli("jobs", "wait", job_id, "--record", recording, "-o", tmp_path / "a.mp3")
    replayed = replay(audiocli, "jobs", "wait", job_id, "--replay", recording, "-o", tmp_path / "b.mp3")

    assert recorded.code == 0, recorded.err
    assert replayed.code == 0, replayed.err
    assert (tmp_path / "a.mp3").read_bytes() == (tmp_path / "b.mp3").read_bytes()


def test_batch_is_replayed_whatever_the_order_of_its_requests(
    audiocli: CommandLine, recording: Path, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(12):
        (tmp_path / "in" / f"{number:02}.wav").write_bytes(build_wav(bytes([number, 1]) * 12_000))
    audiocli.gateway.queue_faults(RateLimitBurst(2, retry_after=1), Status(500))
    command = ("transcribe", tmp_path / "in", "-j", "8", "-f", "txt,vtt")

    recorded = audiocli(*command, "-O", tmp_path / "a", "--record", recording)
    replayed = [replay(audiocli, *command, "-O", tmp_path / name, "--replay", recording) for name in ("b", "c")]

    assert recorded.code == 0, recorded.err
    assert len(list((tmp_path / "a").rglob("*.*"))) == 24
    for result, name in zip(replayed, ("b", "c"), strict=True):
        assert result.code == 0, result.err
        for path in (tmp_path / "a").rglob("*.*"):
            assert path.read_bytes() == (tmp_path / name / path.relative_to(tmp_path / "a")).read_bytes()


def test_recording_leaves_the_paid_result_and_the_ledger_entry(
    audiocli: CommandLine, recording: Path, tmp_path: Path
) -> None:
    audiocli(*SPEAK, "-o", tmp_path / "a.mp3", "--record", recording)

    again = audiocli(*SPEAK, "-o", tmp_path / "b.mp3", "--json")

    assert again.json["cached"] is True and again.posts == []


# --- what is matched -------------------------------------------------------------------------------------------------


def test_unrecorded_request_names_the_nearest_one(audiocli: CommandLine, recording: Path, tmp_path: Path) -> None:
    audiocli(*SPEAK, "-o", tmp_path / "a.mp3", "--record", recording)

    other = ("speak", "another text", "-m", "openrouter:hexgrad/kokoro-82m", "--speed", "1.5")
    replayed = replay(audiocli, *other, "-o", tmp_path / "b.mp3", "--replay", recording)

    assert replayed.code == 2
    assert "input, speed differ" in replayed.err and "POST /openrouter/api/v1/audio/speech" in replayed.err
    assert not (tmp_path / "b.mp3").exists()


def test_unrecorded_request_of_a_batch_is_exit_2(audiocli: CommandLine, recording: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes(SPEECH)
    audiocli("transcribe", tmp_path / "in", "-O", tmp_path / "a", "--record", recording)
    (tmp_path / "in" / "b.wav").write_bytes(build_wav(b"\x01\x02" * 12_000))

    replayed = replay(audiocli, "transcribe", tmp_path / "in", "-O", tmp_path / "b", "--replay", recording)

    assert replayed.code == 2 and "input_audio differs" in replayed.err


def test_same_request_of_two_commands_is_matched_by_the_command_line(
    audiocli: CommandLine, recording: Path, tmp_path: Path
) -> None:
    audiocli.gateway.queue_faults(Status(401))
    failed = (*SPEAK, "--tag", "failed", "--no-cache", "-o", tmp_path / "a.mp3")
    served = (*SPEAK, "--tag", "served", "--no-cache", "-o", tmp_path / "a.mp3")
    assert audiocli(*failed, "--record", recording).code == 4
    assert audiocli(*served, "--record", recording).code == 0

    assert replay(audiocli, *failed, "--replay", recording).code == 4
    assert replay(audiocli, *served, "--replay", recording).code == 0


def build_form(fields: list[tuple[str, str]], path: Path) -> HttpRequest:
    body = build_multipart_body(
        fields, path=path, size_bytes=path.stat().st_size, file_name="audio.wav", media_type="audio/wav"
    )
    return HttpRequest("POST", "http://127.0.0.1/v1/audio/transcriptions", body=body)


@given(st.permutations([("model", "a"), ("voice", {"id": "b", "x": [1, 2.5]}), ("input", "Grüße \ud83d"), ("n", None)]))
def test_json_is_matched_whatever_the_order_of_its_fields(fields: list[tuple[str, Any]]) -> None:
    url = "http://127.0.0.1/v1/audio/speech"
    first = HttpRequest("POST", url, body=build_json_body({"model": "a", **dict(fields)}))
    second = HttpRequest("POST", url, body=build_json_body(dict(fields)))

    assert build_key(first, SecretRemover()) == build_key(second, SecretRemover())


@pytest.mark.parametrize("size_bytes", [0, 1, 1_000_000])
def test_form_is_matched_whatever_its_boundary(tmp_path: Path, size_bytes: int) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"\r\n--audiocli" * (size_bytes // 12))
    first, second = (build_key(build_form([("model", "m"), ("language", "de")], path), SecretRemover()) for _ in "ab")
    other = build_key(build_form([("model", "m"), ("language", "en")], path), SecretRemover())
    path.write_bytes(path.read_bytes() + b"x")
    longer = build_key(build_form([("model", "m"), ("language", "de")], path), SecretRemover())

    assert first == second and [part.name for part in first.parts] == ["file", "language", "model"]
    assert describe_difference(first, other) == "language differs"
    assert describe_difference(first, longer) == "file differs"


# --- secrets ---------------------------------------------------------------------------------------------------------


def list_encodings(secret: str) -> list[bytes]:
    """Return a secret in plain text, quoted, and the part of it that is certain in base64 at each position."""
    content = secret.encode()
    encodings = [content, quote(secret, safe="").encode(), json.dumps(secret)[1:-1].encode()]
    for offset in range(3):
        encoded = base64.b64encode(bytes(offset) + content)
        encodings.append(encoded[4 if offset else 0 : (offset + len(content)) // 3 * 4])
    return encodings


def echo(secrets: list[str]) -> Any:
    """Return an error body that repeats secrets in every encoding."""
    encoded = [base64.b64encode(f"{'x' * n}{secret}:".encode()).decode() for secret in secrets for n in range(3)]
    quoted = [quote(secret, safe="") for secret in secrets]
    urls = [f"https://{quote(secret, safe='')}@host/a?X-Amz-Signature={secret}&key={secret}" for secret in secrets]
    return {"error": {"message": "refused", "echo": [*secrets, *encoded, *quoted, *urls], "code": 400}}


COMMANDS: tuple[tuple[str, ...], ...] = (
    ("models", "-g", "{gateway}"),
    ("speak", "hi", "-m", "{speech}", "-o", "{path}/x.mp3"),
    ("transcribe", "{path}/talk.wav", "-m", "{transcription}"),
    ("chat", "hi", "-g", "{gateway}"),
)


@pytest.mark.parametrize("served_by", GATEWAYS, ids=lambda served_by: served_by.name)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("answer", ["ok", "echo in an error", "echo in a response"])
def test_no_secret_is_recorded(
    all_gateways_cli: CommandLine,
    recording: Path,
    served_by: GatewayUnderTest,
    command: tuple[str, ...],
    answer: str,
) -> None:
    secrets = [served_by.key]
    if served_by.name == "home":
        config = Path(all_gateways_cli.variables["XDG_CONFIG_HOME"]) / "audiocli" / "config.toml"
        header = '\n[gateways.home.headers]\nX-Trace-Id = "${TRACE_SECRET}"\n'
        config.write_text(config.read_text("utf-8") + header)
        secrets.append("trace-5ecret/4711+")
        all_gateways_cli.variables["TRACE_SECRET"] = secrets[-1]
    response_secrets = ["c00kie" * 3, "t0ken" * 4]
    if answer != "ok":
        headers = {"Set-Cookie": f"s={response_secrets[0]}", "X-Auth-Token": response_secrets[1], "X-Echo": secrets[0]}
        fault = Status(400 if "error" in answer else 200, body=echo(secrets), headers=headers)
        for method in ("GET", "POST"):
            all_gateways_cli.gateway.add_default_fault(fault, method=method)
    names = {
        "gateway": served_by.name,
        "speech": f"{served_by.name}:{served_by.speech_model}",
        "transcription": f"{served_by.name}:{served_by.transcription_model}",
        "path": str(all_gateways_cli.directory),
    }

    result = all_gateways_cli(*(word.format(**names) for word in command), "--debug", "--record", recording)

    assert result.code != 1, result.err
    assert result.requests == [] or read_exchanges(recording)
    content = b"\n".join(path.read_bytes() for path in recording.iterdir())
    for secret in [*secrets, *response_secrets]:
        assert [form for form in list_encodings(secret) if len(form) >= 7 and form in content] == []


def test_password_and_signatures_are_not_recorded(audiocli: CommandLine, recording: Path, tmp_path: Path) -> None:
    url = audiocli.gateway.base_url("openrouter").replace("://", f"://user:{quote(PASSWORD, safe='')}@")
    audiocli.variables["OPENROUTER_BASE_URL"] = url
    signed = "https://bucket.example/a.mp3?X-Amz-Date=1&X-Amz-Signature=51gnature"
    audiocli.gateway.queue_faults(
        Status(400, body={"error": {"message": f"{PASSWORD} {signed} https://me:{PASSWORD}@host/", "code": 400}})
    )

    result = audiocli(*SPEAK, "-o", tmp_path / "a.mp3", "--record", recording)

    assert result.code == 6
    content = b"\n".join(path.read_bytes() for path in recording.iterdir())
    assert b"X-Amz-Signature=" in content and b"51gnature" not in content
    for form in list_encodings(PASSWORD):
        assert form not in content
    assert replay(audiocli, *SPEAK, "-o", tmp_path / "b.mp3", "--replay", recording).code == 6


@given(
    st.integers(0, 2),
    st.text(st.characters(codec="utf-8"), min_size=9, max_size=40),
    st.lists(st.integers(1, 30), max_size=10),
)
def test_secret_that_is_split_between_blocks_is_removed(offset: int, secret: str, sizes: list[int]) -> None:
    plain, encoded = secret.encode(), base64.b64encode(b"~" * offset + secret.encode() + b"~~~")
    for form in (plain, encoded, quote(secret).encode()):
        stream, out, rest = SecretRemover([secret]).open_stream(), b"", b"~" * HOLD_BYTES + form + b"~"
        for size in sizes:
            out += stream.feed(rest[:size])
            rest = rest[size:]
        out += stream.feed(rest) + stream.finish()

        assert len(out) == HOLD_BYTES + len(form) + 1
        assert form not in out
        if form is encoded:
            assert plain not in base64.b64decode(out[HOLD_BYTES:-1])


def test_url_without_a_signature_stays_in_a_transcript() -> None:
    text = b'{"text": "see https://example.com/?page=2&v=abc and user@example.com"}'

    assert SecretRemover().remove(text) == text


@pytest.mark.parametrize("escaped", ["\\u0026", "&amp;", "&"])
def test_signature_is_removed_from_escaped_urls(escaped: str) -> None:
    text = f'{{"url": "https:\\/\\/host\\/a?expires=1{escaped}sig=s3cret\\"", "next": 1}}'.encode()

    removed = SecretRemover().remove(text)

    assert b"s3cret" not in removed and removed.endswith(b'\\"", "next": 1}') and len(removed) == len(text)


# --- the directory ---------------------------------------------------------------------------------------------------


def test_recording_is_private_and_explains_itself(audiocli: CommandLine, recording: Path, tmp_path: Path) -> None:
    audiocli(*SPEAK, "-o", tmp_path / "a.mp3", "--record", recording)

    assert stat.S_IMODE(recording.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in recording.iterdir()} == {0o600}
    assert "your texts, your recordings and the transcripts" in (recording / "README.txt").read_text()
    assert {"0001.json", "0001.request", "0001.response"} <= {path.name for path in recording.iterdir()} or {
        "0002.json",
        "0002.request",
        "0002.response",
    } <= {path.name for path in recording.iterdir()}
    assert (tmp_path / "a.mp3").read_bytes() in [path.read_bytes() for path in recording.glob("*.response")]


@pytest.mark.parametrize(
    ("prepare", "code"),
    [
        pytest.param(lambda path: (path.mkdir(), (path / "mine.txt").write_text("x")), 2, id="not a recording"),
        pytest.param(lambda path: path.write_text("x"), 2, id="a file"),
        pytest.param(lambda path: path.symlink_to("/dev/null"), 2, id="a device"),
        pytest.param(
            lambda path: (path.mkdir(), (path / "recording.json").write_text('{"version": 99}')), 2, id="newer"
        ),
        pytest.param(lambda path: path.symlink_to(path.name), 10, id="a loop"),
    ],
)
def test_directory_that_cannot_be_recorded_in_is_refused_before_anything_is_sent(
    audiocli: CommandLine, recording: Path, tmp_path: Path, prepare: Callable[[Path], Any], code: int
) -> None:
    prepare(recording)
    before = sorted(recording.iterdir()) if recording.is_dir() else None

    result = audiocli(*SPEAK, "-o", tmp_path / "a.mp3", "--record", recording)

    assert result.code == code, result.err
    assert result.requests == []
    assert (sorted(recording.iterdir()) if recording.is_dir() else None) == before


@pytest.mark.parametrize(
    "options",
    [("--record", "a", "--replay", "b"), ("--replay-timing",), ("--record", ""), ("--replay", ""), ("--replay", "no")],
    ids=" ".join,
)
def test_contradictory_options_are_refused(audiocli: CommandLine, tmp_path: Path, options: tuple[str, ...]) -> None:
    result = audiocli(*SPEAK, "-o", tmp_path / "a.mp3", *options)

    assert result.code == 2 and result.requests == []


def edit(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        path = max(directory.glob(name))
        document = json.loads(path.read_text())
        path.write_text(json.dumps(change(document)))

    return apply


def replace(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda directory: max(directory.glob(name)).write_bytes(content) and None


def link(name: str, target: str) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        path = max(directory.glob(name))
        path.unlink()
        path.symlink_to(target)

    return apply


def grow(directory: Path) -> None:
    path = max(directory.glob("[0-9]*.json"))
    with path.open("r+b") as file:
        file.truncate(10_000_000_000)


def add_fifo(directory: Path) -> None:
    path = max(directory.glob("*.response"))
    path.unlink()
    os.mkfifo(path)


EXCHANGE = "[0-9]*.json"
HOSTILE: dict[str, Callable[[Path], None]] = {
    "not JSON": replace(EXCHANGE, b"{"),
    "not an object": replace(EXCHANGE, b"[]"),
    "not UTF-8": replace(EXCHANGE, b"\xff\xfe\xfa"),
    "deep": replace(EXCHANGE, b"[" * 100_000),
    "huge number": replace(EXCHANGE, b'{"version": ' + b"9" * 10_000 + b"}"),
    "huge": grow,
    "newer": edit(EXCHANGE, lambda exchange: {**exchange, "version": 2}),
    "no version": edit(EXCHANGE, lambda exchange: {**exchange, "version": None}),
    "other number": edit(EXCHANGE, lambda exchange: {**exchange, "number": 4711}),
    "no request": edit(EXCHANGE, lambda exchange: {**exchange, "request": None}),
    "status": edit(EXCHANGE, lambda exchange: {**exchange, "response": {**exchange["response"], "status": "200"}}),
    "blocks": edit(EXCHANGE, lambda exchange: {**exchange, "response": {**exchange["response"], "blocks": [[0, -1]]}}),
    "times": edit(
        EXCHANGE, lambda exchange: {**exchange, "response": {**exchange["response"], "head_s": float("nan")}}
    ),
    "huge time": edit(EXCHANGE, lambda exchange: {**exchange, "response": {**exchange["response"], "head_s": 10**400}}),
    "sizes": edit(
        EXCHANGE, lambda exchange: {**exchange, "response": {**exchange["response"], "blocks": [[0, 2**52]]}}
    ),
    "headers": edit(EXCHANGE, lambda exchange: {**exchange, "response": {**exchange["response"], "headers": {"a": 1}}}),
    "missing response": lambda directory: max(directory.glob("*.response")).unlink(),
    "missing request": lambda directory: max(directory.glob("*.request")).unlink(),
    "shorter response": replace("*.response", b"x"),
    "linked response": link("*.response", "/etc/passwd"),
    "linked exchange": link(EXCHANGE, "/dev/zero"),
    "linked marker": link("recording.json", "/dev/zero"),
    "linked run": link("run-*.json", "/etc/passwd"),
    "FIFO": add_fifo,
    "dialect": edit(
        "run-*.json",
        lambda run: {**run, "gateways": [{"name": "x", "dialect": "local", "base_url": "x", "has_key": True}]},
    ),
    "gateways": edit("run-*.json", lambda run: {**run, "gateways": 1}),
    "jobs": edit("run-*.json", lambda run: {**run, "jobs": [1]}),
    "no marker": lambda directory: (directory / "recording.json").unlink(),
    "device": lambda directory: directory.rename(directory.with_name("moved")) and directory.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("command", ["replay", "report"])
def test_damaged_recording_is_an_error_of_the_user(
    audiocli: CommandLine, recording: Path, tmp_path: Path, hostile: str, command: str
) -> None:
    audiocli(*SPEAK, "-o", tmp_path / "a.mp3", "--record", recording)
    HOSTILE[hostile](recording)

    if command == "replay":
        result = replay(audiocli, *SPEAK, "-o", tmp_path / "b.mp3", "--replay", recording)
        assert result.code == 2, result.err
    else:
        result = audiocli("report", recording, "--with-bodies", "-y", "-o", tmp_path / "r.zip")
        assert result.code == (0 if hostile == "dialect" else 2), result.err


def test_job_of_a_recording_cannot_name_a_file_to_write(audiocli: CommandLine, recording: Path, tmp_path: Path) -> None:
    audiocli.variables["THEROUTER_API_KEY"] = KEYS["therouter"] or ""
    submitted = audiocli("speak", "hi", "-g", "therouter", "--background", "--json", "-o", tmp_path / "job.mp3")
    job_id = submitted.json["job"]["id"]
    audiocli("jobs", "wait", job_id, "--record", recording)
    edit("run-*.json", lambda run: {**run, "jobs": [{**run["jobs"][0], "output": str(tmp_path / "victim.mp3")}]})(
        recording
    )

    replay(audiocli, "jobs", "wait", job_id, "--replay", recording)

    assert not (tmp_path / "victim.mp3").exists()


def test_link_in_place_of_the_log_is_not_followed(audiocli: CommandLine, recording: Path, tmp_path: Path) -> None:
    audiocli(*SPEAK, "-o", tmp_path / "a.mp3", "--record", recording)
    (recording / "log.txt").unlink()
    (recording / "log.txt").symlink_to(tmp_path / "victim.txt")

    result = audiocli("speak", "bye", "-o", tmp_path / "b.mp3", "--record", recording)

    assert result.code == 10 and result.posts == []
    assert not (tmp_path / "victim.txt").exists()


def test_recording_that_cannot_be_continued_does_not_end_the_command(audiocli: CommandLine, recording: Path) -> None:
    app, _, err = build_app_context(audiocli)
    app.argv = ("models",)
    app.start_recording(recording)
    shutil.rmtree(recording)
    url = audiocli.gateway.base_url("openrouter") + "/models"

    async def request(ctx: RunContext) -> bytes:
        async with ctx.transport(url).open(HttpRequest("GET", url)) as response:
            return b"".join([block async for block in response.iter_bytes()])

    bodies = [app.run(request, read_timeout_s=10, info=print, debug=lambda _: None) for _ in range(2)]
    app.close()

    assert bodies[0] == bodies[1] and json.loads(bodies[0])["data"]
    assert err.getvalue().decode() == f"warning: cannot record in {recording}: {os.strerror(2)}; continuing without\n"


# --- reports ---------------------------------------------------------------------------------------------------------


def read_archive(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_report_has_the_exchanges_and_no_content(audiocli: CommandLine, recording: Path, tmp_path: Path) -> None:
    audiocli.gateway.queue_faults(Status(500))
    audiocli("speak", "my private words", "-o", tmp_path / "a.mp3", "--record", recording)

    result = audiocli("report", recording, "-y", "-o", tmp_path / "r.zip")

    assert result.code == 0 and result.requests == [], result.err
    files = read_archive(tmp_path / "r.zip")
    assert {"system.json", "config.json", "checks.json", "ledger.json", "recording/log.txt"} <= set(files)
    assert all(name in result.text for name in files)
    assert stat.S_IMODE((tmp_path / "r.zip").stat().st_mode) == 0o600
    assert [entry["outcome"] for entry in json.loads(files["ledger.json"])] == ["failed", "ok"]
    assert "OPENROUTER_API_KEY" in json.loads(files["system.json"])["variables_that_are_set"]
    content = b"\n".join(files.values())
    assert not any(name.endswith((".request", ".response")) for name in files)
    assert b"private" not in content and (KEYS["openrouter"] or "").encode() not in content
    assert not re.search(rb"[0-9a-f]{64}", content)


def test_report_with_bodies_can_be_replayed(audiocli: CommandLine, recording: Path, tmp_path: Path) -> None:
    audiocli(*SPEAK, "-o", tmp_path / "a.mp3", "--record", recording)

    audiocli("report", recording, "--with-bodies", "-o", tmp_path / "r.zip")
    with zipfile.ZipFile(tmp_path / "r.zip") as archive:
        archive.extractall(tmp_path / "unpacked")

    replayed = replay(audiocli, *SPEAK, "-o", tmp_path / "b.mp3", "--replay", tmp_path / "unpacked" / "recording")
    assert replayed.code == 0, replayed.err
    assert (tmp_path / "a.mp3").read_bytes() == (tmp_path / "b.mp3").read_bytes()


def test_report_asks_on_a_terminal(audiocli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "r.zip"

    declined = audiocli("report", "-o", path, stdin=b"n\n", terminal="in err")
    assert declined.code == 2 and not path.exists() and "system.json" in declined.text
    assert audiocli("report", "-o", path, stdin=b"y\n", terminal="in err").code == 0 and path.exists()


def test_report_is_made_of_a_broken_installation(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.write_config("[speak\n")
    audiocli.ledger_path.parent.mkdir(parents=True)
    audiocli.ledger_path.write_bytes(b"no database" * 1000)

    result = audiocli("report", "-y", "-o", tmp_path / "r.zip")

    assert result.code == 0, result.err
    files = read_archive(tmp_path / "r.zip")
    assert "not valid TOML" in files["checks.json"].decode()
    assert "error" in json.loads(files["config.json"]) and "error" in json.loads(files["ledger.json"])


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["-o", "report.txt"], 2),
        (["-o", "-"], 2),
        (["--with-bodies"], 2),
        (["missing"], 2),
        (["-o", "missing/report.zip"], 10),
        (["-o", "directory.zip"], 10),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_report_that_cannot_be_written_is_refused(
    audiocli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "directory.zip").mkdir()

    result = audiocli("report", "-y", *arguments)

    assert result.code == code, result.err
    assert list(tmp_path.glob(".*.part")) == []
