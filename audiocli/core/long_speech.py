"""Speak a long text: in pieces that are fetched several at a time, delivered in order, and paid for once."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol

from ..codecs.concat import PcmConcatenator
from ..costs import total
from ..errors import AttemptError, AudiocliError, OutputError, OutputClosed, UsageError
from ..outputs.write_scheduler import WriteScheduler
from ..text.splitter import Chunk
from ..types.values import Pcm, Route, RunResult, SpeechResult, SpeechRequest
from .audio_pipeline import Delivery, Outlet
from .progress import SpeakingProgress
from .retry_policy import RetryPolicy
from .route_warnings import told_once
from .run_context import Output, Sink, RunContext
from .speech import SpeechTask, speak

# So many pieces beside those in flight may be there and wait for one before them; each holds an open file.
PIECES_AHEAD = 32
# How much of a piece that failed is quoted.
QUOTED_CHARACTERS = 40
# Changes when the same request would give other samples.
KEPT_VERSION = 1


class KeptPiece(Sink, Protocol):
    """The sink of one piece, readable while it is written."""

    pcm: Pcm | None

    @property
    def duration_s(self) -> float: ...

    def reopen(self) -> bool: ...

    def discard(self) -> None: ...

    def chunks(self, *, is_live: bool) -> AsyncIterator[bytes]: ...


class KeptPieces(Protocol):
    def has(self, name: str) -> bool: ...

    def audio(self, name: str, lane: WriteScheduler | None = None) -> KeptPiece: ...

    def rename(self, name: str, other: str) -> None: ...

    def remove(self, names: Sequence[str]) -> None: ...


class LongSpeechTask(NamedTuple):
    """One long `speak`. `is_live`: sound is wanted as it comes, so a piece that is being heard cannot start over."""

    request: SpeechRequest
    pieces: AsyncIterator[Chunk]
    outlets: tuple[Outlet, ...]
    output: Output
    policy: RetryPolicy
    stash: KeptPieces
    progress: SpeakingProgress
    jobs: int = 4
    pause_ms: float = 0.0
    is_live: bool = False
    resumes: bool = True
    tag: str | None = None


class LongSpeechResult(NamedTuple):
    """A finished reading; `spoken` tells how long each piece became, in order."""

    receipt: SpeechResult
    spoken: tuple[tuple[Chunk, float], ...]
    kept: int


class _Job:
    """One piece on its way; without a task it was kept from an earlier run, or its twin is on the way already."""

    def __init__(self, number: int, piece: Chunk, name: str, sink: KeptPiece, twin: _Job | None = None) -> None:
        self.number = number
        self.piece = piece
        self.name = name
        self.sink = sink
        self.twin = twin
        self.task: asyncio.Task[SpeechResult] | None = None


def kept_name(request: SpeechRequest, route: Route) -> str:
    """Name a piece by all that decides how it sounds."""
    told = [KEPT_VERSION, route.gateway, route.base_url, route.model, route.voice, request.text, request.speed]
    told += [request.instructions, json.dumps(dict(request.options), sort_keys=True)]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


async def read_aloud(
    reading: LongSpeechTask, routes: Sequence[Route], skipped: Sequence[tuple[Route, AudiocliError]], tools: RunContext
) -> LongSpeechResult:
    """Speak the pieces in order, then commit the sinks.

    All pieces are spoken over one route, for a second voice in the middle of a book would be worse than none: the
    first piece chooses it. Nothing is left at a target when this raises; the pieces that were paid for are kept.
    Raises: any AudiocliError, with the place in the text.
    """
    desk = _ChunkedSpeech(reading, routes, skipped, told_once(tools))
    try:
        receipt = await desk.run()
    except BaseException as error:
        # What is under way is paid for and may finish, unless nobody wants to wait or to hear any more.
        try:
            await desk.stop(may_finish=isinstance(error, AudiocliError) and not isinstance(error, OutputClosed))
        finally:
            await reading.output.abandon()
        raise
    await reading.output.commit()
    reading.stash.remove(tuple(desk.names))
    return receipt


class _ChunkedSpeech:
    """Starts pieces, as many at a time as are allowed, and delivers them in their order."""

    def __init__(
        self, reading: LongSpeechTask, routes: Sequence[Route], skipped: Sequence[tuple[Route, AudiocliError]], tools: RunContext
    ) -> None:
        self._reading = reading
        self._routes = tuple(routes)
        self._skipped = skipped
        self._tools = tools
        self._room = asyncio.Semaphore(reading.jobs)
        # What is heard as it comes is not paid for long before; a file wants the gateway busy while it is written.
        self._ahead = asyncio.Semaphore(reading.jobs + (0 if reading.is_live else PIECES_AHEAD))
        self._order: asyncio.Queue[_Job | BaseException | None] = asyncio.Queue()
        # What is heard now must not wait behind what is heard later.
        self._lane = None if reading.is_live else WriteScheduler()
        self._jobs: set[_Job] = set()
        self._under_way: dict[str, _Job] = {}
        self._has_failed = False
        self._chosen: asyncio.Future[Route] = asyncio.get_running_loop().create_future()
        self._joiner = PcmConcatenator()
        self._deliveries: list[Delivery] = []
        self._served: list[RunResult] = []
        self._warnings: list[str] = []
        self._first_byte_s: float | None = None
        # In order, and each once.
        self.names: dict[str, None] = {}

    async def run(self) -> LongSpeechResult:
        started_s = self._tools.now_s()
        producing = asyncio.create_task(self._produce())
        spoken: list[tuple[Chunk, float]] = []
        before: Chunk | None = None
        try:
            while (job := await self._order.get()) is not None:
                if isinstance(job, BaseException):
                    raise job
                await self._deliver(job, before)
                spoken.append((job.piece, job.sink.duration_s))
                before = job.piece
                self._reading.progress.done += 1
                self._reading.progress.audio_s += job.sink.duration_s
                job.sink.discard()
                self._jobs.discard(job)
                if self._under_way.get(job.name) is job:
                    del self._under_way[job.name]
                self._ahead.release()
            await self._feed(self._joiner.finish())
            delivered = [await delivery.finish() for delivery in self._deliveries]
        finally:
            producing.cancel()
            await asyncio.gather(producing, return_exceptions=True)
            for delivery in self._deliveries:
                delivery.close()
        if not delivered:
            raise UsageError("no text to speak", hint="give it as an argument, with -F FILE, or through a pipe")
        served = self._sum(started_s)
        receipt = SpeechResult(
            run=served,
            size_bytes=delivered[0].size_bytes,
            sha256=delivered[0].sha256,
            format=delivered[0].format,
            duration_s=self._joiner.samples / self._joiner.pcm.sample_rate_hz if self._joiner.pcm else None,
            warnings=tuple(dict.fromkeys(self._warnings)),
        )
        return LongSpeechResult(receipt, tuple(spoken), self._reading.progress.kept)

    async def stop(self, *, may_finish: bool) -> None:
        """End the pieces that are under way: when they are done, or at once."""
        tasks = [job.task for job in self._jobs if job.task is not None]
        try:
            if may_finish:
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for one in tasks:
                one.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for job in self._jobs:
                job.sink.discard()

    async def _produce(self) -> None:
        """Start pieces while there is room and nothing has failed."""
        number = 0
        try:
            async for piece in self._reading.pieces:
                await self._ahead.acquire()
                await self._room.acquire()
                if self._has_failed:
                    return
                if number and len(self._routes) > 1:
                    await asyncio.shield(self._chosen)
                number += 1
                job = self._start(number, piece)
                if job.task is None:
                    self._room.release()
                self._order.put_nowait(job)
            self._order.put_nowait(None)
        except Exception as error:  # noqa: BLE001 - it is raised again where the pieces are waited for
            self._order.put_nowait(error)

    def _start(self, number: int, piece: Chunk) -> _Job:
        """Take a piece as it was kept, or ask for it."""
        routes = self._routes if not self._chosen.done() else (self._chosen.result(),)
        request = self._reading.request._replace(text=piece.text, format="pcm")
        for route in routes if self._reading.resumes else ():
            name = kept_name(request, route)
            sink = self._reading.stash.audio(name)
            if sink.reopen():
                job = _Job(number, piece, name, sink)
                # The same sentence twice in one text is spoken once.
                self._reading.progress.kept += name not in self.names
                self._note(job, route)
                return job
        name = kept_name(request, routes[0])
        # A sentence that stands twice in a text, and is being spoken now, is waited for.
        twin = self._under_way.get(name)
        job = _Job(number, piece, name, self._reading.stash.audio(name, self._lane), twin)
        if twin is None:
            job.task = asyncio.create_task(self._fetch(job, request, routes))
            job.task.add_done_callback(lambda _: self._room.release())
            self._under_way[name] = job
        self._note(job, None)
        return job

    def _note(self, job: _Job, route: Route | None) -> None:
        self._jobs.add(job)
        self.names[job.name] = None
        if route is not None and not self._chosen.done():
            self._chosen.set_result(route)

    async def _fetch(self, job: _Job, request: SpeechRequest, routes: Sequence[Route]) -> SpeechResult:
        sink = job.sink
        speech = SpeechTask(request, (Outlet(sink, "pcm", is_hashed=False),), sink, self._reading.policy, self._reading.tag)
        try:
            receipt = await speak(speech, routes, self._skipped, self._tools)
        except AudiocliError as error:
            self._has_failed = True
            _place(error, job, self._reading)
            if not self._chosen.done():
                self._chosen.set_exception(error)
                self._chosen.exception()  # it is told by the job itself
            raise
        if not self._chosen.done():
            self._chosen.set_result(receipt.run.route)
        spoken_by = kept_name(request, receipt.run.route)
        if spoken_by != job.name:
            self._reading.stash.rename(job.name, spoken_by)
            job.name = spoken_by
            self.names[spoken_by] = None
        self._served.append(receipt.run)
        self._reading.progress.costs.append((receipt.run.cost_nanousd, receipt.run.cost_source))
        self._warnings += receipt.warnings
        return receipt

    async def _deliver(self, job: _Job, before: Chunk | None) -> None:
        """Pass one piece on, and wait for its end. Raises: AudiocliError: it has none."""
        has_begun = False
        if job.twin is not None and job.twin.task is not None:
            await job.twin.task
            job.sink = self._reading.stash.audio(job.twin.name)
            if not job.sink.reopen():
                # Another process that spoke the same text was done with it, and removed it.
                job.sink = self._reading.stash.audio(job.twin.name)
                request = self._reading.request._replace(text=job.piece.text, format="pcm")
                job.task = asyncio.create_task(self._fetch(job, request, (self._chosen.result(),)))
        async for chunk in job.sink.chunks(is_live=self._reading.is_live):
            if not has_begun:
                has_begun = True
                assert job.sink.pcm is not None
                pause_ms = self._reading.pause_ms if before is not None and before.ends_paragraph else 0.0
                await self._feed(self._joiner.begin(job.sink.pcm, pause_ms=pause_ms))
            await self._feed(self._joiner.feed(chunk))
            # The next request goes out first: its gateway thinks while this is written.
            await asyncio.sleep(0)
        if job.task is not None:
            await job.task

    async def _feed(self, samples: bytes) -> None:
        if not samples:
            return
        if not self._deliveries:
            assert self._joiner.pcm is not None
            self._first_byte_s = self._tools.now_s()
            self._deliveries = [
                Delivery(outlet, arriving="pcm", pcm=self._joiner.pcm) for outlet in self._reading.outlets
            ]
            for delivery in self._deliveries:
                await delivery.begin()
        for delivery in self._deliveries:
            await delivery.feed(samples)

    def _sum(self, started_s: float) -> RunResult:
        """Add up what the pieces took. What was kept costs nothing again."""
        route = self._chosen.result()
        costs = [(served.cost_nanousd, served.cost_source) for served in self._served]
        cost_nanousd, cost_source = total(costs)
        first = self._served[0] if self._served else None
        return RunResult(
            route=route,
            model=first.model if first is not None else route.model,
            requests=sum(served.requests for served in self._served),
            attempts=sum(served.attempts for served in self._served),
            cost_nanousd=cost_nanousd,
            cost_source=cost_source,
            generation_ids=tuple(one for served in self._served for one in served.generation_ids),
            first_byte_s=None if self._first_byte_s is None else self._first_byte_s - started_s,
            elapsed_s=self._tools.now_s() - started_s,
            skipped=first.skipped if first is not None else (),
        )


def _place(error: AudiocliError, job: _Job, reading: LongSpeechTask) -> None:
    """Say where in the text a piece failed, and that the others are not lost."""
    if isinstance(error, OutputError) and not isinstance(error, AttemptError):
        return
    start = " ".join(job.piece.text[:QUOTED_CHARACTERS].split())
    dots = "…" if len(job.piece.text) > QUOTED_CHARACTERS else ""
    of = f" of {reading.progress.pieces}" if reading.progress.pieces else ""
    error.message = f"piece {job.number}{of}, from character {job.piece.start + 1:,} ({start}{dots}): {error.message}"
    if reading.resumes:
        again = "what was spoken is kept: the same command goes on from there"
        error.hint = f"{error.hint}; {again}" if error.hint else again
