"""What a client and its workers send each other: plain values, without API keys."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ...errors import AudiocliError
from ...ledger.budget import RunBudget
from ...storage.manifest import FailureRecord, FileFingerprint, OutputRecord
from ...types.routes import NO_TRAITS, Route
from ..retry_policy import RetryPolicy
from .context import BatchConfig
from .item import ItemResult
from .object_items import Item


class WorkerSettings(NamedTuple):
    """What all tasks of a run share.

    Attributes:
        cached_responses: Kind, key and body of the cached responses that prices and routes depend on.
        results_url: Paid results that the client and all workers share: the URL of a directory or of a prefix in an
            object store. None if they share none.
        sends_results: Whether paid results are sent to the client, which stores them.
        has_objects: Whether recordings or outputs are objects.
        is_debugging: Whether debug messages are sent to the client.
    """

    budget: RunBudget
    retry_policy: RetryPolicy
    tag: str | None
    read_timeout_s: float
    cached_responses: tuple[tuple[str, str, bytes], ...] = ()
    results_url: str | None = None
    sends_results: bool = True
    is_debugging: bool = False
    has_objects: bool = False


class ItemTask(NamedTuple):
    """One item for a worker, with what the client knows about it.

    Attributes:
        item: Its paths are absolute.
        config: A pickled `BatchConfig` without keys. It is the same object for all items of a run.
        source: The fingerprint of the recording and the hash of its content, if they are known.
        outputs: The outputs that audiocli has written.
        results: Stored paid results by name.
        has_unknown_outputs: An output exists that is not in the manifest. The stored results tell whether it is ours.
    """

    item: Item
    config: bytes
    source: tuple[FileFingerprint, str] | None
    outputs: Mapping[bytes, OutputRecord]
    results: Mapping[str, bytes]
    has_unknown_outputs: bool = False


class ItemReport(NamedTuple):
    """What a worker returns: the result of an item, or its error, and new paid results by name.

    `is_skipped`: the batch has stopped, and nothing was sent. `is_taken`: another execution of the task has sent it.
    """

    result: ItemResult | None
    error: AudiocliError | None = None
    results: Mapping[str, bytes] = {}
    is_skipped: bool = False
    is_taken: bool = False


class ClaimReply(NamedTuple):
    """Whether an item may be sent, how it failed in an earlier run, and paid results that the client has for it."""

    is_granted: bool
    failure: FailureRecord | None = None
    results: Mapping[str, bytes] = {}


class SendingTaken(AudiocliError):
    """Another execution of the same task has begun to send."""

    code = "taken"


def remove_keys(route: Route) -> Route:
    """Return a route without what is secret. Its worker has its own key."""
    traits = NO_TRAITS if route.traits.secrets else route.traits
    return route._replace(key=None, traits=traits)


def serialize_config(config: BatchConfig) -> bytes:
    """Return the settings of the items for workers, without keys."""
    return pickle.dumps(
        map_routes(config, remove_keys)._replace(request=config.request._replace(options=dict(config.request.options)))
    )


def map_routes(config: BatchConfig, change: Callable[[Route], Route]) -> BatchConfig:
    """Return settings in which every route has been changed."""
    return config._replace(
        routes=tuple(map(change, config.routes)),
        skipped=tuple((change(route), error) for route, error in config.skipped),
        former_routes=tuple(map(change, config.former_routes)),
    )


def map_result_routes(result: ItemResult, change: Callable[[Route], Route]) -> ItemResult:
    """Return a result whose route has been changed."""
    return result if result.run is None else result._replace(run=result.run._replace(route=change(result.run.route)))
