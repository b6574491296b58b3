"""The double of AI audio gateways: a real HTTP server on loopback that minds the rules and plays scripted faults."""

from .bill import Charged
from .faults import (
    Answer,
    CleanTruncation,
    CutAfter,
    CutBeforeReply,
    Drip,
    Empty,
    Events,
    Fault,
    Garbage,
    Html,
    MegabyteLine,
    Normal,
    OkWithError,
    OpenEndedWav,
    OtherFormat,
    RateStorm,
    Redirect,
    Stall,
    Status,
    Swapped,
    TextAsJson,
    WrongTypes,
    ok_with_error,
)
from .seen import Seen
from .server import LoopbackGateway, closed_port
from .sound import encode, expected_audio, expected_pcm, sniff
from .talk import ANSWER
from .words import DEFAULT_TEXT, Said, expected_segments, expected_words

KEYS = {
    "openrouter": "sk-or-test",
    "openai": "sk-test",
    "groq": "gsk-test",
    "therouter": "sk-tr-test",
    "arouter": "lr_live_test",
    "plain": None,
}
"""A key that each gateway takes."""

__all__ = [
    "ANSWER",
    "DEFAULT_TEXT",
    "KEYS",
    "Answer",
    "Charged",
    "CleanTruncation",
    "CutAfter",
    "CutBeforeReply",
    "Drip",
    "Empty",
    "Events",
    "Fault",
    "Garbage",
    "Html",
    "LoopbackGateway",
    "MegabyteLine",
    "Normal",
    "OkWithError",
    "OpenEndedWav",
    "OtherFormat",
    "RateStorm",
    "Redirect",
    "Said",
    "Seen",
    "Stall",
    "Status",
    "Swapped",
    "TextAsJson",
    "WrongTypes",
    "closed_port",
    "encode",
    "expected_audio",
    "expected_pcm",
    "expected_segments",
    "expected_words",
    "ok_with_error",
    "sniff",
]
