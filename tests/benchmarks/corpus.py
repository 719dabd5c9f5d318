"""A deterministic corpus shaped like the Raymon file log: 40 % text, 40 % tags (3 or 8 of them), 20 % objects, 475 bytes a line.

    cd tests && python -m benchmarks.corpus 1000000 /tmp/corpus.log

Traces of five lines each, about 1,000 traces a second of log time; clients, versions and latencies are skewed as in production.
"""

from __future__ import annotations

import base64
import json
import random
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

START = datetime(2026, 11, 20, 8, tzinfo=UTC)
CLIENTS = ["bigshot_client", *(f"client_{number:02d}" for number in range(49))]
VERSIONS = ["1.4.2", "1.4.3", "1.10.0", "2.0.0"]
WORDS = (
    "request",
    "model",
    "loaded",
    "features",
    "validated",
    "cache",
    "miss",
    "prediction",
    "served",
    "fallback",
)


def lines(count: int, seed: int = 7) -> Iterator[bytes]:
    """`count` lines, each with its newline; the same for the same arguments."""
    rnd = random.Random(seed)
    blobs = [base64.b64encode(rnd.randbytes(rnd.randrange(110, 320))).decode() for _ in range(256)]
    trace_id = ""
    for number in range(count):
        if number % 5 == 0:
            trace_id = str(uuid.UUID(int=rnd.getrandbits(128), version=4))
        moment = START + timedelta(microseconds=number * 200 + rnd.randrange(100))
        jcr = {
            "timestamp": str(moment),
            "trace_id": trace_id,
            "ref": None,
            "data": None,
            "project_id": "shop",
        }
        kind = (0, 2, 1, 3, 4)[number % 5]
        if kind < 2:
            jcr["data"] = " ".join(rnd.choices(WORDS, k=20))
            line = {"type": "info", "jcr": jcr}
        elif kind < 4:
            jcr["data"] = _tags(rnd, 3 if kind == 2 else 8)
            line = {"type": "tags", "jcr": jcr}
        else:
            jcr["ref"] = "input"
            blob = rnd.choice(blobs)
            jcr["data"] = {
                "type": "raymon.types.Numpy",
                "params": {"data": blob, "shape": [len(blob) // 8], "dtype": "float64"},
            }
            line = {"type": "data", "jcr": jcr}
        yield json.dumps(line).encode() + b"\n"


def _tags(rnd: random.Random, count: int) -> list[dict[str, object]]:
    client = CLIENTS[min(int(rnd.expovariate(0.15)), len(CLIENTS) - 1)]
    latency = rnd.lognormvariate(4.5, 0.5) * (1.5 if client == "bigshot_client" else 1.0)
    tags: list[dict[str, object]] = [
        {"type": "label", "name": "client", "value": client, "group": None},
        {"type": "label", "name": "sdk_version", "value": rnd.choice(VERSIONS), "group": None},
        {"type": "metric", "name": "prediction_time_ms", "value": f"{latency:.0f}", "group": None},
    ]
    tags.extend(
        {
            "type": "profile-input",
            "name": f"feature_{number}",
            "value": round(rnd.gauss(0, 1), 3),
            "group": "house_prices@1.0",
        }
        for number in range(count - 3)
    )
    return tags


def write(path: Path, count: int, seed: int = 7) -> int:
    """Writes the corpus; returns its size in bytes."""
    with path.open("wb", buffering=1 << 20) as file:
        return sum(file.write(line) for line in lines(count, seed))


if __name__ == "__main__":
    print(write(Path(sys.argv[2]), int(sys.argv[1])), "bytes")
