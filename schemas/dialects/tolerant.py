"""JSON as Python's own json module reads and writes it: with NaN, Infinity, lone surrogates, big integers.

Slower than the typed decoders by an order of magnitude, and only for what they refuse.
"""

from __future__ import annotations

import json
from typing import Any

from msgspec import Raw

from tailrace.schemas.errors import Reason, RecordError


def parse(line: bytes) -> dict[str, Any]:
    """JSON as Python's json module takes it, which has the tokens NaN, Infinity and -Infinity."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as exc:
        try:
            text = line.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise RecordError(
                Reason.NOT_UTF8,
                f"byte {exc.start} (0x{line[exc.start]:02x}) is not UTF-8: {exc.reason}",
                exc.start,
            ) from exc
    try:
        document = json.loads(text)
    except json.JSONDecodeError as exc:
        column = len(text[: exc.pos].encode("utf-8", "surrogatepass"))
        raise RecordError(Reason.NOT_JSON, f"not JSON: {exc.msg} at byte {column}", column) from exc
    except RecursionError as exc:
        raise RecordError(Reason.TOO_DEEP, "nested too deep to be read") from exc
    except ValueError as exc:
        # CPython refuses integers of more than 4,300 digits.
        raise RecordError(Reason.WRONG_SHAPE, f"a number is too long to be read: {exc}") from exc
    if not isinstance(document, dict):
        raise RecordError(Reason.WRONG_SHAPE, f"expected an object, got {_json_type(document)}")
    return document


def _json_type(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def to_raw(value: object) -> Raw:
    """JSON text of a parsed value; NaN and infinities as the tokens that Python's json module reads back."""
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, separators=(",", ":")).encode("ascii")
    return Raw(text)
