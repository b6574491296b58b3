"""Measure what `speak --verify` finds: speak correct and spoilt texts with local voices, and listen with Whisper.

    python -m scripts.measure_verify [--set NAME]... [--clean N] [--spoilt N] [--seed N] [--work DIR]

Nothing is sent to a gateway. Prints the tables of docs/verify.md. A set takes one to ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import wave
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from audiocli.text.verification import Comparison, compare
from audiocli.types.transcripts import Transcript

THRESHOLDS_PERCENT = (15, 25, 35)
# Share of the audio that is left of truncated speech.
MIN_TRUNCATED, MAX_TRUNCATED = 0.55, 0.92
KINDS = ("clean", "dropped", "doubled", "swapped", "truncated")

SENTENCES = {
    "en": """The committee met on Monday morning in the old library.
Everyone expected a long discussion about the yearly budget.
Dr. Smith ordered 18 new chairs for the reading room.
The train to Edinburgh leaves at 10:30 from platform 4.
She paid $25 for two tickets and a cup of coffee.
A heavy storm closed the road between the two villages.
The museum opened in 1999 and has 120 rooms today.
Please send the signed papers back before the end of May.
His brother plays the violin in a small orchestra.
About 15 % of the houses still have no connection.
The children found a green bottle near the harbor.
We repaired the roof, i.e. the part above the kitchen.
The doctor told him to sleep more and to drink less.
Every winter the lake freezes for at least three weeks.
The new bridge carries more than 4,000 cars each day.
My neighbor grows tomatoes, beans and strange yellow flowers.""",
    "de": """Der Ausschuss traf sich am Montag in der alten Bibliothek.
Niemand erwartete eine lange Diskussion über den Haushalt.
Dr. Schmidt bestellte 18 neue Stühle für den Lesesaal.
Der Zug nach Hamburg fährt um 10:30 Uhr von Gleis 4.
Sie bezahlte 25 Euro für zwei Karten und einen Kaffee.
Ein schwerer Sturm sperrte die Straße zwischen den Dörfern.
Das Museum wurde 1999 eröffnet und hat heute 120 Räume.
Bitte schicken Sie die Unterlagen vor Ende Mai zurück.
Sein Bruder spielt Geige in einem kleinen Orchester.
Etwa 15 % der Häuser haben noch keinen Anschluss.
Die Kinder fanden eine grüne Flasche am Hafen.
Wir haben das Dach repariert, d. h. den Teil über der Küche.
Der Arzt sagte ihm, er solle mehr schlafen und weniger trinken.
Jeden Winter friert der See für mindestens drei Wochen zu.
Die neue Brücke trägt jeden Tag mehr als 4.000 Autos.
Mein Nachbar züchtet Tomaten, Bohnen und seltsame gelbe Blumen.""",
    "fr": """Le comité s'est réuni lundi matin dans la vieille bibliothèque.
Personne n'attendait une longue discussion sur le budget.
M. Dupont a commandé 18 nouvelles chaises pour la salle de lecture.
Le train pour Marseille part à 10 heures du quai numéro 4.
Elle a payé 25 euros pour deux billets et un café.
Une forte tempête a fermé la route entre les deux villages.
Le musée a ouvert en 1999 et compte aujourd'hui 120 salles.
Veuillez renvoyer les papiers signés avant la fin du mois de mai.
Son frère joue du violon dans un petit orchestre.
Environ 15 % des maisons n'ont pas encore de connexion.
Les enfants ont trouvé une bouteille verte près du port.
Nous avons réparé le toit au-dessus de la cuisine.
Le médecin lui a dit de dormir plus et de boire moins.
Chaque hiver le lac gèle pendant au moins trois semaines.
Le nouveau pont porte chaque jour plus de 4 000 voitures.
Mon voisin cultive des tomates, des haricots et des fleurs jaunes.""",
    "es": """El comité se reunió el lunes por la mañana en la vieja biblioteca.
Nadie esperaba una larga discusión sobre el presupuesto.
El Sr. García pidió 18 sillas nuevas para la sala de lectura.
El tren a Sevilla sale a las 10 de la vía número 4.
Ella pagó 25 euros por dos entradas y un café.
Una fuerte tormenta cerró la carretera entre los dos pueblos.
El museo abrió en 1999 y hoy tiene 120 salas.
Por favor devuelva los papeles firmados antes de finales de mayo.
Su hermano toca el violín en una pequeña orquesta.
Cerca del 15 % de las casas aún no tienen conexión.
Los niños encontraron una botella verde cerca del puerto.
Reparamos el tejado que está encima de la cocina.
El médico le dijo que durmiera más y bebiera menos.
Cada invierno el lago se congela durante al menos tres semanas.
El puente nuevo soporta cada día más de 4.000 coches.
Mi vecino cultiva tomates, judías y extrañas flores amarillas.""",
}


class Setup(NamedTuple):
    """A language with a voice, a model that listens, and the number of sentences in a chunk."""

    language: str
    model: str
    voice: str
    listener: str
    sentence_count: int


SETS = {
    "en-short": Setup("en", "local:piper", "en_US-joe-medium", "local:whisper-tiny.en", 1),
    "en-long": Setup("en", "local:piper", "en_US-joe-medium", "local:whisper-tiny.en", 3),
    "en-long-base": Setup("en", "local:piper", "en_US-joe-medium", "local:whisper-base", 3),
    "en-long-espeak": Setup("en", "local:espeak", "en-us", "local:whisper-tiny.en", 3),
    "de-long-espeak": Setup("de", "local:espeak", "de", "local:whisper-base", 3),
    "fr-long-espeak": Setup("fr", "local:espeak", "fr", "local:whisper-base", 3),
    "es-long-espeak": Setup("es", "local:espeak", "es", "local:whisper-base", 3),
}


class Sample(NamedTuple):
    """A text, what is spoken in its place, and the share of the audio that is left."""

    kind: str
    text: str
    spoken: str
    audio_share: float = 1.0


class Verdict(NamedTuple):
    """What was found in a sample."""

    kind: str
    comparison: Comparison

    @property
    def has_stretch(self) -> bool:
        """Whether the rule of stretches and of the end alone finds it wrong."""
        return bool(self.comparison.problems)

    def is_wrong(self, threshold_percent: float) -> bool:
        return self.comparison.find_problem(threshold_percent / 100) is not None


def build_samples(setup: Setup, clean_count: int, spoilt_count: int, seed: int) -> list[Sample]:
    """Return seeded samples of each kind."""
    generator = random.Random(f"{seed} {setup}")
    sentences = SENTENCES[setup.language].splitlines()
    samples = []
    for kind in KINDS:
        for _ in range(clean_count if kind == "clean" else spoilt_count):
            chosen = generator.sample(sentences, setup.sentence_count)
            share = generator.uniform(MIN_TRUNCATED, MAX_TRUNCATED) if kind == "truncated" else 1.0
            samples.append(Sample(kind, " ".join(chosen), _spoil(chosen, kind, generator), share))
    return samples


def _spoil(sentences: Sequence[str], kind: str, generator: random.Random) -> str:
    """Return what is spoken. Of a single sentence, a stretch of four words is dropped, doubled or exchanged."""
    if len(sentences) == 1:
        words = sentences[0].split()
        start = generator.randrange(len(words) - 4)
        parts = [words[:start], words[start : start + 4], words[start + 4 :]]
    else:
        start = generator.randrange(1, len(sentences))
        parts = [list(sentences[:start]), [sentences[start]], list(sentences[start + 1 :])]
    before, stretch, after = parts
    changed = {"dropped": before + after, "doubled": before + stretch + stretch + after}
    if kind == "swapped" and len(sentences) == 1:
        return " ".join(stretch + before + after if before else after[:4] + stretch + after[4:])
    changed["swapped"] = before[:-1] + stretch + before[-1:] + after
    return " ".join(changed.get(kind, sentences))


def run_audiocli(*arguments: str | Path) -> None:
    """Run audiocli at a low priority. Raises: CalledProcessError."""
    command = [sys.executable, "-m", "audiocli", *map(str, arguments), "-q"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def measure(setup: Setup, samples: Sequence[Sample], directory: Path) -> list[Verdict]:
    """Speak the samples, listen to them, and compare."""
    rows = directory / "rows.jsonl"
    lines = [json.dumps({"text": sample.spoken, "name": f"{i:04}"}) for i, sample in enumerate(samples)]
    rows.write_text("\n".join(lines), "utf-8")
    audio, texts = directory / "audio", directory / "texts"
    run_audiocli(*("speak", "-F", rows, "-O", audio, "-f", "wav", "-m", setup.model, "-v", setup.voice))
    for index, sample in enumerate(samples):
        if sample.audio_share < 1:
            _truncate(audio / f"{index:04}.wav", sample.audio_share)
    run_audiocli(
        *("transcribe", audio, "-R", "-O", texts, "-f", "txt", "-m", setup.listener, "-l", setup.language),
        *("-j", "1", "--allow-empty"),
    )
    verdicts = []
    for index, sample in enumerate(samples):
        heard = (texts / f"{index:04}.txt").read_text("utf-8")
        comparison = compare(sample.text, Transcript(heard), setup.language)
        verdicts.append(Verdict(sample.kind, comparison))
    return verdicts


def _truncate(path: Path, share: float) -> None:
    with wave.open(str(path), "rb") as source:
        parameters, samples = source.getparams(), source.readframes(int(source.getnframes() * share))
    with wave.open(str(path), "wb") as target:
        target.setparams(parameters)
        target.writeframes(samples)


def format_table(name: str, verdicts: Sequence[Verdict]) -> list[str]:
    """Return the row of a set: wrong of all, for each kind."""

    def count(kind: str, is_wrong: Callable[[Verdict], bool]) -> str:
        chosen = [verdict for verdict in verdicts if verdict.kind == kind]
        return f"{sum(map(is_wrong, chosen))} of {len(chosen)}"

    clean = [verdict.comparison.word_error_rate for verdict in verdicts if verdict.kind == "clean"]
    rows = [f"| {name} | stretches | {' | '.join(count(kind, lambda v: v.has_stretch) for kind in KINDS)} |"]
    for percent in THRESHOLDS_PERCENT:
        cells = [count(kind, lambda v, percent=percent: v.is_wrong(percent)) for kind in KINDS]  # type: ignore[misc]
        rows.append(f"| {name} | and {percent} % | {' | '.join(cells)} |")
    rows.append(f"<!-- {name}: word error rate of correct speech {100 * sum(clean) / max(len(clean), 1):.1f} %, "
                f"at most {100 * max(clean, default=0.0):.1f} % -->")  # fmt: skip
    return rows


def _write(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", dest="sets", action="append", choices=list(SETS))
    parser.add_argument("--clean", type=int, default=20)
    parser.add_argument("--spoilt", type=int, default=10)
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--work", type=Path)
    options = parser.parse_args()
    _write(f"| set | rule | {' | '.join(KINDS)} |\n|---|---|{'---|' * len(KINDS)}")
    for name in options.sets or SETS:
        with tempfile.TemporaryDirectory(dir=options.work) as directory:
            samples = build_samples(SETS[name], options.clean, options.spoilt, options.seed)
            verdicts = measure(SETS[name], samples, Path(directory))
        _write("\n".join(format_table(name, verdicts)))


if __name__ == "__main__":
    main()
