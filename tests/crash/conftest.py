"""Fixtures of the fault harness."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crash import stores
from crash.actors import Cast
from crash.check import Outcome
from crash.sizes import Sizes, long_sizes, short_sizes
from crash.table import OUTCOMES
from support.front import FrontProcess
from support.kafka import KafkaBroker

_numbers = itertools.count()


@pytest.fixture(params=[pytest.param("short", id="short"), pytest.param("long", marks=pytest.mark.soak)])
def sizes(request: pytest.FixtureRequest) -> Sizes:
    """Of a scenario that has a long version."""
    return short_sizes() if request.param == "short" else long_sizes()


@pytest.fixture
def outcome(request: pytest.FixtureRequest) -> Iterator[Outcome]:
    """The scenario's row in the table; it is printed whatever becomes of the test."""
    made = Outcome(request.node.name.removeprefix("test_").replace("_", " "))
    request.config.stash.setdefault(OUTCOMES, []).append(made)
    began = time.monotonic()
    yield made
    made.seconds = time.monotonic() - began


@pytest.fixture
def topic() -> str:
    """A topic that nobody has used."""
    return f"crash-{next(_numbers)}"


@pytest.fixture
def cast(tmp_path: Path, kafka: KafkaBroker, topic: str) -> Iterator[Cast]:
    """Makes the processes of a scenario around a topic, and ends them with it."""
    made = Cast(tmp_path, kafka.bootstrap, topic)
    yield made
    made.abandon()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Cast]:
    """The same without Kafka."""
    made = Cast(tmp_path)
    yield made
    made.abandon()


@pytest.fixture(scope="session")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontProcess]:
    """ClickHouse behind HTTP: it survives, so that several processes can share it."""
    with FrontProcess(tmp_path_factory.mktemp("front") / "db") as process:
        yield process


@pytest.fixture
def database(front: FrontProcess) -> Callable[[], str]:
    """Makes the name of a new database behind the front, migrated, that never merges by itself."""

    def make() -> str:
        name = f"crash_{next(_numbers)}"
        dsn = f"clickhouse://127.0.0.1:{front.port}/{name}"
        stores.create(dsn)
        return name

    return make
