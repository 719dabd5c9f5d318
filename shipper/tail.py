"""Follows files: finds them, reads their whole lines through open descriptors, and says how far it got.

A `Tailer` does no delivery and knows no clock: it is told `now`, gives out `Batch`es, and a batch carries the
states that are true once it has been stored. Whoever stores batches keeps the states; a new `Tailer` made
with them goes on exactly there.

A file that was renamed or deleted is read to its end through its descriptor before it is let go. Bytes that
are lost for sure are counted by cause in `losses`.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from tailrace.schemas.streams import BytePosition, FileChunk, FileRange, FileRef
from tailrace.shipper import discover
from tailrace.shipper.identity import (
    EDGE_BYTES,
    Case,
    FileState,
    Fingerprint,
    Read,
    Sight,
    holds_all,
    is_beginning_of,
    is_rotated_name,
    judge,
    may_continue,
)
from tailrace.shipper.lines import HEAD_BYTES, Joined, Overlong, Unfinished, Whole, count, cut, last_line
from tailrace.shipper.rate import Allowances
from tailrace.shipper.settings import ShipperSettings

log = logging.getLogger(__name__)

COPY_SECONDS = 10.0
"""How long after a truncation its copy may still be found. The copy is made before the truncation, so this
only has to outlast the time between two looks."""
CLOSE_SECONDS = 300.0
"""A file that was read to its end and has not grown for so long is closed, and opened again when it grows."""
MANY_OPEN = 256
CLOSE_SECONDS_MANY = 5.0
LAST_BYTES = 4096
"""So much of what is to be read is looked at for the end of its last line."""
FORGET_SECONDS = 7 * 86400.0
"""How long the state of a file that is nowhere to be seen is kept."""


class Loss(StrEnum):
    """Why bytes were lost."""

    TRUNCATED = "truncated"
    """The file was cut before they were read, and no copy of them was found."""
    REPLACED = "replaced"
    """The file was written anew in place before they were read."""
    IN_DOUBT = "in_doubt"
    """A crash came while they were being stored, and their file was gone afterwards: they may be stored."""


class Step(msgspec.Struct, frozen=True):
    """What is true once a batch has been stored.

    Args:
        ranges: Exactly what the batch holds, in the order of its chunks. Two ranges of one file that touch
            are told apart where a last line without newline lies between them.
        files: The new states of the files in it, and of files whose content moved to another inode.
        forgotten: Ids of files that are gone and read to their end: their states may be dropped.
        token: `None`, or the token under which an earlier process may already have stored the batch.
        announced: With a token: when that process began to, in seconds since the epoch.
        lost: Bytes, by cause, that were found to be lost since the step before.
    """

    ranges: tuple[FileRange, ...]
    files: tuple[FileState, ...]
    forgotten: tuple[str, ...] = ()
    token: str | None = None
    announced: float = 0.0
    lost: dict[Loss, int] = {}


class Batch(msgspec.Struct, frozen=True):
    """Lines to deliver, and what is true afterwards. The chunks of one file stand together, in order."""

    chunks: tuple[FileChunk, ...]
    step: Step
    size: int


class TailedFile:
    """One file that is followed. Its descriptor may be closed while it does not grow."""

    def __init__(self, file_id: str, sight: Sight, descriptor: int | None) -> None:
        self.id = file_id
        self.path = self.log = sight.path  # renamed, it is still the same log
        self.device = sight.device
        self.inode = sight.inode
        self.descriptor = descriptor
        self.position = 0  # everything before it was handed out
        self.scanned = 0  # so many bytes after it hold no newline
        self.head = b""
        self.tail = b""
        self.size = sight.size
        self.grown = sight.modified
        self.modified = sight.modified
        self.gone: float | None = None  # since when no path leads to it
        self.leaving: int | None = None  # nobody wants it any more, from this position on
        self.renamed = False

    @property
    def key(self) -> tuple[int, int]:
        """Device and inode."""
        return self.device, self.inode

    @property
    def unread(self) -> int:
        """Bytes that no look has covered yet."""
        return max(0, self.size - self.position - self.scanned)

    @property
    def lag(self) -> int:
        """Bytes that were not handed out, an unfinished line included."""
        return max(0, self.size - self.position)

    def state(self, now: float) -> FileState:
        """How far it was read, and how to know it again: from bytes that were read, never from a second look
        at a file that may have changed since."""
        return FileState(
            self.id,
            self.path,
            self.device,
            self.inode,
            self.position,
            Fingerprint.of(self.head),
            Fingerprint.of(self.tail),
            now,
        )

    def status(self) -> os.stat_result:
        """What the system says about the open file."""
        if self.descriptor is None:
            raise ValueError(f"{self.path} is not open")
        return os.fstat(self.descriptor)

    def holds_tail(self) -> bool:
        """Whether the bytes before the position are still those that were read."""
        return self.read_at(self.position - len(self.tail), len(self.tail)) == self.tail

    def read_at(self, position: int, length: int) -> bytes:
        """Bytes of the open file, fewer at its end."""
        if self.descriptor is None or length <= 0:
            return b""
        return os.pread(self.descriptor, length, position)

    def load_edges(self, state: FileState) -> None:
        """Take over the position of a state that this file holds all of."""
        self.position = state.position
        self.head = self.read_at(0, state.head.length)
        self.tail = self.read_at(state.position - state.tail.length, state.tail.length)

    def advance(self, to: int, last: bytes, first: bytes) -> None:
        """Step to a position.

        Args:
            to: The new position.
            last: The bytes before it, `EDGE_BYTES` of them where the file has as many.
            first: The bytes from the old position on, as many as are at hand.
        """
        if len(self.head) < EDGE_BYTES:
            self.head += first[: EDGE_BYTES - len(self.head)]
        self.tail = last[-EDGE_BYTES:]
        self.position = to
        self.scanned = 0

    def close(self) -> None:
        """Give the descriptor back; the file can be opened again by path."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


class _Orphan(msgspec.Struct):
    """A state whose file has lost the content: a copy may still have it."""

    state: FileState
    case: Case | None  # None: the file is nowhere to be seen
    lost: int
    since: float


class _Changed(Exception):
    """The file does not hold any more what we read from it."""


class Tailer:
    """Follows the files that the settings name.

    Args:
        settings: What to read.
        states: Where earlier runs got to.
        now: Seconds since the epoch, as for every method here.
        ignore: Files that are never read, such as our own progress file.
        new_id: Makes the id of a file that was never seen.
    """

    def __init__(
        self,
        settings: ShipperSettings,
        states: Iterable[FileState],
        now: float,
        ignore: Iterable[Path] = (),
        new_id: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self.losses: Counter[Loss] = Counter()
        self._told: Counter[Loss] = Counter()  # of them, what a step has said
        self._settings = settings
        self._paths = settings.paths
        self._outside: frozenset[discover.Outside] = frozenset()
        self._allowances = Allowances(settings.log_rate)
        self._ignore = tuple(ignore)
        self._new_id = new_id
        self._files: dict[tuple[int, int], TailedFile] = {}
        self._gone: list[TailedFile] = []
        self._turn: deque[TailedFile] = deque()
        self._forgotten: list[str] = []
        self._taken_over: list[TailedFile] = []  # their states name another file until the next batch
        self._goal: dict[str, int] | None = None
        # States of files that were not met yet, and of files that lost their content.
        self._waiting: dict[tuple[int, int], list[FileState]] = {}
        self._orphans: dict[str, _Orphan] = {}
        for state in states:
            self._waiting.setdefault(state.key, []).append(state)

    # ------------------------------------------------------------ looking

    def scan(self, now: float) -> None:
        """Look which files there are, and which of them are which."""
        seen = self._look(self._paths)
        present = {sight.key: sight for sight in seen}
        self._let_go_of_paths(present, now)
        unknown = [sight for sight in seen if not self._is_known(sight, now)]
        if self._waiting:
            self._orphan_the_unseen(now)
        for sight in unknown:
            self._meet(sight, now)
        self._give_up_orphans(now)
        self._close_idle(now)
        self._allowances.forget_idle(now)
        if self._settings.once and self._goal is None:
            self._goal = {file.id: file.size for file in self._all()}

    def _look(self, paths: Sequence[str]) -> list[Sight]:
        seen, outside = discover.look(paths, self._ignore, self._settings.follow_links)
        for each in outside:
            if each not in self._outside:
                log.warning(
                    "%s is not followed: it leads to %s, outside of the directory that was named (--follow-links allows that)",
                    *each,
                )
        self._outside = frozenset(outside)
        return seen

    def follow(self, paths: tuple[str, ...], now: float) -> None:
        """Other paths from now on.

        Of a file that none of them leads to, what it holds now is still given out, perhaps with what is written meanwhile.
        Then it is closed, and its state is kept: under a path that leads to it again it goes on there.
        """
        self.poll(now)
        self.scan(now)
        wanted = {sight.key for sight in self._look(paths)}
        # Looked at once more, and afterwards: a file that is in neither was rotated just now, and its writer may not
        # have left it yet.
        unwanted = {sight.key for sight in self._look(self._paths)} - wanted
        self._paths = paths
        log.info("the paths are %s now", ", ".join(paths))
        for key in unwanted & self._files.keys():
            file = self._files.pop(key)
            file.gone, file.leaving = now, file.size
            self._gone.append(file)
            if file.descriptor is None:
                self._let_rest(file, now)
        self.scan(now)

    def poll(self, now: float) -> None:
        """Ask the open files for their sizes."""
        for file in self._all():
            if file.descriptor is None:
                continue
            status = file.status()
            if (status.st_size, status.st_mtime) == (file.size, file.modified):
                continue
            file.modified = status.st_mtime
            self._check(file, status.st_size, now)

    def _check(self, file: TailedFile, size: int, now: float) -> None:
        """The open file has another size, or was written to: is it still what we read?"""
        if size < file.position or not file.holds_tail():
            case = Case.TRUNCATED if size < file.position else Case.REPLACED
            self._start_over(file, case, size, now)
            return
        if size < file.position + file.scanned:
            file.scanned = 0  # only the unfinished line was cut: look at what stands there now
        if size != file.size:
            file.size, file.grown = size, now

    def _let_go_of_paths(self, present: dict[tuple[int, int], Sight], now: float) -> None:
        for key, file in list(self._files.items()):
            sight = present.get(key)
            if sight is not None:
                if sight.path != file.path:
                    file.path, file.renamed = sight.path, True
                continue
            del self._files[key]
            if file.descriptor is None:
                # It was read to its end and closed; whoever renamed it out of our sight may bring it back.
                self._unfollow(file, now)
                continue
            file.gone = now
            self._gone.append(file)

    def _is_known(self, sight: Sight, now: float) -> bool:
        file = self._files.get(sight.key)
        if file is not None:
            changed = sight.size != file.position or sight.modified != file.modified
            if file.descriptor is None and changed and self._open_again(file):
                file.modified = sight.modified
                self._check(file, sight.size, now)
            return True
        for file in self._gone:
            if file.key == sight.key:  # renamed out of sight, and back
                self._gone.remove(file)
                file.renamed = file.renamed or file.leaving is None
                file.gone, file.leaving, file.path = None, None, sight.path
                self._files[sight.key] = file
                return True
        for state in sorted(self._waiting.pop(sight.key, ()), key=lambda s: -s.position):
            if sight.key in self._files:
                self._orphans[state.id] = _Orphan(state, Case.REPLACED, 0, now)
            else:
                self._resume(state, sight, now)
        return sight.key in self._files

    def _resume(self, state: FileState, sight: Sight, now: float) -> None:
        """A state of an earlier run, and the file that has its inode now."""
        file = self._open(state.id, sight)
        if file is None:
            self._waiting.setdefault(state.key, []).append(state)
            return
        case = judge(state, sight, holds_all(state, file.read_at))
        if case in (Case.SAME, Case.RENAMED):
            file.load_edges(state)
            file.renamed = case is Case.RENAMED
            self._follow(file)
            return
        log.info("%s was %s while nobody watched it", sight.path, case)
        file.close()
        self._orphans[state.id] = _Orphan(state, case, 0, now)

    def _meet(self, sight: Sight, now: float) -> None:
        """A file whose inode we do not know."""
        if sight.size == 0 or sight.key in self._files or sight.key in self._waiting:
            return
        file = self._open(self._new_id(), sight)
        if file is None:
            return
        # The original is looked at first: if it was truncated since our last look, this makes the orphan.
        if self._is_copy_of_intact(sight, file.read_at, now):
            file.close()
            return
        orphan = self._orphan_in(sight, file.read_at)
        if orphan is not None:
            log.info("%s goes on where %s was cut off", sight.path, orphan.state.path)
            del self._orphans[orphan.state.id]
            self._drop_waiting(orphan.state)
            file.id, file.renamed = orphan.state.id, True
            file.load_edges(orphan.state)
            self._taken_over.append(file)
        self._follow(file)

    def _orphan_in(self, sight: Sight, read: Read) -> _Orphan | None:
        for orphan in sorted(self._orphans.values(), key=lambda o: -o.state.position):
            cut_off = orphan.case is not None
            if (
                sight.size >= orphan.state.position > 0
                and may_continue(orphan.state, sight, truncated=cut_off)
                and holds_all(orphan.state, read)
            ):
                return orphan
        return None

    def _is_copy_of_intact(self, sight: Sight, read: Read, now: float) -> bool:
        for original in self._all():
            if original.position == 0 or not is_rotated_name(sight.path, original.path):
                continue
            opened_here = original.descriptor is None
            if opened_here and not self._open_again(original):
                continue
            size, read_as = original.status().st_size, original.id
            self._check(original, size, now)
            if original.id != read_as:
                continue
            copy = size >= sight.size and is_beginning_of(read, sight.size, original.read_at)
            if opened_here:
                original.close()
            if copy:
                return True
        return False

    def _drop_waiting(self, state: FileState) -> None:
        others = [other for other in self._waiting.pop(state.key, ()) if other.id != state.id]
        if others:
            self._waiting[state.key] = others

    def _orphan_the_unseen(self, now: float) -> None:
        """States of earlier runs whose inode is not to be seen."""
        for state in [state for states in self._waiting.values() for state in states]:
            if now - state.seen > FORGET_SECONDS:
                self._forgotten.append(state.id)
                self._orphans.pop(state.id, None)
                self._drop_waiting(state)
            elif state.id not in self._orphans:
                self._orphans[state.id] = _Orphan(state, None, 0, now)

    def _give_up_orphans(self, now: float) -> None:
        for file_id, orphan in list(self._orphans.items()):
            if orphan.case is None:
                if orphan.state.key not in self._waiting:
                    del self._orphans[file_id]  # the file came back
                continue
            if now - orphan.since < COPY_SECONDS and not self._settings.once:
                continue
            del self._orphans[file_id]
            self._forgotten.append(file_id)
            if orphan.lost:
                cause = Loss.TRUNCATED if orphan.case is Case.TRUNCATED else Loss.REPLACED
                self.losses[cause] += orphan.lost
                log.warning(
                    "%s was %s with %d bytes unread: they are lost",
                    orphan.state.path,
                    orphan.case,
                    orphan.lost,
                    extra={"stream": f"file:{file_id}", "offset": orphan.state.position},
                )

    def _close_idle(self, now: float) -> None:
        opened = [file for file in self._files.values() if file.descriptor is not None]
        patience = CLOSE_SECONDS_MANY if len(opened) > MANY_OPEN else CLOSE_SECONDS
        for file in opened:
            if file.position == file.size and now - file.grown > patience:
                file.close()

    # ------------------------------------------------------------ opening

    def _open(self, file_id: str, sight: Sight) -> TailedFile | None:
        try:
            # Without waiting: somebody may have put a pipe there since we looked.
            descriptor = os.open(sight.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as exc:
            if exc.errno not in (errno.ENOENT, errno.ESTALE):
                log.warning("%s cannot be opened now: %s", sight.path, exc.strerror)
            return None
        status = os.fstat(descriptor)
        if (status.st_dev, status.st_ino) != sight.key:
            os.close(descriptor)  # another file took the path since we looked: the next look finds it
            return None
        file = TailedFile(file_id, sight, descriptor)
        file.size = status.st_size
        return file

    def _open_again(self, file: TailedFile) -> bool:
        sight = Sight(file.path, file.device, file.inode, file.size, file.grown)
        again = self._open(file.id, sight)
        if again is None:
            return False
        file.descriptor = again.descriptor
        return True

    def _follow(self, file: TailedFile) -> None:
        self._files[file.key] = file
        self._turn.append(file)

    def _start_over(self, file: TailedFile, case: Case, size: int, now: float) -> None:
        """The content that we read is gone: what is there now is another file, read from its beginning."""
        if file.leaving is not None:
            # No path leads to what is there now, nor to a copy: both are seen to when one does.
            self._let_rest(file, now)
            return
        origin = {"stream": f"file:{file.id}", "offset": file.position}
        log.info("%s was %s at byte %d", file.path, case, file.position, extra=origin)
        self._orphans[file.id] = _Orphan(file.state(now), case, file.lag, now)
        file.id = self._new_id()
        file.position = file.scanned = 0
        file.head = file.tail = b""
        file.size, file.grown = size, now
        if self._goal is not None:
            self._goal[file.id] = size

    def _let_rest(self, file: TailedFile, now: float) -> None:
        if file.leaving is not None:
            log.info("%s is not followed any more, from byte %d on", file.path, file.position)
        self._gone.remove(file)
        self._unfollow(file, now)

    def _unfollow(self, file: TailedFile, now: float) -> None:
        """Nothing more is read from it under this descriptor."""
        unlinked = file.descriptor is not None and file.status().st_nlink == 0
        file.close()
        if unlinked or file.position == 0:
            self._forgotten.append(file.id)
        else:
            # Moved to where we do not look, and perhaps back some day.
            self._waiting.setdefault(file.key, []).append(file.state(now))

    def _all(self) -> list[TailedFile]:
        return [*self._files.values(), *self._gone]

    # ------------------------------------------------------------ reading

    def read(self, now: float) -> Batch | None:
        """The next lines of all files, so many as make one batch; `None` when there are none now.

        The files take turns. What is given out counts as read: call `read` again for what follows.
        """
        limit = self._settings.batch_bytes
        found: dict[str, list[FileChunk]] = {}
        states: dict[str, TailedFile] = {}
        size = lines = 0
        idle = 0
        while self._turn and idle < len(self._turn) and size < limit and lines < self._settings.batch_lines:
            file = self._turn[0]
            self._turn.rotate(-1)
            if not self._allowances.allows(file.log, now):
                idle += 1
                continue
            scanned = file.scanned
            try:
                chunk = self._next_chunk(file, now)
            except _Changed:
                self._start_over(file, Case.REPLACED, file.status().st_size, now)
                continue
            if chunk is None:
                self._allowances.spend(file.log, max(0, file.scanned - scanned), now)
                idle = 0 if file.scanned > scanned else idle + 1
                continue
            idle = 0
            self._allowances.spend(file.log, max(0, chunk.end - chunk.start - scanned), now)
            found.setdefault(file.id, []).append(chunk)
            states[file.id] = file
            size += chunk.end - chunk.start
            lines += chunk.lines or 1
        self._retire(now)
        # A file that started over within this batch has another id now; the state of the old one is kept.
        after = tuple(
            file.state(now) if file.id == file_id else self._orphans[file_id].state
            for file_id, file in states.items()
        )
        after += tuple(file.state(now) for file in self._taken_over if file.id not in states)
        self._taken_over.clear()
        chunks = tuple(chunk for parts in found.values() for chunk in parts)
        lost = dict(self.losses - self._told)
        if not chunks and not after and not self._forgotten and not lost:
            return None
        self._told = self.losses.copy()
        forgotten, self._forgotten = tuple(self._forgotten), []
        return Batch(chunks, Step(_ranges(chunks), after, forgotten, lost=lost), size)

    def _next_chunk(self, file: TailedFile, now: float) -> FileChunk | None:
        if file.descriptor is None or file.lag == 0:
            return None
        if file.unread == 0:
            return self._last_line(file) if self._last_line_is_complete(file, now) else None
        if (data := self._many_lines(file)) is not None:
            return self._give(file, len(data), data, data[-EDGE_BYTES:])
        # The bytes before are read along, to notice that the file was written anew.
        skip = len(file.tail) if file.scanned == 0 else 0
        start = file.position + file.scanned
        block = file.read_at(start - skip, self._settings.read_bytes + skip)
        if skip and not block.startswith(file.tail):
            raise _Changed
        if len(block) == skip:
            return None  # it shrank since we asked for its size: the next poll says so
        found = cut(block, file.scanned, self._settings.max_line_bytes, skip)
        match found:
            case Unfinished(scanned):
                file.scanned = scanned
                file.size = max(file.size, file.position + scanned)
                return None
            case Whole(size):
                data = block[skip : skip + size] if skip or size < len(block) else block
                return self._give(file, size, data, block[max(0, skip + size - EDGE_BYTES) : skip + size])
            case Joined(size):
                return self._whole_line(file, size)
            case Overlong(size):
                return self._overlong_line(file, size)

    def _many_lines(self, file: TailedFile) -> bytes | None:
        """As many whole lines as are read at a time, where there are so many. Where the last of them ends is looked for first, so
        that no byte of them is copied once they are read."""
        most = self._settings.read_bytes
        if file.scanned or file.unread < most:
            return None
        last = min(LAST_BYTES, most // 2)
        end = file.read_at(file.position + most - last, last).rfind(b"\n") + 1
        size = most - last + end
        data = file.read_at(file.position, size) if end else b""
        if not data.endswith(b"\n") or len(data) != size:
            return None  # a long line, or a file that changes: reading it in one piece tells
        # Looked at after the lines: if it was written anew before they were read, it shows.
        if not file.holds_tail():
            raise _Changed
        return data

    def _whole_line(self, file: TailedFile, size: int) -> FileChunk:
        skip = len(file.tail)
        block = file.read_at(file.position - skip, size + skip)
        if len(block) < size + skip or not block.startswith(file.tail):
            raise _Changed
        return self._give(file, size, block[skip:], block[-EDGE_BYTES:])

    def _overlong_line(self, file: TailedFile, size: int) -> FileChunk:
        head = file.read_at(file.position, HEAD_BYTES)
        last = file.read_at(file.position + size - EDGE_BYTES, EDGE_BYTES)
        chunk = self._give(file, size, b"", last, first=head)
        return msgspec.structs.replace(chunk, oversized=head)

    def _give(
        self, file: TailedFile, size: int, data: bytes, last: bytes, first: bytes | None = None
    ) -> FileChunk:
        start = file.position
        file.advance(start + size, last, data[:EDGE_BYTES] if first is None else first)
        file.size = max(file.size, file.position)
        return FileChunk(
            FileRef(file.id, file.path),
            BytePosition(start),
            BytePosition(start + size),
            data,
            lines=count(data),
        )

    def _last_line_is_complete(self, file: TailedFile, now: float) -> bool:
        if self._settings.once:
            return True
        left = (file.gone is not None and file.leaving is None) or file.renamed
        patience = self._settings.rotated_seconds if left else self._settings.idle_seconds
        return now - max(file.grown, file.gone or 0.0) >= patience

    def _last_line(self, file: TailedFile) -> FileChunk | None:
        if file.status().st_size != file.position + file.scanned:
            return None
        found = last_line(file.scanned, self._settings.max_line_bytes)
        if isinstance(found, Overlong):
            return self._overlong_line(file, found.size)
        return self._whole_line(file, found.size)

    def _retire(self, now: float) -> None:
        """Let go of files that nobody can write to any more, or that nobody did for long enough."""
        for file in list(self._gone):
            if file.leaving is not None:
                # An unfinished line stays where it is: its writer may be in the middle of it.
                if file.position + file.scanned >= min(file.leaving, file.size):
                    self._let_rest(file, now)
                continue
            if file.lag:
                continue
            quiet = now - max(file.grown, file.gone or 0.0) >= self._settings.rotated_seconds
            if quiet or self._settings.once:
                self._let_rest(file, now)
        alive = {id(file) for file in self._all()}
        if len(alive) != len(self._turn):
            self._turn = deque(file for file in self._turn if id(file) in alive)

    # ------------------------------------------------------------ for the pipeline

    @property
    def lag(self) -> int:
        """Bytes in all files that were not given out yet."""
        return sum(file.lag for file in self._all())

    def sizes(self) -> list[tuple[str, str, int]]:
        """Id, path and size of every file that is followed. May be called while another thread reads or looks."""
        return [(file.id, file.path, file.size) for file in self._all()]

    def held_back(self, now: float) -> int:
        """How many files wait for their allowance, with lines that could be read."""
        waiting = self._allowances.held_back(now)
        return sum(file.log in waiting and file.unread > 0 for file in self._all()) if waiting else 0

    @property
    def count(self) -> int:
        """How many files are followed."""
        return len(self._files) + len(self._gone)

    @property
    def finished(self) -> bool:
        """With `once`: whether everything was given out that was there at the first look."""
        if self._goal is None:
            return False
        return all(
            file.position >= min(self._goal.get(file.id, 0), file.size) or file.descriptor is None
            for file in self._all()
        )

    def give_up_orphans(self) -> None:
        """No copy will be looked for any more: count what was lost."""
        self._give_up_orphans(now=float("inf"))

    def reread(self, ranges: Sequence[FileRange]) -> tuple[FileChunk, ...]:
        """Exactly the bytes of these ranges again, in their order; call it after the first `scan`.

        The chunks of one range joined are the same bytes as before; where they are cut may differ. A range
        whose file is gone is counted as `Loss.IN_DOUBT` and left out.
        """
        by_id = {file.id: file for file in self._all()}
        chunks: list[FileChunk] = []
        for wanted in ranges:
            file = by_id.get(wanted.file_id)
            if file is None or (file.descriptor is None and not self._open_again(file)):
                self.losses[Loss.IN_DOUBT] += wanted.end - wanted.start
                log.warning(
                    "bytes %d-%d of a file that is gone are in doubt",
                    wanted.start,
                    wanted.end,
                    extra={"stream": f"file:{wanted.file_id}", "offset": wanted.start},
                )
                continue
            chunks += self._reread_range(file, wanted)
        return tuple(chunks)

    def _reread_range(self, file: TailedFile, wanted: FileRange) -> list[FileChunk]:
        """The range by the same cutting as `_next_chunk`, over a stand-in that ends where the range ends."""
        sight = Sight(file.path, file.device, file.inode, wanted.end, 0.0)
        part = TailedFile(file.id, sight, file.descriptor)
        part.position = wanted.start
        chunks = []
        while part.position < wanted.end:
            scanned_to = part.position + part.scanned
            block = part.read_at(scanned_to, min(self._settings.read_bytes, wanted.end - scanned_to))
            if not block and not part.scanned:
                self.losses[Loss.IN_DOUBT] += wanted.end - part.position
                break
            found: Whole | Joined | Overlong | Unfinished
            if block:
                found = cut(block, part.scanned, self._settings.max_line_bytes)
            else:
                found = last_line(part.scanned, self._settings.max_line_bytes)
            match found:
                case Unfinished(scanned):
                    part.scanned = scanned
                case Overlong(size):
                    chunks.append(self._overlong_line(part, size))
                case Whole(size) | Joined(size):
                    data = part.read_at(part.position, size)
                    chunks.append(self._give(part, size, data, b""))
        return chunks

    def close(self) -> None:
        """Close every file; nothing that was not given out is lost, the files hold it."""
        for file in self._all():
            file.close()


def _ranges(chunks: Sequence[FileChunk]) -> tuple[FileRange, ...]:
    """The ranges of chunks, joined where they touch and no unterminated line lies between them."""
    ranges: list[FileRange] = []
    open_end = False
    for chunk in chunks:
        last = ranges[-1] if ranges else None
        if last is not None and last.file_id == chunk.file.id and last.end == chunk.start and not open_end:
            ranges[-1] = FileRange(last.file_id, last.start, chunk.end)
        else:
            ranges.append(FileRange(chunk.file.id, chunk.start, chunk.end))
        # An overlong line may have been declared complete too: its bytes are not at hand to say so, and one
        # range more does no harm.
        open_end = not chunk.data.endswith(b"\n")
    return tuple(ranges)
