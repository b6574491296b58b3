"""The ways out: straight to a server, through a proxy, and what happens when either end misbehaves."""

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
from audiocli.http.url import parsed
from tests.conftest import CommandLine
from tests.gateway import Status, encode, expected_audio, expected_pcm
from tests.test_processes import Program

TEXT = "Hello there, world."


class Proxy(http.server.BaseHTTPRequestHandler):
    """A proxy that passes POSTs on and remembers where they went."""

    passed: list[str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.passed.append(self.path)
        keep = {
            name: value for name, value in self.headers.items() if name.lower() in ("authorization", "content-type")
        }
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            urllib.request.Request(self.path, body, keep, method="POST"), timeout=20
        ) as reply:
            answer = reply.read()
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.headers["Content-Type"])
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[str]]]:
    passed: list[str] = []
    handler = type("RememberingProxy", (Proxy,), {"passed": passed})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", passed
        server.shutdown()
        thread.join(10)


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy", "ALL_PROXY"])
def test_a_proxy_of_the_environment_is_used(
    audiocli: CommandLine, tmp_path: Path, proxy: tuple[str, list[str]], variable: str
) -> None:
    address, passed = proxy
    audiocli.variables[variable] = address
    target = tmp_path / "x.mp3"

    process = Program(audiocli).start("speak", TEXT, "-o", target)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 0, err
    assert passed == [audiocli.gateway.base_url("openrouter") + "/audio/speech"]
    assert target.read_bytes() == expected_audio(TEXT, "mp3")


def test_no_proxy_spares_a_host_the_proxy(audiocli: CommandLine, tmp_path: Path, proxy: tuple[str, list[str]]) -> None:
    address, passed = proxy
    audiocli.variables |= {"http_proxy": address, "no_proxy": "127.0.0.1"}

    process = Program(audiocli).start("speak", TEXT, "-o", tmp_path / "x.mp3")
    _, err = process.communicate(timeout=60)

    assert (process.returncode, passed) == (0, []), err


def test_a_proxy_that_is_not_there_is_unreachable(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.variables["http_proxy"] = "http://127.0.0.1:9"

    process = Program(audiocli).start("speak", TEXT, "-o", tmp_path / "x.mp3", "-g", "openrouter")
    _, err = process.communicate(timeout=60)

    assert process.returncode == 7, err
    assert [entry["outcome"] for entry in audiocli.entries()] == ["unsent"] * 3


def test_a_reply_in_the_middle_of_an_upload_ends_it(audiocli: CommandLine, tmp_path: Path) -> None:
    recording = tmp_path / "long.wav"
    recording.write_bytes(encode(expected_pcm("Hello there, world. " * 4000), "wav"))
    audiocli.gateway.script(Status(401, early=True))

    r = audiocli("transcribe", recording, "--no-split", "-m", "openrouter:openai/whisper-large-v3")

    assert r.code == 4, r.err
    assert [(entry["outcome"], entry["status"]) for entry in r.ledger] == [("refused", 401)]


@pytest.mark.parametrize(("surplus", "connections"), [(b"", 1), (b"HTTP/1.1 500 Oops\r\n\r\n", 3)])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_connection_is_used_again_unless_it_says_more_than_it_promised(
    audiocli: CommandLine, tmp_path: Path, surplus: bytes, connections: int, is_chunked: bool
) -> None:
    samples = expected_pcm(TEXT)
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(samples), samples) if is_chunked else samples
    framing = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {len(samples)}"
    head = f"HTTP/1.1 200 OK\r\nContent-Type: audio/pcm\r\n{framing}\r\n\r\n".encode()
    seen: list[int] = []

    class Chatty(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            seen.append(0)
            while self.rfile.readline():
                headers = http.client.parse_headers(self.rfile)
                self.rfile.read(int(headers["Content-Length"]))
                seen[-1] += 1
                self.wfile.write(head + body + surplus)

    with _Serving(Chatty) as address:
        text = " ".join([TEXT, TEXT.upper(), TEXT.lower()])
        r = audiocli(
            *("speak", text, "--max-chars", "25", "-j", "1", "-o", tmp_path / "x.pcm"),
            *("-m", "openai:tts-1", "--base-url", address),
        )

    assert r.code == 0, r.err
    assert (len(seen), sum(seen)) == (connections, 3)
    assert len((tmp_path / "x.pcm").read_bytes()) == 3 * len(samples)


def test_an_answer_that_comes_too_late_is_nobody_elses(audiocli: CommandLine, tmp_path: Path) -> None:
    """A connection that still owes an answer is not used again: the next request would get it."""
    for number in range(4):
        sound = expected_pcm(f"Recording {number}.")
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{number}.wav").write_bytes(encode(sound, "wav"))
    served = []

    class Late(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline():
                headers = http.client.parse_headers(self.rfile)
                body = self.rfile.read(int(headers["Content-Length"]))
                served.append(len(served))
                if len(served) == 2:
                    time.sleep(2.0)
                told = json.dumps({"text": f"{hashlib.sha256(_wav_in(body)).hexdigest()}"}).encode()
                head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(told)}\r\n\r\n"
                self.wfile.write(head.encode() + told)

        def finish(self) -> None:
            with contextlib.suppress(OSError):
                super().finish()

    with _Serving(Late) as address:
        r = audiocli(
            *("transcribe", tmp_path / "in", "-O", tmp_path / "out", "-j", "1", "--timeout", "1"),
            *("-m", "openai:whisper-1", "--base-url", address),
        )

    texts = sorted((tmp_path / "out").glob("*.txt"))
    assert (r.code, len(served), len(texts)) == (3, 4, 3), r.err
    for text in texts:
        recording = (tmp_path / "in" / f"{text.stem}.wav").read_bytes()
        assert text.read_text().strip() == hashlib.sha256(recording).hexdigest()


def _wav_in(form: bytes) -> bytes:
    """Take the recording out of a form."""
    start = form.index(b"RIFF")
    return form[start : start + 8 + int.from_bytes(form[start + 4 : start + 8], "little")]


class _Serving:
    """A server of our own for as long as the block lasts; gives its address."""

    def __init__(self, handler: type[socketserver.BaseRequestHandler]) -> None:
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda request, client: None  # type: ignore[method-assign]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


def test_a_name_and_password_in_the_address_are_sent_and_never_shown(audiocli: CommandLine, tmp_path: Path) -> None:
    address = audiocli.gateway.base_url("plain").replace("http://", "http://us%40er:s3cret@")

    r = audiocli("speak", TEXT, "--debug", "-o", tmp_path / "x.mp3", "-m", "openai:tts-1", "--base-url", address)

    assert r.code == 0, r.err
    assert r.requests[0].headers["authorization"] == "Basic dXNAZXI6czNjcmV0"
    assert "s3cret" not in r.err


@pytest.mark.parametrize(
    ("url", "place", "target"),
    [
        ("http://127.0.0.1:8000/v1/x", "127.0.0.1:8000", "/v1/x"),
        ("https://Example.com", "example.com", "/"),
        ("http://[::1]:80/a?b=c%20d", "[::1]", "/a?b=c%20d"),
        ("https://bücher.example:443/é", "xn--bcher-kva.example", "/%C3%A9"),
        ("http://u:p@h:1/a b", "h:1", "/a%20b"),
    ],
)
def test_addresses_are_taken_apart(url: str, place: str, target: str) -> None:
    address = parsed(url)

    assert (address.place, address.target) == (place, target)


@pytest.mark.parametrize(
    "url", ["", "ftp://x/", "http://", "http:///x", "http://h:99999/", "http://h:x/", "http://a b/", "http://h/\n", "x"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        parsed(url)
