"""Test recordings at URLs, with real servers on loopback addresses."""

from __future__ import annotations

import gzip
import stat
from pathlib import Path

import pytest

from audiocli.core.recording_download import derive_file_name
from audiocli.mock import DEFAULT_TRANSCRIPT
from tests.conftest import CommandLine
from tests.gateway_contract import SPEECH
from tests.recordings import make_recording
from tests.small_server import Answer, Received, serve

PAGE = b"<!DOCTYPE html><html><body><h1>A talk</h1></body></html>"
SECRET = "s3cr3tv4lue"
TEXT = f"{DEFAULT_TRANSCRIPT}\n"


def answer_with_recording(request: Received) -> Answer:
    """Serve a recording at /talk.wav, pages, errors, and redirects to wherever the query says."""
    path, _, query = request.path.removeprefix("/v1").partition("?")
    match path:
        case "/talk.wav" | "/download":
            return Answer(200, SPEECH, (("Content-Type", "audio/x-wav"),))
        case "/named":
            return Answer(200, SPEECH, (("Content-Disposition", 'attachment; filename="../../etc/passwd"'),))
        case "/zipped.wav":
            return Answer(200, gzip.compress(SPEECH), (("Content-Encoding", "gzip"),))
        case "/page" | "/watch":
            return Answer(200, PAGE, (("Content-Type", "text/html; charset=utf-8"),))
        case "/lying-page.mp3":
            return Answer(200, PAGE, (("Content-Type", "audio/mpeg"),))
        case "/empty.mp3":
            return Answer(200, b"", (("Content-Type", "audio/mpeg"),))
        case "/noise.mp3":
            return Answer(200, b"\x07" * 4_000, (("Content-Type", "audio/mpeg"),))
        case "/go":
            return Answer(302, b"", (("Location", query),))
        case "/loop":
            return Answer(302, b"", (("Location", "loop"),))
        case "/chain":
            hops = int(query) - 1
            return Answer(302, b"", (("Location", f"chain?{hops}" if hops else "talk.wav"),))
    return Answer(int(path.strip("/")) if path.strip("/").isdecimal() else 404, b"no")


@pytest.mark.parametrize(
    "path", ["/talk.wav", "/download", "/named", "/zipped.wav", "/go?/v1/talk.wav", "/go?go?talk.wav", "/chain?12"]
)
def test_recording_at_a_url_is_transcribed(audiocli: CommandLine, path: str) -> None:
    with serve(answer_with_recording) as server:
        result = audiocli("transcribe", server.url + path)

    assert (result.code, result.text) == (0, TEXT), result.err
    assert len(result.posts) == 1


def test_several_formats_are_written_to_the_working_directory(
    audiocli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "here"
    directory.mkdir()
    monkeypatch.chdir(directory)
    with serve(answer_with_recording) as server:
        first = audiocli("transcribe", f"{server.url}/talk.wav?a=b", "-f", "txt,srt")
        again = audiocli("transcribe", f"{server.url}/talk.wav?a=b", "-f", "txt,srt", "-O", tmp_path / "out")

    assert first.code == 0, first.err
    assert sorted(path.name for path in directory.iterdir()) == ["talk.srt", "talk.txt"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["talk.srt", "talk.txt"]
    # The content decides what was paid for, not the address.
    assert not again.posts


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/404", 2),
        ("/410", 2),
        ("/401", 2),
        ("/403", 2),
        ("/500", 7),
        ("/503", 7),
        ("/429", 7),
        ("/loop", 2),
        ("/go?ftp://127.0.0.1/talk.wav", 2),
        ("/go?file:///etc/passwd", 2),
        ("/go?http://[bad/", 2),
        ("/page", 2),
        ("/lying-page.mp3", 2),
        ("/empty.mp3", 8),
        ("/noise.mp3", 8),
    ],
)
def test_failed_download_has_an_exit_code(audiocli: CommandLine, path: str, code: int) -> None:
    with serve(answer_with_recording) as server:
        result = audiocli("transcribe", server.url + path)

    assert result.code == code, result.err
    assert not result.posts
    assert "may have been billed" not in result.err


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/a.mp3", "http://nothing.invalid/a.mp3"])
def test_unreachable_server_is_a_network_error(audiocli: CommandLine, url: str) -> None:
    assert audiocli("transcribe", url).code == 7


@pytest.mark.parametrize(
    "url", ["ftp://example.com/a.mp3", "http://", "http://a b/c", "s3:///a.mp3", "file:///etc/passwd"]
)
def test_other_urls_are_refused(audiocli: CommandLine, url: str) -> None:
    result = audiocli("transcribe", url)

    assert result.code == 2 and not result.requests


def test_failed_download_is_tried_again(audiocli: CommandLine) -> None:
    answers = iter([Answer(503, b""), Answer(500, b""), Answer(200, SPEECH)])
    with serve(lambda request: next(answers)) as server:
        result = audiocli("transcribe", f"{server.url}/talk.wav")

    assert (result.code, result.text) == (0, TEXT), result.err
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:9/x", "http://localhost/x", "http://10.0.0.1/x", "http://[::1]/x"]
)
def test_public_host_cannot_redirect_into_a_private_network(audiocli: CommandLine, target: str) -> None:
    """A proxy stands for the public internet."""

    def answer(request: Received) -> Answer:
        if "public.example.com" in request.path:
            return Answer(302, b"", (("Location", target),))
        return Answer(200, SPEECH)

    with serve(answer) as server:
        proxy = server.url.removesuffix("/v1")
        result = audiocli("transcribe", "http://public.example.com/talk.wav", variables={"http_proxy": proxy})

    assert result.code == 2, result.err
    assert "private address" in result.err
    assert len(server.requests) == 1


@pytest.mark.parametrize("argv", [[], ["--json"], ["--debug"]])
@pytest.mark.parametrize("path", ["/talk.wav", "/404", "/page", "/loop", "/go?http://127.0.0.1:1/x?y=1"])
def test_secrets_of_a_url_are_not_shown(audiocli: CommandLine, path: str, argv: list[str]) -> None:
    with serve(answer_with_recording) as server:
        url = server.url.replace("//", f"//user:{SECRET}@") + path + ("&" if "?" in path else "?") + f"sig={SECRET}"
        result = audiocli("transcribe", url, *argv)

    assert SECRET not in result.err + result.text
    if path == "/talk.wav":
        assert result.code == 0
        assert server.requests[0].headers["authorization"].startswith("Basic ")


@pytest.mark.parametrize("target", ["http://[bad/", f"http://127.0.0.1:99999/?sig={SECRET}", "/a%20b\x01c"])
def test_redirect_to_an_invalid_url_names_the_url_of_the_user(audiocli: CommandLine, target: str) -> None:
    with serve(lambda request: Answer(302, b"", (("Location", target),))) as server:
        result = audiocli("transcribe", f"{server.url}/talk.wav")

    assert result.code == 2
    assert result.err == f"error: cannot read {server.url}/talk.wav: it redirects to an invalid URL\n"


def test_password_without_encryption_is_warned_about(audiocli: CommandLine) -> None:
    """A proxy stands for the public internet."""
    with serve(answer_with_recording) as server:
        proxy = server.url.removesuffix("/v1")
        url = f"http://user:{SECRET}@public.example.com/talk.wav"
        result = audiocli("transcribe", url, variables={"http_proxy": proxy})

    assert "warning: the password is sent to public.example.com without encryption; use https://" in result.err
    assert "API key" not in result.err and SECRET not in result.err


def test_user_name_is_not_sent_to_another_host(audiocli: CommandLine) -> None:
    with serve(answer_with_recording) as other, serve(answer_with_recording) as server:
        other_url = other.url.replace("127.0.0.1", "localhost")
        url = server.url.replace("//", f"//user:{SECRET}@") + f"/go?{other_url}/talk.wav"
        result = audiocli("transcribe", url)

    assert (result.code, result.text) == (0, TEXT), result.err
    assert "authorization" not in other.requests[0].headers


def test_size_is_limited(audiocli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: Received) -> Answer:
        return Answer(200, gzip.compress(SPEECH * 20), (("Content-Encoding", "gzip"), ("Content-Type", "audio/wav")))

    monkeypatch.setattr("audiocli.core.recording_download.MAX_DOWNLOAD_BYTES", 100_000)
    with serve(answer) as server:
        result = audiocli("transcribe", f"{server.url}/talk.wav")

    assert result.code == 8 and "exceeds" in result.err


def test_nothing_is_left_of_a_download(audiocli: CommandLine, temporary_directory: Path) -> None:
    before = set(temporary_directory.iterdir())
    with serve(answer_with_recording) as server:
        for path in ("/talk.wav", "/404", "/noise.mp3", "/page"):
            audiocli("transcribe", server.url + path)

    assert set(temporary_directory.iterdir()) == before


def test_url_in_a_batch_is_refused(audiocli: CommandLine, tmp_path: Path) -> None:
    result = audiocli("transcribe", "http://127.0.0.1:9/a.mp3", "http://127.0.0.1:9/b.mp3", "-O", tmp_path)

    assert result.code == 2 and "URL" in result.err


def test_tracks_of_a_url_are_listed(audiocli: CommandLine) -> None:
    video = make_recording("mkv")
    with serve(lambda request: Answer(200, video)) as server:
        result = audiocli("transcribe", "--list-tracks", f"{server.url}/film.mkv", "--json")

    assert result.json["tracks"][0]["codec"] == "aac"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://example.com/a/talk.mp3?x=/etc/passwd", "talk.mp3"),
        ("https://example.com/a%2F..%2F..%2Fetc%2Fpasswd", "a-..-..-etc-passwd"),
        ("https://example.com/..", "untitled"),
        ("https://example.com/", "untitled"),
        ("https://example.com/-rf.mp3", "rf.mp3"),
        ("https://example.com/CON.mp3", "CON_.mp3"),
        ("https://example.com/%00%0A.mp3", ".mp3"),
        ("https://example.com/{n}%FF.wav", "{n}\ufffd.wav"),
    ],
)
def test_file_name_of_a_url_is_safe(url: str, name: str) -> None:
    derived = derive_file_name(url)

    assert "/" not in derived and derived not in ("", ".", "..") and not derived.startswith(("-", "."))
    if name != ".mp3":
        assert derived == name
    assert len(derived.encode()) < 255


def test_long_file_name_of_a_url_is_cut() -> None:
    assert len(derive_file_name(f"https://example.com/{'ä' * 4000}.mp3").encode()) < 255


# --- pages -----------------------------------------------------------------------------------------------------------

PROGRAM = """#!/bin/sh
# A program that stands for yt-dlp: it records its arguments and its environment.
printf '%s\\n' "$@" > "$TMPDIR/arguments"
env > "$TMPDIR/environment"
if [ -f "$TMPDIR/fail" ]; then echo "WARNING: old"; echo "ERROR: [generic] Unsupported URL" >&2; exit 1; fi
while [ "$#" -gt 1 ]; do
    if [ "$1" = --paths ]; then directory=$2; fi
    shift
done
if [ ! -f "$TMPDIR/nothing" ]; then cp "$TMPDIR/recording" "$directory/A talk: about <tea>.wav"; fi
"""


@pytest.fixture
def page_cli(audiocli: CommandLine, tmp_path: Path) -> CommandLine:
    """A command line with a program in the place of yt-dlp."""
    program = Path(audiocli.variables["PATH"]) / "yt-dlp"
    program.parent.mkdir(parents=True)
    program.write_text(PROGRAM)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    audiocli.variables["PATH"] += ":/usr/bin:/bin"
    audiocli.variables["TMPDIR"] = str(tmp_path / "temporary")
    (tmp_path / "temporary").mkdir()
    (tmp_path / "temporary" / "recording").write_bytes(SPEECH)
    return audiocli


def test_page_is_downloaded_with_a_program(page_cli: CommandLine, tmp_path: Path) -> None:
    with serve(answer_with_recording) as server:
        result = page_cli("transcribe", f"{server.url}/watch?v=--exec", "-f", "txt,srt", "-O", tmp_path / "out")

    assert result.code == 0, result.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "A talk- about -tea.srt",
        "A talk- about -tea.txt",
    ]
    arguments = (tmp_path / "temporary" / "arguments").read_text().splitlines()
    assert arguments[-2:] == ["--", f"{server.url}/watch?v=--exec"]
    assert {"--ignore-config", "--no-playlist", "--max-filesize"} < set(arguments)
    assert page_cli.variables["OPENROUTER_API_KEY"] not in (tmp_path / "temporary" / "environment").read_text()


@pytest.mark.parametrize(("flag", "code"), [("fail", 7), ("nothing", 8)])
def test_page_without_a_recording_is_an_error(page_cli: CommandLine, tmp_path: Path, flag: str, code: int) -> None:
    (tmp_path / "temporary" / flag).touch()
    with serve(answer_with_recording) as server:
        result = page_cli("transcribe", f"{server.url}/watch")

    assert result.code == code, result.err
    assert not result.posts
    assert "yt-dlp" in result.err


def test_page_without_the_program_has_a_hint(audiocli: CommandLine) -> None:
    with serve(answer_with_recording) as server:
        result = audiocli("transcribe", f"{server.url}/page")

    assert result.code == 2 and "install yt-dlp" in result.err
