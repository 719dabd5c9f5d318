"""The standard library's logging, attached to the current trace."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.processes import in_child, messages
from tailrace import FileLogger, TailraceHandler, Trace
from tailrace.testing import MemoryLogger

quiet = pytest.mark.filterwarnings("ignore:tailrace:RuntimeWarning")


@pytest.fixture
def log(request: pytest.FixtureRequest) -> Iterator[logging.Logger]:
    log = logging.getLogger(f"test.{request.node.name}")
    log.propagate = False
    log.setLevel(1)
    yield log
    log.handlers.clear()


def test_records_belong_to_the_current_trace(log: logging.Logger) -> None:
    """Property: in nested traces and in threads each record is a text of the trace that is current there; levels map
    to the next lower one."""
    memory = MemoryLogger("shop")
    log.addHandler(TailraceHandler())
    outer, inner, other = Trace(logger=memory), Trace(logger=memory), Trace(logger=memory)

    def elsewhere() -> None:
        with other:
            log.info("other")

    with outer:
        log.info("outer %d", 1)
        with inner:
            log.error("inner")
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
        log.info("outer %(n)d", {"n": 2})
    found = [(line["trace_id"], line["message"]) for line in memory.lines]
    ids = [outer.trace_id, inner.trace_id, other.trace_id, outer.trace_id]
    assert found == list(zip(ids, ["outer 1", "inner", "other", "outer 2"], strict=True))
    memory.clear()
    with outer:
        for level in (5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 99):
            log.log(level, "x")
    names = ["debug"] * 3 + ["info"] * 2 + ["warning"] * 2 + ["error"] * 2 + ["critical"] * 2
    assert [line["level"] for line in memory.lines] == names


def test_exceptions_and_extra_fields_are_in_the_text(log: logging.Logger) -> None:
    """Property: a traceback stands below the message; extra fields only where they are asked for, whatever they hold;
    a formatter is respected."""
    memory = MemoryLogger("shop")
    plain, full = TailraceHandler(), TailraceHandler(logging.ERROR, extra=True)
    full.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    log.addHandler(plain)
    log.addHandler(full)
    loop: list[object] = []
    loop.append(loop)
    with Trace(logger=memory):
        try:
            raise KeyError("boom")
        except KeyError:
            log.exception("failed", extra={"user": "u1", "odd": loop, "nan": float("nan")})
        log.warning("quiet", extra={"user": "u1"})
    first, second, third = (line["message"] for line in memory.lines)
    assert first.startswith("failed\nTraceback")
    assert first.endswith("KeyError: 'boom'")
    assert second.startswith(f"{log.name}: failed\nTraceback")
    assert second.endswith(' {"user":"u1","odd":["<circular>"],"nan":"NaN"}')
    assert third == "quiet"
    assert (plain.stats().lines, full.stats().lines) == (2, 1)


def test_without_a_trace_records_are_dropped_or_go_to_one(log: logging.Logger) -> None:
    """Property: outside of traces records are counted and warned about once; with a logger they make one trace."""
    handler = TailraceHandler()
    log.addHandler(handler)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        log.info("a")
        log.info("b")
    assert len(caught) == 1
    assert handler.stats().drop_reasons == {"no trace": 2}
    memory = MemoryLogger("shop")
    log.handlers[:] = [TailraceHandler(logger=memory)]
    log.info("a")
    log.info("b")
    with Trace(logger=memory) as trace:
        log.info("c")
    log.info("d")
    ids = [line["trace_id"] for line in memory.lines]
    assert ids == [ids[0], ids[0], trace.trace_id, ids[0]]


def test_a_child_has_a_fallback_trace_of_its_own(tmp_path: Path) -> None:
    """Property: processes do not mix their records into one trace; a child's records are written, and shutdown is clean."""
    in_child(
        """
        import logging
        from tailrace import FileLogger, TailraceHandler
        logger = FileLogger(sys.argv[1], "shop", queue_lines=1000)
        logging.basicConfig(level="INFO", format="%(message)s", handlers=[TailraceHandler(logger=logger)])
        logging.info("parent")
        pid = os.fork()
        logging.info("child" if pid == 0 else "parent again")
        if pid == 0:
            logging.shutdown()
            os._exit(0)
        os.waitpid(pid, 0)
        """,
        tmp_path / "a.log",
    )
    assert sorted(messages(tmp_path / "a.log")) == ["child", "parent", "parent again"]
    import json

    ids = {line["message"]: line["trace_id"] for line in map(json.loads, (tmp_path / "a.log").open())}
    assert ids["parent"] == ids["parent again"] != ids["child"]


def test_nothing_raises_and_nothing_is_printed() -> None:
    """Property: arguments that do not fit, and objects that raise when they are printed, cost the record's beauty, not
    the service; stderr stays empty."""
    lines, dropped, texts = in_child(
        """
        import logging
        from tailrace import TailraceHandler, Trace
        from tailrace.testing import MemoryLogger
        class Rude:
            def __str__(self): raise RuntimeError("no")
            __repr__ = __str__
        handler, memory = TailraceHandler(), MemoryLogger("shop")
        log = logging.getLogger("shop")
        log.setLevel("INFO")
        log.addHandler(handler)
        with Trace(logger=memory):
            log.info("%d apples", "two")
            log.info("%s %s", "one")
            log.info("%s", Rude())
            log.info(Rude())
            log.info("fine")
        print(json.dumps([handler.stats().lines, handler.stats().dropped, [line["message"] for line in memory.lines]]))
        """
    )
    assert lines + dropped == 5
    assert texts[0].startswith("%d apples ('two',)")
    assert texts[-1] == "fine"


def test_a_logger_that_warns_does_not_log_for_ever(tmp_path: Path) -> None:
    """Property: when warnings are captured into the same handler whose logger fails, each record is counted once, and
    neither the logger's warning nor the handler's about not writing that one is written in turn."""
    found = in_child(
        """
        import logging
        warnings.simplefilter("always")
        from tailrace import FileLogger, TailraceHandler, Trace
        logging.captureWarnings(True)
        handler = TailraceHandler()
        logging.basicConfig(level="INFO", handlers=[handler])
        logger = FileLogger(sys.argv[1], "shop")
        with Trace(logger=logger):
            for number in range(100):
                logging.info("x")
        print(json.dumps([logger.stats().drop_reasons, handler.stats().lines, handler.stats().drop_reasons]))
        """,
        link_to_full(tmp_path),
    )
    assert found == [{"ENOSPC": 100}, 100, {"logged while logging": 2}]


def link_to_full(folder: Path) -> Path:
    path = folder / "full.log"
    path.symlink_to("/dev/full")
    return path


@quiet
def test_threads_share_a_handler(tmp_path: Path, log: logging.Logger) -> None:
    """Property: many threads that log through one handler lose nothing, each into its own trace."""
    logger = FileLogger(tmp_path / "a.log", "shop")
    log.addHandler(TailraceHandler())

    def work(name: int) -> None:
        with Trace(logger=logger, trace_id=f"t{name}"):
            for step in range(300):
                log.info("%s.%s", name, step)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(messages(tmp_path / "a.log")) == 1800
