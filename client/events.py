"""LLM events: what an application does to answer a message, as a tree.

    >>> from tailrace import Client, Metadata, User
    >>> from tailrace.testing import MemoryLogger
    >>> logger = MemoryLogger()
    >>> trace = Client(logger).trace(
    ...     conversation_id="conv_123", metadata=Metadata(environment="production"), user=User(id="user_123")
    ... )
    >>> message = trace.message("User: Tell me about neural networks")
    >>> with message.retrieval("Searching documentation") as retrieval:
    ...     retrieval.end("Found 2 relevant articles")
    >>> generation = message.generation(model="some-model", prompt="Explain neural networks", temperature=0.2)
    >>> generation.end("Neural networks are…", input_tokens=12, output_tokens=230, cost=0.0021)
    >>> message.end("Bot: Neural networks are…")
    >>> [line["kind"] for line in logger.lines]
    ['trace', 'event_start', 'event_start', 'event_end', 'event_start', 'event_end', 'event_end']

Start and end are two lines, each written when it happens, so what a process was doing when it was killed can be
seen: the event has no end. One that is left open at a regular exit, or when its logger is closed, ends in status
`open`. None of the methods raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import urandom
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self
from weakref import ref

from tailrace.context import enter, leave
from tailrace.fields import plain_mapping
from tailrace.gen_ai import request_attributes, response_attributes, usage_attributes
from tailrace.logger import Logger
from tailrace.open_events import OPEN_EVENTS

if TYPE_CHECKING:
    from tailrace.trace import Trace

EventType = Literal["MESSAGE", "TOOL", "GENERATION", "AGENT", "RETRIEVAL", "SYSTEM", "CUSTOM"]
"""What kind of thing an event is."""


class EventSource:
    """What events begin in: a trace, or an event.

    `input` is anything JSON can hold; `name` is a short text to tell events apart by; `attributes` are further facts,
    under names such as `gen_ai.tool.name`.
    """

    __slots__ = ()

    def message(
        self, input: Any = None, *, name: str | None = None, attributes: Mapping[str, Any] | None = None
    ) -> TraceEvent:
        """Begin a MESSAGE: a turn of the conversation, from what the user says to what is answered."""
        return TraceEvent(*self._place(), "MESSAGE", input, name, attributes)

    def tool(
        self, input: Any = None, *, name: str | None = None, attributes: Mapping[str, Any] | None = None
    ) -> TraceEvent:
        """Begin a TOOL: a call of a function, a database or another service."""
        return TraceEvent(*self._place(), "TOOL", input, name, attributes)

    def generation(
        self,
        input: Any = None,
        *,
        prompt: Any = None,
        model: str | None = None,
        provider: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        name: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        **more_parameters: Any,
    ) -> Generation:
        """Begin a GENERATION: a call of a model.

        Args:
            input: What is generated, or the prompt itself.
            prompt: What the model is given; it becomes the event's input, and `input`, if there is one too, its name.
            model: The model that is asked for.
            provider: Who runs it, for example `openai`, `anthropic`, `aws.bedrock`.
            parameters: Of the request: temperature, max_tokens, top_p, stop, seed, …; see `tailrace.gen_ai`.
            name: A short text to tell events apart by.
            attributes: Further facts, under names of their own.
            more_parameters: The same as `parameters`, as keywords.
        """
        if prompt is not None:
            name = input if name is None else name
            input = prompt
        request = {"model": model, "provider": provider, **more_parameters}
        named = {"gen_ai.operation.name": "chat", **request_attributes(request)}
        if parameters is not None:
            named |= _named(parameters, request_attributes, "gen_ai.request.parameters")
        if attributes is not None:
            named |= _named(attributes, dict, "attributes")
        return Generation(*self._place(), "GENERATION", input, name, named)

    def agent(
        self, input: Any = None, *, name: str | None = None, attributes: Mapping[str, Any] | None = None
    ) -> TraceEvent:
        """Begin an AGENT: a step of reasoning and what is decided."""
        return TraceEvent(*self._place(), "AGENT", input, name, attributes)

    def retrieval(
        self, input: Any = None, *, name: str | None = None, attributes: Mapping[str, Any] | None = None
    ) -> TraceEvent:
        """Begin a RETRIEVAL: a search for documents or other context."""
        return TraceEvent(*self._place(), "RETRIEVAL", input, name, attributes)

    def system(
        self, input: Any = None, *, name: str | None = None, attributes: Mapping[str, Any] | None = None
    ) -> TraceEvent:
        """Begin a SYSTEM event: something that the infrastructure does."""
        return TraceEvent(*self._place(), "SYSTEM", input, name, attributes)

    def event(
        self, input: Any = None, *, name: str | None = None, attributes: Mapping[str, Any] | None = None
    ) -> TraceEvent:
        """Begin a CUSTOM event: anything else."""
        return TraceEvent(*self._place(), "CUSTOM", input, name, attributes)

    def _place(self) -> tuple[Trace, str]:
        """The trace, and the id of the event above."""
        raise NotImplementedError


class TraceEvent(EventSource):
    """An event that has begun: end it with `end` or `fail`, or use it as a context manager, `with` or `async with`.

    The block makes it, and its trace, current (`tailrace.current_event()`); leaving it ends the event, if that has
    not been done inside: in status `error` when an exception passes, which goes on as it is. Safe to share among
    threads. Made by the methods of `EventSource`, not directly.
    """

    __slots__ = ("__weakref__", "_event_id", "_event_type", "_open", "_parent_id", "_trace", "_unended")

    def __init__(
        self,
        trace: Trace,
        parent_id: str,
        event_type: EventType,
        input: Any,
        name: str | None,
        attributes: Mapping[str, Any] | None,
    ) -> None:
        self._trace = trace
        self._parent_id = parent_id
        self._event_type: EventType = event_type
        self._event_id = urandom(8).hex()
        # Whoever takes the one element ends the event: popping is atomic.
        self._unended = [True]
        self._open: ref[TraceEvent] | None = None
        if not trace.sampled:
            return
        try:
            fields = trace._fields()
            fields.plain(b"event_id", self._event_id)
            fields.plain(b"event_type", event_type)
            if parent_id:
                fields.plain(b"parent_id", parent_id)
            fields.text(b"name", name, "name")
            fields.json(b"input", input, "input")
            if attributes is not None:
                fields.json(b"attributes", attributes, "attributes")
            trace._emit(b"event_start", fields)
            self._open = OPEN_EVENTS.add(self)
        except Exception as exc:
            trace._dropped(exc)

    @property
    def event_id(self) -> str:
        """16 hexadecimal digits: also what `Trace.headers` gives as the parent of what another service does."""
        return self._event_id

    @property
    def parent_id(self) -> str:
        """The id of the event that this one is part of; '' at the top."""
        return self._parent_id

    @property
    def event_type(self) -> EventType:
        """What kind of thing it is."""
        return self._event_type

    @property
    def trace(self) -> Trace:
        """The trace that it belongs to."""
        return self._trace

    @property
    def logger(self) -> Logger:
        """Where its lines go."""
        return self._trace.logger

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return not self._unended

    def end(self, output: Any = None, *, status: str = "ok", usage: Any = None) -> None:
        """End the event. To end it again does nothing, and is counted.

        Args:
            output: Anything JSON can hold.
            status: `ok`, or `error` for a failure that is no exception, or a word of your own.
            usage: What it took, such as `{"input_tokens": 12, "output_tokens": 30, "cost": 0.002}`: a mapping, or the
                usage object of a provider's SDK. See `tailrace.gen_ai` for the names under which it is written.
        """
        self._finish(output, status, None, usage, {})

    def fail(self, exc: BaseException | str, *, output: Any = None, usage: Any = None) -> None:
        """End the event in status `error`.

        Args:
            exc: What went wrong; of an exception, its class and text are written.
            output: What there is of the output.
            usage: As for `end`.
        """
        self._finish(output, "error", exc, usage, {})

    def leave_open(self) -> None:
        """Mark the event as one that was still running when its process exited; nothing if it has ended."""
        if self._unended:
            self._finish(None, "open", None, None, {})

    def headers(self) -> dict[str, str]:
        """As `Trace.headers`, with this event as the parent of what the other service does."""
        from tailrace.traceparent import headers_of

        return headers_of(self._trace, self._event_id)

    def _finish(
        self,
        output: Any,
        status: str,
        exc: BaseException | str | None,
        usage: Any,
        response: Mapping[str, Any],
    ) -> None:
        trace = self._trace
        try:
            self._unended.pop()
        except IndexError:
            trace._ended_again(f"{self._event_type} {self._event_id}")
            return
        if not trace.sampled:
            return
        OPEN_EVENTS.remove(self._open)
        try:
            fields = trace._fields()
            fields.plain(b"event_id", self._event_id)
            fields.name(b"status", status)
            fields.json(b"output", output, "output")
            fields.text(b"error", _error_text(exc), "error")
            used = {} if usage is None else _named(usage, usage_attributes, "gen_ai.usage")
            if response:
                used |= response_attributes(response)
            if used:
                fields.json(b"usage", used, "usage")
            trace._emit(b"event_end", fields)
        except Exception as problem:
            trace._dropped(problem)

    def _place(self) -> tuple[Trace, str]:
        return self._trace, self._event_id

    def __enter__(self) -> Self:
        enter(self, self._trace, self)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        leave(self)
        if not self._unended:
            return
        if exc is None:
            self.end()
        else:
            self.fail(exc)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, traceback)

    def __repr__(self) -> str:
        return f"TraceEvent(event_type={self._event_type!r}, event_id={self._event_id!r}, ended={self.ended})"


class Generation(TraceEvent):
    """A call of a model that has begun."""

    __slots__ = ()

    def end(
        self,
        output: Any = None,
        *,
        status: str = "ok",
        usage: Any = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cost: float | None = None,
        model: str | None = None,
        response_id: str | None = None,
        finish_reason: str | None = None,
    ) -> None:
        """End the generation. To end it again does nothing, and is counted.

        Args:
            output: What the model answered.
            status: As for `TraceEvent.end`.
            usage: As for `TraceEvent.end`; the following three are added to it.
            input_tokens: Tokens of the prompt.
            output_tokens: Tokens of the answer.
            cost: In the currency of your choice.
            model: The model that answered, where that differs from the one that was asked for.
            response_id: The provider's id of the answer.
            finish_reason: Why it ended, for example `stop` or `length`.
        """
        known = {"input_tokens": input_tokens, "output_tokens": output_tokens, "cost": cost}
        known = {key: value for key, value in known.items() if value is not None}
        if known and usage is not None:
            known = {**_named(usage, usage_attributes, "gen_ai.usage"), **usage_attributes(known)}
        response = {"model": model, "response_id": response_id, "finish_reason": finish_reason}
        self._finish(output, status, None, known or usage, response)


def _named(
    given: Any, rename: Callable[[Mapping[str, Any]], dict[str, Any]], otherwise: str
) -> dict[str, Any]:
    """What is given, by its conventional names; under the name `otherwise` where it is no mapping. Never raises."""
    try:
        return rename(plain_mapping(given))
    except Exception:
        return {otherwise: given}


def _error_text(exc: BaseException | str | None) -> str | None:
    """What an exception says, in a line; its class where it says nothing. Never raises."""
    if exc is None or isinstance(exc, str):
        return exc
    try:
        text = str(exc)
    except Exception:
        text = "(its text cannot be read)"
    name = type(exc).__name__
    return f"{name}: {text}" if text else name
