"""Keeps a long run from holding what it has freed."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_MMAP_THRESHOLD, _ARENA_MAX = -3, -8  # of glibc's <malloc.h>
_LARGE_BYTES = 1024 * 1024
_ARENAS = 2


def keep_little() -> None:
    """Makes this process give large buffers back to the system as soon as they are freed, and share the pools of the small ones
    between its threads. Where the C library is not glibc nothing changes.

    By itself glibc raises its bound for "large" to what was freed last, keeps a pool for each thread, and batches go from thread to
    thread: over a long run their holes added up to a third of a backfill's memory.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_ARENA_MAX, _ARENAS)
