"""The compose file, the image and their README: they parse, agree with each other, and name things that exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
COMPOSE = ROOT / "deploy" / "compose.yaml"
DEPLOY_README = ROOT / "deploy" / "README.md"


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return loaded


def test_every_service_of_the_readme_is_there(compose: dict[str, Any]) -> None:
    """The README's table names exactly the services of the compose file."""
    named = set(re.findall(r"^\| `(\w+)` \|", DEPLOY_README.read_text(), re.MULTILINE))
    assert named == set(compose["services"])


def test_dependencies_and_volumes_exist(compose: dict[str, Any]) -> None:
    """Every volume is declared, and who waits for health waits for a service that has a health check."""
    services = compose["services"]
    for name, service in services.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            known = (
                (COMPOSE.parent / source).exists()
                if source.startswith("./")
                else source in compose["volumes"]
            )
            assert known, (name, volume)
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "test" in services[other]["healthcheck"]
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
                secret = re.fullmatch(r"\$\{(\w+_PASSWORD):\?set it in deploy/\.env\}", value)
                assert secret, (key, value)
                assert f"\n{secret[1]}=\n" in (ROOT / "deploy" / "env.example").read_text()


def test_our_containers_write_nowhere_but_to_their_volumes(compose: dict[str, Any]) -> None:
    """A root file system that is read-only, no capabilities, no way to gain any."""
    ours = [service for service in compose["services"].values() if service.get("image") == "tailrace"]
    assert len(ours) == 4
    for service in [*ours, compose["services"]["prometheus"]]:
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_image_holds_every_room() -> None:
    """The Dockerfile copies each folder that the distribution is made of."""
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    folders = re.findall(
        r'^"?tailrace[.\w]*"? = "(\w+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert len(folders) > 3
    for folder in folders:
        assert f"COPY {folder} {folder}" in dockerfile


def test_the_image_is_pinned_to_what_the_distribution_asks_for() -> None:
    """Each package that the image's extras need, with what these need in turn, is in the lock at a version that is allowed and
    with hashes; nothing is installed that is not in it."""
    locked: dict[str, Version] = {}
    for name in ("requirements", "build"):
        pins = re.findall(
            r"^(\S+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", lock(name), re.MULTILINE
        )
        assert len(pins) == lock(name).count("==") and pins
        locked |= {canonicalize_name(package): Version(version) for package, version, _ in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    open_extras, seen = {"shipper", "ingestor", "explorer", "otel"}, set()
    while open_extras:
        seen.add(extra := open_extras.pop())
        for text in extras[extra]:
            requirement = Requirement(text)
            if requirement.name == "tailrace":
                open_extras |= requirement.extras - seen
            else:
                wanted.append(text)
    for requirement in map(Requirement, wanted):
        assert locked[canonicalize_name(requirement.name)] in requirement.specifier, requirement
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    for words in re.findall(r"pip (?:install|wheel) ([^\n]+)", dockerfile):
        assert "--require-hashes" in words or "--no-deps" in words, words


def lock(name: str) -> str:
    return (ROOT / "deploy" / f"{name}.lock").read_text()


def test_commands_and_variables_exist(compose: dict[str, Any]) -> None:
    """Subcommands, options and TAILRACE_ variables that these files use are those of the command line."""
    sources = "\n".join(
        path.read_text() for room in ("cli", "schemas/clickhouse") for path in (ROOT / room).glob("*.py")
    )
    texts = [COMPOSE.read_text(), DEPLOY_README.read_text(), (ROOT / "fluent-bit" / "README.md").read_text()]
    used = set(re.findall(r"\bTAILRACE_[A-Z_]+\b", "\n".join(texts)))
    only_fluent_bit = {"TAILRACE_LOGS"}
    assert used > only_fluent_bit
    for variable in used - only_fluent_bit:
        assert variable in sources, variable
    for command in ("ship", "ingest", "migrate", "slice"):
        assert (ROOT / "cli" / f"{command}.py").exists()
    assert compose["services"]["ingestor"]["command"] == ["ingest"]
    assert compose["services"]["migrate"]["command"] == ["migrate"]
    assert compose["services"]["shipper"]["command"][0] == "ship"
