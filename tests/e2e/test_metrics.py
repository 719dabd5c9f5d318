"""What processes say of themselves is true: to the line, and also while Kafka is away."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from typer.testing import CliRunner

from support import hostile
from support.cli import report
from support.kafka import KafkaBroker, wait_until
from support.observed import Samples, running
from tailrace.cli.app import app
from tailrace.schemas.errors import ConfigError
from tailrace.schemas.metrics import CATALOGUE, Kind

BAD = b"garbage\n{}\n[]\n\xff\n" + hostile.line(hostile.v1(message="m", ts="yesterday")) + b" \n"
REASONS = {"not_json": 1, "unknown_dialect": 1, "wrong_shape": 1, "not_utf8": 1, "bad_timestamp": 1}
"""Of its dead letters; its last line is blank."""
UNLABELLED: frozenset[tuple[str, str]] = frozenset()


def good(count: int, name: str) -> bytes:
    return b"".join(hostile.line(hostile.v1(message=name, trace_id=f"{name}-{i}")) for i in range(count))


def check_catalogued(families: Iterable[Metric]) -> set[str]:
    """Each family stands in the list, of the kind and with the labels that it says there; their names."""
    listed = {metric.name.removesuffix("_total").removesuffix("_info"): metric for metric in CATALOGUE}
    found = set()
    for family in families:
        metric = listed[family.name.removesuffix("_info")]
        assert family.documentation
        assert family.type in ((metric.kind, "gauge") if metric.kind is Kind.INFO else (metric.kind,))
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels), sample
            assert sample.name in metric.series
        found.add(metric.name)
    return found


def check_stored(samples: Samples, closing: dict[str, Any]) -> None:
    """What an ingestor served last is what it reports in the end."""
    for name in ("lines", "rows", "bytes", "batches", "unsafe_replays"):
        assert samples[f"tailrace_ingestor_{name}_total", UNLABELLED] == closing[name], name
    assert samples["tailrace_ingestor_blank_lines_total", UNLABELLED] == closing["blank"]
    letters = {
        dict(labels)["reason"]: value
        for (name, labels), value in samples.items()
        if name == "tailrace_ingestor_dead_letters_total" and value
    }
    assert letters == closing["reasons"]
    assert samples["tailrace_ingestor_store_seconds_count", UNLABELLED] == closing["batches"]


def check_shipped(samples: Samples, logs: Path, lines: int) -> None:
    """A shipper that has nothing left has counted every line and every byte of the files, and lost none."""
    assert samples["tailrace_shipper_lines_total", UNLABELLED] == lines
    sizes = [path.stat().st_size for path in logs.iterdir()]
    assert samples["tailrace_shipper_bytes_total", UNLABELLED] == sum(sizes)
    assert samples["tailrace_shipper_files", UNLABELLED] == len(sizes)
    for (name, labels), value in samples.items():
        assert (
            name not in ("tailrace_shipper_lost_bytes_total", "tailrace_shipper_file_lag_bytes") or not value
        ), labels


def top(*addresses: str) -> list[dict[str, Any]]:
    """The processes that `tailrace top` shows."""
    done = CliRunner().invoke(app, ["top", *addresses, "--once", "--interval", "0.1", "--format", "json"])
    assert done.exit_code == 0, done.output
    processes: list[dict[str, Any]] = json.loads(done.stdout)["processes"]
    return processes


def test_up(tmp_path: Path) -> None:
    """`up` serves what its report and its ledger say, in both formats; probes; `top`; JSON log lines; a taken port."""
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "a.log").write_bytes(BAD + good(500, "a"))
    (logs / "b.log").write_bytes(good(300, "b"))
    lines = len(REASONS) + 801
    command = (
        "--log-format",
        "json",
        "-v",
        "up",
        logs,
        "--http",
        "off",
        "--clickhouse",
        f"chdb://{tmp_path}/db",
    )
    with running(tmp_path / "up", *command) as up:
        wait_until(lambda: up.value("tailrace_ingestor_lines_total") == lines, "the lines")
        with (logs / "b.log").open("ab") as file:
            file.write(b'{"half')
        wait_until(lambda: up.value("tailrace_shipper_lag_bytes") == 6, "the half line as lag")
        assert up.value("tailrace_shipper_file_lag_bytes", file=str(logs / "b.log")) == 6
        assert up.value("tailrace_shipper_file_lag_bytes", file=str(logs / "a.log")) == 0
        with (logs / "b.log").open("ab") as file:
            file.write(b'"\n')
        wait_until(lambda: up.value("tailrace_shipper_lag_bytes") == 0, "nothing to be left")
        samples = up.samples()

        served = check_catalogued(parse_text(up.get("/metrics")[1]))
        assert served == {metric.name for metric in CATALOGUE if "Not with `up`" not in metric.help}
        openmetrics = up.get("/metrics", accept="application/openmetrics-text; version=1.0.0")[1]
        assert check_catalogued(parse_openmetrics(openmetrics)) == served

        assert up.get("/livez") == (200, "alive\n")
        assert up.ready
        health = json.loads(up.get("/healthz")[1])
        assert health["ready"] and {check["status"] for check in health["checks"]} == {"ok"}
        assert up.get("/metrics", method="HEAD") == (200, "")
        assert up.get("/nothing")[0] == 404
        assert up.get("/livez", method="POST")[0] == 405

        (shown,) = top(up.address)
        assert (shown["role"], shown["ready"], shown["lag_bytes"]) == ("up", True, 0)
        assert shown["dead_letters"] == REASONS | {"not_json": 2}
        taken = CliRunner().invoke(
            app, ["ship", str(logs), "--kafka", "h:1", "--metrics-address", up.address]
        )
        assert isinstance(taken.exception, ConfigError)
        assert "address already in use" in str(taken.exception) and up.address in str(taken.exception)
        closing = up.stop()
    check_stored(samples, closing)
    check_shipped(samples, logs, lines + 1)
    assert (closing["lines"], closing["reasons"]) == (lines + 1, REASONS | {"not_json": 2})
    for line in up.errors.splitlines():
        assert {"ts", "level", "logger", "message"} <= json.loads(line).keys(), line


@pytest.mark.kafka
def test_ship_and_ingest(kafka: KafkaBroker, tmp_path: Path) -> None:
    """Both agree with their reports and with `audit` to the line; while Kafka is away neither is ready, both live, and what is
    not shipped is seen as lag; afterwards both are ready again without a restart."""
    topic = "metrics"
    logs, dsn = tmp_path / "logs", f"chdb://{tmp_path}/db"
    logs.mkdir()
    (logs / "a.log").write_bytes(BAD + good(500, "a"))
    (logs / "b.log").write_bytes(good(300, "b"))
    lines = len(REASONS) + 801
    broker = ("--kafka", kafka.bootstrap, "--topic", topic)
    ship_command = ("--log-format", "json", "ship", logs, *broker, "--shipper-id", topic)
    ingest_command = ("-v", "--log-format", "json", "ingest", *broker, "--group", topic, "--clickhouse", dsn)
    with (
        running(tmp_path / "ship", *ship_command) as ship,
        running(tmp_path / "ingest", *ingest_command) as ingest,
    ):
        both = (ship, ingest)
        wait_until(lambda: ingest.value("tailrace_ingestor_lines_total") == lines, "the lines to be stored")
        wait_until(lambda: all(process.ready for process in both), "both to be ready")
        wait_until(lambda: ingest.value("tailrace_ingestor_partition_lag_records") == 0, "nothing to be left")
        assert ingest.value("tailrace_ingestor_partitions") == 6
        check_catalogued(parse_text(ingest.get("/metrics")[1]))

        kafka.kill()
        more = good(100, "late")
        with (logs / "b.log").open("ab") as file:
            file.write(more)
        wait_until(lambda: not any(process.ready for process in both), "both to see that Kafka is away", 40)
        for process in both:
            assert process.get("/livez")[0] == 200
            (failed,) = [
                check
                for check in json.loads(process.get("/healthz")[1])["checks"]
                if check["status"] == "fail"
            ]
            assert kafka.bootstrap in failed["name"] and failed["remedy"]
            assert process.value("tailrace_ready") == 0
        wait_until(lambda: ship.value("tailrace_shipper_lag_bytes") == len(more), "the lag to be seen")
        assert ship.value("tailrace_shipper_stalled_seconds") > 0

        kafka.start()
        wait_until(lambda: all(process.ready for process in both), "both to be ready again", 60)
        wait_until(lambda: ingest.value("tailrace_ingestor_lines_total") == lines + 100, "the late lines", 60)
        wait_until(lambda: ship.value("tailrace_shipper_lag_bytes") == 0, "nothing to be left in files")
        wait_until(lambda: ingest.value("tailrace_ingestor_partition_lag_records") == 0, "nor in Kafka")
        shipped, stored = ship.samples(), ingest.samples()
        check_catalogued(parse_text(ship.get("/metrics")[1]))
        looked = top(ship.address, ingest.address)
        assert [process["role"] for process in looked] == ["ship", "ingest"]
        assert len(looked[1]["partitions"]) == 6
        closing = ship.stop()
        assert (closing["lines"], closing["lag_bytes"]) == (lines + 100, 0)
        check_stored(stored, ingest.stop())
    check_shipped(shipped, logs, lines + 100)
    assigned = [line for line in map(json.loads, ingest.errors.splitlines()) if "assigned" in line["message"]]
    assert assigned and all(line["level"] == "info" for line in assigned)
    audit = report("audit", logs, *broker, "--group", topic, "--shipper-id", topic, "--clickhouse", dsn)
    assert audit["accounted"] and sum(file["lines"] for file in audit["files"]) == lines + 100


def test_clickhouse_away(tmp_path: Path) -> None:
    """An ingestor whose ClickHouse is not there yet lives and is not ready; its log says why."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nowhere = taken.getsockname()[1]
    command = ("ingest", "--kafka", "127.0.0.1:9", "--clickhouse", f"clickhouse://x@127.0.0.1:{nowhere}/x")
    with running(tmp_path / "ingest", *command) as ingest:
        assert ingest.get("/livez")[0] == 200
        assert ingest.get("/readyz") == (503, "fail  start: still starting\n")
        wait_until(lambda: "next attempt" in ingest.errors, "the first attempt to fail")
        assert ingest.value("tailrace_ready") == 0
