"""Find passages of a transcript that the model may have made up: loops, text over silence, and closing phrases.

Speech recognizers that were trained with captions of videos continue where there is no speech: they repeat themselves,
or write what captions end with. What is found here is a suspicion. It never changes the text.

| kind | what is reported |
|---|---|
| `loop` | the same words again and again, more often than people say them, or a text that compresses like one |
| `silence` | more text than can be spoken in the sound of its time |
| `phrase` | a phrase that captions end with, where the recording has no clear speech; credits of captions anywhere |

Sources of the phrases, all of them public:

* Barański et al., "Investigation of Whisper ASR Hallucinations Induced by Non-Speech Audio" (ICASSP 2025,
  arXiv:2501.11378): the most frequent outputs of Whisper for sound without speech.
* Discussions 679 and 928 of openai/whisper and issues 887 and 2660 of ggml-org/whisper.cpp on GitHub, with examples in
  many languages.
* The threshold of the compression ratio is that of openai/whisper (`compression_ratio_threshold`).
"""

from __future__ import annotations

import re
import zlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from ..types.transcripts import Segment, Transcript
from .clock import format_position
from .cues import TimedText, join_timed_texts, list_timed_texts, normalize_transcript
from .line_breaking import fold_character, is_unspaced

# How often words must be repeated directly, by the number of words that are repeated. "No, no, no, no, no" and
# "location, location, location" are speech, and so is a line that is said three times.
_MIN_REPEATS = ((1, 9), (2, 7), (4, 6), (8, 5), (40, 4))
# A phrase that is repeated has at least this many letters in all, so that counting or spelling is not a loop.
_MIN_LOOP_LETTERS = 16
# A segment that compresses better than this repeats itself (openai/whisper). Shorter texts do not show it.
MAX_COMPRESSION_RATIO = 2.4
_MIN_COMPRESSED_LETTERS = 100
# The same for any part of a text. The documentation of this program has at most 2.1, and Japanese prose 1.7.
_WINDOW_BYTES, _WINDOW_STEP_BYTES = 600, 200
_MAX_WINDOW_RATIO = 3.4
# The threshold of openai/whisper.
_NO_SPEECH_PROB = 0.6
# Longer passages are shortened in reports.
MAX_TEXT_LENGTH = 200

# A silence that is shorter is a pause. The times of models are this inexact.
MIN_SILENCE_S = 1.5
_TIME_ERROR_S = 0.3
# Fast speech has 20 letters per second.
_MAX_LETTERS_PER_S = 40.0
_MAX_AUDIBLE_SHARE = 0.5

# What captions end with, as whole sentences. People say this too, so that it counts only where there is no speech.
_CLOSING_PHRASES = (
    "thank you",
    "thank you very much",
    "thank you so much for watching",
    "thank you for watching",
    "thanks for watching",
    "thank you for listening",
    "thanks for listening",
    "thank you for your attention",
    "please subscribe",
    "please subscribe to my channel",
    "please like and subscribe",
    "like and subscribe",
    "don t forget to like and subscribe",
    "see you next time",
    "see you in the next video",
    "i ll see you in the next video",
    "i ll see you next time",
    "bye",
    "bye bye",
    "you",
    "so",
    "the end",
    "to be continued",
    "we ll be right back",
    "vielen dank",
    "vielen dank für s zuschauen",
    "vielen dank fürs zuschauen",
    "vielen dank für ihre aufmerksamkeit",
    "danke fürs zuschauen",
    "bis zum nächsten mal",
    "das war s für heute",
    "merci",
    "merci d avoir regardé cette vidéo",
    "merci d avoir regardé",
    "merci à tous",
    "abonnez vous",
    "à bientôt",
    "gracias",
    "gracias por ver",
    "gracias por ver el video",
    "gracias por ver el vídeo",
    "muchas gracias por ver el video",
    "suscríbete",
    "suscríbete al canal",
    "hasta la próxima",
    "grazie a tutti",
    "grazie per aver guardato il video",
    "grazie per la visione",
    "iscrivetevi al canale",
    "obrigado por assistir",
    "obrigada por assistir",
    "inscreva se no canal",
    "bedankt voor het kijken",
    "tot de volgende keer",
    "tack för att ni tittade",
    "tack för att du tittade",
    "takk for at du så på",
    "tak fordi du så med",
    "dziękuję za uwagę",
    "dziękuję za oglądanie",
    "dzięki za oglądanie",
    "děkuji za pozornost",
    "děkujeme za pozornost",
    "köszönöm hogy megnézted",
    "izlediğiniz için teşekkür ederim",
    "abone olmayı unutmayın",
    "спасибо за просмотр",
    "спасибо за внимание",
    "подписывайтесь на канал",
    "продолжение следует",
    "до новых встреч",
    "дякую за перегляд",
    "ご視聴ありがとうございました",
    "ご清聴ありがとうございました",
    "チャンネル登録お願いします",
    "最後までご視聴頂き有難うございました",
    "시청해 주셔서 감사합니다",
    "구독과 좋아요 부탁드립니다",
    "다음 영상에서 만나요",
    "谢谢观看",
    "謝謝觀看",
    "謝謝大家收看",
    "感谢观看",
    "感謝觀看",
    "请不吝点赞 订阅 转发 打赏支持明镜与点点栏目",
    "請不吝點贊 訂閱 轉發 打賞支持明鏡與點點欄目",
    "شكرا على المشاهدة",
    "اشتركوا في القناة",
    "תודה על הצפייה",
    "cảm ơn các bạn đã theo dõi",
    "hãy subscribe cho kênh ghiền mì gõ để không bỏ lỡ những video hấp dẫn",
    "terima kasih telah menonton",
)
# Credits of captions, which are not read aloud. `*` is one to six words. With it, and if they are shorter than three
# words, they count as whole sentences only: "this film has subtitles by default" is speech.
_CREDITS = (
    "subtitles by *",
    "subtitles by the amara org community",
    "captions by *",
    "captioning by *",
    "transcription by castingwords",
    "transcribed by https otter ai",
    "translated by releska",
    "untertitel der amara org community",
    "untertitel von stephanie geiges",
    "untertitel im auftrag des zdf",
    "untertitel im auftrag des zdf für funk *",
    "untertitelung des zdf",
    "untertitelung aufgrund der amara org community",
    "untertitelung im auftrag des zdf",
    "copyright wdr",
    "swr 2020",
    "swr 2021",
    "sous titres réalisés par *",
    "sous titres réalisés para la communauté d amara org",
    "sous titres par *",
    "sous titrage st 501",
    "sous titrage société radio canada",
    "sous titrage fr",
    "subtítulos realizados por *",
    "subtítulos por la comunidad de amara org",
    "subtítulos en español de amara org",
    "subtítulos creados por la comunidad de amara org",
    "sottotitoli creati dalla comunità amara org",
    "sottotitoli e revisione a cura di qtss",
    "sottotitoli di sottotitoli di amara org",
    "legendas pela comunidade amara org",
    "legendas pela comunidade de amara org",
    "transcrição e legendas *",
    "ondertitels ingediend door de amara org gemeenschap",
    "ondertiteld door de amara org gemeenschap",
    "ondertiteling nadine",
    "undertexter av *",
    "undertexter från amara org gemenskapen",
    "svensktextning *",
    "teksting av *",
    "tekstet av *",
    "danske tekster af *",
    "napisy stworzone przez społeczność amara org",
    "napisy wykonane przez społeczność amara org",
    "titulky vytvořil *",
    "titulky vytvořil johnyx",
    "altyazı m k",
    "субтитры сделал *",
    "субтитры создавал *",
    "субтитры делал *",
    "субтитры подогнал *",
    "редактор субтитров *",
    "字幕志愿者 *",
    "字幕by索兰娅",
    "字幕由amara org社区提供",
    "中文字幕志愿者 *",
    "字幕製作 *",
    "자막 제공 *",
    "한글자막 by 한효정",
    "ترجمة نانسي قنقر",
)
_WORD = re.compile(r"\S+")


class Suspicion(NamedTuple):
    """A passage that the model may have made up. `kind` is loop, silence or phrase. Times are None if none are known.

    `repeats` is how often a loop repeats `text`.
    """

    kind: str
    start_s: float | None
    end_s: float | None
    text: str
    repeats: int | None = None


class Evidence(NamedTuple):
    """What is known of the recording.

    Attributes:
        silences_s: Start and end of each silence; None if they were not measured.
        speechless_s: Start and end of passages that were searched for speech and have none.
    """

    silences_s: tuple[tuple[float, float], ...] | None = None
    speechless_s: tuple[tuple[float, float], ...] = ()


NO_EVIDENCE = Evidence()
# The most certain kind first: a loop may be of phrases, and a phrase in a silence.
_KINDS = ("loop", "phrase", "silence")


class _Finding(NamedTuple):
    """The words from `start` to before `end`, for which there is a suspicion."""

    kind: str
    start: int
    end: int
    repeats: int | None = None


class _Token(NamedTuple):
    """A word in folded letters, and the index of the part of the transcript that has it."""

    letters: str
    word: int


def find_suspicions(transcript: Transcript, evidence: Evidence = NO_EVIDENCE) -> tuple[Suspicion, ...]:
    """Return the passages of a transcript that the model may have made up, sorted by their position.

    Channels that were transcribed separately are checked separately, because their texts are mixed by time.
    """
    channels = dict.fromkeys(segment.channel for segment in transcript.segments)
    if len(channels) < 2:
        return _find_in_channel(transcript, evidence)
    found = [
        suspicion
        for channel in channels
        for suspicion in _find_in_channel(_select_channel(transcript, channel), evidence)
    ]
    return tuple(sorted(found, key=lambda suspicion: suspicion.start_s or 0.0))


def _select_channel(transcript: Transcript, channel: int | None) -> Transcript:
    """Return the segments and words of one channel."""
    segments = tuple(segment for segment in transcript.segments if segment.channel == channel)
    words = tuple(word for word in transcript.words if word.channel == channel)
    return transcript._replace(text=" ".join(segment.text for segment in segments), segments=segments, words=words)


def _find_in_channel(transcript: Transcript, evidence: Evidence) -> tuple[Suspicion, ...]:
    words = list_timed_texts(transcript)
    tokens = _list_tokens(words)
    segments = _locate_segments(transcript, words)
    found: list[_Finding] = [_Finding("loop", *span, repeats) for span, repeats in _find_loops(tokens, words)]
    found += [
        _Finding("loop", start, end)
        for start, end, segment in segments
        if (segment.compression_ratio or 0.0) > MAX_COMPRESSION_RATIO and len(segment.text) >= _MIN_COMPRESSED_LETTERS
    ]
    found += [_Finding("silence", *span) for span in _find_text_over_silence(words, evidence)]
    silent = [(start, end) for start, end, segment in segments if (segment.no_speech_prob or 0.0) >= _NO_SPEECH_PROB]
    for start, end, is_credit in _find_phrases(tokens, words):
        is_silent = any(first <= start and end <= last for first, last in silent)
        if is_credit or is_silent or _is_without_speech(words[start:end], evidence):
            found.append(_Finding("phrase", start, end))
    return tuple(_build(finding, words[finding.start : finding.end]) for finding in _merge_findings(found))


def _merge_findings(found: Sequence[_Finding]) -> list[_Finding]:
    """Return one finding of those that overlap, and one for silent sentences in a row, sorted by their position."""
    chosen: list[_Finding] = []
    for finding in sorted(found, key=lambda finding: (_KINDS.index(finding.kind), finding.start)):
        if not any(finding.start < other.end and finding.end > other.start for other in chosen):
            chosen.append(finding)
    merged: list[_Finding] = []
    for finding in sorted(chosen, key=lambda finding: finding.start):
        if merged and finding.kind == merged[-1].kind == "silence" and finding.start == merged[-1].end:
            merged[-1] = merged[-1]._replace(end=finding.end)
        else:
            merged.append(finding)
    return merged


def list_phrase_spans(transcript: Transcript) -> tuple[tuple[float, float], ...]:
    """Return the times of closing phrases, which are suspicious if the recording has no speech there."""
    words = list_timed_texts(transcript)
    spans = []
    for start, end, is_credit in _find_phrases(_list_tokens(words), words):
        start_s, end_s = words[start].start_s, words[end - 1].end_s
        if not is_credit and start_s is not None and end_s is not None:
            spans.append((round(start_s, 3), round(end_s, 3)))
    return tuple(spans)


def describe_suspicion(suspicion: Suspicion) -> str:
    """Return a sentence without its capital and full stop, such as "0:01:02 to 0:01:30: may be made up: …"."""
    reason = {
        "loop": f"the text repeats itself {suspicion.repeats} times"
        if suspicion.repeats is not None
        else "the text repeats itself",
        "silence": "text where the recording is silent",
        "phrase": "a phrase that models add where there is no speech",
    }[suspicion.kind]
    times = "" if suspicion.start_s is None else f"{_format_span(suspicion)}: "
    return f'{times}{reason}: "{suspicion.text}"'


def list_warnings(suspicions: Sequence[Suspicion]) -> list[str]:
    """Return a warning for each kind, with the times of the first passages."""
    warnings = []
    for kind, message in (
        ("loop", "the transcript repeats itself"),
        ("silence", "the transcript has text where the recording is silent"),
        ("phrase", "the transcript has phrases that models add where there is no speech"),
    ):
        of_kind = [suspicion for suspicion in suspicions if suspicion.kind == kind]
        if of_kind:
            spans = [_format_span(suspicion) for suspicion in of_kind if suspicion.start_s is not None]
            shown = ", ".join(dict.fromkeys(spans[:3])) + (f" and {len(spans) - 3} more" if len(spans) > 3 else "")
            text = of_kind[0].text if len(of_kind[0].text) <= 60 else f"{of_kind[0].text[:59]}…"
            warnings.append(f'{message}{f" ({shown})" if shown else ""}: "{text}"; it may be made up')
    return warnings


def find_overlapping(
    suspicions: Sequence[Suspicion], start_s: float | None, end_s: float | None
) -> tuple[Suspicion, ...]:
    """Return the suspicions that overlap a passage. One whose times are unknown overlaps nothing."""
    if start_s is None or end_s is None:
        return ()
    return tuple(
        suspicion
        for suspicion in suspicions
        if suspicion.start_s is not None
        and suspicion.end_s is not None
        and suspicion.start_s < end_s
        and suspicion.end_s > start_s
    )


def _format_span(suspicion: Suspicion) -> str:
    return f"{format_position(suspicion.start_s or 0.0)} to {format_position(suspicion.end_s or 0.0)}"


def _build(finding: _Finding, words: Sequence[TimedText]) -> Suspicion:
    # Of a loop, what is repeated is enough.
    shown = words[: -(-len(words) // finding.repeats)] if finding.repeats else words
    text = join_timed_texts(shown)
    text = text if len(text) <= MAX_TEXT_LENGTH else f"{text[: MAX_TEXT_LENGTH - 1]}…"
    return Suspicion(finding.kind, words[0].start_s, words[-1].end_s, text, finding.repeats)


def _locate_segments(transcript: Transcript, words: Sequence[TimedText]) -> list[tuple[int, int, Segment]]:
    """Return the first and last word of each segment; none if the segments do not determine the words."""
    segments = normalize_transcript(transcript).segments
    starts = [index for index, word in enumerate(words) if word.starts_segment]
    if len(starts) != len(segments):
        return []
    return list(zip(starts, [*starts, len(words)][1:], segments, strict=True))


def _list_tokens(words: Sequence[TimedText]) -> list[_Token]:
    """Return the words of a text, with compounds such as "sous-titres" divided. Punctuation is no word."""
    tokens = []
    for index, word in enumerate(words):
        folded = "".join(fold_character(char) or " " for char in word.text)
        tokens += [_Token(letters, index) for letters in folded.split()]
    return tokens


# --- loops -----------------------------------------------------------------------------------------------------------


def _find_loops(tokens: Sequence[_Token], words: Sequence[TimedText]) -> Iterator[tuple[tuple[int, int], int | None]]:
    """Yield the first and last word of each loop, and how often it repeats."""
    letters = [token.letters for token in tokens]
    covered_until = 0
    loops: list[tuple[int, int, int | None]] = []
    for period in range(1, _MIN_REPEATS[-1][0] + 1):
        min_count = next(count for max_words, count in _MIN_REPEATS if period <= max_words)
        run = 0
        for position in range(len(letters) - period + 1):
            is_same = position + period < len(letters) and letters[position] == letters[position + period]
            if is_same:
                run += 1
                continue
            count = run // period + 1
            if run and count >= min_count:
                first, last = position - run, position + period
                if sum(map(len, letters[first:last])) >= _MIN_LOOP_LETTERS and not _is_enumeration(
                    letters[first : first + period]
                ):
                    loops.append((first, last, count))
            run = 0
    for first, last, repeats in sorted(loops, key=lambda loop: (loop[0], -loop[1])):
        if first >= covered_until:
            yield (tokens[first].word, tokens[last - 1].word + 1), repeats
            covered_until = last
    covered = [(tokens[first].word, tokens[last - 1].word + 1) for first, last, _ in loops]
    for start, end in _find_compressible(words):
        if not any(start < other_end and end > other_start for other_start, other_end in covered):
            yield (start, end), None


def _is_enumeration(letters: Sequence[str]) -> bool:
    """Return whether the words are digits, which people do dictate."""
    return all(word.isdecimal() for word in letters)


def _find_compressible(words: Sequence[TimedText]) -> list[tuple[int, int]]:
    """Return the first and last word of texts that compress as only repetitions do."""
    texts = [(f" {word.text}" if word.has_space_before else word.text).casefold().encode() for word in words]
    ends = [0]
    for text in texts:
        ends.append(ends[-1] + len(text))
    content = b"".join(texts)
    spans: list[tuple[int, int]] = []
    for offset in range(0, max(len(content) - _WINDOW_BYTES, 0) + _WINDOW_STEP_BYTES, _WINDOW_STEP_BYTES):
        window = content[offset : offset + _WINDOW_BYTES]
        if len(window) < _WINDOW_BYTES or len(window) / len(zlib.compress(window)) <= _MAX_WINDOW_RATIO:
            continue
        start, end = bisect_left(ends, offset), bisect_left(ends, offset + len(window))
        start, end = min(start, len(words) - 1), min(max(end, start + 1), len(words))
        if spans and spans[-1][1] >= start:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return spans


# --- silence ---------------------------------------------------------------------------------------------------------


def _find_text_over_silence(words: Sequence[TimedText], evidence: Evidence) -> Iterator[tuple[int, int]]:
    """Yield the first and last word of sentences that cannot be spoken in the sound of their time."""
    silences = [span for span in evidence.silences_s or () if span[1] - span[0] >= MIN_SILENCE_S]
    if not silences:
        return
    for start, end in _split_sentences(words):
        if _is_over_silence(words[start:end], silences):
            yield start, end


def _split_sentences(words: Sequence[TimedText]) -> Iterator[tuple[int, int]]:
    """Yield the first and last word of each sentence. Segments end one too: models divide what they invent by them."""
    start = 0
    for index, (word, following) in enumerate(pairwise(words), 1):
        pause_s = (following.start_s or 0.0) - (word.end_s or 0.0)
        if word.is_sentence_end or pause_s >= MIN_SILENCE_S or following.starts_segment:
            yield start, index
            start = index
    if words:
        yield start, len(words)


def _is_over_silence(words: Sequence[TimedText], silences: Sequence[tuple[float, float]]) -> bool:
    start_s, end_s = words[0].start_s, words[-1].end_s
    letters = sum(len(fold_character(char)) for word in words for char in word.text)
    if start_s is None or end_s is None or not letters or end_s <= start_s:
        return False
    needed_s = letters * (3 if any(is_unspaced(char) for char in words[0].text) else 1) / _MAX_LETTERS_PER_S
    audible_s = max(
        _measure_audible_s(silences, start_s + shift_s, end_s + shift_s)
        for shift_s in (-_TIME_ERROR_S, -_TIME_ERROR_S / 2, 0.0, _TIME_ERROR_S / 2, _TIME_ERROR_S)
    )
    return audible_s < needed_s and audible_s <= _MAX_AUDIBLE_SHARE * (end_s - start_s)


def _measure_audible_s(silences: Sequence[tuple[float, float]], start_s: float, end_s: float) -> float:
    audible_s = end_s - start_s
    # The first silence that may overlap.
    for silence_start_s, silence_end_s in silences[max(bisect_left(silences, (start_s, start_s)) - 1, 0) :]:
        if silence_start_s >= end_s:
            break
        audible_s -= max(min(silence_end_s, end_s) - max(silence_start_s, start_s), 0.0)
    return audible_s


# --- phrases ---------------------------------------------------------------------------------------------------------


def _fold(text: str) -> str:
    return "".join(fold_character(char) or " " for char in text)


def _list_phrases() -> dict[tuple[str, ...], None]:
    return dict.fromkeys(tuple(_split_letters(_fold(phrase))) for phrase in _CLOSING_PHRASES)


def _split_letters(folded: str) -> Iterator[str]:
    """Yield words. Scripts without spaces are divided into characters, as a transcript is."""
    for word in folded.split():
        part = ""
        for char in word:
            if is_unspaced(char):
                if part:
                    yield part
                yield char
                part = ""
            else:
                part += char
        if part:
            yield part


def _find_phrases(tokens: Sequence[_Token], words: Sequence[TimedText]) -> Iterator[tuple[int, int, bool]]:
    """Yield first and last word of each closing phrase and credit, and whether it is a credit."""
    phrases, credit_sentences, credits_anywhere = _list_phrases(), *_compile_credits()
    letters = [part for token in tokens for part in _split_letters(token.letters)]
    indexes = [token.word for token in tokens for _ in _split_letters(token.letters)]
    joined = " ".join(letters)
    offsets = [0]
    for word in letters:
        offsets.append(offsets[-1] + len(word) + 1)
    for match in credits_anywhere.finditer(f" {joined}"):
        first, last = bisect_left(offsets, match.start()), bisect_left(offsets, match.end())
        yield indexes[first], indexes[last - 1] + 1, True
    positions: dict[int, int] = {}
    for position, index in enumerate(indexes):
        positions.setdefault(index, position)
    for start, end in _split_sentences(words):
        if start not in positions:
            continue
        sentence = letters[positions[start] : positions.get(end, len(letters))]
        if credit_sentences.fullmatch(" " + " ".join(sentence)):
            yield start, end, True
        elif tuple(sentence) in phrases:
            yield start, end, False


def _compile_credits() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return the patterns of credits that are sentences, and of those that may be anywhere."""
    sentences, anywhere = [], []
    for phrase in _CREDITS:
        words = [part for word in phrase.split() for part in ("*" if word == "*" else _split_letters(_fold(word)))]
        pattern = "".join("(?: [^ ]+){1,6}" if word == "*" else f" {re.escape(word)}" for word in words)
        sentences.append(pattern)
        if "*" not in words and len(words) >= 3:
            anywhere.append(pattern)
    return re.compile("|".join(sentences)), re.compile(
        f"(?:{'|'.join(sorted(anywhere, key=len, reverse=True))})(?= |$)"
    )


def _is_without_speech(words: Sequence[TimedText], evidence: Evidence) -> bool:
    start_s, end_s = words[0].start_s, words[-1].end_s
    if start_s is None or end_s is None:
        return False
    if any(abs(start_s - span[0]) < 0.01 and abs(end_s - span[1]) < 0.01 for span in evidence.speechless_s):
        return True
    silences = [span for span in evidence.silences_s or () if span[1] - span[0] >= MIN_SILENCE_S]
    return _is_over_silence(words, silences)
