"""Produce requests whose batches are copied once on their way to the connection.

aiokafka encodes a request from the inside out, and each of the eight layers around a batch of megabytes copies it. Here a request
is encoded into pieces, the batches among them as they are, and these are joined when the connection has put the last one,
its size, in front. A batch that comes alone and has room in front of it is not even copied then.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from aiokafka.protocol.produce import ProduceRequest, ProduceRequest_v3

Piece = bytes | bytearray | memoryview


def gather_requests(client: Any) -> None:
    """From now on this client of aiokafka sends its produce requests in this way."""
    client.send = partial(_send, client.send)


async def _send(send: Callable[..., Awaitable[Any]], node_id: int, request: Any, **options: Any) -> Any:
    return await send(
        node_id, Gathered(request) if isinstance(request, ProduceRequest) else request, **options
    )


class Gathered(ProduceRequest):  # type: ignore[misc]  # aiokafka's types are not followed
    """Another request, encoded into pieces in the versions whose form is known.

    Args:
        request: What to send.
    """

    def __init__(self, request: ProduceRequest) -> None:
        self.__dict__.update(request.__dict__)

    def build(self, request_struct_class: Any) -> Any:
        """What a connection sends to a broker that takes this version."""
        built = super().build(request_struct_class)
        return _Struct(built) if request_struct_class.SCHEMA is ProduceRequest_v3.SCHEMA else built


class _Struct:
    """What aiokafka makes of a request for a connection; all but its encoding is that of the original."""

    def __init__(self, built: Any) -> None:
        self._built = built

    def __getattr__(self, name: str) -> Any:
        return getattr(self._built, name)

    def build_request_header(self, **values: Any) -> _Header:
        return _Header(self._built.build_request_header(**values).encode())

    def encode(self) -> list[Piece]:
        built = self._built
        pieces: list[Piece] = [
            _text(built.transactional_id),
            struct.pack(">hii", built.required_acks, built.timeout, len(built.topics)),
        ]
        for topic, partitions in built.topics:
            pieces += (_text(topic), struct.pack(">i", len(partitions)))
            for partition, batch in partitions:
                pieces += (struct.pack(">ii", partition, len(batch)), batch)
        return pieces


class _Header:
    """A request's header, to which the request is added."""

    def __init__(self, encoded: bytes) -> None:
        self._encoded = encoded

    def encode(self) -> _Header:
        return self

    def __add__(self, pieces: list[Piece]) -> _Message:
        return _Message([self._encoded, *pieces])


class _Message:
    """A request with its header, to which its size is added."""

    def __init__(self, pieces: list[Piece]) -> None:
        self._pieces = pieces

    def __len__(self) -> int:
        return sum(map(len, self._pieces))

    def __radd__(self, size: bytes) -> memoryview:
        # A part of a view is taken without copying it, which transports do with what the system does not take at once.
        *before, last = (size, *self._pieces)
        if isinstance(last, memoryview) and isinstance(last.obj, bytearray):
            head = b"".join(before)
            batch_at = len(last.obj) - len(last)
            if len(head) <= batch_at:
                last.obj[batch_at - len(head) : batch_at] = head
                return memoryview(last.obj)[batch_at - len(head) :]
        return memoryview(b"".join([*before, last]))


def _text(value: str | None) -> bytes:
    if value is None:
        return struct.pack(">h", -1)
    encoded = value.encode()
    return struct.pack(">h", len(encoded)) + encoded
