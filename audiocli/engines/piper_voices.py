"""Find Piper voices on this computer, and choose the local engine and the voice for a text.

A voice is a pair of files, `NAME.onnx` and `NAME.onnx.json`. Voices of the table in `gateways.local_models` are found
and checked by `weights`. Other voices are used from the directory that the user has configured, as they are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from ..errors import AccessError, UsageError
from ..gateways.local import check_installed, is_piper_voice
from ..gateways.local_models import LocalModel, find_local_model, list_local_models
from ..private_files import open_regular_file
from .weights import WeightStore

_MODEL_SUFFIX = ".onnx"
_CONFIG_SUFFIX = ".onnx.json"
# Depth of the directories of Piper's own collection: en/en_US/joe/medium.
_MAX_DEPTH = 4
# Begin, end and padding, which `piper_worker` adds.
_REQUIRED_SYMBOLS = {"^", "$", "_"}
_MAX_CONFIG_BYTES = 1_000_000
_MAX_SAMPLE_RATE_HZ = 192_000


class VoiceFiles(NamedTuple):
    """The files of a voice."""

    model: Path
    config: Path


class VoiceSettings(NamedTuple):
    """The settings of a voice that the parent process needs.

    Attributes:
        speakers: Numbers of the speakers by name.
    """

    sample_rate_hz: int
    speaker_count: int
    speakers: Mapping[str, int]


class VoiceStore:
    """The Piper voices on this computer."""

    def __init__(self, weights: WeightStore) -> None:
        self._weights = weights
        self._own_voices: dict[str, VoiceFiles] | None = None

    def list_names(self) -> tuple[str, ...]:
        """Return the names of the installed voices, those of the table first, best first."""
        known = [model.name for model in list_local_models("piper") if self._weights.find(model) is not None]
        return (*known, *sorted(self._find_own_voices()))

    def list_voices(self) -> tuple[str, ...]:
        """Return what `-v` accepts: names of voices, and of the speakers of voices with several."""
        voices = []
        for name in self.list_names():
            voices.append(name)
            try:
                settings = read_settings(name, self._get_config_path(name))
            except AccessError:
                continue  # reported if the voice is used
            if settings.speaker_count > 1:
                names = settings.speakers or {str(number): number for number in range(settings.speaker_count)}
                voices += [f"{name}+{speaker}" for speaker in names]
        return tuple(voices)

    def has_voice(self, name: str) -> bool:
        """Return whether a voice of that name is installed. A speaker in the name is ignored."""
        name = name.partition("+")[0]
        if (model := find_local_model(name)) is not None and model.engine == "piper":
            return self._weights.find(model) is not None
        return name in self._find_own_voices()

    def find_known(self, name: str) -> LocalModel | None:
        """Return the entry of the table, whose files have to be checked. None for a voice of the user's directory.

        Raises:
            AccessError: No voice is installed.
            UsageError: There is no voice of that name.
        """
        if (model := find_local_model(name)) is not None and model.engine == "piper":
            return model
        if name in self._find_own_voices():
            return None
        names = self.list_names()
        if not names:
            raise AccessError("no voice of local:piper is installed", hint='pip install "audiocli[local,local-models]"')
        raise UsageError(
            f"unknown piper voice {name!r}",
            hint=f"installed voices: {', '.join(names)}; [local] voices_dir names a directory of others",
        )

    def get_own_files(self, name: str) -> VoiceFiles:
        """Return the files of a voice of the user's directory."""
        return self._find_own_voices()[name]

    def _get_config_path(self, name: str) -> Path:
        model = find_local_model(name)
        found = self._weights.find(model) if model is not None else None
        return found.paths[name + _CONFIG_SUFFIX][0] if found is not None else self._find_own_voices()[name].config

    def _find_own_voices(self) -> dict[str, VoiceFiles]:
        """Return the voices of the configured directory that the table does not have. The first of a name is used."""
        if self._own_voices is None:
            voices: dict[str, VoiceFiles] = {}
            root = self._weights.voices_directory
            for directory, subdirectories, file_names in os.walk(root) if root is not None else ():
                subdirectories.sort()
                if len(Path(directory).relative_to(root or "").parts) >= _MAX_DEPTH:
                    subdirectories.clear()
                for file_name in sorted(file_names):
                    name = file_name.removesuffix(_CONFIG_SUFFIX)
                    files = VoiceFiles(Path(directory, name + _MODEL_SUFFIX), Path(directory, file_name))
                    if name != file_name and find_local_model(name) is None and files.model.is_file():
                        voices.setdefault(name, files)
            self._own_voices = voices
        return self._own_voices


def read_settings(name: str, path: Path) -> VoiceSettings:
    """Read the settings of a voice. Raises: AccessError: The file is missing or invalid, or the voice unsupported."""
    try:
        with open_regular_file(path) as file:
            config = json.loads(file.read(_MAX_CONFIG_BYTES))
        sample_rate_hz, phoneme_type = int(config["audio"]["sample_rate"]), config.get("phoneme_type", "espeak")
        speaker_count = int(config.get("num_speakers", 1))
        speakers = {str(speaker): int(number) for speaker, number in (config.get("speaker_id_map") or {}).items()}
        if not config["phoneme_id_map"].keys() >= _REQUIRED_SYMBOLS or not isinstance(config["espeak"]["voice"], str):
            raise TypeError
    except OSError as error:
        raise AccessError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AccessError(f"{path} is not the config file of a Piper voice") from error
    if phoneme_type not in ("espeak", "text"):
        raise AccessError(f"the voice {name} is not supported: its phonemes are {str(phoneme_type)[:20]!r}")
    if not 0 < sample_rate_hz <= _MAX_SAMPLE_RATE_HZ:
        raise AccessError(f"{path}: the sample rate {sample_rate_hz} is invalid")
    return VoiceSettings(sample_rate_hz, speaker_count, speakers)


def find_speaker(voice: str, settings: VoiceSettings) -> int:
    """Return the number of the speaker that `NAME+SPEAKER` names; 0 without one.

    Raises:
        UsageError: The voice has no such speaker.
    """
    name, separator, speaker = voice.partition("+")
    if not separator:
        return 0
    if speaker in settings.speakers:
        return settings.speakers[speaker]
    if speaker.isascii() and speaker.isdigit() and len(speaker) < 6 and int(speaker) < settings.speaker_count:
        return int(speaker)
    import difflib

    if settings.speaker_count < 2:
        raise UsageError(f"the voice {name} has one speaker, not {speaker!r}", hint=f"use -v {name}")
    similar = difflib.get_close_matches(speaker, settings.speakers, n=3, cutoff=0.3)
    numbers = f"0 to {settings.speaker_count - 1}"
    raise UsageError(
        f"unknown speaker {speaker!r} of the voice {name}",
        hint=f"did you mean: {', '.join(similar)}?" if similar else f"use a number, {numbers}",
    )


def choose_speech(
    model: str,
    voice: str | None,
    *,
    is_default: bool,
    language: str | None,
    configured_voices: Mapping[str, str],
    get_voices: Callable[[], VoiceStore],
) -> tuple[str, str | None]:
    """Return the local engine and the voice for a text.

    Without a voice, English is spoken by an installed Piper voice, and other languages by espeak.

    Args:
        model: The engine that the user named, or the default.
        voice: The voice that the user named.
        is_default: The user did not name the engine.
        language: Language of the text; None if it is English or unknown.
        configured_voices: Configured voices by reference of the model.
        get_voices: Returns the voices. Called only if needed.
    """
    espeak_voice, piper_voice = (configured_voices.get(f"local:{name}") for name in ("espeak", "piper"))
    if model == "piper" and not is_default:
        return model, voice or piper_voice or _find_voice(get_voices(), language) or _get_best_name()
    if model != "espeak" or not is_default:
        return model, voice
    if voice is not None:
        is_piper = is_piper_voice(voice) or ("_" in voice and get_voices().has_voice(voice))
        return ("piper" if is_piper else "espeak"), voice
    if language is not None:
        return "espeak", espeak_voice or language
    if espeak_voice is not None and piper_voice is None:
        return "espeak", espeak_voice
    if check_installed("piper") is None:
        piper_voice = piper_voice or _find_voice(get_voices(), "en")
        if piper_voice is not None and get_voices().has_voice(piper_voice):
            return "piper", piper_voice
    return "espeak", espeak_voice


def _find_voice(voices: VoiceStore, language: str | None) -> str | None:
    """Return the first installed voice of a language (English if None), by the names of voices: `en_US-joe-medium`."""
    names = voices.list_names()
    return next((name for name in names if name.partition("_")[0] == (language or "en")), None)


def _get_best_name() -> str:
    return list_local_models("piper")[0].name
