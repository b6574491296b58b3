"""Download a recording from a URL of the user to a file.

The URL is input from outside: every redirect is checked, only http and https are allowed, and a public host cannot
lead into a private network. The size is limited. Names that the server suggests are not used as paths. User name,
password and query, which may be a signature, do not appear in messages.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple
from urllib.parse import unquote, urljoin, urlsplit

from ..audio.formats import find_format_for_path, parse_content_type, sniff_format
from ..audio.signatures import SNIFF_BYTES
from ..errors import (
    AttemptError,
    ConnectionFailed,
    DownloadFailed,
    InvalidResponse,
    OutputError,
    RecordingError,
    ResponseInterrupted,
    UsageError,
)
from ..http.url import is_private, parse_url
from ..redaction import hide_credentials
from ..storage.local import check_free_space
from ..text.slug import UNTITLED, render_name
from ..types.requests import HttpRequest
from .download import REDIRECT_STATUSES
from .progress import DownloadProgress
from .run_context import Response, RunContext

MAX_DOWNLOAD_BYTES = 16 * 2**30
# As browsers. Episodes of podcasts often lead through more than five services that count downloads.
MAX_REDIRECTS = 20
MAX_TRIES = 3
RETRY_WAIT_S = 1.0
FREE_SPACE_CHECK_BYTES = 64 * 2**20
# Statuses of an input that does not exist, or that we may not read. Others are failures of the server.
MISSING_STATUSES = frozenset({400, 401, 402, 403, 404, 405, 406, 410, 414, 451})
_HTML = re.compile(rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.I | re.S)


class WebPage(Exception):
    """The URL leads to a web page. `url` is its address after redirects."""

    def __init__(self, url: str) -> None:
        super().__init__(hide_credentials(url))
        self.url = url


def derive_file_name(url: str) -> str:
    """Return a safe file name from the last part of the path of a URL."""
    last_part = PurePosixPath(urlsplit(url).path).name
    return render_name("{name}", {"name": unquote(last_part, errors="replace")}) if last_part else UNTITLED


async def download_recording(url: str, directory: Path, ctx: RunContext, progress: DownloadProgress) -> Path:
    """Download a recording to a new file in `directory`. A failed download is tried again, because it is free.

    Raises:
        WebPage: The response is a web page.
        UsageError: The URL is invalid, does not exist, may not be read, or leads where it must not.
        RecordingError: The recording is empty or exceeds the maximum size.
        DownloadFailed: The network or the server failed.
        OutputError: The file cannot be written.
    """
    for attempt in range(1, MAX_TRIES + 1):
        progress.start()
        try:
            return await _download(url, directory, ctx, progress)
        except DownloadFailed as error:
            if not error.can_retry or attempt == MAX_TRIES:
                raise
            ctx.debug(f"{error.message}; retrying")
            await ctx.sleep(RETRY_WAIT_S * 2 ** (attempt - 1))
    raise AssertionError("unreachable")


class _Target(NamedTuple):
    """The next URL to open. `public_only`: it comes from a public host."""

    url: str
    public_only: bool


async def _download(url: str, directory: Path, ctx: RunContext, progress: DownloadProgress) -> Path:
    target = _Target(url, public_only=False)
    for _ in range(MAX_REDIRECTS + 1):
        name = hide_credentials(target.url)
        try:
            async with _open(target, ctx) as response:
                location = response.headers.get("location")
                if response.status in REDIRECT_STATUSES and location:
                    target = _follow(target, location)
                    continue
                _check_status(response.status, name)
                return await _save(response, target.url, directory / derive_file_name(url), progress)
        except InvalidResponse as error:
            raise UsageError(f"cannot read {name}: {error.message}") from error
        except (ConnectionFailed, ResponseInterrupted) as error:
            hint = error.hint if isinstance(error, ConnectionFailed) else None
            raise DownloadFailed(f"cannot download {name}: {error.message}", hint=hint) from error
        except AttemptError as error:
            raise DownloadFailed(f"cannot download {name}: {error.message}", can_retry=False) from error
    raise UsageError(f"cannot read {hide_credentials(url)}: too many redirects")


def _open(target: _Target, ctx: RunContext) -> AbstractAsyncContextManager[Response]:
    return ctx.transport(target.url).open(HttpRequest("GET", target.url, public_only=target.public_only))


def _follow(target: _Target, location: str) -> _Target:
    """Return the target of a redirect. Raises: UsageError: it is invalid, or not http or https."""
    name = hide_credentials(target.url)
    try:
        url = urljoin(target.url, location.strip())
        scheme, host = urlsplit(url).scheme.lower(), urlsplit(target.url).hostname or ""
    except ValueError as error:
        raise UsageError(f"cannot read {name}: it redirects to an invalid URL") from error
    if scheme not in ("http", "https"):
        raise UsageError(f"cannot read {name}: it redirects to a URL with the scheme {scheme[:20]!r}")
    try:
        parse_url(url)
    except UsageError as error:
        raise UsageError(f"cannot read {name}: it redirects to an invalid URL") from error
    return _Target(url, public_only=target.public_only or not is_private(host))


def _check_status(status: int, name: str) -> None:
    if status in MISSING_STATUSES:
        reasons = {404: "not found", 410: "not found", 401: "access denied", 403: "access denied"}
        raise UsageError(f"cannot read {name}: {reasons.get(status, 'refused')} (status {status})")
    if not 200 <= status < 300:
        raise DownloadFailed(f"cannot download {name}: status {status}", can_retry=status >= 500 or status == 429)


async def _save(response: Response, url: str, path: Path, progress: DownloadProgress) -> Path:
    """Write the body of a response to a file, and return its path.

    Raises:
        WebPage, RecordingError, OutputError, ResponseInterrupted: As `download_recording`.
    """
    name = hide_credentials(url)
    declared = response.headers.get("content-length", "")
    progress.total_bytes = int(declared) if declared.isascii() and declared.isdecimal() else 0
    if progress.total_bytes > MAX_DOWNLOAD_BYTES:
        raise _build_size_error(name)
    content_type = response.headers.get("content-type", "")
    if find_format_for_path(path) is None:
        format, _ = parse_content_type(content_type)
        # The decoder uses the extension if it cannot detect the format from the first bytes.
        path = path.with_name(path.name + (format.upload_suffix if format is not None else ""))
    head = b""
    blocks = response.iter_bytes()
    async for block in blocks:
        head += block
        if len(head) >= SNIFF_BYTES:
            break
    if not head:
        raise RecordingError(f"{name} is empty")
    if _is_web_page(head, content_type):
        raise WebPage(url)
    try:
        with path.open("wb") as file:
            await _write(file, head, blocks, progress, name)
    except OSError as error:
        raise OutputError(f"cannot write the temporary copy of {name}: {error.strerror}") from error
    return path


async def _write(
    file: BinaryIO, head: bytes, blocks: AsyncIterator[bytes], progress: DownloadProgress, name: str
) -> None:
    file.write(head)
    progress.received_bytes = len(head)
    checked_bytes = 0
    async for block in blocks:
        file.write(block)
        progress.received_bytes += len(block)
        if progress.received_bytes > MAX_DOWNLOAD_BYTES:
            raise _build_size_error(name)
        if progress.received_bytes - checked_bytes >= FREE_SPACE_CHECK_BYTES:
            checked_bytes = progress.received_bytes
            check_free_space(Path(file.name).parent, name)


def _build_size_error(name: str) -> RecordingError:
    return RecordingError(f"{name} exceeds {MAX_DOWNLOAD_BYTES / 2**30:g} GB", hint="download it, and pass the file")


def _is_web_page(head: bytes, content_type: str) -> bool:
    if sniff_format(head[:SNIFF_BYTES]) is not None:
        return False
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type in ("text/html", "application/xhtml+xml") or _HTML.match(head) is not None
