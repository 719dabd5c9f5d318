"""Questions to production data: a week of traces with eleven tags each, and the same in a Map per trace, side by side.

    cd tests && python -m benchmarks.slices 9000000            # 99 million tags
    cd tests && python -m benchmarks.slices 900000 --keep DIR  # reuse DIR next time

Deterministic: everything is computed from the trace's number. Each figure is the warm median of seven, in milliseconds, chDB 26.9, two
cores that other work shared in the short run (load 6), and that had nothing else to do in the long one; "times" says how much longer
the same question to the Map takes in the same run:

    tags                                                  11 million          99 million
    latest 50 of a slice, 1 day                             41                  77
    by hour, three filters, one client (0.3 % of traces)   252   2.4 times     789   5.8 times
    by hour, three filters, a tenth of the traces          380   4.4 times    1393   3.6 times
    compared by a tag, one client                          685   2.6 times     642   8.0 times
    compared by a tag, a tenth of the traces              1463   0.7 times    2168   2.6 times
    one trace                                               23                  17.5
    tag names                                               11                   9.9
    bytes on disk a tag, tags and tag_lines                 24.1 and 10.7       22.7 and 10.4 (the Map: 4)

The load changed during the last comparison of the short run, which is of an earlier version. The two by hour take 1.3 and 2.6 seconds of CPU.
Three hours after the long run, on the same quiet machine, with the same queries, as medians of 15 and from the shortest to the longest: latest 72
(47 to 132), by hour 680 (581 to 760) and 1570 (1405 to 1697), compared 776 (627 to 893) and 1923 (1560 to 2154), one trace 24 (20 to 26), tag names
11 (10 to 42; 8.0, medians of 41, in a process that asks nothing else before); the Map took 8.0, 4.1, 5.6 and 3.3 times as long in a run of seven just before. The next day, with
remembered texts only looked at for what they lack: 76, 665 (579 to 803), 1723, 1014 (806 to 1248), 2172, 25 and 12; a day later 67, 642 (466 to 778), 1407,
750 (635 to 946), 1944, 22 and 11. Tag names take 8.0 to 9.8 (medians of 41) unless the broad questions were asked right before, whose memory the allocator is
giving back then: 4 are spent on planning, 1.5 on what even SELECT 1 costs, and 4 on merging 220 states. A projection without days makes that 0.6 less and
each insert into tag_stats 3.5 more.

Inserts through the views: 100,000 to 190,000 tags a second. Of the bytes in tags 8 each are for trace and line, which are hashes, 3.2 and 2.3 for
the two times, 0.6 for value_hash; the Map knows neither line nor type.

Where the time goes, in nanoseconds of CPU a row that is looked at: 3 for each comparison with a project, a name or a kind, 14 to 20 to look it up
among 25,000 traces, 35 among a million and 60 among two million, which no cache holds; 15 for its time, which is only read on a period's first and
last day, and where a time series asks for it; 20 for what tells a tag that is stored twice. Conditions compare value_hash and read no text.
Tried without gain: partitions of the hashes by groupArray with arrayIntersect or arrayEnumerateDense (90 to 100 a row), semi joins with their
filters (as a set) and without (a look-up costs a quarter less, but what a set leaves unread in PREWHERE is read), joins without Bloom filters,
bitmaps (90 and more), other block sizes, no compilation, no PREWHERE, huge pages (10 to 15 % in one series, none in the next), one distribution
WITH ROLLUP in place of two. Rows in the order of ClickHouse's own hash of the key make its growing sets degenerate: 13 microseconds a key.

Since the table was made, planning asks the index on types 32 granules at a time, estimates are remembered, and tag names are sorted here. Asked in
turns with the version before, at 99 million and a load of 8 to 13, in milliseconds of CPU (median of 4): by hour 1314 to 1090 (one client) and 2982 to
2597 (a tenth), one trace 25 to 22, tag names 11 to 8; the comparisons did not change by more than they varied. At such a load clocks say nothing.

Since then a comparison reads the texts of those values only that it shows, counts the traces without the tag by what is left, and has fewer
SELECTs inside one another. In turns at 99 million and a load of 3 to 7, in milliseconds of CPU (medians of 4 to 5, three series): compared by a tag 2054
to 1785, 2010 to 1760 and 1881 to 1636 (one client), 4558 to 3876, 4526 to 4215 and 4089 to 3598 (a tenth; on the clock 2146 to 1906 at best, load 4 to
5); by hour nothing that shows. To understand a comparison, whatever the size of the tables, ClickHouse takes 64 (EXPLAIN QUERY TREE; 116 before).

Where the floor is: a third of the samples of a comparison (a tenth) are look-ups of 31 million rows in sets, 44 nanoseconds each at such a load; 9 %
are the kernel's; the rest is spread over functions of which none has a twentieth: what is read, filtered, grouped so that what is stored twice
counts once, and joined. Choosing the traces takes 1100, the values of the tag 500, the numbers 600, the texts 100, joining and distributions 200.
Rows in the order of their places in ClickHouse's hash tables (16 bits of the CRC32C of trace_hash in the sorting key, after the text) made choosing
the traces a third cheaper (838 to 552), and a semi join by the algorithm `hash`, whose table was made of 6.75 million of them, 130 times dearer (0.58
to 75 seconds): presumably because the rows of one part fill a stretch of a growing table more densely than it may be filled as a whole. How dense
they are depends on how many rows a day has, so the order stays. Huge pages for all memory: 5 to 10 %, within what series differ by.

While another client of the same embedded engine inserts 220,000 tags at a time without a pause (293,000 a second, with merges at nice 5), questions take
as long as this: latest 1.1 times, by hour 1.2 and 1.5, compared 1.5 and 1.8, one trace 1.2, tag names 1.2. One client takes one statement after the other: behind the inserts of its own client a question waits for each.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tailrace.explorer.explorer import Explorer
from tailrace.explorer.period import Period
from tailrace.schemas.clickhouse.connection import Dsn, connect, open_another
from tailrace.schemas.clickhouse.migrate import migrate

START = datetime(2026, 11, 1, tzinfo=UTC)
DAYS = 7
CHUNK = 300_000
"""Traces in an insert of lines."""
BATCH = 20_000
"""Traces in an insert while questions are asked: as many lines as an ingestor's batch has."""
TAGS = 11
RUNS = 7
_DAY = 86_400_000_000

_MOMENT = "{start:Int64} + intDiv(n * {span:Int64}, {traces:Int64})"  # microseconds since the epoch
_ID = (
    "lower(concat(substring(hex(reinterpretAsFixedString(byteSwap(toUInt64(intDiv(at, 1000))))), 5, 8), '-', "
    "substring(hex(reinterpretAsFixedString(byteSwap(toUInt64(intDiv(at, 1000))))), 13, 4), '-7', "
    "substring(hex(cityHash64(n, 'a')), 1, 3), '-a', substring(hex(cityHash64(n, 'b')), 1, 3), '-', "
    "leftPad(hex(n), 12, '0')))"
)
_VALUES = {
    "client": ("label", "concat('client_', toString(toUInt32(floor(50 * pow(u(n, 1), 3)))))"),
    "sdk_version": ("label", "['1.4.2', '1.4.3', '1.9.0', '1.10.0', '2.0.0'][1 + h(n, 2) % 5]"),
    "latency_ms": ("metric", "toString(round(40 + 60 * -log(u(n, 3)) + if(h(n, 2) % 5 = 3, 80, 0), 1))"),
    "region": ("label", "['eu-west', 'eu-north', 'us-east', 'us-west', 'ap-south'][1 + h(n, 4) % 5]"),
    "model": ("label", "concat('m', toString(h(n, 5) % 20))"),
    "tier": ("label", "['free', 'pro', 'enterprise'][1 + h(n, 6) % 3]"),
    "customer": ("label", "concat('c', toString(h(n, 7) % 1000000))"),
    "rooms": ("metric", "toString(1 + h(n, 8) % 9)"),
    "price": ("metric", "toString(round(100000 * -log(u(n, 9)), 0))"),
    "cache": ("label", "if(h(n, 10) % 4 = 0, 'miss', 'hit')"),
    "status": (
        "if(h(n, 11) % 200 = 0, 'error', 'label')",
        "if(h(n, 11) % 200 = 0, 'upstream timed out', 'ok')",
    ),
}


def _expression(text: str) -> str:
    """`h(n, k)`: a hash of the trace's number; `u(n, k)`: a number in (0, 1] of it."""
    for salt in range(len(_VALUES), 0, -1):
        text = text.replace(f"u(n, {salt})", f"((cityHash64(n, {salt}) % 1000000 + 1) / 1000000)")
        text = text.replace(f"h(n, {salt})", f"cityHash64(n, {salt})")
    return text


def _source() -> str:
    return (
        f"SELECT number AS n, intDiv({_MOMENT}, 1000) * 1000 AS at, fromUnixTimestamp64Micro(at, 'UTC') AS moment, {_ID} AS id "
        "FROM numbers({first:UInt64}, {count:UInt64})"
    )


def _line(names: list[str], salt: int) -> str:
    """The INSERT of one line of tags for each trace of a chunk."""
    kinds = ", ".join(
        _expression(kind) if kind.startswith("if(") else f"'{kind}'"
        for kind, _ in (_VALUES[n] for n in names)
    )
    values = ", ".join(_expression(_VALUES[name][1]) for name in names)
    numbers = ", ".join("1" if _VALUES[name][0] == "metric" else "0" for name in names)
    quoted = ", ".join(f"'{name}'" for name in names)
    return (
        "INSERT INTO tag_lines (project_id, trace_id, trace_ts, ts, line_hash, tags.name, tags.type, tags.group, "
        f"tags.kind, tags.str, tags.num) WITH [{values}] AS texts, [{numbers}] AS numeric "
        f"SELECT 'shop', id, moment, moment + toIntervalMillisecond({salt}), cityHash64(n, {100 + salt}), [{quoted}], "
        f"[{kinds}], arrayMap(x -> '', texts), arrayMap(x -> if(x = 1, 'number', 'string'), numeric), texts, "
        f"arrayMap((t, x) -> if(x = 1, toFloat64OrZero(t), nan), texts, numeric) FROM ({_source()})"
    )


def insert_rate(client: Any, traces: int) -> float:
    """Tags a second of inserts into `tag_lines` and through the views, as an ingestor makes them, without decoding."""
    began = time.monotonic()
    names = list(_VALUES)
    for salt, part in ((0, names[:3]), (20, names[3:])):
        client.command(
            _line(part, salt), parameters=_parameters(traces, 0), settings={"max_insert_threads": 1}
        )
    return min(CHUNK, traces) * TAGS / (time.monotonic() - began)


def build(client: Any, traces: int) -> float:
    """Fills `tag_lines`, `tags` and `tag_stats` with what the views would make of the lines, name by name: quicker."""
    began = time.monotonic()
    for table in ("tag_lines", "tags", "tag_stats"):
        client.command(f"TRUNCATE TABLE {table}")
    client.command("DETACH TABLE tags_from_lines")
    names = list(_VALUES)
    day = -(-traces // DAYS)
    for first in range(0, traces, day):
        parameters = {**_parameters(traces, first), "count": min(day, traces - first)}
        for salt, part in ((0, names[:3]), (20, names[3:])):
            client.command(_line(part, salt), parameters=parameters)
            for name in part:
                client.command(_tag(name, salt), parameters=parameters)
    client.command("ATTACH TABLE tags_from_lines")
    return time.monotonic() - began


def _tag(name: str, salt: int) -> str:
    """The INSERT of the rows that one name of such lines has in `tags`."""
    kind, value = _VALUES[name]
    metric = kind == "metric"
    return (
        "INSERT INTO tags (project_id, name, kind, str, num, type, group, trace_hash, trace_ts, ts, line_hash) SELECT 'shop', "
        f"'{name}', '{'number' if metric else 'string'}', {_expression(value)} AS text, "
        f"{'toFloat64OrZero(text)' if metric else 'nan'}, {_expression(kind) if kind.startswith('if(') else repr(kind)}, "
        f"'', cityHash64(id), moment, moment + toIntervalMillisecond({salt}), cityHash64(n, {100 + salt}) "
        f"FROM ({_source()})"
    )


def build_map(client: Any, traces: int) -> float:
    """One row a trace with its tags in a Map, as span tables keep attributes; seconds."""
    client.command(
        "CREATE TABLE map_traces (project_id LowCardinality(String), trace_id String, trace_ts DateTime64(6, 'UTC') "
        "CODEC(Delta, ZSTD(1)), tags Map(LowCardinality(String), String) CODEC(ZSTD(1)), "
        "INDEX tag_values mapValues(tags) TYPE bloom_filter(0.01) GRANULARITY 1) ENGINE = MergeTree "
        "PARTITION BY toYYYYMMDD(trace_ts) ORDER BY (project_id, trace_ts)"
    )
    began = time.monotonic()
    pairs = ", ".join(f"'{name}', {_expression(value)}" for name, (_, value) in _VALUES.items())
    for first in range(0, traces, CHUNK):
        client.command(
            f"INSERT INTO map_traces SELECT 'shop', id, moment, map({pairs}) FROM ({_source()})",
            parameters=_parameters(traces, first),
        )
    return time.monotonic() - began


def _parameters(traces: int, first: int) -> dict[str, int]:
    span = DAYS * 86_400 * 1_000_000
    start = int(START.timestamp() * 1_000_000)
    return {
        "start": start,
        "span": span,
        "traces": traces,
        "first": first,
        "count": min(CHUNK, traces - first),
    }


def median(ask: Callable[[], Any]) -> float:
    """Milliseconds, warm."""
    ask()
    times = []
    for _ in range(RUNS):
        began = time.monotonic()
        ask()
        times.append((time.monotonic() - began) * 1000)
    return statistics.median(times)


_LATENCY = "toFloat64OrNull(tags['latency_ms'])"
NARROW = "client==client_7 && sdk_version>=1.9.0 && region==eu-west"  # one client: 0.3 % of the traces
BROAD = "region==eu-west && cache==hit && tier!=free"  # a tenth of the traces
_MAP_WHERE = {
    NARROW: "tags['client'] = 'client_7' AND tags['sdk_version'] IN ('1.9.0', '1.10.0', '2.0.0') AND tags['region'] = 'eu-west'",
    BROAD: "tags['region'] = 'eu-west' AND tags['cache'] = 'hit' AND tags['tier'] != 'free'",
}

Question = tuple[str, Callable[[], Any], Callable[[], Any] | None]
"""What is asked, our answer, and that of the Map."""


def questions(client: Any) -> list[Question]:
    """Those of the table above."""
    explorer = Explorer(client)
    start = int(START.timestamp() * 1_000_000)
    week, last_day = (
        Period(start, start + DAYS * _DAY),
        Period(start + (DAYS - 1) * _DAY, start + DAYS * _DAY),
    )
    some = client.query("SELECT trace_id FROM tag_lines WHERE project_id = 'shop' LIMIT 1").result_rows[0][0]

    def hours(text: str) -> Question:
        return (
            f"by hour, {_SIZE[text]}",
            lambda: explorer.slice(text, project="shop", period=week, over="hour", metrics=["latency_ms"]),
            lambda: client.query(
                f"SELECT toStartOfHour(trace_ts) AS h, count(), avg({_LATENCY}), quantiles(0.5, 0.95)({_LATENCY}) "
                f"FROM map_traces WHERE project_id = 'shop' AND {_MAP_WHERE[text]} GROUP BY h ORDER BY h"
            ),
        )

    def models(text: str) -> Question:
        return (
            f"compared by a tag, {_SIZE[text]}",
            lambda: explorer.slice(text, project="shop", period=week, by="model", metrics=["latency_ms"]),
            lambda: client.query(
                f"SELECT tags['model'] AS m, count(), avg({_LATENCY}), quantiles(0.5, 0.95, 0.99)({_LATENCY}) "
                f"FROM map_traces WHERE project_id = 'shop' AND {_MAP_WHERE[text]} GROUP BY m ORDER BY count() DESC"
            ),
        )

    return [
        (
            "latest 50 of a slice, 1 day",
            lambda: explorer.traces("client==client_7", project="shop", period=last_day, limit=50),
            None,
        ),
        hours(NARROW),
        hours(BROAD),
        models(NARROW),
        models(BROAD),
        ("one trace", lambda: explorer.trace(some, project="shop"), None),
        ("tag names", lambda: explorer.tags(project="shop"), None),
    ]


_SIZE = {NARROW: "three filters, one client", BROAD: "three filters, a tenth"}


def ask(client: Any) -> None:
    """Times the questions and prints a table."""
    for name, ours, other in questions(client):
        here = median(ours)
        there = median(other) if other else None
        peer = f"{there:8.0f} ms  {there / here:5.1f} times" if there else ""
        print(f"{name:42} {here:8.1f} ms  {peer}", flush=True)


def ask_while_inserting(client: Any, writer: Any, traces: int) -> None:
    """Times them once more while another thread inserts lines without a pause, and prints how much slower they are.

    Args:
        client: Asks.
        writer: Inserts. A client of its own, as in `tailrace up`: one client takes one statement after the other.
        traces: How many there are.
    """
    done = threading.Event()
    inserted = 0

    def insert() -> None:
        nonlocal inserted
        names = list(_VALUES)
        parameters = {**_parameters(traces, 0), "count": BATCH}
        parameters["start"] -= _DAY * DAYS
        while not done.is_set():
            writer.command(_line(names, 0), parameters={**parameters, "first": inserted})
            inserted += BATCH

    before = {name: median(ours) for name, ours, _ in questions(client)}
    thread = threading.Thread(target=insert)
    began = time.monotonic()
    thread.start()
    try:
        for name, ours, _ in questions(client):
            here = median(ours)
            print(
                f"while inserting: {name:42} {here:8.1f} ms, {here / before[name]:.1f} times as long",
                flush=True,
            )
    finally:
        done.set()
        thread.join()
    rate = inserted * TAGS / (time.monotonic() - began)
    print(f"  inserted meanwhile: {rate:,.0f} tags a second")


def sizes(client: Any, traces: int) -> None:
    """Bytes on disk for each tag."""
    rows = client.query(
        "SELECT table, sum(bytes_on_disk), sum(rows) FROM system.parts WHERE active AND database = currentDatabase() "
        "AND rows > 0 GROUP BY table ORDER BY 2 DESC"
    ).result_rows
    for table, size, count in rows:
        print(
            f"  {table:16} {count:12,} rows  {size / 1e6:9.1f} MB  {size / (traces * TAGS):6.2f} bytes a tag"
        )


def main() -> None:
    """Builds what is not there, and asks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", type=int, nargs="?", default=900_000)
    parser.add_argument("--keep", type=Path, help="a directory for the database, used again when it is there")
    parser.add_argument("--inserting", action="store_true", help="ask also while lines are inserted")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tailrace-slices-") as scratch:
        home = arguments.keep or Path(scratch) / "db"
        there = (home / "metadata").exists()
        dsn = Dsn.parse(f"chdb://{home}")
        with closing(connect(dsn, create_database=True)) as client:
            if not there:
                migrate(client)
                print(
                    f"inserts through the views: {insert_rate(client, arguments.traces):,.0f} tags a second"
                )
                seconds = build(client, arguments.traces)
                print(f"{arguments.traces * TAGS:,} tags in {seconds:.0f} s", flush=True)
                seconds = build_map(client, arguments.traces)
                print(f"Map per trace: {seconds:.0f} s")
            sizes(client, arguments.traces)
            ask(client)
            if arguments.inserting:
                with closing(open_another(dsn)) as writer:
                    ask_while_inserting(client, writer, arguments.traces)


if __name__ == "__main__":
    main()
