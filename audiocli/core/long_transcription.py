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

from ..audio.stereo import describe_cancellation
from ..errors import AudiocliError, ExitCode, OutputError, ResponseInterrupted, UsageError
from ..gateways.base import as_number, read_json
from ..text.subtitle_formats import build_document, parse_json
from ..threads import run_in_thread
from ..types.audio import Recording
from ..types.json import Json
from ..types.requests import Timestamps
from ..types.results import RunResult, TranscriptionResult
from ..types.routes import Route
from ..types.transcripts import Transcript
from .attempts import deduplicate_messages, merge_runs
from .recording_evidence import round_silences
from .run_context import RunContext
from .transcription import TextStream, describe_truncation, transcribe
from .transcription_plan import ChunkPlan, LongTranscriptionTask
from .verdicts import (
    MIN_SPEECH_S,
    NO_SPEECH_WARNING,
    build_empty_error,
    describe_gaps,
    format_time,
    measure_speech_s,
)

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
        EmptyTranscript: No chunk has text, but the recording has clear speech.
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
        # Seconds of voiced sound in each chunk whose transcript is empty.
        self._speech_s = [0.0] * len(chunk_plan.chunks)
        self._failure: AudiocliError | None = None
        self._is_aborted = False
        self._are_saved = True
        self._can_publish = True
        # What is stored, until it is shared.
        self._contents: dict[int, bytes] = {}

    async def run(self) -> TranscriptionResult:
        started_s = self._ctx.now_s()
        try:
            await self._transcribe_chunks()
        finally:
            self._chunk_writer.close()
        transcript = await run_in_thread(self._merge)
        if self._failure is not None:
            if not (self._can_continue(self._failure) and transcript.text.strip()):
                raise self._failure
            self._warn(self._failure.message)
        missed_speech_s = None
        if not transcript.text.strip():
            if sum(self._speech_s) < MIN_SPEECH_S:
                self._warn(NO_SPEECH_WARNING)
            else:
                missed_speech_s = sum(self._speech_s)
        if (
            self._task.transcription.request.diarize
            and len(self._plan.chunks) > 1
            and not self._task.transcription.request.speakers
        ):
            self._warn("speakers are identified separately in each chunk; A in one chunk may be B in another")
        missing_s = self._find_missing() if missed_speech_s is None else ()
        if (warning := describe_cancellation(self._plan.canceled_s, self._plan.duration_s)) is not None:
            self._warn(warning)
        offset_s = self._task.transcription.request.recording.offset_s
        reasons = []
        if missing_s:
            reasons.append(describe_gaps(tuple((start_s + offset_s, end_s + offset_s) for start_s, end_s in missing_s)))
        if not self._plan.is_complete:
            reasons.append(describe_truncation(self._plan.duration_s + offset_s))
        for reason in reasons:
            self._warn(reason)
        result = TranscriptionResult(
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
            is_partial=bool(reasons),
            # The chunks stay if others are still missing.
            chunk_names=() if missing_s else self._plan.chunk_names,
            partial_reason="; ".join(reasons) or None,
            missing_s=missing_s,
            missed_speech_s=missed_speech_s,
            # Times of a part of a recording count from its start, and these do not.
            silences_s=round_silences(self._plan.silences) if not offset_s else None,
        )
        if self._task.transcription.save is not None:
            self._task.transcription.save(result)
        if missed_speech_s is not None and not self._task.transcription.allow_empty:
            raise build_empty_error(result)
        return result

    def _find_missing(self) -> tuple[tuple[float, float], ...]:
        """Return the bounds of the chunks that failed, or that have speech and an empty transcript."""
        return tuple(
            (round(chunk.start_s, 3), round(chunk.end_s, 3))
            for chunk, transcript, speech_s in zip(self._plan.chunks, self._transcripts, self._speech_s, strict=True)
            if transcript is None or (not transcript.text.strip() and speech_s >= MIN_SPEECH_S)
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
            results = await asyncio.gather(*tasks, return_exceptions=True)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def _load_cached(self, index: int) -> bool:
        record = self._task.store.read(self._plan.chunk_names[index]) if self._task.resume else None
        if record is None:
            return False
        try:
            fields: Any = read_json(record)
            transcript = parse_json(json.dumps(fields["transcript"]))
            raw_response = str(fields["reply"]).encode()
            speech_s = as_number(fields.get("speech_s")) or 0.0
        except (UsageError, ValueError, KeyError, TypeError, AttributeError):
            return False
        if self._task.retry_empty and speech_s >= MIN_SPEECH_S:
            return False
        self._transcripts[index], self._raw_responses[index] = transcript, raw_response
        self._speech_s[index] = speech_s
        self._task.progress.cached_chunks += 1
        self._task.progress.done_chunks += 1
        return True

    async def _transcribe_chunk(self, index: int) -> None:
        async with self._slots:
            if self._is_aborted or (self._failure is not None and not self._can_continue(self._failure)):
                return
            try:
                await self._send(index)
                await self._publish(index)
            except AudiocliError as error:
                if self._failure is None or not self._can_continue(error):
                    offset_s = self._task.transcription.request.recording.offset_s
                    self._failure = _locate_error(error, index, self._plan, offset_s, are_saved=self._are_saved)
            except Exception:
                self._is_aborted = True  # the batch has stopped, or the client of a cluster is gone
                raise

    def _can_continue(self, error: AudiocliError) -> bool:
        """Return whether a failure concerns one chunk, and the user accepts a transcript without it."""
        is_of_chunk = error.exit_code in (ExitCode.GATEWAY, ExitCode.INVALID_RESPONSE)
        return self._task.accept_partial and (is_of_chunk or isinstance(error, ResponseInterrupted))

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
                task.transcription._replace(
                    request=request, text_stream=TextStream(), is_chunk=True, save=partial(self._store, index)
                ),
                self._routes,
                self._skipped,
                self._ctx,
            )
            if not result.transcript.text.strip():
                # An empty transcript is stored too. It is paid for, and the same chunk would give it again.
                self._speech_s[index] = await measure_speech_s(path)
                self._store(index, result)
        finally:
            path.unlink(missing_ok=True)
        self._routes = (result.run.route,)
        self._transcripts[index] = result.transcript
        self._runs.append(result.run)
        self._warnings += result.warnings
        self._raw_responses[index] = result.raw_response
        task.progress.done_chunks += 1
        task.progress.costs.append((result.run.cost_nanousd, result.run.cost_source))

    def _store(self, index: int, result: TranscriptionResult) -> None:
        """Store the transcript of a chunk. Without disk space for it, the complete transcript may still be written."""
        record: dict[str, Json] = {
            "transcript": build_document(result.transcript),
            "reply": result.raw_response.decode("utf-8", "replace"),
        }
        if self._speech_s[index]:
            record["speech_s"] = self._speech_s[index]
        content = self._contents[index] = json.dumps(record, allow_nan=False).encode("utf-8", "replace")
        try:
            self._task.store.write(self._plan.chunk_names[index], content)
        except OutputError as error:
            self._are_saved = False
            self._ctx.info(f"warning: {error.message}")

    async def _publish(self, index: int) -> None:
        """Let other machines use the transcript of a chunk. That of the only one is that of the recording."""
        content = self._contents.pop(index)
        if len(self._plan.chunks) == 1 or not self._can_publish:
            return
        try:
            await self._task.store.publish(self._plan.chunk_names[index], content, replace=True)
        except OutputError as error:
            self._can_publish = False
            self._ctx.info(f"warning: {error.message}; the finished chunks are on this machine only")

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


def _locate_error(
    error: AudiocliError, index: int, chunk_plan: ChunkPlan, offset_s: float, *, are_saved: bool
) -> AudiocliError:
    """Add the position of the failed chunk to the message, and a hint that a rerun resumes."""
    chunk = chunk_plan.chunks[index]
    position = f"from {format_time(chunk.start_s + offset_s)} to {format_time(chunk.end_s + offset_s)}"
    error.message = f"chunk {index + 1} of {len(chunk_plan.chunks)}, {position}: {error.message}"
    if not are_saved:
        return error
    resume_hint = "the finished chunks are saved; run the same command again to resume"
    if len(chunk_plan.chunks) > 1:
        resume_hint += ", or use --accept-partial to write the partial transcript"
    error.hint = f"{error.hint}; {resume_hint}" if error.hint else resume_hint
    return error


def _create_chunk_writer(path: Path, chunk_plan: ChunkPlan) -> AudioChunkWriter:
    from ..codecs.audio_chunk_writer import AudioChunkWriter

    return AudioChunkWriter(path, chunk_plan.spool)
