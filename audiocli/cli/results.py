"""Where paid results are stored: on this machine, and where other machines find them (`--results-url`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import UsageError
from ..types.objects import ObjectUrl, is_object_url, parse_object_url

if TYPE_CHECKING:
    from ..context import AppContext
    from ..storage.paid_results import PaidResultStore


class ResultStores(NamedTuple):
    """The stores of complete transcripts, and of those of the chunks of unfinished long recordings.

    `directory` is that of `--results-url file:///DIR`, and `prefix` that in an object store.
    """

    transcripts: PaidResultStore
    chunks: PaidResultStore
    directory: Path | None
    prefix: ObjectUrl | None


def build_result_stores(app: AppContext, results_url: str | None) -> ResultStores:
    """Return the stores of this machine, which share their results below `--results-url`.

    Raises:
        UsageError: The URL cannot be used.
    """
    from ..storage.paid_results import DirectoryResults, PaidResultStore

    directory, prefix = _find_directory(results_url), _find_prefix(results_url)
    transcripts = PaidResultStore(app.records_directory / "transcripts", ".json")
    chunks = PaidResultStore(app.scratch_directory("texts"), ".json")
    if directory is not None:
        transcripts = transcripts.share(DirectoryResults(directory / "transcripts", ".json"))
        chunks = chunks.share(DirectoryResults(directory / "chunks", ".json"))
    if prefix is not None:
        from ..core.batch.shared_results import ObjectResults

        transcripts = transcripts.share(ObjectResults(prefix, app.object_stores))
        chunks = chunks.share(ObjectResults(prefix.join("chunks"), app.object_stores))
    return ResultStores(transcripts, chunks, directory, prefix)


async def prepare_result_stores(app: AppContext, stores: ResultStores, *, is_read_only: bool) -> None:
    """Check that shared stores can be used, before anything is sent, and remove expired chunks.

    Args:
        is_read_only: Nothing will be sent, so no directory is created.

    Raises:
        AudiocliError: The directory or the object store cannot be used.
    """
    from ..storage.paid_results import DirectoryResults

    for store in (stores.transcripts, stores.chunks):
        if isinstance(store.shared, DirectoryResults) and not is_read_only:
            store.shared.check()
    if stores.prefix is not None:
        await app.object_stores.check(stores.prefix)
    stores.chunks.remove_expired()


def _find_directory(results_url: str | None) -> Path | None:
    """Return the directory that `--results-url file:///DIR` names; None for an object store.

    Raises:
        UsageError: The path is not absolute, or there is a host.
    """
    if results_url is None or not results_url.startswith("file:"):
        return None
    from urllib.parse import unquote, urlsplit

    if urlsplit(results_url).netloc not in ("", "localhost"):
        raise UsageError(f"--results-url {results_url}: must not name a host", hint="use file:///DIR")
    path = Path(unquote(results_url.removeprefix("file:").removeprefix("//").removeprefix("localhost")))
    if not path.is_absolute():
        raise UsageError(f"--results-url {results_url}: must be absolute", hint="use file:///DIR")
    return path


def _find_prefix(results_url: str | None) -> ObjectUrl | None:
    """Return the prefix in an object store that `--results-url` names; None for a directory.

    Raises:
        UsageError: It is not the URL of an object store.
    """
    if results_url is None or results_url.startswith("file:"):
        return None
    if not is_object_url(results_url):
        raise UsageError(
            f"--results-url {results_url}: not the URL of an object store", hint="use s3://BUCKET/PREFIX or file:///DIR"
        )
    return parse_object_url(results_url)
