"""What the C library's allocator is told, where that is glibc."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from enum import IntEnum


class Malloc(IntEnum):
    """Options of `mallopt`, by their numbers in glibc's <malloc.h>."""

    TRIM_THRESHOLD = -1
    """Bytes free at the end of the heap that are kept."""
    MMAP_THRESHOLD = -3
    """Bytes from which on a block is taken from the system, and given back when it is freed."""
    ARENA_MAX = -8
    """How many pools threads share."""


def tell_malloc(options: dict[Malloc, int]) -> None:
    """Sets options of this process; of another C library than glibc nothing is asked."""
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in options.items():
            mallopt(int(option), value)
