"""The ingestor over HTTP: authentication, compression, and a server that fails in every way."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from support import hostile
from support.cli import report, tailrace
from support.faults import Fault, FaultyFront, inserts, seeded
from support.front import FrontProcess
from support.kafka import KafkaBroker
from tailrace.ingestor.embedded import EmbeddedSink
from tailrace.ingestor.insert import ClickHouseWriter
from tailrace.ingestor.settings import RetryPolicy
from tailrace.schemas.clickhouse.connection import Dsn, connect
from tailrace.schemas.clickhouse.migrate import migrate
from tailrace.schemas.streams import BytePosition, FileChunk, FileRef

TOKEN = "correct horse"
PATIENCE = RetryPolicy(first=0.01, longest=0.05)


def chunk(number: int, lines: int = 50) -> FileChunk:
    data = b"".join(hostile.neighbour(number * lines + line) for line in range(lines)) + b"garbage\n"
    start = number * 1_000_000
    return FileChunk(FileRef("f", "/f.log"), BytePosition(start), BytePosition(start + len(data)), data)


@pytest.mark.parametrize("compression", ["lz4", "zstd", "false"])
def test_each_row_once_through_a_faulty_server(tmp_path: Path, compression: str) -> None:
    """500s, 503s, lost answers, resets before, amid and after: every batch is stored once, with auth, compressed."""
    batches = 12
    faults = [fault for fault in Fault if fault not in (Fault.WRONG_AUTH, Fault.HANG, Fault.DELAY)]
    schedule = [fault for pair in zip(faults, itertools.repeat(None)) for fault in pair] + seeded(5, 40, 0.4)
    with (
        FrontProcess(tmp_path / "db", token=TOKEN) as front,
        FaultyFront("127.0.0.1", front.port, match=inserts) as faulty,
    ):
        dsn = f"clickhouse://default:{TOKEN.replace(' ', '%20')}@127.0.0.1:{faulty.port}/tailrace?compress={compression}"
        client = connect(Dsn.parse(dsn), create_database=True)
        migrate(client)
        faulty.add(*schedule)
        sink = EmbeddedSink(ClickHouseWriter(client, "front"), 8 * 1024 * 1024, PATIENCE)

        async def store() -> None:
            for number in range(batches):
                await sink.store(sink.prepare([chunk(number)]), f"batch-{number}")
            await sink.close()

        asyncio.run(store())
        assert set(faults) <= set(faulty.injected), "the schedule must have been used"
        assert sink.stats.retries >= len(faults) - 2, "clickhouse-connect repeats some itself"
        found = client.query(
            "SELECT (SELECT count() FROM logs), (SELECT uniqExact(trace_id) FROM logs),"
            "       (SELECT count() FROM dead_letters), (SELECT sum(lines) FROM ledger)"
        ).result_rows
        assert found == [(batches * 50, batches * 50, batches, batches * 51)]
        client.close()


def test_a_server_that_hangs(tmp_path: Path) -> None:
    """An insert that is not answered in time is repeated; what the server did meanwhile is not stored twice."""
    with (
        FrontProcess(tmp_path / "db") as front,
        FaultyFront("127.0.0.1", front.port, match=inserts, delay=2.0) as faulty,
    ):
        client = connect(
            Dsn.parse(f"clickhouse://127.0.0.1:{faulty.port}"), create_database=True, timeout=1.0
        )
        migrate(client)
        faulty.add(Fault.DELAY, None, Fault.HANG)
        sink = EmbeddedSink(ClickHouseWriter(client, "front"), 8 * 1024 * 1024, PATIENCE)
        asyncio.run(sink.store(sink.prepare([chunk(0)]), "batch"))
        assert sink.stats.retries >= 1
        assert client.query("SELECT count() FROM logs").result_rows == [(50,)]
        client.close()


@pytest.mark.kafka
def test_the_ingest_command_over_http(tmp_path: Path, kafka: KafkaBroker) -> None:
    """`migrate` and `ingest` against a server with a password; a wrong one is one clear sentence, and nothing is lost."""
    log = tmp_path / "app.log"
    log.write_bytes(b"".join(map(hostile.neighbour, range(500))) + b"garbage\n")
    where = ["--kafka", kafka.bootstrap, "--topic", "over-http"]
    report("ship", "--once", *where, "--shipper-id", "over-http", log)
    with (
        FrontProcess(tmp_path / "db", token=TOKEN) as front,
        FaultyFront("127.0.0.1", front.port, match=inserts) as faulty,
    ):
        dsn = f"clickhouse://127.0.0.1:{faulty.port}/tailrace"
        wrong = tailrace(
            "migrate", "--clickhouse", dsn, environment={"TAILRACE_CLICKHOUSE_PASSWORD": "no"}, check=1
        )
        assert wrong.stderr.count("\n") == 1
        assert "refuses us" in wrong.stderr
        right = {"TAILRACE_CLICKHOUSE_PASSWORD": TOKEN}
        behind = tailrace("ingest", "--once", *where, "--clickhouse", dsn, environment=right, check=1)
        assert "run `tailrace migrate`" in behind.stderr
        tailrace("migrate", "--clickhouse", dsn, environment=right)
        assert "up to date" in tailrace("migrate", "--clickhouse", dsn, environment=right).stdout
        faulty.add(*seeded(3, 30, 0.3))
        found = report("ingest", "--once", *where, "--clickhouse", dsn, environment=right)
        assert (found["rows"], found["dead_letters"]) == (500, 1)
        client = connect(Dsn.parse(dsn, right))
        assert client.query("SELECT count(), uniqExact(trace_id) FROM logs").result_rows == [(500, 500)]
        client.close()
