"""Request bodies that are generated while they are sent, in constant memory, and that can be sent again."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..audio import formats
from ..errors import RecordingError
from ..text.languages import find_language_code
from ..types.json import Json
from ..types.requests import RequestBody, Timestamps, TranscriptionRequest
from ..types.routes import Route

# A multiple of 3, so that base64 blocks have no padding.
BLOCK_BYTES = 3 * 128 * 1024


def build_json_body(fields: Mapping[str, Json]) -> RequestBody:
    """Build a JSON body in memory."""
    text = _encode_json(fields)
    return RequestBody("application/json", len(text), lambda: iter((text,)))


def build_json_body_with_file(
    fields: Mapping[str, Json], path: Path, size_bytes: int, *, field: tuple[str, str]
) -> RequestBody:
    """Build a JSON body with one file as base64, at `{…, outer: {inner: "…"}}` where `field` is (outer, inner).

    `fields` must have the object `outer`. The file becomes its last member.
    """
    outer, inner = field
    placeholder = make_placeholder()
    container = fields[outer]
    assert isinstance(container, dict)
    template = {**fields, outer: {**container, inner: placeholder}}
    return build_json_body_with_files(template, [(placeholder, path, size_bytes)])


def make_placeholder() -> str:
    """Return a random text that stands for a file in a JSON body."""
    import secrets

    return secrets.token_hex(16)


def build_json_body_with_files(template: Mapping[str, Json], files: Sequence[tuple[str, Path, int]]) -> RequestBody:
    """Build a JSON body with files as base64. `files` are (placeholder, path, size in bytes) in order of occurrence."""
    tail = _encode_json(template)
    heads = []
    for placeholder, _, _ in files:
        head, tail = tail.split(placeholder.encode())
        heads.append(head)

    def iter_blocks() -> Iterator[bytes]:
        for head, (_, path, size_bytes) in zip(heads, files, strict=True):
            yield head
            for block in _read_file(path, size_bytes):
                yield base64.b64encode(block)
        yield tail

    encoded_bytes = sum(4 * ((size_bytes + 2) // 3) for _, _, size_bytes in files)
    return RequestBody("application/json", sum(map(len, heads)) + encoded_bytes + len(tail), iter_blocks)


def build_multipart_body(
    fields: Sequence[tuple[str, str]], *, path: Path, size_bytes: int, file_name: str, media_type: str
) -> RequestBody:
    """Build a multipart form. The last part, `file`, is streamed from disk.

    `file_name` is derived from the format, because gateways detect the format by its extension. The user's file names
    are not sent.
    """
    import secrets

    boundary = f"audiocli-{secrets.token_hex(16)}"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{_escape_field_name(name)}"\r\n\r\n'.encode(
            "utf-8", "replace"
        )
        + value.encode("utf-8", "replace")
        + b"\r\n"
        for name, value in fields
    ]
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{file_name}"\r\n'
        f"Content-Type: {media_type}\r\n\r\n".encode()
    )
    head = b"".join(parts)
    tail = f"\r\n--{boundary}--\r\n".encode()

    def iter_blocks() -> Iterator[bytes]:
        yield head
        yield from _read_file(path, size_bytes)
        yield tail

    return RequestBody(f"multipart/form-data; boundary={boundary}", len(head) + size_bytes + len(tail), iter_blocks)


def _escape_field_name(name: str) -> str:
    """Escape a name for a Content-Disposition, as browsers do (WHATWG, "multipart/form-data")."""
    return name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")


def _encode_json(fields: Mapping[str, Json]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _read_file(path: Path, size_bytes: int) -> Iterator[bytes]:
    """Read exactly the announced number of bytes. Bytes that are appended in the meantime are not sent.

    Raises:
        RecordingError: The file cannot be read, or has become shorter.
    """
    remaining_bytes = size_bytes
    try:
        source = path.open("rb")
    except OSError as error:
        raise RecordingError(f"cannot read {path}: {error.strerror}") from error
    with source:
        while remaining_bytes:
            try:
                block = source.read(min(BLOCK_BYTES, remaining_bytes))
            except OSError as error:
                raise RecordingError(f"cannot read {path}: {error.strerror}") from error
            if not block:
                raise RecordingError(f"{path} became shorter while it was being sent")
            remaining_bytes -= len(block)
            yield block


def get_granularities(request: TranscriptionRequest, route: Route) -> tuple[str, ...]:
    """Return the granularities to request. `word` includes `segment`, since some gateways omit segments otherwise."""
    has_words = request.timestamps is Timestamps.WORD and "word" not in route.unsupported
    return ("word", "segment") if has_words else ("segment",)


def build_common_fields(request: TranscriptionRequest) -> list[tuple[str, str]]:
    """Return the optional fields that every gateway with multipart requests accepts."""
    form = []
    if request.language:
        form.append(("language", find_language_code(request.language) or request.language))
    if request.prompt:
        form.append(("prompt", request.prompt))
    if request.temperature is not None:
        form.append(("temperature", encode_scalar(request.temperature)))
    return form


def build_recording_form(form: Sequence[tuple[str, str]], request: TranscriptionRequest) -> RequestBody:
    """Add the recording to a form. The file name states the format and nothing else."""
    recording = request.recording
    upload = formats.find_format(recording.format)
    suffix, media_type = (upload.upload_suffix, upload.media_type) if upload else ("", "application/octet-stream")
    return build_multipart_body(
        form,
        path=recording.path,
        size_bytes=recording.size_bytes,
        file_name=f"audio{suffix}",
        media_type=media_type,
    )


def get_upload_name(format: str) -> str:
    """Return the name of a format in a JSON body: the extension that gateways accept, such as ogg for opus."""
    upload = formats.find_format(format)
    return upload.upload_suffix.removeprefix(".") if upload is not None else format


def encode_field(name: str, value: Json) -> list[tuple[str, str]]:
    """Encode a JSON value as form fields like OpenAI's clients: `a[b]` for members, `a[]` for items, no null."""
    if value is None:
        return []
    if isinstance(value, dict):
        return [part for key, item in value.items() for part in encode_field(f"{name}[{key}]", item)]
    if isinstance(value, list):
        return [part for item in value for part in encode_field(name if name.endswith("[]") else f"{name}[]", item)]
    return [(name, encode_scalar(value))]


def nest_options(options: Mapping[str, Json]) -> dict[str, Json]:
    """Return request fields with `A.B` as field B inside A, at any depth."""
    nested: dict[str, Json] = {}
    for name, value in options.items():
        *parents, last = name.split(".")
        fields = nested
        for parent in parents:
            child = fields.get(parent)
            # A copy, because the value may be that of another option.
            inner: dict[str, Json] = dict(child) if isinstance(child, dict) else {}
            fields[parent] = inner
            fields = inner
        fields[last] = value
    return nested


def find_option_conflict(options: Mapping[str, Json]) -> str | None:
    """Return the name of an option `A` that cannot contain another option `A.B`; None if there is none."""
    for name in options:
        parts = name.split(".")
        for count in range(1, len(parts)):
            outer = ".".join(parts[:count])
            if outer in options and not isinstance(options[outer], dict):
                return outer
    return None


def encode_scalar(value: Json) -> str:
    """Encode a scalar as text, with numbers as in JSON."""
    return value if isinstance(value, str) else json.dumps(value)
