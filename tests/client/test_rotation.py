"""Rotation among threads and processes: every line whole, none lost, found by whoever tails."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import urlopen

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.cli import query, report, start
from support.processes import in_child, messages, wait_until
from tailrace import ConfigError, FileLogger, Trace
from tailrace.ingestor.check import Checker
from tailrace.rotation import (
    GRACE_SECONDS,
    Rotation,
    beginning,
    rotate,
    rotated_files,
    rotated_name,
    rotation,
)
from tailrace.schemas.clickhouse.connection import read_front
from tailrace.shipper.identity import is_rotated_name

NOW = 1_800_000_000.25
WRITER = """
from tailrace import FileLogger, Trace
path, name, threads, lines, max_bytes, queue = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
logger = FileLogger(path, "shop", max_bytes=max_bytes, queue_lines=queue)
trace = Trace(logger=logger)
padding = "x" * 300
def work(thread):
    for step in range(lines):
        trace.info(f"{name}.{thread}.{step} {padding if step % 3 == 0 else ''}")
workers = [threading.Thread(target=work, args=(n,)) for n in range(threads)]
for worker in workers: worker.start()
for worker in workers: worker.join()
logger.close()
stats = logger.stats()
print(json.dumps([stats.lines, stats.dropped, stats.rotated, stats.not_rotated]))
"""


def files_of(path: Path) -> list[Path]:
    return [*rotated_files(path), path]


def run_writers(
    path: Path, processes: int, threads: int, lines: int, max_bytes: int, queue: int = 0
) -> Counter[str]:
    """Processes that write into one file at the same time; returns the sum of their counts."""
    results: list[list[int]] = []
    workers = [
        threading.Thread(
            target=lambda n=n: results.append(
                in_child(WRITER, path, f"p{n}", threads, lines, max_bytes, queue, seconds=1800)
            )
        )
        for n in range(processes)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == processes
    total: Counter[str] = Counter()
    for counts in results:
        total.update(dict(zip(("lines", "dropped", "rotated", "not_rotated"), counts, strict=True)))
    return total


def assert_all_there(path: Path, processes: int, threads: int, lines: int) -> None:
    """By the ingestor: every line of every file is a valid record; and every message is there once, in order."""
    checker = Checker(8 * 1024 * 1024, 10, lambda _: None)
    for file in files_of(path):
        checker.check(file)
    assert checker.report.findings == []
    assert checker.report.valid == processes * threads * lines
    seen: Counter[str] = Counter()
    decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
    for file in files_of(path):
        in_this: dict[str, int] = {}
        for line in file.read_bytes().split(b"\n"):
            if line:
                writer, _, step = (
                    str(msgspec.json.decode(decoder.decode(line)["message"])).split()[0].rpartition(".")
                )
                assert in_this.get(writer, -1) < int(step), "the lines of a thread stand in order in a file"
                in_this[writer] = int(step)
                seen[writer] += 1
    assert seen == {f"p{p}.{t}": lines for p in range(processes) for t in range(threads)}


def test_processes_and_threads_rotate_one_file(tmp_path: Path) -> None:
    """Property: 8 processes of 4 threads that share and rotate a file lose, tear and repeat no line; all of it is
    stored by `tailrace up`."""
    path = tmp_path / "logs" / "trace.log"
    total = run_writers(path, 8, 4, 500, max_bytes=200_000)
    assert (total["lines"], total["dropped"], total["not_rotated"]) == (16_000, 0, 0)
    assert total["rotated"] == len(rotated_files(path)) >= 4
    assert_all_there(path, 8, 4, 500)
    found = report("up", "--once", "--clickhouse", f"chdb://{tmp_path / 'db'}", tmp_path / "logs" / "*.log")
    assert (found["rows"], found["dead_letters"]) == (16_000, 0)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("queue", [0, 400_000])
def test_processes_and_threads_rotate_one_file_at_full_size(tmp_path: Path, queue: int) -> None:
    """Property: as above, 8 × 4 × 100,000 lines with rotation at 50 MB, with and without a writer thread."""
    path = tmp_path / "logs" / "trace.log"
    total = run_writers(path, 8, 4, 100_000, max_bytes=50_000_000, queue=queue)
    assert (total["lines"], total["dropped"], total["not_rotated"]) == (3_200_000, 0, 0)
    assert_all_there(path, 8, 4, 100_000)


def test_a_tailer_reads_a_file_that_rotates_under_it(tmp_path: Path) -> None:
    """Property: `tailrace up` follows a directory in which several processes rotate a log, and stores each line once,
    while they write."""
    path = tmp_path / "logs" / "trace.log"
    path.parent.mkdir()
    database = tmp_path / "db"
    process = start("up", "--clickhouse", f"chdb://{database}", "--http", "127.0.0.1:0", path.parent)
    try:
        wait_until(lambda: read_front(str(database)) is not None, 60)
        front = read_front(str(database))
        assert front is not None
        total = run_writers(path, 3, 2, 2000, max_bytes=100_000, queue=50_000)
        assert (total["lines"], total["dropped"]) == (12_000, 0)

        def stored() -> int:
            ask = urlencode({"query": "SELECT count() FROM tailrace.logs"})
            with urlopen(f"http://{front.host}:{front.port}/?{ask}", timeout=30) as answer:
                return int(answer.read())

        wait_until(lambda: stored() >= 12_000, 60)
    finally:
        process.terminate()
        assert process.wait(60) == 0
    counts = "SELECT count() AS rows, uniqExact(message) AS texts, (SELECT count() FROM dead_letters) AS dead FROM logs"
    assert query(database, counts) == [[{"rows": 12_000, "texts": 12_000, "dead": 0}]]


def test_a_fast_writer_does_not_outrun_the_limit(tmp_path: Path) -> None:
    """Property: with one process no file is larger than the limit and one line, however rarely the path is looked at."""
    path = tmp_path / "trace.log"
    logger = FileLogger(path, "shop", max_bytes=10_000, check_ms=60_000)
    trace = Trace(logger=logger)
    for number in range(2000):
        trace.info(str(number))
    sizes = [file.stat().st_size for file in files_of(path)]
    assert max(sizes) < 10_400
    assert min(sizes[:-1]) >= 10_000
    assert [text for file in files_of(path) for text in messages(file)] == list(map(str, range(2000)))
    assert logger.stats().rotated == len(sizes) - 1
    assert logger.stats().reopened == 0


def test_a_file_that_was_full_before_is_rotated_first(tmp_path: Path) -> None:
    """Property: a process that starts with a full file puts it aside, a half line at its end included."""
    path = tmp_path / "trace.log"
    path.write_bytes(b"x" * 5000)
    Trace(logger=FileLogger(path, "shop", max_bytes=4096, check_ms=0)).info("mine")
    assert messages(path) == ["mine"]
    (old,) = rotated_files(path)
    assert old.read_bytes() == b"x" * 5000


def test_periods_are_kept_apart(tmp_path: Path) -> None:
    """Property: with rotation by time each file holds lines of one second only (save for what comes within `check_ms`
    of its end), although two processes write, of which one starts in the middle of a period."""
    path = tmp_path / "trace.log"
    code = """
    from tailrace import FileLogger, Trace
    trace = Trace(logger=(logger := FileLogger(sys.argv[1], "shop", rotate_every=1, check_ms=1)))
    end = time.monotonic() + 3.4
    while time.monotonic() < end:
        trace.info(str(time.time()))
        time.sleep(0.002)
    print(json.dumps([logger.stats().lines, logger.stats().dropped, logger.stats().rotated]))
    """
    results: list[list[int]] = []
    other = threading.Thread(target=lambda: results.append(in_child(code, path)))
    other.start()
    time.sleep(0.5)
    results.append(in_child(code, path))
    other.join()
    found = [[float(text) for text in messages(file)] for file in files_of(path)]
    assert sum(map(len, found)) == sum(lines for lines, _, _ in results)
    assert sum(rotated for _, _, rotated in results) == len(found) - 1 >= 3
    for times in found:
        assert (max(times) - 0.2) // 1 <= (min(times) + 0.2) // 1, "0.2 s are a generous `check_ms`"


def test_an_old_file_is_rotated_by_time_at_start_and_a_new_one_is_not(tmp_path: Path) -> None:
    """Property: what a file began as is known to later processes, by the note beside it or else by its last change."""
    path = tmp_path / "trace.log"
    path.write_bytes(b"{}\n")
    os.utime(path, (time.time() - 7200, time.time() - 7200))
    Trace(logger=FileLogger(path, "shop", rotate_every="hour", check_ms=0)).info("mine")
    assert len(rotated_files(path)) == 1
    status = path.stat()
    held = (status.st_dev, status.st_ino)
    noted = beginning(path, held, status.st_size, 5.0, NOW)
    assert abs(noted - time.time()) < 100, "the note is believed, not the time of change"
    assert not rotate(path, held, Rotation(period=3600), noted)
    assert rotate(path, held, Rotation(period=3600), noted + 3600)


@given(
    size=st.integers(0, 10_000),
    began=st.floats(0, 4e9),
    now=st.floats(0, 4e9),
    max_bytes=st.integers(1, 10_000),
    period=st.integers(1, 100_000),
)
def test_due_is_as_documented(size: int, began: float, now: float, max_bytes: int, period: int) -> None:
    """Property: an empty file is never due; a full one always; by time exactly when a boundary lies between."""
    boundary = now >= (began // period + 1) * period
    assert Rotation(max_bytes=max_bytes).due(size, began, now) == (size > 0 and size >= max_bytes)
    assert Rotation(period=period).due(size, began, now) == (size > 0 and boundary)
    assert not Rotation().due(size, began, now)


@pytest.mark.parametrize("name", ["trace.log", "trace", "a.b.jsonl", ".hidden.log"])
def test_names_are_found_by_the_usual_patterns(name: str) -> None:
    """Property: a rotated file ends like the log and begins like it, sorts by time, and is known by shippers."""
    path = Path("/var/log") / name
    names = [rotated_name(path, NOW + later).name for later in (0, 0.000001, 1, 86400)]
    assert names == sorted(set(names))
    for rotated in names:
        assert rotated.startswith(f"{name}.")
        assert rotated.endswith(path.suffix)
        assert is_rotated_name(rotated, name)


def test_keep_removes_the_oldest_and_nothing_else(tmp_path: Path) -> None:
    """Property: so many rotated files are left, apart from those that were written to in the last minute; files of
    other names are never touched."""
    path = tmp_path / "trace.log"
    now = time.time()
    others = [
        tmp_path / "trace.log.1",
        tmp_path / "trace.log.20200101T000000.000000Z.log.gz",
        tmp_path / "xtrace.log",
    ]
    old = [rotated_name(path, now - age) for age in (4000, 3000, 2000, 1000)]
    for file in [*others, *old]:
        file.write_bytes(b"{}\n")
        os.utime(file, (now - 1000, now - 1000))
    os.utime(old[0], (now - GRACE_SECONDS / 2,) * 2)
    trace = Trace(logger=(logger := FileLogger(path, "shop", max_bytes=4096, check_ms=0, keep=2)))
    trace.info("x" * 5000)
    trace.info("y")
    assert logger.stats().rotated == 1
    assert rotated_files(path) == [old[0], old[3], rotated_files(path)[-1]]
    assert all(file.exists() for file in others)
    assert messages(path) == ["y"]


def test_without_keep_nothing_is_removed(tmp_path: Path) -> None:
    """Property: by default every line that was ever logged is still on the disk."""
    path = tmp_path / "trace.log"
    trace = Trace(logger=FileLogger(path, "shop", max_bytes=4096))
    for number in range(500):
        trace.info(str(number) + "x" * 400)
    assert sum(len(messages(file)) for file in files_of(path)) == 500
    assert len(files_of(path)) > 40


def test_who_does_not_get_the_lock_writes_on(tmp_path: Path) -> None:
    """Property: while another process rotates, for however long, lines are written and nobody waits; then it is rotated."""
    path = tmp_path / "trace.log"
    logger = FileLogger(path, "shop", max_bytes=4096, check_ms=1)
    trace = Trace(logger=logger)
    with (tmp_path / ".trace.log.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        began = time.monotonic()
        for number in range(200):
            trace.info(str(number))
        assert time.monotonic() - began < 5
        assert rotated_files(path) == []
    wait_until(lambda: (trace.info("more"), rotated_files(path))[1] != [])
    texts = [text for file in files_of(path) for text in messages(file)]
    assert texts[:200] == list(map(str, range(200)))
    assert len(texts) == logger.stats().lines


@pytest.mark.filterwarnings("ignore:tailrace:RuntimeWarning")
def test_a_file_that_cannot_be_rotated_grows_on(tmp_path: Path) -> None:
    """Property: a lock file that cannot be opened, or a name that cannot be changed, costs no line; it is counted, and
    not tried again at every line."""
    path = tmp_path / "trace.log"
    (tmp_path / ".trace.log.lock").mkdir()
    logger = FileLogger(path, "shop", max_bytes=4096, check_ms=0)
    trace = Trace(logger=logger)
    for number in range(300):
        trace.info(str(number))
    assert messages(path) == list(map(str, range(300)))
    stats = logger.stats()
    assert (stats.not_rotated, stats.rotated, stats.dropped) == (1, 0, 0)
    assert "cannot be rotated" in stats.last_problem


def test_a_symbolic_link_stays_what_it_is(tmp_path: Path) -> None:
    """Property: the file behind a link is renamed, beside itself, and the link leads to the new one."""
    (tmp_path / "disk").mkdir()
    link = tmp_path / "trace.log"
    link.symlink_to(tmp_path / "disk" / "real.log")
    trace = Trace(logger=FileLogger(link, "shop", max_bytes=4096, check_ms=0))
    trace.info("x" * 5000)
    trace.info("y")
    assert link.is_symlink()
    assert messages(tmp_path / "disk" / "real.log") == ["y"]
    assert len(rotated_files(tmp_path / "disk" / "real.log")) == 1


def test_children_forked_while_it_rotates_go_on(tmp_path: Path) -> None:
    """Property: forks at any moment of a rotation leave no lock held and lose no line."""
    found = in_child(
        """
        from tailrace import FileLogger, Trace
        logger = FileLogger(sys.argv[1], "shop", max_bytes=4096, check_ms=0)
        trace = Trace(logger=logger)
        stop = threading.Event()
        sent = [0]
        def noise():
            while not stop.is_set():
                trace.info("n" * 1000)
                sent[0] += 1
        thread = threading.Thread(target=noise)
        thread.start()
        children = []
        for _ in range(30):
            pid = os.fork()
            if pid == 0:
                for step in range(20): trace.info("c" * 1000)
                os._exit(0 if logger.stats().dropped == 0 else 1)
            children.append(pid)
        codes = {os.waitpid(pid, 0)[1] for pid in children}
        stop.set()
        thread.join()
        print(json.dumps([list(codes), sent[0], logger.stats().not_rotated]))
        """,
        tmp_path / "trace.log",
    )
    codes, sent, not_rotated = found
    assert (codes, not_rotated) == ([0], 0)
    assert sum(len(messages(file)) for file in files_of(tmp_path / "trace.log")) == sent + 600


@pytest.mark.parametrize(
    "settings",
    [
        {"max_bytes": 10},
        {"max_bytes": -1},
        {"rotate_every": "week"},
        {"rotate_every": 0},
        {"rotate_every": -5},
        {"keep": 3},
        {"keep": 0, "max_bytes": 5000},
        {"sample_rate": 2},
        {"max_object_bytes": 1},
        {"oversized": "drop"},
    ],
)
def test_wrong_settings_are_refused_at_start(tmp_path: Path, settings: dict[str, object]) -> None:
    """Property: what makes no sense is said when the logger is made."""
    with pytest.raises(ConfigError):
        FileLogger(tmp_path / "a.log", "shop", **settings)  # type: ignore[arg-type]
    assert rotation(None, "day", 3) == Rotation(period=86400, keep=3)
