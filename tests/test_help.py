"""Help pages, help topics and man pages."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from audiocli.cli import COMMANDS
from audiocli.cli.completion import build_tree, render_man_pages
from audiocli.cli.help_pages import COMMAND_PANELS, DEFAULTS, EXIT_CODES, MAX_EXAMPLE_WIDTH, PAGES, find_panel
from audiocli.cli.help_topics import ENVIRONMENT, TOPICS
from audiocli.completion.command_tree import Command
from audiocli.errors import ExitCode
from tests.conftest import CommandLine

CHECKOUT = Path(__file__).parent.parent
TREE = {" ".join(command.path): command for command in build_tree().walk()}
PANEL_ORDER = (
    *("Arguments", "Input", "Output", "Model and voice", "Verification", "Checks", "Times"),
    *("Long texts", "Long recordings", "Batch", "Cluster"),
    *("Money", "Background", "Mock gateway", "Gateway", "Output format", "General", "Commands"),
)


@pytest.fixture
def cli(audiocli: CommandLine) -> CommandLine:
    audiocli.variables["COLUMNS"] = "80"
    return audiocli


def read_panels(page: str) -> list[str]:
    return [line[3 : line.index(" ─", 3)] for line in page.splitlines() if line.startswith("╭─")]


# --- pages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TREE)
def test_help_page_is_complete_and_fits_80_columns(cli: CommandLine, name: str) -> None:
    r = cli(*name.split(), "--help")

    assert (r.code, r.err, r.requests) == (0, "", [])
    assert [line for line in r.text.splitlines() if len(line) > 80] == []
    assert r.text.splitlines()[0].startswith(f" Usage: {' '.join(['audiocli', *name.split()])} ")
    words = " ".join(r.text.split())
    page = PAGES[name]
    assert page.description in words
    assert 3 <= len(page.examples) <= 5
    for example in page.examples:
        assert example in r.text and len(example) <= MAX_EXAMPLE_WIDTH
    for code in page.exit_codes:
        assert f"   {code:<3}  {EXIT_CODES[code][0]}\n" in r.text
    panels = read_panels(r.text)
    assert panels == sorted(panels, key=PANEL_ORDER.index) and len(set(panels)) == len(panels)


def test_groups_list_the_exit_codes_of_their_subcommands() -> None:
    for name, command in TREE.items():
        codes = {code for child in command.commands for code in PAGES[" ".join(child.path)].exit_codes}
        assert codes <= set(PAGES[name].exit_codes), name
    assert PAGES[""].exit_codes == tuple(EXIT_CODES)


@pytest.mark.parametrize(
    "words", ["jobs", "jobs show x", "jobs wait x", "jobs fetch x", "jobs forget x", "usage list", "budget set --day 1"]
)
def test_exit_code_of_a_damaged_ledger_is_listed(cli: CommandLine, words: str) -> None:
    cli.ledger_path.parent.mkdir(parents=True, exist_ok=True)
    cli.ledger_path.write_bytes(b"not a database" * 1000)

    r = cli(*words.split())

    assert r.code == 5, r.err
    assert 5 in PAGES[read_command(words.split())[0]].exit_codes


@pytest.mark.parametrize("words", ["keys list", "keys remove groq"])
def test_exit_code_of_an_unusable_keys_file_is_listed(cli: CommandLine, words: str) -> None:
    path = Path(cli("config", "path").text.strip()).with_name("keys.toml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("groq = [")
    path.chmod(0o600)

    r = cli(*words.split())

    assert r.code == 4, r.err
    assert 4 in PAGES[words.rpartition(" groq")[0] or words].exit_codes


@pytest.mark.parametrize("name", TREE)
def test_every_option_has_a_panel(name: str) -> None:
    missing = [flag.names for flag in TREE[name].flags if find_panel(name, (*flag.names, *flag.excludes)) is None]

    assert missing == [], "add them to PANELS in audiocli/cli/help_pages.py"


def test_tables_of_help_name_existing_commands_and_options() -> None:
    options = {(name, option) for name, command in TREE.items() for flag in command.flags for option in flag.names}

    assert set(PAGES) == set(TREE)
    assert set(COMMAND_PANELS) | set(DEFAULTS) <= options
    assert list(EXIT_CODES) == sorted(ExitCode)
    assert all(set(page.exit_codes) <= set(EXIT_CODES) for page in PAGES.values())


@pytest.mark.parametrize("name", TREE)
def test_examples_use_commands_and_options_that_exist(name: str) -> None:
    for example in PAGES[name].examples:
        words = shlex.split(
            example.replace('"', "").replace("$(", " $( ").replace("<(", " <( ").replace(")", " ) "), comments=True
        )
        start = words.index("audiocli") + 1 if "audiocli" in words else 0
        assert start, example
        path, rest = read_command(words[start:])
        names = {option for flag in TREE[path].flags for option in flag.names}
        # A time such as -0:02 is no option.
        used = {word.partition("=")[0] for word in rest if word.startswith("-") and not word[1:2].isdecimal()} - {
            "-",
            "--",
        }
        assert used <= names, example
        assert name in ("", "jobs", "help") or path.split()[:1] == name.split()[:1], example


def read_command(words: list[str]) -> tuple[str, list[str]]:
    """Return the command path at the start of a command line, and the words after it up to the next program."""
    end = next((index for index, word in enumerate(words) if word in ("|", "||", "&&", "<", ">", ")")), len(words))
    words = words[:end]
    length = 2 if " ".join(words[:2]) in TREE else 1 if words and words[0] in TREE else 0
    return " ".join(words[:length]), words[length:]


def test_help_shows_defaults_and_environment_variables(cli: CommandLine) -> None:
    words = " ".join(cli("speak", "--help").text.replace("│", " ").split())

    assert "[default: (from -o, else mp3)]" in words
    assert "[default: 120]" in words
    assert "[env var: AUDIOCLI_TAG]" in words
    assert "AUDIOCLI_TAG" not in cli("usage", "list", "--help").text


@pytest.mark.parametrize("name", TREE)
def test_descriptions_of_options_have_a_readable_width(cli: CommandLine, name: str) -> None:
    rows = [line for line in cli(*name.split(), "--help").text.splitlines() if line.startswith("│")]
    widths = {}
    for flag in TREE[name].flags:
        word = f"  {flag.help.split()[0]}"
        for row in rows:
            if f" {flag.names[0]} " in row and word in row:
                widths[flag.names[0]] = len("│".join(row.split("│")[1:-1])) - row.rindex(word) - 2
    assert widths
    # Some names and metavars of these two are long.
    assert min(widths.values()) >= (36 if name in ("speak", "transcribe") else 40)


def test_help_has_long_lists_of_choices_and_both_names_of_a_flag(cli: CommandLine) -> None:
    mock, init = (" ".join(cli(name, "--help").text.replace("│", " ").split()) for name in ("mock", "init"))

    assert "Values: openrouter, openai, therouter, arouter, groq, plain." in mock
    assert "--completion, Install completion for the shell in use, or --no-completion skip it." in init
    assert cli("init", "--no-completion", "--help").code == 0


@pytest.mark.parametrize("width", [80, 132])
def test_help_uses_the_width_of_the_terminal(cli: CommandLine, width: int) -> None:
    text = cli("transcribe", "--help", variables={"COLUMNS": str(width)}).text

    assert {len(line) for line in text.splitlines() if line.startswith("╭")} == {width}
    assert "…" not in text


def test_help_of_a_narrow_terminal_has_complete_names(cli: CommandLine) -> None:
    text = cli("transcribe", "--help", variables={"COLUMNS": "40"}).text

    assert "--strict-timestamps" in text and "…" not in text


def test_help_is_colored_on_a_terminal_only(cli: CommandLine) -> None:
    terminal = {"TERM": "xterm-256color"}

    assert "\x1b[" in cli("speak", "--help", terminal="out", variables=terminal).text
    for variables in ({}, {"NO_COLOR": "1"}, {"TERM": "dumb"}):
        streams = "out" if variables else ""
        assert "\x1b[" not in cli("speak", "--help", terminal=streams, variables={**terminal, **variables}).text


@pytest.mark.parametrize("name", TREE)
def test_short_option_and_help_command_print_the_same_page(cli: CommandLine, name: str) -> None:
    page = cli(*name.split(), "--help").text

    assert cli(*name.split(), "-h").text == page
    if name not in TOPICS:
        assert cli("help", *name.split()).text == page


def test_program_and_group_without_arguments_print_help(cli: CommandLine) -> None:
    assert cli().text == cli("--help").text
    assert cli("keys").text == cli("keys", "--help").text
    assert (cli().code, cli("keys").code) == (0, 0)


# --- topics ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topic", TOPICS)
def test_topic_is_printed_and_fits_80_columns(cli: CommandLine, topic: str) -> None:
    r = cli("help", topic)

    assert (r.code, r.err) == (0, "")
    assert r.text.startswith(f"{TOPICS[topic][0]}\n\n") and len(r.text.splitlines()) > 5
    assert [line for line in r.text.splitlines() if len(line) > 80] == []
    assert cli("help", topic, "--json").json == {
        "schema": 1,
        "ok": True,
        "command": "help",
        "topic": topic,
        "text": r.text,
    }


@pytest.mark.parametrize("topic", TOPICS)
def test_topic_with_the_name_of_a_command_ends_with_the_help_of_that_command(cli: CommandLine, topic: str) -> None:
    last = cli("help", topic).text.splitlines()[-1]

    assert (last == f"The options of the command of this name: audiocli {topic} --help") == (topic in COMMANDS)


def test_topics_list_gateways_formats_and_exit_codes(cli: CommandLine) -> None:
    assert "GROQ_API_KEY" in cli("help", "gateways").text
    assert "flac" in cli("help", "formats").text
    assert [line.split()[0] for line in cli("help", "exit-codes").text.splitlines() if line[2:3].isdigit()] == [
        str(int(code)) for code in ExitCode
    ]


@pytest.mark.parametrize(
    ("words", "suggestion"),
    [("fromats", "formats"), ("speek", "speak"), ("usage lst", "list"), ("usage verfy", "verify")],
)
def test_unknown_topic_is_an_error_with_the_most_similar_name(cli: CommandLine, words: str, suggestion: str) -> None:
    r = cli("help", *words.split())

    assert r.code == 2
    assert f"did you mean '{suggestion}'?" in r.err


def test_audiocli_variables_of_the_topic_are_read_by_the_program() -> None:
    source = "\n".join(path.read_text("utf-8") for path in (CHECKOUT / "audiocli").rglob("*.py"))

    for names, _ in ENVIRONMENT:
        for name in names.split(", "):
            if name.startswith("AUDIOCLI_"):
                assert source.count(f'"{name}"') > 1, name


# --- man pages -------------------------------------------------------------------------------------------------------


def test_every_command_has_a_man_page_in_the_checkout() -> None:
    pages = render_man_pages()

    assert set(pages) == {path.name for path in (CHECKOUT / "man").iterdir()}
    assert len(pages) == len(TREE) > len(COMMANDS)


@pytest.mark.parametrize("command", TREE.values(), ids=lambda command: " ".join(command.path))
def test_man_page_has_every_option_and_example(command: Command) -> None:
    page = render_man_pages()["-".join(("audiocli", *command.path)) + ".1"].replace("\\-", "-")

    for flag in command.flags:
        assert all(f"\\fB{name}\\fR" in page for name in flag.names)
    assert all(example.replace("\\", "\\e") in page for example in PAGES[" ".join(command.path)].examples)


def test_wheel_installs_the_man_pages() -> None:
    import tomllib

    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))

    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]["man"] == "share/man/man1"


def test_help_in_a_closed_pipe_is_a_success() -> None:
    process = subprocess.run(
        ["/bin/sh", "-c", f"{shlex.quote(sys.executable)} -m audiocli --help | :"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (process.returncode, process.stderr) == (0, "")
