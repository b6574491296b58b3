"""Change the config file: set and remove keys, and leave the rest of the file, with its comments, unchanged.

A changed file is parsed and validated before it replaces the old one, because a file with an invalid value would stop
every later command.
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from . import config
from .errors import UsageError
from .private_files import read_regular_file, require_regular_file, write_atomically

# A key of the config file and the tables that it is in, from the outermost one.
KeyPath = tuple[str, ...]

_BOM = b"\xef\xbb\xbf"
# Tables whose keys are names or references. They may have dots, which therefore do not separate tables.
_NAME_TABLES = ("voices", "aliases", "prices")
_PRICE_KEYS = ("per", "usd")


class Change(NamedTuple):
    """The result of a change. `value` is the new value, or None if the key was removed."""

    key: KeyPath
    value: object
    is_changed: bool


def parse_key(text: str) -> KeyPath:
    """Parse a dotted key such as `speak.voice`, `aliases.narrator` or `voices."openrouter:hexgrad/kokoro-82m"`.

    References in `voices`, `aliases` and `prices` need no quotes.

    Raises:
        UsageError: It is not a key.
    """
    invalid = UsageError(f"{text!r} is not a key of the config file", hint="use TABLE.KEY, such as speak.voice")
    if '"' in text or "'" in text:
        try:
            node: Any = tomllib.loads(f"{text} = 0")
        except tomllib.TOMLDecodeError as error:
            raise invalid from error
        quoted: list[str] = []
        while isinstance(node, dict) and len(node) == 1:
            name, node = next(iter(node.items()))
            quoted.append(name)
        if node != 0:
            raise invalid
        return tuple(quoted)
    table, dot, rest = text.partition(".")
    if table in _NAME_TABLES and dot:
        name, price_dot, price_key = rest.rpartition(".")
        is_price_key = table == "prices" and price_dot and price_key in _PRICE_KEYS
        parts: KeyPath = (table, name, price_key) if is_price_key else (table, rest)
    else:
        parts = tuple(text.split("."))
    if not all(part.strip() and part.isprintable() for part in parts):
        raise invalid
    return parts


def get_value(path: Path, key: KeyPath) -> object:
    """Return the value of a key or a table of the config file; None if it is not set.

    Raises:
        UsageError: The key is unknown, or the file cannot be read or is not valid TOML.
    """
    value = _find(config.read_tables(path, must_exist=False), key)
    if value is None:
        _require_known(path, key)
    return value


def set_value(path: Path, key: KeyPath, texts: Sequence[str]) -> Change:
    """Set a key to a value from the command line. Several texts are a list.

    One text is a TOML value (`5`, `["a", "b"]`, `{ usd = 15, per = "1M characters" }`) if the key accepts it, else a
    string, else a list with one string.

    Raises:
        UsageError: The key is unknown, the value is invalid, or the file cannot be changed.
    """
    candidates = [list(texts)] if len(texts) != 1 else [*_parse_value(texts[0]), texts[0], [texts[0]]]
    tables = config.read_tables(path, must_exist=False)
    first_error: UsageError | None = None
    for candidate in candidates:
        changed = copy.deepcopy(tables)
        try:
            _set(changed, key, candidate)
            config.validate(changed, path)
        except config.UnknownKey:
            raise
        except UsageError as error:
            first_error = first_error or error
            continue
        is_changed = changed != tables
        if is_changed:
            _write(path, changed, partial(_set, key=key, value=candidate))
        return Change(key, candidate, is_changed)
    assert first_error is not None
    raise first_error


def unset_value(path: Path, key: KeyPath) -> Change:
    """Remove a key or a table. A file that is invalid for another reason may stay so.

    Raises:
        UsageError: The key is unknown and not in the file, the rest of the file needs it, or it cannot be changed.
    """
    tables = config.read_tables(path, must_exist=False)
    if _find(tables, key) is None:
        _require_known(path, key)
        return Change(key, None, False)
    changed = copy.deepcopy(tables)
    _remove(changed, key)
    try:
        config.validate(changed, path)
    except UsageError:
        if _is_valid(tables, path):
            raise
    _write(path, changed, lambda document: _remove(document, key))
    return Change(key, None, True)


def write_table(path: Path, name: str, values: Mapping[str, float] | None) -> None:
    """Set keys of a table of the config file, or remove the table if `values` is None. The rest stays unchanged.

    Raises:
        UsageError: The file is not valid TOML, not a regular file, or cannot be written; or a value is not valid.
    """

    def change(document: Any) -> None:
        if values is None:
            document.pop(name, None)
        for key, value in (values or {}).items():
            _set(document, (name, key), value)

    _require_writable(path)
    changed = config.read_tables(path, must_exist=False)
    change(changed)
    config.validate(changed, path)
    _write(path, changed, change)


def replace_content(path: Path, content: bytes) -> None:
    """Replace the content of the config file.

    Raises:
        UsageError: The content is not a valid configuration, or the file cannot be written.
    """
    config.validate(config.parse_tables(content, path), path)
    _replace(path, content)


def read_content(path: Path) -> bytes:
    """Return the content of the config file; empty if it does not exist. Raises: UsageError: It cannot be read."""
    try:
        return read_regular_file(path, config.MAX_CONFIG_BYTES)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise UsageError(f"cannot read the config file {path}: {error.strerror}") from error


def format_value(value: object) -> str:
    """Format a value as TOML, on one line. A table becomes an inline table."""
    import tomlkit

    if isinstance(value, dict):
        items = ", ".join(f"{tomlkit.key(name).as_string()} = {format_value(item)}" for name, item in value.items())
        return f"{{ {items} }}" if items else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(format_value, value))}]"
    return str(tomlkit.item(value).as_string())


def _parse_value(text: str) -> list[object]:
    """Return the value of a text that is a TOML value; empty if it is not one."""
    if "\n" in text:
        return []
    try:
        return [tomllib.loads(f"value = {text}")["value"]]
    except (tomllib.TOMLDecodeError, RecursionError):
        return []


def _find(tables: Mapping[str, object], key: KeyPath) -> object:
    node: object = tables
    for part in key:
        if not isinstance(node, Mapping) or part not in node:
            return None
        node = node[part]
    return node


def _require_known(path: Path, key: KeyPath) -> None:
    """Check that a key which is not in the file may be there. Raises: UnknownKey: It may not."""
    probe: dict[str, object] = {}
    _set(probe, key, None)
    try:
        config.validate(probe, path)
    except config.UnknownKey:
        raise
    except UsageError:
        return  # the key is known; it only cannot have this value, or be alone


def _is_valid(tables: dict[str, object], path: Path) -> bool:
    try:
        config.validate(tables, path)
    except UsageError:
        return False
    return True


def _set(document: Any, key: KeyPath, value: object) -> None:
    """Set a key of nested tables, which are those of tomllib or tomlkit. Raises: UsageError: A table is a value."""
    import tomlkit
    from tomlkit.items import InlineTable

    node = document
    for depth, part in enumerate(key[:-1]):
        if part not in node:
            if not isinstance(document, tomlkit.TOMLDocument):
                node[part] = {}
            elif isinstance(node, InlineTable):
                node[part] = tomlkit.inline_table()
            else:
                # A table that only has tables needs no header of its own.
                node[part] = tomlkit.table(is_super_table=depth + 2 < len(key))
        node = node[part]
        if not isinstance(node, Mapping):
            raise UsageError(f"{'.'.join(key[: depth + 1])} is a value, not a table")
    if isinstance(value, dict) and isinstance(document, tomlkit.TOMLDocument):
        inline = tomlkit.inline_table()
        inline.update(value)
        value = inline
    node[key[-1]] = value


def _remove(document: Any, key: KeyPath) -> None:
    node = document
    for part in key[:-1]:
        node = node[part]
    del node[key[-1]]
    # Without its last key, a table with a name of the user, such as [gateways.NAME], would be invalid.
    if not node and (len(key) > 2 or (len(key) > 1 and not _has_comments(node))):
        _remove(document, key[:-1])


def _has_comments(table: Any) -> bool:
    """Return whether a table may have comments, which a change leaves in the file. Those of tomllib have none."""
    from tomlkit.items import AbstractTable, Comment

    if isinstance(table, AbstractTable):
        return bool(table.trivia.comment) or any(isinstance(item, Comment) for _, item in table.value.body)
    return type(table) is not dict  # a table in several parts of the file


def _drop_empty_tables(tables: Mapping[str, object]) -> dict[str, object]:
    """Return tables without empty ones, which tomlkit drops if they have no header."""
    pairs = ((name, _drop_empty_tables(value) if isinstance(value, dict) else value) for name, value in tables.items())
    return {name: value for name, value in pairs if value != {}}


def _require_writable(path: Path) -> None:
    """Check that the config file is a regular file or does not exist. Raises: UsageError: It is something else."""
    try:
        require_regular_file(path)
    except OSError as error:
        raise UsageError(f"cannot change the config file {path}: {error.strerror}") from error


def _write(path: Path, expected: Mapping[str, object], change: Callable[[Any], None]) -> None:
    """Apply a change to the text of the config file.

    `expected` are the tables afterwards. Text that has other tables is not written.

    Raises:
        UsageError: The file cannot be changed.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    _require_writable(path)
    content = read_content(path)
    has_bom = content.startswith(_BOM)
    try:
        document = tomlkit.parse(content.decode("utf-8-sig"))
        change(document)
        text = tomlkit.dumps(document)
        is_expected = _drop_empty_tables(tomllib.loads(text)) == _drop_empty_tables(expected)
    except (TOMLKitError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot change the config file {path}: {error}") from error
    if not is_expected:
        raise UsageError(f"cannot change this part of the config file {path}", hint="use: audiocli config edit")
    _replace(path, (_BOM if has_bom else b"") + text.encode())


def _replace(path: Path, content: bytes) -> None:
    try:
        write_atomically(path, content, keep_mode=True)
    except OSError as error:
        raise UsageError(f"cannot change the config file {path}: {error.strerror}") from error
