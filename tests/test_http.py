"""The HTTP client: proxies, reuse of connections, late and early responses, URLs."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import http.server
import json
import socketserver
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from audiocli.errors import UsageError
from audiocli.http.url import parse_url
from audiocli.mock import Status, expected_pcm
from tests.conftest import CommandLine
from tests.pyav_codec import encode, expected_audio
from tests.test_processes import Program

TEXT = "Hello there, world."


class Proxy(http.server.BaseHTTPRequestHandler):
    """A proxy that forwards POSTs and records their URLs."""

    forwarded: list[str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.forwarded.append(self.path)
        headers = {
            name: value for name, value in self.headers.items() if name.lower() in ("authorization", "content-type")
        }
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            urllib.request.Request(self.path, body, headers, method="POST"), timeout=20
        ) as response:
            content = response.read()
            self.send_response(response.status)
            self.send_header("Content-Type", response.headers["Content-Type"])
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[str]]]:
    forwarded: list[str] = []
    handler = type("RecordingProxy", (Proxy,), {"forwarded": forwarded})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", forwarded
        server.shutdown()
        thread.join(10)


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy", "ALL_PROXY"])
def test_proxy_from_environment_is_used(
    audiocli: CommandLine, tmp_path: Path, proxy: tuple[str, list[str]], variable: str
) -> None:
    url, forwarded = proxy
    audiocli.variables[variable] = url
    output = tmp_path / "x.mp3"

    process = Program(audiocli).start("speak", TEXT, "-o", output)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 0, err
    assert forwarded == [audiocli.gateway.base_url("openrouter") + "/audio/speech"]
    assert output.read_bytes() == expected_audio(TEXT, "mp3")


def test_no_proxy_excludes_host(audiocli: CommandLine, tmp_path: Path, proxy: tuple[str, list[str]]) -> None:
    url, forwarded = proxy
    audiocli.variables |= {"http_proxy": url, "no_proxy": "127.0.0.1"}

    process = Program(audiocli).start("speak", TEXT, "-o", tmp_path / "x.mp3")
    _, err = process.communicate(timeout=60)

    assert (process.returncode, forwarded) == (0, []), err


def test_unreachable_proxy_is_connection_error(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.variables["http_proxy"] = "http://127.0.0.1:9"

    process = Program(audiocli).start("speak", TEXT, "-o", tmp_path / "x.mp3", "-g", "openrouter")
    _, err = process.communicate(timeout=60)

    assert process.returncode == 7, err
    assert [entry["outcome"] for entry in audiocli.read_ledger_entries()] == ["unsent"] * 3


def test_early_response_ends_upload(audiocli: CommandLine, tmp_path: Path) -> None:
    recording = tmp_path / "long.wav"
    recording.write_bytes(encode(expected_pcm("Hello there, world. " * 4000), "wav"))
    audiocli.gateway.queue_faults(Status(401, before_body=True))

    r = audiocli("transcribe", recording, "--no-split", "-m", "openrouter:openai/whisper-large-v3")

    assert r.code == 4, r.err
    assert [(entry["outcome"], entry["status"]) for entry in r.ledger] == [("refused", 401)]


@pytest.mark.parametrize(("surplus", "connections"), [(b"", 1), (b"HTTP/1.1 500 Oops\r\n\r\n", 3)])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_connection_with_surplus_bytes_is_not_reused(
    audiocli: CommandLine, tmp_path: Path, surplus: bytes, connections: int, is_chunked: bool
) -> None:
    samples = expected_pcm(TEXT)
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(samples), samples) if is_chunked else samples
    framing = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {len(samples)}"
    head = f"HTTP/1.1 200 OK\r\nContent-Type: audio/pcm\r\n{framing}\r\n\r\n".encode()
    request_counts: list[int] = []

    class SurplusHandler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            request_counts.append(0)
            while self.rfile.readline():
                headers = http.client.parse_headers(self.rfile)
                self.rfile.read(int(headers["Content-Length"]))
                request_counts[-1] += 1
                self.wfile.write(head + body + surplus)

    with _Server(SurplusHandler) as url:
        text = " ".join([TEXT, TEXT.upper(), TEXT.lower()])
        r = audiocli(
            *("speak", text, "--max-chars", "25", "-j", "1", "-o", tmp_path / "x.pcm"),
            *("-m", "openai:tts-1", "--base-url", url),
        )

    assert r.code == 0, r.err
    assert (len(request_counts), sum(request_counts)) == (connections, 3)
    assert len((tmp_path / "x.pcm").read_bytes()) == 3 * len(samples)


def test_late_response_is_not_attributed_to_next_request(audiocli: CommandLine, tmp_path: Path) -> None:
    """A connection with an outstanding response is not reused: the next request would read that response."""
    for number in range(4):
        samples = expected_pcm(f"Recording {number}.")
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{number}.wav").write_bytes(encode(samples, "wav"))
    handled: list[int] = []

    class LateHandler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline():
                headers = http.client.parse_headers(self.rfile)
                body = self.rfile.read(int(headers["Content-Length"]))
                handled.append(len(handled))
                if len(handled) == 2:
                    time.sleep(2.0)
                payload = json.dumps({"text": f"{hashlib.sha256(_extract_wav(body)).hexdigest()}"}).encode()
                head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
                self.wfile.write(head.encode() + payload)

        def finish(self) -> None:
            with contextlib.suppress(OSError):
                super().finish()

    with _Server(LateHandler) as url:
        r = audiocli(
            *("transcribe", tmp_path / "in", "-O", tmp_path / "out", "-j", "1", "--timeout", "1"),
            *("-m", "openai:whisper-1", "--base-url", url),
        )

    texts = sorted((tmp_path / "out").glob("*.txt"))
    assert (r.code, len(handled), len(texts)) == (3, 4, 3), r.err
    for text in texts:
        recording = (tmp_path / "in" / f"{text.stem}.wav").read_bytes()
        assert text.read_text().strip() == hashlib.sha256(recording).hexdigest()


def _extract_wav(form: bytes) -> bytes:
    """Return the WAV file in a multipart form."""
    start = form.index(b"RIFF")
    return form[start : start + 8 + int.from_bytes(form[start + 4 : start + 8], "little")]


class _Server:
    """Context manager of a server with the given handler; returns its base URL."""

    def __init__(self, handler: type[socketserver.BaseRequestHandler]) -> None:
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


def test_url_credentials_are_sent_and_not_printed(audiocli: CommandLine, tmp_path: Path) -> None:
    url = audiocli.gateway.base_url("plain").replace("http://", "http://us%40er:s3cret@")

    r = audiocli("speak", TEXT, "--debug", "-o", tmp_path / "x.mp3", "-m", "openai:tts-1", "--base-url", url)

    assert r.code == 0, r.err
    assert r.requests[0].headers["authorization"] == "Basic dXNAZXI6czNjcmV0"
    assert "s3cret" not in r.err


@pytest.mark.parametrize(
    ("url", "authority", "target"),
    [
        ("http://127.0.0.1:8000/v1/x", "127.0.0.1:8000", "/v1/x"),
        ("https://Example.com", "example.com", "/"),
        ("http://[::1]:80/a?b=c%20d", "[::1]", "/a?b=c%20d"),
        ("https://bücher.example:443/é", "xn--bcher-kva.example", "/%C3%A9"),
        ("http://u:p@h:1/a b", "h:1", "/a%20b"),
    ],
)
def test_url_is_parsed(url: str, authority: str, target: str) -> None:
    parsed = parse_url(url)

    assert (parsed.authority, parsed.target) == (authority, target)


@pytest.mark.parametrize(
    "url", ["", "ftp://x/", "http://", "http:///x", "http://h:99999/", "http://h:x/", "http://a b/", "http://h/\n", "x"]
)
def test_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        parse_url(url)
