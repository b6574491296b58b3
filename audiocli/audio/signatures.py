"""Detect file formats from their first bytes. Format names are those of `audio.formats`."""

from __future__ import annotations

SNIFF_BYTES = 64
"""Bytes to collect before calling `sniff_name`. Fewer work, but identify fewer formats."""

_WHITESPACE = b"\t\n\v\f\r"
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_M4A_BRANDS = {b"M4A ", b"M4B ", b"M4P "}
_IMAGE_BRANDS = {b"avif", b"avis", b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1", b"crx ", b"jp2 "}


def looks_like_text(head: bytes) -> bool:
    """Return whether a body that begins with these bytes is text (JSON, HTML, prose) and so cannot be audio.

    A head of a few bytes is trusted like a long one: raw samples that are printable UTF-8 for `SNIFF_BYTES` bytes do
    not occur.
    """
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        # UTF-16, if the rest decodes as mostly ASCII: PCM samples may begin with -2 as well. Web pages and error
        # objects are nearly all ASCII.
        text = head[2 : len(head) // 2 * 2].decode("utf-16-be" if head[0] == 0xFE else "utf-16-le", "replace")
        return sum(" " <= character < "\x7f" or character in "\t\r\n" for character in text) * 2 > len(text)
    try:
        text = head.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data" and error.start >= len(head) - 3:
            text = head[: error.start].decode()
        elif head.lstrip()[:1] in (b"<", b"{", b"["):
            # A web page or an error object in a legacy encoding.
            text = head.decode("latin-1")
        else:
            return False
    return bool(text) and not any(character < " " and character.encode() not in _WHITESPACE for character in text)


def sniff_name(head: bytes) -> str | None:
    """Return the format name of a file that begins with these bytes. None for unknown formats and for text."""
    if head in (b"#!AMR\n", b"#!AMR-WB\n"):
        return "amr"
    if looks_like_text(head):
        return None
    for magic, name in _MAGIC_NUMBERS:
        if head.startswith(magic):
            return name
    return (
        _sniff_id3(head)
        or _sniff_riff(head)
        or _sniff_ogg(head)
        or _sniff_iso_media(head)
        or _sniff_ebml(head)
        or _sniff_mpeg_audio(head)
    )


_MAGIC_NUMBERS = (
    # Type and length of the STREAMINFO block follow. Requiring them rules out text about fLaC.
    (b"fLaC\x00\x00\x00\x22", "flac"),
    (b"fLaC\x80\x00\x00\x22", "flac"),
    (b"#!AMR\n", "amr"),
    (b"#!AMR-WB\n", "amr"),
    (b"caff\x00\x01", "caf"),
    (b".snd\x00\x00", "au"),
    (_ASF_HEADER, "wma"),
    (b"\x00\x00\x01\xba", "mpeg"),
    # The first packet of a transport stream is a table of programs (PID 0) or of services (PID 0x11).
    (b"\x47\x40\x00\x10", "ts"),
    (b"\x47\x40\x00\x30", "ts"),
    (b"\x47\x40\x11\x10", "ts"),
    (b"\x47\x40\x11\x30", "ts"),
)


def _sniff_id3(head: bytes) -> str | None:
    """Detect an ID3v2 tag, which nearly always precedes MP3.

    A tag before ADTS or FLAC is reported as mp3, too; FFmpeg detects the real format.
    """
    if len(head) < 10 or head[:3] != b"ID3":
        return None
    is_plausible = (
        2 <= head[3] <= 4 and head[4] < 0xFF and not head[5] & 0x0F and all(byte < 0x80 for byte in head[6:10])
    )
    return "mp3" if is_plausible else None


def _sniff_riff(head: bytes) -> str | None:
    if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return "wav"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    return None


def _sniff_ogg(head: bytes) -> str | None:
    """Detect Ogg: `opus` if it contains Opus; `ogg` for Vorbis, FLAC, Speex and others."""
    if head[:5] != b"OggS\x00":
        return None
    return "opus" if b"OpusHead" in head[27:SNIFF_BYTES] else "ogg"


def _sniff_iso_media(head: bytes) -> str | None:
    if head[4:8] == b"ftyp" and head[:2] == b"\x00\x00" and len(head) >= 12:
        brand = head[8:12]
        if brand in _IMAGE_BRANDS:
            return None
        if brand in _M4A_BRANDS:
            return "m4a"
        return "mov" if brand == b"qt  " else "mp4"
    # QuickTime files older than `ftyp`.
    return "mov" if head[4:8] in (b"moov", b"mdat", b"wide") and head[:1] == b"\x00" else None


def _sniff_ebml(head: bytes) -> str | None:
    if head[:4] != b"\x1a\x45\xdf\xa3":
        return None
    return "webm" if b"webm" in head[:SNIFF_BYTES] else "mkv"


def _sniff_mpeg_audio(head: bytes) -> str | None:
    """Distinguish MPEG audio frames from ADTS frames. Both begin with eleven or more set bits."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    layer = head[1] >> 1 & 3
    if layer == 0:
        # ADTS: twelve sync bits, layer zero, a valid sample rate.
        return "aac" if head[1] & 0xF0 == 0xF0 and head[2] >> 2 & 15 < 13 else None
    has_valid_version = head[1] >> 3 & 3 != 1
    has_valid_bitrate = head[2] >> 4 != 15
    has_valid_rate = head[2] >> 2 & 3 != 3
    if layer == 3 or not (has_valid_version and has_valid_bitrate and has_valid_rate):
        return None
    return "mp3" if layer == 1 else "mp2"
