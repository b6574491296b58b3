"""Color, progress lines, wrapped messages, the bell and local times: what people see on a terminal."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import pty
import random
import re
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from audiocli.cli.progress import describe_request, describe_speech, describe_transcription
from audiocli.console import Console, ProgressState, count_cells
from audiocli.core.progress import MIN_UPLOAD_BYTES, SpeechProgress, TranscriptionProgress, UploadProgress
from audiocli.mock import Drip, Stall
from audiocli.progress_display import MIN_BAR_WIDTH, fit_line
from audiocli.types.ledger import CostSource
from audiocli.types.requests import HttpRequest, RequestBody
from tests.conftest import CommandLine, Stream
from tests.gateway_contract import SPEECH
from tests.test_help import TREE
from tests.test_long_transcription import FOUR_SPANS, write_recording
from tests.test_processes import Program, program  # noqa: F401 - a fixture

STYLE = re.compile(r"\x1b\[[0-9;]*m")
SENTENCES = " ".join(f"This is sentence number {number} of the text." for number in range(6))
WIDTHS = (60, 80, 100, 120)


@pytest.fixture
def immediate_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress lines that appear at the start of an activity and are drawn again without a wait."""
    monkeypatch.setattr("audiocli.console.ACTIVITY_DELAY_S", 0.0)
    monkeypatch.setattr("audiocli.console.ACTIVITY_REFRESH_S", 0.001)


def render_screen(shown: str) -> list[str]:
    """Return the lines that a terminal of any width shows, without styles. Fail on a control that it does not know."""
    lines, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|.", STYLE.sub("", shown), re.DOTALL):
        if token == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif token == "\r":
            column = 0
        elif token == "\x1b[2K":
            lines[row] = ""
        elif token == "\x1b[1A":
            row -= 1
        elif token in ("\x1b[?25l", "\x1b[?25h"):
            continue
        else:
            assert token.isprintable(), repr(token)
            lines[row] = lines[row].ljust(column)[:column] + token + lines[row][column + 1 :]
            column += 1
    return lines


# --- lines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [60, 80])
def test_messages_and_checks_break_between_words(audiocli: CommandLine, columns: int) -> None:
    variables = {"COLUMNS": str(columns), "NO_COLOR": "1", "OPENROUTER_API_KEY": ""}

    error = audiocli("chat", "hi", terminal="out err", variables=variables).err
    checks = audiocli("config", "check", terminal="out err", variables=variables).text

    assert "run: audiocli keys set openrouter;" in error.replace("\n", " ")
    for line in (*error.splitlines(), *checks.splitlines()):
        # A command stays whole, and a path has no spaces.
        assert len(line) <= columns or " " not in line.strip() or "audiocli " in line or "/" in line, line
    assert any(line.startswith(" " * 9) for line in checks.splitlines())


# --- color -----------------------------------------------------------------------------------------------------------


def is_colored(text: str) -> bool:
    return STYLE.search(text) is not None


@pytest.mark.parametrize(
    ("options", "variables", "on_terminal", "in_pipe"),
    [
        ([], {}, True, False),
        ([], {"TERM": "dumb"}, False, False),
        ([], {"NO_COLOR": "1"}, False, False),
        ([], {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False, False),
        ([], {"FORCE_COLOR": "1"}, True, True),
        ([], {"FORCE_COLOR": "1", "TERM": "dumb"}, True, True),
        (["--color", "auto"], {}, True, False),
        (["--color", "always"], {"NO_COLOR": "1", "TERM": "dumb"}, True, True),
        (["--color=never"], {"FORCE_COLOR": "1"}, False, False),
        (["--color", "always", "--color", "never"], {}, False, False),
    ],
)
def test_option_decides_over_variables_and_variables_over_the_terminal(
    audiocli: CommandLine, options: list[str], variables: dict[str, str], on_terminal: bool, in_pipe: bool
) -> None:
    for terminal, expected in (("out err", on_terminal), ("", in_pipe)):
        table = audiocli("config", *options, terminal=terminal, variables=variables)
        page = audiocli("speak", "--help", *options, terminal=terminal, variables=variables)
        failure = audiocli("transcribe", "missing.wav", *options, terminal=terminal, variables=variables)
        refused = audiocli("speak", "--no-such-option", *options, terminal=terminal, variables=variables)

        assert (table.code, page.code, failure.code, refused.code) == (0, 0, 2, 2)
        assert [is_colored(text) for text in (table.text, page.text, failure.err, refused.err)] == [expected] * 4


def test_variables_of_the_process_do_not_decide_against_the_option(
    audiocli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[1;36m-output" in audiocli("speak", "--help", "--color", "always").text
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not is_colored(audiocli("speak", "--help", "--color", "never").text)


@pytest.mark.parametrize("name", TREE)
def test_every_command_accepts_the_option_before_and_after(audiocli: CommandLine, name: str) -> None:
    for argv in (["--color", "always", *name.split(), "--help"], [*name.split(), "--help", "--color=always"]):
        r = audiocli(*argv)

        assert r.code == 0, (argv, r.err)
        assert is_colored(r.text)
        assert "--color" in STYLE.sub("", r.text)


def test_json_and_data_are_never_colored(audiocli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "talk.wav").write_bytes(SPEECH)
    document = audiocli("config", "check", "--json", "--color", "always", terminal="out err")
    failure = audiocli("transcribe", "missing.wav", "--json", "--color", "always", terminal="out err")
    transcript = audiocli("transcribe", tmp_path / "talk.wav", "--color", "always", terminal="out err")

    assert document.json["command"] == "config check" and not is_colored(document.text)
    assert failure.err_json["ok"] is False and not is_colored(failure.err)
    assert transcript.text.strip() and not is_colored(transcript.text)


def test_colors_have_a_meaning() -> None:
    err, out = Stream(), Stream()
    console = Console(stdout=out, stderr=err, is_debugging=True, stdout_has_color=True, stderr_has_color=True)

    for prefix in ("error", "warning", "note", "hint", "debug"):
        (console.debug if prefix == "debug" else console.info)(f"{prefix}: text" if prefix != "debug" else "text")
    console.result("x.mp3", "free")
    console.write_table(["id", "outcome"], [["1", "ok"], ["2", "failed"], ["ok", "unknown"]], numeric=[True, False])
    console.write_check("error", "key: refused")

    assert err.getvalue().decode().splitlines() == [
        "\x1b[1;31merror:\x1b[0m text",
        "\x1b[1;33mwarning:\x1b[0m text",
        "note: text",
        "\x1b[36mhint:\x1b[0m text",
        "\x1b[2mdebug:\x1b[0m text",
        "x.mp3  free",
    ]
    assert out.getvalue().decode().splitlines() == [
        "\x1b[1mid\x1b[0m  \x1b[1moutcome\x1b[0m",
        " 1  \x1b[32mok\x1b[0m",
        " 2  \x1b[31mfailed\x1b[0m",
        "ok  \x1b[33munknown\x1b[0m",
        "\x1b[31merror  \x1b[0m  key: refused",
    ]


def test_unknown_value_is_refused(audiocli: CommandLine) -> None:
    r = audiocli("usage", "--color", "sometimes")

    assert r.code == 2
    assert "--color sometimes: must be auto, always or never" in r.err


# --- wrapped messages ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", WIDTHS)
def test_messages_are_wrapped_between_words(width: int) -> None:
    err = Stream()
    console = Console(stdout=Stream(), stderr=err, stderr_width=width, stderr_has_color=True)
    path, command = "/a/path/" + "long-name-" * 15, "audiocli transcribe 'a name.wav' -o " + "x" * 90
    words = "some words that make this message longer than every terminal of this test, with two  spaces " * 2
    text = f"{words}{path} {words}(see 'audiocli speak --help'): {command}; or not"

    console.warning(text)
    console.result("name.mp3", "3.0 s of audio", "openrouter:openai/whisper-large-v3", "cost about $0.0001", "x" * 30)

    message, result = STYLE.sub("", err.getvalue().decode()).split("\nname.mp3")
    lines = message.splitlines()
    assert " ".join(lines) == f"warning: {text}"
    assert [line for line in lines if count_cells(line) > width] == [path, f"{command};"]
    assert sum("'audiocli speak --help'" in line for line in lines) == 1
    assert any("cost about $0.0001" in line for line in result.splitlines())
    assert all(count_cells(line) <= width for line in f"name.mp3{result}".splitlines())


def test_messages_in_a_pipe_are_single_lines(audiocli: CommandLine) -> None:
    r = audiocli("speak", "hi", "-m", "no-such-model-" * 20)

    assert [line.split()[0] for line in r.err.splitlines()] == ["error:", "hint:"]


# --- progress lines --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", range(1, 140))
def test_progress_line_fits_any_width(width: int) -> None:
    details = ("12 of 40 chunks", "16 × real time", "cost $0.0021 of about $0.0046", "14 s left")
    for share, text in itertools.product((None, 0.5), ("15 of 31 recordings", "漢字 " * 9)):
        shown_text, bar_width, shown_details = fit_line(ProgressState(text, share, details), width)

        cells = [count_cells(shown_text), *([bar_width, count_cells(shown_details)] if bar_width else [])]
        assert sum(cells) + len(cells) - 1 <= width or shown_text == "…"
        assert bar_width == 0 or (share is not None and bar_width >= MIN_BAR_WIDTH)
        omitted = len(details) - sum(detail in f"{shown_text}, {shown_details}" for detail in details)
        assert all(detail in f"{shown_text}, {shown_details}" for detail in details[omitted:])


def test_progress_has_rate_cost_and_time_left() -> None:
    speech, transcription = SpeechProgress(10), TranscriptionProgress(600.0)
    transcription.total_chunks = 10
    for progress in (speech, transcription):
        progress.done_chunks = 4
        progress.costs = [(1_000_000, CostSource.ESTIMATED)] * 4
        progress._started_s = time.monotonic() - 8.0  # half a chunk in a second
    speech.audio_s = 96.0

    assert describe_speech(speech, "openai:tts-1") == ProgressState(
        "4 of 10 chunks", 0.4, ("96 s of audio at 12 × real time", "cost about $0.004", "12 s left")
    )
    assert describe_transcription(transcription, "openai:whisper-1") == ProgressState(
        "4 of 10 chunks", 0.4, ("30 × real time", "cost about $0.004", "12 s left")
    )


def test_cached_chunks_do_not_count_for_rate_and_time_left() -> None:
    progress = TranscriptionProgress(600.0)
    progress.total_chunks, progress.done_chunks, progress.cached_chunks = 10, 4, 4

    assert describe_transcription(progress, "openai:whisper-1") == ProgressState("4 of 10 chunks", 0.4)


@pytest.mark.usefixtures("immediate_progress")
def test_messages_do_not_break_the_progress_line() -> None:
    err, out = Stream(is_terminal=True), Stream(is_terminal=True)
    console = Console(stdout=out, stderr=err, is_interactive=True, stdout_is_terminal=True)
    done = itertools.count()

    async def run() -> None:
        async with console.activity(lambda: ProgressState("working", next(done) / 1000, ("some details",))):
            while b"working" not in err.getvalue():  # noqa: ASYNC110 - waits for output
                await asyncio.sleep(0.001)
            console.warning("first")
            assert render_screen(err.getvalue().decode())[-2].startswith("warning: first")
            assert "working" in render_screen(err.getvalue().decode())[-1]
            console.write_text("data\n")
            console.info("second")
        console.result("end")

    asyncio.run(run())

    assert render_screen(err.getvalue().decode()) == ["warning: first", "note: second", "end", ""]
    assert out.getvalue() == b"data\n"


@pytest.mark.usefixtures("immediate_progress")
@pytest.mark.parametrize("options", [(), ("--color", "never")])
def test_long_speech_shows_a_bar(audiocli: CommandLine, tmp_path: Path, options: tuple[str, ...]) -> None:
    argv = ("speak", SENTENCES, "--max-chars", "60", "-j", "1", "-o")

    shown = audiocli(*argv, tmp_path / "x.wav", *options, terminal="err").err
    quiet = audiocli(*argv, tmp_path / "y.wav", "-q", "--no-resume", terminal="err").err
    piped = audiocli(*argv, tmp_path / "z.wav", "--no-resume").err

    assert re.search(r"\d of 6 chunks ", STYLE.sub("", shown)) and "━" in shown
    assert is_colored(shown) == (options == ())
    assert quiet == ""
    assert "chunks" not in piped and "\x1b" not in piped


@pytest.mark.usefixtures("immediate_progress")
def test_streamed_reply_replaces_the_progress_line(audiocli: CommandLine) -> None:
    reply = audiocli("chat", "Hi").text
    terminal = Stream(is_terminal=True)
    audiocli.gateway.queue_faults(Drip(block_bytes=200, interval_s=0.01))

    r = audiocli("chat", "Hi", stdout=terminal, stderr=terminal)

    assert (r.code, "waiting for " in r.err) == (0, True)
    assert "\n".join(render_screen(r.err)).startswith(reply)


def test_short_command_on_a_terminal_does_not_load_rich(audiocli: CommandLine, tmp_path: Path) -> None:
    argv = ["speak", "hi", "-o", str(tmp_path / "x.mp3")]
    probe = (
        "import sys\n"
        "from audiocli.context import AppContext\n"
        "from audiocli.app import main\n"
        f"code = main({argv!r}, AppContext.from_process())\n"
        "print(code, sorted(name for name in sys.modules if name in ('rich', 'audiocli.progress_display')))\n"
    )
    primary, secondary = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", probe],
            stdout=subprocess.PIPE,
            stderr=secondary,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=60,
            cwd=Path(__file__).parent.parent,
            env={**audiocli.variables, "TERM": "xterm"},
        )
    finally:
        os.close(secondary)
        os.close(primary)

    assert done.stdout == "0 []\n"


# --- uploads ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("block_count", "is_large"), [(4, False), (5, True)])
def test_large_upload_is_counted_while_it_is_sent(block_count: int, is_large: bool) -> None:
    blocks = [bytes(MIN_UPLOAD_BYTES // 5)] * block_count
    body = RequestBody("audio/wav", sum(map(len, blocks)), lambda: iter(blocks))
    uploads = UploadProgress()
    request = uploads.track(HttpRequest("POST", "http://127.0.0.1/", {}, body))
    assert request.body is not None

    for _ in range(2):  # a request that is sent again starts at 0
        counts = [uploads.sent_bytes for _ in request.body.blocks()]
        assert counts == ([index * len(blocks[0]) for index in range(block_count)] if is_large else [0] * block_count)
        assert (uploads.total_bytes, uploads.sent_bytes) == ((body.size_bytes,) * 2 if is_large else (0, 0))

    assert describe_request("transcribing", uploads) == ProgressState("transcribing")


@pytest.mark.usefixtures("immediate_progress")
def test_upload_shows_bytes_until_the_server_has_read_them(audiocli: CommandLine, tmp_path: Path) -> None:
    noise = random.Random(7).randbytes(16_000_000)  # more than the system buffers
    (tmp_path / "noise.wav").write_bytes(SPEECH[:40] + len(noise).to_bytes(4, "little") + noise)
    may_read = threading.Event()

    class SlowServer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def do_POST(self) -> None:
            may_read.wait(20)
            self.rfile.read(int(self.headers["Content-Length"]))
            content = json.dumps({"text": "Noise.", "usage": {"cost": 0.01}}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            return

    class WatchedStream(Stream):
        """Lets the server read once an upload is shown."""

        def write(self, content: bytes) -> int:  # type: ignore[override]
            if b"uploading: " in bytes(content):
                may_read.set()
            return super().write(content)

    with ThreadingHTTPServer(("127.0.0.1", 0), SlowServer) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            audiocli.variables["OPENROUTER_BASE_URL"] = f"http://127.0.0.1:{server.server_address[1]}/api/v1"
            err = WatchedStream(is_terminal=True)
            r = audiocli("transcribe", tmp_path / "noise.wav", "--no-split", stderr=err)
        finally:
            server.shutdown()

    assert r.code == 0, r.err
    assert re.search(r"uploading: [\d.]+ (bytes|kB|MB) of \d\d\.\d MB", STYLE.sub("", r.err))


# --- bell, times, interruption ---------------------------------------------------------------------------------------


def test_bell_rings_at_the_end_on_a_terminal_only(audiocli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "talk.wav").write_bytes(SPEECH)
    commands: list[tuple[int, list[str | Path]]] = [
        (0, ["speak", "hi", "-o", tmp_path / "x.mp3"]),
        (0, ["transcribe", tmp_path / "talk.wav", "--json"]),
        (0, ["transcribe", tmp_path, "-q"]),
        (0, ["chat", "hi"]),
        (2, ["transcribe", tmp_path / "missing.wav"]),
        (2, ["jobs", "wait", "no-such-job"]),
    ]
    for code, argv in commands:
        with_bell = audiocli(*argv, "--bell", terminal="err")
        piped, without = audiocli(*argv, "--bell"), audiocli(*argv, terminal="err")

        assert (with_bell.code, piped.code, without.code) == (code,) * 3, with_bell.err
        assert with_bell.err.endswith("\a") and with_bell.err.count("\a") == 1
        assert "\a" not in piped.err + without.err


def test_jobs_show_local_times_to_people(all_gateways_cli: CommandLine) -> None:
    assert all_gateways_cli("speak", "Hello there.", "--background", "-g", "therouter").code == 0

    document = json.loads(all_gateways_cli("jobs", "--json").text)
    table = all_gateways_cli("jobs").text
    shown = all_gateways_cli("jobs", "show", document["id"]).text

    times = [datetime.fromisoformat(document[name]) for name in ("submitted_at", "expires_at")]
    for text in (table, shown):
        assert all(f"{at.astimezone():%Y-%m-%d %H:%M}" in text for at in times)
        assert document["submitted_at"] not in text


def test_interrupted_transcription_reports_cached_chunks_and_cost(
    program: Program,  # noqa: F811
    audiocli: CommandLine,
    tmp_path: Path,
) -> None:
    path = write_recording(tmp_path / "long.wav", *FOUR_SPANS)
    fast = Drip(block_bytes=1_000_000, interval_s=0)
    audiocli.gateway.queue_faults(fast, fast, Stall(after_bytes=0, seconds=20))
    argv = ("transcribe", path, "--max-chunk", "10", "-j", "1", "-o", tmp_path / "long.txt")
    process = program.start(*argv)
    audiocli.gateway.wait_for_requests(3)

    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)

    report = re.search(r"interrupted: 2 of (\d+) chunks are cached, cost \$([\d.]+);.* to resume", err.decode())
    assert process.returncode == 130
    assert report is not None, err
    spent_usd = sum(entry["cost_nanousd"] or 0 for entry in audiocli.read_ledger_entries()) / 1e9
    assert float(report[2]) == pytest.approx(spent_usd, rel=0.05)
    audiocli.gateway.clear_faults()
    assert len(audiocli(*argv).posts) == int(report[1]) - 2
