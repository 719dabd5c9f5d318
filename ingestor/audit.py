"""The topic's side of an audit: which lines are in which message; and what any line ought to become."""

from __future__ import annotations

import asyncio
from typing import Any

import xxhash

from tailrace.ingestor import intents
from tailrace.ingestor.columns import tag_value
from tailrace.ingestor.decode import HEAD_BYTES, OVERSIZED_HEADER, LineReader, file_origin
from tailrace.ingestor.group import committed_offsets
from tailrace.schemas.audit import BAD, BLANK, NO_HOUR, ROW, SEPARATOR, Judged, PartitionFacts
from tailrace.schemas.errors import KafkaRefused, RecordError
from tailrace.schemas.kafka import KafkaConnection, translate_kafka
from tailrace.schemas.records import Object, Record, Tags, Text

_HOUR = 3_600_000_000
_BLANK = Judged(BLANK, 0, NO_HOUR)


class LineJudge:
    """Says what a line ought to become, exactly as the ingestor would.

    Args:
        max_line_bytes: As the ingestor has it.
    """

    def __init__(self, max_line_bytes: int) -> None:
        self._reader = LineReader(max_line_bytes)
        self._limit = max_line_bytes

    def __call__(self, line: bytes, length: int) -> Judged:
        """See `tailrace.schemas.audit.Judge`."""
        if length <= self._limit:
            if not line or line.isspace():
                return _BLANK
            try:
                found = self._reader.read(line)
            except RecordError:
                return Judged(BAD, xxhash.xxh3_64_intdigest(line), NO_HOUR)
            key = xxhash.xxh3_64_intdigest(found.content)
            return Judged(ROW, key, found.ts // _HOUR, _content(found.record, found.ts))
        return Judged(BAD, xxhash.xxh3_64_intdigest(line[:HEAD_BYTES]), NO_HOUR)


def _content(record: Record, ts: int) -> int:
    """What the row ought to say, as `CONTENT_COLUMNS` has it."""
    parts = [record.trace_id, str(ts)]
    data = b""
    if isinstance(record, Text):
        parts += (record.level, record.message)
    elif isinstance(record, Tags):
        # Four arrays, of which an empty one joins to nothing.
        tags = record.tags
        parts += [tag.name for tag in tags] or [""]
        parts += [tag.type for tag in tags] or [""]
        parts += [tag.group or "" for tag in tags] or [""]
        parts += [tag_value(tag.value, tag.type)[1] for tag in tags] or [""]
    elif isinstance(record, Object):
        parts += (record.ref, record.type, "")
        data = bytes(record.data)
    return xxhash.xxh3_64_intdigest(SEPARATOR.join(parts).encode("utf-8", "surrogatepass") + data)


async def survey_topic(
    connection: KafkaConnection, topic: str, group: str, judge: LineJudge
) -> dict[int, PartitionFacts]:
    """Every line of a topic, up to what is its end now, and how far the consumer group got.

    Raises:
        KafkaUnavailable: No broker answers.
        KafkaRefused: There is no such topic, or we may not read it.
    """
    from aiokafka import AIOKafkaConsumer, TopicPartition
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.errors import KafkaError

    admin = AIOKafkaAdminClient(**connection.client_arguments())
    consumer = AIOKafkaConsumer(
        **connection.client_arguments(),
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=8 << 20,
        fetch_max_wait_ms=100,
    )
    facts: dict[int, PartitionFacts] = {}
    try:
        await asyncio.wait_for(admin.start(), 30)
        await asyncio.wait_for(consumer.start(), 30)
        if topic not in await admin.list_topics():
            raise KafkaRefused(f"there is no topic {topic!r} at {connection.brokers}")
        described = (await admin.describe_topics([topic]))[0]
        partitions = [TopicPartition(topic, p["partition"]) for p in described["partitions"]]
        committed = await committed_offsets(admin, group, partitions)
        consumer.assign(partitions)
        begins = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
        await consumer.seek_to_beginning(*partitions)
        for partition in partitions:
            found = committed.get(partition)
            known = (
                None
                if found is None or found.offset < 0
                else intents.decode(found.offset, found.metadata).start
            )
            facts[partition.partition] = PartitionFacts(begins[partition], ends[partition], known)
        numbers: dict[int, dict[str, int]] = {number: {} for number in facts}
        left = set(partitions)
        while left:
            for partition in list(left):
                if await consumer.position(partition) >= ends[partition]:
                    left.discard(partition)
                    consumer.pause(partition)
            if not left:
                break
            for partition, records in (await consumer.getmany(*left, timeout_ms=200)).items():
                for record in records:
                    if record.offset < ends[partition]:
                        number = partition.partition
                        _add(facts[number], numbers[number], record, judge)
    except (KafkaError, OSError, TimeoutError) as exc:
        raise translate_kafka(exc, connection) from exc
    finally:
        await consumer.stop()
        await admin.close()
    return facts


def _add(facts: PartitionFacts, numbers: dict[str, int], record: Any, judge: LineJudge) -> None:
    value: bytes = record.value or b""
    file_id, byte = file_origin(record.key)
    number = -1
    if file_id:
        number = numbers.setdefault(file_id, len(numbers))
        if number == len(facts.files):
            facts.files.append(file_id)
    length = len(value)
    for name, text in record.headers:
        if name == OVERSIZED_HEADER and text.isdigit():
            length = int(text)
    parts = [value] if length != len(value) or b"\n" not in value else value.split(b"\n")
    if len(parts) > 1 and not parts[-1]:
        parts.pop()
    for item, part in enumerate(parts):
        whole = length if len(parts) == 1 else len(part)
        facts.lines.append(record.offset, item, record.offset + 1, judge(part, whole))
        facts.file.append(number)
        facts.byte.append(byte)
        if byte >= 0:
            byte += len(part) + 1
