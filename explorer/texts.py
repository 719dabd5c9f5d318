"""From stored bytes to what people and programs read.

Text that a service logged may hold lone surrogates, which are stored as their three bytes (WTF-8); JSON may hold
NaN and Infinity, as Python writes them.
"""

from __future__ import annotations

import json
import math
from typing import Any

_MAX_DIGITS = 4_300  # what Python reads
MAX_DEPTH = 100
"""Deepest JSON that is given as a value."""


def to_text(data: bytes) -> str:
    """Text that can be printed and encoded anywhere: what is not UTF-8 is shown as an escape (`\\ud800`, `\\xff`)."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        pass
    try:
        return data.decode("utf-8", "surrogatepass").encode("utf-8", "backslashreplace").decode()
    except UnicodeDecodeError:
        return data.decode("utf-8", "backslashreplace")


def to_preview(data: bytes) -> str:
    """Text that was cut at some byte: a last character that is not whole is left out."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return to_text(data[:-back] if back < length else data)
        if byte < 0x80:
            break
    return to_text(data)


def to_json_value(data: bytes) -> Any:
    """The value that JSON bytes hold; `None` for nothing at all.

    What nests deeper than `MAX_DEPTH` stays the text that it is, so that no reader of an answer runs out of stack.
    """
    if not data:
        return None
    try:
        value = json.loads(data.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        return to_text(data)
    return to_text(data) if _too_deep(value) else value


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def tag_value(kind: bytes | str, text: bytes, number: float) -> str | int | float | bool | None:
    """A tag's value as the service had it; text for JSON, and for numbers that JSON does not have (`NaN`)."""
    if isinstance(kind, bytes):
        kind = kind.decode()
    if kind == "null":
        return None
    if kind == "bool":
        return number != 0
    if kind != "number":
        return to_text(text)
    # The text keeps what a float cannot: an integer stays one, whatever its size.
    if text.lstrip(b"+-").isdigit() and len(text) <= _MAX_DIGITS:
        return int(text)
    return number if math.isfinite(number) else to_text(text)
