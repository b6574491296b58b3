"""Start child processes: players and local engines. No other module starts a process.

Children are programs of others, so their environment comes from `build_child_environment` and has no API key.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Collection, Mapping, Sequence

from .redaction import MIN_SECRET_CHARACTERS

# Names of variables that hold a secret by the conventions of cloud and AI services.
_SECRET_NAME = re.compile(
    r"(?:^|_)(?:API_?KEYS?|ACCESS_KEY|ACCOUNT_KEY|SECRET|SECRET_KEY|TOKEN|PASSWORD|PASSWD)(?:_ID)?$", re.I
)

MAX_STDERR_BYTES = 2000


def build_child_environment(
    variables: Mapping[str, str], *, key_variables: Collection[str], keys: Collection[str]
) -> dict[str, str]:
    """Return the environment of a child process: without variables that hold a secret.

    Args:
        variables: The environment of this process.
        key_variables: Names of variables that hold an API key or a URL with a password.
        keys: API keys. A variable that contains one of them is removed, whatever its name.
    """
    searched_keys = [key for key in keys if len(key) >= MIN_SECRET_CHARACTERS]
    return {
        name: value
        for name, value in variables.items()
        if name not in key_variables
        and not _SECRET_NAME.search(name)
        and not any(key in value for key in searched_keys)
    }


async def start_process(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    has_stdin: bool = True,
    has_stdout: bool = True,
    new_session: bool = False,
) -> asyncio.subprocess.Process:
    """Start a program without a shell. Its stderr is a pipe, which the caller has to read.

    Args:
        arguments: The program and its arguments.
        environment: From `build_child_environment`.
        has_stdin: Open a pipe to its stdin; otherwise stdin is empty.
        has_stdout: Open a pipe from its stdout; otherwise its output is discarded.
        new_session: Ctrl-C in the terminal does not reach the process.

    Raises:
        OSError: The program cannot be started.
    """
    return await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.PIPE if has_stdin else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE if has_stdout else asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=new_session,
        env=environment,
    )


def run_in_terminal(arguments: Sequence[str], *, environment: Mapping[str, str]) -> int:
    """Run a program that uses the terminal of this process, such as an editor, and return its exit code.

    Ctrl-C reaches the program, and this process waits for what the program makes of it.

    Raises:
        OSError: The program cannot be started.
    """

    async def run() -> int:
        process = await asyncio.create_subprocess_exec(*arguments, env=environment)
        return await process.wait()

    # A handler, because the program would inherit SIG_IGN.
    previous = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        return asyncio.run(run())
    finally:
        signal.signal(signal.SIGINT, previous)


def run_command(arguments: Sequence[str], *, environment: Mapping[str, str], forward_interrupt: bool) -> int:
    """Run a command of the user with the streams of this process, and return its exit code as a shell does.

    SIGTERM and SIGHUP are passed on to it, and this process waits for its end. A terminal sends Ctrl-C to both.

    Args:
        forward_interrupt: Pass on SIGINT too, because no terminal does.

    Raises:
        OSError: The command cannot be started.
    """
    forwarded = [signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)]
    forwarded += [signal.SIGINT] if forward_interrupt else []

    async def run() -> int:
        process: asyncio.subprocess.Process | None = None
        early: list[int] = []

        def forward(number: int) -> None:
            if process is None:
                early.append(number)
            elif process.returncode is None:
                process.send_signal(number)

        for number in forwarded:
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, forward, number)
        process = await asyncio.create_subprocess_exec(*arguments, env=environment)
        for number in early:
            forward(number)
        return await process.wait()

    # A handler, because the command would inherit SIG_IGN.
    previous = [(number, signal.getsignal(number)) for number in {*forwarded, signal.SIGINT}]
    signal.signal(signal.SIGINT, lambda number, frame: None)
    loop = asyncio.new_event_loop()
    try:
        code = loop.run_until_complete(run())
    finally:
        loop.close()
        for number, handler in previous:
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


async def stop_process(process: asyncio.subprocess.Process, *, with_session: bool = False) -> None:
    """Kill a process, unless it has exited, and wait for its end. No other task may read its stdout.

    `with_session`: it was started with `new_session`, and what it started is killed too. That may have outlived it if
    stderr is still open, and would keep `wait` waiting.
    """
    is_session_alive = with_session and process.stderr is not None and not process.stderr.at_eof()
    if process.returncode is None or is_session_alive:
        try:
            if with_session and sys.platform != "win32":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        except ProcessLookupError:  # it exited, and the event loop does not know yet
            pass
    if process.stdin is not None:
        process.stdin.close()
    # Read the rest: `wait` waits for the end of every pipe (Python 3.11), and a full one is not read otherwise.
    while process.stdout is not None and await process.stdout.read(64 * 1024):
        pass
    await process.wait()


async def read_messages(process: asyncio.subprocess.Process) -> list[str]:
    """Read the stderr of a process to its end. Return its first and its last lines."""
    assert process.stderr is not None
    head = tail = b""
    while block := await process.stderr.read(4096):
        head_bytes = MAX_STDERR_BYTES - len(head)
        head += block[:head_bytes]
        tail = (tail + block[head_bytes:])[-MAX_STDERR_BYTES:]
    text = (head + tail).decode("utf-8", "replace")
    return [line.strip() for line in text.splitlines() if line.strip()]


def find_signal_name(return_code: int) -> str | None:
    """Return the name of the signal that ended a process, or None if the process exited."""
    if return_code >= 0:
        return None
    try:
        return signal.Signals(-return_code).name
    except ValueError:
        return f"signal {-return_code}"
