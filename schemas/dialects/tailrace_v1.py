"""tailrace v1: see `tailrace.schemas.records`."""

from __future__ import annotations

import msgspec

from tailrace.schemas.records import AnyRecord, Record

PREFIX = b'{"v":1,"kind":'
"""How every line of our client begins; other writers may order the keys as they like."""


class TailraceV1:
    """Decodes a tailrace v1 line."""

    name = "tailrace"

    def __init__(self) -> None:
        self._decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(AnyRecord)

    def decode(self, line: bytes) -> Record:
        """Raises `msgspec.MsgspecError`, `UnicodeDecodeError` or `RecursionError`."""
        return self._decoder.decode(line)

    def decode_all(self, block: bytes) -> list[Record]:
        """The same of every value in a block."""
        return self._decoder.decode_lines(block)

    def convert(self, document: dict[str, object]) -> Record:
        """The same from a line that was parsed already, its raw fields as `msgspec.Raw`."""
        record: Record = msgspec.convert(document, AnyRecord)
        return record
