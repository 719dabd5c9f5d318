"""What a consumer group has committed, asked from outside of it."""

from __future__ import annotations

import asyncio
from typing import Any

_COORDINATOR_SECONDS = 30.0


async def committed_offsets(admin: Any, group: str, partitions: list[Any]) -> dict[Any, Any]:
    """By partition, offset and metadata; the offset is negative where nothing was committed.

    A cluster in which no group ever met makes the topic of their offsets now, which takes a moment.

    Args:
        admin: A started admin client.
        group: Its name; it need not exist.
        partitions: Which to ask for.

    Raises:
        aiokafka.errors.KafkaError: The broker refuses, or has no coordinator for it after half a minute.
    """
    from aiokafka.errors import KafkaError

    deadline = asyncio.get_running_loop().time() + _COORDINATOR_SECONDS
    while True:
        try:
            found: dict[Any, Any] = await admin.list_consumer_group_offsets(group, partitions=partitions)
        except KafkaError as exc:
            if not exc.retriable or asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.2)
        else:
            return found
