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
    # The GUID of Wave64: RIFF, but longer.
    (bytes.fromhex("726966662e91cf11a5d628db04c10000"), "w64"),
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


_FOREIGN_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff\xe0", "a JPEG image"),
    (b"\xff\xd8\xff\xe1", "a JPEG image"),
    (b"\xff\xd8\xff\xdb", "a JPEG image"),
    (b"GIF87a", "a GIF image"),
    (b"GIF89a", "a GIF image"),
    (b"%PDF-", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"PK\x05\x06", "a ZIP archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"BZh91AY&SY", "bzip2 data"),
    (b"\xfd7zXZ\x00", "xz data"),
    (b"\x28\xb5\x2f\xfd", "zstd data"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"\x7fELF", "a program"),
    (b"\x00asm\x01\x00\x00\x00", "a program"),
)
_GZIP_SYSTEMS = (*range(14), 255)


def describe_foreign_data(head: bytes) -> str | None:
    """Return what a body is that begins with the signature of a format other than audio, or None.

    Raw samples have no signature, so this distinguishes them from images and archives. A signature of four bytes
    coincides with samples once in 4 * 10^9 streams.
    """
    for magic, description in _FOREIGN_SIGNATURES:
        if head.startswith(magic):
            return description
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP image"
    if head[4:8] == b"ftyp" and head[8:12] in _IMAGE_BRANDS:
        return "an image"
    # RFC 1952: method, flags without reserved bits, the level and the system of the writer.
    is_gzip = (
        len(head) >= 10
        and head[:3] == b"\x1f\x8b\x08"
        and head[3] < 0x20
        and head[8] in (0, 2, 4)
        and head[9] in _GZIP_SYSTEMS
    )
    return "gzip data" if is_gzip else None
