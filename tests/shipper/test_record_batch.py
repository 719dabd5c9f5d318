"""Record batches as another reader sees them: aiokafka's own decoder."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast, get_args

import pytest
from aiokafka.record.default_records import DefaultRecordBatch
from hypothesis import given
from hypothesis import strategies as st

from tailrace.schemas.compiled_lines import compiled_lines
from tailrace.schemas.kafka import KafkaConnection
from tailrace.schemas.spans import Spans
from tailrace.schemas.streams import BytePosition, FileChunk, FileRef
from tailrace.shipper.levels import LEVELS
from tailrace.shipper.produce import SMALLEST_BATCH_BYTES, KafkaWriter
from tailrace.shipper.record_batch import GATHERED_BYTES, RecordBatch, SentBatch, compiled_batches
from tailrace.shipper.settings import Compression, KafkaSettings

MOMENT = 1_795_000_000_123
# Lengths around those at which a varint grows, and at which a value is compressed by itself.
sizes = st.sampled_from([0, 1, 63, 64, 8191, 8192, GATHERED_BYTES - 1, GATHERED_BYTES])
values = st.one_of(st.binary(max_size=300), sizes.map(lambda size: (b"a line of a log\n" * 1025)[:size]))
headers = st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=200)), max_size=2)
records = st.lists(st.tuples(st.binary(max_size=70), values, headers), min_size=1, max_size=70)
codecs = st.sampled_from(get_args(Compression))


def read(batch: SentBatch) -> Any:
    found = DefaultRecordBatch(bytes(batch._build()))
    assert found.validate_crc()
    return found


@given(records, codecs, st.booleans())
def test_what_is_appended_is_read(
    given: list[tuple[bytes, bytes, list[tuple[str, bytes]]]], codec: str, transactional: bool
) -> None:
    """Keys, values, headers, order and time come back; the checksum holds; the producer's state is the one set last, so that
    a batch can be sent again by another producer."""
    batch = RecordBatch(10**9, MOMENT, codec, transactional=transactional)
    assert all(batch.append(*record) for record in given)
    for state in ((7, 1, 0), (2**40, 3, 2**31 - 1)):
        batch._set_producer_state(*state)
        found = read(batch)
        assert (found.producer_id, found.producer_epoch, found.base_sequence) == state
        assert found.is_transactional == transactional
        assert batch.closed() and batch.record_count() == len(given) and batch.size() == len(batch._build())
        assert [(r.offset, r.timestamp, r.key, r.value, [*r.headers]) for r in found] == [
            (number, MOMENT, *record) for number, record in enumerate(given)
        ]


@given(records, st.integers(0, 20_000))
def test_it_is_full_at_its_size(given: list[tuple[bytes, bytes, list[tuple[str, bytes]]]], most: int) -> None:
    """Uncompressed it is never longer than was said, unless its first record alone is; what did not go in is not in it, and
    nothing goes in when it is closed."""
    batch = RecordBatch(most, MOMENT, "none", transactional=False)
    taken = [record for record in given if batch.append(*record)]
    batch.close()
    assert not batch.append(b"k", b"v")
    assert taken[0] == given[0] and [r.value for r in read(batch)] == [value for _, value, _ in taken]
    assert len(batch._build()) <= most or len(taken) == 1


@pytest.mark.parametrize(
    ("codec", "level"), [(codec, level) for codec, (_, levels) in LEVELS.items() for level in levels]
)
def test_every_level_that_is_allowed(codec: str, level: int) -> None:
    """The libraries take it, and it is another one than its neighbour only in speed and size."""
    batch = RecordBatch(10**6, MOMENT, codec, level, transactional=True)
    assert batch.append(b"key", b"a line\n" * 10_000)
    assert [r.value for r in read(batch)] == [b"a line\n" * 10_000]
    assert batch.size() < 10_000


texts = st.lists(
    st.one_of(
        st.sampled_from(
            [b"", b" ", b"\t\r\x0b\x0c", b"\x1c", b"\xc2\xa0", b"a", b"a line of a log", b"x" * 150]
        ),
        st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")),
    ),
    min_size=1,
    max_size=40,
)


@st.composite
def chunks_of_files(draw: st.DrawFn) -> list[FileChunk]:
    """Whole lines of a few files, the last ones perhaps without their line feed."""
    found = []
    for number in range(draw(st.integers(1, 3))):
        data = b"".join(line + b"\n" for line in draw(texts))
        data = data[: len(data) - draw(st.integers(0, 1))] or b"\n"
        start = draw(st.sampled_from([0, 9, 10, 2**31, 2**53]))
        file = FileRef(f"{number:x}" * draw(st.integers(1, 16)), "app.log")
        found.append(FileChunk(file, BytePosition(start), BytePosition(start + len(data)), data))
    return found


@given(
    chunks_of_files(),
    st.sampled_from([0, 1, 20, 200, 10**6]),
    st.sampled_from([SMALLEST_BATCH_BYTES, 300, 10**6]),
    codecs,
    headers,
)
def test_compiled_batches_are_those_of_python(
    chunks: list[FileChunk],
    message_bytes: int,
    batch_bytes: int,
    codec: Compression,
    trace: list[tuple[str, bytes]],
) -> None:
    """However files, lines and blank lines lie, and wherever batches end: the same records are in the same batches, as another
    reader sees them, and uncompressed they are the same bytes."""
    settings = KafkaSettings(
        KafkaConnection(brokers="127.0.0.1:1"), message_bytes=message_bytes, compression=codec
    )
    writer = KafkaWriter(settings, 10**6, "shipper", cast(Spans, SimpleNamespace(headers=lambda: trace)))
    writer._batch_bytes = batch_bytes
    compiled = writer._compiled(chunks, MOMENT)
    if compiled is None:
        assert codec in ("gzip", "lz4") or compiled_lines is None
        return
    python = [batch for batch in writer._batches(chunks, MOMENT) if batch.record_count()]
    for one, other in zip(python, compiled, strict=True):
        assert other.closed() and other.record_count() == one.record_count()
        for state in ((7, 1, 0), (2**40, 3, 2**31 - 1)):
            for batch in (one, other):
                batch._set_producer_state(*state)
            wanted, found = read(one), read(other)
            for field in (
                "producer_id",
                "producer_epoch",
                "base_sequence",
                "is_transactional",
                "compression_type",
            ):
                assert getattr(found, field) == getattr(wanted, field)
            assert [(r.offset, r.timestamp, r.key, r.value, r.headers) for r in found] == [
                (r.offset, r.timestamp, r.key, r.value, r.headers) for r in wanted
            ]
            assert other.size() == len(other._build())
            assert codec != "none" or one._build() == other._build()


@pytest.mark.skipif(compiled_lines is None, reason="nothing is compiled here")
def test_a_compiled_batch_of_megabytes() -> None:
    """Blocks, and records longer than a batch, go through: what comes out is what went in, whatever the codec."""
    data = (
        b"".join(b"%d: a line of a log, and what it says\n" % number for number in range(60_000))
        + b"x" * 3_000_000
    )
    chunk = FileChunk(FileRef("f", "app.log"), BytePosition(5), BytePosition(5 + len(data)), data)
    for codec, level in [*((codec, None) for codec in get_args(Compression)), ("zstd", -7), ("zstd", 3)]:
        made = compiled_batches(
            [chunk], 1 << 16, 1_000_000, MOMENT, codec, level, [("h", b"v")], transactional=True
        )
        if codec in ("gzip", "lz4"):
            assert made is None
            continue
        assert made is not None and len(made) == 4
        records = [record for batch in made for record in read(batch)]
        assert b"\n".join(record.value for record in records) == data
        assert [record.key for record in records][:2] == [b"f@5", b"f@%d" % (5 + len(records[0].value) + 1)]
        assert all([*record.headers] == [("h", b"v")] for record in records)
