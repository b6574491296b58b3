"""Command lines that Typer refuses: options of similar programs, misspelled names, and options before the command.

Options of whisper, say, edge-tts and curl are accepted if an option of ours means the same. Otherwise the hint has the
replacement. Only a refused command line, or one that begins with an option, loads this module.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import UsageError, suggest

# Options of every command, which may also stand before it. The value is whether they take a value.
GENERAL_FLAGS = {
    **dict.fromkeys(("--json", "-q", "--quiet", "--debug"), False),
    **dict.fromkeys(("-g", "--gateway", "--base-url", "--timeout", "--color"), True),
}

# Options that mean the same as ours, by command ("" is every command). {value} is the value of the option.
SAME_MEANING: dict[tuple[str, str], tuple[str, ...]] = {
    ("speak", "--text"): ("{value}",),
    ("speak", "--write-media"): ("--output", "{value}"),
    ("speak", "--write-subtitles"): ("--captions", "{value}"),
    ("speak", "--list-voices"): ("--voice", "?"),
    ("speak", "--file"): ("--input-file", "{value}"),
    ("speak", "--output-file"): ("--output", "{value}"),
    ("speak", "--output-format"): ("--format", "{value}"),
    ("transcribe", "--file"): ("{value}",),
    ("transcribe", "--output-format"): ("--format", "{value}"),
    ("transcribe", "--initial-prompt"): ("--prompt", "{value}"),
    ("transcribe", "--max-line-count"): ("--max-lines", "{value}"),
    ("", "--silent"): ("--quiet",),
    ("", "--verbose"): ("--debug",),
}
# Options whose replacement depends on the value.
SAME_MEANING_BY_VALUE: dict[tuple[str, str], Mapping[str, tuple[str, ...]]] = {
    ("transcribe", "--task"): {"translate": ("--translate",), "transcribe": ()},
    ("transcribe", "--output-format"): {"all": ("--format", "txt,srt,vtt,tsv,json")},
    ("transcribe", "--word-timestamps"): {"true": ("--timestamps", "word"), "false": ()},
    ("transcribe", "--verbose"): {"true": ("--debug",), "false": ()},
}

# Options without an equivalent: what to do instead. {value} is the value as a word of a shell.
REPLACEMENTS: dict[tuple[str, str], str] = {
    ("speak", "--text"): "use: audiocli speak -- {value}",
    ("speak", "--rate"): "use --speed {speed}",
    ("speak", "-r"): "use --speed {speed}",
    ("speak", "-w"): "use -o {value}",
    ("speak", "--pitch"): "use --instructions, if the model supports it",
    ("speak", "--volume"): "there is no volume option; set the volume in the player",
    ("speak", "--lang"): "use a voice of the language: audiocli voices {value}",
    ("speak", "--slow"): "use --speed 0.75",
    ("speak", "--file-format"): "use --format, such as --format wav",
    ("speak", "--data-format"): "use --format, such as --format wav",
    ("transcribe", "--fp16"): "remove it",
    ("transcribe", "--threads"): "remove it; use --jobs for requests in flight",
    ("transcribe", "--beam-size"): "remove it",
    ("transcribe", "--best-of"): "remove it",
    ("transcribe", "--vad-filter"): "remove it",
    ("transcribe", "--model-dir"): "set AUDIOCLI_MODEL_DIR={value}",
    ("transcribe", "--max-words-per-line"): "use --max-line-width, in characters",
    ("transcribe", "--response-format"): "use --format {value}",
    ("", "--proxy"): "set HTTPS_PROXY={value}",
    ("", "--api-key"): "store the key: audiocli keys set GATEWAY",
    ("", "--key"): "store the key: audiocli keys set GATEWAY",
    ("", "--header"): "use --option KEY=VALUE for request fields; store keys with: audiocli keys set GATEWAY",
    ("", "-H"): "use --option KEY=VALUE for request fields; store keys with: audiocli keys set GATEWAY",
    ("", "--url"): "use --base-url {value}",
    ("", "--max-time"): "use --timeout {value}, in seconds without data",
    ("", "--retry"): "remove it; requests that were not sent or were temporarily refused are retried",
    ("", "--insecure"): "set SSL_CERT_FILE to the certificate of the server",
    ("", "-k"): "set SSL_CERT_FILE to the certificate of the server",
}

# Options that take no value in the programs that have them.
WITHOUT_VALUE = frozenset({"--list-voices", "--silent", "--slow", "--insecure", "-k"})
# Words that are commands of similar programs.
COMMAND_REPLACEMENTS = {"say": "speak", "tts": "speak", "stt": "transcribe", "whisper": "transcribe"}
SAY_WORDS_PER_MINUTE = 175


class _Word(NamedTuple):
    """An option on a command line: its position, its value, and the number of words that it takes."""

    position: int
    value: str | None
    length: int


def move_general_flags(arguments: Sequence[str]) -> list[str]:
    """Move the options in `GENERAL_FLAGS` from before a command to after it.

    Arguments that begin with another option, or without a word after the options, are returned unchanged.
    """
    index = 0
    while index < len(arguments) and arguments[index].startswith("-"):
        name, equals, _ = arguments[index].partition("=")
        if name not in GENERAL_FLAGS or (equals and not GENERAL_FLAGS[name]):
            return list(arguments)
        index += 2 if GENERAL_FLAGS[name] and not equals else 1
    if index >= len(arguments):
        return list(arguments)
    return [arguments[index], *arguments[:index], *arguments[index + 1 :]]


def rewrite(arguments: Sequence[str], error: Any, commands: Collection[str]) -> list[str] | None:
    """Return a refused command line with an option or command of a similar program in our words.

    Return None if there is no equivalent. `error` is the exception of Typer.
    """
    command = arguments[0] if arguments and arguments[0] in commands else ""
    if not command:
        return _rewrite_without_command(arguments)
    name = getattr(error, "option_name", None)
    if name is None:
        return None
    word = _find_option(arguments, name, error)
    if word is None:
        return None
    normal_name = name.replace("_", "-")
    known_names = _list_names(error)
    by_value = SAME_MEANING_BY_VALUE.get((command, normal_name), {})
    if word.value is not None and word.value.lower() in by_value:
        new_words: tuple[str, ...] = by_value[word.value.lower()]
    elif (found := _find_same_meaning(command, normal_name)) is not None:
        new_words = found
        if "{value}" not in new_words:
            word = word._replace(length=1)
    elif normal_name != name and normal_name in known_names:
        new_words = (normal_name,)
        word = word._replace(length=1)
        if "=" in arguments[word.position]:
            new_words = (f"{normal_name}={word.value}",)
    else:
        return None
    if "{value}" in new_words and word.value is None:
        return None
    if new_words == ("{value}",) and str(word.value).startswith("-") and word.value != "-":
        return None  # it would be read as an option
    words = [str(word.value) if new == "{value}" else new for new in new_words]
    return [*arguments[: word.position], *words, *arguments[word.position + word.length :]]


def _find_same_meaning(command: str, name: str) -> tuple[str, ...] | None:
    return SAME_MEANING.get((command, name)) or SAME_MEANING.get(("", name))


def _rewrite_without_command(arguments: Sequence[str]) -> list[str] | None:
    names = {word.partition("=")[0] for word in arguments[: _find_end(arguments)]}
    if list(arguments) == ["version"]:
        return ["--version"]
    if "--list-voices" in names and arguments[0].startswith("-"):
        return ["voices", *(word for word in arguments if word != "--list-voices")]
    if names & {"--text", "--write-media"} and arguments[0].startswith("-"):
        return ["speak", *arguments]
    return None


def build_error(arguments: Sequence[str], error: Any, program: Any, commands: Collection[str]) -> UsageError:
    """Build the error for a refused command line: what is wrong, the most similar name, and what to do."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else _find_command_path(arguments, program)
    command = arguments[0] if arguments and arguments[0] in commands else ""
    message = (error.format_message() if hasattr(error, "format_message") else str(error)).rstrip(".")
    message = message or "invalid usage"
    hint = f"see '{path} --help'"
    option = getattr(error, "option_name", None)
    if option is not None and message.startswith("No such option"):
        operand = next((word for word in arguments if _is_operand(word, option)), None)
        replacement = _find_replacement(arguments, option, command, error)
        message = f"no such option: {option}"
        if not command and option in GENERAL_FLAGS:
            message = "missing command"
        elif operand is not None and command:
            hint = f"put -- before an argument that begins with a hyphen: {path} -- {shlex.quote(operand)}"
        elif replacement is not None:
            hint = replacement
        elif option.startswith("--"):
            message += suggest(option, _list_names(error))
    elif (match := re.match(r"No such command '(.*?)'(?:\. Did you mean .*)?$", message, re.DOTALL)) is not None:
        name = match[1]
        known = getattr(getattr(context, "command", None), "commands", commands)
        message = f"no such command {name!r}{suggest(name, known)}"
        hint = _find_command_replacement(arguments, name, path) or hint
    elif (described := _describe_invalid_value(error)) is not None:
        message = described
    return UsageError(message[0].lower() + message[1:], hint=hint)


def _describe_invalid_value(error: Any) -> str | None:
    """Return the message for a value that the type of an option does not accept; None if it is another error.

    Typer would write `Invalid value for '--jobs' / '-j': 'x' is not a valid int`.
    """
    text, parameter = getattr(error, "message", None), getattr(error, "param", None)
    if text is None or parameter is None:
        return None
    name = next((name for name in parameter.opts if name.startswith("--")), parameter.opts[0])
    if (match := re.fullmatch(r"(.*) is not a valid (int|float)( range)?\.", text, re.DOTALL)) is not None:
        required = "a whole number" if match[2] == "int" else "a number"
    elif (match := re.fullmatch(r"(.*) is not in the range .*", text, re.DOTALL)) is not None:
        required = _describe_range(parameter.type.min, parameter.type.max)
    elif (match := re.fullmatch(r"(.*) is not one of .*", text, re.DOTALL)) is not None:
        *choices, last = (str(getattr(choice, "value", choice)) for choice in parameter.type.choices)
        required = f"{', '.join(choices)} or {last}" if choices else last
    else:
        return None
    import ast

    value = ast.literal_eval(match[1])
    return f"{name} {shlex.quote(value) if isinstance(value, str) else f'{value:g}'}: must be {required}"


def _describe_range(minimum: float | None, maximum: float | None) -> str:
    if maximum is None:
        return f"{minimum:g} or more"
    return f"between {minimum:g} and {maximum:g}" if minimum is not None else f"{maximum:g} or less"


def _find_command_path(arguments: Sequence[str], program: Any) -> str:
    """Return the command that the first words name. The parser does not say which command lacks a value."""
    path, command = ["audiocli"], program
    for word in arguments:
        children = getattr(command, "commands", {})
        if word not in children:
            break
        path.append(word)
        command = children[word]
    return " ".join(path)


def _find_replacement(arguments: Sequence[str], option: str, command: str, error: Any) -> str | None:
    """Return what to use in place of an option of a similar program; None if it is not one."""
    name = option.replace("_", "-") if option.startswith("--") else option
    text = REPLACEMENTS.get((command, name)) or REPLACEMENTS.get(("", name))
    if text is None:
        # An equivalent that could not be used, because the value is missing or unknown.
        by_value = [" ".join(words) for words in SAME_MEANING_BY_VALUE.get((command, name), {}).values() if words]
        same = " ".join(_find_same_meaning(command, name) or ())
        text = f"use {same or ' or '.join(by_value)}" if same or by_value else None
    if text is None:
        return None
    word = _find_option(arguments, option, error)
    value = word.value if word is not None else None
    speed = _convert_rate(value)
    return text.replace("{value}", shlex.quote(value) if value else "VALUE").replace("{speed}", speed or "N")


def _convert_rate(value: str | None) -> str | None:
    """Return the speed factor for a rate in percent (edge-tts) or in words per minute (say, espeak)."""
    if value is None:
        return None
    if (match := re.fullmatch(r"([+-]\d+)%", value)) is not None:
        return f"{1 + int(match[1]) / 100:g}"
    return f"{int(value) / SAY_WORDS_PER_MINUTE:.2g}" if value.isdecimal() and len(value) < 5 else None


def _find_command_replacement(arguments: Sequence[str], name: str, path: str) -> str | None:
    """Return the command line for a first word that is a text, a file, or a command of a similar program."""
    if path != "audiocli" or name not in arguments:
        return None
    rest = list(arguments[arguments.index(name) + 1 :])
    if name in COMMAND_REPLACEMENTS:
        return f"use: {shlex.join(['audiocli', COMMAND_REPLACEMENTS[name], *rest])}"
    if os.path.isfile(name):  # noqa: PTH113 - `pathlib` takes 4 ms
        from ..audio.formats import find_format_for_path

        is_audio = find_format_for_path(name) is not None or not name.lower().endswith((".txt", ".md"))
        new_words = ["transcribe", name] if is_audio else ["speak", "-F", name]
        return f"use: {shlex.join(['audiocli', *new_words, *rest])}"
    if " " in name:
        return f"use: {shlex.join(['audiocli', 'speak', name, *rest])}"
    return None


def _find_option(arguments: Sequence[str], name: str, error: Any) -> _Word | None:
    """Find an option on a command line, skipping the values of other options."""
    valued = _list_names(error, with_value=True)
    end = _find_end(arguments)
    index = 1
    while index < end:
        word = arguments[index]
        if word.startswith(f"{name}="):
            return _Word(index, word[len(name) + 1 :], 1)
        if word == name:
            has_value = name not in WITHOUT_VALUE and index + 1 < end and not arguments[index + 1].startswith("--")
            return _Word(index, arguments[index + 1], 2) if has_value else _Word(index, None, 1)
        if not name.startswith("--") and word.startswith(name):
            return _Word(index, word[len(name) :], 1)
        index += 2 if word in valued else 1
    return None


def _find_end(arguments: Sequence[str]) -> int:
    return arguments.index("--") if "--" in arguments else len(arguments)


def _list_names(error: Any, *, with_value: bool = False) -> list[str]:
    """Return the names of the visible options of the command that refused its arguments."""
    context = getattr(error, "ctx", None)
    if context is None:
        return []
    return [
        name
        for parameter in context.command.get_params(context)
        if parameter.param_type_name == "option"
        and not parameter.hidden
        and not (with_value and (parameter.is_flag or parameter.count))
        for name in (*parameter.opts, *parameter.secondary_opts)
    ]


def _is_operand(word: str, option: str) -> bool:
    """Return whether a word that was parsed as an unknown option is a number, a sentence or the name of a file."""
    if not word.startswith(option) or word.startswith("--"):
        return False
    return word[1:2].isdigit() or " " in word or os.path.exists(word)  # noqa: PTH110
