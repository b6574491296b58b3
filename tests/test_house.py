"""The shape of the house: imports point down, owners own, and what must start fast loads little."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "audiocli"

# The floor of every room, by the longest name that fits; where rooms of one floor need each other, they stand on steps.
# A module may import modules that stand lower, and those of its own room on its own step.
LIGHT_AUDIO = ("formats", "magic", "tap", "frames", "containers", "inspector", "wavfile", "cuts")
FLOORS = {
    "__init__": 0.0,
    "outcomes": 0.0,
    "vocabulary": 0.1,
    "dialogue": 0.15,
    "errors": 0.2,
    "text": 1.0,
    "text.seams": 1.1,
    "text.stitching": 1.2,
    "completion": 1.0,
    **dict.fromkeys((f"audio.{name}" for name in LIGHT_AUDIO), 1.0),
    "gateways": 1.1,
    "routing": 1.2,
    "threads": 1.2,
    "private_files": 1.3,
    "money": 1.05,
    "audio": 2.0,
    "wire": 2.0,
    "engines": 2.0,
    "sinks": 2.0,
    "cache": 2.0,
    "manifest": 2.1,
    "sinks.disk": 2.2,
    "player": 2.0,
    "screen": 2.0,
    "keys": 2.0,
    "settings": 2.1,
    "money.ledger": 2.0,
    "money.schema": 2.0,
    "money.file": 2.0,
    "money.verify": 2.0,
    "money.reports": 2.1,
    "money.jobs_table": 2.1,
    "money.processes": 2.0,
    "work": 3.0,
    "env": 4.0,
    "completing": 4.1,
    "commands": 4.1,
    "main": 5.0,
    "__main__": 6.0,
    "completion.__main__": 6.0,
}

OWNERS = {
    "httpx": {"wire.proxied"},
    "h11": {"wire.direct"},
    "certifi": {"wire.tls"},
    "idna": {"wire.address"},
    "av": {f"audio.{name}" for name in ("convert", "copying", "decoder", "encoder", "framewise", "libav", "probe")},
    "sqlite3": {*(f"money.{name}" for name in ("file", "ledger", "schema", "verify")), "manifest"},
    "rich": {"screen"},
    "subprocess": set(),
    "typer": {"commands"},
    "platformdirs": {"env"},
    "pydantic": {"settings"},
    "tomlkit": {"settings"},
    "ctypes": {"engines.espeak"},
    "espeakng_loader": {"engines.espeak"},
    "pocketsphinx": {"engines.sphinx"},
    "sentencex": {"text.sentences"},
    "regex": {"text.pieces"},
    "markdown_it": {"text.markdown"},
    "mdit_py_plugins": {"text.markdown"},
}

# What `--help`, `--version` and `usage` must not load, each for its cost at start-up.
HEAVY = ("httpx", "h11", "pydantic", "asyncio", "av", "rich")


def modules() -> dict[str, ast.Module]:
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): ast.parse(path.read_text())
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def floor_of(name: str) -> float:
    parts = name.split(".")
    return next(FLOORS[".".join(parts[:n])] for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in FLOORS)


def imports_of(name: str, tree: ast.Module, known: set[str]) -> list[tuple[str, bool]]:
    """The modules that a module imports: our own by their name in the package, others by their top name.

    The second value tells imports that only the type checker sees.
    """
    is_package = (PACKAGE / Path(*name.split("."))).is_dir()
    base = name.split(".") if is_package else name.split(".")[:-1]
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name.split(".")[0], id(node) in typing_only) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.append(((node.module or "").split(".")[0], id(node) in typing_only))
        elif isinstance(node, ast.ImportFrom):
            start = base[: len(base) - node.level + 1]
            target = ".".join([*start, *((node.module or "").split(".") if node.module else [])])
            for alias in node.names:
                inner = f"{target}.{alias.name}" if target else alias.name
                own = inner if inner in known else target or "__init__"
                found.append((f"audiocli.{own}", id(node) in typing_only))
    return found


def test_imports_point_down() -> None:
    trees = modules()
    wrong = []
    for name, tree in trees.items():
        for target, _ in imports_of(name, tree, set(trees)):
            if not target.startswith("audiocli."):
                continue
            own = target.removeprefix("audiocli.")
            same_room = own.split(".")[0] == name.split(".")[0] and own != "__init__"
            below = floor_of(own) < floor_of(name)
            if not below and not (same_room and floor_of(own) == floor_of(name)):
                wrong.append(f"{name} (floor {floor_of(name)}) imports {own} (floor {floor_of(own)})")

    assert not wrong, "\n".join(wrong)


def test_every_heavy_library_has_its_owner() -> None:
    trees = modules()
    wrong = [
        f"{name} imports {target}"
        for name, tree in trees.items()
        for target, typing_only in imports_of(name, tree, set(trees))
        if target in OWNERS
        and not typing_only
        and not any(name == owner or name.startswith(owner + ".") for owner in OWNERS[target])
    ]

    assert not wrong, "\n".join(wrong)


def test_no_room_is_larger_than_one_can_survey() -> None:
    lines = {str(path.relative_to(PACKAGE)): path.read_text().count("\n") for path in PACKAGE.rglob("*.py")}

    assert len(lines) > 40
    assert {name: count for name, count in lines.items() if count > 400} == {}


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["usage"], ["speak", "--help"], ["usage", "--json"]])
def test_what_must_start_fast_loads_little(argv: list[str], tmp_path: Path) -> None:
    probe = (
        "import sys\n"
        "from audiocli.env import Env\n"
        "from audiocli.main import main\n"
        f"code = main({argv!r}, Env.of_process())\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
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


def test_the_list_of_commands_says_what_their_own_help_says() -> None:
    from typer.main import get_command

    from audiocli.commands import SUMMARIES, build

    whole, listed = get_command(build()), get_command(build(is_list=True))

    told = {name: (command.help or "").splitlines()[0] for name, command in whole.commands.items()}  # type: ignore[attr-defined]
    assert told == SUMMARIES
    assert set(listed.commands) == set(told)  # type: ignore[attr-defined]
