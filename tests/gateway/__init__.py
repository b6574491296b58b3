"""A mock of AI audio gateways: an HTTP server on loopback that validates requests and injects faults.

It serves the dialects of OpenRouter, OpenAI, Groq, TheRouter, ARouter and of an OpenAI-compatible server. Prices and
audio are deterministic, so that tests can compute the expected bytes and costs.
"""

from .audio_synthesis import detect_format, encode, expected_audio, expected_pcm
from .billing import Charge
from .chat_replies import DEFAULT_CHAT_REPLY
from .faults import (
    ChatFault,
    CleanTruncation,
    CutAfter,
    CutBeforeResponse,
    Drip,
    Empty,
    EventStreamFault,
    Fault,
    Garbage,
    Html,
    MegabyteLine,
    NoFault,
    OkWithError,
    OpenEndedWav,
    OtherFormat,
    RateLimitBurst,
    Redirect,
    Stall,
    Status,
    SubstituteModel,
    TextAsJson,
    WrongTypes,
)
from .recorded_request import RecordedRequest
from .server import MockGateway, find_closed_port
from .transcripts import DEFAULT_TRANSCRIPT, MockTranscript, expected_segments, expected_words

KEYS = {
    "openrouter": "sk-or-test",
    "openai": "sk-test",
    "groq": "gsk-test",
    "therouter": "sk-tr-test",
    "arouter": "lr_live_test",
    "plain": None,
}
"""A valid key for each dialect; `plain` needs none."""

__all__ = [
    "DEFAULT_CHAT_REPLY",
    "DEFAULT_TRANSCRIPT",
    "KEYS",
    "Charge",
    "ChatFault",
    "CleanTruncation",
    "CutAfter",
    "CutBeforeResponse",
    "Drip",
    "Empty",
    "EventStreamFault",
    "Fault",
    "Garbage",
    "Html",
    "MegabyteLine",
    "MockGateway",
    "MockTranscript",
    "NoFault",
    "OkWithError",
    "OpenEndedWav",
    "OtherFormat",
    "RateLimitBurst",
    "RecordedRequest",
    "Redirect",
    "Stall",
    "Status",
    "SubstituteModel",
    "TextAsJson",
    "WrongTypes",
    "detect_format",
    "encode",
    "expected_audio",
    "expected_pcm",
    "expected_segments",
    "expected_words",
    "find_closed_port",
]
