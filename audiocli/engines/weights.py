"""Find the weights of local engines on this computer, and check them before they are used.

Weights are looked for in the configured directory of models, then in the cache of Hugging Face, then in installed
packages. The first place that has all files of a model is used. Nothing is downloaded.

The SHA-256 of every file must be that of `gateways.local_models`. The hash of a file is cached with its size, times,
device and inode, so that a file is read again only after it has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from ..errors import AccessError, OutputError
from ..gateways.local import check_installed
from ..gateways.local_models import LocalModel, WeightFile, WeightPart, list_local_models
from ..private_files import build_part_path, create_private_file, open_regular_file
from ..storage.response_cache import ResponseCache

# A step of `check_steps` reads this much, which takes about 10 ms.
_STEP_BYTES = 8_000_000
_CACHE_KIND = "weights"
# Files that libraries read if they are beside those of a model, and that would change what it does.
_UNCHECKED_NAMES = {"whisper": ("preprocessor_config.json", "vocabulary.json"), "piper": ()}

MODELS_DIRECTORY_VARIABLE = "AUDIOCLI_MODEL_DIR"


class FoundModel(NamedTuple):
    """The files of a model, before they are checked.

    Attributes:
        source: Where they were found, for people.
        paths: Paths by file name. A file that is split has the paths of its parts.
    """

    model: LocalModel
    source: str
    paths: Mapping[str, tuple[Path, ...]]


class WeightStore:
    """The weights on this computer."""

    def __init__(
        self,
        variables: Mapping[str, str],
        *,
        models_directory: str | None,
        voices_directory: str | None = None,
        cache: ResponseCache,
        get_join_directory: Callable[[], Path],
    ) -> None:
        """Create the store, without reading anything.

        Args:
            variables: The environment, with `AUDIOCLI_MODEL_DIR` and the variables of Hugging Face.
            models_directory: The configured directory of models. The environment takes precedence.
            voices_directory: The configured directory of Piper voices.
            cache: Stores the hashes of files.
            get_join_directory: Returns the directory for files that are joined from parts. Called only if needed.
        """
        configured = variables.get(MODELS_DIRECTORY_VARIABLE) or models_directory
        self.models_directory = Path(configured).expanduser() if configured else None
        self.voices_directory = Path(voices_directory).expanduser() if voices_directory else None
        self._variables = variables
        self._cache = cache
        self._get_join_directory = get_join_directory
        self._found: dict[str, FoundModel | None] = {}

    def find(self, model: LocalModel) -> FoundModel | None:
        """Return the files of a model, unchecked. None if no place has all of them."""
        if model.name not in self._found:
            self._found[model.name] = self._search(model)
        return self._found[model.name]

    def find_best(self, models: Sequence[LocalModel]) -> LocalModel | None:
        """Return the first model that is on this computer."""
        return next((model for model in models if self.find(model) is not None), None)

    def check(self, model: LocalModel) -> dict[str, Path]:
        """Do all steps of `check_steps`. Return the paths of the files by name."""
        steps = self.check_steps(model)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                paths: dict[str, Path] = end.value
                return paths

    def verify(self, model: LocalModel) -> None:
        """Check the hashes of all files of a model. Parts that are not joined yet stay so.

        Raises:
            AccessError: The model is not on this computer, or a file is not the expected one.
        """
        found = self.find(model)
        is_split = found is not None and any(len(paths) > 1 for paths in found.paths.values())
        steps = self._check_parts(found) if found is not None and is_split else self.check_steps(model)
        for _ in steps:
            pass

    def check_steps(self, model: LocalModel) -> Generator[bytes, None, dict[str, Path]]:
        """Check the hashes of all files of a model, and join its parts. Return the paths of the files by name.

        Every step takes about 10 ms and yields nothing of interest. If files have to be joined, all files are in one
        directory of their own.

        Raises:
            AccessError: The model is not on this computer, or a file is not the expected one.
            OutputError: The joined file cannot be written.
        """
        found = self.find(model)
        if found is None:
            raise build_missing_error(model)
        if any(len(paths) > 1 for paths in found.paths.values()):
            return (yield from self._join(found))
        for file in model.files:
            (path,) = found.paths[file.name]
            yield from self._check_file(path, file.size_bytes, file.sha256, file.origin)
        directory = found.paths[model.files[0].name][0].parent
        for name in _UNCHECKED_NAMES[model.engine]:
            if not (directory / name).exists():
                continue
            raise AccessError(
                f"the directory of {model.name} in {found.source} has an unexpected file: {name}",
                hint="remove it, or install the model in another directory",
            )
        return {name: paths[0] for name, paths in found.paths.items()}

    def _search(self, model: LocalModel) -> FoundModel | None:
        for source, directory in self._list_directories(model):
            paths = {file.name: (directory / file.name,) for file in model.files}
            if all(_is_file(path) for (path,) in paths.values()):
                return FoundModel(model, source, paths)
        return _search_packages(model)

    def _list_directories(self, model: LocalModel) -> list[tuple[str, Path]]:
        directories = []
        voices_directory = self.voices_directory if model.engine == "piper" else None
        for root in filter(None, (voices_directory, self.models_directory)):
            directories += [(str(root), root / name) for name in model.directories]
            directories += [(str(root), path) for path in _list_snapshots(root, model)]
            if "" not in model.directories and _has_size(root / model.files[0].name, model.files[0].size_bytes):
                directories.append((str(root), root))
        hub = find_hub(self._variables)
        directories += [(str(hub), path) for path in _list_snapshots(hub, model)]
        return directories

    def _join(self, found: FoundModel) -> Generator[bytes, None, dict[str, Path]]:
        directory = self._get_join_directory() / found.model.name
        paths = {file.name: directory / file.name for file in found.model.files}
        for file in found.model.files:
            path = paths[file.name]
            if not path.exists():
                yield from self._write_joined(file, found.paths[file.name], path)
            yield from self._check_file(path, file.size_bytes, file.sha256, file.origin)
        return paths

    def _check_parts(self, found: FoundModel) -> Generator[bytes, None, None]:
        """Check the joined files, where they exist, else their parts."""
        directory = self._get_join_directory() / found.model.name
        for file in found.model.files:
            joined_path = directory / file.name
            if joined_path.exists():
                yield from self._check_file(joined_path, file.size_bytes, file.sha256, file.origin)
                continue
            parts = file.parts or (WeightPart(file.path, file.size_bytes, file.sha256),)
            for part, path in zip(parts, found.paths[file.name], strict=True):
                yield from self._check_file(path, part.size_bytes, part.sha256, file.origin)

    def _write_joined(self, file: WeightFile, parts: Sequence[Path], path: Path) -> Generator[bytes, None, None]:
        """Write the parts to a new file, which appears only if its hash is the expected one."""
        hashes = [part.sha256 for part in file.parts] or [file.sha256]
        part_path = build_part_path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with create_private_file(part_path) as output:
                for source, sha256 in zip(parts, hashes, strict=True):
                    digest = hashlib.sha256()
                    for block in _read_blocks(source):
                        digest.update(block)
                        view = memoryview(block)
                        while view:
                            view = view[output.write(view) :]
                        yield b""
                    if digest.hexdigest() != sha256:
                        raise _build_mismatch_error(source, file.origin)
            part_path.replace(path)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
        finally:
            part_path.unlink(missing_ok=True)

    def _check_file(self, path: Path, size_bytes: int, sha256: str, origin: str) -> Generator[bytes, None, None]:
        try:
            state = _read_state(path)
            key = str(path.resolve())
            cached = self._cache.get(_CACHE_KIND, key)
            value = _parse_cached_hash(cached.body, state) if cached is not None else None
            if value is None and state[0] == size_bytes:
                digest = hashlib.sha256()
                for block in _read_blocks(path):
                    digest.update(block)
                    yield b""
                value = digest.hexdigest()
                if _read_state(path) == state:
                    self._cache.put(_CACHE_KIND, key, json.dumps({"state": state, "sha256": value}).encode())
        except OSError as error:
            raise AccessError(f"cannot read {path}: {error.strerror or error}") from error
        if value != sha256:
            raise _build_mismatch_error(path, origin)


def choose_model(name: str, get_weights: Callable[[], WeightStore], *, is_default: bool) -> str:
    """Return the model that a name stands for: for `whisper`, the best one that is on this computer.

    Without any, return pocketsphinx if the user did not name a model, else the name.
    """
    if name != "whisper":
        return name
    is_usable = check_installed(name) is None
    best = get_weights().find_best(list_local_models(name)) if is_usable or not is_default else None
    if best is not None:
        return best.name
    return "pocketsphinx" if is_default else name


def build_missing_error(model: LocalModel) -> AccessError:
    """Build the error of a model that is not on this computer."""
    return AccessError(f"the local model {model.name} is not installed", hint=build_install_command(model))


def build_install_command(model: LocalModel) -> str:
    """Return the command that installs a model and its engine."""
    return f'pip install "audiocli[local,{model.extra}]"'


def _build_mismatch_error(path: Path, origin: str) -> AccessError:
    return AccessError(
        f"{path} is not the expected file: its SHA-256 differs from that of {origin}",
        hint="delete it, and install the model again",
    )


def _search_packages(model: LocalModel) -> FoundModel | None:
    """Find the files of a model in installed packages, without importing them."""
    paths: dict[str, tuple[Path, ...]] = {}
    for file in model.files:
        wanted = [part.path for part in file.parts] or [file.path]
        located = [path for path in map(_locate_in_package, wanted) if path is not None]
        if len(located) < len(wanted):
            return None
        paths[file.name] = tuple(located)
    names = [package.partition(" ")[0] for package in model.packages]
    return FoundModel(model, f"the package{'s' if len(names) > 1 else ''} {' and '.join(names)}", paths)


def _locate_in_package(path: str) -> Path | None:
    package, _, rest = path.partition("/")
    spec = find_spec(package)  # for the name of a top-level package, this imports nothing
    for directory in (spec.submodule_search_locations if spec is not None else None) or ():
        if _is_file(candidate := Path(directory) / rest):
            return candidate
    return None


def find_hub(variables: Mapping[str, str]) -> Path:
    """Return the cache directory of the Hugging Face hub (documentation of huggingface_hub, read 2026-11)."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if variables.get(name):
            return Path(variables[name]).expanduser()
    if variables.get("HF_HOME"):
        return Path(variables["HF_HOME"]).expanduser() / "hub"
    cache = variables.get("XDG_CACHE_HOME") or os.path.join(variables.get("HOME") or Path.home(), ".cache")  # noqa: PTH118
    return Path(cache).expanduser() / "huggingface" / "hub"


def _list_snapshots(hub: Path, model: LocalModel) -> list[Path]:
    """Return the directories of the downloaded revisions of a model, the main one first."""
    repository, directory = model.repository
    root = hub / f"models--{repository.replace('/', '--')}"
    try:
        snapshots = sorted((root / "snapshots").iterdir())
    except OSError:
        return []
    try:
        main = (root / "refs" / "main").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        main = ""
    return [path / directory for path in sorted(snapshots, key=lambda path: path.name != main)]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _has_size(path: Path, size_bytes: int) -> bool:
    try:
        return path.stat().st_size == size_bytes
    except OSError:
        return False


def _read_state(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_dev, status.st_ino]


def _read_blocks(path: Path) -> Generator[bytes, None, None]:
    with open_regular_file(path) as file:
        while block := file.read(_STEP_BYTES):
            yield block


def _parse_cached_hash(body: bytes, state: Sequence[int]) -> str | None:
    """Return the cached hash, if it is that of a file in this state."""
    try:
        values = json.loads(body)
        return str(values["sha256"]) if values["state"] == list(state) else None
    except (ValueError, KeyError, TypeError):
        return None
