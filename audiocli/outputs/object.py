"""An output that is an object: written to a file first, so that it appears complete or not at all."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

from ..errors import AudiocliError, OutputError
from ..object_store import ObjectStores
from ..types.objects import ObjectUrl
from .file import FileOutput, build_rescue_stem


class ObjectOutput(FileOutput):
    """An object that replaces one of the same name. If it cannot be written, its file stays."""

    def __init__(self, url: ObjectUrl, stores: ObjectStores, *, rescue_directory: Path) -> None:
        """Open the file. Raises: OutputError: the directory is not writable."""
        name = f"{secrets.token_hex(4)}-{build_rescue_stem(Path(url.name))}"
        super().__init__(rescue_directory / name, rescue_directory=rescue_directory)
        self._url = url
        self._stores = stores

    async def commit(self) -> None:
        await super().commit()
        try:
            # Not awaited in the loop, because the upload of a book takes longer than Ctrl-C may.
            await asyncio.to_thread(self._stores.put, self._url, self.path, "overwrite")
        except AudiocliError as error:
            raise OutputError(
                f"cannot write {self._url}: {error.message}",
                hint=f"the complete output is saved in {self.path}",
                saved_path=str(self.path),
            ) from error
        self.path.unlink(missing_ok=True)


async def open_object_output(url: ObjectUrl, stores: ObjectStores, *, rescue_directory: Path) -> ObjectOutput:
    """Open an output before a request is sent, and check that its store can be reached. Raises: AudiocliError."""
    await stores.check(ObjectUrl(url.store, url.parent.key))
    return ObjectOutput(url, stores, rescue_directory=rescue_directory)
