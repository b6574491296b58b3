"""SSML: pauses, voices and replacements; tags are never spoken."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiocli.errors import UsageError
from audiocli.text.document import Document, Paragraph
from audiocli.text.readers import read_document


def read_ssml(body: str) -> Document:
    return read_document(f'<speak xml:lang="en-GB">{body}</speak>'.encode(), "ssml", "a.ssml")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("Hello\n  <mark name='x'/>there &amp; you", [Paragraph("Hello there & you")]),
        ("<p>One</p><p>Two</p>three", [Paragraph("One"), Paragraph("Two"), Paragraph("three")]),
        ("<p><s>One</s><s>Two!</s> Three</p>", [Paragraph("One. Two! Three")]),
        ("One<break time='1.5s'/>two", [Paragraph("One", pause_ms=1500.0), Paragraph("two")]),
        ("One<break time='250ms'/><break strength='weak'/>two", [Paragraph("One", pause_ms=750.0), Paragraph("two")]),
        ("One<break/>", [Paragraph("One", pause_ms=750.0)]),
        ("One<break strength='none'/> two<break time='0s'/> three", [Paragraph("One two three")]),
        ("<p>One</p><break time='1s'/><p>two</p>", [Paragraph("One", pause_ms=1000.0), Paragraph("two")]),
        (
            "a<voice name='nova'>b<voice name='alloy'>c</voice>d</voice>e",
            [Paragraph("a"), Paragraph("b", "nova"), Paragraph("c", "alloy"), Paragraph("d", "nova"), Paragraph("e")],
        ),
        ("<sub alias='World Wide Web'>WWW</sub> site", [Paragraph("World Wide Web site")]),
        ("<say-as interpret-as='characters'>AB 12</say-as>", [Paragraph("A B 1 2")]),
        ("<say-as interpret-as='spell-out'>cat</say-as>", [Paragraph("c a t")]),
        ("<say-as interpret-as='telephone'>+1 555-0100</say-as>", [Paragraph("+ 1, 5 5 5, 0 1 0 0")]),
        ("<say-as interpret-as='date' format='dmy'>5/12/2027</say-as>", [Paragraph("2027-12-05")]),
        ("<say-as interpret-as='date' format='yyyymmdd'>2027-12-5</say-as>", [Paragraph("2027-12-05")]),
        ("<audio src='https://example.com/a.mp3'><desc>no</desc>A bell</audio> rings", [Paragraph("A bell rings")]),
        ("<lexicon uri='x'/><metadata>no</metadata><token>word</token>", [Paragraph("word")]),
        ("<![CDATA[a < b]]><!-- no --><?no?>", [Paragraph("a < b")]),
        ("", []),
    ],
)
def test_elements_become_paragraphs_with_pauses_and_voices(body: str, expected: list[Paragraph]) -> None:
    document = read_ssml(body)

    assert list(document.paragraphs) == expected
    assert (document.warnings, document.language) == ((), "en-GB")


def test_unsupported_elements_are_spoken_with_one_warning_for_each_kind() -> None:
    document = read_ssml(
        "<prosody rate='slow'>a</prosody> <prosody pitch='high'>b</prosody> <emphasis>c</emphasis> "
        "<amazon:effect name='whispered'>d</amazon:effect> <say-as interpret-as='ordinal'>3</say-as> "
        "<say-as interpret-as='date' format='dmy'>tomorrow</say-as> <voice gender='female'>e</voice>"
    )

    assert [p.text for p in document.paragraphs] == ["a b c d 3 tomorrow", "e"]
    kinds = ["prosody", "emphasis", "amazon:effect", "ordinal", "date", "voice"]
    assert len(document.warnings) == len(kinds)
    assert all(kind in warning for kind, warning in zip(kinds, document.warnings, strict=True))


def test_what_is_left_out_is_counted() -> None:
    assert read_ssml("<break/>One <audio src='x'/>").omitted == {"pause at the beginning": 1, "audio clip": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<speak>\n<p>a</speak>", "line 2: mismatched tag"),
        ("<speak>a & b</speak>", "line 1"),
        ("plain", "line 1: syntax error"),
        ("", "line 1: no element found"),
        ("<html><p>a</p></html>", "not SSML: it begins with <html>"),
        ("<speak>\n\n<break time='soon'/></speak>", "line 3: malformed time 'soon'"),
        ("<speak><break strength='huge'/></speak>", "unknown strength 'huge'"),
        ("<!DOCTYPE speak [<!ENTITY a 'b'>]><speak>&a;</speak>", "entity 'a' is declared"),
        ("<speak>" + "<p>" * 300 + "</speak>", "nested deeper than 256"),
    ],
)
def test_malformed_ssml_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_document(text.encode(), "ssml", "a.ssml")


WORDS = st.text(st.characters(categories=["L", "Nd"]), min_size=1, max_size=8)
TAGS = st.sampled_from(["p", "s", "prosody", "emphasis", "voice", "audio", "x:y"])


@settings(max_examples=100, deadline=None)
@given(st.recursive(WORDS, lambda inner: st.tuples(TAGS, st.lists(inner, max_size=4)), max_leaves=20))
def test_every_word_is_spoken_once_and_no_tag(tree: object) -> None:
    words: list[str] = []

    def build(node: object) -> str:
        if isinstance(node, str):
            words.append(node)
            return f" {node} "
        assert isinstance(node, tuple)
        return f"<{node[0]}>{''.join(map(build, node[1]))}</{node[0]}>"

    document = read_ssml(build(tree))

    spoken = [word.rstrip(".。।") for p in document.paragraphs for word in p.text.split()]
    assert [word for word in spoken if word] == words
