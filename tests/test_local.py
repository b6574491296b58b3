"""The engines on this machine, for real: what is spoken is heard again, and everything can be left at once."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import wave
from array import array
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from audiocli.engines import Engines, sphinx
from audiocli.errors import AccessError, AudiocliError, InvalidResponse, RecordingError, UsageError
from audiocli.gateways.local import DIALECT
from audiocli.types.values import Recording, Route, SpeechRequest, Transcript, TranscriptionRequest, WireRequest

ESPEAK = Route("local", "local", "local:", "espeak")
POCKETSPHINX = Route("local", "local", "local:", "pocketsphinx")
SPEAK_RATE_HZ = 22_050
LONG_TEXT = "It was a bright cold day in April, and the clocks were striking thirteen. " * 14_000


def samples_of(path: Path) -> Iterator[bytes]:
    """Read a 16 kHz mono WAV file, as `audio.convert` reads everything."""
    try:
        with wave.open(str(path)) as file:
            while samples := file.readframes(4_000):
                yield samples
    except (wave.Error, EOFError) as error:
        raise RecordingError(f"cannot read {path}") from error


def run(work: Callable[[Engines], Coroutine[Any, Any, Any]]) -> Any:
    async def main() -> Any:
        return await work(Engines(samples_of))

    return asyncio.run(main())


async def chunks_of(engines: Engines, request: WireRequest) -> list[bytes]:
    async with engines.open(request) as reply:
        assert reply.status == 200
        return [chunk async for chunk in reply.chunks()]


def speech(text: str, voice: str | None = None, speed: float | None = None) -> WireRequest:
    route = Route("local", "local", "local:", "espeak", voice=voice)
    return DIALECT.speech(SpeechRequest(text, "pcm", speed=speed), route)


def spoken(text: str, voice: str | None = None, speed: float | None = None) -> bytes:
    return b"".join(run(lambda engines: chunks_of(engines, speech(text, voice, speed))))


def seconds(pcm: bytes) -> float:
    return len(pcm) / 2 / SPEAK_RATE_HZ


def transcription(path: Path, language: str | None = None) -> TranscriptionRequest:
    return TranscriptionRequest(Recording(path, "wav", 0), language=language)


def written_down(path: Path) -> Transcript:
    request = DIALECT.transcription(transcription(path), POCKETSPHINX)
    return DIALECT.transcript(b"".join(run(lambda engines: chunks_of(engines, request))), {})


def at_16_khz(pcm: bytes) -> bytes:
    source = array("h", pcm)
    source.append(0)
    made = array("h")
    for index in range((len(source) - 1) * 16_000 // SPEAK_RATE_HZ):
        before, part = divmod(index * SPEAK_RATE_HZ, 16_000)
        made.append(source[before] + (source[before + 1] - source[before]) * part // 16_000)
    return made.tobytes()


def recording(path: Path, samples: bytes) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(samples)
    return path


# --- espeak ---------------------------------------------------------------------------------------------------------


def test_speech_comes_in_several_chunks_of_a_plausible_length() -> None:
    chunks = run(lambda engines: chunks_of(engines, speech("The quick brown fox jumps over the lazy dog.")))

    assert len(chunks) > 1
    assert all(len(chunk) % 2 == 0 for chunk in chunks)
    assert 1.5 < seconds(b"".join(chunks)) < 5


def test_speed_changes_the_duration_from_a_half_to_four() -> None:
    text = "The quick brown fox jumps over the lazy dog."
    normal_s = seconds(spoken(text))

    assert seconds(spoken(text, speed=0.5)) == pytest.approx(2 * normal_s, rel=0.1)
    assert seconds(spoken(text, speed=2)) == pytest.approx(normal_s / 2, rel=0.1)
    assert seconds(spoken(text, speed=4)) == pytest.approx(normal_s / 4, rel=0.1)
    assert seconds(spoken(text)) == pytest.approx(normal_s, rel=0.02)


def test_a_speed_that_espeak_cannot_reach_is_warned_about() -> None:
    slow = SpeechRequest("hello", "pcm", speed=0.25)

    assert DIALECT.speech_warnings(slow, ESPEAK) == ("local:espeak speaks no slower than speed 0.46: 0.25 asked for",)
    assert DIALECT.speech_warnings(SpeechRequest("hello", "pcm", speed=4), ESPEAK) == ()


def test_voices_are_language_tags_and_their_variants_sound_different() -> None:
    request = DIALECT.voices_query(ESPEAK)
    assert request is not None
    names = DIALECT.voices_reply(b"".join(run(lambda engines: chunks_of(engines, request))), ESPEAK)

    assert names is not None
    assert {"en-us", "en-gb", "en-gb-scotland", "de", "fr", "es", "hr", "cmn", "zh"} <= set(names)
    assert "fo" not in names  # the wheel has its voice but not its dictionary: it would say nothing
    assert spoken("hello", "en-us+f3") != spoken("hello", "en-us+m3")
    assert spoken("hello", "EN_US+F3")


@pytest.mark.parametrize(("voice", "near"), [("en-uss", "en-us"), ("en-us+f33", "f3"), ("alloy", ""), ("../x", "")])
def test_an_unknown_voice_is_a_usage_error_that_names_the_nearest(voice: str, near: str) -> None:
    with pytest.raises(UsageError) as caught:
        spoken("hello", voice)

    assert voice.split("+")[-1] in caught.value.message
    assert near in (caught.value.hint or "")


@pytest.mark.parametrize("text", ["", "...", "\x00", "\u200b", " \n "])
def test_a_text_without_anything_to_speak_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="nothing in the text"):
        spoken(text)


@pytest.mark.parametrize(
    "text", ["\U0001f600", "你好", "a\x00b\x01+50S\x1b[31m", "<b>bold</b>", "[[x]] &amp; \ud800 a"]
)
def test_odd_text_is_spoken_as_text(text: str) -> None:
    assert seconds(spoken(text)) > 0.2


def test_text_after_a_nul_and_markup_is_not_lost() -> None:
    assert seconds(spoken("one\x00two three four")) > 1.5 * seconds(spoken("one"))
    assert seconds(spoken("<speak>one</speak>")) > seconds(spoken("one"))


def test_a_huge_text_is_left_at_once_and_the_engine_speaks_again() -> None:
    async def leave(engines: Engines) -> float:
        async with engines.open(speech(LONG_TEXT)) as reply:
            assert reply.headers == {"content-type": "audio/pcm;rate=22050;channels=1"}
            await anext(aiter(reply.chunks()))
            await asyncio.sleep(0.1)  # the queue is full now
            left = time.perf_counter()
        return time.perf_counter() - left

    assert run(leave) < 0.5
    assert seconds(spoken("hello world")) > 0.4


def test_a_cancelled_task_ends_its_synthesis() -> None:
    async def cancel(engines: Engines) -> float:
        task = asyncio.create_task(chunks_of(engines, speech(LONG_TEXT)))
        await asyncio.sleep(0.1)
        left = time.perf_counter()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.perf_counter() - left

    assert run(cancel) < 0.5


def test_a_text_that_waits_for_its_turn_can_be_cancelled() -> None:
    async def cancel_the_second(engines: Engines) -> float:
        async with engines.open(speech(LONG_TEXT)):
            task = asyncio.create_task(chunks_of(engines, speech("hello")))
            await asyncio.sleep(0.1)
            left = time.perf_counter()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return time.perf_counter() - left

    assert run(cancel_the_second) < 0.5


def test_pieces_spoken_at_once_are_whole_even_when_they_are_read_in_the_wrong_order() -> None:
    texts = [f"This is piece number {number}. " * 10 for number in range(4)]

    async def all_at_once(engines: Engines) -> list[bytes]:
        async def last_first() -> list[bytes]:
            async with engines.open(speech(texts[0])) as first, engines.open(speech(texts[1])) as second:
                heard = [[chunk async for chunk in reply.chunks()] for reply in (second, first)]
            return [b"".join(chunks) for chunks in reversed(heard)]

        pair, third, fourth = await asyncio.gather(
            last_first(), chunks_of(engines, speech(texts[2])), chunks_of(engines, speech(texts[3]))
        )
        return [*pair, b"".join(third), b"".join(fourth)]

    for text, pcm in zip(texts, run(all_at_once), strict=True):
        assert seconds(pcm) == pytest.approx(seconds(spoken(text)), rel=0.02)


# --- pocketsphinx ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hello_world() -> bytes:
    """Let a new process speak: only the first text of a process sounds the same at every run."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as processes:
        return at_16_khz(processes.submit(spoken, "hello world").result())


def test_spoken_words_are_written_down_with_times_inside_the_recording(tmp_path: Path, hello_world: bytes) -> None:
    pause = bytes(16_000)
    path = recording(tmp_path / "hello.wav", pause + hello_world + pause)

    transcript = written_down(path)

    assert "hello" in transcript.text.split()
    assert transcript.language == "en"
    assert transcript.duration_s == (len(hello_world) + 2 * len(pause)) / 32_000
    times = [time_s for word in transcript.words for time_s in (word.start_s, word.end_s)]
    assert times == sorted(times)
    assert times[0] >= 0.4
    assert times[-1] <= transcript.duration_s - 0.2
    assert transcript.text == " ".join(word.word for word in transcript.words)
    assert not any(mark in transcript.text for mark in "<>[]()")


def test_the_times_of_a_second_utterance_count_from_the_start_of_the_recording(
    tmp_path: Path, hello_world: bytes
) -> None:
    path = recording(tmp_path / "twice.wav", hello_world + bytes(32_000 * 3) + hello_world)

    transcript = written_down(path)

    once_s = len(hello_world) / 32_000
    assert len(transcript.segments) == 2
    assert transcript.segments[0].end_s == pytest.approx(once_s, abs=0.4)
    assert transcript.segments[1].start_s == pytest.approx(once_s + 3, abs=0.4)
    assert transcript.segments[1].end_s == pytest.approx(2 * once_s + 3, abs=0.4)


def test_a_recording_without_speech_has_an_empty_transcript(tmp_path: Path) -> None:
    transcript = written_down(recording(tmp_path / "silence.wav", bytes(64_000)))

    assert (transcript.text, transcript.segments, transcript.words) == ("", (), ())
    assert transcript.duration_s == 2


def test_a_recording_that_cannot_be_read_is_a_recording_error(tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"nothing")

    with pytest.raises(RecordingError):
        written_down(tmp_path / "broken.wav")


def test_a_recogniser_that_breaks_off_is_a_bad_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recording(tmp_path / "long.wav", bytes(3_200_000))
    monkeypatch.setattr(sys, "executable", "/bin/false")

    with pytest.raises(InvalidResponse, match="exit status"):
        written_down(path)


def test_a_transcription_is_left_at_once(tmp_path: Path) -> None:
    path = recording(tmp_path / "long.wav", at_16_khz(spoken("This goes on for a while. " * 20)))

    async def cancel(engines: Engines) -> float:
        request = DIALECT.transcription(transcription(path), POCKETSPHINX)
        task = asyncio.create_task(chunks_of(engines, request))
        await asyncio.sleep(1)
        assert not task.done()
        left = time.perf_counter()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.perf_counter() - left

    assert run(cancel) < 0.5


class Talker:
    """An endpointer for a speaker who never pauses."""

    frame_bytes = 960
    in_speech = True
    speech_start = 0.0

    def process(self, frame: bytes) -> bytes:
        return frame

    def end_stream(self, frame: bytes) -> bytes:
        return frame


def test_speech_without_a_pause_is_cut_where_it_is_quietest_and_nothing_is_lost(tmp_path: Path) -> None:
    loud = array("h", [1_000] * 16_000 * 40)
    loud[16_000 * 13 : 16_000 * 13 + 1_600] = array("h", [0] * 1_600)
    path = tmp_path / "samples"
    path.write_bytes(loud.tobytes())

    with path.open("rb") as file:
        utterances = list(sphinx.utterances(sphinx.Clock(file), Talker()))

    assert b"".join(utterance.samples for utterance in utterances) == loud.tobytes()
    assert len(utterances[0].samples) / 32_000 == pytest.approx(13.05, abs=0.05)
    assert utterances[1].start == len(utterances[0].samples)
    assert max(len(utterance.samples) for utterance in utterances) <= 32_000 * sphinx.LONGEST_UTTERANCE_S + 960


# --- the dialect ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", [None, "en", "en-US", "en_GB", "English"])
def test_english_is_taken_by_any_name(language: str | None, tmp_path: Path) -> None:
    assert DIALECT.transcription_refusal(transcription(tmp_path, language), POCKETSPHINX) is None


def test_what_the_engines_cannot_do_is_refused_with_the_reason(tmp_path: Path) -> None:
    def refusal(request: SpeechRequest | TranscriptionRequest, model: str) -> str:
        route = Route("local", "local", "local:", model)
        if isinstance(request, SpeechRequest):
            error: AudiocliError | None = DIALECT.speech_refusal(request, route)
        else:
            error = DIALECT.transcription_refusal(request, route)
        assert isinstance(error, UsageError)
        return f"{error.message}; {error.hint}"

    text = SpeechRequest("hello", "pcm")
    assert "English only, not fr" in refusal(transcription(tmp_path, "fr"), "pocketsphinx")
    assert "use local:espeak" in refusal(text, "pocketsphinx")
    assert "use local:pocketsphinx" in refusal(transcription(tmp_path), "espeak")
    assert "no model whisper" in refusal(text, "whisper")
    assert DIALECT.speech_refusal(text, ESPEAK) is None


def test_a_missing_extra_is_refused_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audiocli.gateways.local.find_spec", lambda name: None)

    error = DIALECT.speech_refusal(SpeechRequest("hello", "pcm"), ESPEAK)

    assert isinstance(error, AccessError)
    assert error.exit_code == 4
    assert error.hint == 'pip install "audiocli[local]"'


def test_everything_without_effect_is_warned_about(tmp_path: Path) -> None:
    text = SpeechRequest("hello", "pcm", instructions="calm", options={"pitch": 3})
    sound = TranscriptionRequest(Recording(tmp_path, "wav", 0), prompt="names", temperature=0.2, options={"beam": 1})

    assert [w.split()[0:2] for w in DIALECT.speech_warnings(text, ESPEAK)] == [
        ["instructions", "have"],
        ["option", "pitch"],
    ]
    assert len(DIALECT.transcription_warnings(sound, POCKETSPHINX)) == 3


def test_local_work_is_known_to_cost_nothing() -> None:
    assert DIALECT.usage({}).cost_nanousd == 0
    assert DIALECT.is_free


def test_a_large_text_is_a_body_of_small_pieces_that_can_be_sent_again() -> None:
    body = speech(LONG_TEXT * 3).body
    assert body is not None
    sizes = [len(piece) for piece in body.pieces()]

    assert max(sizes) <= 1_000_000
    assert sum(sizes) == body.size_bytes
    assert json.loads(b"".join(body.pieces()))["text"] == LONG_TEXT * 3


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"duration":1,"text":"x","language":"en","segments":[1],"words":[]}']
)
def test_a_broken_transcript_is_a_bad_answer(body: bytes) -> None:
    with pytest.raises(InvalidResponse):
        DIALECT.transcript(body, {})
