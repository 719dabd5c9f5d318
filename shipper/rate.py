"""How fast one log may be read, so that a service which writes without end neither fills Kafka nor keeps others waiting.

What is over the rate stays in the file and is read later: nothing is lost, as long as whoever rotates the file does not delete it
and the disk holds it. Files are told apart by the path under which they were first seen, so a log that is rotated by renaming has
one allowance with its successors.
"""

from __future__ import annotations

BURST_SECONDS = 1.0
"""A log that was quiet may be read so many seconds' worth at once."""


class Allowances:
    """What each log may still be read now. Pure: it is told the time.

    Args:
        bytes_per_second: Of one log; 0 for no limit.
    """

    def __init__(self, bytes_per_second: int) -> None:
        self._rate = bytes_per_second
        self._left: dict[str, tuple[float, float]] = {}  # by log: bytes, and when that was

    def allows(self, log: str, now: float) -> bool:
        """Whether anything of it may be read. One that was read in larger pieces than its rate pays for that first."""
        return not self._rate or self._now(log, now) > 0

    def spend(self, log: str, size: int, now: float) -> None:
        """So many bytes of it were read."""
        if self._rate:
            self._left[log] = (self._now(log, now) - size, now)

    def held_back(self, now: float) -> set[str]:
        """Logs that have to wait. May be called while another thread reads."""
        return {log for log in list(self._left) if not self.allows(log, now)}

    def forget_idle(self, now: float) -> None:
        """Drop what is as if it had never been read."""
        full = self._rate * BURST_SECONDS
        self._left = {log: each for log, each in self._left.items() if self._now(log, now) < full}

    def _now(self, log: str, now: float) -> float:
        full = self._rate * BURST_SECONDS
        left, then = self._left.get(log, (full, now))
        return min(full, left + self._rate * max(0.0, now - then))
