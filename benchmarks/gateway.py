"""A loopback gateway for stopwatches: it tells when it read a request and when it sent its first byte.

`python benchmarks/gateway.py` prints its port and ends when its stdin closes. It answers at once, checks nothing and
keeps nothing, so that what is measured is the client; the gateway that minds the rules is `tests/gateway`. Below
`/trickle` it thinks for `THINKING_S` and then sends its audio frame by frame, below `/slow` it thinks for `SLOW_S`, and
below `/reading` it thinks for `READING_S` and speaks for as long as its text would take. `GET /last` gives the times of
the latest POST on CLOCK_MONOTONIC, which all processes of a machine share, and how many there were since it was asked.
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

# Faster than any real gateway begins to speak. What a client does in this time costs its user nothing.
THINKING_S = 0.1
# About as long as a quick gateway takes for a short recording.
SLOW_S = 0.3
READING_S = 0.5
# 15 characters a second, at 24,000 Hz and 16 bit.
READING_BYTES_PER_CHARACTER = 3200
FRAME_S = 0.02
FRAMES = 20
PIECE_BYTES = 1 << 20

# MPEG-1 layer III, 128 kbit/s, 44,100 Hz, mono, and nothing in it: 26 ms of silence.
MP3_FRAME = b"\xff\xfb\x90\xc0" + bytes(413)
# 20 ms of silence at 24,000 Hz, mono, 16 bit.
PCM_FRAME = bytes(960)

SPEECH = {"mp3": ("audio/mpeg", MP3_FRAME), "pcm": ("audio/pcm;rate=24000;channels=1", PCM_FRAME)}
TRANSCRIPT = json.dumps({"text": "The quick brown fox jumps over the lazy dog."}).encode()
# Something that is not silent, so that nobody can make it shorter.
HUM = memoryview(bytes(range(200)) * 4800)

# As long as OpenRouter's list of models for sound, and in its shape.
LIST = {
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


class Stopwatch(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 0
    last: ClassVar[dict[str, int]] = {}
    counting: ClassVar[threading.Lock] = threading.Lock()

    def do_GET(self) -> None:
        found = self.last if self.path == "/last" else LIST if "/models" in self.path else None
        if self.path == "/last":
            Stopwatch.last = {}
        self._answer(200 if found is not None else 404, "application/json", (json.dumps(found or {}).encode(),))

    def do_POST(self) -> None:
        start, size_bytes = self._drain()
        now_ns = time.monotonic_ns()
        with self.counting:
            first_ns, posts = self.last.get("first_ns", now_ns), self.last.get("posts", 0) + 1
            Stopwatch.last = {"first_ns": first_ns, "posts": posts, "received_ns": now_ns, "size_bytes": size_bytes}
        if self.path.startswith("/slow/"):
            time.sleep(SLOW_S)
        if self.path.endswith("/audio/transcriptions"):
            self._answer(200, "application/json", (TRANSCRIPT,))
        elif self.path.endswith("/audio/speech"):
            asked = json.loads(start)
            content_type, frame = SPEECH[asked.get("response_format", "mp3")]
            trickles = self.path.startswith("/trickle/")
            if trickles:
                time.sleep(THINKING_S)
            if self.path.startswith("/reading/"):
                time.sleep(READING_S)
                self._read_out(content_type, len(asked["input"]) * READING_BYTES_PER_CHARACTER)
                return
            self._answer(200, content_type, (frame,) * FRAMES, pause_s=FRAME_S if trickles else 0.0)
        else:
            self._answer(404, "application/json", (b"{}",))

    def _drain(self) -> tuple[bytes, int]:
        """Read the body and forget it, but for its first piece."""
        left = size_bytes = int(self.headers.get("Content-Length", "0"))
        piece = memoryview(bytearray(min(PIECE_BYTES, max(1, left))))
        start = b""
        while left:
            count = self.rfile.readinto(piece[: min(left, len(piece))])
            if not count:
                raise ConnectionResetError("the client left in the middle of its request")
            start = start or bytes(piece[: min(count, 64 * 1024)])
            left -= count
        return start, size_bytes

    def _read_out(self, content_type: str, size_bytes: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(size_bytes))
        self.end_headers()
        for at in range(0, size_bytes, len(HUM)):
            self.wfile.write(HUM[: size_bytes - at])

    def _answer(self, status: int, content_type: str, pieces: tuple[bytes, ...], *, pause_s: float = 0.0) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(sum(map(len, pieces))))
        self.end_headers()
        if self.command == "POST":
            self.last["first_byte_ns"] = time.monotonic_ns()
        for piece in pieces if pause_s else (b"".join(pieces),):
            self.wfile.write(piece)
            time.sleep(pause_s)

    def log_message(self, format: str, *args: object) -> None:
        return


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), OSError):  # a client may leave
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def main() -> int:
    server = Server((HOST, 0), Stopwatch)
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while os.read(sys.stdin.fileno(), 4096):
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
