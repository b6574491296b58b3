"""Console output: messages and progress on stderr; text, tables and JSON on stdout.

On a terminal, messages are wrapped between words. Paths and commands stay whole, so that they can be copied.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from .errors import AudiocliError, OutputClosed, OutputError, RoutesExhausted

if TYPE_CHECKING:
    import asyncio

    from .progress_display import ProgressDisplay
    from .types.json import Json

# The version of the top-level JSON objects. Lines of lists have none.
JSON_SCHEMA_VERSION = 1

# Messages that begin with this are warnings. They are also in `warnings` of the next result.
WARNING_PREFIX = "warning: "
# A message without one of these prefixes is a note. Result lines have no prefix.
MESSAGE_PREFIXES = ("error: ", WARNING_PREFIX, "note: ", "hint: ", "debug: ")
# Columns of the status of a check.
CHECK_INDENT = 9
WRAPPED_PREFIXES = frozenset(MESSAGE_PREFIXES) - {"debug: "}
# A command in a message, in quotes or up to the end of its clause.
_COMMAND = re.compile(r"'audiocli [^']*'|\baudiocli [a-z][^;]*")

# Styles of terminals (SGR parameters of ECMA-48).
RED, GREEN, YELLOW, CYAN, BOLD, FAINT = "31", "32", "33", "36", "1", "2"
PREFIX_STYLES = {"error: ": f"{BOLD};{RED}", WARNING_PREFIX: f"{BOLD};{YELLOW}", "hint: ": CYAN, "debug: ": FAINT}
# Columns of tables whose words are colored, and the colors: outcomes of requests, states of jobs, results of checks.
STATE_COLUMNS = frozenset({"outcome", "status"})
STATE_STYLES = {
    **dict.fromkeys(("ok", "succeeded", "completed"), GREEN),
    **dict.fromkeys(("warning", "unknown", "reserved", "queued", "running", "processing"), YELLOW),
    **dict.fromkeys(("error", "failed", "refused", "unsent", "cancelled", "canceled", "expired", "lost"), RED),
    "note": CYAN,
}

# An operation that ends sooner shows no progress, so that the terminal does not flicker.
ACTIVITY_DELAY_S = 0.5
ACTIVITY_REFRESH_S = 0.2
# Texts in tables are not shortened below this number of terminal columns while a column can be omitted instead.
MIN_TEXT_WIDTH = 12

# Characters that change how a terminal shows text, and line separators that are not a line feed: DEL and C1 controls,
# U+2028 and U+2029, and the characters with the Unicode property Bidi_Control.
_FORMAT_CONTROLS = r"\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
# Also C0 controls except tab and line feed, and lone surrogates. `json.dumps` escapes C0 controls.
_CONTROLS = re.compile(rf"[\x00-\x08\x0b-\x1f\ud800-\udfff{_FORMAT_CONTROLS}]")
_JSON_CONTROLS = re.compile(f"[{_FORMAT_CONTROLS}]")


class ProgressState(NamedTuple):
    """What a progress line shows.

    Attributes:
        text: What is done now.
        done_share: The share that is done, from 0 to 1, as a bar; None shows no bar.
        details: Numbers after the bar. If the line is too long, the first ones are omitted.
    """

    text: str
    done_share: float | None = None
    details: tuple[str, ...] = ()


class Console:
    """The output of one command.

    Every warning is also in `warnings` of the next JSON object, whether it was printed or suppressed by `--quiet`.

    Args:
        is_interactive: Whether stderr is a terminal that can show progress.
        warnings: Warnings that no JSON object has reported yet. All consoles of one command share the list.
        was_printed_today: Whether a warning must not be printed again today.
        stdout_width: Columns of the terminal that stdout is; None if it is not a terminal.
        stderr_width: The same of stderr.
        is_replayed: Whether the results come from a recording.
        stdout_has_color: Whether tables on stdout are colored. Data and JSON never are.
        stderr_has_color: Whether messages are colored.
    """

    def __init__(
        self,
        *,
        stdout: BinaryIO,
        stderr: BinaryIO,
        is_quiet: bool = False,
        is_debugging: bool = False,
        is_interactive: bool = False,
        stdout_is_terminal: bool = False,
        warnings: list[str] | None = None,
        was_printed_today: Callable[[str], bool] | None = None,
        stdout_width: int | None = None,
        stderr_width: int | None = None,
        stdout_has_color: bool = False,
        stderr_has_color: bool = False,
        is_replayed: bool = False,
    ) -> None:
        self._stdout = stdout
        self._stderr = stderr
        self._is_quiet = is_quiet
        self._is_debugging = is_debugging
        self._is_interactive = is_interactive and not is_quiet
        self._stdout_is_terminal = stdout_is_terminal
        self._warnings = warnings if warnings is not None else []
        self._was_printed_today = was_printed_today
        self._stdout_width = stdout_width
        self._stderr_width = stderr_width
        self._stdout_has_color = stdout_has_color
        self._stderr_has_color = stderr_has_color
        self._is_replayed = is_replayed
        self._progress_task: asyncio.Task[None] | None = None
        self._display: ProgressDisplay | None = None
        self._item_hints: set[str] = set()
        self._printed_messages: set[str] = set()

    @property
    def is_quiet(self) -> bool:
        """Whether only errors are written to stderr."""
        return self._is_quiet

    # --- for people, on stderr ---------------------------------------------------------------------------------------

    def info(self, message: str) -> None:
        """Write a message to stderr, unless quiet. Without one of `MESSAGE_PREFIXES`, it is a note."""
        if message.startswith(WARNING_PREFIX):
            warning = message.removeprefix(WARNING_PREFIX)
            self._warnings.append(warning)
            if not self._is_quiet and self._was_printed_today is not None and self._was_printed_today(warning):
                return
        if not self._is_quiet:
            self._write_line(message if message.startswith(MESSAGE_PREFIXES) else f"note: {message}")

    def info_once(self, message: str) -> None:
        """Write a message as `info` does, unless this command has written it already."""
        if message not in self._printed_messages:
            self._printed_messages.add(message)
            self.info(message)

    def hint(self, message: str) -> None:
        """Write what the user can do next to stderr, unless quiet."""
        self.info(f"hint: {message}")

    def result(self, *parts: str) -> None:
        """Write the result of the command to stderr, without a prefix, unless quiet.

        It is one line, such as `hello.wav  0.76 s  wav  33.5 kB  local:espeak (en-us)  free`, or several on a terminal
        that is too narrow.
        """
        if not self._is_quiet:
            known_parts = [escape_line(part) for part in (*parts, *["replayed"] * self._is_replayed) if part]
            self._write_escaped_line(_join_lines(known_parts, "  ", self._stderr_width))

    def info_text(self, text: str) -> None:
        """Write text to stderr without a prefix, such as that of a spoken reply, unless quiet."""
        if not self._is_quiet and text.strip():
            try:
                self._write(self._stderr, escape_controls(text.rstrip() + "\n").encode("utf-8", "backslashreplace"))
            except (OutputError, OutputClosed):
                return  # stderr is closed, as in `_write_line`

    def warning(self, message: str) -> None:
        """Write a warning to stderr, unless quiet."""
        self.info(f"{WARNING_PREFIX}{message}")

    def debug(self, message: str) -> None:
        """Write a debug message to stderr, with `--debug` only."""
        if self._is_debugging:
            self._write_line(f"debug: {message}")

    def error(self, error: AudiocliError) -> None:
        """Write an error and its hint to stderr, also when quiet."""
        self._write_line(f"error: {error.message}")
        if error.hint:
            self._write_line(f"hint: {error.hint}")

    def item_error(self, source: str, error: AudiocliError) -> None:
        """Write the error of one item of several to stderr, also when quiet. The same hint is written once.

        The name of the item is added unless the message begins with it.
        """
        names_source = error.message.startswith((f"{source}: ", f"{source} ", f"cannot read {source}: "))
        self._write_line(f"error: {error.message}" if names_source else f"error: {source}: {error.message}")
        if error.hint and error.hint not in self._item_hints:
            self._item_hints.add(error.hint)
            self._write_line(f"hint: {error.hint}")

    def traceback(self, text: str) -> None:
        """Write a traceback to stderr. It quotes messages of gateways and file names."""
        self._write(self._stderr, escape_controls(text).encode("utf-8", "backslashreplace"))

    def error_json(self, error: AudiocliError, command: str | None) -> None:
        """Write an error object to stderr."""
        self.result_json(build_error_document(error, command))

    def result_json(self, document: Mapping[str, Json]) -> None:
        """Write a result object to stderr, because stdout carries audio or a transcript."""
        self._write(self._stderr, encode_json(self._add_schema(self._add_warnings(document))))

    @asynccontextmanager
    async def activity(self, describe: Callable[[], str | ProgressState]) -> AsyncIterator[None]:
        """Show a progress line while the block runs, on an interactive terminal.

        It appears after `ACTIVITY_DELAY_S`, and has a bar if `describe` returns the share that is done.
        """
        if not self._is_interactive:
            yield
            return
        import asyncio

        self._progress_task = asyncio.create_task(self._show_progress(describe))
        try:
            yield
        finally:
            self._progress_task.cancel()
            await asyncio.gather(self._progress_task, return_exceptions=True)
            self._progress_task = None

    def end_progress(self) -> None:
        """Remove the progress line of the current activity, because text appears on the terminal from now on."""
        if self._progress_task is not None:
            self._progress_task.cancel()
        if self._display is not None:
            self._display.close()
            self._display = None

    async def _show_progress(self, describe: Callable[[], str | ProgressState]) -> None:
        import asyncio

        await asyncio.sleep(ACTIVITY_DELAY_S)
        from .progress_display import ProgressDisplay

        display = ProgressDisplay(self._stderr, has_color=self._stderr_has_color)
        self._display = display
        try:
            while True:
                state = describe()
                display.show(ProgressState(state) if isinstance(state, str) else state)
                await asyncio.sleep(ACTIVITY_REFRESH_S)
        finally:
            self._display = None
            display.close()

    # --- data, on stdout ---------------------------------------------------------------------------------------------

    def write_text(self, text: str) -> None:
        """Write text to stdout unchanged, or with escaped control characters if stdout is a terminal."""
        escaped = escape_controls(text) if self._stdout_is_terminal else text
        self._write(self._stdout, escaped.encode("utf-8", "surrogateescape"))

    def write_bytes(self, content: bytes) -> None:
        """Write the bytes of a transcript to stdout unchanged, or as `write_text` does if stdout is a terminal."""
        if self._stdout_is_terminal:
            self.write_text(content.decode("utf-8", "replace"))
        else:
            self._write(self._stdout, content)

    def write_json(self, document: Mapping[str, Json], *, add_warnings: bool = True) -> None:
        """Write a result object to stdout. Its first key is the schema version.

        `add_warnings` False is for one item of several, whose document has the warnings about that item.
        """
        complete = self._add_warnings(document) if add_warnings else document
        self._write(self._stdout, encode_json(self._add_schema(complete)))

    def write_json_line(self, row: Mapping[str, Json]) -> None:
        """Write one line of a list to stdout, as JSON Lines without a schema version."""
        self._write(self._stdout, encode_json(row))

    def write_table(
        self,
        header: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        numeric: Sequence[bool],
        optional: Sequence[str] = (),
    ) -> None:
        """Write a table to stdout in aligned columns. Numeric columns are aligned to the right.

        On a terminal it fits the width: texts are shortened, then the columns of `optional` are omitted, the least
        important one first. In a pipe it is complete.
        """
        lines = _align(header, rows, numeric, optional, self._stdout_width, has_color=self._stdout_has_color)
        self._write(self._stdout, "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))

    def write_check(self, status: str, detail: str) -> None:
        """Write the result of one check to stdout: its status, which is colored, and a text."""
        word = _add_style(f"{status:<7}", STATE_STYLES.get(status)) if self._stdout_has_color else f"{status:<7}"
        max_width = None if self._stdout_width is None else self._stdout_width - CHECK_INDENT
        text = _join_lines(_split_words(escape_line(detail)), " ", max_width).replace("\n", "\n" + " " * CHECK_INDENT)
        self._write(self._stdout, f"{word}  {text}\n".encode("utf-8", "surrogateescape"))

    def info_table(self, header: Sequence[str], rows: Sequence[Sequence[str]], *, numeric: Sequence[bool]) -> None:
        """Write a table to stderr, unless quiet. On a terminal it fits the width."""
        if not self._is_quiet:
            for line in _align(header, rows, numeric, (), self._stderr_width, has_color=self._stderr_has_color):
                self._write_escaped_line(line)

    def _add_warnings(self, document: Mapping[str, Json]) -> Mapping[str, Json]:
        """Add the warnings since the last result object to those that the document has."""
        if not self._warnings:
            return document
        listed = document.get("warnings")
        listed = listed if isinstance(listed, list) else []
        added = [warning for warning in dict.fromkeys(self._warnings) if warning not in listed]
        self._warnings.clear()
        return {**document, "warnings": [*listed, *added]}

    def _add_schema(self, document: Mapping[str, Json]) -> dict[str, Json]:
        replayed: dict[str, Json] = {"replayed": True} if self._is_replayed else {}
        return {"schema": JSON_SCHEMA_VERSION, **document, **replayed}

    # --- the streams -------------------------------------------------------------------------------------------------

    def _write_line(self, line: str) -> None:
        """Write one message. Debug messages are not wrapped."""
        escaped = escape_line(line)
        prefix = next((prefix for prefix in MESSAGE_PREFIXES if escaped.startswith(prefix)), "")
        if prefix in WRAPPED_PREFIXES:
            escaped = _join_lines(_split_words(escaped), " ", self._stderr_width)
        if self._stderr_has_color and prefix in PREFIX_STYLES:
            escaped = _add_style(prefix.rstrip(), PREFIX_STYLES[prefix]) + escaped[len(prefix) - 1 :]
        self._write_escaped_line(escaped)

    def _write_escaped_line(self, line: str) -> None:
        try:
            self._write(self._stderr, line.encode("utf-8", "backslashreplace") + b"\n")
        except (OutputError, OutputClosed):
            return  # stderr is closed or full; the command continues without messages

    def _write(self, stream: BinaryIO, content: bytes) -> None:
        display = self._display
        if display is None or not (stream is self._stderr or self._stdout_is_terminal):
            self._write_all(stream, content)
            return
        with display.hidden():
            self._write_all(stream, content)

    def _write_all(self, stream: BinaryIO, content: bytes) -> None:
        view = memoryview(content)
        try:
            while view:
                written = stream.write(view)
                if written is None:
                    _wait_until_writable(stream)
                    continue
                view = view[written:]
        except BrokenPipeError as error:
            raise OutputClosed from error
        except OSError as error:
            name = "stdout" if stream is self._stdout else "stderr"
            raise OutputError(f"cannot write to {name}: {error.strerror}") from error


def _align(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    numeric: Sequence[bool],
    optional: Sequence[str],
    max_width: int | None,
    *,
    has_color: bool,
) -> list[str]:
    """Return the lines of a table, without control characters of the cells.

    With `max_width` in terminal columns, none is longer.
    """
    table = [list(map(escape_line, row)) for row in (header, *rows)]
    widths = [max(map(count_cells, column)) for column in zip(*table, strict=True)]
    columns = list(range(len(header)))
    if max_width is not None:
        columns, widths = _fit_columns(header, widths, numeric, optional, max_width)
    lines = []
    for index, row in enumerate(table):
        plain, styled = [], []
        for column in columns:
            text = shorten(row[column], widths[column])
            style = BOLD if index == 0 else STATE_STYLES.get(text) if header[column] in STATE_COLUMNS else None
            padding = " " * (widths[column] - count_cells(text))
            shown = _add_style(text, style)
            plain.append(padding + text if numeric[column] else text + padding)
            styled.append(padding + shown if numeric[column] else shown + padding)
        line = "  ".join(plain).rstrip()
        if max_width is not None and count_cells(line) > max_width:
            lines.append(shorten(line, max_width))
        else:
            lines.append("  ".join(styled).rstrip() if has_color else line)
    return lines


def _add_style(text: str, style: str | None) -> str:
    """Return a text that a terminal shows in a style."""
    return text if style is None or not text else f"\x1b[{style}m{text}\x1b[0m"


def _fit_columns(
    header: Sequence[str], widths: Sequence[int], numeric: Sequence[bool], optional: Sequence[str], max_width: int
) -> tuple[list[int], list[int]]:
    """Return the columns that fit a width, and the widths of all columns.

    The first column stays complete while texts are shortened to `MIN_TEXT_WIDTH`, and then while the columns of
    `optional` are omitted in this order. Numbers are never shortened.
    """
    columns = list(range(len(header)))
    dropped = iter([*optional, None])
    while True:
        excess = sum(widths[column] for column in columns) + 2 * (len(columns) - 1) - max_width
        texts = [column for column in columns if not numeric[column]]
        fitted = _narrow(widths, texts[1:], excess, MIN_TEXT_WIDTH)
        name = None if fitted is not None else next(dropped)
        if name is not None:
            columns = [column for column in columns if header[column] != name]
            continue
        if fitted is None:
            fitted = _narrow(widths, texts, excess, 1)
        return columns, list(widths) if fitted is None else fitted


def _narrow(widths: Sequence[int], texts: Sequence[int], excess: int, min_width: int) -> list[int] | None:
    """Take `excess` off the widest columns in `texts`. Return None if they would be below `min_width`."""
    narrowed = list(widths)
    for _ in range(excess):
        widest = max(texts, key=narrowed.__getitem__, default=None)
        if widest is None or narrowed[widest] <= min_width:
            return None
        narrowed[widest] -= 1
    return narrowed


def _split_words(text: str) -> list[str]:
    """Split a message at its spaces, except those in commands."""
    protected = _COMMAND.sub(lambda match: match[0].replace(" ", "\0"), text)
    return [word.replace("\0", " ") for word in protected.split(" ")]


def _join_lines(words: Sequence[str], separator: str, max_width: int | None) -> str:
    """Join words into lines of at most `max_width` terminal columns. A longer word is left to the terminal."""
    lines: list[str] = []
    for word in words:
        if lines and (max_width is None or count_cells(lines[-1] + separator + word) <= max_width):
            lines[-1] += separator + word
        else:
            lines.append(word)
    return "\n".join(lines)


def shorten(text: str, max_width: int) -> str:
    """Return a text of at most `max_width` terminal columns; one that is longer ends with an ellipsis."""
    if count_cells(text) <= max_width:
        return text
    width, end = 1, 0
    while (width := width + count_cells(text[end])) <= max_width:
        end += 1
    return f"{text[:end]}…"


def _wait_until_writable(stream: BinaryIO) -> None:
    """Block until a non-blocking stream is writable. Another process that shares it may have changed its mode."""
    import select

    select.select([], [stream], [])


def escape_controls(text: str) -> str:
    """Escape control characters, so that text cannot control the terminal."""
    return _CONTROLS.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text)


def escape_line(text: str) -> str:
    """Escape control characters and line feeds, and replace tabs by spaces."""
    return escape_controls(text).replace("\n", "\\n").replace("\t", " ")


def count_cells(text: str) -> int:
    """Return the number of terminal columns of a text."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def encode_json(document: Mapping[str, Json]) -> bytes:
    """Encode one line of JSON, without raw control characters."""
    try:
        return escape_json(json.dumps(document, ensure_ascii=False, allow_nan=False)).encode() + b"\n"
    except UnicodeEncodeError:
        # A file name that is not UTF-8. Its surrogate escapes (PEP 383) are kept, so readers can restore the name.
        return escape_json(json.dumps(document, allow_nan=False)).encode() + b"\n"


def escape_json(text: str) -> str:
    r"""Write the control characters that `json.dumps` leaves raw as `\uXXXX`. The data of the JSON stays the same."""
    return _JSON_CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def build_error_document(error: AudiocliError, command: str | None) -> dict[str, Json]:
    """Build the object of an error: `{"ok": false, "command": …, "error": {…}}`."""
    details: dict[str, Json] = {
        "exit": error.exit_code,
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
    }
    request_ids = getattr(error, "request_ids", None) or [getattr(error, "request_id", None)]
    if any(request_ids):
        details["request_ids"] = [request_id for request_id in request_ids if request_id]
    if isinstance(error, RoutesExhausted):
        details["routes"] = [
            {"gateway": route.gateway, "model": route.model, "reason": route.reason} for route in error.routes
        ]
    if isinstance(error, OutputError) and error.saved_path:
        details["kept"] = error.saved_path
    return {"ok": False, "command": command, "error": details}


def format_route(ref: str, voice: str | None) -> str:
    """Format a route for a result line: `local:espeak (en-us)`."""
    return f"{ref} ({voice})" if voice else ref


def format_size(size_bytes: int) -> str:
    """Format a number of bytes with a decimal unit, such as `33.5 kB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} bytes"
