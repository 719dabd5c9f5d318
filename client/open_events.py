"""Which LLM events are open, so that those which are left so at exit can be marked."""

from __future__ import annotations

import atexit
import os
from typing import TYPE_CHECKING, Any
from weakref import ref

if TYPE_CHECKING:
    from tailrace.events import TraceEvent


class OpenEvents:
    """The open events of this process.

    They are held weakly: an event that nobody can end any more is forgotten, and stays open for its readers because
    no line says that it ended. A forked child starts with none, since its parent's are its parent's to end.
    """

    def __init__(self) -> None:
        self._open: set[ref[TraceEvent]] = set()
        self._at_exit = False
        os.register_at_fork(after_in_child=self._forget)

    def add(self, event: TraceEvent) -> ref[TraceEvent]:
        """An event began. What is returned is for `remove`."""
        if not self._at_exit:
            # Not before: what is registered last is called first, and the logger is there already.
            self._at_exit = True
            atexit.register(self.mark)
        reference = ref(event, self._open.discard)
        self._open.add(reference)
        return reference

    def remove(self, reference: ref[TraceEvent] | None) -> None:
        """An event ended."""
        if reference is not None:
            self._open.discard(reference)

    def mark(self, logger: Any = None) -> None:
        """End the open events of a logger (of all, for None) in status `open`."""
        for reference in list(self._open):
            event = reference()
            if event is not None and (logger is None or event.logger is logger):
                event.leave_open()

    def _forget(self) -> None:
        self._open = set()


# What `atexit` is told of has to be found there: the one registry of the process.
OPEN_EVENTS = OpenEvents()


def mark_open_events(logger: Any) -> None:
    """Mark the events that are still open as left open; for a logger that is about to be closed. Never raises."""
    OPEN_EVENTS.mark(logger)
