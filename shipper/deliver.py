"""Stores batches, and moves progress so that a crash at any moment neither loses a line nor adds one."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from tailrace.schemas.crash import crash_point
from tailrace.schemas.streams import FileChunk, FileRange, Intent, Prepared, Sink
from tailrace.shipper.checkpoint import Checkpoint, Progress
from tailrace.shipper.tail import Step

P = TypeVar("P", bound=Prepared)


class Delivery(Protocol[P]):
    """Where batches go, together with the progress that they make.

    `load` comes first. Then `prepare` may run in a thread while an earlier batch is being delivered;
    `deliver` is called for one batch after the other, in the order in which they were read.
    """

    @property
    def ignore(self) -> tuple[Path, ...]:
        """Files of its own that must not be read as logs."""
        ...

    async def load(self) -> Progress:
        """How far earlier processes got. Takes over from a process that may still run under this identity.

        Raises:
            FatalError: It cannot be known; starting from nothing would deliver everything again.
        """
        ...

    def prepare(self, chunks: Sequence[FileChunk]) -> P:
        """Everything that can be done before anything is sent; does no IO."""
        ...

    async def deliver(self, prepared: P | None, step: Step) -> None:
        """Store the batch and make its step progress; both have happened on return.

        Args:
            prepared: `None` when the step holds no lines.
            step: What is true afterwards.

        Raises:
            FatalError: It was not stored, or that is in doubt; the next process finds out.
        """
        ...

    async def settle(self) -> None:
        """Nothing more is on its way: write down what was put off. Cheap when there is nothing."""
        ...

    async def close(self) -> None:
        """Release connections and locks."""
        ...


def token_of(ranges: Sequence[FileRange]) -> str:
    """The name under which a receiver remembers these ranges: the same ranges always give the same name."""
    return hashlib.blake2b(msgspec.json.encode(ranges), digest_size=16).hexdigest()


class CheckpointedDelivery(Delivery[P]):
    """Progress in a local file, lines in any sink: each line once where the sink drops what it has seen
    (`idempotent`), at least once where it cannot.

    Per batch: save the intent, store, and note the progress. The note is put off to the next batch's intent,
    so that a batch costs one synced write; a crash meanwhile only stores the batch again, under its token.
    A sink that is not idempotent gets its progress saved at once, for the smallest window.

    Args:
        sink: Where lines go.
        checkpoint: Where progress goes.
        connect: Awaited by `load`, for a sink that has to connect before it can prepare.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        sink: Sink[P],
        checkpoint: Checkpoint,
        connect: Callable[[], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._sink = sink
        self._connect = connect
        self._checkpoint = checkpoint
        self._clock = clock
        self._progress = Progress({})
        self._noted = True  # false while progress that was made is only in memory

    @property
    def ignore(self) -> tuple[Path, ...]:
        """The progress file and what lies beside it."""
        return self._checkpoint.files

    async def load(self) -> Progress:
        """Read the progress file, and keep other processes from it."""
        await asyncio.to_thread(self._checkpoint.open)
        progress = await asyncio.to_thread(self._checkpoint.load)
        if self._connect is not None:
            await self._connect()
        if progress.intent is not None and not self._sink.idempotent:
            # It may be stored or not, and storing it again may repeat lines: read on from before it, which
            # is at-least-once, and needs no special care about equal batches.
            progress = Progress(progress.files, lost=progress.lost)
        self._progress = Progress(progress.files, lost=progress.lost)
        return progress

    def prepare(self, chunks: Sequence[FileChunk]) -> P:
        """What the sink makes of them."""
        return self._sink.prepare(chunks)

    async def deliver(self, prepared: P | None, step: Step) -> None:
        """Save the intent with the progress so far, and store."""
        token = step.token or token_of(step.ranges)
        if prepared is not None:
            if self._sink.idempotent:
                # A crash before this: nothing was sent; the ranges are read again like any others.
                crash_point("ship.before-intent")
                await self._save(
                    Progress(
                        self._progress.files,
                        Intent(token, step.ranges, step.announced or self._clock()),
                        step,
                        self._progress.lost,
                    )
                )
                crash_point("ship.after-intent")
            # From here on the ranges may be stored: the next process stores exactly them again first.
            # This holds for an exception too: the intent stays in the file.
            crash_point("ship.before-store")
            if step.token is None:
                await self._sink.store(prepared, token)
            else:
                await self._sink.restore(prepared, token, step.announced)
            crash_point("ship.after-store")
        # They are stored. A crash before the next save stores them again under the same token.
        self._progress = self._progress.after(step)
        self._noted = False
        if not self._sink.idempotent:
            await self.settle()

    async def settle(self) -> None:
        """Save progress that is only in memory; the file then holds no intent."""
        if not self._noted:
            await self._save(self._progress)

    async def close(self) -> None:
        """Settle, and let other processes have the progress file."""
        try:
            await self.settle()
        finally:
            self._checkpoint.close()
            await self._sink.close()

    async def _save(self, progress: Progress) -> None:
        await asyncio.to_thread(self._checkpoint.save, progress)
        self._noted = True
