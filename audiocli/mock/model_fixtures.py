"""The models of the mock gateways, with their prices.

Names come from documentation and recorded exchanges. Prices that were not recorded are invented, but realistic. Amounts
are exact decimals until they are converted to nano-dollars.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

NANOUSD_PER_USD = Decimal(1_000_000_000)
OPENAI_VOICES = (
    "alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer", "verse",
)  # fmt: skip
SIX_VOICES = ("alloy", "echo", "fable", "nova", "onyx", "shimmer")


@dataclass(frozen=True, slots=True)
class Model:
    """One model.

    `price` is in USD per `unit`: character, byte, second, hour or token; `output_price` is for tokens. `voices` None:
    the gateway does not list voices, and accepts any. `formats` None: all formats of the gateway. `add_tags`: the model
    puts tags of mood and sound in front of its transcripts.
    """

    id: str
    kind: str
    price: str = "0"
    unit: str = "character"
    output_price: str = "0"
    voices: tuple[str, ...] | None = None
    voice_required: bool = False
    formats: tuple[str, ...] | None = None
    response_formats: tuple[str, ...] = ("json", "verbose_json")
    max_duration_s: float | None = None
    max_characters: int | None = None
    max_text_bytes: int | None = None
    min_billed_s: float = 0.0
    bill_whole_seconds: bool = False
    supports_speed: bool = False
    shutdown_date: str | None = None
    supports_voice_cloning: bool = False
    supports_turns: bool = False
    supports_diarization: bool = False
    supports_keyterms: bool = False
    add_tags: bool = False

    def price_speech(self, text: str) -> int:
        """Return the price of a text in nano-dollars."""
        units = len(text.encode()) if self.unit == "byte" else len(text)
        return to_nanousd(Decimal(self.price) * units)

    def compute_billed_s(self, duration_s: float) -> float:
        seconds = max(duration_s, self.min_billed_s)
        return float(math.ceil(seconds)) if self.bill_whole_seconds else round(seconds, 3)

    def price_chat(self, tokens: Mapping[str, int]) -> int:
        """Return the price of a chat in nano-dollars. An audio token costs eight times as much as a text token."""
        input_usd = Decimal(self.price) * (tokens["text_in"] + 8 * tokens["audio_in"])
        return to_nanousd(input_usd + Decimal(self.output_price) * (tokens["text_out"] + 8 * tokens["audio_out"]))

    def price_transcription(self, duration_s: float, text: str) -> int:
        """Return the price of a recording in nano-dollars."""
        if self.unit == "token":
            input_tokens, output_tokens = count_tokens(duration_s, text)
            return to_nanousd(Decimal(self.price) * input_tokens + Decimal(self.output_price) * output_tokens)
        seconds = Decimal(str(self.compute_billed_s(duration_s)))
        return to_nanousd(Decimal(self.price) * seconds / (3600 if self.unit == "hour" else 1))


def to_nanousd(usd: Decimal) -> int:
    return int((usd * NANOUSD_PER_USD).to_integral_value(rounding=ROUND_HALF_EVEN))


def count_tokens(duration_s: float, text: str) -> tuple[int, int]:
    """Return input and output tokens: 10 for each second of audio, 1.3 for each word."""
    return math.ceil(10 * duration_s), math.ceil(1.3 * len(text.split()))


def _speech_model(id_: str, price: str, **options: Any) -> Model:
    return Model(id_, "speech", price, **options)


def _transcription_model(id_: str, price: str, unit: str = "second", **options: Any) -> Model:
    return Model(id_, "transcription", price, unit, **options)


def _index_by_id(models: Iterable[Model]) -> dict[str, Model]:
    return {model.id: model for model in models}


OPENROUTER = _index_by_id(
    [
        _speech_model(
            "openai/gpt-4o-mini-tts-2025-12-15",
            "0.000012",
            voices=OPENAI_VOICES,
            max_characters=4096,
            supports_speed=True,
            shutdown_date="2027-01-06",
        ),
        _speech_model(
            "google/gemini-3.8-flash-tts",
            "0.00001",
            voices=("Kore", "Puck", "Zephyr"),
            formats=("pcm",),
            supports_turns=True,
        ),
        _speech_model("mistralai/voxtral-mini-tts-2603", "0.000016", voices=("en_paul_neutral",), voice_required=True),
        _speech_model("hexgrad/kokoro-82m", "0.000004", voices=("af_heart", "af_bella", "am_adam", "bf_emma")),
        _speech_model("x-ai/grok-voice-tts-1.0", "0.000015", voices=("eve", "ara", "rex", "sal", "leo")),
        _speech_model(
            "microsoft/mai-voice-2.1", "0.000022", voices=("en-US-Harper:MAI-Voice-2.1",), supports_speed=True
        ),
        _speech_model("fish-audio/s2.1-pro", "0.000015", unit="byte", supports_voice_cloning=True, supports_turns=True),
        _transcription_model("openai/whisper-1", "0.0001", bill_whole_seconds=True, shutdown_date="2027-02-26"),
        _transcription_model("openai/whisper-large-v3", "0.0000308333333333"),
        _transcription_model("openai/whisper-large-v3-turbo", "0.0000111111111111"),
        _transcription_model(
            "openai/gpt-4o-transcribe", "0.0000025", "token", output_price="0.00001", response_formats=("json",)
        ),
        _transcription_model("deepgram/nova-3", "0.0000716666666667", response_formats=("json",)),
        _transcription_model(
            "microsoft/mai-transcribe-2", "0.1", "hour", supports_diarization=True, supports_keyterms=True
        ),
        _transcription_model(
            "assemblyai/universal-3-5-pro", "0.00006", response_formats=("json",), max_duration_s=120.0
        ),
        Model("openai/gpt-audio", "chat", "0.0000025", "token", output_price="0.00001", shutdown_date="2027-01-20"),
        Model(
            "openai/gpt-4o-audio-preview",
            "chat",
            "0.0000025",
            "token",
            output_price="0.00001",
            shutdown_date="2027-01-20",
        ),
        Model("openai/gpt-5.4", "text", "0.00000125", "token", output_price="0.00001"),
    ]
)

_ALL_RESPONSE_FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
_GPT_TRANSCRIBE = {"output_price": "0.00001", "response_formats": ("json",), "max_duration_s": 1500.0}
OPENAI = _index_by_id(
    [
        _speech_model("tts-1", "0.000015", voices=OPENAI_VOICES, supports_speed=True, shutdown_date="2027-01-06"),
        _speech_model("tts-1-hd", "0.00003", voices=OPENAI_VOICES, supports_speed=True, shutdown_date="2027-01-06"),
        _speech_model(
            "gpt-4o-mini-tts", "0.000012", voices=OPENAI_VOICES, supports_speed=True, shutdown_date="2027-01-06"
        ),
        _speech_model("gpt-4o-mini-tts-2025-12-15", "0.000012", voices=OPENAI_VOICES, supports_speed=True),
        _transcription_model(
            "whisper-1",
            "0.0001",
            response_formats=_ALL_RESPONSE_FORMATS,
            bill_whole_seconds=True,
            shutdown_date="2027-02-26",
        ),
        _transcription_model("gpt-4o-transcribe", "0.000006", "token", **_GPT_TRANSCRIBE, shutdown_date="2027-02-26"),
        _transcription_model(
            "gpt-4o-mini-transcribe", "0.000003", "token", **_GPT_TRANSCRIBE, shutdown_date="2027-02-26"
        ),
        _transcription_model("gpt-4o-mini-transcribe-2025-12-15", "0.000003", "token", **_GPT_TRANSCRIBE),
        _transcription_model(
            "gpt-4o-transcribe-diarize",
            "0.0001",
            response_formats=("json", "text", "diarized_json"),
            max_duration_s=1400.0,
        ),
        _transcription_model("gpt-transcribe", "0.000075", response_formats=("json",)),
        Model("gpt-audio-1.5", "chat", "0.0000025", "token", output_price="0.00001"),
        Model("gpt-4o-audio-preview", "chat", "0.0000025", "token", output_price="0.00001", shutdown_date="2027-01-20"),
    ]
)

_GROQ_RESPONSE_FORMATS = ("json", "text", "verbose_json")
GROQ = _index_by_id(
    [
        _speech_model(
            "canopylabs/orpheus-v1-english",
            "0.000022",
            voices=("autumn", "diana", "hannah", "austin", "daniel", "troy"),
            voice_required=True,
        ),
        _speech_model(
            "canopylabs/orpheus-arabic-saudi",
            "0.00004",
            voices=("abdullah", "fahad", "sultan", "lulwa", "noura", "aisha"),
            voice_required=True,
        ),
        _transcription_model(
            "whisper-large-v3", "0.0000308333333333", response_formats=_GROQ_RESPONSE_FORMATS, min_billed_s=10.0
        ),
        _transcription_model(
            "whisper-large-v3-turbo", "0.0000111111111111", response_formats=_GROQ_RESPONSE_FORMATS, min_billed_s=10.0
        ),
    ]
)

_OPENAI_TTS: dict[str, Any] = {"voices": SIX_VOICES, "max_characters": 4096, "supports_speed": True}
_SILICONFLOW: dict[str, Any] = {"unit": "byte", "max_text_bytes": 1000}
THEROUTER = _index_by_id(
    [
        _speech_model("openai/tts-1", "0.000015", **_OPENAI_TTS),
        _speech_model("openai/tts-1-hd", "0.00003", **_OPENAI_TTS),
        _speech_model("openai/gpt-4o-mini-tts", "0.000012", **_OPENAI_TTS),
        _speech_model("alibaba/cosyvoice2-0.5b", "0.00000715", **_SILICONFLOW),
        _speech_model("fishaudio/fish-speech-1.5", "0.00000715", **_SILICONFLOW),
        _speech_model("indexteam/indextts-2", "0.00000715", **_SILICONFLOW),
        _transcription_model("openai/whisper-1", "0.0001", response_formats=_ALL_RESPONSE_FORMATS),
        _transcription_model(
            "alibaba/sensevoice-small", "0.0001", response_formats=_ALL_RESPONSE_FORMATS, add_tags=True
        ),
        Model("openai/gpt-5.4", "text", "0.00000125", "token", output_price="0.00001"),
    ]
)

AROUTER = _index_by_id(
    [
        _speech_model("openai/tts-1", "0.000015", **_OPENAI_TTS),
        _speech_model("openai/tts-1-hd", "0.00003", **_OPENAI_TTS),
        _transcription_model("openai/whisper-1", "0.0001", response_formats=_ALL_RESPONSE_FORMATS),
        _transcription_model("openai/whisper-large-v3", "0.0000308333333333", response_formats=_ALL_RESPONSE_FORMATS),
        _transcription_model(
            "openai/whisper-large-v3-turbo", "0.0000111111111111", response_formats=_ALL_RESPONSE_FORMATS
        ),
        Model("openai/gpt-5.4-audio-preview", "chat", "0.0000025", "token", output_price="0.00001"),
        Model("openai/gpt-5.4", "text", "0.00000125", "token", output_price="0.00001"),
    ]
)

OPENAI_COMPATIBLE = _index_by_id(
    [
        _speech_model("speaches-ai/Kokoro-82M-v1.0-ONNX", "0", voices=("af_heart", "am_adam")),
        _speech_model("tts-1", "0", voices=OPENAI_VOICES, supports_speed=True),
        _transcription_model("Systran/faster-whisper-large-v3", "0", response_formats=_ALL_RESPONSE_FORMATS),
        _transcription_model("whisper-1", "0", response_formats=_ALL_RESPONSE_FORMATS),
    ]
)


def build_openrouter_card(model: Model) -> dict[str, Any]:
    """Return the entry of a model in `/models` of OpenRouter."""
    is_transcription = model.kind == "transcription"
    inputs = ["audio"] if is_transcription else ["text", "audio"] if model.kind == "chat" else ["text"]
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
        "pricing": _build_pricing(model),
        "top_provider": {"context_length": None, "max_completion_tokens": None, "is_moderated": False},
        "per_request_limits": None,
        "supported_parameters": ["max_tokens", "temperature"] if model.kind in ("chat", "text") else [],
        "default_parameters": {},
        "supported_voices": list(model.voices) if model.voices is not None else None,
        "knowledge_cutoff": None,
        "expiration_date": model.shutdown_date,
        "links": {"details": f"/api/v1/models/{model.id}/endpoints"},
    }


def _build_pricing(model: Model) -> dict[str, str]:
    pricing = {"prompt": model.price, "completion": model.output_price}
    if model.kind != "chat":
        return pricing
    audio_pricing = {"audio": str(8 * Decimal(model.price)), "audio_output": str(8 * Decimal(model.output_price))}
    return pricing | audio_pricing


def build_short_card(model: Model) -> dict[str, Any]:
    """Return the entry of a model at a gateway that does not list voices."""
    card = build_openrouter_card(model)
    return {name: value for name, value in card.items() if name not in ("supported_voices", "links")}


def build_narrow_card(model: Model) -> dict[str, Any]:
    """Return the entry of a model at a gateway without voices, whose only modalities are text and audio."""
    card = build_short_card(model)
    outputs = {"speech": ["audio"], "transcription": ["text"]}.get(model.kind)
    if outputs:
        inputs = card["architecture"]["input_modalities"]
        card["architecture"] |= {"modality": f"{inputs[0]}->{outputs[0]}", "output_modalities": outputs}
    return card
