"""`/metrics` of running processes, read and put into the terms of a person who watches them."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from tailrace.cli.metrics_address import parse_address
from tailrace.schemas import metrics
from tailrace.schemas.metrics import Metric

TIMEOUT_SECONDS = 5.0


class Scrape(NamedTuple):
    """What a process said.

    Args:
        at: When, in monotonic seconds.
        samples: By name of the series: labels and value of each.
    """

    at: float
    samples: Mapping[str, list[tuple[Mapping[str, str], float]]]

    def of(self, metric: Metric) -> list[tuple[Mapping[str, str], float]]:
        """Labels and values of a metric that is no histogram."""
        return self.samples.get(metric.name, [])

    def total(self, *wanted: Metric) -> float:
        """The sum over all labels of some metrics; 0 where there are none."""
        return sum(value for metric in wanted for _, value in self.of(metric))

    def first(self, metric: Metric) -> float | None:
        """The value of a metric without labels; `None` where it is not served."""
        return next((value for _, value in self.of(metric)), None)


class FileLag(msgspec.Struct, frozen=True):
    """A file with bytes to go."""

    file: str
    lag_bytes: int


class PartitionLag(msgspec.Struct, frozen=True):
    """A partition, and how far behind it is."""

    topic: str
    partition: int
    lag_records: int
    lag_seconds: float


class Process(msgspec.Struct, frozen=True):
    """One process as `tailrace top` shows it. Rates are of the time between two scrapes, `None` after the first.

    Args:
        address: Where it was asked.
        error: Why it could not be; everything else is empty then.
        role: `ship`, `ingest` or `up`; `starting` before it is known.
        ready: What its /readyz says.
        lines: Delivered, or stored, since its start.
        lines_per_second: Of them.
        bytes_per_second: Likewise.
        lag_bytes: In the files, not delivered.
        lag_records: In the partitions, not stored.
        files: With bytes to go, the largest first.
        partitions: All that it has.
        dead_letters: By reason.
        dead_letters_per_second: Of all reasons.
        lost_bytes: By cause.
        retries: Failed attempts since its start.
        stalled_seconds: For how long it has got nowhere.
        fresh_seconds: Age of the newest event that it stored.
        memory_bytes: Resident.
    """

    address: str
    error: str = ""
    role: str = "starting"
    ready: bool = False
    lines: int = 0
    lines_per_second: float | None = None
    bytes_per_second: float | None = None
    lag_bytes: int = 0
    lag_records: int = 0
    files: tuple[FileLag, ...] = ()
    partitions: tuple[PartitionLag, ...] = ()
    dead_letters: dict[str, int] = {}
    dead_letters_per_second: float | None = None
    lost_bytes: dict[str, int] = {}
    retries: int = 0
    stalled_seconds: float = 0.0
    fresh_seconds: float | None = None
    memory_bytes: int = 0


def fetch(address: str, now: float) -> Scrape:
    """One scrape.

    Args:
        address: HOST:PORT.
        now: Monotonic seconds, kept with it.

    Raises:
        ConfigError: The address is not of this form.
        OSError: Nobody answers there.
        ValueError: What answers does not serve metrics.
    """
    host, port = parse_address(address)
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
    except http.client.HTTPException as exc:
        raise ValueError(f"what answers there is no HTTP server: {exc!r}") from exc
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise ValueError(f"what answers there serves no metrics: HTTP status {answer.status}")
    samples: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    return Scrape(now, samples)


def process_of(address: str, scrape: Scrape, before: Scrape | None, clock: float) -> Process:
    """What a person wants to know of a scrape.

    Args:
        address: Where it came from.
        scrape: It.
        before: The one before it, for rates.
        clock: Seconds since the epoch.
    """
    ships = bool(scrape.of(metrics.SHIPPER_INFO))
    stores = bool(scrape.of(metrics.INGESTOR_LINES))
    role = {(True, True): "up", (True, False): "ship", (False, True): "ingest"}.get(
        (ships, stores), "starting"
    )
    lines = metrics.INGESTOR_LINES if stores else metrics.SHIPPER_LINES
    size = metrics.INGESTOR_BYTES if stores else metrics.SHIPPER_BYTES

    def per_second(metric: Metric) -> float | None:
        if before is None or scrape.at <= before.at:
            return None
        # After a restart the counter is lower; what it counted since then is a lower bound.
        grown = scrape.total(metric) - before.total(metric)
        return (grown if grown >= 0 else scrape.total(metric)) / (scrape.at - before.at)

    newest = scrape.first(metrics.INGESTOR_NEWEST)
    seconds = {labels["partition"]: value for labels, value in scrape.of(metrics.PARTITION_LAG_SECONDS)}
    partitions = [
        PartitionLag(
            labels["topic"],
            int(labels["partition"]),
            int(value),
            round(seconds.get(labels["partition"], 0.0), 3),
        )
        for labels, value in scrape.of(metrics.PARTITION_LAG_RECORDS)
    ]
    files = [
        FileLag(labels["file"], int(value)) for labels, value in scrape.of(metrics.SHIPPER_FILE_LAG) if value
    ]
    return Process(
        address,
        role=role,
        ready=bool(scrape.total(metrics.READY)),
        lines=int(scrape.total(lines)),
        lines_per_second=per_second(lines),
        bytes_per_second=per_second(size),
        lag_bytes=int(scrape.total(metrics.SHIPPER_LAG)),
        lag_records=int(scrape.total(metrics.PARTITION_LAG_RECORDS)),
        files=tuple(files),
        partitions=tuple(partitions),
        dead_letters=_counts(scrape, metrics.INGESTOR_DEAD_LETTERS, "reason"),
        dead_letters_per_second=per_second(metrics.INGESTOR_DEAD_LETTERS) if stores else None,
        lost_bytes=_counts(scrape, metrics.SHIPPER_LOST, "cause"),
        retries=int(scrape.total(metrics.SHIPPER_RETRIES, metrics.INGESTOR_RETRIES)),
        stalled_seconds=round(scrape.total(metrics.SHIPPER_STALLED, metrics.INGESTOR_STALLED), 3),
        fresh_seconds=None if newest is None else max(0.0, round(clock - newest, 3)),
        memory_bytes=int(scrape.total(metrics.RESIDENT_MEMORY)),
    )


def _counts(scrape: Scrape, metric: Metric, label: str) -> dict[str, int]:
    return {labels[label]: int(value) for labels, value in scrape.of(metric) if value}
