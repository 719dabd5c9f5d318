"""What a shipper did so far, for progress displays and reports."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tailrace.schemas.metrics import Latency
from tailrace.shipper.tail import Loss


@dataclass
class Stats:
    """Counts since the start of the process, of what was acknowledged. Changed by the pipeline only."""

    lines: int = 0
    """Blank ones included."""
    bytes: int = 0
    """Of the files, newlines included."""
    batches: int = 0
    oversized: int = 0
    """Lines over the limit, delivered as their head; they are part of `lines`."""
    files: int = 0
    """Followed now."""
    lag_bytes: int = 0
    """In the files and not acknowledged yet."""
    held_back: int = 0
    """Files that wait because their log is written faster than `log_rate` now."""
    lost: Counter[Loss] = field(default_factory=Counter)
    """Bytes lost for sure (or, for `in_doubt`, perhaps), by cause."""
    seconds: float = 0.0
    """Since the start."""
    latency: Latency = field(default_factory=Latency)
    """Of batches, from handing one over to its acknowledgement."""
    delivered_at: float | None = None
    """When a batch was acknowledged last, in seconds since the epoch."""
    moved: float = float("-inf")
    """When a batch was acknowledged last, or nothing was left to deliver, in monotonic seconds."""

    @property
    def lost_bytes(self) -> int:
        """Over all causes."""
        return sum(self.lost.values())

    def report(self) -> dict[str, Any]:
        """As one document that scripts can rely on."""
        return {
            "lines": self.lines,
            "bytes": self.bytes,
            "batches": self.batches,
            "oversized": self.oversized,
            "files": self.files,
            "lag_bytes": self.lag_bytes,
            "lost_bytes": {cause.value: self.lost[cause] for cause in Loss},
            "seconds": round(self.seconds, 3),
        }
