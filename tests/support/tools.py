"""Programs that check what is deployed, where a machine has them: helm, promtool, docker and their like."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest


def tool(name: str) -> str:
    """The program's path: what the environment variable of its name says (`PROMTOOL` for promtool), or what is on the PATH.

    Skips the test that asks for it where it is not there.
    """
    found = os.environ.get(name.upper().replace("-", "_")) or shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name}")
    return found


def run(name: str, *words: str | Path, environment: Mapping[str, str] | None = None) -> str:
    """What the program prints; fails with all that it says where it does not end well.

    Args:
        name: As for `tool`.
        words: What to run it with.
        environment: On top of ours.
    """
    done = subprocess.run(
        [tool(name), *map(str, words)],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
