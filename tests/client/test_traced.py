"""Functions that are traced: timed, tagged when they fail, and otherwise as they were."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import pytest

from tailrace import Trace, current_trace, traced
from tailrace.testing import MemoryLogger


def tags(logger: MemoryLogger) -> list[tuple[str, str, str]]:
    """Group, name and type of each, and what an error was."""
    found = []
    for line in logger.of_kind("tags"):
        for tag in line["tags"]:
            if tag["name"] == "duration_ms":
                assert tag["type"] == "metric"
                assert 0 <= tag["value"] < 60_000
                found.append((tag["group"], "duration_ms", ""))
            else:
                assert (tag["name"], tag["type"]) == ("error", "error")
                found.append((tag["group"], "error", tag["value"]))
    return found


def test_a_function_is_timed_in_the_current_trace_or_its_own() -> None:
    """Property: calls join the trace that is current; outside of one, each makes its own in the logger that was given,
    named like the function; without both nothing is logged. The function works as before in every case."""
    logger = MemoryLogger()

    @traced(logger=logger, name="predict")
    def predict(x: int, *, y: int = 1) -> Trace | None:
        """Adds."""
        return inner(x + y)

    @traced
    def inner(x: int) -> Trace | None:
        return current_trace()

    assert (predict.__name__, predict.__doc__) == ("predict", "Adds.")
    first, second = predict(1), predict(1, y=2)
    assert first is not None
    assert second is not None
    assert first.trace_id != second.trace_id
    assert current_trace() is None
    assert [line["name"] for line in logger.of_kind("trace")] == ["predict", "predict"]
    name = "test_a_function_is_timed_in_the_current_trace_or_its_own.<locals>.inner"
    assert tags(logger) == [(name, "duration_ms", ""), ("predict", "duration_ms", "")] * 2
    logger.clear()
    other = MemoryLogger()
    with Trace(other) as trace:
        assert predict(1) is trace
    assert len(tags(other)) == 2
    assert logger.lines == []
    assert inner(1) is None
    with traced(name="nothing") as mute:
        mute.info("x")
        assert current_trace() is None
        assert predict(1) is not None
    assert len(tags(logger)) == 2


def test_an_exception_is_tagged_and_goes_on_unchanged() -> None:
    """Property: every traced call that an exception ends is tagged with its class, the outermost logs the traceback, and
    the caller gets the very same exception."""
    logger = MemoryLogger()
    error = ValueError("secret text")

    @traced(name="inner")
    def inner() -> None:
        raise error

    @traced(logger=logger, name="outer")
    def outer() -> None:
        inner()

    with pytest.raises(ValueError, match="secret text") as caught:
        outer()
    assert caught.value is error
    assert error.__context__ is None
    assert tags(logger) == [
        ("inner", "duration_ms", ""),
        ("inner", "error", "ValueError"),
        ("outer", "duration_ms", ""),
        ("outer", "error", "ValueError"),
    ]
    (text,) = logger.of_kind("text")
    assert text["level"] == "error"
    assert text["message"].startswith("outer\nTraceback")
    assert text["message"].endswith("ValueError: secret text")


def test_a_block() -> None:
    """Property: a block is a traced call without a function, and one object serves many blocks, also inside itself."""
    logger = MemoryLogger()
    block = traced(logger=logger, name="load")
    with block as outer, block as inner:
        assert outer is inner is current_trace()
    with pytest.raises(KeyError), block:
        raise KeyError("x")

    async def run() -> None:
        async with block as a:
            assert current_trace() is a
            await asyncio.gather(*(nested(a) for _ in range(3)))

    async def nested(outer: Trace) -> None:
        async with block as mine:
            await asyncio.sleep(0)
            assert mine is outer

    asyncio.run(run())
    assert current_trace() is None
    assert tags(logger).count(("load", "duration_ms", "")) == 2 + 1 + 4
    assert tags(logger).count(("load", "error", "KeyError")) == 1


def test_coroutines() -> None:
    """Property: a coroutine lasts until it returns, and its trace is current in what it awaits, only there."""
    logger = MemoryLogger()

    @traced(logger=logger, name="handle")
    async def handle(n: int) -> str:
        mine = current_trace()
        assert mine is not None
        await asyncio.sleep(0.001 * n)
        assert current_trace() is mine
        if n == 2:
            raise RuntimeError("two")
        return mine.trace_id

    async def run() -> list[Any]:
        return await asyncio.gather(*(handle(n) for n in range(4)), return_exceptions=True)

    assert inspect.iscoroutinefunction(handle)
    results = asyncio.run(run())
    assert isinstance(results[2], RuntimeError)
    assert len({str(result) for result in results}) == 4
    assert tags(logger).count(("handle", "duration_ms", "")) == 4
    assert tags(logger).count(("handle", "error", "RuntimeError")) == 1


def test_generators_talk_to_their_callers() -> None:
    """Property: send, throw, close and return do what they do without the decorator; the trace is current only while the
    generator's own code runs."""
    logger = MemoryLogger()
    seen: list[Any] = []

    @traced(logger=logger, name="g")
    def generator(n: int) -> Generator[int, Any, str]:
        try:
            for i in range(n):
                try:
                    seen.append((yield i))
                    assert current_trace() is not None
                except KeyError:
                    seen.append("caught")
        finally:
            seen.append("closed")
        return "returned"

    assert inspect.isgeneratorfunction(generator)
    running = generator(4)
    assert next(running) == 0
    assert current_trace() is None
    assert running.send("a") == 1
    assert running.throw(KeyError("k")) == 2
    assert tags(logger) == []
    assert next(running) == 3
    with pytest.raises(StopIteration) as stopped:
        next(running)
    assert stopped.value.value == "returned"
    assert seen == ["a", "caught", None, None, "closed"]
    assert tags(logger) == [("g", "duration_ms", "")]
    running = generator(3)
    next(running)
    running.close()
    assert seen[-1] == "closed"
    assert tags(logger) == [("g", "duration_ms", "")] * 2
    running = generator(3)
    next(running)
    with pytest.raises(ZeroDivisionError):
        running.throw(ZeroDivisionError())
    assert tags(logger)[-1] == ("g", "error", "ZeroDivisionError")


def test_async_generators_talk_to_their_callers() -> None:
    """Property: as for generators."""
    logger = MemoryLogger()
    seen: list[Any] = []

    @traced(logger=logger, name="g")
    async def stream(n: int) -> AsyncIterator[int]:
        try:
            for i in range(n):
                await asyncio.sleep(0)
                try:
                    seen.append((yield i))
                except KeyError:
                    seen.append("caught")
                assert current_trace() is not None
        finally:
            seen.append("closed")

    async def run() -> None:
        assert inspect.isasyncgenfunction(stream)
        assert [i async for i in stream(3)] == [0, 1, 2]
        running: Any = stream(5)
        assert await anext(running) == 0
        assert current_trace() is None
        assert await running.asend("a") == 1
        assert await running.athrow(KeyError("k")) == 2
        await running.aclose()
        assert seen[-3:] == ["a", "caught", "closed"]
        running = stream(5)
        await anext(running)
        with pytest.raises(ZeroDivisionError):
            await running.athrow(ZeroDivisionError())

    asyncio.run(run())
    assert tags(logger) == [("g", "duration_ms", "")] * 3 + [("g", "error", "ZeroDivisionError")]


def test_methods_of_all_kinds() -> None:
    """Property: methods, class methods, static methods, partial functions and callable objects can be traced."""
    logger = MemoryLogger()

    class Model:
        @traced
        def plain(self) -> str:
            return "plain"

        @traced
        @classmethod
        def of_class(cls) -> str:
            return cls.__name__

        @traced
        @staticmethod
        def static() -> str:
            return "static"

        def __call__(self) -> str:
            return "called"

    with Trace(logger):
        partial: Callable[[], int] = functools.partial(int, "7")
        assert (Model().plain(), Model.of_class(), Model().static()) == ("plain", "Model", "static")
        assert (traced(Model())(), traced(partial)()) == ("called", 7)
    assert len(tags(logger)) == 5


def test_an_iterator_that_is_abandoned() -> None:
    """Property: dropping a generator half way leaves no trace current behind it."""
    logger = MemoryLogger()

    @traced(logger=logger)
    def numbers() -> Iterator[int]:
        yield from range(10)

    for n in numbers():
        if n == 3:
            break
    assert current_trace() is None
