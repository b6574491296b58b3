"""Scan a long recording, plan its chunks and encode them all: `python recording.py PATH`.

Run it where audiocli is installed. `--make` only creates the recording: three hours of MP3 with ten seconds of tone and
one second of silence in turn. Eleven seconds are encoded and repeated.
"""

from __future__ import annotations

import argparse
import io
import math
import sys
import tempfile
from array import array
from pathlib import Path

from audiocli.audio.chunk_boundaries import ChunkLimits, plan_chunks
from audiocli.audio.mpeg import parse_mpeg_header
from audiocli.codecs.audio_chunk_writer import AudioChunkWriter
from audiocli.codecs.encoder import Encoder
from audiocli.codecs.pcm_spool import PcmSpool
from audiocli.codecs.silence import scan_silence
from audiocli.types.audio import PcmFormat

HOURS = 3
MAX_CHUNK_S = 600.0
RATE_HZ = 24_000
TONE_S, PAUSE_S = 10, 1


def create_recording(path: Path) -> None:
    """Write the recording: eleven seconds of frames, repeated."""
    hum = array("h", (int(9000 * math.sin(index * (0.05 + index % 97 / 900))) for index in range(RATE_HZ * TONE_S)))
    output = io.BytesIO()
    with Encoder("mp3", PcmFormat(RATE_HZ), output) as encoder:
        encoder.feed(hum.tobytes() + bytes(2 * RATE_HZ * PAUSE_S))
        encoder.finish()
    encoded, frames = output.getvalue(), []
    index = encoded.index(b"\xff\xf3")  # after the tags
    while (frame := parse_mpeg_header(encoded[index : index + 4])) is not None:
        frames.append(encoded[index : index + frame.size_bytes])
        index += frame.size_bytes
    # The first frame is a header without audio.
    cycle = b"".join(frames[1:])
    with path.open("wb") as file:
        for _ in range(HOURS * 3600 // (TONE_S + PAUSE_S)):
            file.write(cycle)


def split_recording(path: Path) -> int:
    """Write all chunks, one after the other, to the same file. Return their number."""
    scan = scan_silence(path, spool=PcmSpool(path.parent))
    for _ in scan:
        pass
    assert scan.is_complete and len(scan.silences) > HOURS * 300
    chunks = plan_chunks(scan.sample_count, scan.silences, ChunkLimits(MAX_CHUNK_S), pauses=scan.pauses)
    splitter = AudioChunkWriter(path, scan.spool)
    with tempfile.TemporaryDirectory(prefix="audiocli-chunks-") as directory:
        output_path = Path(directory) / "chunk.opus"
        for chunk in chunks:
            for _ in splitter.write_chunk(chunk, output_path, output_path.suffix[1:]):
                pass
            assert output_path.stat().st_size > chunk.duration_s * 1000
    splitter.close()
    return len(chunks)


def main() -> int:
    parser = argparse.ArgumentParser(prog="recording.py", description="Scan and split a long recording.")
    parser.add_argument("path", type=Path)
    parser.add_argument("--make", action="store_true", help="Only create the recording.")
    args = parser.parse_args()
    if args.make:
        create_recording(args.path)
    else:
        sys.stdout.write(f"{split_recording(args.path)} chunks\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
