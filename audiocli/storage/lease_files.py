"""Claims of several machines: one file for each key, in a directory that all of them share.

A file is created if it does not exist, which one process can do only. While its owner lives, the file gets a new
modification time again and again. Without one for `LEASE_S`, the owner is dead and the claim may be taken over: by the
process that creates the next file, `KEY.claim.1` after `KEY.claim`. The expired files stay until the new owner releases
the key, because a process that renames or removes one could not know whether it is still the one that it has looked at.
Ages are compared by the clock of the file server, because clocks of machines differ.
"""

from __future__ import annotations

import itertools
import os
import secrets
import threading
from collections.abc import Iterable
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
        # The number of the file of each claim.
        self._claimed: dict[str, int] = {}
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
        try:
            self._create_directory()
            number = self._create_next(key)
        except OSError as error:
            raise self._build_error(error) from error
        if number is None:
            return False
        with self._lock:
            self._claimed[key] = number
            if self._renewer is None:
                self._renewer = threading.Thread(target=self._renew, daemon=True)
                self._renewer.start()
        return True

    def release(self, key: str) -> None:
        """Release a claim of this process."""
        with self._lock:
            number = self._claimed.pop(key, None)
        if number is not None:
            self._remove(key, number)

    def close(self) -> None:
        """Release all claims."""
        self._is_closed.set()
        with self._lock:
            claimed, self._claimed = self._claimed, {}
        for key, number in claimed.items():
            self._remove(key, number)

    def _create_directory(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def _build_error(self, error: OSError) -> OutputError:
        return OutputError(f"cannot write claims in {self._directory}: {error.strerror}")

    def _build_path(self, key: str, number: int) -> Path:
        return self._directory / (f"{key}.claim.{number}" if number else f"{key}.claim")

    def _create_next(self, key: str) -> int | None:
        """Create the first file of a key that does not exist. Return None unless all files before it are expired."""
        for number in itertools.count():
            path = self._build_path(key, number)
            if self._create(path):
                # The owner of this number may just have removed the earlier files and its own.
                is_next = False
                try:
                    is_next = not number or self._are_expired(key, range(number))
                finally:
                    if not is_next:
                        path.unlink(missing_ok=True)
                return number if is_next else None
            if not self._are_expired(key, [number]):
                return None
        raise AssertionError

    def _create(self, path: Path) -> bool:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            return False
        try:
            os.write(descriptor, self._owner.encode())
        except OSError:
            path.unlink(missing_ok=True)  # else it would block the key until it expires
            raise
        finally:
            os.close(descriptor)
        return True

    def _are_expired(self, key: str, numbers: Iterable[int]) -> bool:
        """Return whether files of a key exist and are expired."""
        now_s = self._read_server_clock()
        try:
            modified_s = [self._build_path(key, number).stat().st_mtime for number in numbers]
        except FileNotFoundError:
            return False
        # A time in the future is that of a clock that was set back since.
        return all(abs(now_s - time_s) > self._lease_s for time_s in modified_s)

    def _read_server_clock(self) -> float:
        """Return the time of the file server: that of a file that it has just created."""
        path = self._directory / f".clock-{secrets.token_hex(8)}"
        try:
            path.touch(mode=0o600)
            return path.stat().st_mtime
        finally:
            path.unlink(missing_ok=True)

    def _owns(self, key: str, number: int) -> bool:
        """Return whether a claim is still that of this process, which may have been stopped for a whole lease."""
        path = self._build_path(key, number)
        renewed_s = path.stat().st_mtime
        for later in itertools.count(number + 1):
            try:
                successor_s = self._build_path(key, later).stat().st_mtime
            except FileNotFoundError:
                return path.read_bytes() == self._owner.encode()
            # An older one is left of an owner that ended while it released the key.
            if successor_s - renewed_s > self._lease_s / 2:
                return False
        raise AssertionError

    def _remove(self, key: str, number: int) -> None:
        """Remove the file of a claim, after the expired ones before it."""
        try:
            if self._owns(key, number):
                for earlier in range(number + 1):
                    self._build_path(key, earlier).unlink(missing_ok=True)
        except OSError:
            return  # it expires

    def _renew(self) -> None:
        while not self._is_closed.wait(self._renewal_interval_s):
            with self._lock:
                claimed = tuple(self._claimed.items())
            for key, number in claimed:
                try:
                    if self._owns(key, number):
                        # The server sets the time: None is its clock.
                        os.utime(self._build_path(key, number))
                except OSError:
                    continue  # released meanwhile, or the server is away: then the lease ends
