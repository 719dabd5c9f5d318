"""Rows to the engine in this process, through a file that is nothing but memory.

clickhouse-connect serialises them into memory, copies that into a temporary file, and has the engine read it: where temporary
files are on a disk, a backfill spends a sixteenth of its CPU on that file. Here Arrow writes where the engine reads.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from tailrace.schemas.clickhouse.quoting import quote, quote_name

IS_POSSIBLE = hasattr(os, "memfd_create")
"""Only Linux has such files."""


def insert(client: Any, table: str, rows: pa.Table, settings: Mapping[str, int | str]) -> None:
    """Insert, as `insert_arrow` of the client does.

    Args:
        client: A clickhouse-connect client of the engine in this process.
        table: Its name, one of ours.
        rows: Their columns are named as those of the table.
        settings: Of the statement.
    """
    descriptor = os.memfd_create("tailrace-insert")
    try:
        path = f"/proc/self/fd/{descriptor}"
        with pa.OSFile(path, "wb") as file, pa.RecordBatchFileWriter(file, rows.schema) as writer:
            writer.write(rows)
        columns = ", ".join(map(quote_name, rows.column_names))
        given = ", ".join(f"{quote_name(name)} = {quote(str(value))}" for name, value in settings.items())
        client.command(
            f"INSERT INTO {quote_name(table)} ({columns}) FROM INFILE {quote(path)} COMPRESSION 'none' "
            f"SETTINGS {given} FORMAT Arrow"
        )
    finally:
        os.close(descriptor)
