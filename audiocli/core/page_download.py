"""Download the recording of a web page with yt-dlp, if that is installed.

yt-dlp is a program of others: it gets an argument list, no configuration, no API keys, and a directory of its own.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path

from ..errors import DownloadFailed, RecordingError, UsageError
from ..processes import read_messages, start_process, stop_process
from ..redaction import hide_credentials
from ..text.slug import render_name
from .recording_download import MAX_DOWNLOAD_BYTES

PROGRAM = "yt-dlp"
MAX_DOWNLOAD_S = 4 * 3600
SOCKET_TIMEOUT_S = 30
MAX_TITLE_BYTES = 120
MISSING_HINT = "install yt-dlp to transcribe from web pages, or pass the URL of the recording itself"


async def download_from_page(url: str, directory: Path, variables: Mapping[str, str]) -> Path:
    """Download the recording of a page to `directory`. Its name is the title of the page.

    Args:
        variables: The environment of child processes, without API keys.

    Raises:
        UsageError: yt-dlp is not installed.
        RecordingError: The page has no recording, or it exceeds the maximum size.
        DownloadFailed: yt-dlp failed.
    """
    name = hide_credentials(url)
    program = shutil.which(PROGRAM, path=variables.get("PATH"))
    if program is None:
        raise UsageError(f"{name} is a web page, not a recording", hint=MISSING_HINT)
    arguments = [
        program,
        *("--ignore-config", "--no-playlist", "--no-cache-dir", "--no-progress", "--quiet", "--no-warnings"),
        *("--no-mtime", "--no-part", "--no-exec", "--no-cookies", "--no-cookies-from-browser"),
        *("--format", "bestaudio/best", "--max-filesize", str(MAX_DOWNLOAD_BYTES)),
        *("--socket-timeout", str(SOCKET_TIMEOUT_S), "--retries", "3", "--match-filter", "!is_live"),
        *("--paths", str(directory), "--output", f"%(title).{MAX_TITLE_BYTES}B.%(ext)s", "--windows-filenames"),
        *("--", url),
    ]
    await _run(arguments, variables, name)
    path = _find_download(directory)
    if path is None:
        raise RecordingError(f"{name}: yt-dlp found no recording, or it exceeds {MAX_DOWNLOAD_BYTES / 2**30:g} GB")
    return path


def _find_download(directory: Path) -> Path | None:
    """Return the file that the program wrote, with a safe name. Its own output is not trusted to name it."""
    files = [path for path in directory.iterdir() if path.is_file() and not path.is_symlink()]
    if not files:
        return None
    largest = max(files, key=lambda path: path.stat().st_size)
    return largest.rename(directory / render_name("{name}", {"name": largest.name}))


async def _run(arguments: list[str], variables: Mapping[str, str], name: str) -> None:
    """Run yt-dlp. Raises: DownloadFailed."""
    try:
        process = await start_process(
            arguments, environment=variables, has_stdin=False, has_stdout=False, new_session=True
        )
    except OSError as error:
        raise DownloadFailed(f"cannot start yt-dlp: {error.strerror}") from error
    try:
        async with asyncio.timeout(MAX_DOWNLOAD_S):
            messages = await read_messages(process)
            code = await process.wait()
    except TimeoutError as error:
        raise DownloadFailed(f"cannot download {name}: yt-dlp did not finish in {MAX_DOWNLOAD_S // 3600} h") from error
    finally:
        await stop_process(process, with_session=True)
    if code != 0:
        reason = hide_credentials(messages[-1].removeprefix("ERROR: ")) if messages else f"exit code {code}"
        raise DownloadFailed(
            f"cannot download {name}: yt-dlp: {reason}",
            hint="pass the URL of the recording itself, or update yt-dlp",
            can_retry=False,
        )
