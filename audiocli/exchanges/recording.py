"""The files of a recording: their names, and how exchanges and runs are written as JSON and read.

A recording comes from another person, so everything that is read is checked: a damaged file is an error of the user,
and links are not followed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from ..errors import UsageError
from ..private_files import open_regular_file, read_regular_file
from ..types.json import Json
from ..types.ledger import UnreconciledEntry
from .matching import BodyPart, RequestKey

# The version of the format. A reader refuses newer ones.
VERSION = 1
MARKER_NAME = "recording.json"
README_NAME = "README.txt"
LOG_NAME = "log.txt"
EXCHANGE_NAME = re.compile(r"\d{4,9}\.json")
RUN_NAME = re.compile(r"run-\d{4,9}\.json")
MAX_JSON_BYTES = 32 * 1024 * 1024
MAX_EXCHANGES = 100_000
# The error of an exchange that ended because its command was interrupted.
INTERRUPTED = "interrupted"
ERROR_CODES = ("unreachable", "cut_off", "bad_answer", INTERRUPTED)


class Failure(NamedTuple):
    """Why an exchange failed. `code` is one of `ERROR_CODES`; `after_s` counts from the start of the exchange."""

    code: str
    message: str
    hint: str | None
    after_s: float


class RecordedResponse(NamedTuple):
    """A response. `blocks` are the times since the start of the exchange and the sizes of what arrived."""

    status: int
    headers: Mapping[str, str]
    head_s: float
    blocks: Sequence[tuple[float, int]] = ()
    is_complete: bool = False

    @property
    def body_bytes(self) -> int:
        return sum(size_bytes for _, size_bytes in self.blocks)


class Exchange(NamedTuple):
    """One request with its response, or with the reason why there is none.

    Attributes:
        number: Position in the recording, from 1, in the order in which requests were sent.
        run: Number of the command that sent it.
        origin: Scheme and host of the URL.
        body_bytes: Size of the request body; None without one.
        started_s: Seconds since the start of the command.
    """

    number: int
    run: int
    key: RequestKey
    origin: str
    headers: Mapping[str, str]
    content_type: str | None
    body_bytes: int | None
    started_s: float
    response: RecordedResponse | None = None
    failure: Failure | None = None


class RecordedGateway(NamedTuple):
    """A gateway that was configured when a command was recorded."""

    name: str
    dialect: str
    base_url: str
    has_key: bool


class Run(NamedTuple):
    """A command that recorded. `arguments_sha256` tells whether the same command is replayed.

    `jobs` are the background jobs that it asked for, as stored in the ledger. `entries` are the ledger entries whose
    costs it requested.
    """

    number: int
    command: str
    arguments_sha256: str
    audiocli_version: str
    gateways: tuple[RecordedGateway, ...]
    jobs: tuple[Mapping[str, Json], ...] = ()
    entries: tuple[UnreconciledEntry, ...] = ()


def build_exchange_path(directory: Path, number: int) -> Path:
    return directory / f"{number:04}.json"


def build_run_path(directory: Path, number: int) -> Path:
    return directory / f"run-{number:04}.json"


def build_request_path(directory: Path, number: int) -> Path:
    return directory / f"{number:04}.request"


def build_response_path(directory: Path, number: int) -> Path:
    return directory / f"{number:04}.response"


# --- writing ---------------------------------------------------------------------------------------------------------


def encode_exchange(exchange: Exchange) -> bytes:
    """Encode an exchange as a file of a recording."""
    response, failure = exchange.response, exchange.failure
    return _encode(
        {
            "version": VERSION,
            "number": exchange.number,
            "run": exchange.run,
            "started_s": round(exchange.started_s, 4),
            "request": {
                "method": exchange.key.method,
                "origin": exchange.origin,
                "target": exchange.key.target,
                "headers": dict(exchange.headers),
                "content_type": exchange.content_type,
                "body_bytes": exchange.body_bytes,
                "parts": [{"name": part.name, "sha256": part.sha256} for part in exchange.key.parts],
            },
            "response": None
            if response is None
            else {
                "status": response.status,
                "headers": dict(response.headers),
                "head_s": round(response.head_s, 4),
                "blocks": [[round(at_s, 4), size_bytes] for at_s, size_bytes in response.blocks],
                "body_bytes": response.body_bytes,
                "is_complete": response.is_complete,
            },
            "error": None if failure is None else {**failure._asdict(), "after_s": round(failure.after_s, 4)},
        }
    )


def encode_run(run: Run) -> bytes:
    """Encode a run as a file of a recording."""
    gateways: list[Json] = [gateway._asdict() for gateway in run.gateways]
    return _encode(
        {
            "version": VERSION,
            **run._asdict(),
            "gateways": gateways,
            "jobs": [dict(job) for job in run.jobs],
            "entries": [entry._asdict() for entry in run.entries],
        }
    )


def _encode(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, indent=1).encode() + b"\n"


# --- reading ---------------------------------------------------------------------------------------------------------


def is_recording(directory: Path) -> bool:
    """Return whether a directory is a recording."""
    return (directory / MARKER_NAME).is_file()


def check_version(directory: Path) -> None:
    """Check that a directory is a recording that this version reads. Raises: UsageError."""
    if not is_recording(directory):
        raise UsageError(f"{directory} is not a recording", hint="make one with --record DIR")
    _read_document(directory / MARKER_NAME)


def read_marker(directory: Path) -> dict[str, Json]:
    """Read the file that marks a recording. Raises: UsageError: It is damaged, or is a link."""
    return dict(_read_document(directory / MARKER_NAME))


def read_log(directory: Path, max_bytes: int) -> bytes:
    """Read the end of the log; empty if there is none. Raises: UsageError: It is a link, or cannot be read."""
    path = directory / LOG_NAME
    try:
        _check_body(path, None)
        with open_regular_file(path) as file:
            file.seek(max(0, path.stat().st_size - max_bytes))
            return file.read(max_bytes)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def read_exchanges(directory: Path) -> Iterator[Exchange]:
    """Read the exchanges of a recording in order. Raises: UsageError: A file is damaged or missing, or is a link."""
    names = _list_names(directory, EXCHANGE_NAME)
    if len(names) > MAX_EXCHANGES:
        raise UsageError(f"{directory} has more than {MAX_EXCHANGES} exchanges")
    for name in names:
        if (directory / name).lstat().st_size == 0:
            continue  # the command was killed before it wrote the request
        exchange = _parse_exchange(_Fields(directory / name, _read_document(directory / name)))
        if int(name.removesuffix(".json")) != exchange.number:
            raise UsageError(f"{directory / name}: the number of the exchange is {exchange.number}")
        _check_body(build_request_path(directory, exchange.number), exchange.body_bytes)
        response = exchange.response
        _check_body(build_response_path(directory, exchange.number), response and response.body_bytes)
        yield exchange


def read_runs(directory: Path) -> list[Run]:
    """Read the runs of a recording in order. Raises: UsageError: A file is damaged, or is a link."""
    return [_parse_run(_Fields(path, _read_document(path))) for path in _list_paths(directory, RUN_NAME)]


def _list_paths(directory: Path, pattern: re.Pattern[str]) -> list[Path]:
    return [directory / name for name in _list_names(directory, pattern)]


def _list_names(directory: Path, pattern: re.Pattern[str]) -> list[str]:
    try:
        names = [path.name for path in directory.iterdir() if pattern.fullmatch(path.name)]
    except OSError as error:
        raise UsageError(f"cannot read the recording {directory}: {error.strerror}") from error
    return sorted(names, key=lambda name: (len(name), name))


def _read_document(path: Path) -> Mapping[str, Any]:
    """Read a JSON file of a recording. Raises: UsageError: It is damaged, too large, a link, or of a newer version."""
    if path.is_symlink():
        raise UsageError(f"{path} is a symbolic link, which a recording cannot have")
    try:
        document = json.loads(read_regular_file(path, MAX_JSON_BYTES))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid JSON") from error
    fields = _Fields(path, document)
    version = fields.get_int("version")
    if version > VERSION:
        raise UsageError(
            f"{path} was recorded by a newer version of audiocli (format {version}, this one reads {VERSION})",
            hint="update audiocli",
        )
    return fields.values


def _check_body(path: Path, size_bytes: int | None) -> None:
    """Check that a body is a regular file of the recorded size. Raises: UsageError: It is not."""
    try:
        if path.is_symlink():
            raise UsageError(f"{path} is a symbolic link, which a recording cannot have")
        if size_bytes is None:
            return
        if not path.is_file():
            raise UsageError(f"{path} is missing, or not a regular file")
        found_bytes = path.stat().st_size
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if found_bytes != size_bytes:
        raise UsageError(f"{path} has {found_bytes} bytes instead of {size_bytes}")


class _Fields:
    """The fields of a JSON object. Every method raises UsageError if the field is missing or has another type."""

    def __init__(self, path: Path, values: object, name: str = "") -> None:
        self._path = path
        self._name = name
        if not isinstance(values, dict):
            self._fail("", "an object")
        self.values: dict[str, Any] = values

    def _fail(self, name: str, expected: str) -> NoReturn:
        where = ".".join(filter(None, (self._name, name))) or "the content"
        raise UsageError(f"{self._path} is damaged: {where} must be {expected}")

    def get_int(self, name: str, *, minimum: int = 0, maximum: int = 2**53) -> int:
        value = self.values.get(name)
        if type(value) is not int or not minimum <= value <= maximum:
            self._fail(name, f"a number from {minimum}")
        return value

    def get_seconds(self, name: str) -> float:
        return self._check_seconds(name, self.values.get(name))

    def _check_seconds(self, name: str, value: object) -> float:
        if type(value) not in (int, float) or not isinstance(value, int | float):
            self._fail(name, "a number of seconds")
        if not 0 <= value <= 1e9:  # nor NaN
            self._fail(name, "a number of seconds")
        return float(value)

    def get_text(self, name: str) -> str:
        value = self.values.get(name)
        if not isinstance(value, str):
            self._fail(name, "a string")
        return value

    def get_optional_text(self, name: str) -> str | None:
        return None if self.values.get(name) is None else self.get_text(name)

    def get_bool(self, name: str) -> bool:
        value = self.values.get(name)
        if not isinstance(value, bool):
            self._fail(name, "true or false")
        return value

    def get_fields(self, name: str) -> _Fields:
        return _Fields(self._path, self.values.get(name), ".".join(filter(None, (self._name, name))))

    def get_optional_fields(self, name: str) -> _Fields | None:
        return None if self.values.get(name) is None else self.get_fields(name)

    def get_list(self, name: str) -> list[Any]:
        value = self.values.get(name, [])
        if not isinstance(value, list):
            self._fail(name, "a list")
        return value

    def get_objects(self, name: str) -> list[_Fields]:
        return [_Fields(self._path, value, f"{name}[{index}]") for index, value in enumerate(self.get_list(name))]

    def get_headers(self) -> dict[str, str]:
        headers = self.get_fields("headers")
        return {name.lower(): headers.get_text(name) for name in headers.values}

    def get_blocks(self) -> list[tuple[float, int]]:
        blocks = []
        for value in self.get_list("blocks"):
            if not isinstance(value, list) or len(value) != 2 or type(value[1]) is not int or value[1] < 0:
                self._fail("blocks", "pairs of seconds and bytes")
            blocks.append((self._check_seconds("blocks", value[0]), value[1]))
        return blocks


def _parse_exchange(fields: _Fields) -> Exchange:
    request, response, error = (
        fields.get_fields("request"),
        fields.get_optional_fields("response"),
        fields.get_optional_fields("error"),
    )
    parts = [BodyPart(part.get_text("name"), part.get_text("sha256")) for part in request.get_objects("parts")]
    return Exchange(
        number=fields.get_int("number", minimum=1),
        run=fields.get_int("run"),
        key=RequestKey(request.get_text("method"), request.get_text("target"), tuple(sorted(parts))),
        origin=request.get_text("origin"),
        headers=request.get_headers(),
        content_type=request.get_optional_text("content_type"),
        body_bytes=None if request.values.get("body_bytes") is None else request.get_int("body_bytes"),
        started_s=fields.get_seconds("started_s"),
        response=None if response is None else _parse_response(response),
        failure=None if error is None else _parse_failure(error),
    )


def _parse_response(fields: _Fields) -> RecordedResponse:
    response = RecordedResponse(
        status=fields.get_int("status", minimum=100, maximum=999),
        headers=fields.get_headers(),
        head_s=fields.get_seconds("head_s"),
        blocks=fields.get_blocks(),
        is_complete=fields.get_bool("is_complete"),
    )
    fields.get_int("body_bytes", minimum=response.body_bytes, maximum=response.body_bytes)
    return response


def _parse_failure(fields: _Fields) -> Failure:
    return Failure(
        fields.get_text("code"),
        fields.get_text("message"),
        fields.get_optional_text("hint"),
        fields.get_seconds("after_s"),
    )


def _parse_run(fields: _Fields) -> Run:
    return Run(
        number=fields.get_int("number"),
        command=fields.get_text("command"),
        arguments_sha256=fields.get_text("arguments_sha256"),
        audiocli_version=fields.get_text("audiocli_version"),
        gateways=tuple(
            RecordedGateway(
                gateway.get_text("name"),
                gateway.get_text("dialect"),
                gateway.get_text("base_url"),
                gateway.get_bool("has_key"),
            )
            for gateway in fields.get_objects("gateways")
        ),
        jobs=tuple(job.values for job in fields.get_objects("jobs")),
        entries=tuple(
            UnreconciledEntry(
                entry.get_int("id"),
                entry.get_text("gateway"),
                entry.get_text("model"),
                entry.get_text("generation_id"),
                None if entry.values.get("cost_nanousd") is None else entry.get_int("cost_nanousd"),
            )
            for entry in fields.get_objects("entries")
        ),
    )


# What `README_NAME` says.
README = """\
This directory has the requests that audiocli sent to a gateway, and the responses.

It contains your texts, your recordings and the transcripts: 0001.request and
0001.response are the bodies of the first exchange. API keys, cookies, passwords
and the signatures of links were removed. Read the files before you share them.

Run the same command again without a network, at no cost, with --replay instead
of --record:

  audiocli COMMAND ... --replay DIRECTORY

"""
