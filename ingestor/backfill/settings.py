"""How a backfill works, fixed at start."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field

import msgspec

from tailrace.ingestor.backfill.select import Selection
from tailrace.ingestor.settings import MIB, RetryPolicy
from tailrace.schemas.errors import ConfigError


@dataclass(frozen=True, slots=True)
class BackfillSettings:
    """Everything besides the connections.

    Args:
        paths: Files, directories, patterns, URLs, or `-` for standard input.
        workers: How many read and decode, each a process or, where `run.decodes_in_threads` says so, a thread; 0 for one thread.
        selection: Which lines, and as what.
        max_line_bytes: A longer line becomes a dead letter, kept by its head.
        rate: Lines a second at most; 0 for as fast as it goes.
        dry_run: Read and decode, say what would happen, store nothing.
        range_bytes: Where ranges are cut. Part of their identity: another value makes other ranges of the same files, whose
            rows are then looked for one by one.
        section_bytes: A plain file is read by several workers in sections of this size at most; a multiple of `range_bytes`.
        batch_bytes: Lines in one insert, unless they are spread over many days.
        spread_bytes: Lines in one insert when they are: every day is a part on disk, so fewer and larger inserts are made.
        spread_days: What counts as many.
        settled_seconds: A last line without a newline is complete when its file has not changed for so long.
        retry: How to wait while ClickHouse is away.

    Raises:
        ConfigError: Values that cannot work.
    """

    paths: tuple[str, ...]
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    selection: Selection = field(default_factory=Selection)
    max_line_bytes: int = 8 * MIB
    rate: float = 0.0
    dry_run: bool = False
    range_bytes: int = 8 * MIB
    section_bytes: int = 64 * MIB
    batch_bytes: int = 96 * MIB
    spread_bytes: int = 96 * MIB
    spread_days: int = 50
    settled_seconds: float = 10.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    def __post_init__(self) -> None:
        if not self.paths:
            raise ConfigError(
                "no paths are given: name files, directories, patterns or URLs, or - for standard input"
            )
        if self.workers < 0:
            raise ConfigError("--workers must be 0 or more")
        if self.rate < 0:
            raise ConfigError("--rate must be positive")
        if self.max_line_bytes < 1024:
            raise ConfigError("max_line_bytes must be 1024 or more: less would reject ordinary lines")
        if self.range_bytes < 1 or self.section_bytes % self.range_bytes:
            raise ConfigError("section_bytes must be a multiple of range_bytes")

    @property
    def scope(self) -> str:
        """Names what is stored of each line: empty for everything as it is. Part of a stream's name."""
        if self.selection == Selection():
            return ""
        return hashlib.blake2b(msgspec.json.encode(self.selection), digest_size=8).hexdigest()
