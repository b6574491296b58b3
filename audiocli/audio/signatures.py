"""What the first bytes of a file tell about it. Names are those of `audio.formats`."""

from __future__ import annotations

HEAD_BYTES = 64
"""How many bytes are worth collecting before asking; fewer work, but tell less."""

_SPACE = b"\t\n\v\f\r"
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_M4A_BRANDS = {b"M4A ", b"M4B ", b"M4P "}
_IMAGE_BRANDS = {b"avif", b"avis", b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1", b"crx ", b"jp2 "}


def looks_like_text(head: bytes) -> bool:
    """Tell whether a body that begins like this is text (JSON, HTML, plain words), so that it cannot be audio.

    A head of a few bytes is believed as readily as a long one: raw samples that happen to be printable UTF-8 for as
    long as `HEAD_BYTES` do not occur.
    """
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        # UTF-16, if what follows is: samples may begin with -2 as well. Pages and error objects are nearly all ASCII.
        text = head[2 : len(head) // 2 * 2].decode("utf-16-be" if head[0] == 0xFE else "utf-16-le", "replace")
        return sum(" " <= character < "\x7f" or character in "\t\r\n" for character in text) * 2 > len(text)
    try:
        text = head.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data" and error.start >= len(head) - 3:
            text = head[: error.start].decode()
        elif head.lstrip()[:1] in (b"<", b"{", b"["):
            # A page or an error object in some older encoding.
            text = head.decode("latin-1")
        else:
            return False
    return bool(text) and not any(character < " " and character.encode() not in _SPACE for character in text)


def sniff(head: bytes) -> str | None:
    """Name the format of a file that begins like this; None when nothing is certain, and always for text."""
    if head in (b"#!AMR\n", b"#!AMR-WB\n"):
        return "amr"
    if looks_like_text(head):
        return None
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    return _id3(head) or _riff(head) or _ogg(head) or _iso_media(head) or _ebml(head) or _mpeg_audio(head)


_MAGIC = (
    # The block type and length of STREAMINFO follow at once, which keeps prose about fLaC out.
    (b"fLaC\x00\x00\x00\x22", "flac"),
    (b"fLaC\x80\x00\x00\x22", "flac"),
    (b"#!AMR\n", "amr"),
    (b"#!AMR-WB\n", "amr"),
    (b"caff\x00\x01", "caf"),
    (b".snd\x00\x00", "au"),
    (_ASF_HEADER, "wma"),
    (b"\x00\x00\x01\xba", "mpeg"),
    # The first packet of a transport stream is a table: of programs (PID 0) or of services (PID 0x11).
    (b"\x47\x40\x00\x10", "ts"),
    (b"\x47\x40\x00\x30", "ts"),
    (b"\x47\x40\x11\x10", "ts"),
    (b"\x47\x40\x11\x30", "ts"),
)


def _id3(head: bytes) -> str | None:
    """ID3v2 stands before mp3 nearly always; a tag before ADTS or FLAC is read as mp3 here, and libav sorts it out."""
    if len(head) < 10 or head[:3] != b"ID3":
        return None
    plausible = 2 <= head[3] <= 4 and head[4] < 0xFF and not head[5] & 0x0F and all(byte < 0x80 for byte in head[6:10])
    return "mp3" if plausible else None


def _riff(head: bytes) -> str | None:
    if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return "wav"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    return None


def _ogg(head: bytes) -> str | None:
    """Ogg with Opus inside is `opus`; with Vorbis, FLAC, Speex or anything else it is `ogg`."""
    if head[:5] != b"OggS\x00":
        return None
    return "opus" if b"OpusHead" in head[27:HEAD_BYTES] else "ogg"


def _iso_media(head: bytes) -> str | None:
    if head[4:8] == b"ftyp" and head[:2] == b"\x00\x00" and len(head) >= 12:
        brand = head[8:12]
        if brand in _IMAGE_BRANDS:
            return None
        if brand in _M4A_BRANDS:
            return "m4a"
        return "mov" if brand == b"qt  " else "mp4"
    # QuickTime before `ftyp` was invented.
    return "mov" if head[4:8] in (b"moov", b"mdat", b"wide") and head[:1] == b"\x00" else None


def _ebml(head: bytes) -> str | None:
    if head[:4] != b"\x1a\x45\xdf\xa3":
        return None
    return "webm" if b"webm" in head[:HEAD_BYTES] else "mkv"


def _mpeg_audio(head: bytes) -> str | None:
    """Tell an MPEG audio frame from an ADTS frame; both begin with eleven or more set bits."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    layer = head[1] >> 1 & 3
    if layer == 0:
        # ADTS: twelve bits of sync, layer zero, a sample rate that exists.
        return "aac" if head[1] & 0xF0 == 0xF0 and head[2] >> 2 & 15 < 13 else None
    version_exists = head[1] >> 3 & 3 != 1
    bitrate_exists = head[2] >> 4 != 15
    rate_exists = head[2] >> 2 & 3 != 3
    if layer == 3 or not (version_exists and bitrate_exists and rate_exists):
        return None
    return "mp3" if layer == 1 else "mp2"
