"""Sessions: handles that outlive a request, with what SET, USE and CREATE TEMPORARY TABLE left in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tailrace.explorer.front.engine import Handle
from tailrace.explorer.front.refusal import Refusal


@dataclass
class Session:
    """One session.

    Args:
        name: Its `session_id`.
        handle: Opened with the session's first statement.
        database: What it last used; empty before that.
        assigned: What its SET statements set, as they wrote it, to be restored after a request set something else.
        busy: A request is using it.
        expires: When it may be forgotten, on the clock that `Sessions` is given.
    """

    name: str
    handle: Handle | None = None
    database: str = ""
    assigned: dict[str, bytes] = field(default_factory=dict)
    busy: bool = False
    expires: float = 0.0


class Sessions:
    """All sessions. To be called from one thread only; `now` is any clock that never goes back, in seconds.

    Args:
        most: How many may live at the same time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._sessions: dict[str, Session] = {}

    def take(self, name: str, must_exist: bool, now: float) -> Session:
        """The session of that name, made on first use. `give_back` follows.

        Raises:
            Refusal: Another request is using it, it should exist and does not, or there are too many.
        """
        session = self._sessions.get(name)
        if session is None:
            if must_exist:
                raise Refusal(372, f"Session {name} not found")
            if len(self._sessions) >= self._most:
                raise Refusal(202, f"Too many sessions; at most {self._most} may live at the same time")
            session = self._sessions[name] = Session(name)
        elif session.busy:
            raise Refusal(373, f"Session {name} is locked by a concurrent client")
        session.busy = True
        session.expires = now
        return session

    def give_back(self, session: Session, lifetime: float, now: float) -> None:
        """The request is done; the session lives for `lifetime` seconds more."""
        session.busy = False
        session.expires = now + lifetime

    def expired(self, now: float) -> list[Session]:
        """Takes out the sessions whose time is over; whoever calls closes their handles."""
        return self._take_out(lambda session: session.expires <= now and not session.busy)

    def drain(self) -> list[Session]:
        """Takes out all that no request is using."""
        return self._take_out(lambda session: not session.busy)

    def _take_out(self, which: Callable[[Session], bool]) -> list[Session]:
        found = [session for session in self._sessions.values() if which(session)]
        for session in found:
            del self._sessions[session.name]
        return found
