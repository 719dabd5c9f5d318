"""How answers are printed: tables for people, JSON and CSV for programs. The only place that writes to stdout for them."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec
from rich.cells import cell_len, set_cell_size

if TYPE_CHECKING:
    from rich.table import Table

CELL_WIDTH = 80
"""Longer texts are cut in tables, never in JSON or CSV."""
_CARET_WIDTH = 72


class OutputFormat(StrEnum):
    """How an answer is printed."""

    table = "table"
    json = "json"
    csv = "csv"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; numbers stand to the right."""

    title: str
    right: bool = False


def print_line(text: str = "") -> None:
    """One line of text for people, without control characters."""
    print(visible(text))


def print_table(
    columns: Sequence[Column], rows: Iterable[Sequence[str]], *, last_apart: bool = False
) -> None:
    """A table: drawn on a terminal, aligned plain columns anywhere else.

    Args:
        columns: Titles.
        rows: Their cells; control characters are made visible and long texts are cut.
        last_apart: The last row is a summary of the others.
    """
    cells = [[_cut(visible(cell)) for cell in row] for row in rows]
    from rich.console import Console  # most commands draw no table, and this takes longer than to start them

    console = Console()
    if console.is_terminal:
        console.print(_drawn(columns, cells, last_apart))
        return
    table = [[column.title for column in columns], *cells]
    widths = [max(cell_len(row[index]) for row in table) for index in range(len(columns))]
    for row in table:
        print("  ".join(_pad(*item) for item in zip(row, widths, columns, strict=True)).rstrip())


def _drawn(columns: Sequence[Column], cells: list[list[str]], last_apart: bool) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column.title, justify="right" if column.right else "left", overflow="fold")
    for number, row in enumerate(cells, 1):
        if last_apart and number == len(cells) > 1:
            table.add_section()
        table.add_row(*(Text(cell) for cell in row))
    return table


def _pad(cell: str, width: int, column: Column) -> str:
    space = " " * (width - cell_len(cell))
    return space + cell if column.right else cell + space


def _cut(text: str) -> str:
    return text if cell_len(text) <= CELL_WIDTH else set_cell_size(text, CELL_WIDTH - 1).rstrip() + "…"


def print_json(document: Any) -> None:
    """One JSON document, from structs or plain values. NaN and infinities become null."""
    plain = _without_nan(msgspec.to_builtins(document))
    text = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        # A lone surrogate in something that a service logged; as an escape it is JSON all the same.
        text = json.dumps(plain, indent=2, allow_nan=False)
    print(text)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value


def print_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """CSV with a header line; a value that does not exist is an empty field."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)


def visible(text: str) -> str:
    """Text that cannot move a terminal's cursor or hide what it says: control characters are shown as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def number(value: float | int | None) -> str:
    """A number for people: `1,234`, `0.0123`; `-` for one that does not exist."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    size = abs(value)
    if size >= 1e9 or 0 < size < 1e-3:
        return f"{value:.3g}"
    return f"{value:,.0f}" if size >= 10_000 else f"{value:,.4g}"


def percent(share: float | None) -> str:
    """`1.25 %`; `-` where there is nothing to take a share of."""
    return "-" if share is None else f"{share * 100:.3g} %"


def seconds(duration: float | None) -> str:
    """`1.250 s`, `3.1 ms`, `2:05:00`; `-` where it is not known."""
    if duration is None:
        return "-"
    if duration < 1:
        return f"{duration * 1000:.3g} ms"
    if duration < 60:
        return f"{duration:.3f} s"
    minutes, rest = divmod(round(duration), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def caret(text: str, column: int) -> str:
    """Two lines: the text around a column, and a caret under it.

    Args:
        text: As it was typed; line breaks and control characters are shown as one character each.
        column: From 0, in characters; the end of the text is allowed.
    """
    first = max(0, min(column - _CARET_WIDTH // 2, len(text) - _CARET_WIDTH))
    shown = "".join(c if c.isprintable() else "�" for c in text[first : first + _CARET_WIDTH])
    before, after = "…" if first else "", "…" if first + _CARET_WIDTH < len(text) else ""
    space = cell_len(before + shown[: column - first])
    return f"{before}{shown}{after}\n{' ' * space}^"
