"""The queue and the writer thread: slow disks, full queues, forks, exits."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.processes import in_child, messages, wait_until
from tailrace import ConfigError, FileLogger, Trace

quiet = pytest.mark.filterwarnings("ignore:tailrace:RuntimeWarning")


class Disk:
    """Holds every write of a logger up until it is released."""

    def __init__(self, logger: FileLogger) -> None:
        self.released = threading.Event()
        self.entered = threading.Event()
        real = logger._file.append_block

        def slow(lines: Sequence[bytes]) -> None:
            self.entered.set()
            self.released.wait(60)
            real(lines)

        logger._file.append_block = slow  # type: ignore[method-assign]


def test_everything_arrives_in_order(tmp_path: Path) -> None:
    """Property: what several threads log is in the file after `flush`, whole, and in the order of each thread."""
    logger = FileLogger(tmp_path / "a.log", "shop", queue_lines=100_000)
    trace = Trace(logger=logger)

    def work(name: int) -> None:
        for step in range(3000):
            trace.info(f"{name} {step}")

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    logger.flush(30)
    found = messages(tmp_path / "a.log")
    assert len(found) == 12_000
    for name in range(4):
        assert [text for text in found if text.startswith(f"{name} ")] == [f"{name} {s}" for s in range(3000)]
    stats = logger.stats()
    assert (stats.lines, stats.queued, stats.dropped) == (12_000, 0, 0)
    logger.close()


def test_a_full_queue_drops_counts_and_never_waits(tmp_path: Path) -> None:
    """Property: while the disk stands still `write` returns at once; what the queue cannot hold is counted, and warned
    about once; what it can hold is written when the disk moves again: lines + dropped + queued = what was logged."""
    logger = FileLogger(tmp_path / "a.log", "shop", queue_lines=50)
    disk = Disk(logger)
    trace = Trace(logger=logger)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trace.info("first")
        assert disk.entered.wait(20)
        began = time.monotonic()
        for number in range(200):
            trace.info(str(number))
        assert time.monotonic() - began < 5
    assert [str(each.message).count("takes lines more slowly") for each in caught] == [1]
    stats = logger.stats()
    assert (stats.lines, stats.queued, stats.drop_reasons) == (0, 51, {"queue full": 150})
    logger.flush(0.05)
    assert logger.stats().queued >= 51, "flush gives up in time, and loses nothing"
    disk.released.set()
    logger.flush(20)
    assert messages(tmp_path / "a.log") == ["first", *map(str, range(50))]
    assert (logger.stats().lines, logger.stats().queued) == (51, 0)
    logger.close()


@quiet
def test_close_gives_up_in_time_and_counts_what_is_left(tmp_path: Path) -> None:
    """Property: a disk that stands still holds `close` up no longer than it is told; every line is counted."""
    logger = FileLogger(tmp_path / "a.log", "shop", queue_lines=1000)
    disk = Disk(logger)
    trace = Trace(logger=logger)
    trace.info("in the thread's hands")
    assert disk.entered.wait(20)
    for number in range(100):
        trace.info(str(number))
    began = time.monotonic()
    logger.close(0.2)
    assert time.monotonic() - began < 5
    assert logger.stats().drop_reasons == {"not drained in time": 100}
    trace.info("late")
    assert logger.stats().dropped == 101
    disk.released.set()
    wait_until(lambda: logger.stats().queued == 0)
    assert logger.stats().lines + logger.stats().dropped == 102


@quiet
def test_close_drains_and_later_lines_are_counted(tmp_path: Path) -> None:
    """Property: nothing that was logged before `close` is missing; what comes later is counted; closing twice is harmless."""
    logger = FileLogger(tmp_path / "a.log", "shop", queue_lines=10_000)
    trace = Trace(logger=logger)
    for number in range(5000):
        trace.info(str(number))
    logger.close()
    logger.close()
    trace.info("late")
    assert messages(tmp_path / "a.log") == list(map(str, range(5000)))
    assert logger.stats().drop_reasons == {"closed": 1}


@quiet
def test_threads_that_log_while_it_closes_lose_no_line_unseen(tmp_path: Path) -> None:
    """Property: lines + dropped = what was logged, however the closing falls between the steps of a writer."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for attempt in range(20):
            path = tmp_path / f"{attempt}.log"
            logger = FileLogger(path, "shop", queue_lines=10_000)
            trace = Trace(logger=logger)
            logged = [0] * 4

            def work(
                name: int, trace: Trace = trace, logger: FileLogger = logger, logged: list[int] = logged
            ) -> None:
                while logger.stats().dropped == 0:
                    trace.info("x")
                    logged[name] += 1

            threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
            for thread in threads:
                thread.start()
            wait_until(lambda logged=logged: sum(logged) > 50)
            logger.close(20)
            for thread in threads:
                thread.join()
            assert logger.stats().lines == len(messages(path))
            assert logger.stats().lines + logger.stats().dropped == sum(logged)
    finally:
        sys.setswitchinterval(interval)


def test_closing_waits_for_a_writer_that_is_just_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Property: what the thread has in its hands when the logger is closed is written and counted when `close` returns,
    also while the line that started the thread has not come back from starting it."""
    logger = FileLogger(tmp_path / "a.log", "shop", queue_lines=100)
    taken, closed = threading.Event(), threading.Event()
    seen: list[bool] = []

    class SlowToStart(threading.Thread):
        def start(self) -> None:
            super().start()
            closed.wait(10)

    file = logger._background._file  # type: ignore[union-attr]
    append_block = file.append_block

    def slow_append_block(lines: list[bytes]) -> None:
        taken.set()
        seen.append(closed.wait(0.3))
        append_block(lines)

    monkeypatch.setattr("tailrace.background.Thread", SlowToStart)
    monkeypatch.setattr(file, "append_block", slow_append_block)
    first = threading.Thread(target=Trace(logger=logger).info, args=("x",))
    first.start()
    assert taken.wait(10)
    logger.close(20)
    stats = logger.stats()
    closed.set()
    first.join()
    assert seen and not any(seen)
    assert (stats.lines, stats.queued, stats.dropped) == (1, 0, 0)


def test_a_failing_disk_is_counted_as_without_a_queue(tmp_path: Path) -> None:
    """Property: a block that the disk takes in part tears no line: each line that is counted as written is whole."""
    found = in_child(
        """
        import resource
        from tailrace import FileLogger, Trace
        logger = FileLogger(sys.argv[1], "shop", queue_lines=1000)
        trace = Trace(logger=logger, trace_id="t")
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        for number in range(100):
            trace.info(f"line {number} " + "y" * 50)
        logger.close()
        stats = logger.stats()
        print(json.dumps([stats.lines, stats.drop_reasons, stats.short_writes]))
        """,
        tmp_path / "a.log",
    )
    lines, reasons, short = found
    assert lines + reasons["EFBIG"] == 100
    assert short >= 1
    whole = [line for line in (tmp_path / "a.log").read_bytes().split(b"\n") if line.endswith(b'"}')]
    assert len(whole) == lines


def test_forked_children_write_their_own_lines_only(tmp_path: Path) -> None:
    """Property: children that are forked while the parent's queue is full start with an empty one and a thread of their
    own; every line of parent and children is in the file once, by os.fork and by multiprocessing."""
    found = in_child(
        """
        import multiprocessing
        from tailrace import FileLogger, Trace
        logger = FileLogger(sys.argv[1], "shop", queue_lines=100_000)
        trace = Trace(logger=logger)
        def work(name):
            for step in range(500):
                trace.info(f"{name}.{step}")
        work("parent-before")
        queued = []
        children = []
        for child in range(3):
            pid = os.fork()
            if pid == 0:
                ok = logger.stats().queued == 0
                work(f"fork{child}")
                logger.flush(20)
                os._exit(0 if ok and logger.stats().queued == 0 else 1)
            children.append(pid)
        processes = [multiprocessing.get_context("fork").Process(target=work, args=(f"mp{n}",)) for n in range(3)]
        for process in processes: process.start()
        work("parent-after")
        codes = [os.waitpid(pid, 0)[1] for pid in children]
        for process in processes: process.join()
        print(json.dumps(codes + [process.exitcode for process in processes]))
        """,
        tmp_path / "a.log",
    )
    assert found == [0] * 6
    texts = messages(tmp_path / "a.log")
    names = ["parent-before", "parent-after", *(f"fork{n}" for n in range(3)), *(f"mp{n}" for n in range(3))]
    assert sorted(texts) == sorted(f"{name}.{step}" for name in names for step in range(500))


@pytest.mark.parametrize(
    "ending",
    [
        "pass",
        "sys.exit(0)",
        "raise SystemExit(0)",
        "threading.Thread(target=trace.info, args=('thread',)).start()",
    ],
)
def test_exit_drains_the_queue(tmp_path: Path, ending: str) -> None:
    """Property: a process that ends without closing has written every line, those of exit handlers and non-daemon
    threads included, in whatever order the handlers were registered; and it prints nothing."""
    in_child(
        f"""
        import atexit
        atexit.register(lambda: trace.info("registered first"))
        from tailrace import FileLogger, Trace
        logger = FileLogger(sys.argv[1], "shop", queue_lines=100_000)
        trace = Trace(logger=logger)
        atexit.register(lambda: trace.info("registered last"))
        for number in range(5000):
            trace.info(str(number))
        {ending}
        """,
        tmp_path / "a.log",
    )
    texts = messages(tmp_path / "a.log")
    assert [text for text in texts if text.isdigit()] == list(map(str, range(5000)))
    assert {"registered first", "registered last"} <= set(texts)
    assert ("thread" in texts) == ("Thread" in ending)


def test_a_first_line_at_the_very_end_is_written(tmp_path: Path) -> None:
    """Property: where no thread can be started any more, the caller writes."""
    in_child(
        """
        import atexit
        from tailrace import FileLogger, Trace
        trace = Trace(logger=FileLogger(sys.argv[1], "shop", queue_lines=10))
        class Late:
            def __del__(self, trace=trace): trace.info("finaliser")
        late = Late()
        atexit.register(trace.info, "atexit")
        """,
        tmp_path / "a.log",
    )
    assert messages(tmp_path / "a.log")[0] == "atexit"


def test_a_signal_handler_may_log_flush_and_close(tmp_path: Path) -> None:
    """Property: handlers that log while the interrupted code logs, and one that closes and ends the process, neither
    wait for a lock nor lose a line."""
    found = in_child(
        """
        from tailrace import FileLogger, Trace
        logger = FileLogger(sys.argv[1], "shop", queue_lines=1_000_000)
        trace = Trace(logger=logger)
        handled = sent = 0
        def tick(*_):
            global handled
            trace.info("tick")
            handled += 1
            if handled % 10 == 0:
                logger.flush(5)
        def end(*_):
            signal.setitimer(signal.ITIMER_REAL, 0)
            logger.close()
            print(json.dumps([handled, sent, logger.stats().lines, logger.stats().dropped]), flush=True)
            os._exit(0)
        signal.signal(signal.SIGALRM, tick)
        signal.signal(signal.SIGTERM, end)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        while handled < 100:
            trace.info("main")
            sent += 1
        os.kill(os.getpid(), signal.SIGTERM)
        while True: time.sleep(1)
        """,
        tmp_path / "a.log",
    )
    handled, sent, lines, dropped = found
    assert dropped == 0
    assert lines == len(messages(tmp_path / "a.log")) == handled + sent


def test_a_killed_process_loses_only_what_was_queued(tmp_path: Path) -> None:
    """Property: what a flush returned for survives SIGKILL, and the file holds whole lines."""
    code = (
        "import os, signal, sys\nfrom tailrace import FileLogger, Trace\n"
        "logger = FileLogger(sys.argv[1], 'shop', queue_lines=100000)\ntrace = Trace(logger=logger)\n"
        "for number in range(1000): trace.info(str(number))\nlogger.flush(20)\n"
        "for number in range(1000): trace.info('after')\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.log")], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert messages(tmp_path / "a.log")[:1000] == list(map(str, range(1000)))


def test_a_logger_that_is_dropped_ends_its_thread(tmp_path: Path) -> None:
    """Property: without `close`, a logger that nobody holds writes what it took, ends its thread and closes its file."""
    import gc

    before = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    for number in range(5):
        logger = FileLogger(tmp_path / f"{number}.log", "shop", queue_lines=100)
        Trace(logger=logger).info("x")
    del logger
    gc.collect()
    wait_until(lambda: (threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))) <= before)
    assert [messages(tmp_path / f"{number}.log") for number in range(5)] == [["x"]] * 5


def test_a_server_that_forks_before_it_logs_forks_without_threads(tmp_path: Path) -> None:
    """Property: making the logger starts no thread."""
    before = threading.active_count()
    logger = FileLogger(tmp_path / "a.log", "shop", queue_lines=10)
    logger.flush()
    assert threading.active_count() == before
    with pytest.raises(ConfigError):
        FileLogger(tmp_path / "a.log", "shop", queue_lines=-1)
