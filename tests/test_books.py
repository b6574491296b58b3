"""Books: a file with chapters, a file for each chapter, previews, and runs that are killed and resumed."""

from __future__ import annotations

import json
import re
import subprocess
import time
from array import array
from collections.abc import Sequence
from pathlib import Path

import pytest

from audiocli.mock import Status
from tests.conftest import CommandLine, Result
from tests.documents import build_epub
from tests.gateway_contract import read_warnings
from tests.requirements import needs_mpv
from tests.test_documents import list_spoken
from tests.test_long_speech import check_joined, list_paid_results, list_requested_texts
from tests.test_processes import Program
from tests.test_processes import program as program
from tests.test_tags import decode, get_audio_stream, list_chapters, make_picture, probe

RATE_HZ = 24_000
MODEL = "openai/gpt-4o-mini-tts-2025-12-15"
METADATA = (
    "<dc:title>The Long Way</dc:title><dc:creator>Ann Author</dc:creator><dc:language>en-GB</dc:language>"
    '<meta name="cover" content="cover"/>'
)
COVER = '<item id="cover" href="cover.jpg" media-type="image/jpeg"/>'
NAMES = ("Morning", "Noon", "Evening", "Night")
PAGE_COUNT = 300
CHAPTER_FORMATS = ("m4b", "mp3", "opus", "flac")


def build_book(pages: Sequence[str], titles: Sequence[str] = NAMES) -> bytes:
    """Build a book with as many pages for each chapter. Its table of contents has the titles."""
    files = {f"{number:03}.xhtml": f"<p>{text}</p>" for number, text in enumerate(pages, 1)}
    step = len(pages) // len(titles)
    links = "".join(f'<li><a href="{1 + index * step:03}.xhtml">{title}</a></li>' for index, title in enumerate(titles))
    return build_epub(
        files,
        contents=f"<ol>{links}</ol>",
        metadata=METADATA,
        manifest=COVER,
        entries={"OEBPS/cover.jpg": make_picture("image/jpeg")},
    )


LONG_BOOK = build_book([f"Page {number} ends." for number in range(1, PAGE_COUNT + 1)])
CHAPTERS = [f"The {name.lower()} is a chapter. It ends after two sentences." for name in NAMES]
BOOK = build_book(CHAPTERS)


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.epub"
    path.write_bytes(BOOK)
    return path


def speak(cli: CommandLine, book: Path, *argv: str | Path) -> Result:
    return cli("speak", "-F", book, "-m", MODEL, "-j", "1", *argv)


def find_speech_starts(samples: bytes, *, min_silence_s: float = 0.2, rate_hz: int = RATE_HZ) -> list[float]:
    """Return the times at which sound follows silence, and that of the first sound."""
    values = array("h", samples)
    window, threshold = rate_hz // 200, max(map(abs, values)) // 20
    starts, silent_s = [], min_silence_s
    for at in range(0, len(values) - window, window):
        if max(map(abs, values[at : at + window])) < threshold:
            silent_s += 0.005
            continue
        if silent_s >= min_silence_s:
            starts.append(at / rate_hz)
        silent_s = 0.0
    return starts


# --- one file ---------------------------------------------------------------------------------------------------------


def test_book_of_300_pages_becomes_one_file_with_chapters(audiocli: CommandLine, tmp_path: Path) -> None:
    path, output = tmp_path / "long.epub", tmp_path / "long.m4b"
    path.write_bytes(LONG_BOOK)

    r = audiocli("speak", "-F", path, "-m", MODEL, "-x", "4", "-o", output, "--json")

    assert r.code == 0, r.err
    spoken = "".join(sorted(list_spoken(r.posts), key=lambda text: int(text.split()[1])))
    assert re.findall(r"Page (\d+) ends", spoken) == [str(number) for number in range(1, PAGE_COUNT + 1)]
    report = probe(output)
    assert [title for title, _ in list_chapters(report)] == list(NAMES)
    assert float(report["format"]["duration"]) == pytest.approx(r.json["duration_s"], abs=0.05)


@pytest.mark.parametrize("name", CHAPTER_FORMATS)
def test_file_has_the_tags_of_the_book(audiocli: CommandLine, book: Path, tmp_path: Path, name: str) -> None:
    output = tmp_path / f"book.{name}"

    r = speak(audiocli, book, "-o", output, "--json")

    assert (r.code, r.json["warnings"]) == (0, []), r.err
    report = probe(output)
    tags = {
        key.lower(): value
        for key, value in (report["format"].get("tags", {}) | get_audio_stream(report).get("tags", {})).items()
    }
    assert (tags["title"], tags["artist"]) == ("The Long Way", "Ann Author")
    assert tags["language"] in ("eng", "en-GB")
    assert [title for title, _ in list_chapters(report)] == list(NAMES)
    assert [stream["codec_type"] for stream in report["streams"]].count("video") == 1
    assert output.stat().st_size == r.json["bytes"]


@pytest.mark.parametrize("name", CHAPTER_FORMATS)
@pytest.mark.parametrize("processing", [(), ("--tempo", "1.5", "--sample-rate", "48000")], ids=["plain", "processed"])
def test_chapters_begin_where_their_speech_begins(
    audiocli: CommandLine, book: Path, tmp_path: Path, name: str, processing: tuple[str, ...]
) -> None:
    output = tmp_path / f"book.{name}"

    r = speak(audiocli, book, "-o", output, "--pause", "600", *processing)

    assert r.code == 0, r.err
    report = probe(output)
    rate_hz = int(get_audio_stream(report)["sample_rate"])
    starts = find_speech_starts(decode(output), rate_hz=rate_hz)
    assert len(starts) == len(NAMES)
    assert [start_s for _, start_s in list_chapters(report)] == pytest.approx([0.0, *starts[1:]], abs=0.02)


def test_title_and_cover_are_written_for_a_book_without_chapters(audiocli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "a.epub"
    path.write_bytes(
        build_epub(
            {"1.xhtml": "<p>All of it.</p>"},
            metadata=METADATA,
            manifest=COVER,
            entries={"OEBPS/cover.jpg": make_picture("image/jpeg")},
        )
    )

    r = speak(audiocli, path, "-o", tmp_path / "a.mp3")

    assert r.code == 0, r.err
    report = probe(tmp_path / "a.mp3")
    assert (report["format"]["tags"]["title"], report["chapters"]) == ("The Long Way", [])


def test_headings_of_markdown_become_chapters(audiocli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "notes.md"
    path.write_text("# First\n\nSome words here.\n\n# Second *part*\n\nMore words here.\n")

    r = speak(audiocli, path, "-o", tmp_path / "notes.m4b")

    assert r.code == 0, r.err
    assert [title for title, _ in list_chapters(probe(tmp_path / "notes.m4b"))] == ["First", "Second part"]


def test_headings_do_not_divide_the_requests_of_other_files(audiocli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "notes.md"
    path.write_text("# First\n\nSome words here.\n\n# Second\n\nMore words here.\n")

    r = speak(audiocli, path, "-o", tmp_path / "notes.wav")

    assert (r.code, len(r.posts), read_warnings(r)) == (0, 1, []), r.err


@needs_mpv
def test_player_shows_the_chapters(audiocli: CommandLine, book: Path, tmp_path: Path) -> None:
    output = tmp_path / "book.m4b"
    assert speak(audiocli, book, "-o", output).code == 0
    command = ["mpv", "--no-config", "--ao=null", "--vo=null", "--vid=no", "--length=0.1", "--msg-level=all=no"]
    message = "--term-playing-msg=${chapter-list/count} ${chapter-list/1/title} ${metadata/by-key/title}"

    result = subprocess.run(
        [*command, "--msg-level=cplayer=info", message, str(output)], capture_output=True, check=True
    )

    assert "4 Noon The Long Way" in result.stdout.decode()


@pytest.mark.parametrize("format", ["wav", "m4b", "mp3"])
def test_pipe_gets_the_same_audio_without_chapters(
    audiocli: CommandLine, book: Path, tmp_path: Path, format: str
) -> None:
    r = speak(audiocli, book, "-o", "-", "-f", format, "--pause", "300")

    assert r.code == 0, r.err
    output = tmp_path / f"piped.{format}"
    output.write_bytes(r.out)
    assert probe(output)["chapters"] == []
    # Each pause, and nothing else, is silent.
    assert len(find_speech_starts(decode(output), min_silence_s=0.25)) == len(NAMES)


# --- parts of a book --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chapters", "expected"), [("2", [2]), ("2-3", [2, 3]), ("1,4", [1, 4]), ("3-", [3, 4]), ("-2,2", [1, 2])]
)
def test_only_chosen_chapters_are_spoken(
    audiocli: CommandLine, book: Path, tmp_path: Path, chapters: str, expected: list[int]
) -> None:
    r = speak(audiocli, book, "-o", tmp_path / "book.m4b", "--chapters", chapters)

    assert r.code == 0, r.err
    assert list_spoken(r.posts) == [CHAPTERS[number - 1] for number in expected]
    titles = [title for title, _ in list_chapters(probe(tmp_path / "book.m4b"))]
    assert titles == ([NAMES[number - 1] for number in expected] if len(expected) > 1 else [])


@pytest.mark.parametrize("chapters", ["5", "0", "2-9", "3-2", "x", "", "1,,2", "²", "-"])
def test_chapter_that_does_not_exist_is_a_usage_error(
    audiocli: CommandLine, book: Path, tmp_path: Path, chapters: str
) -> None:
    r = speak(audiocli, book, "-o", tmp_path / "book.m4b", "--chapters", chapters)

    assert (r.code, r.posts) == (2, []), r.err
    assert "--chapters" in r.err


@pytest.mark.parametrize("name", ["preview.flac", "preview.wav"])
def test_preview_is_not_paid_for_again(audiocli: CommandLine, tmp_path: Path, name: str) -> None:
    path = tmp_path / "long.epub"
    # About 70 s of speech in each chapter.
    pages = [" ".join(f"The sentence {number} of {name} is spoken." for number in range(30)) for name in NAMES]
    path.write_bytes(build_book(pages))
    argv = ("-x", "4", "--max-chars", "200")

    planned = speak(audiocli, path, "-o", tmp_path / name, *argv, "--preview", "-n", "--json")
    preview = speak(audiocli, path, "-o", tmp_path / name, *argv, "--preview")
    complete = speak(audiocli, path, "-o", tmp_path / f"complete-{name}", *argv)

    assert (preview.code, complete.code) == (0, 0), preview.err + complete.err
    assert planned.json["requests"] == len(preview.posts) > 1
    assert 30 <= planned.json["expected_s"] < 60
    spoken = list_spoken(preview.posts)
    assert not set(spoken) & set(list_spoken(complete.posts))
    again = speak(audiocli, path, "-o", tmp_path / f"again-{name}", *argv)
    assert (again.code, again.posts) == (0, [])


def test_preview_of_a_short_or_plain_text_is_its_beginning(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("speak", "Hello there.", "--preview", "-o", tmp_path / "a.wav")
    assert list_spoken(r.posts) == ["Hello there."]
    path = tmp_path / "plain.txt"
    path.write_text("The sentence of this text is spoken. " * 200)

    r = audiocli("speak", "-F", path, "--preview", "-x", "4", "-m", MODEL, "-o", tmp_path / "b.wav")

    assert r.code == 0, r.err
    assert sum(map(len, list_spoken(r.posts))) < 37 * 200


# --- a file for each chapter ------------------------------------------------------------------------------------------

FILES = ["01-morning.mp3", "02-noon.mp3", "03-evening.mp3", "04-night.mp3", "playlist.m3u8"]


def list_directory(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_chapters_are_written_to_files_with_a_playlist(audiocli: CommandLine, book: Path, tmp_path: Path) -> None:
    directory = tmp_path / "out"

    r = speak(audiocli, book, "--split-chapters", "-O", directory)

    assert r.code == 0, r.err
    assert list_directory(directory) == FILES
    assert list_spoken(r.posts) == CHAPTERS
    assert (directory / "playlist.m3u8").read_text().splitlines() == ["#EXTM3U", *FILES[:-1]]
    tags = probe(directory / FILES[1])["format"]["tags"]
    assert {key: tags[key] for key in ("title", "album", "artist", "track")} == {
        "title": "Noon",
        "album": "The Long Way",
        "artist": "Ann Author",
        "track": "2",
    }


def test_second_run_sends_nothing(audiocli: CommandLine, book: Path, tmp_path: Path) -> None:
    directory = tmp_path / "out"
    speak(audiocli, book, "--split-chapters", "-O", directory)
    before = {path: path.stat().st_mtime_ns for path in directory.iterdir()}

    r = speak(audiocli, book, "--split-chapters", "-O", directory, "--json")

    assert (r.code, r.requests) == (0, []), r.err
    assert {path: path.stat().st_mtime_ns for path in directory.iterdir()} == before
    *items, summary = (json.loads(line) for line in r.text.splitlines())
    assert [item["status"] for item in items] == ["unchanged"] * 4
    assert summary["summary"]["unchanged"] == 4


def test_only_a_changed_chapter_is_sent(audiocli: CommandLine, book: Path, tmp_path: Path) -> None:
    directory = tmp_path / "out"
    speak(audiocli, book, "--split-chapters", "-O", directory)
    before = {path.name: path.stat().st_mtime_ns for path in directory.iterdir()}
    book.write_bytes(build_book([*CHAPTERS[:2], "The evening has changed.", CHAPTERS[3]]))

    r = speak(audiocli, book, "--split-chapters", "-O", directory)

    assert (r.code, list_spoken(r.posts)) == (0, ["The evening has changed."]), r.err
    after = {path.name: path.stat().st_mtime_ns for path in directory.iterdir()}
    assert [name for name in after if after[name] != before[name]] == ["03-evening.mp3"]


def test_edited_chapter_is_left_unchanged_unless_forced(audiocli: CommandLine, book: Path, tmp_path: Path) -> None:
    directory = tmp_path / "out"
    speak(audiocli, book, "--split-chapters", "-O", directory)
    (directory / FILES[0]).write_bytes(b"edited")
    (directory / "playlist.m3u8").write_text("mine")

    unforced = speak(audiocli, book, "--split-chapters", "-O", directory)
    contents = [(directory / name).read_bytes() for name in (FILES[0], "playlist.m3u8")]
    forced = speak(audiocli, book, "--split-chapters", "-O", directory, "--force")

    assert (unforced.code, unforced.posts, contents) == (0, [], [b"edited", b"mine"]), unforced.err
    assert unforced.err.count("left unchanged") == 2
    # The speech is in the phrase cache.
    assert (forced.code, forced.posts) == (0, []), forced.err
    assert probe(directory / FILES[0])["format"]["tags"]["title"] == "Morning"
    assert (directory / "playlist.m3u8").read_text().startswith("#EXTM3U")


def test_chosen_chapters_keep_their_numbers_and_files(audiocli: CommandLine, book: Path, tmp_path: Path) -> None:
    directory = tmp_path / "out"
    first = speak(audiocli, book, "--split-chapters", "-O", directory, "--chapters", "3-4")

    r = speak(audiocli, book, "--split-chapters", "-O", directory)

    assert (first.code, r.code) == (0, 0), first.err + r.err
    assert list_spoken(r.posts) == CHAPTERS[:2]
    assert list_directory(directory) == FILES
    assert probe(directory / FILES[2])["format"]["tags"]["track"] == "3"


def test_names_of_chapters_are_names_of_files(audiocli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "a.epub"
    path.write_bytes(build_book(CHAPTERS, ["../../etc", "CON", "x" * 300, "&lt;b&gt; : “Über” ?"]))

    r = speak(audiocli, path, "--split-chapters", "-O", tmp_path / "out", "--name", "{title}")

    assert r.code == 0, r.err
    names = list_directory(tmp_path / "out")
    assert len(names) == 5
    assert all(len(name.encode()) < 256 and not re.search(r'[<>:"/\\|?*]', name) for name in names)
    assert not (tmp_path / "etc.mp3").exists()


@pytest.mark.parametrize(
    "argv", [("-O", "{dir}", "-o", "x.mp3"), (), ("-O", "{dir}", "--preview"), ("-O", "{dir}", "--captions", "a.srt")]
)
def test_files_of_chapters_contradict_other_outputs(
    audiocli: CommandLine, book: Path, tmp_path: Path, argv: tuple[str, ...]
) -> None:
    r = speak(audiocli, book, "--split-chapters", *(value.replace("{dir}", str(tmp_path / "out")) for value in argv))

    assert (r.code, r.posts) == (2, []), r.err
    assert not (tmp_path / "out").exists()


# --- dry runs ---------------------------------------------------------------------------------------------------------


def test_dry_run_lists_the_chapters(audiocli: CommandLine, book: Path, tmp_path: Path) -> None:
    plan = speak(audiocli, book, "-o", tmp_path / "book.m4b", "-n", "--json").json
    shown = speak(audiocli, book, "-o", tmp_path / "book.m4b", "-n")

    assert [(chapter["number"], chapter["title"], chapter["characters"]) for chapter in plan["chapters"]] == [
        (number, name, len(text)) for number, (name, text) in enumerate(zip(NAMES, CHAPTERS, strict=True), 1)
    ]
    assert all(chapter["expected_s"] > 1 for chapter in plan["chapters"])
    rows = [line.split() for line in shown.text.splitlines() if line.split()[1:2] and line.split()[1] in NAMES]
    assert [row[:3] for row in rows] == [
        [str(number), name, str(len(text))] for number, (name, text) in enumerate(zip(NAMES, CHAPTERS, strict=True), 1)
    ]
    assert (shown.requests, (tmp_path / "book.m4b").exists()) == ([], False)


def test_dry_run_of_chosen_chapters_has_their_numbers(audiocli: CommandLine, book: Path, tmp_path: Path) -> None:
    plan = speak(audiocli, book, "-o", tmp_path / "book.m4b", "-n", "--json", "--chapters", "3-4").json

    assert [(chapter["number"], chapter["title"]) for chapter in plan["chapters"]] == [(3, "Evening"), (4, "Night")]


def test_dry_run_of_chapter_files_writes_nothing(audiocli: CommandLine, book: Path, tmp_path: Path) -> None:
    argv = ("--split-chapters", "-O", tmp_path / "out", "-n")
    plan = speak(audiocli, book, *argv, "--json").json
    shown = speak(audiocli, book, *argv)

    assert (plan["files"], plan["to_send"], plan["requests"]) == (4, 4, 4)
    assert [Path(output).name for output in plan["outputs"]] == FILES[:-1]
    assert "chapters    4 (0 up to date)" in shown.text
    assert (shown.posts, (tmp_path / "out").exists()) == ([], False)


# --- interruptions ----------------------------------------------------------------------------------------------------


def test_killed_book_is_resumed_without_a_repeated_request(
    program: Program, audiocli: CommandLine, tmp_path: Path
) -> None:
    path, output = tmp_path / "long.epub", tmp_path / "long.m4b"
    path.write_bytes(LONG_BOOK)
    argv = ("speak", "-F", path, "-m", MODEL, "-x", "4", "-j", "2", "--max-chars", "200", "-o", output)
    plan = audiocli(*argv, "-n", "--json").json
    audiocli.gateway.latency_s = 0.1
    process = program.start(*argv)
    deadline_s = time.monotonic() + 20
    while len(list_paid_results(audiocli)) < 6:
        assert time.monotonic() < deadline_s and process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=20)
    audiocli.gateway.latency_s = 0
    sent, stored = list_requested_texts(audiocli), len(list_paid_results(audiocli))
    assert not output.exists()

    r = audiocli(*argv, "--json")

    assert r.code == 0, r.err
    # Requests that were in flight are sent again; those whose audio is stored are not.
    assert len(r.posts) == plan["requests"] - stored
    assert len(set(sent) & set(list_spoken(r.posts))) <= 2
    assert (r.json["kept"], list_paid_results(audiocli)) == (stored, [])
    assert [title for title, _ in list_chapters(probe(output))] == list(NAMES)
    assert list(tmp_path.glob(".*.part")) == []


def test_killed_split_is_resumed_without_a_repeated_request(
    program: Program, audiocli: CommandLine, book: Path, tmp_path: Path
) -> None:
    argv = ("speak", "-F", book, "-m", MODEL, "-j", "1", "--split-chapters", "-O", tmp_path / "out")
    audiocli.gateway.hold_responses(after_bytes=None)
    process = program.start(*argv)
    audiocli.gateway.wait_for_held_responses(1)
    process.kill()
    process.communicate(timeout=20)
    audiocli.gateway.release_responses()

    r = audiocli(*argv)

    assert (r.code, list_spoken(r.posts)) == (0, CHAPTERS), r.err
    assert list_directory(tmp_path / "out") == FILES


def test_failed_chapter_keeps_the_others(audiocli: CommandLine, book: Path, tmp_path: Path) -> None:
    audiocli.gateway.queue_faults(Status(400))
    argv = ("--split-chapters", "-O", tmp_path / "out")

    failed = speak(audiocli, book, *argv)
    again = speak(audiocli, book, *argv)

    assert (failed.code, list_directory(tmp_path / "out")[-1]) == (3, FILES[-1]), failed.err
    assert (again.code, list_spoken(again.posts)) == (0, CHAPTERS[:1]), again.err
    assert (tmp_path / "out" / FILES[-1]).read_text().splitlines() == ["#EXTM3U", *FILES[:-1]]


def test_samples_of_a_book_are_joined_without_loss(audiocli: CommandLine, book: Path, tmp_path: Path) -> None:
    r = speak(audiocli, book, "-o", tmp_path / "book.wav", "--pause", "100")

    assert r.code == 0, r.err
    check_joined(decode(tmp_path / "book.wav"), CHAPTERS, pauses_ms=[100] * 3)
    assert read_warnings(r) == ["wav files have no chapters", "wav files have no cover"]
