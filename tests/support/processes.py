"""Code in processes of its own, for tests of the loggers."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Returns when it holds; fails when it does not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"the condition did not come true in {seconds} s"
        time.sleep(0.005)
