"""The models that the double serves, with their prices. Names are those of docs and recordings; prices not recorded
there are invented, but of the right size. Amounts are exact decimals until they become nano-dollars.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

NANO = Decimal(1_000_000_000)
OPENAI_VOICES = (
    "alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer", "verse",
)  # fmt: skip
SIX_VOICES = ("alloy", "echo", "fable", "nova", "onyx", "shimmer")


@dataclass(frozen=True, slots=True)
class Model:
    """One model. `price` is in USD per `unit`: character, byte, second, hour, or token (then `output_price` as well).

    `voices` None: the gateway does not tell, any name goes. `formats` None: all that the gateway has. `tagged`: it
    writes what it heard besides words in front of every text.
    """

    id: str
    kind: str
    price: str = "0"
    unit: str = "character"
    output_price: str = "0"
    voices: tuple[str, ...] | None = None
    voice_required: bool = False
    formats: tuple[str, ...] | None = None
    reply_formats: tuple[str, ...] = ("json", "verbose_json")
    longest_s: float | None = None
    longest_text: int | None = None
    longest_bytes: int | None = None
    least_billed_s: float = 0.0
    whole_seconds: bool = False
    obeys_speed: bool = False
    ends: str | None = None
    clones: bool = False
    tagged: bool = False

    def speech_cost(self, text: str) -> int:
        """Price a text, in nano-dollars."""
        amount = len(text.encode()) if self.unit == "byte" else len(text)
        return nano(Decimal(self.price) * amount)

    def billed_seconds(self, duration_s: float) -> float:
        seconds = max(duration_s, self.least_billed_s)
        return float(math.ceil(seconds)) if self.whole_seconds else round(seconds, 3)

    def chat_cost(self, count: Mapping[str, int]) -> int:
        """Price a chat, in nano-dollars; a token of sound costs eight times as much as one of text."""
        asked = Decimal(self.price) * (count["text_in"] + 8 * count["audio_in"])
        return nano(asked + Decimal(self.output_price) * (count["text_out"] + 8 * count["audio_out"]))

    def transcription_cost(self, duration_s: float, text: str) -> int:
        """Price a recording, in nano-dollars."""
        if self.unit == "token":
            heard, said = tokens(duration_s, text)
            return nano(Decimal(self.price) * heard + Decimal(self.output_price) * said)
        seconds = Decimal(str(self.billed_seconds(duration_s)))
        return nano(Decimal(self.price) * seconds / (3600 if self.unit == "hour" else 1))


def nano(usd: Decimal) -> int:
    return int((usd * NANO).to_integral_value(rounding=ROUND_HALF_EVEN))


def tokens(duration_s: float, text: str) -> tuple[int, int]:
    """Count tokens in the double's own way: ten for each second heard, one and a bit for each word said."""
    return math.ceil(10 * duration_s), math.ceil(1.3 * len(text.split()))


def _speech(id_: str, price: str, **more: Any) -> Model:
    return Model(id_, "speech", price, **more)


def _hears(id_: str, price: str, unit: str = "second", **more: Any) -> Model:
    return Model(id_, "transcription", price, unit, **more)


def _index(models: Iterable[Model]) -> dict[str, Model]:
    return {model.id: model for model in models}


OPENROUTER = _index(
    [
        _speech(
            "openai/gpt-4o-mini-tts-2025-12-15",
            "0.000012",
            voices=OPENAI_VOICES,
            longest_text=4096,
            obeys_speed=True,
            ends="2027-01-06",
        ),
        _speech("google/gemini-3.8-flash-tts", "0.00001", voices=("Kore", "Puck", "Zephyr"), formats=("pcm",)),
        _speech("mistralai/voxtral-mini-tts-2603", "0.000016", voices=("en_paul_neutral",), voice_required=True),
        _speech("hexgrad/kokoro-82m", "0.000004", voices=("af_heart", "af_bella", "am_adam", "bf_emma")),
        _speech("x-ai/grok-voice-tts-1.0", "0.000015", voices=("eve", "ara", "rex", "sal", "leo")),
        _speech("microsoft/mai-voice-2.1", "0.000022", voices=("en-US-Harper:MAI-Voice-2.1",), obeys_speed=True),
        _speech("fish-audio/s2.1-pro", "0.000015", unit="byte", clones=True),
        _hears("openai/whisper-1", "0.0001", whole_seconds=True, ends="2027-02-26"),
        _hears("openai/whisper-large-v3", "0.0000308333333333"),
        _hears("openai/whisper-large-v3-turbo", "0.0000111111111111"),
        _hears("openai/gpt-4o-transcribe", "0.0000025", "token", output_price="0.00001", reply_formats=("json",)),
        _hears("deepgram/nova-3", "0.0000716666666667", reply_formats=("json",)),
        _hears("microsoft/mai-transcribe-2", "0.1", "hour"),
        _hears("assemblyai/universal-3-5-pro", "0.00006", reply_formats=("json",), longest_s=120.0),
        Model("openai/gpt-4o-audio-preview", "chat", "0.0000025", "token", output_price="0.00001", ends="2027-01-20"),
        Model("openai/gpt-5.4", "text", "0.00000125", "token", output_price="0.00001"),
    ]
)

_ALL_REPLIES = ("json", "text", "srt", "verbose_json", "vtt")
_NEW_HEARING = {"output_price": "0.00001", "reply_formats": ("json",), "longest_s": 1500.0}
OPENAI = _index(
    [
        _speech("tts-1", "0.000015", voices=OPENAI_VOICES, obeys_speed=True, ends="2027-01-06"),
        _speech("tts-1-hd", "0.00003", voices=OPENAI_VOICES, obeys_speed=True, ends="2027-01-06"),
        _speech("gpt-4o-mini-tts", "0.000012", voices=OPENAI_VOICES, obeys_speed=True, ends="2027-01-06"),
        _speech("gpt-4o-mini-tts-2025-12-15", "0.000012", voices=OPENAI_VOICES, obeys_speed=True),
        _hears("whisper-1", "0.0001", reply_formats=_ALL_REPLIES, whole_seconds=True, ends="2027-02-26"),
        _hears("gpt-4o-transcribe", "0.000006", "token", **_NEW_HEARING, ends="2027-02-26"),
        _hears("gpt-4o-mini-transcribe", "0.000003", "token", **_NEW_HEARING, ends="2027-02-26"),
        _hears("gpt-4o-mini-transcribe-2025-12-15", "0.000003", "token", **_NEW_HEARING),
        _hears(
            "gpt-4o-transcribe-diarize", "0.0001", reply_formats=("json", "text", "diarized_json"), longest_s=1400.0
        ),
        _hears("gpt-transcribe", "0.0001", reply_formats=("json",)),
        Model("gpt-4o-audio-preview", "chat", "0.0000025", "token", output_price="0.00001", ends="2027-01-20"),
    ]
)

_GROQ_REPLIES = ("json", "text", "verbose_json")
GROQ = _index(
    [
        _speech(
            "canopylabs/orpheus-v1-english",
            "0.000022",
            voices=("autumn", "diana", "hannah", "austin", "daniel", "troy"),
            voice_required=True,
        ),
        _speech(
            "canopylabs/orpheus-arabic-saudi",
            "0.00004",
            voices=("abdullah", "fahad", "sultan", "lulwa", "noura", "aisha"),
            voice_required=True,
        ),
        _hears("whisper-large-v3", "0.0000308333333333", reply_formats=_GROQ_REPLIES, least_billed_s=10.0),
        _hears("whisper-large-v3-turbo", "0.0000111111111111", reply_formats=_GROQ_REPLIES, least_billed_s=10.0),
    ]
)

_OPENAI_SPEECH: dict[str, Any] = {"voices": SIX_VOICES, "longest_text": 4096, "obeys_speed": True}
_SILICONFLOW: dict[str, Any] = {"unit": "byte", "longest_bytes": 1000}
THEROUTER = _index(
    [
        _speech("openai/tts-1", "0.000015", **_OPENAI_SPEECH),
        _speech("openai/tts-1-hd", "0.00003", **_OPENAI_SPEECH),
        _speech("openai/gpt-4o-mini-tts", "0.000012", **_OPENAI_SPEECH),
        _speech("alibaba/cosyvoice2-0.5b", "0.00000715", **_SILICONFLOW),
        _speech("fishaudio/fish-speech-1.5", "0.00000715", **_SILICONFLOW),
        _speech("indexteam/indextts-2", "0.00000715", **_SILICONFLOW),
        _hears("openai/whisper-1", "0.0001", reply_formats=_ALL_REPLIES),
        _hears("alibaba/sensevoice-small", "0.0001", reply_formats=_ALL_REPLIES, tagged=True),
        Model("openai/gpt-5.4", "text", "0.00000125", "token", output_price="0.00001"),
    ]
)

AROUTER = _index(
    [
        _speech("openai/tts-1", "0.000015", **_OPENAI_SPEECH),
        _speech("openai/tts-1-hd", "0.00003", **_OPENAI_SPEECH),
        _hears("openai/whisper-1", "0.0001", reply_formats=_ALL_REPLIES),
        _hears("openai/whisper-large-v3", "0.0000308333333333", reply_formats=_ALL_REPLIES),
        _hears("openai/whisper-large-v3-turbo", "0.0000111111111111", reply_formats=_ALL_REPLIES),
        Model("openai/gpt-5.4-audio-preview", "chat", "0.0000025", "token", output_price="0.00001"),
        Model("openai/gpt-5.4", "text", "0.00000125", "token", output_price="0.00001"),
    ]
)

PLAIN = _index(
    [
        _speech("speaches-ai/Kokoro-82M-v1.0-ONNX", "0", voices=("af_heart", "am_adam")),
        _speech("tts-1", "0", voices=OPENAI_VOICES, obeys_speed=True),
        _hears("Systran/faster-whisper-large-v3", "0", reply_formats=_ALL_REPLIES),
        _hears("whisper-1", "0", reply_formats=_ALL_REPLIES),
    ]
)


def openrouter_card(model: Model) -> dict[str, Any]:
    """Describe a model as `/models` of OpenRouter does."""
    hears = model.kind == "transcription"
    inputs = ["audio"] if hears else ["text", "audio"] if model.kind == "chat" else ["text"]
    outputs = ["text", "audio"] if model.kind == "chat" else [model.kind]
    author, _, slug = model.id.partition("/")
    return {
        "id": model.id,
        "canonical_slug": f"{model.id}-20260901",
        "hugging_face_id": "",
        "name": f"{author.title()}: {slug}",
        "created": 1_756_684_800,
        "description": f"{slug} of {author}.",
        "context_length": 128_000 if model.kind in ("chat", "text") else None,
        "architecture": {
            "modality": f"{'+'.join(inputs)}->{'+'.join(outputs)}",
            "input_modalities": inputs,
            "output_modalities": outputs,
            "tokenizer": "Other",
            "instruct_type": None,
        },
        "pricing": _pricing(model),
        "top_provider": {"context_length": None, "max_completion_tokens": None, "is_moderated": False},
        "per_request_limits": None,
        "supported_parameters": ["max_tokens", "temperature"] if model.kind in ("chat", "text") else [],
        "default_parameters": {},
        "supported_voices": list(model.voices) if model.voices is not None else None,
        "knowledge_cutoff": None,
        "expiration_date": model.ends,
        "links": {"details": f"/api/v1/models/{model.id}/endpoints"},
    }


def _pricing(model: Model) -> dict[str, str]:
    told = {"prompt": model.price, "completion": model.output_price}
    if model.kind != "chat":
        return told
    sound = {"audio": str(8 * Decimal(model.price)), "audio_output": str(8 * Decimal(model.output_price))}
    return told | sound


def short_card(model: Model) -> dict[str, Any]:
    """Describe a model in the same shape, as gateways do that list no voices."""
    card = openrouter_card(model)
    return {name: value for name, value in card.items() if name not in ("supported_voices", "links")}


def narrow_card(model: Model) -> dict[str, Any]:
    """Describe a model in the same shape, as gateways do that list no voices and know only text and audio."""
    card = short_card(model)
    outputs = {"speech": ["audio"], "transcription": ["text"]}.get(model.kind)
    if outputs:
        inputs = card["architecture"]["input_modalities"]
        card["architecture"] |= {"modality": f"{inputs[0]}->{outputs[0]}", "output_modalities": outputs}
    return card
