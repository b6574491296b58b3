"""The options of `audiocli speak`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from .options import (
    Bell,
    GatewayOptions,
    GeneralOptions,
    JobOptions,
    Models,
    MoneyOptions,
    Output,
    Player,
    RequestFields,
)


class TextOptions(NamedTuple):
    """How the text is read and prepared."""

    from_format: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FORMAT",
            help="Format of the text: text markdown html html-page epub docx odt srt vtt ssml, or of many texts: "
            "jsonl csv lines.",
        ),
    ] = None
    encoding: Annotated[
        str | None, typer.Option("--encoding", metavar="NAME", help="Encoding of the text, such as cp1252.")
    ] = None
    markdown: Annotated[bool, typer.Option("--markdown", help="Same as --from markdown.")] = False
    raw: Annotated[bool, typer.Option("--raw", help="Send the text as it is, without any cleaning.")] = False
    clean: Annotated[
        str | None,
        typer.Option("--clean", metavar="LIST", help="Also clean urls, emoji, boxes, think or wrap; comma-separated."),
    ] = None
    pronunciations: Annotated[
        str | None,
        typer.Option("--pronunciations", metavar="FILE", help="Words and how they are spoken, in TOML or CSV."),
    ] = None
    voices_for: Annotated[
        list[str] | None,
        typer.Option("--voice-for", metavar="NAME=VOICE", help="Voice for a speaker in a script; repeatable."),
    ] = None


class FileOptions(NamedTuple):
    """Output files of many texts, or of the chapters of a book."""

    output_dir: Annotated[
        str | None,
        typer.Option("--output-dir", "-O", metavar="DIR", help="Directory for the files of rows or chapters."),
    ] = None
    name_template: Annotated[
        str | None,
        typer.Option("--name", metavar="TEMPLATE", help="Names in the directory, such as '{n:04}-{slug}'."),
    ] = None
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite outputs that were edited or not written by audiocli.")
    ] = False
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Retry rows that failed before; they may be billed twice.")
    ] = False
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first row that fails.")] = False


class BookOptions(NamedTuple):
    """Which chapters are spoken."""

    chapters: Annotated[
        str | None, typer.Option("--chapters", metavar="LIST", help="Only these chapters, such as 1,3-5.")
    ] = None
    split_chapters: Annotated[
        bool, typer.Option("--split-chapters", help="Write a file for each chapter and a playlist into -O DIR.")
    ] = False
    preview: Annotated[bool, typer.Option("--preview", help="Speak only about the first 30 seconds.")] = False


class ProcessingOptions(NamedTuple):
    """Processing of the audio on this computer."""

    sample_rate_hz: Annotated[
        int | None, typer.Option("--sample-rate", metavar="HZ", help="Sample rate of the output in Hz, 8000 to 192000.")
    ] = None
    loudness_lufs: Annotated[
        float | None, typer.Option("--loudness", metavar="LUFS", help="Loudness of the output (EBU R128), such as -16.")
    ] = None
    tempo: Annotated[
        float | None,
        typer.Option("--tempo", metavar="N", help="Change the tempo of the audio, 0.25 to 4; keeps the pitch."),
    ] = None


class VerificationOptions(NamedTuple):
    """Whether and how the speech is checked by listening back."""

    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Transcribe the speech and redo chunks that are wrong; a pipe or player gets sound later."
        ),
    ] = False
    model: Annotated[
        str | None,
        typer.Option(
            "--verify-model",
            metavar="REF",
            help="Model that listens to the speech.",
        ),
    ] = None
    threshold_percent: Annotated[
        float | None,
        typer.Option("--verify-threshold", metavar="PERCENT", help="Word error rate above which a chunk is wrong."),
    ] = None
    retries: Annotated[
        int | None,
        typer.Option("--verify-retries", metavar="N", help="Further attempts at a wrong chunk."),
    ] = None
    audio: Annotated[
        str | None,
        typer.Option("--verify-audio", metavar="PATH", help="Check an existing recording of the text instead."),
    ] = None


class SpeakOptions(NamedTuple):
    """Options of `audiocli speak`."""

    text: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Text to speak; - reads from stdin.")
    ] = None
    input_file: Annotated[
        str | None, typer.Option("--input-file", "-F", metavar="PATH", help="Read the text from this file; - is stdin.")
    ] = None
    text_options: TextOptions = TextOptions()
    output: Output = None
    files: FileOptions = FileOptions()
    format: Annotated[
        str | None,
        typer.Option(
            "--format", "-f", metavar="NAME", help="Output format: mp3 wav flac opus ogg aac m4a m4b pcm ulaw alaw."
        ),
    ] = None
    models: Models = None
    voice: Annotated[
        str | None,
        typer.Option(
            "--voice", "-v", metavar="NAME", help="Voice to use; id:ID is a custom voice, '?' lists the voices."
        ),
    ] = None
    speed: Annotated[float | None, typer.Option("--speed", "-x", metavar="N", help="Speaking rate, 0.25 to 4.")] = None
    instructions: Annotated[
        str | None,
        typer.Option("--instructions", "-i", metavar="TEXT", help="Instructions on tone and style for the model."),
    ] = None
    request_fields: RequestFields = None
    references: Annotated[
        list[str] | None,
        typer.Option(
            "--reference",
            metavar="PATH[=TRANSCRIPT]",
            help="Recording of the voice to imitate, and its transcript; repeatable up to three times (OpenRouter).",
        ),
    ] = None
    captions: Annotated[
        str | None, typer.Option("--captions", metavar="PATH", help="Also write captions to this .srt or .vtt file.")
    ] = None
    caption_words: Annotated[
        bool,
        typer.Option("--caption-words", help="With --captions and --verify, captions of a few words each."),
    ] = False
    verification: VerificationOptions = VerificationOptions()
    book: BookOptions = BookOptions()
    max_characters: Annotated[
        int | None, typer.Option("--max-chars", metavar="N", help="Maximum chunk length of a long text in characters.")
    ] = None
    pause_ms: Annotated[
        float | None, typer.Option("--pause", metavar="MS", help="Silence between paragraphs in milliseconds.")
    ] = None
    concurrency: Annotated[int, typer.Option("--jobs", "-j", metavar="N", help="Maximum requests in flight.")] = 4
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--no-resume", help="Use or ignore speech stored by earlier runs, also by unfinished ones."
        ),
    ] = True
    cache: Annotated[
        bool | None,
        typer.Option(
            "--cache/--no-cache",
            help="Use the phrase cache. Without it, only unfinished runs are resumed, and no speech stays stored.",
        ),
    ] = None
    processing: ProcessingOptions = ProcessingOptions()
    play: Annotated[bool | None, typer.Option("--play/--no-play", help="Play the audio, or never play it.")] = None
    player: Player = None
    bell: Bell = False
    job: JobOptions = JobOptions()
    gateway: GatewayOptions = GatewayOptions()
    money: MoneyOptions = MoneyOptions()
    general: GeneralOptions = GeneralOptions()

    @property
    def input_path(self) -> Path | None:
        """The file of `-F`; None if the text comes from the arguments or stdin."""
        return None if self.input_file in (None, "-") else Path(str(self.input_file))

    @property
    def captions_path(self) -> Path | None:
        return None if self.captions is None else Path(self.captions)
