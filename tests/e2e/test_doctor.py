"""`tailrace doctor` against real parts: fine where they are, and a line with a remedy for each thing that is not."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from support import hostile
from support.cli import query, tailrace
from support.kafka import KafkaBroker
from tailrace.ingestor.doctor import examine_tables
from tailrace.schemas.clickhouse import connection, migrate
from tailrace.schemas.diagnosis import Status, space
from tailrace.shipper.doctor import examine_files


def examined(*arguments: str | Path, check: int = 0) -> dict[str, dict[str, Any]]:
    document = json.loads(tailrace("doctor", *arguments, "--format", "json", check=check).stdout)
    assert document["healthy"] is (check == 0)
    found = {each["name"]: each for each in document["checks"]}
    assert all(each["remedy"] for each in found.values() if each["status"] != "ok"), "each says what to do"
    assert all(not each["remedy"] for each in found.values() if each["status"] == "ok")
    return found


def test_tables(tmp_path: Path) -> None:
    """A database as `up` makes it is fine; one altered by hand, one without tables and one that is not there are told."""
    log = tmp_path / "app.log"
    log.write_bytes(hostile.neighbour(1))
    dsn = f"chdb://{tmp_path / 'db'}"
    missing = examined("--clickhouse", dsn, check=1)
    assert "no database" in missing["ClickHouse"]["detail"]
    tailrace("up", "--once", "--clickhouse", dsn, log)
    fine = examined(log, "--clickhouse", dsn)
    assert (
        fine["migrations"]["status"]
        == fine["deduplication windows"]["status"]
        == fine["files"]["status"]
        == "ok"
    )
    query(
        dsn,
        "ALTER TABLE logs MODIFY SETTING non_replicated_deduplication_window = 100",
        "DELETE FROM schema_migrations WHERE version = 5",
    )
    altered = examined("--clickhouse", dsn, check=1)
    assert altered["migrations"]["remedy"] == "tailrace migrate"
    assert "0005" in altered["migrations"]["detail"]
    assert altered["deduplication windows"]["remedy"].startswith(
        "ALTER TABLE logs MODIFY SETTING non_replicated"
    )
    query(dsn, altered["deduplication windows"]["remedy"])
    tailrace("migrate", "--clickhouse", dsn)
    shown = tailrace("doctor", "--clickhouse", dsn).stdout
    assert "FAIL" not in shown and "OK    migrations" in shown
    away = examined("--clickhouse", "clickhouse://default@127.0.0.1:9/tailrace", check=1)
    assert away["ClickHouse"]["status"] == "fail"


@pytest.mark.kafka
def test_brokers_topics_and_group(kafka: KafkaBroker, tmp_path: Path) -> None:
    """Topics that are absent, right and wrong; transactions; a group that has not begun, lags, and is done."""
    topic = "doctor"
    arguments = ("--kafka", kafka.bootstrap, "--topic", topic, "--group", topic)
    absent = examined(*arguments)
    assert absent[f"topic {topic}"]["status"] == absent[f"topic {topic}-checkpoints"]["status"] == "warn"
    assert absent["transactions"]["status"] == absent["Kafka"]["status"] == "ok"
    tailrace("doctor", *arguments, "--strict", check=1)
    log = tmp_path / "app.log"
    log.write_bytes(b"".join(map(hostile.neighbour, range(10))))
    tailrace("ship", "--once", "--kafka", kafka.bootstrap, "--topic", topic, "--shipper-id", topic, log)
    begun = examined(*arguments)
    assert begun[f"topic {topic}"]["status"] == begun[f"topic {topic}-checkpoints"]["status"] == "ok"
    assert begun[f"group {topic}"]["status"] == "warn" and "wait" in begun[f"group {topic}"]["detail"]
    tailrace("ingest", "--once", *arguments, "--clickhouse", f"chdb://{tmp_path / 'db'}")
    done = examined(*arguments)
    assert done[f"group {topic}, lag"]["status"] == "ok"
    kafka.create_topic("doctor-bad", 1, {"retention.ms": "3600000", "max.message.bytes": "10000"})
    kafka.create_topic("doctor-bad-checkpoints", 1, {"cleanup.policy": "delete"})
    bad = examined("--kafka", kafka.bootstrap, "--topic", "doctor-bad", check=1)
    assert "retention.ms=" in bad["topic doctor-bad"]["remedy"]
    assert "max.message.bytes=" in bad["topic doctor-bad, size"]["remedy"]
    assert "cleanup.policy=compact" in bad["topic doctor-bad-checkpoints"]["remedy"]
    began = time.monotonic()
    away = examined("--kafka", "127.0.0.1:9", check=1)
    assert away["Kafka"]["status"] == "fail" and time.monotonic() - began < 60


def test_files(tmp_path: Path) -> None:
    """No files, closed ones, too few watches, and a rotation that truncates are told; one that creates is fine."""
    log, other = tmp_path / "app.log", tmp_path / "other.log"
    log.write_bytes(b"\n")
    other.write_bytes(b"\n")
    limits = tmp_path / "proc" / "sys" / "fs" / "inotify"
    limits.mkdir(parents=True)
    (limits / "max_user_watches").write_text("0\n")
    (limits / "max_user_instances").write_text("128\n")
    rules = tmp_path / "rules"
    rules.write_text(
        f'# a comment {{ }}\nweekly\n"{log}" {{\n  daily\n  copytruncate\n}}\n{other}\n{{\n  create 0640 root\n}}\n'
    )
    found = {c.name: c for c in examine_files([str(tmp_path / "*.log")], tmp_path / "proc", [str(rules)])}
    assert found["files"].status is found["directories"].status is Status.OK
    assert found["inotify"].status is Status.FAIL and "max_user_watches" in found["inotify"].remedy
    assert found["rotation"].status is Status.WARN
    assert str(log) in found["rotation"].detail and str(other) not in found["rotation"].detail
    rules.write_text(f"copytruncate\n{log} {{\n  nocopytruncate\n}}\n{other} {{\n  daily\n}}\n")
    again = {c.name: c for c in examine_files([str(tmp_path / "*.log")], tmp_path / "none", [str(rules)])}
    assert str(other) in again["rotation"].detail and str(log) not in again["rotation"].detail
    none = {c.name: c for c in examine_files([str(tmp_path / "no*.txt")], tmp_path / "proc", [])}
    assert none["files"].status is Status.WARN


class Sick:
    """A ClickHouse that answers what it is asked, or, to one question, as one that is not well.

    Args:
        question: Text of the statement that is answered so.
        rows: The answer.
    """

    HEALTHY: ClassVar[dict[str, list[tuple[Any, ...]]]] = {
        "version()": [("26.9.2.1",)],
        "schema_migrations": [(each.version, each.checksum) for each in migrate.load()],
        "engine_full": [
            ("logs", "ReplacingMergeTree", "SETTINGS non_replicated_deduplication_window = 100000")
        ],
        "currentDatabase()": [("tailrace",)],
        "CHECK GRANT": [(1,)],
        "system.disks": [("default", 50 << 30, 100 << 30)],
        "system.parts": [("logs", "20261120", 7)],
    }

    def __init__(self, question: str = "", rows: Any = ()) -> None:
        self.question, self.rows = question, rows

    def query(self, sql: str, *_: Any, **__: Any) -> Any:
        if self.question and self.question in sql:
            return SimpleNamespace(result_rows=self.rows)
        if "now64" in sql:
            return SimpleNamespace(result_rows=[(int(time.time() * 1000),)])
        # Of several texts the one that stands first in the table counts.
        order = (
            "engine_full",
            "system.parts",
            "system.disks",
            "CHECK GRANT",
            "schema_migrations",
            "version()",
        )
        found = next((text for text in order if text in sql), "currentDatabase()")
        return SimpleNamespace(result_rows=self.HEALTHY[found])

    def command(self, sql: str, *_: Any, **__: Any) -> Any:
        return 1

    def close(self) -> None:
        pass


SHORT = [("logs", "ReplicatedReplacingMergeTree", "SETTINGS replicated_deduplication_window = 100000")]


@pytest.mark.parametrize(
    ("question", "rows", "name", "status", "remedy"),
    [
        ("", (), "", Status.OK, ""),
        ("version()", [("23.8.1.1",)], "ClickHouse", Status.FAIL, "upgrade"),
        ("argMax(checksum", [], "migrations", Status.FAIL, "tailrace migrate"),
        ("argMax(checksum", [(99, "x")], "migrations", Status.FAIL, "tailrace migrate"),
        (
            "engine_full",
            SHORT,
            "deduplication windows",
            Status.FAIL,
            "replicated_deduplication_window_seconds = ",
        ),
        ("CHECK GRANT INSERT", [(0,)], "grants", Status.FAIL, "GRANT INSERT ON tailrace.* TO reader"),
        ("now64", [(1000,)], "clocks", Status.WARN, "NTP"),
        ("system.disks", [("hot", 1 << 20, 1 << 40)], "disk hot", Status.FAIL, "disk"),
        ("system.parts", [("tags", "20261120", 2500)], "parts", Status.WARN, "--batch-seconds"),
    ],
)
def test_a_server_that_is_not_well(
    question: str, rows: Any, name: str, status: Status, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each thing that can be wrong with a server is the one check that is not OK, with its remedy."""
    monkeypatch.setattr(connection, "connect", lambda *_, **__: Sick(question, rows))
    checks = examine_tables(connection.Dsn.parse("clickhouse://reader@ch:8123/tailrace"))
    found = [check for check in checks if check.status is not Status.OK]
    assert [(check.name, check.status) for check in found] == ([(name, status)] if name else [])
    assert all(remedy in check.remedy for check in found)


@pytest.mark.parametrize(
    ("free", "total", "status"),
    [(5 << 30, 10 << 30, Status.OK), (2 << 30, 1 << 40, Status.WARN), (1 << 20, 1 << 30, Status.FAIL)],
)
def test_space(free: int, total: int, status: Status) -> None:
    """Enough, little and next to nothing."""
    assert space("s", free, total, "free some").status is status
