"""Random writers, rotations, crashes and restarts against a model that knows which lines exist."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tailrace.shipper.identity import FileState
from tailrace.shipper.settings import ShipperSettings
from tailrace.shipper.tail import Batch, Tailer

LOG_NAMES = ("a.log", "b.log")
LOGS = st.sampled_from(LOG_NAMES)
KEEP = 4
IDLE_SECONDS = 1e6
ROTATED_SECONDS = 10.0


class TailModel(RuleBasedStateMachine):
    """Every line that was ever written is delivered exactly once, each file's lines in their order, whatever
    the writer does with its files, whenever the shipper dies before or after a batch is acknowledged, and whichever
    paths are taken away for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="tail-model-"))
        self.settings = ShipperSettings(
            paths=self._patterns(LOG_NAMES),
            chunk_bytes=64,
            batch_bytes=200,
            max_line_bytes=1024,
            idle_seconds=IDLE_SECONDS,
            rotated_seconds=ROTATED_SECONDS,
            poll_only=True,
        )
        self.counter = itertools.count()
        self.skew = 0.0
        self.written: dict[str, tuple[str, int]] = {}  # line → (log, order)
        self.partial: dict[str, str] = {}
        self.delivered: list[str] = []
        self.places: set[tuple[str, int]] = set()
        self.last: dict[str, int] = {}
        self.states: dict[str, FileState] = {}
        self.generation: dict[str, int] = {"a.log": 0, "b.log": 0}
        self.unlinked = False
        self.followed = set(LOG_NAMES)
        self.tailer = self._new_tailer()

    def _patterns(self, logs: Iterable[str]) -> tuple[str, ...]:
        """Of some logs, and one that no file has ever matched: there is always a path."""
        return tuple(str(self.directory / f"{log}*") for log in (*sorted(logs), "other"))

    @property
    def now(self) -> float:
        return time.time() + self.skew

    def _new_tailer(self) -> Tailer:
        now_followed = replace(self.settings, paths=self._patterns(self.followed))
        return Tailer(now_followed, self.states.values(), self.now)

    def _path(self, log: str, number: int = 0) -> Path:
        return self.directory / (f"{log}.{number}" if number else log)

    def _write(self, log: str, text: str) -> None:
        with self._path(log).open("a") as file:
            file.write(text)

    def _started(self, log: str, size: int) -> str:
        return f"{log}/{self.generation[log]}/{next(self.counter)}:" + "x" * size

    def _exists(self, log: str, line: str) -> None:
        self.written[line] = (f"{log}/{self.generation[log]}", len(self.written))

    def _leave(self, log: str) -> None:
        """The writer goes on in a new file; an unfinished line stays the last one of the old file."""
        if left := self.partial.pop(log, ""):
            self._exists(log, left)
        self.generation[log] += 1

    # ------------------------------------------------------------ the writer

    @rule(log=LOGS, sizes=st.lists(st.sampled_from([0, 5, 40, 63, 64, 200, 2000]), min_size=1, max_size=6))
    def append(self, log: str, sizes: list[int]) -> None:
        for size in sizes:
            line = self.partial.pop(log, None)
            rest = "y" * size if line is not None else self._started(log, size)
            self._write(log, rest + "\n")
            self._exists(log, (line or "") + rest)

    @rule(log=LOGS, size=st.sampled_from([0, 10, 70, 1500]))
    def append_a_part(self, log: str, size: int) -> None:
        part = "z" * (size + 1) if log in self.partial else self._started(log, size)
        self._write(log, part)
        self.partial[log] = self.partial.get(log, "") + part

    def _shift(self, log: str) -> None:
        if self._path(log, KEEP).exists():
            self._follow({*self.followed, log})
            self.look()  # what nobody ever saw cannot be read after it is deleted
            self._path(log, KEEP).unlink()
            self.unlinked = True
        for number in range(KEEP - 1, 0, -1):
            if self._path(log, number).exists():
                self._path(log, number).rename(self._path(log, number + 1))

    @precondition(lambda self: any(self.directory.glob("?.log")))
    @rule(log=LOGS)
    def rotate_by_rename(self, log: str) -> None:
        if self._path(log).exists():
            self._shift(log)
            self._path(log).rename(self._path(log, 1))
            self._leave(log)

    @rule(log=LOGS)
    def rotate_by_copy_and_truncate(self, log: str) -> None:
        if self._path(log).exists():
            self._shift(log)
            shutil.copyfile(self._path(log), self._path(log, 1))
            with self._path(log).open("r+") as file:
                file.truncate(0)
            self._leave(log)

    @rule(log=LOGS)
    def copy_seen_before_truncation(self, log: str) -> None:
        if self._path(log).exists():
            self._shift(log)
            shutil.copyfile(self._path(log), self._path(log, 1))
            self.look()
            with self._path(log).open("r+") as file:
                file.truncate(0)
            self._leave(log)

    @rule(log=LOGS)
    def delete(self, log: str) -> None:
        if self._path(log).exists():
            self._follow({*self.followed, log})
            self.look()
            self._path(log).unlink()
            self.unlinked = True
            self._leave(log)

    # ------------------------------------------------------------ the shipper

    @rule()
    def look(self) -> None:
        self.tailer.poll(self.now)
        self.tailer.scan(self.now)

    @rule()
    def deliver_one_batch(self) -> None:
        self.tailer.poll(self.now)
        batch = self.tailer.read(self.now)
        if batch is not None:
            self._commit(batch)

    @rule()
    def deliver_all(self) -> None:
        self.look()
        self._drain()

    @rule()
    def restart(self) -> None:
        if self.unlinked:
            # A descriptor does not outlive its process: what is deleted has to be read before.
            self.deliver_all()
            self.skew += 2 * ROTATED_SECONDS
            self.deliver_all()
            self.unlinked = False
        self.tailer.close()
        self.tailer = self._new_tailer()
        self.look()

    @precondition(lambda self: not self.unlinked)
    @rule()
    def crash_before_the_batch_is_acknowledged(self) -> None:
        self.look()
        self.tailer.read(self.now)
        self.tailer.close()
        self.tailer = self._new_tailer()
        self.look()

    @precondition(lambda self: self.followed)
    @rule()
    def take_a_path_away(self) -> None:
        """What its files hold is delivered."""
        log = max(self.followed)
        whole = {line for line in self.written if line.startswith(f"{log}/")}
        self._follow(self.followed - {log})
        self._drain()
        if not self.unlinked:
            waits = whole - set(self.delivered) - self._unterminated()
            assert not waits, sorted(line[:40] for line in waits)

    @rule(log=LOGS)
    def take_a_path_away_before_it_is_read(self, log: str) -> None:
        self._follow(self.followed - {log})

    @rule(log=LOGS)
    def give_a_path_again(self, log: str) -> None:
        self._follow({*self.followed, log})

    @precondition(lambda self: len(self.followed) < len(LOG_NAMES))
    @rule(size=st.sampled_from([0, 63, 2000]))
    def write_where_nobody_reads(self, size: int) -> None:
        """Nothing of it is delivered."""
        log = min(set(LOG_NAMES) - self.followed)
        self._drain()
        before = [line for line in self.delivered if line.startswith(f"{log}/")]
        self.append(log, [size])
        self.look()
        self._drain()
        assert before == [line for line in self.delivered if line.startswith(f"{log}/")]

    def _follow(self, logs: set[str]) -> None:
        if logs != self.followed:
            self.followed = logs
            self.tailer.follow(self._patterns(logs), self.now)

    def _unterminated(self) -> set[str]:
        """Last lines of files that were left in the middle of one."""
        texts = [path.read_text() for path in self.directory.iterdir()]
        return {text.rpartition("\n")[2] for text in texts}

    def _drain(self) -> None:
        while True:
            self.tailer.poll(self.now)
            batch = self.tailer.read(self.now)
            if batch is None:
                return
            self._commit(batch)

    def _commit(self, batch: Batch) -> None:
        for state in batch.step.files:
            self.states[state.id] = state
        for file_id in batch.step.forgotten:
            self.states.pop(file_id, None)
        for chunk in batch.chunks:
            if chunk.oversized is not None:
                self._receive(chunk.file.id, chunk.start, self._whole(chunk.oversized.decode()))
                continue
            position = int(chunk.start)
            for line in chunk.data.splitlines():
                self._receive(chunk.file.id, position, line.decode())
                position += len(line) + 1

    def _whole(self, head: str) -> str:
        """The line that this is the head of: the longest, as a line may begin with another's text."""
        found = [line for line in self._known() if line.startswith(head[:1024]) and len(line) > 1024]
        assert found, f"no such overlong line: {head[:80]}"
        return found[0]

    def _known(self) -> list[str]:
        return [*self.written, *self.partial.values()]

    def _receive(self, file_id: str, position: int, line: str) -> None:
        assert (file_id, position) not in self.places, "one place in a file was delivered twice"
        self.places.add((file_id, position))
        assert line in self.written, f"no such line: {line[:80]!r}"
        self.delivered.append(line)
        name, order = self.written[line]
        assert self.last.get(name, -1) < order, "the lines of one file changed their order"
        self.last[name] = order

    @invariant()
    def nothing_is_delivered_twice(self) -> None:
        assert len(self.delivered) == len(set(self.delivered))

    def teardown(self) -> None:
        try:
            for log in list(self.partial):
                self._leave(log)
            self._follow(set(LOG_NAMES))
            self.look()
            self._drain()
            for _ in range(3):  # held copies, idle last lines
                self.skew += 5 * IDLE_SECONDS
                self.look()
                self._drain()
            missing = set(self.written) - set(self.delivered)
            assert not missing, f"never delivered: {sorted(line[:40] for line in missing)}"
            assert len(self.delivered) == len(self.written)
            assert self.tailer.lag == 0
            assert not self.tailer.losses, self.tailer.losses
        finally:
            self.tailer.close()
            shutil.rmtree(self.directory)

    @initialize()
    def begin(self) -> None:
        self.look()


TestTailModel = TailModel.TestCase
TestTailModel.settings = settings(
    max_examples=150,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.soak
@pytest.mark.timeout(3600)
class TestTailModelForLong(TailModel.TestCase):  # type: ignore[misc]  # made by hypothesis
    """The same over more and longer histories."""

    settings = settings(
        max_examples=1_500,
        stateful_step_count=100,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
