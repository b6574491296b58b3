"""Speech and transcription through AI gateways, from the command line."""

__version__ = "0.1.0"
