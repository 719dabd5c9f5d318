"""Every metric that a process of Tailrace serves, in one list: what it is called, what it counts, in which unit.

Names follow Prometheus' conventions: base units, `_total` for what only grows, the room that it belongs to in front.
deploy/METRICS.md is this list as a page; `python -m tailrace.schemas.metrics` writes it. A name that was
released is not changed: dashboards and alert rules hold it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import msgspec

PAGE = Path(__file__).resolve().parent.parent / "deploy" / "METRICS.md"
"""In a checkout: where the list stands as a page."""
OTHER_FILES = "(others)"
"""In place of a path: all files that have no series of their own, together."""


class Kind(StrEnum):
    """How a metric's values are to be read."""

    COUNTER = "counter"
    """Grows, and begins at 0 with the process."""
    GAUGE = "gauge"
    """Is what it is now."""
    HISTOGRAM = "histogram"
    """Counts observations by size, in series `_bucket`, `_sum` and `_count`."""
    INFO = "info"
    """Always 1; its labels are what it says."""


class Metric(msgspec.Struct, frozen=True):
    """One metric.

    Args:
        name: As queries write it, `_total` of counters and `_info` included, without `_bucket` and its like.
        kind: How its values are to be read.
        help: What it says, in one sentence.
        unit: Of its values, as Prometheus spells base units; '' for plain counts.
        labels: Names of its labels.
    """

    name: str
    kind: Kind
    help: str
    unit: str = ""
    labels: tuple[str, ...] = ()

    @property
    def series(self) -> frozenset[str]:
        """The names that queries can use."""
        if self.kind is Kind.HISTOGRAM:
            return frozenset({f"{self.name}_bucket", f"{self.name}_sum", f"{self.name}_count"})
        return frozenset({self.name})


class Latency:
    """Durations, counted by how long they were. One observation costs a microsecond and no memory."""

    BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
    """Seconds; each bucket holds what took so long or less."""

    __slots__ = ("_counts", "sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(self.BOUNDS) + 1)
        self.sum = 0.0
        """Of all seconds."""

    def observe(self, seconds: float) -> None:
        """Counts one duration."""
        self._counts[bisect_left(self.BOUNDS, seconds)] += 1
        self.sum += seconds

    @property
    def count(self) -> int:
        """Of all observations."""
        return sum(self._counts)

    def buckets(self) -> list[tuple[str, float]]:
        """Upper bound as text, `+Inf` for the last, and how many took so long or less."""
        bounds = [*(f"{bound:g}" for bound in self.BOUNDS), "+Inf"]
        return list(zip(bounds, accumulate(self._counts), strict=True))


class Reading(NamedTuple):
    """What a metric says now, for one combination of its labels' values."""

    metric: Metric
    value: float | Latency
    labels: tuple[str, ...] = ()


_BYTES, _SECONDS = "bytes", "seconds"

# ---------------------------------------------------------------- ship, up: from files

SHIPPER_INFO = Metric(
    "tailrace_shipper_info",
    Kind.INFO,
    "Who ships, and how. Two targets with one shipper_id take each other's place again and again.",
    labels=("shipper_id", "topic", "delivery"),
)
SHIPPER_LINES = Metric(
    "tailrace_shipper_lines_total", Kind.COUNTER, "Lines delivered and acknowledged, blank ones included."
)
SHIPPER_BYTES = Metric(
    "tailrace_shipper_bytes_total",
    Kind.COUNTER,
    "Bytes of the files delivered and acknowledged, newlines included.",
    _BYTES,
)
SHIPPER_BATCHES = Metric(
    "tailrace_shipper_batches_total", Kind.COUNTER, "Batches delivered and acknowledged."
)
SHIPPER_OVERSIZED = Metric(
    "tailrace_shipper_oversized_lines_total",
    Kind.COUNTER,
    "Lines over the limit, delivered by their head; part of the lines.",
)
SHIPPER_LOST = Metric(
    "tailrace_shipper_lost_bytes_total",
    Kind.COUNTER,
    "Bytes that were lost for sure before they could be read (in_doubt: perhaps), by cause.",
    _BYTES,
    ("cause",),
)
SHIPPER_FILES = Metric("tailrace_shipper_files", Kind.GAUGE, "Files followed.")
SHIPPER_LAG = Metric(
    "tailrace_shipper_lag_bytes", Kind.GAUGE, "Bytes in the files that are not acknowledged yet.", _BYTES
)
SHIPPER_FILE_LAG = Metric(
    "tailrace_shipper_file_lag_bytes",
    Kind.GAUGE,
    f"The same by file: those with most to go, and `{OTHER_FILES}` for the sum of the rest.",
    _BYTES,
    ("file",),
)
SHIPPER_FILE_LAG_SECONDS = Metric(
    "tailrace_shipper_file_lag_seconds",
    Kind.GAUGE,
    "How long the oldest byte of the same files waits, told from one question to the next; "
    f"`{OTHER_FILES}` for the longest of all.",
    _SECONDS,
    ("file",),
)
SHIPPER_HELD_BACK = Metric(
    "tailrace_shipper_held_back_files",
    Kind.GAUGE,
    "Files that wait because their log is written faster than --log-rate allows; their lag says how much.",
)
SHIPPER_STALLED = Metric(
    "tailrace_shipper_stalled_seconds",
    Kind.GAUGE,
    "For how long there has been something to deliver and nothing was acknowledged; 0 while all is well.",
    _SECONDS,
)
SHIPPER_DELIVERED_AT = Metric(
    "tailrace_shipper_last_delivery_timestamp_seconds",
    Kind.GAUGE,
    "When a batch was acknowledged last; absent before the first.",
    _SECONDS,
)
SHIPPER_DELIVERY = Metric(
    "tailrace_shipper_delivery_seconds",
    Kind.HISTOGRAM,
    "From handing over a batch to its acknowledgement, retries included: with exactly-once the Kafka transaction.",
    _SECONDS,
)
SHIPPER_RETRIES = Metric(
    "tailrace_shipper_retries_total",
    Kind.COUNTER,
    "Attempts to reach Kafka that failed for a passing cause. Not with `up`.",
)
SHIPPER_FENCED = Metric(
    "tailrace_shipper_fenced_total",
    Kind.COUNTER,
    "Transactions that the broker gave up although nobody took over: this process was held up for too long. "
    "Nothing is lost or repeated. Not with `up`.",
)

# ---------------------------------------------------------------- ingest, up: into ClickHouse

INGESTOR_INFO = Metric(
    "tailrace_ingestor_info",
    Kind.INFO,
    "What is read, and as which group. Not with `up`.",
    labels=("topic", "group"),
)
INGESTOR_LINES = Metric(
    "tailrace_ingestor_lines_total", Kind.COUNTER, "Lines stored: rows, dead letters and blank ones."
)
INGESTOR_ROWS = Metric("tailrace_ingestor_rows_total", Kind.COUNTER, "Lines that became records.")
INGESTOR_DEAD_LETTERS = Metric(
    "tailrace_ingestor_dead_letters_total",
    Kind.COUNTER,
    "Lines that became dead letters, by reason.",
    labels=("reason",),
)
INGESTOR_BLANK = Metric("tailrace_ingestor_blank_lines_total", Kind.COUNTER, "Lines with nothing in them.")
INGESTOR_BYTES = Metric("tailrace_ingestor_bytes_total", Kind.COUNTER, "Bytes of the lines stored.", _BYTES)
INGESTOR_BATCHES = Metric("tailrace_ingestor_batches_total", Kind.COUNTER, "Batches stored.")
INGESTOR_RETRIES = Metric(
    "tailrace_ingestor_retries_total",
    Kind.COUNTER,
    "Calls that failed for a passing cause and were made again, by which side failed.",
    labels=("side",),
)
INGESTOR_UNSAFE = Metric(
    "tailrace_ingestor_unsafe_replays_total",
    Kind.COUNTER,
    "Batches inserted again although ClickHouse may have forgotten their tokens: rows may stand twice until a merge.",
)
INGESTOR_INSERT = Metric(
    "tailrace_ingestor_insert_seconds",
    Kind.HISTOGRAM,
    "One insert into one table, as ClickHouse answered it; failed attempts are not in it.",
    _SECONDS,
)
INGESTOR_STORE = Metric(
    "tailrace_ingestor_store_seconds",
    Kind.HISTOGRAM,
    "A whole batch, from its first insert to its row in the ledger, retries included.",
    _SECONDS,
)
INGESTOR_STORED_AT = Metric(
    "tailrace_ingestor_last_batch_timestamp_seconds",
    Kind.GAUGE,
    "When a batch was stored last; absent before the first.",
    _SECONDS,
)
INGESTOR_NEWEST = Metric(
    "tailrace_ingestor_newest_event_timestamp_seconds",
    Kind.GAUGE,
    "Time of the newest event in the batch that was stored last: `time()` minus this is how fresh answers are.",
    _SECONDS,
)
INGESTOR_PARTITIONS = Metric(
    "tailrace_ingestor_partitions", Kind.GAUGE, "Partitions assigned to this process. Not with `up`."
)
PARTITION_LAG_RECORDS = Metric(
    "tailrace_ingestor_partition_lag_records",
    Kind.GAUGE,
    "Kafka records that are committed and not stored yet; a record holds one line or many. Not with `up`.",
    labels=("topic", "partition"),
)
PARTITION_LAG_SECONDS = Metric(
    "tailrace_ingestor_partition_lag_seconds",
    Kind.GAUGE,
    "Age of the oldest record that was fetched and is not stored; 0 when there is none. Not with `up`.",
    _SECONDS,
    ("topic", "partition"),
)
PARTITION_NEWEST = Metric(
    "tailrace_ingestor_partition_newest_event_timestamp_seconds",
    Kind.GAUGE,
    "Time of the newest event in the partition's batch that was stored last. Not with `up`.",
    _SECONDS,
    ("topic", "partition"),
)
INGESTOR_STALLED = Metric(
    "tailrace_ingestor_stalled_seconds",
    Kind.GAUGE,
    "For how long some partition has had fetched records of which none was stored; 0 while all is well. Not with `up`.",
    _SECONDS,
)

# ---------------------------------------------------------------- every process

BUILD_INFO = Metric("tailrace_build_info", Kind.INFO, "The program.", labels=("version",))
READY = Metric("tailrace_ready", Kind.GAUGE, "1 when /readyz says yes, else 0.")
RESIDENT_MEMORY = Metric("process_resident_memory_bytes", Kind.GAUGE, "Resident memory.", _BYTES)
VIRTUAL_MEMORY = Metric("process_virtual_memory_bytes", Kind.GAUGE, "Virtual memory.", _BYTES)
CPU = Metric("process_cpu_seconds_total", Kind.COUNTER, "Processor time, user and system.", _SECONDS)
STARTED_AT = Metric("process_start_time_seconds", Kind.GAUGE, "When the process began.", _SECONDS)
OPEN_FILES = Metric("process_open_fds", Kind.GAUGE, "Open file descriptors.")
MOST_FILES = Metric("process_max_fds", Kind.GAUGE, "How many there may be.")
THREADS = Metric("process_threads", Kind.GAUGE, "Threads.")

CATALOGUE: Sequence[Metric] = tuple(each for each in list(globals().values()) if isinstance(each, Metric))
"""All of them, in the order in which they stand here."""


def page() -> str:
    """The list as a page of Markdown."""
    return "".join(_page())


_SECTIONS = {
    "tailrace_shipper_": "Files to Kafka or ClickHouse: `ship`, `up`",
    "tailrace_ingestor_": "Into ClickHouse: `ingest`, `up`",
    "": "Every process",
}


def _page() -> Iterator[str]:
    yield (
        "# Metrics\n\n"
        "<!-- Generated from schemas/metrics.py by `python -m tailrace.schemas.metrics`. -->\n\n"
        "`--metrics-address HOST:PORT` (or `TAILRACE_METRICS_ADDRESS`) of `ship`, `ingest` and `up` serves them at `/metrics`; "
        "nothing is\nserved without it. What to do when a number is wrong: [RUNBOOK.md](RUNBOOK.md).\n"
    )
    left = list(CATALOGUE)
    for prefix, title in _SECTIONS.items():
        yield f"\n## {title}\n\n| metric | kind | labels | meaning |\n|---|---|---|---|\n"
        for metric in [each for each in left if each.name.startswith(prefix)]:
            left.remove(metric)
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            yield f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
