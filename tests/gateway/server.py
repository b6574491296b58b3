"""The server: accepts connections, reads requests, remembers them, and lets the dialects and the script answer."""

from __future__ import annotations

import json
import socket
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from .bill import Bill, Charged
from .conversation import Conversation
from .desk import Desk
from .dialects import DIALECTS
from .faults import Fault
from .http1 import BrokenRequest, Connection
from .script import Gate, Script
from .seen import Seen
from .talk import ANSWER
from .words import Hearing, Said, TimedSegment, TimedWord

HOST = "127.0.0.1"


def closed_port() -> int:
    """Give a port on which nobody listens."""
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


class LoopbackGateway:
    """AI audio gateways on a loopback port, for the length of a `with` block.

    `latency_s` passes before each reply to a POST. `generation_lag` is how often `/generation` does not know an id
    yet. `keep_audio` keeps recordings whole in `requests`. `log` gets one JSON line for each request, flushed before
    the reply begins. Leaving the block raises what went wrong inside the double itself.
    """

    def __init__(
        self,
        *,
        latency_s: float = 0.0,
        generation_lag: int = 0,
        keep_audio: bool = False,
        key_limit_usd: float | None = None,
        log: Path | None = None,
    ) -> None:
        self.latency_s = latency_s
        self.keep_audio = keep_audio
        self.bill = Bill(generation_lag, key_limit_usd)
        self.said: Said | Hearing = Said()
        self.answer = ANSWER
        self.desk = Desk(base_url=DIALECTS["therouter"].prefix)
        self.faults = Script()
        self.gate = Gate()
        self.closing = threading.Event()
        self.connections = 0
        self.peak_in_flight = 0
        self._in_flight = 0
        self._changed = threading.Condition()
        self._seen: list[Seen] = []
        self._serial = 0
        self._broken: list[str] = []
        self._live: dict[Connection, threading.Thread] = {}
        self._log_path = log
        self._log: IO[str] | None = None
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self.url = ""

    # --- the block ---------------------------------------------------------------------------------------------------

    def __enter__(self) -> LoopbackGateway:
        self._listener = socket.create_server((HOST, 0), backlog=512)
        self.url = f"http://{HOST}:{self._listener.getsockname()[1]}"
        self.desk.root = self.url
        if self._log_path is not None:
            self._log = self._log_path.open("a", encoding="utf-8")
        self._acceptor = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self.gate.open()
        assert self._listener is not None and self._acceptor is not None
        try:
            socket.create_connection(self._listener.getsockname(), timeout=0.2).close()
        except OSError:
            pass
        self._acceptor.join(0.5)
        self._listener.close()
        self.desk.store.close()
        with self._changed:
            live = dict(self._live)
        for connection in live:
            connection.wake()
        deadline = time.monotonic() + 0.4
        for thread in live.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        if self._log is not None:
            self._log.close()
        if self._broken and error is None:
            raise AssertionError("the double broke:\n" + "\n".join(self._broken))

    def base_url(self, dialect: str) -> str:
        """Give the base URL of a gateway: openrouter, openai, groq, therouter, arouter or plain."""
        return self.url + DIALECTS[dialect].prefix

    # --- what it saw -------------------------------------------------------------------------------------------------

    @property
    def requests(self) -> list[Seen]:
        with self._changed:
            return list(self._seen)

    @property
    def posts(self) -> list[Seen]:
        """The requests that ask for work."""
        return [seen for seen in self.requests if seen.method == "POST"]

    @property
    def problems(self) -> list[str]:
        """Everything that was wrong with any request."""
        return [f"{seen.method} {seen.path}: {problem}" for seen in self.requests for problem in seen.problems]

    @property
    def billed(self) -> list[Charged]:
        return self.bill.charged

    @property
    def bill_nanousd(self) -> int:
        return self.bill.total_nanousd()

    def wait_for_requests(self, count: int, timeout_s: float = 10.0, *, path: str | None = None) -> list[Seen]:
        """Wait until so many requests (to a path with this end) were read and judged; their replies may not have begun.

        Raises: TimeoutError.
        """

        def fitting() -> list[Seen]:
            return [seen for seen in self._seen if path is None or seen.path.endswith(path)]

        with self._changed:
            if not self._changed.wait_for(lambda: len(fitting()) >= count, timeout_s):
                raise TimeoutError(f"{len(fitting())} requests after {timeout_s} s, not {count}")
            return fitting()

    # --- what it does ------------------------------------------------------------------------------------------------

    def says(
        self,
        said: str | Said | Hearing,
        *,
        words: Sequence[TimedWord] | None = None,
        segments: Sequence[TimedSegment] | None = None,
        language: str | None = "english",
    ) -> None:
        """Set what every recording says: a text, a `Said`, or a function of (first megabyte of audio, seconds)."""
        self.said = Said(said, words, segments, language) if isinstance(said, str) else said

    def script(
        self,
        *faults: Fault,
        dialect: str | None = None,
        path: str | None = None,
        model: str | None = None,
        method: str = "POST",
    ) -> None:
        """Let each of the next requests that fit meet one of these faults, in order."""
        self.faults.add(faults, standing=False, dialect=dialect, path=path, model=model, method=method)

    def always(
        self,
        fault: Fault,
        *,
        dialect: str | None = None,
        path: str | None = None,
        model: str | None = None,
        method: str = "POST",
    ) -> None:
        """Let every request that fits meet this fault once the script is through."""
        self.faults.add((fault,), standing=True, dialect=dialect, path=path, model=model, method=method)

    def behave(self) -> None:
        """Forget all faults."""
        self.faults.clear()

    def hold(self, *, after_bytes: int | None = None) -> None:
        """Hold replies to POSTs back until `release`: before the status line, or after so many bytes of the body."""
        self.gate.shut(after_bytes)

    def release(self) -> None:
        self.gate.open()

    def wait_for_held(self, count: int = 1, timeout_s: float = 10.0) -> None:
        """Wait until so many replies are being held. Raises: TimeoutError."""
        self.gate.wait_for(count, timeout_s)

    # --- for the conversations ---------------------------------------------------------------------------------------

    def next_serial(self) -> str:
        with self._changed:
            self._serial += 1
            return str(self._serial)

    def enter(self, seen: Seen) -> None:
        """Remember a request, and write it to the log before its reply begins."""
        with self._changed:
            self._seen.append(seen)
            if self._log is not None and not self._log.closed:
                self._log.write(json.dumps({"n": len(self._seen), **seen.note()}) + "\n")
                self._log.flush()
            self._changed.notify_all()

    def count_in_flight(self, change: int) -> None:
        with self._changed:
            self._in_flight += change
            self.peak_in_flight = max(self.peak_in_flight, self._in_flight)

    def _accept(self, listener: socket.socket) -> None:
        while not self.closing.is_set():
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            if self.closing.is_set():
                sock.close()
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(sock)
            thread = threading.Thread(target=self._converse, args=(connection,), daemon=True)
            with self._changed:
                self.connections += 1
                self._live[connection] = thread
            thread.start()

    def _converse(self, connection: Connection) -> None:
        try:
            conversation = Conversation(self, connection)
            while not self.closing.is_set() and conversation.next():
                pass
        except (OSError, BrokenRequest):
            pass
        except Exception:  # noqa: BLE001 - raised again where the block ends
            self._broken.append(traceback.format_exc())
        finally:
            connection.close()
            with self._changed:
                self._live.pop(connection, None)
