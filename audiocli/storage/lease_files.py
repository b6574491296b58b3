"""Claims of several machines: one file for each key, in a directory that all of them share.

A file is created if it does not exist, which one process can do only. While its owner lives, the file gets a new
modification time again and again. Without one for `LEASE_S`, the owner is dead and the claim may be taken over. Ages
are compared by the clock of the file server, because clocks of machines differ.
"""

from __future__ import annotations

import os
import secrets
import threading
from pathlib import Path

from .. import process_ids
from ..errors import OutputError

LEASE_S = 60.0
RENEWAL_INTERVAL_S = LEASE_S / 4


class LeaseFiles:
    """The claims of this process in a shared directory. A thread renews them until `close`.

    Raises:
        OutputError: From `claim`, if the directory cannot be written.
    """

    def __init__(
        self, directory: Path, *, lease_s: float = LEASE_S, renewal_interval_s: float = RENEWAL_INTERVAL_S
    ) -> None:
        self._directory = directory
        self._lease_s = lease_s
        self._renewal_interval_s = renewal_interval_s
        self._owner = f"{process_ids.get_host_id()} {process_ids.get_current_process_id()} {secrets.token_hex(8)}"
        self._claimed: set[str] = set()
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self._renewer: threading.Thread | None = None

    def check(self) -> None:
        """Create the directory unless it exists, and check that it can be written. Raises: OutputError."""
        try:
            self._create_directory()
            self._read_server_clock()
        except OSError as error:
            raise self._build_error(error) from error

    def claim(self, key: str) -> bool:
        """Claim a key. Return False if a living owner has it."""
        path = self._build_path(key)
        try:
            self._create_directory()
            if not self._create(path):
                if not self._is_expired(path):
                    return False
                self._remove_expired(path)
                if not self._create(path):
                    return False
        except OSError as error:
            raise self._build_error(error) from error
        with self._lock:
            self._claimed.add(key)
            if self._renewer is None:
                self._renewer = threading.Thread(target=self._renew, daemon=True)
                self._renewer.start()
        return True

    def release(self, key: str) -> None:
        """Release a claim of this process."""
        with self._lock:
            self._claimed.discard(key)
        self._remove_own(key)

    def close(self) -> None:
        """Release all claims."""
        self._is_closed.set()
        with self._lock:
            claimed, self._claimed = self._claimed, set()
        for key in claimed:
            self._remove_own(key)

    def _create_directory(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def _build_error(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write claims in {self._directory}: {error.strerror}")

    def _build_path(self, key: str) -> Path:
        return self._directory / f"{key}.claim"

    def _create(self, path: Path) -> bool:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            return False
        try:
            os.write(descriptor, self._owner.encode())
        finally:
            os.close(descriptor)
        return True

    def _is_expired(self, path: Path) -> bool:
        try:
            modified_s = path.stat().st_mtime
        except FileNotFoundError:
            return True
        # A time in the future is that of a clock that was set back since.
        return abs(self._read_server_clock() - modified_s) > self._lease_s

    def _read_server_clock(self) -> float:
        """Return the time of the file server: that of a file that it has just created."""
        path = self._directory / f".clock-{secrets.token_hex(8)}"
        try:
            path.touch(mode=0o600)
            return path.stat().st_mtime
        finally:
            path.unlink(missing_ok=True)

    def _remove_expired(self, path: Path) -> None:
        """Remove an expired claim. Of several processes that try, one can rename the file."""
        aside = path.with_name(f"{path.name}-{secrets.token_hex(8)}")
        try:
            path.rename(aside)
        except FileNotFoundError:
            return
        if not self._is_expired(aside):
            # Another process has taken it over between the check and the rename.
            try:
                os.link(aside, path)
            except FileExistsError:
                pass
        aside.unlink(missing_ok=True)

    def _remove_own(self, key: str) -> None:
        path = self._build_path(key)
        try:
            if path.read_bytes() == self._owner.encode():
                path.unlink(missing_ok=True)
        except OSError:
            return  # it expires

    def _renew(self) -> None:
        while not self._is_closed.wait(self._renewal_interval_s):
            with self._lock:
                claimed = tuple(self._claimed)
            for key in claimed:
                try:
                    # The server sets the time: None is its clock.
                    os.utime(self._build_path(key))
                except OSError:
                    continue  # released meanwhile, or the server is away: then the lease ends
