"""The words of the project: identifiers and sentences use the terms of the field."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
SOURCES = sorted(
    path
    for directory in ("audiocli", "tests", "benchmarks")
    for path in (CHECKOUT / directory).rglob("*.py")
    if path != Path(__file__)
)
PROSE = sorted([*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md")])

FORBIDDEN_PARTS = frozenset(
    re.findall(
        r"\w+",
        "told heed heeded lane crew errand shelf stash tape reel tray desk scribe wish tellings telling surveys survey "
        "looking keeping collecting school exam enrol nonsense learnt stitched kept asked mend",
    )
)
FORBIDDEN_PHRASES = re.compile(
    r"\b(nobody|somebody|whoever|told of|hand(?:s|ed)? in|written down|writes? down|asks? after|asked after"
    r"|mend(?:s|ed)?|loudspeaker|at home|by itself|so many|as a rule|falls silent|fell silent|strikes off"
    r"|house|room|floor)\b",
    re.IGNORECASE,
)
# "dear" is forbidden for a price; in data it may begin a letter.
FORBIDDEN_WORDS = re.compile(r"\bdear\b(?! (?:sir|madam|Ann))", re.IGNORECASE)

# Identifiers that stay, with the reason. The key is "path: identifier" or "identifier".
ALLOWED_IDENTIFIERS: dict[str, str] = {}
# Phrases that stay, with the reason. The key is "path: a part of the line".
ALLOWED_PHRASES: dict[str, str] = {
    "CHANGELOG.md: check, `what` is now `check`": "names the JSON keys of 0.1, so that scripts can be changed",
}


def split_identifier(name: str) -> list[str]:
    return [part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name)]


def find_identifiers(tree: ast.AST) -> Iterator[tuple[int, str, bool]]:
    """Yield the line, the name, and whether it names a function."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield node.lineno, node.name, True
            case ast.ClassDef():
                yield node.lineno, node.name, False
            case ast.Name():
                yield node.lineno, node.id, False
            case ast.Attribute():
                yield node.lineno, node.attr, False
            case ast.arg():
                yield node.lineno, node.arg, False
            case ast.keyword(arg=str(name)):
                yield node.lineno, name, False
            case ast.alias(asname=str(name)):
                yield node.lineno, name, False


def find_sentences(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each comment and each string that reads as a sentence: it has a space."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and " " in token.string):
            for number, line in enumerate(token.string.split("\n")):
                yield token.start[0] + number, line


def is_allowed(allowed: dict[str, str], path: str, text: str) -> bool:
    return any(
        text == key or (key.startswith(f"{path}: ") and key.removeprefix(f"{path}: ") in text) for key in allowed
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_source_uses_the_words_of_the_field(path: Path) -> None:
    name = str(path.relative_to(CHECKOUT))
    source = path.read_text("utf-8")
    found = []
    for part in path.relative_to(CHECKOUT).with_suffix("").parts:
        if FORBIDDEN_PARTS & set(split_identifier(part)):
            found.append(f"{name}: module name")
    for line, identifier, is_function in find_identifiers(ast.parse(source)):
        if is_allowed(ALLOWED_IDENTIFIERS, name, identifier):
            continue
        if FORBIDDEN_PARTS & set(split_identifier(identifier)):
            found.append(f"{name}:{line}: identifier {identifier}")
        if is_function and identifier.endswith("_of"):
            found.append(f"{name}:{line}: function {identifier} is not a verb")
    for line, text in find_sentences(source):
        match = FORBIDDEN_PHRASES.search(text) or FORBIDDEN_WORDS.search(text)
        if match and not is_allowed(ALLOWED_PHRASES, name, text):
            found.append(f"{name}:{line}: {match[0]!r} in {text.strip()[:90]}")

    assert not found, "\n".join(sorted(set(found)))


@pytest.mark.parametrize("path", PROSE, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_documentation_uses_the_words_of_the_field(path: Path) -> None:
    name = str(path.relative_to(CHECKOUT))
    found = [
        f"{name}:{number}: {line.strip()[:90]}"
        for number, line in enumerate(path.read_text("utf-8").split("\n"), 1)
        if (FORBIDDEN_PHRASES.search(line) or FORBIDDEN_WORDS.search(line))
        and not is_allowed(ALLOWED_PHRASES, name, line)
    ]

    assert not found, "\n".join(found)


def test_every_exception_has_a_reason_and_is_needed() -> None:
    text = "\n".join(path.read_text("utf-8") for path in [*SOURCES, *PROSE])
    for allowed in (ALLOWED_IDENTIFIERS, ALLOWED_PHRASES):
        for key, reason in allowed.items():
            assert len(reason) > 10, key
            assert key.rpartition(": ")[2] in text, f"{key} is not used any more"
