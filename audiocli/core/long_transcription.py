"""Write down a long recording: heard once, cut in silence, sent several pieces at a time, stitched, paid for once."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..costs import total
from ..errors import AudiocliError, InvalidResponse, OutputError, UsageError
from ..text.subtitle_formats import document, read_json
from ..threads import run_in_thread
from ..types.values import Recording, Route, RunResult, Timestamps, Transcript, TranscriptionResult
from .chunk_plan import LongTranscription, Plan
from .route_warnings import told_once
from .run_context import RunContext
from .transcription import TextStream, transcribe

if TYPE_CHECKING:
    from ..codecs.splitter import Cutter

# How much of a piece's end is told to the next one as its prompt.
CONTEXT_CHARACTERS = 200


async def transcribe_long(
    long: LongTranscription,
    plan: Plan,
    routes: Sequence[Route],
    skipped: Sequence[tuple[Route, AudiocliError]],
    tools: RunContext,
) -> TranscriptionResult:
    """Write the pieces down and stitch them. Pieces that are done are kept, until the caller has written the whole.

    The first piece chooses the route for all. Raises: any AudiocliError, with the place in the recording.
    """
    return await _ChunkedTranscription(long, plan, routes, skipped, tools).run()


class _ChunkedTranscription:
    """Cuts pieces and sends them, as many at a time as are allowed."""

    def __init__(
        self,
        long: LongTranscription,
        plan: Plan,
        routes: Sequence[Route],
        skipped: Sequence[tuple[Route, AudiocliError]],
        tools: RunContext,
    ) -> None:
        self._long = long
        self._plan = plan
        self._routes = tuple(routes)
        self._skipped = skipped
        self._tools = told_once(tools)
        self._room = asyncio.Semaphore(1 if long.carries_context else long.jobs)
        self._blade = asyncio.Lock()
        self._cutter = _cutter(long.whole.request.recording.path, plan)
        self._transcripts: list[Transcript | None] = [None] * len(plan.pieces)
        self._served: list[RunResult] = []
        self._warnings: list[str] = []
        self._replies: list[bytes] = [b""] * len(plan.pieces)
        self._failure: AudiocliError | None = None

    async def run(self) -> TranscriptionResult:
        started_s = self._tools.now_s()
        try:
            await self._all_pieces()
        finally:
            self._cutter.close()
        if self._failure is not None:
            raise self._failure
        whole = await run_in_thread(self._stitched)
        if not whole.text.strip() and self._plan.pieces:
            raise InvalidResponse("200 with empty transcripts, although there is sound in the recording")
        if not self._plan.pieces:
            self._warn("no speech in the recording: the transcript is empty")
        if self._long.whole.request.diarizes and len(self._plan.pieces) > 1 and not self._long.whole.request.speakers:
            self._warn("speakers are told apart within each piece: the A of one may be the B of another")
        if not self._plan.is_complete:
            self._warn(f"the recording breaks off after {self._plan.duration_s:.0f} s: it was written down up to there")
        return TranscriptionResult(
            run=self._sum(started_s),
            transcript=whole,
            # A line for each piece, unless their gateway gave several.
            reply=b"".join(reply.strip() + b"\n" for reply in self._replies if reply),
            warnings=tuple(dict.fromkeys(self._warnings)),
            is_partial=not self._plan.is_complete,
            kept_names=self._plan.names,
        )

    async def _all_pieces(self) -> None:
        """Take what was kept, let the first of the rest choose among several routes, send the others side by side."""
        missing = [number for number in range(len(self._plan.pieces)) if not self._take_kept(number)]
        if missing and len(self._routes) > 1:
            await self._one_piece(missing.pop(0))
        tasks = [asyncio.create_task(self._one_piece(number)) for number in missing]
        try:
            # A failure lets those that are under way finish, because they are paid for; no others begin.
            await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    def _take_kept(self, number: int) -> bool:
        kept = self._long.stash.read(self._plan.names[number]) if self._long.resumes else None
        if kept is None:
            return False
        try:
            told = json.loads(kept)
            self._transcripts[number] = read_json(json.dumps(told["transcript"]))
            self._replies[number] = str(told["reply"]).encode()
        except (UsageError, ValueError, KeyError, TypeError):
            return False
        self._long.progress.kept += 1
        self._long.progress.done += 1
        return True

    async def _one_piece(self, number: int) -> None:
        async with self._room:
            if self._failure is not None:
                return
            try:
                await self._send(number)
            except AudiocliError as error:
                if self._failure is None:
                    self._failure = _placed(error, number, self._plan)

    async def _send(self, number: int) -> None:
        piece = self._plan.pieces[number]
        long = self._long
        path, start_s, end_s = await self._cut(number)
        try:
            request = long.whole.request._replace(
                recording=Recording(path, self._plan.format, path.stat().st_size, end_s - start_s),
                timestamps_required=False,
                prompt=self._prompt(number),
                streams=False,
            )
            if long.by_piece:
                request = request._replace(timestamps=Timestamps.NONE)
            receipt = await transcribe(
                long.whole._replace(request=request, hearing=TextStream(), is_piece=True),
                self._routes,
                self._skipped,
                self._tools,
            )
        finally:
            path.unlink(missing_ok=True)
        self._routes = (receipt.run.route,)
        # A copy begins a little early: what is kept has times in the piece as it was planned.
        own = _moved(receipt.transcript, start_s - piece.start_s)
        self._transcripts[number] = own
        self._served.append(receipt.run)
        self._warnings += receipt.warnings
        self._replies[number] = receipt.reply
        long.progress.done += 1
        long.progress.costs.append((receipt.run.cost_nanousd, receipt.run.cost_source))
        if not own.text.strip():
            return  # nothing worth keeping; where there is sound in it, another run may hear more
        kept = {"transcript": document(own), "reply": receipt.reply.decode("utf-8", "replace")}
        long.stash.write(self._plan.names[number], json.dumps(kept, allow_nan=False).encode("utf-8", "replace"))

    async def _cut(self, number: int) -> tuple[Path, float, float]:
        """Make the file of one piece; tell where its sound begins and ends. Raises: RecordingError, OutputError."""
        folder = self._long.whole.folder
        target = folder / f"{secrets.token_hex(8)}-{number}.{self._plan.format}"
        async with self._blade:
            try:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                steps = self._cutter.cut(self._plan.pieces[number], target, self._plan.format)
                try:
                    while await run_in_thread(partial(next, steps, None)) is not None:
                        continue
                finally:
                    steps.close()
            except OSError as error:
                raise OutputError(f"cannot cut the recording in {folder}: {error.strerror or error}") from error
        return target, steps.start_s, steps.end_s

    def _prompt(self, number: int) -> str | None:
        asked = self._long.whole.request.prompt
        before = self._transcripts[number - 1] if number and self._long.carries_context else None
        tail = before.text[-CONTEXT_CHARACTERS:] if before is not None else ""
        return " ".join(filter(None, (asked, tail))) or None

    def _stitched(self) -> Transcript:
        from ..text.merge import stitched

        told = [transcript or Transcript("") for transcript in self._transcripts]
        whole = stitched(self._plan.pieces, told, duration_s=self._plan.duration_s)
        return whole._replace(words=()) if self._long.by_piece else whole

    def _warn(self, warning: str) -> None:
        self._warnings.append(warning)
        self._tools.info(f"warning: {warning}")

    def _sum(self, started_s: float) -> RunResult:
        cost_nanousd, cost_source = total([(one.cost_nanousd, one.cost_source) for one in self._served])
        route = self._routes[0]
        first = self._served[0] if self._served else None
        return RunResult(
            route=route,
            model=first.model if first is not None else route.model,
            requests=sum(one.requests for one in self._served),
            attempts=sum(one.attempts for one in self._served),
            cost_nanousd=cost_nanousd,
            cost_source=cost_source,
            generation_ids=tuple(name for one in self._served for name in one.generation_ids),
            first_byte_s=first.first_byte_s if first is not None else None,
            elapsed_s=self._tools.now_s() - started_s,
            skipped=first.skipped if first is not None else (),
        )


def _placed(error: AudiocliError, number: int, plan: Plan) -> AudiocliError:
    """Say where in the recording a piece failed, and that the others are not lost."""
    piece = plan.pieces[number]
    error.message = (
        f"piece {number + 1} of {len(plan.pieces)}, from {_clock(piece.start_s)} to {_clock(piece.end_s)}: "
        f"{error.message}"
    )
    again = "what was written down is kept: the same command goes on from there"
    error.hint = f"{error.hint}; {again}" if error.hint else again
    return error


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def _cutter(path: Path, plan: Plan) -> Cutter:
    from ..codecs.splitter import Cutter

    return Cutter(path, plan.packets, plan.tape)


def _moved(transcript: Transcript, by_s: float) -> Transcript:
    from ..text.merge import moved

    return moved(transcript, by_s) if by_s else transcript
