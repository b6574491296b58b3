"""Text for speech: what is removed, what is refused, and what is never sent."""

from __future__ import annotations

import codecs
import random
import socket
import subprocess
import time
from pathlib import Path

import pytest

from audiocli.mock import CleanTruncation, NoFault
from audiocli.text.cleaning import StreamCleaner, clean_text
from audiocli.text.decoding import detect_encoding
from audiocli.text.speech_rate import find_short_speech, has_speakable_text
from audiocli.text.splitter import split_text
from tests.conftest import CommandLine
from tests.requirements import require_packages
from tests.test_http_client import read_request, serve, speak
from tests.test_long_speech import SENTENCES, check_joined, list_requested_texts, read_samples
from tests.test_long_speech_pipes import read_cues
from tests.test_processes import Program, list_files
from tests.test_processes import program as program

# --- cleaning --------------------------------------------------------------------------------------------------------

DIRTY_TEXTS = [
    ("\x1b[1;31mred\x1b[0m \x9b1mbold\x9b0m", "red bold"),
    ("\x1b]8;;http://example.org\x1b\\link\x1b]8;;\x1b\\ \x1b]0;title\x07end", "link end"),
    ("\x1b(Bcharset\x0f \x1bPsixel\x1b\\text", "charset text"),
    ("\x1b]no end\nnext \x1b[3", "no end\nnext "),
    ("l\bls\bs _\bu x\b_ 日\b日 本\b\b本 e\u0301\be\u0301", "ls u x 日 本 e\u0301"),
    ("nega\u2010\n     tive nega-\ntive pre\u00ad\n fix", "negative negative prefix"),
    ("state-of-\nthe-art e-\nmail", "state-of-the-art e-mail"),
    ("Vor-\nund Nachteile, 2010-\n2011, a -\nb", "Vor-\nund Nachteile, 2010-\n2011, a -\nb"),
    ("pre\u00adfix zero\u200bwidth \ufeffmark \u2066bidi\u2069 \x00nul\x7f", "prefix zerowidth mark bidi nul"),
    (
        "می\u200cروم क्\u200dष 👨\u200d👩\u200d👧 ❤️\u200d🔥 ส\u200bว",
        "می\u200cروم क्\u200dष 👨\u200d👩\u200d👧 ❤️\u200d🔥 ส\u200bว",
    ),
    ("a\u200cb a\u200db \U000e0041\U000e0042hidden", "ab ab hidden"),
    ("🏴\U000e0067\U000e0062\U000e007f flag", "🏴\U000e0067\U000e0062\U000e007f flag"),
    ("one\x1etwo\ttab\r\nline\fpage", "one\ntwo\ttab\r\nline\fpage"),
]


@pytest.mark.parametrize(("text", "expected"), DIRTY_TEXTS)
def test_cleaning_removes_only_what_is_invisible_or_not_text(text: str, expected: str) -> None:
    assert clean_text(text) == expected
    assert clean_text(expected) == expected


@pytest.mark.parametrize(("text", "expected"), DIRTY_TEXTS)
def test_cleaning_of_a_stream_is_independent_of_its_parts(text: str, expected: str) -> None:
    rng = random.Random(7)
    for _ in range(50):
        cleaner, cleaned, position = StreamCleaner(), "", 0
        while position < len(text):
            size = rng.randint(1, 4)
            cleaned += cleaner.feed(text[position : position + size])
            position += size
        assert cleaned + cleaner.finish() == expected


@pytest.mark.parametrize("unit", ["a-\n", "\x1b]", "\x1b[", "x\b", "-", "\x9d", "a\u00ad", "\t"])
def test_cleaning_takes_linear_time(unit: str) -> None:
    started_s = time.monotonic()
    clean_text(unit * 100_000)

    assert time.monotonic() - started_s < 3.0


def test_man_page_is_counted_as_sent(audiocli: CommandLine, tmp_path: Path) -> None:
    page = b"NAME\n  l\bls\bs \033[1mx\033[0m pre\xc2\xadfix"

    planned = audiocli("speak", "-n", "--json", "-o", tmp_path / "x.wav", stdin=page)
    r = audiocli("speak", "-o", tmp_path / "x.wav", stdin=page)

    assert list_requested_texts(audiocli) == ["NAME\n  ls x prefix"]
    assert planned.json["characters"] == len("NAME\n  ls x prefix") == r.ledger[0]["characters"]


# --- encodings and documents -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
@pytest.mark.parametrize("from_file", [True, False])
def test_text_with_a_byte_order_mark_is_read(
    audiocli: CommandLine, tmp_path: Path, mark: bytes, encoding: str, from_file: bool
) -> None:
    content = mark + "Grüße, 世界 👍".encode(encoding)
    (tmp_path / "a.txt").write_bytes(content)

    source = ("-F", tmp_path / "a.txt") if from_file else ()
    r = audiocli("speak", *source, "-o", tmp_path / "x.wav", stdin=b"" if from_file else content)

    assert r.code == 0, r.err
    assert list_requested_texts(audiocli) == ["Grüße, 世界 👍"]


def test_utf16_in_an_open_pipe_is_read(program: Program, audiocli: CommandLine, tmp_path: Path) -> None:
    process = program.start("speak", "-o", tmp_path / "x.wav", stdin=subprocess.PIPE)
    assert process.stdin is not None
    content = codecs.BOM_UTF16_LE + f"{SENTENCES[0]}\n\x1b[1m世界\x1b[0m.\n".encode("utf-16-le")
    for start, end in ((0, 1), (1, 101), (101, len(content))):
        process.stdin.write(content[start:end])
        process.stdin.flush()
        time.sleep(0.5)
    _, err = process.communicate(timeout=30)

    assert process.returncode == 0, err
    assert list_requested_texts(audiocli) == [SENTENCES[0], "世界."]


@pytest.mark.parametrize(
    "text", ["Hello, world.\n", "Привет, мир.\n", "今天天气很好，我们去公园。", "こんにちは、世界。", "สวัสดี ชาวโลก\n"]
)
@pytest.mark.parametrize("encoding", ["UTF-16LE", "UTF-16BE"])
def test_utf16_without_a_mark_is_named(audiocli: CommandLine, tmp_path: Path, text: str, encoding: str) -> None:
    content = text.encode(f"{encoding[:-2]}-{encoding[-2:]}")
    (tmp_path / "a.txt").write_bytes(content)

    r = audiocli("speak", "-F", tmp_path / "a.txt", "-o", tmp_path / "x.wav")

    assert (r.code, r.requests) == (2, [])
    assert f"{encoding} without a byte order mark" in r.err
    assert f"iconv -f {encoding} -t UTF-8 {tmp_path / 'a.txt'}" in r.err


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Ein schöner Tag für müde Gäste.\n", "cp1252"),
        ("Привет, мир.\n", "cp1251"),
        ("今天天气很好，我们去公园。", "gbk"),
        ("こんにちは、世界。", "shift-jis"),
        ("こんにちは、世界。", "euc-jp"),
    ],
)
def test_other_encodings_are_not_mistaken_for_utf16(text: str, encoding: str) -> None:
    assert detect_encoding(text.encode(encoding)) is None


@pytest.mark.parametrize(
    ("content", "message", "command"),
    [
        (b"%PDF-1.7\n1 0 obj", "PDF document", "pdftotext"),
        (b"\xef\xbb\xbf\n%PDF-1.4", "PDF document", "pdftotext"),
        (b"{\\rtf1\\ansi Hello}", "RTF document", "pandoc -f rtf"),
        (b"PK\x03\x04rest of a docx", "ZIP archive", "pandoc"),
        (b"PK\x05\x06" + bytes(18), "ZIP archive", "unzip"),
        (b"\x1f\x8b\x08\x00rest", "gzip", "gunzip"),
        (b"\x7fELF\x02\x01\x01\x00\x00text", "byte 7 is NUL", "file "),
        (b"text\x00text", "byte 4 is NUL", "file "),
        (b"caf\xe9", "not UTF-8: byte 3", "iconv"),
    ],
)
@pytest.mark.parametrize("from_file", [True, False])
def test_files_that_are_not_text_are_refused_with_a_command(
    audiocli: CommandLine, tmp_path: Path, content: bytes, message: str, command: str, from_file: bool
) -> None:
    (tmp_path / "a file").write_bytes(content)

    source = ("-F", tmp_path / "a file") if from_file else ()
    r = audiocli("speak", *source, "-o", tmp_path / "x.wav", stdin=b"" if from_file else content)

    assert (r.code, r.requests, list_files(tmp_path)) == (2, [], ["a file"])
    assert message in r.err
    assert command in r.err
    assert (f"'{tmp_path / 'a file'}'" in r.err) == from_file


def test_argument_that_begins_like_a_document_is_spoken(audiocli: CommandLine, tmp_path: Path) -> None:
    assert audiocli("speak", "%PDF- is a signature", "-o", tmp_path / "x.wav").code == 0
    assert list_requested_texts(audiocli) == ["%PDF- is a signature"]


# --- chunks without words --------------------------------------------------------------------------------------------

UNSPEAKABLE = ["---", "•", "…", "* * *", "———", "✅", "‼️", "\u3164", "€", "\u200b"]


@pytest.mark.parametrize("text", UNSPEAKABLE)
@pytest.mark.parametrize("flags", [(), ("--pause", "100"), ("--markdown",), ("-n",)])
def test_text_without_a_letter_or_digit_is_a_usage_error(
    audiocli: CommandLine, tmp_path: Path, text: str, flags: tuple[str, ...]
) -> None:
    r = audiocli("speak", *flags, "-o", tmp_path / "x.wav", stdin=f"{text}\n\n{text}\n".encode())

    assert (r.code, r.requests, list_files(tmp_path)) == (2, [], [])
    assert "no text to speak" in r.err


@pytest.mark.parametrize("text", UNSPEAKABLE)
def test_chunk_without_a_letter_or_digit_becomes_the_pause(audiocli: CommandLine, tmp_path: Path, text: str) -> None:
    document = f"{text}\n\n{SENTENCES[0]}\n\n{text}\n\n{SENTENCES[1]}\n\n{text}\n"
    argv = ("speak", "--pause", "300", "--captions", tmp_path / "x.srt", "-o", tmp_path / "x.wav", "--json")

    planned = audiocli(*argv, "-n", stdin=document.encode())
    r = audiocli(*argv, "-j", "1", stdin=document.encode())

    assert r.code == 0, r.err
    assert list_requested_texts(audiocli) == SENTENCES[:2]
    check_joined(read_samples(tmp_path / "x.wav"), SENTENCES[:2], pauses_ms=[300])
    assert [cue for *_, cue in read_cues(tmp_path / "x.srt")] == SENTENCES[:2]
    assert (planned.json["requests"], planned.json["characters"]) == (2, len("".join(SENTENCES[:2])))
    assert [entry["characters"] for entry in r.ledger] == [len(sentence) for sentence in SENTENCES[:2]]


def test_single_speakable_chunk_is_sent_alone(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("speak", f"✅\n\n{SENTENCES[0]}\n\n---", "--captions", tmp_path / "x.srt", "-o", tmp_path / "x.wav")

    assert r.code == 0, r.err
    assert list_requested_texts(audiocli) == SENTENCES[:1]


def test_markdown_heading_of_emoji_is_not_sent(audiocli: CommandLine, tmp_path: Path) -> None:
    document = f"# ✅\n\n{SENTENCES[0]}\n\n## 🎉\n\n{SENTENCES[1]}\n"

    r = audiocli("speak", "--markdown", "--pause", "200", "-j", "1", "-o", tmp_path / "x.wav", stdin=document.encode())

    assert r.code == 0, r.err
    assert list_requested_texts(audiocli) == SENTENCES[:2]
    check_joined(read_samples(tmp_path / "x.wav"), SENTENCES[:2], pauses_ms=[200])


def test_open_pipe_does_not_send_lines_without_words(program: Program, audiocli: CommandLine, tmp_path: Path) -> None:
    process = program.start("speak", "--pause", "300", "-o", tmp_path / "x.wav", stdin=subprocess.PIPE)
    assert process.stdin is not None
    for line in (SENTENCES[0], "---", SENTENCES[1], "✅"):
        process.stdin.write(f"{line}\n\n".encode())
        process.stdin.flush()
        time.sleep(0.5)
    _, err = process.communicate(timeout=30)

    assert process.returncode == 0, err
    assert sorted(list_requested_texts(audiocli)) == SENTENCES[:2]
    check_joined(read_samples(tmp_path / "x.wav"), SENTENCES[:2], pauses_ms=[300])


MIXTURE = [
    *("a", "Word", " sentence. ", "7", "é", "e\u0301", "日本", "ไทย", "क्ष", "．", "\u0301", "\u3164"),
    *("👍🏽", "👨\u200d👩\u200d👧", "✅", "🇩🇪", "---", "* * *", "…", "•", ".", "。", "!", "<b>", "&", "#"),
    *("\x1b[1m", "\x1b]8;;http://x\x1b\\", "\x1b]", "\x1b", "\b", "l\bl", "\x07", "\x7f"),
    *("\u00ad", "\u200b", "\u200d", "\u2066", "-\n", "\u2010\n"),
    *("\n", "\n\n", "\r\n", " ", "\u3000", "\u2028", "\f"),
]


def test_random_mixtures_are_cleaned_counted_and_sent_only_with_words(audiocli: CommandLine, tmp_path: Path) -> None:
    rng = random.Random(2027)
    sent_texts = usage_errors = 0
    for number in range(200):
        text = "".join(rng.choice(MIXTURE) for _ in range(rng.randint(1, 40)))
        flags = [flag for flag in (("--max-chars", "20"), ("--pause", "5"), ("--markdown",)) if rng.random() < 0.4]
        captions = ("--captions", tmp_path / "x.srt") if rng.random() < 0.3 else ()
        words = ("--no-cache", *(word for flag in flags for word in flag), *captions)
        argv = ("speak", *words, "-o", tmp_path / "x.wav", "--json")

        r = audiocli(*argv, stdin=text.encode())

        requested = [request.json["input"] for request in r.posts]
        assert r.code in (0, 2), (text, r.err)
        assert (r.code == 0) == bool(requested), text
        assert all(has_speakable_text(sent) for sent in requested), (text, requested)
        assert not any(char in sent for sent in requested for char in "\x00\x07\x08\x1b\x7f\u00ad\u2066"), text
        assert sorted(entry["characters"] for entry in r.ledger) == sorted(map(len, requested)), text
        if number % 5 == 0:
            planned = audiocli(*argv, "-n", stdin=text.encode())
            assert planned.code == r.code, text
            # A text that occurs twice is requested once.
            if r.code == 0 and len(requested) == planned.json["requests"]:
                assert planned.json["characters"] == sum(map(len, requested)), text
        sent_texts += len(requested)
        usage_errors += r.code == 2
    assert sent_texts > 100 and usage_errors > 5


# --- missing speech --------------------------------------------------------------------------------------------------


def test_chunk_with_less_audio_than_the_others_is_named(audiocli: CommandLine, tmp_path: Path) -> None:
    # 55 % of the samples of the third chunk; the same share of every chunk is the speed of the voice.
    size_bytes = round(0.55 * len(SENTENCES[2]) * 0.06 * 24_000) * 2
    audiocli.gateway.queue_faults(NoFault(), NoFault(), CleanTruncation(size_bytes))
    argv = ("speak", " ".join(SENTENCES), "--max-chars", "50", "-j", "1", "--json")

    r = audiocli(*argv, "-o", tmp_path / "x.wav")
    complete = audiocli(*argv, "-o", tmp_path / "y.wav")

    assert (r.code, complete.code, complete.json["warnings"]) == (0, 0, []), r.err
    (warning,) = r.json["warnings"]
    assert warning.startswith("chunk 3 of 8, from character ") and SENTENCES[2][:30] in warning
    assert "compared with the other chunks" in warning


def test_short_speech_is_found_from_four_chunks_and_60_percent() -> None:
    complete = [("Twenty words or so. " * 5, 6.0)] * 3

    assert list(find_short_speech([*complete, ("Twenty words or so. " * 5, 3.5)])) == [(3, pytest.approx(6.0))]
    assert list(find_short_speech([*complete, ("Twenty words or so. " * 5, 3.7)])) == []
    assert list(find_short_speech([*complete[1:], ("Twenty words or so. " * 5, 3.5)])) == []
    assert list(find_short_speech([*complete, ("Yes.", 0.1)])) == []


# --- endless speech --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["wav", "flac"])
def test_speech_without_end_is_refused(audiocli: CommandLine, tmp_path: Path, format: str) -> None:
    """A server that sends noise for ever fills no disk."""
    block = random.Random(3).randbytes(256 * 1024)
    sent_blocks = 0

    def answer(connection: socket.socket) -> None:
        nonlocal sent_blocks
        read_request(connection)
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: audio/pcm;rate=48000;channels=2\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        while sent_blocks < 400:  # 100 MB
            connection.sendall(b"%x\r\n%b\r\n" % (len(block), block))
            sent_blocks += 1

    with serve(answer) as base_url:
        r = speak(audiocli, base_url, tmp_path / f"x.{format}", "--json")

    assert r.code == 9, r.err
    assert "too much for the text" in r.err_json["error"]["message"]
    assert sent_blocks < 200
    assert list_files(tmp_path) == []
    assert [entry["outcome"] for entry in r.ledger] == ["failed"]


# --- numbers and scripts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["３．１４", "３，０００", "１０：３０", "１，２３４．５６", "3.14", "10:30"])
@pytest.mark.parametrize("limit", range(9, 16))
def test_number_is_not_split(number: str, limit: int) -> None:
    text = f"その値は{number}です。次は{number}になります、それから{number}円。"

    chunks = split_text(text, limit)

    assert "".join(chunk.text for chunk in chunks) == text
    assert sum(chunk.text.count(number) for chunk in chunks) == 3, [chunk.text for chunk in chunks]


@pytest.mark.parametrize(
    ("voice", "text", "script"),
    [
        ("en-us", "สวัสดีชาวโลก", "Thai"),
        ("en-us+f3", "Привет, мир", "Cyrillic"),
        ("de", "你好，世界", "Chinese"),
        ("ru", "안녕하세요", "Hangul"),
        ("th", "สวัสดี Python", None),
        ("ru", "Привет Linux", None),
        ("en-us", "The word мир in a long English sentence", None),
        ("ja", "こんにちは世界", None),
        ("cmn", "你好", None),
        ("sr", "Здраво svete", None),
        ("en-us", "naïve café ﬁ ª", None),
    ],
)
def test_voice_that_cannot_read_the_script_causes_a_warning(
    audiocli: CommandLine, tmp_path: Path, voice: str, text: str, script: str | None
) -> None:
    require_packages("espeakng_loader")

    r = audiocli("speak", "-g", "local", "-v", voice, "-n", "--json", "-o", tmp_path / "x.wav", text)

    assert r.code == 0, r.err
    assert any(f"cannot read {script} script" in warning for warning in r.json["warnings"]) == (script is not None)


@pytest.mark.parametrize("text", ["a." * 200, "A. é." * 80, "𝒂.𝒂. " * 80, "я ." * 200, "..é" * 200])
def test_long_runs_of_letters_and_dots_do_not_crash_espeak(program: Program, tmp_path: Path, text: str) -> None:
    require_packages("espeakng_loader")

    process = program.start("speak", "-m", "local:espeak", "-x", "4", "-o", tmp_path / "x.wav", stdin=subprocess.PIPE)
    _, err = process.communicate(text.encode(), timeout=60)

    assert process.returncode == 0, err
    assert (tmp_path / "x.wav").stat().st_size > 20_000
