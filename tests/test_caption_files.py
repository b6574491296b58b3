"""Caption files in every format: what is read and written, judged by FFmpeg, pysubs2 and webvtt-py."""

from __future__ import annotations

import io
import re
import subprocess
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pysubs2
import pytest
import webvtt
from hypothesis import given, settings
from hypothesis import strategies as st

from audiocli.errors import UsageError
from audiocli.text.caption_checks import check_captions
from audiocli.text.caption_edits import (
    SyncPoint,
    TimeMap,
    build_shift,
    merge_by_time,
    merge_languages,
    parse_time,
    retime,
    split_captions,
)
from audiocli.text.caption_file import CaptionCue, CaptionFile, StyleSpan
from audiocli.text.caption_readers import CAPTION_FORMATS, parse_captions, read_captions
from audiocli.text.caption_writers import SUPPORTED_STYLES, write_ass, write_captions
from audiocli.types.transcripts import Word
from tests.requirements import require_program
from tests.test_captions_in_players import HARMFUL

PYSUBS2_NAMES = {"srt": "srt", "vtt": "vtt", "ass": "ass", "ttml": "ttml", "sub": "microdvd"}
FFMPEG_NAMES = {"srt": "srt", "vtt": "webvtt", "ass": "ass", "sub": "microdvd", "lrc": "lrc"}
# What FFmpeg 5.1 adds to braces on their way through its ASS, which libass reads as escapes.
ASS_ESCAPES = re.compile(r"\\(?=[{}])")


def extract_visible(text: str) -> str:
    return "".join(char for char in text if not char.isspace() and unicodedata.category(char) not in ("Cc", "Cf"))


def build_file(*texts: str, format: str = "srt") -> CaptionFile:
    cues = (CaptionCue(2.0 * index + 1, 2.0 * index + 2, text) for index, text in enumerate(texts))
    return CaptionFile(format, tuple(cues), fps=25.0)


def convert(file: CaptionFile, *formats: str) -> CaptionFile:
    """Write a file in one format after the other, and read it each time."""
    for format in formats:
        file = read_captions(write_captions(file, format).encode(), "x", format)._replace(fps=25.0)
    return file


@st.composite
def caption_files(draw: st.DrawFn) -> CaptionFile:
    texts = draw(st.lists(st.lists(st.sampled_from([*HARMFUL, "\n"]), min_size=1, max_size=9), min_size=1, max_size=4))
    cues = []
    for index, parts in enumerate(texts):
        # Visible on its own, so that no cue is empty.
        text = "".join([*parts, "x"])
        spans = draw(
            st.lists(
                st.tuples(st.integers(0, len(text)), st.integers(0, len(text)), st.sampled_from("bius")), max_size=3
            )
        )
        styles = tuple(StyleSpan(min(a, b), max(a, b), name) for a, b, name in spans)
        cues.append(CaptionCue(3.0 * index, 3.0 * index + 2, text, None, styles))
    return CaptionFile("none", tuple(cues), fps=25.0)


@pytest.mark.parametrize("source", CAPTION_FORMATS)
@pytest.mark.parametrize("target", CAPTION_FORMATS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(file=caption_files())
def test_no_visible_character_is_lost_between_any_two_formats(source: str, target: str, file: CaptionFile) -> None:
    converted = convert(file, source, target)

    expected = [extract_visible(cue.text) for cue in file.cues]
    if "sub" in (source, target):
        expected = [text.replace("|", "❘") for text in expected]
    assert [extract_visible(cue.text) for cue in converted.cues] == expected
    assert [cue.start_s for cue in converted.cues] == [cue.start_s for cue in file.cues]


@pytest.mark.parametrize("format", sorted(FFMPEG_NAMES))
def test_ffmpeg_shows_every_visible_character(format: str, tmp_path: Path) -> None:
    # FFmpeg 5.1 reads backslashes of WebVTT and LRC as those of ASS, into which it decodes both.
    is_misread = format in ("vtt", "lrc")
    texts = [f"a{token}b {token}c" for token in HARMFUL if token.strip() and not (is_misread and "\\" in token)]
    path = tmp_path / f"x.{format}"
    path.write_text(write_captions(build_file(*texts), format), "utf-8")

    command = [require_program("ffmpeg"), "-v", "error", "-f", FFMPEG_NAMES[format], "-i", str(path), "-f", "srt", "-"]
    output = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout.decode()

    blocks = re.split(r"(?:\A|\n\n)\d+\n[\d:,]+ --> [\d:,]+\n", output)[1:]
    shown = [ASS_ESCAPES.sub("", re.sub(r"</?font[^<>]*size[^<>]*>|</font>\s*\Z", "", block)) for block in blocks]
    expected = [text.replace("|", "❘") if format == "sub" else text for text in texts]
    if format == "lrc":
        shown = shown[::2]  # every second line clears the text
    assert [extract_visible(text) for text in shown] == [extract_visible(text) for text in expected]


@pytest.mark.parametrize("format", sorted(PYSUBS2_NAMES))
def test_pysubs2_reads_text_times_and_styles(format: str) -> None:
    cues = (
        CaptionCue(1.0, 2.0, "Hello,\nworld & <all>", None, ()),
        CaptionCue(3661.2, 3662.4, "all italic", None, (StyleSpan(0, 10, "i"),)),
    )
    text = write_captions(CaptionFile("none", cues, fps=25.0), format)

    subs = pysubs2.SSAFile.from_string(text, PYSUBS2_NAMES[format])

    assert [(event.start, event.end) for event in subs] == [(1000, 2000), (3661200, 3662400)]
    shown = [extract_visible(event.plaintext) for event in subs]
    # It keeps the entities of WebVTT and reads tags that it does not know.
    assert shown[0] in ("Hello,world&<all>", "Hello,world&amp;&lt;all&gt;")
    assert shown[1] == "allitalic"
    assert subs[0].plaintext.startswith("Hello,\nworld")
    if format != "ttml":  # whose styles pysubs2 does not read
        assert "\\i1" in subs[1].text or "<i>" in subs[1].text


def test_webvtt_py_reads_text_times_and_voices(tmp_path: Path) -> None:
    cues = (CaptionCue(1, 2, "Hello", "Ann & Bob"), CaptionCue(3, 4.5, "<b> & -->"))
    (tmp_path / "x.vtt").write_text(write_captions(CaptionFile("none", cues), "vtt"))

    captions = webvtt.read(str(tmp_path / "x.vtt"))

    assert [(caption.start, caption.end) for caption in captions] == [
        ("00:00:01.000", "00:00:02.000"),
        ("00:00:03.000", "00:00:04.500"),
    ]
    assert captions[0].raw_text == "<v Ann &amp; Bob>Hello"
    assert captions[1].raw_text == "&lt;b&gt; &amp; --&gt;"


@pytest.mark.parametrize("format", sorted(PYSUBS2_NAMES))
def test_files_of_pysubs2_are_read(format: str) -> None:
    subs = pysubs2.SSAFile()
    subs.append(pysubs2.SSAEvent(1000, 2000, text=r"Hello\Nworld"))
    subs.append(pysubs2.SSAEvent(3600000, 3602000, text=r"{\i1}all italic{\i0}"))
    text = subs.to_string(PYSUBS2_NAMES[format], fps=25)

    file = read_captions(text.encode(), "x", format)

    assert [(cue.start_s, cue.end_s, cue.text) for cue in file.cues] == [
        (1.0, 2.0, "Hello\nworld"),
        (3600.0, 3602.0, "all italic"),
    ]
    assert not any(problem.is_malformed for problem in file.problems)
    if format != "vtt":  # where pysubs2 writes no styles
        assert [span.name for span in file.cues[1].styles if span.name == "i"] == ["i"]


@pytest.mark.parametrize("format", ["ass", "lrc", "srt", "vtt"])
def test_files_of_ffmpeg_are_read(format: str, tmp_path: Path) -> None:
    (tmp_path / "in.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nHello <i>world</i>\n\n")
    command = [
        require_program("ffmpeg"),
        "-v",
        "error",
        "-i",
        str(tmp_path / "in.srt"),
        "-f",
        FFMPEG_NAMES[format],
        "-",
    ]
    output = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout

    file = read_captions(output, "x")

    assert file.format == format
    # FFmpeg 5.1 writes override codes into LRC.
    assert [(cue.start_s, re.sub(r"\{[^}]*\}|</?i>", "", cue.text)) for cue in file.cues] == [(1.0, "Hello world")]


@pytest.mark.parametrize(
    "format", [name for name, styles in SUPPORTED_STYLES.items() if len(styles) > 2 and name != "sub"]
)
def test_styles_survive_a_round_trip(format: str) -> None:
    styles = tuple(
        StyleSpan(index * 2, index * 2 + 3, name, "#ff8000" if name == "color" else "")
        for index, name in enumerate(sorted(SUPPORTED_STYLES[format]))
    )
    cue = CaptionCue(1, 2, "abcdefghijklmnop", None, styles)

    (read,) = convert(CaptionFile("none", (cue,)), format).cues

    def expand(spans: Sequence[StyleSpan]) -> set[tuple[int, str, str]]:
        return {(offset, span.name, span.value) for span in spans for offset in range(span.start, span.end)}

    assert (read.text, expand(read.styles)) == (cue.text, expand(styles))


@pytest.mark.parametrize("format", ["vtt", "ass", "ttml"])
def test_speakers_have_a_field(format: str) -> None:
    file = CaptionFile("none", (CaptionCue(1, 2, "Hello", "Ann & Bob"), CaptionCue(3, 4, "Bye")))

    assert [(cue.speaker, cue.text) for cue in convert(file, format).cues] == [("Ann & Bob", "Hello"), (None, "Bye")]


@pytest.mark.parametrize("format", ["srt", "sub", "lrc"])
def test_speakers_are_text_where_there_is_no_field(format: str) -> None:
    file = CaptionFile("none", (CaptionCue(1, 2, "Hello", "Ann"), CaptionCue(3, 4, "again", "Ann")), fps=25)

    assert [cue.text for cue in convert(file, format).cues] == ["Ann: Hello", "again"]


# --- what only one format has ----------------------------------------------------------------------------------------


def test_vtt_keeps_its_header_settings_and_tags_in_vtt() -> None:
    text = (
        "WEBVTT - title\nLanguage: de\n\nSTYLE\n::cue { color: red }\n\nREGION\nid:r\n\n"
        "intro\n00:00:01.000 --> 00:00:02.000 line:0 region:r\n<v.loud Ann>Hallo <c.x>Welt</c> &amp; mehr\n"
    )
    assert write_captions(read_captions(text.encode(), "x"), "vtt") == text


def test_vtt_entities_voices_ruby_and_comments() -> None:
    text = (
        "WEBVTT\n\nNOTE no text\n\n00:01.000 --> 00:02.000\n<v Ann>Fish &amp; chips\n\nNOTE\nmore\n\n"
        "00:03.000 --> 00:04.000\n<v Ann>Hi <v Bob>Yo\n\n00:05.000 --> 00:06.000\n<ruby>漢字<rt>かんじ</rt></ruby>\n"
    )
    file = read_captions(text.encode(), "x")

    assert [(cue.speaker, cue.text) for cue in file.cues] == [
        ("Ann", "Fish & chips"),
        (None, "Ann: Hi\nBob: Yo"),
        (None, "漢字(かんじ)"),
    ]
    assert "comments" in file.features


def test_ass_overrides_drawings_comments_and_styles() -> None:
    text = (
        "[Script Info]\nTitle: x\n\n[V4+ Styles]\nFormat: Name, Fontname, Bold, Italic, Underline, StrikeOut\n"
        "Style: Default,Arial,0,0,0,0\nStyle: Thought,Arial,0,-1,0,0\n\n[Events]\n"
        "Format: Start, End, Style, Name, Text\n"
        "Dialogue: 0:00:01.00,0:00:02.00,Default,Ann,{\\pos(1,2)\\b1}bold{\\b0} a, b\\Nsecond\\hline{a comment}\n"
        "Comment: 0:00:01.00,0:00:02.00,Default,,hidden\n"
        "Dialogue: 0:00:03.00,0:00:04.00,Thought,,{\\p1}m 0 0 l 1 1{\\p0}thought \\{x\\} {unclosed\n"
    )
    file = read_captions(text.encode(), "x")

    first, second = file.cues
    assert (first.text, first.speaker, first.line) == ("bold a, b\nsecond\u00a0line", "Ann", 11)
    assert first.styles == (StyleSpan(0, 4, "b"),)
    assert (second.text, second.styles) == ("thought {x} {unclosed", (StyleSpan(0, 21, "i"),))
    assert file.features == {"positions", "comments", "drawings"}
    # In ASS, everything but the comment stays.
    rewritten = write_captions(file, "ass")
    assert "{\\pos(1,2)\\b1}bold{\\b0} a, b\\Nsecond\\hline{a comment}" in rewritten
    assert "Style: Thought,Arial,0,-1,0,0" in rewritten


def test_ass_karaoke_covers_the_duration_of_the_cue() -> None:
    cues = [CaptionCue(1.0, 3.0, "Hello, big\nworld!"), CaptionCue(4.0, 5.0, "no words here")]
    words = [Word(1.2, 1.5, "Hello,"), Word(1.5, 2.0, "big"), Word(2.0, 2.8, "world!"), Word(4.1, 4.3, "other")]

    text = write_ass(cues, words)

    first, second = (line.split(",", 9)[9] for line in text.splitlines() if line.startswith("Dialogue:"))
    assert first == r"{\k20}{\k30}Hello, {\k50}big\N{\k100}world!"
    assert second == "no words here"
    events: Any = pysubs2.SSAFile.from_string(text)
    assert events[0].plaintext == "Hello, big\nworld!"


def test_sub_needs_and_reads_frames_per_second() -> None:
    text = "{1}{1}23.976\n{24}{48}{Y:i}one|two\n{72}{}{C:$0000ff}three\n{240}{260}{b}four\n"

    file = read_captions(text.encode(), "x")

    assert file.fps == 23.976
    assert [cue.text for cue in file.cues] == ["one\ntwo", "three", "{b}four"]
    assert (round(file.cues[0].start_s, 3), round(file.cues[1].end_s, 3)) == (1.001, 8.008)
    assert file.cues[1].styles == (StyleSpan(0, 5, "color", "#ff0000"),)
    assert read_captions(text.encode(), "x", fps=24.0).cues[0].start_s == 1.0
    with pytest.raises(UsageError, match="frame rate"):
        read_captions(b"{24}{48}one\n", "x")


def test_lrc_times_offset_repeats_and_words() -> None:
    text = (
        "[ti:Song]\n[offset:+500]\n[length:01:00]\n[00:10.50][00:30]Chorus\n[00:12.5]<00:12.50>Two <00:13.00>words\n"
        "[00:15.00]\ncontinued\n[00:40.00][music] [00:41.0] is text\n"
    )
    file = read_captions(text.encode(), "x")

    assert [(cue.start_s, cue.end_s, cue.text) for cue in file.cues] == [
        (10.0, 12.0, "Chorus"),
        (12.0, 14.5, "Two words"),
        (14.5, 29.5, "continued"),
        (29.5, 39.5, "Chorus"),
        (39.5, 59.5, "[music] [00:41.0] is text"),
    ]
    assert file.features == {"word times"}
    assert [(problem.check, problem.line) for problem in file.problems] == [("text", 7)]
    assert write_captions(file, "lrc").startswith(
        "[ti:Song]\n[length:01:00]\n[00:10.00]Chorus\n[00:12.00]<00:12.00>Two"
    )


def test_ttml_times_styles_agents_and_nesting() -> None:
    text = """<?xml version="1.0"?>
<tt xmlns="http://www.w3.org/ns/ttml" xmlns:ttp="http://www.w3.org/ns/ttml#parameter" xml:lang="fr"
    xmlns:tts="http://www.w3.org/ns/ttml#styling" xmlns:ttm="http://www.w3.org/ns/ttml#metadata"
    ttp:frameRate="30" ttp:frameRateMultiplier="1000 1001" ttp:tickRate="10000000">
 <head><metadata><ttm:agent xml:id="a1"><ttm:name type="full">Ann</ttm:name></ttm:agent></metadata>
 <styling><style xml:id="s1" tts:fontStyle="italic"/></styling></head>
 <body><div begin="10s">
  <p begin="00:00:01:15" end="2.5s" ttm:agent="a1">Hello  <span style="s1">my<br/>
     friend</span></p>
  <p begin="30000000t" dur="500ms" xml:space="preserve">a &amp; b &lt;c&gt;</p>
  <p begin="0.1m" end="00:00:07.250">third</p>
 </div></body></tt>"""
    file = read_captions(text.encode(), "x")

    assert [(round(cue.start_s, 4), cue.end_s, cue.text, cue.speaker) for cue in file.cues] == [
        (11.5005, 12.5, "Hello my\nfriend", "Ann"),
        (13.0, 13.5, "a & b <c>", None),
        (16.0, 17.25, "third", None),
    ]
    assert file.cues[0].styles == (StyleSpan(6, 15, "i"),)
    assert (file.language, [cue.line for cue in file.cues]) == ("fr", [8, 10, 11])


def test_ttml_entities_and_deep_nesting_are_refused() -> None:
    bomb = '<!DOCTYPE tt [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><tt><body><div><p>&b;</p></div></body></tt>'
    deep = '<tt><body><div><p begin="1s" end="2s">' + "<span>" * 5000 + "</span>" * 5000 + "</p></div></body></tt>"

    with pytest.raises(UsageError, match=r"line 1: the entity 'a' is declared"):
        read_captions(bomb.encode(), "x", "ttml")
    with pytest.raises(UsageError, match="nested deeper"):
        read_captions(deep.encode(), "x", "ttml")


# --- hostile files ---------------------------------------------------------------------------------------------------

PREFIXES = {
    "srt": "1\n00:00:01,000 --> 00:00:02,000\n",
    "vtt": "WEBVTT\n\n00:00:01.000 --> 00:00:02.000\n",
    "ass": "[Events]\nFormat: Start, End, Text\nDialogue: 0:00:01.00,0:00:02.00,",
    "ttml": '<tt><body><div><p begin="1s" end="2s">',
    "sub": "{1}{1}25\n{25}{50}",
    "lrc": "[00:01.00]",
}
REPEATED = [
    *("<", "{", "<rt>", "<v ", "<b", "{\\", "\\", "[00:00", "-->", "0", "{1}", " ", "<font color=", "&", "\u2060", "}"),
    *(
        "-\u2060",
        "<\u2060",
        " [0:1]",
        "<v.",
        "<00:",
        "00:00:01,000 -->",
        "{y:",
        "\x00",
        "\ufeff",
        "\u2028",
        "<i>",
        "</",
    ),
]


@pytest.mark.parametrize("format", CAPTION_FORMATS)
@pytest.mark.parametrize("part", REPEATED, ids=repr)
def test_hostile_lines_are_read_or_refused(format: str, part: str) -> None:
    # Quadratic time would take minutes.
    text = PREFIXES[format] + part * (200_000 // len(part))

    try:
        file = parse_captions(text, "x", format)._replace(fps=25.0)
    except UsageError as error:
        assert len(error.message) < 200
        return
    for target in CAPTION_FORMATS:
        write_captions(file, target)
    check_captions(file)


@pytest.mark.parametrize(
    ("text", "format", "line"),
    [
        ("1\n00:00:01,000 --> 00:00:xx,000\nx\n", "srt", 2),
        ("1\n99999999:00:00,000 --> 99999999:00:01,000\nx\n", "srt", 2),
        ("WEBVTT\n\n00:01.000 --> 1:2:3:4\nx\n", "vtt", 3),
        ("[Events]\nDialogue: 0,0:00:0x.00,0:00:02.00,Default,,0,0,0,,x\n", "ass", 2),
        ("[Events]\nDialogue: 0,0:00:01.00,0:00:02.00\n", "ass", 2),
        ("{1}{1}25\n\nno frames\n{25}{50}x\n", "sub", 3),
        ("no time\n[00:01.00]x\n", "lrc", 1),
        ('<tt><body><div>\n<p begin="1x" end="2s">x</p></div></body></tt>', "ttml", 2),
    ],
)
def test_malformed_lines_are_reported_with_their_line(text: str, format: str, line: int) -> None:
    problems = [problem for problem in parse_captions(text, "x", format).problems if problem.is_malformed]

    assert [problem.line for problem in problems] == [line]


def test_control_characters_are_removed_and_reported() -> None:
    file = parse_captions("1\n00:00:01,000 --> 00:00:02,000\na\x07b\x9bc\ud800d\n", "x", "srt")

    assert file.cues[0].text == "abcd"
    assert [(problem.check, problem.line) for problem in file.problems] == [("encoding", 3)]


# --- changes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("90", 90.0), ("+1.5", 1.5), ("-0:02", -2.0), ("1:02:03.5", 3723.5), ("250ms", 0.25), ("-250ms", -0.25)),
        *(("10m", 600.0), ("1h30m", 5400.0), ("1m5.5s", 65.5), ("0:00:01,250", 1.25), ("\u22121", -1.0), ("0", 0.0)),
    ],
)
def test_times_of_the_command_line(text: str, seconds: float) -> None:
    assert parse_time(text, "TIME") == seconds


@pytest.mark.parametrize(
    "text", ["", "-", "x", "1:", ":1", "1:2:3:4", "1e5", "nan", "inf", "--1", "1 2", "9" * 30, "٣"]
)
def test_invalid_times_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_time(text, "TIME")


def test_sync_points_move_times_in_straight_lines() -> None:
    times = TimeMap((SyncPoint(1, 2), SyncPoint(3601, 3606)))

    assert times.map(1) == 2
    assert times.map(3601) == 3606
    assert times.map(1801) == pytest.approx(1804)
    assert times.map(7201) == pytest.approx(7210)
    with pytest.raises(UsageError):
        TimeMap((SyncPoint(1, 2), SyncPoint(2, 1)))


def test_word_times_inside_cues_move_too() -> None:
    vtt = read_captions(b"WEBVTT\n\n00:01.000 --> 00:03.000\na <00:02.000>b\n", "x")
    lrc = read_captions(b"[00:01.00]<00:01.00>a <00:02.00>b\n", "x")

    assert "a <00:00:03.500>b" in write_captions(retime(vtt, build_shift(1.5)).file, "vtt")
    assert "[00:02.50]<00:02.50>a <00:03.50>b" in write_captions(retime(lrc, build_shift(1.5)).file, "lrc")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    times=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 20)), min_size=1, max_size=12),
    edges=st.lists(st.integers(1, 110), max_size=4, unique=True),
)
def test_split_keeps_every_cue_once_and_its_times(times: list[tuple[int, int]], edges: list[int]) -> None:
    cues = [CaptionCue(float(start), float(start + length), f"cue {n}") for n, (start, length) in enumerate(times)]

    parts = split_captions(CaptionFile("srt", tuple(cues)), map(float, edges))

    offsets = [0.0, *map(float, sorted(edges))]
    found = {cue.text: (cue, offset) for part, offset in zip(parts, offsets, strict=True) for cue in part.cues}
    assert sorted(found) == sorted(cue.text for cue in cues)
    for cue in cues:
        part, offset = found[cue.text]
        ends = [*offsets[1:], float("inf")]
        end = ends[offsets.index(offset)]
        assert part.start_s == max(cue.start_s, offset) - offset
        assert part.end_s == min(cue.end_s, end) - offset


def test_merged_languages_show_one_cue_for_each_time() -> None:
    english = CaptionFile("srt", (CaptionCue(1, 3, "One"), CaptionCue(4, 6, "Two"), CaptionCue(20, 21, "Alone")))
    german = CaptionFile(
        "srt",
        (CaptionCue(1.2, 2.9, "Eins"), CaptionCue(4, 5, "Zw"), CaptionCue(5, 6.1, "ei"), CaptionCue(9, 10, "Neun")),
    )

    merged = merge_languages(english, german)

    assert [(cue.start_s, cue.text) for cue in merged.cues] == [
        *((1, "One\nEins"), (4, "Two\nZw\nei"), (9, "Neun"), (20, "Alone"))
    ]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.lists(st.tuples(st.booleans(), st.integers(0, 50), st.integers(0, 9)), min_size=1, max_size=16))
def test_merge_loses_no_text(data: list[tuple[bool, int, int]]) -> None:
    cues = [CaptionCue(float(start), float(start + length), f"w{n}w") for n, (_, start, length) in enumerate(data)]
    first = CaptionFile("srt", tuple(cue for cue, (is_first, *_) in zip(cues, data, strict=True) if is_first))
    second = CaptionFile("srt", tuple(cue for cue, (is_first, *_) in zip(cues, data, strict=True) if not is_first))

    for merged in (merge_languages(first, second), merge_by_time([first, second])):
        words = " ".join(cue.text for cue in merged.cues).split()
        assert sorted(words) == sorted(cue.text for cue in cues)
        assert [cue.start_s for cue in merged.cues] == sorted(cue.start_s for cue in merged.cues)


def test_large_file_is_converted_in_linear_time() -> None:
    file = build_file(*(f"Line {number} of <i>text" for number in range(20_000)))

    for format in CAPTION_FORMATS:
        converted = convert(file, format)
        assert len(converted.cues) == 20_000
    assert len(merge_languages(file, file).cues) == 20_000
    assert io.StringIO(write_captions(file, "srt")).readline() == "1\n"
