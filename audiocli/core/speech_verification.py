"""Verify speech by listening back: transcribe it, and compare the transcript with the text.

`long_speech` calls `check_speech` for the audio of each chunk and synthesizes a chunk that fails again. Transcripts are
stored by the hash of the audio, so a later run of the same command sends nothing. Audio that has failed is stored under
names of its own, in a directory of its own, so that no run without verification finds it in the phrase cache.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..costs import sum_costs
from ..errors import AudiocliError, OutputError
from ..pricing import FREE, SPEECH_DURATION_FACTORS, estimate_transcription, sum_estimates
from ..storage.local import hash_file
from ..storage.paid_results import ChunkFile, PaidResultStore
from ..text.speech_rate import estimate_duration_s
from ..threads import run_in_thread
from ..types.audio import Recording
from ..types.json import EMPTY_MAPPING, Json
from ..types.ledger import CostSource, Estimate
from ..types.requests import Timestamps, TranscriptionRequest
from ..types.results import FailedChunk, RunResult, SpeechResult, TranscriptionResult, VerificationResult
from ..types.routes import Route
from ..types.transcripts import Word
from .batch.transcript_cache import parse_transcript, serialize_result
from .catalog import find_prices
from .progress import TranscriptionProgress
from .run_context import RunContext
from .transcription import TextStream, TranscriptionTask, probe_recording, transcribe
from .transcription_plan import must_split

if TYPE_CHECKING:
    from ..storage.phrase_cache import PhraseCache
    from ..storage.response_cache import ResponseCache
    from ..text.splitter import Chunk
    from ..text.timing import TimedChunk
    from ..text.verification import Comparison, Problem

LEDGER_COMMAND = "verify"
DEFAULT_THRESHOLD_PERCENT = 25.0
DEFAULT_RETRIES = 2
# A chunk that fails is synthesized again as a whole, so verified chunks are not longer than those of OpenAI.
MAX_CHUNK_CHARACTERS = 4096
# Length of a quotation from a text that differs as a whole.
MAX_QUOTED_CHARACTERS = 40
# Increase when the same audio could have another transcript.
TRANSCRIPT_NAME_VERSION = 1


class Verification(NamedTuple):
    """How speech is verified.

    Attributes:
        routes: Routes of the transcription, in order of preference. `skipped` are the others, with the reason.
        transcripts: Transcripts of verified audio. `chunk_transcripts` has those of parts of long audio.
        rejected: Audio that has failed; None neither uses nor stores any.
        directory: Holds converted audio while it is sent.
        threshold: Word error rate, from 0 to 1, above which a chunk fails.
        max_attempts: How often a chunk is synthesized at most.
        language: Language of the text; None lets the model detect it.
        options: Request fields that protect privacy.
        needs_word_times: Whether captions need the times of words.
    """

    routes: tuple[Route, ...]
    skipped: tuple[tuple[Route, AudiocliError], ...]
    transcripts: PaidResultStore
    chunk_transcripts: PaidResultStore
    rejected: PhraseCache | None
    directory: Path
    threshold: float = DEFAULT_THRESHOLD_PERCENT / 100
    max_attempts: int = DEFAULT_RETRIES + 1
    language: str | None = None
    options: Mapping[str, Json] = EMPTY_MAPPING
    needs_word_times: bool = False

    def find_stored_transcript(self, audio_sha256: str) -> TranscriptionResult | None:
        """Return the stored transcript of an audio file by any of the routes."""
        for route in self.routes:
            content = self.transcripts.read(compute_transcript_name(audio_sha256, route, self))
            stored = parse_transcript(content, route)
            if stored is not None:
                return stored.result
        return None

    def has_transcript(self, audio_sha256: str) -> bool:
        """Return whether the transcript of an audio file is stored."""
        return any(self.transcripts.has(compute_transcript_name(audio_sha256, route, self)) for route in self.routes)


class SpeechCheck(NamedTuple):
    """What listening to the audio of one chunk has found. `run` is None if the transcript was stored."""

    audio_sha256: str
    duration_s: float
    comparison: Comparison
    problem: Problem | None
    run: RunResult | None = None

    def describe_problem(self) -> str:
        """Return what is wrong."""
        return "" if self.problem is None else self.problem.describe(self.comparison.word_error_rate)

    def locate_problem_s(self) -> float:
        """Return when the problem is heard, in seconds from the start of the audio."""
        return 0.0 if self.problem is None else self.comparison.locate_s(self.problem.position, self.duration_s)

    def time_words(self, text: str) -> tuple[Word, ...]:
        """Return the words of the text with their times."""
        from ..text.verification import time_words

        return time_words(text, self.comparison, self.duration_s)


def compute_transcript_name(audio_sha256: str, route: Route, verification: Verification) -> str:
    """Return the name under which the transcript of an audio file is stored."""
    inputs: list[Json] = [
        TRANSCRIPT_NAME_VERSION,
        audio_sha256,
        route.gateway,
        route.base_url,
        route.model,
        verification.language,
        verification.needs_word_times,
        json.dumps(dict(verification.options), sort_keys=True),
    ]
    if route.traits.transcription_fingerprint:
        inputs.append(route.traits.transcription_fingerprint)
    return _hash(inputs)


def compute_attempt_name(chunk_name: str, number: int) -> str:
    """Return the name of the audio of a failed attempt, numbered from 1, at a chunk."""
    return _hash(["attempt", number, chunk_name])


def _hash(inputs: list[Json]) -> str:
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:32]


class ChunkAudio(NamedTuple):
    """The audio of a chunk, and its name in the store of unfinished runs."""

    name: str
    file: ChunkFile


class VerifiedChunk(NamedTuple):
    """The audio that is used for a chunk. `is_redone`: the chunk was synthesized again, perhaps by an earlier run."""

    audio: ChunkAudio
    check: SpeechCheck
    is_redone: bool


class VerificationFailed(Exception):
    """A chunk could not be verified, because its transcription failed."""

    def __init__(self, error: AudiocliError) -> None:
        super().__init__(error.message)
        self.error = error


class ChunkVerifier:
    """Verifies the chunks of one run, and adds up what it finds.

    Attributes:
        runs: The runs of the transcripts that were sent.
        names: Names of attempts in the store of unfinished runs.
    """

    def __init__(
        self,
        verification: Verification,
        store: PaidResultStore,
        phrases: PhraseCache | None,
        ctx: RunContext,
        *,
        resume: bool,
        time_scale: float,
    ) -> None:
        """Create the verifier.

        Args:
            store: The chunks of unfinished runs.
            phrases: The phrase cache, for audio that is right.
            resume: Use attempts of earlier runs.
            time_scale: The factor by which the processing of the audio changes times.
        """
        self._verification = verification
        self._store = store
        self._phrases = phrases
        self._ctx = ctx
        self._resume = resume
        self._time_scale = time_scale
        self._failed: list[FailedChunk] = []
        self._words: list[Word] = []
        self._error_count = self._word_count = 0.0
        self._chunk_count = self._redone_count = 0
        self.runs: list[RunResult] = []
        self.names: list[str] = []

    async def verify(
        self,
        text: str,
        plain_name: str,
        audio: ChunkAudio,
        result: SpeechResult | None,
        synthesize: Callable[[ChunkAudio], Awaitable[SpeechResult]],
        *,
        is_storable: bool,
    ) -> VerifiedChunk:
        """Check the audio of a chunk, and synthesize the chunk again while it is wrong.

        Audio that has failed is stored under the name of its attempt and is not paid for again. After the last attempt,
        the chunk has the audio with the fewest errors. A voice that speaks it in the same way again has no further
        attempt.

        Args:
            plain_name: Name of the audio of the chunk if it is right.
            audio: The first attempt, which may have the plain name.
            result: The request of the first attempt; None if an earlier run has made it.
            synthesize: Speaks the chunk into a new file.
            is_storable: Whether speech of the route is worth storing.

        Raises:
            VerificationFailed: The audio cannot be transcribed.
            AudiocliError: A further attempt cannot be synthesized.
        """
        attempts: list[VerifiedChunk] = []
        chosen: VerifiedChunk | None = None
        try:
            while chosen is None:
                number = len(attempts) + 1
                check = await self._check(text, audio)
                if check.problem is None:
                    audio = self._rename(audio, plain_name)
                    chosen = VerifiedChunk(audio, check, number > 1)
                    if is_storable:
                        await self._store_accepted(audio, result)
                    break
                self._ctx.debug(f"attempt {number} at {plain_name}: {check.describe_problem()}")
                audio = self._rename(audio, compute_attempt_name(plain_name, number))
                is_same = bool(attempts) and attempts[-1].check.audio_sha256 == check.audio_sha256
                attempts.append(VerifiedChunk(audio, check, number > 1))
                if self._phrases is not None:
                    self._phrases.remove([plain_name])
                if is_storable:
                    await self._store_rejected(audio, result)
                if is_same or number >= self._verification.max_attempts:
                    best = min(attempts, key=lambda attempt: attempt.check.comparison.error_count)
                    chosen = best._replace(is_redone=number > 1)
                    break
                stored = self.open_attempt(plain_name, number + 1) if self._resume else None
                audio = stored or self._create(compute_attempt_name(plain_name, number + 1))
                result = None if stored is not None else await synthesize(audio)
        finally:
            for attempt in attempts:
                if chosen is None or attempt.audio.file is not chosen.audio.file:
                    attempt.audio.file.discard()
        return chosen

    def open_attempt(self, plain_name: str, number: int) -> ChunkAudio | None:
        """Return the audio of an attempt that an unfinished run has made, or a finished one has rejected."""
        audio = self._create(compute_attempt_name(plain_name, number))
        rejected = self._verification.rejected
        if audio.file.open_cached():
            return audio
        if rejected is not None and rejected.copy_to(audio.name, self._store.build_path(audio.name)):
            return audio if audio.file.open_cached() else None
        return None

    def add_result(self, timed: TimedChunk, verified: VerifiedChunk) -> FailedChunk | None:
        """Add a chunk that was written. Return its failure; None if it is right."""
        check = verified.check
        self._chunk_count += 1
        self._redone_count += verified.is_redone
        self._error_count += check.comparison.error_count
        self._word_count += check.comparison.word_count
        # The speech of a caption may have been made faster.
        tempo = timed.duration_s / check.duration_s if check.duration_s else 1.0

        def convert(time_s: float) -> float:
            return (timed.start_s + time_s * tempo) * self._time_scale

        if self._verification.needs_word_times:
            self._words += [
                word._replace(start_s=convert(word.start_s), end_s=convert(word.end_s))
                for word in check.time_words(timed.chunk.text)
            ]
        if check.problem is None:
            return None
        self._failed.append(FailedChunk(timed.chunk.text, convert(check.locate_problem_s()), check.describe_problem()))
        return self._failed[-1]

    def build_result(self) -> VerificationResult:
        """Return the result of all chunks."""
        cost_nanousd, cost_source = sum_costs([(run.cost_nanousd, run.cost_source) for run in self.runs])
        return VerificationResult(
            word_error_rate=self._error_count / self._word_count if self._word_count else 0.0,
            chunk_count=self._chunk_count,
            redone_count=self._redone_count,
            failed=tuple(self._failed),
            cost_nanousd=cost_nanousd,
            cost_source=cost_source,
            words=tuple(self._words),
        )

    async def _check(self, text: str, audio: ChunkAudio) -> SpeechCheck:
        try:
            check = await check_speech(text, audio.file.path, self._verification, self._ctx)
        except AudiocliError as error:
            error.message = f"the speech cannot be verified: {error.message}"
            raise VerificationFailed(error) from error
        if check.run is not None:
            self.runs.append(check.run)
        return check

    def _create(self, name: str) -> ChunkAudio:
        self.names.append(name)
        return ChunkAudio(name, self._store.create_chunk(name))

    def _rename(self, audio: ChunkAudio, name: str) -> ChunkAudio:
        """Store audio under another name. Open files stay as they are."""
        if audio.name == name:
            return audio
        self._store.rename(audio.name, name)
        self.names.append(name)
        return ChunkAudio(name, audio.file)

    async def _store_accepted(self, audio: ChunkAudio, result: SpeechResult | None) -> None:
        """Add right audio to the phrase cache, unless it may be truncated, or is there already."""
        phrases = self._phrases
        if phrases is None or (phrases.has(audio.name) if result is None else result.is_suspicious):
            return
        await self._add_file(phrases, audio, result)

    async def _store_rejected(self, audio: ChunkAudio, result: SpeechResult | None) -> None:
        rejected = self._verification.rejected
        if rejected is not None and (result is not None or not rejected.has(audio.name)):
            await self._add_file(rejected, audio, result)

    async def _add_file(self, cache: PhraseCache, audio: ChunkAudio, result: SpeechResult | None) -> None:
        cost = (None, CostSource.UNKNOWN) if result is None else (result.run.cost_nanousd, result.run.cost_source)
        await run_in_thread(partial(cache.add_file, audio.name, self._store.build_path(audio.name), *cost))


async def check_speech(text: str, path: Path, verification: Verification, ctx: RunContext) -> SpeechCheck:
    """Transcribe the audio of a text, unless its transcript is stored, and compare the two.

    Raises:
        AudiocliError: The audio cannot be transcribed.
    """
    return await check_recording(text, await probe_recording(path, "the speech"), verification, ctx)


async def check_recording(text: str, recording: Recording, verification: Verification, ctx: RunContext) -> SpeechCheck:
    """Transcribe a recording of a text, as `check_speech`. A long one is sent in chunks."""
    from ..text.verification import compare  # loads the libraries of the comparison

    audio_sha256 = await hash_file(recording.path)
    result, is_stored = verification.find_stored_transcript(audio_sha256), True
    if result is None:
        result, is_stored = await _transcribe(recording, audio_sha256, verification, ctx), False
    comparison = await run_in_thread(partial(compare, text, result.transcript, verification.language))
    return SpeechCheck(
        audio_sha256,
        recording.duration_s,
        comparison,
        comparison.find_problem(verification.threshold),
        None if is_stored else result.run,
    )


def list_failures(text: str, check: SpeechCheck, threshold: float) -> tuple[FailedChunk, ...]:
    """Return every problem of a recording, with the words that it is about."""
    comparison = check.comparison
    problem = comparison.find_problem(threshold)
    problems = comparison.problems or ((problem,) if problem is not None else ())
    return tuple(
        FailedChunk(
            problem.quote or " ".join(text[:MAX_QUOTED_CHARACTERS].split()),
            comparison.locate_s(problem.position, check.duration_s),
            problem.describe(comparison.word_error_rate),
        )
        for problem in problems
    )


async def _transcribe(
    recording: Recording, audio_sha256: str, verification: Verification, ctx: RunContext
) -> TranscriptionResult:
    request = build_request(verification)._replace(recording=recording)
    # An empty transcript is a verdict like any other.
    task = TranscriptionTask(
        request, verification.directory, TextStream(), is_chunk=True, allow_empty=True, command=LEDGER_COMMAND
    )
    if must_split(recording, verification.routes, None):
        result = await _transcribe_long(task, verification, ctx)
    else:
        result = await transcribe(task, verification.routes, verification.skipped, ctx)
    name = compute_transcript_name(audio_sha256, result.run.route, verification)
    try:
        verification.transcripts.write(name, serialize_result(result, request))
    except OutputError as error:
        ctx.debug(f"the transcript is not stored: {error.message}")
    else:
        verification.chunk_transcripts.remove(result.chunk_names)
    return result


async def _transcribe_long(task: TranscriptionTask, verification: Verification, ctx: RunContext) -> TranscriptionResult:
    from .long_transcription import transcribe_long
    from .transcription_plan import LongTranscriptionTask, build_chunk_plan

    progress = TranscriptionProgress(task.request.recording.duration_s)
    long_task = LongTranscriptionTask(task, verification.chunk_transcripts, progress)
    plan = await build_chunk_plan(long_task, verification.routes, ctx, spool_audio=True)
    return await transcribe_long(long_task, plan, verification.routes, verification.skipped, ctx)


def build_request(verification: Verification) -> TranscriptionRequest:
    """Return the request for a transcript of speech, without its recording."""
    return TranscriptionRequest(
        Recording(Path(), "wav", 0),
        timestamps=Timestamps.WORD if verification.needs_word_times else Timestamps.NONE,
        timestamps_required=verification.needs_word_times,
        language=verification.language,
        options=verification.options,
    )


# --- costs -----------------------------------------------------------------------------------------------------------


class AttemptBounds(NamedTuple):
    """How often a chunk will be synthesized and transcribed: at least, and at most."""

    min_speech: int
    max_speech: int
    min_transcripts: int
    max_transcripts: int


def find_attempt_bounds(
    name: str, verification: Verification, phrases: PhraseCache | None, store: PaidResultStore
) -> AttemptBounds:
    """Return what a chunk still needs. `name` is that of its audio; `store` has the chunks of unfinished runs."""
    retries = verification.max_attempts - 1
    phrase_sha256 = None if phrases is None else phrases.get_sha256(name)
    if phrase_sha256 is not None and verification.has_transcript(phrase_sha256):
        return AttemptBounds(0, 0, 0, 0)
    if phrase_sha256 is not None or store.has(name):
        return AttemptBounds(0, retries, 1, 1 + retries)
    done = 0
    while done < verification.max_attempts and _has_rejected(compute_attempt_name(name, done + 1), verification):
        done += 1
    remaining = verification.max_attempts - done
    first = min(remaining, 1)
    return AttemptBounds(first, remaining, first, remaining)


def _has_rejected(name: str, verification: Verification) -> bool:
    sha256 = None if verification.rejected is None else verification.rejected.get_sha256(name)
    return sha256 is not None and verification.has_transcript(sha256)


def estimate_verified_speech(
    speech: Estimate, text: str, bounds: AttemptBounds, verification: Verification, cache: ResponseCache
) -> Estimate:
    """Estimate the cost of a chunk with its verification. The maximum includes every further attempt.

    `speech` is the estimate of one synthesis.
    """
    transcript = estimate_transcript(text, verification, cache)
    parts = (
        (speech, bounds.min_speech, bounds.max_speech),
        (transcript, bounds.min_transcripts, bounds.max_transcripts),
    )
    return sum_estimates([_repeat(estimate, minimum, maximum) for estimate, minimum, maximum in parts if maximum])


def estimate_transcript(text: str, verification: Verification, cache: ResponseCache) -> Estimate:
    """Estimate the cost of a transcript of the speech of a text: that of the most expensive route."""
    from .. import gateways

    estimates = []
    expected_s = estimate_duration_s(text)
    for route in verification.routes:
        if gateways.load_dialect(route.dialect).is_free:
            estimates.append(FREE)
            continue
        prices = find_prices(route, cache)
        low, expected, high = (
            estimate_transcription(prices, expected_s * factor) for factor in SPEECH_DURATION_FACTORS
        )
        estimates.append(Estimate(low.min_nanousd, high.max_nanousd, expected_nanousd=expected.nanousd))
    unknown = next((estimate for estimate in estimates if estimate.max_nanousd is None), None)
    return unknown or max(estimates, key=lambda estimate: estimate.max_nanousd or 0)


def _repeat(estimate: Estimate, minimum: int, maximum: int) -> Estimate:
    """Return the estimate of a request that is sent from `minimum` to `maximum` times, most probably `minimum`."""
    return Estimate(
        None if estimate.min_nanousd is None else estimate.min_nanousd * minimum,
        None if estimate.max_nanousd is None else estimate.max_nanousd * maximum,
        is_exact=estimate.is_exact and minimum == maximum,
        expected_nanousd=None if estimate.nanousd is None else estimate.nanousd * minimum,
    )


def estimate_chunks(
    chunks: Sequence[tuple[Chunk, str]],
    verification: Verification,
    phrases: PhraseCache | None,
    store: PaidResultStore,
    speech_estimates: Sequence[Estimate],
    cache: ResponseCache,
    *,
    resume: bool = True,
) -> Estimate:
    """Estimate the cost of chunks and their verification. A text that occurs twice is paid for once.

    Each chunk is given with the name of its audio. `speech_estimates` has the estimate of one synthesis of each.
    """
    estimates: dict[str, Estimate] = {}
    for (chunk, name), speech in zip(chunks, speech_estimates, strict=True):
        attempts = verification.max_attempts
        bounds = AttemptBounds(1, attempts, 1, attempts)
        if resume:
            bounds = find_attempt_bounds(name, verification, phrases, store)
        if bounds.max_transcripts:
            estimates[name] = estimate_verified_speech(speech, chunk.text, bounds, verification, cache)
    return sum_estimates(list(estimates.values())) if estimates else FREE
