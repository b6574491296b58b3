"""Where the items of a batch are processed: in this process, or elsewhere.

`WorkerPool` decides which items are processed, and when. An `Executor` processes one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

from ...errors import AudiocliError
from ..progress import TranscriptionProgress
from ..run_context import RunContext
from .context import BatchConfig, BatchContext
from .item import ItemResult

if TYPE_CHECKING:
    from .object_items import Item


class ItemSkipped(Exception):
    """The item was prepared but not sent, because the batch has stopped."""


class ExecutorLost(Exception):
    """The executor cannot process further items. `item_error` is the error of the item; None if it was not begun."""

    def __init__(self, reason: AudiocliError, item_error: AudiocliError | None) -> None:
        super().__init__(reason.message)
        self.reason = reason
        self.item_error = item_error


class Executor(Protocol):
    """Processes single items."""

    async def process(
        self,
        item: Item,
        config: BatchConfig,
        ctx: RunContext,
        *,
        progress: TranscriptionProgress,
        hold_slot: Callable[[], AbstractAsyncContextManager[None]],
    ) -> ItemResult:
        """Bring the outputs of one recording up to date.

        Args:
            ctx: Its limiter is that of the item. A request waits there for a slot of the pool.
            hold_slot: Context manager that holds one slot while the chunks of a long recording are sent.

        Raises:
            ItemSkipped: The batch has stopped, and nothing was sent.
            ExecutorLost: No further item can be processed.
            AudiocliError: The item failed.
        """
        ...


class LocalExecutor:
    """Processes items in this process."""

    def __init__(self, batch: BatchContext) -> None:
        self._batch = batch

    async def process(
        self,
        item: Item,
        config: BatchConfig,
        ctx: RunContext,
        *,
        progress: TranscriptionProgress,
        hold_slot: Callable[[], AbstractAsyncContextManager[None]],
    ) -> ItemResult:
        from .object_item import process_any_item

        return await process_any_item(item, config, self._batch, ctx, progress=progress, hold_slot=hold_slot)
