"""Where an application that talks to language models begins: traces that know their conversation and their user."""

from __future__ import annotations

from typing import Any

from tailrace.logger import Logger
from tailrace.trace import Trace


class Metadata(dict[str, Any]):
    """Facts about a trace, as keywords; a dict like any other.

    >>> Metadata(environment="production", release=7)
    {'environment': 'production', 'release': 7}
    """

    __slots__ = ()


class User(dict[str, Any]):
    """Who a trace is for; a dict with the key `id`.

    >>> User(id="user_123", plan="pro")
    {'id': 'user_123', 'plan': 'pro'}

    Args:
        id: By which the user's traces are found; written as text.
        facts: Anything else.
    """

    __slots__ = ()

    def __init__(self, id: Any, **facts: Any) -> None:
        super().__init__(id=id, **facts)


class Client:
    """Makes traces that say what they belong to.

    >>> from tailrace.testing import MemoryLogger
    >>> logger = MemoryLogger()
    >>> trace = Client(logger).trace(conversation_id="conv_123", session_id="session_123")
    >>> message = trace.message("User: What's the weather?")
    >>> message.end("Bot: It's sunny!")
    >>> trace.feedback(feedback_tag="THUMBS_UP", feedback_text="User marked response as helpful")

    Args:
        logger: Where the lines go.
    """

    def __init__(self, logger: Logger) -> None:
        self._logger = logger

    @property
    def logger(self) -> Logger:
        """Where the lines go."""
        return self._logger

    def trace(
        self,
        trace_id: str | None = None,
        *,
        name: str | None = None,
        conversation_id: str | None = None,
        session_id: str | None = None,
        metadata: Any = None,
        user: Any = None,
    ) -> Trace:
        """Begin a trace. Never raises.

        Args:
            trace_id: As for `Trace`.
            name: As for `Trace.context`.
            conversation_id: As for `Trace.context`.
            session_id: As for `Trace.context`.
            metadata: As for `Trace.context`.
            user: As for `Trace.context`.
        """
        trace = Trace(self._logger, trace_id)
        if any(said is not None for said in (name, conversation_id, session_id, metadata, user)):
            trace.context(
                name=name,
                conversation_id=conversation_id,
                session_id=session_id,
                metadata=metadata,
                user=user,
            )
        return trace
