"""Transcribe many recordings: output paths, item state, cached transcripts and the worker pool."""
