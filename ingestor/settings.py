"""How the ingestor works, fixed at start."""

from __future__ import annotations

from dataclasses import dataclass, field

from tailrace.schemas.errors import ConfigError

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """When a batch is closed: whichever comes first.

    Args:
        rows: Lines.
        bytes: Bytes of raw lines; with the columns built from them this bounds memory.
        seconds: Age of its oldest line, which bounds how late a row becomes visible.
    """

    rows: int = 100_000
    bytes: int = 48 * MIB
    seconds: float = 0.5


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to wait between attempts while the other side is away: doubling, with jitter, for ever.

    Args:
        first: Seconds before the second attempt.
        longest: Seconds between attempts at most.
    """

    first: float = 0.2
    longest: float = 15.0

    def delay(self, attempt: int, random: float) -> float:
        """Seconds to wait after the `attempt`-th failure (from 1), spread over half by `random` in [0, 1)."""
        full = min(self.longest, self.first * 2.0 ** min(attempt - 1, 30))
        return full * (0.5 + random / 2)


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """Everything the Kafka ingestor needs to know besides its connections.

    Args:
        topic: Topic to read.
        group: Consumer group; its committed offsets are the progress.
        max_line_bytes: A longer line becomes a dead letter, kept by its head.
        once: Stop at what the topic held at the start.
        session_timeout: Seconds after which the group gives up a silent member.

    Raises:
        ConfigError: Values that cannot work together.
    """

    topic: str = "tailrace"
    group: str = "tailrace"
    max_line_bytes: int = 8 * MIB
    limits: BatchLimits = field(default_factory=BatchLimits)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    once: bool = False
    session_timeout: float = 30.0

    def __post_init__(self) -> None:
        if not self.topic or not self.group:
            raise ConfigError("--topic and --group must not be empty")
        if self.max_line_bytes < 1024:
            raise ConfigError(
                f"max_line_bytes is {self.max_line_bytes}; less than 1024 would reject ordinary lines"
            )
        if self.limits.rows < 1 or self.limits.bytes < 1 or self.limits.seconds <= 0:
            raise ConfigError("batch limits must be positive")
