"""What can be said of a finished backfill without opening the embedded database, whose engine takes most of a second to start.

A run that leaves nothing to do notes that inside the database's own directory, together with the state of that directory: the
identity, the time and the entries of every table's folder, and of what defines the tables. ClickHouse never changes a part in
place, so whatever is inserted, deleted, merged, dropped or altered changes one of these, and so does a copy or another
database in the same place. The note is worth something only while the state is the same to the bit. It is taken while the run still
holds the engine, hence nobody can have changed anything between the last look into the tables and the note; what the engine
itself does until it is closed makes the note worthless, never wrong.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec
import xxhash

from tailrace.ingestor.backfill.claims import NoHistory
from tailrace.ingestor.backfill.known import Counts, Finished
from tailrace.ingestor.backfill.report import BackfillReport
from tailrace.schemas.clickhouse import migrate

NAME = "tailrace-finished.json"
_DEFINED_IN, _STORED_IN = "metadata", "store"


class _Note(msgspec.Struct, frozen=True):
    """What the file holds."""

    version: int
    program: str
    state: str
    database: str
    scope: str
    files: dict[str, Finished]


class Noted(NoHistory):
    """The part of history that a note tells.

    Args:
        files: Sources that were read to their end, by path.
    """

    def __init__(self, files: Mapping[str, Finished]) -> None:
        self._files = files

    def finished(self, scope: str) -> Mapping[str, Finished]:
        """See `History`."""
        return self._files


def state(directory: Path) -> str:
    """What tells one state of an embedded database from every other, without a look into its tables.

    Raises:
        OSError: It cannot be read, or changes meanwhile.
    """
    digest = xxhash.xxh3_128()
    for seen in _seen(directory):
        digest.update(f"{seen}\n".encode("utf-8", "surrogateescape"))
    return str(digest.hexdigest())


def _seen(directory: Path) -> Iterator[tuple[object, ...]]:
    """Tables lie in `store/XXX/<uuid>`, their parts in folders below; so do the statements that define them."""
    outermost = directory.stat()
    # Our own file is written into it afterwards, so only the identity counts.
    yield str(directory), outermost.st_dev, outermost.st_ino
    for path in (directory / _DEFINED_IN, *sorted((directory / _DEFINED_IN).iterdir())):
        yield _named(path)
    for group in sorted((directory / _STORED_IN).iterdir()):
        for table in sorted(group.iterdir()):
            yield _named(table)
            with os.scandir(table) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    # The name of a part says all that can change of it.
                    yield (entry.name,) if entry.is_dir(follow_symlinks=False) else _named(Path(entry.path))


def _named(path: Path) -> tuple[object, ...]:
    status = path.stat()
    return str(path), status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def write(directory: Path, database: str, scope: str, report: BackfillReport, now: float) -> None:
    """Notes that all of a run's sources are finished; does nothing where they are not.

    Call it before the engine is closed. A crash here leaves the old note or none, and what it says has no other state.

    Args:
        directory: Of the embedded database, which this process has open.
        database: Its name.
        scope: What was selected.
        report: What the run did, or what it found.
        now: Seconds since the epoch.
    """
    files = {}
    for path, file in report.files.items():
        source = file.source
        if not file.noted or source.size < 0:
            return
        counts = Counts()
        counts.add(file.stored)
        counts.add(file.there)
        files[path] = Finished(
            source.size, source.modified, source.inode, counts, file.finished_before or now
        )
    with suppress(OSError, UnicodeError):  # JSON has no names that are no text
        note = _Note(1, _program(), state(directory), database, scope, files)
        unfinished = directory / f"{NAME}.tmp"
        unfinished.write_bytes(msgspec.json.encode(note))
        unfinished.replace(directory / NAME)


def read(directory: Path, database: str, scope: str) -> Noted | None:
    """What a note says, if there is one that holds.

    Args:
        directory: Of an embedded database that no process has open.
        database: Its name.
        scope: What is selected now.
    """
    try:
        note = msgspec.json.decode((directory / NAME).read_bytes(), type=_Note)
        expected = (1, _program(), state(directory), database, scope)
    except (OSError, msgspec.DecodeError):
        return None
    held = (note.version, note.program, note.state, note.database, note.scope)
    return Noted(note.files) if held == expected else None


def _program() -> str:
    """The tables that this program works with: with others the database has to be looked at."""
    return " ".join(migration.checksum for migration in migrate.load())
