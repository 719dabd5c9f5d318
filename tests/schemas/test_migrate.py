"""Migrations: idempotent, safe to run by several at once, and refused where they do not fit."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from support.engine import Engine
from tailrace.schemas.clickhouse import connection, migrate
from tailrace.schemas.clickhouse.connection import Dsn
from tailrace.schemas.errors import ClickHouseRejected, ConfigError, SchemaMismatch


def tables(client: object) -> list[tuple[str, str]]:
    rows = client.query(  # type: ignore[attr-defined]
        "SELECT name, replaceAll(create_table_query, currentDatabase(), 'db') FROM system.tables "
        "WHERE database = currentDatabase() ORDER BY name"
    ).result_rows
    return [tuple(row) for row in rows]


def test_running_again_does_nothing(engine: Engine) -> None:
    """A second run applies nothing and leaves every table as it was."""
    client = engine.database(migrated=False)
    with pytest.raises(SchemaMismatch, match="run `tailrace migrate`"):
        migrate.require_current(client)
    assert [migration.version for migration in migrate.migrate(client)] == [m.version for m in migrate.load()]
    before = tables(client)
    assert migrate.migrate(client) == []
    migrate.require_current(client)
    assert tables(client) == before


def test_several_at_once(engine: Engine) -> None:
    """Eight that migrate the same database at the same time all succeed, and the tables are those of one."""
    alone = engine.database()
    database = engine.database(migrated=False).database
    clients = [engine.connect(database) for _ in range(8)]
    failures: list[BaseException] = []
    barrier = threading.Barrier(len(clients))

    def run(client: object) -> None:
        barrier.wait()
        try:
            migrate.migrate(client)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=[client]) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [name for name, _ in tables(clients[0])] == [name for name, _ in tables(alone)]
    migrate.require_current(clients[0])


def test_a_run_that_was_cut_short_is_finished(engine: Engine) -> None:
    """After any number of statements, the next run makes what is missing."""
    complete = [name for name, _ in tables(engine.database())]
    statements = [statement for migration in migrate.load() for statement in migration.statements]
    for done in range(0, len(statements), 3):
        client = engine.database(migrated=False)
        for statement in statements[:done]:
            client.command(migrate.render(statement))
        migrate.migrate(client)
        assert [name for name, _ in tables(client)] == complete


def test_the_index_on_types_is_asked_32_granules_at_a_time(engine: Engine) -> None:
    """ClickHouse asks it before it reads anything, in microseconds an entry: one for each granule took longer than the question."""
    sql = (
        "SELECT expr, granularity FROM system.data_skipping_indices "
        "WHERE database = currentDatabase() AND table = 'tags' AND expr = 'type'"
    )
    assert engine.database().query(sql).result_rows == [("type", 32)]


def test_a_newer_database_is_refused(engine: Engine) -> None:
    """A program that is older than its tables says so instead of writing."""
    client = engine.database()
    client.insert("schema_migrations", [[9999, "future", ""]], column_names=["version", "name", "checksum"])
    with pytest.raises(SchemaMismatch, match="upgrade Tailrace"):
        migrate.migrate(client)


def test_the_script_for_a_cluster() -> None:
    """Printed for a cluster, every table is replicated and created everywhere; the name cannot smuggle in SQL."""
    script = migrate.script("main")
    assert script.count("ON CLUSTER 'main'") == len(re.findall(r"^(?:CREATE|ALTER) ", script, re.MULTILINE))
    assert script.count("ENGINE = Replicated") == script.count("ENGINE = ")
    assert "${" not in script + migrate.script()
    with pytest.raises(ConfigError):
        migrate.script("x' SETTINGS y = 1 --")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("chdb:///var/lib/tailrace", "chdb:///var/lib/tailrace"),
        ("clickhouse://me:secret@ch/db", "http://me@ch:8123/db"),
        ("clickhouse://me:secret@ch/db?secure=true", "https://me@ch:8443/db"),
        ("https://ch:9000", "https://default@ch:9000/tailrace"),
    ],
)
def test_a_dsn_never_shows_its_password(text: str, shown: str) -> None:
    """What is printed of a DSN says where it leads, and nothing secret."""
    dsn = Dsn.parse(text, {})
    assert (str(dsn), "secret" in repr(dsn)) == (shown, False)


@pytest.mark.parametrize(
    "text", ["", "tailrace", "chdb://relative", "chdb:///", "mysql://me:secret@h/db", "http://h:99999"]
)
def test_what_is_no_dsn_says_what_one_is(text: str) -> None:
    """The message shows the right form, and no password."""
    with pytest.raises(ConfigError) as caught:
        Dsn.parse(text, {})
    assert "secret" not in str(caught.value)
    assert "chdb:///" in str(caught.value) or "port" in str(caught.value)


def test_the_password_may_stand_in_a_file(tmp_path: Path) -> None:
    """From the environment or a file, so that it is in no process list."""
    (tmp_path / "password").write_text("secret\n")
    found = Dsn.parse("clickhouse://ch", {"TAILRACE_CLICKHOUSE_PASSWORD_FILE": str(tmp_path / "password")})
    assert found.password == Dsn.parse("clickhouse://ch", {"TAILRACE_CLICKHOUSE_PASSWORD": "secret"}).password
    with pytest.raises(ConfigError, match="cannot read"):
        Dsn.parse("clickhouse://ch", {"TAILRACE_CLICKHOUSE_PASSWORD_FILE": str(tmp_path / "absent")})


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Code: 241. DB::Exception: Memory limit exceeded", connection.ClickHouseUnavailable),
        ("Code: 252. DB::Exception: Too many parts", connection.ClickHouseUnavailable),
        ("Code: 516. DB::Exception: Authentication failed", ClickHouseRejected),
        ("Code: 60. DB::Exception: Unknown table", SchemaMismatch),
        ("Code: 469. DB::Exception: Constraint violated", connection.RowsRejected),
        ("Code: 74. DB::Exception: write: No space left on device", connection.ClickHouseUnavailable),
    ],
)
def test_what_an_error_code_means(text: str, kind: type[Exception]) -> None:
    """Transient, refused, another schema, or a bad row: told apart by the server's code."""
    from clickhouse_connect.driver.exceptions import DatabaseError

    assert type(connection.translate(DatabaseError(text), "server")) is kind


def test_a_server_that_is_not_there() -> None:
    """Nothing listens: worth another attempt, and said in one sentence."""
    with pytest.raises(connection.ClickHouseUnavailable, match="does not answer"):
        connection.connect(Dsn.parse("clickhouse://127.0.0.1:9"))
