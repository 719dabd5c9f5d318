"""Whatever stands in a log file: valid lines are rows, the others dead letters, and nothing is lost or held up."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from support import hostile
from support.cli import query, report
from support.kafka import KafkaBroker

COUNTS = """
SELECT (SELECT count() FROM logs) + (SELECT count() FROM traces) + (SELECT count() FROM objects) + (SELECT count() FROM tag_lines) AS rows,
       (SELECT count() FROM dead_letters) AS dead_letters
"""
REASONS = "SELECT reason, count() AS count FROM dead_letters GROUP BY reason"
NEIGHBOURS = "SELECT uniqExact(trace_id) AS count FROM logs WHERE startsWith(trace_id, 'neighbour-')"
DEAD = "SELECT * EXCEPT raw, base64Encode(raw) AS raw FROM dead_letters ORDER BY byte, offset"


def assert_stored(database: Path) -> list[dict[str, Any]]:
    """The tables hold what `hostile.expected` says; returns the dead letters."""
    expected = hostile.expected()
    (counts,), reasons, (neighbours,), dead = query(database, COUNTS, REASONS, NEIGHBOURS, DEAD)
    assert {row["reason"]: row["count"] for row in reasons} == expected["reasons"]
    assert counts == {"rows": expected["rows"], "dead_letters": expected["dead_letters"]}
    assert neighbours["count"] == len(hostile.CASES) + 1, "a valid line beside a bad one is missing"
    return dead


def test_up_stores_every_neighbour_of_a_bad_line(tmp_path: Path) -> None:
    """`up` accounts for each line of a file full of faults; dead letters name file and byte, and hold the raw bytes."""
    log, database = tmp_path / "bad.log", tmp_path / "db"
    content = hostile.file()
    log.write_bytes(content)
    found = report("up", "--once", "--clickhouse", f"chdb://{database}", log)
    expected = hostile.expected()
    assert {key: found[key] for key in expected} == expected
    for letter in assert_stored(database):
        assert letter["source"] == "file"
        assert letter["file"] == str(log)
        raw = base64.b64decode(letter["raw"])
        assert content[letter["byte"] :].startswith(raw), "raw bytes do not stand where the dead letter says"
        if letter["reason"] == "too_long":
            assert len(raw) < letter["length"]
        else:
            assert len(raw) == letter["length"]
            assert content[letter["byte"] + letter["length"] :][:1] in (b"\n", b"")
    again = report("up", "--once", "--clickhouse", f"chdb://{database}", log)
    assert again["lines"] == 0, "a second run must find nothing new"


@pytest.mark.kafka
def test_ship_and_ingest_store_every_neighbour_of_a_bad_line(tmp_path: Path, kafka: KafkaBroker) -> None:
    """The same through real Kafka; dead letters name topic, partition and offset, and the file and byte before it."""
    log, database = tmp_path / "bad.log", tmp_path / "db"
    content = hostile.file()
    log.write_bytes(content)
    where = ["--kafka", kafka.bootstrap, "--topic", "bad-input"]
    shipped = report("ship", "--once", *where, log)
    expected = hostile.expected()
    assert shipped["lines"] == expected["lines"]
    found = report("ingest", "--once", *where, "--clickhouse", f"chdb://{database}")
    assert (found["rows"], found["dead_letters"]) == (expected["rows"], expected["dead_letters"])
    for letter in assert_stored(database):
        assert (letter["source"], letter["topic"]) == ("kafka", "bad-input")
        assert letter["offset"] >= 0
        assert letter["file_id"]
        assert content[letter["byte"] :].startswith(base64.b64decode(letter["raw"]))
