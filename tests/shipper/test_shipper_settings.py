from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tailrace.schemas.errors import ConfigError
from tailrace.schemas.kafka import KafkaConnection
from tailrace.shipper.settings import ShipperSettings

KAFKA = KafkaConnection(brokers="localhost:9092")


def test_values_are_converted_and_sorted_to_where_they_belong() -> None:
    """As they come from flags, the environment and TOML."""
    made = ShipperSettings.from_mapping(
        {
            "paths": ["/a", "/b"],
            "shipper_id": None,
            "once": "true",
            "batch_bytes": "1024",
            "linger_seconds": "0.5",
            "delivery": "at-least-once",
            "checkpoint": "/x/y",
            "topic": "lines",
        },
        KAFKA,
    )
    assert (made.paths, made.once, made.batch_bytes, made.linger_seconds) == (("/a", "/b"), True, 1024, 0.5)
    assert made.checkpoint == Path("/x/y")
    assert made.kafka is not None
    assert (made.kafka.topic, made.kafka.checkpoint_topic) == ("lines", "lines-checkpoints")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"paths": []}, "no paths"),
        ({"shipper_id": "a/b"}, "shipper id"),
        ({"delivery": "at-most-once"}, "exactly-once, at-least-once"),
        ({"checkpoint": "/x"}, "keeps its progress in Kafka"),
        ({"max_line_bytes": 10}, "1024 or more"),
        ({"poll_seconds": 0}, "more than 0"),
        ({"batch_bytes": "many"}, "no int"),
        ({"compression": "rar"}, "zstd"),
        ({"topic": "no spaces"}, "topic name"),
        ({"colour": "red"}, "unknown setting: colour"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(values: dict[str, Any], says: str) -> None:
    """At the start, in one sentence."""
    with pytest.raises(ConfigError, match=says):
        ShipperSettings.from_mapping({"paths": ["/a"], **values}, KAFKA)


def test_kafka_settings_without_kafka_are_refused() -> None:
    """They would silently not be used."""
    with pytest.raises(ConfigError, match="topic is set, but no Kafka brokers are"):
        ShipperSettings.from_mapping({"paths": ["/a"], "topic": "lines"})
