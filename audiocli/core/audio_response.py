"""Audio as it arrives: judged by its first bytes, delivered while it comes, looked through to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib import import_module
from typing import NamedTuple

from ..audio import formats, mpeg
from ..audio.integrity import inspector
from ..errors import AttemptError, InvalidResponse, ResponseInterrupted
from ..gateways import error_responses
from ..gateways.base import media_type, read_json
from ..types.values import Pcm
from .attempts import AttemptRecord
from .audio_pipeline import Delivered, Delivery, Outlet
from .run_context import RunContext

# Enough to recognise any format, and to see an error object or a page of HTML for what it is.
HEAD_BYTES = 64
ERROR_BODY_BYTES = 64 * 1024

# Formats that are known by eleven set bits alone.
SYNC_ONLY = frozenset({"mp3", "mp2", "aac"})
TWO_FRAMES_BYTES = 4096

# Content types that say nothing.
UNTOLD = frozenset({"", "application/octet-stream", "binary/octet-stream"})


class Received(NamedTuple):
    """Audio that came and is delivered; the first outlet's part of it is what the receipt tells."""

    delivered: Delivered
    duration_s: float | None
    warnings: tuple[str, ...]


async def receive(
    headers: Mapping[str, str],
    chunks: AsyncIterator[bytes],
    outlets: Sequence[Outlet],
    told: AttemptRecord,
    tools: RunContext,
    *,
    asked: str,
    warming: asyncio.Task[None] | None = None,
) -> Received:
    """Judge the audio of a 200 and deliver it while it comes. `warming` loads the codec, where that was begun.

    Raises: AttemptError: it is no audio, or not whole.
    """
    head = await _head(chunks, told, tools)
    if asked == "pcm" and _may_be_samples(head):
        head = await _more(chunks, head)
    arriving, pcm = await _judge(headers, head, chunks, asked=asked)
    if warming is not None:
        # Two threads that import PyAV at once break each other (KeyError: 'av', PyAV 18 on 3.11).
        await asyncio.shield(warming)
    warnings = []
    if not formats.fits(asked, arriving):
        warnings.append(f"the gateway sent {arriving} although {asked} was asked for")
    inspection = inspector(arriving, pcm)
    deliveries = [Delivery(outlet, arriving=arriving, pcm=pcm) for outlet in outlets]
    try:
        for delivery in deliveries:
            await delivery.begin()
        async for chunk in rejoined(head, chunks):
            told.received_bytes += len(chunk)
            inspection.feed(chunk)
            for delivery in deliveries:
                await delivery.feed(chunk)
        finding = inspection.finish()
        if finding.problem:
            raise InvalidResponse(f"200 with bad audio: {finding.problem}", request_id=told.request_id)
        delivered = [await delivery.finish() for delivery in deliveries]
    finally:
        for delivery in deliveries:
            delivery.close()
    told.audio_s = finding.duration_s
    for warning in warnings:
        tools.info(f"warning: {warning}")
    return Received(delivered[0], finding.duration_s, tuple(warnings))


async def _head(chunks: AsyncIterator[bytes], told: AttemptRecord, tools: RunContext) -> bytes:
    """Collect the first bytes, as few as are needed to judge them."""
    head = b""
    async for chunk in chunks:
        if told.first_byte_s is None and chunk:
            told.first_byte_s = tools.now_s()
        head += chunk
        if len(head) >= HEAD_BYTES:
            break
    return head


def _may_be_samples(head: bytes) -> bool:
    """Tell whether samples could look like this by chance: eleven set bits, but hardly four letters."""
    sniffed = formats.sniff(head)
    return sniffed is not None and sniffed.name in SYNC_ONLY and not head.startswith(b"ID3")


async def _more(chunks: AsyncIterator[bytes], head: bytes) -> bytes:
    """Collect enough for two frames of any bit rate."""
    async for chunk in chunks:
        head += chunk
        if len(head) >= TWO_FRAMES_BYTES:
            break
    return head


async def _judge(
    headers: Mapping[str, str], head: bytes, chunks: AsyncIterator[bytes], *, asked: str
) -> tuple[str, Pcm]:
    """Tell what kind of audio is coming. Raises: AttemptError: none is."""
    told = error_responses.request_id(headers)
    if not head:
        raise InvalidResponse("200 with an empty body", request_id=told)
    announced, shape = formats.of_content_type(headers.get("content-type", ""))
    pcm = shape or Pcm()
    kind = media_type(headers)
    sniffed = formats.sniff(head)
    # Content that is certainly sound is believed against its type: frameworks announce text/html by default.
    announces_text = kind == "application/json" or kind.startswith("text/")
    if sniffed is None and (announces_text or formats.looks_like_text(head)):
        raise await _not_audio(headers, head, chunks)
    if announced is not None and announced.name == "pcm":
        if sniffed is None or _may_be_samples(head):
            return "pcm", pcm
    elif (
        asked == "pcm"
        and (kind.startswith("audio/") or kind in UNTOLD)
        # Nobody says that these are samples: a second frame where the first one ends says that they are not.
        and (sniffed is None or (_may_be_samples(head) and not mpeg.repeats(head)))
    ):
        return "pcm", pcm
    if sniffed is None:
        raise InvalidResponse(f"200 with something that is not audio ({kind or 'no content type'})", request_id=told)
    return sniffed.name, pcm


async def _not_audio(headers: Mapping[str, str], head: bytes, chunks: AsyncIterator[bytes]) -> AttemptError:
    body = await _bounded(chunks, head)
    error = error_responses.embedded_failure(read_json(body), headers)
    if error is not None:
        return error
    what = "an HTML page" if body.lstrip()[:1] == b"<" else "text"
    return InvalidResponse(f"200 with {what} instead of audio", request_id=error_responses.request_id(headers))


async def error_body(chunks: AsyncIterator[bytes]) -> bytes:
    """Read the body of an error, as far as it comes: the status has said what matters."""
    body = b""
    try:
        async for chunk in chunks:
            body += chunk
            if len(body) >= ERROR_BODY_BYTES:
                break
    except ResponseInterrupted:
        pass
    return body[:ERROR_BODY_BYTES]


async def _bounded(chunks: AsyncIterator[bytes], body: bytes) -> bytes:
    """Read the rest of an error, but not more than errors are long."""
    async for chunk in chunks:
        body += chunk
        if len(body) >= ERROR_BODY_BYTES:
            break
    return body[:ERROR_BODY_BYTES]


async def rejoined(head: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for chunk in chunks:
        yield chunk


def warm_codec() -> None:
    """Load the codec while the gateway thinks: it takes 60 ms."""
    import_module("audiocli.codecs.encoder")
