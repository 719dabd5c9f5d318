"""deploy/clickhouse: ClickHouse's own parser takes it, and it fits the tables that `migrate` makes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from support.engine import Engine
from tailrace.ingestor.columns import _BUILDERS
from tailrace.schemas.clickhouse import migrate

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "clickhouse"
RECORDS = {build().table for build in _BUILDERS.values()} - {"tag_lines"} | {"tags"}
"""Tables whose rows are looked for by hash."""
PARAMETERS = {"ingestor_password": "one", "explorer_password": "two"}


def statements(name: str) -> list[str]:
    pieces = re.split(r";[ \t]*(?:\n|$)", re.sub(r"--[^\n]*", "", (FOLDER / name).read_text()))
    return [piece.strip() for piece in pieces if piece.strip()]


def refusal(client: Any, statement: str) -> str:
    try:
        client.command(statement, parameters=PARAMETERS)
    except Exception as exc:
        return str(exc)
    return ""


@pytest.mark.parametrize("name", ["users.sql", "cluster.sql"])
def test_every_statement_is_understood(name: str, engine: Engine) -> None:
    """An embedded engine manages no users and knows no cluster: it refuses for these reasons only, and for no other."""
    client = engine.database(migrated=False)
    expected = "ACCESS_DENIED|UNKNOWN_ROLE|UNKNOWN_DATABASE|NO_ELEMENTS_IN_CONFIG|^$"
    for statement in statements(name):
        if statement.startswith("CREATE DATABASE") and "ON CLUSTER" not in statement:
            continue  # the one statement that would work here, and leave something behind
        assert re.search(expected, refusal(client, statement)), (statement, refusal(client, statement))


def test_the_cluster_has_every_table_and_shards_by_columns_that_it_has(engine: Engine) -> None:
    """Each table and view of the migrations has a Distributed one, whose structure can be made from it and whose sharding
    expression can be computed from its columns."""
    client = engine.database()
    made = client.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine != 'MaterializedView'"
    ).result_rows
    distributed = {}
    for statement in statements("cluster.sql"):
        if found := re.match(
            r"CREATE OR REPLACE TABLE tailrace\.(\w+) .*Distributed\((.*)\)$", statement, re.DOTALL
        ):
            cluster, database, table, *key = found[2].split(", ", 3)
            assert (cluster, database, table) == ("'{cluster}'", "tailrace_local", found[1])
            distributed[found[1]] = key
    assert distributed.keys() == {name for (name,) in made}
    for table, key in distributed.items():
        client.command(f"CREATE TABLE distributed_{table} AS {table} ENGINE = Memory")
        for expression in key:
            client.query(f"SELECT ({expression}) % 2 FROM {table} LIMIT 1")


def test_a_dead_letter_and_its_replays_are_on_one_shard() -> None:
    """The sharding expression of dead letters is that of their id, which is the key of what became of them."""
    definition = next(
        statement
        for m in migrate.load()
        for statement in m.statements
        if "id UInt64 MATERIALIZED" in statement
    )
    (expression,) = re.findall(r"MATERIALIZED (.*)$", definition)
    text = (FOLDER / "cluster.sql").read_text()
    assert f"tailrace_local, dead_letters, {expression})" in text
    assert "tailrace_local, dead_letter_replays, letter)" in text


def test_the_ingestor_may_insert_and_no_more() -> None:
    """It reads the ledger and the version of the tables, and, where an insert is in doubt, which rows are there and what tags they
    have, but no message and no payload; the explorer only reads."""
    grants = [s for s in statements("users.sql") if s.startswith("GRANT") and " ON " in s]
    ingest = {s for s in grants if s.endswith("tailrace_ingest")}
    assert {s.removesuffix(" TO tailrace_ingest") for s in ingest} == {
        "GRANT INSERT ON tailrace.*",
        "GRANT SELECT ON tailrace.ledger",
        "GRANT SELECT ON tailrace.schema_migrations",
        "GRANT SELECT ON tailrace.tag_lines",
        "GRANT SELECT(topic, partition, offset, item, file_id, byte) ON tailrace.dead_letters",
        *(f"GRANT SELECT(project_id, trace_ts, line_hash) ON tailrace.{table}" for table in RECORDS),
    }
    assert set(grants) - ingest == {"GRANT SELECT ON tailrace.* TO tailrace_explore"}
    source = "".join(
        (FOLDER.parents[1] / "ingestor" / f"{name}.py").read_text() for name in ("insert", "intents", "run")
    )
    assert "readonly = 2" in (FOLDER / "users.sql").read_text()
    assert set(re.findall(r"\bFROM (\w+)", source)) <= {"ledger", "dead_letters", "tag_lines"}
