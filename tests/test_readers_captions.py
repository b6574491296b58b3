"""SubRip and WebVTT: cues with their times and voices, without markup."""

from __future__ import annotations

import pytest
import webvtt
from hypothesis import given, settings
from hypothesis import strategies as st

from audiocli.errors import UsageError
from audiocli.text.document import Document, Paragraph
from audiocli.text.readers import read_document
from audiocli.text.subtitle_formats import render
from audiocli.types.transcripts import Segment, Transcript


def read_captions(text: str, format: str = "srt", encoding: str | None = None) -> Document:
    return read_document(text.encode(encoding or "utf-8"), format, f"a.{format}", encoding=encoding)


SRT = "1\n00:00:01,000 --> 00:00:02,500\n{}\n\n2\n01:00:03,000 --> 01:00:04,000\nEnd\n"
VTT = "WEBVTT\n\n00:01.000 --> 00:02.500\n{}\n\nname of a cue\n01:00:03.000 --> 01:00:04.000 align:start\nEnd\n"
END = Paragraph("End", start_s=3603.0, end_s=3604.0)


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_cues_have_times(line_end: str, mark: str) -> None:
    for format, template in (("srt", SRT), ("vtt", VTT)):
        document = read_captions(mark + template.format("Two\nlines").replace("\n", line_end), format)

        assert document.paragraphs == (Paragraph("Two lines", start_s=1.0, end_s=2.5), END)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<i>Hello</i> <font color='red'>there</font>", "Hello there"),
        ("{\\an8}Top <b>bold", "Top bold"),
        ("1 < 2 > 0 <inaudible>", "1 < 2 > 0 <inaudible>"),
        ("- One\n- Two", "- One - Two"),
        ("First\n\nafter an empty line", "First after an empty line"),
        ("R&D &amp; more", "R&D &amp; more"),
    ],
)
def test_markup_of_subrip_is_removed(text: str, expected: str) -> None:
    assert read_captions(SRT.format(text)).paragraphs == (Paragraph(expected, start_s=1.0, end_s=2.5), END)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<c.loud>Hello</c> <00:01.500><b>there</b>", "Hello there"),
        ("a &lt;b&gt; &amp; c&nbsp;d", "a <b> & c d"),
        ("<ruby>漢<rt>kan</rt></ruby>", "漢"),
        ("<lang de>Hallo</lang>", "Hallo"),
        ("Text\n\nNOTE a comment\nof two lines", "Text"),
    ],
)
def test_markup_of_webvtt_is_removed(text: str, expected: str) -> None:
    assert read_captions(VTT.format(text), "vtt").paragraphs == (Paragraph(expected, start_s=1.0, end_s=2.5), END)


def test_voices_of_webvtt_share_the_time_of_their_cue() -> None:
    document = read_captions(VTT.format("<v Alice>Hi.</v> <v.loud Bob &amp; Co>Hello, Ann."), "vtt")

    first, second, last = document.paragraphs
    border_s = pytest.approx(1.0 + 1.5 * len("Hi.") / len("Hi.Hello, Ann."))
    assert first == Paragraph("Hi.", voice="Alice", start_s=1.0, end_s=border_s)
    assert second == Paragraph("Hello, Ann.", voice="Bob & Co", start_s=border_s, end_s=pytest.approx(2.5))
    assert last == END


def test_header_blocks_of_webvtt_are_not_spoken() -> None:
    text = (
        "WEBVTT - title\nKind: captions\nLanguage: en-GB\n\nSTYLE\n::cue { color: red }\n\nREGION\nid:a\n\n"
        "NOTE --\ncomment\n\n00:01.000 --> 00:02.000\nText\n"
    )

    document = read_captions(text, "vtt")

    assert [p.text for p in document.paragraphs] == ["Text"]
    assert document.language == "en-GB"


@pytest.mark.parametrize(
    ("format", "text", "message"),
    [
        ("srt", "", "has no captions"),
        ("srt", "just text", "has no captions"),
        ("srt", SRT.format("x").replace("01:00:03,000", "01:00:xx,000"), "line 6 has malformed times"),
        ("srt", SRT.format("x").replace("01:00:03,000", "01:00:05,000"), "line 6 ends before it begins"),
        ("vtt", SRT.format("x"), "not WebVTT"),
        ("vtt", "WEBVTTX\n\n00:01.000 --> 00:02.000\nText", "not WebVTT"),
    ],
)
def test_malformed_captions_are_refused(format: str, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_captions(text, format)


def test_missing_empty_line_and_number_are_accepted() -> None:
    text = "1\n00:00:01,000 --> 00:00:02,500\nOne\n2\n00:00:03,000 --> 00:00:04,000\n\n00:00:05,000-->00:00:06,000\nTwo"

    assert [p.text for p in read_captions(text).paragraphs] == ["One", "Two"]


def test_encoding_of_old_captions_can_be_named() -> None:
    assert read_captions(SRT.format("Café"), encoding="windows-1252").paragraphs[0].text == "Café"
    with pytest.raises(UsageError) as caught:
        read_document(SRT.format("Café").encode("windows-1252"), "srt", "a.srt")
    assert "--encoding" in str(caught.value.hint)


TEXTS = st.lists(
    st.text(
        st.characters(categories=["L", "Nd", "Zs"], include_characters="&<>.,-!?'\n"), min_size=1, max_size=40
    ).filter(lambda text: any(char.isalpha() for char in text)),
    min_size=1,
    max_size=5,
)


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.sampled_from(["srt", "vtt"]))
def test_captions_that_are_written_are_read(texts: list[str], format: str) -> None:
    segments = tuple(Segment(float(n), n + 0.9, text, None) for n, text in enumerate(texts))
    written = render(Transcript(text=" ".join(texts), segments=segments), format)

    document = read_captions(written, format)

    read = "".join("".join(p.text for p in document.paragraphs).replace("\u2060", "").split())
    assert read == "".join("".join(texts).split())
    if format == "vtt":
        reference = webvtt.from_string(written)
        assert [p.start_s for p in document.paragraphs] == [pytest.approx(cue.start_in_seconds) for cue in reference]
