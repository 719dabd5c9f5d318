"""LLM events: two lines each, nested, under the conventional names, and whatever happens in between."""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

import tailrace
from tailrace import Client, FileLogger, Generation, Metadata, Trace, TraceEvent, User
from tailrace.schemas.records import AnyRecord
from tailrace.testing import MemoryLogger

pytestmark = pytest.mark.filterwarnings("ignore:tailrace:RuntimeWarning")

KINDS = {
    "message": "MESSAGE",
    "tool": "TOOL",
    "generation": "GENERATION",
    "agent": "AGENT",
    "retrieval": "RETRIEVAL",
    "system": "SYSTEM",
    "event": "CUSTOM",
}


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


def ends(logger: MemoryLogger) -> list[dict[str, Any]]:
    return logger.of_kind("event_end")


def starts(logger: MemoryLogger) -> list[dict[str, Any]]:
    return logger.of_kind("event_start")


def test_every_kind_of_event_nests_in_every_other() -> None:
    """Property: each method begins an event of its type below the one it is called on; start and end are written when
    they happen, and all lines are records of tailrace v1."""
    logger = MemoryLogger()
    trace = Trace(logger)
    for outer in KINDS:
        above = getattr(trace, outer)(f"{outer} input")
        for inner in KINDS:
            below: TraceEvent = getattr(above, inner)({"q": [1, None]}, name=inner)
            start = starts(logger)[-1]
            assert (start["event_type"], start["parent_id"]) == (KINDS[inner], above.event_id)
            assert (start["event_id"], start["input"]) == (below.event_id, {"q": [1, None]})
            assert start["name"] == inner
            assert not below.ended
            below.end({"answer": 42})
            assert below.ended
            end = ends(logger)[-1]
            assert (end["event_id"], end["output"], end["status"]) == (below.event_id, {"answer": 42}, "ok")
        assert "parent_id" not in next(s for s in starts(logger) if s["event_id"] == above.event_id)
        above.end()
    for line in logger.raw:
        msgspec.json.decode(line, type=AnyRecord)
    assert len({start["event_id"] for start in starts(logger)}) == len(starts(logger)) == 7 + 49
    assert len(ends(logger)) == 7 + 49
    assert logger.stats().altered == logger.stats().dropped == 0


def test_a_client_says_what_a_trace_belongs_to() -> None:
    """Property: conversation, session, user and metadata are one line, also when said later; without any, there is none."""
    logger = MemoryLogger()
    client = Client(logger)
    trace = client.trace(
        name="chat",
        conversation_id="conv_123",
        session_id="session_123",
        metadata=Metadata(environment="production"),
        user=User(id=7, plan="pro"),
    )
    (line,) = logger.lines
    assert line["kind"] == "trace"
    assert {key: line[key] for key in ("name", "conversation_id", "session_id", "user", "metadata")} == {
        "name": "chat",
        "conversation_id": "conv_123",
        "session_id": "session_123",
        "user": {"id": "7", "plan": "pro"},
        "metadata": {"environment": "production"},
    }
    trace.context(user="somebody else", metadata=[1, 2])
    assert (logger.lines[1]["user"], logger.lines[1]["metadata"]) == ("somebody else", [1, 2])
    logger.clear()
    client.trace("an id")
    assert logger.lines == []
    trace.feedback(feedback_tag="THUMBS_UP", feedback_text="helpful", score=0.5)
    trace.feedback("", score=float("nan"))
    first, second = logger.lines
    assert (first["feedback_tag"], first["feedback_text"], first["score"]) == ("THUMBS_UP", "helpful", 0.5)
    assert (second["feedback_tag"], second.get("score")) == ("unnamed", None)
    assert logger.stats().altered == 1
    for raw in logger.raw:
        msgspec.json.decode(raw, type=AnyRecord)


def test_a_generation_is_written_under_the_conventional_names() -> None:
    """Property: what providers call by many names has one name in the lines; the start has all that is known then."""
    logger = MemoryLogger()
    trace = Trace(logger)
    generation = trace.generation(
        "Creating explanation",
        prompt=[{"role": "user", "content": "hi"}],
        model="gpt-4o",
        provider="openai",
        parameters={"temperature": 0.2, "max_completion_tokens": 100, "stop": "\n", "seed": None},
        top_p=0.9,
        attributes={"server.address": "example.org"},
    )
    assert isinstance(generation, Generation)
    start = starts(logger)[0]
    assert (start["name"], start["input"]) == ("Creating explanation", [{"role": "user", "content": "hi"}])
    assert start["attributes"] == {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.temperature": 0.2,
        "gen_ai.request.max_tokens": 100,
        "gen_ai.request.stop_sequences": ["\n"],
        "gen_ai.request.top_p": 0.9,
        "server.address": "example.org",
    }
    generation.end(
        "done",
        usage=SimpleNamespace(prompt_tokens=12, completion_tokens=30, total_tokens=42),
        cost=0.0021,
        model="gpt-4o-2024-08-06",
        finish_reason="stop",
    )
    assert ends(logger)[0]["usage"] == {
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 30,
        "gen_ai.usage.total_tokens": 42,
        "gen_ai.usage.cost": 0.0021,
        "gen_ai.response.model": "gpt-4o-2024-08-06",
        "gen_ai.response.finish_reasons": ["stop"],
    }
    for usage in ({"input_tokens": 1, "cache_read_input_tokens": 2}, {"gen_ai.usage.input_tokens": 1}):
        trace.generation("x").end(usage=usage)
        assert ends(logger)[-1]["usage"]["gen_ai.usage.input_tokens"] == 1
    assert ends(logger)[-2]["usage"]["gen_ai.usage.cache_read.input_tokens"] == 2
    trace.generation("x").end(input_tokens=3, output_tokens=4)
    assert ends(logger)[-1]["usage"] == {"gen_ai.usage.input_tokens": 3, "gen_ai.usage.output_tokens": 4}


def test_a_block_ends_its_event() -> None:
    """Property: leaving a block ends the event once; an exception makes it an error and goes on as the same object."""
    logger = MemoryLogger()
    trace = Trace(logger)
    with trace.message("hi") as message, message.tool("search") as tool:
        tool.end("found")
    with pytest.raises(ValueError, match="boom") as caught, trace.agent("plan") as agent:
        raise ValueError("boom")
    assert caught.value.__context__ is None
    assert agent.ended

    async def run() -> None:
        async with trace.generation("g") as generation:
            await asyncio.sleep(0)
            generation.end("ok")
        with pytest.raises(KeyError):
            async with trace.retrieval("r"):
                raise KeyError
        task = asyncio.create_task(forever())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def forever() -> None:
        async with trace.tool("forever"):
            await asyncio.sleep(1000)

    asyncio.run(run())
    assert [(e["status"], e.get("output"), e.get("error")) for e in ends(logger)] == [
        ("ok", "found", None),
        ("ok", None, None),
        ("error", None, "ValueError: boom"),
        ("ok", "ok", None),
        ("error", None, "KeyError"),
        ("error", None, "CancelledError"),
    ]


def test_what_fails_and_what_ends_twice() -> None:
    """Property: the first end stands, whoever makes it; every other one is counted and writes nothing."""
    logger = MemoryLogger()
    trace = Trace(logger)
    tool = trace.tool("x")
    tool.fail(TimeoutError("too slow"), output="half", usage={"cost": 1})
    tool.end("y")
    tool.fail("z")
    (end,) = ends(logger)
    assert (end["status"], end["error"], end["output"]) == ("error", "TimeoutError: too slow", "half")
    assert end["usage"] == {"gen_ai.usage.cost": 1}
    assert logger.stats().ended_again == 2
    tool = trace.tool("raced")
    barrier = threading.Barrier(8)

    def race() -> None:
        barrier.wait()
        tool.end("mine")

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ends(logger)) == 2
    assert logger.stats().ended_again == 9
    trace.tool("custom").end(status="refused")
    assert ends(logger)[-1]["status"] == "refused"


def circular() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [Unprintable(), circular(), "\ud800", float("nan"), b"\xff", 10**5000, {1: object()}, {"a": {2, 3}}],
    ids=["unprintable", "circular", "surrogate", "nan", "bytes", "huge", "object", "set"],
)
def test_nothing_that_is_given_raises(value: Any) -> None:
    """Property: whatever stands in whatever place, every method returns, and every line is a record."""
    logger = MemoryLogger()
    trace = Trace(logger)
    trace.context(name=value, conversation_id=value, session_id=value, user=value, metadata=value)
    trace.context(user={"id": value, "x": value})
    trace.feedback(value, value, score=value)
    event = trace.event(value, name=value, attributes={"a": value})
    event.generation(value, prompt=value, model=value, parameters={"p": value}, t=value).end(
        value, usage=value, cost=value
    )
    event.generation(value, parameters=value, attributes=value).end(value, usage={"u": value}, model=value)
    event.tool(value).fail(value, output=value, usage=value)
    event.end(value, status=value, usage=value)
    trace.exception(value)
    trace.headers()
    lines = logger.raw
    assert (len(lines), logger.stats().dropped) == (12, 0)
    for line in lines:
        json.loads(line)
        if b"NaN" not in line:
            msgspec.json.decode(line, type=AnyRecord)


def test_what_is_too_large_is_kept_out_of_the_line() -> None:
    """Property: an input over the limit is replaced by a stand-in and counted, so that the line is never refused."""
    logger = MemoryLogger(max_object_bytes=2000)
    event = Trace(logger).tool("x" * 5000)
    event.end(["y"] * 5000)
    assert max(map(len, logger.raw)) < 4000
    assert logger.stats().oversized == 2


SCRIPT = """
import os, sys, time, threading
from tailrace import FileLogger, Trace
logger = FileLogger(sys.argv[1], "p")
trace = Trace(logger)
message = trace.message("hi")
done = message.tool("done"); done.end("x")
generation = message.generation("thinking", model="m", temperature=0.5)
dropped = trace.tool("dropped"); del dropped
"""


def run_script(path: Path, rest: str) -> list[dict[str, Any]]:
    done = subprocess.run([sys.executable, "-c", SCRIPT + rest, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize(
    "rest", ["", "logger.close()", "import atexit\nsys.exit(0)", "logger.close(); logger.close()"]
)
def test_events_that_are_open_at_exit_are_marked(tmp_path: Path, rest: str) -> None:
    """Property: at a regular exit, or when the logger is closed, each open event that can still be reached ends once, in
    status `open`, without a warning."""
    lines = run_script(tmp_path / "a.log", rest)
    kinds = {line["event_id"]: line["event_type"] for line in lines if line["kind"] == "event_start"}
    status = [(kinds[line["event_id"]], line["status"]) for line in lines if line["kind"] == "event_end"]
    assert sorted(status) == [("GENERATION", "open"), ("MESSAGE", "open"), ("TOOL", "ok")]


def test_a_forked_child_leaves_its_parents_events_alone(tmp_path: Path) -> None:
    """Property: a child that exits marks its own open events only; it may still end its parent's by hand."""
    rest = """
if (child := os.fork()) == 0:
    mine = trace.system("mine")
    message.end("from the child")
    sys.exit(0)
os.waitpid(child, 0)
"""
    lines = run_script(tmp_path / "a.log", rest)
    kinds = {line["event_id"]: line["event_type"] for line in lines if line["kind"] == "event_start"}
    ended = [(kinds[line["event_id"]], line["status"]) for line in lines if line["kind"] == "event_end"]
    assert ended[:3] == [("TOOL", "ok"), ("MESSAGE", "ok"), ("SYSTEM", "open")]
    assert sorted(ended[3:]) == [("GENERATION", "open"), ("MESSAGE", "open")]


def test_events_do_not_pile_up() -> None:
    """Property: what nobody holds any more is freed, whether it has ended or not."""
    import weakref

    logger = MemoryLogger()
    trace = Trace(logger)
    left, ended = trace.tool("left"), trace.tool("ended")
    ended.end()
    seen = [weakref.ref(left), weakref.ref(ended)]
    del left, ended
    gc.collect()
    assert [reference() for reference in seen] == [None, None]
    logger.close()
    assert logger.stats().dropped == 0


def test_an_unsampled_trace_writes_nothing() -> None:
    """Property: of a trace outside of the sample no method writes a line, and each works as usual."""
    logger = MemoryLogger(sample_rate=0.0)
    trace = Client(logger).trace(conversation_id="c", user="u")
    assert not trace.sampled
    trace.info("x")
    trace.error("x")
    trace.exception("x")
    trace.tag([{"name": "a", "value": 1}])
    trace.log("r", 1)
    trace.feedback("t")
    with trace.message("x") as message:
        assert tailrace.current_event() is message
        with message.generation("g", model="m") as generation:
            generation.end("y", input_tokens=1)
    assert generation.ended
    assert logger.lines == []
    assert (logger.stats().sampled_out, logger.stats().lines) == (1, 0)


def in_child(path: str, ready: Any) -> None:
    trace = Trace(FileLogger(path, "p"))
    generation = trace.generation("thinking", model="m")
    ready.set()
    signal.pause()
    generation.end()


def test_a_process_killed_amid_a_generation_shows_it_open(tmp_path: Path) -> None:
    """Property: after SIGKILL the start line is there, with what was known of the request, and no end."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    child = context.Process(target=in_child, args=(str(tmp_path / "a.log"), ready))
    child.start()
    assert ready.wait(60)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    (line,) = [json.loads(raw) for raw in (tmp_path / "a.log").read_bytes().splitlines()]
    assert line["kind"] == "event_start"
    assert line["attributes"]["gen_ai.request.model"] == "m"


def test_signatures_are_the_same_on_traces_and_events() -> None:
    """Property: what a trace can begin an event can too."""
    methods: list[Callable[..., Any]] = [getattr(Trace, name) for name in KINDS]
    assert methods == [getattr(TraceEvent, name) for name in KINDS]


def test_a_trace_id_that_no_record_could_have() -> None:
    """Property: an id that is too long is cut and counted, so that no line of the trace is refused."""
    logger = MemoryLogger()
    trace = Trace(logger, "x" * 2000)
    trace.info("hi")
    msgspec.json.decode(logger.raw[0], type=AnyRecord)
    assert (len(trace.trace_id), logger.stats().altered) == (1024, 1)


def test_the_example_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Property: what the README shows of conversations, services and functions works as it stands there."""
    page = (Path(__file__).parents[2] / "README.md").read_text()
    examples = re.findall(r"^```py\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (example,) = (each for each in examples if "trace.message(" in each)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    lines = [json.loads(line) for line in Path("logs/assistant.log").read_bytes().splitlines()]
    assert len({line["trace_id"] for line in lines}) == 1
    assert [line["kind"] for line in lines] == [
        *("trace", "event_start", "event_start", "event_end", "event_end", "feedback", "text", "tags")
    ]
