"""Where compiled code for lines is, if it is installed: counting, decoding and framing them."""

from __future__ import annotations

import os
from types import ModuleType

compiled_lines: ModuleType | None
try:
    from tailrace.schemas import _lines as compiled_lines
except ImportError:  # installed from source where nothing compiles it
    compiled_lines = None


def wanted_lines() -> ModuleType | None:
    """The compiled code, unless there is none or `TAILRACE_PURE_PYTHON` says that Python is to do what it does."""
    return None if os.environ.get("TAILRACE_PURE_PYTHON", "") in ("1", "true") else compiled_lines
