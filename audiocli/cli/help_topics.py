"""The topics of `audiocli help TOPIC`. Tables of gateways, formats and exit codes come from the code that uses them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

WIDTH = 80

MODELS = """\
Models are written as [GATEWAY:]MODEL, such as groq:whisper-large-v3-turbo. The
part before the first colon is a gateway only if a gateway of that name exists.

  -m REF        use this model; repeat it to add fallback models
  -g NAME       use the default model of a gateway
  neither       the first gateway that has a key; without a key, local

The next model is tried if one fails for a reason that is specific to it: it is
gone, busy, unreachable, without credit or without a key. It is not tried if the
text was refused, or once output has been written to a pipe.

  audiocli models                 list all models with their prices
  audiocli models --kind speech   only speech models
  audiocli models REF             details: formats, voices, limits, prices
  audiocli voices -m REF          voices of one model

Set your own defaults in the config file:

  [speak]
  models = ["openrouter:x-ai/grok-voice-tts-1.0", "local:espeak"]
"""

MONEY = """\
Every request that may cost something is entered in the ledger before it is
sent. A request that may already have been billed is not sent again, unless
--retry-unknown allows it.

  -n, --dry-run        print the plan and its price, and send nothing
  --max-cost USD       limit of this run; a request that may exceed it is
                       refused
  --allow-unpriced     with a limit, allow models whose price is unknown
  -y, --yes            skip the confirmation of [budget] confirm
  --tag NAME           label the entries, for usage --by tag

  audiocli budget set --day 5 --month 50   limits for every run
  audiocli usage --since month --by model  what was spent
  audiocli usage reconcile                 fetch costs that are not known yet

Costs are written as:

  $0.0014        reported by the gateway, or computed from its prices
  about $0.0014  estimated
  unknown        neither reported nor estimated
"""

RECIPES = """\
Speak the output of a program:

  git log -1 --format=%B | audiocli speak --play

A text file to an audio file, for at most two dollars:

  audiocli speak -F book.txt -o book.m4a --max-cost 2

Captions next to a video:

  audiocli transcribe talk.mp4 -f srt

Every recording below a directory; a rerun sends only new ones:

  audiocli transcribe lectures -R -O texts -f txt,srt

An audiobook whose speech is checked by listening, and redone where it is wrong:

  audiocli speak -F book.epub -o book.m4b --verify

Check a recording against its text:

  audiocli speak -F chapter.txt --verify-audio chapter.mp3

A fallback model, if the first one fails:

  audiocli speak hi -m openai:gpt-4o-mini-tts -m local:espeak -o hi.mp3

Ask by voice and hear the reply:

  rec -q -t wav - trim 0 10 | audiocli chat -a - --play

Without a key and without a network:

  audiocli speak -g local "hello world" -o hello.wav
  audiocli transcribe -g local hello.wav
"""

ENVIRONMENT = (
    ("AUDIOCLI_CONFIG", "config file to use instead of the default one"),
    ("AUDIOCLI_LEDGER", "ledger file to use instead of the default one"),
    ("AUDIOCLI_MOCK_KEY", "default of --key of audiocli mock"),
    ("AUDIOCLI_MODEL_DIR", "directory with models of the local engines"),
    ("AUDIOCLI_TAG", "default of --tag"),
    ("NAME_API_KEY", "key of a gateway, such as OPENROUTER_API_KEY"),
    ("NAME_BASE_URL", "base URL of a gateway, such as OPENAI_BASE_URL"),
    ("HTTPS_PROXY, HTTP_PROXY, ALL_PROXY", "proxy for requests"),
    ("NO_PROXY", "hosts that are reached without the proxy"),
    ("SSL_CERT_FILE, SSL_CERT_DIR", "certificate authorities"),
    ("NO_COLOR, FORCE_COLOR, TERM", "whether messages, tables and help are colored, without --color"),
    ("COLUMNS", "width of help, tables and messages on a terminal"),
    ("XDG_CONFIG_HOME, XDG_DATA_HOME, XDG_CACHE_HOME", "base directories"),
    ("TMPDIR", "directory for temporary files"),
)


def format_rows(rows: Sequence[tuple[str, str]], name_width: int) -> str:
    """Format rows of a name and a text in two columns, indented by two, at most `WIDTH` wide.

    A name that is wider than the first column has a line of its own.
    """
    lines = []
    indent = " " * (name_width + 4)
    for name, text in rows:
        first, *rest = textwrap.wrap(text, WIDTH - len(indent)) or [""]
        if len(name) <= name_width:
            lines.append(f"  {name:<{name_width}}  {first}".rstrip())
        else:
            lines += [f"  {name}", f"{indent}{first}"]
        lines += [f"{indent}{line}" for line in rest]
    return "".join(f"{line}\n" for line in lines)


def _render_gateways() -> str:
    from ..gateways import BUILT_IN

    lines = [f"  {'gateway':<12}{'key':<22}{'speech':<8}{'transcription':<15}chat\n"]
    for gateway in BUILT_IN:
        has_speech, has_transcription, has_chat = (
            "yes" if models else "-" for models in (gateway.speech, gateway.transcription, gateway.chat)
        )
        key = "none" if gateway.name == "local" else f"{gateway.name.upper()}_API_KEY"
        lines.append(f"  {gateway.name:<12}{key:<22}{has_speech:<8}{has_transcription:<15}{has_chat}\n")
    return (
        "Without -m and -g, the first of these gateways that has a key is used; without\nany key, local.\n\n"
        + "".join(lines)
        + "\nStore a key:\n\n  audiocli keys set openrouter\n\n"
        "Add an OpenAI-compatible server to the config file:\n\n"
        '  [gateways.home]\n  dialect = "openai"\n  base_url = "http://127.0.0.1:8000/v1"\n\n'
        "Check keys and servers:\n\n  audiocli config check\n"
    )


def _render_formats() -> str:
    from ..audio.formats import FORMATS, OUTPUT_FORMATS
    from ..text.format_names import TRANSCRIPT_FORMATS

    inputs = [row.name for row in FORMATS]
    rows = (
        ("speak, chat", " ".join(OUTPUT_FORMATS)),
        ("transcribe", " ".join(TRANSCRIPT_FORMATS)),
        ("input", f"{' '.join(inputs)}, and every other format that FFmpeg reads, also video"),
    )
    return (
        format_rows(rows, 12) + "\nThe format is the one of -f, else the one of the extension of -o, else the\n"
        "configured format, else mp3 for speech and txt for transcripts. A format that\n"
        "the gateway does not offer is encoded locally while the audio arrives.\n\n"
        "pcm is signed 16-bit little-endian. verbose_json is the unchanged response of\n"
        "the gateway. Name the format of stdin with --stdin-format if it cannot be\ndetected.\n"
    )


def _render_exit_codes() -> str:
    from .help_pages import EXIT_CODES

    return format_rows([(str(code), text) for code, (_, text) in EXIT_CODES.items()], 3)


# Each topic with its title and the function that renders it.
TOPICS: dict[str, tuple[str, Callable[[], str]]] = {
    "gateways": ("Gateways and their keys", _render_gateways),
    "models": ("How models are chosen", lambda: MODELS),
    "formats": ("Audio and transcript formats", _render_formats),
    "money": ("Prices, limits and spending", lambda: MONEY),
    "environment": ("Environment variables", lambda: format_rows(ENVIRONMENT, 20)),
    "exit-codes": ("Exit codes", _render_exit_codes),
    "recipes": ("Recipes", lambda: RECIPES),
}
