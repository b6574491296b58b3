"""Encoding, decoding and looking into recordings: round trips through every format, and what may go wrong."""

from __future__ import annotations

import array
import errno
import gc
import io
import itertools
import math
import random
import struct
import subprocess
import sys
import threading
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import BinaryIO

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiocli.codecs.convert import PcmReader, convert, is_silent, loudness, samples
from audiocli.codecs.decoder import Decoder
from audiocli.codecs.encoder import Encoder
from audiocli.audio.formats import OUTPUT_FORMATS, wav_header
from audiocli.codecs.probe import probe
from audiocli.audio.wav import PlainEncoder
from audiocli.errors import InvalidResponse, RecordingError
from audiocli.types.values import Pcm

RATES = (8_000, 22_050, 24_000, 44_100, 48_000)
CODED = ("mp3", "flac", "opus", "ogg", "aac", "m4a")


@cache
def tone(rate: int, channels: int = 1, seconds: float = 0.4, hertz: float = 440.0) -> bytes:
    step = 2 * math.pi * hertz / rate
    values = (int(9_000 * math.sin(i * step)) for i in range(int(rate * seconds)))
    return array.array("h", (value for value in values for _ in range(channels))).tobytes()


def encode(name: str, pcm: Pcm, sound: bytes, *, pipe: bool = False, step: int = 3_001) -> bytes:
    target = None if pipe else io.BytesIO()
    with Encoder(name, pcm, target) as encoder:
        pieces = [encoder.feed(sound[at : at + step]) for at in range(0, len(sound), step)]
        out = b"".join([*pieces, encoder.finish()])
    if target is None:
        return out
    assert not out
    return target.getvalue()


def decode(name: str, body: bytes, pcm: Pcm | None = None, sizes: Iterable[int] = ()) -> tuple[Pcm, bytes]:
    with Decoder(name, pcm) as decoder:
        out, at, turns = bytearray(), 0, list(sizes) or [len(body)]
        while at < len(body):
            size = turns[0]
            turns.append(turns.pop(0))
            out += decoder.feed(body[at : at + size])
            at += size
        for piece in decoder.finish():
            out += piece
        assert decoder.pcm is not None
        return decoder.pcm, bytes(out)


def hertz_of(sound: bytes, pcm: Pcm) -> float:
    """Count the zero crossings in the middle of the first channel."""
    values = array.array("h", sound)[:: pcm.channels]
    middle = values[len(values) // 4 : len(values) * 3 // 4]
    crossings = sum(1 for a, b in itertools.pairwise(middle) if (a < 0) != (b < 0))
    return crossings / 2 / (len(middle) / pcm.sample_rate_hz)


def write(path: Path, body: bytes) -> Path:
    path.write_bytes(body)
    return path


# --- round trips ----------------------------------------------------------------------------------------------------

# How many samples more than went in may come out, as a share of a codec frame of so many samples. What a container has
# no place for (both ends of an mp3 in a pipe, of ADTS, of a fragmented m4a) is heard as a few milliseconds of silence.
FRAME = {"mp3": 1_152, "aac": 1_024, "m4a": 1_024, "opus": 960, "ogg": 960, "flac": 1, "wav": 1, "pcm": 1}
SPARE = {("mp3", True): 2.0, ("aac", True): 2.0, ("aac", False): 2.0, ("m4a", True): 2.0, ("m4a", False): 1.0}


@pytest.mark.parametrize("name", OUTPUT_FORMATS)
@pytest.mark.parametrize("pipe", [False, True], ids=["file", "pipe"])
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("channels", [1, 2])
def test_the_sound_that_comes_out_is_the_sound_that_went_in(name: str, pipe: bool, rate: int, channels: int) -> None:
    pcm = Pcm(rate, channels)
    sound = tone(rate, channels)

    shape, back = decode(name, encode(name, pcm, sound, pipe=pipe), pcm)

    spare = SPARE.get((name, pipe), 0) * FRAME[name] + (0 if name in ("flac", "wav", "pcm") else 2)
    wanted = len(sound) / pcm.frame_bytes
    heard = len(back) / shape.frame_bytes * rate / shape.sample_rate_hz
    assert shape.channels == channels or name in ("opus", "ogg")
    assert -2 <= heard - wanted <= spare
    assert hertz_of(back, shape) == pytest.approx(440, rel=0.02)


@pytest.mark.parametrize("name", ["wav", "flac", "pcm"])
def test_lossless_formats_keep_every_sample(name: str) -> None:
    sound = tone(24_000, 2)

    _, back = decode(name, encode(name, Pcm(24_000, 2), sound), Pcm(24_000, 2))

    assert back == sound


@pytest.mark.parametrize("name", OUTPUT_FORMATS)
def test_any_cut_of_the_samples_encodes_the_same(name: str) -> None:
    sound = tone(24_000)

    outs = {encode(name, Pcm(), sound, pipe=True, step=step) for step in (7, 999, len(sound))}

    if name in ("opus", "ogg", "m4a"):
        # Ogg streams have a random serial number; the first fragment of an m4a begins with the first call.
        outs = {decode(name, out)[1] for out in outs}
    assert len(outs) == 1


@pytest.mark.parametrize("name", ["mp3", "aac", "flac", "wav", "opus"])
@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(1, 700), min_size=1, max_size=9))
def test_any_cut_of_the_reply_decodes_the_same(name: str, sizes: list[int]) -> None:
    body = encoded_once(name)

    assert decode(name, body, sizes=sizes) == decode(name, body)


@cache
def encoded_once(name: str) -> bytes:
    return encode(name, Pcm(), tone(24_000))


@pytest.mark.parametrize("name", OUTPUT_FORMATS)
def test_a_pipe_gets_its_first_sound_early(name: str) -> None:
    encoder = Encoder(name, Pcm())
    second = tone(24_000, seconds=1.0)
    sizes = [len(encoder.feed(second[at : at + 960])) for at in range(0, len(second), 960)]
    encoder.close()

    # After 0.3 s of samples there is more than the headers, and then more at least every 0.3 s.
    assert sum(sizes[:15]) > 300
    assert all(sum(sizes[at : at + 15]) for at in range(0, 45, 5))


@pytest.mark.parametrize("name", OUTPUT_FORMATS)
@pytest.mark.parametrize("pipe", [False, True])
def test_no_samples_and_half_a_sample_are_no_error(name: str, pipe: bool) -> None:
    made = [encode(name, Pcm(), samples, pipe=pipe) for samples in (b"", b"\x01", b"\x01\x00\x01")]

    assert made[0] == made[1] or name in ("opus", "ogg")  # whose streams have random serial numbers
    assert len(made[2]) >= len(made[0])


def test_six_channels_are_mixed_down() -> None:
    shape, back = decode("flac", encode("flac", Pcm(24_000, 6), tone(24_000, 6)))

    assert shape == Pcm(24_000, 2)
    assert len(back) == len(tone(24_000, 2))


def test_the_plain_encoder_makes_what_the_encoder_makes() -> None:
    sound, file = tone(24_000), io.BytesIO()
    plain = PlainEncoder("wav", Pcm(), file)
    plain.feed(sound)
    plain.finish()

    assert file.getvalue() == encode("wav", Pcm(), sound) == wav_header(Pcm(), len(sound)) + sound


# --- targets that fail ----------------------------------------------------------------------------------------------


class Full(io.BytesIO):
    """A file on a disk with so much room."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def write(self, chunk: object) -> int:
        self.room -= memoryview(chunk).nbytes  # type: ignore[arg-type]
        if self.room < 0:
            raise OSError(errno.ENOSPC, "no space left on device")
        return super().write(chunk)  # type: ignore[arg-type]


def fill(name: str, target: BinaryIO) -> Encoder:
    encoder = Encoder(name, Pcm(), target)
    sound = tone(24_000)
    for at in range(0, len(sound), 4_000):
        encoder.feed(sound[at : at + 4_000])
    encoder.finish()
    return encoder


@pytest.mark.parametrize("name", OUTPUT_FORMATS)
def test_a_full_disk_is_told_at_whatever_byte_it_strikes(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    enough = Full(1 << 30)
    fill(name, enough)
    needed = (1 << 30) - enough.room

    for room in (*range(0, needed, max(needed // 60, 1)), needed - 1):
        with pytest.raises(OSError) as caught:
            fill(name, Full(room))
        assert caught.value.errno == errno.ENOSPC
    gc.collect()

    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", OUTPUT_FORMATS)
def test_giving_up_writes_nothing_more(name: str) -> None:
    target = io.BytesIO()
    encoder = Encoder(name, Pcm(), target)
    encoder.feed(tone(24_000))
    before = target.getvalue()
    encoder.close()
    encoder.close()
    del encoder
    gc.collect()

    assert target.getvalue() == before


@pytest.mark.parametrize("name", CODED)
def test_a_forgotten_encoder_with_a_closed_file_is_collected_in_silence(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    target = io.BytesIO()
    encoder = Encoder(name, Pcm(), target)
    encoder.feed(tone(24_000))
    target.close()
    del encoder
    gc.collect()

    assert capfd.readouterr() == ("", "")


def test_an_encoder_may_move_from_thread_to_thread() -> None:
    sound, out = tone(24_000), bytearray()
    with Encoder("mp3", Pcm()) as encoder:
        for at in range(0, len(sound), 4_000):
            worker = threading.Thread(target=lambda at=at: out.extend(encoder.feed(sound[at : at + 4_000])))
            worker.start()
            worker.join()
        out += encoder.finish()

    assert bytes(out) == encode("mp3", Pcm(), sound, pipe=True)


# --- replies that are not what they say -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*OUTPUT_FORMATS, "webm"])
@pytest.mark.parametrize("body", [b"", b"{}", b"<html>" * 500, bytes(3_000)], ids=["nothing", "json", "html", "zeros"])
def test_what_does_not_decode_is_a_bad_answer(name: str, body: bytes) -> None:
    if name == "pcm" and body:
        return

    with pytest.raises(InvalidResponse):
        decode(name, body)


@pytest.mark.parametrize("name", [name for name in OUTPUT_FORMATS if name not in ("pcm", "m4a")])
def test_a_reply_that_breaks_off_decodes_up_to_there(name: str) -> None:
    body = encode(name, Pcm(), tone(24_000, seconds=1.0), pipe=True)

    shape, back = decode(name, body[: len(body) * 2 // 3])

    assert 0.4 < len(back) / shape.bytes_per_second < 0.8


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(OUTPUT_FORMATS), at=st.integers(0, 1 << 16), noise=st.binary(max_size=40))
def test_noise_in_a_reply_is_decoded_or_refused(name: str, at: int, noise: bytes) -> None:
    body = encoded_once(name)
    at %= len(body)
    try:
        shape, back = decode(name, body[:at] + noise + body[at + 10 :], Pcm())
    except InvalidResponse:
        return

    assert name in ("pcm", "wav") or len(back) % shape.frame_bytes == 0


@pytest.mark.parametrize(
    ("tag", "bits", "sample"), [(3, 32, struct.pack("<f", 0.5)), (1, 24, b"\x00\x00\x40"), (1, 8, b"\xc0")]
)
def test_wav_samples_of_other_shapes_become_16_bit(tag: int, bits: int, sample: bytes) -> None:
    shape = struct.pack("<HHIIHH", tag, 1, 8_000, 1_000 * bits, bits // 8, bits)
    body = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0" + shape + b"data\xff\xff\xff\xff" + sample * 800

    pcm, back = decode("wav", body)

    assert pcm == Pcm(8_000, 1)
    assert array.array("h", back) == array.array("h", [16_384] * 800)


def test_an_mp3_with_a_cover_full_of_sync_words_loses_nothing() -> None:
    body = encode("mp3", Pcm(), tone(24_000), pipe=True)
    sound = body[body.index(b"\xff\xf3") :]
    cover = b"ID3\x04\x00\x00\x00\x00\x20\x00" + b"\xff\xf3\x84\xc4" * 1_024

    assert decode("mp3", cover + sound, sizes=[100]) == decode("mp3", sound)


# --- recordings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mp3", "flac", "opus", "aac", "m4a", "wav"])
def test_a_recording_is_known_by_its_content(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "recording.txt", encode(name, Pcm(), tone(24_000, seconds=1.0)))

    found = probe(path)

    assert (found.format, found.has_video) == (name, False)
    assert found.size_bytes == path.stat().st_size
    assert found.duration_s == pytest.approx(1.0, abs=0.1)


def film(path: Path, *, audio: bool = True, start_s: float = 0.0) -> Path:
    """A second and a half of a grey picture, with a second of sound that begins at `start_s`."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
        if audio:
            sound = container.add_stream("aac", rate=24_000, layout="mono")
            frame = av.AudioFrame(format="s16", layout="mono", samples=24_000)
            frame.planes[0].update(tone(24_000, seconds=1.0))
            frame.sample_rate, frame.pts = 24_000, int(start_s * 24_000)
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
        for _ in range(15):
            grey = av.VideoFrame(32, 32, "yuv420p")
            for plane in grey.planes:
                plane.update(bytes([128]) * plane.buffer_size)
            container.mux(picture.encode(grey))
        container.mux(picture.encode(None))
    return path


def test_a_film_has_video_and_its_sound_can_be_had(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4")

    found, sound = probe(path), samples(path)
    heard = b"".join(sound)

    assert (found.format, found.has_video) == ("mp4", True)
    assert hertz_of(heard, sound.pcm) == pytest.approx(440, rel=0.02)


def test_sound_that_begins_later_than_the_picture_keeps_its_time(tmp_path: Path) -> None:
    path = film(tmp_path / "late.mkv", start_s=0.5)

    values = array.array("h", b"".join(samples(path)))

    assert max(values[:7_000]) < 200 < max(values[8_500:12_000])


@pytest.mark.parametrize("rate", [8_000, 48_000])
def test_sound_without_gaps_gets_none(tmp_path: Path, rate: int) -> None:
    source = write(tmp_path / "in.m4a", encode("m4a", Pcm(rate), tone(rate, seconds=4.0)))

    sound = samples(source)
    heard = b"".join(sound)

    assert sound.seconds == pytest.approx(4.0, abs=1_100 / rate)
    assert max(map(abs, array.array("h", heard[-20_000:-8_000]))) > 8_000


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"just words\n" * 20, "text"),
        (b"#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n", "text"),
        (wav_header(Pcm(), 0), "without samples"),
        (random.Random(1).randbytes(3_000), "not a recording"),
    ],
)
def test_what_is_no_recording_is_said_to_be_none(tmp_path: Path, body: bytes, words: str) -> None:
    path = write(tmp_path / "x.mp3", body)

    with pytest.raises(RecordingError, match=words) as caught:
        probe(path)
    with pytest.raises(RecordingError):
        list(samples(path))

    assert caught.value.exit_code == 8


def test_a_film_without_sound_is_said_to_have_none(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no audio track"):
        probe(film(tmp_path / "mute.mp4", audio=False))


def test_a_missing_recording_is_the_systems_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        probe(tmp_path / "no.mp3")


def test_tags_that_are_not_utf_8_do_not_matter(tmp_path: Path) -> None:
    text = b"\x00Gr\xfc\xdfe"
    tag = (
        b"TPE1"
        + struct.pack(">IH", len(text), 0)
        + text
        + b"TXXX"
        + struct.pack(">IH", 7, 0)
        + b"\x03\xff\xfe\x00\xe9\xe9\xe9"
    )
    path = write(
        tmp_path / "old.mp3",
        b"ID3\x03\x00\x00\x00\x00\x00" + bytes([len(tag)]) + tag + encode("mp3", Pcm(), tone(24_000), pipe=True)[45:],
    )

    assert probe(path).format == "mp3"


@pytest.mark.parametrize("name", ["opus", "flac", "mp3", "wav", "m4a"])
def test_a_recording_is_converted_in_steps(tmp_path: Path, name: str) -> None:
    source = write(tmp_path / "in.mp3", encode("mp3", Pcm(44_100, 2), tone(44_100, 2, seconds=3.0)))
    target = tmp_path / "out"

    work = convert(source, target, name)
    steps = list(work)

    assert steps == sorted(steps)
    assert steps[-1] == work.seconds == pytest.approx(3.0, abs=0.01)
    assert work.complete
    assert probe(target).duration_s == pytest.approx(3.0, abs=0.1)


def test_samples_come_in_small_pieces_without_gaps(tmp_path: Path) -> None:
    source = write(tmp_path / "in.flac", encode("flac", Pcm(16_000), tone(16_000, seconds=3.0)))

    pieces = list(samples(source))

    assert b"".join(pieces) == tone(16_000, seconds=3.0)
    assert max(map(len, pieces)) <= 40_000


@pytest.mark.parametrize("name", ["mp3", "flac", "wav"])
def test_a_recording_that_breaks_off_is_read_up_to_there(tmp_path: Path, name: str) -> None:
    body = encode(name, Pcm(), tone(24_000, seconds=3.0))
    source = write(tmp_path / "in", body[: len(body) // 2])

    sound = samples(source)
    heard = b"".join(sound)

    assert not sound.complete
    assert 1.2 < len(heard) / sound.pcm.bytes_per_second == sound.seconds < 1.8


def test_a_conversion_that_is_left_or_fails_leaves_no_file(tmp_path: Path) -> None:
    source = write(tmp_path / "in.wav", encode("wav", Pcm(), tone(24_000, seconds=20.0)))
    broken = write(tmp_path / "broken.mp3", b"\xff\xfb\x90\xc4" + bytes(3_000))
    target = tmp_path / "out.mp3"

    left = convert(source, target, "mp3")
    next(left)
    left.close()
    with pytest.raises(RecordingError):
        list(convert(broken, target, "mp3"))

    assert not target.exists()


def test_silence_is_told_from_sound(tmp_path: Path) -> None:
    silence = write(tmp_path / "silence.flac", encode("flac", Pcm(), bytes(96_000)))
    hum = array.array("h", [60, -60] * 24_000).tobytes()
    faint = write(tmp_path / "faint.wav", encode("wav", Pcm(), hum))
    reversed_plug = array.array("h", (v for s in array.array("h", tone(24_000)) for v in (s, -s))).tobytes()
    loud = write(tmp_path / "loud.wav", encode("wav", Pcm(24_000, 2), reversed_plug))

    assert is_silent(silence)
    assert is_silent(faint)
    assert not is_silent(faint, threshold_dbfs=-70)
    assert not is_silent(loud)
    assert max(loudness(silence)) == -math.inf


def test_reading_can_be_left_at_any_time(tmp_path: Path) -> None:
    source = write(tmp_path / "in.wav", encode("wav", Pcm(), tone(24_000, seconds=3.0)))

    sound = PcmReader(source, 16_000, 1)
    next(sound)
    sound.close()

    assert list(sound) == []


def test_libav_says_nothing_on_the_terminal(tmp_path: Path) -> None:
    body = encode("mp3", Pcm(), tone(24_000, seconds=2.0))
    source = write(tmp_path / "in.mp3", body[:3_000] + random.Random(1).randbytes(500) + body[3_500:-100])
    script = (
        "import sys; from pathlib import Path; from audiocli.codecs.convert import samples; "
        "print(sum(map(len, samples(Path(sys.argv[1])))) > 0)"
    )

    done = subprocess.run([sys.executable, "-c", script, str(source)], capture_output=True, text=True, check=True)

    assert (done.stdout, done.stderr) == ("True\n", "")
