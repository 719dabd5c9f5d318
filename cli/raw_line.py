"""Raw bytes on a terminal: nothing in them can move its cursor, and a place in them can be pointed at."""

from __future__ import annotations

from rich.cells import cell_len

from tailrace.cli.render import visible

WIDTH = 160
"""Bytes shown around a place at most."""


def shown(raw: bytes) -> str:
    """All bytes as printable text: what is no UTF-8 or no printable character as an escape."""
    return visible(raw.decode("utf-8", "backslashreplace"))


def pointed(raw: bytes, column: int | None, width: int = WIDTH) -> tuple[str, str]:
    """The bytes around a place, and the spaces and caret that go under them.

    Args:
        raw: The line.
        column: Byte in it, from 0; `None` for none: then the beginning is shown, and no caret.
        width: How many bytes to show.
    """
    if column is None or column > len(raw):
        return shown(raw[:width]) + ("…" if len(raw) > width else ""), ""
    start = _boundary(raw, max(0, min(column - width // 2, len(raw) - width)))
    column = _boundary(raw, column)
    before = ("…" if start else "") + shown(raw[start:column])
    after = shown(raw[column : start + width]) + ("…" if start + width < len(raw) else "")
    return before + after, f"{' ' * cell_len(before)}^"


def _boundary(raw: bytes, position: int) -> int:
    """The beginning of the character that holds this byte."""
    for back in range(4):
        if position - back >= 0 and (position >= len(raw) or raw[position - back] & 0xC0 != 0x80):
            return position - back
    return position
