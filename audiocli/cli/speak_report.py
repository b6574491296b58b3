"""Report `audiocli speak`: the plan of a dry run, and the result as a line or as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..context import AppContext
from .options import build_plan_document, format_price, hint_missing_prices
from .speech_verification import build_verification_document, format_verification

if TYPE_CHECKING:
    from ..console import Console
    from ..core.speech_verification import Verification
    from ..types.json import Json
    from ..types.ledger import Estimate
    from ..types.results import SpeechResult
    from .outputs import AudioDestination
    from .speak import SpeakPlan


def print_plan(
    app: AppContext, console: Console, plan: SpeakPlan, prices: Mapping[str, Estimate], cached_count: int
) -> None:
    """Print the plan of a dry run. Of the chunks, earlier runs have paid for `cached_count`."""
    from .. import gateways
    from ..text.speech_rate import estimate_duration_s
    from .batch_report import format_duration

    request, routes = plan.request, plan.routing.routes
    warnings = (*routes[0].notes, *gateways.load_dialect(routes[0].dialect).get_speech_warnings(request, routes[0]))
    for warning in warnings:
        console.warning(warning)
    chunk_count = max(1, len(plan.speech_text.chunks))
    units: dict[str, Json] = {
        "pieces": chunk_count,
        "kept": cached_count,
        "characters": len(request.text),
        "utf8_bytes": len(request.text.encode("utf-8", "replace")),
        "expected_s": round(estimate_duration_s(request.text, request.speed), 1),
        "format": plan.destination.format,
        "output": plan.destination.name,
        "omitted": {**plan.source.omitted},
        "pronunciations": {**plan.source.replaced},
    }
    if plan.verification is not None:
        units["verify"] = {
            "model": plan.verification.routes[0].ref,
            "retries": plan.verification.max_attempts - 1,
            "threshold_percent": round(100 * plan.verification.threshold, 3),
        }
    chapters = _list_chapters(app, plan)
    if chapters:
        units["chapters"] = [{name: value for name, value in row.items() if name != "price"} for row in chapters]
    document = build_plan_document(
        "speak", routes, prices, units, [*plan.destination.warnings, *warnings], requests=chunk_count - cached_count
    )
    if plan.options.general.as_json:
        console.write_json(document)
        return
    lines = [
        f"requests    {chunk_count - cached_count}"
        + (f" ({cached_count} of {chunk_count} chunks were cached by an earlier run)" if cached_count else ""),
        f"characters  {units['characters']}",
        f"bytes       {units['utf8_bytes']}",
        f"audio       about {units['expected_s']:.0f} s",
        f"price       {format_price(prices[routes[0].ref])}",
        *(f"route       {route.ref}" + (f", voice {route.voice}" if route.voice else "") for route in routes),
        *([f"verify      {_describe_verification(plan.verification)}"] if plan.verification is not None else []),
        *([f"omitted     {format_counts(plan.source.omitted)}"] if plan.source.omitted else []),
        *([f"spoken as   {format_counts(plan.source.replaced)}"] if plan.source.replaced else []),
    ]
    console.write_text("\n".join(lines) + "\n")
    hint_missing_prices(app, console, routes[0], prices[routes[0].ref])
    if chapters:
        console.write_text("\n")
        console.write_table(
            ["chapter", "title", "characters", "audio", "price"],
            [
                [
                    str(chapter["number"]),
                    str(chapter["title"] or ""),
                    str(chapter["characters"]),
                    format_duration(float(str(chapter["expected_s"]))),
                    str(chapter["price"]),
                ]
                for chapter in chapters
            ],
            numeric=[True, False, True, True, True],
        )


def _describe_verification(verification: Verification) -> str:
    retries = verification.max_attempts - 1
    attempts = f"up to {retries} further attempts at each chunk" if retries else "no further attempts"
    return f"{verification.routes[0].ref}, {attempts}"


def _list_chapters(app: AppContext, plan: SpeakPlan) -> list[dict[str, Json]]:
    """Return the chapters of a book with their length and price; an empty list without chapters."""
    from ..core.speech import estimate
    from ..costs import to_usd
    from ..text.speech_rate import estimate_duration_s

    chapters = plan.source.document.chapters
    if len(chapters) < 2:
        return []
    rows: list[dict[str, Json]] = []
    for number, chapter in enumerate(chapters, 1):
        text = plan.source.document._replace(chapters=(chapter,)).text
        price = estimate(text, plan.routing.routes[0], app.cache, speed=plan.request.speed)
        rows.append(
            {
                "number": chapter.number or number,
                "title": chapter.title,
                "characters": len(text),
                "expected_s": round(estimate_duration_s(text, plan.request.speed), 1),
                "price_usd": to_usd(price.nanousd),
                "price": format_price(price),
            }
        )
    return rows


def format_counts(counts: Mapping[str, int]) -> str:
    """Format how often each thing occurs, such as `URL (2), emoji (1)`."""
    return ", ".join(f"{name} ({count})" for name, count in counts.items())


def build_document(result: SpeechResult, plan: SpeakPlan, cached_count: int, warnings: list[str]) -> dict[str, Json]:
    """Return the JSON object of a result."""
    from ..core.result_documents import build_run_document

    destination = plan.destination
    optional: dict[str, Json] = {"kept": cached_count} if plan.speech_text.is_long else {}
    prepared = plan.source.stream or plan.source
    if prepared.omitted:
        optional["omitted"] = {**prepared.omitted}
    if prepared.replaced:
        optional["pronunciations"] = {**prepared.replaced}
    if plan.options.captions_path is not None:
        optional["captions"] = str(plan.options.captions_path)
    if result.verification is not None:
        optional["verify"] = build_verification_document(result.verification)
    return {
        "ok": True,
        "command": "speak",
        "output": destination.name,
        "bytes": result.size_bytes,
        "sha256": result.sha256,
        "format": result.format,
        "duration_s": None if result.duration_s is None else round(result.duration_s, 3),
        **build_run_document(result.run),
        "cached": result.is_cached,
        **optional,
        "warnings": list(warnings),
    }


def list_result_parts(result: SpeechResult, destination: AudioDestination) -> list[str]:
    """Return the parts of the result line."""
    from ..console import format_route, format_size
    from ..costs import format_run_cost

    run = result.run
    name = destination.name or "played"
    return [
        "stdout" if name == "-" else name,
        "" if result.duration_s is None else f"{result.duration_s:.2f} s",
        result.format,
        format_size(result.size_bytes),
        format_route(run.route.ref, run.route.voice),
        "" if result.verification is None else format_verification(result.verification),
        "cached" if result.is_cached else format_run_cost(run.cost_nanousd, run.cost_source),
    ]
