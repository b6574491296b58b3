"""The HTML transcript, opened in the Chromium of the system: play, seek, search; hostile texts run no script."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from audiocli.mock import MockTranscript, Status
from audiocli.text.guard import Suspicion
from audiocli.text.html_transcript import write_html
from audiocli.text.transcript_style import MediaSource, TranscriptPage
from audiocli.types.transcripts import Segment, Transcript, Word
from tests.conftest import CommandLine
from tests.requirements import require_packages, require_program
from tests.test_transcribe import build_wav

if TYPE_CHECKING:
    from playwright.sync_api import Page

MODEL = "openrouter:openai/whisper-large-v3"
SECONDS = 12
TEXT = "Good morning, everyone. The numbers of the last quarter are here. Any questions?"
HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    '" onclick="window.hacked = 1" x="',
    "'><svg onload=window.hacked=1>",
    "</style></title></textarea><iframe srcdoc='<script>parent.hacked=1</script>'>",
    "javascript:window.hacked=1",
    "<!--",
    "]]>&lt;script&gt;",
)


class OpenPage:
    """A page in Chromium, with what it requested and what it wrote to the console."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[str] = []
        self.messages: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.messages.append(message.text))
        page.on("pageerror", lambda error: self.messages.append(str(error)))

    def evaluate(self, expression: str) -> Any:
        return self.page.evaluate(expression)

    def wait_for(self, condition: str) -> None:
        """Wait for an expression. `Page.wait_for_function` needs `eval`, which the page forbids."""
        deadline_s = time.monotonic() + 15
        while not self.evaluate(condition):
            assert time.monotonic() < deadline_s, condition
            self.page.wait_for_timeout(20)


@contextmanager
def open_page(path: Path, **options: Any) -> Iterator[OpenPage]:
    require_packages("playwright", extras="dev")
    program = require_program("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--mute-audio", "--autoplay-policy=no-user-gesture-required"]
        )
        try:
            opened = OpenPage(browser.new_context(**options).new_page())
            opened.page.goto(path.as_uri())
            yield opened
        finally:
            browser.close()


def transcribe(cli: CommandLine, directory: Path, *argv: str | Path, name: str = "talk 1.wav") -> Path:
    """Transcribe a recording of twelve seconds to a page beside it."""
    directory.mkdir(exist_ok=True)
    recording = directory / name
    recording.write_bytes(build_wav(b"\x00\x10" * 24_000 * SECONDS))
    page = directory / "talk.html"
    r = cli("transcribe", recording, "-m", MODEL, "-o", page, *argv)
    assert r.code == 0, r.err
    return page


def test_page_plays_seeks_and_searches(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.set_transcript(TEXT)
    path = transcribe(audiocli, tmp_path / "page")

    with open_page(path) as opened:
        page = opened.page
        opened.wait_for("player.readyState >= 2")
        page.get_by_text("quarter", exact=True).click()
        opened.wait_for("!player.paused && document.querySelector('.word-now')")
        sought_s = opened.evaluate("player.currentTime")
        word_s = float(page.get_by_text("quarter", exact=True).get_attribute("data-t") or 0)
        opened.wait_for("document.querySelector('.word-now').textContent !== 'quarter'")
        page.keyboard.press("Space")
        opened.wait_for("player.paused")
        page.keyboard.press("ArrowLeft")
        opened.wait_for(f"player.currentTime < {word_s}")

        page.keyboard.press("/")
        page.keyboard.type("Last  QUARTER")
        assert page.locator("#hits").text_content() == "1 of 1"
        assert page.locator(".hit.now").all_text_contents() == ["last", "quarter"]
        page.keyboard.press("Escape")
        assert (page.locator(".hit").count(), page.locator("#query").input_value()) == (0, "")
        page.keyboard.press("?")
        assert page.locator("dialog").is_visible()
        page.keyboard.press("Escape")
        assert not page.locator("dialog").is_visible()

    assert word_s <= sought_s < word_s + 1
    assert set(opened.requests) == {path.as_uri(), (path.parent / "talk 1.wav").as_uri()}
    assert opened.messages == []


def test_copied_text_has_times_and_speakers(tmp_path: Path) -> None:
    segments = (Segment(0, 2, "Hello there.", "Ann"), Segment(65, 66, "Who is it?", "Bob & Co"))
    path = tmp_path / "page.html"
    path.write_text(write_html(Transcript("", segments=segments), TranscriptPage("x")), "utf-8")

    with open_page(path, permissions=["clipboard-read", "clipboard-write"]) as opened:
        opened.page.locator("#copy").click()
        opened.wait_for("document.getElementById('status').textContent.startsWith('Copied')")
        copied = opened.evaluate("navigator.clipboard.readText()")

    assert copied == "[0:00:00] Ann: Hello there.\n[0:01:05] Bob & Co: Who is it?\n"


def test_recording_can_be_chosen_if_the_page_has_none(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.set_transcript(TEXT)
    wav = build_wav(b"\x00\x10" * 24_000 * SECONDS)
    r = audiocli("transcribe", "-", "-m", MODEL, "-f", "html", "-o", tmp_path / "page.html", stdin=wav)
    (tmp_path / "talk.wav").write_bytes(wav)

    with open_page(tmp_path / "page.html") as opened:
        assert (r.code, opened.page.locator("#player").is_visible()) == (0, False)
        opened.page.locator("#file").set_input_files(tmp_path / "talk.wav")
        opened.wait_for("player.readyState >= 1 && !player.hidden")
        opened.page.locator("[data-t]").last.click()
        opened.wait_for("player.currentTime > 1")

    assert opened.messages == []


def test_embedded_recording_needs_no_request(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.set_transcript(TEXT)
    path = transcribe(audiocli, tmp_path / "page", "--embed-media")
    (path.parent / "talk 1.wav").unlink()

    with open_page(path) as opened:
        opened.wait_for("player.readyState >= 2")
        assert opened.evaluate("player.duration") == pytest.approx(SECONDS, abs=0.1)

    assert [url for url in opened.requests if not url.startswith("data:")] == [path.as_uri()]
    assert opened.messages == []


def test_large_recording_is_not_embedded_and_nothing_is_sent(audiocli: CommandLine, tmp_path: Path) -> None:
    recording = tmp_path / "talk.wav"
    recording.write_bytes(build_wav(bytes(20 * 1024 * 1024)))

    r = audiocli("transcribe", recording, "-m", MODEL, "-f", "html", "-o", tmp_path / "x.html", "--embed-media")
    batch = audiocli("transcribe", tmp_path, "-m", MODEL, "-f", "html", "--embed-media")

    assert (r.code, batch.code) == (2, 3)
    assert "--embed-media takes at most 20,971,520" in r.err and "20,971,520" in batch.err
    assert (r.posts, batch.posts, list(tmp_path.glob("*.html"))) == ([], [], [])


@pytest.mark.parametrize("name", ["a'\"<b onclick=x>.wav", "javascript:alert(1).wav", "x#y?z%41 \u202e.wav", "-.wav"])
def test_hostile_text_speakers_and_file_names_run_no_script(audiocli: CommandLine, tmp_path: Path, name: str) -> None:
    segments = [
        {"start": index, "end": index + 1, "text": f" {text}", "speaker": text} for index, text in enumerate(HOSTILE)
    ]
    payload = {"text": " ".join(HOSTILE), "segments": segments, "language": '"><script>window.hacked=1</script>'}
    audiocli.gateway.add_default_fault(Status(200, payload, billed=True))
    path = transcribe(audiocli, tmp_path / "page", name=name)

    with open_page(path) as opened:
        opened.wait_for("player.readyState >= 2")
        opened.page.get_by_text("javascript:window.hacked=1").last.click()
        opened.wait_for("!player.paused")
        assert opened.evaluate("window.hacked") is None
        assert opened.evaluate("document.scripts.length") == 1
        shown = opened.evaluate("document.querySelector('main').textContent")
        title = opened.page.title()

    assert all(text in re.sub(r"\s+", " ", shown) for text in HOSTILE)
    assert title == " ".join(name.split())
    assert opened.messages == []
    assert len({url for url in opened.requests if not url.startswith("data:")}) == 2


def test_narrow_and_dark_page_scrolls_in_one_direction_only(tmp_path: Path) -> None:
    text = "Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichen" * 3
    segments = (Segment(0, 2, text, "A very long name of a speaker " * 4), Segment(3, 4, "مرحبا بالعالم", "B"))
    path = tmp_path / "page.html"
    path.write_text(write_html(Transcript("", segments=segments), TranscriptPage("x" * 120)), "utf-8")

    with open_page(path, viewport={"width": 360, "height": 700}, color_scheme="dark") as opened:
        width = opened.evaluate("document.documentElement.scrollWidth")
        background = opened.evaluate("getComputedStyle(document.body).backgroundColor")
        direction = opened.evaluate("getComputedStyle(document.querySelectorAll('main p')[1]).direction")

    assert (width, background, direction) == (360, "rgb(19, 20, 24)", "rtl")


# --- without a browser -----------------------------------------------------------------------------------------------


class Elements(HTMLParser):
    """Collects the start tags of a page and its visible text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._hidden = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._hidden = tag if tag in ("script", "style") else ""

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._hidden = ""


def test_marks_of_uncertain_and_suspicious_passages() -> None:
    words = (Word(0, 1, "Hello", confidence=0.9), Word(1, 2, "wolrd.", confidence=0.2))
    transcript = Transcript("Hello wolrd.", "en", 9.0, (Segment(0, 2, "Hello wolrd."), Segment(5, 7, "Bye.")), words)
    page = TranscriptPage("talk", None, (Suspicion("silence", 5.0, 7.0, "Bye."),), ("the recording breaks off",))

    elements = Elements(write_html(transcript, page))

    titles = [attributes["title"] for _, attributes in elements.tags if "title" in attributes]
    assert titles == ["confidence 20%"]
    assert "the recording breaks off" in elements.text and 'silent: "Bye."' in elements.text
    assert elements.text.count("the text may be made up") == 1


def test_page_is_complete_in_itself() -> None:
    elements = Elements(write_html(Transcript("One."), TranscriptPage("talk", MediaSource("talk.mp4", is_video=True))))
    loaded = [value for _, attributes in elements.tags for key, value in attributes.items() if key in ("src", "href")]
    policy = next(attributes["content"] for _, attributes in elements.tags if "http-equiv" in attributes)

    assert loaded == ["#transcript", "talk.mp4"]
    assert policy is not None and policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy and "http" not in policy
    names = {name for _, attributes in elements.tags for name in attributes}
    assert not [name for name in names if name.startswith("on") or name == "style"]
    assert "video" in [tag for tag, _ in elements.tags]


def test_colors_have_enough_contrast() -> None:
    """Text on its background has 4.5:1 (WCAG 2.2, AA), in both color schemes."""
    css = (Path(__file__).parent.parent / "audiocli" / "text" / "html_transcript.css").read_text("utf-8")
    blocks = re.findall(r":root \{([^}]*)\}", css)
    light, dark = ({**dict(re.findall(r"--([\w-]+): (#\w+)", block))} for block in blocks[:2])
    speakers = re.findall(r"\.s\d \{ color: (#\w{6}); \}", css)
    assert (len(speakers), set(light)) == (16, set(dark))

    pairs = [
        (colors[text], colors[background])
        for colors in (light, dark)
        for text, background in (
            *((name, place) for name in ("text", "muted", "link") for place in ("background", "panel")),
            *(("text", place) for place in ("word", "hit", "hit-now")),
            *(("mark", place) for place in ("background", "mark-panel")),
            *((name, "mark-panel") for name in ("text", "link")),
        )
    ]
    pairs += [(color, light["background"]) for color in speakers[:8]]
    pairs += [(color, dark["background"]) for color in speakers[8:]]

    assert [pair for pair in pairs if compute_contrast(*pair) < 4.5] == []


def compute_contrast(first: str, second: str) -> float:
    def compute_luminance(color: str) -> float:
        digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
        values = [int(digits[index : index + 2], 16) / 255 for index in (0, 2, 4)]
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((compute_luminance(first), compute_luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def test_three_hours_have_every_word_once() -> None:
    words = tuple(
        Word(index / 3, index / 3 + 0.3, f"word{index % 97}{'.' * (index % 11 == 0)}") for index in range(30_000)
    )
    transcript = Transcript(" ".join(word.text for word in words), "en", 10_000.0, (), words)

    page = write_html(transcript, TranscriptPage("talk"))

    assert page.count("data-e=") == len(words) and len(page) < 4_000_000


def test_mock_words_are_requested_for_a_page(audiocli: CommandLine, tmp_path: Path) -> None:
    audiocli.gateway.set_transcript(MockTranscript(TEXT))

    page = transcribe(audiocli, tmp_path / "page").read_text("utf-8")

    assert page.count("data-e=") == len(TEXT.split())
