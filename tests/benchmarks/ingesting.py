"""Lines → all tables: from Kafka, from a file, from a .gz; ours exactly once and validated, against ClickHouse's own readers in chDB.

The peer is `clickhouse_alone`. Both read the same Kafka messages of up to 64 KiB of lines, as `tailrace ship` writes them:
`JSONEachRow` takes several rows from one. Rows and a checksum of what they say must be those of the peer in every run. Both start
from an empty database; seconds are those of the work (from files: with the engine's start and its tables, for both), CPU and memory
those of the whole process, its start included.

Where our time goes, in µs of CPU a line of the corpus, on two cores; in brackets what came before, under other work:

    decoding and columns, compiled                 1.4   (9.1 in Python, 12.4 line by line)
    inserts, views included, merges stopped        5.5   (8.8, 16.4 with optimize_on_insert)
      of them tag_lines 1.2, tags 1.9, tag_stats 0.7
    merges                                           7   a third of the process, by perf
    the whole process                               17   (24, 36 to 44)

`pyarrow.array` imported pandas, nearly a second of a start; `bytes.count` of line feeds took 1.5 µs a line, as every message was counted
three times. Batches of 48 MiB instead of 16 save a fifth (fewer parts to merge), of 96 MiB instead of 32 a sixth of a backfill. What changed
nothing that could be told from noise: `parallel_view_processing`, skip indexes off, compact parts, column statistics off, one thread,
query profiling off, no deduplication tokens, malloc's thresholds.

What merges cost, 2026-11-27, under loads of 8 to 13, so only what was interleaved is to be compared. Merging ten parts of each table into
one takes µs of CPU a line: tag_lines 2.5, tags 2 to 2.6, logs 1, objects 1, as much as inserting them. Hence

    one part an insert of what a view makes (max_block_size)    a row of 100,000-line batches is merged 1.9 times instead of 3.5 to 4.1
    tag_lines column by column                                  1.7 of 2.5
    lines (not tags) ten parts at a time                        69 instead of 95 µs a line in batches of 1,000 (tags too: 64), means of 3
    small parts as one file (`min_bytes_for_full_part_storage`) 94 instead of 108, likewise, means of 6: not taken, as no ClickHouse
                                                                before 26.7 reads such parts
    all of it, a backfill of 1,000,000 lines                    9.7 s of CPU instead of 11.6, and a .gz 12.7 instead of 16.8, means of 3;
                                                                `file()` 11.7 and 12.2
    of that .gz, before the inserts                             2.5 instead of 4.9: ISA-L for zlib 0.8, lines not packed 1.4

Since then rows reach the embedded engine through memory and not through a temporary file: 8.9 seconds of CPU instead of 9.5 for a million lines, and
1,064 MB instead of 1,112 (medians of 7, in turns); and a new database is made while the first lines are decoded: 5.7 seconds instead of 6.1 (of 6).
The nice value of merges (0 to 19) makes no difference to a backfill of that size, which has five batches. Threads named RuntimeData in a
profile are not merges but inserts.

What changed nothing there: LZ4 for ZSTD in tags, larger blocks, compact parts, column statistics off; `min_parts_to_merge_at_once`.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.kafka_engine import CHDB, alone, kafka_engine_python
from benchmarks.measure import Bench, Row, Taken, compared, documented, interleaved, tailrace

GOAL = "1.5 times its lines/s"


def contents(home: Path, database: Path) -> dict[str, list[int]]:
    """Rows and checksums of a database that no process holds."""
    command = [*alone(home, database), "contents"]
    found: dict[str, list[int]] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found


class _Check:
    """Whether everybody stored the same."""

    def __init__(self, lines: int) -> None:
        self._lines = lines
        self._expected: dict[str, list[int]] | None = None

    def same(self, found: dict[str, list[int]]) -> None:
        """Rows and checksums, against those seen before."""
        assert sum(found[table][0] for table in ("logs", "objects", "tag_lines")) == self._lines, found
        assert found["tags"][0] == found["tag_lines"][1], found
        if self._expected is None:
            self._expected = found
        assert found == self._expected, (found, self._expected)


def _rows(
    bench: Bench,
    what: str,
    lines: int,
    size: int,
    ours: Callable[[Path], tuple[dict[str, Any], Taken]],
    theirs: Callable[[Path], tuple[dict[str, Any], Taken]] | None,
    note: str,
) -> Row:
    check = _Check(lines)

    def run_ours() -> Taken:
        database = bench.home / bench.name("db")
        document, taken = ours(database)
        assert document["lines"] == document["rows"] == lines, document
        check.same(contents(bench.home, database))
        shutil.rmtree(database)
        return taken

    def run_theirs() -> Taken:
        assert theirs is not None
        database = bench.home / bench.name("db")
        document, taken = theirs(database)
        check.same(document["contents"])
        shutil.rmtree(database)
        return taken

    runs = interleaved(bench, {"tailrace": run_ours} | ({"ClickHouse": run_theirs} if theirs else {}))
    return compared(
        what, lines, size, runs, "ClickHouse", GOAL, lambda speed, _cpu, _memory: speed >= 1.5, note
    )


def from_kafka(bench: Bench) -> Row:
    """The ingestor against the Kafka engine."""
    lines, brokers = bench.plan.ingest, bench.kafka.bootstrap
    parts = 2  # files, hence partitions: as many as cores
    corpora = [bench.corpus(lines // parts), *(bench.home / f"more-{part}.log" for part in range(1, parts))]
    text = corpora[0].read_bytes()
    for path in corpora[1:]:
        # The same lines with a different project are different lines of the same length.
        path.write_bytes(text.replace(b'"project_id": "shop"', b'"project_id": "shoq"'))
    topic = bench.name("ingest")
    ship = [
        "ship",
        "--kafka",
        brokers,
        "--topic",
        topic,
        "--shipper-id",
        topic,
        "--partitions",
        "6",
        "--once",
    ]
    subprocess.run(tailrace(*ship, *corpora), check=True, capture_output=True)

    def ours(database: Path) -> tuple[dict[str, Any], Taken]:
        where = ["--kafka", brokers, "--topic", topic, "--group", bench.name("group")]
        return documented(
            tailrace("ingest", *where, "--clickhouse", f"chdb://{database}", "--once", "--format", "json")
        )

    python = kafka_engine_python(build=bench.plan.builds)

    def theirs(database: Path) -> tuple[dict[str, Any], Taken]:
        assert python is not None
        where = [str(lines), brokers, topic, bench.name("group")]
        return documented([*alone(bench.home, database, python), "kafka", *where])

    size = sum(path.stat().st_size for path in corpora)
    what = f"ingest {lines:,} lines, Kafka → all tables, exactly once, validated"
    note = f"the peer at least once, not validated, from the same packed messages, in chdb {CHDB}"
    return _rows(bench, what, lines, size, ours, theirs if python else None, note)


def from_file(bench: Bench, zipped: bool = False) -> Row:
    """The backfill against `INSERT … SELECT FROM file(…)`."""
    lines = bench.plan.backfill
    corpus = bench.corpus(lines)
    size = corpus.stat().st_size
    if zipped:
        packed = corpus.with_name(f"{corpus.name}.gz")
        with corpus.open("rb") as plain, gzip.open(packed, "wb", 6) as file:
            shutil.copyfileobj(plain, file)
        moment = time.time() - 3600
        os.utime(packed, (moment, moment))
        corpus = packed

    def ours(database: Path) -> tuple[dict[str, Any], Taken]:
        return documented(
            tailrace("backfill", corpus, "--clickhouse", f"chdb://{database}", "--format", "json")
        )

    def theirs(database: Path) -> tuple[dict[str, Any], Taken]:
        return documented([*alone(bench.home, database), "file", str(lines), corpus])

    what = f"backfill {lines:,} lines, {'.gz' if zipped else 'file'} → all tables, once, validated"
    return _rows(
        bench, what, lines, size, ours, theirs, "the peer: INSERT … SELECT FROM file(…, JSONEachRow)"
    )
