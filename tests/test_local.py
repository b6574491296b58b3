"""The local engines: real speech, transcription of that speech, and cancellation."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import wave
from array import array
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from audiocli.engines import LocalTransport, sphinx
from audiocli.engines.weights import WeightStore
from audiocli.errors import AccessError, AudiocliError, InvalidResponse, RecordingError, UsageError
from audiocli.gateways.local import DIALECT
from audiocli.processes import build_child_environment
from audiocli.storage.response_cache import ResponseCache
from audiocli.types.audio import Recording
from audiocli.types.requests import HttpRequest, SpeechRequest, TranscriptionRequest
from audiocli.types.routes import Route
from audiocli.types.transcripts import Transcript

ESPEAK = Route("local", "local", "local:", "espeak")
POCKETSPHINX = Route("local", "local", "local:", "pocketsphinx")
SPEAK_RATE_HZ = 22_050
LONG_TEXT = "It was a bright cold day in April, and the clocks were striking thirteen. " * 14_000


def read_wav(path: Path) -> Iterator[bytes]:
    """Read a 16 kHz mono WAV file, with the interface of `codecs.convert.read_samples`."""
    try:
        with wave.open(str(path)) as file:
            while samples := file.readframes(4_000):
                yield samples
    except (wave.Error, EOFError) as error:
        raise RecordingError(f"cannot read {path}") from error


@asynccontextmanager
async def open_transport(read_timeout_s: float = 60) -> AsyncIterator[LocalTransport]:
    environment = build_child_environment(os.environ, key_variables=(), keys=())
    with TemporaryDirectory() as directory:
        weights = WeightStore(
            {"HOME": directory},
            models_directory=None,
            cache=ResponseCache(Path(directory)),
            get_join_directory=lambda: Path(directory) / "models",
        )
        transport = LocalTransport(read_wav, environment=environment, read_timeout_s=read_timeout_s, weights=weights)
        try:
            yield transport
        finally:
            await transport.close()


def run(operation: Callable[[LocalTransport], Coroutine[Any, Any, Any]]) -> Any:
    async def main() -> Any:
        async with open_transport() as transport:
            return await operation(transport)

    return asyncio.run(main())


async def read_blocks(transport: LocalTransport, request: HttpRequest) -> list[bytes]:
    async with transport.open(request) as response:
        assert response.status == 200
        return [block async for block in response.iter_bytes()]


def build_speech_request(text: str, voice: str | None = None, speed: float | None = None) -> HttpRequest:
    route = Route("local", "local", "local:", "espeak", voice=voice)
    return DIALECT.build_speech_request(SpeechRequest(text, "pcm", speed=speed), route)


def speak(text: str, voice: str | None = None, speed: float | None = None) -> bytes:
    return b"".join(run(lambda transport: read_blocks(transport, build_speech_request(text, voice, speed))))


def compute_duration_s(pcm: bytes) -> float:
    return len(pcm) / 2 / SPEAK_RATE_HZ


def build_transcription_request(path: Path, language: str | None = None) -> TranscriptionRequest:
    return TranscriptionRequest(Recording(path, "wav", 0), language=language)


def transcribe(path: Path) -> Transcript:
    request = DIALECT.build_transcription_request(build_transcription_request(path), POCKETSPHINX)
    return DIALECT.parse_transcript(b"".join(run(lambda transport: read_blocks(transport, request))), {})


def resample_to_16_khz(pcm: bytes) -> bytes:
    source = array("h", pcm)
    source.append(0)
    resampled = array("h")
    for index in range((len(source) - 1) * 16_000 // SPEAK_RATE_HZ):
        before, fraction = divmod(index * SPEAK_RATE_HZ, 16_000)
        resampled.append(source[before] + (source[before + 1] - source[before]) * fraction // 16_000)
    return resampled.tobytes()


def write_recording(path: Path, samples: bytes) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples)
    return path


# --- espeak ----------------------------------------------------------------------------------------------------------


def test_speech_is_streamed_in_several_blocks() -> None:
    blocks = run(
        lambda transport: read_blocks(transport, build_speech_request("The quick brown fox jumps over the lazy dog."))
    )

    assert len(blocks) > 1
    assert all(len(block) % 2 == 0 for block in blocks)
    assert 1.5 < compute_duration_s(b"".join(blocks)) < 5


def test_speed_scales_the_duration() -> None:
    text = "The quick brown fox jumps over the lazy dog."
    normal_s = compute_duration_s(speak(text))

    assert compute_duration_s(speak(text, speed=0.5)) == pytest.approx(2 * normal_s, rel=0.1)
    assert compute_duration_s(speak(text, speed=2)) == pytest.approx(normal_s / 2, rel=0.1)
    assert compute_duration_s(speak(text, speed=4)) == pytest.approx(normal_s / 4, rel=0.1)
    assert compute_duration_s(speak(text)) == pytest.approx(normal_s, rel=0.02)


def test_speed_below_the_minimum_of_espeak_causes_a_warning() -> None:
    request = SpeechRequest("hello", "pcm", speed=0.25)

    assert DIALECT.get_speech_warnings(request, ESPEAK) == (
        "--speed 0.25 is below the minimum of local:espeak; using 0.46",
    )
    assert DIALECT.get_speech_warnings(SpeechRequest("hello", "pcm", speed=4), ESPEAK) == ()


def test_voices_are_language_tags_and_variants_differ() -> None:
    request = DIALECT.build_voices_query(ESPEAK)
    assert request is not None
    voices = DIALECT.parse_voices(b"".join(run(lambda transport: read_blocks(transport, request))), ESPEAK)

    assert voices is not None
    assert {"en-us", "en-gb", "en-gb-scotland", "de", "fr", "es", "hr", "cmn", "zh"} <= set(voices)
    assert "fo" not in voices  # the wheel has this voice without its dictionary: the output would be silent
    assert speak("hello", "en-us+f3") != speak("hello", "en-us+m3")
    assert speak("hello", "EN_US+F3")


@pytest.mark.parametrize(
    ("voice", "suggestion"), [("en-uss", "en-us"), ("en-us+f33", "f3"), ("alloy", ""), ("../x", "")]
)
def test_unknown_voice_is_a_usage_error_with_a_suggestion(voice: str, suggestion: str) -> None:
    with pytest.raises(UsageError) as caught:
        speak("hello", voice)

    assert voice.split("+")[-1] in caught.value.message
    assert suggestion in (caught.value.hint or "")


@pytest.mark.parametrize("text", ["", "...", "\x00", "\u200b", " \n "])
def test_text_without_words_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="nothing in the text"):
        speak(text)


@pytest.mark.parametrize(
    "text", ["\U0001f600", "你好", "a\x00b\x01+50S\x1b[31m", "<b>bold</b>", "[[x]] &amp; \ud800 a"]
)
def test_unusual_text_is_spoken(text: str) -> None:
    assert compute_duration_s(speak(text)) > 0.2


def test_text_after_nul_or_markup_is_spoken() -> None:
    assert compute_duration_s(speak("one\x00two three four")) > 1.5 * compute_duration_s(speak("one"))
    assert compute_duration_s(speak("<speak>one</speak>")) > compute_duration_s(speak("one"))


def test_long_speech_stops_immediately_and_engine_remains_usable() -> None:
    async def close_early(transport: LocalTransport) -> float:
        async with transport.open(build_speech_request(LONG_TEXT)) as response:
            assert response.headers == {"content-type": "audio/pcm;rate=22050;channels=1"}
            await anext(aiter(response.iter_bytes()))
            await asyncio.sleep(0.1)  # the pipe is full now
            cancelled_at_s = time.perf_counter()
        return time.perf_counter() - cancelled_at_s

    assert run(close_early) < 0.5
    assert compute_duration_s(speak("hello world")) > 0.4


def test_cancelled_task_stops_its_synthesis() -> None:
    async def cancel(transport: LocalTransport) -> float:
        task = asyncio.create_task(read_blocks(transport, build_speech_request(LONG_TEXT)))
        await asyncio.sleep(0.1)
        cancelled_at_s = time.perf_counter()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.perf_counter() - cancelled_at_s

    assert run(cancel) < 0.5


def test_queued_speech_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)

    async def cancel_the_second(transport: LocalTransport) -> float:
        async with transport.open(build_speech_request(LONG_TEXT)):
            task = asyncio.create_task(read_blocks(transport, build_speech_request("hello")))
            await asyncio.sleep(0.1)
            cancelled_at_s = time.perf_counter()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return time.perf_counter() - cancelled_at_s

    assert run(cancel_the_second) < 0.5


def test_concurrent_speech_is_complete_in_any_read_order() -> None:
    texts = [f"This is chunk number {number}. " * 10 for number in range(4)]

    async def speak_concurrently(transport: LocalTransport) -> list[bytes]:
        async def read_in_reverse() -> list[bytes]:
            async with (
                transport.open(build_speech_request(texts[0])) as first,
                transport.open(build_speech_request(texts[1])) as second,
            ):
                responses = [[block async for block in response.iter_bytes()] for response in (second, first)]
            return [b"".join(blocks) for blocks in reversed(responses)]

        pair, third, fourth = await asyncio.gather(
            read_in_reverse(),
            read_blocks(transport, build_speech_request(texts[2])),
            read_blocks(transport, build_speech_request(texts[3])),
        )
        return [*pair, b"".join(third), b"".join(fourth)]

    for text, pcm in zip(texts, run(speak_concurrently), strict=True):
        assert compute_duration_s(pcm) == pytest.approx(compute_duration_s(speak(text)), rel=0.02)


# --- pocketsphinx ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hello_world() -> bytes:
    return resample_to_16_khz(speak("hello world"))


def test_spoken_words_are_transcribed_with_times(tmp_path: Path, hello_world: bytes) -> None:
    pause = bytes(16_000)
    path = write_recording(tmp_path / "hello.wav", pause + hello_world + pause)

    transcript = transcribe(path)

    assert "hello" in transcript.text.split()
    assert transcript.language == "en"
    assert transcript.duration_s == (len(hello_world) + 2 * len(pause)) / 32_000
    times = [time_s for word in transcript.words for time_s in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert times[0] >= 0.4
    assert times[-1] <= transcript.duration_s - 0.2
    assert transcript.text == " ".join(word.text for word in transcript.words)
    assert not any(mark in transcript.text for mark in "<>[]()")


def test_times_of_second_utterance_are_relative_to_the_recording(tmp_path: Path, hello_world: bytes) -> None:
    path = write_recording(tmp_path / "twice.wav", hello_world + bytes(32_000 * 3) + hello_world)

    transcript = transcribe(path)

    hello_s = len(hello_world) / 32_000
    assert len(transcript.segments) == 2
    assert transcript.segments[0].end_s == pytest.approx(hello_s, abs=0.4)
    assert transcript.segments[1].start_s == pytest.approx(hello_s + 3, abs=0.4)
    assert transcript.segments[1].end_s == pytest.approx(2 * hello_s + 3, abs=0.4)


def test_recording_without_speech_has_an_empty_transcript(tmp_path: Path) -> None:
    transcript = transcribe(write_recording(tmp_path / "silence.wav", bytes(64_000)))

    assert (transcript.text, transcript.segments, transcript.words) == ("", (), ())
    assert transcript.duration_s == 2


def test_unreadable_recording_is_a_recording_error(tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"nothing")

    with pytest.raises(RecordingError):
        transcribe(tmp_path / "broken.wav")


def test_interrupted_recognizer_is_an_invalid_response(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_recording(tmp_path / "long.wav", bytes(3_200_000))
    monkeypatch.setattr(sys, "executable", "/bin/false")

    with pytest.raises(InvalidResponse, match="exit status"):
        transcribe(path)


def test_transcription_stops_immediately(tmp_path: Path) -> None:
    path = write_recording(tmp_path / "long.wav", resample_to_16_khz(speak("This goes on for a while. " * 20)))

    async def cancel(transport: LocalTransport) -> float:
        request = DIALECT.build_transcription_request(build_transcription_request(path), POCKETSPHINX)
        task = asyncio.create_task(read_blocks(transport, request))
        await asyncio.sleep(1)
        assert not task.done()
        cancelled_at_s = time.perf_counter()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.perf_counter() - cancelled_at_s

    assert run(cancel) < 0.5


class ContinuousSpeaker:
    """An endpointer that never detects a pause."""

    frame_bytes = 960
    in_speech = True
    speech_start = 0.0

    def process(self, frame: bytes) -> bytes:
        return frame

    def end_stream(self, frame: bytes) -> bytes:
        return frame


def test_speech_without_pauses_is_split_at_its_quietest_point(tmp_path: Path) -> None:
    loud = array("h", [1_000] * 16_000 * 40)
    loud[16_000 * 13 : 16_000 * 13 + 1_600] = array("h", [0] * 1_600)
    path = tmp_path / "samples"
    path.write_bytes(loud.tobytes())

    with path.open("rb") as file:
        utterances = list(sphinx.split_utterances(sphinx.CountingReader(file), ContinuousSpeaker()))

    assert b"".join(utterance.samples for utterance in utterances) == loud.tobytes()
    assert len(utterances[0].samples) / 32_000 == pytest.approx(13.05, abs=0.05)
    assert utterances[1].start_bytes == len(utterances[0].samples)
    assert max(len(utterance.samples) for utterance in utterances) <= 32_000 * sphinx.MAX_UTTERANCE_S + 960


# --- dialect ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", [None, "en", "en-US", "en_GB", "English"])
def test_english_is_accepted_by_any_name(language: str | None, tmp_path: Path) -> None:
    assert DIALECT.check_transcription(build_transcription_request(tmp_path, language), POCKETSPHINX) is None


def test_unsupported_features_are_refused_with_a_reason(tmp_path: Path) -> None:
    def check(request: SpeechRequest | TranscriptionRequest, model: str) -> str:
        route = Route("local", "local", "local:", model)
        if isinstance(request, SpeechRequest):
            error: AudiocliError | None = DIALECT.check_speech(request, route)
        else:
            error = DIALECT.check_transcription(request, route)
        assert isinstance(error, UsageError)
        return f"{error.message}; {error.hint}"

    text = SpeechRequest("hello", "pcm")
    assert "English only, not fr" in check(build_transcription_request(tmp_path, "fr"), "pocketsphinx")
    assert "use local:espeak" in check(text, "pocketsphinx")
    assert "use local:whisper" in check(build_transcription_request(tmp_path), "espeak")
    assert "unknown model local:whisker" in check(text, "whisker")
    assert DIALECT.check_speech(text, ESPEAK) is None


def test_missing_extra_is_refused_with_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audiocli.gateways.local.find_spec", lambda name: None)

    error = DIALECT.check_speech(SpeechRequest("hello", "pcm"), ESPEAK)

    assert isinstance(error, AccessError)
    assert error.exit_code == 4
    assert error.hint == 'pip install "audiocli[local]"'


def test_options_without_effect_cause_warnings(tmp_path: Path) -> None:
    text = SpeechRequest("hello", "pcm", instructions="calm", options={"pitch": 3})
    recording_request = TranscriptionRequest(
        Recording(tmp_path, "wav", 0), prompt="names", temperature=0.2, options={"beam": 1}
    )

    assert [w.split()[0:2] for w in DIALECT.get_speech_warnings(text, ESPEAK)] == [
        ["--instructions", "has"],
        ["--option", "pitch"],
    ]
    assert len(DIALECT.get_transcription_warnings(recording_request, POCKETSPHINX)) == 3


def test_local_models_are_free() -> None:
    assert DIALECT.parse_usage({}).cost_nanousd == 0
    assert DIALECT.is_free


def test_large_text_is_sent_in_small_blocks_and_can_be_sent_again() -> None:
    body = build_speech_request(LONG_TEXT * 3).body
    assert body is not None
    sizes = [len(block) for block in body.blocks()]

    assert max(sizes) <= 1_000_000
    assert sum(sizes) == body.size_bytes
    assert json.loads(b"".join(body.blocks()))["text"] == LONG_TEXT * 3


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"duration":1,"text":"x","language":"en","segments":[1],"words":[]}']
)
def test_invalid_transcript_is_an_invalid_response(body: bytes) -> None:
    with pytest.raises(InvalidResponse):
        DIALECT.parse_transcript(body, {})
