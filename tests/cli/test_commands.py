"""The command as a person meets it: help, errors, exit codes, reports."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from support import hostile
from support.cli import report, tailrace

COMMANDS = ["up", "ship", "ingest", "migrate", "slice", "traces", "trace", "object", "check", "demo"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(command: str) -> None:
    """Each command says what it does, and shows itself in an example where it takes arguments."""
    shown = tailrace(command, "--help", environment={"COLUMNS": "120", "TERM": "dumb"}).stdout
    assert "Usage" in shown
    if command not in ("demo",):
        assert re.search(rf"tailrace {command} ", shown), "no example"


def test_every_command_is_listed() -> None:
    """The overview names every command."""
    shown = tailrace("--help").stdout
    assert all(re.search(rf"\b{command}\b", shown) for command in COMMANDS)
    assert re.fullmatch(r"tailrace \d+\.\d+\.\d+\n", tailrace("--version").stdout)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nonsense"], 2, "No such command"),
        (["slice", "client=="], 2, "^"),
        (["slice", "a==b", "--clickhouse", "mysql://h"], 2, "chdb:///DIRECTORY"),
        (["up", "--clickhouse", "chdb:///proc/nowhere", "x.log"], 2, "cannot create"),
        (["ingest", "--kafka", ""], 2, "no Kafka brokers"),
        (
            ["ingest", "--kafka", "h:9092", "--clickhouse", "chdb:///tmp/x", "--workers", "2"],
            2,
            "one process",
        ),
        (["ship", "--kafka", "nowhere", "x.log"], 2, "HOST:PORT"),
        (["trace", "t", "--clickhouse", "chdb:///nonexistent/x"], 2, "no database"),
        (["check", "/nonexistent/x.log"], 2, "no file"),
    ],
)
def test_a_mistake_is_one_clear_message(arguments: list[str], code: int, says: str, tmp_path: Path) -> None:
    """What is wrong and what to do, on stderr, with the exit code for it; never a traceback, nothing on stdout."""
    done = tailrace(*arguments, check=code, environment={"XDG_DATA_HOME": str(tmp_path)})
    assert says in re.sub(r"[│╭╰─╮╯]|\s+", " ", done.stderr)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_check_describes_each_fault(tmp_path: Path) -> None:
    """Counts as the pipeline would, with file, line, reason, and a caret under the byte at fault; exit code 1."""
    log = tmp_path / "bad.log"
    log.write_bytes(hostile.file())
    expected = hostile.expected()
    done = tailrace("check", log, "--format", "json", "--errors", "100", check=1)
    found = json.loads(done.stdout)
    assert {key: found[key] for key in ("lines", "blank")} == {
        key: expected[key] for key in ("lines", "blank")
    }
    assert (found["valid"], found["invalid"], found["reasons"]) == (
        expected["rows"],
        expected["dead_letters"],
        expected["reasons"],
    )
    content = hostile.file()
    for finding in found["findings"]:
        start = finding["byte"]
        assert content[:start].count(b"\n") == finding["line"] - 1
    shown = tailrace("check", log, check=1).stdout
    assert f"{log}:2:1: not_json" in shown
    assert re.search(r"^    Traceback.*\n    \^$", shown, re.MULTILINE)
    good = tmp_path / "good.log"
    good.write_bytes(hostile.neighbour(1))
    assert report("check", good)["valid"] == 1


def test_the_demo_shows_what_it_promises(tmp_path: Path) -> None:
    """Lines a second, rows, rejected lines with reasons, and the slice that finds the slow version."""
    shown = tailrace("demo", "--requests", "2000", "--directory", tmp_path).stdout
    assert re.search(r"[\d,]+ lines, .* rows, 3 dead letters", shown)
    assert "missing_field: 1" in shown
    rows = re.findall(r"^(\d+\.\d+\.\d+) .* ([\d.,]+)$", shown, re.MULTILINE)
    assert {version for version, _ in rows} == {"1.4.2", "1.4.3", "1.10.0"}
    assert "valuation service timed out" in shown
