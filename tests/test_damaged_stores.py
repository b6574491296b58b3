"""Damaged ledger and manifest: flipped bytes are a message or a rebuilt file, never an exception of a library."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from audiocli.mock import KEYS
from tests.conftest import CommandLine
from tests.gateway_contract import SPEECH


def checkpoint(path: Path) -> bytes:
    """Move the newest entries from the WAL file into the database, and return its bytes."""
    database = sqlite3.connect(path)
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return path.read_bytes()


def replace_database(path: Path, content: bytes) -> None:
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.write_bytes(content)


def flip_bytes(content: bytes, seed: int) -> bytes:
    """Flip bytes, nearly always used ones: one, eight or sixty of them."""
    source = random.Random(seed)
    damaged = bytearray(content)
    used = [index for index, byte in enumerate(damaged) if byte]
    for _ in range((1, 8, 60)[seed % 3]):
        damaged[source.choice(used)] ^= source.randrange(1, 256)
    return bytes(damaged)


def replace_text(text: bytes, replacement: bytes) -> Callable[[bytes], bytes]:
    def damage(content: bytes) -> bytes:
        assert text in content and len(text) == len(replacement)
        return content.replace(text, replacement)

    return damage


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "text that is not UTF-8": replace_text(b"a-tag", b"\xff-\xfeag"),
    "schema that is not UTF-8": replace_text(b"CREATE TABLE entries", b"CREATE T\xffBLE entries"),
    "name of a column": replace_text(b"cost_nanousd INTEGER", b"cost_\xffanousd INTEGER"),
    "unknown cost source": replace_text(b"unknown", b"unknoWn"),
    "details of a job": replace_text(b'"status": "queued"', b'"status": \xffqueued"'),
    **{f"bytes {seed}": lambda content, seed=seed: flip_bytes(content, seed) for seed in range(9)},  # type: ignore[misc]
}


@pytest.fixture
def ledger_cli(audiocli: CommandLine) -> CommandLine:
    """A command line whose ledger has entries and a job."""
    audiocli.variables["THEROUTER_API_KEY"] = KEYS["therouter"]
    for _ in range(5):
        assert audiocli("speak", "hi", "-o", audiocli.directory / "x.mp3", "--tag", "a-tag", "--no-cache").code == 0
    assert audiocli("speak", "hi", "-g", "therouter", "--background", "-o", audiocli.directory / "y.mp3").code == 0
    return audiocli


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_ledger_is_reported_or_read(ledger_cli: CommandLine, name: str) -> None:
    good = checkpoint(ledger_cli.ledger_path)
    damaged = DAMAGES[name](good)
    assert damaged != good
    for command in (
        ["usage"],
        ["usage", "--by", "week"],
        ["usage", "list"],
        ["usage", "export"],
        ["usage", "verify"],
        ["usage", "reconcile"],
        ["jobs"],
        ["jobs", "--json"],
        ["budget"],
        ["config", "check"],
        ["speak", "hi", "-o", str(ledger_cli.directory / "x.mp3"), "--no-cache"],
    ):
        replace_database(ledger_cli.ledger_path, damaged)

        r = ledger_cli(*command)

        assert r.code in (0, 3, 5), f"{command}: {r.err}"


@pytest.mark.parametrize("name", ["text that is not UTF-8", "schema that is not UTF-8"])
def test_text_that_is_not_utf8_counts_as_damage(ledger_cli: CommandLine, name: str) -> None:
    replace_database(ledger_cli.ledger_path, DAMAGES[name](checkpoint(ledger_cli.ledger_path)))

    r = ledger_cli("usage", "list")

    assert r.code == 5 and " is damaged: " in r.err and "'audiocli usage verify'" in r.err
    assert ledger_cli("usage", "verify").code in (0, 3)


@pytest.mark.parametrize("has_limit", [False, True], ids=["no limit", "limit"])
def test_damaged_ledger_is_set_aside_only_without_a_limit(ledger_cli: CommandLine, has_limit: bool) -> None:
    if has_limit:
        ledger_cli.write_config("[budget]\nday = 5\n")
    damage = DAMAGES["schema that is not UTF-8"]
    replace_database(ledger_cli.ledger_path, damage(checkpoint(ledger_cli.ledger_path)))

    r = ledger_cli("speak", "hi", "-o", ledger_cli.directory / "x.mp3", "--no-cache")

    is_set_aside = bool(list(ledger_cli.ledger_path.parent.glob("ledger.sqlite3.damaged-*")))
    assert (r.code, len(r.posts), is_set_aside) == ((5, 0, False) if has_limit else (0, 1, True)), r.err


# --- manifest --------------------------------------------------------------------------------------------------------

MANIFEST_DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "schema that is not UTF-8": replace_text(b"CREATE TABLE outputs", b"CREATE T\xffBLE outputs"),
    "column that is not UTF-8": replace_text(b"sha256 TEXT", b"sh\xff256 TEXT"),
    "header": lambda content: b"\xff" * 100 + content[100:],
    **{f"bytes {seed}": lambda content, seed=seed: flip_bytes(content, seed) for seed in range(9)},  # type: ignore[misc]
}


@pytest.fixture
def batch_cli(audiocli: CommandLine) -> CommandLine:
    """A command line with a directory of two recordings that were transcribed."""
    directory = audiocli.directory / "records"
    directory.mkdir()
    for name in ("a", "b"):
        (directory / f"{name}.wav").write_bytes(SPEECH + name.encode())
    assert audiocli("transcribe", directory).code == 0
    return audiocli


@pytest.mark.parametrize("name", MANIFEST_DAMAGES)
def test_damaged_manifest_is_rebuilt_without_a_request(batch_cli: CommandLine, name: str) -> None:
    [path] = batch_cli.directory.rglob("manifest.sqlite3")
    replace_database(path, MANIFEST_DAMAGES[name](checkpoint(path)))

    r = batch_cli("transcribe", batch_cli.directory / "records")

    assert r.code in (0, 3) and not r.posts, r.err
    if not name.startswith("bytes"):
        assert r.code == 0 and "the manifest is damaged" in r.err
        assert list(path.parent.glob("manifest.sqlite3.damaged-*"))
