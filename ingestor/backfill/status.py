"""How far earlier runs got, without reading what is in the files."""

from __future__ import annotations

from typing import Literal

import msgspec

from tailrace.ingestor.backfill.claims import History
from tailrace.ingestor.backfill.settings import BackfillSettings
from tailrace.ingestor.backfill.sources import find


class FileStatus(msgspec.Struct, frozen=True):
    """One source.

    Args:
        path: Of it.
        state: `finished`; `changed` since it was; `begun`; `new`; or `unreadable`.
        size: Bytes as stored in the file, -1 when nobody knows.
        stored_bytes: Uncompressed bytes of it that are stored under this path.
        finished_at: Seconds since the epoch, 0 when it never was.
        reason: Why it is unreadable.
    """

    path: str
    state: Literal["finished", "changed", "begun", "new", "unreadable"]
    size: int = -1
    stored_bytes: int = 0
    finished_at: float = 0.0
    reason: str = ""


def status(settings: BackfillSettings, history: History) -> list[FileStatus]:
    """Every source that the paths name now, in the order of path.

    A file that was stored under another name shows as `new`; a run tells that it is there.
    """
    found = find(settings.paths)
    finished = history.finished(settings.scope)
    stored = history.stored_bytes(settings.scope, [source.path for source in found.sources])
    files = [FileStatus(path, "unreadable", reason=reason) for path, reason in found.unreadable.items()]
    for source in found.sources:
        before, size = finished.get(source.path), stored.get(source.path, 0)
        if before is not None and before.is_same(source):
            files.append(FileStatus(source.path, "finished", source.size, before.counts.bytes, before.at))
        elif before is not None:
            files.append(FileStatus(source.path, "changed", source.size, size, before.at))
        else:
            files.append(FileStatus(source.path, "begun" if size else "new", source.size, size))
    return sorted(files, key=lambda file: file.path)
