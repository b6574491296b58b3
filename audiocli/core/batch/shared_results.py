"""Paid results in an object store, which several machines share (`--results-url`).

A transcript has the same name on every machine, because the name is a hash of the content, the settings and the model.
It is read before a recording is sent, and written before the outputs are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from ...errors import AudiocliError, OutputError
from ...object_store import ObjectConflict, ObjectStores
from ...storage.paid_results import PaidResultStore
from ...types.objects import ObjectUrl


class SharedResults:
    """The transcripts below a prefix. `local` has those of this machine, and copies of those that were read."""

    def __init__(self, prefix: ObjectUrl, stores: ObjectStores, local: PaidResultStore) -> None:
        self.prefix = prefix
        self._stores = stores
        self._local = local

    async def check(self) -> None:
        """Check that the store can be used, before anything is sent. Raises: AudiocliError."""
        await self._stores.check(self.prefix)

    async def fetch(self, names: Iterable[str]) -> None:
        """Copy the transcripts that this machine does not have. Raises: AudiocliError: the store cannot be read."""
        for name in dict.fromkeys(names):
            if not self._local.has(name) and (content := await self._stores.read(self._build_url(name))) is not None:
                self._local.write(name, content)

    async def publish(self, name: str, *, replace: bool = False) -> None:
        """Write a transcript of this machine, unless there is one of this name. `replace`: also then.

        Raises:
            OutputError: It cannot be written. The same command tries again.
        """
        content = self._local.read(name)
        if content is None:
            return
        url = self._build_url(name)
        try:
            await asyncio.to_thread(self._stores.put, url, content, "overwrite" if replace else "create")
        except ObjectConflict:
            return  # another machine has stored it
        except AudiocliError as error:
            raise OutputError(
                f"cannot store the transcript in {self.prefix}: {error.message}",
                hint="it is stored on this machine; the same command writes it without sending the recording again",
            ) from error

    def _build_url(self, name: str) -> ObjectUrl:
        return self.prefix.join(f"{name}.json")
