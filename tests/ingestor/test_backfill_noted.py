"""The note that answers for the engine: it holds for one state of the database, and for no other."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from support import hostile
from support.engine import Engine
from support.kafka import wait_until
from tailrace.ingestor.backfill import noted
from tailrace.ingestor.backfill.known import Counts
from tailrace.ingestor.backfill.report import BackfillReport, FileReport
from tailrace.ingestor.backfill.sources import Source

DONE = BackfillReport({"/a.log": FileReport(Source("/a.log", 10, 5, 7), Counts(10, 2, 2), noted=True)})
CHANGES = {
    "parts merged": "OPTIMIZE TABLE logs FINAL",
    "rows inserted": "INSERT INTO logs (project_id, message) VALUES ('p', 'm')",
    "rows deleted": "ALTER TABLE logs DELETE WHERE 1 SETTINGS mutations_sync = 2",
    "rows deleted lightly": "DELETE FROM backfill_files WHERE 1",
    "table emptied": "TRUNCATE TABLE backfill_files",
    "rows inserted again": "INSERT INTO logs (project_id, message) VALUES ('p', 'm')",
    "partition dropped": "ALTER TABLE logs DROP PARTITION ID '19700101'",
    "table altered": "ALTER TABLE feedback MODIFY COMMENT 'x'",
    "table renamed": "RENAME TABLE feedback TO feedback_2",
    "table dropped": "DROP TABLE feedback_2",
}


def _holds(directory: Path, database: str, scope: str = "") -> bool:
    return noted.read(directory, database, scope) is not None


def test_any_change_ends_it(engine: Engine) -> None:
    """Whatever changes a table, its rows or its parts, the note is worth nothing afterwards; without a change it tells what was
    written, for the same database and selection alone."""
    client, directory = engine.database(), engine.path
    for message in ("one", "two"):
        client.command(f"INSERT INTO logs (project_id, message) VALUES ('p', '{message}')")
    client.command("INSERT INTO backfill_files (scope, path) VALUES ('', '/a.log')")

    def written() -> noted.Noted | None:
        # Read right away: the engine may clear old parts away a moment later.
        noted.write(directory, client.database, "", DONE, 1.0)
        return noted.read(directory, client.database, "")

    for what, statement in CHANGES.items():
        held = wait_until(written, f"a moment in which nothing is merged, before: {what}", 30)
        assert held is not None and dict(held.finished(""))["/a.log"].is_same(Source("/a.log", 10, 5, 7))
        assert not _holds(directory, "another") and not _holds(directory, client.database, "scope")
        client.command(statement)
        assert not _holds(directory, client.database), what
    engine.drop(client.database)


def test_a_copy_is_another_database(tmp_path: Path) -> None:
    """A note that was copied with its database does not hold there, even where all times were kept; a damaged one is none; and no
    note is written where a source is not finished."""
    directory = tmp_path / "db"
    (directory / "metadata").mkdir(parents=True)
    (directory / "store" / "abc" / "uuid" / "all_1_1_0").mkdir(parents=True)
    noted.write(directory, "tailrace", "", DONE, 1.0)
    assert _holds(directory, "tailrace")
    copy = Path(shutil.copytree(directory, tmp_path / "copy"))
    assert not _holds(copy, "tailrace")
    moved = directory.rename(tmp_path / "moved")
    assert not _holds(moved, "tailrace")
    moved.rename(directory)
    assert _holds(directory, "tailrace")
    (directory / noted.NAME).write_bytes(b'{"version":1')
    assert not _holds(directory, "tailrace")
    (directory / noted.NAME).unlink()
    unfinished = BackfillReport({"/a.log": FileReport(Source("/a.log", 10, 5, 7))})
    noted.write(directory, "tailrace", "", unfinished, 1.0)
    assert not (directory / noted.NAME).exists()


_TELLS_WHETHER_IT_IS_HELD = """
import sys
from tailrace.cli.app import run
from tailrace.ingestor.backfill import noted
from tailrace.schemas.clickhouse.connection import is_locked

write = noted.write
def told(directory, *rest):
    print("held", is_locked(str(directory)))
    write(directory, *rest)
noted.write = told
sys.exit(run(sys.argv[1:]))
"""


def test_it_is_taken_while_the_engine_is_held(tmp_path: Path) -> None:
    """Nobody can change a table between the end of a run and its note, whether the run has made the database or found it."""
    for name in ("a", "b"):
        log = tmp_path / f"{name}.log"
        log.write_bytes(hostile.line(hostile.v1(message=name)))
        command = ["backfill", str(log), "--clickhouse", f"chdb://{tmp_path}/db", "--format", "json"]
        done = subprocess.run(
            [sys.executable, "-c", _TELLS_WHETHER_IT_IS_HELD, *command],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stdout.startswith("held True"), (name, done.stdout)
