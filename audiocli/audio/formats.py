"""Table of audio formats: names, extensions, MIME types, encoders; and how to obtain a format from a gateway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from ..types.audio import TELEPHONE_PCM, PcmFormat
from ..types.json import EMPTY_MAPPING
from . import signatures
from .signatures import looks_like_text as looks_like_text
from .wav import build_wav_header as build_wav_header
from .wav import parse_wav_duration_s as parse_wav_duration_s


class Format(NamedTuple):
    """One audio format.

    `encoder` and `muxer` are FFmpeg's names, None for read-only formats. The first of `suffixes` is the default
    extension. `upload_suffix` is the extension that gateways accept in the file name of a form part. `media_type` is
    the MIME type that audiocli sends, `other_types` are those it also understands. `pipe_options` make the muxer write
    without seeking and without buffering.
    """

    name: str
    suffixes: tuple[str, ...]
    upload_suffix: str
    media_type: str
    other_types: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    encoder: str | None = None
    muxer: str | None = None
    pipe_options: Mapping[str, str] = EMPTY_MAPPING
    is_lossless: bool = False

    @property
    def is_writable(self) -> bool:
        """Whether audiocli can write this format."""
        return self.muxer is not None


# `flush_packets` writes every packet immediately. FFmpeg buffers 32 KB by default, which is four seconds of speech.
_FLUSH_PACKETS = {"flush_packets": "1"}
# FFmpeg holds an Ogg page for one second by default. Pages of 100 ms cost 0.3 kB/s more and arrive ten times sooner.
_OGG_OPTIONS = {**_FLUSH_PACKETS, "page_duration": "100000"}
# A pipe cannot seek back to write the index, so it gets an empty index first and fragments after it.
_M4A_OPTIONS = {**_FLUSH_PACKETS, "movflags": "empty_moov+default_base_moof", "frag_duration": "200000"}

FORMATS: tuple[Format, ...] = (
    Format(
        "mp3",
        (".mp3", ".mpga"),
        upload_suffix=".mp3",
        media_type="audio/mpeg",
        other_types=("audio/mp3", "audio/mpeg3", "audio/x-mp3", "audio/x-mpeg", "audio/x-mpeg-3", "audio/mpga"),
        aliases=("mpga", "mpeg3"),
        encoder="libmp3lame",
        muxer="mp3",
        pipe_options=_FLUSH_PACKETS,
    ),
    Format(
        "wav",
        (".wav", ".wave"),
        upload_suffix=".wav",
        media_type="audio/wav",
        other_types=("audio/x-wav", "audio/wave", "audio/vnd.wave", "audio/x-pn-wav"),
        aliases=("wave",),
        encoder="pcm_s16le",
        muxer="wav",
        is_lossless=True,
    ),
    Format(
        "flac",
        (".flac",),
        upload_suffix=".flac",
        media_type="audio/flac",
        other_types=("audio/x-flac", "application/flac"),
        encoder="flac",
        muxer="flac",
        pipe_options=_FLUSH_PACKETS,
        is_lossless=True,
    ),
    # Opus is stored in Ogg: an .opus file is an .ogg file. More gateways accept the extension .ogg.
    Format(
        "opus",
        (".opus",),
        upload_suffix=".ogg",
        media_type="audio/ogg",
        other_types=("audio/opus", "audio/x-opus"),
        encoder="libopus",
        muxer="ogg",
        pipe_options=_OGG_OPTIONS,
    ),
    # Opus as well: the FFmpeg build in PyAV's wheel has no Vorbis encoder of acceptable quality.
    Format(
        "ogg",
        (".ogg", ".oga"),
        upload_suffix=".ogg",
        media_type="audio/ogg",
        other_types=("application/ogg", "audio/vorbis", "audio/x-vorbis", "audio/x-ogg", "audio/speex", "video/ogg"),
        aliases=("oga", "vorbis"),
        encoder="libopus",
        muxer="ogg",
        pipe_options=_OGG_OPTIONS,
    ),
    Format(
        "aac",
        (".aac", ".adts"),
        upload_suffix=".aac",
        media_type="audio/aac",
        other_types=("audio/aacp", "audio/x-aac", "audio/adts", "audio/vnd.dlna.adts"),
        aliases=("adts",),
        encoder="aac",
        muxer="adts",
        pipe_options=_FLUSH_PACKETS,
    ),
    Format(
        "m4a",
        (".m4a", ".mp4a"),
        upload_suffix=".m4a",
        media_type="audio/mp4",
        other_types=("audio/m4a", "audio/x-m4a", "audio/mp4a-latm", "audio/x-m4b"),
        aliases=("mp4a",),
        encoder="aac",
        muxer="ipod",
        pipe_options=_M4A_OPTIONS,
    ),
    # An m4a that players of audiobooks recognize. A recording of this kind is detected as m4a.
    Format(
        "m4b",
        (".m4b",),
        upload_suffix=".m4a",
        media_type="audio/mp4",
        encoder="aac",
        muxer="mp4",
        pipe_options=_M4A_OPTIONS,
    ),
    Format(
        "pcm",
        (".pcm", ".raw", ".s16le"),
        upload_suffix=".pcm",
        media_type="audio/pcm",
        other_types=("audio/x-pcm", "audio/raw", "audio/x-raw", "audio/l16", "audio/s16le", "audio/pcm_s16le"),
        aliases=("raw", "s16le", "pcm16", "pcm_s16le", "linear16", "l16"),
        encoder="pcm_s16le",
        muxer="s16le",
        is_lossless=True,
    ),
    # Raw G.711, as telephone systems play it: 8,000 Hz mono, one byte for each sample, without a header.
    Format(
        "ulaw",
        (".ulaw", ".ul", ".mulaw"),
        upload_suffix=".ulaw",
        media_type="audio/basic",
        other_types=("audio/pcmu", "audio/ulaw", "audio/mulaw", "audio/x-ulaw", "audio/x-mulaw", "audio/g711-mulaw"),
        aliases=("mulaw", "ul", "pcmu", "pcm_mulaw", "g711_ulaw", "u-law", "mu-law"),
        encoder="pcm_mulaw",
        muxer="mulaw",
        pipe_options=_FLUSH_PACKETS,
    ),
    Format(
        "alaw",
        (".alaw", ".al"),
        upload_suffix=".alaw",
        media_type="audio/pcma",
        other_types=("audio/alaw", "audio/x-alaw", "audio/x-alaw-basic", "audio/g711-alaw"),
        aliases=("al", "pcma", "pcm_alaw", "g711_alaw", "a-law"),
        encoder="pcm_alaw",
        muxer="alaw",
        pipe_options=_FLUSH_PACKETS,
    ),
    # Formats below are read-only.
    Format("webm", (".webm", ".weba"), ".webm", "audio/webm", ("video/webm",)),
    Format(
        "mp4", (".mp4", ".m4v", ".3gp", ".3g2"), ".mp4", "video/mp4", ("application/mp4", "video/3gpp", "audio/3gpp")
    ),
    Format("mov", (".mov", ".qt"), ".mov", "video/quicktime"),
    Format("mkv", (".mkv", ".mka"), ".mkv", "video/x-matroska", ("audio/x-matroska", "audio/matroska"), ("matroska",)),
    Format("avi", (".avi",), ".avi", "video/x-msvideo", ("video/avi", "video/msvideo")),
    Format("amr", (".amr", ".awb"), ".amr", "audio/amr", ("audio/amr-wb", "audio/amr-nb")),
    Format("aiff", (".aiff", ".aif", ".aifc"), ".aiff", "audio/aiff", ("audio/x-aiff",), ("aif", "aifc")),
    Format("caf", (".caf",), ".caf", "audio/x-caf"),
    Format("wma", (".wma", ".asf", ".wmv"), ".wma", "audio/x-ms-wma", ("video/x-ms-asf", "video/x-ms-wmv"), ("asf",)),
    Format("mp2", (".mp2",), ".mp2", "audio/mpeg", ("audio/mp2", "audio/x-mp2")),
    Format("mpeg", (".mpeg", ".mpg", ".vob"), ".mpeg", "video/mpeg"),
    Format("ts", (".ts", ".m2ts", ".mts"), ".ts", "video/mp2t", (), ("mpegts",)),
    Format("w64", (".w64",), ".w64", "audio/x-w64", (), ("wave64",)),
    Format("au", (".au", ".snd"), ".au", "audio/basic", ("audio/x-au",)),
)

_BY_NAME = {name: row for row in reversed(FORMATS) for name in (row.name, *row.aliases)}
_BY_SUFFIX = {suffix: row for row in FORMATS for suffix in row.suffixes}
# The first row with a MIME type owns it: audio/mpeg is mp3. audio/ogg is opus or ogg, by its `codecs` parameter.
_BY_TYPE = {kind: row for row in reversed(FORMATS) for kind in (row.media_type, *row.other_types)}
_BY_TYPE["audio/ogg"] = _BY_NAME["ogg"]

# Parameters of a Content-Type.
_RATE_NAMES = ("rate", "sample_rate", "samplerate")
_CHANNEL_NAMES = ("channels", "channel")

RAW_FORMATS = frozenset({"pcm", "ulaw", "alaw"})
"""Samples without a header, which cannot be detected."""

G711_FORMATS = frozenset({"ulaw", "alaw"})

# What the encoders support. Others support any sample rate.
_SAMPLE_RATES_HZ = {
    "libmp3lame": (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000),
    "libopus": (8_000, 12_000, 16_000, 24_000, 48_000),
    "aac": (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000),
    "pcm_mulaw": (TELEPHONE_PCM.sample_rate_hz,),
    "pcm_alaw": (TELEPHONE_PCM.sample_rate_hz,),
}

OUTPUT_FORMATS: tuple[str, ...] = tuple(row.name for row in FORMATS if row.is_writable)


def find_format(name: str) -> Format | None:
    """Find a format by name or alias. Case and a leading dot are ignored."""
    return _BY_NAME.get(name.strip().lower().removeprefix("."))


def find_format_for_path(path: str | Path) -> Format | None:
    """Find the format that the extension of a path stands for."""
    return _BY_SUFFIX.get(Path(path).suffix.lower())


def find_sample_rate(format: Format, sample_rate_hz: int) -> int:
    """Return the sample rate with which a format is encoded: this one, else the next higher one, else the highest."""
    rates = _SAMPLE_RATES_HZ.get(format.encoder or "", (sample_rate_hz,))
    return next((rate for rate in rates if rate >= sample_rate_hz), rates[-1])


def parse_content_type(value: str) -> tuple[Format | None, PcmFormat | None]:
    """Parse a Content-Type into a format and, for pcm, its sample rate and channels.

    Unknown and invalid types and `application/octet-stream` are (None, None). Invalid parameters count as absent.
    `audio/L16` is big-endian by RFC 2586, but the gateways that send it pass on Gemini's samples, which are
    little-endian (`audio/L16;codec=pcm;rate=24000`; vercel/ai#15750, model-hotel#884, read 2026-11). It is treated as
    pcm.
    """
    media_type, _, parameter_text = value.partition(";")
    parameters = _parse_parameters(parameter_text)
    format = _BY_TYPE.get(media_type.strip().lower())
    if format is not None and format.name == "ogg" and "opus" in parameters.get("codecs", ""):
        format = _BY_NAME["opus"]
    if format is None or format.name != "pcm":
        return format, None
    return format, PcmFormat(
        _parse_number(parameters, _RATE_NAMES, 1_000, 384_000) or PcmFormat().sample_rate_hz,
        _parse_number(parameters, _CHANNEL_NAMES, 1, 8) or PcmFormat().channels,
    )


# Headers of servers whose Content-Type does not state the format of raw samples (Piper servers, 2026-11).
_SAMPLE_RATE_HEADERS = ("x-sample-rate", "x-audio-sample-rate", "x-samplerate")
_CHANNEL_HEADERS = ("x-channels", "x-audio-channels", "x-num-channels")
FORMAT_HEADERS = ("content-type", *_SAMPLE_RATE_HEADERS, *_CHANNEL_HEADERS)
"""The response headers that state the format of audio."""


def parse_pcm_format(headers: Mapping[str, str]) -> tuple[PcmFormat, bool]:
    """Return the format of raw samples as the response headers state it, and whether they state the sample rate.

    The parameters of the Content-Type take precedence over other headers. Header names are in lower case.
    """
    parameters = _parse_parameters(headers.get("content-type", "").partition(";")[2])
    rate_hz = _parse_number(parameters, _RATE_NAMES, 1_000, 384_000)
    rate_hz = rate_hz or _parse_number(headers, _SAMPLE_RATE_HEADERS, 1_000, 384_000)
    channels = _parse_number(parameters, _CHANNEL_NAMES, 1, 8) or _parse_number(headers, _CHANNEL_HEADERS, 1, 8)
    default = PcmFormat()
    return PcmFormat(rate_hz or default.sample_rate_hz, channels or default.channels), rate_hz is not None


def _parse_parameters(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(";"))
    return {key.strip().lower(): value.strip().strip('"').lower() for key, _, value in pairs}


def _parse_number(parameters: Mapping[str, str], names: Sequence[str], minimum: int, maximum: int) -> int | None:
    for name in names:
        text = parameters.get(name, "").strip()
        if len(text) <= 6 and text.isascii() and text.isdigit() and minimum <= int(text) <= maximum:
            return int(text)
    return None


def sniff_format(head: bytes) -> Format | None:
    """Detect the format of a body from its first `signatures.SNIFF_BYTES`.

    Return None if the bytes match no format, and for any text. PCM samples have no signature, so they are None too.
    """
    name = signatures.sniff_name(head)
    return None if name is None else _BY_NAME[name]


def is_compatible(requested: str, actual: str) -> bool:
    """Return whether audio detected as `actual` satisfies a request for `requested`.

    Opus is always in Ogg here. An audio-only mp4 is an m4a or m4b, whatever its brand.
    """
    return requested == actual or (requested, actual) in _COMPATIBLE_FORMATS


_COMPATIBLE_FORMATS = frozenset({("ogg", "opus"), ("m4a", "mp4"), ("m4b", "m4a"), ("m4b", "mp4")})


class FormatStep(Enum):
    """What to do with the bytes of a gateway to obtain the requested format."""

    PASS_THROUGH = "pass"
    ADD_HEADER = "header"
    ENCODE = "encode"


class FormatPlan(NamedTuple):
    """Request `request_format` from the gateway, then apply `step`."""

    request_format: str
    step: FormatStep


def plan_format(
    requested: str,
    offered: Sequence[str],
    *,
    needs_samples: bool = False,
    is_pcm_known: bool = True,
    samples: str | None = None,
) -> FormatPlan:
    """Choose the format to request from a gateway, given the formats it offers, best first.

    Prefer the requested format (opus for ogg), then pcm (wav needs only a header), then wav, then another lossless
    format, then the first one. If the gateway lists no formats, request the requested one.

    Args:
        requested: Format of the output.
        offered: Formats of the gateway.
        needs_samples: The samples are processed, so their sample rate must be known. Otherwise a request for pcm is
            passed on as it is.
        is_pcm_known: Whether the sample rate of the gateway's pcm is known. If not, formats that state it are used.
        samples: Configured format to request where samples are needed, or where the output needs another format.
    """
    is_offered = requested in offered or (requested == "ogg" and "opus" in offered)
    if samples is not None and samples in offered and (needs_samples or not is_offered):
        step = FormatStep.ADD_HEADER if (samples, requested) == ("pcm", "wav") else FormatStep.ENCODE
        return FormatPlan(samples, FormatStep.PASS_THROUGH if samples == requested else step)
    if not is_pcm_known and (requested != "pcm" or needs_samples):
        offered = [name for name in offered if name != "pcm"] or offered
    if requested in offered or not offered:
        return FormatPlan(requested, FormatStep.PASS_THROUGH)
    if requested == "ogg" and "opus" in offered:
        return FormatPlan("opus", FormatStep.PASS_THROUGH)
    if "pcm" in offered:
        return FormatPlan("pcm", FormatStep.ADD_HEADER if requested == "wav" else FormatStep.ENCODE)
    if "wav" in offered:
        return FormatPlan("wav", FormatStep.ENCODE)
    lossless = (name for name in offered if (row := find_format(name)) is not None and row.is_lossless)
    return FormatPlan(next(lossless, offered[0]), FormatStep.ENCODE)
