"""What is current: the trace, and the event in it, that the running code works for.

    >>> from tailrace import Trace, current_trace
    >>> from tailrace.testing import MemoryLogger
    >>> with Trace(logger=MemoryLogger()) as trace:
    ...     current_trace() is trace
    True
    >>> current_trace() is None
    True

Each thread and each asyncio task has its own. A task, `asyncio.to_thread` and `contextvars.copy_context().run`
start with what was current where they were made; a plain `threading.Thread` and the workers of an executor start
with nothing.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tailrace.events import TraceEvent
    from tailrace.trace import Trace


class Entry:
    """One `with` block that is running; immutable, so that tasks can share what is below them.

    Args:
        owner: The object whose block it is, by which it is found again.
        trace: What `current_trace()` is inside.
        event: What `current_event()` is inside.
        below: The block around it.
        began_ns: When it was entered, on the monotonic clock.
    """

    __slots__ = ("began_ns", "below", "event", "owner", "trace")

    def __init__(
        self, owner: object, trace: Trace, event: TraceEvent | None, below: Entry | None, began_ns: int = 0
    ) -> None:
        self.owner = owner
        self.trace = trace
        self.event = event
        self.below = below
        self.began_ns = began_ns


# A context variable has to be a module's: this is the one place that holds it.
_TOP: ContextVar[Entry | None] = ContextVar("tailrace", default=None)


def current_trace() -> Trace | None:
    """The trace of the innermost `with trace:`, `with event:` or `traced` block that runs here; None outside of all."""
    top = _TOP.get()
    return None if top is None else top.trace


def current_event() -> TraceEvent | None:
    """The innermost `with event:` block that runs here, unless a `with trace:` of another trace is inside it."""
    top = _TOP.get()
    return None if top is None else top.event


def top() -> Entry | None:
    """The innermost block that runs here."""
    return _TOP.get()


def enter(owner: object, trace: Trace, event: TraceEvent | None = None, began_ns: int = 0) -> None:
    """Make a trace, and an event in it, current. Without an event, that of the same trace stays current."""
    below = _TOP.get()
    if event is None and below is not None and below.trace is trace:
        event = below.event
    _TOP.set(Entry(owner, trace, event, below, began_ns))


def leave(owner: object) -> Entry | None:
    """Make current again what was so before `owner` entered; its entry, or None when it is not in this context.

    Blocks that were entered later and never left (an abandoned generator) are left with it. No token of the
    context variable is kept, so leaving in another context than the one that was entered does nothing.
    """
    entry = _TOP.get()
    while entry is not None:
        if entry.owner is owner:
            _TOP.set(entry.below)
            return entry
        entry = entry.below
    return None
