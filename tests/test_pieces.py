"""Long recordings heard, cut in pieces, and spoken pieces joined, with real sound in real files."""

from __future__ import annotations

import array
import errno
import io
import itertools
import math
import time
from functools import cache
from pathlib import Path

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiocli.codecs.concat import PcmConcatenator
from audiocli.codecs.convert import samples
from audiocli.codecs.encoder import Encoder
from audiocli.codecs.pcm_spool import PcmSpool, has_room
from audiocli.codecs.probe import probe
from audiocli.codecs.silence import SilenceScan, listen
from audiocli.audio.split_plan import RATE_HZ, Piece, PieceLimits, Span, plan
from audiocli.codecs.splitter import Cutter
from audiocli.engines import espeak
from audiocli.errors import RecordingError
from audiocli.types.values import Pcm

SOURCES = ("mp3", "m4a", "opus", "webm", "wav", "flac")


@cache
def tone(rate: int, seconds: float, channels: int = 1, peak: int = 9_000) -> bytes:
    step = 2 * math.pi * 440 / rate
    values = (int(peak * math.sin(i * step)) for i in range(round(rate * seconds)))
    return array.array("h", (value for value in values for _ in range(channels))).tobytes()


@cache
def morse(rate: int, *stretches: float, channels: int = 1) -> bytes:
    """A tone and silence in turn, so many seconds each."""
    return b"".join(
        bytes(2 * channels * round(rate * seconds)) if place % 2 else tone(rate, seconds, channels)
        for place, seconds in enumerate(stretches)
    )


def record(path: Path, sound: bytes, pcm: Pcm) -> Path:
    """Write a recording in the format of its ending."""
    name = path.suffix.removeprefix(".")
    with path.open("wb") as file:
        if name != "webm":
            with Encoder(name, pcm, file) as encoder:
                encoder.feed(sound)
                encoder.finish()
            return path
        with av.open(file, "w", format="webm") as container:
            stream = container.add_stream("libopus", rate=48_000, layout="mono" if pcm.channels == 1 else "stereo")
            frame = av.AudioFrame(format="s16", layout=stream.layout, samples=len(sound) // pcm.frame_bytes, align=1)
            frame.planes[0].update(sound)
            frame.sample_rate = pcm.sample_rate_hz
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


def heard(path: Path) -> SilenceScan:
    listening = listen(path)
    steps = list(listening)
    assert steps == sorted(steps) and steps[-1] == listening.seconds
    return listening


def rounded(spans: tuple[Span, ...], digits: int = 3) -> list[tuple[float, float]]:
    return [(round(span.start_s, digits), round(span.end_s, digits)) for span in spans]


# --- listening ------------------------------------------------------------------------------------------------------


def test_silences_are_found_to_a_window_and_never_too_long(tmp_path: Path) -> None:
    sound = bytes(16_000) + morse(RATE_HZ, 1.0, 0.35, 0.1, 0.25, 2.0, 1.7)

    listening = heard(record(tmp_path / "in.wav", sound, Pcm(RATE_HZ)))

    assert listening.samples == len(sound) // 2 and listening.complete
    assert rounded(listening.silences) == [(0, 0.5), (1.5, 1.84), (4.2, 5.9)]
    assert listening.silences[-1].end_s == listening.seconds
    assert listening.pauses == listening.silences


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize(("rate", "channels"), [(48_000, 1), (48_000, 2), (24_000, 1)])
def test_silences_are_found_in_every_format(tmp_path: Path, name: str, rate: int, channels: int) -> None:
    if name == "webm" and rate != 48_000:
        rate = 16_000
    source = record(tmp_path / f"in.{name}", morse(rate, 1.0, 0.5, 1.0, channels=channels), Pcm(rate, channels))

    listening = heard(source)

    # What was heard in its own rate and channels is as long as what pieces are cut out of, or a sample shorter.
    assert 0 <= sum(map(len, samples(source))) // 2 - listening.samples <= 1
    assert listening.seconds == pytest.approx(2.5, abs=0.07)
    assert [pytest.approx(span, abs=0.08) for span in rounded(listening.silences)] == [(1.0, 1.5)]


def test_what_is_quiet_is_a_pause_but_not_silence(tmp_path: Path) -> None:
    hiss, hum = tone(RATE_HZ, 1.0, peak=200), tone(RATE_HZ, 1.0, peak=400)
    loud = tone(RATE_HZ, 1.0)

    listening = heard(record(tmp_path / "in.flac", loud + hiss + loud + hum + loud, Pcm(RATE_HZ)))

    assert listening.silences == ()
    assert rounded(listening.pauses, 2) == [(1.0, 2.0)]


def test_a_reversed_plug_is_not_silence(tmp_path: Path) -> None:
    sound = array.array("h", (v for s in array.array("h", tone(RATE_HZ, 1.0)) for v in (s, -s))).tobytes()

    assert heard(record(tmp_path / "in.wav", sound, Pcm(RATE_HZ, 2))).silences == ()


@pytest.mark.parametrize("name", ["mp3", "flac", "wav"])
def test_a_recording_that_breaks_off_is_heard_and_cut_up_to_there(tmp_path: Path, name: str) -> None:
    whole = record(tmp_path / f"whole.{name}", tone(24_000, 4.0), Pcm())
    source = tmp_path / f"in.{name}"
    source.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])

    listening = heard(source)
    pieces = plan(listening.samples, listening.silences, PieceLimits(1.0, 0.1))
    sizes = [len(cut(source, piece, tmp_path)) for piece in pieces]

    assert not listening.complete
    assert 1.7 < listening.seconds < 2.3
    assert pieces[-1].end == listening.samples
    assert sizes == [2 * (piece.end - piece.start) for piece in pieces]


def test_what_is_no_recording_is_not_listened_to(tmp_path: Path) -> None:
    path = tmp_path / "in.mp3"
    path.write_bytes(b"just words\n" * 50)

    with pytest.raises(RecordingError):
        next(listen(path))
    with pytest.raises(FileNotFoundError):
        next(listen(tmp_path / "no.mp3"))


def test_listening_can_be_left_after_any_step(tmp_path: Path) -> None:
    # Steps are measured by the processor's time, for other processes may want it too.
    source = record(tmp_path / "in.mp3", morse(24_000, 3.0, 1.0) * 20, Pcm())
    listening, took = listen(source), [time.thread_time()]
    for _ in listening:
        took.append(time.thread_time())
    left = listen(source)
    next(left)
    left.close()

    assert max(b - a for a, b in itertools.pairwise(took)) < 0.1
    assert list(left) == []


# --- cutting --------------------------------------------------------------------------------------------------------


def cut(source: Path | Cutter, piece: Piece, folder: Path) -> bytes:
    """Return the samples of a piece."""
    target = folder / f"{piece.start}.wav"
    list((Cutter(source) if isinstance(source, Path) else source).cut(piece, target, "wav"))
    return target.read_bytes()[44:]


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 0, 2, 1, 1)])
def test_pieces_are_exact_to_the_sample_in_any_order(tmp_path: Path, name: str, order: tuple[int, ...]) -> None:
    source = record(tmp_path / f"in.{name}", morse(48_000, 2.5, 0.5, 4.0), Pcm(48_000))
    whole = b"".join(samples(source))
    pieces = [Piece(0, 16_000), Piece(15_001, 50_003), Piece(40_000, 40_001), Piece(99_999, len(whole) // 2)]
    cutter = Cutter(source)

    made = {place: cut(cutter, pieces[place], tmp_path) for place in order}
    cutter.close()

    assert made == {place: whole[2 * pieces[place].start : 2 * pieces[place].end] for place in order}


@pytest.mark.parametrize("name", ["opus", "ogg", "mp3", "flac", "wav", "m4a", "aac"])
def test_a_piece_can_have_any_format(tmp_path: Path, name: str) -> None:
    source = record(tmp_path / "in.flac", tone(RATE_HZ, 3.0), Pcm(RATE_HZ))
    target = tmp_path / f"piece.{name}"

    steps = list(Cutter(source).cut(Piece(8_000, 40_000), target, name))
    found = probe(target)

    assert steps == sorted(steps) and steps[-1] == 2.0
    assert found.format == ("opus" if name == "ogg" else name)
    assert found.duration_s == pytest.approx(2.0, abs=0.12)


@pytest.mark.parametrize(("name", "rate", "channels"), [("mp3", 44_100, 2), ("m4a", 24_000, 1), ("wav", 16_000, 1)])
def test_pieces_from_a_tape_are_those_that_would_be_decoded_again(
    tmp_path: Path, name: str, rate: int, channels: int
) -> None:
    sound = morse(rate, 2.5, 0.5, 4.0, channels=channels)
    source = record(tmp_path / f"in.{name}", sound, Pcm(rate, channels))
    listening = listen(source, tape=PcmSpool(tmp_path / "scratch"))
    list(listening)
    pieces = [Piece(0, 16_000), Piece(99_999, listening.samples), Piece(15_001, 50_003)]
    taped, decoded = Cutter(source, tape=listening.tape), Cutter(source)

    for piece in pieces:
        ours, theirs = (array.array("h", cut(cutter, piece, tmp_path)) for cutter in (taped, decoded))
        assert len(ours) == len(theirs) == piece.end - piece.start
        # Samples that were rounded once more on their way.
        assert max(abs(one - two) for one, two in zip(ours, theirs, strict=True)) <= 3
    with pytest.raises(RecordingError, match="ends earlier"):
        cut(taped, Piece(0, listening.samples + 2_000), tmp_path)
    taped.close()
    decoded.close()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_tape_for_which_there_is_no_room_is_given_up(tmp_path: Path) -> None:
    class Full(PcmSpool):
        def write(self, samples: bytes) -> None:
            if samples:
                raise OSError(errno.ENOSPC, "no space left on device")

    source = record(tmp_path / "in.flac", morse(RATE_HZ, 1.0, 0.5, 1.0), Pcm(RATE_HZ))
    listening = listen(source, tape=Full(tmp_path))
    list(listening)

    assert listening.tape is None and listening.complete
    assert [pytest.approx(span, abs=0.03) for span in rounded(listening.silences)] == [(1.0, 1.5)]
    assert not has_room(tmp_path / "not there yet", 1e12) and has_room(tmp_path / "not there yet", 1.0)


def test_a_recording_that_changes_its_rate_can_be_cut_to_its_end(tmp_path: Path) -> None:
    parts = [
        record(tmp_path / f"{rate}.mp3", tone(rate, 2.5), Pcm(rate)).read_bytes() for rate in (8_000, 22_050, 11_025)
    ]
    source = tmp_path / "in.mp3"
    source.write_bytes(b"".join(parts * 8))
    listening = heard(source)
    cutter = Cutter(source)

    made = cut(cutter, Piece(listening.samples - 30_000, listening.samples), tmp_path)
    cutter.close()

    assert len(made) == 60_000


def test_a_recording_that_changes_its_channels_is_read_as_it_is(tmp_path: Path) -> None:
    """libav's fifo does not notice that a layout changes, and would read channels that are not there."""
    right = array.array("h", (value for one in array.array("h", tone(24_000, 1.0)) for value in (0, one))).tobytes()
    mono, stereo = (
        record(tmp_path / f"{channels}.mp3", sound, Pcm(24_000, channels)).read_bytes()
        for channels, sound in ((1, tone(24_000, 1.0)), (2, right))
    )
    source = tmp_path / "in.mp3"
    for parts in ((mono, stereo), (stereo, mono)):
        source.write_bytes(b"".join(parts * 2))
        values = array.array("h", b"".join(samples(source)))
        peaks = [max(values[at : at + 4_000]) for at in range(2_000, len(values) - 6_000, 4_000)]
        # One channel of two is half as loud in one.
        assert all(3_500 < peak < 10_000 for peak in peaks), peaks


def test_a_cut_that_is_left_leaves_no_file_and_the_next_one_is_whole(tmp_path: Path) -> None:
    source = record(tmp_path / "in.wav", tone(RATE_HZ, 60.0), Pcm(RATE_HZ))
    cutter, target = Cutter(source), tmp_path / "left.opus"

    left = cutter.cut(Piece(0, 60 * RATE_HZ), target, "opus")
    next(left)
    assert target.exists()
    left.close()

    assert not target.exists()
    assert cut(cutter, Piece(100, 900), tmp_path) == tone(RATE_HZ, 60.0)[200:1_800]


def test_a_recording_that_is_shorter_than_it_was_is_not_believed(tmp_path: Path) -> None:
    source = record(tmp_path / "in.wav", tone(RATE_HZ, 1.0), Pcm(RATE_HZ))
    target = tmp_path / "piece.mp3"

    with pytest.raises(RecordingError, match="ends earlier"):
        list(Cutter(source).cut(Piece(8_000, 18_000), target, "mp3"))
    with pytest.raises(OSError, match="No such file"):
        list(Cutter(source).cut(Piece(0, 1), tmp_path / "no" / "piece.mp3", "mp3"))

    assert not target.exists()


def test_speech_is_cut_between_its_sentences(tmp_path: Path) -> None:
    sentences = [spoken("The harbour opens at nine."), spoken("Nobody was surprised."), spoken("It rained all day.")]
    silence = bytes(2 * espeak.SAMPLE_RATE_HZ)
    lengths = [len(sentence) / 2 / espeak.SAMPLE_RATE_HZ for sentence in sentences]
    source = record(tmp_path / "in.mp3", silence.join(sentences), Pcm(espeak.SAMPLE_RATE_HZ))

    listening = heard(source)
    pieces = plan(listening.samples, listening.silences, PieceLimits(max(lengths) + 1.0), pauses=listening.pauses)

    edges = [sum(lengths[:place]) + place for place in range(1, 3)]
    assert len(pieces) == 3 and not any(piece.overlap_after for piece in pieces)
    assert all(edge - 1.3 < piece.end_s < edge + 0.3 for edge, piece in zip(edges, pieces, strict=False))


def spoken(text: str) -> bytes:
    sound = bytearray()

    def emit(chunk: bytes) -> bool:
        sound.extend(chunk)
        return True

    espeak.speak(text, voice="en-us", speed=None, emit=emit, gone=lambda: False)
    return bytes(sound)


# --- joining --------------------------------------------------------------------------------------------------------


def join(*pieces: bytes, pcm: Pcm = Pcm(), pause_ms: float = 0.0, step: int = 999) -> tuple[PcmConcatenator, bytes]:  # noqa: B008
    joiner, out = PcmConcatenator(), io.BytesIO()
    for sound in pieces:
        out.write(joiner.begin(pcm, pause_ms=pause_ms))
        for at in range(0, len(sound), step):
            out.write(joiner.feed(sound[at : at + step]))
    out.write(joiner.finish())
    return joiner, out.getvalue()


def test_a_piece_alone_stays_as_it_is() -> None:
    sound = tone(24_000, 0.5)[100:]

    joiner, out = join(sound)

    assert out == sound
    assert joiner.spans == (Span(0.0, len(sound) / 48_000),)


def test_nothing_is_lost_and_nothing_clicks_where_pieces_meet() -> None:
    # Both end and begin far from zero.
    steady = array.array("h", [20_000] * 24_000).tobytes()

    joiner, out = join(steady, steady)

    values = array.array("h", out)
    assert len(values) == 48_000 == joiner.samples
    assert max(abs(a - b) for a, b in itertools.pairwise(values)) <= 20_000 / 119
    assert min(values) == 0 and values[0] == values[-1] == 20_000
    assert sum(1 for value in values if value != 20_000) <= 240


def test_pauses_stand_between_pieces_and_belong_to_none() -> None:
    joiner, out = join(tone(24_000, 0.5), tone(24_000, 0.25), b"", tone(24_000, 0.1), pause_ms=200)

    assert rounded(joiner.spans) == [(0.0, 0.5), (0.7, 0.95), (1.15, 1.15), (1.35, 1.45)]
    assert len(out) == round(1.45 * 48_000)
    assert not any(out[24_000 : 24_000 + 9_600])


@settings(max_examples=80, deadline=None)
@given(
    pieces=st.lists(st.integers(0, 700), min_size=1, max_size=5),
    steps=st.tuples(st.integers(1, 50), st.integers(1, 2_000)),
    channels=st.integers(1, 2),
    half=st.booleans(),
)
def test_any_cut_of_the_samples_joins_the_same(
    pieces: list[int], steps: tuple[int, int], channels: int, half: bool
) -> None:
    pcm = Pcm(24_000, channels)
    sounds = [tone(24_000, count / 24_000, channels) + b"\x01" * half for count in pieces]

    (first, one), (second, other) = (join(*sounds, pcm=pcm, pause_ms=1, step=step) for step in steps)

    assert one == other and len(one) == first.samples * pcm.frame_bytes
    assert first.spans == second.spans
    assert [round((span.end_s - span.start_s) * 24_000) for span in first.spans] == pieces


@pytest.mark.parametrize("other", [Pcm(16_000), Pcm(44_100, 2), Pcm(8_000), Pcm(24_000, 2)])
def test_a_piece_of_another_shape_is_converted(other: Pcm) -> None:
    joiner, out = PcmConcatenator(), bytearray()
    for pcm in (Pcm(), other, Pcm()):
        out += joiner.begin(pcm)
        sound = tone(pcm.sample_rate_hz, 0.5, pcm.channels)
        for at in range(0, len(sound), 1_001):
            out += joiner.feed(sound[at : at + 1_001])
    out += joiner.finish()

    middle = array.array("h", out[24_000:48_000])
    crossings = sum(1 for a, b in itertools.pairwise(middle) if (a < 0) != (b < 0))
    assert joiner.pcm == Pcm()
    assert len(out) == 2 * joiner.samples
    assert joiner.spans[-1].end_s == pytest.approx(1.5, abs=0.001)
    assert crossings == pytest.approx(440, abs=4)
