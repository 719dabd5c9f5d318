"""What is shown while something runs for long: one live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

from tailrace.cli.logs import say

_TERMINAL_SECONDS = 0.2
_PLAIN_SECONDS = 10.0


async def shown_while(work: Coroutine[Any, Any, Any], line: Callable[[float], str]) -> None:
    """Runs `work` and shows its progress on stderr, so that stdout stays for results.

    Args:
        work: What to run; its exceptions pass through, its result is dropped.
        line: Given the seconds since the start, one line of text.
    """
    if sys.stderr.isatty():
        from rich.console import Console  # takes longer than to start most commands

        with Console(stderr=True).status(line(0.0)) as status:
            await told_while(work, _TERMINAL_SECONDS, lambda seconds: status.update(line(seconds)))
    else:
        await told_while(work, _PLAIN_SECONDS, lambda seconds: say(line(seconds)))


async def told_while(work: Coroutine[Any, Any, Any], every: float, tell: Callable[[float], object]) -> None:
    """Runs `work` and calls `tell`, with the seconds since the start, every so many seconds until it ends.

    The exceptions of `work` pass through, its result is dropped; it is cancelled with its caller, or when `tell` fails.
    """
    import asyncio  # a command that has nothing to do needs it for nothing

    began = time.monotonic()
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait([task], timeout=every))[0]:
            tell(time.monotonic() - began)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
    task.result()


def rate(count: float, seconds: float) -> str:
    """A count per second for people: `85,100/s`."""
    return f"{count / seconds:,.0f}/s" if seconds > 0 else "-"


def size(count: float) -> str:
    """Bytes for people, in powers of 1000: `475.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
