"""The exam in lessons: what a model refused once is not asked of it again, and nothing is learnt that was not said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import CommandLine, Result
from tests.gateway import DEFAULT_TEXT, Status, encode, sniff
from tests.gateway_contract import SPEECH, enrol, remains, warnings_of

MONTH_S = 30 * 24 * 3600


@pytest.fixture
def school(audiocli: CommandLine) -> CommandLine:
    enrol(audiocli)
    (audiocli.folder / "talk.wav").write_bytes(SPEECH)
    return audiocli


def hear(cli: CommandLine, model: str, *flags: object, file: str = "talk.wav") -> Result:
    return cli("transcribe", cli.folder / file, "-m", model, *map(str, flags))


def outcomes(r: Result) -> list[str]:
    return [entry["outcome"] for entry in r.ledger]


def kept_lessons(cli: CommandLine) -> list[Path]:
    folder = Path(cli.variables["XDG_CACHE_HOME"]) / "audiocli" / "lessons"
    return sorted(folder.iterdir()) if folder.is_dir() else []


def lessons(cli: CommandLine) -> set[str]:
    return {feature for path in kept_lessons(cli) for feature in json.loads(path.read_bytes())}


def refusal(message: str, status: int = 400) -> Status:
    return Status(status, body={"error": {"code": status, "message": message}})


NO_VERBOSE = refusal("openai/whisper-1 does not support response_format verbose_json")
NO_WORDS = refusal("timestamp_granularities: word is not supported by this model")


# --- times -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["openrouter:openai/whisper-1", "openai:whisper-1", "home:whisper-1"])
def test_times_for_mere_comfort_are_let_go_at_the_first_refusal(school: CommandLine, model: str) -> None:
    school.gateway.script(NO_VERBOSE)

    first, second = hear(school, model, "-f", "json"), hear(school, model, "-f", "json")

    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert (outcomes(first), outcomes(second)) == (["refused", "ok"], ["ok"])
    assert (len(first.requests), len(second.requests)) == (2, 1)
    assert first.json["text"] == second.json["text"] == DEFAULT_TEXT
    assert [r.json["timing"] for r in (first, second)] == ["none", "none"]
    for r in (first, second):
        assert [warning for warning in warnings_of(r) if "text without times" in warning], r.err


def test_a_model_that_answers_only_json_is_asked_for_it_from_then_on(school: CommandLine) -> None:
    first, second = (hear(school, "openrouter:deepgram/nova-3", "-f", "verbose_json") for _ in range(2))

    assert (first.code, second.code) == (0, 0), first.err
    assert [seen.json.get("response_format") for seen in first.requests] == ["verbose_json", None]
    assert [seen.json.get("response_format") for seen in second.requests] == [None]
    assert outcomes(first) == ["refused", "ok"]
    assert [entry["cost_nanousd"] == 0 for entry in first.ledger] == [True, False]
    assert any("text without times" in warning for warning in warnings_of(first))


def test_speakers_of_a_model_without_times_are_asked_for_in_json(school: CommandLine) -> None:
    first, second = (hear(school, "openrouter:deepgram/nova-3", "-f", "json", "--diarize") for _ in range(2))

    assert (first.code, outcomes(first), outcomes(second)) == (0, ["refused", "ok"], ["ok"]), first.err
    assert second.requests[0].json["provider"]["options"]["deepgram"] == {"diarize": True}


@pytest.mark.parametrize("format", ["srt", "vtt", "tsv"])
def test_captions_of_a_model_without_times_fail_with_the_reason(school: CommandLine, format: str) -> None:
    first, second = (hear(school, "openrouter:deepgram/nova-3", "-f", format, "--strict-timestamps") for _ in range(2))

    assert (first.code, first.out, len(first.requests)) == (6, b"", 1), first.err
    assert "verbose_json" in first.err
    assert (second.code, second.requests, second.ledger) == (2, [], [])
    assert "without times" in second.err


def test_captions_of_a_model_without_times_are_timed_by_its_pieces_where_that_will_do(school: CommandLine) -> None:
    first, second = (hear(school, "openrouter:deepgram/nova-3", "-f", "srt") for _ in range(2))

    assert (first.code, outcomes(first), outcomes(second)) == (0, ["refused", "ok"], ["ok"]), first.err
    assert first.out == second.out
    for r in (first, second):
        assert [warning for warning in warnings_of(r) if "timed by the pieces" in warning], r.err


def test_captions_go_on_to_a_model_with_times(school: CommandLine) -> None:
    models = ("openrouter:deepgram/nova-3", "-m", "openrouter:openai/whisper-1")
    for sends in (2, 1):
        r = hear(school, *models, "-f", "srt", "--strict-timestamps")

        assert (r.code, len(r.requests)) == (0, sends), r.err
        assert "00:00:00,000 -->" in r.text


def test_times_of_words_are_let_go_and_those_of_segments_stay(school: CommandLine) -> None:
    school.gateway.script(NO_WORDS)

    first, second = (hear(school, "openai:whisper-1", "--timestamps", "word", "--json") for _ in range(2))

    assert (first.code, second.code) == (0, 0), first.err
    assert [seen.form("timestamp_granularities[]") for seen in first.requests] == [["word", "segment"], ["segment"]]
    assert [seen.form("timestamp_granularities[]") for seen in second.requests] == [["segment"]]
    assert (second.json["timing"], second.json["words"]) == ("segment", [])
    assert any("segments only" in warning for warning in second.json["warnings"])


# --- formats ---------------------------------------------------------------------------------------------------------

GEMINI = "openrouter:google/gemini-3.8-flash-tts"


@pytest.mark.parametrize("format", ["mp3", "flac", "wav"])
def test_a_voice_that_gives_only_samples_is_asked_for_samples(school: CommandLine, tmp_path: Path, format: str) -> None:
    first, second = (
        school("speak", "Hello there", "-m", GEMINI, "-v", "Kore", "-o", tmp_path / f"{n}.{format}") for n in (1, 2)
    )

    formats = [[seen.json["response_format"] for seen in r.requests] for r in (first, second)]
    assert (first.code, second.code) == (0, 0), first.err
    assert formats == ([["mp3", "pcm"], ["pcm"]] if format == "mp3" else [["pcm"], ["pcm"]])
    assert outcomes(first) == ["refused", "ok"][2 - len(formats[0]) :]
    assert sniff((tmp_path / f"1.{format}").read_bytes()[:16]) == format
    assert (tmp_path / f"1.{format}").read_bytes() == (tmp_path / f"2.{format}").read_bytes()
    assert warnings_of(second) == []


def test_a_voice_that_refuses_every_format_is_not_asked_for_ever(school: CommandLine, tmp_path: Path) -> None:
    school.gateway.always(refusal("response_format is not supported"))

    first, second = (school("speak", "Hi there", "-m", GEMINI, "-o", tmp_path / "x.mp3") for _ in range(2))

    # That it refuses all it makes is no lesson: something else is wrong with it, and may be mended tomorrow.
    assert (first.code, len(first.requests)) == (6, 2), first.err
    assert (second.code, len(second.requests)) == (6, 1), second.err
    assert remains(tmp_path) == []


@pytest.mark.parametrize(
    ("format", "instead"),
    [
        ("flac", "wav"),
        ("mp3", "flac"),
        ("ogg", "flac"),
    ],
)
def test_a_recording_of_a_format_that_is_refused_goes_up_in_another(
    school: CommandLine, format: str, instead: str
) -> None:
    name = f"talk.{format}"
    (school.folder / name).write_bytes(encode(SPEECH[44:], format))
    school.gateway.script(refusal(f"unsupported audio: the format {format} is not supported by this provider", 415))

    first, second = (hear(school, "openrouter:openai/whisper-1", file=name) for _ in range(2))

    assert (first.code, second.code) == (0, 0), first.err
    assert first.requests[0].json["input_audio"]["format"] == format
    assert [seen.audio_format for seen in first.requests] == [format, instead]
    assert [seen.audio_format for seen in second.requests] == [instead]


@pytest.mark.parametrize("status", [400, 415, 422])
def test_a_gateway_that_takes_no_json_is_given_a_form(school: CommandLine, status: int) -> None:
    school.gateway.script(refusal("Content-Type must be multipart/form-data", status))

    first, second = (hear(school, "openrouter:openai/whisper-1") for _ in range(2))

    assert (first.code, second.code) == (0, 0), first.err
    assert [bool(seen.multipart) for seen in (*first.requests, *second.requests)] == [False, True, True]


# --- what is kept ----------------------------------------------------------------------------------------------------


def age(cli: CommandLine, seconds: float) -> None:
    for path in kept_lessons(cli):
        path.write_text(json.dumps({name: at - seconds for name, at in json.loads(path.read_bytes()).items()}))


@pytest.mark.parametrize(("age_s", "sends"), [(MONTH_S - 60, 1), (MONTH_S + 60, 2), (-3600, 2)])
def test_a_lesson_is_believed_for_a_month(school: CommandLine, age_s: float, sends: int) -> None:
    hear(school, "openrouter:deepgram/nova-3", "-f", "verbose_json")
    age(school, age_s)

    r = hear(school, "openrouter:deepgram/nova-3", "-f", "verbose_json")

    assert (r.code, len(r.requests)) == (0, sends), r.err


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[]",
        b'"verbose_json"',
        b'{"verbose_json": "soon"}',
        b'{"verbose_json": NaN}',
        b"[" * 9999,
    ],
)
def test_a_damaged_lesson_is_none(school: CommandLine, damage: bytes) -> None:
    hear(school, "openrouter:deepgram/nova-3", "-f", "verbose_json")
    [path] = kept_lessons(school)
    path.write_bytes(damage)

    r = hear(school, "openrouter:deepgram/nova-3", "-f", "verbose_json")

    assert (r.code, outcomes(r)) == (0, ["refused", "ok"]), r.err
    assert lessons(school) == {"verbose_json"}


def test_a_lesson_belongs_to_one_model_at_one_address(school: CommandLine) -> None:
    school.gateway.script(NO_VERBOSE)
    hear(school, "openrouter:openai/whisper-1", "-f", "json")

    r = hear(school, "openrouter:openai/whisper-large-v3", "-f", "json")
    elsewhere = hear(
        school, "openrouter:openai/whisper-1", "-f", "json", "--base-url", school.gateway.base_url("openrouter") + "/"
    )

    assert [seen.json["response_format"] for seen in r.requests] == ["verbose_json"]
    assert [seen.json["response_format"] for seen in elsewhere.requests] == ["verbose_json"]


def test_a_cache_that_cannot_be_written_costs_a_refusal_each_time_and_no_more(
    school: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    school.variables["XDG_CACHE_HOME"] = str(tmp_path / "file")

    for _ in range(2):
        r = hear(school, "openrouter:deepgram/nova-3", "-f", "verbose_json")

        assert (r.code, outcomes(r)) == (0, ["refused", "ok"]), r.err


def test_the_card_of_a_model_shows_what_it_refuses(school: CommandLine, tmp_path: Path) -> None:
    before = school("models", "openrouter:deepgram/nova-3")
    hear(school, "openrouter:deepgram/nova-3", "-f", "verbose_json")
    school("speak", "Hi there", "-m", GEMINI, "-o", tmp_path / "x.mp3")

    card = school("models", "openrouter:deepgram/nova-3")
    document = school("models", GEMINI, "--json").json

    assert "refuses" not in before.text
    assert "refuses     no verbose_json, so text without times" in card.text
    assert document["refuses"] == ["no mp3"]


# --- what teaches nothing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        refusal("Invalid 'temperature': 3 is not between 0 and 1"),
        refusal("acme/x is not a valid model ID"),
        refusal("language 'xx' is not supported"),
        refusal("The audio is longer than 1500 seconds"),
        refusal("This prompt was rejected"),
        refusal(""),
        refusal("does not support response_format verbose_json", 403),
        refusal("does not support response_format verbose_json", 404),
        refusal("does not support response_format verbose_json", 413),
        Status(400, body="<html><title>Bad request</title></html>", content_type="text/html"),
    ],
    ids=lambda fault: f"{fault.code} {str(fault.body)[:60]}",
)
def test_a_refusal_of_something_else_teaches_nothing(school: CommandLine, fault: Status) -> None:
    school.gateway.script(fault)

    r = hear(school, "openrouter:openai/whisper-1", "-f", "json")

    assert (len(r.requests), kept_lessons(school)) == (1, []), r.err
    assert r.code in (4, 6)


@pytest.mark.parametrize(
    "message",
    [
        "Invalid 'voice'. Supported values are: 'alloy', 'echo'",
        "input is longer than 4096 characters",
        "speed must be between 0.25 and 4",
    ],
)
def test_a_refusal_of_a_voice_or_a_text_does_not_change_the_format(
    school: CommandLine, tmp_path: Path, message: str
) -> None:
    school.gateway.script(refusal(message))

    r = school("speak", "Hi there", "-m", GEMINI, "-o", tmp_path / "x.mp3")

    assert (r.code, len(r.requests), kept_lessons(school)) == (6, 1, []), r.err


@pytest.mark.parametrize("format", ["flac", "mp3"])
def test_a_broken_recording_does_not_teach_that_its_format_is_refused(school: CommandLine, format: str) -> None:
    name = f"talk.{format}"
    (school.folder / name).write_bytes(encode(SPEECH[44:], format))
    listed = "['flac', 'm4a', 'mp3', 'mp4', 'mpeg', 'mpga', 'oga', 'ogg', 'wav', 'webm']"
    school.gateway.script(refusal(f"Invalid file format. Supported formats: {listed}"))

    r = hear(school, "openai:whisper-1", file=name)

    assert kept_lessons(school) == []
    assert (r.code, len(r.requests)) == (6, 1), r.err
