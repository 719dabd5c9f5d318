"""The topics that a shipper needs: made when absent and allowed, else the command that makes them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from tailrace.schemas.errors import KafkaRefused, KafkaUnavailable
from tailrace.schemas.kafka import translate_kafka
from tailrace.shipper.settings import KafkaSettings

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

DEFAULT_MESSAGE_BYTES = 1_048_588
"""What a broker allows when nobody set anything."""
BATCH_OVERHEAD_BYTES = 64 << 10
LEADER_SECONDS = 30.0
BROKER_BUSY = frozenset(
    {5, 6, 7, 41}
)  # leader or controller elsewhere, or too slow: the same request may work


@dataclass(frozen=True)
class Topic:
    """A topic as it should be when we make it."""

    name: str
    partitions: int
    config: Mapping[str, str]


def lines_topic(settings: KafkaSettings, max_line_bytes: int) -> Topic:
    """Where lines go. One message has room for the longest line."""
    size = max(max_line_bytes + BATCH_OVERHEAD_BYTES, DEFAULT_MESSAGE_BYTES)
    return Topic(settings.topic, settings.partitions, {"max.message.bytes": str(size)})


def checkpoint_topic(settings: KafkaSettings) -> Topic:
    """Where progress goes. Compaction keeps the last record of each file; small segments let it set in soon,
    because a starting shipper reads the whole topic."""
    return Topic(
        settings.checkpoint_topic,
        1,
        {
            "cleanup.policy": "compact",
            "segment.bytes": str(16 << 20),
            "min.cleanable.dirty.ratio": "0.1",
        },
    )


async def ensure_topics(settings: KafkaSettings, *topics: Topic) -> dict[str, dict[str, str]]:
    """See that the topics exist and have leaders.

    Returns:
        By topic its configuration; empty where we may not read it.

    Raises:
        KafkaUnavailable: No broker answers, or a topic has no leader yet.
        KafkaRefused: A topic is absent and may not be made, or would lose progress; the text says what to run.
    """
    admin = AIOKafkaAdminClient(**settings.connection.client_arguments())
    try:
        await admin.start()
        names = [topic.name for topic in topics]
        for topic, found in zip(topics, await _each(_partitions, admin, names), strict=True):
            if not found:
                await _create(admin, settings, topic)
        return dict(zip(names, await _each(_config, admin, names), strict=True))
    except (KafkaError, OSError) as exc:
        raise translate_kafka(exc, settings.connection) from exc
    finally:
        await admin.close()


def refuse_lossy_progress(settings: KafkaSettings, config: Mapping[str, str]) -> None:
    """Progress must not expire.

    Raises:
        KafkaRefused: The checkpoint topic deletes old records; the text says what to run.
    """
    policy = config.get("cleanup.policy", "compact")
    if "delete" in policy or "compact" not in policy:
        raise KafkaRefused(
            f"topic {settings.checkpoint_topic} has cleanup.policy={policy}: progress would expire and lines "
            "would be shipped again. Run: kafka-configs.sh --bootstrap-server "
            f"{settings.connection.brokers} --alter --topic {settings.checkpoint_topic} "
            "--add-config cleanup.policy=compact"
        )


async def _each(
    question: Callable[[Any, str], Awaitable[Answer]], admin: Any, names: Sequence[str]
) -> list[Answer]:
    """What is answered about each of these topics, asked at once: a process starts the sooner."""
    return await asyncio.gather(*(question(admin, name) for name in names))


async def _partitions(admin: Any, name: str) -> list[Any]:
    described = (await admin.describe_topics([name]))[0]
    error = for_code(described["error_code"])
    partitions: list[Any] = described["partitions"]
    if partitions or described["error_code"] in (0, 3):  # 3: there is no such topic
        return partitions
    raise error(name)


async def _create(admin: Any, settings: KafkaSettings, topic: Topic) -> None:
    brokers = len((await admin.describe_cluster())["brokers"])
    replicas = max(1, min(3, brokers))
    # With three copies one broker may be away and writes still reach two.
    config = {**topic.config, "min.insync.replicas": "2" if replicas == 3 else "1"}
    command = " ".join(
        [
            f"kafka-topics.sh --bootstrap-server {settings.connection.brokers} --create --topic {topic.name}",
            f"--partitions {topic.partitions} --replication-factor {replicas}",
            *(f"--config {name}={value}" for name, value in config.items()),
        ]
    )
    if not settings.create_topics:
        raise KafkaRefused(f"topic {topic.name} does not exist. Run: {command}")
    answer = await admin.create_topics(
        [NewTopic(topic.name, topic.partitions, replicas, topic_configs=config)]
    )
    code, text = answer.topic_errors[0][1], answer.topic_errors[0][-1]
    if code in BROKER_BUSY:
        raise KafkaUnavailable(f"topic {topic.name} cannot be made now: {for_code(code).__name__}")
    if code not in (0, TopicAlreadyExistsError.errno):
        raise KafkaRefused(
            f"topic {topic.name} does not exist and we may not make it ({for_code(code).__name__}: {text}). "
            f"Run: {command}"
        )
    log.info("made topic %s with %d partitions", topic.name, topic.partitions)
    deadline = asyncio.get_running_loop().time() + LEADER_SECONDS
    pause = 0.005  # one broker alone has it by then
    while not all(p["leader"] >= 0 for p in await _partitions(admin, topic.name) or [{"leader": -1}]):
        if asyncio.get_running_loop().time() > deadline:
            raise KafkaUnavailable(f"topic {topic.name} was made, but has no leader yet")
        await asyncio.sleep(pause)
        pause = min(0.1, 2 * pause)


async def _config(admin: Any, name: str) -> dict[str, str]:
    try:
        answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    except KafkaError as exc:
        log.info("the settings of topic %s cannot be read: %s", name, exc)
        return {}
    code, *_, entries = answers[0].resources[0]
    if code != 0:
        log.info("the settings of topic %s cannot be read: %s", name, for_code(code).__name__)
        return {}
    return {entry[0]: entry[1] for entry in entries if entry[1] is not None}
