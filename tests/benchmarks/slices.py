"""Questions to production data: a week of traces with eleven tags each, and the same in a Map per trace, side by side.

    cd tests && python -m benchmarks.slices 9000000            # 99 million tags
    cd tests && python -m benchmarks.slices 900000 --keep DIR  # reuse DIR next time

Deterministic: everything is computed from the trace's number. Each figure is the warm median of seven. Two shared cores, chDB 26.9,
in milliseconds, with what the same question to the Map takes in brackets:

                                    9.9 million tags    99 million tags
    latest 50 of a slice, 1 day        250 to 270          190 to 250
    by hour, three filters             580 (950)          2850 (6860)
    compared by a tag                  960 (1080)         4110 (6360)
    one trace                           80                  -
    tag names                           18                  11

Inserts through the views: 100,000 to 170,000 tags a second. On disk 21 bytes a tag in tags (8 each for trace and line, which are
hashes, and 2 for each time) and 10 in tag_lines, against 4 in the Map, which knows neither line nor type. Of the time of the two
slow ones most goes into looking up 16 million keys in sets of a million, which no cache holds; reading the conditions' columns is
a fifth of it, of that half for trace_ts.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tailrace.explorer.explorer import Explorer
from tailrace.explorer.period import Period
from tailrace.schemas.clickhouse.connection import Dsn, connect
from tailrace.schemas.clickhouse.migrate import migrate

START = datetime(2026, 11, 1, tzinfo=UTC)
DAYS = 7
CHUNK = 300_000
"""Traces in an insert of lines."""
TAGS = 11
RUNS = 7

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
        "INSERT INTO tags SELECT 'shop', "
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


_MAP_WHERE = (
    "FROM map_traces WHERE project_id = 'shop' AND tags['region'] = 'eu-west' AND tags['cache'] = 'hit' "
    "AND tags['tier'] != 'free'"
)
_LATENCY = "toFloat64OrNull(tags['latency_ms'])"
THREE = "region==eu-west && cache==hit && tier!=free"


def ask(client: Any, traces: int) -> None:
    """Times the questions and prints a table."""
    explorer = Explorer(client)
    start = int(START.timestamp() * 1_000_000)
    day = 86_400_000_000
    week, last_day = Period(start, start + DAYS * day), Period(start + (DAYS - 1) * day, start + DAYS * day)
    some = client.query("SELECT trace_id FROM tag_lines LIMIT 1").result_rows[0][0]
    some = some.decode() if isinstance(some, bytes) else some
    questions: dict[str, tuple[Callable[[], Any], Callable[[], Any] | None]] = {
        "latest 50 of a slice, 1 day": (
            lambda: explorer.traces("client==client_7", project="shop", period=last_day, limit=50),
            None,
        ),
        "p50, p95 by hour, three filters, 7 days": (
            lambda: explorer.slice(THREE, project="shop", period=week, over="hour", metrics=["latency_ms"]),
            lambda: client.query(
                f"SELECT toStartOfHour(trace_ts) AS h, count(), avg({_LATENCY}), "
                f"quantiles(0.5, 0.95)({_LATENCY}) {_MAP_WHERE} GROUP BY h ORDER BY h"
            ),
        ),
        "compared by a tag, three filters, 7 days": (
            lambda: explorer.slice(THREE, project="shop", period=week, by="model", metrics=["latency_ms"]),
            lambda: client.query(
                f"SELECT tags['model'] AS m, count(), avg({_LATENCY}), "
                f"quantiles(0.5, 0.95, 0.99)({_LATENCY}) {_MAP_WHERE} GROUP BY m ORDER BY count() DESC"
            ),
        ),
        "one trace": (lambda: explorer.trace(some, project="shop"), None),
        "tag names": (lambda: explorer.tags(project="shop"), None),
    }
    for name, (ours, other) in questions.items():
        here = median(ours)
        there = median(other) if other else None
        peer = f"{there:8.0f} ms  {there / here:5.1f} times" if there else ""
        print(f"{name:42} {here:8.1f} ms  {peer}", flush=True)


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
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tailrace-slices-") as scratch:
        home = arguments.keep or Path(scratch) / "db"
        there = (home / "metadata").exists()
        with closing(connect(Dsn.parse(f"chdb://{home}"), create_database=True)) as client:
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
            ask(client, arguments.traces)


if __name__ == "__main__":
    main()
