"""Measure the CPU time of a request with audiocli's connections and with those of httpcore.

    python benchmarks/http_client.py

Run it where audiocli is installed. Both clients are `HttpClient`; they differ only in the network backend of httpcore.
Each sends its requests over one connection to the loopback gateway, which is a process of its own. A recording of 96 kB
is uploaded, or speech of 96 kB is received. The rounds of the two clients alternate. The times are user and system time
of this process for each request.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from statistics import median
from unittest.mock import patch

import gateway
import httpcore
from harness import GatewayProcess

from audiocli.http.client import HttpClient
from audiocli.http.connection import AsyncioBackend
from audiocli.types.requests import HttpRequest, RequestBody

BODY_BYTES = 96_000
ROUNDS = 15
REQUESTS = 200
WARM_UP_REQUESTS = 20

BACKENDS = {"httpcore": httpcore.AnyIOBackend, "audiocli": AsyncioBackend}


def build_requests(url: str) -> dict[str, HttpRequest]:
    """Return a request with a long body, and one whose response has a long body."""
    text = "x" * (BODY_BYTES // gateway.LONG_TEXT_BYTES_PER_CHARACTER)
    speech = json.dumps({"input": text, "response_format": "pcm"}).encode()
    return {
        "upload": _build_request(f"{url}/v1/audio/transcriptions", "audio/wav", bytes(BODY_BYTES)),
        "download": _build_request(f"{url}/full-length/v1/audio/speech", "application/json", speech),
    }


def _build_request(url: str, content_type: str, content: bytes) -> HttpRequest:
    return HttpRequest("POST", url, body=RequestBody(content_type, len(content), lambda: iter((content,))))


async def measure_ms(backend: type[httpcore.AsyncNetworkBackend], request: HttpRequest, count: int) -> float:
    """Return the CPU time of a request, averaged over `count` requests on one connection."""
    opened = 0

    class CountingBackend(backend):  # type: ignore[misc, valid-type]
        async def connect_tcp(self, *args: object, **kwargs: object) -> httpcore.AsyncNetworkStream:
            nonlocal opened
            opened += 1
            return await super().connect_tcp(*args, **kwargs)

    async def send() -> None:
        async with client.open(request) as response:
            assert response.status == 200
            async for _ in response.iter_bytes():
                pass

    with patch("audiocli.http.client.AsyncioBackend", CountingBackend):
        client = HttpClient(read_timeout_s=30, variables={}, debug=lambda line: None)
        for _ in range(WARM_UP_REQUESTS):
            await send()
        started_s = time.process_time()
        for _ in range(count):
            await send()
        elapsed_s = time.process_time() - started_s
        await client.close()
    assert opened == 1, "the connection was not reused"
    return elapsed_s / count * 1000


def _format_values(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> int:
    parser = argparse.ArgumentParser(prog="http_client.py", description="Measure the CPU time of a request.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--requests", type=int, default=REQUESTS, help="Requests of each client in a round.")
    args = parser.parse_args()
    with GatewayProcess() as gateway_process:
        for kind, request in build_requests(gateway_process.url).items():
            times_ms: dict[str, list[float]] = {name: [] for name in BACKENDS}
            for _ in range(args.rounds):
                for name, backend in BACKENDS.items():
                    times_ms[name].append(asyncio.run(measure_ms(backend, request, args.requests)))
            ratios = [own / other for own, other in zip(times_ms["audiocli"], times_ms["httpcore"], strict=True)]
            for name, values in times_ms.items():
                sys.stdout.write(f"{kind:<9} {name:<9} {_format_values(values)} ms\n")
            sys.stdout.write(f"{kind:<9} ratio     {_format_values(ratios)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
