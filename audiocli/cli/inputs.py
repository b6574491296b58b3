"""Inputs of commands: text from arguments, a file or stdin; recordings from a file or stdin."""

from __future__ import annotations

import os
import re
import select
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

from ..context import AppContext
from ..errors import OutputError, UsageError

if TYPE_CHECKING:
    from ..types.objects import Location
    from ..types.requests import Speaker

READ_BLOCK_BYTES = 1024 * 1024
STDIN_RATES_HZ = (1_000, 384_000)
MAX_STDIN_CHANNELS = 8
HEAD_BYTES = 64
# FFmpeg looks at 5 MB to detect a format.
MAX_UNIDENTIFIED_BYTES = 8 * 1024 * 1024
# The longest novels have six million characters. A larger input is treated as an endless stream.
MAX_TEXT_BYTES = 64 * 1024 * 1024
# A pipe that is idle for this time, or has not ended after this time or size, is spoken while it is read.
PIPE_IDLE_TIMEOUT_S = 0.3
MAX_PIPE_READ_S = 3.0
MAX_BUFFERED_BYTES = 16 * 1024 * 1024
# Limit of OpenAI (API specification 2.3.0).
MAX_SPEAKERS = 4
# More than ten seconds in any common format.
MAX_CLIP_BYTES = 5 * 1024 * 1024
# Linux and macOS follow at most 40 and 32.
MAX_SYMLINKS = 40
URL_PATTERN = re.compile(r"(?i)[a-z][a-z0-9+.-]+:/")
DESCRIPTOR_DIRECTORY = re.compile(r"/dev/fd|/proc/(self|thread-self|\d+)(/task/\d+)?/fd")


class TextReader:
    """Decode the text of a stream that has not ended yet."""

    def __init__(self, stream: BinaryIO, source: str) -> None:
        from ..text.decoding import TextDecoder

        self._stream = stream
        self._source = source
        self._decoder = TextDecoder(source)

    def decode(self, content: bytes, *, is_last: bool) -> str:
        """Decode a block. An incomplete last character is kept for the next block.

        Raises:
            UsageError: Not a text. The message has the offset of the byte.
        """
        return self._decoder.decode(content, is_last=is_last)

    async def read_more(self) -> str | None:
        """Wait for more text. Return None at the end of the stream. Raises: UsageError: The stream cannot be read."""
        import asyncio

        try:
            block: bytes | None = await asyncio.to_thread(self._stream.read, READ_BLOCK_BYTES)
        except OSError as error:
            raise UsageError(f"cannot read {self._source}: {error.strerror}") from error
        if block is None:
            await asyncio.sleep(PIPE_IDLE_TIMEOUT_S)
            return ""
        if block:
            return self.decode(block, is_last=False)
        # An incomplete character at the end is an error. A text that is shorter than a signature is returned here.
        return self.decode(b"", is_last=True) or None


class TextInput(NamedTuple):
    """The bytes of a text or document.

    Attributes:
        content: All bytes, or with `reader` the first ones.
        source: Name of the input in messages.
        path: Path of a file; None for a stream or an argument.
        reader: Reads the rest of a pipe that does not end soon.
        is_argument: The text was given on the command line.
    """

    content: bytes
    source: str
    path: str | None = None
    reader: TextReader | None = None
    is_argument: bool = False


def read_text(
    app: AppContext, words: Sequence[str], input_file: str | None, *, wait_for_end: bool = False
) -> tuple[str, TextReader | None]:
    """Read the text from the file of `-F`, the arguments or stdin.

    If the input is a pipe that does not end soon, return its first text and a reader for the rest. `wait_for_end`
    reads the complete stream instead.

    Raises:
        UsageError: No text, two sources, or a source that cannot be read.
    """
    text_input = read_input(app, words, input_file, wait_for_end=wait_for_end)
    return decode_input(text_input), text_input.reader


def read_input(
    app: AppContext, words: Sequence[str], input_file: str | None, *, wait_for_end: bool = False
) -> TextInput:
    """Read the bytes of a text or document, as `read_text` does. Raises: UsageError."""
    if input_file is not None and words:
        raise UsageError("TEXT cannot be used with -F")
    if input_file == "":
        raise UsageError("the path of -F is empty", hint="pass the path of a file, or - for stdin")
    if input_file is not None and not is_stream_source(input_file):
        return TextInput(_read_file(Path(input_file)), input_file, input_file)
    if words and list(words) != ["-"]:
        return TextInput(os.fsencode(" ".join(words)), "the text", is_argument=True)
    if app.stdin.isatty() and not words and input_file is None:
        raise UsageError("no text to speak", hint="pass it as an argument, with -F FILE or on stdin")
    stream, source = app.stdin, "stdin"
    if input_file not in (None, "-"):
        stream, source = _open_stream(Path(input_file)), input_file
    if wait_for_end or not _supports_select(stream):
        return TextInput(_read_all(stream, source), source)
    content, has_ended = _read_available(stream, source)
    return TextInput(content, source, reader=None if has_ended else TextReader(stream, source))


def decode_input(text_input: TextInput) -> str:
    """Decode the bytes of a text: UTF-8, or UTF-16 and UTF-32 with a byte order mark, regardless of the locale.

    Raises:
        UsageError: Not a text. The message has the offset of the byte.
    """
    if text_input.reader is not None:
        return text_input.reader.decode(text_input.content, is_last=False)
    from ..text.decoding import TextDecoder

    decoder = TextDecoder(text_input.source, text_input.path, may_be_document=not text_input.is_argument)
    return decoder.decode(text_input.content, is_last=True)


def _open_stream(path: Path) -> BinaryIO:
    """Open stdin under another name, a FIFO or a device. It is open until the process exits. Raises: UsageError."""
    try:
        return cast(BinaryIO, path.open("rb", buffering=0))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _supports_select(stream: BinaryIO) -> bool:
    """Return whether `select` works on a stream: it fails on streams without a descriptor, and on files on Windows."""
    try:
        select.select([stream], [], [], 0)
    except (OSError, ValueError):
        return False
    return True


def _read_available(stream: BinaryIO, name: str) -> tuple[bytes, bool]:
    """Read until the end, a timeout or the size limit. Return the bytes and whether the stream has ended.

    Raises:
        UsageError: The stream cannot be read.
    """
    parts: list[bytes] = []
    size_bytes, deadline_s = 0, 0.0
    while size_bytes <= MAX_BUFFERED_BYTES:
        if parts:
            wait_s = min(PIPE_IDLE_TIMEOUT_S, deadline_s - time.monotonic())
            if wait_s <= 0 or not select.select([stream], [], [], wait_s)[0]:
                return b"".join(parts), False
        else:
            select.select([stream], [], [])
            deadline_s = time.monotonic() + MAX_PIPE_READ_S
        try:
            block: bytes | None = stream.read(READ_BLOCK_BYTES)
        except OSError as error:
            raise UsageError(f"cannot read {name}: {error.strerror}") from error
        if block == b"":
            return b"".join(parts), True
        parts += [block] if block else []
        size_bytes += len(block or b"")
    return b"".join(parts), False


class StdinFormat(NamedTuple):
    """Format of a recording on stdin. The rate and the channels are those of raw samples; None is the default."""

    extension: str | None = None
    sample_rate_hz: int | None = None
    channels: int | None = None


def build_stdin_format(extension: str | None, sample_rate_hz: int | None, channels: int | None) -> StdinFormat:
    """Validate `--stdin-format`, `--stdin-rate` and `--stdin-channels`. Raises: UsageError."""
    from ..audio import formats

    format = formats.find_format(extension) if extension is not None else None
    if extension is not None and format is None:
        raise UsageError(f"--stdin-format: unknown format {extension!r}")
    for value, flag, minimum, maximum in (
        (sample_rate_hz, "--stdin-rate", *STDIN_RATES_HZ),
        (channels, "--stdin-channels", 1, MAX_STDIN_CHANNELS),
    ):
        if value is not None and (format is None or format.name != "pcm"):
            raise UsageError(
                f"{flag} requires --stdin-format pcm", hint="other formats contain the rate and the channels"
            )
        if value is not None and not minimum <= value <= maximum:
            raise UsageError(f"{flag} {value}: must be between {minimum} and {maximum}")
    return StdinFormat(extension, sample_rate_hz, channels)


@contextmanager
def open_recording(app: AppContext, source: str | None, stdin_format: StdinFormat) -> Iterator[Path]:
    """Provide the recording as a regular file. A stream is copied to a temporary file.

    Raises:
        UsageError: The recording is missing, unreadable, empty (a stream) or a directory.
        OutputError: The temporary copy cannot be written.
    """
    if source is None or source == "-":
        if source is None and app.stdin.isatty():
            raise UsageError("no recording to transcribe", hint="pass a file, or - for stdin")
        with _spool_to_file(app.stdin, "stdin", stdin_format) as spooled:
            yield spooled
        return
    if not source:
        raise UsageError("the path of the recording is empty", hint="pass the path of a file, or - for stdin")
    reject_url(source)
    is_stream = is_stream_source(source)
    if stdin_format.extension is not None and not is_stream:
        raise UsageError("--stdin-format requires a recording on stdin")
    path = Path(source)
    try:
        if path.is_dir():
            raise UsageError(f"{source} is a directory", hint="pass the path of one file")
        # Open a FIFO only once: its writer may exit after the first reader.
        stream = path.open("rb", buffering=0)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {source}: {getattr(error, 'strerror', None) or error}") from error
    with stream:
        if not is_stream and stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            yield path
            return
        with _spool_to_file(cast(BinaryIO, stream), source, stdin_format) as spooled:
            yield spooled


def reject_url(source: str) -> None:
    """Check that an input is not a URL, where only files can be used. Raises: UsageError: It is one."""
    if URL_PATTERN.match(source) and not os.path.lexists(source):
        from ..redaction import hide_credentials

        raise UsageError(
            f"cannot read {hide_credentials(source)}: a URL is only supported as the single input of transcribe",
            hint="run a command for each URL, or download the recordings first",
        )


def is_object(source: str | None) -> bool:
    """Return whether an input or output is in an object store, and not the name of a file."""
    if source is None or "://" not in source:
        return False
    from ..types.objects import is_object_url

    return is_object_url(source) and not os.path.lexists(source)


def is_stream_source(source: str | None) -> bool:
    """Return whether an input is a stream: stdin under any name, another open descriptor, a FIFO or a device.

    A stream has no directory for outputs beside it, and is read once. A name of a descriptor is a stream even if a
    file is open there, so that `/dev/stdin` and `-` follow the same rules.
    """
    if source in (None, "-"):
        return True
    try:
        mode = os.stat(source).st_mode  # noqa: PTH116 - Path rejects some names
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or _is_descriptor_path(source)


def _is_descriptor_path(path: str) -> bool:
    """Return whether a path leads to an entry of the directory of open descriptors, possibly over symlinks."""
    for _ in range(MAX_SYMLINKS):
        parent = os.path.realpath(os.path.dirname(path) or ".")  # noqa: PTH120 - the last part stays unresolved
        if DESCRIPTOR_DIRECTORY.fullmatch(parent):
            return True
        if not os.path.islink(path):  # noqa: PTH114
            return False
        path = os.path.join(parent, os.readlink(path))  # noqa: PTH115, PTH118
    return False


@contextmanager
def _spool_to_file(stream: BinaryIO, name: str, stdin_format: StdinFormat) -> Iterator[Path]:
    """Copy a stream to a temporary file: a retry reads it again, and some formats need seeking.

    A stream that is not a recording is rejected early, because it may be endless (/dev/zero).

    Raises:
        UsageError: The stream cannot be read.
        RecordingError: The stream is not a recording.
        OutputError: The temporary copy cannot be written.
    """
    import tempfile

    from ..audio import formats
    from ..storage.local import check_free_space
    from ..types.audio import PcmFormat

    format = formats.find_format(stdin_format.extension) if stdin_format.extension is not None else None
    with tempfile.TemporaryDirectory(prefix="audiocli-") as directory:
        # The decoder uses the extension if it cannot detect the format from the first bytes.
        path = Path(directory) / ("stdin" + (format.upload_suffix if format else ""))
        try:
            with path.open("wb") as spool:
                if format is not None and format.name == "pcm":
                    default = PcmFormat()
                    pcm = PcmFormat(
                        stdin_format.sample_rate_hz or default.sample_rate_hz,
                        stdin_format.channels or default.channels,
                    )
                    spool.write(formats.build_wav_header(pcm, None))
                size_bytes, is_judged = 0, format is not None and format.name == "pcm"
                for block in _read_blocks(stream, name):
                    spool.write(block)
                    size_bytes += len(block)
                    if not is_judged and size_bytes >= MAX_UNIDENTIFIED_BYTES:
                        spool.flush()
                        _reject_unless_recording(path, name)
                        is_judged = True
                    if size_bytes >= MAX_UNIDENTIFIED_BYTES:
                        check_free_space(Path(directory), name)
        except OSError as error:
            raise OutputError(f"cannot write the temporary copy of {name}: {error.strerror}") from error
        if not size_bytes:
            raise UsageError(f"{name} is empty", hint="pass a recording on stdin, or the path of a file")
        yield path


def format_length(duration_s: float, *, is_exact: bool, decimals: int = 1) -> str:
    """Return the length of recordings for a message, marked if it is only estimated."""
    return f"{'' if is_exact else 'about '}{duration_s:.{decimals}f} s"


def _reject_unless_recording(path: Path, name: str) -> None:
    """Check the first bytes of a long stream. Raises: RecordingError: They are not those of a recording."""
    from ..audio import formats
    from ..errors import RecordingError

    with path.open("rb") as file:
        if formats.sniff_format(file.read(HEAD_BYTES)) is not None:
            return
    from ..codecs.probe import probe

    try:
        probe(path)
    except RecordingError as error:
        error.message = error.message.replace(str(path), name)
        raise


def _read_file(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> bytes:
    """Read an input file. Raises: UsageError: Missing, unreadable or too large."""
    try:
        with path.open("rb", buffering=0) as stream:
            return _read_all(cast(BinaryIO, stream), str(path), max_bytes)
    except IsADirectoryError:
        raise UsageError(f"{path} is a directory") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"cannot read {path!r}: {error}") from error


def read_bytes(app: AppContext, source: str, max_bytes: int) -> bytes:
    """Read a file, or stdin for `-`. Raises: UsageError: Missing, unreadable or too large."""
    return _read_all(app.stdin, "stdin", max_bytes) if source == "-" else _read_file(Path(source), max_bytes)


def _read_all(stream: BinaryIO, name: str, max_bytes: int = MAX_TEXT_BYTES) -> bytes:
    """Read an unbuffered stream to its end. Raises: UsageError: Unreadable, or larger than `max_bytes`."""
    parts, size_bytes = [], 0
    for block in _read_blocks(stream, name):
        parts.append(block)
        size_bytes += len(block)
        if size_bytes > max_bytes:
            raise UsageError(f"the input exceeds {max_bytes // 2**20} MB")
    return b"".join(parts)


def _read_blocks(stream: BinaryIO, name: str) -> Iterator[bytes]:
    """Yield blocks of a stream up to its end. Wait for data if the stream is non-blocking.

    Raises:
        UsageError: The stream cannot be read.
    """
    while True:
        try:
            block: bytes | None = stream.read(READ_BLOCK_BYTES)
        except OSError as error:
            raise UsageError(f"cannot read {name}: {error.strerror}") from error
        if block is None:
            select.select([stream], [], [])
        elif block:
            yield block
        else:
            return


def reject_overwriting_input(source: Path, output: Location | None) -> None:
    """Check that an output is not the file of its input. Raises: UsageError: Both are the same file."""
    try:
        is_same = isinstance(output, Path) and output.is_file() and output.samefile(source)
    except OSError:
        return
    if is_same:
        raise UsageError(f"the output would overwrite its input {source}")


def parse_speakers(values: Sequence[str] | None) -> tuple[Speaker, ...]:
    """Parse `NAME` or `NAME=CLIP` of `--speaker`.

    Raises:
        UsageError: Too many speakers, clips for only some of them, or a clip that cannot be read.
    """
    from ..types.requests import Speaker

    speakers = []
    for value in values or ():
        name, equals, clip_path = value.partition("=")
        if not name.strip():
            raise UsageError(f"--speaker {value}: expected NAME or NAME=CLIP")
        speakers.append(Speaker(name.strip(), build_data_url(clip_path) if equals else None))
    if len(speakers) > MAX_SPEAKERS:
        raise UsageError(f"--speaker: at most {MAX_SPEAKERS} speakers are supported")
    if len({speaker.clip_url is None for speaker in speakers}) > 1:
        raise UsageError("--speaker: give a clip for every speaker or for none")
    return tuple(speakers)


def build_data_url(path: str) -> str:
    """Return a short recording as a data URL. Raises: UsageError: Unreadable, too large, or not audio."""
    import base64

    from ..audio import formats

    content = _read_file(Path(path))
    if len(content) > MAX_CLIP_BYTES:
        raise UsageError(f"{path}: {len(content):,} bytes are too many for a clip of 2 to 10 s")
    format = formats.sniff_format(content)
    if format is None:
        raise UsageError(f"{path} is not a recognized audio file")
    return f"data:{format.media_type};base64,{base64.b64encode(content).decode()}"
