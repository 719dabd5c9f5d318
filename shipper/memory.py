"""Keeps a process through which gigabytes pass from asking the system for memory over and over."""

from __future__ import annotations

from tailrace.schemas.malloc import Malloc, tell_malloc

_KEPT_BYTES = 256 * 1024 * 1024
_LARGE_BYTES = 32 * 1024 * 1024


def keep_buffers() -> None:
    """Makes this process hold the buffers that it frees, for the next ones; where the C library is not glibc nothing is done.

    By itself glibc takes a block that is read, and a request that is sent, from the system and gives it back, and the system
    clears each page anew: without compression a third of the CPU. What is held is at most what was in use at once.
    """
    tell_malloc(
        {Malloc.MMAP_THRESHOLD: _LARGE_BYTES, Malloc.TRIM_THRESHOLD: _KEPT_BYTES, Malloc.ARENA_MAX: 1}
    )
