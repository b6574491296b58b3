"""What a batch tells: a line for each recording, the summary, and how far it has come."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from ..context import AppContext
from ..core.batch.item import Result, Status
from ..core.batch.worker_pool import Totals
from ..core.result_documents import served_document
from ..errors import AudiocliError, ExitCode

if TYPE_CHECKING:
    from ..console import Console
    from ..core.limiter import LimiterPool
    from ..types.values import Json

# More failures than these are counted; `--json` has them all.
MOST_ROWS = 50
# In which order the counts of a summary stand.
COUNTED = (Status.TRANSCRIBED, Status.WRITTEN, Status.UNCHANGED, Status.EDITED, Status.FAILED)
WORDS = {
    Status.TRANSCRIBED: "transcribed",
    Status.WRITTEN: "written without sending",
    Status.UNCHANGED: "unchanged",
    Status.EDITED: "edited",
    Status.FAILED: "failed",
}


class BatchReporter:
    """Tells what becomes of a batch, to people or in JSON lines."""

    def __init__(self, env: AppContext, screen: Console, *, as_json: bool) -> None:
        self._env = env
        self._screen = screen
        self._as_json = as_json
        self._is_watched = env.stderr_moves
        self._failed: list[tuple[str, int, str]] = []
        self._failed_count = 0
        self._edited = 0
        self._heard: set[str] = set()

    def aside(self, message: str) -> None:
        """Tell what work says by the way, once: the warnings of a recording stand in its line."""
        if message.startswith("warning: ") or message in self._heard:
            self._screen.debug(message)
            return
        self._heard.add(message)
        self._screen.info(message)

    def result(self, result: Result) -> None:
        if result.error is not None:
            self._fail(result.task.source, result.error)
            return
        self._edited += bool(result.edited)
        if self._as_json:
            self._screen.write_json(_document(result))
        elif result.edited or (result.written and not self._is_watched) or result.warnings:
            self._screen.info(_line(result))

    def unreadable(self, folder: Path, reason: str) -> None:
        from ..errors import RecordingError

        self._fail(folder, RecordingError(f"{folder}: {reason}"))

    def _fail(self, source: Path, error: AudiocliError) -> None:
        from ..console import error_document

        self._failed_count += 1
        message = error.message.removeprefix(f"{source}: ")
        if len(self._failed) < MOST_ROWS:
            self._failed.append((str(source), error.exit_code, message))
        if self._as_json:
            told: dict[str, Json] = {"ok": False, "command": "transcribe", "source": str(source), "status": "failed"}
            self._screen.write_json({**told, "error": error_document(error, "transcribe")["error"]})
        elif not self._is_watched:
            self._screen.info(f"{source}: failed: {message}" + (f": {error.hint}" if error.hint else ""))

    def interrupted(self, totals: Totals) -> None:
        left = totals.files - totals.done
        self._screen.info(f"interrupted: {_counts(totals)}; {left} not done: the same command goes on")

    def summary(self, totals: Totals, stopped: AudiocliError | None, *, elapsed_s: float) -> int:
        """Tell what a batch has come to; give its exit code."""
        code = self._exit_code(totals, stopped)
        left = totals.files - totals.done
        again = self._again() if code else None
        if self._as_json:
            self._screen.write_json(self._summary_document(totals, stopped, code, again, elapsed_s))
            return code
        if self._failed:
            rows = [[name, str(exit_code), message] for name, exit_code, message in self._failed]
            self._screen.info_table(["recording", "exit", "why it failed"], rows, numeric=[False, True, False])
        if self._failed_count > len(self._failed):
            self._screen.info(f"and {self._failed_count - len(self._failed)} more; --json tells all")
        if self._edited:
            self._screen.info(f"{self._edited} with outputs that are edited, or not ours: kept; --force replaces them")
        if stopped is not None:
            self._screen.error(stopped)
        self._screen.info(_sum(totals, left, elapsed_s, failed=self._failed_count))
        if again is not None:
            self._screen.info(f"to try again: {again}")
        return code

    def _exit_code(self, totals: Totals, stopped: AudiocliError | None) -> int:
        if stopped is not None and stopped.exit_code in (ExitCode.MONEY, ExitCode.ACCESS):
            return stopped.exit_code
        return ExitCode.PARTLY_DONE if self._failed_count or totals.partial or stopped is not None else ExitCode.DONE

    def _again(self) -> str:
        """Give the command that does what is left."""
        argv = list(self._env.argv)
        place = argv.index("transcribe") + 1 if "transcribe" in argv else len(argv)
        flags = argv[: argv.index("--")] if "--" in argv else argv
        if "--retry-failed" not in flags:
            argv.insert(place, "--retry-failed")
        return shlex.join(["audiocli", *argv])

    def _summary_document(
        self, totals: Totals, stopped: AudiocliError | None, code: int, again: str | None, elapsed_s: float
    ) -> dict[str, Json]:
        from ..amounts import usd_number
        from ..console import error_document

        counts: dict[str, Json] = {status.value: totals.counts[status] for status in COUNTED}
        counts["failed"] = self._failed_count
        summary: dict[str, Json] = {
            "files": totals.files,
            **counts,
            "not_begun": totals.files - totals.done,
            "requests": totals.requests,
            "audio_s": round(totals.audio_s, 3),
            "cost_usd": None if totals.unknown_costs else usd_number(totals.cost_nanousd),
            "cost_source": str(totals.cost_source),
            "elapsed_s": round(elapsed_s, 3),
        }
        stop = error_document(stopped, "transcribe")["error"] if stopped is not None else None
        return {
            "ok": code == 0,
            "command": "transcribe",
            "exit": code,
            "summary": summary,
            **({"stopped": stop} if stop is not None else {}),
            **({"again": again} if again is not None else {}),
        }


def _line(result: Result) -> str:
    from ..amounts import usd

    parts = [", ".join(path.name for path in result.written)] if result.written else []
    if result.edited:
        parts.append(", ".join(path.name for path in result.edited) + " is edited, or not ours: kept")
    if result.status is Status.WRITTEN:
        parts.append("nothing sent")
    if result.duration_s is not None and result.served is not None:
        parts.append(f"{result.duration_s:.1f} s of audio")
    if result.served is not None:
        cost = result.served.cost_nanousd
        parts.append("free" if cost == 0 else f"cost {usd(cost)}")
    parts += [f"warning: {warning}" for warning in result.warnings]
    return f"{result.task.source}: {', '.join(parts)}"


def _document(result: Result) -> dict[str, Json]:
    served: dict[str, Json] = served_document(result.served) if result.served is not None else {"requests": 0}
    return {
        "ok": True,
        "command": "transcribe",
        "source": str(result.task.source),
        "status": result.status.value,
        "outputs": [str(path) for _, path in result.task.targets],
        "written": [str(path) for path in result.written],
        "edited": [str(path) for path in result.edited],
        "duration_s": None if result.duration_s is None else round(result.duration_s, 3),
        **served,
        "warnings": list(result.warnings),
    }


def _counts(totals: Totals) -> str:
    told = [f"{totals.counts[status]} {WORDS[status]}" for status in COUNTED if totals.counts[status]]
    return ", ".join(told) or "none"


def _sum(totals: Totals, left: int, elapsed_s: float, *, failed: int) -> str:
    from ..amounts import usd

    parts = [f"{recordings(totals.files)}: {_counts(totals)}"]
    if failed > totals.counts[Status.FAILED]:
        parts.append(f"{failed - totals.counts[Status.FAILED]} folders unreadable")
    if left:
        parts.append(f"{left} not begun")
    if totals.counts[Status.TRANSCRIBED]:
        parts.append(f"{minutes(totals.audio_s)} of audio")
        unknown = f" and {totals.unknown_costs} of unknown cost" if totals.unknown_costs else ""
        parts.append(f"cost {usd(totals.cost_nanousd)}{unknown}")
    parts.append(f"{elapsed_s:.1f} s")
    return ", ".join(parts)


def progress_text(totals: Totals, pacing: LimiterPool, now_s: float) -> str:
    """Tell how far a batch has come, in one line."""
    from ..amounts import usd

    elapsed_s = max(now_s - totals.started_s, 1e-3)
    parts = [f"{totals.done} of {totals.files} recordings"]
    if totals.counts[Status.FAILED]:
        parts.append(f"{totals.counts[Status.FAILED]} failed")
    pieces = sum(one.pieces or 0 for one in totals.long)
    if pieces:
        parts.append(f"{sum(one.done for one in totals.long)} of {pieces} pieces")
    if totals.audio_s:
        parts.append(f"{minutes(totals.audio_s)} of audio at {totals.audio_s / elapsed_s:.0f} × real time")
    share = totals.done / totals.files if totals.files else 1.0
    if totals.requests and not totals.unknown_costs and share:
        projected = round(totals.cost_nanousd / share)
        parts.append(f"cost {usd(totals.cost_nanousd)} of about {usd(projected)}")
    elif totals.requests:
        parts.append(f"cost {usd(totals.cost_nanousd)} and ?")
    if pacing.is_shut:
        parts.append("waiting for the gateway")
    elif pacing.waiting:
        parts.append(f"{pacing.waiting} in line")
    if share:
        parts.append(f"{elapsed_s / share - elapsed_s:.0f} s left")
    return ", ".join(parts)


def recordings(count: int) -> str:
    return f"{count} recording" if count == 1 else f"{count} recordings"


def minutes(audio_s: float) -> str:
    return f"{audio_s / 60:.1f} min" if audio_s >= 60 else f"{audio_s:.1f} s"
