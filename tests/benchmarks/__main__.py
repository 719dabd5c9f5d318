"""All benchmarks under one runner: a table, the same as JSON, and profiles of the hot paths, in one folder.

    make bench                                           # under 15 minutes on two cores
    make bench-quick                                     # under 2: one run of each and few lines; its figures say little
    cd tests && python -m benchmarks --only ship --only freshness
    cd tests && python -m benchmarks --lines 1000000     # of the throughput rows
    cd tests && python -m benchmarks --markdown          # the table of the last run, for the README

The peers: raymon from PyPI, Fluent Bit if FLUENT_BIT names a binary, and ClickHouse's own readers in chDB. Each pair does the same work
in the same run, in turns; rows and checksums are asserted; exactly once and validation are on and acks and fsync as shipped.
Nothing here fails because something is slow. What prints more of one thing, by itself: `client_calls`, `slices`, `backfill`, `check`
and `memory`, the last one for hours.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tailrace
from benchmarks import arriving, asking, calling, growing, ingesting, profiles, shipping
from benchmarks.measure import QUICK, SMOKE, Bench, Plan, Row
from support.kafka import REPOSITORY

FOLDER = REPOSITORY / ".cache" / "bench"
BENCHMARKS: dict[str, Callable[[Bench], list[Row]]] = {
    "call": calling.rows,
    "ship": shipping.rows,
    "ingest": lambda bench: [ingesting.from_kafka(bench)],
    "backfill": lambda bench: [ingesting.from_file(bench)],
    "gz": lambda bench: [ingesting.from_file(bench, zipped=True)],
    "freshness": arriving.freshness,
    "catch-up": lambda bench: [arriving.catching_up(bench)],
    "growth": growing.rows,
    "slices": asking.rows,
}
HEADS = ("what", "ours", "peer", "ratio", "CPU-s a GB", "peak MB", "goal", "reached")


def main() -> None:
    """Measures what is asked for, or shows what was measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=(__doc__ or "").split("\n\n")[0]
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="one run of each, few lines")
    how.add_argument("--smoke", action="store_true", help="still less: whether it works")
    how.add_argument("--markdown", action="store_true", help="show the last run's table as Markdown")
    parser.add_argument("--only", action="append", choices=list(BENCHMARKS), help="may be repeated")
    parser.add_argument("--lines", type=int, help="of the throughput rows and the backlog")
    parser.add_argument("--runs", type=int, help="of each contender")
    parser.add_argument("--out", type=Path, help=f"a folder; a dated one below {FOLDER} by default")
    arguments = parser.parse_args()
    if arguments.markdown:
        print(markdown(json.loads(((arguments.out or FOLDER / "last") / "bench.json").read_text())))
        return
    plan = QUICK if arguments.quick else SMOKE if arguments.smoke else Plan()
    if arguments.lines:
        named = ("ship", "ingest", "backfill", "backlog")
        plan = replace(plan, **dict.fromkeys(named, arguments.lines))
    if arguments.runs:
        plan = replace(plan, runs=arguments.runs, alone=arguments.runs)
    plan = replace(plan, only=tuple(arguments.only or plan.only))
    began = datetime.now(UTC)
    out = arguments.out or FOLDER / f"{began:%Y-%m-%dT%H%M%S}"
    out.mkdir(parents=True, exist_ok=True)
    document = measured(plan, out, began)
    (out / "bench.json").write_text(json.dumps(document, indent=1) + "\n")
    if out.parent == FOLDER and not (arguments.smoke or arguments.quick or arguments.only):
        (FOLDER / "last").unlink(missing_ok=True)
        (FOLDER / "last").symlink_to(out.name)
    print(text(document))
    print(f"\n{out}/bench.json  " + "  ".join(document["profiles"]))
    for name, reason in document["failed"].items():
        print(f"{name} failed: {reason}", file=sys.stderr)
    sys.exit(bool(document["failed"]))


def measured(plan: Plan, out: Path, began: datetime) -> dict[str, Any]:
    """Everything, as it goes into the JSON."""
    clock, failed = time.monotonic(), dict[str, str]()
    rows: list[Row] = []
    written: list[Path] = []
    names = [name for name in BENCHMARKS if not plan.only or name in plan.only]
    with _bench(plan, out) as bench:
        for name in names:
            bench.say(name)
            try:
                rows += BENCHMARKS[name](bench)
            except Exception as exc:
                # What else was measured is not to be lost with it; the exit code tells.
                traceback.print_exc()
                failed[name] = f"{type(exc).__name__}: {exc}"
        if plan.profiles:
            bench.say("profiles")
            written = profiles.profile(bench)
    return {
        "began": began.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - clock, 1),
        "machine": machine(),
        "load": os.getloadavg(),
        "plan": {field: getattr(plan, field) for field in plan.__slots__},
        "rows": [row.document() for row in rows],
        "profiles": [path.name for path in written],
        "failed": failed,
    }


@contextmanager
def _bench(plan: Plan, out: Path) -> Iterator[Bench]:
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {what}", file=sys.stderr, flush=True)

    # As installers leave it: by itself it would be compiled anew in every run where PYTHONDONTWRITEBYTECODE is set.
    compileall.compile_dir(tailrace.__path__[0], quiet=2)
    with tempfile.TemporaryDirectory(prefix="tailrace-bench-", ignore_cleanup_errors=True) as home:
        bench = Bench(plan, Path(home), out, say)
        try:
            yield bench
        finally:
            bench.stop()


def machine() -> dict[str, Any]:
    """Where it was measured, and with what."""
    model = [
        line.partition(": ")[2]
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    packages = ("chdb-core", "aiokafka", "msgspec", "pyarrow", "clickhouse-connect")
    return {
        "cores": os.cpu_count(),
        "model": model[0] if model else platform.machine(),
        "memory_gb": round(memory, 1),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


# ---------------------------------------------------------------- tables


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row as text."""

    def figure(value: float | None) -> str:
        if value is None:
            return "–"
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

    def pair(values: tuple[float | None, float | None]) -> str:
        ours, peer = values
        if ours is None:
            return "–"
        return figure(ours) if peer is None else f"{figure(ours)} : {figure(peer)}"

    peer = row["name"] if row["peer"] is None else f"{figure(row['peer'])} ({row['name']})"
    reached = {True: "yes", False: "no", None: "–"}[row["reached"]]
    ratio = "–" if row["ratio"] is None else f"{row['ratio']:.2g}"
    ours = f"{figure(row['ours'])} {row['unit']}"
    return row["what"], ours, peer, ratio, pair(row["cpu"]), pair(row["peak"]), row["goal"], reached


def head(document: dict[str, Any]) -> str:
    """When and where."""
    where, plan = document["machine"], document["plan"]
    return (
        f"{document['began'][:10]}, {where['cores']} cores ({where['model']}), Python {where['python']}, chDB {where['chdb-core']}, "
        f"load {document['load'][0]:.1f} at the end, median of {plan['runs']} runs"
    )


def text(document: dict[str, Any]) -> str:
    """The table for a terminal."""
    lines = [HEADS, *(cells(row) for row in document["rows"])]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADS))]
    body = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join([head(document), "", *body])


def markdown(document: dict[str, Any]) -> str:
    """The table for the README, with the notes."""
    lines = [HEADS, ("---",) * len(HEADS), *(cells(row) for row in document["rows"])]
    body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    notes = [f"- {row['what']}: {row['note']}" for row in document["rows"] if row["note"]]
    return "\n".join([f"{head(document)}.", "", *body, "", *notes])


if __name__ == "__main__":
    main()
