"""Keeps a process through which gigabytes pass from holding what it has freed, and what it does not need."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

import pyarrow as pa

from tailrace.schemas.malloc import Malloc, tell_malloc

_LARGE_BYTES = 1024 * 1024
_ARENAS = 2


def keep_little() -> None:
    """Makes this process give large buffers back to the system as soon as they are freed, and share the pools of small ones between
    its threads. Where the C library is not glibc only Arrow's buffers are concerned.

    Batches go from thread to thread. By itself glibc keeps a pool for each of them, and raises its bound for "large" to what was
    freed last; Arrow's own pool keeps what a thread freed for that thread. 3 million lines into a server, highest MB of the storing
    process in each tenth of the time, without and with this:

        250 533 634 665 714 764 765 842 848 846
        251 318 422 496 447 531 484 554 519 569
    """
    pa.set_memory_pool(pa.system_memory_pool())
    tell_malloc({Malloc.MMAP_THRESHOLD: _LARGE_BYTES, Malloc.ARENA_MAX: _ARENAS})


def without_pandas() -> None:
    """Keeps pyarrow from loading pandas in this process: a third of a second of CPU and some 50 MB, to see that a list is none of its types.

    pyarrow looks once, at the first list that it is given, whether pandas can be imported; where that happened already nothing
    changes. Only for processes of our own that make no use of pandas: afterwards pyarrow converts nothing from or to it.
    """
    if "pandas" in sys.modules:
        return
    hidden = _Hidden()
    sys.meta_path.insert(0, hidden)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(hidden)


class _Hidden(MetaPathFinder):
    """While it is the first finder, pandas is not installed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `importlib`."""
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname)
        return None
