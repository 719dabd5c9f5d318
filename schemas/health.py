"""Whether a process can do its work: facts that its parts keep while they work, and what follows from them.

Nothing here does IO. Whoever talks to the other side notes in a `Reach` how that went; whoever is asked for health turns
the facts of this moment into `Check`s.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tailrace.schemas.diagnosis import Check, fail, ok
from tailrace.schemas.metrics import Reading

QUIET_SECONDS = 5.0
"""After so long without an answer a look at health asks for one: a side that is not needed just now may be away."""
ASK_SECONDS = 5.0
"""How long such a question may take."""
SILENT_SECONDS = 60.0
"""After so long without an answer the other side counts as away, though nothing has failed."""
STALLED_SECONDS = 120.0
"""After so long with something to do and nothing done, a process is stuck."""


@dataclass(slots=True)
class Reach:
    """How it stands with one side that this process talks to. Changed by the part that talks to it.

    Args:
        side: Who, for people.
        answered: When it answered last, in monotonic seconds; `None` before the first time.
        trouble: What is wrong, as the last attempt said; '' while it answers.
        retries: Attempts since the start that failed for a passing cause.
    """

    side: str
    answered: float | None = None
    trouble: str = ""
    retries: int = 0

    def answer(self, now: float) -> None:
        """It answered at `now`."""
        self.answered, self.trouble = now, ""

    def fail(self, trouble: str) -> None:
        """It does not answer, or says no."""
        self.trouble = trouble

    def retry(self, trouble: str) -> None:
        """An attempt at real work failed, and will be made again."""
        self.retries += 1
        self.trouble = trouble

    def is_quiet(self, now: float) -> bool:
        """Whether it should be asked, to know how it stands."""
        return bool(self.trouble) or self.answered is None or now - self.answered >= QUIET_SECONDS

    def check(self, now: float) -> Check:
        """Whether it was reached lately."""
        remedy = f"see that {self.side} runs and can be reached from here"
        if self.trouble:
            return fail(self.side, self.trouble, remedy)
        if self.answered is None:
            return fail(self.side, "not reached yet", remedy)
        silent = now - self.answered
        if silent > SILENT_SECONDS:
            return fail(self.side, f"silent for {silent:.0f} s", remedy)
        return ok(self.side, "answers")


def moves(stalled: float, limit: float = STALLED_SECONDS) -> Check:
    """Whether there is progress.

    Args:
        stalled: Seconds with something to do and nothing done.
        limit: How many are too many.
    """
    if stalled > limit:
        remedy = "read the log for what it waits for; if that says nothing, restart it: no line is lost or repeated"
        return fail("progress", f"nothing was done for {stalled:.0f} s although there is work", remedy)
    return ok("progress", "nothing waits" if not stalled else f"waiting for {stalled:.1f} s")


class Observed(Protocol):
    """A part of the process that tells how it is. Everything is called in the event loop."""

    async def refresh(self) -> None:
        """Find out what the work itself does not tell: ask a side that was quiet. Ends within seconds, raises nothing."""
        ...

    def readings(self) -> Iterable[Reading]:
        """What its metrics say now."""
        ...

    def checks(self) -> Sequence[Check]:
        """What is well and what is not. The process is ready when none of them failed."""
        ...
