"""Answer completion queries: `audiocli --complete QUERY CURRENT [WORD]...` prints one name per line.

QUERY is `models`, `models:KIND` or `voices`; CURRENT is the word to complete, the WORDs are the rest of the line. The
names come from `completion.txt` in the cache directory, written by `audiocli models`: `kind TAB reference TAB voices`.
Until then, they come from `runtime.txt` next to this module, which lists the default models. Names in `[aliases]` come
from the config file. A query must not take much longer than the start of the interpreter, so this module imports as
little as possible.
"""

from __future__ import annotations

# ruff: noqa: PTH113, PTH117, PTH118, PTH120, PTH123 - `pathlib` takes 4 ms
import os
import sys

TYPE_CHECKING = False  # type checkers read it as True; importing `typing` takes 3 ms
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..context import AppContext

LIST_NAME = "completion.txt"
DEFAULT_LIST_PATH = os.path.join(os.path.dirname(__file__), "runtime.txt")
# Relative to the home directory, as in platformdirs.
CACHE_DIRECTORIES = {"linux": ".cache", "darwin": "Library/Caches"}
CONFIG_DIRECTORIES = {"linux": ".config", "darwin": "Library/Application Support"}

ModelRow = tuple[str, str, list[str]]
Aliases = dict[str, list[str]]


def complete(argv: list[str], variables: Mapping[str, str]) -> str:
    """Return the matching names, one per line.

    Invalid queries return nothing: an error message would appear in the middle of the command line.
    """
    query, current, words = argv[0] if argv else "", "".join(argv[1:2]), argv[2:]
    rows = _read_rows(find_list(variables)) or _read_rows(DEFAULT_LIST_PATH)
    aliases = _read_aliases(find_config(variables))
    gateway = "".join(_find_option_values(words, "-g", "--gateway")[-1:])
    kind = query.removeprefix("models").removeprefix(":")
    if query == "voices":
        models = _find_option_values(words, "-m", "--model")
        refs = [ref for model in models for ref in aliases.get(model, [model])]
        names = _list_voices(_select_rows(rows, "", gateway), refs)
    elif query in ("models", f"models:{kind}"):
        chosen = _select_rows(rows, kind, gateway)
        other_refs = {row[1] for row in rows} - {row[1] for row in chosen}
        names = [name for name, refs in aliases.items() if other_refs.isdisjoint(refs)]
        names += _list_models(chosen, current, has_gateway=bool(gateway))
    else:
        names = []
    # A name with a control character would reach the terminal.
    return "".join(f"{name}\n" for name in dict.fromkeys(names) if name.isprintable())


def find_list(variables: Mapping[str, str]) -> str:
    """Return the path of the list in `AppContext.cache_directory`."""
    directory = _find_directory(variables, "XDG_CACHE_HOME", CACHE_DIRECTORIES)
    return os.path.join(directory or str(_build_context(variables).cache_directory), LIST_NAME)


def find_config(variables: Mapping[str, str]) -> str:
    """Return `AppContext.config_path`."""
    configured = variables.get("AUDIOCLI_CONFIG", "")
    if configured:
        return configured
    directory = _find_directory(variables, "XDG_CONFIG_HOME", CONFIG_DIRECTORIES)
    return os.path.join(directory, "config.toml") if directory else str(_build_context(variables).config_path)


def _find_directory(variables: Mapping[str, str], name: str, directories: Mapping[str, str]) -> str | None:
    """Return the directory that an XDG variable or the platform names, without the slow import of platformdirs.

    Return None if only platformdirs can tell.
    """
    base, home = variables.get(name, ""), variables.get("HOME", "")
    if os.path.isabs(base):
        return os.path.join(base, "audiocli")
    if not base and sys.platform in directories and os.path.isabs(home):
        return os.path.join(home, directories[sys.platform], "audiocli")
    return None


def _build_context(variables: Mapping[str, str]) -> AppContext:
    import io

    from ..context import AppContext

    stream = io.BytesIO()
    return AppContext(variables=variables, stdin=stream, stdout=stream, stderr=stream)


def _read_aliases(path: str) -> Aliases:
    """Return the references of each alias in a config file; none if it is missing or not valid."""
    if not os.path.isfile(path):
        return {}  # a FIFO would block
    try:
        with open(path, "rb") as file:
            content = file.read()
        if b"aliases" not in content:
            return {}
        import tomllib  # 12 ms, so only for users who have aliases

        table = tomllib.loads(content.decode()).get("aliases")
    except (OSError, ValueError):
        return {}
    return {
        name: [str(ref) for ref in (refs if isinstance(refs, list) else [refs])]
        for name, refs in (table if isinstance(table, dict) else {}).items()
    }


def _read_rows(path: str) -> list[ModelRow]:
    if not os.path.isfile(path):
        return []  # a FIFO would block
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            rows = [line.rstrip("\n").split("\t") for line in lines]
    except OSError:
        return []
    return [(row[0], row[1], row[2].split()) for row in rows if len(row) == 3]


def _select_rows(rows: list[ModelRow], kind: str, gateway: str) -> list[ModelRow]:
    """Return the models of a kind and a gateway; "" is any."""
    return [row for row in rows if kind in ("", row[0]) and row[1].startswith(f"{gateway}:" if gateway else "")]


def _list_models(rows: list[ModelRow], current: str, *, has_gateway: bool) -> list[str]:
    """Return references; without the gateway if `-g` is given or no reference starts with the word."""
    refs = [ref for _, ref, _ in rows]
    matches = [ref for ref in refs if ref.startswith(current)]
    if (has_gateway and not (current and matches)) or not matches:
        return [ref.partition(":")[2] for ref in refs]
    return refs


def _list_voices(rows: list[ModelRow], models: list[str]) -> list[str]:
    """Return the voices of the models on the command line, or of all models if none of them is known."""
    chosen = [row for row in rows if row[1] in models or row[1].partition(":")[2] in models]
    return [voice for _, _, voices in chosen or rows for voice in voices]


def _find_option_values(words: list[str], short: str, long: str) -> list[str]:
    """Return the values of an option on a command line: `-m X`, `-mX`, `--model X` and `--model=X`."""
    values = []
    for index, word in enumerate(words):
        if word in (short, long):
            values += words[index + 1 : index + 2]
        elif word.startswith(f"{long}="):
            values.append(word[len(long) + 1 :])
        elif word.startswith(short) and not word.startswith("--"):
            values.append(word[len(short) :])
    return values
