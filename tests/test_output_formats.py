"""Formats of transcripts besides captions, as other programs read them, and what is written without a request."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pysubs2
import pytest
import webvtt
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from audiocli.mock import Status
from audiocli.text.format_names import TRANSCRIPT_FORMATS
from audiocli.text.line_breaking import CaptionLimits, collapse_whitespace
from audiocli.text.subtitle_formats import escape_cell
from audiocli.text.transcript_formats import render_formatted
from audiocli.text.transcript_style import TranscriptPage, TranscriptStyle
from audiocli.types.transcripts import Segment, Transcript, Word
from tests.conftest import CommandLine, Result
from tests.gateway_contract import SPEECH
from tests.requirements import require_packages, require_program
from tests.test_batch import parse_json_lines, write_recording
from tests.test_transcribe import build_wav

MODEL = "openrouter:openai/whisper-large-v3"
SEGMENTS = (
    Segment(0.0, 2.0, "Good *morning*, all.", "Ann"),
    Segment(2.2, 4.0, "=1+1 <b>is</b> {\\b1}two\\N|", "Bob & Co"),
    Segment(9.5, 11.0, "1. Really?", "Bob & Co"),
)
TRANSCRIPT = Transcript("", "en", 12.0, SEGMENTS, events=(Word(5.0, 6.0, "(laughter)"),))
# Letters, punctuation that formats give a meaning, and scripts with and without spaces.
TEXTS = st.text(st.sampled_from("abé 今日はมา0123.,-+=@#*_`[](){}<>&|\\/:;!?'\"~$^%\n\t👍🏽\u200b"), max_size=60)


def render(format: str, transcript: Transcript = TRANSCRIPT, **style: Any) -> str:
    return render_formatted(transcript, format, TranscriptStyle(**style), TranscriptPage("talk_1.mp3")).decode()


def transcribe(cli: CommandLine, path: Path, *argv: str | Path, transcript: Transcript = TRANSCRIPT) -> Result:
    """Transcribe a recording of twelve seconds. The gateway returns a transcript with speakers and words."""
    if not path.exists():
        path.write_bytes(build_wav(b"\x00\x10" * 24_000 * 12))
    segments = [
        {"start": item.start_s, "end": item.end_s, "text": item.text, "speaker": item.speaker}
        for item in transcript.segments
    ]
    words: list[dict[str, Any]] = [
        {"start": word.start_s, "end": word.end_s, "word": word.text, "confidence": word.confidence}
        for word in transcript.words
    ]
    words += [{"start": e.start_s, "end": e.end_s, "text": e.text, "type": "audio_event"} for e in transcript.events]
    payload = {"text": " ".join(item.text for item in transcript.segments), "segments": segments, "words": words}
    cli.gateway.add_default_fault(Status(200, payload, billed=True))
    return cli("transcribe", path, "-m", MODEL, *argv)


# --- txt and md ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (None, "Ann: Good *morning*, all.\nBob & Co: =1+1 <b>is</b> {\\b1}two\\N| 1. Really?\n"),
        ((), "Good *morning*, all. =1+1 <b>is</b> {\\b1}two\\N| 1. Really?\n"),
        (("speakers",), "Ann: Good *morning*, all.\nBob & Co: =1+1 <b>is</b> {\\b1}two\\N| 1. Really?\n"),
        (("times",), "[0:00:00] Good *morning*, all.\n[0:00:02] =1+1 <b>is</b> {\\b1}two\\N|\n[0:00:09] 1. Really?\n"),
        (
            ("times", "speakers", "paragraphs"),
            "[0:00:00] Ann: Good *morning*, all.\n\n[0:00:02] Bob & Co: =1+1 <b>is</b> {\\b1}two\\N| [laughter]\n\n"
            "[0:00:09] Bob & Co: 1. Really?\n",
        ),
    ],
)
def test_parts_of_text(parts: tuple[str, ...] | None, text: str) -> None:
    assert render("txt", parts=parts) == text


def read_markdown(content: str) -> tuple[str, set[str]]:
    """Return the visible text of Markdown, and the kinds of its blocks and marks."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(content)
    inline = [child for token in tokens for child in token.children or ()]
    text = " ".join(
        "".join(child.content if child.type != "softbreak" else " " for child in token.children or ())
        for token in tokens
        if token.type == "inline"
    )
    text += "".join(token.content for token in tokens if token.type in ("code_block", "fence", "html_block"))
    return text, {token.type for token in [*tokens, *inline]}


def test_markdown_shows_the_text_as_it_is() -> None:
    text, kinds = read_markdown(render("md", parts=("times", "speakers", "paragraphs")))

    assert text == (
        "talk_1.mp3 [0:00:00] Ann: Good *morning*, all. [0:00:02] Bob & Co: =1+1 <b>is</b> {\\b1}two\\N| [laughter] "
        "[0:00:09] Bob & Co: 1. Really?"
    )
    assert not {kind for kind in kinds if kind.startswith(("html", "em", "list", "link", "code", "ordered", "s_"))}


@given(st.lists(TEXTS, min_size=1, max_size=3), st.sampled_from([(), ("times",), ("paragraphs",), ("speakers",)]))
def test_markdown_loses_no_character_of_any_text(texts: list[str], parts: tuple[str, ...]) -> None:
    segments = tuple(Segment(index, index + 1.0, text) for index, text in enumerate(texts))

    content = render_formatted(Transcript("", segments=segments), "md", TranscriptStyle(parts=parts))
    text, kinds = read_markdown(content.decode())

    if "times" in parts:
        text = re.sub(r"\[0:00:\d\d\]", "", text)
    assert "".join(text.split()) == "".join(collapse_whitespace(" ".join(texts)).split())
    assert kinds <= {"paragraph_open", "paragraph_close", "inline", "text", "text_special", "softbreak"}


def test_unknown_parts_are_refused(audiocli: CommandLine, tmp_path: Path) -> None:
    r = transcribe(audiocli, tmp_path / "a.wav", "--with", "time")

    assert (r.code, r.posts) == (2, [])
    assert "--with time: must be of times, speakers, paragraphs; did you mean 'times'?" in r.err


# --- captions and tables ---------------------------------------------------------------------------------------------


def test_captions_are_read_by_other_programs(tmp_path: Path) -> None:
    ffmpeg = require_program("ffmpeg")
    words = tuple(Word(i / 2, i / 2 + 0.4, word) for i, word in enumerate(("Good", "*morning*,", "all.")))
    transcript = TRANSCRIPT._replace(words=words)
    ass = pysubs2.SSAFile.from_string(render("ass", transcript, by_word=True))
    vtt = webvtt.from_string(render("vtt", transcript))

    assert [cue.name for cue in ass] == ["Ann", "Bob & Co", "", "Bob & Co"]
    assert "{\\k" in ass[0].text and ass[0].plaintext == "Good *morning*, all."
    assert [cue.voice for cue in vtt] == ["Ann", "Bob &amp; Co", None, "Bob &amp; Co"]
    for format in ("ass", "lrc", "srt", "vtt"):
        path = tmp_path / f"talk.{format}"
        path.write_text(render(format, transcript), "utf-8")
        command = [ffmpeg, "-v", "error", "-i", str(path), "-f", "srt", "-"]
        read = subprocess.run(command, capture_output=True, check=True, text=True)
        assert "Good *morning*, all." in read.stdout and "1. Really?" in read.stdout, format
        assert "=1+1" in read.stdout and read.stderr == "", format


def test_cells_of_csv_are_no_formulas() -> None:
    rows = list(csv.reader(io.StringIO(render("csv"))))

    assert rows[0] == ["start_s", "end_s", "speaker", "text"]
    assert rows[1] == ["0.000", "2.000", "Ann", "Good *morning*, all."]
    assert rows[2][3] == "'=1+1 <b>is</b> {\\b1}two\\N|"


@pytest.mark.parametrize(
    "text", ["=1", "+1", "-1", "@a", "\tx", "\rx", " =1", "\uff1d1", "\uff0b1", "\uff0d1", "\uff20a"]
)
def test_cells_that_begin_like_formulas_are_escaped(text: str) -> None:
    assert escape_cell(text) == f"'{text}"
    assert escape_cell(f"a{text}") == f"a{text}"


@pytest.mark.parametrize("words_per_cue", [1, 2, 3])
@pytest.mark.parametrize("has_words", [True, False])
def test_cues_have_at_most_so_many_words(words_per_cue: int, has_words: bool) -> None:
    text = "One two three, four five. Six seven eight nine ten eleven."
    words = tuple(Word(i / 2, i / 2 + 0.4, word) for i, word in enumerate(text.split()))
    transcript = Transcript("", None, 6.0, (Segment(0.0, 5.4, text),), words if has_words else ())

    cues = webvtt.from_string(render("vtt", transcript, limits=CaptionLimits(words_per_cue=words_per_cue)))

    assert max(len(cue.text.split()) for cue in cues) == words_per_cue
    assert " ".join(cue.text.replace("\n", " ") for cue in cues) == text


# --- documents -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [[], ["-o", "-"], ["-o", "-", "--json"]])
def test_docx_is_not_written_to_a_terminal(audiocli: CommandLine, tmp_path: Path, argv: list[str]) -> None:
    (tmp_path / "talk.wav").write_bytes(SPEECH)

    r = audiocli("transcribe", tmp_path / "talk.wav", "-f", "docx", *argv, terminal="out")

    assert (r.code, r.out, r.requests) == (2, b"", [])
    assert "cannot write docx to a terminal" in r.err


def test_page_is_written_to_a_terminal_only_on_request(audiocli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(SPEECH)

    refused = audiocli("transcribe", tmp_path / "a.wav", "-f", "html", terminal="out")
    requested = audiocli("transcribe", tmp_path / "a.wav", "-f", "html", "-o", "-", terminal="out")
    piped = audiocli("transcribe", tmp_path / "a.wav", "-f", "html")

    assert (refused.code, refused.requests, "hint: use -o FILE.html or a pipe" in refused.err) == (2, [], True)
    assert (requested.code, piped.code, requested.text) == (0, 0, piped.text)


def test_word_document_has_title_times_and_speakers(audiocli: CommandLine, tmp_path: Path) -> None:
    require_packages("docx", extras="documents")
    from docx import Document

    r = transcribe(audiocli, tmp_path / "talk.wav", "-o", tmp_path / "talk.docx")
    document = Document(str(tmp_path / "talk.docx"))

    assert r.code == 0, r.err
    assert [paragraph.text for paragraph in document.paragraphs] == [
        "talk.wav",
        "0:00:00  Ann: Good *morning*, all.",
        "0:00:02  Bob & Co: =1+1 <b>is</b> {\\b1}two\\N| [laughter]",
        "0:00:09  Bob & Co: 1. Really?",
    ]
    assert document.core_properties.title == "talk.wav"


def test_word_document_has_no_character_that_xml_forbids() -> None:
    require_packages("docx", extras="documents")
    from docx import Document

    transcript = Transcript("", segments=(Segment(0, 1, "a\x00\x0b\x1f\ufffe\ud800b", "c\x00"),))
    content = render_formatted(transcript, "docx", TranscriptStyle(), TranscriptPage("t\x00"))

    assert Document(io.BytesIO(content)).paragraphs[-1].text.endswith("b")


def test_word_document_without_the_library_is_refused_before_anything_is_sent(
    audiocli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "docx", None)

    r = transcribe(audiocli, tmp_path / "talk.wav", "-f", "docx")

    assert (r.code, r.posts) == (4, [])
    assert 'pip install "audiocli[documents]"' in r.err


# --- stored transcripts ----------------------------------------------------------------------------------------------


def test_two_hundred_files_get_four_new_formats_without_a_request(audiocli: CommandLine, tmp_path: Path) -> None:
    directory = tmp_path / "talks"
    audiocli.gateway.set_transcript("Hello there. It is me, the speaker.")
    for number in range(200):
        write_recording(directory / f"talk {number}.wav", f"{number}")
    command = ("transcribe", directory, "-m", MODEL, "-j", "16")
    assert (first := audiocli(*command, "-f", "srt")).code == 0, first.err

    second = audiocli(*command, "-f", "srt,md,html,csv,ass", "--with", "times,paragraphs", "--json")
    third = audiocli(*command, "-f", "srt,md,html,csv,ass", "--with", "times,paragraphs")

    assert (len(first.posts), second.requests, third.requests) == (200, [], [])
    assert parse_json_lines(second)[-1]["summary"]["written"] == 200
    assert "200 unchanged" in third.err
    for format in ("srt", "md", "html", "csv", "ass"):
        assert len(list(directory.glob(f"*.{format}"))) == 200


def get_states(r: Result) -> dict[str, str]:
    return {Path(path).suffix: state for line in parse_json_lines(r)[:-1] for path, state in line["outputs"].items()}


@pytest.mark.parametrize(
    ("options", "stale"),
    [
        ((), set()),
        (("--with", "times"), {".txt", ".md"}),
        (("--words-per-cue", "2"), {".srt", ".csv", ".lrc"}),
        (("--corrections", "{path}/rules.txt"), {".txt", ".md", ".srt", ".csv", ".lrc", ".json", ".html"}),
        (("--guard", "off"), {".md", ".html", ".json"}),
        (("--embed-media",), {".html"}),
    ],
)
def test_an_option_makes_only_those_outputs_stale_that_it_affects(
    audiocli: CommandLine, tmp_path: Path, options: tuple[str, ...], stale: set[str]
) -> None:
    audiocli.gateway.set_transcript("Hello there.")
    write_recording(tmp_path / "talks" / "talk.wav")
    (tmp_path / "rules.txt").write_text("hello = goodbye\n")
    command = ("transcribe", tmp_path / "talks", "-m", MODEL, "-f", "txt,md,srt,csv,lrc,json,html")
    assert (r := audiocli(*command)).code == 0, r.err

    verified = audiocli(*command, *audiocli.expand(options), "--verify-only", "--json")
    again = audiocli(*command, *audiocli.expand(options))
    current = audiocli(*command, *audiocli.expand(options), "--verify-only", "--json")

    assert {suffix for suffix, state in get_states(verified).items() if state == "stale"} == stale
    assert (again.code, again.requests) == (0, [])
    assert set(get_states(current).values()) == {"current"}


def test_moved_page_links_the_recording_again(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.set_transcript("Hello there.")
    write_recording(tmp_path / "talks" / "a b#1.wav")
    command = ("transcribe", tmp_path / "talks", "-m", MODEL, "-f", "html")
    audiocli(*command, "-O", tmp_path / "pages")
    shutil.move(tmp_path / "talks", tmp_path / "moved")

    r = audiocli("transcribe", tmp_path / "moved", "-m", MODEL, "-f", "html", "-O", tmp_path / "pages")

    assert (r.code, r.requests) == (0, [])
    assert 'src="../moved/a%20b%231.wav"' in (tmp_path / "pages" / "a b#1.html").read_text("utf-8")


def test_options_without_effect_are_reported_before_anything_is_sent(audiocli: CommandLine, tmp_path: Path) -> None:
    r = transcribe(audiocli, tmp_path / "talk.wav", "-f", "srt", "--with", "times", "--embed-media", "--dry-run")

    assert "warning: --with has no effect without -f txt or -f md" in r.err
    assert "warning: --embed-media has no effect without -f html" in r.err
    assert r.posts == []


def test_every_format_can_be_written_to_stdout_and_beside_the_input(audiocli: CommandLine, tmp_path: Path) -> None:
    for format in TRANSCRIPT_FORMATS:
        r = transcribe(audiocli, tmp_path / "talk.wav", "-f", format, "-o", "-")
        assert r.code == 0 and r.out, (format, r.err)
    r = transcribe(audiocli, tmp_path / "talk.wav", "-f", ",".join(TRANSCRIPT_FORMATS))

    assert (r.code, r.requests) == (0, [])
    assert len(list(tmp_path.glob("talk.*"))) == 1 + len(TRANSCRIPT_FORMATS)
    assert json.loads((tmp_path / "talk.json").read_text("utf-8"))["text"]
