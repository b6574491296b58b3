"""The HTTP client against servers, proxies and certificates that misbehave."""

from __future__ import annotations

import asyncio
import gzip
import os
import re
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
import wave
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from audiocli.errors import ConnectionFailed, UsageError
from audiocli.http import HttpClient
from audiocli.http.proxies import find_proxy, is_excluded
from audiocli.http.url import parse_url
from audiocli.types.requests import HttpRequest
from tests.conftest import CommandLine, Result
from tests.pyav_codec import expected_audio
from tests.test_processes import Program

TEXT = "Hello there, world."
AUDIO = expected_audio(TEXT, "mp3")
CLOSED_PORT = "127.0.0.1:9"
# How long the loopback servers here wait for anything.
SERVER_TIMEOUT_S = 20.0

Answer = Callable[[socket.socket], None]


@pytest.fixture
def program(audiocli: CommandLine) -> Program:
    return Program(audiocli)


@contextmanager
def serve(answer: Answer, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Run a server that gives each connection to `answer`, and yield its base URL."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(SERVER_TIMEOUT_S)
            try:
                if tls is None:
                    answer(self.request)
                    return
                with tls.wrap_socket(self.request, server_side=True) as connection:
                    answer(connection)
            except OSError:
                return  # the client went away

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()
        thread.join(10)


class Authority(NamedTuple):
    """A certificate authority of the test, in a file, and the context of a server that it certified."""

    path: Path
    server_context: ssl.SSLContext


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    certificates = trustme.CA()
    path = tmp_path / "authority.pem"
    certificates.cert_pem.write_to_path(str(path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificates.issue_cert("127.0.0.1").configure_cert(context)
    return Authority(path, context)


def read_request(connection: socket.socket) -> tuple[bytes, bytes]:
    """Read one request with a Content-Length. Return its head and its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        received = connection.recv(65_536)
        if not received:
            raise ConnectionResetError
        data += received
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    while len(body) < int(length[1] if length else 0):
        body += connection.recv(65_536)
    return head, body


def build_response(body: bytes, *headers: str, status: str = "200 OK", content_type: str = "audio/mpeg") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def speak(audiocli: CommandLine, base_url: str, target: Path, *argv: str, **variables: str) -> Result:
    return audiocli(
        "speak", TEXT, "-g", "openai", "-m", "tts-1", "-o", target, *argv,
        variables={"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": base_url, **variables},
    )  # fmt: skip


# --- the environment --------------------------------------------------------------------------------------------------

BROKEN_ENVIRONMENTS = {
    "unknown proxy type": ({"all_proxy": f"socks4://{CLOSED_PORT}"}, 2, "all_proxy"),
    "ftp proxy": ({"HTTP_PROXY": f"ftp://{CLOSED_PORT}"}, 2, "HTTP_PROXY"),
    "malformed proxy": ({"http_proxy": "http://[::1"}, 2, "http_proxy"),
    "port out of range": ({"http_proxy": "http://127.0.0.1:99999"}, 2, "http_proxy"),
    "proxy without a host": ({"http_proxy": "http://"}, 2, "http_proxy"),
    "proxy that does not answer": ({"http_proxy": f"http://{CLOSED_PORT}"}, 7, "cannot connect"),
    "SOCKS proxy that does not answer": ({"http_proxy": f"socks5://{CLOSED_PORT}"}, 7, "cannot connect"),
}
BROKEN_CERTIFICATES = {
    "missing file": ({"SSL_CERT_FILE": "/nonexistent.pem"}, "SSL_CERT_FILE"),
    "not PEM": ({"SSL_CERT_FILE": "/etc/passwd"}, "SSL_CERT_FILE"),
    "a directory": ({"SSL_CERT_FILE": "/etc"}, "SSL_CERT_FILE"),
    "file as a directory": ({"SSL_CERT_DIR": "/etc/passwd"}, "SSL_CERT_DIR"),
}


@pytest.mark.parametrize("name", BROKEN_ENVIRONMENTS)
def test_broken_proxy_setting_is_an_error_that_names_it(audiocli: CommandLine, tmp_path: Path, name: str) -> None:
    variables, code, word = BROKEN_ENVIRONMENTS[name]

    r = speak(audiocli, "http://127.0.0.1:9/v1", tmp_path / "x.mp3", **variables)

    assert (r.code, word in r.err) == (code, True), r.err
    assert {entry["outcome"] for entry in r.ledger} <= {"unsent"}
    assert "Traceback" not in r.err


@pytest.mark.parametrize("name", BROKEN_CERTIFICATES)
def test_broken_certificate_setting_is_an_error_that_names_it(audiocli: CommandLine, tmp_path: Path, name: str) -> None:
    variables, word = BROKEN_CERTIFICATES[name]

    r = speak(audiocli, "https://127.0.0.1:9/v1", tmp_path / "x.mp3", **variables)

    assert (r.code, word in r.err) == (2, True), r.err
    assert {entry["outcome"] for entry in r.ledger} <= {"unsent"}


def test_next_model_is_tried_when_a_proxy_setting_is_broken(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli(
        "speak", "hi", "-m", "openrouter:openai/gpt-4o-mini-tts-2025-12-15", "-m", "local:espeak",
        "-o", tmp_path / "x.wav", variables={"all_proxy": f"socks4://{CLOSED_PORT}"},
    )  # fmt: skip

    assert r.code == 0, r.err
    assert "all_proxy" in r.err


def test_config_check_reports_a_broken_proxy_setting(audiocli: CommandLine) -> None:
    r = audiocli("config", "check", variables={"all_proxy": f"socks4://{CLOSED_PORT}"})

    assert r.code == 3, r.err
    assert "all_proxy" in r.text


def test_password_of_a_proxy_is_never_shown(audiocli: CommandLine, tmp_path: Path) -> None:
    for proxy in (f"http://user:hunter2@{CLOSED_PORT}", f"ftp://user:hunter2@{CLOSED_PORT}"):
        r = speak(audiocli, "http://127.0.0.1:9/v1", tmp_path / "x.mp3", "--debug", all_proxy=proxy)

        assert r.code in (2, 7)
        assert "hunter2" not in r.err.partition("Traceback")[0]


@pytest.mark.parametrize(
    ("no_proxy", "url", "expected"),
    [
        ("*", "http://example.com", True),
        ("example.com", "http://example.com", True),
        ("example.com", "http://api.example.com", True),
        (".example.com", "http://api.example.com", True),
        ("*.example.com", "http://api.example.com", True),
        ("example.com", "http://notexample.com", False),
        ("EXAMPLE.com", "http://Example.COM", True),
        ("example.com:8080", "http://example.com:8080", True),
        ("example.com:8080", "http://example.com", False),
        ("10.0.0.0/8", "http://10.1.2.3", True),
        ("10.0.0.0/8", "http://11.1.2.3", False),
        ("[::1]", "http://[::1]:8000", True),
        ("::1", "http://[0:0:0:0:0:0:0:1]", True),
        ("fd00::/8", "http://[fd12::1]", True),
        ("fd00::/8, localhost", "http://localhost:5000", True),
        ("invalid/99,,  ,", "http://example.com", False),
        ("", "http://example.com", False),
    ],
)
def test_no_proxy_covers_names_suffixes_addresses_and_networks(no_proxy: str, url: str, expected: bool) -> None:
    assert is_excluded(parse_url(url), no_proxy) is expected


def test_proxy_variables_are_those_of_curl() -> None:
    http, https = parse_url("http://a.example"), parse_url("https://a.example")

    assert find_proxy(http, {"http_proxy": "http://p:1", "HTTP_PROXY": "http://q:1"}) == ("http://p:1", "http_proxy")
    assert find_proxy(http, {"https_proxy": "http://p:1"}) is None
    assert find_proxy(https, {"ALL_PROXY": "p:3128"}) == ("http://p:3128", "ALL_PROXY")
    assert find_proxy(https, {"all_proxy": "http://p:1", "NO_PROXY": "a.example"}) is None
    with pytest.raises(UsageError, match="HTTPS_PROXY"):
        find_proxy(https, {"HTTPS_PROXY": "ftp://p"})


# --- a SOCKS proxy ----------------------------------------------------------------------------------------------------


def test_socks_proxy_gets_the_host_name(audiocli: CommandLine, tmp_path: Path) -> None:
    names: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        connection.recv(64)
        connection.sendall(b"\x05\x00")
        request = connection.recv(512)
        names.append(request[5 : 5 + request[4]])
        connection.sendall(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50")
        read_request(connection)
        connection.sendall(build_response(AUDIO))

    with serve(answer) as proxy:
        address = proxy.removeprefix("http://").removesuffix("/v1")
        r = speak(audiocli, "http://gateway.example/v1", tmp_path / "x.mp3", all_proxy=f"socks5h://{address}")

    assert (r.code, names) == (0, [b"gateway.example"]), r.err
    assert (tmp_path / "x.mp3").read_bytes() == AUDIO


# --- compressed and oddly labelled bodies -----------------------------------------------------------------------------


def deflate_raw(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "utf-8": bytes,
    "aws-chunked": bytes,
    "identity": bytes,
    "": bytes,
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZIP": gzip.compress,
    "gzip, identity": gzip.compress,
    "deflate": zlib.compress,
    "deflate (raw)": deflate_raw,
    "gzip, gzip": lambda data: gzip.compress(gzip.compress(data)),
    "deflate, gzip": lambda data: gzip.compress(zlib.compress(data)),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_body_is_decoded_as_labelled(audiocli: CommandLine, tmp_path: Path, name: str) -> None:
    body = ENCODINGS[name](AUDIO)
    label = name.partition(" (")[0]

    def answer(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(build_response(body, f"Content-Encoding: {label}"))

    with serve(answer) as base_url:
        r = speak(audiocli, base_url, tmp_path / "x.mp3")

    assert r.code == 0, r.err
    assert (tmp_path / "x.mp3").read_bytes() == AUDIO


@pytest.mark.parametrize(
    "body",
    [b"not gzip at all" * 10, gzip.compress(AUDIO)[:-20], gzip.compress(AUDIO)[:40]],
    ids=["not compressed", "end missing", "most missing"],
)
def test_damaged_compression_is_never_a_success(audiocli: CommandLine, tmp_path: Path, body: bytes) -> None:
    def answer(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(build_response(body, "Content-Encoding: gzip"))

    with serve(answer) as base_url:
        r = speak(audiocli, base_url, tmp_path / "x.mp3")

    assert r.code in (7, 9), r.err
    assert not (tmp_path / "x.mp3").exists()
    assert [entry["outcome"] for entry in r.ledger] == ["unknown"]


# --- uploads that are refused early -----------------------------------------------------------------------------------

REFUSAL = build_response(b'{"error":{"message":"bad key"}}', status="401 Unauthorized", content_type="application/json")


def answer_and_drain(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.sendall(REFUSAL)
    while connection.recv(1_000_000):
        continue


def answer_and_close(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.sendall(REFUSAL)
    connection.shutdown(socket.SHUT_WR)
    time.sleep(0.2)


def answer_and_stop_reading(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.sendall(REFUSAL)
    time.sleep(5)


@pytest.mark.parametrize("is_tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("answer", [answer_and_drain, answer_and_close, answer_and_stop_reading])
def test_early_refusal_of_an_upload_is_reported(
    audiocli: CommandLine, tmp_path: Path, authority: Authority, answer: Answer, is_tls: bool
) -> None:
    recording = tmp_path / "a.wav"
    with wave.open(str(recording), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(os.urandom(20_000_000))

    with serve(answer, authority.server_context if is_tls else None) as base_url:
        r = audiocli(
            "transcribe", recording, "-g", "openai", "-m", "whisper-1", "--no-split", "--timeout", "3",
            variables={
                "OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": base_url, "SSL_CERT_FILE": str(authority.path),
            },
        )  # fmt: skip

    assert r.code == 4, r.err
    assert "bad key" in r.err


# --- TLS --------------------------------------------------------------------------------------------------------------


def answer_with_audio(connection: socket.socket) -> None:
    for _ in range(2):
        read_request(connection)
        connection.sendall(build_response(AUDIO))


def test_speech_over_tls_is_complete(audiocli: CommandLine, tmp_path: Path, authority: Authority) -> None:
    with serve(answer_with_audio, authority.server_context) as base_url:
        r = speak(audiocli, base_url, tmp_path / "x.mp3", SSL_CERT_FILE=str(authority.path))

    assert r.code == 0, r.err
    assert (tmp_path / "x.mp3").read_bytes() == AUDIO


def test_certificate_of_unknown_authority_is_a_connection_error(
    audiocli: CommandLine, tmp_path: Path, authority: Authority
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))

    with serve(answer_with_audio, authority.server_context) as base_url:
        r = speak(audiocli, base_url, tmp_path / "x.mp3", SSL_CERT_FILE=str(other))

    assert r.code == 7, r.err
    assert "certificate verify failed" in r.err
    assert {entry["outcome"] for entry in r.ledger} == {"unsent"}


def test_body_that_ends_early_over_tls_is_cut_off(audiocli: CommandLine, tmp_path: Path, authority: Authority) -> None:
    def answer(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(build_response(AUDIO)[:-100])

    with serve(answer, authority.server_context) as base_url:
        r = speak(audiocli, base_url, tmp_path / "x.mp3", SSL_CERT_FILE=str(authority.path))

    assert r.code == 7, r.err
    assert not (tmp_path / "x.mp3").exists()
    assert [entry["outcome"] for entry in r.ledger] == ["unknown"]


# --- data before the request ------------------------------------------------------------------------------------------


def test_data_before_the_request_is_not_its_response() -> None:
    """Data may arrive after the idle connection was checked and before the request is written."""
    was_surplus_sent = threading.Event()

    def answer(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(build_response(b"first"))
        time.sleep(0.1)  # the first response is read without the surplus
        connection.sendall(build_response(b"surplus"))
        was_surplus_sent.set()
        connection.recv(65_536)

    async def send_twice(base_url: str) -> None:
        client = HttpClient(read_timeout_s=5, variables={}, debug=lambda message: None)
        request = HttpRequest("GET", base_url)
        async with client.open(request) as response:
            assert b"".join([block async for block in response.iter_bytes()]) == b"first"
        # Blocks the event loop, so that the surplus is read only while the second request is prepared.
        assert was_surplus_sent.wait(SERVER_TIMEOUT_S)
        with pytest.raises(ConnectionFailed, match="before the request"):
            async with client.open(request):
                pass
        await client.close()

    with serve(answer) as base_url:
        asyncio.run(send_twice(base_url))


# --- a process that was stopped ---------------------------------------------------------------------------------------


def test_response_that_arrived_while_the_process_was_stopped_is_used(
    audiocli: CommandLine, program: Program, tmp_path: Path
) -> None:
    received = threading.Event()
    stopped = threading.Event()

    def answer(connection: socket.socket) -> None:
        read_request(connection)
        received.set()
        stopped.wait(SERVER_TIMEOUT_S)
        connection.sendall(build_response(AUDIO))
        time.sleep(3)

    with serve(answer) as base_url:
        audiocli.variables |= {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": base_url}
        process = program.start(
            "speak", TEXT, "-g", "openai", "-m", "tts-1", "-o", tmp_path / "x.mp3", "--timeout", "1"
        )
        assert received.wait(SERVER_TIMEOUT_S)
        process.send_signal(signal.SIGSTOP)
        stopped.set()
        time.sleep(2)
        process.send_signal(signal.SIGCONT)
        _, err = process.communicate(timeout=30)

    assert process.returncode == 0, err
    assert (tmp_path / "x.mp3").read_bytes() == AUDIO


# --- idle connections -------------------------------------------------------------------------------------------------


def test_connection_that_was_idle_for_long_is_not_reused(tmp_path: Path) -> None:
    """Two requests, with a pause in which a server may close the connection."""
    connections: list[int] = []

    def answer(connection: socket.socket) -> None:
        connections.append(connection.fileno())
        while True:
            read_request(connection)
            connection.sendall(build_response(b"x"))

    script = (
        "import asyncio, sys, time\n"
        "from audiocli.http import HttpClient\n"
        "from audiocli.types.requests import HttpRequest\n"
        "async def main(url, pause):\n"
        "    client = HttpClient(read_timeout_s=5, variables={}, debug=lambda text: None)\n"
        "    for _ in range(2):\n"
        "        async with client.open(HttpRequest('GET', url)) as response:\n"
        "            assert b''.join([block async for block in response.iter_bytes()]) == b'x'\n"
        "        await asyncio.sleep(pause)\n"
        "    await client.close()\n"
        "asyncio.run(main(sys.argv[1], float(sys.argv[2])))\n"
    )
    counts = []
    with serve(answer) as base_url:
        for pause in ("0", "2.5"):
            before = len(connections)
            subprocess.run([sys.executable, "-c", script, base_url, pause], check=True, timeout=60)
            counts.append(len(connections) - before)

    assert counts == [1, 2]


# --- base URLs with a query -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "target"),
    [
        ("?api-version=2026-01", b"/v1/audio/speech?api-version=2026-01"),
        ("/?api-version=2026-01", b"/v1/audio/speech?api-version=2026-01"),
        ("#fragment", b"/v1/audio/speech"),
        ("?a=1&b=2#fragment", b"/v1/audio/speech?a=1&b=2"),
    ],
)
def test_query_of_a_base_url_follows_the_path(
    audiocli: CommandLine, tmp_path: Path, suffix: str, target: bytes
) -> None:
    heads: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        heads.append(read_request(connection)[0])
        connection.sendall(build_response(AUDIO))

    with serve(answer) as base_url:
        r = speak(audiocli, base_url + suffix, tmp_path / "x.mp3")

    assert r.code == 0, r.err
    assert heads[0].split(b" ")[:2] == [b"POST", target]


def test_request_does_not_load_the_command_line_of_httpx() -> None:
    """click is installed here, so httpx would load it, and rich and pygments with it."""
    script = "import sys, audiocli.http; print([name for name in ('click', 'rich', 'pygments') if name in sys.modules])"

    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)

    assert loaded.stdout == "[]\n"
