"""Traces of functions and blocks: how long they took, and whether they failed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from time import perf_counter_ns
from types import TracebackType
from typing import Any, TypeVar, overload

from tailrace.context import Entry, enter, leave, top
from tailrace.logger import Event, Logger, LoggerStats
from tailrace.tag import Tag
from tailrace.trace import Trace

F = TypeVar("F", bound=Callable[..., Any])


@overload
def traced(function: F, /) -> F: ...


@overload
def traced(*, logger: Logger | None = None, name: str | None = None) -> Traced: ...


def traced(
    function: Callable[..., Any] | None = None, /, *, logger: Logger | None = None, name: str | None = None
) -> Any:
    """Trace a function, a coroutine, a generator or an async generator, or a block.

        @traced
        def rank(candidates): ...

        @traced(logger=logger, name="predict")
        async def handle(request): ...

        with traced(name="load model", logger=logger) as trace:
            trace.info("from the cache")

    Each call becomes part of the current trace, or, where there is none, a trace of its own in `logger`; with neither,
    nothing is logged. When it ends, the trace is tagged in the group `name` with the metric `duration_ms`, and, when an
    exception ended it, with `error`: the exception's class, in type `error`. The traceback is logged once, by the
    outermost traced call of the trace. Exceptions go on unchanged. A generator lasts from its first value to its
    last, its trace is current while its own code runs, and closing it early is no error.

    Args:
        function: What is decorated.
        logger: For calls outside of a trace.
        name: The function's qualified name, if none is given.
    """
    if function is None:
        return Traced(logger, name)
    return Traced(None, None)(function)


class Traced:
    """What `traced(…)` gives: a decorator and a context manager, `with` or `async with`. One may be used many times."""

    __slots__ = ("_logger", "_name")

    def __init__(self, logger: Logger | None, name: str | None) -> None:
        self._logger = logger
        self._name = name

    def __call__(self, function: F) -> F:
        """Decorate a function."""
        if isinstance(function, staticmethod | classmethod):
            return type(function)(self(function.__func__))
        name = self._name or getattr(function, "__qualname__", type(function).__name__)
        return _wrapped(function, Traced(self._logger, name))  # type: ignore[no-any-return]

    def __enter__(self) -> Trace:
        trace = self.trace()
        if trace is None:
            return Trace(Nowhere(), sampled=False)
        enter(self, trace, began_ns=perf_counter_ns())
        return trace

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        entry = leave(self)
        if entry is not None:
            self.report(entry.trace, entry.began_ns, exc)

    async def __aenter__(self) -> Trace:
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, traceback)

    def trace(self) -> Trace | None:
        """The current trace, or a new one in the logger; None without either."""
        entry = top()
        if entry is not None:
            return entry.trace
        if self._logger is None:
            return None
        trace = Trace(self._logger)
        if self._name is not None:
            trace.context(name=self._name)
        return trace

    def report(self, trace: Trace, began_ns: int, exc: BaseException | None) -> None:
        """Tag a trace with what has ended, when its own block has been left."""
        if not trace.sampled:
            return
        name = self._name or "block"
        tags = [Tag("duration_ms", (perf_counter_ns() - began_ns) / 1e6, "metric", name)]
        if exc is not None and not isinstance(exc, GeneratorExit):
            tags.append(Tag("error", type(exc).__name__, "error", name))
            if not _inside_another(trace):
                trace.exception(name, exc)
        trace.tag(tags)


class Run:
    """One run of a generator: `with run:` while its own code runs, `end` when it will not run any more."""

    __slots__ = ("_began_ns", "_block", "_trace")

    def __init__(self, block: Traced) -> None:
        self._block = block
        self._trace = block.trace()
        self._began_ns = perf_counter_ns()

    def __enter__(self) -> None:
        if self._trace is not None:
            enter(self._block, self._trace)

    def __exit__(self, *_: object) -> None:
        if self._trace is not None:
            leave(self._block)

    def end(self, exc: BaseException | None) -> None:
        """Report how long it took, and what ended it."""
        if self._trace is not None:
            self._block.report(self._trace, self._began_ns, exc)


class Nowhere:
    """A logger for what is traced outside of any trace: takes nothing."""

    project_id = "none"

    def write(self, line: bytes) -> None:
        """Nothing."""

    def count(self, event: Event, number: int = 1, reason: str = "", detail: str = "") -> None:
        """Nothing."""

    def stats(self) -> LoggerStats:
        """Nothing."""
        return LoggerStats()

    def flush(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def _inside_another(trace: Trace) -> bool:
    """Whether a traced block of the same trace is still running around here."""
    entry: Entry | None = top()
    while entry is not None:
        if isinstance(entry.owner, Traced) and entry.trace is trace:
            return True
        entry = entry.below
    return False


def _wrapped(function: Callable[..., Any], block: Traced) -> Any:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            with block:
                return await function(*args, **kwargs)

        return coroutine
    if inspect.isasyncgenfunction(function):
        # Written out here, so that whoever asks `inspect.isasyncgenfunction` is told yes.
        @functools.wraps(function)
        async def async_generator(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            inner = function(*args, **kwargs)
            run = Run(block)
            resume: Callable[[], Any] = functools.partial(inner.asend, None)
            try:
                while True:
                    try:
                        with run:
                            value = await resume()
                    except StopAsyncIteration:
                        run.end(None)
                        return
                    try:
                        resume = functools.partial(inner.asend, (yield value))
                    except GeneratorExit:
                        with run:
                            await inner.aclose()
                        raise
                    except BaseException as exc:
                        resume = functools.partial(inner.athrow, exc)
            except BaseException as exc:
                run.end(exc)
                raise

        return async_generator
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            return (yield from _drive(function(*args, **kwargs), block))

        return generator

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with block:
            return function(*args, **kwargs)

    return call


def _drive(inner: Generator[Any, Any, Any], block: Traced) -> Generator[Any, Any, Any]:
    """What a generator yields and returns. Not `yield from`: between two values the caller's trace is current."""
    run = Run(block)
    resume: Callable[[], Any] = functools.partial(inner.send, None)
    try:
        while True:
            try:
                with run:
                    value = resume()
            except StopIteration as stop:
                run.end(None)
                return stop.value
            try:
                resume = functools.partial(inner.send, (yield value))
            except GeneratorExit:
                with run:
                    inner.close()
                raise
            except BaseException as exc:
                resume = functools.partial(inner.throw, exc)
    except BaseException as exc:
        run.end(exc)
        raise
