"""Ourselves at 1, 5 and 20 times as many lines, files → rows in one process: does a line cost the same, and does memory stay?

One run through all of them: what it has taken when the first 1, 5 and 20 parts are stored. So the start of the process and ClickHouse's
merges stand where they are.

Memory used to be 1,757 MB at 20 million lines and 891 at 1 million: while a large merge went on, a hundred small parts were merged at once, with buffers
for each of their columns. Of twelve parts at most (migration 0011), and with as many merges at a time as cores, it is 951 and 769. With twelve parts alone
12 million lines took 1,185 (1,570 before). ClickHouse tracks 100 to 230 MB of it all along, 247 are mapped libraries, and what is left is Python and what its allocator
keeps: JE_MALLOC_CONF=dirty_decay_ms:500 makes 764 and 927 MB (1 and 12 million) 698 and 875, and 80 seconds 86.

What is left is that peaks of merges, inserts and decoding meet more often the longer it runs: in one run of 20 million the resident memory went up and down
between 700 and 890 MB from the fourth million on, and was lower at the end than in the middle. A merge of eleven parts takes 60 MB of tags, 90 of logs and
100 of objects. Blocks of 1 MB and 1,024 rows in merges made 963 and 721 MB (20 and 1 million) 921 and 678, granules of 1 MB 894 and 726: less at
both ends, and no flatter.
"""

from __future__ import annotations

import http.client
import os
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.measure import Bench, Row, cpu, own_peak
from support.observed import Running, running

TIMES = (1, 5, 20)
FLAT = 1.1
_POLL_SECONDS = 0.1
_DEADLINE_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class _Reached:
    """Where the run stood when so many lines were stored.

    Args:
        lines: At least those that were asked for.
        seconds: Since the first look at the process.
        cpu: Seconds, its start included.
        peak: MB resident at most so far.
    """

    lines: int
    seconds: float
    cpu: float
    peak: float


def rows(bench: Bench) -> list[Row]:
    """Time and memory at each size, against the smallest."""
    base = bench.plan.growth
    logs = bench.home / bench.name("growth")
    size = _write(bench.corpus(base), logs)
    home = bench.home / bench.name("growing")
    where = ["--once", "--clickhouse", f"chdb://{home / 'db'}"]
    with running(home, "up", *where, logs) as process:
        reached = _watched(process, [base * times for times in TIMES])
        report = process.ended(_DEADLINE_SECONDS)
    assert report["rows"] == report["lines"] == base * TIMES[-1], report
    load = os.getloadavg()[0]
    for each in (logs, home):
        shutil.rmtree(each)
    first, last = reached[0], reached[-1]
    share = {each: each.cpu / (size * each.lines / base / 1e9) for each in (first, last)}
    shown = {str(times): [{**asdict(each), "load": load}] for times, each in zip(TIMES, reached, strict=True)}
    figures = (
        ("time a line", "µs", [each.seconds / each.lines * 1e6 for each in reached]),
        ("peak memory", "MB", [each.peak for each in reached]),
    )
    return [
        Row(
            f"growth, up: {base:,} lines, and {TIMES[1]} and {TIMES[2]} times as many: {title}",
            unit,
            values[-1],
            values[0],
            "ours at 1",
            values[0] / values[-1],
            (share[last], share[first]),
            (last.peak, first.peak),
            "flat within 10 %",
            max(values) <= FLAT * values[0],
            f"ours at {TIMES[2]} times; the peer is ourselves at 1; at {TIMES[1]} times {values[1]:,.4g} {unit}; one run",
            shown,
        )
        for title, unit, values in figures
    ]


def _write(corpus: Path, logs: Path) -> int:
    """The corpus so many times, each with a project of its own, which makes them other lines; bytes of one."""
    logs.mkdir()
    text = corpus.read_bytes()
    moment = time.time() - 3600
    for part in range(TIMES[-1]):
        path = logs / f"{part:02}.log"
        path.write_bytes(text.replace(b'"project_id": "shop"', b'"project_id": "sh%02d"' % part))
        os.utime(path, (moment, moment))
    return len(text)


def _watched(process: Running, wanted: list[int]) -> list[_Reached]:
    """The run as it passes each number of lines, and the last one as the process ends."""
    pid, found = process.process.pid, list[_Reached]()
    assert process.address  # it is up
    began = time.monotonic()
    last = _Reached(0, 0.0, 0.0, 0.0)
    while process.process.poll() is None:
        assert time.monotonic() < began + _DEADLINE_SECONDS, f"{last} of {wanted} lines"
        with suppress(OSError, http.client.HTTPException):  # it may be ending
            stored = int(process.value("tailrace_ingestor_lines_total"))
            last = _Reached(stored, time.monotonic() - began, cpu(pid), own_peak(pid))
            found += [last for lines in wanted[len(found) : -1] if lines <= stored]
        time.sleep(_POLL_SECONDS)
    last = replace(last, lines=wanted[-1], seconds=time.monotonic() - began)
    return found + [last] * (len(wanted) - len(found))
