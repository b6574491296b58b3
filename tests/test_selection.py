"""Test what is transcribed of a recording: ranges, tracks and channels."""

from __future__ import annotations

import array
import io
import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest

from audiocli.cli.selection import parse_range
from audiocli.codecs.convert import PcmReader
from audiocli.errors import UsageError
from audiocli.mock import KEYS, MockTranscript, NoFault, Status
from audiocli.text.iso_639 import is_same_language
from audiocli.types.audio import EVERYTHING, Selection, TimeRange
from tests.conftest import CommandLine
from tests.recordings import CONTAINERS, Container, encode_recording

RATE_HZ = 16_000
# Each voice of a test recording is a tone, so that the gateway can tell what it was sent.
TONES_HZ = {"Ann": 400, "Bob": 1_000, "Cleo": 2_200}


def make_tone(name: str | None, seconds: float) -> array.array[int]:
    """Return a voice, or silence for None."""
    step = 2 * math.pi * TONES_HZ.get(name or "", 0) / RATE_HZ
    return array.array("h", (round(9_000 * math.sin(step * index)) for index in range(round(seconds * RATE_HZ))))


def make_voice(*turns: tuple[str | None, float]) -> array.array[int]:
    return array.array("h", (sample for name, seconds in turns for sample in make_tone(name, seconds)))


def identify_voices(audio: bytes) -> list[str]:
    """Return the voices in a recording, by their zero crossings in windows of a quarter of a second."""
    samples = array.array("h")
    with av.open(io.BytesIO(audio)) as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE_HZ)
        for frame in container.decode(audio=0):
            for resampled in resampler.resample(frame):
                samples.frombytes(bytes(resampled.planes[0])[: resampled.samples * 2])
    voices: list[str] = []
    window = RATE_HZ // 4
    for start in range(0, len(samples) - window + 1, window):
        part = samples[start : start + window]
        if max(map(abs, part)) < 500:
            continue
        crossings = sum((a < 0) != (b < 0) for a, b in pairwise(part))
        name = min(TONES_HZ, key=lambda voice: abs(crossings - TONES_HZ[voice] / 2))
        if not voices or voices[-1] != name:
            voices.append(name)
    return voices


def transcribe_voices(audio: bytes, duration_s: float) -> MockTranscript:
    """Return a transcript with one segment for all voices, from 0.5 s on."""
    names = identify_voices(audio)
    text = " ".join(f"This is {name}." for name in names)
    end_s = max(duration_s - 0.5, 0.6)
    return MockTranscript(text, segments=[(text, 0.5, end_s)] if text else [], words=None)


def write_wav(path: Path, channels: Sequence[array.array[int]]) -> Path:
    import wave

    frames = array.array("h", (sample for frame in zip(*channels, strict=True) for sample in frame))
    with wave.open(str(path), "wb") as writer:
        writer.setnchannels(len(channels))
        writer.setsampwidth(2)
        writer.setframerate(RATE_HZ)
        writer.writeframes(frames.tobytes())
    return path


def write_tracks(path: Path, tracks: Sequence[tuple[array.array[int], str | None, str | None]], codec: str) -> Path:
    """Write a file with audio tracks: samples, language and title."""
    with av.open(str(path), "w") as container:
        streams: list[Any] = []
        for _, language, title in tracks:
            stream: Any = container.add_stream(codec, rate=RATE_HZ, layout="mono")
            if language:
                stream.metadata["language"] = language
            if title:
                stream.metadata["title"] = title
            stream.open()
            streams.append(stream)
        for (samples, _, _), stream in zip(tracks, streams, strict=True):
            frame = av.AudioFrame(format="s16", layout="mono", samples=len(samples), align=1)
            frame.planes[0].update(samples.tobytes())
            frame.sample_rate = RATE_HZ
            resampler = av.AudioResampler(
                format=stream.codec_context.format.name,
                layout="mono",
                rate=RATE_HZ,
                frame_size=stream.frame_size or 1024,
            )
            for part in (frame, None):
                for resampled in resampler.resample(part):
                    container.mux(stream.encode(resampled))
            container.mux(stream.encode(None))
    return path


@pytest.fixture
def cli(audiocli: CommandLine) -> CommandLine:
    audiocli.variables["OPENAI_API_KEY"] = KEYS["openai"]
    audiocli.gateway.set_transcript(transcribe_voices)
    return audiocli


@pytest.fixture
def meeting(tmp_path: Path) -> Path:
    """Ann from 0 to 4 s, Bob to 8 s, Cleo to 12 s."""
    return write_wav(tmp_path / "meeting.wav", [make_voice(("Ann", 4), ("Bob", 4), ("Cleo", 4))])


@pytest.fixture
def call(tmp_path: Path) -> Path:
    """A stereo call. Left: Ann from 0 to 3 s and from 6 to 9 s. Right: Bob from 3 to 6 s."""
    left = make_voice(("Ann", 3), (None, 3), ("Ann", 3))
    right = make_voice((None, 3), ("Bob", 3), (None, 3))
    return write_wav(tmp_path / "call.wav", [left, right])


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Three tracks: English (Ann), German (Bob), and one without a language (Cleo)."""
    tracks = [
        (make_voice(("Ann", 4)), "eng", "Main"),
        (make_voice(("Bob", 4)), "ger", "Synchronfassung"),
        (make_voice(("Cleo", 4)), None, None),
    ]
    return write_tracks(tmp_path / "film.mkv", tracks, "libopus")


OPENAI = ("-m", "openai:whisper-1")
PRICES = '[prices]\n"openai:whisper-1" = { per = "minute", usd = 0.006 }\n'

# --- ranges ----------------------------------------------------------------------------------------------------------


def test_range_is_sent_alone_and_has_times_of_the_recording(cli: CommandLine, meeting: Path) -> None:
    result = cli("transcribe", meeting, *OPENAI, "--range", "4-8", "--json")

    assert result.code == 0, result.err
    [request] = result.posts
    assert request.audio_s == pytest.approx(4.0, abs=0.01)
    assert result.json["text"] == "This is Bob."
    assert [(s["start_s"], s["end_s"]) for s in result.json["segments"]] == [(4.5, 7.5)]
    assert result.json["duration_s"] == 12.0
    assert "12.0 s of audio" not in cli("transcribe", meeting, *OPENAI, "--range", "4-8").err
    [entry] = result.ledger
    assert entry["audio_ms"] == 4_000


@pytest.mark.parametrize(
    ("ranges", "text", "starts_s"),
    [
        (["-4"], "This is Ann.", [0.5]),
        (["0:08-"], "This is Cleo.", [8.5]),
        (["8-100", "0:00:00-0:04"], "This is Ann. This is Cleo.", [0.5, 8.5]),
        (["0-3", "2-4"], "This is Ann.", [0.5]),
        (["0-"], "This is Ann. This is Bob. This is Cleo.", [0.5]),
    ],
)
def test_ranges_are_transcribed_in_order(
    cli: CommandLine, meeting: Path, ranges: list[str], text: str, starts_s: list[float]
) -> None:
    options = [argument for value in ranges for argument in ("--range", value)]

    result = cli("transcribe", meeting, *OPENAI, *options, "--json")

    assert result.code == 0, result.err
    assert result.json["text"] == text
    assert [segment["start_s"] for segment in result.json["segments"]] == starts_s
    assert len(result.posts) == len(starts_s)


def test_range_is_paid_for_once(cli: CommandLine, meeting: Path) -> None:
    first = cli("transcribe", meeting, *OPENAI, "--range", "4-8", "--json")
    again = cli("transcribe", meeting, *OPENAI, "--range", "4-8", "-f", "srt")
    both = cli("transcribe", meeting, *OPENAI, "--range", "4-8", "--range", "10-12", "--json")
    everything = cli("transcribe", meeting, *OPENAI, "--json")

    assert [len(result.posts) for result in (first, again, both, everything)] == [1, 0, 1, 1]
    assert "00:00:04,500 --> 00:00:07,500" in again.text
    assert both.json["text"] == "This is Bob. This is Cleo."
    assert everything.json["text"] == "This is Ann. This is Bob. This is Cleo."


def test_failed_range_keeps_the_finished_ones(cli: CommandLine, meeting: Path) -> None:
    argv = ("transcribe", meeting, *OPENAI, "--range", "0-4", "--range", "8-12", "--json")
    cli.gateway.queue_faults(NoFault(), Status(400))

    failed = cli(*argv)
    again = cli(*argv)

    assert failed.code == 6, failed.err
    assert "0:00:08-0:00:12" in failed.err and "saved" in failed.err
    assert (again.code, len(again.posts)) == (0, 1), again.err
    assert again.json["text"] == "This is Ann. This is Cleo."


def test_long_range_is_sent_in_chunks_with_times_of_the_recording(cli: CommandLine, meeting: Path) -> None:
    result = cli("transcribe", meeting, *OPENAI, "--range", "2-", "--max-chunk", "4", "--json")

    assert result.code == 0, result.err
    assert len(result.posts) > 1
    starts_s = [segment["start_s"] for segment in result.json["segments"]]
    assert starts_s == sorted(starts_s) and starts_s[0] == 2.5 and 12.0 >= starts_s[-1] > 8.0


def test_dry_run_and_limits_count_the_range_only(cli: CommandLine, meeting: Path) -> None:
    cli.write_config(PRICES)

    plan = cli("transcribe", meeting, *OPENAI, "--range", "4-8", "-n", "--json")
    whole = cli("transcribe", meeting, *OPENAI, "-n", "--json")

    assert plan.json["duration_s"] == 4.0
    assert plan.json["selection"]["ranges_s"] == [[4.0, 8.0]]
    assert plan.json["price_usd"] == pytest.approx(whole.json["price_usd"] / 3, rel=0.01)
    assert not plan.posts


def test_batch_applies_the_range_and_is_up_to_date_afterwards(cli: CommandLine, meeting: Path) -> None:
    short = write_wav(meeting.with_name("short.wav"), [make_voice(("Bob", 3))])
    argv = ("transcribe", meeting.parent, *OPENAI, "--range", "2-", "-f", "json,srt")

    first, again = cli(*argv), cli(*argv)
    other = cli("transcribe", meeting.parent, *OPENAI, "--range", "8-", "-f", "json,srt")

    assert (first.code, len(first.posts)) == (0, 2), first.err
    assert (again.code, len(again.posts)) == (0, 0), again.err
    assert json.loads(meeting.with_suffix(".json").read_text())["segments"][0]["start_s"] == 8.5
    # The short recording has no audio after 8 s: it fails, and the others are written.
    assert other.code == 3 and short.name in other.err and "0:00:03" in other.err
    assert len(other.posts) == 1


def test_range_of_stdin(cli: CommandLine, meeting: Path) -> None:
    result = cli("transcribe", "-", *OPENAI, "--range", "8-", stdin=meeting.read_bytes())

    assert (result.code, result.text) == (0, "This is Cleo.\n"), result.err


@pytest.mark.parametrize(
    "value", ["5", "abc-", "5-3", "4-4", "-", "1:2:3:4-", "1e3-", "5--7", "١-٢", "9999999-", "nan-"]
)
def test_invalid_range_is_refused(cli: CommandLine, meeting: Path, value: str) -> None:
    result = cli("transcribe", meeting, *OPENAI, f"--range={value}")

    assert result.code == 2 and "--range" in result.err
    assert not result.requests


def test_range_after_the_end_is_refused(cli: CommandLine, meeting: Path) -> None:
    result = cli("transcribe", meeting, *OPENAI, "--range", "1:00:00-")

    assert result.code == 2 and "0:00:12" in result.err
    assert not result.posts


@pytest.mark.parametrize(
    ("value", "start_s", "end_s"),
    [
        ("1:02:03.5-1:10:00", 3723.5, 4200.0),
        ("90-", 90.0, None),
        ("-.5", 0.0, 0.5),
        ("2:00-3:30.25", 120.0, 210.25),
        ("100:00:00-", 360_000.0, None),
        (" 1 – 2 ", 1.0, 2.0),
    ],
)
def test_ranges_are_parsed(value: str, start_s: float, end_s: float | None) -> None:
    assert parse_range(value) == TimeRange(start_s, end_s)


def test_range_without_a_number_is_no_range() -> None:
    with pytest.raises(UsageError):
        parse_range("")


LATE = {
    "late.mkv": Container("matroska", "aac", start_s=1.5, has_video=True),
    "late.mp4": Container("mp4", "aac", start_s=1.5, has_video=True),
}


def decode(path: Path, selection: Selection = EVERYTHING) -> array.array[int]:
    return array.array("h", b"".join(PcmReader(path, RATE_HZ, 1, selection=selection)))


def assert_is_at(
    samples: Sequence[int], everything: Sequence[int], start_s: float, *, tolerance_s: float = 0.025
) -> None:
    """Check that samples are those of a recording from a time on.

    Codecs without exact packet times are off by less than a frame.
    """
    expected = samples[4_000:8_000:9]
    start = round(start_s * RATE_HZ) + 4_000
    differences = {
        lag: sum(abs(a - b) for a, b in zip(everything[start + lag : start + lag + 4_000 : 9], expected, strict=True))
        for lag in range(-RATE_HZ // 8, RATE_HZ // 8)
    }
    assert abs(min(differences, key=differences.__getitem__)) <= tolerance_s * RATE_HZ


@pytest.mark.parametrize("name", [*CONTAINERS, *LATE, "joined.mp3", "joined.opus"])
def test_range_is_at_its_true_position_in_every_container(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    base = name.removeprefix("joined.")
    content = encode_recording((LATE.get(name) or CONTAINERS[base])._replace(is_sweep=True), 6.0)
    path.write_bytes(content * 2 if name.startswith("joined") else content)
    start_s = 7.0 if name.startswith("joined") else 3.0
    everything = decode(path)

    samples = decode(path, Selection((TimeRange(start_s, start_s + 1.5),)))

    assert len(samples) == 1.5 * RATE_HZ
    # A decoder of WMA loses up to two frames of 46 ms where it starts.
    assert_is_at(samples, everything, start_s, tolerance_s=0.1 if name == "wma" else 0.025)


def cut_start(content: bytes, cut_s: float) -> bytes:
    """Return an MP4 file whose edit list leaves out the start, as of a program that trims without encoding."""
    result = io.BytesIO()
    with av.open(io.BytesIO(content)) as source, av.open(result, "w", format="mp4") as target:
        stream = source.streams.audio[0]
        output = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.pts is None or packet.dts is None or packet.time_base is None:
                continue
            offset = round(cut_s / packet.time_base)
            packet.pts, packet.dts = packet.pts - offset, packet.dts - offset
            packet.stream = output
            target.mux(packet)
    return result.getvalue()


def test_range_is_at_its_true_position_after_an_edit_list(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "trimmed.mp4"
    path.write_bytes(cut_start(encode_recording(CONTAINERS["m4a"]._replace(is_sweep=True), 8.0), 2.0))
    everything = decode(path)

    samples = decode(path, Selection((TimeRange(3.0, 4.5),)))
    result = cli("transcribe", path, "-n", "--json")

    assert_is_at(samples, everything, 3.0)
    duration_s = len(everything) / RATE_HZ
    assert duration_s == pytest.approx(6.0, abs=0.1)
    assert result.json["duration_s"] == pytest.approx(duration_s, abs=0.1), result.err


# --- tracks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([], "This is Ann."),
        (["--track", "1"], "This is Ann."),
        (["--track", "2"], "This is Bob."),
        (["--track", "3"], "This is Cleo."),
        (["--track", "de"], "This is Bob."),
        (["--track", "German"], "This is Bob."),
        (["-l", "de"], "This is Bob."),
        (["-l", "en"], "This is Ann."),
        (["-l", "fr"], "This is Ann."),
        (["-l", "de", "--track", "3"], "This is Cleo."),
    ],
)
def test_track_is_chosen_by_number_or_language(cli: CommandLine, film: Path, options: list[str], text: str) -> None:
    result = cli("transcribe", film, *OPENAI, *options)

    assert (result.code, result.text) == (0, f"{text}\n"), result.err
    assert ("track 2" in result.err) == (options == ["-l", "de"])


def test_default_track_shares_the_paid_result(cli: CommandLine, film: Path) -> None:
    first = cli("transcribe", film, *OPENAI, "--track", "1")
    again = cli("transcribe", film, *OPENAI)
    other = cli("transcribe", film, *OPENAI, "--track", "2", "--range", "1-3")

    assert [len(result.posts) for result in (first, again, other)] == [1, 0, 1]
    assert other.text == "This is Bob.\n"


def test_batch_prefers_the_track_in_the_language(cli: CommandLine, film: Path) -> None:
    argv = ("transcribe", film.parent, *OPENAI, "-l", "de", "-f", "txt", "-R")

    first, again = cli(*argv), cli(*argv)

    assert film.with_suffix(".txt").read_text() == "This is Bob.\n"
    assert (len(first.posts), len(again.posts), again.code) == (1, 0, 0)


@pytest.mark.parametrize("track", ["4", "0", "fr", "französisch!", "-1"])
def test_missing_track_is_refused(cli: CommandLine, film: Path, track: str) -> None:
    result = cli("transcribe", film, *OPENAI, f"--track={track}")

    assert result.code == 2 and "--track" in result.err
    assert not result.posts


def test_tracks_are_listed_without_a_request(cli: CommandLine, film: Path) -> None:
    table = cli("transcribe", "--list-tracks", film)
    listed = cli("transcribe", film, "--list-tracks", "--json")

    assert not table.requests and not listed.requests
    assert [line.split()[0] for line in table.text.splitlines()] == ["track", "1", "2", "3"]
    assert "Synchronfassung" in table.text
    assert [(t["number"], t["language"], t["title"], t["is_default"]) for t in listed.json["tracks"]] == [
        (1, "eng", "Main", True),
        (2, "ger", "Synchronfassung", False),
        (3, None, None, False),
    ]
    assert all(track["codec"] == "opus" and track["channels"] == 1 for track in listed.json["tracks"])
    assert listed.json["tracks"][0]["duration_s"] == pytest.approx(4.0, abs=0.1)


@pytest.mark.parametrize("content", [b"", b"no recording"])
def test_tracks_of_something_else_are_an_error(cli: CommandLine, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.mkv"
    path.write_bytes(content)

    assert cli("transcribe", "--list-tracks", path).code == 8


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_tracks_of_other_recordings_are_listed_after_an_error(
    cli: CommandLine, film: Path, tmp_path: Path, options: list[str]
) -> None:
    notes = tmp_path / "notes.mkv"
    notes.write_text("no recording")

    result = cli("transcribe", "--list-tracks", notes, film, *options)

    assert result.code == 3, result.err
    assert "notes.mkv" in result.err and result.text.count("opus") == 3


def test_codes_of_one_language_are_the_same() -> None:
    for code in ("de", "deu", "ger", "de-AT", "German"):
        assert is_same_language(code, "de"), code
    assert not is_same_language("en", "de")
    assert not is_same_language("?", "?")


# --- channels --------------------------------------------------------------------------------------------------------


def test_split_channels_are_merged_by_time(cli: CommandLine, tmp_path: Path) -> None:
    left = make_voice(("Ann", 3), (None, 6))
    right = make_voice((None, 3), ("Bob", 6))
    path = write_wav(tmp_path / "call.wav", [left, right])
    argv = ("transcribe", path, *OPENAI, "--channel", "split", "--speaker", "Ann Lee", "--speaker", "Bob Ray")

    result = cli(*argv, "--json")
    text = cli(*argv)

    assert result.code == 0, result.err
    assert len(result.posts) == 2
    assert all(not request.get_form_values("known_speaker_names[]") for request in result.posts)
    segments = [(s["speaker"], s["channel"], s["text"]) for s in result.json["segments"]]
    assert segments == [("Ann Lee", 0, "This is Ann."), ("Bob Ray", 1, "This is Bob.")]
    assert (text.text, len(text.posts)) == ("Ann Lee: This is Ann.\nBob Ray: This is Bob.\n", 0)
    assert len(result.ledger) == 2


def test_split_channels_without_names_are_numbered(cli: CommandLine, call: Path) -> None:
    first = cli("transcribe", call, *OPENAI, "--channel", "split", "-f", "srt")
    named = cli("transcribe", call, *OPENAI, "--channel", "split", "--speaker", "Ann")
    left = cli("transcribe", call, *OPENAI, "--channel", "1")

    assert "Channel 1: " in first.text and "Channel 2: " in first.text
    assert named.text.splitlines() == ["Ann: This is Ann.", "Channel 2: This is Bob."]
    assert left.text == "This is Ann.\n"
    assert "nothing sent" in named.err and "free" not in named.err
    # Names cost nothing, and one channel is a part of the split.
    assert [len(result.posts) for result in (first, named, left)] == [2, 0, 0]


def test_one_channel_is_transcribed(cli: CommandLine, call: Path) -> None:
    result = cli("transcribe", call, *OPENAI, "--channel", "2", "--json")

    assert result.json["text"] == "This is Bob."
    assert len(result.posts) == 1


def test_channels_of_surround_sound_are_not_mixed(cli: CommandLine, tmp_path: Path) -> None:
    silence = make_voice((None, 3))
    channels = [make_voice(("Ann", 3)), make_voice(("Bob", 3)), make_voice(("Cleo", 3)), silence, silence, silence]
    path = write_wav(tmp_path / "surround.wav", channels)

    texts = [cli("transcribe", path, *OPENAI, "--channel", str(number)).text for number in (1, 2, 3)]

    assert texts == ["This is Ann.\n", "This is Bob.\n", "This is Cleo.\n"]


def test_split_at_a_gateway_without_times(cli: CommandLine, call: Path) -> None:
    """A gateway that returns only text gets short chunks, so that turns are in order."""
    cli.gateway.set_transcript(lambda audio, seconds: " ".join(f"This is {n}." for n in identify_voices(audio)))

    result = cli("transcribe", call, "-m", "openrouter:openai/gpt-4o-transcribe", "--channel", "split", "--json")

    assert result.code == 0, result.err
    assert {segment["speaker"] for segment in result.json["segments"]} == {"Channel 1", "Channel 2"}
    starts_s = [segment["start_s"] for segment in result.json["segments"]]
    assert starts_s == sorted(starts_s)


def test_dry_run_says_that_each_channel_is_paid_for(cli: CommandLine, call: Path) -> None:
    cli.write_config(PRICES)

    mixed = cli("transcribe", call, *OPENAI, "-n", "--json")
    split = cli("transcribe", call, *OPENAI, "--channel", "split", "-n", "--json")
    text = cli("transcribe", call, *OPENAI, "--channel", "split", "-n")

    assert split.json["price_usd"] == pytest.approx(2 * mixed.json["price_usd"], rel=0.01)
    assert (split.json["requests"], split.json["duration_s"]) == (2, 18.0)
    assert "2 channels, each is sent and paid for" in text.text
    assert not (*mixed.posts, *split.posts, *text.posts)


def test_split_of_a_single_channel_is_a_plain_transcript(cli: CommandLine, meeting: Path) -> None:
    plain = cli("transcribe", meeting, *OPENAI, "-f", "srt")
    split = cli("transcribe", meeting, *OPENAI, "--channel", "split", "-f", "srt")

    assert split.text == plain.text and not split.posts
    assert "one channel" in split.err


def test_mix_warns_about_channels_that_cancel_out(cli: CommandLine, tmp_path: Path) -> None:
    voice = make_voice(("Ann", 4))
    path = write_wav(tmp_path / "inverted.wav", [voice, array.array("h", (-sample for sample in voice))])

    mixed = cli("transcribe", path, *OPENAI, "--channel", "mix", "--range", "1-3")
    right = cli("transcribe", path, *OPENAI, "--channel", "2", "--range", "1-3")

    assert "inverted phase" in mixed.err and "inverted phase" not in right.err
    assert mixed.text == right.text == "This is Ann.\n"


@pytest.mark.parametrize(
    "options",
    [
        ["--channel", "3"],
        ["--channel", "0"],
        ["--channel", "left"],
        ["--channel", "split", "--speaker", "A", "--speaker", "B", "--speaker", "C"],
        ["--channel", "split", "--diarize"],
        ["--channel", "1", "--background"],
        ["--range", "1-2", "--background"],
    ],
)
def test_impossible_channels_are_refused(cli: CommandLine, call: Path, options: list[str]) -> None:
    result = cli("transcribe", call, *options)

    assert result.code == 2, result.err
    assert not result.posts


def test_local_engine_hears_the_selection_only(cli: CommandLine, meeting: Path) -> None:
    result = cli("transcribe", meeting, "-m", "local:pocketsphinx", "--range", "1-2", "--allow-empty", "--json")

    assert result.code in (0, 4), result.err
    if result.code == 0:
        assert all(1.0 <= segment["start_s"] <= 2.0 for segment in result.json["segments"])
