"""Requests by the OpenAPI specifications of OpenAI and OpenRouter, judged by Prism.

audiocli sends its requests to the mock gateway, and each request is repeated to Prism, which refuses one that violates
the specification. As a proxy in between, Prism would damage audio: it decodes it as text.
`AUDIOCLI_OPENAPI_DIR` is the directory with the files, whose names begin with `openai` and `openrouter`.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from audiocli.mock import KEYS
from tests.conftest import CommandLine, Result
from tests.gateway_contract import SPEECH
from tests.nightly.conftest import Server, find_program, run_server
from tests.requirements import require_path, require_variable

SPEAK = [
    *(f"openai:gpt-4o-mini-tts -v alloy -f {name}" for name in ("mp3", "wav", "flac", "opus", "aac", "pcm")),
    "openai:gpt-4o-mini-tts -v alloy -i Calm. -f mp3",
    "openai:tts-1 -v nova -x 1.5 -f mp3",
    "openai:gpt-4o-mini-tts -v alloy --option stream_format=sse -f mp3",
    "openai:gpt-4o-mini-tts -v id:voice_1234 -f mp3",
    *(f"openrouter:hexgrad/kokoro-82m -v af_heart -f {name}" for name in ("mp3", "wav", "pcm")),
    "openrouter:hexgrad/kokoro-82m -v af_heart -x 1.25 -f mp3",
    "openrouter:openai/gpt-4o-mini-tts-2025-12-15 -v alloy -i Calm. -f mp3",
    "openrouter:hexgrad/kokoro-82m --option user=u --option session_id=s --option trace.trace_id=t -f mp3",
]
TRANSCRIBE = [
    "openai:whisper-1 -f txt",
    "openai:whisper-1 -f srt -l en -p Names",
    "openai:whisper-1 -f json --temperature 0.2 --timestamps word",
    "openai:whisper-1 -f txt --translate",
    "openai:gpt-transcribe -f txt -l de --keyterms Pelé,Zico",
    "openai:gpt-4o-transcribe -f txt -l en -p Names",
    "openai:gpt-4o-transcribe -f txt --option chunking_strategy.type=server_vad",
    "openai:gpt-4o-transcribe -f txt --stream",
    "openai:gpt-4o-transcribe-diarize -f json --diarize",
    "openrouter:openai/whisper-1 -f txt -l en",
    "openrouter:openai/whisper-1 -f srt --temperature 0.2",
    "openrouter:openai/whisper-1 -f txt -p Names",
    "openrouter:microsoft/mai-transcribe-2 -f txt --keyterms Pelé,Zico --option provider.zdr=true",
    "openrouter:microsoft/mai-transcribe-2 -f json --diarize",
]


def find_document(name: str) -> Path:
    """Return the OpenAPI file of a gateway, or skip the test."""
    hint = "download the OpenAPI files, as .ci/nightly says"
    directory = Path(require_variable("AUDIOCLI_OPENAPI_DIR", hint)).resolve()
    found = sorted(path for path in directory.glob(f"{name}*") if path.suffix in (".yaml", ".yml", ".json"))
    return found[0] if found else require_path(directory / f"{name}.yaml", hint)


@pytest.fixture(scope="session", params=["openai", "openrouter"])
def prism(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Server]]:
    """The name of a gateway, and Prism with its specification."""
    program = find_program("node", "node_modules", ".bin", "prism")
    document = find_document(request.param)
    with run_server(tmp_path_factory.mktemp("prism"), "/models", program, "mock", document, "--errors") as server:
        yield request.param, server


def judge(server: Server, path: str, body: bytes, content_type: str) -> tuple[int, str]:
    """Send a request to Prism, and return the status and the text of its response."""
    headers = {"Content-Type": content_type, "Authorization": "Bearer key"}
    try:
        with urllib.request.urlopen(urllib.request.Request(server.url + path, body, headers), timeout=30) as response:
            return response.status, response.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode("utf-8", "replace")


def check_requests(audiocli: CommandLine, prism: tuple[str, Server], result: Result) -> None:
    """Assert that every POST request of a command line conforms to the specification of its gateway."""
    name, server = prism
    assert result.code == 0, result.err
    assert result.posts
    for request in result.posts:
        path = request.path.removeprefix(audiocli.gateway.dialects[name].prefix)
        status, text = judge(server, path, request.body_prefix, request.headers["content-type"])
        assert status == 200, f"{path}: {status} {text}"


def test_prism_refuses_a_request_that_violates_the_specification(prism: tuple[str, Server]) -> None:
    body = b'{"model": "tts-1", "input": 7, "voice": "nova"}'
    status, text = judge(prism[1], "/audio/speech", body, "application/json")
    # The specification of OpenRouter describes a response with 400, which Prism then sends instead of 422.
    assert status in (400, 422), text


def test_requests_conform_to_the_specification(audiocli: CommandLine, prism: tuple[str, Server]) -> None:
    audiocli.variables["OPENAI_API_KEY"] = KEYS["openai"] or ""
    recording = audiocli.directory / "talk.wav"
    recording.write_bytes(SPEECH)
    for options in SPEAK:
        if options.startswith(f"{prism[0]}:"):
            output = audiocli.directory / "out.bin"
            check_requests(audiocli, prism, audiocli("speak", options, "-o", output, "-m", *options.split()))
    for options in TRANSCRIBE:
        if options.startswith(f"{prism[0]}:"):
            command = ["transcribe", recording, "--no-resume", "-o", "-", "-m", *options.split()]
            check_requests(audiocli, prism, audiocli(*command))
