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
from enum import Enum
from pathlib import Path
from threading import Lock
from time import monotonic

from tailrace.logger import Counters, Event, LoggerStats
from tailrace.schemas.errors import ConfigError

Identity = tuple[int, int]
"""Device and inode."""

# O_NONBLOCK means nothing for a regular file; opening or filling a pipe that nobody reads fails instead of waiting.
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EAGAIN, errno.EIO)


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


class FileLogger:
    """Appends lines to a file, for production: what `Trace` takes as its logger.

    Parent directories are made. A file that is renamed (rotation), deleted, or truncated by others is noticed
    within `check_ms` at the next line, and the path is opened again; lines of that short time are in the
    renamed file. Nothing is buffered in the process. A stalled disk stalls the caller as any `write` does.

    Args:
        path: The file; several processes may name the same one.
        project_id: The project that every line names.
        check_ms: How often, in milliseconds, to look whether the path still names the open file (two system
            calls, on the next line that is written).

    Raises:
        ConfigError: `project_id` is not a non-empty string, or `path` is a directory. Everything that can go
            wrong later, a missing permission included, is counted and tried again.
    """

    def __init__(self, path: str | os.PathLike[str], project_id: str, *, check_ms: int = 50) -> None:
        if not isinstance(project_id, str) or not project_id:
            raise ConfigError(f"project_id must be a non-empty string, not {project_id!r}")
        self._path = Path(os.path.abspath(os.fspath(path)))  # noqa: PTH100 - resolve() would follow a symlink
        if self._path.is_dir():
            raise ConfigError(
                f"{self._path} is a directory: name a file in it, such as {self._path}/trace.log"
            )
        self._project_id = project_id
        self._interval = check_ms / 1000
        self._counters = Counters()
        self._lines = 0
        self._fd = -1
        self._opened: Identity | None = None
        self._open_error: OSError | None = None
        self._torn = False
        self._closed = False
        self._check_at = 0.0
        self._rescue_at = 0.0
        self._lock = Lock()
        self._pid = os.getpid()
        self._start()

    def _start(self) -> None:
        try:
            self._check(monotonic())
        except OSError as exc:
            self._open_error = exc
        if self._open_error is not None:
            self._counters.warn(f"{self._path} cannot be opened yet: {self._open_error}")

    @property
    def project_id(self) -> str:
        """The project that every line names."""
        return self._project_id

    @property
    def path(self) -> Path:
        """The file that lines are appended to."""
        return self._path

    def write(self, line: bytes) -> None:
        """Append one line, which ends in its only newline. Never raises; a line that is not written is counted."""
        try:
            now = monotonic()
            if now >= self._check_at:
                self._check(now)
            if self._torn:
                self._append_after_tear(line)
                return
            if os.write(self._fd, line) == len(line):
                self._lines += 1
                return
            self._counters.add(Event.SHORT_WRITE)
            self._torn = True
            self._append_after_tear(line)
        except OSError as exc:
            self._rescue(line, exc)
        except Exception as exc:
            self._drop(type(exc).__name__, str(exc))

    def count(self, event: Event, number: int = 1, reason: str = "", detail: str = "") -> None:
        """Count what the caller of `write` had to drop, alter or leave out."""
        self._counters.add(event, number, reason, detail)

    def stats(self) -> LoggerStats:
        """What was written and what was not, so far, in this process."""
        return self._counters.snapshot(self._lines)

    def flush(self) -> None:
        """Nothing to do: every line is with the operating system when `write` returns."""

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
        self._lines += 1

    def _rescue(self, line: bytes, exc: OSError) -> None:
        """A write failed: when the descriptor was closed under us, open the file again and write once more."""
        if exc.errno == errno.EBADF and not self._closed:
            try:
                self._reopen(monotonic())
                whole = b"\n" + line if self._torn else line
                if os.write(self._fd, whole) == len(whole):
                    self._torn = False
                    self._lines += 1
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
        self._drop(errno.errorcode.get(cause.errno or 0, "OSError"), f"{self._path}: {cause}")

    def _drop(self, reason: str, detail: str) -> None:
        self._counters.add(Event.DROPPED, 1, reason, detail)

    def _check(self, now: float) -> None:
        """Make the descriptor name what the path names. Only one thread does so; the others write on."""
        if not self._own_lock().acquire(blocking=False):
            return
        try:
            self._check_at = now + self._interval
            if not self._closed:
                self._follow_path()
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
                self._follow_path()
        finally:
            self._lock.release()

    def _own_lock(self) -> Lock:
        if self._pid != os.getpid():
            # A forked child: the thread that held the lock may not exist here.
            self._lock, self._pid = Lock(), os.getpid()
        return self._lock

    def _follow_path(self) -> None:
        held = _identity(self._fd)
        try:
            found = self._path.stat()
            named: Identity | None = (found.st_dev, found.st_ino)
        except OSError as exc:
            if exc.errno == errno.EACCES and held is not None and held == self._opened:
                return  # the descriptor works, and nothing says that it is not the file
            named = None
        verdict = judge(self._opened, held, named)
        if verdict is Held.CURRENT:
            return
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
        if not first:
            self._counters.add(Event.REOPENED)

    def _open(self) -> int:
        try:
            fd = os.open(self._path, _APPEND, 0o640)
        except FileNotFoundError:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self._path, _APPEND, 0o640)
        self._torn = _ends_inside_a_line(self._path)
        return fd

    def _install(self, fresh: int, verdict: Held) -> None:
        """Make `fresh` the descriptor that writers use.

        The number stays the same while it is ours: a thread that has read it and is about to write must not
        find it closed, or worse, given to another file.
        """
        identity = _identity(fresh)
        if verdict is Held.STOLEN:
            self._fd = fresh
        else:
            os.dup2(fresh, self._fd, inheritable=False)
            os.close(fresh)
        self._opened = identity

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
