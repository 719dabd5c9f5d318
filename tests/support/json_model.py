"""What JSON keeps of a Python value, written down a second time: what `tailrace.jsonable` documents, not how it does it."""

from __future__ import annotations

import json
import math
from typing import Any

NON_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def kept_text(text: str) -> str:
    """A lone surrogate becomes its escape, as six characters."""
    return "".join(f"\\u{ord(c):04x}" if 0xD800 <= ord(c) <= 0xDFFF else c for c in text)


def kept(value: Any, *, tokens: bool = True) -> Any:
    """The value that a reader gets.

    Args:
        value: Made of None, bool, int, float, str, list, tuple and dict.
        tokens: NaN and infinities stay numbers; else they are their names.
    """
    if isinstance(value, str):
        return kept_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return value if tokens else NON_FINITE[repr(value)]
    if isinstance(value, list | tuple):
        return [kept(item, tokens=tokens) for item in value]
    if isinstance(value, dict):
        made: dict[str, Any] = {}
        for key, item in value.items():
            name = kept_text(key) if isinstance(key, str) else kept_key(key)
            while name in made:
                name += "_"
            made[name] = kept(item, tokens=tokens)
        return made
    return value


def kept_key(key: Any) -> str:
    return json.dumps(key)


def same(one: Any, other: Any) -> bool:
    """Equal in value and type all the way down, with NaN like NaN and -0.0 unlike 0.0."""
    return repr(one) == repr(other)
