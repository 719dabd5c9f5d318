"""What every logger promises, asked of each of them."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.front import FrontProcess
from tailrace import APILogger, FileLogger, Logger, Tag, Trace
from tailrace.logger import Event
from tailrace.testing import MemoryLogger

pytestmark = pytest.mark.filterwarnings("ignore:tailrace:RuntimeWarning")
TOKEN = "correct-horse"


@dataclass
class Case:
    """A logger, and a look at the lines that it has written.

    Args:
        logger: Of project `shop`.
        lines: What arrived, as bytes, in order.
        shared: Whether a forked child writes to the same place.
    """

    logger: Logger
    lines: Callable[[], list[bytes]]
    shared: bool = True

    def records(self) -> list[Any]:
        self.logger.flush()
        return [json.loads(line) for line in self.lines()]


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontProcess]:
    folder = tmp_path_factory.mktemp("front")
    with FrontProcess(folder / "db", token=TOKEN, lines=folder / "lines") as front:
        yield front


@pytest.fixture(params=["memory", "file", "rotating", "background", "api"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    path = tmp_path / "trace.log"

    def on_disk() -> list[bytes]:
        return [
            line
            for file in [*sorted(tmp_path.glob("trace.log.*.log")), path]
            if file.exists()
            for line in file.read_bytes().splitlines(True)
        ]

    if request.param == "memory":
        memory = MemoryLogger("shop")
        made = Case(memory, lambda: memory.raw, shared=False)
    elif request.param == "api":
        front: FrontProcess = request.getfixturevalue("front")
        assert front.lines is not None
        log = front.lines / "lines.log"
        before = log.stat().st_size if log.exists() else 0
        logger = APILogger(f"http://{front.host}:{front.port}/", "shop", TOKEN, 30)
        made = Case(logger, lambda: log.read_bytes()[before:].splitlines(True) if log.exists() else [])
    else:
        more: dict[str, Any] = {"rotating": {"max_bytes": 5000}, "background": {"queue_lines": 100_000}}
        made = Case(FileLogger(path, "shop", **more.get(request.param, {})), on_disk)
    yield made
    made.logger.close()


def test_it_is_a_logger(case: Case) -> None:
    """Property: the protocol, the project, and nothing counted before anything happened."""
    assert isinstance(case.logger, Logger)
    assert case.logger.project_id == "shop"
    assert case.logger.stats().lines == case.logger.stats().dropped == 0
    assert case.records() == []


def test_what_a_trace_logs_arrives(case: Case) -> None:
    """Property: lines of every kind, in order and complete, each counted once."""
    trace = Trace(logger=case.logger, trace_id="t")
    for number in range(30):
        trace.info(f"text {number} ü\u2028\n\x00")
        trace.tag([Tag("client", "x"), {"name": "n", "value": number, "type": "metric"}])
        trace.log("ref", {"nan": float("nan"), "deep": [[number]]})
    found = case.records()
    assert [record["kind"] for record in found] == ["text", "tags", "object"] * 30
    assert [record["message"] for record in found[::3]] == [f"text {n} ü\u2028\n\x00" for n in range(30)]
    assert [record["tags"][1]["value"] for record in found[1::3]] == list(range(30))
    assert {record["project_id"] for record in found} == {"shop"}
    stats = case.logger.stats()
    assert (stats.lines, stats.dropped, stats.queued, stats.altered) == (90, 0, 0, 0)


def test_threads_share_it(case: Case) -> None:
    """Property: lines of several threads arrive whole, in the order of each thread, and are counted exactly."""
    trace = Trace(logger=case.logger)

    def work(name: int) -> None:
        for step in range(60):
            trace.info(f"{name}.{step}")

    threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    texts = [record["message"] for record in case.records()]
    assert len(texts) == case.logger.stats().lines == 360
    for name in range(6):
        assert [text for text in texts if text.startswith(f"{name}.")] == [f"{name}.{s}" for s in range(60)]


def test_a_forked_child_shares_it(case: Case) -> None:
    """Property: parent and child go on with the same logger; each line arrives once, and the child may close it."""
    if not case.shared:
        pytest.skip("memory is not shared")
    trace = Trace(logger=case.logger)
    for step in range(20):
        trace.info(f"before {step}")
    pid = os.fork()
    if pid == 0:
        try:
            for step in range(20):
                trace.info(f"child {step}")
            case.logger.close()
            os._exit(0 if case.logger.stats().dropped == 0 else 1)
        except BaseException:
            os._exit(2)
    for step in range(20):
        trace.info(f"parent {step}")
    assert os.waitpid(pid, 0)[1] == 0
    texts = [record["message"] for record in case.records()]
    assert sorted(texts) == sorted(
        f"{who} {step}" for who in ("before", "child", "parent") for step in range(20)
    )
    assert case.logger.stats().dropped == 0


def test_after_close_lines_are_counted(case: Case) -> None:
    """Property: closing twice is harmless; what comes later is counted under one reason, and raises nothing."""
    trace = Trace(logger=case.logger)
    trace.info("in time")
    case.logger.close()
    case.logger.close()
    trace.info("late")
    trace.log("late", [1])
    case.logger.flush()
    assert [record["message"] for record in case.records()] == ["in time"]
    assert case.logger.stats().drop_reasons == {"closed": 2}
    assert "closed" in case.logger.stats().last_problem


def test_it_counts_what_its_caller_reports(case: Case) -> None:
    """Property: counts of callers are in `stats`, and the last problem is told in words."""
    case.logger.count(Event.DROPPED, 2, "made up", "for a test")
    case.logger.count(Event.ALTERED, detail="a value")
    stats = case.logger.stats()
    assert (stats.dropped, stats.drop_reasons, stats.altered) == (2, {"made up": 2}, 1)
    assert stats.last_problem.endswith("a value")
