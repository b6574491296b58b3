"""Test options that protect privacy: they are sent or the route is skipped, and never dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from audiocli.mock import expected_pcm
from tests.conftest import CommandLine, Result
from tests.gateway_contract import SPEECH
from tests.test_transcribe import build_wav

PRIVACY: dict[str, tuple[str, Any]] = {
    "provider.zdr=true": ("zdr", True),
    "provider.data_collection=deny": ("data_collection", "deny"),
    "zdr=true": ("zdr", True),
    "data_collection=deny": ("data_collection", "deny"),
}
OPENROUTER_MODELS = {"speak": "openrouter:hexgrad/kokoro-82m", "transcribe": "openrouter:openai/whisper-1"}
# A model of every gateway without these options, by command.
OTHER_MODELS = [
    ("speak", "openai:tts-1"),
    ("speak", "therouter:openai/tts-1"),
    ("speak", "arouter:openai/tts-1"),
    ("speak", "groq:canopylabs/orpheus-v1-english"),
    ("speak", "home:tts-1"),
    ("transcribe", "openai:whisper-1"),
    ("transcribe", "therouter:openai/whisper-1"),
    ("transcribe", "arouter:openai/whisper-1"),
    ("transcribe", "groq:whisper-large-v3"),
    ("transcribe", "home:whisper-1"),
]


def run(cli: CommandLine, command: str, *argv: str | Path) -> Result:
    if command == "speak":
        return cli("speak", "Hello there", "-o", cli.directory / "x.mp3", *argv)
    return cli("transcribe", cli.directory / "talk.wav", *argv)


@pytest.mark.parametrize("option", PRIVACY)
@pytest.mark.parametrize("command", ["speak", "transcribe"])
def test_privacy_option_is_sent_to_openrouter(all_gateways_cli: CommandLine, command: str, option: str) -> None:
    r = run(all_gateways_cli, command, "-m", OPENROUTER_MODELS[command], "--option", option)

    name, value = PRIVACY[option]
    assert r.code == 0, r.err
    assert r.posts[0].json["provider"] == {name: value}
    assert option.partition("=")[0] not in r.err
    assert all_gateways_cli.gateway.problems == []


def test_privacy_option_is_sent_with_options_of_a_provider(all_gateways_cli: CommandLine) -> None:
    options = ("--option", "provider.zdr=true", "--option", "openai.prompt=Names")

    r = run(all_gateways_cli, "transcribe", "-m", OPENROUTER_MODELS["transcribe"], *options)

    assert r.posts[0].json["provider"] == {"zdr": True, "options": {"openai": {"prompt": "Names"}}}


@pytest.mark.parametrize("repetitions", [18, 60])
def test_privacy_option_is_sent_with_every_chunk(
    all_gateways_cli: CommandLine, tmp_path: Path, repetitions: int
) -> None:
    path = tmp_path / "talk.wav"
    path.write_bytes(build_wav(expected_pcm("x" * 100) * repetitions))

    r = run(all_gateways_cli, "transcribe", "-m", OPENROUTER_MODELS["transcribe"], "--option", "provider.zdr=true")

    assert r.code == 0, r.err
    assert r.posts
    assert [(request.json or {}).get("provider") for request in r.posts] == [{"zdr": True}] * len(r.posts)


@pytest.mark.parametrize(("command", "model"), OTHER_MODELS)
@pytest.mark.parametrize("option", ["provider.zdr=true", "provider.data_collection=deny"])
def test_route_that_cannot_keep_privacy_is_skipped(
    all_gateways_cli: CommandLine, command: str, model: str, option: str
) -> None:
    alone = run(all_gateways_cli, command, "-m", model, "--option", option)

    assert (alone.code, alone.requests) == (2, []), alone.err
    assert option.partition("=")[0] in alone.err

    routes = ("-m", model, "-m", OPENROUTER_MODELS[command])
    fallback = run(all_gateways_cli, command, *routes, "--option", option, "--json")

    assert fallback.code == 0, fallback.err
    assert {request.dialect for request in fallback.posts} == {"openrouter"}
    [warning] = [text for text in fallback.json["warnings"] if "skipping" in text]
    assert option.partition("=")[0] in warning


def test_batch_without_a_private_route_sends_nothing(all_gateways_cli: CommandLine) -> None:
    (all_gateways_cli.directory / "second.wav").write_bytes(SPEECH)

    r = run(
        all_gateways_cli, "transcribe", all_gateways_cli.directory / "second.wav",
        "-m", "openai:whisper-1", "--option", "provider.zdr=true",
    )  # fmt: skip

    assert (r.code, r.requests) == (2, []), r.err


def test_missing_key_of_the_private_route_does_not_lead_to_another(audiocli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "talk.wav").write_bytes(SPEECH)
    variables = {"OPENROUTER_API_KEY": "", "OPENAI_API_KEY": "sk-1"}

    r = audiocli(
        *("transcribe", tmp_path / "talk.wav", "-m", "openai:whisper-1", "-m", OPENROUTER_MODELS["transcribe"]),
        *("--option", "provider.zdr=true"),
        variables=variables,
    )

    assert (r.code, r.requests) == (2, []), r.err
