"""Transcribe a long recording in chunks.

The recording is split at silences, chunks are sent concurrently, and their transcripts are merged. Transcripts of
finished chunks are stored, so that a rerun does not pay for them again.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import AudiocliError, InvalidResponse, OutputError, UsageError
from ..gateways.base import read_json
from ..text.subtitle_formats import build_document, parse_json
from ..threads import run_in_thread
from ..types.audio import Recording
from ..types.requests import Timestamps
from ..types.results import RunResult, TranscriptionResult
from ..types.routes import Route
from ..types.transcripts import Transcript
from .attempts import deduplicate_messages, merge_runs
from .run_context import RunContext
from .transcription import TextStream, transcribe
from .transcription_plan import ChunkPlan, LongTranscriptionTask

if TYPE_CHECKING:
    from ..codecs.audio_chunk_writer import AudioChunkWriter

# Length of the end of a transcript that becomes the prompt of the next chunk.
CONTEXT_CHARACTERS = 200


async def transcribe_long(
    task: LongTranscriptionTask,
    chunk_plan: ChunkPlan,
    routes: Sequence[Route],
    skipped: Sequence[tuple[Route, AudiocliError]],
    ctx: RunContext,
) -> TranscriptionResult:
    """Transcribe the chunks of a plan and merge their transcripts.

    All chunks use one route, which the first successful chunk determines. The stored transcripts of the chunks stay
    until the caller has written the result and removes them (`TranscriptionResult.chunk_names`).

    Raises:
        AudiocliError: A chunk failed; the message gives its position in the recording.
    """
    return await _ChunkedTranscription(task, chunk_plan, routes, skipped, ctx).run()


class _ChunkedTranscription:
    """Writes the file of each chunk and sends it, with at most `concurrency` chunks at the same time."""

    def __init__(
        self,
        task: LongTranscriptionTask,
        chunk_plan: ChunkPlan,
        routes: Sequence[Route],
        skipped: Sequence[tuple[Route, AudiocliError]],
        ctx: RunContext,
    ) -> None:
        self._task = task
        self._plan = chunk_plan
        self._routes = tuple(routes)
        self._skipped = skipped
        self._ctx = deduplicate_messages(ctx)
        self._slots = asyncio.Semaphore(1 if task.carry_context else task.concurrency)
        self._writer_lock = asyncio.Lock()
        self._chunk_writer = _create_chunk_writer(task.transcription.request.recording.path, chunk_plan)
        self._transcripts: list[Transcript | None] = [None] * len(chunk_plan.chunks)
        self._runs: list[RunResult] = []
        self._warnings: list[str] = []
        self._raw_responses: list[bytes] = [b""] * len(chunk_plan.chunks)
        self._failure: AudiocliError | None = None

    async def run(self) -> TranscriptionResult:
        started_s = self._ctx.now_s()
        try:
            await self._transcribe_chunks()
        finally:
            self._chunk_writer.close()
        if self._failure is not None:
            raise self._failure
        transcript = await run_in_thread(self._merge)
        if not transcript.text.strip() and self._plan.chunks:
            raise InvalidResponse("200 with empty transcripts for a recording that is not silent")
        if not self._plan.chunks:
            self._warn("no speech in the recording; the transcript is empty")
        if (
            self._task.transcription.request.diarize
            and len(self._plan.chunks) > 1
            and not self._task.transcription.request.speakers
        ):
            self._warn("speakers are identified separately in each chunk; A in one chunk may be B in another")
        if not self._plan.is_complete:
            self._warn(f"the recording breaks off after {self._plan.duration_s:.0f} s; the transcript ends there")
        return TranscriptionResult(
            run=merge_runs(
                self._runs,
                self._routes[0],
                first_byte_s=self._runs[0].first_byte_s if self._runs else None,
                elapsed_s=self._ctx.now_s() - started_s,
            ),
            transcript=transcript,
            # One line per chunk, unless the gateway returned several lines.
            raw_response=b"".join(response.strip() + b"\n" for response in self._raw_responses if response),
            warnings=tuple(dict.fromkeys(self._warnings)),
            is_partial=not self._plan.is_complete,
            chunk_names=self._plan.chunk_names,
        )

    async def _transcribe_chunks(self) -> None:
        """Load cached transcripts and send the missing chunks.

        With several routes, the first missing chunk is sent alone, because it determines the route of the others.
        """
        missing = [index for index in range(len(self._plan.chunks)) if not self._load_cached(index)]
        if missing and len(self._routes) > 1:
            await self._transcribe_chunk(missing.pop(0))
        tasks = [asyncio.create_task(self._transcribe_chunk(index)) for index in missing]
        try:
            # After a failure no chunk is started. Those in progress are finished, because they are paid for.
            await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    def _load_cached(self, index: int) -> bool:
        record = self._task.store.read(self._plan.chunk_names[index]) if self._task.resume else None
        if record is None:
            return False
        try:
            fields: Any = read_json(record)
            self._transcripts[index] = parse_json(json.dumps(fields["transcript"]))
            self._raw_responses[index] = str(fields["reply"]).encode()
        except (UsageError, ValueError, KeyError, TypeError):
            return False
        self._task.progress.cached_chunks += 1
        self._task.progress.done_chunks += 1
        return True

    async def _transcribe_chunk(self, index: int) -> None:
        async with self._slots:
            if self._failure is not None:
                return
            try:
                await self._send(index)
            except AudiocliError as error:
                if self._failure is None:
                    self._failure = _locate_error(error, index, self._plan)

    async def _send(self, index: int) -> None:
        chunk = self._plan.chunks[index]
        task = self._task
        path = await self._write_chunk(index)
        try:
            request = task.transcription.request._replace(
                recording=Recording(path, self._plan.format, path.stat().st_size, chunk.duration_s),
                timestamps_required=False,
                prompt=self._build_prompt(index),
                stream=False,
            )
            if task.time_by_chunk:
                request = request._replace(timestamps=Timestamps.NONE)
            result = await transcribe(
                task.transcription._replace(request=request, text_stream=TextStream(), is_chunk=True),
                self._routes,
                self._skipped,
                self._ctx,
            )
        finally:
            path.unlink(missing_ok=True)
        self._routes = (result.run.route,)
        transcript = self._transcripts[index] = result.transcript
        self._runs.append(result.run)
        self._warnings += result.warnings
        self._raw_responses[index] = result.raw_response
        task.progress.done_chunks += 1
        task.progress.costs.append((result.run.cost_nanousd, result.run.cost_source))
        if not transcript.text.strip():
            return  # do not store an empty transcript; another run may find speech
        record = {"transcript": build_document(transcript), "reply": result.raw_response.decode("utf-8", "replace")}
        task.store.write(self._plan.chunk_names[index], json.dumps(record, allow_nan=False).encode("utf-8", "replace"))

    async def _write_chunk(self, index: int) -> Path:
        """Write the file of one chunk, and return its path.

        Raises:
            RecordingError: The recording cannot be read.
            OutputError: The file cannot be written.
        """
        directory = self._task.transcription.directory
        target = directory / f"{secrets.token_hex(8)}-{index}.{self._plan.format}"
        async with self._writer_lock:
            try:
                directory.mkdir(parents=True, exist_ok=True, mode=0o700)
                writer = self._chunk_writer.write_chunk(self._plan.chunks[index], target, self._plan.format)
                try:
                    while await run_in_thread(partial(next, writer, None)) is not None:
                        continue
                finally:
                    writer.close()
            except OSError as error:
                raise OutputError(
                    f"cannot write a chunk of the recording in {directory}: {error.strerror or error}"
                ) from error
        return target

    def _build_prompt(self, index: int) -> str | None:
        user_prompt = self._task.transcription.request.prompt
        previous = self._transcripts[index - 1] if index and self._task.carry_context else None
        tail = previous.text[-CONTEXT_CHARACTERS:] if previous is not None else ""
        return " ".join(filter(None, (user_prompt, tail))) or None

    def _merge(self) -> Transcript:
        from ..text.merge import merge_transcripts

        chunk_transcripts = [transcript or Transcript("") for transcript in self._transcripts]
        transcript = merge_transcripts(self._plan.chunks, chunk_transcripts, duration_s=self._plan.duration_s)
        return transcript._replace(words=()) if self._task.time_by_chunk else transcript

    def _warn(self, warning: str) -> None:
        self._warnings.append(warning)
        self._ctx.info(f"warning: {warning}")


def _locate_error(error: AudiocliError, index: int, chunk_plan: ChunkPlan) -> AudiocliError:
    """Add the position of the failed chunk to the message, and a hint that a rerun resumes."""
    chunk = chunk_plan.chunks[index]
    position = f"from {_format_time(chunk.start_s)} to {_format_time(chunk.end_s)}"
    error.message = f"chunk {index + 1} of {len(chunk_plan.chunks)}, {position}: {error.message}"
    resume_hint = "the finished chunks are saved; run the same command again to resume"
    error.hint = f"{error.hint}; {resume_hint}" if error.hint else resume_hint
    return error


def _format_time(seconds: float) -> str:
    minutes, whole_seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{whole_seconds:02d}"


def _create_chunk_writer(path: Path, chunk_plan: ChunkPlan) -> AudioChunkWriter:
    from ..codecs.audio_chunk_writer import AudioChunkWriter

    return AudioChunkWriter(path, chunk_plan.spool)
