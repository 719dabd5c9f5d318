"""Ourselves at 1, 5 and 20 times as many lines, file → rows in one process: does a line cost the same, and does memory stay?"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict

from benchmarks.measure import Bench, Row, Taken, documented, interleaved, median, tailrace

TIMES = (1, 5, 20)
FLAT = 1.1


def rows(bench: Bench) -> list[Row]:
    """Time, CPU and memory at each size, against the smallest."""
    base = bench.plan.growth
    corpora = {times: bench.corpus(base * times) for times in TIMES}

    def run(times: int) -> Callable[[], Taken]:
        def once() -> Taken:
            database = bench.home / bench.name("growth")
            where = ["--once", "--clickhouse", f"chdb://{database}", "--format", "json"]
            document, taken = documented(tailrace("up", *where, corpora[times]))
            assert document["rows"] == document["lines"] == base * times, document
            shutil.rmtree(database)
            return taken

        return once

    runs = interleaved(bench, {str(times): run(times) for times in TIMES})
    shown = {name: [asdict(each) for each in found] for name, found in runs.items()}
    smallest, largest = str(TIMES[0]), str(TIMES[-1])
    what = f"growth, up: {base:,} lines, and {TIMES[1]} and {TIMES[2]} times as many"
    a_line = {name: median(found, "seconds") / (base * int(name)) * 1e6 for name, found in runs.items()}
    peaks = {name: median(found, "peak") for name, found in runs.items()}
    shares = {
        name: median(found, "cpu") / (corpora[int(name)].stat().st_size / 1e9) for name, found in runs.items()
    }
    goal = "flat within 10 %"
    found = []
    for title, unit, figures in (("time a line", "µs", a_line), ("peak memory", "MB", peaks)):
        middle = figures[str(TIMES[1])]
        held = max(figures.values()) <= FLAT * min(figures.values())
        note = (
            f"ours at {TIMES[2]} times; the peer is ourselves at 1; at {TIMES[1]} times {middle:,.4g} {unit}"
        )
        found.append(
            Row(
                f"{what}: {title}",
                unit,
                figures[largest],
                figures[smallest],
                "ours at 1",
                figures[smallest] / figures[largest],
                (shares[largest], shares[smallest]),
                (peaks[largest], peaks[smallest]),
                goal,
                held,
                note,
                shown,
            )
        )
    return found
