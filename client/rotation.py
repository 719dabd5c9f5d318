"""When a log file is full or old, and how it is put aside, safely among threads and processes.

    trace.log → trace.log.20261121T080000.123456Z.log

A file is renamed once in its life and never again, unlike `.1 → .2 → .3`, where a file can slip by whoever lists the
directory meanwhile. The new name is found by every usual way to name logs: the directory, `trace.log*` and `*.log`.
Only a tailer that is told nothing but `trace.log` relies on having the file open; give it the directory.

Processes exclude one another by an `flock` on `.trace.log.lock`, look again under it, and never wait for it: who does
not get it writes on, and follows the path like after any rename. Lines that a process writes into the renamed file
until it notices (`check_ms`) are whole and in order there, and tailers read them.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tailrace.schemas.errors import ConfigError

Identity = tuple[int, int]
"""Device and inode."""

LEAST_BYTES = 4096
GRACE_SECONDS = 60.0
"""A rotated file that was written to so recently is not removed: other processes may still append to it, and a tailer
may not have opened it yet."""

_PERIODS = {"hour": 3600, "day": 86400}
_STAMP = r"\d{8}T\d{6}\.\d{6}Z"


@dataclass(frozen=True, slots=True)
class Rotation:
    """When to rotate, and how many old files to keep.

    Args:
        max_bytes: At which size; 0 for no limit.
        period: Seconds; a file holds lines of one period only, which begins at a multiple of it since the epoch
            in UTC. 0 for no limit. The first line of a new period may still go to the old file, for `check_ms`.
        keep: How many rotated files are left; the oldest are **removed, whether anybody has read them or not**. None
            removes nothing.
    """

    max_bytes: int = 0
    period: int = 0
    keep: int | None = None

    @property
    def active(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.max_bytes or self.period)

    def due(self, size: int, began: float, now: float) -> bool:
        """Whether a file of that size that began then is to be rotated. An empty one never is.

        Example: period 3600, began 08:59:59 → due from 09:00:00 on, and so is one that began at 08:00:00.
        """
        if size <= 0:
            return False
        if self.max_bytes and size >= self.max_bytes:
            return True
        return bool(self.period) and now // self.period > began // self.period

    def room(self, size: int) -> int:
        """How many bytes may be written before it is worth asking again; plenty when asking did not help."""
        if not self.max_bytes:
            return 1 << 62
        return self.max_bytes - size if size < self.max_bytes else self.max_bytes


def rotation(max_bytes: int | None, rotate_every: float | str | None, keep: int | None) -> Rotation:
    """The settings as `FileLogger` takes them.

    Raises:
        ConfigError: A value is out of its range, or `keep` is given and nothing rotates.
    """
    if max_bytes is not None and max_bytes < LEAST_BYTES:
        raise ConfigError(f"max_bytes must be at least {LEAST_BYTES}, not {max_bytes!r}")
    if isinstance(rotate_every, str):
        if rotate_every not in _PERIODS:
            raise ConfigError(
                f"rotate_every must be a number of seconds, 'hour' or 'day', not {rotate_every!r}"
            )
        rotate_every = _PERIODS[rotate_every]
    if rotate_every is not None and rotate_every < 1:
        raise ConfigError(f"rotate_every must be at least a second, not {rotate_every!r}")
    found = Rotation(max_bytes or 0, int(rotate_every or 0), keep)
    if keep is not None and keep < 1:
        raise ConfigError(f"keep must be at least 1, not {keep!r}: it counts the rotated files that are left")
    if keep is not None and not found.active:
        raise ConfigError("keep is given, but neither max_bytes nor rotate_every: nothing would be rotated")
    return found


def rotated_name(path: Path, now: float) -> Path:
    """What a log is renamed to at that time; it sorts by time and ends like the log itself."""
    moment = datetime.fromtimestamp(now, UTC)
    return path.with_name(f"{path.name}.{moment:%Y%m%dT%H%M%S.%fZ}{path.suffix}")


def rotated_files(path: Path) -> list[Path]:
    """What was rotated away from a log and is still there, oldest first. Files of any other name are not ours."""
    ours = re.compile(rf"{re.escape(path.name)}\.{_STAMP}{re.escape(path.suffix)}")
    return sorted(path.parent / name for name in os.listdir(path.parent) if ours.fullmatch(name))  # noqa: PTH208


def rotate(path: Path, held: Identity, settings: Rotation, now: float) -> bool:
    """Put the file at a path aside, if it is the one that the caller holds and it is due.

    Returns:
        Whether it was renamed by this call. Otherwise another process is at it, or has done it.

    Raises:
        OSError: The lock file cannot be opened, or the file not be renamed.
    """
    try:
        # A symbolic link stays what it is; the file that it leads to is renamed.
        return _rotate(path.resolve(), held, settings, now)
    except FileNotFoundError:
        return False  # renamed a moment ago, and nobody has made the next one yet


def _rotate(path: Path, held: Identity, settings: Rotation, now: float) -> bool:
    with _locked(path) as lock:
        if lock is None:
            return False
        found = path.stat()
        began = _noted(lock, held)
        if (found.st_dev, found.st_ino) != held or not settings.due(
            found.st_size, found.st_mtime if began is None else began, now
        ):
            return False
        path.rename(_free_name(path, now))
        # A crash here leaves no file at the path: whoever writes next makes it.
        if settings.keep is not None:
            _remove_oldest(path, settings.keep, now)
        return True


def beginning(path: Path, held: Identity, size: int, modified: float, now: float) -> float:
    """When the file at a path began, as all processes agree: noted beside it by the first that asks.

    Args:
        path: The log.
        held: The file.
        size: Its size now; one that is empty begins now.
        modified: Its time of modification: the best guess for one that was there before anybody noted it.
        now: Seconds since the epoch, as everywhere here.
    """
    guess = now if size == 0 else min(modified, now)
    with suppress(OSError), _locked(path.resolve()) as lock:
        if lock is not None:
            noted = _noted(lock, held)
            if noted is not None and size:
                return noted
            # Torn by a crash it reads as nothing, and the next one guesses again.
            os.pwrite(lock, f"{held[0]} {held[1]} {guess:.6f}\n".encode().ljust(80), 0)
    return guess


@contextmanager
def _locked(path: Path) -> Iterator[int | None]:
    """The descriptor of the lock file beside a log, locked; None when another holds it."""
    lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        try:
            yield lock
        finally:
            # Closing is not enough: a process that was forked meanwhile has the descriptor too.
            fcntl.flock(lock, fcntl.LOCK_UN)
    finally:
        os.close(lock)


def _noted(lock: int, held: Identity) -> float | None:
    try:
        device, inode, began = os.pread(lock, 200, 0).split()
        return float(began) if (int(device), int(inode)) == held else None
    except ValueError:
        return None


def _free_name(path: Path, now: float) -> Path:
    """A name that no file has. Only holders of the lock make such names, so it stays free."""
    moment = datetime.fromtimestamp(now, UTC)
    while os.path.lexists(name := rotated_name(path, moment.timestamp())):
        moment += timedelta(microseconds=1)
    return name


def _remove_oldest(path: Path, keep: int, now: float) -> None:
    for old in rotated_files(path)[:-keep]:
        with suppress(OSError):  # what may not be removed stays until the next rotation
            if now - old.stat().st_mtime >= GRACE_SECONDS:
                old.unlink()
