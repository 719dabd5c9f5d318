"""Files to the embedded engine in one process, under SIGKILL: engine, checkpoint and reader die together."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from crash import stores
from crash.actors import Cast
from crash.check import Outcome
from crash.faults import Chaos
from crash.sizes import Sizes
from crash.writer import Writers
from tailrace.schemas.crash import POINTS

pytestmark = pytest.mark.timeout(3600)

CHECKPOINTED_POINTS = [
    point
    for point in POINTS
    if point.rpartition("-")[2] in {"intent", "store", "checkpoint"} and point.startswith("ship.")
]
STORE_POINTS = ["ingest.before-table", "ingest.after-table", "ingest.before-ledger", "ingest.after-ledger"]


def test_up_killed(alone: Cast, tmp_path: Path, sizes: Sizes, outcome: Outcome) -> None:
    """`up` ends at every named step of its path and at random times, and the engine with it: every table holds what
    was written, once, and the ledger's ranges are the files."""
    dsn = stores.create_embedded(tmp_path / "db")
    writers = Writers(tmp_path / "logs", sizes.writers, sizes.lines, sizes.rotations, 2 * sizes.seconds)
    try:
        chaos = Chaos(sizes.seed, outcome.faults)
        up = alone.up(writers.directory, dsn)
        chaos.at_points([up], CHECKPOINTED_POINTS + STORE_POINTS)
        for _ in range(sizes.kills):
            chaos.kill(up, 1.0, 2.5)
        counts = writers.finish()
    finally:
        writers.kill()
    alone.up(writers.directory, dsn, "last-up", "--once").run(600)
    stored = stores.read(dsn)
    outcome.count_stored(stored, stores.expected(counts), counts)
    outcome.count_ledger(stored.ledger, counts, "file:")
    outcome.assert_exact()


_INSERT = """
import asyncio, json, sys, time
from crash.written import line
from tailrace.ingestor.decode import BatchDecoder
from tailrace.ingestor.embedded import EmbeddedSink
from tailrace.ingestor.insert import ClickHouseWriter
from tailrace.schemas.clickhouse.connection import Dsn, open_engine
from tailrace.schemas.clickhouse.migrate import migrate
from tailrace.schemas.streams import BytePosition, FileChunk, FileRef
client = open_engine(Dsn.parse(sys.argv[1]))
migrate(client)
data = b"".join(line(0, number).data + b"\\n" for number in range(300))
decoder = BatchDecoder(1 << 20)
decoder.add_chunk(FileChunk(FileRef("f", "f.log"), BytePosition(0), BytePosition(len(data)), data))
sink = EmbeddedSink(ClickHouseWriter(client, "db"), 1 << 20)
asyncio.run(sink.restore(decoder.finish(), "T", time.time()))
asyncio.run(sink.close())
tables = ("logs", "tag_lines", "tags", "objects", "feedback")
print(json.dumps([client.query(f"SELECT count() FROM {table}").result_rows[0][0] for table in tables]))
client.close()
"""


def _insert(directory: Path) -> list[int]:
    """The same insert under the same token, in a process of its own; how many rows the tables then have."""
    command = [sys.executable, "-c", _INSERT, f"chdb://{directory}"]
    tests = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tests, timeout=120)
    assert done.returncode == 0, done.stderr
    found: list[int] = json.loads(done.stdout)
    return found


def test_engine_killed_between_token_and_rows(tmp_path: Path) -> None:
    """ClickHouse notes the token of a part before it puts the part in place. Killed in between it takes the same insert
    for a repetition ever after; so a batch that is restored is looked for, and what is missing is brought back, in each
    partition and in the view's table, and nothing else."""
    whole = _insert(tmp_path / "db")
    assert _insert(tmp_path / "db") == whole
    logs = [path.parent for path in (tmp_path / "db").glob("store/*/*/deduplication_logs")]
    for table in logs:
        # As the directory stands after a kill: the note is there, and the last part was not renamed into place.
        for part in sorted(table.glob("*_*_*_*"))[-1:]:
            shutil.rmtree(part)
    assert _insert(tmp_path / "db") == whole
    assert _insert(tmp_path / "db") == whole
