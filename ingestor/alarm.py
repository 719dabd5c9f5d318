"""When too many lines become dead letters: a pure decision over totals and `now`."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from tailrace.schemas.errors import ConfigError

WINDOW_SECONDS = 60.0
FEWEST_LINES = 100
"""A share of fewer lines than this says nothing yet."""
_LIMIT = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)\s*(%?)")


@dataclass(frozen=True, slots=True)
class DeadLetterLimit:
    """How many dead letters are too many.

    Args:
        count: So many in a run, or `None`.
        share: Of all lines, from 0 to 1, or `None`.
    """

    count: int | None = None
    share: float | None = None

    @classmethod
    def parse(cls, text: str) -> DeadLetterLimit:
        """`100` is a count, `0.5%` a share.

        Raises:
            ConfigError: It is neither.
        """
        found = _LIMIT.fullmatch(text.strip())
        if found is not None:
            number, percent = float(found[1]), bool(found[2])
            if percent and number <= 100:
                return cls(share=number / 100)
            if not percent and number.is_integer():
                return cls(count=int(number))
        raise ConfigError(
            f"--max-dead-letters {text!r:.40}: write a count as 100, or a share of all lines as 0.5%"
        )

    def exceeded(self, lines: int, dead_letters: int) -> bool:
        """Whether so many dead letters among so many lines are too many; as many as the limit says are not."""
        if self.count is not None:
            return dead_letters > self.count
        return self.share is not None and dead_letters > self.share * lines

    def __str__(self) -> str:
        return f"{self.count:,}" if self.count is not None else f"{(self.share or 0) * 100:g} %"


class DeadLetterAlarm:
    """Watches totals that grow. A count is of the whole run; a share is of the last minute, so that a service that
    begins to write garbage is noticed however many good lines came before it.

    Args:
        limit: What is too many.
        window: Seconds that a share looks back.
    """

    def __init__(self, limit: DeadLetterLimit, window: float = WINDOW_SECONDS) -> None:
        self._limit = limit
        self._window = window
        self._seen: deque[tuple[float, int, int]] = deque([(float("-inf"), 0, 0)])
        self.raised = False
        """Whether it was too many at the last look."""

    def observe(self, now: float, lines: int, dead_letters: int) -> str | None:
        """One look at the totals.

        Args:
            now: Seconds, growing.
            lines: All lines since the start.
            dead_letters: Those of them that became dead letters.

        Returns:
            A sentence when it has just become too many; `None` otherwise, also while it stays so.
        """
        seen = self._seen
        seen.append((now, lines, dead_letters))
        while len(seen) > 2 and seen[1][0] <= now - self._window:
            seen.popleft()
        before = seen[0]
        some_lines, some_letters = lines, dead_letters
        if self._limit.share is not None:
            some_lines, some_letters = lines - before[1], dead_letters - before[2]
        enough = self._limit.share is None or some_lines >= FEWEST_LINES
        was, self.raised = self.raised, enough and self._limit.exceeded(some_lines, some_letters)
        if not self.raised or was:
            return None
        return (
            f"{some_letters:,} of {some_lines:,} lines became dead letters, more than --max-dead-letters {self._limit}: "
            "`tailrace dead-letters list` says which and why"
        )
