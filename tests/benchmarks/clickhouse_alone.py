"""The peer of the ingest rows: ClickHouse reading the same lines by itself, in chDB, into the same tables.

    python clickhouse_alone.py DIRECTORY SCHEMA file LINES corpus.log       # one line with what it took
    python clickhouse_alone.py DIRECTORY SCHEMA kafka LINES BROKERS TOPIC GROUP
    python clickhouse_alone.py DIRECTORY SCHEMA contents                    # rows and checksums of what is there
    python clickhouse_alone.py DIRECTORY SCHEMA serve BROKERS TOPIC GROUP   # answers a query a line

`INSERT … SELECT FROM file(…, JSONEachRow)` and `ENGINE = Kafka` both feed one source table, from which three materialized views
build `logs`, `objects` and `tag_lines`, and the schema's own views the rest. It validates nothing, keeps no bad line, and reads a topic
at least once.

In the chDB that Tailrace uses, a table with `ENGINE = Kafka` cannot start ("Shutdown was called", chdb 4.1 to 4.4); in chdb 3.7.2,
ClickHouse 25.8, it can. So this file needs nothing but chdb, and any interpreter that has it runs it. SCHEMA is a JSON list of
statements.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

_COLUMNS = (
    "type String, jcr Tuple(timestamp DateTime64(6, 'UTC'), trace_id String, ref Nullable(String), "
    "data String, project_id String)"
)
_COMMON = (
    "jcr.project_id AS project_id, jcr.trace_id AS trace_id, jcr.timestamp AS trace_ts, jcr.timestamp AS ts, "
    "xxh3(jcr.trace_id, jcr.timestamp, jcr.data) AS line_hash"
)
_TAG = "Array(Tuple(name String, type String, group Nullable(String), value String))"
_VIEWS = (
    f"CREATE MATERIALIZED VIEW source_logs TO logs AS SELECT {_COMMON}, source.type AS level, jcr.data AS message "
    "FROM source WHERE source.type = 'info'",
    f"CREATE MATERIALIZED VIEW source_objects TO objects AS SELECT {_COMMON}, assumeNotNull(jcr.ref) AS ref, "
    "JSONExtractString(jcr.data, 'type') AS type, JSONExtractRaw(jcr.data, 'params') AS data "
    "FROM source WHERE source.type = 'data'",
    f"CREATE MATERIALIZED VIEW source_tags TO tag_lines AS SELECT {_COMMON}, "
    "found.name AS `tags.name`, found.type AS `tags.type`, arrayMap(x -> ifNull(x, ''), found.group) AS `tags.group`, "
    "found.value AS `tags.str`, arrayMap(x -> if(isNull(x), 'string', 'number'), numbers) AS `tags.kind`, "
    "arrayMap(x -> ifNull(x, nan), numbers) AS `tags.num` "
    f"FROM (SELECT jcr, JSONExtract(jcr.data, '{_TAG}') AS found, "
    "arrayMap(x -> toFloat64OrNull(x), found.value) AS numbers FROM source WHERE source.type = 'tags')",
)
_FORMAT = {
    "date_time_input_format": "best_effort",
    "input_format_json_read_objects_as_strings": 1,
    "input_format_json_read_arrays_as_strings": 1,
}
_INSERT = {"max_partitions_per_insert_block": 0, "max_insert_threads": 2, "optimize_on_insert": 0}
"""Two threads: as many as the machine has cores. The last one is what we insert with, too."""
_KAFKA = {"kafka_num_consumers": 2, "kafka_thread_per_consumer": 1, "kafka_format": "JSONEachRow"}
_BULK = {"kafka_max_block_size": 65_536, "kafka_poll_max_batch_size": 65_536, "kafka_flush_interval_ms": 1000}
_FRESH = {"kafka_flush_interval_ms": 100, "kafka_poll_timeout_ms": 20, "kafka_num_consumers": 1}
STORED = "(SELECT count() FROM logs) + (SELECT count() FROM objects) + (SELECT count() FROM tag_lines)"


class _ClickHouse:
    """chDB in this process, on one directory."""

    def __init__(self, directory: str, schema: list[str]) -> None:
        from chdb.session import Session

        new = not Path(directory, "metadata").exists()
        self._session = Session(directory)
        self.ask("CREATE DATABASE IF NOT EXISTS tailrace")
        self.ask("USE tailrace")
        for statement in schema if new else ():
            self.ask(statement)

    def ask(self, statement: str) -> list[list[Any]]:
        """Rows of an answer."""
        text = str(self._session.query(statement, "JSONCompactEachRow"))
        return [json.loads(line) for line in text.splitlines() if line.startswith("[")]

    def read_topic(self, brokers: str, topic: str, group: str, options: dict[str, int]) -> None:
        """Begins to read; the views store what comes."""
        names = {"kafka_broker_list": brokers, "kafka_topic_list": topic, "kafka_group_name": group}
        settings = ", ".join(
            f"{name} = {value!r}" for name, value in {**names, **_KAFKA, **options, **_FORMAT}.items()
        )
        self.ask("SET optimize_on_insert = 0")
        self.ask(f"CREATE TABLE source ({_COLUMNS}) ENGINE = Kafka SETTINGS {settings}")
        self._views()

    def read_file(self, path: str) -> None:
        """Reads a file to its end."""
        self.ask(f"CREATE TABLE source ({_COLUMNS}) ENGINE = Null")
        self._views()
        columns = _COLUMNS.replace("'", "\\'")
        settings = ", ".join(f"{name} = {value!r}" for name, value in {**_FORMAT, **_INSERT}.items())
        self.ask(
            f"INSERT INTO source SELECT type, jcr FROM file('{path}', JSONEachRow, '{columns}') SETTINGS {settings}"
        )

    def _views(self) -> None:
        for view in _VIEWS:
            self.ask(view)

    def stored(self) -> int:
        """Lines in the tables."""
        return int(self.ask(f"SELECT {STORED}")[0][0])

    def unfolded(self) -> bool:
        """Whether `tags` has every tag of `tag_lines`."""
        return bool(
            self.ask("SELECT (SELECT count() FROM tags) = (SELECT sum(length(tags.name)) FROM tag_lines)")[0][
                0
            ]
        )

    def contents(self) -> dict[str, list[int]]:
        """Rows and a checksum of what they say, by table: alike for whoever stored the same lines."""
        common = "project_id, trace_id, toUnixTimestamp64Micro(ts)"
        said = {
            "logs": f"{common}, level, message",
            "objects": f"{common}, ref, type, replaceAll(data, ' ', '')",
            # Versions of ClickHouse differ in the last bit of a number that they read.
            "tags": "project_id, trace_hash, toUnixTimestamp64Micro(ts), name, type, group, "
            "if(isNaN(num), str, toString(toInt64(round(num * 1000))))",
        }
        found = {}
        for table, columns in said.items():
            rows = self.ask(f"SELECT count(), sum(cityHash64({columns})) FROM {table}")
            found[table] = [int(value) for value in rows[0]]
        rows = self.ask("SELECT count(), sum(length(tags.name)) FROM tag_lines")
        return {**found, "tag_lines": [int(value) for value in rows[0]]}


def main(directory: str, schema: str, how: str, *where: str) -> None:
    """Reads all lines, and says how long it took; or what it is told to."""
    began = time.monotonic()
    clickhouse = _ClickHouse(directory, json.loads(Path(schema).read_text()))
    if how == "contents":
        print(json.dumps(clickhouse.contents()))
        return
    if how == "serve":
        clickhouse.read_topic(where[0], where[1], where[2], _FRESH)
        print("null", flush=True)
        for line in sys.stdin:
            print(json.dumps(clickhouse.ask(line)), flush=True)
        return
    # From an empty directory, as the backfill beside it: its seconds too are those of the engine's start and of making the tables.
    if how == "file":
        clickhouse.read_file(where[1])
    else:
        clickhouse.read_topic(where[1], where[2], where[3], _BULK)
        while not clickhouse.ask("SELECT max(num_rebalance_assignments) > 0 FROM system.kafka_consumers")[0][
            0
        ]:
            time.sleep(0.01)
        # Joining the group takes it some seconds, ours a part of one: only what comes after it is counted, for it alone.
        began = time.monotonic()
        while clickhouse.stored() < int(where[0]) or not clickhouse.unfolded():
            time.sleep(0.02)
    seconds = time.monotonic() - began
    print(
        json.dumps({"lines": clickhouse.stored(), "seconds": seconds, "contents": clickhouse.contents()}),
        flush=True,
    )
    os._exit(0)  # its consumers may take half a minute to leave, and nothing is kept


if __name__ == "__main__":
    main(*sys.argv[1:])
