"""Lines into a local file: one append a line, shared by threads, forks and unrelated processes.

How a line stays whole. The file is open with O_APPEND and every line is one `write`, which Linux performs on
a local file without letting another append in between. When the disk fills up in the middle of a line the
kernel reports a short write. The part that is there is never continued (another process may have appended)
and never cut off (a tailer that sees a file shrink reads it again from its start): the next attempt is a
newline and the *whole* line in one write, so the part becomes a line of its own that readers reject, and
every other line is whole. After any failure for lack of space the next line begins with a newline for the same
reason; an empty line is ignored by readers.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from threading import Lock
from time import monotonic, time

from tailrace.logger import Counters, Event
from tailrace.rotation import Identity, Rotation, beginning, rotate

# O_NONBLOCK means nothing for a regular file; opening or filling a pipe that nobody reads fails instead of waiting.
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EAGAIN, errno.EIO)
_ROTATE_AGAIN_SECONDS = 10.0
"""After a rotation that failed."""


class Held(Enum):
    """What to do about the descriptor, given what the path names now."""

    CURRENT = "it is the file that the path names"
    MOVED = "the path names another file or none: open it again, under the same descriptor number"
    STOLEN = "somebody closed our number, and may have got it for something else: leave it and take another"


def judge(expected: Identity | None, held: Identity | None, named: Identity | None) -> Held:
    """Compare three identities: what we opened, what our descriptor is now, what the path names.

    Example: opened A, holds A, path names A → CURRENT · … path names B or nothing (rotated, deleted) → MOVED ·
    opened A, holds C or nothing (`os.closerange` of a daemon) → STOLEN, whatever the path names.
    """
    if expected is None or held != expected:
        return Held.STOLEN
    return Held.CURRENT if named == expected else Held.MOVED


class AppendFile:
    """A file that lines are appended to; its methods are shared by threads and survive a fork. None raises.

    Args:
        path: The file, absolute. Its directory is made.
        counters: Where everything that goes wrong is counted.
        check_seconds: How often, at the next line, to look whether the path still names the open file, and whether
            the file is to be rotated.
        rotation: When it is.
    """

    def __init__(
        self, path: Path, counters: Counters, check_seconds: float = 0.05, rotation: Rotation | None = None
    ) -> None:
        self.path = path
        self.lines = 0  # handed to the operating system
        self._counters = counters
        self._interval = check_seconds
        self._rotation = rotation or Rotation()
        self._fd = -1
        self._regular = False
        self._opened: Identity | None = None
        self._open_error: OSError | None = None
        self._torn = False
        self._closed = False
        self._check_at = 0.0
        self._rescue_at = 0.0
        self._rotate_at = 0.0
        self._began = 0.0
        self._room = self._rotation.room(0)
        self._lock = Lock()
        self._pid = os.getpid()
        self._start()

    def _start(self) -> None:
        try:
            self._check(monotonic())
        except OSError as exc:
            self._open_error = exc
        if self._open_error is not None:
            self._counters.warn(f"{self.path} cannot be opened yet: {self._open_error}")

    def append(self, line: bytes) -> None:
        """Append one line, which ends in its only newline; a line that is not written is counted."""
        try:
            now = monotonic()
            if now >= self._check_at:
                self._check(now)
            if self._torn:
                self._append_after_tear(line)
                return
            written = os.write(self._fd, line)
            if written == len(line):
                self.lines += 1
                self._room -= written
                if self._room < 0:
                    self._check_at = 0.0
                return
            self._counters.add(Event.SHORT_WRITE)
            self._torn = True
            self._append_after_tear(line)
        except OSError as exc:
            self._rescue(line, exc)
        except Exception as exc:
            self._drop(type(exc).__name__, str(exc))

    def append_block(self, lines: Sequence[bytes]) -> None:
        """Append several lines by one write where that can be done; the same promises hold for each of them."""
        rest = lines
        if len(lines) > 1 and not self._torn:
            try:
                now = monotonic()
                if now >= self._check_at:
                    self._check(now)
                if self._regular:
                    block = b"".join(lines)
                    written = os.write(self._fd, block)
                    self._room -= written
                    if self._room < 0:
                        self._check_at = 0.0
                    if written == len(block):
                        self.lines += len(lines)
                        return
                    rest = self._after_short_block(lines, written)
            except Exception:
                rest = lines  # nothing was written: line by line each finds its fate
        for line in rest:
            self.append(line)

    def _after_short_block(self, lines: Sequence[bytes], written: int) -> Sequence[bytes]:
        """The lines that are not in the file as a whole."""
        self._counters.add(Event.SHORT_WRITE)
        whole = 0
        for line in lines:
            if written < len(line):
                break
            written -= len(line)
            whole += 1
        self._torn = written > 0
        self.lines += whole
        return lines[whole:]

    def close(self) -> None:
        """Let go of the file; lines that come later are counted as dropped. May be called twice."""
        self._closed = True
        if not self._own_lock().acquire(timeout=1):
            return
        try:
            ours = _identity(self._fd) == self._opened
            self._park(Held.MOVED if ours else Held.STOLEN)
        except OSError:
            self._fd = -1
        finally:
            self._lock.release()

    def _append_after_tear(self, line: bytes) -> None:
        whole = b"\n" + line
        if os.write(self._fd, whole) != len(whole):
            raise OSError(errno.ENOSPC, "the file took a part of the line only")
        self._torn = False
        self.lines += 1

    def _rescue(self, line: bytes, exc: OSError) -> None:
        """A write failed: when the descriptor was closed under us, open the file again and write once more."""
        if exc.errno == errno.EBADF and not self._closed:
            try:
                self._reopen(monotonic())
                whole = b"\n" + line if self._torn else line
                if os.write(self._fd, whole) == len(whole):
                    self._torn = False
                    self.lines += 1
                    return
                exc = OSError(errno.ENOSPC, "the file took a part of the line only")
            except OSError as again:
                exc = again
        if self._closed:
            self._drop("closed", "the logger was closed before the line came")
            return
        cause = self._open_error if exc.errno == errno.EBADF and self._open_error else exc
        if exc.errno in _NO_SPACE:
            self._torn = True
        self._drop(errno.errorcode.get(cause.errno or 0, "OSError"), f"{self.path}: {cause}")

    def _drop(self, reason: str, detail: str) -> None:
        self._counters.add(Event.DROPPED, 1, reason, detail)

    def _check(self, now: float) -> None:
        """Make the descriptor name what the path names. Only one thread does so; the others write on."""
        if not self._own_lock().acquire(blocking=False):
            return
        try:
            self._check_at = now + self._interval
            if not self._closed:
                self._follow_path(now)
        finally:
            self._lock.release()

    def _reopen(self, now: float) -> None:
        """Open the file again, or wait for the thread that is doing so; at most once in each interval."""
        # The wait ends in time even for a signal handler that has interrupted the holder of the lock.
        if not self._own_lock().acquire(timeout=0.1):
            return
        try:
            if now >= self._rescue_at:
                self._rescue_at = now + self._interval
                self._follow_path(now)
        finally:
            self._lock.release()

    def _own_lock(self) -> Lock:
        if self._pid != os.getpid():
            # A forked child: the thread that held the lock may not exist here.
            self._lock, self._pid = Lock(), os.getpid()
        return self._lock

    def _follow_path(self, now: float) -> None:
        held = _identity(self._fd)
        named: Identity | None = None
        rotated = False
        try:
            found = self.path.stat()
            named = (found.st_dev, found.st_ino)
        except OSError as exc:
            if exc.errno == errno.EACCES and held is not None and held == self._opened:
                return  # the descriptor works, and nothing says that it is not the file
        verdict = judge(self._opened, held, named)
        if verdict is Held.CURRENT:
            if not self._rotation.active or not self._rotate(found, now):
                return
            verdict, rotated = Held.MOVED, True
        first = self._opened is None
        if verdict is Held.STOLEN:
            self._fd = -1  # whatever happens next, nothing more is written to what the number means now
        try:
            fresh = self._open()
        except OSError as exc:
            self._open_error = exc
            # A renamed file still takes lines, and tailers read it to its end. A deleted one swallows them:
            # then lines must fail, and be counted, until the path can be opened.
            if verdict is Held.STOLEN or os.fstat(self._fd).st_nlink == 0:
                self._park(verdict)
            return
        self._open_error = None
        self._install(fresh, verdict)
        if self._rotation.active:
            self._measure()
        if not first and not rotated:
            self._counters.add(Event.REOPENED)

    def _rotate(self, found: os.stat_result, now: float) -> bool:
        """Put the file aside if it is due. Otherwise: how far is it from being so?"""
        self._room = self._rotation.room(found.st_size)
        wall = time()
        if self._opened is None or now < self._rotate_at:
            return False
        if not self._rotation.due(found.st_size, self._began, wall):
            if found.st_size == 0 and self._rotation.due(1, self._began, wall):
                self._measure()  # empty since an earlier period: it begins with its first line
            return False
        try:
            if rotate(self.path, self._opened, self._rotation, wall):
                self._counters.add(Event.ROTATED)
                return True
            self._measure()
        except OSError as exc:
            self._rotate_at = now + _ROTATE_AGAIN_SECONDS
            self._counters.add(Event.NOT_ROTATED, detail=f"{self.path}: {exc}")
        return False

    def _measure(self) -> None:
        """Learn the size and the beginning of the open file."""
        status = os.fstat(self._fd)
        self._room = self._rotation.room(status.st_size)
        if self._rotation.period and self._opened is not None:
            self._began = beginning(self.path, self._opened, status.st_size, status.st_mtime, time())

    def _open(self) -> int:
        try:
            fd = os.open(self.path, _APPEND, 0o640)
        except FileNotFoundError:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path, _APPEND, 0o640)
        self._torn = _ends_inside_a_line(self.path)
        return fd

    def _install(self, fresh: int, verdict: Held) -> None:
        """Make `fresh` the descriptor that writers use.

        The number stays the same while it is ours: a thread that has read it and is about to write must not
        find it closed, or worse, given to another file.
        """
        status = os.fstat(fresh)
        if verdict is Held.STOLEN:
            self._fd = fresh
        else:
            os.dup2(fresh, self._fd, inheritable=False)
            os.close(fresh)
        self._opened = status.st_dev, status.st_ino
        self._regular = stat.S_ISREG(status.st_mode)

    def _park(self, verdict: Held) -> None:
        """Hold the number with a descriptor that refuses every write."""
        self._install(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), verdict)

    def __del__(self) -> None:
        try:
            if self._fd >= 0 and _identity(self._fd) == self._opened:
                os.close(self._fd)
        except Exception:  # noqa: S110 - at interpreter shutdown anything may be gone
            pass


def _identity(fd: int) -> Identity | None:
    try:
        held = os.fstat(fd)
    except OSError:
        return None
    return held.st_dev, held.st_ino


def _ends_inside_a_line(path: Path) -> bool:
    """Whether an earlier writer left a part of a line, so that ours must begin with a newline.

    While another process is writing this may say yes for a line that is just being written; the newline then
    lands behind that line and makes an empty one.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        size = os.fstat(fd).st_size
        return size > 0 and os.pread(fd, 1, size - 1) not in (b"\n", b"")
    finally:
        os.close(fd)
