"""Paid results in an object store, which several machines share (`--results-url`).

A result has the same name on every machine, because the name is a hash of the content, the settings and the model. It
is read before a recording is sent, and written before the outputs are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from ...object_store import ObjectConflict, ObjectStores, PutMode
from ...types.objects import ObjectUrl


class ObjectResults:
    """The results below a prefix. Implements `SharedResults`."""

    def __init__(self, prefix: ObjectUrl, stores: ObjectStores) -> None:
        self._prefix = prefix
        self._stores = stores

    async def read(self, names: Sequence[str]) -> Mapping[str, bytes]:
        contents = await asyncio.gather(*(self._stores.read(self._build_url(name)) for name in names))
        return {name: content for name, content in zip(names, contents, strict=True) if content is not None}

    async def write(self, name: str, content: bytes, *, replace: bool) -> None:
        mode: PutMode = "overwrite" if replace else "create"
        try:
            await asyncio.to_thread(self._stores.put, self._build_url(name), content, mode)
        except ObjectConflict:
            return  # another machine has stored it

    async def remove(self, names: Sequence[str]) -> None:
        await asyncio.gather(*(asyncio.to_thread(self._stores.delete, self._build_url(name)) for name in names))

    def _build_url(self, name: str) -> ObjectUrl:
        return self._prefix.join(f"{name}.json")
