"""`audiocli report`: write an archive for a bug report. Nothing is sent, and no key is in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, NamedTuple

import typer

from ..context import AppContext
from ..errors import AudiocliError, OutputError, UsageError
from .options import GeneralOptions, Output, open_app, with_options

if TYPE_CHECKING:
    from ..console import Console
    from ..exchanges.secret_remover import SecretRemover
    from ..types.json import Json

MAX_LEDGER_ENTRIES = 100
MAX_EXCHANGES = 50
MAX_LOG_BYTES = 1_000_000
BLOCK_BYTES = 1024 * 1024
# The date of every file in the archive, so that the same content gives the same archive.
ZIP_TIME = (1980, 1, 1, 0, 0, 0)


class ReportOptions(NamedTuple):
    """Options of `audiocli report`."""

    recording: Annotated[
        str | None, typer.Argument(metavar="[DIR]", help="Recording to include, made with --record DIR.")
    ] = None
    with_bodies: Annotated[
        bool,
        typer.Option("--with-bodies", help="Include texts, audio and transcripts of the recording."),
    ] = False
    output: Output = None
    assume_yes: Annotated[bool, typer.Option("--yes", "-y", help="Skip the confirmation.")] = False
    general: GeneralOptions = GeneralOptions()


class ReportFile(NamedTuple):
    """A file of the archive: its content, or where it is read from in blocks."""

    name: str
    description: str
    content: bytes = b""
    path: Path | None = None

    @property
    def size_bytes(self) -> int:
        return len(self.content) if self.path is None else self.path.stat().st_size

    def iter_blocks(self) -> Iterator[bytes]:
        """Yield the content. Raises: OSError."""
        if self.path is None:
            yield self.content
            return
        from ..private_files import open_regular_file

        with open_regular_file(self.path) as source:
            while block := source.read(BLOCK_BYTES):
                yield block


@with_options
def report(ctx: typer.Context, options: ReportOptions) -> None:
    """Write an archive for a bug report, without keys."""
    app, console = open_app(ctx, options.general, quiet_json=True)
    run(app, console, options)


def run(app: AppContext, console: Console, options: ReportOptions) -> None:
    """Show what the archive contains, ask on a terminal, and write it.

    Raises:
        UsageError: The user declined, or the recording or the name of the archive cannot be used.
        OutputError: The archive cannot be written.
    """
    from ..console import format_size
    from .prompts import confirm

    if options.with_bodies and options.recording is None:
        raise UsageError("--with-bodies needs a recording", hint="name its directory: audiocli report DIR")
    path = _choose_path(app, options.output)
    files = list(_list_files(app, console, options))
    if not options.general.as_json:
        rows = [[file.name, format_size(file.size_bytes), file.description] for file in files]
        console.write_table(["file", "size", "content"], rows, numeric=[False, True, False])
        is_interactive = app.stdin.isatty() and app.stderr.isatty()
        if is_interactive and not options.assume_yes and not confirm(app, f"Write {path}?", default=True):
            raise UsageError("not confirmed; nothing was written")
    _write_archive(path, files)
    if options.general.as_json:
        listed: list[Json] = [{"name": file.name, "bytes": file.size_bytes} for file in files]
        console.write_json({"ok": True, "command": "report", "output": str(path), "files": listed, "warnings": []})
    else:
        console.result(str(path), format_size(path.stat().st_size))
        console.hint("read the files before you share the archive")


def _choose_path(app: AppContext, output: str | None) -> Path:
    """Return the path of the archive. Raises: UsageError: It is not a .zip file."""
    if output is None:
        return Path(f"audiocli-report-{app.now():%Y%m%d-%H%M%S}.zip")
    path = Path(output)
    if path.suffix.lower() != ".zip":
        raise UsageError(f"-o {output}: the archive is a .zip file", hint="use a name that ends in .zip")
    return path


def _list_files(app: AppContext, console: Console, options: ReportOptions) -> Iterator[ReportFile]:
    """Yield the files of the archive. What cannot be read is replaced by the reason.

    Raises:
        UsageError: The recording cannot be used.
    """
    from ..exchanges.secret_remover import SecretRemover, list_gateway_secrets
    from .config import list_settings, run_checks

    try:
        remover = SecretRemover(list_gateway_secrets(app.settings.gateways))
    except AudiocliError:  # the checks say why
        remover = SecretRemover()

    def list_checks() -> Json:
        return [check.build_document() for check in run_checks(app, console, is_offline=True)]

    def list_configuration() -> Json:
        return [{"name": name, "value": value, "source": source} for name, value, source in list_settings(app)]

    sources: tuple[tuple[str, str, Callable[[], Json]], ...] = (
        ("system.json", "versions, platform, and names of environment variables", lambda: _describe_system(app)),
        ("config.json", "configuration, without keys", list_configuration),
        ("checks.json", "result of config check, without a request", list_checks),
        ("ledger.json", f"the last {MAX_LEDGER_ENTRIES} requests and their errors", lambda: _list_entries(app)),
    )
    for name, description, build in sources:
        yield ReportFile(name, description, _encode(_try(build), remover))
    if options.recording is not None:
        yield from _list_recording(Path(options.recording), remover, with_bodies=options.with_bodies)


def _try(build: Callable[[], Json]) -> Json:
    """Return what a function builds, or the error that it raises: a report is made when something is broken."""
    try:
        return build()
    except AudiocliError as error:
        return {"error": error.message}


def _encode(document: Json, remover: SecretRemover) -> bytes:
    return remover.remove(json.dumps(document, indent=1).encode(), is_error=True) + b"\n"


def _describe_system(app: AppContext) -> Json:
    import platform
    import sys

    from .. import __version__
    from .help_topics import ENVIRONMENT

    known = {name for names, _ in ENVIRONMENT for name in names.split(", ")} | {"LANG", "LC_ALL"}
    suffixes = ("_API_KEY", "_BASE_URL", "_PROXY")
    variables: list[Json] = [
        *sorted(name for name in app.variables if name in known or name.upper().endswith(suffixes))
    ]
    return {
        "audiocli": __version__,
        "python": sys.version,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "packages": _list_packages(),
        "variables_that_are_set": variables,
    }


def _list_packages() -> dict[str, Json]:
    """Return the versions of the packages that audiocli may use and that are installed."""
    import re
    from importlib import metadata

    try:
        requirements = metadata.requires("audiocli") or []
    except metadata.PackageNotFoundError:
        return {}
    versions: dict[str, Json] = {}
    for requirement in requirements:
        match = re.match(r"[\w.-]+", requirement)
        if match is None:
            continue
        try:
            versions[match[0]] = metadata.version(match[0])
        except metadata.PackageNotFoundError:
            continue
    return versions


def _list_entries(app: AppContext) -> Json:
    from ..ledger.reports import list_entries
    from .usage import build_entry_document

    entries = list_entries(app.ledger, since=None, until=None, limit=MAX_LEDGER_ENTRIES)
    return [build_entry_document(entry, utc=True) for entry in entries]


def _list_recording(directory: Path, remover: SecretRemover, *, with_bodies: bool) -> Iterator[ReportFile]:
    """Yield the files of a recording. Without the bodies, their hashes are left out too: a short text can be guessed.

    Raises:
        UsageError: The recording is damaged.
    """
    from ..exchanges.recording import (
        LOG_NAME,
        MARKER_NAME,
        build_request_path,
        build_response_path,
        check_version,
        encode_exchange,
        encode_run,
        read_exchanges,
        read_log,
        read_marker,
        read_runs,
    )

    check_version(directory)
    yield ReportFile(f"recording/{MARKER_NAME}", "version of the recording", _encode(read_marker(directory), remover))
    for run in read_runs(directory):
        if not with_bodies:
            run = run._replace(arguments_sha256="")
        yield ReportFile(f"recording/run-{run.number:04}.json", "command and gateways", remover.remove(encode_run(run)))
    if log := read_log(directory, MAX_LOG_BYTES):
        yield ReportFile(f"recording/{LOG_NAME}", "debug messages", remover.remove(log, is_error=True))
    exchanges = list(read_exchanges(directory))[-MAX_EXCHANGES:]
    for exchange in exchanges:
        if not with_bodies:
            parts = tuple(part._replace(sha256="") for part in exchange.key.parts)
            exchange = exchange._replace(key=exchange.key._replace(parts=parts))
        request = f"{exchange.key.method} {exchange.key.target}"
        yield ReportFile(f"recording/{exchange.number:04}.json", request, remover.remove(encode_exchange(exchange)))
        if not with_bodies:
            continue
        if exchange.body_bytes is not None:
            path = build_request_path(directory, exchange.number)
            yield ReportFile(f"recording/{path.name}", "request body", path=path)
        if exchange.response is not None:
            path = build_response_path(directory, exchange.number)
            yield ReportFile(f"recording/{path.name}", "response body", path=path)


def _write_archive(path: Path, files: list[ReportFile]) -> None:
    """Write the archive, complete or not at all. Raises: OutputError."""
    from ..private_files import build_part_path, create_private_file, require_regular_file

    part_path = build_part_path(path)
    try:
        require_regular_file(path)
        try:
            with create_private_file(part_path) as file:
                _write_zip(file, files)
            part_path.replace(path)
        except BaseException:
            part_path.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def _write_zip(target: BinaryIO, files: list[ReportFile]) -> None:
    import zipfile

    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            entry = zipfile.ZipInfo(file.name, ZIP_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w") as member:
                for block in file.iter_blocks():
                    member.write(block)
