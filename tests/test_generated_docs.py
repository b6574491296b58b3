"""The generated parts of the documentation: the reference, the picture, and the output that pages show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from audiocli.gateways import error_responses
from scripts.build_docs import (
    CONSOLE_BLOCK,
    DOCS,
    GATEWAY_ERROR_CODES,
    REFERENCE,
    PageEnvironment,
    list_pages,
    render_terminal,
    update_console_blocks,
)

OUTDATED = "run: python -m scripts.build_docs"
CONSOLE_PAGES = [page for page in list_pages() if CONSOLE_BLOCK.search(page.read_text("utf-8"))]


@pytest.mark.parametrize("name", REFERENCE)
def test_reference_is_up_to_date(name: str) -> None:
    assert (DOCS / "reference" / name).read_text("utf-8") == REFERENCE[name](), OUTDATED


@pytest.mark.parametrize("page", CONSOLE_PAGES, ids=lambda page: page.name)
def test_output_in_console_blocks_is_that_of_the_program(page: Path) -> None:
    text = page.read_text("utf-8")

    with PageEnvironment() as (directory, variables):
        assert text == update_console_blocks(text, directory, variables), OUTDATED


def test_picture_shows_the_output_of_the_program() -> None:
    with PageEnvironment() as (directory, variables):
        assert (DOCS / "terminal.svg").read_text("utf-8") == render_terminal(directory, variables), OUTDATED


def test_every_error_code_of_gateways_is_explained() -> None:
    source = Path(error_responses.__file__).read_text("utf-8")
    choices = source.split('"""Choose exit code, code', 1)[1].split("return GatewayError(", 1)[0]
    assignments = re.findall(r"^ *(?:\w+, )?code(?:, \w+)* = (.*)$", choices, re.MULTILINE)
    codes = {code for line in assignments for code in re.findall(r'"([a-z_]+)"', line)}

    assert codes == set(GATEWAY_ERROR_CODES)
