"""Intents: "about to insert exactly `[start, end)` of this partition", kept in the group's committed offset.

A commit of offset `start` with the metadata `{"end": end}` says two things at once: everything before `start` is
stored, and `[start, end)` is being stored. So it costs one commit a batch. The commit is fenced by the generation of
the group, like any other.
"""

from __future__ import annotations

import msgspec

from tailrace.schemas.streams import KafkaOffset


class _Metadata(msgspec.Struct, omit_defaults=True):
    end: int
    at: float = 0.0


class PartitionIntent(msgspec.Struct, frozen=True):
    """What a partition's committed offset says.

    Args:
        start: Everything before it is stored.
        end: `[start, end)` may be stored, in part or whole; `None` when nothing was under way.
        at: When that was written, in seconds since the epoch.
    """

    start: KafkaOffset
    end: KafkaOffset | None = None
    at: float = 0.0


def encode(end: KafkaOffset, at: float) -> str:
    """The metadata to commit together with the start of the range (Kafka allows 4,096 bytes)."""
    return msgspec.json.encode(_Metadata(end, round(at, 3))).decode()


def decode(offset: int, metadata: str) -> PartitionIntent:
    """Reads a committed offset back. Metadata that is not ours (another program committed) holds no intent."""
    start = KafkaOffset(offset)
    if not metadata:
        return PartitionIntent(start)
    try:
        found = msgspec.json.decode(metadata, type=_Metadata)
    except msgspec.MsgspecError:
        return PartitionIntent(start)
    if found.end <= offset:
        return PartitionIntent(start)
    return PartitionIntent(start, KafkaOffset(found.end), found.at)


def token(topic: str, partition: int, start: KafkaOffset, end: KafkaOffset) -> str:
    """The deduplication token of a range: the same range always has the same one."""
    return f"{topic}/{partition}/{start}-{end}"
