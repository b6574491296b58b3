"""Slices of computing, off the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def off_the_loop(call: Callable[[], T]) -> T:
    """Run one slice of work in a thread. A slice cannot be left, so when we are cancelled its end is awaited.

    Slices should take 50 ms at most: that is how long Ctrl-C may have to wait.
    """
    task = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
