"""What a logger asks of every trace before a line is put together: sampling, redaction, the size of objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from zlib import crc32

from tailrace.schemas.errors import ConfigError

Redact = Callable[[str, Any], Any]
"""Given what a value is and the value, as the service gave it, returns what to write in its place; it must not change the
value itself. What it is:

    message · tag:<name> · object:<ref> · name · input · output · error · attributes · usage ·
    user · metadata · conversation_id · session_id · feedback_text ·
    features · prediction · predictions · label · extra_info · stack_trace

Names (of tags, objects, features, deployments, feedback) and ids of traces and events are not asked about.
"""


SMALL = 1024
"""Bytes of JSON below which no policy counts an object as oversized."""


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
        if self.max_object_bytes < SMALL:
            raise ConfigError(f"max_object_bytes must be at least {SMALL}, not {self.max_object_bytes!r}")


def is_sampled(trace_id: str, rate: float) -> bool:
    """Whether a trace is among the share that is written.

    The same in every service, process and version: CRC-32 of the id's UTF-8 bytes, as a share of 2³², is below
    the rate. So what a lower rate writes, a higher rate writes too.

    Args:
        trace_id: The id in the form in which lines carry it.
        rate: From 0, no trace, to 1, all of them.
    """
    return rate >= 1.0 or crc32(trace_id.encode("utf-8", "surrogatepass")) < rate * 2**32


def redacted(redact: Redact, what: str, value: Any) -> tuple[Any, str]:
    """What to write in place of a value, and what went wrong ("" for nothing). Never raises.

    When the hook raises, the replacement names the class of its exception and nothing else: the exception's text
    may hold the value.

    Args:
        redact: The hook.
        what: What the value is; see `Redact`.
        value: As the service gave it.
    """
    try:
        return redact(what, value), ""
    except Exception as exc:
        return f"<redaction failed: {type(exc).__name__}>", f"redact raised {type(exc).__name__}"
