"""The incident of the README: a service whose new release writes its times in a way that nobody can read.

    python -m support.incident DIRECTORY [COMMAND …]

makes the log files in `DIRECTORY/logs`, or runs commands one after the other in this one process, each printed before its output.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tailrace.cli.app import app

START = datetime(2026, 11, 20, 12, tzinfo=UTC)
RELEASE = 400
"""The request with which the new release begins."""


def write(directory: Path) -> None:
    """What the service wrote before and after the release: of the latter, tags have the date in another order."""
    logs = directory / "logs"
    logs.mkdir()
    with (logs / "billing.log").open("w") as file:
        for number in range(500):
            moment = START + timedelta(seconds=number)
            version = "2.0.1" if number >= RELEASE else "2.0.0"
            tags = [
                {"name": "version", "value": version, "type": "label"},
                {"name": "duration_ms", "value": 20 + number % 7, "type": "metric"},
            ]
            for fields in ({"kind": "text", "message": f"invoice {number}"}, {"kind": "tags", "tags": tags}):
                day_first = number >= RELEASE and fields["kind"] == "tags"
                ts = (
                    moment.strftime("%d/%m/%Y %H:%M:%S.%f")
                    if day_first
                    else moment.strftime("%Y-%m-%d %H:%M:%S.%f")
                )
                line = {
                    "v": 1,
                    "kind": fields.pop("kind"),
                    "ts": ts,
                    "project_id": "shop",
                    "trace_id": f"i-{number:04}",
                }
                file.write(json.dumps({**line, **fields}, separators=(",", ":")) + "\n")


def run(directory: Path, commands: list[str]) -> None:
    """Runs `tailrace …` commands in a directory; an exit code that is not 0 is printed."""
    os.chdir(directory)
    for command in commands:
        print(f"$ {command}", flush=True)
        code = app(shlex.split(command)[1:], standalone_mode=False)
        print(f"(exit code {code})\n" if code else "", flush=True)


if __name__ == "__main__":
    if sys.argv[2:]:
        run(Path(sys.argv[1]), sys.argv[2:])
    else:
        write(Path(sys.argv[1]))
