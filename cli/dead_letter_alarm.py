"""`--max-dead-letters` of `up` and `ingest`: a log line when it is passed, and the exit code of a run that ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from tailrace.cli.logs import say

if TYPE_CHECKING:
    from tailrace.ingestor.insert import InsertStats

log = logging.getLogger("tailrace.ingestor")
_LOOK_SECONDS = 1.0

MaxDeadLetters = Annotated[
    str,
    typer.Option(
        envvar="TAILRACE_MAX_DEAD_LETTERS",
        metavar="COUNT|SHARE%",
        show_default="no limit",
        help="More dead letters than this are an alarm: an error in the log, and exit code 1 with --once. `100` counts "
        "those of the run, `0.5%` is their share of the last minute's lines (with --once of all).",
    ),
]


@asynccontextmanager
async def watched(limit: str, stats: InsertStats) -> AsyncIterator[None]:
    """While inside, an error is logged each time that the limit is passed anew.

    Args:
        limit: As given; '' for none.
        stats: Totals that grow.

    Raises:
        ConfigError: The limit is neither a count nor a share.
    """
    from tailrace.ingestor.alarm import DeadLetterAlarm, DeadLetterLimit

    if not limit:
        yield
        return
    alarm = DeadLetterAlarm(DeadLetterLimit.parse(limit))

    def look() -> None:
        if said := alarm.observe(time.monotonic(), stats.lines, stats.dead_letters):
            log.error("%s", said)

    async def keep_looking() -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            look()

    task = asyncio.create_task(keep_looking())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        look()


def exit_if_exceeded(limit: str, stats: InsertStats) -> None:
    """Ends a run that processed what was there.

    Raises:
        typer.Exit: With code 1, when its dead letters are more than the limit allows.
    """
    from tailrace.ingestor.alarm import DeadLetterLimit

    if limit and DeadLetterLimit.parse(limit).exceeded(stats.lines, stats.dead_letters):
        say(
            f"tailrace: {stats.dead_letters:,} of {stats.lines:,} lines became dead letters, more than "
            f"--max-dead-letters {limit} allows: `tailrace dead-letters list` says which and why",
            logging.ERROR,
        )
        raise typer.Exit(1)
