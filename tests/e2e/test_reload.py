"""SIGHUP: real processes take other paths from their configuration file, and no line is lost or repeated by that."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import hostile
from support.cli import query, start, tailrace
from support.kafka import KafkaBroker, wait_until

LOGS = ("a", "b", "c")
PLAN: list[tuple[str, ...]] = [("a", "b"), ("b",), ("b", "c"), ("a",), ("c", "a"), LOGS, ("a",)]


class Writer(threading.Thread):
    """Appends lines to a log until it is told to stop, some in two halves, and rotates it by renaming."""

    def __init__(self, folder: Path, first: int) -> None:
        super().__init__()
        folder.mkdir()
        self.path = folder / "app.log"
        self.lines: list[bytes] = []
        self.enough = threading.Event()
        self._first = first
        self._random = random.Random(first)

    def run(self) -> None:
        while not self.enough.is_set():
            self.write()
            if len(self.lines) % 400 == 0:
                self.path.rename(self.path.with_name(f"app.log.{len(self.lines)}"))
            if len(self.lines) % 10 == 0:
                time.sleep(0.01)

    def write(self) -> None:
        rest = line = hostile.neighbour(self._first + len(self.lines))
        with self.path.open("ab", buffering=0) as log:
            if self._random.random() < 0.1:
                cut = self._random.randrange(len(line))
                log.write(line[:cut])
                rest = line[cut:]
            log.write(rest)
        self.lines.append(line)


class Service:
    """`tailrace ship` or `up` under a configuration file, whose paths can be changed."""

    def __init__(self, command: str, directory: Path, settings: str) -> None:
        self.config = directory / "tailrace.toml"
        self._command, self._settings = command, settings
        self._stderr = directory / "stderr"
        self.configure(("a",))
        with self._stderr.open("w") as file:
            self.process: subprocess.Popen[str] = start(
                "--config", self.config, command, stdout=subprocess.DEVNULL, stderr=file
            )

    def configure(self, logs: Sequence[str]) -> None:
        # Relative to the file, and another file each time, as editors write it.
        paths = json.dumps([f"logs-{name}" for name in logs])
        new = self.config.with_suffix(".new")
        new.write_text(f"{self._settings}\n[{self._command}]\npaths = {paths}\n")
        new.replace(self.config)

    def said(self, text: str) -> int:
        return self._stderr.read_text().count(text)

    def last(self, beginning: str) -> str:
        """How the latest line with this in it goes on."""
        return self._stderr.read_text().rpartition(beginning)[2].partition("\n")[0]

    def reload(self) -> str:
        """Sends the signal, and returns what was said about it."""
        before = self.said("SIGHUP:")
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.said("SIGHUP:") > before or self.process.poll() is not None, "the reload")
        assert self.process.poll() is None, self._stderr.read_text()
        return self._stderr.read_text().rpartition("SIGHUP:")[2]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0, self._stderr.read_text()


@contextmanager
def writing(directory: Path) -> Iterator[dict[str, Writer]]:
    """A writer for each log, all at work; afterwards each has ended."""
    writers = {name: Writer(directory / f"logs-{name}", 100_000 * number) for number, name in enumerate(LOGS)}
    for writer in writers.values():
        writer.start()
    try:
        yield writers
    finally:
        for writer in writers.values():
            writer.enough.set()
        for writer in writers.values():
            writer.join()


def go_through(service: Service, writers: dict[str, Writer]) -> None:
    """The plan, one reload after the other while lines are written, with a broken file in the middle."""
    for number, logs in enumerate(PLAN):
        service.configure(logs)
        said = service.reload()
        assert "follows" in said or "leaves" in said
        if number == 2:
            good = service.config.read_text()
            service.config.write_text(good.replace("paths =", "pahts ="))
            line = good[: good.index("paths =")].count("\n") + 1
            said = service.reload()
            assert f"stays as it was: {service.config}:{line}: " in said and "did you mean paths?" in said
            assert "nothing changed" in [service.config.write_text(good), service.reload()][1]  # type: ignore[operator]
        written = {name: len(writer.lines) for name, writer in writers.items()}
        wait_until(
            lambda before=written: all(len(writers[name].lines) > before[name] + 20 for name in LOGS),  # type: ignore[misc]
            "lines",
        )
    assert service.said("stays as it was") == 1


def leave(service: Service, writer: Writer, then: Sequence[str]) -> None:
    """Takes the path of a log away that nobody writes to, and waits until its file is left."""
    everything = ", ".join(f"{service.config.parent}/logs-{name}" for name in LOGS)
    service.configure(LOGS)
    service.reload()
    writer.write()  # there is a file, also after a rotation
    # Where the paths were the same before, and others only between two looks, nothing is said anew.
    wait_until(lambda: service.last("the paths are ").startswith(everything), "the reload")
    service.configure(then)
    left = f"{writer.path} is not followed any more"
    before = service.said(left)
    service.reload()
    wait_until(lambda: service.said(left) > before, "the file's end")


def test_up_takes_other_paths_while_it_runs(tmp_path: Path) -> None:
    """Paths come and go under one `up` while their logs are written and rotated, the first time while it still opens its
    database. Of a path that is away at the end, what is written then is not stored; once it is there again, every line is
    stored, and stored once."""
    settings = f'[clickhouse]\ndsn = "chdb://{tmp_path}/db"\n[http]\naddress = "off"\n[log]\nverbose = 1\n'
    settings += '[metrics]\naddress = "127.0.0.1:0"\n'
    with writing(tmp_path) as writers:
        service = Service("up", tmp_path, settings)
        wait_until(lambda: service.said("metrics: http") == 1, "the start")
        assert not (tmp_path / "db" / "tailrace-checkpoint.json").exists()
        go_through(service, writers)
    leave(service, writers["c"], then=("a",))
    for _ in range(100):
        writers["c"].write()
    service.stop()
    lines = sum(len(writer.lines) for writer in writers.values())

    service.configure(LOGS)
    rest = json.loads(tailrace("--config", service.config, "up", "--once", "--format", "json").stdout)
    assert rest["lines"] >= 100
    (counts,) = query(tmp_path / "db", "SELECT count() AS n, uniqExact(trace_id) AS traces FROM logs")
    assert counts == [{"n": lines, "traces": lines}]


@pytest.mark.kafka
def test_ship_takes_other_paths_while_it_runs(tmp_path: Path, kafka: KafkaBroker) -> None:
    """The same for `ship` into a real Kafka; and the lines that a path held when it was taken away are shipped."""
    settings = f'[kafka]\nbrokers = "{kafka.bootstrap}"\ntopic = "reload"\n[log]\nverbose = 1\n'
    with writing(tmp_path) as writers:
        service = Service("ship", tmp_path, settings)
        wait_until(lambda: len(kafka.values("reload")) > 0, "the first lines")
        go_through(service, writers)
    leave(service, writers["a"], then=("b",))
    there = set(writers["a"].lines)
    writers["a"].write()
    wait_until(lambda: there <= shipped(kafka), "what was there")
    service.stop()
    assert writers["a"].lines[-1] not in shipped(kafka)

    service.configure(LOGS)
    tailrace("--config", service.config, "ship", "--once")
    arrived = kafka.values("reload")
    assert sorted(line + b"\n" for line in arrived) == sorted(
        line for w in writers.values() for line in w.lines
    )


def shipped(kafka: KafkaBroker) -> set[bytes]:
    return {line + b"\n" for line in kafka.values("reload")}
