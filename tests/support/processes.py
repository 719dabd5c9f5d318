"""Code in processes of its own, and what processes hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

_PAGE = os.sysconf("SC_PAGE_SIZE")
HEAD = "import json, os, signal, sys, threading, time, warnings; warnings.simplefilter('ignore')\n"


def in_child(code: str, *arguments: object, seconds: float = 120) -> Any:
    """Run code to its end; returns the JSON that it prints, None if it prints nothing."""
    done = subprocess.run(
        [sys.executable, "-c", HEAD + textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stderr}"
    assert not done.stderr, done.stderr
    return json.loads(done.stdout) if done.stdout else None


def messages(path: Path) -> list[str]:
    """The texts of a file, of which every line must be whole; empty lines are what a reader skips."""
    return [json.loads(line)["message"] for line in path.read_bytes().split(b"\n") if line]


def family(pid: int) -> list[int]:
    """A process and all below it, as far as they are there."""
    found, waiting = [], [pid]
    while waiting:
        each = waiting.pop()
        found.append(each)
        with suppress(OSError):
            for task in Path(f"/proc/{each}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
    return found


def resident(pid: int) -> int:
    """Bytes that a process has resident now; 0 when it has ended."""
    with suppress(OSError, ValueError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    return 0


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Returns when it holds; fails when it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"the condition did not come true in {seconds} s"
        time.sleep(0.005)
