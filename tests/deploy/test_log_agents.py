"""fluent-bit/: what other agents are told parses, names options that they have, and says what the README promises."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.tools import run

FOLDER = Path(__file__).resolve().parents[2] / "fluent-bit"
PAIRS = sorted(path.stem for path in FOLDER.glob("fluent-bit*.yaml"))

OPTIONS = {
    part: set(names.split())
    for part, names in yaml.safe_load(Path(__file__).with_name("log_agent_options.yaml").read_text()).items()
}


def loaded(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return document


def classic(name: str) -> dict[str, dict[str, str]]:
    """The sections of the classic syntax: name → keys."""
    sections: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in (FOLDER / name).read_text().splitlines():
        if heading := re.fullmatch(r"\[(\w+)\]", line.strip()):
            current = sections.setdefault(heading[1].lower(), {})
        elif line.strip() and not line.lstrip().startswith("#"):
            key, value = line.split(None, 1)
            current[key] = value
    return sections


def plain(value: Any) -> str:
    """A YAML value as the classic syntax writes it."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def sections(stem: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    document = loaded(f"{stem}.yaml")
    (tail,), (kafka,) = document["pipeline"]["inputs"], document["pipeline"]["outputs"]
    return document["service"], tail, kafka


@pytest.mark.parametrize("stem", PAIRS)
def test_both_syntaxes_say_the_same(stem: str) -> None:
    """The YAML and the classic file have the same keys with the same values."""
    written = classic(f"{stem}.conf")
    for section, keys in zip(("service", "input", "output"), sections(stem), strict=True):
        assert written[section] == {key: plain(value) for key, value in keys.items()}, section


@pytest.mark.parametrize("stem", PAIRS)
def test_fluent_bit_knows_every_option(stem: str) -> None:
    """Misspelt options are not accepted for their likeness."""
    service, tail, kafka = sections(stem)
    assert set(service) <= OPTIONS["fluent-bit service"]
    assert set(tail) <= OPTIONS["fluent-bit tail"]
    own = {key for key in kafka if not key.startswith("rdkafka.")}
    assert own <= OPTIONS["fluent-bit kafka"]
    assert {key.removeprefix("rdkafka.") for key in kafka.keys() - own} <= OPTIONS["librdkafka"]


@pytest.mark.parametrize("stem", PAIRS)
def test_fluent_bit_loses_as_little_as_it_can(stem: str) -> None:
    """What the README promises stands in each variant: raw lines, a buffer on disk, a database, an idempotent producer."""
    service, tail, kafka = sections(stem)
    assert kafka["format"] == "raw"
    assert kafka["raw_log_key"] == tail["key"]
    assert tail["storage.type"] == "filesystem"
    assert tail["storage.pause_on_chunks_overlimit"] is True
    assert service["storage.path"]
    assert service["storage.checksum"] is False  # what was being written at a kill would be thrown away
    assert tail["db"]
    assert kafka["match"] == tail["tag"]
    assert kafka["rdkafka.enable.idempotence"] == "true"
    assert kafka["rdkafka.request.required.acks"] == "-1"
    assert kafka["rdkafka.message.timeout.ms"] == "0"
    assert kafka["retry_limit"] == "no_limits"
    assert (
        int(kafka["rdkafka.message.max.bytes"]) > int(tail["buffer_max_size"].removesuffix("M")) * 1024 * 1024
    )
    assert service["health_check"] is True
    assert service["http_listen"] == "${FLUENT_BIT_LISTEN:-127.0.0.1}"


def test_variants_differ_in_how_they_reach_kafka_only() -> None:
    """Encrypted ones check the broker's name, and take secrets from the environment."""
    base = sections("fluent-bit")
    assert len(PAIRS) == 3
    for stem in PAIRS:
        service, tail, kafka = sections(stem)
        assert (service, tail) == base[:2]
        more = kafka.items() - base[2].items()
        assert kafka.items() - more == base[2].items()
        if stem != "fluent-bit":
            assert kafka["rdkafka.ssl.endpoint.identification.algorithm"] == "https"
            assert kafka["rdkafka.ssl.ca.location"] == "${KAFKA_CA_FILE}"
        for key, value in more:
            if any(word in key for word in ("password", "username", "location")):
                assert re.fullmatch(r"\$\{KAFKA_[A-Z_]+\}", value)


def test_vector_and_filebeat_know_every_option() -> None:
    """Their options are those of their documentation; both acknowledge before they move on, and send the bare line."""
    vector = loaded("vector.yaml")
    assert set(vector["sources"]["tailrace_files"]) <= OPTIONS["vector file"]
    sink = vector["sinks"]["tailrace_kafka"]
    assert set(sink) <= OPTIONS["vector kafka"]
    assert set(sink["librdkafka_options"]) <= OPTIONS["librdkafka"]
    assert sink["acknowledgements"] == {"enabled": True}
    assert sink["buffer"]["when_full"] == "block"
    assert sink["encoding"] == {"codec": "text"}
    filebeat = loaded("filebeat.yaml")
    (files,) = filebeat["filebeat.inputs"]
    assert set(files) <= OPTIONS["filebeat filestream"]
    assert set(filebeat["output.kafka"]) <= OPTIONS["filebeat kafka"]
    assert filebeat["output.kafka"]["required_acks"] == -1
    assert filebeat["output.kafka"]["codec.format"] == {"string": "%{[message]}"}
    for topic in (sink["topic"], filebeat["output.kafka"]["topic"]):
        assert topic == "${TAILRACE_TOPIC}"


@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_kubernetes_takes_the_manifests(version: str) -> None:
    """Every field is one of Kubernetes' API of that version, with a value of its type."""
    run("kubernetes-validate", "--strict", "-k", version, *sorted((FOLDER / "kubernetes").glob("*.yaml")))


@pytest.mark.parametrize("name", ["sidecar.yaml", "daemonset.yaml"])
def test_kubernetes_manifests_fit_the_configuration(name: str) -> None:
    """They set each variable of fluent-bit.yaml, mount what it writes to, and probe what it serves."""
    document = loaded(f"kubernetes/{name}")
    pod = document["spec"]["template"]["spec"]
    assert (
        document["spec"]["selector"]["matchLabels"].items()
        <= document["spec"]["template"]["metadata"]["labels"].items()
    )
    text = (FOLDER / "fluent-bit.yaml").read_text()
    (agent,) = [c for c in [*pod["containers"], *pod.get("initContainers", [])] if c["name"] == "fluent-bit"]
    needed = {
        variable
        for variable, default in re.findall(r"^[^#\n]*?\$\{(\w+)(:-)?", text, re.MULTILINE)
        if not default
    }
    assert needed == {"TAILRACE_LOGS", "KAFKA_BROKERS", "TAILRACE_TOPIC"}
    assert needed <= {variable["name"] for variable in agent["env"]}
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in agent["volumeMounts"]}
    assert mounts["/var/lib/fluent-bit"] is False
    assert {m["name"] for m in agent["volumeMounts"]} <= {v["name"] for v in pod["volumes"]}
    logs = next(variable["value"] for variable in agent["env"] if variable["name"] == "TAILRACE_LOGS")
    assert any(logs.startswith(mount) and read_only for mount, read_only in mounts.items())
    assert agent["ports"][0]["containerPort"] == 2020
    assert pod["terminationGracePeriodSeconds"] > sections("fluent-bit")[0]["grace"]
    assert agent["securityContext"]["readOnlyRootFilesystem"] is True
    if "initContainers" in pod:
        assert agent["restartPolicy"] == "Always"
