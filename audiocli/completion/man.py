"""Generate man pages from the command tree: one page for each command, `audiocli-usage-list.1` for `usage list`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .command_tree import Command, Flag


class ManPage(NamedTuple):
    """What a man page adds to the command tree.

    Attributes:
        panels: The flags of the command by heading, in the order of the page.
        exit_codes: Exit codes with their meaning.
        variables: Environment variables with their meaning.
    """

    description: str
    examples: Sequence[str]
    panels: Mapping[str, Sequence[Flag]]
    exit_codes: Sequence[tuple[int, str]]
    variables: Sequence[tuple[str, str]] = ()


def build_page_name(command: Command) -> str:
    """Return the name of the page of a command, without its section."""
    return "-".join(("audiocli", *command.path))


def render(command: Command, page: ManPage) -> str:
    """Render one page in the man macros of roff."""
    name = build_page_name(command)
    lines = [
        '.\\" Generated from the command tree; do not edit.',
        f'.TH {_quote(name.upper())} 1 "" audiocli "User Commands"',
        ".SH NAME",
        f"{_escape(name)} \\- {_escape(command.help)}",
        ".SH SYNOPSIS",
        f".B {_escape(' '.join(('audiocli', *command.path)))}",
        _escape(_render_operands(command)),
        ".SH DESCRIPTION",
        _escape(f"{command.help}."),
    ]
    if page.description:
        lines += [".PP", _escape(page.description)]
    if command.commands:
        lines.append(".SH COMMANDS")
        for child in command.commands:
            lines += [".TP", f".BR {_quote(build_page_name(child))} (1)", _escape(f"{child.help}.")]
    lines.append(".SH OPTIONS")
    for panel, flags in page.panels.items():
        lines.append(f".SS {_quote(panel)}")
        for flag in flags:
            lines += [".TP", _render_flag(flag), _escape(f"{flag.help}.")]
    if page.variables:
        lines.append(".SH ENVIRONMENT")
        for variable, text in page.variables:
            lines += [".TP", f".B {_escape(variable)}", _escape(text)]
    lines.append(".SH EXIT STATUS")
    for code, text in page.exit_codes:
        lines += [".TP", f".B {code}", _escape(text)]
    lines += [".SH EXAMPLES", ".nf", *(_escape(line) for line in page.examples), ".fi"]
    if command.path:
        lines += [".SH SEE ALSO", f".BR {_quote('-'.join(('audiocli', *command.path[:-1])))} (1)"]
    return "\n".join(lines) + "\n"


def _render_operands(command: Command) -> str:
    operands = [
        f"{argument.metavar if argument.required else f'[{argument.metavar}]'}{'...' if argument.repeatable else ''}"
        for argument in command.arguments
    ]
    return " ".join(["[OPTIONS]", *(["COMMAND [ARGS]..."] if command.commands else operands)])


def _render_flag(flag: Flag) -> str:
    names = ", ".join(f"\\fB{_escape(name)}\\fR" for name in sorted(flag.names, key=len))
    return names if flag.values is None else f"{names} \\fI{_escape(flag.metavar)}\\fR"


def _escape(text: str) -> str:
    """Escape backslashes and hyphens, and a first character that would begin a roff request."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def _quote(text: str) -> str:
    return '"' + _escape(text).replace('"', "\\(dq") + '"'
