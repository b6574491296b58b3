"""Decode, encode, convert and split audio with PyAV (FFmpeg)."""
