"""Runs queries: the one place that touches the driver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tailrace.schemas.clickhouse.connection import translated


class Parameters:
    """Values bound to a query on the server, under names that we make. Nothing a user typed becomes SQL text."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def add(self, value: Any, type: str) -> str:
        """Remember a value and return its placeholder, for example `{p0:String}`."""
        name = f"p{len(self._values)}"
        self._values[name] = value
        return f"{{{name}:{type}}}"

    @property
    def values(self) -> Mapping[str, Any]:
        """By name, as the driver takes them."""
        return self._values


class Reader:
    """A clickhouse-connect client that gives rows.

    Args:
        client: Its database is the one that is read. Not safe for use by several threads at once.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def rows(self, sql: str, parameters: Parameters) -> list[tuple[Any, ...]]:
        """All rows. Strings are bytes: what is stored need not be UTF-8.

        Raises:
            ClickHouseUnavailable: Nothing answers, or it is overloaded.
            ClickHouseRejected: It refuses; `SchemaMismatch` when tables are missing.
        """
        with translated("ClickHouse"):
            result = self._client.query(
                sql, parameters=dict(parameters.values), query_formats={"String": "bytes"}
            )
            return list(result.result_rows)
