"""Batches into a real engine: complete for every kind, and harmless to repeat from any step."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from support import hostile
from support.writers import (
    AwayWriter,
    CountingWriter,
    Crash,
    CrashingWriter,
    ForgetfulWriter,
    FullDiskWriter,
    RefusingWriter,
)
from tailrace.ingestor.decode import BatchDecoder, DecodedBatch
from tailrace.ingestor.embedded import EmbeddedSink
from tailrace.ingestor.insert import (
    INSERTS_AT_ONCE,
    ClickHouseWriter,
    Inserter,
    insert_executor,
    tokens_remembered,
)
from tailrace.ingestor.settings import RetryPolicy
from tailrace.schemas.clickhouse.migrate import DEDUPLICATION_BLOCKS
from tailrace.schemas.errors import ClickHouseRejected, RowsRejected
from tailrace.schemas.records import RECORD_TYPES
from tailrace.schemas.streams import BytePosition, FileChunk, FileRef

Database = Callable[[], Any]
TABLES = [
    "logs",
    "tag_lines",
    "tags",
    "objects",
    "traces",
    "event_lines",
    "feedback",
    "predictions",
    "ground_truths",
]
TABLES += ["exceptions", "metadata", "statistics", "dead_letters", "ledger"]

PAYLOAD = {"a": [1, 2.5, None, "ü\u0000"], "b": {"c": True}}
LINES = [
    hostile.v1("text", message="hällo\n\u0000", level="warning"),
    hostile.v1(
        "tags",
        tags=[
            {"name": "client", "value": "bigshot", "type": "label"},
            {"name": "ms", "value": "120", "type": "metric", "group": "g"},
            {"name": "flag", "value": True},
            {"name": "nothing", "value": None},
            {"name": "list", "value": [1, {"x": 2}]},
        ],
    ),
    hostile.v1("tags", tags=[]),
    hostile.v1("object", ref="r", type="tailrace.Native", data=PAYLOAD),
    hostile.v1(
        "trace", name="n", conversation_id="c", session_id="s", user={"id": "u", "age": 3}, metadata=PAYLOAD
    ),
    hostile.v1(
        "event_start",
        event_id="e",
        event_type="TOOL",
        parent_id="p",
        name="search",
        input=PAYLOAD,
        attributes={"gen_ai.request.model": "m"},
    ),
    hostile.v1("event_end", event_id="e", output=PAYLOAD, status="error", error="boom", usage={"x": 1}),
    hostile.v1("feedback", feedback_tag="THUMBS_UP", feedback_text="nice", score=0.5),
    hostile.v1(
        "prediction", deployment="d", prediction_id="7", features=PAYLOAD, prediction=True, trace_id=None
    ),
    hostile.v1("ground_truth", deployment="d", label=True, prediction=False, segments=["a", "b"]),
    hostile.v1("exception", deployment="d", message="m", stack_trace="s", extra_info=PAYLOAD),
    hostile.v1("metadata", deployment="d", entries=PAYLOAD),
    hostile.v1(
        "statistics",
        deployment="d",
        seconds=60.5,
        instance="i",
        sequence=2**63 - 1,
        subject="feature",
        name="f",
        type="number",
        count=3,
        numbers=2,
        missing=1,
        mean=1.5,
        bins=[-(2**31), 5],
        bin_counts=[1, 1],
        distinct="AAAA",
        top={"00ff": 1},
        confusion=[["a", "b", 1]],
    ),
]


def batch(*contents: bytes) -> DecodedBatch:
    return files(b"".join(contents))


def files(*contents: bytes) -> DecodedBatch:
    decoder = BatchDecoder(8 * 1024 * 1024)
    for number, data in enumerate(contents):
        file = FileRef(f"f{number}", f"/f{number}.log")
        decoder.add_chunk(FileChunk(file, BytePosition(0), BytePosition(len(data)), data))
    return decoder.finish()


def every_kind() -> DecodedBatch:
    return batch(*map(hostile.line, LINES), b"garbage\n")


def every_kind_of_two_files() -> DecodedBatch:
    lines = [*map(hostile.line, LINES), b"garbage\n"]
    return files(b"".join(lines[::2]), b"".join(lines[1::2]))


def names(client: Any) -> list[tuple[Any, ...]]:
    """What is known of the tags that there are."""
    rows: list[tuple[Any, ...]] = client.query(
        "SELECT name, kind, type, group, day, uniqCombined64Merge(12)(lines), uniqCombined64Merge(12)(texts), min(low), max(high) "
        "FROM tag_stats GROUP BY name, kind, type, group, day ORDER BY ALL"
    ).result_rows
    return rows


def counts(client: Any) -> dict[str, int]:
    return {table: client.query(f"SELECT count() FROM {table}").result_rows[0][0] for table in TABLES}


def store(client: Any, what: DecodedBatch, token: str) -> None:
    with ThreadPoolExecutor(1) as executor:
        inserter = Inserter(ClickHouseWriter(client, "test"), executor, RetryPolicy())
        asyncio.run(inserter.store(what, token))


def restore(client: Any, what: DecodedBatch, token: str) -> None:
    """As a process that finds it announced by an earlier one, just now."""
    sink = EmbeddedSink(ClickHouseWriter(client, "test"), 8 * 1024 * 1024)
    asyncio.run(sink.restore(what, token, time.time()))


def test_lines_whose_tags_are_not_there_get_them_and_stay_one_row(database: Database) -> None:
    """A server that is killed between a line and what its view makes of it has half of it; whoever stores the line again, under
    another token, brings the other half and no second line."""
    client = database()
    what = batch(
        *(
            hostile.line(
                hostile.v1(
                    "tags", trace_id=f"t{n}", tags=[{"name": "a", "value": n}, {"name": "b", "value": None}]
                )
            )
            for n in range(20)
        )
    )
    view = client.query(
        "SELECT create_table_query FROM system.tables WHERE name = 'tags_from_lines' AND database = currentDatabase()"
    )
    client.command("DROP VIEW tags_from_lines")
    store(client, what, "killed")
    client.command(view.result_rows[0][0])
    assert (counts(client)["tag_lines"], counts(client)["tags"]) == (20, 0)
    with ThreadPoolExecutor(1) as executor:
        inserter = Inserter(ClickHouseWriter(client, "test"), executor, RetryPolicy())

        async def again() -> None:
            rest = await inserter.only_missing(what)
            assert not rest.tables
            await inserter.store(rest, "again", in_doubt=True)

        asyncio.run(again())
    assert (counts(client)["tag_lines"], counts(client)["tags"]) == (20, 40)
    seen = client.query(
        "SELECT name, kind, str, count(), uniq(trace_hash) FROM tags GROUP BY ALL ORDER BY ALL LIMIT 2"
    )
    assert seen.result_rows == [("a", "number", "0", 1, 1), ("a", "number", "1", 1, 1)]
    assert client.query("SELECT count() FROM tags WHERE name = 'b' AND kind = 'null'").result_rows == [(20,)]
    assert client.query(
        "SELECT uniqCombined64Merge(12)(lines) FROM tag_stats WHERE name = 'a'"
    ).result_rows == [(20,)]


def test_what_is_there_under_no_token_is_not_stored_again(database: Database) -> None:
    """A full disk may leave some rows of a batch, and no token of them: whoever stores the batch again brings the rest."""
    client = database()
    tags = [{"name": "a", "value": 1}]
    what = batch(
        *(hostile.line(hostile.v1("tags", trace_id=f"t{n}", ts=86400 * n, tags=tags)) for n in range(20)),
        *(hostile.line(hostile.v1(message=f"{n}", trace_id=f"t{n}")) for n in range(20)),
    )
    store(client, what, "forgotten")
    client.command("DELETE FROM tag_lines WHERE line_hash % 4 = 1")
    client.command("DELETE FROM tags WHERE line_hash % 4 IN (1, 2)")
    client.command("DELETE FROM logs WHERE line_hash % 2")
    client.command("TRUNCATE TABLE ledger")
    assert counts(client)["tags"] < 20 > counts(client)["logs"]
    restore(client, what, "T")
    stored = counts(client)
    assert [stored[table] for table in ("tag_lines", "tags", "logs", "ledger")] == [20, 20, 20, 1]


@pytest.mark.parametrize("token", ["T", "again"])
def test_tags_whose_lines_are_not_there_get_them_and_stay_as_they_are(database: Database, token: str) -> None:
    """A server may have stored what its view makes of lines, and not the lines, whether it knows their token or not; whoever
    stores them brings the lines and no second tags."""
    client = database()
    what = batch(
        *(
            hostile.line(hostile.v1("tags", trace_id=f"t{n}", tags=[{"name": "a", "value": n}]))
            for n in range(20)
        )
    )
    store(client, what, "T")
    client.command("DELETE FROM tag_lines WHERE line_hash % 2")
    left = counts(client)["tag_lines"]
    assert 0 < left < 20 == counts(client)["tags"]
    with ThreadPoolExecutor(1) as executor:
        inserter = Inserter(ClickHouseWriter(client, "test"), executor, RetryPolicy())

        async def again() -> None:
            rest = what if token == "T" else await inserter.only_missing(what)
            await inserter.store(rest, token, in_doubt=True)

        asyncio.run(again())
    assert (counts(client)["tag_lines"], counts(client)["tags"]) == (20, 20)
    assert client.query("SELECT uniqExact(line_hash) FROM tag_lines").result_rows == [(20,)]
    store(
        client, batch(hostile.line(hostile.v1("tags", trace_id="u", tags=[{"name": "a", "value": 1}]))), "new"
    )
    assert (counts(client)["tag_lines"], counts(client)["tags"]) == (21, 21)


def test_every_kind_is_stored_with_all_its_fields(database: Database) -> None:
    """One line of each kind: each column of each table holds what the line said."""
    assert {document["kind"] for document in LINES} == set(RECORD_TYPES)
    client = database()
    store(client, every_kind(), "T")

    def one(table: str, columns: str) -> dict[str, Any]:
        result = client.query(f"SELECT {columns} FROM {table}")
        (row,) = result.result_rows
        return dict(zip(result.column_names, row, strict=True))

    def payload(text: str) -> Any:
        return json.loads(text)

    common = (
        "project_id, trace_id, toUnixTimestamp64Micro(ts) AS ts, toUnixTimestamp64Micro(trace_ts) AS trace_ts"
    )
    log = one("logs", f"{common}, level, message")
    assert log == {
        "project_id": "hostile",
        "trace_id": "t",
        "ts": 1763625600000001 + 365 * 86400 * 10**6,
        "trace_ts": 1763625600000001 + 365 * 86400 * 10**6,
        "level": "warning",
        "message": "hällo\n\u0000",
    }
    tags = client.query(
        "SELECT name, type, group, toString(kind), str, num FROM tags ORDER BY name"
    ).result_rows
    assert [row[:5] for row in tags] == [
        ("client", "label", "", "string", "bigshot"),
        ("flag", "label", "", "bool", "true"),
        ("list", "label", "", "json", '[1,{"x":2}]'),
        ("ms", "metric", "g", "number", "120"),
        ("nothing", "label", "", "null", "null"),
    ]
    assert [row[5] for row in tags if not math.isnan(row[5])] == [1.0, 120.0]
    stored = one("objects", "ref, type, data, size, preview")
    assert (stored["ref"], stored["type"], payload(stored["data"])) == ("r", "tailrace.Native", PAYLOAD)
    assert (stored["size"], stored["preview"]) == (len(stored["data"].encode()), stored["data"])
    trace = one("traces", "name, conversation_id, session_id, user_id, user, metadata")
    assert [trace[name] for name in ("name", "conversation_id", "session_id", "user_id")] == [
        "n",
        "c",
        "s",
        "u",
    ]
    assert (payload(trace["user"]), payload(trace["metadata"])) == ({"id": "u", "age": 3}, PAYLOAD)
    event = one(
        "events", "event_id, parent_id, event_type, name, input, output, status, error, usage, attributes"
    )
    assert payload(event["attributes"]) == {"gen_ai.request.model": "m"}
    assert [event[name] for name in ("event_id", "parent_id", "event_type", "name", "status", "error")] == [
        *("e", "p", "TOOL", "search", "error", "boom")
    ]
    assert [payload(event[name]) for name in ("input", "output", "usage")] == [PAYLOAD, PAYLOAD, {"x": 1}]
    assert one("feedback", "feedback_tag, feedback_text, score") == {
        "feedback_tag": "THUMBS_UP",
        "feedback_text": "nice",
        "score": 0.5,
    }
    prediction = one("predictions", "deployment, trace_id, prediction_id, features, prediction")
    assert (prediction["deployment"], prediction["trace_id"], prediction["prediction_id"]) == ("d", "", "7")
    assert (payload(prediction["features"]), payload(prediction["prediction"])) == (PAYLOAD, True)
    truth = one("ground_truths", "deployment, label, prediction, segments")
    assert (truth["deployment"], truth["label"], truth["prediction"], truth["segments"]) == (
        "d",
        "true",
        "false",
        ["a", "b"],
    )
    fault = one("exceptions", "deployment, message, stack_trace, extra_info")
    assert (fault["message"], fault["stack_trace"], payload(fault["extra_info"])) == ("m", "s", PAYLOAD)
    assert payload(one("metadata", "entries")["entries"]) == PAYLOAD
    window = one(
        "statistics", "seconds, sequence, subject, count, mean, m2, bins, bin_counts, top, confusion"
    )
    assert (window["seconds"], window["sequence"], window["subject"]) == (60.5, 2**63 - 1, "feature")
    assert (window["count"], window["mean"], window["m2"]) == (3, 1.5, None)
    assert (window["bins"], window["bin_counts"]) == ([-(2**31), 5], [1, 1])
    assert (payload(window["top"]), payload(window["confusion"])) == ({"00ff": 1}, [["a", "b", 1]])
    assert one("dead_letters", "reason, raw, file, byte")["raw"] == "garbage"
    assert one("ledger", "lines, rows, dead_letters, blank") == {
        "lines": 14,
        "rows": 13,
        "dead_letters": 1,
        "blank": 0,
    }


@pytest.mark.parametrize("is_alone", [False, True], ids=["server", "embedded"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_at_any_step_changes_nothing(database: Database, after: bool, is_alone: bool) -> None:
    """Ended before or after each insert of a batch and begun anew, the tables hold each row once."""
    clean = database()
    store(clean, every_kind(), "T")
    expected = counts(clean)
    client = database()
    writer = ClickHouseWriter(client, "test")
    number_of_steps = len(every_kind().tables) + 2  # the dead letters and the ledger
    for at in range(number_of_steps):
        sink = EmbeddedSink(CrashingWriter(writer, at, after, is_alone), 8 * 1024 * 1024)
        # After the ledger row the first look finds the batch stored, and no insert is left to crash in.
        try:
            asyncio.run(sink.restore(every_kind(), "T", time.time()))
        except Crash:
            pass
        else:
            assert writer.is_stored("T")
        finally:
            asyncio.run(sink.close())
    restore(client, every_kind(), "T")
    assert counts(client) == expected
    client.command("OPTIMIZE TABLE tags FINAL")
    assert counts(client) == expected


@pytest.mark.parametrize(
    ("is_alone", "forgets"),
    [(False, False), (True, False), (True, True)],
    ids=["server", "embedded", "embedded-forgets"],
)
def test_an_answer_that_was_lost_repeats_nothing(database: Database, is_alone: bool, forgets: bool) -> None:
    """Inserts that fail before or after they were done are repeated until all is stored, once; also by an engine that had no
    space to remember their tokens."""
    clean, client = database(), database()
    store(clean, every_kind(), "T")
    with ThreadPoolExecutor(1) as executor:
        writer = AwayWriter(ClickHouseWriter(client, "test"), 9, is_alone, forgets)
        inserter = Inserter(writer, executor, RetryPolicy(first=0.001, longest=0.002))
        asyncio.run(inserter.store(every_kind(), "T"))
        assert (inserter.stats.retries, inserter.stats.waiting) == (9, "")
    assert counts(client) == counts(clean)


@pytest.mark.parametrize("is_alone", [False, True], ids=["server", "embedded"])
def test_tables_of_a_batch_are_stored_at_the_same_time_where_that_helps(
    database: Database, is_alone: bool
) -> None:
    """A server stores two tables at once, the tags among the first; the engine in this process one, and no dead letter is stored before
    all the records."""
    clean, client = database(), database()
    store(clean, every_kind(), "T")
    writer = CountingWriter(ClickHouseWriter(client, "test"), is_alone)
    with insert_executor(writer) as executor:
        inserter = Inserter(writer, executor, RetryPolicy())
        asyncio.run(inserter.store(every_kind(), "T"))
    assert counts(client) == counts(clean)
    assert writer.most == (1 if is_alone else INSERTS_AT_ONCE)
    assert "tag_lines" in writer.began[: writer.most]  # which of two threads comes first nobody knows
    assert writer.began[-2:] == ["dead_letters", "ledger"]
    assert inserter.times.insert.count == len(writer.began)


def test_what_is_refused_in_one_table_is_told_although_others_are_under_way(database: Database) -> None:
    """Storing fails with the error of the one table, and neither dead letters nor the ledger row are stored; the next attempt stores
    each row once."""
    clean, client = database(), database()
    store(clean, every_kind(), "T")
    sink = EmbeddedSink(RefusingWriter(ClickHouseWriter(client, "test"), "tag_lines"), 8 * 1024 * 1024)
    with pytest.raises(ClickHouseRejected, match="tag_lines"):
        asyncio.run(sink.store(every_kind(), "T"))
    asyncio.run(sink.close())
    assert counts(client)["ledger"] == counts(client)["dead_letters"] == 0
    restore(client, every_kind(), "T")
    assert counts(client) == counts(clean)


def test_the_same_lines_by_another_way_are_the_same_rows(database: Database) -> None:
    """Redelivered under another token (another range, another shipper), lines are one row each after a merge."""
    client = database()
    store(client, every_kind(), "T")
    before = counts(client)
    store(client, every_kind(), "U")
    for table in TABLES:
        client.command(f"OPTIMIZE TABLE {table} FINAL")
    assert counts(client) == before


def test_a_day_a_row_is_one_insert(database: Database) -> None:
    """Old lines of hundreds of days in one batch are stored; ClickHouse's limit of 100 partitions does not apply."""
    client = database()
    lines = [hostile.line(hostile.v1(message="m", ts=86400 * day)) for day in range(300)]
    store(client, batch(*lines), "T")
    assert counts(client)["logs"] == 300


def test_an_insert_is_one_part_of_each_table(database: Database) -> None:
    """However many tags the lines of a batch have, they are one part, sorted once and merged no sooner than the lines."""
    client = database()
    client.command("SYSTEM STOP MERGES tags")
    tags = [{"name": f"n{number}", "value": number} for number in range(1_000)]
    lines = [hostile.line(hostile.v1("tags", trace_id=f"t{n}", tags=tags)) for n in range(100)]
    store(client, batch(*lines), "large")
    parts = client.query(
        "SELECT table, count(), sum(rows) FROM system.parts WHERE active AND database = currentDatabase() "
        "AND table IN ('tag_lines', 'tags') GROUP BY table ORDER BY table"
    )
    assert parts.result_rows == [("tag_lines", 1, 100), ("tags", 1, 100_000)]


def test_merging_column_by_column_keeps_every_tag(database: Database) -> None:
    """Lines that came twice are one after a merge, each with its tags as they were, however many it has."""
    client = database()
    client.command(
        "ALTER TABLE tag_lines MODIFY SETTING vertical_merge_algorithm_min_rows_to_activate = 1, min_bytes_for_wide_part = 1"
    )
    lines = [
        hostile.line(
            hostile.v1("tags", trace_id=f"t{n}", tags=[{"name": f"a{m}", "value": m} for m in range(n % 5)])
        )
        for n in range(200)
    ]
    for start in (0, 50, 100):
        store(client, batch(*lines[start : start + 100]), f"from {start}")
    question = (
        "SELECT DISTINCT trace_id, line_hash, tags.name, tags.str, tags.num FROM tag_lines ORDER BY trace_id"
    )
    before = client.query(question).result_rows
    client.command("OPTIMIZE TABLE tag_lines FINAL")
    assert client.query(question).result_rows == before
    assert counts(client)["tag_lines"] == len(before) == 200


@pytest.mark.parametrize("table", ["logs", "tag_lines", "event_lines", "dead_letters", "ledger"])
def test_a_token_without_its_rows(database: Database, table: str) -> None:
    """A batch in doubt is looked for: where the server remembers the token and has no rows, they are inserted again."""
    clean, client = database(), database()
    store(clean, every_kind_of_two_files(), "T")
    writer = ForgetfulWriter(ClickHouseWriter(client, "test"), lost=lambda name: name == table)
    sink = EmbeddedSink(writer, 8 * 1024 * 1024)
    asyncio.run(sink.restore(every_kind_of_two_files(), "T", time.time()))
    assert writer.swallowed == [f"T/{table}"]
    assert counts(client) == counts(clean)


@pytest.mark.parametrize("lost", [("tags", "tag_stats"), ("tag_stats",)], ids=["tags", "names"])
def test_rows_without_what_a_view_makes_of_them(database: Database, lost: tuple[str, ...]) -> None:
    """The same where the row is there and its tags are not, or its tags are and the counts of their names are not; once each, without
    a merge."""
    clean, client = database(), database()
    store(clean, every_kind(), "T")
    store(client, every_kind(), "T")
    for table in (*lost, "ledger"):
        client.command(f"TRUNCATE TABLE {table}")
    restore(client, every_kind(), "T")
    assert counts(client) == counts(clean)
    assert names(client) == names(clean)
    client.command("OPTIMIZE TABLE tag_lines FINAL")
    client.command("OPTIMIZE TABLE tags FINAL")
    assert counts(client) == counts(clean)


@pytest.mark.parametrize("file", ["data.bin", "checksums.txt", "metadata_version.txt"])
def test_rows_that_the_engine_shows_and_the_disk_lacks(database: Database, file: str) -> None:
    """On a full disk the engine keeps parts whose files are empty, and shows their rows until it is started again: a batch is stored
    when its rows are on the disk, and what views made of them."""
    clean, client = database(), database()
    store(clean, every_kind_of_two_files(), "T")
    writer = FullDiskWriter(client, file)
    with ThreadPoolExecutor(1) as executor:
        inserter = Inserter(writer, executor, RetryPolicy(first=0.001, longest=0.002))
        asyncio.run(inserter.store(every_kind_of_two_files(), "T"))
    assert set(writer.damaged) == set(TABLES) - {"tags"}
    assert writer.damaged["tag_lines"] == 3
    for table in [*TABLES, "tag_stats"]:  # as a start would find them
        client.command(f"DETACH TABLE {table} SYNC")
        client.command(f"ATTACH TABLE {table}")
    assert counts(client) == counts(clean)
    assert names(client) == names(clean)


def test_what_a_view_makes_is_lost_twice(database: Database) -> None:
    """Tags that the engine lost again, after it was killed while they were stored anew, are stored anew again: that it
    remembers having stored them keeps nothing out."""
    client = database()
    store(client, every_kind(), "T")
    expected = counts(client)
    writer = ClickHouseWriter(client, "test")
    ((_, lines),) = [(table, rows) for table, rows in every_kind().tables if table == "tag_lines"]
    for _ in range(2):
        client.command("ALTER TABLE tags DELETE WHERE true SETTINGS mutations_sync = 1")
        assert counts(client)["tags"] == 0
        writer.complete("tag_lines", lines)
        assert counts(client) == expected


@pytest.mark.parametrize("bad", [(0,), (99,), (3, 4, 50), tuple(range(40, 60))])
def test_a_row_that_clickhouse_rejects(database: Database, bad: tuple[int, ...]) -> None:
    """Rows that break a constraint become dead letters with their bytes and the reason; all others are stored, once."""
    client = database()
    client.command("ALTER TABLE logs ADD CONSTRAINT no_poison CHECK message != 'poison'")
    lines = [
        hostile.line(hostile.v1(message="poison" if number in bad else "fine", trace_id=f"t{number}"))
        for number in range(100)
    ]
    for _ in range(2):  # begun again after a crash, it ends the same
        store(client, batch(*lines), "T")
    found = [row[0] for row in client.query("SELECT trace_id FROM logs").result_rows]
    assert sorted(found) == sorted(f"t{number}" for number in range(100) if number not in bad)
    letters = client.query("SELECT byte, reason, raw FROM dead_letters ORDER BY byte").result_rows
    position = [sum(map(len, lines[:number])) for number in bad]
    assert letters == [
        (byte, "rejected_by_clickhouse", lines[number].decode().rstrip("\n"))
        for byte, number in zip(position, bad, strict=True)
    ]
    assert client.query("SELECT lines, rows, dead_letters FROM ledger").result_rows == [
        (100, 100 - len(bad), len(bad))
    ]


def test_a_server_that_rejects_everything_stops_the_work(database: Database) -> None:
    """When it is not single rows that are wrong, the process stops with the reason instead of burying all lines."""
    client = database()
    client.command("ALTER TABLE logs ADD CONSTRAINT nothing CHECK message = ''")
    with pytest.raises(RowsRejected, match="nothing"):
        store(client, batch(*map(hostile.neighbour, range(300))), "T")


def test_an_old_intent_is_an_alarm(database: Database) -> None:
    """A batch that is begun again after more than the deduplication window counts as unsafe, and is stored all the same. Of the
    embedded engine no window is needed, since what is there is looked for first."""
    client = database()
    writer = ClickHouseWriter(client, "test")
    server = EmbeddedSink(AwayWriter(writer, failures=0), 8 * 1024 * 1024)
    asyncio.run(server.restore(every_kind(), "T", since=time.time() - 60))
    assert server.stats.unsafe_replays == 0
    asyncio.run(server.restore(every_kind(), "U", since=time.time() - 20 * 86400))
    assert server.stats.unsafe_replays == 1
    before = counts(client)
    embedded = EmbeddedSink(writer, 8 * 1024 * 1024)
    asyncio.run(embedded.restore(every_kind(), "V", since=time.time() - 20 * 86400))
    assert embedded.stats.unsafe_replays == 0
    after = counts(client)
    assert after.pop("ledger") == before.pop("ledger") + 1
    assert after == before
    assert tokens_remembered(DEDUPLICATION_BLOCKS // 2 - 1, 60)
    assert not tokens_remembered(DEDUPLICATION_BLOCKS // 2, 60)
