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
    second = open_another(dsn) if dsn.embedded else connect(dsn)
    settings = BackfillSettings(
        paths=paths,
        workers=workers,
        range_bytes=range_bytes,
        section_bytes=4 * range_bytes,
        batch_bytes=3 * range_bytes,
        spread_bytes=3 * range_bytes,
    )
    backfill = Backfill(settings, StoredHistory(first, dsn_text), [ClickHouseWriter(second, dsn_text)])
    report = asyncio.run(backfill.run())
    second.close()
    first.close()
    print(json.dumps(report.document(0.0)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
