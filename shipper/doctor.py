"""Is everything here that a shipper needs? Files that can be read and followed, a topic that keeps what it is given."""

from __future__ import annotations

import asyncio
import glob
import os
import re
import shutil
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from aiokafka.errors import TopicAuthorizationFailedError, TransactionalIdAuthorizationFailed

from tailrace.schemas.diagnosis import Check, fail, ok, space, warn
from tailrace.schemas.errors import TailraceError
from tailrace.schemas.kafka import KafkaConnection, login, translate_kafka
from tailrace.shipper import discover
from tailrace.shipper.settings import KafkaSettings
from tailrace.shipper.topics import DEFAULT_MESSAGE_BYTES

WAIT_SECONDS = 15.0
_DAY_MS = 24 * 3600 * 1000
_LOGROTATE = ("/etc/logrotate.conf", "/etc/logrotate.d/*")
_WATCHES_LEFT = 0.1


def examine_files(
    paths: Sequence[str],
    proc: Path = Path("/proc"),
    logrotate: Sequence[str] = _LOGROTATE,
) -> list[Check]:
    """The files that the paths name, the directories around them, and what rotates them.

    Args:
        paths: Files, directories or patterns, as a shipper takes them.
        proc: Where the kernel says its limits.
        logrotate: Patterns of logrotate's configuration files.
    """
    found, outside = discover.look(paths)
    checks = [_readable(paths, [sight.path for sight in found])]
    if outside:
        first = outside[0]
        text = f"{len(outside)} lead out of the directories that are named, and are not followed: {first.path} to {first.target}"
        checks.append(warn("links", text, "name the target itself, or ship with --follow-links"))
    directories = discover.watched_directories(paths)
    closed = [each for each in directories if not os.access(each, os.R_OK | os.X_OK)]
    if closed:
        remedy = f"chmod o+rx {' '.join(closed)}, or run as a user who may look into them"
        checks.append(fail("directories", f"cannot be looked into: {', '.join(closed)}", remedy))
    else:
        checks.append(ok("directories", f"{len(directories)} watched"))
    checks.append(_inotify(directories, proc))
    checks.append(_rotation([sight.path for sight in found], logrotate))
    for directory in sorted({os.path.realpath(each) for each in directories})[:5]:
        with suppress(OSError):
            usage = shutil.disk_usage(directory)
            remedy = "free some space: a service that cannot write its log loses lines"
            checks.append(space(f"space in {directory}", usage.free, usage.total, remedy))
    return checks


def _readable(paths: Sequence[str], found: Sequence[str]) -> Check:
    if not found:
        text = f"no file is named by {' '.join(paths)}"
        return warn("files", text, "check the paths; files that appear later are found too")
    closed = [path for path in found if not os.access(path, os.R_OK)]
    if closed:
        remedy = f"let the shipper's user read them, for example: setfacl -m u:USER:r {closed[0]}"
        return fail("files", f"{len(closed)} of {len(found)} cannot be read: {', '.join(closed[:3])}", remedy)
    return ok("files", f"{len(found)} found, all can be read")


def _inotify(directories: Mapping[str, bool], proc: Path) -> Check:
    limits = {}
    for name in ("max_user_watches", "max_user_instances"):
        with suppress(OSError, ValueError):
            limits[name] = int((proc / "sys/fs/inotify" / name).read_text())
    if not limits:
        return warn("inotify", "the kernel tells no limits", "use --poll-only if files are noticed late")
    needed = 0
    for directory, deep in directories.items():
        needed += 1 + (sum(len(names) for _, names, _ in os.walk(directory)) if deep else 0)
    watches = limits.get("max_user_watches", needed)
    detail = f"{needed} watches needed, {watches:,} allowed; {limits.get('max_user_instances', 0):,} instances allowed"
    if needed > watches:
        remedy = f"sysctl fs.inotify.max_user_watches={2 * needed}, or ship with --poll-only"
        return fail("inotify", detail, remedy)
    if needed > watches * (1 - _WATCHES_LEFT) or limits.get("max_user_instances", 128) < 16:
        remedy = "sysctl fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=512"
        return warn("inotify", detail, remedy)
    return ok("inotify", detail)


def _rotation(files: Sequence[str], patterns: Sequence[str]) -> Check:
    copied = []
    for pattern in patterns:
        for name in sorted(glob.glob(pattern)):  # noqa: PTH207
            with suppress(OSError, UnicodeDecodeError):
                copied += [
                    path for path in _copytruncated(Path(name).read_text()) if path in files or not files
                ]
    if copied:
        remedy = "replace copytruncate by create: lines that are written between copy and truncation are lost"
        return warn("rotation", f"copytruncate rotates {', '.join(copied[:3])}", remedy)
    return ok("rotation", "no copytruncate of these files in logrotate's configuration")


def _copytruncated(configuration: str) -> Iterator[str]:
    """The files that a logrotate configuration copies and truncates."""
    text = re.sub(r"(?m)^\s*#.*$", "", configuration)
    outside = re.sub(r"\{[^{}]*\}", "", text)
    for match in re.finditer(r"(?m)^([^{}\n]*?(?:\n[ \t]*[/\"'][^{}\n]*)*)\s*\{([^{}]*)\}", text):
        inside = re.findall(r"(?m)^\s*(nocopytruncate|copytruncate)\b", match[2])
        default = re.findall(r"(?m)^\s*(nocopytruncate|copytruncate)\b", outside)
        if (inside or default)[-1:] == ["copytruncate"]:
            for pattern in re.findall(r"\"[^\"]+\"|'[^']+'|\S+", match[1]):
                yield from sorted(glob.glob(pattern.strip("\"'")))  # noqa: PTH207


async def examine_topics(settings: KafkaSettings, max_line_bytes: int) -> list[Check]:
    """The brokers, the topic of the lines and that of the progress, and whether transactions are allowed.

    Begins and aborts a transaction of a throw-away id; changes nothing else.
    """
    from aiokafka.admin import AIOKafkaAdminClient

    connection = settings.connection
    admin = AIOKafkaAdminClient(**connection.client_arguments())
    checks: list[Check] = []
    try:
        problem = await _tried(connection, lambda: login(connection)) or await _tried(connection, admin.start)
        if problem:
            remedy = (
                "check the address, the firewall, and TAILRACE_KAFKA_SECURITY_PROTOCOL and the credentials"
            )
            return [fail("Kafka", problem, remedy)]
        checks.append(await _cluster(admin, connection))
        checks += await _lines_topic(admin, settings, max_line_bytes)
        checks.append(await _progress_topic(admin, settings))
        checks.append(await _transactions(settings))
    except Exception as exc:
        problem = str(translate_kafka(exc, connection))
        checks.append(fail("Kafka", problem, "give this user DESCRIBE on the cluster and the topics"))
    finally:
        await admin.close()
    return checks


async def _tried(connection: KafkaConnection, call: Callable[[], Awaitable[Any]]) -> str:
    """What went wrong; '' when nothing did."""
    try:
        await asyncio.wait_for(call(), WAIT_SECONDS)
    except TimeoutError:
        return f"Kafka at {connection.brokers} does not answer within {WAIT_SECONDS:.0f} s"
    except TailraceError as exc:
        return str(exc)
    except Exception as exc:
        return str(translate_kafka(exc, connection))
    return ""


async def _cluster(admin: Any, connection: KafkaConnection) -> Check:
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

    brokers = (await admin.describe_cluster())["brokers"]
    detail = f"{len(brokers)} brokers at {connection.brokers}"
    with suppress(Exception):
        node = str(brokers[0]["node_id"])
        answers = await admin.describe_configs([ConfigResource(ConfigResourceType.BROKER, node)])
        settings = {entry[0]: entry[1] for entry in answers[0].resources[0][-1]}
        if version := settings.get("inter.broker.protocol.version"):
            detail += f", protocol {version}"
    return ok("Kafka", detail)


async def _lines_topic(admin: Any, settings: KafkaSettings, max_line_bytes: int) -> list[Check]:
    name = f"topic {settings.topic}"
    described = (await admin.describe_topics([settings.topic]))[0]
    partitions = described["partitions"]
    if described["error_code"] == TopicAuthorizationFailedError.errno:
        return [_forbidden(name, settings, settings.topic)]
    if not partitions:
        return [
            warn(
                name, "does not exist", "the shipper makes it when it may; else it says the command that does"
            )
        ]
    leaderless = [p["partition"] for p in partitions if p["leader"] < 0]
    if leaderless:
        return [
            fail(name, f"partitions {leaderless} have no leader", "bring the brokers that hold them back")
        ]
    config = await config_of(admin, settings.topic)
    replicas = min(len(p["replicas"]) for p in partitions)
    brokers = len((await admin.describe_cluster())["brokers"])
    insync = int(config.get("min.insync.replicas", "1"))
    retention = int(config.get("retention.ms", "-1"))
    kept = "for ever" if retention < 0 else f"for {retention / _DAY_MS:.1f} days"
    detail = f"{len(partitions)} partitions, {replicas} replicas, min.insync.replicas={insync}, kept {kept}"
    alter = f"kafka-configs.sh --bootstrap-server {settings.connection.brokers} --alter --topic {settings.topic} --add-config"
    checks = []
    if "compact" in config.get("cleanup.policy", "delete"):
        text = f"{detail}, cleanup.policy={config['cleanup.policy']}"
        checks.append(warn(name, text, f"lines are no updates of one another: {alter} cleanup.policy=delete"))
    elif 0 <= retention < _DAY_MS:
        text = f"{detail}: an ingestor that is away for longer loses lines"
        checks.append(warn(name, text, f"{alter} retention.ms={7 * _DAY_MS}"))
    elif replicas > 1 and insync < 2:
        checks.append(
            warn(name, f"{detail}: one broker's loss may lose lines", f"{alter} min.insync.replicas=2")
        )
    elif replicas == 1 and brokers > 1:
        remedy = "raise its replication factor with kafka-reassign-partitions.sh"
        checks.append(warn(name, f"{detail}, although there are {brokers} brokers", remedy))
    elif insync > replicas:
        text = f"{detail}: nothing can be written"
        checks.append(fail(name, text, f"{alter} min.insync.replicas={replicas}"))
    else:
        checks.append(ok(name, detail))
    limit = int(config.get("max.message.bytes", DEFAULT_MESSAGE_BYTES))
    if limit < max_line_bytes:
        text = f"takes messages of {limit:,} bytes, lines may have {max_line_bytes:,}: longer ones come as their head"
        checks.append(warn(f"{name}, size", text, f"{alter} max.message.bytes={max_line_bytes + (64 << 10)}"))
    return checks


def _forbidden(name: str, settings: KafkaSettings, topic: str) -> Check:
    problem = str(translate_kafka(TopicAuthorizationFailedError(topic), settings.connection))
    return fail(name, problem, "allow it, or ask as the user of the shipper or the ingestor")


async def _progress_topic(admin: Any, settings: KafkaSettings) -> Check:
    name = f"topic {settings.checkpoint_topic}"
    described = (await admin.describe_topics([settings.checkpoint_topic]))[0]
    if described["error_code"] == TopicAuthorizationFailedError.errno:
        return _forbidden(name, settings, settings.checkpoint_topic)
    if not described["partitions"]:
        return warn(
            name, "does not exist", "the shipper makes it when it may; else it says the command that does"
        )
    policy = (await config_of(admin, settings.checkpoint_topic)).get("cleanup.policy", "compact")
    if policy != "compact":
        remedy = (
            f"kafka-configs.sh --bootstrap-server {settings.connection.brokers} --alter --topic "
            f"{settings.checkpoint_topic} --add-config cleanup.policy=compact"
        )
        return fail(
            name, f"cleanup.policy={policy}: progress would expire, and lines be shipped again", remedy
        )
    return ok(name, "compacted")


async def _transactions(settings: KafkaSettings) -> Check:
    from aiokafka import AIOKafkaProducer

    transactional_id = f"tailrace-doctor-{uuid.uuid4().hex[:12]}"
    forbidden = False
    producer = AIOKafkaProducer(
        **settings.connection.client_arguments(),
        transactional_id=transactional_id,
        transaction_timeout_ms=int(settings.transaction_seconds * 1000),
    )

    async def one() -> None:
        nonlocal forbidden
        try:
            await producer.start()
            await producer.begin_transaction()
            await producer.abort_transaction()
        except TransactionalIdAuthorizationFailed:
            forbidden = True
            raise

    try:
        problem = await _tried(settings.connection, one)
    finally:
        with suppress(Exception, asyncio.TimeoutError):
            await asyncio.wait_for(producer.stop(), 5)
    if forbidden:
        text = (
            f"could not be tried: {settings.connection.who} may not use the throw-away id {transactional_id}"
        )
        remedy = "allow WRITE and DESCRIBE on the prefix tailrace-doctor-, or see that a shipper starts under its own id"
        return warn("transactions", text, remedy)
    if problem:
        remedy = "allow WRITE and DESCRIBE on the transactional id of each shipper, or ship with --delivery at-least-once"
        return fail("transactions", problem, remedy)
    return ok("transactions", "one was begun and aborted")


async def config_of(admin: Any, topic: str) -> dict[str, str]:
    """The settings of a topic; none where they may not be read."""
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

    answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    code, *_, entries = answers[0].resources[0]
    return {} if code else {entry[0]: entry[1] for entry in entries if entry[1] is not None}
