"""No space left: at the checkpoint, and under the engine."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from crash import stores
from crash.actors import Actor, Cast
from crash.check import Outcome
from crash.writer import write_files
from crash.written import line
from support.front import FrontProcess
from support.kafka import KafkaBroker, wait_until
from tailrace.schemas.clickhouse.connection import Dsn, connect

pytestmark = pytest.mark.timeout(300)

MIB = 1 << 20


class SmallDisk:
    """A file system of a few megabytes that can be filled to the last byte.

    Args:
        path: Where it is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self) -> None:
        """Leave no space at all."""
        with contextlib.suppress(OSError), self._filler.open("ab", buffering=0) as filler:
            for size in (MIB, 4096, 1):
                with contextlib.suppress(OSError):
                    while filler.write(b"x" * size) == size:
                        pass

    def free(self) -> None:
        """Give the space back."""
        self._filler.unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], SmallDisk]]:
    """Mounts small file systems, where that is allowed."""
    mounted: list[Path] = []

    def mount(megabytes: int) -> SmallDisk:
        path = tmp_path / f"disk-{len(mounted)}"
        path.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("a small file system can be mounted by root only, and not in every container")
        mounted.append(path)
        return SmallDisk(path)

    yield mount
    for path in mounted:
        subprocess.run(["umount", "--lazy", str(path)], check=False)


def _append(logs: Path, counts: dict[int, int], more: int) -> None:
    for writer, count in counts.items():
        data = b"".join(line(writer, number).data + b"\n" for number in range(count, count + more))
        with (logs / f"w{writer}.log").open("ab") as log:
            log.write(data)
        counts[writer] = count + more


def _ends_with_one_sentence(actor: Actor, *words: str) -> None:
    assert actor.wait(60) == 1, actor.tail()
    last = actor.said.strip().splitlines()[-1]
    assert last.startswith("tailrace: "), actor.tail()
    for word in words:
        assert word in last, last
    assert "Traceback" not in actor.said


def test_no_space_at_the_checkpoint(
    alone: Cast,
    front: FrontProcess,
    database: Callable[[], str],
    disk: Callable[[int], SmallDisk],
    tmp_path: Path,
    outcome: Outcome,
) -> None:
    """`up` whose progress cannot be saved says so and stops; what was saved before is whole; with space again it goes
    on, and every row is there once."""
    dsn = f"clickhouse://127.0.0.1:{front.port}/{database()}"
    small = disk(1)
    logs = tmp_path / "logs"
    counts = write_files(logs, [300, 200])
    up = alone.up(logs, dsn, XDG_STATE_HOME=str(small.path))
    for _ in range(2):
        up.start()
        wait_until(lambda: _rows(dsn) >= sum(counts.values()), "all lines so far")
        small.fill()
        _append(logs, counts, 150)
        _ends_with_one_sentence(up, "No space left on device", str(small.path))
        outcome.faults["fill disk"] += 1
        small.free()
        alone.up(logs, dsn, f"up-{counts[0]}", "--once", XDG_STATE_HOME=str(small.path)).run()
        up = alone.up(logs, dsn, f"next-up-{counts[0]}", XDG_STATE_HOME=str(small.path))
    stored = stores.read(dsn)
    outcome.count_stored(stored, stores.expected(counts), counts)
    outcome.count_ledger(stored.ledger, counts, "file:")
    outcome.assert_exact()


def test_file_size_limit_at_the_checkpoint(
    alone: Cast, front: FrontProcess, database: Callable[[], str], tmp_path: Path, outcome: Outcome
) -> None:
    """The same where no file system can be mounted: a process that may make no file longer than some bytes."""
    dsn = f"clickhouse://127.0.0.1:{front.port}/{database()}"
    logs, state = tmp_path / "logs", tmp_path / "state"
    counts = write_files(logs, [20] * 40)  # the checkpoint of so many files has more than 4 KiB
    limit = ["bash", "-c", 'ulimit -f 4; exec "$0" "$@"']
    up = alone.up(logs, dsn, "limited-up", "--once", prefix=limit, XDG_STATE_HOME=str(state))
    up.start()
    _ends_with_one_sentence(up, "File too large", str(state))
    outcome.faults["limit file size"] += 1
    alone.up(logs, dsn, "last-up", "--once", XDG_STATE_HOME=str(state)).run()
    stored = stores.read(dsn)
    outcome.count_stored(stored, stores.expected(counts), counts)
    outcome.count_ledger(stored.ledger, counts, "file:")
    outcome.assert_exact()


@pytest.mark.kafka
def test_no_space_under_the_engine(
    cast: Cast,
    kafka: KafkaBroker,
    topic: str,
    disk: Callable[[int], SmallDisk],
    tmp_path: Path,
    outcome: Outcome,
) -> None:
    """An ingestor whose engine has no space left waits and says why, or is killed while it waits; with space again
    it goes on, and every row is there once."""
    small = disk(96)
    path = small.path / "db"
    dsn = stores.create_embedded(path)
    logs = tmp_path / "logs"
    counts = write_files(logs, [300, 200])
    shipper = cast.shipper(logs)
    shipper.start()
    ingestor = cast.ingestor(dsn)
    for killed in (False, True):
        ingestor.start()
        before = _parts(path)
        _append(logs, counts, 20)
        wait_until(partial(_has_more_parts, path, before), "the ingestor to be at work")
        small.fill()
        said = len(ingestor.said)
        _append(logs, counts, 400)
        ingestor.wait_to_say("cannot take this now", 60, said)
        assert "space" in ingestor.said[said:].lower()
        outcome.faults["fill disk"] += 1
        if killed:
            ingestor.kill()
            outcome.faults["kill ingestor"] += 1
        small.free()
        if not killed:
            ingestor.wait_to_say("takes inserts again", 60, said)
            ingestor.terminate()
    shipper.terminate()
    cast.shipper(logs, "last-shipper", once=True).run()
    cast.ingestor(dsn, "last-ingestor", "--once").run()
    stored = stores.read(dsn)
    outcome.count_topic(kafka.read_lines(topic), counts)
    outcome.count_stored(stored, stores.expected(counts), counts)
    outcome.count_ledger(stored.ledger, counts, topic)
    outcome.assert_exact()


def test_no_space_for_up_at_all(
    alone: Cast, disk: Callable[[int], SmallDisk], tmp_path: Path, outcome: Outcome
) -> None:
    """`up` with checkpoint and engine on one full disk says so and stops or waits; with space again it goes on."""
    small = disk(96)
    dsn = stores.create_embedded(small.path / "db")
    logs = tmp_path / "logs"
    counts = write_files(logs, [300, 200])
    for number in range(2):
        up = alone.up(logs, dsn, f"up-{number}")
        up.start()
        before = _parts(small.path / "db")
        _append(logs, counts, 20)
        wait_until(partial(_has_more_parts, small.path / "db", before), "`up` to be at work")
        small.fill()
        _append(logs, counts, 300)
        up.wait_to_say("space", 60)
        outcome.faults["fill disk"] += 1
        if up.alive:
            up.kill()
        small.free()
    alone.up(logs, dsn, "last-up", "--once").run()
    stored = stores.read(dsn)
    outcome.count_stored(stored, stores.expected(counts), counts)
    outcome.count_ledger(stored.ledger, counts, "file:")
    outcome.assert_exact()


def _has_more_parts(database: Path, before: int) -> bool:
    return _parts(database) > before


def _parts(database: Path) -> int:
    """Of all tables; without merges every insert adds some."""
    return sum(1 for _ in database.glob("store/*/*/2025*_*_*_*"))


def _rows(dsn: str) -> int:
    client = connect(Dsn.parse(dsn))
    try:
        return int(client.query("SELECT sum(lines) FROM ledger").result_rows[0][0])
    finally:
        client.close()
