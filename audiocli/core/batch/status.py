"""Find out which outputs of a batch item are up to date, without sending anything."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from ...errors import RecordingError
from ...storage.manifest import FileFingerprint, OutputRecord
from ...types.requests import Timestamps
from ...types.results import TranscriptionResult
from ...types.routes import Route
from ...types.transcripts import Timing
from .context import BatchConfig, BatchContext
from .output_paths import BatchItem
from .transcript_cache import TRANSCRIPT_VERSION, parse_transcript, render_transcript

# Increase when the same transcript and settings would give a different output.
SETTINGS_FINGERPRINT_VERSION = 1
TIMESTAMP_RANKS = {Timestamps.NONE: 0, Timestamps.SEGMENT: 1, Timestamps.WORD: 2}
# Formats whose content depends on the caption limits.
CAPTION_FORMATS = frozenset({"srt", "vtt", "tsv"})


class OutputState(StrEnum):
    """How an output on disk compares to what would be written now.

    `EDITED`: its content differs from the manifest, or it is not in the manifest.
    """

    CURRENT = "current"
    MISSING = "missing"
    STALE = "stale"
    EDITED = "edited"


@dataclass(slots=True)
class ItemStatus:
    """The state of one item.

    `transcript_names` has the name of the cached transcript for each route, `output_states` a state for each output.
    `outputs_to_write` are indexes of outputs. `cached` is the transcript that was found, under the name `cached_name`.
    """

    source_fingerprint: FileFingerprint
    claim_key: str
    transcript_names: list[str]
    output_states: list[OutputState]
    outputs_to_write: list[int]
    cached: TranscriptionResult | None = None
    cached_name: str = ""

    @property
    def must_send(self) -> bool:
        return bool(self.outputs_to_write) and self.cached is None


async def inspect_item(item: BatchItem, config: BatchConfig, batch: BatchContext) -> ItemStatus:
    """Return the state of an item. Raises: RecordingError: the source cannot be read."""
    fingerprint = batch.storage.get_fingerprint(item.source)
    if fingerprint is None:
        raise RecordingError(f"cannot read {item.source}: no such file")
    content_hash = batch.state.get_content_hash(item.source, fingerprint)
    if content_hash is None:
        content_hash = await batch.storage.hash_content(item.source)
        batch.state.record_content_hash(item.source, fingerprint, content_hash)
    claim_key = compute_claim_key(content_hash, config)
    names = [compute_transcript_name(claim_key, route) for route in config.routes]
    fingerprints = {
        format: [compute_settings_fingerprint(name, format, config) for name in names]
        for format in {format for format, _ in item.outputs}
    }
    states = [await _inspect_output(path, fingerprints[format], batch) for format, path in item.outputs]
    status = ItemStatus(fingerprint, claim_key, names, states, [])
    _choose_outputs(status, config)
    has_unknown_outputs = any(state is OutputState.EDITED for state in states)
    if config.resume and (status.outputs_to_write or has_unknown_outputs):
        _load_cached(status, config, batch)
        if status.cached is not None and has_unknown_outputs:
            await _adopt_identical_outputs(item, status, config, batch)
            _choose_outputs(status, config)
    return status


def compute_transcript_name(claim_key: str, route: Route) -> str:
    """Return the name of a cached transcript: a hash of the audio, the settings and the model."""
    return _hash_json([claim_key, route.gateway, route.base_url, route.model])


def compute_claim_key(content_hash: str, config: BatchConfig) -> str:
    """Return the key of a claim: a hash of the audio and the settings, without the model.

    The process that holds the claim may use any of the routes.
    """
    request = config.request
    hash_inputs: list[object] = [
        TRANSCRIPT_VERSION,
        content_hash,
        request.language,
        request.prompt,
        request.temperature,
    ]
    hash_inputs += [request.translate, request.diarize, request.speakers, config.time_by_chunk, config.carry_context]
    hash_inputs += [config.max_chunk_s, json.dumps(dict(request.options), sort_keys=True)]
    return _hash_json(hash_inputs)


def compute_settings_fingerprint(transcript_name: str, format: str, config: BatchConfig) -> str:
    """Return a hash of all that decides the content of an output: transcript, format and caption limits.

    It is stored in the manifest, so neither the order nor the values of its inputs may change.
    """
    caption_limits = astuple(config.caption_limits) if format in CAPTION_FORMATS else None
    return _hash_json([SETTINGS_FINGERPRINT_VERSION, transcript_name, format, caption_limits, config.by_word])


def _hash_json(hash_inputs: object) -> str:
    return hashlib.sha256(json.dumps(hash_inputs).encode("utf-8", "surrogatepass")).hexdigest()[:32]


async def _inspect_output(path: Path, fingerprints: Sequence[str], batch: BatchContext) -> OutputState:
    fingerprint = batch.storage.get_fingerprint(path)
    if fingerprint is None:
        return OutputState.MISSING
    recorded = batch.state.get_output(path)
    if recorded is None:
        return OutputState.EDITED
    if recorded.fingerprint != fingerprint:
        content = batch.storage.read(path)
        if content is None or hashlib.sha256(content).hexdigest() != recorded.sha256:
            return OutputState.EDITED
        batch.state.record_output(path, recorded._replace(fingerprint=fingerprint))
    return OutputState.CURRENT if recorded.settings_fingerprint in fingerprints else OutputState.STALE


def _choose_outputs(status: ItemStatus, config: BatchConfig) -> None:
    """Set `outputs_to_write`."""
    states_to_write = {OutputState.MISSING, OutputState.STALE}
    if config.force:
        states_to_write |= {OutputState.EDITED} if config.resume else {OutputState.EDITED, OutputState.CURRENT}
    status.outputs_to_write = [index for index, state in enumerate(status.output_states) if state in states_to_write]


def _load_cached(status: ItemStatus, config: BatchConfig, batch: BatchContext) -> None:
    """Set `cached` to the first transcript that was stored for one of the routes and is sufficient."""
    for name, route in zip(status.transcript_names, config.routes, strict=True):
        cached = parse_transcript(batch.transcripts.read(name), route)
        if cached is not None and _satisfies_request(
            cached.result, cached.requested_timestamps, cached.has_raw_response, config
        ):
            status.cached, status.cached_name = cached.result, name
            return


def _satisfies_request(
    result: TranscriptionResult, requested_timestamps: Timestamps, has_raw_response: bool, config: BatchConfig
) -> bool:
    """Return whether a cached transcript is sufficient. It may come from a request for coarser timestamps."""
    if config.request.keep_raw_response and not has_raw_response:
        return False
    transcript = result.transcript
    if not transcript.text.strip():
        return True
    if config.request.timestamps_required and transcript.timing is Timing.NONE:
        return False
    available_rank = {Timing.WORD: 2, Timing.SEGMENT: 1, Timing.CHUNK: 1}.get(transcript.timing, 0)
    return max(available_rank, TIMESTAMP_RANKS[requested_timestamps]) >= TIMESTAMP_RANKS[config.required_timestamps]


async def _adopt_identical_outputs(
    item: BatchItem, status: ItemStatus, config: BatchConfig, batch: BatchContext
) -> None:
    """Record outputs that are not in the manifest, if their bytes are exactly what would be written."""
    assert status.cached is not None
    for index, (format, path) in enumerate(item.outputs):
        if status.output_states[index] is not OutputState.EDITED:
            continue
        fingerprint = batch.storage.get_fingerprint(path)
        content = await batch.storage.run_in_thread(
            partial(render_transcript, status.cached, format, config.caption_limits, by_word=config.by_word)
        )
        if fingerprint is not None and fingerprint.size_bytes == len(content) and batch.storage.read(path) == content:
            settings_fingerprint = compute_settings_fingerprint(status.cached_name, format, config)
            batch.state.record_output(
                path, OutputRecord(settings_fingerprint, hashlib.sha256(content).hexdigest(), fingerprint)
            )
            status.output_states[index] = OutputState.CURRENT
