"""A shipper as a process of its own, with every setting at hand: `python shipper_process.py SETTINGS_JSON`."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Any

from tailrace.cli.signals import stopped_by_signals
from tailrace.schemas.errors import TailraceError
from tailrace.schemas.kafka import KafkaConnection
from tailrace.shipper.checkpoint import Checkpoint
from tailrace.shipper.deliver import CheckpointedDelivery
from tailrace.shipper.produce import KafkaSink
from tailrace.shipper.run import Shipper
from tailrace.shipper.settings import ShipperSettings
from tailrace.shipper.transact import TransactionalDelivery


def delivery_of(settings: ShipperSettings) -> Any:
    assert settings.kafka is not None
    if settings.delivery == "exactly-once":
        return TransactionalDelivery(settings.kafka, settings.shipper_id, settings.max_line_bytes)
    sink = KafkaSink(settings.kafka, settings.max_line_bytes)
    return CheckpointedDelivery(sink, Checkpoint(Path(str(settings.checkpoint))), connect=sink.open)


async def main(values: dict[str, Any]) -> None:
    brokers = values.pop("kafka")
    settings = ShipperSettings.from_mapping(values, KafkaConnection(brokers=brokers))
    shipper: Shipper[Any] = Shipper(settings, delivery_of(settings))
    async with stopped_by_signals(shipper.stop):
        stats = await shipper.run()
    print(json.dumps(stats.report()))


if __name__ == "__main__":
    logging.basicConfig(level="INFO", stream=sys.stderr, format="%(relativeCreated)d %(name)s %(message)s")
    logging.getLogger("aiokafka").setLevel("CRITICAL")
    try:
        asyncio.run(main(json.loads(sys.argv[1])))
    except TailraceError as exc:
        print(f"{type(exc).__name__}: {exc}", file=sys.stderr)
        sys.exit(1)
