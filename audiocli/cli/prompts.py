"""Questions on the terminal. Every caller checks first that stdin and stderr are terminals."""

from __future__ import annotations

from collections.abc import Sequence

from ..console import escape_line
from ..context import AppContext


def ask(app: AppContext, question: str, default: str = "") -> str:
    """Ask a question and return the answer, or the default if it is empty.

    Raises:
        KeyboardInterrupt: The input ended.
    """
    suffix = f" [{default}]" if default else ""
    app.stderr.write(f"{escape_line(question)}{escape_line(suffix)} ".encode("utf-8", "backslashreplace"))
    answer = app.stdin.readline()
    if not answer:
        app.stderr.write(b"\n")
        raise KeyboardInterrupt
    return answer.decode("utf-8", "replace").strip() or default


def confirm(app: AppContext, question: str, *, default: bool) -> bool:
    """Ask a question whose answer is yes or no. Anything else is asked again. Raises: KeyboardInterrupt."""
    while True:
        answer = ask(app, f"{question} [{'Y/n' if default else 'y/N'}]").lower()
        if answer in ("", "y", "yes", "n", "no"):
            return default if not answer else answer.startswith("y")


def choose(app: AppContext, question: str, options: Sequence[str], default: str) -> str:
    """Ask for one of several options, by name or number. Anything else is asked again. Raises: KeyboardInterrupt."""
    while True:
        answer = ask(app, question, default)
        if answer in options:
            return answer
        if answer.isascii() and answer.isdigit() and 1 <= int(answer) <= len(options):
            return options[int(answer) - 1]


def ask_secret(question: str) -> str:
    """Ask for a secret without echo. Raises: KeyboardInterrupt."""
    import getpass

    try:
        return getpass.getpass(f"{escape_line(question)}: ").strip()
    except EOFError:
        raise KeyboardInterrupt from None
