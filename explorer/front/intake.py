"""Lines that services send by HTTP: onto the disk, into a log file that the process behind this front tails.

A request is answered when its lines are durable, so from there on they have the same promises as the lines of any
other log file. While it is unanswered they may be in the file or not; the sender tries again, and equal lines are
one row.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

from tailrace.explorer.front.codecs import decoder, too_large
from tailrace.explorer.front.refusal import Refusal

FOLDER = "tailrace-intake"
"""In the engine's directory: what is to be tailed."""
_LOG = "lines.log"
_MAX_BODY_BYTES = 32 << 20
_MAX_KEYS = 10_000
_ROLL_BYTES = 64 << 20


class Intake:
    """Appends lines to a file in a folder. One a folder, in one process.

    Args:
        folder: Made when lines come; whoever tails it takes all files in it.
        roll_bytes: When a file has so many bytes, the next one is begun.
        max_body_bytes: Of one request, unpacked.
    """

    def __init__(
        self, folder: Path, roll_bytes: int = _ROLL_BYTES, max_body_bytes: int = _MAX_BODY_BYTES
    ) -> None:
        self._folder = folder
        self._roll_bytes = roll_bytes
        self._max_body_bytes = max_body_bytes
        self._turn = asyncio.Lock()
        self._known: OrderedDict[str, int] = OrderedDict()
        self._under_way: set[asyncio.Task[int]] = set()

    @property
    def folder(self) -> Path:
        """What is to be tailed."""
        return self._folder

    async def take(self, pieces: AsyncIterator[bytes], coding: str, key: str) -> int:
        """Receive a request's body and make its lines durable.

        Args:
            pieces: The body as it arrives: lines, the last one with or without a newline; blank ones do not count.
            coding: Its Content-Encoding.
            key: The same for every attempt to send these lines; empty for none.

        Returns:
            How many lines there are on the disk now, or were already under this key.

        Raises:
            Refusal: The body is too large or cannot be unpacked, or the disk takes no more.
        """
        lines = await self._lines(pieces, coding)
        # A sender that goes away does not stop the work: under its key it may ask again how it went.
        work = asyncio.create_task(self._keep(lines, key))
        self._under_way.add(work)
        work.add_done_callback(self._under_way.discard)
        return await asyncio.shield(work)

    async def settle(self) -> None:
        """Wait for what is being written."""
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def discard(self, is_stored: Callable[[Path], bool]) -> None:
        """Remove the files of which every line is stored. Before anything is taken, or it might be removed too.

        Args:
            is_stored: Whether the tailer of the folder has had every byte of a file acknowledged.
        """
        for path in self._folder.glob("*.log"):
            if is_stored(path):
                path.unlink()

    async def _lines(self, pieces: AsyncIterator[bytes], coding: str) -> list[bytes]:
        packed = bytearray()
        async for piece in pieces:
            packed += piece
            if len(packed) > self._max_body_bytes:
                raise too_large()
        return await asyncio.to_thread(self._split, bytes(packed), coding)

    def _split(self, packed: bytes, coding: str) -> list[bytes]:
        unpacker = decoder(coding)
        body = unpacker.decode(packed, self._max_body_bytes)
        body += unpacker.finish(self._max_body_bytes - len(body))
        return [line for line in body.split(b"\n") if line and not line.isspace()]

    async def _keep(self, lines: list[bytes], key: str) -> int:
        async with self._turn:
            if key and key in self._known:
                return self._known[key]
            if lines:
                await asyncio.to_thread(self._append, b"\n".join(lines) + b"\n")
            if key:
                self._known[key] = len(lines)
                if len(self._known) > _MAX_KEYS:
                    self._known.popitem(last=False)
            return len(lines)

    def _append(self, block: bytes) -> None:
        path = self._folder / _LOG
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                size = os.fstat(descriptor).st_size
                if size and os.pread(descriptor, 1, size - 1) != b"\n":
                    # A crash or a full disk left a part of a line; its sender was told no, and sends it again.
                    block = b"\n" + block
                written = os.write(descriptor, block)
                if written != len(block):
                    raise Refusal(243, f"{path}: the disk is full", 507)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if size == 0:
                _sync_folder(self._folder)
            if size + written >= self._roll_bytes:
                # The tailer follows the file under its new name; a crash here leaves it under the old one.
                path.rename(path.with_name(f"{_LOG}.{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.log"))
                _sync_folder(self._folder)
        except OSError as exc:
            raise Refusal(243, f"{path}: {exc.strerror or exc}", 507) from exc


def _sync_folder(folder: Path) -> None:
    """Without this a power failure could take the file's name, or bring the old one back."""
    for each in (folder, folder.parent):
        descriptor = os.open(each, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
