"""Write a transcript as one HTML page with a player: click a word to play from there.

The page has its style and its script inside and loads nothing but the recording. Its content security policy allows
exactly these two by their hashes, so that no text of a transcript, speaker or file name can run as a script.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from html import escape
from importlib.resources import files

from ..types.transcripts import Transcript
from .clock import format_position
from .cues import TimedText
from .guard import Suspicion, describe_suspicion, find_overlapping
from .line_breaking import collapse_whitespace
from .paragraphs import Paragraph, build_paragraphs
from .transcript_style import TranscriptPage

# Words with less confidence are marked.
MIN_CONFIDENCE = 0.5
_SPEAKER_COLORS = 8
_SUSPICION_LABELS = {
    "loop": "The text repeats itself: it may be made up.",
    "silence": "The recording is silent here: the text may be made up.",
    "phrase": "Models add such phrases where there is no speech.",
}
_SHORTCUTS = (
    (("Space", "k"), "Play or pause"),
    (("←", "→"), "Back or forward 5 seconds"),
    (("↑", "↓"), "Previous or next paragraph"),
    (("/",), "Search; Enter shows the next match, Esc ends"),
    (("n", "p"), "Next or previous match"),
    (("c",), "Copy with times: the selection, or everything"),
    (("?",), "Show these keys"),
)


def write_html(transcript: Transcript, page: TranscriptPage) -> str:
    """Write the page. Without `page.media`, the reader is asked for the file of the recording."""
    style, script = _read_asset("html_transcript.css"), _read_asset("html_transcript.js")
    paragraphs = build_paragraphs(transcript)
    speakers = list(dict.fromkeys(paragraph.speaker for paragraph in paragraphs if paragraph.speaker))
    title = _escape(collapse_whitespace(page.title) or "Transcript")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            "media-src 'self' file: data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    language = f' lang="{_escape(transcript.language)}"' if transcript.language else ""
    return "".join(
        (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n',
            f"<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>\n",
            '<a class="skip" href="#transcript">Skip to the transcript</a>\n',
            f'<header>\n<div class="inner">\n<h1 dir="auto">{title}</h1>\n',
            _write_player(page),
            _write_bar(),
            '</div>\n</header>\n<main id="transcript" tabindex="-1" aria-label="Transcript">\n<div class="inner">\n',
            _write_notes(page),
            _write_legend(paragraphs, speakers),
            f'<div{language} dir="auto">\n',
            *(_write_paragraph(paragraph, speakers, page.suspicions) for paragraph in paragraphs),
            "" if paragraphs else "<p>The transcript is empty.</p>\n",
            "</div>\n</div>\n</main>\n",
            _write_help(),
            f"<script>{script}</script>\n</body>\n</html>\n",
        )
    )


@cache
def _read_asset(name: str) -> str:
    """Return a file of this package. Its line ends are those that the hash is computed with."""
    return "\n" + files(__package__).joinpath(name).read_text("utf-8").replace("\r\n", "\n")


def _hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"


def _escape(text: str) -> str:
    """Escape a text for content and quoted attributes. What HTML does not allow, such as NUL, is left out."""
    return escape("".join(char for char in text if char in "\t\n" or (char >= " " and not "\x7f" <= char <= "\x9f")))


def _write_player(page: TranscriptPage) -> str:
    media = page.media
    name = "video" if media is not None and media.is_video else "audio"
    source = " data-missing hidden" if media is None else f' src="{_escape(media.url)}"'
    return (
        f'<{name} id="player" controls preload="metadata" aria-label="Recording"{source}></{name}>\n'
        f'<div id="choose" class="bar" hidden><label for="file">File of the recording:</label> '
        '<input id="file" type="file" accept="audio/*,video/*"></div>\n'
    )


def _write_bar() -> str:
    speeds = "".join(
        f'<option value="{speed}"{" selected" if speed == "1" else ""}>{speed}×</option>'
        for speed in ("0.5", "0.75", "1", "1.25", "1.5", "2")
    )
    return (
        '<div class="bar">\n<form id="search" role="search">'
        '<input id="query" type="search" aria-label="Search the transcript" placeholder="Search" autocomplete="off">'
        '<span id="hits" role="status" aria-label="Matches"></span>'
        '<button type="button" id="previous" aria-label="Previous match">↑</button>'
        '<button type="submit" aria-label="Next match">↓</button></form>\n'
        f'<select id="speed" aria-label="Speed">{speeds}</select>\n'
        '<label><input id="follow" type="checkbox" checked> Follow</label>\n'
        '<button type="button" id="copy">Copy with times</button>\n'
        '<button type="button" id="keys" aria-label="Keyboard shortcuts" aria-haspopup="dialog">?</button>\n'
        '</div>\n<p id="status" role="status"></p>\n'
    )


def _write_notes(page: TranscriptPage) -> str:
    items = [f"<li>{_escape(note)}</li>\n" for note in page.notes]
    for suspicion in page.suspicions:
        text = _escape(describe_suspicion(suspicion._replace(start_s=None, end_s=None)))
        items.append(f"<li>{_write_time(suspicion.start_s, is_inline=True)}<span dir='auto'>{text}</span></li>\n")
    if not items:
        return ""
    heading = '<h2 id="notes">Check</h2>\n'
    return f'<section class="notes" aria-labelledby="notes">{heading}<ul>\n{"".join(items)}</ul></section>\n'


def _write_legend(paragraphs: Sequence[Paragraph], speakers: Sequence[str]) -> str:
    parts = []
    if len(speakers) > 1:
        items = "".join(
            f'<li class="s{index % _SPEAKER_COLORS}" dir="auto">{_escape(speaker)}</li>'
            for index, speaker in enumerate(speakers)
        )
        parts.append(f'<ul class="speakers" aria-label="Speakers">{items}</ul>\n')
    if any(_is_uncertain(word) for paragraph in paragraphs for word in paragraph.words):
        parts.append('<p class="legend"><span class="low">Underlined words</span> are uncertain.</p>\n')
    return "".join(parts)


def _write_paragraph(paragraph: Paragraph, speakers: Sequence[str], suspicions: Sequence[Suspicion]) -> str:
    found = find_overlapping(suspicions, paragraph.start_s, paragraph.end_s)
    speaker = ""
    if paragraph.speaker:
        color = speakers.index(paragraph.speaker) % _SPEAKER_COLORS
        speaker = f'<span class="speaker s{color}" dir="auto">{_escape(paragraph.speaker)}:</span>\n'
    labels = dict.fromkeys(_SUSPICION_LABELS[suspicion.kind] for suspicion in found)
    marks = "".join(f'<div class="suspicion" role="note">\u26a0 {label}</div>\n' for label in labels)
    return (
        f'<div class="paragraph{"" if paragraph.start_s is not None else " plain"}">\n'
        f"{_write_time(paragraph.start_s)}{speaker}{marks}"
        f'<p data-text dir="auto">{"".join(_write_words(paragraph.words))}</p>\n</div>\n'
    )


def _write_time(start_s: float | None, *, is_inline: bool = False) -> str:
    if start_s is None:
        return ""
    position = format_position(start_s)
    separator = " " if is_inline else "\n"
    return (
        f'<button type="button" class="time" data-t="{start_s:.3f}" aria-label="Play from {position}">'
        f"{position}</button>{separator}"
    )


def _write_words(words: Sequence[TimedText]) -> Iterator[str]:
    for index, word in enumerate(words):
        has_space = word.has_space_before and index > 0
        classes = " ".join(
            name for name, applies in (("low", _is_uncertain(word)), ("event", word.is_event)) if applies
        )
        attributes = f' class="{classes}"' if classes else ""
        if word.confidence is not None and _is_uncertain(word):
            attributes += f' title="confidence {word.confidence:.0%}"'
        if has_space:
            attributes += " data-space"
        if word.start_s is not None and word.end_s is not None:
            attributes += f' data-t="{word.start_s:.3f}" data-e="{word.end_s:.3f}"'
        yield f"{' ' if has_space else ''}<span{attributes}>{_escape(word.text)}</span>"


def _is_uncertain(word: TimedText) -> bool:
    return word.confidence is not None and word.confidence < MIN_CONFIDENCE


def _write_help() -> str:
    items = "".join(
        f"<dt>{' '.join(f'<kbd>{key}</kbd>' for key in keys)}</dt><dd>{meaning}</dd>" for keys, meaning in _SHORTCUTS
    )
    return (
        '<dialog id="help" aria-labelledby="help-title"><h2 id="help-title">Keyboard shortcuts</h2>'
        f'<dl>{items}</dl><button type="button" id="close">Close</button></dialog>\n'
    )
