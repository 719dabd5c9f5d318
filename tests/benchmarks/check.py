"""`tailrace check` of valid lines on one core: lines a second of CPU, all threads and the kernel counted, beside typed decoding alone.

    cd tests && python -m benchmarks.check 1000000

The best of five rounds of each, since what runs beside it on a shared core shows as CPU too. 200,000 lines of the corpus, two shared
cores at 2.5 GHz with a load of 8 beside it (2026-11-21), lines a second of CPU:

    reading lines            3,255,000
    decoding one by one        304,000
    check, in Python           467,000

and with the compiled decoder (2026-11-27, load 15):

    reading lines            3,850,000
    decoding one by one        335,000
    check                    1,106,000
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from benchmarks import corpus
from tailrace.ingestor.check import Checker
from tailrace.schemas.dialects.recognise import LineDecoder

ROUNDS = 5


def best(name: str, lines: int, work: Callable[[], None]) -> None:
    """Says how many lines a second of CPU the quickest of some rounds did."""
    seconds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    print(f"{name:22}{lines / min(seconds):10,.0f} lines/s of CPU", flush=True)


def main(count: int) -> None:
    """Checks a corpus, and decodes it line by line, as an ingestor does before it makes rows."""
    with tempfile.TemporaryDirectory(prefix="tailrace-bench-") as name:
        log = Path(name, "corpus.log")
        corpus.write(log, count)

        def check() -> None:
            checker = Checker(8 << 20, 10, lambda _: None, corpus.START + timedelta(days=1))
            checker.check(log)
            report = checker.report
            assert (report.lines, report.valid, report.suspicions) == (count, count, [])

        def read() -> None:
            with log.open("rb") as file:
                assert sum(1 for _ in file) == count

        def decode() -> None:
            decoder = LineDecoder()
            with log.open("rb") as file:
                for line in file:
                    decoder.decode(line)

        best("reading lines", count, read)
        best("decoding one by one", count, decode)
        best("check", count, check)


if __name__ == "__main__":
    main(int(sys.argv[1]))
