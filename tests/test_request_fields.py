"""Test fields of requests that the command line sets: nested options, custom voices, terms, turns and references."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest

from audiocli.mock import KEYS
from tests.conftest import CommandLine
from tests.gateway_contract import SPEECH
from tests.test_openai_client import OPENAI, TEXT, read_form_fields, write_recording

TURNS = json.dumps([{"text": "Who is there?"}, {"text": "Me."}])


def test_nested_option_equals_openai_client(audiocli: CommandLine, tmp_path: Path) -> None:
    talk = write_recording(tmp_path, "wav")
    strategy: Any = {"type": "server_vad", "threshold": 0.5, "silence_duration_ms": 300}
    base_url = audiocli.gateway.base_url("openai")
    with openai.OpenAI(api_key=KEYS["openai"], base_url=base_url, max_retries=0) as client, talk.open("rb") as file:
        client.audio.transcriptions.create(
            model="gpt-4o-transcribe", file=file, response_format="json", chunking_strategy=strategy
        )

    options = [part for name, value in strategy.items() for part in ("--option", f"chunking_strategy.{name}={value}")]
    r = audiocli("transcribe", talk, "-m", "openai:gpt-4o-transcribe", *options, variables=OPENAI)

    theirs, ours = audiocli.gateway.requests
    assert r.code == 0, r.err
    assert read_form_fields(ours) == read_form_fields(theirs)
    assert ("chunking_strategy[type]", "server_vad") in read_form_fields(ours)


def test_nested_option_replaces_the_default_of_diarization(audiocli: CommandLine, tmp_path: Path) -> None:
    talk = write_recording(tmp_path, "wav")

    r = audiocli(
        *("transcribe", talk, "-m", "openai:gpt-4o-transcribe-diarize", "--diarize"),
        *("--option", "chunking_strategy.type=server_vad"),
        variables=OPENAI,
    )

    assert r.code == 0, r.err
    assert [item for item in read_form_fields(r.requests[0]) if item[0].startswith("chunking")] == [
        ("chunking_strategy[type]", "server_vad")
    ]


@pytest.mark.parametrize("name", ["home", "groq", "arouter", "therouter"])
def test_nested_option_is_a_field_inside_a_field_elsewhere(
    all_gateways_cli: CommandLine, tmp_path: Path, name: str
) -> None:
    model = {"groq": "canopylabs/orpheus-v1-english", "home": "tts-1"}.get(name, "openai/tts-1")

    r = all_gateways_cli(
        *("speak", "Hello there", "-m", f"{name}:{model}", "-o", tmp_path / "x.wav"),
        *("--option", "a.b.c=1", "--option", 'a.d=["x"]'),
    )

    assert r.requests[0].json["a"] == {"b": {"c": 1}, "d": ["x"]}


@pytest.mark.parametrize("voice", ["id:voice_123", "voice_123", "id:Custom"])
def test_custom_voice_equals_openai_client(audiocli: CommandLine, tmp_path: Path, voice: str) -> None:
    voice_field: Any = {"id": voice.removeprefix("id:")}
    base_url = audiocli.gateway.base_url("openai")
    with openai.OpenAI(api_key=KEYS["openai"], base_url=base_url, max_retries=0) as client:
        client.audio.speech.create(model="gpt-4o-mini-tts", input=TEXT, response_format="mp3", voice=voice_field)

    r = audiocli("speak", TEXT, "-g", "openai", "-o", tmp_path / "x.mp3", "-v", voice, variables=OPENAI)

    theirs, ours = audiocli.gateway.requests
    assert r.code == 0, r.err
    assert ours.json == theirs.json


def test_custom_voice_is_a_name_at_openrouter(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("speak", "Hi", "-m", "openrouter:fish-audio/s2.1-pro", "-v", "id:abc", "-o", tmp_path / "x.mp3")

    assert r.requests[0].json["voice"] == "abc"


def test_keyterms_are_keywords_of_gpt_transcribe(audiocli: CommandLine, tmp_path: Path) -> None:
    talk = write_recording(tmp_path, "wav")

    r = audiocli("transcribe", talk, "-m", "openai:gpt-transcribe", "--keyterms", "Pelé,São Paulo", variables=OPENAI)

    assert r.code == 0, r.err
    assert r.requests[0].get_form_values("keywords[]") == ["Pelé", "São Paulo"]
    assert r.requests[0].problems == []


def test_transcript_with_other_keyterms_is_not_reused(audiocli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "talk.wav").write_bytes(SPEECH)
    argv = ("transcribe", tmp_path / "talk.wav", "-m", "openrouter:microsoft/mai-transcribe-2")

    counts = [len(audiocli(*argv, "--keyterms", terms).posts) for terms in ("Pelé", "Pelé", "Zico")]

    assert counts == [1, 0, 1]


FISH = ("-m", "openrouter:fish-audio/s2.1-pro")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("speak", "-m", "openai:gpt-4o-mini-tts", "--option", f"input={TURNS}"), "does not support --option input"),
        (("speak", "Hi", *FISH, "--option", f"input={TURNS}"), "TEXT cannot be used"),
        (("speak", *FISH, "--option", "input=[1]"), "turn 1 has no text"),
        (("speak", *FISH, "--option", "input=[{"), "not valid JSON"),
        (("speak", *FISH, "--option", "input=[]"), "no text to speak"),
        (("speak", "Hi", "-m", "openai:gpt-4o-mini-tts", "--reference", "talk.wav"), "does not support --reference"),
        (("speak", "Hi", *FISH, "--reference", "no.wav"), "cannot read no.wav"),
        (("speak", "Hi", *FISH, "--reference", "x.txt"), "not a recognized audio file"),
        (("speak", "Hi", *FISH, *("--reference", "talk.wav") * 4), "at most 3"),
        (("speak", "Hi", *FISH, "--option", f"session_id={'x' * 257}"), "256"),
        (("speak", "Hi", "-m", "openai:tts-1", "--option", "a=1", "--option", "a.b=2"), "contradicts"),
        (("speak", "Hi", "-m", "openai:tts-1", "--option", "voice.id=x"), "audiocli sets this field itself"),
        (("transcribe", "talk.wav", "-m", "openai:whisper-1", "--option", "file.x=1"), "audiocli sets this field"),
        (("transcribe", "talk.wav", "-m", "openai:whisper-1", "--keyterms", " , "), "has no terms"),
        (("transcribe", "talk.wav", "-m", "openrouter:openai/gpt-4o-transcribe", "--diarize"), "does not support diar"),
    ],
)
def test_invalid_fields_are_refused_before_anything_is_sent(
    all_gateways_cli: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, argv: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "talk.wav").write_bytes(SPEECH)
    (tmp_path / "x.txt").write_text("no audio")
    output = ("-o", "x.mp3") if argv[0] == "speak" else ()

    r = all_gateways_cli(*argv, *output)

    assert (r.code, r.posts) == (2, []), r.err
    assert message in r.err
