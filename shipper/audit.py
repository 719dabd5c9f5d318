"""The files' side of an audit: which lines stand in which file, and how far a shipper's progress says it got."""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tailrace.schemas.audit import Cause, FileFacts, Finding, Judge, Severity
from tailrace.schemas.errors import CheckpointError
from tailrace.schemas.kafka import KafkaConnection, translate_kafka
from tailrace.schemas.streams import FileRange
from tailrace.shipper import discover
from tailrace.shipper.checkpoint import Checkpoint
from tailrace.shipper.identity import Case, FileState, Read, Sight, holds_all, is_rotated_name, judge
from tailrace.shipper.lines import HEAD_BYTES


@dataclass(slots=True)
class KnownProgress:
    """What shippers say of files.

    Args:
        states: How far each file was read.
        under_way: Ranges that were being delivered when that was written.
        lost: Bytes that are lost for sure, by cause (`tail.Loss`).
    """

    states: list[FileState] = field(default_factory=list)
    under_way: list[FileRange] = field(default_factory=list)
    lost: Counter[str] = field(default_factory=Counter)


class _FileRecord(msgspec.Struct, frozen=True):
    version: int
    file: FileState


class _OwnerRecord(msgspec.Struct, frozen=True):
    version: int
    lost: dict[str, int] = {}


def local_progress(path: Path) -> KnownProgress:
    """Progress in a local file; nothing when there is none. A shipper may go on writing it.

    Raises:
        CheckpointError: It cannot be read.
    """
    progress = Checkpoint(path).load()
    ranges = [] if progress.intent is None else list(progress.intent.ranges)
    return KnownProgress(list(progress.files.values()), ranges, Counter(progress.lost))


async def topic_progress(connection: KafkaConnection, topic: str, shipper_id: str | None) -> KnownProgress:
    """Progress in the checkpoint topic, of all shippers or of one; nothing when there is no such topic.

    Raises:
        KafkaUnavailable: No broker answers.
        KafkaRefused: We may not read it.
        CheckpointError: A newer version of the program wrote it.
    """
    from aiokafka import AIOKafkaConsumer, TopicPartition
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.errors import KafkaError

    states: dict[bytes, FileState] = {}
    lost: dict[str, dict[str, int]] = {}
    admin = AIOKafkaAdminClient(**connection.client_arguments())
    consumer = AIOKafkaConsumer(
        **connection.client_arguments(),
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=100,
    )
    try:
        await asyncio.wait_for(admin.start(), 30)
        await asyncio.wait_for(consumer.start(), 30)
        described = (await admin.describe_topics([topic]))[0]
        partitions = [TopicPartition(topic, p["partition"]) for p in described["partitions"]]
        if not partitions:
            return KnownProgress()
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        await consumer.seek_to_beginning(*partitions)
        while any([await consumer.position(p) < ends[p] for p in partitions]):
            for records in (await consumer.getmany(timeout_ms=100)).values():
                for record in records:
                    _note(states, lost, record.key or b"", record.value, shipper_id)
    except (KafkaError, OSError, TimeoutError) as exc:
        raise translate_kafka(exc, connection) from exc
    finally:
        await consumer.stop()
        await admin.close()
    total: Counter[str] = Counter()
    for losses in lost.values():
        total.update(losses)
    return KnownProgress(list(states.values()), lost=total)


def _note(
    states: dict[bytes, FileState],
    lost: dict[str, dict[str, int]],
    key: bytes,
    value: bytes | None,
    shipper_id: str | None,
) -> None:
    before, slash, after = key.decode("utf-8", "replace").rpartition("/")
    shipper = before if slash else after
    if shipper_id is not None and shipper != shipper_id:
        return
    if value is None:
        states.pop(key, None)
        return
    try:
        if slash:
            states[key] = msgspec.json.decode(value, type=_FileRecord).file
        else:
            lost[shipper] = msgspec.json.decode(value, type=_OwnerRecord).lost
    except msgspec.DecodeError as exc:
        raise CheckpointError(f"progress of shipper {shipper} in Kafka cannot be read: {exc}") from exc


def survey(
    paths: Sequence[str],
    progress: KnownProgress,
    judge_line: Judge,
    max_line_bytes: int,
    cuts: Mapping[str, Iterable[int]],
    ignore: Iterable[Path] = (),
) -> tuple[list[FileFacts], list[Finding]]:
    """Every file that the paths name, line by line, and what is odd about the files themselves.

    Args:
        paths: Files, directories or patterns, as a shipper takes them.
        progress: Of the shippers that read them.
        judge_line: Says what a line ought to become.
        max_line_bytes: As the shipper has it.
        cuts: By file id, positions where a line is known to begin although no line feed stands before it: a last line
            that was declared complete, and went on later.
        ignore: Files that are no logs.
    """
    left = {state.id: state for state in progress.states}
    found: list[FileFacts] = []
    findings: list[Finding] = []
    sights = discover.sights(paths, ignore)
    for sight in sights:
        facts = FileFacts(sight.path, sight.size)
        found.append(facts)
        try:
            descriptor = os.open(sight.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as exc:
            facts.unreadable = exc.strerror or str(exc)
            findings.append(
                Finding(
                    Severity.WRONG, Cause.FILE_UNREADABLE, sight.path, f"cannot be read: {facts.unreadable}"
                )
            )
            continue
        try:
            state = _state_of(sight, left.values(), _reader(descriptor))
            if state is not None:
                del left[state.id]
                facts.file_id, facts.shipped = state.id, state.position
                facts.under_way = tuple((r.start, r.end) for r in progress.under_way if r.file_id == state.id)
            _read_lines(descriptor, facts, judge_line, max_line_bytes, sorted(cuts.get(facts.file_id, ())))
        finally:
            os.close(descriptor)
    findings += _without_their_file(left.values(), sights)
    return found, findings


def at_hand(progress: KnownProgress) -> dict[str, str]:
    """By file id, where a file stands that still holds all that was read of it. Told by its edges, as a shipper does."""
    found = {}
    for state in progress.states:
        with suppress(OSError), Path(state.path).open("rb") as file:
            if state.position > 0 and holds_all(state, _reader(file.fileno())):
                found[state.id] = state.path
    return found


def _reader(descriptor: int) -> Read:
    return lambda position, length: os.pread(descriptor, length, position) if length > 0 else b""


def _state_of(sight: Sight, states: Iterable[FileState], read: Read) -> FileState | None:
    """The progress that is about this file's content: its own, or that of the file which it was renamed or copied from."""
    related = [
        state
        for state in states
        if state.position <= sight.size
        and (
            state.key == sight.key
            or Path(state.path).name == Path(sight.path).name
            or is_rotated_name(sight.path, state.path)
        )
        and state.position > 0
        and holds_all(state, read)
    ]
    return max(related, key=lambda state: (state.key == sight.key, state.position), default=None)


def _without_their_file(states: Iterable[FileState], sights: Sequence[Sight]) -> list[Finding]:
    by_key = {sight.key: sight for sight in sights}
    by_path = {sight.path: sight for sight in sights}
    findings = []
    for state in states:
        sight = by_key.get(state.key) or by_path.get(state.path)
        if state.position == 0:
            continue
        if sight is None:
            text = f"bytes up to {state.position} were shipped, and the file is not among those looked at"
            findings.append(
                Finding(Severity.NOTE, Cause.FILE_GONE, state.path, text, 0, "byte", 0, state.position)
            )
        elif judge(state, sight, False) is Case.TRUNCATED or sight.size < state.position:
            text = f"shipped up to byte {state.position}, and now only {sight.size} bytes long"
            found = (0, "byte", sight.size, state.position)
            findings.append(Finding(Severity.WRONG, Cause.FILE_TRUNCATED, sight.path, text, *found))
        else:
            text = f"other bytes stand where up to byte {state.position} was shipped"
            found = (0, "byte", 0, state.position)
            findings.append(Finding(Severity.WRONG, Cause.FILE_REPLACED, sight.path, text, *found))
    return findings


def _read_lines(
    descriptor: int, facts: FileFacts, judge_line: Judge, max_line_bytes: int, cuts: Sequence[int]
) -> None:
    position = 0
    limit = max_line_bytes
    with open(descriptor, "rb", buffering=1 << 20, closefd=False) as file:
        while line := file.readline(limit + 2):
            length = len(line)
            whole = line.endswith(b"\n")
            while not whole and length > limit:
                more = file.readline(1 << 20)
                length += len(more)
                whole = more.endswith(b"\n")
                if not more:
                    break
            inside = (
                cuts[bisect_right(cuts, position) : bisect_right(cuts, position + length - 1)] if cuts else ()
            )
            if inside and length == len(line):
                for start, end in zip((position, *inside), (*inside, position + length), strict=True):
                    part = line[start - position : end - position].removesuffix(b"\n")
                    facts.lines.append(start, 0, end, judge_line(part, len(part)))
            elif length - whole > limit:
                facts.lines.append(position, 0, position + length, judge_line(line[:HEAD_BYTES], length))
            else:
                facts.lines.append(
                    position, 0, position + length, judge_line(line[: length - whole], length - whole)
                )
            position += length
            facts.unfinished = not whole
    facts.size = position
