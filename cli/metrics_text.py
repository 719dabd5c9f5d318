"""Readings → the text that Prometheus scrapes, by `prometheus_client`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from tailrace.schemas import metrics
from tailrace.schemas.metrics import Kind, Latency, Reading


def exposition(readings: Iterable[Reading], accept: str) -> tuple[bytes, str]:
    """The answer to a scrape.

    Args:
        readings: What the parts of the process say; what every process says is added.
        accept: The request's `Accept` header, '' for none: OpenMetrics for whoever asks for it.

    Returns:
        Body and content type.
    """
    registry = CollectorRegistry()
    registry.register(_Once([*readings, *_process()]))
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Once(Collector):
    def __init__(self, readings: Iterable[Reading]) -> None:
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        by_metric: dict[metrics.Metric, list[Reading]] = {}
        for reading in self._readings:
            by_metric.setdefault(reading.metric, []).append(reading)
        for metric, readings in by_metric.items():
            yield _family(metric, readings)


def _family(metric: metrics.Metric, readings: list[Reading]) -> Metric:
    if metric.kind is Kind.INFO:
        info = InfoMetricFamily(metric.name.removesuffix("_info"), metric.help)
        for reading in readings:
            info.add_metric([], dict(zip(metric.labels, reading.labels, strict=True)))
        return info
    if metric.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels, unit=metric.unit)
        for reading in readings:
            if isinstance(reading.value, Latency):
                histogram.add_metric(list(reading.labels), reading.value.buckets(), reading.value.sum)
        return histogram
    of_kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    family = of_kind(metric.name, metric.help, labels=metric.labels, unit=metric.unit)
    for reading in readings:
        if not isinstance(reading.value, Latency):
            family.add_metric(list(reading.labels), reading.value)
    return family


def _process() -> Iterator[Reading]:
    """What `ProcessCollector` does not say."""
    yield Reading(metrics.BUILD_INFO, 1, (version("tailrace"),))
    try:
        yield Reading(metrics.THREADS, len(list(Path("/proc/self/task").iterdir())))
    except OSError:
        return
