"""A service that logs: `python -m crash.writer PLAN_JSON` appends numbered lines to a file and rotates it.

It writes the lines of its plan in about the planned time, goes on at that rate until the plan's stop file is there,
and prints how many lines it wrote. When it is told to stop early, it writes the rest at once.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from crash.written import line

_BLOCKS_A_SECOND = 20


@dataclass(frozen=True)
class Plan:
    """What one writer does.

    Args:
        writer: Its number, which is in every line.
        directory: Of its log.
        stop: The file that tells it to end.
        lines: At least.
        rotate_every: So many lines.
        rate: Lines a second.
        keep: How many rotated files stay; 0 keeps all of them.
    """

    writer: int
    directory: str
    stop: str
    lines: int
    rotate_every: int
    rate: float
    keep: int = 0


def write(plan: Plan) -> int:
    """Follow the plan; returns the number of lines."""
    path = Path(plan.directory) / f"w{plan.writer}.log"
    block = max(1, int(plan.rate / _BLOCKS_A_SECOND))
    number, began, told = 0, time.monotonic(), False
    while number < plan.lines or not told:
        end = min(number + block, (number // plan.rotate_every + 1) * plan.rotate_every)
        if number < plan.lines:
            end = min(end, plan.lines)
        with path.open("ab") as log:
            for current in range(number, end):
                data = line(plan.writer, current).data + b"\n"
                if current % 50 == 0:  # in two writes, so that a reader sees half of it
                    log.write(data[: len(data) // 2])
                    log.flush()
                    data = data[len(data) // 2 :]
                log.write(data)
        number = end
        if number % plan.rotate_every == 0:
            _rotate(path, number // plan.rotate_every, plan.keep)
        told = told or Path(plan.stop).exists()
        if not told:
            time.sleep(max(0.0, began + number / plan.rate - time.monotonic()))
    return number


def _rotate(path: Path, count: int, keep: int) -> None:
    path.rename(path.with_name(f"{path.name}.{count}"))
    if keep and count > keep:
        path.with_name(f"{path.name}.{count - keep}").unlink()


class Writers:
    """Several writers, each a process of its own, over one directory.

    Args:
        directory: Made when it is absent.
        writers: How many.
        lines: All together at least.
        rotations: All together at least.
        seconds: In which they write that.
        keep: As in `Plan`.
    """

    def __init__(
        self, directory: Path, writers: int, lines: int, rotations: int, seconds: float, keep: int = 0
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._stop = directory.with_name(f"{directory.name}.stop")
        self._stop.unlink(missing_ok=True)
        each = -(-lines // writers)
        every = max(1, each * writers // max(1, rotations))
        self._plans = [
            Plan(n, str(directory), str(self._stop), each, every, each / seconds, keep)
            for n in range(writers)
        ]
        self._processes = [_start(plan) for plan in self._plans]

    @property
    def alive(self) -> bool:
        """Whether somebody still writes."""
        return any(process.poll() is None for process in self._processes)

    def finish(self) -> dict[int, int]:
        """Let them end, and return how many lines each of them wrote."""
        self._stop.touch()
        counts = {}
        for plan, process in zip(self._plans, self._processes, strict=True):
            out, err = process.communicate(timeout=600)
            assert process.returncode == 0, err
            counts[plan.writer] = int(out)
        return counts

    def kill(self) -> None:
        """End them at once, when a test has failed."""
        for process in self._processes:
            process.kill()
            process.wait()


def _start(plan: Plan) -> subprocess.Popen[str]:
    tests = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-m", "crash.writer", json.dumps(asdict(plan))]
    return subprocess.Popen(command, cwd=tests, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def write_files(directory: Path, counts: Sequence[int]) -> dict[int, int]:
    """Whole files at once, without a process: so many lines of each writer."""
    directory.mkdir(parents=True, exist_ok=True)
    for writer, count in enumerate(counts):
        data = b"".join(line(writer, number).data + b"\n" for number in range(count))
        (directory / f"w{writer}.log").write_bytes(data)
    return dict(enumerate(counts))


if __name__ == "__main__":
    print(write(Plan(**json.loads(sys.argv[1]))))
