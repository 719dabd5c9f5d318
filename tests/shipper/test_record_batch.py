"""Record batches as another reader sees them: aiokafka's own decoder."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from aiokafka.record.default_records import DefaultRecordBatch
from hypothesis import given
from hypothesis import strategies as st

from tailrace.shipper.levels import LEVELS
from tailrace.shipper.record_batch import GATHERED_BYTES, RecordBatch
from tailrace.shipper.settings import Compression

MOMENT = 1_795_000_000_123
# Lengths around those at which a varint grows, and at which a value is compressed by itself.
sizes = st.sampled_from([0, 1, 63, 64, 8191, 8192, GATHERED_BYTES - 1, GATHERED_BYTES])
values = st.one_of(st.binary(max_size=300), sizes.map(lambda size: (b"a line of a log\n" * 1025)[:size]))
headers = st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=200)), max_size=2)
records = st.lists(st.tuples(st.binary(max_size=70), values, headers), min_size=1, max_size=70)
codecs = st.sampled_from(get_args(Compression))


def read(batch: RecordBatch) -> Any:
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
