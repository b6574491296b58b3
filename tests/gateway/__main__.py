"""Run the double as a process of its own: `python -m tests.gateway --port-file PATH`.

It ends when its stdin closes or on SIGTERM. The port file appears whole, when the server is ready.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

from .faults import Drip, from_json
from .server import LoopbackGateway


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gateway")
    parser.add_argument("--port-file", type=Path, required=True, help="gets the port number")
    parser.add_argument("--log", type=Path, help="gets a JSON line for each request, before its reply begins")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="before each reply to a POST")
    parser.add_argument("--trickle", metavar="BYTES:MS", help="send bodies in pieces of BYTES, MS apart")
    parser.add_argument("--generation-lag", type=int, default=0, help="how often /generation answers 404 first")
    parser.add_argument(
        "--script", metavar="JSON", action="append", default=[], help='{"fault": "Status", "code": 503}'
    )
    parser.add_argument("--always", metavar="JSON", help="the fault of every request after the script")
    parser.add_argument("--says", help="what every recording says")
    asked = parser.parse_args()

    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    signal.signal(signal.SIGINT, lambda *_: done.set())
    gateway = LoopbackGateway(latency_s=asked.latency_ms / 1000, generation_lag=asked.generation_lag, log=asked.log)
    if asked.trickle:
        size, _, pause_ms = asked.trickle.partition(":")
        gateway.always(Drip(int(size), float(pause_ms or 1) / 1000))
    if asked.always:
        gateway.always(from_json(asked.always))
    gateway.script(*(from_json(text) for text in asked.script))
    if asked.says is not None:
        gateway.says(asked.says)
    with gateway:
        part = asked.port_file.with_name(asked.port_file.name + ".part")
        part.write_text(gateway.url.rpartition(":")[2], encoding="ascii")
        part.replace(asked.port_file)
        threading.Thread(target=_watch_stdin, args=(done,), daemon=True).start()
        done.wait()
    return 0


def _watch_stdin(done: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    done.set()


if __name__ == "__main__":
    sys.exit(main())
