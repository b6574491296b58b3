"""A real S3 server for tests: moto in a process of its own, behind a proxy that counts requests and injects faults."""

from __future__ import annotations

import http.client
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.requirements import require_packages

START_TIMEOUT_S = 60.0
SECRET = "wJalrXUtnFEMI-secret-of-the-tests"
ERROR = '<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'


class StoreRequest(NamedTuple):
    """A request that reached the proxy. `key` is the key of the object; empty for the bucket."""

    method: str
    bucket: str
    key: str
    query: dict[str, list[str]]
    size_bytes: int

    @property
    def is_read(self) -> bool:
        return self.method == "GET" and bool(self.key)

    @property
    def is_list(self) -> bool:
        return self.method == "GET" and not self.key


Fault = Callable[[StoreRequest], tuple[int, str] | None]


class ObjectStoreServer:
    """The proxy before moto. `fault` returns the status and code of an error for a request; None lets it pass."""

    def __init__(self, moto_port: int, tls: ssl.SSLContext | None = None) -> None:
        self._moto_port = moto_port
        self.requests: list[StoreRequest] = []
        self.fault: Fault | None = None
        self.before_put: Callable[[StoreRequest], None] | None = None
        self.before_put_body: Callable[[StoreRequest, bytes], None] | None = None
        self.read_bytes: list[int] = []
        self.page_size: int | None = None
        self.pending_count = 0
        self._lock = Lock()
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                parts = urlsplit(self.path)
                bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
                request = StoreRequest(self.command, bucket, key, parse_qs(parts.query), len(body))
                with store._lock:
                    store.requests.append(request)
                    fault = store.fault(request) if store.fault is not None else None
                if fault is None and request.method == "PUT" and store.before_put is not None:
                    store.before_put(request)
                if fault is None and request.method == "PUT" and store.before_put_body is not None:
                    store.before_put_body(request, body)
                if fault is not None:
                    status, content = fault[0], ERROR.format(code=fault[1]).encode()
                    headers = [("content-type", "application/xml")]
                else:
                    path = self.path
                    if request.is_list and store.page_size is not None:
                        path += f"&max-keys={store.page_size}"
                    status, headers, content = store.forward(self.command, path, body, dict(self.headers.items()))
                if request.is_read:
                    store.read_bytes.append(len(content))
                self.send_response(status)
                for name, value in headers:
                    if name.lower() not in ("content-length", "connection", "transfer-encoding", "date", "server"):
                        self.send_header(name, value)
                is_head = self.command == "HEAD"
                length = next((value for name, value in headers if name.lower() == "content-length"), "0")
                self.send_header("content-length", length if is_head and fault is None else str(len(content)))
                self.end_headers()
                if not is_head:
                    self.wfile.write(content)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self._server.server_address[1]}"

    @property
    def variables(self) -> dict[str, str]:
        """The environment that leads to this server."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    @property
    def reads(self) -> list[str]:
        return [request.key for request in self.requests if request.is_read]

    @property
    def writes(self) -> list[str]:
        return [request.key for request in self.requests if request.method in ("PUT", "POST")]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def reset(self) -> None:
        """Forget requests and faults."""
        self.requests.clear()
        self.read_bytes.clear()
        self.fault = self.before_put = self.before_put_body = None

    def forward(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Send a request to moto."""
        connection = http.client.HTTPConnection("127.0.0.1", self._moto_port, timeout=30)
        self.pending_count += 1
        try:
            connection.request(method, path, body=body, headers=headers)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            connection.close()
            self.pending_count -= 1

    # --- objects of the test, behind the proxy ------------------------------------------------------------------------

    def create_bucket(self, name: str) -> str:
        status, _, content = self._send("PUT", f"/{name}")
        assert status == 200, content
        return name

    def put(self, bucket: str, key: str, content: bytes) -> None:
        status, _, answer = self._send("PUT", f"/{bucket}/{quote(key)}", content)
        assert status == 200, answer

    def get(self, bucket: str, key: str) -> bytes | None:
        status, _, content = self._send("GET", f"/{bucket}/{quote(key)}")
        return content if status == 200 else None

    def delete(self, bucket: str, key: str) -> None:
        self._send("DELETE", f"/{bucket}/{quote(key)}")

    def list_keys(self, bucket: str, prefix: str = "") -> list[str]:
        keys: list[str] = []
        while True:
            start = f"&start-after={quote(keys[-1], safe='')}" if keys else ""
            query = f"list-type=2&encoding-type=url&prefix={quote(prefix, safe='')}{start}"
            _, _, content = self._send("GET", f"/{bucket}?{query}")
            text = content.decode()
            found = [unquote(part.partition("</Key>")[0]) for part in text.split("<Key>")[1:]]
            keys += found
            if "<IsTruncated>true" not in text:
                return keys

    def _send(self, method: str, path: str, body: bytes = b"") -> tuple[int, list[tuple[str, str]], bytes]:
        authorization = "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/s3/aws4_request"
        headers = {"content-length": str(len(body)), "authorization": authorization}
        return self.forward(method, path, body, headers)


@contextmanager
def run_moto() -> Iterator[int]:
    """Run moto's server in a process, and return its port."""
    require_packages("moto", "obstore", extras="dev")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for_port(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("moto did not start")
