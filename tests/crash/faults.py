"""What is done to the actors, by chance and seed, and how often."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence

from crash.actors import Actor


class Chaos:
    """Kills and restarts, each the same for the same seed as far as it is ours to decide; when exactly a signal
    arrives in a process is up to the machine.

    Args:
        seed: Of everything.
        faults: Counts by kind.
    """

    def __init__(self, seed: int, faults: Counter[str]) -> None:
        self.random = random.Random(seed)
        self.faults = faults

    def at_points(self, actors: Sequence[Actor], points: Sequence[str], seconds: float = 120.0) -> None:
        """End an actor at each of the points, all points once. Whoever ended starts again and meets the next one.

        A step that is only taken when there is nothing else to do may never come while others write. So an actor that
        does not meet its point is asked to stop, which takes that step too.

        Args:
            actors: None of them runs; with several, they end at different points side by side.
            points: As `tailrace.schemas.crash` names them.
            seconds: That one point may take.
        """
        ahead = list(points)
        armed: dict[str, str] = {}
        moved = time.monotonic()
        asked = 0
        while ahead or armed:
            for actor in actors:
                if actor.alive:
                    continue
                if point := armed.pop(actor.name, None):
                    if actor.ended_at_point():
                        self.faults[point] += 1
                        moved, asked = time.monotonic(), 0
                    else:
                        ahead.insert(0, point)
                if ahead:
                    armed[actor.name] = ahead.pop(0)
                    actor.start(f"{armed[actor.name]}:{1 if asked else self.random.randint(1, 3)}")
            waited = time.monotonic() - moved
            assert waited < seconds, f"nobody came to {armed}"
            if waited > (asked + 1) * seconds / 8:
                asked += 1
                for actor in actors:
                    actor.ask_to_stop()
            time.sleep(0.05)

    def kill(self, actor: Actor, low: float, high: float) -> None:
        """Start it if need be, and kill it after so many seconds."""
        if not actor.alive:
            actor.start()
        self.wait(low, high)
        actor.kill()
        self.faults[f"kill {actor.name.split('-')[0]}"] += 1

    def wait(self, low: float, high: float) -> None:
        """For any time between."""
        time.sleep(self.random.uniform(low, high))
