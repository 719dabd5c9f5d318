"""What can be set, checked once at the start."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from tailrace.schemas.errors import ConfigError
from tailrace.schemas.kafka import KafkaConnection
from tailrace.shipper.levels import LEVELS

Delivery = Literal["exactly-once", "at-least-once"]
Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]

MIB = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")


@dataclass(frozen=True)
class KafkaSettings:
    """Where in Kafka lines go, and how they are written.

    Raises:
        ConfigError: A value is malformed.
    """

    connection: KafkaConnection
    topic: str = "tailrace"
    """Lines go here; progress goes to `<topic>-checkpoints`."""
    message_bytes: int = 64 << 10
    """Lines that follow on one another share a message up to this size; 0 gives each line its own."""
    create_topics: bool = True
    """Create topics that are absent. When false, or not allowed, the command to create them is in the error."""
    partitions: int = 6
    """Of the topic, when we create it."""
    compression: Compression = "zstd"
    compression_level: int | None = None
    """From fast to small; `None` for the one that costs least CPU for what it saves, see `levels.py`."""
    transaction_seconds: float = 60.0
    """How long the broker keeps an open transaction of a shipper that went silent. Until then, readers that
    ask for committed records wait."""

    def __post_init__(self) -> None:
        self.connection.check()
        if not _NAME.fullmatch(self.topic):
            raise ConfigError(f"{self.topic!r} is no Kafka topic name: letters, digits, '.', '_' and '-' are")
        _one_of("compression", self.compression, get_args(Compression))
        levels = LEVELS.get(self.compression)
        if self.compression_level is not None and (
            levels is None or self.compression_level not in levels.allowed
        ):
            which = f"{levels.allowed[0]} to {levels.allowed[-1]}" if levels is not None else "one level only"
            raise ConfigError(
                f"compression_level is {self.compression_level}: {self.compression} has {which}"
            )
        if not 0 <= self.message_bytes <= MIB:
            raise ConfigError(f"message_bytes must be 0 to {MIB}")
        if self.partitions < 1:
            raise ConfigError("partitions must be 1 or more")
        if not 1 <= self.transaction_seconds <= 900:
            raise ConfigError("transaction_seconds must be 1 to 900, the most that brokers allow by default")

    @property
    def checkpoint_topic(self) -> str:
        """The compacted topic that holds the progress of every shipper to `topic`."""
        return f"{self.topic}-checkpoints"


@dataclass(frozen=True)
class ShipperSettings:
    """What to read, and how.

    Raises:
        ConfigError: A value is malformed, or a combination would lose or repeat lines.
    """

    paths: tuple[str, ...]
    """Files, directories, or patterns (`*`, `?`, `[…]`, `**`); files that appear later are found too."""
    shipper_id: str = field(default_factory=socket.gethostname)
    """Names this shipper's progress: keep it over restarts, and let no two shippers share one."""
    delivery: Delivery = "exactly-once"
    checkpoint: Path | None = None
    """The progress file for at-least-once; exactly-once keeps progress in Kafka."""
    once: bool = False
    """Read what is there now, an unterminated last line included, and stop."""
    max_line_bytes: int = 8 * MIB
    """A longer line is reported by its head and its length, and is never held in memory."""
    chunk_bytes: int = MIB
    """How much is read from one file at a time."""
    batch_bytes: int = 16 * MIB
    """How much is delivered, and acknowledged, in one go. Memory holds three batches at most. Larger inserts are merged less often, and hold
    more memory: before merges were bounded, `up` took 7.6 µs a line and 1,220 MB at most for 10,000,000 lines with 16 MiB,
    and 6.6 µs and 1,810 MB with 32."""
    batch_lines: int = 100_000
    linger_seconds: float = 0.1
    """At low load, the least time between two batches."""
    poll_seconds: float = 1.0
    """How often paths are looked at again where no event says so."""
    follow_links: bool = False
    """Follow symbolic links also where they lead out of the directories that are named."""
    log_rate: int = 0
    """Bytes a second at which one log is read at most; what is over it stays in the file meanwhile. 0 for no limit."""
    poll_only: bool = False
    """Ask for no events, for file systems that send none (NFS, some containers' mounts)."""
    idle_seconds: float = 10.0
    """When a last line without a newline counts as complete."""
    rotated_seconds: float = 5.0
    """How long a file that was renamed or deleted may still grow before it is let go."""
    stop_seconds: float = 30.0
    """How long a stop waits for the batch in flight. What is not acknowledged is delivered by the next run."""
    kafka: KafkaSettings | None = None

    def __post_init__(self) -> None:
        if not self.paths:
            raise ConfigError("no paths are given: name files, directories or patterns")
        if not _NAME.fullmatch(self.shipper_id):
            raise ConfigError(
                f"{self.shipper_id!r} is no shipper id: letters, digits, '.', '_' and '-' are, 200 at most"
            )
        _one_of("delivery", self.delivery, get_args(Delivery))
        if self.max_line_bytes < 1024:
            raise ConfigError("max_line_bytes must be 1024 or more")
        if self.log_rate and self.log_rate < 1024:
            raise ConfigError("log_rate must be 0, or 1024 bytes a second or more")
        for name in ("chunk_bytes", "batch_bytes", "batch_lines"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be 1 or more")
        for name in ("poll_seconds", "idle_seconds", "rotated_seconds", "stop_seconds"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be more than 0")
        if self.delivery == "exactly-once" and self.checkpoint is not None and self.kafka is not None:
            raise ConfigError(
                "a checkpoint file is given, but exactly-once delivery keeps its progress in Kafka and would "
                "not read it: leave it out, or choose --delivery at-least-once"
            )

    @property
    def read_bytes(self) -> int:
        """How much is read from one file at a time: never more than a line may be long, so that a block that
        holds a newline holds no line over the limit."""
        return min(self.chunk_bytes, self.max_line_bytes)

    @classmethod
    def from_mapping(
        cls, values: Mapping[str, Any], connection: KafkaConnection | None = None
    ) -> ShipperSettings:
        """Settings by name, as from flags or a TOML table; those of `KafkaSettings` stand beside the others.

        A value of `None` means "not given". Text is converted where the setting is a number, a path or a
        boolean.

        Args:
            values: By name of the field.
            connection: How to reach Kafka; `None` where lines go elsewhere.

        Raises:
            ConfigError: A name is unknown, a value does not convert, or a Kafka setting has no Kafka to go to.
        """
        given = {name: value for name, value in values.items() if value is not None}
        own = {f.name: str(f.type) for f in fields(cls) if f.name != "kafka"}
        edge = {f.name: str(f.type) for f in fields(KafkaSettings) if f.name != "connection"}
        unknown = given.keys() - own.keys() - edge.keys()
        if unknown:
            raise ConfigError(f"unknown setting: {', '.join(sorted(unknown))}")
        ours = {name: _convert(name, own[name], value) for name, value in given.items() if name in own}
        theirs = {name: _convert(name, edge[name], value) for name, value in given.items() if name in edge}
        if connection is not None:
            return cls(**ours, kafka=KafkaSettings(connection, **theirs))
        if theirs:
            raise ConfigError(
                f"{', '.join(sorted(theirs))} is set, but no Kafka brokers are: --kafka HOST:PORT"
            )
        return cls(**{"paths": (), **ours})


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}, and may be {', '.join(choices)}")


def _convert(name: str, wanted: str, value: Any) -> Any:
    wanted = wanted.removesuffix(" | None")
    try:
        if wanted.startswith("tuple"):
            items = value.split(",") if isinstance(value, str) else value
            return tuple(str(item) for item in items)
        if wanted.startswith("Path"):
            return Path(value).expanduser()
        if wanted == "bool" and isinstance(value, str):
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[
                value.lower()
            ]
        if wanted in ("int", "float"):
            return int(value) if wanted == "int" else float(value)
    except (KeyError, TypeError, ValueError) as exc:
        raise ConfigError(f"{name} is {value!r}, which is no {wanted}") from exc
    return value


def default_checkpoint(shipper_id: str, environment: Mapping[str, str]) -> Path:
    """Where progress is kept when no file is named: the user's state folder, by shipper id."""
    state = environment.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "tailrace" / f"{shipper_id}.checkpoint.json"
