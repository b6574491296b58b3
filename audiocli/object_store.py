"""Read and write objects of S3, Google Cloud Storage and Azure with obstore. No other module imports it.

Every exception of the library becomes one of ours. Its own messages contain requests and may contain credentials, so
only their codes are used.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeAlias, cast

from .errors import (
    AccessError,
    AudiocliError,
    ObjectDenied,
    OutputError,
    RecordingError,
    StoreUnreachable,
    UsageError,
)
from .private_files import MAX_FILE_BYTES
from .types.objects import AZURE_SCHEMES, GOOGLE_SCHEMES, S3_SCHEMES, ObjectUrl
from .types.stores import ListedObject, ObjectVersion, S3Access, StoreTable

if TYPE_CHECKING:
    from obstore.store import ObjectStore

MISSING_HINT = 'pip install "audiocli[cloud]"'

# An object is read in parts of this size, each of which is repeated if the connection breaks.
PART_BYTES = 16 * 1024 * 1024
# The page size of every store.
LIST_WINDOW = 1_000
CONNECT_TIMEOUT = timedelta(seconds=5)
READ_TIMEOUT = timedelta(seconds=60)
# Includes the transfer of a part.
REQUEST_TIMEOUT = timedelta(minutes=30)
# The first request of a run tells whether a store can be reached. Later ones wait for a store that is throttled.
FIRST_RETRIES, RETRIES = 1, 7
FIRST_RETRY_TIMEOUT, RETRY_TIMEOUT = timedelta(seconds=5), timedelta(seconds=90)

# What obstore reads from the environment, as the programs of the clouds do.
S3_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "AWS_ENDPOINT",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ALLOW_HTTP",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
    "AWS_SKIP_SIGNATURE",
    "AWS_REQUEST_PAYER",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_METADATA_ENDPOINT",
)
GOOGLE_VARIABLES = ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_KEY")
AZURE_VARIABLES = (
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_CLIENT_ID",
    "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_STORAGE_TENANT_ID",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_TENANT_ID",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_STORAGE_ENDPOINT",
    "AZURE_ALLOW_HTTP",
    "AZURE_USE_AZURE_CLI",
)
CERTIFICATE_VARIABLES = ("AWS_CA_BUNDLE", "SSL_CERT_FILE")

_CODE = re.compile(r"<Code>([A-Za-z0-9]+)</Code>")
_STATUS = re.compile(r"non-2xx status code: (\d{3})")
# Where the credentials of machines in a cloud come from. A failure there means that there are no other ones.
_CREDENTIAL_HOSTS = re.compile(r"169\.254\.\d+\.\d+|metadata\.google\.internal|/metadata/identity|oauth2/token")
_REFUSED_KEYS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "AuthenticationFailed"}
)
_NO_BUCKET = frozenset({"NoSuchBucket", "InvalidBucketName", "ContainerNotFound"})

PutMode: TypeAlias = "Literal['create', 'overwrite'] | ObjectVersion"
"""When an object is written: if it does not exist, in any case, or if it still has this version."""


class ObjectConflict(Exception):
    """An object was not written, because another version of it exists."""


def require_obstore() -> None:
    """Check that the library is installed. Raises: AccessError."""
    if importlib.util.find_spec("obstore") is None:
        raise AccessError("object stores need the package obstore", hint=MISSING_HINT)


class ObjectStores:
    """The object stores of a run, each opened when a URL first needs it.

    Args:
        variables: The environment: credentials, endpoints and certificates.
        tables: The tables `[stores.NAME]`.

    Raises:
        AccessError: obstore is not installed; from other methods, the store has no or refuses the credentials.
        ObjectDenied: From every method: the credentials do not allow it for this object.
        StoreUnreachable: From every method: the store cannot be reached, or is throttled or failing for too long.
        UsageError: From every method: the bucket does not exist, or the settings of the store are invalid.
    """

    def __init__(self, variables: Mapping[str, str], tables: Sequence[StoreTable] = ()) -> None:
        require_obstore()
        self._variables = variables
        self._tables = tables
        self._opened: dict[tuple[str, bool], ObjectStore] = {}
        self._reachable: set[str] = set()
        self.read_count = 0
        """Requests that read content."""

    # --- metadata -----------------------------------------------------------------------------------------------------

    async def check(self, url: ObjectUrl) -> None:
        """Check that a bucket exists and accepts the credentials. Later requests to it wait longer for it.

        Credentials need not have the right to list it.
        """
        import obstore

        if url.store in self._reachable:
            return
        try:
            with _translate_errors(url, "list"):
                stream = obstore.list(self._open(url, is_first=True), url.key or None, chunk_size=1)
                await stream.__aiter__().__anext__()
        except (StopAsyncIteration, InvalidKeyListed, ObjectDenied):
            pass
        except StoreUnreachable as error:
            if not error.is_throttled:
                raise
        self._reachable.add(url.store)

    async def head(self, url: ObjectUrl) -> ObjectVersion | None:
        """Return the version of an object; None if it does not exist."""
        import obstore

        with _translate_errors(url, "read"):
            try:
                return _parse_version(await obstore.head_async(self._open(url), url.key))
            except FileNotFoundError as error:
                _raise_for_bucket(url, error)
                return None

    def head_blocking(self, url: ObjectUrl) -> ObjectVersion | None:
        """Do what `head` does, and block."""
        import obstore

        with _translate_errors(url, "read"):
            try:
                return _parse_version(obstore.head(self._open(url), url.key))
            except FileNotFoundError as error:
                _raise_for_bucket(url, error)
                return None

    async def iter_windows(self, prefix: ObjectUrl, offset: str | None) -> AsyncIterator[list[ListedObject]]:
        """Yield the objects below a prefix in the order of their keys, in windows.

        Args:
            offset: The key after which to begin.

        Raises:
            InvalidKeyListed: A key cannot be parsed. All keys of its page are lost.
        """
        import obstore

        with _translate_errors(prefix, "list"):
            store = self._open(prefix)
            async for page in obstore.list(store, prefix.key or None, offset=offset, chunk_size=LIST_WINDOW):
                yield [
                    ListedObject(ObjectUrl(prefix.store, meta["path"]), _parse_version(meta))
                    for meta in cast("Sequence[Any]", page)
                ]

    # --- content ------------------------------------------------------------------------------------------------------

    async def read(self, url: ObjectUrl, *, max_bytes: int = MAX_FILE_BYTES) -> bytes | None:
        """Return the content of an object; None if it does not exist or is larger than `max_bytes`."""
        import obstore

        self.read_count += 1
        with _translate_errors(url, "read"):
            try:
                result = await obstore.get_async(self._open(url), url.key)
                return None if result.meta["size"] > max_bytes else bytes(await result.bytes_async())
            except FileNotFoundError as error:
                _raise_for_bucket(url, error)
                return None

    def read_blocking(self, url: ObjectUrl, *, max_bytes: int = MAX_FILE_BYTES) -> bytes | None:
        """Do what `read` does, and block."""
        import obstore

        self.read_count += 1
        with _translate_errors(url, "read"):
            try:
                result = obstore.get(self._open(url), url.key)
                return None if result.meta["size"] > max_bytes else bytes(result.bytes())
            except FileNotFoundError as error:
                _raise_for_bucket(url, error)
                return None

    async def download(self, url: ObjectUrl, version: ObjectVersion, target: BinaryIO) -> str:
        """Write one version of an object to a file, in parts, and return its SHA-256.

        Raises:
            RecordingError: The object no longer exists in this version.
            OSError: The file cannot be written.
        """
        digest = hashlib.sha256()
        position = 0
        while position < version.size_bytes:
            block = await self._get_part(url, version, position, min(position + PART_BYTES, version.size_bytes))
            digest.update(block)
            target.write(block)
            position += len(block)
        return digest.hexdigest()

    async def _get_part(self, url: ObjectUrl, version: ObjectVersion, start: int, end: int) -> bytes:
        import obstore

        self.read_count += 1
        with _translate_errors(url, "read"):
            options = _build_get_options(version, start, end)
            block = bytes(await (await obstore.get_async(self._open(url), url.key, options=options)).bytes_async())
        if len(block) != end - start:
            raise StoreUnreachable(f"{url} was cut off")
        return block

    def open_reader(self, url: ObjectUrl, version: ObjectVersion) -> RangedReader:
        """Return a file that reads parts of an object when they are needed. It blocks."""
        import obstore

        store = self._open(url)

        def fetch(start: int, end: int) -> bytes:
            self.read_count += 1
            with _translate_errors(url, "read"):
                return bytes(obstore.get(store, url.key, options=_build_get_options(version, start, end)).bytes())

        return RangedReader(fetch, version.size_bytes)

    def put(self, url: ObjectUrl, content: bytes | Path, mode: PutMode) -> ObjectVersion:
        """Write an object: it appears complete or not at all. It blocks.

        Raises:
            ObjectConflict: The mode does not allow it.
            OutputError: The store refuses it.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        size_bytes = content.stat().st_size if isinstance(content, Path) else len(content)
        put_mode: Any = mode
        if isinstance(mode, ObjectVersion):
            fields = {"e_tag": mode.etag, "version": mode.generation}
            put_mode = {name: value for name, value in fields.items() if value is not None}
        # Only a new object can be written in several parts.
        use_multipart = None if isinstance(mode, str) and size_bytes > PART_BYTES else False
        with _translate_errors(url, "write"):
            try:
                result = obstore.put(self._open(url), url.key, content, mode=put_mode, use_multipart=use_multipart)
            except (AlreadyExistsError, PreconditionError) as error:
                raise ObjectConflict from error
            except FileNotFoundError as error:
                _raise_for_bucket(url, error)
                raise ObjectConflict from error  # the version that was to be replaced is gone
        return ObjectVersion(size_bytes, result["e_tag"], result["version"])

    def delete(self, url: ObjectUrl) -> None:
        """Delete an object, if it exists. It blocks."""
        import obstore

        with _translate_errors(url, "write"):
            try:
                obstore.delete(self._open(url), url.key)
            except FileNotFoundError:
                return

    # --- stores -------------------------------------------------------------------------------------------------------

    def find_table(self, url: ObjectUrl) -> StoreTable | None:
        """Return the table with the longest URL that a URL begins with."""
        text = str(url)
        found = [table for table in self._tables if f"{text}/".startswith(f"{table.url.rstrip('/')}/")]
        return max(found, key=lambda table: len(table.url), default=None)

    def get_s3_access(self, url: ObjectUrl) -> S3Access | None:
        """Return what a request of our own needs; None if only obstore can send one.

        That is so for other stores than S3, and for credentials and certificates that only obstore has.
        """
        table = self.find_table(url)
        has_certificates = (table is not None and table.ca_file) or self._variables.get(CERTIFICATE_VARIABLES[0])
        if url.scheme not in S3_SCHEMES or has_certificates:
            return None
        config, _ = self._build_config(url)
        is_anonymous = str(config.get("skip_signature", "")).lower() == "true"
        key_id, secret = config.get("access_key_id"), config.get("secret_access_key")
        if not is_anonymous and (key_id is None or secret is None):
            return None
        return S3Access(
            endpoint=config.get("endpoint"),
            region=config.get("region") or "us-east-1",
            has_path_style=str(config.get("virtual_hosted_style_request", "false")).lower() != "true",
            access_key_id=None if is_anonymous else key_id,
            secret_access_key=None if is_anonymous else secret,
            session_token=config.get("session_token"),
        )

    def _open(self, url: ObjectUrl, *, is_first: bool = False) -> ObjectStore:
        cached = self._opened.get((url.store, is_first))
        if cached is not None:
            return cached
        from obstore.store import from_url

        config, client_options = self._build_config(url)
        retries, timeout = (FIRST_RETRIES, FIRST_RETRY_TIMEOUT) if is_first else (RETRIES, RETRY_TIMEOUT)
        options: dict[str, Any] = {
            "config": config,
            "client_options": client_options,
            "retry_config": {"max_retries": retries, "retry_timeout": timeout},
        }
        with _translate_errors(url, "open"):
            store = from_url(url.store, **options)
        self._opened[url.store, is_first] = store
        return store

    def _build_config(self, url: ObjectUrl) -> tuple[dict[str, str], dict[str, Any]]:
        """Return the configuration of a store and of its client. That of the table precedes the environment.

        Raises:
            AccessError: A variable that a table names is not set.
            UsageError: A certificate file cannot be read.
        """
        table = self.find_table(url)
        config = _read_variables(url, self._variables)
        allow_http = config.pop("allow_http", "").lower() in ("true", "1", "yes")
        if table is not None:
            values = {
                "endpoint": table.endpoint,
                "region": table.region,
                "virtual_hosted_style_request": _format_flag(
                    None if table.path_style is None else not table.path_style
                ),
                "skip_signature": _format_flag(table.anonymous),
                "service_account": table.service_account,
            }
            for key, variable in (
                ("access_key_id", table.access_key_id_env),
                ("secret_access_key", table.secret_access_key_env),
                ("session_token", table.session_token_env),
                ("account_name", table.account_name_env),
                ("account_key", table.account_key_env),
            ):
                if variable is not None and not self._variables.get(variable):
                    raise AccessError(f"[stores.{table.name}]: {variable} is not set")
                values[key] = self._variables[variable] if variable is not None else None
            if table.access_key_id_env is not None and table.session_token_env is None:
                config.pop("session_token", None)  # that of other credentials
            config |= {key: value for key, value in values.items() if value is not None}
            allow_http = allow_http if table.allow_http is None else table.allow_http
        client_options: dict[str, Any] = {
            "allow_http": allow_http,
            "connect_timeout": CONNECT_TIMEOUT,
            "read_timeout": READ_TIMEOUT,
            "timeout": REQUEST_TIMEOUT,
        }
        certificate_path = table.ca_file if table is not None and table.ca_file else None
        certificate_path = certificate_path or next(filter(None, map(self._variables.get, CERTIFICATE_VARIABLES)), None)
        if certificate_path is not None:
            try:
                client_options["root_certificate"] = Path(certificate_path).read_bytes()
            except OSError as error:
                raise UsageError(f"cannot read the certificates {certificate_path}: {error.strerror}") from error
        return config, client_options


class RangedReader:
    """A file that reads the blocks of an object when they are needed, and remembers the last ones."""

    BLOCK_BYTES = 64 * 1024
    MAX_BLOCKS = 64

    def __init__(self, fetch: Callable[[int, int], bytes], size_bytes: int) -> None:
        self._fetch = fetch
        self.size_bytes = size_bytes
        self.fetched_bytes = 0
        self._position = 0
        self._blocks: dict[int, bytes] = {}

    def read(self, count: int = -1) -> bytes:
        end = self.size_bytes if count < 0 else min(self._position + count, self.size_bytes)
        parts = []
        while self._position < end:
            block = self._get_block(self._position // self.BLOCK_BYTES)
            offset = self._position % self.BLOCK_BYTES
            part = block[offset : offset + end - self._position]
            parts.append(part)
            self._position += len(part)
        return b"".join(parts)

    def seek(self, offset: int, whence: int = 0) -> int:
        base = {0: 0, 1: self._position, 2: self.size_bytes}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def _get_block(self, index: int) -> bytes:
        block = self._blocks.pop(index, None)
        if block is None:
            start = index * self.BLOCK_BYTES
            block = self._fetch(start, min(start + self.BLOCK_BYTES, self.size_bytes))
            self.fetched_bytes += len(block)
            if len(self._blocks) >= self.MAX_BLOCKS:
                del self._blocks[next(iter(self._blocks))]
        self._blocks[index] = block  # the newest is the last
        return block


class InvalidKeyListed(Exception):
    """A listing has a key that obstore does not accept."""


@contextmanager
def _translate_errors(url: ObjectUrl, action: str) -> Iterator[None]:
    """Turn the exceptions of the library into ours. `action` is that of `translate_error`."""
    from obstore.exceptions import BaseError, InvalidPathError

    try:
        yield
    except InvalidPathError as error:
        if action == "list":
            raise InvalidKeyListed from error
        raise translate_error(error, url, action) from error
    except (BaseError, ValueError, FileNotFoundError) as error:
        raise translate_error(error, url, action) from error


def translate_error(error: Exception, url: ObjectUrl, action: str) -> AudiocliError:
    """Return our error for an exception of obstore. `action` is open, list, read or write."""
    from obstore.exceptions import PermissionDeniedError, PreconditionError, UnauthenticatedError

    text = str(error)
    if re.search("URL scheme is not allowed|BadScheme", text):
        return UsageError(
            f"{url.store}: http:// is not allowed", hint="set AWS_ALLOW_HTTP=true, or allow_http in [stores.NAME]"
        )
    code_match, status_match = _CODE.search(text), _STATUS.search(text)
    code = code_match[1] if code_match else ""
    status = int(status_match[1]) if status_match else None
    if code in _NO_BUCKET or "ContainerNotFound" in text or "The specified bucket does not exist" in text:
        return UsageError(f"there is no bucket {url.store}", hint="check the name of the bucket and the endpoint")
    if code in _REFUSED_KEYS or isinstance(error, UnauthenticatedError) or status == 401:
        return AccessError(f"{url.store} refuses the credentials{f' ({code})' if code else ''}")
    if _CREDENTIAL_HOSTS.search(text) or "MissingCredentials" in text or "No credentials" in text:
        return AccessError(f"no credentials for {url.store}", hint=_build_credential_hint(url))
    if isinstance(error, PermissionDeniedError) or status == 403:
        if action == "write":
            return OutputError(f"{url.store} refuses to write {url.key} (access denied)")
        return ObjectDenied(
            f"no right to {action} {url}", hint="the credentials need the right to list, read and write"
        )
    if isinstance(error, PreconditionError):
        return RecordingError(f"{url} was changed during the run", hint="run the command again")
    if isinstance(error, FileNotFoundError):
        return RecordingError(f"cannot read {url}: no such object")
    if status in (301, 307, 400) and ("region" in text.lower() or status == 301):
        return UsageError(f"{url.store} is in another region", hint="set AWS_REGION, or region in [stores.NAME]")
    if status is not None and (status >= 500 or status == 429):
        return StoreUnreachable(f"{url.store} is overloaded or failing (HTTP {status})", is_throttled=True)
    if status is not None and action == "write":
        return OutputError(f"{url.store} refuses to write {url.key} (HTTP {status}{f', {code}' if code else ''})")
    if isinstance(error, ValueError) or action == "open":
        return UsageError(f"cannot use {url}: {_shorten(text)}")
    if status is not None:
        return StoreUnreachable(f"cannot {action} {url} (HTTP {status}{f', {code}' if code else ''})")
    return StoreUnreachable(f"cannot reach {url.store}: {_describe_cause(text)}")


def _raise_for_bucket(url: ObjectUrl, error: FileNotFoundError) -> None:
    """Raise UsageError if the bucket is what was not found."""
    translated = translate_error(error, url, "read")
    if isinstance(translated, UsageError):
        raise translated from error


def _describe_cause(text: str) -> str:
    for pattern, cause in (
        (r"certificate|UnknownIssuer|InvalidCertificate", "its certificate is not trusted"),
        (r"dns error|failed to lookup", "its name cannot be resolved"),
        (r"refused", "connection refused"),
        (r"timed out|timeout", "timed out"),
    ):
        if re.search(pattern, text):
            return cause
    return "the connection failed"


def _shorten(text: str) -> str:
    return " ".join(text.partition("\n\nDebug source")[0].split())[:200]


def _build_credential_hint(url: ObjectUrl) -> str:
    if url.scheme in S3_SCHEMES:
        return "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket"
    if url.scheme in GOOGLE_SCHEMES:
        return "set GOOGLE_APPLICATION_CREDENTIALS"
    return "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"


def _read_variables(url: ObjectUrl, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the configuration of a store from the environment, by the keys of obstore."""
    names: tuple[str, ...] = AZURE_VARIABLES
    prefix = "AZURE_"
    if url.scheme in S3_SCHEMES:
        names, prefix = S3_VARIABLES, "AWS_"
    elif url.scheme in GOOGLE_SCHEMES:
        names, prefix = GOOGLE_VARIABLES, "GOOGLE_"
    config = {}
    for name in names:
        if not (value := variables.get(name)):
            continue
        key = name.removeprefix(prefix).lower()
        key = {"endpoint_url": "endpoint", "endpoint_url_s3": "endpoint", "default_region": "region"}.get(key, key)
        config[key.removeprefix("storage_") if url.scheme in AZURE_SCHEMES else key] = value
    return config


def _format_flag(value: bool | None) -> str | None:
    return None if value is None else str(value).lower()


def _build_get_options(version: ObjectVersion, start: int, end: int) -> Any:
    options: dict[str, Any] = {"range": (start, end)}
    if version.etag is not None:
        options["if_match"] = version.etag
    return options


def _parse_version(meta: Any) -> ObjectVersion:
    modified_ns = int(meta["last_modified"].timestamp() * 1_000_000) * 1_000
    return ObjectVersion(meta["size"], meta["e_tag"], meta["version"], modified_ns)
