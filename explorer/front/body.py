"""Receiving a request: the statement is read from the first bytes, an INSERT's data go to a temporary file.

The file has no name: it is gone when it is closed, also after a crash. Nothing is executed before the last byte is
here, so a request that breaks off inserts nothing.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

import msgspec

from tailrace.explorer.front.codecs import Decoder, decoder, too_large
from tailrace.explorer.front.refusal import Refusal
from tailrace.explorer.front.statement import Statement, StatementKind, parse

HEAD_BYTES = 256 << 10
"""How much of a request is looked at to find its statement: ClickHouse's own `max_query_size`."""
_STEP_BYTES = 1 << 20


class Upload(msgspec.Struct, frozen=True):
    """The data of an INSERT.

    Args:
        file: Holds them, and nothing else. Whoever has the upload closes it.
        small: The same data, where they are not longer than `HEAD_BYTES`; `None` otherwise.
    """

    file: IO[bytes]
    small: bytes | None

    @property
    def path(self) -> str:
        """A path under which the engine, in this process, can open the file; it holds no character that needs quoting."""
        return f"/proc/self/fd/{self.file.fileno()}"


async def receive(
    pieces: AsyncIterator[bytes], coding: str, query: bytes, default_format: str, spool: Path, limit: int
) -> tuple[Statement, Upload | None]:
    """Read a whole request body.

    Args:
        pieces: The body as it arrives.
        coding: Its Content-Encoding.
        query: What the URL holds; the body follows it on a new line.
        default_format: For an INSERT that names no format.
        spool: Directory for temporary files.
        limit: Most bytes that the body may unpack to.

    Raises:
        Refusal: No statement, a malformed one, or too large a body.
    """
    unpacked = _unpack(pieces, decoder(coding), limit)
    text = bytearray(query.rstrip() + b"\n" if query.strip() else b"")
    complete = False
    while len(text) <= HEAD_BYTES:
        piece = await anext(unpacked, None)
        if piece is None:
            complete = True
            break
        text += piece
    statement = await asyncio.to_thread(parse, bytes(text), default_format)
    if statement.kind is not StatementKind.INSERT_DATA:
        if not complete:
            raise Refusal(62, f"Syntax error: the statement is longer than {HEAD_BYTES} bytes")
        return statement, None
    if not complete and statement.data_at >= len(text):
        raise Refusal(62, f"Syntax error: no FORMAT or VALUES within the first {HEAD_BYTES} bytes")
    data = bytes(text[statement.data_at :])
    # Made here and not in a thread, where a cancellation could lose it; it holds nothing yet.
    file: IO[bytes] = tempfile.TemporaryFile(dir=spool)  # noqa: SIM115 - it is handed on
    try:
        await asyncio.to_thread(file.write, data)
        if not complete:
            async for piece in unpacked:
                await asyncio.to_thread(file.write, piece)
        await asyncio.to_thread(file.flush)
    except BaseException:
        file.close()
        raise
    return statement, Upload(file, data if complete else None)


async def _unpack(pieces: AsyncIterator[bytes], unpacker: Decoder, limit: int) -> AsyncIterator[bytes]:
    """The body in plain, in pieces of about a megabyte, so that a thread is worth asking."""
    total = 0
    waiting = bytearray()
    async for piece in pieces:
        waiting += piece
        if len(waiting) >= _STEP_BYTES:
            plain = await asyncio.to_thread(unpacker.decode, bytes(waiting), limit - total)
            waiting.clear()
            total += len(plain)
            yield plain
    plain = await asyncio.to_thread(unpacker.decode, bytes(waiting), limit - total) if waiting else b""
    total += len(plain)
    if plain:
        yield plain
    rest = await asyncio.to_thread(unpacker.finish, limit - total)
    if total + len(rest) > limit:
        raise too_large()
    if rest:
        yield rest
