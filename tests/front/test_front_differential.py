"""The front against the engine itself: the same statement has the same result, byte for byte, with and without HTTP."""

from __future__ import annotations

import asyncio
import random
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import chdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.engine import Engine
from tailrace.explorer.front import Front, FrontSettings
from tailrace.explorer.front.lexer import Kind, lex
from tailrace.explorer.front.refusal import Refusal
from tailrace.explorer.front.statement import StatementKind, parse
from tailrace.schemas.clickhouse.connection import Dsn


@pytest.fixture(scope="module")
def served(engine: Engine) -> Iterator[tuple[str, Any]]:
    """The session's engine behind a front in this very process, as in `tailrace up`: its URL and a handle of the engine."""
    loop = asyncio.new_event_loop()
    front = Front(Dsn(embedded=True, path=str(engine.path), database="system"), FrontSettings(port=0))

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(front.start(), loop).result(30)
    handle = chdb.connect(str(engine.path))
    yield front.url, handle
    handle.close()
    asyncio.run_coroutine_threadsafe(front.stop(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


def ask(url: str, statement: str) -> bytes:
    request = urllib.request.Request(url, data=statement.encode(), headers={"Content-Type": "text/plain"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bytes(answer.read())


SELECTS = [
    "SELECT number, toString(number) AS s, number / 3 AS f FROM numbers(1000)",
    "SELECT number % 7 AS k, count(), avg(number), groupArray(number % 3) FROM numbers(100) GROUP BY k WITH TOTALS ORDER BY k",
    "SELECT 1 AS one, CAST(NULL, 'Nullable(Int8)') AS nothing, nan AS n, inf AS i, 'a\\'b\\\\c\\n\\t' AS s WHERE 1",
    "SELECT 1 WHERE 0",
    "SELECT toDateTime64('2026-11-20 08:00:00.000001', 6, 'UTC') AS t, toUUID('01234567-89ab-cdef-0123-456789abcdef') AS u",
    "SELECT [1, 2, 3] AS a, map('k', 1, 'l', 2) AS m, tuple(1, 'x') AS t, CAST('x', 'LowCardinality(String)') AS lc",
    "SELECT arrayJoin(range(200000)) AS x, toString(x) AS s",
    "WITH 5 AS five SELECT five + number AS x FROM numbers(3) ORDER BY x DESC LIMIT 2",
    "SELECT * FROM (SELECT 1 AS x UNION ALL SELECT 2) ORDER BY x",
    "FROM numbers(3) SELECT number AS x",
    "SELECT number FROM numbers(10) SETTINGS max_threads = 1",
    "/* a comment; with a semicolon */ SELECT ';' AS semicolon, 'FORMAT JSON' AS f -- and another; one",
]
FORMATS = [
    "Native",
    "TabSeparated",
    "JSONCompactEachRow",
    "CSVWithNames",
    "RowBinaryWithNamesAndTypes",
    "Parquet",
    "Arrow",
]


@pytest.mark.parametrize("form", FORMATS)
def test_results_equal_the_engines_own(served: tuple[str, Any], form: str) -> None:
    """Every SELECT in every format gives the bytes that the engine gives in process."""
    url, handle = served
    for select in SELECTS:
        statement = f"{select}\nFORMAT {form} SETTINGS max_threads = 1;"
        assert ask(url, statement) == (handle.query(statement, "TSV").bytes() or b""), select


@pytest.mark.parametrize(
    "statement", ["SHOW DATABASES", "DESCRIBE TABLE system.one", "EXISTS system.one", "EXPLAIN SELECT 1"]
)
def test_small_statements_equal_the_engines_own(served: tuple[str, Any], statement: str) -> None:
    """Statements that are not sent through a file give the same bytes too."""
    url, handle = served
    assert ask(url, statement) == handle.query(statement, "TabSeparated").bytes()


def test_the_event_loop_stays_free(served: tuple[str, Any], engine: Engine) -> None:
    """While clients keep the engine busy with large results, a loop that is shared with the front is never held for long.

    The measure is the longest time that a trivial request waits, which needs the loop and one thread only."""
    url, _ = served
    busy = threading.Event()

    def load() -> None:
        while not busy.is_set():
            ask(url, "SELECT number, toString(number) FROM numbers(300000) FORMAT Native")

    with ThreadPoolExecutor(2) as pool:
        loads = [pool.submit(load) for _ in range(2)]
        waits = []
        for _ in range(50):
            begin = time.perf_counter()
            with urllib.request.urlopen(f"{url}/ping", timeout=10) as answer:
                assert answer.read() == b"Ok.\n"
            waits.append(time.perf_counter() - begin)
        busy.set()
        for done in loads:
            done.result()
    assert sorted(waits)[len(waits) // 2] < 0.5


QUOTED = st.sampled_from(
    [
        "'it''s; FORMAT x'",
        "'\\'; DROP'",
        '"a;b"',
        "`a;``b`",
        "$$ ; ' $$",
        "$t$ '; $$ $t$",
        "/* ; ' */",
        "-- ; '\n",
        "# ; '\n",
    ]
)
WORDS = st.sampled_from(
    ["SELECT", "1", "x", "FROM", "t", "(", ")", ",", "+", "FORMAT", "SETTINGS", "=", "[", "]", "{", "}"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(QUOTED | WORDS, min_size=1, max_size=20))
def test_the_lexer_covers_its_input(parts: list[str]) -> None:
    """Tokens are in order, do not overlap, and never begin inside a quote or comment that the text was made of."""
    text = " ".join(parts).encode()
    borders = set()
    position = 0
    for part in parts:
        borders.add(position)
        position += len(part.encode()) + 1
    end = 0
    for token in lex(text):
        assert token.start >= end
        assert token.text == text[token.start : token.end]
        assert token.start in borders
        assert token.kind is not Kind.BROKEN
        end = token.end


@settings(max_examples=300, deadline=None)
@given(
    head=st.sampled_from(
        [
            "INSERT INTO t FORMAT JSONEachRow",
            "INSERT INTO `d;b`.t (a, `b c`) FORMAT CSV",
            "insert into t (* EXCEPT(a)) settings x = 'FORMAT', y = 1 format TSV",
            "/* FORMAT */ INSERT INTO TABLE t(a) FORMAT Native",
            "INSERT INTO {t:Identifier} (a) FORMAT Parquet",
            "INSERT INTO format (values) FORMAT Arrow",
        ]
    ),
    data=st.binary(max_size=200),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_data_begin_after_one_line_end(head: str, data: bytes, newline: str) -> None:
    """Whatever the data are, they are found whole behind the line end after FORMAT, and are not looked into."""
    text = head.encode() + newline.encode() + data
    statement = parse(text)
    assert statement.kind is StatementKind.INSERT_DATA
    assert text[statement.data_at :] == data


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100), st.integers(0, 2**32))
def test_parsing_never_fails_otherwise_than_by_refusal(noise: bytes, seed: int) -> None:
    """Arbitrary bytes, alone or spliced into statements, are parsed or refused, and nothing else happens."""
    base = bytearray(random.Random(seed).choice(SELECTS).encode())
    at = random.Random(seed + 1).randrange(len(base))
    for text in (noise, bytes(base[:at]) + noise + bytes(base[at:]), b"INSERT INTO " + noise):
        try:
            parse(text)
        except Refusal as refused:
            assert refused.code in (62, 497)
