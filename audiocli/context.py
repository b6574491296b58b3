"""Application context: streams, environment variables, clock, paths, and services that are opened on first use."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from .errors import AudiocliError, ConnectionFailed, MoneyError, OutputError, UsageError

if TYPE_CHECKING:
    from .config import Settings
    from .console import Console
    from .core.catalog import ModelCatalog
    from .core.run_context import RunContext, Transport
    from .engines import LocalTransport
    from .engines.piper_voices import VoiceStore
    from .engines.weights import WeightStore
    from .exchanges.recorder import Recorder
    from .exchanges.replay import Replay
    from .http import HttpClient
    from .ledger.budget import RunBudget
    from .ledger.jobs import JobStore
    from .ledger.ledger import Ledger
    from .object_store import ObjectStores
    from .storage.phrase_cache import PhraseCache
    from .storage.response_cache import ResponseCache
    from .types.jobs import RemoteJob
    from .types.ledger import UnreconciledEntry

T = TypeVar("T")


class ColorMode(StrEnum):
    """The values of `--color`."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class AppContext:
    """All that a command uses beyond its options. `from_process` builds it for the current process; tests build one."""

    def __init__(
        self,
        *,
        variables: Mapping[str, str],
        stdin: BinaryIO,
        stdout: BinaryIO,
        stderr: BinaryIO,
        sleep: Callable[[float], Awaitable[None]] | None = None,
        today: date | None = None,
    ) -> None:
        self.variables = {name: value for name, value in variables.items() if value}
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        # The arguments of the command line, for messages that show how to run it again.
        self.argv: tuple[str, ...] = ()
        self.color_mode = ColorMode.AUTO
        # Whether the terminal bell rings when the command ends.
        self.rings_bell = False
        # Warnings that no JSON object has reported yet.
        self.warnings: list[str] = []
        # Warnings that are printed at most once a day.
        self.daily_warnings: set[str] = set()
        self._sleep = sleep
        self._today = today
        self._ledger: Ledger | None = None
        self._recorder: Recorder | None = None
        self._replay: Replay | None = None
        # A replay waits as long as the gateway took.
        self._replay_has_timing = False
        self._temporary_directory: Path | None = None

    @classmethod
    def from_process(cls) -> AppContext:
        """Build the context of the current process. Its streams are unbuffered."""
        return cls(variables=os.environ, stdin=_open_raw(0), stdout=_open_raw(1), stderr=_open_raw(2))

    # --- terminals ---------------------------------------------------------------------------------------------------

    @property
    def stderr_is_interactive(self) -> bool:
        """Whether stderr is a terminal that can show progress."""
        return self.stderr.isatty() and self.variables.get("TERM") != "dumb"

    def has_color(self, stream: BinaryIO) -> bool:
        """Return whether text for people is colored on a stream.

        `--color` decides, else NO_COLOR, else FORCE_COLOR, else whether the stream is a terminal that has colors.
        """
        if self.color_mode is not ColorMode.AUTO:
            return self.color_mode is ColorMode.ALWAYS
        if "NO_COLOR" in self.variables:
            return False
        return "FORCE_COLOR" in self.variables or (stream.isatty() and self.variables.get("TERM") != "dumb")

    def ring_bell(self) -> None:
        """Ring the bell of the terminal that stderr is, if the command was asked to."""
        if not self.rings_bell:
            return
        try:
            if self.stderr.isatty():
                self.stderr.write(b"\a")
        except OSError:
            return  # stderr is closed

    @property
    def stdout_accepts_audio(self) -> bool:
        """Whether audio goes to stdout by default: it is a pipe, a socket or a regular file."""
        try:
            mode = os.fstat(self.stdout.fileno()).st_mode
        except (OSError, ValueError):
            return not self.stdout.isatty()
        return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISREG(mode)

    def create_console(self, *, is_quiet: bool = False, is_debugging: bool = False) -> Console:
        """Return a console that writes to the streams of this context."""
        from .console import Console

        return Console(
            stdout=self.stdout,
            stderr=self.stderr,
            is_quiet=is_quiet,
            is_debugging=is_debugging,
            is_interactive=self.stderr_is_interactive,
            stdout_is_terminal=self.stdout.isatty(),
            warnings=self.warnings,
            was_printed_today=self._was_printed_today,
            stdout_width=self.find_terminal_width(self.stdout),
            stderr_width=self.find_terminal_width(self.stderr),
            stdout_has_color=self.has_color(self.stdout),
            stderr_has_color=self.has_color(self.stderr),
            is_replayed=self.is_replaying,
        )

    def find_terminal_width(self, stream: BinaryIO) -> int | None:
        """Return the columns of the terminal that a stream is: of COLUMNS, else of the terminal; None without one."""
        if not stream.isatty():
            return None
        columns = self.variables.get("COLUMNS", "")
        if columns.isdecimal() and 0 < int(columns) < 10_000:
            return int(columns)
        try:
            return os.get_terminal_size(stream.fileno()).columns or 80
        except (OSError, ValueError):
            return 80

    def _was_printed_today(self, warning: str) -> bool:
        """Return whether a daily warning was printed today, and store that it is printed now."""
        if warning not in self.daily_warnings:
            return False
        today = self.today.isoformat().encode()
        cached = self.cache.get("daily_warnings", warning)
        if cached is not None and cached.body == today:
            return True
        self.cache.put("daily_warnings", warning, today)
        return False

    @cached_property
    def stdout_is_writable(self) -> bool:
        """Whether stdout is open for writing. It is not after `>&-`."""
        try:
            import fcntl

            flags = fcntl.fcntl(self.stdout.fileno(), fcntl.F_GETFL)
        except (ImportError, OSError, ValueError):
            return True
        return flags & (os.O_WRONLY | os.O_RDWR) != 0

    # --- child processes ---------------------------------------------------------------------------------------------

    @cached_property
    def child_variables(self) -> dict[str, str]:
        """The environment of players and engines: without API keys."""
        from . import gateways
        from .processes import build_child_environment

        configs = self.settings.gateways
        names = {name for gateway in gateways.BUILT_IN for name in (gateway.key_variable, gateway.base_url_variable)}
        names |= {config.key_source for config in configs}
        names |= {name for config in configs for name in config.traits.variables}
        names |= {name for store in self.settings.stores for name in store.credential_variables}
        return build_child_environment(
            self.variables,
            key_variables={name for name in names if name is not None},
            keys=[
                *(config.key for config in configs if config.key is not None),
                *(secret for config in configs for secret in config.traits.secrets),
            ],
        )

    # --- directories -------------------------------------------------------------------------------------------------

    @cached_property
    def config_path(self) -> Path:
        configured = self.variables.get("AUDIOCLI_CONFIG")
        return Path(configured) if configured else self._find_platform_directory("config") / "config.toml"

    @property
    def keys_path(self) -> Path:
        return self.config_path.with_name("keys.toml")

    @cached_property
    def ledger_path(self) -> Path:
        """AUDIOCLI_LEDGER, else a file in the data directory, else in a temporary one if that is not writable."""
        configured = self.variables.get("AUDIOCLI_LEDGER")
        if configured:
            return Path(configured)
        if not self.ledger_is_temporary:
            return self.data_directory / "ledger.sqlite3"
        from .private_files import build_temporary_directory_path

        return build_temporary_directory_path("ledger") / "ledger.sqlite3"

    @cached_property
    def ledger_is_temporary(self) -> bool:
        """Whether the ledger is in a temporary directory: none exists, and the data directory is not writable.

        This is so in containers and with read-only home directories. An existing ledger that is not writable is an
        error instead, because its entries count toward the spending limits.
        """
        if "AUDIOCLI_LEDGER" in self.variables:
            return False
        return not _exists(self.data_directory / "ledger.sqlite3") and not _is_writable_or_creatable(
            self.data_directory
        )

    @cached_property
    def records_directory(self) -> Path:
        """The directory of the manifest and of paid results: the data directory, or a temporary one."""
        if _is_writable_or_creatable(self.data_directory):
            return self.data_directory
        from .private_files import open_temporary_directory

        return open_temporary_directory("records")

    @cached_property
    def data_directory(self) -> Path:
        return self._find_platform_directory("data")

    @cached_property
    def cache_directory(self) -> Path:
        return self._find_platform_directory("cache")

    def scratch_directory(self, name: str) -> Path:
        """Return a directory for temporary files: in the cache directory, else in the system's temporary directory."""
        directory = self.cache_directory / name
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            if os.access(directory, os.W_OK):
                return directory
        except OSError:
            pass
        from .private_files import open_temporary_directory

        return open_temporary_directory(name)

    def _find_platform_directory(self, kind: str) -> Path:
        """Return the config, data or cache directory: from the XDG variables of this context, else of the platform."""
        base = self.variables.get(f"XDG_{kind.upper()}_HOME")
        if base and Path(base).is_absolute():
            return Path(base) / "audiocli"
        import platformdirs

        directories = {
            "config": platformdirs.user_config_path,
            "data": platformdirs.user_data_path,
            "cache": platformdirs.user_cache_path,
        }
        return directories[kind]("audiocli", appauthor=False)

    # --- time --------------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        """Return the local time, with its time zone.

        Raises:
            UsageError: The time zone of the environment or the clock is out of range.
        """
        try:
            return datetime.now().astimezone()
        except (ValueError, OverflowError, OSError) as error:
            zone = os.environ.get("TZ")
            raise UsageError(
                f"the time zone TZ={zone} is not valid" if zone else "the clock of this computer is out of range",
                hint="set TZ to a name such as Europe/Berlin" if zone else "set the clock",
            ) from error

    @property
    def today(self) -> date:
        return self._today or self.now().date()

    # --- services ----------------------------------------------------------------------------------------------------

    @cached_property
    def settings(self) -> Settings:
        from . import config

        settings = config.load(
            self.config_path,
            self.variables,
            keys_path=self.keys_path,
            must_exist="AUDIOCLI_CONFIG" in self.variables,
        )
        if self._replay is None:
            return settings
        return settings._replace(gateways=self._replay.restore_gateways(settings.gateways))

    # --- recordings of exchanges -------------------------------------------------------------------------------------

    @property
    def is_replaying(self) -> bool:
        """Whether requests are served from a recording."""
        return self._replay is not None

    def start_recording(self, directory: Path) -> None:
        """Record every exchange of this command in a directory.

        Cached responses are not used, because a replay needs the model lists too.

        Raises:
            UsageError: The directory is not empty and not a recording.
            OutputError: It cannot be written.
        """
        from .exchanges.recorder import Recorder
        from .storage.response_cache import ResponseCache

        self._recorder = Recorder(
            directory, arguments=self.argv, gateways=self.settings.gateways, warn=self._write_warning
        )
        self.__dict__["cache"] = ResponseCache(self._create_temporary_directory() / "cache")

    def start_replay(self, directory: Path, *, has_timing: bool) -> None:
        """Serve every request of this command from a recording. Its stores are temporary, and empty at the start.

        `has_timing`: wait as long as the gateway took, and for retries and polls.

        Raises:
            UsageError: The directory is not a recording, or is damaged.
        """
        from .exchanges.recorder import hash_arguments
        from .exchanges.replay import Replay

        self._replay = Replay(
            directory, command=self.argv[0] if self.argv else "", arguments_sha256=hash_arguments(self.argv)
        )
        self._replay_has_timing = has_timing
        temporary_directory = self._create_temporary_directory()
        self.__dict__["data_directory"] = temporary_directory / "data"
        self.__dict__["cache_directory"] = temporary_directory / "cache"
        self.__dict__["ledger_path"] = temporary_directory / "data" / "ledger.sqlite3"
        self.__dict__["ledger_is_temporary"] = False
        self.reload_settings()
        for details in self._replay.jobs:
            self.jobs.restore(details)
        for entry in reversed(self._replay.entries):
            self.ledger.restore(entry)

    def record_entries(self, entries: Sequence[UnreconciledEntry]) -> None:
        """Record the ledger entries whose costs the command requests, so that a replay knows them."""
        if self._recorder is not None:
            self._recorder.add_entries(entries)

    def record_job(self, job: RemoteJob) -> None:
        """Record a background job that the command asks for, so that a replay knows it."""
        if self._recorder is not None:
            from .ledger.jobs import encode_job

            self._recorder.add_job(encode_job(job))

    def _create_temporary_directory(self) -> Path:
        """Create the directory of temporary stores. `close` removes it."""
        import tempfile

        self._temporary_directory = Path(tempfile.mkdtemp(prefix="audiocli-"))
        return self._temporary_directory

    # --- runs --------------------------------------------------------------------------------------------------------

    def create_run_budget(
        self, *, max_cost_nanousd: int | None = None, allow_unpriced: bool = False, run_id: str | None = None
    ) -> RunBudget:
        """Return the spending limits of a run. `max_cost_nanousd` is the limit of `--max-cost`.

        `run_id` continues a run; None begins a new one.
        """
        import secrets

        from .ledger.budget import RunBudget, resolve_limits

        run_id = run_id or secrets.token_hex(8)
        limits = resolve_limits(self.settings.budget, max_cost_nanousd=max_cost_nanousd, run_id=run_id, now=self.now())
        return RunBudget(run_id, limits, allow_unpriced)

    def reload_settings(self) -> None:
        """Read the configuration again on next use."""
        self.__dict__.pop("settings", None)

    @property
    def ledger(self) -> Ledger:
        if self._ledger is None:
            from .ledger.ledger import Ledger

            if self.ledger_is_temporary:
                _open_ledger_directory()
            self._ledger = Ledger(self.ledger_path, wait_s=0.1, warn=self._write_warning)
        return self._ledger

    def _write_warning(self, message: str) -> None:
        """Write a warning to stderr, also with `--quiet`."""
        from .console import Console

        Console(
            stdout=self.stdout,
            stderr=self.stderr,
            warnings=self.warnings,
            stderr_width=self.find_terminal_width(self.stderr),
            stderr_has_color=self.has_color(self.stderr),
        ).warning(message)

    @property
    def jobs(self) -> JobStore:
        """The background jobs in the ledger."""
        from .ledger.jobs import JobStore

        return JobStore(self.ledger)

    @cached_property
    def cache(self) -> ResponseCache:
        from .storage.response_cache import ResponseCache

        return ResponseCache(self.cache_directory)

    @cached_property
    def object_stores(self) -> ObjectStores:
        """The object stores.

        Raises:
            AccessError: obstore is not installed.
            UsageError: A recording is replayed.
        """
        from .object_store import ObjectStores

        if self.is_replaying:
            raise UsageError("--replay cannot be used with object stores", hint="their requests are not recorded")
        return ObjectStores(self.variables, self.settings.stores)

    @cached_property
    def phrases(self) -> PhraseCache:
        """Speech that was paid for. Raises: OutputError: no directory for paid results can be written."""
        from .storage.phrase_cache import PhraseCache

        return PhraseCache(self.records_directory / "phrases", self.settings.speech_cache_mb * 1_000_000)

    @cached_property
    def rejected_speech(self) -> PhraseCache:
        """Speech that was paid for and has failed its verification. Raises: OutputError, as for `phrases`."""
        from .storage.phrase_cache import PhraseCache

        return PhraseCache(self.records_directory / "rejected", self.settings.speech_cache_mb * 1_000_000)

    @cached_property
    def weights(self) -> WeightStore:
        """The weights of the local engines."""
        from .engines.weights import WeightStore

        return WeightStore(
            self.variables,
            models_directory=self.settings.models_directory,
            voices_directory=self.settings.voices_directory,
            cache=self.cache,
            get_join_directory=lambda: self.scratch_directory("models"),
        )

    @cached_property
    def piper_voices(self) -> VoiceStore:
        """The Piper voices of the local engines."""
        from .engines.piper_voices import VoiceStore

        return VoiceStore(self.weights)

    @cached_property
    def catalog(self) -> ModelCatalog:
        """The cached model lists of the gateways."""
        from .core.catalog import ModelCatalog

        return ModelCatalog(
            self.cache,
            self.today,
            choose_local_model=self._choose_local_model,
            choose_local_speech=self._choose_local_speech,
        )

    def _choose_local_model(self, name: str, is_default: bool) -> str:
        from .engines.weights import choose_model

        return choose_model(name, lambda: self.weights, is_default=is_default)

    def _choose_local_speech(
        self, model: str, voice: str | None, is_default: bool, language: str | None
    ) -> tuple[str, str | None]:
        from .engines.piper_voices import choose_speech

        return choose_speech(
            model,
            voice,
            is_default=is_default,
            language=language,
            configured_voices=self.settings.voices,
            get_voices=lambda: self.piper_voices,
        )

    def close(self) -> None:
        """Close the ledger and reduce the caches of speech to their maximum size, if they were opened."""
        for name in ("phrases", "rejected_speech"):
            phrases: PhraseCache | None = self.__dict__.pop(name, None)
            if phrases is not None:
                phrases.evict()
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None
        if self._temporary_directory is not None:
            import shutil

            shutil.rmtree(self._temporary_directory, ignore_errors=True)
            self._temporary_directory = None

    def run(
        self,
        action: Callable[[RunContext], Coroutine[Any, Any, T]],
        *,
        read_timeout_s: float,
        info: Callable[[str], None],
        debug: Callable[[str], None],
    ) -> T:
        """Run a coroutine with a new run context and return its result.

        SIGINT, SIGTERM and SIGHUP cancel it, so that its cleanup runs.

        Raises:
            KeyboardInterrupt: A signal cancelled the coroutine.
        """
        import asyncio

        from .threads import DaemonThreadExecutor

        if self._recorder is not None:
            debug = _tee(debug, self._recorder.log)

        async def main() -> T:
            task = asyncio.current_task()
            assert task is not None
            loop = asyncio.get_running_loop()
            loop.set_default_executor(DaemonThreadExecutor())
            previous_handlers: list[tuple[int, Any]] = []
            # Errors outside of our tasks, such as a connection that fails after it was closed, are of no interest.
            loop.set_exception_handler(
                lambda _, details: debug(str(details.get("exception") or details.get("message")))
            )
            # SIGINT too: asyncio's own handler cancels in the middle of a callback and sometimes breaks it
            # (InvalidStateError from a protocol, Python 3.11). A handler of the loop runs between two callbacks.
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)
                if number is None or signal.getsignal(number) is signal.SIG_IGN:
                    continue  # respect nohup
                previous = signal.getsignal(number)
                try:
                    loop.add_signal_handler(number, task.cancel)
                except (NotImplementedError, ValueError, RuntimeError):  # Windows; not the main thread
                    continue
                previous_handlers.append((number, previous))
            printed: set[str] = set()

            def print_info(message: str) -> None:
                printed.add(message)
                info(message)

            def print_warning(text: str) -> None:
                # The warnings of a route are printed when it is prepared.
                if f"warning: {text}" not in printed:
                    info(f"warning: {text}")

            if self.ledger_is_temporary:
                info(f"cannot write to {self.data_directory}; using the temporary ledger {self.ledger_path}")
            try:
                async with self.open_run_context(
                    read_timeout_s=read_timeout_s, info=print_info, debug=debug, print_warning=print_warning
                ) as ctx:
                    result = await action(ctx)
            except AudiocliError:
                self._raise_unrecorded()  # it is the reason, whatever the command has made of it
                raise
            else:
                self._raise_unrecorded()
                return result
            finally:
                for number, previous in previous_handlers:
                    loop.remove_signal_handler(number)
                    signal.signal(number, previous)

        try:
            return asyncio.run(main())
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None

    @asynccontextmanager
    async def open_run_context(
        self,
        *,
        read_timeout_s: float,
        info: Callable[[str], None],
        debug: Callable[[str], None],
        print_warning: Callable[[str], None],
    ) -> AsyncIterator[RunContext]:
        """Provide the services of a run, and close the connections and engines that it has opened.

        `print_warning` gets what the HTTP client warns about.
        """
        import asyncio
        import random

        from .core.run_context import RunContext

        sleep = self._sleep or asyncio.sleep
        if self._replay is not None and not self._replay_has_timing:
            sleep = _skip_wait
        transports = _Transports(self, read_timeout_s, sleep=sleep, warning=print_warning, debug=debug)
        try:
            yield RunContext(
                transport=transports.get,
                ledger=self.ledger,
                cache=self.cache,
                sleep=sleep,
                now_s=time.monotonic,
                random=random.random,
                info=info,
                debug=debug,
            )
        finally:
            await transports.close()

    def _raise_unrecorded(self) -> None:
        if self._replay is not None:
            self._replay.raise_unrecorded()


class _Transports:
    """The HTTP client, or a recording, and the local engines, each opened when a URL first needs it."""

    def __init__(
        self,
        app: AppContext,
        read_timeout_s: float,
        *,
        sleep: Callable[[float], Awaitable[None]],
        warning: Callable[[str], None],
        debug: Callable[[str], None],
    ) -> None:
        self._app = app
        self._read_timeout_s = read_timeout_s
        self._sleep = sleep
        self._warning = warning
        self._debug = debug
        self._http: HttpClient | None = None
        self._engines: LocalTransport | None = None

    def get(self, url: str) -> Transport:
        try:
            return self._open(url)
        except (ImportError, OSError) as error:  # too many open files, for example
            raise ConnectionFailed(f"cannot load the transport of {url.partition(':')[0]}: {error}") from error

    def _open(self, url: str) -> Transport:
        if url.startswith("local:"):
            if self._engines is None:
                from .engines import LocalTransport

                self._engines = LocalTransport(
                    _open_samples,
                    environment=self._app.child_variables,
                    read_timeout_s=self._read_timeout_s,
                    weights=self._app.weights,
                )
            return self._engines
        if self._app._replay is not None:
            from .exchanges.replay import ReplayTransport

            return ReplayTransport(self._app._replay, sleep=self._sleep if self._app._replay_has_timing else None)
        if self._http is None:
            from .http import HttpClient

            self._http = HttpClient(
                read_timeout_s=self._read_timeout_s,
                variables=self._app.variables,
                debug=self._debug,
                warning=self._warning,
            )
        return self._http if self._app._recorder is None else self._app._recorder.wrap(self._http)

    async def close(self) -> None:
        if self._engines is not None:
            await self._engines.close()
        if self._http is not None:
            await self._http.close()


async def _skip_wait(seconds: float) -> None:
    """Let other tasks run, in place of a wait."""
    import asyncio

    await asyncio.sleep(0)


def _tee(first: Callable[[str], None], second: Callable[[str], None]) -> Callable[[str], None]:
    """Return a function that passes a message to two others."""

    def write(message: str) -> None:
        first(message)
        second(message)

    return write


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _is_writable_or_creatable(directory: Path) -> bool:
    """Return whether a directory is writable or, if it does not exist, can be created."""
    for path in (directory, *directory.parents):
        if _exists(path):
            return path.is_dir() and os.access(path, os.W_OK | os.X_OK)
    return False


def _open_ledger_directory() -> None:
    """Create or check the temporary directory of the ledger.

    Raises:
        MoneyError: The directory cannot be created or belongs to another user.
    """
    from .private_files import open_temporary_directory

    try:
        open_temporary_directory("ledger")
    except OutputError as error:
        raise MoneyError(error.message, hint="set AUDIOCLI_LEDGER to a ledger file") from error


def _open_samples(path: Path) -> Any:
    from .codecs.convert import read_samples

    return read_samples(path)


def _open_raw(descriptor: int) -> BinaryIO:
    """Open a standard stream without a buffer. A closed one is replaced by /dev/null.

    A closed stdout is not writable afterwards, so that a result cannot get lost.
    """
    try:
        os.fstat(descriptor)
    except OSError:
        if descriptor == 1:
            return cast(BinaryIO, os.fdopen(os.open(os.devnull, os.O_RDONLY), "wb", buffering=0))
        return cast(BinaryIO, open(os.devnull, "r+b", buffering=0))  # noqa: PTH123 - open until the process exits
    mode = "rb" if descriptor == 0 else "wb"
    try:
        return cast(BinaryIO, os.fdopen(descriptor, mode, buffering=0, closefd=False))
    except OSError:  # stdin is a directory
        return cast(BinaryIO, open(os.devnull, "r+b", buffering=0))  # noqa: PTH123
