"""Transcribe many recordings: plan, worker pool, and the state of each item."""
