"""Find out which outputs of a batch item are up to date, without sending anything."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from ...errors import RecordingError
from ...storage.manifest import FileFingerprint, OutputRecord
from ...storage.paid_results import PaidResultStore
from ...text.format_names import CAPTION_FORMATS, CAPTIONED_VIDEO
from ...types.audio import Selection
from ...types.requests import Timestamps
from ...types.results import TranscriptionResult
from ...types.routes import Route
from ...types.transcripts import Timing
from ..transcript_pages import list_page_inputs
from .context import BatchConfig, BatchContext, BatchState, Storage
from .output_paths import BatchItem, name_item
from .transcript_cache import TRANSCRIPT_VERSION, may_be_partial, parse_transcript, render_output

# Increase when the same transcript and settings would give a different output.
SETTINGS_FINGERPRINT_VERSION = 1
TIMESTAMP_RANKS = {Timestamps.NONE: 0, Timestamps.SEGMENT: 1, Timestamps.WORD: 2}


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

    `item` has the final names of its outputs, if they are known. `selection` is the resolved one. `candidates` are the
    names of stored transcripts that may serve, each with its route. `output_states` has a state for each output.
    `outputs_to_write` are indexes of outputs. `cached` is the transcript that was found, under the name `cached_name`.
    If no output must be written, it is found only if it is partial.
    """

    item: BatchItem
    source_fingerprint: FileFingerprint
    content_hash: str
    claim_key: str
    selection: Selection
    candidates: list[tuple[str, Route]]
    output_states: list[OutputState]
    outputs_to_write: list[int]
    cached: TranscriptionResult | None = None
    cached_name: str = ""

    @property
    def must_send(self) -> bool:
        return bool(self.outputs_to_write) and self.cached is None


async def inspect_item(
    item: BatchItem, config: BatchConfig, batch: BatchContext, *, fetch_results: bool = False
) -> ItemStatus:
    """Return the state of an item.

    Args:
        fetch_results: Copy a transcript of another machine that the item needs. Otherwise, only if there are outputs
            that may be those of another machine.

    Raises:
        RecordingError: The source cannot be read.
        AudiocliError: The results of other machines cannot be read.
    """
    fingerprint = batch.storage.get_fingerprint(item.source)
    if fingerprint is None:
        raise RecordingError(f"cannot read {item.source}: no such file")
    content_hash = await batch.state.get_content_hash(item.source, fingerprint)
    if content_hash is None:
        content_hash = await batch.storage.hash_content(item.source)
        batch.state.record_content_hash(item.source, fingerprint, content_hash)
    requested = config.request.recording.selection
    selection = await batch.resolve_selection(item.source, requested, config.request.language, content_hash)
    config = config.select(selection)
    claim_key = compute_claim_key(content_hash, config)
    candidates = list_candidates(content_hash, config)
    if item.name_template is not None and (found := find_transcript(candidates, config, batch.transcripts)) is not None:
        item = name_item(item, found[0].transcript.language)
        await batch.storage.look_up([path for _, path in item.outputs])
    status = ItemStatus(item, fingerprint, content_hash, claim_key, selection, candidates, [], [])
    used_names = inspect_outputs(status, config, batch)
    if not status.outputs_to_write:
        _load_partial(status, [candidate for candidate in candidates if candidate[0] in used_names], batch)
    has_unknown_outputs = any(state is OutputState.EDITED for state in status.output_states)
    if config.resume and (has_unknown_outputs or (fetch_results and status.outputs_to_write)):
        await batch.transcripts.fetch(name for name, _ in candidates)
    if config.resume and (status.outputs_to_write or has_unknown_outputs):
        status.cached, status.cached_name = find_transcript(candidates, config, batch.transcripts) or (
            status.cached,
            status.cached_name,
        )
        if status.cached is not None and has_unknown_outputs:
            await _adopt_identical_outputs(item, status, config, batch)
            _choose_outputs(status, config)
    return status


def inspect_outputs(status: ItemStatus, config: BatchConfig, batch: BatchContext) -> set[str | None]:
    """Set the states of the outputs, and choose those to write. Return the names of their transcripts."""
    item, states, used_names = status.item, [], set()
    for format, path in item.outputs:
        names_by_fingerprint = {
            compute_settings_fingerprint(name, format, config, item.source, path): name for name, _ in status.candidates
        }
        state, settings_fingerprint = inspect_output(path, names_by_fingerprint, batch.storage, batch.state)
        states.append(state)
        used_names.add(names_by_fingerprint.get(settings_fingerprint))
    status.output_states = states
    _choose_outputs(status, config)
    return used_names


def list_candidates(content_hash: str, config: BatchConfig) -> list[tuple[str, Route]]:
    """Return the names of all stored transcripts that may serve, each with its route, the best ones first.

    Models that are skipped now may have served before, for example before it was known that they return no
    timestamps. For the same reason the chunks of the transcript may have been timed, or not. Earlier default models may
    have served too.
    """
    configs = [config]
    if config.time_by_chunk or config.allow_chunk_timing:
        configs.append(config._replace(time_by_chunk=not config.time_by_chunk))
    routes = (*config.routes, *(route for route, _ in config.skipped), *config.former_routes)
    keys = [compute_claim_key(content_hash, candidate) for candidate in configs]
    return [(compute_transcript_name(key, route), route) for key in keys for route in routes]


def compute_transcript_name(claim_key: str, route: Route) -> str:
    """Return the name of a cached transcript: a hash of the audio, the settings and the model."""
    hash_inputs = [claim_key, route.gateway, route.base_url, route.model]
    if route.traits.transcription_fingerprint:
        hash_inputs.append(route.traits.transcription_fingerprint)
    return _hash_json(hash_inputs)


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
    if not request.recording.selection.is_everything:  # older keys have none
        hash_inputs.append(["selection", *request.recording.selection])
    if request.keyterms:  # older keys have none
        hash_inputs.append(["keyterms", *request.keyterms])
    return _hash_json(hash_inputs)


def compute_settings_fingerprint(
    transcript_name: str, format: str, config: BatchConfig, source: Path | None, path: Path
) -> str:
    """Return a hash of all that decides the content of an output: transcript, format, style and recording.

    It is stored in the manifest, so neither the order nor the values of its inputs may change. What is newer than
    version 0.1 is left out where it has no effect.
    """
    style = config.style
    limits = style.limits
    caption_limits = (
        [limits.max_line_width, limits.max_lines, limits.max_cue_s, limits.cps] if format in CAPTION_FORMATS else None
    )
    hash_inputs = [SETTINGS_FINGERPRINT_VERSION, transcript_name, format, caption_limits, style.by_word]
    hash_inputs += style.list_fingerprint_inputs(format)
    hash_inputs += list_page_inputs(format, source, path, style)
    return _hash_json(hash_inputs)


def _hash_json(hash_inputs: object) -> str:
    return hashlib.sha256(json.dumps(hash_inputs).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def inspect_output(
    path: Path, settings_fingerprints: Container[str], storage: Storage, state: BatchState
) -> tuple[OutputState, str]:
    """Return the state of an output, and the settings fingerprint that it was recorded with."""
    fingerprint = storage.get_fingerprint(path)
    if fingerprint is None:
        return OutputState.MISSING, ""
    recorded = state.get_output(path)
    if recorded is None:
        return OutputState.EDITED, ""
    if recorded.fingerprint != fingerprint:
        # A copy of a video is large. It is read only if it may be the same.
        content = storage.read(path) if recorded.fingerprint.size_bytes == fingerprint.size_bytes else None
        if content is None or hashlib.sha256(content).hexdigest() != recorded.sha256:
            return OutputState.EDITED, recorded.settings_fingerprint
        state.record_output(path, recorded._replace(fingerprint=fingerprint))
    is_current = recorded.settings_fingerprint in settings_fingerprints
    return OutputState.CURRENT if is_current else OutputState.STALE, recorded.settings_fingerprint


def _choose_outputs(status: ItemStatus, config: BatchConfig) -> None:
    """Set `outputs_to_write`."""
    states_to_write = {OutputState.MISSING, OutputState.STALE}
    if config.force:
        states_to_write |= {OutputState.EDITED} if config.resume else {OutputState.EDITED, OutputState.CURRENT}
    status.outputs_to_write = [index for index, state in enumerate(status.output_states) if state in states_to_write]


def find_transcript(
    candidates: Sequence[tuple[str, Route]], config: BatchConfig, store: PaidResultStore
) -> tuple[TranscriptionResult, str] | None:
    """Return the first stored transcript that is sufficient, and its name.

    An empty transcript of a recording with clear speech is returned only if there is no other one.
    """
    empty: tuple[TranscriptionResult, str] | None = None
    for name, route in candidates:
        cached = parse_transcript(store.read(name), route)
        if cached is None or not _satisfies_request(
            cached.result, cached.requested_timestamps, cached.has_raw_response, config
        ):
            continue
        if not cached.result.is_unaccepted_empty:
            return cached.result, name
        empty = empty or (cached.result, name)
    return empty


def _load_partial(status: ItemStatus, candidates: Sequence[tuple[str, Route]], batch: BatchContext) -> None:
    """Set `cached` if the transcript of the outputs is partial, because every run must report that."""
    for name, route in candidates:
        content = batch.transcripts.read(name)
        cached = parse_transcript(content, route) if may_be_partial(content) else None
        if cached is not None:
            status.cached, status.cached_name = cached.result, name
            return


def _satisfies_request(
    result: TranscriptionResult, requested_timestamps: Timestamps, has_raw_response: bool, config: BatchConfig
) -> bool:
    """Return whether a cached transcript is sufficient. It may come from a request for coarser timestamps.

    A transcript without timestamps is sufficient if they were requested, because the same request would not give them.
    """
    if config.request.keep_raw_response and not has_raw_response:
        return False
    transcript = result.transcript
    if not transcript.text.strip():
        return True
    available_rank = {Timing.WORD: 2, Timing.SEGMENT: 1, Timing.CHUNK: 1}.get(transcript.timing, 0)
    return max(available_rank, TIMESTAMP_RANKS[requested_timestamps]) >= TIMESTAMP_RANKS[config.required_timestamps]


def embeds_source(format: str, config: BatchConfig) -> bool:
    """Return whether an output contains the recording itself."""
    return format == CAPTIONED_VIDEO or (format == "html" and config.style.embed_media)


async def _adopt_identical_outputs(
    item: BatchItem, status: ItemStatus, config: BatchConfig, batch: BatchContext
) -> None:
    """Record outputs that are not in the manifest, if their bytes are exactly what would be written."""
    assert status.cached is not None
    for index, (format, path) in enumerate(item.outputs):
        if status.output_states[index] is not OutputState.EDITED or format == CAPTIONED_VIDEO:
            continue
        fingerprint = batch.storage.get_fingerprint(path)
        if embeds_source(format, config):
            await batch.storage.fetch(item.source)
        content = await batch.storage.run_in_thread(
            partial(render_output, status.cached, format, config.style, source=item.source, path=path)
        )
        if fingerprint is None or fingerprint.size_bytes != len(content):
            continue
        if await batch.storage.run_in_thread(partial(batch.storage.read, path)) == content:
            settings_fingerprint = compute_settings_fingerprint(status.cached_name, format, config, item.source, path)
            batch.state.record_output(
                path, OutputRecord(settings_fingerprint, hashlib.sha256(content).hexdigest(), fingerprint)
            )
            status.output_states[index] = OutputState.CURRENT
