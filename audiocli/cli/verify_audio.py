"""`audiocli speak --verify-audio`: compare an existing recording with a text. Nothing is synthesized."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..context import AppContext
from ..errors import ExitCode, UsageError
from .options import (
    build_plan_document,
    format_price,
    needs_prices,
    parse_provider_options,
    resolve_budget,
    resolve_tag,
)
from .speech_text import read_source
from .speech_verification import resolve_verification

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..console import Console
    from ..core.run_context import RunContext
    from ..core.speech_verification import SpeechCheck, Verification
    from ..routing import RouteQuery
    from ..types.audio import Recording
    from ..types.json import Json
    from ..types.ledger import Estimate
    from ..types.results import FailedChunk
    from .speak_options import SpeakOptions


def run(app: AppContext, console: Console, options: SpeakOptions, query: RouteQuery, *, read_timeout_s: float) -> int:
    """Transcribe a recording, report where it differs from the text, and return the exit code.

    Raises:
        AudiocliError: An option is invalid, or the recording cannot be read or transcribed.
    """
    from ..core.retry_policy import RetryPolicy
    from ..core.speech_verification import check_recording, list_failures
    from ..routing import resolve_first_route

    _reject_options(options)
    source = read_source(app, console, options)
    if source.reader is not None:
        raise UsageError("--verify-audio needs a complete text", hint="write it to a file and use -F")
    name = str(options.verification.audio)
    if not Path(name).is_file():
        raise UsageError(f"no such file: {name}")
    verification = resolve_verification(
        app,
        console,
        options,
        speech_route=resolve_first_route(query, app.settings.gateways, app.catalog),
        request_options=parse_provider_options(options.request_fields),
        language=source.document.language,
        text=source.text,
        read_timeout_s=read_timeout_s,
    )

    async def check(ctx: RunContext) -> SpeechCheck | None:
        """Return None for a dry run."""
        recording, prices = await _estimate(app, ctx, options, name, verification)
        budget = resolve_budget(app, prices, options.money)
        if options.money.dry_run:
            _print_plan(console, verification, recording, prices, as_json=options.general.as_json)
            return None
        policy = RetryPolicy(retry_unknown=options.money.retry_unknown)
        ctx = ctx._replace(budget=budget, retry_policy=policy, tag=resolve_tag(options.money.tag, app))
        async with console.activity(lambda: f"{verification.routes[0].ref}: listening to {name}"):
            return await check_recording(source.text, recording, verification, ctx)

    result = app.run(check, read_timeout_s=read_timeout_s, info=console.info, debug=console.debug)
    if result is None:
        return ExitCode.OK
    failures = list_failures(source.text, result, verification.threshold)
    _report(console, name, result, failures, verification, as_json=options.general.as_json)
    return ExitCode.PARTIAL if failures else ExitCode.OK


def _reject_options(options: SpeakOptions) -> None:
    """Check that no option for new speech is given. Raises: UsageError."""
    for value, flag in (
        (options.output, "-o"),
        (options.files.output_dir, "-O"),
        (options.captions, "--captions"),
        (options.play, "--play"),
        (options.player, "--player"),
        (options.book.split_chapters, "--split-chapters"),
        (options.book.preview, "--preview"),
        (options.job.background, "--background"),
        (options.verification.retries, "--verify-retries"),
    ):
        if value:
            raise UsageError(f"{flag} cannot be used with --verify-audio, which makes no speech")


async def _estimate(
    app: AppContext, ctx: RunContext, options: SpeakOptions, name: str, verification: Verification
) -> tuple[Recording, Mapping[str, Estimate]]:
    """Measure the recording, and estimate the cost of its transcript by reference of the route."""
    from ..core.catalog import fetch_missing_prices
    from ..core.transcription import estimate, probe_recording
    from ..pricing import FREE
    from ..storage.local import hash_file

    path = Path(name)
    recording = await probe_recording(path, name)
    if verification.has_transcript(await hash_file(path)):
        return recording, {route.ref: FREE for route in verification.routes}
    if needs_prices(app, options.money):
        await fetch_missing_prices(verification.routes, ctx)
    return recording, {route.ref: estimate(recording, route, app.cache) for route in verification.routes}


def _print_plan(
    console: Console, verification: Verification, recording: Recording, prices: Mapping[str, Estimate], *, as_json: bool
) -> None:
    routes = verification.routes
    if as_json:
        units: dict[str, Json] = {"audio": str(recording.path), "duration_s": round(recording.duration_s, 3)}
        console.write_json(build_plan_document("speak", routes, prices, units, []))
        return
    console.write_text(
        f"audio       {recording.duration_s:.1f} s\n"
        f"price       {format_price(prices[routes[0].ref])}\n"
        f"verify      {routes[0].ref}\n"
    )


def _report(
    console: Console,
    name: str,
    result: SpeechCheck,
    failures: tuple[FailedChunk, ...],
    verification: Verification,
    *,
    as_json: bool,
) -> None:
    """Report the result as lines or as JSON."""
    from ..core.result_documents import build_run_document
    from ..core.verdicts import format_time
    from ..costs import format_run_cost, to_usd

    run, rate = result.run, result.comparison.word_error_rate
    if as_json:
        document: dict[str, Json] = {
            "ok": True,
            "command": "speak",
            "audio": name,
            "duration_s": round(result.duration_s, 3),
            "cached": run is None,
            **({} if run is None else build_run_document(run)),
            "verify": {
                "word_error_rate": round(rate, 4),
                "chunks": 1,
                "redone": 0,
                "failed": [
                    {"text": failure.text, "start_s": round(failure.start_s, 3), "problem": failure.problem}
                    for failure in failures
                ],
                "cost_usd": 0.0 if run is None else to_usd(run.cost_nanousd),
            },
            "warnings": [],
        }
        console.write_json(document)
        return
    for failure in failures:
        console.warning(f"{name}, at {format_time(failure.start_s)}: {failure.problem}")
    problems = f"{len(failures)} problem{'s' if len(failures) != 1 else ''}" if failures else "verified"
    cost = "cached" if run is None else format_run_cost(run.cost_nanousd, run.cost_source)
    ref = verification.routes[0].ref if run is None else run.route.ref
    console.result(name, f"{result.duration_s:.2f} s", ref, problems, f"{100 * rate:.1f} % of words differ", cost)
