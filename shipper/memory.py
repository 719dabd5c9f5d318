"""Keeps a process through which gigabytes pass from asking the system for memory over and over."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of glibc's <malloc.h>
_KEPT_BYTES = 256 * 1024 * 1024
_LARGE_BYTES = 32 * 1024 * 1024


def keep_buffers() -> None:
    """Makes this process hold the buffers that it frees, for the next ones; where the C library is not glibc nothing is done.

    By itself glibc takes a block that is read, and a request that is sent, from the system and gives it back, and the system
    clears each page anew: without compression a third of the CPU. What is held is at most what was in use at once.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_ARENA_MAX, 1)
