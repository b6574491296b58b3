"""The mock gateway, judged by programs of others: the OpenAI client for Node, and Prism with OpenAI's specification."""

from __future__ import annotations

import http.client
import json
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from audiocli.mock import DEFAULT_CHAT_REPLY, DEFAULT_TRANSCRIPT, MockGateway, WrongTypes
from tests.gateway_contract import SPEECH
from tests.nightly.conftest import Server, find_program, run_server
from tests.nightly.test_specifications import find_document
from tests.pyav_codec import CODEC
from tests.requirements import require_packages
from tests.test_mock_command import serve, variables

__all__ = ["variables"]

CLIENT = Path(__file__).parent / "openai_client.mjs"


def run_node_client(base_url: str, key: str, recording: Path) -> Any:
    """Return what the OpenAI client for Node reads from a server."""
    modules = find_program("node", "node_modules", "openai").parent
    done = subprocess.run(
        ["node", CLIENT, modules, base_url, key, recording], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_node_client_accepts_the_mock_gateway(tmp_path: Path) -> None:
    recording = tmp_path / "talk.wav"
    recording.write_bytes(SPEECH)
    with MockGateway(CODEC) as gateway:
        result = run_node_client(gateway.base_url("openai"), "sk-test", recording)

    assert {"tts-1", "whisper-1"} <= set(result.pop("models"))
    assert result == {
        "speech": "RIFF",
        "text": DEFAULT_TRANSCRIPT,
        "words": 9,
        "segments": 1,
        "deltas": DEFAULT_TRANSCRIPT,
        "chat": DEFAULT_CHAT_REPLY,
        "error": {"name": "NotFoundError", "status": 404, "code": "model_not_found"},
    }
    assert gateway.requests[-1].problems


def test_node_client_accepts_the_local_engines(tmp_path: Path, variables: dict[str, str]) -> None:
    require_packages("espeakng_loader", "pocketsphinx")
    Path(variables["TMPDIR"]).mkdir()
    with serve(tmp_path, variables, "--engine", "local") as server:
        _, audio = server.request("/v1/audio/speech", {"model": "espeak", "input": "hello", "response_format": "wav"})
        (tmp_path / "hello.wav").write_bytes(audio)
        result = run_node_client(server.variables["OPENAI_BASE_URL"], "any", tmp_path / "hello.wav")

    assert (result["speech"], result["error"]["code"]) == ("RIFF", "model_not_found")
    assert "hello" in result["text"].lower() and result["words"] >= 1


@pytest.fixture(scope="module")
def prism_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MockGateway, Server]]:
    """The mock gateway, and Prism in front of it, which refuses what violates the specification of OpenAI."""
    program = find_program("node", "node_modules", ".bin", "prism")
    source = find_document("openai")
    directory = tmp_path_factory.mktemp("prism-proxy")
    document = directory / source.name
    # Detailed transcripts match the schema of plain ones too, so even OpenAI's own examples violate `oneOf`.
    document.write_text(source.read_text("utf-8").replace("oneOf:", "anyOf:"), "utf-8")
    with MockGateway(CODEC) as gateway:
        arguments = ("proxy", document, gateway.base_url("openai"), "--errors", "--validate-request=false")
        with run_server(directory, "/models", program, *arguments) as server:
            yield gateway, server


def make_text_wav() -> bytes:
    """Return a second of silence whose bytes are all below 128, because Prism reads bodies as text."""
    rate_hz, size_bytes = 0x3E00, 0x7000
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", size_bytes + 36, b"WAVE", b"fmt ", 16, 1, 1, rate_hz,
                         2 * rate_hz, 2, 16, b"data", size_bytes)  # fmt: skip
    return header + bytes(size_bytes)


def transcribe(server: Server, **fields: str) -> tuple[int, Any]:
    boundary = "boundary-of-the-test"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()
        for name, text in fields.items()
    ]
    head = 'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
    body = b"".join([*parts, f"--{boundary}\r\n{head}".encode(), make_text_wav(), f"\r\n--{boundary}--\r\n".encode()])
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    try:
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Authorization": "Bearer sk-test"}
        connection.request("POST", "/audio/transcriptions", body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "whisper-1"},
        {"model": "whisper-1", "response_format": "verbose_json", "timestamp_granularities[]": "word"},
        {"model": "gpt-4o-transcribe", "response_format": "json"},
        {"model": "gpt-4o-transcribe-diarize", "response_format": "diarized_json"},
    ],
    ids=lambda fields: "-".join(fields.values()),
)
def test_prism_accepts_transcripts_of_the_mock_gateway(
    prism_proxy: tuple[MockGateway, Server], fields: dict[str, str]
) -> None:
    status, document = transcribe(prism_proxy[1], **fields)

    assert (status, "text" in document) == (200, True), document.get("validation", document)


def test_prism_refuses_a_transcript_that_violates_the_specification(prism_proxy: tuple[MockGateway, Server]) -> None:
    prism_proxy[0].queue_faults(WrongTypes())
    status, document = transcribe(prism_proxy[1], model="whisper-1")

    assert (status, document.get("type", "").endswith("VIOLATIONS")) == (500, True), document
