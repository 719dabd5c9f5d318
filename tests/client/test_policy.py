"""Sampling and redaction: what a logger's policy keeps out of its lines."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace import Client, ConfigError, Metadata, Tag, Trace, User
from tailrace.ids import new_trace_id
from tailrace.policy import Policy, is_sampled
from tailrace.testing import MemoryLogger

pytestmark = pytest.mark.filterwarnings("ignore:tailrace:RuntimeWarning")

SECRET = "5105-1051-0510-5100"


def test_the_share_of_traces() -> None:
    """Property: about the stated share of ids is sampled, new ids and counted ones alike."""
    for ids in ([new_trace_id() for _ in range(20_000)], [f"request {n}" for n in range(20_000)]):
        for rate in (0.01, 0.25, 0.9):
            share = sum(is_sampled(trace_id, rate) for trace_id in ids) / len(ids)
            assert abs(share - rate) < 0.02


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_all_services_agree(trace_id: str, one: float, other: float) -> None:
    """Property: the id alone decides, a higher rate has all of a lower one, 0 is nothing and 1 is everything."""
    low, high = sorted((one, other))
    assert is_sampled(trace_id, high) or not is_sampled(trace_id, low)
    assert is_sampled(trace_id, 1.0)
    assert not is_sampled(trace_id, 0.0)
    logger = MemoryLogger(sample_rate=low)
    assert Trace(logger, trace_id or "x").sampled == is_sampled(trace_id or "x", low)


def test_the_hash_never_changes() -> None:
    """Property: the decision is the documented one, so that services of other versions and languages agree."""
    assert [is_sampled("order 17", rate) for rate in (0.32, 0.33)] == [False, True]
    assert Trace(MemoryLogger(sample_rate=0.0), sampled=True).sampled
    with pytest.raises(ConfigError):
        MemoryLogger(sample_rate=1.5)
    with pytest.raises(ConfigError):
        Policy(max_object_bytes=1)


def log_everywhere(logger: MemoryLogger, secret: str) -> None:
    """A secret in every place that a service can put one."""
    trace = Client(logger).trace(
        name=secret,
        conversation_id=secret,
        session_id=secret,
        user=User(id=secret, card=secret),
        metadata=Metadata(card=secret),
    )
    trace.context(user=secret)
    for level in ("debug", "info", "warning", "error", "critical"):
        getattr(trace, level)(f"card {secret}")
    try:
        raise ValueError(secret)
    except ValueError as exc:
        trace.exception("paying")
        trace.tool(secret).fail(exc)
    trace.tag([{"name": "card", "value": secret, "type": "label"}, Tag("list", [secret]), Tag("n", 1)])
    trace.log("card", {"card": secret})
    trace.log("text", secret)
    with trace.message({"card": secret}, name=secret, attributes={"a": secret}) as message:
        message.end([secret], usage={"note": secret})
    trace.generation(secret, prompt=secret, model="m", note=secret).end(secret, finish_reason=secret)
    trace.feedback("CARD", secret)


def test_a_secret_is_in_no_line() -> None:
    """Property: the hook sees every value, told what it is, and the lines hold what it returns."""
    asked: list[str] = []

    def redact(what: str, value: Any) -> Any:
        asked.append(what)
        text = json.dumps(value, default=str)
        return json.loads(text.replace(SECRET, "[card]"))

    plain, logger = MemoryLogger(), MemoryLogger(redact=redact)
    log_everywhere(plain, SECRET)
    log_everywhere(logger, SECRET)
    assert len(logger.raw) == len(plain.raw)
    assert sum(SECRET.encode() in line for line in plain.raw) == len(plain.raw)
    assert SECRET.encode() not in b"".join(logger.raw)
    assert sum(b"[card]" in line for line in logger.raw) == len(logger.raw)
    assert set(asked) == {
        "message",
        "tag:card",
        "tag:list",
        "tag:n",
        "object:card",
        "object:text",
        "name",
        "input",
        "output",
        "error",
        "attributes",
        "usage",
        "user",
        "metadata",
        "conversation_id",
        "session_id",
        "feedback_text",
    }
    assert logger.of_kind("tags")[0]["tags"][2] == {"name": "n", "value": 1, "type": "label"}
    assert (logger.stats().altered, logger.stats().dropped) == (0, 0)


def test_a_hook_that_raises_leaks_nothing(recwarn: pytest.WarningsRecorder) -> None:
    """Property: when the hook fails the value is replaced, not written; each is counted, and no report holds the value."""

    def redact(what: str, value: Any) -> Any:
        raise RuntimeError(f"cannot redact {value}")

    logger = MemoryLogger(redact=redact)
    log_everywhere(logger, SECRET)
    assert SECRET.encode() not in b"".join(logger.raw)
    assert all(b"<redaction failed: RuntimeError>" in line for line in logger.raw)
    assert logger.stats().dropped == 0
    assert logger.stats().altered >= len(logger.raw)
    assert SECRET not in logger.stats().last_problem
    assert not any(SECRET in str(warning.message) for warning in recwarn)


@pytest.mark.parametrize("returned", [None, 7, float("nan"), ["a"], {"b": 1}, object(), "\ud800"])
def test_a_hook_may_return_anything(returned: Any) -> None:
    """Property: whatever the hook returns, every line is JSON and nothing is raised."""
    logger = MemoryLogger(redact=lambda what, value: returned)
    log_everywhere(logger, SECRET)
    assert len(logger.lines) > 10
    assert SECRET.encode() not in b"".join(logger.raw)
    assert logger.stats().dropped == 0
