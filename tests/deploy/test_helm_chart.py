"""deploy/helm: the schema covers every value, and with a `helm` at hand the chart renders to what Kubernetes knows."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from support.tools import run, tool
from tailrace.cli.app import app
from tailrace.schemas.kafka import KafkaConnection

CHART = Path(__file__).resolve().parents[2] / "deploy" / "helm" / "tailrace"
OLDEST, NEWEST = "1.29", "1.37"
"""Versions of Kubernetes: from the one that Chart.yaml asks for."""
ALL = [
    "ingestor.autoscaling.enabled=true",
    "shipper.daemonset.enabled=true",
    "shipper.sidecarDemo.enabled=true",
    "metrics.serviceMonitor.enabled=true",
    "metrics.prometheusRule.enabled=true",
    "metrics.dashboards.enabled=true",
    "clickhouse.migrate.cluster=main",
    "kafka.securityProtocol=SASL_SSL",
    "kafka.username=tailrace",
    "kafka.secret=tailrace-kafka",
    "kafka.caInSecret=true",
]


def schema() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return loaded


def values() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    return loaded


def render(*settings: str) -> list[dict[str, Any]]:
    sets = [word for setting in settings for word in ("--set", setting)]
    text = run("helm", "template", "r", CHART, "--kube-version", OLDEST, *sets)
    return [document for document in yaml.safe_load_all(text) if document]


def pods(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        d["spec"]["template"]["spec"] for d in documents if d["kind"] in ("Deployment", "DaemonSet", "Job")
    ]


def test_every_value_is_in_the_schema_and_the_other_way_round() -> None:
    """The schema names exactly the keys of values.yaml, refuses all others, and the defaults are of its types."""
    kinds = {
        "string": str,
        "boolean": bool,
        "integer": int,
        "number": (int, float),
        "array": list,
        "object": dict,
    }

    def compare(described: dict[str, Any], given: Any, path: str) -> None:
        if "properties" in described:
            assert described["additionalProperties"] is False, path
            assert described["properties"].keys() - {"global"} == given.keys(), path
            for key, value in given.items():
                compare(described["properties"][key], value, f"{path}.{key}")
        elif "enum" in described:
            assert given in described["enum"], path
        else:
            types = described["type"] if isinstance(described["type"], list) else [described["type"]]
            assert any(isinstance(given, kinds[each]) for each in types), path
            if "pattern" in described:
                assert re.search(described["pattern"], given), path

    compare(schema(), values(), "values")


def test_templates_use_values_that_exist_and_secrets_by_reference() -> None:
    """Every `.Values.a.b` of a template is in values.yaml; no template makes a Secret; variables are the program's own."""
    text = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    for name in set(re.findall(r"\.Values\.([\w.]+)", text)):
        where: Any = values()
        for key in name.split("."):
            assert key in where, name
            where = where[key]
    assert "kind: Secret\n" not in text
    group = typer.main.get_command(app)
    sources = "".join(
        path.read_text() for room in ("schemas", "cli") for path in (CHART.parents[2] / room).rglob("*.py")
    )
    options = {parameter.envvar for command in group.commands.values() for parameter in command.params}  # type: ignore[attr-defined]
    for variable in set(re.findall(r"\bTAILRACE_[A-Z_]+\b", text)) - options:
        # A secret is read by the name of its variable, or from the file that the same name with _FILE names.
        read = {variable, variable.removesuffix("_FILE"), variable.removeprefix("TAILRACE_KAFKA_")}
        assert any(f'"{name}"' in sources for name in read), variable
    for link in (CHART / "files").iterdir():
        assert link.resolve().is_file(), link


def test_it_lints() -> None:
    """`helm lint --strict` has nothing to say."""
    run("helm", "lint", "--strict", CHART)


@pytest.mark.parametrize("settings", [[], ALL], ids=["defaults", "everything"])
def test_what_it_renders(settings: list[str]) -> None:
    """Closed pods without a token, commands and options of the program, mounts with their volumes, selectors that fit."""
    documents = render(*settings)
    group = typer.main.get_command(app)
    kinds = {document["kind"] for document in documents}
    assert {"Deployment", "PodDisruptionBudget", "NetworkPolicy", "ServiceAccount", "Job"} <= kinds
    if settings:
        assert {
            "DaemonSet",
            "ScaledObject",
            "ServiceMonitor",
            "PrometheusRule",
            "ConfigMap",
            "Service",
        } <= kinds
    for pod in pods(documents):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            for variable in container.get("env", []):
                assert not variable["name"].endswith("PASSWORD")
            if "command" not in container:
                command, *words = container["args"]
                known = {option for each in group.commands[command].params for option in each.opts}  # type: ignore[attr-defined]
                assert {word for word in words if word.startswith("--")} <= known
    for document in documents:
        if document["kind"] in ("Deployment", "DaemonSet"):
            labels = document["spec"]["template"]["metadata"]["labels"]
            assert document["spec"]["selector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_takes_what_it_renders(version: str, tmp_path: Path) -> None:
    """Every field of every manifest is one of Kubernetes' own API of that version, with a value of its type; what belongs to
    KEDA and to Prometheus' operator is not in that API."""
    files = []
    for number, document in enumerate(render(*ALL)):
        if document["apiVersion"].split("/")[0] not in ("keda.sh", "monitoring.coreos.com"):
            (tmp_path / f"{number}.yaml").write_text(yaml.safe_dump(document))
            files.append(tmp_path / f"{number}.yaml")
    assert len(files) > 8
    run("kubernetes-validate", "--strict", "-k", version, *files)


def test_the_sidecar_is_a_native_one() -> None:
    """It starts before the service and is stopped after it, and reads the directory that the service writes."""
    (demo,) = [p for p in pods(render("shipper.sidecarDemo.enabled=true")) if "initContainers" in p]
    (sidecar,) = demo["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["args"][0] == "ship"
    assert {"name": "logs", "mountPath": "/var/log/app", "readOnly": True} in sidecar["volumeMounts"]


PASSWORD = ["kafka.saslMechanism=SCRAM-SHA-256", "kafka.username=tailrace"]
TOKEN = ["kafka.saslMechanism=OAUTHBEARER"]
TOKEN_URL = [
    *TOKEN,
    "kafka.oauth.tokenUrl=https://login.example.com/token",
    "kafka.oauth.clientId=tailrace",
    "kafka.oauth.scope=kafka",
    "kafka.oauth.caInSecret=true",
]


@pytest.mark.parametrize(
    ("settings", "secrets"),
    [(PASSWORD, ("p", "", "")), (TOKEN, ("", "token", "")), (TOKEN_URL, ("", "", "s"))],
    ids=["password", "token", "token of an endpoint"],
)
def test_the_program_logs_in_with_what_the_chart_says(
    settings: list[str], secrets: tuple[str, str, str], tmp_path: Path
) -> None:
    """Of every container that talks to Kafka: its variables, read by the program itself beside a secret with the keys that
    values.yaml names, are a connection that can work; the endpoint of tokens is let through the network policy."""
    keys = {"password": "p", "token": "t", "client-secret": "s", "token-ca.crt": "", "ca.crt": ""}
    for key, value in keys.items():
        (tmp_path / key).write_text(value)
    documents = render(*ALL, *settings)
    found = 0
    for pod in pods(documents):
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            environ = {
                each["name"]: each["value"].replace("/etc/tailrace/kafka", str(tmp_path))
                for each in container.get("env", [])
                if "value" in each
            }
            if "TAILRACE_KAFKA" in environ:
                found += 1
                connection = KafkaConnection.from_environ(environ["TAILRACE_KAFKA"], environ)
                assert connection.security_protocol == "SASL_SSL"
                token_file = connection.token_file and Path(connection.token_file).name
                assert (connection.password, token_file, connection.client_secret) == secrets
    assert found >= 3
    (policy,) = [document for document in documents if document["kind"] == "NetworkPolicy"]
    ports = {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
    assert (443 in ports) == (settings is TOKEN_URL)


@pytest.mark.parametrize(
    "setting",
    [
        "kafka.oauth.tokenUrl=http://login.example.com/token",
        "kafka.oauth.clientSecret=x",
        "kafka.brokers=kafka",
        "kafka.securityProtocol=SASL_SSL",
        "ingestor.replica=3",
        "metrics.port=0",
        "image.digest=x",
    ],
)
def test_what_cannot_work_is_refused(setting: str) -> None:
    """Before anything reaches the cluster: malformed values, keys that do not exist, SASL without a user."""
    done = subprocess.run(
        [tool("helm"), "template", "r", str(CHART), "--kube-version", OLDEST, "--set", setting],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert setting.split("=")[0].split(".")[-1] in done.stderr or "kafka" in done.stderr
