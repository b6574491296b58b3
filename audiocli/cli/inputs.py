"""What comes in: a text from arguments, a file or stdin; a recording from a file or stdin."""

from __future__ import annotations

import codecs
import os
import select
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from ..context import AppContext
from ..errors import OutputError, UsageError

if TYPE_CHECKING:
    from ..types.values import Speaker

READ_BYTES = 1024 * 1024
# The longest novels have six million characters; what is longer than this has no end.
TEXT_BYTES = 64 * 1024 * 1024
# A pipe that is silent for so long, or not at its end after so much, may have none: it is spoken while it comes.
PATIENCE_S = 0.3
LONGEST_READING_S = 3.0
LIVE_FROM_BYTES = 16 * 1024 * 1024
# OpenAI's specification 2.3.0.
MOST_SPEAKERS = 4
# Ten seconds of any usual format, and then some.
CLIP_BYTES = 5 * 1024 * 1024


class OpenText:
    """Text from a stream that goes on after what was read of it."""

    def __init__(self, stream: BinaryIO, source: str) -> None:
        self._stream = stream
        self._source = source
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._offset = 0

    def decoded(self, content: bytes, *, is_last: bool) -> str:
        """Read bytes as UTF-8, of which the last character may be on its way. Raises: UsageError: names the byte."""
        if not self._offset:
            content = content.removeprefix(b"\xef\xbb\xbf")
        try:
            text = self._decoder.decode(content, is_last)
        except UnicodeDecodeError as error:
            raise UsageError(f"{self._source} is not UTF-8: byte {self._offset + error.start}") from error
        self._offset += len(content)
        return text

    async def more(self) -> str | None:
        """Wait for more; None at the end. Raises: UsageError."""
        import asyncio

        try:
            chunk: bytes | None = await asyncio.to_thread(self._stream.read, READ_BYTES)
        except OSError as error:
            raise UsageError(f"cannot read {self._source}: {error.strerror}") from error
        if chunk is None:
            await asyncio.sleep(PATIENCE_S)
            return ""
        if chunk:
            return self.decoded(chunk, is_last=False)
        self.decoded(b"", is_last=True)  # half a character at the end is an error
        return None


def text(
    env: AppContext, words: Sequence[str], input_file: str | None, *, is_whole: bool = False
) -> tuple[str, OpenText | None]:
    """Find the text: -F, the arguments, or stdin when it is piped.

    A pipe whose end does not come is left open, and the rest of it is the second value; `is_whole` waits for the end.
    Raises: UsageError.
    """
    if input_file is not None and words:
        raise UsageError("a text and -F at once: which one is it?")
    if input_file is not None and input_file != "-":
        return _decoded(_read_file(Path(input_file)), input_file), None
    if words and list(words) != ["-"]:
        return _decoded(os.fsencode(" ".join(words)), "the text"), None
    if env.stdin_is_terminal and not words and input_file is None:
        raise UsageError("no text to speak", hint="give it as an argument, with -F FILE, or through a pipe")
    if is_whole or not _can_wait(env.stdin):
        return _decoded(_read_all(env.stdin), "stdin"), None
    content, has_ended = _read_for_now(env.stdin)
    if has_ended:
        return _decoded(content, "stdin"), None
    rest = OpenText(env.stdin, "stdin")
    return rest.decoded(content, is_last=False), rest


def _can_wait(stream: BinaryIO) -> bool:
    try:
        select.select([stream], [], [], 0)
    except (OSError, ValueError):
        return False
    return True


def _read_for_now(stream: BinaryIO) -> tuple[bytes, bool]:
    """Read until the end, or until it keeps us waiting; the second value tells which."""
    parts: list[bytes] = []
    size_bytes, until_s = 0, 0.0
    while size_bytes <= LIVE_FROM_BYTES:
        if parts:
            wait_s = min(PATIENCE_S, until_s - time.monotonic())
            if wait_s <= 0 or not select.select([stream], [], [], wait_s)[0]:
                return b"".join(parts), False
        else:
            select.select([stream], [], [])
            until_s = time.monotonic() + LONGEST_READING_S
        try:
            chunk: bytes | None = stream.read(READ_BYTES)
        except OSError as error:
            raise UsageError(f"cannot read stdin: {error.strerror}") from error
        if chunk == b"":
            return b"".join(parts), True
        parts += [chunk] if chunk else []
        size_bytes += len(chunk or b"")
    return b"".join(parts), False


@contextmanager
def recording(env: AppContext, source: str | None, stdin_format: str | None) -> Iterator[Path]:
    """Give the recording as a regular file; a stream is spooled to one for as long as it is needed.

    Raises: UsageError: missing, unreadable, a folder; OutputError: no room for the spool.
    """
    if source is None or source == "-":
        if source is None and env.stdin_is_terminal:
            raise UsageError("no recording", hint="name a file, or - for stdin")
        with _spooled(env.stdin, stdin_format) as spooled:
            yield spooled
        return
    if stdin_format is not None:
        raise UsageError("--stdin-format is for a recording on stdin")
    path = Path(source)
    try:
        if path.is_dir():
            raise UsageError(f"{source} is a folder", hint="transcribe takes one recording")
        # Opened once: the other end of a FIFO would not wait for a second time.
        stream = path.open("rb", buffering=0)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {source}: {getattr(error, 'strerror', None) or error}") from error
    with stream:
        if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            yield path
            return
        with _spooled(cast(BinaryIO, stream), None) as spooled:
            yield spooled


@contextmanager
def _spooled(stream: BinaryIO, stdin_format: str | None) -> Iterator[Path]:
    """Copy a stream to a temporary file: requests may have to be sent again, and some formats need seeking."""
    import tempfile

    from ..audio import formats
    from ..types.values import Pcm

    row = formats.named(stdin_format) if stdin_format is not None else None
    if stdin_format is not None and row is None:
        raise UsageError(f"--stdin-format {stdin_format}: not a format known here")
    with tempfile.TemporaryDirectory(prefix="audiocli-") as folder:
        # The ending tells the decoder what the first bytes may not.
        path = Path(folder) / ("stdin" + (row.upload_suffix if row else ""))
        try:
            with path.open("wb") as spool:
                if row is not None and row.name == "pcm":
                    # Raw samples get the header that they lack; their shape is the usual one.
                    spool.write(formats.wav_header(Pcm(), None))
                for chunk in _chunks(stream):
                    spool.write(chunk)
        except OSError as error:
            raise OutputError(f"cannot keep the recording while it is sent: {error.strerror}") from error
        yield path


def _decoded(content: bytes, source: str) -> str:
    """Read text as UTF-8, whatever the locale; a byte-order mark is dropped. Raises: UsageError: names the byte."""
    try:
        return content.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        offset = error.start + (3 if content.startswith(b"\xef\xbb\xbf") else 0)
        raise UsageError(f"{source} is not UTF-8: byte {offset}") from error


def _read_file(path: Path, most_bytes: int = TEXT_BYTES) -> bytes:
    """Read an input file. Raises: UsageError: missing or unreadable."""
    try:
        with path.open("rb", buffering=0) as stream:
            return _read_all(cast(BinaryIO, stream), most_bytes)
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"cannot read {path!r}: {error}") from error


def read_list(env: AppContext, source: str, most_bytes: int) -> bytes:
    """Read a file, or stdin for `-`, whatever the bytes are. Raises: UsageError."""
    return _read_all(env.stdin, most_bytes) if source == "-" else _read_file(Path(source), most_bytes)


def _read_all(stream: BinaryIO, most_bytes: int = TEXT_BYTES) -> bytes:
    """Read an unbuffered stream to its end. Raises: UsageError: it has none in reach."""
    parts, size_bytes = [], 0
    for chunk in _chunks(stream):
        parts.append(chunk)
        size_bytes += len(chunk)
        if size_bytes > most_bytes:
            raise UsageError(f"the text is over {most_bytes // 2**20} MB")
    return b"".join(parts)


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    """Give what a stream holds, to its end; one that somebody made non-blocking is waited for.

    Raises: UsageError: it cannot be read.
    """
    while True:
        try:
            chunk: bytes | None = stream.read(READ_BYTES)
        except OSError as error:
            raise UsageError(f"cannot read stdin: {error.strerror}") from error
        if chunk is None:
            select.select([stream], [], [])
        elif chunk:
            yield chunk
        else:
            return


def refuse_same(source: Path, target: Path | None) -> None:
    """Keep an output from replacing the input that it is made from. Raises: UsageError."""
    try:
        is_same = target is not None and target.is_file() and target.samefile(source)
    except OSError:
        return
    if is_same:
        raise UsageError(f"the output would replace its own input, {source}")


def speakers(named: Sequence[str] | None) -> tuple[Speaker, ...]:
    """Read `NAME` or `NAME=CLIP`. Raises: UsageError: too many, or a clip that cannot be read."""
    from ..types.values import Speaker

    found = []
    for text in named or ():
        name, equals, clip = text.partition("=")
        if not name.strip():
            raise UsageError(f"--speaker {text}: write NAME or NAME=CLIP")
        found.append(Speaker(name.strip(), data_url(clip) if equals else None))
    if len(found) > MOST_SPEAKERS:
        raise UsageError(f"--speaker: at most {MOST_SPEAKERS} can be named")
    if len({speaker.clip is None for speaker in found}) > 1:
        raise UsageError("--speaker: either all have a clip or none has")
    return tuple(found)


def data_url(name: str) -> str:
    """Read a short recording as a data URL. Raises: UsageError: unreadable, too large, or no sound."""
    import base64

    from ..audio import formats

    content = _read_file(Path(name))
    if len(content) > CLIP_BYTES:
        raise UsageError(f"{name} is too large for a clip of 2 to 10 s: {len(content):,} bytes")
    row = formats.sniff(content)
    if row is None:
        raise UsageError(f"{name} is not a recording")
    return f"data:{row.media_type};base64,{base64.b64encode(content).decode()}"
