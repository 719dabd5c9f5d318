"""deploy/prometheus: Prometheus' own tool takes the rules and the configuration, and each alert goes off when it shall."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from support.tools import run

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"


def loaded(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return document


def test_each_alert_is_tried_in_trouble_and_out_of_it() -> None:
    """alerts_test.yaml has series on which each alert goes off, and series on which it does not."""
    alerts = {rule["alert"] for group in loaded("alerts.yaml")["groups"] for rule in group["rules"]}
    looks = [look for test in loaded("alerts_test.yaml")["tests"] for look in test["alert_rule_test"]]
    assert {look["alertname"] for look in looks if look.get("exp_alerts")} == alerts
    quiet = {look["alertname"] for look in looks if not look.get("exp_alerts")}
    beside = {
        look["alertname"]
        for test in loaded("alerts_test.yaml")["tests"]
        for look in test["alert_rule_test"]
        if any('"good"' in series["series"] for series in test["input_series"])
    }
    assert quiet | beside == alerts


def test_promtool_takes_the_rules_and_the_configuration() -> None:
    """Syntax of all expressions, templates of the texts, the configuration that names the rules."""
    run("promtool", "check", "rules", FOLDER / "alerts.yaml")
    run("promtool", "check", "config", FOLDER / "prometheus.yaml")


def test_each_alert_goes_off_when_it_shall() -> None:
    """Prometheus evaluates the rules over the series of alerts_test.yaml: the alerts, their labels and texts are those."""
    run("promtool", "test", "rules", FOLDER / "alerts_test.yaml")
