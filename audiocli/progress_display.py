"""A progress line on a terminal: a spinner or a bar, in one line of any width.

Only this module imports rich, which takes 50 ms. It is loaded when a progress line appears.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn

from .console import count_cells, escape_line, shorten

if TYPE_CHECKING:
    from .console import ProgressState

# Terminal columns of the spinner and the space after it.
SPINNER_WIDTH = 2
# Terminal columns after the line, for the `^C` that the terminal prints there.
MARGIN_WIDTH = 2
MIN_BAR_WIDTH, MAX_BAR_WIDTH = 10, 40


class ProgressDisplay:
    """A progress line at the end of what a terminal shows, until it is closed."""

    def __init__(self, stream: BinaryIO, *, has_color: bool) -> None:
        self._console = Console(file=cast(TextIO, _TextStream(stream)), force_terminal=True, no_color=not has_color)
        self._spinner = SpinnerColumn(style="cyan")
        self._text = TextColumn("{task.fields[text]}", markup=False)
        self._details = TextColumn("{task.fields[details]}", markup=False)
        self._bar = BarColumn(complete_style="cyan", finished_style="cyan")
        # Without the thread of rich: another thread could draw while a message is written.
        self._progress = Progress(
            console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._task = self._progress.add_task("", total=1.0, text="", details="")
        self._progress.start()

    def close(self) -> None:
        """Remove the line."""
        self._progress.stop()

    def show(self, state: ProgressState) -> None:
        """Draw the line. It never wraps, also if the terminal has become narrower."""
        text, bar_width, details = fit_line(state, self._console.width - SPINNER_WIDTH - MARGIN_WIDTH)
        columns: list[ProgressColumn] = [self._spinner, self._text]
        if bar_width:
            self._bar.bar_width = bar_width
            columns += [self._bar, self._details]
        self._progress.columns = tuple(columns)
        self._progress.update(self._task, completed=state.done_share or 0.0, text=text, details=details, refresh=True)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Remove the line while the block writes to the terminal."""
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()


def fit_line(state: ProgressState, width: int) -> tuple[str, int, str]:
    """Return the text, the width of the bar (0: no bar) and the details that fit into a number of terminal columns.

    Details are omitted from the first one on. Without a bar, they are a part of the text.
    """
    text, details = escape_line(state.text), list(map(escape_line, state.details))
    if state.done_share is None:
        while details and count_cells(", ".join([text, *details])) > width:
            del details[0]
        return shorten(", ".join([text, *details]), max(width, 1)), 0, ""
    while details and count_cells(text) + count_cells(", ".join(details)) + MIN_BAR_WIDTH + 2 > width:
        del details[0]
    bar_width = min(width - count_cells(text) - count_cells(", ".join(details)) - 2, MAX_BAR_WIDTH)
    if bar_width < MIN_BAR_WIDTH:
        return shorten(text, max(width, 1)), 0, ""
    return text, bar_width, ", ".join(details)


class _TextStream:
    """Adapt an unbuffered binary stream to the text stream that rich writes to."""

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
