"""Readers keep all visible text of their format: pandoc is the reference, for documents that it writes and reads.

Every word of the documents is different, so that a word that is lost, doubled or read twice is seen.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from audiocli.text.document import Document
from audiocli.text.readers import read_document
from tests.documents import PNG
from tests.requirements import require_program

SEEDS = range(3)


class MarkdownGenerator:
    """Generate Markdown with every kind of block. Words are numbered."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.words: list[str] = []
        self.notes: list[str] = []
        self.titles: list[str] = []

    def generate(self) -> str:
        blocks = [self._generate_chapter() for _ in range(5)]
        return "\n\n".join([*blocks, *self.notes]) + "\n"

    def _generate_word(self) -> str:
        self.words.append(f"w{len(self.words)}")
        return self.words[-1]

    def _generate_text(self) -> str:
        word = self._generate_word
        kinds = [
            lambda: word(),
            lambda: f"*{word()}*",
            lambda: f"**{word()} {word()}**",
            lambda: f"[{word()}](https://example.com)",
            lambda: f"`{word()}`",
            lambda: f"{word()} & {word()}",
            lambda: word() + self._generate_note(),
        ]
        return " ".join(self._random.choice(kinds)() for _ in range(self._random.randint(1, 6)))

    def _generate_note(self) -> str:
        label = f"n{len(self.notes)}"
        self.notes.append(f"[^{label}]: {self._generate_word()} {self._generate_word()}")
        return f"[^{label}]"

    def _generate_chapter(self) -> str:
        title = f"{self._generate_word()} {self._generate_word()}"
        self.titles.append(title)
        blocks = [f"# {title}", self._generate_text()]
        for _ in range(6):
            blocks.append(self._random.choice([self._generate_list, self._generate_table, self._generate_other])())
        return "\n\n".join(blocks)

    def _generate_list(self, depth: int = 0) -> str:
        marker = self._random.choice(["-", "1."])
        lines = []
        for _ in range(self._random.randint(1, 3)):
            lines.append(f"{marker} {self._generate_text()}")
            if depth < 2 and self._random.random() < 0.4:
                lines.append(re.sub("(?m)^", "    ", self._generate_list(depth + 1)))
        return "\n".join(lines)

    def _generate_table(self) -> str:
        rows = [f"| {self._generate_word()} | {self._generate_word()} |" for _ in range(3)]
        return "\n".join([rows[0], "|----|----|", *rows[1:]])

    def _generate_other(self) -> str:
        word, text = self._generate_word, self._generate_text
        kinds = [
            lambda: f"## {word()}",
            lambda: f"> {text()}\n>\n> {word()}",
            lambda: f"```\n{word()} = {word()}\n```",
            lambda: f"{text()}\\\n{word()}",
        ]
        return self._random.choice(kinds)()


def run_pandoc(*arguments: str | Path) -> str:
    done = subprocess.run(
        [require_program("pandoc"), *arguments], check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout


def list_words(text: str) -> list[str]:
    return sorted(re.findall(r"\bw\d+\b", text), key=lambda word: int(word[1:]))


def read_reference(path: Path) -> list[str]:
    """Return the words that pandoc reads."""
    strings: list[str] = []

    def collect(node: object) -> None:
        if isinstance(node, dict):
            if node.get("t") == "Str":
                strings.append(node["c"])
            elif node.get("t") in ("Code", "CodeBlock"):
                strings.append(node["c"][1])
            else:
                collect(list(node.values()))
        elif isinstance(node, list):
            for item in node:
                collect(item)

    collect(json.loads(run_pandoc(path, "-t", "json"))["blocks"])
    return list_words(" ".join(strings))


def read_text(document: Document) -> str:
    return "\n".join(paragraph.text for paragraph in document.paragraphs)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("extension", "format", "options"),
    [
        ("html", "html", ("-s",)),
        ("html", "html-page", ("-s",)),
        ("xhtml", "html", ("-s", "-t", "html4")),
        ("epub", "epub", ("-t", "epub3")),
        ("epub", "epub", ("-t", "epub2")),
        ("docx", "docx", ()),
        ("odt", "odt", ()),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else str(value),
)
def test_document_by_pandoc_is_read_like_pandoc_reads_it(
    tmp_path: Path, seed: int, extension: str, format: str, options: tuple[str, ...]
) -> None:
    generator = MarkdownGenerator(seed)
    (tmp_path / "a.md").write_text(generator.generate())
    path = tmp_path / f"a.{extension}"
    metadata = ("-M", "title=The book", "-M", "author=Ann", "-M", "lang=en-GB")
    run_pandoc(tmp_path / "a.md", "-o", path, *options, *metadata)

    document = read_document(path.read_bytes(), format, path.name)

    words = list_words(read_text(document))
    assert words == generator.words
    # Of ODT, pandoc 2.17 does not read code.
    assert not Counter(read_reference(path)) - Counter(words)
    assert (document.title, document.author, document.language) == ("The book", "Ann", "en-GB")
    assert [
        chapter.title for chapter in document.chapters if chapter.title not in (None, "The book")
    ] == generator.titles


@pytest.mark.parametrize("seed", SEEDS)
def test_markdown_is_read_like_pandoc_reads_it(tmp_path: Path, seed: int) -> None:
    generator = MarkdownGenerator(seed)
    source = generator.generate()
    (tmp_path / "a.md").write_text(source)

    document = read_document(source.encode(), "markdown", "a.md")

    assert list_words(read_text(document)) == generator.words == read_reference(tmp_path / "a.md")
    assert [chapter.title for chapter in document.chapters] == generator.titles


def generate_html(source: random.Random, words: list[str], depth: int = 0) -> str:
    """Generate HTML of elements in any order, also such that do not belong there."""
    inlines = ["b", "span", "a", "em", "u", "q", "small"]
    blocks = ["p", "div", "section", "blockquote", "h1", "h3", "center", "figure", "address", "main", "form"]
    parts = []
    for _ in range(source.randint(1, 4)):
        word = f"w{len(words)}"
        words.append(word)
        kind = source.randrange(7)
        if depth > 4 or kind == 0:
            parts.append(f" {word} ")
        elif kind in (1, 2):
            tag = source.choice(inlines if kind == 1 else blocks)
            parts.append(f"<{tag}> {word} {generate_html(source, words, depth + 1)}</{tag}>")
        elif kind == 3:
            tag = source.choice(["ul", "ol"])
            items = [generate_html(source, words, depth + 1) for _ in range(2)]
            parts.append(f"<{tag}><li>{word} {items[0]}<li>{items[1]}</{tag}>")
        elif kind == 4:
            cells = [generate_html(source, words, depth + 1) for _ in range(2)]
            parts.append(f"<table><tr><th> {word} <td>{cells[0]}<tr><td>{cells[1]}</table>")
        elif kind == 5:
            parts.append(f' {word}<br><script>no()</script><!-- no --><img alt="{word}a" src="x"> ')
        else:
            parts.append(f"<pre>{word}</pre>")
    return "".join(parts)


@pytest.mark.parametrize("seed", range(20))
def test_every_word_of_any_html_is_read_once_and_in_order(seed: int) -> None:
    words: list[str] = []
    source = random.Random(seed)
    body = "<p>start</p>" + "".join(generate_html(source, words) for _ in range(5))
    markup = f"<!doctype html><body>{body}</body>"

    document = read_document(markup.encode(), "html-page", "a.html")

    spoken = re.findall(r"\bw\d+\b", read_text(document))
    assert len(words) > 3
    assert spoken == words
    assert len(re.findall(r"\bw\d+a\b", read_text(document))) == markup.count("<img")


def test_image_with_a_description_is_read_from_every_format(tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(PNG)
    (tmp_path / "a.md").write_text("Before ![w1 w2](cat.png) after\n")
    for extension in ("html", "epub", "docx"):  # pandoc 2.17 writes no descriptions into ODT
        path = tmp_path / f"a.{extension}"
        run_pandoc(tmp_path / "a.md", "-o", path, f"--resource-path={tmp_path}", "-M", "title=x")

        text = read_text(read_document(path.read_bytes(), extension, path.name))

        assert "Before w1 w2 after" in text, extension
