"""What a call costs, as rows; `client_calls` measures it and prints more."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence

from benchmarks import client_calls
from benchmarks.measure import Bench, Row

GOAL = 10.0
SHOWN = {"info": ".info of a short text", "tag Tags": ".tag of 3", "log": ".log of a small dict"}


def rows(bench: Bench) -> list[Row]:
    """Ours against raymon's, each in a process of its own, in turns."""
    times = client_calls.times(bench.plan.calls)
    found = []
    for case, title in SHOWN.items():
        ours = statistics.median(times["tailrace", case])
        others = {
            name: statistics.median(times[name, case])
            for name in client_calls.CONTENDERS[1:]
            if (name, case) in times
        }
        peer = others.get("raymon")
        note = ", ".join(f"{name} {value:.1f} µs" for name, value in others.items() if name != "raymon")
        ratio = peer / ours if peer is not None else None
        runs: dict[str, list[Sequence[float]]] = {
            name: [statistics.quantiles(times[name, case], n=20)] for name in ("tailrace", *others)
        }
        runs["load"] = [os.getloadavg()]
        found.append(
            Row(
                f"client call: {title}",
                "µs",
                ours,
                peer,
                "raymon 0.0.36" if peer is not None else "raymon: not here",
                ratio,
                (None, None),
                (None, None),
                f"{GOAL:.0f} times cheaper",
                None if ratio is None else ratio >= GOAL,
                note,
                runs,
            )
        )
    return found
