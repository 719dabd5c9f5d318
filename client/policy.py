"""What a logger asks of every trace before a line is put together: sampling, redaction, the size of objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tailrace.schemas.errors import ConfigError

Redact = Callable[[str, Any], Any]
"""Given what a value is (`message`, `tag:<name>`, `object:<ref>`, `input`, `output`, `metadata`, `user`, `features`, …)
and the value, returns what to write in its place."""


class Oversized(StrEnum):
    """What becomes of an object over the limit."""

    SPILL = "spill"
    """It is written beside the log, under the hash of its content; the line names it."""
    TRUNCATE = "truncate"
    """The line holds its beginning, marked as such."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Built once, by the constructor of a logger.

    Args:
        sample_rate: Share of traces that are written, from 0 to 1. The trace id decides, so all services agree.
        redact: Called for every value that the service logs, in the thread that logs it. When it raises, the value is
            replaced by a text that says so, and counted as altered.
        max_object_bytes: Of the JSON of one object in a line.
        oversized: What becomes of a larger one.

    Raises:
        ConfigError: A number out of its range.
    """

    sample_rate: float = 1.0
    redact: Redact | None = None
    max_object_bytes: int = 1024 * 1024
    oversized: Oversized = Oversized.SPILL

    def __post_init__(self) -> None:
        if not 0.0 <= self.sample_rate <= 1.0:
            raise ConfigError(f"sample_rate must be between 0 and 1, not {self.sample_rate!r}")
        if self.max_object_bytes < 1024:
            raise ConfigError(f"max_object_bytes must be at least 1024, not {self.max_object_bytes!r}")
