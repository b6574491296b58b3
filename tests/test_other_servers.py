"""Speech from servers that are not OpenAI: raw samples at any sample rate, with and without headers that state it."""

from __future__ import annotations

import io
import itertools
import math
import subprocess
import wave
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import av
import pytest

from audiocli.audio.formats import FormatPlan, FormatStep, parse_pcm_format, plan_format
from audiocli.types.audio import PcmFormat
from tests.conftest import CommandLine, Result
from tests.gateway_contract import read_warnings
from tests.pyav_codec import encode
from tests.small_server import Answer, Received, SmallServer, serve
from tests.test_captions import read_srt
from tests.test_processes import Program
from tests.test_processes import program as program

TONE_HZ = 440.0
CHUNK_S = 1.0
SENTENCES = "The first one is here. The second one follows."
TWO_CHUNKS = (SENTENCES, "--max-chars", "25")
ASSUMPTION = "the gateway does not state the sample rate of its audio; assuming 24,000 Hz"


class Samples(NamedTuple):
    """What a server makes: a tone of one second."""

    rate_hz: int
    channels: int

    @property
    def pcm(self) -> bytes:
        tone = (round(9000 * math.sin(2 * math.pi * TONE_HZ * index / self.rate_hz)) for index in range(self.rate_hz))
        return array("h", (value for value in tone for _ in range(self.channels))).tobytes()

    @property
    def wav(self) -> bytes:
        out = io.BytesIO()
        with wave.open(out, "wb") as writer:
            writer.setnchannels(self.channels)
            writer.setsampwidth(2)
            writer.setframerate(self.rate_hz)
            writer.writeframes(self.pcm)
        return out.getvalue()

    def build_headers(self, kind: str) -> tuple[tuple[str, str], ...]:
        """Return the headers of a response with raw samples."""
        return {
            "none": (("Content-Type", "audio/pcm"),),
            "no type": (),
            "octets": (("Content-Type", "application/octet-stream"),),
            "piper": (
                ("Content-Type", "audio/pcm_s16le"),
                ("X-Sample-Rate", str(self.rate_hz)),
                ("X-Channels", str(self.channels)),
            ),
            "parameters": (("Content-Type", f"audio/L16; rate={self.rate_hz}; channels={self.channels}"),),
        }[kind]


ALL_SAMPLES = [Samples(22_050, 1), Samples(16_000, 1), Samples(44_100, 2)]


@contextmanager
def serve_tone(
    samples: Samples, *, headers: str = "none", formats: tuple[str, ...] = ("wav", "pcm")
) -> Iterator[SmallServer]:
    """Run a server that makes these formats and refuses others."""

    def answer(request: Received) -> Answer:
        format = request.json["response_format"] if request.method == "POST" else None
        if format not in formats:
            message = f"response_format: Input should be one of {', '.join(formats)}"
            return Answer(422 if request.method == "POST" else 404, {"detail": message})
        if format == "pcm":
            return Answer(200, samples.pcm, samples.build_headers(headers))
        body = samples.wav if format == "wav" else encode(samples.pcm, format, rate_hz=samples.rate_hz)
        return Answer(200, body)

    with serve(answer) as server:
        yield server


def configure(cli: CommandLine, server: SmallServer, gateway: str) -> tuple[str, ...]:
    """Configure the server as a gateway of its own, as another address of a built-in one, or with `--base-url`."""
    if gateway == "home":
        cli.write_config(f'[gateways.home]\nbase_url = "{server.url}"')
        return ("-m", "home:tts")
    if gateway == "--base-url":
        return ("-m", "openai:tts-1", "--base-url", server.url)
    cli.variables |= {f"{gateway.upper()}_BASE_URL": server.url, f"{gateway.upper()}_API_KEY": "sk-x"}
    return ("-m", f"{gateway}:openai/tts-1")


def decode(content: bytes) -> tuple[float, float]:
    """Return the length in seconds and the pitch in Hz of encoded audio, decoded with PyAV."""
    with av.open(io.BytesIO(content)) as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=48_000)
        frames = [*container.decode(audio=0), None]
        pcm = b"".join(bytes(out.planes[0])[: 2 * out.samples] for frame in frames for out in resampler.resample(frame))
    values = array("h", pcm)
    middle = values[len(values) // 10 : len(values) * 4 // 10]  # within the first chunk
    crossings = sum((a < 0) != (b < 0) for a, b in itertools.pairwise(middle))
    return len(values) / 48_000, crossings / 2 / (len(middle) / 48_000)


def check_tone(content: bytes, *, seconds: float, tolerance_s: float = 0.06) -> None:
    duration_s, pitch_hz = decode(content)
    assert duration_s == pytest.approx(seconds, abs=tolerance_s)
    assert pitch_hz == pytest.approx(TONE_HZ, rel=0.02)


# --- the sample rate is right ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", ["none", "piper"])
@pytest.mark.parametrize("samples", ALL_SAMPLES, ids=str)
@pytest.mark.parametrize("address", ["home", "--base-url", "openai", "therouter", "arouter"])
def test_converted_speech_has_the_speed_of_the_server(
    audiocli: CommandLine, tmp_path: Path, address: str, samples: Samples, headers: str
) -> None:
    with serve_tone(samples, headers=headers) as server:
        model = configure(audiocli, server, address)
        r = audiocli("speak", "Hi there", *model, "-o", tmp_path / "x.m4a", "--json")

    assert r.code == 0, r.err
    check_tone((tmp_path / "x.m4a").read_bytes(), seconds=CHUNK_S, tolerance_s=0.1)
    assert r.json["duration_s"] == pytest.approx(CHUNK_S, abs=0.01)
    assert ASSUMPTION not in r.json["warnings"]


@pytest.mark.parametrize("headers", ["none", "piper"])
@pytest.mark.parametrize("samples", ALL_SAMPLES, ids=str)
@pytest.mark.parametrize("extension", ["wav", "mp3", "m4a", "flac"])
def test_long_text_has_the_speed_of_the_server(
    audiocli: CommandLine, tmp_path: Path, samples: Samples, headers: str, extension: str
) -> None:
    with serve_tone(samples, headers=headers) as server:
        model = configure(audiocli, server, "home")
        r = audiocli("speak", *TWO_CHUNKS, *model, "-o", tmp_path / f"x.{extension}", "--json")

    assert (r.code, len(server.posts)) == (0, 2), r.err
    check_tone((tmp_path / f"x.{extension}").read_bytes(), seconds=2 * CHUNK_S, tolerance_s=0.1)
    assert r.json["duration_s"] == pytest.approx(2 * CHUNK_S, abs=0.01)


@pytest.mark.parametrize("samples", ALL_SAMPLES, ids=str)
def test_captions_and_pauses_have_the_speed_of_the_server(
    audiocli: CommandLine, tmp_path: Path, samples: Samples
) -> None:
    text = "The first one is here.\n\nThe second one follows."
    with serve_tone(samples) as server:
        model = configure(audiocli, server, "home")
        captions = tmp_path / "x.srt"
        r = audiocli("speak", text, *model, "-o", tmp_path / "x.wav", "--captions", captions, "--pause", "500")

    assert r.code == 0, r.err
    check_tone((tmp_path / "x.wav").read_bytes(), seconds=2.5)
    cues = read_srt(captions.read_text("utf-8"))
    assert [start_ms for start_ms, _, _ in cues] == pytest.approx([0, 1500], abs=20)
    assert cues[-1][1] == pytest.approx(2500, abs=20)


@pytest.mark.parametrize("samples", [Samples(22_050, 1), Samples(44_100, 2)], ids=str)
def test_open_pipe_has_the_speed_of_the_server(
    audiocli: CommandLine, program: Program, tmp_path: Path, samples: Samples
) -> None:
    with serve_tone(samples) as server:
        model = configure(audiocli, server, "home")
        process = program.start("speak", *model, "-o", tmp_path / "x.wav", stdin=subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.write(b"The first one is here.\n")
        process.stdin.flush()
        while not server.posts:  # the text is spoken while the pipe is open
            assert process.poll() is None
        _, err = process.communicate(b"The second one follows.\n", timeout=30)

    assert process.returncode == 0, err
    check_tone((tmp_path / "x.wav").read_bytes(), seconds=2 * CHUNK_S)


# --- what is requested -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "requested"),
    [
        (("wav", "pcm"), ["wav"]),
        (("flac", "pcm"), ["wav", "flac"]),
        (("mp3",), ["wav", "flac", "mp3"]),
    ],
)
def test_formats_that_state_their_sample_rate_are_requested_first(
    audiocli: CommandLine, tmp_path: Path, offered: tuple[str, ...], requested: list[str]
) -> None:
    with serve_tone(Samples(22_050, 1), formats=offered) as server:
        model = configure(audiocli, server, "home")
        r = audiocli("speak", *TWO_CHUNKS, *model, "-o", tmp_path / "x.wav", "-j", "1")

    assert r.code == 0, r.err
    formats = [request.json["response_format"] for request in server.posts]
    assert (formats[: len(requested)], set(formats[len(requested) :])) == (requested, {requested[-1]})
    check_tone((tmp_path / "x.wav").read_bytes(), seconds=2 * CHUNK_S, tolerance_s=0.2)


def test_server_with_raw_samples_only_is_used_with_a_warning(audiocli: CommandLine, tmp_path: Path) -> None:
    with serve_tone(Samples(24_000, 1), formats=("pcm",)) as server:
        model = configure(audiocli, server, "home")
        first = audiocli("speak", *TWO_CHUNKS, *model, "-o", tmp_path / "x.wav", "--json")
        count = len(server.posts)
        second = audiocli("speak", *TWO_CHUNKS, *model, "-o", tmp_path / "y.wav")

    assert (first.code, second.code) == (0, 0), second.err
    assert [request.json["response_format"] for request in server.posts[count:]] == ["pcm", "pcm"]
    assert first.json["warnings"] == read_warnings(second) == [ASSUMPTION]


@pytest.mark.parametrize(
    ("requested", "offered", "is_pcm_known", "needs_samples", "plan"),
    [
        ("pcm", ("mp3", "wav", "pcm"), True, True, FormatPlan("pcm", FormatStep.PASS_THROUGH)),
        ("pcm", ("mp3", "wav", "pcm"), False, True, FormatPlan("wav", FormatStep.ENCODE)),
        ("pcm", ("mp3", "wav", "pcm"), False, False, FormatPlan("pcm", FormatStep.PASS_THROUGH)),
        ("m4a", ("mp3", "flac", "pcm"), False, False, FormatPlan("flac", FormatStep.ENCODE)),
        ("m4a", ("mp3", "pcm"), False, False, FormatPlan("mp3", FormatStep.ENCODE)),
        ("m4a", ("pcm",), False, False, FormatPlan("pcm", FormatStep.ENCODE)),
        ("mp3", ("mp3", "pcm"), False, False, FormatPlan("mp3", FormatStep.PASS_THROUGH)),
    ],
)
def test_format_plan_avoids_samples_of_unknown_rate(
    requested: str, offered: tuple[str, ...], is_pcm_known: bool, needs_samples: bool, plan: FormatPlan
) -> None:
    assert plan_format(requested, offered, is_pcm_known=is_pcm_known, needs_samples=needs_samples) == plan


def test_openrouter_at_another_address_is_still_sent_pcm(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("speak", *TWO_CHUNKS, "-o", tmp_path / "x.wav", "--json")

    assert {request.json["response_format"] for request in r.posts} == {"pcm"}
    assert r.json["warnings"] == []


# --- raw samples that come anyway ------------------------------------------------------------------------------------


def speak_pcm(cli: CommandLine, samples: Samples, headers: str, path: Path) -> Result:
    with serve_tone(samples, headers=headers) as server:
        return cli("speak", "Hi there", *configure(cli, server, "home"), "-f", "pcm", "-o", path, "--json")


@pytest.mark.parametrize("headers", ["piper", "parameters"])
@pytest.mark.parametrize("samples", ALL_SAMPLES, ids=str)
def test_declared_sample_rate_gives_the_duration_of_raw_samples(
    audiocli: CommandLine, tmp_path: Path, samples: Samples, headers: str
) -> None:
    r = speak_pcm(audiocli, samples, headers, tmp_path / "x.pcm")

    assert (r.code, r.json["duration_s"], r.json["warnings"]) == (0, CHUNK_S, [])
    assert (tmp_path / "x.pcm").read_bytes() == samples.pcm


@pytest.mark.parametrize("headers", ["none", "no type", "octets"])
def test_raw_samples_without_a_sample_rate_are_a_warning(audiocli: CommandLine, tmp_path: Path, headers: str) -> None:
    r = speak_pcm(audiocli, ALL_SAMPLES[0], headers, tmp_path / "x.pcm")

    assert (r.code, r.json["warnings"]) == (0, [ASSUMPTION])
    assert (tmp_path / "x.pcm").read_bytes() == ALL_SAMPLES[0].pcm


@pytest.mark.parametrize("samples", ALL_SAMPLES, ids=str)
def test_server_that_sends_raw_samples_instead_of_wav_is_heard_at_its_speed(
    audiocli: CommandLine, tmp_path: Path, samples: Samples
) -> None:
    def answer(_: Received) -> Answer:
        return Answer(200, samples.pcm, samples.build_headers("piper"))

    with serve(answer) as server:
        model = configure(audiocli, server, "home")
        r = audiocli("speak", *TWO_CHUNKS, *model, "-o", tmp_path / "x.flac", "--json")

    assert (r.code, ASSUMPTION in r.json["warnings"]) == (0, False), r.err
    check_tone((tmp_path / "x.flac").read_bytes(), seconds=2 * CHUNK_S)


@pytest.mark.parametrize(
    ("headers", "pcm", "is_stated"),
    [
        ({}, PcmFormat(24_000, 1), False),
        ({"content-type": "audio/pcm"}, PcmFormat(24_000, 1), False),
        ({"content-type": "audio/pcm;rate=16000"}, PcmFormat(16_000, 1), True),
        ({"content-type": "audio/pcm;rate=16000", "x-sample-rate": "8000"}, PcmFormat(16_000, 1), True),
        ({"content-type": "audio/pcm", "x-sample-rate": " 22050 ", "x-channels": "2"}, PcmFormat(22_050, 2), True),
        ({"x-audio-sample-rate": "48000"}, PcmFormat(48_000, 1), True),
        ({"x-channels": "2"}, PcmFormat(24_000, 2), False),
        *(
            ({"x-sample-rate": value, "x-channels": value}, PcmFormat(24_000, 1), False)
            for value in ("", "0", "-1", "fast", "9" * 30, "1e5", "22.05 kHz", "١٦٠٠٠")
        ),
    ],
)
def test_sample_rate_is_read_from_headers(headers: dict[str, str], pcm: PcmFormat, is_stated: bool) -> None:
    assert parse_pcm_format(headers) == (pcm, is_stated)
