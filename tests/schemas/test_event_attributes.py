"""A database from before events had attributes."""

from __future__ import annotations

from support.engine import Engine
from tailrace.schemas.clickhouse import migrate

_START = """
INSERT INTO event_lines (project_id, trace_id, trace_ts, ts, line_hash, event_id, phase, event_type, input)
VALUES ('p', 't', '2026-01-01', '2026-01-01', 1, 'e', 'start', 'TOOL', '"before"')
"""


def test_events_from_before_keep_what_they_had(engine: Engine) -> None:
    """Lines that were stored by the first version are there after the migration, without attributes, and new ones beside
    them have theirs; in the table and in the view."""
    client = engine.database(migrated=False)
    for statement in migrate.load()[0].statements:
        client.command(migrate.render(statement))
    client.command(_START)
    migrate.migrate(client)
    client.command(
        "INSERT INTO event_lines (project_id, trace_id, trace_ts, ts, line_hash, event_id, phase, event_type, attributes) "
        "VALUES ('p', 't', '2026-01-01', '2026-01-02', 2, 'f', 'start', 'TOOL', '{\"a\":1}')"
    )
    for table in ("event_lines", "events"):
        rows = client.query(f"SELECT event_id, input, attributes FROM {table} ORDER BY event_id").result_rows
        assert [tuple(row) for row in rows] == [("e", '"before"', ""), ("f", "", '{"a":1}')]
