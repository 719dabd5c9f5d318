"""Processes that serve their metrics, as a scraper and a prober see them."""

from __future__ import annotations

import http.client
import json
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from support.cli import start
from support.kafka import wait_until

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Running:
    """A `tailrace …` with `--metrics-address` at a free port.

    Args:
        directory: For what it prints.
        arguments: The command line; options of the program itself may stand in front.
    """

    def __init__(self, directory: Path, *arguments: str | Path) -> None:
        self._out, self._err = directory / "out", directory / "err"
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = start(
                *arguments, "--metrics-address", "127.0.0.1:0", "--format", "json", stdout=out, stderr=err
            )

    @property
    def errors(self) -> str:
        """What it has printed on stderr."""
        return self._err.read_text()

    @property
    def address(self) -> str:
        """Where it serves; waits for it."""

        def served() -> re.Match[str] | None:
            assert self.process.poll() is None, self.errors
            return re.search(r"metrics: http://([\d.:]+)/metrics", self.errors)

        found = wait_until(served, "the metrics address")
        return str(found and found[1])

    def get(self, path: str, method: str = "GET", accept: str = "") -> tuple[int, str]:
        """Status and body."""
        connection = http.client.HTTPConnection(self.address, timeout=10)
        try:
            connection.request(method, path, headers={"Accept": accept} if accept else {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def samples(self) -> Samples:
        """Every series, by name and labels."""
        status, text = self.get("/metrics")
        assert status == 200
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """The sum of the series of this name that have these labels."""
        wanted = set(labels.items())
        return sum(value for (found, has), value in self.samples().items() if found == name and wanted <= has)

    @property
    def ready(self) -> bool:
        """What /readyz says."""
        return self.get("/readyz")[0] == 200

    def stop(self) -> dict[str, Any]:
        """Ends it with SIGTERM; its closing report."""
        self.process.send_signal(signal.SIGTERM)
        return self.ended(60)

    def ended(self, seconds: float) -> dict[str, Any]:
        """Waits for its end; its closing report."""
        code = self.process.wait(seconds)
        assert code == 0, self.errors
        report: dict[str, Any] = json.loads(self._out.read_text())
        return report


@contextmanager
def running(directory: Path, *arguments: str | Path) -> Iterator[Running]:
    """A `Running` that does not outlive the block."""
    directory.mkdir(exist_ok=True)
    process = Running(directory, *arguments)
    try:
        yield process
    finally:
        if process.process.poll() is None:
            process.process.kill()
            process.process.wait()
