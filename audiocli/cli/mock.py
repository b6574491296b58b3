"""`audiocli mock`: run a command, or serve, with a mock gateway and with stores of its own."""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ..context import AppContext
from ..errors import OutputError, UsageError, suggest
from .options import GeneralOptions, open_app, validate_utf8, with_options

if TYPE_CHECKING:
    from ..console import Console
    from ..mock import Access, FaultSpec, MockGateway, ResponseScript, SpeechEngine
    from .mock_environment import Environment

DIALECTS = ("openrouter", "openai", "therouter", "arouter", "groq", "plain")
SHELLS = ("sh", "fish")
ENGINES = ("local",)
MIN_KEY_CHARACTERS = 16
MAX_LATENCY_S = 60.0
REMOTE_HOST = "0.0.0.0"
# How often the server looks for signals.
SIGNAL_INTERVAL_S = 0.5


class MockOptions(NamedTuple):
    """Options of `audiocli mock`."""

    command: Annotated[list[str] | None, typer.Argument(metavar="[COMMAND]...", help="Command to run, after --.")] = (
        None
    )
    port: Annotated[int, typer.Option("--port", metavar="N", help="Port to listen on; 0 is a free one.")] = 0
    dialects: Annotated[
        list[str] | None,
        typer.Option("--dialect", metavar="|".join(DIALECTS), help="Gateway that gets a key; repeat to add more."),
    ] = None
    latency_s: Annotated[float, typer.Option("--latency", metavar="S", help="Delay before each response.")] = 0.0
    faults: Annotated[
        list[str] | None,
        typer.Option("--fault", metavar="SPEC", help="Fault such as 429:2,retry-after=1 or cut:1; repeat to add more."),
    ] = None
    script: Annotated[
        Path | None, typer.Option("--script", metavar="FILE", help="Rules that choose responses (TOML or JSON Lines).")
    ] = None
    journal: Annotated[
        Path | None, typer.Option("--journal", metavar="FILE", help="Append a JSON line for each exchange.")
    ] = None
    engine: Annotated[
        str | None, typer.Option("--engine", metavar="NAME", help="Serve the local engines (local) at /v1.")
    ] = None
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Listen on all addresses; needs a key of 16 characters or more.")
    ] = False
    key: Annotated[
        str | None,
        typer.Option(
            "--key", metavar="KEY", help="Key that every request must have; other users can see it in the process list."
        ),
    ] = None
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep", metavar="DIR", help="Put config, ledger and caches into this new directory, and keep it."
        ),
    ] = None
    shell: Annotated[str, typer.Option("--shell", metavar="|".join(SHELLS), help="Shell of the printed variables.")] = (
        "sh"
    )
    general: GeneralOptions = GeneralOptions()


@with_options
def mock(ctx: typer.Context, options: MockOptions) -> int:
    """Run a command or a server with a mock gateway that costs nothing."""
    app, console = open_app(ctx, options.general)
    return run(app, console, options)


def run(app: AppContext, console: Console, options: MockOptions) -> int:
    """Run the command with the mock gateway and return its exit code. Without one, serve until a signal.

    Raises:
        UsageError: An option is invalid, or the port or the command cannot be used.
        OutputError: The journal or the directory cannot be written.
    """
    key = _validate_options(app, options)
    with ExitStack() as cleanup:
        directory = cleanup.enter_context(_open_directory(options.keep))
        engine = _open_engine(app, console, directory, cleanup) if options.engine is not None else None
        gateway = _open_gateway(options, key, engine, cleanup)
        environment = _build_environment(app, gateway, directory, options, key)
        if not options.command:
            return _serve(console, gateway, environment, directory, options)
        from ..processes import run_command

        is_terminal = app.stdin.isatty() or app.stdout.isatty() or app.stderr.isatty()
        try:
            return run_command(
                options.command,
                environment=environment.apply(app.child_variables),
                forward_interrupt=not is_terminal,
            )
        except OSError as error:
            raise UsageError(f"cannot run {options.command[0]!r}: {error.strerror or error}") from error


def _validate_options(app: AppContext, options: MockOptions) -> str | None:
    """Return the key that every request needs. Raises: UsageError: An option is invalid."""
    from .mock_environment import KEY_VARIABLE

    if options.command and "--" not in app.argv:
        raise UsageError(
            f"unexpected argument {options.command[0]!r}", hint="put -- before the command: audiocli mock -- COMMAND"
        )
    if options.command and options.general.as_json:
        raise UsageError("--json has no effect with a command, whose output goes to stdout")
    if not 0 <= options.port <= 65_535:
        raise UsageError(f"--port {options.port}: must be between 0 and 65535")
    if not 0 <= options.latency_s <= MAX_LATENCY_S:
        raise UsageError(f"--latency {options.latency_s:g}: must be between 0 and {MAX_LATENCY_S:g} seconds")
    for flag, values, known in (
        ("--dialect", options.dialects or (), DIALECTS),
        ("--shell", (options.shell,), SHELLS),
        ("--engine", (options.engine,) if options.engine is not None else (), ENGINES),
    ):
        for value in values:
            if value not in known:
                raise UsageError(f"{flag} {value}: unknown name{suggest(value, known)}", hint=f"use {', '.join(known)}")
    if options.engine is not None and options.dialects:
        raise UsageError("--engine cannot be used with --dialect: the engine is served in the openai dialect")
    key = validate_utf8(options.key or app.variables.get(KEY_VARIABLE), "--key")
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise UsageError("--key: must be printable ASCII without spaces")
    if options.allow_remote and (key is None or len(key) < MIN_KEY_CHARACTERS):
        raise UsageError(
            f"--allow-remote needs a key of {MIN_KEY_CHARACTERS} characters or more", hint=f"set {KEY_VARIABLE}"
        )
    return key


@contextmanager
def _open_directory(keep: Path | None) -> Iterator[Path]:
    """Yield a new private directory for the stores, which is removed afterwards unless the user keeps it."""
    if keep is not None:
        path = keep.expanduser().absolute()
        try:
            path.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            if not path.is_dir() or any(path.iterdir()):
                raise UsageError(f"--keep {keep}: exists and is not an empty directory") from None
        except OSError as error:
            raise OutputError(f"cannot create {keep}: {error.strerror}") from error
        yield path
        return
    try:
        path = Path(tempfile.mkdtemp(prefix="audiocli-mock-"))
    except OSError as error:
        raise OutputError(f"cannot create a temporary directory: {error.strerror}", hint="set TMPDIR") from error
    try:
        yield path
    finally:
        # A background process of the command may still write to it.
        shutil.rmtree(path, ignore_errors=True)


def _open_engine(app: AppContext, console: Console, directory: Path, cleanup: ExitStack) -> SpeechEngine:
    """Start the thread of the local engines, with stores of their own."""
    from .mock_engine import LocalEngine
    from .mock_environment import build_engine_variables

    engine_app = AppContext(
        variables=build_engine_variables(app, directory), stdin=app.stdin, stdout=app.stdout, stderr=app.stderr
    )
    cleanup.callback(engine_app.close)
    return cleanup.enter_context(LocalEngine(engine_app, console.debug))


def _open_gateway(
    options: MockOptions, key: str | None, engine: SpeechEngine | None, cleanup: ExitStack
) -> MockGateway:
    from ..mock import LOOPBACK_HOSTS, Access, MockGateway
    from .mock_codec import EncodingCodec

    access: Access = Access(None if options.allow_remote else LOOPBACK_HOSTS, key)
    faults = [_parse_fault(text) for text in options.faults or ()]
    gateway = MockGateway(
        EncodingCodec(),
        latency_s=options.latency_s,
        host=REMOTE_HOST if options.allow_remote else "127.0.0.1",
        port=options.port,
        access=access,
        script=_read_script(options.script),
        journal_path=options.journal,
        engine=engine,
        keep_requests=False,
        hears_speech=True,
    )
    for spec in faults:
        filters = {"dialect": spec.dialect, "path": spec.path, "model": spec.model}
        if spec.count is None:
            gateway.add_default_fault(spec.fault, method=spec.method, **filters)
        else:
            gateway.queue_faults(*[spec.fault] * spec.count, method=spec.method, **filters)
    try:
        return cleanup.enter_context(gateway)
    except OSError as error:
        if error.filename is not None:
            raise OutputError(f"cannot write {options.journal}: {error.strerror}") from error
        raise UsageError(
            f"cannot listen on port {options.port}: {error.strerror}", hint="choose another --port"
        ) from error


def _parse_fault(text: str) -> FaultSpec:
    from ..mock import InvalidSpec, parse_fault_spec

    try:
        return parse_fault_spec(text)
    except InvalidSpec as error:
        raise UsageError(f"--fault {text}: {error}", hint=error.hint) from error


def _read_script(path: Path | None) -> ResponseScript | None:
    from ..mock import InvalidScript, read_script

    if path is None:
        return None
    try:
        return read_script(path)
    except InvalidScript as error:
        raise UsageError(f"{path}: {error}") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _build_environment(
    app: AppContext, gateway: MockGateway, directory: Path, options: MockOptions, key: str | None
) -> Environment:
    from .mock_environment import build_environment

    has_engine = options.engine is not None
    default = ("openai",) if has_engine else tuple(name for name in DIALECTS if name != "plain")
    dialects = tuple(options.dialects or default)
    return build_environment(app, gateway, directory, dialects=dialects, has_engine=has_engine, key=key)


class _Terminated(Exception):
    """SIGTERM."""


def _serve(
    console: Console, gateway: MockGateway, environment: Environment, directory: Path, options: MockOptions
) -> int:
    """Print the variables, and wait. SIGTERM ends the server with exit code 0.

    Raises:
        KeyboardInterrupt: SIGINT or SIGHUP.
    """
    from .mock_environment import render_environment

    def stop(number: int, frame: object) -> None:
        raise _Terminated

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        if options.general.as_json:
            console.write_json(
                {
                    "ok": True,
                    "command": "mock",
                    "url": gateway.url,
                    "directory": str(directory),
                    "variables": dict(environment.variables),
                    "removed_variables": list(environment.removed),
                }
            )
        else:
            console.write_text(render_environment(environment, options.shell))
        console.info(f"serving {gateway.url}; stop it with Ctrl-C")
        while True:
            # Handlers run in this thread only. A signal that another one has received does not end the pause.
            time.sleep(SIGNAL_INTERVAL_S)
    except _Terminated:
        return 0
    finally:
        signal.signal(signal.SIGTERM, previous)
