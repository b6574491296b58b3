"""The server of the mock gateway: accepts connections, records requests and queues faults."""

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

from .access import OPEN_ACCESS, Access
from .audio_codec import AudioCodec
from .billing import Billing, Charge
from .chat_replies import DEFAULT_CHAT_REPLY
from .dialects import build_dialects
from .engine import SpeechEngine
from .fault_queue import FaultQueue, ResponseGate
from .faults import Fault
from .http_connection import Connection, InvalidRequest
from .jobs_api import JobsApi
from .journal import Journal
from .recorded_request import RecordedRequest
from .request_handler import RequestHandler
from .response_script import ResponseScript
from .spoken_texts import SpokenTexts
from .transcripts import MockTranscript, TimedSegment, TimedWord, TranscriptFactory

HOST = "127.0.0.1"


def find_closed_port() -> int:
    """Return a port without a listener."""
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


class MockGateway:
    """A server for all dialects on a loopback port, used as a context manager.

    Args:
        codec: Encodes speech and measures uploads. The default encodes pcm and wav only.
        latency_s: Delay before each response to a POST.
        generation_misses: Number of lookups for which a generation ID is still unknown.
        keep_audio: Keep complete recordings in `requests`.
        keep_requests: Keep requests in `requests`, which takes memory.
        key_limit_usd: Spending limit of the key, as `/key` reports it.
        log_path: File that gets one JSON line for each request, flushed before the response begins.
        host: Address to listen on, and its `port`; 0 is a free one.
        access: Who may send requests.
        script: Chooses responses before the queue of faults does.
        journal_path: File that gets one JSON line for each exchange, when its response has ended.
        engine: Serves the dialect `engine` at `/v1`. Without it, that path is not served.
        hears_speech: The transcript of a WAV file with speech of this gateway is the text that was spoken.

    Raises:
        OSError: At the start of the block: the address or the file cannot be used.
        RuntimeError: At the end of the block, if a handler thread raised an exception.
    """

    def __init__(
        self,
        codec: AudioCodec | None = None,
        *,
        latency_s: float = 0.0,
        generation_misses: int = 0,
        keep_audio: bool = False,
        keep_requests: bool = True,
        key_limit_usd: float | None = None,
        log_path: Path | None = None,
        host: str = HOST,
        port: int = 0,
        access: Access = OPEN_ACCESS,
        script: ResponseScript | None = None,
        journal_path: Path | None = None,
        engine: SpeechEngine | None = None,
        hears_speech: bool = False,
    ) -> None:
        self.dialects = build_dialects(codec or AudioCodec(), engine)
        self.access = access
        self.script = script
        self._address = (host, port)
        self._journal_path = journal_path
        self._journal: Journal | None = None
        self.latency_s = latency_s
        self.keep_audio = keep_audio
        self._keep_requests = keep_requests
        self.billing = Billing(generation_misses, key_limit_usd)
        self.transcript: MockTranscript | TranscriptFactory = MockTranscript()
        self.spoken_texts = SpokenTexts() if hears_speech else None
        self.chat_reply = DEFAULT_CHAT_REPLY
        self.jobs_api = JobsApi(base_url=self.dialects["therouter"].prefix)
        self.fault_queue = FaultQueue()
        self.response_gate = ResponseGate()
        self.closing = threading.Event()
        self.connection_count = 0
        self.peak_in_flight = 0
        self._in_flight = 0
        self._changed = threading.Condition()
        self._requests: list[RecordedRequest] = []
        self._serial = 0
        self._recorded_count = 0
        self._tracebacks: list[str] = []
        self._connection_threads: dict[Connection, threading.Thread] = {}
        self._log_path = log_path
        self._log_file: IO[str] | None = None
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self.url = ""

    # --- context manager ---------------------------------------------------------------------------------------------

    def __enter__(self) -> MockGateway:
        if self._journal_path is not None:
            self._journal = Journal(self._journal_path)
        self._listener = socket.create_server(self._address, backlog=512)
        self.url = f"http://{HOST}:{self._listener.getsockname()[1]}"
        self.jobs_api.root_url = self.url
        if self._log_path is not None:
            self._log_file = self._log_path.open("a", encoding="utf-8")
        self._acceptor = threading.Thread(target=self._accept_connections, args=(self._listener,), daemon=True)
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self.response_gate.open()
        assert self._listener is not None and self._acceptor is not None
        try:
            socket.create_connection((HOST, self._listener.getsockname()[1]), timeout=0.2).close()
        except OSError:
            pass
        self._acceptor.join(0.5)
        self._listener.close()
        self.jobs_api.store.close()
        with self._changed:
            threads = dict(self._connection_threads)
        for connection in threads:
            connection.shut_down()
        deadline = time.monotonic() + 0.4
        for thread in threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        if self._log_file is not None:
            self._log_file.close()
        if self._journal is not None:
            self._journal.close()
        if self._tracebacks and error is None:
            raise RuntimeError("exception in the mock gateway:\n" + "\n".join(self._tracebacks))

    def base_url(self, dialect: str) -> str:
        """Return the base URL of a dialect: openrouter, openai, groq, therouter, arouter or plain."""
        return self.url + self.dialects[dialect].prefix

    # --- recorded requests -------------------------------------------------------------------------------------------

    @property
    def requests(self) -> list[RecordedRequest]:
        with self._changed:
            return list(self._requests)

    @property
    def posts(self) -> list[RecordedRequest]:
        """The POST requests, without lookups."""
        return [recorded for recorded in self.requests if recorded.method == "POST"]

    @property
    def problems(self) -> list[str]:
        """The problems of all requests."""
        return [
            f"{recorded.method} {recorded.path}: {problem}"
            for recorded in self.requests
            for problem in recorded.problems
        ]

    @property
    def charges(self) -> list[Charge]:
        return self.billing.charges

    @property
    def billed_nanousd(self) -> int:
        return self.billing.total_nanousd()

    def wait_for_requests(
        self, count: int, timeout_s: float = 10.0, *, path: str | None = None
    ) -> list[RecordedRequest]:
        """Wait until `count` requests were recorded; their responses may not have begun.

        `path` selects requests whose path has this suffix.

        Raises: TimeoutError.
        """

        def find_matching() -> list[RecordedRequest]:
            return [recorded for recorded in self._requests if path is None or recorded.path.endswith(path)]

        with self._changed:
            if not self._changed.wait_for(lambda: len(find_matching()) >= count, timeout_s):
                target = f"requests to {path}" if path is not None else "requests"
                raise TimeoutError(
                    f"timed out after {timeout_s} s waiting for {count} {target}; {len(find_matching())} were received"
                )
            return find_matching()

    # --- behavior ----------------------------------------------------------------------------------------------------

    def set_transcript(
        self,
        transcript: str | MockTranscript | TranscriptFactory,
        *,
        words: Sequence[TimedWord] | None = None,
        segments: Sequence[TimedSegment] | None = None,
        language: str | None = "english",
    ) -> None:
        """Set the transcript of all recordings.

        `transcript` is a text, a `MockTranscript` or a function of (first megabyte of audio, seconds).
        """
        self.transcript = (
            MockTranscript(transcript, words, segments, language) if isinstance(transcript, str) else transcript
        )

    def queue_faults(
        self,
        *faults: Fault,
        dialect: str | None = None,
        path: str | None = None,
        model: str | None = None,
        method: str = "POST",
    ) -> None:
        """Apply one fault to each of the next matching requests, in order."""
        self.fault_queue.add(faults, is_default=False, dialect=dialect, path=path, model=model, method=method)

    def add_default_fault(
        self,
        fault: Fault,
        *,
        dialect: str | None = None,
        path: str | None = None,
        model: str | None = None,
        method: str = "POST",
    ) -> None:
        """Apply a fault to all matching requests for which no fault is queued."""
        self.fault_queue.add((fault,), is_default=True, dialect=dialect, path=path, model=model, method=method)

    def clear_faults(self) -> None:
        """Remove all faults."""
        self.fault_queue.clear()

    def hold_responses(self, *, after_bytes: int | None = None) -> None:
        """Hold responses to POSTs until `release_responses`: before the status line or after some bytes of the body."""
        self.response_gate.close(after_bytes)

    def release_responses(self) -> None:
        self.response_gate.open()

    def wait_for_held_responses(self, count: int = 1, timeout_s: float = 10.0) -> None:
        """Wait until `count` responses are held.

        Raises: TimeoutError.
        """
        self.response_gate.wait_for_held(count, timeout_s)

    # --- used by RequestHandler --------------------------------------------------------------------------------------

    def next_serial(self) -> str:
        with self._changed:
            self._serial += 1
            return str(self._serial)

    def record_request(self, recorded: RecordedRequest) -> None:
        """Record a request and write it to the log, before its response begins."""
        with self._changed:
            self._recorded_count += 1
            recorded.number = self._recorded_count
            if self._keep_requests:
                self._requests.append(recorded)
            if self._log_file is not None and not self._log_file.closed:
                self._log_file.write(json.dumps({"n": len(self._requests), **recorded.to_log_entry()}) + "\n")
                self._log_file.flush()
            self._changed.notify_all()

    def finish_exchange(self, recorded: RecordedRequest) -> None:
        """Write an exchange to the journal, when its response has ended."""
        if self._journal is not None:
            self._journal.write(recorded)

    def count_in_flight(self, change: int) -> None:
        with self._changed:
            self._in_flight += change
            self.peak_in_flight = max(self.peak_in_flight, self._in_flight)

    def _accept_connections(self, listener: socket.socket) -> None:
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
            thread = threading.Thread(target=self._serve_connection, args=(connection,), daemon=True)
            with self._changed:
                self.connection_count += 1
                self._connection_threads[connection] = thread
            thread.start()

    def _serve_connection(self, connection: Connection) -> None:
        try:
            handler = RequestHandler(self, connection)
            while not self.closing.is_set() and handler.handle_next():
                pass
        except (OSError, InvalidRequest):
            pass
        except Exception:  # noqa: BLE001 - reported at the end of the block
            self._tracebacks.append(traceback.format_exc())
        finally:
            connection.close()
            with self._changed:
                self._connection_threads.pop(connection, None)
