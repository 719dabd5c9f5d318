"""The logger for production: lines into a local file, written by the caller or by a thread of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tailrace.append import AppendFile
from tailrace.logger import Counters, Event, LoggerStats
from tailrace.open_events import mark_open_events
from tailrace.policy import Oversized, Policy, Redact
from tailrace.rotation import rotation
from tailrace.schemas.errors import ConfigError

if TYPE_CHECKING:
    from tailrace.background import BackgroundWriter


class FileLogger:
    """Appends lines to a file, for production: what `Trace` takes as its logger.

    Parent directories are made. A file that is renamed (rotation), deleted, or truncated by others is noticed
    within `check_ms` at the next line, and the path is opened again; lines of that short time are in the
    renamed file.

    Unless `queue_lines` says otherwise nothing is buffered in the process, so no crash of it loses a line, and a
    stalled disk stalls the caller as any `write` does. With a queue the caller never waits: a line that finds the
    queue full is dropped and counted (`queue full`), and a process that is killed loses what is queued. The queue
    is drained by `flush`, by `close` and at exit, `multiprocessing` children included; a child that ends by
    `os._exit` calls `flush` before.

    Args:
        path: The file; several processes may name the same one.
        project_id: The project that every line names.
        check_ms: How often, in milliseconds, to look whether the path still names the open file (two system
            calls, on the next line that is written).
        max_bytes: Rotate the file when it has so many bytes, or a little more. Where several processes share a file,
            all of them should be given the same rotation.
        rotate_every: Rotate it at every multiple of so many seconds (UTC), or every `"hour"` or `"day"`, with the
            first line that comes then.
        keep: How many rotated files are kept. None keeps all. Any number **removes the oldest whether they have been
            shipped or not**: choose it by how long a shipper may be away. A file that was written to in the last
            minute is never removed, however many there are, and neither are objects that were spilled beside the log.
        queue_lines: Leave writing to a thread, behind a queue of so many lines (and one more for each thread that
            logs at the same moment); 0 for none.
        sample_rate: As for `Policy`.
        redact: As for `Policy`.
        max_object_bytes: As for `Policy`.
        oversized: As for `Policy`.

    Raises:
        ConfigError: `project_id` is not a non-empty string, `path` is a directory, or a number is out of its range.
            Everything that can go wrong later, a missing permission included, is counted and tried again.
    """

    write: Callable[[bytes], None]
    """Append one line, which ends in its only newline. Never raises; a line that is not written is counted."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        project_id: str,
        *,
        check_ms: int = 50,
        max_bytes: int | None = None,
        rotate_every: float | str | None = None,
        keep: int | None = None,
        queue_lines: int = 0,
        sample_rate: float = 1.0,
        redact: Redact | None = None,
        max_object_bytes: int = 1024 * 1024,
        oversized: Oversized | str = Oversized.SPILL,
    ) -> None:
        self._project_id = checked_project(project_id)
        where = _absolute(path)
        # Path.is_dir() raises where a directory above may not be searched.
        if os.path.isdir(where):  # noqa: PTH112
            raise ConfigError(f"{where} is a directory: name a file in it, such as {where}/trace.log")
        if queue_lines < 0:
            raise ConfigError(f"queue_lines must be 0 or more, not {queue_lines!r}")
        self._policy = policy(sample_rate, redact, max_object_bytes, oversized)
        self._counters = Counters()
        self._file = AppendFile(
            where, self._counters, check_ms / 1000, rotation(max_bytes, rotate_every, keep)
        )
        self._background: BackgroundWriter | None = None
        # An attribute and not a method: a service pays for no call that only passes the line on.
        self.write = self._file.append
        self.write_lines: Callable[[Sequence[bytes]], None] | None = self._file.append_block
        if queue_lines:
            from tailrace.background import BackgroundWriter

            self._background = BackgroundWriter(self._file, self._counters, queue_lines)
            self.write = self._background.put
            self.write_lines = None

    @property
    def project_id(self) -> str:
        """The project that every line names."""
        return self._project_id

    @property
    def policy(self) -> Policy:
        """What traces ask before they put a line together."""
        return self._policy

    @property
    def path(self) -> Path:
        """The file that lines are appended to."""
        return self._file.path

    def count(self, event: Event, number: int = 1, reason: str = "", detail: str = "") -> None:
        """Count what the caller of `write` had to drop, alter or leave out."""
        self._counters.add(event, number, reason, detail)

    def stats(self) -> LoggerStats:
        """What was written and what was not, so far, in this process."""
        queued = self._background.queued if self._background is not None else 0
        return self._counters.snapshot(self._file.lines, queued)

    def flush(self, timeout: float = 5.0) -> None:
        """Return when every line that was taken so far is with the operating system (not: on the disk).

        Without a queue that is always so.

        Args:
            timeout: Seconds; what then remains is told by `stats().queued`, and still written.
        """
        if self._background is not None:
            self._background.flush(timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Let go of the file; lines that come later are counted as dropped. May be called twice.

        LLM events that are open are marked as left so.

        Args:
            timeout: Seconds that the queue may take to drain; what then remains is dropped, and counted.
        """
        mark_open_events(self)
        if self._background is not None:
            self._background.close(timeout)
        self._file.close()

    def __del__(self) -> None:
        try:
            if self._background is not None:
                self._background.abandon()
        except Exception:  # noqa: S110 - at interpreter shutdown anything may be gone, `suppress` too
            pass

    def __repr__(self) -> str:
        return f"FileLogger({str(self.path)!r}, {self._project_id!r})"


def _absolute(path: str | os.PathLike[str]) -> Path:
    try:
        return Path(os.path.abspath(os.fspath(path)))  # noqa: PTH100 - resolve() would follow a symlink
    except (
        OSError
    ):  # the working directory is gone: the file cannot be opened, which is counted and tried again
        return Path(path)


def checked_project(project_id: str) -> str:
    """The project id, if it can be one.

    Raises:
        ConfigError: It cannot.
    """
    if not isinstance(project_id, str) or not project_id:
        raise ConfigError(f"project_id must be a non-empty string, not {project_id!r}")
    return project_id


def policy(
    sample_rate: float, redact: Redact | None, max_object_bytes: int, oversized: Oversized | str
) -> Policy:
    """A policy from what the constructor of a logger was given.

    Raises:
        ConfigError: A value is out of its range.
    """
    try:
        choice = Oversized(oversized)
    except ValueError:
        choices = ", ".join(repr(str(each)) for each in Oversized)
        raise ConfigError(f"oversized must be one of {choices}, not {oversized!r}") from None
    return Policy(sample_rate, redact, max_object_bytes, choice)
