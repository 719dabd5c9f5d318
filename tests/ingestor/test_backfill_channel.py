"""The channel between two threads of a backfill: ordered, bounded, and over at once when either side closes it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tailrace.ingestor.backfill.channel import local_pair


def test_messages_are_handed_over_in_order() -> None:
    """Every message arrives once, as the same object, in order, both ways; no side is ever more than a message ahead."""
    ours, theirs = local_pair()
    sent = [object() for _ in range(1000)]
    ahead = 0

    def send() -> None:
        nonlocal ahead
        for message in sent:
            theirs.send(message)
            ahead += 1
            assert theirs.recv() == "go on"

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send)
        for number, message in enumerate(sent):
            assert ours.recv() is message
            assert ahead <= number + 1
            ours.send("go on")
        sending.result(10)


@pytest.mark.parametrize("side", [0, 1])
def test_closing_ends_whoever_waits(side: int) -> None:
    """Who waits to send or to receive is told as soon as the other side, or the same one, is closed; what was handed over before is
    still received."""
    for wait, error in (
        (lambda end: end.recv(), EOFError),
        (lambda end: (end.send(1), end.send(2)), ConnectionError),
    ):
        ends = local_pair()
        with ThreadPoolExecutor(1) as pool:
            waiting = _started(pool, wait, ends[0])
            ends[side].close()
            with pytest.raises(error):
                waiting.result(10)
    assert ends[1].recv() == 1
    with pytest.raises(EOFError):
        ends[1].recv()


def _started(pool: ThreadPoolExecutor, wait: Callable[[Any], object], end: Any) -> Future[object]:
    return pool.submit(wait, end)
