"""When a batch is full or old enough: plain functions of values and `now`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tailrace.ingestor.decode import Message
from tailrace.ingestor.settings import BatchLimits
from tailrace.schemas.line_feeds import count_line_feeds
from tailrace.schemas.streams import KafkaOffset, next_offset


@dataclass(slots=True)
class Gathering:
    """The messages of one partition on their way into a batch.

    Args:
        start: The offset where the batch begins: the end of the one before it.
        end: The offset after the last message, or after what the broker skipped behind it.
        messages: In offset order.
        moments: When each of them came, in monotonic seconds.
        lines: Of all of them.
        bytes: Likewise.
    """

    start: KafkaOffset
    end: KafkaOffset
    messages: list[Message] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)
    lines: int = 0
    bytes: int = 0

    @property
    def since(self) -> float:
        """When the first of its messages came, in monotonic seconds; 0 where there is none."""
        return self.moments[0] if self.moments else 0.0

    def add(self, messages: Sequence[Message], end: KafkaOffset, now: float) -> None:
        """Appends what was fetched.

        Args:
            messages: In offset order, following on what is there.
            end: The consumer's position after them.
            now: Monotonic seconds.
        """
        self.messages.extend(messages)
        self.moments += [now] * len(messages)
        self.lines += sum(map(_lines, messages))
        self.bytes += sum(map(_bytes, messages))
        self.end = end


def is_due(gathering: Gathering, limits: BatchLimits, now: float) -> bool:
    """Whether to insert now: full by lines or bytes, or its oldest message has waited long enough."""
    if not gathering.messages:
        return False
    return is_full(gathering, limits) or now - gathering.since >= limits.seconds


def is_full(gathering: Gathering, limits: BatchLimits) -> bool:
    """Whether no more should be fetched for it."""
    return gathering.lines >= limits.rows or gathering.bytes >= limits.bytes


def is_small(gathering: Gathering, limits: BatchLimits) -> bool:
    """Whether it is stored so soon that a full batch can well wait for it."""
    return gathering.lines <= limits.rows // 4 and gathering.bytes <= limits.bytes // 4


def split_full(gathering: Gathering, limits: BatchLimits) -> tuple[Gathering, Gathering]:
    """Cuts a batch at its limits.

    Returns:
        A batch within the limits (or one message over them), and what is left: empty when all fit.
        Example: limits.rows = 3 on offsets 10, 11, 12, 15 of a line each, with end 17, gives [10, 13) and [13, 17).
    """
    if gathering.lines <= limits.rows and gathering.bytes <= limits.bytes:
        return gathering, Gathering(start=gathering.end, end=gathering.end)
    count, lines, size = 0, 0, 0
    for message in gathering.messages:
        more_lines, more_bytes = lines + _lines(message), size + _bytes(message)
        if count and (more_lines > limits.rows or more_bytes > limits.bytes):
            break
        count, lines, size = count + 1, more_lines, more_bytes
    if count == len(gathering.messages):
        return gathering, Gathering(start=gathering.end, end=gathering.end)
    cut = next_offset(KafkaOffset(gathering.messages[count - 1].offset))
    rest = gathering.messages[count:]
    moments = gathering.moments
    first = Gathering(gathering.start, cut, gathering.messages[:count], moments[:count], lines, size)
    left = (gathering.lines - lines, gathering.bytes - size)
    return first, Gathering(cut, gathering.end, rest, moments[count:], *left)


def _bytes(message: Message) -> int:
    return len(message.value or b"")


def _lines(message: Message) -> int:
    return 1 + count_line_feeds(message.value or b"")
