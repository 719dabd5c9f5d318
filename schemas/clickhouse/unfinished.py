"""Repairs what a killed engine leaves in an embedded database: tokens of inserts whose rows never came to be.

A MergeTree table that is not replicated notes the token of a new part in a log, and then renames the part into
place. A process that is killed between the two leaves a token without rows: the same insert made again under the
same token would be taken for a repetition, and its rows would be lost. So before the engine opens its directory, the
notes of parts that are not there are taken out of the logs.

A part that was merged is there within a larger one, and one that was dropped on purpose has a note that says so;
both keep the memory of their tokens.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

_PART = re.compile(r"(.+?)_(\d+)_(\d+)_\d+(?:_\d+)?")
"""`<partition>_<first block>_<last block>_<level>`, and a mutation's number."""
_ADDED = "1"
_HALF = "tailrace-deduplication-log.tmp"
"""Not beside the log: the engine reads everything that lies there."""

Blocks = dict[str, list[tuple[int, int]]]
"""By partition, the ranges of block numbers that its parts hold, both ends included."""


def forget_unfinished_inserts(directory: Path) -> int:
    """Take tokens without rows out of the logs of every table; nothing happens while a process holds the database.

    Args:
        directory: Of the embedded database.

    Returns:
        How many there were.

    Raises:
        OSError: The directory cannot be read or written.
    """
    with _held(directory) as alone:
        if not alone:
            return 0
        folders = sorted(directory.glob("store/*/*/deduplication_logs"))
        return sum(_forget(folder, directory / _HALF) for folder in folders)


def without_unfinished(notes: str, present: Blocks) -> tuple[str, int]:
    """A log without the notes of parts that are not there, and how many those were.

    Args:
        notes: A line a note: `1` (added) or `2` (dropped), the part, the token, between tabs.
        present: What the table's directory holds.
    """
    kept, forgotten = [], 0
    for note in notes.splitlines(keepends=True):
        fields = note.rstrip("\n").split("\t")
        if len(fields) == 3 and fields[0] == _ADDED and not _is_there(fields[1], present):
            forgotten += 1
        else:
            kept.append(note)
    return "".join(kept), forgotten


def _is_there(part: str, present: Blocks) -> bool:
    match = _PART.fullmatch(part)
    if match is None:
        return True  # not a name that we understand: leave it alone
    first, last = int(match[2]), int(match[3])
    return any(low <= first and last <= high for low, high in present.get(match[1], ()))


def _forget(folder: Path, half: Path) -> int:
    present: Blocks = defaultdict(list)
    for part in folder.parent.iterdir():
        if match := _PART.fullmatch(part.name):
            present[match[1]].append((int(match[2]), int(match[3])))
    total = 0
    for path in folder.glob("deduplication_log_*.txt"):
        kept, forgotten = without_unfinished(path.read_text(), present)
        if not forgotten:
            continue
        log.warning("%s: forgetting %d tokens whose rows were never stored", folder.parent, forgotten)
        with half.open("w") as file:
            file.write(kept)
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)  # a crash before this leaves the old log, which the next start repairs
        total += forgotten
    return total


@contextlib.contextmanager
def _held(directory: Path) -> Iterator[bool]:
    """The engine's own lock on the directory, or `False` when a process has it. A new directory has no lock yet."""
    try:
        descriptor = os.open(directory / "status", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)
