"""Streamed speech and transcripts (server-sent events), and speakers: identical output for any block size."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from audiocli.gateways.event_streams import TranscriptStream
from audiocli.mock import DEFAULT_TRANSCRIPT, CutAfter, EventStreamFault, Garbage, MockTranscript, Status
from tests.conftest import CommandLine, Result
from tests.gateway_contract import list_outputs, read_warnings
from tests.pyav_codec import expected_audio

TEXT = "Hello there, world."
STREAM_SHAPES = {
    "whole": EventStreamFault(),
    "byte by byte": EventStreamFault(split_bytes=1),
    "seven bytes": EventStreamFault(split_bytes=7),
    "CRLF": EventStreamFault(use_crlf=True),
    "CRLF byte by byte": EventStreamFault(use_crlf=True, split_bytes=1),
    "comments": EventStreamFault(add_comments=True),
    "no space after the colon": EventStreamFault(omit_space=True),
    "[DONE] marker": EventStreamFault(done_marker=True),
    "everything": EventStreamFault(add_comments=True, use_crlf=True, omit_space=True, done_marker=True, split_bytes=3),
}
EACH_STREAM_SHAPE = pytest.mark.parametrize("shape", STREAM_SHAPES)


# --- speech ----------------------------------------------------------------------------------------------------------


def speak(cli: CommandLine, *flags: object, model: str = "openai:gpt-4o-mini-tts", file_name: str = "x.mp3") -> Result:
    argv = ("-m", model, "--option", "stream_format=sse", "-o", cli.directory / file_name)
    return cli("speak", TEXT, *argv, *map(str, flags))


@EACH_STREAM_SHAPE
def test_streamed_speech_is_identical_for_any_block_size(all_gateways_cli: CommandLine, shape: str) -> None:
    all_gateways_cli.gateway.queue_faults(STREAM_SHAPES[shape])

    r = speak(all_gateways_cli, "--json")

    assert r.code == 0, r.err
    assert r.requests[0].json["stream_format"] == "sse"
    assert (all_gateways_cli.directory / "x.mp3").read_bytes() == expected_audio(TEXT, "mp3")
    assert (r.ledger[0]["input_tokens"], r.ledger[0]["output_tokens"]) == (len(TEXT), 10 * len(TEXT))
    assert r.json["warnings"] == []


@pytest.mark.parametrize("format", ["wav", "flac", "pcm", "opus", "aac"])
def test_every_format_can_be_streamed(all_gateways_cli: CommandLine, format: str) -> None:
    r = speak(all_gateways_cli, file_name=f"x.{format}")

    assert r.code == 0, r.err
    assert (all_gateways_cli.directory / f"x.{format}").read_bytes() == expected_audio(TEXT, format)


def test_self_hosted_speech_has_no_token_counts(all_gateways_cli: CommandLine) -> None:
    all_gateways_cli.gateway.queue_faults(EventStreamFault(split_bytes=100, use_crlf=True))

    r = speak(all_gateways_cli, model="home:kokoro")

    assert r.code == 0, r.err
    assert (all_gateways_cli.directory / "x.mp3").read_bytes() == expected_audio(TEXT, "mp3")
    assert (r.ledger[0]["input_tokens"], r.ledger[0]["output_tokens"]) == (None, None)


def test_speech_without_done_event_is_truncated(all_gateways_cli: CommandLine) -> None:
    all_gateways_cli.gateway.queue_faults(EventStreamFault(omit_done_event=True))

    r = speak(all_gateways_cli)

    assert (r.code, list_outputs(all_gateways_cli.directory)) == (7, []), r.err
    assert [entry["outcome"] for entry in r.ledger] == ["unknown"]
    assert "--retry-unknown" in r.err


def test_speech_stream_cut_by_connection_is_truncated(all_gateways_cli: CommandLine) -> None:
    all_gateways_cli.gateway.queue_faults(CutAfter(5000))

    r = speak(all_gateways_cli)

    assert (r.code, list_outputs(all_gateways_cli.directory)) == (7, []), r.err


@pytest.mark.parametrize(
    ("status", "code", "outcome", "request_count"),
    [(400, 6, "refused", 1), (401, 4, "refused", 1), (402, 5, "refused", 1), (500, 6, "failed", 3)],
)
@pytest.mark.parametrize("delta_count", [0, 1])
def test_error_event_in_speech_has_the_exit_code_of_its_status(
    all_gateways_cli: CommandLine, delta_count: int, status: int, code: int, outcome: str, request_count: int
) -> None:
    all_gateways_cli.gateway.add_default_fault(build_error_stream(delta_count, status))

    r = speak(all_gateways_cli)

    assert (r.code, list_outputs(all_gateways_cli.directory)) == (code, []), r.err
    assert [entry["outcome"] for entry in r.ledger] == [outcome] * request_count


def build_error_stream(delta_count: int, status: int) -> Garbage:
    """Return a stream of speech with an error event that has a status. The error events of OpenAI have none."""
    delta = {"type": "speech.audio.delta", "audio": base64.b64encode(expected_audio(TEXT, "mp3")[:3000]).decode()}
    events = [delta] * delta_count + [{"error": {"code": status, "message": "gone wrong"}}]
    return Garbage(b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events), "text/event-stream")


def test_error_event_of_openai_is_classified_by_its_message(all_gateways_cli: CommandLine) -> None:
    all_gateways_cli.gateway.add_default_fault(EventStreamFault(error_after=2, split_bytes=1000))
    argv = ("-m", "openai:gpt-4o-mini-tts", "--option", "stream_format=sse")

    to_file, to_pipe = speak(all_gateways_cli), all_gateways_cli("speak", TEXT * 20, *argv)

    assert (to_file.code, len(to_file.requests), list_outputs(all_gateways_cli.directory)) == (6, 3, []), to_file.err
    assert (to_pipe.code, len(to_pipe.requests)) == (6, 1), to_pipe.err
    assert expected_audio(TEXT * 20, "mp3").startswith(to_pipe.out) and to_pipe.out


def test_refused_format_in_stream_does_not_restart_a_pipe(all_gateways_cli: CommandLine) -> None:
    audio = expected_audio(TEXT * 20, "mp3")
    delta = {"type": "speech.audio.delta", "audio": base64.b64encode(audio[:9000]).decode()}
    events = [*[delta] * 3, {"error": {"code": 400, "message": "response_format mp3 is not supported any more"}}]
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    all_gateways_cli.gateway.queue_faults(Garbage(body, "text/event-stream"))

    r = all_gateways_cli("speak", TEXT * 20, "-m", "openai:gpt-4o-mini-tts", "--option", "stream_format=sse")

    assert (r.code, len(r.requests)) == (6, 1), r.err
    assert len(r.out) <= 3 * 9000


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", 7),
        (b"data: {}\n\n", 7),
        (b"data: not json\n\ndata: [DONE]\n\n", 9),
        (b'data: {"type":"speech.audio.done"}\n\n', 9),
        (b'data: {"type":"speech.audio.delta","audio":""}\n\ndata: {"type":"speech.audio.done"}\n\n', 9),
        (b'data: {"type":"speech.audio.delta","audio":7}\n\ndata: {"type":"speech.audio.done"}\n\n', 9),
        (b'data: {"type":"error","message":"no"}\n\n', 9),
        (b"<html>no events</html>", 7),
    ],
)
def test_stream_without_audio_is_an_error(all_gateways_cli: CommandLine, body: bytes, code: int) -> None:
    all_gateways_cli.gateway.queue_faults(Garbage(body, "text/event-stream; charset=utf-8"))

    r = speak(all_gateways_cli)

    assert (r.code, list_outputs(all_gateways_cli.directory)) == (code, []), r.err


# --- transcripts -----------------------------------------------------------------------------------------------------


class Stdout(io.BytesIO):
    """A stdout that calls a function on each write, or raises BrokenPipeError."""

    def __init__(self, on_write: Callable[[bytes], None] = lambda text: None, *, is_closed: bool = False) -> None:
        super().__init__()
        self._on_write, self._is_closed = on_write, is_closed

    def write(self, content: Any) -> int:
        if self._is_closed:
            raise BrokenPipeError
        written = super().write(content)
        self._on_write(bytes(content))
        return written


def transcribe_streaming(
    cli: CommandLine, *flags: object, model: str = "openai:gpt-4o-transcribe", stdout: Stdout | None = None
) -> Result:
    argv = ("transcribe", cli.directory / "talk.wav", "-m", model, "--stream", "--no-resume")
    return cli(*argv, *map(str, flags), stdout=stdout)


NON_ASCII_TRANSCRIPT = MockTranscript("Guten Tag, Zoë! 今日は 👋🏽 — ça va? Yes.")


@EACH_STREAM_SHAPE
def test_streamed_transcript_is_identical_for_any_block_size(all_gateways_cli: CommandLine, shape: str) -> None:
    all_gateways_cli.gateway.set_transcript(NON_ASCII_TRANSCRIPT)
    all_gateways_cli.gateway.queue_faults(STREAM_SHAPES[shape])

    r = transcribe_streaming(all_gateways_cli)

    assert (r.code, r.text) == (0, NON_ASCII_TRANSCRIPT.text + "\n"), r.err
    assert r.requests[0].get_form_values("stream") == ["true"]
    assert (r.ledger[0]["input_tokens"] or 0) > 0


@EACH_STREAM_SHAPE
def test_non_ascii_text_is_decoded_for_any_block_size(all_gateways_cli: CommandLine, shape: str) -> None:
    fault = STREAM_SHAPES[shape]
    end = "\r\n" if fault.use_crlf else "\n"
    deltas = [{"type": "transcript.text.delta", "delta": segment} for segment in ("Zoë ", "今日は ", "👋🏽")]
    events = [*deltas, {"type": "transcript.text.done", "text": "Zoë 今日は 👋🏽"}]
    body = "".join(f"data: {json.dumps(event, ensure_ascii=False)}{end}{end}" for event in events).encode()
    stream = TranscriptStream({})

    size = fault.split_bytes or len(body)
    streamed = [text for at in range(0, len(body), size) for text in stream.feed(body[at : at + size])]
    remaining, transcript = stream.finish()

    assert "".join([*streamed, *remaining]) == transcript.text == "Zoë 今日は 👋🏽"


def test_self_hosted_deltas_with_leading_space_are_joined(all_gateways_cli: CommandLine) -> None:
    all_gateways_cli.gateway.set_transcript("One sentence. And another.")

    r = transcribe_streaming(all_gateways_cli, model="home:Systran/faster-whisper-large-v3")

    assert (r.code, r.text) == (0, "One sentence. And another.\n"), r.err


def test_text_is_written_before_the_response_ends(all_gateways_cli: CommandLine) -> None:
    all_gateways_cli.gateway.hold_responses(after_bytes=200)
    writes: list[bytes] = []

    def on_write(text: bytes) -> None:
        writes.append(text)
        all_gateways_cli.gateway.release_responses()

    stdout = Stdout(on_write)
    r = transcribe_streaming(all_gateways_cli, "--timeout", "5", stdout=stdout)

    assert r.code == 0, r.err
    assert writes[0].startswith(b"The")
    assert len(writes) > 1
    assert stdout.getvalue() == f"{DEFAULT_TRANSCRIPT}\n".encode()


def test_text_without_streaming_is_written_at_the_end(all_gateways_cli: CommandLine) -> None:
    for model in ("openai:whisper-1", "openrouter:openai/whisper-1", "groq:whisper-large-v3"):
        r = transcribe_streaming(all_gateways_cli, model=model)

        assert (r.code, r.text) == (0, DEFAULT_TRANSCRIPT + "\n"), r.err
        assert any("--stream has no effect" in warning for warning in read_warnings(r))


def test_file_and_json_result_have_the_complete_text(all_gateways_cli: CommandLine) -> None:
    to_file = transcribe_streaming(all_gateways_cli, "-o", all_gateways_cli.directory / "x.txt")
    result = transcribe_streaming(all_gateways_cli, "--json")
    document = transcribe_streaming(all_gateways_cli, "-f", "json")

    assert (to_file.code, to_file.out) == (0, b""), to_file.err
    assert (all_gateways_cli.directory / "x.txt").read_text() == DEFAULT_TRANSCRIPT + "\n"
    assert result.json["text"] == document.json["text"] == DEFAULT_TRANSCRIPT
    assert result.json["first_byte_s"] is not None
    assert [r.requests[0].get_form_values("stream") for r in (to_file, result, document)] == [["true"]] * 3


def test_captions_are_not_streamed(all_gateways_cli: CommandLine) -> None:
    r = transcribe_streaming(all_gateways_cli, "-f", "srt", model="home:whisper-1")

    assert r.code == 0, r.err
    assert "00:00:00,000 -->" in r.text
    assert any("--stream has no effect" in warning for warning in read_warnings(r))


@pytest.mark.parametrize("flags", [(), ("-o", "x.txt"), ("--json",)], ids=["stdout", "file", "json"])
def test_transcript_without_done_event_is_truncated(
    all_gateways_cli: CommandLine, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    monkeypatch.chdir(all_gateways_cli.directory)
    all_gateways_cli.gateway.queue_faults(EventStreamFault(omit_done_event=True))

    r = transcribe_streaming(all_gateways_cli, *flags)

    assert (r.code, list_outputs(all_gateways_cli.directory)) == (7, []), r.err
    assert [entry["outcome"] for entry in r.ledger] == ["unknown"]
    assert DEFAULT_TRANSCRIPT.encode().startswith(r.out)


@pytest.mark.parametrize("data", ["ping", "{}", '{"ping": 1}', ""])
def test_unknown_event_does_not_end_a_transcript(all_gateways_cli: CommandLine, data: str) -> None:
    body = f'data: {{"type":"transcript.text.delta","delta":"The quick"}}\n\ndata: {data}\n\n'
    all_gateways_cli.gateway.queue_faults(Garbage(body.encode(), "text/event-stream"))

    r = transcribe_streaming(all_gateways_cli, "-o", all_gateways_cli.directory / "x.txt")

    assert (r.code, list_outputs(all_gateways_cli.directory)) == (7, []), r.err


def test_written_text_prevents_retry_and_fallback(all_gateways_cli: CommandLine) -> None:
    all_gateways_cli.gateway.add_default_fault(EventStreamFault(omit_done_event=True), dialect="openai")

    to_stdout = transcribe_streaming(all_gateways_cli, "-m", "home:whisper-1", "--retry-unknown")
    to_file = transcribe_streaming(all_gateways_cli, "-m", "home:whisper-1", "-o", all_gateways_cli.directory / "x.txt")

    assert (to_stdout.code, len(to_stdout.requests)) == (7, 1), to_stdout.err
    assert DEFAULT_TRANSCRIPT.startswith(to_stdout.text) and to_stdout.text
    assert (to_file.code, [seen.dialect for seen in to_file.requests]) == (0, ["openai", "plain"]), to_file.err
    assert (all_gateways_cli.directory / "x.txt").read_text() == DEFAULT_TRANSCRIPT + "\n"


@pytest.mark.parametrize(
    ("error", "code", "outcome"),
    [
        ({"error": {"code": 402, "message": "empty"}}, 5, "refused"),
        ({"error": {"message": "x", "type": "rate_limit_error"}}, 6, "refused"),
        ({"error": {"message": "x", "type": "odd", "code": None}}, 9, "failed"),
        ({"type": "error", "message": "odd"}, 9, "failed"),
    ],
)
def test_error_event_ends_a_transcript(
    all_gateways_cli: CommandLine, error: dict[str, Any], code: int, outcome: str
) -> None:
    events = [{"type": "transcript.text.delta", "delta": "The "}, error]
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    all_gateways_cli.gateway.add_default_fault(Garbage(body, "text/event-stream"))

    r = transcribe_streaming(all_gateways_cli)

    assert (r.code, len(r.requests)) == (code, 1), r.err
    assert [entry["outcome"] for entry in r.ledger] == [outcome]
    assert DEFAULT_TRANSCRIPT.encode().startswith(r.out.rstrip())


def test_refused_format_in_stream_does_not_write_text_twice(all_gateways_cli: CommandLine) -> None:
    error = {"error": {"code": 400, "message": "audio in the format wav is not supported"}}
    events = [*({"type": "transcript.text.delta", "delta": word} for word in ("The ", "quick ", "brown ")), error]
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    all_gateways_cli.gateway.queue_faults(Garbage(body, "text/event-stream"))

    r = transcribe_streaming(all_gateways_cli)

    assert (r.code, len(r.requests)) == (6, 1), r.err
    assert r.text.count("quick") <= 1


def test_closed_stdout_ends_the_run_without_error(all_gateways_cli: CommandLine) -> None:
    r = transcribe_streaming(all_gateways_cli, stdout=Stdout(is_closed=True))

    assert (r.code, r.err) == (0, "")
    assert [entry["outcome"] for entry in r.ledger] == ["cancelled"]


def test_streamed_transcript_has_speakers(all_gateways_cli: CommandLine) -> None:
    all_gateways_cli.gateway.set_transcript("One fish. Two fish. Red fish.")

    for shape in STREAM_SHAPES.values():
        all_gateways_cli.gateway.queue_faults(shape)
        r = transcribe_streaming(all_gateways_cli, "--diarize", "--json", model="openai:gpt-4o-transcribe-diarize")

        assert r.code == 0, r.err
        assert [(segment["speaker"], segment["text"]) for segment in r.json["segments"]] == [
            ("A", "One fish."),
            ("B", "Two fish."),
            ("A", "Red fish."),
        ]
        assert r.json["text"] == "One fish. Two fish. Red fish."


# --- speakers --------------------------------------------------------------------------------------------------------

DIALOGUE = "One fish. Two fish. Red fish."
DIARIZE_MODEL = "openai:gpt-4o-transcribe-diarize"


def diarize(cli: CommandLine, *flags: object) -> Result:
    return cli("transcribe", cli.directory / "talk.wav", "-m", DIARIZE_MODEL, "--diarize", *map(str, flags))


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        ("txt", ["A: One fish.", "B: Two fish.", "A: Red fish."]),
        ("srt", ["A: One fish.", "B: Two fish.", "A: Red fish."]),
        ("vtt", ["<v A>One fish.", "<v B>Two fish.", "<v A>Red fish."]),
    ],
)
def test_speakers_are_in_every_format(all_gateways_cli: CommandLine, format: str, expected: list[str]) -> None:
    all_gateways_cli.gateway.set_transcript(DIALOGUE)

    r = diarize(all_gateways_cli, "-f", format)

    assert r.code == 0, r.err
    assert [line for line in r.text.splitlines() if "fish" in line] == expected
    assert r.requests[0].problems == []


def test_speakers_are_in_the_json_result(all_gateways_cli: CommandLine) -> None:
    all_gateways_cli.gateway.set_transcript(DIALOGUE)

    r = diarize(all_gateways_cli, "--json")

    assert [segment["speaker"] for segment in r.json["segments"]] == ["A", "B", "A"]
    assert (r.json["timing"], r.json["words"]) == ("segment", [])


def test_speakers_are_in_streamed_text_or_a_warning_is_shown(all_gateways_cli: CommandLine) -> None:
    all_gateways_cli.gateway.set_transcript(DIALOGUE)

    r = diarize(all_gateways_cli, "--stream")

    assert r.code == 0, r.err
    assert ("A: One fish.\nB: Two fish.\n" in r.text) or read_warnings(r)


def test_speakers_have_the_given_names(all_gateways_cli: CommandLine) -> None:
    all_gateways_cli.gateway.set_transcript(DIALOGUE)

    r = diarize(all_gateways_cli, "--speaker", "Ann", "--speaker", " Zoë B. ", "-f", "txt")

    assert r.text == "Ann: One fish.\nZoë B.: Two fish.\nAnn: Red fish.\n"
    assert r.requests[0].get_form_values("known_speaker_names[]") == ["Ann", "Zoë B."]
    assert r.requests[0].get_form_values("known_speaker_references[]") == []


def test_numeric_speakers_are_accepted(all_gateways_cli: CommandLine) -> None:
    segments = [{"id": n, "start": n, "end": n + 1, "text": f"{n} fish.", "speaker": n % 2} for n in range(3)]
    response = {"text": "0 fish. 1 fish. 2 fish.", "segments": segments}
    all_gateways_cli.gateway.queue_faults(Garbage(json.dumps(response).encode(), "application/json"))

    r = all_gateways_cli(
        "transcribe",
        all_gateways_cli.directory / "talk.wav",
        "-m",
        "openrouter:microsoft/mai-transcribe-2",
        "--diarize",
        "-f",
        "txt",
    )

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
def test_diarize_uses_the_option_of_the_openrouter_provider(
    all_gateways_cli: CommandLine, model: str, options: dict[str, Any]
) -> None:
    r = all_gateways_cli(
        "transcribe", all_gateways_cli.directory / "talk.wav", "-m", f"openrouter:{model}", "--diarize"
    )

    assert r.code == 0, r.err
    assert r.requests[-1].json["provider"] == {"options": options}
    assert "diarize" not in r.requests[-1].json


def test_refused_diarization_costs_nothing(all_gateways_cli: CommandLine, tmp_path: Path) -> None:
    all_gateways_cli.gateway.queue_faults(
        Status(400, body={"error": {"message": "response_format diarized_json is not available"}})
    )

    r = diarize(all_gateways_cli, "-o", tmp_path / "x.txt")

    assert (r.code, len(r.requests)) == (6, 1), r.err
    assert r.ledger[0]["cost_nanousd"] == 0
    assert list_outputs(tmp_path) == []
