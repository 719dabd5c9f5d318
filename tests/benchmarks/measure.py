"""Processes and what they take, rows of the table, and what all benchmarks share."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.corpus import write
from support import processes
from support.kafka import KafkaBroker

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_SAMPLE_SECONDS = 0.05
_LOOK_SECONDS = 0.005
DEADLINE_SECONDS = 300.0
CODE = [sys.executable, "-m"]


@dataclass(frozen=True, slots=True)
class Taken:
    """What one run took.

    Args:
        seconds: Of the work; without the start of the process where it says so itself.
        cpu: Seconds of all cores, its start included.
        peak: MB that it and its children had resident at once.
        load: Of the machine, in the last minute.
        more: Further figures by name.
    """

    seconds: float
    cpu: float
    peak: float
    load: float
    more: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table.

    Args:
        what: Which work.
        unit: Of ours and peer.
        ours: The median of our runs.
        peer: Likewise, of the peer's; `None` where it is not here or there is none.
        name: Of the peer.
        ratio: How many times better we are; `None` without a peer.
        cpu: CPU-seconds a GB of lines, ours and the peer's.
        peak: MB resident at most, ours and the peer's.
        goal: What is to be reached.
        reached: Whether it is; `None` where it cannot be said.
        note: What has to be known besides.
        runs: Every single run, by contender.
    """

    what: str
    unit: str
    ours: float
    peer: float | None
    name: str
    ratio: float | None
    cpu: tuple[float | None, float | None]
    peak: tuple[float | None, float | None]
    goal: str
    reached: bool | None
    note: str = ""
    runs: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Args:
        runs: Of each contender, in turns.
        alone: Runs of what has no peer to take turns with.
        calls: Blocks of calls of the client.
        ship: Lines of a run.
        ingest: Likewise, from Kafka to tables.
        backfill: Likewise, from a file to tables.
        fresh: Seconds for which lines arrive.
        backlog: Lines that wait already.
        growth: Lines of the smallest size; the others are multiples of it.
        slices: Traces to ask about.
        profiles: Whether hot paths are profiled.
        builds: Whether a peer that is not here may be installed.
        only: Parts of the names of the benchmarks to run; none means all.
    """

    runs: int = 5
    alone: int = 3
    calls: int = 101
    ship: int = 1_000_000
    ingest: int = 1_000_000
    backfill: int = 1_000_000
    fresh: float = 3.0
    backlog: int = 1_000_000
    growth: int = 1_000_000
    slices: int = 90_000
    profiles: bool = True
    builds: bool = True
    only: tuple[str, ...] = ()


QUICK = Plan(
    runs=1,
    alone=1,
    calls=21,
    ship=50_000,
    ingest=20_000,
    backfill=20_000,
    fresh=3.0,
    backlog=30_000,
    growth=10_000,
    slices=9_000,
    profiles=False,
)
SMOKE = Plan(
    runs=1, calls=2, ship=5_000, ingest=2_500, profiles=False, builds=False, only=("ship", "ingest")
)  # fits into the tests


@dataclass
class Bench:
    """What benchmarks are given.

    Args:
        plan: How much.
        home: For databases and files; the caller removes it.
        out: Where profiles go.
        say: Told what is under way.
    """

    plan: Plan
    home: Path
    out: Path
    say: Callable[[str], None]
    _numbers: int = 0
    _broker: KafkaBroker | None = None

    @cached_property
    def kafka(self) -> KafkaBroker:
        """A broker, started on first use."""
        # As much memory as Kafka's own scripts give it, from the start: a heap that grows makes its first minutes slow.
        self._broker = KafkaBroker(self.home / "kafka", heap="1g")
        self._broker.start()
        return self._broker

    def stop(self) -> None:
        """Ends the broker."""
        if self._broker is not None:
            self._broker.stop()

    def corpus(self, lines: int) -> Path:
        """A log of so many lines, old enough to be complete; made once."""
        path = self.home / f"corpus-{lines}.log"
        if not path.exists():
            write(path, lines)
            moment = time.time() - 3600
            os.utime(path, (moment, moment))
        return path

    def name(self, what: str) -> str:
        """One that nothing else has: of a topic, a database, a group."""
        self._numbers += 1
        return f"{what}-{self._numbers}"


def interleaved(
    bench: Bench, contenders: Mapping[str, Callable[[], Taken]], runs: int | None = None
) -> dict[str, list[Taken]]:
    """Runs of each, in turns, so that whatever else the machine does meets all of them alike."""
    taken: dict[str, list[Taken]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(runs or bench.plan.runs):
        # Who goes first changes: the first one may find colder caches.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            taken[name].append(contenders[name]())
        bench.say(f"  run {number + 1}: " + ", ".join(f"{n} {t[-1].seconds:.1f} s" for n, t in taken.items()))
    return taken


def median(runs: Sequence[Taken], name: str) -> float:
    """Of one figure over runs."""
    found: list[float] = [getattr(run, name) for run in runs]
    return statistics.median(found)


def compared(
    what: str,
    lines: int,
    size: int,
    runs: Mapping[str, Sequence[Taken]],
    peer: str,
    goal: str,
    reached: Callable[[float, float, float], bool],
    note: str = "",
) -> Row:
    """The row of a throughput; ours are the runs named `tailrace`.

    Args:
        what: The work.
        lines: Of a run.
        size: Their bytes.
        runs: By contender.
        peer: Whose runs to compare with; where there are none it is not here.
        goal: In words.
        reached: Given our times of the peer's lines/s, our share of its CPU, and our share of its memory.
        note: As in `Row`.
    """

    def figures(name: str) -> tuple[float, float, float] | None:
        if not runs.get(name):
            return None
        own = runs[name]
        return lines / median(own, "seconds"), median(own, "cpu") / (size / 1e9), median(own, "peak")

    ours, other = figures("tailrace"), figures(peer)
    assert ours is not None
    shown = {name: [asdict(run) for run in found] for name, found in runs.items()}
    if other is None:
        return Row(
            what,
            "lines/s",
            ours[0],
            None,
            f"{peer}: not here",
            None,
            (ours[1], None),
            (ours[2], None),
            goal,
            None,
            note,
            shown,
        )
    held = reached(ours[0] / other[0], ours[1] / other[1], ours[2] / other[2])
    pairs = list(zip(ours, other, strict=True))
    return Row(
        what,
        "lines/s",
        ours[0],
        other[0],
        peer,
        ours[0] / other[0],
        pairs[1],
        pairs[2],
        goal,
        held,
        note,
        shown,
    )


# ---------------------------------------------------------------- processes


def resident(pid: int) -> float:
    """MB that a process and its children have resident now."""
    return sum(map(processes.resident, processes.family(pid))) / 1e6


def own_peak(pid: int) -> float:
    """MB that a process itself had resident at most so far. What `wait` says of it begins with the memory of whoever started it."""
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def cpu(pid: int) -> float:
    """Seconds of CPU that a process and its children have taken."""
    total = 0
    for each in processes.family(pid):
        with suppress(OSError, ValueError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15])) if each == pid else sum(map(int, fields[11:13]))
    return total / _TICK


class Watched:
    """A process whose peak memory is watched from its start; `end` says what it took."""

    def __init__(self, command: Sequence[str | Path], **options: Any) -> None:
        self.began = time.monotonic()
        self.output = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as this object
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - likewise
        options = {"stdout": self.output, "stderr": self.errors} | options
        self.process = subprocess.Popen([*map(str, command)], **options)
        self._peak = 0.0
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _watch(self) -> None:
        while not self._over.wait(_SAMPLE_SECONDS):
            self._peak = max(self._peak, resident(self.process.pid), own_peak(self.process.pid))

    def said(self) -> str:
        """What it printed."""
        self.output.seek(0)
        return self.output.read()

    def faults(self) -> str:
        """The end of what it printed to standard error."""
        self.errors.seek(0)
        return self.errors.read()[-2000:]

    def reports(self) -> float:
        """Waits for what it prints when its work is done, and says how many seconds after its start that came."""
        # Its size: reading would move the place where the process goes on writing.
        while not os.fstat(self.output.fileno()).st_size:
            assert time.monotonic() < self.began + DEADLINE_SECONDS, self.faults()
            if os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                break  # `end` tells what became of it
            time.sleep(_LOOK_SECONDS)
        return time.monotonic() - self.began

    def end(self, how: signal.Signals | None = None, expected: Sequence[int] = (0,)) -> Taken:
        """Waits for its end, which a signal may hasten, and says what it took."""
        seconds = time.monotonic() - self.began
        if how is not None:
            self.process.send_signal(how)
        killer = threading.Timer(DEADLINE_SECONDS, self.process.kill)
        killer.start()
        try:
            _, status, usage = os.wait4(self.process.pid, 0)
        finally:
            killer.cancel()
            self._over.set()
            self._watcher.join()
        self.process.returncode = os.waitstatus_to_exitcode(status)
        if how is None:
            seconds = time.monotonic() - self.began
        assert self.process.returncode in expected, f"exit {self.process.returncode}: {self.faults()}"
        return Taken(seconds, usage.ru_utime + usage.ru_stime, self._peak, os.getloadavg()[0])


def documented(command: Sequence[str | Path], **options: Any) -> tuple[dict[str, Any], Taken]:
    """Runs a command that prints a JSON document with the `seconds` that its work took."""
    process = Watched(command, **options)
    taken = process.end()
    document: dict[str, Any] = json.loads(process.said())
    return document, Taken(document["seconds"], taken.cpu, taken.peak, taken.load)


def tailrace(*arguments: str | Path) -> list[str]:
    """The command line of `tailrace …`."""
    return [*CODE, "tailrace.cli", *map(str, arguments)]
