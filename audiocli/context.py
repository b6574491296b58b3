"""The world as one object: streams, variables, clock and folders. Tools are opened at their first use."""

from __future__ import annotations

import os
import stat
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeVar, cast

if TYPE_CHECKING:
    from datetime import date, datetime

    from .config import Settings
    from .core.catalog import ModelCatalog
    from .core.run_context import RunContext, Transport
    from .http import HttpClient
    from .ledger.budget import SpendingLimit
    from .ledger.jobs import Jobs
    from .ledger.ledger import Ledger
    from .storage.response_cache import ResponseCache

T = TypeVar("T")


class RunBudget(NamedTuple):
    """What one run may spend: the caps that hold for it, and whether what has no price may be sent under them."""

    run: str
    limits: tuple[SpendingLimit, ...]
    allows_unpriced: bool

    def apply_to(self, tools: RunContext) -> RunContext:
        """Give work the tools that keep to this."""
        return tools._replace(run=self.run, limits=self.limits, allows_unpriced=self.allows_unpriced)


class AppContext:
    """Everything that a command may touch beyond its flags. `of_process` is the real one; tests make their own."""

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
        # The command line, for whoever tells how to run it again.
        self.argv: tuple[str, ...] = ()
        self._sleep = sleep
        self._today = today
        self._cache: ResponseCache | None = None
        self._ledger: Ledger | None = None
        self._settings: Settings | None = None

    @classmethod
    def of_process(cls) -> AppContext:
        """The real world. Streams are unbuffered: what is written is out."""
        return cls(variables=os.environ, stdin=_raw(0), stdout=_raw(1), stderr=_raw(2))

    # --- terminals ---------------------------------------------------------------------------------------------------

    @property
    def stdin_is_terminal(self) -> bool:
        return self.stdin.isatty()

    @property
    def stdout_is_terminal(self) -> bool:
        return self.stdout.isatty()

    @property
    def stderr_moves(self) -> bool:
        """Whether people watch stderr and want colour and motion there."""
        still = "NO_COLOR" in self.variables or self.variables.get("TERM") == "dumb"
        return self.stderr.isatty() and not still

    @property
    def stdout_takes_audio(self) -> bool:
        """Whether stdout is somewhere that audio can go without being asked for: a pipe, a socket or a file."""
        try:
            mode = os.fstat(self.stdout.fileno()).st_mode
        except (OSError, ValueError):
            return not self.stdout.isatty()
        return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISREG(mode)

    # --- folders -----------------------------------------------------------------------------------------------------

    @property
    def config_path(self) -> Path:
        named = self.variables.get("AUDIOCLI_CONFIG")
        return Path(named) if named else self._folder("config") / "config.toml"

    @property
    def keys_path(self) -> Path:
        return self.config_path.with_name("keys.toml")

    @property
    def ledger_path(self) -> Path:
        """The ledger: where it was named, else in the data folder, else aside where nothing can be kept at home."""
        named = self.variables.get("AUDIOCLI_LEDGER")
        if named:
            return Path(named)
        usual = self._folder("data") / "ledger.sqlite3"
        if not self.ledger_is_aside:
            return usual
        from .private_files import temporary_directory_path

        return temporary_directory_path("ledger") / usual.name

    @property
    def ledger_is_aside(self) -> bool:
        """Whether there is no home for a ledger, nor ever was: a container, or a home that nobody may write to.

        A ledger that exists and cannot be written is another matter: what it holds counts, so nothing is spent then.
        """
        if "AUDIOCLI_LEDGER" in self.variables:
            return False
        folder = self._folder("data")
        return not _is_there(folder / "ledger.sqlite3") and not _can_be_made(folder)

    @property
    def records_folder(self) -> Path:
        """Where the manifest and the transcripts that were paid for are: data folder, or aside as the ledger."""
        folder = self._folder("data")
        if not _can_be_made(folder):
            from .private_files import open_temporary_directory

            folder = open_temporary_directory("records")
        return folder

    @property
    def cache_folder(self) -> Path:
        return self._folder("cache")

    def scratch_folder(self, name: str) -> Path:
        """Give a folder for what must lie somewhere for a while: in the cache, else among the system's."""
        folder = self.cache_folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if os.access(folder, os.W_OK):
                return folder
        except OSError:
            pass
        from .private_files import open_temporary_directory

        return open_temporary_directory(name)

    def _folder(self, kind: str) -> Path:
        """Ask platformdirs, which knows each platform's customs, but let the variables of this world decide."""
        named = self.variables.get(f"XDG_{kind.upper()}_HOME")
        if named and Path(named).is_absolute():
            return Path(named) / "audiocli"
        import platformdirs

        folders = {
            "config": platformdirs.user_config_path,
            "data": platformdirs.user_data_path,
            "cache": platformdirs.user_cache_path,
        }
        return folders[kind]("audiocli", appauthor=False)

    # --- time --------------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        """The local time."""
        from datetime import datetime

        return datetime.now().astimezone()

    @property
    def today(self) -> date:
        return self._today or self.now().date()

    # --- tools -------------------------------------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        if self._settings is None:
            from . import config

            self._settings = config.load(
                self.config_path,
                self.variables,
                keys_path=self.keys_path,
                is_named="AUDIOCLI_CONFIG" in self.variables,
            )
        return self._settings

    def allowance(self, *, max_cost_nanousd: int | None = None, allows_unpriced: bool = False) -> RunBudget:
        """Find out what a run may spend."""
        import secrets

        from .ledger.budget import resolve_limits

        run = secrets.token_hex(8)
        found = resolve_limits(self.settings.budget, max_cost_nanousd=max_cost_nanousd, run=run, now=self.now())
        return RunBudget(run, found, allows_unpriced)

    def forget_settings(self) -> None:
        """Read the configuration anew at the next use, because it was changed."""
        self._settings = None

    @property
    def ledger(self) -> Ledger:
        if self._ledger is None:
            from .ledger.ledger import Ledger

            path = self.ledger_path
            if self.ledger_is_aside:
                _open_ledger_directory()
            self._ledger = Ledger(path, wait_s=0.1, alarm=self._alarm)
        return self._ledger

    def _alarm(self, message: str) -> None:
        """Say on stderr what has to be said whatever was asked to be quiet."""
        try:
            self.stderr.write(f"audiocli: warning: {message}\n".encode("utf-8", "backslashreplace"))
        except OSError:
            return  # nobody listens; the work matters more

    @property
    def jobs(self) -> Jobs:
        """The jobs that are under way at gateways."""
        from .ledger.jobs import Jobs

        return Jobs(self.ledger)

    @property
    def cache(self) -> ResponseCache:
        if self._cache is None:
            from .storage.response_cache import ResponseCache

            self._cache = ResponseCache(self.cache_folder)
        return self._cache

    @property
    def shelf(self) -> ModelCatalog:
        """What is known of the gateways' models without asking them."""
        from .core.catalog import ModelCatalog

        return ModelCatalog(self.cache, self.today)

    def close(self) -> None:
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    def run(
        self,
        work: Callable[[RunContext], Coroutine[Any, Any, T]],
        *,
        silence_s: float,
        tell: Callable[[str], None],
        log: Callable[[str], None],
    ) -> T:
        """Run one piece of work with its tools. Ctrl-C, SIGTERM and SIGHUP end it with everything cleaned up."""
        import asyncio
        import random
        import signal
        import time

        from .core.run_context import RunContext
        from .threads import DaemonThreadExecutor

        async def main() -> T:
            task = asyncio.current_task()
            assert task is not None
            loop = asyncio.get_running_loop()
            loop.set_default_executor(DaemonThreadExecutor())
            handled: list[tuple[int, Any]] = []
            # What goes wrong behind our back, such as a connection that dies after it was given up, is no news.
            loop.set_exception_handler(lambda _, about: log(str(about.get("exception") or about.get("message"))))
            # SIGINT too: asyncio's own handler cancels in the middle of whatever runs, and breaks it now and then
            # (InvalidStateError out of a protocol, Python 3.11); a handler of the loop runs between two steps.
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)
                if number is None or signal.getsignal(number) is signal.SIG_IGN:
                    continue  # nohup stays nohup
                before = signal.getsignal(number)
                try:
                    loop.add_signal_handler(number, task.cancel)
                except (NotImplementedError, ValueError, RuntimeError):  # Windows; not the main thread
                    continue
                handled.append((number, before))
            transports = _Transports(silence_s, self.variables, log)
            if self.ledger_is_aside:
                tell(f"nothing can be kept in {self._folder('data')}: the ledger is {self.ledger_path}")
            try:
                return await work(
                    RunContext(
                        transport=transports.of_url,
                        ledger=self.ledger,
                        cache=self.cache,
                        sleep=self._sleep or asyncio.sleep,
                        now_s=time.monotonic,
                        random=random.random,
                        info=tell,
                        debug=log,
                    )
                )
            finally:
                await transports.close()
                for number, before in handled:
                    loop.remove_signal_handler(number)
                    signal.signal(number, before)

        try:
            return asyncio.run(main())
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None


class _Transports:
    """Opens HTTP or the local engines when a URL first needs them."""

    def __init__(self, silence_s: float, variables: Mapping[str, str], log: Callable[[str], None]) -> None:
        self._silence_s = silence_s
        self._variables = variables
        self._log = log
        self._http: HttpClient | None = None
        self._engines: Transport | None = None

    def of_url(self, url: str) -> Transport:
        if url.startswith("local:"):
            if self._engines is None:
                from .engines import Engines

                self._engines = Engines(_samples)
            return self._engines
        if self._http is None:
            from .http import HttpClient

            self._http = HttpClient(silence_s=self._silence_s, variables=self._variables, log=self._log)
        return self._http

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


def _can_be_made(folder: Path) -> bool:
    """Tell whether a folder is there to be written to, or could be made."""
    for place in (folder, *folder.parents):
        if _is_there(place):
            return place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    return False


def _open_ledger_directory() -> None:
    """Make or check the temporary directory of the ledger. Raises: MoneyError."""
    from .errors import MoneyError, OutputError
    from .private_files import open_temporary_directory

    try:
        open_temporary_directory("ledger")
    except OutputError as error:
        raise MoneyError(error.message, hint="name a ledger in AUDIOCLI_LEDGER") from error


def _samples(path: Path) -> Any:
    from .codecs.convert import samples

    return samples(path)


def _raw(descriptor: int) -> BinaryIO:
    """Open one of our own streams without a buffer; one that was closed on us is /dev/null."""
    try:
        os.fstat(descriptor)
    except OSError:
        return cast(BinaryIO, open(os.devnull, "r+b", buffering=0))  # noqa: PTH123 - lives as long as we do
    mode = "rb" if descriptor == 0 else "wb"
    try:
        return cast(BinaryIO, os.fdopen(descriptor, mode, buffering=0, closefd=False))
    except OSError:  # a folder as standard input
        return cast(BinaryIO, open(os.devnull, "r+b", buffering=0))  # noqa: PTH123
