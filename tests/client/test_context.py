"""The current trace: one for each thread and task, restored whatever order blocks are left in."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace import Trace, current_event, current_trace
from tailrace.context import enter, leave
from tailrace.testing import MemoryLogger


def trace() -> Trace:
    return Trace(MemoryLogger())


def test_blocks_nest_and_restore() -> None:
    """Property: inside a block its trace and event are current, outside what was so before, exceptions included."""
    a, b = trace(), trace()
    assert current_trace() is None
    with a:
        assert (current_trace(), current_event()) == (a, None)
        with a.message("x") as message:
            assert (current_trace(), current_event()) == (a, message)
            with message.tool("y") as tool:
                assert current_event() is tool
                with b:
                    assert (current_trace(), current_event()) == (b, None)
                with a:
                    assert (current_trace(), current_event()) == (a, tool)
            assert current_event() is message
            with pytest.raises(ValueError, match="x"), b:
                raise ValueError("x")
            assert (current_trace(), current_event()) == (a, message)
        with a:
            assert current_trace() is a
        assert (current_trace(), current_event()) == (a, None)
    assert (current_trace(), current_event()) == (None, None)


@given(st.lists(st.integers(0, 5), max_size=40))
def test_leaving_in_any_order(steps: list[int]) -> None:
    """Property: entering and leaving in any order follows the model: leaving takes the innermost block of that owner
    away, and all that were entered after it."""

    def run() -> None:
        traces = [trace() for _ in range(3)]
        model: list[Trace] = []
        for step in steps:
            chosen = traces[step % 3]
            if step < 3:
                enter(chosen, chosen)
                model.append(chosen)
            else:
                left = leave(chosen)
                assert (left is not None) == (chosen in model)
                if chosen in model:
                    del model[len(model) - 1 - model[::-1].index(chosen) :]
            assert current_trace() is (model[-1] if model else None)

    contextvars.copy_context().run(run)


def test_tasks_have_their_own() -> None:
    """Property: tasks that run at the same time do not see each other's traces; each begins with that of its maker."""

    async def work(own: Trace, outer: Trace) -> None:
        assert current_trace() is outer
        async with own:
            for _ in range(5):
                await asyncio.sleep(0)
                assert current_trace() is own
            async with own.tool("x") as tool:
                await asyncio.sleep(0)
                assert current_event() is tool
                assert await asyncio.to_thread(current_event) is tool
        assert current_trace() is outer

    async def run() -> None:
        outer = trace()
        async with outer:
            await asyncio.gather(*(work(trace(), outer) for _ in range(10)))
            assert current_trace() is outer

    asyncio.run(run())
    assert current_trace() is None


def test_threads_have_their_own() -> None:
    """Property: a thread begins without a trace, and what it makes current is so nowhere else."""
    barrier = threading.Barrier(4)

    def work() -> bool:
        own = trace()
        assert current_trace() is None
        with own:
            barrier.wait(30)
            return current_trace() is own

    with trace() as outer, ThreadPoolExecutor(4) as pool:
        assert all(future.result() for future in [pool.submit(work) for _ in range(4)])
        assert current_trace() is outer


def test_a_block_that_is_left_elsewhere() -> None:
    """Property: a block that is left in another context than it was entered in changes nothing there, and raises nothing."""
    own, outer = trace(), trace()

    def generator() -> Iterator[None]:
        with own:
            yield

    running = generator()
    contextvars.copy_context().run(next, running)
    with outer:
        running.close()
        assert current_trace() is outer
