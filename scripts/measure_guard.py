"""Measure how often `text.guard` is right, with generated transcripts and recordings.

`python -m scripts.measure_guard` prints the table and writes it to docs/topics/guard.md. The recordings are made with
the local engines (extras `local` and `local-models`), music and noise with the standard library. Randomness is seeded.
"""

from __future__ import annotations

import array
import asyncio
import math
import random
import re
import subprocess
import sys
import tempfile
import wave
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from audiocli.core.recording_evidence import add_evidence
from audiocli.text.guard import Evidence, find_suspicions
from audiocli.types.audio import Recording
from audiocli.types.ledger import CostSource
from audiocli.types.results import RunResult, TranscriptionResult
from audiocli.types.routes import Route
from audiocli.types.transcripts import Segment, Transcript

CHECKOUT = Path(__file__).parent.parent
PAGE = CHECKOUT / "docs" / "topics" / "guard.md"
TABLE = re.compile(r"(<!-- table: python -m scripts\.measure_guard -->\n).*?(<!-- end of table -->)", re.DOTALL)
SEED = 20261127
RATE_HZ = 24_000

# (voice, language, sentences, what is said at the end)
VOICES = (
    ("local:piper", "en_US-joe-medium", "en", "Thanks for watching!"),
    ("local:espeak", "en-us", "en", "Thank you for watching."),
    ("local:espeak", "en-gb", "en", "See you in the next video."),
    ("local:espeak", "de", "de", "Vielen Dank fürs Zuschauen."),
    ("local:espeak", "fr-fr", "fr", "Merci d'avoir regardé cette vidéo."),
    ("local:espeak", "es", "es", "Gracias por ver el video."),
    ("local:espeak", "it", "it", "Grazie a tutti."),
    ("local:espeak", "ru", "ru", "Спасибо за просмотр."),
)
SENTENCES = {
    "en": ("The meeting begins at nine in the morning.", "We have to talk about the budget for next year."),
    "de": ("Die Besprechung beginnt um neun Uhr.", "Wir müssen über den Haushalt des nächsten Jahres reden."),
    "fr": ("La réunion commence à neuf heures du matin.", "Nous devons parler du budget de l'année prochaine."),
    "es": ("La reunión empieza a las nueve de la mañana.", "Tenemos que hablar del presupuesto del próximo año."),
    "it": ("La riunione comincia alle nove del mattino.", "Dobbiamo parlare del bilancio dell'anno prossimo."),
    "ru": ("Собрание начинается в девять часов утра.", "Нам нужно поговорить о бюджете на следующий год."),
}
INVENTED = ("Thank you.", "you", "Okay, so let us begin with the next part of this.", "Bye.", "I am going to go now.")
CREDITS = (
    "Untertitel im Auftrag des ZDF für funk, 2017",
    "Untertitelung des ZDF, 2020",
    "Sous-titres réalisés para la communauté d'Amara.org",
    "Subtítulos realizados por la comunidad de Amara.org",
    "Sottotitoli creati dalla comunità Amara.org",
    "Subtitles by the Amara.org community",
    "Субтитры сделал DimaTorzok",
    "字幕by索兰娅",
    "Napisy stworzone przez społeczność Amara.org",
    "Legendas pela comunidade Amara.org",
)
LOOPS = (
    "you",
    "I know.",
    "Thank you.",
    "I'm going to go to the store.",
    "and then we have to do it again,",
    "Ich weiß nicht, was ich sagen soll.",
    "是的",
    "ありがとうございました",
    "и так далее",
    "So the first thing that we want to look at is the number of people who came to the event, and",
)
# Repetitions that people say.
REPEATED = (
    ("no", (2, 7)),
    ("Come on!", (2, 5)),
    ("very", (2, 6)),
    ("la", (3, 8)),
    ("I have a dream.", (2, 4)),
    ("Location,", (2, 4)),
    ("哈", (2, 8)),
    ("We shall fight on the beaches,", (1, 3)),
    ("one two three four", (1, 4)),
)
CHORUS = "Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is but a dream. "
# Names and words that sound like credits or closing phrases within other sentences.
NEAR_PHRASES = (
    "This film has subtitles by default.",
    "I use Amara.org for my captions every week.",
    "She said thank you and left the room.",
    "The ZDF broadcast it last night.",
    "So, you want to know who paid for it?",
    "Thanks for watching the dog while I was away.",
    "Please subscribe to the newsletter if you want the numbers.",
    "The captions by the window are faded.",
    "We will see you next time we are in town, I hope.",
    "The translation was done by a community of volunteers.",
)


class Row(NamedTuple):
    """How many of some cases were reported, and whether they should be."""

    kind: str
    cases: str
    should_report: bool
    reported: int
    count: int


def read_prose() -> list[str]:
    """Return paragraphs of the documentation, which repeat many terms."""
    paragraphs = []
    for path in sorted((CHECKOUT / "docs").rglob("*.md")):
        if path != PAGE:
            for block in re.split(r"\n\s*\n", path.read_text("utf-8")):
                if len(block) > 200 and not block.lstrip().startswith(("|", "```", "#", "<", "-", "{")):
                    paragraphs.append(" ".join(block.split()))
    return paragraphs


def build_transcript(texts: Sequence[str]) -> Transcript:
    """Return a transcript with a segment for each text, spoken with fifteen letters per second."""
    segments = []
    position_s = 0.0
    for text in texts:
        end_s = position_s + len(text) / 15
        segments.append(Segment(position_s, end_s, text))
        position_s = end_s + 0.2
    return Transcript("", segments=tuple(segments), duration_s=position_s)


def is_reported(transcript: Transcript, kind: str, evidence: Evidence | None = None) -> bool:
    found = find_suspicions(transcript, evidence or Evidence())
    return any(suspicion.kind == kind for suspicion in found)


# --- texts -----------------------------------------------------------------------------------------------------------


def measure_texts(rng: random.Random) -> Iterator[Row]:
    prose = read_prose()

    def surround(text: str) -> Transcript:
        return build_transcript([rng.choice(prose), text, rng.choice(prose)])

    def count(kind: str, texts: Sequence[str]) -> tuple[int, int]:
        return sum(is_reported(surround(text), kind) for text in texts), len(texts)

    loops = [" ".join([text] * rng.randint(8 if len(text) > 8 else 12, 40)) for text in LOOPS for _ in range(20)]
    yield Row("loop", "a word, phrase or sentence 8 to 40 times, in 6 languages", True, *count("loop", loops))
    drifting = [
        " ".join(f"{text} {rng.choice(('yes', 'and', 'so')) if index % 7 == 6 else ''}".strip() for index in range(40))
        for text in LOOPS[1:6]
        for _ in range(20)
    ]
    yield Row("loop", "a phrase 40 times, with another word in between now and then", True, *count("loop", drifting))
    said = [" ".join([text] * rng.randint(*bounds)) for text, bounds in REPEATED for _ in range(20)]
    yield Row("loop", "words that people repeat, 2 to 8 times", False, *count("loop", said))
    songs = [" ".join([CHORUS, rng.choice(prose)[:200], CHORUS, CHORUS]) for _ in range(50)]
    yield Row("loop", "a chorus that is sung three times", False, *count("loop", songs))
    yield Row("loop", f"{len(prose)} paragraphs of documentation", False, *count("loop", prose))
    numbers = [" ".join(str(rng.randint(0, 9)) for _ in range(rng.randint(10, 60))) for _ in range(50)]
    yield Row("loop", "dictated numbers", False, *count("loop", numbers))
    yield Row("phrase", "credits of captions within a transcript", True, *count("phrase", CREDITS))
    yield Row("phrase", "sentences with similar words", False, *count("phrase", NEAR_PHRASES))
    yield Row("phrase", f"{len(prose)} paragraphs of documentation", False, *count("phrase", prose))


# --- recordings ------------------------------------------------------------------------------------------------------


def speak(text: str, model: str, voice: str, directory: Path) -> array.array[int]:
    """Return the samples of a spoken text."""
    path = directory / "speech.wav"
    command = [sys.executable, "-m", "audiocli", "speak", "-q", "-m", model, "-v", voice, "-o", str(path)]
    subprocess.run([*command, "--sample-rate", str(RATE_HZ), "--no-cache", "--", text], check=True, cwd=CHECKOUT)
    with wave.open(str(path), "rb") as recording:
        return array.array("h", recording.readframes(recording.getnframes()))


def make_silence(rng: random.Random, seconds: float) -> array.array[int]:
    return array.array("h", bytes(2 * int(seconds * RATE_HZ)))


def make_quiet_noise(rng: random.Random, seconds: float) -> array.array[int]:
    """Return the noise of faint noise, -62 dBFS."""
    return array.array("h", [int(rng.gauss(0, 18)) for _ in range(int(seconds * RATE_HZ))])


def make_noise(rng: random.Random, seconds: float) -> array.array[int]:
    return array.array("h", [int(rng.gauss(0, 1500)) for _ in range(int(seconds * RATE_HZ))])


def make_music(rng: random.Random, seconds: float) -> array.array[int]:
    """Return notes of a plucked instrument with harmonics over a slow chord."""
    samples = [0.0] * int(seconds * RATE_HZ)
    position = 0
    scale = [220.0 * 2 ** (step / 12) for step in (0, 2, 4, 5, 7, 9, 11, 12)]
    while position < len(samples):
        length, pitch_hz = int(rng.choice((0.25, 0.25, 0.5)) * RATE_HZ), rng.choice(scale)
        for index in range(min(length * 2, len(samples) - position)):
            decay = math.exp(-3 * index / RATE_HZ)
            phase = 2 * math.pi * pitch_hz * index / RATE_HZ
            samples[position + index] += decay * (
                math.sin(phase) + 0.5 * math.sin(2 * phase) + 0.25 * math.sin(3 * phase)
            )
        position += length
    chord = [110.0, 138.6, 164.8]
    for index in range(len(samples)):
        samples[index] += 0.3 * sum(math.sin(2 * math.pi * pitch_hz * index / RATE_HZ) for pitch_hz in chord)
    return array.array("h", [max(min(int(3000 * value), 32_767), -32_768) for value in samples])


def add_noise(rng: random.Random, samples: array.array[int], level: float) -> array.array[int]:
    return array.array("h", [max(min(int(value + rng.gauss(0, level)), 32_767), -32_768) for value in samples])


class Timed(NamedTuple):
    """A sentence and where it is. `is_invented`: it is not spoken."""

    text: str
    start_s: float
    end_s: float


def report_kinds(samples: array.array[int], sentences: Sequence[Timed], directory: Path) -> list[set[str]]:
    """Return the kinds that are reported for each sentence, as `transcribe` does."""
    path = directory / "recording.wav"
    with wave.open(str(path), "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(RATE_HZ)
        recording.writeframes(samples.tobytes())
    duration_s = len(samples) / RATE_HZ
    transcript = Transcript(
        " ".join(item.text for item in sentences),
        duration_s=duration_s,
        segments=tuple(Segment(item.start_s, item.end_s, item.text) for item in sentences),
    )
    run = RunResult(Route("local", "local", "local:", "x"), "x", 1, 1, None, CostSource.UNKNOWN)
    result = TranscriptionResult(run, transcript, b"")
    measured = asyncio.run(add_evidence(result, Recording(path, "wav", path.stat().st_size, duration_s)))
    found = find_suspicions(transcript, Evidence(measured.silences_s, measured.speechless_s))
    return [{suspicion.kind for suspicion in found if suspicion.text in item.text} for item in sentences]


def measure_recordings(rng: random.Random, directory: Path) -> Iterator[Row]:
    spoken = {}
    for model, voice, language, closing in VOICES:
        for text in (*SENTENCES[language], closing):
            spoken[voice, text] = speak(text, model, voice, directory)
    fillers: dict[str, Callable[[random.Random, float], array.array[int]]] = {
        "digital silence": make_silence,
        "faint noise (-62 dBFS)": make_quiet_noise,
        "music": make_music,
        "loud noise": make_noise,
    }
    invented: dict[tuple[str, str], list[bool]] = {}
    false_silence: list[bool] = []
    for _, voice, language, closing in VOICES:
        first, second = SENTENCES[language]
        for name, make in fillers.items():
            for text in (closing, *rng.sample(INVENTED, 2)):
                before, after = spoken[voice, first], spoken[voice, second]
                gap_s = rng.uniform(5, 20)
                samples = before + make(rng, gap_s) + after
                begin_s = len(before) / RATE_HZ
                # Models give the times of what they invent as the whole gap or as a part of it.
                start_s = begin_s + rng.uniform(0, gap_s / 3)
                end_s = min(start_s + rng.uniform(1, gap_s), begin_s + gap_s)
                # Segments of models are up to 0.3 s too early or too late, and often extend to the next one.
                shift_s = rng.uniform(-0.3, 0.3)
                timed = [
                    Timed(first, max(shift_s, 0.0), rng.choice((begin_s, start_s))),
                    Timed(text, start_s, end_s),
                    Timed(second, begin_s + gap_s + shift_s, len(samples) / RATE_HZ),
                ]
                kinds = report_kinds(samples, timed, directory)
                kind = "phrase" if text == closing else "text"
                invented.setdefault((kind, name), []).append(bool(kinds[1] & {"silence", "phrase"}))
                false_silence += [bool(kinds[0]), bool(kinds[2])]
    for name in list(fillers)[:2]:
        yield Row(
            "silence", f"invented text over {name}", True, sum(invented["text", name]), len(invented["text", name])
        )
    yield Row(
        "silence",
        "spoken sentences beside silence, times wrong by up to 0.3 s",
        False,
        sum(false_silence),
        len(false_silence),
    )
    for name in fillers:
        cases = invented["phrase", name]
        yield Row("phrase", f"invented closing phrase over {name}", True, sum(cases), len(cases))
    for label, change in (
        ("spoken closing phrase after a pause", lambda samples: samples),
        ("the same with noise (20 dB below the speech)", lambda samples: add_noise(rng, samples, 250)),
        ("the same, 20 dB quieter", lambda samples: array.array("h", [value // 10 for value in samples])),
    ):
        reported = []
        for _, voice, language, closing in VOICES:
            for pause_s in (0.5, 1.0, 2.0, 4.0):
                first, last = spoken[voice, SENTENCES[language][0]], spoken[voice, closing]
                samples = change(first + make_silence(rng, pause_s) + last + make_silence(rng, 1.0))
                start_s = len(first) / RATE_HZ + pause_s
                shift_s = rng.uniform(-0.3, 0.3)
                timed = [
                    Timed(SENTENCES[language][0], 0.0, len(first) / RATE_HZ),
                    Timed(closing, start_s + shift_s, start_s + len(last) / RATE_HZ + shift_s),
                ]
                reported.append(bool(report_kinds(samples, timed, directory)[1]))
        yield Row("phrase", label, False, sum(reported), len(reported))


def render_table(rows: Sequence[Row]) -> str:
    lines = ["| kind | cases | reported | |", "|---|---|---|---|"]
    for row in rows:
        verdict = "hits" if row.should_report else "false alarms"
        lines.append(f"| {row.kind} | {row.cases} | {row.reported} of {row.count} | {verdict} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    rng = random.Random(SEED)
    with tempfile.TemporaryDirectory() as directory:
        rows = [*measure_texts(rng), *measure_recordings(rng, Path(directory))]
    rows.sort(key=lambda row: (("loop", "silence", "phrase").index(row.kind), not row.should_report))
    table = render_table(rows)
    sys.stdout.write(table)
    if PAGE.exists():
        PAGE.write_text(
            TABLE.sub(lambda match: match[1] + "\n" + table + "\n" + match[2], PAGE.read_text("utf-8")), "utf-8"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
