"""Lines → Arrow columns in compiled code (`schemas/rust/`), an order of magnitude faster than the decoders in Python.

It makes a row of a line only where they would make the very same one, and refuses every other line; these go through Python,
which reads what is rare or odd, and says what is wrong with the rest. Where the compiled code is not installed, or
`TAILRACE_PURE_PYTHON=1` is set, all lines do.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import pyarrow as pa

from tailrace.ingestor.arrow import INSTANT, numbers, texts
from tailrace.schemas.compiled_lines import compiled_lines, wanted_lines

log = logging.getLogger(__name__)

_TEXT, _BINARY, _INT32 = pa.string(), pa.binary(), pa.int32()
_INSTANTS = frozenset({"ts", "trace_ts"})
_NUMBERS = {
    "int8": pa.int8(),
    "int32": _INT32,
    "int64": pa.int64(),
    "uint64": pa.uint64(),
    "float64": pa.float64(),
}


class Refused(NamedTuple):
    """A line that the compiled code makes no row of.

    Args:
        number: How many lines of the block come before it.
        start: Its first byte in the block.
        end: The byte after its last one, without the line feed.
    """

    number: int
    start: int
    end: int


class Survey(NamedTuple):
    """What lines say that are all records.

    Args:
        lines: How many.
        dialects: Lines by dialect.
        kinds: Lines by kind.
        earliest: The smallest of their times, in microseconds since the epoch.
        latest: The largest of them.
    """

    lines: int
    dialects: dict[str, int]
    kinds: dict[str, int]
    earliest: int
    latest: int


def is_available() -> bool:
    """Whether lines are decoded by compiled code in this process."""
    return wanted_lines() is not None


class CompiledColumns:
    """The rows of one batch. Not for use by several threads at once; other threads run while it decodes.

    Args:
        max_line_bytes: A longer line is refused.
    """

    def __init__(self, max_line_bytes: int) -> None:
        if compiled_lines is None:
            raise RuntimeError("the compiled decoder is not installed")
        self._columns = compiled_lines.Columns(max_line_bytes)

    def add(self, block: bytes) -> tuple[int, int, list[Refused]]:
        """Appends the rows of lines.

        Args:
            block: Lines with a line feed between them; the last one may have one.

        Returns:
            How many lines these are, how many of them became rows, and all others.

        Raises:
            RuntimeError: The compiled code is wrong somewhere. All lines of the batch have to be decoded in Python.
        """
        lines, rows, refused = self._columns.add(block)
        return lines, rows, [Refused(*line) for line in refused]

    def to_arrow(self) -> dict[str, pa.Table]:
        """The tables that got rows, each a single record batch."""
        return {name: _table(columns) for name, (_, columns) in self._columns.tables().items()}


def survey(block: bytes, max_line_bytes: int) -> Survey | None:
    """What the lines of a block say; `None` where any of them is no record, or may be none, or no compiled code is there.

    Args:
        block: Lines with a line feed between them; the last one may have one. Not empty.
        max_line_bytes: A longer line is no record.
    """
    if compiled_lines is None or not is_available():
        return None
    try:
        found = compiled_lines.survey(block, max_line_bytes)
    except RuntimeError as exc:
        log.warning("compiled code could not read these lines, Python does: %s", exc)
        return None
    return None if found is None else Survey(*found)


def _table(columns: dict[str, tuple[Any, ...]]) -> pa.Table:
    found: dict[str, pa.Array] = {}
    ends = None
    for name, (form, *parts) in columns.items():
        if name == "tags":
            ends = numbers(_INT32, *parts)
        elif name.startswith("tags."):
            found[name] = pa.ListArray.from_arrays(ends, _array(form, parts))
        else:
            found[name] = numbers(INSTANT, *parts) if name in _INSTANTS else _array(form, parts)
    return pa.table(found)


def _array(form: str, parts: list[bytes]) -> pa.Array:
    if form == "interned":
        codes, *values = parts
        return pa.DictionaryArray.from_arrays(numbers(_INT32, codes), texts(_TEXT, *values))
    if form in _NUMBERS:
        return numbers(_NUMBERS[form], *parts)
    return texts(_TEXT if form == "text" else _BINARY, *parts)
