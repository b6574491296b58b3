"""Speak a long text in chunks.

Chunks are requested concurrently and written in order. The audio of finished chunks is stored, so that a rerun does
not pay for them again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from ..audio.processing import fit_tempo
from ..codecs.concat import PcmConcatenator
from ..errors import AttemptError, AudiocliError, OutputClosed, OutputError, UsageError
from ..outputs import Output
from ..storage.paid_results import ChunkFile, PaidResultStore
from ..text.speech_rate import find_short_speech, has_speakable_text
from ..text.splitter import Chunk
from ..text.timing import TimedChunk
from ..threads import run_in_thread
from ..types.audio import PcmFormat
from ..types.requests import SpeechRequest
from ..types.results import RunResult, SpeechResult
from ..types.routes import Route
from .attempts import deduplicate_messages, merge_runs
from .audio_pipeline import AudioOutput, AudioPipeline
from .progress import SpeechProgress
from .run_context import RunContext
from .speech import SpeechTask, TextTooLong, is_storable, speak
from .speech_names import compute_chunk_name
from .verdicts import format_time

if TYPE_CHECKING:
    from ..storage.phrase_cache import PhraseCache
    from .speech_verification import ChunkAudio, ChunkVerifier, Verification, VerifiedChunk

# Finished chunks that may wait for an earlier one, in addition to those in progress. Each holds an open file.
MAX_CHUNKS_AHEAD = 32
# The speech of a caption is made faster, up to this tempo, if it is longer than its time. Faster speech is hard to
# follow. Below the minimum, the difference is not worth processing.
MIN_CAPTION_TEMPO, MAX_CAPTION_TEMPO = 1.02, 1.5
# A caption whose speech begins later than this is reported.
MAX_CAPTION_DELAY_S = 0.05
# Length of the quotation from a chunk that failed.
MAX_QUOTED_CHARACTERS = 40


class LongSpeechTask(NamedTuple):
    """Speech of a long text.

    `audio_outputs` receive the audio; `output` commits or abandons all of them. `store` holds the audio of finished
    chunks. `pause_ms` is the silence between paragraphs. `is_live`: pass audio on as it arrives. A chunk then
    cannot restart once its first bytes were passed on. `can_split`: the caller can split the text into shorter chunks.
    `timeline` gets the position of each chunk in the audio, before the outputs are completed. `phrases` has the chunks
    of finished texts; None neither uses nor stores any. `resume`: use stored chunks. `verification`: listen to each
    chunk before it is written, and synthesize it again if it is wrong.
    """

    request: SpeechRequest
    chunks: AsyncIterator[Chunk]
    audio_outputs: tuple[AudioOutput, ...]
    output: Output
    store: PaidResultStore
    progress: SpeechProgress
    concurrency: int = 4
    pause_ms: float = 0.0
    is_live: bool = False
    resume: bool = True
    can_split: bool = False
    timeline: list[TimedChunk] | None = None
    phrases: PhraseCache | None = None
    verification: Verification | None = None

    @property
    def time_scale(self) -> float:
        """The factor by which processing changes times."""
        processing = self.audio_outputs[0].processing
        return 1.0 if processing is None else processing.scale


class LongSpeechResult(NamedTuple):
    """Speech of a long text. `timed_chunks` has each chunk in order with its position in the audio.

    `cached_count` is the number of chunks that an earlier run had paid for.
    """

    result: SpeechResult
    timed_chunks: tuple[TimedChunk, ...]
    cached_count: int


class _ChunkTask:
    """A chunk in progress.

    `task` is None if its audio is cached, or if `duplicate_of` is already requesting the same text. `verified`
    is what its verification has found.
    """

    def __init__(
        self, number: int, chunk: Chunk, name: str, chunk_file: ChunkFile, duplicate_of: _ChunkTask | None = None
    ) -> None:
        self.number = number
        self.chunk = chunk
        self.name = name
        self.chunk_file = chunk_file
        self.duplicate_of = duplicate_of
        self.starts_paragraph = False
        self.task: asyncio.Task[None] | None = None
        self.verified: VerifiedChunk | None = None


async def speak_long(
    task: LongSpeechTask, routes: Sequence[Route], skipped: Sequence[tuple[Route, AudiocliError]], ctx: RunContext
) -> LongSpeechResult:
    """Speak the chunks in order, then commit the outputs.

    All chunks use one route, which the first chunk determines, so that the voice does not change in the middle of a
    text. On an error the outputs are abandoned, or can be used again after `TextTooLong`; the audio of finished chunks
    stays in the store.

    Raises:
        TextTooLong: The text can be split into shorter chunks, and a gateway named the maximum length.
        AudiocliError: A chunk failed; the message gives its position in the text.
    """
    speech = _ChunkedSpeech(task, routes, skipped, deduplicate_messages(ctx))
    try:
        result = await speech.run()
    except BaseException as error:
        # Requests in progress are paid for, so let them finish, unless the user interrupted or closed the output.
        can_restart = isinstance(error, TextTooLong) and task.output.can_restart
        try:
            await speech.stop(may_finish=isinstance(error, AudiocliError) and not isinstance(error, OutputClosed))
        finally:
            await (task.output.restart() if can_restart else task.output.abandon())
        if isinstance(error, TextTooLong) and not can_restart:
            error.refusal.message, error.refusal.hint = error.message, error.hint
            raise error.refusal from error
        raise
    await task.output.commit()
    task.store.remove(tuple(speech.names))
    return result


class _ChunkedSpeech:
    """Requests chunks, at most `concurrency` at the same time, and writes them in order."""

    def __init__(
        self,
        task: LongSpeechTask,
        routes: Sequence[Route],
        skipped: Sequence[tuple[Route, AudiocliError]],
        ctx: RunContext,
    ) -> None:
        self._task = task
        self._routes = tuple(routes)
        self._default_voices = {route.ref: route.voice for route in routes}
        self._skipped = skipped
        self._ctx = ctx
        self._slots = asyncio.Semaphore(task.concurrency)
        # Live audio may be stopped at any time, so do not pay for it long before it is played. For a file, requesting
        # ahead keeps the gateway busy while an earlier chunk is written.
        self._prefetch = asyncio.Semaphore(task.concurrency + (0 if task.is_live else MAX_CHUNKS_AHEAD))
        self._queue: asyncio.Queue[_ChunkTask | BaseException | None] = asyncio.Queue()
        self._chunk_tasks: set[_ChunkTask] = set()
        self._in_progress: dict[str, _ChunkTask] = {}
        self._has_failed = False
        self._route: asyncio.Future[Route] = asyncio.get_running_loop().create_future()
        self._concatenator = PcmConcatenator()
        self._pipelines: list[AudioPipeline] = []
        self._runs: list[RunResult] = []
        self._verifier: ChunkVerifier | None = None
        if task.verification is not None:
            from .speech_verification import ChunkVerifier

            self._verifier = ChunkVerifier(
                task.verification, task.store, task.phrases, self._ctx, resume=task.resume, time_scale=task.time_scale
            )
        self._warnings: list[str] = []
        self._first_byte_s: float | None = None
        # Names of all chunks, as an ordered set.
        self._names: dict[str, None] = {}

    @property
    def names(self) -> list[str]:
        """Names of the stored audio, to be removed when the output is complete."""
        return [*self._names, *(() if self._verifier is None else self._verifier.names)]

    async def run(self) -> LongSpeechResult:
        started_s = self._ctx.now_s()
        producer = asyncio.create_task(self._start_chunks())
        timed_chunks: list[TimedChunk] = []
        previous: Chunk | None = None
        try:
            while (chunk_task := await self._queue.get()) is not None:
                if isinstance(chunk_task, BaseException):
                    raise chunk_task
                if chunk_task.starts_paragraph and previous is not None:
                    previous = replace(previous, is_paragraph_end=True)
                    timed_chunks[-1] = timed_chunks[-1]._replace(chunk=previous)
                timed_chunks.append(await self._deliver(chunk_task, previous))
                previous = chunk_task.chunk
                self._task.progress.done_chunks += 1
                self._task.progress.audio_s += chunk_task.chunk_file.duration_s
                chunk_task.chunk_file.discard()
                self._chunk_tasks.discard(chunk_task)
                if self._in_progress.get(chunk_task.name) is chunk_task:
                    del self._in_progress[chunk_task.name]
                self._prefetch.release()
            await self._feed(self._concatenator.finish())
            self._warn_about_short_chunks(timed_chunks)
            if self._task.timeline is not None:
                self._task.timeline.extend(timed_chunks)
            written_audio = [await pipeline.finish() for pipeline in self._pipelines]
        finally:
            producer.cancel()
            await asyncio.gather(producer, return_exceptions=True)
            for pipeline in self._pipelines:
                pipeline.close()
        if not written_audio:
            raise UsageError("no text to speak", hint="pass it as an argument, with -F FILE or on stdin")
        verification_runs = [] if self._verifier is None else self._verifier.runs
        for warning in dict.fromkeys(warning for audio in written_audio for warning in audio.warnings):
            self._warn(warning)
        result = SpeechResult(
            run=merge_runs(
                [*self._runs, *verification_runs],
                self._route.result(),
                first_byte_s=None if self._first_byte_s is None else self._first_byte_s - started_s,
                elapsed_s=self._ctx.now_s() - started_s,
            )._replace(model=self._runs[0].model if self._runs else self._route.result().model),
            size_bytes=written_audio[0].size_bytes,
            sha256=written_audio[0].sha256,
            format=written_audio[0].format,
            duration_s=written_audio[0].duration_s or self._concatenator.duration_s,
            warnings=tuple(dict.fromkeys(self._warnings)),
            is_cached=not self._runs and not verification_runs,
            verification=None if self._verifier is None else self._verifier.build_result(),
        )
        return LongSpeechResult(result, tuple(timed_chunks), self._task.progress.cached_chunks)

    async def stop(self, *, may_finish: bool) -> None:
        """End the requests in progress. `may_finish`: wait for them instead of cancelling them."""
        tasks = [chunk_task.task for chunk_task in self._chunk_tasks if chunk_task.task is not None]
        try:
            if may_finish:
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for running in tasks:
                running.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for chunk_task in self._chunk_tasks:
                chunk_task.chunk_file.discard()

    async def _start_chunks(self) -> None:
        """Start chunks while slots are free and none has failed.

        A chunk without a letter or a digit is not sent. The next chunk starts a paragraph, so it follows a pause.
        """
        number = 0
        starts_paragraph = False
        try:
            async for chunk in self._task.chunks:
                if not has_speakable_text(chunk.text):
                    starts_paragraph = True
                    continue
                await self._prefetch.acquire()
                await self._slots.acquire()
                if self._has_failed:
                    return
                if number and len(self._routes) > 1:
                    await asyncio.shield(self._route)
                number += 1
                chunk_task = self._start_chunk(number, chunk)
                chunk_task.starts_paragraph, starts_paragraph = starts_paragraph, False
                if chunk_task.task is None:
                    self._slots.release()
                self._queue.put_nowait(chunk_task)
            self._queue.put_nowait(None)
        except Exception as error:  # noqa: BLE001 - run() raises it again
            self._queue.put_nowait(error)

    def _start_chunk(self, number: int, chunk: Chunk) -> _ChunkTask:
        """Open the cached audio of a chunk, or start its request."""
        routes = self._choose_routes(chunk)
        request = self._task.request._replace(text=chunk.text, format="pcm")
        for route in routes if self._task.resume else ():
            name = compute_chunk_name(request, route)
            if self._verifier is not None and name in self._in_progress:
                break  # it is being verified
            chunk_file = self._task.store.create_chunk(name)
            if self._open_stored(chunk_file, name, route):
                chunk_task = _ChunkTask(number, chunk, name, chunk_file)
                # A text that occurs twice is requested once and counts as cached only the first time.
                self._task.progress.cached_chunks += name not in self._names
                if self._verifier is not None:
                    self._start_task(chunk_task, self._verify(chunk_task, request, (route,), is_stored=True))
                self._register(chunk_task, route)
                return chunk_task
        name = compute_chunk_name(request, routes[0])
        # If the same text is being requested already, wait for that request.
        original = self._in_progress.get(name)
        chunk_task = _ChunkTask(number, chunk, name, self._task.store.create_chunk(name), original)
        if original is None:
            self._start_task(chunk_task, self._request(chunk_task, request, routes))
        self._register(chunk_task, None)
        return chunk_task

    def _start_task(self, chunk_task: _ChunkTask, action: Coroutine[None, None, None]) -> None:
        """Run the action of a chunk, which holds a slot until it ends."""
        chunk_task.task = asyncio.create_task(action)
        chunk_task.task.add_done_callback(lambda _: self._slots.release())
        self._in_progress[chunk_task.name] = chunk_task

    async def _request(self, chunk_task: _ChunkTask, request: SpeechRequest, routes: Sequence[Route]) -> None:
        """Synthesize a chunk, and verify it if that is asked for."""
        if self._verifier is not None:
            await self._verify(chunk_task, request, routes, is_stored=False)
        else:
            result = await self._fetch(chunk_task, request, routes)
            await self._store_phrase(chunk_task, result)

    def _open_stored(self, chunk_file: ChunkFile, name: str, route: Route) -> bool:
        """Open the audio of a chunk that this run, an unfinished one or the phrase cache has. Return False without it.

        A chunk of the phrase cache gets a place in the store of unfinished runs until this run is finished.
        """
        if chunk_file.open_cached():
            return True
        if self._task.phrases is None or not is_storable(route):
            return False
        return self._task.phrases.copy_to(name, self._task.store.build_path(name)) and chunk_file.open_cached()

    async def _store_phrase(self, chunk_task: _ChunkTask, result: SpeechResult) -> None:
        """Add a chunk to the phrase cache, unless it may be wrong."""
        phrases, run = self._task.phrases, result.run
        if phrases is None or result.is_suspicious or not is_storable(run.route):
            return
        path = self._task.store.build_path(chunk_task.name)
        await run_in_thread(partial(phrases.add_file, chunk_task.name, path, run.cost_nanousd, run.cost_source))

    def _choose_routes(self, chunk: Chunk) -> tuple[Route, ...]:
        """Return the routes for a chunk: the one of the first chunk as soon as it is known, with the chunk's voice."""
        routes = self._routes if not self._route.done() else (self._route.result(),)
        return tuple(choose_voice(route, chunk) for route in routes)

    def _set_route(self, route: Route) -> None:
        """Use the route of the first chunk for the others too, with the default voice."""
        if not self._route.done():
            self._route.set_result(route._replace(voice=self._default_voices[route.ref]))

    def _register(self, chunk_task: _ChunkTask, route: Route | None) -> None:
        self._chunk_tasks.add(chunk_task)
        self._names[chunk_task.name] = None
        if route is not None:
            self._set_route(route)

    async def _fetch(self, chunk_task: _ChunkTask, request: SpeechRequest, routes: Sequence[Route]) -> SpeechResult:
        chunk_file = chunk_task.chunk_file
        outputs = (AudioOutput(chunk_file, "pcm", compute_hash=False),)
        speech = SpeechTask(request, outputs, chunk_file, needs_samples=True, can_split=self._task.can_split)
        try:
            result = await speak(speech, routes, self._skipped, self._ctx)
        except AudiocliError as error:
            self._has_failed = True
            if isinstance(error, TextTooLong):
                await chunk_file.abandon()
            _locate_error(error, chunk_task, self._task)
            if not self._route.done():
                self._route.set_exception(error)
                self._route.exception()  # mark as retrieved; the task of the chunk raises it
            raise
        self._set_route(result.run.route)
        if chunk_task.name == compute_chunk_name(request, routes[0]):
            self._rename(chunk_task, compute_chunk_name(request, result.run.route))
        self._runs.append(result.run)
        self._task.progress.costs.append((result.run.cost_nanousd, result.run.cost_source))
        self._warnings += result.warnings
        return result

    def _rename(self, chunk_task: _ChunkTask, name: str) -> None:
        """Store the audio of a chunk under another name."""
        if name != chunk_task.name:
            self._task.store.rename(chunk_task.name, name)
            chunk_task.name = name
            self._names[name] = None

    async def _verify(
        self, chunk_task: _ChunkTask, request: SpeechRequest, routes: Sequence[Route], *, is_stored: bool
    ) -> None:
        """Synthesize a chunk, unless its audio is stored, and again until its transcript agrees with its text."""
        from .speech_verification import ChunkAudio, VerificationFailed

        assert self._verifier is not None
        result: SpeechResult | None = None
        if not is_stored and not (self._task.resume and self._open_rejected(chunk_task, request, routes)):
            result = await self._fetch(chunk_task, request, routes)
        (route,) = self._choose_routes(chunk_task.chunk)

        async def synthesize(audio: ChunkAudio) -> SpeechResult:
            chunk_task.name, chunk_task.chunk_file = audio
            return await self._fetch(chunk_task, request, (route,))

        audio = ChunkAudio(chunk_task.name, chunk_task.chunk_file)
        plain_name = compute_chunk_name(request, route)
        try:
            verified = await self._verifier.verify(
                chunk_task.chunk.text, plain_name, audio, result, synthesize, is_storable=is_storable(route)
            )
        except VerificationFailed as failure:
            self._has_failed = True
            _locate_error(failure.error, chunk_task, self._task)
            raise failure.error from failure
        (chunk_task.name, chunk_task.chunk_file), chunk_task.verified = verified.audio, verified

    def _open_rejected(self, chunk_task: _ChunkTask, request: SpeechRequest, routes: Sequence[Route]) -> bool:
        """Open audio that an earlier run has rejected. Return False without it."""
        assert self._verifier is not None
        for route in routes:
            audio = self._verifier.open_attempt(compute_chunk_name(request, route), 1)
            if audio is not None:
                chunk_task.name, chunk_task.chunk_file = audio
                self._register(chunk_task, route)
                return True
        return False

    def _warn_about_short_chunks(self, timed_chunks: Sequence[TimedChunk]) -> None:
        """Warn about each chunk that has far less audio than the other chunks have for as much text."""
        timed_texts = [(timed.chunk.text, timed.duration_s) for timed in timed_chunks]
        for index, expected_s in find_short_speech(timed_texts):
            position = _format_position(index + 1, timed_chunks[index].chunk, self._task)
            if self._task.phrases is not None:
                request = self._task.request._replace(text=timed_texts[index][0], format="pcm")
                (route,) = self._choose_routes(timed_chunks[index].chunk)
                self._task.phrases.remove([compute_chunk_name(request, route)])
            warning = (
                f"{position}: {timed_texts[index][1]:.1f} s of audio is short compared with the other chunks; "
                f"expected about {expected_s:.1f} s"
            )
            self._warn(warning)

    async def _deliver(self, chunk_task: _ChunkTask, previous: Chunk | None) -> TimedChunk:
        """Write the audio of one chunk to the outputs, and return its position. Raises: AudiocliError: it failed."""
        if self._verifier is None:
            return await self._write_chunk(chunk_task, previous)
        # Nothing of a chunk is written before it is verified.
        if chunk_task.task is not None:
            await chunk_task.task
        timed = await self._write_chunk(chunk_task, previous)
        original = chunk_task if chunk_task.verified is not None else chunk_task.duplicate_of
        assert original is not None and original.verified is not None
        failed = self._verifier.add_result(timed, original.verified)
        if failed is not None:
            position = _format_position(chunk_task.number, chunk_task.chunk, self._task)
            self._warn(f"{position}, at {format_time(failed.start_s)}: {failed.problem}")
        return timed

    async def _write_chunk(self, chunk_task: _ChunkTask, previous: Chunk | None) -> TimedChunk:
        start_s: float | None = None
        if chunk_task.duplicate_of is not None and chunk_task.duplicate_of.task is not None:
            await chunk_task.duplicate_of.task
            chunk_task.chunk_file = self._task.store.create_chunk(chunk_task.duplicate_of.name)
            routes = self._choose_routes(chunk_task.chunk)
            if not self._open_stored(chunk_task.chunk_file, chunk_task.duplicate_of.name, routes[0]):
                # Another process with the same text has finished and removed it.
                chunk_task.chunk_file = self._task.store.create_chunk(chunk_task.duplicate_of.name)
                request = self._task.request._replace(text=chunk_task.chunk.text, format="pcm")
                chunk_task.task = asyncio.create_task(self._request(chunk_task, request, routes))
                if self._verifier is not None:
                    await chunk_task.task
        if chunk_task.chunk.start_s is not None:
            return await self._deliver_timed(chunk_task, chunk_task.chunk.start_s)
        async for block in chunk_task.chunk_file.read_blocks(is_live=self._task.is_live):
            if start_s is None:
                assert chunk_task.chunk_file.pcm is not None
                pause_ms = _choose_pause_ms(previous, self._task.pause_ms)
                await self._feed(self._concatenator.start_chunk(chunk_task.chunk_file.pcm, pause_ms=pause_ms))
                start_s = self._concatenator.duration_s
            await self._feed(self._concatenator.feed(block))
            # Let the next request start before this block is written.
            await asyncio.sleep(0)
        if chunk_task.task is not None:
            await chunk_task.task
        return TimedChunk(chunk_task.chunk, start_s or 0.0, chunk_task.chunk_file.duration_s)

    async def _deliver_timed(self, chunk_task: _ChunkTask, start_s: float) -> TimedChunk:
        """Write the audio of a caption at its time. Audio that is too long is made faster, within limits."""
        chunk, chunk_file = chunk_task.chunk, chunk_task.chunk_file
        samples = b"".join([block async for block in chunk_file.read_blocks(is_live=False)])
        if chunk_task.task is not None:
            await chunk_task.task
        assert chunk_file.pcm is not None
        pcm = chunk_file.pcm
        if chunk.end_s is not None:
            tempo = fit_tempo(chunk_file.duration_s, chunk.end_s - start_s, MAX_CAPTION_TEMPO)
            if tempo > MIN_CAPTION_TEMPO:
                samples = await run_in_thread(partial(_change_tempo, samples, pcm, tempo))
        for silence in self._concatenator.pad_until(start_s, pcm):
            await self._feed(silence)
            # Hours of silence can be interrupted.
            await asyncio.sleep(0)
        await self._feed(self._concatenator.start_chunk(pcm))
        actual_s = self._concatenator.duration_s
        duration_s = len(samples) / pcm.bytes_per_second
        if actual_s - start_s > MAX_CAPTION_DELAY_S:
            self._warn(
                f"the speech of the caption at {format_time(start_s)} begins {actual_s - start_s:.1f} s late, "
                "because the one before it is too long"
            )
        await self._feed(self._concatenator.feed(samples))
        return TimedChunk(chunk, actual_s, duration_s)

    def _warn(self, warning: str) -> None:
        self._warnings.append(warning)
        self._ctx.info(f"warning: {warning}")

    async def _feed(self, samples: bytes) -> None:
        if not samples:
            return
        if not self._pipelines:
            assert self._concatenator.pcm is not None
            self._first_byte_s = self._ctx.now_s()
            self._pipelines = [
                AudioPipeline(output, source_format="pcm", pcm=self._concatenator.pcm)
                for output in self._task.audio_outputs
            ]
            for pipeline in self._pipelines:
                await pipeline.begin()
        for pipeline in self._pipelines:
            await pipeline.feed(samples)


def choose_voice(route: Route, chunk: Chunk) -> Route:
    """Return the route with the voice of a chunk."""
    return route if chunk.voice is None else route._replace(voice=chunk.voice)


def _change_tempo(samples: bytes, pcm: PcmFormat, tempo: float) -> bytes:
    """Import the codec, which takes 60 ms, and change the tempo of samples."""
    from ..codecs.processing import change_tempo

    return change_tempo(samples, pcm, tempo)


def _choose_pause_ms(previous: Chunk | None, default_ms: float) -> float:
    """Return the silence before the next chunk in milliseconds."""
    if previous is None:
        return 0.0
    if previous.pause_ms is not None:
        return previous.pause_ms
    return default_ms if previous.is_paragraph_end else 0.0


def _locate_error(error: AudiocliError, chunk_task: _ChunkTask, task: LongSpeechTask) -> None:
    """Add the position of the failed chunk to the message, and a hint that a rerun resumes."""
    if isinstance(error, OutputError) and not isinstance(error, AttemptError):
        return
    error.message = f"{_format_position(chunk_task.number, chunk_task.chunk, task)}: {error.message}"
    if task.resume:
        resume_hint = "the finished chunks are saved; run the same command again to resume"
        error.hint = f"{error.hint}; {resume_hint}" if error.hint else resume_hint


def _format_position(number: int, chunk: Chunk, task: LongSpeechTask) -> str:
    """Return the number of a chunk, its position in the text and its first words."""
    quote = " ".join(chunk.text[:MAX_QUOTED_CHARACTERS].split())
    ellipsis = "…" if len(chunk.text) > MAX_QUOTED_CHARACTERS else ""
    total = f" of {task.progress.total_chunks}" if task.progress.total_chunks else ""
    return f"chunk {number}{total}, from character {chunk.start + 1:,} ({quote}{ellipsis})"
