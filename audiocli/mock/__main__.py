"""Run the mock gateway as a process: `python -m audiocli.mock --port-file PATH`.

The process exits when its stdin closes or on SIGTERM. The port file is renamed into place when the server is ready.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from pathlib import Path

from .faults import Drip, parse_fault
from .server import MockGateway

# How often the process looks for signals.
SIGNAL_INTERVAL_S = 0.1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m audiocli.mock")
    parser.add_argument("--port-file", type=Path, required=True, help="write the port number to this file")
    parser.add_argument("--log", type=Path, help="append a JSON line for each request, before its response begins")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="delay before each response to a POST")
    parser.add_argument("--drip", metavar="BYTES:MS", help="send bodies in blocks of BYTES, MS apart")
    parser.add_argument(
        "--generation-misses", type=int, default=0, help="404 responses of /generation before it knows an ID"
    )
    parser.add_argument(
        "--fault",
        metavar="JSON",
        action="append",
        default=[],
        help='queue a fault, for example {"fault": "Status", "code": 503}',
    )
    parser.add_argument("--default-fault", metavar="JSON", help="fault of every request once the queue is empty")
    parser.add_argument("--transcript", help="transcript of every recording")
    options = parser.parse_args()

    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    signal.signal(signal.SIGINT, lambda *_: done.set())
    gateway = MockGateway(
        latency_s=options.latency_ms / 1000, generation_misses=options.generation_misses, log_path=options.log
    )
    if options.drip:
        size, _, pause_ms = options.drip.partition(":")
        gateway.add_default_fault(Drip(int(size), float(pause_ms or 1) / 1000))
    if options.default_fault:
        gateway.add_default_fault(parse_fault(options.default_fault))
    gateway.queue_faults(*(parse_fault(text) for text in options.fault))
    if options.transcript is not None:
        gateway.set_transcript(options.transcript)
    with gateway:
        part = options.port_file.with_name(options.port_file.name + ".part")
        part.write_text(gateway.url.rpartition(":")[2], encoding="ascii")
        part.replace(options.port_file)
        threading.Thread(target=_watch_stdin, args=(done,), daemon=True).start()
        while not done.is_set():
            # Handlers run in this thread only. A signal that another one has received does not end the pause.
            time.sleep(SIGNAL_INTERVAL_S)
    return 0


def _watch_stdin(done: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    done.set()


if __name__ == "__main__":
    sys.exit(main())
