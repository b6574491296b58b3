"""Claims of several machines: one object for each key, below a prefix that all of them share.

An object is created if it does not exist, which one process can do only. While its owner lives, it writes the object
again and again, with the condition that it is still its own. Another process that has seen the same version for
`LEASE_S` takes the claim over, with the same condition. It measures the time itself, because clocks of machines differ.
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from ..errors import AudiocliError
from ..object_store import ObjectConflict, ObjectStores
from ..types.objects import ObjectUrl
from ..types.stores import ObjectVersion
from .lease_files import LEASE_S, RENEWAL_INTERVAL_S

# A claim of another machine is not looked at more often.
CHECK_INTERVAL_S = 2.0
# A larger object is not a claim of this program.
MAX_CLAIM_BYTES = 1000
# Claims that are renewed at the same time, so that a slow one does not let the others expire.
RENEWAL_THREADS = 16


class _ForeignClaim(NamedTuple):
    version: ObjectVersion
    seen_at_s: float
    checked_at_s: float


class _OwnClaim:
    """A claim of this process. The lock is held while the store is asked; other claims do not wait for it."""

    def __init__(self, version: ObjectVersion) -> None:
        self.version = version
        self.lock = threading.Lock()


class LeaseObjects:
    """The claims of this process below a prefix. A thread renews them until `close`. Methods may run in any thread.

    Raises:
        AudiocliError: From `claim`, if the store cannot be used.
    """

    def __init__(
        self,
        prefix: ObjectUrl,
        stores: ObjectStores,
        *,
        lease_s: float = LEASE_S,
        renewal_interval_s: float = RENEWAL_INTERVAL_S,
        check_interval_s: float = CHECK_INTERVAL_S,
    ) -> None:
        self._prefix = prefix
        self._stores = stores
        self._lease_s = lease_s
        self._renewal_interval_s = renewal_interval_s
        self._check_interval_s = check_interval_s
        self._owner = secrets.token_hex(16)
        self._numbers = itertools.count(1)
        self._claimed: dict[str, _OwnClaim] = {}
        self._foreign: dict[str, _ForeignClaim] = {}
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self._renewer: threading.Thread | None = None

    def claim(self, key: str) -> bool:
        """Claim a key. Return False if a living owner has it."""
        foreign = self._foreign.get(key)
        if foreign is not None and time.monotonic() - foreign.checked_at_s < self._check_interval_s:
            return False
        version: ObjectVersion | None
        try:
            version = self._put(key, None)
        except ObjectConflict:
            version = self._find_own_version(key) or self._take_over(key, foreign)
        if version is None:
            return False
        self._foreign.pop(key, None)
        with self._lock:
            self._claimed[key] = _OwnClaim(version)
            if self._renewer is None:
                self._renewer = threading.Thread(target=self._renew, daemon=True)
                self._renewer.start()
        return True

    def release(self, key: str) -> None:
        """Release a claim of this process."""
        claim = self._claimed.pop(key, None)
        if claim is not None:
            with claim.lock:
                self._remove(key, claim.version)

    def close(self) -> None:
        """Release all claims."""
        self._is_closed.set()
        for key in tuple(self._claimed):
            self.release(key)

    def _find_own_version(self, key: str) -> ObjectVersion | None:
        """Return the version of a claim that this process has written; None if another one has.

        A write may have succeeded although its response was lost. It then fails when it is repeated.
        """
        version = self._stores.head_blocking(self._build_url(key))
        url = self._build_url(key)
        content = self._stores.read_blocking(url, max_bytes=MAX_CLAIM_BYTES) if version is not None else None
        return version if content is not None and content.startswith(f"{self._owner} ".encode()) else None

    def _take_over(self, key: str, foreign: _ForeignClaim | None) -> ObjectVersion | None:
        """Take over the claim of an owner that has not renewed it. Return None if the owner may be active."""
        version = self._stores.head_blocking(self._build_url(key))
        now_s = time.monotonic()  # the request may have taken long
        if version is None:
            return None  # released just now
        if foreign is None or foreign.version.etag != version.etag:
            self._foreign[key] = _ForeignClaim(version, now_s, now_s)
            return None
        self._foreign[key] = foreign._replace(checked_at_s=now_s)
        if now_s - foreign.seen_at_s <= self._lease_s:
            return None
        try:
            return self._put(key, version)
        except ObjectConflict:
            return None

    def _put(self, key: str, version: ObjectVersion | None) -> ObjectVersion:
        """Write a claim, with content that no other one has. Raises: ObjectConflict."""
        content = f"{self._owner} {next(self._numbers)}".encode()
        return self._stores.put(self._build_url(key), content, version or "create")

    def _remove(self, key: str, version: ObjectVersion) -> None:
        try:
            current = self._stores.head_blocking(self._build_url(key))
            if current is not None and current.etag == version.etag:
                self._stores.delete(self._build_url(key))
        except AudiocliError:
            return  # it expires

    def _build_url(self, key: str) -> ObjectUrl:
        return self._prefix.join(f"{key}.claim")

    def _renew(self) -> None:
        with ThreadPoolExecutor(RENEWAL_THREADS, thread_name_prefix="lease") as threads:
            while not self._is_closed.wait(self._renewal_interval_s):
                for key, claim in tuple(self._claimed.items()):
                    if not claim.lock.locked():  # else it is being renewed or released
                        threads.submit(self._renew_claim, key, claim)

    def _renew_claim(self, key: str, claim: _OwnClaim) -> None:
        with claim.lock:
            if self._claimed.get(key) is not claim or self._is_closed.is_set():
                return
            try:
                try:
                    claim.version = self._put(key, claim.version)
                except ObjectConflict:
                    version = self._find_own_version(key)
                    if version is None:  # the lease has ended, and another process has it
                        self._claimed.pop(key, None)
                    else:
                        claim.version = version
            except AudiocliError:
                return  # the store cannot be reached: then the lease ends
