"""HTML: what a browser shows is spoken, without scripts, and without navigation around the main content."""

from __future__ import annotations

import pytest

from audiocli.text.readers import read_document
from tests.documents import list_texts


def read_texts(markup: str, format: str = "html-page", encoding: str | None = None) -> list[str]:
    return list_texts(read_document(markup.encode(), format, "page.html", encoding=encoding))


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("<h1>Hello</h1><p>Two\n  lines</p>text<div>more</div>", ["Hello.", "Two lines", "text", "more"]),
        ("<p>a<b>b</b> <i>c</i><span>d</span></p>", ["ab cd"]),
        ("<p>one<br>two<br/> <br>three", ["one two", "three"]),
        ("<a href=x><div>block</div>inline</a>", ["block", "inline"]),
        ("<ul><li>one<li>two<ul><li>inner</ul></ul>", ["one.\ntwo.\ninner."]),
        ("<ol start=3><li>one<li value=7>two<li>three</ol>", ["3. one.\n7. two.\n8. three."]),
        ("<ol type=a><li>one<li>two</ol>", ["a. one.\nb. two."]),
        ("<dl><dt>Term<dd>Meaning<dt>Other<dd>Thing</dl>", ["Term.\nMeaning.\nOther.\nThing."]),
        (
            "<table><caption>Ages</caption><thead><tr><th>Name<th>Age</thead><tr><td>Ann<td>5</table>",
            ["Ages", "Name, Age.\nAnn, 5."],
        ),
        ("<table><tr><td><h2>Left</h2><p>a</p><p>b</p><td>right</table>", ["Left.", "a", "b", "right"]),
        ("<table><tr><td>a<table><tr><td>b<td>c</table></table>", ["a", "b, c."]),
        ('a <img src=x alt="cat &amp; dog"> b <img src=y>', ["a cat & dog b"]),
        ('<img alt="one"><img alt="two">', ["one two"]),
        ('<svg aria-label="A chart"><text>12</text></svg> <svg><title>Logo</title></svg>', ["A chart Logo"]),
        ("<ruby>漢<rp>(</rp><rt>kan</rt><rp>)</rp>字<rt>ji</rt></ruby>", ["漢字"]),
        ("<pre>\nRoses are red\n  violets\n\nblue</pre>", ["Roses are red\nviolets", "blue"]),
        ("<pre><code>a = 1</code></pre>", ["a = 1"]),
        ("<pre><code>a\nb\nc\nd</code></pre>", ["Code left out."]),
        ('<div class="highlight"><pre><span>a</span>\nb\nc\nd</pre></div>', ["Code left out."]),
        ("<details><summary>More</summary>inside</details>", ["More", "inside"]),
        ("10<sup>6</sup> 1<sup>st</sup>", ["10⁶ 1st"]),
        ("<select><option>one<option>two</select>", ["one", "two"]),
        ("<blockquote><p>Quoted</p><footer>Ann</footer></blockquote>", ["Quoted", "Ann"]),
        ("&nbsp;&lt;b&gt; caf&eacute;&#8217;s", ["<b> café’s"]),
        ("", []),
    ],
)
def test_visible_text_is_spoken(markup: str, expected: list[str]) -> None:
    assert read_texts(f"<!doctype html><body>{markup}</body>") == expected


@pytest.mark.parametrize(
    "markup",
    [
        "<script>hidden()</script>",
        "<style>hidden{}</style>",
        "<template><p>hidden</p></template>",
        "<noscript>hidden</noscript>",
        "<p hidden>hidden</p>",
        '<p aria-hidden="true">hidden</p>',
        '<p style="color:red; Display : NONE">hidden</p>',
        '<p style="visibility:hidden">hidden</p>',
        "<!-- hidden -->",
        "<video>hidden</video><iframe>hidden</iframe><object>hidden</object>",
        "<dialog>hidden</dialog>",
        '<sup><a role="doc-noteref" href="#fn1">1</a></sup>',
        '<sup class="reference">[1]</sup>',
        '<a class="headerlink" href="#x">¶</a>',
        "<datalist><option>hidden</datalist>",
        "<ul><li hidden>hidden</ul>",
        "<table><tr hidden><td>hidden</table>",
        "<math><semantics><mi></mi><annotation>hidden</annotation></semantics></math>",
    ],
)
def test_hidden_text_is_not_spoken(markup: str) -> None:
    assert read_texts(f"<!doctype html><body><p>Before</p>{markup}<p>After</p>") == ["Before", "After"]


BOILERPLATE = (
    "<header><a href=/>Site</a><h1>Brand</h1></header><nav>Menu</nav><aside>Related</aside>"
    "<div role=navigation>Crumbs</div><footer>Imprint</footer>"
)


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        (f"{BOILERPLATE}<main><h1>Title</h1><p>Text</p></main><div>Cookies</div>", ["Title.", "Text"]),
        (f"{BOILERPLATE}<article><header><h1>Title</h1></header>Text</article><div>Cookies</div>", ["Title.", "Text"]),
        (f"{BOILERPLATE}<p>Text</p>", ["Text"]),
        (
            f"{BOILERPLATE}<article>One<article>Comment</article></article><article>Two</article>",
            ["One", "Comment", "Two"],
        ),
        (f"{BOILERPLATE}<main></main><p>Text</p>", ["Text"]),
        ("<header><h1>Title</h1><p>By Ann</p></header><p>Text</p>", ["Title.", "By Ann", "Text"]),
        ("<main><p>Text</p><button>Share</button><aside>More</aside></main>", ["Text"]),
    ],
)
def test_main_content_is_spoken_without_navigation(markup: str, expected: list[str]) -> None:
    page = f"<!doctype html><body>{markup}</body>"

    assert read_texts(page, "html") == expected
    if BOILERPLATE in markup:
        assert {"Site", "Brand.", "Menu", "Related", "Crumbs", "Imprint"} <= set(read_texts(page))


@pytest.mark.parametrize(
    "empty", ["<script/>", '<script src="a.js" />', "<style/>", "<a id='x'/>", "<div/>", "<textarea/>"]
)
def test_empty_element_of_xhtml_does_not_swallow_the_text(empty: str) -> None:
    page = (
        '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head>'
        f"<body>{empty}<p>Text<br/>goes on</p><p><![CDATA[a < b & c]]></p></body></html>"
    )

    assert read_texts(page) == ["Text goes on", "a < b & c"]


def test_title_author_and_language_are_read() -> None:
    page = (
        '<!doctype html><html lang="de-AT"><head><title>Site | A\n title</title><meta name="author" content="Ann B.">'
        "<body><h1>A</h1>x<h1>B</h1>y"
    )

    document = read_document(page.encode(), "html", "page.html")

    assert (document.title, document.author, document.language) == ("Site | A title", "Ann B.", "de-AT")
    assert [chapter.title for chapter in document.chapters] == ["A", "B"]
    with_property = page.replace("<body>", '<meta property="og:title" content="A title"><body>')
    assert read_document(with_property.encode(), "html", "page.html").title == "A title"
    assert read_document(b"<h1>Only</h1>text", "html", "page.html").title == "Only"


def test_deeply_nested_text_is_spoken() -> None:
    assert read_texts("<div>" * 900 + "deep <b>text</b>" + "<script>no</script>") == ["deep text"]
    assert read_texts("<ul><li>" * 400 + "deep") == ["deep."]
    assert read_texts("<table><tr><td>" * 400 + "deep") == ["deep."]
    assert read_texts("<p>one" * 5000)[-1] == "one"


@pytest.mark.parametrize(
    "markup",
    ["<script>{}</script>", "<SCRIPT src=x>{}</SCRIPT>", "<style>{}</style>", "<!-- {} -->", "<textarea>{}</textarea>"],
)
def test_comparisons_in_scripts_are_not_elements(markup: str) -> None:
    hidden = markup.format("for(i=0;i<n;i++){a<b&&c<d}" * 2000)

    assert read_texts(f"<!doctype html><body><p>Before</p>{hidden}<p>After</p>", "html") == ["Before", "After"]
