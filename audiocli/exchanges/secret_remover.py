"""Remove secrets from bytes that are stored: API keys in every encoding, passwords and signatures in URLs.

Every secret is replaced by a filler of the same length, so lengths, offsets and the blocks of a stream do not change.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

from ..redaction import MIN_SECRET_CHARACTERS

if TYPE_CHECKING:
    from ..routing import GatewayConfig

# Parameters of queries whose values decide what a request asks for, and are no secrets.
PUBLIC_PARAMETERS = frozenset({"api-version", "async", "id", "model", "output_modalities"})
# Headers that are stored by name only.
SECRET_HEADER = re.compile(
    r"(?i)cookie|authoriz|authenticat|secret|session|signature|credential|password|organization|project"
    r"|(^|[-_])(api)?key($|[-_])|token$"
)
REMOVED = "[removed]"

# The longest secret, or URL with a signature, that is recognized if it is split between blocks.
HOLD_BYTES = 16 * 1024

# A backslash ends a URL, unless it escapes a slash or an ampersand in JSON.
_URL = re.compile(rb"https?:(?:\\?/){2}(?:[^\s\"'<>`{}^\\]|\\/|\\u0026)+")
_USER_INFO = re.compile(rb"(?<=/)[^/?#]*@")
_SEPARATOR = re.compile(rb"(&amp;|\\u0026|&)")
# A query with one of these parameters is signed, or has a key. None of its values is stored. A parameter follows `?`
# or `&`, which HTML writes as `&amp;` and some JSON as `\\u0026`.
_SECRET_PARAMETER = re.compile(
    rb"(?i)[?&;6](?:x-(?:amz|goog|oss|ms)-[\w-]+|[\w-]*(?:sig|signature|token|api-?key|secret|password|credential|auth)"
    rb"|key|sv|se|expires|policy|key-pair-id)="
)
# What looks like an API key in an error response. Gateways repeat a part of the key that they refuse.
_KEY_LIKE = re.compile(
    rb"(?i)(?:\b|_)(?:sk|gsk|lr|xai)[-_][\w*./+=\x80-\xff-]{3,}|\bAIza[\w-]{8,}"
    rb"|[\w-]*(?:\*|\xe2\x80\xa2){3,}[\w*.\x80-\xff-]*"
)


class SecretRemover:
    """Removes known secrets, and passwords and signatures in URLs."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: set[str] = set()
        self._pattern: re.Pattern[bytes] | None = None
        self.add(secrets)

    def add(self, secrets: Iterable[str]) -> None:
        """Add secrets. Short ones are ignored, as in messages, because they could be part of any word."""
        new = {secret for secret in secrets if len(secret) >= MIN_SECRET_CHARACTERS} - self._secrets
        if not new:
            return
        self._secrets |= new
        plain = {form for secret in self._secrets for form in _iter_text_forms(secret)}
        encoded = {form for secret in self._secrets for form in _iter_base64_forms(secret)}
        # The longest first, because a secret may be part of another one.
        alternatives = (
            b"|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)) for forms in (plain, encoded)
        )
        self._pattern = re.compile(b"(%s)|(?:%s)" % tuple(alternatives))

    def remove(self, content: bytes, *, is_error: bool = False) -> bytes:
        """Return the content with fillers. `is_error`: it is an error response, which may repeat a part of a key."""
        if self._pattern is not None:
            # "A" is valid inside base64, so that the rest can still be decoded.
            content = self._pattern.sub(lambda match: (b"*" if match[1] else b"A") * len(match[0]), content)
        content = _URL.sub(lambda match: _hide_url(match[0]), content)
        if is_error:
            content = _KEY_LIKE.sub(lambda match: b"*" * len(match[0]), content)
        return content

    def remove_from_text(self, text: str, *, is_error: bool = False) -> str:
        """Return a text, such as a message or the value of a header, with fillers."""
        content = text.encode("utf-8", "surrogatepass")
        return self.remove(content, is_error=is_error).decode("utf-8", "surrogatepass")

    def remove_from_headers(self, headers: Iterable[tuple[str, str]], *, is_error: bool = False) -> dict[str, str]:
        """Return headers, without the values of those that are secret."""
        return {
            name: REMOVED if SECRET_HEADER.search(name) else self.remove_from_text(value, is_error=is_error)
            for name, value in headers
        }

    def remove_from_target(self, path: str, query: str) -> str:
        """Return path and query of a URL. The query has the values of `PUBLIC_PARAMETERS` only."""
        public_query = "&".join(
            f"{quote(name)}={quote(value) if name in PUBLIC_PARAMETERS else '***'}"
            for name, value in parse_qsl(query, keep_blank_values=True)
        )
        return self.remove_from_text(f"{path}?{public_query}" if public_query else path)

    def open_stream(self, *, is_error: bool = False) -> StreamRemover:
        """Return a remover for content that arrives in blocks."""
        return StreamRemover(self, is_error=is_error)


class StreamRemover:
    """Removes secrets from a stream. It holds back its last bytes, because a secret may be split between blocks."""

    def __init__(self, remover: SecretRemover, *, is_error: bool) -> None:
        self._remover = remover
        self._is_error = is_error
        self._held = b""

    def feed(self, block: bytes) -> bytes:
        """Add a block, and return what is complete."""
        # What was held is clean so far: a filler contains no secret.
        held = self._remover.remove(self._held + block, is_error=self._is_error)
        end = max(0, len(held) - HOLD_BYTES)
        self._held = held[end:]
        return held[:end]

    def finish(self) -> bytes:
        """Return the rest."""
        held, self._held = self._held, b""
        return held


def list_gateway_secrets(gateways: Iterable[GatewayConfig]) -> Iterator[str]:
    """Yield the keys of gateways, the values of their headers, and the passwords in their URLs."""
    for gateway in gateways:
        if gateway.key is not None:
            yield gateway.key
        yield from gateway.traits.secrets
        yield from list_url_secrets(gateway.base_url)


def list_url_secrets(url: str) -> tuple[str, ...]:
    """Return the password of a URL, as it is written and decoded; the user name if there is no password."""
    try:
        parts = urlsplit(url)
        user_info = parts.netloc.rpartition("@")[0]
    except ValueError:
        return ()
    if not user_info:
        return ()
    user, _, password = user_info.partition(":")
    secret = password or user
    return (secret, unquote(secret), f"{unquote(user)}:{unquote(password)}", user_info)


def list_header_secrets(headers: Iterable[tuple[str, str]], public_names: frozenset[str]) -> Iterator[str]:
    """Yield the values of headers that are not public, with and without a scheme such as `Bearer`."""
    for name, value in headers:
        if name.lower() not in public_names:
            yield value
            yield value.rpartition(" ")[2]


def _iter_text_forms(secret: str) -> Iterator[bytes]:
    """Yield a secret as it is written in text, in URLs and in JSON."""
    content = secret.encode("utf-8", "surrogatepass")
    yield content
    yield json.dumps(secret)[1:-1].encode()
    yield json.dumps(secret, ensure_ascii=False)[1:-1].encode("utf-8", "surrogatepass")
    for quoted in (quote(content, safe=""), quote(content), quote_plus(content)):
        yield quoted.encode()
        # `%2f` is the same as `%2F`.
        yield re.sub(r"%[0-9A-F]{2}", lambda match: match[0].lower(), quoted).encode()


def _iter_base64_forms(secret: str) -> Iterator[bytes]:
    """Yield the characters of base64 that a secret determines, at each of the three positions that it may have."""
    content = secret.encode("utf-8", "surrogatepass")
    for offset, first in ((0, 0), (1, 2), (2, 3)):
        encoded = base64.b64encode(bytes(offset) + content)[first : (offset + len(content)) * 8 // 6]
        yield encoded
        yield encoded.translate(bytes.maketrans(b"+/", b"-_"))
        # JSON may escape a slash.
        yield encoded.replace(b"/", b"\\/")


def _hide_url(url: bytes) -> bytes:
    """Return a URL with fillers for user name, password and the values of a signed query."""
    url = _USER_INFO.sub(lambda match: b"*" * (len(match[0]) - 1) + b"@", url, count=1)
    base, question_mark, query = url.partition(b"?")
    if not _SECRET_PARAMETER.search(b"?" + query):
        return url
    return base + question_mark + b"".join(_hide_value(part) for part in _SEPARATOR.split(query))


def _hide_value(parameter: bytes) -> bytes:
    name, equals, value = parameter.partition(b"=")
    return name + equals + b"*" * len(value)
