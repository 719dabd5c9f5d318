"""What the documentation of LLM tracing shows a service doing, from the service's code to `tailrace trace`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.cli import report, tailrace
from tailrace import Client, FileLogger, Metadata, Trace, User, current_trace, traced


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every trace of this module, by what it shows, as `tailrace trace --format json` tells it."""
    folder = tmp_path_factory.mktemp("llm")
    logger = FileLogger(folder / "app.log", project_id="assistant")
    client = Client(logger)
    written = {
        "basic": basic_usage(client),
        "types": event_types(client),
        "nested": nested_tracing(client),
        "failed": nested_tracing(client, fail=True),
        "services": two_services(folder),
        "functions": functions(logger),
    }
    written["killed"] = killed(folder / "killed.log")
    stats = logger.stats()
    assert (stats.dropped, stats.altered, stats.ended_again) == (0, 0, 1)
    logger.close()
    dsn = f"chdb://{folder / 'db'}"
    tailrace("up", "--once", "--clickhouse", dsn, *sorted(folder.glob("*.log")))
    documents = {name: report("trace", trace_id, "--clickhouse", dsn) for name, trace_id in written.items()}
    documents["table"] = tailrace("trace", written["types"], "--clickhouse", dsn).stdout
    return documents


def basic_usage(client: Client) -> str:
    trace = client.trace(conversation_id="conv_123", session_id="session_123")
    message = trace.message("User: What's the weather?")
    message.end("Bot: It's sunny!")
    return trace.trace_id


def event_types(client: Client) -> str:
    trace = client.trace(conversation_id="conv_124")
    message = trace.message("User input")
    tool = message.tool("Calling weather API")
    tool.end("API response received")
    generation = message.generation(
        "Generating response",
        model="some-model",
        provider="some-provider",
        prompt=[{"role": "user", "content": "User input ✓"}],
        temperature=0.2,
        max_tokens=256,
    )
    generation.end("Response generated", input_tokens=12, output_tokens=30, cost=0.0021, finish_reason="stop")
    agent = message.agent("Planning next action")
    agent.end("Decided to search database")
    retrieval = message.retrieval("Searching knowledge base")
    retrieval.end("Found 3 relevant documents")
    message.end("Bot response")
    system = trace.system("Initializing cache")
    system.end("Cache warmed up")
    custom = trace.event({"step": 1}, name="checkout")
    custom.end({"ok": True})
    trace.feedback(feedback_tag="THUMBS_UP", feedback_text="User marked response as helpful")
    return trace.trace_id


def nested_tracing(client: Client, *, fail: bool = False) -> str:
    trace = client.trace(
        conversation_id="conv_123",
        metadata=Metadata(environment="production"),
        user=User(id="user_123"),
    )
    try:
        message = trace.message("User: Tell me about neural networks")

        retrieval = message.retrieval("Searching documentation")
        retrieval.end("Found 2 relevant articles")

        with message.generation("Creating explanation") as generation:
            if fail:
                raise TimeoutError("the model did not answer")
            generation.end("Generated response about neural networks")

        message.end("Bot: Neural networks are...")
        if not fail:
            message.end("a second time")
    except Exception as e:
        message.end(f"Error: {e!s}")
    return trace.trace_id


def two_services(folder: Path) -> str:
    here, there = FileLogger(folder / "here.log", "assistant"), FileLogger(folder / "there.log", "assistant")
    trace = Trace(here, "order 17")
    with trace.message("over there, please"):
        headers = trace.headers()
    joined = Trace.from_headers(headers, there)
    with joined, joined.agent("at your service") as agent:
        agent.tool("lookup").end("found")
    return trace.trace_id


def functions(logger: FileLogger) -> str:
    @traced
    def rank(candidates: list[int]) -> int:
        return max(candidates)

    @traced(logger=logger, name="predict")
    def predict() -> None:
        trace = current_trace()
        assert trace is not None
        found.append(trace.trace_id)
        rank([1, 2])
        raise ValueError("no model")

    found: list[str] = []
    with pytest.raises(ValueError, match="no model"):
        predict()
    return found[0]


def killed(log: Path) -> str:
    script = """
import sys, time
from tailrace import Client, FileLogger
trace = Client(FileLogger(sys.argv[1], "assistant")).trace(conversation_id="conv_125")
with trace.message("User: a long story"), trace.generation(model="some-model") as generation:
    print(trace.trace_id, flush=True)
    time.sleep(600)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(log)], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert child.stdout is not None
    trace_id = child.stdout.readline().strip()
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    return trace_id


def tree(events: list[dict[str, Any]]) -> list[Any]:
    """Type, input, output, status, and those inside."""
    return [
        (e["type"], e["input"], e["output"], e["status"], tree(e["children"])) if e["children"] else
        (e["type"], e["input"], e["output"], e["status"])
        for e in events
    ]  # fmt: skip


def test_basic_usage(told: dict[str, Any]) -> None:
    """A message with its answer, in a conversation and a session."""
    document = told["basic"]
    assert document["context"]["conversation_id"] == "conv_123"
    assert document["context"]["session_id"] == "session_123"
    assert tree(document["events"]) == [("MESSAGE", "User: What's the weather?", "Bot: It's sunny!", "ok")]


def test_event_types(told: dict[str, Any]) -> None:
    """Every type of event, nested as it was logged, and the feedback."""
    document = told["types"]
    prompt = [{"role": "user", "content": "User input ✓"}]
    assert tree(document["events"]) == [
        (
            "MESSAGE",
            "User input",
            "Bot response",
            "ok",
            [
                ("TOOL", "Calling weather API", "API response received", "ok"),
                ("GENERATION", prompt, "Response generated", "ok"),
                ("AGENT", "Planning next action", "Decided to search database", "ok"),
                ("RETRIEVAL", "Searching knowledge base", "Found 3 relevant documents", "ok"),
            ],
        ),
        ("SYSTEM", "Initializing cache", "Cache warmed up", "ok"),
        ("CUSTOM", {"step": 1}, {"ok": True}, "ok"),
    ]
    generation = document["events"][0]["children"][1]
    assert generation["name"] == "Generating response"
    assert generation["attributes"] == {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "some-model",
        "gen_ai.provider.name": "some-provider",
        "gen_ai.request.temperature": 0.2,
        "gen_ai.request.max_tokens": 256,
    }
    assert generation["usage"] == {
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 30,
        "gen_ai.usage.cost": 0.0021,
        "gen_ai.response.finish_reasons": ["stop"],
    }
    (feedback,) = document["feedback"]
    assert (feedback["tag"], feedback["text"]) == ("THUMBS_UP", "User marked response as helpful")
    assert "request.model=some-model" in told["table"]
    assert "GENERATION Generating response" in told["table"]


def test_nested_tracing(told: dict[str, Any]) -> None:
    """A conversation with its user and metadata; an end after the end changes nothing."""
    document = told["nested"]
    assert document["context"]["metadata"] == {"environment": "production"}
    assert (document["context"]["user_id"], document["context"]["user"]) == ("user_123", {"id": "user_123"})
    assert not document["error"]
    assert tree(document["events"]) == [
        (
            "MESSAGE",
            "User: Tell me about neural networks",
            "Bot: Neural networks are...",
            "ok",
            [
                ("RETRIEVAL", "Searching documentation", "Found 2 relevant articles", "ok"),
                ("GENERATION", "Creating explanation", "Generated response about neural networks", "ok"),
            ],
        )
    ]


def test_nested_tracing_that_fails(told: dict[str, Any]) -> None:
    """The exception is in the event that it ended, and the message ends as the service says."""
    document = told["failed"]
    (message,) = document["events"]
    assert message["output"] == "Error: the model did not answer"
    generation = message["children"][1]
    assert (generation["status"], generation["error"]) == ("error", "TimeoutError: the model did not answer")
    assert document["error"]


def test_a_trace_over_two_services(told: dict[str, Any]) -> None:
    """What another service does for a request is part of the event that the request was made in."""
    document = told["services"]
    assert document["trace_id"] == "order 17"
    assert tree(document["events"]) == [
        (
            "MESSAGE",
            "over there, please",
            None,
            "ok",
            [("AGENT", "at your service", None, "ok", [("TOOL", "lookup", "found", "ok")])],
        )
    ]


def test_functions(told: dict[str, Any]) -> None:
    """Traced functions are tags of one trace: durations as metrics, the failure as an error, its traceback as a text."""
    document = told["functions"]
    assert document["context"]["name"] == "predict"
    assert document["error"]
    tags = [(tag["name"], tag["type"], tag["group"].rpartition(".")[2]) for tag in document["tags"]]
    assert tags == [
        ("duration_ms", "metric", "rank"),
        ("duration_ms", "metric", "predict"),
        ("error", "error", "predict"),
    ]
    assert all(isinstance(tag["value"], float) for tag in document["tags"][:2])
    (text,) = document["texts"]
    assert text["message"].endswith("ValueError: no model")


def test_a_process_that_was_killed(told: dict[str, Any]) -> None:
    """What was running when the process was killed is open, and says what it was."""
    message, generation = told["killed"]["events"]
    assert (message["status"], message["ended"], message["duration"]) == ("open", None, None)
    assert (generation["type"], generation["status"], generation["ended"]) == ("GENERATION", "open", None)
    assert generation["attributes"]["gen_ai.request.model"] == "some-model"


def test_the_documents_are_json(told: dict[str, Any]) -> None:
    """What scripts read holds nothing that JSON does not have."""
    json.dumps({name: document for name, document in told.items() if name != "table"}, allow_nan=False)
