"""Whose batch is stored next: in order, but for what is urgent, and nobody waits for ever."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from tailrace.ingestor.turns import Turns


async def _order(kinds: list[bool], given_up: set[int], both: bool) -> list[int]:
    """Everybody comes while one has its turn; who gets one, in their order."""
    turns, order = Turns(), list[int]()
    under_way = 0

    async def work(number: int, urgent: bool) -> None:
        nonlocal under_way
        async with turns.turn(urgent):
            under_way += 1
            assert under_way == 1
            order.append(number)
            await asyncio.sleep(0)
            under_way -= 1

    async with turns.turn(False):
        tasks = [asyncio.create_task(work(number, urgent)) for number, urgent in enumerate(kinds)]
        await asyncio.sleep(0)
        if not both:
            for number in given_up:
                tasks[number].cancel()
    if both:  # the first one's turn has come, and it does not know yet
        for number in given_up:
            tasks[number].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(1), turns.turn(False):
        return order


@given(st.lists(st.booleans(), max_size=12), st.sets(st.integers(0, 11)), st.booleans())
def test_turns(kinds: list[bool], given_up: set[int], both: bool) -> None:
    """One at a time; who gives up holds up nobody; of each kind they keep their order; what is urgent waits for one other that came
    after the last urgent one at most, and each of the others is overtaken once by whatever was there when its turn had come."""
    given_up = {number for number in given_up if number < len(kinds)}
    order = asyncio.run(_order(kinds, given_up, both))
    left = [number for number in range(len(kinds)) if number not in given_up]
    assert sorted(order) == left
    for kind in (False, True):
        assert [number for number in order if kinds[number] is kind] == [
            number for number in left if kinds[number] is kind
        ]
    for number in left:
        before = order[: order.index(number)]
        if kinds[number]:
            urgent = sum(kinds[each] for each in before)
            assert sum(not kinds[each] for each in before) <= urgent + 1
        else:
            plain = sum(not kinds[each] for each in before)
            assert sum(kinds[each] for each in before if each > number) <= plain + 1
