"""The way between the storing process and a worker that is one of its own threads: messages are handed over, not copied."""

from __future__ import annotations

import threading
from typing import Any, Protocol


class End(Protocol):
    """One side of a channel; a `multiprocessing` connection is one too."""

    def send(self, message: Any) -> None:
        """Hands a message over; blocks while the other side is behind.

        Raises:
            ConnectionError: The channel is closed.
        """
        ...

    def recv(self) -> Any:
        """The next message; blocks until there is one.

        Raises:
            EOFError: The channel is closed, and nothing is left in it.
        """
        ...

    def close(self) -> None:
        """Closes the channel; who waits at the other side is told."""
        ...


class _Lane:
    """One direction. Holds one message at most, so that no side runs ahead of the other."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._held: list[Any] = []
        self._closed = False

    def put(self, message: Any) -> None:
        with self._turn:
            self._turn.wait_for(lambda: self._closed or not self._held)
            if self._closed:
                raise BrokenPipeError("the other side is gone")
            self._held.append(message)
            self._turn.notify_all()

    def get(self) -> Any:
        with self._turn:
            self._turn.wait_for(lambda: self._closed or self._held)
            if not self._held:
                raise EOFError
            self._turn.notify_all()
            return self._held.pop()

    def close(self) -> None:
        with self._turn:
            self._closed = True
            self._turn.notify_all()


class LocalEnd:
    """An `End` between two threads.

    Args:
        outgoing: What this side says.
        incoming: What the other says.
    """

    def __init__(self, outgoing: _Lane, incoming: _Lane) -> None:
        self._outgoing = outgoing
        self._incoming = incoming

    def send(self, message: Any) -> None:
        """See `End`."""
        self._outgoing.put(message)

    def recv(self) -> Any:
        """See `End`."""
        return self._incoming.get()

    def close(self) -> None:
        """See `End`."""
        self._outgoing.close()
        self._incoming.close()


def local_pair() -> tuple[LocalEnd, LocalEnd]:
    """The two ends of a channel."""
    there, back = _Lane(), _Lane()
    return LocalEnd(there, back), LocalEnd(back, there)
