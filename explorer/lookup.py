"""Finding the lines of one trace without reading the rest."""

# ruff: noqa: S608 - queries are put together from constants here; every value is a bound parameter
from __future__ import annotations

from collections.abc import Iterable

from tailrace.explorer.reader import Parameters, Reader
from tailrace.schemas.timestamps import trace_start


def within(first: int, last: int, parameters: Parameters) -> str:
    """A condition on `trace_ts` (both ends included) that also prunes by the hour, the second column of the sort keys."""
    low, high = parameters.add(first, "Int64"), parameters.add(last, "Int64")
    hour_low, hour_high = parameters.add(_hour(first), "Int64"), parameters.add(_hour(last), "Int64")
    return (
        f"trace_ts BETWEEN fromUnixTimestamp64Micro({low}, 'UTC') AND fromUnixTimestamp64Micro({high}, 'UTC') "
        f"AND intDiv(toUnixTimestamp64Second(trace_ts), 3600) BETWEEN {hour_low} AND {hour_high}"
    )


def with_rows(reader: Reader, tables: Iterable[str]) -> list[str]:
    """Those of the tables that are not empty: to find nothing in one takes as long as to find something.

    A table that does not know how many rows it has, as a Distributed one, counts as one that has some.
    """
    names = list(tables)
    parameters = Parameters()
    sql = (
        "SELECT name FROM system.tables WHERE database = currentDatabase() "
        f"AND name IN {parameters.add(names, 'Array(String)')} AND ifNull(total_rows, 1) > 0"
    )
    known = {name.decode() for (name,) in reader.rows(sql, parameters)}
    return [name for name in names if name in known]


def _hour(micros: int) -> int:
    """As the sort keys have it: towards zero, also before 1970."""
    seconds = micros // 1_000_000
    return seconds // 3600 if seconds >= 0 else -(-seconds // 3600)


def id_start(trace_id: str) -> int | None:
    """The time that an id tells, taken on trust; `None` when it is not a UUIDv7."""
    digits = trace_id.replace("-", "")
    try:
        said = int(digits[:12], 16) * 1000
    except ValueError:
        return None
    return trace_start(trace_id, said)


def duration_seconds(start: int, last: int) -> float:
    """Seconds between two times in microseconds; none when clocks disagree about their order."""
    return max(last - start, 0) / 1_000_000
