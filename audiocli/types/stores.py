"""Object stores: their settings, versions of objects, and what a listing says of them."""

from __future__ import annotations

from typing import NamedTuple

from .objects import ObjectUrl


class ObjectVersion(NamedTuple):
    """One version of an object. `etag` is None in a store that has none; `generation` is the version of Google's."""

    size_bytes: int
    etag: str | None
    generation: str | None = None
    modified_ns: int = 0


class ListedObject(NamedTuple):
    """An object of a listing. `problem` says why it cannot be used; its URL then serves for messages only."""

    url: ObjectUrl
    version: ObjectVersion
    problem: str | None = None


class S3Access(NamedTuple):
    """What a request of our own to S3 needs. Without `secret_access_key` it is not signed."""

    endpoint: str | None
    region: str
    has_path_style: bool
    access_key_id: str | None = None
    secret_access_key: str | None = None
    session_token: str | None = None


class StoreTable(NamedTuple):
    """A table `[stores.NAME]` of the configuration, for the URLs that begin with `url`.

    The names of variables are those of the credentials. None is the default of the scheme.
    """

    name: str
    url: str
    endpoint: str | None = None
    region: str | None = None
    path_style: bool | None = None
    allow_http: bool | None = None
    anonymous: bool | None = None
    ca_file: str | None = None
    access_key_id_env: str | None = None
    secret_access_key_env: str | None = None
    session_token_env: str | None = None
    account_name_env: str | None = None
    account_key_env: str | None = None
    service_account: str | None = None

    @property
    def credential_variables(self) -> tuple[str, ...]:
        """The names of the variables with credentials."""
        names = (
            self.access_key_id_env,
            self.secret_access_key_env,
            self.session_token_env,
            self.account_name_env,
            self.account_key_env,
        )
        return tuple(name for name in names if name is not None)
