"""The documentation for contributors: files, symbols and commands that it names exist."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
PACKAGE = CHECKOUT / "audiocli"
PAGES = [
    *(CHECKOUT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "docs/architecture.md", "docs/gateways.md")),
    *sorted((CHECKOUT / "docs" / "adr").glob("*.md")),
]
ROOT_PAGES = [CHECKOUT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
SITE_PAGES = sorted((CHECKOUT / "docs").rglob("*.md"))
ARCHITECTURE = (CHECKOUT / "docs" / "architecture.md").read_text("utf-8")

# A path with a directory, and an optional symbol: `core/attempts.py:RouteRunner.run`.
PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]*)(?::([A-Za-z_][\w.]*))?`")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
# Paths and values that look like paths, with the reason.
NOT_PATHS = {
    "docs/adr/NNNN-title.md": "a pattern",
    "10.0.0.0/8": "a network",
    "author/slug": "the form of a model name",
}


def find_path(name: str) -> Path | None:
    """Return a file or directory of the checkout, or of the package; None if there is none."""
    return next((base / name for base in (CHECKOUT, PACKAGE) if (base / name).exists()), None)


def has_symbol(path: Path, dotted_name: str) -> bool:
    """Return whether a module defines a function, class, method, field or constant."""
    body: list[ast.stmt] = ast.parse(path.read_text("utf-8")).body
    for name in dotted_name.split("."):
        found: ast.stmt | None = None
        for node in body:
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() if node.name == name:
                    found = node
                case ast.Assign(targets=[ast.Name(id=target)]) if target == name:
                    found = node
                case ast.AnnAssign(target=ast.Name(id=target)) if target == name:
                    found = node
        if found is None:
            return False
        body = getattr(found, "body", [])
    return True


def list_anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_links_between_pages_exist() -> None:
    missing = []
    for page in (*ROOT_PAGES, *SITE_PAGES):
        for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text("utf-8")):
            path = (page.parent / target).resolve() if target else page
            if not path.exists() or (anchor and anchor not in list_anchors(path)):
                missing.append(f"{page.relative_to(CHECKOUT)}: {target}#{anchor}")

    assert not missing, "\n".join(missing)


def test_website_has_every_page() -> None:
    names = re.findall(r"^ +- (?:[\w ]+: )?([\w/.-]+\.md)$", (CHECKOUT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)

    assert sorted(names) == sorted(str(page.relative_to(CHECKOUT / "docs")) for page in SITE_PAGES)


def test_installation_lists_every_extra() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]
    text = (CHECKOUT / "docs" / "installation.md").read_text("utf-8")
    sizes = dict(re.findall(r"^\| `([\w-]+)` \|.*\| ([^|]+) \|$", text, re.MULTILINE))

    assert set(sizes) == set(project["optional-dependencies"]) - {"dev"}
    reason = (CHECKOUT / "pyproject.toml").read_text("utf-8").partition("\ncluster = [")[0].rpartition("\n\n")[2]
    assert sizes["cluster"] in reason


@pytest.mark.parametrize("page", [*ROOT_PAGES, *SITE_PAGES], ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_tables_have_no_row_twice(page: Path) -> None:
    for table in re.findall(r"(?:^\|.*\|\n)+", page.read_text("utf-8"), re.MULTILINE):
        rows = table.splitlines()
        assert len(set(rows)) == len(rows)


def test_readme_is_short_and_has_no_address() -> None:
    readme = (CHECKOUT / "README.md").read_text("utf-8")

    assert len(readme.splitlines()) <= 150
    assert re.findall(r"https?://", readme) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_paths_and_symbols_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    missing = []
    for name, symbol in PATH.findall(text):
        if name in NOT_PATHS:
            continue
        path = find_path(name)
        if path is None or (symbol and not has_symbol(path, symbol)):
            missing.append(f"{name}:{symbol}" if symbol else name)
    missing += [target for target in LINK.findall(text) if not (page.parent / target).exists()]

    assert not missing, "\n".join(missing)


def test_table_of_layers_has_every_package_and_module() -> None:
    table = ARCHITECTURE.split("## Packages\n", 1)[1].split("\nThe packages:", 1)[0]
    cells = re.findall(r"^\|[^|]*\|([^|]*)\|[^|]*\|$", table, re.MULTILINE)
    names = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}

    assert set(re.findall(r"`(\w+)`", " ".join(cells))) == names - {"__init__"}


def test_modules_in_table_of_packages_exist() -> None:
    table = ARCHITECTURE.split("\nThe packages:", 1)[1].split("\n\n**", 1)[0]
    missing = []
    for package, content in re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE):
        modules = {path.stem for path in (PACKAGE / package).rglob("*")}
        missing += [f"{package}/{name}" for name in re.findall(r"`([a-z_]+)`", content) if name not in modules]

    assert not missing, "\n".join(missing)


def test_decision_records_are_complete_and_listed() -> None:
    records = sorted((CHECKOUT / "docs" / "adr").glob("*.md"))

    assert [int(path.name[:4]) for path in records] == list(range(1, len(records) + 1))
    for path in records:
        text = path.read_text("utf-8")
        assert text.startswith(f"# {path.name[:4]}. "), path.name
        assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Status", "Context", "Decision", "Consequences"]
        assert f"(adr/{path.name})" in ARCHITECTURE


def test_test_command_is_that_of_the_readme() -> None:
    readme = (CHECKOUT / "README.md").read_text("utf-8")
    command = readme.split("Run the tests:\n\n```sh\n", 1)[1].split("\n", 1)[0]

    assert f"\n{command}\n" in (CHECKOUT / "CONTRIBUTING.md").read_text("utf-8")
    assert f"run: {command}\n" in (CHECKOUT / ".github" / "workflows" / "test.yml").read_text("utf-8")
