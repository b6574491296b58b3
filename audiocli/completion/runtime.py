"""What the shells ask at every TAB: `audiocli --complete WHAT CURRENT [WORD]...`, a name per line.

WHAT is `models`, `models:KIND` or `voices`; CURRENT is the word to complete, the WORDs are the rest of the line. The
names come from `completion.txt` in the cache folder, which `audiocli models` writes: `kind TAB reference TAB voices`.
Until it has, they come from a list of that form beside this module: the models that are used when none is named.
A TAB must not take longer than the interpreter takes to start, so nothing is imported here that is not needed.
"""

from __future__ import annotations

# ruff: noqa: PTH117, PTH118, PTH120, PTH123 - `pathlib` takes 4 ms
import os
import sys

TYPE_CHECKING = False  # as for the type checker only; importing `typing` takes 3 ms
if TYPE_CHECKING:
    from collections.abc import Mapping

LIST_NAME = "completion.txt"
FIRST_LIST_PATH = os.path.join(os.path.dirname(__file__), "runtime.txt")
# Below the home folder, as platformdirs has it.
CACHES = {"linux": ".cache", "darwin": "Library/Caches"}

Row = tuple[str, str, list[str]]


def answer(argv: list[str], variables: Mapping[str, str]) -> str:
    """Give the names that fit; nothing is an error here, for its message would land in the middle of a command line."""
    what, current, words = argv[0] if argv else "", "".join(argv[1:2]), argv[2:]
    rows = _rows(list_path(variables)) or _rows(FIRST_LIST_PATH)
    gateway = "".join(_values(words, "-g", "--gateway")[-1:])
    if gateway:
        rows = [row for row in rows if row[1].startswith(f"{gateway}:")]
    kind = what.removeprefix("models").removeprefix(":")
    if what == "voices":
        names = _voices(rows, _values(words, "-m", "--model"))
    elif what in ("models", f"models:{kind}"):
        names = _models([row for row in rows if row[0] == kind or not kind], current, is_named=bool(gateway))
    else:
        names = []
    return "".join(f"{name}\n" for name in dict.fromkeys(names))


def list_path(variables: Mapping[str, str]) -> str:
    """Find the list where `Env.cache_folder` puts it; the usual cases are worked out here, as that import is slow."""
    cache, home = variables.get("XDG_CACHE_HOME", ""), variables.get("HOME", "")
    if os.path.isabs(cache):
        folder = os.path.join(cache, "audiocli")
    elif not cache and sys.platform in CACHES and os.path.isabs(home):
        folder = os.path.join(home, CACHES[sys.platform], "audiocli")
    else:
        import io

        from ..context import AppContext

        nothing = io.BytesIO()
        folder = str(AppContext(variables=variables, stdin=nothing, stdout=nothing, stderr=nothing).cache_folder)
    return os.path.join(folder, LIST_NAME)


def _rows(path: str) -> list[Row]:
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            found = [line.rstrip("\n").split("\t") for line in lines]
    except OSError:
        return []
    return [(parts[0], parts[1], parts[2].split()) for parts in found if len(parts) == 3]


def _models(rows: list[Row], current: str, *, is_named: bool) -> list[str]:
    """Whole references; without their gateway where `-g` names it, or where no reference begins like the word."""
    refs = [ref for _, ref, _ in rows]
    begun = [ref for ref in refs if ref.startswith(current)]
    if (is_named and not (current and begun)) or not begun:
        return [ref.partition(":")[2] for ref in refs]
    return refs


def _voices(rows: list[Row], models: list[str]) -> list[str]:
    """The voices of the models on the line; those of all where none is there, or none that is known."""
    chosen = [row for row in rows if row[1] in models or row[1].partition(":")[2] in models]
    return [voice for _, _, voices in chosen or rows for voice in voices]


def _values(words: list[str], short: str, long: str) -> list[str]:
    """The values that a flag has on a line: `-m X`, `-mX`, `--model X` and `--model=X`."""
    found = []
    for place, word in enumerate(words):
        if word in (short, long):
            found += words[place + 1 : place + 2]
        elif word.startswith(f"{long}="):
            found.append(word[len(long) + 1 :])
        elif word.startswith(short) and not word.startswith("--"):
            found.append(word[len(short) :])
    return found
