"""The pipeline with a receiver in memory and progress on disk."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tailrace.shipper.checkpoint import Checkpoint
from tailrace.shipper.deliver import CheckpointedDelivery
from tailrace.shipper.run import Shipper
from tailrace.shipper.settings import ShipperSettings
from tailrace.shipper.stats import Stats
from tailrace.shipper.testing import MemoryLines, MemorySink


class Crash(BaseException):
    """Ends the process, as far as the pipeline can tell."""


def shipper(
    directory: Path, sink: MemorySink, on_progress: Callable[[Stats], None] | None = None, **changes: object
) -> Shipper[MemoryLines]:
    values: dict[str, object] = {
        "paths": (str(directory),),
        "batch_bytes": 500,
        "chunk_bytes": 100,
        "max_line_bytes": 1024,
        "linger_seconds": 0.01,
        "poll_seconds": 0.05,
        **changes,
    }
    checkpoint = Checkpoint(directory / "x.checkpoint.json")
    return Shipper(
        ShipperSettings(**values),  # type: ignore[arg-type]
        CheckpointedDelivery(sink, checkpoint),
        on_progress,
    )


def write(path: Path, first: int, count: int) -> list[bytes]:
    lines = [b"%s %d %s" % (path.name.encode(), i, b"x" * (i % 60)) for i in range(first, first + count)]
    with path.open("ab") as file:
        file.write(b"".join(line + b"\n" for line in lines))
    return lines


async def wait_for(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited for {what}"
        await asyncio.sleep(0.01)


def is_open_here(path: Path) -> bool:
    """Whether this process has a descriptor of the file."""
    inode, opened = path.stat().st_ino, set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            opened.add(descriptor.stat().st_ino)
    return inode in opened


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(crashes=st.lists(st.tuples(st.booleans(), st.integers(0, 6)), max_size=6))
def test_a_crash_around_any_store_repeats_and_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, crashes: list[tuple[bool, int]]
) -> None:
    """Crashes before and after batches take effect, with files that grow in between: every line is there
    once, although the next process would have cut its batches elsewhere."""
    directory = tmp_path_factory.mktemp("crash")
    expected: list[bytes] = []
    stored: list[bytes] = []
    tokens: set[str] = set()

    for number, (late, after) in enumerate([*crashes, (False, -1)]):
        for name in ("a.log", "b.log"):
            expected += write(directory / name, number * 40, 40)
        left = [after]

        def hit(token: str, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == -1:
                raise Crash

        sink = MemorySink(**{"after" if late else "before": hit}) if after >= 0 else MemorySink()
        sink.stored, sink.tokens = stored, tokens
        try:
            asyncio.run(shipper(directory, sink, once=True).run())
        except Crash:
            continue
    assert sorted(stored) == sorted(expected)
    for log in (b"a.log", b"b.log"):
        assert [s for s in stored if s.startswith(log)] == [e for e in expected if e.startswith(log)]


def test_many_small_files_make_few_batches(tmp_path: Path) -> None:
    """A hundred files are one batch, and are not read again by the next run."""
    expected = [line for i in range(100) for line in write(tmp_path / f"{i}.log", 0, 3)]
    sink = MemorySink()
    stats = asyncio.run(shipper(tmp_path, sink, once=True, batch_bytes=1 << 20).run())
    assert sorted(sink.stored) == sorted(expected)
    assert (stats.lines, stats.batches, stats.files, stats.lag_bytes) == (300, 1, 100, 0)
    asyncio.run(shipper(tmp_path, sink, once=True).run())
    assert len(sink.stored) == 300


def test_files_that_come_and_go_while_the_receiver_is_away(tmp_path: Path) -> None:
    """While a batch is not acknowledged, files are written, rotated and deleted, some of them new: all are read
    afterwards, through their descriptors."""

    class AwaySink(MemorySink):
        back = asyncio.Event()

        async def store(self, prepared: MemoryLines, token: str) -> None:
            await self.back.wait()
            await super().store(prepared, token)

    async def main() -> None:
        sink, log = AwaySink(), tmp_path / "a.log"
        expected = write(log, 0, 40)
        running = shipper(tmp_path, sink)
        task = asyncio.create_task(running.run())
        await wait_for(lambda: running.stats.files == 1, "the first batch to be on its way")
        for number in range(1, 4):
            expected += write(log, 40 * number, 40)
            log.rename(tmp_path / "a.log.1")
            expected += write(log, 1000 + number, 1)
            await wait_for(lambda: is_open_here(log), "the new file to be opened")
            (tmp_path / "a.log.1").unlink()
        log.unlink()
        sink.back.set()
        await wait_for(lambda: len(sink.stored) >= len(expected), "all lines")
        running.stop()
        await task
        assert sorted(sink.stored) == sorted(expected)

    asyncio.run(main())


def test_once_takes_the_unterminated_last_line_and_stops(tmp_path: Path) -> None:
    """Everything that is there, the last line without its newline included."""
    (tmp_path / "a.log").write_bytes(b"one\ntwo")
    sink = MemorySink()
    asyncio.run(shipper(tmp_path, sink, once=True).run())
    assert sink.stored == [b"one", b"two"]


@pytest.mark.parametrize("poll_only", [False, True])
def test_follows_files_that_appear_grow_and_rotate(tmp_path: Path, poll_only: bool) -> None:
    """Lines arrive while the pipeline runs, from files in directories that did not exist at first, with
    events and without."""

    async def scenario() -> None:
        sink = MemorySink()
        reports: list[int] = []
        pipeline = shipper(
            tmp_path,
            sink,
            lambda stats: reports.append(stats.lines),
            paths=(str(tmp_path / "logs" / "**" / "*.log*"),),
            poll_only=poll_only,
        )
        running = asyncio.create_task(pipeline.run())
        folder = tmp_path / "logs" / "deep"
        folder.mkdir(parents=True)
        expected = write(folder / "a.log", 0, 50)
        await wait_for(lambda: len(sink.stored) == 50, "the first lines")
        expected += write(folder / "a.log", 50, 50)
        (folder / "a.log").rename(folder / "a.log.1")
        expected += write(folder / "a.log", 100, 50)
        await wait_for(lambda: len(sink.stored) >= 150, "lines after the rotation")
        pipeline.stop()
        stats = await asyncio.wait_for(running, 10)
        assert sorted(sink.stored) == sorted(expected)
        assert stats.lines == 150
        assert reports[-1] == 150

    asyncio.run(scenario())


def test_a_slow_receiver_leaves_lines_in_the_files(tmp_path: Path) -> None:
    """While one batch is stuck, one more is prepared and one more read, and no further; all three count as lag. When the
    receiver goes on, everything arrives, in order."""
    expected = write(tmp_path / "a.log", 0, 1000)
    size = (tmp_path / "a.log").stat().st_size

    async def scenario() -> None:
        gate = asyncio.Event()

        class Slow(MemorySink):
            prepared = 0

            def prepare(self, chunks):  # type: ignore[no-untyped-def]
                lines = super().prepare(chunks)
                self.prepared += lines.lines
                return lines

            async def store(self, prepared: MemoryLines, token: str) -> None:
                await gate.wait()
                await super().store(prepared, token)

        sink = Slow()
        ship = shipper(tmp_path, sink, once=True)
        running = asyncio.create_task(ship.run())
        await wait_for(lambda: sink.prepared > 20, "the second batch")
        await asyncio.sleep(0.3)
        assert sink.prepared < 60
        assert ship._reader is not None
        assert 3 * 500 <= size - ship._reader.tailer.lag < 3 * 600
        assert ship.stats.lag_bytes == size
        gate.set()
        await running
        assert sink.stored == expected

    asyncio.run(scenario())


def test_a_stop_does_not_wait_for_ever(tmp_path: Path) -> None:
    """A receiver that answers nothing is left after the deadline; the next run delivers what it had, once."""
    expected = write(tmp_path / "a.log", 0, 100)

    class Stuck(MemorySink):
        async def store(self, prepared: MemoryLines, token: str) -> None:
            await super().store(prepared, token)
            await asyncio.Event().wait()

    async def scenario() -> Stuck:
        sink = Stuck()
        pipeline = shipper(tmp_path, sink, stop_seconds=0.2)
        running = asyncio.create_task(pipeline.run())
        await wait_for(lambda: bool(sink.stored), "the first batch")
        pipeline.stop()
        await asyncio.wait_for(running, 5)
        return sink

    stuck = asyncio.run(scenario())
    sink = MemorySink()
    sink.stored, sink.tokens = stuck.stored, stuck.tokens
    asyncio.run(shipper(tmp_path, sink, once=True).run())
    assert sink.stored == expected


def test_a_file_that_vanished_with_a_batch_in_doubt_is_counted(tmp_path: Path) -> None:
    """The bytes may be stored or not; they are reported, and what else was in the batch is stored."""
    write(tmp_path / "a.log", 0, 3)
    expected = write(tmp_path / "b.log", 0, 3)

    def crash(token: str) -> None:
        raise Crash

    with pytest.raises(Crash):
        asyncio.run(shipper(tmp_path, MemorySink(before=crash), once=True).run())
    size = (tmp_path / "a.log").stat().st_size
    (tmp_path / "a.log").unlink()
    sink = MemorySink()
    stats = asyncio.run(shipper(tmp_path, sink, once=True).run())
    assert sink.stored == expected
    assert stats.lost_bytes == size
