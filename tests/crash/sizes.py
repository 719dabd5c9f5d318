"""How much is written and broken: `SHORT` in every test run, `long_sizes` with `make soak`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Of one run.

    Args:
        name: Shown in the table.
        seed: Of everything that is left to chance.
        writers: Processes that append.
        lines: That all writers together write at least.
        rotations: Of all writers together at least.
        kills: At random times, of each kind of process that a scenario kills.
        broker_kills: Likewise, of the broker.
        pauses: How often a process is stopped for longer than its timeouts.
        seconds: In which the lines are written when nothing is faster.
        partitions: Of the topic.
        batch_seconds: Of the ingestor. Parts are never merged here, and thousands of them make every query slow,
            so a long run makes fewer of them.
    """

    name: str
    seed: int
    writers: int
    lines: int
    rotations: int
    kills: int
    broker_kills: int
    pauses: int
    seconds: float
    partitions: int
    batch_seconds: float

    @property
    def pace(self) -> tuple[str, ...]:
        """Options of the ingestor."""
        return (
            "--batch-seconds",
            str(self.batch_seconds),
            "--batch-rows",
            str(int(8000 * self.batch_seconds)),
        )


def short_sizes(environ: Mapping[str, str] = os.environ) -> Sizes:
    """Seconds for each scenario; another `TAILRACE_CRASH_SEED` gives another run."""
    return Sizes("short", int(environ.get("TAILRACE_CRASH_SEED", "1")), 4, 8_000, 8, 3, 1, 1, 8.0, 4, 0.05)


def long_sizes(environ: Mapping[str, str] = os.environ) -> Sizes:
    """Half an hour for each of the large scenarios; `TAILRACE_SOAK_KILLS`, `…_LINES` and `…_ROTATIONS` scale it."""

    def number(name: str, default: int) -> int:
        return int(environ.get(f"TAILRACE_SOAK_{name}", str(default)))

    kills = number("KILLS", 100)
    return Sizes(
        name="long",
        seed=int(environ.get("TAILRACE_CRASH_SEED", "1")),
        writers=4,
        lines=number("LINES", 500_000),
        rotations=number("ROTATIONS", 30),
        kills=kills,
        broker_kills=number("BROKER_KILLS", 5),
        pauses=number("PAUSES", 5),
        seconds=2.0 * kills,
        partitions=2,
        batch_seconds=1.0,
    )
