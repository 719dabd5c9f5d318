"""The Grafana dashboards: every query runs, over real data, and every metric exists."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.embedded import up_once
from support.engine import Engine
from tailrace import Client, FileLogger, Tag, Trace
from tailrace.schemas.metrics import CATALOGUE

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
BOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
MACROS = {
    r"\$__timeFilter\(([\w.]+)\)": r"\1 >= now64() - INTERVAL 6 HOUR AND \1 <= now64() + INTERVAL 1 MINUTE",
    r"\$__timeInterval\(([\w.]+)\)": r"toStartOfInterval(\1, INTERVAL 60 second)",
    r"\$\{project:singlequote\}": "'shop'",
    r"\$tag\b": "client",
    r"\$metric\b": "milliseconds",
}
"""What Grafana's ClickHouse plug-in and the variables put in place."""


def board(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def targets(kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in BOARDS:
        for panel in board(path)["panels"]:
            for target in panel["targets"]:
                if target["datasource"]["type"] == kind:
                    yield f"{path.stem}: {panel['title']}", target


@pytest.fixture(scope="module")
def client(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A database with a service's traces, one in four of them with an error, an LLM's events, feedback and a dead letter."""
    log = tmp_path_factory.mktemp("dashboards") / "app.log"
    logger = FileLogger(log, project_id="shop")
    for number in range(40):
        trace = Trace(logger=logger)
        tags = [Tag("client", f"client {number % 3}", "label"), Tag("milliseconds", number, "metric")]
        trace.tag([*tags, Tag("upstream", "timed out", "error")] if number % 4 == 0 else tags)
    for _ in range(5):
        conversation = Client(logger).trace(conversation_id="c")
        with conversation.message("hello") as message:
            with message.generation(model="m", prompt="p") as generation:
                generation.end("o", input_tokens=12, output_tokens=30, cost=0.25)
            with message.tool("search") as tool:
                tool.fail("away")
        conversation.feedback(feedback_tag="THUMBS_UP", feedback_text="helpful")
    logger.close()
    with log.open("ab") as file:
        file.write(b"Traceback (most recent call last):\n")
    client = engine.database()
    up_once(client, log)
    return client


def test_every_clickhouse_query_runs_and_finds_something(client: Any) -> None:
    """Each panel's SQL, on data that has what it asks for, gives rows; so does the list of each variable's values."""
    queries = dict(targets("grafana-clickhouse-datasource"))
    variables = {
        f"{path.stem}: ${variable['name']}": {"rawSql": variable["query"]}
        for path in BOARDS
        for variable in board(path)["templating"]["list"]
    }
    assert len(queries) == 20
    for name, target in {**queries, **variables}.items():
        sql = target["rawSql"]
        for macro, meaning in MACROS.items():
            sql = re.sub(macro, meaning, sql)
        assert "$" not in sql, name
        found = client.query(sql)
        assert found.result_rows, name
        if target.get("queryType") == "timeseries":
            assert found.column_names[0] == "time", name


def test_a_line_that_came_twice_is_counted_once(client: Any) -> None:
    """Errors by the values of a tag: one in four traces, also while every line stands twice in the tables."""
    client.command("SYSTEM STOP MERGES " + client.database + ".tag_lines")
    client.command("SYSTEM STOP MERGES " + client.database + ".tags")
    client.command("INSERT INTO tag_lines SELECT * FROM tag_lines SETTINGS insert_deduplicate = 0")
    sql = dict(targets("grafana-clickhouse-datasource"))["slices: Values of $tag"]["rawSql"]
    for macro, meaning in MACROS.items():
        sql = re.sub(macro, meaning, sql)
    rows = client.query(sql).result_rows
    assert sum(row[1] for row in rows) == 40
    assert sum(row[2] for row in rows) == 10
    assert {row[0]: row[3] for row in rows}["client 0"] == sum(range(0, 40, 3)) / 14


def test_every_metric_of_the_dashboards_and_rules_exists() -> None:
    """What PromQL names is in the list of metrics."""
    known = {series for metric in CATALOGUE for series in metric.series}
    expressions = [target["expr"] for _, target in targets("prometheus")]
    assert len(expressions) > 20
    for expression in expressions:
        named = set(re.findall(r"\b(?:tailrace|process)_[a-z0-9_]+", expression))
        assert named, expression
        assert named <= known, expression


def test_data_sources_and_paths_fit_together() -> None:
    """The dashboards use the data sources that are provisioned, from the directory that the compose file mounts."""
    provisioning = DEPLOY / "grafana" / "provisioning"
    sources = yaml.safe_load((provisioning / "datasources" / "tailrace.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "tailrace.yaml").read_text())["providers"]
    mounts = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["grafana"]["volumes"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in mounts
    known = {(source["type"], source["uid"]) for source in sources}
    used = {
        (panel["datasource"]["type"], panel["datasource"]["uid"])
        for p in BOARDS
        for panel in board(p)["panels"]
    }
    assert used == known
    uids = [board(path)["uid"] for path in BOARDS]
    assert len(set(uids)) == len(uids) == 3
    for path in BOARDS:
        ids = [panel["id"] for panel in board(path)["panels"]]
        assert len(set(ids)) == len(ids)


def test_prometheus_scrapes_what_serves_metrics() -> None:
    """Its targets are services of the compose file with that address, and the rules that it loads are there."""
    settings = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for job in settings["scrape_configs"]:
        for group in job["static_configs"]:
            for target in group["targets"]:
                service, port = target.split(":")
                assert services[service]["environment"]["TAILRACE_METRICS_ADDRESS"] == f"0.0.0.0:{port}"
    for name in settings["rule_files"]:
        assert yaml.safe_load((DEPLOY / "prometheus" / name).read_text())["groups"]
