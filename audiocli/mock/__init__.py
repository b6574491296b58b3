"""A mock of AI audio gateways: an HTTP server on loopback that validates requests and injects faults.

It serves the dialects of OpenRouter, OpenAI, Groq, TheRouter, ARouter and of an OpenAI-compatible server. Prices and
audio are deterministic, so that tests can compute the expected bytes and costs.
"""

from .audio_codec import AudioCodec, UndecodableAudio, detect_format
from .audio_synthesis import expected_pcm
from .billing import Charge
from .chat_replies import DEFAULT_CHAT_REPLY
from .dialects import KEYS
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

__all__ = [
    "DEFAULT_CHAT_REPLY",
    "DEFAULT_TRANSCRIPT",
    "KEYS",
    "AudioCodec",
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
    "UndecodableAudio",
    "WrongTypes",
    "detect_format",
    "expected_pcm",
    "expected_segments",
    "expected_words",
    "find_closed_port",
]
