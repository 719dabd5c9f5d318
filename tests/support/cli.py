"""The `tailrace` command as a user runs it, and a look into an embedded database that no process holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_QUERY = """
import json, sys
from tailrace.schemas.clickhouse.connection import Dsn, connect
client = connect(Dsn.parse(sys.argv[1]))
for statement in sys.argv[2:]:
    result = client.query(statement)
    print(json.dumps([dict(zip(result.column_names, row)) for row in result.result_rows], default=str))
"""


def tailrace(
    *arguments: str | Path,
    environment: Mapping[str, str] | None = None,
    check: int | None = 0,
    seconds: float = 120.0,
) -> subprocess.CompletedProcess[str]:
    """Runs `tailrace …` to its end.

    Args:
        arguments: The command line.
        environment: On top of ours.
        check: The exit code that is expected; `None` for any.
        seconds: When to give up.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tailrace.cli", *map(str, arguments)],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert check is None or done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def start(
    *arguments: str | Path, environment: Mapping[str, str] | None = None, **more: Any
) -> subprocess.Popen[str]:
    """Starts `tailrace …` and leaves it running."""
    return subprocess.Popen(
        [sys.executable, "-m", "tailrace.cli", *map(str, arguments)],
        env={**os.environ, **(environment or {})},
        text=True,
        **more,
    )


def report(*arguments: str | Path, **more: Any) -> dict[str, Any]:
    """Runs a command with `--format json` and returns its document."""
    document: dict[str, Any] = json.loads(tailrace(*arguments, "--format", "json", **more).stdout)
    return document


def query(dsn: str | Path, *statements: str, timeout: float = 120) -> list[list[dict[str, Any]]]:
    """The rows of each statement, by column; a directory stands for the embedded database in it. All have `timeout` seconds.

    In a process of its own: chDB allows a process one directory only.
    """
    name = dsn if isinstance(dsn, str) else f"chdb://{dsn}"
    done = subprocess.run(
        [sys.executable, "-c", _QUERY, name, *statements], capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
