"""Slices of `slices.py` at the size of the plan, as rows: what each question takes, and the same of a Map per trace."""

from __future__ import annotations

import re

from benchmarks.measure import CODE, Bench, Row, Watched

_ANSWER = re.compile(r"^(?P<what>\S.*?) {2,}(?P<ours>[\d.]+) ms(?: +(?P<peer>[\d.]+) ms)?", re.MULTILINE)


def rows(bench: Bench) -> list[Row]:
    """One for each question; times are warm medians of its own process."""
    traces = bench.plan.slices
    process = Watched([*CODE, "benchmarks.slices", str(traces)])
    taken = process.end()
    text = process.said()
    found = []
    for answer in _ANSWER.finditer(text):
        ours, peer = float(answer["ours"]), float(answer["peer"]) if answer["peer"] else None
        name = "Map per trace" if peer is not None else "–"
        ratio = peer / ours if peer is not None and ours else None
        what = f"slice of {traces:,} traces: {answer['what']}"
        goal = "no slower than the Map" if peer is not None else "–"
        held = None if ratio is None else ratio >= 1
        note = "peak memory: with building"
        found.append(
            Row(
                what,
                "ms",
                ours,
                peer,
                name,
                ratio,
                (None, None),
                (taken.peak, None),
                goal,
                held,
                note,
                {"load": [taken.load]},
            )
        )
    assert found, text
    return found
