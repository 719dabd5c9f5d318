"""Arrow arrays from what lies in memory as Arrow has it.

`pyarrow.array` imports pandas, where it is installed, to ask whether what it is given is a Series: a second of an ingestor's start.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import pyarrow as pa

_TYPECODES = {pa.int8(): "b", pa.int32(): "i", pa.uint32(): "I", pa.int64(): "q", pa.uint64(): "Q"}
INSTANT = pa.timestamp("us", "UTC")
_TYPECODES[INSTANT] = "q"


def numbers(kind: pa.DataType, values: Any) -> pa.Array:
    """Numbers, or times as numbers.

    Args:
        kind: Of a fixed width.
        values: Their bytes, one after the other.
    """
    return pa.Array.from_buffers(kind, len(values) * 8 // kind.bit_width, [None, pa.py_buffer(values)])


def texts(kind: pa.DataType, offsets: Any, text: Any) -> pa.Array:
    """Texts or payloads.

    Args:
        kind: `pa.string()` or `pa.binary()`.
        offsets: The bytes of one more number of 32 bits than there are values.
        text: The bytes of all values.
    """
    return pa.Array.from_buffers(
        kind, len(offsets) // 4 - 1, [None, pa.py_buffer(offsets), pa.py_buffer(text)]
    )


def few_numbers(kind: pa.DataType, values: Iterable[int]) -> pa.Array:
    """A column of integers, or of microseconds since the epoch."""
    return numbers(kind, array(_TYPECODES[kind], values).tobytes())


def few_texts(values: Sequence[str]) -> pa.Array:
    """A column of texts; of bytes where UTF-8 cannot hold one of them (lone surrogates), which go as WTF-8."""
    try:
        kind, parts = pa.string(), [value.encode() for value in values]
    except UnicodeEncodeError:
        kind, parts = pa.binary(), [value.encode("utf-8", "surrogatepass") for value in values]
    return few_payloads(parts, kind)


def few_payloads(values: Sequence[bytes], kind: pa.DataType | None = None) -> pa.Array:
    """A column of bytes."""
    ends = array("i", accumulate(map(len, values), initial=0))
    return texts(kind or pa.binary(), ends.tobytes(), b"".join(values))
