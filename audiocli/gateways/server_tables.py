"""What a `[gateways.NAME]` table says about a server that differs from its dialect.

`parse_traits` turns the table into `ServerTraits`, once for each run with a config file. The other functions change
requests, and are imported only for a server with such a table.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence

from ..audio import formats
from ..errors import AccessError, UsageError
from ..types.json import Json
from ..types.routes import Route, ServerTraits
from .base import ENDPOINT_NAMES, as_object

VARIABLE_PATTERN = r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}"
# RFC 9110, "token".
HEADER_NAME_PATTERN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# Headers that describe the connection and the body, which the client sets.
RESERVED_HEADERS = frozenset(
    {"accept-encoding", "connection", "content-length", "content-type", "host", "te", "transfer-encoding", "upgrade"}
)
FIELD_NAME_KEYS = {
    "input_field": "input",
    "model_field": "model",
    "voice_field": "voice",
    "format_field": "response_format",
}
SPEECH_RESPONSE_PATTERN = r"bytes|(?:json|sse):\S+"

# The keys of a table that decide how speech sounds, or what is transcribed.
_SPEECH_KEYS = ("fields", "speech_fields", "omit_fields", "query", "pcm_rate", *FIELD_NAME_KEYS)
_TRANSCRIPTION_KEYS = ("fields", "transcription_fields", "omit_fields", "query", "model_field")


class MissingVariable(AccessError):
    """A header or the query needs an environment variable that is not set."""


def parse_traits(
    gateway: str, values: Mapping[str, object], variables: Mapping[str, str]
) -> tuple[ServerTraits, MissingVariable | None]:
    """Parse the keys of a table whose types have been checked.

    Also return the error to report if the gateway is used, if a variable is not set.

    Raises:
        UsageError: A value is not valid. The message begins with its key.
    """
    expander = _Expander(gateway, variables)
    headers = _parse_headers(_as_texts(values.get("headers")), expander)
    query = tuple(
        (name, expander.expand(f"query.{name}", text)) for name, text in _as_texts(values.get("query")).items()
    )
    fields = _parse_fields("fields", values)
    speech_fields = {**fields, **_parse_fields("speech_fields", values)}
    field_names = {name: str(values[key]) for key, name in FIELD_NAME_KEYS.items() if values.get(key) is not None}
    voice = speech_fields.pop(field_names.get("voice", "voice"), None)
    if voice is not None and not isinstance(voice, str):
        raise UsageError("speech_fields: the voice must be a string")
    pcm_rate_hz = values.get("pcm_rate")
    has_model_list = values.get("models")
    response = str(values.get("speech_response") or "bytes")
    if re.fullmatch(SPEECH_RESPONSE_PATTERN, response) is None:
        raise UsageError(f"speech_response: {response!r} is not bytes, json:FIELD or sse:FIELD")
    traits = ServerTraits(
        headers=headers,
        query=query,
        auth=str(values.get("auth") or "bearer"),
        pcm_rate_hz=pcm_rate_hz if isinstance(pcm_rate_hz, int) else None,
        samples=None if values.get("samples") is None else str(values["samples"]),
        has_model_list=has_model_list is not False,
        paths=_parse_paths(_as_texts(values.get("paths"))),
        format_names=tuple(
            (_parse_format("format_names", name), text) for name, text in _as_texts(values.get("format_names")).items()
        ),
        speech_formats=_parse_formats("speech_formats", values.get("speech_formats")),
        upload_formats=_parse_formats("upload_formats", values.get("upload_formats")),
        field_names=tuple(field_names.items()),
        fields=_encode_fields(speech_fields),
        transcription_fields=_encode_fields({**fields, **_parse_fields("transcription_fields", values)}),
        omitted_fields=tuple(_as_list(values.get("omit_fields"))),
        speech_response=response,
        default_voice=voice,
        limits=tuple((name, size) for name, size in _as_mapping(values.get("limits")).items() if isinstance(size, int)),
        secrets=expander.list_secrets(headers),
        variables=tuple(expander.names),
        speech_fingerprint=_compute_fingerprint(values, _SPEECH_KEYS, "speech"),
        transcription_fingerprint=_compute_fingerprint(values, _TRANSCRIPTION_KEYS, "transcription", "translation"),
    )
    return traits, expander.error


class _Expander:
    """Replaces `${NAME}` by the value of an environment variable. `error` is about the first one that is not set."""

    def __init__(self, gateway: str, variables: Mapping[str, str]) -> None:
        self._gateway = gateway
        self._variables = variables
        self._values: list[str] = []
        self.names: list[str] = []
        self.error: MissingVariable | None = None

    def expand(self, key: str, text: str) -> str:
        return re.sub(VARIABLE_PATTERN, lambda match: self._get(key, match[1]), text)

    def _get(self, key: str, name: str) -> str:
        value = self._variables.get(name, "").strip()
        self.names.append(name)
        self._values.append(value)
        if not value and self.error is None:
            self.error = MissingVariable(
                f"gateways.{self._gateway}.{key}: the environment variable {name} is not set", hint=f"set {name}"
            )
        if not (value.isascii() and value.isprintable()) and self.error is None:
            self.error = MissingVariable(
                f"gateways.{self._gateway}.{key}: {name} has characters that cannot be sent",
                hint=f"check {name} for stray characters",
            )
        return value

    def list_secrets(self, headers: Sequence[tuple[str, str]]) -> tuple[str, ...]:
        """Return the texts to hide, the longest first: whole headers, and tokens without their scheme."""
        texts = {*self._values, *(value for _, value in headers), *(value.rpartition(" ")[2] for _, value in headers)}
        return tuple(sorted(filter(None, texts), key=len, reverse=True))


def _parse_headers(headers: Mapping[str, str], expander: _Expander) -> tuple[tuple[str, str], ...]:
    for name, text in headers.items():
        if re.fullmatch(HEADER_NAME_PATTERN, name) is None:
            raise UsageError(f"headers: {name!r} is not the name of a header")
        if name.lower() in RESERVED_HEADERS:
            raise UsageError(f"headers: {name} is set by audiocli")
        if not (text.isascii() and text.isprintable()):
            raise UsageError(f"headers.{name}: the value has characters that cannot be sent")
    return tuple((name, expander.expand(f"headers.{name}", text)) for name, text in headers.items())


def _parse_paths(paths: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    known_names = set(ENDPOINT_NAMES.values())
    for name, path in paths.items():
        if name not in known_names:
            raise UsageError(f"paths: unknown endpoint {name!r}; known endpoints: {', '.join(sorted(known_names))}")
        if not path.startswith("/"):
            raise UsageError(f"paths.{name}: {path!r} does not begin with /")
    return tuple(paths.items())


def _parse_formats(key: str, names: object) -> tuple[str, ...]:
    return tuple(_parse_format(key, name) for name in _as_list(names))


def _parse_format(key: str, name: str) -> str:
    found = formats.find_format(name)
    if found is None:
        raise UsageError(f"{key}: unknown format {name!r}")
    return found.name


def _parse_fields(key: str, values: Mapping[str, object]) -> dict[str, object]:
    fields = _as_mapping(values.get(key))
    try:
        json.dumps(fields, allow_nan=False)
    except (TypeError, ValueError):
        raise UsageError(f"{key}: dates, inf and nan cannot be sent as JSON") from None
    return fields


def _encode_fields(fields: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    return tuple((name, json.dumps(value)) for name, value in fields.items())


def _compute_fingerprint(values: Mapping[str, object], keys: Sequence[str], *endpoints: str) -> str:
    """Return a hash of the keys that decide a result, as they are in the file; "" if there are none.

    Values of variables are not part of it, so a new secret changes nothing.
    """
    deciding = {key: values[key] for key in keys if values.get(key) is not None}
    paths = _as_texts(values.get("paths"))
    deciding |= {f"paths.{name}": paths[name] for name in endpoints if name in paths}
    if not deciding:
        return ""
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:16]


def _as_mapping(value: object) -> dict[str, object]:
    return dict(value) if isinstance(value, Mapping) else {}


def _as_texts(value: object) -> dict[str, str]:
    """Return the members of a table that are texts."""
    return {name: text for name, text in _as_mapping(value).items() if isinstance(text, str)}


def _as_list(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list | tuple) else []


def describe_traits(traits: ServerTraits) -> list[tuple[str, str]]:
    """Return the keys of a table with their values for display. Values of headers and of the query are hidden."""
    rows = [(f"headers.{name}", "hidden") for name, _ in traits.headers]
    rows += [(f"query.{name}", "hidden") for name, _ in traits.query]
    rows += [("auth", traits.auth)] if traits.auth != "bearer" else []
    rows += [("pcm_rate", str(traits.pcm_rate_hz))] if traits.pcm_rate_hz is not None else []
    rows += [("samples", traits.samples)] if traits.samples is not None else []
    rows += [("models", "false")] if not traits.has_model_list else []
    rows += [(f"paths.{name}", path) for name, path in traits.paths]
    rows += [(f"format_names.{name}", text) for name, text in traits.format_names]
    rows += [("speech_formats", ", ".join(traits.speech_formats))] if traits.speech_formats else []
    rows += [("upload_formats", ", ".join(traits.upload_formats))] if traits.upload_formats else []
    names_by_field = {field: key for key, field in FIELD_NAME_KEYS.items()}
    rows += [(names_by_field[field], text) for field, text in traits.field_names]
    rows += [("voice", traits.default_voice or '""')] if traits.default_voice is not None else []
    rows += [(f"speech_fields.{name}", value) for name, value in traits.fields]
    rows += [(f"transcription_fields.{name}", value) for name, value in traits.transcription_fields]
    rows += [("omit_fields", ", ".join(traits.omitted_fields))] if traits.omitted_fields else []
    rows += [("speech_response", traits.speech_response)] if traits.speech_response != "bytes" else []
    return rows + [(f"limits.{name}", str(size)) for name, size in traits.limits]


# --- requests --------------------------------------------------------------------------------------------------------


def adapt_speech_fields(fields: Mapping[str, Json], route: Route) -> dict[str, Json]:
    """Return the fields of a request for speech under the names of the server, with its constant fields."""
    traits = route.traits
    adapted = _rename(fields, traits)
    format_key = dict(traits.field_names).get("response_format", "response_format")
    format = adapted.get(format_key)
    if isinstance(format, str):
        adapted[format_key] = dict(traits.format_names).get(format, format)
    adapted |= {name: json.loads(text) for name, text in traits.fields}
    return {name: value for name, value in adapted.items() if name not in traits.omitted_fields}


def adapt_transcription_fields(fields: Mapping[str, Json], route: Route) -> dict[str, Json]:
    """Return the fields of a JSON request for a transcript, like `adapt_speech_fields`."""
    traits = route.traits
    adapted = _rename(fields, traits) | {name: json.loads(text) for name, text in traits.transcription_fields}
    return {name: value for name, value in adapted.items() if name not in traits.omitted_fields}


def adapt_form(form: Sequence[tuple[str, str]], route: Route) -> list[tuple[str, str]]:
    """Return the form of a request for a transcript, like `adapt_speech_fields`. The recording is not part of it."""
    from .request_bodies import encode_field

    traits = route.traits
    names = dict(traits.field_names)
    constants = dict(traits.transcription_fields)
    adapted = [(names.get(name, name), value) for name, value in form if name not in constants]
    for name, text in constants.items():
        adapted += encode_field(name, json.loads(text))
    return [(name, value) for name, value in adapted if name.partition("[")[0] not in traits.omitted_fields]


def _rename(fields: Mapping[str, Json], traits: ServerTraits) -> dict[str, Json]:
    names = dict(traits.field_names)
    return {names.get(name, name): value for name, value in fields.items()}


def find_member(value: Json, path: str) -> Json:
    """Return the member of an object at a path such as `data.audio`; None if there is none."""
    if path in as_object(value):
        return as_object(value)[path]
    for name in path.split("."):
        if isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            value = as_object(value).get(name)
    return value
