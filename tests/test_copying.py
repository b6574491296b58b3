"""Pieces of recordings copied packet by packet: the same sound, at the place they tell."""

from __future__ import annotations

import array
import io
import itertools
import math
import operator
import random
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import pytest

from audiocli.codecs.convert import samples
from audiocli.audio.mp3_bit_reservoir import borrowed_bytes, lent, silent_frame
from audiocli.audio.mpeg import mpeg_frame
from audiocli.codecs.packet_index import Packets, PacketStats
from audiocli.codecs.probe import probe
from audiocli.codecs.silence import SilenceScan, listen
from audiocli.audio.split_plan import RATE_HZ, Piece, PieceLimits, plan
from audiocli.codecs.splitter import Cut, Cutter
from audiocli.errors import RecordingError
from audiocli.text.merge import moved
from audiocli.types.values import Transcript, Word

SECONDS = 8
# Name of the file: container, codec, rate, options of the encoder.
KINDS = {
    "steady.mp3": ("mp3", "libmp3lame", 44_100, {"b": "64000"}),
    "small.mp3": ("mp3", "libmp3lame", 16_000, {"b": "24000"}),
    "varying.mp3": ("mp3", "libmp3lame", 24_000, {"q": "4", "b": "0", "flags": "+qscale", "global_quality": "472"}),
    "index.m4a": ("ipod", "aac", 44_100, {"b": "64000"}),
    "picture.mp4": ("mp4", "aac", 48_000, {"b": "64000"}),
    "in.mov": ("mov", "aac", 16_000, {"b": "32000"}),
    "in.opus": ("ogg", "libopus", 48_000, {"b": "32000"}),
    "long.opus": ("ogg", "libopus", 16_000, {"b": "24000", "frame_duration": "60"}),
    "in.webm": ("webm", "libopus", 48_000, {"b": "32000"}),
    "vorbis.ogg": ("ogg", "vorbis", 44_100, {"strict": "experimental"}),
    "vorbis.webm": ("webm", "vorbis", 48_000, {"strict": "experimental"}),
    "in.wav": ("wav", "pcm_s16le", 22_050, {}),
    "deep.wav": ("wav", "pcm_s24le", 48_000, {}),
}


@cache
def ticking(rate: int) -> bytes:
    """A burst every half second, each of another pitch, above noise."""
    values, noise, hiss = array.array("h"), random.Random(7), 0
    for at in range(rate * SECONDS):
        tick, rest = divmod(at, rate // 2)
        burst = 14_000 * math.sin(2 * math.pi * (300 + 83 * tick) * rest / rate) if rest < rate // 20 else 0.0
        if at % (rate // 2_000) == 0:
            hiss = noise.randint(-900, 900)
        values.append(int(burst) + hiss)
    return values.tobytes()


def record(path: Path) -> Path:
    """Write a recording as its name says."""
    container, codec, rate, options = KINDS[path.name]
    with av.open(str(path), "w", format=container) as out:
        picture = out.add_stream("mpeg4", rate=10) if path.name == "picture.mp4" else None
        layout = "stereo" if codec == "vorbis" else "mono"
        stream = out.add_stream(codec, rate=rate, layout=layout, options=options)
        if picture is not None:
            picture.width = picture.height = 64
            for number in range(10 * SECONDS):
                frame = av.VideoFrame(64, 64, "yuv420p")
                frame.pts = number
                out.mux(picture.encode(frame))
            out.mux(picture.encode(None))
        content, step = ticking(rate), 640 if codec == "vorbis" else rate
        for at in range(0, rate * SECONDS, step):
            part = content[2 * at : 2 * (at + step)]
            sound = av.AudioFrame(format="s16", layout="mono", samples=len(part) // 2, align=1)
            sound.planes[0].update(part)
            sound.sample_rate, sound.pts, sound.time_base = rate, at, Fraction(1, rate)
            out.mux(stream.encode(sound))
        out.mux(stream.encode(None))
    return path


def heard(path: Path) -> tuple[SilenceScan, Packets]:
    listening = listen(path)
    list(listening)
    assert listening.packets is not None
    return listening, listening.packets


def decoded(path: Path) -> array.array[int]:
    """Decode as a server would: every sample that the decoder gives, none moved to where a container says."""
    out = array.array("h")
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("s16", "mono", RATE_HZ)
        for frame in itertools.chain(container.decode(audio=0), [None]):
            if frame is not None:
                frame.pts = None
            for done in resampler.resample(frame):
                out.frombytes(bytes(done.planes[0])[: 2 * done.samples])
    return out


def likeness(whole: array.array[int], piece: array.array[int], start: int, at: int) -> float:
    """Tell how alike a stretch of a piece and its place in the recording are: 1.0, if need be 3 ms away."""
    there = piece[at : at + 8_000 : 7]
    power, best = sum(x * x for x in there) or 1, 0.0
    for away in range(-48, 49):
        here = whole[max(start + at + away, 0) :][: 7 * len(there) : 7]
        product = sum(map(operator.mul, there, here))
        best = max(best, product / math.sqrt(power * (sum(map(operator.mul, here, here)) or 1)))
    return best


def copied(cutter: Cutter, piece: Piece, target: Path) -> Cut:
    cut = cutter.cut(piece, target, target.suffix.removeprefix("."))
    steps = list(cut)
    assert steps == sorted(steps) and steps[-1] == piece.duration_s
    return cut


@pytest.mark.parametrize("name", KINDS)
def test_a_copied_piece_has_the_sound_of_its_place(tmp_path: Path, name: str) -> None:
    source = record(tmp_path / name)
    listening, packets = heard(source)
    whole = array.array("h", b"".join(samples(source)))
    cutter = Cutter(source, packets)
    pieces = [Piece(0, 41_003), Piece(39_001, 100_000), Piece(20_011, 70_000), Piece(90_000, listening.samples)]

    for number, piece in enumerate(pieces):
        target = tmp_path / f"{number}.{packets.formats[0]}"
        cut = copied(cutter, piece, target)
        sound = decoded(target)

        # It begins before its place, hardly earlier, and ends behind its end.
        assert piece.start_s - 0.2 < cut.start_s <= piece.start_s + 0.001
        # What is last in AAC may be declared as padding, and be decoded all the same.
        assert piece.end_s - (0.05 if piece is pieces[-1] else 0.003) <= cut.end_s < piece.end_s + 0.1
        assert len(sound) / RATE_HZ == pytest.approx(cut.end_s - cut.start_s, abs=0.05 if piece is pieces[-1] else 0.01)
        start = round(cut.start_s * RATE_HZ)
        for at in (piece.start - start + 800, len(sound) - 9_500):
            assert likeness(whole, sound, start, at) > 0.95, (number, at)
    cutter.close()


@pytest.mark.parametrize("name", ["steady.mp3", "picture.mp4", "in.opus", "in.wav"])
def test_pieces_together_lose_nothing(tmp_path: Path, name: str) -> None:
    source = record(tmp_path / name)
    listening, packets = heard(source)
    pieces = plan(listening.samples, listening.silences, PieceLimits(2.5, 0.3), pauses=listening.pauses)
    cutter = Cutter(source, packets)

    cuts = [copied(cutter, piece, tmp_path / f"{piece.start}.{packets.formats[0]}") for piece in pieces]
    cutter.close()

    assert len(cuts) >= 4
    assert cuts[0].start_s <= 0 and cuts[-1].end_s >= listening.seconds - 0.05
    assert all(a.end_s >= b.start_s for a, b in itertools.pairwise(cuts))


@pytest.mark.parametrize("target", ["m4a", "mp4"])
def test_of_a_video_only_the_sound_is_copied(tmp_path: Path, target: str) -> None:
    source = record(tmp_path / "picture.mp4")
    _, packets = heard(source)

    copied(Cutter(source, packets), Piece(16_000, 80_000), tmp_path / f"out.{target}")
    found = probe(tmp_path / f"out.{target}")

    assert found.format == target and not found.has_video
    assert found.duration_s == pytest.approx(4.0, abs=0.1)


@pytest.mark.parametrize("target", ["opus", "ogg", "webm"])
def test_opus_can_change_its_container(tmp_path: Path, target: str) -> None:
    source = record(tmp_path / "in.webm")
    _, packets = heard(source)

    copied(Cutter(source, packets), Piece(16_000, 80_000), tmp_path / f"out.{target}")

    assert probe(tmp_path / f"out.{target}").format == ("webm" if target == "webm" else "opus")


def test_an_mp3_whose_bit_rate_varies_tells_its_length(tmp_path: Path) -> None:
    source = record(tmp_path / "varying.mp3")
    _, packets = heard(source)

    cut = copied(Cutter(source, packets), Piece(16_000, 112_000), tmp_path / "out.mp3")

    assert b"Xing" in (tmp_path / "out.mp3").read_bytes()[:60]
    assert probe(tmp_path / "out.mp3").duration_s == pytest.approx(cut.end_s - cut.start_s, abs=0.01)


def test_what_a_frame_of_mp3_borrows_stands_in_the_one_before_it(tmp_path: Path) -> None:
    source = record(tmp_path / "steady.mp3")
    _, packets = heard(source)
    copied(Cutter(source, packets), Piece(60_000, 90_000), tmp_path / "out.mp3")
    content = (tmp_path / "out.mp3").read_bytes()

    frames = []
    while frame := mpeg_frame(content[:4]):
        frames.append(content[: frame.size_bytes])
        content = content[frame.size_bytes :]

    assert not content and borrowed_bytes(frames[0]) == 0
    assert all(len(lent(frames[:place], 511)) >= borrowed_bytes(frames[place]) for place in range(1, len(frames)))
    blank = silent_frame(frames[1], b"x" * 300)
    assert mpeg_frame(blank).size_bytes == len(blank) and blank.endswith(b"x" * 300)  # type: ignore[union-attr]


def test_other_formats_are_still_encoded(tmp_path: Path) -> None:
    source = record(tmp_path / "steady.mp3")
    _, packets = heard(source)

    cut = Cutter(source, packets).cut(Piece(8_001, 40_000), tmp_path / "out.flac", "flac")
    list(cut)

    assert (cut.start_s, cut.end_s) == (8_001 / RATE_HZ, 2.5)
    assert b"".join(samples(tmp_path / "out.flac")) == b"".join(samples(source))[2 * 8_001 : 2 * 40_000]


def test_pieces_are_the_same_in_any_order(tmp_path: Path) -> None:
    source = record(tmp_path / "in.opus")
    _, packets = heard(source)
    pieces = [Piece(0, 30_000), Piece(25_000, 60_000), Piece(100_000, 125_000)]
    made = []

    for order in ((0, 1, 2), (2, 1, 0)):
        cutter = Cutter(source, packets)
        made.append({number: bytes_of(cutter, pieces[number], tmp_path / "out.wav") for number in order})

    assert made[0] == made[1]


def bytes_of(cutter: Cutter, piece: Piece, target: Path) -> tuple[float, bytes]:
    path = target.with_suffix(".webm")
    cut = copied(cutter, piece, path)
    return cut.start_s, decoded(path).tobytes()


@pytest.mark.parametrize("name", ["steady.mp3", "index.m4a", "in.opus", "in.wav"])
def test_a_copy_that_is_left_leaves_no_file_and_the_next_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("audiocli.codecs.stream_copy.STEP_S", 0.0)
    source = record(tmp_path / name)
    listening, packets = heard(source)
    cutter, target = Cutter(source, packets), tmp_path / f"out.{packets.formats[0]}"

    left = cutter.cut(Piece(0, listening.samples), target, packets.formats[0])
    next(left)
    assert target.exists()
    left.close()

    assert not target.exists() and list(left) == []
    assert copied(cutter, Piece(16_000, 32_000), target).end_s >= 1.997
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, target.name])


@pytest.mark.parametrize("name", ["steady.mp3", "in.opus", "in.wav"])
def test_a_recording_that_became_shorter_is_not_believed(tmp_path: Path, name: str) -> None:
    source = record(tmp_path / name)
    listening, packets = heard(source)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    target = tmp_path / f"out.{packets.formats[0]}"

    for start in (0, 100_000):
        with pytest.raises(RecordingError, match="ends earlier"):
            list(Cutter(source, packets).cut(Piece(start, listening.samples), target, packets.formats[0]))
    assert not target.exists()


def test_damage_in_the_middle_moves_no_place(tmp_path: Path) -> None:
    source = record(tmp_path / "steady.mp3")
    content = bytearray(source.read_bytes())
    content[20_000:21_500] = random.Random(1).randbytes(1_500)
    source.write_bytes(content)
    listening = listen(source)
    list(listening)
    whole = array.array("h", b"".join(samples(source)))
    piece = Piece(70_000, 120_000)

    # Either its place is known, or it is not copied.
    if listening.packets is not None:
        cut = copied(Cutter(source, listening.packets), piece, tmp_path / "out.mp3")
        start = round(cut.start_s * RATE_HZ)
        assert likeness(whole, decoded(tmp_path / "out.mp3"), start, 20_000) > 0.95


def test_what_cannot_be_copied_exactly_says_so(tmp_path: Path) -> None:
    tally = PacketStats(("mp3",))
    flac = io.BytesIO()
    with av.open(flac, "w", format="flac") as out:
        stream = out.add_stream("flac", rate=16_000, layout="mono")
        sound = av.AudioFrame(format="s16", layout="mono", samples=16_000, align=1)
        sound.planes[0].update(ticking(16_000)[:32_000])
        sound.sample_rate = 16_000
        out.mux(stream.encode(sound))
        out.mux(stream.encode(None))
    (tmp_path / "in.flac").write_bytes(flac.getvalue())
    listening = listen(tmp_path / "in.flac")
    list(listening)

    tally.note(0.0, 0.0, 1, 100)
    tally.note(5.0, 1.0, 2, 200)

    assert listening.packets is None
    assert tally.packets(2.0) is None


def test_the_busiest_stretch_decides_how_long_pieces_may_be() -> None:
    tally = PacketStats(("mp3", "opus"))
    for second in range(100):
        busy = 30_000 if 40 <= second < 50 else 1_000
        size = second * 1_000 + 29_000 * max(0, min(second, 50) - 40)
        tally.note(float(second), float(second), 0, size)
        assert busy
    packets = tally.packets(100.0)

    assert packets is not None and packets.bytes_per_s == 30_000
    assert 0 < packets.longest_s(3_000_000) < 80
    assert packets.format_for([("wav", "opus"), ("*",)]) == "opus"
    assert packets.format_for([("wav",)]) is None
    assert packets.shift_s(-1.0) == packets.shift_s(99.0) == 0.0


def test_times_of_a_copy_become_those_of_its_piece() -> None:
    words = (Word(0.02, 0.3, "one"), Word(0.4, 0.6, "two"))

    shifted = moved(Transcript("one two", words=words), -0.06)

    assert [(round(word.start_s, 3), round(word.end_s, 3)) for word in shifted.words] == [(0.0, 0.24), (0.34, 0.54)]
