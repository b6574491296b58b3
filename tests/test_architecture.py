"""The structure of the package: one owner for each library, and few modules at start-up."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "audiocli"

# The modules that may import each library. Layers are contracts of import-linter, in pyproject.toml.
OWNERS = {
    "httpx": {"http.client"},
    "httpcore": {"http.client", "http.connection"},
    "h11": {"http.client"},
    "certifi": {"http.tls"},
    "idna": {"http.url"},
    "av": {"codecs"},
    "sqlite3": {"ledger", "storage.manifest"},
    "rich": {"progress_display"},
    "subprocess": set(),
    "typer": {"cli"},
    "platformdirs": {"context"},
    "pydantic": {"config_tables"},
    "tomlkit": {"config_editor"},
    "ctypes": {"engines.espeak_worker"},
    "espeakng_loader": {"engines.espeak"},
    "pocketsphinx": {"engines.sphinx"},
    "faster_whisper": {"engines.whisper_worker"},
    "ctranslate2": {"engines.whisper_worker"},
    "onnxruntime": {"engines.piper_worker"},
    "sentencex": {"text.sentences"},
    "regex": {"text.normalize", "text.pronunciations", "text.splitter"},
    "markdown_it": {"text.readers.markdown"},
    "mdit_py_plugins": {"text.readers.markdown"},
    "selectolax": {"text.readers.html"},
    "rapidfuzz": {"text.verification"},
    "unicode_rbnf": {"text.spoken_numbers"},
    "watchfiles": {"file_watcher"},
    "obstore": {"object_store"},
    "sounddevice": {"microphone"},
    "distributed": {"cluster"},
}

# Modules that are expensive to load: `--help`, `--version` and `usage` must not load them, except rich for help.
HEAVY = ("httpx", "h11", "pydantic", "asyncio", "av", "rich", "audiocli.mock")


def parse_modules() -> dict[str, ast.Module]:
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): ast.parse(path.read_text())
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def list_imports(name: str, tree: ast.Module, module_names: set[str]) -> list[tuple[str, bool]]:
    """Return the imports of a module: names in the package for its own modules, top-level names for others.

    The second value is true for imports that only the type checker executes.
    """
    is_package = (PACKAGE / Path(*name.split("."))).is_dir()
    base = name.split(".") if is_package else name.split(".")[:-1]
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    imports = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [(alias.name.split(".")[0], id(node) in typing_only) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            imports.append(((node.module or "").split(".")[0], id(node) in typing_only))
        elif isinstance(node, ast.ImportFrom):
            start = base[: len(base) - node.level + 1]
            target = ".".join([*start, *((node.module or "").split(".") if node.module else [])])
            for alias in node.names:
                inner = f"{target}.{alias.name}" if target else alias.name
                module_name = inner if inner in module_names else target or "__init__"
                imports.append((f"audiocli.{module_name}", id(node) in typing_only))
    return imports


def test_library_is_imported_by_its_owner_only() -> None:
    trees = parse_modules()
    violations = [
        f"{name} imports {target}"
        for name, tree in trees.items()
        for target, typing_only in list_imports(name, tree, set(trees))
        if target in OWNERS
        and not typing_only
        and not any(name == owner or name.startswith(owner + ".") for owner in OWNERS[target])
    ]

    assert not violations, "\n".join(violations)


def test_processes_are_started_by_their_owner_only() -> None:
    starters = re.compile(
        r"create_subprocess_(exec|shell)|subprocess_(exec|shell)|fork(pty)?|posix_spawnp?|(spawn|exec)[lv]p?e?|popen|system|startfile"
    )
    violations = [
        f"{name}:{node.lineno} calls {node.func.attr}"
        for name, tree in parse_modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and starters.fullmatch(node.func.attr)
        and name != "processes"
    ]

    assert not violations, "\n".join(violations)


def test_mock_gateway_imports_standard_library_only_and_is_imported_by_its_command_only() -> None:
    trees = parse_modules()
    imports = {name: {target for target, _ in list_imports(name, tree, set(trees))} for name, tree in trees.items()}
    mock = {name for name in trees if name == "mock" or name.startswith("mock.")}

    libraries = {target for name in mock for target in imports[name] if not target.startswith("audiocli.")}
    importers = {name for name in trees.keys() - mock if any(f"audiocli.{target}" in imports[name] for target in mock)}
    assert libraries <= sys.stdlib_module_names
    assert importers == {"cli.mock", "cli.mock_codec", "cli.mock_engine", "cli.mock_environment"}


@pytest.mark.parametrize(
    ("argv", "allowed"),
    [
        (["--help"], ["rich"]),
        (["speak", "--help"], ["rich"]),
        (["help", "money"], []),
        (["--version"], []),
        (["usage"], []),
        (["usage", "--json"], []),
        (["--json", "usage"], []),
    ],
)
def test_light_command_does_not_load_heavy_modules(argv: list[str], allowed: list[str], tmp_path: Path) -> None:
    probe = (
        "import sys\n"
        "from audiocli.context import AppContext\n"
        "from audiocli.app import main\n"
        f"code = main({argv!r}, AppContext.from_process())\n"
        f"loaded = [name for name in {[name for name in HEAVY if name not in allowed]!r} if name in sys.modules]\n"
        "sys.stderr.write(f'{code} {loaded}')\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", probe],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=PACKAGE.parent,
        env={"AUDIOCLI_LEDGER": str(tmp_path / "ledger.sqlite3"), "HOME": str(tmp_path)},
    )

    assert done.stderr == "0 []"


def test_summaries_equal_the_help_of_their_commands() -> None:
    from typer.main import get_command

    from audiocli.cli import SUMMARIES, build

    all_commands, names_only = get_command(build()), get_command(build(names_only=True))

    summaries = {name: (command.help or "").splitlines()[0] for name, command in all_commands.commands.items()}  # type: ignore[attr-defined]
    assert summaries == SUMMARIES
    assert set(names_only.commands) == set(summaries)  # type: ignore[attr-defined]
