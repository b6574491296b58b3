"""The phrase cache: the same speech is paid for once."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audiocli.core.speech_names import compute_chunk_name, compute_phrase_name
from audiocli.mock import CleanTruncation, CutAfter, NoFault, Status, SubstituteModel, expected_pcm
from audiocli.storage.phrase_cache import PhraseCache
from audiocli.types.ledger import CostSource
from audiocli.types.requests import SpeechRequest
from audiocli.types.routes import Route
from tests.conftest import CommandLine, Result
from tests.gateway_contract import GATEWAYS_BY_NAME
from tests.requirements import require_packages
from tests.test_player_status import install_player

HELLO = "Hello there, world."
SENTENCES = [f"The sentence of {name} is spoken aloud." for name in ("alpha", "bravo", "charlie", "delta")]
NAME = "0123456789abcdef0123456789abcdef"


def speak(cli: CommandLine, *argv: str | Path, text: str = HELLO, name: str = "x.mp3", **options: Any) -> Result:
    r = cli("speak", text, "-o", cli.directory / name, *argv, **options)
    assert r.code == 0, r.err
    return r


def get_phrases_directory(cli: CommandLine) -> Path:
    return Path(cli.variables["XDG_DATA_HOME"]) / "audiocli" / "phrases"


def list_audio(cli: CommandLine) -> list[Path]:
    return sorted(get_phrases_directory(cli).glob("*.audio"))


def list_unfinished(cli: CommandLine) -> list[Path]:
    return list((Path(cli.variables["XDG_CACHE_HOME"]) / "audiocli" / "speech").glob("*"))


# --- one request -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gateway_name", GATEWAYS_BY_NAME)
@pytest.mark.parametrize("format", ["mp3", "wav", "pcm", "opus", "m4a"])
def test_same_speech_is_paid_for_once(all_gateways_cli: CommandLine, gateway_name: str, format: str) -> None:
    cli, model = all_gateways_cli, GATEWAYS_BY_NAME[gateway_name].speech_model
    first = speak(cli, "-m", f"{gateway_name}:{model}", name=f"a.{format}")

    again = speak(cli, "-m", f"{gateway_name}:{model}", name=f"b.{format}")

    assert (len(first.posts), len(first.ledger)) == (1, 1)
    assert (again.requests, again.ledger) == ([], [])
    expected, content = ((cli.directory / f"{name}.{format}").read_bytes() for name in "ab")
    # An encoder of Ogg chooses a random number for each file.
    is_encoded = format == "opus" and first.posts[0].json["response_format"] != "opus"
    assert len(content) == len(expected) if is_encoded else content == expected
    first_line, cached_line = (r.err.splitlines()[-1].split("  ") for r in (first, again))
    assert cached_line[1:-1] == first_line[1:-1]
    assert (cached_line[-1], first_line[-1] == "cached") == ("cached", False)


def test_cached_result_in_json_has_no_requests_and_no_cost(audiocli: CommandLine) -> None:
    first = speak(audiocli, "--json").json

    cached = speak(audiocli, "--json").json

    assert (first["cached"], first["requests"]) == (False, 1)
    assert (cached["cached"], cached["requests"], cached["attempts"]) == (True, 0, 0)
    assert (cached["cost_usd"], cached["cost_source"], cached["generation_ids"]) == (0, "computed", [])
    for key in ("output", "bytes", "sha256", "format", "duration_s", "gateway", "model", "voice", "warnings"):
        assert cached[key] == first[key], key


def test_request_that_differs_is_sent(audiocli: CommandLine) -> None:
    audiocli.variables["OPENAI_API_KEY"] = "sk-test"
    model = ("-m", "openai:gpt-4o-mini-tts", "-v", "nova")
    variants: list[tuple[str, ...]] = [
        model,
        ("-m", "openai:tts-1", "-v", "nova"),
        (*model[:2], "-v", "alloy"),
        (*model, "-x", "1.5"),
        (*model, "-i", "Whisper."),
        (*model, "-i", "Shout."),
        ("-m", "openrouter:openai/gpt-4o-mini-tts-2025-12-15", "--option", "azure.style=cheerful"),
        ("-m", "openrouter:openai/gpt-4o-mini-tts-2025-12-15", "--option", "azure.style=sad"),
        (*model, "-f", "flac"),
        (*model, "--base-url", audiocli.gateway.base_url("openai") + "/"),
        (*model, "--base-url", audiocli.gateway.base_url("openai").replace("127.0.0.1", "localhost")),
    ]

    sent = [len(speak(audiocli, *variant, name="x").posts) for variant in variants[:-2]]
    sent_again = [len(speak(audiocli, *variant, name="x").posts) for variant in variants[:-2]]
    other_text = speak(audiocli, *model, text=HELLO.lower(), name="x")
    other_server = speak(audiocli, *variants[-1], name="x")

    assert sent == [1] * len(sent)
    assert sent_again == [0] * len(sent)
    assert (len(other_text.posts), len(other_server.posts)) == (1, 1)


def test_stdout_player_and_captions_get_cached_speech(audiocli: CommandLine, tmp_path: Path) -> None:
    speak(audiocli)
    expected = (tmp_path / "x.mp3").read_bytes()
    received = install_player(audiocli, "mpv")

    to_stdout = audiocli("speak", HELLO, "-o", "-")
    played = audiocli("speak", HELLO, "--play")
    with_captions = speak(audiocli, "--captions", tmp_path / "x.srt", name="y.mp3")

    assert [r.requests for r in (to_stdout, played, with_captions)] == [[], [], []]
    assert to_stdout.out == expected
    assert played.code == 0, played.err
    assert received.read_bytes() == expected
    assert (tmp_path / "y.mp3").read_bytes() == expected
    assert HELLO in (tmp_path / "x.srt").read_text()


def test_turns_are_part_of_the_name() -> None:
    route = Route("openrouter", "openrouter", "https://example.com", "m", voice="v")
    request = SpeechRequest("Hi.\nHo.", "mp3")
    turns = ({"speaker": "Ann", "text": "Hi."}, {"speaker": "Bob", "text": "Ho."})
    others = ({"speaker": "Bob", "text": "Hi."}, {"speaker": "Ann", "text": "Ho."})

    names = {compute_phrase_name(request._replace(turns=value), route) for value in ((), turns, others)}

    assert len(names) == 3
    assert compute_phrase_name(request, route) not in {compute_chunk_name(request, route)}


def test_name_of_a_chunk_is_that_of_0_1() -> None:
    route = Route("openrouter", "openrouter", "https://example.com/v1", "a/b", voice="nova")
    request = SpeechRequest("Hello ü", "pcm", 1.5, "Slowly.", {"b": 1, "a": [True]})

    assert compute_chunk_name(request, route) == "84229696e8ca4d89ba53f891d0636967"


def test_cached_speech_needs_no_spending_limit_and_no_prices(audiocli: CommandLine) -> None:
    speak(audiocli)

    r = speak(audiocli, "--max-cost", "0", name="y.mp3")
    plan = audiocli("speak", HELLO, "-o", audiocli.directory / "z.mp3", "-n", "--json").json

    assert r.requests == []
    assert (plan["requests"], plan["kept"], plan["price_usd"]) == (0, 1, 0)


def test_cached_speech_of_a_fallback_is_used(audiocli: CommandLine) -> None:
    audiocli.variables["OPENAI_API_KEY"] = "sk-test"
    models = ("-m", "openai:tts-1", "-m", "openrouter:x-ai/grok-voice-tts-1.0")
    audiocli.gateway.queue_faults(Status(404), model="tts-1")
    first = speak(audiocli, *models, "--json").json

    again = speak(audiocli, *models, "--json")

    assert (first["gateway"], again.json["gateway"], again.requests) == ("openrouter", "openrouter", [])


def test_local_speech_is_not_stored(audiocli: CommandLine) -> None:
    require_packages("espeakng_loader")

    speak(audiocli, "-m", "local:espeak", name="x.wav")
    r = speak(audiocli, "-m", "local:espeak", name="y.wav")

    assert r.err.rstrip().endswith("free")
    assert list_audio(audiocli) == []


# --- what is stored --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [CleanTruncation(4000), SubstituteModel()], ids=["short", "other model"])
def test_suspicious_speech_is_not_stored(all_gateways_cli: CommandLine, fault: Any) -> None:
    cli, options = all_gateways_cli, ("-g", "therouter", "-f", "pcm")
    cli.gateway.queue_faults(fault)
    text = "This sentence is long enough to show that most of its audio is missing, so it is not stored."
    suspicious = cli("speak", text, "-o", cli.directory / "x.pcm", *options)
    assert "warning: " in suspicious.err

    again = speak(cli, *options, text=text, name="y.pcm")
    cached = speak(cli, *options, text=text, name="z.pcm")

    assert (len(again.posts), cached.requests) == (1, [])


def test_failed_response_leaves_nothing(audiocli: CommandLine) -> None:
    audiocli.gateway.queue_faults(CutAfter(1000))

    r = audiocli("speak", HELLO, "-o", audiocli.directory / "x.mp3")

    assert r.code == 7
    assert list(get_phrases_directory(audiocli).glob("*")) == []


def test_retried_response_is_stored_once(audiocli: CommandLine) -> None:
    audiocli.gateway.queue_faults(CutAfter(1000))

    speak(audiocli, "--retry-unknown")

    assert len(list(get_phrases_directory(audiocli).iterdir())) == 3
    assert speak(audiocli, name="y.mp3").requests == []


def test_files_are_private(audiocli: CommandLine) -> None:
    speak(audiocli)

    directory = get_phrases_directory(audiocli)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}


def _cut(audio: Path, description: Path) -> None:
    audio.write_bytes(audio.read_bytes()[:-1])


def _change_byte(audio: Path, description: Path) -> None:
    content = bytearray(audio.read_bytes())
    content[len(content) // 2] ^= 1
    audio.write_bytes(content)


def _append(audio: Path, description: Path) -> None:
    audio.write_bytes(audio.read_bytes() + b"x")


def _delete(audio: Path, description: Path) -> None:
    audio.unlink()


def _replace_by_directory(audio: Path, description: Path) -> None:
    audio.unlink()
    audio.mkdir()


def _replace_by_fifo(audio: Path, description: Path) -> None:
    audio.unlink()
    os.mkfifo(audio)


def _rewrite(content: object) -> Callable[[Path, Path], None]:
    def damage(audio: Path, description: Path) -> None:
        text = content if isinstance(content, str) else json.dumps({**json.loads(description.read_text()), **content})  # type: ignore[dict-item]
        description.write_text(text)

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        _cut,
        _change_byte,
        _append,
        _delete,
        _replace_by_directory,
        _replace_by_fifo,
        *map(_rewrite, ("", "null", "[]", "{", "[" * 9999, {"sha256": "../x"}, {"sha256": None}, {"headers": 1})),
        *map(_rewrite, ({"size_bytes": "x"}, {"size_bytes": -1}, {"cost_nanousd": "x"}, {"size_bytes": 1e999})),
    ],
)
def test_damaged_phrase_is_requested_again(audiocli: CommandLine, damage: Callable[[Path, Path], None]) -> None:
    speak(audiocli)
    expected = (audiocli.directory / "x.mp3").read_bytes()
    (audio,) = list_audio(audiocli)
    damage(audio, audio.with_name(f"{audio.name[:32]}.json"))

    r = speak(audiocli, name="y.mp3")

    assert len(r.posts) == 1
    assert (audiocli.directory / "y.mp3").read_bytes() == expected
    if audio.is_file():
        assert speak(audiocli, name="z.mp3").requests == []
    assert (audiocli.directory / "y.mp3").read_bytes() == expected


def test_stored_audio_that_a_check_refuses_is_requested_again(audiocli: CommandLine) -> None:
    speak(audiocli)
    (audio,) = list_audio(audiocli)
    writer = PhraseCache(audio.parent, 10**9).create(audio.name[:32], {"content-type": "text/html"})
    writer.write(b"<html>an older version has stored this</html>")
    writer.commit(None, CostSource.UNKNOWN)

    r = speak(audiocli, name="y.mp3")

    assert len(r.posts) == 1
    assert (audiocli.directory / "y.mp3").read_bytes() == (audiocli.directory / "x.mp3").read_bytes()
    assert speak(audiocli, name="z.mp3").requests == []


@pytest.mark.parametrize("obstacle", ["file", "full"])
def test_store_that_cannot_be_written_is_not_an_error(audiocli: CommandLine, obstacle: str) -> None:
    directory = get_phrases_directory(audiocli)
    directory.parent.mkdir(parents=True)
    if obstacle == "file":
        directory.write_text("mine")
    else:
        directory.symlink_to("/nonexistent/directory")

    r = speak(audiocli)

    assert len(r.posts) == 1
    assert "error" not in r.err


def test_writers_of_the_same_phrase_do_not_mix(tmp_path: Path) -> None:
    one, other = (PhraseCache(tmp_path / "phrases", 10**9) for _ in range(2))
    first, second = one.create(NAME, {}), other.create(NAME, {"content-type": "audio/mpeg"})
    first.write(b"one ")
    second.write(b"two ")
    first.write(b"first")
    second.write(b"second")

    first.commit(1, CostSource.REPORTED)
    reader = other.open(NAME)
    second.commit(2, CostSource.REPORTED)
    last = one.open(NAME)

    assert reader is not None and last is not None
    assert b"".join(reader.read_blocks()) == b"one first"
    assert (b"".join(last.read_blocks()), last.headers) == (b"two second", {"content-type": "audio/mpeg"})
    reader.close()
    last.close()


# --- options and configuration ---------------------------------------------------------------------------------------


def test_no_cache_neither_reads_nor_stores(audiocli: CommandLine) -> None:
    assert len(speak(audiocli, "--no-cache").posts) == 1
    assert list_audio(audiocli) == []
    speak(audiocli)

    assert len(speak(audiocli, "--no-cache").posts) == 1


def test_no_resume_sends_again_and_stores(audiocli: CommandLine) -> None:
    assert len(speak(audiocli, "--no-resume").posts) == 1
    assert len(speak(audiocli, "--no-resume").posts) == 1
    assert speak(audiocli).requests == []


def test_config_switches_the_cache_off(audiocli: CommandLine) -> None:
    audiocli.write_config("[speak]\ncache = false\n")
    speak(audiocli)
    assert (len(speak(audiocli).posts), list_audio(audiocli)) == (1, [])

    speak(audiocli, "--cache")
    assert speak(audiocli, "--cache").requests == []
    assert len(speak(audiocli).posts) == 1


def test_cache_of_size_0_is_off(audiocli: CommandLine) -> None:
    audiocli.write_config("[speak]\ncache_mb = 0\n")

    r = speak(audiocli, "--cache")

    assert "warning: --cache has no effect, because speak.cache_mb is 0" in r.err
    assert list_audio(audiocli) == []
    assert "warning" not in speak(audiocli).err


def test_config_shows_and_checks_the_settings(audiocli: CommandLine) -> None:
    assert audiocli("config", "set", "speak.cache_mb", "20").code == 0
    assert audiocli("config", "set", "speak.cache", "false").code == 0

    rows = {row["name"]: row["value"] for row in audiocli("config", "--json").json["settings"]}

    assert (rows["speak.cache"], rows["speak.cache_mb"]) == ("false", "20")
    assert audiocli("config", "set", "speak.cache_mb", "-1").code == 2


# --- long texts ------------------------------------------------------------------------------------------------------

LONG = ("--max-chars", "50", "-j", "2")


def test_finished_long_text_is_paid_for_once(audiocli: CommandLine) -> None:
    text = " ".join(SENTENCES)
    first = speak(audiocli, *LONG, text=text, name="a.wav")

    again = speak(audiocli, *LONG, "--json", text=text, name="b.wav")
    text_line = speak(audiocli, *LONG, text=text, name="c.wav").err.splitlines()[-1]

    assert (len(first.posts), again.requests, again.ledger) == (4, [], [])
    assert (audiocli.directory / "a.wav").read_bytes() == (audiocli.directory / "b.wav").read_bytes()
    assert (again.json["cached"], again.json["kept"], again.json["cost_usd"]) == (True, 4, 0)
    assert text_line.endswith("  cached")
    assert list_unfinished(audiocli) == []


def test_changed_sentence_is_the_only_one_that_is_sent(audiocli: CommandLine) -> None:
    speak(audiocli, *LONG, text=" ".join(SENTENCES), name="a.wav")
    changed = [SENTENCES[0], "Something else entirely is said here.", *SENTENCES[2:]]

    r = speak(audiocli, *LONG, "--json", text=" ".join(changed), name="b.wav")

    assert [request.json["input"] for request in r.posts] == [changed[1]]
    assert (r.json["cached"], r.json["kept"], r.json["requests"]) == (False, 3, 1)
    assert r.json["duration_s"] == pytest.approx(sum(len(expected_pcm(text)) for text in changed) / 48_000)


def test_long_text_without_cache_stores_only_while_it_is_unfinished(audiocli: CommandLine) -> None:
    text = " ".join(SENTENCES)
    audiocli.gateway.queue_faults(NoFault(), NoFault(), Status(400))
    assert audiocli("speak", text, *LONG, "-j", "1", "--no-cache", "-o", audiocli.directory / "a.wav").code == 6

    resumed = speak(audiocli, *LONG, "--no-cache", text=text, name="a.wav")
    again = speak(audiocli, *LONG, "--no-cache", text=text, name="a.wav")

    assert (len(resumed.posts), len(again.posts)) == (2, 4)
    assert list_audio(audiocli) == list_unfinished(audiocli) == []


def test_no_resume_sends_every_chunk_again(audiocli: CommandLine) -> None:
    text = " ".join(SENTENCES)
    speak(audiocli, *LONG, text=text, name="a.wav")

    assert len(speak(audiocli, *LONG, "--no-resume", text=text, name="a.wav").posts) == 4
    assert speak(audiocli, *LONG, text=text, name="a.wav").requests == []


@pytest.mark.parametrize(
    ("gateway_name", "fault"), [("openrouter", CleanTruncation(8000)), ("therouter", SubstituteModel())]
)
def test_suspicious_chunk_is_not_stored(all_gateways_cli: CommandLine, gateway_name: str, fault: Any) -> None:
    cli = all_gateways_cli
    text = " ".join(f"{sentence} It has enough words to see that audio is missing." for sentence in SENTENCES)
    long = ("-g", gateway_name, "--max-chars", "100", "-j", "1")
    cli.gateway.queue_faults(NoFault(), fault)
    assert "warning: " in speak(cli, *long, text=text, name="a.wav").err

    r = speak(cli, *long, text=text, name="b.wav")

    assert len(r.posts) == 1


def test_chunks_of_an_unfinished_run_survive_eviction(audiocli: CommandLine) -> None:
    audiocli.write_config("[speak]\ncache_mb = 1\n")
    speak(audiocli, *LONG, text=" ".join(SENTENCES), name="a.wav")
    longer = " ".join([*SENTENCES, "This one fails the first time."])
    audiocli.gateway.queue_faults(Status(400))
    assert audiocli("speak", longer, *LONG, "-o", audiocli.directory / "b.wav").code == 6
    speak(audiocli, text="x" * 400, name="c.wav")  # 1.2 MB
    assert list_audio(audiocli) == []

    r = speak(audiocli, *LONG, text=longer, name="b.wav")

    assert [request.json["input"] for request in r.posts] == ["This one fails the first time."]


@pytest.mark.parametrize("error", [OSError(errno.EXDEV, "other file system"), NotImplementedError()])
def test_chunks_are_copied_where_links_are_not_possible(
    audiocli: CommandLine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(os, "link", refuse)
    text = " ".join(SENTENCES)
    speak(audiocli, *LONG, text=text, name="a.wav")

    r = speak(audiocli, *LONG, text=text, name="b.wav")

    assert r.requests == []
    assert (audiocli.directory / "a.wav").read_bytes() == (audiocli.directory / "b.wav").read_bytes()
    assert list_unfinished(audiocli) == []


# --- size ------------------------------------------------------------------------------------------------------------


def test_phrase_that_was_not_used_for_the_longest_time_is_evicted(audiocli: CommandLine) -> None:
    audiocli.write_config("[speak]\ncache_mb = 1\n")
    texts = [f"{letter}" * 100 for letter in "abcd"]  # 288 kB each
    for number, text in enumerate(texts[:3]):
        before = set(get_phrases_directory(audiocli).glob("*"))
        speak(audiocli, text=text, name="x.wav")
        for path in set(get_phrases_directory(audiocli).glob("*")) - before:
            os.utime(path, (1_000_000 + number, 1_000_000 + number))
    assert speak(audiocli, text=texts[0], name="x.wav").requests == []

    speak(audiocli, text=texts[3], name="x.wav")

    plans = [audiocli("speak", text, "-o", audiocli.directory / "x.wav", "-n", "--json").json for text in texts]
    assert [plan["requests"] for plan in plans] == [0, 1, 0, 0]


def test_size_is_counted_again_if_the_count_is_lost(tmp_path: Path) -> None:
    def add(number: int) -> None:
        cache = PhraseCache(tmp_path, 10_000)
        writer = cache.create(f"{number:032x}", {})
        writer.write(bytes(3_000))
        writer.commit(None, CostSource.UNKNOWN)
        cache.evict()

    for number in range(3):
        add(number)
    for content in ("", "-5 0\n", "many", "0 99999999999"):
        (tmp_path / "total").write_text(content)
        add(3)
        add(4)

        size_bytes = sum(path.stat().st_size for path in tmp_path.iterdir())
        assert size_bytes <= 10_000, content
    assert int((tmp_path / "total").read_text().split()[0]) <= 10_000


def test_eviction_leaves_other_files(tmp_path: Path) -> None:
    others = [tmp_path / "notes.txt", tmp_path / f"{NAME}.json.bak", tmp_path / f"{NAME}.wav"]
    for path in others:
        path.write_bytes(bytes(5_000))
    (tmp_path / f"{NAME}.json").symlink_to(others[0])
    cache = PhraseCache(tmp_path, 1)
    writer = cache.create("f" * 32, {})
    writer.write(bytes(1000))
    writer.commit(None, CostSource.UNKNOWN)

    cache.evict()

    assert {path.name for path in tmp_path.iterdir()} == {*(path.name for path in others), f"{NAME}.json", "total"}
