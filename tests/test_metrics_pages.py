"""The list of metrics, its page, the alert rules over it and their runbook: they keep the conventions and agree."""

from __future__ import annotations

import json
import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from tailrace.cli.logs import JsonLines
from tailrace.cli.metrics_address import parse_address, worker_address
from tailrace.cli.metrics_text import exposition
from tailrace.cli.scrape import Process, Scrape, process_of
from tailrace.cli.top import view
from tailrace.schemas import metrics
from tailrace.schemas.diagnosis import Status
from tailrace.schemas.errors import ConfigError
from tailrace.schemas.health import SILENT_SECONDS, Reach
from tailrace.schemas.metrics import CATALOGUE, OTHER_FILES, PAGE, Kind, Latency, Reading, page
from tailrace.shipper.metrics import MARKS, Ages, by_file
from tailrace.shipper.run import Followed

ROOT = Path(__file__).resolve().parents[1]
RUNBOOK = ROOT / "deploy" / "RUNBOOK.md"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
BASE_UNITS = {"seconds", "bytes"}
OTHER_UNITS = re.compile(
    r"_(ms|millis\w*|micros\w*|minutes?|hours?|days?|kb|mb|kilobytes|megabytes|percent)(_|$)"
)


def test_the_page_is_current() -> None:
    """deploy/METRICS.md is what the list says: `python -m tailrace.schemas.metrics` writes it."""
    assert PAGE.read_text() == page()
    assert all(f"`{metric.name}`" in page() for metric in CATALOGUE)


@pytest.mark.parametrize("metric", CATALOGUE, ids=lambda metric: metric.name)
def test_names_keep_the_conventions(metric: metrics.Metric) -> None:
    """What linters of metrics ask for: lower case, `_total` for counters only, base units as the suffix, a help text,
    labels that neither repeat the name nor belong to Prometheus."""
    assert re.fullmatch(r"(tailrace|process)(_[a-z]+)+", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert metric.name.endswith("_info") == (metric.kind is Kind.INFO)
    bare = metric.name.removesuffix("_total")
    assert not bare.endswith(("_count", "_sum", "_bucket", "_created"))
    assert not OTHER_UNITS.search(bare) and not re.search(r"(counter|gauge|histogram|metric)", bare)
    assert metric.unit in BASE_UNITS | {""}
    assert {unit for unit in BASE_UNITS if bare.endswith(f"_{unit}")} == ({metric.unit} - {""})
    assert metric.help.endswith(".") and "\n" not in metric.help and "|" not in metric.help
    for label in metric.labels:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", label)
        assert label not in ("le", "quantile", "job", "instance")
    assert sum(other.name == metric.name for other in CATALOGUE) == 1


@given(st.lists(st.floats(0, 500), max_size=50))
def test_durations_are_counted_as_prometheus_wants_them(durations: list[float]) -> None:
    """Buckets are cumulative, the last holds all; what is parsed from the text is what was observed."""
    latency = Latency()
    for seconds in durations:
        latency.observe(seconds)
    text, _ = exposition([Reading(metrics.INGESTOR_INSERT, latency)], "")
    family = next(
        each
        for each in text_string_to_metric_families(text.decode())
        if each.name == metrics.INGESTOR_INSERT.name
    )
    found = {
        sample.labels["le"]: sample.value for sample in family.samples if sample.name.endswith("_bucket")
    }
    assert found["+Inf"] == latency.count == len(durations)
    for bound in Latency.BOUNDS:
        assert found[f"{bound:g}"] == sum(seconds <= bound for seconds in durations)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 100))), st.integers(1, 5))
def test_files_have_a_bounded_number_of_series(lags: list[tuple[str, int]], most: int) -> None:
    """However many files there are: as many series as allowed and one for the others, the sum is kept, the largest
    stand by themselves."""
    shown = by_file(lags, most)
    assert len(shown) <= most + 1
    assert sum(lag for _, lag in shown) == sum(lag for _, lag in lags)
    totals = sorted((sum(lag for p, lag in lags if p == path) for path in {p for p, _ in lags}), reverse=True)
    assert [lag for path, lag in shown if path != OTHER_FILES] == totals[:most]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 60), st.integers(1, 30)), max_size=100))
def test_lag_in_seconds_is_the_age_of_the_oldest_byte(steps: list[tuple[int, int, int]]) -> None:
    """It is 0 when all is delivered, else at most the time since the oldest undelivered byte was written, and short of that by no more
    than the time between two questions, while there are as many of these as are remembered."""
    ages, size, acknowledged, now, written = Ages(), 0, 0, 0.0, []
    longest = 0.0
    for more, delivered, seconds in steps:
        size += more
        if more:
            written.append((size, now))
        acknowledged = min(size, acknowledged + delivered)
        now += seconds
        longest = max(longest, seconds)
        age = ages.of([Followed("id", "a.log", size, acknowledged)], now)["a.log"]
        waiting = [moment for end, moment in written if end > acknowledged]
        if not waiting:
            assert age == 0
        elif len(waiting) < MARKS:
            assert now - waiting[0] - longest <= age <= now - waiting[0]


def test_every_rule_uses_metrics_that_exist() -> None:
    """Each name in a rule is a series of the list, with the labels that it is grouped by or matched on."""
    known = {series: metric for metric in CATALOGUE for series in metric.series}
    used = set()
    for rule in RULES:
        names = set(re.findall(r"\b(?:tailrace|process)_[a-z_]+", rule["expr"]))
        assert names and names <= known.keys(), rule["alert"]
        used |= names
        labels = {"instance", "le"} | {label for name in names for label in known[name].labels}
        grouped = re.findall(r"\b(?:by|on) \(([^)]*)\)", rule["expr"])
        matched = re.findall(r'(\w+)(?:=~|!=|=)"', rule["expr"])
        shown = re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])
        assert {name.strip() for part in grouped for name in part.split(",")} <= labels, rule["alert"]
        assert set(matched) | set(shown) <= labels, rule["alert"]
        counters = {name for name in names if known[name].kind in (Kind.COUNTER, Kind.HISTOGRAM)}
        for name in counters:
            assert re.search(rf"(rate|increase)\({name}[\[{{]", rule["expr"]), (
                f"{rule['alert']}: {name} only grows"
            )
        assert rule["expr"].count("(") == rule["expr"].count(")")
    for needed in ("stalled", "lag", "dead_letters", "lost", "fenced", "newest_event"):
        assert any(needed in name for name in used), needed


def test_every_rule_has_its_runbook_section() -> None:
    """The link of each alert is a heading of the runbook, and each heading is an alert."""
    headings = re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert headings == [rule["alert"] for rule in RULES]
    for rule in RULES:
        assert rule["annotations"]["runbook"] == f"deploy/RUNBOOK.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning")
    linked = re.findall(r"\]\(#(\w+)\)", RUNBOOK.read_text())
    assert set(linked) <= {heading.lower() for heading in headings}
    named = set(re.findall(r"\b(?:tailrace|process)_[a-z_]+", RUNBOOK.read_text()))
    assert named <= {series for metric in CATALOGUE for series in (*metric.series, metric.name)}


@pytest.mark.parametrize(
    ("trouble", "answered", "status"),
    [("", None, "fail"), ("", 0.0, "ok"), ("", -SILENT_SECONDS - 1, "fail"), ("refused", 0.0, "fail")],
)
def test_a_side_is_reached_lately_or_not(trouble: str, answered: float | None, status: str) -> None:
    """Never reached, reached, silent for too long, and failing."""
    check = Reach("Kafka at h:1", answered, trouble).check(now=1.0)
    assert check.status is Status(status) and bool(check.remedy) == (status == "fail")


def test_addresses() -> None:
    """Each worker takes the next port, or any free one; what is no address is told."""
    assert parse_address("[::1]:9464") == ("::1", 9464)
    assert [worker_address("127.0.0.1:9464", n) for n in range(2)] == ["127.0.0.1:9464", "127.0.0.1:9465"]
    assert worker_address("[::1]:0", 3) == "[::1]:0"
    for wrong in ("9464", ":9464", "h:", "h:x", "h:65536", "h:²"):
        with pytest.raises(ConfigError, match="HOST:PORT"):
            parse_address(wrong)
    with pytest.raises(ConfigError, match="65536"):
        worker_address("h:65535", 1)


def test_json_log_lines() -> None:
    """One document a line, whatever is in it, with the fields that the call gave and the exception."""
    try:
        raise ValueError("two\nlines")
    except ValueError:
        caught = sys.exc_info()
    record = logging.getLogger("tailrace.x").makeRecord(
        "tailrace.x",
        logging.WARNING,
        "f",
        1,
        "lost %d in %s",
        (3, "a\nb"),
        caught,
        extra={"stream": "t/0", "offset": 7},
    )
    line = JsonLines().format(record)
    found = json.loads(line)
    assert "\n" not in line
    assert found.pop("exception").endswith("ValueError: two\nlines")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("ts"))
    assert found == {
        "level": "warning",
        "logger": "tailrace.x",
        "message": "lost 3 in a\nb",
        "stream": "t/0",
        "offset": 7,
    }
    odd = logging.makeLogRecord({"msg": "path \udcff", "where": Path("/x"), "name": "n"})
    assert "path" in json.loads(JsonLines().format(odd))["message"]


def test_top_shows_rates_and_who_is_behind() -> None:
    """Rates are of the time between two looks, also over a restart; what is away and what lags is in the tables."""

    def scrape(at: float, lines: float) -> Scrape:
        readings = {
            metrics.INGESTOR_LINES: [({}, lines)],
            metrics.READY: [({}, 1.0)],
            metrics.INGESTOR_STALLED: [({}, 7.0)],
            metrics.INGESTOR_DEAD_LETTERS: [({"reason": "not_json"}, 3.0), ({"reason": "too_deep"}, 0.0)],
            metrics.PARTITION_LAG_RECORDS: [
                ({"topic": "t", "partition": str(p)}, 10.0 * p) for p in range(3)
            ],
        }
        return Scrape(at, {metric.name: list(values) for metric, values in readings.items()})  # type: ignore[arg-type]

    grown = process_of("h:1", scrape(12.0, 300), scrape(10.0, 100), 0.0)
    assert (grown.role, grown.lines_per_second, grown.lag_records) == ("ingest", 100.0, 30)
    assert process_of("h:1", scrape(12.0, 50), scrape(10.0, 100), 0.0).lines_per_second == 25.0
    assert process_of("h:1", scrape(12.0, 50), None, 0.0).lines_per_second is None
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(view([grown, Process("h:2", error="[Errno 111] refused")]))
    shown = console.export_text()
    for expected in ("ready", "stalled 7 s", "100.0", "30 records", "t/2", "[Errno 111]", "not_json"):
        assert expected in shown
    assert shown.index("t/2") < shown.index("t/1") < shown.index("t/0")
