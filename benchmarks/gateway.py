"""Loopback gateway that records when it has read a request and when it sends its first byte.

`python benchmarks/gateway.py` prints its port and exits when its stdin closes. It responds immediately, checks nothing
and stores nothing, so that the client dominates the measurement. The gateway that checks requests is `audiocli.mock`.
Below `/trickle` it waits for `TRICKLE_DELAY_S` and sends its audio frame by frame. Below `/slow` it waits for
`SLOW_DELAY_S`. Below `/full-length` it sends audio of a length that fits the text. Below `/long-text` it also waits for
`LONG_TEXT_DELAY_S` before. `GET /last` returns the CLOCK_MONOTONIC times of the latest POST, comparable between
processes, and the number of POSTs since the previous `GET /last`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

HOST = "127.0.0.1"

# Shorter than the delay of any real gateway. Client work during this delay costs the user nothing.
TRICKLE_DELAY_S = 0.1
# Typical delay of a fast gateway for a short recording.
SLOW_DELAY_S = 0.3
LONG_TEXT_DELAY_S = 0.5
# 15 characters per second, at 24,000 Hz and 16 bit.
LONG_TEXT_BYTES_PER_CHARACTER = 3200
FRAME_S = 0.02
FRAMES = 20
BLOCK_BYTES = 1 << 20

# MPEG-1 layer III, 128 kbit/s, 44,100 Hz, mono: 26 ms of silence.
MP3_FRAME = b"\xff\xfb\x90\xc0" + bytes(413)
# 20 ms of silence at 24,000 Hz, mono, 16 bit.
PCM_FRAME = bytes(960)

SPEECH = {"mp3": ("audio/mpeg", MP3_FRAME), "pcm": ("audio/pcm;rate=24000;channels=1", PCM_FRAME)}
TRANSCRIPT = json.dumps({"text": "The quick brown fox jumps over the lazy dog."}).encode()
# Audio that is not silent, so that it cannot be shortened.
NOISE = memoryview(bytes(range(200)) * 4800)

# A model list of the length and structure of OpenRouter's list of audio models.
MODEL_LIST = {
    "data": [
        {
            "id": f"author-{number % 10}/model-{number}",
            "architecture": {"input_modalities": ["text"], "output_modalities": ["speech"]},
            "pricing": {"prompt": "0.000012", "completion": "0"},
            "supported_voices": [f"voice-{voice}" for voice in range(10)],
        }
        for number in range(100)
    ]
}


class TimingHandler(BaseHTTPRequestHandler):
    """Handle the requests of one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 0
    last: ClassVar[dict[str, int]] = {}
    lock: ClassVar[threading.Lock] = threading.Lock()

    def do_GET(self) -> None:
        payload = self.last if self.path == "/last" else MODEL_LIST if "/models" in self.path else None
        if self.path == "/last":
            TimingHandler.last = {}
        self._send(200 if payload is not None else 404, "application/json", (json.dumps(payload or {}).encode(),))

    def do_POST(self) -> None:
        start, size_bytes = self._read_body()
        now_ns = time.monotonic_ns()
        with self.lock:
            first_ns, posts = self.last.get("first_ns", now_ns), self.last.get("posts", 0) + 1
            TimingHandler.last = {"first_ns": first_ns, "posts": posts, "received_ns": now_ns, "size_bytes": size_bytes}
        if self.path.startswith("/slow/"):
            time.sleep(SLOW_DELAY_S)
        if self.path.endswith("/audio/transcriptions"):
            self._send(200, "application/json", (TRANSCRIPT,))
        elif self.path.endswith("/audio/speech"):
            request = json.loads(start)
            content_type, frame = SPEECH[request.get("response_format", "mp3")]
            is_trickling = self.path.startswith("/trickle/")
            if is_trickling:
                time.sleep(TRICKLE_DELAY_S)
            if self.path.startswith("/long-text/"):
                time.sleep(LONG_TEXT_DELAY_S)
            if self.path.startswith(("/long-text/", "/full-length/")):
                self._send_noise(content_type, len(request["input"]) * LONG_TEXT_BYTES_PER_CHARACTER)
                return
            self._send(200, content_type, (frame,) * FRAMES, pause_s=FRAME_S if is_trickling else 0.0)
        else:
            self._send(404, "application/json", (b"{}",))

    def _read_body(self) -> tuple[bytes, int]:
        """Read the body. Return its first block and its size."""
        remaining_bytes = size_bytes = int(self.headers.get("Content-Length", "0"))
        block = memoryview(bytearray(min(BLOCK_BYTES, max(1, remaining_bytes))))
        start = b""
        while remaining_bytes:
            count = self.rfile.readinto(block[: min(remaining_bytes, len(block))])
            if not count:
                raise ConnectionResetError("the client disconnected during its request")
            start = start or bytes(block[: min(count, 64 * 1024)])
            remaining_bytes -= count
        return start, size_bytes

    def _send_noise(self, content_type: str, size_bytes: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(size_bytes))
        self.end_headers()
        for offset in range(0, size_bytes, len(NOISE)):
            self.wfile.write(NOISE[: size_bytes - offset])

    def _send(self, status: int, content_type: str, blocks: tuple[bytes, ...], *, pause_s: float = 0.0) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(sum(map(len, blocks))))
        self.end_headers()
        if self.command == "POST":
            self.last["first_byte_ns"] = time.monotonic_ns()
        for block in blocks if pause_s else (b"".join(blocks),):
            self.wfile.write(block)
            time.sleep(pause_s)

    def log_message(self, format: str, *args: object) -> None:
        return


class TimingServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), OSError):  # a client may disconnect
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def main() -> int:
    server = TimingServer((HOST, 0), TimingHandler)
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while os.read(sys.stdin.fileno(), 4096):
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
