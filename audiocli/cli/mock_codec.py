"""The codec of `audiocli mock`: every format of the gateways, with the encoders of audiocli."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ..mock import AudioCodec, UndecodableAudio
from ..types.audio import PcmFormat

if TYPE_CHECKING:
    from ..types.audio import Recording

_BLOCK_BYTES = 1 << 20


class EncodingCodec(AudioCodec):
    """Encodes every format, with equal bytes for equal samples, and decodes uploads of every readable format."""

    formats = AudioCodec.formats | {"mp3", "opus", "ogg", "aac", "flac", "mulaw"}

    def encode_samples(self, pcm: bytes, format_: str, rate_hz: int) -> bytes:
        from ..codecs.encoder import Encoder

        output = io.BytesIO()
        with Encoder(format_, PcmFormat(rate_hz), output, bit_exact=True) as encoder:
            for start in range(0, len(pcm), encoder.max_feed_bytes):
                encoder.feed(pcm[start : start + encoder.max_feed_bytes])
            encoder.finish()
        return output.getvalue()

    def measure_duration_s(self, file: IO[bytes], format_: str | None) -> float:
        from ..errors import RecordingError

        try:
            return copy_and_probe(file, format_ or "bin").duration_s
        except RecordingError as error:
            raise UndecodableAudio(error.message) from error


def copy_upload(file: IO[bytes], path: Path) -> None:
    """Copy an upload to a path, which the codecs need."""
    with path.open("xb") as target:
        while block := file.read(_BLOCK_BYTES):
            target.write(block)


def copy_and_probe(file: IO[bytes], extension: str) -> Recording:
    """Return the properties of an upload. Raises: RecordingError: It is not a recording."""
    from ..codecs.probe import probe

    with tempfile.TemporaryDirectory(prefix="audiocli-mock-") as directory:
        path = Path(directory) / f"upload.{extension}"
        copy_upload(file, path)
        return probe(path)
