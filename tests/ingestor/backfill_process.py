"""`tailrace backfill` with small ranges, so that little data makes many of them: `DSN RANGE_BYTES WORKERS PATH…`; prints its report."""

from __future__ import annotations

import asyncio
import json
import sys

from tailrace.ingestor.backfill.claims import StoredHistory
from tailrace.ingestor.backfill.run import Backfill
from tailrace.ingestor.backfill.settings import BackfillSettings
from tailrace.ingestor.insert import ClickHouseWriter
from tailrace.ingestor.memory import keep_little
from tailrace.schemas.clickhouse.connection import Dsn, connect, open_another
from tailrace.schemas.clickhouse.migrate import migrate


def main(dsn_text: str, range_bytes: int, workers: int, *paths: str) -> None:
    keep_little()
    dsn = Dsn.parse(dsn_text)
    first = connect(dsn, create_database=True)
    migrate(first)
    more = [open_another(dsn) if dsn.embedded else connect(dsn) for _ in range(max(1, workers))]
    settings = BackfillSettings(
        paths=paths,
        workers=workers,
        range_bytes=range_bytes,
        section_bytes=4 * range_bytes,
        batch_bytes=3 * range_bytes,
        spread_bytes=3 * range_bytes,
    )
    writers = [ClickHouseWriter(client, dsn_text) for client in more]
    report = asyncio.run(Backfill(settings, StoredHistory(first, dsn_text), writers).run())
    for client in (*more, first):
        client.close()
    print(json.dumps(report.document(0.0)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
