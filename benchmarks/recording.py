"""Hear a long recording, plan its pieces and cut them all: `python recording.py PATH copied`, where audiocli is.

`encoded` makes every piece anew, `copied` copies packets. `--make` only makes the recording: three hours of mp3 in
which somebody seems to speak for ten seconds and to breathe for one, without an encoder working for three hours.
"""

from __future__ import annotations

import argparse
import io
import math
import sys
import tempfile
from array import array
from pathlib import Path

from audiocli.audio.mpeg import mpeg_frame
from audiocli.audio.split_plan import PieceLimits, plan
from audiocli.codecs.encoder import Encoder
from audiocli.codecs.pcm_spool import PcmSpool
from audiocli.codecs.silence import listen
from audiocli.codecs.splitter import Cutter
from audiocli.types.values import Pcm

HOURS = 3
PIECE_S = 600.0
RATE_HZ = 24_000
SPEAKS_S, BREATHES_S = 10, 1


def make(path: Path) -> None:
    """Write the recording: the frames of eleven seconds, again and again."""
    hum = array("h", (int(9000 * math.sin(at * (0.05 + at % 97 / 900))) for at in range(RATE_HZ * SPEAKS_S)))
    made = io.BytesIO()
    with Encoder("mp3", Pcm(RATE_HZ), made) as encoder:
        encoder.feed(hum.tobytes() + bytes(2 * RATE_HZ * BREATHES_S))
        encoder.finish()
    encoded, frames = made.getvalue(), []
    at = encoded.index(b"\xff\xf3")  # behind the tags
    while (frame := mpeg_frame(encoded[at : at + 4])) is not None:
        frames.append(encoded[at : at + frame.size_bytes])
        at += frame.size_bytes
    # The first one holds numbers and no sound.
    turn = b"".join(frames[1:])
    with path.open("wb") as file:
        for _ in range(HOURS * 3600 // (SPEAKS_S + BREATHES_S)):
            file.write(turn)


def cut(path: Path, *, copies: bool) -> int:
    """Cut all pieces, one after the other, and keep none; give how many there were."""
    # What is copied need not be kept as it is heard.
    listening = listen(path, tape=None if copies else PcmSpool(path.parent))
    for _ in listening:
        pass
    assert listening.complete and len(listening.silences) > HOURS * 300 and listening.packets is not None
    pieces = plan(listening.samples, listening.silences, PieceLimits(PIECE_S), pauses=listening.pauses)
    cutter = Cutter(path, listening.packets if copies else None, listening.tape)
    with tempfile.TemporaryDirectory(prefix="audiocli-pieces-") as folder:
        target = Path(folder) / ("piece.mp3" if copies else "piece.opus")
        for piece in pieces:
            for _ in cutter.cut(piece, target, target.suffix[1:]):
                pass
            assert target.stat().st_size > piece.duration_s * 1000
    cutter.close()
    return len(pieces)


def main() -> int:
    parser = argparse.ArgumentParser(prog="recording.py", description="Hear a long recording, and cut it.")
    parser.add_argument("path", type=Path)
    parser.add_argument("how", nargs="?", choices=("copied", "encoded"))
    parser.add_argument("--make", action="store_true", help="only make the recording")
    asked = parser.parse_args()
    if asked.make:
        make(asked.path)
    else:
        sys.stdout.write(f"{cut(asked.path, copies=asked.how == 'copied')} pieces\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
