"""What people and scripts get to read: lines on stderr, text, tables and JSON on stdout. Owns rich.

Rich is loaded only when something has to move on a terminal; it takes 70 ms.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, BinaryIO, TextIO, cast

from .errors import AudiocliError, OutputError, OutputClosed, RoutesExhausted

if TYPE_CHECKING:
    from rich.status import Status

    from .types.values import Json

# Long enough that a quick answer is never preceded by a flicker.
ACTIVITY_AFTER_S = 0.7
ACTIVITY_EVERY_S = 0.2

# C0 and C1 controls except tab and line feed, DEL, and the marks that turn the direction of text around.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Console:
    """Writes for one run of one command. `moves`: people watch stderr on a terminal that can move."""

    def __init__(
        self,
        *,
        stdout: BinaryIO,
        stderr: BinaryIO,
        is_quiet: bool = False,
        is_debugging: bool = False,
        moves: bool = False,
        stdout_is_terminal: bool = False,
    ) -> None:
        self._stdout = stdout
        self._stderr = stderr
        self._is_quiet = is_quiet
        self._is_debugging = is_debugging
        self._moves = moves and not is_quiet
        self._stdout_is_terminal = stdout_is_terminal
        self._status: Status | None = None

    # --- for people, on stderr ---------------------------------------------------------------------------------------

    def info(self, message: str) -> None:
        if not self._is_quiet:
            self._say(f"audiocli: {message}")

    def info_text(self, text: str) -> None:
        """Write what was said in audio that went elsewhere, as it is."""
        if not self._is_quiet and text.strip():
            try:
                self._write(self._stderr, printable(text.rstrip() + "\n").encode("utf-8", "backslashreplace"))
            except (OutputError, OutputClosed):
                return  # as in `_say`

    def warning(self, message: str) -> None:
        self.info(f"warning: {message}")

    def debug(self, message: str) -> None:
        if self._is_debugging:
            self._say(f"audiocli: debug: {message}")

    def error(self, error: AudiocliError) -> None:
        """Say what went wrong; also when everything else is kept quiet."""
        joint = " " if error.message.endswith(("?", ")", ".")) else ": "
        self._say(f"audiocli: {error.message}" + (f"{joint}{error.hint}" if error.hint else ""))

    def error_json(self, error: AudiocliError, command: str | None) -> None:
        self._write(self._stderr, json_line(error_document(error, command)))

    def result_json(self, document: Mapping[str, Json]) -> None:
        """Write a receipt to stderr, because stdout carries audio or a transcript."""
        self._write(self._stderr, json_line(document))

    @asynccontextmanager
    async def activity(self, describe: Callable[[], str]) -> AsyncIterator[None]:
        """Show that something is going on, while the block runs, if it takes long enough and somebody watches."""
        if not self._moves:
            yield
            return
        import asyncio

        shown = asyncio.create_task(self._show(describe))
        try:
            yield
        finally:
            shown.cancel()
            await asyncio.gather(shown, return_exceptions=True)

    async def _show(self, describe: Callable[[], str]) -> None:
        import asyncio

        await asyncio.sleep(ACTIVITY_AFTER_S)
        from rich.console import Console
        from rich.text import Text

        console = Console(file=cast(TextIO, _Words(self._stderr)), force_terminal=True)
        with console.status(Text(printable(describe()))) as status:
            self._status = status
            try:
                while True:
                    await asyncio.sleep(ACTIVITY_EVERY_S)
                    status.update(Text(printable(describe())))
            finally:
                self._status = None

    # --- data, on stdout ---------------------------------------------------------------------------------------------

    def write_text(self, text: str) -> None:
        """Write text that was asked for, exactly; on a terminal without the controls hidden in it."""
        shown = printable(text) if self._stdout_is_terminal else text
        self._write(self._stdout, shown.encode("utf-8", "surrogateescape"))

    def write_bytes(self, content: bytes) -> None:
        """Write a transcript, byte for byte; on a terminal as `emit` does."""
        if self._stdout_is_terminal:
            self.write_text(content.decode("utf-8", "replace"))
        else:
            self._write(self._stdout, content)

    def write_json(self, document: Mapping[str, Json]) -> None:
        self._write(self._stdout, json_line(document))

    def write_table(self, header: Sequence[str], rows: Sequence[Sequence[str]], *, numeric: Sequence[bool]) -> None:
        """Write a table in aligned columns, the numeric ones to the right."""
        self.write_text("".join(f"{line}\n" for line in _aligned(header, rows, numeric)))

    def info_table(self, header: Sequence[str], rows: Sequence[Sequence[str]], *, numeric: Sequence[bool]) -> None:
        """Show people a table on stderr."""
        if not self._is_quiet:
            for line in _aligned(header, rows, numeric):
                self._say(line)

    # --- the streams -------------------------------------------------------------------------------------------------

    def _say(self, line: str) -> None:
        status = self._status
        if status is not None:
            from rich.text import Text

            status.console.print(Text(one_line(line)), soft_wrap=True)
            return
        try:
            self._write(self._stderr, one_line(line).encode("utf-8", "backslashreplace") + b"\n")
        except (OutputError, OutputClosed):
            return  # nobody listens; the work matters more than the words about it

    def _write(self, stream: BinaryIO, content: bytes) -> None:
        view = memoryview(content)
        try:
            while view:
                written = stream.write(view)
                if written is None:
                    _wait_for(stream)
                    continue
                view = view[written:]
        except BrokenPipeError as error:
            raise OutputClosed from error
        except OSError as error:
            name = "stdout" if stream is self._stdout else "stderr"
            raise OutputError(f"cannot write to {name}: {error.strerror}") from error


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> list[str]:
    lines = [list(map(one_line, row)) for row in (header, *rows)]
    widths = [max(map(cells, column)) for column in zip(*lines, strict=True)]
    out = []
    for line in lines:
        padded = (
            " " * (width - cells(text)) + text if right else text + " " * (width - cells(text))
            for text, width, right in zip(line, widths, numeric, strict=True)
        )
        out.append("  ".join(padded).rstrip())
    return out


def _wait_for(stream: BinaryIO) -> None:
    """Wait until a stream that somebody made non-blocking takes bytes again."""
    import select

    select.select([], [stream], [])


class _Words:
    """What rich needs of a text stream, on top of our unbuffered one."""

    encoding = "utf-8"

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(text.encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        return None

    def isatty(self) -> bool:
        return True


def printable(text: str) -> str:
    """Escape the characters that could make a terminal do something."""
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text)


def one_line(text: str) -> str:
    return printable(text).replace("\n", "\\n").replace("\t", " ")


def cells(text: str) -> int:
    """Count the columns that a text takes on a terminal."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def json_line(document: Mapping[str, Json]) -> bytes:
    try:
        return json.dumps(document, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except UnicodeEncodeError:
        # A file name that is not UTF-8: escaped, it can be turned back into the name (Python's surrogateescape).
        return json.dumps(document, allow_nan=False).encode() + b"\n"


def error_document(error: AudiocliError, command: str | None) -> dict[str, Json]:
    """The error object of docs: `{"ok": false, "command": …, "error": {…}}`."""
    told: dict[str, Json] = {
        "exit": error.exit_code,
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
    }
    request_ids = getattr(error, "request_ids", None) or [getattr(error, "request_id", None)]
    if any(request_ids):
        told["request_ids"] = [one for one in request_ids if one]
    if isinstance(error, RoutesExhausted):
        told["routes"] = [
            {"gateway": route.gateway, "model": route.model, "reason": route.reason} for route in error.routes
        ]
    if isinstance(error, OutputError) and error.kept:
        told["kept"] = error.kept
    return {"ok": False, "command": command, "error": told}


def size(size_bytes: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} bytes"
