"""A mock of AI audio gateways: an HTTP server on loopback that validates requests and injects faults.

It serves the dialects of OpenRouter, OpenAI, Groq, TheRouter, ARouter and of an OpenAI-compatible server. Prices and
audio are deterministic, so that tests can compute the expected bytes and costs.
"""

from .access import LOOPBACK_HOSTS, Access
from .audio_codec import AudioCodec, UndecodableAudio, detect_format
from .audio_synthesis import expected_pcm
from .billing import Charge
from .chat_replies import DEFAULT_CHAT_REPLY
from .dialects import KEYS
from .engine import EngineError, EngineModel, EngineSpeech, EngineTranscription, SpeechEngine
from .fault_specs import FaultSpec, InvalidSpec, parse_fault_spec
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
    WrongSpeech,
    WrongTypes,
)
from .field_validation import Refusal
from .recorded_request import RecordedRequest
from .response_script import InvalidScript, ResponseScript, read_script
from .server import MockGateway, find_closed_port
from .transcripts import DEFAULT_TRANSCRIPT, MockTranscript, expected_segments, expected_words

__all__ = [
    "DEFAULT_CHAT_REPLY",
    "DEFAULT_TRANSCRIPT",
    "KEYS",
    "LOOPBACK_HOSTS",
    "Access",
    "AudioCodec",
    "Charge",
    "ChatFault",
    "CleanTruncation",
    "CutAfter",
    "CutBeforeResponse",
    "Drip",
    "Empty",
    "EngineError",
    "EngineModel",
    "EngineSpeech",
    "EngineTranscription",
    "EventStreamFault",
    "Fault",
    "FaultSpec",
    "Garbage",
    "Html",
    "InvalidScript",
    "InvalidSpec",
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
    "Refusal",
    "ResponseScript",
    "SpeechEngine",
    "Stall",
    "Status",
    "SubstituteModel",
    "TextAsJson",
    "UndecodableAudio",
    "WrongSpeech",
    "WrongTypes",
    "detect_format",
    "expected_pcm",
    "expected_segments",
    "expected_words",
    "find_closed_port",
    "parse_fault_spec",
    "read_script",
]
