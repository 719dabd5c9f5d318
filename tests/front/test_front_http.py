"""The front as ClickHouse's clients see it: a real process, real chDB, real clickhouse-connect, plain HTTP."""

from __future__ import annotations

import base64
import gzip
import http.client
import io
import json
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path
from uuid import UUID

import cramjam
import lz4.frame
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from support.front import FrontProcess
from support.processes import wait_until
from tailrace.schemas.clickhouse.connection import FRONT_FILE, Dsn, connect, open_engine, read_front
from tailrace.schemas.errors import ClickHouseRejected, EngineLocked

TOKEN = "a token with ünusual \"characters' :%"


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontProcess]:
    """A front without a token."""
    with FrontProcess(tmp_path_factory.mktemp("front") / "db {odd} 'name'") as process:
        yield process


@pytest.fixture
def table(front: FrontProcess, request: pytest.FixtureRequest) -> Iterator[str]:
    """A table (a Int64, s String)."""
    name = f"t_{abs(hash(request.node.nodeid))}"
    reply = front.request(f"CREATE TABLE {name} (a Int64, s String) ENGINE = MergeTree ORDER BY a")
    assert reply.status == 200, reply.text
    yield name
    front.request(f"DROP TABLE {name} SYNC")


def count(front: FrontProcess, table: str) -> int:
    return int(front.request(f"SELECT count() FROM {table}").text)


def wait_for_query(front: FrontProcess, pattern: str, running: bool = True) -> None:
    """Wait until a statement like `pattern` runs, or until none does."""
    ask = f"SELECT count() > 0 FROM system.processes WHERE query LIKE '{pattern}'"
    deadline = time.monotonic() + 30
    while front.request(ask).text != f"{int(running)}\n":
        assert time.monotonic() < deadline


# ---------------------------------------------------------------- clickhouse-connect


def test_clickhouse_connect_reads_every_common_type(front: FrontProcess) -> None:
    """Values of all usual column types come out of the HTTP client as they were written by it."""
    client = front.client()
    client.command(
        "CREATE OR REPLACE TABLE kinds (i Int64, u UInt64, f Float64, s String, lc LowCardinality(String), n Nullable(Int32),"
        " d Date, t DateTime64(6, 'UTC'), b Bool, u1 UUID, e Enum8('x' = 1, 'y' = 2), dec Decimal(18, 4), ip IPv4,"
        " arr Array(String), m Map(String, UInt32), tup Tuple(Int8, String), nested Nested(name String, num Float64))"
        " ENGINE = MergeTree ORDER BY i"
    )
    row = [
        -(2**62),
        2**64 - 1,
        1.5,
        "tab\tline\nquote' \\ ü \x00",
        "low",
        None,
        date(2026, 11, 20),
        datetime(2026, 11, 20, 8, 0, 0, 1, tzinfo=UTC),
        True,
        UUID("01234567-89ab-cdef-0123-456789abcdef"),
        "y",
        Decimal("12.3456"),
        IPv4Address("10.0.0.1"),
        ["a", "", "ü"],
        {"k": 7},
        (1, "one"),
        ["n1", "n2"],
        [0.5, float("inf")],
    ]
    names = [
        "i",
        "u",
        "f",
        "s",
        "lc",
        "n",
        "d",
        "t",
        "b",
        "u1",
        "e",
        "dec",
        "ip",
        "arr",
        "m",
        "tup",
        "nested.name",
        "nested.num",
    ]
    client.insert("kinds", [row, row], column_names=names)
    result = client.query("SELECT * FROM kinds")
    got = [list(line) for line in result.result_rows]
    got = [
        [value.replace(tzinfo=UTC) if isinstance(value, datetime) else value for value in line]
        for line in got
    ]
    assert got == [row, row]
    assert int(client.query("SELECT count() FROM kinds").summary["read_rows"]) >= 1


def test_parameters_reach_the_server_unharmed(front: FrontProcess) -> None:
    """Server-side parameters keep quotes, backslashes, tabs, newlines, NULs and injection attempts as plain values."""
    client = front.client()
    texts = [
        "it's",
        'say "hi"',
        "back\\slash\\n",
        "tab\tnew\nline",
        "'; DROP TABLE t; --",
        "ü 漢 🚰",
        "",
        "{x:String}",
        "NUL\0",
    ]
    for text in texts:
        got = client.query(
            "SELECT {v:String} AS v, {l:Array(String)} AS l, {n:Nullable(Int32)} AS n, {db:Identifier}.numbers.number AS x"
            " FROM {db:Identifier}.numbers LIMIT 1",
            parameters={"v": text, "l": texts, "n": None, "db": "system"},
        )
        assert got.result_rows == [(text, texts, None, 0)]


def test_frames_and_arrow_go_in_and_out(front: FrontProcess, table: str) -> None:
    """insert_df, insert_arrow, query_df and query_arrow agree on the same rows."""
    client = front.client()
    client.insert_df(table, pd.DataFrame({"a": range(1000), "s": [f"row {i}" for i in range(1000)]}))
    arrow = pa.table(
        {"a": pa.array(range(1000, 2000), pa.int64()), "s": [f"row {i}" for i in range(1000, 2000)]}
    )
    client.insert_arrow(table, arrow)
    assert count(front, table) == 2000
    frame = client.query_df(f"SELECT * FROM {table} ORDER BY a")
    assert list(frame["s"]) == [f"row {i}" for i in range(2000)]
    back = client.query_arrow(f"SELECT * FROM {table} WHERE a >= 1000 ORDER BY a", use_strings=True)
    assert back["a"].to_pylist() == arrow["a"].to_pylist()
    assert back["s"].to_pylist() == arrow["s"].to_pylist()


@pytest.mark.parametrize("compress", [False, True, "lz4", "zstd", "gzip"])
def test_compression_each_way(front: FrontProcess, table: str, compress: bool | str) -> None:
    """Inserts and results in every coding of the client carry the same rows, in bodies of one and of many pieces."""
    client = front.client(compress=compress)
    rows = [[i, f"{i:064x}"] for i in range(40_000)]
    client.insert(table, rows, column_names=["a", "s"])
    assert client.query(f"SELECT * FROM {table} ORDER BY a").result_set == [tuple(row) for row in rows]
    client.insert(table, rows[:1], column_names=["a", "s"])
    assert count(front, table) == 40_001


@pytest.mark.parametrize(("asked", "packed"), [("", None), ("?compress=lz4", "lz4")])
def test_clients_on_the_same_machine(front: FrontProcess, asked: str, packed: str | None) -> None:
    """What goes to the same machine is packed only where the DSN says so; and merges leave the cores to what somebody waits for."""
    client = connect(Dsn.parse(f"clickhouse://default:{front.token}@127.0.0.1:{front.port}/default{asked}"))
    assert client.write_compression == packed
    nice = "SELECT value FROM system.server_settings WHERE name = 'os_threads_nice_value_merge_mutate'"
    assert client.query(nice).result_rows == [("10",)]
    client.close()


def test_big_results_stream_through_a_file(front: FrontProcess) -> None:
    """Five million rows arrive complete, by blocks, and leave nothing behind in the spool directory."""
    client = front.client()
    total = rows = 0
    with client.query_row_block_stream("SELECT number FROM numbers(5000000)") as stream:
        for block in stream:
            rows += len(block)
            total += sum(row[0] for row in block)
    assert (rows, total) == (5_000_000, 5_000_000 * 4_999_999 // 2)
    assert list((front.path / "tailrace-front.tmp").iterdir()) == []


def test_insert_tokens_are_honoured(front: FrontProcess, table: str) -> None:
    """The same insert_deduplication_token inserts once, as a setting of the URL and in the statement; another one inserts again."""
    client = front.client()
    client.command(f"ALTER TABLE {table} MODIFY SETTING non_replicated_deduplication_window = 100")
    arrow = pa.table({"a": pa.array([1, 2], pa.int64()), "s": ["x", "y"]})
    for token in ("one", "one", "two"):
        client.insert_arrow(table, arrow, settings={"insert_deduplication_token": token, "async_insert": 0})
    assert count(front, table) == 4
    for _ in range(2):
        body = f"INSERT INTO {table} SETTINGS insert_deduplication_token = 'three' FORMAT CSV\n7,z\n"
        assert front.request(body).status == 200
    assert count(front, table) == 5


def test_ddl_commands_and_summary(front: FrontProcess) -> None:
    """DDL returns nothing, commands return values, inserts report their rows."""
    client = front.client()
    client.command("CREATE TABLE IF NOT EXISTS ddl (a Int32) ENGINE = MergeTree ORDER BY a")
    assert client.command("SELECT 41 + 1") == 42
    assert client.command("EXISTS TABLE ddl") == 1
    summary = client.insert("ddl", [[1], [2]], column_names=["a"])
    assert summary.written_rows == 2
    assert "CREATE TABLE" in str(client.command("SHOW CREATE TABLE ddl"))
    client.command("ALTER TABLE ddl ADD COLUMN b String DEFAULT 'x'")
    assert client.query("SELECT a, b FROM ddl ORDER BY a").result_rows == [(1, "x"), (2, "x")]
    assert client.query("SELECT a, b FROM ddl LIMIT 0").column_names == ("a", "b")
    client.command("DROP TABLE ddl")


def test_errors_carry_the_code(front: FrontProcess, table: str) -> None:
    """Every refusal reaches the client as a DatabaseError with ClickHouse's own code."""
    client = front.client()
    for statement, code in [
        ("SELEC 1", 62),
        ("SELECT * FROM nowhere", 60),
        ("SELECT nothing", 47),
        ("SELECT * FROM nowhere.t", 81),
        ("SELECT throwIf(number = 3000000) FROM numbers(5000000)", 395),
        (f"SELECT * FROM {table} SETTINGS no_such_setting = 1", 115),
    ]:
        with pytest.raises(DatabaseError) as raised:
            client.query(statement)
        assert raised.value.code == code, statement
    with pytest.raises(DatabaseError) as raised:
        client.raw_insert(table, ["a", "s"], b"not a number,x\n", fmt="CSV")
    assert raised.value.code in (27, 72, 6, 117)
    assert count(front, table) == 0


def test_sessions_keep_what_they_are_told(front: FrontProcess) -> None:
    """SET, USE and temporary tables live in their session only; settings of a URL do not outlive their request."""
    one = {"session_id": "one"}
    assert front.request("SET max_threads = 3, max_block_size = 1000", one).status == 200
    assert front.request("CREATE TEMPORARY TABLE scratch (a Int8)", one).status == 200
    assert front.request("INSERT INTO scratch VALUES (7)", one).status == 200
    threads = "SELECT getSetting('max_threads'), getSetting('max_block_size')"
    assert front.request(threads, one).text == "3\t1000\n"
    assert front.request(threads, one | {"max_threads": "1"}).text == "1\t1000\n"
    assert front.request(threads, one).text == "3\t1000\n"
    assert front.request("SELECT getSetting('readonly')", one | {"readonly": "1"}).text == "1\n"
    assert front.request("SELECT getSetting('readonly')", one).text == "0\n"
    assert front.request("SELECT a FROM scratch", one | {"no_such": "1"}).code == "115"
    assert front.request("SELECT a FROM scratch", one).text == "7\n"
    assert front.request("USE system", one).status == 200
    assert front.request("SELECT currentDatabase()", one).text == "system\n"
    assert front.request("SELECT currentDatabase()").text == "tailrace\n"
    assert front.request("SELECT a FROM scratch").code == "60"
    assert front.request("SELECT 1", {"session_id": "none", "session_check": "1"}).code == "372"
    client = front.client(session_id="two", settings={"max_threads": 2})
    assert client.query("SELECT getSetting('max_threads')").result_rows == [(2,)]


def test_one_session_serves_one_request_at_a_time(front: FrontProcess) -> None:
    """While a session is busy a second request in it gets SESSION_IS_LOCKED."""
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(front.request, "SELECT sleep(2)", {"session_id": "busy"})
        wait_for_query(front, "SELECT sleep(2)%")
        assert front.request("SELECT 1", {"session_id": "busy"}).code == "373"
        assert slow.result().status == 200
    assert front.request("SELECT 1", {"session_id": "busy"}).text == "1\n"


def test_many_clients_at_once(front: FrontProcess, table: str) -> None:
    """Sixteen threads insert and read through their own clients; every row arrives once, and nobody sees an error."""

    def work(number: int) -> int:
        client = front.client(autogenerate_session_id=False)
        for round_ in range(5):
            client.insert(table, [[number, f"{round_} {i}"] for i in range(100)], column_names=["a", "s"])
        return int(client.query(f"SELECT count() FROM {table} WHERE a = {number}").result_rows[0][0])

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(work, range(16))) == [500] * 16
    assert count(front, table) == 8000


# ---------------------------------------------------------------- plain HTTP


def test_health_checks(front: FrontProcess) -> None:
    """/ping, /replicas_status and an empty GET say Ok; unknown paths say 404."""
    for path in ("/ping", "/replicas_status", "/"):
        assert front.request(path=path).text == "Ok.\n"
    assert front.request(path="/play").status == 404
    assert front.request(b"SELECT 1", method="PUT").status == 405


def test_grafana_and_dbeaver_ask_plainly(front: FrontProcess) -> None:
    """A POST with default_format=JSON, the format header, a statement cut between URL and body, and a form all work."""
    reply = front.request("SELECT 1 AS a, 'x' AS b", {"default_format": "JSON"})
    assert json.loads(reply.body)["data"] == [{"a": 1, "b": "x"}]
    assert reply.headers["Content-Type"].startswith("application/json")
    assert reply.headers["X-ClickHouse-Format"] == "JSON"
    assert reply.headers["X-ClickHouse-Timezone"]
    assert json.loads(reply.headers["X-ClickHouse-Summary"])["result_rows"] == "1"
    assert front.request("SELECT 1", headers={"X-ClickHouse-Format": "CSVWithNames"}).text == '"1"\n1\n'
    assert front.request("5 + 5", {"query": "SELECT"}).text == "10\n"
    assert front.request(None, {"query": "SELECT 1 FORMAT TSV -- done"}).text == "1\n"
    assert (
        front.request("SELECT currentDatabase()", headers={"X-ClickHouse-Database": "system"}).text
        == "system\n"
    )
    assert front.request("SELECT 1", {"query_id": "mine"}).headers["X-ClickHouse-Query-Id"] == "mine"
    boundary = "x" * 20
    parts = {"query": "SELECT {p:String}, getSetting('max_threads')", "param_p": "a'b", "max_threads": "1"}
    form = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in parts.items()
    )
    reply = front.request(
        form + f"--{boundary}--\r\n", headers={"Content-Type": f"multipart/form-data; boundary={boundary}"}
    )
    assert reply.text == "a\\'b\t1\n"


FORMATS: dict[str, Callable[[bytes], list[tuple[int, str]]]] = {
    "JSON": lambda body: [(int(row["a"]), row["s"]) for row in json.loads(body)["data"]],
    "JSONCompact": lambda body: [(int(a), s) for a, s in json.loads(body)["data"]],
    "JSONEachRow": lambda body: [(int(row["a"]), row["s"]) for row in map(json.loads, body.splitlines())],
    "CSVWithNames": lambda body: [
        tuple(row) for row in pd.read_csv(io.BytesIO(body)).itertuples(index=False)
    ],
    "TabSeparated": lambda body: [
        (int(a), s) for a, s in (line.split("\t") for line in body.decode().splitlines())
    ],
    "Parquet": lambda body: [(row["a"], row["s"]) for row in pq.read_table(io.BytesIO(body)).to_pylist()],
    "Arrow": lambda body: [
        (row["a"], _text(row["s"])) for row in pa.ipc.open_file(body).read_all().to_pylist()
    ],
    "ArrowStream": lambda body: [
        (row["a"], _text(row["s"])) for row in pa.ipc.open_stream(body).read_all().to_pylist()
    ],
}


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


@pytest.mark.parametrize("form", [*FORMATS, "Native", "RowBinary", "Values"])
def test_raw_formats_go_out_and_back_in(front: FrontProcess, table: str, form: str) -> None:
    """What a format gives can be inserted again in that format, and readers of the format understand it."""
    select = (
        f"SELECT toInt64(number) AS a, concat('s ', toString(number)) AS s FROM numbers(70000) FORMAT {form}"
    )
    body = front.request(select).body
    if form in FORMATS:
        assert FORMATS[form](body) == [(i, f"s {i}") for i in range(70_000)]
    insert = f"INSERT INTO {table} (a, s) FORMAT {form}"
    assert front.request(body, {"query": insert}).status == 200
    assert front.request(insert.encode() + b"\n" + body).status == 200
    assert count(front, table) == 140_000
    check = f"SELECT uniqExact(a), uniqExact(s), countIf(s = concat('s ', toString(a))) FROM {table}"
    assert front.request(check).text == "70000\t70000\t140000\n"


def test_data_are_never_read_as_sql(front: FrontProcess, table: str) -> None:
    """Statement ends, quotes and whole statements in the data of an INSERT stay data."""
    nasty = "x'; DROP TABLE tailrace.anything; INSERT INTO t FORMAT CSV -- `\" /* FORMAT"
    body = f"INSERT INTO {table} FORMAT JSONEachRow\n" + json.dumps({"a": 1, "s": nasty}) + "\n"
    assert front.request(body).status == 200
    assert (
        front.request(f"INSERT INTO {table} (a, s) VALUES (2, 'a;b'), (3, 'SELECT 1; SELECT 2')").status
        == 200
    )
    rows = front.request(f"SELECT s FROM {table} ORDER BY a FORMAT JSONCompactEachRow").text.splitlines()
    assert [json.loads(row)[0] for row in rows] == [nasty, "a;b", "SELECT 1; SELECT 2"]


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("zstd", lambda data: bytes(cramjam.zstd.compress(data))),
        ("lz4", lz4.frame.compress),
        ("br", lambda data: bytes(cramjam.brotli.compress(data, level=1))),
    ],
)
def test_packed_bodies(front: FrontProcess, table: str, coding: str, pack: Callable[[bytes], bytes]) -> None:
    """A body in each coding, of one frame or several, with the statement outside or inside; a cut one inserts nothing."""
    lines = [f"{i}\t{i:040d}\n".encode() for i in range(100_000)]
    data = b"".join(lines)
    headers = {"Content-Encoding": coding}
    query = {"query": f"INSERT INTO {table} FORMAT TSV"}
    assert front.request(pack(data), query, headers).status == 200
    inside = pack(f"INSERT INTO {table} FORMAT TSV\n".encode() + data)
    assert front.request(inside, headers=headers).status == 200
    expected = 200_000
    if coding in ("gzip", "zstd", "lz4"):
        several = pack(data[:1_000_000]) + pack(data[1_000_000:])
        assert front.request(several, query, headers).status == 200
        expected += 100_000
    assert count(front, table) == expected
    assert front.request(pack(data)[:-20], query, headers).status == 400
    assert count(front, table) == expected


@pytest.mark.parametrize("coding", ["gzip", "zstd", "lz4", "deflate", "br"])
def test_packed_answers(front: FrontProcess, coding: str) -> None:
    """An answer is packed when both the header and the setting ask for it, and only then."""
    unpack = {
        "gzip": gzip.decompress,
        "deflate": zlib.decompress,
        "zstd": cramjam.zstd.decompress,
        "lz4": lz4.frame.decompress,
        "br": cramjam.brotli.decompress,
    }[coding]
    select = "SELECT number FROM numbers(300000)"
    plain = front.request(select, headers={"Accept-Encoding": coding})
    assert plain.headers["Content-Encoding"] is None
    packed = front.request(select, {"enable_http_compression": "1"}, {"Accept-Encoding": coding})
    assert packed.headers["Content-Encoding"] == coding
    assert bytes(unpack(packed.body)) == plain.body


def test_get_changes_nothing(front: FrontProcess, table: str) -> None:
    """GET runs reads and refuses everything else with READONLY."""
    for statement in (
        f"DROP TABLE {table}",
        f"INSERT INTO {table} VALUES (1, 'x')",
        f"TRUNCATE TABLE {table}",
    ):
        assert front.request(None, {"query": statement}).code == "164"
    assert front.request(None, {"query": f"SELECT count() FROM {table}"}).text == "0\n"
    assert front.request(None, {"query": "SELECT 1"}, method="HEAD").status == 200


def test_a_request_that_breaks_off_inserts_nothing(front: FrontProcess, table: str) -> None:
    """A connection that closes in the middle of the data of an INSERT leaves no row, whether small or spooled."""
    spool = front.path / "tailrace-front.tmp"
    for size, files in ((100, 0), (3_000_000, 1)):
        connection = http.client.HTTPConnection(front.host, front.port)
        connection.putrequest("POST", "/")
        connection.putheader("Content-Length", str(size + 1000))
        connection.endheaders()
        head = f"INSERT INTO {table} FORMAT TSV\n".encode()
        connection.send(head + b"1\tx\n" * ((size - len(head)) // 4))
        wait_until(lambda files=files: len(open_files(front.process.pid, spool)) == files)
        connection.close()
        wait_until(lambda: not open_files(front.process.pid, spool))
    assert count(front, table) == 0


def open_files(pid: int, directory: Path) -> list[str]:
    """The files of a directory that a process has open, unnamed ones too."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:
            continue
        if target.startswith(str(directory)):
            found.append(target)
    return found


def test_a_read_is_cancelled_when_its_client_leaves(front: FrontProcess) -> None:
    """A long SELECT disappears from the engine's process list soon after its connection closed."""
    connection = http.client.HTTPConnection(front.host, front.port)
    connection.request(
        "POST", "/", body="SELECT count() FROM numbers(10000000000000) WHERE sipHash64(number) = 1"
    )
    wait_for_query(front, "SELECT count() FROM numbers(1000%")
    connection.close()
    wait_for_query(front, "SELECT count() FROM numbers(1000%", running=False)


def test_a_read_does_not_hold_up_others(front: FrontProcess) -> None:
    """While a statement sleeps for two seconds, others are answered."""
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(front.request, "SELECT sleep(2)")
        answered = 0
        while not slow.done():
            assert front.request("SELECT 1").text == "1\n"
            answered += 1
        assert slow.result().status == 200
    assert answered > 10


# ---------------------------------------------------------------- who may ask


def test_the_token_is_required_where_there_is_one(tmp_path: Path) -> None:
    """With a token set, each way to present it works, and none or a wrong one gets AUTHENTICATION_FAILED."""
    with FrontProcess(tmp_path / "db", token=TOKEN) as front:
        basic = "Basic " + base64.b64encode(f"default:{TOKEN}".encode()).decode()
        wrong = "Basic " + base64.b64encode(b"default:wrong").decode()
        other = "Basic " + base64.b64encode(f"root:{TOKEN}".encode()).decode()
        sent = "SELECT 1"
        assert front.request(path="/ping").status == 200
        assert front.request(sent, headers={"Authorization": basic}).text == "1\n"
        assert front.request(sent, {"user": "default", "password": TOKEN}).text == "1\n"
        assert front.request(sent).status == 401
        assert front.request(sent).code == "516"
        for headers in ({"Authorization": wrong}, {"Authorization": other}, {"X-ClickHouse-Key": "x"}):
            assert front.request(sent, headers=headers).status == 403
        assert front.client().query(sent).result_rows == [(1,)]
        with pytest.raises(DatabaseError) as raised:
            front.client(password="wrong")
        assert raised.value.code == 516
        info = read_front(str(front.path))
        assert info is not None
        assert info.token == TOKEN
        assert (front.path / FRONT_FILE).stat().st_mode & 0o777 == 0o600
        assert connect(Dsn.parse(f"chdb://{front.path}")).command(sent) == 1
        with pytest.raises(ClickHouseRejected):
            connect(Dsn(embedded=False, host=front.host, port=front.port, user="default", password="no"))
    plain = FrontProcess(tmp_path / "bearer", token="simple")
    with plain as front:
        assert front.request("SELECT 1", headers={"Authorization": "Bearer simple"}).text == "1\n"
        assert (
            front.request(
                "SELECT 1", headers={"X-ClickHouse-User": "default", "X-ClickHouse-Key": "simple"}
            ).status
            == 200
        )


def test_web_pages_cannot_ask(front: FrontProcess, table: str) -> None:
    """Requests that a browser sends for another origin, or under another host name, are refused and change nothing."""
    drop = f"DROP TABLE {table}"
    assert front.request(drop, headers={"Origin": "https://evil.example"}).status == 403
    assert front.request(drop, headers={"Origin": "null"}).status == 403
    assert front.request(drop, headers={"Sec-Fetch-Site": "cross-site"}).status == 403
    assert front.request(drop, headers={"Host": "evil.example"}).status == 403
    assert front.request(drop, headers={"Host": f"evil.example:{front.port}"}).status == 403
    assert front.request("SELECT 1", headers={"Host": f"localhost:{front.port}"}).status == 200
    assert count(front, table) == 0


def test_listening_beyond_loopback_needs_a_token(tmp_path: Path) -> None:
    """Without a token any address but loopback is refused at start, with the reason."""
    command = [
        sys.executable,
        "-m",
        "tailrace.explorer.front",
        "--path",
        str(tmp_path / "db"),
        "--host",
        "0.0.0.0",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "without a token" in done.stderr


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM file('{secret}', LineAsString)",
        "SELECT file('{secret}')",
        "SELECT `file`('{secret}')",
        "SELECT \"file\" /* x */ ('{secret}')",
        "SELECT `f\\x69le`('{secret}')",
        "SELECT * APPLY(file) FROM (SELECT '{secret}')",
        "SELECT * FROM default.`{secret}` FORMAT LineAsString",
        'SELECT * FROM `default` . "{secret}" FORMAT LineAsString',
        "SELECT * FROM url('file://{secret}', LineAsString)",
        "SELECT * FROM url('http://127.0.0.1:1/', LineAsString)",
        "WITH x AS (SELECT * FROM FILE('{secret}', LineAsString)) SELECT * FROM x",
        "SELECT 1 INTO OUTFILE '{out}'",
        "SELECT 1 INTO/**/OUTFILE '{out}' FORMAT CSV",
        "SHOW TABLES INTO OUTFILE '{out}'",
        "INSERT INTO {table} FROM INFILE '{secret}' FORMAT LineAsString",
        "INSERT INTO FUNCTION file('{out}', CSV) SELECT 1",
        "INSERT INTO {table} SELECT 1, * FROM file('{secret}', LineAsString)",
        "INSERT INTO {table} VALUES (1, file('{secret}'))",
        "INSERT INTO {table} VALUES (1, (SELECT * FROM file('{secret}', LineAsString)))",
        "INSERT INTO {table} SELECT 1, 'x' PARALLEL WITH BACKUP TABLE {table} TO File('{out}')",
        "CREATE TABLE leak (s String) ENGINE = File(LineAsString, '{secret}')",
        "CREATE TABLE leak ENGINE File(CSV, '{out}') AS SELECT 1",
        "CREATE TABLE leak (a Int8) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = local, path = '{out}')",
        "CREATE DATABASE leak ENGINE = Filesystem('/')",
        "CREATE VIEW leak AS SELECT file('{secret}')",
        "CREATE FUNCTION leak AS x -> file(x)",
        "CREATE DICTIONARY leak (a UInt64, s String) PRIMARY KEY a SOURCE(FILE(path '{secret}' format 'TSV')) LAYOUT(FLAT()) LIFETIME(0)",
        "CREATE DICTIONARY leak (a UInt64, s String) PRIMARY KEY a SOURCE(EXECUTABLE(command 'id' format 'TSV')) LAYOUT(FLAT()) LIFETIME(0)",
        "SELECT * FROM executable('id', LineAsString, 's String')",
        "SELECT * FROM python('x')",
        "BACKUP TABLE {table} TO File('{out}')",
        "COPY {table} TO '{out}'",
        "ATTACH TABLE leak FROM '{out}' (a Int8) ENGINE = MergeTree ORDER BY a",
        "SYSTEM SHUTDOWN",
        "SET format_schema = '{secret}:x'",
        "SELECT 1 SETTINGS format_schema = '{secret}:x'",
    ],
)
def test_callers_cannot_reach_the_disk(
    front: FrontProcess, table: str, tmp_path: Path, statement: str
) -> None:
    """No statement reads a file of this machine, writes one, or runs a program."""
    secret = tmp_path / "secret.txt"
    secret.write_text("top secret\n")
    out = tmp_path / "out"
    reply = front.request(statement.format(secret=secret, out=out, table=table))
    assert reply.status in (400, 403), reply.text
    assert "top secret" not in reply.text
    assert not out.exists()
    assert "top secret" not in front.request(f"SELECT s FROM {table}").text
    assert front.request("SELECT name FROM system.tables WHERE name = 'leak'").text == ""


def test_paths_as_names_are_refused_in_the_default_database(front: FrontProcess, tmp_path: Path) -> None:
    """Where chDB would read a table name as a path, also through the URL's database, a session's USE or a parameter."""
    secret = tmp_path / "secret.txt"
    secret.write_text("top secret\n")
    select = f"SELECT * FROM `{secret}` FORMAT LineAsString"
    in_default = {"database": "default"}
    assert front.request(select, in_default).code == "497"
    by_parameter = "SELECT * FROM {t:Identifier} FORMAT LineAsString"
    assert front.request(by_parameter, in_default | {"param_t": str(secret)}).code == "497"
    assert front.request("USE default", {"session_id": "path"}).status == 200
    assert front.request(select, {"session_id": "path"}).code == "497"
    assert front.request('SELECT 1 AS "req/s"', in_default).text == "1\n"


# ---------------------------------------------------------------- limits, life and death


def test_limits_are_answers_and_not_crashes(tmp_path: Path) -> None:
    """Too many statements, too large a body (also unpacked) and too large a result are refused; the next request works."""
    limits = {
        "max_concurrent": "1",
        "queue_seconds": "0.1",
        "max_body_bytes": "1000000",
        "max_result_bytes": "1000000",
    }
    with FrontProcess(tmp_path / "db", settings=limits) as front:
        front.request("CREATE TABLE t (s String) ENGINE = MergeTree ORDER BY s")
        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(front.request, "SELECT sleep(2)")
            codes = set()
            while not slow.done() and "202" not in codes:
                codes.add(front.request("SELECT 1").code)
            assert "202" in codes
        insert = {"query": "INSERT INTO t FORMAT LineAsString"}
        bomb = gzip.compress(b"x" * 50_000_000)
        assert front.request(bomb, insert, {"Content-Encoding": "gzip"}).code == "307"
        assert (
            front.request(
                bytes(cramjam.zstd.compress(b"x" * 50_000_000)), insert, {"Content-Encoding": "zstd"}
            ).code
            == "307"
        )
        assert (
            front.request(lz4.frame.compress(b"x" * 50_000_000), insert, {"Content-Encoding": "lz4"}).code
            == "307"
        )
        assert front.request("SELECT * FROM numbers(10000000)").code == "396"
        assert front.request("SELECT 1").text == "1\n"
        assert count(front, "t") == 0


def test_the_default_port_gives_way_and_the_announcement_goes(tmp_path: Path) -> None:
    """Two fronts without a port run side by side, a third process finds each through its directory, SIGTERM removes the
    announcement, and a stale one of a killed process is not believed."""
    first, second = FrontProcess(tmp_path / "one"), FrontProcess(tmp_path / "two")
    with first, second:
        assert first.port != second.port
        for front in (first, second):
            client = connect(Dsn.parse(f"chdb://{front.path}"))
            assert client.command("SELECT currentDatabase()") == "tailrace"
            with pytest.raises(EngineLocked, match="http://127"):
                open_engine(Dsn.parse(f"chdb://{front.path}"))
        second.kill()
        assert (second.path / FRONT_FILE).exists()
        second.start()
        assert second.request("SELECT 1").text == "1\n"
    assert not (first.path / FRONT_FILE).exists()
    assert first.process.returncode == 0


def test_sigterm_lets_a_statement_finish(tmp_path: Path) -> None:
    """A statement that is running when SIGTERM comes is answered before the process ends; what it wrote is there afterwards."""
    front = FrontProcess(tmp_path / "db")
    with front:
        front.request("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(
                front.request, "INSERT INTO t SELECT number + sleepEachRow(0.1) FROM numbers(20)"
            )
            wait_for_query(front, "INSERT INTO t SELECT%")
            stopper = threading.Thread(target=front.stop)
            stopper.start()
            assert slow.result().status == 200
            stopper.join()
        front.start()
        assert count(front, "t") == 20
