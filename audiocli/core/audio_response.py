"""Receive an audio response: detect its format, write it while it arrives, and check that it is complete."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib import import_module
from typing import NamedTuple

from ..audio import formats, mpeg
from ..audio.integrity import create_integrity_checker
from ..audio.signatures import describe_foreign_data
from ..errors import AttemptError, InvalidResponse
from ..gateways import error_responses
from ..gateways.base import get_media_type, read_json
from ..system_limits import read_address_space_limit
from ..types.audio import PcmFormat
from .attempts import AttemptRecord
from .audio_pipeline import AudioOutput, AudioPipeline, WrittenAudio
from .response_body import MAX_ERROR_BODY_BYTES, chain_blocks
from .run_context import RunContext

# Enough to detect any format, a JSON error object or an HTML page.
HEAD_BYTES = 64

# Samples of 16 bits at 48 kHz in two channels. No gateway sends more (2026-11).
MAX_BYTES_PER_S = 192_000

# Formats that are detected only by the eleven bits of a sync word.
SYNC_WORD_FORMATS = frozenset({"mp3", "mp2", "aac"})
MAX_TWO_FRAMES_BYTES = 4096

# Content types that do not name a format.
GENERIC_CONTENT_TYPES = frozenset({"", "application/octet-stream", "binary/octet-stream"})


class ReceivedAudio(NamedTuple):
    """Audio that was received and written. `written` describes the first output.

    `duration_s` is that of the response. `is_suspicious`: the audio may be incomplete.
    `is_rate_assumed`: nothing states the sample rate.
    """

    written: WrittenAudio
    duration_s: float | None
    warnings: tuple[str, ...]
    is_suspicious: bool = False
    is_rate_assumed: bool = False

    @property
    def final_duration_s(self) -> float | None:
        """Duration of what was written, which processing may have changed."""
        return self.duration_s if self.written.duration_s is None else self.written.duration_s


async def receive_audio(
    headers: Mapping[str, str],
    blocks: AsyncIterator[bytes],
    outputs: Sequence[AudioOutput],
    record: AttemptRecord,
    ctx: RunContext,
    *,
    requested_format: str,
    codec: CodecLoader | None = None,
    is_pcm_known: bool = True,
    max_duration_s: float | None = None,
    pcm_rate_hz: int | None = None,
) -> ReceivedAudio:
    """Detect the format of a successful response and write its audio to every output while it arrives.

    Args:
        headers: Response headers; `content-type` is a hint only.
        blocks: Response body.
        outputs: Where the audio goes, and in which formats.
        record: Record of the attempt, to fill in.
        ctx: Services of the run.
        requested_format: Format in the request to the gateway.
        codec: Loads the codec, if an output needs it.
        is_pcm_known: Whether raw samples without a declared sample rate are known to have 24,000 Hz.
        pcm_rate_hz: Configured sample rate of raw samples, which the response cannot change.
        max_duration_s: Longest speech of the text. Longer audio is refused while it arrives, by its size.

    Raises:
        AttemptError: The body is not audio, it is truncated, or it is far longer than the speech of the text.
    """
    max_bytes = None if max_duration_s is None else int(max_duration_s * MAX_BYTES_PER_S)
    head = await _read_head(blocks, record, ctx)
    if requested_format in formats.RAW_FORMATS and _may_be_raw_samples(head):
        head = await _read_two_frames(blocks, head)
    source_format, pcm = await _detect_format(headers, head, blocks, requested_format=requested_format)
    if codec is not None:
        await codec.wait()
    warnings = []
    states_rate = formats.parse_pcm_format(headers)[1]
    is_rate_assumed = source_format == "pcm" and pcm_rate_hz is None and not is_pcm_known and not states_rate
    if source_format == "pcm" and pcm_rate_hz is not None:
        if states_rate and pcm.sample_rate_hz != pcm_rate_hz:
            warnings.append(
                f"the gateway states a sample rate of {pcm.sample_rate_hz:,} Hz; using pcm_rate: {pcm_rate_hz:,} Hz"
            )
        pcm = pcm._replace(sample_rate_hz=pcm_rate_hz)
    elif is_rate_assumed:
        warnings.append(f"the gateway does not state the sample rate of its audio; assuming {pcm.sample_rate_hz:,} Hz")
    if not formats.is_compatible(requested_format, source_format):
        warnings.append(f"the gateway sent {source_format} instead of {requested_format}")
    checker = create_integrity_checker(source_format, pcm)
    pipelines = [AudioPipeline(output, source_format=source_format, pcm=pcm) for output in outputs]
    try:
        for pipeline in pipelines:
            await pipeline.begin()
        async for block in chain_blocks(head, blocks):
            record.received_bytes += len(block)
            if max_bytes is not None and record.received_bytes > max_bytes:
                raise InvalidResponse(
                    f"200 with more than {max_bytes // 1_000_000} MB of audio, too much for the text",
                    request_id=record.request_id,
                )
            checker.feed(block)
            for pipeline in pipelines:
                await pipeline.feed(block)
        report = checker.finish()
        if report.problem:
            raise InvalidResponse(f"200 with invalid audio: {report.description}", request_id=record.request_id)
        if report.is_unfinished:
            warnings.append(f"the {source_format} audio has no end mark; it may be truncated")
        written = [await pipeline.finish() for pipeline in pipelines]
    finally:
        for pipeline in pipelines:
            pipeline.close()
    record.audio_s = report.duration_s
    warnings += dict.fromkeys(warning for audio in written for warning in audio.warnings)
    for warning in warnings:
        ctx.info(f"warning: {warning}")
    return ReceivedAudio(written[0], report.duration_s, tuple(warnings), report.is_unfinished, is_rate_assumed)


async def _read_head(blocks: AsyncIterator[bytes], record: AttemptRecord, ctx: RunContext) -> bytes:
    """Read the first bytes, as few as format detection needs."""
    head = b""
    async for block in blocks:
        if record.first_byte_s is None and block:
            record.first_byte_s = ctx.now_s()
        head += block
        if len(head) >= HEAD_BYTES:
            break
    return head


def _may_be_raw_samples(head: bytes) -> bool:
    """Return whether the detected format may be a coincidence in raw samples.

    Samples may contain a sync word by chance, but not an ID3 tag.
    """
    sniffed = formats.sniff_format(head)
    return sniffed is not None and sniffed.name in SYNC_WORD_FORMATS and not head.startswith(b"ID3")


async def _read_two_frames(blocks: AsyncIterator[bytes], head: bytes) -> bytes:
    """Read enough bytes for two frames of any bit rate."""
    async for block in blocks:
        head += block
        if len(head) >= MAX_TWO_FRAMES_BYTES:
            break
    return head


async def _detect_format(
    headers: Mapping[str, str], head: bytes, blocks: AsyncIterator[bytes], *, requested_format: str
) -> tuple[str, PcmFormat]:
    """Return the format of the audio, and the PCM format of raw samples.

    Raises:
        AttemptError: The body is not audio.
    """
    request_id = error_responses.parse_request_id(headers)
    if not head:
        raise InvalidResponse("200 with an empty body", request_id=request_id)
    declared_format, _ = formats.parse_content_type(headers.get("content-type", ""))
    pcm, _ = formats.parse_pcm_format(headers)
    content_type = get_media_type(headers)
    sniffed = formats.sniff_format(head)
    # Detected audio takes precedence over a text type, because frameworks send text/html by default.
    declares_text = content_type == "application/json" or content_type.startswith("text/")
    if sniffed is None and (declares_text or formats.looks_like_text(head)):
        raise await _build_not_audio_error(headers, head, blocks)
    if (description := describe_foreign_data(head)) is not None:
        raise InvalidResponse(f"200 with {description} instead of audio", request_id=request_id)
    if declared_format is not None and declared_format.name in formats.RAW_FORMATS:
        if sniffed is None or _may_be_raw_samples(head):
            return declared_format.name, pcm
    elif (
        requested_format in formats.RAW_FORMATS
        and (content_type.startswith("audio/") or content_type in GENERIC_CONTENT_TYPES)
        # The type does not name the format. A second frame where the first one ends shows that these are not samples.
        and (sniffed is None or (_may_be_raw_samples(head) and not mpeg.has_repeated_frame(head)))
    ):
        return requested_format, pcm
    if sniffed is None:
        raise InvalidResponse(
            f"200 with a body that is not audio ({content_type or 'no content type'})", request_id=request_id
        )
    return sniffed.name, pcm


async def _build_not_audio_error(headers: Mapping[str, str], head: bytes, blocks: AsyncIterator[bytes]) -> AttemptError:
    """Return the error inside a JSON body, or one that says what was received."""
    body = await _read_remaining_error(blocks, head)
    error = error_responses.find_embedded_error(read_json(body), headers)
    if error is not None:
        return error
    description = "an HTML page" if body.lstrip()[:1] == b"<" else "text"
    return InvalidResponse(
        f"200 with {description} instead of audio", request_id=error_responses.parse_request_id(headers)
    )


async def _read_remaining_error(blocks: AsyncIterator[bytes], body: bytes) -> bytes:
    """Read the rest of a body that is not audio, up to `MAX_ERROR_BODY_BYTES`."""
    async for block in blocks:
        body += block
        if len(body) >= MAX_ERROR_BODY_BYTES:
            break
    return body[:MAX_ERROR_BODY_BYTES]


class CodecLoader:
    """Imports the codec, which takes 60 ms, in a thread while the gateway works on the request."""

    def __init__(self) -> None:
        self._task: asyncio.Task[object] | None = None

    def start_loading(self) -> None:
        """Start the import, once. Under a memory limit it is completed here, so that its failure costs nothing."""
        if self._task is None and read_address_space_limit() is not None:
            import_module("audiocli.codecs.encoder")
        elif self._task is None:
            self._task = asyncio.create_task(asyncio.to_thread(import_module, "audiocli.codecs.encoder"))

    async def wait(self) -> None:
        """Wait for an import that was started. Raises its error."""
        if self._task is not None:
            # Importing PyAV in two threads at the same time fails (KeyError: 'av', PyAV 18 on Python 3.11).
            await asyncio.shield(self._task)

    async def finish_loading(self) -> None:
        """Wait until the thread has ended."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
