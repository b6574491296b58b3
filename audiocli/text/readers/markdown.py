"""Read Markdown: CommonMark with tables, footnotes, front matter, alerts of GitHub and links of wikis.

The document becomes HTML, and `html` decides what is spoken, so that HTML inside Markdown is read as well.

| Markdown | speech |
|---|---|
| footnote | a paragraph after the block that refers to it, once |
| alert, such as `> [!NOTE]` | starts with the word: "Note." |
| `[[page|label]]`, `==mark==`, `:smile:` | the label, the text, the words |
| front matter | title, author and language of the document |
| emphasis, rules, task boxes | omitted |
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..document import Document
from .blocks import build_chapters, find_title
from .encoding import decode_content
from .html import CODE_PLACEHOLDER, read_fragment

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_core import StateCore
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

# The parser drops deeper blocks, so deeper markers are removed. The default of 20 is too low for threads with nested
# quotations.
_MAX_NESTING = 100
_MAX_MARKERS = 40
_MARKERS = re.compile(rf"^(?:[ \t]*+(?:>|[-+*](?=[ \t])|[0-9]{{1,9}}[.)](?=[ \t]))){{{_MAX_MARKERS},}}+", re.MULTILINE)
_MARKER = re.compile(r"[ \t]*(?:>|[-+*]|[0-9]{1,9}[.)])")

_FRONT_MATTER_FIELD = re.compile(
    r"^(title|author|lang|language)[ \t]*:[ \t]*(.*\S)[ \t]*$", re.MULTILINE | re.IGNORECASE
)
_TASK_BOX = re.compile(r"^\\?\[[ xX]\]\s+")
_ALERT = re.compile(r"^\[!([A-Za-z][\w-]*)\][+-]?[ \t]*")
_WIKI_LINK = re.compile(r"(!?)\[\[(?=\S)([^\[\]|\n]+)(?:\|([^\[\]\n]*))?\]\](?![(\[])")
_MARK = re.compile(r"(?<![=\w])==(?=\w)([^=\n]*[\w.!?)])==(?![=\w])")
_EMOJI_CODE = re.compile(r"(?<![\w:]):([a-z][a-z0-9_-]*|[+-]1):(?![\w:])")
_FILE_NAME = re.compile(r"\.\w{1,5}$")
# Start tags after which the parser of HTML takes everything for text, or for something that is not shown. GitHub
# shows them as text (GFM, section 6.11).
_SWALLOWING_TAG = re.compile(
    r"<(?=(/?)(iframe|noembed|noframes|noscript|plaintext|script|style|svg|template|textarea|title|xmp|frameset|object"
    r"|video|audio|canvas|select|datalist|head)\b)",
    re.IGNORECASE,
)


def read(content: bytes, source: str, *, encoding: str | None = None) -> Document:
    """Read Markdown. Headings begin chapters.

    Raises:
        UsageError: The bytes are not in the encoding.
        DocumentError: HTML in it is nested too deeply.
    """
    return convert_markdown(decode_content(content, source, encoding), source)


def markdown_to_speech(document: str, *, code_placeholder: str = CODE_PLACEHOLDER) -> str:
    """Convert a Markdown document to plain text for speech. `code_placeholder` replaces long code blocks."""
    paragraphs = convert_markdown(document, code_placeholder=code_placeholder).paragraphs
    return "\n\n".join(paragraph.text for paragraph in paragraphs)


def convert_markdown(text: str, source: str = "the text", *, code_placeholder: str = CODE_PLACEHOLDER) -> Document:
    """Convert Markdown to a document. Raises: DocumentError: HTML in it is nested too deeply."""
    parser = _build_parser()
    env: dict[str, Any] = {}
    tokens = parser.parse(_MARKERS.sub(_limit_markers, text), env)
    fields: dict[str, str] = {}
    if tokens and tokens[0].type == "front_matter":
        for name, value in _FRONT_MATTER_FIELD.findall(tokens.pop(0).content):
            fields.setdefault(name.lower(), value.strip("\"'"))
    omitted: Counter[str] = Counter()
    notes = env.get("footnotes", {}).get("list", {})
    tokens = list(_place_footnotes(tokens, notes, omitted))
    for token in tokens:
        for part in (token, *(token.children or ())):
            if part.type in ("html_block", "html_inline"):
                part.content = _escape_swallowing_tags(part.content)
    markup = parser.renderer.render(tokens, parser.options, {})
    blocks, omitted_html = read_fragment(markup, source, code_placeholder=code_placeholder)
    return Document(
        build_chapters(blocks),
        title=fields.get("title") or find_title(blocks),
        author=fields.get("author"),
        language=fields.get("lang") or fields.get("language"),
        omitted={**omitted_html, **omitted},
    )


def _build_parser() -> MarkdownIt:
    from markdown_it import MarkdownIt
    from mdit_py_plugins.footnote import footnote_plugin
    from mdit_py_plugins.front_matter import front_matter_plugin

    parser = MarkdownIt("commonmark", {"maxNesting": _MAX_NESTING}).enable(["table", "strikethrough"])
    parser.use(front_matter_plugin).use(footnote_plugin)
    # This rule moves notes to the end, and fails on a note within a note (mdit-py-plugins 0.7.0).
    parser.disable("footnote_tail")
    parser.inline.ruler.before("link", "wiki_link", _parse_wiki_link)
    parser.core.ruler.before("inline", "alerts_and_task_boxes", _replace_markers)
    parser.core.ruler.push("marks", _replace_marks)
    return parser


def _limit_markers(match: re.Match[str]) -> str:
    """Return the first markers of a line that begins with very many: `> > > …`."""
    return "".join(_MARKER.findall(match[0])[:_MAX_MARKERS])


def _parse_wiki_link(state: StateInline, silent: bool) -> bool:
    """Parse `[[page]]`, `[[page|label]]` and `![[embedded file]]`."""
    match = _WIKI_LINK.match(state.src, state.pos)
    if match is None:
        return False
    if not silent:
        is_embedded, page, label = match.groups()
        if is_embedded and _FILE_NAME.search(page):
            label = ""
        elif label is None or not label.strip():
            label = page.strip("# ").replace("#", " ")
        state.push("text", "", 0).content = label
    state.pos = match.end()
    return True


def _replace_markers(state: StateCore) -> None:
    """Replace the marker of an alert by its word, and remove the box of a task."""
    for index, token in enumerate(state.tokens):
        if token.type != "inline" or index < 2 or state.tokens[index - 1].type != "paragraph_open":
            continue
        container = state.tokens[index - 2].type
        if container == "blockquote_open":
            token.content = _ALERT.sub(lambda match: f"{match[1].capitalize()}. ", token.content)
        elif container == "list_item_open":
            token.content = _TASK_BOX.sub("", token.content)


def _replace_marks(state: StateCore) -> None:
    for token in state.tokens:
        for child in token.children or ():
            if child.type == "text":
                content = _MARK.sub(r"\1", child.content)
                child.content = _EMOJI_CODE.sub(lambda match: match[1].replace("_", " "), content)


def _place_footnotes(
    tokens: Sequence[Token], notes: Mapping[int, Mapping[str, Any]], omitted: Counter[str]
) -> Iterator[Token]:
    """Yield the tokens with each note after the outermost block that refers to it first.

    `notes` has the label or the tokens of each note by the ID in its references. Notes without a reference are not
    shown by GitHub either; they are counted.
    """
    remaining, definitions = _separate_footnotes(tokens, omitted)
    placed: set[str] = set()
    pending: list[list[Token]] = []
    level = 0
    while remaining:
        token = remaining.popleft()
        yield token
        level += token.nesting
        for child in token.children or ():
            if child.type != "footnote_ref":
                continue
            note = notes[child.meta["id"]]
            if "tokens" in note:
                pending.append(_wrap_in_paragraph(note["tokens"]))
            elif note["label"] not in placed:
                placed.add(note["label"])
                pending.append(definitions[note["label"]])
        if token.children:
            token.children = [child for child in token.children if child.type != "footnote_ref"]
        if level == 0:
            for content in reversed(pending):
                remaining.extendleft(reversed(content))
            pending.clear()
    if unused := len(definitions.keys() - placed):
        omitted["footnote without a reference"] += unused


def _wrap_in_paragraph(children: list[Token]) -> list[Token]:
    from markdown_it.token import Token

    inline = Token("inline", "", 0, children=children)
    return [Token("paragraph_open", "p", 1), inline, Token("paragraph_close", "p", -1)]


def _separate_footnotes(tokens: Sequence[Token], omitted: Counter[str]) -> tuple[deque[Token], dict[str, list[Token]]]:
    """Return the tokens outside of definitions of notes, and the tokens of each definition by its label."""
    outer: list[list[Token]] = [[]]
    labels: list[str] = []
    definitions: dict[str, list[Token]] = {}
    for token in tokens:
        if token.type == "footnote_reference_open":
            outer.append([])
            labels.append(token.meta["label"])
        elif token.type == "footnote_reference_close":
            label, content = labels.pop(), outer.pop()
            if label in definitions:
                omitted["footnote without a reference"] += 1
            definitions.setdefault(label, content)
        else:
            outer[-1].append(token)
    return deque(outer[0]), definitions


def _escape_swallowing_tags(markup: str) -> str:
    """Escape tags that would hide the rest of the document because their end tag is not in the same markup."""
    first_starts: dict[str, int] = {}
    last_ends: dict[str, int] = {}
    for match in _SWALLOWING_TAG.finditer(markup):
        slash, name = match[1], match[2].lower()
        if slash:
            last_ends[name] = match.start()
        else:
            first_starts.setdefault(name, match.start())

    def escape(match: re.Match[str]) -> str:
        slash, name = match[1], match[2].lower()
        position = match.start()
        has_other = first_starts.get(name, position) < position if slash else last_ends.get(name, -1) > position
        return match[0] if has_other else "&lt;"

    return _SWALLOWING_TAG.sub(escape, markup)
