"""Expansion of option groups into Typer parameters."""

from __future__ import annotations

import inspect
from typing import Annotated, NamedTuple

import pytest
import typer
from typer.main import get_command

from audiocli.cli.chat import ChatOptions, chat
from audiocli.cli.options import GeneralOptions, MoneyOptions, with_options
from audiocli.cli.speak import SpeakOptions, speak
from audiocli.cli.transcribe import TranscribeOptions, transcribe


class Limits(NamedTuple):
    width: Annotated[int, typer.Option("--width", metavar="N", help="Width.")] = 42
    names: Annotated[list[str] | None, typer.Option("--name", metavar="NAME", help="Name.")] = None


class Options(NamedTuple):
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Source.")]
    limits: Limits = Limits()
    general: GeneralOptions = GeneralOptions()


def run(*argv: str) -> Options:
    received: list[Options] = []

    @with_options
    def command(ctx: typer.Context, options: Options) -> None:
        """Do it."""
        received.append(options)

    program = typer.Typer(add_completion=False)
    program.command()(command)
    program(args=list(argv), standalone_mode=False)
    return received[0]


def test_group_is_expanded_in_its_place() -> None:
    parameters = inspect.signature(with_options(do_nothing)).parameters

    assert list(parameters) == ["ctx", "source", "width", "names", "as_json", "quiet", "debug", "color"]


def do_nothing(ctx: typer.Context, options: Options) -> None:
    """Do it."""


def test_defaults_build_the_default_groups() -> None:
    assert run("talk.wav") == Options("talk.wav")


def test_values_reach_their_groups() -> None:
    options = run("talk.wav", "--width", "7", "--name", "a", "--name", "b", "-q")

    assert options == Options("talk.wav", Limits(7, ["a", "b"]), GeneralOptions(quiet=True))


def test_missing_argument_is_an_error() -> None:
    with pytest.raises(typer.TyperException):
        run()


@pytest.mark.parametrize(
    ("command", "options"), [(speak, SpeakOptions()), (transcribe, TranscribeOptions()), (chat, ChatOptions())]
)
def test_commands_that_cost_share_their_money_options(
    command: object, options: SpeakOptions | TranscribeOptions | ChatOptions
) -> None:
    program = typer.Typer(add_completion=False)
    program.command()(command)  # type: ignore[type-var]
    names = [parameter.name for parameter in get_command(program).params]

    assert options.money == MoneyOptions()
    assert [name for name in names if name in MoneyOptions._fields] == list(MoneyOptions._fields)
