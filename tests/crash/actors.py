"""The processes under test, as real processes that can be killed, paused and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from support.kafka import wait_until
from support.processes import resident
from tailrace.schemas.crash import VARIABLE

_TAILRACE = [sys.executable, "-m", "tailrace.cli"]
_SHIPPER = Path(__file__).resolve().parents[1] / "shipper" / "shipper_process.py"


class Actor:
    """A command that runs, ends and runs again.

    Args:
        name: For messages and for counting faults.
        command: What to run.
        log: Where everything goes that it prints, over all its runs.
        environment: On top of ours.
    """

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self._command = list(command)
        self._log = log
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The last run."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process

    @property
    def alive(self) -> bool:
        """Whether it runs, paused or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def said(self) -> str:
        """Everything that it printed so far."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def memory(self) -> int:
        """Resident bytes."""
        found = resident(self.process.pid)
        assert found, f"{self.name} has no memory"
        return found

    def start(self, at: str = "") -> None:
        """Run it.

        Args:
            at: A named point at which it ends, as `tailrace.schemas.crash` reads it.
        """
        assert not self.alive, f"{self.name} runs already"
        self.check()
        environment = {**os.environ, **self._environment}
        if at:
            environment[VARIABLE] = at
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=environment, stdout=log, stderr=log)

    def kill(self) -> None:
        """SIGKILL. An actor that has ended by itself meanwhile is checked for having had a reason."""
        if self.alive:
            self.process.send_signal(signal.SIGKILL)
        self.wait(10)
        self.check()

    def check(self) -> None:
        """Fails when its last run ended with an error of its own."""
        code = None if self._process is None else self._process.poll()
        assert code in (None, 0, -signal.SIGKILL, -signal.SIGTERM, 143), (
            f"{self.name} ended with {code}:\n{self.tail()}"
        )

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and answers nobody."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    @property
    def paused(self) -> bool:
        """Whether it is stopped by a signal."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0] == "T"

    def wait(self, seconds: float) -> int:
        """Its exit code, once it has ended."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} still runs after {seconds:.0f} s:\n{self.tail()}") from None

    def ended_at_point(self) -> bool:
        """Whether it ended at the point that it was started with, and not because it was asked to."""
        self.check()
        return self.process.poll() == -signal.SIGKILL

    def ask_to_stop(self) -> None:
        """SIGTERM."""
        if self.alive:
            self.process.send_signal(signal.SIGTERM)

    def terminate(self, seconds: float = 60.0) -> None:
        """SIGTERM, and wait for the end: it stops with success, or had not begun."""
        if self.alive:
            self.resume()
        self.ask_to_stop()
        code = self.wait(seconds)
        assert code in (0, -signal.SIGKILL, -signal.SIGTERM, 143), (
            f"{self.name} ended with {code}:\n{self.tail()}"
        )

    def run(self, seconds: float = 120.0) -> None:
        """Start it and wait for success."""
        self.start()
        code = self.wait(seconds)
        assert code == 0, f"{self.name} ended with {code}:\n{self.tail()}"

    def abandon(self) -> None:
        """End it however it is, when a test is over."""
        if self.alive:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)

    def tail(self, size: int = 3000) -> str:
        """The end of what it printed."""
        return self.said[-size:]

    def wait_to_say(self, text: str, seconds: float = 60.0, after: int = 0) -> None:
        """Return when it has printed this, behind so many characters."""

        def has_said() -> bool:
            assert text in self.said[after:] or self.alive, f"{self.name} ended:\n{self.tail()}"
            return text in self.said[after:]

        wait_until(has_said, f"{self.name} to say {text!r}", seconds)


class Cast:
    """The actors of one scenario; none of them outlives it.

    Args:
        directory: For their logs.
        brokers: Of Kafka.
        topic: Between shippers and ingestors.
    """

    def __init__(self, directory: Path, brokers: str = "", topic: str = "") -> None:
        self.directory = directory
        self.brokers = brokers
        self.topic = topic
        self._actors: list[Actor] = []

    def shipper(self, logs: Path, name: str = "shipper", **settings: Any) -> Actor:
        """Files to Kafka, exactly once unless told otherwise; small batches, so that there are many steps."""
        values = {
            "kafka": self.brokers,
            "paths": [str(logs)],
            "topic": self.topic,
            "shipper_id": self.topic,
            "batch_bytes": 60_000,
            "partitions": 4,
            "idle_seconds": 600,
            "linger_seconds": 0.02,
            "poll_seconds": 0.3,
            "transaction_seconds": 10,
            **settings,
        }
        return self._actor(name, [sys.executable, str(_SHIPPER), json.dumps(values)])

    def ingestor(self, dsn: str, name: str = "ingestor", *options: str) -> Actor:
        """Kafka to ClickHouse, as a member of the topic's group."""
        where = ["--kafka", self.brokers, "--topic", self.topic, "--group", self.topic, "--clickhouse", dsn]
        pace = ["--session-timeout", "2", "--batch-seconds", "0.05", "--batch-rows", "400"]
        return self._actor(name, [*_TAILRACE, "ingest", *where, *pace, *options])

    def up(
        self,
        logs: Path,
        dsn: str,
        name: str = "up",
        *options: str,
        prefix: Sequence[str] = (),
        **environment: str,
    ) -> Actor:
        """Files to ClickHouse in one process; `prefix` is a command that runs another."""
        options = ("--clickhouse", dsn, "--http", "off", "--batch-seconds", "0.02", *options)
        return self._actor(name, [*prefix, *_TAILRACE, "up", str(logs), *options], environment)

    def _actor(self, name: str, command: list[str], environment: Mapping[str, str] | None = None) -> Actor:
        actor = Actor(name, command, self.directory / f"{name}.log", environment)
        self._actors.append(actor)
        return actor

    def abandon(self) -> None:
        """End all that still run."""
        for actor in self._actors:
            actor.abandon()
