"""Where in a line of JSON a fault is, from the path that the fault's sentence names (`$.jcr.data[2].value`) or from
where such faults usually are."""

from __future__ import annotations

import re
from json.decoder import scanstring  # type: ignore[attr-defined]  # in the module's documentation, not in its stub

from tailrace.schemas.errors import Reason

_PATH = re.compile(r"`(\$[^`]*)`")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_SPACE = re.compile(r"[ \t\r\n]*")
_SCALAR = re.compile(r"[^,\]} \t\r\n]+")
_DEEPEST = 200
_USUAL: dict[str, tuple[str, ...]] = {
    Reason.BAD_TIMESTAMP: ("$.ts", "$.jcr.timestamp", "$.timestamp"),
    Reason.UNKNOWN_KIND: ("$.kind", "$.type", "$.dtype"),
    Reason.UNKNOWN_VERSION: ("$.v",),
    Reason.MISSING_FIELD: ("$",),
}
"""Where to look when the sentence names no path."""


class _NotThere(Exception):
    """The text does not go on as JSON, or has no such member."""


def position_of(line: bytes, reason: str, detail: str) -> int | None:
    """Byte in the line of the value at fault, or of the object that lacks a field.

    Args:
        line: The line.
        reason: The class of fault.
        detail: Its sentence, which may name a path.

    Returns:
        `None` when nothing tells the place, or the line has no such place.
    """
    if found := _PATH.search(detail):
        paths: tuple[str, ...] = (found[1],)
    else:
        paths = _USUAL.get(reason, ())
    try:
        text = line.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None
    for path in paths:
        at = _find(text, path)
        if at is not None:
            return len(text[:at].encode("utf-8", "surrogatepass"))
    return None


def _find(text: str, path: str) -> int | None:
    steps = [name or int(index) for name, index in _STEP.findall(path) if index != "..."]
    try:
        at = _skip_space(text, 0)
        for step in steps:
            at = _member(text, at, step) if isinstance(step, str) else _item(text, at, step)
    except (_NotThere, ValueError, IndexError):
        return None
    return at


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()


def _member(text: str, at: int, name: str) -> int:
    """Where the value of a member begins; of the last one, where a name stands twice, since that one counts."""
    if text[at] != "{":
        raise _NotThere
    place = None
    at = _skip_space(text, at + 1)
    while text[at] != "}":
        key, at = scanstring(text, at + 1, True)
        at = _skip_space(text, _skip_space(text, at) + 1)
        if key == name:
            place = at
        at = _skip_space(text, _end(text, at, 0))
        if text[at] == ",":
            at = _skip_space(text, at + 1)
    if place is None:
        raise _NotThere
    return place


def _item(text: str, at: int, index: int) -> int:
    if text[at] != "[":
        raise _NotThere
    at = _skip_space(text, at + 1)
    for _ in range(index):
        at = _skip_space(text, _end(text, at, 0))
        if text[at] != ",":
            raise _NotThere
        at = _skip_space(text, at + 1)
    return at


def _end(text: str, at: int, depth: int) -> int:
    """Where the value that begins here ends."""
    if depth > _DEEPEST:
        raise _NotThere
    if text[at] == '"':
        return int(scanstring(text, at + 1, True)[1])
    if text[at] not in "{[":
        match = _SCALAR.match(text, at)
        if match is None:
            raise _NotThere
        return match.end()
    is_object, closing = text[at] == "{", "}" if text[at] == "{" else "]"
    at = _skip_space(text, at + 1)
    while text[at] != closing:
        if is_object:
            at = scanstring(text, at + 1, True)[1]
            at = _skip_space(text, _skip_space(text, at) + 1)
        at = _skip_space(text, _end(text, at, depth + 1))
        if text[at] == ",":
            at = _skip_space(text, at + 1)
        elif text[at] != closing:
            raise _NotThere
    return at + 1
