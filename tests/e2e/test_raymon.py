"""The files of the real raymon client, through each pipeline, come out complete."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import tailrace
from support.cli import query, report
from support.cli import tailrace as run
from support.kafka import KafkaBroker
from support.raymon import RaymonCorpus
from support.raymon_objects import assert_same


@pytest.fixture(scope="module", params=["up", pytest.param("ship and ingest", marks=pytest.mark.kafka)])
def database(
    request: pytest.FixtureRequest, corpus: RaymonCorpus, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The corpus in an embedded database, brought there by each pipeline in turn."""
    path = tmp_path_factory.mktemp("raymon-e2e") / "db"
    lines = json.loads(corpus.expected.read_text())["lines"]
    if request.param == "up":
        found = report("up", "--once", "--clickhouse", f"chdb://{path}", *corpus.logs)
    else:
        kafka: KafkaBroker = request.getfixturevalue("kafka")
        where = ["--kafka", kafka.bootstrap, "--topic", "raymon"]
        report("ship", "--once", *where, "--shipper-id", "raymon", *corpus.logs)
        found = report("ingest", "--once", *where, "--clickhouse", f"chdb://{path}")
    assert (found["rows"], found["dead_letters"]) == (lines, 0)
    return path


def canonical(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


def number(value: Any, kind: str) -> Any:
    """What a tag's number must be, as JSON text says it."""
    if isinstance(value, str) and kind == "metric":
        value = float(value)
    return float(value) if isinstance(value, int | float) else math.nan


def text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def test_every_line_comes_out_complete(corpus: RaymonCorpus, database: Path) -> None:
    """Each info, each tag with type, group and number (NaN and infinities too), and each object, equal when loaded."""
    expected = json.loads(corpus.expected.read_text())
    infos, tags, objects = query(
        database,
        "SELECT trace_id, message FROM logs",
        "SELECT trace_id, t.name AS name, t.type AS type, t.group AS group, t.str AS str, t.num AS num "
        "FROM tag_lines ARRAY JOIN tags AS t",
        "SELECT trace_id, ref, type, data, project_id FROM objects",
    )
    assert canonical(infos) == canonical(expected["infos"])
    assert canonical(tags) == canonical(
        [
            {
                "trace_id": tag["trace_id"],
                "name": tag["name"],
                "type": tag["type"],
                "group": tag["group"] or "",
                "str": text(tag["value"]),
                "num": number(tag["value"], tag["type"]),
            }
            for tag in expected["tags"]
        ]
    )
    assert canonical(
        [{key: row[key] for key in ("trace_id", "ref", "type")} for row in objects]
    ) == canonical(expected["objects"])
    for row in objects:
        assert row["project_id"] == expected["project_id"]
        wrapper = tailrace.load({"type": row["type"], "params": json.loads(row["data"])})
        assert_same(row["ref"], wrapper.data, corpus.objects[row["ref"]])


def test_a_reader_finds_what_was_logged(corpus: RaymonCorpus, database: Path) -> None:
    """`slice`, `trace` and `object` show the same: by tag, by trace, and an array that loads back."""
    where = ["--clickhouse", f"chdb://{database}"]
    expected = json.loads(corpus.expected.read_text())
    clients = {tag["trace_id"] for tag in expected["tags"] if tag["name"] == "client"}
    found = report(
        "slice", "client==bigshot_client", "--by", "sdk_version", "--metric", "prediction_time_ms", *where
    )
    assert found["traces"] == len(clients)
    (group,) = found["by"]["rows"]
    assert (group["value"], group["traces"]) == ("1.4.2", len(clients))
    assert group["metrics"]["prediction_time_ms"]["mean"] == 120.0
    for entry in expected["objects"]:
        document = json.loads(run("object", entry["trace_id"], entry["ref"], *where).stdout)
        assert_same(entry["ref"], tailrace.load(document).data, corpus.objects[entry["ref"]])
        break
    trace_id = expected["objects"][0]["trace_id"]
    trace = report("trace", trace_id, *where)
    assert trace["trace_id"] == trace_id
    assert run("trace", "no-such-trace", *where, check=3).stderr.startswith("tailrace: ")
