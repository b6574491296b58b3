"""Fixtures that run command lines against the mock gateway, without patching audiocli."""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from audiocli.app import main
from audiocli.context import AppContext
from audiocli.mock import KEYS, MockGateway, RecordedRequest
from tests.gateway_contract import SPEECH, configure_all_gateways
from tests.pyav_codec import CODEC

# No model of the tests is shut down within the notice period after this day.
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
    """The result of one command line."""

    code: int
    out: bytes
    err: str
    requests: list[RecordedRequest]
    ledger: list[dict[str, Any]]
    waits_s: list[float]

    @property
    def posts(self) -> list[RecordedRequest]:
        """The POST requests, without cost lookups."""
        return [request for request in self.requests if request.method == "POST"]

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
    """Runs command lines against the mock gateway, with configuration, data and cache below `directory`."""

    directory: Path
    gateway: MockGateway
    variables: dict[str, str] = field(default_factory=dict)
    today: date = TODAY

    def __call__(
        self,
        *argv: str | Path,
        stdin: bytes | None = None,
        terminal: str = "",
        stdout: Any = None,
        stderr: Stream | None = None,
        variables: dict[str, str] | None = None,
    ) -> Result:
        """Run one command line. `terminal` lists the streams that are terminals: in, out, err."""
        request_count, entry_count = len(self.gateway.requests), len(self.read_ledger_entries())
        out = stdout if stdout is not None else Stream(is_terminal="out" in terminal)
        err = stderr if stderr is not None else Stream(is_terminal="err" in terminal)
        waits_s: list[float] = []

        async def sleep(seconds: float) -> None:
            waits_s.append(seconds)

        app = AppContext(
            variables={**self.variables, **(variables or {})},
            stdin=Stream(stdin or b"", is_terminal="in" in terminal),
            stdout=out,
            stderr=err,
            sleep=sleep,
            today=self.today,
        )
        code = main([str(argument) for argument in argv], app)
        return Result(
            code=code,
            out=out.getvalue() if isinstance(out, Stream) else b"",
            err=err.getvalue().decode(),
            requests=self.gateway.requests[request_count:],
            ledger=self.read_ledger_entries()[entry_count:],
            waits_s=waits_s,
        )

    @property
    def ledger_path(self) -> Path:
        return Path(self.variables["AUDIOCLI_LEDGER"])

    def read_ledger_entries(self) -> list[dict[str, Any]]:
        """Read all ledger entries with sqlite3. A file that is not a ledger or is corrupt has no entries."""
        if not self.ledger_path.is_file() or self.ledger_path.read_bytes()[:6] != b"SQLite":
            return []
        database = sqlite3.connect(f"file:{self.ledger_path}?mode=ro", uri=True)
        try:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute("SELECT * FROM entries ORDER BY id")]
        except sqlite3.DatabaseError as error:
            # Without a code: a text that is not UTF-8.
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) != sqlite3.SQLITE_CORRUPT:
                raise
            return []
        except UnicodeDecodeError:  # the name of a column
            return []
        finally:
            database.close()

    def expand(self, arguments: Iterable[str]) -> list[str]:
        """Return arguments in which `{path}` is the directory."""
        return [argument.replace("{path}", str(self.directory)) for argument in arguments]

    def write_config(self, text: str) -> None:
        """Write the configuration file."""
        path = Path(self.variables["XDG_CONFIG_HOME"]) / "audiocli" / "config.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


@pytest.fixture(scope="session", autouse=True)
def temporary_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The temporary directory of the tests, so that none of them writes to the one of the machine."""
    directory = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(directory))
        patch.setattr("tempfile.tempdir", None)
        yield directory


@pytest.fixture
def gateway() -> Iterator[MockGateway]:
    with MockGateway(CODEC) as mock_gateway:
        yield mock_gateway


@pytest.fixture
def audiocli(tmp_path: Path, temporary_directory: Path, gateway: MockGateway) -> CommandLine:
    """A command line with an OpenRouter key, the mock gateway at every base URL, and directories below tmp_path."""
    home = tmp_path / "world"
    return CommandLine(
        directory=tmp_path,
        gateway=gateway,
        variables={
            "PATH": str(home / "bin"),
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_DATA_HOME": str(home / "data"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "TMPDIR": str(temporary_directory),
            "AUDIOCLI_LEDGER": str(home / "data" / "ledger.sqlite3"),
            "OPENROUTER_API_KEY": KEYS["openrouter"],
            "OPENROUTER_BASE_URL": gateway.base_url("openrouter"),
            "OPENAI_BASE_URL": gateway.base_url("openai"),
            "THEROUTER_BASE_URL": gateway.base_url("therouter"),
            "AROUTER_BASE_URL": gateway.base_url("arouter"),
            "GROQ_BASE_URL": gateway.base_url("groq"),
        },
    )


@pytest.fixture
def all_gateways_cli(audiocli: CommandLine) -> CommandLine:
    """The command line with a key for every gateway, and the recording `talk.wav`."""
    configure_all_gateways(audiocli)
    (audiocli.directory / "talk.wav").write_bytes(SPEECH)
    return audiocli
