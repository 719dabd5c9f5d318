"""An interpreter with a chDB whose Kafka engine works: `TAILRACE_KAFKA_ENGINE_PYTHON`, or one that is built once and cached."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from support.kafka import REPOSITORY
from tailrace.schemas.clickhouse.migrate import load, render

CHDB = "3.7.2"
"""ClickHouse 25.8. From 4.1 on, `ENGINE = Kafka` does not start in chDB."""
ALONE = Path(__file__).with_name("clickhouse_alone.py")


@cache
def kafka_engine_python(build: bool) -> str | None:
    """The interpreter; `None` where it is neither here nor to be built, or cannot be.

    Args:
        build: Whether to install it where it is not here.
    """
    named = os.environ.get("TAILRACE_KAFKA_ENGINE_PYTHON")
    if named:
        return named
    home = REPOSITORY / ".cache" / f"chdb-{CHDB}"
    python, ready = home / "bin" / "python", home / "ready"
    if not ready.exists() and build:
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True, capture_output=True)
            pip = [
                str(python),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                f"chdb=={CHDB}",
            ]
            subprocess.run(pip, check=True, capture_output=True)
            ready.touch()
        except (OSError, subprocess.CalledProcessError):
            return None
    return str(python) if ready.exists() else None


def alone(home: Path, database: Path, python: str = sys.executable) -> list[str]:
    """The beginning of a command line of `clickhouse_alone`, with the schema as it is now."""
    schema = home / "schema.json"
    if not schema.exists():
        statements = [render(statement, None) for migration in load() for statement in migration.statements]
        schema.write_text(json.dumps(statements))
    return [python, str(ALONE), str(database), str(schema)]
