"""Captions in players: FFmpeg shows every visible character, and words of unspaced scripts are whole."""

from __future__ import annotations

import random
import re
import subprocess
import unicodedata
from pathlib import Path

import pytest

from audiocli.text.cues import CaptionLimits, Cue, build_cues
from audiocli.text.subtitle_formats import render
from audiocli.types.transcripts import Segment, Transcript, Word
from tests.requirements import require_program

HARMFUL = [
    *(
        "<",
        ">",
        "</",
        "<i>",
        "<b",
        "<inaudible>",
        "<laughter>",
        "<font color=red>",
        "<!--",
        "<v Ann>",
        "<00:01:02.000>",
    ),
    *("{", "}", "{\\an8}", "{\\b1}", "{b}", "{Y:i}", "{c:$0000ff}", "\\", "\\N", "\\n", "\\h", "-->", "--", "->"),
    *("a", "b", "N", "3", "é", "日本", "ไทย", " ", ". ", "!", '"', "'", "=", "/", "&", "&lt;", "&nbsp;", "♪", "#", "|"),
]
_TIMES = re.compile(r"(?:(\d+):)?(\d+):(\d+)[,.]\d+ --> \S+")


@pytest.fixture(scope="module")
def ffmpeg() -> str:
    return require_program("ffmpeg")


def extract_visible(text: str) -> str:
    return "".join(char for char in text if not char.isspace() and unicodedata.category(char) not in ("Cc", "Cf"))


def convert_captions(ffmpeg: str, path: Path) -> dict[int, str]:
    """Convert captions to SubRip with FFmpeg. Return the text of the cues by the second in which they start."""
    command = [ffmpeg, "-v", "error", "-i", str(path), "-f", "srt", "-"]
    output = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout.decode()
    texts: dict[int, str] = {}
    for block in re.split(r"(?:^|\n\n)\d+\n(?=\d\d:)", output)[1:]:
        times, _, text = block.partition("\n")
        match = _TIMES.fullmatch(times)
        assert match is not None, times
        second = int(match[1] or 0) * 3600 + int(match[2]) * 60 + int(match[3])
        texts[second] = texts.get(second, "") + text
    return texts


def test_angle_brackets_are_shown_by_ffmpeg(ffmpeg: str, tmp_path: Path) -> None:
    text = "He said <inaudible> and <laughter>, a<b, C:\\New {\\an8} {b}"
    path = tmp_path / "t.srt"
    path.write_text(render(Transcript(text, duration_s=4.0), "srt"))

    assert extract_visible(convert_captions(ffmpeg, path)[0]) == extract_visible(text)


def test_srt_keeps_every_visible_character_in_ffmpeg(ffmpeg: str, tmp_path: Path) -> None:
    rng = random.Random(2027)
    texts = ["x" + "".join(rng.choice(HARMFUL) for _ in range(rng.randint(1, 6))) for _ in range(600)]
    segments = tuple(Segment(2.0 * index, 2.0 * index + 1.9, text) for index, text in enumerate(texts))
    path = tmp_path / "t.srt"
    path.write_text(render(Transcript("", segments=segments), "srt", limits=CaptionLimits(max_line_width=200)), "utf-8")

    shown = convert_captions(ffmpeg, path)

    assert [extract_visible(shown[2 * index]) for index in range(len(texts))] == [*map(extract_visible, texts)]


# --- words of scripts without spaces ---------------------------------------------------------------------------------

JAPANESE = ["東京", "タワー", "の", "レストラン", "で", "友達", "と", "晩ご飯", "を", "食べました", "。"]
CHINESE = ["我们", "明天", "下午", "在", "图书馆", "学习", "人工智能", "，", "然后", "回家", "。"]
THAI = ["วันนี้", "อากาศ", "ดี", "มาก", "เรา", "ไป", "สวนสาธารณะ", "กับ", "เพื่อน"]


def build_transcript(words: list[str], repetitions: int, *, with_segment: bool) -> Transcript:
    timed = tuple(
        Word(0.3 * index, 0.3 * index + 0.28, word)
        for index, word in enumerate(words * repetitions)
        if word[0].isalpha()  # gateways do not name punctuation
    )
    text = "".join(words * repetitions)
    segments = (Segment(0.0, timed[-1].end_s, text),) if with_segment else ()
    return Transcript(text, None, timed[-1].end_s, segments, timed)


def find_line_ends(cues: tuple[Cue, ...]) -> set[int]:
    """Return the positions in the text without spaces at which a line ends."""
    ends, position = set(), 0
    for cue in cues:
        for line in cue.lines:
            position += len(line.replace(" ", ""))
            ends.add(position)
    return ends


@pytest.mark.parametrize("words", [JAPANESE, CHINESE, THAI], ids=["ja", "zh", "th"])
@pytest.mark.parametrize("width", [12, 17, 22, 42])
@pytest.mark.parametrize("repetitions", [1, 6])
@pytest.mark.parametrize("with_segment", [True, False])
def test_lines_do_not_end_inside_words_of_the_gateway(
    words: list[str], width: int, repetitions: int, with_segment: bool
) -> None:
    transcript = build_transcript(words, repetitions, with_segment=with_segment)

    cues = build_cues(transcript, CaptionLimits(max_line_width=width))

    word_ends, position = set(), 0
    for word in words * repetitions:
        position += len(word)
        word_ends.add(position)
    assert "".join(line for cue in cues for line in cue.lines) == transcript.text
    assert find_line_ends(cues) <= word_ends, [cue.lines for cue in cues]


def test_word_wider_than_a_line_is_broken() -> None:
    text = "あ" * 30

    cues = build_cues(Transcript(text, None, 5.0, (), (Word(0.0, 5.0, text),)), CaptionLimits(max_line_width=20))

    assert "".join(line for cue in cues for line in cue.lines) == text
    assert max(len(line) for cue in cues for line in cue.lines) <= 10


@pytest.mark.parametrize("space", [" ", "\u3000"])
@pytest.mark.parametrize("width", [14, 20, 30])
def test_lines_end_at_the_spaces_of_japanese(space: str, width: int) -> None:
    phrases = [
        "きょうは",
        "とても",
        "てんきが",
        "いいので",
        "こうえんで",
        "ともだちと",
        "おひるごはんを",
        "たべました。",
    ]
    text = space.join(phrases * 3)

    cues = build_cues(Transcript(text, "ja", 24.0, (Segment(0.0, 24.0, text),)), CaptionLimits(max_line_width=width))

    lines = [line for cue in cues for line in cue.lines]
    assert " ".join(lines).split() == phrases * 3
