"""`speak --verify` and `--verify-audio` against a mock gateway that transcribes its own speech."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pysubs2
import pytest

from audiocli.gateways import local
from audiocli.mock import (
    CleanTruncation,
    MockGateway,
    MockTranscript,
    NoFault,
    RecordedRequest,
    Status,
    WrongSpeech,
    expected_pcm,
)
from tests.conftest import CommandLine, Result, Stream
from tests.pyav_codec import CODEC
from tests.requirements import require_packages

SENTENCES = (
    "The committee met on Monday morning in the old library.",
    "Everyone expected a long discussion about the yearly budget.",
    "After two hours the members agreed on a modest plan.",
)
TEXT = " ".join(SENTENCES)
LISTENER = "openai/whisper-1"
LONG = ("--max-chars", "60")
LOUD = ("-m", "openrouter:openai/gpt-4o-mini-tts-2025-12-15", "--verify", "--verify-model", LISTENER)
KINDS = ("drop", "double", "swap", "truncate")


@pytest.fixture
def gateway() -> Iterator[MockGateway]:
    with MockGateway(CODEC, hears_speech=True) as mock_gateway:
        yield mock_gateway


def speak(cli: CommandLine, *argv: str | Path, text: str = TEXT, name: str = "x.wav", **options: Any) -> Result:
    return cli("speak", text, "-o", cli.directory / name, *LOUD, *argv, **options)


def spoil(cli: CommandLine, *kinds: str) -> None:
    """Spoil the next requests for speech, in order. `ok` is a correct one."""
    faults = [NoFault() if kind == "ok" else WrongSpeech(kind) for kind in kinds]
    cli.gateway.queue_faults(*faults, path="/audio/speech")


def count(r: Result) -> tuple[int, int]:
    """Return the numbers of requests for speech and for transcripts."""
    paths = [request.path.rpartition("/")[2] for request in r.posts]
    return paths.count("speech"), paths.count("transcriptions")


def list_files(cli: CommandLine, name: str, pattern: str = "*") -> list[Path]:
    return sorted((Path(cli.variables["XDG_DATA_HOME"]) / "audiocli" / name).glob(pattern))


def read_samples(path: Path) -> bytes:
    return path.read_bytes()[44:]


# --- one chunk -------------------------------------------------------------------------------------------------------


def test_correct_speech_is_verified_once(audiocli: CommandLine) -> None:
    r = speak(audiocli, "--json")

    assert r.code == 0, r.err
    assert count(r) == (1, 1)
    assert r.json["verify"] == {
        "word_error_rate": 0.0,
        "chunks": 1,
        "redone": 0,
        "failed": [],
        "cost_usd": pytest.approx(r.json["cost_usd"] - sum_costs(r, "speak")),
    }
    assert [entry["command"] for entry in r.ledger] == ["speak", "verify"]
    assert read_samples(audiocli.directory / "x.wav") == expected_pcm(TEXT)
    again = speak(audiocli, name="y.wav")
    assert (again.code, again.posts) == (0, [])
    assert (audiocli.directory / "y.wav").read_bytes() == (audiocli.directory / "x.wav").read_bytes()


def sum_costs(r: Result, command: str) -> float:
    return sum(entry["cost_nanousd"] for entry in r.ledger if entry["command"] == command) / 1e9


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_speech_is_redone(audiocli: CommandLine, kind: str) -> None:
    spoil(audiocli, kind)

    r = speak(audiocli, "--json")

    assert r.code == 0, r.err
    assert count(r) == (2, 2)
    assert (r.json["verify"]["redone"], r.json["verify"]["failed"]) == (1, [])
    assert read_samples(audiocli.directory / "x.wav") == expected_pcm(TEXT)
    again = speak(audiocli, "--json", name="y.wav")
    assert (again.code, again.posts) == (0, [])
    assert again.json["cached"] is True
    assert (audiocli.directory / "y.wav").read_bytes() == (audiocli.directory / "x.wav").read_bytes()


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("drop", "words are missing: Everyone expected a long discussion about the yearly…"),
        ("double", "words are repeated"),
        ("truncate", "the end is missing"),
    ],
)
def test_speech_that_stays_wrong_is_a_warning_and_exit_3(audiocli: CommandLine, kind: str, problem: str) -> None:
    audiocli.gateway.add_default_fault(WrongSpeech(kind), path="/audio/speech")

    r = speak(audiocli, "--verify-retries", "2")

    # The mock gateway speaks it in the same way again, so there is no third attempt.
    assert (r.code, count(r)) == (3, (2, 1))
    assert f"warning: chunk 1 of 1, from character 1 ({TEXT[:40].strip()}…), at 0:00:0" in r.err
    assert problem in r.err
    assert "1 of 1 chunks wrong, 1 redone" in r.err
    assert (audiocli.directory / "x.wav").stat().st_size > 1000
    again = speak(audiocli, "--verify-retries", "2", "--json", name="y.wav")
    assert (again.code, again.posts) == (3, [])
    (failed,) = again.json["verify"]["failed"]
    assert (failed["text"], failed["problem"].startswith(problem)) == (TEXT, True)
    assert any(problem in warning for warning in again.json["warnings"])
    assert (audiocli.directory / "y.wav").read_bytes() == (audiocli.directory / "x.wav").read_bytes()


def test_attempt_with_the_fewest_errors_is_used(audiocli: CommandLine) -> None:
    spoil(audiocli, "double", "truncate", "drop")

    r = speak(audiocli, "--json")

    assert (r.code, count(r)) == (3, (3, 3))
    best = f"{SENTENCES[0]} {SENTENCES[1]} {SENTENCES[1]} {SENTENCES[2]}"
    dropped = f"{SENTENCES[0]} {SENTENCES[2]}"
    assert read_samples(audiocli.directory / "x.wav") in (expected_pcm(best), expected_pcm(dropped))
    assert speak(audiocli).posts == []


def test_problem_has_its_time(audiocli: CommandLine) -> None:
    audiocli.gateway.add_default_fault(WrongSpeech("drop"), path="/audio/speech")

    r = speak(audiocli, "--json")

    (failed,) = r.json["verify"]["failed"]
    assert failed["start_s"] == pytest.approx(0.06 * len(SENTENCES[0]), abs=2.0)


def test_more_retries_continue_after_the_attempts_of_the_last_run(audiocli: CommandLine) -> None:
    spoil(audiocli, "drop", "double")
    first = speak(audiocli, "--verify-retries", "1")
    assert (first.code, count(first)) == (3, (2, 2))

    r = speak(audiocli, "--verify-retries", "2", "--json")

    assert (r.code, count(r)) == (0, (1, 1))
    assert r.json["verify"]["redone"] == 1


def test_no_retries(audiocli: CommandLine) -> None:
    spoil(audiocli, "drop")

    r = speak(audiocli, "--verify-retries", "0", "--json")

    assert (r.code, count(r), r.json["verify"]["redone"]) == (3, (1, 1), 0)


def test_threshold_decides_about_words_that_differ(audiocli: CommandLine) -> None:
    heard = " ".join("wrong" if index % 5 == 0 else word for index, word in enumerate(TEXT.split()))
    audiocli.gateway.spoken_texts = None
    audiocli.gateway.set_transcript(heard)

    strict = speak(audiocli, "--verify-threshold", "10", "--verify-retries", "0")
    tolerant = speak(audiocli)

    assert (strict.code, count(strict)) == (3, (1, 1))
    assert "21 % of the words differ" in strict.err
    assert (tolerant.code, tolerant.posts) == (0, [])  # the transcript is stored
    assert speak(audiocli, "--verify-retries", "0", "--verify-threshold", "10").code == 3


def test_silence_is_wrong(audiocli: CommandLine) -> None:
    audiocli.gateway.spoken_texts = None
    audiocli.gateway.set_transcript("")

    r = speak(audiocli)

    assert r.code == 3
    assert "words are missing" in r.err


# --- stores ----------------------------------------------------------------------------------------------------------


def test_what_failed_is_not_in_the_phrase_cache(audiocli: CommandLine) -> None:
    audiocli.gateway.add_default_fault(WrongSpeech("drop"), path="/audio/speech")
    assert speak(audiocli).code == 3
    audiocli.gateway.clear_faults()

    assert list_files(audiocli, "phrases", "*.audio") == []
    assert list_files(audiocli, "rejected", "*.audio") != []
    # Without verification, the text is synthesized again.
    r = audiocli("speak", TEXT, "-o", audiocli.directory / "z.wav", *LOUD[:2], "--max-chars", "4000", "--pause", "1")
    assert (r.code, count(r)) == (0, (1, 0))


def test_wrong_speech_of_the_phrase_cache_is_replaced(audiocli: CommandLine) -> None:
    spoil(audiocli, "ok", "truncate")
    plain = ("speak", TEXT, "-o", audiocli.directory / "x.wav", *LOUD[:2], *LONG, "-j", "1")
    assert count(audiocli(*plain)) == (3, 0)

    r = speak(audiocli, *LONG)

    assert (r.code, count(r)) == (0, (1, 4))
    verified = read_samples(audiocli.directory / "x.wav")
    assert count(audiocli(*plain)) == (0, 0)
    assert read_samples(audiocli.directory / "x.wav") == verified
    assert len(verified) == pytest.approx(len(expected_pcm("".join(SENTENCES))), abs=100)


def test_without_cache_nothing_stays_stored(audiocli: CommandLine) -> None:
    spoil(audiocli, "drop")

    r = speak(audiocli, "--no-cache")

    assert (r.code, count(r)) == (0, (2, 2))
    assert list_files(audiocli, "phrases") == list_files(audiocli, "rejected") == []
    assert list((Path(audiocli.variables["XDG_CACHE_HOME"]) / "audiocli" / "speech").glob("*")) == []


def test_attempts_are_not_paid_for_again_after_a_failure(audiocli: CommandLine) -> None:
    spoil(audiocli, "drop")
    audiocli.gateway.queue_faults(NoFault(), Status(401), path="/audio/transcriptions")
    failed = speak(audiocli)
    assert (failed.code, count(failed)) == (4, (2, 2))
    assert "chunk 1 of 1, from character 1" in failed.err
    assert "the speech cannot be verified" in failed.err
    assert not (audiocli.directory / "x.wav").exists()

    r = speak(audiocli)

    assert (r.code, count(r)) == (0, (0, 1))


def test_no_resume_synthesizes_everything_again(audiocli: CommandLine) -> None:
    assert speak(audiocli).code == 0

    r = speak(audiocli, "--no-resume")

    assert count(r)[0] == 1


# --- long texts ------------------------------------------------------------------------------------------------------


def test_only_the_wrong_chunk_of_a_long_text_is_redone(audiocli: CommandLine) -> None:
    spoil(audiocli, "ok", "truncate", "ok")

    r = speak(audiocli, *LONG, "-j", "1", "--json")

    assert r.code == 0, r.err
    assert count(r) == (4, 4)
    assert (r.json["verify"]["chunks"], r.json["verify"]["redone"]) == (3, 1)
    assert r.json["duration_s"] == pytest.approx(sum(0.06 * len(sentence) for sentence in SENTENCES))
    assert speak(audiocli, *LONG).posts == []


def test_failed_chunk_of_a_long_text_is_reported_with_text_and_time(audiocli: CommandLine) -> None:
    spoil(audiocli, "ok", "truncate", "drop", "ok")

    r = speak(audiocli, *LONG, "-j", "1", "--verify-retries", "1", "--json")

    assert r.code == 3
    first = r.json["verify"]["failed"][0]
    assert first["text"] == SENTENCES[1]
    assert 0.06 * len(SENTENCES[0]) < first["start_s"] < 0.06 * len(SENTENCES[0] + SENTENCES[1])
    assert any("chunk 2 of 3, from character 57 (Everyone expected" in warning for warning in r.json["warnings"])
    again = speak(audiocli, *LONG, "-j", "1", "--verify-retries", "1", "--json")
    assert (again.code, again.posts) == (3, [])
    assert again.json["verify"]["failed"] == r.json["verify"]["failed"]


def test_repeated_text_is_verified_once(audiocli: CommandLine) -> None:
    text = " ".join([SENTENCES[0]] * 4)
    audiocli.gateway.add_default_fault(WrongSpeech("truncate"), path="/audio/speech")

    r = speak(audiocli, *LONG, "--json", text=text)

    assert (r.code, count(r)) == (3, (2, 1))
    assert len(r.json["verify"]["failed"]) == r.json["verify"]["chunks"] == 4
    starts_s = [failed["start_s"] for failed in r.json["verify"]["failed"]]
    assert starts_s == sorted(starts_s) and len(set(starts_s)) == 4
    assert speak(audiocli, *LONG, text=text).posts == []


def test_tempo_scales_the_times_of_problems(audiocli: CommandLine) -> None:
    audiocli.gateway.add_default_fault(WrongSpeech("truncate"), path="/audio/speech")

    plain = speak(audiocli, *LONG, "--json").json
    slow = speak(audiocli, *LONG, "--tempo", "0.5", "--json").json

    for one, other in zip(plain["verify"]["failed"], slow["verify"]["failed"], strict=True):
        assert other["start_s"] == pytest.approx(2 * one["start_s"], abs=0.01)


class Pipe(Stream):
    """A pipe that notes how many transcripts had been requested at each write, and how much was written before."""

    def __init__(self, gateway: MockGateway) -> None:
        super().__init__()
        self._gateway = gateway
        self.writes: list[tuple[int, int]] = []

    def write(self, data: Any) -> int:
        transcripts = sum(request.path.endswith("transcriptions") for request in self._gateway.requests)
        self.writes.append((transcripts, self.tell()))
        return super().write(data)


@pytest.mark.parametrize("format", ["pcm", "wav"])
def test_pipe_gets_each_chunk_after_it_is_verified(audiocli: CommandLine, format: str) -> None:
    spoil(audiocli, "truncate", "ok", "truncate")
    pipe = Pipe(audiocli.gateway)

    r = audiocli("speak", TEXT, "-o", "-", "-f", format, *LOUD, *LONG, "-j", "1", stdout=pipe)

    assert (r.code, count(r)) == (0, (5, 5))
    ends = [len(expected_pcm("".join(SENTENCES[: index + 1]))) for index in range(3)]
    assert pipe.getvalue()[-ends[-1] + 1000 :] != b""
    # The first chunk is right at the second attempt, the second one at the fourth.
    needed = [2, 4, 5]
    for transcripts, written in pipe.writes:
        first_unwritten = next((index for index, end in enumerate(ends) if written - 44 < end), 2)
        assert transcripts >= needed[first_unwritten]


def test_text_of_an_open_pipe_is_verified(audiocli: CommandLine) -> None:
    spoil(audiocli, "truncate")

    r = audiocli("speak", "-o", audiocli.directory / "x.wav", *LOUD, "--json", stdin=TEXT.encode())

    assert (r.code, count(r)) == (0, (2, 2))


def test_turns_of_several_voices_are_one_chunk(audiocli: CommandLine) -> None:
    turns = json.dumps([{"text": SENTENCES[0], "voice": "alloy"}, {"text": SENTENCES[1], "voice": "echo"}])

    model = ("-m", "openrouter:fish-audio/s2.1-pro", *LOUD[2:])
    r = audiocli("speak", "--option", f"input={turns}", "-o", audiocli.directory / "x.wav", *model, "--json")

    assert r.code == 0, r.err
    assert r.json["verify"]["chunks"] == 1


# --- captions --------------------------------------------------------------------------------------------------------


def test_captions_of_words_have_the_times_of_the_transcript(audiocli: CommandLine) -> None:
    r = speak(audiocli, *LONG, "--captions", audiocli.directory / "x.srt", "--caption-words", "--pause", "100")

    assert r.code == 0, r.err
    cues = pysubs2.load(str(audiocli.directory / "x.srt"))
    words = [word for cue in cues for word in cue.plaintext.split()]
    assert words == TEXT.split()
    assert all(len(cue.plaintext.split()) <= 4 for cue in cues)
    start_ms = next(cue.start for cue in cues if cue.plaintext.startswith("Everyone"))
    assert start_ms == pytest.approx(1000 * 0.06 * len(SENTENCES[0]), abs=60)


def test_captions_of_words_follow_the_tempo(audiocli: CommandLine) -> None:
    arguments = (*LONG, "--captions", audiocli.directory / "x.vtt", "--caption-words", "--tempo", "0.5")

    assert speak(audiocli, *arguments).code == 0

    cues = pysubs2.load(str(audiocli.directory / "x.vtt"))
    start_ms = next(cue.start for cue in cues if cue.plaintext.startswith("Everyone"))
    assert start_ms == pytest.approx(2000 * 0.06 * len(SENTENCES[0]), abs=120)


@pytest.mark.parametrize("argv", [("--caption-words",), ("--caption-words", "--captions", "x.srt")])
def test_caption_words_need_captions_and_verification(audiocli: CommandLine, argv: tuple[str, ...]) -> None:
    r = audiocli("speak", TEXT, "-o", audiocli.directory / "x.wav", *argv)

    assert (r.code, r.posts) == (2, [])
    assert "--caption-words needs" in r.err


# --- money -----------------------------------------------------------------------------------------------------------


def test_plan_includes_all_attempts(audiocli: CommandLine) -> None:
    assert audiocli("models", "-g", "openrouter").code == 0  # the prices
    speak_one = audiocli("speak", TEXT, "-o", "x.wav", *LOUD[:2], "-n", "--json").json
    plan = speak(audiocli, "-n", "--json").json
    single = speak(audiocli, "-n", "--json", "--verify-retries", "0").json

    assert plan["verify"] == {"model": f"openrouter:{LISTENER}", "retries": 2, "threshold_percent": 25.0}
    assert single["price_usd"] > speak_one["price_usd"]
    assert plan["price_usd"] == pytest.approx(single["price_usd"])
    assert plan["price_usd_most"] == pytest.approx(3 * single["price_usd_most"])
    text = speak(audiocli, "-n").text
    assert f"verify      openrouter:{LISTENER}, up to 2 further attempts at each chunk" in text


def test_limit_counts_all_attempts_before_anything_is_sent(audiocli: CommandLine) -> None:
    assert audiocli("models", "-g", "openrouter").code == 0  # the prices
    most_usd = speak(audiocli, "-n", "--json").json["price_usd_most"]

    refused = speak(audiocli, "--max-cost", f"{0.9 * most_usd:.9f}")
    allowed = speak(audiocli, "--max-cost", f"{1.1 * most_usd:.9f}")

    assert (refused.code, refused.posts) == (5, [])
    assert allowed.code == 0
    assert speak(audiocli, "--max-cost", "0").code == 0  # everything is stored


def test_plan_of_stored_failures_is_free(audiocli: CommandLine) -> None:
    assert audiocli("models", "-g", "openrouter").code == 0  # the prices
    audiocli.gateway.add_default_fault(WrongSpeech("drop"), path="/audio/speech")
    spoil(audiocli, "double", "drop", "truncate")
    assert speak(audiocli).code == 3

    r = speak(audiocli, "--max-cost", "0")

    assert (r.code, r.posts) == (3, [])


def test_limit_holds_during_the_run(audiocli: CommandLine) -> None:
    assert audiocli("models", "-g", "openrouter").code == 0  # the prices
    audiocli.gateway.add_default_fault(WrongSpeech("drop"), path="/audio/speech")
    audiocli.write_config("[budget]\nday = 0.000001\n")

    r = speak(audiocli)

    assert r.code == 5
    assert count(r)[0] <= 1


def test_usage_lists_verification(audiocli: CommandLine) -> None:
    assert speak(audiocli).code == 0

    rows = audiocli("usage", "--by", "command", "--json").json["rows"]

    assert {row["command"]: row["requests"] for row in rows} == {"speak": 1, "verify": 1}


# --- models ----------------------------------------------------------------------------------------------------------


def get_models(r: Result) -> list[str | None]:
    return [request.model for request in r.posts if request.path.endswith("transcriptions")]


def test_cheapest_model_of_the_gateway_listens_without_local_whisper(
    audiocli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "find_spec", lambda name: None)

    r = audiocli("speak", TEXT, "-o", audiocli.directory / "x.wav", *LOUD[:3])

    assert r.code == 0, r.err
    assert get_models(r) == ["openai/whisper-large-v3-turbo"]
    assert {request.dialect for request in r.posts} == {"openrouter"}


def test_local_speech_without_whisper_is_refused_with_the_install_command(
    audiocli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "find_spec", lambda name: None if name == "faster_whisper" else object())

    r = audiocli("speak", TEXT, "-g", "local", "--verify", "-o", audiocli.directory / "x.wav")

    assert (r.code, r.posts) == (4, [])
    assert "Whisper is not installed" in r.err
    assert 'pip install "audiocli[local' in r.err


def test_local_whisper_listens_by_default(audiocli: CommandLine) -> None:
    require_packages("espeakng_loader", "faster_whisper")
    text = "The committee met on Monday morning in the old library."

    r = audiocli("speak", text, "-m", "local:espeak", "--verify", "-o", audiocli.directory / "x.wav", "--json")

    assert (r.code, r.posts, r.ledger) == (0, [], [])
    assert r.json["verify"]["cost_usd"] == 0
    assert r.json["verify"]["word_error_rate"] < 0.2
    checked = audiocli("speak", text, "--verify-audio", audiocli.directory / "x.wav", "-g", "local", "--json")
    assert (checked.code, checked.posts, checked.json["cached"]) == (0, [], True)  # the same audio
    other = audiocli("speak", "Something else was said by other people on Tuesday.", "-g", "local", "--json",
                     "--verify-audio", audiocli.directory / "x.wav")  # fmt: skip
    assert (other.code, other.json["cached"]) == (3, True)


def test_named_model_of_another_gateway_is_used(all_gateways_cli: CommandLine) -> None:
    cli = all_gateways_cli

    r = cli("speak", TEXT, "-o", cli.directory / "x.wav", *LOUD[:3], "--verify-model", "groq:whisper-large-v3")

    assert r.code == 0, r.err
    assert [request.dialect for request in r.posts] == ["openrouter", "groq"]


def test_model_without_gateway_stays_at_the_gateway_of_the_speech(all_gateways_cli: CommandLine) -> None:
    cli = all_gateways_cli

    r = cli(
        "speak", TEXT, "-o", cli.directory / "x.wav", "-m", "openai:tts-1", "--verify", "--verify-model", "whisper-1"
    )

    assert r.code == 0, r.err
    assert {request.dialect for request in r.posts} == {"openai"}


def test_privacy_options_apply_to_the_transcript(audiocli: CommandLine) -> None:
    r = speak(audiocli, "--option", "provider.zdr=true", "--option", "provider.data_collection=deny")

    assert r.code == 0, r.err
    (listening,) = [request for request in r.posts if request.path.endswith("transcriptions")]
    body = json.loads(listening.body_prefix)
    assert body["provider"] == {"zdr": True, "data_collection": "deny"}


def test_model_that_does_not_keep_privacy_is_refused(all_gateways_cli: CommandLine) -> None:
    cli = all_gateways_cli
    arguments = ("--option", "provider.zdr=true", "--verify-model", "groq:whisper-large-v3")

    r = cli("speak", TEXT, "-o", cli.directory / "x.wav", *LOUD[:3], *arguments)

    assert (r.code, r.posts) == (2, [])


@pytest.mark.parametrize(
    "argv",
    [
        ("--verify-model", "whisper-1"),
        ("--verify-retries", "1"),
        ("--verify-threshold", "20"),
        ("--verify", "--verify-retries", "-1"),
        ("--verify", "--verify-threshold", "101"),
        ("--verify", "--verify-audio", "x.wav"),
        ("--verify", "--background"),
        ("--verify", "--verify-model", "nowhere:model:x"),
        ("--verify-audio", "missing.wav"),
        ("--verify-audio", "x.wav", "--play"),
    ],
)
def test_invalid_options_are_refused_before_anything_is_sent(audiocli: CommandLine, argv: tuple[str, ...]) -> None:
    r = audiocli("speak", TEXT, *([] if "--verify-audio" in argv else ["-o", audiocli.directory / "x.wav"]), *argv)

    assert r.code == 2, r.err
    assert r.posts == []


# --- many files ------------------------------------------------------------------------------------------------------


def test_rows_are_verified(audiocli: CommandLine) -> None:
    (audiocli.directory / "rows.txt").write_text("\n".join(SENTENCES))
    command = ("speak", "-F", audiocli.directory / "rows.txt", "--from", "lines", "-O", audiocli.directory / "out")
    spoil(audiocli, "truncate")

    r = audiocli(*command, "-f", "wav", "-j", "1", *LOUD)

    assert r.code == 0, r.err
    assert count(r) == (4, 4)
    again = audiocli(*command, "-f", "wav", "-j", "1", *LOUD)
    assert (again.code, again.posts) == (0, [])
    assert "3 unchanged" in again.err
    # Verified files are as good without verification.
    plain = audiocli(*command, "-f", "wav", *LOUD[:2])
    assert (plain.code, plain.posts) == (0, [])


def test_rows_that_stay_wrong_end_with_exit_3_at_every_run(audiocli: CommandLine) -> None:
    (audiocli.directory / "rows.txt").write_text("\n".join(SENTENCES[:2]))
    command = ("speak", "-F", audiocli.directory / "rows.txt", "--from", "lines", "-O", audiocli.directory / "out")
    audiocli.gateway.add_default_fault(WrongSpeech("truncate"), path="/audio/speech")

    r = audiocli(*command, "-f", "wav", *LOUD, "--json")

    documents = [json.loads(line) for line in r.text.splitlines()]
    assert r.code == 3
    assert [len(document["verify"]["failed"]) for document in documents[:2]] == [1, 1]
    assert documents[-1]["summary"]["wrong"] == 2
    again = audiocli(*command, "-f", "wav", *LOUD)
    assert (again.code, again.posts) == (3, [])
    assert "the end is missing" in again.err


def test_plan_of_rows_includes_all_attempts(audiocli: CommandLine) -> None:
    assert audiocli("models", "-g", "openrouter").code == 0  # the prices
    (audiocli.directory / "rows.txt").write_text("\n".join(SENTENCES))
    command = (
        "speak",
        "-F",
        audiocli.directory / "rows.txt",
        "--from",
        "lines",
        "-O",
        audiocli.directory / "out",
        "-n",
    )

    most = [audiocli(*command, *LOUD, "--verify-retries", n, "--json").json["price_usd_most"] for n in ("0", "3")]

    assert most[1] == pytest.approx(4 * most[0])


def test_chapters_are_verified(audiocli: CommandLine) -> None:
    (audiocli.directory / "book.md").write_text(f"# One\n\n{SENTENCES[0]}\n\n# Two\n\n{SENTENCES[1]}\n")
    command = ("speak", "-F", audiocli.directory / "book.md", "--split-chapters", "-O", audiocli.directory / "out")
    spoil(audiocli, "truncate")

    r = audiocli(*command, "-f", "wav", *LOUD)

    assert r.code == 0, r.err
    assert count(r)[0] > count(audiocli(*command, "-f", "wav", *LOUD))[0] == 0


# --- existing recordings ---------------------------------------------------------------------------------------------


def check_audio(cli: CommandLine, *argv: str | Path, text: str = TEXT) -> Result:
    return cli("speak", text, "--verify-audio", cli.directory / "x.wav", "--verify-model", LISTENER, *argv)


def test_existing_recording_is_checked(audiocli: CommandLine) -> None:
    assert audiocli("speak", TEXT, "-o", audiocli.directory / "x.wav", *LOUD[:2], "-f", "wav").code == 0
    audiocli.gateway.spoken_texts = None
    audiocli.gateway.set_transcript(MockTranscript(TEXT))

    r = check_audio(audiocli)

    assert (r.code, count(r)) == (0, (0, 1))
    assert "verified" in r.err
    assert [entry["command"] for entry in r.ledger] == ["verify"]
    again = check_audio(audiocli, "--json")
    assert (again.code, again.posts) == (0, [])
    assert again.json["verify"]["failed"] == []


def test_every_problem_of_a_recording_is_reported(audiocli: CommandLine) -> None:
    assert audiocli("speak", TEXT, "-o", audiocli.directory / "x.wav", *LOUD[:2], "-f", "wav").code == 0
    audiocli.gateway.spoken_texts = None
    words = TEXT.split()
    audiocli.gateway.set_transcript(" ".join(words[4:20] + words[10:-3]))

    r = check_audio(audiocli, "--json")

    assert r.code == 3
    problems = [failed["problem"] for failed in r.json["verify"]["failed"]]
    assert [problem.partition(":")[0] for problem in problems] == [
        *("words are missing", "words are repeated", "the end is missing")
    ]
    lines = check_audio(audiocli)
    assert (lines.code, lines.posts) == (3, [])
    assert "at 0:00:0" in lines.err and "the end is missing: a modest plan" in lines.err


def test_limit_applies_to_the_check_of_a_recording(audiocli: CommandLine) -> None:
    assert audiocli("models", "-g", "openrouter").code == 0  # the prices
    assert audiocli("speak", TEXT, "-o", audiocli.directory / "x.wav", *LOUD[:2], "-f", "wav").code == 0

    plan = check_audio(audiocli, "-n", "--json")
    refused = check_audio(audiocli, "--max-cost", "0")

    assert (plan.code, plan.posts, plan.json["dry_run"]) == (0, [], True)
    assert plan.json["price_usd"] > 0
    assert (refused.code, refused.posts) == (5, [])


def test_recording_that_is_not_audio_is_refused(audiocli: CommandLine) -> None:
    (audiocli.directory / "x.wav").write_text("not audio")

    assert check_audio(audiocli).code == 8


def test_long_recording_is_checked_in_chunks(audiocli: CommandLine) -> None:
    audiocli.gateway.spoken_texts = None
    audiocli.gateway.set_transcript("one two three")
    text = TEXT * 20
    assert audiocli("speak", text, "-o", audiocli.directory / "x.wav", *LOUD[:2], "-f", "wav").code == 0

    r = check_audio(audiocli, text=text)

    assert r.code == 3
    assert {entry["command"] for entry in r.ledger} == {"verify"}


def test_truncated_response_is_an_error_as_without_verification(audiocli: CommandLine) -> None:
    audiocli.gateway.add_default_fault(CleanTruncation(10), path="/audio/transcriptions")

    r = speak(audiocli)

    assert r.code == 9
    assert count(r)[0] == 1


def test_requests_keep_the_language(audiocli: CommandLine) -> None:
    text = "Der Ausschuss traf sich am Montag in der alten Bibliothek und sprach über den Haushalt."

    r = speak(audiocli, text=text)

    (listening,) = [request for request in r.posts if request.path.endswith("transcriptions")]
    assert r.code == 0, r.err
    assert get_language(listening) == "de"


def get_language(request: RecordedRequest) -> Any:
    return json.loads(request.body_prefix).get("language")
