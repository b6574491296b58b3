"""Scripts with several voices: labels of speakers and directives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiocli.text.script import ScriptParser, parse_script

CAST = {"Alice": "nova", "bob smith": "onyx", "小明": "alloy", "Зоя": "ash", "Speaker 1": "echo", "12": "sage"}


def list_turns(text: str) -> list[tuple[str | None, str]]:
    return [(paragraph.voice, paragraph.text) for paragraph in parse_script(text, CAST)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Alice: Hi.\nBob Smith: Hello.", [("nova", "Hi."), ("onyx", "Hello.")]),
        ("ALICE: Hi.\nalice:Ho.", [("nova", "Hi."), ("nova", "Ho.")]),
        ("BOB   SMITH : Hi.", [("onyx", "Hi.")]),
        ("小明：你好。\nЗОЯ: Привет.\nSpeaker 1: Hi.", [("alloy", "你好。"), ("ash", "Привет."), ("echo", "Hi.")]),
        ("**Alice:** Hi.\n__Alice__: Ho.", [("nova", "Hi."), ("nova", "Ho.")]),
        ("Alice (whispers, to Bob): Hi (you).", [("nova", "Hi (you).")]),
        ("  Alice:\nHi.\nMore.", [("nova", "Hi.\nMore.")]),
        # A turn ends at the next label or directive.
        ("Intro.\n\nAlice: One.\n\nTwo.\nThree.", [(None, "Intro."), ("nova", "One."), ("nova", "Two.\nThree.")]),
        ("Alice: Hi.\r\nBob Smith: Hello.\r\n", [("nova", "Hi."), ("onyx", "Hello.")]),
    ],
)
def test_labels_of_the_cast_select_voices(text: str, expected: list[tuple[str | None, str]]) -> None:
    assert list_turns(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[voice: shimmer]\nHi.", [("shimmer", "Hi.")]),
        ("[Voice:shimmer] Hi.\n[voice: alice] Ho.", [("shimmer", "Hi."), ("nova", "Ho.")]),
        ("Alice: Hi.\n[voice: default]\nEnd.", [("nova", "Hi."), (None, "End.")]),
        ("[voice: id:a-1]\n\nHi.", [("id:a-1", "Hi.")]),
    ],
)
def test_directives_select_voices(text: str, expected: list[tuple[str | None, str]]) -> None:
    assert list_turns(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Note: This is text.",
        "http://example.org",
        "12:30 is the time.",
        "Alice://host",
        "I met Alice: she was fine.",
        '"Alice: Hi."',
        "Use [voice: nova] before text.",
        "[sic] text",
        "Hello\nworld",
    ],
)
def test_other_lines_are_text(text: str) -> None:
    assert list_turns(text) == [(None, text)]


def test_names_without_a_voice_are_counted() -> None:
    parser = ScriptParser({"Alice": "nova"})

    paragraphs = parser.parse("Alice: Hi.\nCarol: Ho.\nCarol: Hey.\nNote: once\nAlice: Bye.")

    assert [paragraph.text for paragraph in paragraphs] == ["Hi.\nCarol: Ho.\nCarol: Hey.\nNote: once", "Bye."]
    assert parser.speakers == ("Alice",)
    assert parser.unknown_speakers == {"Carol": 2}


def test_every_name_is_a_label_in_a_declared_script() -> None:
    parser = ScriptParser({"Alice": "nova"}, is_script=True)

    paragraphs = parser.parse("Alice: Hi.\nDr. Who: Ho.\nhttp://a.org 12:30\n李：好。")

    assert [(paragraph.voice, paragraph.text) for paragraph in paragraphs] == [
        ("nova", "Hi."),
        (None, "Ho.\nhttp://a.org 12:30"),
        (None, "好。"),
    ]
    assert parser.unknown_speakers == {"Dr. Who": 1, "李": 1}


def test_voice_continues_in_the_next_text() -> None:
    parser = ScriptParser(CAST)

    assert [paragraph.voice for text in ("Alice:", "One.", "Two.") for paragraph in parser.parse(text)] == ["nova"] * 2
    assert parser.parse("[voice: default]") == ()
    assert [paragraph.voice for paragraph in parser.parse("Three.")] == [None]


@given(st.text(st.characters(exclude_characters=":：[")))
def test_text_without_labels_is_unchanged(text: str) -> None:
    paragraphs = parse_script(text, CAST)

    assert all(paragraph.voice is None and paragraph.text.strip() for paragraph in paragraphs)
    assert "".join("".join(paragraph.text for paragraph in paragraphs).split()) == "".join(text.split())


@given(st.lists(st.tuples(st.sampled_from([*CAST, None]), st.text("ab. \n", min_size=1).filter(str.strip)), max_size=8))
def test_turns_are_spoken_by_their_speakers(turns: list[tuple[str | None, str]]) -> None:
    text = "".join(f"{'[voice: default]' if name is None else f'{name}:'} {words}\n" for name, words in turns)

    spoken: list[tuple[str | None, str]] = []
    for paragraph in parse_script(text, CAST):
        spoken += [(paragraph.voice, word) for word in paragraph.text.split()]

    expected = [(CAST.get(name or ""), word) for name, words in turns for word in words.split()]
    assert spoken == expected


@pytest.mark.parametrize("unit", [" ", "a", "*", "(", "[voice: ", "\n", "Alice", "Alice:"])
def test_a_long_text_is_parsed_in_linear_time(unit: str) -> None:
    assert len(parse_script(unit * 200_000, CAST)) <= 1
