"""The exam that every gateway sits: what it is told, what it is not told, and the same files from all of them."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CommandLine, Result
from tests.gateway import Redirect, Said, Status, Swapped
from tests.gateway_contract import BY_NAME, CANDIDATES, EVERYONE, SPEECH, Candidate, enrol, warnings_of, wav_of

FILES = ("txt", "srt", "vtt", "tsv")
VOLATILE = ("gateway", "model", "generation_ids", "cost_usd", "cost_source", "first_byte_s", "elapsed_s", "outputs")


@pytest.fixture
def school(audiocli: CommandLine) -> CommandLine:
    """A world with a key for every gateway."""
    enrol(audiocli)
    return audiocli


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    path = tmp_path / "talk.wav"
    path.write_bytes(SPEECH)
    return path


def speak(cli: CommandLine, one: Candidate, *flags: object, text: str = "Hello there, world.") -> Result:
    return cli("speak", text, "-m", f"{one.name}:{one.speaks}", "-o", cli.folder / "x.mp3", *map(str, flags))


def transcribe(cli: CommandLine, one: Candidate, *flags: object) -> Result:
    return cli("transcribe", cli.folder / "talk.wav", "-m", f"{one.name}:{one.hears}", *map(str, flags))


# --- keys ------------------------------------------------------------------------------------------------------------


def everything_kept(cli: CommandLine) -> bytes:
    """All that a world holds on disk (ledger, caches, rescued files), with the ledger written out of its journal."""
    if cli.ledger_path.is_file():
        sqlite3.connect(cli.ledger_path).execute("PRAGMA wal_checkpoint(TRUNCATE)").connection.close()
    return b"\n".join(path.read_bytes() for path in sorted(cli.folder.rglob("*")) if path.is_file())


def assert_key_is_only_in_the_header(cli: CommandLine, one: Candidate, *results: Result) -> None:
    sent = [seen for r in results for seen in r.requests]
    assert sent
    assert {seen.headers.get("authorization", "") for seen in sent} <= {f"Bearer {one.key}", ""}
    for seen in sent:
        assert "key is in" not in " ".join(seen.problems)
        assert one.key not in f"{seen.path} {seen.query}"
        assert one.key.encode() not in seen.body_start
        assert [name for name, value in seen.headers.items() if one.key in value] in (["authorization"], [])
    for r in results:
        assert one.key not in r.err + r.out.decode("latin-1")
        assert one.key not in json.dumps(r.ledger)
    assert one.key.encode() not in everything_kept(cli)


@pytest.mark.parametrize("one", EVERYONE)
def test_a_key_travels_in_its_header_and_nowhere_else(school: CommandLine, talk: Path, one: Candidate) -> None:
    spoken, heard = speak(school, one, "--debug"), transcribe(school, one, "--debug", "--json")
    listed = school("models", "-g", one.name, "--debug", "--json")

    assert (spoken.code, heard.code, listed.code) == (0, 0, 0), spoken.err + heard.err + listed.err
    assert spoken.requests[0].headers["authorization"] == f"Bearer {one.key}"
    assert_key_is_only_in_the_header(school, one, spoken, heard, listed)


ECHOES = {
    "in the message": lambda key: Status(401, body={"error": {"message": f"Incorrect API key provided: {key}."}}),
    "in plain text": lambda key: Status(400, body=f"denied for {key}", headers={"x-request-id": key}),
    "in an HTML page": lambda key: Status(502, body=f"<html><title>no {key}</title></html>", content_type="text/html"),
    "in what a provider said": lambda key: Status(
        400, body={"error": {"code": 400, "message": "x", "metadata": {"raw": f"Bearer {key} refused"}}}
    ),
    "inside of a 200": lambda key: Status(200, body={"error": {"code": 400, "message": f"key={key}"}}),
    "in the names of a request": lambda key: Status(
        422,
        body={"detail": [{"loc": ["header", key], "msg": "bad"}]},
        headers={"x-generation-id": key, "x-router-request-id": key},
    ),
}


@pytest.mark.parametrize("place", ECHOES)
@pytest.mark.parametrize("one", EVERYONE)
def test_a_key_that_a_gateway_repeats_is_not_shown(school: CommandLine, talk: Path, one: Candidate, place: str) -> None:
    school.gateway.always(ECHOES[place](one.key))

    r = transcribe(school, one, "--json") if list(ECHOES).index(place) % 2 else speak(school, one)

    assert r.code != 0
    assert_key_is_only_in_the_header(school, one, r)


@pytest.mark.parametrize("one", CANDIDATES, ids=lambda one: one.name)
def test_the_traceback_of_debug_does_not_show_a_key_that_a_gateway_repeats(school: CommandLine, one: Candidate) -> None:
    school.gateway.always(ECHOES["in the message"](one.key))

    r = speak(school, one, "--debug")

    assert "Traceback" in r.err
    assert_key_is_only_in_the_header(school, one, r)


@pytest.mark.parametrize("one", CANDIDATES, ids=lambda one: one.name)
@pytest.mark.parametrize("command", ["models", "voices"])
def test_a_key_that_a_list_of_models_repeats_is_not_shown(school: CommandLine, one: Candidate, command: str) -> None:
    school.gateway.always(ECHOES["in the message"](one.key), method="GET")

    r = school(command, "-g", one.name)

    assert r.code != 0
    assert_key_is_only_in_the_header(school, one, r)


def test_a_key_that_a_look_up_of_costs_repeats_is_not_shown(school: CommandLine) -> None:
    one = BY_NAME["openrouter"]._replace(key="open-sesame-4712")
    assert speak(school, one).code == 0
    school.variables["OPENROUTER_API_KEY"] = one.key
    school.gateway.always(ECHOES["in the message"](one.key), method="GET")

    r = school("usage", "reconcile")

    assert len(r.requests) == 1
    assert_key_is_only_in_the_header(school, one, r)


def test_a_key_that_an_endless_message_cuts_in_two_is_not_shown_in_part(school: CommandLine) -> None:
    one = BY_NAME["home"]
    for filler in (384, 390, 396):
        school.gateway.script(Status(400, body={"error": {"message": "x" * filler + one.key}}))

        r = speak(school, one)

        assert one.key[:6] not in r.err, filler


# --- one output ------------------------------------------------------------------------------------------------------

SAYINGS = {
    "a sentence": Said(),
    "several sentences": Said("One fish. Two fish! Red fish, blue fish? This one has a little star, this one a car."),
    "another script": Said(
        "今日は天気がいいですね。散歩に行きましょう。 明日は雨です。", language="japanese", code="ja"
    ),
    "signs": Said("a --> b & <c> {\\an8} <i>d</i> … “e” 👋🏽. Tom & Jerry."),
}


@pytest.mark.parametrize("saying", SAYINGS)
def test_one_recording_gives_the_same_files_and_receipt_from_every_gateway(
    school: CommandLine, talk: Path, saying: str
) -> None:
    school.gateway.says(SAYINGS[saying])
    files: dict[str, list[bytes]] = {}
    receipts: dict[str, dict[str, Any]] = {}
    for one in CANDIDATES:
        folder = school.folder / one.name

        r = transcribe(school, one, "-O", folder, "-f", ",".join(FILES), "--json")

        assert r.code == 0, r.err
        files[one.name] = [(folder / f"talk.{ending}").read_bytes() for ending in FILES]
        receipts[one.name] = {name: value for name, value in r.json.items() if name not in VOLATILE}

    assert [name for name in files if files[name] != files["openai"]] == []
    assert [name for name in receipts if receipts[name] != receipts["openai"]] == []
    assert all(files["openai"])
    assert not [problem for problem in school.gateway.problems if "no listed field" not in problem]


def test_plain_text_is_the_same_from_every_gateway_too(school: CommandLine, talk: Path) -> None:
    school.gateway.says("  Two words.\n")

    assert {transcribe(school, one).out for one in CANDIDATES} == {b"Two words.\n"}


def test_the_times_of_words_are_the_same_from_every_gateway(school: CommandLine, talk: Path) -> None:
    found = {}
    for one in CANDIDATES:
        r = transcribe(school, one, "--timestamps", "word", "--json")

        assert r.code == 0, r.err
        found[one.name] = [(w["start_s"], w["end_s"], w["word"].strip(".")) for w in r.json["words"]]

    assert [name for name in found if found[name] != found["openai"]] == []
    assert len(found["openai"]) == 9


SENSE = Candidate("therouter", "therouter", "", "alibaba/sensevoice-small", "")


@pytest.mark.parametrize("format", ["txt", "srt", "vtt", "tsv", "json"])
@pytest.mark.parametrize("text", ["Hello there.", "I am glad. You are not. 1 < 2 | 3 > 2."])
def test_the_tags_of_sensevoice_are_in_no_transcript(school: CommandLine, talk: Path, format: str, text: str) -> None:
    school.gateway.says(text)

    tagged = transcribe(school, SENSE, "-f", format)
    bare = transcribe(school, BY_NAME["therouter"], "-f", format)

    assert tagged.code == 0, tagged.err
    assert "<|" not in tagged.text
    assert tagged.out == bare.out if format != "json" else tagged.json["segments"] == bare.json["segments"]


def test_the_tags_of_sensevoice_stay_in_what_the_gateway_sent(school: CommandLine, talk: Path) -> None:
    r = transcribe(school, SENSE, "-f", "verbose_json")

    assert r.json["text"].startswith("<|HAPPY|><|Speech|>")


@pytest.mark.parametrize("format", ["txt", "srt"])
def test_the_tags_of_a_sensevoice_that_stood_in_are_gone_as_well(school: CommandLine, talk: Path, format: str) -> None:
    school.gateway.script(Swapped())

    r = transcribe(school, BY_NAME["therouter"], "-f", format)

    assert r.code == 0, r.err
    assert "<|" not in r.text


# --- what is not supported -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--translate", "-g", "openrouter"), "arouter:"),
        (("--translate", "-g", "therouter"), "arouter:"),
        (("--translate", "-m", "openrouter:openai/whisper-1"), "openai:whisper-1"),
        (("--translate", "-m", "therouter:openai/whisper-1"), "groq:whisper-large-v3"),
        (("--translate", "-m", "openai:gpt-4o-transcribe"), "openai:whisper-1"),
        (("--translate", "-m", "groq:whisper-large-v3-turbo"), "groq:whisper-large-v3"),
        (("--diarize", "-m", "openai:whisper-1"), "gpt-4o-transcribe-diarize"),
        (("--diarize", "-g", "therouter"), "gpt-4o-transcribe-diarize"),
        (("--diarize", "-g", "arouter"), "gpt-4o-transcribe-diarize"),
        (("--diarize", "-g", "groq"), "gpt-4o-transcribe-diarize"),
        (("--diarize", "-m", "home:whisper-1"), "gpt-4o-transcribe-diarize"),
        (("--diarize", "-g", "openai", "--timestamps", "word"), "times"),
        (("-f", "srt", "--strict-timestamps", "-m", "openai:gpt-4o-transcribe"), "without times"),
        (("-f", "vtt", "--strict-timestamps", "-m", "openrouter:openai/gpt-4o-transcribe"), "without times"),
        (("--speaker", "Ann", "--speaker", "Bob=talk.wav", "--diarize"), "all have a clip or none"),
        (("--speaker", "A", "--speaker", "B", "--speaker", "C", "--speaker", "D", "--speaker", "E"), "at most 4"),
        (("--speaker", "Ann=nowhere.wav", "--diarize"), "nowhere.wav"),
        (("--option", "model=x"), "audiocli's own"),
        (("--option", "timestamp_granularities[]=word"), "audiocli's own"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_a_gateway_cannot_hear_is_refused_before_anything_is_sent(
    school: CommandLine, talk: Path, monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(talk.parent)

    r = school("transcribe", "talk.wav", *argv)

    assert (r.code, r.requests, r.ledger, r.out) == (2, [], [], b""), r.err
    assert said in r.err


@pytest.mark.parametrize(
    ("model", "flags", "warned", "absent"),
    [
        ("openrouter:openai/whisper-1", ("--stream",), "--stream has no effect", "stream"),
        ("therouter:openai/whisper-1", ("--stream",), "--stream has no effect", "stream"),
        ("arouter:openai/whisper-1", ("--stream",), "--stream has no effect", "stream"),
        ("groq:whisper-large-v3", ("--stream",), "--stream has no effect", "stream"),
        ("openai:whisper-1", ("--stream",), "--stream has no effect", "stream"),
        ("openrouter:deepgram/nova-3", ("-p", "Names"), "--prompt has no effect", "prompt"),
        ("openai:gpt-4o-transcribe-diarize", ("--diarize", "-p", "Names"), "--prompt has no effect", "prompt"),
        ("groq:whisper-large-v3", ("-p", "x" * 897), "896 characters", None),
        ("openai:whisper-1", ("--translate", "-l", "de"), "--language has no effect", "language"),
        ("openai:gpt-4o-transcribe", ("--timestamps", "segment"), "text without times", "timestamp_granularities[]"),
        ("openai:whisper-1", ("--speaker", "Ann"), "--speaker has no effect", "known_speaker_names[]"),
        ("openrouter:openai/whisper-1", ("--speaker", "Ann"), "--speaker has no effect", "known_speaker_names[]"),
        ("openai:whisper-1", ("--option", "groq.prompt=x"), "--option groq.prompt has no effect", "groq.prompt"),
        ("therouter:openai/whisper-1", ("--option", "a.b=1"), "--option a.b has no effect", "a.b"),
        ("arouter:openai/whisper-1", ("--option", "a.b=1"), "--option a.b has no effect", "a.b"),
        ("groq:whisper-large-v3", ("--option", "a.b=1"), "--option a.b has no effect", "a.b"),
        ("home:whisper-1", ("--option", "a.b=1"), "--option a.b has no effect", "a.b"),
        ("openrouter:openai/whisper-1", ("--option", "seed=1"), "--option seed has no effect", "seed"),
        ("openrouter:openai/whisper-1", ("--option", 'order=["azure"]'), "does not apply routing keys", "provider"),
        ("openrouter:openai/whisper-1", ("--option", "provider.zdr=true"), "does not apply routing keys", "provider"),
        ("openrouter:openai/whisper-1", ("--option", "max_price.audio=1"), "does not apply routing keys", "provider"),
    ],
)
def test_what_will_have_no_effect_on_a_transcription_is_told_and_not_sent(
    school: CommandLine, talk: Path, model: str, flags: tuple[str, ...], warned: str, absent: str | None
) -> None:
    r = school("transcribe", talk, "-m", model, *flags)

    assert r.code == 0, r.err
    assert len([warning for warning in warnings_of(r) if warned in warning]) == 1, r.err
    sent = r.requests[0]
    assert absent is None or (absent not in (sent.json or {}) and sent.form(absent) == [])
    assert not [problem for problem in sent.problems if "ignored" in problem]


@pytest.mark.parametrize(
    ("model", "flags", "warned", "absent"),
    [
        ("openai:tts-1", ("-i", "Calm"), "--instructions has no effect", "instructions"),
        ("groq:canopylabs/orpheus-v1-english", ("-i", "Calm"), "--instructions has no effect", "instructions"),
        ("arouter:openai/tts-1", ("-i", "Calm"), "--instructions has no effect", "instructions"),
        ("therouter:openai/tts-1", ("-i", "Calm"), "--instructions has no effect", "instructions"),
        ("therouter:alibaba/cosyvoice2-0.5b", ("-i", "Calm"), "--instructions has no effect", "instructions"),
        ("openrouter:hexgrad/kokoro-82m", ("-i", "Calm"), "--instructions has no effect", "instructions"),
        ("openrouter:hexgrad/kokoro-82m", ("-x", "2"), "--speed may have no effect", None),
        ("therouter:alibaba/cosyvoice2-0.5b", ("-x", "2"), "--speed has no effect", None),
        ("therouter:fishaudio/fish-speech-1.5", ("-v", "Kore"), "does not know the voice Kore", None),
        ("openai:gpt-4o-mini-tts", ("--option", "openai.x=1"), "--option openai.x has no effect", "openai.x"),
        ("therouter:openai/tts-1", ("--option", "openai.x=1"), "--option openai.x has no effect", "openai.x"),
        ("openrouter:hexgrad/kokoro-82m", ("--option", "pitch=1"), "--option pitch has no effect", "pitch"),
        ("openrouter:hexgrad/kokoro-82m", ("--option", "data_collection=deny"), "routing keys", "provider"),
        ("openrouter:hexgrad/kokoro-82m", ("--option", 'provider.only=["x"]'), "routing keys", "provider"),
        ("openrouter:hexgrad/kokoro-82m", ("--option", 'models=["a/b"]'), "routing keys", "models"),
    ],
)
def test_what_will_have_no_effect_on_speech_is_told_and_not_sent(
    school: CommandLine, tmp_path: Path, model: str, flags: tuple[str, ...], warned: str, absent: str | None
) -> None:
    r = school("speak", "Hello there", "-m", model, "-o", tmp_path / "x.mp3", *flags)

    assert r.code == 0, r.err
    assert len([warning for warning in warnings_of(r) if warned in warning]) == 1, r.err
    assert absent is None or absent not in r.requests[0].json


@pytest.mark.parametrize(
    ("command", "model", "flags"),
    [
        ("transcribe", "openrouter:deepgram/nova-3", ("-p", "Names", "--stream")),
        ("transcribe", "arouter:openai/whisper-1", ("--option", "a.b=1", "--stream")),
        ("speak", "therouter:alibaba/cosyvoice2-0.5b", ("-v", "Kore", "-x", "2")),
        ("speak", "openrouter:hexgrad/kokoro-82m", ("--option", "order=x", "-i", "Calm")),
    ],
)
def test_such_warnings_are_in_the_plan_and_in_the_receipt_as_well(
    school: CommandLine, talk: Path, command: str, model: str, flags: tuple[str, ...]
) -> None:
    argv = (command, talk if command == "transcribe" else "Hello there", "-m", model, "-o", talk.parent / "x", *flags)

    told, planned, receipt = school(*argv), school(*argv, "-n", "--json"), school(*argv, "--json")

    said = [warning for warning in warnings_of(told) if "will hold" not in warning]
    assert (planned.code, planned.requests, len(said)) == (0, [], 2), told.err
    assert set(said) <= set(planned.json["warnings"])
    assert set(said) <= set(receipt.json["warnings"])


@pytest.mark.parametrize("flag", [("--translate",), ("--diarize",)])
def test_a_route_that_cannot_do_it_makes_room_for_one_that_can(
    school: CommandLine, talk: Path, flag: tuple[str, ...]
) -> None:
    able = {"--translate": "openai:whisper-1", "--diarize": "openai:gpt-4o-transcribe-diarize"}[flag[0]]

    r = school("transcribe", talk, *flag, "-m", "therouter:openai/whisper-1", "-m", able, "--json")

    assert r.code == 0, r.err
    assert f"{r.json['gateway']}:{r.json['model']}" == able
    assert [route["gateway"] for route in r.json["routes"]] == ["therouter"]
    assert [seen.dialect for seen in r.requests] == ["openai"]


def test_translations_have_an_address_of_their_own(school: CommandLine, talk: Path) -> None:
    for name in ("openai", "arouter", "groq", "home"):
        r = transcribe(school, BY_NAME[name], "--translate", "-f", "srt")

        assert r.code == 0, r.err
        assert [seen.path.rpartition("/")[2] for seen in r.requests] == ["translations"]
        assert r.requests[0].problems == []


@pytest.mark.parametrize(
    ("model", "letter", "limit", "unit"),
    [
        ("openai:tts-1", "x", 4096, "characters"),
        ("openai:gpt-4o-mini-tts", "語", 2000, "characters"),
        ("openrouter:openai/gpt-4o-mini-tts-2025-12-15", "é", 4096, "characters"),
        ("therouter:openai/tts-1", "語", 4096, "characters"),
        ("arouter:openai/tts-1", "x", 4096, "characters"),
        ("groq:canopylabs/orpheus-v1-english", "語", 200, "characters"),
        ("therouter:alibaba/cosyvoice2-0.5b", "語", 999, "bytes"),
        ("therouter:fishaudio/fish-speech-1.5", "👋", 1000, "bytes"),
        ("therouter:indexteam/indextts-2", "x", 1000, "bytes"),
    ],
)
def test_a_text_is_measured_in_the_unit_of_its_gateway(
    school: CommandLine, tmp_path: Path, model: str, letter: str, limit: int, unit: str
) -> None:
    def size(text: str) -> int:
        return len(text.encode() if unit == "bytes" else text)

    longest = letter * (limit // size(letter))

    fits = school("speak", longest, "-m", model, "-o", tmp_path / "x.wav", "-n", "--json")
    over = school("speak", longest + letter, "-m", model, "-o", tmp_path / "x.wav")

    assert (fits.code, fits.json["requests"]) == (0, 1), fits.err
    # Refused before anything is sent, or spoken in parts: never sent as it is.
    assert [size(seen.json["input"]) for seen in over.posts if size(seen.json["input"]) > limit] == []
    assert over.code == (0 if over.posts else 2), over.err
    assert over.posts or f"{size(longest + letter):,} {unit}" in over.err


def test_no_body_over_ten_megabytes_goes_to_arouter(school: CommandLine, tmp_path: Path) -> None:
    large = tmp_path / "large.wav"
    large.write_bytes(wav_of(SPEECH[44:] * 84))

    alone = school("transcribe", large, "-m", "arouter:openai/whisper-1")
    followed = school("transcribe", large, "-m", "arouter:openai/whisper-1", "-m", "groq:whisper-large-v3")

    # Refused before anything is sent, or heard in parts: never sent as it is.
    assert alone.code == (0 if alone.requests else 2), alone.err
    assert (followed.code, len(followed.requests) > 0) == (0, True), followed.err
    sent = [*alone.requests, *followed.requests]
    assert [seen.size_bytes for seen in sent if seen.dialect == "arouter" and seen.size_bytes > 10_485_760] == []


# --- elsewhere -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one", EVERYONE)
def test_nothing_follows_a_gateway_that_points_elsewhere(school: CommandLine, one: Candidate) -> None:
    elsewhere = "groq" if one.name != "groq" else "openai"
    school.gateway.always(Redirect(school.gateway.base_url(elsewhere) + "/audio/speech", 307))

    r = speak(school, one)

    assert (r.code, [seen.dialect for seen in r.requests]) == (6, [one.dialect]), r.err
    assert_key_is_only_in_the_header(school, one, r)
