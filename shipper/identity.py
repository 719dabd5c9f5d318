"""Which file is which: by what it holds, not by what it is called.

A file's state remembers where it was (device, inode, path), how far it was read, and two fingerprints: of
its first bytes, and of the bytes just before that position. A file that still has both *is* that file, as
far as we have read it. An inode alone is reused by new files and lost by copies; the first bytes alone are
the same in files with the same banner.

The cases, for a state that was read to position 700 under `app.log`, inode 5:

| what is seen now                                               | case      | read on                     |
|----------------------------------------------------------------|-----------|-----------------------------|
| inode 5 at `app.log`, both fingerprints                        | SAME      | from 700                    |
| inode 5 at `app.log.1`, both fingerprints                      | RENAMED   | from 700                    |
| inode 5, 20 bytes long                                         | TRUNCATED | from 0, as another file     |
| inode 5, 900 bytes long, other bytes before 700                | REPLACED  | from 0, as another file     |
| inode 6, both fingerprints                                     | COPIED    | from 700, once 5 has lost it|
| inode 6 at `app.log`, other bytes                              | RECREATED | from 0, as another file     |
| inode 6 elsewhere, other bytes                                 | NEW       | from 0                      |
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from enum import StrEnum
from pathlib import PurePath

import msgspec

EDGE_BYTES = 1024
"""How many bytes each fingerprint covers at most."""
SURE_BYTES = 256
"""How much must have been read of a file that vanished before another file counts as its copy: fewer bytes
may be equal by chance (a banner), and reading a copy twice is better than skipping a new file's lines."""

Read = Callable[[int, int], bytes]
"""`read(position, length)`: bytes of the file, fewer at its end."""


class Fingerprint(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A digest of so many bytes."""

    length: int
    digest: str

    @classmethod
    def of(cls, data: bytes) -> Fingerprint:
        """The fingerprint of these bytes."""
        return cls(len(data), hashlib.blake2b(data, digest_size=8).hexdigest())


class FileState(msgspec.Struct, frozen=True, gc=False):
    """How far a file was read, and how to know it again.

    Args:
        id: Stays with the content, through renames and copies.
        path: Where it was seen last.
        device: Of the file system.
        inode: In it.
        position: All bytes before it are acknowledged; always the start of a line.
        head: Of the first `min(position, EDGE_BYTES)` bytes: it grows with the file.
        tail: Of the last `min(position, EDGE_BYTES)` bytes before `position`.
        seen: Seconds since the epoch when this was noted.
    """

    id: str
    path: str
    device: int
    inode: int
    position: int
    head: Fingerprint
    tail: Fingerprint
    seen: float

    @property
    def key(self) -> tuple[int, int]:
        """Device and inode."""
        return self.device, self.inode


class Sight(msgspec.Struct, frozen=True, gc=False):
    """A file as `stat` shows it now."""

    path: str
    device: int
    inode: int
    size: int
    modified: float

    @property
    def key(self) -> tuple[int, int]:
        """Device and inode."""
        return self.device, self.inode


class Case(StrEnum):
    """What became of a known file; see the module's table."""

    NEW = "new"
    SAME = "same"
    RENAMED = "renamed"
    COPIED = "copied"
    TRUNCATED = "truncated"
    REPLACED = "replaced"
    RECREATED = "recreated"


def holds_all(state: FileState, read: Read) -> bool:
    """Whether a file holds everything that was read under this state, by both fingerprints."""
    head = read(0, state.head.length)
    if Fingerprint.of(head) != state.head:
        return False
    return Fingerprint.of(read(state.position - state.tail.length, state.tail.length)) == state.tail


def judge(known: FileState, seen: Sight, holds: bool) -> Case:
    """What a file that is seen now is to a known state, given whether it `holds_all` of it."""
    if known.key == seen.key:
        if holds:
            return Case.SAME if known.path == seen.path else Case.RENAMED
        return Case.TRUNCATED if seen.size < known.position else Case.REPLACED
    if holds and known.position > 0:
        return Case.COPIED
    return Case.RECREATED if known.path == seen.path else Case.NEW


def may_continue(known: FileState, seen: Sight, *, truncated: bool) -> bool:
    """Whether a file may take over from a state whose own file has lost its content, if it holds all of it.

    A truncation that was observed together with the name of a rotated file is evidence enough
    (`copytruncate`). A file that merely vanished needs more: its name, and enough bytes.
    """
    if is_rotated_name(seen.path, known.path):
        return truncated or known.position >= SURE_BYTES
    related = PurePath(seen.path).name == PurePath(known.path).name
    return related and known.position >= SURE_BYTES


def is_rotated_name(path: str, original: str) -> bool:
    """Whether `path` looks like what a rotation makes of `original`, in any directory.

    `app.log` → `app.log.1`, `app.log-20261121`, `app-20261121.log`, `app.1.log`.
    """
    name, base = path.rpartition("/")[2], original.rpartition("/")[2]
    if name == base:
        return False
    if name.startswith((f"{base}.", f"{base}-")):
        return True
    stem, dot, suffix = base.rpartition(".")
    return bool(stem) and name.endswith(f"{dot}{suffix}") and name.startswith((f"{stem}.", f"{stem}-"))


def is_beginning_of(copy: Read, copy_size: int, original: Read) -> bool:
    """Whether a file is, up to its present size, byte for byte the beginning of another, judged by both ends.

    True for a copy that is finished and for one that is still being written.
    """
    first = copy(0, EDGE_BYTES)
    if first != original(0, len(first)):
        return False
    start = max(0, copy_size - EDGE_BYTES)
    last = copy(start, EDGE_BYTES)
    return last == original(start, len(last))
