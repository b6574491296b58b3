"""`audiocli speak` with many output files: the rows of a table of texts, or the chapters of a book."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..context import AppContext
from ..core.batch.speech_item import (
    SpeechBatchConfig,
    SpeechBatchContext,
    SpeechItem,
    inspect_item,
    list_remaining_texts,
    must_write,
    name_chunk,
)
from ..errors import UsageError
from ..text.document import Chapter, Document, Paragraph
from .inputs import read_input
from .options import (
    build_plan_document,
    format_price,
    hint_missing_prices,
    needs_prices,
    open_phrase_cache,
    resolve_budget,
    resolve_tag,
)
from .outputs import choose_format, open_manifest, resolve_output_directory
from .speak import build_processing, build_request, build_retry_policy, resolve_routing, validate_speed
from .speech_text import SpeechSource, build_preparation, choose_text_format, read_source, split_source
from .speech_verification import resolve_verification

if TYPE_CHECKING:
    from ..audio.tags import AudioTags
    from ..console import Console
    from ..core.run_context import RunContext
    from ..routing import RoutePlan, RouteQuery
    from ..storage.manifest import Manifest
    from ..text.readers.rows import Row
    from ..text.timing import TimedChunk
    from ..types.json import Json
    from ..types.ledger import Estimate
    from ..types.requests import SpeechRequest
    from ..types.routes import Route
    from .speak_options import SpeakOptions

ROW_TEMPLATE = "{n:04}-{slug}"
CHAPTER_TEMPLATE = "{n:02}-{slug}"
PLAYLIST_NAME = "playlist.m3u8"
# The language of a table is identified by its first rows.
MAX_IDENTIFIED_ITEMS = 100


class Playlist(NamedTuple):
    """The playlist of a book, and the files of all its chapters in order. Those that do not exist are left out."""

    path: Path
    entries: tuple[Path, ...]


class SpeechBatchPlan(NamedTuple):
    """The items of a batch. `noun` is what one is called in messages. `language` is the one that a book states."""

    noun: str
    items: tuple[SpeechItem, ...]
    routing: RoutePlan
    playlist: Playlist | None = None
    language: str | None = None


def run(app: AppContext, console: Console, options: SpeakOptions, query: RouteQuery, *, read_timeout_s: float) -> int:
    """Speak many texts to files, print the plan of a dry run, and return the exit code.

    Raises:
        AudiocliError: The batch cannot start. Failures of single items only change the exit code.
    """
    _reject_options(options)
    directory = resolve_output_directory(options.files.output_dir)
    assert directory is not None
    format, warnings = choose_format(None, options.format or None, app.settings.speech_format or "mp3")
    for warning in warnings:
        console.warning(warning)
    config = SpeechBatchConfig(
        concurrency=options.concurrency if options.book.split_chapters else 1,
        pause_ms=options.pause_ms or 0.0,
        processing=build_processing(options, format, console),
        force=options.files.force,
        resume=options.resume,
        retry_failed=options.files.retry_failed,
    )
    request = build_request(options, format, options.request_fields or ())
    plan = (
        _plan_chapters(app, console, options, query, request, directory, read_timeout_s)
        if options.book.split_chapters
        else _plan_rows(app, console, options, query, request, directory, read_timeout_s)
    )
    if options.verification.verify:
        verification = resolve_verification(
            app,
            console,
            options,
            speech_route=plan.routing.routes[0],
            request_options=request.options,
            language=plan.language,
            text=" ".join(item.request.text for item in plan.items[:MAX_IDENTIFIED_ITEMS]),
            read_timeout_s=read_timeout_s,
        )
        config = config._replace(verification=verification)
    with open_manifest(app, console) as manifest:
        manifest.open()
        return app.run(
            lambda ctx: _run(app, console, ctx, options, plan, config, manifest, query),
            read_timeout_s=read_timeout_s,
            info=console.info,
            debug=console.debug,
        )


def _reject_options(options: SpeakOptions) -> None:
    """Check the options that contradict many output files. Raises: UsageError."""
    if options.files.output_dir is None:
        what = "--split-chapters" if options.book.split_chapters else "a text with rows"
        raise UsageError(f"{what} needs a directory for its files", hint="add -O DIR")
    for value, flag in (
        (options.output, "-o"),
        (options.captions, "--captions"),
        (options.play, "--play"),
        (options.player, "--player"),
        (options.book.preview, "--preview"),
        (options.job.background, "--background"),
        (options.job.wait, "--wait"),
    ):
        if value:
            raise UsageError(f"{flag} cannot be used with -O")
    if options.book.chapters and not options.book.split_chapters:
        raise UsageError("--chapters cannot be used with a text with rows")


# --- items -----------------------------------------------------------------------------------------------------------


def _plan_rows(
    app: AppContext,
    console: Console,
    options: SpeakOptions,
    query: RouteQuery,
    request: SpeechRequest,
    directory: Path,
    read_timeout_s: float,
) -> SpeechBatchPlan:
    """Read the rows of a table and plan a file for each. Raises: UsageError, AudiocliError."""
    from ..text.readers.rows import read_rows

    reader = choose_text_format(options)
    text_input = read_input(app, options.text or [], options.input_file, wait_for_end=True)
    table = read_rows(text_input.content, reader.name, text_input.source, encoding=options.text_options.encoding)
    for warning in table.warnings:
        console.warning(warning)
    if not table.rows:
        raise UsageError(f"{text_input.source} has no rows")
    sources = _prepare_rows(app, console, options, table.rows)
    paragraphs = [Paragraph(row.text, voice=row.voice) for row in table.rows]
    paragraphs += [paragraph for source in sources for paragraph in source.document.paragraphs]
    every_voice = Document((Chapter(None, tuple(paragraphs)),))
    first = request._replace(text=sources[0].text)
    routing = resolve_routing(app, console, query, first, every_voice, read_timeout_s)
    paths = _name_rows(table.rows, directory, request.format, options.files.name_template)
    items = []
    for number, (row, source, path) in enumerate(zip(table.rows, sources, paths, strict=True), 1):
        routes = tuple(route._replace(voice=row.voice or route.voice) for route in routing.routes)
        speech_text = split_source(source, routes, options, console)
        if row.speed is not None:
            validate_speed(row.speed, f"row {number}: speed")
        row_request = request._replace(
            text=speech_text.text,
            instructions=row.instructions or request.instructions,
            speed=request.speed if row.speed is None else row.speed,
        )
        chunks = speech_text.chunks if speech_text.is_long else ()
        items.append(SpeechItem(number, f"row {number}", path, row_request, chunks, routes, routing.skipped))
    return SpeechBatchPlan("row", tuple(items), routing)


def _prepare_rows(app: AppContext, console: Console, options: SpeakOptions, rows: Sequence[Row]) -> list[SpeechSource]:
    """Prepare the texts of rows. Raises: UsageError: A row has no text to speak."""
    from ..text.document import create_plain_document
    from ..text.speech_rate import has_speakable_text

    preparation = build_preparation(app, options)
    sources = []
    warnings: dict[str, None] = {}
    for number, row in enumerate(rows, 1):
        prepared = preparation.prepare(create_plain_document(row.text))
        warnings.update(dict.fromkeys(prepared.warnings))
        source = SpeechSource(prepared.document, "text", preparation)
        if not has_speakable_text(source.text):
            raise UsageError(f"row {number} (line {row.line}) has no text to speak")
        sources.append(source)
    for warning in warnings:
        console.warning(warning)
    return sources


def _name_rows(rows: Sequence[Row], directory: Path, format: str, template: str | None) -> list[Path]:
    """Return the path of each row: its name, or that of the template. Raises: UsageError: Two have the same path."""
    from ..text.slug import render_name, slugify

    paths = []
    for number, row in enumerate(rows, 1):
        fields: dict[str, str | int] = {
            "n": number,
            "line": row.line,
            "name": row.name or "",
            "voice": row.voice or "",
            "slug": slugify(row.name or row.text),
        }
        row_template = template or ("{name}" if row.name else ROW_TEMPLATE)
        paths.append(directory / render_name(row_template, fields, extension=format))
    _reject_duplicates(paths, "rows")
    return paths


def _plan_chapters(
    app: AppContext,
    console: Console,
    options: SpeakOptions,
    query: RouteQuery,
    request: SpeechRequest,
    directory: Path,
    read_timeout_s: float,
) -> SpeechBatchPlan:
    """Read a book and plan a file for each chapter. Raises: UsageError, AudiocliError."""
    from ..core.book_tags import build_chapter_tags, name_chapter
    from ..text.slug import render_name, slugify
    from ..text.speech_rate import has_speakable_text

    source = read_source(app, console, options)
    if source.reader is not None:
        raise UsageError(
            "--split-chapters cannot be used with a pipe that is still open", hint="write it to a file and use -F"
        )
    document = source.document
    request = request._replace(text=source.text)
    routing = resolve_routing(app, console, query, request, document, read_timeout_s)

    def name_file(number: int, title: str | None) -> Path:
        title = name_chapter(title, number)
        fields: dict[str, str | int] = {"n": number, "title": title, "slug": slugify(title)}
        template = options.files.name_template or CHAPTER_TEMPLATE
        return directory / render_name(template, fields, extension=request.format)

    items = []
    for chapter in document.chapters:
        part = source._replace(document=document._replace(chapters=(chapter,)))
        if not has_speakable_text(part.text):
            continue
        number = chapter.number or 1
        speech_text = split_source(part, routing.routes, options, console)
        items.append(
            SpeechItem(
                number=number,
                label=f"chapter {number}: {name_chapter(chapter.title, number)}",
                path=name_file(number, chapter.title),
                request=request._replace(text=speech_text.text),
                chunks=speech_text.chunks if speech_text.is_long else (),
                routes=routing.routes,
                skipped=routing.skipped,
                build_tags=partial(_return_tags, build_chapter_tags(document, chapter, number)),
            )
        )
    paths = [name_file(number, title) for number, title in enumerate(source.titles, 1)]
    _reject_duplicates(paths, "chapters")
    playlist = Playlist(directory / PLAYLIST_NAME, tuple(paths))
    return SpeechBatchPlan("chapter", tuple(items), routing, playlist, document.language)


def _return_tags(tags: AudioTags, timed_chunks: Sequence[TimedChunk]) -> AudioTags:
    """Return the tags of one chapter, which do not depend on the positions of its chunks."""
    return tags


def _reject_duplicates(paths: Sequence[Path], noun: str) -> None:
    """Check that no two items have the same file. Raises: UsageError."""
    numbers_by_key: dict[str, int] = {}
    for number, path in enumerate(paths, 1):
        # Some file systems ignore case.
        first = numbers_by_key.setdefault(path.name.casefold(), number)
        if first != number:
            raise UsageError(
                f"{noun} {first} and {number} would both be written to {path.name}",
                hint="give them different names, or use --name '{n:04}-{slug}'",
            )


# --- the batch -------------------------------------------------------------------------------------------------------


async def _run(
    app: AppContext,
    console: Console,
    ctx: RunContext,
    options: SpeakOptions,
    plan: SpeechBatchPlan,
    config: SpeechBatchConfig,
    manifest: Manifest,
    query: RouteQuery,
) -> int:
    from ..core.catalog import fetch_missing_prices
    from ..storage.local import LocalStorage
    from ..storage.paid_results import PaidResultStore
    from .speak_batch_run import process_items

    chunk_store = PaidResultStore(app.scratch_directory("speech"), ".wav")
    chunk_store.remove_expired()
    storage = LocalStorage(app.scratch_directory("kept"))
    try:
        batch = SpeechBatchContext(
            storage=storage,
            state=manifest,
            chunks=chunk_store,
            phrases=open_phrase_cache(app, console, options.cache),
            scratch_directory=app.scratch_directory("uploads"),
            locks=defaultdict(asyncio.Lock),
        )
        pending = [item for item in plan.items if must_write(inspect_item(item, config, batch), config)]
        if needs_prices(app, options.money):
            listeners = () if config.verification is None else config.verification.routes
            await fetch_missing_prices((*plan.routing.routes, *listeners), ctx)
        remaining = [(item, texts) for item in pending if (texts := list_remaining_texts(item, config, batch))]
        prices = _estimate(app, remaining, plan)
        if config.verification is not None:
            prices = _estimate_verified(app, pending, plan, config, batch)
        budget = resolve_budget(app, prices, options.money)
        if options.money.dry_run:
            _print_plan(console, plan, len(pending), remaining, prices, as_json=options.general.as_json)
            route = plan.routing.routes[0]
            hint_missing_prices(app, console, route, prices[route.ref])
            return 0
        ctx = ctx._replace(
            budget=budget, retry_policy=build_retry_policy(options, query), tag=resolve_tag(options.money.tag, app)
        )
        return await process_items(app, console, ctx, options, plan, config, batch)
    finally:
        storage.close()


def _estimate(
    app: AppContext, remaining: Sequence[tuple[SpeechItem, Sequence[str]]], plan: SpeechBatchPlan
) -> dict[str, Estimate]:
    """Estimate the cost of what will be sent, by reference of the route."""
    from ..core.speech import estimate
    from ..pricing import FREE, sum_estimates

    prices = {}
    for index, route in enumerate(plan.routing.routes):
        estimates = [
            estimate("".join(texts), item.routes[index], app.cache, speed=item.request.speed)
            for item, texts in remaining
        ]
        prices[route.ref] = sum_estimates(estimates) if estimates else FREE
    return prices


def _estimate_verified(
    app: AppContext,
    pending: Sequence[SpeechItem],
    plan: SpeechBatchPlan,
    config: SpeechBatchConfig,
    batch: SpeechBatchContext,
) -> dict[str, Estimate]:
    """Estimate the cost of the items with their verification and all further attempts, by reference of the route."""
    from ..core.speech import estimate
    from ..core.speech_verification import estimate_chunks
    from ..pricing import FREE, sum_estimates

    assert config.verification is not None
    prices = {}
    for index, route in enumerate(plan.routing.routes):
        estimates = []
        for item in pending:
            chunks = [(chunk, name_chunk(item, chunk, item.routes[index])) for chunk in item.chunks]
            speech = [
                estimate(chunk.text, item.routes[index], app.cache, speed=item.request.speed) for chunk, _ in chunks
            ]
            estimates.append(
                estimate_chunks(
                    chunks, config.verification, batch.phrases, batch.chunks, speech, app.cache, resume=config.resume
                )
            )
        prices[route.ref] = sum_estimates(estimates) if estimates else FREE
    return prices


def _print_plan(
    console: Console,
    plan: SpeechBatchPlan,
    pending_count: int,
    remaining: Sequence[tuple[SpeechItem, Sequence[str]]],
    prices: dict[str, Estimate],
    *,
    as_json: bool,
) -> None:
    """Print the plan of a dry run. `remaining` has the items that need requests, and their texts."""
    from ..text.speech_rate import estimate_duration_s

    routes: tuple[Route, ...] = plan.routing.routes
    requests = sum(len(texts) for _, texts in remaining)
    expected_s = sum(estimate_duration_s("".join(texts), item.request.speed) for item, texts in remaining)
    characters = sum(len(text) for _, texts in remaining for text in texts)
    if as_json:
        units: dict[str, Json] = {
            "files": len(plan.items),
            "to_send": len(remaining),
            "characters": characters,
            "expected_s": round(expected_s, 1),
            "outputs": [str(item.path) for item in plan.items],
        }
        console.write_json(build_plan_document("speak", routes, prices, units, [], requests=requests))
        return
    price = format_price(prices[routes[0].ref])
    console.write_text(
        f"{plan.noun}s{' ' * (10 - len(plan.noun))} {len(plan.items)} ({len(plan.items) - pending_count} up to date)\n"
        f"requests    {requests}\n"
        f"characters  {characters}\n"
        f"audio       about {expected_s:.0f} s\n"
        f"price       {price}\n" + "".join(f"route       {route.ref}\n" for route in routes)
    )
