"""How many lines there are, and where compiled code for lines is, if it is installed."""

from __future__ import annotations

import os
from io import BytesIO
from types import ModuleType

compiled_lines: ModuleType | None
try:
    from tailrace.schemas import _lines as compiled_lines
except ImportError:  # installed from source where nothing compiles it
    compiled_lines = None


def wanted_lines() -> ModuleType | None:
    """The compiled code, unless there is none or `TAILRACE_PURE_PYTHON` says that Python is to do what it does."""
    return None if os.environ.get("TAILRACE_PURE_PYTHON", "") in ("1", "true") else compiled_lines


SAMPLE_BYTES, SHORT_LINES = 4096, 32
"""With as many lines in its first bytes, data is taken to be of short lines: of 128 bytes or less."""


def count_line_feeds(block: bytes) -> int:
    """How many there are."""
    if compiled_lines is not None:
        found: int = compiled_lines.count_line_feeds(block)
        return found
    if block.count(b"\n", 0, SAMPLE_BYTES) < SHORT_LINES:
        # `count` compares byte by byte. This searches as fast as memory is read, and then makes an object of each line.
        return len(BytesIO(block).readlines()) - (block[-1:] not in (b"\n", b""))
    return block.count(b"\n")
