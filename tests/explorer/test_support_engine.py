from __future__ import annotations

from support.engine import Engine


def test_databases_are_fresh_migrated_and_apart(engine: Engine) -> None:
    """Each call gives an empty database with every table; what one test inserts, no other sees."""
    one, two = engine(), engine.database()
    one.insert(
        "logs",
        [["p", "t", 0, 0, 1, "info", "hello"]],
        column_names=["project_id", "trace_id", "trace_ts", "ts", "line_hash", "level", "message"],
    )
    assert engine.connect(one.database).query("SELECT count() FROM logs").result_rows == [(1,)]
    assert two.query("SELECT count() FROM logs").result_rows == [(0,)]
    engine.drop(one.database)
    engine.drop(two.database)


def test_database_drops_what_it_made(engine: Engine, database) -> None:
    """`database()` gives a client of a database of its own."""
    client = database()
    assert client.query("SELECT currentDatabase()").result_rows == [(client.database,)]
