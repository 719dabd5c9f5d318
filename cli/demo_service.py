"""A service that predicts house prices badly, for `tailrace demo`: what its log looks like on an ordinary day.

python -m tailrace.cli.demo_service app.log 20000
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import tailrace
from tailrace import FileLogger, Tag, Trace

CLIENTS = {"bigshot_client": 0.3, "corner_shop": 0.5, "night_batch": 0.2}
VERSIONS = {"1.4.2": 0.6, "1.4.3": 0.3, "1.10.0": 0.1}


def serve(logger: FileLogger, rnd: random.Random) -> None:
    """One request, logged as a service would log it."""
    client = rnd.choices(list(CLIENTS), list(CLIENTS.values()))[0]
    version = rnd.choices(list(VERSIONS), list(VERSIONS.values()))[0]
    # What there is to find: one client's requests got slower with the newest version, and fail more often.
    slow = client == "bigshot_client" and version == "1.10.0"
    milliseconds = rnd.lognormvariate(4.6, 0.35) * (2.2 if slow else 1.0)
    trace = Trace(logger=logger)
    trace.info("request received")
    trace.tag(
        [
            {"name": "client", "value": client, "type": "label"},
            Tag(name="sdk_version", value=version, type="label"),
            Tag(name="prediction_time_ms", value=f"{milliseconds:.1f}", type="metric"),
            Tag(name="rooms", value=rnd.randint(1, 9), type="metric", group="house_prices@2.1"),
        ]
    )
    if rnd.random() < 0.2:
        features = {
            "rooms": rnd.randint(1, 9),
            "area": round(rnd.uniform(20, 300), 1),
            "garden": rnd.random() < 0.5,
        }
        trace.log(ref="features", data=tailrace.Native(features))
    if rnd.random() < (0.08 if slow else 0.01):
        if slow:
            # It waited; and no two of these began in the same millisecond, so that one is the last.
            time.sleep(0.001)
        trace.tag([Tag(name="upstream", value="valuation service timed out", type="error")])
    trace.info(f"predicted {rnd.lognormvariate(12.5, 0.4):,.0f}")


def main(path: Path, requests: int) -> None:
    """Serves, and leaves in the log what real logs hold too: a stray print, and half a line after a crash."""
    logger = FileLogger(path, project_id="houses")
    rnd = random.Random(2026)  # noqa: S311 - a demonstration, the same each time
    began = time.perf_counter()
    for _ in range(requests):
        serve(logger, rnd)
    seconds = time.perf_counter() - began
    stats = logger.stats()
    logger.close()
    with path.open("ab") as log:
        log.write(b"Traceback (most recent call last):\n")
        log.write(
            b'{"v":1,"kind":"text","ts":"2026-11-20T08:00:00Z","project_id":"houses","message":"no trace id"}\n'
        )
        log.write(b'{"v":1,"kind":"text","ts":"2026-11-20T08:00:00Z","proj')
    print(f"{stats.lines} {seconds:.6f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
