"""Text as part of a statement, where ClickHouse has no parameter for it: names of tables that it makes, settings of a statement."""

from __future__ import annotations


def quote(value: str) -> str:
    """A string literal. ClickHouse turns it into a number where a setting is one."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quote_name(name: str) -> str:
    """An identifier in backticks."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
