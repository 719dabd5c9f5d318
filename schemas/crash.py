"""Named points at which a process can be made to end, as if by SIGKILL, for the fault harness in tests/crash.

    TAILRACE_CRASH_AT=ingest.after-intent:3     the third time that this point is passed
    TAILRACE_CRASH_AT=ship.after-commit         the first time
    TAILRACE_CRASH_AT=ship.after-commit:1:STOP  with SIGSTOP: a process that is paused just there

Unset, as in production, a point costs one comparison.
"""

from __future__ import annotations

import os
import signal
from typing import Literal, get_args

Point = Literal[
    "ingest.before-intent",
    "ingest.after-intent",
    "ingest.before-table",
    "ingest.after-table",
    "ingest.before-ledger",
    "ingest.after-ledger",
    "ingest.before-commit",
    "ingest.after-commit",
    "ship.before-intent",
    "ship.after-intent",
    "ship.before-store",
    "ship.after-store",
    "ship.before-checkpoint",
    "ship.amid-checkpoint",
    "ship.after-checkpoint",
    "ship.before-transaction",
    "ship.after-records",
    "ship.before-commit",
    "ship.after-commit",
    "replay.after-announce",
    "replay.after-store",
    "replay.after-outcome",
    "backfill.before-intent",
    "backfill.after-intent",
    "backfill.after-store",
    "backfill.before-file",
]
POINTS: tuple[str, ...] = get_args(Point)
"""Every point, in the order in which a line passes them."""
VARIABLE = "TAILRACE_CRASH_AT"


class _Armed:
    """The point that the environment names, and how many passes are left."""

    def __init__(self, setting: str) -> None:
        self.name, _, rest = setting.partition(":")
        count, _, how = rest.partition(":")
        if self.name not in POINTS:
            raise ValueError(f"{VARIABLE}={setting}: no such point; there are {', '.join(POINTS)}")
        self.left = int(count or "1")
        self.signal = signal.Signals[f"SIG{how or 'KILL'}"]


_ARMED = _Armed(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None


def crash_point(name: Point) -> None:
    """Ends this process here, if the environment says so. Nothing is flushed, closed or told to anyone."""
    if _ARMED is not None and _ARMED.name == name:
        _ARMED.left -= 1
        if _ARMED.left == 0:
            os.kill(os.getpid(), _ARMED.signal)
