"""Maximum lengths of texts: of models at every gateway, and as an error response names them."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from audiocli.errors import GatewayError
from audiocli.gateways.text_limits import TextLimit, find_text_limit
from tests.conftest import CommandLine
from tests.gateway_contract import build_wav, list_outputs
from tests.small_server import Answer, Received, SmallServer, serve
from tests.test_processes import Program
from tests.test_processes import program as program

TEXT = " ".join(f"Sentence number {number} is spoken aloud by a voice." for number in range(70))
NUMERALS = str.maketrans("0123456789", "〇一二三四五六七八九")
CHINESE = "".join(f"第{number:03d}天春天来了万物复苏。" for number in range(229))[:3200].translate(NUMERALS)
SECOND = build_wav(bytes(48_000))


# --- limits of models ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        "openai:gpt-4o-mini-tts",
        "openai:gpt-4o-mini-tts-2025-12-15",
        "openrouter:openai/gpt-4o-mini-tts-2025-12-15",
        "therouter:openai/gpt-4o-mini-tts",
        "arouter:openai/gpt-4o-mini-tts",
        "home:gpt-4o-mini-tts",
    ],
)
def test_limit_in_tokens_holds_at_every_gateway(all_gateways_cli: CommandLine, tmp_path: Path, model: str) -> None:
    counts = [
        all_gateways_cli("speak", text, "-m", model, "-o", tmp_path / "x.wav", "-n", "--json").json["requests"]
        for text in (CHINESE, "x" * 4000, "x" * 4001)
    ]

    assert counts == [4, 1, 2]


def test_chunks_of_chinese_are_below_the_limit_in_tokens(all_gateways_cli: CommandLine, tmp_path: Path) -> None:
    r = all_gateways_cli("speak", CHINESE, "-m", "openai:gpt-4o-mini-tts", "-o", tmp_path / "x.wav")

    sent = [request.json["input"] for request in r.posts]
    assert r.code == 0, r.err
    assert sorted("".join(sent)) == sorted(CHINESE)
    assert max(map(len, sent)) * 1.5 <= 2000


def test_small_maximum_of_the_user_is_in_characters(all_gateways_cli: CommandLine, tmp_path: Path) -> None:
    argv = ("speak", CHINESE, "-m", "openai:gpt-4o-mini-tts", "--max-chars", "900", "-o", tmp_path / "x.wav")

    r = all_gateways_cli(*argv)

    lengths = [len(request.json["input"]) for request in r.posts]
    assert 850 < max(lengths) <= 900


# --- limits that a server names --------------------------------------------------------------------------------------


def count_characters(text: str) -> int:
    return len(text)


def count_bytes(text: str) -> int:
    return len(text.encode())


@contextmanager
def serve_limited(
    limit: int, build_message: Callable[[int], Any], *, status: int = 400, measure: Callable[[str], int] = len
) -> Iterator[SmallServer]:
    """Run a server that refuses texts above a limit. `build_message` builds the body from the length of the text."""

    def answer(request: Received) -> Answer:
        if request.method != "POST":
            return Answer(404, {"detail": "Not Found"})
        size = measure(request.json["input"])
        return Answer(status, build_message(size)) if size > limit else Answer(200, SECOND)

    with serve(answer) as server:
        yield server


def configure(cli: CommandLine, server: SmallServer) -> None:
    cli.write_config(f'[gateways.home]\nbase_url = "{server.url}"')


def list_texts(server: SmallServer) -> list[str]:
    return [request.json["input"] for request in server.posts]


def list_words(texts: Sequence[str]) -> list[str]:
    """Return the words of texts that were sent at the same time, in any order."""
    return sorted(word for text in texts for word in text.split())


def build_pydantic_error(_: int) -> dict[str, Any]:
    issue = {"type": "string_too_long", "loc": ["body", "input"], "msg": "String should have at most 2000 characters"}
    return {"detail": [issue]}


def build_openai_error(size: int) -> dict[str, Any]:
    message = "Invalid 'input': string too long. Expected a string with maximum length 2000, but got a string with "
    return {"error": {"message": f"{message}length {size} instead.", "code": "string_above_max_length"}}


@pytest.mark.parametrize(
    ("status", "build_message"),
    [
        (400, build_pydantic_error),
        (422, build_pydantic_error),
        (400, build_openai_error),
        (413, lambda size: {"detail": f"Input text is {size} characters long; the limit is 2,000 characters."}),
    ],
)
def test_named_limit_splits_the_text_and_is_remembered(
    audiocli: CommandLine, tmp_path: Path, status: int, build_message: Callable[[int], Any]
) -> None:
    argv = ("speak", TEXT, "-m", "home:tts", "-o", tmp_path / "x.wav", "--json")
    with serve_limited(2000, build_message, status=status) as server:
        configure(audiocli, server)
        first = audiocli(*argv)
        first_texts = list_texts(server)
        second = audiocli(*argv)
        second_texts = list_texts(server)[len(first_texts) :]
        models = audiocli("models", "-g", "home")

    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert first_texts[0] == TEXT
    assert list_words(first_texts[1:]) == list_words(second_texts) == list_words([TEXT])
    assert max(map(len, second_texts)) <= 2000
    assert [entry["outcome"] for entry in first.ledger] == ["refused", *["ok"] * len(second_texts)]
    assert first.json["requests"] == second.json["requests"] == len(second_texts)
    assert first.json["duration_s"] == second.json["duration_s"] == len(second_texts)
    assert models.code in (0, 6, 9)


@pytest.mark.parametrize(
    ("limit", "unit", "measure"),
    [(2000, "characters", count_characters), (1500, "bytes", count_bytes), (800, "tokens", lambda t: len(t) // 2)],
)
def test_named_limit_is_used_in_its_unit(
    audiocli: CommandLine, tmp_path: Path, limit: int, unit: str, measure: Callable[[str], int]
) -> None:
    text = TEXT.replace("voice", "vöïcé")
    message = f"This model's maximum context length is {limit} {unit}. However, your text is longer."
    with serve_limited(
        limit, lambda size: {"error": {"message": f"{message} {size} {unit}."}}, measure=measure
    ) as server:
        configure(audiocli, server)
        r = audiocli("speak", text, "-m", "home:tts", "-o", tmp_path / "x.wav")

    assert r.code == 0, r.err
    assert list_words(list_texts(server)[1:]) == list_words([text])
    assert f"{limit} {unit}" in r.err


def test_text_with_more_tokens_than_estimated_is_split_in_half(audiocli: CommandLine, tmp_path: Path) -> None:
    """A text within the estimate was refused, so the estimate is too low for it."""

    def build_message(size: int) -> dict[str, Any]:
        message = f"Input of {size} tokens is over the maximum input limit of 2000 tokens. Please shorten your input."
        return {"error": {"message": message, "code": "invalid_value"}}

    with serve_limited(2000, build_message) as server:  # one token for each character
        audiocli.variables |= {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "sk-x"}
        r = audiocli("speak", TEXT[:3500], "-m", "openai:gpt-4o-mini-tts", "-o", tmp_path / "x.wav")

    assert r.code == 0, r.err
    assert max(map(len, list_texts(server)[1:])) <= 1750


def test_limit_that_is_wrong_is_tried_once(audiocli: CommandLine, tmp_path: Path) -> None:
    with serve_limited(100, lambda _: {"detail": "input is too long: max 2000 characters"}) as server:
        configure(audiocli, server)
        r = audiocli("speak", TEXT, "-m", "home:tts", "-o", tmp_path / "x.wav", "-j", "1")

    assert (r.code, list_outputs(tmp_path)) == (6, [])
    assert "max 2000 characters" in r.err
    assert len(list_texts(server)) == 2


def test_limits_that_shrink_do_not_loop(audiocli: CommandLine, tmp_path: Path) -> None:
    with serve_limited(0, lambda size: {"detail": f"input is too long: max {size - 1} characters"}) as server:
        configure(audiocli, server)
        r = audiocli("speak", TEXT, "-m", "home:tts", "-o", tmp_path / "x.wav", "-j", "1")

    assert (r.code, len(list_texts(server)), list_outputs(tmp_path)) == (6, 2, [])


@pytest.mark.parametrize("extra", [("--captions", "x.srt"), ("--pause", "300"), ("--max-chars", "3000")])
def test_chunks_that_are_too_long_are_split_again(
    audiocli: CommandLine, tmp_path: Path, extra: tuple[str, str]
) -> None:
    name, value = extra
    text = f"{TEXT[:2500]}\n\n{TEXT.replace('number', 'with the number')}"
    argv = (name, str(tmp_path / value) if name == "--captions" else value)
    long_sentence = text.replace(".", ",") if name == "--captions" else text
    with serve_limited(1000, lambda _: {"detail": "Text exceeds the 1000 character limit"}) as server:
        configure(audiocli, server)
        r = audiocli("speak", long_sentence, "-m", "home:tts", "-o", tmp_path / "x.wav", *argv, "--json")

    accepted = [text for text in list_texts(server) if len(text) <= 1000]
    assert r.code == 0, r.err
    # A chunk of the first split that was accepted may not fit into the second one.
    assert Counter(list_words([long_sentence])) <= Counter(list_words(accepted))
    assert list_outputs(tmp_path) == (["x.srt", "x.wav"] if name == "--captions" else ["x.wav"])
    assert r.json["bytes"] == (tmp_path / "x.wav").stat().st_size


def test_limit_is_not_used_for_an_open_pipe_but_remembered(
    audiocli: CommandLine, program: Program, tmp_path: Path
) -> None:
    """The text that was read from the pipe is gone, so it is not sent again."""
    line = f"{TEXT[:1500].replace('.', ',')}\n".encode()
    codes = []
    with serve_limited(1000, lambda _: {"detail": "max 1000 characters"}) as server:
        configure(audiocli, server)
        for _ in range(2):
            process = program.start("speak", "-m", "home:tts", "-o", tmp_path / "x.wav", stdin=subprocess.PIPE)
            assert process.stdin is not None
            process.stdin.write(line)
            process.stdin.flush()
            count = len(server.posts)
            while len(server.posts) == count and process.poll() is None:
                time.sleep(0.02)
            process.communicate(timeout=30)
            codes.append(process.returncode)

    assert codes == [6, 0]


def test_output_that_cannot_restart_is_not_started_again(
    audiocli: CommandLine, program: Program, tmp_path: Path
) -> None:
    has_audio = threading.Event()

    def refuse(_: int) -> dict[str, Any]:
        has_audio.wait(30)
        return {"detail": "max 300 characters"}

    with serve_limited(300, refuse) as server:
        configure(audiocli, server)
        # The first chunk is short. The second one is refused once the first one is in the pipe.
        process = program.start("speak", TEXT, "-m", "home:tts", "-f", "wav", "--max-chars", "1000", "-j", "1")
        assert process.stdout is not None
        head = process.stdout.read(1000)
        has_audio.set()
        _, err = process.communicate(timeout=30)
        texts = list_texts(server)

    assert (process.returncode, len(head)) == (6, 1000), err
    assert b"max 300 characters" in err
    assert len(texts) == 2


def test_fallback_route_is_not_used_for_a_text_that_is_too_long(audiocli: CommandLine, tmp_path: Path) -> None:
    with serve_limited(2000, build_pydantic_error) as server:
        configure(audiocli, server)
        models = ("-m", "home:tts", "-m", "openrouter:hexgrad/kokoro-82m")
        r = audiocli("speak", TEXT[:2500], *models, "-o", tmp_path / "x.wav", "--json")

    assert (r.code, r.json["gateway"], r.posts) == (0, "home", []), r.err


def test_limit_belongs_to_one_model(audiocli: CommandLine, tmp_path: Path) -> None:
    with serve_limited(2000, build_pydantic_error) as server:
        configure(audiocli, server)
        for model in ("home:tts", "home:other"):
            audiocli("speak", TEXT, "-m", model, "-o", tmp_path / "x.wav")

    assert list_texts(server).count(TEXT) == 2


def test_unwritable_cache_does_not_prevent_the_split(audiocli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "tmp").mkdir()
    audiocli.variables |= {"XDG_CACHE_HOME": str(tmp_path / "file"), "TMPDIR": str(tmp_path / "tmp")}
    with serve_limited(2000, build_pydantic_error) as server:
        configure(audiocli, server)
        r = audiocli("speak", TEXT, "-m", "home:tts", "-o", tmp_path / "x.wav")

    assert r.code == 0, r.err


# --- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("body.input: String should have at most 2000 characters", TextLimit(2000, "characters")),
        ("input is too long: max 4096 characters", TextLimit(4096, "characters")),
        ("input is longer than 4096 characters", TextLimit(4096, "characters")),
        ("This model's maximum context length is 2000 tokens", TextLimit(2000, "tokens")),
        (
            "This model's maximum context length is 2000 tokens. However, your messages resulted in 2043 tokens.",
            TextLimit(2000, "tokens"),
        ),
        (
            "Input of 2132 tokens is over the maximum input limit of 2000 tokens. Please shorten your input",
            TextLimit(2000, "tokens"),
        ),
        (
            "Invalid 'input': string too long. Expected a string with maximum length 4096, but got a string with "
            "length 5000 instead",
            TextLimit(4096, "characters"),
        ),
        (
            "Either `input.text` or `input.ssml` is longer than the limit of 5000 bytes. This limit is different from "
            "quotas",
            TextLimit(5000, "bytes"),
        ),
        (
            "This request's text has 9049 characters and exceeds the character limit of 2500 characters for non "
            "signed in accounts",
            TextLimit(2500, "characters"),
        ),
        ("RangeError: text length (9004) should be less than 200 characters", TextLimit(200, "characters")),
        ("XTTS can only generate text with a maximum of 400 tokens", TextLimit(400, "tokens")),
        ("Text too long (9001 > 4096 characters)", TextLimit(4096, "characters")),
        ("Text exceeds maximum length of 5,000 characters (got 9,001)", TextLimit(5000, "characters")),
        ("Text length 9001 exceeds maximum allowed length 1000", TextLimit(1000, "characters")),
        ("exceeds the 4096 character limit", TextLimit(4096, "characters")),
        ("Request text must be 1024 characters or less", TextLimit(1024, "characters")),
        ("text must not exceed 600 chars", TextLimit(600, "characters")),
        ("Maximum number of characters: 3000", TextLimit(3000, "characters")),
        ("max_length=512 exceeded", TextLimit(512, "characters")),
        ("input is longer than 1000 bytes of UTF-8", TextLimit(1000, "bytes")),
        # Not about the length of the text, or not the reason.
        ("body.voice: String should have at most 64 characters", None),
        ("Invalid 'instructions': string too long. Expected a string with maximum length 4096", None),
        ("instructions: String should have at most 64 characters", None),
        ("Rate limit: at most 200 requests per minute", None),
        ("Request too large on tokens per minute (TPM): Limit 1200, Requested 1500", None),
        ("This request exceeds your quota. You have 119 characters remaining, 9650 are required", None),
        ("This request's text has 349 characters and exceeds the character limit of 25000 characters", None),
        ("speed must be between 0.25 and 4", None),
        ("speed must be at most 4", None),
        ("input is too long", None),
        ("input is too long: max 0 characters", None),
        (f"input is too long: max {'9' * 500} characters", None),
        ("model tts-1-hd-1106 does not support response_format wav", None),
        ("Unsupported sample rate, must be less than 48000", None),
    ],
)
def test_maximum_length_is_parsed(message: str, expected: TextLimit | None) -> None:
    error = GatewayError(f"400 {message}", status=400)

    assert find_text_limit(error, "x" * 9001) == expected


@pytest.mark.parametrize("status", [401, 402, 403, 404, 429, 500, 503])
def test_other_statuses_name_no_maximum(status: int) -> None:
    error = GatewayError(f"{status} input is too long: max 100 characters", status=status)

    assert find_text_limit(error, "x" * 9001) is None


def test_stored_limits_of_any_kind_are_read(audiocli: CommandLine, tmp_path: Path) -> None:
    """A file that is damaged or was written by another version does not break a command."""
    with serve_limited(2000, build_pydantic_error) as server:
        configure(audiocli, server)
        audiocli("speak", TEXT, "-m", "home:tts", "-o", tmp_path / "x.wav")
        [path] = (Path(audiocli.variables["XDG_CACHE_HOME"]) / "audiocli" / "lessons").iterdir()
        at_s = next(iter(json.loads(path.read_bytes()).values()))
        names = ("max_characters:0", "max_bytes:-5", "max_tokens:many", "max_lines:7", f"max_bytes:{'9' * 40}", "x")
        path.write_text(json.dumps(dict.fromkeys(names, at_s)))

        r = audiocli("speak", "Hi there", "-m", "home:tts", "-o", tmp_path / "x.wav")

    assert r.code == 0, r.err
