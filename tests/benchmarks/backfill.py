"""Old files → rows: lines a second, CPU, and the memory of all processes at each tenth; then the time of a second run. Asserts counts.

cd tests && python -m benchmarks.backfill 1000000
cd tests && python -m benchmarks.backfill 1000000 half-gzipped

"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.corpus import lines as corpus_lines
from support.processes import family, resident

FILES = 4
TENTHS = 10


def _memory(pid: int) -> tuple[float, float]:
    """MB of a process, and of its children together."""
    own, *children = (resident(each) / 2**20 for each in family(pid))
    return own, sum(children)


def run(directory: Path, dsn: str) -> dict[str, Any]:
    """One backfill to its end, measured."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    samples: list[tuple[float, float]] = []
    with tempfile.TemporaryFile("w+") as output:
        command = ["backfill", str(directory), "--clickhouse", dsn, "--format", "json"]
        process = subprocess.Popen([sys.executable, "-m", "tailrace.cli", *command], stdout=output)
        while process.poll() is None:
            samples.append(_memory(process.pid))
            time.sleep(0.1)
        output.seek(0)
        document: dict[str, Any] = json.load(output)
    seconds = time.monotonic() - began
    assert process.returncode == 0, document
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = usage.ru_utime + usage.ru_stime - before.ru_utime - before.ru_stime
    print(
        f"{document['lines'] / seconds:10,.0f} lines/s  {seconds:6.1f} s  {cpu:6.1f} s of CPU  load {os.getloadavg()[0]:.1f}"
    )
    for tenth in range(TENTHS):
        part = samples[len(samples) * tenth // TENTHS : len(samples) * (tenth + 1) // TENTHS]
        if part:
            print(f"    {max(s[0] for s in part):6.0f} MB, workers {max(s[1] for s in part):6.0f} MB")
    return document


def main(lines: int, form: str = "plain") -> None:
    """A first and a second run over some files."""
    with tempfile.TemporaryDirectory(prefix="tailrace-bench-") as name:
        directory, dsn = Path(name, "logs"), f"chdb://{name}/db"
        directory.mkdir()
        for number in range(FILES):
            with (directory / f"{number}.log").open("wb", buffering=1 << 20) as file:
                file.writelines(corpus_lines(lines // FILES, seed=number))
            if form == "half-gzipped" and number % 2:
                subprocess.run(["gzip", str(directory / f"{number}.log")], check=True)
            moment = time.time() - 3600
            for path in directory.glob(f"{number}.*"):
                os.utime(path, (moment, moment))
        size = sum(path.stat().st_size for path in directory.iterdir())
        print(f"{lines:,} lines, {size / 1e6:.0f} MB in {FILES} files, {form}")
        assert run(directory, dsn)["rows"] == lines // FILES * FILES
        assert run(directory, dsn)["finished_before"] == FILES


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
