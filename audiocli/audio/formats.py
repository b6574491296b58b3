"""The formats of sound in one table: what they are called, where they occur, what writes them, how to get one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from ..types.values import NONE, Pcm
from . import signatures
from .signatures import looks_like_text as looks_like_text
from .wav import wav_duration as wav_duration
from .wav import wav_header as wav_header


class Format(NamedTuple):
    """One format. `encoder` and `muxer` are libav's names, None for formats that are only read.

    `suffixes` begins with the usual one; `upload_suffix` is the one that gateways know in the name of a file part.
    `media_type` is what we say, `other_types` is what else we understand. `pipe_options` make the muxer write without
    seeking and without waiting.
    """

    name: str
    suffixes: tuple[str, ...]
    upload_suffix: str
    media_type: str
    other_types: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    encoder: str | None = None
    muxer: str | None = None
    pipe_options: Mapping[str, str] = NONE
    lossless: bool = False

    @property
    def writable(self) -> bool:
        """Whether audiocli can make it."""
        return self.muxer is not None


# `flush_packets` hands every packet on at once; libav would collect 32 KB, which is four seconds of speech.
_AT_ONCE = {"flush_packets": "1"}
# An Ogg page is kept back for a second by default. Pages of 100 ms cost 0.3 kB/s more and sound ten times sooner.
_OGG = {**_AT_ONCE, "page_duration": "100000"}
# An index at the end cannot be sent before the end, so a pipe gets an empty one first and fragments after it.
_M4A = {**_AT_ONCE, "movflags": "empty_moov+default_base_moof", "frag_duration": "200000"}

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
        pipe_options=_AT_ONCE,
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
        lossless=True,
    ),
    Format(
        "flac",
        (".flac",),
        upload_suffix=".flac",
        media_type="audio/flac",
        other_types=("audio/x-flac", "application/flac"),
        encoder="flac",
        muxer="flac",
        pipe_options=_AT_ONCE,
        lossless=True,
    ),
    # Opus lives in Ogg: an .opus file is an .ogg file, and the second name is the one that more gateways take.
    Format(
        "opus",
        (".opus",),
        upload_suffix=".ogg",
        media_type="audio/ogg",
        other_types=("audio/opus", "audio/x-opus"),
        encoder="libopus",
        muxer="ogg",
        pipe_options=_OGG,
    ),
    # Opus here too: the libraries in PyAV's wheel have no Vorbis encoder worth using.
    Format(
        "ogg",
        (".ogg", ".oga"),
        upload_suffix=".ogg",
        media_type="audio/ogg",
        other_types=("application/ogg", "audio/vorbis", "audio/x-vorbis", "audio/x-ogg", "audio/speex", "video/ogg"),
        aliases=("oga", "vorbis"),
        encoder="libopus",
        muxer="ogg",
        pipe_options=_OGG,
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
        pipe_options=_AT_ONCE,
    ),
    Format(
        "m4a",
        (".m4a", ".m4b", ".mp4a"),
        upload_suffix=".m4a",
        media_type="audio/mp4",
        other_types=("audio/m4a", "audio/x-m4a", "audio/mp4a-latm", "audio/x-m4b"),
        aliases=("m4b", "mp4a"),
        encoder="aac",
        muxer="ipod",
        pipe_options=_M4A,
    ),
    Format(
        "pcm",
        (".pcm", ".raw", ".s16le"),
        upload_suffix=".pcm",
        media_type="audio/pcm",
        other_types=("audio/x-pcm", "audio/raw", "audio/x-raw", "audio/l16", "audio/s16le"),
        aliases=("raw", "s16le", "pcm16", "pcm_s16le", "linear16", "l16"),
        encoder="pcm_s16le",
        muxer="s16le",
        lossless=True,
    ),
    # From here on: only read.
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
    Format("au", (".au", ".snd"), ".au", "audio/basic", ("audio/x-au",)),
)

_BY_NAME = {name: row for row in reversed(FORMATS) for name in (row.name, *row.aliases)}
_BY_SUFFIX = {suffix: row for row in FORMATS for suffix in row.suffixes}
# The first row that says a type owns it: audio/mpeg is mp3, audio/ogg is opus or ogg by its `codecs` parameter.
_BY_TYPE = {kind: row for row in reversed(FORMATS) for kind in (row.media_type, *row.other_types)}
_BY_TYPE["audio/ogg"] = _BY_NAME["ogg"]

OUTPUT_FORMATS: tuple[str, ...] = tuple(row.name for row in FORMATS if row.writable)


def named(name: str) -> Format | None:
    """Find a format by its name or a usual other name, in any case; a leading dot is ignored."""
    return _BY_NAME.get(name.strip().lower().removeprefix("."))


def of_path(path: str | Path) -> Format | None:
    """Find the format that the ending of a file name promises."""
    return _BY_SUFFIX.get(Path(path).suffix.lower())


def of_content_type(value: str) -> tuple[Format | None, Pcm | None]:
    """Read a Content-Type: its format, and for pcm the shape of the samples. Never raises.

    Unknown types, and `application/octet-stream`, are (None, None). Parameters that make no sense count as absent.
    `audio/L16` is big-endian by RFC 2586, yet the gateways that say it pass on Gemini's samples, which are
    little-endian (`audio/L16;codec=pcm;rate=24000`; vercel/ai#15750, model-hotel#884, read 2026-11): pcm, then.
    """
    kind, _, rest = value.partition(";")
    pairs = (part.partition("=") for part in rest.split(";"))
    parameters = {key.strip().lower(): text.strip().strip('"').lower() for key, _, text in pairs}
    found = _BY_TYPE.get(kind.strip().lower())
    if found is not None and found.name == "ogg" and "opus" in parameters.get("codecs", ""):
        found = _BY_NAME["opus"]
    if found is None or found.name != "pcm":
        return found, None
    return found, Pcm(
        _number(parameters, ("rate", "sample_rate", "samplerate"), 1_000, 384_000) or Pcm().sample_rate_hz,
        _number(parameters, ("channels", "channel"), 1, 8) or Pcm().channels,
    )


def _number(parameters: Mapping[str, str], names: Sequence[str], least: int, most: int) -> int | None:
    for name in names:
        text = parameters.get(name, "")
        if len(text) <= 6 and text.isascii() and text.isdigit() and least <= int(text) <= most:
            return int(text)
    return None


def sniff(head: bytes) -> Format | None:
    """Find the format of a body from its first `magic.HEAD_BYTES`; None when they tell nothing, and for any text.

    Raw samples have no mark: a pcm body is None here, like any other stream of bytes.
    """
    name = signatures.sniff(head)
    return None if name is None else _BY_NAME[name]


def fits(asked: str, found: str) -> bool:
    """Tell whether audio that was sniffed as `found` is what somebody who asked for `asked` wants.

    Opus is always in Ogg here, and an audio-only mp4 is an m4a whatever brand it wears.
    """
    return asked == found or (asked, found) in {("ogg", "opus"), ("m4a", "mp4")}


class Step(Enum):
    """What is to be done to the bytes of a gateway before they are what the user asked for."""

    PASS = "pass"
    HEADER = "header"
    ENCODE = "encode"


class Plan(NamedTuple):
    """Ask the gateway for `wire`, then do `step`."""

    wire: str
    step: Step


def plan(asked: str, makes: Sequence[str]) -> Plan:
    """Choose the format to ask a gateway for, given those it makes, best first.

    As it is if the gateway makes it; else samples (only a header is missing to a WAV), else what loses nothing, else
    the gateway's best. A gateway that names nothing is asked for the format itself.
    """
    if asked in makes or not makes:
        return Plan(asked, Step.PASS)
    if asked == "ogg" and "opus" in makes:
        return Plan("opus", Step.PASS)
    if "pcm" in makes:
        return Plan("pcm", Step.HEADER if asked == "wav" else Step.ENCODE)
    if "wav" in makes:
        return Plan("wav", Step.ENCODE)
    lossless = (name for name in makes if (row := named(name)) is not None and row.lossless)
    return Plan(next(lossless, makes[0]), Step.ENCODE)
