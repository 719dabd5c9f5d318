"""Runs queries: the one place that touches the driver."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any

from tailrace.schemas.clickhouse.connection import error_code, translate
from tailrace.schemas.errors import ClickHouseRejected

MAX_SECONDS = 60
"""ClickHouse stops a question that takes longer, unless told otherwise."""

_SETTINGS = {
    # The keys of a set are hashes: looking for ranges of them in the index costs and finds nothing.
    "use_index_for_in_with_subqueries": 0,
}
_TIMEOUT, _TOO_SLOW, _MEMORY, _READ_ONLY = 159, 160, 241, 164
_LATE = "narrow it with --project, --since and --until, or with a condition that few traces satisfy"


class Parameters:
    """Values bound to a query on the server, under names that we make. Nothing a user typed becomes SQL text."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def add(self, value: Any, type: str) -> str:
        """Remember a value and return its placeholder, for example `{p0:String}`."""
        name = f"p{len(self._values)}"
        self._values[name] = value
        return f"{{{name}:{type}}}"

    def add_texts(self, texts: Iterable[bytes]) -> str:
        """Remember texts that need not be UTF-8, which parameters must be, and return what follows IN."""
        placeholders = (self.add(text.hex(), "String") for text in texts)
        return f"({', '.join(f'unhex({one})' for one in placeholders)})"

    @property
    def values(self) -> Mapping[str, Any]:
        """By name, as the driver takes them."""
        return self._values


class Reader:
    """A clickhouse-connect client that gives rows.

    Args:
        client: Its database is the one that is read. Not safe for use by several threads at once.
        max_seconds: ClickHouse stops a query that takes longer.
    """

    def __init__(self, client: Any, max_seconds: float = MAX_SECONDS) -> None:
        self._client = client
        self._max_seconds = max_seconds
        self.texts: dict[tuple[str, str], list[bytes]] = {}
        """By project and name, texts that a tag was seen to have, where they are few."""
        self.estimates: dict[Hashable, int] = {}
        """By what was asked, how many rows ClickHouse said it would read: good for an order, and for nothing else."""
        self._keeps: bool | None = None
        self._settings: dict[str, Any] = {**_SETTINGS, "max_execution_time": max_seconds}

    def shared(self, tables: Mapping[str, str]) -> str:
        """What follows WITH: SELECTs by name, each of which is run once where ClickHouse can do so, however often it is named.

        Whether it can is asked by a query of its own, which also finds out in time whether this user may change settings.
        """
        if self._keeps is None:
            found = self.rows(
                "SELECT count() FROM system.settings WHERE name = 'enable_materialized_cte'", Parameters()
            )
            self._keeps = bool(found[0][0])
            if self._keeps and self._settings:
                self._settings["enable_materialized_cte"] = 1
        once = "MATERIALIZED " if self._keeps and self._settings else ""
        return ", ".join(f"{name} AS {once}({sql})" for name, sql in tables.items())

    def rows(
        self, sql: str, parameters: Parameters, settings: Mapping[str, Any] | None = None
    ) -> list[tuple[Any, ...]]:
        """All rows. Strings are bytes: what is stored need not be UTF-8.

        Args:
            sql: The query.
            parameters: Its values.
            settings: ClickHouse's, for this query, where this user may change settings.

        Raises:
            ClickHouseUnavailable: Nothing answers, or it is overloaded.
            ClickHouseRejected: It refuses, or the answer takes too long or too much memory; `SchemaMismatch` when
                tables are missing.
        """
        result = self._run(self._client.query, sql, parameters, settings or {})
        return list(result.result_rows)

    def blocks(
        self, sql: str, parameters: Parameters, settings: Mapping[str, Any]
    ) -> Iterator[list[tuple[Any, ...]]]:
        """The rows as they come, some thousands at a time, without a limit of time. Raises as `rows`.

        Args:
            sql: The query.
            parameters: Its values.
            settings: ClickHouse's, for this query.
        """
        more = {"max_execution_time": 0, **settings}
        stream = self._run(self._client.query_row_block_stream, sql, parameters, more)
        try:
            with stream:
                for block in stream:
                    yield list(block)
        except Exception as exc:
            raise self._explained(exc) from exc

    def _run(
        self, query: Callable[..., Any], sql: str, parameters: Parameters, settings: Mapping[str, Any]
    ) -> Any:
        arguments = {"parameters": dict(parameters.values), "query_formats": {"String": "bytes"}}
        try:
            return query(
                sql, settings={**self._settings, **settings} if self._settings else None, **arguments
            )
        except Exception as exc:
            if self._settings and _is_read_only(exc):
                # A user that may not change settings gets slower answers, not none.
                self._settings = {}
                return self._run(query, sql, parameters, settings)
            raise self._explained(exc) from exc

    def _explained(self, exc: Exception) -> Exception:
        code = error_code(exc)
        if code in (_TIMEOUT, _TOO_SLOW):
            return ClickHouseRejected(
                f"the answer would take longer than {self._max_seconds:g} s: {_LATE}", code
            )
        if code == _MEMORY:
            return ClickHouseRejected(f"the answer takes more memory than ClickHouse may use: {_LATE}", code)
        return translate(exc, "ClickHouse")


def _is_read_only(exc: Exception) -> bool:
    """Whether it is about settings that may not be changed: ClickHouse's refusal, or the driver's before it asks."""
    return error_code(exc) == _READ_ONLY or "is readonly" in str(exc)
