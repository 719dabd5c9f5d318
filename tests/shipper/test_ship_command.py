"""The command as a person types it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from support.cli import tailrace
from support.kafka import KafkaBroker


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return tailrace("ship", *arguments, check=None, seconds=60)


@pytest.mark.kafka
def test_ships_once_and_reports(kafka: KafkaBroker, tmp_path: Path) -> None:
    """One JSON document on standard output, nothing on standard error, and the lines are in Kafka."""
    (tmp_path / "a.log").write_text("one\ntwo\n")
    done = run(
        tmp_path,
        *("--kafka", kafka.bootstrap),
        *("--topic", "command"),
        *("--shipper-id", "me"),
        "--once",
        *("--format", "json"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert (report["lines"], report["bytes"], report["files"], report["lag_bytes"]) == (2, 8, 1, 0)
    assert set(report["lost_bytes"].values()) == {0}
    assert kafka.values("command") == [b"one", b"two"]


@pytest.mark.kafka
def test_a_refusal_is_one_clear_error(kafka: KafkaBroker, tmp_path: Path) -> None:
    """Exit code 1, and the command that a person has to run; no traceback."""
    done = run(tmp_path, "--kafka", kafka.bootstrap, "--topic", "absent", "--no-create-topics", "--once")
    assert done.returncode == 1
    assert "kafka-topics.sh" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--kafka", "nowhere"], "HOST:PORT"),
        (["--kafka", "h:9092", "--shipper-id", "a/b"], "shipper id"),
        (["--kafka", "h:9092", "--checkpoint", "/tmp/x"], "keeps its progress in Kafka"),
    ],
)
def test_wrong_usage_is_told_before_anything_happens(tmp_path: Path, arguments: list[str], says: str) -> None:
    """Exit code 2, and the reason."""
    done = run(tmp_path, *arguments)
    assert done.returncode == 2
    assert says in done.stderr
