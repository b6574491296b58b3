"""The exam in streams: the same audio and the same text however the events are cut, and no end without its event."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audiocli.gateways.event_streams import TranscriptStream
from tests.conftest import CommandLine, Result
from tests.gateway import DEFAULT_TEXT, CutAfter, Events, Garbage, Said, Status, expected_audio
from tests.gateway_contract import SPEECH, enrol, remains, warnings_of

TEXT = "Hello there, world."
CUTS = {
    "whole": Events(),
    "byte by byte": Events(split_bytes=1),
    "odd pieces": Events(split_bytes=7),
    "CRLF": Events(crlf=True),
    "CRLF byte by byte": Events(crlf=True, split_bytes=1),
    "comments": Events(comments=True),
    "tight": Events(tight=True),
    "a marker": Events(marker=True),
    "everything": Events(comments=True, crlf=True, tight=True, marker=True, split_bytes=3),
}
EVERY_CUT = pytest.mark.parametrize("cut", CUTS)


@pytest.fixture
def school(audiocli: CommandLine) -> CommandLine:
    enrol(audiocli)
    (audiocli.folder / "talk.wav").write_bytes(SPEECH)
    return audiocli


# --- speech ----------------------------------------------------------------------------------------------------------


def speak(cli: CommandLine, *flags: object, model: str = "openai:gpt-4o-mini-tts", to: str = "x.mp3") -> Result:
    argv = ("-m", model, "--option", "stream_format=sse", "-o", cli.folder / to)
    return cli("speak", TEXT, *argv, *map(str, flags))


@EVERY_CUT
def test_speech_in_events_is_the_same_audio(school: CommandLine, cut: str) -> None:
    school.gateway.script(CUTS[cut])

    r = speak(school, "--json")

    assert r.code == 0, r.err
    assert r.requests[0].json["stream_format"] == "sse"
    assert (school.folder / "x.mp3").read_bytes() == expected_audio(TEXT, "mp3")
    assert (r.ledger[0]["input_tokens"], r.ledger[0]["output_tokens"]) == (len(TEXT), 10 * len(TEXT))
    assert r.json["warnings"] == []


@pytest.mark.parametrize("format", ["wav", "flac", "pcm", "opus", "aac"])
def test_every_format_comes_in_events(school: CommandLine, format: str) -> None:
    r = speak(school, to=f"x.{format}")

    assert r.code == 0, r.err
    assert (school.folder / f"x.{format}").read_bytes() == expected_audio(TEXT, format)


def test_a_server_at_home_counts_no_tokens(school: CommandLine) -> None:
    school.gateway.script(Events(split_bytes=100, crlf=True))

    r = speak(school, model="home:kokoro")

    assert r.code == 0, r.err
    assert (school.folder / "x.mp3").read_bytes() == expected_audio(TEXT, "mp3")
    assert (r.ledger[0]["input_tokens"], r.ledger[0]["output_tokens"]) == (None, None)


def test_speech_without_its_last_event_is_cut_off(school: CommandLine) -> None:
    school.gateway.script(Events(without_done=True))

    r = speak(school)

    assert (r.code, remains(school.folder)) == (7, []), r.err
    assert [entry["outcome"] for entry in r.ledger] == ["unknown"]
    assert "--retry-unknown" in r.err


def test_speech_in_events_that_a_connection_cuts_is_cut_off(school: CommandLine) -> None:
    school.gateway.script(CutAfter(5000))

    r = speak(school)

    assert (r.code, remains(school.folder)) == (7, []), r.err


@pytest.mark.parametrize(
    ("status", "code", "outcome", "sends"),
    [(400, 6, "refused", 1), (401, 4, "refused", 1), (402, 5, "refused", 1), (500, 6, "failed", 3)],
)
@pytest.mark.parametrize("after", [0, 1])
def test_an_error_in_the_middle_of_speech_ends_as_its_status_says(
    school: CommandLine, after: int, status: int, code: int, outcome: str, sends: int
) -> None:
    school.gateway.always(error_event(after, status))

    r = speak(school)

    assert (r.code, remains(school.folder)) == (code, []), r.err
    assert [entry["outcome"] for entry in r.ledger] == [outcome] * sends


def error_event(after: int, status: int) -> Garbage:
    """A stream of speech with an error that names its status, which OpenAI's own do not."""
    delta = {"type": "speech.audio.delta", "audio": base64.b64encode(expected_audio(TEXT, "mp3")[:3000]).decode()}
    told = [delta] * after + [{"error": {"code": status, "message": "gone wrong"}}]
    return Garbage(b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in told), "text/event-stream")


def test_an_error_that_openai_tells_in_the_middle_is_read_by_its_words(school: CommandLine) -> None:
    school.gateway.always(Events(error_after=2, split_bytes=1000))
    argv = ("-m", "openai:gpt-4o-mini-tts", "--option", "stream_format=sse")

    filed, piped = speak(school), school("speak", TEXT * 20, *argv)

    assert (filed.code, len(filed.requests), remains(school.folder)) == (6, 3, []), filed.err
    assert (piped.code, len(piped.requests)) == (6, 1), piped.err
    assert expected_audio(TEXT * 20, "mp3").startswith(piped.out) and piped.out


def test_a_format_that_is_refused_in_the_middle_does_not_start_a_pipe_over(school: CommandLine) -> None:
    audio = expected_audio(TEXT * 20, "mp3")
    delta = {"type": "speech.audio.delta", "audio": base64.b64encode(audio[:9000]).decode()}
    told = [*[delta] * 3, {"error": {"code": 400, "message": "response_format mp3 is not supported any more"}}]
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in told)
    school.gateway.script(Garbage(body, "text/event-stream"))

    r = school("speak", TEXT * 20, "-m", "openai:gpt-4o-mini-tts", "--option", "stream_format=sse")

    assert (r.code, len(r.requests)) == (6, 1), r.err
    assert len(r.out) <= 3 * 9000


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", 7),
        (b"data: {}\n\n", 7),
        (b"data: not json\n\ndata: [DONE]\n\n", 9),
        (b'data: {"type":"speech.audio.done"}\n\n', 9),
        (b'data: {"type":"speech.audio.delta","audio":"@@@@"}\n\ndata: {"type":"speech.audio.done"}\n\n', 9),
        (b'data: {"type":"speech.audio.delta","audio":7}\n\ndata: {"type":"speech.audio.done"}\n\n', 9),
        (b'data: {"type":"error","message":"no"}\n\n', 9),
        (b"<html>no events</html>", 7),
    ],
)
def test_a_stream_without_speech_is_no_speech(school: CommandLine, body: bytes, code: int) -> None:
    school.gateway.script(Garbage(body, "text/event-stream; charset=utf-8"))

    r = speak(school)

    assert (r.code, remains(school.folder)) == (code, []), r.err


# --- transcripts as they come ----------------------------------------------------------------------------------------


class Pipe(io.BytesIO):
    """A stdout that tells when it was written to, and may be closed at the other end."""

    def __init__(self, heard: Callable[[bytes], None] = lambda text: None, *, leaves: bool = False) -> None:
        super().__init__()
        self._heard, self._leaves = heard, leaves

    def write(self, content: Any) -> int:
        if self._leaves:
            raise BrokenPipeError
        written = super().write(content)
        self._heard(bytes(content))
        return written


def hear(
    cli: CommandLine, *flags: object, model: str = "openai:gpt-4o-transcribe", stdout: Pipe | None = None
) -> Result:
    argv = ("transcribe", cli.folder / "talk.wav", "-m", model, "--stream")
    return cli(*argv, *map(str, flags), stdout=stdout)


SAYING = Said("Guten Tag, Zoë! 今日は 👋🏽 — ça va? Yes.")


@EVERY_CUT
def test_text_in_events_is_the_same_text(school: CommandLine, cut: str) -> None:
    school.gateway.says(SAYING)
    school.gateway.script(CUTS[cut])

    r = hear(school)

    assert (r.code, r.text) == (0, SAYING.text + "\n"), r.err
    assert r.requests[0].form("stream") == ["true"]
    assert (r.ledger[0]["input_tokens"] or 0) > 0


@EVERY_CUT
def test_letters_beyond_ascii_survive_every_cut(school: CommandLine, cut: str) -> None:
    fault = CUTS[cut]
    end = "\r\n" if fault.crlf else "\n"
    told = [{"type": "transcript.text.delta", "delta": part} for part in ("Zoë ", "今日は ", "👋🏽")]
    events = [*told, {"type": "transcript.text.done", "text": "Zoë 今日は 👋🏽"}]
    body = "".join(f"data: {json.dumps(event, ensure_ascii=False)}{end}{end}" for event in events).encode()
    stream = TranscriptStream({})

    size = fault.split_bytes or len(body)
    heard = [text for at in range(0, len(body), size) for text in stream.feed(body[at : at + size])]
    late, transcript = stream.finish()

    assert "".join([*heard, *late]) == transcript.text == "Zoë 今日は 👋🏽"


def test_a_server_at_home_whose_pieces_begin_with_a_space_gives_the_same_text(school: CommandLine) -> None:
    school.gateway.says("One sentence. And another.")

    r = hear(school, model="home:Systran/faster-whisper-large-v3")

    assert (r.code, r.text) == (0, "One sentence. And another.\n"), r.err


def test_text_leaves_while_the_rest_is_still_to_come(school: CommandLine) -> None:
    school.gateway.hold(after_bytes=200)
    first: list[bytes] = []

    def heard(text: bytes) -> None:
        first.append(text)
        school.gateway.release()

    pipe = Pipe(heard)
    r = hear(school, "--timeout", "5", stdout=pipe)

    assert r.code == 0, r.err
    assert first[0].startswith(b"The")
    assert len(first) > 1
    assert pipe.getvalue() == f"{DEFAULT_TEXT}\n".encode()


def test_text_that_was_not_streamed_is_written_at_the_end(school: CommandLine) -> None:
    for model in ("openai:whisper-1", "openrouter:openai/whisper-1", "groq:whisper-large-v3"):
        r = hear(school, model=model)

        assert (r.code, r.text) == (0, DEFAULT_TEXT + "\n"), r.err
        assert any("--stream has no effect" in warning for warning in warnings_of(r))


def test_a_file_and_a_receipt_hold_the_whole(school: CommandLine) -> None:
    filed = hear(school, "-o", school.folder / "x.txt")
    told = hear(school, "--json")
    document = hear(school, "-f", "json")

    assert (filed.code, filed.out) == (0, b""), filed.err
    assert (school.folder / "x.txt").read_text() == DEFAULT_TEXT + "\n"
    assert told.json["text"] == document.json["text"] == DEFAULT_TEXT
    assert told.json["first_byte_s"] is not None
    assert [r.requests[0].form("stream") for r in (filed, told, document)] == [["true"]] * 3


def test_captions_are_not_streamed(school: CommandLine) -> None:
    r = hear(school, "-f", "srt", model="home:whisper-1")

    assert r.code == 0, r.err
    assert "00:00:00,000 -->" in r.text
    assert any("--stream has no effect" in warning for warning in warnings_of(r))


@pytest.mark.parametrize("flags", [(), ("-o", "x.txt"), ("--json",)], ids=["stdout", "file", "json"])
def test_text_without_its_last_event_is_cut_off(
    school: CommandLine, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    monkeypatch.chdir(school.folder)
    school.gateway.script(Events(without_done=True))

    r = hear(school, *flags)

    assert (r.code, remains(school.folder)) == (7, []), r.err
    assert [entry["outcome"] for entry in r.ledger] == ["unknown"]
    assert DEFAULT_TEXT.encode().startswith(r.out)


@pytest.mark.parametrize("noise", ["ping", "{}", '{"ping": 1}', ""])
def test_noise_is_no_end_of_a_transcript(school: CommandLine, noise: str) -> None:
    body = f'data: {{"type":"transcript.text.delta","delta":"The quick"}}\n\ndata: {noise}\n\n'
    school.gateway.script(Garbage(body.encode(), "text/event-stream"))

    r = hear(school, "-o", school.folder / "x.txt")

    assert (r.code, remains(school.folder)) == (7, []), r.err


def test_what_was_heard_cannot_be_taken_back_so_nothing_is_sent_again(school: CommandLine) -> None:
    school.gateway.always(Events(without_done=True), dialect="openai")

    live = hear(school, "-m", "home:whisper-1", "--retry-unknown")
    filed = hear(school, "-m", "home:whisper-1", "-o", school.folder / "x.txt")

    assert (live.code, len(live.requests)) == (7, 1), live.err
    assert DEFAULT_TEXT.startswith(live.text) and live.text
    assert (filed.code, [seen.dialect for seen in filed.requests]) == (0, ["openai", "plain"]), filed.err
    assert (school.folder / "x.txt").read_text() == DEFAULT_TEXT + "\n"


@pytest.mark.parametrize(
    ("error", "code", "outcome"),
    [
        ({"error": {"code": 402, "message": "empty"}}, 5, "refused"),
        ({"error": {"message": "x", "type": "rate_limit_error"}}, 6, "refused"),
        ({"error": {"message": "x", "type": "odd", "code": None}}, 9, "failed"),
        ({"type": "error", "message": "odd"}, 9, "failed"),
    ],
)
def test_an_error_in_the_middle_of_a_transcript_ends_it(
    school: CommandLine, error: dict[str, Any], code: int, outcome: str
) -> None:
    told = [{"type": "transcript.text.delta", "delta": "The "}, error]
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in told)
    school.gateway.always(Garbage(body, "text/event-stream"))

    r = hear(school)

    assert (r.code, len(r.requests)) == (code, 1), r.err
    assert [entry["outcome"] for entry in r.ledger] == [outcome]
    assert DEFAULT_TEXT.encode().startswith(r.out.rstrip())


def test_a_format_that_is_refused_in_the_middle_does_not_write_a_text_twice(school: CommandLine) -> None:
    error = {"error": {"code": 400, "message": "audio in the format wav is not supported"}}
    told = [*({"type": "transcript.text.delta", "delta": word} for word in ("The ", "quick ", "brown ")), error]
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in told)
    school.gateway.script(Garbage(body, "text/event-stream"))

    r = hear(school)

    assert (r.code, len(r.requests)) == (6, 1), r.err
    assert r.text.count("quick") <= 1


def test_a_reader_that_leaves_ends_the_work_and_is_no_error(school: CommandLine) -> None:
    r = hear(school, stdout=Pipe(leaves=True))

    assert (r.code, r.err) == (0, "")
    assert [entry["outcome"] for entry in r.ledger] == ["cancelled"]


def test_speakers_come_in_a_stream_too(school: CommandLine) -> None:
    school.gateway.says("One fish. Two fish. Red fish.")

    for cut in CUTS.values():
        school.gateway.script(cut)
        r = hear(school, "--diarize", "--json", model="openai:gpt-4o-transcribe-diarize")

        assert r.code == 0, r.err
        assert [(part["speaker"], part["text"]) for part in r.json["segments"]] == [
            ("A", "One fish."),
            ("B", "Two fish."),
            ("A", "Red fish."),
        ]
        assert r.json["text"] == "One fish. Two fish. Red fish."


# --- speakers --------------------------------------------------------------------------------------------------------

TALKING = "One fish. Two fish. Red fish."
DIARIZE = "openai:gpt-4o-transcribe-diarize"


def diarize(cli: CommandLine, *flags: object) -> Result:
    return cli("transcribe", cli.folder / "talk.wav", "-m", DIARIZE, "--diarize", *map(str, flags))


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        ("txt", ["A: One fish.", "B: Two fish.", "A: Red fish."]),
        ("srt", ["A: One fish.", "B: Two fish.", "A: Red fish."]),
        ("vtt", ["<v A>One fish.", "<v B>Two fish.", "<v A>Red fish."]),
    ],
)
def test_speakers_are_in_every_format(school: CommandLine, format: str, expected: list[str]) -> None:
    school.gateway.says(TALKING)

    r = diarize(school, "-f", format)

    assert r.code == 0, r.err
    assert [line for line in r.text.splitlines() if "fish" in line] == expected
    assert r.requests[0].problems == []


def test_speakers_are_in_the_receipt(school: CommandLine) -> None:
    school.gateway.says(TALKING)

    r = diarize(school, "--json")

    assert [part["speaker"] for part in r.json["segments"]] == ["A", "B", "A"]
    assert (r.json["timing"], r.json["words"]) == ("segment", [])


def test_speakers_are_not_lost_where_text_is_written_as_it_comes(school: CommandLine) -> None:
    school.gateway.says(TALKING)

    r = diarize(school, "--stream")

    assert r.code == 0, r.err
    assert ("A: One fish.\nB: Two fish.\n" in r.text) or warnings_of(r)


def test_speakers_go_by_the_names_they_are_given(school: CommandLine) -> None:
    school.gateway.says(TALKING)

    r = diarize(school, "--speaker", "Ann", "--speaker", " Zoë B. ", "-f", "txt")

    assert r.text == "Ann: One fish.\nZoë B.: Two fish.\nAnn: Red fish.\n"
    assert r.requests[0].form("known_speaker_names[]") == ["Ann", "Zoë B."]
    assert r.requests[0].form("known_speaker_references[]") == []


def test_speakers_by_number_are_speakers(school: CommandLine) -> None:
    segments = [{"id": n, "start": n, "end": n + 1, "text": f"{n} fish.", "speaker": n % 2} for n in range(3)]
    reply = {"text": "0 fish. 1 fish. 2 fish.", "segments": segments}
    school.gateway.script(Garbage(json.dumps(reply).encode(), "application/json"))

    r = school("transcribe", school.folder / "talk.wav", "-m", "openrouter:openai/whisper-1", "--diarize", "-f", "txt")

    assert (r.code, r.text) == (0, "0: 0 fish.\n1: 1 fish.\n0: 2 fish.\n"), r.err
    assert r.requests[0].json["diarize"] is True
    assert r.requests[0].json["response_format"] == "verbose_json"


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("deepgram/nova-3", {"deepgram": {"diarize": True}}),
        ("assemblyai/universal-3-5-pro", {"assemblyai": {"speaker_labels": True}}),
    ],
)
def test_a_provider_of_openrouter_is_told_in_its_own_words(
    school: CommandLine, model: str, options: dict[str, Any]
) -> None:
    r = school("transcribe", school.folder / "talk.wav", "-m", f"openrouter:{model}", "--diarize")

    assert r.code == 0, r.err
    assert r.requests[-1].json["provider"] == {"options": options}
    assert "diarize" not in r.requests[-1].json


def test_times_that_were_refused_are_told_without_an_entry_that_costs(school: CommandLine, tmp_path: Path) -> None:
    school.gateway.script(Status(400, body={"error": {"message": "response_format diarized_json is not available"}}))

    r = diarize(school, "-o", tmp_path / "x.txt")

    assert (r.code, len(r.requests)) == (6, 1), r.err
    assert r.ledger[0]["cost_nanousd"] == 0
    assert remains(tmp_path) == []
