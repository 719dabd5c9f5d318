"""The file logger among forks, threads, rotation, and disks that fail."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tailrace import ConfigError, FileLogger, Tag, Trace
from tailrace.append import Held, judge

pytestmark = pytest.mark.filterwarnings("ignore:tailrace:RuntimeWarning")


def messages(path: Path) -> list[str]:
    """The texts of a file, of which every line must be whole; empty lines are what a reader skips."""
    return [json.loads(line)["message"] for line in path.read_bytes().split(b"\n") if line]


def write_until(trace: Trace, done: Callable[[], bool]) -> int:
    """Log until a condition holds, and say how many lines that took."""
    deadline = time.monotonic() + 20
    count = 0
    while not done():
        assert time.monotonic() < deadline, "the condition did not come true in 20 s"
        trace.info("again")
        count += 1
        time.sleep(0.002)
    return count


def in_child(code: str, *arguments: str) -> dict[str, object]:
    """Run code in a process of its own and return the JSON that it prints."""
    program = "import json, os, sys, warnings; warnings.simplefilter('ignore')\n" + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_identities_are_judged_as_documented() -> None:
    """Property: the three cases of what a descriptor and a path may have become."""
    a, b, c = (1, 1), (1, 2), (1, 3)
    assert judge(a, a, a) is Held.CURRENT
    assert judge(a, a, b) is judge(a, a, None) is Held.MOVED
    assert judge(a, c, a) is judge(a, None, a) is judge(a, c, b) is judge(None, None, a) is Held.STOLEN


def test_forks_and_threads_share_a_file(tmp_path: Path) -> None:
    """Property: several processes with several threads each, forked while the parent logs, tear and lose no line."""
    path = tmp_path / "shared.log"
    logger = FileLogger(path, "shop")
    trace = Trace(logger=logger)
    padding = "x" * 3000

    def work(name: str) -> None:
        threads = [threading.Thread(target=burst, args=(f"{name}.{number}",)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def burst(name: str) -> None:
        for step in range(400):
            trace.info(f"{name}.{step} {padding if step % 7 == 0 else ''}")

    noise = threading.Thread(target=burst, args=("noise",))
    noise.start()
    children = []
    for child in range(3):
        pid = os.fork()
        if pid == 0:
            try:
                work(f"child{child}")
                os._exit(0 if logger.stats().dropped == 0 else 1)
            except BaseException:
                os._exit(2)
        children.append(pid)
    work("parent")
    noise.join()
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
    names = [text.split()[0] for text in messages(path)]
    assert len(names) == len(set(names)) == 4 * 3 * 400 + 400
    assert path.stat().st_mode & 0o777 & ~0o640 == 0


def test_rotation_by_rename_is_followed(tmp_path: Path) -> None:
    """Property: after a rename lines go to a new file of the old name, and none is lost over many rotations."""
    path = tmp_path / "trace.log"
    logger = FileLogger(path, "shop", check_ms=1)
    trace = Trace(logger=logger)
    stop = threading.Event()

    def log() -> None:
        while not stop.is_set():
            trace.info("line")

    threads = [threading.Thread(target=log) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(8):
        path.rename(tmp_path / f"trace.log.{number}")
        deadline = time.monotonic() + 20
        while not (path.exists() and path.stat().st_size):
            assert time.monotonic() < deadline, "the file did not come back"
            time.sleep(0.001)
    stop.set()
    for thread in threads:
        thread.join()
    found = sum(len(messages(file)) for file in tmp_path.iterdir())
    assert found == logger.stats().lines
    assert logger.stats().reopened == 8
    assert logger.stats().dropped == 0


@pytest.mark.parametrize("what", ["file", "directory"])
def test_deletion_is_noticed(tmp_path: Path, what: str) -> None:
    """Property: when the file or its directory is deleted, both come back and lines are written there."""
    path = tmp_path / "a" / "b" / "trace.log"
    logger = FileLogger(path, "shop", check_ms=1)
    trace = Trace(logger=logger)
    trace.info("first")
    path.unlink() if what == "file" else shutil.rmtree(tmp_path / "a")
    write_until(trace, lambda: path.exists() and path.stat().st_size > 0)
    trace.info("last")
    assert messages(path)[-1] == "last"
    assert logger.stats().reopened == 1


def test_truncation_by_others_needs_nothing(tmp_path: Path) -> None:
    """Property: after copytruncate the next line stands at the start of the file, without a hole."""
    path = tmp_path / "trace.log"
    trace = Trace(logger=FileLogger(path, "shop"))
    trace.info("first")
    os.truncate(path, 0)
    trace.info("second")
    assert messages(path) == ["second"]


def test_a_descriptor_that_others_closed_is_replaced(tmp_path: Path) -> None:
    """Property: a daemon that closes every descriptor costs no line."""
    path = tmp_path / "trace.log"
    stats = in_child(
        """
        from tailrace import FileLogger, Trace
        logger = FileLogger(sys.argv[1], "shop")
        trace = Trace(logger=logger)
        trace.info("first")
        os.closerange(3, 200)
        trace.info("second")
        trace.info("third")
        print(json.dumps([logger.stats().lines, logger.stats().dropped, logger.stats().reopened]))
        """,
        str(path),
    )
    assert stats == [3, 0, 1]
    assert messages(path) == ["first", "second", "third"]


def test_threads_lose_nothing_when_others_close_the_descriptor(tmp_path: Path) -> None:
    """Property: the thread that finds the descriptor closed opens the file again, and the others wait for it."""
    path = tmp_path / "trace.log"
    stats = in_child(
        """
        import threading
        from tailrace import FileLogger, Trace
        logger = FileLogger(sys.argv[1], "shop", check_ms=1)
        trace = Trace(logger=logger)
        trace.info("first")
        fd = logger._file._fd
        sys.setswitchinterval(1e-5)
        def work():
            for _ in range(3000):
                trace.info("x")
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads: thread.start()
        os.close(fd)
        for thread in threads: thread.join()
        print(json.dumps([logger.stats().dropped, logger.stats().reopened]))
        """,
        str(path),
    )
    assert stats == [0, 1]
    assert len(messages(path)) == 12_001


def test_a_number_that_became_another_file_is_left_alone(tmp_path: Path) -> None:
    """Property: when our descriptor number has been given to another file, it is neither written to for long nor closed."""
    path, other = tmp_path / "trace.log", tmp_path / "other"
    logger = FileLogger(path, "shop", check_ms=0)
    stolen = logger._file._fd
    os.close(stolen)
    replacement = os.open(other, os.O_CREAT | os.O_WRONLY)
    assert replacement == stolen
    Trace(logger=logger).info("mine")
    logger.close()
    del logger
    os.write(replacement, b"theirs")
    os.close(replacement)
    assert messages(path) == ["mine"]
    assert other.read_bytes() == b"theirs"


def test_a_full_disk_drops_and_counts(tmp_path: Path) -> None:
    """Property: on a device that is always full nothing raises, and every line is counted with its reason."""
    path = tmp_path / "full.log"
    path.symlink_to("/dev/full")
    logger = FileLogger(path, "shop")
    trace = Trace(logger=logger)
    for _ in range(10):
        trace.info("x")
    trace.tag([Tag("a", 1)])
    trace.log("r", [1])
    assert logger.stats().drop_reasons == {"ENOSPC": 12}
    assert logger.stats().lines == 0
    assert "No space left" in logger.stats().last_problem


def test_a_short_write_never_tears_a_neighbour(tmp_path: Path) -> None:
    """Property: when the kernel takes a part of a line, that part becomes a line of its own, and every line that was
    counted as written is whole, also those written when there is room again, by this process or the next."""
    path = tmp_path / "limited.log"
    stats = in_child(
        """
        import resource
        from tailrace import FileLogger, Trace
        logger = FileLogger(sys.argv[1], "shop")
        trace = Trace(logger=logger, trace_id="t")
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        for number in range(20):
            trace.info(f"limited {number} " + "y" * 50)
        before = logger.stats()
        resource.setrlimit(resource.RLIMIT_FSIZE, (2500, hard))
        for number in range(20):
            trace.info(f"more {number} " + "z" * 50)
        after = logger.stats()
        print(json.dumps([before.lines, before.dropped, before.short_writes, after.lines, after.drop_reasons]))
        """,
        str(path),
    )
    lines, dropped, short, all_lines, reasons = stats
    assert lines + dropped == 20  # type: ignore[operator]
    assert short == 1
    assert list(reasons) == ["EFBIG"]  # type: ignore[call-overload]
    assert not path.read_bytes().endswith(b"\n")
    Trace(logger=FileLogger(path, "shop"), trace_id="next").info("next process")
    whole, torn = [], []
    for line in path.read_bytes().split(b"\n"):
        try:
            whole += [json.loads(line)["message"].split(" ")[0]] if line else []
        except ValueError:
            torn.append(line)
    assert whole == ["limited"] * lines + ["more"] * (all_lines - lines) + ["next"]  # type: ignore[operator]
    assert len(torn) >= 2
    assert all(line.startswith(b'{"v":1,"kind":"text"') for line in torn)


def test_a_part_of_a_line_left_by_a_crash_is_ended(tmp_path: Path) -> None:
    """Property: lines of a new process do not continue what an earlier one left half-written."""
    path = tmp_path / "trace.log"
    path.write_bytes(b'{"v":1,"kind":"te')
    trace = Trace(logger=FileLogger(path, "shop"))
    trace.info("a")
    trace.info("b")
    head, *rest = path.read_bytes().splitlines()
    assert head == b'{"v":1,"kind":"te'
    assert [json.loads(line)["message"] for line in rest] == ["a", "b"]


def test_a_directory_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    """Property: where the file cannot be made, lines are counted with the true reason; when it can be, they are written."""
    (tmp_path / "blocked").write_text("a file where a directory should be")
    path = tmp_path / "blocked" / "trace.log"
    logger = FileLogger(path, "shop", check_ms=1)
    trace = Trace(logger=logger)
    trace.info("x")
    assert set(logger.stats().drop_reasons) <= {"EEXIST", "ENOTDIR"}
    assert logger.stats().dropped == 1
    (tmp_path / "blocked").unlink()
    write_until(trace, lambda: path.exists() and path.stat().st_size > 0)
    assert messages(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_forbidden_directory_drops_and_counts(tmp_path: Path, mode: int) -> None:
    """Property: without permission to write, or even to search the directory, nothing raises, and the reason is counted."""
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(mode)
    for parent in (tmp_path, *tmp_path.parents[:-2]):
        parent.chmod(0o755)
    stats = in_child(
        """
        from tailrace import FileLogger, Trace
        Trace(logger=(logger := FileLogger(sys.argv[2], "warm-up"))).log("r", 1)
        os.setuid(65534)
        logger = FileLogger(sys.argv[1], "shop")
        Trace(logger=logger).info("x")
        print(json.dumps(logger.stats().drop_reasons))
        """,
        str(folder / "trace.log"),
        str(tmp_path / "warm.log"),
    )
    assert stats == {"EACCES": 1}


def test_a_working_directory_that_is_gone_drops_and_counts(tmp_path: Path) -> None:
    """Property: a relative path in a directory that was deleted raises nothing, and the reason is counted."""
    gone = tmp_path / "gone"
    gone.mkdir()
    stats = in_child(
        """
        from tailrace import FileLogger, Trace
        os.chdir(sys.argv[1])
        os.rmdir(sys.argv[1])
        logger = FileLogger("logs/trace.log", "shop")
        Trace(logger=logger).info("x")
        print(json.dumps(logger.stats().drop_reasons))
        """,
        str(gone),
    )
    assert stats == {"ENOENT": 1}


def test_a_pipe_that_nobody_reads_does_not_block(tmp_path: Path) -> None:
    """Property: neither opening nor filling a pipe waits."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    logger = FileLogger(path, "shop", check_ms=0)
    trace = Trace(logger=logger)
    trace.info("nobody there")
    assert logger.stats().drop_reasons == {"ENXIO": 1}
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    for _ in range(2000):
        trace.info("x" * 200)
    os.close(reader)
    assert logger.stats().drop_reasons["EAGAIN"] > 0
    assert logger.stats().lines > 0


def test_logging_in_a_signal_handler_does_not_deadlock(tmp_path: Path) -> None:
    """Property: a handler that logs, also about losses, while the interrupted code logs, neither waits nor tears."""
    path = tmp_path / "trace.log"
    logger = FileLogger(path, "shop", check_ms=0)
    trace = Trace(logger=logger)
    handled = 0

    def handler(*_: object) -> None:
        nonlocal handled
        handled += 1
        trace.info("handler")
        trace.tag([Tag("", 1)])

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        sent = 0
        while handled < 50:
            trace.info("main")
            trace.tag([Tag("", 1)])
            sent += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(messages(path)) == sent + handled
    assert logger.stats().invalid_tags == sent + handled


def test_logging_at_interpreter_shutdown_is_silent(tmp_path: Path) -> None:
    """Property: lines logged from `atexit` and from finalisers neither raise nor print."""
    path = tmp_path / "trace.log"
    code = (
        "import atexit\nfrom tailrace import FileLogger, Trace\n"
        f"trace = Trace(logger=FileLogger({str(path)!r}, 'shop'))\n"
        "class Late:\n    def __del__(self, trace=trace): trace.info('finaliser')\n"
        "late = Late()\natexit.register(trace.info, 'atexit')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert messages(path)[0] == "atexit"


def test_running_out_of_descriptors_is_survived(tmp_path: Path) -> None:
    """Property: a logger that finds no descriptor free counts what it drops and recovers when there is one."""
    path = tmp_path / "trace.log"
    stats = in_child(
        """
        import resource, time
        from tailrace import FileLogger, Trace
        Trace(logger=FileLogger(sys.argv[1] + ".warm", "warm")).log("r", 1)
        held = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        try:
            while True: held.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
        logger = FileLogger(sys.argv[1], "shop", check_ms=1)
        trace = Trace(logger=logger)
        trace.info("lost")
        reasons = dict(logger.stats().drop_reasons)
        for fd in held: os.close(fd)
        deadline = time.monotonic() + 20
        while not logger.stats().lines and time.monotonic() < deadline:
            trace.info("found")
            time.sleep(0.002)
        print(json.dumps([reasons, logger.stats().lines]))
        """,
        str(path),
    )
    assert stats == [{"EMFILE": 1}, 1]
    assert messages(path) == ["found"]


@pytest.mark.parametrize(("path", "project"), [("", "shop"), ("trace.log", ""), ("trace.log", None)])
def test_a_wrong_setting_is_refused_at_start(tmp_path: Path, path: str, project: str) -> None:
    """Property: what can never work is said when the logger is made, not while the service runs."""
    with pytest.raises(ConfigError):
        FileLogger(tmp_path / path, project)


def test_a_logger_releases_its_descriptor(tmp_path: Path) -> None:
    """Property: loggers that are dropped leave no descriptor behind, closed or not."""
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(20):
        logger = FileLogger(tmp_path / f"{number}.log", "shop")
        Trace(logger=logger).info("x")
        if number % 2:
            logger.close()
    del logger
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
