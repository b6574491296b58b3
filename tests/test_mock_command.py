"""`audiocli mock`: a command or a server with a mock gateway, which leaves real state untouched."""

from __future__ import annotations

import hashlib
import http.client
import json
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import openai
import pytest

from audiocli.mock import (
    DEFAULT_TRANSCRIPT,
    CleanTruncation,
    CutAfter,
    CutBeforeResponse,
    Drip,
    Empty,
    FaultSpec,
    Garbage,
    Html,
    InvalidScript,
    InvalidSpec,
    MockGateway,
    OkWithError,
    Stall,
    Status,
    parse_fault_spec,
    read_script,
)
from audiocli.mock.fault_specs import FAULTS
from tests.conftest import CommandLine
from tests.gateway_contract import SPEECH
from tests.programs import write_program
from tests.pyav_codec import CODEC
from tests.test_json_schemas import check
from tests.test_mock_gateway import send_request, speak

CHECKOUT = Path(__file__).parent.parent
KEY = "a-key-of-the-user-4711"


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    """The environment of a user with real keys and real stores."""
    home, programs = tmp_path / "home", tmp_path / "programs"
    (home / "config" / "audiocli").mkdir(parents=True)
    (home / "config" / "audiocli" / "config.toml").write_text('[speak]\nvoice = "nova"\n')
    (home / "config" / "audiocli" / "keys.toml").write_text('groq = "gsk-stored-by-the-user"\n')
    (home / "config" / "audiocli" / "keys.toml").chmod(0o600)
    write_program(
        programs / "audiocli", f'#!/bin/sh\nPYTHONPATH="{CHECKOUT}" exec "{sys.executable}" -m audiocli "$@"\n'
    )
    return {
        "PATH": f"{programs}:/usr/bin:/bin",
        "HOME": str(home),
        "TMPDIR": str(tmp_path / "temporary"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "OPENROUTER_API_KEY": KEY,
        "OPENAI_API_KEY": f"sk-{KEY}",
        "AUDIOCLI_TAG": "of-the-user",
        "LANG": "C.UTF-8",
    }


@pytest.fixture
def directory(tmp_path: Path, variables: Mapping[str, str]) -> Path:
    (tmp_path / "work").mkdir()
    Path(variables["TMPDIR"]).mkdir()
    return tmp_path / "work"


def run_mock(
    directory: Path, variables: Mapping[str, str], *options: str | Path, command: str
) -> subprocess.CompletedProcess[str]:
    """Run a shell command with `audiocli mock`."""
    return subprocess.run(
        [sys.executable, "-m", "audiocli", "mock", *map(str, options), "--", "/bin/sh", "-c", command],
        cwd=directory,
        env={**variables, "PYTHONPATH": str(CHECKOUT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


class Server(NamedTuple):
    """A running `audiocli mock`."""

    process: subprocess.Popen[str]
    variables: dict[str, str]

    @property
    def url(self) -> str:
        return self.variables["AUDIOCLI_MOCK_URL"]

    def request(self, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        """Send a request and return status and body."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=60)
        try:
            content = None if body is None else json.dumps(body).encode()
            connection.request(
                "POST" if body else "GET",
                path,
                content,
                {
                    "Content-Type": "application/json",
                    **{name.replace("_", "-"): text for name, text in headers.items()},
                },
            )
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


@contextmanager
def serve(directory: Path, variables: Mapping[str, str], *options: str | Path) -> Iterator[Server]:
    """Run `audiocli mock` without a command until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "audiocli", "mock", *map(str, options)],
        cwd=directory,
        env={**variables, "PYTHONPATH": str(CHECKOUT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        exports = {}
        for line in process.stdout:
            words = shlex.split(line)
            if words[0] == "export":
                name, _, value = words[1].partition("=")
                exports[name] = value
                if name == "AUDIOCLI_MOCK_URL":
                    break
        assert exports, process.stderr.read() if process.stderr else ""
        yield Server(process, exports)
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=30)


def read_tree(directory: Path) -> dict[str, tuple[int, float, str]]:
    """Return mode, modification time and hash of everything below a directory."""
    return {
        str(path.relative_to(directory)): (
            path.stat().st_mode,
            path.stat().st_mtime,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in sorted(directory.rglob("*"))
    }


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a journal, by their numbers. A response may end before that of an earlier request."""
    return sorted(map(json.loads, path.read_text("utf-8").splitlines()), key=lambda entry: entry["n"])


# --- isolation -------------------------------------------------------------------------------------------------------


def test_command_leaves_real_stores_byte_for_byte(directory: Path, variables: dict[str, str]) -> None:
    with MockGateway(CODEC) as real:
        real_variables = {
            **variables, "OPENROUTER_API_KEY": "sk-or-test", "OPENROUTER_BASE_URL": real.base_url("openrouter")
        }  # fmt: skip
        speaking = subprocess.run(
            ["audiocli", "speak", "real", "-o", "real.mp3"], cwd=directory, env=real_variables, timeout=60
        )
        home = Path(variables["HOME"])
        before, request_count = read_tree(home), len(real.requests)
        assert (speaking.returncode, "data/audiocli/ledger.sqlite3" in before) == (0, True)

        done = run_mock(
            directory,
            real_variables,
            command="audiocli models >/dev/null && audiocli speak hi -o hi.mp3 "
            "&& audiocli transcribe hi.mp3 -f txt,srt "
            "&& audiocli chat -g openai hello && audiocli config set speak.voice leo && audiocli cache clear --paid -y "
            "&& audiocli usage list --json",
        )

    assert done.returncode == 0, done.stderr
    assert read_tree(home) == before
    assert len(real.requests) == request_count
    assert [json.loads(line)["command"] for line in done.stdout.splitlines()[1:]] == ["speak", "transcribe", "chat"]
    assert (directory / "hi.srt").exists()
    assert list(Path(variables["TMPDIR"]).iterdir()) == []


def test_command_gets_no_real_key_and_no_setting_of_the_user(directory: Path, variables: dict[str, str]) -> None:
    variables |= {"HTTPS_PROXY": "http://proxy.invalid:1", "CI_TOKEN": f"token-{KEY}", "THE_KEY": "of-a-server"}
    path = Path(variables["XDG_CONFIG_HOME"]) / "audiocli" / "config.toml"
    path.write_text('[gateways.mine]\nbase_url = "https://mine.invalid/v1"\nkey_env = "THE_KEY"\n')

    done = run_mock(directory, variables, command="env; audiocli keys list --json; audiocli config check --json")

    assert KEY not in done.stdout and "gsk-stored-by-the-user" not in done.stdout
    inner = dict(line.partition("=")[::2] for line in done.stdout.splitlines() if "=" in line)
    assert {"AUDIOCLI_TAG", "CI_TOKEN", "THE_KEY"} & inner.keys() == set()
    assert inner["no_proxy"] == "127.0.0.1,localhost"
    assert all(value.startswith("http://127.0.0.1:") for name, value in inner.items() if name.endswith("_BASE_URL"))
    assert "mine" not in done.stdout and '"status": "error"' not in done.stdout


@pytest.mark.parametrize("script", ["exit 7", "kill -9 $$", "true"])
def test_exit_code_is_that_of_the_command(directory: Path, variables: dict[str, str], script: str) -> None:
    done = run_mock(directory, variables, command=script)

    assert (done.returncode, done.stdout, done.stderr) == ({"exit 7": 7, "true": 0}.get(script, 137), "", "")
    assert list(Path(variables["TMPDIR"]).iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_ends_the_command_and_removes_the_directory(
    directory: Path, variables: dict[str, str], number: signal.Signals, code: int
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "audiocli", "mock", "--", "/bin/sh", "-c", "echo started; exec sleep 60"],
        cwd=directory,
        env={**variables, "PYTHONPATH": str(CHECKOUT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "started\n"

    process.send_signal(number)
    out, err = process.communicate(timeout=30)

    assert (process.returncode, out, err) == (code, "", "")
    assert list(Path(variables["TMPDIR"]).iterdir()) == []


def test_directory_of_keep_stays_and_has_the_ledger(directory: Path, variables: dict[str, str]) -> None:
    done = run_mock(directory, variables, "--keep", "state", command="audiocli speak hi -o hi.mp3")
    again = run_mock(directory, variables, "--keep", "state", command="true")

    assert done.returncode == 0, done.stderr
    assert (directory / "state" / "data" / "audiocli" / "ledger.sqlite3").exists()
    assert (directory / "state").stat().st_mode & 0o777 == 0o700
    assert (again.returncode, "is not an empty directory" in again.stderr) == (2, True)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["sh"], 2, "put -- before the command: audiocli mock -- COMMAND"),
        (["--", "/no/such/program"], 2, "cannot run '/no/such/program'"),
        (["--json", "--", "true"], 2, "--json has no effect with a command"),
        (["--port", "70000", "--", "true"], 2, "--port 70000: must be between 0 and 65535"),
        (["--latency", "-1", "--", "true"], 2, "--latency -1: must be between 0 and 60 seconds"),
        (["--latency", "nan", "--", "true"], 2, "--latency nan: must be between"),
        (["--dialect", "openia", "--", "true"], 2, "did you mean 'openai'?"),
        (["--engine", "lokal", "--", "true"], 2, "did you mean 'local'?"),
        (["--engine", "local", "--dialect", "openai", "--", "true"], 2, "cannot be used with --dialect"),
        (["--shell", "csh", "--", "true"], 2, "use sh, fish"),
        (["--fault", "4290", "--", "true"], 2, "--fault 4290: unknown fault '4290'"),
        (["--script", "missing.toml", "--", "true"], 2, "cannot read missing.toml"),
        (["--journal", "missing/j.jsonl", "--", "true"], 10, "cannot write missing/j.jsonl"),
        (["--keep", "/dev/null/x", "--", "true"], 10, "cannot create /dev/null/x"),
        (["--allow-remote", "--", "true"], 2, "--allow-remote needs a key of 16 characters or more"),
        (["--allow-remote", "--key", "fifteen-letters", "--", "true"], 2, "needs a key of 16 characters"),
        (["--key", "with a blank", "--", "true"], 2, "must be printable ASCII without spaces"),
    ],
)
def test_invalid_option_is_refused(audiocli: CommandLine, options: list[str], code: int, message: str) -> None:
    r = audiocli("mock", *options)

    assert (r.code, message in r.err) == (code, True), r.err


def test_port_in_use_is_refused(audiocli: CommandLine) -> None:
    r = audiocli("mock", "--port", audiocli.gateway.url.rpartition(":")[2], "--", "true")

    assert (r.code, "cannot listen on port" in r.err) == (2, True), r.err


def test_words_of_the_command_are_not_options_of_audiocli(audiocli: CommandLine, tmp_path: Path) -> None:
    program = write_program(tmp_path / "show", f'#!/bin/sh\necho "$@" > "{tmp_path}/words"\n')

    r = audiocli("mock", "-q", "--", program, "--help", "--json", "--debug", "--", "-q")

    assert (r.code, r.text) == (0, "")
    assert (tmp_path / "words").read_text() == "--help --json --debug -- -q\n"


# --- the server ------------------------------------------------------------------------------------------------------


def test_server_prints_the_environment_and_ends_with_sigterm(directory: Path, variables: dict[str, str]) -> None:
    with serve(directory, variables) as server:
        state = Path(server.variables["XDG_DATA_HOME"]).parent
        assert state.exists() and state.stat().st_mode & 0o777 == 0o700
        done = subprocess.run(
            ["audiocli", "speak", "hi", "-o", "hi.mp3", "--json"],
            cwd=directory,
            env={**variables, **server.variables},
            capture_output=True,
            timeout=60,
        )
        server.process.terminate()
        _, err = server.process.communicate(timeout=30)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["gateway"] == "openrouter"
    assert (server.process.returncode, err) == (0, f"note: serving {server.url}; stop it with Ctrl-C\n")
    assert not state.exists()
    assert not (Path(variables["HOME"]) / "data").exists()


def test_server_ends_with_ctrl_c(directory: Path, variables: dict[str, str]) -> None:
    with serve(directory, variables, "-q") as server:
        server.process.send_signal(signal.SIGINT)
        _, err = server.process.communicate(timeout=30)

    assert (server.process.returncode, err) == (130, "")
    assert list(Path(variables["TMPDIR"]).iterdir()) == []


def test_server_prints_json(directory: Path, variables: dict[str, str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "audiocli", "mock", "--json", "--dialect", "groq"],
        env={**variables, "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.terminate()
    document = json.loads(line)

    check("mock", document)
    assert document["variables"]["GROQ_API_KEY"] == "gsk-test"
    assert {"AUDIOCLI_TAG", "OPENAI_API_KEY", "OPENROUTER_API_KEY"} <= set(document["removed_variables"])


def test_variables_are_quoted_for_each_shell() -> None:
    from audiocli.cli.mock_environment import Environment, render_environment

    environment = Environment({"AUDIOCLI_MOCK_URL": "u", "X": "it's $HOME \\ here"}, ("AUDIOCLI_TAG",))
    sh = render_environment(environment, "sh")
    done = subprocess.run(
        ["/bin/sh", "-c", f'{sh}\nprintf %s "$X"; echo "${{AUDIOCLI_TAG-removed}}"'],
        env={"AUDIOCLI_TAG": "x"},
        capture_output=True,
        text=True,
    )

    assert done.stdout == "it's $HOME \\ hereremoved\n"
    assert sh.splitlines()[-1] == "export AUDIOCLI_MOCK_URL=u"
    assert render_environment(environment, "fish").splitlines() == [
        "set -e AUDIOCLI_TAG",
        "set -gx X 'it\\'s $HOME \\\\ here'",
        "set -gx AUDIOCLI_MOCK_URL 'u'",
    ]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "[", "", "10.0.0.1"])
def test_other_host_names_are_refused(directory: Path, variables: dict[str, str], host: str) -> None:
    with serve(directory, variables, "--journal", "j.jsonl") as server:
        refused = server.request("/openai/v1/models", Host=host, Authorization="Bearer sk-test")
        accepted = [
            server.request("/openai/v1/models", Host=name, Authorization="Bearer sk-test")[0]
            for name in ("localhost", "LOCALHOST:1", "[::1]:80", "127.0.0.1")
        ]

    assert (refused[0], json.loads(refused[1])["error"]["code"]) == (403, "host_not_allowed")
    assert accepted == [200] * 4


def test_remote_server_needs_its_key_for_everything(directory: Path, variables: dict[str, str]) -> None:
    variables["AUDIOCLI_MOCK_KEY"] = key = "0123456789abcdef-key"
    with serve(directory, variables, "--allow-remote", "--journal", "j.jsonl") as server:
        paths = ("/openrouter/api/v1/models", "/plain/v1/models", "/openai/v1/models", "/nowhere")
        wrong = [
            server.request(path, **({"Authorization": text} if text else {}))[0]
            for path in paths
            for text in ("", "Bearer sk-test", f"Bearer {key[:-1]}", f"Bearer {key}x", f"Bearer {key}\u00e9")
        ]
        right = [server.request(path, Authorization=f"Bearer {key}", Host="far.example")[0] for path in paths]
        speech = {"model": "tts-1", "input": "Hi there", "voice": "alloy"}
        spoken = server.request("/openai/v1/audio/speech", speech, Authorization=f"Bearer {key}")
        port = int(server.url.rpartition(":")[2])
        exported = server.variables["OPENAI_API_KEY"]
        addresses = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), port, socket.AF_INET)}
        for address in addresses:
            socket.create_connection((address, port), timeout=5).close()

    assert set(wrong) == {401}
    assert right == [200, 200, 200, 404]
    assert (spoken[0], exported) == (200, key)
    assert key not in (directory / "j.jsonl").read_text()


def test_openai_client_accepts_the_server(directory: Path, variables: dict[str, str]) -> None:
    with serve(directory, variables, "--fault", "429:1,retry-after=0") as server:
        base_url, key = server.variables["OPENAI_BASE_URL"], server.variables["OPENAI_API_KEY"]
        with openai.OpenAI(base_url=base_url, api_key=key, max_retries=1) as client:
            audio = client.audio.speech.create(model="tts-1", input="Hi there", voice="alloy").read()
            again = client.audio.speech.create(model="tts-1", input="Hi there", voice="alloy").read()
            transcript = client.audio.transcriptions.create(model="whisper-1", file=("talk.mp3", audio))
            events = list(
                client.audio.transcriptions.create(model="gpt-4o-transcribe", file=("talk.wav", SPEECH), stream=True)
            )
            with pytest.raises(openai.BadRequestError, match="Unrecognized request argument supplied: sped"):
                client.audio.speech.create(model="tts-1", input="x", voice="alloy", extra_body={"sped": 1})

    assert audio == again and len(audio) > 1000
    assert transcript.text == DEFAULT_TRANSCRIPT
    assert events[-1].type == "transcript.text.done"


@pytest.mark.parametrize("format", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
def test_speech_is_the_same_in_every_process(format: str) -> None:
    code = (
        "import hashlib; from audiocli.cli.mock_codec import EncodingCodec; "
        f"print(hashlib.sha256(EncodingCodec().expected_audio('Hello there', {format!r})).hexdigest())"
    )
    first, second = (
        subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    )

    assert first == second


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        b"POST /openai/v1/audio/speech HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /openai/v1/audio/speech HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
        b"POST /openai/v1/audio/speech HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"GET /openrouter/api/v1/models?limit=x HTTP/1.1\r\n\r\n",
        b"GET /openrouter/api/v1/models?offset=-1 HTTP/1.1\r\n\r\n",
        bytes(range(256)) * 20,
    ],
    ids=range(9),
)
def test_malformed_request_does_not_harm_the_server(request_bytes: bytes) -> None:
    with MockGateway(CODEC) as gateway:  # raises what a handler raises
        host, _, port = gateway.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(request_bytes)
            connection.shutdown(socket.SHUT_WR)
            response = connection.recv(100)
        status = speak(gateway).status

    assert (response[:12] in (b"", b"HTTP/1.1 400"), status) == (True, 200)


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("429:2,retry-after=1", FaultSpec(Status(429, headers={"Retry-After": "1"}), 2)),
        ("503", FaultSpec(Status(503))),
        ("500,message=Oh no", FaultSpec(Status(500, message="Oh no"))),
        ("429,retry-after=0.5", FaultSpec(Status(429, headers={"Retry-After": "0.5"}))),
        ("cut:1,after=1000", FaultSpec(CutAfter(1000), 1)),
        ("cut", FaultSpec(CutAfter(1000))),
        ("cut,after=0", FaultSpec(CutBeforeResponse())),
        ("stall,after=5,delay=2", FaultSpec(Stall(5, 2.0))),
        ("stall", FaultSpec(Stall(None, 60.0))),
        ("slow,delay=0.5", FaultSpec(Drip(1024, 0.5))),
        ("empty:3", FaultSpec(Empty(), 3)),
        ("truncated,after=7", FaultSpec(CleanTruncation(7))),
        ("html", FaultSpec(Html())),
        ("garbage", FaultSpec(Garbage())),
        ("error,message=No", FaultSpec(OkWithError(502, "No"))),
        ("404,method=get,path=/models", FaultSpec(Status(404), path="/models", method="GET")),
        ("empty,model=tts-1,dialect=openai", FaultSpec(Empty(), model="tts-1", dialect="openai")),
    ],
)
def test_fault_is_parsed(text: str, spec: FaultSpec) -> None:
    assert parse_fault_spec(text) == spec


@pytest.mark.parametrize(
    "text",
    [
        *("", ":1", "399", "600", "429:0", "429:-1", "429:x", "429:²", "429:99999999", "429:", "cutt", "slow,after=3"),
        *(
            "429,retry-after=",
            "429,retry-after=-1",
            "429,retry-after=nan",
            "cut,after=x",
            "cut,after=-1",
            "429,after=1",
        ),
        *("stall,delay=61", "429,retry-after", "html,x=1"),
    ],
)
def test_invalid_fault_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse_fault_spec(text)
    assert str(caught.value) and caught.value.hint


def test_every_fault_is_documented() -> None:
    page = (CHECKOUT / "docs" / "commands" / "mock.md").read_text("utf-8")

    for name, kind in FAULTS.items():
        assert f"| `{name}` | {kind.description} |" in page


def test_mock_gateway_hears_its_own_speech(directory: Path, variables: dict[str, str]) -> None:
    """An installed local model would hear tones."""
    done = run_mock(
        directory, variables, command="audiocli speak 'The build is green.' -o x.mp3 --verify --json; echo $?"
    )

    document, code = done.stdout.splitlines()
    assert (code, json.loads(document)["verify"]["redone"]) == ("0", 0), done.stderr


def test_faults_of_options_reach_the_command(directory: Path, variables: dict[str, str]) -> None:
    done = run_mock(
        directory,
        variables,
        *("--fault", "429:1,retry-after=0", "--fault", "cut:1,after=10", "--journal", "j.jsonl"),
        command="audiocli speak one -o 1.mp3; echo $?; audiocli speak two -o 2.mp3; audiocli speak three -o 3.mp3",
    )
    posts = [entry for entry in read_journal(directory / "j.jsonl") if entry["method"] == "POST"]

    assert done.stdout == "7\n"  # sent again after 429, then cut
    assert [(entry["status"], entry["fault"]) for entry in posts] == [
        *((429, "Status"), (200, "CutAfter"), (200, None), (200, None)),
    ]
    assert sorted(path.name for path in directory.glob("*.mp3")) == ["2.mp3", "3.mp3"]


# --- script ----------------------------------------------------------------------------------------------------------


def write_script(directory: Path, text: str) -> Path:
    path = directory / "script.toml"
    path.write_text(text, "utf-8")
    return path


def test_script_chooses_responses(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_bytes(b"<html>")
    script = read_script(
        write_script(
            tmp_path,
            """
            [[rule]]                       # the second text with "bad"
            path = "/audio/speech"
            text = "bad"
            nth = 2
            status = 503
            headers = { Retry-After = "9", X-Cause = "script" }

            [[rule]]
            text = "page"
            body_file = "page.html"
            headers = { Content-Type = "text/html" }

            [[rule]]
            text = "cut"
            cut = 100

            [[rule]]
            text = "gone"
            cut = 0

            [[rule]]
            text = "late"
            delay = 0.01

            [[rule]]
            path = "/models"
            method = "get"
            body = { data = [] }
            """,
        )
    )
    with MockGateway(CODEC, script=script) as gateway:
        bad = [speak(gateway, input="a bad text") for _ in range(3)]
        page = speak(gateway, input="a page")
        with pytest.raises(http.client.IncompleteRead) as cut:
            speak(gateway, input="cut this")
        with pytest.raises(http.client.RemoteDisconnected):
            speak(gateway, input="gone")
        late, models = speak(gateway, input="late"), send_request(gateway, "GET", "/models")
        other = speak(gateway, input="other")

    assert [response.status for response in bad] == [200, 503, 200]
    assert (bad[1].headers["retry-after"], bad[1].headers["x-cause"]) == ("9", "script")
    assert bad[1].json["error"]["code"] == 503
    assert (page.status, page.body, page.headers["content-type"]) == (200, b"<html>", "text/html")
    assert len(cut.value.partial) == 100
    assert (late.status, other.status, models.json) == (200, 200, {"data": []})
    assert [request.rule_line for request in gateway.requests] == [None, 2, None, 9, 14, 18, 22, 26, None]
    assert [request.billed for request in gateway.requests][:4] == [True, False, True, True]


def test_script_may_be_json_lines_and_matches_chats_and_models(tmp_path: Path) -> None:
    path = tmp_path / "script.jsonl"
    path.write_text(
        '{"text": "weather", "status": 200, "body": {"rain": true}}\n\n'
        '{"model": "hexgrad/kokoro-82m", "nth": [1, 3], "status": 429}\n'
    )
    chat = {
        "model": "openai/gpt-audio",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "weather?"}]}],
    }
    with MockGateway(CODEC, script=read_script(path)) as gateway:
        statuses = [speak(gateway).status for _ in range(4)]
        answer = send_request(gateway, "POST", "/chat/completions", chat)

    assert statuses == [429, 200, 429, 200]
    assert answer.json == {"rain": True}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: no [[rule]]"),
        ("[[rule]]\nstatus = 200\nstatsu = 3\n", "line 3: unknown key 'statsu'"),
        ("[[rule]]\n[[rule]]\nstatus = 99\n", "line 3: status must be a status from 200 to 599"),
        ("[[rule]]\nstatus = true\n", "line 2: status must be"),
        ("[[rule]]\nbody = '''\n[[rule]]\n'''\n[[rule]]\nnth = 0\n", "line 6: nth must be"),
        ("[[rule]]\nnth = []\n", "line 2: nth must be"),
        ("[[rule]]\nheaders = { A = 1 }\n", "line 2: headers must be"),
        ('[[rule]]\nheaders = { A = "x\\r\\nB: c" }\n', "line 2: headers must be"),
        ("[[rule]]\ndelay = 61\n", "line 2: delay must be seconds from 0 to 60"),
        ("[[rule]]\ncut = -1\n", "line 2: cut must be"),
        ("[[rule]]\npath = 1\n", "line 2: path must be a string"),
        ("[[rule]]\nbody = 2026-01-01\n", "line 2: body must be"),
        ('[[rule]]\nbody = "x"\nbody_file = "y"\n', "line 3: body and body_file are both set"),
        ('[[rule]]\nbody_file = "missing"\n', "line 2: cannot read"),
        ("[[rule]]\nstatus = \n", "line 2: not TOML"),
        ("[[rule]]\nbody = '''", "line 2: not TOML"),
        ("[rule]\nstatus = 200\n", "line 1: 'rule' is not [[rule]]"),
        ("\n[other]\n", "line 2: 'other' is not [[rule]]"),
        ('{"status": 200}\n{"status": 1}\n', "line 2: status must be"),
        ('{"status": 200}\n[1]\n', "line 2: a rule must be an object"),
        ('{"status": 200}\n\n{\n', "line 3: not JSON"),
    ],
)
def test_invalid_script_is_refused_with_its_line(
    audiocli: CommandLine, tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(InvalidScript) as caught:
        read_script(write_script(tmp_path, text))
    assert str(caught.value).startswith(message)

    r = audiocli("mock", "--script", tmp_path / "script.toml", "--", "true")
    assert (r.code, message in r.err) == (2, True), r.err


def test_script_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_bytes(b"[[rule]]\ntext = '\xff'\n")

    with pytest.raises(InvalidScript, match="line 2: not UTF-8"):
        read_script(tmp_path / "s.toml")


# --- journal ---------------------------------------------------------------------------------------------------------


def test_journal_has_every_exchange_and_no_key(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"n": 0}\n')
    with MockGateway(CODEC, journal_path=path) as gateway:
        speak(gateway, input="read sk-or-test aloud \x7f")
        send_request(gateway, "GET", "/models", key="sk-or-of-the-user-1234567")
        send_request(gateway, "POST", "/audio/speech", {"input": "x"}, key="sk-or-of-the-user-1234567")
        send_request(gateway, "GET", "/models?key=sk-or-of-the-user-1234567")
        speak(gateway, model="no/such-model")
    lines = path.read_text("utf-8")
    entries = read_journal(path)[1:]

    for entry in entries:
        check("mock-journal-line", entry)
    assert "sk-or" not in lines and "1234567" not in lines and "\x7f" not in lines
    assert "4567" not in lines
    assert [entry["n"] for entry in entries] == [1, 2, 3, 4, 5]
    assert [entry["status"] for entry in entries] == [200, 200, 401, 200, 404]
    assert (entries[0]["text"], entries[0]["is_billed"]) == ("read [key] aloud \x7f", True)
    assert entries[0]["cost_usd"] == pytest.approx(0.000004 * 23)
    assert entries[0]["response_bytes"] > 10_000
    assert entries[4]["problems"] == ["Model no/such-model does not exist"] or entries[4]["problems"]


# --- local engine ----------------------------------------------------------------------------------------------------


@pytest.fixture
def engine_server(directory: Path, variables: dict[str, str]) -> Iterator[Server]:
    from tests.requirements import require_packages

    require_packages("espeakng_loader", "pocketsphinx")
    with serve(directory, variables, "--engine", "local", "--journal", "j.jsonl") as server:
        yield server


def test_engine_serves_openai_client(engine_server: Server, variables: dict[str, str]) -> None:
    base_url = engine_server.variables["OPENAI_BASE_URL"]
    formats: tuple[Any, ...] = ("wav", "pcm", "mp3", "opus", "aac", "flac")
    with openai.OpenAI(base_url=base_url, api_key="any", max_retries=0) as client:
        models = {model.id for model in client.models.list()}
        speech = {
            name: client.audio.speech.create(
                model="espeak", input="hello world", voice="en-us", response_format=name, speed=1.2
            ).read()
            for name in formats
        }
        file = ("talk.wav", speech["wav"])
        text = client.audio.transcriptions.create(model="pocketsphinx", file=file).text
        verbose = client.audio.transcriptions.create(
            model="pocketsphinx", file=file, response_format="verbose_json", timestamp_granularities=["word", "segment"]
        )
        captions = [
            client.audio.transcriptions.create(model="pocketsphinx", file=file, response_format=name)
            for name in ("srt", "vtt", "text")
        ]
        events = list(client.audio.transcriptions.create(model="pocketsphinx", file=file, stream=True))

    assert {"espeak", "pocketsphinx", "tts-1", "whisper-1"} <= models
    starts = {name: content[:4] for name, content in speech.items() if name != "pcm"}
    assert (starts["wav"], starts["opus"], starts["flac"]) == (b"RIFF", b"OggS", b"fLaC")
    assert len(speech["pcm"]) / 48_000 == pytest.approx((len(speech["wav"]) - 44) / 44_100, abs=0.02)
    assert text == "hello world"
    assert [word.word.strip() for word in verbose.words or []] == ["hello", "world"]
    assert verbose.duration == pytest.approx(len(speech["pcm"]) / 48_000, abs=0.05)
    assert str(captions[0]).startswith("1\n00:00:00,") and str(captions[1]).startswith("WEBVTT")
    assert (str(captions[2]).strip(), events[-1].type) == ("hello world", "transcript.text.done")
    assert not (Path(variables["HOME"]) / "data").exists() and not (Path(variables["HOME"]) / "cache").exists()


def test_engine_reports_errors_as_openai_does(engine_server: Server) -> None:
    base_url = engine_server.variables["OPENAI_BASE_URL"]
    with openai.OpenAI(base_url=base_url, api_key="any", max_retries=0) as client:
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            client.audio.speech.create(model="nothing", input="x", voice="alloy")
        with pytest.raises(openai.BadRequestError, match="unknown espeak voice 'xx-none'"):
            client.audio.speech.create(model="espeak", input="x", voice="xx-none")
        with pytest.raises(openai.BadRequestError, match="not a transcription model"):
            client.audio.transcriptions.create(model="espeak", file=("a.wav", SPEECH))
        with pytest.raises(openai.BadRequestError, match="might be corrupted") as caught:
            client.audio.transcriptions.create(model="pocketsphinx", file=("a.mp3", b"no audio " * 100))
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="tts-1", messages=[{"role": "user", "content": "x"}])
        with pytest.raises(openai.BadRequestError, match="supports English only"):
            client.audio.transcriptions.create(model="pocketsphinx", file=("a.wav", SPEECH), language="de")

    assert "upload" not in str(caught.value)


def test_engine_stops_when_the_client_disconnects_and_serves_the_next(engine_server: Server) -> None:
    host, port = engine_server.url.removeprefix("http://").split(":")
    body = json.dumps({"model": "espeak", "input": "This is a long text. " * 3000, "response_format": "wav"}).encode()
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    status, audio = engine_server.request("/v1/audio/speech", {"model": "espeak", "input": "hi"})

    assert (status, len(audio) > 500) == (200, True)
    engine_server.process.terminate()
    _, err = engine_server.process.communicate(timeout=30)
    assert (engine_server.process.returncode, "Traceback" in err) == (0, False), err


def test_audiocli_uses_the_engine(directory: Path, variables: dict[str, str]) -> None:
    from tests.requirements import require_packages

    require_packages("espeakng_loader")
    done = run_mock(directory, variables, "--engine", "local", command="audiocli speak 'hello world' -o a.mp3 --json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["gateway"] == "openai"
    assert 0.3 < json.loads(done.stdout)["duration_s"] < 3


# --- examples --------------------------------------------------------------------------------------------------------


def test_examples_of_the_tutorial_work(directory: Path, variables: dict[str, str]) -> None:
    examples = CHECKOUT / "examples"
    tutorial = (CHECKOUT / "docs" / "tutorials" / "speech-in-ci.md").read_text("utf-8")
    script, workflow = examples / "check-speech.sh", examples / "speech-workflow.yml"
    assert f"```bash\n{script.read_text('utf-8')}```" in tutorial
    assert f"```yaml\n{workflow.read_text('utf-8')}```" in tutorial
    steps = [line.partition("run: ")[2] for line in workflow.read_text("utf-8").splitlines() if "audiocli mock" in line]
    (directory / "examples").symlink_to(examples)
    (directory / "README.md").symlink_to(CHECKOUT / "README.md")
    assert len(steps) == 2

    for step in steps:
        done = subprocess.run(
            ["/bin/sh", "-c", step.replace("python3", sys.executable)],
            cwd=directory,
            env=variables,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (done.returncode, "FAILED" in done.stdout) == (0, False), f"{step}: {done.stdout}{done.stderr}"
        assert done.stdout.strip()


def test_script_of_the_page_is_valid(tmp_path: Path) -> None:
    page = (CHECKOUT / "docs" / "commands" / "mock.md").read_text("utf-8")
    script = read_script(write_script(tmp_path, page.split("```toml\n", 1)[1].split("```", 1)[0]))

    assert script is not None
