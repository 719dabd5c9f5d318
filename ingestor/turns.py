"""Whose batch is stored next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple


class _Waiting(NamedTuple):
    urgent: bool
    turn: asyncio.Future[None]


class Turns:
    """One after the other, in the order in which they come; but what is urgent goes first, once before each of the others.

    So what is urgent waits for one other at most, and the others get half of the turns at least.
    """

    def __init__(self) -> None:
        self._waiting: deque[_Waiting] = deque()
        self._taken = False
        self._overtaken = False

    @asynccontextmanager
    async def turn(self, urgent: bool) -> AsyncIterator[None]:
        """Until its end nobody else has a turn."""
        await self._take(urgent)
        try:
            yield
        finally:
            self._pass_on()

    async def _take(self, urgent: bool) -> None:
        if not self._taken:
            self._taken = True
            return
        waiting = _Waiting(urgent, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        try:
            await waiting.turn
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            else:  # its turn had come just then
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        there = [each for each in self._waiting if not each.turn.done()]
        if not there:
            self._taken = False
            return
        following = there[0]
        if not following.urgent and not self._overtaken:
            following = next((each for each in there if each.urgent), following)
        self._overtaken = following is not there[0]
        self._waiting.remove(following)
        following.turn.set_result(None)
