"""What the embedded engine shows after a full disk, and what is on the disk.

Where an insert ends for want of space, the engine may keep parts whose files are empty: it shows their rows as long as it runs, and
puts such parts aside when it starts (`broken-on-start`, in the table's directory `detached`). Whoever looks in between which rows are
stored is told of some that will be gone. So tables into which an insert failed are read from the disk anew before anybody looks:
detached and attached, which finds what a start would find.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

from tailrace.schemas.clickhouse.quoting import quote, quote_name

log = logging.getLogger("tailrace.clickhouse")

SPACE_BYTES = 4 << 20
"""Free bytes without which nothing is read anew: the engine wants one MiB for each part that it writes."""


class Unread:
    """Tables of the engine in this process into which an insert failed since they were read. Safe for use by several threads.

    Args:
        ask: Runs a statement, and gives the only value of its answer, if it has one.
    """

    def __init__(self, ask: Callable[[str], Any]) -> None:
        self._ask = ask
        self._tables: dict[tuple[str, str], None] = {}
        self._lock = threading.Lock()

    def add(self, database: str, tables: Iterable[str]) -> None:
        """An insert into these tables of a database failed."""
        with self._lock:
            self._tables |= {(database, table): None for table in tables}

    def read(self) -> bool:
        """Read them anew. Waits for questions to them that are under way; others fail for the moment that it takes.

        Returns:
            False when there is too little space on the disk; then nothing was read.

        Raises:
            Exception: As `ask` raises; the next call goes on where this one ended.
        """
        if not self._tables:
            return True
        with self._lock:
            if int(self._ask("SELECT min(free_space) FROM system.disks")) < SPACE_BYTES:
                return False
            for database, table in list(self._tables):
                name = f"{quote_name(database)}.{quote_name(table)}"
                # Either may have been done before, if the other failed.
                self._ask(f"DETACH TABLE IF EXISTS {name} SYNC")
                self._ask(f"ATTACH TABLE IF NOT EXISTS {name}")
                del self._tables[database, table]
                damaged = self._ask(
                    f"SELECT count() FROM system.detached_parts WHERE database = {quote(database)} AND table = {quote(table)} "  # noqa: S608
                    "AND reason LIKE 'broken%'"
                )
                log.warning(
                    "an insert into %s failed: it was read from the disk anew, %s damaged parts are aside",
                    name,
                    damaged,
                )
        return True
