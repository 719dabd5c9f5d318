"""A slice as a data set: a row for each trace, its tags as columns."""

# ruff: noqa: S608 - queries are put together from constants here; every value is a bound parameter
from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Protocol

import msgspec

from tailrace.explorer.conditions import Slice
from tailrace.explorer.lookup import duration_seconds
from tailrace.explorer.period import to_datetime
from tailrace.explorer.reader import Parameters, Reader
from tailrace.explorer.selection import UNIVERSE, Scope, errors, last_seen, scope_where, selection, trace_key
from tailrace.explorer.texts import tag_value, to_text
from tailrace.schemas.errors import ConfigError
from tailrace.schemas.timestamps import iso_text

MAX_COLUMNS = 2000
"""A slice whose tags have more names is refused."""
FIXED = ("project_id", "trace_id", "name", "start", "duration", "error")
"""The columns before those of the tags."""
SUFFIXES = (".parquet", ".csv", ".jsonl")

_BATCH = 5000
_SPILL_BYTES = 256 << 20
"""Beyond this ClickHouse sorts the traces out on disk."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a data set.

    Args:
        tags: The column of each tag name, in order; a name that collides with a fixed column has `tag.` before it.
        numeric: Names of which every value is a number.
    """

    tags: dict[bytes, str]
    numeric: frozenset[bytes]

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (*FIXED, *self.tags.values())


def columns(reader: Reader, query: Slice, scope: Scope) -> Columns:
    """Which columns the data set of a slice has.

    Raises:
        ConfigError: Too many.
    """
    parameters = Parameters()
    where = scope_where(scope, parameters)
    sql = f"SELECT name, min(kind = 'number') FROM tags WHERE {where}"
    if query.conditions:
        key = trace_key(scope, "trace_hash")
        sql += f" AND {key} IN (SELECT k FROM ({selection(query, scope, parameters)}))"
    rows = reader.rows(f"{sql} GROUP BY name ORDER BY name LIMIT {MAX_COLUMNS + 1}", parameters)
    if len(rows) > MAX_COLUMNS:
        raise ConfigError(
            f"the tags of these traces have more than {MAX_COLUMNS} names, too many for columns: narrow the slice"
        )
    tags: dict[bytes, str] = {}
    for name, _ in rows:
        column = to_text(name)
        while column in FIXED or column in tags.values():
            column = f"tag.{column}"
        tags[name] = column
    return Columns(tags, frozenset(name for name, numeric in rows if numeric))


def dataset(reader: Reader, query: Slice, scope: Scope, chosen: Columns) -> Iterator[list[Row]]:
    """The rows, some at a time, in no order: `FIXED`, then a value for each tag name, `None` where the trace has none.

    Of several tags with one name the last counts. A number is a float in a numeric column (NaN and infinities too);
    elsewhere a value is what was logged, JSON as text.
    """
    parameters = Parameters()
    key = trace_key(scope, "cityHash64(trace_id)")
    where = scope_where(scope, parameters)
    lines = " UNION ALL ".join(_lines(table, key, where) for table in UNIVERSE)
    inside = f"WHERE k IN (SELECT k FROM ({selection(query, scope, parameters)}))" if query.conditions else ""
    sql = (
        "SELECT any(line.project_id), any(line.trace_id), toUnixTimestamp64Micro(min(line.trace_ts)), "
        "toUnixTimestamp64Micro(max(line.last)), max(line.named).2, "
        f"k IN ({errors(scope, parameters)}), groupArrayIf(line.logged, notEmpty(line.logged.3)) "
        f"FROM ({lines}) AS line {inside} GROUP BY k"
    )
    settings = {"max_bytes_before_external_group_by": _SPILL_BYTES, "max_block_size": 8192}
    for block in reader.blocks(sql, parameters, settings):
        yield [_row(chosen, *values) for values in block]


def _lines(table: str, key: str, where: str) -> str:
    logged = "(toDateTime64(0, 6, 'UTC'), toUInt64(0), [], [], [], [])"
    if table == "tag_lines":
        kinds = "arrayMap(kind -> toString(kind), tags.kind)"
        names = "arrayMap(name -> toString(name), tags.name)"
        logged = f"(ts, line_hash, {names}, {kinds}, tags.str, tags.num)"
    else:
        logged = (
            "CAST((toDateTime64(0, 6, 'UTC'), 0, [], [], [], []), "
            "'Tuple(DateTime64(6, \\'UTC\\'), UInt64, Array(String), Array(String), Array(String), Array(Float64))')"
        )
    named = "(toDateTime64(0, 6, 'UTC'), '')"
    if table == "traces":
        named = f"if(name = '', {named}, (ts, name))"
    return (
        f"SELECT {key} AS k, toString(project_id) AS project_id, trace_id, trace_ts, {last_seen(table)} AS last, {named} AS named, "
        f"{logged} AS logged FROM {table} WHERE {where} AND trace_id != ''"
    )


def _row(
    chosen: Columns,
    project: bytes,
    trace_id: bytes,
    start: int,
    last: int,
    name: bytes,
    error: int,
    lines: Sequence[Any],
) -> Row:
    row: Row = {
        "project_id": to_text(project),
        "trace_id": to_text(trace_id),
        "name": to_text(name),
        "start": to_datetime(start),
        "duration": duration_seconds(start, last),
        "error": bool(error),
    }
    row.update(dict.fromkeys(chosen.tags.values()))
    for _, _, names, kinds, texts, numbers in sorted(map(_fields, lines), key=lambda line: line[:2]):
        for tag, kind, text, number in zip(names, kinds, texts, numbers, strict=True):
            if tag in chosen.tags:
                numeric = tag in chosen.numeric
                row[chosen.tags[tag]] = number if numeric else _value(kind, text, number)
    return row


def _value(kind: bytes, text: bytes, number: float) -> str | int | float | bool | None:
    value = tag_value(kind, text, number)
    # No format has integers beyond 64 bits.
    return to_text(text) if isinstance(value, int) and not -(2**63) <= value < 2**63 else value


def _fields(line: Any) -> tuple[Any, ...]:
    return tuple(line.values()) if isinstance(line, dict) else tuple(line)


class _Writer(Protocol):
    def write(self, rows: list[Row]) -> None: ...

    def close(self) -> None: ...


def write_dataset(path: Path, chosen: Columns, blocks: Iterator[list[Row]]) -> int:
    """Write a data set; the file is there as a whole, under its name, or not at all.

    Args:
        path: Its suffix says how: `.parquet`, `.csv` or `.jsonl`.
        chosen: The columns.
        blocks: The rows.

    Returns:
        How many rows it has.

    Raises:
        ConfigError: Another suffix, a file that cannot be written, or pyarrow is missing.
    """
    make = _writer_for(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    written = 0
    try:
        with _unnamed(path.parent) or partial.open("xb") as file:
            writer = make(file, chosen)
            for block in blocks:
                for first in range(0, len(block), _BATCH):
                    writer.write(block[first : first + _BATCH])
                written += len(block)
            writer.close()
            file.flush()
            os.fsync(file.fileno())
            if not partial.exists():
                # A crash between this line and the next leaves a whole data set under the wrong name.
                # The directory is not looked at, but makes Python follow the link to the file.
                os.link(f"/proc/self/fd/{file.fileno()}", partial, src_dir_fd=file.fileno())
        partial.replace(path)
    except OSError as exc:
        raise ConfigError(f"cannot write {path}: {exc.strerror or exc}") from exc
    finally:
        partial.unlink(missing_ok=True)
    return written


def _unnamed(directory: Path) -> IO[bytes] | None:
    """A file that vanishes with its process, however that ends, unless it gets a name; `None` where there are none."""
    try:
        return os.fdopen(os.open(directory, os.O_TMPFILE | os.O_WRONLY, 0o666), "wb")
    except OSError:
        return None


def check_suffix(path: Path) -> None:
    """Refuse a file that `write_dataset` cannot write, before anything is asked.

    Raises:
        ConfigError: See there.
    """
    _writer_for(path)
    if not path.parent.is_dir():
        raise ConfigError(f"cannot write {path}: there is no directory {path.parent}")


def _writer_for(path: Path) -> Callable[[IO[bytes], Columns], _Writer]:
    match path.suffix.lower():
        case ".parquet":
            arrow_module()
            return _Parquet
        case ".csv":
            return _Csv
        case ".jsonl":
            return _Jsonl
        case _:
            raise ConfigError(
                f"{path}: the name must end in {', '.join(SUFFIXES)}, which says how to write it"
            )


def arrow_module() -> Any:
    """pyarrow.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import pyarrow
    except ModuleNotFoundError as exc:
        raise ConfigError("this needs pyarrow: pip install pyarrow") from exc
    return pyarrow


def arrow_schema(chosen: Columns) -> Any:
    """The Arrow schema of a data set: numbers are float64, all other tags text."""
    pa = arrow_module()
    fixed = {"start": pa.timestamp("us", tz="UTC"), "duration": pa.float64(), "error": pa.bool_()}
    fields = [pa.field(name, fixed.get(name, pa.string())) for name in FIXED]
    fields += [
        pa.field(column, pa.float64() if name in chosen.numeric else pa.string())
        for name, column in chosen.tags.items()
    ]
    return pa.schema(fields)


def arrow_table(chosen: Columns, rows: list[Row]) -> Any:
    """Rows of a data set as an Arrow table."""
    pa = arrow_module()
    schema = arrow_schema(chosen)
    arrays = []
    for field in schema:
        cells = [row[field.name] for row in rows]
        if pa.types.is_string(field.type):
            cells = [_as_text(cell) for cell in cells]
        arrays.append(pa.array(cells, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)


class _Parquet:
    def __init__(self, file: IO[bytes], chosen: Columns) -> None:
        import pyarrow.parquet

        self._chosen = chosen
        self._writer: Any = pyarrow.parquet.ParquetWriter(file, arrow_schema(chosen), compression="zstd")

    def write(self, rows: list[Row]) -> None:
        self._writer.write_table(arrow_table(self._chosen, rows))

    def close(self) -> None:
        self._writer.close()


class _Csv:
    def __init__(self, file: IO[bytes], chosen: Columns) -> None:
        import io

        self._text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        self._names = chosen.names
        self._writer = csv.writer(self._text, lineterminator="\n")
        self._writer.writerow(self._names)

    def write(self, rows: list[Row]) -> None:
        self._writer.writerows([_cell(row[name]) for name in self._names] for row in rows)

    def close(self) -> None:
        self._text.flush()
        self._text.detach()


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso_text(value)
    return _as_text(value) if isinstance(value, bool) else value


class _Jsonl:
    """NaN and infinities become null, because JSON has none; tags that a trace does not have are left out."""

    def __init__(self, file: IO[bytes], chosen: Columns) -> None:
        self._file = file
        self._encoder = msgspec.json.Encoder()

    def write(self, rows: list[Row]) -> None:
        self._file.write(
            self._encoder.encode_lines(
                [{k: v for k, v in row.items() if v is not None or k in FIXED} for row in rows]
            )
        )

    def close(self) -> None:
        pass
