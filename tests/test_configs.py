"""The files in deploy/ and fluent-bit/: they parse, agree with each other, and name things that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
COMPOSE = ROOT / "deploy" / "compose.yaml"
DEPLOY_README = ROOT / "deploy" / "README.md"
FLUENT_YAML = ROOT / "fluent-bit" / "fluent-bit.yaml"
FLUENT_CLASSIC = ROOT / "fluent-bit" / "fluent-bit.conf"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return loaded


def classic_sections() -> dict[str, dict[str, str]]:
    """The sections of the classic syntax: name → keys."""
    sections: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in FLUENT_CLASSIC.read_text().splitlines():
        if heading := re.fullmatch(r"\[(\w+)\]", line.strip()):
            current = sections.setdefault(heading[1].lower(), {})
        elif line.strip() and not line.lstrip().startswith("#"):
            key, value = line.split(None, 1)
            current[key] = value
    return sections


def plain(value: Any) -> str:
    """A YAML value as the classic syntax writes it."""
    return {True: "on", False: "off"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def test_every_service_of_the_readme_is_there(compose: dict[str, Any]) -> None:
    """The README's table names exactly the services of the compose file."""
    named = set(re.findall(r"^\| `(\w+)` \|", DEPLOY_README.read_text(), re.MULTILINE))
    assert named == set(compose["services"])


def test_dependencies_and_volumes_exist(compose: dict[str, Any]) -> None:
    """Every volume is declared, and who waits for health waits for a service that has a health check."""
    services = compose["services"]
    for name, service in services.items():
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in compose["volumes"], name
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[other]
            assert other in services


def test_nothing_runs_as_root_and_no_secret_is_written_down(compose: dict[str, Any]) -> None:
    """Our image has a user, the database gets one, ports are on loopback, and the password comes from the environment only."""
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    assert re.findall(r"^USER (\S+)", dockerfile, re.MULTILINE)[-1] not in ("0", "root")
    assert compose["services"]["clickhouse"]["user"] == "101:101"
    for service in compose["services"].values():
        assert service.get("user", "101:101").split(":")[0] not in ("0", "root")
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")
        for key, value in service.get("environment", {}).items():
            if "PASSWORD" in key:
                assert value.startswith("${CLICKHOUSE_PASSWORD:?")
    assert "CLICKHOUSE_PASSWORD=\n" in (ROOT / "deploy" / "env.example").read_text()


def test_the_image_holds_every_room() -> None:
    """The Dockerfile copies each folder that the distribution is made of."""
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    folders = re.findall(
        r'^"?tailrace[.\w]*"? = "(\w+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert len(folders) > 3
    for folder in folders:
        assert f"COPY {folder} {folder}" in dockerfile


def test_commands_and_variables_exist(compose: dict[str, Any]) -> None:
    """Subcommands, options and TAILRACE_ variables that these files use are those of the command line."""
    sources = "\n".join(
        path.read_text() for room in ("cli", "schemas/clickhouse") for path in (ROOT / room).glob("*.py")
    )
    texts = [COMPOSE.read_text(), DEPLOY_README.read_text(), (ROOT / "fluent-bit" / "README.md").read_text()]
    used = set(re.findall(r"\bTAILRACE_[A-Z_]+\b", "\n".join(texts)))
    only_fluent_bit = {"TAILRACE_LOGS"}
    for variable in used - only_fluent_bit:
        assert variable in sources, variable
    for command in ("ship", "ingest", "migrate", "slice"):
        assert (ROOT / "cli" / f"{command}.py").exists()
    assert compose["services"]["ingestor"]["command"] == ["ingest"]
    assert compose["services"]["migrate"]["command"] == ["migrate"]
    assert compose["services"]["shipper"]["command"][0] == "ship"


def test_both_fluent_bit_files_say_the_same() -> None:
    """The YAML and the classic file have the same keys with the same values."""
    loaded = yaml.safe_load(FLUENT_YAML.read_text())
    classic = classic_sections()
    (tail,), (kafka,) = loaded["pipeline"]["inputs"], loaded["pipeline"]["outputs"]
    for section, keys in (("service", loaded["service"]), ("input", tail), ("output", kafka)):
        expected = {key: plain(value).lower() for key, value in keys.items()}
        got = {key: value.lower().replace("true", "on") for key, value in classic[section].items()}
        assert got == {key: value.replace("true", "on") for key, value in expected.items()}, section


def test_fluent_bit_sends_raw_lines_safely() -> None:
    """What the README promises stands in the configuration: raw lines, disk buffer, tail database, idempotent producer."""
    classic = classic_sections()
    assert classic["output"]["format"] == "raw"
    assert classic["output"]["raw_log_key"] == classic["input"]["key"] == "log"
    assert classic["input"]["storage.type"] == "filesystem"
    assert classic["service"]["storage.path"]
    assert classic["input"]["db"]
    assert classic["output"]["rdkafka.enable.idempotence"] == "true"
    assert classic["output"]["rdkafka.request.required.acks"] == "-1"
    assert classic["output"]["retry_limit"] == "no_limits"
