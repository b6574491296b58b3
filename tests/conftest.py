"""The front door for tests: a command line in; exit code, output, requests and ledger out. Nothing is patched."""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from audiocli.app import main
from audiocli.context import AppContext
from tests.gateway import KEYS, LoopbackGateway, Seen

# No model that the tests use comes to its end soon after this day.
TODAY = date(2026, 10, 1)


class Stream(io.BytesIO):
    """An in-memory stream that may claim to be a terminal."""

    def __init__(self, content: bytes = b"", *, is_terminal: bool = False) -> None:
        super().__init__(content)
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@dataclass(frozen=True)
class Result:
    """What one command line did."""

    code: int
    out: bytes
    err: str
    requests: list[Seen]
    ledger: list[dict[str, Any]]
    waits_s: list[float]

    @property
    def posts(self) -> list[Seen]:
        """The requests for work, without the questions about what it has cost."""
        return [seen for seen in self.requests if seen.method == "POST"]

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def err_json(self) -> Any:
        return json.loads(self.err)


@dataclass
class CommandLine:
    """Runs command lines against the loopback gateway, in a world of their own below `folder`."""

    folder: Path
    gateway: LoopbackGateway
    variables: dict[str, str] = field(default_factory=dict)

    def __call__(
        self,
        *argv: str | Path,
        stdin: bytes | None = None,
        terminal: str = "",
        stdout: Any = None,
        variables: dict[str, str] | None = None,
    ) -> Result:
        """Run one command line. `terminal` names the streams that are terminals; stdin None is an empty pipe."""
        requests_before, entries_before = len(self.gateway.requests), len(self.entries())
        out = stdout if stdout is not None else Stream(is_terminal="out" in terminal)
        err = Stream(is_terminal="err" in terminal)
        waits_s: list[float] = []

        async def sleep(seconds: float) -> None:
            waits_s.append(seconds)

        env = AppContext(
            variables={**self.variables, **(variables or {})},
            stdin=Stream(stdin or b"", is_terminal="in" in terminal),
            stdout=out,
            stderr=err,
            sleep=sleep,
            today=TODAY,
        )
        code = main([str(word) for word in argv], env)
        return Result(
            code=code,
            out=out.getvalue() if isinstance(out, Stream) else b"",
            err=err.getvalue().decode(),
            requests=self.gateway.requests[requests_before:],
            ledger=self.entries()[entries_before:],
            waits_s=waits_s,
        )

    @property
    def ledger_path(self) -> Path:
        return Path(self.variables["AUDIOCLI_LEDGER"])

    def entries(self) -> list[dict[str, Any]]:
        """Every entry of the ledger, read with sqlite3 alone; a file that is no ledger, or a damaged one, has none."""
        if not self.ledger_path.is_file() or self.ledger_path.read_bytes()[:6] != b"SQLite":
            return []
        database = sqlite3.connect(f"file:{self.ledger_path}?mode=ro", uri=True)
        try:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute("SELECT * FROM entries ORDER BY id")]
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_CORRUPT:
                raise
            return []
        finally:
            database.close()

    def config(self, text: str) -> None:
        path = Path(self.variables["XDG_CONFIG_HOME"]) / "audiocli" / "config.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


@pytest.fixture
def gateway() -> Iterator[LoopbackGateway]:
    with LoopbackGateway() as running:
        yield running


@pytest.fixture
def audiocli(tmp_path: Path, gateway: LoopbackGateway) -> CommandLine:
    """A world with an OpenRouter key, the loopback gateway behind every base URL, and folders below tmp_path."""
    world = tmp_path / "world"
    return CommandLine(
        folder=tmp_path,
        gateway=gateway,
        variables={
            "PATH": str(world / "bin"),
            "HOME": str(world),
            "XDG_CONFIG_HOME": str(world / "config"),
            "XDG_DATA_HOME": str(world / "data"),
            "XDG_CACHE_HOME": str(world / "cache"),
            "AUDIOCLI_LEDGER": str(world / "data" / "ledger.sqlite3"),
            "OPENROUTER_API_KEY": KEYS["openrouter"],
            "OPENROUTER_BASE_URL": gateway.base_url("openrouter"),
            "OPENAI_BASE_URL": gateway.base_url("openai"),
            "THEROUTER_BASE_URL": gateway.base_url("therouter"),
            "AROUTER_BASE_URL": gateway.base_url("arouter"),
            "GROQ_BASE_URL": gateway.base_url("groq"),
        },
    )
