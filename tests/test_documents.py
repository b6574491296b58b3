"""Documents at the front door: `speak -F` sends what a reader would read aloud, and says what it left out."""

from __future__ import annotations

import gzip
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from audiocli.mock import RecordedRequest
from tests.conftest import CommandLine, Result
from tests.documents import build_docx, build_epub, build_odt, build_page
from tests.gateway_contract import read_warnings
from tests.test_long_speech import read_samples
from tests.test_processes import Program, run_in_shell
from tests.test_processes import program as program

ROOT = Path(__file__).parent.parent
HELLO = "Hello there, reader."
PARAGRAPH = f"<w:p><w:r><w:t>{HELLO}</w:t></w:r></w:p>"
NAMESPACES = 'xmlns="http://www.w3.org/2001/10/synthesis" version="1.1" xml:lang="en"'

# A document in every format, by extension. Each says only `HELLO`.
DOCUMENTS: Mapping[str, bytes] = {
    "txt": HELLO.encode(),
    "md": b"**Hello** there, [reader](https://example.com/a).",
    "html": b"<html><body><p>Hello there, <b>reader</b>.</p></body></html>",
    "xhtml": build_page(f"<p>{HELLO}</p>", title="").encode(),
    "epub": build_epub({"1.xhtml": f"<p>{HELLO}</p>"}),
    "docx": build_docx(PARAGRAPH),
    "odt": build_odt(f"<text:p>{HELLO}</text:p>"),
    "srt": b"1\n00:00:00,000 --> 00:00:02,000\n<i>Hello there,</i>\nreader.\n",
    "vtt": b"WEBVTT\n\n00:00.000 --> 00:02.000\n<b>Hello</b> there, reader.\n",
    "ssml": f'<speak {NAMESPACES}>Hello <emphasis level="strong">there</emphasis>, reader.</speak>'.encode(),
}


def write_document(cli: CommandLine, name: str, content: bytes) -> Path:
    path = cli.directory / name
    path.write_bytes(content)
    return path


def list_spoken(requests: list[RecordedRequest]) -> list[str]:
    """Return the texts of the requests, in the order in which they were sent."""
    return [request.json["input"] for request in requests]


def speak_document(cli: CommandLine, name: str, content: bytes, *argv: str, stdin: bytes | None = None) -> Result:
    """Speak a document, with one request at a time, so that the requests are in the order of the text."""
    path = write_document(cli, name, content)
    return cli("speak", "-F", path, "-o", cli.directory / "x.wav", "-j", "1", "--no-cache", *argv, stdin=stdin)


def speak_all(cli: CommandLine, name: str, content: bytes, *argv: str) -> str:
    """Return the complete text that was sent for a document."""
    r = speak_document(cli, name, content, *argv)
    assert r.code == 0, r.err
    return "\n".join(list_spoken(r.posts))


# --- formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", DOCUMENTS)
def test_document_is_read_by_its_extension(audiocli: CommandLine, extension: str) -> None:
    r = speak_document(audiocli, f"a.{extension.upper()}", DOCUMENTS[extension])

    assert r.code == 0, r.err
    assert list_spoken(r.posts) == [HELLO]


@pytest.mark.parametrize("extension", DOCUMENTS)
def test_document_is_read_by_the_format_that_is_named(audiocli: CommandLine, extension: str) -> None:
    name = {"txt": "text", "md": "markdown", "xhtml": "html"}.get(extension, extension)

    r = audiocli("speak", "--from", name, "-o", audiocli.directory / "x.wav", stdin=DOCUMENTS[extension])

    assert r.code == 0, r.err
    assert list_spoken(r.posts) == [HELLO]


@pytest.mark.parametrize(
    ("extension", "command"),
    [("epub", "cat a.bin | run"), ("docx", "run -F - < a.bin"), ("odt", "run -F <(cat a.bin)")],
)
def test_document_without_an_extension_is_recognized(audiocli: CommandLine, extension: str, command: str) -> None:
    write_document(audiocli, "a.bin", DOCUMENTS[extension])

    r = run_in_shell(audiocli, "speak -o x.wav", command, audiocli.directory)

    assert r.code == 0, r.err
    assert list_spoken(r.posts) == [HELLO]


@pytest.mark.parametrize("extension", ["html", "ssml", "srt", "vtt"])
def test_markup_on_stdin_is_spoken_as_it_is_unless_named(audiocli: CommandLine, extension: str) -> None:
    r = audiocli("speak", "-o", audiocli.directory / "x.wav", stdin=DOCUMENTS[extension])

    assert r.code == 0, r.err
    assert "".join(list_spoken(r.posts)).split() == DOCUMENTS[extension].decode().split()


@pytest.mark.parametrize(
    ("encoding", "option"),
    [("cp1252", "cp1252"), ("shift_jis", "shift-jis"), ("utf-16-le", "utf-16-le"), ("koi8-r", "KOI8-R")],
)
@pytest.mark.parametrize("extension", ["txt", "md", "html", "srt"])
def test_text_is_read_in_the_encoding_that_is_named(
    audiocli: CommandLine, encoding: str, option: str, extension: str
) -> None:
    words = {
        "cp1252": "Grüße für zwölf Bären",
        "shift_jis": "こんにちは、世界",
        "utf-16-le": "Żółw ∑",
        "koi8-r": "Привет",
    }
    text = words[encoding]
    content = DOCUMENTS[extension].decode().replace("there", text).encode(encoding)

    spoken = speak_all(audiocli, f"a.{extension}", content, "--encoding", option)

    assert spoken == HELLO.replace("there", text)


def test_encoding_that_does_not_fit_is_a_usage_error(audiocli: CommandLine) -> None:
    for argv in (("--encoding", "nonsense"), ("--encoding", "ascii")):
        r = speak_document(audiocli, "a.txt", "Grüße".encode("cp1252"), *argv)

        assert (r.code, r.posts) == (2, []), r.err


def test_name_of_a_document_as_text_is_a_usage_error(audiocli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(audiocli.directory)
    for extension in ("epub", "docx", "odt", "srt", "vtt", "ssml", "html", "md", "jsonl", "csv"):
        write_document(audiocli, f"a.{extension}", b"x")

        r = audiocli("speak", f"a.{extension}", "-o", "x.wav")

        assert (r.code, r.posts) == (2, []), r.err
        assert f"audiocli speak -F a.{extension}" in r.err


def test_name_of_a_text_file_as_text_is_a_warning(audiocli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(audiocli.directory)
    write_document(audiocli, "notes.txt", b"x")

    r = audiocli("speak", "notes.txt", "-o", "x.wav", "--json")

    assert r.code == 0, r.err
    assert list_spoken(r.posts) == ["notes.txt"]
    assert any("use -F notes.txt" in warning for warning in r.json["warnings"])


@pytest.mark.parametrize(
    "words", [["missing.epub"], ["a.epub", "is", "a", "book"], ["The file a.epub"], ["."], ["x" * 300]]
)
def test_words_that_are_not_a_document_are_spoken(
    audiocli: CommandLine, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(audiocli.directory)
    write_document(audiocli, "a.epub", DOCUMENTS["epub"])

    r = audiocli("speak", *words, "-o", "x.wav")

    assert (r.code, read_warnings(r)) == (2 if words == ["."] else 0, []), r.err
    assert list_spoken(r.posts) == ([] if words == ["."] else [" ".join(words)])


def test_name_of_an_unsupported_document_is_a_hint(audiocli: CommandLine) -> None:
    for name, program_name in (("a.pdf", "pdftotext"), ("a.doc", "catdoc"), ("a b.mobi", "ebook-convert 'a b.mobi'")):
        path = write_document(audiocli, name, b"x")

        r = audiocli("speak", "-F", path, "-o", audiocli.directory / "x.wav")

        assert (r.code, r.posts) == (2, [])
        assert program_name.split()[0] in r.err
        assert str(path) in r.err


# --- cleaning ---------------------------------------------------------------------------------------------------------

MESSY = "a\u200bb\x1b[31mred\x1b[0m\tsee https://example.com/x?y=z 😀 <think>no</think>\r\nfi\u00adne\x07 ok"


def test_raw_text_is_sent_unchanged(audiocli: CommandLine) -> None:
    for name, content in (("a.txt", MESSY.encode()), ("a.md", b"# **Title**\n\n* a\n"), ("a.html", DOCUMENTS["html"])):
        r = speak_document(audiocli, name, content, "--raw")

        assert r.code == 0, r.err
        assert list_spoken(r.posts) == [content.decode()]


@pytest.mark.parametrize("argv", [(), ("-",), (MESSY,)])
def test_raw_text_is_sent_unchanged_from_every_source(audiocli: CommandLine, argv: tuple[str, ...]) -> None:
    r = audiocli("speak", "--raw", *argv, "-o", audiocli.directory / "x.wav", stdin=MESSY.encode())

    assert r.code == 0, r.err
    assert list_spoken(r.posts) == [MESSY]


CLEANED = {
    "urls": ("Read https://www.example.com/a?b=c now.", "Read link to example.com now.", {"URL": 1}),
    "emoji": ("Well done 🎉👍🏽 all.", "Well done all.", {"emoji": 2}),
    "boxes": ("Before.\n┌───┐\n│ a │\n└───┘\nAfter.", "Before.\n\na\n\nAfter.", {"line with box drawing": 3}),
    "think": ("<think>Hm.\n\nLet me see.</think>The answer is 4.", "The answer is 4.", {"think block": 1}),
    "wrap": (
        "This paragraph was wrapped by an editor at a fixed width, so that one of its sen-\n"
        "tences continues in the next line, and so does the sentence after that one, until\n"
        "the paragraph ends.\n",
        "This paragraph was wrapped by an editor at a fixed width, so that one of its sentences continues in the next "
        "line, and so does the sentence after that one, until the paragraph ends.",
        {},
    ),
}


@pytest.mark.parametrize("step", CLEANED)
def test_cleaning_step_changes_the_text_that_is_sent(audiocli: CommandLine, step: str) -> None:
    text, expected, _ = CLEANED[step]

    for name in ("a.txt", "a.md") if step in ("urls", "emoji", "think") else ("a.txt",):
        assert speak_all(audiocli, name, text.encode(), "--clean", step).strip() == expected, name
    # Without the step, nothing of it is left out.
    unchanged = speak_all(audiocli, "a.txt", text.encode())
    assert unchanged.split() == text.replace("sen-\n", "sen").split()


@pytest.mark.parametrize("step", CLEANED)
def test_result_counts_what_was_left_out(audiocli: CommandLine, step: str) -> None:
    text, _, omitted = CLEANED[step]

    planned = speak_document(audiocli, "a.txt", text.encode(), "--clean", step, "-n", "--json")
    spoken = speak_document(audiocli, "a.txt", text.encode(), "--clean", step, "--json")

    assert planned.json["omitted"] == omitted
    assert spoken.json.get("omitted", {}) == omitted


def test_all_steps_work_together(audiocli: CommandLine) -> None:
    text = "\n\n".join(text for text, _, _ in CLEANED.values())

    r = speak_document(audiocli, "a.txt", text.encode(), "--clean", "wrap,think,boxes,emoji,urls", "--json")

    assert r.code == 0, r.err
    assert list_spoken(r.posts)[0].split() == " ".join(expected for _, expected, _ in CLEANED.values()).split()
    assert r.json["omitted"] == {key: count for _, _, omitted in CLEANED.values() for key, count in omitted.items()}


def test_unknown_cleaning_step_is_a_usage_error(audiocli: CommandLine) -> None:
    r = audiocli("speak", "x", "--clean", "url", "-o", audiocli.directory / "x.wav")

    assert (r.code, r.posts) == (2, [])
    assert "did you mean 'urls'?" in r.err


@pytest.mark.parametrize("option", [("--clean", "urls"), ("--pronunciations", "x"), ("--voice-for", "a=b")])
def test_raw_contradicts_preparation(audiocli: CommandLine, option: tuple[str, str]) -> None:
    r = audiocli("speak", "x", "--raw", *option, "-o", audiocli.directory / "x.wav")

    assert (r.code, r.posts) == (2, [])
    assert "--raw" in r.err


def test_open_pipe_is_cleaned_while_it_is_read(program: Program, audiocli: CommandLine) -> None:
    argv = ("-o", audiocli.directory / "x.wav", "--clean", "urls,think", "--json")
    process = program.start("speak", *argv, stdin=-1)
    assert process.stdin is not None
    process.stdin.write(b"One <think>no, no.\n\nNo.</think>sentence is here.\n\nMore at https://exam")
    process.stdin.flush()
    audiocli.gateway.wait_for_requests(1)

    out, err = process.communicate(b"ple.com/a/b today.\n", timeout=20)

    assert process.returncode == 0, err
    assert json.loads(out)["omitted"] == {"URL": 1, "think block": 1}
    spoken = " ".join(list_spoken(audiocli.gateway.posts))
    assert spoken.split() == ["One", "sentence", "is", "here.", "More", "at", "link", "to", "example.com", "today."]


def test_block_without_an_end_on_an_open_pipe_is_a_warning(program: Program, audiocli: CommandLine) -> None:
    process = program.start("speak", "-o", audiocli.directory / "x.wav", "--clean", "think", "--json", stdin=-1)
    assert process.stdin is not None
    process.stdin.write(f"{HELLO}\n\n<think>".encode())
    process.stdin.flush()
    audiocli.gateway.wait_for_requests(1)

    out, err = process.communicate(b"Never spoken.", timeout=20)

    assert process.returncode == 0, err
    assert list_spoken(audiocli.gateway.posts) == [HELLO]
    assert len(json.loads(out)["warnings"]) == 1


def test_wrap_on_an_open_pipe_is_a_warning(program: Program, audiocli: CommandLine) -> None:
    process = program.start("speak", "-o", audiocli.directory / "x.wav", "--clean", "wrap", stdin=-1)
    assert process.stdin is not None
    process.stdin.write(f"{HELLO}\n\n".encode())
    process.stdin.flush()
    audiocli.gateway.wait_for_requests(1)

    _, err = process.communicate(b"The end.", timeout=20)

    assert process.returncode == 0, err
    assert b"warning: --clean wrap" in err


def test_language_of_an_open_pipe_chooses_the_pronunciations(program: Program, audiocli: CommandLine) -> None:
    audiocli.write_config('[pronunciations.de]\nChef = "Scheff"\n')
    process = program.start("speak", "-o", audiocli.directory / "x.wav", "--json", stdin=-1)
    assert process.stdin is not None
    process.stdin.write(b"Das ist nicht der Chef.\n\n")
    process.stdin.flush()
    audiocli.gateway.wait_for_requests(1)

    out, err = process.communicate(b"Chef.", timeout=20)

    assert process.returncode == 0, err
    assert json.loads(out)["pronunciations"] == {"Chef": 2}
    assert " ".join(list_spoken(audiocli.gateway.posts)).split() == ["Das", "ist", "nicht", "der", "Scheff.", "Scheff."]


# --- real documents ---------------------------------------------------------------------------------------------------


def test_readme_of_the_project_is_spoken(audiocli: CommandLine) -> None:
    source = (ROOT / "README.md").read_text("utf-8")

    spoken = speak_all(audiocli, "README.md", source.encode())

    # Outside code blocks, no mark of Markdown is left, and no target of a link.
    assert not re.search(r"\]\(|^#+ |\*\*|^\s*```|<img|<!--", spoken, re.MULTILINE)
    assert "https://" not in spoken
    prose = re.sub(r"```.*?```", "", source, flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    assert len(headings) > 3
    assert all(re.sub(r"[`*]", "", heading) in spoken for heading in headings)


def test_man_page_is_spoken_without_overstrikes(audiocli: CommandLine) -> None:
    def embolden(text: str) -> str:
        return "".join(f"{char}\b{char}" for char in text)

    def underline(text: str) -> str:
        return "".join(f"_\b{char}" for char in text)

    page = (
        f"CP(1)                 User Commands                 CP(1)\n\n{embolden('NAME')}\n       cp - copy files\n\n"
        f"{embolden('SYNOPSIS')}\n       {embolden('cp')} [{underline('OPTION')}]... {underline('SOURCE DEST')}\n\n"
        f"{embolden('DESCRIPTION')}\n       Copy SOURCE to DEST, or multi\u2010\n       ple SOURCE(s) to DIRECTORY.\n\n"
        f"       {embolden('-a')}, {embolden('--archive')}\n              same as {embolden('-dR')}\n"
    )

    spoken = speak_all(audiocli, "page.txt", page.encode())

    expected = (
        "CP(1) User Commands CP(1) NAME cp - copy files SYNOPSIS cp [OPTION]... SOURCE DEST DESCRIPTION "
        "Copy SOURCE to DEST, or multiple SOURCE(s) to DIRECTORY. -a, --archive same as -dR"
    )
    assert spoken.split() == expected.split()


def test_colored_log_is_spoken_without_colors(audiocli: CommandLine) -> None:
    log = (
        "\x1b[1m\x1b[32mPASS\x1b[0m tests/a.py \x1b[2K\r\x1b[31m✗ failed\x1b[39m: 1 of 12\x1b[0m\n"
        "\x1b]8;;https://example.com/log\x1b\\Open the log\x1b]8;;\x1b\\ \x1b[38;2;255;0;0m\x1b[?25hnow\x1b[m\n"
    )

    spoken = speak_all(audiocli, "build.txt", log.encode())

    assert spoken.split() == ["PASS", "tests/a.py", "✗", "failed:", "1", "of", "12", "Open", "the", "log", "now"]


ARTICLE = """<!DOCTYPE html><html lang="en"><head><title>On bells &amp; whistles</title>
<script>var x = "never spoken";</script><style>p { color: red }</style></head><body>
<header><nav><a href="/">Home</a> <a href="/about">About us</a></nav></header>
<article><h1>On bells &amp; whistles</h1><p>Bells are <em>old</em>. They ring,<br>loudly, in every town
that has a tower, and people have complained about them for as long as there have been towers and bells.</p>
<img src="a.png" alt="A bell"><pre>ring()</pre>
<p>Whistles are newer, and they are louder still, which is why referees use them and bell ringers do not.</p>
<ul><li>First</li><li>Second</li></ul></article>
<aside>Subscribe to our newsletter</aside><footer>Copyright</footer></body></html>"""


def test_article_is_spoken_without_navigation(audiocli: CommandLine) -> None:
    spoken = speak_all(audiocli, "article.html", ARTICLE.encode())

    assert "Bells are old. They ring," in spoken
    assert all(word in spoken for word in ("On bells & whistles", "Whistles are newer", "First", "Second"))
    assert not any(word in spoken for word in ("never spoken", "color: red", "About us", "Subscribe", "Copyright"))


def test_whole_page_is_spoken_if_named(audiocli: CommandLine) -> None:
    spoken = speak_all(audiocli, "article.html", ARTICLE.encode(), "--from", "html-page")

    assert all(word in spoken for word in ("About us", "Subscribe", "Copyright", "Bells are old."))
    assert not any(word in spoken for word in ("never spoken", "color: red"))


def test_word_document_is_spoken(audiocli: CommandLine) -> None:
    def paragraph(text: str, style: str = "") -> str:
        properties = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
        return f"<w:p>{properties}<w:r><w:t>{text}</w:t></w:r></w:p>"

    deleted = "<w:p><w:r><w:t>We agree</w:t></w:r><w:del><w:r><w:delText> not</w:delText></w:r></w:del></w:p>"
    cells = "".join(f"<w:tc>{paragraph(text)}</w:tc>" for text in ("Price", "12"))
    content = build_docx(
        paragraph("Minutes", "Heading1")
        + paragraph("Five people came.")
        + deleted
        + f"<w:tbl><w:tr>{cells}</w:tr></w:tbl>"
    )

    spoken = speak_all(audiocli, "minutes.docx", content)

    assert re.sub(r"[.,;:\s]+", " ", spoken).strip() == "Minutes Five people came We agree Price 12"


def test_ssml_is_spoken_with_pauses_and_voices(audiocli: CommandLine) -> None:
    text = (
        f'<speak {NAMESPACES}><p><s>Call <say-as interpret-as="characters">SQL</say-as></s></p>'
        'One.<break time="500ms"/><voice name="am_adam">Two &amp; three.</voice>'
        '<sub alias="World Wide Web">WWW</sub><prosody rate="slow"> is slow.</prosody></speak>'
    )

    r = speak_document(audiocli, "a.ssml", text.encode(), "-m", "hexgrad/kokoro-82m", "-v", "af_bella")

    assert r.code == 0, r.err
    assert [(request.json["input"].strip(), request.json["voice"]) for request in r.posts] == [
        ("Call S Q L.\n\nOne.", "af_bella"),
        ("Two & three.", "am_adam"),
        ("World Wide Web is slow.", "af_bella"),
    ]
    assert any("<prosody> is not supported" in warning for warning in read_warnings(r))
    samples = read_samples(audiocli.directory / "x.wav")
    first_bytes = 2 * 1440 * len("Call S Q L.\n\nOne.")
    assert samples[first_bytes : first_bytes + 24_000] == bytes(24_000)  # 500 ms


def test_text_of_captions_is_spoken_without_markup(audiocli: CommandLine) -> None:
    captions = (
        "1\n00:00:00,000 --> 00:00:02,000\n{\\an8}<font color='red'>Hello</font>,\nyou.\n\n"
        "2\n00:00:02,500 --> 00:00:04,000\n♪ <i>Bye.</i>\n"
    )

    r = speak_document(audiocli, "a.srt", captions.encode())

    assert r.code == 0, r.err
    assert list_spoken(r.posts) == ["Hello, you.", "♪ Bye."]


def test_open_document_is_not_waited_for_in_parts(program: Program, audiocli: CommandLine) -> None:
    """A book on a pipe arrives slowly: it is read to its end, not spoken as text."""
    book = DOCUMENTS["epub"]
    process = program.start("speak", "--from", "epub", "-o", audiocli.directory / "x.wav", stdin=-1)
    assert process.stdin is not None
    process.stdin.write(book[:100])
    process.stdin.flush()

    _, err = process.communicate(book[100:], timeout=20)

    assert process.returncode == 0, err
    assert list_spoken(audiocli.gateway.posts) == [HELLO]


# --- pronunciations ---------------------------------------------------------------------------------------------------


def test_pronunciations_of_file_and_configuration_are_sent(audiocli: CommandLine) -> None:
    audiocli.write_config(
        '[pronunciations]\nSQL = "sequel"\nnginx = "engine x"\n[pronunciations.de]\nChef = "Scheff"\n'
    )
    rules = write_document(audiocli, "rules.toml", b'SQL = "S Q L"\n"/v(\\\\d+)/" = "version \\\\1"\n')

    r = audiocli("speak", "SQL and NGINX v12, Chef", "--pronunciations", rules, "-o", audiocli.directory / "x.wav")

    assert r.code == 0, r.err
    assert list_spoken(r.posts) == ["S Q L and engine x version 12, Chef"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "word,pronunciation,language\nChef,Scheff,de\nChef,chief,en\n"),
        ("a.toml", '[de]\nChef = "Scheff"\n[en]\nChef = "chief"\n'),
        ("a.txt", "[de]\nChef = Scheff\n[en]\nChef = chief\n"),
    ],
)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Der Chef und die Leute sind heute nicht im Büro, weil es regnet.", "Der Scheff und die Leute"),
        ("The Chef was not there with the others when this happened.", "The chief was not"),
    ],
)
def test_pronunciations_depend_on_the_language(
    audiocli: CommandLine, name: str, content: str, text: str, expected: str
) -> None:
    rules = write_document(audiocli, name, content.encode())

    r = audiocli("speak", text, "--pronunciations", rules, "-o", audiocli.directory / "x.wav")

    assert r.code == 0, r.err
    assert list_spoken(r.posts)[0].startswith(expected)


def test_language_of_a_book_chooses_the_pronunciations(audiocli: CommandLine) -> None:
    audiocli.write_config('[pronunciations.de]\nChef = "Scheff"\n')
    book = build_epub({"1.xhtml": "<p>Chef OK</p>"}, metadata="<dc:language>de-AT</dc:language>")

    assert speak_all(audiocli, "a.epub", book) == "Scheff OK"


def test_dry_run_counts_pronunciations(audiocli: CommandLine) -> None:
    audiocli.write_config('[pronunciations]\nSQL = "sequel"\nunused = "x"\n')

    r = audiocli("speak", "SQL, SQL!", "-n", "--json", "-o", audiocli.directory / "x.wav")
    shown = audiocli("speak", "SQL, SQL!", "-n", "-o", audiocli.directory / "x.wav")

    assert (r.code, r.json["pronunciations"]) == (0, {"SQL": 2})
    assert "SQL (2)" in shown.text


def test_pronunciations_apply_before_the_text_is_split(audiocli: CommandLine) -> None:
    audiocli.write_config('[pronunciations]\nx = "a word that is much longer than before"\n')

    r = audiocli("speak", "x. " * 20, "--max-chars", "50", "-o", audiocli.directory / "x.wav")

    assert r.code == 0, r.err
    assert all(len(text) <= 50 for text in list_spoken(r.posts))


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.toml", "SQL = 1"), ("a.csv", "word,pronunciation\na\n"), ("a.txt", "/(/ = x\n"), ("a.txt", "x")],
)
def test_malformed_pronunciations_are_a_usage_error(audiocli: CommandLine, name: str, content: str) -> None:
    rules = write_document(audiocli, name, content.encode())

    r = audiocli("speak", "x", "--pronunciations", rules, "-o", audiocli.directory / "x.wav")

    assert (r.code, r.posts) == (2, []), r.err
    assert name in r.err


# --- hostile documents ------------------------------------------------------------------------------------------------

MUTATIONS = 50


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Change a document in one of the ways in which files are damaged or forged."""
    changed = bytearray(content)
    position, length = rng.randrange(len(content)), rng.choice((1, 4, 40))
    match rng.randrange(6):
        case 0:
            changed[position] ^= 1 << rng.randrange(8)
        case 1:
            changed[position : position + length] = rng.randbytes(length)
        case 2:
            del changed[position : position + length]
        case 3:
            del changed[position:]
        case 4:
            changed[position:position] = changed[: length * 10]
        case _:
            changed[position : position + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"<!--", b"&#0;"))
    return bytes(changed)


@pytest.mark.parametrize("extension", ["epub", "docx", "odt", "html"])
def test_damaged_document_is_never_a_bug(audiocli: CommandLine, extension: str) -> None:
    rng = random.Random(19)
    codes: Counter[int] = Counter()
    for _ in range(MUTATIONS):
        r = speak_document(audiocli, f"a.{extension}", mutate(DOCUMENTS[extension], rng), "-n", "--json")

        codes[r.code] += 1
        assert r.posts == []
        assert r.code in (0, 2, 8), r.err
        # Only a text may be in an encoding that has to be named.
        assert r.code != 2 or "no text to speak" in r.err or extension == "html", r.err

    assert codes[0] and (codes[8] or extension == "html"), codes


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("bomb.epub", lambda: build_epub({"1.xhtml": ""}, entries={"OEBPS/1.xhtml": b" " * 60_000_000})),
        ("bomb.docx", lambda: build_docx("", entries={"word/styles.xml": b" " * 60_000_000})),
        ("nested.odt", lambda: build_odt("<text:span>" * 50_000 + "</text:span>" * 50_000)),
        (
            "entities.epub",
            lambda: build_epub(
                {"1.xhtml": ""},
                entries={"OEBPS/book.opf": '<!DOCTYPE a [<!ENTITY x "y"><!ENTITY z "&x;&x;">]><package>&z;</package>'},
            ),
        ),
        ("not.docx", lambda: gzip.compress(b"x")),
        ("cut.epub", lambda: DOCUMENTS["epub"][:-200]),
        ("empty.docx", lambda: b"PK\x05\x06" + bytes(18)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hostile_document_is_refused(audiocli: CommandLine, name: str, build: Callable[[], bytes]) -> None:
    r = speak_document(audiocli, name, build())

    assert (r.code, r.posts) == (8, []), r.err
    assert name in r.err
    assert len(r.err) < 500
    assert not (audiocli.directory / "x.wav").exists()


def test_names_of_a_book_do_not_leave_it(audiocli: CommandLine) -> None:
    secret = write_document(audiocli, "secret.xhtml", b"<html><body><p>secret</p></body></html>")
    book = build_epub({f"../../../../../../{secret}": "<p>Inside.</p>", "1.xhtml": f"<p>{HELLO}</p>"})

    r = speak_document(audiocli, "a.epub", book)

    assert "secret" not in "".join(list_spoken(r.posts))
    assert r.code in (0, 8), r.err
