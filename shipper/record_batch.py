"""A record batch of Kafka's message format 2 that is compressed while records are added to it.

aiokafka's own builder holds the records as they are, in a buffer of megabytes, and copies and compresses them when they are
sent, in the event loop. Here each record goes into a streaming compressor at once, in whatever thread adds it, so that a
batch never holds more than its compressed bytes; and the level is ours to choose.

What aiokafka's `send_batch` asks of a batch is what `aiokafka.producer.message_accumulator.MessageBatch` calls: `close`,
`closed`, `record_count`, `size`, `_set_producer_state` and `_build`.
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Sequence
from typing import Protocol

import cramjam
from aiokafka.record.util import calc_crc32c

from tailrace.schemas.compiled_lines import compiled_lines, wanted_lines
from tailrace.schemas.streams import FileChunk
from tailrace.shipper.levels import LEVELS

log = logging.getLogger(__name__)

Headers = Sequence[tuple[str, bytes]]

IN_FRONT = 1024
"""So many bytes are left in front of a compiled batch, so that what a request says before it need not be joined with it: that is a copy of
megabytes less."""
GATHERED_BYTES = 16 << 10
"""What is smaller goes to the compressor together with what follows."""

_CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
_TRANSACTIONAL = 0x10
_LENGTH_UNCOUNTED, _CRC_AT, _CRC_FROM = 12, 17, 21
_HEADER = struct.Struct(">qiibIhiqqqhii")
_CRC = struct.Struct(">I")
_COMPILED = frozenset({"none", "snappy", "zstd"})
_XERIAL = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1)


class Compressor(Protocol):
    """Takes bytes piece by piece and gives them back compressed, as one stream."""

    def add(self, data: bytes | memoryview) -> None:
        """The next bytes; they must stay as they are until `finish`."""
        ...

    def finish(self) -> list[bytes | memoryview]:
        """All of them, compressed, in pieces; nothing may be added afterwards."""
        ...


class SentBatch:
    """What aiokafka asks of a batch that it sends; the records are the subclass's.

    Args:
        timestamp: Of all records, in milliseconds since the epoch.
        compression: `none`, `gzip`, `snappy`, `lz4` or `zstd`.
        transactional: Whether it is sent within a transaction.
    """

    def __init__(self, timestamp: int, compression: str, *, transactional: bool) -> None:
        self._timestamp = timestamp
        self._attributes = _CODECS[compression] | (_TRANSACTIONAL if transactional else 0)
        self._producer = (-1, -1, 0)

    def close(self) -> None:
        """Takes no more records."""
        raise NotImplementedError

    def closed(self) -> bool:
        """Whether it takes no more records."""
        raise NotImplementedError

    def record_count(self) -> int:
        """How many records it holds."""
        raise NotImplementedError

    def size(self) -> int:
        """Bytes, those of the records before compression while it is open."""
        raise NotImplementedError

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._producer = (producer_id, producer_epoch, base_sequence)

    def _build(self) -> bytearray | memoryview:
        raise NotImplementedError

    def _pack_head(self, built: bytearray | memoryview) -> None:
        """Writes all that stands before the records but the checksum, which covers the end of it."""
        count = self.record_count()
        _HEADER.pack_into(
            built,
            0,
            0,  # the broker gives offsets
            len(built) - _LENGTH_UNCOUNTED,
            -1,  # no leader's epoch is known
            2,  # of the format
            0,
            self._attributes,
            count - 1,
            self._timestamp,
            self._timestamp,
            *self._producer,
            count,
        )


class RecordBatch(SentBatch):
    """Records for one partition.

    Args:
        most: Bytes of the records, before compression; the first record is taken whatever its size.
        timestamp: Of all records, in milliseconds since the epoch.
        compression: `none`, `gzip`, `snappy`, `lz4` or `zstd`.
        level: Of the codec; `None` for its usual one.
        transactional: Whether it is sent within a transaction.
    """

    def __init__(
        self,
        most: int,
        timestamp: int,
        compression: str,
        level: int | None = None,
        *,
        transactional: bool,
    ) -> None:
        super().__init__(timestamp, compression, transactional=transactional)
        self._most = most - _HEADER.size
        self._compressor: Compressor | None = _compressor(compression, level)
        self._gathered: list[bytes | memoryview] = []
        self._gathered_size = self._size = self._count = 0
        self._body: list[bytes | memoryview] = []
        self._built: bytearray | None = None

    def append(self, key: bytes, value: bytes | memoryview, headers: Headers = ()) -> bool:
        """Adds a record; false, and nothing is added, when it is full or closed. What the value is a view of must not change."""
        if self._compressor is None:
            return False
        before = b"\x00\x00%b%b%b%b" % (_varint(self._count), _varint(len(key)), key, _varint(len(value)))
        after = _encoded(headers) if headers else b"\x00"
        size = len(before) + len(value) + len(after)
        length = _varint(size)
        size += len(length)
        if self._count and self._size + size > self._most:
            return False
        self._count += 1
        self._size += size
        self._gathered += (length, before)
        if len(value) < GATHERED_BYTES:
            self._gathered += (value, after)
            self._gathered_size += size
            if self._gathered_size >= GATHERED_BYTES:
                self._flush(self._compressor)
        else:
            self._flush(self._compressor)
            self._compressor.add(value)
            self._gathered.append(after)
        return True

    def close(self) -> None:
        """Takes no more records."""
        if self._compressor is not None:
            self._flush(self._compressor)
            self._body = self._compressor.finish()
            self._compressor = None
            self._size = sum(map(len, self._body))

    def closed(self) -> bool:
        """Whether it takes no more records."""
        return self._compressor is None

    def record_count(self) -> int:
        """How many records it holds."""
        return self._count

    def size(self) -> int:
        """Bytes, those of the records before compression while it is open."""
        return _HEADER.size + self._size

    def _flush(self, compressor: Compressor) -> None:
        if self._gathered:
            compressor.add(b"".join(self._gathered))
            self._gathered.clear()
            self._gathered_size = 0

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        super()._set_producer_state(producer_id, producer_epoch, base_sequence)
        self._built = None

    def _build(self) -> bytearray:
        self.close()
        if self._built is None:
            built = bytearray().join([bytes(_HEADER.size), *self._body])
            self._pack_head(built)
            _CRC.pack_into(built, _CRC_AT, calc_crc32c(memoryview(built)[_CRC_FROM:]))
            self._built = built
        return self._built


class CompiledBatch(SentBatch):
    """Records for one partition that compiled code framed and compressed.

    Args:
        built: The batch, with room for its head, behind `IN_FRONT` bytes.
        count: How many records.
        crc: The CRC-32C of what comes behind the head.
        timestamp: As of `SentBatch`; so are the others.
        compression: See there.
        transactional: See there.
    """

    def __init__(
        self,
        built: bytearray,
        count: int,
        crc: int,
        timestamp: int,
        compression: str,
        *,
        transactional: bool,
    ) -> None:
        super().__init__(timestamp, compression, transactional=transactional)
        self._built, self._count, self._crc = memoryview(built)[IN_FRONT:], count, crc

    def close(self) -> None:
        """It always was."""

    def closed(self) -> bool:
        """It always was."""
        return True

    def record_count(self) -> int:
        """How many records it holds."""
        return self._count

    def size(self) -> int:
        """Bytes."""
        return len(self._built)

    def _build(self) -> memoryview:
        if compiled_lines is None:
            raise RuntimeError("what made this batch is not installed")
        built = self._built
        self._pack_head(built)
        end_of_head = bytes(built[_CRC_FROM : _HEADER.size])
        crc = compiled_lines.crc32c_joined(end_of_head, self._crc, len(built) - _HEADER.size)
        _CRC.pack_into(built, _CRC_AT, crc)
        return built


def compiled_batches(
    chunks: Sequence[FileChunk],
    message_bytes: int,
    batch_bytes: int,
    timestamp: int,
    compression: str,
    level: int | None,
    headers: Headers,
    *,
    transactional: bool,
) -> list[CompiledBatch] | None:
    """The lines of these chunks, as `RecordBatch` would hold them; `None` where nothing compiled can do it.

    Works without the interpreter's lock.

    Args:
        chunks: Of one partition, none of them with an overlong line.
        message_bytes: Lines that follow on one another share a record up to this size.
        batch_bytes: Of a batch, before compression.
        timestamp: As of `RecordBatch`; so are `compression`, `level` and `transactional`.
        compression: See there.
        level: See there.
        headers: Of every record.
        transactional: See there.
    """
    compiled = wanted_lines()
    if compiled is None or compression not in _COMPILED:
        return None
    levels = LEVELS.get(compression)
    chosen = level if level is not None else levels.usual if levels is not None else 0
    try:
        made = compiled.record_batches(
            [(chunk.file.id.encode(), chunk.start, chunk.data) for chunk in chunks],
            message_bytes,
            batch_bytes,
            compression,
            chosen,
            _encoded(headers),
            IN_FRONT,
        )
    except RuntimeError as exc:
        log.warning("compiled code could not make batches of these lines, Python does: %s", exc)
        return None
    return [
        CompiledBatch(built, count, crc, timestamp, compression, transactional=transactional)
        for built, count, crc in made
    ]


def _encoded(headers: Headers) -> bytes:
    parts = [_varint(len(headers))]
    for name, value in headers:
        encoded = name.encode()
        parts += (_varint(len(encoded)), encoded, _varint(len(value)), value)
    return b"".join(parts)


def _varint(value: int) -> bytes:
    """A number from 0 on as Kafka writes signed numbers: zigzag, seven bits a byte, the low ones first."""
    rest = value << 1
    if rest < 0x80:
        return _ONE_BYTE[rest]
    found = bytearray()
    while rest >= 0x80:
        found.append(rest & 0x7F | 0x80)
        rest >>= 7
    found.append(rest)
    return bytes(found)


_ONE_BYTE = [bytes([value]) for value in range(0x80)]


class _Plain:
    def __init__(self) -> None:
        self._parts: list[bytes | memoryview] = []

    def add(self, data: bytes | memoryview) -> None:
        self._parts.append(data)

    def finish(self) -> list[bytes | memoryview]:
        return self._parts


class _Snappy:
    """Blocks in the framing of snappy-java, which is what Kafka's clients expect."""

    def __init__(self) -> None:
        self._parts: list[bytes | memoryview] = [_XERIAL]

    def add(self, data: bytes | memoryview) -> None:
        block = bytes(cramjam.snappy.compress_raw(data))
        self._parts += (struct.pack(">i", len(block)), block)

    def finish(self) -> list[bytes | memoryview]:
        return self._parts


class _Gzip:
    def __init__(self, level: int) -> None:
        self._stream = zlib.compressobj(level, wbits=31)
        self._parts: list[bytes | memoryview] = []

    def add(self, data: bytes | memoryview) -> None:
        self._parts.append(self._stream.compress(data))

    def finish(self) -> list[bytes | memoryview]:
        self._parts.append(self._stream.flush())
        return self._parts


class _Cramjam:
    def __init__(self, stream: cramjam.zstd.Compressor | cramjam.lz4.Compressor) -> None:
        self._stream = stream

    def add(self, data: bytes | memoryview) -> None:
        self._stream.compress(bytes(data))

    def finish(self) -> list[bytes | memoryview]:
        return [bytes(self._stream.finish())]


def _compressor(compression: str, level: int | None) -> Compressor:
    if compression == "none":
        return _Plain()
    if compression == "snappy":
        return _Snappy()
    chosen = LEVELS[compression].usual if level is None else level
    if compression == "gzip":
        return _Gzip(chosen)
    if compression == "lz4":
        # Brokers refuse blocks that lean on the one before.
        return _Cramjam(cramjam.lz4.Compressor(level=chosen, content_checksum=False, block_linked=False))
    return _Cramjam(cramjam.zstd.Compressor(level=chosen))
