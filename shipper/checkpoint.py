"""Progress in one local file: where every file was read to, and what was about to be stored."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import msgspec

from tailrace.schemas.crash import crash_point
from tailrace.schemas.errors import CheckpointError
from tailrace.schemas.streams import Intent
from tailrace.shipper.identity import FileState
from tailrace.shipper.tail import Loss, Step

VERSION = 1
FILE_MODE = 0o640
"""Progress tells which logs there are, and where."""


class Progress(msgspec.Struct, frozen=True):
    """What a shipper knows about its past.

    Args:
        files: By id, how far each file is acknowledged.
        intent: `None`, or what was about to be stored when the process ended: it may be stored or not.
        intended: With an intent: what is true once it is stored.
        lost: Bytes that were lost for sure, by cause (`tail.Loss`), since progress is kept.
    """

    files: dict[str, FileState]
    intent: Intent | None = None
    intended: Step | None = None
    lost: dict[str, int] = {}

    def after(self, step: Step) -> Progress:
        """Progress once the step's batch is stored; it holds no intent any more."""
        files = {**self.files, **{state.id: state for state in step.files}}
        for file_id in step.forgotten:
            files.pop(file_id, None)
        return Progress(files, lost=add_losses(self.lost, step.lost))


def add_losses(before: Mapping[str, int], more: Mapping[Loss, int]) -> dict[str, int]:
    """The sum, by cause."""
    return dict(Counter(before) + Counter({str(cause): count for cause, count in more.items()}))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, FILE_MODE)


class _Document(msgspec.Struct, frozen=True):
    version: int
    files: list[FileState]
    intent: Intent | None = None
    intended: Step | None = None
    lost: dict[str, int] = {}


class _Version(msgspec.Struct):
    version: int


class Checkpoint:
    """Reads and writes `Progress` in a file. One process at a time holds it, by a lock beside it.

    Args:
        path: Of the file; its directory is made when it is absent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that this may write: no tailer should read them."""
        return (self.path, self._half, self._lock_path)

    def open(self) -> Self:
        """Take the lock; it is released by `close`, or by the end of the process, however it ends.

        Raises:
            CheckpointError: Another process has it, or the directory cannot be written.
        """
        try:
            self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        except OSError as exc:
            raise CheckpointError(f"progress cannot be kept in {self.path}: {exc.strerror}") from exc
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(lock)
            raise CheckpointError(
                f"another process keeps its progress in {self.path}: stop it, or name another file"
            ) from exc
        self._lock = lock
        return self

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def load(self) -> Progress:
        """What was saved last; nothing when there is no file.

        Raises:
            CheckpointError: The file cannot be read, or another version of the program wrote it. Starting
                anew would deliver everything again, so this is never done silently.
        """
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            return Progress({})
        except OSError as exc:
            raise CheckpointError(f"progress in {self.path} cannot be read: {exc.strerror}") from exc
        try:
            version = msgspec.json.decode(raw, type=_Version).version
            if version != VERSION:
                raise CheckpointError(
                    f"progress in {self.path} has version {version}, and this program reads {VERSION}: "
                    "use the version that wrote it"
                )
            document = msgspec.json.decode(raw, type=_Document)
        except msgspec.DecodeError as exc:
            raise CheckpointError(
                f"progress in {self.path} is damaged ({exc}): restore it, or remove it to deliver everything again"
            ) from exc
        return Progress({s.id: s for s in document.files}, document.intent, document.intended, document.lost)

    def save(self, progress: Progress) -> None:
        """Replace what was saved; on return it has reached the disk.

        Raises:
            CheckpointError: It could not be written (disk full, no permission). What was saved before is
                still there.
        """
        files = list(progress.files.values())
        document = _Document(VERSION, files, progress.intent, progress.intended, progress.lost)
        raw = msgspec.json.encode(document)
        try:
            # A crash up to here, or in the next three lines, leaves the old file, and perhaps a half written
            # one beside it that the next save overwrites.
            crash_point("ship.before-checkpoint")
            with open(self._half, "wb", opener=_private) as half:
                half.write(raw)
                half.flush()
                crash_point("ship.amid-checkpoint")
                os.fsync(half.fileno())
            # A crash around here leaves the old file or the new one, each whole.
            self._half.replace(self.path)
            crash_point("ship.after-checkpoint")
            # Without this a power failure could still bring the old name back.
            directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as exc:
            with contextlib.suppress(OSError):
                self._half.unlink(missing_ok=True)
            raise CheckpointError(f"progress cannot be saved in {self.path}: {exc.strerror}") from exc

    @property
    def _half(self) -> Path:
        return self.path.with_name(f"{self.path.name}.tmp")

    @property
    def _lock_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.lock")
