"""Deployments as they are read back: every line once, from raw records and from statistics of windows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from support.stored import Line, store
from tailrace.explorer import Explorer, Period
from tailrace.explorer.explorer import Explorer as ExplorerClass
from tailrace.monitoring import Monitoring
from tailrace.schemas.errors import ConfigError, NotFound
from tailrace.schemas.timestamps import TimestampParser
from tailrace.testing import MemoryLogger

T = 1_795_000_000_000_000
HOUR = 3_600_000_000
TABLES = ("predictions", "ground_truths", "exceptions", "metadata", "statistics")


def raw_lines() -> list[Line]:
    found = []

    def add(table: str, ts: int, **columns: Any) -> None:
        found.append(
            Line(table, "", T + ts, len(found) + 1, project="shop", columns={"deployment": "m", **columns})
        )

    for n in range(100):
        features = '{"x":' + str(n) + ',"n":NaN,"t":"' + "ab"[n % 2] + '"}'
        add(
            "predictions",
            n * HOUR // 50,
            prediction_id=f"id-{n}",
            features=features,
            prediction=json.dumps(n > 49),
        )
    for n in range(10):
        add(
            "ground_truths",
            HOUR + n,
            prediction_id=f"id-{n * 10}",
            label="true",
            segments=["old"] if n > 4 else [],
        )
    add("ground_truths", HOUR + 50, prediction_id="no such", label="true")
    trace = 'Traceback (most recent call last):\n  File "x.py", line 1, in f\n    g()\na.b.Lost: Traceback of\nmore: text\n'
    add("exceptions", 5, message="it broke", stack_trace=trace)
    add("exceptions", 6, message="said so")
    add("metadata", 7, entries='{"version":"1","kept":true}')
    add("metadata", 8, entries='{"version":"2"}')
    return found


def statistics_lines(values: Any, process: int) -> list[Line]:
    logger = MemoryLogger("shop")
    made = Monitoring({})
    made.configure(logger=logger, statistics_only=True)
    for value in values:
        made.session("s").log_prediction({"x": float(value)}, bool(value > 0))
        made.session("s").log_ground_truth(True, bool(value > 0))
    made.session("s").flush()
    found = []
    for number, line in enumerate(logger.lines):
        columns = {
            key: json.dumps(value) if key in ("confusion", "top") else value
            for key, value in line.items()
            if key not in ("v", "kind", "ts", "project_id")
        }
        ts = TimestampParser().parse(line["ts"])
        found.append(Line("statistics", "", ts, process * 1000 + number, project="shop", columns=columns))
    return found


@pytest.fixture
def client(database: Callable[[], Any]) -> Any:
    return database()


def answers(explorer: ExplorerClass) -> Any:
    return (
        explorer.deployments(),
        explorer.deployment("m", over="hour"),
        explorer.deployment("s", over="day"),
        explorer.deployment("m", period=Period(T + HOUR, T + 2 * HOUR)),
    )


def test_answers_do_not_depend_on_duplicates_or_merges(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same before and after parts are merged, with every line stored twice, and read in pages of any size."""
    values = np.random.default_rng(1).normal(0, 10, 600)
    lines = raw_lines() + [
        line for n, part in enumerate(np.split(values, 3)) for line in statistics_lines(part, n)
    ]
    for table in TABLES:
        client.command(f"SYSTEM STOP MERGES {client.database}.{table}")
    store(client, lines)
    explorer = Explorer(client)
    once = answers(explorer)
    store(client, lines)
    assert client.query("SELECT count() FROM predictions").result_rows[0][0] == 200
    assert answers(explorer) == once
    monkeypatch.setattr("tailrace.explorer.statistics._PAGE", 7)
    assert answers(explorer) == once
    for table in TABLES:
        client.command(f"SYSTEM START MERGES {client.database}.{table}")
        client.command(f"OPTIMIZE TABLE {table} FINAL")
    assert answers(explorer) == once

    listed, raw, statistics, hour = once
    assert [(each.deployment, each.predictions, each.ground_truths, each.exceptions) for each in listed] == [
        ("m", 100, 11, 2),
        ("s", 600, 600, 0),
    ]
    (column,) = statistics.whole.features
    assert (column.count, column.type) == (600, "number")
    assert column.mean == pytest.approx(values.mean())
    assert column.std == pytest.approx(values.std())
    assert column.distinct == pytest.approx(600, rel=0.07)
    (performance,) = statistics.whole.performance
    assert performance.accuracy == performance.recall == pytest.approx(np.mean(values > 0))
    assert hour.whole.predictions == 50
    assert raw.metadata == {"version": "2", "kept": True}


def test_raw_records_are_described_exactly(client: Any) -> None:
    """Counts, missing values, distinct values, extremes; ground truths find their prediction by id, also an earlier one."""
    store(client, raw_lines())
    report = Explorer(client).deployment("m", over="hour", project="shop")
    figures = {column.name: column for column in report.whole.features}
    assert list(figures) == ["n", "t", "x"]
    x = figures["x"]
    assert (x.type, x.count, x.distinct, x.mean, x.min, x.max) == ("integer", 100, 100, 49.5, 0, 99)
    assert x.std == pytest.approx(np.arange(100).std())
    assert x.p95 == pytest.approx(94, abs=1)
    assert (figures["n"].type, figures["n"].missing, figures["n"].mean) == ("none", 100, None)
    assert (figures["t"].type, figures["t"].distinct) == ("text", 2)
    answer = report.whole.outputs[0]
    assert (answer.type, answer.mean) == ("boolean", pytest.approx(0.5))
    performance = {(each.segment, each.type): each for each in report.whole.performance}
    assert performance["", "binary"].accuracy == 0.5
    assert performance["old", "binary"].accuracy == 1
    assert (performance["", "none"].count, performance["", "none"].missing) == (1, 1)
    assert [(each.type, each.count) for each in report.whole.exceptions] == [("(message)", 1), ("Lost", 1)]
    assert report.over is not None
    assert [bucket.predictions for bucket in report.over] == [45, 50, 5]


def test_a_name_that_does_not_say_which(client: Any) -> None:
    """An unknown deployment is not found; one of two projects must be told apart; an odd length of time is refused."""
    store(client, raw_lines())
    explorer = Explorer(client)
    with pytest.raises(NotFound, match="no deployment 'nobody' in project shop"):
        explorer.deployment("nobody", project="shop")
    with pytest.raises(NotFound):
        explorer.deployment("\ud800")
    with pytest.raises(ConfigError, match="--over"):
        explorer.deployment("m", over="century")
    other = Line("metadata", "", T, 1, project="other", columns={"deployment": "m", "entries": "{}"})
    store(client, [other])
    with pytest.raises(ConfigError, match="--project"):
        explorer.deployment("m")


def test_records_of_other_writers_do_not_break_a_report(client: Any) -> None:
    """What is no sketch, no confusion matrix, or bins and counts of different lengths, is left out; the rest stands."""
    base = {"deployment": "m", "seconds": 1.0, "instance": "i", "sequence": 1, "count": 3}
    odd = [
        {
            "subject": "feature",
            "name": "a",
            "type": "number",
            "distinct": "not base64",
            "bins": [1, 2],
            "bin_counts": [1],
        },
        {"subject": "feature", "name": "b", "type": "text", "distinct": "AAAA", "numbers": 2},
        {
            "subject": "ground_truth",
            "name": "",
            "type": "text",
            "confusion": '[1,["a"],["a","b",-1],["a","b","c"]]',
        },
        {"subject": "ground_truth", "name": "", "type": "binary", "confusion": "nonsense"},
        {"subject": "something else", "name": "", "type": ""},
        {
            "subject": "feature",
            "name": "c",
            "type": "integer",
            "bins": [2**31 - 1, -(2**31)],
            "bin_counts": [2**63, 1],
        },
        {
            "subject": "prediction",
            "name": "",
            "type": "number",
            "mean": math.inf,
            "m2": 1e308,
            "numbers": 2**63,
            "seconds": math.inf,
        },
    ]
    store(client, [Line("statistics", "", T, n, columns={**base, **each}) for n, each in enumerate(odd)])
    report = Explorer(client).deployment("m")
    assert [(column.name, column.count) for column in report.whole.features] == [("a", 3), ("b", 3), ("c", 3)]
    assert Explorer(client).deployments()[0].predictions == 3
    assert sorted((each.type, each.count) for each in report.whole.performance) == [
        ("binary", 3),
        ("text", 3),
    ]
