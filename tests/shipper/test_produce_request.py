"""Requests that are gathered from pieces, beside those of aiokafka."""

from __future__ import annotations

import struct

from aiokafka.protocol.produce import ProduceRequest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.shipper.produce_request import Gathered


def behind(room: int, batch: bytes) -> memoryview:
    """A batch with so many bytes in front of it."""
    return memoryview(bytearray(room) + batch)[room:]


batches = st.binary(max_size=300).map(bytearray) | st.builds(
    behind, st.sampled_from([0, 1, 20, 40, 60, 500]), st.binary(max_size=300)
)
topics = st.lists(st.tuples(st.text(max_size=5), st.lists(st.tuples(st.integers(0, 2**31 - 1), batches))))


@given(st.none() | st.text(max_size=5), topics, st.integers(1, 9), st.text(max_size=5))
def test_it_is_the_request_of_aiokafka(
    transactional_id: str | None,
    topics: list[tuple[str, list[tuple[int, bytearray | memoryview]]]],
    newest: int,
    client_id: str,
) -> None:
    """Byte by byte, for every version that a broker may know, however many topics and partitions there are in it, and whether
    or not a batch has room in front of it for what comes before it."""
    if newest < 3:
        transactional_id = None  # there was none yet
    request = ProduceRequest(transactional_id, -1, 30_000, topics)  # type: ignore[arg-type]
    messages = []
    for each in (request, Gathered(request)):
        # As a connection does it.
        prepared = each.prepare({0: (0, newest)})
        header = prepared.build_request_header(correlation_id=7, client_id=client_id)
        message = header.encode() + prepared.encode()
        messages.append(bytes(struct.pack(">i", len(message)) + message))
        assert (prepared.API_KEY, prepared.RESPONSE_TYPE) == (
            0,
            request.prepare({0: (0, newest)}).RESPONSE_TYPE,
        )
    assert messages[0] == messages[1]
