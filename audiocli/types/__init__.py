"""Immutable values that all packages share, a module for each area."""
