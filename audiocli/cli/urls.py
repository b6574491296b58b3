"""Recordings at URLs: `transcribe https://…`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..context import AppContext
from ..errors import OutputError, UsageError
from ..redaction import hide_credentials
from ..types.objects import OBJECT_SCHEMES, ObjectUrl, parse_object_url
from .inputs import URL_PATTERN, StdinFormat, is_object, open_recording

if TYPE_CHECKING:
    from ..console import Console
    from ..core.run_context import RunContext


def is_url(source: str | None) -> bool:
    """Return whether an input is a URL, and not the name of a file."""
    return source is not None and URL_PATTERN.match(source) is not None and not os.path.lexists(source)


def describe_source(source: str | None) -> str:
    """Return the name of an input in messages, without what may be secret."""
    if source is None or source == "-":
        return "stdin"
    return hide_credentials(source) if is_url(source) else source


def open_source(
    app: AppContext, console: Console, source: str | None, stdin_format: StdinFormat, *, read_timeout_s: float
) -> AbstractContextManager[Path]:
    """Provide the recording of an input as a regular file: a file, a stream, or a URL.

    Raises:
        AudiocliError: The input cannot be read.
    """
    if source is None or not is_url(source):
        return open_recording(app, source, stdin_format)
    if stdin_format.extension is not None:
        raise UsageError("--stdin-format requires a recording on stdin")
    if is_object(source):
        return open_object(app, console, source, read_timeout_s=read_timeout_s)
    return open_url(app, console, source, read_timeout_s=read_timeout_s)


@contextmanager
def open_url(app: AppContext, console: Console, url: str, *, read_timeout_s: float) -> Iterator[Path]:
    """Download a recording to a temporary file, whose name follows from the URL.

    Raises:
        AudiocliError: The URL is invalid, or cannot be downloaded.
    """
    import tempfile

    from ..http.url import parse_url

    _require_supported_scheme(url)
    parse_url(url)
    with tempfile.TemporaryDirectory(prefix="audiocli-") as directory:
        yield app.run(
            lambda ctx: _download(app, console, ctx, url, Path(directory)),
            read_timeout_s=read_timeout_s,
            info=console.info,
            debug=console.debug,
        )


def _require_supported_scheme(url: str) -> None:
    """Check the scheme of a URL that is not one of an object. Raises: UsageError: It is not http or https."""
    scheme = url.partition(":")[0].lower()
    if scheme in ("http", "https"):
        return
    name = hide_credentials(url)
    if scheme in OBJECT_SCHEMES:
        raise UsageError(f"{name} is not the URL of an object", hint=f"write it as {scheme}://BUCKET/KEY")
    raise UsageError(
        f"not an http or https URL: {name}", hint="use a path, or a URL that begins with http, https, s3, gs or az"
    )


@contextmanager
def open_object(app: AppContext, console: Console, source: str, *, read_timeout_s: float) -> Iterator[Path]:
    """Copy an object to a temporary file of its name.

    Raises:
        UsageError: It does not exist.
        AudiocliError: It cannot be read.
    """
    import tempfile

    url = parse_object_url(source)
    with tempfile.TemporaryDirectory(prefix="audiocli-") as directory:
        path = Path(directory) / (url.name or "object")
        app.run(
            lambda ctx: _copy_object(app, console, url, path),
            read_timeout_s=read_timeout_s,
            info=console.info,
            debug=console.debug,
        )
        yield path


async def _copy_object(app: AppContext, console: Console, url: ObjectUrl, path: Path) -> None:
    from ..console import ProgressState
    from ..storage.local import check_free_space

    stores = app.object_stores
    await stores.check(url.parent)
    version = await stores.head(url)
    if version is None:
        raise UsageError(f"cannot read {url}: no such object", hint="use -R for all recordings below a prefix")
    check_free_space(path.parent, str(url))
    try:
        with path.open("wb") as file:
            async with console.activity(lambda: ProgressState(f"reading {url}")):
                await stores.download(url, version, file)
    except OSError as error:
        raise OutputError(f"cannot write the temporary copy of {url}: {error.strerror}") from error


async def _download(app: AppContext, console: Console, ctx: RunContext, url: str, directory: Path) -> Path:
    from ..console import ProgressState
    from ..core.page_download import download_from_page
    from ..core.progress import DownloadProgress
    from ..core.recording_download import WebPage, download_recording
    from .progress import describe_download

    progress = DownloadProgress()
    try:
        async with console.activity(lambda: describe_download(progress)):
            return await download_recording(url, directory, ctx, progress)
    except WebPage as page:
        page_url = page.url
    async with console.activity(lambda: ProgressState("downloading with yt-dlp")):
        return await download_from_page(page_url, directory, app.child_variables)
