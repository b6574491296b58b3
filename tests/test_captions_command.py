"""`audiocli captions`: check, convert, shift, scale, merge and split."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pysubs2
import pytest

from tests.conftest import CommandLine
from tests.gateway_contract import SPEECH
from tests.requirements import require_program

BAD = """1
00:00:01,000 --> 00:00:02,000
Hello world, this is a long line that has more than forty-two characters
and <inaudible> one
and a third

3
00:00:01,500 --> 00:00:01,600
short

3
00:00:01.650 --> 00:00:15,000

4
00:00:01,000 --> 00:00:00,500
reverse
"""
GOOD = """1
00:00:01,000 --> 00:00:02,500
Hello <i>world</i>

2
00:00:04,000 --> 00:00:06,000
Second cue
"""


@pytest.fixture
def cli(audiocli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """A command line in a directory with caption files."""
    monkeypatch.chdir(audiocli.directory)
    Path("bad.srt").write_text(BAD)
    Path("good.srt").write_text(GOOD)
    return audiocli


# --- check -----------------------------------------------------------------------------------------------------------


def test_check_reports_each_problem_with_its_line_and_cue(cli: CommandLine) -> None:
    r = cli("captions", "check", "bad.srt", "--json")

    assert r.code == 3
    found = {(item["check"], item["line"], item["cue"]) for item in r.json["findings"]}
    assert found == {
        *(("reading-speed", 2, 1), ("line-length", 2, 1), ("lines", 2, 1), ("tag", 2, 1)),
        *(("overlap", 8, 2), ("duration", 8, 2), ("numbering", 8, 2), ("reading-speed", 8, 2)),
        *(("gap", 12, 3), ("duration", 12, 3), ("time", 12, 3), ("empty", 12, 3)),
        *(("order", 15, 4), ("time", 15, 4)),
    }
    assert r.json["files"] == [{"file": "bad.srt", "format": "srt", "cues": 4, "findings": len(r.json["findings"])}]
    assert (r.json["ok"], r.requests) == (False, [])


def test_check_of_a_good_file_exits_0(cli: CommandLine) -> None:
    r = cli("captions", "check", "good.srt")

    assert (r.code, r.text, r.err) == (0, "", "good.srt  2 cues  0 findings\n")
    assert cli("captions", "check", stdin=GOOD.encode()).code == 0


def test_check_prints_a_table(cli: CommandLine) -> None:
    r = cli("captions", "check", "bad.srt", "good.srt")

    lines = r.text.splitlines()
    assert lines[0].split() == ["file:line", "cue", "check", "detail"]
    assert lines[1].split()[:2] == ["bad.srt:2", "1"]
    assert (r.code, len(lines)) == (3, 15)


@pytest.mark.parametrize(
    ("option", "check"),
    [
        *(("--max-line-width=10", "line-length"), ("--cps=5", "reading-speed"), ("--max-cue=1.9", "duration")),
        *(("--min-cue=1.6", "duration"), ("--min-gap=1.6", "gap")),
    ],
)
def test_check_uses_the_limits(cli: CommandLine, option: str, check: str) -> None:
    r = cli("captions", "check", "good.srt", option, "--json")

    assert (r.code, {item["check"] for item in r.json["findings"]}) == (3, {check})
    assert cli("captions", "check", "good.srt", option, "--skip", check).code == 0


def test_check_reports_another_encoding_with_its_line_and_goes_on(cli: CommandLine) -> None:
    Path("old.srt").write_bytes(BAD.replace("reverse", "rückwärts").encode("cp1252"))

    r = cli("captions", "check", "old.srt", "--json")

    assert r.code == 3
    (finding,) = (item for item in r.json["findings"] if item["check"] == "encoding")
    assert finding["line"] == 16
    assert "--encoding cp1252" in finding["detail"]
    assert "order" in {item["check"] for item in r.json["findings"]}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks_are_read(cli: CommandLine, encoding: str) -> None:
    Path("marked.srt").write_bytes(GOOD.replace("Second", "Zweité").encode(encoding))

    r = cli("captions", "convert", "marked.srt", "-f", "vtt")

    assert (r.code, r.err) == (0, "")
    assert "Zweité cue" in r.text
    assert cli("captions", "check", "marked.srt").code == 0


# --- convert ---------------------------------------------------------------------------------------------------------


def test_convert_writes_the_format_of_the_extension(cli: CommandLine) -> None:
    r = cli("captions", "convert", "good.srt", "-o", "out.ass")

    assert (r.code, r.err) == (0, "out.ass  ass  2 cues\n")
    subs = pysubs2.load("out.ass")
    assert [(event.start, event.end, event.plaintext) for event in subs] == [
        (1000, 2500, "Hello world"),
        (4000, 6000, "Second cue"),
    ]


def test_convert_notes_what_a_format_cannot_express(cli: CommandLine) -> None:
    r = cli("captions", "convert", "good.srt", "-f", "lrc")

    assert r.text == "[00:01.00]Hello world\n[00:02.50]\n[00:04.00]Second cue\n[00:06.00]\n"
    assert r.err == "note: dropped in lrc: italics\n"


def test_convert_of_several_files_and_formats_writes_beside_them(cli: CommandLine) -> None:
    Path("broken.srt").write_text("1\n00:00:0x,000 --> 00:00:02,000\nx\n")

    r = cli("captions", "convert", "good.srt", "broken.srt", "-f", "vtt,sub", "--json")

    assert r.code == 3
    assert [output["path"] for output in r.json["outputs"]] == ["good.vtt", "good.sub"]
    assert [(failure["file"], "line 2" in failure["message"]) for failure in r.json["failures"]] == [
        ("broken.srt", True)
    ]
    assert Path("good.sub").read_text().startswith("{1}{1}25.000\n{25}{62}Hello world\n")
    again = cli("captions", "convert", "good.srt", "-f", "vtt,sub")
    assert (again.code, "good.vtt exists" in again.err) == (2, True)
    assert cli("captions", "convert", "good.srt", "-f", "vtt,sub", "--force").code == 0
    assert cli("captions", "convert", "good.srt", "-f", "vtt,sub", "-O", "new/dir").code == 0
    assert Path("new/dir/good.vtt").is_file()


def test_convert_never_replaces_its_input(cli: CommandLine) -> None:
    for argv in (["convert", "good.srt", "-o", "good.srt"], ["shift", "good.srt", "1", "-o", "./good.srt"]):
        r = cli("captions", *argv)
        assert (r.code, "would overwrite its input" in r.err) == (2, True)
    assert cli("captions", "convert", "good.srt", "bad.srt", "-f", "srt", "--force").code == 3
    assert Path("good.srt").read_text() == GOOD


def test_convert_to_a_new_layout(cli: CommandLine) -> None:
    Path("long.srt").write_text("1\n00:00:01,000 --> 00:00:21,000\n" + "some words to read " * 20 + "\n")

    r = cli("captions", "convert", "long.srt", "--max-line-width", "32", "-f", "srt")
    Path("new.srt").write_text(r.text)

    assert r.code == 0
    assert r.text.replace("\n", " ").count("words to read") > 15
    checked = cli("captions", "check", "new.srt", "--max-line-width", "32", "--json", "--skip", "reading-speed")
    assert (checked.json["files"][0]["cues"] > 5, checked.json["findings"]) == (True, [])


def test_speakers_become_text_where_a_format_has_no_field(cli: CommandLine) -> None:
    Path("two.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\n<v Ann>Hi\n\n00:03.000 --> 00:04.000\n<v Bob>Yo\n")

    assert "Ann: Hi" in cli("captions", "convert", "two.vtt", "-f", "srt").text
    assert "Ann" not in cli("captions", "convert", "two.vtt", "-f", "srt", "--no-speakers").text
    assert "Ann" not in cli("captions", "convert", "two.vtt", "-f", "vtt", "--no-speakers").text
    assert "<v Ann>Hi" in cli("captions", "convert", "two.vtt", "-f", "vtt").text


# --- shift and scale -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("time", "start"), [("+1.5", "02,500"), ("-0:00.5", "00,500"), ("-250ms", "00,750")])
def test_shift_adds_a_time(cli: CommandLine, time: str, start: str) -> None:
    r = cli("captions", "shift", "good.srt", time)

    assert (r.code, r.err) == (0, "")
    assert r.text.startswith(f"1\n00:00:{start} --> ")
    assert "<i>world</i>" in r.text


def test_shift_below_zero_warns_and_keeps_the_cue(cli: CommandLine) -> None:
    r = cli("captions", "shift", "good.srt", "-3", "--json")

    assert r.json["text"] == GOOD.replace("00:00:01,000 --> 00:00:02,500", "00:00:00,000 --> 00:00:00,000").replace(
        "00:00:04,000 --> 00:00:06,000", "00:00:01,000 --> 00:00:03,000"
    )
    assert r.json["warnings"] == ["1 cue would begin before 0 and now begin at 0; 1 of them would also end before 0"]


def test_misspelled_option_of_shift_is_not_a_time(cli: CommandLine) -> None:
    r = cli("captions", "shift", "good.srt", "+1", "--ouput", "x.srt")

    assert (r.code, "did you mean '--output'" in r.err) == (2, True)
    assert cli("captions", "shift", "good.srt", "soon").code == 2


def test_scale_by_frame_rates_factor_and_sync_points(cli: CommandLine) -> None:
    assert "00:00:04,171 --> " in cli("captions", "scale", "good.srt", "--from-fps", "25", "--to-fps", "23.976").text
    assert "00:00:08,000 --> 00:00:12,000" in cli("captions", "scale", "good.srt", "2").text
    r = cli("captions", "scale", "good.srt", "--sync", "0:01=0:02,0:04=0:08")
    assert (r.code, "00:00:02,000 --> 00:00:05,000" in r.text, "00:00:08,000 --> " in r.text) == (0, True, True)
    for argv in (
        [],
        ["2", "--sync", "1=2"],
        ["--from-fps", "25"],
        ["0"],
        ["nan"],
        ["--sync", "1=2,2=1"],
        ["--sync", "1"],
    ):
        assert cli("captions", "scale", "good.srt", *argv).code == 2


# --- merge and split -------------------------------------------------------------------------------------------------


def test_merge_joins_parts_by_offset_and_by_duration(cli: CommandLine) -> None:
    Path("talk.wav").write_bytes(SPEECH)

    by_offset = cli("captions", "merge", "good.srt", "good.srt", "--offset", "1:00", "-o", "all.srt")
    by_media = cli("captions", "merge", "good.srt", "good.srt", "--media", "talk.wav")

    assert (by_offset.code, by_media.code) == (0, 0)
    assert [cue.start for cue in pysubs2.load("all.srt")] == [1000, 4000, 61000, 64000]
    starts = [cue.start for cue in pysubs2.SSAFile.from_string(by_media.text, "srt")]
    assert starts[1] - starts[0] + 1000 > 1000 and starts != [1000, 1000, 4000, 4000]


@pytest.mark.parametrize(("media", "code"), [("none.wav", 2), (".", 2), ("good.srt", 8), ("https://x.example/a", 2)])
def test_merge_by_an_unusable_recording_names_it(cli: CommandLine, media: str, code: int) -> None:
    r = cli("captions", "merge", "good.srt", "good.srt", "--media", media)

    assert (r.code, r.text) == (code, ""), r.err
    assert media in r.err


def test_merge_refuses_an_overlap_without_an_option(cli: CommandLine) -> None:
    r = cli("captions", "merge", "good.srt", "good.srt")

    assert r.code == 2
    assert "line 2 overlaps" in r.err
    assert "--bilingual" in r.err


def test_merge_shows_two_languages_in_one_caption(cli: CommandLine) -> None:
    Path("de.vtt").write_text("WEBVTT\n\n00:01.100 --> 00:02.400\nHallo <i>Welt</i>\n")

    r = cli("captions", "merge", "good.srt", "de.vtt", "--bilingual")

    assert r.text.startswith("1\n00:00:01,000 --> 00:00:02,500\nHello <i>world</i>\nHallo <i>Welt</i>\n\n2\n")


def test_split_writes_parts_that_begin_at_zero(cli: CommandLine) -> None:
    r = cli("captions", "split", "good.srt", "--every", "3s", "-O", "parts", "--json")

    assert [output["path"] for output in r.json["outputs"]] == ["parts/good.1.srt", "parts/good.2.srt"]
    assert "00:00:01,000 --> 00:00:03,000\nSecond cue" in Path("parts/good.2.srt").read_text()
    assert cli("captions", "split", "good.srt", "--every", "3s", "-O", "parts").code == 2
    for argv in (
        [],
        ["--at", "3", "--every", "3"],
        ["--at", "5,3"],
        ["--at", "0"],
        ["--every", "0"],
        ["--every", "-1"],
    ):
        assert cli("captions", "split", "good.srt", *argv).code == 2


# --- input and output ------------------------------------------------------------------------------------------------


def test_cues_that_end_before_they_start_are_reported(cli: CommandLine) -> None:
    Path("back.srt").write_text("1\n00:00:05,000 --> 00:00:02,000\nx\n\n2\n00:00:06,000 --> 00:00:07,000\ny\n")

    r = cli("captions", "convert", "back.srt", "-o", "back.vtt")

    assert r.code == 0
    assert "warning: back.srt: line 2: ends before it starts; players do not show it" in r.err


def test_message_of_one_of_several_files_names_it_once(cli: CommandLine) -> None:
    Path("wide.srt").write_bytes("1\n00:00:05,000 --> 00:00:06,000\nx\n".encode("utf-16-le"))

    check = cli("captions", "check", "good.srt", "none.srt", "wide.srt")
    convert = cli("captions", "convert", "good.srt", "none.srt", "wide.srt", "-f", "lrc")

    for r in (check, convert):
        lines = [line for line in r.err.splitlines() if line.startswith(("error:", "hint:"))]
        assert lines[0] == "error: cannot read none.srt: No such file or directory"
        assert lines[1] == "error: wide.srt seems to be UTF-16LE without a byte order mark"
        assert lines[2] == "hint: name its encoding: --encoding UTF-16LE"


def test_hint_for_a_negative_argument_names_the_subcommand(cli: CommandLine) -> None:
    r = cli("captions", "scale", "good.srt", "-1")

    assert "audiocli captions scale -- -1" in r.err


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "x.srt", "no captions"),
        (b"only text\n", "x.srt", "no captions"),
        (b"only text\n", "x.txt", "cannot detect"),
        (b"1\n00:00:01,000 --> 00:00:0x,000\nx\n", "x.srt", "line 2"),
        (b"<tt><body>\n<div><p></body></tt>", "x.ttml", "line 2"),
        (b"\xff\xfe\x00", "x.srt", "UTF-16"),
        (b"a\x00b", "x.srt", "NUL"),
        (b"1\n00:00:01,000 --> 00:00:02,000\n\xe4\n", "x.srt", "line 3 is not UTF-8: byte 32"),
        (b"{1}{2}x\n", "x.sub", "frame rate"),
    ],
)
def test_unusable_files_are_errors(cli: CommandLine, content: bytes, name: str, message: str) -> None:
    Path(name).write_bytes(content)

    r = cli("captions", "convert", name, "-f", "vtt", "--json")

    assert r.code == 2
    assert message in json.loads(r.err)["error"]["message"]


@pytest.mark.parametrize(
    "command",
    [
        *("convert good.srt", "convert good.srt -o x.txt", "convert good.srt -f doc", "convert missing.srt -f vtt"),
        *(
            "convert good.srt -f vtt,lrc -o x.vtt",
            "convert good.srt -f vtt -o x.vtt -O d",
            "check --skip nothing good.srt",
        ),
        *(
            "check good.srt --max-lines 0",
            "check good.srt --min-gap -1",
            "convert good.srt -f sub --fps 0",
            "merge good.srt",
        ),
        *("merge good.srt good.srt --offset 1 --bilingual", "merge good.srt good.srt --offset 1,2"),
        *("convert good.srt --encoding nothing -f vtt", "check", "convert - - -f vtt", "convert . -f vtt"),
    ],
)
def test_invalid_command_lines_exit_2(cli: CommandLine, command: str) -> None:
    r = cli("captions", *command.split(), terminal="in")

    assert (r.code, r.text) == (2, "")


def test_stdin_to_stdout(cli: CommandLine) -> None:
    r = cli("captions", "convert", "-", "-f", "vtt", "-o", "-", "--json", stdin=GOOD.encode())

    assert r.text.startswith("WEBVTT\n\n00:00:01.000 --> 00:00:02.500\nHello <i>world</i>\n")
    assert json.loads(r.err)["cues"] == 2


def test_ffmpeg_reads_every_format(cli: CommandLine) -> None:
    for format in ("ass", "vtt", "lrc", "sub", "srt"):
        assert cli("captions", "convert", "good.srt", "-o", f"new.{format}").code == 0
        command = [require_program("ffmpeg"), "-v", "error", "-i", f"new.{format}", "-f", "webvtt", "-"]
        output = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout.decode()
        assert "Second cue" in output
