"""Whether a player has played the audio: exit status, messages and running time, also for players named by the user."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conftest import CommandLine
from tests.programs import write_program
from tests.pyav_codec import expected_audio

TEXT = "Paid for."
# About 2 s of audio, so the running time matters.
MEDIUM_TEXT = "Paid for, and played to its end."
LONG_TEXT = "This text is spoken for several seconds. " * 2
UNDERRUN = "ALSA lib pcm.c:8772:(snd_pcm_recover) underrun occurred"
HEADER_MISSING = "[mp3float @ 0x7f] Header missing"
FATAL = "audio open failed"

PLAYER = """#!{python}
import sys, time
content = sys.stdin.buffer.read({limit})
open({received!r}, "ab").write(content)
sys.stderr.write({message!r} + "\\n" if {message!r} else "")
sys.stderr.flush()
time.sleep({sleep_s})
"""


def install_player(
    audiocli: CommandLine, name: str, *, message: str = "", sleep_s: float = 0.0, limit: int = -1
) -> Path:
    received = audiocli.directory / f"received-{name}"
    write_program(
        Path(audiocli.variables["PATH"]) / name,
        PLAYER.format(python=sys.executable, received=str(received), message=message, sleep_s=sleep_s, limit=limit),
    )
    return received


@pytest.mark.parametrize("command", ["ffplay", "{bin}/ffplay", "ffplay -nodisp -autoexit -", "ffplay -volume 50", None])
def test_player_without_sound_device_is_a_failure(audiocli: CommandLine, command: str | None) -> None:
    install_player(audiocli, "ffplay", message=FATAL)
    flags = ("--play",) if command is None else ("--player", command.format(bin=audiocli.variables["PATH"]))

    r = audiocli("speak", TEXT, *flags, "--json")

    assert r.code == 10, r.err
    assert FATAL in r.err_json["error"]["message"]
    assert Path(r.err_json["error"]["kept"]).read_bytes() == expected_audio(TEXT, "mp3")


@pytest.mark.parametrize("message", [UNDERRUN, HEADER_MISSING])
@pytest.mark.parametrize("flags", [("--play",), ("--player", "ffplay")], ids=["found", "named"])
def test_message_of_a_player_that_played_everything_is_no_failure(
    audiocli: CommandLine, message: str, flags: tuple[str, ...]
) -> None:
    install_player(audiocli, "ffplay", message=message, sleep_s=1.9)
    mpv = install_player(audiocli, "mpv")

    r = audiocli("speak", MEDIUM_TEXT, *flags)

    assert r.code == 0, r.err
    assert (audiocli.directory / "received-ffplay").read_bytes() == expected_audio(MEDIUM_TEXT, "mp3")
    assert not mpv.exists()


def test_message_and_an_early_end_are_a_failure(audiocli: CommandLine) -> None:
    install_player(audiocli, "ffplay", message=UNDERRUN)
    mpv = install_player(audiocli, "mpv")

    r = audiocli("speak", LONG_TEXT, "--play")

    assert r.code == 0, r.err
    assert mpv.read_bytes() == expected_audio(LONG_TEXT, "mp3")
