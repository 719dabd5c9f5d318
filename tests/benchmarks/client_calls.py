"""What a call costs a service: ours, the real `raymon==0.0.36`, and the standard library's logging with json.

    cd tests && python -m benchmarks.client_calls

Each is a process of its own that logs into a file of its own; they take turns, block by block, so that whatever else the
machine does meets all of them alike. Two shared cores, Python 3.11, raymon 0.0.36 on the same Python, microseconds a call, median of
300 blocks, the second figure at a load of 11:

                             tailrace    tailrace queue         raymon   logging+json
    info                  4.4,   3.0        2.6,   1.6      151,    96      32,    30
    tag of three dicts    8.5,   5.5        4.5,   3.6      179,   115      37,    38
    log of a small dict  12.5,   9.7        7.9,   7.6      166,   105      36,    35
    prediction            8.1,   5.4        5.8,   3.5        -               45,    34
    info among 8 threads, p99.9: 2.1 ms, 8.1 ms (queue 0.03, 0.02; raymon 5.4, 26): the interpreter's switching of threads

Cores of this machine differ by a factor of two from hour to hour (the same calls took 2.0 and 3.7 us on a quiet one); the ratios
to raymon stay: 32 to 35 times for a text, 21 for three tags, 11 to 13 for an object.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

BLOCKS = 301
CALLS = 100
"""So few that other processes of a busy machine rarely come in between: the median is of blocks that ran undisturbed."""
THREADS = 8
CALLS_A_THREAD = 4000
IMPORTS = 15

CASES = {
    "info": ".info of a short text",
    "tag dicts": ".tag of three dicts",
    "tag Tags": ".tag of three Tags",
    "log": ".log of a small dict",
    "prediction": ".log_prediction of a small dict",
}
NOT_IN_RAYMON = {"prediction"}
CONTENDERS = ("tailrace", "tailrace queue", "raymon", "logging+json")

TEXT = "request received from bigshot_client"
TAGS: list[dict[str, Any]] = [
    {"name": "client", "value": "bigshot_client", "type": "label", "group": None},
    {"name": "sdk_version", "value": "1.4.2", "type": "label", "group": None},
    {"name": "prediction_time_ms", "value": 120.5, "type": "metric", "group": None},
]
DATA = {"age": 41, "rooms": [1, 2, 3], "city": "Leuven", "score": 0.75}

Calls = Mapping[str, Callable[[], object]]

# ---------------------------------------------------------------- in the process that logs; any interpreter runs it


def calls_of(contender: str, folder: str) -> Calls:
    """The calls of one contender, ready to be made."""
    if contender.startswith("tailrace"):
        from tailrace import FileLogger, Session, Tag, Trace
        from tailrace.sessions import Target

        logger = FileLogger(f"{folder}/trace.log", "shop", queue_lines=200_000 if "queue" in contender else 0)
        session = Session("fraud", Target(logger))
        return {
            **_calls(Trace(logger=logger), Tag),
            "prediction": lambda: session.log_prediction(DATA, True),
        }
    if contender == "raymon":
        import raymon
        import raymon.types

        trace = raymon.Trace(logger=raymon.RaymonFileLogger(path=folder, project_id="shop"))
        wrapped = raymon.types.Native(DATA)
        return {**_calls(trace, raymon.Tag), "log": lambda: trace.log(ref="features", data=wrapped)}
    return _logging_calls(folder)


def _calls(trace: Any, tag: Any) -> dict[str, Callable[[], object]]:
    tags = [tag(**each) for each in TAGS]
    return {
        "info": lambda: trace.info(TEXT),
        "tag dicts": lambda: trace.tag(TAGS),
        "tag Tags": lambda: trace.tag(tags),
        "log": lambda: trace.log("features", DATA),
    }


def _logging_calls(folder: str) -> Calls:
    import logging
    from datetime import datetime, timezone

    log = logging.getLogger("shop")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(logging.FileHandler(f"{folder}/app.log"))
    head = {"trace_id": "0192f0c1-2345-7000-8000-000000000000", "project_id": "shop"}

    def write(**fields: object) -> None:
        ts = datetime.now(timezone.utc).isoformat()  # noqa: UP017 - raymon's interpreter may be older
        log.info(json.dumps({**head, "ts": ts, **fields}))

    return {
        "info": lambda: write(kind="text", message=TEXT),
        "tag dicts": lambda: write(kind="tags", tags=TAGS),
        "tag Tags": lambda: write(kind="tags", tags=TAGS),
        "log": lambda: write(kind="object", ref="features", data=DATA),
        "prediction": lambda: write(kind="prediction", prediction_id="1", features=DATA, prediction=True),
    }


def serve(contender: str, folder: str) -> None:
    """Answers one JSON line a request: microseconds a call of a block, or percentiles among threads."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)  # what a client prints besides, nobody reads
    os.dup2(quiet, 2)
    calls = calls_of(contender, folder)
    answers.write("null\n")
    for request in sys.stdin:
        name, number, threads = json.loads(request)
        answers.write(
            json.dumps(
                _among_threads(calls[name], number, threads) if threads else _block(calls[name], number)
            )
        )
        answers.write("\n")


def _block(call: Callable[[], object], number: int) -> float:
    began = time.perf_counter()
    for _ in range(number):
        call()
    return (time.perf_counter() - began) / number * 1e6


def _among_threads(call: Callable[[], object], number: int, threads: int) -> list[float]:
    """Median, p99, p99.9 and maximum of single calls in microseconds."""
    taken: list[list[int]] = [[] for _ in range(threads)]
    start = threading.Barrier(threads)

    def work(mine: list[int]) -> None:
        start.wait()
        clock = time.perf_counter_ns
        for _ in range(number):
            began = clock()
            call()
            mine.append(clock() - began)

    workers = [threading.Thread(target=work, args=(mine,)) for mine in taken]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    times = sorted(each for mine in taken for each in mine)
    return [times[min(len(times) - 1, int(len(times) * share))] / 1000 for share in (0.5, 0.99, 0.999, 1.0)]


# ---------------------------------------------------------------- in the process that asks


@dataclass
class Contender:
    """A process that logs."""

    name: str
    process: subprocess.Popen[str]

    def ask(self, case: str, number: int, threads: int = 0) -> Any:
        """Have it make so many calls."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([case, number, threads]) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> Any:
        """Its next answer."""
        stdout: IO[str] | None = self.process.stdout
        assert stdout is not None
        line = stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with {self.process.wait()}")
        return json.loads(line)


@contextmanager
def contender(name: str, home: Path) -> Iterator[Contender]:
    """Starts one and ends it."""
    from support.raymon import raymon_python

    folder = home / name.replace(" ", "-")
    folder.mkdir()
    python = str(raymon_python()) if name == "raymon" else sys.executable
    process = subprocess.Popen(
        [python, __file__, "serve", name, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        found = Contender(name, process)
        found.answer()
        yield found
    finally:
        process.kill()
        process.wait()


def import_milliseconds(code: str) -> float:
    """Median time of some code in fresh interpreters."""
    timed = f"import time; a = time.perf_counter(); {code}; print((time.perf_counter() - a) * 1e3)"
    run = [sys.executable, "-c", timed]
    return statistics.median(
        float(subprocess.run(run, check=True, capture_output=True, text=True).stdout) for _ in range(IMPORTS)
    )


Times = dict[tuple[str, str], list[float]]
"""Microseconds a call of each block, by contender and case."""


def times(blocks: int = BLOCKS) -> Times:
    """Blocks of calls of each contender, in turns; without raymon where it cannot be installed."""
    with _contenders() as all_of_them:
        return _blocks(all_of_them, blocks)


@contextmanager
def _contenders() -> Iterator[list[Contender]]:
    from contextlib import ExitStack

    from support.raymon import RaymonMissing

    with tempfile.TemporaryDirectory(prefix="tailrace-bench-") as home, ExitStack() as stack:
        found = []
        for name in CONTENDERS:
            try:
                found.append(stack.enter_context(contender(name, Path(home))))
            except RaymonMissing:
                continue
        yield found


def _blocks(contenders: list[Contender], blocks: int) -> Times:
    taken: Times = {}
    for block in range(blocks):
        for case in CASES:
            for each in contenders:
                if each.name == "raymon" and case in NOT_IN_RAYMON:
                    continue
                mean = each.ask(case, CALLS // (5 if each.name == "raymon" else 1))
                if block:  # the first one warms up
                    taken.setdefault((each.name, case), []).append(mean)
    return taken


def main() -> None:
    """Measures and prints the tables."""
    with _contenders() as all_of_them:
        found = _blocks(all_of_them, BLOCKS)
        tails: dict[str, list[list[float]]] = {name: [] for name in CONTENDERS}
        for _ in range(5):
            for each in all_of_them:
                tails[each.name].append(each.ask("info", CALLS_A_THREAD, THREADS))
    _print(found, {name: rounds for name, rounds in tails.items() if rounds})


def _print(times: Mapping[tuple[str, str], list[float]], tails: Mapping[str, list[list[float]]]) -> None:
    median = {key: statistics.median(found) for key, found in times.items()}
    print(
        f"µs a call, median of {BLOCKS - 1} blocks (in brackets: times ours)   load {os.getloadavg()[0]:.1f}\n"
    )
    print(f"{'':24}" + "".join(f"{name:>20}" for name in CONTENDERS))
    for case, title in CASES.items():
        ours = median["tailrace", case]
        cells = [
            f"{median[name, case]:8.2f} ({median[name, case] / ours:5.1f}x)"
            if (name, case) in median
            else "-"
            for name in CONTENDERS
        ]
        print(f"{title:24}" + "".join(f"{cell:>20}" for cell in cells))
    print(f"\n.info among {THREADS} threads, µs, median of 5 rounds of {THREADS * CALLS_A_THREAD:,} calls\n")
    for position, title in enumerate(("p50", "p99", "p99.9", "maximum")):
        cells = [
            f"{statistics.median(each[position] for each in tails[name]):.1f}" if name in tails else "-"
            for name in CONTENDERS
        ]
        print(f"{title:24}" + "".join(f"{cell:>20}" for cell in cells))
    print()
    for code in ("import tailrace", "from tailrace import FileLogger, Tag, Trace", "import json, logging"):
        print(f"{code:48} {import_milliseconds(code):6.1f} ms")
    heavy = "import sys, tailrace; from tailrace import FileLogger, Tag, Trace; print({'numpy', 'pandas', 'PIL'} & set(sys.modules) or 'none')"
    loaded = subprocess.run([sys.executable, "-c", heavy], check=True, capture_output=True, text=True).stdout
    print(f"of numpy, pandas and PIL these are imported:     {loaded.strip():>6}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(*sys.argv[2:])
    else:
        main()
